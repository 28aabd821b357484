//! Wherever the journal is cut, base and journal give the records; and a journal that fits nothing stops no site.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use tidegate_core::digest::{Sha256, multipart_etag};
use tidegate_core::effect::{Effect, Output};
use tidegate_core::id::Role;
use tidegate_core::id::{
    Boot, ConnId, DeviceId, ETag, EpisodeId, RequestId, SocketId, TaskId, Ticket, UploadId,
};
use tidegate_core::input::{Demand, Input, Request};
use tidegate_core::knobs::Knobs;
use tidegate_core::machine::Rows;
use tidegate_core::object::{
    Composite, Got, ObjectFacts, ObjectOp, ObjectReply, PartFacts, Store as Where, Verb, Want,
};
use tidegate_core::outcome::{Fault, Outcome};
use tidegate_core::policy::{Builtin, Settings};
use tidegate_core::row::{JobState, Qa};
use tidegate_core::time::{Mono, Now, Wall};
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;
use tidegate_policies::Shelf;

use super::*;
use crate::real::RealDisk;
use crate::replay;
use crate::store::{Batch, JOURNAL_LIMIT, Store};

const MIB: u64 = 1 << 20;
const LEN: u64 = 12 * MIB;

type Records = BTreeMap<Key, Row>;

/// A site driven by hand: real machine, one entry per input, and the records after each of them.
struct Life {
    machine: Machine,
    shelf: Shelf,
    now: Now,
    boot: Boot,
    records: Records,
    after: Vec<Records>,
    entries: Vec<JournalEntry>,
    asked: VecDeque<(Ticket, ObjectOp)>,
    /// Objects in the cloud.
    cloud: BTreeMap<String, ObjectFacts>,
    requests: u64,
}

fn device() -> DeviceId {
    DeviceId::new("robot").unwrap()
}

fn knobs() -> Knobs {
    Knobs { destination: true, part_size: 5 * MIB, ..Knobs::default() }
}

fn sha(text: &str) -> Sha256 {
    Sha256::of(text.as_bytes())
}

impl Life {
    fn new() -> Life {
        let mut life = Life {
            machine: Machine::new(),
            shelf: Shelf::with_builtin(Settings::default()),
            now: Now { wall: Wall(1_700_000_000_000), mono: Mono(1) },
            boot: Boot(0),
            records: Records::new(),
            after: vec![Records::new()],
            entries: Vec::new(),
            asked: VecDeque::new(),
            cloud: BTreeMap::new(),
            requests: 0,
        };
        life.start();
        life
    }

    /// The process starts, with what is in the records and nothing else.
    fn start(&mut self) {
        self.boot = Boot(self.boot.0 + 1);
        self.machine = Machine::new();
        self.asked.clear();
        for (key, row) in self.records.iter().filter(|(_, row)| Machine::is_hot(row)) {
            self.machine.load(key, row.clone());
        }
        self.step(Input::Boot { boot: self.boot, seed: 1, knobs: knobs() });
    }

    fn step(&mut self, input: Input) {
        self.now = Now {
            wall: self.now.wall.after(Duration::from_millis(10)),
            mono: self.now.mono.after(Duration::from_millis(10)),
        };
        let (mut cold, mut wanted) = (Rows::new(), BTreeSet::new());
        loop {
            self.machine.wants(self.now, &input, &cold, &mut wanted);
            if wanted.is_empty() {
                break;
            }
            for key in std::mem::take(&mut wanted) {
                let row = self.records.get(&key).cloned();
                cold.insert(key, row);
            }
        }
        let policies = Builtin::new(Settings::default()).id();
        let mut out = Output::default();
        self.machine.step(self.now, &input, &cold, self.shelf.get(policies), &mut out);
        for (key, row) in out.rows {
            match row {
                Some(row) => self.records.insert(key, row),
                None => self.records.remove(&key),
            };
        }
        self.after.push(self.records.clone());
        self.entries.push(JournalEntry {
            seq: Seq(self.entries.len() as u64 + 1),
            now: self.now,
            boot: self.boot,
            input,
            policies,
            rulings: out.rulings,
            cold: cold.into_iter().collect(),
            changes: out.changes,
        });
        for effect in out.effects {
            if let Effect::Object { ticket, op } = effect {
                self.asked.push_back((ticket, op));
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.requests += 1;
        self.step(Input::Request { id: RequestId(self.requests), request });
    }

    fn create(&mut self, task: &str) {
        self.ask(Request::CreateTask {
            task: Some(TaskId::new(task).unwrap()),
            device: device(),
            config: None,
        });
    }

    fn connect(&mut self) {
        let conn = ConnId { boot: self.boot, n: 1 };
        self.step(Input::Knock {
            socket: SocketId(1),
            device: device(),
            role: Role::Transfer,
            remote: "test".to_owned(),
            credential: None,
            port: None,
            demand: Demand::Nothing,
        });
        let message = TransferMessage::Other("hello".to_owned());
        self.step(Input::Transfer { conn, message });
    }

    fn announce(&mut self, task: &str) {
        let announced = Announced {
            task: task.to_owned(),
            key: Some(format!("robot/{task}.mcap")),
            len: Some(LEN),
            sha256: Some(sha("whole")),
            mcap_only: Some(true),
        };
        let conn = ConnId { boot: self.boot, n: 1 };
        self.step(Input::Transfer { conn, message: TransferMessage::UploadComplete(announced) });
    }

    /// Answers operations, oldest first, until none is out or `most` were answered; then timers go off.
    fn answer(&mut self, most: usize) {
        for _ in 0..most {
            let Some((ticket, op)) = self.asked.pop_front() else {
                let Some((at, _)) = self.machine.next_wake().map(|(at, key)| (at, key.clone())) else {
                    return;
                };
                if self.now.mono.until(at) > Duration::from_secs(30) {
                    return;
                }
                self.now.mono = at.max(self.now.mono);
                self.step(Input::Wake);
                continue;
            };
            let outcome = match op.store {
                Where::Edge => edge(&op),
                Where::Cloud => self.in_cloud(&op),
            };
            self.step(Input::Object { ticket, outcome });
        }
    }

    fn in_cloud(&mut self, op: &ObjectOp) -> Outcome<ObjectReply> {
        let upload = || UploadId::new("u1");
        Outcome::Done(match &op.verb {
            Verb::Head => ObjectReply::Head(self.cloud.get(op.key.as_str()).cloned()),
            Verb::Create { .. } => ObjectReply::Created(upload()),
            Verb::PutPart { part, span, .. } => {
                let etag = ETag::new(&format!("{:032x}", part.0));
                ObjectReply::PartStored(PartFacts { etag, sha256: sha("part"), len: span.len })
            }
            Verb::Complete { parts, .. } => {
                let etag = multipart_etag(parts.iter().map(|(_, facts)| &facts.etag)).unwrap();
                let facts = ObjectFacts {
                    len: LEN,
                    etag: etag.clone(),
                    sha256: None,
                    composite: None,
                    announced: Some(sha("whole")),
                };
                self.cloud.insert(op.key.as_str().to_owned(), facts);
                ObjectReply::Completed(etag)
            }
            // What was uploaded before a restart is gone: the session begins anew.
            Verb::ListParts { .. } => ObjectReply::Parts(None),
            Verb::ListUploads => ObjectReply::Uploads(Vec::new()),
            Verb::Abort { .. } => ObjectReply::Aborted,
            Verb::Get { .. } => ObjectReply::Got(Got::Digest { len: LEN, sha256: sha("whole") }),
            Verb::Put { .. } | Verb::Delete | Verb::Find { .. } => {
                return Outcome::Failed(Fault::NoDestination);
            }
        })
    }

    fn batch(&self, n: usize) -> Batch {
        let (before, after) = (&self.after[n], &self.after[n + 1]);
        let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (key.clone(), None));
        let there = after.iter().filter(|(key, row)| before.get(key) != Some(row));
        let there = there.map(|(key, row)| (key.clone(), Some(row.clone())));
        Batch {
            rows: gone.chain(there).collect(),
            entries: vec![self.entries[n].clone()],
            ..Batch::default()
        }
    }

    fn jobs(&self) -> Vec<&JobState> {
        let mut jobs = Vec::new();
        for row in self.records.values() {
            if let Row::Job(row) = row {
                jobs.push(&row.state);
            }
        }
        jobs
    }
}

fn edge(op: &ObjectOp) -> Outcome<ObjectReply> {
    Outcome::Done(match &op.verb {
        Verb::Head => ObjectReply::Head(Some(ObjectFacts {
            len: LEN,
            etag: ETag::new("e"),
            sha256: None,
            composite: None,
            announced: None,
        })),
        // Each part is stored with the same digest.
        Verb::Get { want: Want::Parts { part_size }, .. } => {
            let parts = u16::try_from(LEN.div_ceil(*part_size)).unwrap();
            let sha256 = Sha256::composite((0..parts).map(|_| sha("part")));
            ObjectReply::Got(Got::Parts {
                len: LEN,
                sha256: sha("whole"),
                composite: Composite { sha256, parts },
            })
        }
        Verb::Get { .. } => ObjectReply::Got(Got::Digest { len: LEN, sha256: sha("whole") }),
        Verb::Delete => ObjectReply::Deleted,
        other => panic!("{other:?} is not asked of the edge"),
    })
}

/// A recording on its whole way, with a crash in mid-upload, beside tasks that end otherwise.
fn lived() -> Life {
    let mut life = Life::new();
    life.connect();
    life.create("T1");
    life.create("T2");
    life.ask(Request::CancelTask { task: "T2".to_owned() });
    life.announce("T1");
    life.answer(50);
    life.ask(Request::Judge { episode: EpisodeId(1), approve: false, reason: Some("dark".to_owned()) });
    // Rejected, so it left the memory; the second judgement reads it again.
    life.ask(Request::Judge { episode: EpisodeId(1), approve: true, reason: None });
    life.ask(Request::Sync { episode: EpisodeId(1) });
    // Into the midst of the parts.
    while !life.records.keys().any(|key| matches!(key, Key::Part(..))) {
        life.answer(1);
    }
    life.start();
    life.connect();
    life.create("T3");
    life.announce("T3");
    life.answer(200);
    // Again for a recording that is known: its task is final, and its records are cold.
    life.announce("T1");
    life.answer(50);
    let row = |id| match life.records.get(&Key::Episode(EpisodeId(id))) {
        Some(Row::Episode(row)) => row.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((row(1).qa, row(2).id), (Qa::Approved, EpisodeId(2)));
    assert!(matches!(life.jobs()[..], [JobState::Completed { .. }]), "{:?}", life.jobs());
    assert!(!life.records.keys().any(|key| matches!(key, Key::Part(..) | Key::Upload(_))));
    life
}

fn stored(life: &Life) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
    for n in 0..life.entries.len() {
        store.commit(&life.batch(n)).unwrap();
    }
    (dir, store)
}

/// The limit at which the entries up to number `cut` leave.
fn limit_at(life: &Life, cut: usize) -> u64 {
    life.entries[cut..].iter().map(|entry| format::write_entry(entry).len() as u64).sum()
}

fn base_of_store(store: &Store) -> Records {
    let mut rows = Records::new();
    let snapshot = store.view().snapshot().unwrap();
    for kind in Kind::ALL {
        let visit = |key, row| {
            rows.insert(key, row);
            ControlFlow::Continue(())
        };
        snapshot.walk_base(kind, visit).unwrap();
    }
    rows
}

#[test]
fn wherever_the_journal_is_cut_the_base_is_the_records_as_of_the_cut_and_the_rest_can_be_replayed() {
    let life = lived();
    assert!(life.entries.len() > 30, "{}", life.entries.len());
    // Step by step: every cut begins with nothing in memory.
    let (_dir, mut store) = stored(&life);
    replay::verify(&store.view()).unwrap_or_else(|divergence| panic!("{divergence}"));
    for cut in 1..=life.entries.len() {
        let tx = store.inner.database.begin_write().unwrap();
        store.ring.limit = limit_at(&life, cut);
        store.ring.move_entries(&tx).unwrap();
        tx.commit().unwrap();
        assert_eq!(store.view().snapshot().unwrap().base().unwrap(), Seq(cut as u64));
        assert_eq!(base_of_store(&store), life.after[cut], "cut after {:?}", life.entries[cut - 1].input);
        for verify in [replay::verify, replay::verify_changes] {
            let report =
                verify(&store.view()).unwrap_or_else(|divergence| panic!("cut at {cut}: {divergence}"));
            assert_eq!(report.base, cut as u64);
        }
    }
    // In one go: what an entry leaves behind is what the next one finds.
    for cut in (1..=life.entries.len()).rev() {
        let (_dir, mut store) =
            if cut == life.entries.len() || cut % 8 == 0 { stored(&life) } else { continue };
        let tx = store.inner.database.begin_write().unwrap();
        store.ring.limit = limit_at(&life, cut);
        store.ring.move_entries(&tx).unwrap();
        tx.commit().unwrap();
        assert_eq!(base_of_store(&store), life.after[cut]);
    }
}

#[test]
fn a_journal_that_does_not_fit_its_base_is_dropped_and_the_site_goes_on() {
    let mut life = lived();
    // A change that nothing explains, in the middle.
    let queued = life
        .entries
        .iter()
        .position(|entry| entry.changes.iter().any(|change| matches!(change, Change::Job(_))));
    let queued = queued.unwrap();
    let twice = life.entries[queued].changes.clone();
    life.entries[queued].changes.extend(twice);
    let (_dir, whole) = stored(&life);
    let found = replay::verify_changes(&whole.view()).unwrap_err();
    assert!(matches!(found, replay::Divergence::Store(StoreError::Misfit { .. })), "{found}");
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&RealDisk, dir.path(), 2048).unwrap();
    for n in 0..life.entries.len() {
        store.commit(&life.batch(n)).unwrap();
        assert_eq!(store.next_seq(), Seq(n as u64 + 2));
    }
    let base = store.view().snapshot().unwrap().base().unwrap();
    assert!(base.0 > queued as u64, "{base} is behind the entry that does not fit");
    drop(store);
    let mut store = Store::open(&RealDisk, dir.path(), 2048).unwrap();
    assert_eq!(store.next_seq(), Seq(life.entries.len() as u64 + 1));
    for verify in [replay::verify, replay::verify_changes] {
        verify(&store.view()).unwrap_or_else(|divergence| panic!("{divergence}"));
    }
    // And once more, to the very end: the base becomes the records.
    let tx = store.inner.database.begin_write().unwrap();
    store.ring.begin_anew(&tx).unwrap();
    tx.commit().unwrap();
    assert_eq!(base_of_store(&store), life.records);
    let report = replay::verify(&store.view()).unwrap_or_else(|divergence| panic!("{divergence}"));
    assert_eq!((report.entries, report.base), (0, life.entries.len() as u64));
}

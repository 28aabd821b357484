//! Invariants of a site as a whole: what left it is durable (I12), a boot looks before it acts (I24), everything is
//! bounded by the work there is (I27).

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::change::{Change, JobChange, TaskChange};
use tidegate_core::effect::{Effect, Response};
use tidegate_core::id::{ConnId, EpisodeId, JobId, ObjectKey, RequestId, TaskId, Ticket, UploadId, WireId};
use tidegate_core::input::{Input, Request};
use tidegate_core::limits;
use tidegate_core::object::{ObjectReply, Store, Verb};
use tidegate_core::outcome::Outcome;
use tidegate_core::row::{Key, Phase, Row, SyncMark, TaskState};
use tidegate_core::wire::TransferMessage;
use tidegate_core::wire::transfer::Announced;

use super::rows::{self, Image, Sites};
use super::seats;
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};

/// What an answer that may leave says is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Promise {
    Task(TaskId, TaskState),
    Episode(EpisodeId),
    Queued(EpisodeId),
    Batch(Vec<EpisodeId>),
    Policy(u64),
    Nothing,
}

#[derive(Debug, Default)]
struct Site {
    /// Every durable record that a step showed: the watch's own image.
    shadow: Image,
    /// Answers that may leave, and did not yet.
    answers: BTreeMap<RequestId, Promise>,
    /// Promises that left.
    made: Vec<Promise>,
    /// Operations and acknowledgements that may leave, and did not yet.
    asked: BTreeSet<Ticket>,
    acks: BTreeMap<(ConnId, WireId), u32>,
    /// Keys and uploads that were looked at in this boot.
    looked: BTreeSet<ObjectKey>,
    listed: BTreeSet<UploadId>,
    booted: bool,
    /// What there is to do: links, requests without an answer, jobs that are not over.
    links: BTreeSet<ConnId>,
    waiting: BTreeSet<RequestId>,
    open: BTreeSet<JobId>,
    /// Work ever given to the site: tasks made, wire ids of later attempts, keys that an uploader named or that were found,
    /// jobs queued.
    created: u64,
    attempts: BTreeSet<WireId>,
    named: BTreeSet<ObjectKey>,
    queued: u64,
}

/// Watches sites as a whole.
#[derive(Debug, Default)]
pub struct SystemWatch {
    premises: Premises,
    sites: Sites<Site>,
}

impl Site {
    /// I12: what an answer says is in the records that are durable with it.
    fn answer(
        &self,
        seen: &Seen<'_>,
        response: &Response,
        premises: &mut Premises,
    ) -> Result<Promise, Broken> {
        premises.met("I12");
        match response {
            Response::Task(row) => {
                let same = rows::task(seen.rows, &row.id) == Some(row);
                demand("I12", same, || format!("told {row:?}, which is not durable"))?;
                Ok(Promise::Task(row.id.clone(), row.state))
            }
            Response::Episode(row) => {
                let same = rows::episode(seen.rows, row.id) == Some(row);
                demand("I12", same, || format!("told {row:?}, which is not durable"))?;
                Ok(Promise::Episode(row.id))
            }
            Response::SyncAccepted { episode } => {
                premises.met("I12.accepted");
                let sync = rows::episode(seen.rows, *episode).map(|row| &row.sync);
                let open = match sync {
                    Some(SyncMark::Queued(job)) => rows::job(seen.rows, *job),
                    _ => None,
                };
                let open = open.is_some_and(|job| !job.state.is_final());
                demand("I12", open, || format!("episode {episode} is accepted and {sync:?}"))?;
                Ok(Promise::Queued(*episode))
            }
            Response::BatchAccepted { count } => {
                let queued = seen.out.changes.iter().filter_map(|change| match change {
                    Change::Job(JobChange::Queued(row)) => Some((row.id, row.episode)),
                    _ => None,
                });
                let queued: Vec<(JobId, EpisodeId)> = queued.collect();
                let durable = queued.iter().all(|(id, _)| rows::job(seen.rows, *id).is_some());
                let told = usize::try_from(*count).unwrap_or(usize::MAX);
                demand("I12", told == queued.len() && durable, || format!("told {told}, queued {queued:?}"))?;
                Ok(Promise::Batch(queued.into_iter().map(|(_, episode)| episode).collect()))
            }
            Response::Started { moved } => {
                let started = |change: &Change| matches!(change, Change::Task(TaskChange::Started { .. }));
                let fits = seen.out.changes.iter().any(started) == *moved;
                demand("I12", fits, || format!("told {moved}, changes {:?}", seen.out.changes))?;
                Ok(Promise::Nothing)
            }
            Response::Finished { state, .. } => {
                let moved = seen.out.changes.iter().find_map(|change| match change {
                    Change::Task(TaskChange::Finished { task, .. }) => rows::task(seen.rows, task),
                    _ => None,
                });
                demand("I12", moved.is_none_or(|row| row.state == *state), || {
                    format!("told {state:?} of {moved:?}")
                })?;
                Ok(moved.map_or(Promise::Nothing, |row| Promise::Task(row.id.clone(), row.state)))
            }
            Response::Device(row) => {
                let held = seen.rows.get(&Key::Device(row.id.clone()));
                demand("I12", held == Some(&Row::Device(row.clone())), || format!("told {row:?}"))?;
                Ok(Promise::Nothing)
            }
            Response::Token(row) => {
                let revoked = |change: &Change| change.name() == "roster.token_revoked";
                let held = seen.rows.values().any(|held| *held == Row::Token(row.clone()));
                demand("I12", held != seen.out.changes.iter().any(revoked), || format!("told {row:?}"))?;
                Ok(Promise::Nothing)
            }
            Response::Window => Ok(Promise::Nothing),
            Response::Policy(view) => {
                premises.met("I12.policy");
                let durable = seats::policy(seen.rows.get(&Key::Policy)).map_or(0, |row| row.generation);
                demand("I12", view.generation == durable, || {
                    format!("told generation {}, and {durable} is durable", view.generation)
                })?;
                Ok(Promise::Policy(durable))
            }
            Response::Rpc { .. } | Response::State(_) | Response::Resolved { .. } | Response::Sent => {
                Ok(Promise::Nothing)
            }
        }
    }

    /// Whether a promise that left holds in an image.
    fn holds(image: &Image, promise: &Promise) -> bool {
        let queued = |id: &EpisodeId| {
            rows::episode(image, *id).is_some_and(|row| match &row.sync {
                SyncMark::NotStarted => false,
                SyncMark::Queued(job) | SyncMark::Synced { job, .. } | SyncMark::Failed(job) => {
                    rows::job(image, *job).is_some_and(|job| job.episode == *id)
                }
            })
        };
        match promise {
            Promise::Task(id, told) => {
                rows::task(image, id).is_some_and(|row| !told.is_final() || row.state == *told)
            }
            Promise::Episode(id) => rows::episode(image, *id).is_some(),
            Promise::Queued(id) => queued(id),
            Promise::Batch(ids) => ids.iter().all(queued),
            Promise::Policy(told) => {
                seats::policy(image.get(&Key::Policy)).map_or(0, |row| row.generation) >= *told
            }
            Promise::Nothing => true,
        }
    }

    /// I24: after a boot nothing that cannot be repeated is asked before a look.
    fn looks_first(
        &mut self,
        seen: &Seen<'_>,
        effect: &Effect,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Effect::Object { op, .. } = effect else {
            // A boot speaks to nobody: there is nobody yet.
            let quiet = !matches!(
                (seen.input, effect),
                (
                    Input::Boot { .. },
                    Effect::Send { .. }
                        | Effect::Admit { .. }
                        | Effect::TurnAway { .. }
                        | Effect::Reply { .. }
                )
            );
            return demand("I24", quiet, || format!("a boot says {effect:?}"));
        };
        if op.store == Store::Edge {
            return Ok(());
        }
        let looked = self.looked.contains(&op.key);
        // Looking is always right, and so is taking away what the records say is over.
        let free = matches!(
            op.verb,
            Verb::Head
                | Verb::ListUploads
                | Verb::Get { .. }
                | Verb::ListParts { .. }
                | Verb::Abort { .. }
                | Verb::Delete
        );
        let fits = match &op.verb {
            Verb::Find { .. } => false,
            Verb::Head | Verb::ListUploads | Verb::Get { .. } => {
                self.looked.insert(op.key.clone());
                true
            }
            Verb::ListParts { upload } => {
                self.looked.insert(op.key.clone());
                self.listed.insert(upload.clone());
                true
            }
            // A sidecar lies beside a recording that was looked at.
            Verb::Put { .. } => {
                let main = op.key.as_str().strip_suffix(".json").map(|stem| format!("{stem}.mcap"));
                let main = main.and_then(|key| ObjectKey::new(&key).ok());
                looked || main.is_some_and(|main| self.looked.contains(&main))
            }
            Verb::Create { .. } | Verb::Complete { .. } => looked,
            // Of this boot, or looked at in it.
            Verb::PutPart { upload, .. } => looked || self.listed.contains(upload),
            Verb::Abort { .. } | Verb::Delete => true,
        };
        if !free && seen.boot.0 > 1 {
            premises.met("I24");
        }
        demand("I24", fits, || format!("{op:?} in boot {:?} before a look", seen.boot))
    }

    /// I27: a step does no more than its input and the work there is justify.
    fn bounded(&mut self, seen: &Seen<'_>, jobs: usize, premises: &mut Premises) -> Result<(), Broken> {
        let batch = usize::try_from(seen.knobs.batch).unwrap_or(usize::MAX);
        let scanned = seats::scanned(seen.out).min(batch);
        // Recordings of one device that may wait to be looked at, and for their acknowledgement.
        let recordings = self.named.len().min(limits::VERIFIES_PER_DEVICE);
        let told = match seen.input {
            Input::Transfer { message: TransferMessage::Status(status), .. } => {
                status.uploads.as_ref().map_or(0, Vec::len)
                    + status.waiting_ack_tasks.as_ref().map_or(0, Vec::len)
            }
            _ => 0,
        };
        let links = self.links.len();
        let wide = match seen.input {
            // Everything there is may be taken up.
            Input::Boot { .. } => 2 * seen.rows.len(),
            // Every link and every upload may end.
            Input::Shutdown => 2 * links + 2 * jobs,
            // Any link may be found silent, any recording looked at again.
            Input::Wake => {
                // A site that judges by itself may owe verdicts on what it checked before.
                let verdicts = if seen.knobs.auto_approve { limits::VERDICTS_AT_ONCE } else { 0 };
                4 * scanned + 2 * limits::REMOVALS_AT_ONCE + 4 * links + recordings + verdicts
            }
            Input::Request { request: Request::SyncBatch, .. } => 4 * batch,
            // What waits for a device goes on with its link.
            Input::Knock { .. } | Input::Lost { .. } => recordings,
            Input::Transfer { .. } => 8 * told,
            Input::Recorder { .. }
            | Input::Request { .. }
            | Input::Object { .. }
            | Input::Stored { .. }
            | Input::Space { .. }
            | Input::Policy { .. }
            | Input::Surroundings(_)
            | Input::Quarantined { .. } => 0,
        };
        // A few machines take part, each with a few words; who waits is answered; uploads begin, with their parts.
        let uploads = usize::try_from(seen.knobs.uploads_max()).unwrap_or(usize::MAX).min(jobs);
        let most = 16 + self.waiting.len() + uploads * (4 + usize::from(seen.knobs.parts_in_flight)) + wide;
        let (changes, effects) = (seen.out.changes.len(), seen.out.effects.len());
        if 2 * changes.max(effects) >= most {
            premises.met("I27.step");
        }
        for effect in &seen.out.effects {
            if let Effect::Reply { to, .. } = effect {
                self.waiting.remove(to);
            }
        }
        demand("I27", changes <= most && effects <= most, || {
            format!("{} makes {changes} changes and {effects} effects, at most {most}", seen.input.name())
        })
    }

    /// I27: what a step makes is what its input asks for.
    fn count(&mut self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        let said: Vec<&Announced> = match seen.input {
            Input::Transfer { message, .. } => match message {
                TransferMessage::Status(status) => {
                    status.uploads.iter().flatten().map(|entry| &entry.announced).collect()
                }
                TransferMessage::UploadStarted(announced) | TransferMessage::UploadComplete(announced) => {
                    vec![announced]
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let keys = said.iter().filter_map(|announced| announced.key.as_deref());
        self.named.extend(keys.filter_map(|key| ObjectKey::new(key).ok()));
        // Looked for by the name of a recording, and found.
        if let Input::Object { outcome: Outcome::Done(ObjectReply::Found(found)), .. } = seen.input {
            self.named.extend(found.iter().cloned());
        }
        let (mut created, mut queued) = (0, 0);
        for change in &seen.out.changes {
            match change {
                Change::Task(TaskChange::Created { .. }) => created += 1,
                Change::Task(TaskChange::Returned { attempt, wire, .. }) if *attempt > 1 => {
                    self.attempts.insert(wire.clone());
                }
                Change::Job(JobChange::Queued(_)) => queued += 1,
                _ => {}
            }
        }
        let batch = u64::from(seen.knobs.batch);
        let (tasks, jobs) = match seen.input {
            Input::Request { request: Request::CreateTask { .. }, .. } => (1, 0),
            Input::Request { request: Request::Sync { .. }, .. } => (0, 1),
            Input::Request { request: Request::SyncBatch, .. } => (0, batch),
            // A scan may be due, and whoever was asked may have chosen some.
            Input::Wake => (0, batch.min(seats::scanned(seen.out) as u64)),
            _ => (0, 0),
        };
        if queued > 0 {
            premises.met("I27.queued");
        }
        demand("I27", created <= tasks && queued <= jobs, || {
            format!(
                "{} makes {created} tasks and {queued} jobs, at most {tasks} and {jobs}",
                seen.input.name()
            )
        })?;
        self.created += created;
        self.queued += queued;
        Ok(())
    }

    /// I27: how many records there are follows from the work that was given.
    fn sized(&self, image: &Image, site: usize, premises: &mut Premises) -> Result<(), Broken> {
        let mut recorded = 0;
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (key, row) in image {
            let kind = match key {
                Key::Meta => continue,
                Key::Task(_) => "task",
                Key::Episode(_) => "episode",
                Key::Job(_) => "job",
                Key::Upload(id) => {
                    let job = rows::job(image, *id);
                    let over = job.is_none_or(|job| job.state.is_final());
                    // A session outlives its job only to be cleaned up.
                    let fits = !over
                        || matches!(row, Row::Upload(row) if matches!(row.phase, Phase::Abandoning { .. }));
                    demand("I27", fits && job.is_some(), || format!("session {id} of {job:?}: {row:?}"))?;
                    "upload"
                }
                Key::Part(id, part) => {
                    let plan = rows::upload(image, *id).map(|row| row.plan);
                    let fits = plan.is_some_and(|plan| (1..=plan.parts).contains(&part.0));
                    demand("I27", fits, || format!("part {part} of session {id}: {plan:?}"))?;
                    "part"
                }
                Key::Alias(_) => "alias",
                Key::Policy => "policy",
                Key::Device(_) => "device",
                Key::Token(_) => "token",
                Key::Module(_) => "module",
                Key::Binding(at) => {
                    recorded += u64::from(matches!(row, Row::Binding(row) if row.episode.is_some()));
                    let named = self.named.contains(at);
                    demand("I27", named, || format!("{row:?} of {at}, a key that nobody named"))?;
                    "binding"
                }
            };
            premises.met("I27");
            *counts.entry(kind).or_default() += 1;
        }
        let of = |kind| counts.get(kind).copied().unwrap_or(0);
        let limits = [
            ("task", self.created),
            ("alias", self.attempts.len() as u64),
            ("episode", recorded),
            ("job", self.queued),
            ("policy", 1),
            // The default module comes with the program, also where every other one is quarantined.
            ("module", limits::MODULES_MAX as u64 + 1),
        ];
        for (kind, most) in limits {
            demand("I27", of(kind) <= most, || {
                format!("site {site}: {} of {kind}, at most {most}", of(kind))
            })?;
        }
        if let Some(Row::Meta(meta)) = image.get(&Key::Meta) {
            let fresh = rows::episodes(image).all(|row| row.id.0 < meta.next_episode)
                && rows::jobs(image).all(|row| row.id.0 < meta.next_job);
            demand("I12", fresh, || format!("numbers are given twice: {meta:?}"))?;
        }
        Ok(())
    }
}

impl Watch for SystemWatch {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let (site, premises) = (self.sites.at(seen.site), &mut self.premises);
        if let Input::Boot { .. } = seen.input {
            site.booted = true;
            site.looked.clear();
            site.listed.clear();
        }
        site.count(seen, premises)?;
        match seen.input {
            Input::Request { id, .. } => {
                site.waiting.insert(*id);
            }
            Input::Lost { conn, .. } => {
                site.links.remove(conn);
            }
            _ => {}
        }
        let jobs = site.open.len();
        // What a step wrote is what is durable now, and what it replaced is what was durable before.
        for (key, row) in &seen.out.rows {
            demand("I12", seen.rows.get(key) == row.as_ref(), || {
                format!("{key:?} is {:?}, the step wrote {row:?}", seen.rows.get(key))
            })?;
            let old = match row {
                Some(row) => site.shadow.insert(key.clone(), row.clone()),
                None => site.shadow.remove(key),
            };
            if let Key::Job(id) = key {
                let over =
                    row.as_ref().is_none_or(|row| matches!(row, Row::Job(row) if row.state.is_final()));
                if over {
                    site.open.remove(id)
                } else {
                    site.open.insert(*id)
                };
            }
            let before = seen.before.get(key).and_then(Option::as_ref);
            demand("I12", old.as_ref() == before, || {
                format!("{key:?} was {old:?} when it was last seen, and {before:?} before this step")
            })?;
        }
        for change in &seen.out.changes {
            for key in change.keys() {
                let gone = matches!(change, Change::Upload(_));
                demand("I12", gone || seen.before.contains_key(&key), || {
                    format!("{change:?} is not in the records")
                })?;
            }
        }
        for effect in &seen.out.effects {
            site.looks_first(seen, effect, premises)?;
            match effect {
                Effect::Reply { to, answer: Ok(response) } => {
                    let promise = site.answer(seen, response, premises)?;
                    site.answers.insert(*to, promise);
                }
                Effect::Reply { to, answer: Err(_) } => {
                    site.answers.insert(*to, Promise::Nothing);
                }
                Effect::Admit { conn, .. } => {
                    site.links.insert(*conn);
                }
                Effect::Object { ticket, .. } => {
                    let again = !site.asked.insert(*ticket);
                    demand("I12", !again, || format!("{ticket:?} is asked twice"))?;
                }
                Effect::Send { conn, frame } => {
                    if let Some(wire) = rows::acked(&frame.text) {
                        *site.acks.entry((*conn, wire)).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        let jobs = jobs.max(site.open.len());
        site.bounded(seen, jobs, premises)
    }

    fn happened(&mut self, truth: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        match what {
            Happened::Down { site, .. } => {
                let known = self.sites.at(*site);
                // What did not leave never will.
                known.answers.clear();
                known.asked.clear();
                known.acks.clear();
                known.links.clear();
                known.waiting.clear();
                known.booted = false;
                Ok(())
            }
            Happened::Up { site: n } => {
                let (image, site) = (&truth.images[*n], self.sites.at(*n));
                // What survived a crash without being flushed was shown before the process was gone: nothing is unseen.
                if !site.shadow.is_empty() {
                    self.premises.met("I12.crash");
                }
                demand("I12", site.shadow == *image, || {
                    let other = |key: &&Key| site.shadow.get(*key) != image.get(*key);
                    let key = site.shadow.keys().chain(image.keys()).find(other);
                    let of = |rows: &Image| key.and_then(|key| rows.get(key)).cloned();
                    format!("{key:?} was durable as {:?}, and is {:?}", of(&site.shadow), of(image))
                })?;
                for promise in &site.made {
                    demand("I12", Site::holds(image, promise), || {
                        format!("{promise:?} was promised, and is not so")
                    })?;
                }
                site.sized(image, *n, &mut self.premises)
            }
            Happened::Released { site, effect } => {
                let known = self.sites.at(*site);
                match effect {
                    Effect::Reply { to, .. } => {
                        let promise = known.answers.remove(to);
                        let Some(promise) = promise else {
                            return Err(Broken {
                                invariant: "I12",
                                saw: format!("an answer left that no durable step gave: {effect:?}"),
                            });
                        };
                        if promise != Promise::Nothing {
                            self.premises.met("I12.promised");
                            known.made.push(promise);
                        }
                        Ok(())
                    }
                    Effect::Object { ticket, op } => demand("I12", known.asked.remove(ticket), || {
                        format!("{op:?} left, and no durable step asked for it")
                    }),
                    Effect::Send { conn, frame } => {
                        let Some(wire) = rows::acked(&frame.text) else { return Ok(()) };
                        let left = known.acks.get_mut(&(*conn, wire)).filter(|left| **left > 0);
                        let Some(left) = left else {
                            return Err(Broken {
                                invariant: "I12",
                                saw: format!("{} left, and no durable step said so", frame.text.trim()),
                            });
                        };
                        *left -= 1;
                        Ok(())
                    }
                    _ => {
                        demand("I12", known.booted, || format!("{effect:?} left a process that is not there"))
                    }
                }
            }
            Happened::Undone { .. }
            | Happened::Called { .. }
            | Happened::Stepped { .. }
            | Happened::Tampered { .. } => Ok(()),
        }
    }

    fn end(&mut self, truth: &Truth<'_>) -> Result<(), Broken> {
        for (n, image) in truth.images.iter().enumerate() {
            let site = self.sites.at(n);
            for promise in &site.made {
                demand("I12", Site::holds(image, promise), || {
                    format!("{promise:?} was promised, and is not so")
                })?;
            }
            if site.booted {
                demand("I12", site.shadow == *image, || {
                    format!("the image of site {n} is not what was shown")
                })?;
            }
            site.sized(image, n, &mut self.premises)?;
        }
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &[
            "I12",
            "I12.accepted",
            "I12.crash",
            "I12.policy",
            "I12.promised",
            "I24",
            "I27",
            "I27.queued",
            "I27.step",
        ]
    }
}

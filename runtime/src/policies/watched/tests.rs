//! The watched folder with a real site behind it; the folder is looked at by hand.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::boot::{Site, start};
use crate::config::Config;
use crate::inbox::Letter;
use crate::policies::rig;
use crate::real::RealSeams;

struct Bench {
    site: Site,
    watch: Watch<RealSeams>,
    seen: BTreeMap<Slot, Sight>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn of(dir: tempfile::TempDir) -> Bench {
        let mut config = Config { data_dir: dir.path().join("site"), ..Config::default() };
        config.listen.api.set_port(0);
        config.listen.s3.set_port(0);
        let site = start(RealSeams::new(), config, |_, _| Ok(None)).await.unwrap();
        let folder = dir.path().join("watched");
        std::fs::create_dir_all(&folder).unwrap();
        let watched = Watched::default();
        *watched.folder() = Some(Folder { dir: folder.clone(), error: None, files: BTreeMap::new() });
        let blobs = crate::store::Blobs::peek(&crate::real::RealDisk, &dir.path().join("site"));
        let watch = Watch {
            seams: RealSeams::new(),
            dir: folder,
            max_bytes: 256 << 10,
            loader: Loader::new(rig::host(), blobs, &BTreeMap::new()),
            view: site.view.clone(),
            inbox: site.inbox.clone(),
            watched,
        };
        Bench { site, watch, seen: BTreeMap::new(), dir }
    }

    async fn look(&mut self) {
        self.watch.look(&mut self.seen).await;
    }

    /// Looks as often as it takes to believe what lies there.
    async fn settle(&mut self) {
        self.look().await;
        self.look().await;
    }

    /// As it must be done: under another name, and renamed.
    fn lay(&self, name: &str, bytes: &[u8]) {
        let folder = self.dir.path().join("watched");
        std::fs::write(folder.join("new"), bytes).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }

    fn error(&self) -> Option<String> {
        self.watch.watched.file(Slot::Retry).unwrap().error
    }

    fn generation(&self) -> u64 {
        self.site.board.policies().unwrap().generation
    }

    fn sits(&self) -> Option<Sha256> {
        let view = self.site.board.policies()?;
        let seat = view.seats.iter().find(|seat| seat.slot == Slot::Retry)?;
        match &seat.seat {
            tidegate_core::policy::Seat::Module(binding) => Some(binding.module),
            tidegate_core::policy::Seat::Floor => None,
        }
    }

    async fn restarted(self) -> Bench {
        self.site.shutdown().await.unwrap();
        Bench::of(self.dir).await
    }
}

#[tokio::test]
async fn a_module_that_appears_is_activated_once_and_not_again_after_a_restart() {
    let mut bench = Bench::of(tempfile::tempdir().unwrap()).await;
    bench.settle().await;
    assert_eq!(bench.watch.watched.file(Slot::Retry), None);
    let bytes = rig::module("suite", "");
    bench.lay("retry.toml", b"uploads = 7\n");
    bench.lay("retry.wasm", &bytes);
    bench.settle().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));
    let generation = bench.generation();
    bench.settle().await;
    bench.lay("retry.wasm", &bytes);
    bench.settle().await;
    assert_eq!(bench.generation(), generation, "the same bytes under the same name are no news");

    // Somebody gives the slot back; the file that lies there does not overrule them, not even after a restart.
    let asked = Request::Policy(PolicyRequest::Reset { slot: Slot::Retry });
    bench.site.inbox.request(asked, None).await.unwrap().unwrap();
    bench.settle().await;
    let mut bench = bench.restarted().await;
    bench.settle().await;
    assert_ne!(bench.sits(), Some(Sha256::of(&bytes)));
    // Other settings are another wish.
    bench.lay("retry.toml", b"uploads = 8\n");
    bench.settle().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));
    bench.site.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_activated_is_tried_once_and_its_error_is_shown_until_the_file_changes() {
    let mut bench = Bench::of(tempfile::tempdir().unwrap()).await;
    let cases: [(&str, &[u8], &str); 3] = [
        ("retry.wasm", b"nonsense", "not_a_component"),
        ("retry.toml", b"uploads = [1]", "retry.toml"),
        ("retry.toml", b"uploads = ", "retry.toml"),
    ];
    for (name, bytes, part) in cases {
        bench.lay(name, bytes);
        bench.settle().await;
        let error = bench.error().unwrap();
        assert!(error.contains(part), "{error}");
        let found = bench.watch.watched.file(Slot::Retry);
        bench.settle().await;
        assert_eq!(bench.watch.watched.file(Slot::Retry), found, "it is not tried again");
    }
    bench.lay("retry.wasm", &vec![0; (256 << 10) + 1]);
    bench.settle().await;
    assert!(bench.error().unwrap().contains("policies.max_bytes"), "{:?}", bench.error());
    std::fs::remove_file(bench.dir.path().join("watched/retry.toml")).unwrap();
    let bytes = rig::module("suite", "");
    bench.lay("retry.wasm", &bytes);
    bench.settle().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));

    std::fs::remove_dir_all(bench.dir.path().join("watched")).unwrap();
    bench.settle().await;
    let shown = bench.watch.watched.json().unwrap();
    assert!(shown["error"].is_string() && shown["files"] == serde_json::json!([]), "{shown}");
    assert_eq!(bench.sits(), Some(Sha256::of(&bytes)), "a file that goes takes nobody out");
    bench.site.shutdown().await.unwrap();
}

/// The beginning of a module that is a module as well: with fewer hooks, retry among them.
fn prefix(bytes: &[u8]) -> &[u8] {
    let host = rig::host();
    let serves_retry =
        |part: &&[u8]| host.admit(part).is_ok_and(|module| module.facts().slots.contains(&Slot::Retry));
    let mut shorter = (9..bytes.len()).rev().map(|end| &bytes[..end]);
    shorter.find(serves_retry).expect("hooks are the last sections")
}

#[tokio::test]
async fn a_module_that_is_written_in_place_is_never_activated_and_renamed_it_is() {
    // The incident: a copy that stopped for a moment between two sections was a module with fewer hooks.
    let mut bench = Bench::of(tempfile::tempdir().unwrap()).await;
    bench.settle().await;
    let bytes = rig::module("suite", "");
    let part = prefix(&bytes);
    let path = bench.dir.path().join("watched/retry.wasm");
    let generation = bench.generation();
    std::fs::write(&path, part).unwrap();
    bench.look().await;
    assert_eq!(bench.watch.watched.file(Slot::Retry), None, "it may still be written");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &bytes[part.len()..]).unwrap();
    drop(file);
    for _ in 0..3 {
        bench.look().await;
        let error = bench.error().unwrap();
        assert!(error.contains("rename") && error.contains("retry.wasm"), "{error}");
        assert_eq!(bench.generation(), generation, "nothing was ever activated");
    }
    bench.lay("retry.wasm", &bytes);
    bench.settle().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));
    bench.site.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_refusal_of_the_moment_is_tried_again_and_one_for_good_is_not() {
    // The incident: a site that was busy for a moment dropped the file for good.
    let mut bench = Bench::of(tempfile::tempdir().unwrap()).await;
    bench.settle().await;
    let (inbox, mut letters) = Inbox::new();
    bench.watch.inbox = inbox;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes);
    bench.lay("retry.wasm", &bytes);
    bench.look().await;
    let for_good =
        PolicyRefusal::Rejected { module, code: "limits".to_owned(), why: "too greedy".to_owned() };
    let refusals = [
        Refusal::Policy(PolicyRefusal::Busy),
        Refusal::Policy(PolicyRefusal::Overtaken),
        Refusal::Policy(PolicyRefusal::Unanswered("no answer".to_owned())),
        Refusal::Stopping,
        Refusal::Policy(for_good),
    ];
    let (heard, hears) = (Arc::new(AtomicUsize::new(0)), refusals.len());
    let counted = heard.clone();
    tokio::spawn(async move {
        for refusal in refusals {
            let Some(Letter::Request { answer, .. }) = letters.recv().await else { return };
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = answer.send(Err(refusal));
        }
    });
    for asked in 1..=hears {
        bench.look().await;
        assert_eq!(heard.load(Ordering::SeqCst), asked, "{:?}", bench.error());
        assert!(bench.error().is_some());
    }
    let found = bench.watch.watched.file(Slot::Retry);
    assert!(bench.error().unwrap().contains("too greedy"), "{found:?}");
    bench.settle().await;
    assert_eq!(bench.watch.watched.file(Slot::Retry), found, "it is not tried again");

    // The driver is gone, which the one of another start may not be.
    bench.lay("retry.wasm", &rig::module("suite", "another"));
    for _ in 0..3 {
        bench.look().await;
    }
    let error = bench.error().unwrap();
    assert!(error.contains("stopping"), "{error}");
    bench.watch.inbox = bench.site.inbox.clone();
    bench.look().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&rig::module("suite", "another")))));
    bench.site.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_signature_that_does_not_vouch_for_a_module_in_use_is_not_taken_over_from_the_folder() {
    let mut bench = Bench::of(tempfile::tempdir().unwrap()).await;
    bench.settle().await;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes);
    bench.lay("retry.wasm", &bytes);
    bench.settle().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(module)));
    bench.lay("retry.sig", b"{}");
    bench.lay("retry.toml", b"uploads = 9\n");
    bench.settle().await;
    let error = bench.error().unwrap();
    assert!(error.contains("signature") && error.contains("cannot be read"), "{error}");
    assert_eq!(bench.watch.loader.blobs().unwrap().signature(module).unwrap(), None);
    let mut bench = bench.restarted().await;
    bench.settle().await;
    assert_eq!(bench.sits(), Some(module));
    bench.site.shutdown().await.unwrap();
}

#[test]
fn a_look_waits_until_a_file_is_whole_and_tells_a_rename_from_a_write() {
    let file = |number, time, len| [Some((number, time, len)), None, None];
    let gone = [None; 3];
    let (one, longer) = (file(Some(1), 5, 10), file(Some(1), 6, 20));
    let two = file(Some(2), 6, 20);
    let cases: [(&[Marks], Next); 9] = [
        (&[one], Next::Try { at_first: true }),
        (&[gone, one], Next::Try { at_first: false }),
        (&[two, gone, two], Next::Try { at_first: false }),
        (&[longer], Next::Refuse),
        (&[longer, longer], Next::Refuse),
        (&[longer, two], Next::Try { at_first: false }),
        (&[longer, gone, longer], Next::Try { at_first: false }),
        (&[gone], Next::Nothing),
        (&[file(None, 5, 10), file(None, 6, 20)], Next::Try { at_first: false }),
    ];
    for (looks, then) in cases {
        let mut sight = Sight::new(one);
        let mut next = Next::Wait;
        for marks in looks.iter().chain(looks.last()) {
            next = sight.look(*marks);
        }
        assert_eq!(next, then, "{looks:?}");
    }
    let mut sight = Sight::new(one);
    assert_eq!(sight.look(two), Next::Wait, "it may still be written");
    sight.taken = Some(one);
    assert_eq!(sight.look(one), Next::Wait);
    assert_eq!(sight.look(one), Next::Wait, "it was tried");
}

//! The watched folder with a real site behind it; the folder is looked at by hand.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use super::*;
use crate::boot::{Site, start};
use crate::config::Config;
use crate::policies::rig;
use crate::real::RealSeams;

struct Bench {
    site: Site,
    watch: Watch<RealSeams>,
    seen: BTreeMap<Slot, Marks>,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn of(dir: tempfile::TempDir) -> Bench {
        let mut config = Config { data_dir: dir.path().join("site"), ..Config::default() };
        config.listen.api.set_port(0);
        config.listen.s3.set_port(0);
        let site = start(RealSeams::new(), config, |_| Ok(None)).await.unwrap();
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
    bench.look().await;
    assert_eq!(bench.watch.watched.file(Slot::Retry), None);
    let bytes = rig::module("suite", "");
    bench.lay("retry.toml", b"uploads = 7\n");
    bench.lay("retry.wasm", &bytes);
    bench.look().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));
    let generation = bench.generation();
    bench.look().await;
    bench.lay("retry.wasm", &bytes);
    bench.look().await;
    assert_eq!(bench.generation(), generation, "the same bytes under the same name are no news");

    // Somebody gives the slot back; the file that lies there does not overrule them, not even after a restart.
    let asked = Request::Policy(PolicyRequest::Reset { slot: Slot::Retry });
    bench.site.inbox.request(asked, None).await.unwrap().unwrap();
    bench.look().await;
    let mut bench = bench.restarted().await;
    bench.look().await;
    assert_ne!(bench.sits(), Some(Sha256::of(&bytes)));
    // Other settings are another wish.
    bench.lay("retry.toml", b"uploads = 8\n");
    bench.look().await;
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
        bench.look().await;
        let error = bench.error().unwrap();
        assert!(error.contains(part), "{error}");
        let found = bench.watch.watched.file(Slot::Retry);
        bench.look().await;
        assert_eq!(bench.watch.watched.file(Slot::Retry), found, "it is not tried again");
    }
    bench.lay("retry.wasm", &vec![0; (256 << 10) + 1]);
    bench.look().await;
    assert!(bench.error().unwrap().contains("policies.max_bytes"), "{:?}", bench.error());
    std::fs::remove_file(bench.dir.path().join("watched/retry.toml")).unwrap();
    let bytes = rig::module("suite", "");
    bench.lay("retry.wasm", &bytes);
    bench.look().await;
    assert_eq!((bench.error(), bench.sits()), (None, Some(Sha256::of(&bytes))));

    std::fs::remove_dir_all(bench.dir.path().join("watched")).unwrap();
    bench.look().await;
    let shown = bench.watch.watched.json().unwrap();
    assert!(shown["error"].is_string() && shown["files"] == serde_json::json!([]), "{shown}");
    assert_eq!(bench.sits(), Some(Sha256::of(&bytes)), "a file that goes takes nobody out");
    bench.site.shutdown().await.unwrap();
}

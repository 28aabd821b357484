//! What the runtime reads from files: its configuration, the sidecars of recordings, the records of the object store.

use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use tidegate_core::limits;
use tidegate_core::object::{Got, Want};
use tidegate_runtime::config::{Config, Layers};
use tidegate_runtime::ingest::Spool;
use tidegate_runtime::object::reduce::Reduction;

use crate::memory::{Ground, Memory};

/// A configuration file.
pub(crate) fn config(bytes: &[u8]) {
    let disk = Memory::default();
    disk.put("tidegate.toml", bytes.to_vec());
    let layers = Layers { file: Some("tidegate.toml".into()), ..Layers::default() };
    match Config::load(&disk, &layers) {
        Ok(config) => {
            assert!(config.knobs().is_ok(), "what was accepted is what the core takes");
            for warning in &config.warnings {
                assert!(!warning.is_empty());
            }
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "a refusal has a reason");
            let told = problems.to_string();
            assert!(!told.is_empty());
            // Each problem may name every key that is close, never the text that stands in the file.
            assert!(told.len() <= 64 * bytes.len() + 4096, "{} bytes told of {}", told.len(), bytes.len());
        }
    }
}

/// A sidecar, in pieces as long as its first byte says.
pub(crate) fn sidecar(bytes: &[u8]) {
    let Some((first, text)) = bytes.split_first() else { return };
    let read = |piece: usize| {
        let mut reduction = Reduction::new(Want::Sidecar);
        text.chunks(piece).for_each(|piece| reduction.push(piece));
        reduction.finish()
    };
    let got = read(usize::from(*first) + 1);
    assert_eq!(got, read(usize::MAX), "pieces come to the same as the whole");
    let Got::Sidecar { len, sha256, facts } = got else { panic!("a sidecar was asked for") };
    assert_eq!(len, text.len() as u64);
    assert_eq!(sha256.0, <[u8; 32]>::from(Sha256::digest(text)));
    if let Some(version) = facts.and_then(|facts| facts.recorder_version) {
        assert!(version.len() <= limits::ID_BYTES && !version.chars().any(char::is_control), "{version:?}");
    }
}

/// The files of an object store, as a list of (where, how, length, content). Whatever they hold, it opens, what it cannot
/// read it leaves alone, and opening it again finds the same.
pub(crate) fn spool(bytes: &[u8]) {
    let disk = Memory::default();
    let mut left = bytes;
    for _ in 0..16 {
        let [place, how, high, low, rest @ ..] = left else { break };
        let (content, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()));
        left = rest;
        // Most get an envelope that is right: nobody guesses its sum.
        let content = if how & 3 == 3 { content.to_vec() } else { enveloped(content) };
        let n = how >> 2 & 3;
        disk.put(
            match place % 6 {
                0 => "s/buckets/edge/.bucket".to_owned(),
                1 => format!("s/buckets/edge/{}", hash(&format!("k{n}"))),
                2 => format!("s/uploads/{}", upload(n)),
                3 => format!("s/uploads/{}.{:05}", upload(n), place >> 4),
                4 => format!("s/blobs/b{n}"),
                _ => format!("s/buckets/other/x{n}"),
            },
            content,
        );
    }
    let open = || {
        let opened = Spool::open(Ground::new(disk.clone()), "s".into()).now_or_never();
        opened.expect("nothing is waited for").expect("damaged files keep no store from opening")
    };
    let (store, first) = open();
    let listed = seen(&store);
    drop(store);
    let after = disk.paths();
    let (store, second) = open();
    assert_eq!(seen(&store), listed, "a second look finds the same");
    assert_eq!((second.objects, second.uploads), (first.objects, first.uploads));
    assert_eq!(disk.paths(), after, "a second start has nothing left to sweep");
    for damaged in &first.damaged {
        assert!(after.contains(damaged), "a record that cannot be read is left alone: {}", damaged.display());
    }
}

/// What a store shows of itself.
fn seen(store: &Spool<Ground>) -> Vec<String> {
    let buckets = store.buckets().into_iter().map(|(bucket, created)| {
        let uploads = store.list_uploads(&bucket);
        let objects: Vec<_> =
            (0..4).map(|n| store.head(&bucket, &format!("k{n}")).now_or_never().flatten()).collect();
        format!("{bucket} {created:?} {uploads:?} {objects:?}")
    });
    buckets.collect()
}

fn enveloped(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"TGSPOOL1".to_vec();
    bytes.extend_from_slice(&Sha256::digest(body)[..8]);
    bytes.extend_from_slice(body);
    bytes
}

fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn upload(n: u8) -> String {
    format!("{n:032x}")
}

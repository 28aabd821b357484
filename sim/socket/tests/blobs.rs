//! A module that is written when the power fails, at every operation on the disk and with every kind of crash image: it is
//! wholly there or not at all, what was there before stays, and what `put` said is true.

use std::path::Path;

use tidegate_runtime::store::{Blobs, Unread};
use tidegate_sim_socket::socket_world::{Keep, SimDisk};

const DATA: &str = "/data";
const EARLIER: &[u8] = b"a module that was there before";
const BYTES: &[u8] = &[0xA5; 20_000];

fn opened(disk: &SimDisk) -> Blobs {
    Blobs::open(disk, Path::new(DATA)).expect("a disk that works")
}

#[test]
fn a_module_that_the_power_failed_in_is_whole_or_not_there_and_never_half() {
    let operations = {
        let disk = SimDisk::new();
        opened(&disk).put(EARLIER).expect("a disk that works");
        let before = disk.power().ops();
        opened(&disk).put(BYTES).expect("a disk that works");
        disk.power().ops() - before
    };
    assert!(operations >= 4, "it is written, synced, renamed and its name made durable: {operations}");
    let (mut whole, mut absent) = (0, 0);
    for left in 0..=operations {
        for keep in [Keep::Nothing, Keep::Prefix { seed: left }, Keep::Subset { seed: left }] {
            let label = format!("{left} of {operations} done, {keep:?}");
            let disk = SimDisk::new();
            let earlier = opened(&disk).put(EARLIER).expect("a disk that works");
            disk.power().fuse(disk.power().ops() + left);
            let said = Blobs::open(&disk, Path::new(DATA)).and_then(|blobs| blobs.put(BYTES));
            disk.lose_power(keep);
            let blobs = opened(&disk);
            assert_eq!(blobs.read(earlier).ok().as_deref(), Some(EARLIER), "{label}");
            let module = tidegate_core::digest::Sha256::of(BYTES);
            match blobs.read(module) {
                Ok(bytes) => {
                    assert_eq!(bytes, BYTES, "{label}");
                    whole += 1;
                }
                Err(Unread::Missing) => {
                    assert!(said.is_err(), "{label}: it was said to be kept");
                    absent += 1;
                }
                Err(other) => panic!("{label}: {other}"),
            }
            assert_eq!(blobs.put(BYTES).expect("a disk that works"), module, "{label}");
            let mut all = vec![earlier, module];
            all.sort();
            assert_eq!(blobs.list().expect("a disk that works"), all, "{label}");
        }
    }
    assert!(whole > 0 && absent > 0, "{whole} whole, {absent} absent");
}

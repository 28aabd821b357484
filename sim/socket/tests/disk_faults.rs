//! The disk of the site fails while a recording lives on it: it is full, read-only or broken, under the recordings or under
//! the database. Nothing acknowledged is lost, nothing wrong is acknowledged, no attempt is spent, and once the fault is
//! lifted the life ends as if nothing had happened. All of that is checked by the life itself.

use tidegate_device::DeviceEvent;
use tidegate_sim_socket::socket_world::{DiskCall, DiskFault, DiskVerb, Errno, Faults};
use tidegate_sim_socket::whole_life::{Plan, Report, live};

/// Where the seeds of the worlds come from; `TIDEGATE_SEED` repeats a run exactly.
fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// Plays a life in which `times` calls fail, with each error of the system.
fn fails(call: DiskCall, part: &'static str, skip: u32, times: u32, judge: impl Fn(&Report)) {
    for errno in Errno::ALL {
        let (seed, faults) = (seed(), Faults::default());
        faults.plan(DiskFault { call, part, errno, skip, times });
        let report = live(Plan { faults: Some(faults.clone()), ..Plan::new(seed, Vec::new()) });
        let what = format!("TIDEGATE_SEED={seed} {errno:?} {call:?} {part} after {skip}, {times} times");
        let report = report.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert!(!faults.is_pending(), "{what}: it did not come to that: {faults:?}");
        assert_eq!(faults.hit().len(), usize::try_from(times).expect("few"), "{what}");
        judge(&report);
    }
}

/// The site served on, and nobody had to do anything.
fn served(report: &Report) {
    assert_eq!(report.ends, [""; 0], "a fault under one recording ends no site");
    assert!(!report.swept_at_a_start, "what was refused is removed at once");
}

/// How often the device began to send its recording.
fn sent(report: &Report) -> usize {
    let begins = |event: &&DeviceEvent| matches!(event, DeviceEvent::Upload { status: "active", .. });
    report.device.iter().filter(begins).count()
}

/// Refused, and sent again by the device alone.
fn repeated(report: &Report) {
    served(report);
    assert!(sent(report) > 1, "the device was not refused: {:#?}", report.device);
    assert_eq!(report.sent, 3, "the cloud was sent everything once");
}

#[test]
fn a_recording_that_cannot_be_written_is_refused_and_sent_again() {
    fails(DiskCall::Create, "objects/blobs", 0, 2, repeated);
    fails(DiskCall::Write, "objects/blobs", 3, 2, repeated);
}

#[test]
fn a_recording_that_cannot_be_made_durable_is_refused_and_never_believed() {
    fails(DiskCall::Sync, "objects/blobs", 0, 3, repeated);
    fails(DiskCall::SyncDir, "objects/blobs", 0, 2, repeated);
}

#[test]
fn a_record_of_a_recording_that_cannot_be_written_is_refused() {
    // The first of each kind makes the bucket at the start.
    fails(DiskCall::Write, "objects/tmp", 1, 2, repeated);
    fails(DiskCall::Sync, "objects/tmp", 1, 2, repeated);
    fails(DiskCall::Rename, "buckets/edge-life", 1, 2, repeated);
}

#[test]
fn a_record_that_may_or_may_not_be_durable_is_refused_and_the_repetition_decides() {
    fails(DiskCall::SyncDir, "buckets/edge-life", 1, 2, |report| {
        assert_eq!(report.ends, [""; 0], "a fault under one recording ends no site");
        assert!(sent(report) > 1, "the device was not refused: {:#?}", report.device);
        // Either record may be there after a power loss: the bytes of both stay until the site has read the folder again.
        assert!(report.swept_at_a_start);
    });
}

#[test]
fn a_recording_that_cannot_be_read_waits_and_no_attempt_is_spent() {
    for skip in [0, 8, 16, 24] {
        fails(DiskCall::Read, "objects/blobs", skip, 3, |report| {
            served(report);
            assert_eq!(report.sent, 3, "the cloud was sent everything once");
        });
    }
}

#[test]
fn an_edge_copy_that_cannot_be_removed_is_removed_later() {
    fails(DiskCall::Remove, "buckets/edge-life", 0, 3, served);
}

/// Calls of a kind on the database in a life without a fault: those that make it, and those after.
fn calls_of_the_database(verb: DiskVerb) -> (u32, u32) {
    let calm = live(Plan::new(seed(), Vec::new())).expect("a life without a fault");
    let of = |name: &str| {
        let calls = calm.ops.iter().filter(|op| op.verb == verb && op.path.ends_with(name));
        u32::try_from(calls.count()).expect("few")
    };
    (of("tidegate.redb.new"), of("tidegate.redb"))
}

/// The site ended and was started again until it could.
fn ended(report: &Report) {
    assert!(!report.ends.is_empty(), "a record that cannot be kept ends the site");
    assert!(
        report.ends.iter().all(|end| end.contains("store") || end.contains("data directory")),
        "{:?}",
        report.ends
    );
}

#[test]
fn a_database_that_cannot_be_written_ends_the_site_and_the_next_start_goes_on() {
    for (call, verb) in [(DiskCall::Write, DiskVerb::Write), (DiskCall::Sync, DiskVerb::Sync)] {
        let (made, all) = calls_of_the_database(verb);
        assert!(made > 0 && all > 15, "{made} {all}");
        for skip in [all / 4, all / 2, all * 3 / 4] {
            fails(call, "tidegate.redb", made + skip, 1, ended);
        }
        // The fault lasts over several starts.
        fails(call, "tidegate.redb", made + all / 2, 6, ended);
    }
}

#[test]
fn a_first_start_on_a_disk_that_fails_is_made_up_for_by_a_later_one() {
    for call in [DiskCall::Create, DiskCall::Write, DiskCall::Sync, DiskCall::SetLen] {
        fails(call, "tidegate.redb", 0, 2, ended);
    }
    fails(DiskCall::Sync, "objects/tmp", 0, 2, |report| {
        assert_eq!(report.ends.len(), 2, "{:?}", report.ends)
    });
}

#[test]
fn a_disk_that_is_nearly_full_takes_no_recording_until_there_is_room() {
    let seed = seed();
    let faults = Faults::default();
    // Longer than all the tries of a device that is refused.
    let full = std::iter::repeat_n(1 << 20, 60);
    faults.say_free(full.chain([1 << 40]));
    let report = live(Plan { faults: Some(faults.clone()), ..Plan::new(seed, Vec::new()) });
    let report = report.unwrap_or_else(|why| panic!("TIDEGATE_SEED={seed}: {why}"));
    assert_eq!(faults.free_left(), 0, "it ended before there was room");
    served(&report);
    assert_eq!(sent(&report), 1, "it was asked for once, when it could be taken");
}

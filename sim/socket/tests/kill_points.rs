//! The site's process is killed, or its power fails, at moments that no proxy can hold: when something is durable and has
//! not yet been told or acted on. Afterwards nothing is done twice, lost or left behind.

use tidegate_device::DeviceEvent;
use tidegate_sim_socket::socket_world::{Cut, DiskVerb, Keep, Moment};
use tidegate_sim_socket::whole_life::{Death, End, Plan, Report, live};

/// Kills wanted at each point: three, or what `TIDEGATE_KILLS` says.
fn kills_wanted() -> u64 {
    std::env::var("TIDEGATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Where the seeds of the worlds come from; `TIDEGATE_SEED` repeats a run exactly.
fn seed() -> u64 {
    let given = std::env::var("TIDEGATE_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Kills the site when it is about to say something with all of these words in it.
fn before_it_says(words: &'static [&'static str]) -> Death {
    killed_when(move |moment| match moment {
        Moment::Send(bytes) => words.iter().all(|word| holds(bytes, word)),
        Moment::Disk(_) => false,
    })
}

/// Kills the site before an operation of its disk below a folder, the `nth` of its kind.
fn before_it_does(verb: DiskVerb, folder: &'static str, nth: u32) -> Death {
    let mut left = nth;
    killed_when(move |moment| match moment {
        Moment::Disk(op) if op.verb == verb && op.path.to_string_lossy().contains(folder) => {
            left -= 1;
            left == 0
        }
        Moment::Disk(_) | Moment::Send(_) => false,
    })
}

fn killed_when(mut now: impl FnMut(Moment<'_>) -> bool + Send + 'static) -> Death {
    Death {
        arm: Box::new(move |power| power.cut_when(move |moment| now(moment).then_some(Cut::Before))),
        end: End::Kill,
    }
}

/// Plays lives that end once at a moment, by a kill and by a power loss that keeps nothing unsynced.
fn kill(death: impl Fn() -> Death) -> Vec<Report> {
    kill_watched(death, false)
}

fn kill_watched(death: impl Fn() -> Death, viewer: bool) -> Vec<Report> {
    let seed = seed();
    let play = |seed: u64, end| {
        let report = live(Plan { viewer, ..Plan::new(seed, vec![Death { end, ..death() }]) });
        let report = report.unwrap_or_else(|why| panic!("TIDEGATE_SEED={seed} {end:?}: {why}"));
        assert_eq!(report.deaths, 1, "TIDEGATE_SEED={seed} {end:?}: the moment never came");
        report
    };
    let ends = [End::Kill, End::PowerLoss(Keep::Nothing)];
    (0..kills_wanted()).flat_map(|n| ends.map(|end| play(seed.wrapping_add(n), end))).collect()
}

/// A sidecar and two parts: the cloud was sent everything once.
const ONCE: usize = 3;

/// How often the device sent its recording to the site.
fn sent(report: &Report) -> usize {
    let begins = |event: &&DeviceEvent| matches!(event, DeviceEvent::Upload { status: "active", .. });
    report.device.iter().filter(begins).count()
}

/// How often the device was told something.
fn heard(report: &Report, what: &str) -> usize {
    let told =
        |event: &&DeviceEvent| matches!(event, DeviceEvent::Received { frame, .. } if frame["type"] == what);
    report.device.iter().filter(told).count()
}

#[test]
fn between_the_commit_of_a_task_and_its_201() {
    kill(|| before_it_says(&["HTTP/1.1 201"]));
}

#[test]
fn between_the_commit_of_a_finish_callback_and_the_upload_request() {
    for report in kill(|| before_it_says(&["\"type\":\"upload_request\""])) {
        assert_eq!(heard(&report, "upload_request"), 1, "asked for once the site is back");
    }
}

#[test]
fn between_the_commit_of_a_recording_and_its_upload_ack() {
    for report in kill(|| before_it_says(&["\"type\":\"upload_ack\""])) {
        assert_eq!(heard(&report, "upload_ack"), 1, "told once the site is back");
        assert_eq!(sent(&report), 1, "what the site holds is not sent again");
    }
}

#[test]
fn between_the_commit_of_a_job_and_its_202() {
    for report in kill(|| before_it_says(&["HTTP/1.1 202"])) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_the_claim_and_the_first_word_to_the_cloud() {
    for report in kill(|| before_it_says(&[" /fleet/"])) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_the_plan_of_an_upload_and_its_creation() {
    for report in kill(|| before_it_says(&["POST /fleet/", "?uploads"])) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_the_last_part_and_the_completion() {
    for report in kill(|| before_it_says(&["POST /fleet/", "uploadId="])) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_the_outcome_and_the_local_delete() {
    for report in kill(|| before_it_does(DiskVerb::Remove, "buckets/edge-life", 1)) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_the_local_deletes_of_a_recording_and_its_sidecar() {
    for report in kill(|| before_it_does(DiskVerb::Remove, "buckets/edge-life", 2)) {
        assert_eq!(report.sent, ONCE);
    }
}

#[test]
fn between_a_local_delete_and_its_durability() {
    let death = || {
        let mut removed = false;
        killed_when(move |moment| match moment {
            Moment::Disk(op) if op.path.to_string_lossy().contains("buckets/edge-life") => {
                let now = removed && op.verb == DiskVerb::SyncDir;
                removed |= op.verb == DiskVerb::Remove;
                now
            }
            Moment::Disk(_) | Moment::Send(_) => false,
        })
    };
    for report in kill(death) {
        assert_eq!(report.sent, ONCE);
    }
}

/// The viewer itself fails a life in which it is told something twice, with a gap, or too early.
#[test]
fn between_the_commit_of_a_change_and_its_event() {
    for words in [
        &["event: task_state", "\"to\":\"in_progress\""][..],
        &["event: task_state", "\"to\":\"uploading\""],
        &["event: recording"],
    ] {
        for report in kill_watched(|| before_it_says(words), true) {
            let viewed = &report.viewed;
            assert_eq!(viewed.boots.len(), 2, "it was told of both lives: {viewed:?}");
            assert_eq!(viewed.snapshots, ["new", "other_boot"], "{viewed:?}");
            // Told by an event, or by the snapshot alone if the site died with it.
            assert!(viewed.recorded || words == ["event: recording"], "{viewed:?}");
        }
    }
}

/// In the moment after the viewer was told: something else leaves right behind it.
#[test]
fn between_an_event_and_what_follows_it() {
    for report in kill_watched(|| before_it_says(&["\"type\":\"upload_ack\""]), true) {
        assert_eq!(heard(&report, "upload_ack"), 1, "told once the site is back");
        assert_eq!(report.viewed.snapshots, ["new", "other_boot"], "{:?}", report.viewed);
    }
}

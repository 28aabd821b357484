//! Example questions for authors: an ordinary moment of a site, one per slot. Nothing decides by them.

use tidegate_core::policy::{
    Candidate, ErrorClass, Known, LinkKind, Power, Question, RetryQuery, Situation, Slot, Subject, Waiting,
};

/// Tuesday, ten in the morning, on a cable: two uploads under way, four jobs wait.
fn situation() -> Situation {
    Situation {
        link: LinkKind::Ethernet,
        metered: Known::No,
        power: Power::Mains,
        minute_of_week: 24 * 60 + 600,
        due: 4,
        waiting: 1,
        uploading: 2,
        recording: 1,
        goodput: 12_000_000,
        disk_free: 640,
        seed: 42,
        ..Situation::default()
    }
}

fn labels() -> Vec<(String, String)> {
    vec![("deadline-hours".to_owned(), "6".to_owned()), ("team".to_owned(), "north".to_owned())]
}

/// The example of a slot.
pub(crate) fn question(slot: Slot) -> Question {
    match slot {
        Slot::AutoScan => Question::AutoScan(
            situation(),
            vec![
                Candidate {
                    episode: 7,
                    device: "robot-1".to_owned(),
                    size: 52_428_800,
                    age_ms: 3_600_000,
                    tries: 0,
                    labels: labels(),
                },
                Candidate {
                    episode: 9,
                    device: "robot-2".to_owned(),
                    size: 1_048_576,
                    age_ms: 60_000,
                    tries: 1,
                    labels: Vec::new(),
                },
            ],
        ),
        Slot::Retry => Question::Retry(RetryQuery {
            job: 7,
            spent: 1,
            class: ErrorClass::Rejected,
            subject: Subject::Object,
            code: "AccessDenied".to_owned(),
            elapsed_ms: 4_000,
            last_delay_ms: 0,
            size: 52_428_800,
            sent: 8_388_608,
            link: LinkKind::Ethernet,
            metered: Known::No,
            memo: 0,
            seed: 42,
        }),
        Slot::Concurrency => Question::Concurrency(situation()),
        Slot::Bandwidth => Question::Bandwidth(situation()),
        Slot::Order => Question::Order(
            situation(),
            vec![
                Waiting {
                    job: 7,
                    device: "robot-1".to_owned(),
                    size: 52_428_800,
                    spent: 0,
                    queued_ms: 600_000,
                    age_ms: 3_600_000,
                    labels: labels(),
                },
                Waiting {
                    job: 9,
                    device: "robot-2".to_owned(),
                    size: 1_048_576,
                    spent: 1,
                    queued_ms: 30_000,
                    age_ms: 60_000,
                    labels: Vec::new(),
                },
            ],
        ),
    }
}

//! The questions of admission: some of every hook, ordinary ones and edges. A module must answer each of them, and twice
//! the same. What it answers is its own affair.

use tidegate_core::policy::{
    Candidate, ErrorClass, Known, LinkKind, Power, Question, RetryQuery, Situation, Slot, Subject, Waiting,
};

use crate::call;
use crate::module::{Rejection, Sitting};

/// The longest batch that the core hands to a policy.
const BATCH: u64 = 256;

/// Asks every question of the hook twice, each time a fresh instance.
pub(crate) fn ask_all(sitting: &Sitting) -> Result<(), Rejection> {
    let name = &sitting.module().facts().name;
    for (n, question) in questions(sitting.slot()).iter().enumerate() {
        let (first, second) =
            (call::ask_patiently(sitting, question), call::ask_patiently(sitting, question));
        let place = format!("{name}, question {} of {}", n + 1, sitting.slot().name());
        let (one, two) = match (&first.outcome, &second.outcome) {
            (Ok(one), Ok(two)) => (one, two),
            (Err(trouble), _) | (_, Err(trouble)) => {
                return Err(Rejection::of(trouble, "vectors", format!("{place}: {trouble}")));
            }
        };
        if one.0 != two.0 {
            let why = format!(
                "{place}: {} answered the same question in two ways: {:?} and {:?}",
                call::name(sitting.slot()),
                one.0,
                two.0
            );
            return Err(Rejection::new("impure", why));
        }
        if (first.fuel, first.start_fuel) != (second.fuel, second.start_fuel) {
            let why = format!(
                "{place}: the same question took {} of fuel and then {}",
                first.fuel + first.start_fuel,
                second.fuel + second.start_fuel
            );
            return Err(Rejection::new("impure", why));
        }
    }
    Ok(())
}

/// The questions of a hook.
pub(crate) fn questions(slot: Slot) -> Vec<Question> {
    let nows = situations();
    match slot {
        Slot::AutoScan => {
            let mut all: Vec<_> =
                [0, 1, 3].map(|n| Question::AutoScan(nows[0].clone(), candidates(n))).into();
            all.push(Question::AutoScan(nows[1].clone(), candidates(BATCH)));
            all
        }
        Slot::Retry => attempts().into_iter().map(Question::Retry).collect(),
        Slot::Concurrency => nows.into_iter().map(Question::Concurrency).collect(),
        Slot::Bandwidth => nows.into_iter().map(Question::Bandwidth).collect(),
        Slot::Order => {
            let mut all: Vec<_> = [0, 1, 3].map(|n| Question::Order(nows[0].clone(), waiting(n))).into();
            all.push(Question::Order(nows[1].clone(), waiting(BATCH)));
            all
        }
    }
}

/// Nothing known; a working day; a bad night; everything at its largest.
fn situations() -> [Situation; 4] {
    [
        Situation::default(),
        Situation {
            link: LinkKind::Ethernet,
            metered: Known::No,
            power: Power::Mains,
            minute_of_week: 600,
            due: 12,
            waiting: 3,
            uploading: 2,
            recording: 4,
            goodput: 10_000_000,
            disk_free: 400,
            memo: 1,
            seed: 0x1234_5678_9abc_def0,
            ..Situation::default()
        },
        Situation {
            link: LinkKind::Cellular,
            metered: Known::Yes,
            power: Power::BatteryLow,
            minute_of_week: 10_079,
            due: 400,
            waiting: 90,
            parked: 5,
            streak: 9,
            goodput: 3_000,
            disk_free: 0,
            seed: 7,
            ..Situation::default()
        },
        Situation {
            link: LinkKind::Other,
            metered: Known::Unknown,
            power: Power::Battery,
            minute_of_week: 10_079,
            due: u32::MAX,
            waiting: u32::MAX,
            uploading: u32::MAX,
            parked: u32::MAX,
            recording: u32::MAX,
            streak: u32::MAX,
            goodput: u64::MAX,
            disk_free: 1000,
            memo: u64::MAX,
            seed: u64::MAX,
        },
    ]
}

fn attempts() -> Vec<RetryQuery> {
    let first = RetryQuery {
        job: 1,
        spent: 1,
        class: ErrorClass::Damaged,
        subject: Subject::Part,
        code: String::from("part_damaged"),
        elapsed_ms: 4_000,
        last_delay_ms: 0,
        size: 50_000_000,
        sent: 8_388_608,
        link: LinkKind::Ethernet,
        metered: Known::No,
        memo: 0,
        seed: 42,
    };
    vec![
        RetryQuery {
            spent: 3,
            class: ErrorClass::Rejected,
            subject: Subject::Object,
            code: String::from("AccessDenied"),
            elapsed_ms: 300_000,
            last_delay_ms: 60_000,
            memo: 5,
            ..first.clone()
        },
        RetryQuery {
            spent: 2,
            class: ErrorClass::Vanished,
            subject: Subject::Upload,
            code: String::from("NoSuchUpload"),
            link: LinkKind::Satellite,
            metered: Known::Yes,
            ..first.clone()
        },
        RetryQuery {
            spent: 100,
            class: ErrorClass::Other,
            subject: Subject::Source,
            code: String::new(),
            ..first.clone()
        },
        RetryQuery {
            job: u64::MAX,
            spent: u32::MAX,
            code: "x".repeat(256),
            elapsed_ms: u64::MAX,
            last_delay_ms: u64::MAX,
            size: u64::MAX,
            sent: u64::MAX,
            memo: u64::MAX,
            seed: u64::MAX,
            ..first.clone()
        },
        first,
    ]
}

/// Some have labels, one has a name of many bytes per letter.
fn labels(n: u64) -> Vec<(String, String)> {
    let label = |key: &str, value: String| (String::from(key), value);
    match n % 3 {
        0 => Vec::new(),
        1 => vec![label("site", String::from("north"))],
        _ => vec![label("deadline-hours", n.to_string()), label("crew", String::from("Zoë — 東京"))],
    }
}

fn candidates(count: u64) -> Vec<Candidate> {
    (0..count)
        .map(|n| Candidate {
            episode: n + 1,
            device: format!("robot-{}", n % 7),
            size: n * 1_000_003,
            age_ms: n * 60_000,
            tries: u32::try_from(n % 4).unwrap_or(0),
            labels: labels(n),
        })
        .collect()
}

fn waiting(count: u64) -> Vec<Waiting> {
    (0..count)
        .map(|n| Waiting {
            job: n + 1,
            device: format!("robot-{}", n % 7),
            size: n * 1_000_003,
            spent: u32::try_from(n % 4).unwrap_or(0),
            queued_ms: n * 30_000,
            age_ms: n * 60_000,
            labels: labels(n),
        })
        .collect()
}

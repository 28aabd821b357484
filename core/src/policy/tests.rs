//! Tests of the built-in policies, and that each question is asked by the core and its answer made safe.
#![allow(clippy::unwrap_used, reason = "a test fails by it, at the right line")]

use std::vec;

use crate::outcome::Fault;
use crate::policy::builtin::REASONS;
use crate::policy::{
    Author, Builtin, Candidate, Choice, ErrorClass, GiveUp, Known, LinkKind, Policies, RetryAction,
    RetryQuery, Settings, Situation, Slot, Subject, Waiting,
};
use crate::upload::rig::{MIB, Model, Rig};

fn query(spent: u32, seed: u64) -> RetryQuery {
    RetryQuery {
        job: 1,
        spent,
        class: ErrorClass::Damaged,
        subject: Subject::Part,
        code: "part_damaged".into(),
        elapsed_ms: 0,
        last_delay_ms: 0,
        size: 10,
        sent: 0,
        link: LinkKind::Unknown,
        metered: Known::Unknown,
        memo: 0,
        seed,
    }
}

#[test]
fn auto_scan_is_off_unless_switched_on_and_answers_for_every_candidate() {
    let candidate =
        |n| Candidate { episode: n, device: "robot".into(), size: 1, age_ms: n, tries: 0, labels: vec![] };
    let candidates = [candidate(1), candidate(2), candidate(3)];
    for (auto_scan, choice) in [(false, Choice::Later), (true, Choice::Enqueue)] {
        let mut policies = Builtin::new(Settings { auto_scan, ..Settings::default() });
        let ruling = policies.select(&Situation::default(), &candidates);
        let choices: vec::Vec<Choice> = ruling.verdict.iter().map(|chosen| chosen.choice).collect();
        assert_eq!(choices, vec![choice; 3]);
        let words: vec::Vec<&str> = ruling.verdict.iter().map(|chosen| ruling.word(chosen.reason)).collect();
        assert_eq!(words, vec![if auto_scan { "auto-scan-on" } else { "auto-scan-off" }; 3]);
        assert_eq!(ruling.by, Author::Set(policies.id()));
        assert_eq!(policies.select(&Situation::default(), &[]).verdict, vec![]);
    }
}

#[test]
fn a_retry_doubles_its_delay_up_to_the_cap_with_jitter_inside_it() {
    let mut policies = Builtin::new(Settings { attempts: 100, ..Settings::default() });
    let cases = [(0, 30), (1, 30), (2, 60), (3, 120), (4, 240), (6, 960), (7, 1_800), (60, 1_800)];
    for (spent, base) in cases {
        for seed in 0..50 {
            let RetryAction::After { delay_ms } = policies.retry(&query(spent, seed)).verdict.action else {
                panic!("{spent} attempts are not too many");
            };
            let most = (base * 1_000 + 30_000).min(1_800_000);
            assert!((base * 1_000..=most).contains(&delay_ms), "{spent}: {delay_ms}");
        }
    }
    let delays: std::collections::BTreeSet<_> =
        (0..50).map(|seed| std::format!("{:?}", policies.retry(&query(1, seed)).verdict)).collect();
    assert!(delays.len() > 40, "jitter depends on the seed");
}

#[test]
fn a_retry_ends_when_its_attempts_are_used_up() {
    let mut policies = Builtin::new(Settings::default());
    assert!(matches!(policies.retry(&query(4, 1)).verdict.action, RetryAction::After { .. }));
    for spent in [5, 6, u32::MAX] {
        let action = policies.retry(&query(spent, 1)).verdict.action;
        assert_eq!(action, RetryAction::GiveUp(GiveUp::Exhausted));
    }
}

#[test]
fn limits_and_budget_are_the_settings() {
    let settings = Settings { uploads: 7, bytes_per_second: Some(9), ..Settings::default() };
    let mut policies = Builtin::new(settings);
    assert_eq!(policies.limits(&Situation::default()).verdict.uploads, 7);
    assert_eq!(policies.budget(&Situation::default()).verdict.bytes_per_second, Some(9));
}

#[test]
fn the_order_is_by_approval() {
    let waiting = |job, age_ms| Waiting {
        job,
        device: "robot".into(),
        size: 1,
        spent: 0,
        queued_ms: 5,
        age_ms,
        labels: vec![],
    };
    let mut policies = Builtin::new(Settings::default());
    let scores = policies.score(&Situation::default(), &[waiting(1, 3), waiting(2, 9), waiting(3, u64::MAX)]);
    assert_eq!(scores.verdict.scores, [3, 9, i64::MAX]);
}

#[test]
fn equal_questions_have_equal_answers_and_the_id_follows_the_settings() {
    let (mut a, mut b) = (Builtin::new(Settings::default()), Builtin::new(Settings::default()));
    assert_eq!(a.retry(&query(2, 77)), b.retry(&query(2, 77)));
    assert_eq!(a.id(), b.id());
    let other = Builtin::new(Settings { attempts: 6, ..Settings::default() });
    assert_ne!(a.id(), other.id());
}

#[test]
fn the_sync_half_of_the_core_asks_four_questions_and_records_every_verdict() {
    let (mut rig, mut store) = (Rig::new(), Model::default());
    for n in 1..=4 {
        rig.want(n, 2 * MIB, false);
    }
    let first = *rig.open.keys().next().unwrap();
    rig.answer(first, crate::outcome::Outcome::Failed(Fault::Rejected("Odd".into())));
    rig.run(&mut store);
    assert!((1..=4).all(|n| rig.is_completed(n)));
    for slot in [Slot::Retry, Slot::Concurrency, Slot::Bandwidth, Slot::Order] {
        assert!(rig.policies.asked.contains(&slot), "{slot:?}");
    }
    assert_eq!(rig.policies.asked, rig.ruled, "each question is in the journal, in order");
}

#[test]
fn a_reason_is_a_word_of_its_author_and_never_a_panic() {
    let mut policies = Builtin::new(Settings::default());
    let ruling = policies.limits(&Situation::default());
    assert_eq!(ruling.word(0), "unspecified");
    assert_eq!(ruling.word(ruling.verdict.reason), "configured-limit");
    let last = u16::try_from(REASONS.len()).unwrap();
    assert_eq!((ruling.word(last), ruling.word(last + 1)), (REASONS[6], "unknown"));
    assert_eq!(ruling.word(u16::MAX), "unknown");
}

//! What a module is asked and answers, and what a faulty one can do: nothing but fail its own question.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Atomic};
use std::time::Duration;

use tidegate_core::policy::{
    Bandwidth, Choice, Chosen, Ordering, PolicyFault, Question, RetryAction, RetryVerdict, SettingValue,
    Slot, UploadLimits, Verdict,
};
use tidegate_policies::{Ceilings, Host, Level, Limits, Manifest};

use crate::rig;

#[test]
fn all_five_hooks_answer_with_what_they_were_asked() {
    let module = rig::admitted(&rig::host(), "suite");
    assert_eq!(module.facts().slots, Slot::ALL);
    let ask = |question: &Question| {
        let asked = module.seat(question.slot(), &[]).unwrap().ask(question);
        assert!(asked.fuel > 0 && asked.start_fuel > 0 && asked.memory == 65536);
        let (verdict, words) = asked.outcome.unwrap();
        assert_eq!(*words, [String::from("one"), String::from("two")]);
        verdict
    };
    let memo = |memo| tidegate_core::policy::RetryQuery { memo, ..rig::attempt(3) };
    assert_eq!(
        ask(&Question::Retry(memo(8))),
        Verdict::Retry(RetryVerdict { action: RetryAction::After { delay_ms: 3000 }, memo: 9, reason: 1 })
    );
    assert_eq!(
        ask(&Question::Concurrency(rig::now())),
        Verdict::Concurrency(UploadLimits { uploads: 2, recheck_ms: 5000, memo: 11, reason: 2 })
    );
    assert_eq!(
        ask(&Question::Bandwidth(rig::now())),
        Verdict::Bandwidth(Bandwidth { bytes_per_second: Some(77), recheck_ms: 0, memo: 99, reason: 0 })
    );
    assert_eq!(
        ask(&Question::Order(rig::now(), rig::waiting(4))),
        Verdict::Order(Ordering { scores: vec![0, 10, 20, 30], reason: 1 })
    );
    let (queued, later) =
        (Chosen { choice: Choice::Enqueue, reason: 1 }, Chosen { choice: Choice::Later, reason: 1 });
    assert_eq!(
        ask(&Question::AutoScan(rig::now(), rig::episodes(3))),
        Verdict::AutoScan(vec![queued, later, queued])
    );
}

#[test]
fn settings_reach_the_module_and_wrong_ones_are_refused_with_their_name() {
    let module = rig::admitted(&rig::host(), "suite");
    let seat = |key: &str, value| module.seat(Slot::Concurrency, &[(String::from(key), value)]);
    let sitting = seat("uploads", SettingValue::Int(9)).unwrap();
    let asked = sitting.ask(&Question::Concurrency(rig::now()));
    let Ok((Verdict::Concurrency(limits), _)) = asked.outcome else { panic!("{asked:?}") };
    assert_eq!(limits.uploads, 9);

    let why = |key, value| seat(key, value).unwrap_err().to_string();
    assert_eq!(why("uploads", SettingValue::Int(1001)), "configure: fixture: at most 1000");
    assert_eq!(
        why("uploads", SettingValue::Flag(true)),
        "configure: fixture: uploads must be a whole number"
    );
    assert_eq!(
        why("downloads", SettingValue::Int(1)),
        "configure: fixture: downloads is no setting of this policy (uploads)"
    );
    let twice = [("uploads".into(), SettingValue::Int(1)), ("uploads".into(), SettingValue::Int(2))];
    assert_eq!(module.seat(Slot::Concurrency, &twice).unwrap_err().why, "fixture: uploads is given twice");
}

#[test]
fn a_hook_that_a_module_does_not_serve_cannot_be_sat_in() {
    let host = rig::host();
    let module = host.admit(&rig::component(&rig::retry_after("(i64.const 7)"))).unwrap();
    assert_eq!(module.facts().slots, [Slot::Retry]);
    let rejection = module.seat(Slot::Order, &[]).unwrap_err();
    assert_eq!(rejection.to_string(), "no_hook: fixture does not serve order; it serves retry");
}

/// A fault, the kind the core counts it as, and what is said of it.
#[test]
fn every_fault_ends_its_own_question_and_nothing_else() {
    let sitting = rig::admitted(&rig::host(), "fickle").seat(Slot::Retry, &[]).unwrap();
    let faults = [
        (200, PolicyFault::Trap, "retry.next: wasm trap: wasm `unreachable` instruction executed"),
        (201, PolicyFault::Exhausted, "retry.next: used up its fuel"),
        (202, PolicyFault::Trap, "retry.next: wasm trap: integer divide by zero"),
        (203, PolicyFault::Trap, "retry.next: wasm trap: call stack exhausted"),
        (204, PolicyFault::Trap, "retry.next: wasm trap: out of bounds memory access"),
        (
            205,
            PolicyFault::Exhausted,
            "retry.next: wasm trap: wasm `unreachable` instruction executed; it was refused more memory",
        ),
        (206, PolicyFault::Trap, "retry.next: wasm trap: out of bounds memory access"),
        (
            207,
            PolicyFault::Trap,
            "retry.next: wasm trap: wasm `unreachable` instruction executed; it said: the fickle one gave up",
        ),
        (208, PolicyFault::Shape, "retry.next: unexpected discriminant: 9"),
        (209, PolicyFault::Shape, "retry.next: reason 3 is unknown; meta.describe names 2"),
        (210, PolicyFault::Shape, "retry.next: pointer out of bounds of memory"),
        (211, PolicyFault::Shape, "retry.next: return pointer not aligned"),
        (214, PolicyFault::Shape, "retry.next: unexpected discriminant: 7"),
        (215, PolicyFault::Exhausted, "retry.next: used up its fuel"),
    ];
    for (spent, fault, detail) in faults {
        let asked = sitting.ask(&rig::retry(spent));
        let trouble = asked.outcome.clone().expect_err(detail);
        assert_eq!((trouble.fault, trouble.detail.as_str()), (fault, detail), "{spent}");
        let again = sitting.ask(&rig::retry(spent));
        assert_eq!(again.outcome.unwrap_err(), trouble);
        assert_eq!(again.fuel, asked.fuel, "{spent}");
        let good = sitting.ask(&rig::retry(1)).outcome.unwrap().0;
        assert_eq!(good, sitting.ask(&rig::retry(1)).outcome.unwrap().0);
    }
}

#[test]
fn a_log_is_cut_at_its_budget_and_does_not_grow_the_site() {
    let sitting = rig::admitted(&rig::host(), "fickle").seat(Slot::Retry, &[]).unwrap();
    let flood = sitting.ask(&rig::retry(212));
    assert_eq!(flood.outcome.unwrap_err().fault, PolicyFault::Exhausted, "5000 lines are no decision");
    assert!(flood.log.len() > 100 && flood.log.len() <= 256, "{} lines", flood.log.len());
    assert!(
        flood.log.iter().all(|(level, text)| *level == Level::Info && "flood ".starts_with(text.as_str()))
    );
    let long = sitting.ask(&rig::retry(213));
    assert!(long.outcome.is_ok());
    assert_eq!(long.log.len(), 1);
    let length = long.log[0].1.len();
    assert!(length > 3000 && length <= 4096, "{length} bytes");
}

#[test]
fn a_line_of_the_log_costs_fuel_whether_it_is_kept_or_not() {
    let talks = |lines: u32| {
        let body = format!(
            "(import \"tidegate:policy/diag@0.1.0\" \"log\" (func $log (param i32 i32 i32)))\n{}",
            rig::retry_after("(i64.const 7)").replacen(
                "(i32.store8",
                &format!(
                    "{} (i32.store8",
                    "(call $log (i32.const 1) (i32.const 1024) (i32.const 7))".repeat(lines as usize)
                ),
                1,
            )
        );
        let module = rig::host().admit(&rig::component(&body)).unwrap();
        let asked = module.seat(Slot::Retry, &[]).unwrap().ask(&rig::retry(1));
        assert!(asked.outcome.is_ok(), "{:?}", asked.outcome);
        (asked.fuel, asked.log.len())
    };
    let ((none, _), (three, kept)) = (talks(0), talks(3));
    assert_eq!(kept, 3);
    assert!((3_000..3_100).contains(&(three - none)), "{none}, {three}");
    let (many, kept) = talks(500);
    assert!(kept < 250, "{kept} lines are what the budget holds");
    assert!((500_000..510_000).contains(&(many - none)), "{none}, {many}");
}

#[test]
fn a_wrong_number_of_answers_is_a_fault_of_shape() {
    let host = rig::host();
    // As many as asked for, unless there are five.
    let body = format!(
        "{}
        (if (i32.eq (local.get $count) (i32.const 5)) (then (local.set $count (i32.const 4))))
        (i32.store (i32.const 2048) (i32.const 4096))
        (i32.store (i32.const 2052) (local.get $count))
        (i32.store16 (i32.const 2056) (i32.const 0))
        (i32.const 2048))",
        rig::SCORE
    );
    let sitting = host.admit(&rig::component(&body)).unwrap().seat(Slot::Order, &[]).unwrap();
    assert!(sitting.ask(&Question::Order(rig::now(), rig::waiting(4))).outcome.is_ok());
    let trouble = sitting.ask(&Question::Order(rig::now(), rig::waiting(5))).outcome.unwrap_err();
    assert_eq!(trouble.to_string(), "shape: order.score: expected 5 answers, found 4");
}

#[test]
fn a_huge_result_is_refused_before_it_is_copied() {
    let body = format!(
        "(memory (export \"memory\") 8)
        (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
        {}
        (i32.store (i32.const 2048) (i32.const 131072))
        (i32.store (i32.const 2052)
          (select (i32.const 40000) (local.get $count) (i32.eq (local.get $count) (i32.const 5))))
        (i32.store16 (i32.const 2056) (i32.const 0))
        (i32.const 2048))",
        rig::SCORE
    );
    let sitting = rig::host().admit(&rig::component(&body)).unwrap().seat(Slot::Order, &[]).unwrap();
    let trouble = sitting.ask(&Question::Order(rig::now(), rig::waiting(5))).outcome.unwrap_err();
    assert_eq!(trouble.fault, PolicyFault::Shape);
    assert!(trouble.detail.contains("too much data"), "{trouble}");
}

#[test]
fn a_batch_that_does_not_fit_the_guest_is_the_guests_fault() {
    // One page, and an allocator that gives up beyond it.
    let body = format!(
        "(memory (export \"memory\") 1 1)
        (global $top (mut i32) (i32.const 60000))
        (func (export \"cabi_realloc\") (param i32 i32 i32) (param $size i32) (result i32)
          (global.set $top (i32.and (i32.const -8) (i32.add (global.get $top) (i32.add (local.get $size) (i32.const 7)))))
          (if (i32.gt_u (global.get $top) (i32.const 65536)) (then (unreachable)))
          (i32.and (i32.const -8) (i32.sub (global.get $top) (local.get $size))))
        {}
        (i32.store (i32.const 2048) (i32.const 4096))
        (i32.store (i32.const 2052) (local.get $count))
        (i32.store16 (i32.const 2056) (i32.const 0))
        (i32.const 2048))",
        rig::SCORE
    );
    let rejection = rig::host().admit(&rig::component(&body)).unwrap_err();
    assert_eq!(rejection.code, "vectors");
    assert!(
        rejection.why.starts_with("fixture, question 4 of order: trap: order.score: wasm trap"),
        "{rejection}"
    );
}

#[test]
fn floats_with_odd_bits_do_not_make_two_answers() {
    // A NaN with a payload goes through arithmetic; its bits would be the machine's if nothing made them canonical.
    let body = rig::retry_after(
        "(i64.reinterpret_f64 (f64.add (f64.reinterpret_i64 (i64.const 0x7ff00000deadbeef))
           (f64.reinterpret_i64 (local.get $seed))))",
    );
    let sitting = rig::host().admit(&rig::component(&body)).unwrap().seat(Slot::Retry, &[]).unwrap();
    let asked = sitting.ask(&rig::retry(1));
    let Ok((Verdict::Retry(verdict), _)) = asked.outcome else { panic!("{asked:?}") };
    assert_eq!(verdict.action, RetryAction::After { delay_ms: 0x7ff8_0000_0000_0000 });
}

#[test]
fn fuel_is_the_same_in_every_run_and_on_another_engine() {
    let bytes = rig::fixture("suite");
    let questions = [
        rig::retry(4),
        Question::Concurrency(rig::now()),
        Question::Order(rig::now(), rig::waiting(64)),
        Question::AutoScan(rig::now(), rig::episodes(256)),
    ];
    let run = |host: &Host| -> Vec<_> {
        let module = host.admit(&bytes).unwrap();
        let ask = |question: &Question| {
            let asked = module.seat(question.slot(), &[]).unwrap().ask(question);
            (asked.fuel, asked.start_fuel, asked.outcome.unwrap().0)
        };
        questions.iter().map(ask).collect()
    };
    let host = rig::host();
    let first = run(&host);
    assert_eq!(run(&host), first);
    assert_eq!(run(&rig::host()), first);
}

#[test]
fn a_longer_batch_has_more_fuel() {
    let ceilings = Ceilings::default();
    let order = |n| ceilings.fuel_for(&Question::Order(rig::now(), rig::waiting(n)));
    assert_eq!((order(0), order(256)), (1_000_000, 1_000_000 + 256 * 5_000));
    assert_eq!(ceilings.fuel_of(Slot::AutoScan), (1_000_000, 20_000));
}

#[test]
fn a_manifest_lowers_limits_and_never_raises_them() {
    let host = rig::host();
    let suite = rig::fixture("suite");
    let limits = |fuel, memory, result_bytes| Manifest {
        limits: Limits { fuel, memory, result_bytes },
        ..Manifest::default()
    };
    assert!(host.admit_with(&suite, &limits(Some(u64::MAX), Some(u64::MAX), Some(u64::MAX))).is_ok());
    let why = |manifest: &Manifest| host.admit_with(&suite, manifest).unwrap_err().to_string();
    assert!(why(&limits(Some(5), None, None)).contains("used up its fuel"));
    let memory = why(&limits(None, Some(4096), None));
    assert!(memory.starts_with("limits: exhausted: instantiate"), "{memory}");
    let result = why(&limits(None, None, Some(10)));
    assert!(result.starts_with("describe: shape: meta.describe: too much data"), "{result}");

    let only = |hooks: &[Slot]| Manifest { hooks: Some(hooks.to_vec()), ..Manifest::default() };
    let module = host.admit_with(&suite, &only(&[Slot::Order, Slot::Retry])).unwrap();
    assert_eq!(module.facts().slots, [Slot::Retry, Slot::Order]);
    assert!(module.seat(Slot::Concurrency, &[]).is_err());
    let idle = host.admit_with(&rig::fixture("idle"), &only(&[Slot::Order])).unwrap_err();
    assert_eq!(idle.to_string(), "no_hook: its manifest names the hook order, which it does not export");
}

/// The clock is the backstop: with fuel for hours it still ends a loop, after one more try in a fresh instance.
#[test]
fn the_clock_ends_what_fuel_does_not() {
    let ceilings = Ceilings { fuel: u64::MAX / 4, wall: Duration::from_millis(30), ..Ceilings::default() };
    let host = Host::new(ceilings).unwrap();
    let sitting = rig::admitted(&host, "fickle").seat(Slot::Retry, &[]).unwrap();
    let (over, ticks) = (AtomicBool::new(false), AtomicU64::new(0));
    let trouble = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Atomic::Relaxed) {
                host.tick();
                ticks.fetch_add(1, Atomic::Relaxed);
                std::thread::yield_now();
            }
        });
        let asked = sitting.ask(&rig::retry(201));
        over.store(true, Atomic::Relaxed);
        asked.outcome.unwrap_err()
    });
    assert_eq!(trouble.to_string(), "timeout: retry.next: was interrupted by the clock");
    assert!(ticks.into_inner() >= 8, "30 ms are four ticks, and it was asked twice");
}

#[test]
fn without_a_tick_every_store_has_its_deadline_and_fuel_ends_a_loop() {
    let host = rig::host();
    let sitting = rig::admitted(&host, "fickle").seat(Slot::Retry, &[]).unwrap();
    // Long after the engine began, a fresh store still has all of its time.
    for _ in 0..1000 {
        host.tick();
    }
    assert!(sitting.ask(&rig::retry(1)).outcome.is_ok());
    assert_eq!(sitting.ask(&rig::retry(201)).outcome.unwrap_err().fault, PolicyFault::Exhausted);
}

#[test]
fn an_instance_that_is_kept_is_unusable_after_a_trap() {
    let sitting = rig::admitted(&rig::host(), "fickle").seat(Slot::Retry, &[]).unwrap();
    let mut held = sitting.hold().unwrap();
    let first = held.ask(&rig::retry(1));
    assert_eq!(held.ask(&rig::retry(1)).outcome.unwrap().0, first.outcome.unwrap().0);
    assert!(held.ask(&rig::retry(200)).outcome.is_err());
    assert!(held.ask(&rig::retry(1)).outcome.is_err(), "no state of a torn instance is ever used");
}

#[test]
fn a_question_to_the_wrong_seat_is_answered_by_nobody() {
    let sitting = rig::admitted(&rig::host(), "suite").seat(Slot::Retry, &[]).unwrap();
    let trouble = sitting.ask(&Question::Concurrency(rig::now())).outcome.unwrap_err();
    assert_eq!(trouble.to_string(), "missing: retry.next was asked about concurrency");
}

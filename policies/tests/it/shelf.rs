//! The shelf with modules in it: who answers, what falls back to the floor, and the candidate beside the active one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::time::Duration;

use tidegate_core::digest::Sha256;
use tidegate_core::policy::{
    Author, Binding, Builtin, Policies, PolicyFault, PolicySet, RetryAction, RetryQuery, Seat, SettingValue,
    Settings, Slot,
};
use tidegate_policies::{Ceilings, DEFAULT, Host, Module, SeatedSet, Shelf, default_hash, differ};

use crate::rig;

fn settings() -> Settings {
    Settings { retry_jitter_ms: 0, ..Settings::default() }
}

/// A set with a module in some slots and the built-in rules in the others.
fn set(module: &Module, slots: &[Slot], settings: &[(&str, SettingValue)]) -> PolicySet {
    let mut set = PolicySet::native(self::settings());
    for slot in slots {
        let settings = settings.iter().map(|(key, value)| (String::from(*key), value.clone())).collect();
        set.seats[*slot as usize] = Seat::Module(Binding { module: module.hash(), settings });
    }
    set
}

fn known(module: &Module) -> impl Fn(Sha256) -> Option<Module> {
    let module = module.clone();
    move |hash| (hash == module.hash()).then(|| module.clone())
}

#[test]
fn a_module_answers_in_its_slot_and_the_rules_of_the_set_in_the_others() {
    let module = rig::admitted(&rig::host(), "suite");
    let set = set(&module, &[Slot::Retry], &[]);
    let mut shelf = Shelf::with_builtin(settings());
    let id = shelf.put_set(&set, &known(&module)).unwrap();
    assert_eq!(id, set.id());
    assert!(shelf.holds(id));
    let policies = shelf.get(id);
    let ruling = policies.retry(&rig::attempt(4));
    assert_eq!(ruling.verdict.action, RetryAction::After { delay_ms: 4000 });
    assert_eq!((ruling.by.clone(), ruling.word(ruling.verdict.reason)), (Author::Set(id), "one"));
    let ruling = policies.limits(&rig::now());
    assert_eq!((ruling.verdict.uploads, ruling.by.clone()), (2, Author::Set(id)));
    assert_eq!(ruling.word(ruling.verdict.reason), "configured-limit");
    assert_eq!(policies.score(&rig::now(), &rig::waiting(3)).verdict.scores, [0, 10, 20]);
    assert_eq!(policies.select(&rig::now(), &rig::episodes(3)).verdict.len(), 3);
    assert_eq!(policies.budget(&rig::now()).verdict.bytes_per_second, None);
}

#[test]
fn a_fault_falls_back_to_the_floor_for_this_decision_and_is_counted_with_its_module() {
    let module = rig::admitted(&rig::host(), "fickle");
    let mut shelf = Shelf::with_builtin(settings());
    let id = shelf.put_set(&set(&module, &[Slot::Retry], &[]), &known(&module)).unwrap();
    for (spent, why) in [(200, PolicyFault::Trap), (201, PolicyFault::Exhausted), (209, PolicyFault::Shape)] {
        let ruling = shelf.get(id).retry(&rig::attempt(spent));
        assert_eq!(ruling.by, Author::Builtin { instead_of: id, why });
        assert_eq!(ruling.verdict, Builtin::new(settings()).retry(&rig::attempt(spent)).verdict);
        assert_eq!(ruling.word(ruling.verdict.reason), "attempts-exhausted");
        assert_eq!(shelf.get(id).retry(&rig::attempt(1)).by, Author::Set(id), "the next decision is its own");
    }
    shelf.get(id).retry(&rig::attempt(207));
    let reader = shelf.figures();
    let figures = reader.read();
    let seat = &figures.seats[&(Slot::Retry, Some(module.hash()))];
    assert_eq!((seat.decisions, seat.reasons["one"]), (3, 3));
    assert_eq!(seat.faults, BTreeMap::from([("exhausted", 1), ("shape", 1), ("trap", 2)]));
    assert_eq!((seat.fuel.count(), seat.micros.count()), (7, 7));
    let (fault, detail) = seat.last_fault.clone().unwrap();
    assert_eq!(fault, PolicyFault::Trap);
    assert!(detail.ends_with("it said: the fickle one gave up"), "{detail}");
    let said = reader.said();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].slot, said[0].module), (Slot::Retry, module.hash()));
    assert!(reader.said().is_empty(), "what was fetched is gone");
}

#[test]
fn a_set_that_cannot_be_prepared_names_the_slot_and_changes_nothing() {
    let module = rig::admitted(&rig::host(), "suite");
    let mut shelf = Shelf::with_builtin(settings());
    let wanted = set(&module, &[Slot::Concurrency], &[("uploads", SettingValue::Int(5000))]);
    let (slot, rejection) = shelf.put_set(&wanted, &known(&module)).unwrap_err();
    assert_eq!((slot, rejection.code), (Slot::Concurrency, "configure"));
    assert!(!shelf.holds(wanted.id()));
    let wanted = set(&module, &[Slot::Order], &[]);
    let (slot, rejection) = SeatedSet::prepare(&wanted, &|_| None).unwrap_err();
    assert_eq!((slot, rejection.code), (Slot::Order, "missing"));
    let by = shelf.get(wanted.id()).limits(&rig::now()).by;
    assert_eq!(by, Author::Builtin { instead_of: wanted.id(), why: PolicyFault::Missing });
    let id = shelf.put_set(&wanted, &known(&module)).unwrap();
    shelf.drop_set(id);
    assert!(!shelf.holds(id));
}

#[test]
fn a_candidate_is_compared_and_never_decides() {
    let host = rig::host();
    let active = rig::admitted(&host, "suite");
    let mut shelf = Shelf::with_builtin(settings());
    let id = shelf.put_set(&set(&active, &[Slot::Retry], &[]), &known(&active)).unwrap();
    // Agrees on five attempts; otherwise waits a fixed time. Traps at nine.
    let body = rig::retry_after(
        "(i64.div_u (i64.const 5000) (i64.extend_i32_u (i32.ne (local.get $spent) (i32.const 9))))",
    );
    let candidate = host.admit(&rig::component(&body)).unwrap();
    shelf.shadow(Some(candidate.seat(Slot::Retry, &[]).unwrap()));
    for spent in [5, 4, 9, 5] {
        let ruling = shelf.get(id).retry(&rig::attempt(spent));
        assert_eq!(ruling.by, Author::Set(id));
        assert_eq!(ruling.verdict.action, RetryAction::After { delay_ms: u64::from(spent) * 1000 });
    }
    shelf.get(id).limits(&rig::now());
    let seen = shelf.figures().read().shadow.unwrap();
    assert_eq!((seen.slot, seen.module), (Slot::Retry, candidate.hash()));
    assert_eq!((seen.decisions, seen.different), (4, 1));
    assert_eq!(seen.faults, BTreeMap::from([("trap", 1)]));
    assert_eq!(seen.samples.len(), 2);
    assert_eq!(seen.samples[0].question, rig::retry(4));
    assert!(seen.samples[0].candidate.is_ok());
    assert_eq!(seen.samples[1].candidate.clone().unwrap_err().fault, PolicyFault::Trap);
    shelf.shadow(None);
    assert!(shelf.figures().read().shadow.is_none());
}

/// Each timeout costs whoever decides twice the time of the backstop.
#[test]
fn a_candidate_that_times_out_three_times_in_a_row_is_asked_no_more() {
    let ceilings = Ceilings { fuel: u64::MAX / 4, wall: Duration::from_millis(30), ..Ceilings::default() };
    let host = Host::new(ceilings).unwrap();
    let candidate = rig::admitted(&host, "fickle");
    let mut shelf = Shelf::with_builtin(settings());
    let id = Builtin::new(settings()).id();
    shelf.shadow(Some(candidate.seat(Slot::Retry, &[]).unwrap()));
    // 201 loops for ever, 200 traps: another fault begins the row anew.
    let asks = [201, 201, 200, 201, 201, 201, 201, 1];
    let (over, ticks) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Atomic::Relaxed) {
                // The clock runs while somebody loops only: these ticks are not 10 ms long.
                if ticks.load(Atomic::Relaxed) {
                    host.tick();
                }
                std::thread::yield_now();
            }
        });
        for spent in asks {
            ticks.store(spent == 201, Atomic::Relaxed);
            assert_eq!(shelf.get(id).retry(&rig::attempt(spent)).by, Author::Set(id));
        }
        over.store(true, Atomic::Relaxed);
    });
    let seen = shelf.figures().read().shadow.unwrap();
    assert_eq!(seen.faults, BTreeMap::from([("timeout", 5), ("trap", 1)]));
    assert_eq!((seen.decisions, seen.muted), (6, 2));
    shelf.shadow(Some(candidate.seat(Slot::Retry, &[]).unwrap()));
    shelf.get(id).retry(&rig::attempt(1));
    let seen = shelf.figures().read().shadow.unwrap();
    assert_eq!((seen.decisions, seen.muted), (1, 0), "another trial begins anew");
}

#[test]
fn the_newest_differences_are_kept_and_a_candidate_has_a_memory_of_its_own() {
    let host = rig::host();
    let candidate = rig::admitted(&host, "suite");
    let mut shelf = Shelf::with_builtin(settings());
    let id = Builtin::new(settings()).id();
    shelf.shadow(Some(candidate.seat(Slot::Retry, &[]).unwrap()));
    for n in 0..50 {
        shelf.get(id).retry(&RetryQuery { memo: 700, ..rig::attempt(n + 1) });
    }
    let seen = shelf.figures().read().shadow.unwrap();
    assert_eq!((seen.decisions, seen.different, seen.samples.len()), (50, 50, 32));
    let memo = |n: usize| match &seen.samples[n].question {
        tidegate_core::policy::Question::Retry(query) => query.memo,
        other => panic!("{other:?}"),
    };
    assert_eq!((memo(0), memo(31)), (18, 49), "it counts its own answers, whatever the active one remembers");
}

#[test]
fn the_default_module_decides_as_the_rules_it_was_built_from() {
    let module = rig::host().admit(DEFAULT).unwrap();
    assert_eq!((module.hash(), module.facts().slots.as_slice()), (default_hash(), Slot::ALL.as_slice()));
    let settings = Settings {
        auto_scan: true,
        retry_base_ms: 7_000,
        uploads: 9,
        bytes_per_second: Some(4_000),
        ..Settings::default()
    };
    let mut rules = Builtin::new(settings.clone());
    let mut whole = PolicySet::native(settings.clone());
    for slot in Slot::ALL {
        let binding = Binding { module: module.hash(), settings: settings.for_module() };
        whole.seats[slot as usize] = Seat::Module(binding);
    }
    let mut shelf = Shelf::with_builtin(Settings::default());
    let id = shelf.put_set(&whole, &known(&module)).unwrap();
    let set = shelf.get(id);
    for spent in 0..9 {
        let query = RetryQuery { seed: u64::from(spent) << 40, ..rig::attempt(spent) };
        let (one, other) = (set.retry(&query), rules.retry(&query));
        assert_eq!((one.verdict, one.by, &*one.words), (other.verdict, Author::Set(id), &*other.words));
    }
    assert_eq!(set.limits(&rig::now()).verdict, rules.limits(&rig::now()).verdict);
    assert_eq!(set.budget(&rig::now()).verdict, rules.budget(&rig::now()).verdict);
    let (episodes, jobs) = (rig::episodes(256), rig::waiting(256));
    assert_eq!(set.select(&rig::now(), &episodes).verdict, rules.select(&rig::now(), &episodes).verdict);
    let (one, other) = (set.score(&rig::now(), &jobs), rules.score(&rig::now(), &jobs));
    assert_eq!(one.verdict, other.verdict);
    let question = tidegate_core::policy::Question::Order(rig::now(), jobs);
    assert!(!differ(&question, &one.verdict.into(), &other.verdict.into()));
}

#[test]
fn what_is_prepared_on_one_thread_decides_on_another() {
    fn movable<T: Send + 'static>() {}
    fn shared<T: Send + Sync + Clone + 'static>() {}
    movable::<Shelf>();
    movable::<SeatedSet>();
    shared::<tidegate_policies::Host>();
    shared::<Module>();
    shared::<tidegate_policies::Sitting>();
    shared::<tidegate_policies::FiguresReader>();
    let module = rig::admitted(&rig::host(), "suite");
    let wanted = set(&module, &[Slot::Retry], &[]);
    let seated =
        std::thread::spawn(move || SeatedSet::prepare(&wanted, &known(&module)).unwrap()).join().unwrap();
    let id = seated.id();
    let mut shelf = Shelf::with_builtin(settings());
    shelf.put_seated(seated);
    assert_eq!(shelf.get(id).retry(&rig::attempt(1)).by, Author::Set(id));
}

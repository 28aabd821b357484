//! The loader with real modules on a real disk.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use tidegate_core::policy::{SettingValue, Settings};
use tidegate_core::row::ModuleRow;
use tidegate_core::time::Wall;
use tidegate_policies::sign::SigningKey;

use super::*;
use crate::policies::rig::{host, module};
use crate::real::RealDisk;
use crate::store::tests::failing::Failing;
use crate::store::{Batch, JOURNAL_LIMIT, Store};

struct Bench {
    loader: Loader,
    blobs: Blobs,
    dir: tempfile::TempDir,
}

fn bench(keys: &[(&str, &SigningKey)]) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(&RealDisk, dir.path()).unwrap();
    let keys = keys.iter().map(|(name, key)| ((*name).to_owned(), key.public().0)).collect();
    Bench { loader: Loader::new(host(), blobs.clone(), &keys), blobs, dir }
}

fn admit(loader: &Loader, module: Sha256) -> Result<(), String> {
    match loader.perform(PolicyOp::Admit { module }).0 {
        Outcome::Done(PolicyReply::Admitted(_)) => Ok(()),
        Outcome::Done(PolicyReply::Rejected { code, .. }) => Err(code),
        other => panic!("{other:?}"),
    }
}

fn set(module: Sha256, settings: Vec<(String, SettingValue)>) -> PolicySet {
    let mut set = PolicySet::native(Settings::default());
    set.seats[Slot::Retry as usize] = Seat::Module(Binding { module, settings });
    set
}

#[test]
fn a_module_is_admitted_prepared_and_retired_and_its_clock_ticks_from_then_on() {
    let Bench { loader, blobs, dir: _dir } = bench(&[]);
    let running = loader.running();
    assert!(!*running.borrow());
    let suite = blobs.put(&module("suite", "")).unwrap();
    let (outcome, _) = loader.perform(PolicyOp::Admit { module: suite });
    let Outcome::Done(PolicyReply::Admitted(facts)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((facts.name.as_str(), facts.slots.len(), facts.signed_by), ("fixture", 5, None));
    assert!(*running.borrow());

    let wanted = set(suite, Vec::new());
    let (outcome, ready) = loader.perform(PolicyOp::Prepare { set: Box::new(wanted.clone()) });
    assert_eq!(outcome, Outcome::Done(PolicyReply::Prepared(wanted.id())));
    let Ready::Set(seated) = ready else { panic!("{ready:?}") };
    assert_eq!(seated.sitting(Slot::Retry).unwrap().module().hash(), suite);

    assert_eq!(loader.perform(PolicyOp::Retire { module: suite }).0, Outcome::Done(PolicyReply::Done));
    assert_eq!(blobs.list().unwrap(), []);
    assert_eq!(admit(&loader, suite), Err("unreadable".to_owned()), "it is not kept compiled either");
}

#[test]
fn settings_that_a_module_does_not_take_name_the_slot_and_leave_nothing_ready() {
    let Bench { loader, blobs, dir: _dir } = bench(&[]);
    let suite = blobs.put(&module("suite", "")).unwrap();
    let wanted = set(suite, vec![("uploads".to_owned(), SettingValue::Int(1_001))]);
    let (outcome, ready) = loader.perform(PolicyOp::Prepare { set: Box::new(wanted) });
    let Outcome::Done(PolicyReply::Rejected { slot, code, why }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((slot, code.as_str()), (Some(Slot::Retry), "configure"), "{why}");
    assert!(matches!(ready, Ready::Nothing));
}

#[test]
fn a_module_beside_the_set_comes_ready_and_goes() {
    let Bench { loader, blobs, dir: _dir } = bench(&[]);
    let suite = blobs.put(&module("suite", "")).unwrap();
    let binding = Binding { module: suite, settings: Vec::new() };
    let (_, ready) = loader.perform(PolicyOp::Shadow(Some((Slot::Order, binding))));
    assert!(matches!(ready, Ready::Shadow(Some(sitting)) if sitting.slot() == Slot::Order));
    let (outcome, ready) = loader.perform(PolicyOp::Shadow(None));
    assert_eq!(outcome, Outcome::Done(PolicyReply::Done));
    assert!(matches!(ready, Ready::Shadow(None)));
}

#[test]
fn damaged_or_missing_bytes_are_unreadable_and_no_fault_of_the_disk() {
    let Bench { loader, blobs, dir } = bench(&[]);
    let suite = blobs.put(&module("suite", "")).unwrap();
    std::fs::write(dir.path().join(format!("policies/{suite}.wasm")), b"not it").unwrap();
    assert_eq!(admit(&loader, suite), Err("unreadable".to_owned()));
    assert_eq!(admit(&loader, Sha256::of(b"never there")), Err("unreadable".to_owned()));
}

#[test]
fn once_a_key_is_known_only_what_it_signed_is_taken_and_nothing_older_comes_back() {
    let (ours, theirs) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let Bench { loader, blobs, dir } = bench(&[("release", &ours)]);
    let put = |extra: &str, signer: Option<(&SigningKey, u64)>| {
        let bytes = module("suite", extra);
        let module = blobs.put(&bytes).unwrap();
        if let Some((key, counter)) = signer {
            let file = key.sign(&bytes, Some(&[Slot::Retry]), None, counter).to_json();
            blobs.put_signature(module, Some(file.as_bytes())).unwrap();
        }
        module
    };
    let signature = || Err("signature".to_owned());
    assert_eq!(admit(&loader, put("a", None)), signature());
    assert_eq!(admit(&loader, put("b", Some((&theirs, 9)))), signature());
    let good = put("c", Some((&ours, 5)));
    assert_eq!(admit(&loader, good), Ok(()));
    let facts = loader.module(good).unwrap().facts().clone();
    assert_eq!((facts.signed_by.as_deref(), facts.slots), (Some("release"), vec![Slot::Retry]));
    assert_eq!(admit(&loader, put("d", Some((&ours, 4)))), signature(), "older than what was seen");
    assert_eq!(admit(&loader, good), Ok(()), "the same one is not older than itself");

    // What was admitted before is loaded at a start, whatever came since; without the key it is refused.
    let newer = put("e", Some((&ours, 6)));
    assert_eq!(admit(&loader, newer), Ok(()));
    let again = |keys: &[(&str, &SigningKey)]| {
        let keys = keys.iter().map(|(name, key)| ((*name).to_owned(), key.public().0)).collect();
        Loader::new(host(), Blobs::open(&RealDisk, dir.path()).unwrap(), &keys)
    };
    assert!(again(&[("release", &ours)]).module(good).is_ok());
    assert!(matches!(again(&[("other", &theirs)]).module(good), Err(Unloaded::Rejected(_))));
    // A replay, and a site that trusts nobody, hold it to the limits it was signed with.
    for loader in [again(&[]), Loader::repeating(host(), blobs.clone())] {
        let facts = loader.module(good).unwrap().facts().clone();
        assert_eq!((facts.signed_by, facts.slots), (None, vec![Slot::Retry]));
    }
}

#[test]
fn a_site_that_runs_no_modules_says_so_and_still_prepares_the_built_in_rules() {
    let loader = Loader::native();
    let floor = PolicySet::native(Settings::default());
    let (outcome, _) = loader.perform(PolicyOp::Prepare { set: Box::new(floor.clone()) });
    assert_eq!(outcome, Outcome::Done(PolicyReply::Prepared(floor.id())));
    assert_eq!(admit(&loader, Sha256::of(b"any")), Err("native".to_owned()));
}

#[test]
fn the_clock_ticks_before_the_first_module_runs_anything() {
    // The incident: the very first module was described, configured and asked while nothing moved its clock.
    let Bench { loader, blobs, dir: _dir } = bench(&[]);
    let running = loader.running();
    assert_eq!(admit(&loader, Sha256::of(b"never there")), Err("unreadable".to_owned()));
    assert!(!*running.borrow(), "there is nothing to run");
    let nonsense = blobs.put(b"nonsense").unwrap();
    assert_eq!(admit(&loader, nonsense), Err("not_a_component".to_owned()));
    assert!(*running.borrow());
}

#[test]
fn a_module_that_twice_ended_the_program_is_not_looked_at_again_until_it_is_loaded_again() {
    // The incident: a module that took all memory to compile was compiled again in every start.
    for (before, first) in [(1, Ok(())), (2, Err("compile".to_owned()))] {
        let Bench { blobs, dir, .. } = bench(&[]);
        let suite = blobs.put(&module("suite", "")).unwrap();
        blobs.begin_try(suite, before).unwrap();
        let mut store = Store::open(&RealDisk, dir.path(), JOURNAL_LIMIT).unwrap();
        let row = ModuleRow {
            facts: None,
            size: 1,
            state: ModuleState::Staged,
            at: Wall(0),
            quarantined: None,
            last_used: Wall(0),
        };
        let rows = [(Key::Module(suite), Some(Row::Module(Box::new(row))))].into();
        store.commit(&Batch { rows, ..Batch::default() }).unwrap();
        let loader = Loader::new(host(), blobs.clone(), &BTreeMap::new());
        loader.sweep(&store.view()).unwrap();
        assert_eq!(blobs.tries(suite).unwrap(), before, "it is to be looked at yet");
        assert_eq!(admit(&loader, suite), first, "begun {before} times");
        assert_eq!(blobs.tries(suite).unwrap(), 0);
        assert_eq!(admit(&loader, suite), Ok(()), "somebody loaded it again");
    }
}

#[test]
fn a_module_is_looked_at_under_a_mark_that_goes_whatever_comes_of_it() {
    let Bench { loader, blobs, dir: _dir } = bench(&[]);
    let suite = blobs.put(&module("suite", "")).unwrap();
    let looked = loader.tried(&blobs, suite, || {
        assert_eq!(blobs.tries(suite).unwrap(), 1);
        host().admit(&module("suite", ""))
    });
    assert!(looked.is_ok());
    assert_eq!(blobs.tries(suite).unwrap(), 0);
    let failed = loader.tried(&blobs, suite, || panic!("the compiler fell over")).unwrap_err();
    assert!(failed.to_string().contains("the compiler fell over"), "{failed}");
    assert_eq!(blobs.tries(suite).unwrap(), 0);
}

#[test]
fn a_panic_while_a_module_is_loaded_is_the_modules_rejection() {
    // The incident: it ended the site, and the next start did the same.
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::default();
    let blobs = Blobs::open(&disk, dir.path()).unwrap();
    let suite = blobs.put(&module("suite", "")).unwrap();
    let loader = Loader::new(host(), blobs, &BTreeMap::new());
    disk.panic_at_opening(true);
    let binding = Binding { module: suite, settings: Vec::new() };
    for (op, at) in [
        (PolicyOp::Admit { module: suite }, None),
        (PolicyOp::Prepare { set: Box::new(set(suite, Vec::new())) }, Some(Slot::Retry)),
        (PolicyOp::Shadow(Some((Slot::Order, binding))), Some(Slot::Order)),
    ] {
        let name = op.name();
        let (outcome, ready) = loader.perform(op);
        let Outcome::Done(PolicyReply::Rejected { slot, code, why }) = outcome else { panic!("{outcome:?}") };
        assert_eq!((slot, code.as_str()), (at, "compile"), "{name}: {why}");
        assert!(why.contains("a test wants it so"), "{name}: {why}");
        assert!(matches!(ready, Ready::Nothing), "{name}");
    }
    disk.panic_at_opening(false);
    assert_eq!(admit(&loader, suite), Ok(()));
}

#[test]
fn what_the_machine_had_no_time_for_is_not_the_modules_fault() {
    let late = Rejection { code: "timeout", why: "meta.configure: was interrupted by the clock".to_owned() };
    let said = outcome(Some(Slot::Retry), late.into());
    let why = "timeout: meta.configure: was interrupted by the clock".to_owned();
    assert_eq!(said, Outcome::Failed(Fault::Local(why)));
}

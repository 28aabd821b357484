//! The loader with real modules on a real disk.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use tidegate_core::policy::{SettingValue, Settings};
use tidegate_policies::sign::SigningKey;

use super::*;
use crate::policies::rig::{host, module};
use crate::real::RealDisk;

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
            blobs.put_signature(module, file.as_bytes()).unwrap();
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
fn what_the_machine_had_no_time_for_is_not_the_modules_fault() {
    let late = Rejection { code: "timeout", why: "meta.configure: was interrupted by the clock".to_owned() };
    let said = outcome(Some(Slot::Retry), late.into());
    let why = "timeout: meta.configure: was interrupted by the clock".to_owned();
    assert_eq!(said, Outcome::Failed(Fault::Local(why)));
}

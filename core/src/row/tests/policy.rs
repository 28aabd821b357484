//! The same for the records of policies.

use super::*;
use crate::policy::{Binding, ModuleFacts, PolicyFault, SettingValue, Slot};

fn binding() -> Binding {
    let settings = vec![
        ("deadline".into(), SettingValue::Int(-3)),
        ("on".into(), SettingValue::Flag(true)),
        ("tz".into(), SettingValue::Text("UTC".into())),
    ];
    Binding { module: Sha256([1; 32]), settings }
}

fn golden_policy() -> PolicyRow {
    let slots = vec![(Slot::Retry, binding())];
    let floored = vec![(Slot::Order, Sha256([2; 32]))];
    let set = PolicySetId([3; 32]);
    let what = TurnWhat::Ejected { module: Sha256([4; 32]), blame: Blame::Fault(PolicyFault::Stalled) };
    PolicyRow {
        generation: 300,
        set: Some(set),
        slots: slots.clone(),
        floored: floored.clone(),
        good: slots.clone(),
        probation: Some(Probation { since: Wall(1), until: Wall(2), slots: vec![Slot::AutoScan] }),
        shadow: Some(Shadow { slot: Slot::Bandwidth, binding: binding(), since: Wall(3) }),
        faults: vec![FaultMark {
            slot: Slot::Concurrency,
            module: Sha256([5; 32]),
            fault: PolicyFault::Trap,
            at: Wall(4),
        }],
        history: vec![Turn { generation: 300, at: Wall(5), set, what, slots, floored }],
        earlier: vec![(Slot::Retry, Binding { module: Sha256([11; 32]), settings: vec![] })],
    }
}

fn golden_module() -> ModuleRow {
    let facts = ModuleFacts {
        size: 6_000,
        name: "night-window".into(),
        version: "1.2".into(),
        summary: "s".into(),
        slots: vec![Slot::Concurrency, Slot::Bandwidth],
        patience_ms: 7,
        signed_by: Some("ops".into()),
    };
    let blame = Blame::Refused { code: "configure".into(), why: "w".into() };
    ModuleRow {
        facts: Some(facts),
        size: 6_000,
        state: ModuleState::Rejected { code: "unreadable".into(), why: "gone".into() },
        at: Wall(8),
        quarantined: Some(Quarantine { since: Wall(9), slot: Some(Slot::Concurrency), blame }),
        last_used: Wall(10),
    }
}

const GOLDEN_POLICY: &str = concat!(
    "8a19012c5820030303030303030303030303030303030303030303030303030303030303030381828201808258200101",
    "010101010101010101010101010101010101010101010101010101010101838268646561646c696e658201812282626f",
    "6e820081f58262747a820281635554438182820480582002020202020202020202020202020202020202020202020202",
    "020202020202028182820180825820010101010101010101010101010101010101010101010101010101010101010183",
    "8268646561646c696e658201812282626f6e820081f58262747a82028163555443830102818200808382038082582001",
    "01010101010101010101010101010101010101010101010101010101010101838268646561646c696e65820181228262",
    "6f6e820081f58262747a8202816355544303818482028058200505050505050505050505050505050505050505050505",
    "05050505050505050582008004818619012c055820030303030303030303030303030303030303030303030303030303",
    "030303030382048258200404040404040404040404040404040404040404040404040404040404040404820081820580",
    "81828201808258200101010101010101010101010101010101010101010101010101010101010101838268646561646c",
    "696e658201812282626f6e820081f58262747a8202816355544381828204805820020202020202020202020202020202",
    "020202020202020202020202020202020281828201808258200b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
    "0b0b0b0b0b0b0b0b0b80",
);
const GOLDEN_MODULE: &str = concat!(
    "86871917706c6e696768742d77696e646f7763312e3261738282028082038007636f70731917708202826a756e726561",
    "6461626c6564676f6e6508830982028082028269636f6e66696775726561770a",
);

#[test]
fn records_of_policies_have_these_bytes() {
    let policy = Row::Policy(Box::new(golden_policy()));
    let module = Row::Module(Box::new(golden_module()));
    for (row, golden) in [(policy, GOLDEN_POLICY), (module, GOLDEN_MODULE)] {
        assert_eq!(hex(&row.to_bytes()), golden, "{:?}", row.kind());
        assert_eq!(Row::from_bytes(row.kind(), &bytes(golden)), Ok(row));
    }
}

#[test]
fn a_record_from_before_anything_earlier_was_kept_opens_without_it() {
    let row = golden_policy();
    let mut old = Row::Policy(Box::new(row.clone())).to_bytes();
    assert_eq!(old[0], 0x8a, "ten places");
    // A list of one, its slot, a hash with its head, and no settings.
    old.truncate(old.len() - (1 + 1 + 3 + 1 + 34 + 1));
    old[0] = 0x89;
    let read = Row::from_bytes(Kind::Policy, &old).expect("it still opens");
    assert_eq!(read, Row::Policy(Box::new(PolicyRow { earlier: vec![], ..row })));
}

#[test]
fn words_for_what_happens_to_modules_are_all_different() {
    let turns = [
        TurnWhat::Configured,
        TurnWhat::Activated { slot: Slot::Retry },
        TurnWhat::Reset { slot: Slot::Retry },
        TurnWhat::RolledBack { to: None },
        TurnWhat::Ejected { module: Sha256([4; 32]), blame: Blame::Operator("x".into()) },
    ];
    let words: std::collections::BTreeSet<_> = turns.iter().map(TurnWhat::name).collect();
    assert_eq!(words.len(), turns.len());
    assert_eq!(Blame::Operator("x".into()).code(), "operator");
    assert_eq!(Blame::Fault(PolicyFault::Stalled).code(), "stalled");
}

fn slot() -> impl Strategy<Value = Slot> {
    (0..5_usize).prop_map(|n| Slot::ALL[n])
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let value = prop_oneof![
        any::<bool>().prop_map(SettingValue::Flag),
        any::<i64>().prop_map(SettingValue::Int),
        text().prop_map(SettingValue::Text),
    ];
    let settings = proptest::collection::vec((text(), value), 0..4);
    (sha(), settings).prop_map(|(module, settings)| Binding { module, settings })
}

fn any_slots() -> impl Strategy<Value = Vec<(Slot, Binding)>> {
    proptest::collection::vec((slot(), any_binding()), 0..3)
}

fn any_blame() -> impl Strategy<Value = Blame> {
    let faults = [
        PolicyFault::Trap,
        PolicyFault::Exhausted,
        PolicyFault::Shape,
        PolicyFault::Missing,
        PolicyFault::Timeout,
        PolicyFault::Stalled,
    ];
    prop_oneof![
        (0..faults.len()).prop_map(move |n| Blame::Fault(faults[n])),
        text().prop_map(Blame::Operator),
        (text(), text()).prop_map(|(code, why)| Blame::Refused { code, why }),
    ]
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let what = prop_oneof![
        Just(TurnWhat::Configured),
        slot().prop_map(|slot| TurnWhat::Activated { slot }),
        slot().prop_map(|slot| TurnWhat::Reset { slot }),
        any::<Option<u64>>().prop_map(|to| TurnWhat::RolledBack { to }),
        (sha(), any_blame()).prop_map(|(module, blame)| TurnWhat::Ejected { module, blame }),
    ];
    let floored = proptest::collection::vec((slot(), sha()), 0..3);
    (any::<u64>(), wall(), any::<[u8; 32]>(), what, any_slots(), floored).prop_map(
        |(generation, at, set, what, slots, floored)| Turn {
            generation,
            at,
            set: PolicySetId(set),
            what,
            slots,
            floored,
        },
    )
}

pub(super) fn any_policy() -> impl Strategy<Value = Row> {
    let probation = (wall(), wall(), proptest::collection::vec(slot(), 0..5))
        .prop_map(|(since, until, slots)| Probation { since, until, slots });
    let shadow =
        (slot(), any_binding(), wall()).prop_map(|(slot, binding, since)| Shadow { slot, binding, since });
    let fault = (slot(), sha(), wall()).prop_map(|(slot, module, at)| FaultMark {
        slot,
        module,
        fault: PolicyFault::Shape,
        at,
    });
    let faults = proptest::collection::vec(fault, 0..3);
    let history = proptest::collection::vec(any_turn(), 0..3);
    (any::<u64>(), any_slots(), (any_slots(), any_slots()), maybe(probation), maybe(shadow), faults, history)
        .prop_map(|(generation, slots, (good, earlier), probation, shadow, faults, history)| {
            let last = history.last();
            Row::Policy(Box::new(PolicyRow {
                generation,
                set: last.map(|turn| turn.set),
                floored: last.map(|turn| turn.floored.clone()).unwrap_or_default(),
                slots,
                good,
                probation,
                shadow,
                faults,
                history,
                earlier,
            }))
        })
}

pub(super) fn any_module() -> impl Strategy<Value = Row> {
    let state = prop_oneof![
        Just(ModuleState::Staged),
        Just(ModuleState::Admitted),
        (text(), text()).prop_map(|(code, why)| ModuleState::Rejected { code, why }),
    ];
    let facts = (any::<u64>(), text(), text(), proptest::collection::vec(slot(), 0..5), maybe(text()))
        .prop_map(|(size, name, version, slots, signed_by)| ModuleFacts {
            size,
            name,
            version,
            summary: "what it does".into(),
            slots,
            patience_ms: size / 2,
            signed_by,
        });
    let quarantine = (wall(), maybe(slot()), any_blame()).prop_map(|(since, slot, blame)| Quarantine {
        since,
        slot,
        blame,
    });
    (maybe(facts), any::<u64>(), state, wall(), maybe(quarantine), wall()).prop_map(
        |(facts, size, state, at, quarantined, last_used)| {
            Row::Module(Box::new(ModuleRow { facts, size, state, at, quarantined, last_used }))
        },
    )
}

//! Owns what modules and the set of policies look like as JSON. Decides nothing.

use serde_json::{Map, Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::policy::{Binding, ModuleFacts, PolicyView, Seat, SeatView, Slot};
use tidegate_core::row::{Blame, FaultMark, ModuleRow, ModuleState, Shadow, Turn, TurnWhat};
use tidegate_policies::json as words;

use crate::api::shapes::{Object, moment, set_id};

fn binding(binding: &Binding) -> Object {
    Object::new()
        .put("module", binding.module.to_string())
        .put("settings", words::settings(&binding.settings))
}

fn bindings(slots: &[(Slot, Binding)]) -> Value {
    let one = |(slot, of): &(Slot, Binding)| (slot.name().to_owned(), Value::from(binding(of)));
    Value::Object(slots.iter().map(one).collect())
}

fn fault(mark: &FaultMark) -> Value {
    json!({ "module": mark.module.to_string(), "fault": mark.fault.code(), "at": moment(mark.at) })
}

/// What a module did, in a word and in words.
fn blame(of: &Blame) -> Map<String, Value> {
    let object = Object::new().put("code", of.code());
    match of {
        Blame::Fault(_) => object,
        Blame::Operator(why) | Blame::Refused { why, .. } => object.put("why", why.as_str()),
    }
    .fields()
}

/// A slot and who sits in it.
pub(super) fn slot(seat: &SeatView) -> Object {
    let object = Object::new().put("slot", seat.slot.name());
    match &seat.seat {
        Seat::Module(of) => object.put("by", "module").all(binding(of).fields()),
        Seat::Floor => object.put("by", "builtin"),
    }
    .put("origin", seat.origin.name())
    .maybe("name", seat.name.as_deref())
    .maybe("version", seat.version.as_deref())
    .maybe("good", seat.good.as_ref().map(|good| Value::from(binding(good))))
    .maybe("probation_until", seat.probation.map(moment))
    .put("faults", seat.faults.iter().map(fault).collect::<Vec<_>>())
}

/// What a module says of itself.
#[must_use]
pub fn facts(facts: &ModuleFacts) -> Map<String, Value> {
    Object::new()
        .put("name", facts.name.as_str())
        .put("version", facts.version.as_str())
        .put("summary", facts.summary.as_str())
        .put("hooks", facts.slots.iter().map(|slot| slot.name()).collect::<Vec<_>>())
        .put("size", facts.size)
        .maybe("patience_ms", Some(facts.patience_ms).filter(|ms| *ms > 0))
        .maybe("signed_by", facts.signed_by.as_deref())
        .fields()
}

/// A module as the site knows it.
#[must_use]
pub fn module(hash: Sha256, row: &ModuleRow) -> Object {
    let object = Object::new().put("module", hash.to_string()).put("size", row.size);
    let object = match &row.facts {
        Some(known) => object.all(facts(known)),
        None => object,
    };
    let object = object.put("state", row.state.name()).put("at", moment(row.at));
    let object = match &row.state {
        ModuleState::Rejected { code, why } => {
            object.put("rejection", code.as_str()).put("why", why.as_str())
        }
        ModuleState::Staged | ModuleState::Admitted => object,
    };
    object.put("last_used", moment(row.last_used)).maybe(
        "quarantined",
        row.quarantined.as_ref().map(|quarantine| {
            Value::from(
                Object::new()
                    .put("since", moment(quarantine.since))
                    .maybe("slot", quarantine.slot.map(Slot::name))
                    .all(blame(&quarantine.blame)),
            )
        }),
    )
}

/// A change of the set.
#[must_use]
pub fn turn(turn: &Turn) -> Value {
    let object = Object::new()
        .put("generation", turn.generation)
        .put("at", moment(turn.at))
        .put("set", set_id(turn.set))
        .put("what", turn.what.name());
    let object = match &turn.what {
        TurnWhat::Configured => object,
        TurnWhat::Activated { slot } | TurnWhat::Reset { slot } => object.put("slot", slot.name()),
        TurnWhat::RolledBack { to } => object.maybe("to", *to),
        TurnWhat::Ejected { module, blame: of } => object.put("module", module.to_string()).all(blame(of)),
    };
    let floored: Vec<&str> = turn.floored.iter().map(|(slot, _)| slot.name()).collect();
    object.put("slots", bindings(&turn.slots)).put("floored", floored).into()
}

/// The module that decides beside the set.
#[must_use]
pub fn shadow(of: &Shadow) -> Object {
    Object::new()
        .put("slot", of.slot.name())
        .all(binding(&of.binding).fields())
        .put("since", moment(of.since))
}

/// Modules and the set of policies.
#[must_use]
pub fn view(view: &PolicyView) -> Object {
    let probation = view.probation.as_ref().map(|trial| {
        json!({
            "since": moment(trial.since),
            "until": moment(trial.until),
            "slots": trial.slots.iter().map(|slot| slot.name()).collect::<Vec<_>>(),
        })
    });
    Object::new()
        .put("generation", view.generation)
        .put("set", set_id(view.set))
        .put("prepared", view.prepared)
        .maybe("preparing", view.preparing.as_ref().map(TurnWhat::name))
        .maybe("default", view.default.map(|module| module.to_string()))
        .put("slots", view.seats.iter().map(|seat| Value::from(slot(seat))).collect::<Vec<_>>())
        .maybe("probation", probation)
        .maybe("shadow", view.shadow.as_ref().map(|of| Value::from(shadow(of))))
        .put(
            "modules",
            view.modules.iter().map(|(hash, row)| Value::from(module(*hash, row))).collect::<Vec<_>>(),
        )
        .maybe("last", view.last.as_ref().map(turn))
}

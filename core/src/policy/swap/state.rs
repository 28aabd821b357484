//! What is durable of modules and of the set of policies, and the set that follows from it. Changes only by applying
//! changes; asks for nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::change::PolicyChange;
use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::knobs::Knobs;
use crate::limits;
use crate::policy::{Binding, PolicySet, Seat, Settings, Slot};
use crate::refusal::{Broken, Illegal};
use crate::row::{Key, ModuleRow, ModuleState, PolicyRow, Row, Turn};
use crate::time::Wall;

/// Modules, the set, and what the configuration adds to it.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) row: PolicyRow,
    /// Whether there is a record: a site whose set never changed has none.
    kept: bool,
    pub(super) modules: BTreeMap<Sha256, ModuleRow>,
    pub(super) default: Option<Sha256>,
    floor: Settings,
    /// Whether modules rest: the built-in rules sit everywhere, and what is recorded stays what it is.
    pub(super) native: bool,
    pub(super) set: PolicySet,
    pub(super) id: PolicySetId,
}

impl Default for State {
    fn default() -> Self {
        let floor = Settings::default();
        let set = PolicySet::native(floor.clone());
        State {
            row: PolicyRow::default(),
            kept: false,
            modules: BTreeMap::new(),
            default: None,
            id: set.id(),
            set,
            floor,
            native: false,
        }
    }
}

impl State {
    /// Takes the configuration of a boot.
    pub(super) fn configure(&mut self, knobs: &Knobs) {
        self.default = knobs.default_module;
        self.floor = knobs.builtin.clone();
        self.native = knobs.native;
        self.derive();
    }

    pub(super) fn load(&mut self, key: &Key, row: Row) {
        match (key, row) {
            (Key::Policy, Row::Policy(row)) => {
                self.row = *row;
                self.kept = true;
                self.derive();
            }
            (Key::Module(module), Row::Module(row)) => {
                self.modules.insert(*module, *row);
            }
            (_, row) => panic!("a {:?} record lies under the key of a policy", row.kind()),
        }
    }

    pub(super) fn row(&self, key: &Key) -> Option<Row> {
        match key {
            Key::Policy => self.kept.then(|| Row::Policy(Box::new(self.row.clone()))),
            Key::Module(module) => self.modules.get(module).map(|row| Row::Module(Box::new(row.clone()))),
            Key::Meta
            | Key::Device(_)
            | Key::Token(_)
            | Key::Task(_)
            | Key::Episode(_)
            | Key::Job(_)
            | Key::Upload(_)
            | Key::Part(..)
            | Key::Alias(_)
            | Key::Binding(_) => None,
        }
    }

    /// The set with these modules chosen and these slots floored.
    pub(super) fn set_of(&self, slots: &[(Slot, Binding)], floored: &[(Slot, Sha256)]) -> PolicySet {
        if self.native {
            return PolicySet::native(self.floor.clone());
        }
        let default = self.default.filter(|_| self.default_usable());
        let seats = Slot::ALL.map(|slot| match (bound(slots, slot), default) {
            (Some(binding), _) => Seat::Module(binding.clone()),
            (None, Some(module)) if !floored.contains(&(slot, module)) => {
                Seat::Module(Binding { module, settings: self.floor.for_module() })
            }
            (None, _) => Seat::Floor,
        });
        PolicySet { seats, floor: self.floor.clone() }
    }

    /// The slots among those nobody was chosen for where the default module does not sit: as before, and all of them
    /// if it is not fit to.
    pub(super) fn floored(&self, slots: &[(Slot, Binding)]) -> Vec<(Slot, Sha256)> {
        let Some(default) = self.default else { return Vec::new() };
        let unfit = !self.default_usable();
        let floor = |slot: &Slot| {
            bound(slots, *slot).is_none() && (unfit || self.row.floored.contains(&(*slot, default)))
        };
        Slot::ALL.into_iter().filter(floor).map(|slot| (slot, default)).collect()
    }

    /// The set under another configuration.
    pub(super) fn set_under(&self, knobs: &Knobs) -> PolicySet {
        let mut other = self.clone();
        other.configure(knobs);
        other.set
    }

    /// Every module that sits somewhere.
    pub(super) fn seated(set: &PolicySet) -> BTreeSet<Sha256> {
        Slot::ALL.into_iter().filter_map(|slot| set.module(slot)).collect()
    }

    /// Whether a module has a slot by the record: it sits there, or would if modules did not rest.
    pub(super) fn has_a_slot(&self, module: Sha256) -> bool {
        let row = &self.row;
        let fills = |slot: Slot| bound(&row.slots, slot).is_none() && !row.floored.contains(&(slot, module));
        row.slots.iter().any(|(_, binding)| binding.module == module)
            || (self.default == Some(module) && Slot::ALL.into_iter().any(fills))
    }

    fn derive(&mut self) {
        self.set = self.set_of(&self.row.slots, &self.row.floored);
        self.id = self.set.id();
    }

    /// Whether a module may be put into a slot by its record; whether it serves the slot is another question.
    pub(super) fn usable(&self, module: Sha256) -> bool {
        self.modules
            .get(&module)
            .is_some_and(|row| row.quarantined.is_none() && row.state == ModuleState::Admitted)
    }

    /// Whether the default module may sit where nobody else does. It may before anybody looked at it: it came with
    /// the program.
    pub(super) fn default_usable(&self) -> bool {
        self.default.is_some_and(|module| {
            self.modules.get(&module).is_none_or(|row| {
                row.quarantined.is_none() && !matches!(row.state, ModuleState::Rejected { .. })
            })
        })
    }

    /// Applies a change. Silent.
    pub(super) fn apply(&mut self, change: &PolicyChange) -> Result<Vec<Key>, Illegal> {
        match change {
            PolicyChange::Staged { module, size, at } => self.staged(*module, *size, *at)?,
            PolicyChange::Admitted { module, facts, at } => {
                let row = self.module(*module, "policy.admitted")?;
                // Also one that could not be prepared while it was being looked at: the host took it after all.
                if row.state == ModuleState::Admitted {
                    return Err(illegal(&row.state, "policy.admitted"));
                }
                row.size = facts.size;
                row.facts = Some((**facts).clone());
                row.state = ModuleState::Admitted;
                row.at = *at;
            }
            PolicyChange::Rejected { module, code, why, at } => {
                let row = self.module(*module, "policy.rejected")?;
                row.state = ModuleState::Rejected { code: code.clone(), why: why.clone() };
                row.at = *at;
                self.disown(*module);
            }
            PolicyChange::Activated { turn, probation, used } => {
                self.turned(turn, used, "policy.activated")?;
                self.row.probation.clone_from(probation);
            }
            PolicyChange::Reverted { turn, probation, used } => {
                self.turned(turn, used, "policy.reverted")?;
                self.row.probation.clone_from(probation);
            }
            PolicyChange::Probed { .. } => {
                if self.row.probation.take().is_none() {
                    return Err(illegal(&"no probation", "policy.probed"));
                }
                self.probed();
            }
            PolicyChange::Faulted(mark) => {
                self.row.faults.push(*mark);
                let of_slot = |row: &PolicyRow| {
                    let marks = row.faults.iter().filter(|m| m.slot == mark.slot);
                    u32::try_from(marks.count()).unwrap_or(u32::MAX)
                };
                if of_slot(&self.row) > limits::POLICY_FAULTS
                    && let Some(oldest) = self.row.faults.iter().position(|m| m.slot == mark.slot)
                {
                    self.row.faults.remove(oldest);
                }
            }
            PolicyChange::Quarantined { module, quarantine } => {
                let row = self.module(*module, "policy.quarantined")?;
                row.quarantined = Some(quarantine.clone());
                self.disown(*module);
            }
            PolicyChange::Released { module } => {
                let row = self.module(*module, "policy.released")?;
                if row.quarantined.take().is_none() {
                    return Err(illegal(&"not quarantined", "policy.released"));
                }
            }
            PolicyChange::Shadowed(shadow) => self.row.shadow = Some(shadow.clone()),
            PolicyChange::ShadowEnded => {
                if self.row.shadow.take().is_none() {
                    return Err(illegal(&"no shadow", "policy.shadow_ended"));
                }
            }
            PolicyChange::Retired { module } => {
                if self.modules.remove(module).is_none() {
                    return Err(illegal(&"no such module", "policy.retired"));
                }
            }
        }
        let keys = change.touches();
        self.kept |= keys.contains(&Key::Policy);
        Ok(keys)
    }

    fn staged(&mut self, module: Sha256, size: u64, at: Wall) -> Result<(), Illegal> {
        match self.modules.get_mut(&module) {
            Some(row) if row.state == ModuleState::Admitted => {
                return Err(illegal(&row.state, "policy.staged"));
            }
            Some(row) => {
                row.state = ModuleState::Staged;
                row.size = size;
                row.at = at;
                row.last_used = at;
            }
            None => {
                let row = ModuleRow {
                    facts: None,
                    size,
                    state: ModuleState::Staged,
                    at,
                    quarantined: None,
                    last_used: at,
                };
                self.modules.insert(module, row);
            }
        }
        Ok(())
    }

    fn turned(&mut self, turn: &Turn, used: &[Sha256], change: &'static str) -> Result<(), Illegal> {
        if turn.generation != self.row.generation + 1 {
            return Err(illegal(&self.row.generation, change));
        }
        self.row.generation = turn.generation;
        self.row.set = Some(turn.set);
        // A fault counts against the module that sits there, not against the slot. Which module is the default is not
        // known here: its faults stay where nobody was chosen.
        let chosen = core::mem::replace(&mut self.row.slots, turn.slots.clone());
        self.row.faults.retain(|mark| match bound(&turn.slots, mark.slot) {
            Some(binding) => binding.module == mark.module,
            None => {
                bound(&chosen, mark.slot).is_none_or(|binding| binding.module != mark.module)
                    && !turn.floored.contains(&(mark.slot, mark.module))
            }
        });
        self.row.floored.clone_from(&turn.floored);
        self.row.history.push(turn.clone());
        let over = self.row.history.len().saturating_sub(limits::POLICY_HISTORY);
        self.row.history.drain(..over);
        for module in used {
            if let Some(row) = self.modules.get_mut(module) {
                row.last_used = row.last_used.max(turn.at);
            }
        }
        self.derive();
        Ok(())
    }

    /// What was on trial is good. What it takes the place of is kept: a stall shows long after a probation.
    fn probed(&mut self) {
        let row = &mut self.row;
        let was = core::mem::replace(&mut row.good, row.slots.clone());
        let before = |slot: Slot| {
            let now = bound(&row.good, slot)?;
            let line = [bound(&was, slot), bound(&row.earlier, slot)];
            let other = line.into_iter().flatten().find(|old| old.module != now.module)?;
            Some((slot, other.clone()))
        };
        let earlier = Slot::ALL.into_iter().filter_map(before).collect();
        row.earlier = earlier;
    }

    /// Nothing falls back to this module any more, and its faults are told by its record. Where it was the last good
    /// one, the one before it is.
    fn disown(&mut self, module: Sha256) {
        let row = &mut self.row;
        row.earlier.retain(|(_, binding)| binding.module != module);
        let left = |slot: Slot| {
            let good = bound(&row.good, slot)?;
            let heir = if good.module == module { bound(&row.earlier, slot)? } else { good };
            Some((slot, heir.clone()))
        };
        let good: Vec<_> = Slot::ALL.into_iter().filter_map(left).collect();
        row.earlier.retain(|(slot, binding)| bound(&good, *slot).is_some_and(|g| g.module != binding.module));
        row.good = good;
        self.row.faults.retain(|mark| mark.module != module);
    }

    fn module(&mut self, module: Sha256, change: &'static str) -> Result<&mut ModuleRow, Illegal> {
        self.modules.get_mut(&module).ok_or_else(|| illegal(&"no such module", change))
    }

    /// I26 in terms of this machine: nobody sits in a slot, and none is fallen back to, who may not be used.
    pub(super) fn check(&self) -> Result<(), Broken> {
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        if self.set != self.set_of(&self.row.slots, &self.row.floored) || self.id != self.set.id() {
            return broken("I25", alloc::format!("the set {:?} is not what is recorded", self.id));
        }
        if self.row.set.is_some()
            && self.default.is_some()
            && self.row.floored != self.floored(&self.row.slots)
        {
            return broken("I25", alloc::format!("{:?} are floored for nothing", self.row.floored));
        }
        if self.row.set.is_some_and(|set| set != self.id) {
            return broken("I25", alloc::format!("the set {:?} has no generation", self.id));
        }
        for (slot, binding) in self.row.slots.iter().chain(&self.row.good).chain(&self.row.earlier) {
            if !self.usable(binding.module) {
                return broken("I26", alloc::format!("{slot:?} counts on {:?}", binding.module));
            }
        }
        if let Some(shadow) = &self.row.shadow
            && !self.usable(shadow.binding.module)
        {
            return broken("I26", alloc::format!("{:?} decides beside the set", shadow.binding.module));
        }
        if self.row.history.len() > limits::POLICY_HISTORY {
            return broken("I26", alloc::format!("{} turns are remembered", self.row.history.len()));
        }
        if self.row.history.last().is_some_and(|turn| turn.generation != self.row.generation) {
            return broken("I26", alloc::format!("generation {} is not in history", self.row.generation));
        }
        Ok(())
    }
}

/// The module chosen for a slot.
pub(super) fn bound(slots: &[(Slot, Binding)], slot: Slot) -> Option<&Binding> {
    slots.iter().find(|(at, _)| *at == slot).map(|(_, binding)| binding)
}

fn illegal(state: &impl core::fmt::Debug, change: &'static str) -> Illegal {
    Illegal { state: alloc::format!("{state:?}"), change }
}

//! What operators may ask of modules and of the set, and why not.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::bug::planted;
use crate::change::PolicyChange;
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::effect::PolicyOp;
use crate::id::RequestId;
use crate::input::PolicyRequest;
use crate::limits;
use crate::policy::swap::state::State;
use crate::policy::swap::{Asked, PolicyNews, Swap, Wish, refuse, words};
use crate::policy::{Binding, Seat, SettingValue, Slot};
use crate::refusal::PolicyRefusal;
use crate::row::{Blame, ModuleRow, ModuleState, Shadow, TurnWhat};

impl Swap {
    /// Somebody asks something of modules or of the set. Answered now, or when the host answered.
    pub(crate) fn on_request(&mut self, cx: &mut Cx<'_>, id: RequestId, request: &PolicyRequest) {
        let taken = match request {
            _ if self.state.native && needs_host(request) => Err(PolicyRefusal::Native),
            PolicyRequest::Admit { module, size } => self.admit(cx, id, *module, *size),
            PolicyRequest::Activate { slot, binding } => self.activate(cx, id, *slot, binding),
            PolicyRequest::Reset { slot } => self.reset(cx, id, *slot),
            PolicyRequest::Shadow { slot, binding } => self.shadow(cx, id, *slot, binding),
            PolicyRequest::ShadowEnd => self.shadow_end(cx, id),
            PolicyRequest::Rollback { to } => self.roll_back(cx, id, *to),
            PolicyRequest::Quarantine { module, reason } => self.put_away(cx, id, *module, reason),
            PolicyRequest::Unquarantine { module } => self.release(cx, id, *module),
            PolicyRequest::Remove { module } => self.remove(cx, id, *module),
        };
        if let Err(refusal) = taken {
            refuse(cx, id, refusal);
        }
    }

    fn admit(
        &mut self,
        cx: &mut Cx<'_>,
        id: RequestId,
        module: Sha256,
        size: u64,
    ) -> Result<(), PolicyRefusal> {
        let at = cx.now.wall;
        if let Some(row) = self.state.modules.get(&module) {
            not_quarantined(module, row)?;
            if row.state == ModuleState::Admitted {
                // Its bytes are what they were, so is the host's answer.
                self.accept(cx, id);
                return Ok(());
            }
        } else if !self.make_room(cx, module) {
            return Err(PolicyRefusal::Full);
        }
        let asked = self.asked.values_mut().find_map(|asked| match asked {
            Asked::Admit { module: m, waiters } if *m == module => Some(waiters),
            _ => None,
        });
        match asked {
            Some(waiters) if waiters.len() >= limits::WAITERS_PER_MODULE => {
                return Err(PolicyRefusal::Busy);
            }
            Some(waiters) => waiters.push(id),
            None => {
                self.record(cx, PolicyChange::Staged { module, size, at });
                let asked = Asked::Admit { module, waiters: Vec::from([id]) };
                self.ask(cx, asked, PolicyOp::Admit { module });
            }
        }
        Ok(())
    }

    fn activate(
        &mut self,
        cx: &mut Cx<'_>,
        id: RequestId,
        slot: Slot,
        binding: &Binding,
    ) -> Result<(), PolicyRefusal> {
        let binding = canonical(binding)?;
        self.may_sit(slot, binding.module)?;
        let mut slots = self.state.row.slots.clone();
        slots.retain(|(at, _)| *at != slot);
        slots.push((slot, binding));
        let floored = self.state.floored(&slots);
        self.wish(cx, id, TurnWhat::Activated { slot }, slots, floored)
    }

    fn reset(&mut self, cx: &mut Cx<'_>, id: RequestId, slot: Slot) -> Result<(), PolicyRefusal> {
        if let Some(module) = self.state.default
            && let Some(row) = self.state.modules.get(&module)
        {
            not_quarantined(module, row)?;
            not_rejected(module, row)?;
        }
        let mut slots = self.state.row.slots.clone();
        slots.retain(|(at, _)| *at != slot);
        let mut floored = self.state.floored(&slots);
        floored.retain(|(at, _)| *at != slot);
        self.wish(cx, id, TurnWhat::Reset { slot }, slots, floored)
    }

    fn roll_back(&mut self, cx: &mut Cx<'_>, id: RequestId, to: Option<u64>) -> Result<(), PolicyRefusal> {
        let (slots, floored) = match to {
            None => {
                let slots = self.state.row.good.clone();
                let floored = self.state.floored(&slots);
                (slots, floored)
            }
            Some(generation) => {
                let turn = self.state.row.history.iter().find(|turn| turn.generation == generation);
                let turn = turn.ok_or(PolicyRefusal::UnknownGeneration(generation))?;
                for (slot, binding) in &turn.slots {
                    if !planted!(cx.knobs, X34) {
                        self.may_sit(*slot, binding.module)?;
                    }
                }
                let floored = if self.state.default_usable() {
                    let default = self.state.default;
                    turn.floored.iter().filter(|(_, module)| Some(*module) == default).copied().collect()
                } else {
                    self.state.floored(&turn.slots)
                };
                (turn.slots.clone(), floored)
            }
        };
        self.wish(cx, id, TurnWhat::RolledBack { to }, slots, floored)
    }

    /// Has a set prepared; it counts when the host has it ready.
    fn wish(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        what: TurnWhat,
        mut slots: Vec<(Slot, Binding)>,
        floored: Vec<(Slot, Sha256)>,
    ) -> Result<(), PolicyRefusal> {
        if self.asked.values().any(|asked| matches!(asked, Asked::Turn(_))) {
            return Err(PolicyRefusal::Busy);
        }
        slots.sort_by_key(|(slot, _)| *slot);
        let set = self.state.set_of(&slots, &floored);
        let same = slots == self.state.row.slots && floored == self.state.floored(&slots);
        if same && set.id() == self.state.id {
            self.accept(cx, reply);
            return Ok(());
        }
        if set.seats.iter().all(|seat| *seat == Seat::Floor) {
            // The built-in rules are always ready.
            self.turn(cx, what, slots, floored);
            self.accept(cx, reply);
            return Ok(());
        }
        let op = PolicyOp::Prepare { set: Box::new(set.clone()) };
        self.ask(cx, Asked::Turn(Box::new(Wish { set, slots, floored, what, reply })), op);
        Ok(())
    }

    fn shadow(
        &mut self,
        cx: &mut Cx<'_>,
        id: RequestId,
        slot: Slot,
        binding: &Binding,
    ) -> Result<(), PolicyRefusal> {
        let binding = canonical(binding)?;
        self.may_sit(slot, binding.module)?;
        let asked = |asked: &Asked| matches!(asked, Asked::Shadow { reply: Some(_), .. });
        if self.asked.values().any(asked) {
            return Err(PolicyRefusal::Busy);
        }
        self.forget_shadow_asked();
        self.ask_shadow(cx, Some(Shadow { slot, binding, since: cx.now.wall }), Some(id));
        Ok(())
    }

    fn shadow_end(&mut self, cx: &mut Cx<'_>, id: RequestId) -> Result<(), PolicyRefusal> {
        let waits = |asked: &Asked| matches!(asked, Asked::Shadow { reply: Some(_), .. });
        if self.asked.values().any(waits) {
            return Err(PolicyRefusal::Busy);
        }
        if self.state.row.shadow.is_some() {
            self.forget_shadow_asked();
            self.end_shadow(cx);
        }
        self.accept(cx, id);
        Ok(())
    }

    pub(super) fn forget_shadow_asked(&mut self) {
        self.asked.retain(|_, asked| !matches!(asked, Asked::Shadow { reply: None, .. }));
    }

    fn put_away(
        &mut self,
        cx: &mut Cx<'_>,
        id: RequestId,
        module: Sha256,
        reason: &str,
    ) -> Result<(), PolicyRefusal> {
        if self.known(module)?.quarantined.is_none() {
            let sits = Slot::ALL.into_iter().find(|slot| self.state.set.module(*slot) == Some(module));
            self.quarantine(cx, module, sits, Blame::Operator(words(reason)));
        }
        self.accept(cx, id);
        Ok(())
    }

    fn release(&mut self, cx: &mut Cx<'_>, id: RequestId, module: Sha256) -> Result<(), PolicyRefusal> {
        if self.known(module)?.quarantined.is_some() {
            self.record(cx, PolicyChange::Released { module });
            self.tell(cx, PolicyNews::Released(module));
        }
        self.accept(cx, id);
        Ok(())
    }

    fn remove(&mut self, cx: &mut Cx<'_>, id: RequestId, module: Sha256) -> Result<(), PolicyRefusal> {
        let row = self.known(module)?;
        not_quarantined(module, row)?;
        if let Some(by) = self.used_by(module) {
            return Err(PolicyRefusal::InUse { module, by });
        }
        self.retire(cx, module);
        self.accept(cx, id);
        Ok(())
    }

    /// Forgets a module if there is no place for this one. False if none can be forgotten.
    pub(super) fn make_room(&mut self, cx: &mut Cx<'_>, module: Sha256) -> bool {
        if self.state.modules.contains_key(&module) || self.state.modules.len() < limits::MODULES_MAX {
            return true;
        }
        let oldest = self.oldest_unused();
        if let Some(oldest) = oldest {
            self.retire(cx, oldest);
        }
        oldest.is_some()
    }

    fn retire(&mut self, cx: &mut Cx<'_>, module: Sha256) {
        self.record(cx, PolicyChange::Retired { module });
        self.ask(cx, Asked::Retire(module), PolicyOp::Retire { module });
        self.tell(cx, PolicyNews::Retired(module));
    }

    /// Whom the site can do without, of the modules that nothing uses: first those that it never took, then those that no
    /// generation of the history names, and of each the one used longest ago. A quarantine is never forgotten to make
    /// room: the same bytes would be new again.
    fn oldest_unused(&self) -> Option<Sha256> {
        let unused = self
            .state
            .modules
            .iter()
            .filter(|(module, row)| row.quarantined.is_none() && self.used_by(**module).is_none());
        let named = |module: &Sha256| {
            let history = self.state.row.history.iter();
            history.flat_map(|turn| &turn.slots).any(|(_, binding)| binding.module == *module)
        };
        let worth = |(module, row): &(&Sha256, &ModuleRow)| {
            (row.state == ModuleState::Admitted, named(module), row.last_used, **module)
        };
        unused.min_by_key(worth).map(|(module, _)| *module)
    }

    /// What a module is needed for.
    fn used_by(&self, module: Sha256) -> Option<&'static str> {
        let named = |asked: &Asked| match asked {
            Asked::Turn(wish) => State::seated(&wish.set).contains(&module),
            Asked::Shadow { shadow, .. } => shadow.as_ref().is_some_and(|s| s.binding.module == module),
            Asked::Admit { .. } | Asked::Settle(_) | Asked::Retire(_) => false,
        };
        let row = &self.state.row;
        let chosen = |slots: &[(Slot, Binding)]| slots.iter().any(|(_, binding)| binding.module == module);
        if self.state.default == Some(module) {
            Some("it is the site's default")
        } else if chosen(&row.slots) {
            Some("it sits in a slot: put another one there, or reset the slot")
        } else if chosen(&row.good) {
            Some("it is the last good one of a slot: wait until the probation is over")
        } else if chosen(&row.earlier) {
            Some(
                "a slot falls back to it after its last good one: reset the slot and wait until the probation is over",
            )
        } else if row.shadow.as_ref().is_some_and(|shadow| shadow.binding.module == module) {
            Some("it decides beside the set: end the shadow")
        } else if self.asked.values().any(named) {
            Some("it is being prepared: ask again in a moment")
        } else if self.is_admitting(module) {
            Some("it is being looked at: ask again in a moment")
        } else {
            None
        }
    }

    fn known(&self, module: Sha256) -> Result<&ModuleRow, PolicyRefusal> {
        self.state.modules.get(&module).ok_or(PolicyRefusal::UnknownModule(module))
    }

    /// Whether a module may be put into a slot.
    fn may_sit(&self, slot: Slot, module: Sha256) -> Result<(), PolicyRefusal> {
        let row = self.known(module)?;
        not_quarantined(module, row)?;
        not_rejected(module, row)?;
        if row.state == ModuleState::Staged {
            return Err(PolicyRefusal::NotAdmitted(module));
        }
        match &row.facts {
            Some(facts) if facts.slots.contains(&slot) => Ok(()),
            Some(_) | None => Err(PolicyRefusal::HookMissing { module, slot }),
        }
    }
}

/// Whether a wish comes to nothing without a host: it looks at bytes, makes a set ready, or removes bytes.
fn needs_host(request: &PolicyRequest) -> bool {
    match request {
        PolicyRequest::Admit { .. }
        | PolicyRequest::Activate { .. }
        | PolicyRequest::Reset { .. }
        | PolicyRequest::Shadow { .. }
        | PolicyRequest::Rollback { .. }
        | PolicyRequest::Remove { .. } => true,
        PolicyRequest::ShadowEnd | PolicyRequest::Quarantine { .. } | PolicyRequest::Unquarantine { .. } => {
            false
        }
    }
}

fn not_quarantined(module: Sha256, row: &ModuleRow) -> Result<(), PolicyRefusal> {
    match &row.quarantined {
        Some(quarantine) => {
            let code = quarantine.blame.code().to_string();
            Err(PolicyRefusal::Quarantined { module, code })
        }
        None => Ok(()),
    }
}

fn not_rejected(module: Sha256, row: &ModuleRow) -> Result<(), PolicyRefusal> {
    match &row.state {
        ModuleState::Rejected { code, why } => {
            Err(PolicyRefusal::Rejected { module, code: code.clone(), why: why.clone() })
        }
        ModuleState::Staged | ModuleState::Admitted => Ok(()),
    }
}

/// The same binding with its settings in order: one binding, one hash.
fn canonical(binding: &Binding) -> Result<Binding, PolicyRefusal> {
    let mut binding = binding.clone();
    binding.settings.sort_by(|a, b| a.0.cmp(&b.0));
    let bad = |must| Err(PolicyRefusal::BadSettings(must));
    if binding.settings.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return bad("given once per key");
    }
    let bytes = |(key, value): &(alloc::string::String, SettingValue)| match value {
        SettingValue::Text(text) => key.len() + text.len(),
        SettingValue::Flag(_) | SettingValue::Int(_) => key.len(),
    };
    if binding.settings.len() > limits::SETTINGS_MAX
        || binding.settings.iter().map(bytes).sum::<usize>() > limits::SETTINGS_BYTES
    {
        return bad("at most 32, with keys and texts of at most 2 KiB together");
    }
    Ok(binding)
}

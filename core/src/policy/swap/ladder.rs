//! How the set changes, and the ladder down: a module that misbehaves loses its slots to the last good one, else to the
//! default, else to the built-in rules.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bug::planted;
use crate::change::PolicyChange;
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::limits;
use crate::policy::swap::state::{State, bound};
use crate::policy::swap::{Asked, PolicyNews, Swap, refuse, trial_time, waiting};
use crate::policy::{Author, Binding, PolicyFault, Ruled, Slot};
use crate::refusal::PolicyRefusal;
use crate::row::{Blame, FaultMark, Probation, Quarantine, Turn, TurnWhat};
use crate::time::Now;

impl Swap {
    /// The module in a slot could not answer; the built-in rules did. So many in a window and it is ejected.
    pub(crate) fn on_faulted(&mut self, cx: &mut Cx<'_>, slot: Slot, why: PolicyFault) {
        self.hear(&cx.out.rulings);
        let Some(module) = self.blamed(cx, slot) else { return };
        if why == PolicyFault::Missing {
            // Nobody's fault but the host's: it was to have the set ready.
            if core::mem::take(&mut self.settled) && !planted!(cx.knobs, X38) {
                self.settle(cx);
                self.time_trial(cx, false);
            }
            return;
        }
        let mark = FaultMark { slot, module, fault: why, at: cx.now.wall };
        self.record(cx, PolicyChange::Faulted(mark));
        self.tell(cx, PolicyNews::Faulted(mark));
        let most = cx.knobs.policy_faults.clamp(1, limits::POLICY_FAULTS);
        // A box that starves makes everybody late: only a module that is late every time is to blame.
        if self.timeouts[slot as usize] >= most || self.counted(cx, &mark) >= most {
            self.quarantine(cx, module, Some(slot), Blame::Fault(why));
        }
    }

    /// The module in a slot let nothing begin for too long, though nothing else stood in the way: it is ejected.
    pub(crate) fn on_stalled(&mut self, cx: &mut Cx<'_>, slot: Slot) {
        let stays = planted!(cx.knobs, X36);
        let Some(module) = self.blamed(cx, slot).filter(|_| !stays) else { return };
        let mark = FaultMark { slot, module, fault: PolicyFault::Stalled, at: cx.now.wall };
        self.record(cx, PolicyChange::Faulted(mark));
        self.quarantine(cx, module, Some(slot), Blame::Fault(PolicyFault::Stalled));
    }

    /// Looks at the rulings of this step for answers that took too long.
    pub(crate) fn hear(&mut self, rulings: &[Ruled]) {
        for ruled in rulings.iter().skip(self.heard) {
            let row = &mut self.timeouts[ruled.slot as usize];
            *row = match ruled.by {
                Author::Builtin { why: PolicyFault::Timeout, .. } => row.saturating_add(1),
                Author::Builtin { .. } | Author::Set(_) => 0,
            };
        }
        self.heard = self.heard.max(rulings.len());
    }

    /// Who is to blame for a ruling of this step: nobody if its module lost the slot already.
    fn blamed(&self, cx: &Cx<'_>, slot: Slot) -> Option<Sha256> {
        let module = cx.active.module(slot)?;
        (self.state.set.module(slot) == Some(module)).then_some(module)
    }

    /// Faults like this one that count: of the same module in the same slot, within the window. A mark from further ahead
    /// than that is of a clock that was wrong; one from a little ahead is of a clock that was set back a little.
    fn counted(&self, cx: &Cx<'_>, mark: &FaultMark) -> u32 {
        let window = i64::try_from(cx.knobs.policy_window_ms).unwrap_or(i64::MAX);
        let (since, until) = (mark.at.0.saturating_sub(window), mark.at.0.saturating_add(window));
        let counts = |m: &&FaultMark| {
            m.slot == mark.slot
                && m.module == mark.module
                && (m.fault != PolicyFault::Timeout || planted!(cx.knobs, X37))
                && ((m.at.0 > since && m.at.0 < until) || m == &mark)
        };
        u32::try_from(self.state.row.faults.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// A module may not be used any more: it loses every slot it has.
    pub(super) fn quarantine(&mut self, cx: &mut Cx<'_>, module: Sha256, slot: Option<Slot>, blame: Blame) {
        let quarantine = Quarantine { since: cx.now.wall, slot, blame: blame.clone() };
        self.record(cx, PolicyChange::Quarantined { module, quarantine });
        if !planted!(cx.knobs, B25) {
            self.eject(cx, module, &blame);
        }
        self.tell(cx, PolicyNews::Quarantined { module, slot, blame });
    }

    /// The host does not take a module (any more): it loses every slot it has, and may come again.
    pub(super) fn reject(&mut self, cx: &mut Cx<'_>, module: Sha256, code: &str, why: &str) {
        let (code, why) = (String::from(code), String::from(why));
        let at = cx.now.wall;
        self.record(cx, PolicyChange::Rejected { module, code: code.clone(), why: why.clone(), at });
        self.eject(cx, module, &Blame::Refused { code: code.clone(), why: why.clone() });
        self.tell(cx, PolicyNews::Rejected { module, code, why });
    }

    fn eject(&mut self, cx: &mut Cx<'_>, module: Sha256, blame: &Blame) {
        if self.state.row.shadow.as_ref().is_some_and(|shadow| shadow.binding.module == module) {
            self.end_shadow(cx);
        }
        self.overtake(cx, Some(module));
        if !self.state.has_a_slot(module) {
            return;
        }
        let mut slots = Vec::new();
        for slot in Slot::ALL {
            let kept = bound(&self.state.row.slots, slot).map(|binding| {
                let good = bound(&self.state.row.good, slot).filter(|_| !planted!(cx.knobs, X30));
                if binding.module == module { good } else { Some(binding) }
            });
            if let Some(binding) = kept.flatten() {
                slots.push((slot, binding.clone()));
            }
        }
        let floored = self.state.floored(&slots);
        self.turn(cx, TurnWhat::Ejected { module, blame: blame.clone() }, slots, floored);
    }

    /// Another set counts from the next step on.
    pub(super) fn turn(
        &mut self,
        cx: &mut Cx<'_>,
        what: TurnWhat,
        mut slots: Vec<(Slot, Binding)>,
        floored: Vec<(Slot, Sha256)>,
    ) {
        slots.sort_by_key(|(slot, _)| *slot);
        let by_operator = match &what {
            TurnWhat::Activated { .. } | TurnWhat::Reset { .. } | TurnWhat::RolledBack { .. } => true,
            TurnWhat::Configured | TurnWhat::Ejected { .. } => false,
        };
        self.overtake(cx, None);
        let set = self.state.set_of(&slots, &floored);
        let modules = State::seated(&self.state.set).into_iter().chain(State::seated(&set));
        let mut used: Vec<Sha256> =
            modules.filter(|module| self.state.modules.contains_key(module)).collect();
        used.sort_unstable();
        used.dedup();
        let (probation, anew) = self.trial(cx, &slots, by_operator);
        let turn = Turn {
            generation: self.state.row.generation + 1,
            at: cx.now.wall,
            set: set.id(),
            what,
            slots,
            floored,
        };
        let news = PolicyNews::Turned(turn.clone());
        let turn = Box::new(turn);
        let before = self.state.set.clone();
        self.record(
            cx,
            if by_operator || turn.what == TurnWhat::Configured {
                PolicyChange::Activated { turn, probation, used }
            } else {
                PolicyChange::Reverted { turn, probation, used }
            },
        );
        for slot in Slot::ALL {
            if before.seat(slot) != self.state.set.seat(slot) {
                self.timeouts[slot as usize] = 0;
            }
        }
        if by_operator {
            self.forget_settle();
            self.settled = true;
        } else if planted!(cx.knobs, X38) {
            self.settled = true;
        } else {
            self.settle(cx);
        }
        self.time_trial(cx, anew);
        // A module cannot be compared with itself.
        let row = &self.state.row;
        let doubled = row.shadow.as_ref().is_some_and(|s| bound(&row.slots, s.slot) == Some(&s.binding));
        if doubled {
            self.end_shadow(cx);
        }
        self.tell(cx, news);
    }

    /// Times the trial, from now on if it is a new one. Only a set that is ready is on trial: while it is not, the
    /// built-in rules decide, and they prove nothing.
    pub(super) fn time_trial(&mut self, cx: &mut Cx<'_>, anew: bool) {
        if self.state.row.probation.is_none() || !self.settled || self.state.native {
            self.trial_ends = None;
        } else if anew || self.trial_ends.is_none() {
            let (wall, mono) = (cx.now.wall.after(trial_time(cx)), cx.now.mono.after(trial_time(cx)));
            self.trial_ends = Some(Now { wall, mono });
        }
        self.arm(cx);
    }

    /// The trial of a set: of every slot whose module is not good yet; and whether it is a new one. A module that an
    /// operator put there begins a new one; when the site takes one away, the others go on as soon as the rest is ready.
    fn trial(&self, cx: &Cx<'_>, slots: &[(Slot, Binding)], by_operator: bool) -> (Option<Probation>, bool) {
        let row = &self.state.row;
        let on_trial = |slot: &Slot| bound(slots, *slot) != bound(&row.good, *slot);
        let tried: Vec<Slot> = Slot::ALL.into_iter().filter(on_trial).collect();
        if tried.is_empty() {
            return (None, false);
        }
        let came = tried.iter().any(|slot| bound(slots, *slot) != bound(&row.slots, *slot));
        match &row.probation {
            Some(trial) if !(by_operator && came) => {
                (Some(Probation { slots: tried, ..trial.clone() }), false)
            }
            Some(_) | None => {
                let since = cx.now.wall;
                (Some(Probation { since, until: since.after(trial_time(cx)), slots: tried }), true)
            }
        }
    }

    /// Whoever waits for another set, or for this module beside the set, is told that it will not come. A set is
    /// prepared on the ground of the one that counts: when that changes, every wish ends; else those with the module.
    fn overtake(&mut self, cx: &mut Cx<'_>, module: Option<Sha256>) {
        let hit = |asked: &Asked| match asked {
            Asked::Turn(wish) => module.is_none_or(|module| State::seated(&wish.set).contains(&module)),
            Asked::Shadow { shadow: Some(shadow), reply: Some(_) } => module == Some(shadow.binding.module),
            Asked::Shadow { .. } | Asked::Admit { .. } | Asked::Settle(_) | Asked::Retire(_) => false,
        };
        let tickets: Vec<_> = self.asked.iter().filter(|(_, asked)| hit(asked)).map(|(t, _)| *t).collect();
        for asked in tickets.iter().filter_map(|ticket| self.asked.remove(ticket)).collect::<Vec<_>>() {
            for id in waiting(&asked) {
                refuse(cx, id, PolicyRefusal::Overtaken);
            }
            if matches!(asked, Asked::Shadow { .. }) && !cx.stopping {
                let shadow = self.state.row.shadow.clone();
                self.ask_shadow(cx, shadow, None);
            }
        }
    }
}

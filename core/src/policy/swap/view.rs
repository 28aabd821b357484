//! Modules and the set of policies as people see them. Plain facts, decides nothing.

use alloc::string::String;
use alloc::vec::Vec;

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::swap::state::bound;
use crate::policy::swap::{Asked, Swap};
use crate::policy::{Binding, Seat, Slot};
use crate::row::{Blame, FaultMark, ModuleRow, Probation, Shadow, Turn, TurnWhat};
use crate::time::Wall;

/// Modules and the set of policies as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyView {
    /// Counts changes of the set; 0 is a site whose set never changed.
    pub generation: u64,
    /// The set that decides from the next step on.
    pub set: PolicySetId,
    /// Who sits in its slots, in the order of [`Slot::ALL`].
    pub seats: Vec<SeatView>,
    /// The site's default module, if it has one.
    pub default: Option<Sha256>,
    /// Whether the host said that the set is ready; until then the built-in rules stand in for what it has not got.
    pub prepared: bool,
    /// What the set that is being prepared will have come from, if one is.
    pub preparing: Option<TurnWhat>,
    /// The trial of what is not good yet.
    pub probation: Option<Probation>,
    /// The module that decides beside the set, without effect.
    pub shadow: Option<Shadow>,
    /// Every module by hash, with where it stands and whether it is quarantined.
    pub modules: Vec<(Sha256, ModuleRow)>,
    /// The last change of the set, if it is still remembered.
    pub last: Option<Turn>,
}

/// A slot and who sits in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatView {
    /// Which.
    pub slot: Slot,
    /// Who.
    pub seat: Seat,
    /// How it came to that.
    pub origin: Origin,
    /// The module's own name, if it is one that was admitted.
    pub name: Option<String>,
    /// The module's own version, likewise.
    pub version: Option<String>,
    /// Who takes over when it is ejected; `None` is the site's default.
    pub good: Option<Binding>,
    /// When its probation is over, if it is on probation.
    pub probation: Option<Wall>,
    /// The faults of the module in this slot that are remembered, oldest first.
    pub faults: Vec<FaultMark>,
}

/// How a slot came to whoever sits in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The site's default.
    Default,
    /// Somebody put it there.
    Chosen,
    /// The default module is not fit to.
    Floored,
    /// The site was told to run no modules: whoever was put there rests.
    Native,
}

impl Origin {
    /// A short stable word for the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::Chosen => "chosen",
            Origin::Floored => "floored",
            Origin::Native => "native",
        }
    }
}

/// What happened to modules or to the set of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyNews {
    /// The process started.
    Booted,
    /// The host took a module.
    Admitted(Sha256),
    /// The host did not take a module.
    Rejected {
        /// Which.
        module: Sha256,
        /// The host's word for why.
        code: String,
        /// The same for people.
        why: String,
    },
    /// The set changed.
    Turned(Turn),
    /// The host has the set ready.
    Prepared,
    /// The host does not say that the set is ready; it is asked again.
    Unprepared(String),
    /// What was on probation is good.
    Probed,
    /// A module that decides had a fault; the built-in rules decided in its place.
    Faulted(FaultMark),
    /// A module may not be used any more.
    Quarantined {
        /// Which.
        module: Sha256,
        /// In which slot it misbehaved, if it was in one.
        slot: Option<Slot>,
        /// What it did.
        blame: Blame,
    },
    /// A module may be used again.
    Released(Sha256),
    /// A module decides beside the set.
    Shadowed {
        /// In which slot.
        slot: Slot,
        /// Which.
        module: Sha256,
    },
    /// None does.
    ShadowEnded,
    /// A module is not known any more.
    Retired(Sha256),
}

impl PolicyNews {
    /// A short stable word for events, logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            PolicyNews::Booted => "booted",
            PolicyNews::Admitted(_) => "admitted",
            PolicyNews::Rejected { .. } => "rejected",
            PolicyNews::Turned(_) => "turned",
            PolicyNews::Prepared => "prepared",
            PolicyNews::Unprepared(_) => "unprepared",
            PolicyNews::Probed => "probed",
            PolicyNews::Faulted(_) => "faulted",
            PolicyNews::Quarantined { .. } => "quarantined",
            PolicyNews::Released(_) => "released",
            PolicyNews::Shadowed { .. } => "shadowed",
            PolicyNews::ShadowEnded => "shadow_ended",
            PolicyNews::Retired(_) => "retired",
        }
    }
}

impl core::fmt::Display for PolicyNews {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PolicyNews::Booted => write!(f, "as they are at the start"),
            PolicyNews::Admitted(module) => write!(f, "module {module} admitted"),
            PolicyNews::Rejected { module, code, why } => {
                write!(f, "module {module} rejected: {code}: {why}")
            }
            PolicyNews::Turned(turn) => {
                write!(f, "generation {}: ", turn.generation)?;
                match &turn.what {
                    TurnWhat::Configured => write!(f, "by the configuration"),
                    TurnWhat::Activated { slot } => write!(f, "{} has another module", slot.name()),
                    TurnWhat::Reset { slot } => write!(f, "{} has the default again", slot.name()),
                    TurnWhat::RolledBack { to: Some(to) } => write!(f, "back to generation {to}"),
                    TurnWhat::RolledBack { to: None } => write!(f, "back to the last good set"),
                    TurnWhat::Ejected { module, blame } => {
                        write!(f, "module {module} ejected: {}", blame.code())
                    }
                }
            }
            PolicyNews::Prepared => write!(f, "the set is ready"),
            PolicyNews::Unprepared(why) => write!(f, "the set is not ready: {why}"),
            PolicyNews::Probed => write!(f, "the set passed its probation"),
            PolicyNews::Faulted(mark) => {
                write!(f, "module {} in {}: {}", mark.module, mark.slot.name(), mark.fault.code())
            }
            PolicyNews::Quarantined { module, slot, blame } => {
                write!(f, "module {module} quarantined")?;
                if let Some(slot) = slot {
                    write!(f, " in {}", slot.name())?;
                }
                write!(f, ": {}", blame.code())
            }
            PolicyNews::Released(module) => write!(f, "module {module} may be used again"),
            PolicyNews::Shadowed { slot, module } => {
                write!(f, "module {module} decides beside {}", slot.name())
            }
            PolicyNews::ShadowEnded => write!(f, "no module decides beside the set any more"),
            PolicyNews::Retired(module) => write!(f, "module {module} forgotten"),
        }
    }
}

impl Swap {
    /// Modules and the set as people see them.
    #[must_use]
    pub fn view(&self) -> PolicyView {
        let state = &self.state;
        let row = &state.row;
        let preparing = self.asked.values().find_map(|asked| match asked {
            Asked::Turn(wish) => Some(wish.what.clone()),
            Asked::Admit { .. } | Asked::Settle(_) | Asked::Shadow { .. } | Asked::Retire(_) => None,
        });
        PolicyView {
            generation: row.generation,
            set: state.id,
            seats: Slot::ALL.map(|slot| self.seat_view(slot)).into(),
            default: state.default,
            prepared: self.settled,
            preparing,
            probation: row.probation.clone().map(|trial| Probation { until: self.over(&trial), ..trial }),
            shadow: row.shadow.clone(),
            modules: state.modules.iter().map(|(module, row)| (*module, row.clone())).collect(),
            last: row.history.last().cloned(),
        }
    }

    /// When a trial is over as things are: it begins again with the process, and when the host has the set ready.
    fn over(&self, trial: &Probation) -> Wall {
        self.trial_ends.map_or(trial.until, |at| at.wall)
    }

    fn seat_view(&self, slot: Slot) -> SeatView {
        let state = &self.state;
        let seat = state.set.seat(slot).clone();
        let module = state.set.module(slot);
        let facts = module.and_then(|module| self.facts(module));
        let origin = match (&seat, bound(&state.row.slots, slot)) {
            _ if state.native => Origin::Native,
            (_, Some(_)) => Origin::Chosen,
            (Seat::Floor, None) if state.default.is_some() => Origin::Floored,
            (Seat::Floor | Seat::Module(_), None) => Origin::Default,
        };
        let trial = state.row.probation.as_ref().filter(|trial| trial.slots.contains(&slot));
        let own = |mark: &&FaultMark| mark.slot == slot && Some(mark.module) == module;
        SeatView {
            slot,
            seat,
            origin,
            name: facts.map(|facts| facts.name.clone()),
            version: facts.map(|facts| facts.version.clone()),
            good: bound(&state.row.good, slot).cloned(),
            probation: trial.map(|trial| self.over(trial)),
            faults: state.row.faults.iter().filter(own).copied().collect(),
        }
    }
}

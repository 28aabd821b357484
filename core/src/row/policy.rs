//! The records of policies: who sits in which slot and how it came to that, and every module the site knows. Never the
//! bytes of a module: those lie outside under their hash.

use alloc::string::String;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::policy::{Binding, ModuleFacts, PolicyFault, Slot};
use crate::time::Wall;

/// Who sits in which slot. A slot that is in neither list has the site's default: the default module with the settings
/// of the configuration, or the built-in rules if there is no default module. Lists are in the order of [`Slot::ALL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PolicyRow {
    /// Counts changes of the set, from 1; 0 is before the first.
    #[n(0)]
    pub generation: u64,
    /// The set of this generation.
    #[n(1)]
    pub set: Option<PolicySetId>,
    /// Modules that operators put into slots.
    #[n(2)]
    pub slots: Vec<(Slot, Binding)>,
    /// Slots where the built-in rules sit because this default module is not fit to. They end with another default
    /// module, or when somebody asks for the default again.
    #[n(3)]
    pub floored: Vec<(Slot, Sha256)>,
    /// The last set that passed its probation, as far as its modules may still be used: what an ejected module makes
    /// room for.
    #[n(4)]
    pub good: Vec<(Slot, Binding)>,
    /// The trial of what is not good yet.
    #[n(5)]
    pub probation: Option<Probation>,
    /// The module that decides beside the set, without effect.
    #[n(6)]
    pub shadow: Option<Shadow>,
    /// Faults of modules that may still be used, oldest first.
    #[n(7)]
    pub faults: Vec<FaultMark>,
    /// The newest changes of the set, oldest first.
    #[n(8)]
    pub history: Vec<Turn>,
    /// What was good in a slot before [`PolicyRow::good`], another module than that, as far as it may still be used. A
    /// module may pass its probation and be found stuck much later: then this one is the last good one again.
    #[n(9)]
    #[cbor(default)]
    pub earlier: Vec<(Slot, Binding)>,
}

impl PolicyRow {
    /// Since when this is chosen for a slot without a break, as far as changes are remembered; `None` if it is not.
    #[must_use]
    pub fn chosen_since(&self, slot: Slot, binding: &Binding) -> Option<Wall> {
        let turns = self.history.iter().rev();
        turns.take_while(|turn| turn.chose(slot, binding)).last().map(|turn| turn.at)
    }

    /// The remembered sets in which this was chosen for a slot.
    pub fn sets_with(&self, slot: Slot, binding: &Binding) -> impl Iterator<Item = PolicySetId> {
        self.history.iter().filter(move |turn| turn.chose(slot, binding)).map(|turn| turn.set)
    }
}

/// A trial: whoever comes through it is good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Probation {
    /// When it began.
    #[n(0)]
    pub since: Wall,
    /// When it is over, if the process lives on and the host keeps the set ready; else a whole one begins again.
    #[n(1)]
    pub until: Wall,
    /// Whose slots.
    #[n(2)]
    pub slots: Vec<Slot>,
}

/// A module that is asked everything its slot is asked, and never obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shadow {
    /// Which slot.
    #[n(0)]
    pub slot: Slot,
    /// Who.
    #[n(1)]
    pub binding: Binding,
    /// Since when.
    #[n(2)]
    pub since: Wall,
}

/// One fault of a module that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FaultMark {
    /// In which slot.
    #[n(0)]
    pub slot: Slot,
    /// Whose.
    #[n(1)]
    pub module: Sha256,
    /// What.
    #[n(2)]
    pub fault: PolicyFault,
    /// When.
    #[n(3)]
    pub at: Wall,
}

/// A change of the set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Turn {
    /// Which.
    #[n(0)]
    pub generation: u64,
    /// When.
    #[n(1)]
    pub at: Wall,
    /// The set since then.
    #[n(2)]
    pub set: PolicySetId,
    /// What changed it.
    #[n(3)]
    pub what: TurnWhat,
    /// [`PolicyRow::slots`] since then.
    #[n(4)]
    pub slots: Vec<(Slot, Binding)>,
    /// [`PolicyRow::floored`] since then.
    #[n(5)]
    pub floored: Vec<(Slot, Sha256)>,
}

impl Turn {
    fn chose(&self, slot: Slot, binding: &Binding) -> bool {
        self.slots.iter().any(|(at, chosen)| *at == slot && chosen == binding)
    }
}

/// What changed the set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum TurnWhat {
    /// A new configuration, or a new program with another default module.
    #[n(0)]
    Configured,
    /// Somebody put a module into a slot.
    #[n(1)]
    Activated {
        /// Which slot.
        #[n(0)]
        slot: Slot,
    },
    /// Somebody gave a slot back to the default.
    #[n(2)]
    Reset {
        /// Which slot.
        #[n(0)]
        slot: Slot,
    },
    /// Somebody asked for an earlier set.
    #[n(3)]
    RolledBack {
        /// Of which generation; `None` is the last good one.
        #[n(0)]
        to: Option<u64>,
    },
    /// A module lost every slot it had.
    #[n(4)]
    Ejected {
        /// Which.
        #[n(0)]
        module: Sha256,
        /// Why.
        #[n(1)]
        blame: Blame,
    },
}

impl TurnWhat {
    /// A short stable word for the API, logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            TurnWhat::Configured => "configured",
            TurnWhat::Activated { .. } => "activated",
            TurnWhat::Reset { .. } => "reset",
            TurnWhat::RolledBack { .. } => "rolled_back",
            TurnWhat::Ejected { .. } => "ejected",
        }
    }
}

/// What a module did to lose its slots.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Blame {
    /// Too many faults, this one last; of a module that let nothing begin, the one.
    #[n(0)]
    Fault(#[n(0)] PolicyFault),
    /// An operator said so, in these words.
    #[n(1)]
    Operator(#[n(0)] String),
    /// It could not be prepared (any more).
    #[n(2)]
    Refused {
        /// The host's word for why; `unreadable` if its bytes are not there or not what they were.
        #[n(0)]
        code: String,
        /// The same for people.
        #[n(1)]
        why: String,
    },
}

impl Blame {
    /// A short stable word for the API, logs and metrics.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Blame::Fault(fault) => fault.code(),
            Blame::Operator(_) => "operator",
            Blame::Refused { code, .. } => code,
        }
    }
}

/// A module the site knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModuleRow {
    /// What it says of itself, once it was admitted.
    #[n(0)]
    pub facts: Option<ModuleFacts>,
    /// Bytes.
    #[n(1)]
    pub size: u64,
    /// Where it stands.
    #[n(2)]
    pub state: ModuleState,
    /// Since when.
    #[n(3)]
    pub at: Wall,
    /// Whether it may not be used, though it was admitted.
    #[n(4)]
    pub quarantined: Option<Quarantine>,
    /// When it last came to a slot or left one.
    #[n(5)]
    pub last_used: Wall,
}

/// Where a module stands.
///
/// ```text
/// Staged ─► Admitted ─► Rejected (its bytes are gone)
///  │ ▲ ▲                   │
///  │ │ └───────────────────┤
///  ▼ └─ the same bytes come again
/// Rejected ─► Admitted (an admission that was under way when it could not be prepared)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ModuleState {
    /// Its bytes are here, nobody looked at them yet.
    #[n(0)]
    Staged,
    /// The host took it.
    #[n(1)]
    Admitted,
    /// The host did not take it, or its bytes are gone.
    #[n(2)]
    Rejected {
        /// The host's word for why.
        #[n(0)]
        code: String,
        /// The same for people.
        #[n(1)]
        why: String,
    },
}

impl ModuleState {
    /// A short stable word for the API, logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            ModuleState::Staged => "staged",
            ModuleState::Admitted => "admitted",
            ModuleState::Rejected { .. } => "rejected",
        }
    }
}

/// Why a module may not be used, until somebody takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Quarantine {
    /// Since when.
    #[n(0)]
    pub since: Wall,
    /// In which slot it misbehaved, if it was in one.
    #[n(1)]
    pub slot: Option<Slot>,
    /// What it did.
    #[n(2)]
    pub blame: Blame,
}

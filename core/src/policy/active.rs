//! Who sits in the slots while a step is taken, as far as the core needs to know it. Decides nothing.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::digest::Sha256;
use crate::id::PolicySetId;
use crate::knobs::Knobs;
use crate::limits;
use crate::policy::{Builtin, Seat, Settings, Slot};
use crate::time::Wall;

/// The name of the built-in rules, where no module sits in a slot.
pub const FLOOR: &str = "floor";

/// Who sits in the slots. Arrays are in the order of [`Slot::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// The set.
    pub set: PolicySetId,
    /// Who sits in each slot, with settings. Whoever keeps time for a policy keeps it for this, not for the set: what
    /// happens in another slot is not its affair.
    pub seats: [Seat; 5],
    /// Since when the module in each slot was chosen for it without a break, on the wall clock and as far as is
    /// remembered; `None` where nobody was chosen.
    pub since: [Option<Wall>; 5],
    /// The sets in which the same policy rules failed attempts: this one, and others as far as is remembered.
    pub retry_sets: Vec<PolicySetId>,
    /// The module in each slot; `None` are the built-in rules.
    pub modules: [Option<Sha256>; 5],
    /// Its name; [`FLOOR`] where there is none. A memo belongs to a name.
    pub names: [String; 5],
    /// Milliseconds for which it may put everything off on purpose; 0 is the site's default.
    pub patience_ms: [u64; 5],
}

impl Active {
    /// The built-in rules in every slot.
    #[must_use]
    pub fn native(floor: Settings) -> Active {
        let set = Builtin::new(floor).id();
        Active {
            set,
            seats: [Seat::Floor, Seat::Floor, Seat::Floor, Seat::Floor, Seat::Floor],
            since: [None; 5],
            retry_sets: Vec::from([set]),
            modules: [None; 5],
            names: [FLOOR; 5].map(|name| name.to_string()),
            patience_ms: [0; 5],
        }
    }

    /// Who sits in a slot.
    #[must_use]
    pub fn seat(&self, slot: Slot) -> &Seat {
        &self.seats[slot as usize]
    }

    /// The module in a slot.
    #[must_use]
    pub fn module(&self, slot: Slot) -> Option<Sha256> {
        self.modules[slot as usize]
    }

    /// The name of who sits in a slot.
    #[must_use]
    pub fn name(&self, slot: Slot) -> &str {
        &self.names[slot as usize]
    }

    /// How long the policy in a slot may put everything off on purpose before it counts as stuck: as long as it said, at
    /// least as long as the site says, and of recordings that nobody asked for at least a week.
    #[must_use]
    pub fn patience(&self, slot: Slot, knobs: &Knobs) -> Duration {
        let asked = Duration::from_millis(self.patience_ms[slot as usize].max(knobs.patience_ms));
        let least = match slot {
            Slot::AutoScan => limits::SCAN_PATIENCE_MIN,
            Slot::Retry | Slot::Concurrency | Slot::Bandwidth | Slot::Order => limits::DELAY_MIN,
        };
        asked.clamp(least, limits::PATIENCE_MAX)
    }
}

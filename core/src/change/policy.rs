//! Everything that can become durable of modules and of the set of policies.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::policy::ModuleFacts;
use crate::row::{FaultMark, Key, Probation, Quarantine, Shadow, Turn};
use crate::time::Wall;

/// A change of modules or of the set of policies.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of PolicyRow and ModuleRow")]
pub enum PolicyChange {
    /// → Staged; new, or the same bytes again.
    #[n(0)]
    Staged {
        #[n(0)]
        module: Sha256,
        #[n(1)]
        size: u64,
        #[n(2)]
        at: Wall,
    },
    /// Staged, Rejected → Admitted
    #[n(1)]
    Admitted {
        #[n(0)]
        module: Sha256,
        #[n(1)]
        facts: Box<ModuleFacts>,
        #[n(2)]
        at: Wall,
    },
    /// Staged, Admitted → Rejected
    #[n(2)]
    Rejected {
        #[n(0)]
        module: Sha256,
        #[n(1)]
        code: String,
        #[n(2)]
        why: String,
        #[n(3)]
        at: Wall,
    },
    /// Another set counts from the next step on: by an operator or by the configuration. `used` are the modules that
    /// came or left.
    #[n(3)]
    Activated {
        #[n(0)]
        turn: Box<Turn>,
        #[n(1)]
        probation: Option<Probation>,
        #[n(2)]
        used: Vec<Sha256>,
    },
    /// What is on probation is good.
    #[n(4)]
    Probed {
        #[n(0)]
        at: Wall,
    },
    /// A module that decides had a fault.
    #[n(5)]
    Faulted(#[n(0)] FaultMark),
    /// The same as Activated, by the site itself: a module was ejected.
    #[n(6)]
    Reverted {
        #[n(0)]
        turn: Box<Turn>,
        #[n(1)]
        probation: Option<Probation>,
        #[n(2)]
        used: Vec<Sha256>,
    },
    /// A module may not be used any more, and is not good any more.
    #[n(7)]
    Quarantined {
        #[n(0)]
        module: Sha256,
        #[n(1)]
        quarantine: Quarantine,
    },
    /// A module may be used again.
    #[n(8)]
    Released {
        #[n(0)]
        module: Sha256,
    },
    /// A module decides beside the set.
    #[n(9)]
    Shadowed(#[n(0)] Shadow),
    /// None does.
    #[n(10)]
    ShadowEnded,
    /// A module is not known any more.
    #[n(11)]
    Retired {
        #[n(0)]
        module: Sha256,
    },
}

impl PolicyChange {
    /// The records that it touches, whether they exist or not.
    #[must_use]
    pub fn touches(&self) -> Vec<Key> {
        match self {
            PolicyChange::Staged { module, .. }
            | PolicyChange::Admitted { module, .. }
            | PolicyChange::Released { module }
            | PolicyChange::Retired { module } => vec![Key::Module(*module)],
            PolicyChange::Rejected { module, .. } | PolicyChange::Quarantined { module, .. } => {
                vec![Key::Policy, Key::Module(*module)]
            }
            PolicyChange::Activated { used, .. } | PolicyChange::Reverted { used, .. } => {
                let modules = used.iter().map(|module| Key::Module(*module));
                core::iter::once(Key::Policy).chain(modules).collect()
            }
            PolicyChange::Probed { .. }
            | PolicyChange::Faulted(_)
            | PolicyChange::Shadowed(_)
            | PolicyChange::ShadowEnded => vec![Key::Policy],
        }
    }
}

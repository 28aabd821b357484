//! A policy set with everybody in their seats, ready to answer. Made off the thread of decisions; holds no state that a
//! decision could leave behind.

use tidegate_core::digest::Sha256;
use tidegate_core::id::PolicySetId;
use tidegate_core::policy::{Builtin, PolicySet, Seat, Slot};

use crate::module::{Module, Rejection, Sitting};

/// A prepared set.
#[derive(Debug)]
pub struct SeatedSet {
    pub(crate) id: PolicySetId,
    pub(crate) floor: Builtin,
    seats: [Option<Sitting>; 5],
}

impl SeatedSet {
    /// Seats every module of the set, with its settings checked and the questions of admission asked. The error names
    /// the slot; its code is `missing` for a module that `module` does not know, else one of [`Rejection::code`].
    pub fn prepare(
        set: &PolicySet,
        module: &dyn Fn(Sha256) -> Option<Module>,
    ) -> Result<SeatedSet, (Slot, Rejection)> {
        let mut seats = [const { None }; 5];
        for (slot, taken) in Slot::ALL.into_iter().zip(&mut seats) {
            let Seat::Module(binding) = set.seat(slot) else { continue };
            let module = module(binding.module).ok_or_else(|| {
                (slot, Rejection::new("missing", format!("the module {} is not loaded", binding.module)))
            })?;
            *taken = Some(module.seat(slot, &binding.settings).map_err(|rejection| (slot, rejection))?);
        }
        Ok(SeatedSet { id: set.id(), floor: Builtin::new(set.floor.clone()), seats })
    }

    /// The set's id.
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        self.id
    }

    /// Who sits in a slot; none for the built-in rules.
    #[must_use]
    pub fn sitting(&self, slot: Slot) -> Option<&Sitting> {
        self.seats[slot as usize].as_ref()
    }
}

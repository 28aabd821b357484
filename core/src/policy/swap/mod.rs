//! The life of modules and of the set of policies: admitted, activated, on probation, ejected, quarantined. Decides who
//! is asked from the next step on; never asks a policy, and never holds the bytes of one.

mod state;
mod view;

pub use view::{Origin, PolicyNews, PolicyView, SeatView};

use alloc::vec::Vec;

use crate::change::PolicyChange;
use crate::cx::Cx;
use crate::id::{PolicySetId, RequestId, Ticket};
use crate::input::{PolicyReply, PolicyRequest};
use crate::knobs::Knobs;
use crate::outcome::Outcome;
use crate::policy::PolicySet;
use crate::policy::swap::state::State;
use crate::refusal::{Broken, Illegal, PolicyRefusal, Refusal};
use crate::row::{Key, PolicyRow, Row};

/// Modules and the set of policies.
#[derive(Debug, Default)]
pub struct Swap {
    state: State,
}

impl Swap {
    /// Takes a record into memory.
    pub fn load(&mut self, key: &Key, row: Row) {
        self.state.load(key, row);
    }

    /// What a record is now.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        self.state.row(key)
    }

    /// Applies a change. Silent. Returns the records touched.
    pub fn apply(&mut self, change: &PolicyChange) -> Result<Vec<Key>, Illegal> {
        self.state.apply(change)
    }

    /// A new process knows only what is durable, and its own configuration.
    pub fn forget_volatile(&mut self, knobs: &Knobs) {
        self.state.configure(None, &knobs.builtin);
    }

    /// Who sits in which slot from the next step on.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.state.set
    }

    /// The id of [`Swap::set`].
    #[must_use]
    pub fn id(&self) -> PolicySetId {
        self.state.id
    }

    /// Who sits where, and how it came to that.
    #[must_use]
    pub fn policy_row(&self) -> &PolicyRow {
        &self.state.row
    }

    /// Checks the invariants of modules and the set.
    pub fn check(&self) -> Result<(), Broken> {
        self.state.check()
    }
}

impl Swap {
    pub(crate) fn on_boot(&mut self, _: &mut Cx<'_>) {}
    pub(crate) fn on_request(&mut self, cx: &mut Cx<'_>, id: RequestId, _: &PolicyRequest) {
        let why = alloc::string::String::from("not yet");
        cx.reply(id, Err(Refusal::Policy(PolicyRefusal::Unanswered(why))));
    }
    pub(crate) fn on_outcome(&mut self, _: &mut Cx<'_>, _: Ticket, _: &Outcome<PolicyReply>) -> bool {
        false
    }
    pub(crate) fn on_quarantined(&mut self, _: &mut Cx<'_>, _: Ticket, _: &str) -> bool {
        false
    }
    pub(crate) fn on_due(&mut self, _: &mut Cx<'_>) {}
    pub(crate) fn on_shutdown(&mut self, _: &mut Cx<'_>) {}
    pub(crate) fn about(&self, _: Ticket, _: &mut alloc::string::String) {}
}

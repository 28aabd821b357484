//! What a policy wants to be told again. It belongs to a policy by name: nobody reads what another one noted.

use alloc::string::String;
use minicbor::{Decode, Encode};

/// What a policy wants to be told again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Memo {
    /// The name of the policy.
    #[n(0)]
    pub policy: String,
    /// What it noted: never 0, which is what a policy that noted nothing is told.
    #[n(1)]
    pub value: u64,
}

impl Memo {
    /// A note of the policy of this name; `None` for 0.
    #[must_use]
    pub fn of(policy: &str, value: u64) -> Option<Memo> {
        (value != 0).then(|| Memo { policy: String::from(policy), value })
    }

    /// What the policy of this name noted, 0 if nothing.
    #[must_use]
    pub fn told(memo: Option<&Memo>, policy: &str) -> u64 {
        memo.filter(|memo| memo.policy == policy).map_or(0, |memo| memo.value)
    }
}

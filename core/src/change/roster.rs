//! Everything that can become durable of registered devices and of tokens.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::DeviceId;
use crate::row::{DeviceRow, Key, TokenRow};
use crate::time::Wall;

/// A change of registered devices or of tokens. `token` is the digest of one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[expect(missing_docs, reason = "fields are those of DeviceRow and TokenRow")]
pub enum RosterChange {
    /// A device is known.
    #[n(0)]
    Registered(#[n(0)] Box<DeviceRow>),
    /// A token counts.
    #[n(1)]
    TokenAdded {
        #[n(0)]
        token: Sha256,
        #[n(1)]
        row: Box<TokenRow>,
    },
    /// A link began with a token.
    #[n(2)]
    TokenUsed {
        #[n(0)]
        token: Sha256,
        #[n(1)]
        at: Wall,
    },
    /// A token counts no more.
    #[n(3)]
    TokenRevoked {
        #[n(0)]
        token: Sha256,
    },
    /// A device may have no link.
    #[n(4)]
    Disabled {
        #[n(0)]
        device: DeviceId,
        #[n(1)]
        at: Wall,
    },
    /// It may again.
    #[n(5)]
    Enabled {
        #[n(0)]
        device: DeviceId,
    },
}

impl RosterChange {
    /// A short stable word for logs and coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            RosterChange::Registered(_) => "roster.registered",
            RosterChange::TokenAdded { .. } => "roster.token_added",
            RosterChange::TokenUsed { .. } => "roster.token_used",
            RosterChange::TokenRevoked { .. } => "roster.token_revoked",
            RosterChange::Disabled { .. } => "roster.disabled",
            RosterChange::Enabled { .. } => "roster.enabled",
        }
    }

    /// The records that it touches besides the counters, whether they exist or not.
    #[must_use]
    pub fn touches(&self) -> Vec<Key> {
        match self {
            RosterChange::Registered(row) => vec![Key::Device(row.id.clone())],
            RosterChange::TokenAdded { token, .. }
            | RosterChange::TokenUsed { token, .. }
            | RosterChange::TokenRevoked { token } => vec![Key::Token(*token)],
            RosterChange::Disabled { device, .. } | RosterChange::Enabled { device } => {
                vec![Key::Device(device.clone())]
            }
        }
    }
}

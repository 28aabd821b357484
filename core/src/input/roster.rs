//! What can be asked of registered devices and tokens. Never holds a token.

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::digest::Sha256;
use crate::id::DeviceId;
use crate::row::Scope;

/// What somebody asks of registered devices and tokens. Tokens are drawn at the edge: here are only their SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RosterRequest {
    /// A device registers itself.
    #[n(0)]
    Register {
        /// Name of its factory.
        #[n(0)]
        factory: String,
        /// Name of its type.
        #[n(1)]
        robot_type: String,
        /// The token of its recorder.
        #[n(2)]
        recorder: Sha256,
        /// The token of its uploader.
        #[n(3)]
        transfer: Sha256,
        /// Whether the configuration lets anybody register; otherwise only while an operator does.
        #[n(4)]
        open: bool,
    },
    /// Add a token. A device that is not known becomes known.
    #[n(1)]
    Issue {
        /// What it is good for.
        #[n(0)]
        scope: Scope,
        /// Whose, if it is a device's.
        #[n(1)]
        device: Option<DeviceId>,
        /// What people call it.
        #[n(2)]
        name: Option<String>,
        /// The token.
        #[n(3)]
        token: Sha256,
    },
    /// Put two new tokens in the place of all that a device has. Links that are up stay.
    #[n(2)]
    Rotate {
        /// Whose.
        #[n(0)]
        device: DeviceId,
        /// The token of its recorder.
        #[n(1)]
        recorder: Sha256,
        /// The token of its uploader.
        #[n(2)]
        transfer: Sha256,
    },
    /// Take a token back, and close the links that it proved.
    #[n(3)]
    Revoke {
        /// Its number.
        #[n(0)]
        id: u64,
    },
    /// Take every token of a device back, and close its links.
    #[n(4)]
    RevokeDevice {
        /// Whose.
        #[n(0)]
        device: DeviceId,
    },
    /// Let anybody register for a while.
    #[n(5)]
    Window {
        /// Milliseconds; 0 ends it.
        #[n(0)]
        ms: u64,
    },
    /// Close the links of a device, and let it have none.
    #[n(6)]
    Disable {
        /// Which.
        #[n(0)]
        device: DeviceId,
    },
    /// Let a device have links again.
    #[n(7)]
    Enable {
        /// Which.
        #[n(0)]
        device: DeviceId,
    },
}

impl RosterRequest {
    /// A short stable word for logs, metrics and coverage.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            RosterRequest::Register { .. } => "register device",
            RosterRequest::Issue { .. } => "issue token",
            RosterRequest::Rotate { .. } => "rotate tokens",
            RosterRequest::Revoke { .. } => "revoke token",
            RosterRequest::RevokeDevice { .. } => "revoke tokens of device",
            RosterRequest::Window { .. } => "open registration",
            RosterRequest::Disable { .. } => "disable device",
            RosterRequest::Enable { .. } => "enable device",
        }
    }
}

//! Records of registered devices and of tokens. A token itself is never here, only its digest, as a key.

use alloc::string::String;
use minicbor::{Decode, Encode};

use crate::id::{DeviceId, Role};
use crate::time::Wall;

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Scope {
    /// Links of a device's recorder, and of its uploader.
    #[n(0)]
    Recorder,
    /// Links of a device's uploader only: it stands in a path, and a path is sooner seen by others than a header.
    #[n(1)]
    Transfer,
    /// Looking.
    #[n(2)]
    Viewer,
    /// The daily work: tasks, commands, episodes.
    #[n(3)]
    Operator,
    /// Everything: tokens, devices and policies too.
    #[n(4)]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 5] =
        [Scope::Recorder, Scope::Transfer, Scope::Viewer, Scope::Operator, Scope::Admin];

    /// A short stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Recorder => "recorder",
            Scope::Transfer => "transfer",
            Scope::Viewer => "viewer",
            Scope::Operator => "operator",
            Scope::Admin => "admin",
        }
    }

    /// The scope of a word; `None` if there is none.
    #[must_use]
    pub fn of(word: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == word)
    }

    /// Whether it is a device's, and says nothing to the API.
    #[must_use]
    pub fn is_of_device(self) -> bool {
        matches!(self, Scope::Recorder | Scope::Transfer)
    }

    /// Whether it is good for a link of this program.
    #[must_use]
    pub fn fits(self, role: Role) -> bool {
        match self {
            Scope::Recorder => true,
            Scope::Transfer => role == Role::Transfer,
            Scope::Viewer | Scope::Operator | Scope::Admin => false,
        }
    }
}

/// A token, under its SHA-256. What is not here was revoked or never was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TokenRow {
    /// Its number, for people.
    #[n(0)]
    pub id: u64,
    /// What it is good for.
    #[n(1)]
    pub scope: Scope,
    /// Whose, if it is a device's.
    #[n(2)]
    pub device: Option<DeviceId>,
    /// What people call it.
    #[n(3)]
    pub name: Option<String>,
    /// When it was made.
    #[n(4)]
    pub created_at: Wall,
    /// When a link last began with it, to a minute. Not kept for tokens of the API.
    #[n(5)]
    pub used_at: Option<Wall>,
}

/// A device that was registered, or that was given a token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceRow {
    /// Its id.
    #[n(0)]
    pub id: DeviceId,
    /// Its number at the site: what the predecessor calls `robot_id`.
    #[n(1)]
    pub number: u64,
    /// Number and name of its factory, if it registered itself.
    #[n(2)]
    pub factory: Option<Named>,
    /// Number and name of its type, if it registered itself.
    #[n(3)]
    pub robot_type: Option<Named>,
    /// Its place among the devices of its factory and type, if it registered itself.
    #[n(4)]
    pub seq: Option<u32>,
    /// When.
    #[n(5)]
    pub registered_at: Wall,
    /// Since when it may have no link, if so.
    #[n(6)]
    pub disabled_at: Option<Wall>,
}

/// Something with a number and a name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Named {
    /// Its number, from 1.
    #[n(0)]
    pub number: u32,
    /// Its name.
    #[n(1)]
    pub name: String,
}

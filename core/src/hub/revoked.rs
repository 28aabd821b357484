//! What becomes of links when their proof is taken back. Decides nothing about proofs (the roster does).

use alloc::vec::Vec;

use super::Hub;
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::effect::{CloseWhy, Effect};
use crate::fact::Proof;
use crate::id::{DeviceId, Role};

impl Hub {
    /// Tokens of a device were taken back: what is proven by none of those that it has left is closed, and whoever waits
    /// on it hears so.
    pub fn on_tokens_revoked(&mut self, cx: &mut Cx<'_>, device: &DeviceId, left: &[Sha256], all: bool) {
        self.revoke(cx, device, |role, proof| match proof {
            Proof::Nothing => false,
            Proof::Token(own) => (all || role == Role::Transfer) && !left.contains(&own),
            Proof::Address => all,
        });
    }

    /// A device may have no link any more, whatever proved it.
    pub fn on_device_disabled(&mut self, cx: &mut Cx<'_>, device: &DeviceId) {
        self.revoke(cx, device, |_, _| true);
    }

    fn revoke(&mut self, cx: &mut Cx<'_>, device: &DeviceId, falls: impl Fn(Role, Proof) -> bool) {
        let roles = [Role::Recorder, Role::Transfer].into_iter();
        let links = roles.filter_map(|role| self.link(device, role).filter(|link| falls(role, link.proof)));
        for conn in links.map(|link| link.conn).collect::<Vec<_>>() {
            self.take_down(cx, conn, "revoked");
            cx.effect(Effect::Close { conn, why: CloseWhy::Revoked });
        }
    }
}

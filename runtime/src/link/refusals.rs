//! Owns the handshakes that were refused, for what is wrong with them: how many, and who is refused unheard for it. What only
//! the moment forbids does not count, and neither do links that were admitted.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use tidegate_core::id::{DeviceId, Role};
use tidegate_core::input::Demand;
use tidegate_core::row::{Key, Row};

use super::Shared;
use crate::api;
use crate::api::error::Answer;
use crate::board::DeviceSeen;
use crate::brake::{self, Brake, Rate};
use crate::inbox::Stranger;

/// What strangers used up. A whole fleet may stand behind one address: who brings what the core lets in is heard all the
/// same, and pays for nobody.
pub(super) struct Refusals {
    of_device: Brake<(IpAddr, DeviceId)>,
    of_address: Brake<IpAddr>,
    /// What the log tells of an address.
    told: Brake<IpAddr>,
}

impl Refusals {
    /// A device whose credentials the core refuses tries again and again: it is told so ten times a minute. All strangers at
    /// an address, with whatever ids they make up, have two a second.
    pub(super) fn new() -> Refusals {
        Refusals {
            of_device: Brake::new(Rate::per_minute(10, 10)),
            of_address: Brake::new(Rate::per_minute(120, 120)),
            told: Brake::new(Rate::per_minute(6, 6)),
        }
    }

    /// The answer to what is no handshake, on its way out.
    pub(super) fn malformed(&self, from: IpAddr, refusal: Answer) -> Answer {
        match self.of_address.wait(&from) {
            Some(wait) => unheard(wait),
            None => self.count(from, None, refusal),
        }
    }

    /// A refusal on its way out.
    pub(super) fn count(&self, from: IpAddr, device: Option<&DeviceId>, refusal: Answer) -> Answer {
        if refusal.status().is_client_error() {
            // Somebody who has nothing left is refused unheard from now on.
            let _ = self.of_address.take(from);
            if let Some(device) = device {
                let _ = self.of_device.take((from, device.clone()));
            }
            // Each is counted; the log tells who it was, and is not filled by whoever knocks fastest.
            if self.told.take(from).is_ok() {
                let code = refusal.body().get("code").and_then(serde_json::Value::as_str);
                let device = device.map(DeviceId::as_str);
                tracing::warn!(%from, device, status = refusal.status().as_u16(), code, "a handshake is refused");
            }
        }
        refusal
    }

    /// How long this one would have to wait, as a stranger.
    fn wait(&self, from: IpAddr, stranger: &Stranger) -> Option<Duration> {
        // Where nothing is asked for nothing can be tried out: what others do wrong says nothing of this one.
        let of_address = || self.of_address.wait(&from).filter(|_| stranger.demand != Demand::Nothing);
        self.of_device.wait(&(from, stranger.device.clone())).or_else(of_address)
    }
}

fn unheard(wait: Duration) -> Answer {
    let text = "too many handshakes from here were refused; mend the cause, then wait";
    let answer = Answer::new(StatusCode::TOO_MANY_REQUESTS, "too_many_refusals", text);
    answer.retry_after(brake::seconds(wait))
}

impl Shared {
    /// Whether a handshake is heard.
    pub(super) async fn hears(&self, from: IpAddr, stranger: &Stranger) -> Result<(), Answer> {
        match self.refusals.wait(from, stranger) {
            Some(wait) if !self.is_known(stranger).await => Err(unheard(wait)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether somebody brings what the core lets in, as far as records tell. The core judges it all the same.
    async fn is_known(&self, stranger: &Stranger) -> bool {
        let Stranger { device, role, remote, demand, .. } = stranger;
        let Some(token) = stranger.credential else {
            let by_address = *demand == Demand::TokenOrAddress && *role == Role::Transfer;
            let is_bound = |seen: DeviceSeen| self.is_bound(&seen, remote);
            return by_address && self.board.device(device).is_some_and(is_bound);
        };
        let (device, role) = (device.clone(), *role);
        let known = api::read(self.rows.reads.clone(), &self.rows.runner, move |rows| {
            let own = match rows.get(&Key::Token(token))? {
                Some(Row::Token(row)) => row.device.as_ref() == Some(&device) && row.scope.fits(role),
                _ => false,
            };
            let disabled = || match rows.get(&Key::Device(device.clone())) {
                Ok(Some(Row::Device(row))) => row.disabled_at.is_some(),
                _ => false,
            };
            Ok(own && !disabled())
        });
        known.await.unwrap_or(false)
    }

    /// Whether a device's recorder is linked from this address, or was until a while ago: for so long its uploader needs
    /// nothing else, and must not suffer from others behind the address.
    fn is_bound(&self, seen: &DeviceSeen, remote: &str) -> bool {
        let now = (self.clock)().wall;
        match &seen.recorder_link {
            Some(up) => up.link.remote == remote,
            None => seen
                .recorder_left
                .as_ref()
                .is_some_and(|left| left.remote == remote && left.at.until(now) < self.bounds.bound_keep),
        }
    }
}

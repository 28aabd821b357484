//! Tokens: draws them, and knows by their digest which are good for the API. What is good the core says, with its
//! effects; nothing is decided here, and no token is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use tidegate_core::digest::Sha256;
use tidegate_core::row::Scope;
use tokio::sync::watch;

use crate::config::Secret;
use crate::seam::Blocking;

/// The tokens that are good for the API now, by digest. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Grants(watch::Sender<BTreeMap<Sha256, Scope>>);

impl Grants {
    /// From now on this token is good.
    pub fn add(&self, token: Sha256, scope: Scope) {
        self.0.send_modify(|known| {
            known.insert(token, scope);
        });
    }

    /// It is not any more.
    pub fn remove(&self, token: Sha256) {
        self.0.send_modify(|known| {
            known.remove(&token);
        });
    }

    /// What a token is good for; `None` is nothing.
    #[must_use]
    pub fn of(&self, token: &Sha256) -> Option<Scope> {
        self.0.borrow().get(token).copied()
    }

    /// Whether there is one for this.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.borrow().values().any(|known| *known == scope)
    }

    /// A token to look at again for as long as an answer lasts.
    #[must_use]
    pub fn shown(&self, token: Sha256) -> Shown {
        Shown { token, known: self.0.subscribe() }
    }
}

/// A token that was good when it was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    token: Sha256,
    known: watch::Receiver<BTreeMap<Sha256, Scope>>,
}

impl Shown {
    /// Whether it still is.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.known.borrow().contains_key(&self.token)
    }

    /// Waits until it is not any more.
    pub async fn revoked(&mut self) {
        // An error is a site that is being dropped, where nothing is good.
        let _ = self.known.wait_for(|known| !known.contains_key(&self.token)).await;
    }
}

/// Fills a buffer with entropy.
type Draw = dyn Fn(&mut [u8]) + Send + Sync;

/// Draws tokens: 32 bytes of the seam's entropy each.
#[derive(Clone)]
pub struct Mint(Arc<Draw>);

impl std::fmt::Debug for Mint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mint")
    }
}

impl Mint {
    /// With the entropy of a seam.
    #[must_use]
    pub fn new(blocking: impl Blocking) -> Mint {
        Mint(Arc::new(move |bytes| blocking.entropy(bytes)))
    }

    /// A fresh token that begins so, and its digest. To be shown once, after the core took the digest.
    #[must_use]
    pub fn draw(&self, prefix: &str) -> (Secret, Sha256) {
        let mut bytes = [0; 32];
        (self.0)(&mut bytes);
        let token = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
        let digest = Sha256::of(token.as_bytes());
        (Secret::new(token), digest)
    }
}

/// How a token of a device begins.
pub const DEVICE: &str = "kws_v1_";
/// How a token of the API begins.
pub const OPERATOR: &str = "tgo_v1_";

/// SHA-256 of the bearer token of a request. Strict, as devices were always told: `Bearer`, in this spelling, and one
/// word. The token itself is neither kept nor logged.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<Sha256> {
    let mut words = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("Bearer"), Some(token), None) => Some(Sha256::of(token.as_bytes())),
        _ => None,
    }
}

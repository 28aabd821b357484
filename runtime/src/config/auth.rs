//! `[auth]`: who must prove what on which listener. Decides nothing of the domain: it only says what is demanded.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_core::id::Role;
use tidegate_core::input::Demand;

use super::read::Reader;
use super::{Config, Door, Listen};

/// Whether tokens are demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demanded {
    /// On listeners beyond loopback, unless the site was told to be insecure.
    #[default]
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}

/// Who must prove what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// `auth.api`: tokens of operators.
    pub api: Demanded,
    /// `auth.devices`: tokens of devices, for links.
    pub devices: Demanded,
    /// `auth.transfer`: whether an uploader may come without a token from where its recorder proved itself.
    pub by_address: bool,
    /// `auth.bound_keep`: for how long after its recorder went.
    pub bound_keep: Duration,
    /// `auth.callbacks`: `user_token` of the task.
    pub callbacks: Demanded,
    /// `auth.registration`: whether anybody may register; `None` follows `auth.devices`.
    pub registration: Option<bool>,
}

impl Default for Auth {
    fn default() -> Auth {
        Auth {
            api: Demanded::Auto,
            devices: Demanded::Auto,
            by_address: true,
            bound_keep: Duration::from_secs(3_600),
            callbacks: Demanded::Auto,
            registration: None,
        }
    }
}

impl Demanded {
    fn at(self, address: SocketAddr, listen: &Listen) -> bool {
        match self {
            Demanded::Auto => !address.ip().is_loopback() && !listen.insecure,
            Demanded::Yes => true,
            Demanded::No => false,
        }
    }
}

impl Config {
    /// Whether the API asks for tokens.
    #[must_use]
    pub fn api_tokens(&self) -> bool {
        self.auth.api.at(self.listen.api, &self.listen)
    }

    /// What a program must prove at a listener with this address.
    #[must_use]
    pub fn demand(&self, role: Role, address: SocketAddr) -> Demand {
        match role {
            _ if !self.auth.devices.at(address, &self.listen) => Demand::Nothing,
            Role::Transfer if self.auth.by_address => Demand::TokenOrAddress,
            Role::Recorder | Role::Transfer => Demand::Token,
        }
    }

    /// Whether any listener asks devices for tokens.
    #[must_use]
    pub fn device_tokens(&self) -> bool {
        self.doors().any(|(_, address)| self.auth.devices.at(address, &self.listen))
    }

    /// Whether callbacks must carry the token of their task.
    #[must_use]
    pub fn callback_tokens(&self) -> bool {
        match self.auth.callbacks {
            Demanded::Auto => self.device_tokens(),
            Demanded::Yes => true,
            Demanded::No => false,
        }
    }

    /// Whether anybody may register a device.
    #[must_use]
    pub fn open_registration(&self) -> bool {
        self.auth.registration.unwrap_or(!self.device_tokens())
    }

    /// Every listener that takes links.
    fn doors(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let Listen { api, recorder, transfer, .. } = self.listen;
        let own = [("listen.recorder", recorder), ("listen.transfer", transfer)];
        let own = own.into_iter().filter_map(|(key, address)| Some((key, address?)));
        [("listen.api", api)].into_iter().chain(own)
    }
}

/// Reads `[auth]`, and refuses what leaves a door open to others without a word of consent. After `[listen]`.
pub(super) fn read_auth(r: &mut Reader<'_>, config: &mut Config) {
    word(r, "auth.api", "tokens", &mut config.auth.api);
    word(r, "auth.devices", "tokens", &mut config.auth.devices);
    word(r, "auth.callbacks", "user_token", &mut config.auth.callbacks);
    match r.opt_text("auth.transfer").as_deref() {
        None | Some("address") => {}
        Some("token") => config.auth.by_address = false,
        Some(_) => r.problem("auth.transfer", "must be \"address\" or \"token\""),
    }
    match r.opt_text("auth.registration").as_deref() {
        None => {}
        Some("open") => config.auth.registration = Some(true),
        Some("closed") => config.auth.registration = Some(false),
        Some(_) => r.problem("auth.registration", "must be \"open\" or \"closed\""),
    }
    let keep = &mut config.auth.bound_keep;
    r.duration("auth.bound_keep", keep, 0, 30 * 86_400_000, "at most 30d");
    warn_of_plain_tokens(config);
    let beyond: Vec<_> = config.doors().filter(|(_, address)| !address.ip().is_loopback()).collect();
    let open = |(key, address): &(&'static str, SocketAddr)| {
        if *key == "listen.api" && !config.api_tokens() {
            Some((*key, "auth.api"))
        } else if !config.auth.devices.at(*address, &config.listen) {
            Some((*key, "auth.devices"))
        } else {
            None
        }
    };
    let open: Vec<_> = beyond.iter().filter_map(open).collect();
    if config.listen.insecure {
        if !open.is_empty() {
            let keys = open.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ");
            config.warnings.push(format!(
                "nobody has to prove anything at {keys}, and others reach this site (listen.insecure): everybody there may \
                 command its devices"
            ));
        }
        return;
    }
    for (key, open) in &open {
        r.problem(
            key,
            &format!(
                "is reachable beyond this machine, and {open} = \"off\" lets everybody in: leave {open} out, use a \
                 loopback address, or say --insecure (listen.insecure = true)"
            ),
        );
    }
    if !beyond.is_empty() && config.auth.callbacks == Demanded::No {
        r.problem(
            "auth.callbacks",
            "must not be \"off\" while devices come from beyond this machine: leave it out, or say --insecure \
             (listen.insecure = true)",
        );
    }
    if !beyond.is_empty() && config.open_registration() {
        let text =
            "auth.registration is open, and others reach this site: everybody there may register devices";
        config.warnings.push(text.to_owned());
    }
}

/// A token that is sent in the clear is everybody's who listens on the way.
fn warn_of_plain_tokens(config: &mut Config) {
    let asks = |key: &str, address: SocketAddr| {
        (key == "listen.api" && config.api_tokens()) || config.auth.devices.at(address, &config.listen)
    };
    let plain = |key: &str| {
        Door::ALL
            .into_iter()
            .find(|door| key.strip_prefix("listen.") == Some(door.name()))
            .is_some_and(|door| !config.listen.encrypts(door))
    };
    let beyond = config.doors().filter(|(_, address)| !address.ip().is_loopback());
    let keys: Vec<_> =
        beyond.filter(|(key, address)| asks(key, *address) && plain(key)).map(|(key, _)| key).collect();
    if !keys.is_empty() {
        let keys = keys.join(", ");
        config.warnings.push(format!(
            "tokens are asked for beyond this machine without TLS ({keys}): whoever listens on the network reads them; \
             set listen.tls_cert and listen.tls_key, or keep those listeners in a network of their own, which recorders \
             as they are shipped need anyway (docs/operations.md, \"TLS\")"
        ));
    }
}

fn word(r: &mut Reader<'_>, key: &'static str, yes: &str, into: &mut Demanded) {
    match r.opt_text(key).as_deref() {
        None => {}
        Some("auto") => *into = Demanded::Auto,
        Some("off") => *into = Demanded::No,
        Some(text) if text == yes => *into = Demanded::Yes,
        Some(_) => r.problem(key, &format!("must be \"auto\", \"{yes}\" or \"off\"")),
    }
}

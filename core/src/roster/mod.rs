//! Registered devices and tokens: who may have a link, and who may use the API. Knows no link and no token itself, only
//! digests: tokens are 256 random bits, so a plain SHA-256 cannot be guessed back and needs no comparison in equal time.
//!
//! ```text
//! knock ─► judged here ─► KnockCleared with its proof ─► hub
//!              └────────► turned away: unauthorized
//! revoked ─► TokensRevoked ─► hub closes what was proven by it
//! ```

mod state;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::bug::planted;
use crate::change::{Change, RosterChange};
use crate::cx::Cx;
use crate::digest::Sha256;
use crate::effect::{Effect, Response};
use crate::fact::{Fact, Proof};
use crate::id::{DeviceId, RequestId, Role, SocketId};
use crate::input::{Demand, Input, Request, RosterRequest};
use crate::limits;
use crate::refusal::{Broken, Illegal, Refusal};
use crate::row::{DeviceRow, Key, MetaRow, Row, Scope, TokenRow};
use crate::time::Mono;

use state::State;

/// Who knocks, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The socket.
    pub socket: SocketId,
    /// Who it says it is.
    pub device: &'a DeviceId,
    /// Which of its programs.
    pub role: Role,
    /// The address it comes from.
    pub remote: &'a str,
    /// From which port, if that is known.
    pub port: Option<u16>,
    /// SHA-256 of its token, if it sent one.
    pub credential: Option<Sha256>,
    /// What it must prove.
    pub demand: Demand,
}

/// An address from which a recorder proved itself by a token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proven {
    remote: String,
    token: Sha256,
    /// Until when it counts; `None` while the recorder is there.
    until: Option<Mono>,
}

/// Registered devices and tokens of one site.
#[derive(Debug, Default)]
pub struct Roster {
    state: State,
    /// Addresses of recorders that proved themselves. At most one per device that has a token.
    proven: BTreeMap<DeviceId, Proven>,
    /// Until when anybody may register.
    open_until: Option<Mono>,
}

impl Roster {
    /// Takes a record into memory.
    pub fn load(&mut self, key: &Key, row: Row) {
        self.state.load(key, row);
    }

    /// Takes the counters of the site.
    pub fn load_counters(&mut self, meta: &MetaRow) {
        self.state.load_counters(meta.next_device.unwrap_or(1), meta.next_token.unwrap_or(1));
    }

    /// Whose links this input may close. Their tasks are heard of in the same step.
    #[must_use]
    pub fn may_close(&self, input: &Input) -> Option<&DeviceId> {
        match input {
            Input::Request { request: Request::Roster(request), .. } => match request {
                RosterRequest::Revoke { id } => self.state.numbered(*id)?.1.device.as_ref(),
                RosterRequest::RevokeDevice { device } | RosterRequest::Disable { device } => {
                    self.state.device(device).map(|row| &row.id)
                }
                RosterRequest::Register { .. }
                | RosterRequest::Issue { .. }
                | RosterRequest::Rotate { .. }
                | RosterRequest::Window { .. }
                | RosterRequest::Enable { .. } => None,
            },
            _ => None,
        }
    }

    /// Number of the next device, and of the next token.
    #[must_use]
    pub fn counters(&self) -> (u64, u64) {
        self.state.counters()
    }

    /// A record.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Row> {
        self.state.row(key)
    }

    /// Applies a change of the journal.
    pub fn apply(&mut self, change: &RosterChange) -> Result<Vec<Key>, Illegal> {
        self.state.apply(change)
    }

    /// The process started: what is not durable is gone.
    pub fn forget_volatile(&mut self) {
        self.proven.clear();
        self.open_until = None;
    }

    /// Tells the edge which tokens are good for the API.
    pub fn on_boot(&mut self, cx: &mut Cx<'_>) {
        for (token, row) in self.state.tokens() {
            if !row.scope.is_of_device() {
                cx.effect(Effect::Grant { token: *token, scope: row.scope });
            }
        }
    }

    /// A device's program asks for a link: has it proven what it must?
    pub fn on_knock(&mut self, cx: &mut Cx<'_>, caller: Caller<'_>) {
        let Caller { socket, device, role, remote, port, .. } = caller;
        if cx.stopping {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::Stopping });
        }
        let Some(proof) = self.judge(cx, &caller) else {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::Unauthorized });
        };
        if let Proof::Token(token) = proof {
            self.used(cx, token);
        }
        let (device, remote) = (device.clone(), remote.to_string());
        cx.tell(Fact::KnockCleared { socket, device, role, remote, port, proof });
    }

    /// What proves who knocks; `None` is turned away.
    fn judge(&self, cx: &Cx<'_>, caller: &Caller<'_>) -> Option<Proof> {
        let Caller { device, role, .. } = caller;
        if self.state.device(device).is_some_and(|row| row.disabled_at.is_some()) {
            return None;
        }
        let fits = |row: &TokenRow| row.device.as_ref() == Some(*device) && row.scope.fits(*role);
        if let Some(token) = caller.credential.filter(|token| self.state.token(token).is_some_and(fits)) {
            return Some(Proof::Token(token));
        }
        match caller.demand {
            Demand::Nothing => Some(Proof::Nothing),
            Demand::Token | Demand::TokenOrAddress if planted!(cx.knobs, X66) => Some(Proof::Nothing),
            // Who sends a token is judged by it: a revoked one is no better for where it comes from.
            Demand::TokenOrAddress if *role == Role::Transfer && caller.credential.is_none() => {
                let proven = self.proven.get(*device)?;
                let here = proven.remote == caller.remote;
                let now = proven.until.is_none_or(|until| cx.now.mono < until);
                (here && now).then_some(Proof::Address)
            }
            Demand::Token | Demand::TokenOrAddress => None,
        }
    }

    /// Notes that a token was used, but not with every link: a fleet that comes back at once writes little.
    fn used(&mut self, cx: &mut Cx<'_>, token: Sha256) {
        let last = self.state.token(&token).and_then(|row| row.used_at);
        let at = cx.now.wall;
        if last.is_none_or(|last| last > at || last.until(at) >= limits::TOKEN_USED_EVERY) {
            self.record(cx, RosterChange::TokenUsed { token, at });
        }
    }

    /// A link is up.
    pub fn on_link_up(&mut self, device: &DeviceId, role: Role, remote: &str, proof: Proof) {
        if let (Role::Recorder, Proof::Token(token)) = (role, proof) {
            let proven = Proven { remote: remote.to_string(), token, until: None };
            self.proven.insert(device.clone(), proven);
        }
    }

    /// A link is down: its address counts for a while, for the uploader may come back first.
    pub fn on_link_down(&mut self, cx: &mut Cx<'_>, device: &DeviceId, role: Role) {
        let (Role::Recorder, Some(proven)) = (role, self.proven.get_mut(device)) else { return };
        proven.until = Some(cx.now.mono.after(Duration::from_millis(cx.knobs.bound_keep_ms)));
    }

    /// Somebody asks for a change of devices or tokens.
    pub fn on_request(&mut self, cx: &mut Cx<'_>, id: RequestId, request: &RosterRequest) {
        let answer = match request {
            RosterRequest::Register { factory, robot_type, recorder, transfer, open } => {
                self.register(cx, [factory, robot_type], [*recorder, *transfer], *open)
            }
            RosterRequest::Issue { scope, device, name, token } => {
                self.issue(cx, *scope, device.as_ref(), name.as_deref(), *token)
            }
            RosterRequest::Rotate { device, recorder, transfer } => {
                self.rotate(cx, device, [*recorder, *transfer])
            }
            RosterRequest::Revoke { id } => self.revoke(cx, *id),
            RosterRequest::RevokeDevice { device } => self.revoke_device(cx, device),
            RosterRequest::Window { ms } => {
                self.open_until = (*ms > 0).then(|| cx.now.mono.after(Duration::from_millis(*ms)));
                Ok(Response::Window)
            }
            RosterRequest::Disable { device } => self.disable(cx, device),
            RosterRequest::Enable { device } => self.enable(cx, device),
        };
        cx.reply(id, answer);
    }

    fn register(
        &mut self,
        cx: &mut Cx<'_>,
        [factory, robot_type]: [&str; 2],
        tokens: [Sha256; 2],
        open: bool,
    ) -> Result<Response, Refusal> {
        if !open && self.open_until.is_none_or(|until| cx.now.mono >= until) {
            return Err(Refusal::RegistrationClosed);
        }
        for (field, name) in [("factory", factory), ("robot_type", robot_type)] {
            if name.is_empty() || name.len() > limits::NAME_BYTES {
                return Err(Refusal::BadField { field, must: "1 to 128 bytes" });
            }
        }
        self.room(1, 2)?;
        self.unused(&tokens)?;
        let row = self.state.newcomer(factory, robot_type, cx.now.wall)?;
        let device = row.id.clone();
        self.record(cx, RosterChange::Registered(Box::new(row)));
        self.add_pair(cx, &device, tokens);
        self.told_device(&device)
    }

    fn issue(
        &mut self,
        cx: &mut Cx<'_>,
        scope: Scope,
        device: Option<&DeviceId>,
        name: Option<&str>,
        token: Sha256,
    ) -> Result<Response, Refusal> {
        if name.is_some_and(|name| name.is_empty() || name.len() > limits::NAME_BYTES) {
            return Err(Refusal::BadField { field: "name", must: "1 to 128 bytes" });
        }
        match device {
            None if scope.is_of_device() => {
                return Err(Refusal::BadField { field: "device_id", must: "there for a token of a device" });
            }
            Some(_) if !scope.is_of_device() => {
                let must = "left out: only a token of a recorder or uploader is a device's";
                return Err(Refusal::BadField { field: "device_id", must });
            }
            None | Some(_) => {}
        }
        let newcomer = device.filter(|device| self.state.device(device).is_none());
        self.room(usize::from(newcomer.is_some()), 1)?;
        self.unused(&[token])?;
        if let Some(device) = newcomer {
            let row = self.state.stranger(device, cx.now.wall);
            self.record(cx, RosterChange::Registered(Box::new(row)));
        }
        self.add(cx, scope, device, name, token);
        let row = self.state.token(&token).expect("it was just added").clone();
        Ok(Response::Token(Box::new(row)))
    }

    /// Links that are up stay: a recording that runs can still be commanded.
    fn rotate(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        tokens: [Sha256; 2],
    ) -> Result<Response, Refusal> {
        let row = self.known(device)?;
        if row.disabled_at.is_some() {
            return Err(Refusal::DeviceDisabled(device.clone()));
        }
        let old = self.state.tokens_of(device);
        self.room(0, tokens.len().saturating_sub(old.len()))?;
        self.unused(&tokens)?;
        for token in old {
            self.record(cx, RosterChange::TokenRevoked { token });
        }
        self.add_pair(cx, device, tokens);
        self.told_device(device)
    }

    fn revoke(&mut self, cx: &mut Cx<'_>, id: u64) -> Result<Response, Refusal> {
        let Some((token, row)) = self.state.numbered(id) else { return Err(Refusal::TokenNotFound(id)) };
        let row = row.clone();
        self.record(cx, RosterChange::TokenRevoked { token });
        match &row.device {
            Some(device) => {
                // What was rotated away before goes now: a rotation leaves its links, for a recording may run.
                let gone = |proven: &Proven| self.state.token(&proven.token).is_none();
                let all = row.scope == Scope::Recorder;
                if all && self.proven.get(device).is_some_and(gone) {
                    self.proven.remove(device);
                }
                self.tell_revoked(cx, device, all);
            }
            None => cx.effect(Effect::Bar { token }),
        }
        Ok(Response::Token(Box::new(row)))
    }

    fn revoke_device(&mut self, cx: &mut Cx<'_>, device: &DeviceId) -> Result<Response, Refusal> {
        self.known(device)?;
        for token in self.state.tokens_of(device) {
            self.record(cx, RosterChange::TokenRevoked { token });
        }
        self.proven.remove(device);
        self.tell_revoked(cx, device, true);
        self.told_device(device)
    }

    fn disable(&mut self, cx: &mut Cx<'_>, device: &DeviceId) -> Result<Response, Refusal> {
        if self.known(device)?.disabled_at.is_none() {
            self.record(cx, RosterChange::Disabled { device: device.clone(), at: cx.now.wall });
            self.proven.remove(device);
            cx.tell(Fact::DeviceDisabled { device: device.clone() });
        }
        self.told_device(device)
    }

    fn enable(&mut self, cx: &mut Cx<'_>, device: &DeviceId) -> Result<Response, Refusal> {
        if self.known(device)?.disabled_at.is_some() {
            self.record(cx, RosterChange::Enabled { device: device.clone() });
        }
        self.told_device(device)
    }

    fn tell_revoked(&self, cx: &mut Cx<'_>, device: &DeviceId, all: bool) {
        if !planted!(cx.knobs, X67) {
            let left = self.state.tokens_of(device);
            cx.tell(Fact::TokensRevoked { device: device.clone(), left, all });
        }
    }

    fn known(&self, device: &DeviceId) -> Result<&DeviceRow, Refusal> {
        self.state.device(device).ok_or_else(|| Refusal::DeviceNotFound(device.clone()))
    }

    /// Whether so many more devices and tokens fit.
    fn room(&self, devices: usize, tokens: usize) -> Result<(), Refusal> {
        let (known, issued) = self.state.sizes();
        if known + devices > limits::DEVICES_REGISTERED_MAX || issued + tokens > limits::TOKENS_MAX {
            return Err(Refusal::RosterFull);
        }
        Ok(())
    }

    /// Tokens are random: one that is known already was not drawn as it should have been.
    fn unused(&self, tokens: &[Sha256]) -> Result<(), Refusal> {
        let known = tokens.iter().any(|token| self.state.token(token).is_some());
        let twice = tokens.iter().enumerate().any(|(at, token)| tokens[..at].contains(token));
        if known || twice { Err(Refusal::Internal("a token was drawn twice")) } else { Ok(()) }
    }

    fn add_pair(&mut self, cx: &mut Cx<'_>, device: &DeviceId, [recorder, transfer]: [Sha256; 2]) {
        self.add(cx, Scope::Recorder, Some(device), None, recorder);
        self.add(cx, Scope::Transfer, Some(device), None, transfer);
    }

    fn add(
        &mut self,
        cx: &mut Cx<'_>,
        scope: Scope,
        device: Option<&DeviceId>,
        name: Option<&str>,
        token: Sha256,
    ) {
        let (_, id) = self.state.counters();
        let row = TokenRow {
            id,
            scope,
            device: device.cloned(),
            name: name.map(ToString::to_string),
            created_at: cx.now.wall,
            used_at: None,
        };
        self.record(cx, RosterChange::TokenAdded { token, row: Box::new(row) });
        if !scope.is_of_device() {
            cx.effect(Effect::Grant { token, scope });
        }
    }

    fn told_device(&self, device: &DeviceId) -> Result<Response, Refusal> {
        let row = self.known(device)?.clone();
        Ok(Response::Device(Box::new(row)))
    }

    fn record(&mut self, cx: &mut Cx<'_>, change: RosterChange) {
        let touched = self.state.apply(&change);
        let touched = touched.unwrap_or_else(|illegal| panic!("I32: the roster was asked to {illegal:?}"));
        cx.record(Change::Roster(change), touched);
    }

    /// Checks the bounds.
    pub fn check(&self) -> Result<(), Broken> {
        let (devices, tokens) = self.state.sizes();
        let sizes = [
            ("devices", devices, limits::DEVICES_REGISTERED_MAX),
            ("tokens", tokens, limits::TOKENS_MAX),
            ("proven addresses", self.proven.len(), devices),
        ];
        match sizes.into_iter().find(|(_, len, most)| len > most) {
            Some((what, len, most)) => {
                Err(Broken { invariant: "I27", saw: alloc::format!("{len} {what}, at most {most} may be") })
            }
            None => Ok(()),
        }
    }
}

//! Connections between devices and sites: ordered, lossless while nothing is wrong, and dying as real ones die: with a
//! close, with a reset, or without a word, which only a heartbeat notices. No heartbeat is ever sent here; when it would
//! have noticed is computed.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::id::{ConnId, Role};
use tidegate_core::input::{Input, LostWhy};
use tidegate_core::wire::{recorder, transfer};

use super::site::Letter;
use super::weather::Route;
use super::{Event, Who, World};
use crate::device::LinkEnd;
use crate::scenario::Fault;
use crate::stream::Stream;
use crate::time::SimTime;
use crate::watch::Broken;

/// Frames that may wait for one link at the site, as in the runtime; a link that does not take them is closed.
const OUTBOUND: usize = 64;
/// Tries of a device's kernel to get a connection through, each after twice the time of the one before: about two
/// minutes in all.
const SYN_TRIES: u32 = 7;
/// How long one frame to a device may take to leave, as in the runtime.
const WRITE: Duration = Duration::from_secs(10);
/// Frames of earlier connections that a replay can bring back.
const REMEMBERED: usize = 16;

/// Where a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The handshake is on its way, or was not answered yet.
    Dialing,
    /// Both sides know it.
    Open,
    /// Neither side cares any more.
    Over,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Pipe {
    /// When the last frame arrives: order is kept.
    last: SimTime,
    /// Frames that wait for the end of a fault.
    held: VecDeque<String>,
    /// It never delivers again.
    dead: bool,
    /// Since when the receiving side hears nothing, if something keeps it from hearing.
    quiet: Option<SimTime>,
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) device: usize,
    pub(super) site: usize,
    pub(super) role: Role,
    /// The fault whose second program it is.
    pub(super) twin: Option<usize>,
    pub(super) state: State,
    pub(super) conn: Option<ConnId>,
    /// Its handshake reached the site.
    pub(super) knocked: bool,
    /// The device was told that it is open.
    opened: bool,
    /// The device gave it up, or never knew of it.
    pub(super) device_gone: bool,
    /// The site gave it up; its `Lost` was said.
    pub(super) site_gone: bool,
    up: Pipe,
    down: Pipe,
}

/// What a device keeps for its lines to its site.
#[derive(Debug)]
pub(super) struct Lines {
    jitter: [Stream; 2],
    /// Its present link of each program.
    pub(super) current: [Option<usize>; 2],
    /// The last frames it sent, with the connection they were sent on.
    sent: [VecDeque<(Option<ConnId>, String)>; 2],
    pub(super) luck: Stream,
}

impl Lines {
    pub(super) fn new(seed: u64, id: &str) -> Lines {
        let stream = |what: &str| Stream::new(seed, &format!("{what}/{id}"), 0);
        Lines {
            jitter: [stream("net/recorder"), stream("net/transfer")],
            current: [None, None],
            sent: [VecDeque::new(), VecDeque::new()],
            luck: stream("net/luck"),
        }
    }
}

pub(super) fn at(role: Role) -> usize {
    match role {
        Role::Recorder => 0,
        Role::Transfer => 1,
    }
}

/// How long a site waits for a sign of life: ping interval and twice the pong's patience, as in the runtime.
fn patience(role: Role) -> Duration {
    match role {
        Role::Recorder => Duration::from_secs(50),
        Role::Transfer => Duration::from_secs(45),
    }
}

impl World<'_> {
    fn route(&self, link: usize) -> Route {
        let link = &self.links[link];
        Route::Link { device: link.device, site: link.site, role: link.role }
    }

    fn delay(&mut self, link: usize) -> Duration {
        let (device, role) = (self.links[link].device, self.links[link].role);
        let base = self.devices[device].spec.latency;
        let slow = if self.weather.is_calm() { Duration::ZERO } else { self.weather.slow(self.route(link)) };
        base + self.lines[device].jitter[at(role)].tail(base / 4 + Duration::from_micros(50)) + slow
    }

    /// A program of a device wants a link.
    pub(super) fn dials(&mut self, device: usize, role: Role, twin: Option<usize>) {
        let site = self.devices[device].spec.site;
        let link = self.links.len();
        self.links.push(Link {
            device,
            site,
            role,
            twin,
            state: State::Dialing,
            conn: None,
            knocked: false,
            opened: false,
            device_gone: false,
            site_gone: false,
            up: Pipe::default(),
            down: Pipe::default(),
        });
        if twin.is_none() {
            self.lines[device].current[at(role)] = Some(link);
        }
        self.queue.plan(self.now, Event::Dial { link, again: 0 });
    }

    /// A handshake leaves the device, or its kernel tries again.
    pub(super) fn dial(&mut self, link: usize, again: u32) -> Result<(), Broken> {
        if self.links[link].device_gone {
            self.links[link].state = State::Over;
            return Ok(());
        }
        let route = self.route(link);
        let delay = self.delay(link);
        let site = self.links[link].site;
        if self.weather.refused(route) {
            self.fire(&Fault::Refuse { path: crate::scenario::Path::Device(self.links[link].device) });
            self.queue.plan(self.now + delay, Event::Answered { link, admitted: false });
            return Ok(());
        }
        let gone = self.weather.cut(route, true)
            || self.weather.cut(route, false)
            || self.weather.held(route)
            || !self.nodes[site].powered;
        if gone {
            let wait = Duration::from_secs(1 << again.min(SYN_TRIES));
            if again < SYN_TRIES {
                self.queue.plan(self.now + wait, Event::Dial { link, again: again + 1 });
            } else {
                self.queue.plan(self.now + wait, Event::Answered { link, admitted: false });
            }
            return Ok(());
        }
        self.queue.plan(self.now + delay, Event::Knocked { link });
        Ok(())
    }

    /// A handshake reached the site.
    pub(super) fn knocked(&mut self, link: usize) -> Result<(), Broken> {
        let site = self.links[link].site;
        if !self.nodes[site].up {
            // Nobody listens: refused at once.
            let delay = self.delay(link);
            self.queue.plan(self.now + delay, Event::Answered { link, admitted: false });
            return Ok(());
        }
        self.links[link].knocked = true;
        self.letter(site, Letter::Knock { link })
    }

    /// The site admitted a link, or turned it away.
    pub(super) fn answers(&mut self, link: usize, conn: Option<ConnId>) -> Result<(), Broken> {
        let site = self.links[link].site;
        if let Some(conn) = conn {
            self.links[link].conn = Some(conn);
            if self.links[link].device_gone || self.links[link].state == State::Over {
                // The socket went while it was being admitted.
                self.links[link].site_gone = true;
                self.links[link].state = State::Over;
                return self.letter(site, Letter::Input(Input::Lost { conn, why: LostWhy::Broken }));
            }
            self.nodes[site].conns.insert(conn, link);
            self.links[link].state = State::Open;
        }
        let arrives = self.arrival(link, false);
        let route = self.route(link);
        if self.weather.cut(route, false) {
            self.mute(link, true, true);
        } else {
            self.queue.plan(arrives, Event::Answered { link, admitted: conn.is_some() });
        }
        Ok(())
    }

    /// The answer to a handshake reached the device.
    pub(super) fn answered(&mut self, link: usize, admitted: bool) -> Result<(), Broken> {
        let (device, role, twin) = (self.links[link].device, self.links[link].role, self.links[link].twin);
        if self.links[link].device_gone {
            return Ok(());
        }
        if !admitted {
            self.links[link].device_gone = true;
            self.links[link].state = State::Over;
        }
        if let Some(fault) = twin {
            if admitted {
                self.twin_opened(link);
            } else {
                self.twin_again(fault, device, role);
            }
            return Ok(());
        }
        if self.lines[device].current[at(role)] != Some(link) {
            // The program that dialled is gone, and its kernel closes what it left.
            if admitted {
                self.device_ends(link, LostWhy::Broken);
            }
            return Ok(());
        }
        if !admitted {
            self.lines[device].current[at(role)] = None;
            return self.device(device, |device, now, asks| device.declined(now, role, asks));
        }
        self.links[link].opened = true;
        self.device(device, |device, now, asks| device.opened(now, role, asks))
    }

    fn arrival(&mut self, link: usize, up: bool) -> SimTime {
        let delay = self.delay(link);
        let pipe = if up { &mut self.links[link].up } else { &mut self.links[link].down };
        pipe.last = (self.now + delay).max(pipe.last + Duration::from_micros(1));
        pipe.last
    }

    /// A device's program sends a frame.
    pub(super) fn says(&mut self, device: usize, role: Role, text: String) {
        let Some(link) = self.lines[device].current[at(role)] else { return };
        let conn = self.links[link].conn;
        let sent = &mut self.lines[device].sent[at(role)];
        if sent.len() == REMEMBERED {
            sent.pop_front();
        }
        sent.push_back((conn, text.clone()));
        self.send_up(link, text);
    }

    pub(super) fn send_up(&mut self, link: usize, text: String) {
        if self.links[link].device_gone || self.links[link].state != State::Open || self.links[link].up.dead {
            return;
        }
        let route = self.route(link);
        if !self.weather.is_calm() {
            if self.weather.cut(route, true) {
                self.mute(link, true, false);
                return;
            }
            if self.weather.held(route) {
                self.links[link].up.held.push_back(text);
                return;
            }
        }
        let arrives = self.arrival(link, true);
        self.queue.plan(arrives, Event::Up { link, text });
    }

    /// A frame reached the site.
    pub(super) fn up(&mut self, link: usize, text: &str) -> Result<(), Broken> {
        let (Some(conn), false) = (self.links[link].conn, self.links[link].site_gone) else { return Ok(()) };
        self.say(Who::Device(self.links[link].device), "→", || cut(text));
        self.hear(link, conn, text)
    }

    fn hear(&mut self, link: usize, conn: ConnId, text: &str) -> Result<(), Broken> {
        let (site, role) = (self.links[link].site, self.links[link].role);
        let input = match role {
            Role::Recorder => {
                recorder::decode(text.as_bytes()).map(|message| Input::Recorder { conn, message })
            }
            Role::Transfer => {
                transfer::decode(text.as_bytes()).map(|message| Input::Transfer { conn, message })
            }
        };
        match input {
            Ok(input) => self.letter(site, Letter::Input(input)),
            // Counted and dropped at the edge.
            Err(_) => Ok(()),
        }
    }

    /// The site sends a frame.
    pub(super) fn send_down(&mut self, link: usize, text: String) -> Result<(), Broken> {
        if self.links[link].site_gone || self.links[link].down.dead {
            return Ok(());
        }
        let route = self.route(link);
        if !self.weather.is_calm() {
            if self.weather.cut(route, false) {
                self.mute(link, false, true);
                return Ok(());
            }
            if self.weather.held(route) {
                self.links[link].down.held.push_back(text);
                if self.links[link].down.held.len() > OUTBOUND {
                    return self.site_ends(link, LostWhy::Stuck);
                }
                return Ok(());
            }
        }
        let arrives = self.arrival(link, false);
        self.queue.plan(arrives, Event::Down { link, text });
        Ok(())
    }

    /// A frame reached the device.
    pub(super) fn down(&mut self, link: usize, text: &str) -> Result<(), Broken> {
        let (device, role) = (self.links[link].device, self.links[link].role);
        if self.links[link].device_gone {
            return Ok(());
        }
        self.say(Who::Device(device), "←", || cut(text));
        if self.links[link].twin.is_some() {
            self.twin_heard(link, text);
            return Ok(());
        }
        self.device(device, |device, now, asks| device.heard(now, role, text, asks))
    }

    /// A device's program closes its link, or dies with it (a FIN follows what it sent).
    pub(super) fn hangs_up(&mut self, device: usize, role: Role) {
        if let Some(link) = self.lines[device].current[at(role)].take() {
            self.device_ends(link, LostWhy::Closed);
        }
    }

    /// The device's side of a link is over.
    pub(super) fn device_ends(&mut self, link: usize, why: LostWhy) {
        let (device, role) = (self.links[link].device, self.links[link].role);
        self.links[link].device_gone = true;
        if self.lines[device].current[at(role)] == Some(link) {
            self.lines[device].current[at(role)] = None;
        }
        let route = self.route(link);
        if self.links[link].up.dead || self.weather.cut(route, true) {
            return self.mute(link, true, false);
        }
        let arrives = self.arrival(link, true);
        self.queue.plan(arrives, Event::UpEnd { link, why });
    }

    /// The end of a link reached the site.
    pub(super) fn up_end(&mut self, link: usize, why: LostWhy) -> Result<(), Broken> {
        if self.weather.held(self.route(link)) {
            // It waits like everything else.
            self.queue.plan(self.now + Duration::from_secs(1), Event::UpEnd { link, why });
            return Ok(());
        }
        self.lost(link, why)
    }

    /// The site learns that a link is gone; said once.
    fn lost(&mut self, link: usize, why: LostWhy) -> Result<(), Broken> {
        if self.links[link].site_gone {
            return Ok(());
        }
        self.links[link].site_gone = true;
        let site = self.links[link].site;
        match self.links[link].conn {
            Some(conn) => {
                self.nodes[site].conns.remove(&conn);
                self.letter(site, Letter::Input(Input::Lost { conn, why }))
            }
            None => Ok(()),
        }
    }

    /// The site's edge gives a link up: it is silent or stuck.
    fn site_ends(&mut self, link: usize, why: LostWhy) -> Result<(), Broken> {
        self.lost(link, why)?;
        self.tell_device(link, LinkEnd::Broken);
        Ok(())
    }

    /// The core closed a link.
    pub(super) fn closes(&mut self, link: usize, code: u16) -> Result<(), Broken> {
        self.tell_device(link, LinkEnd::Closed(code));
        let (device, site) = (self.links[link].device, self.links[link].site);
        if let Some(conn) = self.links[link].conn {
            self.nodes[site].conns.remove(&conn);
        }
        // The writer may be in the middle of a frame that nobody takes. Until it is through, what the device said still
        // comes in, and the loss is not reported.
        let stuck = self.links[link].down.dead || self.weather.held(self.route(link));
        let wait = if stuck {
            WRITE
        } else {
            self.lines[device].luck.duration(Duration::ZERO, Duration::from_millis(5))
        };
        self.queue.plan(self.now + wait, Event::Closed { link });
        Ok(())
    }

    /// The site is through with a link that the core closed.
    pub(super) fn closed(&mut self, link: usize) -> Result<(), Broken> {
        self.lost(link, LostWhy::Closed)
    }

    /// The end of a link is on its way to the device.
    pub(super) fn tell_device(&mut self, link: usize, end: LinkEnd) {
        if self.links[link].device_gone || self.links[link].down.dead {
            return;
        }
        let route = self.route(link);
        if self.weather.cut(route, false) {
            return self.mute(link, false, true);
        }
        let arrives = self.arrival(link, false);
        self.queue.plan(arrives, Event::DownEnd { link, end });
    }

    /// The end of a link reached the device.
    pub(super) fn down_end(&mut self, link: usize, end: LinkEnd) -> Result<(), Broken> {
        if self.links[link].device_gone {
            return Ok(());
        }
        if self.weather.held(self.route(link)) {
            self.queue.plan(self.now + Duration::from_secs(1), Event::DownEnd { link, end });
            return Ok(());
        }
        self.device_gone(link, end)
    }

    fn device_gone(&mut self, link: usize, end: LinkEnd) -> Result<(), Broken> {
        let (device, role, twin) = (self.links[link].device, self.links[link].role, self.links[link].twin);
        self.links[link].device_gone = true;
        if let Some(fault) = twin {
            self.twin_again(fault, device, role);
            return Ok(());
        }
        if self.lines[device].current[at(role)] == Some(link) {
            self.lines[device].current[at(role)] = None;
        }
        if !self.links[link].opened {
            // It still waits for the answer to its handshake: its kernel tells it that none will come.
            self.links[link].state = State::Over;
            return self.device(device, |device, now, asks| device.declined(now, role, asks));
        }
        self.device(device, |device, now, asks| device.ended(now, role, end, asks))
    }

    /// From now on a direction delivers nothing, for ever; whoever listens there will notice in time.
    pub(super) fn mute(&mut self, link: usize, up: bool, down: bool) {
        let now = self.now;
        let entry = &mut self.links[link];
        entry.up.dead |= up;
        entry.down.dead |= down;
        if up {
            self.hush(link, true, now);
        }
        // A device's pings go up and their pongs come down.
        self.hush(link, false, now);
    }

    /// One side hears nothing from now on, until something changes that.
    fn hush(&mut self, link: usize, at_site: bool, since: SimTime) {
        let role = self.links[link].role;
        let device = self.links[link].device;
        let pipe = if at_site { &mut self.links[link].up } else { &mut self.links[link].down };
        if pipe.quiet.is_some() {
            return;
        }
        pipe.quiet = Some(since);
        let luck = &mut self.lines[device].luck;
        let wait = if at_site {
            // The last sign of life was up to one interval ago.
            patience(role) - luck.duration(Duration::ZERO, Duration::from_secs(25))
        } else {
            luck.duration(Duration::from_secs(10), Duration::from_secs(40))
        };
        self.queue.plan(since + wait, Event::Quiet { link, at_site, since });
    }

    /// One side of a link may have waited long enough.
    pub(super) fn quiet(&mut self, link: usize, at_site: bool, since: SimTime) -> Result<(), Broken> {
        let pipe = if at_site { &self.links[link].up } else { &self.links[link].down };
        if pipe.quiet != Some(since) {
            return Ok(());
        }
        if at_site {
            let site = self.links[link].site;
            if self.nodes[site].paused {
                self.queue.plan(self.now + Duration::from_secs(1), Event::Quiet { link, at_site, since });
                return Ok(());
            }
            if !self.links[link].site_gone && self.links[link].conn.is_some() {
                return self.site_ends(link, LostWhy::Silent);
            }
            return Ok(());
        }
        if self.links[link].device_gone {
            return Ok(());
        }
        let route = self.route(link);
        if self.weather.cut(route, true) || self.weather.cut(route, false) {
            // Stock programs block in the closing handshake until the way is back or the kernel gives up.
            let device = self.links[link].device;
            let wait = self.lines[device].luck.duration(Duration::from_secs(5), Duration::from_secs(30));
            self.queue.plan(self.now + wait, Event::Quiet { link, at_site, since });
            return Ok(());
        }
        self.device_ends(link, LostWhy::Broken);
        self.links[link].device_gone = false;
        self.device_gone(link, LinkEnd::Silent)
    }

    /// A fault that holds or cuts links began: those who hear nothing from now on will notice.
    pub(super) fn hush_all(&mut self, on: impl Fn(Route) -> bool, dead: Option<(bool, bool)>) {
        let now = self.now;
        for link in 0..self.links.len() {
            if self.links[link].state != State::Open || !on(self.route(link)) {
                continue;
            }
            match dead {
                Some((up, down)) => self.mute(link, up, down),
                None => {
                    self.hush(link, true, now);
                    self.hush(link, false, now);
                }
            }
        }
    }

    /// A fault that held links ended: what waited passes, in order.
    pub(super) fn release_all(&mut self) -> Result<(), Broken> {
        for link in 0..self.links.len() {
            if self.links[link].state != State::Open || self.weather.held(self.route(link)) {
                continue;
            }
            if !self.links[link].up.dead && !self.links[link].down.dead {
                self.links[link].up.quiet = None;
                self.links[link].down.quiet = None;
            }
            for text in std::mem::take(&mut self.links[link].up.held) {
                self.send_up(link, text);
            }
            for text in std::mem::take(&mut self.links[link].down.held) {
                self.send_down(link, text)?;
            }
        }
        Ok(())
    }

    /// Open connections are reset.
    pub(super) fn reset_all(&mut self, on: impl Fn(Route) -> bool) -> Result<bool, Broken> {
        let mut any = false;
        for link in 0..self.links.len() {
            if self.links[link].state != State::Open || !on(self.route(link)) {
                continue;
            }
            if !self.links[link].device_gone {
                any = true;
                self.device_gone(link, LinkEnd::Broken)?;
            }
            self.lost(link, LostWhy::Broken)?;
            self.links[link].state = State::Over;
        }
        Ok(any)
    }

    /// A device lost power, or one of its programs died: with a FIN if its kernel lives.
    pub(super) fn drop_links(&mut self, device: usize, role: Option<Role>, silently: bool) {
        for link in 0..self.links.len() {
            let of =
                self.links[link].device == device && role.is_none_or(|role| self.links[link].role == role);
            if !of || self.links[link].device_gone || self.links[link].twin.is_some() {
                continue;
            }
            let role = self.links[link].role;
            self.lines[device].current[at(role)] = None;
            if silently {
                self.links[link].device_gone = true;
                self.mute(link, true, true);
            } else {
                self.device_ends(link, LostWhy::Broken);
            }
        }
    }

    /// Messages of earlier and present connections arrive again, out of order.
    pub(super) fn replay(&mut self, device: usize, role: Role, count: u32) -> Result<bool, Broken> {
        let mut sent: Vec<_> = self.lines[device].sent[at(role)].iter().cloned().collect();
        let from = sent.len().saturating_sub(usize::try_from(count).unwrap_or(REMEMBERED));
        let mut sent = sent.split_off(from);
        self.lines[device].luck.shuffle(&mut sent);
        let site = self.devices[device].spec.site;
        let mut any = false;
        for (conn, text) in sent {
            let Some(conn) = conn else { continue };
            // Only a process that gave out this connection can still hold messages of it.
            if !self.nodes[site].up || conn.boot.0 != self.nodes[site].boot {
                continue;
            }
            let Some(link) = self.links.iter().position(|link| link.conn == Some(conn) && link.site == site)
            else {
                continue;
            };
            if !self.links[link].site_gone {
                // On the present connection only a broken proxy repeats a message.
                self.devices[device].honest = false;
            }
            any = true;
            self.hear(link, conn, &text)?;
        }
        Ok(any)
    }
}

fn cut(text: &str) -> String {
    let text = text.trim_end();
    if text.len() <= 180 { text.to_string() } else { text.chars().take(180).collect::<String>() + "…" }
}

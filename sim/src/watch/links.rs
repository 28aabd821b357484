//! Links and belief, as seen from outside: I01 to I05, and the safe side of L4.
//!
//! A lying recorder voids none of these: they speak of what the site may conclude from what was said, not of whether it
//! is so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_core::change::{Change, RosterChange, TaskCause, TaskChange};
use tidegate_core::digest::Sha256;
use tidegate_core::effect::{CloseWhy, Effect, Notice, RecorderView, Response};
use tidegate_core::fact::Reported;
use tidegate_core::id::{Boot, ConnId, DeviceId, Role};
use tidegate_core::input::{Demand, Input, Request, RosterRequest};
use tidegate_core::limits;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::{Key, Row};
use tidegate_core::wire::RecorderMessage;

use super::fights::Fights;
use super::lines::{End, Heard, Holds, Lines, Rpc};
use super::{Broken, Happened, Premises, Seen, Truth, Watch, demand};

/// The watch over links.
#[derive(Debug, Default)]
pub struct Links {
    sites: Vec<Site>,
    premises: Premises,
}

/// What is remembered of one site.
#[derive(Debug, Default)]
struct Site {
    lines: Lines,
    fights: Fights,
    boot: Option<Boot>,
    /// Over all boots.
    newest: Option<ConnId>,
    /// Links whose admission left the site, and whether their replacement left it, too.
    left: BTreeMap<ConnId, bool>,
    /// The tokens that proved links.
    proofs: BTreeMap<ConnId, Sha256>,
    /// From where recorders last proved themselves, and by which token.
    near: BTreeMap<DeviceId, (String, Sha256)>,
    /// Devices whose recorder viewers were last shown as confirmed.
    shown: BTreeSet<DeviceId>,
}

impl Site {
    /// The process is gone and its memory with it. What was ever given out is not.
    fn forget(&mut self) {
        self.lines = Lines::default();
        self.fights = Fights::default();
        self.left.clear();
        self.proofs.clear();
        self.near.clear();
        self.shown.clear();
    }
}

impl Watch for Links {
    fn step(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        if self.sites.len() <= seen.site {
            self.sites.resize_with(seen.site + 1, Site::default);
        }
        let (site, premises) = (&mut self.sites[seen.site], &mut self.premises);
        if let Input::Boot { boot, .. } = seen.input {
            demand("I02", site.boot.is_none_or(|last| last < *boot), || {
                format!("{boot:?} after {:?}", site.boot)
            })?;
            site.boot = Some(*boot);
            site.forget();
        }
        if let Input::Lost { conn, .. } = seen.input
            && let Some(line) = site.lines.get(*conn)
        {
            site.fights.ended(&line.device, line.role);
        }
        let heard = site.lines.input(seen);
        site.heard(seen, heard, premises)?;
        site.knocked(seen, premises)?;
        for effect in &seen.out.effects {
            site.effect(seen, heard, effect, premises)?;
        }
        site.proven(seen, premises)?;
        site.believed(seen, heard, premises)
    }

    fn happened(&mut self, _: &Truth<'_>, what: &Happened<'_>) -> Result<(), Broken> {
        match what {
            Happened::Down { site, .. } => {
                if let Some(site) = self.sites.get_mut(*site) {
                    site.forget();
                }
                Ok(())
            }
            Happened::Released { site, effect } => {
                self.sites.get_mut(*site).map_or(Ok(()), |site| site.released(effect))
            }
            Happened::Up { .. }
            | Happened::Undone { .. }
            | Happened::Called { .. }
            | Happened::Stepped { .. }
            | Happened::Tampered { .. } => Ok(()),
        }
    }

    fn end(&mut self, _: &Truth<'_>) -> Result<(), Broken> {
        Ok(())
    }

    fn premises(&self) -> &Premises {
        &self.premises
    }

    fn invariants(&self) -> &'static [&'static str] {
        &["I01", "I02", "I03", "I04", "I05", "L4"]
    }
}

impl Site {
    /// I02, I03, I05: what must come to nothing.
    fn heard(&self, seen: &Seen<'_>, heard: Heard, premises: &mut Premises) -> Result<(), Broken> {
        let out = seen.out;
        let nothing = || out.changes.is_empty() && out.rows.is_empty() && out.effects.is_empty();
        let saw = || format!("{:?} did something: {out:?}", seen.input);
        match (heard, seen.input) {
            // A close of an old generation must not be taken for one of the new.
            (Heard::Superseded, Input::Lost { .. }) => {
                premises.met("I02.late");
                demand("I02", nothing(), saw)
            }
            (Heard::Superseded, _) => {
                premises.met("I03");
                demand("I03", nothing(), saw)
            }
            (Heard::Older | Heard::Useless | Heard::Nothing, _) => {
                if heard != Heard::Nothing {
                    premises.met(if heard == Heard::Older { "I05.older" } else { "I05.useless" });
                    premises.met("I05");
                }
                let moved = out.changes.iter().any(|change| matches!(change, Change::Task(_)));
                demand("I05", !moved, saw)
            }
            (Heard::Unmatched | Heard::Told | Heard::Plain, _) => {
                let idle_with_task = match seen.input {
                    Input::Recorder {
                        message: RecorderMessage::StateUpdate { current, task, .. }, ..
                    } => {
                        task.is_some()
                            && current.as_deref().is_some_and(|w| Reported::of(w) == Reported::Idle)
                    }
                    _ => false,
                };
                if idle_with_task {
                    premises.met("I05.idle");
                }
                Ok(())
            }
        }
    }

    /// I01, L4: a newcomer is decided upon at once, and only lack of room, the end of the site, or a fight over a link that
    /// is up speaks against it. A fight that is paused does.
    fn knocked(&self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        let Input::Knock { socket, device, role, .. } = seen.input else { return Ok(()) };
        let known = self.lines.current(device, *role);
        if known.is_some() && !self.lines.stopping {
            premises.met("L4");
        }
        let paused = known.is_some() && self.fights.paused(device, *role, seen.now.mono);
        if paused {
            premises.met("L4.contested");
        }
        let mut decided = 0;
        for effect in &seen.out.effects {
            match effect {
                Effect::Admit { socket: s, .. } if s == socket => {
                    decided += 1;
                    demand("L4", !paused, || {
                        format!("{device} is taken from {known:?} in the midst of a fight")
                    })?;
                }
                Effect::TurnAway { socket: s, refusal } if s == socket => {
                    decided += 1;
                    let full = known.is_none() && self.lines.count(*role) >= limits::LINKS_MAX;
                    let fits = match refusal {
                        Refusal::Stopping => self.lines.stopping,
                        Refusal::Unauthorized => !may_enter(seen, &self.near),
                        Refusal::TooManyLinks => full,
                        Refusal::Contested { .. } => paused,
                        _ => false,
                    };
                    demand("L4", fits, || {
                        format!("{device} is turned away ({refusal:?}) while {known:?} is its link")
                    })?;
                }
                _ => {}
            }
        }
        demand("I01", decided == 1, || format!("{socket:?} of {device} was decided {decided} times"))
    }

    /// I32: nobody is let in without the proof that is demanded, and what a token proved goes with it. A device whose
    /// tokens were changed for others keeps its links.
    fn proven(&mut self, seen: &Seen<'_>, premises: &mut Premises) -> Result<(), Broken> {
        if let Input::Knock { device, role, remote, credential, demand: wanted, .. } = seen.input {
            let may = may_enter(seen, &self.near);
            for effect in &seen.out.effects {
                let Effect::Admit { conn, .. } = effect else { continue };
                demand("I32", may, || format!("{conn:?} is admitted on {:?}", seen.input))?;
                if *wanted != Demand::Nothing {
                    premises.met("I32");
                }
                if let Some(token) = credential.filter(|token| is_good(seen, token, device, *role)) {
                    self.proofs.insert(*conn, token);
                    if *role == Role::Recorder {
                        self.near.insert(device.clone(), (remote.clone(), token));
                    }
                }
            }
        }
        let rotated = matches!(
            seen.input,
            Input::Request { request: Request::Roster(RosterRequest::Rotate { .. }), .. }
        );
        for change in &seen.out.changes {
            let Change::Roster(RosterChange::TokenRevoked { token }) = change else { continue };
            let kept = self.proofs.iter().find(|(conn, by)| *by == token && self.lines.get(**conn).is_some());
            demand("I32", rotated || kept.is_none(), || format!("{kept:?} stays"))?;
        }
        Ok(())
    }

    fn effect(
        &mut self,
        seen: &Seen<'_>,
        heard: Heard,
        effect: &Effect,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        match effect {
            Effect::Admit { socket, conn } => self.admitted(seen, socket.0, *conn, premises),
            Effect::TurnAway { socket, .. } => {
                let knocked = matches!(seen.input, Input::Knock { socket: s, .. } if s == socket);
                demand("I01", knocked, || format!("{effect:?} on {:?}", seen.input))
            }
            Effect::Send { conn, frame } => {
                let line = self.lines.get(*conn);
                let Some(line) = line else {
                    return demand("I01", false, || format!("{frame:?} on {conn:?}, which is not current"));
                };
                if line.role == Role::Recorder
                    && let Some(rpc) = Rpc::read(&frame.text)
                {
                    self.lines.sent(*conn, rpc, seen.now.mono.after(seen.knobs.rpc_timeout()));
                }
                Ok(())
            }
            Effect::Close { conn, why } => self.closed(seen, *conn, *why),
            Effect::Reply { answer: Ok(Response::State(view)), .. } => self.view(heard, view, premises),
            Effect::Reply { answer: Err(Refusal::RefreshFailed { view, .. }), .. } => {
                self.view(heard, view, premises)
            }
            Effect::Publish(Notice::Recorder(view)) => {
                self.view(heard, view, premises)?;
                if view.confidence == "confirmed" {
                    self.shown.insert(view.device.clone());
                } else {
                    self.shown.remove(&view.device);
                }
                Ok(())
            }
            Effect::Publish(Notice::Link { device, role, link, .. }) => {
                let current = self.lines.current(device, *role);
                let same = current.map(ConnId::generation) == link.as_ref().map(|link| link.generation);
                demand("I02", same, || format!("{effect:?}, and {current:?} is current"))
            }
            // A pause begins with the takeover that is one too many; whether it does is asked of the next newcomer.
            Effect::Publish(Notice::Contest { device, role, contest }) => {
                let fits = match contest {
                    Some(_) => self.fights.paused(device, *role, seen.now.mono),
                    None => self.fights.calmed(device, *role, seen.now.mono),
                };
                demand("L4", fits, || format!("{effect:?}, and it is not so"))
            }
            Effect::Publish(_)
            | Effect::Reply { .. }
            | Effect::Object { .. }
            | Effect::Policy { .. }
            | Effect::Gate(_)
            | Effect::Freeze { .. }
            | Effect::Thaw { .. }
            | Effect::Grant { .. }
            | Effect::Bar { .. } => Ok(()),
        }
    }

    /// I01, I02: the newest wins, generations only rise, and the loser is told in the same step.
    fn admitted(
        &mut self,
        seen: &Seen<'_>,
        socket: u64,
        conn: ConnId,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Input::Knock { socket: knocked, device, role, remote, .. } = seen.input else {
            return demand("I01", false, || format!("{conn:?} is admitted on {:?}", seen.input));
        };
        demand("I01", knocked.0 == socket, || format!("socket {socket} is admitted for {knocked:?}"))?;
        let newer = self.newest.is_none_or(|newest| conn.generation() > newest.generation());
        demand("I02", newer && conn.boot == seen.boot, || format!("{conn:?} after {:?}", self.newest))?;
        premises.met("I02");
        self.newest = Some(conn);
        let pause = Duration::from_millis(seen.knobs.contest_pause_ms);
        self.fights.admitted(device, *role, remote, seen.now.mono, pause);
        let Some(old) = self.lines.admit(conn, device, *role) else { return Ok(()) };
        premises.met("I01");
        let closes = seen.out.effects.iter().filter(
            |effect| matches!(effect, Effect::Close { conn, why: CloseWhy::Replaced } if *conn == old),
        );
        let closes = closes.count();
        demand("I01", closes == 1, || format!("{old:?} of {device} was closed {closes} times for {conn:?}"))
    }

    fn closed(&self, seen: &Seen<'_>, conn: ConnId, why: CloseWhy) -> Result<(), Broken> {
        let fits = match (why, seen.input) {
            // Only the loser: it is older than the link that this knock made current, and current no longer.
            (CloseWhy::Replaced, Input::Knock { device, role, .. }) => {
                let winner = self.lines.current(device, *role);
                self.lines.get(conn).is_none() && winner.is_some_and(|winner| conn < winner)
            }
            (CloseWhy::GoingAway, _) => self.lines.stopping && self.lines.get(conn).is_some(),
            (CloseWhy::Revoked, Input::Request { request: Request::Roster(_), .. }) => {
                self.lines.get(conn).is_none()
            }
            (CloseWhy::Replaced | CloseWhy::Quarantined | CloseWhy::Revoked, _) => false,
        };
        demand("I01", fits, || format!("{conn:?} is closed as {why:?} on {:?}", seen.input))
    }

    /// I02, I04, I05: what viewers are told of a recorder never claims more than what was said allows.
    fn view(&self, heard: Heard, view: &RecorderView, premises: &mut Premises) -> Result<(), Broken> {
        let confirmed = view.confidence == "confirmed";
        demand("I04", confirmed == view.synced, || format!("one word against the other: {view:?}"))?;
        let conn = self.lines.current(&view.device, Role::Recorder);
        if view.connected {
            let same = conn.map(ConnId::generation) == Some(view.generation);
            demand("I02", same, || format!("{view:?}, and {conn:?} is current"))?;
        }
        if !confirmed {
            return Ok(());
        }
        let Some(line) = conn.and_then(|conn| self.lines.get(conn)).filter(|_| view.connected) else {
            return demand("I04", false, || format!("confirmed without a link: {view:?}"));
        };
        let blame = match heard {
            Heard::Older | Heard::Useless => "I05",
            // Whatever an answer after the end does, it is that it does something.
            Heard::Unmatched => "I07",
            Heard::Superseded | Heard::Nothing | Heard::Told | Heard::Plain => "I04",
        };
        demand(blame, line.counts(), || format!("confirmed by nothing: {view:?}; {line:?}"))?;
        let state = Reported::of(&view.state);
        let report = line.report();
        let same = report.is_some_and(|report| report.state == state);
        demand(blame, same, || format!("shows {view:?}; it said {report:?}"))?;
        let task = match report.map(|report| &report.holds) {
            Some(Holds::Task(task)) => *task == view.task,
            Some(Holds::Nothing) => view.task.is_empty(),
            Some(Holds::Unsaid) | None => true,
        };
        demand("I05", task, || format!("names another task: {view:?}; it said {report:?}"))?;
        premises.met("I04");
        Ok(())
    }

    /// I02, I04, I05 at the end of a step: doubts are shown, the current link is heard, and only belief moves a task.
    fn believed(&self, seen: &Seen<'_>, heard: Heard, premises: &mut Premises) -> Result<(), Broken> {
        for device in &self.lines.touched {
            let counts = self.lines.recorder(device).is_some_and(super::lines::Line::counts);
            if !counts {
                premises.met("I04.dropped");
            }
            // A command of which nobody heard in time may have been done: whoever goes on believing takes unknown for no.
            let unknown = self.lines.ended.iter().any(|ended| {
                ended.device == *device && ended.end == End::TimedOut && ended.rpc.action.mutates()
            });
            let blame = if unknown { "I08" } else { "I04" };
            demand(blame, counts || !self.shown.contains(device), || {
                format!("{device} is still shown as confirmed after {:?}", seen.input)
            })?;
        }
        if let (Heard::Told, Input::Recorder { conn, .. }) = (heard, seen.input) {
            let device = self.lines.get(*conn).map(|line| &line.device);
            let shown = device.is_some_and(|device| self.shown.contains(device));
            demand("I02", shown, || format!("{conn:?} is current and was not heard: {:?}", seen.input))?;
        }
        for line in self.lines.greeted.iter().filter_map(|conn| self.lines.get(*conn)) {
            premises.met("I04.greeted");
            demand("I04", !line.counts() || self.shown.contains(&line.device), || {
                format!("{} greeted, its question failed, and it is not believed", line.device)
            })?;
        }
        for change in &seen.out.changes {
            if let Change::Task(TaskChange::Readied { cause: TaskCause::ConfigApplied, .. }) = change {
                let counts = match seen.input {
                    Input::Recorder { conn, .. } => {
                        self.lines.get(*conn).is_some_and(super::lines::Line::counts)
                    }
                    _ => false,
                };
                demand("I05", counts, || format!("{change:?} by a link that is not believed"))?;
            }
            let (task, advanced) = match change {
                Change::Task(TaskChange::Readied { task, cause: TaskCause::Report, .. }) => (task, false),
                Change::Task(TaskChange::Started { task, cause: TaskCause::Report, .. }) => (task, true),
                _ => continue,
            };
            let line = match seen.input {
                Input::Recorder { conn, .. } => self.lines.get(*conn),
                // Silence confirmed what it said when it came.
                Input::Wake => match seen.rows.get(&Key::Task(task.clone())) {
                    Some(Row::Task(row)) => {
                        let greeted = self.lines.greeted.iter().filter_map(|conn| self.lines.get(*conn));
                        greeted.into_iter().find(|line| line.device == row.device)
                    }
                    _ => None,
                },
                _ => None,
            };
            let said = line.filter(|line| line.counts()).and_then(|line| line.report());
            let state = said.is_some_and(|report| match report.state {
                Reported::Ready => !advanced,
                Reported::Recording | Reported::Paused => advanced,
                Reported::Idle | Reported::Other => false,
            });
            let own = match (seen.rows.get(&Key::Task(task.clone())), said.map(|report| &report.holds)) {
                (Some(Row::Task(row)), Some(Holds::Task(wire))) => {
                    row.wire.as_str() == wire && line.is_some_and(|line| line.device == row.device)
                }
                (Some(Row::Task(_)), Some(Holds::Unsaid)) => true,
                _ => false,
            };
            demand("I05", state && own, || format!("{change:?} by {said:?} on {:?}", seen.input))?;
            premises.met("I05.moved");
        }
        Ok(())
    }

    /// I01 where it matters: nothing leaves on a link before its admission left, or after its replacement did.
    fn released(&mut self, effect: &Effect) -> Result<(), Broken> {
        match effect {
            Effect::Admit { conn, .. } => {
                let first = self.left.insert(*conn, false).is_none();
                demand("I01", first, || format!("{effect:?} left twice"))
            }
            Effect::Close { conn, why: CloseWhy::Replaced } => {
                let open = self.left.insert(*conn, true) == Some(false);
                demand("I01", open, || format!("{effect:?} left for a link that was not open"))
            }
            Effect::Send { conn, .. } => {
                let open = self.left.get(conn) == Some(&false);
                demand("I01", open, || format!("{effect:?} left on a link that was not open"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a token is good for a link of this program.
fn is_good(seen: &Seen<'_>, token: &Sha256, device: &DeviceId, role: Role) -> bool {
    matches!(seen.rows.get(&Key::Token(*token)), Some(Row::Token(row))
        if row.device.as_ref() == Some(device) && row.scope.fits(role))
}

/// Whether whoever knocks has proven what its listener demands.
fn may_enter(seen: &Seen<'_>, near: &BTreeMap<DeviceId, (String, Sha256)>) -> bool {
    let Input::Knock { device, role, remote, credential, demand: wanted, .. } = seen.input else {
        return false;
    };
    let disabled = matches!(seen.rows.get(&Key::Device(device.clone())), Some(Row::Device(row))
        if row.disabled_at.is_some());
    let token = credential.is_some_and(|token| is_good(seen, &token, device, *role));
    let address = credential.is_none()
        && near
            .get(device)
            .is_some_and(|(from, by)| from == remote && is_good(seen, by, device, Role::Recorder));
    !disabled
        && match wanted {
            Demand::Nothing => true,
            Demand::Token => token,
            Demand::TokenOrAddress => token || (address && *role == Role::Transfer),
        }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;

//! Links of devices: admission, takeover, state confidence, commands. Owns no task, and nothing durable: all of it
//! is forgotten with the link or the boot.

mod confidence;
mod contest;
mod gate;
mod link;
mod revoked;
mod rpc;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;

use crate::bug::{Haunted, Replaced, planted};
use crate::cx::Cx;
use crate::effect::{CloseWhy, Effect, Frame, LinkView, Notice, RecorderView, Response};
use crate::fact::{Fact, Proof, Report, TransferFrame};
use crate::hub::confidence::{Confidence, Heard, Origin, Said};
use crate::hub::contest::Contest;
use crate::hub::gate::Verdict;
use crate::hub::link::{Link, Recorder, Transfer, Versions};
use crate::hub::rpc::{Answer, Asks, Calls, Over, Waiter, refuse};
use crate::id::{ConnId, DeviceId, RequestId, Role, SocketId, Ticket};
use crate::input::{Action, Command, Input, LostWhy, Request};
use crate::limits;
use crate::quarantine::Subject;
use crate::refusal::{Broken, Refusal};
use crate::timers::TimerKey;
use crate::wire::{RecorderMessage, TransferMessage};

/// Somebody who asks for a link.
#[derive(Clone, Copy, Debug)]
pub struct Knock<'a> {
    /// The socket.
    pub socket: SocketId,
    /// Who it says it is.
    pub device: &'a DeviceId,
    /// Which of its programs.
    pub role: Role,
    /// Where it comes from, for people.
    pub remote: &'a str,
    /// From which port, if that is known.
    pub port: Option<u16>,
    /// What proved it.
    pub proof: Proof,
}

/// The links of one site and what hangs on them.
#[derive(Debug, Default)]
pub struct Hub {
    /// Links admitted since the boot; the last one's number.
    admitted: u32,
    recorders: BTreeMap<DeviceId, Recorder>,
    transfers: BTreeMap<DeviceId, Transfer>,
    /// Every current link. What is not here is superseded.
    lines: BTreeMap<ConnId, (DeviceId, Role)>,
    /// Every RPC that waits for its answer, and on which link.
    waiting: BTreeMap<Ticket, ConnId>,
    /// Devices whose recorder says that it records. Kept beside the recorders because every step asks for their number.
    recording: BTreeSet<DeviceId>,
    versions: Versions,
    unmatched: u64,
    replaced: Replaced,
    haunted: Haunted,
    #[cfg(tidegate_bugs)]
    pub(crate) bug: Option<crate::bug::Bug>,
}

impl Hub {
    /// A device's program asks for a link. The newest wins at once: half-open sockets live for minutes. Only if programs
    /// displace each other again and again, the one that has the link keeps it for a while.
    pub fn on_knock(&mut self, cx: &mut Cx<'_>, knock: Knock<'_>) {
        let Knock { socket, device, role, remote, port, proof } = knock;
        if cx.stopping {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::Stopping });
        }
        let (links, known) = match role {
            Role::Recorder => (self.recorders.len(), self.recorders.contains_key(device)),
            Role::Transfer => (self.transfers.len(), self.transfers.contains_key(device)),
        };
        // The bound of a role is ours; that of both together is what the machine can bear.
        let all = u32::try_from(self.recorders.len() + self.transfers.len()).unwrap_or(u32::MAX);
        let full = !known && (links >= limits::LINKS_MAX || all >= cx.knobs.links_max);
        if planted!(cx.knobs, B03) && known {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::TooManyLinks });
        }
        let Some(n) = self.admitted.checked_add(1).filter(|_| !full) else {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::TooManyLinks });
        };
        if let Some(retry_after_ms) = self.closed_for(cx, device, role) {
            return cx.effect(Effect::TurnAway { socket, refusal: Refusal::Contested { retry_after_ms } });
        }
        self.admitted = n;
        let conn = ConnId { boot: cx.boot(), n };
        cx.effect(Effect::Admit { socket, conn });
        let contest = Contest::default();
        let mut link = Link { conn, remote: remote.to_string(), port, since: cx.now.wall, proof, contest };
        let view = link.view();
        let (mut fought, mut old) = (false, None);
        match role {
            Role::Recorder => {
                old = self.recorders.remove(device);
                if let Some(old) = &mut old {
                    fought = self.succeed(cx, device, role, &mut old.link, &mut link);
                    self.recording.remove(device);
                }
                let recorder = Recorder {
                    link,
                    confidence: Confidence::new(cx.now),
                    calls: Calls::default(),
                    unsettled: false,
                };
                self.recorders.insert(device.clone(), recorder);
            }
            Role::Transfer => {
                if let Some(mut old) = self.transfers.remove(device) {
                    fought = self.succeed(cx, device, role, &mut old.link, &mut link);
                }
                self.transfers.insert(device.clone(), Transfer::new(link));
            }
        }
        self.lines.insert(conn, (device.clone(), role));
        // Only now: those who wait for a state are told of the new link.
        if let Some(mut old) = old {
            self.end_calls(cx, device, &mut old, Over::Lost);
        }
        cx.tell(Fact::LinkUp { device: device.clone(), role, conn, remote: remote.to_string(), proof });
        self.publish_link(cx, device, role, Some(view), None);
        if fought {
            self.publish_contest(cx, device, role);
        }
        if role == Role::Recorder {
            self.ask_state(cx, device, None);
            self.publish_recorder(cx, device, false);
        }
    }

    fn link(&self, device: &DeviceId, role: Role) -> Option<&Link> {
        match role {
            Role::Recorder => self.recorders.get(device).map(|recorder| &recorder.link),
            Role::Transfer => self.transfers.get(device).map(|transfer| &transfer.link),
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let recorders = self.recorders.values().map(|recorder| &recorder.link);
        recorders.chain(self.transfers.values().map(|transfer| &transfer.link))
    }

    fn supersede(&mut self, cx: &mut Cx<'_>, old: ConnId, new: ConnId) {
        assert!(old < new, "I02: {new:?} takes over from {old:?}");
        if let Some((device, role)) = self.lines.remove(&old)
            && planted!(cx.knobs, B01 | B02)
        {
            self.replaced.put(old, &device, role);
        }
        cx.effect(Effect::Close { conn: old, why: CloseWhy::Replaced });
        if planted!(cx.knobs, X11) {
            cx.effect(Effect::Close { conn: new, why: CloseWhy::Replaced });
        }
    }

    /// Whether this link is its device's current one. Everything said on any other is dropped at the door.
    #[must_use]
    pub fn is_current(&self, conn: ConnId, role: Role) -> bool {
        self.lines.get(&conn).is_some_and(|(_, known)| *known == role)
            || (planted!(self, B02) && self.replaced.whose(conn).is_some_and(|(_, known)| known == role))
    }

    /// A current recorder link said something.
    pub fn on_recorder(&mut self, cx: &mut Cx<'_>, conn: ConnId, message: &RecorderMessage) {
        let Some(device) = self.device(conn) else { return };
        match message {
            RecorderMessage::StateUpdate { timestamp_ms, previous, current, task } => {
                let said = Said {
                    state: current.as_deref(),
                    previous: previous.as_deref(),
                    task: task.as_deref(),
                    timestamp_ms: *timestamp_ms,
                    data: None,
                };
                self.hear(cx, &device, Origin::Push, said);
            }
            // A recorder that comes back says what it queued for its old link first.
            RecorderMessage::ConfigApplied { task: Some(task) }
                if self.is_confirmed(&device) || planted!(cx.knobs, X43) =>
            {
                cx.tell(Fact::ConfigApplied { device, task: task.clone() });
            }
            RecorderMessage::Response { request_id, success, message, state, task, data } => {
                let answer = Answer {
                    request_id,
                    success: *success,
                    message: message.as_deref(),
                    state: state.as_deref(),
                    task: task.as_deref(),
                    data: data.as_deref(),
                };
                self.on_answer(cx, &device, answer);
            }
            RecorderMessage::Other(kind) if planted!(cx.knobs, X26) => {
                unreachable!("no recorder says {kind}");
            }
            RecorderMessage::ConfigApplied { .. } | RecorderMessage::Other(_) => {}
        }
    }

    /// A current uploader link said something.
    pub fn on_transfer(&mut self, cx: &mut Cx<'_>, conn: ConnId, message: &TransferMessage) {
        let Some(device) = self.device(conn) else { return };
        if let Some(transfer) = self.transfers.get_mut(&device) {
            transfer.said(message, cx.now.mono);
        }
        if let TransferMessage::Status(status) = message {
            let version = self.next_version(&device);
            cx.publish(Notice::Transfer { device: device.clone(), status: status.clone(), version });
        }
        cx.tell(Fact::TransferSaid { device, conn, message: Box::new(message.clone()) });
    }

    /// A link is gone. False if it is not a current one: then nothing changed.
    pub fn on_lost(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: LostWhy) -> bool {
        let conn = if planted!(cx.knobs, B01) { self.newest(conn) } else { conn };
        self.take_down(cx, conn, why.name())
    }

    fn take_down(&mut self, cx: &mut Cx<'_>, conn: ConnId, why: &'static str) -> bool {
        let Some((device, role)) = self.lines.remove(&conn) else { return false };
        let link = match role {
            Role::Recorder => {
                let mut recorder = self.recorders.remove(&device).expect("I01: its link is current");
                self.end_calls(cx, &device, &mut recorder, Over::Lost);
                self.recording.remove(&device);
                recorder.link
            }
            Role::Transfer => self.transfers.remove(&device).expect("I01: its link is current").link,
        };
        cx.tell(Fact::LinkDown { device: device.clone(), role });
        self.publish_link(cx, &device, role, None, Some(why));
        if link.contest.is_fight() {
            if planted!(cx.knobs, X41) {
                self.haunted.put(&device, role, cx.now.mono.after(limits::CONTEST_PAUSE_MAX));
            }
            cx.disarm(&TimerKey::Contest(conn));
            self.publish_contest(cx, &device, role);
        }
        if role == Role::Recorder {
            self.publish_recorder(cx, &device, false);
        }
        true
    }

    /// What this link's device says, or what would be done about it, made the core panic too often: the link is
    /// closed. False if it is not a current one.
    pub fn on_quarantined(&mut self, cx: &mut Cx<'_>, conn: ConnId, reason: &str) -> bool {
        let Some((device, _)) = self.lines.get(&conn).cloned() else { return false };
        self.on_lost(cx, conn, LostWhy::Protocol);
        cx.effect(Effect::Close { conn, why: CloseWhy::Quarantined });
        cx.publish(Notice::Refused { device, code: "quarantined", detail: reason.to_string() });
        true
    }

    /// Whose link this is, and of which program, if it is a current one.
    pub(crate) fn line(&self, conn: ConnId) -> Option<&(DeviceId, Role)> {
        self.lines.get(&conn)
    }

    /// The link on which a call waits for its answer.
    pub(crate) fn link_of_call(&self, ticket: Ticket) -> Option<ConnId> {
        self.waiting.get(&ticket).copied()
    }

    /// The link its device has now.
    fn newest(&self, conn: ConnId) -> ConnId {
        let Some(line) = self.replaced.whose(conn) else { return conn };
        self.lines.iter().find(|(_, known)| **known == line).map_or(conn, |(newest, _)| *newest)
    }

    /// Somebody sent `config`, `get_state` or `get_stats`. Every other command goes to the tasks first.
    pub fn on_command(&mut self, cx: &mut Cx<'_>, command: Command) {
        match command.action {
            Action::Config => {
                if let Some(command) = self.judged(cx, command) {
                    cx.tell(Fact::CommandGated(command));
                }
            }
            Action::GetState | Action::GetStats => self.send_command(cx, command),
            Action::Begin
            | Action::Finish
            | Action::Pause
            | Action::Resume
            | Action::Cancel
            | Action::Clear
            | Action::Quit => {
                refuse(cx, &command, Refusal::Internal("a command came to the hub before the tasks"));
            }
        }
    }

    /// The tasks have no objection to a command: send it, if the device's state permits it.
    pub fn on_command_cleared(&mut self, cx: &mut Cx<'_>, command: Command) {
        if let Some(command) = self.judged(cx, command) {
            self.send_command(cx, command);
        }
    }

    /// Passes a command through the gates. `None` if it was refused, or waits for a fresh state.
    fn judged(&mut self, cx: &mut Cx<'_>, command: Command) -> Option<Command> {
        if cx.stopping {
            refuse(cx, &command, Refusal::Stopping);
            return None;
        }
        let view = gate::View {
            recorder: self.recorders.get(&command.device),
            transfer: self.transfers.contains_key(&command.device),
            now: cx.now,
            fresh_ms: cx.knobs.fresh_ms,
        };
        match gate::judge(&view, &command) {
            Verdict::Pass => return Some(command),
            Verdict::No(refusal) if planted!(cx.knobs, B05) && *refusal == Refusal::StateSyncing => {
                return Some(command);
            }
            Verdict::No(refusal) => refuse(cx, &command, *refusal),
            Verdict::Refresh => {
                let device = command.device.clone();
                self.ask_state(cx, &device, Some(Waiter::Gate(command)));
            }
        }
        None
    }

    /// A command that waited for a fresh state is judged by it; its task may have moved meanwhile, so the tasks are
    /// asked (again) before it is sent.
    fn go_on(&mut self, cx: &mut Cx<'_>, command: Command) {
        if let Some(command) = self.judged(cx, command) {
            if planted!(cx.knobs, H01) && command.action != Action::Config {
                return self.send_command(cx, command);
            }
            cx.tell(Fact::CommandGated(command));
        }
    }

    /// Somebody wants a recorder's state, no older than this.
    pub fn on_refresh(&mut self, cx: &mut Cx<'_>, reply: RequestId, device: &DeviceId, max_age_ms: u64) {
        let fresh = match self.recorders.get(device) {
            None => true,
            Some(recorder) => recorder.confidence.is_fresh(cx.now, max_age_ms),
        };
        if fresh {
            let view = self.view(cx, device, true);
            cx.reply(reply, Ok(Response::State(view)));
        } else {
            self.ask_state(cx, device, Some(Waiter::Refresh(reply)));
        }
    }

    /// Says something to a device's uploader, if it is connected.
    pub fn on_transfer_frame(&mut self, cx: &mut Cx<'_>, device: &DeviceId, frame: &TransferFrame) {
        let Some(transfer) = self.transfers.get_mut(device) else { return };
        let send = match frame {
            TransferFrame::StatusQuery => transfer.ask_status(cx.now.mono),
            TransferFrame::UploadRequest { .. }
            | TransferFrame::UploadAck { .. }
            | TransferFrame::UploadAll
            | TransferFrame::Cancel { .. } => true,
        };
        if send {
            let text = crate::wire::transfer::encode(frame);
            cx.send(transfer.link.conn, Frame { text, secret: None });
        }
    }

    /// It is time to ask a recorder for its state again.
    pub fn on_sync_due(&mut self, cx: &mut Cx<'_>, conn: ConnId) {
        let Some(device) = self.device(conn) else { return };
        if !cx.stopping {
            self.ask_state(cx, &device, None);
        }
    }

    /// The site stops: nobody waits any longer, and the devices are told to go.
    pub fn on_shutdown(&mut self, cx: &mut Cx<'_>) {
        let devices: Vec<DeviceId> = self.recorders.keys().cloned().collect();
        for device in devices {
            let Some(mut recorder) = self.recorders.remove(&device) else { continue };
            self.end_calls(cx, &device, &mut recorder, Over::Stopping);
            self.recorders.insert(device, recorder);
        }
        for conn in self.lines.keys() {
            cx.effect(Effect::Close { conn: *conn, why: CloseWhy::GoingAway });
        }
    }

    /// Devices that record, as far as we know; paused counts.
    #[must_use]
    pub fn recording(&self) -> u32 {
        u32::try_from(self.recording.len()).unwrap_or(u32::MAX)
    }

    /// Tickets of outstanding RPCs.
    #[must_use]
    pub fn calls(&self) -> Vec<Ticket> {
        self.waiting.keys().copied().collect()
    }

    /// Answers that fitted no outstanding RPC of their link, since the boot: late, repeated or made up.
    #[must_use]
    pub fn unmatched(&self) -> u64 {
        self.unmatched
    }

    /// Tasks that facts of this input may name although the input does not: those of commands in flight, and the one
    /// the recorder named last. The tasks need their records in memory before the step. `due` are the deadlines that a
    /// wake would deliver: of ten thousand calls that wait for their answers few ever time out.
    pub(crate) fn names<'k>(&self, input: &Input, due: impl Iterator<Item = &'k TimerKey>) -> Vec<&str> {
        let of_call = |key: &TimerKey| match key {
            TimerKey::Call(ticket) => self.waiting.get(ticket).copied(),
            TimerKey::Contest(_)
            | TimerKey::Grace(_)
            | TimerKey::Settle(_)
            | TimerKey::Sync(_)
            | TimerKey::Verify(..)
            | TimerKey::Remove
            | TimerKey::Inspect
            | TimerKey::Queue
            | TimerKey::Scan
            | TimerKey::Upload(_)
            | TimerKey::Janitor(_)
            | TimerKey::Uploader(_)
            | TimerKey::Overdue
            | TimerKey::Policy => None,
        };
        let of_device = |device: &DeviceId| self.recorders.get(device).into_iter().collect::<Vec<_>>();
        let of_link = |conn: &ConnId| match self.lines.get(conn) {
            None if planted!(self, B02) => {
                self.device(*conn).map_or_else(Vec::new, |device| of_device(&device))
            }
            line => line.map_or_else(Vec::new, |(device, _)| of_device(device)),
        };
        if planted!(self, H16) {
            return Vec::new();
        }
        let recorders = match input {
            Input::Recorder { conn, .. }
            | Input::Lost { conn, .. }
            | Input::Quarantined { subject: Subject::Frame { conn }, .. } => of_link(conn),
            Input::Knock { device, role: Role::Recorder, .. } => of_device(device),
            Input::Request { request: Request::Command(command), .. } => of_device(&command.device),
            Input::Wake => due.filter_map(of_call).flat_map(|conn| of_link(&conn)).collect(),
            Input::Quarantined { subject: Subject::Timer(key), .. } => {
                of_call(key).iter().flat_map(of_link).collect()
            }
            Input::Shutdown | Input::Quarantined { subject: Subject::Shutdown, .. } => {
                self.waiting.values().flat_map(of_link).collect()
            }
            Input::Boot { .. }
            | Input::Knock { role: Role::Transfer, .. }
            | Input::Transfer { .. }
            | Input::Request { .. }
            | Input::Object { .. }
            | Input::Stored { .. }
            | Input::Space { .. }
            | Input::Policy { .. }
            | Input::Surroundings(_)
            | Input::Quarantined {
                subject:
                    Subject::Knock { .. }
                    | Subject::Lost { .. }
                    | Subject::Request { .. }
                    | Subject::Object { .. }
                    | Subject::Policy { .. }
                    | Subject::Stored { .. },
                ..
            } => Vec::new(),
        };
        recorders.into_iter().flat_map(Recorder::names).collect()
    }

    /// Tasks that facts may name when the links of this device go, as [`Hub::names`].
    pub(crate) fn names_of(&self, device: &DeviceId) -> impl Iterator<Item = &str> {
        self.recorders.get(device).into_iter().flat_map(Recorder::names)
    }

    fn device(&self, conn: ConnId) -> Option<DeviceId> {
        if planted!(self, B02)
            && let Some((device, _)) = self.replaced.whose(conn)
        {
            return Some(device);
        }
        self.lines.get(&conn).map(|(device, _)| device.clone())
    }

    fn is_confirmed(&self, device: &DeviceId) -> bool {
        self.recorders.get(device).is_some_and(|recorder| recorder.confidence.is_confirmed())
    }

    /// A recorder said its state without being asked for it.
    fn hear(&mut self, cx: &mut Cx<'_>, device: &DeviceId, origin: Origin, said: Said<'_>) {
        let Some(recorder) = self.recorders.get_mut(device) else { return };
        let said = if planted!(cx.knobs, X16) { Said { timestamp_ms: None, ..said } } else { said };
        let said = if planted!(cx.knobs, X42) { Said { previous: None, ..said } } else { said };
        match recorder.confidence.hear(cx.now, origin, said) {
            Heard::Accepted(report) => self.accepted(cx, device, report),
            Heard::Provisional if planted!(cx.knobs, X01) => {
                if let Some(report) = recorder.confidence.answered(cx.now, said) {
                    self.accepted(cx, device, report);
                }
            }
            Heard::Provisional => {
                self.note_recording(device);
                self.publish_recorder(cx, device, false);
            }
            Heard::Unusable => {
                let again = TimerKey::Sync(recorder.link.conn);
                self.publish_recorder(cx, device, false);
                if cx.armed(&again).is_none() && !cx.stopping {
                    self.ask_state(cx, device, None);
                }
            }
            // Its clock was set back, or it sends old news: either way only an answer tells where it stands.
            Heard::Older if !cx.stopping => self.ask_state(cx, device, None),
            Heard::Older => {}
        }
    }

    fn accepted(&mut self, cx: &mut Cx<'_>, device: &DeviceId, report: Report) {
        let Some(recorder) = self.recorders.get_mut(device) else { return };
        let conn = recorder.link.conn;
        let calm = recorder.calls.iter().all(|call| match &call.asks {
            Asks::Command(command) => !command.action.mutates(),
            Asks::State(_) => true,
        });
        recorder.unsettled = !calm;
        cx.disarm(&TimerKey::Sync(conn));
        self.note_recording(device);
        cx.tell(Fact::RecorderReported { device: device.clone(), conn, report, calm });
        self.publish_recorder(cx, device, true);
    }

    fn note_recording(&mut self, device: &DeviceId) {
        if self.recorders.get(device).is_some_and(|recorder| recorder.confidence.records()) {
            self.recording.insert(device.clone());
        } else {
            self.recording.remove(device);
        }
    }

    fn view(&self, cx: &Cx<'_>, device: &DeviceId, fresh: bool) -> RecorderView {
        match self.recorders.get(device) {
            Some(recorder) => recorder.view(device, cx.now, fresh, self.versions.of(device)),
            None => self.disconnected(cx, device),
        }
    }

    fn disconnected(&self, cx: &Cx<'_>, device: &DeviceId) -> RecorderView {
        link::disconnected(device, cx.now, self.versions.of(device))
    }

    fn next_version(&mut self, device: &DeviceId) -> u64 {
        let Hub { versions, recorders, transfers, .. } = self;
        versions.next(device, |known| recorders.contains_key(known) || transfers.contains_key(known))
    }

    fn publish_recorder(&mut self, cx: &mut Cx<'_>, device: &DeviceId, fresh: bool) {
        self.next_version(device);
        let view = self.view(cx, device, fresh);
        cx.publish(Notice::Recorder(view));
    }

    fn publish_link(
        &mut self,
        cx: &mut Cx<'_>,
        device: &DeviceId,
        role: Role,
        link: Option<LinkView>,
        why: Option<&'static str>,
    ) {
        let version = self.next_version(device);
        cx.publish(Notice::Link { device: device.clone(), role, link, why, version });
    }

    /// Checks the invariants of links, confidence and calls.
    pub fn check(&self) -> Result<(), Broken> {
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        let recorders = self.recorders.iter().map(|(device, r)| (device, Role::Recorder, r.link.conn));
        let transfers = self.transfers.iter().map(|(device, t)| (device, Role::Transfer, t.link.conn));
        let mut links = 0;
        for (device, role, conn) in recorders.chain(transfers) {
            links += 1;
            if self.lines.get(&conn) != Some(&(device.clone(), role)) {
                return broken(
                    "I01",
                    alloc::format!("{device}: its {} link {conn:?} is not current", role.name()),
                );
            }
        }
        if links != self.lines.len() {
            return broken("I01", alloc::format!("{links} programs hold {} links", self.lines.len()));
        }
        if let Some((last, _)) = self.lines.last_key_value()
            && last.n > self.admitted
        {
            return broken(
                "I02",
                alloc::format!("{last:?} was never admitted, the last was {}", self.admitted),
            );
        }
        self.links().try_for_each(|link| link.contest.check())?;
        let mut calls = 0;
        for (device, recorder) in &self.recorders {
            calls += self.check_recorder(device, recorder)?;
        }
        if calls != self.waiting.len() {
            return broken("I10", alloc::format!("{calls} calls open, {} deadlines", self.waiting.len()));
        }
        let sizes = [
            ("recorder links", self.recorders.len(), limits::LINKS_MAX),
            ("transfer links", self.transfers.len(), limits::LINKS_MAX),
            ("versions", self.versions.len(), limits::VERSIONS_MAX),
        ];
        match sizes.into_iter().find(|(_, len, most)| len > most) {
            Some((what, len, most)) => broken("I10", alloc::format!("{len} {what}, at most {most} may be")),
            None => Ok(()),
        }
    }

    fn check_recorder(&self, device: &DeviceId, recorder: &Recorder) -> Result<usize, Broken> {
        let broken = |invariant, saw| Err(Broken { invariant, saw });
        let known = &recorder.confidence;
        if known.is_confirmed() && (known.state().trim().is_empty() || known.source().is_empty()) {
            return broken("I05", alloc::format!("{device}: confirmed without a report"));
        }
        if known.records() != self.recording.contains(device) {
            return broken(
                "I05",
                alloc::format!("{device}: {} is counted wrongly as recording", known.state()),
            );
        }
        let (mut calls, mut asking, mut mutating) = (0, 0, 0);
        let mut names = BTreeSet::new();
        for call in recorder.calls.iter() {
            calls += 1;
            if self.waiting.get(&call.ticket) != Some(&recorder.link.conn) {
                return broken(
                    "I10",
                    alloc::format!("{device}: call {:?} is on no current link", call.ticket),
                );
            }
            if !names.insert(&call.request_id) {
                return broken("I07", alloc::format!("{device}: two calls are named {}", call.request_id));
            }
            match &call.asks {
                Asks::State(waiters) => {
                    asking += 1;
                    if waiters.len() > limits::WAITERS_PER_LINK {
                        return broken("I10", alloc::format!("{device}: {} wait for a state", waiters.len()));
                    }
                }
                Asks::Command(command) => mutating += usize::from(command.action.mutates()),
            }
        }
        if mutating > 1 || asking > 1 || calls > limits::CALLS_PER_LINK {
            let saw =
                alloc::format!("{device}: {calls} calls, {mutating} that change it, {asking} for its state");
            return broken(if mutating > 1 { "I06" } else { "I10" }, saw);
        }
        Ok(calls)
    }
}

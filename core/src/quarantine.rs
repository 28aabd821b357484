//! What is decided in the place of an input that made the core panic too often, and how such an input is known again in
//! another boot. Must not count panics: whoever steps the machine does.
//!
//! Everything a boot numbers anew (links, requests, tickets, secrets) says nothing about whether an input is the same.
//! So an input is named by whom it is about, in words that stay ([`Machine::about`]), and by the rest of its content.
//!
//! [`Machine::about`]: crate::machine::Machine::about

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use minicbor::{Decode, Encode};

use crate::cx::{Cx, Owner, Tickets};
use crate::digest::Sha256;
use crate::effect::Effect;
use crate::id::{ConnId, ObjectKey, RequestId, SocketId, Ticket};
use crate::input::{Command, Input, Request};
use crate::machine::Parts;
use crate::object::{ObjectOp, ObjectReply, Store, Verb};
use crate::outcome::Outcome;
use crate::refusal::Refusal;
use crate::timers::TimerKey;
use crate::wire::RecorderMessage;

/// What is not stepped, as far as the decision in its place needs it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Subject {
    /// A device's program asks for a link: it is turned away.
    #[n(0)]
    Knock {
        /// The socket.
        #[n(0)]
        socket: SocketId,
    },
    /// A message of a device: its link is closed, and the message changes nothing.
    #[n(1)]
    Frame {
        /// The link.
        #[n(0)]
        conn: ConnId,
    },
    /// The end of a link: nobody hears of it. The link counts as up until its device comes again, and commands that
    /// wait on it time out.
    #[n(2)]
    Lost {
        /// The link.
        #[n(0)]
        conn: ConnId,
    },
    /// A request: it is refused.
    #[n(3)]
    Request {
        /// Which.
        #[n(0)]
        id: RequestId,
    },
    /// The outcome of an object operation: the job is parked, the verification or removal rests.
    #[n(4)]
    Object {
        /// The operation.
        #[n(0)]
        ticket: Ticket,
    },
    /// A deadline: its job is parked, its link is closed, or what it would wake stands still until the next boot or
    /// until something else sets it going.
    #[n(5)]
    Timer(#[n(0)] TimerKey),
    /// A hint of the embedded store: dropped, the uploader's own word makes up for it.
    #[n(6)]
    Stored {
        /// The key.
        #[n(0)]
        key: ObjectKey,
    },
    /// The wish to stop: nothing begins any more, and nobody is told.
    #[n(7)]
    Shutdown,
    /// The outcome of an operation on policies: as if nobody had answered.
    #[n(8)]
    Policy {
        /// The operation.
        #[n(0)]
        ticket: Ticket,
    },
}

impl Subject {
    /// What of an input would be left out; `None` if it cannot be left out: a boot, a decision made here, and the
    /// moment at which deadlines are looked at (each of them is a subject of its own).
    #[must_use]
    pub fn of(input: &Input) -> Option<Subject> {
        match input {
            Input::Knock { socket, .. } => Some(Subject::Knock { socket: *socket }),
            Input::Recorder { conn, .. } | Input::Transfer { conn, .. } => {
                Some(Subject::Frame { conn: *conn })
            }
            Input::Lost { conn, .. } => Some(Subject::Lost { conn: *conn }),
            Input::Request { id, .. } => Some(Subject::Request { id: *id }),
            Input::Object { ticket, .. } => Some(Subject::Object { ticket: *ticket }),
            Input::Stored { key, .. } => Some(Subject::Stored { key: key.clone() }),
            Input::Policy { ticket, .. } => Some(Subject::Policy { ticket: *ticket }),
            Input::Shutdown => Some(Subject::Shutdown),
            Input::Boot { .. }
            | Input::Wake
            | Input::Quarantined { .. }
            | Input::Space { .. }
            | Input::Surroundings(_) => None,
        }
    }
}

/// What two inputs share if they are the same input in different boots: a digest of the kind, of whom it is `about`
/// ([`crate::machine::Machine::about`]) and of all that no boot numbers anew. Times that a device stamps on its
/// messages and secrets do not count.
#[must_use]
pub fn likeness(input: &Input, about: &str) -> Sha256 {
    let mut bytes = Vec::new();
    add(&mut bytes, &input.name());
    add(&mut bytes, &about);
    match input {
        Input::Boot { knobs, .. } => add(&mut bytes, knobs),
        Input::Recorder { message, .. } => add(&mut bytes, &steady(message)),
        Input::Transfer { message, .. } => add(&mut bytes, message),
        Input::Lost { why, .. } => add(&mut bytes, why),
        Input::Request { request: Request::Command(command), .. } => add(&mut bytes, &bare(command)),
        // Tokens are drawn anew for each.
        Input::Request { request: Request::Roster(request), .. } => add(&mut bytes, &request.name()),
        Input::Request { request, .. } => add(&mut bytes, request),
        // Names of multipart uploads are made up anew for each.
        Input::Object { outcome: Outcome::Done(ObjectReply::Created(_)), .. } => {
            add(&mut bytes, &"created");
        }
        Input::Object { outcome: Outcome::Done(ObjectReply::Uploads(found)), .. } => {
            add(&mut bytes, &("uploads", found.len() as u64));
        }
        Input::Object { outcome, .. } => add(&mut bytes, outcome),
        Input::Policy { outcome, .. } => add(&mut bytes, outcome),
        Input::Stored { len, sha256, .. } => add(&mut bytes, &(*len, *sha256)),
        Input::Wake
        | Input::Knock { .. }
        | Input::Shutdown
        | Input::Quarantined { .. }
        | Input::Space { .. }
        | Input::Surroundings(_) => {}
    }
    Sha256::of(&bytes)
}

fn add(bytes: &mut Vec<u8>, thing: &impl Encode<()>) {
    minicbor::encode(thing, bytes).expect("writing to a vector cannot fail");
}

fn steady(message: &RecorderMessage) -> RecorderMessage {
    let mut message = message.clone();
    match &mut message {
        RecorderMessage::StateUpdate { timestamp_ms, .. } => *timestamp_ms = None,
        RecorderMessage::Response { request_id, .. } => request_id.clear(),
        RecorderMessage::ConfigApplied { .. } | RecorderMessage::Other(_) => {}
    }
    message
}

fn bare(command: &Command) -> Command {
    let mut command = command.clone();
    command.reply = None;
    if let (Some(token), Some(params)) = (command.token.take(), &mut command.params) {
        *params = params.replace(&alloc::format!("tidegate-secret:{}", token.handle), "tidegate-secret");
    }
    command
}

/// Adds whom an input is about to a text.
pub(crate) fn about(parts: &Parts, tickets: &Tickets, input: &Input, text: &mut String) {
    match input {
        Input::Boot { .. } | Input::Wake | Input::Shutdown | Input::Space { .. } | Input::Surroundings(_) => {
        }
        Input::Knock { device, role, .. } => {
            text.push_str(role.name());
            text.push(' ');
            text.push_str(device.as_str());
        }
        Input::Recorder { conn, .. } | Input::Transfer { conn, .. } | Input::Lost { conn, .. } => {
            about_link(parts, *conn, text);
        }
        Input::Request { request, .. } => about_request(request, text),
        Input::Object { ticket, .. } => text.push_str(tickets.about(*ticket)),
        Input::Policy { ticket, .. } => parts.policies.about(*ticket, text),
        Input::Stored { key, .. } => text.push_str(key.as_str()),
        Input::Quarantined { subject, .. } => match subject {
            Subject::Knock { .. } => text.push_str("a knock"),
            Subject::Frame { conn } | Subject::Lost { conn } => about_link(parts, *conn, text),
            Subject::Request { .. } => text.push_str("a request"),
            Subject::Object { ticket } => text.push_str(tickets.about(*ticket)),
            Subject::Policy { ticket } => parts.policies.about(*ticket, text),
            Subject::Timer(key) => about_timer(parts, key, text),
            Subject::Stored { key } => text.push_str(key.as_str()),
            Subject::Shutdown => text.push_str("the end"),
        },
    }
}

fn about_link(parts: &Parts, conn: ConnId, text: &mut String) {
    if let Some((device, role)) = parts.hub.line(conn) {
        text.push_str(role.name());
        text.push(' ');
        text.push_str(device.as_str());
    }
}

fn about_request(request: &Request, text: &mut String) {
    let words: [&str; 2] = match request {
        Request::Command(command) => [command.action.name(), command.device.as_str()],
        Request::RefreshState { device, .. } => ["refresh", device.as_str()],
        Request::CallbackStart { task, .. } => ["start callback", task],
        Request::CallbackFinish { task, .. } => ["finish callback", task],
        Request::CreateTask { device, .. } => ["create task", device.as_str()],
        Request::CancelTask { task } => ["cancel task", task],
        Request::Judge { .. } => ["judge", ""],
        Request::Sync { .. } => ["sync", ""],
        Request::SyncBatch => ["sync batch", ""],
        Request::Policy(request) => [request.name(), ""],
        Request::Resolve { device, .. } => ["resolve", device.as_str()],
        Request::Transfer { device, ask } => [ask.name(), device.as_str()],
        Request::ResolveTask { task, .. } => ["resolve task", task],
        Request::Roster(request) => [request.name(), ""],
    };
    text.push_str(words[0]);
    match request {
        Request::Judge { episode, .. } | Request::Sync { episode } => add_text(text, episode),
        Request::Command(_)
        | Request::RefreshState { .. }
        | Request::CallbackStart { .. }
        | Request::CallbackFinish { .. }
        | Request::CreateTask { .. }
        | Request::CancelTask { .. }
        | Request::SyncBatch
        | Request::Resolve { .. }
        | Request::Transfer { .. }
        | Request::ResolveTask { .. } => add_text(text, &words[1]),
        Request::Policy(_) | Request::Roster(_) => {}
    }
}

/// Adds whom a deadline wakes to a text.
pub(crate) fn about_timer(parts: &Parts, key: &TimerKey, text: &mut String) {
    match key {
        TimerKey::Sync(conn) => {
            text.push_str("sync of ");
            about_link(parts, *conn, text);
        }
        TimerKey::Call(ticket) => {
            text.push_str("call of ");
            if let Some(conn) = parts.hub.link_of_call(*ticket) {
                about_link(parts, conn, text);
            }
        }
        TimerKey::Verify(device, wire) => {
            text.push_str("verification of");
            add_text(text, device);
            add_text(text, wire);
        }
        TimerKey::Contest(conn) => {
            text.push_str("contest of ");
            about_link(parts, *conn, text);
        }
        TimerKey::Remove => text.push_str("removal of edge copies"),
        TimerKey::Inspect => text.push_str("check of recordings"),
        TimerKey::Queue => text.push_str("queue"),
        TimerKey::Scan => text.push_str("scan"),
        TimerKey::Policy => text.push_str("policies"),
        TimerKey::Grace(device) => {
            text.push_str("grace of");
            add_text(text, device);
        }
        TimerKey::Settle(task) => {
            text.push_str("settling of");
            add_text(text, task);
        }
        TimerKey::Uploader(device) => {
            text.push_str("question to the uploader of");
            add_text(text, device);
        }
        TimerKey::Overdue => text.push_str("overdue recordings"),
        TimerKey::Upload(job) => {
            text.push_str("upload of job");
            add_text(text, job);
        }
        TimerKey::Janitor(job) => {
            text.push_str("janitor of job");
            add_text(text, job);
        }
    }
}

fn add_text(text: &mut String, word: &dyn core::fmt::Display) {
    write!(text, " {word}").expect("writing to a string cannot fail");
}

/// What an operation is, in words that stay.
pub(crate) fn about_operation(op: &ObjectOp) -> String {
    let store = match op.store {
        Store::Edge => "edge",
        Store::Cloud => "cloud",
    };
    let mut text = op.verb.name().to_string();
    if let Verb::PutPart { part, .. } = &op.verb {
        add_text(&mut text, part);
    }
    add_text(&mut text, &store);
    text.push('/');
    text.push_str(op.key.as_str());
    text
}

/// Decides in the place of what is not stepped. Returns false if nobody waits for it any more.
pub(crate) fn decide(parts: &mut Parts, cx: &mut Cx<'_>, subject: &Subject, reason: &str) -> bool {
    match subject {
        Subject::Knock { socket } => {
            let refusal = Refusal::Quarantined(reason.to_string());
            cx.effect(Effect::TurnAway { socket: *socket, refusal });
        }
        Subject::Frame { conn } => return parts.hub.on_quarantined(cx, *conn, reason),
        Subject::Request { id } => cx.reply(*id, Err(Refusal::Quarantined(reason.to_string()))),
        Subject::Object { ticket } => match cx.tickets.take(*ticket) {
            Some(Owner::Tasks) => parts.tasks.on_quarantined(cx, *ticket, reason),
            Some(Owner::Uploads) => parts.uploads.on_quarantined(cx, *ticket, reason),
            None => return false,
        },
        Subject::Policy { ticket } => return parts.policies.on_quarantined(cx, *ticket, reason),
        Subject::Timer(key) => {
            cx.disarm(key);
            match key {
                TimerKey::Sync(conn) | TimerKey::Contest(conn) => {
                    return parts.hub.on_quarantined(cx, *conn, reason);
                }
                TimerKey::Call(ticket) => {
                    let Some(conn) = parts.hub.link_of_call(*ticket) else { return false };
                    return parts.hub.on_quarantined(cx, conn, reason);
                }
                TimerKey::Verify(device, wire) => parts.tasks.on_quarantined_look(cx, device, wire, reason),
                TimerKey::Upload(job) => parts.uploads.on_quarantined_job(cx, *job, reason),
                TimerKey::Remove
                | TimerKey::Inspect
                | TimerKey::Queue
                | TimerKey::Scan
                | TimerKey::Policy
                // Tasks stand still until the next report or boot.
                | TimerKey::Grace(_)
                | TimerKey::Settle(_)
                | TimerKey::Uploader(_)
                | TimerKey::Overdue
                | TimerKey::Janitor(_) => {}
            }
        }
        Subject::Lost { .. } | Subject::Stored { .. } | Subject::Shutdown => {}
    }
    true
}

#[cfg(test)]
mod tests;

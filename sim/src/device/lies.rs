//! What a buggy or hostile device says: every lie really leaves the device, in its nearest sensible form if the moment
//! does not suit it. The truth (files, rows, states, log) never follows a lie.

use tidegate_core::id::{ObjectKey, Role};

use super::recorder::State;
use super::rows::Status;
use super::uploader::failed_data;
use super::{Ask, Callback, Deed, Device, Known, StoreCall, frame};
use crate::scenario::{Firmware, Lie};
use crate::stream::Stream;
use crate::time::SimTime;

impl Device {
    /// Says something that is not so. From now on the device does not count as honest.
    ///
    /// `others` is what other devices have, for lies about that. A frame goes out on the link where it belongs, else on
    /// the other one if only that is open, else on the next connection. Without power nothing happens.
    pub fn lie(&mut self, now: SimTime, lie: Lie, others: &[Known], asks: &mut Vec<Ask>) {
        if !self.on {
            return;
        }
        self.honest = false;
        self.note(now, Deed::Lied(lie));
        self.lies += 1;
        let mut dice = Stream::new(self.seed, &format!("device/{}/lie", self.id), self.lies);
        match lie {
            Lie::EmptyState | Lie::FalseIdle | Lie::FalseRecording | Lie::OldUpdate | Lie::IdleWithTask => {
                self.false_state(now, lie, &mut dice, asks)
            }
            Lie::EmptyAnswer | Lie::RepeatedAnswer | Lie::StrayAnswer => {
                self.false_answer(lie, &mut dice, asks);
            }
            Lie::Garbage => {
                let role = *dice.pick(&[Role::Recorder, Role::Transfer]);
                let text = *dice.pick(&["not json", "[]", "{\"type\":\"state_upd", "\u{1}\u{fffd}\"}", "7"]);
                self.claim(role, text.to_string(), asks);
            }
            Lie::WrongTypes => {
                let role = *dice.pick(&[Role::Recorder, Role::Transfer]);
                let texts = match role {
                    Role::Recorder => &WRONG_TYPES_RECORDER,
                    Role::Transfer => &WRONG_TYPES_TRANSFER,
                };
                self.claim(role, (*dice.pick(texts)).to_string(), asks);
            }
            Lie::FalseComplete | Lie::WrongDigest | Lie::ForeignKey => {
                self.false_complete(now, lie, others, &mut dice, asks);
            }
            Lie::FalseNotFound => {
                let wire = self.unfinished();
                let data = self.not_found_data(&wire, &Device::no_file(&wire));
                self.claim_transfer(now, "upload_not_found", &data, asks);
            }
            Lie::FalseFailed => {
                let data = failed_data(&self.unfinished(), "AccessDenied", 5);
                self.claim_transfer(now, "upload_failed", &data, asks);
            }
            Lie::ShortStatus => {
                let data = self.uploader.rows.counts(Firmware::New, None, Some(0));
                self.claim_transfer(now, "status", &data, asks);
            }
            Lie::ForeignCallback | Lie::EarlyFinish | Lie::RepeatedFinish | Lie::LateStart => {
                let callback = self.false_callback(now, lie, others, &mut dice);
                asks.push(Ask::Post(callback));
            }
            Lie::OtherContent => {
                let wire = self.sent().or_else(|| self.unsent()).unwrap_or_else(|| self.phantom());
                let len = self.files.get(&wire).map_or(1 << 20, |file| file.content.len);
                // The sizes agree half of the time: only a digest tells those apart.
                let len = if dice.one_in(2) { len } else { len + 1 + dice.below(4096) };
                let content = self.other_content(len);
                if let Some(key) = self.key_of(now, &wire) {
                    asks.push(Ask::Store(StoreCall::Put { key, content, announced: true }));
                }
            }
            Lie::SilentComplete => {
                let (sent, unsent) = (self.sent(), self.unsent());
                let wire = if dice.one_in(2) { unsent.or(sent) } else { sent.or(unsent) };
                let wire = wire.unwrap_or_else(|| self.phantom());
                let Some(key) = self.key_of(now, &wire) else { return };
                let mut data = String::from("{\"bytes_uploaded\":0");
                frame::push_text(&mut data, "object_key", key.as_str());
                frame::push_text(&mut data, "s3_key", key.as_str());
                frame::push_text(&mut data, "status", Status::WaitAck.name());
                frame::push_text(&mut data, "task_id", &wire);
                frame::push_text(&mut data, "upload_mode", "mcap_only");
                let len = self.files.get(&wire).map_or(1 << 20, |file| file.content.len);
                // Half of the time it only says less of what it has said before.
                if dice.one_in(2) {
                    let content = self.other_content(len);
                    asks.push(Ask::Store(StoreCall::Put { key, content, announced: false }));
                }
                self.claim_transfer(now, "upload_complete", &data, asks);
            }
        }
    }

    fn false_state(&mut self, now: SimTime, lie: Lie, dice: &mut Stream, asks: &mut Vec<Ask>) {
        let at_ms = self.wall(now);
        let state = self.recorder.state;
        let task = self.recorder.task.as_ref().map(|task| task.wire.clone());
        let text = match lie {
            Lie::EmptyState if dice.one_in(2) => {
                format!("{{\"data\":{{}},\"timestamp\":{at_ms},\"type\":\"state_update\"}}")
            }
            Lie::EmptyState => frame::state_update(state.name(), " ", task.as_deref(), at_ms),
            Lie::FalseIdle => frame::state_update(busy_name(state), "idle", None, at_ms),
            Lie::FalseRecording => frame::state_update("ready", "recording", Some(&self.phantom()), at_ms),
            Lie::OldUpdate => {
                let old = at_ms - i64::try_from(dice.between(60_000, 7_200_000)).unwrap_or(60_000);
                let (previous, current) = match state {
                    State::Idle | State::Ready => ("ready", "recording"),
                    State::Recording | State::Paused => ("idle", "ready"),
                };
                frame::state_update(previous, current, task.as_deref(), old)
            }
            _ => {
                let task = task.unwrap_or_else(|| self.unfinished());
                frame::state_update(busy_name(state), "idle", Some(&task), at_ms)
            }
        };
        self.claim(Role::Recorder, text, asks);
    }

    fn false_answer(&mut self, lie: Lie, dice: &mut Stream, asks: &mut Vec<Ask>) {
        let mut stray =
            || format!("{:08x}-0000-4000-8000-{:012x}", dice.next_u64() >> 32, dice.below(1 << 48));
        let said = &mut self.recorder.said;
        let text = match (lie, &said.answered) {
            (Lie::EmptyAnswer, _) => {
                // One now, in case a question is open, and one for the next question.
                said.hollow = true;
                let asked = if said.asked.is_empty() { stray() } else { said.asked.clone() };
                frame::rpc_response(&asked, true, "State retrieved successfully", Some("\"\\u0000?\""))
            }
            (Lie::RepeatedAnswer, Some((request, success))) => {
                let data = r#"{"state":"idle"}"#;
                frame::rpc_response(request, !success, "", Some(data))
            }
            _ => {
                let data = format!("{{\"state\":\"recording\",\"task_id\":\"{}-phantom\"}}", self.id);
                frame::rpc_response(&stray(), true, "Recording started successfully", Some(&data))
            }
        };
        self.claim(Role::Recorder, text, asks);
    }

    fn false_complete(
        &mut self,
        now: SimTime,
        lie: Lie,
        others: &[Known],
        dice: &mut Stream,
        asks: &mut Vec<Ask>,
    ) {
        let wire = match lie {
            Lie::FalseComplete => self.unsent(),
            _ => self.sent().or_else(|| self.unsent()),
        };
        let wire = wire.unwrap_or_else(|| self.phantom());
        let own = self.key_of(now, &wire);
        let with_keys: Vec<&ObjectKey> = others.iter().filter_map(|other| other.key.as_ref()).collect();
        let key = match lie {
            Lie::ForeignKey if !with_keys.is_empty() => Some((*dice.pick(&with_keys)).clone()),
            // Nobody else has stored anything: where somebody else would.
            Lie::ForeignKey => {
                ObjectKey::new(&format!("factory-site/another-device/2026-09-21/{wire}.mcap")).ok()
            }
            _ => own,
        };
        let file = self.files.get(&wire);
        let len = file.map_or(1 << 20, |file| file.content.len);
        let sha256 = match file.filter(|_| lie != Lie::WrongDigest) {
            Some(file) => file.content.sha256(),
            None => self.other_content(len).sha256(),
        };
        let bare = self.files.get(&wire).is_some_and(|file| file.sidecar.is_none());
        let mut data = String::from("{\"bytes_uploaded\":0");
        frame::push_text(&mut data, "checksum_sha256", &sha256.to_string());
        frame::push_number(&mut data, "duration_ms", 0);
        frame::push_number(&mut data, "file_size_bytes", len);
        if let Some(key) = key {
            frame::push_text(&mut data, "object_key", key.as_str());
            frame::push_text(&mut data, "s3_key", key.as_str());
        }
        frame::push_text(&mut data, "status", Status::WaitAck.name());
        frame::push_text(&mut data, "task_id", &wire);
        frame::push_text(&mut data, "upload_mode", if bare { "mcap_only" } else { "mcap_json" });
        self.claim_transfer(now, "upload_complete", &data, asks);
    }

    fn false_callback(&mut self, now: SimTime, lie: Lie, others: &[Known], dice: &mut Stream) -> Callback {
        let repeated = self.recorder.said.finish.clone().filter(|_| lie == Lie::RepeatedFinish);
        if let Some(callback) = repeated {
            return callback;
        }
        let mut device = self.id.as_str().to_string();
        let task = match lie {
            Lie::ForeignCallback if !others.is_empty() => {
                let other = dice.pick(others);
                // In its own name, or in that of the other.
                if dice.one_in(2) {
                    device = other.device.as_str().to_string();
                }
                other.wire.clone()
            }
            Lie::ForeignCallback => "another-task".to_string(),
            Lie::LateStart => self.sent().or_else(|| self.unsent()).unwrap_or_else(|| self.unfinished()),
            _ => {
                let current = self.recorder.task.as_ref().map(|task| task.wire.clone());
                current.unwrap_or_else(|| self.unfinished())
            }
        };
        let finish = lie != Lie::LateStart;
        let len = finish.then(|| self.files.get(&task).map_or(1 << 20, |file| file.content.len));
        Callback { finish, task, device, len, started_ms: Some(self.wall(now)) }
    }

    /// Says it where it belongs, or where it can be said.
    fn claim(&mut self, role: Role, text: String, asks: &mut Vec<Ask>) {
        let (recorder, uploader) = (self.recorder.line.is_up(), self.uploader.line.is_up());
        let recorders = match role {
            Role::Recorder => recorder || !uploader,
            Role::Transfer => recorder && !uploader,
        };
        if recorders {
            self.recorder.line.say(text, asks);
        } else {
            self.uploader.line.say(text, asks);
        }
    }

    fn claim_transfer(&mut self, now: SimTime, kind: &str, data: &str, asks: &mut Vec<Ask>) {
        let text = frame::transfer(kind, data, self.wall(now));
        self.claim(Role::Transfer, text, asks);
    }

    /// Where its recording is or would be.
    fn key_of(&self, now: SimTime, wire: &str) -> Option<ObjectKey> {
        let rows = &self.uploader.rows;
        let known = rows.find(wire).map(|at| rows.at(at).key.clone());
        known.or_else(|| self.place(now, wire, "mcap"))
    }

    /// The latest recording that is at the edge store.
    fn sent(&self) -> Option<String> {
        let rows = &mut self.uploader.rows.iter().rev();
        let sent = |row: &&super::rows::Row| matches!(row.status, Status::WaitAck | Status::Completed);
        rows.find(sent).map(|row| row.wire.clone())
    }

    /// A recording that is on the device and not at the edge store, or that is being made.
    fn unsent(&self) -> Option<String> {
        let rows = &self.uploader.rows;
        let sent = |wire: &str| {
            rows.find(wire)
                .is_some_and(|at| matches!(rows.at(at).status, Status::WaitAck | Status::Completed))
        };
        let file = self.files.keys().find(|wire| !sent(wire)).map(String::as_str);
        file.or_else(|| self.recorder.recording()).map(str::to_string)
    }

    /// The task it is about to upload, else one it has anything to do with, else one that nobody knows.
    fn unfinished(&self) -> String {
        let uploading = self.uploader.rows.iter().find(|row| row.status.is_unfinished());
        let uploading = uploading.map(|row| row.wire.clone());
        let current = || self.recorder.task.as_ref().map(|task| task.wire.clone());
        uploading.or_else(|| self.unsent()).or_else(current).unwrap_or_else(|| self.phantom())
    }

    /// A task that does not exist.
    fn phantom(&self) -> String {
        format!("{}-phantom", self.id)
    }
}

/// A state that is not idle: the one it has, if it can be.
fn busy_name(state: State) -> &'static str {
    match state {
        State::Idle => "recording",
        State::Ready | State::Recording | State::Paused => state.name(),
    }
}

const WRONG_TYPES_RECORDER: [&str; 3] = [
    r#"{"data":{"current":7,"previous":[],"task_id":{"a":1}},"timestamp":"now","type":"state_update"}"#,
    r#"{"data":[],"message":{},"request_id":5,"success":"true","type":"rpc_response"}"#,
    r#"{"data":"ready","timestamp":null,"type":"config_applied"}"#,
];
const WRONG_TYPES_TRANSFER: [&str; 3] = [
    r#"{"data":{"checksum_sha256":1,"file_size_bytes":"x","s3_key":[],"task_id":5},"timestamp":0,"type":"upload_complete"}"#,
    r#"{"data":{"pending_count":"-1","uploads":{},"waiting_ack_task_ids":[1,null]},"timestamp":[],"type":"status"}"#,
    r#"{"data":{"detail":false,"task_id":null},"timestamp":{},"type":"upload_not_found"}"#,
];

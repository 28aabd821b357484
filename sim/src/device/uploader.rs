//! The uploader program of a device, as stock ones behave: it uploads what it is told to, deletes what it is told that
//! the site has, and says each thing once. Never looks for work of its own accord, except for what it had begun.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use tidegate_core::id::{ObjectKey, Role};

use super::line::{Dice, Line};
use super::recorder::HASHED_PER_MICROSECOND;
use super::rows::{Announcement, Row, Rows, Speed, Status, Step};
use super::{Ask, Deed, Device, File, LinkEnd, StoreAnswer, StoreCall, Wake, frame};
use crate::scenario::Firmware;
use crate::time::SimTime;

/// An uploader.
#[derive(Clone, Debug)]
pub struct Uploader {
    pub(super) line: Line,
    /// On disk: survives everything.
    pub(super) rows: Rows,
    /// Files of uploads that were given up, moved to where nothing on the wire reaches them.
    pub(super) aside: BTreeMap<String, File>,
    /// Positions of unfinished rows, in the order in which they get their turn.
    live: Vec<usize>,
    /// The recording being hashed, and the wake that ends it: nothing else is read meanwhile.
    hashing: Option<(u64, String)>,
    /// Unfinished rows found at the start.
    recovered: usize,
    speed: Speed,
    /// Numbers wakes; never starts again, so that a stale wake is known.
    wakes: u64,
    blocking: Dice,
    retry: Dice,
    garble: Dice,
}

impl Uploader {
    pub(super) fn new(device: &str, seed: u64) -> Uploader {
        Uploader {
            line: Line::new(Role::Transfer, device, seed),
            rows: Rows::default(),
            aside: BTreeMap::new(),
            live: Vec::new(),
            hashing: None,
            recovered: 0,
            speed: Speed::default(),
            wakes: 0,
            blocking: Dice::new(seed, device, "uploader/blocking"),
            retry: Dice::new(seed, device, "uploader/retry"),
            garble: Dice::new(seed, device, "uploader/garble"),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.hashing.is_some()
    }

    fn wake(&mut self, after: Duration, asks: &mut Vec<Ask>) -> u64 {
        self.wakes += 1;
        asks.push(Ask::Wake(Wake::Uploader(self.wakes), after));
        self.wakes
    }
}

/// A frame, as far as an uploader looks at it.
#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    task_id: Option<Cow<'a, str>>,
}

impl Device {
    /// What was unfinished is queued again; the rest waits for what the site says.
    pub(super) fn uploader_start(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        let uploader = &mut self.uploader;
        uploader.line.start(asks);
        let rows = &mut uploader.rows;
        uploader.live = (0..rows.iter().len()).filter(|at| rows.at(*at).status.is_unfinished()).collect();
        for at in &uploader.live {
            rows.at_mut(*at).status = Status::Pending;
        }
        uploader.recovered = uploader.live.len();
        self.advance(now, asks);
    }

    pub(super) fn uploader_die(&mut self) {
        let uploader = &mut self.uploader;
        uploader.line.stop();
        uploader.live.clear();
        uploader.hashing = None;
        uploader.speed = Speed::default();
    }

    pub(super) fn uploader_opened(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        if self.uploader.line.opened(asks) {
            let device = Some(self.id.as_str());
            let uploader = &self.uploader;
            let data = match self.spec.firmware {
                Firmware::Old | Firmware::Middle => uploader.rows.counts(self.spec.firmware, device, None),
                Firmware::New => {
                    uploader.rows.status(self.spec.firmware, uploader.recovered, uploader.speed, device)
                }
            };
            if self.sulks(Role::Transfer) {
                return self.uploader.line.say("{\"type\":\"connected\",\"data\":{".to_string(), asks);
            }
            self.tell(now, "connected", &data, asks);
        }
    }

    pub(super) fn uploader_ended(&mut self, end: LinkEnd, asks: &mut Vec<Ask>) {
        let busy = self.uploader.is_busy();
        self.uploader.line.ended(end, busy, asks);
    }

    pub(super) fn uploader_heard(&mut self, now: SimTime, text: &str, asks: &mut Vec<Ask>) {
        if !self.uploader.line.is_up() {
            return;
        }
        if self.uploader.is_busy() {
            self.uploader.line.keep(text);
        } else {
            self.uploader_read(now, text, asks);
        }
    }

    pub(super) fn uploader_redial(&mut self, number: u64, asks: &mut Vec<Ask>) {
        self.uploader.line.woke(number, asks);
    }

    pub(super) fn uploader_woke(&mut self, now: SimTime, number: u64, asks: &mut Vec<Ask>) {
        let hashed = self.uploader.hashing.take_if(|(n, _)| *n == number);
        if let Some((_, wire)) = hashed {
            self.enqueue(now, &wire, asks);
            while !self.uploader.is_busy()
                && let Some(text) = self.uploader.line.next_kept()
            {
                self.uploader_read(now, &text, asks);
            }
            if !self.uploader.is_busy() {
                self.uploader.line.settle(asks);
            }
            return;
        }
        let rows = &self.uploader.rows;
        let Some(at) = self.uploader.live.iter().copied().find(|at| rows.at(*at).wake == number) else {
            return;
        };
        match rows.at(at).status {
            Status::Active(_) => self.attempt_failed(now, at, "timeout", true, asks),
            Status::RetryWait => {
                self.uploader.rows.at_mut(at).status = Status::Pending;
                self.advance(now, asks);
            }
            Status::Pending | Status::WaitAck | Status::Completed | Status::Failed => {}
        }
    }

    fn uploader_read(&mut self, now: SimTime, text: &str, asks: &mut Vec<Ask>) {
        // A list would pass for an object with its members in order.
        if !text.trim_start().starts_with('{') {
            return;
        }
        let Ok(order) = serde_json::from_str::<Order<'_>>(text) else { return };
        match (order.kind.as_ref(), order.task_id.as_deref()) {
            // It has not looked into its folder yet, and then has no time for anything.
            ("upload_request", Some(wire)) if self.sulks(Role::Transfer) => {
                let denies = self.uploader.blocking.roll().permille(500);
                if denies {
                    self.not_found(now, wire, &Device::no_file(wire), asks);
                }
            }
            ("status_query" | "upload_all", _) if self.sulks(Role::Transfer) => {}
            ("upload_request", Some(wire)) => self.on_upload_request(now, wire, asks),
            ("upload_ack", Some(wire)) => self.on_upload_ack(now, wire, asks),
            ("upload_all", _) => self.on_upload_all(now, asks),
            ("status_query", _) => {
                let uploader = &self.uploader;
                let data = uploader.rows.status(self.spec.firmware, uploader.recovered, uploader.speed, None);
                self.tell(now, "status", &data, asks);
            }
            // `cancel` does nothing and gets no answer, like everything unknown.
            _ => {}
        }
    }

    pub(super) fn tell(&mut self, now: SimTime, kind: &str, data: &str, asks: &mut Vec<Ask>) {
        let mut text = frame::transfer(kind, data, self.wall(now));
        // The program frees what it sends too early: the tail of a large frame may be anything.
        if text.len() > FRAGMENT_BYTES && self.uploader.garble.roll().permille(GARBLED_PERMILLE) {
            let mut border = FRAGMENT_BYTES;
            while !text.is_char_boundary(border) {
                border -= 1;
            }
            text.truncate(border);
            text.push_str("\u{1}\u{7f}q\u{2}]}~}\u{3}");
        }
        self.uploader.line.say(text, asks);
    }

    fn not_found(&mut self, now: SimTime, wire: &str, detail: &str, asks: &mut Vec<Ask>) {
        let data = self.not_found_data(wire, detail);
        self.tell(now, "upload_not_found", &data, asks);
    }

    pub(super) fn not_found_data(&self, wire: &str, detail: &str) -> String {
        let mut data = String::with_capacity(96);
        data.push('{');
        frame::push_text(&mut data, "detail", detail);
        frame::push_text(&mut data, "task_id", wire);
        data
    }

    pub(super) fn no_file(wire: &str) -> String {
        format!("No MCAP file matching {wire} in {DATA_DIR}")
    }

    fn on_upload_request(&mut self, now: SimTime, wire: &str, asks: &mut Vec<Ask>) {
        // A row of any status counts as not found: the answer does not mean that the recording is lost.
        let known = self.uploader.rows.find(wire).is_some();
        let Some(file) = self.files.get(wire).filter(|_| !known) else {
            return self.not_found(now, wire, &Device::no_file(wire), asks);
        };
        let hashing = Duration::from_micros(file.content.len / HASHED_PER_MICROSECOND);
        let mut dice = self.uploader.blocking.roll();
        let usual = dice.duration(Duration::from_millis(5), Duration::from_millis(80));
        let number = self.uploader.wake(hashing + usual, asks);
        self.uploader.hashing = Some((number, wire.to_string()));
    }

    /// Enqueues every recording without a row, oldest first, and answers with the short status.
    fn on_upload_all(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        let rows = &self.uploader.rows;
        let mut new: Vec<(u64, String)> = (self.files.iter())
            .filter(|(wire, _)| rows.find(wire).is_none())
            .map(|(wire, file)| (file.content.id, wire.clone()))
            .collect();
        new.sort_unstable();
        let enqueued = new.iter().filter(|(_, wire)| self.add_row(now, wire).is_some()).count();
        let data = self.uploader.rows.counts(self.spec.firmware, None, Some(enqueued as u64));
        self.tell(now, "status", &data, asks);
        self.advance(now, asks);
    }

    /// It is hashed: it gets its row.
    fn enqueue(&mut self, now: SimTime, wire: &str, asks: &mut Vec<Ask>) {
        let Some(at) = self.add_row(now, wire) else {
            let data = failed_data(wire, "upload enqueue rejected", 0);
            return self.tell(now, "upload_failed", &data, asks);
        };
        let data = self.uploader.rows.announcement(at, self.spec.firmware, Announcement::Started);
        self.tell(now, "upload_started", &data, asks);
        self.advance(now, asks);
    }

    fn add_row(&mut self, now: SimTime, wire: &str) -> Option<usize> {
        let key = self.place(now, wire, "mcap")?;
        let sidecar_key = self.place(now, wire, "json")?;
        let file = self.files.get(wire)?;
        let row = Row {
            wire: wire.to_string(),
            key,
            sidecar: file.sidecar.is_some().then_some(sidecar_key),
            len: file.content.len,
            sha256: file.content.sha256().to_string(),
            status: Status::Pending,
            failures: 0,
            last_error: "",
            wake: 0,
            since: now,
        };
        let at = self.uploader.rows.insert(row);
        self.uploader.live.push(at);
        Some(at)
    }

    /// Where a file goes that is taken on today; none if no key can hold its name.
    pub(super) fn place(&self, now: SimTime, wire: &str, ending: &str) -> Option<ObjectKey> {
        let mut key = String::with_capacity(48 + wire.len());
        key.push_str(FACTORY);
        key.push('/');
        key.push_str(self.id.as_str());
        key.push('/');
        frame::push_day(&mut key, self.wall(now));
        key.push('/');
        key.push_str(wire);
        key.push('.');
        key.push_str(ending);
        ObjectKey::new(&key).ok()
    }

    fn on_upload_ack(&mut self, now: SimTime, wire: &str, asks: &mut Vec<Ask>) {
        let Some(at) = self.uploader.rows.find(wire) else {
            return self.not_found(now, wire, "ACK for unknown task_id", asks);
        };
        let row = self.uploader.rows.at_mut(at);
        // Dropped without a word: an acknowledgement in a wrong state, or a second one.
        if row.status == Status::WaitAck {
            row.status = Status::Completed;
            if self.files.remove(wire).is_some() {
                self.note(now, Deed::Deleted { wire: wire.to_string() });
            }
        }
    }

    /// Begins what has its turn, as many at once as the program does.
    fn advance(&mut self, now: SimTime, asks: &mut Vec<Ask>) {
        loop {
            let rows = &self.uploader.rows;
            let live = &self.uploader.live;
            let active = live.iter().filter(|at| matches!(rows.at(**at).status, Status::Active(_))).count();
            let next = live.iter().copied().find(|at| rows.at(*at).status == Status::Pending);
            let Some(at) = next.filter(|_| active < AT_ONCE) else { return };
            self.uploader.rows.at_mut(at).since = now;
            let call = StoreCall::Head(self.uploader.rows.at(at).key.clone());
            self.call(at, Step::Look, call, 0, asks);
        }
    }

    fn call(&mut self, at: usize, step: Step, call: StoreCall, bytes: u64, asks: &mut Vec<Ask>) {
        asks.push(Ask::Store(call));
        // Four times as long as it should take, before an answer is no longer waited for.
        let micros = bytes.saturating_mul(4_000_000) / self.spec.speed.max(1);
        let wake = self.uploader.wake(PATIENCE + Duration::from_micros(micros), asks);
        let row = self.uploader.rows.at_mut(at);
        row.status = Status::Active(step);
        row.wake = wake;
    }

    pub(super) fn uploader_stored(
        &mut self,
        now: SimTime,
        call: &StoreCall,
        answer: &StoreAnswer,
        asks: &mut Vec<Ask>,
    ) {
        let Some(at) = self.awaited(call) else { return };
        match (call, answer) {
            (StoreCall::Head(_), StoreAnswer::Head(there)) => {
                let Some(file) = self.files.get(&self.uploader.rows.at(at).wire) else {
                    return self.attempt_failed(now, at, "file not found", false, asks);
                };
                if there.as_ref().is_some_and(|there| there.id == file.content.id) {
                    return self.after_recording(now, at, asks);
                }
                let content = file.content.clone();
                let (key, len) = (self.uploader.rows.at(at).key.clone(), content.len);
                self.call(at, Step::Recording, StoreCall::Put { key, content, announced: true }, len, asks);
            }
            (StoreCall::Put { .. }, StoreAnswer::Stored) => {
                if self.uploader.rows.at(at).status == Status::Active(Step::Recording) {
                    self.after_recording(now, at, asks);
                } else {
                    self.succeed(now, at, asks);
                }
            }
            (_, StoreAnswer::Refused { again }) => {
                let error = if *again { "SlowDown" } else { "AccessDenied" };
                self.attempt_failed(now, at, error, *again, asks);
            }
            (_, StoreAnswer::Unknown | StoreAnswer::Head(_) | StoreAnswer::Stored) => {
                self.attempt_failed(now, at, "network error", true, asks);
            }
        }
    }

    /// The row that waits for this answer. Answers to an earlier start of the program find none that does.
    fn awaited(&self, call: &StoreCall) -> Option<usize> {
        let Uploader { rows, live, .. } = &self.uploader;
        live.iter().copied().find(|at| {
            let row = rows.at(*at);
            match (row.status, call) {
                (Status::Active(Step::Look), StoreCall::Head(key)) => row.key == *key,
                (Status::Active(Step::Recording), StoreCall::Put { key, content, .. }) => {
                    let own = self.files.get(&row.wire).is_none_or(|file| file.content.id == content.id);
                    own && row.key == *key
                }
                (Status::Active(Step::Sidecar), StoreCall::Put { key, .. }) => {
                    row.sidecar.as_ref() == Some(key)
                }
                _ => false,
            }
        })
    }

    fn after_recording(&mut self, now: SimTime, at: usize, asks: &mut Vec<Ask>) {
        let row = self.uploader.rows.at(at);
        let Some(key) = row.sidecar.clone() else { return self.succeed(now, at, asks) };
        let Some(content) = self.files.get(&row.wire).and_then(|file| file.sidecar.clone()) else {
            return self.attempt_failed(now, at, "file not found", false, asks);
        };
        let len = content.len;
        self.call(at, Step::Sidecar, StoreCall::Put { key, content, announced: true }, len, asks);
    }

    fn succeed(&mut self, now: SimTime, at: usize, asks: &mut Vec<Ask>) {
        let uploader = &mut self.uploader;
        uploader.live.retain(|live| *live != at);
        let row = uploader.rows.at_mut(at);
        row.status = Status::WaitAck;
        row.last_error = "";
        let millis = u64::try_from((now - row.since).as_millis()).unwrap_or(u64::MAX).max(1);
        uploader.speed.bytes_uploaded += row.len;
        uploader.speed.bytes_per_sec = row.len.saturating_mul(1000) / millis;
        let (wire, key) = (row.wire.clone(), row.key.clone());
        self.note(now, Deed::Uploaded { wire, key });
        // Said once. If it is lost, only a later status tells.
        let data = self.uploader.rows.announcement(at, self.spec.firmware, Announcement::Complete);
        self.tell(now, "upload_complete", &data, asks);
        self.advance(now, asks);
    }

    fn attempt_failed(
        &mut self,
        now: SimTime,
        at: usize,
        error: &'static str,
        again: bool,
        asks: &mut Vec<Ask>,
    ) {
        let row = self.uploader.rows.at_mut(at);
        row.failures += 1;
        row.last_error = error;
        if !again || row.failures >= ATTEMPTS {
            self.give_up(now, at, asks);
        } else {
            row.status = Status::RetryWait;
            // 2, 4, 8, 16 s, half more or less.
            let base = RETRY_MIN.saturating_mul(1 << (row.failures - 1));
            let delay = self.uploader.retry.roll().duration(base / 2, base * 3 / 2);
            let wake = self.uploader.wake(delay, asks);
            self.uploader.rows.at_mut(at).wake = wake;
        }
        self.advance(now, asks);
    }

    /// For ever: nothing on the wire brings it back. The files are moved away.
    fn give_up(&mut self, now: SimTime, at: usize, asks: &mut Vec<Ask>) {
        self.uploader.live.retain(|live| *live != at);
        let row = self.uploader.rows.at_mut(at);
        row.status = Status::Failed;
        let (wire, error, failures) = (row.wire.clone(), row.last_error, row.failures);
        if let Some(file) = self.files.remove(&wire) {
            self.uploader.aside.insert(wire.clone(), file);
        }
        let data = failed_data(&wire, error, failures);
        self.note(now, Deed::GaveUp { wire });
        self.tell(now, "upload_failed", &data, asks);
    }
}

/// The data of `upload_failed`, without its closing brace.
pub(super) fn failed_data(wire: &str, reason: &str, failures: u32) -> String {
    let mut data = String::with_capacity(128);
    data.push_str("{\"next_retry_at\":null");
    frame::push_text(&mut data, "reason", reason);
    frame::push_number(&mut data, "retry_count", u64::from(failures));
    frame::push_text(&mut data, "task_id", wire);
    data
}

/// First segment of keys.
const FACTORY: &str = "factory-site";
const DATA_DIR: &str = "/data/recordings";
/// Uploads at once.
const AT_ONCE: usize = 2;
/// Attempts in all.
const ATTEMPTS: u32 = 5;
const RETRY_MIN: Duration = Duration::from_secs(2);
/// How long an answer of the store is waited for, besides what the bytes take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest frame that is sent in one piece.
const FRAGMENT_BYTES: usize = 4096;
/// Measured: about a sixth of large frames under load, hardly any without.
const GARBLED_PERMILLE: u64 = 60;

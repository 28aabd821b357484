//! Devices driven by scripts: a tiny world that only keeps time and collects what is asked for.

mod facts;
mod lies;
mod recorder;
mod transcripts;
mod uploader;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::id::{ObjectKey, Role};

use super::{Ask, Callback, Deed, Device, LinkEnd, Script, StoreAnswer, StoreCall, Wake};
use crate::scenario::{DeviceSpec, Firmware};
use crate::store::Content;
use crate::time::SimTime;

/// A device and what it asked for.
struct Rig {
    device: Device,
    now: SimTime,
    wakes: BTreeMap<(SimTime, usize), Wake>,
    asked: usize,
    dials: Vec<(SimTime, Role)>,
    closes: Vec<Role>,
    said: Vec<(Role, String)>,
    posts: Vec<Callback>,
    calls: Vec<StoreCall>,
    /// Answers the edge store itself, if there is one.
    store: Option<BTreeMap<ObjectKey, Content>>,
}

impl Rig {
    fn new(firmware: Firmware) -> Rig {
        Rig::seeded(firmware, 7)
    }

    fn seeded(firmware: Firmware, seed: u64) -> Rig {
        let latency = Duration::from_millis(5);
        let spec = DeviceSpec { id: "d1".into(), site: 0, firmware, latency, speed: 10 << 20 };
        Rig::of(&spec, seed)
    }

    fn of(spec: &DeviceSpec, seed: u64) -> Rig {
        Rig {
            device: Device::new(0, spec, seed),
            now: SimTime::ZERO,
            wakes: BTreeMap::new(),
            asked: 0,
            dials: Vec::new(),
            closes: Vec::new(),
            said: Vec::new(),
            posts: Vec::new(),
            calls: Vec::new(),
            store: None,
        }
    }

    /// With power, both links open, an edge store, and nothing said.
    fn up(firmware: Firmware) -> Rig {
        let mut rig = Rig::new(firmware);
        rig.store = Some(BTreeMap::new());
        rig.act(|d, now, asks| d.power_on(now, asks));
        rig.open(Role::Recorder);
        rig.open(Role::Transfer);
        rig.said.clear();
        rig
    }

    fn act(&mut self, what: impl FnOnce(&mut Device, SimTime, &mut Vec<Ask>)) {
        let mut asks = Vec::new();
        what(&mut self.device, self.now, &mut asks);
        let mut answered = self.calls.len();
        self.collect(asks);
        while let Some(store) = &mut self.store
            && let Some(call) = self.calls.get(answered).cloned()
        {
            answered += 1;
            let answer = match call.clone() {
                StoreCall::Head(key) => StoreAnswer::Head(store.get(&key).cloned()),
                StoreCall::Put { key, content, .. } => {
                    store.insert(key, content);
                    StoreAnswer::Stored
                }
            };
            let mut asks = Vec::new();
            self.device.stored(self.now, &call, &answer, &mut asks);
            self.collect(asks);
        }
    }

    fn collect(&mut self, asks: Vec<Ask>) {
        for ask in asks {
            match ask {
                Ask::Dial(role) => self.dials.push((self.now, role)),
                Ask::Close(role) => self.closes.push(role),
                Ask::Say(role, text) => self.said.push((role, text)),
                Ask::Post(callback) => self.posts.push(callback),
                Ask::Store(call) => self.calls.push(call),
                Ask::Wake(wake, after) => {
                    self.asked += 1;
                    self.wakes.insert((self.now + after, self.asked), wake);
                }
            }
        }
    }

    fn open(&mut self, role: Role) {
        self.act(|d, now, asks| d.opened(now, role, asks));
    }

    fn end(&mut self, role: Role, end: LinkEnd) {
        self.act(|d, now, asks| d.ended(now, role, end, asks));
    }

    fn hear(&mut self, role: Role, text: &str) {
        self.act(|d, now, asks| d.heard(now, role, text, asks));
    }

    fn answer(&mut self, answer: &StoreAnswer) {
        let call = self.calls.last().expect("something was asked of the store").clone();
        self.act(|d, now, asks| d.stored(now, &call, answer, asks));
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.wakes.first_entry()
            && entry.key().0 <= end
        {
            self.now = entry.key().0;
            let wake = entry.remove();
            self.act(|d, now, asks| d.woke(now, wake, asks));
        }
        self.now = end;
    }

    /// Lets time pass until neither program is blocked.
    fn settle(&mut self) {
        while self.device.busy(Role::Recorder) || self.device.busy(Role::Transfer) {
            let (at, _) = *self.wakes.first_key_value().expect("who is blocked has a wake").0;
            self.pass(at - self.now);
        }
    }

    /// Lets time pass until a program dials, and opens its link.
    fn reopen(&mut self, role: Role) {
        let before = self.dials.len();
        while !self.dials[before..].iter().any(|(_, dialled)| *dialled == role) {
            let (at, _) = *self.wakes.first_key_value().expect("who lost a link has a wake").0;
            self.pass(at - self.now);
        }
        self.open(role);
    }

    fn rpc(&mut self, id: &str, action: &str, task: Option<&str>) {
        let params = match (action, task) {
            ("config", Some(task)) => json!({"task_config": {
                "task_id": task, "device_id": "d1", "scene": "s \"1\"",
                "start_callback_url": "http://x/start", "finish_callback_url": "http://x/finish",
            }}),
            (_, Some(task)) => json!({"task_id": task}),
            (_, None) => Value::Null,
        };
        let request = json!({"type": "rpc_request", "request_id": id, "action": action, "params": params});
        self.hear(Role::Recorder, &request.to_string());
    }

    /// Records a task to its end.
    fn record(&mut self, task: &str) {
        self.rpc("c", "config", Some(task));
        self.rpc("b", "begin", Some(task));
        self.pass(Duration::from_secs(10));
        self.rpc("f", "finish", Some(task));
        self.settle();
    }

    fn tell(&mut self, kind: &str, task: &str) {
        let frame = json!({"type": kind, "task_id": task, "priority": 1}).to_string();
        self.hear(Role::Transfer, &frame);
        self.settle();
    }

    /// What a program said since the last call, as JSON.
    fn take(&mut self, role: Role) -> Vec<Value> {
        let (taken, kept) = std::mem::take(&mut self.said).into_iter().partition(|(by, _)| *by == role);
        self.said = kept;
        let taken: Vec<(Role, String)> = taken;
        taken.iter().map(|(_, text)| serde_json::from_str(text).expect("honest frames are JSON")).collect()
    }

    fn deeds(&self) -> Vec<&Deed> {
        self.device.log.iter().map(|(_, deed)| deed).collect()
    }

    fn did(&self, deed: impl Fn(&Deed) -> bool) -> usize {
        self.device.log.iter().filter(|(_, done)| deed(done)).count()
    }

    fn held(&self) -> Vec<&str> {
        self.device.held().map(|(wire, _)| wire).collect()
    }

    fn script(&mut self, task: &str, bytes: u64, bare: bool) {
        self.device.scripts.insert(task.into(), Script { bytes, bare });
    }
}

/// The kinds of messages, in order.
fn kinds(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap_or("?")).collect()
}

/// A `state_update` in short.
fn states(frames: &[Value]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_string();
    (frames.iter().filter(|frame| frame["type"] == "state_update"))
        .map(|frame| {
            let data = &frame["data"];
            format!("{}>{} {}", word(&data["previous"]), word(&data["current"]), word(&data["task_id"]))
        })
        .collect()
}

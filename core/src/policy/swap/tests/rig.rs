//! The machine of modules alone, with a model of the host, the records on disk, and crashes. After every step it checks
//! the invariants, that the changes alone give the same records, and that nobody is answered twice.

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use crate::chance::Chance;
use crate::change::Change;
use crate::cx::{Cx, Tickets};
use crate::digest::Sha256;
use crate::effect::{Effect, Notice, Output, PolicyOp, Response};
use crate::id::{Boot, RequestId, Ticket};
use crate::input::{PolicyReply, PolicyRequest};
use crate::knobs::Knobs;
use crate::limits;
use crate::outcome::Outcome;
use crate::policy::swap::Swap;
use crate::policy::{
    Binding, Builtin, ModuleFacts, PolicyFault, PolicySet, Seat, SettingValue, Situation, Slot,
};
use crate::refusal::{PolicyRefusal, Refusal};
use crate::row::{Key, ModuleState, Row, TurnWhat};
use crate::time::{Mono, Now, Wall};
use crate::timers::{TimerKey, Timers};

/// The default module of the rig.
pub(super) const DEFAULT: Sha256 = Sha256([0xD0; 32]);

pub(super) fn module(n: u8) -> Sha256 {
    Sha256([n; 32])
}

pub(super) fn bind(n: u8) -> Binding {
    Binding { module: module(n), settings: vec![] }
}

pub(super) fn admit(n: u8) -> PolicyRequest {
    PolicyRequest::Admit { module: module(n), size: 100 + u64::from(n) }
}

pub(super) fn activate(slot: Slot, n: u8) -> PolicyRequest {
    PolicyRequest::Activate { slot, binding: bind(n) }
}

pub(super) fn shadow(slot: Slot, n: u8) -> PolicyRequest {
    PolicyRequest::Shadow { slot, binding: bind(n) }
}

pub(super) fn quarantine(n: u8) -> PolicyRequest {
    PolicyRequest::Quarantine { module: module(n), reason: "it smells".to_string() }
}

/// What the host says of a module: those above 200 but the default serve retry alone.
pub(super) fn facts(module: Sha256) -> ModuleFacts {
    let n = module.0[0];
    ModuleFacts {
        size: 100 + u64::from(n),
        name: format!("module-{n}"),
        version: "1.0".to_string(),
        summary: String::new(),
        slots: if n > 200 && module != DEFAULT { vec![Slot::Retry] } else { Slot::ALL.to_vec() },
        patience_ms: 0,
        signed_by: None,
    }
}

type Answer = Result<Response, Refusal>;

pub(super) struct Rig {
    pub(super) swap: Swap,
    pub(super) knobs: Knobs,
    pub(super) now: Now,
    pub(super) boot: Boot,
    pub(super) rows: BTreeMap<Key, Row>,
    pub(super) asked: BTreeMap<Ticket, PolicyOp>,
    pub(super) replies: BTreeMap<u64, Answer>,
    /// Requests of this boot that must be answered.
    pub(super) waiting: Vec<u64>,
    pub(super) news: Vec<&'static str>,
    /// Modules that the host does not prepare, with its word for why.
    pub(super) broken: BTreeMap<Sha256, &'static str>,
    /// The module that the host really asks beside the set.
    pub(super) beside: Option<(Slot, Binding)>,
    /// The step at which the process dies, and whether what it decided then was committed.
    pub(super) doom: Option<(usize, bool)>,
    pub(super) steps: usize,
    pub(super) stopping: bool,
    timers: Timers,
    tickets: Tickets,
    shadow: Swap,
    requests: u64,
}

impl Rig {
    /// A site with a default module that was looked at.
    pub(super) fn new() -> Rig {
        let mut rig = Rig::with(Knobs { default_module: Some(DEFAULT), ..Knobs::default() });
        rig.serve();
        rig
    }

    /// A site with this configuration, booted; the host answered nothing yet.
    pub(super) fn with(knobs: Knobs) -> Rig {
        let mut rig = Rig::unbooted(knobs);
        rig.boot();
        rig
    }

    pub(super) fn unbooted(knobs: Knobs) -> Rig {
        Rig {
            swap: Swap::default(),
            knobs,
            now: Now { wall: Wall(1_790_000_000_000), mono: Mono(0) },
            boot: Boot(0),
            rows: BTreeMap::new(),
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            waiting: vec![],
            news: vec![],
            broken: BTreeMap::new(),
            beside: None,
            doom: None,
            steps: 0,
            stopping: false,
            timers: Timers::default(),
            tickets: Tickets::new(Boot(0)),
            shadow: Swap::default(),
            requests: 0,
        }
    }

    /// A new process on the same records.
    pub(super) fn boot(&mut self) {
        self.boot = Boot(self.boot.0 + 1);
        self.tickets = Tickets::new(self.boot);
        self.timers = Timers::default();
        self.asked.clear();
        self.waiting.clear();
        self.beside = None;
        self.stopping = false;
        self.now.mono = Mono(0);
        self.swap = Swap::default();
        for (key, row) in &self.rows {
            let read = Row::from_bytes(key.kind(), &row.to_bytes()).unwrap();
            assert_eq!(read, *row, "a record survives the disk");
            self.swap.load(key, read);
        }
        let expected = self.swap.set_under(&self.knobs);
        self.swap.forget_volatile(&self.knobs);
        assert_eq!(*self.swap.set(), expected, "who will sit there is known before the boot is stepped");
        self.step(Swap::on_boot);
        assert_eq!(*self.swap.set(), expected, "a boot changes who sits there by its configuration alone");
    }

    /// One step. Returns false if the process died of it and a new one was started.
    pub(super) fn step(&mut self, act: impl FnOnce(&mut Swap, &mut Cx<'_>)) -> bool {
        let mut out = Output::default();
        let mut touched = std::collections::BTreeSet::new();
        let mut facts = std::collections::VecDeque::new();
        let (mut chance, mut seeds) = (Chance::new(1), Chance::new(2));
        let active = self.swap.active();
        let mut policies = Builtin::new(self.knobs.builtin.clone());
        let mut cx = Cx {
            now: self.now,
            knobs: &self.knobs,
            situation: Situation::default(),
            stopping: self.stopping,
            timers: &mut self.timers,
            chance: &mut chance,
            active: &active,
            seeds: &mut seeds,
            tickets: &mut self.tickets,
            facts: &mut facts,
            touched: &mut touched,
            policies: &mut policies,
            out: &mut out,
        };
        let before = (self.swap.id(), self.swap.policy_row().generation);
        self.swap.begin_step();
        act(&mut self.swap, &mut cx);
        self.swap.hear(&out.rulings);
        self.swap.check().unwrap();
        let after = (self.swap.id(), self.swap.policy_row().generation);
        assert!(after.1 >= before.1, "the generation never falls");
        assert!(after.0 == before.0 || after.1 > before.1, "another set is another generation");
        self.steps += 1;
        let doom = self.doom.filter(|(step, _)| *step == self.steps);
        if !matches!(doom, Some((_, false))) {
            self.commit(&out, touched);
        }
        if doom.is_some() {
            self.boot();
            return false;
        }
        for effect in out.effects {
            self.release(effect);
        }
        true
    }

    fn commit(&mut self, out: &Output, touched: std::collections::BTreeSet<Key>) {
        for key in &touched {
            match self.swap.row(key) {
                Some(row) => self.rows.insert(key.clone(), row),
                None => self.rows.remove(key),
            };
        }
        // The changes alone, without any configuration, give the same records.
        for change in &out.changes {
            let Change::Policy(change) = change else { panic!("a change of something else") };
            let bytes = minicbor::to_vec(change).unwrap();
            let read: crate::change::PolicyChange = minicbor::decode(&bytes).unwrap();
            assert_eq!(read, *change, "a change survives the journal");
            self.shadow.apply(&read).unwrap();
        }
        for key in touched {
            assert_eq!(self.shadow.row(&key), self.rows.get(&key).cloned(), "{key:?} by replay");
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Policy { ticket, op } => {
                assert_eq!(ticket.boot, self.boot);
                assert!(!self.stopping, "nothing begins while the site stops: {op:?}");
                assert!(self.asked.insert(ticket, op).is_none(), "a ticket twice");
            }
            Effect::Reply { to, answer } => {
                let waited = self.waiting.iter().position(|id| *id == to.0);
                self.waiting.remove(waited.expect("nobody is answered twice"));
                self.replies.insert(to.0, answer);
            }
            Effect::Publish(Notice::Policy { news, view }) => {
                assert!(!format!("{news}").is_empty());
                assert_eq!(view.seats.len(), 5);
                self.news.push(news.name());
            }
            other => panic!("{other:?}"),
        }
    }

    /// Asks something, and returns the request's number.
    pub(super) fn ask(&mut self, request: PolicyRequest) -> u64 {
        self.requests += 1;
        let id = self.requests;
        self.waiting.push(id);
        let bytes = minicbor::to_vec(&request).unwrap();
        let read: PolicyRequest = minicbor::decode(&bytes).unwrap();
        assert_eq!(read, request, "a request survives the journal");
        self.step(|swap, cx| swap.on_request(cx, RequestId(id), &request));
        id
    }

    /// Asks something, has the host answer everything, and returns the answer.
    fn wish(&mut self, request: PolicyRequest) -> Option<Answer> {
        let id = self.ask(request);
        self.serve();
        self.replies.remove(&id)
    }

    /// The same, for a wish that must be met.
    pub(super) fn granted(&mut self, request: PolicyRequest) {
        let answer = self.wish(request);
        assert!(matches!(answer, Some(Ok(Response::Policy(_)))), "{answer:?}");
    }

    /// The same, for a wish that must not.
    pub(super) fn refused(&mut self, request: PolicyRequest) -> PolicyRefusal {
        match self.wish(request) {
            Some(Err(Refusal::Policy(refusal))) => {
                assert!(refusal.code().starts_with("policy_") || refusal.code() == "policies_native");
                refusal
            }
            other => panic!("{other:?}"),
        }
    }

    /// The host answers everything truthfully.
    pub(super) fn serve(&mut self) {
        while let Some(ticket) = self.asked.keys().next().copied() {
            self.answer(ticket);
        }
    }

    pub(super) fn answer(&mut self, ticket: Ticket) {
        let reply = self.truth(&self.asked[&ticket].clone());
        self.outcome(ticket, Outcome::Done(reply));
    }

    pub(super) fn outcome(&mut self, ticket: Ticket, outcome: Outcome<PolicyReply>) {
        if let (Some(PolicyOp::Shadow(beside)), Outcome::Done(PolicyReply::Done)) =
            (self.asked.remove(&ticket), &outcome)
        {
            self.beside = beside;
        }
        self.step(|swap, cx| {
            swap.on_outcome(cx, ticket, &outcome);
        });
    }

    fn truth(&self, op: &PolicyOp) -> PolicyReply {
        let reject = |slot, code: &str| PolicyReply::Rejected {
            slot,
            code: code.to_string(),
            why: "the host says so".to_string(),
        };
        match op {
            PolicyOp::Admit { module } => match self.broken.get(module) {
                Some(code) => reject(None, code),
                None => PolicyReply::Admitted(facts(*module)),
            },
            PolicyOp::Prepare { set } => {
                let bad = |slot: &Slot| set.module(*slot).and_then(|module| self.broken.get(&module));
                match Slot::ALL.into_iter().find(|slot| bad(slot).is_some()) {
                    Some(slot) => reject(Some(slot), bad(&slot).unwrap()),
                    None => PolicyReply::Prepared(set.id()),
                }
            }
            PolicyOp::Shadow(Some((slot, binding))) => match self.broken.get(&binding.module) {
                Some(code) => reject(Some(*slot), code),
                None => PolicyReply::Done,
            },
            PolicyOp::Shadow(None) | PolicyOp::Retire { .. } => PolicyReply::Done,
        }
    }

    pub(super) fn fault(&mut self, slot: Slot, why: PolicyFault) {
        self.step(|swap, cx| {
            cx.out.rulings.push(crate::policy::Ruled {
                slot,
                by: crate::policy::Author::Builtin { instead_of: swap.id(), why },
                verdict: String::new(),
                reason: None,
                clamped: None,
            });
            swap.on_faulted(cx, slot, why);
        });
    }

    /// The module in a slot answers well.
    pub(super) fn answer_well(&mut self, slot: Slot) {
        self.step(|swap, cx| {
            cx.out.rulings.push(crate::policy::Ruled {
                slot,
                by: crate::policy::Author::Set(swap.id()),
                verdict: String::new(),
                reason: None,
                clamped: None,
            });
        });
    }

    pub(super) fn stall(&mut self, slot: Slot) {
        self.step(|swap, cx| swap.on_stalled(cx, slot));
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms).unwrap());
    }

    /// Wakes for the deadline, if it is due.
    pub(super) fn wake(&mut self) {
        if self.timers.take_due(self.now.mono) == Some(TimerKey::Policy) {
            self.step(Swap::on_due);
        }
    }

    /// Waits for the next deadline and wakes.
    pub(super) fn sleep(&mut self) {
        let at = self.timers.armed(&TimerKey::Policy).expect("there is something to wait for");
        self.pass(u64::try_from(self.now.mono.until(at).as_nanos().div_ceil(1_000_000)).unwrap());
        self.wake();
    }

    pub(super) fn armed(&self) -> bool {
        self.timers.armed(&TimerKey::Policy).is_some()
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.step(Swap::on_shutdown);
    }

    pub(super) fn seat(&self, slot: Slot) -> Option<Sha256> {
        self.swap.set().module(slot)
    }

    pub(super) fn generation(&self) -> u64 {
        self.swap.policy_row().generation
    }

    pub(super) fn last(&self) -> TurnWhat {
        self.swap.policy_row().history.last().unwrap().what.clone()
    }

    pub(super) fn state(&self, module: Sha256) -> Option<ModuleState> {
        match self.swap.row(&Key::Module(module)) {
            Some(Row::Module(row)) => Some(row.state),
            _ => None,
        }
    }

    pub(super) fn is_quarantined(&self, module: Sha256) -> bool {
        matches!(self.swap.row(&Key::Module(module)), Some(Row::Module(row)) if row.quarantined.is_some())
    }

    /// Everything that must be the same however a site came to it, without times and numbers.
    pub(super) fn gist(&self) -> String {
        let row = self.swap.policy_row();
        let modules: Vec<String> = self
            .swap
            .view()
            .modules
            .iter()
            .map(|(m, row)| {
                let why = row.quarantined.as_ref().map(|q| q.blame.code().to_string());
                format!("{m:?} {} {why:?}", row.state.name())
            })
            .collect();
        let trial = row.probation.as_ref().map(|trial| trial.slots.clone());
        let shadow = row.shadow.as_ref().map(|s| (s.slot, s.binding.clone()));
        let faults: Vec<_> = row.faults.iter().map(|mark| (mark.slot, mark.module, mark.fault)).collect();
        format!(
            "{:?} good {:?} before {:?} floored {:?} trial {trial:?} shadow {shadow:?} faults {faults:?} {modules:#?}",
            row.slots, row.good, row.earlier, row.floored
        )
    }

    /// What must hold of who sits there, looked at from outside.
    pub(super) fn watch(&self) {
        let view = self.swap.view();
        for seat in &view.seats {
            let Seat::Module(binding) = &seat.seat else { continue };
            let row = view.modules.iter().find(|(m, _)| *m == binding.module).map(|(_, row)| row);
            if Some(binding.module) == view.default && seat.origin != crate::policy::Origin::Chosen {
                assert!(row.is_none_or(|row| row.quarantined.is_none()), "{seat:?}");
                continue;
            }
            let row = row.expect("who sits there is known");
            assert_eq!(row.state, ModuleState::Admitted, "{seat:?}");
            assert_eq!(row.quarantined, None, "{seat:?}");
        }
        assert!(view.modules.len() <= limits::MODULES_MAX + 1, "{} modules", view.modules.len());
        assert!(self.swap.policy_row().history.len() <= limits::POLICY_HISTORY);
    }

    /// The built-in rules are always within reach: by putting away whoever sits there.
    pub(super) fn fall_to_the_floor(&mut self) {
        let native = PolicySet::native(self.knobs.builtin.clone());
        for _ in 0..=limits::MODULES_MAX {
            let Some(seated) = Slot::ALL.into_iter().find_map(|slot| self.seat(slot)) else { break };
            let reason = String::new();
            self.granted(PolicyRequest::Quarantine { module: seated, reason });
        }
        assert_eq!(*self.swap.set(), native);
        assert_eq!(self.swap.id(), Builtin::new(self.knobs.builtin.clone()).id());
    }
}

pub(super) fn setting(key: &str, value: i64) -> (String, SettingValue) {
    (key.to_string(), SettingValue::Int(value))
}

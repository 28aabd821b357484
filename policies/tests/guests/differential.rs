//! Two builds of the same rules against each other, on seeded questions: the native rules and the committed module, the
//! example in Rust and the same in C.

use tidegate_core::policy::{
    Builtin, Candidate, DISK_UNKNOWN, ErrorClass, Known, LinkKind, Policies, Power, Question, RetryQuery,
    SettingValue, Settings, Situation, Slot, Subject, Verdict, Waiting,
};
use tidegate_policies::{Ceilings, Host, Module, Sitting};

use crate::book::Guest;

/// Questions per hook.
const QUESTIONS: u64 = 100_000;
/// Questions with the same settings.
const PER_SETTINGS: u64 = 2_500;

/// A seeded source of numbers that likes edges.
pub struct Dice(pub u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    fn long(&mut self) -> u64 {
        match self.below(8) {
            0 => self.one_of(&[0, 1, u64::MAX, u64::MAX - 1, i64::MAX as u64, i64::MAX as u64 + 1]),
            1 | 2 => self.roll(),
            3..6 => self.below(86_400_000),
            _ => self.below(100),
        }
    }

    fn short(&mut self) -> u32 {
        match self.below(6) {
            0 => self.one_of(&[0, 1, u32::MAX, u32::MAX - 1]),
            1 => self.roll() as u32,
            _ => self.below(30) as u32,
        }
    }

    fn words(&mut self) -> String {
        match self.below(4) {
            0 => String::new(),
            1 => "Größe-µ-漢字".repeat(self.below(4) as usize),
            _ => format!("robot-{}", self.below(1000)),
        }
    }

    fn labels(&mut self) -> Vec<(String, String)> {
        (0..self.below(3)).map(|_| (self.words(), self.words())).collect()
    }

    /// Mostly short batches, now and then the longest there are.
    fn batch(&mut self) -> u64 {
        match self.below(200) {
            0 => 256,
            1..20 => self.below(40),
            _ => self.below(5),
        }
    }

    fn link(&mut self) -> LinkKind {
        use LinkKind::{Cellular, Ethernet, None, Other, Satellite, Unknown, Wifi};
        self.one_of(&[Unknown, None, Ethernet, Wifi, Cellular, Satellite, Other])
    }

    fn known(&mut self) -> Known {
        self.one_of(&[Known::Unknown, Known::No, Known::Yes])
    }

    fn situation(&mut self) -> Situation {
        Situation {
            link: self.link(),
            metered: self.known(),
            power: self.one_of(&[Power::Unknown, Power::Mains, Power::Battery, Power::BatteryLow]),
            minute_of_week: self.below(10_080) as u16,
            due: self.short(),
            waiting: self.short(),
            uploading: self.short(),
            parked: self.short(),
            recording: self.short(),
            streak: self.short(),
            goodput: self.long(),
            disk_free: self.below(u64::from(DISK_UNKNOWN) + 1) as u16,
            memo: self.long(),
            seed: self.roll(),
        }
    }

    fn attempt(&mut self) -> RetryQuery {
        let codes = [
            "SlowDown",
            "AccessDenied",
            "EntityTooLarge",
            "InternalError",
            "NoSuchBucket",
            "KeyTooLongError",
            "part_damaged",
        ];
        RetryQuery {
            job: self.roll(),
            spent: self.short(),
            class: self.one_of(&[
                ErrorClass::Vanished,
                ErrorClass::Damaged,
                ErrorClass::Rejected,
                ErrorClass::Other,
            ]),
            subject: self.one_of(&[Subject::Object, Subject::Upload, Subject::Part, Subject::Source]),
            code: if self.below(3) == 0 { self.words() } else { self.one_of(&codes).to_owned() },
            elapsed_ms: self.long(),
            last_delay_ms: self.long(),
            size: self.long(),
            sent: self.long(),
            link: self.link(),
            metered: self.known(),
            memo: self.long(),
            seed: self.roll(),
        }
    }

    pub fn question(&mut self, slot: Slot) -> Question {
        match slot {
            Slot::AutoScan => {
                let situation = self.situation();
                let batch = (0..self.batch()).map(|_| Candidate {
                    episode: self.roll(),
                    device: self.words(),
                    size: self.long(),
                    age_ms: self.long(),
                    tries: self.short(),
                    labels: self.labels(),
                });
                Question::AutoScan(situation, batch.collect())
            }
            Slot::Retry => Question::Retry(self.attempt()),
            Slot::Concurrency => Question::Concurrency(self.situation()),
            Slot::Bandwidth => Question::Bandwidth(self.situation()),
            Slot::Order => {
                let situation = self.situation();
                let batch = (0..self.batch()).map(|_| Waiting {
                    job: self.roll(),
                    device: self.words(),
                    size: self.long(),
                    spent: self.short(),
                    queued_ms: self.long(),
                    age_ms: self.long(),
                    labels: self.labels(),
                });
                Question::Order(situation, batch.collect())
            }
        }
    }

    /// Settings as far as the contract can carry them: its numbers are signed, and uploads have sixteen bits.
    fn settings(&mut self) -> Settings {
        let mut long = || self.long().min(i64::MAX as u64);
        Settings {
            retry_base_ms: long(),
            retry_cap_ms: long(),
            retry_jitter_ms: long(),
            bytes_per_second: Some(long()).filter(|limit| *limit > 0),
            auto_scan: self.below(2) == 0,
            attempts: self.short().max(1),
            uploads: self.short().min(u32::from(u16::MAX)),
        }
    }
}

fn module(place: &'static str) -> Module {
    let host = Host::new(Ceilings::default()).expect("the host starts");
    host.admit(&Guest::of(place).wasm()).unwrap_or_else(|why| panic!("{place}: {why}"))
}

pub fn answer(sitting: &Sitting, question: &Question) -> (Verdict, Vec<String>) {
    match sitting.ask(question).outcome {
        Ok((verdict, words)) => (verdict, words.to_vec()),
        Err(trouble) => panic!("{trouble} on {question:?}"),
    }
}

fn native(floor: &mut Builtin, question: &Question) -> (Verdict, Vec<String>) {
    match question {
        Question::AutoScan(now, batch) => {
            let ruling = floor.select(now, batch);
            (ruling.verdict.into(), ruling.words.to_vec())
        }
        Question::Retry(query) => {
            let ruling = floor.retry(query);
            (ruling.verdict.into(), ruling.words.to_vec())
        }
        Question::Concurrency(now) => {
            let ruling = floor.limits(now);
            (ruling.verdict.into(), ruling.words.to_vec())
        }
        Question::Bandwidth(now) => {
            let ruling = floor.budget(now);
            (ruling.verdict.into(), ruling.words.to_vec())
        }
        Question::Order(now, batch) => {
            let ruling = floor.score(now, batch);
            (ruling.verdict.into(), ruling.words.to_vec())
        }
    }
}

fn native_and_module_agree(slot: Slot) {
    let module = module("default");
    let mut dice = Dice(slot as u64);
    let mut reasons = std::collections::BTreeSet::new();
    for round in 0..QUESTIONS / PER_SETTINGS {
        let settings = if round == 0 { Settings::default() } else { dice.settings() };
        let sitting =
            module.seat(slot, &settings.for_module()).unwrap_or_else(|why| panic!("{settings:?}: {why}"));
        let mut floor = Builtin::new(settings.clone());
        for _ in 0..PER_SETTINGS {
            let question = dice.question(slot);
            let (ours, theirs) = (native(&mut floor, &question), answer(&sitting, &question));
            assert_eq!(ours, theirs, "native and module differ on {question:?} under {settings:?}");
            reasons.extend(reasons_of(&ours.0));
        }
    }
    let seen: Vec<u16> = reasons.into_iter().collect();
    let expected: &[u16] = match slot {
        Slot::AutoScan => &[1, 2],
        Slot::Retry => &[3, 4],
        Slot::Concurrency => &[5],
        Slot::Bandwidth => &[5, 6],
        Slot::Order => &[7],
    };
    assert_eq!(seen, expected, "the questions reach every rule");
}

fn reasons_of(verdict: &Verdict) -> Vec<u16> {
    match verdict {
        Verdict::AutoScan(chosen) => chosen.iter().map(|chosen| chosen.reason).collect(),
        Verdict::Retry(verdict) => vec![verdict.reason],
        Verdict::Concurrency(limits) => vec![limits.reason],
        Verdict::Bandwidth(budget) => vec![budget.reason],
        Verdict::Order(ordering) => vec![ordering.reason],
    }
}

#[test]
fn the_default_module_selects_as_the_native_rules_do() {
    native_and_module_agree(Slot::AutoScan);
}

#[test]
fn the_default_module_retries_as_the_native_rules_do() {
    native_and_module_agree(Slot::Retry);
}

#[test]
fn the_default_module_limits_uploads_as_the_native_rules_do() {
    native_and_module_agree(Slot::Concurrency);
}

#[test]
fn the_default_module_limits_bytes_as_the_native_rules_do() {
    native_and_module_agree(Slot::Bandwidth);
}

#[test]
fn the_default_module_orders_as_the_native_rules_do() {
    native_and_module_agree(Slot::Order);
}

#[test]
fn the_example_in_rust_and_the_one_in_c_agree() {
    let (rust, c) = (module("examples/retry-by-class"), module("examples/retry-by-class-c"));
    let mut dice = Dice(99);
    let mut reasons = std::collections::BTreeSet::new();
    for round in 0..20 {
        let settings: Vec<(String, SettingValue)> = if round == 0 {
            Vec::new()
        } else {
            [("attempts", 40), ("base-ms", 86_400_000), ("cap-ms", 86_400_000)]
                .map(|(key, most)| (key.to_owned(), SettingValue::Int(1 + dice.below(most) as i64)))
                .into()
        };
        let in_rust = rust.seat(Slot::Retry, &settings).expect("the settings are right");
        let in_c = c.seat(Slot::Retry, &settings).expect("the settings are right");
        for _ in 0..500 {
            let question = dice.question(Slot::Retry);
            let (one, other) = (answer(&in_rust, &question), answer(&in_c, &question));
            assert_eq!(one, other, "Rust and C differ on {question:?} under {settings:?}");
            reasons.extend(reasons_of(&one.0));
        }
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6], "the questions reach every rule");
}

#[test]
fn generated_code_and_an_interpreter_give_the_same_answers_for_the_same_fuel() {
    let compiled = Host::new(Ceilings::default()).expect("the host starts");
    let interpreted = Host::interpreting(Ceilings::default()).expect("the interpreter starts");
    let mut dice = Dice(7);
    for guest in Guest::all() {
        let bytes = guest.wasm();
        let admit = |host: &Host| host.admit(&bytes).unwrap_or_else(|why| panic!("{}: {why}", guest.place));
        let (one, other) = (admit(&compiled), admit(&interpreted));
        assert_eq!(one.facts(), other.facts());
        for slot in one.facts().slots.clone() {
            let seat = |module: &Module| module.seat(slot, &[]).expect("defaults are right");
            let (one, other) = (seat(&one), seat(&other));
            for _ in 0..300 {
                let question = dice.question(slot);
                let (ours, theirs) = (one.ask(&question), other.ask(&question));
                let place = guest.place;
                assert_eq!(answer(&one, &question), answer(&other, &question), "{place}: {question:?}");
                assert_eq!(ours.fuel, theirs.fuel, "{place}: {question:?}");
                assert_eq!(ours.start_fuel, theirs.start_fuel, "{place}: {question:?}");
            }
        }
    }
}

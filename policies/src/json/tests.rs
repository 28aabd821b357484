//! Tests of the JSON form: nothing is lost on the way, and an error names its place.

use super::*;
use crate::vectors;
use tidegate_core::policy::Choice;

/// SplitMix64, for questions and verdicts at random.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Small, large and extreme numbers alike.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(10),
            1 => u64::MAX - self.below(3),
            2 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn small(&mut self) -> u32 {
        u32::try_from(self.number() & 0xffff_ffff).unwrap()
    }

    fn tiny(&mut self) -> u16 {
        u16::try_from(self.number() & 0xffff).unwrap()
    }

    fn case<T: words::Words>(&mut self) -> T {
        T::WORDS[usize::try_from(self.below(T::WORDS.len() as u64)).unwrap()].0
    }

    fn text(&mut self) -> String {
        let letters = ['a', '"', '\\', '\n', '\u{0}', 'ß', '東', '\u{1F916}'];
        (0..self.below(6)).map(|_| letters[usize::try_from(self.below(8)).unwrap()]).collect()
    }

    fn labels(&mut self) -> Vec<(String, String)> {
        (0..self.below(3)).map(|_| (self.text(), self.text())).collect()
    }

    fn now(&mut self) -> Situation {
        Situation {
            link: self.case(),
            metered: self.case(),
            power: self.case(),
            minute_of_week: self.tiny(),
            due: self.small(),
            waiting: self.small(),
            uploading: self.small(),
            parked: self.small(),
            recording: self.small(),
            streak: self.small(),
            goodput: self.number(),
            disk_free: self.tiny(),
            memo: self.number(),
            seed: self.number(),
        }
    }

    fn question(&mut self) -> Question {
        match self.case() {
            Slot::AutoScan => {
                let candidate = |chance: &mut Chance| Candidate {
                    episode: chance.number(),
                    device: chance.text(),
                    size: chance.number(),
                    age_ms: chance.number(),
                    tries: chance.small(),
                    labels: chance.labels(),
                };
                Question::AutoScan(self.now(), (0..self.below(4)).map(|_| candidate(self)).collect())
            }
            Slot::Retry => Question::Retry(RetryQuery {
                job: self.number(),
                spent: self.small(),
                class: self.case(),
                subject: self.case(),
                code: self.text(),
                elapsed_ms: self.number(),
                last_delay_ms: self.number(),
                size: self.number(),
                sent: self.number(),
                link: self.case(),
                metered: self.case(),
                memo: self.number(),
                seed: self.number(),
            }),
            Slot::Concurrency => Question::Concurrency(self.now()),
            Slot::Bandwidth => Question::Bandwidth(self.now()),
            Slot::Order => {
                let waiting = |chance: &mut Chance| Waiting {
                    job: chance.number(),
                    device: chance.text(),
                    size: chance.number(),
                    spent: chance.small(),
                    queued_ms: chance.number(),
                    age_ms: chance.number(),
                    labels: chance.labels(),
                };
                Question::Order(self.now(), (0..self.below(4)).map(|_| waiting(self)).collect())
            }
        }
    }

    fn verdict(&mut self) -> Verdict {
        match self.case() {
            Slot::AutoScan => {
                let chosen = |chance: &mut Chance| Chosen { choice: chance.case(), reason: chance.tiny() };
                Verdict::AutoScan((0..self.below(4)).map(|_| chosen(self)).collect())
            }
            Slot::Retry => {
                let action = match self.below(3) {
                    0 => RetryAction::After { delay_ms: self.number() },
                    1 => RetryAction::Park,
                    _ => RetryAction::GiveUp(self.case()),
                };
                Verdict::Retry(RetryVerdict { action, memo: self.number(), reason: self.tiny() })
            }
            Slot::Concurrency => Verdict::Concurrency(UploadLimits {
                uploads: self.small(),
                recheck_ms: self.number(),
                memo: self.number(),
                reason: self.tiny(),
            }),
            Slot::Bandwidth => Verdict::Bandwidth(Bandwidth {
                bytes_per_second: (self.below(2) == 0).then(|| self.number()),
                recheck_ms: self.number(),
                memo: self.number(),
                reason: self.tiny(),
            }),
            Slot::Order => Verdict::Order(Ordering {
                scores: (0..self.below(4)).map(|_| self.number().cast_signed()).collect(),
                reason: self.tiny(),
            }),
        }
    }
}

#[test]
fn nothing_is_lost_on_the_way_through_text() {
    let mut chance = Chance(5);
    for _ in 0..20_000 {
        let asked = chance.question();
        let text = question(&asked).to_string();
        assert_eq!(read_question(&serde_json::from_str(&text).unwrap()).unwrap(), asked, "{text}");
        let given = chance.verdict();
        let text = verdict(&given).to_string();
        assert_eq!(read_verdict(&serde_json::from_str(&text).unwrap()).unwrap(), given, "{text}");
    }
}

#[test]
fn the_questions_of_admission_survive_the_way_too() {
    for slot in Slot::ALL {
        for asked in vectors::questions(slot) {
            assert_eq!(read_question(&question(&asked)).unwrap(), asked);
        }
    }
}

#[test]
fn what_is_not_given_is_neutral() {
    let read = read_question(&json!({ "slot": "concurrency" })).unwrap();
    assert_eq!(read, Question::Concurrency(Situation::default()));
    let read = read_question(&json!({ "slot": "order", "batch": [{ "job": 3, "labels": { "a": "b" } }] }));
    let Question::Order(_, batch) = read.unwrap() else { panic!("it is about order") };
    assert_eq!(batch[0].labels, [(String::from("a"), String::from("b"))]);
    let read = read_verdict(&json!({ "slot": "auto-scan", "choices": [{ "action": "skip" }] })).unwrap();
    assert_eq!(read, Verdict::AutoScan(vec![Chosen { choice: Choice::Skip, reason: 0 }]));
}

#[test]
fn an_error_names_the_place_and_what_would_be_right() {
    let cases = [
        (json!([]), "input: expected an object, found []"),
        (json!({}), "slot: is missing"),
        (
            json!({ "slot": "retries" }),
            "slot: expected one of auto-scan, retry, concurrency, bandwidth, order, found \"retries\"",
        ),
        (json!({ "slot": "retry" }), "attempt: is missing"),
        (
            json!({ "slot": "bandwidth", "now": { "due": -1 } }),
            "now.due: expected a whole number from 0 to 4294967295, found -1",
        ),
        (
            json!({ "slot": "bandwidth", "now": { "seed": 1.5 } }),
            "now.seed: expected a whole number from 0 to 18446744073709551615, found 1.5",
        ),
        (
            json!({ "slot": "order", "batch": [{ "job": 1 }, { "job": 2, "labels": [["a"]] }] }),
            "batch[1].labels[0]: expected a pair of texts, found [\"a\"]",
        ),
        (
            json!({ "slot": "auto-scan", "batch": [{ "id": 1, "tires": 2 }] }),
            "batch[0].tires: is no field here; there are id, device, size, age, tries, labels",
        ),
    ];
    for (value, error) in cases {
        assert_eq!(read_question(&value).unwrap_err().to_string(), error);
    }
    let error = read_verdict(&json!({ "slot": "retry", "action": { "later": 3 } })).unwrap_err().to_string();
    assert!(error.starts_with("action: expected \"park\", {\"after\": <milliseconds>}"), "{error}");
}

#[test]
fn settings_are_flags_numbers_and_texts() {
    let given = vec![
        (String::from("a"), SettingValue::Flag(true)),
        (String::from("b"), SettingValue::Int(i64::MIN)),
        (String::from("c"), SettingValue::Text(String::from("x"))),
    ];
    assert_eq!(read_settings(&settings(&given)).unwrap(), given);
    let error = read_settings(&json!({ "a": 1.5 })).unwrap_err().to_string();
    assert_eq!(error, "a: expected true, false, a whole number of 64 bits or a text, found 1.5");
    assert!(read_settings(&json!(7)).is_err());
}

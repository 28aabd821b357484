//! Questions with known answers, one JSON object a line: the vectors of an author and the decisions of a site. Reads them
//! and asks them; what an answer is worth is decided elsewhere.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tidegate_core::policy::{Question, Slot, Verdict};
use tidegate_policies::{Asked, Sitting, json};

use super::local::Admitted;
use super::settings::{Given, nearest};
use super::{desk, grouped};
use crate::Failure;

/// A question and the answer it got, or is to get.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Vector {
    /// File and line, for people.
    pub(crate) place: String,
    pub(crate) slot: Slot,
    pub(crate) question: Question,
    pub(crate) verdict: Verdict,
    /// Most fuel the answer may take.
    fuel: Option<u64>,
    /// Settings it is asked with, before those of the command line.
    settings: Vec<Given>,
}

/// Reads a file of vectors or of decisions.
pub(crate) fn read(file: &Path) -> Result<Vec<Vector>, Failure> {
    let text = desk::read_text(file)?;
    let mut vectors = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let place = format!("{}:{}", file.display(), n + 1);
        let vector = read_line(&place, line).map_err(|why| Failure::failed(format!("{place}: {why}")))?;
        vectors.push(vector);
    }
    if vectors.is_empty() {
        return Err(Failure::failed(format!("{} holds no decision", file.display())));
    }
    Ok(vectors)
}

fn read_line(place: &str, line: &str) -> Result<Vector, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
    if !value.is_object() {
        return Err("a JSON object is needed: {\"slot\", \"question\", \"verdict\"}".to_owned());
    }
    let slot = slot_of(&value)?;
    let question = with_slot(&value["question"], slot)
        .and_then(|question| json::read_question(&question).map_err(|why| why.to_string()))
        .map_err(|why| format!("question: {why}"))?;
    let verdict = with_slot(&value["verdict"], slot)
        .and_then(|verdict| json::read_verdict(&verdict).map_err(|why| why.to_string()))
        .map_err(|why| format!("verdict: {why}"))?;
    let fuel = match &value["fuel_at_most"] {
        Value::Null => None,
        fuel => Some(fuel.as_u64().ok_or("fuel_at_most must be a whole number")?),
    };
    let mut settings = Vec::new();
    match &value["settings"] {
        Value::Null => {}
        Value::Object(given) => {
            for (key, value) in given {
                settings.push(Given::of(key, value)?);
            }
        }
        _ => return Err("settings must be an object".to_owned()),
    }
    Ok(Vector { place: place.to_owned(), slot, question, verdict, fuel, settings })
}

/// A question or a verdict that says of which slot it is; who reads it knows, so it may be left out.
pub(super) fn with_slot(value: &Value, slot: Slot) -> Result<Value, String> {
    let mut value = value.clone();
    let fields = value.as_object_mut().ok_or("must be an object")?;
    let said = fields.entry("slot").or_insert_with(|| slot.name().into());
    if said != slot.name() {
        return Err(format!("it is of {said}, not of {}", slot.name()));
    }
    Ok(value)
}

/// A verdict for people: the fields without the slot, which stands beside it.
pub(super) fn brief(verdict: &Verdict) -> String {
    let mut value = json::verdict(verdict);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("slot");
    }
    value.to_string()
}

fn slot_of(value: &Value) -> Result<Slot, String> {
    let names = Slot::ALL.map(Slot::name);
    let said = if value["slot"].is_null() { &value["question"]["slot"] } else { &value["slot"] };
    match said.as_str() {
        None => Err(format!("slot must be one of {}", names.join(", "))),
        Some(word) => Slot::of(word).ok_or_else(|| match nearest(word, names.into_iter()) {
            Some(near) => format!("there is no slot {word}; did you mean {near}?"),
            None => format!("there is no slot {word}; there are {}", names.join(", ")),
        }),
    }
}

/// Seats of a module, made as they are needed: vectors may differ in their settings.
pub(crate) struct Seats<'a> {
    admitted: &'a Admitted,
    given: &'a [Given],
    seats: BTreeMap<String, Sitting>,
}

impl<'a> Seats<'a> {
    pub(crate) fn new(admitted: &'a Admitted, given: &'a [Given]) -> Seats<'a> {
        Seats { admitted, given, seats: BTreeMap::new() }
    }

    /// Asks the module a vector's question.
    pub(crate) fn ask(&mut self, vector: &Vector) -> Result<Asked, Failure> {
        let given: Vec<Given> = vector.settings.iter().chain(self.given).cloned().collect();
        let key = format!("{} {}", vector.slot.name(), super::settings::to_json(&given));
        if !self.seats.contains_key(&key) {
            let sitting = self.admitted.seat(vector.slot, &given).map_err(|failure| {
                Failure::new(failure.exit, format!("{}: {}", vector.place, failure.text))
            })?;
            self.seats.insert(key.clone(), sitting);
        }
        let sitting = self.seats.get(&key).ok_or_else(|| Failure::failed("a seat is lost"))?;
        Ok(sitting.ask(&vector.question))
    }
}

/// A vector that was asked.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) place: String,
    pub(crate) slot: Slot,
    pub(crate) fuel: u64,
    /// What is wrong with the answer.
    pub(crate) wrong: Option<String>,
}

/// Asks every vector and compares, to the letter.
pub(crate) fn run(admitted: &Admitted, given: &[Given], vectors: &[Vector]) -> Result<Vec<Run>, Failure> {
    let mut seats = Seats::new(admitted, given);
    let mut runs = Vec::new();
    for vector in vectors {
        let asked = seats.ask(vector)?;
        let wrong = match &asked.outcome {
            Err(trouble) => Some(trouble.to_string()),
            Ok((verdict, _)) if *verdict != vector.verdict => {
                Some(format!("expected {}\n    found    {}", brief(&vector.verdict), brief(verdict)))
            }
            Ok(_) => vector.fuel.filter(|most| asked.fuel > *most).map(|most| {
                format!("took {} of fuel, at most {} are expected", grouped(asked.fuel), grouped(most))
            }),
        };
        runs.push(Run { place: vector.place.clone(), slot: vector.slot, fuel: asked.fuel, wrong });
    }
    Ok(runs)
}

/// What came of the vectors, for people: the failed ones each, the others counted.
pub(crate) fn lines(runs: &[Run]) -> Vec<String> {
    let mut lines = Vec::new();
    if runs.is_empty() {
        return lines;
    }
    for run in runs {
        if let Some(wrong) = &run.wrong {
            lines.push(format!("failed    {}  {}\n    {wrong}", run.place, run.slot.name()));
        }
    }
    let good = runs.iter().filter(|run| run.wrong.is_none()).count();
    let most = runs.iter().map(|run| run.fuel).max().unwrap_or(0);
    lines.push(format!("vectors   {good} of {} good, at most {} of fuel", runs.len(), grouped(most)));
    lines.push(String::new());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::example;
    use serde_json::json;

    fn line(change: impl FnOnce(&mut Value)) -> Result<Vector, String> {
        let mut value = json!({
            "slot": "concurrency",
            "question": tidegate_policies::json::question(&example::question(Slot::Concurrency)),
            "verdict": {"uploads": 2, "recheck": 0, "memo": 0, "reason": 1},
        });
        change(&mut value);
        read_line("here", &value.to_string())
    }

    #[test]
    fn a_vector_is_a_slot_a_question_and_a_verdict() {
        let vector = line(|_| {}).expect("a vector");
        assert_eq!((vector.slot, vector.question), (Slot::Concurrency, example::question(Slot::Concurrency)));
        assert_eq!((vector.fuel, vector.settings.len()), (None, 0));
        let more = line(|value| {
            value["fuel_at_most"] = json!(500);
            value["settings"] = json!({"from-hour": 21, "night": true, "zone": "a"});
        });
        let more = more.expect("a vector");
        assert_eq!((more.fuel, more.settings.len()), (Some(500), 3));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        type Spoil = (fn(&mut Value), &'static str);
        let cases: [Spoil; 7] = [
            (|value| value["slot"] = json!("concurency"), "did you mean concurrency?"),
            (|value| value["slot"] = json!("colour"), "there are auto-scan"),
            (|value| value["slot"] = json!("retry"), "question: it is of \"concurrency\", not of retry"),
            (|value| value["question"] = json!(5), "question: must be an object"),
            (|value| value["question"]["now"]["duo"] = json!(1), "question: now.duo"),
            (|value| value["verdict"] = json!(5), "verdict: "),
            (|value| value["fuel_at_most"] = json!(-1), "fuel_at_most must be"),
        ];
        for (change, words) in cases {
            let why = line(change).expect_err("a wrong line");
            assert!(why.contains(words), "{words}: {why}");
        }
        assert!(read_line("here", "{").is_err_and(|why| why.starts_with("no JSON")));
        assert!(read_line("here", "[]").is_err_and(|why| why.contains("object")));
    }
}

//! `tidegate policy run`: one question to a module, with its answer, its reason and its cost.

use std::path::Path;

use serde_json::{Value, json};
use tidegate_core::policy::{Question, Slot, UNSPECIFIED, Verdict};
use tidegate_policies::{Asked, json as words};

use super::args::RunOne;
use super::bench::span;
use super::vectors::{brief, with_slot};
use super::{desk, example, grouped, local};
use crate::{Done, Failure, say};

pub(super) fn run(args: &RunOne) -> Done {
    if args.example {
        say(&pretty(&words::question(&example::question(args.slot)))?);
        return Ok(());
    }
    let question = match &args.input {
        Some(file) => read(file, args.slot)?,
        None => example::question(args.slot),
    };
    let host = local::host()?;
    let admitted = local::admit(&host, &args.module)?;
    let asked = admitted.seat(args.slot, &args.settings.given)?.ask(&question);
    let budget = host.ceilings().fuel_for(&question);
    if args.json {
        say(&pretty(&as_json(&asked, budget))?);
    } else {
        if args.input.is_none() {
            say("asked an example; --example prints it, --input asks another");
        }
        for line in lines(&asked, budget) {
            say(&line);
        }
    }
    match asked.outcome {
        Ok(_) => Ok(()),
        Err(trouble) => Err(Failure::failed(format!(
            "{} gave no answer: {trouble}\nA site would let the built-in rules decide, and count a fault.",
            admitted.name()
        ))),
    }
}

fn read(file: &Path, slot: Slot) -> Result<Question, Failure> {
    let text = desk::read_text(file)?;
    let wrong = |why: String| Failure::failed(format!("{}: {why}", file.display()));
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(format!("no JSON: {error}")))?;
    // A recorded decision holds its question.
    let question = value.get("question").unwrap_or(&value);
    with_slot(question, slot)
        .and_then(|question| words::read_question(&question).map_err(|why| why.to_string()))
        .map_err(|why| {
            let fit = format!("`tidegate policy run MODULE {} --example` prints one that fits", slot.name());
            wrong(format!("{why}\n{fit}"))
        })
}

fn pretty(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))
}

/// The words of the reasons in a verdict, each once.
fn reasons(verdict: &Verdict, known: &[String]) -> Vec<String> {
    let numbers: Vec<u16> = match verdict {
        Verdict::AutoScan(chosen) => chosen.iter().map(|chosen| chosen.reason).collect(),
        Verdict::Retry(verdict) => vec![verdict.reason],
        Verdict::Concurrency(verdict) => vec![verdict.reason],
        Verdict::Bandwidth(verdict) => vec![verdict.reason],
        Verdict::Order(verdict) => vec![verdict.reason],
    };
    let mut found: Vec<String> = Vec::new();
    for number in numbers {
        let word = match usize::from(number).checked_sub(1) {
            None => UNSPECIFIED,
            Some(n) => known.get(n).map_or("unknown", String::as_str),
        };
        if !found.iter().any(|other| other == word) {
            found.push(word.to_owned());
        }
    }
    found
}

fn lines(asked: &Asked, budget: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Ok((verdict, known)) = &asked.outcome {
        lines.push(format!("verdict  {}", brief(verdict)));
        lines.push(format!("reason   {}", reasons(verdict, known).join(", ")));
    }
    lines.push(format!(
        "fuel     {} of {}, and {} to start",
        grouped(asked.fuel),
        grouped(budget),
        grouped(asked.start_fuel)
    ));
    lines.push(format!("time     {}", span(asked.took)));
    for (n, (level, text)) in asked.log.iter().enumerate() {
        let head = if n == 0 { "log" } else { "" };
        lines.push(format!("{head:<7}  {}: {text}", level.name()));
    }
    lines
}

fn as_json(asked: &Asked, budget: u64) -> Value {
    let log: Vec<Value> =
        asked.log.iter().map(|(level, text)| json!({"level": level.name(), "text": text})).collect();
    let mut value = json!({
        "fuel": asked.fuel, "start_fuel": asked.start_fuel, "budget": budget, "memory": asked.memory,
        "took_ns": u64::try_from(asked.took.as_nanos()).unwrap_or(u64::MAX), "log": log,
    });
    match &asked.outcome {
        Ok((verdict, known)) => {
            value["verdict"] = words::verdict(verdict);
            value["reasons"] = json!(reasons(verdict, known));
        }
        Err(trouble) => {
            value["fault"] = json!(trouble.fault.code());
            value["detail"] = json!(trouble.detail);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::policy::{Choice, Chosen};

    #[test]
    fn reasons_are_told_in_words_each_once() {
        let chosen = |reason| Chosen { choice: Choice::Later, reason };
        let verdict = Verdict::AutoScan(vec![chosen(2), chosen(0), chosen(2), chosen(1)]);
        let known = ["one".to_owned(), "two".to_owned()];
        assert_eq!(reasons(&verdict, &known), ["two", UNSPECIFIED, "one"]);
    }

    #[test]
    fn an_example_of_every_slot_reads_back_as_it_was() {
        for slot in Slot::ALL {
            let question = example::question(slot);
            assert_eq!(words::read_question(&words::question(&question)), Ok(question));
        }
    }
}

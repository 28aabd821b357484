//! `tidegate policy check`: admits a module as a site does, and shows what it is, takes and costs. Runs vectors of the
//! author beside those of the site.

use serde_json::{Value, json};
use tidegate_core::policy::Slot;
use tidegate_policies::Host;

use super::args::Check;
use super::local::{self, Admitted};
use super::settings::{Given, value_json, value_text};
use super::vectors;
use super::{example, grouped};
use crate::ask::bytes;
use crate::{Done, Failure, say};

pub(super) fn check(args: &Check) -> Done {
    let host = local::host()?;
    let admitted = local::admit(&host, &args.module)?;
    let mut vectors = Vec::new();
    for file in &args.vectors {
        vectors.extend(vectors::read(file)?);
    }
    let costs = costs(&host, &admitted, &args.settings.given)?;
    let runs = vectors::run(&admitted, &args.settings.given, &vectors)?;
    let failed = runs.iter().filter(|run| run.wrong.is_some()).count();
    if args.json {
        say(&as_json(&admitted, &costs, &runs).to_string());
    } else {
        for line in summary(&host, &admitted, &costs) {
            say(&line);
        }
        for line in vectors::lines(&runs) {
            say(&line);
        }
    }
    match failed {
        0 if args.json => Ok(()),
        0 => {
            say("admitted");
            Ok(())
        }
        n => Err(Failure::failed(format!("{n} of {} vectors failed", runs.len()))),
    }
}

/// What the example costs in each slot.
struct Cost {
    slot: Slot,
    fuel: u64,
    start_fuel: u64,
    budget: u64,
    memory: usize,
}

fn costs(host: &Host, admitted: &Admitted, given: &[Given]) -> Result<Vec<Cost>, Failure> {
    let mut costs = Vec::new();
    for slot in admitted.module.facts().slots.clone() {
        let sitting = admitted.seat(slot, given)?;
        let question = example::question(slot);
        let asked = sitting.ask(&question);
        costs.push(Cost {
            slot,
            fuel: asked.fuel,
            start_fuel: asked.start_fuel,
            budget: host.ceilings().fuel_for(&question),
            memory: asked.memory,
        });
    }
    Ok(costs)
}

fn summary(host: &Host, admitted: &Admitted, costs: &[Cost]) -> Vec<String> {
    let facts = admitted.module.facts();
    let about = admitted.module.about();
    let ceilings = host.ceilings();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let slots: Vec<&str> = facts.slots.iter().map(|slot| slot.name()).collect();
    let mut lines = vec![
        format!("{} {}  {}", facts.name, facts.version, facts.summary),
        String::new(),
        format!("sha256    {}", admitted.hash()),
        format!("size      {} of {}", bytes(facts.size), bytes(count(ceilings.bytes))),
        format!("slots     {}", slots.join(", ")),
        format!("patience  {}", patience(facts.patience_ms)),
        format!(
            "reasons   {}",
            if about.reasons.is_empty() { "none".to_owned() } else { about.reasons.join(", ") }
        ),
    ];
    if about.settings.is_empty() {
        lines.push("settings  none".to_owned());
    } else {
        let width = about.settings.iter().map(|doc| doc.key.len()).max().unwrap_or(0);
        let values: Vec<String> = about.settings.iter().map(|doc| value_text(&doc.default)).collect();
        let value_width = values.iter().map(String::len).max().unwrap_or(0);
        for (n, (doc, value)) in about.settings.iter().zip(&values).enumerate() {
            let head = if n == 0 { "settings" } else { "" };
            lines.push(format!("{head:<8}  {:<width$}  {value:<value_width$}  {}", doc.key, doc.help));
        }
    }
    for (n, cost) in costs.iter().enumerate() {
        let head = if n == 0 { "fuel" } else { "" };
        lines.push(format!(
            "{head:<8}  {:<11}  {} of {}, and {} to start; {} of memory",
            cost.slot.name(),
            grouped(cost.fuel),
            grouped(cost.budget),
            grouped(cost.start_fuel),
            bytes(count(cost.memory)),
        ));
    }
    lines.push(String::new());
    lines
}

/// How long it may let nothing begin.
fn patience(ms: u64) -> String {
    match (ms, ms / 60_000) {
        (0, _) => "the site's default".to_owned(),
        (ms, 0) => format!("{ms} ms"),
        (_, minutes) if minutes % 60 == 0 => format!("{} h", minutes / 60),
        (_, minutes) => format!("{minutes} min"),
    }
}

fn as_json(admitted: &Admitted, costs: &[Cost], runs: &[vectors::Run]) -> Value {
    let facts = admitted.module.facts();
    let about = admitted.module.about();
    let slots: Vec<&str> = facts.slots.iter().map(|slot| slot.name()).collect();
    let settings: Vec<Value> = about
        .settings
        .iter()
        .map(|doc| json!({"key": doc.key, "help": doc.help, "default": value_json(&doc.default)}))
        .collect();
    let costs: Vec<Value> = costs
        .iter()
        .map(|cost| {
            json!({"slot": cost.slot.name(), "fuel": cost.fuel, "start_fuel": cost.start_fuel,
                   "budget": cost.budget, "memory": cost.memory})
        })
        .collect();
    let runs: Vec<Value> = runs
        .iter()
        .map(|run| json!({"place": run.place, "slot": run.slot.name(), "fuel": run.fuel, "wrong": run.wrong}))
        .collect();
    json!({
        "name": facts.name, "version": facts.version, "summary": facts.summary, "sha256": admitted.hash(),
        "size": facts.size, "slots": slots, "patience_ms": facts.patience_ms, "reasons": about.reasons.to_vec(),
        "settings": settings, "costs": costs, "vectors": runs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_told_in_hours_or_minutes() {
        assert_eq!(patience(0), "the site's default");
        assert_eq!(patience(5_000), "5000 ms");
        assert_eq!(patience(50_400_000), "14 h");
        assert_eq!(patience(5_400_000), "90 min");
    }
}

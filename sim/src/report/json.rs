//! JSON for programs: one object a line, each with a `type`. Renders only.
//!
//! | `type` | Fields |
//! |---|---|
//! | `run` | `name`; `seed` or `file` or `scenario`; `bug`, `expect` (or null); `verdict` (`passed`, `failed-as-expected`, `failed`, `passes`, `failed-otherwise`); `chain`, `events`, `steps` (of machines), `simulated_ms`, `took_ms`; `failure` (or null); `stuck`, `marks`, `fired` (fault to count), `cloud_objects`, `cloud_ops`, `commits`, `held` (recordings still on devices); `log` if asked for |
//! | (`failure` of `run`) | `signature`, `kind`, `exit_code`, `invariant`, `sentence`, `saw`, `panicked_at`, `at_ms`, `event`, `phase`, `inputs`, `again` (a command), `log` (the last 40 lines), `minimal` (or null: `events_before`, `events_after`, `tries`, `elapsed_ms`, `minimal`, `scenario`) |
//! | `coverage` | `seeds`, `events`, `steps`, `simulated_ms`, `states`, `transitions`, `pairs` (arrays of fault and phase), `growth` (array of `seeds`, `states`, `transitions`, `pairs`), `premises`, `marks`, `fired` (name to count), `never_hit`, `vacuous`, `never_fired`; from `coverage` also `failed` (runs); from `nightly` also `from` and `failures` (array of `signature`, `times`, `first`) |
//! | `meta` | `seeds`, `equal`, `differs` (or null: `seed`, `event`, `same_until`, `first`, `second`) |
//! | `bank` | `id`, `sentence`, `expects`, `verdict` (`found`, `otherwise`, `missed`, `later`), `by` (invariant to count), `named_first`, `found_at` (seeds), `runs`, `seeds_median`, `seeds_p95`, `seeds_anyway` (of all hunts, seeds that fail without the bug as well), `cpu_s`, `later`, `fixed_in` |
//! | `figures` | `build`; `ordinary`, `busy`, `idle`: `runs`, `events`, `cpu_s`, `events_per_s`, `simulated_h_per_cpu_h`, `checks_percent`; `shrink`: `failures`, `events_before_median`, `events_after_median`, `tries_median`, `s_median`, `s_max` |
//! | `list` | arrays of objects: `scenarios`, `faults`, `invariants`, `bugs`, `marks` |
//!
//! The command's exit code is the verdict over all of them.

use serde_json::{Value, json};

use super::{Case, Origin, Verdict, human, sentences};

/// One run.
#[must_use]
pub fn run(case: &Case, whole_log: bool) -> Value {
    let report = &case.report;
    let mut out = json!({
        "type": "run",
        "name": case.name(),
        "bug": case.scenario.bug.map(|bug| bug.id()),
        "expect": case.scenario.expect,
        "verdict": match case.verdict() {
            Verdict::Passed => "passed",
            Verdict::FailedAsExpected => "failed-as-expected",
            Verdict::Failed => "failed",
            Verdict::Passes => "passes",
            Verdict::FailedOtherwise => "failed-otherwise",
        },
        "chain": report.chain,
        "events": report.events,
        "steps": report.steps,
        "simulated_ms": millis(report.simulated),
        "took_ms": millis(case.took),
        "failure": failure(case),
        "stuck": report.stuck,
        "marks": report.marks,
        "fired": report.fired,
        "cloud_objects": report.cloud_objects,
        "cloud_ops": report.cloud_ops,
        "commits": report.commits,
        "held": report.held,
    });
    match &case.origin {
        Origin::Seed(seed) => out["seed"] = json!(seed),
        Origin::File(path) => out["file"] = json!(path),
        Origin::Named(name) => out["scenario"] = json!(name),
    }
    if whole_log {
        out["log"] = json!(report.log);
    }
    out
}

fn failure(case: &Case) -> Value {
    let Some(failure) = &case.report.failure else { return Value::Null };
    let minimal = case.minimal.as_ref().map(|(shrunk, text)| {
        json!({
            "events_before": shrunk.events_before,
            "events_after": shrunk.events_after,
            "tries": shrunk.tries,
            "elapsed_ms": millis(shrunk.elapsed),
            "minimal": shrunk.minimal,
            "scenario": text,
        })
    });
    json!({
        "signature": failure.signature(),
        "kind": human::kind(failure.kind),
        "exit_code": failure.kind.exit_code(),
        "invariant": failure.invariant,
        "sentence": sentences::sentence(&failure.invariant),
        "saw": failure.saw,
        "panicked_at": case.panicked_at,
        "at_ms": failure.at.millis(),
        "event": failure.event,
        "phase": failure.phase,
        "inputs": failure.inputs,
        "again": case.again(),
        "log": human::last_lines(&case.report.log),
        "minimal": minimal,
    })
}

/// Whole milliseconds.
#[must_use]
pub fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::report::tests;

    #[test]
    fn a_run_is_one_object_on_one_line_and_says_how_it_failed() {
        let passed = run(&tests::case(None), false);
        assert_eq!((&passed["verdict"], &passed["failure"]), (&"passed".into(), &serde_json::Value::Null));
        assert_eq!(passed["seed"], 42);
        assert!(passed.get("log").is_none() && !passed.to_string().contains('\n'));
        let failed = run(&tests::case(Some(tests::failure())), true);
        assert_eq!(failed["failure"]["signature"], "I18/ObjectDone");
        assert_eq!(failed["failure"]["exit_code"], 10);
        assert_eq!(failed["failure"]["log"].as_array().map(Vec::len), Some(40));
        assert_eq!(failed["log"].as_array().map(Vec::len), Some(100));
    }
}

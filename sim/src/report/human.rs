//! Lines for people: one for each run, and everything one needs about a failure. Renders only.

use std::fmt::Write;

use super::{Case, LINES_AROUND, Verdict, sentences};
use crate::run::FailureKind;
use crate::time;

/// One line about a run, in fixed columns.
#[must_use]
pub fn line(case: &Case) -> String {
    let word = match case.verdict() {
        Verdict::Passed => "ok",
        Verdict::FailedAsExpected => "ok, fails",
        Verdict::Failed => "FAILED",
        Verdict::Passes => "PASSES",
        Verdict::FailedOtherwise => "OTHERWISE",
    };
    let report = &case.report;
    let chain: String = report.chain.chars().take(16).collect();
    let mut line = format!(
        "{:<40} {word:<9} {:>9} events {:>15} simulated {:>3} steps {:>3} faults  {chain:<16}",
        label(case),
        report.events,
        time::text(report.simulated),
        case.scenario.steps.len(),
        case.scenario.faults.len(),
    );
    if let Some(failure) = &report.failure {
        write!(line, "  {}", failure.signature()).expect("writing to a string cannot fail");
    }
    line.truncate(line.trim_end().len());
    line
}

/// What a run is called in a table: of a file its last name, cut so that columns stay where they are.
fn label(case: &Case) -> String {
    let name = case.name();
    let last = name.rsplit('/').next().unwrap_or_default();
    let mut label = last.strip_suffix(".toml").unwrap_or(last).to_string();
    if label.chars().count() > NAME_MAX {
        label = label.chars().take(NAME_MAX - 1).collect::<String>() + "…";
    }
    label
}

/// Letters of a name in a table.
const NAME_MAX: usize = 40;

/// Everything about a failure, in several lines; empty if there is none to tell.
#[must_use]
pub fn failure(case: &Case) -> String {
    let mut out = String::new();
    tell(case, &mut out).expect("writing to a string cannot fail");
    out
}

fn tell(case: &Case, out: &mut String) -> std::fmt::Result {
    let Some(failure) = &case.report.failure else {
        if let Some(expected) = &case.scenario.expect {
            let says = sentences::sentence(expected);
            writeln!(out, "  expected   {expected} to break, and nothing did: {says}")?;
            writeln!(out, "  again      {}", case.again())?;
        }
        return Ok(());
    };
    writeln!(out, "  signature  {}", failure.signature())?;
    writeln!(out, "  kind       {} (exit code {})", kind(failure.kind), failure.kind.exit_code())?;
    writeln!(out, "  invariant  {}  {}", failure.invariant, sentences::sentence(&failure.invariant))?;
    if let Some(expected) = case.scenario.expect.as_ref().filter(|id| **id != failure.invariant) {
        writeln!(out, "  expected   {expected} to break first: {}", sentences::sentence(expected))?;
    }
    writeln!(out, "  saw        {}", failure.saw)?;
    if let Some(place) = &case.panicked_at {
        writeln!(out, "  panicked   {place}")?;
    }
    writeln!(
        out,
        "  when       {} at event {}, after {}",
        failure.at,
        failure.event,
        failure.inputs.join(", ")
    )?;
    writeln!(out, "  the core   {}", failure.phase)?;
    writeln!(out, "  again      {}", case.again())?;
    match &case.minimal {
        Some((shrunk, text)) => {
            let how = if shrunk.minimal { "nothing more goes" } else { "stopped by its limits" };
            writeln!(
                out,
                "  minimal    {} events of {}, {} runs, {:.1} s, {how}",
                shrunk.events_after,
                shrunk.events_before,
                shrunk.tries,
                shrunk.elapsed.as_secs_f64()
            )?;
            for line in text.lines() {
                writeln!(out, "    {line}")?;
            }
        }
        None => writeln!(out, "  minimal    not looked for; `shrink` does")?,
    }
    let log = last_lines(&case.report.log);
    writeln!(out, "  log        the last {} lines, up to the violation", log.len())?;
    for line in log {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

/// The part of a log that is shown with a failure.
#[must_use]
pub fn last_lines(log: &[String]) -> &[String] {
    &log[log.len().saturating_sub(LINES_AROUND)..]
}

/// The word for a kind of failure.
#[must_use]
pub fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Invariant => "invariant",
        FailureKind::Liveness => "liveness",
        FailureKind::Crash => "crash",
        FailureKind::NonDeterminism => "non-determinism",
    }
}

#[cfg(test)]
mod tests {
    use super::{failure, line};
    use crate::report::tests;
    use crate::shrink::Shrunk;
    use std::time::Duration;

    #[test]
    fn a_run_is_one_line_and_columns_do_not_move() {
        let passed = line(&tests::case(None));
        let failed = line(&tests::case(Some(tests::failure())));
        assert!(!passed.contains('\n') && !failed.contains('\n'));
        assert_eq!(passed.find("events"), failed.find("events"));
        assert!(passed.contains(" ok ") && passed.ends_with("00ff"), "{passed}");
        assert!(failed.contains("FAILED") && failed.ends_with("I18/ObjectDone"), "{failed}");
    }

    #[test]
    fn a_failure_tells_what_broke_how_to_repeat_it_and_the_last_forty_lines() {
        let mut case = tests::case(Some(tests::failure()));
        let shrunk = Shrunk {
            scenario: tests::scenario(),
            signature: Some("I18/ObjectDone".to_string()),
            tries: 77,
            events_before: 50,
            events_after: 3,
            elapsed: Duration::from_millis(1500),
            minimal: true,
        };
        case.minimal = Some((shrunk, "seed = 42\n".to_string()));
        let text = failure(&case);
        for part in [
            "I18/ObjectDone",
            "kind       invariant (exit code 10)",
            "A completed job has its object in the cloud",
            "no object at",
            "run --seed 42 --log",
            "3 events of 50, 77 runs, 1.5 s, nothing more goes",
            "    seed = 42",
            "the last 40 lines",
            "    line 61.\n",
            "    line 100.\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("line 60."));
        assert_eq!(failure(&tests::case(None)), "");
    }
}

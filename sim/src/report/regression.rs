//! What stays of a failure in the repository: the file's name, the words in it, and a test that runs it. Writes nothing
//! itself.

use super::sentences;
use crate::run::Failure;
use crate::scenario::Scenario;

/// Most letters of a file's name, so that lists stay readable.
const NAME_MAX: usize = 60;

/// A name that says what went wrong: the invariant, the last input, and what kinds of faults it takes. Letters, digits
/// and dashes.
#[must_use]
pub fn name(scenario: &Scenario, failure: &Failure) -> String {
    let mut words = vec![failure.invariant.as_str()];
    words.extend(failure.inputs.last().map(String::as_str));
    for spec in &scenario.faults {
        let word = spec.fault.name().1;
        if !words.contains(&word) {
            words.push(word);
        }
    }
    let mut name = String::new();
    let mut lower = false;
    for c in words.join("-").chars() {
        if c.is_ascii_uppercase() && lower {
            name.push('-');
        }
        lower = c.is_ascii_lowercase();
        let c = if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        if !(c == '-' && name.ends_with('-')) {
            name.push(c);
        }
    }
    name.truncate(NAME_MAX);
    name.trim_matches('-').to_string()
}

/// The scenario as it is kept: named after what went wrong, with what was seen. It must pass from now on, unless it runs
/// with a planted bug: then it must fail in this way for ever.
#[must_use]
pub fn kept(scenario: &Scenario, failure: &Failure) -> Scenario {
    Scenario {
        name: name(scenario, failure),
        about: format!("{} Seen: {}", sentences::sentence(&failure.invariant), brief(&failure.saw)),
        expect: scenario.bug.map(|_| failure.invariant.clone()),
        ..scenario.clone()
    }
}

/// What was seen, on one line that can be read at a glance.
fn brief(saw: &str) -> String {
    let mut text: String = saw.replace('\n', " ").chars().take(SAW_MAX + 1).collect();
    if text.chars().count() > SAW_MAX {
        text.pop();
        text.push('…');
    }
    text
}

/// Letters of what was seen that stay in a file.
const SAW_MAX: usize = 160;

/// A test that runs `corpus/<name>.toml` from a file in `sim/tests`.
#[must_use]
pub fn test(kept: &Scenario, failure: &Failure) -> String {
    let function = kept.name.replace('-', "_");
    let (invariant, saw) = (&failure.invariant, brief(&failure.saw));
    let says = sentences::sentence(invariant);
    let file = format!("../corpus/{}.toml", kept.name);
    let (verdict, gate) = match (&kept.bug, &kept.expect) {
        (Some(_), Some(expected)) => (
            format!(
                "    assert_eq!(report.failure.map(|failure| failure.invariant).as_deref(), Some({expected:?}));\n"
            ),
            "    if !tidegate_core::bug::PLANTED {\n        return;\n    }\n",
        ),
        _ => ("    assert_eq!(report.failure, None);\n".to_string(), ""),
    };
    format!(
        "/// {invariant}: {says}\n/// Seen: {saw}\n#[test]\nfn {function}() {{\n{gate}    let text = \
         include_str!({file:?});\n    let scenario = tidegate_sim::scenario::text::parse(text).expect(\"a scenario \
         file\");\n    let report = tidegate_sim::run::run(&scenario, tidegate_sim::run::Options::default());\n\
         {verdict}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::{kept, test};
    use crate::report::tests;
    use crate::scenario::{Fault, FaultSpec, Lasts, Path, When};
    use std::time::Duration;
    use tidegate_core::bug::Bug;

    #[test]
    fn a_regression_is_named_after_what_went_wrong_and_its_test_reads_that_file() {
        let mut scenario = tests::scenario();
        for _ in 0..2 {
            scenario.faults.push(FaultSpec {
                when: When::At(Duration::ZERO),
                lasts: Lasts::Chaos,
                fault: Fault::Hold { path: Path::Site(0) },
            });
        }
        let kept = kept(&scenario, &tests::failure());
        assert_eq!(kept.name, "i18-object-done-hold");
        assert_eq!(kept.expect, None);
        assert!(kept.about.contains("no object at"));
        let text = test(&kept, &tests::failure());
        assert!(text.contains("fn i18_object_done_hold()"), "{text}");
        assert!(text.contains("include_str!(\"../corpus/i18-object-done-hold.toml\")"), "{text}");
        assert!(text.contains("assert_eq!(report.failure, None);"), "{text}");
    }

    #[test]
    fn a_planted_bug_keeps_failing_by_the_invariant_that_found_it() {
        let scenario = crate::scenario::Scenario { bug: Some(Bug::B14), ..tests::scenario() };
        let kept = kept(&scenario, &tests::failure());
        assert_eq!(kept.expect.as_deref(), Some("I18"));
        let text = test(&kept, &tests::failure());
        assert!(text.contains("Some(\"I18\")") && text.contains("if !tidegate_core::bug::PLANTED"), "{text}");
    }
}

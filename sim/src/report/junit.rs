//! JUnit's XML for continuous integration: one case for each run. Renders only.

use std::fmt::Write;

use super::{Case, human};

/// A whole document: one suite with one case for each run.
#[must_use]
pub fn document(suite: &str, cases: &[Case]) -> String {
    let bad = cases.iter().filter(|case| !case.verdict().is_good()).count();
    let took: f64 = cases.iter().map(|case| case.took.as_secs_f64()).sum();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts =
        format!("tests=\"{}\" failures=\"{bad}\" errors=\"0\" skipped=\"0\" time=\"{took:.3}\"", cases.len());
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a string cannot fail");
    line(format!("<testsuites {counts}>"));
    line(format!("  <testsuite name=\"{}\" {counts}>", escaped(suite)));
    for case in cases {
        let (name, took) = (escaped(&case.name()), case.took.as_secs_f64());
        let head =
            format!("    <testcase classname=\"{}\" name=\"{name}\" time=\"{took:.3}\"", escaped(suite));
        if case.verdict().is_good() {
            line(format!("{head}/>"));
            continue;
        }
        let signature = case.report.failure.as_ref().map_or_else(|| "passes".to_string(), |f| f.signature());
        line(format!("{head}>"));
        line(format!(
            "      <failure message=\"{}\">{}</failure>",
            escaped(&signature),
            escaped(&human::failure(case))
        ));
        line("    </testcase>".to_string());
    }
    line("  </testsuite>".to_string());
    line("</testsuites>".to_string());
    out
}

/// Text as XML allows it, in attributes too; control characters, which it does not allow at all, become `?`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{document, escaped};
    use crate::report::tests;

    #[test]
    fn each_run_is_a_case_and_failures_are_counted_and_escaped() {
        let cases = [tests::case(None), tests::case(Some(tests::failure()))];
        let xml = document("run", &cases);
        assert!(xml.contains("<testsuite name=\"run\" tests=\"2\" failures=\"1\""), "{xml}");
        assert!(xml.contains("name=\"seed 42\" time=\"0.012\"/>"), "{xml}");
        assert!(xml.contains("no object at &lt;a&gt;/&quot;b&quot; &amp; c"), "{xml}");
        assert_eq!(escaped("a\u{1}b\nc"), "a?b\nc");
    }
}

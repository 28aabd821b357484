//! The policy commands that change a running site: load, activate, shadow, reset, rollback, quarantine, unquarantine. Asks
//! over HTTP and says what came of it; decides nothing.

use http::Method;
use serde_json::{Map, Value, json};
use tidegate_core::policy::Slot;

use super::args::{Activate, Decisions, Load, QuarantineModule, Reset, Rollback, Shadow, Unquarantine};
use super::settings::{Given, nearest, to_json};
use super::{desk, local, short};
use crate::args::SiteAt;
use crate::ask::{Site, number, text};
use crate::{Done, Failure, say};

const POLICIES: &str = "/api/v1/policies";

/// Sends a request and reads the answer; a refusal becomes a failure with its code and, where there is one, its detail.
async fn asked(site: &Site, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let content = [("content-type", "application/json")];
    let headers: &[(&str, &str)] = if body.is_some() { &content } else { &[] };
    let bytes = body.map(Value::to_string).unwrap_or_default().into_bytes();
    let answer = site.send(method, path, headers, bytes).await?;
    told(answer.status.as_u16(), answer.json())
}

/// An answer, or why not.
fn told(status: u16, body: Value) -> Result<Value, Failure> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let code = text(&body, "code");
    let mut words = match text(&body, "error") {
        "" if status == 404 => "the site knows no such request: is it of an older version?".to_owned(),
        "" => format!("the site refused without a word (HTTP {status})"),
        words => words.to_owned(),
    };
    if !code.is_empty() {
        words = format!("{words} [{code}]");
    }
    Err(Failure::failed(words))
}

/// What the site knows of its policies.
pub(super) async fn view(at: &SiteAt) -> Result<(Site, Value), Failure> {
    let site = Site::at(at)?;
    let view = asked(&site, Method::GET, POLICIES, None).await?;
    Ok((site, view))
}

/// The changes of the site's policies.
pub(super) async fn turns(at: &SiteAt) -> Result<Value, Failure> {
    asked(&Site::at(at)?, Method::GET, &format!("{POLICIES}/history"), None).await
}

/// The modules that a site knows.
fn modules(view: &Value) -> &[Value] {
    view["modules"].as_array().map_or(&[], Vec::as_slice)
}

/// The whole hash of the module that somebody means by the first digits of it or by its name.
fn meant(view: &Value, word: &str) -> Result<String, Failure> {
    const FEWEST: usize = 4;
    let lower = word.to_ascii_lowercase();
    let digits = lower.len() >= FEWEST && lower.bytes().all(|b| b.is_ascii_hexdigit());
    let named = |module: &&Value| text(module, "name") == word;
    let hashed = |module: &&Value| digits && text(module, "module").starts_with(&lower);
    let mut found: Vec<&Value> = modules(view).iter().filter(named).collect();
    if found.is_empty() {
        found = modules(view).iter().filter(hashed).collect();
    }
    match found.as_slice() {
        [one] => Ok(text(one, "module").to_owned()),
        // A whole hash is passed on: the site says best what it is to it.
        [] if digits && lower.len() == 64 => Ok(lower),
        [] => Err(Failure::failed(unknown(view, word))),
        many => {
            let lines: Vec<String> = many.iter().map(|module| format!("  {}", line(module))).collect();
            Err(Failure::failed(format!("{} modules are meant by {word}:\n{}", many.len(), lines.join("\n"))))
        }
    }
}

fn unknown(view: &Value, word: &str) -> String {
    let all = modules(view);
    if all.is_empty() {
        return format!(
            "there is no module {word}: the site has none yet; give it one with `tidegate policy load`"
        );
    }
    if let Some(near) = nearest(word, all.iter().map(|module| text(module, "name"))) {
        return format!("there is no module {word}; did you mean {near}?");
    }
    let lines: Vec<String> = all.iter().map(|module| format!("  {}", line(module))).collect();
    format!(
        "there is no module {word}. Name one by its name, or by the first digits (at least 4) of its hash:\n{}",
        lines.join("\n")
    )
}

fn line(module: &Value) -> String {
    format!("{}  {} {}", short(text(module, "module")), text(module, "name"), text(module, "version"))
}

/// A slot in the settings of which somebody sits.
fn binding(module: &str, given: &[Given]) -> Value {
    let mut body = Map::new();
    body.insert("module".to_owned(), Value::from(module));
    if !given.is_empty() {
        body.insert("settings".to_owned(), to_json(given));
    }
    Value::Object(body)
}

pub(super) async fn load(args: Load) -> Done {
    let (path, bytes) = local::module_bytes(&args.module)?;
    let signature = path.with_extension("wasm.sig");
    let signature = if desk::is_file(&signature) { Some(desk::read_text(&signature)?) } else { None };
    let site = Site::at(&args.site)?;
    let settings = to_json(&args.settings.given).to_string();
    let signature = signature.map(|text| text.split_whitespace().collect::<String>());
    let mut headers = vec![("content-type", "application/wasm")];
    if !args.settings.given.is_empty() {
        headers.push(("tidegate-settings", settings.as_str()));
    }
    if let Some(signature) = &signature {
        headers.push(("tidegate-signature", signature.as_str()));
    }
    let put = format!("{POLICIES}/{}", args.slot.name());
    let answer = site.send(Method::PUT, &put, &headers, bytes).await?;
    let answer = told(answer.status.as_u16(), answer.json()).map_err(|failure| {
        Failure::new(failure.exit, format!("{} is refused: {}", path.display(), failure.text))
    })?;
    let module = text(&answer, "module").to_owned();
    say(&format!("admitted  {} {}  {}", text(&answer, "name"), text(&answer, "version"), short(&module)));
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        say(&format!("warning: {}", warning.as_str().unwrap_or("")));
    }
    if answer["diff"].is_object() {
        for line in would(&answer["diff"], args.slot, "would have decided") {
            say(&line);
        }
    }
    if args.activate {
        return activated(&site, args.slot, &module, &args.settings.given).await;
    }
    if args.shadow {
        return shadowed(&site, args.slot, &module, &args.settings.given).await;
    }
    for line in next(&answer, args.slot, &args.settings.given) {
        say(&line);
    }
    Ok(())
}

/// What can be done with a module that decides nothing yet.
fn next(module: &Value, slot: Slot, given: &[Given]) -> Vec<String> {
    let serves: Vec<&str> =
        module["hooks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !serves.contains(&slot.name()) {
        return vec![format!("it decides nothing yet, and may only in {}", serves.join(", "))];
    }
    let hash = short(text(module, "module"));
    let settings: String = given.iter().map(|setting| format!(" --settings {}", setting.written())).collect();
    let command = |word: &str| format!("  tidegate policy {word} {} {hash}{settings}", slot.name());
    vec!["it decides nothing yet. Next, one of".to_owned(), command("shadow"), command("activate")]
}

/// What would have been decided differently, for people.
fn would(diff: &Value, slot: Slot, did: &str) -> Vec<String> {
    let (compared, differed) = (number(diff, "compared"), number(diff, "differed"));
    if compared == 0 {
        return vec![format!("no decision of {} is recorded yet to compare with", slot.name())];
    }
    let failed = match number(diff, "failed") {
        0 => String::new(),
        failed => format!("; {failed} of those it could not answer"),
    };
    let mut lines = vec![format!(
        "of the last {compared} decisions of {} it {did} {differed} differently{failed}",
        slot.name()
    )];
    lines.extend(samples(diff));
    lines
}

/// Examples of differences, for people.
pub(super) fn samples(of: &Value) -> Vec<String> {
    let told = |sample: &Value| {
        let would = match text(sample, "fault") {
            "" => fields(&sample["would"]),
            fault => fault.to_owned(),
        };
        format!("  {would}  instead of  {}", fields(&sample["decided"]))
    };
    of["samples"].as_array().into_iter().flatten().map(told).collect()
}

/// A verdict on one line; the slot stands beside it already.
fn fields(verdict: &Value) -> String {
    let mut verdict = verdict.clone();
    if let Some(fields) = verdict.as_object_mut() {
        fields.remove("slot");
    }
    verdict.to_string()
}

pub(super) async fn activate(args: Activate) -> Done {
    let (site, view) = view(&args.site).await?;
    let module = meant(&view, &args.module)?;
    activated(&site, args.slot, &module, &args.settings.given).await
}

async fn activated(site: &Site, slot: Slot, module: &str, given: &[Given]) -> Done {
    let path = format!("{POLICIES}/{}/activate", slot.name());
    let answer = asked(site, Method::POST, &path, Some(&binding(module, given))).await?;
    let trial = match text(&answer, "probation_until") {
        "" => String::new(),
        until => format!(", on probation until {until}"),
    };
    let generation = number(&answer, "generation");
    say(&format!("{} decides {} now: generation {generation}{trial}", short(module), slot.name()));
    if number(&answer["would_differ"], "differed") > 0 {
        for line in would(&answer["would_differ"], slot, "decides") {
            say(&line);
        }
    }
    Ok(())
}

pub(super) async fn shadow(args: Shadow) -> Done {
    if args.end {
        let site = Site::at(&args.site)?;
        asked(&site, Method::DELETE, &format!("{POLICIES}/shadow"), None).await?;
        say("nothing decides in the shadow any more");
        return Ok(());
    }
    let (site, view) = view(&args.site).await?;
    match (args.slot, &args.module) {
        (Some(slot), Some(word)) => {
            let module = meant(&view, word)?;
            shadowed(&site, slot, &module, &args.settings.given).await
        }
        _ => {
            for line in super::list::shadow(&view) {
                say(&line);
            }
            Ok(())
        }
    }
}

async fn shadowed(site: &Site, slot: Slot, module: &str, given: &[Given]) -> Done {
    let path = format!("{POLICIES}/{}/shadow", slot.name());
    asked(site, Method::POST, &path, Some(&binding(module, given))).await?;
    say(&format!(
        "{} decides {} beside the active policy, without effect; `tidegate policy shadow` shows how",
        short(module),
        slot.name()
    ));
    Ok(())
}

pub(super) async fn reset(args: Reset) -> Done {
    let site = Site::at(&args.site)?;
    let path = format!("{POLICIES}/{}/reset", args.slot.name());
    let view = asked(&site, Method::POST, &path, Some(&json!({}))).await?;
    say(&format!("the default decides {} now: {}", args.slot.name(), super::list::generation(&view)));
    Ok(())
}

pub(super) async fn rollback(args: Rollback) -> Done {
    let site = Site::at(&args.site)?;
    let body = args.generation.map_or_else(|| json!({}), |generation| json!({"generation": generation}));
    let view = asked(&site, Method::POST, &format!("{POLICIES}/rollback"), Some(&body)).await?;
    say(&match args.generation {
        Some(to) => format!("the set of generation {to} decides again: {}", super::list::generation(&view)),
        None => format!("the last good set decides again: {}", super::list::generation(&view)),
    });
    Ok(())
}

pub(super) async fn quarantine(args: QuarantineModule) -> Done {
    let (site, view) = view(&args.site).await?;
    let module = meant(&view, &args.module)?;
    let path = format!("{POLICIES}/modules/{module}/quarantine");
    asked(&site, Method::POST, &path, Some(&json!({"reason": args.reason}))).await?;
    say(&format!("{} is quarantined; tidegate policy unquarantine {0} allows it again", short(&module)));
    Ok(())
}

pub(super) async fn unquarantine(args: Unquarantine) -> Done {
    let (site, view) = view(&args.site).await?;
    let module = meant(&view, &args.module)?;
    let path = format!("{POLICIES}/modules/{module}/unquarantine");
    asked(&site, Method::POST, &path, Some(&json!({}))).await?;
    say(&format!("{} may be used again; it decides nothing until it is activated", short(&module)));
    Ok(())
}

pub(super) async fn decisions(args: Decisions) -> Done {
    let site = Site::at(&args.site)?;
    let limit = args.limit.map_or_else(String::new, |limit| format!("?limit={limit}"));
    let path = format!("{POLICIES}/{}/decisions{limit}", args.slot.name());
    let answer = site.send(Method::GET, &path, &[], Vec::new()).await?;
    if !answer.status.is_success() {
        return told(answer.status.as_u16(), answer.json()).map(|_| ());
    }
    for line in String::from_utf8_lossy(&answer.body).lines() {
        say(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> Value {
        json!({"modules": [
            {"module": "3f2a".repeat(16), "name": "night-window", "version": "0.1.0"},
            {"module": "3f2b".repeat(16), "name": "deadline-first", "version": "0.1.0"},
            {"module": "77aa".repeat(16), "name": "deadline-first", "version": "0.2.0"},
        ]})
    }

    #[test]
    fn a_module_is_meant_by_its_name_or_the_first_digits_of_its_hash() {
        let view = view();
        let full = |digits: &str| digits.repeat(16);
        assert_eq!(meant(&view, "night-window").expect("one"), full("3f2a"));
        assert_eq!(meant(&view, "3F2B").expect("one"), full("3f2b"));
        assert_eq!(meant(&view, &full("77aa")).expect("one"), full("77aa"));
        assert_eq!(meant(&view, &full("0000")).expect("passed on"), full("0000"));
    }

    #[test]
    fn a_wrong_or_ambiguous_module_is_answered_with_those_that_are_there() {
        let view = view();
        let why = |word: &str| meant(&view, word).expect_err("not one").text;
        assert!(why("nigth-window").contains("did you mean night-window?"), "{}", why("nigth-window"));
        let both = why("deadline-first");
        assert!(both.contains("3f2b3f2b3f2b") && both.contains("77aa77aa77aa"), "{both}");
        // Three digits are too few, whatever they fit.
        for word in ["3f2", "zzzz", "0000"] {
            assert!(why(word).contains("night-window 0.1.0"), "{}", why(word));
        }
        let none = meant(&json!({"modules": []}), "3f2a").expect_err("none").text;
        assert!(none.contains("tidegate policy load"), "{none}");
    }

    #[test]
    fn what_to_do_next_fits_what_a_module_serves() {
        let module = json!({"module": "3f2a".repeat(16), "hooks": ["retry", "order"]});
        let given = ["uploads=4".parse().expect("a setting")];
        assert_eq!(
            next(&module, Slot::Retry, &given)[2],
            "  tidegate policy activate retry 3f2a3f2a3f2a --settings uploads=4"
        );
        assert_eq!(
            next(&module, Slot::Bandwidth, &given),
            ["it decides nothing yet, and may only in retry, order"]
        );
    }

    #[test]
    fn a_refusal_tells_its_code() {
        let refused = json!({"error": "module 3f2a: types: expected u64", "code": "policy_rejected"});
        let failure = told(422, refused).expect_err("refused");
        assert_eq!(failure.text, "module 3f2a: types: expected u64 [policy_rejected]");
        assert!(told(404, Value::Null).expect_err("no such route").text.contains("older version"));
        assert!(told(500, Value::Null).expect_err("broken").text.contains("HTTP 500"));
    }
}

//! `tidegate policy list` and `history`: the policies of a running site for people. Asks over HTTP, decides nothing.

use serde_json::Value;

use super::args::{History, List};
use super::{grouped, short, site};
use crate::ask::{bytes, number, text};
use crate::show::columns;
use crate::{Done, Failure, say};

pub(super) async fn list(args: List) -> Done {
    let (_, view) = site::view(&args.site).await?;
    if args.json {
        return pretty(&view);
    }
    for line in overview(&view) {
        say(&line);
    }
    Ok(())
}

pub(super) async fn history(args: History) -> Done {
    let turns = site::turns(&args.site).await?;
    if args.json {
        return pretty(&turns);
    }
    for line in turned(&turns) {
        say(&line);
    }
    Ok(())
}

fn pretty(value: &Value) -> Done {
    say(&serde_json::to_string_pretty(value).map_err(|error| Failure::failed(error.to_string()))?);
    Ok(())
}

/// The sum of an object of numbers.
fn sum(of: &Value) -> u64 {
    of.as_object().map_or(0, |fields| fields.values().filter_map(Value::as_u64).sum())
}

fn list_of<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn words(value: &Value, field: &str) -> String {
    let words: Vec<&str> = list_of(value, field).iter().filter_map(Value::as_str).collect();
    words.join(", ")
}

/// The generation of the set, and how long it is on trial.
pub(super) fn generation(view: &Value) -> String {
    let probation = &view["probation"];
    let trial = match text(probation, "until") {
        "" => String::new(),
        until => format!(", on probation until {until} ({})", words(probation, "slots")),
    };
    format!("generation {}{trial}", number(view, "generation"))
}

fn settings(value: &Value) -> String {
    let Some(settings) = value["settings"].as_object() else { return String::new() };
    let pair = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    };
    settings.iter().map(pair).collect::<Vec<_>>().join(" ")
}

/// The whole state, line by line.
fn overview(view: &Value) -> Vec<String> {
    let mut lines = vec![generation(view), String::new()];
    let rows: Vec<Vec<String>> = list_of(view, "slots").iter().map(|seat| row(seat, view)).collect();
    lines.extend(columns(&["SLOT", "DECIDES", "MODULE", "FROM", "DECISIONS", "STATE"], &rows));
    let set: Vec<&Value> = list_of(view, "slots").iter().filter(|seat| is_chosen(seat)).collect();
    if set.iter().any(|seat| !settings(seat).is_empty()) {
        lines.push(String::new());
        lines.push("SETTINGS".to_owned());
        for seat in set.into_iter().filter(|seat| !settings(seat).is_empty()) {
            lines.push(format!("{:<11}  {}", text(seat, "slot"), settings(seat)));
        }
    }
    if view["shadow"].is_object() {
        lines.push(String::new());
        lines.push("SHADOW".to_owned());
        lines.extend(shadow(view));
    }
    let modules = list_of(view, "modules");
    if !modules.is_empty() {
        lines.push(String::new());
        let rows: Vec<Vec<String>> = modules.iter().map(module).collect();
        lines.extend(columns(&["MODULE", "NAME", "VERSION", "SERVES", "SIZE", "STATE"], &rows));
    }
    let quarantined: Vec<&Value> =
        modules.iter().filter(|module| module["quarantined"].is_object()).collect();
    let watch = &view["watch"];
    if watch.is_object() {
        lines.push(String::new());
        lines.push(format!("WATCHED  {}", text(watch, "dir")));
        if !text(watch, "error").is_empty() {
            lines.push(text(watch, "error").to_owned());
        }
        for file in list_of(watch, "files") {
            let error = text(file, "error");
            let state = if error.is_empty() { "activated" } else { error };
            lines.push(format!("{:<11}  {:<12}  {state}", text(file, "slot"), short(text(file, "module"))));
        }
    }
    if !quarantined.is_empty() {
        lines.push(String::new());
        lines.push("QUARANTINED".to_owned());
        lines.extend(quarantined.into_iter().map(quarantine));
    }
    lines
}

/// Whether an operator chose it: what the site sits there by itself has the settings of the configuration.
fn is_chosen(seat: &Value) -> bool {
    text(seat, "origin") != "default"
}

/// Decisions of a seat since the site was started.
fn decisions(seat: &Value, view: &Value) -> u64 {
    let same =
        |counted: &&Value| counted["slot"] == seat["slot"] && text(counted, "module") == text(seat, "module");
    list_of(view, "figures").iter().filter(same).map(|counted| number(counted, "decisions")).sum()
}

fn row(seat: &Value, view: &Value) -> Vec<String> {
    let who = match (text(seat, "by"), text(seat, "name")) {
        ("module", "") => "a module".to_owned(),
        ("module", name) => format!("{name} {}", text(seat, "version")),
        _ => "built-in rules".to_owned(),
    };
    let mut state = Vec::new();
    if !text(seat, "probation_until").is_empty() {
        state.push("on probation".to_owned());
    }
    match list_of(seat, "faults") {
        [] => {}
        [one] => state.push(format!("1 fault ({})", text(one, "fault"))),
        [.., last] => {
            state.push(format!("{} faults (last: {})", list_of(seat, "faults").len(), text(last, "fault")));
        }
    }
    vec![
        text(seat, "slot").to_owned(),
        who,
        short(text(seat, "module")),
        text(seat, "origin").to_owned(),
        grouped(decisions(seat, view)),
        if state.is_empty() { "good".to_owned() } else { state.join(", ") },
    ]
}

fn module(module: &Value) -> Vec<String> {
    let state = if module["quarantined"].is_object() {
        "quarantined".to_owned()
    } else {
        match text(module, "rejection") {
            "" => text(module, "state").to_owned(),
            code => format!("{}: {code}", text(module, "state")),
        }
    };
    vec![
        short(text(module, "module")),
        text(module, "name").to_owned(),
        text(module, "version").to_owned(),
        words(module, "hooks"),
        bytes(number(module, "size")),
        state,
    ]
}

fn quarantine(module: &Value) -> String {
    let why = &module["quarantined"];
    let place = match text(why, "slot") {
        "" => String::new(),
        slot => format!(" in {slot}"),
    };
    let words = match text(why, "why") {
        "" => String::new(),
        words => format!(": {words}"),
    };
    format!(
        "{}  {}  since {}  {}{place}{words}",
        short(text(module, "module")),
        text(module, "name"),
        text(why, "since"),
        text(why, "code")
    )
}

/// The module that decides without effect, and what it decided differently.
pub(super) fn shadow(view: &Value) -> Vec<String> {
    let shadow = &view["shadow"];
    if !shadow.is_object() {
        return vec![
            "nothing decides in the shadow; begin with `tidegate policy shadow SLOT MODULE`".to_owned(),
        ];
    }
    let settings = settings(shadow);
    let mut lines = vec![format!(
        "{}  {}  since {}{}{settings}",
        text(shadow, "slot"),
        short(text(shadow, "module")),
        text(shadow, "since"),
        if settings.is_empty() { "" } else { "  " },
    )];
    lines.push(format!(
        "{} decisions compared: {} different, {} failed",
        grouped(number(shadow, "compared")),
        grouped(number(shadow, "differed")),
        grouped(sum(&shadow["faults"])),
    ));
    lines.extend(site::samples(shadow));
    lines
}

/// The changes, newest first.
fn turned(turns: &Value) -> Vec<String> {
    let mut all: Vec<&Value> = list_of(turns, "items").iter().collect();
    if all.is_empty() {
        return vec!["no policy was changed yet".to_owned()];
    }
    all.sort_by_key(|turn| std::cmp::Reverse(number(turn, "generation")));
    let rows: Vec<Vec<String>> = all
        .into_iter()
        .map(|turn| {
            vec![
                number(turn, "generation").to_string(),
                text(turn, "at").to_owned(),
                text(turn, "what").replace('_', " "),
                about(turn),
                slots(turn),
            ]
        })
        .collect();
    columns(&["GENERATION", "AT", "WHAT", "WHICH", "MODULES SINCE THEN"], &rows)
}

fn about(turn: &Value) -> String {
    match text(turn, "what") {
        "rolled_back" => match turn["to"].as_u64() {
            Some(to) => format!("to {to}"),
            None => "to the last good set".to_owned(),
        },
        "ejected" => {
            let why = match text(turn, "why") {
                "" => text(turn, "code").to_owned(),
                why => format!("{}: {why}", text(turn, "code")),
            };
            format!("{} ({why})", short(text(turn, "module")))
        }
        _ => text(turn, "slot").to_owned(),
    }
}

/// Who sits in the slots that do not have the default.
fn slots(turn: &Value) -> String {
    let bound = turn["slots"].as_object();
    let mut words: Vec<String> = bound
        .into_iter()
        .flatten()
        .map(|(slot, binding)| format!("{slot}={}", short(text(binding, "module"))))
        .collect();
    words.extend(
        list_of(turn, "floored").iter().filter_map(Value::as_str).map(|slot| format!("{slot}=built-in")),
    );
    if words.is_empty() { "defaults".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn site() -> Value {
        let (one, two) = ("1f2e".repeat(16), "3f2a".repeat(16));
        json!({
            "generation": 4,
            "slots": [
                {"slot": "auto-scan", "by": "module", "module": one, "name": "default", "version": "0.1.0",
                 "origin": "default", "settings": {"auto-scan": false}, "faults": []},
                {"slot": "retry", "by": "builtin", "origin": "floored", "faults": []},
                {"slot": "concurrency", "by": "module", "module": two, "name": "night-window", "version": "0.1.0",
                 "origin": "operator", "settings": {"from-hour": 21, "zone": "a"}, "probation_until": "2026-01-01T00:10:00Z",
                 "faults": [{"module": two, "fault": "trap", "at": "2026-01-01T00:01:00Z"}]},
            ],
            "probation": {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:10:00Z", "slots": ["concurrency"]},
            "shadow": {"slot": "retry", "module": two, "settings": {}, "since": "2026-01-01T00:00:00Z",
                       "compared": 1200, "differed": 3, "faults": {"trap": 2},
                       "samples": [
                           {"would": {"slot": "retry", "action": "park"}, "decided": {"slot": "retry", "action": {"after": 6}}},
                           {"fault": "trap: retry.next", "decided": {"slot": "retry", "action": "park"}}]},
            "figures": [{"slot": "concurrency", "module": two, "decisions": 4321},
                        {"slot": "concurrency", "module": one, "decisions": 9}, {"slot": "retry", "decisions": 7}],
            "watch": {"dir": "/etc/policies", "error": null, "files": [
                {"slot": "retry", "module": two, "error": "quarantined"}]},
            "modules": [
                {"module": two, "name": "night-window", "version": "0.1.0", "hooks": ["concurrency", "bandwidth"],
                 "size": 11_900, "state": "admitted"},
                {"module": "77aa".repeat(16), "size": 4, "state": "rejected", "rejection": "not_a_component"},
                {"module": "88bb".repeat(16), "name": "loop", "version": "1", "hooks": ["retry"], "size": 900,
                 "state": "admitted",
                 "quarantined": {"since": "2026-01-01T00:00:00Z", "slot": "retry", "code": "exhausted"}},
            ],
        })
    }

    #[test]
    fn the_overview_names_who_decides_what_waits_and_what_is_forbidden() {
        let text = overview(&site()).join("\n");
        for part in [
            "generation 4, on probation until 2026-01-01T00:10:00Z (concurrency)",
            "auto-scan    default 0.1.0       1f2e1f2e1f2e  default   0          good",
            "retry        built-in rules                    floored   7          good",
            "operator  4 321      on probation, 1 fault (trap)",
            "concurrency  from-hour=21 zone=a",
            "1 200 decisions compared: 3 different, 2 failed",
            "  {\"action\":\"park\"}  instead of  {\"action\":{\"after\":6}}",
            "  trap: retry.next  instead of  {\"action\":\"park\"}",
            "WATCHED  /etc/policies",
            "retry        3f2a3f2a3f2a  quarantined",
            "rejected: not_a_component",
            "88bb88bb88bb  loop  since 2026-01-01T00:00:00Z  exhausted in retry",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(!text.contains("auto-scan=false"), "settings of the configuration stand there:\n{text}");
    }

    #[test]
    fn the_history_is_told_from_its_end() {
        let turns = json!({"items": [
            {"generation": 1, "at": "2026-01-01T00:00:00Z", "what": "configured", "slots": {}, "floored": []},
            {"generation": 2, "at": "2026-01-01T00:01:00Z", "what": "activated", "slot": "retry",
             "slots": {"retry": {"module": "3f2a".repeat(16)}}, "floored": []},
            {"generation": 3, "at": "2026-01-01T00:02:00Z", "what": "ejected", "module": "3f2a".repeat(16), "code": "trap",
             "slots": {}, "floored": ["retry"]},
            {"generation": 4, "at": "2026-01-01T00:03:00Z", "what": "rolled_back", "to": 1, "slots": {}, "floored": []},
        ]});
        let lines = turned(&turns);
        assert!(lines[1].starts_with("4           2026-01-01T00:03:00Z  rolled back  to 1"), "{lines:#?}");
        assert!(
            lines[2].contains("3f2a3f2a3f2a (trap)") && lines[2].ends_with("retry=built-in"),
            "{lines:#?}"
        );
        assert!(lines[3].ends_with("retry=3f2a3f2a3f2a"), "{lines:#?}");
        assert!(lines[4].ends_with("defaults"), "{lines:#?}");
        assert_eq!(turned(&json!({"items": []})), ["no policy was changed yet"]);
    }

    #[test]
    fn without_a_shadow_the_way_to_one_is_told() {
        assert!(shadow(&json!({})).join("\n").contains("tidegate policy shadow SLOT MODULE"));
    }
}

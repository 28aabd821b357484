//! `tidegate policy` without a site: the author's tools on modules of policies/fixtures, their messages and exit codes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::rig::{Plan, Site, free_port, run};

/// Runs `tidegate policy` in a directory: exit code, standard output, standard error.
fn policy(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Site::program()
        .arg("policy")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the binary under test");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = policy(dir, arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
    out
}

/// What it complains of, with this exit code.
fn refused(dir: &Path, arguments: &[&str], exit: i32) -> String {
    let (code, out, err) = policy(dir, arguments);
    assert_eq!(code, Some(exit), "{arguments:?}: {out}{err}");
    assert!(err.starts_with("error: "), "{arguments:?}: {err}");
    err
}

/// A core module of a fixture, as a compiler would write it.
fn core(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/fixtures");
    let text = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.wat"))).expect(name);
    let body = text(name);
    let (imports, rest): (Vec<_>, Vec<_>) = body.lines().partition(|line| line.trim().starts_with("(import"));
    let meta = if body.contains("#describe") { String::new() } else { text("meta") };
    let (imports, rest) = (imports.join("\n"), rest.join("\n"));
    let whole = format!("(module\n{imports}\n{}\n{meta}\n{rest}\n)", text("memory"));
    wat::parse_str(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}"))
}

/// A directory with `core.wasm` of a fixture.
fn desk(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("core.wasm"), core(name)).expect("a module");
    dir
}

/// A directory with the component of a fixture in `policy.wasm`.
fn built(name: &str) -> tempfile::TempDir {
    let dir = desk(name);
    done(dir.path(), &["build", "core.wasm"]);
    dir
}

const COMMANDS: [&str; 19] = [
    "new",
    "build",
    "check",
    "run",
    "bench",
    "replay",
    "diff",
    "sign",
    "pin",
    "load",
    "activate",
    "shadow",
    "reset",
    "rollback",
    "list",
    "history",
    "quarantine",
    "unquarantine",
    "decisions",
];

#[test]
fn help_of_policy_leads_from_nothing_to_a_running_one_and_each_command_explains_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let help = done(dir.path(), &["--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing:\n{help}");
        let own = done(dir.path(), &[command, "--help"]);
        assert!(own.contains("Usage: ") && own.lines().count() > 5, "{own}");
    }
    assert!(help.contains("From nothing to a running policy"), "{help}");
    for (command, words) in [
        ("new", &["--lang", "--hook", "Examples"][..]),
        ("check", &["--settings", "--vectors", "--json"][..]),
        ("run", &["--input", "--example", "--settings"][..]),
        ("replay", &["--strict", "decisions.jsonl"][..]),
        ("sign", &["--key", "--new-key", "--counter", "0600"][..]),
        ("load", &["--activate", "--shadow", "TIDEGATE_API"][..]),
        ("shadow", &["--end"][..]),
        ("quarantine", &["--reason", "unquarantine"][..]),
    ] {
        let own = done(dir.path(), &[command, "--help"]);
        for word in words {
            assert!(own.contains(word), "{command} does not mention {word}:\n{own}");
        }
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error_that_says_what_was_meant() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, word) in [
        (&["run", "x.wasm", "retyr"][..], "'retry'"),
        (&["chekc"][..], "'check'"),
        (&["check"][..], "<MODULE>"),
        (&["check", "x.wasm", "--settings", "uploads"][..], "KEY=VALUE"),
        (&["new", "x", "--lang", "cobol"][..], "rust"),
        (&["sign", "x.wasm"][..], "--key"),
        (&["load", "retry", "x.wasm", "--activate", "--shadow"][..], "--shadow"),
        (&["shadow", "retry"][..], "<MODULE>"),
        (&["rollback", "soon"][..], "GENERATION"),
        (&["quarantine", "3f2a"][..], "--reason"),
        (&["bench", "x.wasm", "--decisions", "0"][..], "--decisions"),
    ] {
        let err = refused(dir.path(), arguments, 2);
        assert!(err.contains(word), "{arguments:?} does not mention {word}: {err}");
    }
    let err = refused(dir.path(), &["list", "--api", "nonsense"], 2);
    assert!(err.contains("http://host:port"), "{err}");
}

#[test]
fn a_file_that_is_no_module_is_refused_by_its_name_with_what_to_do() {
    let dir = desk("suite");
    let at = dir.path();
    std::fs::write(at.join("text.wat"), "(module)").expect("a file");
    std::fs::write(at.join("noise.wasm"), [7; 100]).expect("a file");
    std::fs::create_dir(at.join("empty")).expect("a directory");
    for (file, words) in [
        ("nowhere.wasm", &["there is no file nowhere.wasm"][..]),
        ("empty", &["no policy.wasm in empty", "tidegate policy build empty"][..]),
        ("core.wasm", &["core.wasm is not admitted: not_a_component", "tidegate policy build"][..]),
        ("text.wat", &["not_a_component", "as text"][..]),
        ("noise.wasm", &["noise.wasm is not admitted: not_a_component"][..]),
    ] {
        let err = refused(at, &["check", file], 1);
        for word in words {
            assert!(err.contains(word), "{file}: {word} is missing: {err}");
        }
    }
    let err = refused(at, &["build", "empty"], 1);
    assert!(err.contains("no project") && err.contains("tidegate policy new"), "{err}");
    let err = refused(at, &["build", "nowhere"], 1);
    assert!(err.contains("tidegate policy new nowhere"), "{err}");
}

#[test]
fn a_core_module_becomes_a_component_that_is_checked_run_and_measured() {
    let dir = desk("suite");
    let at = dir.path();
    let out = done(at, &["build", "core.wasm"]);
    assert!(out.starts_with("wrote policy.wasm\n") && out.ends_with("admitted\n"), "{out}");
    let out = done(at, &["check", "."]);
    for part in [
        "fixture 1.0.0",
        "slots     auto-scan, retry, concurrency, bandwidth, order",
        "reasons   one, two",
        "uploads  2",
    ] {
        assert!(out.contains(part), "{part} is missing:\n{out}");
    }
    let value: Value = serde_json::from_str(&done(at, &["check", "policy.wasm", "--json"])).expect("JSON");
    assert_eq!(value["slots"].as_array().map(Vec::len), Some(5), "{value}");
    assert_eq!(value["sha256"], crate::rig::sha256(&std::fs::read(at.join("policy.wasm")).expect("it")));

    for slot in ["auto-scan", "retry", "concurrency", "bandwidth", "order"] {
        let example = done(at, &["run", ".", slot, "--example"]);
        std::fs::write(at.join("question.json"), &example).expect("a file");
        let asked = done(at, &["run", ".", slot]);
        assert!(asked.starts_with("asked an example"), "{asked}");
        let read = done(at, &["run", ".", slot, "--input", "question.json"]);
        let verdict = |text: &str| text.lines().find(|line| line.starts_with("verdict")).map(str::to_owned);
        assert!(verdict(&read).is_some() && verdict(&read) == verdict(&asked), "{slot}: {read}{asked}");
    }
    let asked: Value =
        serde_json::from_str(&done(at, &["run", ".", "concurrency", "--settings", "uploads=7", "--json"]))
            .expect("JSON");
    assert_eq!(asked["verdict"]["uploads"], 7, "{asked}");
    assert_eq!(asked["reasons"], json!(["two"]), "{asked}");

    let table = done(at, &["bench", ".", "--decisions", "20"]);
    for word in ["FRESH", "REUSED", "NATIVE", "auto-scan", "bandwidth", "order"] {
        assert!(table.contains(word), "{word} is missing:\n{table}");
    }
    let table = done(at, &["bench", ".", "retry", "--decisions", "20"]);
    assert!(table.contains("retry") && !table.contains("order"), "{table}");
}

#[test]
fn a_wrong_setting_or_question_is_named_with_what_would_do() {
    let dir = built("suite");
    let at = dir.path();
    for (arguments, words) in [
        (&["check", ".", "--settings", "uplaods=3"][..], "did you mean uploads?"),
        (&["check", ".", "--settings", "uploads=many"][..], "whole number"),
        (&["run", ".", "retry", "--input", "nowhere.json"][..], "no file nowhere.json"),
    ] {
        let err = refused(at, arguments, 1);
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
    for (question, words) in [
        ("{", "no JSON"),
        ("[1]", "must be an object"),
        ("{\"slot\": \"order\"}", "of \"order\", not of concurrency"),
        ("{\"now\": {\"duo\": 3}}", "duo"),
        ("{\"now\": {\"due\": -3}}", "now.due"),
    ] {
        std::fs::write(at.join("q.json"), question).expect("a file");
        let err = refused(at, &["run", ".", "concurrency", "--input", "q.json"], 1);
        assert!(err.contains(words) && err.contains("q.json"), "{question}: {err}");
    }
    let dir = built("idle");
    let err = refused(dir.path(), &["run", ".", "retry"], 1);
    assert!(err.contains("no_hook") && err.contains("auto-scan, concurrency"), "{err}");
}

#[test]
fn a_module_that_runs_for_ever_is_refused_and_nothing_hangs() {
    let dir = desk("loops");
    let err = refused(dir.path(), &["build", "core.wasm"], 1);
    assert!(err.contains("not admitted: vectors:") && err.contains("fuel"), "{err}");
    // The component is there to be looked at, and is refused again.
    assert!(dir.path().join("policy.wasm").is_file());
    refused(dir.path(), &["bench", "policy.wasm"], 1);
    refused(dir.path(), &["sign", "policy.wasm", "--new-key", "k"], 1);
    assert!(!dir.path().join("k").exists(), "no key is made for what is not signed");
}

#[test]
fn recorded_decisions_are_replayed_and_two_modules_compared() {
    let dir = built("suite");
    let at = dir.path();
    let decision = |uploads: u32| {
        json!({"at": "2026-01-01T00:00:00Z", "slot": "concurrency", "by": "set", "enacted": "2 at once", "reason": "one",
               "clamped": false, "question": {"slot": "concurrency", "now": {"due": 3}},
               "verdict": {"slot": "concurrency", "uploads": uploads}})
    };
    let retry = json!({"slot": "retry", "question": {"attempt": {"spent": 2, "class": "other", "subject": "part"}},
                       "verdict": {"action": "park"}});
    let lines: Vec<String> =
        [decision(2), decision(2), decision(5), retry].iter().map(Value::to_string).collect();
    std::fs::write(at.join("all.jsonl"), lines.join("\n")).expect("a file");
    std::fs::write(at.join("equal.jsonl"), lines[..2].join("\n\n")).expect("a file");

    let out = done(at, &["replay", ".", "all.jsonl"]);
    assert!(out.contains("all.jsonl:3  concurrency\n  then  {") && out.contains("\"uploads\":5"), "{out}");
    let row = |slot: &str| -> Vec<String> {
        let line = out.lines().find(|line| line.starts_with(&format!("{slot}  "))).expect("a row");
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(row("concurrency")[1..4], ["2", "1", "0"], "{out}");
    assert_eq!(row("retry")[1..4], ["0", "1", "0"], "{out}");
    let err = refused(at, &["replay", ".", "all.jsonl", "--strict"], 1);
    assert!(err.contains("2 of the decisions are different"), "{err}");
    done(at, &["replay", ".", "equal.jsonl", "--strict"]);
    let out = done(at, &["replay", ".", "all.jsonl", "--show", "0"]);
    assert!(!out.contains("then"), "{out}");

    // Another module that serves one of the slots.
    let other = built("idle");
    std::fs::copy(other.path().join("policy.wasm"), at.join("idle.wasm")).expect("a copy");
    let out = done(at, &["diff", ".", "idle.wasm", "all.jsonl"]);
    assert!(out.contains("concurrency  0      3") && out.contains("1 decisions of slots"), "{out}");
    refused(at, &["diff", ".", "idle.wasm", "all.jsonl", "--strict"], 1);
    let out = done(at, &["diff", ".", "policy.wasm", "all.jsonl", "--settings-b", "uploads=3"]);
    assert!(out.contains("concurrency  0      3"), "{out}");

    std::fs::write(at.join("broken.jsonl"), format!("{}\n{{\"slot\": \"retry\"}}\n", lines[0]))
        .expect("a file");
    let err = refused(at, &["replay", ".", "broken.jsonl"], 1);
    assert!(err.contains("broken.jsonl:2: question"), "{err}");
    std::fs::write(at.join("none.jsonl"), "\n").expect("a file");
    assert!(refused(at, &["replay", ".", "none.jsonl"], 1).contains("holds no decision"));
}

#[test]
fn vectors_want_the_answer_to_the_letter_and_within_its_fuel() {
    let dir = built("suite");
    let at = dir.path();
    let vector = |change: &dyn Fn(&mut Value)| {
        let mut vector = json!({"slot": "concurrency", "question": {"now": {"memo": 4}}, "settings": {"uploads": 6},
                                "verdict": {"uploads": 6, "recheck": 5000, "memo": 5, "reason": 2}, "fuel_at_most": 1000});
        change(&mut vector);
        std::fs::write(at.join("v.jsonl"), vector.to_string()).expect("a file");
    };
    vector(&|_| {});
    let out = done(at, &["check", ".", "--vectors", "v.jsonl"]);
    assert!(out.contains("vectors   1 of 1 good"), "{out}");
    vector(&|vector| vector["verdict"]["memo"] = json!(6));
    let (code, out, err) = policy(at, &["check", ".", "--vectors", "v.jsonl"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(
        out.contains("v.jsonl:1  concurrency") && out.contains("\"memo\":6") && out.contains("\"memo\":5"),
        "{out}"
    );
    vector(&|vector| vector["fuel_at_most"] = json!(1));
    let (code, out, _) = policy(at, &["check", ".", "--vectors", "v.jsonl"]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("at most 1 are expected"), "{out}");
    // `build` asks those of the project.
    std::fs::create_dir(at.join("vectors")).expect("a directory");
    std::fs::rename(at.join("v.jsonl"), at.join("vectors/v.jsonl")).expect("a file");
    let err = refused(at, &["build", "core.wasm"], 1);
    assert!(err.contains("1 of 1 vectors failed"), "{err}");
}

#[test]
fn a_module_is_signed_with_a_key_that_only_its_owner_reads() {
    let dir = built("suite");
    let at = dir.path();
    let out = done(at, &["sign", ".", "--new-key", "berlin.key", "--counter", "7"]);
    let mode = std::fs::metadata(at.join("berlin.key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let secret = std::fs::read_to_string(at.join("berlin.key")).expect("a key");
    assert!(!out.contains(secret.trim()), "the secret is printed");
    assert!(out.contains("[policies.keys]\nberlin = \""), "{out}");
    let first: Value =
        serde_json::from_slice(&std::fs::read(at.join("policy.wasm.sig")).expect("a signature"))
            .expect("JSON");
    assert_eq!(first["counter"], 7, "{first}");
    assert!(out.contains(first["key"].as_str().expect("a key")), "{out}");

    let err = refused(at, &["sign", ".", "--new-key", "berlin.key"], 1);
    assert!(err.contains("berlin.key is there already"), "{err}");
    let out = done(at, &["sign", ".", "--key", "berlin.key"]);
    let second: Value =
        serde_json::from_slice(&std::fs::read(at.join("policy.wasm.sig")).expect("a signature"))
            .expect("JSON");
    assert_eq!(second["key"], first["key"], "{out}");
    assert!(second["counter"].as_u64() > Some(1_700_000_000), "seconds: {second}");

    std::fs::set_permissions(at.join("berlin.key"), std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let out = done(at, &["sign", ".", "--key", "berlin.key"]);
    assert!(out.contains("chmod 600 berlin.key"), "{out}");
    std::fs::write(at.join("short.key"), "abc").expect("a file");
    assert!(refused(at, &["sign", ".", "--key", "short.key"], 1).contains("short.key is no key"));
}

#[test]
fn a_pin_is_the_hash_and_goes_into_the_manifest() {
    let dir = built("suite");
    let at = dir.path();
    let hash = crate::rig::sha256(&std::fs::read(at.join("policy.wasm")).expect("it"));
    assert_eq!(done(at, &["pin", "."]), format!("sha256 = \"{hash}\"\n"));
    assert!(refused(at, &["pin", ".", "--write"], 1).contains("policy.toml"));
    std::fs::write(at.join("policy.toml"), "name = \"x\"\nsha256 = \"old\" # mine\n").expect("a manifest");
    done(at, &["pin", ".", "--write"]);
    let text = std::fs::read_to_string(at.join("policy.toml")).expect("a manifest");
    assert_eq!(text, format!("name = \"x\"\nsha256 = \"{hash}\"\n"));
    assert!(done(at, &["pin", ".", "--write"]).contains("has it already"));
}

#[test]
fn without_a_site_its_commands_say_where_they_looked() {
    let dir = built("suite");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    for arguments in [
        &["list"][..],
        &["history"][..],
        &["load", "retry", "policy.wasm"][..],
        &["activate", "retry", "3f2a"][..],
        &["shadow"][..],
        &["shadow", "--end"][..],
        &["reset", "retry"][..],
        &["rollback"][..],
        &["quarantine", "3f2a", "--reason", "x"][..],
        &["unquarantine", "3f2a"][..],
        &["decisions", "retry"][..],
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--api", &nobody]).collect();
        let err = refused(dir.path(), &arguments, 1);
        assert!(err.contains(&nobody) && err.contains("tidegate run"), "{arguments:?}: {err}");
    }
    // What is wrong here is told before anybody is asked.
    let err = refused(dir.path(), &["load", "retry", "nowhere.wasm", "--api", &nobody], 1);
    assert!(err.contains("nowhere.wasm") && !err.contains(&nobody), "{err}");
}

#[test]
fn a_site_is_spoken_with_and_its_refusals_are_told_with_their_codes() {
    let site = run(async { Plan::new().start().await });
    let api = format!("http://127.0.0.1:{}", site.api);
    let with = |arguments: &[&'static str]| -> Vec<String> {
        arguments.iter().map(|word| (*word).to_owned()).chain(["--api".to_owned(), api.clone()]).collect()
    };
    let dir = built("suite");
    let other = built("idle");
    let at = dir.path();
    std::fs::copy(other.path().join("policy.wasm"), at.join("idle.wasm")).expect("a copy");
    let ask = |arguments: &[&'static str]| {
        let words = with(arguments);
        done(at, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refuse = |arguments: &[&'static str]| {
        let words = with(arguments);
        refused(at, &words.iter().map(String::as_str).collect::<Vec<_>>(), 1)
    };

    let err = refuse(&["load", "retry", "core.wasm"]);
    assert!(err.contains("not_a_component") && err.contains("[policy_rejected]"), "{err}");
    let err = refuse(&["load", "concurrency", "policy.wasm", "--settings", "uplaods=3"]);
    assert!(err.contains("configure") && err.contains("uplaods"), "{err}");
    let out = ask(&["load", "concurrency", "policy.wasm", "--settings", "uploads=3"]);
    assert!(out.contains("admitted  fixture 1.0.0") && out.contains("--settings uploads=3"), "{out}");
    let out = ask(&["load", "retry", "idle.wasm"]);
    assert!(
        out.contains("warning: it does not serve retry") && out.contains("only in auto-scan, concurrency"),
        "{out}"
    );

    // Two modules of one name: the hash says which.
    let err = refuse(&["activate", "concurrency", "fixture"]);
    assert!(err.contains("2 modules are meant by fixture"), "{err}");
    let err = refuse(&["activate", "concurrency", "fixtrue"]);
    assert!(err.contains("did you mean fixture?"), "{err}");
    let hash = crate::rig::sha256(&std::fs::read(at.join("policy.wasm")).expect("it"));
    let out = done(at, &["activate", "concurrency", &hash[..8], "--settings", "uploads=3", "--api", &api]);
    assert!(out.contains("decides concurrency now: generation 2, on probation until "), "{out}");
    let out = ask(&["list"]);
    assert!(out.contains("concurrency  fixture 1.0.0") && out.contains("concurrency  uploads=3"), "{out}");
    let value: Value = serde_json::from_str(&ask(&["list", "--json"])).expect("JSON");
    assert_eq!(value["generation"], 2, "{value}");
    let err = refuse(&["rollback", "77"]);
    assert!(err.contains("[policy_unknown_generation]"), "{err}");
    ask(&["rollback", "1"]);
    let out = ask(&["history"]);
    assert!(out.lines().nth(1).is_some_and(|line| line.starts_with("3 ") && line.contains("to 1")), "{out}");
    let value: Value = serde_json::from_str(&ask(&["history", "--json"])).expect("JSON");
    assert_eq!(value["items"].as_array().map(Vec::len), Some(3), "{value}");
    assert_eq!(ask(&["decisions", "retry"]), "");
}

#[test]
fn a_site_with_a_key_takes_what_is_signed_with_it_and_nothing_else() {
    let dir = built("suite");
    let at = dir.path();
    let out = done(at, &["sign", ".", "--new-key", "berlin.key", "--counter", "7"]);
    let line = out.lines().find(|line| line.starts_with("berlin = ")).expect("the line of the configuration");
    let key = line.trim_start_matches("berlin = ").trim_matches('"').to_owned();
    let site = run(async { Plan::new().set("policies.keys.berlin", key).start().await });
    let api = format!("http://127.0.0.1:{}", site.api);
    let signature = at.join("policy.wasm.sig");
    let signed = std::fs::read(&signature).expect("a signature");
    std::fs::remove_file(&signature).expect("a file");
    let err = refused(at, &["load", "retry", ".", "--api", &api], 1);
    assert!(err.contains("signature") && err.contains("berlin"), "{err}");
    done(at, &["sign", ".", "--new-key", "other.key"]);
    let err = refused(at, &["load", "retry", ".", "--api", &api], 1);
    assert!(err.contains("does not trust"), "{err}");
    std::fs::write(&signature, signed).expect("a signature");
    let out = done(at, &["load", "retry", ".", "--activate", "--api", &api]);
    assert!(out.contains("admitted  fixture 1.0.0"), "{out}");
}

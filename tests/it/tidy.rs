//! The repository's own rules, as tests: dependency arrows, the seams, the shape of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

/// Every `.rs` file below some folders, with its path relative to the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        let mut entries: Vec<_> =
            fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = root();
    let mut files = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut files);
    }
    files.dedup();
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a source file"))
        })
        .collect()
}

/// Code without comments: good enough for words that never stand in a string.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Files that exist for tests only.
fn is_test(name: &str) -> bool {
    let test_files = ["tests.rs", "/rig.rs"];
    test_files.iter().any(|file| name.ends_with(file)) || name.contains("/tests/") || name.contains("_tests/")
}

fn dependencies(manifest: &str, table: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
    let parsed: toml::Table = text.parse().expect("a manifest is TOML");
    let mut names: Vec<String> =
        parsed.get(table).and_then(|t| t.as_table()).map(|t| t.keys().cloned().collect()).unwrap_or_default();
    names.sort();
    names
}

#[test]
fn core_depends_on_exactly_the_frozen_list() {
    assert_eq!(dependencies("core/Cargo.toml", "dependencies"), ["md-5", "minicbor", "serde_json", "sha2"]);
}

#[test]
fn dependencies_between_our_crates_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("core", &[][..]),
        ("policies", &["tidegate-core"][..]),
        ("runtime", &["tidegate-core", "tidegate-policies"][..]),
        ("runtime/s3", &["tidegate-core", "tidegate-runtime"][..]),
        ("tests/device", &["tidegate-runtime"][..]),
        (
            "runtime/cli",
            &["tidegate-core", "tidegate-policies", "tidegate-runtime", "tidegate-s3", "tidegate-device"][..],
        ),
        // Policies by a feature alone: the_simulator_of_the_core_is_built_without_runtime_and_sdk.
        ("sim", &["tidegate-core", "tidegate-policies"][..]),
        (
            "sim/socket",
            &["tidegate-core", "tidegate-policies", "tidegate-runtime", "tidegate-s3", "tidegate-device"][..],
        ),
        ("tests", &["tidegate"][..]),
        ("tests/fuzz/targets", &["tidegate-core", "tidegate-runtime"][..]),
        ("tests/bench", &["tidegate", "tidegate-core", "tidegate-runtime", "tidegate-device"][..]),
    ]);
    for (folder, allowed) in allowed {
        for name in dependencies(&format!("{folder}/Cargo.toml"), "dependencies") {
            if name.starts_with("tidegate") {
                assert!(allowed.contains(&name.as_str()), "{folder} must not depend on {name}");
            }
        }
    }
}

#[test]
fn only_the_s3_crate_knows_the_sdk() {
    for folder in [
        "core",
        "policies",
        "runtime",
        "runtime/cli",
        "sim",
        "sim/socket",
        "tests",
        "tests/bench",
        "tests/device",
    ] {
        for name in dependencies(&format!("{folder}/Cargo.toml"), "dependencies") {
            assert!(!name.starts_with("aws-"), "{folder} depends on {name}; only runtime/s3 may");
        }
    }
}

/// Everything that building `package` needs, by Cargo.lock: "name version" with the one that asked for it first. What
/// only tests of our own packages need is left out, and what only a feature of theirs turns on. It may hold more than Cargo builds (other targets' dependencies,
/// optional ones that another package of ours turns on), never less.
fn needs(package: &str) -> BTreeMap<String, String> {
    let read = |file: &str| -> toml::Table {
        fs::read_to_string(root().join(file)).expect(file).parse().expect("it is TOML")
    };
    let members = read("Cargo.toml")["workspace"]["members"].as_array().expect("a list of folders").clone();
    let manifests: BTreeMap<String, toml::Table> = members
        .iter()
        .map(|folder| read(&format!("{}/Cargo.toml", folder.as_str().expect("a folder"))))
        .map(|manifest| (manifest["package"]["name"].as_str().expect("a name").to_owned(), manifest))
        .collect();
    let only_for_tests = |package: &str, name: &str| {
        let lists = |table: &str| {
            manifests
                .get(package)
                .and_then(|manifest| manifest.get(table))
                .is_some_and(|t| t.get(name).is_some())
        };
        let optional = manifests
            .get(package)
            .and_then(|manifest| manifest.get("dependencies")?.get(name)?.get("optional")?.as_bool());
        let tests_alone = lists("dev-dependencies") && !lists("dependencies") && !lists("build-dependencies");
        tests_alone || optional == Some(true)
    };

    let lock = read("Cargo.lock");
    let locked = lock["package"].as_array().expect("a list of packages");
    let mut found = BTreeMap::new();
    let mut open = vec![(package.to_owned(), String::new())];
    while let Some((wanted, by)) = open.pop() {
        // A dependency is written as its name, with the version where the name alone is not enough.
        let mut words = wanted.split(' ');
        let (name, version) = (words.next(), words.next());
        let entry = locked
            .iter()
            .find(|p| p["name"].as_str() == name && (version.is_none() || p["version"].as_str() == version))
            .unwrap_or_else(|| panic!("Cargo.lock has no {wanted}"));
        let name = name.expect("a name");
        let key = format!("{name} {}", entry["version"].as_str().expect("a version"));
        if found.contains_key(&key) {
            continue;
        }
        found.insert(key.clone(), by);
        for next in entry.get("dependencies").and_then(|list| list.as_array()).into_iter().flatten() {
            let next = next.as_str().expect("a dependency");
            if !only_for_tests(name, next.split(' ').next().unwrap_or("")) {
                open.push((next.to_owned(), key.clone()));
            }
        }
    }
    found
}

#[test]
fn what_is_measured_is_what_is_shipped() {
    let read = |file: &str| -> toml::Table {
        fs::read_to_string(root().join(file)).expect(file).parse().expect("it is TOML")
    };
    let profile = |file: &str| read(file)["profile"]["release"].clone();
    assert_eq!(profile("tests/bench/Cargo.toml"), profile("Cargo.toml"), "one release profile");
    let locked = |file: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for package in read(file)["package"].as_array().expect("a list of packages") {
            let word = |field: &str| package[field].as_str().expect("a text").to_owned();
            versions.entry(word("name")).or_default().insert(word("version"));
        }
        versions
    };
    let measured = locked("tests/bench/Cargo.lock");
    for key in needs("tidegate").keys() {
        let (name, version) = key.split_once(' ').expect("a name and a version");
        if let Some(versions) = measured.get(name) {
            assert!(
                versions.contains(version),
                "tests/bench/Cargo.lock has {name} {versions:?}, Cargo.lock {version}"
            );
        }
    }
}

/// Whether the core's simulator must never be built with this package.
fn is_heavy(name: &str) -> bool {
    let names = ["hyper", "redb", "s3s", "tokio", "turmoil", "wasmtime"];
    names.contains(&name) || name.starts_with("aws-")
}

#[test]
fn the_simulator_of_the_core_is_built_without_runtime_and_sdk() {
    let found = needs("tidegate-sim");
    for key in found.keys() {
        if is_heavy(key.split(' ').next().unwrap_or("")) {
            let mut way = vec![key.as_str()];
            while let Some(by) = found.get(way[way.len() - 1]).filter(|by| !by.is_empty()) {
                way.push(by);
            }
            panic!("tidegate-sim must depend on the core alone, not on {}", way.join(" <- "));
        }
    }
}

#[test]
fn what_a_build_needs_is_followed_to_its_end() {
    let names = |package: &str| -> BTreeSet<String> {
        needs(package).keys().map(|key| key.split(' ').next().unwrap_or("").to_owned()).collect()
    };
    let heavy = |package: &str| -> Vec<String> {
        names(package).into_iter().filter(|name| is_heavy(name) && !name.starts_with("aws-")).collect()
    };
    assert_eq!(heavy("tidegate-sim-socket"), ["hyper", "redb", "s3s", "tokio", "turmoil", "wasmtime"]);
    assert!(names("tidegate").contains("aws-sdk-s3"), "through tidegate-s3");
    assert!(names("tidegate-sim").contains("minicbor"), "through the core");
    assert!(!names("tidegate-core").contains("proptest"), "only the core's tests need it");
}

#[test]
fn core_is_pure() {
    let lib = fs::read_to_string(root().join("core/src/lib.rs")).expect("core's lib.rs");
    assert!(lib.contains("#![no_std]"), "core must be no_std");
    let banned = [
        "std::",
        "HashMap",
        "HashSet",
        "async ",
        ".await",
        "SystemTime",
        "Instant",
        "thread_local",
        "static mut",
    ];
    for (name, text) in sources(&["core/src"]) {
        if is_test(&name) {
            continue;
        }
        let body = code(text.split("#[cfg(test)]\nmod ").next().unwrap_or(""));
        for word in banned {
            assert!(
                !body.contains(word),
                "{name} uses `{word}`: core has no std, clock, thread, hash map or async"
            );
        }
    }
}

#[test]
fn no_run_of_the_simulator_depends_on_the_order_of_a_hash_map() {
    for (name, text) in sources(&["sim/src", "sim/tests"]) {
        let body = code(&text);
        for word in ["HashMap", "HashSet", "RandomState"] {
            assert!(!body.contains(word), "{name} uses `{word}`: equal scenarios must give equal runs");
        }
    }
}

/// Files that may touch the system directly, each with its reason. Everything else goes through runtime/src/seam.rs.
const SYSTEM: &[(&str, &str)] = &[
    ("runtime/src/real.rs", "the production side of the seams"),
    (
        "runtime/cli/src/demo/site.rs",
        "writes the configuration of a child process and finds free ports for it",
    ),
    (
        "runtime/cli/src/policy/desk.rs",
        "the files and programs of a policy's author: modules, keys, projects, compilers",
    ),
    (
        "sim/src/cli/bench.rs",
        "threads, the wall clock and CPU time around runs of the simulator; no run sees them",
    ),
    ("sim/src/cli/bank.rs", "tells how long hunts in other processes took"),
    ("sim/src/cli/meta.rs", "starts the same seeds in two processes and keeps a thread busy beside them"),
    ("sim/src/cli/nightly.rs", "ends a night by the wall clock and keeps what failed in files"),
    ("sim/src/cli/replay.rs", "reads scenario files"),
    ("sim/src/cli/run.rs", "writes JUnit's XML"),
    ("sim/src/cli/shrink.rs", "writes the small scenario"),
    ("policies/src/call.rs", "measures how long a policy took; the answer goes to metrics and nowhere else"),
    (
        "policies/src/author/recipe.rs",
        "runs compilers on an author's desk and reads what they made; no site does",
    ),
    ("runtime/s3/src/client.rs", "the SDK demands the type; the time itself comes from the Clock seam"),
];

/// Every path that code names, with grouped imports written out: `use std::{fs, io}` names `std::fs`.
fn paths(body: &str) -> String {
    fn expand(prefix: &str, tree: &str, out: &mut String) {
        let tree = tree.trim();
        let Some(open) = tree.find('{') else {
            out.push_str(&format!("{prefix}{tree}\n"));
            return;
        };
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let prefix = format!("{prefix}{}", tree[..open].trim());
        let (mut depth, mut from) = (0, 0);
        for (at, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&prefix, &inner[from..at], out);
                    from = at + 1;
                }
                _ => {}
            }
        }
        if !inner[from..].trim().is_empty() {
            expand(&prefix, &inner[from..], out);
        }
    }
    let mut out = body.to_owned();
    for (at, _) in body.match_indices("use ") {
        let begins =
            body[..at].trim_end_matches("pub ").rsplit('\n').next().is_none_or(|line| line.trim().is_empty());
        let statement = body[at + 4..].split(';').next().unwrap_or("");
        if begins && statement.contains('{') && statement.ends_with('}') {
            expand("", statement, &mut out);
        }
    }
    out
}

#[test]
fn grouped_imports_are_written_out() {
    let out = paths("use std::{fs, io::{self, Read}, time::{Duration, SystemTime}};");
    for path in ["std::fs\n", "std::io::Read\n", "std::time::SystemTime\n"] {
        assert!(out.contains(path), "{path} is missing in {out}");
    }
}

#[test]
fn only_listed_files_touch_sockets_files_clocks_and_threads() {
    let banned = [
        "tokio::net",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::fs",
        "std::os",
        "tokio::fs",
        "std::time::Instant",
        "std::time::SystemTime",
        "SystemTime::now",
        "spawn_blocking",
        "std::thread",
        "block_in_place",
    ];
    let mut used = vec![false; SYSTEM.len()];
    for (name, text) in sources(&["runtime", "policies/src", "tests/device/src", "sim/src", "sim/socket/src"])
    {
        let listed = SYSTEM.iter().position(|(file, _)| name.starts_with(file));
        // Test modules inside a file stand at its end.
        let body = paths(&code(text.split("#[cfg(test)]\nmod ").next().unwrap_or("")));
        for word in banned {
            if body.contains(word) && !is_test(&name) {
                match listed {
                    Some(at) => used[at] = true,
                    None => panic!(
                        "{name} uses `{word}`: go through runtime/src/seam.rs, or list the file with a reason"
                    ),
                }
            }
        }
    }
    for ((file, reason), used) in SYSTEM.iter().zip(used) {
        assert!(used, "{file} is listed ({reason}) but touches nothing any more: take it off the list");
    }
}

#[test]
fn every_select_is_biased() {
    for (name, text) in sources(&["runtime", "tests/device/src", "sim/src", "sim/socket/src", "policies/src"])
    {
        let body = code(&text);
        for (at, _) in body.match_indices("select! {") {
            let rest = body[at + "select! {".len()..].trim_start();
            assert!(
                rest.starts_with("biased;"),
                "{name}: a select! without `biased;` picks its branch by chance"
            );
        }
    }
}

#[test]
fn every_file_says_first_what_it_owns() {
    for (name, text) in
        sources(&["core/src", "policies/src", "runtime", "sim/src", "sim/socket/src", "tests"])
    {
        assert!(text.starts_with("//!"), "{name} must begin with a //! line that says what it owns");
    }
}

/// Longest file without tests. A ratchet: it may only go down.
const LINES_MAX: usize = 700;

#[test]
fn no_file_outgrows_a_single_purpose() {
    for (name, text) in
        sources(&["core/src", "policies/src", "runtime", "sim/src", "sim/socket/src", "tests/device"])
    {
        if is_test(&name) {
            continue;
        }
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("").lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines; split it by purpose (at most {LINES_MAX})");
    }
}

/// Where files that are no text may be tracked, and how they end; an empty end is any.
const BINARY: &[(&str, &str)] = &[("policies/", ".wasm"), ("tests/golden/", ""), ("tests/fuzz/corpus/", "")];

/// Whether git tracks such a file for a reason.
fn may_be_tracked(name: &str, bytes: &[u8]) -> bool {
    let is_text = !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
    is_text || BINARY.iter().any(|(folder, end)| name.starts_with(folder) && name.ends_with(end))
}

#[test]
fn what_is_no_text_is_tracked_only_where_it_belongs() {
    // The incident: a package of 9.6 megabytes was committed with the files around it.
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else {
        return crate::skip::skip(
            "what_is_no_text_is_tracked_only_where_it_belongs",
            "this is no work tree of git",
        );
    };
    let names = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let mut seen = 0;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let path = root().join(name);
        // Links lead to files that are looked at themselves; what was removed is not committed any more.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file()) {
            let bytes = fs::read(&path).expect(name);
            assert!(
                may_be_tracked(name, &bytes),
                "{name} is no text: it does not belong into the repository"
            );
            seen += 1;
        }
    }
    assert!(seen > 500, "only {seen} files were looked at");
    assert!(!may_be_tracked("some.whl", b"PK\x03\x04\x00") && !may_be_tracked("policies/x.png", &[0xFF]));
    assert!(may_be_tracked("policies/default/policy.wasm", b"\0asm") && may_be_tracked("LICENSE", b"text"));
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in
        sources(&["core/src", "policies/src", "runtime", "sim/src", "sim/socket/src", "tests/device/src"])
    {
        let body = code(&text);
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            assert!(!body.contains(word), "{name} still has {word}");
        }
    }
}

#[test]
fn every_code_of_the_api_stands_in_the_protocol() {
    // A code is the second argument of an answer: a word of small letters in quotes.
    let protocol = fs::read_to_string(root().join("docs/protocol.md")).expect("the protocol");
    let mut codes = BTreeSet::new();
    for (name, text) in sources(&["runtime/src/api", "runtime/src/link"]) {
        if is_test(&name) {
            continue;
        }
        for call in code(&text).split("Answer::new(").skip(1) {
            let word = call.split('"').nth(1).expect("an answer has a code");
            codes.insert(word.to_owned());
        }
    }
    assert!(codes.len() > 25, "the codes are no longer found: {codes:?}");
    let missing: Vec<&String> =
        codes.iter().filter(|word| !protocol.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "docs/protocol.md does not name {missing:?}");
}

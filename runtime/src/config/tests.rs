//! Configuration: who wins, what is refused and how it is said, and that secrets stay secret.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use super::*;
use crate::real::RealDisk;
use std::path::Path;
use tidegate_core::id::Role;
use tidegate_core::input::Demand;

fn load(file: &str, environment: &[(&str, &str)], flags: &str) -> Result<Config, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.toml");
    std::fs::write(&path, file).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let layers = Layers { file: Some(path), environment, flags: flags.parse().unwrap() };
    Config::load(&RealDisk, &layers)
}

fn problems(file: &str, environment: &[(&str, &str)], flags: &str) -> Vec<String> {
    let found = load(file, environment, flags).unwrap_err();
    // The path of the file is another one in every run.
    let shorten = |line: String| line.find("tidegate.toml:").map_or(line.clone(), |at| line[at..].to_owned());
    found.0.iter().map(|problem| shorten(problem.to_string())).collect()
}

#[test]
fn nothing_configured_is_a_site_on_loopback_without_a_cloud() {
    let config = load("", &[], "").unwrap();
    assert!(config.listen.api.ip().is_loopback() && config.listen.s3.ip().is_loopback());
    assert_eq!((config.listen.api.port(), config.listen.s3.port()), (8080, 9000));
    assert_eq!(config.cloud, None);
    assert_eq!(config.edge.keys, None);
    assert!(config.warnings.is_empty() && config.sources.is_empty());
    let knobs = config.knobs().unwrap();
    let module = Some(crate::policies::default_module());
    let expected =
        Knobs { destination: false, reserve: 512 << 20, default_module: module, ..Knobs::default() };
    assert_eq!(knobs, expected);
    assert_eq!(config.edge.abandoned_after, Some(std::time::Duration::from_secs(7 * 86_400)));
    assert_eq!(config.edge_bucket(), "edge-site");
}

#[test]
fn the_file_beats_defaults_the_environment_beats_the_file_and_flags_beat_all() {
    let file = "site = \"file\"\ndata_dir = \"from-file\"\n[sync]\nuploads = 3\nattempts = 7\n";
    let environment = [("TIDEGATE_SITE", "env"), ("TIDEGATE_SYNC__UPLOADS", "4"), ("HOME", "/root")];
    let config = load(file, &environment, "site = \"flag\"").unwrap();
    assert_eq!(config.site, "flag");
    assert_eq!(config.data_dir, Path::new("from-file"));
    assert_eq!((config.sync.uploads, config.sync.attempts, config.sync.batch), (4, 7, 100));
    assert_eq!(config.sources["site"], Source::Flag);
    assert_eq!(config.sources["sync.uploads"], Source::Environment("TIDEGATE_SYNC__UPLOADS".to_owned()));
    assert!(matches!(&config.sources["sync.attempts"], Source::File { line: 5, .. }));
    assert!(!config.sources.contains_key("sync.batch"));
}

#[test]
fn without_a_flag_the_file_in_the_data_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), "site = \"here\"").unwrap();
    let environment = vec![("TIDEGATE_DATA_DIR".to_owned(), dir.path().to_str().unwrap().to_owned())];
    let config = Config::load(&RealDisk, &Layers { environment, ..Layers::default() }).unwrap();
    assert_eq!(config.site, "here");
    let layers = Layers { file: Some(dir.path().join("absent.toml")), ..Layers::default() };
    let missing = Config::load(&RealDisk, &layers).unwrap_err().to_string();
    assert!(missing.contains("absent.toml cannot be read"), "{missing}");
}

#[test]
fn the_environment_may_name_the_file_and_the_flag_beats_it() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(named("variable.toml"), "site = \"variable\"").unwrap();
    std::fs::write(named("flag.toml"), "site = \"flag\"").unwrap();
    let layers = |file: Option<&str>, variable: &str| Layers {
        file: file.map(|file| named(file).into()),
        environment: vec![("TIDEGATE_CONFIG".to_owned(), variable.to_owned())],
        ..Layers::default()
    };
    let site = |layers: Layers| Config::load(&RealDisk, &layers).map(|config| config.site);
    assert_eq!(site(layers(None, &named("variable.toml"))).unwrap(), "variable");
    assert_eq!(site(layers(Some("flag.toml"), &named("variable.toml"))).unwrap(), "flag");
    assert_eq!(site(layers(None, "")).unwrap(), "site", "an empty variable is an absent one");
    let missing = site(layers(None, &named("absent.toml"))).unwrap_err().to_string();
    assert!(missing.contains("absent.toml cannot be read"), "{missing}");
}

#[test]
fn variables_of_ours_that_are_for_others_are_no_settings() {
    let others = [
        ("TIDEGATE_API", "http://127.0.0.1:1"),
        ("TIDEGATE_CA", "ca.pem"),
        ("TIDEGATE_TOKEN", "hidden"),
        ("TIDEGATE_TEST_NO_SKIP", "1"),
    ];
    assert!(load("", &others, "").unwrap().sources.is_empty());
    assert_eq!(problems("", &[("TIDEGATE_TESTS", "1")], "").len(), 1);
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_one() {
    assert_eq!(
        problems("\n[sync]\npart_sise = \"8MiB\"\n", &[], ""),
        ["tidegate.toml:3: unknown key \"sync.part_sise\", did you mean \"sync.part_size\"?"]
    );
    assert_eq!(
        problems("", &[("TIDEGATE_SYNC__PART_SISE", "1")], ""),
        [
            "environment TIDEGATE_SYNC__PART_SISE: unknown key \"sync.part_sise\", did you mean TIDEGATE_SYNC__PART_SIZE?"
        ]
    );
    assert_eq!(
        problems("[devices]\nkeep = \"1h\"\n", &[], ""),
        ["tidegate.toml:2: unknown key \"devices.keep\", did you mean \"edge.keep\"?"]
    );
    assert_eq!(problems("", &[], "xyzzy = 1"), ["command line: unknown key \"xyzzy\""]);
    assert_eq!(problems("sync = 3", &[], ""), ["tidegate.toml:1: \"sync\" is a section: write [sync]"]);
}

#[test]
fn every_problem_is_reported_at_once_each_with_its_source() {
    let file = "site = 5\n[sync]\nscan_every = \"soon\"\nauto_scan = \"maybe\"\n[log]\nformat = \"xml\"\n";
    let found = problems(file, &[("TIDEGATE_LISTEN__API", "everywhere")], "journal = {limit = \"1B\"}");
    assert_eq!(found.len(), 6, "{found:#?}");
    let has = |part: &str| assert!(found.iter().any(|line| line.contains(part)), "{part} in {found:#?}");
    has("tidegate.toml:1: site must be a text in quotes");
    has("tidegate.toml:3: sync.scan_every must be a duration");
    has("tidegate.toml:4: sync.auto_scan must be true or false");
    has("tidegate.toml:6: log.format must be \"text\" or \"json\"");
    has("environment TIDEGATE_LISTEN__API: listen.api must be an address");
    has("command line: journal.limit must be between 1MiB and 64GiB");
}

#[test]
fn ranges_of_the_core_are_refused_by_the_names_of_the_file() {
    let cases = [
        ("[sync]\npart_size = \"1MiB\"", "tidegate.toml:2: sync.part_size must be between 5 MiB and 512 MiB"),
        ("[sync]\nparts_in_flight = 17", "tidegate.toml:2: sync.parts_in_flight must be between 1 and 16"),
        (
            "[sync]\nparts_in_flight = 70000",
            "tidegate.toml:2: sync.parts_in_flight must be a small whole number",
        ),
        ("[sync]\nretry_cap = \"25h\"", "tidegate.toml:2: sync.retry_cap must be between 1ms and 1d"),
        (
            "[devices]\nrpc_timeout = \"5m\"",
            "tidegate.toml:2: devices.rpc_timeout must be between 100ms and 2m",
        ),
    ];
    for (file, problem) in cases {
        assert_eq!(problems(file, &[], ""), [problem]);
    }
}

#[test]
fn a_site_whose_bucket_no_store_would_take_is_refused_by_the_name_of_the_setting() {
    for site in ["a b", "Berlin", "north_1", "", "north-", &"n".repeat(59)] {
        let found = problems(&format!("site = \"{site}\""), &[], "");
        assert!(
            matches!(&found[..], [only] if only.starts_with("tidegate.toml:1: site must be 1 to 58 ")),
            "{site}: {found:?}"
        );
    }
    for site in ["n", "north-1", &"n".repeat(58)] {
        assert_eq!(load(&format!("site = \"{site}\""), &[], "").unwrap().site, site);
    }
}

#[test]
fn a_public_url_with_credentials_is_refused_because_it_is_told_to_devices_and_journalled() {
    let found = problems("public_url = \"http://me:hidden@site:8080\"", &[], "");
    assert!(found.len() == 1 && found[0].contains("public_url must be a base URL"), "{found:?}");
    assert!(!found[0].contains("hidden"), "{found:?}");
}

#[test]
fn a_level_that_is_none_is_refused_and_would_otherwise_silence_the_log() {
    for level in ["loud", "inf", "info,verbose", ""] {
        let found = problems(&format!("log = {{level = \"{level}\"}}"), &[], "");
        assert!(found.len() == 1 && found[0].contains("log.level must be error, warn"), "{level}: {found:?}");
    }
    for level in ["off", "WARN", "info,tidegate_runtime=debug", "tidegate_core=trace", "debug,s3s=info"] {
        assert_eq!(load(&format!("log = {{level = \"{level}\"}}"), &[], "").unwrap().log.level, level);
    }
}

#[test]
fn the_page_on_configuration_has_a_row_for_every_setting() {
    let page = include_str!("../../../docs/configuration.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for key in read::KEYS {
        let named = format!("`{key}`");
        assert!(rows.iter().any(|row| row.contains(&named)), "docs/configuration.md says nothing of {key}");
    }
}

#[test]
fn a_broken_file_is_reported_with_its_line() {
    let found = problems("site = \"a\"\nlog = = 3\n", &[], "");
    assert!(found[0].starts_with("tidegate.toml:2: "), "{found:?}");
}

#[test]
fn listening_beyond_this_machine_must_be_asked_for() {
    let found = problems(
        "[listen]\napi = \"0.0.0.0:8080\"\nrecorder = \"0.0.0.0:8091\"\n[auth]\ndevices = \"off\"",
        &[],
        "",
    );
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found[0].starts_with("tidegate.toml:2: listen.api is reachable beyond this machine"),
        "{found:?}"
    );
    let config = load(
        "public_url = \"http://127.0.0.1:8080/\"\n[listen]\napi = \"0.0.0.0:8080\"\ninsecure = true",
        &[],
        "",
    )
    .unwrap();
    assert_eq!(config.public_url.as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    let open = "nobody has to prove anything at listen.api, and";
    assert!(config.warnings.iter().any(|text| text.starts_with(open)), "{:?}", config.warnings);
    // The S3 endpoint asks for signatures.
    load("[listen]\ns3 = \"0.0.0.0:9000\"", &[], "").unwrap();
    let found = problems("[listen]\ns3 = 8080", &[], "");
    assert_eq!(found, ["tidegate.toml:2: listen.s3 must not be the address of listen.api"]);
}

#[test]
fn a_certificate_and_its_key_go_together_and_speak_for_the_api_unless_others_are_named() {
    let config =
        load("[listen]\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\"\nrecorder = 8091", &[], "").unwrap();
    assert!(config.listen.encrypts(Door::Api) && !config.listen.encrypts(Door::Recorder));
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let pair = "[listen]\ntls_cert = \"c.pem\"\ntls_key = \"k.pem\"\n";
    let config = load(&format!("{pair}tls = \"s3, transfer\"\ntransfer = 8090"), &[], "").unwrap();
    let on: Vec<&str> =
        Door::ALL.into_iter().filter(|door| config.listen.encrypts(*door)).map(Door::name).collect();
    assert_eq!(on, ["s3", "transfer"]);
    assert!(!load("", &[], "").unwrap().listen.encrypts(Door::Api));
    let cases = [
        (
            "tls_cert = \"c.pem\"",
            "listen.tls_key must be the path of a PEM file, set together with listen.tls_cert",
        ),
        (
            "tls_key = \"k.pem\"",
            "listen.tls_cert must be the path of a PEM file, set together with listen.tls_key",
        ),
        ("tls = \"api\"", "tidegate.toml:2: listen.tls names listeners that speak TLS: set listen.tls_cert"),
        (
            "tls_cert = \"c\"\ntls_key = \"k\"\ntls = \"http\"",
            "tidegate.toml:4: listen.tls must be a list of api, s3",
        ),
        (
            "tls_cert = \"c\"\ntls_key = \"k\"\ntls = \"\"",
            "tidegate.toml:4: listen.tls must be a list of api, s3",
        ),
        (
            "tls_cert = \"c\"\ntls_key = \"k\"\ntls = \"api,recorder\"",
            "listen.tls names recorder, but listen.recorder is not set",
        ),
    ];
    for (keys, part) in cases {
        let found = problems(&format!("[listen]\n{keys}"), &[], "");
        assert!(found.len() == 1 && found[0].contains(part), "{keys}: {found:?}");
    }
}

#[test]
fn tls_that_leaves_recorders_or_callbacks_out_is_warned_of() {
    let pair = "tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\n";
    let warnings = |file: &str| load(file, &[], "").unwrap().warnings;
    let found = warnings(&format!("[listen]\n{pair}"));
    assert!(found.len() == 1 && found[0].contains("set listen.recorder"), "{found:?}");
    let found =
        warnings(&format!("public_url = \"http://a.example:8080\"\n[listen]\nrecorder = 8091\n{pair}"));
    assert!(found.len() == 1 && found[0].contains("public_url"), "{found:?}");
    let fine = format!("public_url = \"http://a.example:8091\"\n[listen]\nrecorder = 8091\n{pair}");
    assert!(warnings(&fine).is_empty());
}

#[test]
fn a_cloud_needs_a_bucket_and_credentials_and_keeps_them_to_itself() {
    let found = problems("[cloud]\nendpoint = \"ftp://x\"\nbucket = \"b\"", &[], "");
    assert_eq!(found.len(), 3, "{found:#?}");
    let file = "[cloud]\nendpoint = \"http://127.0.0.1:9001/\"\nbucket = \"b\"\naccess_key = \"id\"\n\
                [edge]\naccess_key = \"robots\"\nsecret_key = \"edge-hidden\"\nkeep = \"forever\"";
    let environment =
        [("TIDEGATE_CLOUD__SECRET_KEY", "cloud-hidden"), ("TIDEGATE_CLOUD__SESSION_TOKEN", "token-hidden")];
    let config = load(file, &environment, "").unwrap();
    let cloud = config.cloud.clone().unwrap();
    assert_eq!(cloud.secret_key.reveal(), "cloud-hidden");
    assert_eq!(cloud.endpoint.as_deref(), Some("http://127.0.0.1:9001"));
    assert!(cloud.path_style && config.knobs().unwrap().destination);
    assert_eq!(config.edge.keep, None);
    assert_eq!(config.knobs().unwrap().keep_edge_ms, None);
    let shown =
        format!("{config:?} {} {}", cloud.secret_key, serde_json::to_string(&cloud.secret_key).unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
    assert!(shown.contains("***"));
}

#[test]
fn problems_never_repeat_a_value() {
    let found = problems(
        "[cloud]\nsecret_key = 12345678\n[edge]\nsecret_key = \"hidden-value\"\nkeep = \"hidden-keep\"",
        &[("TIDEGATE_CLOUD__PATH_STYLE", "hidden-flag")],
        "",
    );
    let all = found.join("\n");
    assert!(!all.contains("hidden") && !all.contains("12345678"), "{all}");
}

#[test]
fn durations_and_sizes_are_read_and_written_in_the_units_people_use() {
    let ms = |text: &str| parse_duration(text).map(|d| d.as_millis());
    for (text, expected) in [
        ("15s", 15_000),
        ("500ms", 500),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("0", 0),
        ("0s", 0),
    ] {
        assert_eq!(ms(text), Ok(expected), "{text}");
        assert_eq!(ms(&duration_text(parse_duration(text).unwrap())), Ok(expected), "{text}");
    }
    for text in ["", "5", "s", "-1s", "1.5s", "5 parsecs", "99999999999999999d"] {
        assert!(ms(text).is_err(), "{text}");
    }
    for (text, expected) in
        [("8MiB", 8 << 20), ("50MB", 50_000_000), ("1024", 1024), ("64 KiB", 65_536), ("2gib", 2 << 30)]
    {
        assert_eq!(parse_size(text), Ok(expected), "{text}");
        assert_eq!(parse_size(&size_text(expected)), Ok(expected), "{text}");
    }
    for text in ["", "MiB", "-1", "1.5MB", "8 apples"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

#[test]
fn policies_have_keys_labels_and_bounds() {
    let hex = "0a".repeat(32);
    let base64 = "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo=";
    let file = format!(
        "[policies]\nnative = false\nprobation = \"1h\"\nfaults = 5\nmax_bytes = \"64KiB\"\nwatch = \"in\"\n\
         [policies.keys]\nrelease = \"{hex}\"\nspare = \"{base64}\"\n\
         [policies.labels]\n\"robot-*\" = {{ team = \"a\", deadline-hours = 4, spare = true }}\n\"*\" = \"fleet=all, b=c\"\ncam-1 = \"k=v\"\n\"cam-1*\" = \"k=w\"\n"
    );
    let config =
        load(&file, &[("TIDEGATE_POLICIES__PATIENCE", "2h")], "policies.labels.cam-1 = \"kind=eye\"")
            .unwrap();
    let policies = &config.policies;
    assert_eq!(
        (policies.probation.as_secs(), policies.patience.as_secs(), policies.faults),
        (3_600, 7_200, 5)
    );
    assert_eq!((policies.max_bytes, policies.watch.as_deref()), (64 << 10, Some(Path::new("in"))));
    assert_eq!(policies.keys, [("release".to_owned(), [10; 32]), ("spare".to_owned(), [10; 32])].into());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let labels = [
        ("*".to_owned(), vec![pair("b", "c"), pair("fleet", "all")]),
        ("cam-1*".to_owned(), vec![pair("k", "w")]),
        ("cam-1".to_owned(), vec![pair("kind", "eye")]),
        ("robot-*".to_owned(), vec![pair("deadline-hours", "4"), pair("spare", "true"), pair("team", "a")]),
    ];
    assert_eq!(policies.labels, labels);
    assert_eq!(config.knobs().unwrap().default_module, Some(crate::policies::default_module()));
    assert!(!config.knobs().unwrap().native);
    let native = load("[policies]\nnative = true", &[], "").unwrap().knobs().unwrap();
    assert!(native.native);
    assert_eq!(native.default_module, Some(crate::policies::default_module()), "it rests like any other");
}

#[test]
fn what_policies_cannot_be_is_refused_by_its_name() {
    let cases = [
        ("[policies.keys]\nRelease = \"x\"", "policies.keys.Release must have a name"),
        ("[policies.keys]\nrelease = \"x\"", "policies.keys.release must be a public ed25519 key"),
        ("[policies.keys]\nrelease = 5", "policies.keys.release must be a text"),
        ("[policies.labels]\n\"a b\" = \"x=y\"", "policies.labels.a b must be named after a device id"),
        ("[policies.labels]\n\"a*b\" = \"x=y\"", "policies.labels.a*b must be named after a device id"),
        ("[policies.labels]\nrobot = \"team\"", "policies.labels.robot must be 1 to 16 labels"),
        ("[policies.labels]\nrobot = { team = [1] }", "policies.labels.robot must be 1 to 16 labels"),
        ("[policies.labels]\nrobot = 5", "policies.labels.robot must be 1 to 16 labels"),
        ("[policies]\nlabels = 5", "\"policies.labels\" is a section: write [policies.labels]"),
        ("[policies]\nfaults = 0", "policies.faults must be between 1 and 100"),
        ("[policies]\nprobation = \"2d\"", "policies.probation must be between 1s and 1d"),
        ("[policies]\nmax_bytes = 1", "policies.max_bytes must be between 4KiB and 8MiB"),
        ("[policies]\nnative = true\nwatch = \"in\"", "policies.watch must not be set with policies.native"),
        ("[policies]\nkey = \"x\"", "unknown key \"policies.key\""),
    ];
    for (file, part) in cases {
        let found = problems(file, &[], "");
        assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
    }
}

#[test]
fn surroundings_are_words_and_a_time_zone_and_unknown_is_a_word_of_its_own() {
    use tidegate_core::policy::{Known, LinkKind, Power};
    let file = "[surroundings]\nlink = \"satellite\"\nmetered = true\npower = \"battery-low\"\ntime_zone = \"+05:30\"";
    let said = load(file, &[("TIDEGATE_SURROUNDINGS__METERED", "unknown")], "").unwrap().surroundings;
    assert_eq!((said.link, said.metered), (Some(LinkKind::Satellite), Some(Known::Unknown)));
    assert_eq!((said.power, said.time_zone.as_deref()), (Some(Power::BatteryLow), Some("+05:30")));
    assert_eq!(
        load("[surroundings]\nmetered = false", &[], "").unwrap().surroundings.metered,
        Some(Known::No)
    );
    for (file, part) in [
        ("link = \"fibre\"", "surroundings.link must be one of \"unknown\", \"none\", \"ethernet\""),
        ("power = true", "surroundings.power must be a text"),
        ("metered = 7", "surroundings.metered must be true, false or \"unknown\""),
        ("time_zone = \"Mars/Base\"", "surroundings.time_zone must be a time zone"),
    ] {
        let found = problems(&format!("[surroundings]\n{file}"), &[], "");
        assert!(found.len() == 1 && found[0].contains(part), "{part}: {found:?}");
    }
}

#[test]
fn beyond_this_machine_tokens_are_asked_for_and_each_listener_is_judged_by_itself() {
    let beyond = load("[listen]\nrecorder = \"0.0.0.0:8091\"", &[], "").unwrap();
    assert!(!beyond.api_tokens() && beyond.device_tokens() && beyond.callback_tokens());
    assert!(!beyond.open_registration());
    let own = beyond.listen.recorder.unwrap();
    assert_eq!(beyond.demand(Role::Recorder, own), Demand::Token);
    assert_eq!(beyond.demand(Role::Transfer, own), Demand::TokenOrAddress);
    assert_eq!(beyond.demand(Role::Recorder, beyond.listen.api), Demand::Nothing);
    assert!(beyond.knobs().unwrap().callback_tokens);

    let here = load("", &[], "").unwrap();
    assert!(!here.api_tokens() && !here.device_tokens() && here.open_registration());

    let strict = "[auth]\napi = \"tokens\"\ndevices = \"tokens\"\ntransfer = \"token\"\nbound_keep = \"5m\"\n\
                  callbacks = \"off\"\nregistration = \"open\"";
    let strict = load(strict, &[], "").unwrap();
    assert!(strict.api_tokens() && !strict.callback_tokens() && strict.open_registration());
    assert_eq!(strict.demand(Role::Transfer, strict.listen.api), Demand::Token);
    assert_eq!(strict.knobs().unwrap().bound_keep_ms, 300_000);

    let insecure = load("[listen]\napi = \"0.0.0.0:8080\"\ninsecure = true", &[], "").unwrap();
    assert!(!insecure.api_tokens() && !insecure.device_tokens(), "it was asked for");
    for (text, key) in [
        ("[listen]\napi = \"0.0.0.0:8080\"\n[auth]\napi = \"off\"", "listen.api"),
        ("[listen]\napi = \"0.0.0.0:8080\"\n[auth]\ncallbacks = \"off\"", "auth.callbacks"),
        ("[auth]\napi = \"on\"", "auth.api"),
        ("[auth]\ntransfer = \"any\"", "auth.transfer"),
        ("[auth]\nregistration = \"yes\"", "auth.registration"),
        ("[auth]\nbound_keep = \"31d\"", "auth.bound_keep"),
    ] {
        let found = problems(text, &[], "");
        assert!(found.len() == 1 && found[0].contains(key), "{text}: {found:?}");
    }
}

#[test]
fn a_listener_beyond_this_machine_is_refused_by_its_own_name_whatever_its_address_looks_like() {
    for host in ["0.0.0.0", "[::]", "192.0.2.7", "[2001:db8::1]", "[::ffff:127.0.0.1]"] {
        for (listener, off) in [
            ("api", "auth.api"),
            ("api", "auth.devices"),
            ("recorder", "auth.devices"),
            ("transfer", "auth.devices"),
        ] {
            let (_, word) = off.split_once('.').unwrap();
            let file = format!("[listen]\n{listener} = \"{host}:7000\"\n[auth]\n{word} = \"off\"");
            let found = problems(&file, &[], "");
            let expected =
                format!("tidegate.toml:2: listen.{listener} is reachable beyond this machine, and {off}");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{file}: {found:?}");
            assert!(found[0].contains("--insecure"), "{found:?}");
            // As it is by itself, or when somebody says so, it is none.
            load(&format!("[listen]\n{listener} = \"{host}:7000\""), &[], "").unwrap();
            load(&file.replace("[auth]", "insecure = true\n[auth]"), &[], "").unwrap();
        }
        for listener in ["api", "recorder", "transfer"] {
            let file = format!("[listen]\n{listener} = \"{host}:7000\"\n[auth]\ncallbacks = \"off\"");
            let found = problems(&file, &[], "");
            assert!(found.len() == 1 && found[0].starts_with("tidegate.toml:4: auth.callbacks"), "{found:?}");
        }
    }
    for host in ["127.0.0.1", "127.8.0.1", "[::1]"] {
        let file = format!(
            "[listen]\napi = \"{host}:7000\"\n[auth]\napi = \"off\"\ndevices = \"off\"\ncallbacks = \"off\""
        );
        load(&file, &[], "").unwrap();
    }
}

#[test]
fn tokens_in_the_clear_beyond_this_machine_are_worth_a_warning_that_names_the_listeners() {
    let warned = |file: &str| {
        let config = load(file, &[], "").unwrap();
        let mut found = config.warnings.iter().filter(|text| text.starts_with("tokens are asked for"));
        let first = found.next().cloned();
        assert!(found.next().is_none(), "{:?}", config.warnings);
        first.map(|text| text[text.find('(').unwrap()..=text.find(')').unwrap()].to_owned())
    };
    assert_eq!(warned(""), None);
    assert_eq!(warned("[auth]\napi = \"tokens\"\ndevices = \"tokens\""), None, "on loopback");
    assert_eq!(warned("[listen]\napi = \"0.0.0.0:8080\"").as_deref(), Some("(listen.api)"));
    let tls = "[listen]\napi = \"0.0.0.0:8443\"\ntls_cert = \"a\"\ntls_key = \"b\"\n";
    assert_eq!(warned(tls), None);
    let beside = format!("{tls}recorder = \"0.0.0.0:8091\"\ntransfer = \"0.0.0.0:8090\"\n");
    assert_eq!(warned(&beside).as_deref(), Some("(listen.recorder, listen.transfer)"));
    let both = format!("{beside}tls = \"api, transfer\"");
    assert_eq!(warned(&both).as_deref(), Some("(listen.recorder)"));
    assert_eq!(warned("[listen]\napi = \"0.0.0.0:8080\"\ninsecure = true"), None, "none are asked for");
    let all_the_same = "[listen]\napi = \"0.0.0.0:8080\"\ninsecure = true\n[auth]\napi = \"tokens\"";
    assert_eq!(warned(all_the_same).as_deref(), Some("(listen.api)"));
}

#[test]
fn where_devices_are_told_to_come_is_a_base_address_of_web_sockets() {
    let config = load(
        "[devices]\nrecorder_url = \"ws://edge.example:8091/\"\ntransfer_url = \"wss://[fd00::5]/site\"",
        &[],
        "",
    )
    .unwrap();
    assert_eq!(config.devices.recorder_url.as_deref(), Some("ws://edge.example:8091"));
    assert_eq!(config.devices.transfer_url.as_deref(), Some("wss://[fd00::5]/site"));
    for key in ["recorder_url", "transfer_url"] {
        for wrong in [
            "http://edge:8091",
            "edge:8091",
            "/recorder",
            "ws://",
            "ws://me:hidden@edge:8091",
            "ws://edge:8091/?a=b",
            "ws://edge:8091/#part",
            "",
        ] {
            let found = problems(&format!("[devices]\n{key} = \"{wrong}\""), &[], "");
            let expected = format!("tidegate.toml:2: devices.{key} must be a base URL such as \"ws://");
            assert!(found.len() == 1 && found[0].starts_with(&expected), "{wrong}: {found:?}");
            assert!(!found[0].contains("hidden"), "{found:?}");
        }
    }
}

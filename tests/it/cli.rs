//! The command line: exit codes, messages, help, and what a site does without a configuration.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::json;

use crate::cloud::Cloud;
use crate::rig::{Plan, STEP, Site, free_port, run, signal, until};
use crate::script::{Take, Uploader};

/// Runs a command that ends by itself; one that goes on for too long is killed and fails the test.
pub async fn output(command: std::process::Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let ended = tokio::time::timeout(STEP, command.output()).await;
    ended.expect("the command ends by itself").expect("the binary under test")
}

/// What it printed, both ways.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A process that does not outlive its test.
struct Running(std::process::Child);

impl Running {
    /// Waits until it ends by itself; its exit code.
    async fn end(&mut self) -> Option<i32> {
        until("the process to end", STEP, async || self.0.try_wait().expect("its status")).await.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error is a process that is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn cli(arguments: &[&str]) -> Output {
    let mut command = Site::program();
    command.args(arguments);
    output(command).await
}

#[test]
fn a_second_process_on_a_data_directory_is_refused_by_its_name() {
    run(async {
        let site = Plan::new().start().await;
        let (api, s3) = (free_port(), free_port());
        let mut command = Site::program();
        command.args(["run", "--data-dir"]).arg(site.data_dir());
        command.args(["--listen", &format!("127.0.0.1:{api}"), "--s3-listen", &format!("127.0.0.1:{s3}")]);
        command.current_dir(std::env::temp_dir());
        let output = output(command).await;
        assert_eq!(output.status.code(), Some(4), "{}", text(&output));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(&*site.data_dir().to_string_lossy()), "it names the directory: {message}");
        assert_eq!(
            site.send(http::Method::GET, "/readyz").await.status.as_u16(),
            200,
            "the first one lives on"
        );
    });
}

#[test]
fn a_reader_who_has_seen_enough_ends_a_command_without_a_word() {
    run(async {
        let site = Plan::new().start().await;
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (mut heard, errors) = std::io::pipe().expect("a pipe");
        let mut command = Site::program();
        command.args(["status", "--api", &format!("http://127.0.0.1:{}", site.api)]);
        let mut started = Running(command.stdout(writer).stderr(errors).spawn().expect("the binary starts"));
        // It has the ends of the pipes as well.
        drop(command);
        assert_eq!(started.end().await, Some(141), "as the signal of a broken pipe would end it");
        let mut complaint = String::new();
        heard.read_to_string(&mut complaint).expect("what it complained of");
        assert_eq!(complaint, "");
    });
}

#[test]
fn a_directory_of_a_killed_site_is_not_refused() {
    run(async {
        let mut site = Plan::new().start().await;
        site.kill();
        site.start().await;
        site.stop().await;
        site.start().await;
    });
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_its_place_and_a_better_one() {
    run(async {
        let site = Plan::new().set("sync.part_sise", "5MiB").set("shutdwon.drain", "1s").prepare();
        let output = output(site.command()).await;
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        for word in ["sync.part_sise", "sync.part_size", "shutdwon", "tidegate.toml"] {
            assert!(message.contains(word), "{word} is missing: {message}");
        }
    });
}

#[test]
fn bad_values_are_named_without_being_shown() {
    run(async {
        let plan = Plan::new()
            .set("devices.rpc_timeout", "soon")
            .set("edge.secret_key", "pssst")
            .set("sync.part_size", "1KiB");
        let output = output(plan.prepare().command()).await;
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let message = text(&output);
        for key in ["devices.rpc_timeout", "edge.secret_key"] {
            assert!(message.contains(key), "{key} is missing: {message}");
        }
        assert!(!message.contains("pssst"), "a secret is shown: {message}");
    });
}

#[test]
fn settings_of_the_environment_go_before_the_file_and_flags_before_both() {
    run(async {
        let site = Plan::new().set("listen.api", "127.0.0.1:1").prepare();
        let mut command = site.command();
        command.env("TIDEGATE_LISTEN__API", "not an address");
        let wrong = output(command).await;
        assert_eq!(wrong.status.code(), Some(3), "{}", text(&wrong));
        assert!(text(&wrong).contains("TIDEGATE_LISTEN__API"), "the source is named: {}", text(&wrong));
        let mut command = site.command();
        command.env("TIDEGATE_LISTEN__APl", "127.0.0.1:1");
        let wrong = output(command).await;
        assert_eq!(wrong.status.code(), Some(3), "an unknown variable: {}", text(&wrong));

        let listen = format!("127.0.0.1:{}", site.api);
        let mut command = site.command();
        command.env("TIDEGATE_LISTEN__API", "127.0.0.1:1").args(["--listen", &listen]);
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
        let mut child = Running(child.expect("it starts"));
        until("the site to be ready", STEP, async || {
            matches!(site.http().get("/readyz").await, Ok((200, _, _))).then_some(())
        })
        .await;
        signal(child.0.id(), "TERM");
        assert_eq!(child.end().await, Some(0));
    });
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    run(async {
        for arguments in [
            &["run", "--no-such-flag"][..],
            &["no-such-command"][..],
            &["sync"][..],
            &["sync", "one"][..],
            &["demo", "--devices", "0"][..],
            &["demo", "--size", "much"][..],
            &["status", "--api", "nonsense"][..],
        ] {
            let output = cli(arguments).await;
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
            assert!(!output.stderr.is_empty(), "{arguments:?} says why");
        }
    });
}

#[test]
fn help_of_every_command_tells_its_flags() {
    run(async {
        let commands: [(&[&str], &[&str]); 7] = [
            (&["--help"], &["run", "status", "sync", "watch", "demo", "replay"]),
            (
                &["run", "--help"],
                &["--config", "--data-dir", "--listen", "--s3-listen", "--public-url", "--insecure", "--set"],
            ),
            (&["status", "--help"], &["--api", "--json"]),
            (&["sync", "--help"], &["--api", "--all", "--watch", "130"]),
            (&["demo", "--help"], &["--devices", "--recordings", "--size", "--no-crash", "--keep"]),
            (&["replay", "--help"], &["--data-dir", "--verify"]),
            (&["quarantine", "--help"], &["list", "clear"]),
        ];
        for (arguments, words) in commands {
            let output = cli(arguments).await;
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
            let help = String::from_utf8_lossy(&output.stdout).into_owned();
            for word in words {
                assert!(help.contains(word), "{arguments:?} does not mention {word}:\n{help}");
            }
        }
        assert_eq!(cli(&["--version"]).await.status.code(), Some(0));
    });
}

#[test]
fn listening_beyond_loopback_needs_a_word_of_consent() {
    run(async {
        let port = free_port();
        let site = Plan::new().set("listen.api", format!("0.0.0.0:{port}")).set("auth.api", "off").prepare();
        let refused = output(site.command()).await;
        assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
        assert!(text(&refused).contains("--insecure"), "{}", text(&refused));
        drop(site);

        let mut site =
            Plan::new().set("listen.api", format!("0.0.0.0:{port}")).argument("--insecure").prepare();
        site.api = port;
        site.start().await;
        // The address that devices are told is still this machine's own: worth a warning.
        assert!(site.log().contains("public_url"), "{}", site.log());
        site.stop().await;
    });
}

#[test]
fn without_a_cloud_a_sync_is_accepted_and_parked_and_goes_on_when_there_is_one() {
    run(async {
        let mut site = Plan::new().start().await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let take = Take::new("robot-1", "homeless", 1, 20_000);
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        let status = until("the job to be parked", STEP, async || {
            let status = site.sync_status(episode).await;
            status["reason"].is_string().then_some(status)
        })
        .await;
        assert_eq!(
            (&status["status"], &status["reason"]),
            (&json!("pending"), &json!("no_destination")),
            "{status}"
        );
        let api = format!("http://127.0.0.1:{}", site.api);
        let shown = cli(&["status", "--api", &api]).await;
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown));
        assert!(
            text(&shown).contains("homeless") && text(&shown).contains("no_destination"),
            "{}",
            text(&shown)
        );
        site.stop().await;

        let cloud = Cloud::start().await;
        let endpoint = format!("http://127.0.0.1:{}", cloud.port);
        let mut site = [
            ("cloud.endpoint", endpoint.as_str()),
            ("cloud.bucket", crate::cloud::BUCKET),
            ("cloud.access_key", crate::cloud::KEY),
            ("cloud.secret_key", crate::cloud::SECRET),
        ]
        .into_iter()
        .fold(site, |site, (key, value)| site.with_setting(key, value));
        site.start().await;
        site.synced(episode).await;
        assert_eq!(cloud.digest(&take.cloud_key()).await.0, take.sha256());
    });
}

#[test]
fn wrong_credentials_of_the_cloud_park_an_upload_without_spending_it() {
    run(async {
        let cloud = Cloud::start().await;
        let plan = Plan::with_cloud(&cloud).set("cloud.secret_key", "not-the-secret-of-the-cloud");
        let mut site = plan.start().await;
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let take = Take::new("robot-1", "unwelcome", 1, 20_000).mcap_only();
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        let status = until("the job to be parked", STEP, async || {
            let status = site.sync_status(episode).await;
            status["reason"].is_string().then_some(status)
        })
        .await;
        assert_eq!(status["status"], "pending", "{status}");
        site.stop().await;
        let mut site = site.with_setting("cloud.secret_key", crate::cloud::SECRET);
        site.start().await;
        // An operator asks again, unless the restart already did.
        let _ = site.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
        site.synced(episode).await;
        assert_eq!(cloud.digest(&take.cloud_key()).await.0, take.sha256());
    });
}

#[test]
fn status_and_sync_speak_with_a_running_site() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).start().await;
        let api = format!("http://127.0.0.1:{}", site.api);
        let shown = cli(&["status", "--api", &api]).await;
        assert_eq!(shown.status.code(), Some(0), "an empty site: {}", text(&shown));
        let mut uploader = Uploader::connect(&site, "robot-1").await;
        let mut episodes = Vec::new();
        for n in 0..3 {
            let take = Take::new("robot-1", &format!("listed-{n}"), n, 20_000).mcap_only();
            let episode = uploader.deliver(&site, &take).await;
            let (status, body) = site.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({})).await;
            assert_eq!(status, 200, "{body}");
            episodes.push(episode);
        }
        let sent = cli(&["sync", &episodes[0].to_string(), "--api", &api]).await;
        assert_eq!(sent.status.code(), Some(0), "{}", text(&sent));
        site.synced(episodes[0]).await;
        let all = cli(&["sync", "--all", "--api", &api]).await;
        assert_eq!(all.status.code(), Some(0), "{}", text(&all));
        for episode in &episodes {
            site.synced(*episode).await;
        }
        let shown = cli(&["status", "--api", &api]).await;
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown));
        for n in 0..3 {
            assert!(text(&shown).contains(&format!("listed-{n}")), "{}", text(&shown));
        }
        let shown = cli(&["status", "--json", "--api", &api]).await;
        let value: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("--json prints JSON");
        assert_eq!(value["episodes"]["total"], 3, "{value}");
        let again = cli(&["sync", &episodes[0].to_string(), "--api", &api]).await;
        assert_eq!(again.status.code(), Some(1), "{}", text(&again));
        assert!(text(&again).contains("episode already synced to cloud"), "{}", text(&again));
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let output = cli(&["status", "--api", &nobody]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(&nobody), "{}", text(&output));
    });
}

#[test]
fn without_any_configuration_a_site_starts_on_loopback_with_keys_of_its_own() {
    run(async {
        let dir = tempfile::tempdir().expect("a directory");
        let (api, s3) = (free_port(), free_port());
        let mut log = String::new();
        let mut secrets = BTreeSet::new();
        for start in 0..2 {
            let path = dir.path().join(format!("log-{start}"));
            let file = std::fs::File::create(&path).expect("a log");
            let mut command = Site::program();
            command.arg("run").current_dir(dir.path());
            command.args([
                "--listen",
                &format!("127.0.0.1:{api}"),
                "--s3-listen",
                &format!("127.0.0.1:{s3}"),
            ]);
            let child = command.stdout(file.try_clone().expect("a log")).stderr(file).spawn();
            let mut child = Running(child.expect("the binary starts"));
            let http = tidegate_device::Http::new(tidegate_runtime::real::RealNet, "127.0.0.1", api);
            until("the site to be ready", STEP, async || {
                matches!(http.with_short_timeout().get("/readyz").await, Ok((200, _, _))).then_some(())
            })
            .await;
            signal(child.0.id(), "TERM");
            assert_eq!(child.end().await, Some(0));
            let text = std::fs::read_to_string(&path).expect("a log");
            if start == 0 {
                secrets = secret_words(&dir.path().join("tidegate-data"));
                assert!(secrets.iter().any(|word| text.contains(word)), "the keys are printed once: {text}");
            } else {
                let once = |word: &&String| log.matches(word.as_str()).count() == 1 && word.len() >= 24;
                let shown: Vec<&String> = secrets.iter().filter(once).collect();
                assert!(!shown.is_empty(), "the secret key was shown once: {log}");
                for word in shown {
                    assert!(!text.contains(word.as_str()), "a key is printed again: {text}");
                }
            }
            log.push_str(&text);
        }
    });
}

/// Long words of small files that only their owner may read.
fn secret_words(dir: &Path) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for entry in std::fs::read_dir(dir).expect("the data directory") {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("what it is");
        if meta.is_file() && meta.len() < 4096 && meta.permissions().mode() & 0o777 == 0o600 {
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a file")).into_owned();
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            words.extend(text.split(|c| !legal(c)).filter(|word| word.len() >= 16).map(str::to_owned));
        }
    }
    assert!(!words.is_empty(), "a file of mode 0600 with keys lies in {}", dir.display());
    words
}

trait Short {
    fn with_short_timeout(&self) -> Self;
}

impl Short for tidegate_device::Http<tidegate_runtime::real::RealNet> {
    fn with_short_timeout(&self) -> Self {
        self.clone().with_timeout(Duration::from_secs(2))
    }
}

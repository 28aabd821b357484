//! Data directories of every format, kept below `tests/golden`: how they are made, and that this program opens them.

mod make;
mod pack;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidegate_device::Payload;
use tidegate_runtime::store::FORMAT_VERSION;

use crate::cloud::{self, Cloud};
use crate::rig::{PART, Plan, STEP, Site, run, until};
use crate::script::Uploader;

/// Where a new golden directory is to be written, from the root of the repository.
const WANTED: &str = "TIDEGATE_WRITE_GOLDEN";
const DATABASE: &str = "tidegate.redb";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie below the root").to_owned()
}

/// Folders of golden directories by their format.
fn golden() -> BTreeMap<u64, PathBuf> {
    let folder = root().join("tests/golden");
    let names = fs::read_dir(&folder).expect("tests/golden").map(|entry| entry.expect("an entry").path());
    let format = |path: &Path| path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok();
    names.filter_map(|path| Some((format(&path)?, path))).collect()
}

/// Runs a command of the binary that ends by itself: its exit code and all that it said.
fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Site::program().args(arguments).output().expect("the binary under test");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn replayed(data: &Path) -> String {
    let (code, said) = command(&["replay", "--verify", "--data-dir", &data.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    said
}

fn snapshots(data: &Path) -> Vec<PathBuf> {
    let Ok(folder) = fs::read_dir(data.join("snapshots")) else { return Vec::new() };
    folder.map(|entry| entry.expect("an entry").path()).collect()
}

/// Whether everything that was said is said again. A later program may say more.
fn holds(before: &Value, now: &Value, label: &str) {
    match (before, now) {
        (Value::Object(before), Value::Object(fields)) => {
            for (field, value) in before {
                holds(value, fields.get(field).unwrap_or(&Value::Null), &format!("{label}.{field}"));
            }
        }
        (Value::Array(before), Value::Array(items)) => {
            assert_eq!(before.len(), items.len(), "{label}: {before:?}, now {items:?}");
            for (at, (before, now)) in before.iter().zip(items).enumerate() {
                holds(before, now, &format!("{label}[{at}]"));
            }
        }
        _ => assert_eq!(before, now, "{label}"),
    }
}

/// Without what changes while an episode is on its way.
fn at_rest(episode: &Value) -> Value {
    let mut episode = episode.clone();
    let fields = episode.as_object_mut().expect("an episode");
    let on_the_way = matches!(fields["sync_status"].as_str(), Some("pending" | "in_progress"));
    if on_the_way {
        for field in ["sync_status", "cloud_synced"] {
            fields.remove(field);
        }
    }
    episode
}

fn items<'a>(seen: &'a Value, what: &str) -> &'a Vec<Value> {
    seen[what].as_array().unwrap_or_else(|| panic!("{what} in {seen}"))
}

/// A site on a copy of a golden directory, not started, and what it said before its end.
fn restored(plan: Plan, folder: &Path, database: Option<&Path>) -> (Site, Value) {
    let site = make::settings(plan).prepare();
    pack::unpack(&folder.join("data"), &site.data_dir());
    if let Some(database) = database {
        fs::copy(database, site.data_dir().join(DATABASE)).expect("the database is put back");
    }
    let expected = fs::read(folder.join("expected.json")).expect("what is expected");
    (site, serde_json::from_slice(&expected).expect("it is JSON"))
}

/// What holds for every directory before a program of this format starts on it: it can be read as it is.
fn is_read_without_a_change(data: &Path) {
    let before = fs::read(data.join(DATABASE)).expect("the database");
    replayed(data);
    assert!(fs::read(data.join(DATABASE)).expect("the database") == before, "a replay wrote to the database");
    assert!(snapshots(data).is_empty(), "a replay migrated");
}

/// What holds once it started: a snapshot if it was of an earlier format, and only the owner may read. The snapshot.
fn was_migrated(site: &Site, format: u64) -> Option<PathBuf> {
    let mode = |name: &str| {
        let path = site.data_dir().join(name);
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!((mode(DATABASE), mode("objects")), (0o600, 0o700));
    let snapshots = snapshots(&site.data_dir());
    if format == FORMAT_VERSION {
        assert!(snapshots.is_empty(), "nothing was migrated: {snapshots:?}");
        return None;
    }
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    let said = format!("copy the snapshot over {DATABASE}");
    assert!(site.log().contains(&said), "the log tells the way back: {}", site.log());
    snapshots.into_iter().next()
}

/// Opens the site that was killed in mid-upload; the snapshot that this made. `database` takes the place of its own.
async fn sending(format: u64, folder: &Path, database: Option<&Path>) -> Option<Vec<u8>> {
    let cloud = Cloud::start().await;
    let (mut site, expected) = restored(Plan::with_cloud(&cloud), folder, database);
    is_read_without_a_change(&site.data_dir());
    site.start().await;
    let snapshot = was_migrated(&site, format);

    let seen = make::seen(&site).await;
    holds(&expected["tasks"], &seen["tasks"], "tasks");
    assert_eq!(items(&expected, "episodes").len(), items(&seen, "episodes").len());
    let mut sent = 0;
    for (at, before) in items(&expected, "episodes").iter().enumerate() {
        let id = before["id"].as_u64().expect("episode ids are numbers");
        let now = site.read(&format!("/api/v1/episodes/{id}")).await;
        holds(&at_rest(before), &now, &format!("episode {id}"));
        let job = &items(&expected, "jobs")[at];
        if at_rest(before) == *before {
            holds(job, &site.sync_status(id).await, &format!("job of episode {id}"));
            continue;
        }
        sent += 1;
        let status = site.synced(id).await;
        assert_eq!(status["attempt_count"], 1, "neither a kill nor an upgrade costs an attempt: {status}");
        assert_eq!(status["key"], job["key"], "{status}");
        let (digest, len) = cloud.digest(status["key"].as_str().expect("a key")).await;
        assert_eq!(
            (json!(digest), json!(len)),
            (before["checksum"].clone(), before["file_size_bytes"].clone())
        );
    }
    assert_eq!(sent, 2, "the interrupted one and the one behind it");
    assert_eq!(cloud.open_uploads(), Vec::<String>::new());
    what_the_edge_had_goes_on(&site, &expected).await;

    site.stop().await;
    assert!(replayed(&site.data_dir()).contains("from the base at"));
    let before = snapshots(&site.data_dir());
    site.start().await;
    assert_eq!(snapshots(&site.data_dir()), before, "a second start has nothing to migrate");
    site.kill();
    snapshot.map(|path| fs::read(path).expect("the snapshot"))
}

/// A half-sent upload is completed, and both recordings that the edge has are announced and acknowledged.
async fn what_the_edge_had_goes_on(site: &Site, expected: &Value) {
    let half = make::told(&expected["half_sent"]);
    let (edge, upload) = (site.edge(), expected["half_sent"]["upload_id"].as_str().expect("an upload"));
    let rest = half.mcap[usize::try_from(PART).expect("a part")..].to_vec();
    let second = edge.upload_part(&half.key, upload, 2, Payload::Bytes(rest.into())).await;
    let first = expected["half_sent"]["first_etag"].as_str().expect("an ETag").to_owned();
    let parts = [(1, first), (2, second.expect("the upload is still open"))];
    edge.multipart_complete(&half.key, upload, &parts).await.expect("the first part is still there");
    half.upload_sidecar(site).await;
    let mut uploader = Uploader::connect(site, "robot-1").await;
    for take in [half, make::told(&expected["stored"])] {
        uploader.say("upload_complete", &take.complete()).await;
        // A new link is asked for everything that is still expected of its device.
        let acknowledged = format!("{{\"task_id\":\"{}\",\"type\":\"upload_ack\"}}\n", take.task);
        loop {
            let text = uploader.text().await;
            if text == acknowledged {
                break;
            }
            assert!(text.contains("\"upload_request\""), "an unexpected frame: {text}");
        }
        site.task_reaches(&take.task, "completed").await;
    }
}

/// Opens the site that never had a cloud, and then gives it one; the snapshot that this made.
async fn waiting(format: u64, folder: &Path, database: Option<&Path>) -> Option<Vec<u8>> {
    let (mut site, expected) = restored(Plan::new(), folder, database);
    is_read_without_a_change(&site.data_dir());
    site.start().await;
    let snapshot = was_migrated(&site, format);
    holds(&expected, &make::seen(&site).await, "seen");
    site.stop().await;
    replayed(&site.data_dir());

    let cloud = Cloud::start().await;
    let endpoint = format!("http://127.0.0.1:{}", cloud.port);
    let settings = [
        ("cloud.endpoint", endpoint.as_str()),
        ("cloud.bucket", cloud::BUCKET),
        ("cloud.access_key", cloud::KEY),
        ("cloud.secret_key", cloud::SECRET),
    ];
    let mut site = settings.into_iter().fold(site, |site, (key, value)| site.with_setting(key, value));
    site.start().await;
    let parked = items(&expected, "jobs").iter().find(|job| job["reason"] == "no_destination");
    let parked = parked.expect("a parked job")["episode_id"].as_u64().expect("episode ids are numbers");
    site.synced(parked).await;
    site.stop().await;
    snapshot.map(|path| fs::read(path).expect("the snapshot"))
}

#[test]
fn every_format_up_to_this_one_has_a_golden_directory() {
    let kept: Vec<u64> = golden().into_keys().collect();
    assert_eq!(
        kept,
        (1..=FORMAT_VERSION).collect::<Vec<_>>(),
        "write the missing one: tests/golden/README.md"
    );
}

#[test]
fn a_site_that_an_earlier_program_left_in_mid_upload_goes_on_and_so_does_its_snapshot() {
    run(async {
        for (format, folder) in golden() {
            let folder = folder.join("sending");
            if let Some(snapshot) = sending(format, &folder, None).await {
                let aside = tempfile::NamedTempFile::new().expect("a temporary file");
                fs::write(aside.path(), snapshot).expect("a copy of the snapshot");
                sending(format, &folder, Some(aside.path())).await;
            }
        }
    });
}

#[test]
fn a_site_that_an_earlier_program_left_waiting_goes_on_and_so_does_its_snapshot() {
    run(async {
        for (format, folder) in golden() {
            let folder = folder.join("waiting");
            if let Some(snapshot) = waiting(format, &folder, None).await {
                let aside = tempfile::NamedTempFile::new().expect("a temporary file");
                fs::write(aside.path(), snapshot).expect("a copy of the snapshot");
                waiting(format, &folder, Some(aside.path())).await;
            }
        }
    });
}

#[test]
fn a_golden_directory_can_be_made_by_this_program() {
    run(async {
        let wanted = std::env::var_os(WANTED).map(|folder| root().join(folder));
        let aside = tempfile::tempdir().expect("a temporary directory");
        let folder = wanted.unwrap_or_else(|| aside.path().join("made"));
        make::all(&folder).await;
        assert!(sending(FORMAT_VERSION, &folder.join("sending"), None).await.is_none());
        assert!(waiting(FORMAT_VERSION, &folder.join("waiting"), None).await.is_none());
    });
}

#[test]
fn a_directory_of_a_newer_program_and_a_foreign_file_are_refused_by_every_command() {
    run(async {
        let (mut site, _) = restored(Plan::new(), &golden()[&1].join("waiting"), None);
        site.start().await;
        site.stop().await;
        let path = site.data_dir().join(DATABASE);
        let database = redb::Database::open(&path).expect("the database of a stopped site");
        let tx = database.begin_write().expect("a transaction");
        let info = redb::TableDefinition::<&str, u64>::new("info");
        tx.open_table(info).expect("numbers of the site").insert("format", 99).expect("a write");
        tx.commit().expect("a commit");
        drop(database);
        let newer = fs::read(&path).expect("the database");
        let way_back = snapshots(&site.data_dir())[0].display().to_string();
        let newer_said = ["format 99", "nothing was changed", way_back.as_str()];
        let foreign_said = ["is not a database of tidegate", "nothing was changed", "tidegate.redb"];
        for (bytes, parts) in [(newer, newer_said), (b"site = \"it\"\n".to_vec(), foreign_said)] {
            fs::write(&path, &bytes).expect("the database");
            let data = site.data_dir().display().to_string();
            let (code, said) = command(&["replay", "--verify", "--data-dir", &data]);
            let replay = (code, said);
            let logged = site.log().len();
            site.spawn();
            let ended = site.exit(STEP).await.code();
            let start = (ended, site.log()[logged..].to_owned());
            for (code, said) in [replay, start] {
                assert_eq!(code, Some(4), "{said}");
                for part in parts {
                    assert!(said.contains(part), "{part} in {said}");
                }
            }
            assert!(fs::read(&path).expect("the database") == bytes, "it was written to");
        }
        until("the refusal to be all there is", STEP, async || site.has_ended().then_some(())).await;
    });
}

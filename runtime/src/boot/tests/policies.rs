//! A whole site with modules: loaded over HTTP, deciding, going back, refused, and asked again in a replay.

use serde_json::{Value, json};
use tidegate_core::policy::{Seat, Slot};
use tidegate_policies::sign::{SignedLimits, SigningKey};

use super::*;
use crate::config::Cloud;
use crate::inbox::Outbound;
use crate::policies::rig;
use crate::seam::Disk as _;

/// A site that runs modules and believes in a cloud, which is not there: jobs are claimed, fail and wait.
fn with_modules(dir: &Path) -> Config {
    let mut config = config(dir);
    config.policies.native = false;
    config.cloud = Some(Cloud {
        endpoint: None,
        region: "nowhere".to_owned(),
        bucket: "none".to_owned(),
        access_key: "AK".to_owned(),
        secret_key: Secret::new("SK"),
        session_token: None,
        path_style: true,
        attempt_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
    });
    config
}

async fn started(dir: &Path) -> Site {
    start(RealSeams::new(), with_modules(dir), |_, _| Ok(None)).await.unwrap()
}

struct Said {
    status: u16,
    text: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
}

async fn http(site: &Site, method: &str, path: &str, headers: &str, body: &[u8]) -> Said {
    let mut stream = tokio::net::TcpStream::connect(site.api_addr).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    Said { status: head.split(' ').nth(1).unwrap().parse().unwrap(), text: text.to_owned() }
}

async fn put(site: &Site, slot: &str, bytes: &[u8]) -> Said {
    http(site, "PUT", &format!("/api/v1/policies/{slot}"), "", bytes).await
}

async fn put_signed(site: &Site, slot: &str, bytes: &[u8], signature: &str) -> Said {
    let line: String = signature.lines().collect();
    http(site, "PUT", &format!("/api/v1/policies/{slot}"), &format!("tidegate-signature: {line}\r\n"), bytes)
        .await
}

async fn post(site: &Site, path: &str, body: Value) -> Said {
    http(site, "POST", &format!("/api/v1/policies/{path}"), "", body.to_string().as_bytes()).await
}

async fn shown(site: &Site) -> Value {
    http(site, "GET", "/api/v1/policies", "", b"").await.json()
}

fn slot<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let slots = shown["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["slot"] == name).unwrap()
}

/// Has a recording taken in, approved and queued: its job asks concurrency, bandwidth and order.
async fn with_a_job(site: &Site, task: &str) {
    create(site, task).await.unwrap();
    let mut link = uploader(site).await;
    let announced = Announced {
        task: task.to_owned(),
        key: Some(format!("robot-1/{task}.mcap")),
        len: Some(11),
        sha256: Some(Sha256::of(b"a recording")),
        mcap_only: Some(true),
    };
    let message = TransferMessage::UploadComplete(announced);
    site.inbox.input(Input::Transfer { conn: link.conn, message }).await.unwrap();
    loop {
        let sent =
            tokio::time::timeout(Duration::from_secs(20), link.outbound.recv()).await.unwrap().unwrap();
        if matches!(&sent, Outbound::Text(text) if text.contains("upload_ack")) {
            break;
        }
    }
    let episode = EpisodeId(1);
    let judged = Request::Judge { episode, approve: true, reason: None };
    site.inbox.request(judged, None).await.unwrap().unwrap();
    site.inbox.request(Request::Sync { episode }, None).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_module_that_is_loaded_and_activated_decides_is_told_of_and_is_asked_again_in_a_replay() {
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path(), "robot-1/T1.mcap", b"a recording").await;
    let site = started(dir.path()).await;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes).to_string();

    let loaded = put(&site, "concurrency", &bytes).await;
    assert_eq!(loaded.status, 201, "{}", loaded.text);
    let facts = loaded.json();
    assert_eq!(
        (&facts["module"], &facts["name"], &facts["state"]),
        (&json!(module), &json!("fixture"), &json!("admitted"))
    );
    assert_eq!((&facts["diff"]["compared"], &facts["warnings"]), (&json!(0), &json!([])));
    assert_ne!(slot(&shown(&site).await, "concurrency")["module"], json!(module), "it sits nowhere yet");

    let wanted = json!({"module": module, "settings": {"uploads": 3}});
    let activated = post(&site, "concurrency/activate", wanted).await;
    assert_eq!(activated.status, 200, "{}", activated.text);
    let activated = activated.json();
    assert_eq!(activated["slot"]["origin"], "chosen", "{activated}");
    assert!(
        activated["probation_until"].is_string() && activated["would_differ"]["compared"] == 0,
        "{activated}"
    );
    let about = http(&site, "GET", &format!("/api/v1/policies/modules/{module}"), "", b"").await.json();
    assert_eq!(about["settings"][0]["key"], "uploads", "{about}");

    with_a_job(&site, "T1").await;
    let exported = async || http(&site, "GET", "/api/v1/policies/concurrency/decisions", "", b"").await.text;
    let by = tokio::time::Instant::now() + Duration::from_secs(20);
    while !exported().await.contains(&module) {
        assert!(tokio::time::Instant::now() < by, "it never decided: {}", exported().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lines = exported().await;
    let line: Value = lines.lines().map(|line| serde_json::from_str(line).unwrap()).next_back().unwrap();
    assert_eq!(
        (&line["slot"], &line["by"], &line["set"]),
        (&json!("concurrency"), &json!("set"), &activated["set"])
    );
    assert_eq!(line["verdict"]["uploads"], 3, "{line}");
    let metrics = get(site.api_addr, "/metrics").await;
    let short = &module[..12];
    for part in [
        format!(
            "tidegate_policy_decisions_total{{slot=\"concurrency\",module=\"{short}\",reason=\"two\",by=\"module\"}}"
        ),
        format!("tidegate_policy_fuel_count{{slot=\"concurrency\",module=\"{short}\"}}"),
        format!("tidegate_policy_seconds_count{{slot=\"concurrency\",module=\"{short}\"}}"),
        "tidegate_policy_quarantined 0".to_owned(),
    ] {
        assert!(metrics.contains(&part), "{part} in {metrics}");
    }

    // The same module with other settings would have decided otherwise.
    let tried =
        http(&site, "PUT", "/api/v1/policies/concurrency", "tidegate-settings: {\"uploads\":9}\r\n", &bytes)
            .await;
    let diff = tried.json()["diff"].clone();
    assert!(diff["compared"].as_u64().unwrap() >= 1, "{diff}");
    assert_eq!(diff["differed"], diff["compared"], "{diff}");
    assert_eq!(
        (&diff["samples"][0]["decided"]["uploads"], &diff["samples"][0]["would"]["uploads"]),
        (&json!(3), &json!(9))
    );

    site.shutdown().await.unwrap();
    let again = started(dir.path()).await;
    let seen = shown(&again).await;
    assert_eq!((&slot(&seen, "concurrency")["module"], &seen["set"]), (&json!(module), &activated["set"]));
    let history = http(&again, "GET", "/api/v1/policies/history", "", b"").await.json();
    assert_eq!(history["items"][0]["what"], "activated", "{history}");
    again.shutdown().await.unwrap();
    let report = verified(dir.path());
    assert_eq!((report.boots, report.stepped), (2, report.entries));
}

#[tokio::test]
async fn what_is_no_module_is_refused_with_a_name_for_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let site = started(dir.path()).await;
    let mut cut = rig::module("suite", "");
    cut.truncate(cut.len() / 2);
    for (bytes, rejection) in [(&b"nonsense"[..], "not_a_component"), (&cut, "not_a_component")] {
        let refused = put(&site, "retry", bytes).await;
        let answer = refused.json();
        assert_eq!((refused.status, &answer["code"]), (422, &json!("policy_rejected")), "{answer}");
        assert_eq!(answer["rejection"], rejection, "{answer}");
    }
    // It never comes back from the questions of admission: fuel ends it.
    let refused = put(&site, "retry", &rig::module("loops", "")).await;
    assert_eq!((refused.status, &refused.json()["rejection"]), (422, &json!("vectors")), "{}", refused.text);
    let absent = json!({"module": Sha256::of(b"absent").to_string()});
    let refused = post(&site, "retry/activate", absent).await;
    assert_eq!((refused.status, &refused.json()["code"]), (404, &json!("policy_unknown_module")));
    let idle = Sha256::of(&rig::module("idle", "")).to_string();
    let loaded = put(&site, "retry", &rig::module("idle", "")).await;
    assert_eq!((loaded.status, &loaded.json()["warnings"]), (201, &json!(["it does not serve retry"])));
    let refused = post(&site, "retry/activate", json!({"module": idle})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("policy_hook_missing")));
    site.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn an_operator_goes_back_quarantines_and_lets_a_module_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let site = started(dir.path()).await;
    let before = shown(&site).await["generation"].as_u64().unwrap();
    let [one, two] = ["1", "2"].map(|extra| rig::module("suite", extra));
    let [first, second] = [&one, &two].map(|bytes| Sha256::of(bytes).to_string());
    for (bytes, module) in [(&one, &first), (&two, &second)] {
        assert_eq!(put(&site, "retry", bytes).await.status, 201);
        assert_eq!(post(&site, "retry/activate", json!({"module": module})).await.status, 200);
    }
    let back = post(&site, "rollback", json!({"generation": before + 1})).await.json();
    assert_eq!((&slot(&back, "retry")["module"], &back["generation"]), (&json!(first), &json!(before + 3)));
    let refused = post(&site, "rollback", json!({"generation": 99})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (404, &json!("policy_unknown_generation")));

    let path = format!("modules/{first}");
    let taken = post(&site, &format!("{path}/quarantine"), json!({"reason": "it looks odd"})).await.json();
    assert_ne!(slot(&taken, "retry")["module"], json!(first), "{taken}");
    let refused = post(&site, "retry/activate", json!({"module": first})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("policy_quarantined")));
    site.shutdown().await.unwrap();

    let again = started(dir.path()).await;
    let refused = post(&again, "retry/activate", json!({"module": first})).await;
    assert_eq!(refused.json()["code"], "policy_quarantined", "a restart forgives nothing");
    assert_eq!(post(&again, &format!("{path}/unquarantine"), json!({})).await.status, 200);
    assert_eq!(post(&again, "retry/activate", json!({"module": first})).await.status, 200);
    let shadow = post(&again, "order/shadow", json!({"module": second})).await.json();
    assert_eq!((&shadow["shadow"]["slot"], &shadow["shadow"]["module"]), (&json!("order"), &json!(second)));
    assert_eq!(shown(&again).await["shadow"]["compared"], 0);
    let ended = http(&again, "DELETE", "/api/v1/policies/shadow", "", b"").await;
    assert_eq!((ended.status, ended.json().get("shadow")), (200, None));
    let reset = post(&again, "retry/reset", json!({})).await.json();
    assert_ne!(slot(&reset, "retry")["origin"], "chosen", "{reset}");
    let removed = http(&again, "DELETE", &format!("/api/v1/policies/modules/{second}"), "", b"").await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    again.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_module_whose_bytes_are_gone_costs_its_slot_and_not_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let first = started(dir.path()).await;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes).to_string();
    assert_eq!(put(&first, "retry", &bytes).await.status, 201);
    assert_eq!(post(&first, "retry/activate", json!({"module": module})).await.status, 200);
    first.shutdown().await.unwrap();
    std::fs::remove_file(dir.path().join(format!("site/policies/{module}.wasm"))).unwrap();

    let second = started(dir.path()).await;
    let board = second.board.clone();
    let seat_is_another = || {
        let view = board.policies()?;
        let seat = view.seats.iter().find(|seat| seat.slot == Slot::Retry)?;
        let gone = match &seat.seat {
            Seat::Module(binding) => binding.module.to_string() != module,
            Seat::Floor => true,
        };
        gone.then_some(())
    };
    eventually("the slot went to another", seat_is_another).await;
    let state = shown(&second).await["modules"].clone();
    let known = state.as_array().unwrap().iter().find(|known| known["module"] == json!(module)).unwrap();
    assert_eq!((&known["state"], &known["rejection"]), (&json!("rejected"), &json!("unreadable")), "{known}");
    // The bytes mend it.
    assert_eq!(put(&second, "retry", &bytes).await.status, 201);
    assert_eq!(post(&second, "retry/activate", json!({"module": module})).await.status, 200);
    second.shutdown().await.unwrap();
    verified(dir.path());
}

/// Files in the folder of modules.
fn kept(dir: &Path) -> Vec<String> {
    RealDisk.list(&dir.join("site/policies")).unwrap()
}

#[tokio::test]
async fn a_start_sweeps_what_no_record_is_about_from_the_folder_of_modules_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let site = started(dir.path()).await;
    let (known, orphan) = (rig::module("suite", "known"), rig::module("suite", "orphan"));
    let signed = SigningKey::generate().unwrap().sign(&known, None, None, 1).to_json();
    assert_eq!(put_signed(&site, "retry", &known, &signed).await.status, 201);
    // Rejected ones have a record as well.
    assert_eq!(put(&site, "retry", b"nonsense").await.status, 422);
    site.shutdown().await.unwrap();
    let before = kept(dir.path());
    let folder = dir.path().join("site/policies");
    let orphan_hash = Sha256::of(&orphan);
    std::fs::write(folder.join(format!("{orphan_hash}.wasm")), &orphan).unwrap();
    std::fs::write(folder.join(format!("{orphan_hash}.sig")), b"{}").unwrap();
    std::fs::write(folder.join(format!("{}.sig", Sha256::of(b"gone"))), b"{}").unwrap();
    std::fs::write(folder.join(format!("{}.trying", Sha256::of(&known))), b"1").unwrap();
    std::fs::write(folder.join("counters.json"), b"{}").unwrap();
    std::fs::write(folder.join("read me"), b"somebody else's").unwrap();

    let again = started(dir.path()).await;
    let mut expected = before;
    expected.extend(["counters.json".to_owned(), "read me".to_owned()]);
    expected.sort();
    assert_eq!(kept(dir.path()), expected);
    let nonsense = Sha256::of(b"nonsense");
    assert!(expected.contains(&format!("{nonsense}.wasm")), "{expected:?}");
    assert_eq!(
        post(&again, "retry/activate", json!({"module": Sha256::of(&known).to_string()})).await.status,
        200
    );
    again.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_signature_that_does_not_vouch_for_a_module_as_it_is_used_is_refused_and_changes_nothing() {
    // The incident: the signature of a module that decides was replaced unread, and the next start threw the module out.
    let dir = tempfile::tempdir().unwrap();
    let site = started(dir.path()).await;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes).to_string();
    assert_eq!(put(&site, "retry", &bytes).await.status, 201);
    assert_eq!(post(&site, "retry/activate", json!({"module": module})).await.status, 200);
    let key = SigningKey::generate().unwrap();
    let lower = SignedLimits { fuel: Some(10), ..SignedLimits::default() };
    for (signature, words) in [
        ("{}".to_owned(), "cannot be read"),
        (key.sign(b"another", None, None, 1).to_json(), "signature"),
        (key.sign(&bytes, Some(&[Slot::Order]), None, 1).to_json(), "auto-scan"),
        (key.sign(&bytes, None, Some(lower), 1).to_json(), "limits"),
    ] {
        let refused = put_signed(&site, "retry", &bytes, &signature).await;
        let answer = refused.json();
        assert_eq!((refused.status, &answer["code"]), (409, &json!("policy_signature")), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{words}: {answer}");
        assert!(!kept(dir.path()).contains(&format!("{module}.sig")), "{answer}");
    }
    let good = key.sign(&bytes, None, None, 1).to_json();
    for _ in 0..2 {
        let taken = put_signed(&site, "retry", &bytes, &good).await;
        assert_eq!(taken.status, 201, "{}", taken.text);
    }
    assert_eq!(put_signed(&site, "retry", &bytes, "{}").await.status, 409);
    assert_eq!(put(&site, "retry", &bytes).await.status, 201, "the same bytes need no signature again");
    assert!(kept(dir.path()).contains(&format!("{module}.sig")));
    site.shutdown().await.unwrap();

    let again = started(dir.path()).await;
    let seen = shown(&again).await;
    assert_eq!(slot(&seen, "retry")["module"], json!(module), "it still sits: {seen}");
    again.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_module_that_was_refused_for_its_signature_may_come_again_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = started(dir.path()).await;
    let bytes = rig::module("suite", "");
    let refused = put_signed(&site, "retry", &bytes, "{}").await;
    assert_eq!(
        (refused.status, &refused.json()["rejection"]),
        (422, &json!("signature")),
        "{}",
        refused.text
    );
    let taken = put(&site, "retry", &bytes).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    site.shutdown().await.unwrap();
    verified(dir.path());
}

#[tokio::test]
async fn a_replay_names_the_module_whose_bytes_are_gone_where_it_decided() {
    // The incident: after a module was removed, the replay of a healthy site spoke of a ruling that differs.
    let dir = tempfile::tempdir().unwrap();
    recording(dir.path(), "robot-1/T1.mcap", b"a recording").await;
    let site = started(dir.path()).await;
    let bytes = rig::module("suite", "");
    let module = Sha256::of(&bytes);
    let hash = module.to_string();
    assert_eq!(put(&site, "concurrency", &bytes).await.status, 201);
    assert_eq!(post(&site, "concurrency/activate", json!({"module": hash})).await.status, 200);
    with_a_job(&site, "T1").await;
    let view = site.view.clone();
    let decided = || {
        let lines = view.decisions(Slot::Concurrency, 1).unwrap();
        lines.iter().any(|line| String::from_utf8_lossy(line).contains(&hash)).then_some(())
    };
    eventually("the module decided", decided).await;
    assert_eq!(post(&site, "concurrency/reset", json!({})).await.status, 200);
    let removed = http(&site, "DELETE", &format!("/api/v1/policies/modules/{hash}"), "", b"").await;
    assert_eq!(removed.status, 200, "{}", removed.text);
    let gone = || (!kept(dir.path()).contains(&format!("{hash}.wasm"))).then_some(());
    eventually("its bytes are gone", gone).await;
    site.shutdown().await.unwrap();
    let found = replay::verify_dir(&RealDisk, &dir.path().join("site")).unwrap_err();
    assert!(matches!(&found, replay::Divergence::ModuleGone { module: m, .. } if *m == module), "{found}");
    assert!(found.to_string().contains(&hash), "{found}");
    // With the bytes back everything is equal again.
    std::fs::write(dir.path().join(format!("site/policies/{hash}.wasm")), &bytes).unwrap();
    verified(dir.path());
}

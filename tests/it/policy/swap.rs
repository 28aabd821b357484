//! The set of policies changes again and again while a backlog is sent: no recording is lost or sent twice, every
//! decision has one author and one set, and a replay comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::*;
use crate::rig::{Plan, run};

/// Recordings that wait when the swaps begin.
const JOBS: usize = 1_000;
/// Devices that they come from.
const DEVICES: usize = 8;
/// How often another set is asked for.
const EVERY: Duration = Duration::from_millis(50);
/// How long the backlog may take, on a slow machine.
const SENT_WITHIN: Duration = Duration::from_secs(120);

/// What there is to know of a set: who sits where, with which settings.
type Sets = BTreeMap<String, Value>;

/// Remembers the set of an answer; its id and its generation.
fn note(sets: &mut Sets, view: &Value) -> (String, u64) {
    let set = view["set"].as_str().expect("an id").to_owned();
    let seats = |seat: &Value| json!({"module": seat["module"], "settings": seat["settings"]});
    let slots = view["slots"].as_array().expect("slots");
    let slots = slots.iter().map(|s| (s["slot"].as_str().expect("a name").to_owned(), seats(s)));
    let slots = Value::Object(slots.collect());
    let before = sets.insert(set.clone(), slots.clone());
    assert!(before.is_none_or(|before| before == slots), "{set} is one set");
    (set, view["generation"].as_u64().expect("a number"))
}

/// What holds for a recorded decision: one author, and that one sat in the slot in the set it names.
fn check(line: &Value, sets: &Sets) {
    let set = line["set"].as_str().expect("an id");
    let slot = line["slot"].as_str().expect("a slot");
    let seats = sets.get(set).unwrap_or_else(|| panic!("{set} was never active: {line}"));
    assert_eq!(line["module"], seats[slot]["module"], "{line}");
    assert_eq!((&line["by"], &line["fault"]), (&json!("set"), &Value::Null), "{line}");
    // The verdict of a fixture is its setting: a decision of one set with the module of another would show here.
    if let (Some(uploads), "concurrency") = (seats[slot]["settings"]["uploads"].as_u64(), slot) {
        assert_eq!(line["verdict"]["uploads"], uploads, "{line}");
    }
}

/// Looks at the newest decisions of a slot.
async fn collect(site: &Site, slot: &str, most: u32, seen: &mut BTreeSet<String>, sets: &Sets) {
    let path = format!("/api/v1/policies/{slot}/decisions?limit={most}");
    let answer = site.send(Method::GET, &path).await;
    for line in String::from_utf8_lossy(&answer.body).lines() {
        if seen.insert(line.to_owned()) {
            check(&serde_json::from_str(line).expect("a line of JSON"), sets);
        }
    }
}

#[test]
fn swaps_under_load_lose_nothing_double_nothing_and_mix_nothing() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud).set("sync.uploads", 8).start().await;
        let mut sets = Sets::new();
        note(&mut sets, &prepared(&site).await);

        // Nothing begins as long as this one sits there.
        let (one, two) = (suite("one"), suite("two"));
        let (one, two) = (load(&site, "concurrency", &one).await, load(&site, "concurrency", &two).await);
        activate(&site, "concurrency", &one, &json!({"uploads": 0})).await;
        note(&mut sets, &policies(&site).await);

        let begun = Instant::now();
        let takes: Vec<(Take, u64)> = join_all((0..DEVICES).map(|device| {
            let site = &site;
            async move {
                let device_id = format!("robot-{device}");
                let mut uploader = Uploader::connect(site, &device_id).await;
                let mut takes = Vec::new();
                for n in (device..JOBS).step_by(DEVICES) {
                    let take = Take::new(&device_id, &format!("take-{n:04}"), n as u64, 1_000).mcap_only();
                    let episode = uploader.deliver(site, &take).await;
                    site.approve_and_sync(episode).await;
                    takes.push((take, episode));
                }
                takes
            }
        }))
        .await
        .concat();
        eprintln!("{JOBS} recordings wait after {:?}", begun.elapsed());
        assert!(cloud.keys().is_empty(), "nothing began");

        // Eight sets; every one of them was active once.
        let mut prepared_sets = Vec::new();
        for (module, uploads) in [(&one, 2), (&two, 3), (&one, 4), (&two, 5)] {
            for order in [&one, &two] {
                // Both slots of one set: only its last half is one of the eight.
                activate(&site, "order", order, &json!({"uploads": 1})).await;
                note(&mut sets, &policies(&site).await);
                activate(&site, "concurrency", module, &json!({"uploads": uploads})).await;
                prepared_sets.push(note(&mut sets, &policies(&site).await));
            }
        }
        let ids: BTreeSet<&str> = prepared_sets.iter().map(|(set, _)| set.as_str()).collect();
        assert_eq!(ids.len(), 8, "{prepared_sets:?}");

        let (mut swaps, mut seen) = (0_usize, BTreeSet::new());
        let mut pace = interval(EVERY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (begun, end) = (Instant::now(), Instant::now() + SENT_WITHIN);
        while cloud.keys().len() < JOBS {
            assert!(
                Instant::now() < end,
                "{} of {JOBS} in the cloud after {swaps} swaps",
                cloud.keys().len()
            );
            pace.tick().await;
            let (set, generation) = prepared_sets[swaps % 8].clone();
            let (status, view) = ask(&site, "rollback", &json!({"generation": generation})).await;
            assert_eq!(status, 200, "{view}");
            let (now, generation) = note(&mut sets, &view);
            assert_eq!(now, set);
            // The history is short: from now on this turn is the one to go back to.
            prepared_sets[swaps % 8].1 = generation;
            swaps += 1;
            if swaps % 4 == 0 {
                // A decision on the order names every job that was in question.
                for (slot, most) in [("concurrency", 64), ("order", 4)] {
                    collect(&site, slot, most, &mut seen, &sets).await;
                }
            }
        }
        eprintln!("{swaps} swaps in {:?}, {} decisions looked at", begun.elapsed(), seen.len());
        assert!(swaps >= 8, "only {swaps} swaps while {JOBS} recordings were sent");
        assert!(seen.len() > JOBS / 4, "only {} decisions were seen", seen.len());

        for (take, episode) in &takes {
            let status = site.synced(*episode).await;
            assert_eq!(status["attempt_count"], 1, "{}: {status}", take.task);
        }
        let mut stored = BTreeMap::new();
        for operation in ["PutObject", "CompleteMultipartUpload"] {
            for record in cloud.watcher.received(operation) {
                *stored.entry(record.key.unwrap_or_default()).or_insert(0) += 1;
            }
        }
        let tasks: BTreeSet<String> = takes.iter().map(|(take, _)| format!("{}.mcap", take.task)).collect();
        let keys: BTreeSet<String> =
            stored.keys().map(|key| key.rsplit('/').next().unwrap_or_default().to_owned()).collect();
        assert_eq!((keys, stored.len()), (tasks, JOBS), "every recording is one object");
        assert!(stored.values().all(|times| *times == 1), "none was sent twice: {stored:?}");
        let last = note(&mut sets, &policies(&site).await);
        assert!(prepared_sets.contains(&last), "{last:?}");
        for slot in ["concurrency", "order"] {
            for line in decisions(&site, slot).await {
                check(&line, &sets);
            }
        }
        assert_eq!(metric(&site, "tidegate_policy_faults", &[]).await, 0);
        site.stop().await;
        crate::crash::replay(&site);
    });
}

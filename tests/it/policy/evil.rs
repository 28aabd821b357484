//! Modules that pass admission and misbehave in life. Whatever they do, recordings get to the cloud, the site says which
//! module did what, and the last good one takes over.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::rig::{Plan, run};

/// How long a module may let nothing begin on the site of the test, with room for a slow machine.
const STALLED_WITHIN: Duration = Duration::from_secs(180);
/// Faults after which a module is ejected.
const FAULTS: u64 = 3;

/// What every evil of a module comes to, once it was ejected.
async fn ejected(site: &Site, good: &Value, slot: &str, module: &str, fault: &str) {
    let view = until(&format!("{fault} to be ejected from {slot}"), STEP, async || {
        let view = policies(site).await;
        (!quarantine(&view, module).is_null()).then_some(view)
    })
    .await;
    let why = quarantine(&view, module);
    assert_eq!((&why["code"], &why["slot"]), (&json!(fault), &json!(slot)), "{why}");
    assert_eq!(view["set"], good["set"], "the last good set rules: {view}");
    assert_eq!(seat(&view, slot)["module"], seat(good, slot)["module"], "{view}");
    assert_eq!(seat(&view, slot)["faults"], json!([]), "{view}");
    let turns = history(site).await;
    assert_eq!((&turns[0]["what"], &turns[0]["module"]), (&json!("ejected"), &json!(module)), "{turns:?}");
    assert_eq!(turns[0]["code"], fault, "{turns:?}");
    let (status, refused) = ask(site, &format!("{slot}/activate"), &json!({"module": module})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("policy_quarantined")), "{refused}");
    let log = site.log();
    assert!(log.contains(&module[..SHORT]), "the log names the module");
}

/// What is counted of a module whose questions the built-in rules had to answer.
async fn counted(site: &Site, slot: &str, module: &str, fault: &str) {
    let slot_label = format!("slot=\"{slot}\"");
    let words = [slot_label.as_str(), &module[..SHORT], &format!("kind=\"{fault}\"")];
    let in_metrics = metric(site, "tidegate_policy_faults", &words).await;
    assert!(in_metrics >= FAULTS, "{in_metrics} faults of kind {fault} in the metrics");
    let view = policies(site).await;
    let figures = view["figures"].as_array().expect("figures");
    let mine = figures.iter().find(|seat| seat["slot"] == slot && seat["module"] == module);
    let mine = mine.unwrap_or_else(|| panic!("{module} in {figures:?}"));
    assert!(mine["faults"][fault].as_u64().is_some_and(|count| count >= FAULTS), "{mine}");
    assert_eq!(mine["last_fault"]["fault"], fault, "{mine}");
    assert!(mine["last_fault"]["detail"].as_str().is_some_and(|text| !text.is_empty()), "{mine}");
    let decided = decisions(site, slot).await;
    let instead: Vec<_> = decided.iter().filter(|line| line["module"] == module).collect();
    assert!(instead.len() as u64 >= FAULTS, "{decided:?}");
    for line in instead {
        assert_eq!((&line["by"], &line["fault"]), (&json!("builtin"), &json!(fault)), "{line}");
    }
}

#[test]
fn no_module_for_concurrency_can_stop_the_site_and_each_is_named() {
    run(async {
        let cloud = Cloud::start().await;
        let mut site = Plan::with_cloud(&cloud)
            .set("policies.probation", "1s")
            .set("policies.faults", i64::try_from(FAULTS).expect("a few"))
            .start()
            .await;
        let chosen = load(&site, "concurrency", &suite("good")).await;
        activate(&site, "concurrency", &chosen, &json!({"uploads": 5})).await;
        until("the module to be good", STEP, async || {
            let view = policies(&site).await;
            (seat(&view, "concurrency")["good"]["module"] == chosen).then_some(())
        })
        .await;
        site.stop().await;
        // From here on a module has all the time there is to fail before it counts as good.
        let mut site = site.with_setting("policies.probation", "1h");
        site.start().await;
        let good = prepared(&site).await;
        assert_eq!(seat(&good, "concurrency")["settings"], json!({"uploads": 5}), "{good}");

        let wrong_reason = TWO_AT_ONCE
            .replace("(i32.const 2136) (i32.const 2)", "(i32.const 2136) (i32.const 99)")
            .replace("\n    (i32.const 2112)", " (return (i32.const 2112))");
        assert!(wrong_reason.contains("99") && wrong_reason.contains("return"), "{wrong_reason}");
        let evils: [(&str, &str, &str); 8] = [
            ("trap", "trap", "(unreachable)"),
            ("endless", "exhausted", "(loop $on (br $on))"),
            ("deep", "trap", "(drop (call $deep (i64.const 0)))"),
            ("deep-in-memory", "trap", "(drop (call $shadow (i32.const 0)))"),
            (
                "bomb",
                "exhausted",
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)",
            ),
            ("nan", "trap", "(drop (i32.trunc_f64_u (f64.div (f64.const 0) (f64.const 0))))"),
            ("nowhere", "shape", "(return (i32.const 0x7ffffff8))"),
            ("unknown-reason", "shape", &wrong_reason),
        ];
        for (name, fault, body) in evils {
            let module = load(&site, "concurrency", &sleeper(name, body)).await;
            activate(&site, "concurrency", &module, &json!({})).await;
            // Each recording asks at least once, and gets through whatever comes of it.
            for n in 0..FAULTS {
                carried(&site, &cloud, &format!("{name}-{n}")).await;
            }
            ejected(&site, &good, "concurrency", &module, fault).await;
            counted(&site, "concurrency", &module, fault).await;
        }
        carried(&site, &cloud, "after-all").await;
        let newest = decisions(&site, "concurrency").await.pop().expect("a decision");
        assert!(is_by(&newest, &chosen), "{newest}");
        assert_eq!(metric(&site, "tidegate_policy_quarantined", &[]).await, 8);
        site.stop().await;
        crate::crash::replay(&site);
    });
}

/// A module for auto-scan that queues everything, and in life gives `count` answers instead.
fn miscounting(tag: &str, prelude: &str, count: &str) -> Vec<u8> {
    component(&format!(
        "{prelude} {SLEEPING} (data (i32.const 3000) \"{tag}\")
        {SELECT}
        (i32.store (i32.const 2240) (select (i32.const 4096) (i32.const 131072) (call $known (local.get $seed))))
        (i32.store (i32.const 2244) (select (local.get $count) {count} (call $known (local.get $seed))))
        (if (i32.le_u (i32.load (i32.const 2244)) (i32.const 1000)) (then (i32.store (i32.const 2240) (i32.const 4096))))
        (i32.const 2240))"
    ))
}

#[test]
fn answers_of_a_wrong_length_and_huge_ones_lose_no_recording() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud)
            .set("sync.auto_scan", true)
            .set("sync.scan_every", "1s")
            .set("policies.faults", i64::try_from(FAULTS).expect("a few"))
            .start()
            .await;
        let good = prepared(&site).await;
        let room = "(memory (export \"memory\") 8)
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 65536))";
        let evils = [
            ("one-too-many", "", "(i32.add (local.get $count) (i32.const 1))"),
            ("none", "", "(i32.const 0)"),
            ("huge", room, "(i32.const 80000)"),
        ];
        for (name, prelude, count) in evils {
            let module = load(&site, "auto-scan", &miscounting(name, prelude, count)).await;
            activate(&site, "auto-scan", &module, &json!({})).await;
            let mut uploader = Uploader::connect(&site, DEVICE).await;
            for n in 0..FAULTS {
                let take = Take::new(DEVICE, &format!("{name}-{n}"), n, 1_000);
                let episode = uploader.deliver(&site, &take).await;
                let (status, body) =
                    site.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({})).await;
                assert_eq!(status, 200, "{body}");
                // Nobody asks for its upload: the built-in rules queue it in the place of the module.
                until(&format!("{} in the cloud", take.task), STEP, async || {
                    cloud.keys().contains(&take.cloud_key()).then_some(())
                })
                .await;
            }
            ejected(&site, &good, "auto-scan", &module, "shape").await;
            counted(&site, "auto-scan", &module, "shape").await;
        }
    });
}

#[test]
fn a_module_that_lets_nothing_start_is_ejected_and_what_waits_is_sent() {
    run(async {
        let cloud = Cloud::start().await;
        let site = Plan::with_cloud(&cloud).set("policies.patience", "1m").start().await;
        let good = prepared(&site).await;
        let module = load(&site, "concurrency", &component(&text("idle"))).await;
        activate(&site, "concurrency", &module, &json!({})).await;
        let take = Take::new(DEVICE, "waits", 1, 1_000);
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let episode = uploader.deliver(&site, &take).await;
        site.approve_and_sync(episode).await;
        until("the module to have decided", STEP, async || {
            decisions(&site, "concurrency").await.iter().any(|line| is_by(line, &module)).then_some(())
        })
        .await;
        assert_eq!(site.sync_status(episode).await["status"], "pending");
        until("the site to lose its patience", STALLED_WITHIN, async || {
            (!quarantine(&policies(&site).await, &module).is_null()).then_some(())
        })
        .await;
        site.synced(episode).await;
        assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), 1_000));
        ejected(&site, &good, "concurrency", &module, "stalled").await;
        let stalled = decisions(&site, "concurrency").await;
        assert!(
            stalled.iter().any(|line| line["by"] == "builtin" && line["fault"] == "stalled"),
            "{stalled:?}"
        );
    });
}

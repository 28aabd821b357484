//! The real binary on a real disk that is full: a small file system in memory, where this process may mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cloud::Cloud;
use crate::rig::{Plan, STEP, Site, noise, run, until};
use crate::script::{Take, Uploader};
use crate::skip;

const DEVICE: &str = "robot-1";
const MIB: usize = 1 << 20;

/// A mounted file system of a few MiB; gone when dropped.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    /// Mounts one, or says why the test cannot be had here: the right to mount is not a thing that can be installed.
    fn mount(test: &str, size: &str) -> Option<Small> {
        let dir =
            tempfile::Builder::new().prefix("tidegate-small-").tempdir().expect("a temporary directory");
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path());
        let why = match command.output() {
            Ok(output) if output.status.success() => return Some(Small { dir }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        skip::cannot_be_had(test, &format!("no small file system can be mounted: {why}"));
        None
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Takes every free byte; the file that holds them.
    fn fill(&self) -> PathBuf {
        let path = self.dir.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        for piece in [MIB, 4096] {
            let piece = vec![7; piece];
            while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a site that a failed test left behind may still have it open.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn on(small: &Small, plan: Plan) -> Plan {
    plan.set("data_dir", path(&small.data_dir()))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

async fn gate(site: &Site) -> String {
    let config = site.read("/api/v1/sync/config").await;
    config["edge"]["gate"].as_str().unwrap_or_default().to_owned()
}

async fn gate_is(site: &Site, wanted: &str) {
    until(&format!("the gate to be {wanted}"), STEP, async || (gate(site).await == wanted).then_some(()))
        .await;
}

#[test]
fn a_disk_that_fills_up_takes_no_more_until_recordings_were_carried_on() {
    let Some(small) = Small::mount("a disk that fills up", "64m") else { return };
    run(async {
        let cloud = Cloud::start().await;
        // Half of it is reached with the fifth recording, and not between two parts of one: a gate that closes there
        // refuses the second.
        let plan = Plan::with_cloud(&cloud).set("edge.reserve", "28MiB");
        let site = on(&small, plan).start().await;
        gate_is(&site, "open").await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let mut kept = Vec::new();
        let mut n = 0;
        while gate(&site).await == "open" {
            n += 1;
            assert!(n < 7, "64 MiB hold no {n} recordings of 10 MiB");
            let take = Take::new(DEVICE, &format!("take-{n}"), n, 10 * MIB).mcap_only();
            kept.push((uploader.deliver(&site, &take).await, take));
            // Until the site has measured what is left now.
            let most = (64 - 10 * n) << 20;
            until("a measurement", STEP, async || {
                let edge = site.read("/api/v1/sync/config").await["edge"].clone();
                let measured = edge["free_bytes"].as_u64().expect("a number") <= most;
                // The gate follows the measurement, a moment later.
                let told = edge["room"] != "none" || edge["gate"] != "open";
                (measured && told).then_some(())
            })
            .await;
        }
        assert!(kept.len() >= 3, "{}", kept.len());
        // Refused, and in words that every uploader repeats.
        let refused = site.edge().put("late/object", noise(9, 1_000), "text/plain").await;
        let refused = refused.expect_err("the gate is full");
        assert!(refused.is_retryable(), "{refused:?}");
        assert!(format!("{refused:?}").contains("503"), "{refused:?}");
        // Everything else goes on; nobody is asked for another recording.
        let next = Take::new(DEVICE, "next", 77, 5 * MIB).mcap_only();
        site.create_task(DEVICE, &next.task).await;
        let finish = json!({"task_id": next.task, "device_id": DEVICE, "status": "finished", "output_path": "/r/next.mcap"});
        let (status, body) = site.post("/api/v1/callbacks/finish", &finish).await;
        assert_eq!(status, 200, "{body}");
        let task = site.read(&format!("/api/v1/tasks/{}", next.task)).await;
        assert!(task["error_message"].as_str().is_some_and(|text| text.contains("nearly full")), "{task}");
        let status =
            Site::program().args(["status", "--api", &format!("http://127.0.0.1:{}", site.api)]).output();
        let status = String::from_utf8_lossy(&status.expect("it runs").stdout).into_owned();
        assert!(status.contains("devices may not upload"), "{status}");

        for (episode, take) in &kept {
            site.approve_and_sync(*episode).await;
            site.synced(*episode).await;
            assert_eq!(cloud.digest(&take.cloud_key()).await, (take.sha256(), 10 * MIB as u64));
        }
        gate_is(&site, "open").await;
        let asked = format!("{{\"priority\":1,\"task_id\":\"{}\",\"type\":\"upload_request\"}}\n", next.task);
        assert_eq!(uploader.text().await, asked);
        uploader.say("upload_started", &next.started()).await;
        next.upload(&site).await;
        uploader.say("upload_complete", &next.complete()).await;
        uploader.ack(&next.task).await;
        assert!(site.log().contains("devices may not upload until there is room"), "said in the log");
    });
}

#[test]
fn a_disk_without_a_byte_refuses_a_recording_and_harms_none_before_it() {
    let Some(small) = Small::mount("a disk without a byte", "64m") else { return };
    run(async {
        let site = on(&small, Plan::new().set("edge.reserve", "0")).start().await;
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "before", 1, 8 * MIB).mcap_only();
        uploader.deliver(&site, &take).await;
        let refused = site.edge().put("late/large", noise(9, 80 * MIB), "text/plain").await;
        let refused = refused.expect_err("80 MiB do not fit 64");
        assert!(refused.is_retryable(), "{refused:?}");
        // What did not fit is gone, and what fits is taken.
        let take = Take::new(DEVICE, "after", 2, 8 * MIB).mcap_only();
        uploader.deliver(&site, &take).await;
        for (task, len) in [("before", 8 * MIB), ("after", 8 * MIB)] {
            let episode = site.episode(DEVICE, task).await;
            let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
            assert_eq!(row["file_size_bytes"], len, "{row}");
        }
        assert_eq!(site.edge().head("late/large").await.expect("an answer").map(|head| head.len), None);
    });
}

#[test]
fn a_database_that_cannot_grow_ends_the_site_and_goes_on_when_there_is_room() {
    let Some(small) = Small::mount("a database that cannot grow", "48m") else { return };
    run(async {
        let mut site = on(&small, Plan::new().set("edge.reserve", "0")).start().await;
        let mut taken = vec!["first".to_owned()];
        site.create_task(DEVICE, "first").await;
        let filler = small.fill();
        let http = site.http();
        let filling = "x".repeat(16 << 10);
        while !site.has_ended() {
            let task = format!("task-{}", taken.len());
            let body = json!({"task_id": task, "device_id": DEVICE, "config": {"task_id": task, "filling": filling}});
            match http.post("/api/v1/tasks", &body).await {
                Ok((201, _, _)) => taken.push(task),
                Ok((status, _, body)) => assert!(status >= 500, "{status} {body}"),
                // It ended before it answered.
                Err(_) => {}
            }
            assert!(taken.len() < 20_000, "the database grows on a full disk");
        }
        let status = site.exit(STEP).await;
        assert_eq!(status.code(), Some(1), "{}", site.log());
        assert!(site.log().contains("the store failed"), "{}", site.log());

        // Whether it can start before there is room or not, nothing is lost by the attempt.
        site.spawn();
        until("an end, or a site that is ready", STEP, async || {
            (site.has_ended() || matches!(site.http().get("/readyz").await, Ok((200, _, _)))).then_some(())
        })
        .await;
        if site.has_ended() {
            let status = site.exit(STEP).await;
            assert!(matches!(status.code(), Some(1 | 4)), "{status:?} {}", site.log());
        } else {
            site.kill();
        }
        std::fs::remove_file(filler).expect("the filler");
        site.start().await;
        for task in &taken {
            let (status, body) = site.get(&format!("/api/v1/tasks/{task}")).await;
            assert_eq!(status, 200, "{task} was taken: {body}");
        }
        let mut uploader = Uploader::connect(&site, DEVICE).await;
        let take = Take::new(DEVICE, "after", 2, MIB).mcap_only();
        uploader.deliver(&site, &take).await;
    });
}

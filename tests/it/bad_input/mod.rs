//! Bad input at every edge, written from the protocol: each case gets a clear answer, changes nothing, and the site
//! goes on. One site takes many cases; after each of them [`Calm`] looks at the site.

mod api;
mod flood;
mod link;
mod s3;
mod slow;
mod wire;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::{STEP, Site, until};
use crate::script::{Recorder, Take, Uploader};

/// The device that behaves, whatever others do.
const GOOD: &str = "good-robot";

/// Memory that a batch of bad input may cost, at its peak: a site must not hold what it refuses.
const GROWTH_MAX_KIB: u64 = 160 << 10;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What a site looked like before bad input.
struct Calm<'a> {
    site: &'a Site,
    state: Value,
    files: BTreeSet<String>,
    memory: Option<u64>,
    descriptors: Option<usize>,
    findings: String,
}

impl<'a> Calm<'a> {
    /// Gives the site a device, a pending task and an episode, and remembers how it looks. The device stays and does what devices do.
    async fn begin(site: &'a Site) -> Calm<'a> {
        let mut recorder = Recorder::connect(site, GOOD).await;
        let mut uploader = Uploader::connect(site, GOOD).await;
        let episode = uploader.deliver(site, &Take::new(GOOD, "stored", 3, 40_000)).await;
        // The site looks into it by itself after the acknowledgement; from then on nothing changes by itself.
        until("the check of the recording", STEP, async || {
            let row = site.read(&format!("/api/v1/episodes/{episode}")).await;
            row["inspection"].is_object().then_some(())
        })
        .await;
        site.create_task(GOOD, "waiting").await;
        let state = look(site).await;
        assert_eq!(state["tasks"]["total"], 2, "{state}");
        assert_eq!(state["episodes"]["total"], 1, "{state}");
        tokio::spawn(async move {
            // Until the site hangs up: requests and pings are answered.
            while let Ok(request) = recorder.link.next_json(FOR_EVER).await {
                recorder.answer_state(&request).await;
            }
        });
        tokio::spawn(async move { while let Ok(Some(_)) = uploader.link.next(FOR_EVER).await {} });
        Calm {
            site,
            state,
            files: files(&site.data_dir()),
            memory: memory(site, "VmRSS"),
            descriptors: descriptors(site),
            findings: String::new(),
        }
    }

    /// Notes that a case was not answered as it must be. All of them are told at the end.
    fn finding(&mut self, case: &str, what: impl std::fmt::Display) {
        let _ = writeln!(self.findings, "{case}: {what}");
    }

    /// After a case: the site is ready and nothing changed.
    async fn holds(&mut self, case: &str) {
        let (ready, _) = self.site.get("/readyz").await;
        if ready != 200 {
            self.finding(case, format!("readyz says {ready}"));
        }
        let now = look(self.site).await;
        if now != self.state {
            self.finding(case, format!("the records changed: {} to {now}", self.state));
            self.state = now;
        }
    }

    /// After all cases: nothing was found, no file came or went, memory and descriptors are what they were, nothing
    /// panicked.
    async fn end(self) {
        assert!(self.findings.is_empty(), "\n{}", self.findings);
        let log = self.site.log();
        assert!(!log.contains("panicked"), "something panicked");
        until("the files to be those from before", STEP, async || {
            // What a refused upload left is removed with the next request.
            self.site.edge().head("site/probe").await.expect("an answer");
            (files(&self.site.data_dir()) == self.files).then_some(())
        })
        .await;
        if let Some(before) = self.descriptors {
            until("the descriptors to be as many as before", STEP, async || {
                (descriptors(self.site)? <= before).then_some(())
            })
            .await;
        }
        if let (Some(before), Some(peak)) = (self.memory, memory(self.site, "VmHWM")) {
            let growth = peak.saturating_sub(before);
            assert!(growth <= GROWTH_MAX_KIB, "bad input cost {growth} KiB of memory");
        }
    }
}

/// Everything the API tells of records, and of the device that behaves.
async fn look(site: &Site) -> Value {
    let mut connection = site.read(&format!("/api/v1/devices/{GOOD}/connection")).await;
    if let Some(map) = connection.as_object_mut() {
        map.remove("last_seen_at");
    }
    json!({
        "tasks": site.read("/api/v1/tasks?limit=100").await,
        "episodes": site.read("/api/v1/episodes?limit=100").await,
        "jobs": site.read("/api/v1/sync/episodes?limit=100").await,
        "connection": connection,
    })
}

/// Every path below a folder.
fn files(root: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, dir: &Path, out: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            out.insert(path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned());
            if path.is_dir() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = BTreeSet::new();
    walk(root, root, &mut out);
    out
}

/// KiB of memory, where the system tells.
fn memory(site: &Site, what: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", site.process())).ok()?;
    let line = text.lines().find(|line| line.starts_with(what))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Open descriptors, where the system tells.
fn descriptors(site: &Site) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{}/fd", site.process())).ok()?.count())
}

//! `sync --watch`: follows uploads of a running site until each is in the cloud or waits for a person. Asks over HTTP;
//! ending it ends no upload.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::ask::{Site, bytes, items, number, text};
use crate::show::{Show, Way};
use crate::{Done, Exit, Failure};

/// Between two looks: a bar moves smoothly enough, and a site answers such a look in a millisecond.
const LOOK: Duration = Duration::from_millis(500);
/// How long a site may be silent: it may be restarted meanwhile, which takes seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// Episodes one batch of statuses may name.
const BATCH: usize = 50;
/// Items of one page of jobs.
const PAGE: u64 = 100;

/// Numbers of all episodes whose upload is not over: queued, under way, parked or waiting for another try.
pub(crate) async fn unfinished(site: &Site) -> Result<Vec<u64>, Failure> {
    let mut found = Vec::new();
    for word in ["in_progress", "pending", "failed"] {
        let mut offset = 0;
        loop {
            let page = site
                .get(&format!("/api/v1/sync/episodes?status={word}&limit={PAGE}&offset={offset}"))
                .await?;
            let jobs = items(&page);
            let open = jobs.iter().filter(|job| word != "failed" || !text(job, "next_retry_at").is_empty());
            found.extend(open.map(|job| number(job, "episode_id")));
            offset += PAGE;
            if jobs.is_empty() || offset >= number(&page, "total") {
                break;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Where one upload is, as far as watching it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Goes on by itself.
    Under { uploaded: u64, total: u64, stage: String },
    /// In the cloud.
    Done { total: u64 },
    /// Nothing happens before a person does something.
    Stuck(String),
}

/// Reads the status of one upload.
fn seen(status: &Value) -> Seen {
    let reason = text(status, "reason");
    let words = match text(status, "error_message") {
        "" => reason.to_owned(),
        error if reason.is_empty() => error.to_owned(),
        error => format!("{reason}: {error}"),
    };
    match text(status, "status") {
        "completed" => Seen::Done { total: number(status, "bytes_transferred") },
        "failed" if text(status, "next_retry_at").is_empty() => Seen::Stuck(format!("failed: {words}")),
        "failed" => {
            let stage = format!("{words}; tried again at {}", text(status, "next_retry_at"));
            Seen::Under { uploaded: 0, total: 0, stage }
        }
        "pending" if !reason.is_empty() => Seen::Stuck(format!("parked: {words}")),
        "in_progress" => {
            let progress = &status["progress"];
            let (uploaded, total) = (number(progress, "uploaded_bytes"), number(progress, "total_bytes"));
            let stage = if total > 0 && uploaded >= total { "being verified" } else { "to the cloud" };
            Seen::Under { uploaded, total, stage: stage.to_owned() }
        }
        "not_started" => Seen::Stuck("was never queued".to_owned()),
        _ => Seen::Under { uploaded: 0, total: 0, stage: "queued".to_owned() },
    }
}

/// Follows these episodes to their ends. Fails if one of them ends without being in the cloud, or if the site stays
/// silent.
pub(crate) async fn watch(site: &Site, episodes: &[u64]) -> Done {
    let show = Show::new();
    let mut ways: BTreeMap<u64, Way> = BTreeMap::new();
    let mut open: Vec<u64> = episodes.to_vec();
    let mut stuck: Vec<(u64, String)> = Vec::new();
    let mut silent_since: Option<Instant> = None;
    let (mut arrived, mut arrived_bytes) = (0_u64, 0_u64);
    // One for all rounds: a signal that comes while the site is asked is not lost.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        match look(site, &open).await {
            Ok(statuses) => {
                if silent_since.take().is_some() {
                    show.line("the site answers again");
                }
                for status in statuses {
                    let id = number(&status, "episode_id");
                    let seen = seen(&status);
                    // Bars of what only waits in the queue would fill the screen.
                    let idle = matches!(&seen, Seen::Under { total: 0, stage, .. } if stage == "queued");
                    if !ways.contains_key(&id) && idle && open.len() > BATCH {
                        continue;
                    }
                    let way = ways.entry(id).or_insert_with(|| show.recording(&format!("episode {id}"), 0));
                    match seen {
                        Seen::Under { uploaded, total, stage } => {
                            way.stage(&stage);
                            if total > 0 {
                                way.uploaded(uploaded, total);
                            }
                        }
                        Seen::Done { total } => {
                            way.done(total);
                            (arrived, arrived_bytes) = (arrived + 1, arrived_bytes + total);
                            open.retain(|other| *other != id);
                        }
                        Seen::Stuck(words) => {
                            way.stop(&words);
                            stuck.push((id, words));
                            open.retain(|other| *other != id);
                        }
                    }
                }
            }
            Err(failure) => {
                let now = Instant::now();
                let since = *silent_since.get_or_insert_with(|| {
                    show.line("the site does not answer; trying again");
                    now
                });
                if now.duration_since(since) >= SILENCE {
                    return Err(failure);
                }
            }
        }
        if open.is_empty() {
            break;
        }
        tokio::select! {
            biased;
            interrupted = &mut interrupted => {
                interrupted.map_err(|error| Failure::failed(error.to_string()))?;
                let text = format!("no longer watched; {} upload(s) go on by themselves", open.len());
                return Err(Failure::new(Exit::Interrupted, text));
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    drop(ways);
    show.line(&format!("{arrived} of {} in the cloud, {}", episodes.len(), bytes(arrived_bytes)));
    if stuck.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = stuck.iter().map(|(id, words)| format!("  episode {id}: {words}")).collect();
    Err(Failure::failed(format!("{} need(s) a person:\n{}", stuck.len(), lines.join("\n"))))
}

/// The statuses of these episodes; those that are gone are missing.
async fn look(site: &Site, episodes: &[u64]) -> Result<Vec<Value>, Failure> {
    let mut all = Vec::new();
    for ids in episodes.chunks(BATCH) {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        let answer = site.get(&format!("/api/v1/sync/episode-statuses?ids={}", ids.join(","))).await?;
        all.extend(items(&answer).iter().cloned());
        let missing = answer["errors"].as_array().map_or(&[][..], Vec::as_slice);
        all.extend(missing.iter().map(|error| {
            serde_json::json!({"episode_id": number(error, "episode_id"), "status": "failed", "reason": "not_found",
                               "error_message": "there is no such episode"})
        }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_status_is_under_way_done_or_stuck() {
        let under = |uploaded, total, stage: &str| Seen::Under { uploaded, total, stage: stage.to_owned() };
        let stuck = |words: &str| Seen::Stuck(words.to_owned());
        let cases = [
            (json!({"status": "pending"}), under(0, 0, "queued")),
            (json!({"status": "pending", "reason": "no_destination"}), stuck("parked: no_destination")),
            (
                json!({"status": "in_progress", "progress": {"uploaded_bytes": 5, "total_bytes": 9}}),
                under(5, 9, "to the cloud"),
            ),
            (
                json!({"status": "in_progress", "progress": {"uploaded_bytes": 9, "total_bytes": 9}}),
                under(9, 9, "being verified"),
            ),
            (json!({"status": "in_progress"}), under(0, 0, "to the cloud")),
            (
                json!({"status": "failed", "next_retry_at": "12:00", "reason": "offline", "error_message": "no way"}),
                under(0, 0, "offline: no way; tried again at 12:00"),
            ),
            (
                json!({"status": "failed", "reason": "foreign_object", "error_message": "another object"}),
                stuck("failed: foreign_object: another object"),
            ),
            (json!({"status": "completed", "bytes_transferred": 7}), Seen::Done { total: 7 }),
            (json!({"status": "not_started"}), stuck("was never queued")),
        ];
        for (status, expected) in cases {
            assert_eq!(seen(&status), expected, "{status}");
        }
    }
}

//! `tidegate demo`: the main job on a fresh machine. Owns the order of events and the verdict; everything that runs
//! is what users run.

mod cloud;
mod fleet;
mod site;

use std::path::Path;
use std::sync::OnceLock;

use futures_util::future::join_all;
use tidegate_device::{Device, Http};
use tidegate_runtime::ingest::AccessKey;
use tidegate_runtime::real::{RealNet, RealSeams};
use tidegate_runtime::seam::{Blocking, Seams};

use self::cloud::{BUCKET, Cloud};
use self::fleet::{Delivered, Operator};
use self::site::{IN_FLIGHT, Place, Slot};
use crate::args::Demo;
use crate::ask::bytes;
use crate::show::{Show, Way};
use crate::{Done, Exit, Failure, say};

/// Fewest parts of a recording when the site is killed between two of them.
const PARTS_MIN: u64 = 6;
/// S3's smallest part but the last.
const PART_MIN: u64 = 5 << 20;
/// Parts that must be acknowledged before the kill.
const ACKNOWLEDGED: usize = 2;

pub(crate) async fn demo(args: Demo) -> Done {
    let size = tidegate_runtime::config::parse_size(&args.size)
        .map_err(|why| Failure::new(Exit::Usage, format!("--size {}: {why}", args.size)))?;
    let least = if args.no_crash { 1 << 10 } else { PARTS_MIN * PART_MIN + (2 << 20) };
    if size < least {
        let text = format!(
            "--size {} is too small: at least {} (six parts; with --no-crash 1 KiB)",
            args.size,
            bytes(least)
        );
        return Err(Failure::new(Exit::Usage, text));
    }
    let dir = tempfile::Builder::new()
        .prefix("tidegate-demo-")
        .tempdir()
        .map_err(|error| Failure::failed(format!("no temporary directory: {error}")))?;
    let stage = Stage::default();
    let done = tokio::select! {
        biased;
        () = interrupted() => Err(Failure::failed("interrupted")),
        done = play(&args, dir.path(), size, &stage) => done,
    };
    stage.clear().await;
    if args.keep {
        say(&format!("kept: {}", dir.keep().display()));
    } else if let Err(error) = dir.close() {
        say(&format!("the temporary directory could not be removed: {error}"));
    }
    done
}

/// Everything that runs, so that it can be ended at any moment.
#[derive(Default)]
struct Stage {
    cloud: OnceLock<Cloud>,
    site: Slot,
    devices: OnceLock<Vec<Device>>,
}

impl Stage {
    /// Ends everything, and returns when nothing runs any more.
    async fn clear(self) {
        if let Some(site) = self.site.into_inner()
            && let Err(failure) = site.kill().await
        {
            say(&failure.text);
        }
        for device in self.devices.into_inner().unwrap_or_default() {
            device.kill().await;
        }
        if let Some(cloud) = self.cloud.into_inner() {
            cloud.end().await;
        }
    }
}

async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// A pair of keys that exists for this run only.
fn key(name: &str) -> AccessKey {
    let mut bytes = [0; 16];
    RealSeams::new().blocking().entropy(&mut bytes);
    let secret = bytes.iter().map(|b| format!("{b:02x}")).collect();
    AccessKey { id: format!("demo-{name}"), secret }
}

async fn play(args: &Demo, dir: &Path, size: u64, stage: &Stage) -> Done {
    let show = Show::new();
    // Seven parts or so, whatever the size; whole MiB, as people expect.
    let part_size = (size / 7).next_multiple_of(1 << 20).clamp(PART_MIN, 64 << 20);
    let (cloud_key, edge_key) = (key("cloud"), key("edge"));
    let cloud = Cloud::start(&dir.join("cloud"), &cloud_key).await?;
    let cloud = stage.cloud.get_or_init(|| cloud);
    let place = Place::prepare(&dir.join("site"), cloud.port, &cloud_key, &edge_key, part_size)?;
    let with_log = |failure: Failure| {
        Failure::new(failure.exit, format!("{}\nthe site's log ends:\n{}", failure.text, place.log_tail()))
    };
    place.start(&stage.site).await.map_err(with_log)?;
    let each = bytes(size);
    show.line(&format!("{} device(s), {} recording(s) of {each} each", args.devices, args.recordings));
    show.line(&format!(
        "site: http://127.0.0.1:{}   its S3: port {}   cloud: port {}   parts of {}",
        place.api_port,
        place.s3_port,
        cloud.port,
        bytes(part_size)
    ));

    if !args.no_crash {
        cloud.watcher.hold_after(ACKNOWLEDGED);
    }
    let mut devices = Vec::new();
    for number in 1..=args.devices {
        devices.push(fleet::device(&place, &dir.join("devices"), number, size)?);
    }
    let devices = stage.devices.get_or_init(|| devices);
    let ways: Vec<Vec<Way>> = devices
        .iter()
        .map(|device| {
            (1..=args.recordings)
                .map(|n| show.recording(&format!("{} #{n}", device.config().device_id), size))
                .collect()
        })
        .collect();

    let fleet = async {
        let journeys = devices.iter().zip(&ways).map(|(device, ways)| journey(&place, device, ways));
        let mut all = Vec::new();
        for delivered in join_all(journeys).await {
            all.extend(delivered?);
        }
        Ok::<_, Failure>(all)
    };
    let crash = async {
        if args.no_crash {
            return Ok::<_, Failure>(None);
        }
        let parts = size.div_ceil(part_size);
        kill_in_mid_upload(cloud, &place, &stage.site, parts, &show).await.map(Some)
    };
    let (delivered, story) = tokio::try_join!(fleet, crash).map_err(with_log)?;
    if let Some(site) = stage.site.lock().await.take() {
        site.stop().await.map_err(with_log)?;
    }
    verdict(cloud, &place, &delivered, part_size, story.as_deref()).await
}

async fn journey(place: &Place, device: &Device, ways: &[Way]) -> Result<Vec<Delivered>, Failure> {
    let mut delivered = Vec::new();
    for (n, way) in ways.iter().enumerate() {
        let operator = Operator { http: Http::new(RealNet, "127.0.0.1", place.api_port), device, way };
        delivered.push(operator.deliver(&format!("{}-take-{}", device.config().device_id, n + 1)).await?);
    }
    Ok(delivered)
}

/// Kills the site while an upload has parts acknowledged and parts missing, and starts it again. Returns the story.
async fn kill_in_mid_upload(
    cloud: &Cloud,
    place: &Place,
    slot: &Slot,
    parts: u64,
    show: &Show,
) -> Result<String, Failure> {
    let key = cloud.watcher.held().await;
    if let Some(site) = slot.lock().await.take() {
        site.kill().await?;
    }
    let acknowledged = cloud.watcher.seen(&key).acknowledged.len() as u64;
    let uploads = cloud.spool.list_uploads(BUCKET);
    let stored =
        uploads.iter().filter(|upload| upload.key == key).map(|u| u.parts.len()).max().unwrap_or(0) as u64;
    cloud.watcher.release();
    if acknowledged == 0 || stored >= parts {
        return Err(Failure::failed(format!(
            "the kill came at the wrong moment: {acknowledged} parts acknowledged, {stored} of {parts} stored"
        )));
    }
    let story = format!(
        "killed (SIGKILL) while sending {key}: {acknowledged} of {parts} parts acknowledged, {} missing",
        parts - stored
    );
    show.line(&story);
    place.start(slot).await?;
    show.line("the site runs again, on the same directory and ports");
    Ok(story)
}

async fn verdict(
    cloud: &Cloud,
    place: &Place,
    delivered: &[Delivered],
    part_size: u64,
    story: Option<&str>,
) -> Done {
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    let kills = u64::from(story.is_some());
    for one in delivered {
        let seen = cloud.watcher.seen(&one.key);
        let (digest, len) = match cloud.spool.digest(BUCKET, &one.key).await {
            Ok((digest, len)) => (digest.iter().map(|b| format!("{b:02x}")).collect::<String>(), len),
            Err(refusal) => {
                faults.push(format!("{} is not in the cloud: {refusal:?}", one.key));
                continue;
            }
        };
        let parts = cloud.spool.head(BUCKET, &one.key).await.map_or(0, |object| object.parts.len().max(1));
        let equal = digest == one.sha256 && len == one.len;
        if !equal {
            faults.push(format!(
                "{}: {len} bytes, sha256 {digest}; recorded {} bytes, sha256 {}",
                one.key, one.len, one.sha256
            ));
        }
        let most = one.len + kills * IN_FLIGHT * part_size;
        if seen.bytes > most {
            faults.push(format!(
                "{}: {} bytes sent, more than the file and the parts in flight ({most})",
                one.key, seen.bytes
            ));
        }
        if one.attempts > 1 {
            faults.push(format!("{}: a crash cost an attempt ({} spent)", one.key, one.attempts));
        }
        let again = seen.bytes.saturating_sub(one.len);
        rows.push(vec![
            one.device.clone(),
            one.task.clone(),
            one.episode.to_string(),
            bytes(one.len),
            parts.to_string(),
            bytes(seen.bytes),
            if again == 0 { "nothing".to_string() } else { bytes(again) },
            one.sha256[..12].to_string(),
            if equal { "verified".to_string() } else { "WRONG".to_string() },
        ]);
    }
    for upload in cloud.spool.list_uploads(BUCKET) {
        faults.push(format!("an unfinished multipart upload of {} was left in the cloud", upload.key));
    }
    let recordings = cloud.spool.list_all(BUCKET).iter().filter(|o| o.key.ends_with(".mcap")).count();
    if recordings != delivered.len() {
        faults.push(format!("{recordings} recordings are in the cloud, {} were made", delivered.len()));
    }
    let report = crate::replay::verify(&place.dir.join("data")).await?;
    say("");
    crate::show::table(
        &["device", "task", "episode", "size", "parts", "sent", "sent again", "sha256", "in the cloud"],
        &rows,
    );
    say("");
    if let Some(story) = story {
        say(story);
    }
    say(&format!("journal replayed: {report}"));
    // Nothing was left out: the journal reaches back to the first start, and each of its entries was stepped again.
    if report.base != 0 || report.stepped != report.entries {
        faults.push("the journal does not reach back to the first start".to_string());
    }
    if faults.is_empty() {
        say(&format!("all {} recordings are in the cloud, byte for byte", delivered.len()));
        Ok(())
    } else {
        Err(Failure::failed(faults.join("\n")))
    }
}

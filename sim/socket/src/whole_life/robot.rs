//! The device, and somebody beside it who repeats a finish callback that nobody took: recorders say it once, and what an
//! operator does about a lost one is no matter of power.

use std::path::Path;
use std::time::Duration;

use tidegate_device::{Device, DeviceConfig, DeviceEvent, Http, Reconnect, RecordPlan, S3Config};
use tidegate_runtime::seam::{Disk, DiskFile, Open};

use super::{API, DEVICE, EDGE_BUCKET, KEY, Notes, S3, SECRET, SITE};
use crate::socket_world::{SimDisk, SimNet, SimSeams};

/// A little longer than one part.
const RECORDING_BYTES: u64 = (5 << 20) + (64 << 10);

/// The device, for ever.
pub(super) async fn run(disk: SimDisk, seed: u64, notes: Notes) -> Result<(), Box<dyn std::error::Error>> {
    let s3 = S3Config {
        host: SITE.to_owned(),
        port: S3,
        access_key: KEY.to_owned(),
        secret_key: SECRET.to_owned(),
        bucket: EDGE_BUCKET.to_owned(),
        region: "us-east-1".to_owned(),
        factory_id: "factory".to_owned(),
        request_timeout: Duration::from_secs(5),
    };
    let base = format!("ws://{SITE}:{API}");
    let mut config = DeviceConfig::new(
        DEVICE,
        format!("{base}/recorder/{DEVICE}"),
        format!("{base}/transfer"),
        "/recordings",
        s3,
    );
    config.seed = seed;
    config.record = RecordPlan {
        target_bytes: RECORDING_BYTES,
        image_bytes: 256 << 10,
        step_messages: 8,
        ..RecordPlan::default()
    };
    config.reconnect = Reconnect {
        initial: Duration::from_millis(300),
        max: Duration::from_secs(2),
        ..Reconnect::default()
    };
    config.connect_timeout = Duration::from_secs(5);
    config.handshake_timeout = Some(Duration::from_secs(5));
    let device = Device::spawn(SimSeams::new(disk.clone(), seed ^ 0xDE71), config)?;
    notes.get().device = Some(device.log().clone());

    let mut seen = 0;
    loop {
        let new = device.wait_for("another event", Duration::from_secs(3600), |events| {
            (events.len() > seen).then(|| events[seen..].to_vec())
        });
        let Ok(new) = new.await else { continue };
        seen += new.len();
        for event in new {
            match event {
                DeviceEvent::FileWritten { path } => {
                    let bytes = Some(read(&disk, &path)?);
                    match path.extension().and_then(|extension| extension.to_str()) {
                        Some("mcap") => notes.get().recording = bytes,
                        Some("json") => notes.get().sidecar = bytes,
                        Some(_) | None => {}
                    }
                }
                DeviceEvent::Callback { url, body, status }
                    if status != Some(200) && url.ends_with("/finish") =>
                {
                    tokio::spawn(repeat(body));
                }
                _ => {}
            }
        }
    }
}

fn read(disk: &SimDisk, path: &Path) -> std::io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

async fn repeat(callback: serde_json::Value) {
    let http = Http::new(SimNet, SITE, API).with_timeout(Duration::from_secs(5));
    loop {
        if let Ok((200, _, _)) = http.post("/api/v1/callbacks/finish", &callback).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

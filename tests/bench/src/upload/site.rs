//! Tidegate's side of `upload`: the shipped binary as a child process. A device delivers the file to its embedded S3
//! endpoint, an operator approves it; what is measured begins with the trigger and ends when the site says `completed`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_device::{Http, RawLink, S3};
use tidegate_runtime::real::{RealNet, RealSeams};

use super::process::{self, Cost, Kept};
use super::store::{BUCKET, KEY, SECRET, config};
use super::{PART, PARTS_AT_ONCE, measured, ports};

/// A running site.
#[derive(Debug)]
pub struct Site {
    child: Kept,
    log: PathBuf,
    api: u16,
    s3: u16,
}

const SITE: &str = "bench";
const DEVICE: &str = "robot-1";
const STEP: Duration = Duration::from_secs(120);

impl Site {
    /// Starts a site that sends to `endpoint`, which need not be there yet.
    pub async fn start(dir: &Path, endpoint: &str) -> io::Result<Site> {
        let dir = dir.join("site");
        fs::create_dir(&dir)?;
        let (api, s3) = (ports::free()?, ports::free()?);
        let file = format!(
            "site = \"{SITE}\"\ndata_dir = \"data\"\n[listen]\napi = \"127.0.0.1:{api}\"\ns3 = \"127.0.0.1:{s3}\"\n\
             [edge]\naccess_key = \"{KEY}\"\nsecret_key = \"{SECRET}\"\n[log]\nlevel = \"warn\"\n\
             [sync]\npart_size = {PART}\nparts_in_flight = {PARTS_AT_ONCE}\n\
             [cloud]\nendpoint = \"{endpoint}\"\nbucket = \"{BUCKET}\"\naccess_key = \"{KEY}\"\nsecret_key = \"{SECRET}\"\n"
        );
        fs::write(dir.join("tidegate.toml"), file)?;
        let log = dir.join("log");
        let out = fs::File::create(&log)?;
        let mut command = measured()?;
        command.args(["run", "--config", "tidegate.toml"]).current_dir(&dir);
        command.stdout(out.try_clone()?).stderr(Stdio::from(out));
        let child = Kept::start(&mut command)?;
        let mut site = Site { child, log, api, s3 };
        let end = Instant::now() + STEP;
        while !matches!(site.http().get("/readyz").await, Ok((200, _, _))) {
            if site.child.has_ended() || Instant::now() > end {
                return Err(site.fault("it did not start"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(site)
    }

    /// A device delivers the file as the recording of a new task; an operator approves it. The episode.
    pub async fn deliver(&self, file: &Path, task: &str) -> io::Result<u64> {
        self.post("/api/v1/tasks", &json!({"task_id": task, "device_id": DEVICE}), 201).await?;
        let link = RawLink::dial(&RealNet, "127.0.0.1", self.api, &format!("/transfer/{DEVICE}"), &[]).await;
        let mut link = link.map_err(io::Error::other)?;
        let edge = S3::new(RealSeams::new(), config(self.s3, &format!("edge-{SITE}"), KEY, SECRET));
        let (key, slice) =
            (format!("{DEVICE}/{task}.mcap"), edge.file(file).await.map_err(io::Error::other)?);
        let put = edge.put_file(&key, slice, None, "application/octet-stream", 64 << 20, 2).await;
        put.map_err(io::Error::other)?;
        let len = std::fs::metadata(file)?.len();
        let data =
            json!({"task_id": task, "s3_key": key, "file_size_bytes": len, "upload_mode": "mcap_only"});
        link.send_json(&json!({"type": "upload_complete", "data": data})).await.map_err(io::Error::other)?;
        loop {
            let heard = link.next_json(STEP).await.map_err(|why| self.fault(&why))?;
            if heard["type"] == "upload_ack" {
                break;
            }
        }
        let list = self.get(&format!("/api/v1/episodes?device_id={DEVICE}&limit=100")).await?;
        let found = list["items"].as_array().and_then(|items| items.iter().find(|e| e["task_id"] == task));
        let episode = found.and_then(|e| e["id"].as_u64()).ok_or_else(|| self.fault("it has no episode"))?;
        self.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({}), 200).await?;
        Ok(episode)
    }

    /// Triggers the upload of an episode and waits until the site says that it is in the cloud, verified. What that cost
    /// the site's process, and the key in the cloud.
    pub async fn upload(&self, episode: u64) -> io::Result<(Cost, String)> {
        let pid = self.child.pid();
        process::forget_peak(&pid)?;
        let before = process::cpu(&pid).unwrap_or(f64::NAN);
        let begun = Instant::now();
        self.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({}), 202).await?;
        let key = loop {
            let status = self.get(&format!("/api/v1/sync/episodes/{episode}/status")).await?;
            match status["status"].as_str() {
                Some("completed") => {
                    break status["destination_path"].as_str().unwrap_or_default().to_owned();
                }
                Some("failed") => return Err(self.fault(&status.to_string())),
                _ if begun.elapsed() > STEP => return Err(self.fault(&status.to_string())),
                _ => tokio::time::sleep(LOOK).await,
            }
        };
        let cost = Cost {
            wall: begun.elapsed().as_secs_f64(),
            cpu: process::cpu(&pid).unwrap_or(f64::NAN) - before,
            peak: process::memory(&pid, "VmHWM").unwrap_or(0),
        };
        Ok((cost, key))
    }

    fn http(&self) -> Http<RealNet> {
        Http::new(RealNet, "127.0.0.1", self.api).with_timeout(STEP)
    }

    async fn get(&self, path: &str) -> io::Result<Value> {
        let (status, _, body) = self.http().get(path).await.map_err(io::Error::other)?;
        if status == 200 { Ok(body) } else { Err(self.fault(&format!("GET {path}: {status} {body}"))) }
    }

    async fn post(&self, path: &str, body: &Value, expected: u16) -> io::Result<Value> {
        let (status, _, body) = self.http().post(path, body).await.map_err(io::Error::other)?;
        if status == expected { Ok(body) } else { Err(self.fault(&format!("POST {path}: {status} {body}"))) }
    }

    fn fault(&self, why: &str) -> io::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        io::Error::other(format!("the site: {why}\n{log}"))
    }
}

/// How often the site is asked how far it is: seldom enough to cost it nothing.
const LOOK: Duration = Duration::from_millis(25);

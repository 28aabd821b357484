//! The store that everybody uploads to: a process of its own, started afresh with an empty directory for every upload, so
//! that none finds what another left. SeaweedFS if it is installed, else the embedded endpoint of a second site.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidegate_device::{S3, S3Config};
use tidegate_runtime::real::RealSeams;

use super::process::Kept;
use super::{measured, ports};
use crate::environment::{line_of, program};

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// SeaweedFS, `weed server -s3`.
    Seaweedfs,
    /// The embedded S3 endpoint of another site.
    Embedded,
}

/// A running store with an empty bucket.
#[derive(Debug)]
pub struct Store {
    _child: Kept,
    dir: PathBuf,
    port: u16,
}

/// Keys of the store; worth nothing anywhere else.
pub const KEY: &str = "bench-key";
/// The secret half of [`KEY`].
pub const SECRET: &str = "bench-secret";
/// The bucket: the name that the embedded endpoint of the site `cloud` gives it.
pub const BUCKET: &str = "edge-cloud";

impl Kind {
    /// What is there: SeaweedFS before the embedded endpoint.
    pub fn best() -> Kind {
        if program("weed").is_some() { Kind::Seaweedfs } else { Kind::Embedded }
    }

    /// Its name and version for people.
    pub fn name(self) -> String {
        match self {
            Kind::Seaweedfs => {
                let version = program("weed").and_then(|weed| line_of(weed, &["version"]));
                format!("SeaweedFS ({})", version.unwrap_or_else(|| "not installed".to_owned()))
            }
            Kind::Embedded => "the embedded S3 endpoint of a second site".to_owned(),
        }
    }

    /// Starts it with an empty directory and makes the bucket. The port is the first of a row ([`ports::free_row`]).
    pub async fn start(self, dir: &Path, port: u16) -> io::Result<Store> {
        let dir = dir.join("store");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir)?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = match self {
            Kind::Seaweedfs => seaweedfs(&dir, port)?,
            Kind::Embedded => embedded(&dir, port)?,
        };
        command.current_dir(&dir).stdout(log.try_clone()?).stderr(Stdio::from(log));
        let child = Kept::start(&mut command)?;
        let mut store = Store { _child: child, dir, port };
        store.until_ready().await?;
        Ok(store)
    }
}

impl Store {
    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Bytes of an object; `None` if it is not there.
    pub async fn len(&self, key: &str) -> io::Result<Option<u64>> {
        let head = self.client().head(key).await.map_err(io::Error::other)?;
        Ok(head.map(|head| head.len))
    }

    fn client(&self) -> S3<RealSeams> {
        S3::new(RealSeams::new(), config(self.port, BUCKET, KEY, SECRET))
    }

    async fn until_ready(&mut self) -> io::Result<()> {
        let end = Instant::now() + READY;
        loop {
            // A store of several processes may listen before it can write.
            let made = self.client().create_bucket().await;
            let wrote = self.client().put("ready", "x", "text/plain").await;
            if wrote.is_ok() {
                return Ok(());
            }
            if self._child.has_ended() || Instant::now() > end {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                let line = log.lines().last().unwrap_or_default();
                return Err(io::Error::other(format!("the store did not start: {made:?}, {line}")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What cannot be removed now is removed with everything else at the end.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// How to reach a bucket on this machine.
pub fn config(port: u16, bucket: &str, key: &str, secret: &str) -> S3Config {
    S3Config {
        host: "127.0.0.1".to_owned(),
        port,
        access_key: key.to_owned(),
        secret_key: secret.to_owned(),
        bucket: bucket.to_owned(),
        region: "us-east-1".to_owned(),
        factory_id: "bench".to_owned(),
        request_timeout: Duration::from_secs(60),
    }
}

fn seaweedfs(dir: &Path, port: u16) -> io::Result<Command> {
    let weed = program("weed").ok_or_else(|| io::Error::other("weed is not installed"))?;
    let identities = serde_json::json!({"identities": [{
        "name": "bench",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    fs::write(dir.join("identities.json"), identities.to_string())?;
    let mut command = Command::new(weed);
    command.args([
        "server",
        "-dir=.",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-s3.config=identities.json",
    ]);
    command.args(["-volume.max=16", "-master.volumeSizeLimitMB=1024", "-master.volumePreallocate=false"]);
    // Each also listens 10,000 above for its own protocol.
    for (name, port) in
        [("s3.port", port), ("filer.port", port + 1), ("volume.port", port + 2), ("master.port", port + 3)]
    {
        command.arg(format!("-{name}={port}"));
    }
    Ok(command)
}

fn embedded(dir: &Path, port: u16) -> io::Result<Command> {
    let api = ports::free()?;
    let file = format!(
        "site = \"cloud\"\ndata_dir = \"data\"\n[listen]\napi = \"127.0.0.1:{api}\"\ns3 = \"127.0.0.1:{port}\"\n\
         [edge]\naccess_key = \"{KEY}\"\nsecret_key = \"{SECRET}\"\n[log]\nlevel = \"warn\"\n"
    );
    fs::write(dir.join("tidegate.toml"), file)?;
    let mut command = measured()?;
    command.args(["run", "--config", "tidegate.toml"]);
    Ok(command)
}

const READY: Duration = Duration::from_secs(60);

//! The site under load: the shipped binary as a child process, what it says of itself and what the system says of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tidegate_device::Http;
use tidegate_runtime::real::RealNet;

use crate::upload::process::{self, Kept};
use crate::upload::{measured, ports};

/// A running site.
#[derive(Debug)]
pub struct Site {
    child: Kept,
    dir: PathBuf,
    api: u16,
}

/// Metrics by name and labels, as they stand in the text form.
pub type Metrics = BTreeMap<String, f64>;

/// How long a site may take to be ready.
const START: Duration = Duration::from_secs(120);
/// How often a site that starts is asked.
const LOOK: Duration = Duration::from_millis(10);

impl Site {
    /// Starts a site and waits until it is ready.
    pub async fn start(dir: &Path) -> io::Result<Site> {
        let dir = dir.join("site");
        fs::create_dir(&dir)?;
        let api = ports::free_row()?;
        let file = format!(
            "site = \"bench\"\ndata_dir = \"data\"\n[listen]\napi = \"127.0.0.1:{api}\"\ns3 = \"127.0.0.1:{}\"\n\
             [log]\nlevel = \"warn\"\n",
            api + 1
        );
        fs::write(dir.join("tidegate.toml"), file)?;
        let mut site = Site { child: spawn(&dir)?, dir, api };
        site.ready().await?;
        Ok(site)
    }

    /// SIGKILL, and a new start on the same directory and ports. Gives back when it is ready.
    pub async fn kill_and_start(&mut self) -> io::Result<()> {
        self.child.kill();
        self.child = spawn(&self.dir)?;
        self.ready().await
    }

    async fn ready(&mut self) -> io::Result<()> {
        let end = Instant::now() + START;
        while !matches!(self.http().get("/readyz").await, Ok((200, _, _))) {
            if self.child.has_ended() || Instant::now() > end {
                return Err(self.fault("it did not start"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Port of the API and of links.
    pub fn api(&self) -> u16 {
        self.api
    }

    /// Its number, as /proc has it.
    pub fn pid(&self) -> String {
        self.child.pid()
    }

    /// Resident memory, bytes.
    pub fn memory(&self) -> u64 {
        process::memory(&self.pid(), "VmRSS").unwrap_or(0)
    }

    /// CPU seconds since its start.
    pub fn cpu(&self) -> f64 {
        process::cpu(&self.pid()).unwrap_or(f64::NAN)
    }

    /// What it counts.
    pub async fn metrics(&self) -> io::Result<Metrics> {
        let answer = self.http().send(http::Method::GET, "/metrics", &[], None).await;
        let answer = answer.map_err(|error| self.fault(&format!("GET /metrics: {error}")))?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    fn http(&self) -> Http<RealNet> {
        Http::new(RealNet, "127.0.0.1", self.api).with_timeout(START)
    }

    /// What went wrong, with the site's own words.
    pub fn fault(&self, why: &str) -> io::Error {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        io::Error::other(format!("the site: {why}\n{last}"))
    }
}

fn spawn(dir: &Path) -> io::Result<Kept> {
    let out = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = measured()?;
    command.args(["run", "--config", "tidegate.toml"]).current_dir(dir);
    command.stdout(out.try_clone()?).stderr(Stdio::from(out));
    Kept::start(&mut command)
}

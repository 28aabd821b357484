//! The demo's site: this very binary as a child process, on a directory and ports of its own. Never outlives us.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tidegate_runtime::ingest::AccessKey;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::cloud::BUCKET;
use crate::Failure;
use crate::ask::Site;

/// How long a site may take to start: creating a database on a slow disk takes a few seconds.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop in an orderly way.
const STOP: Duration = Duration::from_secs(30);

/// Where the site is and what it is told.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) api_port: u16,
    pub(crate) s3_port: u16,
    pub(crate) edge_key: AccessKey,
}

impl Place {
    /// Chooses free ports and writes the configuration file.
    pub(crate) fn prepare(
        dir: &Path,
        cloud_port: u16,
        cloud_key: &AccessKey,
        edge_key: &AccessKey,
        part_size: u64,
    ) -> Result<Place, Failure> {
        let trouble = |error: std::io::Error| Failure::failed(format!("cannot prepare the site: {error}"));
        // Two sockets at once, so that the ports differ; they are free again when the child starts.
        let one = std::net::TcpListener::bind("127.0.0.1:0").map_err(trouble)?;
        let two = std::net::TcpListener::bind("127.0.0.1:0").map_err(trouble)?;
        let api_port = one.local_addr().map_err(trouble)?.port();
        let s3_port = two.local_addr().map_err(trouble)?.port();
        std::fs::create_dir_all(dir).map_err(trouble)?;
        let text = format!(
            "# Written by `tidegate demo`.\n\
             site = \"demo\"\ndata_dir = {data:?}\npublic_url = \"http://127.0.0.1:{api_port}\"\n\n\
             [listen]\napi = \"127.0.0.1:{api_port}\"\ns3 = \"127.0.0.1:{s3_port}\"\n\n\
             [edge]\naccess_key = {edge_id:?}\nsecret_key = {edge_secret:?}\n\n\
             [sync]\npart_size = \"{part_size}B\"\nparts_in_flight = {IN_FLIGHT}\n\n\
             [cloud]\nendpoint = \"http://127.0.0.1:{cloud_port}\"\nbucket = \"{BUCKET}\"\nregion = \"us-east-1\"\n\
             access_key = {cloud_id:?}\nsecret_key = {cloud_secret:?}\npath_style = true\n",
            data = dir.join("data"),
            edge_id = edge_key.id,
            edge_secret = edge_key.secret,
            cloud_id = cloud_key.id,
            cloud_secret = cloud_key.secret,
        );
        std::fs::write(dir.join("tidegate.toml"), text).map_err(trouble)?;
        Ok(Place { dir: dir.to_path_buf(), api_port, s3_port, edge_key: edge_key.clone() })
    }

    /// The last lines of the site's log, for a failure.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("site.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Starts the site into `slot`, where it can be stopped from at any time, and waits until it is ready.
    pub(crate) async fn start(&self, slot: &Slot) -> Result<(), Failure> {
        let trouble = |error: std::io::Error| Failure::failed(format!("cannot start the site: {error}"));
        let program = std::env::current_exe().map_err(trouble)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("site.log"))
            .map_err(trouble)?;
        let mut command = Command::new(program);
        command
            .args(["run", "--stop-with-stdin", "--config"])
            .arg(self.dir.join("tidegate.toml"))
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(trouble)?)
            .stderr(log)
            .kill_on_drop(true);
        // The demo is the same whatever the environment says of other sites.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        *slot.lock().await = Some(Running { child: command.spawn().map_err(trouble)? });
        let site = Site::here(self.api_port);
        let ready = async {
            while !site.is_ready().await {
                if let Some(running) = slot.lock().await.as_mut()
                    && let Ok(Some(status)) = running.child.try_wait()
                {
                    return Err(Failure::failed(format!("the site ended at its start ({status})")));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        match tokio::time::timeout(START, ready).await {
            Ok(ready) => ready,
            Err(_) => Err(Failure::failed(format!("the site is not ready after {START:?}"))),
        }
    }
}

/// Where a running site is kept, so that whoever ends the demo can end it too.
pub(crate) type Slot = Mutex<Option<Running>>;

/// Parts of one upload in flight at once.
pub(crate) const IN_FLIGHT: u64 = 3;

/// A running site. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// SIGKILL: no goodbye, no flush. Returns when it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| Failure::failed(format!("cannot kill the site: {error}")))
    }

    /// Asks it to stop and waits for a clean exit.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        // The end of its standard input is the request.
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::failed(format!("the site ended with {status} instead of 0"))),
            Ok(Err(error)) => Err(Failure::failed(format!("cannot wait for the site: {error}"))),
            Err(_) => Err(Failure::failed(format!("the site did not stop within {STOP:?}"))),
        }
    }
}

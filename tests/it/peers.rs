//! Foreign programs: where tests/stock/install.sh puts them, and foreign object stores as child processes on loopback,
//! each on a directory and ports of its own. Never outlive their test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tidegate_device::{S3, S3Config, xml};
use tidegate_runtime::real::RealSeams;

use crate::cloud::{BUCKET, Cloud, KEY, SECRET};
use crate::relay::Relay;
use crate::rig::{Plan, SITE, STEP, free_port, until};
use crate::skip;

/// An installed program.
pub fn installed(name: &str) -> Option<PathBuf> {
    let bin = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../stock/bin").join(name);
    bin.exists().then_some(bin)
}

/// A program without what this machine's environment would tell it: proxies, certificates, regions, keys.
pub fn bare(bin: &Path) -> Command {
    let mut command = Command::new(bin);
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let told = ["AWS_", "RCLONE_", "S3_", "WEED_", "MOTO_"];
        if told.iter().any(|prefix| upper.starts_with(prefix)) || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The object stores that the uploader is tried against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Our own, as another site's.
    Embedded,
    /// SeaweedFS: keeps what it has on disk. A bucket that is missing is told, not made.
    SeaweedFs,
    /// The same with its own defaults.
    SeaweedFsAsShipped,
    /// moto: keeps what it has in memory, and asks for no keys.
    Moto,
}

impl Kind {
    fn program(self) -> Option<&'static str> {
        match self {
            Kind::Embedded => None,
            Kind::SeaweedFs | Kind::SeaweedFsAsShipped => Some("weed"),
            Kind::Moto => Some("moto_server"),
        }
    }
}

/// A running store behind a relay.
pub struct Store {
    /// Which one.
    pub kind: Kind,
    /// Sites reach it through this.
    pub relay: Relay,
    /// Where it listens itself.
    pub port: u16,
    process: Option<Process>,
    _cloud: Option<Cloud>,
}

struct Process {
    dir: TempDir,
    bin: PathBuf,
    ports: Vec<u16>,
    child: Option<Child>,
}

impl Store {
    /// Starts a store with the bucket [`BUCKET`]. `None`, said aloud, if it is not installed.
    pub async fn start(kind: Kind) -> Option<Store> {
        let store = Store::without_bucket(kind).await?;
        store.s3().create_bucket().await.expect("the bucket");
        Some(store)
    }

    /// Starts a store without the bucket. Our own in these tests always has it.
    pub async fn without_bucket(kind: Kind) -> Option<Store> {
        let Some(program) = kind.program() else {
            let cloud = Cloud::start().await;
            let (port, relay) = (cloud.port, Relay::to(cloud.port).await);
            return Some(Store { kind, relay, port, process: None, _cloud: Some(cloud) });
        };
        let Some(bin) = installed(program) else {
            skip::skip(
                &format!("stores::{kind:?}"),
                &format!("{program} is not installed; run tests/stock/install.sh"),
            );
            return None;
        };
        let dir = tempfile::Builder::new().prefix("tidegate-it-store-").tempdir().expect("a directory");
        let ports: Vec<u16> = (0..8).map(|_| free_port()).collect();
        let port = ports[0];
        let process = Process { dir, bin, ports, child: None };
        let mut store =
            Store { kind, relay: Relay::to(port).await, port, process: Some(process), _cloud: None };
        store.restart().await;
        Some(store)
    }

    /// SIGKILL. What the store keeps in memory is gone.
    pub fn kill(&mut self) {
        let process = self.process.as_mut().expect("a store that is a process");
        process.end();
    }

    /// Starts a store that does not run, on the directory it had, and waits until it takes objects.
    pub async fn restart(&mut self) {
        let kind = self.kind;
        self.process.as_mut().expect("a store that is a process").spawn(kind);
        // Some open their port long before they have a place for objects.
        // Asked while they begin, some keep a request for ever: it is given up soon and asked again.
        let soon = Duration::from_secs(5);
        let ready = S3Config { bucket: "readiness".to_owned(), request_timeout: soon, ..self.config() };
        let ready = S3::new(RealSeams::new(), ready);
        until(&format!("{kind:?} to take objects"), STEP, async || {
            let process = self.process.as_mut().expect("a store that is a process");
            let ended = process.child.as_mut().expect("it was started").try_wait().expect("its status");
            assert!(ended.is_none(), "{kind:?} ended at its start: {}", process.log());
            ready.create_bucket().await.ok()?;
            ready.put("here", "it is", "text/plain").await.ok()
        })
        .await;
    }

    /// Address and keys, past the relay.
    pub fn config(&self) -> S3Config {
        S3Config {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            access_key: KEY.to_owned(),
            secret_key: SECRET.to_owned(),
            bucket: BUCKET.to_owned(),
            region: "us-east-1".to_owned(),
            factory_id: SITE.to_owned(),
            request_timeout: STEP,
        }
    }

    /// A client, past the relay.
    pub fn s3(&self) -> S3<RealSeams> {
        S3::new(RealSeams::new(), self.config())
    }

    /// A client of another bucket, past the relay.
    pub fn s3_of(&self, bucket: &str) -> S3<RealSeams> {
        S3::new(RealSeams::new(), S3Config { bucket: bucket.to_owned(), ..self.config() })
    }

    /// A site that sends to it through the relay, and tries again soon.
    pub fn plan(&self) -> Plan {
        Plan::new()
            .set("cloud.endpoint", format!("http://127.0.0.1:{}", self.relay.port))
            .set("cloud.bucket", BUCKET)
            .set("cloud.region", "us-east-1")
            .set("cloud.access_key", KEY)
            .set("cloud.secret_key", SECRET)
            .set("cloud.path_style", true)
            .set("sync.retry_base", "1s")
            .set("sync.retry_cap", "2s")
            .set("sync.retry_jitter", "0s")
    }
}

/// Multipart uploads of a bucket that are neither completed nor aborted: keys and ids, in the store's order.
pub async fn open_uploads(s3: &S3<RealSeams>) -> Vec<(String, String)> {
    let answer = s3.ask(Method::GET, "", &[("uploads", "")], &[], "").await.expect("a listing");
    let body = String::from_utf8_lossy(&answer.body);
    assert!(answer.status.is_success(), "{body}");
    let field = |entry, name| xml::text(entry, name).unwrap_or_default();
    xml::elements(&body, "Upload").map(|entry| (field(entry, "Key"), field(entry, "UploadId"))).collect()
}

impl Process {
    fn spawn(&mut self, kind: Kind) {
        assert!(self.child.is_none(), "the store runs already");
        let dir = self.dir.path();
        let log = File::options().create(true).append(true).open(dir.join("store.log")).expect("the log");
        let mut command = bare(&self.bin);
        command.env("HOME", dir).current_dir(dir);
        command.stdout(log.try_clone().expect("the log")).stderr(log);
        let port = |n: usize| self.ports[n].to_string();
        match kind {
            Kind::Embedded => unreachable!("our own store runs in this process"),
            Kind::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &port(0)]);
            }
            Kind::SeaweedFs | Kind::SeaweedFsAsShipped => {
                let keys = json!({"identities": [{
                    "name": "it",
                    "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                    "actions": ["Admin", "Read", "List", "Tagging", "Write"],
                }]});
                std::fs::write(dir.join("keys.json"), keys.to_string()).expect("the keys");
                std::fs::create_dir_all(dir.join("objects")).expect("the store's directory");
                command.args(["-logtostderr=true", "server", "-s3", "-dir=objects", "-s3.config=keys.json"]);
                command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"]);
                command.args(["-s3.iam=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
                if kind == Kind::SeaweedFs {
                    command.arg("-s3.autoCreateBucket=false");
                }
                command.args([
                    "-master.volumeSizeLimitMB=64",
                    "-volume.max=50",
                    "-volume.minFreeSpacePercent=0",
                ]);
                let names = [
                    "s3.port",
                    "s3.port.grpc",
                    "master.port",
                    "master.port.grpc",
                    "volume.port",
                    "volume.port.grpc",
                    "filer.port",
                    "filer.port.grpc",
                ];
                command.args(names.iter().enumerate().map(|(n, name)| format!("-{name}={}", port(n))));
            }
        }
        self.child = Some(command.spawn().expect("the store starts"));
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("store.log")).unwrap_or_default())
            .into_owned()
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

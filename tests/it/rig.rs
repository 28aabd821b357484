//! A site for tests: the real binary as a child process, on a directory and ports of its own. Never outlives its test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_device::{Answer, Http, RawLink, S3, S3Config, WsError};
use tidegate_runtime::real::{RealNet, RealSeams};

use crate::cloud::{self, Cloud};

/// A scripted link over a real socket.
pub type Raw = RawLink<tokio::net::TcpStream>;

/// The name of every site under test; its edge bucket is `edge-it`.
pub const SITE: &str = "it";
/// Keys that devices upload with.
pub const EDGE_KEY: &str = "it-edge";
/// The secret half of [`EDGE_KEY`].
pub const EDGE_SECRET: &str = "it-edge-secret-value";
/// Bytes of a part that a site sends to the cloud: the smallest that S3 allows.
pub const PART: u64 = 5 << 20;
/// Parts that a site may have under way.
pub const IN_FLIGHT: u64 = 2;

/// The variable that names a planted bug for the binary under test, in a build that has them (tests/weaknesses.sh).
const PLANT: &str = "TIDEGATE_TEST_PLANT";

/// How long one step may take. Generous: two cores carry the whole run, and a correct product never comes near it.
pub const STEP: Duration = Duration::from_secs(45);
/// How long silence must last before it counts as "nothing comes".
pub const SILENCE: Duration = Duration::from_millis(1500);
/// How often a condition is looked at again.
const LOOK: Duration = Duration::from_millis(20);
/// How long a whole test may take; one that kills more often than three times, so much longer.
const WHOLE: Duration = Duration::from_secs(300);

/// Runs one test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime for the test");
    let whole = WHOLE * crate::crash::kills_wanted().div_ceil(3).max(1);
    let done = runtime.block_on(async { tokio::time::timeout(whole, test).await });
    runtime.shutdown_background();
    done.expect("the test ends in time")
}

/// Asks until there is an answer; fails with `what` after `deadline`.
pub async fn until<T>(what: &str, deadline: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A port that nobody listens on. Below the range that the system hands out by itself, so that no outgoing
/// connection can take it while a site is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 100).unwrap_or(0) * 100;
    loop {
        let port = 20_000 + (base - 20_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// What a site is told before it starts.
pub struct Plan {
    settings: BTreeMap<String, toml::Value>,
    arguments: Vec<String>,
}

impl Plan {
    /// A site without a cloud.
    pub fn new() -> Plan {
        let mut plan = Plan { settings: BTreeMap::new(), arguments: Vec::new() };
        for (key, value) in [
            ("site", SITE.to_owned()),
            ("edge.access_key", EDGE_KEY.to_owned()),
            ("edge.secret_key", EDGE_SECRET.to_owned()),
            ("sync.part_size", "5MiB".to_owned()),
        ] {
            plan = plan.set(key, value);
        }
        plan.set("sync.parts_in_flight", i64::try_from(IN_FLIGHT).expect("a small number"))
    }

    /// A site that sends to `cloud`.
    pub fn with_cloud(cloud: &Cloud) -> Plan {
        Plan::with_store(cloud.port)
    }

    /// A site that sends to whatever listens on this port of loopback, with the bucket and the keys of [`Cloud`].
    pub fn with_store(port: u16) -> Plan {
        Plan::new()
            .set("cloud.endpoint", format!("http://127.0.0.1:{port}"))
            .set("cloud.bucket", cloud::BUCKET)
            .set("cloud.region", "us-east-1")
            .set("cloud.access_key", cloud::KEY)
            .set("cloud.secret_key", cloud::SECRET)
            .set("cloud.path_style", true)
    }

    /// One setting by its dotted name.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Plan {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// One more argument of `tidegate run`.
    pub fn argument(mut self, argument: &str) -> Plan {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Chooses ports, writes the file, starts nothing.
    pub fn prepare(mut self) -> Site {
        let dir = tempfile::Builder::new().prefix("tidegate-it-").tempdir().expect("a temporary directory");
        let (api, s3) = (free_port(), free_port());
        let data = dir.path().join("data");
        for (key, value) in [
            ("data_dir", data.display().to_string()),
            ("listen.api", format!("127.0.0.1:{api}")),
            ("listen.s3", format!("127.0.0.1:{s3}")),
            ("public_url", format!("http://127.0.0.1:{api}")),
        ] {
            self.settings.entry(key.to_owned()).or_insert_with(|| value.into());
        }
        let mut file = toml::Table::new();
        for (key, value) in &self.settings {
            match key.split_once('.') {
                None => file.insert(key.clone(), value.clone()),
                Some((section, name)) => {
                    let section = file.entry(section).or_insert_with(|| toml::Table::new().into());
                    section.as_table_mut().expect("a section").insert(name.to_owned(), value.clone())
                }
            };
        }
        std::fs::write(dir.path().join("tidegate.toml"), file.to_string()).expect("the configuration file");
        Site { dir, api, s3, arguments: self.arguments, files: None, child: None }
    }

    /// Starts the site and waits until it is ready.
    pub async fn start(self) -> Site {
        let mut site = self.prepare();
        site.start().await;
        site
    }

    /// The same for a site that may have only so many files and sockets open.
    pub async fn start_with_files(self, files: u32) -> Site {
        let mut site = self.prepare();
        site.files = Some(files);
        site.start().await;
        site
    }
}

/// A site, running or not. Dropping it kills it; if the test failed, its log is printed.
pub struct Site {
    dir: TempDir,
    /// Port of the API and of device links.
    pub api: u16,
    /// Port of the embedded S3 endpoint.
    pub s3: u16,
    arguments: Vec<String>,
    /// The limit of open files that it is started with; `None` is that of the test.
    files: Option<u32>,
    child: Option<Child>,
}

impl Site {
    /// The binary with nothing of the environment that could configure it, but for a planted bug.
    pub fn program() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-under-test"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") && name != PLANT {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// The directory with everything of this site.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.dir().join("tidegate.toml")
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Site::program();
        if let Some(files) = self.files {
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]);
            limited.arg(command.get_program()).stdin(Stdio::null());
            for (name, _) in command.get_envs() {
                limited.env_remove(name);
            }
            command = limited;
        }
        command.arg("run").arg("--config").arg(self.file()).args(&self.arguments).current_dir(self.dir());
        command
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("site.log")
    }

    /// What it printed so far, all starts together.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Starts the process and does not wait.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the site runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the log");
        let mut command = self.command();
        command.stdout(log.try_clone().expect("the log")).stderr(log);
        self.child = Some(command.spawn().expect("the binary under test starts"));
    }

    /// Starts the process and waits until it says that it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        let http = self.http();
        let end = Instant::now() + STEP;
        loop {
            if matches!(http.get("/readyz").await, Ok((200, _, _))) {
                return;
            }
            let status = self.child.as_mut().expect("it was spawned").try_wait().expect("its status");
            assert!(status.is_none(), "the site ended at its start: {status:?}");
            assert!(Instant::now() < end, "the site is not ready within {STEP:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts it unless it runs.
    pub async fn ensure_started(&mut self) {
        if self.child.is_none() {
            self.start().await;
        }
    }

    /// The id of the process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("a running site").id()
    }

    /// Whether the process is over.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("its status").is_some())
    }

    /// Changes one setting of a site that is not running.
    pub fn with_setting(self, key: &str, value: impl Into<toml::Value>) -> Site {
        assert!(self.child.is_none(), "a running site reads no file");
        let text = std::fs::read_to_string(self.file()).expect("the configuration file");
        let mut file: toml::Table = text.parse().expect("it is TOML");
        let (section, name) = key.split_once('.').expect("a key in a section");
        let section = file.entry(section).or_insert_with(|| toml::Table::new().into());
        section.as_table_mut().expect("a section").insert(name.to_owned(), value.into());
        std::fs::write(self.file(), file.to_string()).expect("the configuration file");
        self
    }

    /// SIGKILL: no goodbye, no flush.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running site");
        child.kill().expect("SIGKILL");
        child.wait().expect("the end of a killed process");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("a running site");
        signal(child.id(), name);
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("a running site");
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = child.try_wait().expect("its status") {
                return status;
            }
            if Instant::now() >= end {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the site still runs after {deadline:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM, and a clean exit.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let status = self.exit(STEP).await;
        assert_eq!(status.code(), Some(0), "SIGTERM ends a site with 0");
    }

    /// A client of the API.
    pub fn http(&self) -> Http<RealNet> {
        Http::new(RealNet, "127.0.0.1", self.api).with_timeout(STEP)
    }

    /// GET: status and JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) =
            self.http().get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        (status, body)
    }

    /// GET that must succeed.
    pub async fn read(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// POST: status and JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.http().post(path, body).await;
        let (status, _, body) = answer.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        (status, body)
    }

    /// Any request without a body.
    pub async fn send(&self, method: http::Method, path: &str) -> Answer {
        self.http().send(method, path, &[], None).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A client of the edge bucket.
    pub fn edge(&self) -> S3<RealSeams> {
        S3::new(RealSeams::new(), self.edge_config())
    }

    /// Address and keys of the edge bucket.
    pub fn edge_config(&self) -> S3Config {
        S3Config {
            host: "127.0.0.1".to_owned(),
            port: self.s3,
            access_key: EDGE_KEY.to_owned(),
            secret_key: EDGE_SECRET.to_owned(),
            bucket: format!("edge-{SITE}"),
            region: "us-east-1".to_owned(),
            factory_id: SITE.to_owned(),
            request_timeout: STEP,
        }
    }

    /// Opens a link on the port of the API.
    pub async fn dial(&self, path: &str) -> Result<Raw, WsError> {
        Raw::dial(&RealNet, "127.0.0.1", self.api, path, &[]).await
    }

    /// Makes a task for a device.
    pub async fn create_task(&self, device: &str, task: &str) {
        let (status, body) = self.post("/api/v1/tasks", &json!({"task_id": task, "device_id": device})).await;
        assert_eq!(status, 201, "{body}");
        assert_eq!(body["task_id"], task, "{body}");
        assert_eq!(body["device_id"], device, "{body}");
        assert_eq!(body["status"], "pending", "{body}");
    }

    /// The status of a task.
    pub async fn task_status(&self, task: &str) -> String {
        let body = self.read(&format!("/api/v1/tasks/{task}")).await;
        body["status"].as_str().unwrap_or_else(|| panic!("a task has a status: {body}")).to_owned()
    }

    /// Waits until a task has a status.
    pub async fn task_reaches(&self, task: &str, status: &str) {
        until(&format!("task {task} to be {status}"), STEP, async || {
            (self.task_status(task).await == status).then_some(())
        })
        .await;
    }

    /// All episodes of a device.
    pub async fn episodes(&self, device: &str) -> Vec<Value> {
        let body = self.read(&format!("/api/v1/episodes?device_id={device}&limit=100")).await;
        body["items"].as_array().unwrap_or_else(|| panic!("a list has items: {body}")).clone()
    }

    /// The one episode of a task.
    pub async fn episode(&self, device: &str, task: &str) -> u64 {
        until(&format!("the episode of {task}"), STEP, async || {
            let all = self.episodes(device).await;
            let mine: Vec<&Value> = all.iter().filter(|episode| episode["task_id"] == task).collect();
            assert!(mine.len() <= 1, "one recording makes one episode: {mine:?}");
            mine.first().map(|episode| episode["id"].as_u64().expect("episode ids are numbers"))
        })
        .await
    }

    /// Approves an episode and asks for its upload.
    pub async fn approve_and_sync(&self, episode: u64) {
        let (status, body) = self.post(&format!("/api/v1/episodes/{episode}/approve"), &json!({})).await;
        assert_eq!(status, 200, "{body}");
        let (status, body) = self.post(&format!("/api/v1/sync/episodes/{episode}"), &json!({})).await;
        assert_eq!(status, 202, "{body}");
    }

    /// What the site says of an upload.
    pub async fn sync_status(&self, episode: u64) -> Value {
        self.read(&format!("/api/v1/sync/episodes/{episode}/status")).await
    }

    /// Waits until an upload is completed.
    pub async fn synced(&self, episode: u64) -> Value {
        until(&format!("episode {episode} to be in the cloud"), STEP, async || {
            let status = self.sync_status(episode).await;
            (status["status"] == "completed").then_some(status)
        })
        .await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let mut text = String::from("--- the site's log ends ---\n");
            for line in &lines[lines.len().saturating_sub(60)..] {
                let _ = writeln!(text, "{line}");
            }
            // Through the harness, so that only a failed test shows it.
            #[expect(clippy::print_stderr, reason = "the harness captures it and shows it with the failure")]
            {
                eprintln!("{text}");
            }
        }
    }
}

/// Sends a signal to a process by its id.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(sent.expect("the kill command").success(), "kill -{name} {process}");
}

/// Bytes that look like a recording and never repeat.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The UTC date of a moment, as keys spell it.
pub fn utc_date(wall_ms: i64) -> String {
    // Days since 0000-03-01, then years of the Gregorian calendar: the civil calendar's usual arithmetic.
    let days = wall_ms.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (d, m) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let y = year + era * 400 + i64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02}")
}

#[test]
fn dates_of_keys_are_those_of_the_calendar() {
    for (ms, date) in [
        (0, "1970-01-01"),
        (-1, "1969-12-31"),
        (951_782_400_000, "2000-02-29"),
        (951_868_799_999, "2000-02-29"),
        (951_868_800_000, "2000-03-01"),
        (crate::script::RECORDED_AT, "2026-03-04"),
        (crate::script::RECORDED_AT + 500, "2026-03-05"),
    ] {
        assert_eq!(utc_date(ms), date, "{ms}");
    }
}

//! What the site is told: types with their defaults, and what follows from them. Reads no clock and no socket; where
//! values come from is [`layers`]'s business.
//!
//! Order of precedence, the later wins: defaults, the file, `TIDEGATE_*` of the environment, flags. In the environment
//! a section is separated from its key by two underscores: `TIDEGATE_SYNC__PART_SIZE=16MiB`.

mod auth;
mod layers;
mod policies;
mod read;
#[cfg(test)]
mod tests;
mod tls;
mod units;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::knobs::{BadKnob, Knobs};
use tidegate_core::labels::LabelRule;
use tidegate_core::policy::Settings;

pub use auth::{Auth, Demanded};
pub(crate) use layers::read_text;
pub use layers::{Layers, Problem, Problems, Source};
pub use policies::{Policies, Surroundings};
pub use tls::{Door, Tls};
pub use units::{duration_text, parse_duration, parse_size, size_text};

/// A value that is never printed, logged or written: all it shows is `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value, for the one who needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Configuration of one site.
#[derive(Clone, Debug)]
pub struct Config {
    /// `site`: its name, first segment of keys in the cloud.
    pub site: String,
    /// `data_dir`: where everything durable lives.
    pub data_dir: PathBuf,
    /// `public_url`: base URL that devices are told for callbacks, without a trailing slash.
    pub public_url: Option<String>,
    /// `[listen]`
    pub listen: Listen,
    /// `[auth]`
    pub auth: Auth,
    /// `[devices]`
    pub devices: Devices,
    /// `[stream]`
    pub stream: Stream,
    /// `[sync]`
    pub sync: Sync,
    /// `[edge]`
    pub edge: Edge,
    /// `[qa]`
    pub qa: Quality,
    /// `[policies]`
    pub policies: Policies,
    /// `[surroundings]`
    pub surroundings: Surroundings,
    /// `[cloud]`; `None` parks uploads.
    pub cloud: Option<Cloud>,
    /// `[log]`
    pub log: Log,
    /// `[journal]`
    pub journal: Journal,
    /// `[limits]`
    pub limits: Limits,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// Whether this start makes another token that may do everything. Not a setting: a flag of `tidegate run` alone.
    pub new_admin_token: bool,
    /// What is legal but probably not meant, for the log.
    pub warnings: Vec<String>,
    /// Where each value that is not a default comes from, by its name.
    pub sources: BTreeMap<String, Source>,
}

/// Where the site listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen.api`: HTTP API, devices, dashboard.
    pub api: SocketAddr,
    /// `listen.s3`: embedded S3 endpoint.
    pub s3: SocketAddr,
    /// `listen.recorder`: a port of their own for recorders that cannot name a path.
    pub recorder: Option<SocketAddr>,
    /// `listen.transfer`: the same for uploaders.
    pub transfer: Option<SocketAddr>,
    /// `listen.insecure`: whether to listen beyond loopback although nobody has to prove anything.
    pub insecure: bool,
    /// `listen.tls_cert`, `listen.tls_key` and `listen.tls`; `None`: everything is plain.
    pub tls: Option<Tls>,
}

/// Links of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// `devices.rpc_timeout`: how long a device has to answer a command.
    pub rpc_timeout: Duration,
    /// `devices.recorder_url`: the base address that recorders are told at their registration; `None` follows `public_url`
    /// and the listeners.
    pub recorder_url: Option<String>,
    /// `devices.transfer_url`: the same for uploaders.
    pub transfer_url: Option<String>,
    /// `devices.contest_pause`: for how long nobody may take over a link that programs fight over, at first.
    pub contest_pause: Duration,
    /// `devices.ping_interval`: time between pings of a link; `None` is 30 s for recorders and 25 s for uploaders,
    /// below the idle timeouts their stock clients have.
    pub ping_interval: Option<Duration>,
    /// `devices.ping_timeout`: how late a pong may be before a link counts as silent.
    pub ping_timeout: Duration,
    /// `devices.max_message`: largest message of a device, in bytes.
    pub max_message: u64,
    /// `devices.handshake_timeout`: how long a complete upgrade request waits for its answer, and then how long the
    /// device may take to follow it.
    pub handshake_timeout: Duration,
    /// `devices.uploading_deadline`: how long a task may wait for its recording before a person is told; `None` is for
    /// ever.
    pub uploading_deadline: Option<Duration>,
    /// `devices.message_rate`: messages and control frames of one link a second, in the long run.
    pub message_rate: u32,
    /// `devices.busy_patience`: how much later a link counts as silent that owes an answer.
    pub busy_patience: Duration,
    /// `devices.link_grace`: how long a recorder may be away before its tasks are put back.
    pub link_grace: Duration,
    /// `devices.settle`: how long a device may not do what its task's record says before that is looked into.
    pub settle: Duration,
}

/// The stream of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// `stream.events`: events that a reader may be behind.
    pub events: u64,
    /// `stream.bytes`: memory of these events.
    pub bytes: u64,
}

/// Carrying episodes to the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// `sync.part_size`: bytes of a part.
    pub part_size: u64,
    /// `sync.parts_in_flight`: of one upload.
    pub parts_in_flight: u16,
    /// `sync.uploads`: at once.
    pub uploads: u32,
    /// `sync.attempts`: in all, per job.
    pub attempts: u32,
    /// `sync.retry_base`: delay after the first failed attempt; it doubles.
    pub retry_base: Duration,
    /// `sync.retry_cap`: longest delay.
    pub retry_cap: Duration,
    /// `sync.retry_jitter`: largest addition to a delay.
    pub retry_jitter: Duration,
    /// `sync.auto_scan`: queue approved episodes without being asked.
    pub auto_scan: bool,
    /// `sync.scan_every`: how often that is looked for.
    pub scan_every: Duration,
    /// `sync.batch`: most episodes that one trigger or scan queues.
    pub batch: u32,
    /// `sync.bytes_per_second`: over all uploads; `None` is no limit.
    pub bytes_per_second: Option<u64>,
}

/// The embedded S3 endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// `edge.keep`: how long a recording stays here after it is safe in the cloud; `None` is for ever.
    pub keep: Option<Duration>,
    /// `edge.access_key` and `edge.secret_key`; `None` makes a pair at the first start.
    pub keys: Option<(String, Secret)>,
    /// `edge.max_clock_skew`: how far a device's clock may be off; `None` is any.
    pub max_clock_skew: Option<Duration>,
    /// `edge.reserve`: free bytes of the disk below which no device is asked for a recording, and below half of which
    /// none may upload; 0 is never.
    pub reserve: u64,
    /// `edge.abandoned_after`: how long a multipart upload of a device may stand still before its parts are removed;
    /// `None` is for ever.
    pub abandoned_after: Option<Duration>,
}

/// Judging recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality {
    /// `qa.auto_approve`: approve what the check of its content finds sound, and put the rest aside for a person.
    pub auto_approve: bool,
}

/// The destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// `cloud.endpoint`: base URL; `None` is AWS.
    pub endpoint: Option<String>,
    /// `cloud.region`
    pub region: String,
    /// `cloud.bucket`
    pub bucket: String,
    /// `cloud.access_key`
    pub access_key: String,
    /// `cloud.secret_key`
    pub secret_key: Secret,
    /// `cloud.session_token`
    pub session_token: Option<Secret>,
    /// `cloud.path_style`: bucket in the path instead of the host name.
    pub path_style: bool,
    /// `cloud.attempt_timeout`: for one request.
    pub attempt_timeout: Duration,
    /// `cloud.connect_timeout`: for one connection.
    pub connect_timeout: Duration,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `log.format`
    pub format: LogFormat,
    /// `log.level`: a level, or directives such as `info,tidegate_runtime=debug`.
    pub level: String,
}

/// The journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journal {
    /// `journal.limit`: bytes of entries.
    pub limit: u64,
}

/// What the process takes of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.files`: files and sockets that may be open at once; `None` is as many as the system allows.
    pub files: Option<u64>,
}

/// Stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// `shutdown.drain`: how long what is in flight may take to end.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            site: "site".to_owned(),
            data_dir: PathBuf::from("tidegate-data"),
            public_url: None,
            listen: Listen {
                api: SocketAddr::from(([127, 0, 0, 1], 8080)),
                s3: SocketAddr::from(([127, 0, 0, 1], 9000)),
                recorder: None,
                transfer: None,
                insecure: false,
                tls: None,
            },
            auth: Auth::default(),
            devices: Devices {
                recorder_url: None,
                transfer_url: None,
                rpc_timeout: Duration::from_secs(15),
                contest_pause: Duration::from_secs(10),
                ping_interval: None,
                ping_timeout: Duration::from_secs(10),
                max_message: 8 << 20,
                handshake_timeout: Duration::from_secs(10),
                uploading_deadline: Some(Duration::from_secs(86_400)),
                message_rate: crate::link::MESSAGE_RATE,
                busy_patience: Duration::from_secs(60),
                link_grace: Duration::from_secs(30),
                settle: Duration::from_secs(5),
            },
            stream: Stream { events: 65_536, bytes: 32 << 20 },
            sync: Sync {
                part_size: 8 << 20,
                parts_in_flight: 3,
                uploads: 2,
                attempts: 5,
                retry_base: Duration::from_secs(30),
                retry_cap: Duration::from_secs(1800),
                retry_jitter: Duration::from_secs(30),
                auto_scan: false,
                scan_every: Duration::from_secs(60),
                batch: 100,
                bytes_per_second: None,
            },
            edge: Edge {
                keep: Some(Duration::ZERO),
                keys: None,
                max_clock_skew: None,
                reserve: 512 << 20,
                abandoned_after: Some(Duration::from_secs(7 * 86_400)),
            },
            qa: Quality { auto_approve: false },
            policies: Policies::default(),
            surroundings: Surroundings::default(),
            cloud: None,
            log: Log { format: LogFormat::Text, level: "info".to_owned() },
            journal: Journal { limit: crate::store::JOURNAL_LIMIT },
            limits: Limits { files: None },
            shutdown: Shutdown { drain: Duration::from_secs(5) },
            new_admin_token: false,
            warnings: Vec::new(),
            sources: BTreeMap::new(),
        }
    }
}

fn label_rule((devices, labels): &(String, Vec<(String, String)>)) -> LabelRule {
    LabelRule { devices: devices.clone(), labels: labels.clone() }
}

impl Config {
    /// What the core is told.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn knobs(&self) -> Result<Knobs, BadKnob> {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Knobs {
            site: self.site.clone(),
            public_url: self.public_url.clone(),
            destination: self.cloud.is_some(),
            rpc_timeout_ms: ms(self.devices.rpc_timeout),
            uploading_deadline_ms: self.devices.uploading_deadline.map(ms),
            bound_keep_ms: ms(self.auth.bound_keep),
            callback_tokens: self.callback_tokens(),
            contest_pause_ms: ms(self.devices.contest_pause),
            grace_ms: ms(self.devices.link_grace),
            settle_ms: ms(self.devices.settle),
            part_size: self.sync.part_size,
            parts_in_flight: self.sync.parts_in_flight,
            keep_edge_ms: self.edge.keep.map(ms),
            scan_every_ms: ms(self.sync.scan_every),
            batch: self.sync.batch,
            auto_approve: self.qa.auto_approve,
            reserve: self.edge.reserve,
            default_module: Some(crate::policies::default_module()),
            native: self.policies.native,
            policy_faults: self.policies.faults,
            policy_window_ms: ms(self.policies.fault_window),
            probation_ms: ms(self.policies.probation),
            patience_ms: ms(self.policies.patience),
            labels: self.policies.labels.iter().map(label_rule).collect(),
            builtin: Settings {
                auto_scan: self.sync.auto_scan,
                retry_base_ms: ms(self.sync.retry_base),
                retry_cap_ms: ms(self.sync.retry_cap),
                retry_jitter_ms: ms(self.sync.retry_jitter),
                attempts: self.sync.attempts,
                uploads: self.sync.uploads,
                bytes_per_second: self.sync.bytes_per_second,
            },
            ..Knobs::default()
        }
        .try_new()
    }

    /// Name of the bucket that devices upload to.
    #[must_use]
    pub fn edge_bucket(&self) -> String {
        format!("edge-{}", self.site)
    }
}

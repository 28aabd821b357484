//! Owns what one device is told before it starts. It holds no state and does no I/O.

use std::path::PathBuf;
use std::time::Duration;

/// Everything one recorder and its uploader need to know.
#[derive(Clone)]
pub struct DeviceConfig {
    /// The id in the uploader's path, in its `connected` frame and in object keys.
    pub device_id: String,
    /// `ws://host:port/path` of the recorder link, dialled as it is: the device id is not appended.
    pub recorder_url: String,
    /// `ws://host:port/path` of the transfer link; `/` and the device id are appended.
    pub transfer_url: String,
    /// Sent as `Authorization: Bearer` on the recorder link only, when not empty. Never shown.
    pub recorder_token: Option<String>,
    /// Recordings, sidecars and completion markers, all at its top level.
    pub data_dir: PathBuf,
    /// The uploader's rows and the recordings it gave up on. Never scanned for recordings.
    pub state_dir: PathBuf,
    /// Where recordings are uploaded to.
    pub s3: S3Config,
    /// Feeds all chance of this device: payloads, masks, jitter.
    pub seed: u64,
    /// What a recording contains and how fast it grows.
    pub record: RecordPlan,
    /// How a lost link is dialled again.
    pub reconnect: Reconnect,
    /// Pings of both links.
    pub keepalive: Keepalive,
    /// Limits and habits of the uploader.
    pub upload: UploadPlan,
    /// How long connecting a socket may take before it counts as refused (a kernel gives up after about 127 s).
    pub connect_timeout: Duration,
    /// How long the HTTP answer to a dial may take. `None` is what real devices do: they wait for ever.
    pub handshake_timeout: Option<Duration>,
    /// Percentage of frames over 4096 bytes whose tail leaves as garbage, as stock uploaders do; 0 is off.
    pub garbled_frames_percent: u8,
}

/// Address and credentials of an object store.
#[derive(Clone)]
pub struct S3Config {
    /// Host name or address, without a scheme.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Access key id.
    pub access_key: String,
    /// Secret key; never shown.
    pub secret_key: String,
    /// Bucket, addressed path-style.
    pub bucket: String,
    /// Region used for signing.
    pub region: String,
    /// First element of every object key.
    pub factory_id: String,
    /// How long one request may make no progress before it counts as failed.
    pub request_timeout: Duration,
}

/// The content of a recording and the pace at which it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// Payload bytes a recording has when it is finished, however early `finish` comes.
    pub target_bytes: u64,
    /// Payload bytes of one image message; each comes with one small JSON sensor message.
    pub image_bytes: usize,
    /// Image messages written at once.
    pub step_messages: u32,
    /// Pause between two steps.
    pub step_every: Duration,
    /// Time between two messages as the file says it, not as it passes.
    pub message_interval: Duration,
    /// Whether a sidecar is written; without one, uploads are `mcap_only`.
    pub sidecar: bool,
}

/// Delay before dial `n` after a loss: `min(initial * multiplier^n, max)`, give or take `jitter`, at least 100 ms.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconnect {
    /// First delay.
    pub initial: Duration,
    /// Growth per failed dial; a completed handshake resets it.
    pub multiplier: f64,
    /// Longest delay before jitter.
    pub max: Duration,
    /// Fraction by which a delay may be shorter or longer.
    pub jitter: f64,
}

/// When pings are sent and how long their answer may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// From the handshake, and from each pong, to the next ping.
    pub ping_interval: Duration,
    /// From a ping to its pong; zero never gives up.
    pub ping_timeout: Duration,
    /// How long a device stays in its blocking close after a missing pong, unless the peer ends the stream first.
    /// Real devices stay until the path heals or TCP errors; zero leaves at once.
    pub silence_linger: Duration,
}

/// Limits and habits of the uploader.
#[derive(Clone, Debug, PartialEq)]
pub struct UploadPlan {
    /// Files larger than this go up in parts of this size; never less than 5 MiB.
    pub part_size: u64,
    /// Parts in flight per file.
    pub parallel_parts: usize,
    /// Recordings in flight.
    pub parallel_uploads: usize,
    /// Attempts in all before an upload is given up.
    pub max_attempts: u32,
    /// First delay between attempts; it doubles each time, give or take half.
    pub retry_initial: Duration,
    /// Whether an acknowledgement deletes the local files.
    pub delete_after_upload: bool,
}

impl DeviceConfig {
    /// A device with the settings real ones ship with, a 6 MiB recording per task and no token.
    #[must_use]
    pub fn new(
        device_id: impl Into<String>,
        recorder_url: impl Into<String>,
        transfer_url: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        s3: S3Config,
    ) -> Self {
        let data_dir = data_dir.into();
        Self {
            device_id: device_id.into(),
            recorder_url: recorder_url.into(),
            transfer_url: transfer_url.into(),
            recorder_token: None,
            state_dir: data_dir.join("transfer"),
            data_dir,
            s3,
            seed: 1,
            record: RecordPlan::default(),
            reconnect: Reconnect::default(),
            keepalive: Keepalive::default(),
            upload: UploadPlan::default(),
            connect_timeout: Duration::from_secs(127),
            handshake_timeout: None,
            garbled_frames_percent: 0,
        }
    }
}

impl Default for RecordPlan {
    fn default() -> Self {
        Self {
            target_bytes: 6 << 20,
            image_bytes: 64 << 10,
            step_messages: 8,
            step_every: Duration::from_millis(100),
            message_interval: Duration::from_millis(33),
            sidecar: true,
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), multiplier: 2.0, max: Duration::from_secs(60), jitter: 0.2 }
    }
}

impl Reconnect {
    /// The delay after `failures` dials that failed in a row.
    pub(crate) fn delay(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let exponent = i32::try_from(failures.min(64)).unwrap_or(64);
        let base = (self.initial.as_secs_f64() * self.multiplier.powi(exponent)).min(self.max.as_secs_f64());
        let spread = 1.0 + self.jitter * (rng.f64() * 2.0 - 1.0);
        Duration::from_secs_f64((base * spread).max(0.1))
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            silence_linger: Duration::ZERO,
        }
    }
}

impl Default for UploadPlan {
    fn default() -> Self {
        Self {
            part_size: PART_SIZE_MIN,
            parallel_parts: 4,
            parallel_uploads: 2,
            max_attempts: 5,
            retry_initial: Duration::from_secs(2),
            delete_after_upload: true,
        }
    }
}

impl std::fmt::Debug for DeviceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceConfig")
            .field("device_id", &self.device_id)
            .field("recorder_url", &self.recorder_url)
            .field("transfer_url", &self.transfer_url)
            .field("data_dir", &self.data_dir)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Config")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("factory_id", &self.factory_id)
            .finish_non_exhaustive()
    }
}

/// The smallest part an object store accepts, except for the last one.
pub const PART_SIZE_MIN: u64 = 5 << 20;

//! Owns one MCAP file while it grows, then its sidecar and marker. All of it blocks: callers are where blocking
//! is allowed. Nothing is written outside the calls made here, so a killed recording leaves what it had on disk.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mcap::records::{MessageHeader, Metadata};
use mcap::{McapError, WriteOptions, Writer};
use serde_json::{Value, json};
use tidegate_runtime::seam::{Disk, DiskFile, Open};

use crate::config::RecordPlan;
use crate::s3::hash;
use crate::task::TaskConfig;

/// Bytes and messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub payload_bytes: u64,
    pub sensor_messages: u64,
    pub image_messages: u64,
}

impl Progress {
    pub(crate) fn messages(&self) -> u64 {
        self.sensor_messages + self.image_messages
    }
}

/// A file that is being recorded.
pub(crate) struct Recording<D: Disk> {
    disk: D,
    path: PathBuf,
    writer: Writer<BufWriter<Sink<D::File>>>,
    /// See [`Sink::armed`].
    armed: Arc<AtomicBool>,
    sensor: u16,
    image: u16,
    plan: RecordPlan,
    rng: fastrand::Rng,
    started_ms: i64,
    progress: Progress,
    payload: Vec<u8>,
}

/// A recording that is complete on disk.
#[derive(Clone, Debug)]
pub(crate) struct Closed {
    pub mcap: PathBuf,
    pub sidecar: Option<PathBuf>,
    pub marker: PathBuf,
    pub file_bytes: u64,
    pub sha256: String,
    pub finished_ms: i64,
    pub progress: Progress,
}

impl<D: Disk> Recording<D> {
    /// Creates `<dir>/<task_id>.mcap`, truncating what was there.
    pub(crate) fn create(
        disk: D,
        dir: &Path,
        task: &TaskConfig,
        plan: RecordPlan,
        rng: fastrand::Rng,
        started_ms: i64,
    ) -> io::Result<Self> {
        disk.create_dir_all(dir)?;
        let path = dir.join(format!("{}.mcap", task.task_id));
        let file = disk.open(&path, Open::Create)?;
        let armed = Arc::new(AtomicBool::new(true));
        let sink = Sink { file, at: 0, armed: Arc::clone(&armed) };
        let options = WriteOptions::new();
        let options = options.library("tidegate-device").compression(None).chunk_size(Some(CHUNK_BYTES));
        let buffered = BufWriter::with_capacity(BUFFER_BYTES, sink);
        let mut writer = options.create(buffered).map_err(unwrapped)?;
        let schema =
            writer.add_schema("sensor", "jsonschema", SENSOR_SCHEMA.as_bytes()).map_err(unwrapped)?;
        let none = BTreeMap::new();
        let sensor = writer.add_channel(schema, SENSOR_TOPIC, "json", &none).map_err(unwrapped)?;
        let image = writer.add_channel(0, IMAGE_TOPIC, "raw", &none).map_err(unwrapped)?;
        armed.store(false, Ordering::Relaxed);
        let progress = Progress::default();
        Ok(Self {
            disk,
            path,
            writer,
            armed,
            sensor,
            image,
            plan,
            rng,
            started_ms,
            progress,
            payload: Vec::new(),
        })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    pub(crate) fn is_full(&self) -> bool {
        self.progress.payload_bytes >= self.plan.target_bytes
    }

    /// Writes one step of the plan, or less if the target is reached.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        self.armed.store(true, Ordering::Relaxed);
        let outcome = self.write_step();
        self.armed.store(false, Ordering::Relaxed);
        outcome
    }

    fn write_step(&mut self) -> io::Result<()> {
        for _ in 0..self.plan.step_messages.max(1) {
            if self.is_full() {
                break;
            }
            let n = self.progress.image_messages;
            let reading = json!({"sequence": n, "acceleration": [self.rng.f64(), self.rng.f64(), 9.81]});
            self.write(self.sensor, n, reading.to_string().as_bytes())?;
            self.progress.sensor_messages += 1;

            let left = self.plan.target_bytes.saturating_sub(self.progress.payload_bytes);
            let len = left.min(self.plan.image_bytes as u64) as usize;
            let mut payload = std::mem::take(&mut self.payload);
            payload.resize(len, 0);
            self.rng.fill(&mut payload);
            self.write(self.image, n, &payload)?;
            self.payload = payload;
            self.progress.image_messages += 1;
        }
        Ok(())
    }

    fn write(&mut self, channel_id: u16, n: u64, bytes: &[u8]) -> io::Result<()> {
        let interval = u64::try_from(self.plan.message_interval.as_nanos()).unwrap_or(u64::MAX);
        let started = u64::try_from(self.started_ms).unwrap_or(0).saturating_mul(1_000_000);
        let time = started.saturating_add(n.saturating_mul(interval));
        let sequence = u32::try_from(n).unwrap_or(u32::MAX);
        let header = MessageHeader { channel_id, sequence, log_time: time, publish_time: time };
        self.writer.write_to_known_channel(&header, bytes).map_err(unwrapped)?;
        self.progress.payload_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Closes the file (the caller has stepped until it is full), then writes sidecar and marker.
    pub(crate) fn finish(
        mut self,
        device_id: &str,
        task: &TaskConfig,
        finished_ms: i64,
    ) -> io::Result<Closed> {
        self.armed.store(true, Ordering::Relaxed);
        let records = [
            ("axon.task", json!({"task_id": task.task_id, "scene": task.scene, "factory": task.factory})),
            ("axon.device", json!({"device_id": device_id})),
            ("axon.recording", json!({"message_count": self.progress.messages().to_string()})),
            ("axon.topics", json!({"topics": TOPICS.join(",")})),
            ("axon.sidecar", json!({"enabled": self.plan.sidecar.to_string()})),
        ];
        for (name, fields) in records {
            let metadata = fields.as_object().into_iter().flatten();
            let metadata =
                metadata.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()));
            let record = Metadata { name: name.to_owned(), metadata: metadata.collect() };
            self.writer.write_metadata(&record).map_err(unwrapped)?;
        }
        self.writer.finish().map_err(unwrapped)?;
        let sink = self.writer.into_inner().into_inner().map_err(io::IntoInnerError::into_error)?;
        sink.file.sync()?;
        let file_bytes = sink.file.len()?;
        let sha256 = hash(&sink.file, 0, file_bytes)?;

        let sidecar = self.path.with_extension("json");
        let facts = Facts {
            device_id,
            task,
            started_ms: self.started_ms,
            finished_ms,
            file_bytes,
            sha256: &sha256,
            progress: self.progress,
        };
        let sidecar = if self.plan.sidecar {
            let text = serde_json::to_vec_pretty(&facts.sidecar()).map_err(io::Error::other)?;
            write_file(&self.disk, &sidecar, &text)?;
            Some(sidecar)
        } else {
            None
        };
        let marker = marker_of(&self.path);
        write_file(&self.disk, &marker, b"done\n")?;
        Ok(Closed {
            mcap: self.path,
            sidecar,
            marker,
            file_bytes,
            sha256,
            finished_ms,
            progress: self.progress,
        })
    }

    /// Deletes what was written; gives the names that were deleted.
    pub(crate) fn cancel(self) -> Vec<PathBuf> {
        let Self { disk, path, .. } = self;
        let names = [path.clone(), path.with_extension("json"), marker_of(&path)];
        names.into_iter().filter(|name| disk.remove_file(name).is_ok()).collect()
    }
}

/// `<task_id>.mcap.done`.
pub(crate) fn marker_of(mcap: &Path) -> PathBuf {
    let mut name = mcap.as_os_str().to_owned();
    name.push(".done");
    PathBuf::from(name)
}

/// Replaces a file so that a reader sees the old one or all of the new one.
pub(crate) fn write_file(disk: &impl Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let file = disk.open(&beside, Open::Create)?;
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    drop(file);
    disk.rename(&beside, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// What a sidecar tells.
struct Facts<'a> {
    device_id: &'a str,
    task: &'a TaskConfig,
    started_ms: i64,
    finished_ms: i64,
    file_bytes: u64,
    sha256: &'a str,
    progress: Progress,
}

impl Facts<'_> {
    fn sidecar(&self) -> Value {
        let seconds = (self.finished_ms - self.started_ms).max(0) as f64 / 1000.0;
        let counts = [self.progress.sensor_messages, self.progress.image_messages];
        let kinds = ["sensor_msgs/msg/Imu", "sensor_msgs/msg/Image"];
        let summary = (0..TOPICS.len()).map(|at| {
            let frequency = if seconds > 0.0 { counts[at] as f64 / seconds } else { 0.0 };
            json!({
                "topic": TOPICS[at],
                "message_type": kinds[at],
                "message_count": counts[at],
                "frequency_hz": frequency,
            })
        });
        json!({
            "version": "1.0",
            "mcap_file": format!("{}.mcap", self.task.task_id),
            "device": {"device_id": self.device_id, "hostname": self.device_id, "ros_distro": "humble"},
            "task": {
                "task_id": self.task.task_id,
                "scene": self.task.scene,
                "subscene": self.task.subscene,
                "skills": self.task.skills,
                "factory": self.task.factory,
                "order_id": self.task.order_id,
                "operator_name": self.task.operator_name,
                "data_collector_id": self.task.data_collector_id,
            },
            "recording": {
                "checksum_sha256": self.sha256,
                // Wall time, pauses included; the callback leaves them out.
                "duration_sec": seconds,
                "file_size_bytes": self.file_bytes,
                "message_count": self.progress.messages(),
                "recorder_version": RECORDER_VERSION,
                "recording_started_at": self.started_ms,
                "recording_finished_at": self.finished_ms,
                "topics_recorded": TOPICS,
            },
            "topics_summary": summary.collect::<Vec<_>>(),
        })
    }
}

/// A file as the MCAP writer wants it.
#[derive(Debug)]
struct Sink<F> {
    file: F,
    at: u64,
    /// Whether a call of [`Recording`] is running. The MCAP writer completes its file when it is dropped; a
    /// killed program would not.
    armed: Arc<AtomicBool>,
}

impl<F: DiskFile> Write for Sink<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if !self.armed.load(Ordering::Relaxed) {
            return Err(io::Error::other("the recording was dropped"));
        }
        self.file.write_all_at(buf, self.at)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: DiskFile> Seek for Sink<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.len()?.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

fn unwrapped(error: McapError) -> io::Error {
    match error {
        McapError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// The topic of the small JSON messages.
pub const SENSOR_TOPIC: &str = "/imu/data";
/// The topic of the large binary messages.
pub const IMAGE_TOPIC: &str = "/camera0/rgb";
/// What is recorded, whatever a task's configuration lists.
pub(crate) const TOPICS: [&str; 2] = [SENSOR_TOPIC, IMAGE_TOPIC];
/// The version real recorders of this protocol report.
pub(crate) const RECORDER_VERSION: &str = "0.4.0";
/// A chunk is patched at its start when it ends; small ones keep a killed recording's loss small.
const CHUNK_BYTES: u64 = 1 << 20;
/// Joins the many small writes of records.
const BUFFER_BYTES: usize = 64 << 10;
const SENSOR_SCHEMA: &str = r#"{"type":"object","properties":{"sequence":{"type":"integer"},"acceleration":{"type":"array","items":{"type":"number"}}}}"#;

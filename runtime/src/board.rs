//! Owns what viewers were told last: one [`Notice`] per subject, in memory, for reads over HTTP and for metrics.
//! Decides nothing and is never durable: after a restart it fills again from what happens.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::effect::{ConflictView, ContestView, LinkView, Notice, QueueCounts, RecorderView};
use tidegate_core::id::{DeviceId, EpisodeId, JobId, Role};
use tidegate_core::knobs::Room;
use tidegate_core::limits::{LINKS_MAX, UPLOADS_MAX};
use tidegate_core::policy::PolicyView;
use tidegate_core::time::Wall;
use tidegate_core::wire::transfer::Status;

use crate::ingest::Gate;

/// Devices remembered: every linked one, and as many that left. The one that left longest ago goes first.
pub const DEVICES_MAX: usize = 2 * LINKS_MAX;
/// Uploads remembered. More than can run at once means that an end was missed; the oldest number goes first.
const PROGRESS_MAX: usize = 4 * UPLOADS_MAX as usize;

/// What viewers were told last. Cheap to clone; all clones are one board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Inner>>);

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSeen {
    /// The link.
    pub link: LinkView,
    /// When something was last heard on it.
    pub last_seen: Wall,
}

/// A link that is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLeft {
    /// Where it came from.
    pub remote: String,
    /// When it went.
    pub at: Wall,
}

/// An uploader's last status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSeen {
    /// What it said.
    pub status: Status,
    /// When.
    pub at: Wall,
}

impl TransferSeen {
    /// The same without the list of uploads, which may be long.
    #[must_use]
    pub fn without_uploads(&self) -> TransferSeen {
        let said = &self.status;
        let status = Status {
            connected: said.connected,
            version: said.version.clone(),
            pending: said.pending,
            active: said.active,
            uploading: said.uploading,
            retry_wait: said.retry_wait,
            waiting_ack: said.waiting_ack,
            completed: said.completed,
            failed: said.failed,
            pending_bytes: said.pending_bytes,
            bytes_per_sec: said.bytes_per_sec,
            waiting_ack_tasks: said.waiting_ack_tasks.clone(),
            uploads: None,
            left_out: None,
        };
        TransferSeen { status, at: self.at }
    }
}

/// What is known of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceSeen {
    /// Its recorder's link, while it is up.
    pub recorder_link: Option<LinkSeen>,
    /// Its recorder's last link, while none is up.
    pub recorder_left: Option<LinkLeft>,
    /// Its uploader's link, while it is up.
    pub transfer_link: Option<LinkSeen>,
    /// Who fights over its recorder's link, if anybody does.
    pub recorder_contest: Option<ContestView>,
    /// Who fights over its uploader's link, if anybody does.
    pub transfer_contest: Option<ContestView>,
    /// Its recorder's state, as last told.
    pub recorder: Option<RecorderView>,
    /// What its recorder holds against its records.
    pub conflict: Option<ConflictView>,
    /// Its uploader's status, as told on the link that is up.
    pub transfer: Option<TransferSeen>,
    /// The number of the last change that viewers were told of; 0 is none.
    pub version: u64,
    touched: u64,
}

impl DeviceSeen {
    /// The link of one of its programs, while it is up.
    #[must_use]
    pub fn link(&self, role: Role) -> Option<&LinkSeen> {
        match role {
            Role::Recorder => self.recorder_link.as_ref(),
            Role::Transfer => self.transfer_link.as_ref(),
        }
    }

    fn link_mut(&mut self, role: Role) -> &mut Option<LinkSeen> {
        match role {
            Role::Recorder => &mut self.recorder_link,
            Role::Transfer => &mut self.transfer_link,
        }
    }

    /// Who fights over the link of one of its programs.
    #[must_use]
    pub fn contest(&self, role: Role) -> Option<&ContestView> {
        match role {
            Role::Recorder => self.recorder_contest.as_ref(),
            Role::Transfer => self.transfer_contest.as_ref(),
        }
    }

    fn is_linked(&self) -> bool {
        self.recorder_link.is_some() || self.transfer_link.is_some()
    }
}

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressSeen {
    /// The job that uploads.
    pub job: JobId,
    /// Acknowledged bytes of the recording.
    pub uploaded: u64,
    /// All its bytes.
    pub total: u64,
    /// When the last part was acknowledged.
    pub at: Wall,
}

/// How the way to the cloud is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationSeen {
    /// Failures in a row; 0 is fine.
    pub streak: u32,
    /// The last one's word.
    pub fault: Option<&'static str>,
    /// When the next try is.
    pub next_try: Option<Wall>,
}

/// The disk under the data directory, as it was last measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free bytes.
    pub free: u64,
    /// What they allow.
    pub room: Room,
}

/// Counts for metrics, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Links that are up: recorders.
    pub recorders: u64,
    /// Links that are up: uploaders.
    pub transfers: u64,
    /// Recorders whose link is up, by how far their state is believed.
    pub confidence: BTreeMap<&'static str, u64>,
    /// Links that took the place of older ones, by role.
    pub takeovers: BTreeMap<&'static str, u64>,
    /// Links that programs fight over: recorders, and uploaders.
    pub contests: [u64; 2],
    /// Messages of devices that were refused, by word.
    pub refused: BTreeMap<&'static str, u64>,
    /// Commands whose end nobody knows, by action.
    pub unknown: BTreeMap<&'static str, u64>,
    /// Devices that hold something against their records, by kind.
    pub conflicts: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct Inner {
    devices: BTreeMap<DeviceId, DeviceSeen>,
    progress: BTreeMap<EpisodeId, ProgressSeen>,
    destination: DestinationSeen,
    queue: QueueCounts,
    policies: Option<Box<PolicyView>>,
    gate: Gate,
    space: Option<Space>,
    refused: BTreeMap<&'static str, u64>,
    unknown: BTreeMap<&'static str, u64>,
    takeovers: BTreeMap<&'static str, u64>,
    touches: u64,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new() -> Board {
        Board::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every write below leaves the maps whole, so a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a notice. `now` is when it was published.
    pub fn apply(&self, now: Wall, notice: &Notice) {
        let mut inner = self.inner();
        match notice {
            Notice::Recorder(view) => {
                let seen = inner.device(&view.device);
                seen.recorder = Some(view.clone());
                seen.version = view.version;
            }
            Notice::Link { device, role, link, version, .. } => {
                let seen = inner.device(device);
                seen.version = *version;
                let last_seen = now.max(link.as_ref().map_or(now, |link| link.connected_at));
                let link = link.clone().map(|link| LinkSeen { link, last_seen });
                let before = std::mem::replace(seen.link_mut(*role), link);
                match role {
                    Role::Recorder if seen.recorder_link.is_some() => seen.recorder_left = None,
                    Role::Recorder => {
                        let left = before.map(|before| LinkLeft { remote: before.link.remote, at: now });
                        seen.recorder_left = left.or(seen.recorder_left.take());
                    }
                    Role::Transfer => seen.transfer = None,
                }
            }
            Notice::Takeover { role, .. } => *inner.takeovers.entry(role.name()).or_default() += 1,
            Notice::Contest { device, role, contest } => {
                let seen = inner.device(device);
                match role {
                    Role::Recorder => seen.recorder_contest = contest.clone(),
                    Role::Transfer => seen.transfer_contest = contest.clone(),
                }
            }
            Notice::Transfer { device, status, version } => {
                let seen = inner.device(device);
                seen.transfer = Some(TransferSeen { status: status.clone(), at: now });
                seen.version = *version;
            }
            Notice::Conflict { device, conflict } => inner.device(device).conflict.clone_from(conflict),
            Notice::Progress { episode, job, uploaded, total, at } => {
                let seen = ProgressSeen { job: *job, uploaded: *uploaded, total: *total, at: *at };
                inner.progress.insert(*episode, seen);
                if inner.progress.len() > PROGRESS_MAX {
                    inner.progress.pop_first();
                }
            }
            Notice::ProgressEnded { episode } => {
                inner.progress.remove(episode);
            }
            Notice::Destination { streak, fault, next_try } => {
                inner.destination = DestinationSeen { streak: *streak, fault: *fault, next_try: *next_try };
            }
            Notice::Queue(counts) => inner.queue = *counts,
            // For the log alone: it is about no device and no upload that runs.
            Notice::Policy { news: _, view } => inner.policies = Some(view.clone()),
            // For the log and for viewers of changes alone: rows are read from the store.
            Notice::StrayUnseen { .. }
            | Notice::Timeout { .. }
            | Notice::Task { .. }
            | Notice::Recording { .. }
            | Notice::Overdue { .. } => {}
            Notice::Refused { code, .. } => *inner.refused.entry(code).or_default() += 1,
            Notice::OperationUnknown { device, action, version, .. } => {
                inner.device(device).version = *version;
                *inner.unknown.entry(action.name()).or_default() += 1;
            }
        }
    }

    /// Modules and the set of policies; `None` before the boot told of them.
    #[must_use]
    pub fn policies(&self) -> Option<Box<PolicyView>> {
        self.inner().policies.clone()
    }

    /// Notes whether devices may upload.
    pub fn gate(&self, gate: Gate) {
        self.inner().gate = gate;
    }

    /// Notes the free space.
    pub fn space(&self, space: Space) {
        self.inner().space = Some(space);
    }

    /// Whether devices may upload, and the free space; `None` where it cannot be known.
    #[must_use]
    pub fn storage(&self) -> (Gate, Option<Space>) {
        let inner = self.inner();
        (inner.gate.clone(), inner.space)
    }

    /// Notes a sign of life of a link. Nothing happens if the link is not up, so strangers leave no trace.
    pub fn seen(&self, device: &DeviceId, role: Role, at: Wall) {
        let mut inner = self.inner();
        if let Some(link) = inner.devices.get_mut(device).and_then(|seen| seen.link_mut(role).as_mut()) {
            link.last_seen = link.last_seen.max(at);
        }
    }

    /// What is known of a device; `None` if nothing.
    #[must_use]
    pub fn device(&self, device: &DeviceId) -> Option<DeviceSeen> {
        self.inner().devices.get(device).cloned()
    }

    /// Every device with a link of this role, in order of id.
    #[must_use]
    pub fn linked(&self, role: Role) -> Vec<(DeviceId, DeviceSeen)> {
        let inner = self.inner();
        let linked = inner.devices.iter().filter(|(_, seen)| seen.link(role).is_some());
        linked.map(|(id, seen)| (id.clone(), seen.clone())).collect()
    }

    /// Whether a device's recorder and its uploader are linked.
    #[must_use]
    pub fn links_of(&self, device: &DeviceId) -> (bool, bool) {
        let inner = self.inner();
        inner
            .devices
            .get(device)
            .map_or((false, false), |seen| (seen.recorder_link.is_some(), seen.transfer_link.is_some()))
    }

    /// The devices after one, in order of id, without their lists of uploads: those that are wanted among the next
    /// `most`, and the last one looked at. `None` in its place is the end.
    #[must_use]
    pub fn after(
        &self,
        after: Option<&DeviceId>,
        most: usize,
        wanted: impl Fn(&DeviceId) -> bool,
    ) -> (Vec<(DeviceId, DeviceSeen)>, Option<DeviceId>) {
        let inner = self.inner();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut found, mut last) = (Vec::new(), None);
        for (id, seen) in inner.devices.range((from, Bound::Unbounded)).take(most) {
            last = Some(id);
            if wanted(id) {
                let seen = DeviceSeen {
                    recorder_link: seen.recorder_link.clone(),
                    recorder_left: seen.recorder_left.clone(),
                    transfer_link: seen.transfer_link.clone(),
                    recorder: seen.recorder.clone(),
                    conflict: seen.conflict.clone(),
                    transfer: seen.transfer.as_ref().map(TransferSeen::without_uploads),
                    recorder_contest: seen.recorder_contest.clone(),
                    transfer_contest: seen.transfer_contest.clone(),
                    version: seen.version,
                    touched: seen.touched,
                };
                found.push((id.clone(), seen));
            }
        }
        (found, last.cloned())
    }

    /// Every device that holds something against its records, and what, in order of id.
    #[must_use]
    pub fn conflicts(&self) -> Vec<(DeviceId, ConflictView)> {
        let inner = self.inner();
        let all = inner.devices.iter();
        all.filter_map(|(id, seen)| Some((id.clone(), seen.conflict.clone()?))).collect()
    }

    /// Every device whose links programs fight over, and what is known of it, in order of id.
    #[must_use]
    pub fn contested(&self) -> Vec<(DeviceId, DeviceSeen)> {
        let inner = self.inner();
        let fights = |seen: &DeviceSeen| seen.recorder_contest.is_some() || seen.transfer_contest.is_some();
        let all = inner.devices.iter().filter(|(_, seen)| fights(seen));
        all.map(|(id, seen)| (id.clone(), seen.clone())).collect()
    }

    /// How far the upload of an episode is; `None` if none runs.
    #[must_use]
    pub fn progress(&self, episode: EpisodeId) -> Option<ProgressSeen> {
        self.inner().progress.get(&episode).copied()
    }

    /// Every upload that runs, and how far it is, in order of episode.
    #[must_use]
    pub fn uploads(&self) -> Vec<(EpisodeId, ProgressSeen)> {
        self.inner().progress.iter().map(|(episode, seen)| (*episode, *seen)).collect()
    }

    /// How the way to the cloud is.
    #[must_use]
    pub fn destination(&self) -> DestinationSeen {
        self.inner().destination
    }

    /// How many jobs are where.
    #[must_use]
    pub fn queue(&self) -> QueueCounts {
        self.inner().queue
    }

    /// Counts for metrics.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let inner = self.inner();
        let count =
            |is: &dyn Fn(&DeviceSeen) -> bool| inner.devices.values().filter(|seen| is(seen)).count() as u64;
        let links = |role| count(&|seen| seen.link(role).is_some());
        let contests = |role| count(&|seen| seen.contest(role).is_some());
        let mut confidence = BTreeMap::new();
        for seen in inner.devices.values().filter(|seen| seen.recorder_link.is_some()) {
            let word = seen.recorder.as_ref().map_or("unknown", |view| view.confidence);
            *confidence.entry(word).or_default() += 1;
        }
        Counted {
            confidence,
            recorders: links(Role::Recorder),
            transfers: links(Role::Transfer),
            takeovers: inner.takeovers.clone(),
            contests: [contests(Role::Recorder), contests(Role::Transfer)],
            refused: inner.refused.clone(),
            unknown: inner.unknown.clone(),
            conflicts: {
                let mut counts = BTreeMap::new();
                for view in inner.devices.values().filter_map(|seen| seen.conflict.as_ref()) {
                    *counts.entry(view.kind.name()).or_default() += 1;
                }
                counts
            },
        }
    }
}

impl Inner {
    fn device(&mut self, device: &DeviceId) -> &mut DeviceSeen {
        if !self.devices.contains_key(device) && self.devices.len() >= DEVICES_MAX {
            self.forget_oldest();
        }
        self.touches += 1;
        let seen = self.devices.entry(device.clone()).or_default();
        seen.touched = self.touches;
        seen
    }

    fn forget_oldest(&mut self) {
        let gone = self.devices.iter().filter(|(_, seen)| !seen.is_linked());
        let oldest = gone.min_by_key(|(_, seen)| seen.touched).map(|(id, _)| id.clone());
        // At most LINKS_MAX of each role are linked, so a full board of linked devices has no room for strangers:
        // the core turns them away before anything is published of them.
        if let Some(oldest) = oldest {
            self.devices.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;

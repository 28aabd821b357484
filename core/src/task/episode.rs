//! Episodes: judging them, handing them to the queue on demand, and what the queue made of them. Must not decide when an
//! upload runs.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::{Tasks, date};
use crate::change::{Change, EpisodeChange};
use crate::cx::Cx;
use crate::effect::Response;
use crate::fact::{Fact, JobEnd, Wanted};
use crate::id::{EpisodeId, JobId, ObjectKey, RequestId};
use crate::limits;
use crate::refusal::{Illegal, Refusal};
use crate::row::{BindingRow, EpisodeRow, Key, Qa, Source, SyncMark, shorten};

/// Whether a change of an episode is legal while it is marked so.
fn is_legal(row: &EpisodeRow, change: &EpisodeChange) -> bool {
    let at_rest = matches!(row.sync, SyncMark::NotStarted | SyncMark::Failed(_));
    let queued = |job: &JobId| row.sync == SyncMark::Queued(*job);
    match change {
        EpisodeChange::Bound { .. } | EpisodeChange::Recorded(_) => false,
        EpisodeChange::Judged { .. } => at_rest,
        EpisodeChange::Queued { .. } => at_rest && row.qa.is_approved(),
        EpisodeChange::Synced { job, .. } | EpisodeChange::SyncFailed { job, .. } => queued(job),
        EpisodeChange::Removed { .. } => {
            matches!(row.sync, SyncMark::Synced { .. }) && row.removed_at.is_none()
        }
        EpisodeChange::Inspected { .. } => row.inspection.is_none() && row.removed_at.is_none(),
    }
}

impl Tasks {
    /// Takes a change into memory; returns the records touched.
    pub fn apply_episode(&mut self, change: &EpisodeChange) -> Result<Vec<Key>, Illegal> {
        let touched = match change {
            EpisodeChange::Bound { key, task, wire, len, sha256 } => {
                let row =
                    BindingRow { len: *len, sha256: *sha256, ..BindingRow::new(task.clone(), wire.clone()) };
                let old = self.bindings.get(key);
                if old.is_some_and(|old| !old.is_of(task, wire) || old.episode.is_some() || *old == row) {
                    return Err(self.illegal(change));
                }
                self.bindings.insert(key.clone(), row);
                vec![Key::Binding(key.clone())]
            }
            EpisodeChange::Recorded(row) => {
                let free = |b: &BindingRow| b.is_of(&row.task, &row.wire) && b.episode.is_none();
                let numbered = row.id.0 >= self.next_episode && !self.episodes.contains_key(&row.id);
                let Some(binding) = self.bindings.get_mut(&row.key).filter(|b| free(b) && numbered) else {
                    return Err(self.illegal(change));
                };
                // From now on the episode says what is there.
                (binding.episode, binding.len, binding.sha256) = (Some(row.id), None, None);
                self.next_episode = row.id.0 + 1;
                self.episodes.insert(row.id, (**row).clone());
                vec![Key::Meta, Key::Episode(row.id), Key::Binding(row.key.clone())]
            }
            EpisodeChange::Judged { episode, .. }
            | EpisodeChange::Queued { episode, .. }
            | EpisodeChange::Synced { episode, .. }
            | EpisodeChange::SyncFailed { episode, .. }
            | EpisodeChange::Removed { episode, .. }
            | EpisodeChange::Inspected { episode, .. } => {
                let Some(row) = self.episodes.get_mut(episode).filter(|row| is_legal(row, change)) else {
                    return Err(self.illegal(change));
                };
                alter(row, change);
                vec![Key::Episode(*episode)]
            }
        };
        self.visited.extend(touched.iter().cloned());
        Ok(touched)
    }

    fn illegal(&self, change: &EpisodeChange) -> Illegal {
        let state = match change {
            EpisodeChange::Bound { key, .. } => alloc::format!("{:?}", self.bindings.get(key)),
            EpisodeChange::Recorded(row) => alloc::format!("{:?}", self.bindings.get(&row.key)),
            EpisodeChange::Judged { episode, .. }
            | EpisodeChange::Queued { episode, .. }
            | EpisodeChange::Synced { episode, .. }
            | EpisodeChange::SyncFailed { episode, .. }
            | EpisodeChange::Removed { episode, .. }
            | EpisodeChange::Inspected { episode, .. } => {
                alloc::format!("{:?}", self.episodes.get(episode).map(|row| (row.qa, &row.sync)))
            }
        };
        Illegal { state, change: Change::Episode(change.clone()).name() }
    }

    /// Somebody judges an episode. Only one that is not on its way can still be judged otherwise.
    pub fn on_judge(
        &mut self,
        cx: &mut Cx<'_>,
        reply: RequestId,
        episode: EpisodeId,
        approve: bool,
        reason: Option<&str>,
    ) {
        let Some(row) = self.episode(episode) else {
            return cx.reply(reply, Err(Refusal::EpisodeNotFound(episode)));
        };
        let repeated = if approve { row.qa.is_approved() } else { row.qa == Qa::Rejected };
        if !repeated {
            match row.sync {
                SyncMark::NotStarted | SyncMark::Failed(_) => {
                    let qa = match (approve, row.qa) {
                        (true, Qa::NeedsInspection) => Qa::InspectorApproved,
                        (true, _) => Qa::Approved,
                        (false, _) => Qa::Rejected,
                    };
                    let reason = reason.map(|text| shorten(text, limits::REASON_BYTES));
                    let at = cx.now.wall;
                    self.enact_episode(cx, EpisodeChange::Judged { episode, qa, reason, at });
                    self.scans.forget(episode);
                }
                SyncMark::Queued(_) | SyncMark::Synced { .. } => {
                    return cx.reply(reply, Err(Refusal::NotJudgeable(episode)));
                }
            }
        }
        let row = self.episodes.get(&episode).expect("it was just found").clone();
        cx.reply(reply, Ok(Response::Episode(Box::new(row))));
    }

    /// Somebody wants an episode in the cloud. The queue answers, when it has it.
    pub fn on_sync(&mut self, cx: &mut Cx<'_>, reply: RequestId, episode: EpisodeId) {
        let Some(row) = self.episode(episode) else {
            return cx.reply(reply, Err(Refusal::EpisodeNotFound(episode)));
        };
        let synced = matches!(row.sync, SyncMark::Synced { .. });
        if !synced && !row.qa.is_approved() {
            return cx.reply(reply, Err(Refusal::NotApproved(row.qa)));
        }
        match row.sync {
            SyncMark::Synced { .. } => cx.reply(reply, Err(Refusal::AlreadySynced(episode))),
            SyncMark::Queued(job) => cx.tell(Fact::JobWanted { job, episode, reply }),
            SyncMark::NotStarted | SyncMark::Failed(_) => {
                let wanted = wanted(cx, row, Some(reply));
                cx.tell(Fact::EpisodeWanted(wanted.into()));
            }
        }
    }

    /// Somebody wants the approved episodes that have no job in the cloud: the oldest first, at most a batch.
    pub fn on_sync_batch(&mut self, cx: &mut Cx<'_>, reply: RequestId) {
        let batch = usize::try_from(cx.knobs.batch).unwrap_or(usize::MAX);
        let mut count = 0;
        for row in self.waiting().into_iter().take(batch) {
            let wanted = wanted(cx, row, None);
            cx.tell(Fact::EpisodeWanted(wanted.into()));
            count += 1;
        }
        cx.reply(reply, Ok(Response::BatchAccepted { count }));
    }

    /// Approved episodes that never had a job, the oldest approval first.
    pub(super) fn waiting(&self) -> Vec<&EpisodeRow> {
        let mut rows: Vec<&EpisodeRow> = self.episodes.values().filter(|row| waits(row)).collect();
        rows.sort_by_key(|row| (row.qa_at, row.id));
        rows
    }

    /// A job works on the episode.
    pub fn on_job_queued(&mut self, cx: &mut Cx<'_>, job: JobId, episode: EpisodeId) {
        self.enact_episode(cx, EpisodeChange::Queued { episode, job });
    }

    /// A job is over.
    pub fn on_job_ended(&mut self, cx: &mut Cx<'_>, job: JobId, episode: EpisodeId, end: JobEnd) {
        match end {
            JobEnd::Completed { key } => {
                let at = cx.now.wall;
                self.enact_episode(cx, EpisodeChange::Synced { episode, job, key, at });
                self.plan_removal(cx, episode);
            }
            JobEnd::Failed(_) => {
                let tries = self.episodes.get(&episode).map_or(0, |row| row.tries).saturating_add(1);
                let tries = Some(tries);
                self.enact_episode(cx, EpisodeChange::SyncFailed { episode, job, tries });
            }
        }
    }
}

/// Whether an episode waits for somebody to queue it: approved, and no job was ever made.
pub(super) fn waits(row: &EpisodeRow) -> bool {
    row.sync == SyncMark::NotStarted && row.qa.is_approved()
}

fn alter(row: &mut EpisodeRow, change: &EpisodeChange) {
    match change {
        EpisodeChange::Bound { .. } | EpisodeChange::Recorded(_) => {}
        EpisodeChange::Judged { qa, reason, at, .. } => {
            row.qa = *qa;
            row.qa_reason.clone_from(reason);
            row.qa_at = Some(*at);
        }
        EpisodeChange::Queued { job, .. } => row.sync = SyncMark::Queued(*job),
        EpisodeChange::Synced { job, key, at, .. } => {
            row.sync = SyncMark::Synced { job: *job, key: key.clone(), at: *at };
        }
        EpisodeChange::SyncFailed { job, tries, .. } => {
            row.sync = SyncMark::Failed(*job);
            // A change of an earlier program counts nothing: neither does the record it left.
            row.tries = tries.unwrap_or(row.tries);
        }
        EpisodeChange::Removed { at, .. } => row.removed_at = Some(*at),
        EpisodeChange::Inspected { inspection, .. } => row.inspection = Some((**inspection).clone()),
    }
}

/// What the queue must know of an episode. Its key in the cloud is fixed here.
pub(super) fn wanted(cx: &Cx<'_>, row: &EpisodeRow, reply: Option<RequestId>) -> Wanted {
    let date = date::dashed(row.recorded_at.unwrap_or(row.ingested_at));
    let key = alloc::format!("{}/{}/{date}/{}.mcap", cx.knobs.site, row.device, row.wire);
    let source =
        Source { key: row.key.clone(), len: row.len, sha256: row.sha256, sidecar: row.sidecar.clone() };
    Wanted {
        episode: row.id,
        device: row.device.clone(),
        source,
        key: ObjectKey::new(&key).expect("site, device and wire id are legal segments, and short"),
        approved_at: row.qa_at.unwrap_or(row.ingested_at),
        reply,
    }
}

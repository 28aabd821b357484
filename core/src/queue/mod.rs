//! Sync jobs: what runs next, retry or give up, reclaim after a crash.
use crate::change::{JobChange, UploadEnd};
use crate::cx::Cx;
use crate::effect::QueueCounts;
use crate::fact::Wanted;
use crate::id::{EpisodeId, Fence, JobId, RequestId};
use crate::refusal::{Broken, Illegal};
use crate::row::{Key, Row};
use crate::time::Now;
use alloc::vec::Vec;

/// Queue
#[derive(Debug, Default)]
pub struct Queue {}

impl Queue {
    pub fn load_counter(&mut self, _next_job: u64) {
        todo!()
    }
    pub fn counter(&self) -> u64 {
        todo!()
    }
    pub fn load(&mut self, _key: &Key, _row: Row) {
        todo!()
    }
    pub fn row(&self, _key: &Key) -> Option<Row> {
        todo!()
    }
    pub fn evict(&mut self) {
        todo!()
    }
    pub fn forget_volatile(&mut self) {
        todo!()
    }
    pub fn apply(&mut self, _change: &JobChange) -> Result<Vec<Key>, Illegal> {
        todo!()
    }
    pub fn check(&self) -> Result<(), Broken> {
        todo!()
    }
    pub fn counts(&self, _now: Now) -> QueueCounts {
        todo!()
    }
    /// failures of the way in a row
    pub fn streak(&self) -> u32 {
        todo!()
    }
    /// the fence a job holds, if claimed
    pub fn fence(&self, _job: JobId) -> Option<Fence> {
        todo!()
    }
    pub fn on_boot(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
    pub fn on_episode_wanted(&mut self, _cx: &mut Cx<'_>, _wanted: Wanted) {
        todo!()
    }
    pub fn on_job_wanted(&mut self, _cx: &mut Cx<'_>, _job: JobId, _episode: EpisodeId, _reply: RequestId) {
        todo!()
    }
    pub fn on_part_acknowledged(&mut self, _cx: &mut Cx<'_>, _fence: Fence, _bytes: u64) {
        todo!()
    }
    pub fn on_upload_ended(&mut self, _cx: &mut Cx<'_>, _fence: Fence, _end: &UploadEnd) {
        todo!()
    }
    pub fn on_upload_restarted(&mut self, _cx: &mut Cx<'_>, _fence: Fence) {
        todo!()
    }
    pub fn on_due(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
}

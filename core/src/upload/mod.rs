//! Upload sessions: the next object operation, and nothing else.
use crate::change::UploadChange;
use crate::cx::Cx;
use crate::id::{Fence, JobId, Ticket};
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::refusal::{Broken, Illegal};
use crate::row::{JobRow, Key, Row};
use alloc::vec::Vec;

/// Uploads
#[derive(Debug, Default)]
pub struct Uploads {}

impl Uploads {
    pub fn load(&mut self, _key: &Key, _row: Row) {
        todo!()
    }
    pub fn row(&self, _key: &Key) -> Option<Row> {
        todo!()
    }
    pub fn forget_volatile(&mut self) {
        todo!()
    }
    pub fn apply(&mut self, _change: &UploadChange) -> Result<Vec<Key>, Illegal> {
        todo!()
    }
    pub fn check(&self) -> Result<(), Broken> {
        todo!()
    }
    /// uploads at work and the fence they work under
    pub fn working(&self) -> Vec<(JobId, Fence)> {
        todo!()
    }
    pub fn on_boot(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
    pub fn on_claimed(&mut self, _cx: &mut Cx<'_>, _fence: Fence, _job: &JobRow) {
        todo!()
    }
    pub fn on_abandoned(&mut self, _cx: &mut Cx<'_>, _job: JobId) {
        todo!()
    }
    pub fn on_object(&mut self, _cx: &mut Cx<'_>, _ticket: Ticket, _outcome: &Outcome<ObjectReply>) {
        todo!()
    }
    pub fn on_due(&mut self, _cx: &mut Cx<'_>, _job: JobId) {
        todo!()
    }
    pub fn on_janitor_due(&mut self, _cx: &mut Cx<'_>, _job: JobId) {
        todo!()
    }
    pub fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
}

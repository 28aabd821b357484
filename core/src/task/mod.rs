//! Tasks, episodes and the verification of recordings.
use crate::change::{EpisodeChange, TaskChange};
use crate::cx::Cx;
use crate::fact::{CallEnd, JobEnd, Report};
use crate::id::{ConnId, DeviceId, EpisodeId, JobId, ObjectKey, RequestId, Role, TaskId, Ticket, WireId};
use crate::input::Command;
use crate::machine::Rows;
use crate::object::ObjectReply;
use crate::outcome::Outcome;
use crate::refusal::{Broken, Illegal};
use crate::row::{EpisodeRow, Key, RecordingFacts, Row, TaskRow};
use crate::wire::TransferMessage;
use crate::wire::transfer::Announced;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Tasks
#[derive(Debug, Default)]
pub struct Tasks {}

impl Tasks {
    // memory
    pub fn load_counter(&mut self, _next_episode: u64) {
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
    pub fn begin_step(&mut self, _cold: &Rows) {
        todo!()
    }
    pub fn evict(&mut self) {
        todo!()
    }
    pub fn is_hot_task(_row: &TaskRow) -> bool {
        todo!()
    }
    pub fn is_hot_episode(_row: &EpisodeRow) -> bool {
        todo!()
    }
    pub fn forget_volatile(&mut self) {
        todo!()
    }
    pub fn apply_task(&mut self, _change: &TaskChange) -> Result<Vec<Key>, Illegal> {
        todo!()
    }
    pub fn apply_episode(&mut self, _change: &EpisodeChange) -> Result<Vec<Key>, Illegal> {
        todo!()
    }
    pub fn check(&self) -> Result<(), Broken> {
        todo!()
    }
    // wants
    pub fn want_task(&self, _task: &str, _have: &Rows, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    pub fn want_new(&self, _task: &TaskId, _have: &Rows, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    pub fn want_episode(&self, _episode: EpisodeId, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    pub fn want_announced(&self, _announced: &Announced, _have: &Rows, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    pub fn want_ticket(&self, _ticket: Ticket, _have: &Rows, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    pub fn want_stored(&self, _key: &ObjectKey, _have: &Rows, _keys: &mut BTreeSet<Key>) {
        todo!()
    }
    // inputs
    pub fn on_boot(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
    pub fn on_command(&mut self, _cx: &mut Cx<'_>, _command: Command) {
        todo!()
    }
    pub fn on_callback_start(
        &mut self,
        _cx: &mut Cx<'_>,
        _reply: RequestId,
        _task: &str,
        _device: Option<&DeviceId>,
    ) {
        todo!()
    }
    pub fn on_callback_finish(
        &mut self,
        _cx: &mut Cx<'_>,
        _reply: RequestId,
        _task: &str,
        _device: &DeviceId,
        _facts: &RecordingFacts,
    ) {
        todo!()
    }
    pub fn on_create(
        &mut self,
        _cx: &mut Cx<'_>,
        _reply: RequestId,
        _task: Option<&TaskId>,
        _device: &DeviceId,
        _config: Option<&str>,
    ) {
        todo!()
    }
    pub fn on_cancel(&mut self, _cx: &mut Cx<'_>, _reply: RequestId, _task: &str) {
        todo!()
    }
    pub fn on_judge(
        &mut self,
        _cx: &mut Cx<'_>,
        _reply: RequestId,
        _episode: EpisodeId,
        _approve: bool,
        _reason: Option<&str>,
    ) {
        todo!()
    }
    pub fn on_sync(&mut self, _cx: &mut Cx<'_>, _reply: RequestId, _episode: EpisodeId) {
        todo!()
    }
    pub fn on_sync_batch(&mut self, _cx: &mut Cx<'_>, _reply: RequestId) {
        todo!()
    }
    pub fn on_object(&mut self, _cx: &mut Cx<'_>, _ticket: Ticket, _outcome: &Outcome<ObjectReply>) {
        todo!()
    }
    pub fn on_stored(&mut self, _cx: &mut Cx<'_>, _key: &ObjectKey) {
        todo!()
    }
    // facts
    pub fn on_command_gated(&mut self, _cx: &mut Cx<'_>, _command: Command) {
        todo!()
    }
    pub fn on_command_sent(&mut self, _cx: &mut Cx<'_>, _command: &Command) {
        todo!()
    }
    pub fn on_command_ended(&mut self, _cx: &mut Cx<'_>, _command: &Command, _end: CallEnd) {
        todo!()
    }
    pub fn on_config_applied(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _task: &str) {
        todo!()
    }
    pub fn on_recorder_reported(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _report: &Report) {
        todo!()
    }
    pub fn on_link_up(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _role: Role, _conn: ConnId) {
        todo!()
    }
    pub fn on_link_down(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _role: Role) {
        todo!()
    }
    pub fn on_transfer(
        &mut self,
        _cx: &mut Cx<'_>,
        _device: &DeviceId,
        _conn: ConnId,
        _message: &TransferMessage,
    ) {
        todo!()
    }
    pub fn on_job_queued(&mut self, _cx: &mut Cx<'_>, _job: JobId, _episode: EpisodeId) {
        todo!()
    }
    pub fn on_job_ended(&mut self, _cx: &mut Cx<'_>, _job: JobId, _episode: EpisodeId, _end: JobEnd) {
        todo!()
    }
    // timers
    pub fn on_verify_due(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _wire: &WireId) {
        todo!()
    }
    pub fn on_remove_due(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
    pub fn on_scan_due(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
}

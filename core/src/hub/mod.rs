//! Links of devices: admission, takeover, state confidence, commands.
use crate::cx::Cx;
use crate::fact::TransferFrame;
use crate::id::{ConnId, DeviceId, RequestId, Role, SocketId, Ticket};
use crate::input::{Command, LostWhy};
use crate::refusal::Broken;
use crate::wire::{RecorderMessage, TransferMessage};
use alloc::vec::Vec;

/// Hub
#[derive(Debug, Default)]
pub struct Hub {}

impl Hub {
    pub fn on_knock(
        &mut self,
        _cx: &mut Cx<'_>,
        _socket: SocketId,
        _device: &DeviceId,
        _role: Role,
        _remote: &str,
    ) {
        todo!()
    }
    pub fn is_current(&self, _conn: ConnId, _role: Role) -> bool {
        todo!()
    }
    pub fn on_recorder(&mut self, _cx: &mut Cx<'_>, _conn: ConnId, _message: &RecorderMessage) {
        todo!()
    }
    pub fn on_transfer(&mut self, _cx: &mut Cx<'_>, _conn: ConnId, _message: &TransferMessage) {
        todo!()
    }
    /// false: superseded or unknown link
    pub fn on_lost(&mut self, _cx: &mut Cx<'_>, _conn: ConnId, _why: LostWhy) -> bool {
        todo!()
    }
    /// Config, GetState, GetStats from HTTP
    pub fn on_command(&mut self, _cx: &mut Cx<'_>, _command: Command) {
        todo!()
    }
    pub fn on_command_cleared(&mut self, _cx: &mut Cx<'_>, _command: Command) {
        todo!()
    }
    pub fn on_refresh(&mut self, _cx: &mut Cx<'_>, _reply: RequestId, _device: &DeviceId, _max_age_ms: u64) {
        todo!()
    }
    pub fn on_transfer_frame(&mut self, _cx: &mut Cx<'_>, _device: &DeviceId, _frame: &TransferFrame) {
        todo!()
    }
    pub fn on_sync_due(&mut self, _cx: &mut Cx<'_>, _conn: ConnId) {
        todo!()
    }
    pub fn on_call_due(&mut self, _cx: &mut Cx<'_>, _ticket: Ticket) {
        todo!()
    }
    pub fn on_shutdown(&mut self, _cx: &mut Cx<'_>) {
        todo!()
    }
    /// devices that report recording or paused
    pub fn recording(&self) -> u32 {
        todo!()
    }
    /// tickets of outstanding RPCs
    pub fn calls(&self) -> Vec<Ticket> {
        todo!()
    }
    pub fn check(&self) -> Result<(), Broken> {
        todo!()
    }
}

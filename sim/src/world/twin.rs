//! Second programs with the id of a device: they come again and again, take configurations, and never say what came of a
//! `begin`.

use std::time::Duration;

use tidegate_core::id::Role;

use super::{Event, World};
use crate::scenario::Fault;
use crate::watch::Broken;

impl World<'_> {
    /// The second program dials.
    pub(super) fn twin(&mut self, fault: usize, device: usize, role: Role) -> Result<(), Broken> {
        let on = matches!(&self.scenario.faults[fault].fault, Fault::Twin { .. }) && self.fault_is_on(fault);
        if on && self.nodes[self.devices[device].spec.site].powered {
            self.devices[device].honest = false;
            self.fire(&self.scenario.faults[fault].fault);
            self.dials(device, role, Some(fault));
        } else if on {
            self.twin_again(fault, device, role);
        }
        Ok(())
    }

    pub(super) fn twin_again(&mut self, fault: usize, device: usize, role: Role) {
        let wait = self.lines[device].luck.duration(Duration::from_secs(1), Duration::from_secs(4));
        self.queue.plan(self.now + wait, Event::Twin { fault, device, role });
    }

    pub(super) fn twin_opened(&mut self, link: usize) {
        let now = self.devices[self.links[link].device].wall(self.now);
        let text = match self.links[link].role {
            Role::Recorder => format!(
                "{{\"data\":{{\"current\":\"idle\",\"previous\":\"idle\"}},\"timestamp\":{now},\"type\":\"state_update\"}}"
            ),
            Role::Transfer => {
                "{\"data\":{\"active_count\":0,\"pending_count\":0,\"uploads\":[],\"waiting_ack_task_ids\":[]},\"type\":\"connected\"}"
                    .to_string()
            }
        };
        self.send_up(link, text);
    }

    pub(super) fn twin_heard(&mut self, link: usize, text: &str) {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
        let Some(id) = value.get("request_id") else { return };
        let device = self.links[link].device;
        let named = value.pointer("/params/task_config/task_id").and_then(serde_json::Value::as_str);
        let known = self.twins.get(&device).cloned();
        let data = match (value.get("action").and_then(serde_json::Value::as_str), named) {
            // It takes a configuration as the true one would, and never says what came of a `begin`.
            (Some("config"), Some(task)) => {
                self.twins.insert(device, task.to_string());
                serde_json::json!({ "state": "ready", "task_id": task })
            }
            (Some("get_state"), _) => match known {
                Some(task) => serde_json::json!({
                    "running": false, "state": "ready", "task_config": { "task_id": task }
                }),
                None => serde_json::json!({ "running": false, "state": "idle" }),
            },
            (Some("begin"), _) => {
                self.twins.remove(&device);
                return;
            }
            _ => return,
        };
        let text = format!(
            "{{\"data\":{data},\"message\":\"ok\",\"request_id\":{id},\"success\":true,\"type\":\"rpc_response\"}}"
        );
        self.send_up(link, text);
    }
}

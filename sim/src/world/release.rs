//! What a site's effects do in the world, once they may leave.

use tidegate_core::effect::{CloseWhy, Effect, Gate, Notice, Response};
use tidegate_core::id::ConnId;
use tidegate_core::input::{Input, LostWhy};
use tidegate_core::machine::describe;

use super::site::{Caller, Letter};
use super::{Event, Who, World};
use crate::watch::Broken;

impl World<'_> {
    /// Performs one effect of a site.
    pub(super) fn perform(&mut self, site: usize, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Admit { socket, conn } => match self.nodes[site].sockets.remove(&socket) {
                Some(link) => self.answers(link, Some(conn)),
                None => self.letter(site, Letter::Input(Input::Lost { conn, why: LostWhy::Broken })),
            },
            Effect::TurnAway { socket, refusal } => {
                self.say(Who::Site(site), "x", || format!("turned away: {refusal:?}"));
                match self.nodes[site].sockets.remove(&socket) {
                    Some(link) => self.answers(link, None),
                    None => Ok(()),
                }
            }
            Effect::Send { conn, frame } => match self.link_of(site, conn) {
                Some(link) => self.send_down(link, frame.text),
                None => Ok(()),
            },
            Effect::Close { conn, why } => {
                let code = match why {
                    CloseWhy::Replaced => 4001,
                    CloseWhy::GoingAway => 1001,
                    CloseWhy::Quarantined => 4002,
                    CloseWhy::Revoked => 4003,
                };
                match self.link_of(site, conn) {
                    Some(link) => self.closes(link, code),
                    None => Ok(()),
                }
            }
            Effect::Object { ticket, op } => self.asks(site, ticket, op),
            Effect::Policy { ticket, op } => self.hosts(site, ticket, op),
            Effect::Reply { to, answer } => {
                let caller = self.nodes[site].callers.remove(&to);
                if self.trace.talks() {
                    let text: String = format!("{answer:?}").chars().take(160).collect();
                    self.say(Who::Site(site), "<", || format!("{to:?} {text}"));
                }
                match caller {
                    Some(Caller::Installer(fault)) => self.installer_hears(fault, &answer),
                    Some(Caller::Storm(fault)) if answer.is_ok() => {
                        self.fire(&self.scenario.faults[fault].fault);
                    }
                    _ => {}
                }
                if let Some(Caller::Operator(operator)) = caller {
                    let did = match &answer {
                        Ok(Response::Rpc { success, .. }) => *success,
                        Ok(_) => true,
                        Err(_) => false,
                    };
                    let (stamp, after) = self.operators[operator].answered(did);
                    self.queue.plan(self.now + after, Event::Look { operator, stamp });
                }
                Ok(())
            }
            Effect::Publish(notice) => {
                self.say(Who::Site(site), "*", || describe(&notice));
                match notice {
                    Notice::Recorder(view) => {
                        if let Some(device) = self.device_of(site, &view.device) {
                            self.views.insert(device, view);
                        }
                    }
                    Notice::Conflict { device, conflict } => {
                        let Some(device) = self.device_of(site, &device) else { return Ok(()) };
                        match conflict {
                            Some(view) => self.conflicts.insert(device, view),
                            None => self.conflicts.remove(&device),
                        };
                    }
                    _ => {}
                }
                Ok(())
            }
            Effect::Gate(gate) => {
                self.nodes[site].gate_open = gate == Gate::Open;
                Ok(())
            }
            Effect::Freeze { key } => {
                self.edges[site].frozen.insert(key);
                Ok(())
            }
            // Nobody uses the API with a token here.
            Effect::Grant { .. } | Effect::Bar { .. } => Ok(()),
            Effect::Thaw { key } => {
                self.edges[site].frozen.remove(&key);
                Ok(())
            }
        }
    }

    fn link_of(&self, site: usize, conn: ConnId) -> Option<usize> {
        self.nodes[site].conns.get(&conn).copied()
    }
}

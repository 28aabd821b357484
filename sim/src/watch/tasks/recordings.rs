//! What becomes of recordings: which are taken, acknowledged and kept. Only checks; remembers what [`Tasks`] heard.

use tidegate_core::change::EpisodeChange;
use tidegate_core::id::{ConnId, DeviceId, ObjectKey, WireId};
use tidegate_core::input::Input;
use tidegate_core::object::{Got, ObjectReply, is_recording_of};
use tidegate_core::outcome::Outcome;
use tidegate_core::row::{EpisodeRow, Key, Qa, Row, SyncMark};

use super::verdicts::{checked, judged};
use super::{Broken, Diary, Premises, Seen, Tasks, Truth, demand, rows};
use crate::device::Device;
use crate::store::{Bucket, Content};
use crate::watch::rows::Image;

impl Tasks {
    pub(super) fn episode_change(
        &mut self,
        seen: &Seen<'_>,
        change: &EpisodeChange,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        match change {
            EpisodeChange::Recorded(row) => self.recorded(seen, row, premises),
            EpisodeChange::Bound { key, task, wire, len, sha256 } => {
                let device = self.speaker(seen.input);
                let owner = self.tasks.get(task).map(|model| &model.device);
                // Its own already, and something else was said of it: nobody loses it.
                let free = match seen.was(&Key::Binding(key.clone())) {
                    None => true,
                    Some(Row::Binding(old)) => {
                        let own = (&old.task, &old.wire, old.episode) == (task, wire, None);
                        own && (old.len, old.sha256) != (*len, *sha256)
                    }
                    Some(_) => false,
                };
                // Its device named it, or the store has it under the name that its device gives it.
                let found = matches!(seen.input,
                    Input::Object { outcome: Outcome::Done(ObjectReply::Found(found)), .. } if found.contains(key));
                let named = found && owner.is_some_and(|owner| is_recording_of(key.as_str(), owner, wire));
                demand("I15", free && (named || device.is_some() && device == owner), || {
                    format!("{device:?} binds {key} to {wire} of {owner:?}")
                })
            }
            EpisodeChange::Judged { episode, qa, at, .. } => {
                judged(seen, change, (*episode, *qa, *at), premises)
            }
            EpisodeChange::Inspected { episode, inspection } => {
                checked(seen, change, *episode, inspection, premises)
            }
            EpisodeChange::Queued { .. }
            | EpisodeChange::Synced { .. }
            | EpisodeChange::SyncFailed { .. }
            | EpisodeChange::Removed { .. } => Ok(()),
        }
    }

    /// I20: what becomes an episode is what stands at the edge and what its device announced of it.
    pub(super) fn recorded(
        &mut self,
        seen: &Seen<'_>,
        row: &EpisodeRow,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        premises.met("I20");
        let edge = seen.edge();
        let beside = row.sidecar.as_ref().map(|sidecar| (&sidecar.key, sidecar.len, sidecar.sha256));
        for (key, len, sha256) in std::iter::once((&row.key, row.len, row.sha256)).chain(beside) {
            // A third party may have changed it since it was read.
            let there = edge.holds(key, len, sha256) || edge.past.tampered.contains(key);
            demand("I20", there, || {
                format!("{row:?} is recorded, and {key} is {:?}", edge.objects.get(key))
            })?;
        }
        let said = self.said_of(&row.device, row);
        let fits = said.as_ref().is_some_and(|said| {
            said.task.trim() == row.wire.as_str()
                && said.len.is_none_or(|len| len == row.len)
                && said.sha256.is_none_or(|sha256| sha256 == row.sha256)
                && (said.mcap_only == Some(true) || row.sidecar.is_some())
        });
        demand("I20", fits, || format!("{row:?} is recorded, and its device said {said:?}"))?;
        demand("I20", self.vouched(seen, row), || format!("{row:?} is recorded, and nobody vouches for it"))?;
        let owner = self.tasks.get(&row.task).map(|model| &model.device);
        let bound = matches!(seen.rows.get(&Key::Binding(row.key.clone())),
            Some(Row::Binding(b)) if (b.episode, &b.task, &b.wire) == (Some(row.id), &row.task, &row.wire));
        demand("I15", bound && owner == Some(&row.device), || format!("{row:?} is not its key's"))?;
        let twin = self.of_key.get(&row.key);
        demand("I15", twin.is_none(), || format!("{} is episode {twin:?} and {}", row.key, row.id))?;
        let begins = row.qa == Qa::Pending
            && row.sync == SyncMark::NotStarted
            && row.removed_at.is_none()
            && row.inspection.is_none();
        demand("I15", begins, || format!("begins as {row:?}"))?;
        self.enter(row);
        Ok(())
    }

    /// Whether anybody besides the store says what the bytes must be: the announcement, the sidecar, the metadata, or the
    /// length in the finish callback.
    pub(super) fn vouched(&self, seen: &Seen<'_>, row: &EpisodeRow) -> bool {
        let edge = seen.edge();
        let tampered = |key: &ObjectKey| edge.past.tampered.contains(key);
        let said = self.said_of(&row.device, row);
        let beside = row.sidecar.as_ref();
        let facts = beside.and_then(|sidecar| edge.content(&sidecar.key)).and_then(|it| it.facts.as_ref());
        let called = match seen.was(&Key::Task(row.task.clone())) {
            Some(Row::Task(task)) => task.recording.as_ref().and_then(|facts| facts.len),
            _ => None,
        };
        said.is_some_and(|said| said.len.is_some() || said.sha256.is_some())
            || facts.is_some_and(|facts| facts.len.is_some() || facts.sha256.is_some())
            || edge.objects.get(&row.key).is_some_and(|object| object.announced().is_some())
            || called == Some(row.len)
            || tampered(&row.key)
            || beside.is_some_and(|sidecar| tampered(&sidecar.key))
    }

    /// I20: the device may delete its copy only if the site has it, durably, and as it was announced.
    pub(super) fn acknowledged(
        &self,
        seen: &Seen<'_>,
        conn: ConnId,
        text: &str,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Some(wire) = rows::acked(text) else { return Ok(()) };
        premises.met("I20.ack");
        let broken = |saw: String| Err(Broken { invariant: "I20", saw });
        let Some((device, _)) = self.links.get(&conn) else {
            return broken(format!("{wire} is acknowledged on {conn:?}, which is nobody's"));
        };
        let own = self.of_wire.get(&(device.clone(), wire.clone())).into_iter().flatten();
        let candidates: Vec<&EpisodeRow> = own.filter_map(|id| rows::episode(seen.rows, *id)).collect();
        let safe = candidates.iter().any(|row| {
            self.fits_words(seen, device, row) && is_there(seen.rows, seen.edge(), seen.cloud(), row)
        });
        demand("I20", safe, || {
            format!("{wire} is acknowledged to {device}, of which the site has {candidates:?}")
        })?;
        // A device that lied, or in whose name somebody spoke, may hold anything under that id.
        let Some(it) = seen.truth.devices.iter().find(|it| it.id == *device && it.honest) else {
            return Ok(());
        };
        let Some(file) = it.files.get(wire.as_str()) else { return Ok(()) };
        premises.met("I20.honest");
        let same = candidates.iter().any(|row| same_bytes(row, &file.content));
        demand("I20", same, || format!("{device} holds {file:?} as {wire}, the site {candidates:?}"))
    }

    /// Whether an episode is what its device says of the key; if a repeated word brought us here, of that word.
    pub(super) fn fits_words(&self, seen: &Seen<'_>, device: &DeviceId, row: &EpisodeRow) -> bool {
        let read = match seen.input {
            Input::Object {
                outcome: Outcome::Done(ObjectReply::Got(Got::Digest { len, sha256 })), ..
            } => (*len, *sha256) == (row.len, row.sha256),
            _ => true,
        };
        let said = self.said_of(device, row);
        read && said.is_some_and(|said| {
            // Whoever names neither size nor digest gives no evidence; a copy that was just read may stand in for it.
            let evident = said.len.is_some() || said.sha256.is_some();
            let proved = row.removed_at.is_none() && matches!(seen.input, Input::Object { .. });
            (evident || proved)
                && said.len.is_none_or(|len| len == row.len)
                && said.sha256.is_none_or(|sha256| sha256 == row.sha256)
        })
    }

    /// I15: of everything a device deleted because it was told to there is an episode whose bytes are safe.
    pub(super) fn kept(
        &self,
        truth: &Truth<'_>,
        device: &Device,
        diary: &Diary,
        wire: &str,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        if !device.honest {
            return Ok(());
        }
        let Ok(id) = WireId::new(wire) else { return Ok(()) };
        premises.met("I15.deleted");
        let site = device.spec.site;
        let own = self.of_wire.get(&(device.id.clone(), id)).into_iter().flatten();
        let held: Vec<&EpisodeRow> = own.filter_map(|id| rows::episode(&truth.images[site], *id)).collect();
        let file = diary.files.get(wire);
        let safe = held.iter().any(|row| {
            file.is_none_or(|file| same_bytes(row, file))
                && is_there(&truth.images[site], &truth.edges[site], &truth.clouds[site], row)
        });
        demand("I15", safe, || {
            format!("{} deleted {wire} ({file:?}), of which the site has {held:?}", device.id)
        })
    }
}

fn same_bytes(row: &EpisodeRow, content: &Content) -> bool {
    row.len == content.len && row.sha256 == content.sha256()
}

/// Whether the bytes of an episode are at the edge, or in the cloud after a durable end. A third party that wrote to one
/// of these keys voids the question for it: losing its last copy is then not ours.
fn is_there(image: &Image, edge: &Bucket, cloud: &Bucket, row: &EpisodeRow) -> bool {
    if edge.holds(&row.key, row.len, row.sha256) || edge.past.tampered.contains(&row.key) {
        return true;
    }
    let SyncMark::Synced { job, key, .. } = &row.sync else { return false };
    rows::job(image, *job).is_some()
        && (cloud.holds(key, row.len, row.sha256) || cloud.past.tampered.contains(key))
}

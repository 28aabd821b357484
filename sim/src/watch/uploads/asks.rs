//! What an upload asks for and says: legal by its durable record and by what was asked before.

use tidegate_core::effect::Notice;
use tidegate_core::id::{Fence, JobId, ObjectKey, Ticket};
use tidegate_core::object::{ObjectOp, Store, Verb};
use tidegate_core::row::{JobState, Key, Phase, Row, SyncMark, UploadRow};

use super::{At, Sent, Uploads, named};
use crate::watch::{Broken, Premises, Seen, demand, rows};

impl Uploads {
    /// What leaves for a store is backed by records: intent before effect.
    pub(super) fn asks(
        &mut self,
        seen: &Seen<'_>,
        ticket: Ticket,
        op: &ObjectOp,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let ObjectOp { store, key, verb } = op;
        if *store == Store::Edge {
            return match verb {
                Verb::Head | Verb::Get { .. } | Verb::Find { .. } => Ok(()),
                Verb::Delete => self.removal(seen, key, premises),
                _ => Err(Broken { invariant: "I20", saw: format!("the core writes to the edge: {op:?}") }),
            };
        }
        let jobs: Vec<JobId> = self.at.get(key).into_iter().flatten().copied().collect();
        let live = jobs.iter().find_map(|id| {
            let row = rows::upload(seen.rows, *id)?;
            let held = rows::job(seen.rows, *id)?;
            let claimed = matches!(&held.state, JobState::Claimed { fence, .. } if *fence == row.fence);
            (claimed && row.fence.boot == seen.boot && writes_to(seen, row, verb)).then_some((*id, row))
        });
        if let Verb::Put { .. } | Verb::Create { .. } | Verb::PutPart { .. } | Verb::Complete { .. } = verb {
            let others = self.foreign.contains(key);
            demand("I19", !others, || format!("{op:?} where another's object stands"))?;
        }
        match verb {
            Verb::Head => {
                self.heads.insert(ticket, key.clone());
                Ok(())
            }
            Verb::Get { .. } => Ok(()),
            Verb::ListParts { upload } => {
                if let Some(job) = self.names.get(upload) {
                    self.probes.insert(ticket, (*job, upload.clone()));
                }
                Ok(())
            }
            Verb::ListUploads => {
                self.listing.insert(ticket, key.clone());
                self.listed.insert(key.clone());
                Ok(())
            }
            Verb::Abort { upload } => {
                self.listing.insert(ticket, key.clone());
                premises.met("I21.aborted");
                let current = self.names.get(upload).is_some_and(|owner| {
                    let row = rows::upload(seen.rows, *owner);
                    row.is_some_and(|row| matches!(&row.phase, Phase::Open { upload: u } | Phase::Sealing { upload: u } if u == upload))
                });
                demand("I21", !current, || format!("aborts {upload:?}, which a session goes on with"))
            }
            Verb::Find { .. } => {
                Err(Broken { invariant: "I19", saw: format!("looks for names in the cloud: {op:?}") })
            }
            Verb::Delete => Err(Broken { invariant: "I19", saw: format!("deletes in the cloud: {op:?}") }),
            Verb::Put { source, len, sha256 } => {
                let (_, row) = claimed(live, op)?;
                let expected = if row.key == *key {
                    Some((&row.source.key, row.source.len, row.source.sha256))
                } else {
                    row.source.sidecar.as_ref().map(|s| (&s.key, s.len, s.sha256))
                };
                demand("I18", expected == Some((source, *len, *sha256)), || format!("{op:?} of {row:?}"))
            }
            Verb::Create { sha256 } => {
                let (id, row) = claimed(live, op)?;
                let intent = row.look_first && row.phase == Phase::Planned && *sha256 == row.source.sha256;
                demand("I21", intent, || format!("Create before its intent: {row:?}"))?;
                // An earlier one may have left an upload behind: only a list tells.
                let listed = self.listed.remove(key);
                let doubt = matches!(seen.was(&Key::Upload(id)), Some(Row::Upload(was)) if was.look_first);
                if doubt {
                    premises.met("I21.listed");
                }
                demand("I21", listed || !doubt, || format!("Create once more, and nobody looked: {row:?}"))
            }
            Verb::PutPart { upload, part, source, span } => {
                let (id, row) = claimed(live, op)?;
                let open = matches!(&row.phase, Phase::Open { upload: u } if u == upload);
                let planned = (1..=row.plan.parts).contains(&part.0);
                let place = rows::span(row.plan.part_size, row.source.len, part.0);
                let same = (span.offset, span.len) == place && *source == row.source.key;
                demand("I21", open && planned && same, || format!("{op:?} of {row:?}"))?;
                self.sends(seen, ticket, (id, upload.clone(), *part), row.fence, premises)
            }
            Verb::Complete { upload, parts } => {
                let (id, row) = claimed(live, op)?;
                premises.met("I19");
                let sealing = matches!(&row.phase, Phase::Sealing { upload: u } if u == upload);
                demand("I19", sealing, || format!("Complete before its intent: {row:?}"))?;
                let numbers = parts.iter().map(|(part, _)| part.0).eq(1..=row.plan.parts);
                let known = parts.iter().all(|(part, facts)| rows::part(seen.rows, id, *part) == Some(facts));
                demand("I21", numbers && known, || format!("{op:?} does not match the records"))
            }
        }
    }

    /// I22, I27: bytes are sent again only if nobody knows what became of them, and few are under way at once.
    fn sends(
        &mut self,
        seen: &Seen<'_>,
        ticket: Ticket,
        at: At,
        fence: Fence,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        demand("I22", !self.proven.contains_key(&at), || {
            format!("{at:?} is sent again, and the store listed it")
        })?;
        let before = self.sent.insert(at.clone(), Sent::Out(fence));
        match before {
            None => {}
            Some(Sent::Loose) => premises.met("I22.again"),
            Some(Sent::Out(old)) => {
                demand("I22", old != fence, || format!("{at:?} is under way, and is sent"))?
            }
            Some(Sent::Counts) => {
                return Err(Broken { invariant: "I22", saw: format!("{at:?} counts, and is sent again") });
            }
        }
        let flying = self.flying.entry(at.0).or_default();
        flying.insert(ticket);
        let most = usize::from(seen.knobs.parts_in_flight);
        let count = flying.len();
        self.out.insert(ticket, at);
        premises.met("I27.parts");
        demand("I27", count <= most, || format!("{count} parts under way, at most {most}"))
    }

    /// I20, I29: the edge copy goes only after the job is durably completed, the object stands in the cloud, and the time
    /// that it is to be kept is over on the clock that nobody sets.
    fn removal(&self, seen: &Seen<'_>, key: &ObjectKey, premises: &mut Premises) -> Result<(), Broken> {
        let row = self.edge.get(key).and_then(|id| rows::episode(seen.rows, *id));
        let Some(row) = row else {
            return Err(Broken { invariant: "I20", saw: format!("{key} is nobody's, and is deleted") });
        };
        let durable = match &row.sync {
            SyncMark::Synced { job, .. } => rows::job(seen.rows, *job)
                .filter(|job| matches!(job.state, JobState::Completed { .. }) && job.episode == row.id),
            SyncMark::NotStarted | SyncMark::Queued(_) | SyncMark::Failed(_) => None,
        };
        let Some(job) = durable else {
            return Err(Broken {
                invariant: "I20",
                saw: format!("episode {} is deleted while {:?}", row.id, row.sync),
            });
        };
        premises.met("I20.removed");
        let until = self.keep.get(&row.id).filter(|_| seen.knobs.keep_edge_ms.is_some());
        let Some(until) = until else {
            return Err(Broken {
                invariant: "I20",
                saw: format!("episode {} is deleted, and is to stay", row.id),
            });
        };
        premises.met("I29.kept");
        demand("I29", *until <= seen.now.mono, || {
            format!("episode {} is deleted {:?} early", row.id, seen.now.mono.until(*until))
        })?;
        self.delivered(&seen.truth, seen.site, job).map_err(|broken| Broken { invariant: "I20", ..broken })
    }

    /// I22: progress counts what was acknowledged, and never falls within an attempt.
    pub(super) fn progress(
        &mut self,
        seen: &Seen<'_>,
        notice: &Notice,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let Notice::Progress { episode, job, uploaded, total, .. } = notice else { return Ok(()) };
        premises.met("I22.told");
        let row = rows::job(seen.rows, *job);
        let own = row.is_some_and(|row| row.episode == *episode && row.source.len == *total);
        demand("I22", own && uploaded <= total, || format!("{notice:?} of {row:?}"))?;
        let acked = self.acked.get(job).copied().unwrap_or(0);
        let whole = rows::upload(seen.rows, *job).is_none_or(|row| matches!(row.phase, Phase::Sealed { .. }));
        demand("I22", *uploaded <= acked || whole, || {
            format!("job {job}: {uploaded} told, {acked} acknowledged")
        })?;
        let last = self.told.insert(*job, *uploaded).unwrap_or(0);
        demand("I22", *uploaded >= last, || format!("job {job} fell from {last} to {uploaded}"))
    }
}

/// Several sessions may write to one key, for the name of a recording may be announced under two keys at the edge.
fn writes_to(seen: &Seen<'_>, row: &UploadRow, verb: &Verb) -> bool {
    match verb {
        Verb::PutPart { upload, .. } | Verb::Complete { upload, .. } => named(&row.phase) == Some(upload),
        Verb::Create { .. } => row.look_first,
        Verb::Put { source, .. } => {
            *source == row.source.key || row.source.sidecar.as_ref().is_some_and(|s| s.key == *source)
        }
        _ => !seen.rows.is_empty(),
    }
}

fn claimed<'a>(
    live: Option<(JobId, &'a UploadRow)>,
    op: &ObjectOp,
) -> Result<(JobId, &'a UploadRow), Broken> {
    live.ok_or_else(|| Broken { invariant: "I13", saw: format!("{op:?} without a claim that may ask it") })
}

//! What must hold of all records and all objects at once: looked at when a site starts and at the end, never in a step.

use std::collections::BTreeSet;

use tidegate_core::row::{JobRow, JobState, ParkWhy};

use super::{Uploads, named};
use crate::scenario::{Fault, Lasts, Path, Store as Place};
use crate::watch::{Broken, Premises, Truth, demand, rows};

impl Uploads {
    /// What must hold of all records: I18 and I19 of every completed job, I21 of every open upload.
    pub(super) fn sweep(
        &self,
        truth: &Truth<'_>,
        site: usize,
        premises: &mut Premises,
    ) -> Result<(), Broken> {
        let (image, cloud) = (&truth.images[site], &truth.clouds[site]);
        let mut keys = BTreeSet::new();
        for row in rows::jobs(image) {
            keys.insert(row.key.clone());
            if let JobState::Completed { .. } = row.state {
                premises.met("I18.still");
                self.delivered(truth, site, row)?;
            }
        }
        for (job, (key, count)) in &self.made {
            // What a third party took away another job may rightly make again.
            if cloud.past.tampered.contains(key) {
                continue;
            }
            let now = cloud.past.keys.get(key).map_or(0, |past| past.completed);
            demand("I19", now == *count, || {
                format!("after job {job} was completed {} more objects were made at {key}", now - count)
            })?;
        }
        for key in cloud.objects.keys().filter(|key| !cloud.past.tampered.contains(*key)) {
            let ours = keys.contains(key)
                || key.as_str().ends_with(".json") && keys.iter().any(|main| rows::sidecar_key(main) == *key);
            demand("I19", ours, || format!("an object at {key}, which is no job's key"))?;
        }
        for (upload, past) in &cloud.past.uploads {
            demand("I19", past.completes <= 1, || {
                format!("{upload:?} was completed {} times", past.completes)
            })?;
        }
        for (upload, open) in &cloud.open {
            premises.met("I21.open");
            let sessions = self.at.get(&open.key).into_iter().flatten();
            let known = sessions.filter_map(|id| rows::upload(image, *id)).any(|row| {
                // A session that asked for an upload and does not know its name yet looks for it before it ends.
                named(&row.phase) == Some(upload) || row.look_first
            });
            demand("I21", known || self.unseen.contains(&open.key), || {
                format!("{upload:?} at {} is open, and nobody knows of it", open.key)
            })?;
        }
        Ok(())
    }

    /// I21 once the world had all the time it was promised: of jobs that are over nothing is left.
    pub(super) fn tidy(&self, truth: &Truth<'_>, site: usize) -> Result<(), Broken> {
        let scenario = truth.scenario;
        let settled = truth.now.since_start() >= scenario.chaos + scenario.settle;
        // A cloud that is out of reach for ever, or is none, cannot be tidied.
        let cut = scenario.faults.iter().any(|spec| {
            spec.lasts == Lasts::Forever
                && match &spec.fault {
                    Fault::Slow { path, .. }
                    | Fault::Hold { path }
                    | Fault::Cut { path, .. }
                    | Fault::Refuse { path } => *path == Path::Cloud(site),
                    Fault::Outage { store }
                    | Fault::Throttle { store, .. }
                    | Fault::Broken { store, .. }
                    | Fault::Misrouted { store, .. }
                    | Fault::Expired { store }
                    | Fault::Skewed { store }
                    | Fault::LoseAnswers { store, .. }
                    | Fault::LoseRequests { store, .. } => *store == Place::Cloud(site),
                    Fault::Pause { site: other } => *other == site,
                    _ => false,
                }
        });
        let image = &truth.images[site];
        let homeless = rows::jobs(image)
            .any(|row| matches!(&row.state, JobState::Parked { why, .. } if *why == ParkWhy::NoDestination));
        if !settled || cut || homeless || !scenario.sites[site].knobs.destination {
            return Ok(());
        }
        for (upload, open) in &truth.clouds[site].open {
            let over = |row: &JobRow| row.key == open.key && row.state.is_final();
            let busy = |row: &JobRow| row.key == open.key && !row.state.is_final();
            let left = rows::jobs(image).any(over) && !rows::jobs(image).any(busy);
            demand("I21", !left || self.unseen.contains(&open.key), || {
                format!("{upload:?} at {} was left behind", open.key)
            })?;
        }
        Ok(())
    }
}

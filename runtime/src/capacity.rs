//! How many links and connections the limit of open files has room for. Decides nothing about who gets them.

use tidegate_core::limits::LINKS_MAX;

use crate::config::Config;
use crate::ingest;
use crate::seam::{Descriptors, Seams};
use crate::server;

/// What a site will hold at once, so that its store and its recordings never lack a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Links of devices, of both roles together.
    pub links: u64,
    /// Connections of each HTTP listener that are no links.
    pub connections: usize,
    /// Connections of the embedded S3 endpoint.
    pub uploads: usize,
    /// Descriptors that links do not get.
    pub reserve: u64,
}

impl Capacity {
    /// What fits into `files` descriptors. There are so many HTTP listeners, and the way to the cloud takes so many
    /// descriptors.
    ///
    /// ```text
    /// files = own, the cloud's │ connections of the listeners │ connections of the S3 endpoint, a file each │ links
    ///          at most 1/4     │          at most 1/8         │               at most 1/8                   │ the rest
    /// ```
    #[must_use]
    pub fn of(files: Option<Descriptors>, listeners: u64, cloud: u64) -> Capacity {
        let most = 2 * LINKS_MAX as u64;
        let (http, s3) =
            (server::Bounds::default().connections as u64, ingest::limits::CONNECTIONS_MAX as u64);
        let Some(files) = files.map(|files| files.soft) else {
            let reserve = OWN + cloud + listeners * http + 2 * s3;
            return Capacity { links: most, connections: http as usize, uploads: s3 as usize, reserve };
        };
        let own = (OWN + cloud).min(files / 4);
        let connections = (files / 8 / listeners.max(1)).clamp(LEAST, http);
        let uploads = (files / 16).clamp(LEAST, s3);
        let reserve = own + listeners * connections + 2 * uploads;
        Capacity {
            links: files.saturating_sub(reserve).min(most),
            connections: connections as usize,
            uploads: uploads as usize,
            reserve,
        }
    }
}

/// Raises the limit of open files as far as the configuration says, and tells what there is room for.
pub(crate) fn arrange<S: Seams>(seams: &S, config: &Config) -> Capacity {
    let files = seams.descriptors(config.limits.files);
    let listeners = 1 + [config.listen.recorder, config.listen.transfer].iter().flatten().count() as u64;
    let cloud = u64::from(config.sync.uploads) * (u64::from(config.sync.parts_in_flight) + 1);
    let fits = Capacity::of(files, listeners, cloud);
    let Some(Descriptors { soft, hard }) = files else { return fits };
    if let Some(wanted) = config.limits.files.filter(|wanted| *wanted > soft) {
        tracing::warn!(
            wanted,
            soft,
            hard,
            "the system does not allow as many open files as limits.files says"
        );
    }
    let (links, connections, reserve) = (fits.links, fits.connections, fits.reserve);
    tracing::info!(soft, hard, links, connections, reserve, "descriptors");
    fits
}

/// Descriptors for the store, the runtime, logs, and the recordings that are read: some forty at rest.
const OWN: u64 = 256;
/// Connections that a listener always takes: with fewer nobody could look at a site that is full.
const LEAST: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(soft: u64, listeners: u64, cloud: u64) -> Capacity {
        Capacity::of(Some(Descriptors { soft, hard: None }), listeners, cloud)
    }

    #[test]
    fn all_that_is_promised_fits_into_the_descriptors() {
        for files in [64, 100, 128, 256, 1024, 4096, 20_000, 65_536, 1 << 20] {
            for listeners in 1..=3 {
                for cloud in [0, 8, 800] {
                    let fits = of(files, listeners, cloud);
                    assert!(fits.links + fits.reserve <= files, "{files}: {fits:?}");
                    assert!(fits.links >= files / 4 || fits.links == 32_768, "{files}: {fits:?}");
                }
            }
        }
    }

    #[test]
    fn twenty_thousand_descriptors_are_enough_for_ten_thousand_recorders() {
        let fits = of(20_000, 1, 8);
        assert_eq!((fits.connections, fits.uploads, fits.reserve), (1024, 512, 2312));
        assert_eq!(fits.links, 17_688);
    }

    #[test]
    fn without_a_limit_the_bounds_are_those_of_the_core() {
        assert_eq!(Capacity::of(None, 3, 0).links, 32_768);
    }
}

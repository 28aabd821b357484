//! Ports of a site. Owns how one is opened and what it serves, no order of things.

use std::net::SocketAddr;

use axum::Router;
use tidegate_core::id::Role;

use super::{BootError, Site};
use crate::api::{Way, Ways};
use crate::config::{Config, Door};
use crate::door::{self, Complaints};
use crate::link::Links;
use crate::seam::{Listener, Net, Seams};

/// Listens, if the configuration says where.
pub(super) async fn listen<S: Seams>(
    seams: &S,
    key: &'static str,
    address: Option<SocketAddr>,
    complaints: &Complaints,
) -> Result<Option<door::Door<<S::Net as Net>::Listener>>, BootError> {
    let Some(address) = address else { return Ok(None) };
    match seams.net().bind(address).await {
        Ok(listener) => Ok(Some(door::Door::new(listener, complaints.clone()))),
        Err(error) => Err(BootError::Listen { key, address, error }),
    }
}

/// Where it listens in truth: port 0 is any.
pub(super) fn address_of<L: Listener>(socket: &Option<L>, wanted: SocketAddr) -> SocketAddr {
    socket.as_ref().and_then(|socket| socket.local_addr().ok()).unwrap_or(wanted)
}

/// The routes of a port of its own.
pub(super) fn own_port(links: &Links, role: Role, config: &Config, address: Option<SocketAddr>) -> Router {
    // Without an address nobody listens.
    links.router_of(role, config.demand(role, address.unwrap_or(config.listen.api)))
}

/// Where devices come, by what was configured and where it listens in truth.
pub(super) fn ways(config: &Config, site: &Site) -> Ways {
    let way = |door, address: SocketAddr| Way { port: address.port(), tls: config.listen.encrypts(door) };
    Ways {
        recorder_url: config.devices.recorder_url.clone(),
        transfer_url: config.devices.transfer_url.clone(),
        public_url: config.public_url.clone(),
        api: way(Door::Api, site.api_addr),
        recorder: site.recorder_addr.map(|address| way(Door::Recorder, address)),
        transfer: site.transfer_addr.map(|address| way(Door::Transfer, address)),
    }
}

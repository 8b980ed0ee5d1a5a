//! What changed, for people: one line each, and none when nothing did.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::{
    table::Knowledge,
    zone::{NodeSet, ZoneName, ZoneState},
};

/// Logs the difference. `why` tells what went wrong, if anything did.
pub fn tell(zone: &ZoneName, before: &Knowledge, after: &Knowledge, why: Option<&str>) {
    let (old, new) = (nodes(before), nodes(after));
    for node in new.iter().filter(|node| !old.contains(node)) {
        info!(%zone, %node, "node joined");
    }
    for node in old.iter().filter(|node| !new.contains(node)) {
        info!(%zone, %node, "node left");
    }
    let (from, to) = (state(before).word(), state(after).word());
    match why {
        _ if from == to => {}
        Some(why) => warn!(%zone, from, to, why, "zone state changed"),
        None => info!(%zone, from, to, "zone state changed"),
    }
}

/// Logs that a seed began or ceased to disagree with what is published.
pub fn tell_disagreement(zone: &ZoneName, seed: IpAddr, listed: &NodeSet, disagrees: bool) {
    if disagrees {
        let listed = listed.as_slice().len();
        warn!(%zone, %seed, listed, "seed disagrees: it lists nodes that have nothing in common with the zone's");
    } else {
        info!(%zone, %seed, "seed agrees again");
    }
}

/// The nodes that were learnt.
fn nodes(knowledge: &Knowledge) -> Vec<IpAddr> {
    match knowledge {
        Knowledge::Waiting(_) => Vec::new(),
        Knowledge::Known(known) => known.nodes.iter().map(|node| node.address).collect(),
    }
}

fn state(knowledge: &Knowledge) -> ZoneState {
    match knowledge {
        Knowledge::Waiting(_) => ZoneState::Waiting,
        Knowledge::Known(known) => known.state,
    }
}

//! What changed, for people: one line each, and none when nothing did.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::{
    table::{Answers, Knowledge},
    zone::{NodeSet, ZoneName},
};

/// Logs the difference. `why` tells what went wrong, if anything did.
pub fn tell(zone: &ZoneName, before: &Answers, after: &Answers, why: Option<&str>) {
    let (old, new) = (nodes(before), nodes(after));
    for node in new.iter().filter(|node| !old.contains(node)) {
        info!(%zone, %node, "node joined");
    }
    for node in old.iter().filter(|node| !new.contains(node)) {
        let now = state_of(*node, after);
        info!(%zone, %node, now, "node left");
    }
    let (from, to) = (before.state().word(), after.state().word());
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

/// The nodes that are answered; seeds are no nodes yet.
fn nodes(answers: &Answers) -> &[IpAddr] {
    match (&answers.knowledge, &answers.answered) {
        (Knowledge::Known(_), Some(answered)) => answered.as_slice(),
        _ => &[],
    }
}

/// What is held of a node that is answered no more.
fn state_of(node: IpAddr, answers: &Answers) -> &'static str {
    let Knowledge::Known(known) = &answers.knowledge else { return "unlisted" };
    known.nodes.iter().find(|known| known.address == node).map_or("unlisted", |known| known.state.word())
}

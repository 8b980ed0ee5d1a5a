//! Learns which nodes each zone has.
//!
//! - `poller`: the loop of one zone. It polls nodes, probes them, and performs what `membership` decides.
//! - `poll`: which nodes are asked for their lists, in which order, and how many at a time.
//! - `membership`: events in, actions out, without clock, socket or log. From what each node reports of itself it decides
//!   which nodes are of the zone's cluster, and which list is accepted.
//! - `node`: requests to one node over HTTP or HTTPS, and the parser of its lists.
//! - `seeds`: addresses of seeds; host names are looked up apart from the polls, so that a resolver that hangs delays none.
//! - `probes`: health probes of all zones' nodes. Zones with the same node and timeout share its probes.
//! - `changelog`: the log line for each change.
//!
//! Faults of nodes and the network are never returned as errors from here: each is an event for `membership`, a counter,
//! and a log line when something changes.

mod changelog;
mod clock;
mod membership;
pub mod node;
mod poll;
mod poller;
mod probes;
mod seeds;

pub use self::{
    changelog::NotAskedLog,
    clock::Pauses,
    membership::AddressOwnership,
    poll::{SharedReplies, Turns},
    poller::{Poller, Resources, Start},
    probes::Prober,
    seeds::HostLookup,
};

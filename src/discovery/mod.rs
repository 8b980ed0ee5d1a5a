//! Learns who is alive.
//!
//! A [`Poller`] is a short loop around a pure policy. One turn of it is a *tick*: candidates are asked one after the
//! other (`candidates` says in which order, `tick` how many at a time) for the list of nodes that they know
//! (`alternator` fetches it, `localnodes` reads it) until one of them is usable. What that means, and when it is time
//! to ask again, is decided by `step`, which has neither clock nor socket; the poller obeys, publishes to the zone's
//! entry in the table, and reports.
//!
//! Trouble never leaves this room as an error: it is an outcome of a tick, a counter, and a line in the log when
//! something changes. Host names among seeds are resolved apart from all that ([`HostLookup`]), so that a resolver
//! that hangs delays no poll. What is known is kept for the next start ([`Memory`]).

mod alternator;
mod candidates;
mod localnodes;
mod lookup;
mod news;
mod poller;
mod seeds;
mod snapshot;
mod step;
mod tick;

pub use self::{
    alternator::{Alternator, FetchError, Reply, SetUpError},
    candidates::CROWD_ZONES,
    localnodes::{BODY_OCTETS_MAX, Dropped, ListError, Listing, parse},
    lookup::HostLookup,
    poller::{Ask, Nodes, Poller, Start, Tools},
    snapshot::{Memory, MemoryError, MemoryKeeper, Remembered},
};

//! Learns who is alive.
//!
//! A [`Poller`] is a short loop around a pure policy. One turn of it is a *tick*: candidates are asked one after the
//! other (`candidates` says in which order, `tick` how many at a time, `asking` what) for the list of nodes that they
//! know (`alternator` fetches it, `tls` keeps the files that this may need, `localnodes` reads it) until one of them can
//! be believed.
//!
//! A list is a report. `claims` judges it by what is known, by what other zones publish (`ownership`) and by those
//! whom it leaves out. Each node that is believed to be one is probed (`probes`), and its standing kept (`health`).
//! [`Membership`] puts all of that together: it has neither clock nor socket, so that every story can be told in a test.
//! The poller asks, puts in what it hears, and publishes what comes out to the zone's entry in the table.
//!
//! Trouble never leaves this room as an error: it is an input to the membership, a counter, and a line in the log when
//! something changes. Host names among seeds are resolved apart from all that ([`HostLookup`]), so that a resolver
//! that hangs delays no poll. What is known is kept for the next start ([`Memory`]).

mod changelog;
mod clock;
mod membership;
mod node;
mod poll;
mod poller;
mod probes;
mod seeds;

pub use self::{
    membership::AddressOwnership,
    node::{BODY_OCTETS_MAX, Dropped, ListError, Listing, NODES_MAX, NodeClient, SetUpError, parse},
    poller::{Poller, Resources, Start},
    probes::{Prober, ZONE_PROBES_PER_SECOND},
    seeds::HostLookup,
};

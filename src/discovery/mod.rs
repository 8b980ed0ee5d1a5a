//! Learns who is alive.

mod alternator;
mod localnodes;
#[allow(dead_code)]
mod lookup;
#[allow(dead_code)]
mod seeds;

pub use self::{
    alternator::{Alternator, FetchError, Reply, SetUpError},
    localnodes::{BODY_OCTETS_MAX, Dropped, ListError, Listing, parse},
    lookup::HostLookup,
};

//! Learns who is alive.

mod alternator;
mod localnodes;

pub use self::{
    alternator::{Alternator, FetchError, Reply, SetUpError},
    localnodes::{BODY_OCTETS_MAX, Dropped, ListError, Listing, parse},
};

//! One node: what it is asked over HTTP, and what its answers say.

mod client;
mod connections;
mod expiring;
mod localnodes;
mod tls;

pub use self::{
    client::{Endpoint, FetchError, ListReply, Location, NodeClient, SetUpError},
    connections::Keep,
    localnodes::{BODY_OCTETS_MAX, Dropped, ListError, Listing, NODES_MAX, parse},
};

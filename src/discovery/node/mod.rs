//! One node: what it is asked over HTTP, and what its answers say.

mod client;
mod connections;
mod expiring;
mod identity;
mod localnodes;
mod tls;
mod verifier;

pub use self::{
    client::{Endpoint, FetchError, ListReply, Location, NodeClient},
    connections::Keep,
    identity::{
        IDENTITY_INTERVAL, IDENTITY_OCTETS_MAX, IdentityQuery, IdentityReply, Refusal, SECRET_FILE_OCTETS_MAX,
        SIGNED_REFUSED_PAUSE, SecretKey, SecretKeyError, UNSIGNED_REFUSED_PAUSE, UnknownIdentity, parse_identity,
    },
    localnodes::{BODY_OCTETS_MAX, Dropped, ListError, Listing, NODES_MAX, parse},
    tls::{TLS_FILE_OCTETS_MAX, check_tls_files, tls_files},
};

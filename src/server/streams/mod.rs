//! DNS over TCP, TLS and HTTPS (RFC 7766, RFC 9210, RFC 7858, RFC 8484).
//!
//! [`accept`] takes the connections of one address, one task each. [`limits`] counts those of all addresses and keeps
//! them within bounds. [`protocol`] does the TLS handshake where there is one; then [`connection`] answers DNS messages on
//! the stream, plain or TLS alike, or [`https`] answers HTTP requests that carry them.

mod accept;
mod connection;
mod https;
mod limits;
mod protocol;

pub(super) use self::{accept::Listener, protocol::Protocol};
pub use self::{
    connection::framing,
    https::query_parameter,
    limits::{CLOSING_MAX, ConnectionLimits, Limits},
};

#[cfg(test)]
mod tests;

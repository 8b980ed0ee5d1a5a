//! What the OPT of a reply holds.

use std::sync::Arc;

use hickory_server::proto::{op::Edns as HickoryEdns, rr::rdata::opt::EdnsOption};

use super::{
    Client, cookie,
    query::{Edns, OPTION_COOKIE, OPTION_KEEPALIVE, OPTION_NSID, OPTION_PADDING},
    resolve::ExtendedError,
};
use crate::{metrics::Transport, table::ServerSettings};

/// Octets of the largest UDP message that we send and ask for: it passes every link unfragmented (DNS flag day 2020).
pub const UDP_OCTETS_MAX: u16 = 1232;

/// Octets of an OPT without options (RFC 6891, 6.1.2).
pub(super) const OPT_OCTETS: usize = 11;

/// Octets of an option before its data: code and length (RFC 6891, 6.1.2).
pub(super) const OPTION_HEAD_OCTETS: usize = 4;

/// Replies are padded to a multiple of so many octets (RFC 8467, 4.1): an eavesdropper learns little from their length.
const PADDING_BLOCK_OCTETS: usize = 468;

/// The code of the option that carries an extended error (RFC 8914, 5.1).
const OPTION_EXTENDED_ERROR: u16 = 15;

/// The OPT that answers an OPT: version 0, our own size, DO as it came, and of options what was asked for.
#[derive(Clone, Debug, Default)]
pub struct ReplyOpt {
    dnssec_ok: bool,
    id: Option<Arc<str>>,
    cookie: Option<[u8; 24]>,
    /// In tenths of a second.
    keepalive: Option<u16>,
    extended_error: Option<ExtendedError>,
    /// Whether the reply is to be padded.
    padded: bool,
}

impl ReplyOpt {
    /// Answers a client's OPT.
    pub fn new(asked: &Edns, server: &ServerSettings, client: &Client, extended_error: Option<ExtendedError>) -> Self {
        let cookie =
            asked.cookie.map(|cookie| cookie::make(&server.cookies.load(), &cookie, client.address, client.now));
        Self {
            dnssec_ok: asked.dnssec_ok,
            id: server.id.clone().filter(|_| asked.nsid),
            cookie,
            // Over HTTP and QUIC the carrier has words of its own for that (RFC 9250, 5.5.2).
            keepalive: (asked.keepalive && matches!(client.transport, Transport::Tcp | Transport::Tls))
                .then_some(server.keepalive),
            extended_error,
            // In the clear padding would only help whoever floods a third party (RFC 7830, 6).
            padded: asked.padding && client.transport.is_encrypted(),
        }
    }

    /// Whether the reply is to be padded, once it is written and its length is known.
    pub(super) fn is_padded(&self) -> bool {
        self.padded
    }

    /// Octets that it takes in a reply, apart from padding.
    pub fn octets(&self) -> usize {
        let head = OPTION_HEAD_OCTETS;
        OPT_OCTETS
            + self.id.as_ref().map_or(0, |id| head + id.len())
            + self.cookie.map_or(0, |cookie| head + cookie.len())
            + self.keepalive.map_or(0, |_| head + 2)
            + self.extended_error.map_or(0, |extended_error| head + 2 + extended_error.text().len())
    }

    /// The same in hickory's words.
    pub(super) fn hickory(&self) -> HickoryEdns {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(UDP_OCTETS_MAX).set_version(0).set_dnssec_ok(self.dnssec_ok);
        let mut add = |code, octets: Vec<u8>| edns.options_mut().insert(EdnsOption::Unknown(code, octets));
        if let Some(id) = &self.id {
            add(OPTION_NSID, id.as_bytes().to_vec());
        }
        if let Some(cookie) = self.cookie {
            add(OPTION_COOKIE, cookie.to_vec());
        }
        if let Some(keepalive) = self.keepalive {
            add(OPTION_KEEPALIVE, keepalive.to_be_bytes().to_vec());
        }
        if let Some(extended_error) = self.extended_error {
            add(
                OPTION_EXTENDED_ERROR,
                [&extended_error.code().to_be_bytes(), extended_error.text().as_bytes()].concat(),
            );
        }
        edns
    }
}

/// Pads an OPT whose message has so many octets without padding, and may have so many at most.
pub fn pad(edns: &mut HickoryEdns, octets: usize, octets_max: usize) {
    let least = octets + OPTION_HEAD_OCTETS;
    let padded = least.next_multiple_of(PADDING_BLOCK_OCTETS).min(octets_max);
    if let Some(zeros) = padded.checked_sub(least) {
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_PADDING, vec![0; zeros]));
    }
}

/// Takes the padding out of an OPT; whether there was any.
pub fn strip(edns: &mut HickoryEdns) -> bool {
    let options = edns.options_mut();
    let before = options.as_ref().len();
    options.remove(OPTION_PADDING.into());
    options.as_ref().len() < before
}

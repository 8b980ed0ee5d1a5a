//! The OPT of a reply.

use std::sync::Arc;

use hickory_server::proto::{op::Edns as HickoryEdns, rr::rdata::opt::EdnsOption};

use super::{
    Client, cookie,
    query::Edns,
    resolve::ExtendedError,
    wire::{
        OPT_OCTETS, OPTION_COOKIE, OPTION_EXTENDED_ERROR, OPTION_HEAD_OCTETS, OPTION_KEEPALIVE, OPTION_NSID,
        OPTION_PADDING, UDP_OCTETS_MAX,
    },
};
use crate::{metrics::Transport, table::ServerSettings};

/// Replies are padded to a multiple of this many octets (RFC 8467, 4.1): an eavesdropper learns little from their length.
const PADDING_BLOCK_OCTETS: usize = 468;

/// The OPT that answers an OPT: version 0, our own size, DO as it came, and the options that were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct ReplyOpt {
    dnssec_ok: bool,
    nsid: Option<Arc<str>>,
    cookie: Option<[u8; 24]>,
    /// In tenths of a second.
    keepalive: Option<u16>,
    extended_error: Option<ExtendedError>,
    is_padded: bool,
}

impl ReplyOpt {
    /// Answers a client's OPT.
    pub(super) fn new(edns: &Edns, server: &ServerSettings, client: &Client) -> Self {
        let cookie =
            edns.cookie.map(|option| cookie::make(&server.cookies.load(), &option, client.address, client.now));
        // HTTP and QUIC have timeouts of their own (RFC 9250, 5.5.2).
        let has_keepalive = edns.keepalive && matches!(client.transport, Transport::Tcp | Transport::Tls);
        Self {
            dnssec_ok: edns.dnssec_ok,
            nsid: server.id.clone().filter(|_| edns.nsid),
            cookie,
            keepalive: has_keepalive.then_some(server.keepalive),
            extended_error: None,
            // Unencrypted, padding would only amplify an attack on a third party (RFC 7830, 6).
            is_padded: edns.padding && client.transport.is_encrypted(),
        }
    }

    /// Adds the reason for the rcode, or for stale data.
    pub(super) fn set_extended_error(&mut self, error: ExtendedError) {
        self.extended_error = Some(error);
    }

    /// What was set by [`Self::set_extended_error`].
    pub(super) fn extended_error(&self) -> Option<ExtendedError> {
        self.extended_error
    }

    /// Whether the reply is to be padded, once it is written and its length is known.
    pub(super) fn is_padded(&self) -> bool {
        self.is_padded
    }

    /// Octets that it takes in a reply, without padding.
    pub(super) fn octets(&self) -> usize {
        let head = OPTION_HEAD_OCTETS;
        OPT_OCTETS
            + self.nsid.as_ref().map_or(0, |nsid| head + nsid.len())
            + self.cookie.map_or(0, |cookie| head + cookie.len())
            + self.keepalive.map_or(0, |_| head + 2)
            + self.extended_error.map_or(0, |error| head + 2 + error.text().len())
    }

    /// The same as hickory's type.
    pub(super) fn to_hickory(&self) -> HickoryEdns {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(UDP_OCTETS_MAX).set_version(0).set_dnssec_ok(self.dnssec_ok);
        let mut add = |code, octets: Vec<u8>| edns.options_mut().insert(EdnsOption::Unknown(code, octets));
        if let Some(nsid) = &self.nsid {
            add(OPTION_NSID, nsid.as_bytes().to_vec());
        }
        if let Some(cookie) = self.cookie {
            add(OPTION_COOKIE, cookie.to_vec());
        }
        if let Some(keepalive) = self.keepalive {
            add(OPTION_KEEPALIVE, keepalive.to_be_bytes().to_vec());
        }
        if let Some(error) = self.extended_error {
            add(OPTION_EXTENDED_ERROR, [&error.code().to_be_bytes(), error.text().as_bytes()].concat());
        }
        edns
    }
}

/// Pads an OPT. `octets` is the length of its message without padding, `octets_max` the limit of its length.
pub fn pad(edns: &mut HickoryEdns, octets: usize, octets_max: usize) {
    let least = octets + OPTION_HEAD_OCTETS;
    let padded = least.next_multiple_of(PADDING_BLOCK_OCTETS).min(octets_max);
    if let Some(zeros) = padded.checked_sub(least) {
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_PADDING, vec![0; zeros]));
    }
}

/// Removes the padding from an OPT, and returns whether there was any.
pub fn remove_padding(edns: &mut HickoryEdns) -> bool {
    let options = edns.options_mut();
    let before = options.as_ref().len();
    options.remove(OPTION_PADDING.into());
    options.as_ref().len() < before
}

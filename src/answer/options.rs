//! What the OPT of a reply holds.

use std::sync::Arc;

use hickory_server::proto::{op::Edns as HickoryEdns, rr::rdata::opt::EdnsOption};

use super::{
    Client, cookie,
    query::{Edns, OPTION_COOKIE, OPTION_KEEPALIVE, OPTION_NSID},
    resolve::Explanation,
};
use crate::{metrics::Transport, table::Server};

/// Octets of the largest UDP message that we send and ask for: it passes every link unfragmented (DNS flag day 2020).
pub const UDP_OCTETS_MAX: u16 = 1232;

/// Octets of an OPT without options (RFC 6891, 6.1.2).
pub(super) const OPT_OCTETS: usize = 11;

/// Octets of an option before its data: code and length (RFC 6891, 6.1.2).
pub(super) const OPTION_HEAD_OCTETS: usize = 4;

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
    explanation: Option<Explanation>,
}

impl ReplyOpt {
    /// Answers a client's OPT.
    pub fn new(asked: &Edns, server: &Server, client: &Client, explanation: Option<Explanation>) -> Self {
        let cookie =
            asked.cookie.map(|cookie| cookie::make(&server.cookies.load(), &cookie, client.address, client.now));
        Self {
            dnssec_ok: asked.dnssec_ok,
            id: server.id.clone().filter(|_| asked.nsid),
            cookie,
            keepalive: (asked.keepalive && client.transport != Transport::Udp).then_some(server.keepalive),
            explanation,
        }
    }

    /// Octets that it takes in a reply.
    pub fn octets(&self) -> usize {
        let head = OPTION_HEAD_OCTETS;
        OPT_OCTETS
            + self.id.as_ref().map_or(0, |id| head + id.len())
            + self.cookie.map_or(0, |cookie| head + cookie.len())
            + self.keepalive.map_or(0, |_| head + 2)
            + self.explanation.map_or(0, |explanation| head + 2 + explanation.text().len())
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
        if let Some(explanation) = self.explanation {
            add(OPTION_EXTENDED_ERROR, [&explanation.code().to_be_bytes(), explanation.text().as_bytes()].concat());
        }
        edns
    }
}

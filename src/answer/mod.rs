//! How what is known is told: octets in, octets out, no socket.
//!
//! A message passes three rooms. [`query`] reads it and owns silence, FORMERR, NOTIMP and BADVERS. [`resolve()`] looks
//! at the table and owns every other rcode; it is a function in the strict sense. [`complete`] writes the resolution, with
//! nodes that a [`Worker`] deals: chance is an argument. [`answer`] is the door: every transport goes through it. The
//! everyday question takes the fast path (`fast`), which does all three at once. A question that only upstreams can
//! answer comes back later, with what they said, through a door of its own: [`answer_forwarded`].

mod cookie;
mod fast;
mod forwarded;
pub mod options;
pub mod query;
pub mod render;
pub mod resolve;
#[cfg(test)]
mod tests;
mod worker;

use std::net::IpAddr;

pub use self::{
    forwarded::{UpstreamOutcome, answer_forwarded},
    options::UDP_OCTETS_MAX,
    query::{Parsed, Query, parse},
    resolve::{Resolution, resolve},
    worker::Worker,
};
use self::{
    options::ReplyOpt,
    query::{Edns, Reject},
    resolve::Outcome,
};
use crate::{
    metrics::{IgnoreReason, ProcessCounters, QueryType, Rcode, Transport},
    table::{Admission, ServerSettings, ZoneTable},
};

/// Who asks, over what, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Client {
    /// Where replies go.
    pub address: IpAddr,
    /// What carries them.
    pub transport: Transport,
    /// The unix time in seconds; it wraps as serials do.
    pub now: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Answered {
    /// The reply is in `out`.
    Reply,
    /// There is none, and `out` is empty.
    Silence,
    /// The upstreams are to be asked, and `out` is empty; what they say goes to [`answer_forwarded`]. Nothing has been
    /// counted yet.
    Forward,
}

/// Answers one message into `out` and counts it.
///
/// `worker` chooses the nodes and their order. It deals evenly over all questions that it is given, so each worker
/// keeps one for as long as it works.
pub fn answer(
    table: &ZoneTable,
    counters: &ProcessCounters,
    message: &[u8],
    client: &Client,
    worker: &mut Worker,
    out: &mut Vec<u8>,
) -> Answered {
    let answered = if fast::answer(table, counters, message, client, worker, out) {
        Answered::Reply
    } else {
        answer_slow(table, counters, message, client, worker, out)
    };
    if answered == Answered::Reply && table.server().forwards_for(client.address) {
        render::offer_recursion(out);
    }
    answered
}

/// Answers any message. Public so that a fuzzer can hold both paths to the same reply.
#[doc(hidden)]
pub fn answer_slow(
    table: &ZoneTable,
    counters: &ProcessCounters,
    message: &[u8],
    client: &Client,
    worker: &mut Worker,
    out: &mut Vec<u8>,
) -> Answered {
    let server = table.server();
    match parse(message) {
        Parsed::Query(query) => {
            if let Some(outcome) = hold_back(server, counters, &Reject::from(&query), client, out) {
                return outcome;
            }
            let resolution = resolve(table, &query, client);
            if matches!(resolution.outcome, Outcome::Forward) {
                out.clear();
                return Answered::Forward;
            }
            let queries = match &resolution.zone {
                Some(zone) if !zone.entry.is_domain() => &zone.entry.counters().queries,
                _ => &counters.no_zone,
            };
            queries.of(resolve::label(query.query_type), resolution.rcode(), client.transport).increment();
            let opt = query.edns.map(|edns| ReplyOpt::new(&edns, server, client, resolution.extended_error));
            render::render(&query, &resolution, opt.as_ref(), client, worker, out);
            Answered::Reply
        }
        Parsed::Reject(reject) => {
            if let Some(outcome) = hold_back(server, counters, &reject, client, out) {
                return outcome;
            }
            reply_bare(server, counters, &reject, client, false, out)
        }
        Parsed::Ignore(reason) => ignore(counters, reason, out),
    }
}

/// What a client gets whose network asks too much; `None`: its reply, as everybody does.
fn hold_back(
    server: &ServerSettings,
    counters: &ProcessCounters,
    asked: &Reject<'_>,
    client: &Client,
    out: &mut Vec<u8>,
) -> Option<Answered> {
    let limiter = server.limiter.as_ref().filter(|_| client.transport == Transport::Udp)?;
    let cookie = asked.edns.and_then(|edns: Edns| edns.cookie);
    if cookie.is_some_and(|cookie| cookie::is_valid(&server.cookies.load(), &cookie, client.address, client.now)) {
        return None;
    }
    match limiter.admit(client.address, client.now) {
        Admission::Reply => None,
        // An error is as short as what would stand in its place.
        Admission::Slip if asked.rcode != Rcode::Refused => None,
        // Who knows cookies comes back with the one that it gets now; whoever else, over TCP.
        Admission::Slip if cookie.is_some() => {
            let asked = Reject { rcode: Rcode::BadCookie, ..*asked };
            Some(reply_bare(server, counters, &asked, client, false, out))
        }
        Admission::Slip => {
            let asked = Reject { rcode: Rcode::NoError, ..*asked };
            Some(reply_bare(server, counters, &asked, client, true, out))
        }
        Admission::Silence => Some(ignore(counters, IgnoreReason::RateLimited, out)),
    }
}

fn reply_bare(
    server: &ServerSettings,
    counters: &ProcessCounters,
    reject: &Reject<'_>,
    client: &Client,
    truncated: bool,
    out: &mut Vec<u8>,
) -> Answered {
    counters.no_zone.of(QueryType::Other, reject.rcode, client.transport).increment();
    let opt = reject.edns.map(|edns| ReplyOpt::new(&edns, server, client, None));
    render::render_reject(reject, opt.as_ref(), truncated, out);
    Answered::Reply
}

fn ignore(counters: &ProcessCounters, reason: IgnoreReason, out: &mut Vec<u8>) -> Answered {
    counters.ignored.of(reason as usize).increment();
    out.clear();
    Answered::Silence
}

impl<'m> From<&Query<'m>> for Reject<'m> {
    /// The same question, to be answered without records.
    fn from(query: &Query<'m>) -> Self {
        let Query { id, recursion_desired, question, edns, .. } = *query;
        Self { id, opcode: 0, recursion_desired, rcode: Rcode::Refused, question, edns }
    }
}

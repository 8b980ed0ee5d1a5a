//! From a message's octets to the reply's octets, without a socket.
//!
//! [`query`] parses a message and decides which get silence, FORMERR, NOTIMP or BADVERS. [`resolve()`] looks the name up
//! in the table and decides every other rcode; it is a pure function. `records` and `forwarded` fill the records of a
//! zone or of an upstream into a `Reply`, which `render` writes. A [`Worker`] chooses the nodes: chance is an argument.
//!
//! [`Responder::answer`] does all of it for every transport. A common question takes the fast path (`fast`), from
//! octets to octets. A question for upstreams is answered later, by [`Responder::answer_forwarded`].

mod cookie;
mod fast;
mod forwarded;
pub mod options;
pub mod query;
mod records;
mod render;
pub mod resolve;
mod soa;
#[cfg(test)]
mod tests;
pub mod wire;
mod worker;
mod zone_match;

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

pub use self::{
    forwarded::{ForwardedQuestion, UpstreamOutcome},
    query::{Parsed, Query, parse},
    resolve::{Resolution, resolve},
    worker::Worker,
    zone_match::{Family, ViewMatch, ZoneMatch},
};
use self::{
    query::Request,
    render::Reply,
    resolve::{Match, Outcome, query_type_label},
};
use crate::{
    metrics::{IgnoreReason, ProcessCounters, QueryType, Rcode, Transport},
    table::{Admission, ZoneTable},
};

/// The sender of a message, its transport, and the time.
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
    /// The upstreams are to be asked, and `out` is empty; [`Responder::answer_forwarded`] writes their answer. Nothing
    /// has been counted yet.
    Forward,
}

/// Answers messages from one state of the zone table, and counts them.
#[derive(Clone, Copy, Debug)]
pub struct Responder<'t> {
    /// The zones.
    pub table: &'t ZoneTable,
    /// Counters of what is no zone's.
    pub counters: &'t ProcessCounters,
}

impl Responder<'_> {
    /// Answers one message into `out`.
    ///
    /// `worker` chooses the nodes and their order. It names nodes equally often over all questions that it is given, so
    /// each thread keeps one.
    pub fn answer(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> Answered {
        if self.answer_fast(message, client, worker, out) {
            return Answered::Reply;
        }
        self.answer_slow(message, client, worker, out)
    }

    /// Answers any message. Public so that a fuzzer can compare both paths.
    #[doc(hidden)]
    pub fn answer_slow(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> Answered {
        match parse(message) {
            Parsed::Query(query) => match self.rate_limit(&query.request, client) {
                RateLimited::No => self.answer_query(&query, client, worker, out),
                RateLimited::Slip(slip) => self.answer_slip(slip, &query.request, client, out),
                RateLimited::Drop => self.ignore(IgnoreReason::RateLimited, out),
            },
            // An error is as short as a slip, so it is sent in its place.
            Parsed::Reject { request, rcode } => match self.rate_limit(&request, client) {
                RateLimited::No | RateLimited::Slip(_) => self.answer_error(rcode, &request, client, out),
                RateLimited::Drop => self.ignore(IgnoreReason::RateLimited, out),
            },
            Parsed::Ignore(reason) => self.ignore(reason, out),
        }
    }

    /// Answers into `out` a question for which [`Self::answer`] returned [`Answered::Forward`]. `worker` chooses the nodes
    /// where an alias leads into a zone.
    pub fn answer_forwarded(
        &self,
        question: ForwardedQuestion<'_>,
        outcome: &UpstreamOutcome,
        worker: &Mutex<Worker>,
        out: &mut Vec<u8>,
    ) -> Answered {
        let ForwardedQuestion { message, client } = question;
        let Parsed::Query(query) = parse(message) else {
            // It was a question when it was forwarded.
            out.clear();
            return Answered::Silence;
        };
        let mut reply = self.reply(&query.request, client);
        let alias = match outcome {
            UpstreamOutcome::Message(message) => forwarded::alias_into(self.table, &query, message),
            _ => None,
        };
        match alias.as_ref().and_then(|alias| Some((alias, query.about(&alias.question)?))) {
            Some((alias, target)) => {
                reply.fill_aliases(alias, &query.request);
                self.append_target(&target, client, worker, &mut reply);
            }
            None => reply.fill_forwarded(outcome, &query.request),
        }
        self.counters.no_zone.of(query_type_label(query.query_type), reply.rcode(), client.transport).increment();
        self.counters.forwarded.of(outcome.result()).increment();
        reply.render(out);
        Answered::Reply
    }

    /// Adds our answer about the target of an alias.
    fn append_target(&self, target: &Query<'_>, client: &Client, worker: &Mutex<Worker>, reply: &mut Reply<'_>) {
        let mut own = self.reply(&target.request, client);
        own.leave_space_for(reply);
        // Nothing behind the lock panics half-way.
        let worker = &mut worker.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = own.fill(&resolve(self.table, target, client), worker);
        if filled.and_then(|()| reply.append(own)).is_err() {
            reply.fail();
        }
    }

    fn answer_query(&self, query: &Query<'_>, client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> Answered {
        let resolution = resolve(self.table, query, client);
        if matches!(resolution.outcome, Outcome::Forward) {
            out.clear();
            return Answered::Forward;
        }
        let queries = match &resolution.matched {
            Some(Match::Zone(zone)) => &zone.entry.counters().queries,
            Some(Match::Domain(_)) | None => &self.counters.no_zone,
        };
        let query_type = query_type_label(query.query_type);
        queries.of(query_type, resolution.rcode(), client.transport).increment();
        if let Some(view) = resolution.view() {
            view.entry.counters().queries.of(query_type, resolution.rcode(), client.transport).increment();
        }
        let mut reply = self.reply(&query.request, client);
        if reply.fill(&resolution, worker).is_err() {
            reply.fail();
        }
        reply.render(out);
        Answered::Reply
    }

    /// Replies with an rcode alone.
    fn answer_error(&self, rcode: Rcode, request: &Request<'_>, client: &Client, out: &mut Vec<u8>) -> Answered {
        let mut reply = self.reply(request, client);
        reply.set_rcode(rcode);
        self.send_without_records(reply, client, out)
    }

    fn answer_slip(&self, slip: Slip, request: &Request<'_>, client: &Client, out: &mut Vec<u8>) -> Answered {
        let mut reply = self.reply(request, client);
        match slip {
            Slip::Truncated => reply.set_truncated(),
            Slip::BadCookie => reply.set_rcode(Rcode::BadCookie),
        }
        self.send_without_records(reply, client, out)
    }

    fn send_without_records(&self, reply: Reply<'_>, client: &Client, out: &mut Vec<u8>) -> Answered {
        self.counters.no_zone.of(QueryType::Other, reply.rcode(), client.transport).increment();
        reply.render(out);
        Answered::Reply
    }

    fn reply<'m>(&self, request: &Request<'m>, client: &Client) -> Reply<'m> {
        Reply::new(request, self.table.server(), client)
    }

    fn ignore(&self, reason: IgnoreReason, out: &mut Vec<u8>) -> Answered {
        self.counters.ignored.of(reason).increment();
        out.clear();
        Answered::Silence
    }

    /// Applies `rate_limit` to a message. A client with a valid cookie is not limited: its address is its own.
    fn rate_limit(&self, request: &Request<'_>, client: &Client) -> RateLimited {
        let server = self.table.server();
        let Some(limiter) = server.limiter.as_ref().filter(|_| client.transport == Transport::Udp) else {
            return RateLimited::No;
        };
        let cookie = request.edns.and_then(|edns| edns.cookie);
        if cookie.is_some_and(|cookie| cookie::is_valid(&server.cookies.load(), &cookie, client.address, client.now)) {
            return RateLimited::No;
        }
        match limiter.admit(client.address) {
            Admission::Reply => RateLimited::No,
            Admission::Slip if cookie.is_some() => RateLimited::Slip(Slip::BadCookie),
            Admission::Slip => RateLimited::Slip(Slip::Truncated),
            Admission::Silence => RateLimited::Drop,
        }
    }
}

/// What the rate limit does with a message.
enum RateLimited {
    /// It is answered.
    No,
    /// It gets a short reply, with TC or a fresh cookie, so that a client that owns its address can ask again.
    Slip(Slip),
    /// It gets no reply.
    Drop,
}

/// A short reply in place of an answer.
#[derive(Clone, Copy)]
enum Slip {
    /// The client asks again over TCP.
    Truncated,
    /// The client, which uses cookies, asks again with the server cookie of this reply.
    BadCookie,
}

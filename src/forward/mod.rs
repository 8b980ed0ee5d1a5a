//! How names of no zone are answered: upstream resolvers are asked, and their answers are cached as long as their TTLs say.
//!
//! Answers are passed on and not interpreted. `upstream` asks one resolver (`udp`, `stream`); `query` says what is a reply,
//! and `reply` what it means. [`Upstreams`] asks one after the other: `trust` decides the order, and `selection` which of
//! their replies is passed on. Equal questions are asked once (`single_flight`).

mod cache;
mod error;
mod query;
mod reply;
mod selection;
mod single_flight;
mod sockets;
mod stream;
mod trust;
mod udp;
mod upstream;

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use hickory_server::proto::{op::Message, rr::Name, serialize::binary::BinDecodable as _};
use rustls::RootCertStore;
use tokio::time::{sleep_until, timeout, timeout_at};

pub use self::sockets::{QUESTIONS_MAX, SOCKETS_MAX};
use self::{
    cache::AnswerCache,
    error::AttemptError,
    query::{Received, UpstreamQuery},
    reply::UpstreamAnswer,
    selection::ReplySelection,
    single_flight::SingleFlight,
    sockets::{Purpose, Sockets},
    trust::UpstreamTrust,
    upstream::UpstreamClient,
};
use crate::{config::Upstream, net::http::trusting, types::ZoneName};

/// The next upstream is asked as well when the last has not replied by then. A recursive resolver takes less for most
/// names, and a stub resolver, which waits for five seconds, is far from giving up.
const HEDGE_AFTER: Duration = Duration::from_millis(750);

/// How long a probe of an upstream is waited for. It asks what the upstream has answered without delay before. In that time a
/// lost datagram is sent again, and a dead connection replaced.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// The first question for a probe, in wire format: NS of the root, which every resolver knows.
const ROOT: &[u8] = b"\0";
const TYPE_NS: u16 = 2;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// An upstream replied with an error: SERVFAIL, REFUSED, and the like.
    #[error("the upstreams reply with errors")]
    ErrorReply,
    /// No upstream replied.
    #[error("no upstream replies")]
    NoReply,
    /// No upstream could be asked, because this host or this process has no socket left.
    #[error("no socket is free to ask an upstream")]
    NoSocket,
}

impl From<AttemptError> for UpstreamError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::ErrorReply => Self::ErrorReply,
            AttemptError::NoReply => Self::NoReply,
            AttemptError::Shortage => Self::NoSocket,
        }
    }
}

/// The resolvers of one configuration, and their cached answers.
pub struct Upstreams(Arc<Shared>);

struct Shared {
    upstreams: Vec<UpstreamState>,
    trust: UpstreamTrust,
    cache: AnswerCache,
    in_flight: SingleFlight<UpstreamQuery, Outcome>,
}

/// Reads a reply to a question for a name in wire format and a type as [`Upstreams::ask`] does. Public so that a fuzzer
/// can call it.
#[doc(hidden)]
pub fn read_reply(name: &[u8], query_type: u16, octets: &[u8]) -> Option<Message> {
    let query = UpstreamQuery::new(name, query_type, false)?;
    let id = octets.first_chunk().copied().map(u16::from_be_bytes)?;
    let Received::Message { message, .. } = query.read(id, octets.to_vec())? else { return None };
    Some(UpstreamAnswer::new(message, query.query_type())?.aged(Duration::ZERO))
}

/// An upstream, and what it is asked as a probe.
struct UpstreamState {
    address: SocketAddr,
    client: UpstreamClient,
    /// The last question that it answered without delay.
    answered: Mutex<Option<UpstreamQuery>>,
}

type Outcome = Result<Arc<UpstreamAnswer>, UpstreamError>;

/// An answer, and its octets.
type Reply = (UpstreamAnswer, Vec<u8>);

impl Upstreams {
    /// Upstreams that have not been asked yet. `roots` are the authorities that upstreams with TLS are checked against.
    pub fn new(upstreams: &[Upstream], roots: Arc<RootCertStore>) -> Self {
        let tls = Arc::new(trusting(roots));
        let sockets = Arc::new(Sockets::new());
        let state = |upstream: &Upstream| UpstreamState {
            address: upstream.address,
            client: UpstreamClient::new(upstream, &tls, &sockets),
            answered: Mutex::default(),
        };
        Self(Arc::new(Shared {
            upstreams: upstreams.iter().map(state).collect(),
            trust: UpstreamTrust::new(upstreams.len()),
            cache: AnswerCache::new(),
            in_flight: SingleFlight::new(),
        }))
    }

    /// The cached answer for a name in wire format and a type, in class IN, if there is one.
    pub fn cached(&self, name: &[u8], query_type: u16, dnssec_ok: bool) -> Option<Message> {
        self.0.cache.get(&UpstreamQuery::new(name, query_type, dnssec_ok)?, Instant::now())
    }

    /// Asks for a name in wire format and a type, in class IN. Must be called on a runtime.
    ///
    /// # Errors
    /// No upstream has an answer by the deadline.
    pub async fn ask(
        &self,
        name: &[u8],
        query_type: u16,
        dnssec_ok: bool,
        deadline: tokio::time::Instant,
    ) -> Result<Message, UpstreamError> {
        let query = UpstreamQuery::new(name, query_type, dnssec_ok).ok_or(UpstreamError::ErrorReply)?;
        // An equal question may have been answered since this one was submitted.
        if let Some(cached) = self.0.cache.get(&query, Instant::now()) {
            return Ok(cached);
        }
        let ask = || self.0.clone().answer(query.clone(), deadline).boxed();
        let outcome = timeout_at(deadline, self.0.in_flight.join(query.clone(), ask));
        // The flight has the deadline of its first question, which is earlier, and what it decides then comes in the same turn.
        let answer = outcome.await.map_err(|_| UpstreamError::NoReply)??;
        Ok(answer.message().clone())
    }

    /// Removes the cached answers for a name and those below it; `None`: all. Returns how many.
    pub fn flush(&self, name: Option<&ZoneName>) -> usize {
        let Some(name) = name else { return self.0.cache.flush(None, Instant::now()) };
        Name::from_bytes(name.wire()).map_or(0, |name| self.0.cache.flush(Some(&name), Instant::now()))
    }
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstreams({})", self.0.upstreams.len())
    }
}

impl Shared {
    /// The answer to a question, which is cached.
    async fn answer(self: Arc<Self>, query: UpstreamQuery, deadline: tokio::time::Instant) -> Outcome {
        let (upstream, (mut answer, octets)) = self.ask_in_order(&query, deadline).await?;
        if upstream > 0 {
            // The first one of the file has not answered.
            answer.make_provisional();
        }
        self.cache.insert(query, &answer, octets, Instant::now());
        Ok(Arc::new(answer))
    }

    /// Asks one upstream after the other, the next when the last has failed or is slow, until there is an outcome. Returns
    /// the upstream that it is from, too.
    async fn ask_in_order(
        self: &Arc<Self>,
        query: &UpstreamQuery,
        deadline: tokio::time::Instant,
    ) -> Result<(usize, Reply), AttemptError> {
        self.trust.due_probes(Instant::now()).into_iter().for_each(|upstream| self.probe(upstream));
        let mut order = self.trust.order().into_iter();
        let mut asked = Vec::new();
        let mut selection = ReplySelection::new();
        let mut replies = FuturesUnordered::new();
        let mut is_late = true;
        let mut hedge = pin!(sleep_until(deadline));
        loop {
            let may_ask = !selection.has_answer() && (is_late || selection.wants_another());
            is_late = false;
            if let Some(upstream) = may_ask.then(|| order.next()).flatten() {
                let attempt = selection.begin();
                asked.push(upstream);
                let purpose = if replies.is_empty() { Purpose::Question } else { Purpose::Hedge };
                replies.push(self.attempt(upstream, query, purpose).map(move |reply| (attempt, upstream, reply)));
                hedge.as_mut().reset(tokio::time::Instant::now() + HEDGE_AFTER);
            } else if let Some(outcome) = selection.decide() {
                return outcome;
            }
            tokio::select! {
                Some((attempt, upstream, reply)) = replies.next() => match reply {
                    Ok(reply) if reply.0.is_negative() => selection.negative(attempt, (upstream, reply)),
                    Ok(reply) => return Ok((upstream, reply)),
                    Err(error) => {
                        self.note_failure(upstream, error);
                        selection.failed(attempt, error);
                    }
                },
                () = &mut hedge, if selection.last_pending().is_some() => {
                    if let Some(silent) = selection.last_pending().and_then(|attempt| asked.get(attempt)) {
                        self.note_failure(*silent, AttemptError::NoReply);
                    }
                    is_late = true;
                    hedge.as_mut().reset(deadline);
                }
                () = sleep_until(deadline) => return selection.take(),
            }
        }
    }

    /// Asks one upstream. One that replies is trusted.
    async fn attempt(&self, upstream: usize, query: &UpstreamQuery, purpose: Purpose) -> Result<Reply, AttemptError> {
        let Some(state) = self.upstreams.get(upstream) else { return Err(AttemptError::NoReply) };
        let began = Instant::now();
        let reply = state.client.ask(query, purpose).await;
        if matches!(reply, Ok(_) | Err(AttemptError::ErrorReply)) && self.trust.replied(upstream, Instant::now()) {
            tracing::info!(upstream = %state.address, "an upstream replies again");
        }
        if reply.is_ok() && began.elapsed() < HEDGE_AFTER {
            *state.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(query.clone());
        }
        reply
    }

    /// Starts a probe of an upstream that did not reply.
    fn note_failure(self: &Arc<Self>, upstream: usize, error: AttemptError) {
        if error == AttemptError::NoReply && self.trust.was_silent(upstream, Instant::now()) {
            self.probe(upstream);
        }
    }

    /// Asks an upstream what it has answered before, to learn whether it replies.
    fn probe(self: &Arc<Self>, upstream: usize) {
        let began = Instant::now();
        let Some(state) = self.upstreams.get(upstream) else { return };
        let answered = state.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(query) = answered.or_else(|| UpstreamQuery::new(ROOT, TYPE_NS, false)) else { return };
        let shared = self.clone();
        // It ends after PROBE_MAX, or with its runtime.
        drop(tokio::spawn(async move {
            let reply = timeout(PROBE_MAX, shared.attempt(upstream, &query, Purpose::Probe)).await;
            if matches!(reply, Err(_) | Ok(Err(AttemptError::NoReply))) {
                let is_worth_a_line = shared.trust.probe_failed(upstream, began, Instant::now());
                if is_worth_a_line && let Some(state) = shared.upstreams.get(upstream) {
                    tracing::warn!(upstream = %state.address, "an upstream does not reply; the others are asked first");
                }
            }
        }));
    }
}

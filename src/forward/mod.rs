//! How names of no zone are answered: upstream resolvers are asked, and their answers are cached as long as their TTLs say.
//!
//! hickory-resolver speaks to one upstream (UDP, TCP after truncation, TLS) and caches answers. Its `Resolver` is not
//! used, because it interprets answers (it follows aliases, and knows some names of its own), whereas a forwarder passes
//! them on. The order of upstreams is decided here: the first of the file without a penalty, and the next one when it
//! fails or is slow.

mod penalty;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::{
    NameServerPool, PoolContext, ResponseCache, TlsConfig, TtlConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts},
    net::{
        DnsError, NetError, NoRecords,
        runtime::TokioRuntimeProvider,
        xfer::{DnsHandle, FirstAnswer},
    },
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Message, OpCode, Query},
        rr::{Name, RecordType},
        serialize::binary::BinDecodable,
    },
};
use rustls::RootCertStore;
use tokio::time::sleep;

use self::penalty::UpstreamPenalty;
use crate::{config::Upstream, net::http::trusting};

/// How long one upstream is waited for. It is shorter than a question's deadline, so that a missing reply is noticed.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The next upstream is asked as well when the last has not replied by then. A recursive resolver takes less for most
/// names, and a stub resolver, which waits for five seconds, is far from giving up.
const HEDGE_AFTER: Duration = Duration::from_millis(750);

/// Cached answers, with and without signatures each.
const CACHED_ANSWERS: u64 = 4096;

/// Octets of the largest answer that is cached. With [`CACHED_ANSWERS`] that is 32 MiB on the wire at worst; one is typical.
const CACHED_OCTETS_MAX: usize = 4096;

/// Authority records of the largest denial that is cached; with signatures it has eight.
const CACHED_DENIAL_RECORDS_MAX: usize = 32;

/// Questions in flight on one connection to an upstream (TCP, TLS).
const QUESTIONS_PER_CONNECTION: usize = 256;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UpstreamError {
    /// An upstream replied with an error: SERVFAIL, REFUSED, and the like.
    #[error("the upstreams reply with errors")]
    ErrorReply,
    /// No upstream replied.
    #[error("no upstream replies")]
    NoReply,
}

/// The resolvers of one configuration, and their cached answers.
pub struct Upstreams {
    upstreams: Vec<Pool>,
    penalty: UpstreamPenalty,
    cache: ResponseCache,
    /// Answers to questions with DO, which ask for signatures.
    signed_cache: ResponseCache,
}

type Pool = NameServerPool<TokioRuntimeProvider>;

impl Upstreams {
    /// Upstreams that have not been asked yet. `roots` are the authorities that upstreams with TLS are checked against.
    pub fn new(upstreams: &[Upstream], roots: Arc<RootCertStore>) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = ATTEMPT;
        options.max_active_requests = QUESTIONS_PER_CONNECTION;
        let tls = trusting(roots);
        let pool = |upstream: &Upstream| {
            let context = PoolContext::new(options.clone(), TlsConfig { config: tls.clone() });
            Pool::from_config([name_server(upstream)], Arc::new(context), TokioRuntimeProvider::new())
        };
        let cache = || ResponseCache::new(CACHED_ANSWERS, TtlConfig::default());
        Self {
            upstreams: upstreams.iter().map(pool).collect(),
            penalty: UpstreamPenalty::new(upstreams.len()),
            cache: cache(),
            signed_cache: cache(),
        }
    }

    /// Asks for a name in wire format and a type, in class IN.
    ///
    /// # Errors
    /// No upstream has an answer. It takes at most three seconds after the last of them was asked; a caller with less
    /// time may drop the future.
    pub async fn ask(&self, name: &[u8], query_type: u16, dnssec_ok: bool) -> Result<Message, UpstreamError> {
        let name = Name::from_bytes(name).map_err(|_| UpstreamError::ErrorReply)?;
        let query = Query::query(name, RecordType::from(query_type));
        let cache = if dnssec_ok { &self.signed_cache } else { &self.cache };
        if let Some(Attempt::Answer(cached)) = cache.get(&query, Instant::now()).map(Attempt::from) {
            return Ok(cached.into_message());
        }
        let answer = self.ask_in_order(&query, dnssec_ok).await?;
        let is_cacheable = answer.is_cacheable(&query);
        let answer = answer.map(DnsResponse::into_message);
        if is_cacheable {
            cache.insert(query, answer.clone().into_hickory(), Instant::now());
        }
        Ok(answer.into_message())
    }

    /// Asks one upstream after the other until one has answered; those that were slower than it get a penalty.
    async fn ask_in_order(&self, query: &Query, dnssec_ok: bool) -> Result<Answer<DnsResponse>, UpstreamError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_set_dnssec_ok = dnssec_ok;
        options.recursion_desired = true;
        let mut order = self.penalty.order(Instant::now()).into_iter().peekable();
        let mut attempts = FuturesUnordered::new();
        let mut unanswered = Vec::new();
        let mut error = UpstreamError::NoReply;
        loop {
            if let Some((number, upstream)) = order.next().and_then(|n| Some((n, self.upstreams.get(n)?))) {
                let request = DnsRequest::from_query(query.clone(), options);
                let reply = upstream.send(request).first_answer();
                attempts.push(async move { (number, Attempt::from(reply.await)) });
                unanswered.push(number);
            } else if attempts.is_empty() {
                return Err(error);
            }
            tokio::select! {
                Some((number, attempt)) = attempts.next() => match attempt {
                    Attempt::Answer(answer) => {
                        let earlier = unanswered.iter().take_while(|upstream| **upstream != number);
                        earlier.for_each(|slow| self.penalty.penalize(*slow, Instant::now()));
                        return Ok(answer);
                    }
                    Attempt::ErrorReply => {
                        unanswered.retain(|upstream| *upstream != number);
                        error = UpstreamError::ErrorReply;
                    }
                    Attempt::NoReply => self.penalty.penalize(number, Instant::now()),
                },
                () = sleep(HEDGE_AFTER), if order.peek().is_some() => {}
            }
        }
    }
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstreams({})", self.upstreams.len())
    }
}

/// How hickory speaks to an upstream.
fn name_server(upstream: &Upstream) -> NameServerConfig {
    let at = |mut connection: ConnectionConfig, address: SocketAddr| {
        connection.port = address.port();
        connection
    };
    let connections = match &upstream.tls_name {
        Some(name) => vec![ConnectionConfig::tls(name.as_str().into())],
        None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
    };
    let connections = connections.into_iter().map(|connection| at(connection, upstream.address)).collect();
    NameServerConfig::new(upstream.address.ip(), true, connections)
}

/// How one upstream replied.
enum Attempt<R> {
    Answer(Answer<R>),
    /// An error. Another upstream may have an answer.
    ErrorReply,
    NoReply,
}

/// An answer. hickory represents a denial as an error.
#[derive(Clone)]
enum Answer<R> {
    Records(R),
    /// NXDOMAIN or NODATA.
    Denial(NoRecords),
}

impl<R> From<Result<R, NetError>> for Attempt<R> {
    fn from(reply: Result<R, NetError>) -> Self {
        match reply {
            Ok(response) => Self::Answer(Answer::Records(response)),
            Err(NetError::Dns(DnsError::NoRecordsFound(denial))) => Self::Answer(Answer::Denial(denial)),
            Err(NetError::Dns(_)) => Self::ErrorReply,
            Err(_) => Self::NoReply,
        }
    }
}

impl<R> Answer<R> {
    fn map<S>(self, f: impl FnOnce(R) -> S) -> Answer<S> {
        match self {
            Self::Records(response) => Answer::Records(f(response)),
            Self::Denial(denial) => Answer::Denial(denial),
        }
    }
}

impl Answer<DnsResponse> {
    /// Neither what is large, nor a chain of aliases that ends in nothing: the cache would keep such a chain as long as
    /// its aliases live, and its end lives shorter.
    fn is_cacheable(&self, query: &Query) -> bool {
        match self {
            Self::Records(response) => {
                let wanted = query.query_type();
                let complete = wanted.is_any() || response.answers.iter().any(|record| record.record_type() == wanted);
                complete && response.as_buffer().len() <= CACHED_OCTETS_MAX
            }
            Self::Denial(NoRecords { authorities, .. }) => {
                authorities.as_ref().is_none_or(|records| records.len() <= CACHED_DENIAL_RECORDS_MAX)
            }
        }
    }
}

impl Answer<Message> {
    fn into_message(self) -> Message {
        match self {
            Self::Records(message) => message,
            Self::Denial(NoRecords { response_code, authorities, .. }) => {
                let mut message = Message::response(0, OpCode::Query);
                message.metadata.response_code = response_code;
                message.authorities = authorities.map(|records| records.to_vec()).unwrap_or_default();
                message
            }
        }
    }

    /// As hickory's cache stores it.
    fn into_hickory(self) -> Result<Message, NetError> {
        match self {
            Self::Records(message) => Ok(message),
            Self::Denial(denial) => Err(NetError::Dns(DnsError::NoRecordsFound(denial))),
        }
    }
}

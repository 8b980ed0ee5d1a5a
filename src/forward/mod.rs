//! How names of no zone are answered: upstream resolvers are asked, and what they say is kept for as long as they allow.
//!
//! hickory-resolver speaks to one upstream (UDP, TCP where that is cut short, TLS) and keeps answers; its `Resolver`
//! is not used, because it interprets what it hears (it follows aliases by itself, and knows some names of its own),
//! whereas we pass on what an upstream said. Which upstream is asked, and when the next one, is decided here: the
//! first of the file that is not doubted, and the next one when it fails or hesitates.

mod doubt;
mod tls;

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

use self::doubt::Doubts;
use crate::config::Upstream;

/// How long one upstream is waited for. It is less than a question's whole time, so that its silence is noticed.
const ATTEMPT: Duration = Duration::from_secs(3);

/// The next upstream is asked as well when the last has not answered by then. Most names take a recursive resolver
/// less, and a stub resolver, which waits for five seconds, is far from giving up.
const HESITATION: Duration = Duration::from_millis(750);

/// Answers that are kept, of each kind: with and without signatures.
const ANSWERS_KEPT: u64 = 4096;

/// Octets of the largest answer that is kept. With [`ANSWERS_KEPT`] that is 32 MiB on the wire at worst; typical is one.
const ANSWER_OCTETS_KEPT: usize = 4096;

/// Authority records of the largest denial that is kept; with signatures it has eight.
const DENIAL_RECORDS_KEPT: usize = 32;

/// Questions on their way over one connection to an upstream (TCP, TLS).
const QUESTIONS_PER_CONNECTION: usize = 256;

/// Why there is nothing to tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// An upstream answered with an error: SERVFAIL, REFUSED, and the like.
    Refusal,
    /// No upstream answered.
    Silence,
}

/// The resolvers of one configuration, and what they have said.
pub struct Upstreams {
    upstreams: Vec<Pool>,
    doubts: Doubts,
    kept: ResponseCache,
    /// Answers to those who asked for signatures (DO).
    kept_signed: ResponseCache,
}

type Pool = NameServerPool<TokioRuntimeProvider>;

impl Upstreams {
    /// Nothing has been asked yet. `roots` are the authorities that upstreams with TLS are checked against.
    pub fn new(upstreams: &[Upstream], roots: Arc<RootCertStore>) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = ATTEMPT;
        options.max_active_requests = QUESTIONS_PER_CONNECTION;
        let tls = tls::client(roots);
        let pool = |upstream: &Upstream| {
            let context = PoolContext::new(options.clone(), TlsConfig { config: tls.clone() });
            Pool::from_config([name_server(upstream)], Arc::new(context), TokioRuntimeProvider::new())
        };
        let cache = || ResponseCache::new(ANSWERS_KEPT, TtlConfig::default());
        Self {
            upstreams: upstreams.iter().map(pool).collect(),
            doubts: Doubts::new(upstreams.len()),
            kept: cache(),
            kept_signed: cache(),
        }
    }

    /// Asks for a name in wire format and a type, in class IN.
    ///
    /// # Errors
    /// No upstream has an answer. It takes at most three seconds after the last of them was asked; a caller who has less
    /// time may drop the future.
    pub async fn ask(&self, name: &[u8], query_type: u16, signed: bool) -> Result<Message, Failure> {
        let name = Name::from_bytes(name).map_err(|_| Failure::Refusal)?;
        let query = Query::query(name, RecordType::from(query_type));
        let cache = if signed { &self.kept_signed } else { &self.kept };
        if let Some(Some(known)) = cache.get(&query, Instant::now()).map(answer) {
            return known;
        }
        let said = self.ask_around(&query, signed).await?;
        if may_be_kept(&query, &said) {
            cache.insert(query, said.clone().map(DnsResponse::into_message), Instant::now());
        }
        answer(said.map(DnsResponse::into_message)).unwrap_or(Err(Failure::Silence))
    }

    /// Asks one upstream after the other until one has answered; those that were too slow for that are doubted.
    async fn ask_around(&self, query: &Query, signed: bool) -> Result<Result<DnsResponse, NetError>, Failure> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = true;
        options.edns_set_dnssec_ok = signed;
        options.recursion_desired = true;
        let mut others = self.doubts.order(Instant::now()).into_iter().peekable();
        let (mut asked, mut silent) = (FuturesUnordered::new(), Vec::new());
        let mut failure = Failure::Silence;
        loop {
            if let Some((number, upstream)) = others.next().and_then(|n| Some((n, self.upstreams.get(n)?))) {
                let request = DnsRequest::from_query(query.clone(), options);
                let reply = upstream.send(request).first_answer();
                asked.push(async move { (number, reply.await) });
                silent.push(number);
            } else if asked.is_empty() {
                return Err(failure);
            }
            tokio::select! {
                Some((number, said)) = asked.next() => match told(&said) {
                    Told::Answer => {
                        let earlier = silent.iter().take_while(|silent| **silent != number);
                        earlier.for_each(|slow| self.doubts.doubt(*slow, Instant::now()));
                        return Ok(said);
                    }
                    Told::Refusal => {
                        silent.retain(|silent| *silent != number);
                        failure = Failure::Refusal;
                    }
                    Told::Nothing => self.doubts.doubt(number, Instant::now()),
                },
                () = sleep(HESITATION), if others.peek().is_some() => {}
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

/// What an upstream's reply is worth.
enum Told {
    /// Records, or that there are none.
    Answer,
    /// An error. Another upstream may know better.
    Refusal,
    Nothing,
}

fn told(said: &Result<DnsResponse, NetError>) -> Told {
    match said {
        Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Told::Answer,
        Err(NetError::Dns(_)) => Told::Refusal,
        Err(_) => Told::Nothing,
    }
}

/// An answer as a message again: hickory has a denial as an error. `None` for what is neither.
fn answer(said: Result<Message, NetError>) -> Option<Result<Message, Failure>> {
    match said {
        Ok(message) => Some(Ok(message)),
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, authorities, .. }))) => {
            let mut message = Message::response(0, OpCode::Query);
            message.metadata.response_code = response_code;
            message.authorities = authorities.map(|records| records.to_vec()).unwrap_or_default();
            Some(Ok(message))
        }
        Err(_) => None,
    }
}

/// Whether an answer is kept: neither what is large, nor a chain of aliases that ends in nothing. The cache would keep
/// such a chain for as long as its aliases live, and its end lives shorter.
fn may_be_kept(query: &Query, said: &Result<DnsResponse, NetError>) -> bool {
    match said {
        Ok(response) => {
            let wanted = query.query_type();
            let complete = wanted.is_any() || response.answers.iter().any(|record| record.record_type() == wanted);
            complete && response.as_buffer().len() <= ANSWER_OCTETS_KEPT
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { authorities, .. }))) => {
            authorities.as_ref().is_none_or(|records| records.len() <= DENIAL_RECORDS_KEPT)
        }
        Err(_) => false,
    }
}

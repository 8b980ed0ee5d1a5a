//! Questions for upstreams: workers and connections submit them here without waiting.
//!
//! The submitter hands over the message and where the reply goes. The [`ForwardTask`], on a runtime of its own, asks the
//! upstreams in one task for each question, with a deadline, and replies from the very socket and address that were
//! asked. Where too many questions are in flight, the submitter replies so at once.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use socket2::Socket;
use tokio::{
    runtime,
    sync::{
        OwnedSemaphorePermit, Semaphore,
        mpsc::{self, UnboundedSender},
        oneshot,
    },
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    FailureGuard,
    udp::batch::{self, SourceAddress},
};
use crate::{
    answer::{Answered, Client, Parsed, Responder, UpstreamOutcome, parse},
    forward::{UpstreamError, Upstreams},
    metrics::ProcessCounters,
    table::SharedTable,
};

/// Questions in flight. Each may hold a socket towards two upstreams, so this is half of the default limit of
/// descriptors of a process. Names that are not cached take 50 ms, so five thousand a second go through.
const IN_FLIGHT_MAX: usize = 256;

/// From a question's arrival to its reply. Stub resolvers wait for five seconds, and an error that comes in time sends
/// them to their next server, if they have one.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a stopping server waits for questions in flight. Most are answered by then, and clients repeat the others.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Takes questions for the upstreams. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Forwarder {
    requests: mpsc::Sender<Request>,
    permits: Arc<Semaphore>,
    upstreams: Arc<ArcSwapOption<Upstreams>>,
}

/// Asks the upstreams what a [`Forwarder`] takes.
#[derive(Debug)]
pub struct ForwardTask {
    requests: mpsc::Receiver<Request>,
    shared: Shared,
}

/// What asking and replying needs.
#[derive(Clone, Debug)]
struct Shared {
    table: SharedTable,
    counters: Arc<ProcessCounters>,
    upstreams: Arc<ArcSwapOption<Upstreams>>,
}

/// A question in flight.
#[derive(Debug)]
struct Request {
    message: Vec<u8>,
    client: Client,
    deadline: Instant,
    reply_to: ReplyTo,
    /// Released when the reply has been sent.
    _permit: OwnedSemaphorePermit,
}

/// Where a reply goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// To this client, from the socket that it asked.
    Datagram {
        socket: Arc<Socket>,
        client: SocketAddr,
        /// The address that was asked, on a wildcard socket.
        source: Option<SourceAddress>,
    },
    /// To the connection that waits for it.
    Stream(oneshot::Sender<Vec<u8>>),
}

/// Too many questions are in flight.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("too many questions to the upstreams are in flight")]
pub(super) struct Overloaded;

impl Forwarder {
    /// Without upstreams: every question is answered with SERVFAIL.
    pub fn new(table: SharedTable, counters: Arc<ProcessCounters>) -> (Self, ForwardTask) {
        // Each request has a permit, so the channel is never full.
        let (sender, receiver) = mpsc::channel(IN_FLIGHT_MAX);
        let shared = Shared { table, counters, upstreams: Arc::default() };
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let forwarder = Self { requests: sender, permits, upstreams: shared.upstreams.clone() };
        (forwarder, ForwardTask { requests: receiver, shared })
    }

    /// Asks these upstreams from now on. Questions in flight are answered by those that were asked.
    pub fn replace_upstreams(&self, upstreams: Option<Upstreams>) {
        self.upstreams.store(upstreams.map(Arc::new));
    }

    /// Waits until no question is in flight, but not for long. None arrives once the listeners have stopped.
    pub async fn drain(&self) {
        let all = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
        // The server stops all the same after a timeout, or when the task is gone.
        let _ = timeout(DRAIN_MAX, self.permits.acquire_many(all)).await;
    }

    /// Submits a question, without waiting.
    pub(super) fn submit(&self, message: &[u8], client: &Client, reply_to: ReplyTo) -> Result<(), Overloaded> {
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Overloaded)?;
        let deadline = Instant::now() + DEADLINE;
        let request = Request { message: message.to_vec(), client: *client, deadline, reply_to, _permit: permit };
        self.requests.try_send(request).map_err(|_| Overloaded)
    }
}

impl ForwardTask {
    /// Starts to work on a runtime. If it ends before its forwarders, it sends its name to `failures`.
    pub fn start(self, runtime: &runtime::Handle, failures: UnboundedSender<String>) {
        let guard = FailureGuard { name: "forward".into(), failures };
        // It ends with the last forwarder, or with its runtime.
        drop(runtime.spawn(async move {
            let _guard = guard;
            self.run().await;
        }));
    }

    async fn run(mut self) {
        let mut in_flight = JoinSet::new();
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => _ = in_flight.spawn(self.shared.clone().answer(request)),
                    None => return,
                },
                // No reply of an upstream may end the process, so a panic costs one question.
                Some(Err(error)) = in_flight.join_next() => {
                    tracing::error!(%error, "a question to the upstreams was lost");
                }
            }
        }
    }
}

impl Shared {
    async fn answer(self, request: Request) {
        let outcome = self.ask(&request).await;
        let mut reply = Vec::new();
        let answered = {
            let responder = Responder { table: &self.table.now(), counters: &self.counters };
            responder.answer_forwarded(&request.message, &request.client, &outcome, &mut reply)
        };
        if answered != Answered::Reply {
            return;
        }
        match request.reply_to {
            ReplyTo::Datagram { socket, client, source } => {
                if let Err(error) = batch::send_one(&socket, client, source.as_ref(), &reply) {
                    tracing::debug!(%error, "a reply was not taken");
                    self.counters.send_errors.increment();
                }
            }
            // A connection that has ended needs no reply.
            ReplyTo::Stream(connection) => _ = connection.send(reply),
        }
    }

    async fn ask(&self, request: &Request) -> UpstreamOutcome {
        let Some(upstreams) = self.upstreams.load_full() else { return UpstreamOutcome::Failed };
        let Parsed::Query(query) = parse(&request.message) else { return UpstreamOutcome::Failed };
        let dnssec_ok = query.request.edns.is_some_and(|edns| edns.dnssec_ok);
        let asked = timeout_at(request.deadline, upstreams.ask(query.name(), query.query_type, dnssec_ok)).await;
        match asked.unwrap_or(Err(UpstreamError::NoReply)) {
            Ok(message) => UpstreamOutcome::Message(Box::new(message)),
            Err(UpstreamError::ErrorReply) => UpstreamOutcome::Failed,
            Err(UpstreamError::NoReply) => UpstreamOutcome::Unreachable,
        }
    }
}

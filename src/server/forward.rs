//! Questions for upstreams: workers and connections submit them here without waiting.
//!
//! A cached answer is given at once. For other questions the submitter hands over the message and where the reply goes. The
//! [`ForwardTask`], on a runtime of its own, asks the upstreams in one task for each question, with a deadline, and replies
//! from the very socket and address that were asked. Where too many questions are in flight, [`places`] decides which
//! client's question gets an error at once.

mod flights;
mod places;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use socket2::Socket;
use tokio::{
    runtime,
    sync::{
        mpsc::{self, UnboundedSender},
        oneshot,
    },
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use self::flights::{FlightKey, FlightPermit, Flights, SHARING_MAX};
use super::{
    FailureGuard,
    query_log::{Exchange, QueryLog},
    udp::batch::{self, SourceAddress},
};
use crate::{
    answer::{Answered, Client, ForwardedQuestion, Parsed, Responder, UpstreamOutcome, Worker, parse},
    forward::{QUESTIONS_MAX, UpstreamError, Upstreams},
    metrics::ProcessCounters,
    table::SharedTable,
    types::ZoneName,
};

/// Names in flight. Those that are not cached take 50 ms, so five thousand a second go through.
const IN_FLIGHT_MAX: usize = QUESTIONS_MAX;

/// Questions that the task has still to take: those in flight, as many that have lost their place meanwhile, and those that
/// share a place.
const QUEUE_MAX: usize = 2 * IN_FLIGHT_MAX + SHARING_MAX;

/// From a question's arrival to its reply. Stub resolvers wait for five seconds, and an error that comes in time sends
/// them to their next server, if they have one.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long a stopping server waits for questions in flight. Most are answered by then, and clients repeat the others.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Takes questions for the upstreams. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Forwarder {
    requests: mpsc::Sender<Request>,
    flights: Flights,
    in_flight: TaskTracker,
    shared: Shared,
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
    /// Chooses the nodes where an alias leads into a zone.
    worker: Arc<Mutex<Worker>>,
    query_log: QueryLog,
}

/// A question in flight.
#[derive(Debug)]
struct Request {
    message: Vec<u8>,
    client: Client,
    deadline: Instant,
    reply_to: ReplyTo,
    /// Given back when the reply has been sent.
    permit: FlightPermit,
    _token: TaskTrackerToken,
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

/// What became of a submitted question.
#[derive(Debug)]
pub(super) enum Submitted {
    /// The reply goes to the given place later.
    InFlight,
    /// The outcome is here already: a cached answer, or that too many questions are in flight.
    Done(UpstreamOutcome),
}

impl Forwarder {
    /// Without upstreams: every question is answered with SERVFAIL.
    pub fn new(table: SharedTable, counters: Arc<ProcessCounters>) -> (Self, ForwardTask) {
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        let worker = Arc::new(Mutex::new(Worker::new()));
        let shared = Shared { table, counters, upstreams: Arc::default(), worker, query_log: QueryLog::default() };
        let flights = Flights::new(IN_FLIGHT_MAX, DEADLINE);
        let forwarder = Self { requests, flights, in_flight: TaskTracker::new(), shared: shared.clone() };
        (forwarder, ForwardTask { requests: receiver, shared })
    }

    /// The log of queries, also of those that are not forwarded.
    pub fn query_log(&self) -> QueryLog {
        self.shared.query_log.clone()
    }

    /// Asks these upstreams from now on. Questions in flight are answered by those that were asked.
    pub fn replace_upstreams(&self, upstreams: Option<Upstreams>) {
        self.shared.upstreams.store(upstreams.map(Arc::new));
    }

    /// Removes the cached answers for a name and those below it; `None`: all. Returns how many, or `None` where nothing is
    /// forwarded.
    pub fn flush(&self, name: Option<&ZoneName>) -> Option<usize> {
        Some(self.shared.upstreams.load_full()?.flush(name))
    }

    /// Waits until no question is in flight, but not for long. None arrives once the listeners have stopped.
    pub async fn drain(&self) {
        self.in_flight.close();
        // The server stops all the same after a timeout.
        let _ = timeout(DRAIN_MAX, self.in_flight.wait()).await;
    }

    /// Submits a question, without waiting. A question whose answer is cached needs no place.
    pub(super) fn submit(&self, message: &[u8], client: &Client, reply_to: ReplyTo) -> Submitted {
        let Parsed::Query(query) = parse(message) else { return Submitted::Done(UpstreamOutcome::Failed) };
        let wants_signatures = query.request.wants_signatures();
        let upstreams = self.shared.upstreams.load();
        let cached = upstreams.as_ref().and_then(|all| all.cached(query.name(), query.query_type, wants_signatures));
        if let Some(cached) = cached {
            return Submitted::Done(UpstreamOutcome::Message(Box::new(cached)));
        }
        let key = FlightKey::new(query.name(), query.query_type, wants_signatures);
        let Some(permit) = self.flights.admit(client.address, key, message.len(), Instant::now()) else {
            return Submitted::Done(UpstreamOutcome::Overloaded);
        };
        let request = Request {
            message: message.to_vec(),
            client: *client,
            deadline: Instant::now() + DEADLINE,
            reply_to,
            permit,
            _token: self.in_flight.token(),
        };
        match self.requests.try_send(request) {
            Ok(()) => Submitted::InFlight,
            Err(_) => Submitted::Done(UpstreamOutcome::Overloaded),
        }
    }

    /// Writes the reply with this outcome.
    pub(super) fn reply(
        &self,
        question: ForwardedQuestion<'_>,
        outcome: &UpstreamOutcome,
        out: &mut Vec<u8>,
    ) -> Answered {
        self.shared.reply(question, outcome, out)
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
        let outcome = tokio::select! {
            outcome = self.ask(&request.message, request.deadline) => outcome,
            () = request.permit.displaced() => UpstreamOutcome::Overloaded,
        };
        let mut reply = Vec::new();
        let question = ForwardedQuestion { message: &request.message, client: &request.client };
        if self.reply(question, &outcome, &mut reply) != Answered::Reply {
            return;
        }
        if self.query_log.is_on() {
            let waited = DEADLINE.saturating_sub(request.deadline.saturating_duration_since(Instant::now()));
            let began = std::time::Instant::now().checked_sub(waited).unwrap_or_else(std::time::Instant::now);
            let exchange = Exchange { message: &request.message, client: &request.client, reply: &reply, began };
            self.query_log.observe(&exchange, &self.table.now());
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

    fn reply(&self, question: ForwardedQuestion<'_>, outcome: &UpstreamOutcome, out: &mut Vec<u8>) -> Answered {
        let responder = Responder { table: &self.table.now(), counters: &self.counters };
        responder.answer_forwarded(question, outcome, &self.worker, out)
    }

    async fn ask(&self, message: &[u8], deadline: Instant) -> UpstreamOutcome {
        let Some(upstreams) = self.upstreams.load_full() else { return UpstreamOutcome::Failed };
        let Parsed::Query(query) = parse(message) else { return UpstreamOutcome::Failed };
        match upstreams.ask(query.name(), query.query_type, query.request.wants_signatures(), deadline).await {
            Ok(message) => UpstreamOutcome::Message(Box::new(message)),
            Err(UpstreamError::ErrorReply) => UpstreamOutcome::Failed,
            Err(UpstreamError::NoReply) => UpstreamOutcome::Unreachable,
            Err(UpstreamError::NoSocket) => UpstreamOutcome::Overloaded,
        }
    }
}

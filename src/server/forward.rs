//! Questions that go to upstreams: workers and connections leave them here, and wait for nothing.
//!
//! A worker that meets such a question scratch over the message and the way back, and goes on. The [`ForwardTask`], on a thread
//! of its own, has each question asked in a task of its own, with a deadline, and sends the reply from the very socket
//! and address that were asked. Where too many are under way the client is told so at once.

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
    udp::batch::{self, Source},
};
use crate::{
    answer::{Answered, Client, Parsed, UpstreamOutcome, answer_forwarded, parse},
    forward::{Failure, Upstreams},
    metrics::ProcessCounters,
    table::SharedTable,
};

/// Questions under way. Each may hold a socket towards two upstreams, so this is half of the descriptors that a process
/// has where nobody has raised the limit. Names that are not kept take 50 ms, so five thousand a second go through.
const UNDER_WAY_MAX: usize = 256;

/// From a question's arrival to its reply. Stub resolvers wait for five seconds, and an error that comes in time sends
/// them to their next server, if they have one.
const DEADLINE: Duration = Duration::from_secs(4);

/// How long the end of the server waits for questions under way. Most are answered by then, and the rest is asked again.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Where questions for upstreams are left. Clones are the same place.
#[derive(Clone, Debug)]
pub struct Forwarder {
    questions: mpsc::Sender<Question>,
    places: Arc<Semaphore>,
    answering: Answering,
}

/// Takes what is left with a [`Forwarder`].
#[derive(Debug)]
pub struct ForwardTask {
    questions: mpsc::Receiver<Question>,
    answering: Answering,
}

/// What it takes to ask and to write a reply.
#[derive(Clone, Debug)]
struct Answering {
    table: SharedTable,
    counters: Arc<ProcessCounters>,
    upstreams: Arc<ArcSwapOption<Upstreams>>,
}

#[derive(Debug)]
struct Question {
    message: Vec<u8>,
    client: Client,
    deadline: Instant,
    reply_to: ReplyTo,
    /// Given back when the reply has been sent.
    _place: OwnedSemaphorePermit,
}

/// Where a reply goes.
#[derive(Debug)]
pub(super) enum ReplyTo {
    /// To this client, from the socket that it asked.
    Datagram {
        socket: Arc<Socket>,
        client: SocketAddr,
        /// The address that was asked, on a wildcard socket.
        source: Option<Source>,
    },
    /// To the connection that waits for it.
    Connection(oneshot::Sender<Vec<u8>>),
}

impl Forwarder {
    /// Without upstreams: every question is answered with SERVFAIL.
    pub fn new(table: SharedTable, counters: Arc<ProcessCounters>) -> (Self, ForwardTask) {
        // Nobody sends without a place, so the channel is never full.
        let (sender, receiver) = mpsc::channel(UNDER_WAY_MAX);
        let answering = Answering { table, counters, upstreams: Arc::default() };
        let forwarder =
            Self { questions: sender, places: Arc::new(Semaphore::new(UNDER_WAY_MAX)), answering: answering.clone() };
        (forwarder, ForwardTask { questions: receiver, answering })
    }

    /// Asks these from now on. Questions under way are answered by those that were asked.
    pub fn adopt(&self, upstreams: Option<Upstreams>) {
        self.answering.upstreams.store(upstreams.map(Arc::new));
    }

    /// Waits until no question is under way, but not for long. No more come once the listeners have stopped.
    pub async fn drain(&self) {
        let all = u32::try_from(UNDER_WAY_MAX).unwrap_or(u32::MAX);
        // Neither the end of the time nor a task that is gone changes what comes next.
        let _ = timeout(DRAIN_MAX, self.places.acquire_many(all)).await;
    }

    /// Leaves a question, never waiting. Where that cannot be, the reply that says so is in `out`.
    pub(super) fn leave(
        &self,
        message: &[u8],
        client: &Client,
        reply_to: ReplyTo,
        out: &mut Vec<u8>,
    ) -> Result<(), Answered> {
        let left = self.places.clone().try_acquire_owned().is_ok_and(|place| {
            let (message, deadline) = (message.to_vec(), Instant::now() + DEADLINE);
            self.questions.try_send(Question { message, client: *client, deadline, reply_to, _place: place }).is_ok()
        });
        if left { Ok(()) } else { Err(self.answering.write(message, client, &UpstreamOutcome::Overloaded, out)) }
    }

    /// Has a question answered into `out`.
    pub(super) async fn ask(&self, message: &[u8], client: &Client, out: &mut Vec<u8>) -> Answered {
        let (sender, reply) = oneshot::channel();
        if let Err(answered) = self.leave(message, client, ReplyTo::Connection(sender), out) {
            return answered;
        }
        match reply.await {
            Ok(reply) => {
                *out = reply;
                Answered::Reply
            }
            // The task has panicked, or the server ends.
            Err(_) => Answered::Silence,
        }
    }
}

impl ForwardTask {
    /// Starts to work on its runtime. If it ends before its forwarders, it sends its name to `failures`.
    pub fn start(self, runtime: &runtime::Handle, failures: UnboundedSender<String>) {
        let guard = FailureGuard { name: "forward".into(), failures };
        // It ends with the last forwarder, or with its runtime.
        drop(runtime.spawn(async move {
            let _alarm = guard;
            self.run().await;
        }));
    }

    async fn run(mut self) {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                question = self.questions.recv() => match question {
                    Some(question) => _ = under_way.spawn(self.answering.clone().answer(question)),
                    None => return,
                },
                // Whatever an upstream says must not end the process, so a panic costs one question.
                Some(Err(error)) = under_way.join_next() => {
                    tracing::error!(%error, "a question to the upstreams was lost");
                }
            }
        }
    }
}

impl Answering {
    async fn answer(self, question: Question) {
        let outcome = self.ask(&question).await;
        let mut reply = Vec::new();
        if self.write(&question.message, &question.client, &outcome, &mut reply) != Answered::Reply {
            return;
        }
        match question.reply_to {
            ReplyTo::Datagram { socket, client, source } => {
                if let Err(error) = batch::send_one(&socket, client, source.as_ref(), &reply) {
                    tracing::debug!(%error, "a reply was not taken");
                    self.counters.send_errors.increment();
                }
            }
            // A connection that has ended needs no reply.
            ReplyTo::Connection(connection) => _ = connection.send(reply),
        }
    }

    async fn ask(&self, question: &Question) -> UpstreamOutcome {
        let (Some(upstreams), Parsed::Query(query)) = (self.upstreams.load_full(), parse(&question.message)) else {
            return UpstreamOutcome::Failed;
        };
        let signed = query.edns.is_some_and(|edns| edns.dnssec_ok);
        match timeout_at(question.deadline, upstreams.ask(query.name(), query.query_type, signed)).await {
            Ok(Ok(message)) => UpstreamOutcome::Message(Box::new(message)),
            Ok(Err(Failure::Refusal)) => UpstreamOutcome::Failed,
            Ok(Err(Failure::Silence)) | Err(_) => UpstreamOutcome::Unreachable,
        }
    }

    fn write(&self, message: &[u8], client: &Client, outcome: &UpstreamOutcome, out: &mut Vec<u8>) -> Answered {
        answer_forwarded(&self.table.now(), &self.counters, message, client, outcome, out)
    }
}

//! What every transport answers with: the zone table, the counters and the way to the upstreams.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{
    forward::{Forwarder, ReplyTo, Submitted},
    query_log::{Exchange, QueryLog},
};
use crate::{
    answer::{Answered, Client, ForwardedQuestion, Responder, Worker},
    metrics::ProcessCounters,
    table::{SharedTable, ZoneTable},
    transfer::{Sender, TransferAnswer, Transfers},
};

/// Answers messages. Clones share everything.
#[derive(Clone, Debug)]
pub struct Service {
    table: SharedTable,
    counters: Arc<ProcessCounters>,
    forwarder: Forwarder,
    query_log: QueryLog,
    transfers: Transfers,
}

impl Service {
    /// A service of these zones, which counts here and forwards there.
    pub fn new(table: SharedTable, counters: Arc<ProcessCounters>, forwarder: Forwarder) -> Self {
        let transfers = Transfers::new(counters.clone());
        Self { table, counters, query_log: forwarder.query_log(), forwarder, transfers }
    }

    /// The same, which answers secondaries with these.
    #[must_use]
    pub fn with_transfers(self, transfers: Transfers) -> Self {
        Self { transfers, ..self }
    }

    /// Answers a message of a secondary into `out`; it may ask for several messages. All others are not for this.
    pub(super) fn answer_secondary(
        &self,
        message: &[u8],
        sender: &Sender,
        table: &ZoneTable,
        out: &mut Vec<u8>,
    ) -> TransferAnswer {
        let began = self.query_log.begin();
        let answer = self.transfers.answer(message, sender, table, out);
        if let Some(began) = began {
            // The log never reads the time of a client.
            let client = Client { address: sender.address, transport: sender.transport, now: 0 };
            let log = |reply: &[u8]| {
                self.query_log.observe(&Exchange { message, client: &client, reply, began }, table);
            };
            match &answer {
                TransferAnswer::None => {}
                TransferAnswer::Reply => log(out),
                TransferAnswer::Messages(messages) => log(&messages.head()),
            }
        }
        answer
    }

    /// Whether zones are given to secondaries.
    pub(super) fn transfers_zones(&self) -> bool {
        self.transfers.is_on()
    }

    /// Answers one message into `out`, from the zone table of this moment.
    pub fn answer(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> Answered {
        self.responder(&self.table.now()).answer(message, client, worker, out)
    }

    /// Answers one message that came over a stream, into `out` where the reply is ready. Never waits.
    pub(super) fn answer_stream(
        &self,
        message: &[u8],
        client: &Client,
        worker: &StreamWorker,
        out: &mut Vec<u8>,
    ) -> StreamReply {
        let began = self.query_log.begin();
        let reply = self.stream_reply(message, client, worker, out);
        if let (Some(began), StreamReply::Ready) = (began, &reply) {
            self.query_log.observe(&Exchange { message, client, reply: out, began }, &self.table.now());
        }
        reply
    }

    fn stream_reply(&self, message: &[u8], client: &Client, worker: &StreamWorker, out: &mut Vec<u8>) -> StreamReply {
        // Bound to a name, so that the lock is released before the forwarder is called.
        let answered = self.answer(message, client, &mut worker.lock(), out);
        match answered {
            Answered::Reply => StreamReply::Ready,
            Answered::Silence => StreamReply::None,
            Answered::Forward => {
                let (sender, reply) = oneshot::channel();
                match self.forward(message, client, ReplyTo::Stream(sender), out) {
                    Answered::Reply => StreamReply::Ready,
                    Answered::Silence | Answered::Forward => StreamReply::Forwarded(reply),
                }
            }
        }
    }

    /// Forwards a question to the upstreams, without waiting. The reply goes to `reply_to`, unless it is in `out` at once:
    /// with a cached answer, or because too many questions are in flight.
    pub(super) fn forward(&self, message: &[u8], client: &Client, reply_to: ReplyTo, out: &mut Vec<u8>) -> Answered {
        match self.forwarder.submit(message, client, reply_to) {
            Submitted::InFlight => Answered::Forward,
            Submitted::Done(outcome) => self.forwarder.reply(ForwardedQuestion { message, client }, &outcome, out),
        }
    }

    /// The zones, to answer many messages with.
    pub(super) fn table(&self) -> &SharedTable {
        &self.table
    }

    /// Answers with this state of the zones.
    pub(super) fn responder<'t>(&'t self, table: &'t ZoneTable) -> Responder<'t> {
        Responder { table, counters: &self.counters }
    }

    pub(super) fn query_log(&self) -> &QueryLog {
        &self.query_log
    }

    pub(super) fn counters(&self) -> &Arc<ProcessCounters> {
        &self.counters
    }
}

/// The worker of all connections of a listener, so that clients with a connection for each question get every node
/// equally often.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamWorker(Arc<Mutex<Worker>>);

impl StreamWorker {
    /// Connections share one thread and nothing is awaited while the lock is held, so no task waits for it. A panic
    /// behind it ends the process.
    fn lock(&self) -> std::sync::MutexGuard<'_, Worker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What answers one question over a stream.
#[must_use]
pub(super) enum StreamReply {
    /// The reply is ready.
    Ready,
    /// The upstreams were asked. An error in place of their reply: the task that asks has panicked, or the server stops.
    Forwarded(oneshot::Receiver<Vec<u8>>),
    /// The question gets no reply.
    None,
}

//! What every transport answers with: the zone table, the counters and the way to the upstreams.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::forward::{Forwarder, ReplyTo, Submitted};
use crate::{
    answer::{Answered, Client, ForwardedQuestion, Responder, Worker},
    metrics::ProcessCounters,
    table::{SharedTable, ZoneTable},
};

/// Answers messages. Clones share everything.
#[derive(Clone, Debug)]
pub struct Service {
    table: SharedTable,
    counters: Arc<ProcessCounters>,
    forwarder: Forwarder,
}

impl Service {
    /// A service of these zones, which counts here and forwards there.
    pub fn new(table: SharedTable, counters: Arc<ProcessCounters>, forwarder: Forwarder) -> Self {
        Self { table, counters, forwarder }
    }

    /// Answers one message into `out`, from the zone table of this moment.
    pub fn answer(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> Answered {
        self.responder(&self.table.now()).answer(message, client, worker, out)
    }

    /// Answers one message that came over a stream.
    pub(super) fn answer_stream<'o>(
        &self,
        message: &[u8],
        client: &Client,
        worker: &StreamWorker,
        out: &'o mut Vec<u8>,
    ) -> Replies<'o> {
        // Bound to a name, so that the lock is released before the forwarder is called.
        let answered = self.answer(message, client, &mut worker.lock(), out);
        let next = match answered {
            Answered::Reply => Next::Ready,
            Answered::Silence => Next::End,
            Answered::Forward => {
                let (sender, reply) = oneshot::channel();
                if self.forward(message, client, ReplyTo::Stream(sender), out) == Answered::Reply {
                    Next::Ready
                } else {
                    Next::Forwarded(reply)
                }
            }
        };
        Replies { out, next }
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

/// The messages that answer one question over a stream, in the order in which they are sent. Today there is at most one;
/// a zone transfer has several.
#[must_use]
pub(super) struct Replies<'o> {
    /// Holds the message that was returned last, or is returned next.
    out: &'o mut Vec<u8>,
    next: Next,
}

enum Next {
    /// The next message is in `out`.
    Ready,
    /// The upstreams were asked.
    Forwarded(oneshot::Receiver<Vec<u8>>),
    End,
}

impl Replies<'_> {
    /// The next message; `None` after the last. The first call returns `None` where the question gets no reply.
    pub(super) async fn next(&mut self) -> Option<&[u8]> {
        match std::mem::replace(&mut self.next, Next::End) {
            Next::Ready => {}
            // An error: the task has panicked, or the server stops.
            Next::Forwarded(reply) => *self.out = reply.await.ok()?,
            Next::End => return None,
        }
        Some(self.out)
    }
}

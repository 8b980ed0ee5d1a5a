//! TCP: one task accepts connections, one task serves each of them, and limits keep them within bounds (RFC 7766,
//! RFC 9210).

mod limits;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{
    codec::{Framed, LengthDelimitedCodec},
    sync::CancellationToken,
};

use self::limits::ConnectionGuard;
pub use self::limits::ConnectionLimits;
use super::{
    FailureGuard, TCP_BACKLOG,
    service::{Service, StreamWorker},
};
use crate::{
    answer::Client,
    metrics::{ProcessCounters, Transport},
    types::unix_now,
};

/// The pause after a failed accept (no file descriptor is left, for instance), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection without a question stays open while the server stops: its question may be on the way.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// How long stopping may take; connections that are still open then are aborted.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Bounds of TCP connections, over all listening addresses together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections in all; above it the one that is idle for longest is closed. Each may hold a message, so 64 MiB at most.
    pub max_connections: usize,
    /// Connections from one address; above it the one of them that is idle for longest is closed.
    pub max_per_client: usize,
    /// From the last reply to the first octet of a question.
    pub idle: Duration,
    /// From the first octet of a question to its last, and for a reply to be sent.
    pub message: Duration,
    /// Questions on one connection, which is closed then; the count starts again on the client's next one.
    pub max_questions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_per_client: 128,
            idle: Duration::from_secs(10),
            message: Duration::from_secs(5),
            max_questions: 10_000,
        }
    }
}

/// Accepts connections on one address.
pub(super) struct Listener {
    pub(super) service: Service,
    pub(super) worker: StreamWorker,
    /// Shared by all addresses.
    pub(super) limits: ConnectionLimits,
    pub(super) guard: FailureGuard,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Accepts until it is stopped; then answers what has been asked, and closes.
    pub(super) async fn run(self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return self.guard.report(&format!("cannot start: {error}")),
        };
        let mut connections = Connections::new();
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, client)) => {
                        is_failing = false;
                        self.admit(stream, client, &mut connections);
                    }
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            tracing::warn!(%error, "cannot accept connections; trying on");
                        }
                        self.limits.close_longest_idle();
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        self.admit_backlog(listener, &mut connections);
        // What is still open afterwards is aborted.
        let _ = timeout(STOP_MAX, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }

    fn admit(&self, stream: TcpStream, client: SocketAddr, connections: &mut Connections) {
        let (guard, limits) = self.limits.enter(client.ip());
        let number = guard.number();
        let connection = Connection {
            _gauge: OpenGauge::new(self.service.counters().clone()),
            service: self.service.clone(),
            worker: self.worker.clone(),
            client: client.ip(),
            limits,
            guard,
            stop: self.stop.clone(),
        };
        let failure_guard = self.guard.clone();
        let task = connections.spawn(async move {
            let _guard = failure_guard;
            connection.run(stream).await;
        });
        self.limits.set_task(number, task);
    }

    /// Admits the connections that the kernel has accepted: their clients may have asked already. No more are admitted
    /// than the kernel's queue holds, or a flood of new ones would keep the server from stopping.
    fn admit_backlog(&self, listener: TcpListener, connections: &mut Connections) {
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..TCP_BACKLOG {
            let (stream, client) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if concerns_one_connection(&error) => continue,
                Err(_) => break,
            };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.admit(stream, client, connections);
            }
        }
    }
}

/// The codec of messages on a stream: two octets of length before each (RFC 1035, 4.2.2). Public so that a fuzzer cuts
/// streams as the server does.
#[doc(hidden)]
pub fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()
}

/// Whether only the connection that was to be accepted has failed.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The tasks of one address's connections.
type Connections = JoinSet<()>;

/// Counts a connection for as long as it lives, however it ends.
struct OpenGauge(Arc<ProcessCounters>);

impl OpenGauge {
    fn new(counters: Arc<ProcessCounters>) -> Self {
        counters.tcp_connections.increment();
        Self(counters)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.tcp_connections.decrement();
    }
}

/// One connection.
struct Connection {
    _gauge: OpenGauge,
    service: Service,
    worker: StreamWorker,
    client: IpAddr,
    limits: Limits,
    guard: ConnectionGuard,
    stop: CancellationToken,
}

impl Connection {
    /// Answers one question after the other. Whatever ends the connection, the client sees it close.
    async fn run(self, stream: TcpStream) {
        // A reply is one write already; waiting for more of them would only delay it.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let mut frames = Framed::new(stream, framing());
        let mut out = Vec::new();
        for _ in 0..self.limits.max_questions {
            let Some(message) = self.next_message(&mut frames).await else { return };
            if !self.reply(&message, &mut frames, &mut out).await {
                return;
            }
            self.guard.touch();
        }
    }

    /// Sends the replies to one message; `false` where the connection is to be closed: it has failed, or the message gets
    /// no reply, which over TCP means that the frames are lost or that the client does not speak DNS. Only this
    /// connection waits for upstreams; its next questions are answered afterwards.
    async fn reply(&self, message: &[u8], frames: &mut Frames, out: &mut Vec<u8>) -> bool {
        let client = Client { address: self.client, transport: Transport::Tcp, now: unix_now() };
        let mut replies = self.service.answer_stream(message, &client, &self.worker, out);
        let mut is_answered = false;
        while let Some(reply) = replies.next().await {
            let Ok(Ok(())) = timeout(self.limits.message, frames.send(reply)).await else { return false };
            is_answered = true;
        }
        is_answered
    }

    async fn next_message(&self, frames: &mut Frames) -> Option<impl Deref<Target = [u8]> + use<>> {
        if frames.read_buffer().is_empty() && !self.first_octet(frames.get_ref()).await {
            return None;
        }
        self.guard.touch();
        timeout(self.limits.message, frames.next()).await.ok()??.ok()
    }

    /// Waits for the client to send something; `false` when it closes, or does not send in time.
    async fn first_octet(&self, stream: &TcpStream) -> bool {
        let stopped = pin!(async {
            self.stop.cancelled().await;
            sleep(STOP_LINGER).await;
        });
        let mut octet = [0];
        tokio::select! {
            // What has arrived is answered, even when the time is up at that moment.
            biased;
            peeked = stream.peek(&mut octet) => peeked.is_ok_and(|octets| octets > 0),
            () = sleep(self.limits.idle) => false,
            () = stopped => false,
        }
    }
}

/// Messages on a stream.
type Frames = Framed<TcpStream, LengthDelimitedCodec>;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc::unbounded_channel,
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        server::forward::Forwarder,
        table::{Knowledge, SharedTable, ZoneEntry, ZoneSettings, ZoneTable},
        types::{AnswerCount, NodeSet, ZoneName},
    };

    /// A limit that is under test, and one that must not be reached.
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    const QUESTION: &[u8] = b"\0\x18\0\x07\0\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";

    struct World {
        address: SocketAddr,
        counters: Arc<ProcessCounters>,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    /// Serves a zone of 200 nodes, so that replies are larger than questions.
    fn start(limits: Limits) -> World {
        let settings = ZoneSettings { count: AnswerCount::All, ..ZoneSettings::example() };
        let entry = Arc::new(ZoneEntry::new(ZoneName::parse("a.test").unwrap(), settings, 1));
        let nodes = NodeSet::new((1..=200).map(|n| [10, 0, 0, n].into())).unwrap();
        entry.learn(&Knowledge::up(&nodes, crate::types::ZoneState::Live), 1);
        let table = SharedTable::default();
        let counters = Arc::new(ProcessCounters::default());
        let stop = CancellationToken::new();
        table.replace(ZoneTable::new([entry]));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let guard = FailureGuard { name: "tcp".into(), failures: unbounded_channel().0 };
        let (forwarder, _) = Forwarder::new(table.clone(), counters.clone());
        let service = Service::new(table, counters.clone(), forwarder);
        let limits = ConnectionLimits::new(limits);
        let listener = Listener { service, worker: StreamWorker::default(), limits, guard, stop: stop.clone() };
        World { address, counters, stop, task: tokio::spawn(listener.run(socket)) }
    }

    impl World {
        /// Reads until the server closes, which must not be before `earliest`. Gives how much there was to read.
        async fn closes(&self, mut stream: TcpStream, earliest: Duration) -> usize {
            let start = Instant::now();
            let mut octets = Vec::new();
            timeout(LONG / 2, stream.read_to_end(&mut octets)).await.expect("closed in time").ok();
            assert!(start.elapsed() >= earliest, "{:?}", start.elapsed());
            octets.len()
        }

        async fn ends(self) {
            self.stop.cancel();
            timeout(LONG / 2, self.task).await.expect("stops in time").unwrap();
            assert_eq!(self.counters.tcp_connections.value(), 0);
        }
    }

    #[tokio::test]
    async fn an_idle_client_is_closed() {
        let world = start(Limits { idle: SHORT, message: LONG, ..Limits::default() });
        let stream = TcpStream::connect(world.address).await.unwrap();
        assert_eq!(world.closes(stream, SHORT / 2).await, 0);
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(QUESTION).await.unwrap();
        assert!(world.closes(stream, SHORT / 2).await > 3000, "answered, then idle");
        world.ends().await;
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_message_is_closed() {
        let world = start(Limits { idle: LONG, message: SHORT, ..Limits::default() });
        for part in [1, 2, 20] {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            stream.write_all(&QUESTION[..part]).await.unwrap();
            assert_eq!(world.closes(stream, SHORT / 2).await, 0);
        }
        world.ends().await;
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_closed() {
        let world = start(Limits { idle: LONG, message: SHORT, ..Limits::default() });
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let many = QUESTION.repeat(1000);
        // The buffers on the way fill up; then the server closes the connection.
        let refused = timeout(LONG / 2, async { while stream.write_all(&many).await.is_ok() {} }).await;
        assert!(refused.is_ok(), "the server has closed");
        world.ends().await;
    }

    #[tokio::test]
    async fn a_connection_is_closed_after_its_last_question() {
        let world = start(Limits { idle: LONG, message: LONG, max_questions: 3, ..Limits::default() });
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(&QUESTION.repeat(3)).await.unwrap();
        let one = 2 + 12 + 12 + 200 * 16;
        assert_eq!(world.closes(stream, Duration::ZERO).await, 3 * one);
        world.ends().await;
    }
}

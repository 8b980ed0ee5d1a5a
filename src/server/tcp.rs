//! TCP: one task accepts, one task a connection talks, and limits keep them within bounds (RFC 7766, RFC 9210).

mod limits;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
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
use super::{FailureGuard, TCP_BACKLOG, forward::Forwarder};
use crate::{
    answer::{Answered, Client, Worker, answer},
    metrics::{ProcessCounters, Transport},
    table::SharedTable,
    types::unix_now,
};

/// The pause after a failed accept (no file descriptor is left, for instance), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection without a question stays open while stopping: its question may be on the way.
const STOP_LINGER: Duration = Duration::from_millis(100);

/// How long stopping may take; questions that still come by then are not waited for.
const STOP_MAX: Duration = Duration::from_millis(500);

/// What clients may take of all listening addresses together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections in all; over it the one that is idle for longest goes. Each may hold a message, so 64 MiB at most.
    pub max_connections: usize,
    /// Connections from one address; over it the one of them that is idle for longest goes.
    pub max_per_client: usize,
    /// From the last reply to the first octet of a question.
    pub idle: Duration,
    /// From the first octet of a question to its last, and for a reply to be taken.
    pub message: Duration,
    /// Questions on one connection. Whoever has more to ask connects again, and is measured again.
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

/// What it takes to accept connections on one address.
pub(super) struct Listener {
    pub(super) table: SharedTable,
    /// One for all connections, so that clients with a connection for each question get every node equally often.
    pub(super) worker: Arc<Mutex<Worker>>,
    pub(super) counters: Arc<ProcessCounters>,
    pub(super) forwarder: Forwarder,
    /// One for all addresses.
    pub(super) connection_limits: ConnectionLimits,
    pub(super) guard: FailureGuard,
    pub(super) stop: CancellationToken,
}

impl Listener {
    /// Accepts until told to stop; then answers what has been asked, and closes.
    pub(super) async fn run(self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return self.guard.report(&format!("cannot start: {error}")),
        };
        let mut connections = Connections::new();
        let mut troubled = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, client)) => {
                        troubled = false;
                        self.admit(stream, client, &mut connections);
                    }
                    Err(error) if is_the_peers(&error) => {}
                    Err(error) => {
                        if !std::mem::replace(&mut troubled, true) {
                            tracing::warn!(%error, "cannot accept connections; trying on");
                        }
                        self.connection_limits.close_longest_idle();
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
        let (entered, limits) = self.connection_limits.enter(client.ip());
        let number = entered.number();
        let connection = Connection {
            open: Open::new(self.counters.clone()),
            table: self.table.clone(),
            worker: self.worker.clone(),
            forwarder: self.forwarder.clone(),
            client: client.ip(),
            limits,
            entered,
            stop: self.stop.clone(),
        };
        let guard = self.guard.clone();
        let task = connections.spawn(async move {
            let _alarm = guard;
            connection.run(stream).await;
        });
        self.connection_limits.may_be_aborted(number, task);
    }

    /// Clients whose connection the kernel has taken already believe to be connected, and may have asked. No more are
    /// let in than the kernel's queue holds, or a flood of newcomers would keep the server from stopping.
    fn admit_backlog(&self, listener: TcpListener, connections: &mut Connections) {
        let Ok(listener) = listener.into_std() else { return };
        for _ in 0..TCP_BACKLOG {
            let (stream, client) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_the_peers(&error) => continue,
                Err(_) => break,
            };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.admit(stream, client, connections);
            }
        }
    }
}

/// How messages follow each other on a stream: two octets of length before each (RFC 1035, 4.2.2). Public so that a
/// fuzzer cuts streams as the server does.
#[doc(hidden)]
pub fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()
}

/// Whether only the connection that was to be accepted has failed.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Any who is connected to one address.
type Connections = JoinSet<()>;

/// Counts a connection for as long as it lives, however it ends.
struct Open(Arc<ProcessCounters>);

impl Open {
    fn new(counters: Arc<ProcessCounters>) -> Self {
        counters.tcp_connections.increment();
        Self(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.tcp_connections.decrement();
    }
}

/// One connection.
struct Connection {
    open: Open,
    table: SharedTable,
    worker: Arc<Mutex<Worker>>,
    forwarder: Forwarder,
    client: IpAddr,
    limits: Limits,
    entered: ConnectionGuard,
    stop: CancellationToken,
}

impl Connection {
    /// Question, reply, question, reply. Whatever ends it ends it without a word: the client sees it close.
    async fn run(self, stream: TcpStream) {
        // A reply is one write already; waiting for more of them would only delay it.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let mut frames = Framed::new(stream, framing());
        let mut out = Vec::new();
        for _ in 0..self.limits.max_questions {
            let Some(message) = self.next_message(&mut frames).await else { return };
            // Who sends what deserves no reply over TCP has lost the frames or does not speak DNS.
            if self.reply(&message, &mut out).await == Answered::Silence {
                return;
            }
            let Ok(Ok(())) = timeout(self.limits.message, frames.send(&out[..])).await else { return };
            self.entered.touch();
        }
    }

    /// Only this connection waits for upstreams; what its client asks meanwhile is answered afterwards.
    async fn reply(&self, message: &[u8], out: &mut Vec<u8>) -> Answered {
        let client = Client { address: self.client, transport: Transport::Tcp, now: unix_now() };
        match self.answer(message, &client, out) {
            Answered::Forward => self.forwarder.ask(message, &client, out).await,
            answered => answered,
        }
    }

    fn answer(&self, message: &[u8], client: &Client, out: &mut Vec<u8>) -> Answered {
        // All connections share one thread and nothing waits while it deals, so nobody ever waits for this lock. A
        // panic behind it ends the process.
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&self.table.now(), &self.open.0, message, client, &mut worker, out)
    }

    async fn next_message(
        &self,
        frames: &mut Framed<TcpStream, LengthDelimitedCodec>,
    ) -> Option<impl Deref<Target = [u8]> + use<>> {
        if frames.read_buffer().is_empty() && !self.first_octet(frames.get_ref()).await {
            return None;
        }
        self.entered.touch();
        timeout(self.limits.message, frames.next()).await.ok()??.ok()
    }

    /// Waits for the client to say something; `false` when it will not, or not in time.
    async fn first_octet(&self, stream: &TcpStream) -> bool {
        let told_to_stop = pin!(async {
            self.stop.cancelled().await;
            sleep(STOP_LINGER).await;
        });
        let mut octet = [0];
        tokio::select! {
            // What has arrived is answered, even when the time is up at that moment.
            biased;
            peeked = stream.peek(&mut octet) => peeked.is_ok_and(|octets| octets > 0),
            () = sleep(self.limits.idle) => false,
            () = told_to_stop => false,
        }
    }
}

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
        table::{Knowledge, ZoneEntry, ZoneSettings, ZoneTable},
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
        let (table, counters, stop) =
            (SharedTable::default(), Arc::new(ProcessCounters::default()), CancellationToken::new());
        table.replace(ZoneTable::new([entry]));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let guard = FailureGuard { name: "tcp".into(), failures: unbounded_channel().0 };
        let worker = Arc::default();
        let connection_limits = ConnectionLimits::new(limits);
        let (forwarder, _) = Forwarder::new(table.clone(), counters.clone());
        let (counters_of_listener, stopped) = (counters.clone(), stop.clone());
        let listener = Listener {
            table,
            worker,
            counters: counters_of_listener,
            forwarder,
            connection_limits,
            guard,
            stop: stopped,
        };
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
    async fn who_says_nothing_is_closed() {
        let world = start(Limits { idle: SHORT, message: LONG, ..Limits::default() });
        let stream = TcpStream::connect(world.address).await.unwrap();
        assert_eq!(world.closes(stream, SHORT / 2).await, 0);
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(QUESTION).await.unwrap();
        assert!(world.closes(stream, SHORT / 2).await > 3000, "answered, then idle");
        world.ends().await;
    }

    #[tokio::test]
    async fn who_says_half_is_closed() {
        let world = start(Limits { idle: LONG, message: SHORT, ..Limits::default() });
        for part in [1, 2, 20] {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            stream.write_all(&QUESTION[..part]).await.unwrap();
            assert_eq!(world.closes(stream, SHORT / 2).await, 0);
        }
        world.ends().await;
    }

    #[tokio::test]
    async fn who_does_not_read_is_closed() {
        let world = start(Limits { idle: LONG, message: SHORT, ..Limits::default() });
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let many = QUESTION.repeat(1000);
        // Buffers on the way fill up; then the server gives up, and so does the connection.
        let refused = timeout(LONG / 2, async { while stream.write_all(&many).await.is_ok() {} }).await;
        assert!(refused.is_ok(), "the server has closed");
        world.ends().await;
    }

    #[tokio::test]
    async fn who_asks_too_much_must_connect_again() {
        let world = start(Limits { idle: LONG, message: LONG, max_questions: 3, ..Limits::default() });
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(&QUESTION.repeat(3)).await.unwrap();
        let one = 2 + 12 + 12 + 200 * 16;
        assert_eq!(world.closes(stream, Duration::ZERO).await, 3 * one);
        world.ends().await;
    }
}

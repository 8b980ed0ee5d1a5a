//! Connections on loopback addresses, with short limits. Each wait has a deadline.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::unbounded_channel,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    metrics::ProcessCounters,
    server::{FailureGuard, Service, forward::Forwarder, service::StreamWorker},
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
    let listener = Listener {
        protocol: Protocol::Plain,
        service,
        worker: StreamWorker::default(),
        limits,
        guard,
        stop: stop.clone(),
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

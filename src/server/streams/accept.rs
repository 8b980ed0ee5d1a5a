//! Accepts connections on one address, and goes on whatever the system refuses.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connection::Connection,
    limits::{ConnectionLimits, Phase},
    protocol::Protocol,
};
use crate::{
    metrics::ProcessCounters,
    net::accept::{Refusal, Refusals, concerns_one_connection},
    server::{
        FailureGuard, TCP_BACKLOG,
        service::{Service, StreamWorker},
    },
};

/// The longest pause after an accept that the system refused: clients repeat a connection after a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Between log lines about refused accepts, which clients can cause as often as they like.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Between looks at connections that are being closed. Their tasks need microseconds.
const CLOSING_PAUSE: Duration = Duration::from_millis(1);

/// How long stopping may take; connections that are still open then are aborted.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Accepts connections on one address.
pub(in crate::server) struct Listener {
    pub(in crate::server) protocol: Protocol,
    pub(in crate::server) service: Service,
    pub(in crate::server) worker: StreamWorker,
    /// Shared by all addresses.
    pub(in crate::server) limits: ConnectionLimits,
    pub(in crate::server) guard: FailureGuard,
    pub(in crate::server) stop: CancellationToken,
}

impl Listener {
    /// Accepts until it is stopped; then answers what has been asked, and closes.
    pub(in crate::server) async fn run(self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return self.guard.report(&format!("cannot start: {error}")),
        };
        let mut connections = Connections::new();
        let mut refusals = Refusals::new(PAUSE_MAX, LOG_INTERVAL);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.accept(&listener) => match accepted {
                    Ok((stream, client)) => {
                        refusals.end();
                        self.admit(stream, client, &mut connections);
                    }
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => self.pause(&error, refusals.add(Instant::now())).await,
                },
            }
        }
        self.admit_backlog(listener, &mut connections);
        // What is still open afterwards is aborted.
        let _ = timeout(STOP_MAX, async { while connections.join_next().await.is_some() {} }).await;
        connections.shutdown().await;
    }

    /// Accepts a connection, once the descriptors of enough closed ones are free.
    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        while self.limits.is_closing_many() {
            sleep(CLOSING_PAUSE).await;
        }
        listener.accept().await
    }

    /// Waits after an accept that the system refused, so that it does not spin.
    async fn pause(&self, error: &io::Error, Refusal { pause, logged }: Refusal) {
        if let Some(refused) = logged {
            tracing::warn!(%error, refused, "cannot accept connections; the longest idle one is closed for each refusal");
        }
        self.limits.close_longest_idle();
        sleep(pause).await;
    }

    fn admit(&self, stream: TcpStream, client: SocketAddr, connections: &mut Connections) {
        let phase = if self.protocol.is_encrypted() { Phase::Handshake } else { Phase::Established };
        let (guard, limits) = self.limits.enter(client.ip(), phase);
        let number = guard.number();
        let gauge = OpenGauge::new(self.service.counters().clone());
        let connection = Connection {
            service: self.service.clone(),
            worker: self.worker.clone(),
            client: client.ip(),
            transport: self.protocol.transport(),
            // Until a handshake says otherwise.
            is_old_tls: false,
            limits,
            guard,
            stop: self.stop.clone(),
        };
        let protocol = self.protocol.clone();
        let failure_guard = self.guard.clone();
        let task = connections.spawn(async move {
            let _guard = failure_guard;
            let _gauge = gauge;
            protocol.serve(stream, connection).await;
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

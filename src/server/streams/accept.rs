//! Accepts connections on one address, and goes on whatever the system refuses.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::errno::Errno;
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
    server::{
        FailureGuard, TCP_BACKLOG,
        service::{Service, StreamWorker},
    },
};

/// The pause after the first accept that the system refuses; it doubles with each further one. A descriptor is free again
/// once the task of a closed connection has run.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause: clients repeat a connection after a second.
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
        let mut refusals = Refusals::default();
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

/// Whether only the connection that was to be accepted has failed: it was reset, or its network is gone (accept(2),
/// "Error handling"), or a firewall forbids it.
fn concerns_one_connection(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::EPERM
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
        )
    )
}

/// Accepts that the system refused: no descriptor or no memory is left.
#[derive(Debug, Default)]
struct Refusals {
    /// Those in a row.
    in_row: u32,
    logged: Option<Instant>,
    /// Those since a line was logged.
    since_logged: u64,
}

/// What follows a refused accept.
#[derive(Debug, Eq, PartialEq)]
struct Refusal {
    pause: Duration,
    /// How many refusals a log line is due for.
    logged: Option<u64>,
}

impl Refusals {
    fn add(&mut self, now: Instant) -> Refusal {
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.in_row)).min(PAUSE_MAX);
        self.in_row = self.in_row.saturating_add(1);
        self.since_logged += 1;
        let is_due = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        let logged = is_due.then(|| {
            self.logged = Some(now);
            std::mem::take(&mut self.since_logged)
        });
        Refusal { pause, logged }
    }

    /// An accept has succeeded.
    fn end(&mut self) {
        self.in_row = 0;
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_accepts_pause_longer_and_are_logged_once_a_minute() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.add(start), Refusal { pause: PAUSE_MIN, logged: Some(1) });
        let pauses: Vec<_> = (0..9).map(|_| refusals.add(start).pause).collect();
        assert!(pauses.is_sorted() && pauses[0] == 2 * PAUSE_MIN && pauses[8] == PAUSE_MAX);
        for second in 1..60 {
            // Successes between refusals are no reason for more lines.
            refusals.end();
            let refusal = refusals.add(start + Duration::from_secs(second));
            assert_eq!(refusal, Refusal { pause: PAUSE_MIN, logged: None });
        }
        assert_eq!(refusals.add(start + LOG_INTERVAL).logged, Some(69));
        assert_eq!(refusals.add(start + LOG_INTERVAL).logged, None);
    }

    #[test]
    fn a_connection_that_fails_while_it_is_accepted_delays_no_other() {
        let concerns = |errno: Errno| concerns_one_connection(&io::Error::from_raw_os_error(errno as i32));
        assert!(concerns(Errno::ECONNABORTED) && concerns(Errno::EPROTO));
        for shortage in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(!concerns(shortage), "{shortage}");
        }
    }
}

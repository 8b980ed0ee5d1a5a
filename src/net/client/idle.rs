//! Connections that wait for the next request to their server.
//!
//! No task and no buffer belongs to one: it is a socket, and with TLS its session. So nothing tells when a server closes
//! one, and all are looked at now and then.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    task,
    time::{Instant, sleep},
};

/// Between two looks at all idle connections. One that its server has closed is held for so long.
const SWEEP: Duration = Duration::from_secs(1);

/// At most one connection for each server.
#[derive(Debug)]
pub struct Idle<C> {
    timeout: Duration,
    waiting: Mutex<Waiting<C>>,
}

#[derive(Debug)]
struct Waiting<C> {
    /// Each with the moment until which it is kept.
    connections: HashMap<SocketAddr, (C, Instant)>,
    /// Whether a task looks at them.
    swept: bool,
}

impl<C: AsyncRead + Send + Unpin + 'static> Idle<C> {
    /// Keeps each connection for this long.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, waiting: Mutex::new(Waiting { connections: HashMap::new(), swept: false }) }
    }

    /// The connection to a server, if one waits that the server has not closed.
    pub fn take(&self, server: SocketAddr) -> Option<C> {
        let (mut connection, until) = self.lock().connections.remove(&server)?;
        is_usable(&mut connection, until, Instant::now()).then_some(connection)
    }

    /// Keeps a connection, in place of another one to the same server.
    pub fn keep(self: &Arc<Self>, server: SocketAddr, connection: C) {
        let until = Instant::now() + self.timeout;
        let mut waiting = self.lock();
        waiting.connections.insert(server, (connection, until));
        if !waiting.swept {
            waiting.swept = true;
            // It ends with the last connection, or else with this.
            drop(task::spawn(task::unconstrained(sweep(Arc::downgrade(self)))));
        }
    }

    /// Closes what is of no use any more. Returns whether anything is left.
    fn close_unusable(&self, now: Instant) -> bool {
        let mut waiting = self.lock();
        waiting.connections.retain(|_, (connection, until)| is_usable(connection, *until, now));
        let left = waiting.connections.len();
        waiting.connections.shrink_to(2 * left);
        waiting.swept = !waiting.connections.is_empty();
        waiting.swept
    }

    /// Nothing panics while it holds the lock, so the content is whole.
    fn lock(&self) -> MutexGuard<'_, Waiting<C>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep<C: AsyncRead + Send + Unpin + 'static>(idle: Weak<Idle<C>>) {
    loop {
        sleep(SWEEP).await;
        if !idle.upgrade().is_some_and(|idle| idle.close_unusable(Instant::now())) {
            return;
        }
    }
}

/// Whether a connection may be kept, and nothing has come from its server: neither its end nor octets that were not asked
/// for.
fn is_usable<C: AsyncRead + Unpin>(connection: &mut C, until: Instant, now: Instant) -> bool {
    let mut octet = [0];
    let mut cx = Context::from_waker(Waker::noop());
    now < until && Pin::new(connection).poll_read(&mut cx, &mut ReadBuf::new(&mut octet)).is_pending()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, n], 8000))
    }

    fn kept(idle: &Arc<Idle<DuplexStream>>, n: u8) -> DuplexStream {
        let (here, there) = duplex(16);
        idle.keep(server(n), here);
        there
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_again_once_unless_it_is_old_or_closed_or_has_octets() {
        let idle = Arc::new(Idle::new(TIMEOUT));
        let _open = kept(&idle, 1);
        assert!(idle.take(server(2)).is_none());
        assert!(idle.take(server(1)).is_some());
        assert!(idle.take(server(1)).is_none());
        drop(kept(&idle, 1));
        assert!(idle.take(server(1)).is_none(), "closed");
        kept(&idle, 1).write_all(b"!").await.unwrap();
        assert!(idle.take(server(1)).is_none(), "octets");
        let _open = kept(&idle, 1);
        tokio::time::advance(TIMEOUT).await;
        assert!(idle.take(server(1)).is_none(), "old");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_or_closed_is_dropped_without_a_request() {
        use tokio::io::AsyncReadExt;
        let idle = Arc::new(Idle::new(TIMEOUT));
        for round in 0..2 {
            let mut open = kept(&idle, 1);
            drop(kept(&idle, 2));
            sleep(2 * SWEEP).await;
            assert_eq!(idle.lock().connections.len(), 1, "round {round}");
            assert_eq!(open.read(&mut [0]).await.unwrap(), 0, "it is closed");
            assert!(!idle.lock().swept, "the task has ended");
        }
        let last = Arc::downgrade(&idle);
        let _open = kept(&idle, 1);
        drop(idle);
        assert!(last.upgrade().is_none(), "the task does not keep it");
    }
}

//! The transports: sockets, threads and tasks around [`crate::answer`].
//!
//! Bind, then serve; drain, then close. [`Bound::bind`] takes UDP and TCP of one address or fails with a sentence
//! for the operator; sockets that systemd has kept are taken back (`kept.rs`). [`Bound::serve`] starts a thread for each UDP socket and one task that accepts TCP connections.
//! [`Serving::stop`] answers what has arrived before it closes. [`BoundSecure`] is the same for DNS over TLS and HTTPS,
//! whose connections share their limits with those of TCP, and for QUIC, with hickory's listener. All of them answer with
//! one [`Service`].

mod bind_error;
mod encrypted;
mod forward;
mod kept;
mod query_log;
mod self_query;
mod service;
mod streams;
mod udp;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedSender},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    bind_error::{BindError, has_address},
    encrypted::{BoundSecure, Certificate, CertificateError, Session, certified_key},
    forward::{ForwardTask, Forwarder},
    kept::{is_as_named, plain_names, secure_name, tcp_listener},
    query_log::{LoggedQueries, LoggedQuery, QUERIES_PER_SECOND, QueryFilter, QueryLog},
    self_query::{SELF_QUERY_TIME_MAX, Unanswered, self_query},
    service::Service,
    streams::{CLOSING_MAX, ConnectionLimits, Limits, framing, query_parameter},
    udp::ending::HandOver,
};
use self::{
    service::StreamWorker,
    udp::{UdpWorker, ending::Ending},
};
use crate::systemd::{
    sockets::{KeptSockets, SocketName, SocketUse},
    watchdog::Beats,
};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`, which is 4096 by default.
const TCP_BACKLOG: i32 = 4096;

/// How often port 0 is tried: the kernel gives a free TCP port, which another program may hold for UDP.
const FREE_PORT_ATTEMPTS: usize = 16;

/// Sockets of one address, bound but not served: nothing is read before [`Bound::serve`].
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    tcp: std::net::TcpListener,
    udp: Vec<Socket>,
}

impl Bound {
    /// Takes an address for TCP and UDP, with `workers` sockets (at least one) for UDP, and with those that were kept. Port
    /// 0: any that is free.
    ///
    /// # Errors
    /// When one of them cannot be had; then none is left bound, but for those that were kept.
    pub fn bind(address: SocketAddr, workers: usize, kept: &KeptSockets) -> Result<Self, BindError> {
        let attempts = if address.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
        let try_bind = || {
            let tcp = kept::tcp_listener(kept, SocketName { usage: SocketUse::Tcp, address })?;
            let tcp = tcp.map_or_else(|| bind_tcp(address), Ok)?;
            Self::with_tcp(tcp, workers, |address, worker| kept::udp_socket(kept, address, worker))
        };
        let mut bound = try_bind();
        for _ in 1..attempts {
            if !bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            bound = try_bind();
        }
        bound.map_err(|reason| BindError::new("listen", address, reason))
    }

    /// Takes an address beside others of this server with the same port: the wildcard of them, or one that a wildcard
    /// of them includes. Each question goes to the more specific one as long as both are served.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_beside(served: &[&Serving], address: SocketAddr, workers: usize) -> Result<Self, BindError> {
        let bind =
            || bind_tcp_port(address, Port::Shared).and_then(|tcp| Self::with_tcp(tcp, workers, |_, _| Ok(None)));
        sharing(served, bind).map_err(|reason| BindError::new("listen", address, reason))
    }

    /// The address that was bound, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets, with the names under which systemd is to keep them.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketName, BorrowedFd<'_>)> {
        let named = |usage| SocketName { usage, address: self.address };
        let udp =
            self.udp.iter().enumerate().map(move |(worker, socket)| (named(SocketUse::Udp(worker)), socket.as_fd()));
        udp.chain([(named(SocketUse::Tcp), self.tcp.as_fd())])
    }

    /// Starts to answer. A thread or task that panics, or cannot be started, sends its name to the supervision's failures: a
    /// part of the address is no longer served, and the process should end.
    pub fn serve(
        self,
        service: Service,
        limits: ConnectionLimits,
        runtime: &runtime::Handle,
        supervision: Supervision,
    ) -> Serving {
        let names = self.sockets().map(|(name, _)| name).collect();
        let (running, streams_ended) = mpsc::channel(1);
        // Without the copy the port cannot be shared with another address later, which then needs a restart.
        let stop = Stop::with_copy_of(self.tcp.as_fd());
        let udp = UdpSockets { address: self.address, sockets: self.udp };
        let threads_ended = udp.serve(&service, &stop.udp, runtime, &supervision);
        let guard = FailureGuard { name: format!("tcp on {}", self.address), failures: supervision.failures };
        let worker = StreamWorker::default();
        let protocol = streams::Protocol::Plain;
        let listener = streams::Listener { protocol, service, worker, limits, guard, stop: stop.tcp.clone() };
        // The task ends with `stop`, which the owner of `Serving` cannot forget: dropping it stops too.
        drop(runtime.spawn(async move {
            let _running = running;
            listener.run(self.tcp).await;
        }));
        Serving { address: self.address, names, stop, streams_ended, threads_ended }
    }

    /// TCP comes first and without `SO_REUSEPORT`: a second UDP socket with that option binds without an error, so only
    /// TCP reports that the address is in use. `kept` gives the UDP socket of a worker, if there is one already.
    fn with_tcp(
        tcp: std::net::TcpListener,
        workers: usize,
        kept: impl Fn(SocketAddr, usize) -> io::Result<Option<Socket>>,
    ) -> io::Result<Self> {
        let address = tcp.local_addr()?;
        let udp = (0..workers.max(1)).map(|worker| kept(address, worker)?.map_or_else(|| udp::bind(address), Ok));
        Ok(Self { address, tcp, udp: udp.collect::<io::Result<_>>()? })
    }
}

/// What all threads report to, and what ends them together.
#[derive(Clone, Debug)]
pub struct Supervision {
    /// Gets the name of each part that ends and must not.
    pub failures: UnboundedSender<String>,
    /// Threads that must go on.
    pub beats: Beats,
    /// Ends all UDP threads.
    pub hand_over: HandOver,
}

/// The UDP sockets of one address.
struct UdpSockets {
    address: SocketAddr,
    sockets: Vec<Socket>,
}

impl UdpSockets {
    /// Starts a thread for each. What is returned closes when the last one has ended.
    fn serve(
        self,
        service: &Service,
        ending: &Ending,
        runtime: &runtime::Handle,
        supervision: &Supervision,
    ) -> mpsc::Receiver<()> {
        let (running, all_ended) = mpsc::channel(1);
        for (number, socket) in self.sockets.into_iter().enumerate() {
            let name = format!("udp-{number}");
            let described = format!("{name} on {}", self.address);
            let worker = UdpWorker {
                socket: Arc::new(socket),
                address: self.address,
                service: service.clone(),
                ending: ending.clone(),
                member: supervision.hand_over.join(),
                beat: supervision.beats.register(&described),
            };
            let guard = FailureGuard { name: described, failures: supervision.failures.clone() };
            let running = running.clone();
            let start_guard = guard.clone();
            let thread = move || {
                let _running = running;
                let _guard = guard;
                worker.run();
            };
            // From a thread of this runtime: a thread begins with the priority of the one that starts it, and that of the
            // caller may be lower.
            drop(runtime.spawn(async move {
                if let Err(error) = thread::Builder::new().name(name).spawn(thread) {
                    start_guard.report(&format!("cannot start: {error}"));
                }
            }));
        }
        all_ended
    }
}

/// Answers what is queued in a UDP socket that is not served any more, and closes it. No other process may have a copy.
pub fn close_udp(
    address: SocketAddr,
    socket: OwnedFd,
    service: &Service,
    runtime: &runtime::Handle,
    supervision: &Supervision,
) -> io::Result<Serving> {
    let socket = Socket::from(socket);
    udp::set_options(&socket, address)?;
    let stop = Stop::default();
    stop.udp.close();
    let threads_ended = UdpSockets { address, sockets: vec![socket] }.serve(service, &stop.udp, runtime, supervision);
    let (_, streams_ended) = mpsc::channel(1);
    Ok(Serving { address, names: Vec::new(), stop, streams_ended, threads_ended })
}

/// Whether other sockets of this user may bind the port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Port {
    Exclusive,
    /// For a moment, and only with addresses that differ.
    Shared,
}

/// Binds an address while the ports of others of this server are shared.
fn sharing<T>(served: &[&Serving], bind: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let share = |port| served.iter().try_for_each(|serving| serving.stop.share(port));
    let bound = share(Port::Shared).and_then(|()| bind());
    // No other program may bind the port after that.
    let exclusive = share(Port::Exclusive);
    bound.and_then(|bound| exclusive.map(|()| bound))
}

/// Binds also an address that no interface has yet: one that comes up later, or that moves between hosts.
fn bind_free(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    bind_tcp_port(address, Port::Exclusive)
}

fn bind_tcp_port(address: SocketAddr, port: Port) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process in TIME_WAIT must not prevent a restart.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    bind_free(&socket, address)?;
    socket.listen(TCP_BACKLOG)?;
    socket.set_reuse_port(false)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sockets that are served. Dropping it stops them, without waiting.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    names: Vec<SocketName>,
    stop: Stop,
    /// Closed when the last task of connections has ended.
    streams_ended: mpsc::Receiver<()>,
    /// Closed when the last thread has ended.
    threads_ended: mpsc::Receiver<()>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The names of its sockets.
    pub fn names(&self) -> &[SocketName] {
        &self.names
    }

    /// Makes threads and tasks answer what has arrived and end, without waiting for them. No other process may have a copy of
    /// a UDP socket: it receives nothing more.
    pub fn begin_stop(&self) {
        self.stop.udp.close();
        self.stop.streams();
    }

    /// Stops, and waits until the sockets are closed: well under a second. No other process may have a copy of a UDP socket.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.stop_streams().await;
        self.threads_ended().await;
    }

    /// Answers what has been asked over connections, and closes them. Other connections wait to be accepted, if another
    /// process has a copy of the socket.
    pub async fn stop_streams(&mut self) {
        self.stop.streams();
        // Nothing is ever sent; the channel closes when its last sender is dropped.
        while self.streams_ended.recv().await.is_some() {}
    }

    /// Waits until the UDP threads have ended, which does not end them.
    pub async fn threads_ended(&mut self) {
        while self.threads_ended.recv().await.is_some() {}
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // systemd may have copies.
        self.stop.udp.leave();
        self.stop.streams();
    }
}

/// Stops threads, which check it between batches, and tasks, which wait for it.
#[derive(Debug, Default)]
struct Stop {
    udp: Ending,
    tcp: CancellationToken,
    /// A copy of the descriptor that accepts connections, or of the only one over UDP, to change its options. Closed before
    /// the other one, so that no connection arrives that no task accepts.
    listener: Mutex<Option<OwnedFd>>,
}

impl Stop {
    fn with_copy_of(listener: BorrowedFd<'_>) -> Self {
        Self { listener: Mutex::new(listener.try_clone_to_owned().ok()), ..Self::default() }
    }

    fn share(&self, port: Port) -> io::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match &*listener {
            Some(listener) => SockRef::from(listener).set_reuse_port(port == Port::Shared),
            None => Err(io::ErrorKind::AddrInUse.into()),
        }
    }

    fn streams(&self) {
        drop(self.listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.tcp.cancel();
    }
}

/// Reports the thread or task that owns it when it panics.
#[derive(Clone, Debug)]
struct FailureGuard {
    name: String,
    failures: UnboundedSender<String>,
}

impl FailureGuard {
    fn report(&self, reason: &str) {
        // Without a receiver the process is ending already.
        let _ = self.failures.send(format!("{} ({reason})", self.name));
    }
}

impl Drop for FailureGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.report("panicked");
        }
    }
}

#[cfg(test)]
mod tests;

//! The transports: sockets, threads and tasks around [`crate::answer`].
//!
//! Bind, then serve; drain, then close. [`Bound::bind`] takes UDP and TCP of one address or fails with a sentence
//! for the operator. [`Bound::serve`] starts a thread for each UDP socket and one task that accepts TCP connections.
//! [`Serving::stop`] answers what has arrived before it closes. [`BoundSecure`] is the same for DNS over TLS and HTTPS,
//! whose connections share their limits with those of TCP, and for QUIC, with hickory's listener. All of them answer with
//! one [`Service`].

mod encrypted;
mod forward;
mod query_log;
mod self_query;
mod service;
mod streams;
mod udp;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedSender},
};
use tokio_util::sync::CancellationToken;

use self::service::StreamWorker;
pub use self::{
    encrypted::{BoundSecure, Certificate, CertificateError, Session, certified_key},
    forward::{ForwardTask, Forwarder},
    query_log::{LoggedQueries, LoggedQuery, QUERIES_PER_SECOND, QueryFilter, QueryLog},
    self_query::{SELF_QUERY_TIME_MAX, Unanswered, self_query},
    service::Service,
    streams::{CLOSING_MAX, ConnectionLimits, Limits, framing, query_parameter},
};

/// Connections that wait to be accepted. The kernel cuts it to `net.core.somaxconn`, which is 4096 by default.
const TCP_BACKLOG: i32 = 4096;

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// Where systemd-resolved listens (systemd-resolved(8)).
const STUB_LISTENERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// How often port 0 is tried: the kernel gives a free TCP port, which another program may hold for UDP.
const FREE_PORT_ATTEMPTS: usize = 16;

/// Sockets of one address, bound but not served: nothing is read before [`Bound::serve`].
#[derive(Debug)]
pub struct Bound {
    address: SocketAddr,
    tcp: std::net::TcpListener,
    udp: Vec<Socket>,
}

/// Why an address cannot be listened on: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken.
    #[error(
        "another program (or a second copy of alternator-dns) already listens on {address}; stop it or change `{key}`"
    )]
    InUse {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// A port below 1024, and no capability for it.
    #[error(
        "not allowed to listen on {0}: a port below 1024 needs the capability CAP_NET_BIND_SERVICE; start \
         alternator-dns from its systemd unit, grant it (setcap cap_net_bind_service=+ep), or choose a higher port"
    )]
    Forbidden(SocketAddr),
    /// The port is taken by the resolver that many systems run by default.
    #[error(
        "systemd-resolved already listens on port {} of {}; set DNSStubListener=no in /etc/systemd/resolved.conf and \
         restart systemd-resolved, or write an address of this host in `{key}`, such as \"127.0.0.1:{}\"",
         address.port(), address.ip(), address.port()
    )]
    Stub {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("no interface of this host has the address of {address}; add it to one or change `{key}`")]
    NotLocal {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Any other error of the system.
    #[error("cannot listen on {address}: {reason}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The system's error.
        reason: io::Error,
    },
}

impl BindError {
    fn new(key: &'static str, address: SocketAddr, reason: io::Error) -> Self {
        match reason.kind() {
            io::ErrorKind::AddrInUse if address.port() == DNS_PORT && is_stub(address) => Self::Stub { key, address },
            io::ErrorKind::AddrInUse => Self::InUse { key, address },
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { key, address },
            _ => Self::Other { address, reason },
        }
    }
}

/// Whether an address that is in use is used by the stub listener of systemd-resolved: it has two addresses of its own,
/// and the wildcard includes them. Another program on the wildcard would use 127.0.0.1 too.
fn is_stub(address: SocketAddr) -> bool {
    let is_free = |ip: Ipv4Addr| {
        let bound = std::net::TcpListener::bind((ip, address.port()));
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    match address.ip() {
        IpAddr::V4(ip) if STUB_LISTENERS.contains(&ip) => is_free(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            is_free(Ipv4Addr::LOCALHOST) && STUB_LISTENERS.into_iter().any(|ip| !is_free(ip))
        }
        _ => false,
    }
}

/// Whether an interface of this host has the address now, or it is a wildcard. Asks the kernel, and sends nothing.
pub fn has_address(address: SocketAddr) -> bool {
    let mut any_port = address;
    any_port.set_port(0);
    let bound = std::net::UdpSocket::bind(any_port);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

impl Bound {
    /// Takes an address for TCP and UDP, with `workers` sockets (at least one) for UDP. Port 0: any that is free.
    ///
    /// # Errors
    /// When one of them cannot be had; then none is kept.
    pub fn bind(address: SocketAddr, workers: usize) -> Result<Self, BindError> {
        let attempts = if address.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
        let mut bound = Self::try_bind(address, workers, Port::Exclusive);
        for _ in 1..attempts {
            if !bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
                break;
            }
            bound = Self::try_bind(address, workers, Port::Exclusive);
        }
        bound.map_err(|reason| BindError::new("listen", address, reason))
    }

    /// Takes an address beside others of this server with the same port: the wildcard of them, or one that a wildcard
    /// of them includes. Each question goes to the more specific one as long as both are served.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_beside(served: &[&Serving], address: SocketAddr, workers: usize) -> Result<Self, BindError> {
        let share = |port| served.iter().try_for_each(|serving| serving.stop.share(port));
        let bound = share(Port::Shared).and_then(|()| Self::try_bind(address, workers, Port::Shared));
        // No other program may bind the port after that.
        let exclusive = share(Port::Exclusive);
        bound.and_then(|bound| exclusive.map(|()| bound)).map_err(|reason| BindError::new("listen", address, reason))
    }

    /// The address that was bound, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer. A thread or task that panics, or cannot be started, sends its name to `failures`: a part of the
    /// address is no longer served, and the process should end.
    pub fn serve(
        self,
        service: Service,
        limits: ConnectionLimits,
        runtime: &runtime::Handle,
        failures: UnboundedSender<String>,
    ) -> Serving {
        let (running, all_ended) = mpsc::channel(1);
        // Without the copy the port cannot be shared with another address later, which then needs a restart.
        let stop = Stop { listener: Mutex::new(self.tcp.try_clone().ok()), ..Stop::default() };
        for (number, socket) in self.udp.into_iter().enumerate() {
            let name = format!("udp-{number}");
            let guard = FailureGuard { name: format!("{name} on {}", self.address), failures: failures.clone() };
            let worker = udp::UdpWorker::new(socket, self.address, service.clone(), stop.udp.clone());
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
        let guard = FailureGuard { name: format!("tcp on {}", self.address), failures };
        let worker = StreamWorker::default();
        let protocol = streams::Protocol::Plain;
        let listener = streams::Listener { protocol, service, worker, limits, guard, stop: stop.tcp.clone() };
        // The task ends with `stop`, which the owner of `Serving` cannot forget: dropping it stops too.
        drop(runtime.spawn(async move {
            let _running = running;
            listener.run(self.tcp).await;
        }));
        Serving { address: self.address, stop, all_ended }
    }

    /// TCP comes first and without `SO_REUSEPORT`: a second UDP socket with that option binds without an error, so only
    /// TCP reports that the address is in use.
    fn try_bind(address: SocketAddr, workers: usize, port: Port) -> io::Result<Self> {
        let tcp = bind_tcp_port(address, port)?;
        let address = tcp.local_addr()?;
        let udp = (0..workers.max(1)).map(|_| udp::bind(address)).collect::<io::Result<_>>()?;
        Ok(Self { address, tcp, udp })
    }
}

/// Whether other sockets of this user may bind the port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Port {
    Exclusive,
    /// For a moment, and only with addresses that differ.
    Shared,
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
    stop: Stop,
    /// Closed when the last thread and the last task have ended.
    all_ended: mpsc::Receiver<()>,
}

impl Serving {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes threads and tasks answer what has arrived and end, without waiting for them.
    pub fn begin_stop(&self) {
        self.stop.now();
    }

    /// Stops, and waits until the sockets are closed: well under a second.
    pub async fn stop(mut self) {
        self.begin_stop();
        // Nothing is ever sent; the channel closes when its last sender is dropped.
        while self.all_ended.recv().await.is_some() {}
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.now();
    }
}

/// Stops threads, which check it between batches, and tasks, which wait for it.
#[derive(Debug, Default)]
struct Stop {
    udp: Arc<AtomicBool>,
    tcp: CancellationToken,
    /// A copy of the descriptor that accepts TCP connections, to change its options. Closed before the other one, so that
    /// no connection arrives that no task accepts.
    listener: Mutex<Option<std::net::TcpListener>>,
}

impl Stop {
    fn share(&self, port: Port) -> io::Result<()> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        match &*listener {
            Some(listener) => SockRef::from(listener).set_reuse_port(port == Port::Shared),
            None => Err(io::ErrorKind::AddrInUse.into()),
        }
    }

    fn now(&self) {
        drop(self.listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.udp.store(true, Relaxed);
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

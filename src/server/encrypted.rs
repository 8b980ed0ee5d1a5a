//! The sockets of DNS over TLS, HTTPS and QUIC.
//!
//! TLS and HTTPS are served by [`super::streams`], QUIC by hickory: [`adapter`] answers hickory's requests as all others are
//! answered. [`certificate`] holds what clients are shown. hickory does not bound the number of QUIC connections. When it
//! stops, it closes them at once.

mod adapter;
mod certificate;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

use hickory_server::Server;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedSender},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::adapter::Adapter;
pub use self::certificate::{Certificate, CertificateError, certified_key};
use super::{
    BindError, ConnectionLimits, FailureGuard, Port, Service, Serving, Stop, bind_tcp, bind_tcp_port,
    kept::{self, secure_name},
    service::StreamWorker,
    sharing,
    streams::{self, Listener},
};
use crate::{
    config::SecureTransport,
    systemd::sockets::{KeptSockets, SocketName},
};

/// How long stopping QUIC may take. hickory waits for no client, so this allows for a busy core.
const QUIC_STOP_MAX: Duration = Duration::from_millis(500);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Session {
    /// The certificate that clients are shown.
    pub certificate: Certificate,
    /// The connections over TCP, TLS and HTTPS. QUIC takes only the idle time from it, at the start.
    pub limits: ConnectionLimits,
}

/// A socket for encrypted DNS, bound but not served: nothing is read before [`Self::serve`].
#[derive(Debug)]
pub struct BoundSecure {
    transport: SecureTransport,
    address: SocketAddr,
    socket: SecureSocket,
}

#[derive(Debug)]
enum SecureSocket {
    Tls(TcpListener),
    Https(TcpListener),
    Quic(UdpSocket),
}

impl BoundSecure {
    /// Takes an address, with the socket that was kept, if there is one. Port 0: any that is free.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn bind(transport: SecureTransport, address: SocketAddr, kept: &KeptSockets) -> Result<Self, BindError> {
        let name = secure_name(transport, address);
        let tcp = || kept::tcp_listener(kept, name)?.map_or_else(|| bind_tcp(address), Ok);
        let bind = || {
            Ok(match transport {
                SecureTransport::Tls => SecureSocket::Tls(tcp()?),
                SecureTransport::Https => SecureSocket::Https(tcp()?),
                SecureTransport::Quic => SecureSocket::Quic(
                    kept::quic_socket(kept, name)?.map_or_else(|| bind_udp(address, Port::Exclusive), Ok)?,
                ),
            })
        };
        let bound = bind().and_then(|socket| Ok((socket.local_address()?, socket)));
        let (address, socket) = bound.map_err(|reason| BindError::new(transport.key(), address, reason))?;
        Ok(Self { transport, address, socket })
    }

    /// Takes an address beside others of this server with the same port and protocol: the wildcard of them, or one that a
    /// wildcard of them includes. Each client reaches the more specific one as long as both are served.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_beside(
        served: &[&Serving],
        transport: SecureTransport,
        address: SocketAddr,
    ) -> Result<Self, BindError> {
        let bind = || {
            Ok(match transport {
                SecureTransport::Tls => SecureSocket::Tls(bind_tcp_port(address, Port::Shared)?),
                SecureTransport::Https => SecureSocket::Https(bind_tcp_port(address, Port::Shared)?),
                SecureTransport::Quic => SecureSocket::Quic(bind_udp(address, Port::Shared)?),
            })
        };
        let bound = sharing(served, bind).and_then(|socket| Ok((socket.local_address()?, socket)));
        let (address, socket) = bound.map_err(|reason| BindError::new(transport.key(), address, reason))?;
        Ok(Self { transport, address, socket })
    }

    /// The address that was bound, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The transport on it.
    pub fn transport(&self) -> SecureTransport {
        self.transport
    }

    /// The socket, with the name under which systemd is to keep it.
    pub fn socket(&self) -> (SocketName, BorrowedFd<'_>) {
        let socket = match &self.socket {
            SecureSocket::Tls(socket) | SecureSocket::Https(socket) => socket.as_fd(),
            SecureSocket::Quic(socket) => socket.as_fd(),
        };
        (secure_name(self.transport, self.address), socket)
    }

    /// Starts to answer. A task that panics, or cannot be started, sends its name to `failures`.
    pub fn serve(
        self,
        service: Service,
        session: Session,
        runtime: &runtime::Handle,
        failures: UnboundedSender<String>,
    ) -> Serving {
        let (running, streams_ended) = mpsc::channel(1);
        // There is no thread of its own.
        let (_, threads_ended) = mpsc::channel(1);
        let names = vec![secure_name(self.transport, self.address)];
        // Without the copy the port cannot be shared with another address later, which then needs a restart.
        let stop = Stop::with_copy_of(self.socket().1);
        let word = self.transport.transport().word();
        let guard = FailureGuard { name: format!("{word} on {}", self.address), failures };
        let server = SecureServer { service, session, guard, stop: stop.tcp.clone() };
        // The task ends with `stop`, which the owner of `Serving` cannot forget: dropping it stops too.
        drop(runtime.spawn(async move {
            let _running = running;
            server.run(self.socket).await;
        }));
        Serving { address: self.address, names, stop, streams_ended, threads_ended }
    }
}

impl SecureSocket {
    fn local_address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tls(socket) | Self::Https(socket) => socket.local_addr(),
            Self::Quic(socket) => socket.local_addr(),
        }
    }
}

/// Serves one socket.
struct SecureServer {
    service: Service,
    session: Session,
    guard: FailureGuard,
    stop: CancellationToken,
}

impl SecureServer {
    async fn run(self, socket: SecureSocket) {
        let certificate = self.session.certificate.clone();
        match socket {
            SecureSocket::Tls(socket) => self.serve_streams(socket, streams::Protocol::tls(certificate)).await,
            SecureSocket::Https(socket) => self.serve_streams(socket, streams::Protocol::https(certificate)).await,
            SecureSocket::Quic(socket) => self.serve_quic(socket).await,
        }
    }

    async fn serve_streams(self, socket: TcpListener, protocol: Result<streams::Protocol, rustls::Error>) {
        let Self { service, session, guard, stop } = self;
        match protocol {
            Ok(protocol) => {
                let worker = StreamWorker::default();
                Listener { protocol, service, worker, limits: session.limits, guard, stop }.run(socket).await;
            }
            Err(error) => guard.report(&format!("cannot start: {error}")),
        }
    }

    async fn serve_quic(self, socket: UdpSocket) {
        let Self { service, session, guard, stop } = self;
        let mut server = Server::new(Adapter::new(service, guard.clone()));
        let idle = session.limits.limits().idle;
        let socket = tokio::net::UdpSocket::from_std(socket);
        let certificate = Arc::new(session.certificate);
        if let Err(error) = socket.and_then(|socket| server.register_quic_listener(socket, idle, certificate)) {
            return guard.report(&format!("cannot start: {error}"));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            ended = server.block_until_done() => {
                let reason = ended.map_or_else(|error| error.to_string(), |()| "ended".into());
                return guard.report(&reason);
            }
        }
        // What is still open afterwards is aborted.
        let _ = timeout(QUIC_STOP_MAX, server.shutdown_gracefully()).await;
    }
}

/// Without `SO_REUSEPORT`, unless the port is shared, so that it fails when the address is in use.
fn bind_udp(address: SocketAddr, port: Port) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    super::bind_free(&socket, address)?;
    socket.set_reuse_port(false)?;
    Ok(socket.into())
}

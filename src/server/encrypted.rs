//! DNS over TLS, HTTPS and QUIC: hickory's listeners around our answers.
//!
//! hickory accepts, decrypts, and closes idle connections; [`adapter`] answers its requests as all others are answered,
//! and [`certificate`] holds what clients are shown. hickory does not bound the number of connections: only the limit of
//! open files does. When it stops, it closes connections at once; what it has read is answered.

mod adapter;
mod certificate;

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use hickory_server::{Server, net::http::DEFAULT_DNS_QUERY_PATH};
use rustls::server::ResolvesServerCert;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    runtime,
    sync::mpsc::{self, UnboundedSender},
    time::timeout,
};

use self::adapter::Adapter;
pub use self::certificate::{Certificate, CertificateError, certified_key};
use super::{BindError, FailureGuard, Service, Serving, Stop, bind_tcp};
use crate::config::SecureTransport;

/// How long stopping may take. hickory waits for no client, so this allows for a busy core.
const STOP_MAX: Duration = Duration::from_millis(500);

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Session {
    /// The certificate that clients are shown.
    pub certificate: Certificate,
    /// How long a connection may be idle before it is closed.
    pub idle: Duration,
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
    Streams(TcpListener),
    Datagrams(UdpSocket),
}

impl BoundSecure {
    /// Takes an address. Port 0: any that is free.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn bind(transport: SecureTransport, address: SocketAddr) -> Result<Self, BindError> {
        let socket = if transport.is_datagrams() {
            bind_udp(address).and_then(|socket| Ok((socket.local_addr()?, SecureSocket::Datagrams(socket))))
        } else {
            bind_tcp(address).and_then(|socket| Ok((socket.local_addr()?, SecureSocket::Streams(socket))))
        };
        let (bound, socket) = socket.map_err(|reason| BindError::new(transport.key(), address, reason))?;
        Ok(Self { transport, address: bound, socket })
    }

    /// The address that was bound, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// The transport on it.
    pub fn transport(&self) -> SecureTransport {
        self.transport
    }

    /// Starts to answer. A task that panics, or cannot be started, sends its name to `failures`.
    pub fn serve(
        self,
        service: Service,
        session: Session,
        runtime: &runtime::Handle,
        failures: UnboundedSender<String>,
    ) -> Serving {
        let (running, all_ended) = mpsc::channel(1);
        let stop = Stop::default();
        let stopped = stop.tcp.clone();
        let guard =
            FailureGuard { name: format!("{} on {}", self.transport.transport().word(), self.address), failures };
        let mut server = Server::new(Adapter::new(self.transport.transport(), service, guard.clone()));
        // The task ends with `stop`, which the owner of `Serving` cannot forget: dropping it stops too.
        drop(runtime.spawn(async move {
            let _running = running;
            if let Err(error) = register(&mut server, self.socket, self.transport, session) {
                return guard.report(&format!("cannot start: {error}"));
            }
            tokio::select! {
                () = stopped.cancelled() => {}
                ended = server.block_until_done() => {
                    let reason = ended.map_or_else(|error| error.to_string(), |()| "ended".into());
                    return guard.report(&reason);
                }
            }
            // What is still open afterwards is aborted.
            let _ = timeout(STOP_MAX, server.shutdown_gracefully()).await;
        }));
        Serving { address: self.address, stop, all_ended }
    }
}

fn register(
    server: &mut Server<Adapter>,
    socket: SecureSocket,
    transport: SecureTransport,
    Session { certificate, idle }: Session,
) -> io::Result<()> {
    let certificate: Arc<dyn ResolvesServerCert> = Arc::new(certificate);
    match socket {
        SecureSocket::Datagrams(socket) => {
            server.register_quic_listener(tokio::net::UdpSocket::from_std(socket)?, idle, certificate)
        }
        SecureSocket::Streams(socket) => {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            match transport {
                SecureTransport::Https => {
                    // Any host name is served: the client checks it against the certificate.
                    let host = None;
                    let path = DEFAULT_DNS_QUERY_PATH.into();
                    server.register_https_listener(socket, idle, certificate, host, path)
                }
                SecureTransport::Tls | SecureTransport::Quic => server.register_tls_listener(socket, idle, certificate),
            }
        }
    }
}

/// Without `SO_REUSEPORT`, so that it fails when the address is in use.
fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    super::bind_free(&socket, address)?;
    Ok(socket.into())
}

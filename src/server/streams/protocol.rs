//! What a listener's streams carry: DNS itself, DNS over TLS (RFC 7858), or DNS over HTTPS (RFC 8484).

use std::{pin::pin, sync::Arc};

use rustls::{ProtocolVersion, ServerConfig, crypto::ring};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{connection::Connection, https};
use crate::{metrics::Transport, server::Certificate};

/// The protocol names that a client may choose from in the handshake (ALPN, RFC 7301). Without one of them over HTTPS it
/// speaks HTTP/1.1.
const DOT: &[u8] = b"dot";
const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// What streams carry. Clones share the TLS configuration.
#[derive(Clone)]
pub(in crate::server) enum Protocol {
    /// Messages over TCP.
    Plain,
    /// Messages over TLS.
    Tls(TlsAcceptor),
    /// HTTP over TLS.
    Https(TlsAcceptor),
}

impl Protocol {
    /// DNS over TLS with this certificate.
    pub(in crate::server) fn tls(certificate: Certificate) -> Result<Self, rustls::Error> {
        Ok(Self::Tls(acceptor(certificate, &[DOT])?))
    }

    /// DNS over HTTPS with this certificate.
    pub(in crate::server) fn https(certificate: Certificate) -> Result<Self, rustls::Error> {
        Ok(Self::Https(acceptor(certificate, &[HTTP_2, HTTP_1_1])?))
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.transport().is_encrypted()
    }

    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Plain => Transport::Tcp,
            Self::Tls(_) => Transport::Tls,
            Self::Https(_) => Transport::Https,
        }
    }

    /// Serves one connection until it ends.
    pub(super) async fn serve(self, stream: TcpStream, mut connection: Connection) {
        // A reply is one write already; waiting for more of them would only delay it.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match self {
            Self::Plain => connection.run(stream).await,
            // In allocations of their own: a connection over TCP must not reserve their memory.
            Self::Tls(acceptor) => {
                if let Some(stream) = Box::pin(handshake(acceptor, stream, &connection)).await {
                    connection.is_old_tls = stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_2);
                    Box::pin(connection.run(stream)).await;
                }
            }
            Self::Https(acceptor) => {
                let Some(stream) = Box::pin(handshake(acceptor, stream, &connection)).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
                    Box::pin(https::serve_http2(stream, connection)).await;
                } else {
                    Box::pin(https::serve_http1(stream, connection)).await;
                }
            }
        }
    }
}

fn acceptor(certificate: Certificate, protocols: &[&[u8]]) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `None`: the client has not done its part of the handshake, or not in time.
async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, connection: &Connection) -> Option<TlsStream<TcpStream>> {
    let accepted = timeout(connection.limits.message, pin!(acceptor.accept(stream))).await;
    let stream = accepted.ok()?.ok()?;
    connection.guard.end_handshake();
    Some(stream)
}

//! TLS of simulated nodes.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The nodes' certificate and key, and what they require of clients.
#[derive(Clone)]
pub struct NodeCertificate(Arc<ServerConfig>);

impl NodeCertificate {
    /// `chain` is the certificate chain, `key` its key. With `client_ca`, clients need a certificate of that authority. All
    /// are PEM.
    ///
    /// # Errors
    /// One of them cannot be parsed, or certificate and key do not match.
    pub fn new(chain: &str, key: &str, client_ca: Option<&str>) -> io::Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(invalid)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(ca)? {
                    roots.add(authority).map_err(invalid)?;
                }
                let check = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(check.map_err(invalid)?)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(invalid)?;
        Ok(Self(Arc::new(builder.with_single_cert(certificates(chain)?, key).map_err(invalid)?)))
    }
}

impl fmt::Debug for NodeCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCertificate")
    }
}

fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// Whether new connections use TLS; by default they do not.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionSecurity(Arc<Mutex<Option<NodeCertificate>>>);

impl ConnectionSecurity {
    pub(super) fn set(&self, identity: Option<NodeCertificate>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Does the TLS handshake if there is one; an error ends the connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Connection> {
        let identity = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(match identity {
            None => Connection::Clear(stream),
            Some(NodeCertificate(config)) => Connection::Tls(Box::new(TlsAcceptor::from(config).accept(stream).await?)),
        })
    }
}

/// A connection, with TLS or without.
pub(super) enum Connection {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Makes the end of the connection a reset.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.set_zero_linger(),
            Self::Tls(stream) => stream.get_ref().0.set_zero_linger(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, octets),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

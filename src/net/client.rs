//! An HTTP/1.1 client that bounds what a server can make it read: octets, and the pieces that they come in.
//!
//! hyper skips interim replies (`100 Continue`) without end, and hands over a body chunk by chunk. A server that sends
//! either as fast as it can would keep the thread busy that all others share. So the octets that arrive for one request
//! are counted below hyper and TLS: a reply costs at most as much as [`HEAD_OCTETS_MAX`] and twice the body that the caller
//! allows, in [`PIECES_MAX`] pieces. Of these the thread parses at most a megabyte before other tasks run: 128 reads of
//! [`READ_OCTETS`], which is tokio's budget for a task. That takes about a millisecond.

mod metered;

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Incoming},
};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tower_service::Service;

use self::metered::{Allowance, CertificateExpiry, Metered, What};
pub use self::metered::{Excess, HEAD_OCTETS_MAX, PIECES_MAX};
use crate::net::certificate::CertificateFacts;

/// Octets in one read, and thus in the head of a reply: servers and proxies send a few hundred.
pub const READ_OCTETS: usize = 8 * 1024;

/// Sends requests. Clones share their connections; one client serves any number of servers.
#[derive(Clone, Debug)]
pub struct Client(legacy::Client<Connector, String>);

/// How idle connections are kept.
#[derive(Clone, Copy, Debug)]
pub struct KeepIdle {
    /// So many for each server.
    pub connections: usize,
    /// So long.
    pub timeout: Duration,
}

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Authorities, certificates and how they are checked.
    pub config: Arc<ClientConfig>,
    /// The name of all servers, which the handshake has; `None`: each has its address for a name.
    pub name: Option<ServerName<'static>>,
}

/// A reply whose head has arrived.
#[derive(Debug)]
pub struct Reply(Response<Incoming>);

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It comes in too many chunks.
    #[error(transparent)]
    Excess(Excess),
    /// The connection is lost, or the body is not framed as HTTP demands.
    #[error(transparent)]
    Lost(#[from] hyper::Error),
}

impl Client {
    /// A client that has no connection yet. With `tls` it speaks nothing else, also where the scheme of a request is `http`.
    pub fn new(tls: Option<Tls>, idle: KeepIdle) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle.timeout)
            .pool_max_idle_per_host(idle.connections)
            .http1_read_buf_exact_size(READ_OCTETS)
            .set_host(false);
        Self(builder.build(Connector { tls }))
    }

    /// Sends a request, and waits for the head of the reply. The request has an address and a port in its URL
    /// (`http://10.0.0.1:8000/path`), and a header `Host`. Dropping this closes the connection.
    ///
    /// # Errors
    /// There is no connection, it is lost, or what arrives is no HTTP.
    pub async fn send(&self, request: Request<String>) -> Result<Reply, legacy::Error> {
        self.0.request(request).await.map(Reply)
    }
}

impl Reply {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// When the certificate that the server showed expires, in unix seconds; `None`: it showed none.
    pub fn certificate_expires(&self) -> Option<i64> {
        self.0.extensions().get::<CertificateExpiry>().map(|expiry| expiry.0)
    }

    /// The whole body; `None` when it has more octets than this.
    ///
    /// # Errors
    /// The connection is lost before its end, or the body comes in too many pieces.
    pub async fn body(self, octets_max: usize) -> Result<Option<Vec<u8>>, BodyError> {
        let (head, mut body) = self.0.into_parts();
        head.extensions.get::<Allowance>().inspect(|allowance| allowance.allow_body(octets_max));
        let mut octets = Vec::new();
        for _ in 0..PIECES_MAX {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else { return Ok(Some(octets)) };
            // What is no data is a trailer.
            let Ok(data) = frame?.into_data() else { continue };
            if octets.len() + data.len() > octets_max {
                return Ok(None);
            }
            octets.extend_from_slice(&data);
        }
        Err(BodyError::Excess(Excess::Pieces))
    }
}

/// Makes connections.
#[derive(Clone, Debug)]
struct Connector {
    tls: Option<Tls>,
}

/// A connection to a server. With TLS, what is below it sees every octet, and what is above it sees which of them are
/// requests.
type Connection = Metered<Either<TcpStream, Box<TlsStream<Metered<TcpStream>>>>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move { connect(&url, tls).await.map(TokioIo::new) })
    }
}

async fn connect(url: &Uri, tls: Option<Tls>) -> io::Result<Connection> {
    let server = url.authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let server = server.ok_or_else(|| io::Error::other("the URL has no address and port"))?;
    let stream = TcpStream::connect(server).await?;
    // Requests are small, and sent whole.
    stream.set_nodelay(true)?;
    let allowance = Allowance::new();
    let Some(Tls { config, name }) = tls else {
        return Ok(Metered::new(Either::Left(stream), allowance, What::Both));
    };
    let name = name.unwrap_or_else(|| ServerName::from(server.ip()));
    let below = Metered::new(stream, allowance.clone(), What::Reads);
    let stream = TlsConnector::from(config).connect(name, below).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| CertificateFacts::parse(chain.first()?));
    let certificate = certificate.map(|facts| CertificateExpiry(facts.expires()));
    Ok(Metered::new(Either::Right(Box::new(stream)), allowance, What::Requests).with_certificate(certificate))
}

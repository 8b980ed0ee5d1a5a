//! An HTTP/1.1 client that bounds what a server can make it read: octets, and the pieces that they come in.
//!
//! hyper skips interim replies (`100 Continue`) without end, and hands over a body chunk by chunk. A server that sends
//! either as fast as it can would keep the thread busy that all others share. So the octets that arrive for one request
//! are counted below hyper and TLS: a reply costs at most as much as [`HEAD_OCTETS_MAX`] and twice the body that the caller
//! allows, in [`PIECES_MAX`] pieces. Of these the thread parses at most a megabyte before other tasks run: 128 reads of
//! [`READ_OCTETS`], which is tokio's budget for a task. That takes about a millisecond.

mod exchange;
mod idle;
mod metered;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, Response, StatusCode, body::Incoming};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

pub use self::metered::{Excess, HEAD_OCTETS_MAX, PIECES_MAX};
use self::{
    exchange::Exchange,
    idle::Idle,
    metered::{Allowance, Metered, What},
};
use crate::net::certificate::CertificateFacts;

/// Octets in one read, and thus in the head of a reply: servers and proxies send a few hundred.
pub const READ_OCTETS: usize = 8 * 1024;

/// Sends requests. Clones share their connections; one client serves any number of servers.
#[derive(Clone, Debug)]
pub struct Client {
    tls: Option<Tls>,
    /// `None`: each connection serves one request.
    idle: Option<Arc<Idle<Connection>>>,
}

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Authorities, certificates and how they are checked.
    pub config: Arc<ClientConfig>,
    /// The name of all servers, which the handshake has; `None`: each has its address for a name.
    pub name: Option<ServerName<'static>>,
}

/// A reply whose head has arrived. Dropping it closes its connection.
pub struct Reply {
    head: Response<Incoming>,
    /// In a place of its own: those who wait for a reply would else have its kilobyte also while they wait for nothing.
    exchange: Box<Exchange<Connection>>,
    allowance: Allowance,
    certificate_expires: Option<i64>,
    server: SocketAddr,
    idle: Option<Arc<Idle<Connection>>>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// The connection is lost, or what arrives is no HTTP.
    #[error("no reply")]
    Exchange(#[source] hyper::Error),
}

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
    /// A client that has no connection yet, and keeps one to each server that is idle for at most so long; `None`: it
    /// keeps none. With `tls` it speaks nothing else.
    pub fn new(tls: Option<Tls>, idle_max: Option<Duration>) -> Self {
        Self { tls, idle: idle_max.map(|timeout| Arc::new(Idle::new(timeout))) }
    }

    /// Sends a request, and waits for the head of the reply. The request has a path in place of its URL, and a header
    /// `Host`. Dropping this closes the connection.
    ///
    /// # Errors
    /// There is no connection, it is lost, or what arrives is no HTTP.
    pub async fn send(&self, server: SocketAddr, request: Request<String>) -> Result<Reply, SendError> {
        if let Some(connection) = self.idle.as_ref().and_then(|idle| idle.take(server)) {
            let allowance = connection.allowance();
            let outcome = self.exchange(server, connection, request.clone()).await;
            // A server closes idle connections when it likes, also at the moment of a request, and says nothing about itself
            // by that. All requests only read, so one that arrives twice does no harm.
            if outcome.is_ok() || !allowance.is_untouched() {
                return outcome;
            }
        }
        let connection = connect(server, self.tls.clone()).await.map_err(SendError::Connect)?;
        self.exchange(server, connection, request).await
    }

    async fn exchange(
        &self,
        server: SocketAddr,
        connection: Connection,
        request: Request<String>,
    ) -> Result<Reply, SendError> {
        let (allowance, certificate_expires) = (connection.allowance(), connection.certificate_expires());
        let mut exchange = Box::new(Exchange::begin(connection).await.map_err(SendError::Exchange)?);
        let head = exchange.send(request).await.map_err(SendError::Exchange)?;
        Ok(Reply { head, exchange, allowance, certificate_expires, server, idle: self.idle.clone() })
    }
}

impl Reply {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// When the certificate that the server showed expires, in unix seconds; `None`: it showed none.
    pub fn certificate_expires(&self) -> Option<i64> {
        self.certificate_expires
    }

    /// The whole body; `None` when it has more octets than this.
    ///
    /// # Errors
    /// The connection is lost before its end, or the body comes in too many pieces.
    pub async fn body(mut self, octets_max: usize) -> Result<Option<Vec<u8>>, BodyError> {
        self.allowance.allow_body(octets_max);
        let mut octets = Vec::new();
        for _ in 0..PIECES_MAX {
            let Some(frame) = self.exchange.frame(self.head.body_mut()).await else {
                self.keep_connection().await;
                return Ok(Some(octets));
            };
            // What is no data is a trailer.
            let Ok(data) = frame?.into_data() else { continue };
            if octets.len() + data.len() > octets_max {
                return Ok(None);
            }
            octets.extend_from_slice(&data);
        }
        Err(BodyError::Excess(Excess::Pieces))
    }

    async fn keep_connection(self) {
        let Some(idle) = &self.idle else { return };
        if let Some(connection) = self.exchange.end().await {
            self.allowance.allow_head();
            idle.keep(self.server, connection);
        }
    }
}

/// A connection to a server. With TLS, what is below it sees every octet, and what is above it sees which of them are
/// requests.
type Connection = Metered<Either<TcpStream, Box<TlsStream<Metered<TcpStream>>>>>;

async fn connect(server: SocketAddr, tls: Option<Tls>) -> io::Result<Connection> {
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
    let expires = certificate.map(|facts| facts.expires());
    Ok(Metered::new(Either::Right(Box::new(stream)), allowance, What::Requests).with_certificate_expiry(expires))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Answers the requests of one connection after the other with these octets, and closes each after its last.
    async fn serve(listener: TcpListener, connections: &[&[&[u8]]]) {
        for replies in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for reply in *replies {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                stream.write_all(reply).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_request_is_sent_again_only_if_a_kept_connection_ends_without_an_octet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, &[&[OK, b""], &[OK, b"HTTP"], &[b""], &[OK]]));
        let client = Client::new(None, Some(Duration::from_secs(10)));
        // The second request takes two connections. The third is not sent again because of its four octets, the fourth
        // because its connection is fresh.
        for is_answered in [true, true, false, false, true] {
            let request = Request::get("/").header("host", "a").body(String::new()).unwrap();
            match client.send(server, request).await {
                Ok(reply) => assert_eq!((is_answered, reply.body(2).await.unwrap()), (true, Some(b"ok".to_vec()))),
                Err(SendError::Exchange(_)) => assert!(!is_answered),
                Err(error) => panic!("{error}"),
            }
        }
        serving.await.unwrap();
    }
}

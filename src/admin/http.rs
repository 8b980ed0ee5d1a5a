//! An HTTP server with limits on the number, duration and size of requests.

mod before_1970;

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::HttpBody as _,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    connections::{Bounds, ConnectionGuard, OpenConnections},
    events::EndlessReply,
};
use crate::net::accept::{Refusal, Refusals, concerns_one_connection};

/// From accept to the end of a request's head.
pub(super) const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Octets in a request's head. Browsers send one or two thousand.
const HEAD_OCTETS_MAX: usize = 16 * 1024;

/// A reply that does not end by itself is ended after so long, also one whose client takes nothing. The client asks again.
const ENDLESS_TIME_MAX: Duration = Duration::from_secs(3600);

/// How long open connections may continue after `stop`.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// The longest pause after a failed accept: a health check must get its reply soon after the shortage.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Between two log lines about failed accepts, however many fail and succeed meanwhile.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpLimits {
    /// How many connections, and octets of replies.
    pub(super) bounds: Bounds,
    /// From accept to the end of the request's head.
    pub(super) head: Duration,
    /// From accept to the last octet of the reply.
    pub(super) whole: Duration,
}

/// A listening socket.
pub(super) trait Listen {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + ResetOnClose + Unpin + Send + 'static;

    /// The next connection, and the address of its client, if clients have addresses.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, client)| (stream, Some(client.ip().to_canonical())))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        self.accept().await.map(|(stream, _)| (stream, None))
    }
}

/// A stream whose close can discard what the kernel still holds for the client.
pub(super) trait ResetOnClose {
    /// Makes the close a reset.
    fn reset_on_close(&self);
}

impl ResetOnClose for TcpStream {
    fn reset_on_close(&self) {
        // If it fails, the kernel keeps a few megabytes until it gives up on the client.
        let _ = self.set_zero_linger();
    }
}

impl ResetOnClose for UnixStream {
    fn reset_on_close(&self) {}
}

/// Serves until `stop`, one request on each connection.
///
/// Connections are not kept alive, so `limits.whole` bounds each of them. Where there are too many, a new one takes the
/// place of another, so that silent clients keep no one out.
pub(super) async fn serve<L: Listen>(listener: L, router: Router, limits: HttpLimits, stop: CancellationToken) {
    let open = OpenConnections::new(limits.bounds);
    let mut refusals = Refusals::new(ACCEPT_PAUSE_MAX, REPORT_INTERVAL);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => propagate(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    refusals.end();
                    let guard = open.enter(client);
                    let number = guard.number();
                    let is_endless = guard.is_endless();
                    let served = serve_connection(stream, router.clone(), limits.head, guard);
                    open.set_task(number, connections.spawn(end_in_time(served, limits.whole, is_endless)));
                    // The new connection reads its request before the next one may take its place.
                    tokio::task::yield_now().await;
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    open.close_longest_idle();
                    let Refusal { pause, logged } = refusals.add(Instant::now());
                    if logged.is_some() {
                        tracing::warn!(%error, "the admin interface cannot accept connections; trying on");
                    }
                    let _ = timeout(pause, stop.cancelled()).await;
                }
            },
        }
    }
    drop(listener);
    open.close_endless();
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            propagate(ended);
        }
    };
    // Connections that are still open are dropped with the set.
    let _ = timeout(DRAIN_TIME_MAX, drained).await;
}

/// Drops what takes too long: longer than `whole`, or than [`ENDLESS_TIME_MAX`] if the reply does not end by itself.
async fn end_in_time(served: impl Future<Output = ()>, whole: Duration, is_endless: Arc<AtomicBool>) {
    let mut served = std::pin::pin!(served);
    if timeout(whole, served.as_mut()).await.is_err() && is_endless.load(Relaxed) {
        let _ = timeout(ENDLESS_TIME_MAX, served).await;
    }
}

/// Refuses a request with a body: no handler reads one.
pub(super) async fn refuse_bodies(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        (StatusCode::PAYLOAD_TOO_LARGE, "requests to this interface must not have a body\n").into_response()
    }
}

/// Serves one request.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + ResetOnClose + Unpin,
    router: Router,
    head: Duration,
    guard: ConnectionGuard,
) {
    let guard = Arc::new(guard);
    let is_over = Arc::new(AtomicBool::new(false));
    let stream = GuardedStream { stream, guard: guard.clone(), is_over: is_over.clone() };
    if SystemTime::now() < UNIX_EPOCH {
        // It ends as the client does.
        let _ = before_1970::serve_connection(stream, router, head).await;
        is_over.store(true, Relaxed);
        return;
    }
    let service = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        guard.handle();
        let reply = service.call(request);
        let guard = guard.clone();
        async move {
            let reply = reply.await?;
            if reply.extensions().get::<EndlessReply>().is_some() {
                return Ok(if guard.send_endless() { reply } else { no_place() });
            }
            guard.send(usize::try_from(reply.body().size_hint().lower()).unwrap_or(usize::MAX));
            Ok::<_, std::convert::Infallible>(reply)
        }
    });
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_OCTETS_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Errors are the client's: hyper has already replied with 400 to bad HTTP, and closes a silent connection.
    let _ = connection.as_mut().await;
    is_over.store(true, Relaxed);
}

fn no_place() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "too many status pages are open; close one\n").into_response()
}

/// Tells the guard what the client takes. If it is dropped in the middle of an exchange (the connection was closed to
/// make place, or took too long), its close discards the octets that the kernel holds for the client.
struct GuardedStream<S: ResetOnClose> {
    stream: S,
    guard: Arc<ConnectionGuard>,
    is_over: Arc<AtomicBool>,
}

impl<S: ResetOnClose> Drop for GuardedStream<S> {
    fn drop(&mut self) {
        if !self.is_over.load(Relaxed) {
            self.stream.reset_on_close();
        }
    }
}

impl<S: AsyncRead + ResetOnClose + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + ResetOnClose + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, octets);
        if written.is_ready() {
            this.guard.touch();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Ignores how a connection ended, but continues a panic of its handler in the task that owns the server.
fn propagate<T>(ended: Result<T, tokio::task::JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(tokio::task::JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}

#[cfg(test)]
impl ResetOnClose for tokio::io::DuplexStream {
    fn reset_on_close(&self) {}
}

/// Serves one request of a test.
#[cfg(test)]
pub(super) async fn serve_alone(stream: tokio::io::DuplexStream, router: Router) {
    let bounds = Bounds { connections: 1, per_client: 1, octets: 1, endless: 0, endless_per_client: 0 };
    serve_connection(stream, router, HEAD_TIME_MAX, OpenConnections::new(bounds).enter(None)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use axum::{body::Body, routing::get};
    use futures_util::StreamExt as _;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    const BOUNDS: Bounds = Bounds { connections: 2, per_client: 2, octets: 1 << 20, endless: 1, endless_per_client: 1 };
    const LIMITS: HttpLimits = HttpLimits { bounds: BOUNDS, head: HEAD_TIME_MAX, whole: Duration::from_secs(60) };

    async fn serving(limits: HttpLimits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let endless = async || {
            let piece = futures_util::stream::once(async { Ok::<_, io::Error>("first") });
            let body = Body::from_stream(piece.chain(futures_util::stream::pending()));
            ([("content-type", "text/plain")], axum::Extension(EndlessReply), body)
        };
        let router = Router::new()
            .route("/", get(async || "hello"))
            .route("/endless", get(endless))
            .layer(axum::middleware::from_fn(refuse_bodies));
        let served = tokio::spawn(serve(listener, router, limits, stop.clone()));
        (address, stop, served)
    }

    #[tokio::test]
    async fn an_endless_reply_outlives_the_time_of_others_and_ends_with_the_server() {
        let limits = HttpLimits { whole: Duration::from_millis(200), ..LIMITS };
        let (address, stop, served) = serving(limits).await;
        let mut endless = TcpStream::connect(address).await.unwrap();
        endless.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        endless.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let mut second = TcpStream::connect(address).await.unwrap();
        let refused = send(&mut second, "GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too many status pages"), "{refused}");
        for _ in 0..4 {
            let mut other = TcpStream::connect(address).await.unwrap();
            assert!(send(&mut other, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.ends_with("hello"));
            tokio::time::sleep(limits.whole / 2).await;
        }
        let mut octets = Vec::new();
        let rest = timeout(limits.whole, endless.read_to_end(&mut octets));
        assert!(rest.await.is_err(), "it is open, after twice the time of another reply");
        let begin = Instant::now();
        stop.cancel();
        served.await.unwrap();
        assert!(begin.elapsed() < DRAIN_TIME_MAX, "it holds up no stop");
        let _ = endless.read_to_end(&mut Vec::new()).await;
    }

    async fn send(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    }

    const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_slow_head_delays_no_other_connection_and_times_out() {
        let (address, _stop, _served) = serving(HttpLimits { head: Duration::from_millis(200), ..LIMITS }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HT").await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(send(&mut other, HELLO).await.ends_with("hello"));
        let mut rest = String::new();
        let _ = timeout(Duration::from_secs(10), slow.read_to_string(&mut rest)).await.unwrap();
        assert!(!rest.contains("hello"));
    }

    #[tokio::test]
    async fn connections_are_bounded_and_a_new_one_takes_the_place_of_the_longest_silent() {
        let (address, _stop, _served) = serving(LIMITS).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HT").await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_secs(10), send(&mut third, HELLO)).await.unwrap().ends_with("hello"));
        let closed = timeout(Duration::from_secs(10), first.read(&mut [0; 1])).await.unwrap();
        assert!(closed.is_err() || closed.is_ok_and(|octets| octets == 0), "the first one is closed");
        assert!(send(&mut second, "TP/1.1\r\nhost: x\r\n\r\n").await.ends_with("hello"), "there is a place for it");
    }

    #[tokio::test]
    async fn a_connection_ends_at_its_time_limit() {
        let (address, _stop, _served) = serving(HttpLimits { whole: Duration::from_millis(200), ..LIMITS }).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let closed = timeout(HEAD_TIME_MAX, silent.read(&mut [0; 1])).await.expect("before the limit of a head");
        assert!(closed.is_err() || closed.is_ok_and(|octets| octets == 0));
    }

    #[tokio::test]
    async fn a_reply_that_no_client_takes_is_dropped_when_another_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // More than the kernel takes for a client that does not read.
        let router = Router::new().route("/", get(async || "x".repeat(32 << 20)));
        let bounds = Bounds { connections: 10, per_client: 10, octets: 48 << 20, endless: 0, endless_per_client: 0 };
        let _served = tokio::spawn(serve(listener, router, HttpLimits { bounds, ..LIMITS }, CancellationToken::new()));
        let mut stalled = TcpStream::connect(address).await.unwrap();
        stalled.write_all(HELLO.as_bytes()).await.unwrap();
        stalled.readable().await.unwrap();
        let reading = async { send(&mut TcpStream::connect(address).await.unwrap(), HELLO).await.len() };
        assert!(timeout(Duration::from_secs(30), reading).await.unwrap() > 32 << 20);
        let mut octets = Vec::new();
        let rest = timeout(Duration::from_secs(30), stalled.read_to_end(&mut octets)).await.unwrap();
        assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn bad_http_gets_400_and_bodies_are_refused() {
        let (address, _stop, _served) = serving(LIMITS).await;
        let garbage = send(&mut TcpStream::connect(address).await.unwrap(), "\x16\x03\x01 what\r\n\r\n").await;
        assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        let body = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
        assert!(send(&mut TcpStream::connect(address).await.unwrap(), body).await.starts_with("HTTP/1.1 413"));
        let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(2 * HEAD_OCTETS_MAX));
        assert!(!send(&mut TcpStream::connect(address).await.unwrap(), &long).await.contains("hello"));
        assert!(send(&mut TcpStream::connect(address).await.unwrap(), HELLO).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn it_stops_although_a_client_is_silent() {
        let (address, stop, served) = serving(LIMITS).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(10), served).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }

    /// The reply to a client that sends these octets and no more.
    fn reply_to(octets: &[u8]) -> String {
        let router = Router::new().route("/", get(async || "hello")).layer(axum::middleware::from_fn(refuse_bodies));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(octets).await.unwrap();
            client.shutdown().await.unwrap();
            serve_alone(server, router).await;
            let mut reply = String::new();
            client.read_to_string(&mut reply).await.unwrap();
            reply
        })
    }

    proptest! {
        #[test]
        fn no_octets_make_the_server_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!reply_to(&octets).contains("hello"));
        }

        #[test]
        fn nothing_like_a_request_makes_the_server_panic(
            request in "(GET|HEAD|get|PRI|[A-Z]{1,9}) (/|//|\\*|/[ -~]{0,9}) HTTP/[0-2](\\.[0-9])?\r?\n\
                        ((host|content-length|transfer-encoding|connection|upgrade|expect|[!-~]{1,9}): ?\
                        (0|3|-1|chunked|close|h2c|100-continue|[ -~]{0,9})\r?\n){0,4}(\r\n)?[ -~\r\n]{0,9}"
        ) {
            let reply = reply_to(request.as_bytes());
            prop_assert!(reply.is_empty() || reply.starts_with("HTTP/1."), "{reply}");
            prop_assert!(!reply.contains("hello") || request.starts_with("GET /"), "{reply}");
        }
    }
}

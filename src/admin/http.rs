//! An HTTP server with limits on the number, duration and size of requests.

mod before_1970;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::{
    Router,
    body::HttpBody as _,
    extract::Request,
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
    serve::Listener,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// From accept to the end of a request's head.
pub(super) const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Octets in a request's head. Browsers send one or two thousand.
const HEAD_OCTETS_MAX: usize = 16 * 1024;

/// How long open connections may continue after `stop`.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// The limits of one listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpLimits {
    /// Concurrent connections; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// From accept to the end of the request's head.
    pub(super) head: Duration,
    /// From accept to the last octet of the reply.
    pub(super) whole: Duration,
}

/// Serves until `stop`, one request on each connection.
///
/// Connections are not kept alive, so none is idle, and `limits.whole` bounds each of them.
pub(super) async fn serve<L: Listener>(mut listener: L, router: Router, limits: HttpLimits, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => propagate(ended),
            (stream, _) = listener.accept(), if connections.len() < limits.connections => {
                connections.spawn(timeout(limits.whole, serve_connection(stream, router.clone(), limits.head)));
            }
        }
    }
    drop(listener);
    let drained = async {
        while let Some(ended) = connections.join_next().await {
            propagate(ended);
        }
    };
    // Connections that are still open are dropped with the set.
    let _ = timeout(DRAIN_TIME_MAX, drained).await;
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
pub(super) async fn serve_connection(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    router: Router,
    head: Duration,
) {
    if SystemTime::now() < UNIX_EPOCH {
        // It ends as the client does.
        let _ = before_1970::serve_connection(stream, router, head).await;
        return;
    }
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_OCTETS_MAX);
    // Errors are the client's: hyper has already replied with 400 to bad HTTP, and closes a silent connection.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

/// Ignores how a connection ended, but continues a panic of its handler in the task that owns the server.
fn propagate<T>(ended: Result<T, tokio::task::JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(tokio::task::JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use axum::routing::get;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    const LIMITS: HttpLimits = HttpLimits { connections: 2, head: HEAD_TIME_MAX, whole: Duration::from_secs(60) };

    async fn serving(limits: HttpLimits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "hello")).layer(axum::middleware::from_fn(refuse_bodies));
        let served = tokio::spawn(serve(listener, router, limits, stop.clone()));
        (address, stop, served)
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
    async fn connections_are_bounded_and_the_next_one_waits() {
        let (address, _stop, _served) = serving(LIMITS).await;
        let first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let third = tokio::spawn(async move {
            let mut third = TcpStream::connect(address).await.unwrap();
            send(&mut third, HELLO).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!third.is_finished(), "both connections are taken");
        drop(first);
        let reply = timeout(Duration::from_secs(10), third).await.unwrap().unwrap();
        assert!(reply.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_connection_ends_at_its_time_limit() {
        let (address, _stop, _served) =
            serving(HttpLimits { connections: 1, head: HEAD_TIME_MAX, whole: Duration::from_millis(200) }).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_secs(10), send(&mut other, HELLO)).await.unwrap().ends_with("hello"));
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
            serve_connection(server, router, HEAD_TIME_MAX).await;
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

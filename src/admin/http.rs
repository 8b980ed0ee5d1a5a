//! HTTP connections with a bound on everything: how many, how long, how large.

use std::time::Duration;

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

/// From accept to the end of a request's head. A client that needs longer is not one.
pub(super) const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Octets of a request's head. Browsers send one or two thousand.
const HEAD_OCTETS_MAX: usize = 16 * 1024;

/// How long the last connections may go on once serving has stopped.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// What a listener's connections may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// From accept to the end of the request's head.
    pub(super) head: Duration,
    /// From accept to the last octet of the reply.
    pub(super) whole: Duration,
}

/// Serves one request a connection until `stop`.
///
/// A connection is never kept: so none idles, and `limits` holds for each without a second clock.
pub(super) async fn serve<L: Listener>(mut listener: L, router: Router, limits: Limits, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => propagate(ended),
            (stream, _) = listener.accept(), if connections.len() < limits.connections => {
                connections.spawn(timeout(limits.whole, converse(stream, router.clone(), limits.head)));
            }
        }
    }
    drop(listener);
    let farewell = async {
        while let Some(ended) = connections.join_next().await {
            propagate(ended);
        }
    };
    // Who is not done by then is dropped with the set.
    let _ = timeout(FAREWELL_TIME_MAX, farewell).await;
}

/// Refuses a request that brings a body: nothing here reads one.
pub(super) async fn refuse_bodies(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        next.run(request).await
    } else {
        (StatusCode::PAYLOAD_TOO_LARGE, "requests to this interface have no body\n").into_response()
    }
}

/// One request and its reply.
pub(super) async fn converse(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    router: Router,
    head: Duration,
) {
    let mut builder = http1::Builder::new();
    builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_OCTETS_MAX);
    // What fails here is the client's doing: hyper has answered bad HTTP with 400, and silence with silence.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

/// A connection may end late or badly; a panic is ours and goes on to whoever owns the server.
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

    const LIMITS: Limits = Limits { connections: 2, head: HEAD_TIME_MAX, whole: Duration::from_secs(60) };

    async fn serving(limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "hello")).layer(axum::middleware::from_fn(refuse_bodies));
        let served = tokio::spawn(serve(listener, router, limits, stop.clone()));
        (address, stop, served)
    }

    async fn say(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    }

    const HELLO: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_slow_head_blocks_nobody_and_is_cut() {
        let (address, _stop, _served) = serving(Limits { head: Duration::from_millis(200), ..LIMITS }).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HT").await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(say(&mut other, HELLO).await.ends_with("hello"));
        let mut rest = String::new();
        let _ = timeout(Duration::from_secs(10), slow.read_to_string(&mut rest)).await.unwrap();
        assert!(!rest.contains("hello"));
    }

    #[tokio::test]
    async fn connections_are_bounded_and_the_next_waits_its_turn() {
        let (address, _stop, _served) = serving(LIMITS).await;
        let first = TcpStream::connect(address).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let third = tokio::spawn(async move {
            let mut third = TcpStream::connect(address).await.unwrap();
            say(&mut third, HELLO).await
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!third.is_finished(), "both places are taken");
        drop(first);
        let reply = timeout(Duration::from_secs(10), third).await.unwrap().unwrap();
        assert!(reply.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_connection_is_given_up_when_its_time_is_over() {
        let (address, _stop, _served) =
            serving(Limits { connections: 1, head: HEAD_TIME_MAX, whole: Duration::from_millis(200) }).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut other = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_secs(10), say(&mut other, HELLO)).await.unwrap().ends_with("hello"));
    }

    #[tokio::test]
    async fn garbage_costs_a_400_and_bodies_are_refused() {
        let (address, _stop, _served) = serving(LIMITS).await;
        let garbage = say(&mut TcpStream::connect(address).await.unwrap(), "\x16\x03\x01 what\r\n\r\n").await;
        assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
        let body = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
        assert!(say(&mut TcpStream::connect(address).await.unwrap(), body).await.starts_with("HTTP/1.1 413"));
        let long = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(2 * HEAD_OCTETS_MAX));
        assert!(!say(&mut TcpStream::connect(address).await.unwrap(), &long).await.contains("hello"));
        assert!(say(&mut TcpStream::connect(address).await.unwrap(), HELLO).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn it_stops_even_while_somebody_is_silent() {
        let (address, stop, served) = serving(LIMITS).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(10), served).await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }

    /// What a client is told that sends these octets and no more.
    fn told(octets: &[u8]) -> String {
        let router = Router::new().route("/", get(async || "hello")).layer(axum::middleware::from_fn(refuse_bodies));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            client.write_all(octets).await.unwrap();
            client.shutdown().await.unwrap();
            converse(server, router, HEAD_TIME_MAX).await;
            let mut reply = String::new();
            client.read_to_string(&mut reply).await.unwrap();
            reply
        })
    }

    proptest! {
        #[test]
        fn no_octets_can_break_the_reader(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!told(&octets).contains("hello"));
        }

        #[test]
        fn nor_can_anything_that_looks_like_a_request(
            request in "(GET|HEAD|get|PRI|[A-Z]{1,9}) (/|//|\\*|/[ -~]{0,9}) HTTP/[0-2](\\.[0-9])?\r?\n\
                        ((host|content-length|transfer-encoding|connection|upgrade|expect|[!-~]{1,9}): ?\
                        (0|3|-1|chunked|close|h2c|100-continue|[ -~]{0,9})\r?\n){0,4}(\r\n)?[ -~\r\n]{0,9}"
        ) {
            let reply = told(request.as_bytes());
            prop_assert!(reply.is_empty() || reply.starts_with("HTTP/1."), "{reply}");
            prop_assert!(!reply.contains("hello") || request.starts_with("GET /"), "{reply}");
        }
    }
}

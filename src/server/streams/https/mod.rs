//! DNS over HTTPS (RFC 8484), on hyper's HTTP/2 and HTTP/1.1.
//!
//! hyper has no deadline for a connection without requests, nor for a reply that is not taken; [`drive`] has both, and
//! [`deadlines`] bounds each write below it. One task holds a connection and all its requests: closing it frees everything.

mod deadlines;
mod reply;
mod request;

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::{FutureExt, StreamExt, future::FusedFuture, stream::FuturesUnordered};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::request::query_parameter;
use self::{
    deadlines::SendDeadline,
    reply::{InProgress, ReplyBody},
    request::{Refusal, read_body},
};
use super::connection::{Connection, IN_FLIGHT_MAX, STOP_LINGER};
use crate::server::service::StreamReply;

/// Requests of one HTTP/2 connection at a time; clients wait with further ones. As many as wait for upstreams on a TCP
/// connection: a stream that was let in and left waiting would hold up a zone's answer.
const STREAMS_MAX: u32 = IN_FLIGHT_MAX as u32;

/// Octets of a request's headers. GET carries the message in them; browsers send a thousand besides.
const HEADERS_OCTETS_MAX: u32 = 16 * 1024;

/// Headers of an HTTP/1.1 request.
const HEADERS_MAX: usize = 64;

/// Octets that a client may send on one HTTP/2 stream before they are read: the largest body and its padding.
const STREAM_WINDOW_OCTETS: u32 = 16 * 1024;

/// The same for all streams of a connection; the protocol allows no less (RFC 9113, 6.9.2).
const CONNECTION_WINDOW_OCTETS: u32 = 65_535;

/// Octets of replies that hyper takes for one stream before the client's window has space: a message.
const SEND_OCTETS_MAX: usize = 64 * 1024;

/// Serves HTTP/2 until the connection ends.
pub(super) async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin, connection: Connection) {
    let (spawn, spawned) = mpsc::unbounded_channel();
    let requests = Requests::new(connection);
    let stream = TokioIo::new(SendDeadline::new(stream, requests.connection.limits.message));
    let mut builder = http2::Builder::new(Streams(spawn));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_OCTETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_OCTETS)
        .initial_connection_window_size(CONNECTION_WINDOW_OCTETS)
        .max_send_buf_size(SEND_OCTETS_MAX);
    let shared = requests.clone();
    let service = service_fn(move |request| answer(shared.clone(), shared.begin(), request));
    let served = builder.serve_connection(stream, service);
    drive(served, http2::Connection::graceful_shutdown, &requests, spawned).await;
}

/// Serves HTTP/1.1 until the connection ends.
pub(super) async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin, connection: Connection) {
    // Nothing is ever spawned: requests of HTTP/1.1 come one after the other.
    let (_, spawned) = mpsc::unbounded_channel();
    let requests = Requests::new(connection);
    let stream = TokioIo::new(SendDeadline::new(stream, requests.connection.limits.message));
    let mut builder = http1::Builder::new();
    // `drive` has the deadlines.
    builder.header_read_timeout(None).max_headers(HEADERS_MAX).max_buf_size(HEADERS_OCTETS_MAX as usize);
    let shared = requests.clone();
    let service = service_fn(move |request| answer(shared.clone(), shared.begin(), request));
    let served = builder.serve_connection(stream, service);
    drive(served, http1::Connection::graceful_shutdown, &requests, spawned).await;
}

/// Takes the streams of an HTTP/2 connection, to be polled by its own task.
#[derive(Clone)]
struct Streams(UnboundedSender<Stream>);

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        // The receiver lives as long as the connection. HTTP/2 bounds how many streams there are.
        let _ = self.0.send(Box::pin(stream));
    }
}

/// Runs a connection until it ends, is idle for too long, or has a reply that its client does not take.
async fn drive<C: Future>(
    served: C,
    shut_down: impl Fn(Pin<&mut C>),
    requests: &Requests,
    mut spawned: UnboundedReceiver<Stream>,
) {
    let mut served = pin!(served);
    let mut streams = FuturesUnordered::new();
    let mut timer = pin!(sleep_until(requests.deadline()));
    let ending = requests.ending.clone();
    let mut ending = pin!(
        async move {
            ending.cancelled().await;
            sleep(STOP_LINGER).await;
        }
        .fuse()
    );
    loop {
        let deadline = requests.deadline();
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        tokio::select! {
            // The connection goes before requests, so that each reply is sent by itself: dnsperf 2.10 takes only the first
            // reply in a TLS record, and counts the others as lost.
            biased;
            Some(stream) = spawned.recv() => streams.push(stream),
            _ = served.as_mut() => return,
            Some(()) = streams.next(), if !streams.is_empty() => {}
            () = timer.as_mut() => {
                let deadline = requests.deadline();
                if deadline <= Instant::now() {
                    return;
                }
                timer.as_mut().reset(deadline);
            }
            () = ending.as_mut(), if !ending.is_terminated() => shut_down(served.as_mut()),
        }
    }
}

/// The requests of one connection.
struct Requests {
    connection: Connection,
    /// No further requests are taken.
    ending: CancellationToken,
    progress: Arc<Progress>,
    began: AtomicUsize,
}

/// How many requests are not over, and when the last one was.
struct Progress {
    began: Instant,
    requests: AtomicUsize,
    /// Nanoseconds after `began`.
    last: AtomicU64,
}

impl Progress {
    fn touch(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + std::time::Duration::from_nanos(self.last.load(Relaxed))
    }
}

impl Requests {
    fn new(connection: Connection) -> Arc<Self> {
        let progress = Progress { began: Instant::now(), requests: AtomicUsize::new(0), last: AtomicU64::new(0) };
        Arc::new(Self {
            ending: connection.stop.child_token(),
            connection,
            progress: Arc::new(progress),
            began: AtomicUsize::new(0),
        })
    }

    /// When the connection is closed if nothing happens until then.
    fn deadline(&self) -> Instant {
        let limits = &self.connection.limits;
        match self.connection.guard.longest_wait() {
            Some(wait) => Instant::now() + limits.message.saturating_sub(wait),
            None if self.progress.requests.load(Relaxed) == 0 => self.progress.last() + limits.idle,
            // Each request has deadlines of its own.
            None => Instant::now() + limits.message,
        }
    }

    fn begin(&self) -> InProgress {
        self.connection.guard.touch();
        if self.began.fetch_add(1, Relaxed) + 1 >= self.connection.limits.max_questions {
            self.ending.cancel();
        }
        InProgress::new(self.progress.clone())
    }

    /// The reply to a question.
    async fn reply(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Connection { service, worker, .. } = &self.connection;
        let mut out = Vec::new();
        match service.answer_stream(message, &self.connection.client(), worker, &mut out) {
            StreamReply::Ready => Ok(out),
            StreamReply::Forwarded(reply) => reply.await.map_err(|_| Refusal::Unavailable),
            StreamReply::None => Err(Refusal::NoReply),
        }
    }

    async fn exchange(&self, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
        match request::question(request.method(), request.uri(), request.headers())? {
            Some(message) => self.reply(&message).await,
            None => {
                let mut read = pin!(read_body(request.into_body()));
                let body = match read.as_mut().now_or_never() {
                    Some(body) => body?,
                    None => {
                        let _counted = self.connection.guard.wait(request::BODY_OCTETS_MAX);
                        let body = timeout(self.connection.limits.message, read).await;
                        body.unwrap_or(Err(Refusal::TooSlow))?
                    }
                };
                self.reply(&body).await
            }
        }
    }
}

/// Answers a request, which has begun before: [`drive`] sets its deadline when it gets the stream.
async fn answer(
    requests: Arc<Requests>,
    in_progress: InProgress,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let guard = &requests.connection.guard;
    Ok(match requests.exchange(request).await {
        Ok(message) => reply::message(message, guard, in_progress),
        Err(refusal) => reply::refusal(&refusal, guard, in_progress),
    })
}

//! Requests and replies on one connection, in the task of the caller.
//!
//! hyper takes a connection apart: one end takes requests, the other moves octets and is meant for a task of its own. Here
//! the caller polls both. So nothing is left between two requests but the connection itself: no task, and no buffer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::READ_OCTETS;

/// A connection during a request.
pub struct Exchange<C: AsyncRead + AsyncWrite + Unpin> {
    requests: http1::SendRequest<String>,
    octets: Octets<C>,
}

/// What moves octets; `None` once the connection has ended.
type Octets<C> = Option<http1::Connection<TokioIo<C>, String>>;

impl<C: AsyncRead + AsyncWrite + Unpin> Exchange<C> {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// None for HTTP/1.1; hyper has the same form for HTTP/2.
    pub async fn begin(connection: C) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.read_buf_exact_size(Some(READ_OCTETS));
        let (requests, octets) = builder.handshake(TokioIo::new(connection)).await?;
        Ok(Self { requests, octets: Some(octets) })
    }

    /// Sends a request, and waits for the head of the reply.
    ///
    /// # Errors
    /// The connection is lost, or what arrives is no HTTP.
    pub async fn send(&mut self, request: Request<String>) -> Result<Response<Incoming>, hyper::Error> {
        drive(&mut self.octets, self.requests.send_request(request)).await
    }

    /// The next frame of the reply's body.
    pub async fn frame(&mut self, body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        drive(&mut self.octets, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await
    }

    /// After the whole reply: the connection, if another request may be sent on it.
    pub async fn end(self) -> Option<C> {
        let mut octets = self.octets?;
        // hyper decides this when it is polled after the end of the body.
        let has_ended = poll_fn(|cx| Poll::Ready(Pin::new(&mut octets).poll(cx).is_ready())).await;
        if has_ended || !self.requests.is_ready() {
            return None;
        }
        let http1::Parts { io, read_buf, .. } = octets.into_parts();
        read_buf.is_empty().then(|| io.into_inner())
    }
}

/// Moves octets until the outcome is there.
async fn drive<C, F>(octets: &mut Octets<C>, outcome: F) -> F::Output
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Future,
{
    let mut outcome = pin!(outcome);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = outcome.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        // Why a connection ends is part of the outcome.
        if octets.as_mut().is_some_and(|octets| Pin::new(octets).poll(cx).is_ready()) {
            *octets = None;
        }
        outcome.as_mut().poll(cx)
    })
    .await
}

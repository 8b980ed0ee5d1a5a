//! HTTP responses with a DNS message, and for how long a cache may keep them (RFC 8484, 5.1).

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Body, Buf, Bytes, Frame, SizeHint},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue},
};

use super::{
    Progress,
    request::{MEDIA_TYPE, Refusal},
};
use crate::{
    answer::wire::smallest_ttl,
    server::streams::limits::{ConnectionGuard, WaitingMessage},
};

/// The response with a DNS message. Its status says nothing about the message's rcode (RFC 8484, 4.2.1).
pub(super) fn message(mut message: Vec<u8>, guard: &ConnectionGuard, in_progress: InProgress) -> Response<ReplyBody> {
    // The buffer may be twice as long as what it holds, and the message may wait.
    message.shrink_to_fit();
    // Without records nothing says for how long the reply holds.
    let age = format!("max-age={}", smallest_ttl(&message).unwrap_or(0));
    let mut response = Response::new(ReplyBody::new(message.into(), guard, in_progress));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if let Ok(age) = HeaderValue::try_from(age) {
        headers.insert(CACHE_CONTROL, age);
    }
    response
}

/// The response that says why there is none.
pub(super) fn refusal(refusal: &Refusal, guard: &ConnectionGuard, in_progress: InProgress) -> Response<ReplyBody> {
    let text = format!("{refusal}\n");
    let mut response = Response::new(ReplyBody::new(text.into(), guard, in_progress));
    *response.status_mut() = refusal.status();
    let mut insert = |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
    insert(CONTENT_TYPE, "text/plain; charset=utf-8");
    if refusal.status() == StatusCode::METHOD_NOT_ALLOWED {
        insert(ALLOW, "GET, POST");
    }
    response
}

/// A request is in progress until this is dropped.
pub(super) struct InProgress(Arc<Progress>);

impl InProgress {
    pub(super) fn new(progress: Arc<Progress>) -> Self {
        progress.requests.fetch_add(1, Relaxed);
        Self(progress)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// The body of a response, which is in one piece.
pub(super) struct ReplyBody(Option<ReplyOctets>);

/// Octets of a body. They count as waiting, and their request as in progress, until hyper has written them: it holds them
/// while the client's window has no space.
pub(super) struct ReplyOctets {
    octets: Bytes,
    _waiting: WaitingMessage,
    _in_progress: InProgress,
}

impl ReplyBody {
    fn new(octets: Bytes, guard: &ConnectionGuard, in_progress: InProgress) -> Self {
        let waiting = guard.wait(octets.len());
        Self(Some(ReplyOctets { octets, _waiting: waiting, _in_progress: in_progress }))
    }
}

impl Body for ReplyBody {
    type Data = ReplyOctets;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyOctets>, Infallible>>> {
        Poll::Ready(self.0.take().map(|octets| Ok(Frame::data(octets))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |octets| octets.octets.len() as u64))
    }
}

impl Buf for ReplyOctets {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, octets: usize) {
        self.octets.advance(octets);
    }
}

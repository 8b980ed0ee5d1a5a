//! Counts what arrives for a request, and refuses more than a reply needs.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Octets from the end of a request to the end of its reply's head: the head, the interim replies before it, and what is
/// read ahead of the body, by TLS too. A server that sends more sends interim replies without end.
pub const HEAD_OCTETS_MAX: usize = 64 * 1024;

/// Octets of a TLS handshake, which end with the first request. The largest message that TLS allows has 64 KiB.
const HANDSHAKE_OCTETS_MAX: usize = 256 * 1024;

/// Reads of one reply, and chunks of its body. A megabyte in the smallest packets of the Internet (536 octets) has fewer;
/// beyond it the reply comes octet by octet.
pub const PIECES_MAX: usize = 2048;

/// A server sends more than any reply needs. Each reads as the end of a sentence that starts with the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Excess {
    /// It sends octets without end before its reply.
    #[error("sent more than {HEAD_OCTETS_MAX} octets before the end of its reply's head")]
    Head,
    /// It sends many more octets than the body has.
    #[error("sent a body with more framing than content")]
    Body,
    /// It sends its reply octet by octet.
    #[error("sent its reply in more than {PIECES_MAX} pieces")]
    Pieces,
}

/// What may still be read before the next request. Clones share it.
#[derive(Clone, Debug)]
pub struct Allowance(Arc<Mutex<Left>>);

#[derive(Debug)]
struct Left {
    octets: usize,
    pieces: usize,
    /// What more octets would be.
    excess: Excess,
}

impl Allowance {
    /// For a handshake.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Left { octets: HANDSHAKE_OCTETS_MAX, pieces: PIECES_MAX, excess: Excess::Head })))
    }

    /// A request is sent, or is next: the head of its reply is to come.
    pub fn allow_head(&self) {
        *self.lock() = Left { octets: HEAD_OCTETS_MAX, pieces: PIECES_MAX, excess: Excess::Head };
    }

    /// The head has arrived: a body is to come, and once again as much for its framing.
    pub fn allow_body(&self, octets_max: usize) {
        let mut left = self.lock();
        left.octets = octets_max.saturating_mul(2).saturating_add(HEAD_OCTETS_MAX);
        left.excess = Excess::Body;
    }

    /// Whether nothing has arrived since the request.
    pub fn is_untouched(&self) -> bool {
        self.lock().octets == HEAD_OCTETS_MAX
    }

    fn check(&self) -> Result<(), Excess> {
        let left = self.lock();
        match (left.octets, left.pieces) {
            (0, _) => Err(left.excess),
            (_, 0) => Err(Excess::Pieces),
            _ => Ok(()),
        }
    }

    fn take(&self, octets: usize) {
        let mut left = self.lock();
        left.octets = left.octets.saturating_sub(octets);
        left.pieces = left.pieces.saturating_sub(1);
    }

    /// Nothing panics while it holds the lock, so the content is whole.
    fn lock(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream whose reads are counted, or whose writes begin a request, or both. With TLS there is one below it, which sees
/// every octet, and one above it, which sees what is a request and not a part of TLS.
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    allowance: Allowance,
    what: What,
    certificate_expires: Option<i64>,
}

/// What a stream reports to the allowance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// Octets that arrive.
    Reads,
    /// Requests that begin.
    Requests,
    /// Both.
    Both,
}

impl<S> Metered<S> {
    /// Meters a stream.
    pub fn new(stream: S, allowance: Allowance, what: What) -> Self {
        Self { stream, allowance, what, certificate_expires: None }
    }

    /// The same, of a server whose certificate expires then, in unix seconds.
    pub fn with_certificate_expiry(self, expires: Option<i64>) -> Self {
        Self { certificate_expires: expires, ..self }
    }

    /// When the certificate that the server showed expires, in unix seconds; `None`: it showed none.
    pub fn certificate_expires(&self) -> Option<i64> {
        self.certificate_expires
    }

    /// What may still be read.
    pub fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.what == What::Requests {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        this.allowance.check().map_err(io::Error::other)?;
        let before = into.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, into))?;
        this.allowance.take(into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.what != What::Reads {
            this.allowance.allow_head();
        }
        Pin::new(&mut this.stream).poll_write(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn octets_and_pieces_are_counted_anew_for_each_request() {
        let (here, mut there) = tokio::io::duplex(4 * HEAD_OCTETS_MAX);
        let mut here = Metered::new(here, Allowance::new(), What::Both);
        let excess = |error: io::Error| *error.get_ref().unwrap().downcast_ref::<Excess>().unwrap();
        for _ in 0..2 {
            here.write_all(b"request").await.unwrap();
            there.write_all(&vec![0; HEAD_OCTETS_MAX]).await.unwrap();
            here.read_exact(&mut vec![0; HEAD_OCTETS_MAX]).await.unwrap();
            there.write_all(b"more").await.unwrap();
            assert_eq!(excess(here.read_u8().await.unwrap_err()), Excess::Head);
            here.allowance.allow_body(0);
            here.read_exact(&mut [0; 4]).await.unwrap();
        }
        here.write_all(b"request").await.unwrap();
        there.write_all(&[0; PIECES_MAX + 1]).await.unwrap();
        for _ in 0..PIECES_MAX {
            here.read_u8().await.unwrap();
        }
        assert_eq!(excess(here.read_u8().await.unwrap_err()), Excess::Pieces);
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_allowed_and_its_framing_too() {
        let (here, mut there) = tokio::io::duplex(4 * HEAD_OCTETS_MAX);
        let mut here = Metered::new(here, Allowance::new(), What::Both);
        here.write_all(b"request").await.unwrap();
        here.allowance.allow_body(1000);
        there.write_all(&vec![0; 2000 + HEAD_OCTETS_MAX + 1]).await.unwrap();
        here.read_exact(&mut vec![0; 2000 + HEAD_OCTETS_MAX]).await.unwrap();
        let error = here.read_u8().await.unwrap_err();
        assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&Excess::Body));
    }
}

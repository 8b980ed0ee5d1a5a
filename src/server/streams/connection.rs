//! One connection over TCP or TLS: messages with their length before each, answered as soon as their answers are ready,
//! in any order (RFC 7766, 6.2.1.1).
//!
//! Zones' questions are answered at once, without a task; their replies are sent together when the client has sent several
//! questions. Questions for upstreams wait beside them.

use std::{io, net::IpAddr, pin::Pin, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture},
    stream::FuturesUnordered,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, Sleep, sleep, sleep_until, timeout_at},
};
use tokio_util::{
    bytes::BytesMut,
    codec::{Decoder, LengthDelimitedCodec},
    sync::CancellationToken,
};

use super::limits::{ConnectionGuard, Limits, WaitingMessage};
use crate::{
    answer::Client,
    metrics::Transport,
    server::service::{Service, StreamReply, StreamWorker},
    transfer::{Sender, TransferAnswer, TransferMessages},
    types::{unix_now, unix_seconds},
};

/// Questions of one connection that wait for upstreams. With so many, no more are read before one is answered.
pub(super) const IN_FLIGHT_MAX: usize = 64;

/// How long a connection without a question stays open while the server stops: its question may be on the way.
pub(super) const STOP_LINGER: Duration = Duration::from_millis(100);

/// Octets of a connection's buffers while it is idle: several questions, or the replies to them.
const BUFFER_OCTETS: usize = 4096;

/// Octets of replies with which no more are added before they are sent. The largest reply exceeds it once.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// Octets of a message's length before it (RFC 1035, 4.2.2).
const LENGTH_OCTETS: usize = 2;

/// The codec of messages on a stream: two octets of length before each (RFC 1035, 4.2.2). Public so that a fuzzer cuts
/// streams as the server does.
#[doc(hidden)]
pub fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()
}

/// What a connection has, whatever its protocol.
pub(super) struct Connection {
    pub(super) service: Service,
    pub(super) worker: StreamWorker,
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    /// Whether that is TLS before version 1.3.
    pub(super) is_old_tls: bool,
    pub(super) limits: Limits,
    pub(super) guard: ConnectionGuard,
    pub(super) stop: CancellationToken,
}

impl Connection {
    /// Serves DNS on a stream. Whatever ends the connection, the client sees it close.
    pub(super) async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let stop = self.stop.clone();
        let stopped = std::pin::pin!(
            async move {
                stop.cancelled().await;
                sleep(STOP_LINGER).await;
            }
            .fuse()
        );
        let mut exchange = Exchange::new(self, stream);
        exchange.run(stopped).await;
    }

    /// The client of a message that has come now.
    pub(super) fn client(&self) -> Client {
        Client { address: self.client, transport: self.transport, now: unix_now() }
    }

    /// The same of a message that may be a secondary's.
    fn sender(&self) -> Sender {
        let Self { client, transport, is_old_tls, .. } = *self;
        Sender { address: client, transport, is_old_tls, now: unix_seconds() }
    }
}

/// The questions that wait for upstreams.
type Forwarded = FuturesUnordered<oneshot::Receiver<Vec<u8>>>;

/// An upstream's reply, or an error in its place.
type ForwardedReply = Result<Vec<u8>, oneshot::error::RecvError>;

/// The exchange of messages on one stream.
struct Exchange<S> {
    connection: Connection,
    stream: S,
    codec: LengthDelimitedCodec,
    /// What is read and not answered.
    input: BytesMut,
    /// Since when the first message in `input` is incomplete.
    incomplete_since: Option<Instant>,
    /// The reply to one question, before it is framed.
    reply: Vec<u8>,
    /// A zone that a secondary fetches: further messages are to be sent.
    transfer: Option<TransferMessages>,
    /// Framed replies that are to be sent.
    output: Vec<u8>,
    questions: usize,
    /// The questions that wait for upstreams.
    forwarded: Forwarded,
    /// No more is read: the connection ends when the questions that wait are answered.
    is_last: bool,
    active: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    fn new(connection: Connection, stream: S) -> Self {
        let now = Instant::now();
        let timer = Box::pin(sleep_until(now + connection.limits.idle));
        Self {
            connection,
            stream,
            codec: framing(),
            input: BytesMut::with_capacity(BUFFER_OCTETS),
            incomplete_since: None,
            reply: Vec::new(),
            transfer: None,
            output: Vec::new(),
            questions: 0,
            forwarded: FuturesUnordered::new(),
            is_last: false,
            active: now,
            timer,
        }
    }

    async fn run(&mut self, mut stopped: Pin<&mut Fuse<impl Future<Output = ()>>>) {
        loop {
            let is_drained = self.answer_input();
            if self.send().await.is_err() {
                return;
            }
            if !is_drained || !self.output.is_empty() {
                continue;
            }
            // The rest of a message that has begun may still come.
            self.is_last |= stopped.is_terminated() && self.is_between_messages();
            if self.is_last && self.forwarded.is_empty() || !self.wait(stopped.as_mut()).await {
                break;
            }
        }
        // Ends TLS as its standard says. What cannot be sent at once is not waited for.
        let _ = self.stream.shutdown().now_or_never();
    }

    /// Answers the messages that are complete. `false`: there may be more, once the replies are sent.
    fn answer_input(&mut self) -> bool {
        if !self.write_transfer() {
            return false;
        }
        while self.reads() {
            if self.output.len() >= OUTPUT_OCTETS_MAX {
                return false;
            }
            // The codec takes the length out before the message is complete.
            let has_octets = !self.input.is_empty();
            // A length of sixteen bits is never too long.
            let Ok(Some(message)) = self.codec.decode(&mut self.input) else {
                if has_octets {
                    self.incomplete_since.get_or_insert(self.active);
                }
                break;
            };
            self.incomplete_since = None;
            self.answer(&message);
            if !self.write_transfer() {
                return false;
            }
        }
        if self.is_between_messages() && self.input.capacity() > BUFFER_OCTETS {
            self.input = BytesMut::with_capacity(BUFFER_OCTETS);
        }
        true
    }

    /// Adds messages of the transfer under way, as many as are sent together. `false`: there are more.
    fn write_transfer(&mut self) -> bool {
        while let Some(transfer) = &mut self.transfer {
            if self.output.len() >= OUTPUT_OCTETS_MAX {
                return false;
            }
            if transfer.next(unix_seconds(), &mut self.reply) {
                frame(&self.reply, &mut self.output);
            } else {
                self.transfer = None;
            }
        }
        true
    }

    /// Whether the client has sent no part of a message that is not answered.
    fn is_between_messages(&self) -> bool {
        self.input.is_empty() && self.incomplete_since.is_none()
    }

    fn answer(&mut self, message: &[u8]) {
        let Connection { service, worker, limits, .. } = &self.connection;
        let client = self.connection.client();
        let sender = self.connection.sender();
        self.questions += 1;
        self.is_last |= self.questions >= limits.max_questions;
        match service.answer_secondary(message, &sender, &service.table().now(), &mut self.reply) {
            TransferAnswer::None => {}
            TransferAnswer::Reply => return frame(&self.reply, &mut self.output),
            TransferAnswer::Messages(messages) => return self.transfer = Some(messages),
        }
        match service.answer_stream(message, &client, worker, &mut self.reply) {
            StreamReply::Ready => frame(&self.reply, &mut self.output),
            StreamReply::Forwarded(reply) => self.forwarded.push(reply),
            // The frames are lost, or the client does not speak DNS.
            StreamReply::None => self.is_last = true,
        }
    }

    /// Whether questions are read now.
    fn reads(&self) -> bool {
        !self.is_last && self.forwarded.len() < IN_FLIGHT_MAX
    }

    /// Waits for octets of the client, or for an upstream's reply; `false`: the connection ends.
    async fn wait(&mut self, mut stopped: Pin<&mut Fuse<impl Future<Output = ()>>>) -> bool {
        let deadline = self.deadline();
        let reads = self.reads();
        if reads && self.input.capacity() == self.input.len() {
            self.input.reserve(BUFFER_OCTETS);
        }
        loop {
            // The timer is set again only when it fires too early, and not for each message.
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            tokio::select! {
                // What has arrived is answered, even when the time is up at that moment.
                biased;
                Some(reply) = self.forwarded.next(), if !self.forwarded.is_empty() => {
                    self.take(reply);
                    return true;
                }
                octets = self.stream.read_buf(&mut self.input), if reads => {
                    self.active = Instant::now();
                    self.connection.guard.touch();
                    match octets {
                        Ok(0) => self.is_last = true,
                        Ok(_) => {}
                        Err(_) => return false,
                    }
                    return true;
                }
                () = self.timer.as_mut() => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    self.timer.as_mut().reset(deadline);
                }
                () = stopped.as_mut(), if !stopped.is_terminated() => return true,
            }
        }
    }

    /// When the connection ends if nothing comes.
    fn deadline(&self) -> Instant {
        let Limits { idle, message, .. } = self.connection.limits;
        match self.incomplete_since {
            Some(since) if self.reads() => since + message,
            _ if self.forwarded.is_empty() => self.active + idle,
            // Upstreams have a deadline of their own, and the connection is in use.
            _ => Instant::now() + idle + message,
        }
    }

    /// Adds an upstream's reply to those that are to be sent. Without one the task that asks has ended, so the connection
    /// ends too.
    fn take(&mut self, reply: ForwardedReply) {
        self.connection.guard.touch();
        self.active = Instant::now();
        match reply {
            Ok(reply) => frame(&reply, &mut self.output),
            Err(_) => self.is_last = true,
        }
    }

    /// Sends the replies. Those of upstreams that come meanwhile are to be sent next.
    async fn send(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let waited = {
            let counted = self.output.len();
            let mut sending = std::pin::pin!(send(&mut self.stream, &self.output));
            match sending.as_mut().now_or_never() {
                Some(sent) => sent.map(|()| Vec::new())?,
                None => {
                    let _counted = self.connection.guard.wait(counted);
                    let waited = wait_to_send(sending, &self.connection, &mut self.forwarded).await?;
                    self.active = Instant::now();
                    waited
                }
            }
        };
        self.output.clear();
        self.output.shrink_to(BUFFER_OCTETS);
        for (reply, _counted) in waited {
            self.take(reply);
        }
        Ok(())
    }
}

/// Waits until the client has taken the replies. Returns those of upstreams that came meanwhile: they wait too, and are
/// counted with the others.
async fn wait_to_send(
    mut sending: Pin<&mut impl Future<Output = io::Result<()>>>,
    connection: &Connection,
    forwarded: &mut Forwarded,
) -> io::Result<Vec<(ForwardedReply, WaitingMessage)>> {
    let deadline = Instant::now() + connection.limits.message;
    let mut waited = Vec::new();
    loop {
        tokio::select! {
            sent = timeout_at(deadline, sending.as_mut()) => {
                sent??;
                return Ok(waited);
            }
            Some(reply) = forwarded.next(), if !forwarded.is_empty() => {
                let counted = connection.guard.wait(reply.as_ref().map_or(0, Vec::len));
                waited.push((reply, counted));
            }
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}

/// Appends a message with its length.
fn frame(message: &[u8], output: &mut Vec<u8>) {
    // No message is longer: replies have a limit of sixteen bits.
    let Ok(length) = u16::try_from(message.len()) else { return };
    output.reserve(LENGTH_OCTETS + message.len());
    output.extend_from_slice(&length.to_be_bytes());
    output.extend_from_slice(message);
}

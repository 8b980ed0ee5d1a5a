//! Questions over TCP and TLS: many on one connection, which is opened when it is needed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

use super::{
    error::AttemptError,
    query::{Received, UpstreamQuery, WithOpt},
    sockets::CONNECTIONS_MAX,
};

/// Questions in flight on one connection. Further ones wait.
const QUESTIONS_PER_CONNECTION: usize = 256;

/// How long it takes at most to connect, and to agree on keys.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// How long a question may take to write. Only a connection that has died takes longer.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// A connection without questions is closed after this long. Upstreams close theirs at about that time (RFC 7766, 6.2.3).
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A connection that was used before and over which nothing comes for so long may have died without a sign, in a firewall
/// for instance. Its questions are asked again on a fresh one.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// A connection is given up when nothing comes over it for so long although questions wait: no question waits longer.
const UNANSWERED_MAX: Duration = Duration::from_secs(4);

/// An upstream that is asked over streams.
#[derive(Debug)]
pub(super) struct StreamUpstream {
    target: Arc<Target>,
    /// A permit for each connection.
    permits: Arc<Semaphore>,
    /// The connection for new questions.
    current: Mutex<Option<Connection>>,
}

/// What a connection is opened to.
pub(super) struct Target {
    pub(super) address: SocketAddr,
    /// The name in the upstream's certificate; `None`: TCP without TLS.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({})", self.address)
    }
}

/// A connection, which a task of its own opens and serves. It ends with its last clone.
#[derive(Clone, Debug)]
struct Connection {
    questions: mpsc::Sender<StreamQuestion>,
    /// Messages that came over it.
    received: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct StreamQuestion {
    query: UpstreamQuery,
    opt: WithOpt,
    reply: oneshot::Sender<Result<Received, AttemptError>>,
}

impl StreamUpstream {
    pub(super) fn new(target: Target) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { target: Arc::new(target), permits, current: Mutex::default() }
    }

    /// Asks once, or twice if an earlier connection turns out to be dead.
    ///
    /// The caller drops the future at its deadline.
    pub(super) async fn ask(&self, query: &UpstreamQuery, opt: WithOpt) -> Result<Received, AttemptError> {
        let connection = self.connection();
        // One that has never worked is not replaced: the next would not work either.
        let has_worked = connection.received.load(Relaxed) > 0;
        let first = connection.ask(query, opt);
        tokio::pin!(first);
        let mut is_pending = true;
        tokio::select! {
            outcome = &mut first => match outcome {
                Some(outcome) => return outcome,
                None if !has_worked => return Err(AttemptError::NoReply),
                None => is_pending = false,
            },
            () = connection.silence(), if has_worked => {}
        }
        let fresh = self.replace(&connection);
        let second = fresh.ask(query, opt);
        tokio::pin!(second);
        loop {
            tokio::select! {
                outcome = &mut second => return outcome.unwrap_or(Err(AttemptError::NoReply)),
                // The name is slow, and the connection is well.
                outcome = &mut first, if is_pending => match outcome {
                    Some(outcome) => return outcome,
                    None => is_pending = false,
                },
            }
        }
    }

    fn connection(&self) -> Connection {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(connection) if connection.is_open() => connection.clone(),
            _ => current.insert(Connection::open(self.target.clone(), self.permits.clone())).clone(),
        }
    }

    /// A connection other than this one.
    fn replace(&self, old: &Connection) -> Connection {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(connection) if connection.is_open() && !connection.is_same(old) => connection.clone(),
            _ => current.insert(Connection::open(self.target.clone(), self.permits.clone())).clone(),
        }
    }
}

impl Connection {
    fn open(target: Arc<Target>, permits: Arc<Semaphore>) -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS_PER_CONNECTION);
        let received = Arc::<AtomicUsize>::default();
        let task = ConnectionTask { target, permits, asked, pending: HashMap::new(), received: received.clone() };
        // It ends with the last question and the last clone, or with its runtime.
        drop(tokio::spawn(task.run()));
        Self { questions, received }
    }

    fn is_open(&self) -> bool {
        !self.questions.is_closed()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.questions.same_channel(&other.questions)
    }

    /// `None`: the connection has ended.
    async fn ask(&self, query: &UpstreamQuery, opt: WithOpt) -> Option<Result<Received, AttemptError>> {
        let (reply, outcome) = oneshot::channel();
        self.questions.send(StreamQuestion { query: query.clone(), opt, reply }).await.ok()?;
        outcome.await.ok()
    }

    /// Ends when nothing has come for a while.
    async fn silence(&self) {
        loop {
            let before = self.received.load(Relaxed);
            sleep(SILENCE_MAX).await;
            if self.received.load(Relaxed) == before {
                return;
            }
        }
    }
}

struct ConnectionTask {
    target: Arc<Target>,
    permits: Arc<Semaphore>,
    asked: mpsc::Receiver<StreamQuestion>,
    /// Questions that were sent, by their ID.
    pending: HashMap<u16, StreamQuestion>,
    received: Arc<AtomicUsize>,
}

impl ConnectionTask {
    async fn run(mut self) {
        let Ok(_permit) = self.permits.clone().try_acquire_owned() else {
            return self.fail(AttemptError::Shortage);
        };
        let opened = timeout(CONNECT_MAX, TcpStream::connect(self.target.address)).await;
        let tcp = match opened.map_err(|_| AttemptError::NoReply).and_then(|opened| opened.map_err(Into::into)) {
            Ok(tcp) => tcp,
            Err(error) => return self.fail(error),
        };
        // Questions are small, and none waits for the next.
        let _ = tcp.set_nodelay(true);
        let Some((config, name)) = self.target.tls.clone() else { return self.serve(tcp).await };
        match timeout(CONNECT_MAX, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(tls)) => self.serve(tls).await,
            Ok(Err(error)) => {
                tracing::debug!(upstream = %self.target.address, %error, "no TLS with an upstream");
                self.fail(AttemptError::NoReply);
            }
            Err(_) => self.fail(AttemptError::NoReply),
        }
    }

    /// Fails the questions that wait for the connection.
    fn fail(mut self, error: AttemptError) {
        self.asked.close();
        while let Ok(question) = self.asked.try_recv() {
            // A question whose deadline is over needs no reply.
            let _ = question.reply.send(Err(error));
        }
    }

    /// Serves until the upstream closes, or there is nothing more to ask. What is pending then has no reply.
    async fn serve(&mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let framing = LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec();
        let mut frames = Framed::new(stream, framing);
        // Since when questions wait, and nothing has come.
        let mut unanswered_since = None;
        loop {
            let idle_end = Instant::now() + IDLE_MAX;
            let end = unanswered_since.map_or(idle_end, |since: Instant| since + UNANSWERED_MAX);
            tokio::select! {
                question = self.asked.recv(), if self.pending.len() < QUESTIONS_PER_CONNECTION => {
                    // Without askers there is none whose reply is waited for.
                    let Some(question) = question else { return };
                    let Some(octets) = self.enter(question) else { continue };
                    if !matches!(timeout(WRITE_MAX, frames.send(Bytes::from(octets))).await, Ok(Ok(()))) {
                        return;
                    }
                    unanswered_since.get_or_insert_with(Instant::now);
                }
                frame = frames.next() => match frame {
                    Some(Ok(octets)) if self.deliver(octets.to_vec()) => {
                        unanswered_since = (!self.pending.is_empty()).then(Instant::now);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
                () = sleep_until(end) => return,
            }
        }
    }

    /// Gives a question an ID of its own, and returns the message.
    fn enter(&mut self, question: StreamQuestion) -> Option<Vec<u8>> {
        self.forget_dropped();
        // Of 65,536 at most 256 are taken.
        let id = std::iter::repeat_with(rand::random).find(|id| !self.pending.contains_key(id))?;
        let octets = question.query.encode(id, question.opt).ok()?;
        self.pending.insert(id, question);
        Some(octets)
    }

    /// Hands a reply over. What replies to no question is ignored; returns whether this is a reply.
    fn deliver(&mut self, octets: Vec<u8>) -> bool {
        let Some(id) = octets.first_chunk().copied().map(u16::from_be_bytes) else { return false };
        let Some(received) = self.pending.get(&id).and_then(|question| question.query.read(id, octets)) else {
            return false;
        };
        self.received.fetch_add(1, Relaxed);
        if let Some(question) = self.pending.remove(&id) {
            // Its deadline may be over.
            let _ = question.reply.send(Ok(received));
        }
        true
    }

    fn forget_dropped(&mut self) {
        self.pending.retain(|_, question| !question.reply.is_closed());
    }
}

//! The open connections, their clients, and since when each is idle: decides which is closed when there are too many.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

/// TLS handshakes in flight. Each costs a millisecond of processor time at most, and a client can stop in the middle of
/// one for as long as a message may take. Twice what one client may have by default, so that a client that stops in the
/// middle of all of its own does not end those of others.
const HANDSHAKES_MAX: usize = 256;

/// Octets of messages that wait for their client, over all connections: replies that are not taken, and requests that are
/// not complete. An ordinary client takes a reply at once, so only clients that do not read come near it.
pub(super) const WAITING_OCTETS_MAX: usize = 64 << 20;

/// Connections that are closed and still have their descriptor, because their tasks have not run since. Above it no
/// connection is accepted, so that clients never have more descriptors than `max_connections` and these.
pub const CLOSING_MAX: usize = 16;

/// Bounds of connections over TCP, TLS and HTTPS, over all listening addresses together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections in all; above it the one that is idle for longest is closed.
    pub max_connections: usize,
    /// Connections from one address; above it the one of them that is idle for longest is closed.
    pub max_per_client: usize,
    /// From the last reply to the first octet of a question; over HTTPS, to the end of a request's head.
    pub idle: Duration,
    /// From the first octet of a question to its last, for a reply to be sent, and for a TLS handshake.
    pub message: Duration,
    /// Questions on one connection, which is closed then; the count starts again on the client's next one.
    pub max_questions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_per_client: 128,
            idle: Duration::from_secs(10),
            message: Duration::from_secs(5),
            max_questions: 10_000,
        }
    }
}

/// Limits the connections of all listening addresses. Clones share the connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    state: Mutex<State>,
    /// Octets of the messages that wait for clients.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    began: Instant,
    /// How many connections were ever entered.
    entered: u64,
    /// Those that have a descriptor, also those that are being closed.
    entries: HashMap<u64, Entry>,
    /// How many of the entries are being closed.
    closing: usize,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
    is_closing: bool,
}

/// Keeps a connection entered until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    limits: ConnectionLimits,
    number: u64,
    activity: Arc<Activity>,
}

/// What a connection is entered with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Questions come at once.
    Established,
    /// A TLS handshake comes first.
    Handshake,
}

impl ConnectionGuard {
    /// Identifies the connection among all that were ever entered.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The connection is in use now.
    pub(super) fn touch(&self) {
        self.activity.touch();
    }

    /// The TLS handshake has ended.
    pub(super) fn end_handshake(&self) {
        self.activity.is_handshaking.store(false, Relaxed);
        self.touch();
    }

    /// Counts a message that waits for the client. Where too many octets wait in all connections together, the connection
    /// is closed whose client has kept a message waiting for longest.
    pub(super) fn wait(&self, octets: usize) -> WaitingMessage {
        let since = self.activity.now();
        // First, so that the sum never falls below what is removed from it.
        let all = self.limits.0.waiting.fetch_add(octets, AcqRel) + octets;
        let number = self.activity.waiting().insert(since, octets);
        if all > WAITING_OCTETS_MAX {
            self.limits.close_longest_waiting();
        }
        WaitingMessage { registry: self.limits.0.clone(), activity: self.activity.clone(), key: (since, number) }
    }

    /// For how long the oldest message has waited for the client; `None`: none waits.
    pub(super) fn longest_wait(&self) -> Option<Duration> {
        let since = self.activity.waiting().oldest()?;
        Some(Duration::from_nanos(self.activity.now().saturating_sub(since)))
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.limits.remove(self.number);
    }
}

/// A message is counted as waiting until this is dropped.
#[derive(Debug)]
pub(super) struct WaitingMessage {
    registry: Arc<Registry>,
    activity: Arc<Activity>,
    key: (u64, u64),
}

impl Drop for WaitingMessage {
    fn drop(&mut self) {
        // Those of a connection that is being closed are no longer counted.
        let octets = self.activity.waiting().messages.remove(&self.key);
        self.registry.waiting.fetch_sub(octets.unwrap_or(0), AcqRel);
    }
}

/// When a connection was last in use, and which messages wait for its client.
#[derive(Debug)]
struct Activity {
    began: Instant,
    /// Nanoseconds after `began`.
    last: AtomicU64,
    is_handshaking: AtomicBool,
    waiting: Mutex<Waiting>,
}

/// The octets of messages that wait, by the nanoseconds since when they do, and a number of their own.
#[derive(Debug, Default)]
struct Waiting {
    messages: BTreeMap<(u64, u64), usize>,
    counted: u64,
}

impl Waiting {
    fn insert(&mut self, since: u64, octets: usize) -> u64 {
        self.counted += 1;
        self.messages.insert((since, self.counted), octets);
        self.counted
    }

    fn oldest(&self) -> Option<u64> {
        self.messages.first_key_value().map(|((since, _), _)| *since)
    }
}

impl Activity {
    fn touch(&self) {
        self.last.store(self.now(), Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code panics while it holds the lock, so the content of a poisoned lock is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionLimits {
    /// Without connections.
    pub fn new(limits: Limits) -> Self {
        let state = State { limits, began: Instant::now(), entered: 0, entries: HashMap::new(), closing: 0 };
        Self(Arc::new(Registry { state: Mutex::new(state), waiting: AtomicUsize::new(0) }))
    }

    /// Replaces the limits; open connections keep their own deadlines.
    pub fn replace(&self, limits: Limits) {
        self.state().limits = limits;
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.state().limits
    }

    /// Enters a connection, and returns the limits that it keeps. Where there are too many, one is closed.
    pub(super) fn enter(&self, client: IpAddr, phase: Phase) -> (ConnectionGuard, Limits) {
        let mut state = self.state();
        let released = state.make_space(client, phase);
        let (number, activity) = state.enter(client, phase);
        let limits = state.limits;
        drop(state);
        self.0.waiting.fetch_sub(released, AcqRel);
        (ConnectionGuard { limits: self.clone(), number, activity }, limits)
    }

    /// Sets the task that is aborted to close a connection.
    pub(super) fn set_task(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.state().entries.get_mut(&number) {
            if entry.is_closing {
                task.abort();
            }
            entry.task = Some(task);
        }
    }

    /// Whether so many connections are being closed that no more may be accepted before some of them are gone.
    pub(super) fn is_closing_many(&self) -> bool {
        self.state().closing > CLOSING_MAX
    }

    /// Closes the connection that is idle for longest.
    pub(super) fn close_longest_idle(&self) {
        let released = self.state().close_longest_idle(|_| true);
        self.0.waiting.fetch_sub(released, AcqRel);
    }

    /// Closes connections, the one first whose client has kept a message waiting for longest, until few enough octets wait.
    fn close_longest_waiting(&self) {
        let mut state = self.state();
        while self.0.waiting.load(Acquire) > WAITING_OCTETS_MAX {
            let Some(released) = state.close_longest_waiting() else { return };
            self.0.waiting.fetch_sub(released, AcqRel);
        }
    }

    /// Removes a connection, whose descriptor is closed.
    fn remove(&self, number: u64) {
        let mut state = self.state();
        if let Some(entry) = state.entries.remove(&number)
            && entry.is_closing
        {
            state.closing -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state of a poisoned lock is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The entries that are not being closed.
    fn open(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().filter(|(_, entry)| !entry.is_closing).map(|(number, entry)| (*number, entry))
    }

    /// Closes what one more connection makes too many. Returns the waiting octets that are no longer counted.
    fn make_space(&mut self, client: IpAddr, phase: Phase) -> usize {
        let mut of_client = 0;
        let mut handshakes = 0;
        for (_, entry) in self.open() {
            of_client += usize::from(entry.client == client);
            handshakes += usize::from(entry.is_handshaking());
        }
        if of_client >= self.limits.max_per_client {
            self.close_longest_idle(|entry| entry.client == client)
        } else if phase == Phase::Handshake && handshakes >= HANDSHAKES_MAX {
            self.close_longest_idle(Entry::is_handshaking)
        } else if self.entries.len() - self.closing >= self.limits.max_connections {
            self.close_longest_idle(|_| true)
        } else {
            0
        }
    }

    fn enter(&mut self, client: IpAddr, phase: Phase) -> (u64, Arc<Activity>) {
        let activity = Arc::new(Activity {
            began: self.began,
            last: AtomicU64::new(0),
            is_handshaking: AtomicBool::new(phase == Phase::Handshake),
            waiting: Mutex::default(),
        });
        activity.touch();
        self.entered += 1;
        let entry = Entry { client, activity: activity.clone(), task: None, is_closing: false };
        self.entries.insert(self.entered, entry);
        (self.entered, activity)
    }

    fn close_longest_idle(&mut self, among: impl Fn(&Entry) -> bool) -> usize {
        let candidates = self.open().filter(|(_, entry)| among(entry));
        let idle = candidates.min_by_key(|(number, entry)| (entry.activity.last.load(Relaxed), *number));
        idle.map(|(number, _)| number).map_or(0, |number| self.close(number))
    }

    fn close_longest_waiting(&mut self) -> Option<usize> {
        let candidates = self.open().filter_map(|(number, entry)| Some((entry.activity.waiting().oldest()?, number)));
        let (_, number) = candidates.min()?;
        Some(self.close(number))
    }

    /// Closes a connection. Its entry stays until its descriptor is closed; its waiting octets, which are returned, are no
    /// longer counted.
    fn close(&mut self, number: u64) -> usize {
        let Some(entry) = self.entries.get_mut(&number) else { return 0 };
        self.closing += usize::from(!std::mem::replace(&mut entry.is_closing, true));
        if let Some(task) = &entry.task {
            task.abort();
        }
        std::mem::take(&mut entry.activity.waiting().messages).into_values().sum()
    }
}

impl Entry {
    fn is_handshaking(&self) -> bool {
        self.activity.is_handshaking.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection_limits(max_connections: usize, max_per_client: usize) -> ConnectionLimits {
        ConnectionLimits::new(Limits { max_connections, max_per_client, ..Limits::default() })
    }

    fn numbers(limits: &ConnectionLimits) -> Vec<u64> {
        let mut numbers: Vec<_> = limits.state().open().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn the_longest_idle_is_closed_when_there_are_too_many() {
        let limits = connection_limits(3, 3);
        let clients: [IpAddr; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|text| text.parse().unwrap());
        let (first, _) = limits.enter(clients[0], Phase::Established);
        let (_second, _) = limits.enter(clients[1], Phase::Established);
        let (third, _) = limits.enter(clients[2], Phase::Established);
        assert_eq!(numbers(&limits), [1, 2, 3]);
        first.touch();
        let (_fourth, _) = limits.enter(clients[3], Phase::Established);
        assert_eq!(numbers(&limits), [1, 3, 4], "the first was in use just now");
        drop(third);
        let (_fifth, _) = limits.enter(clients[1], Phase::Established);
        assert_eq!(numbers(&limits), [1, 4, 5], "one has ended by itself");
        limits.close_longest_idle();
        assert_eq!(numbers(&limits), [4, 5]);
        limits.replace(Limits { max_connections: 2, ..Limits::default() });
        let (_sixth, in_force) = limits.enter(clients[2], Phase::Established);
        assert_eq!(in_force.max_connections, 2);
        assert_eq!(numbers(&limits), [5, 6], "other limits");
    }

    #[test]
    fn a_client_with_too_many_loses_one_of_its_own() {
        let limits = connection_limits(10, 2);
        let (greedy, modest): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let _entered = [modest, greedy, greedy, greedy].map(|client| limits.enter(client, Phase::Established));
        assert_eq!(numbers(&limits), [1, 3, 4]);
    }

    #[tokio::test]
    async fn a_removed_connection_has_its_task_aborted() {
        let limits = connection_limits(1, 1);
        let client = "10.0.0.1".parse().unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        let entered = [limits.enter(client, Phase::Established), limits.enter(client, Phase::Established)];
        assert_eq!(numbers(&limits), [2], "{entered:?}");
        let (first, _) = limits.enter(client, Phase::Established);
        limits.set_task(first.number(), task.abort_handle());
        let _second = limits.enter(client, Phase::Established);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[test]
    fn a_connection_counts_until_its_descriptor_is_closed() {
        let limits = connection_limits(1, 1);
        let client = "10.0.0.1".parse().unwrap();
        let open: Vec<_> = (0..=CLOSING_MAX).map(|_| limits.enter(client, Phase::Established)).collect();
        assert!(!limits.is_closing_many());
        let one_more = limits.enter(client, Phase::Established);
        assert!(limits.is_closing_many(), "no task has run");
        drop(open);
        assert!(!limits.is_closing_many());
        drop(one_more);
        assert_eq!(limits.state().closing, 0);
        assert!(limits.state().entries.is_empty());
    }

    #[test]
    fn the_longest_handshake_is_closed_when_there_are_too_many() {
        let limits = connection_limits(10 * HANDSHAKES_MAX, 10 * HANDSHAKES_MAX);
        let client = "10.0.0.1".parse().unwrap();
        let established = limits.enter(client, Phase::Established);
        let handshakes: Vec<_> = (0..HANDSHAKES_MAX).map(|_| limits.enter(client, Phase::Handshake)).collect();
        handshakes[0].0.end_handshake();
        let _last = limits.enter(client, Phase::Handshake);
        assert_eq!(numbers(&limits).len(), HANDSHAKES_MAX + 2);
        let _one_more = limits.enter(client, Phase::Handshake);
        let open = numbers(&limits);
        assert!(open.starts_with(&[established.0.number(), handshakes[0].0.number(), handshakes[2].0.number()]));
    }

    #[test]
    fn the_connection_with_the_longest_wait_is_closed_when_too_many_octets_wait() {
        let limits = connection_limits(10, 10);
        let client = "10.0.0.1".parse().unwrap();
        let [first, second, third] = [(); 3].map(|()| limits.enter(client, Phase::Established).0);
        let half = WAITING_OCTETS_MAX / 2;
        let sent = first.wait(half);
        let waits = second.wait(half);
        assert_eq!(limits.0.waiting.load(Relaxed), WAITING_OCTETS_MAX);
        assert!(first.longest_wait().is_some() && third.longest_wait().is_none());
        drop(sent);
        let later = first.wait(half);
        let most = third.wait(1);
        assert_eq!(numbers(&limits), [1, 3], "the second waits for longest");
        assert_eq!(limits.0.waiting.load(Relaxed), half + 1);
        drop((waits, second));
        drop((later, most));
        assert_eq!(limits.0.waiting.load(Relaxed), 0);
    }
}

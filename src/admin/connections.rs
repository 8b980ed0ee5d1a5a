//! The open connections of one HTTP listener: decides which is closed when there are too many, or when too many octets
//! of replies wait for their clients.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use tokio::task::AbortHandle;

/// The bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections in all; above it one of the client with most connections is closed.
    pub(super) connections: usize,
    /// Connections from one address; above it one of them is closed.
    pub(super) per_client: usize,
    /// Octets of all replies that are being sent; above it the reply that no client has taken from for longest is
    /// dropped. One reply alone may be larger.
    pub(super) octets: usize,
    /// Replies that do not end by themselves. They count with no other connections, and are closed for none.
    pub(super) endless: usize,
    /// Such replies to one address.
    pub(super) endless_per_client: usize,
}

/// The open connections. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct OpenConnections(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bounds: Bounds,
    /// How many connections were ever entered.
    entered: u64,
    entries: BTreeMap<u64, Entry>,
    /// Counts events in place of a clock: only the order in which connections were last in use matters.
    events: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Entry {
    client: Option<IpAddr>,
    phase: Phase,
    /// Octets of the reply that is being sent.
    octets: usize,
    last_use: Arc<AtomicU64>,
    task: Option<AbortHandle>,
}

/// What a connection waits for, the least important first: it is closed before others.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    /// The client has not sent a whole request.
    Request,
    /// The client takes the reply.
    Reply,
    /// The server makes the reply.
    Handler,
    /// The client takes a reply that does not end by itself.
    Endless,
}

/// Keeps a connection entered until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    open: OpenConnections,
    number: u64,
    last_use: Arc<AtomicU64>,
    events: Arc<AtomicU64>,
    is_endless: Arc<AtomicBool>,
}

impl OpenConnections {
    /// Without connections.
    pub(super) fn new(bounds: Bounds) -> Self {
        let events = Arc::default();
        Self(Arc::new(Mutex::new(State { bounds, entered: 0, entries: BTreeMap::new(), events })))
    }

    /// Enters a connection; `client` is `None` where clients have no address. Where there are too many, one is closed.
    pub(super) fn enter(&self, client: Option<IpAddr>) -> ConnectionGuard {
        let mut state = self.state();
        state.close_excess(client);
        state.entered += 1;
        let number = state.entered;
        let events = state.events.clone();
        let last_use = Arc::new(AtomicU64::new(events.fetch_add(1, Relaxed)));
        let entry = Entry { client, phase: Phase::Request, octets: 0, last_use: last_use.clone(), task: None };
        state.entries.insert(number, entry);
        ConnectionGuard { open: self.clone(), number, last_use, events, is_endless: Arc::default() }
    }

    /// Sets the task that is aborted to close the connection.
    pub(super) fn set_task(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.state().entries.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    /// Closes the connection that is idle for longest.
    pub(super) fn close_longest_idle(&self) {
        self.state().close_one(|_, _| true);
    }

    /// Closes the connections with replies that do not end by themselves.
    pub(super) fn close_endless(&self) {
        let mut state = self.state();
        state.entries.retain(|_, entry| {
            let is_endless = entry.phase == Phase::Endless;
            if is_endless && let Some(task) = &entry.task {
                task.abort();
            }
            !is_endless
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state of a poisoned lock is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionGuard {
    /// Identifies the connection among all that were ever entered.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The client has just taken octets.
    pub(super) fn touch(&self) {
        self.last_use.store(self.events.fetch_add(1, Relaxed), Relaxed);
    }

    /// The request is complete.
    pub(super) fn handle(&self) {
        self.touch();
        if let Some(entry) = self.open.state().entries.get_mut(&self.number) {
            entry.phase = Phase::Handler;
        }
    }

    /// The reply does not end by itself. Returns whether there is a place for it.
    pub(super) fn send_endless(&self) -> bool {
        self.touch();
        let mut state = self.open.state();
        let Some(client) = state.entries.get(&self.number).map(|entry| entry.client) else { return false };
        let endless = || state.entries.values().filter(|entry| entry.phase == Phase::Endless);
        let of_client = endless().filter(|entry| entry.client == client).count();
        if endless().count() >= state.bounds.endless || of_client >= state.bounds.endless_per_client {
            return false;
        }
        if let Some(entry) = state.entries.get_mut(&self.number) {
            entry.phase = Phase::Endless;
        }
        self.is_endless.store(true, Relaxed);
        true
    }

    /// Whether the reply does not end by itself; it is known once the reply begins.
    pub(super) fn is_endless(&self) -> Arc<AtomicBool> {
        self.is_endless.clone()
    }

    /// The reply, of so many octets, is being sent. Where too many octets wait, other replies are dropped.
    pub(super) fn send(&self, octets: usize) {
        self.touch();
        let mut state = self.open.state();
        if let Some(entry) = state.entries.get_mut(&self.number) {
            entry.phase = Phase::Reply;
            entry.octets = octets;
        }
        while state.octets() > state.bounds.octets {
            if !state.close_one(|number, entry| number != self.number && entry.phase == Phase::Reply) {
                break;
            }
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        // It may have been closed, and is gone already.
        self.open.state().entries.remove(&self.number);
    }
}

impl State {
    /// Closes a connection where one more of this client would be too many.
    fn close_excess(&mut self, client: Option<IpAddr>) {
        let mut of_clients: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for entry in self.entries.values().filter(|entry| entry.phase != Phase::Endless) {
            *of_clients.entry(entry.client).or_default() += 1;
        }
        if of_clients.get(&client).is_some_and(|count| *count >= self.bounds.per_client) {
            self.close_one(|_, entry| entry.client == client);
        } else if of_clients.values().sum::<usize>() >= self.bounds.connections {
            let most = of_clients.values().max().copied();
            self.close_one(|_, entry| of_clients.get(&entry.client).copied() == most);
        }
    }

    /// Closes one of these connections, if there is one: the least important, and of those the longest idle.
    fn close_one(&mut self, among: impl Fn(u64, &Entry) -> bool) -> bool {
        let candidates = self.entries.iter().filter(|&(_, entry)| entry.phase != Phase::Endless);
        let candidates = candidates.filter(|&(&number, entry)| among(number, entry));
        let idle = candidates.min_by_key(|(_, entry)| (entry.phase, entry.last_use.load(Relaxed)));
        let Some(number) = idle.map(|(&number, _)| number) else { return false };
        if let Some(task) = self.entries.remove(&number).and_then(|entry| entry.task) {
            task.abort();
        }
        true
    }

    fn octets(&self) -> usize {
        self.entries.values().map(|entry| entry.octets).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections: 4, per_client: 2, octets: 100, endless: 3, endless_per_client: 2 };

    fn client(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    fn numbers(open: &OpenConnections) -> Vec<u64> {
        open.state().entries.keys().copied().collect()
    }

    #[test]
    fn a_client_with_too_many_loses_its_longest_idle() {
        let open = OpenConnections::new(BOUNDS);
        let _other = open.enter(client(1));
        let asked = open.enter(client(2));
        asked.handle();
        let _silent = open.enter(client(2));
        let _third = open.enter(client(2));
        assert_eq!(numbers(&open), [1, 2, 4], "a silent connection goes before one with a request");
        let _fourth = open.enter(client(2));
        assert_eq!(numbers(&open), [1, 2, 5]);
    }

    #[test]
    fn the_client_with_most_connections_gives_way() {
        let open = OpenConnections::new(BOUNDS);
        let _first = open.enter(client(1));
        let _greedy = [open.enter(client(2)), open.enter(client(2))];
        let _third = open.enter(client(3));
        let _fourth = open.enter(client(4));
        assert_eq!(numbers(&open), [1, 3, 4, 5], "the first of the client with two");
        let _fifth = open.enter(client(5));
        assert_eq!(numbers(&open), [3, 4, 5, 6], "all have one: the longest idle");
    }

    #[test]
    fn the_reply_that_waits_for_longest_is_dropped_when_too_many_octets_wait() {
        let open = OpenConnections::new(BOUNDS);
        let guards = [1, 2, 3].map(|last| open.enter(client(last)));
        guards[0].send(40);
        guards[1].send(40);
        guards[0].touch();
        guards[2].send(40);
        assert_eq!(numbers(&open), [1, 3], "the first client has taken octets since");
        let large = open.enter(client(4));
        large.send(1000);
        assert_eq!(numbers(&open), [4], "one alone may be larger");
    }

    #[test]
    fn endless_replies_have_bounds_of_their_own_and_are_closed_for_no_other() {
        let open = OpenConnections::new(BOUNDS);
        let endless = [1, 1, 1, 2, 3].map(|last| {
            let guard = open.enter(client(last));
            guard.handle();
            let is_accepted = guard.send_endless();
            is_accepted.then_some(guard)
        });
        let accepted = endless.each_ref().map(Option::is_some);
        assert_eq!(accepted, [true, true, false, true, false], "two of one client, three in all");
        let _others: Vec<_> = (4..=20).map(|last| open.enter(client(last))).collect();
        assert_eq!(numbers(&open), [1, 2, 4, 19, 20, 21, 22], "four others, and the endless ones stay");
        let _first = [open.enter(client(1)), open.enter(client(1))];
        assert_eq!(numbers(&open)[..3], [1, 2, 4]);
        open.close_longest_idle();
        open.close_endless();
        assert!(numbers(&open).iter().all(|number| *number > 4));
    }

    #[tokio::test]
    async fn a_closed_connection_has_its_task_aborted() {
        let open = OpenConnections::new(Bounds { connections: 1, ..BOUNDS });
        let guard = open.enter(None);
        let task = tokio::spawn(std::future::pending::<()>());
        open.set_task(guard.number(), task.abort_handle());
        let _next = open.enter(None);
        assert!(task.await.unwrap_err().is_cancelled());
        drop(guard);
        assert_eq!(numbers(&open), [2]);
        open.close_longest_idle();
        assert_eq!(numbers(&open), [0; 0]);
    }
}

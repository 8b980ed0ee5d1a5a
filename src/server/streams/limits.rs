//! The open connections, their clients, and since when each is idle: decides which is closed when there are too many.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::task::AbortHandle;

use super::Limits;

/// Limits the connections of all listening addresses. Clones share the connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    limits: Limits,
    began: Instant,
    /// How many connections were ever entered.
    entered: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    client: IpAddr,
    activity: Arc<Activity>,
    task: Option<AbortHandle>,
}

/// Keeps a connection entered until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    limits: ConnectionLimits,
    number: u64,
    activity: Arc<Activity>,
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
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.limits.remove(self.number);
    }
}

/// When a connection was last in use.
#[derive(Debug)]
struct Activity {
    began: Instant,
    /// Nanoseconds after `began`.
    last: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl ConnectionLimits {
    /// Without connections.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(State { limits, began: Instant::now(), entered: 0, entries: HashMap::new() })))
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
    pub(super) fn enter(&self, client: IpAddr) -> (ConnectionGuard, Limits) {
        let mut state = self.state();
        let (number, activity) = state.enter(client);
        (ConnectionGuard { limits: self.clone(), number, activity }, state.limits)
    }

    /// Sets the task that is aborted to close a connection.
    pub(super) fn set_task(&self, number: u64, task: AbortHandle) {
        if let Some(entry) = self.state().entries.get_mut(&number) {
            entry.task = Some(task);
        }
    }

    /// Closes the connection that is idle for longest.
    pub(super) fn close_longest_idle(&self) {
        self.state().close_longest_idle(|_| true);
    }

    /// Removes a connection, which may be gone already.
    fn remove(&self, number: u64) {
        self.state().entries.remove(&number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state of a poisoned lock is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, client: IpAddr) -> (u64, Arc<Activity>) {
        let of_client = self.entries.values().filter(|entry| entry.client == client).count();
        if of_client >= self.limits.max_per_client {
            self.close_longest_idle(|entry| entry.client == client);
        } else if self.entries.len() >= self.limits.max_connections {
            self.close_longest_idle(|_| true);
        }
        let activity = Arc::new(Activity { began: self.began, last: AtomicU64::new(0) });
        activity.touch();
        self.entered += 1;
        self.entries.insert(self.entered, Entry { client, activity: activity.clone(), task: None });
        (self.entered, activity)
    }

    fn close_longest_idle(&mut self, among: impl Fn(&Entry) -> bool) {
        let candidates = self.entries.iter().filter(|(_, entry)| among(entry));
        let idle = candidates.min_by_key(|&(&number, entry)| (entry.activity.last.load(Relaxed), number));
        let Some(number) = idle.map(|(&number, _)| number) else { return };
        if let Some(task) = self.entries.remove(&number).and_then(|entry| entry.task) {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection_limits(max_connections: usize, max_per_client: usize) -> ConnectionLimits {
        ConnectionLimits::new(Limits { max_connections, max_per_client, ..Limits::default() })
    }

    fn numbers(limits: &ConnectionLimits) -> Vec<u64> {
        let mut numbers: Vec<_> = limits.state().entries.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn the_longest_idle_is_closed_when_there_are_too_many() {
        let limits = connection_limits(3, 3);
        let clients: [IpAddr; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|text| text.parse().unwrap());
        let (first, _) = limits.enter(clients[0]);
        let (_second, _) = limits.enter(clients[1]);
        let (third, _) = limits.enter(clients[2]);
        assert_eq!(numbers(&limits), [1, 2, 3]);
        first.touch();
        let (_fourth, _) = limits.enter(clients[3]);
        assert_eq!(numbers(&limits), [1, 3, 4], "the first was in use just now");
        drop(third);
        let (_fifth, _) = limits.enter(clients[1]);
        assert_eq!(numbers(&limits), [1, 4, 5], "one has ended by itself");
        limits.close_longest_idle();
        assert_eq!(numbers(&limits), [4, 5]);
        limits.replace(Limits { max_connections: 2, ..Limits::default() });
        let (_sixth, in_force) = limits.enter(clients[2]);
        assert_eq!(in_force.max_connections, 2);
        assert_eq!(numbers(&limits), [5, 6], "other limits");
    }

    #[test]
    fn a_client_with_too_many_loses_one_of_its_own() {
        let limits = connection_limits(10, 2);
        let (greedy, modest): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let _entered = [modest, greedy, greedy, greedy].map(|client| limits.enter(client));
        assert_eq!(numbers(&limits), [1, 3, 4]);
    }

    #[tokio::test]
    async fn a_removed_connection_has_its_task_aborted() {
        let limits = connection_limits(1, 1);
        let client = "10.0.0.1".parse().unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        let entered = [limits.enter(client), limits.enter(client)];
        assert_eq!(numbers(&limits), [2], "{entered:?}");
        let (first, _) = limits.enter(client);
        limits.set_task(first.number(), task.abort_handle());
        let _second = limits.enter(client);
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

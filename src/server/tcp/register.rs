//! Who is connected, from where, and since when idle: decides who goes when there are too many.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::Limits;

/// The connections of one listening address.
pub(super) struct Register {
    limits: Limits,
    began: Instant,
    entered: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    client: IpAddr,
    activity: Arc<Activity>,
}

/// When a connection was last of use.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// Nanoseconds after `began`.
    last: AtomicU64,
}

impl Activity {
    /// It is of use now.
    pub(super) fn touch(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Register {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, began: Instant::now(), entered: 0, entries: HashMap::new() }
    }

    /// Enters a connection. Gives its number, its activity, and the number of the one that must go for it.
    pub(super) fn enter(&mut self, client: IpAddr) -> (u64, Arc<Activity>, Option<u64>) {
        let of_client = self.entries.values().filter(|entry| entry.client == client).count();
        let leaver = if of_client >= self.limits.max_per_client {
            self.longest_idle(|entry| entry.client == client)
        } else if self.entries.len() >= self.limits.max_connections {
            self.longest_idle(|_| true)
        } else {
            None
        };
        if let Some(leaver) = leaver {
            self.remove(leaver);
        }
        let activity = Arc::new(Activity { began: self.began, last: AtomicU64::new(0) });
        activity.touch();
        self.entered += 1;
        self.entries.insert(self.entered, Entry { client, activity: activity.clone() });
        (self.entered, activity, leaver)
    }

    /// Strikes a connection out; it may be gone already.
    pub(super) fn remove(&mut self, number: u64) {
        self.entries.remove(&number);
    }

    /// Strikes out the connection that is idle for longest.
    pub(super) fn take_longest_idle(&mut self) -> Option<u64> {
        let number = self.longest_idle(|_| true)?;
        self.remove(number);
        Some(number)
    }

    fn longest_idle(&self, among: impl Fn(&Entry) -> bool) -> Option<u64> {
        let candidates = self.entries.iter().filter(|(_, entry)| among(entry));
        candidates
            .min_by_key(|&(&number, entry)| (entry.activity.last.load(Relaxed), number))
            .map(|(&number, _)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(max_connections: usize, max_per_client: usize) -> Register {
        Register::new(Limits { max_connections, max_per_client, ..Limits::default() })
    }

    #[test]
    fn the_longest_idle_goes_when_there_are_too_many() {
        let mut register = register(3, 3);
        let clients: [IpAddr; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|text| text.parse().unwrap());
        let (first, activity, _) = register.enter(clients[0]);
        let (second, _, _) = register.enter(clients[1]);
        let (third, _, leaver) = register.enter(clients[2]);
        assert_eq!(leaver, None);
        activity.touch();
        assert_eq!(register.enter(clients[3]).2, Some(second), "the first has just been of use");
        register.remove(third);
        assert_eq!(register.enter(clients[1]).2, None, "one has left by itself");
        assert_eq!(register.take_longest_idle(), Some(first));
    }

    #[test]
    fn a_client_that_has_too_many_pays_itself() {
        let mut register = register(10, 2);
        let (greedy, modest): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert_eq!(register.enter(modest).2, None);
        let (first, _, _) = register.enter(greedy);
        assert_eq!(register.enter(greedy).2, None);
        assert_eq!(register.enter(greedy).2, Some(first));
        assert_eq!(register.entries.len(), 3);
    }
}

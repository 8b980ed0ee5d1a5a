//! Requests to nodes: how many of each kind, and how many a second each node gets from this server.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Histogram, NodeRequest, PerLabel};

/// Requests of so long are counted in one number.
const SLOT: Duration = Duration::from_secs(5);

/// The rate is that of so many slots, a minute: an identity query, the rarest request, is sent once in it.
const SLOTS: usize = 12;

/// A rate is not measured over less, so that the first request is not thousands a second.
const MEASURED_MIN: Duration = Duration::from_secs(1);

/// The requests of all zones.
#[derive(Debug)]
pub struct NodeRequests {
    by_kind: PerLabel<NodeRequest>,
    /// From the connect to the last byte of a list, or to the failure.
    list_durations: Histogram,
    started: Instant,
    /// Addresses come from the network, so this hash is the one that cannot be aimed at.
    nodes: Mutex<HashMap<IpAddr, Recent>>,
}

/// The requests to one node in the last minute.
#[derive(Debug)]
struct Recent {
    first: Instant,
    /// The number of the slot of the last request.
    last: usize,
    counts: [u32; SLOTS],
    /// When the certificate that it showed last expires, in unix seconds; `None`: it showed none.
    certificate: Option<i64>,
}

impl Default for NodeRequests {
    fn default() -> Self {
        Self {
            by_kind: PerLabel::default(),
            list_durations: Histogram::default(),
            started: Instant::now(),
            nodes: Mutex::default(),
        }
    }
}

impl NodeRequests {
    /// Counts a request that is sent now.
    pub fn count(&self, node: IpAddr, kind: NodeRequest, now: Instant) {
        self.by_kind.of(kind).increment();
        let slot = self.slot(now);
        let mut nodes = self.lock();
        let is_new = !nodes.contains_key(&node);
        if is_new {
            // Nodes that are asked no more are forgotten when another one comes.
            nodes.retain(|_, recent| recent.last + SLOTS > slot);
        }
        let recent =
            nodes.entry(node).or_insert(Recent { first: now, last: slot, counts: [0; SLOTS], certificate: None });
        recent.advance(slot);
        if let Some(count) = recent.counts.get_mut(slot % SLOTS) {
            *count = count.saturating_add(1);
        }
    }

    /// How long requests for a list took, also failed ones.
    pub const fn list_durations(&self) -> &Histogram {
        &self.list_durations
    }

    /// How many requests of a kind were sent.
    pub fn total(&self, kind: NodeRequest) -> u64 {
        self.by_kind.of(kind).value()
    }

    /// How many requests a second a node has got in the last minute, or since its first one.
    pub fn per_second(&self, node: IpAddr, now: Instant) -> f64 {
        let slot = self.slot(now);
        let mut nodes = self.lock();
        let Some(recent) = nodes.get_mut(&node) else { return 0.0 };
        recent.advance(slot);
        let count: u64 = recent.counts.iter().map(|&count| u64::from(count)).sum();
        // The last slot has only begun.
        let begun = now.saturating_duration_since(self.started).as_secs_f64() % SLOT.as_secs_f64();
        let full = SLOT.as_secs_f64() * (SLOTS - 1) as f64 + begun;
        let since_first = now.saturating_duration_since(recent.first).max(MEASURED_MIN).as_secs_f64();
        count as f64 / full.min(since_first)
    }

    /// A node that was asked has shown a certificate, which expires at this unix time in seconds.
    pub fn show_certificate(&self, node: IpAddr, expires: i64) {
        if let Some(recent) = self.lock().get_mut(&node) {
            recent.certificate = Some(expires);
        }
    }

    /// When the certificates expire that nodes showed last, of those that were asked within the last minute.
    pub fn certificates(&self, now: Instant) -> Vec<(IpAddr, i64)> {
        let slot = self.slot(now);
        let nodes = self.lock();
        let recent = nodes.iter().filter(|(_, recent)| recent.last + SLOTS > slot);
        recent.filter_map(|(node, recent)| Some((*node, recent.certificate?))).collect()
    }

    /// The number of a moment's slot, from the start on.
    fn slot(&self, now: Instant) -> usize {
        (now.saturating_duration_since(self.started).as_secs() / SLOT.as_secs()) as usize
    }

    /// Nothing panics while it holds the lock, so the content is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Recent>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Empties the slots between the last request and this one.
    fn advance(&mut self, slot: usize) {
        for passed in (self.last + 1..=slot).take(SLOTS) {
            if let Some(count) = self.counts.get_mut(passed % SLOTS) {
                *count = 0;
            }
        }
        self.last = self.last.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_steady_rate_is_measured_over_the_last_minute() {
        let requests = NodeRequests::default();
        let start = requests.started;
        for tenth in 0..3000 {
            let now = start + SECOND / 10 * tenth;
            requests.count(node(1), NodeRequest::List, now);
            let rate = requests.per_second(node(1), now + SECOND / 20);
            assert!(tenth < 20 || (9.0..=11.0).contains(&rate), "{tenth}: {rate}");
        }
        assert_eq!((requests.total(NodeRequest::List), requests.total(NodeRequest::Health)), (3000, 0));
        assert_eq!(requests.per_second(node(2), start), 0.0);
        let minute = start + SECOND * 300 + SECOND * 59;
        assert!(requests.per_second(node(1), minute) < 2.0);
        assert_eq!(requests.per_second(node(1), minute + SECOND * 10), 0.0, "it is asked no more");
    }

    #[test]
    fn the_first_request_is_one_a_second_at_most() {
        let requests = NodeRequests::default();
        requests.count(node(1), NodeRequest::Health, requests.started);
        assert_eq!(requests.per_second(node(1), requests.started), 1.0);
    }

    #[test]
    fn the_certificate_that_a_node_showed_last_counts_while_it_is_asked() {
        let requests = NodeRequests::default();
        let start = requests.started;
        requests.show_certificate(node(1), 7);
        assert_eq!(requests.certificates(start), [], "it was not asked");
        requests.count(node(1), NodeRequest::Health, start);
        requests.count(node(2), NodeRequest::Health, start);
        requests.show_certificate(node(1), 7);
        requests.show_certificate(node(1), 9);
        assert_eq!(requests.certificates(start), [(node(1), 9)]);
        assert_eq!(requests.certificates(start + SECOND * 70), []);
    }

    #[test]
    fn nodes_that_are_asked_no_more_are_forgotten() {
        let requests = NodeRequests::default();
        for n in 0..500 {
            requests.count(node(n), NodeRequest::Health, requests.started + SECOND * n);
        }
        assert!(requests.lock().len() <= 65, "{}", requests.lock().len());
    }
}

//! What nodes have replied a short time ago, for all zones that ask the same.
//!
//! Zones of one cluster ask its nodes for the same reports. The first whose report is due asks; the others find a list
//! that is newer than theirs, and a poll of any of them serves as well.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::super::node::{Endpoint, IdentityReply, ListReply, Location};

/// Lists that are kept: far more than a hundred zones of large clusters ask for. With many zones more each has a cluster of
/// its own, and nothing to share.
const REPLIES_MAX: usize = 4096;

/// A list older than this serves no zone: each would have asked by itself meanwhile.
const REPLY_KEPT: Duration = Duration::from_secs(40);

/// A zone waits so long for the request of another one: most end within milliseconds, and one that hangs must not hold up
/// others.
const FLIGHT_MAX: Duration = Duration::from_millis(250);

/// Between two removals of old lists.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A node, and the location that it was asked about.
type Key = (Endpoint, Option<(String, Option<String>)>);

/// Replies to all zones. Clones share them.
#[derive(Debug)]
pub struct Shared<R>(Arc<Mutex<Replies<R>>>);

/// The lists of nodes.
pub type SharedLists = Shared<SharedList>;

/// The ids of their clusters that nodes have given.
pub type SharedIds = Shared<SharedId>;

/// A reply that arrived at some moment.
pub trait Arrived: Clone {
    /// When.
    fn arrived(&self) -> Instant;
}

/// What a node has replied to an identity query.
#[derive(Clone, Debug)]
pub struct SharedId {
    /// The reply.
    pub reply: IdentityReply,
    /// When it arrived.
    pub arrived: Instant,
}

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> Default for Shared<R> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Replies {
            in_flight: FxHashMap::default(),
            by_key: FxHashMap::default(),
            swept: None,
        })))
    }
}

#[derive(Debug)]
struct Replies<R> {
    /// Requests that are on their way; each is woken when one ends.
    in_flight: FxHashMap<Key, Arc<Notify>>,
    by_key: FxHashMap<Key, R>,
    swept: Option<Instant>,
}

/// A request on its way. Dropping it wakes the zones that wait for its list.
#[derive(Debug)]
pub struct Flight<R> {
    replies: Shared<R>,
    key: Key,
}

/// A list as a node has sent it.
#[derive(Clone, Debug)]
pub enum SharedList {
    /// It names nodes.
    Listed(ListReply),
    /// It names no node, at this moment.
    Empty(Instant),
}

impl<R: Arrived> Shared<R> {
    /// Keeps a list that has just arrived.
    pub fn keep(&self, endpoint: &Endpoint, location: Option<Location<'_>>, reply: R) {
        let mut replies = self.lock();
        replies.sweep(reply.arrived());
        let key = key(endpoint, location);
        if replies.by_key.len() < REPLIES_MAX || replies.by_key.contains_key(&key) {
            replies.by_key.insert(key, reply);
        }
    }

    /// A list that has arrived after this moment, whichever zone has asked for it. While another zone asks, it waits for
    /// that.
    ///
    /// # Errors
    /// There is none: the caller asks, and holds the flight meanwhile, so that others wait for it.
    pub async fn newer(
        &self,
        endpoint: &Endpoint,
        location: Option<Location<'_>>,
        after: Instant,
    ) -> Result<R, Flight<R>> {
        let key = key(endpoint, location);
        let is_on_its_way = {
            let replies = self.lock();
            if let Some(reply) = replies.newer(&key, after) {
                return Ok(reply);
            }
            replies.in_flight.get(&key).cloned()
        };
        if let Some(other) = is_on_its_way {
            // Where it brings nothing each zone asks for itself: a failure is evidence for each.
            let _ = timeout(FLIGHT_MAX, other.notified()).await;
            if let Some(reply) = self.lock().newer(&key, after) {
                return Ok(reply);
            }
        }
        self.lock().in_flight.insert(key.clone(), Arc::default());
        Err(Flight { replies: self.clone(), key })
    }
}

impl<R> Shared<R> {
    fn lock(&self) -> MutexGuard<'_, Replies<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Drop for Flight<R> {
    fn drop(&mut self) {
        if let Some(waiting) = self.replies.lock().in_flight.remove(&self.key) {
            waiting.notify_waiters();
        }
    }
}

impl<R: Arrived> Replies<R> {
    fn newer(&self, key: &Key, after: Instant) -> Option<R> {
        self.by_key.get(key).filter(|reply| reply.arrived() > after).cloned()
    }

    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.duration_since(swept) >= SWEEP_INTERVAL {
            self.by_key.retain(|_, reply| now.duration_since(reply.arrived()) < REPLY_KEPT);
            self.swept = Some(now);
        }
    }
}

impl Arrived for SharedId {
    fn arrived(&self) -> Instant {
        self.arrived
    }
}

impl Arrived for SharedList {
    fn arrived(&self) -> Instant {
        match self {
            Self::Listed(reply) => reply.arrived,
            Self::Empty(arrived) => *arrived,
        }
    }
}

fn key(endpoint: &Endpoint, location: Option<Location<'_>>) -> Key {
    let owned = |location: Location<'_>| (location.datacenter.to_owned(), location.rack.map(str::to_owned));
    (endpoint.clone(), location.map(owned))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{config::Scheme, discovery::node::parse};

    fn endpoint(last: u8) -> Endpoint {
        let address = Ipv4Addr::new(10, 0, 0, last).into();
        Endpoint { scheme: Scheme::Http, address, port: 8000.try_into().unwrap() }
    }

    fn listed(arrived: Instant) -> SharedList {
        SharedList::Listed(ListReply { listing: parse(b"[\"10.0.0.1\"]").unwrap(), arrived })
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_serves_zones_with_older_reports_of_the_same_node_and_location() {
        let lists = SharedLists::default();
        let start = Instant::now();
        let west = Location { datacenter: "west", rack: None };
        lists.keep(&endpoint(1), None, listed(start));
        lists.keep(&endpoint(1), Some(west), SharedList::Empty(start));
        let before = start - Duration::from_secs(1);
        assert!(matches!(lists.newer(&endpoint(1), None, before).await, Ok(SharedList::Listed(_))));
        assert!(matches!(lists.newer(&endpoint(1), Some(west), before).await, Ok(SharedList::Empty(_))));
        assert!(lists.newer(&endpoint(1), None, start).await.is_err(), "it is no newer");
        assert!(lists.newer(&endpoint(2), None, before).await.is_err());
    }

    #[test]
    fn lists_are_few_and_go_when_they_are_old() {
        let lists = SharedLists::default();
        let start = Instant::now();
        for n in 0..=REPLIES_MAX {
            let endpoint = Endpoint { address: Ipv4Addr::from_bits(u32::try_from(n).unwrap()).into(), ..endpoint(1) };
            lists.keep(&endpoint, None, SharedList::Empty(start));
        }
        assert_eq!(lists.0.lock().unwrap().by_key.len(), REPLIES_MAX);
        lists.keep(&endpoint(1), None, SharedList::Empty(start + REPLY_KEPT));
        assert_eq!(lists.0.lock().unwrap().by_key.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn zones_wait_for_one_another_s_requests() {
        let lists = SharedLists::default();
        let start = Instant::now();
        let before = start - Duration::from_secs(1);
        let node = endpoint(1);
        let flight = lists.newer(&node, None, before).await.unwrap_err();
        let answered = async {
            tokio::time::sleep(FLIGHT_MAX / 2).await;
            lists.keep(&node, None, SharedList::Empty(Instant::now()));
            drop(flight);
        };
        let (other, ()) = tokio::join!(lists.newer(&node, None, before), answered);
        assert!(other.is_ok());
        let lost = lists.newer(&endpoint(2), None, before).await.unwrap_err();
        assert!(lists.newer(&endpoint(2), None, before).await.is_err(), "it does not wait for ever");
        assert_eq!(start.elapsed(), FLIGHT_MAX / 2 + FLIGHT_MAX);
        drop(lost);
        assert!(lists.lock().in_flight.is_empty());
    }
}

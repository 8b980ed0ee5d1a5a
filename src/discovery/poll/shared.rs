//! The lists that nodes have sent a short time ago, for all zones that ask the same.
//!
//! Zones of one cluster ask its nodes for the same reports. The first whose report is due asks; the others find a list
//! that is newer than theirs, and a poll of any of them serves as well.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::super::node::{Endpoint, ListReply, Location};

/// Lists that are kept: far more than a hundred zones of large clusters ask for. With many zones more each has a cluster of
/// its own, and nothing to share.
const LISTS_MAX: usize = 4096;

/// A list older than this serves no zone: each would have asked by itself meanwhile.
const LIST_KEPT: Duration = Duration::from_secs(40);

/// Between two removals of old lists.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A node, and the location that it was asked about.
type Key = (Endpoint, Option<(String, Option<String>)>);

/// Lists of all zones. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SharedLists(Arc<Mutex<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    /// `None`: the node lists no node there.
    by_key: FxHashMap<Key, SharedList>,
    swept: Option<Instant>,
}

/// A list as a node has sent it.
#[derive(Clone, Debug)]
pub enum SharedList {
    /// It names nodes.
    Listed(ListReply),
    /// It names no node, at this moment.
    Empty(Instant),
}

impl SharedLists {
    /// Keeps a list that has just arrived.
    pub fn keep(&self, endpoint: &Endpoint, location: Option<Location<'_>>, list: SharedList) {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.sweep(list.arrived());
        let key = key(endpoint, location);
        if lists.by_key.len() < LISTS_MAX || lists.by_key.contains_key(&key) {
            lists.by_key.insert(key, list);
        }
    }

    /// A list that has arrived after this moment, whichever zone has asked for it.
    pub fn newer(&self, endpoint: &Endpoint, location: Option<Location<'_>>, after: Instant) -> Option<SharedList> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.by_key.get(&key(endpoint, location)).filter(|list| list.arrived() > after).cloned()
    }
}

impl Lists {
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.duration_since(swept) >= SWEEP_INTERVAL {
            self.by_key.retain(|_, list| now.duration_since(list.arrived()) < LIST_KEPT);
            self.swept = Some(now);
        }
    }
}

impl SharedList {
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

    #[test]
    fn a_list_serves_zones_with_older_reports_of_the_same_node_and_location() {
        let lists = SharedLists::default();
        let start = Instant::now();
        let west = Location { datacenter: "west", rack: None };
        lists.keep(&endpoint(1), None, listed(start));
        lists.keep(&endpoint(1), Some(west), SharedList::Empty(start));
        let before = start - Duration::from_secs(1);
        assert!(matches!(lists.newer(&endpoint(1), None, before), Some(SharedList::Listed(_))));
        assert!(matches!(lists.newer(&endpoint(1), Some(west), before), Some(SharedList::Empty(_))));
        assert!(lists.newer(&endpoint(1), None, start).is_none(), "it is no newer");
        assert!(lists.newer(&endpoint(2), None, before).is_none());
    }

    #[test]
    fn lists_are_few_and_go_when_they_are_old() {
        let lists = SharedLists::default();
        let start = Instant::now();
        for n in 0..=LISTS_MAX {
            let endpoint = Endpoint { address: Ipv4Addr::from_bits(u32::try_from(n).unwrap()).into(), ..endpoint(1) };
            lists.keep(&endpoint, None, SharedList::Empty(start));
        }
        assert_eq!(lists.0.lock().unwrap().by_key.len(), LISTS_MAX);
        lists.keep(&endpoint(1), None, SharedList::Empty(start + LIST_KEPT));
        assert_eq!(lists.0.lock().unwrap().by_key.len(), 1);
    }
}

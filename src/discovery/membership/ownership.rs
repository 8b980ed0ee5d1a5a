//! Which zone owns an address: how a zone notices that one of its addresses now belongs to another zone's cluster.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::NonZeroU16,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustc_hash::FxHashMap;

use crate::{
    config::Cluster,
    types::{NodeSet, Seed, ZoneName},
};

/// A moment, counted in events: later is larger.
type Moment = u64;

/// A node as ownership tell nodes apart: clusters on one host differ by their ports.
type NodeKey = (IpAddr, NonZeroU16);

/// What every zone publishes, shared by all pollers.
#[derive(Clone, Debug, Default)]
pub struct AddressOwnership(Arc<Mutex<Index>>);

#[derive(Debug, Default)]
struct Index {
    zones: FxHashMap<ZoneName, Published>,
    /// Which zones publish a place.
    places: FxHashMap<NodeKey, Vec<ZoneName>>,
    now: Moment,
}

#[derive(Clone, Debug)]
struct Published {
    nodes: Option<NodeSet>,
    port: NonZeroU16,
    seeds: Arc<[Seed]>,
    live: bool,
    /// When the nodes last changed.
    changed: Moment,
    /// When the zone first knew any node. It goes on to count while everything that the zone knew is disowned: whom it
    /// was disjoint from, it was disjoint from.
    learnt: Option<Moment>,
}

/// The zones that one zone has met, at the moment at which it last believed a list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overlaps {
    /// Those that published a node of ours: two zones of one cluster.
    related: BTreeSet<ZoneName>,
    /// Zones that learnt anything later than this cannot have been disjoint from us before.
    since: Moment,
}

impl AddressOwnership {
    /// Tells what a zone publishes now, and whether it is live.
    pub fn publish(&self, zone: &ZoneName, cluster: &Cluster, nodes: Option<&NodeSet>, live: bool) {
        let port = cluster.port;
        let mut index = self.index();
        if let Some(published) = index.zones.get_mut(zone)
            && published.nodes.as_ref() == nodes
            && published.port == port
            && *published.seeds == *cluster.seeds
        {
            published.live = live;
            return;
        }
        let learnt = index.remove(zone);
        index.now += 1;
        let learnt = learnt.or_else(|| nodes.map(|_| index.now));
        for &node in nodes.map_or(&[][..], NodeSet::as_slice) {
            index.places.entry((node, port)).or_default().push(zone.clone());
        }
        let (seeds, changed) = (cluster.seeds.clone().into(), index.now);
        index.zones.insert(zone.clone(), Published { nodes: nodes.cloned(), port, seeds, live, learnt, changed });
    }

    /// Forgets a zone that is no longer configured.
    pub fn forget(&self, zone: &ZoneName) {
        self.index().remove(zone);
    }

    /// The zones related to a zone that has these nodes now, and had these overlaps `before`. A related zone stays
    /// so until it publishes something else: of two zones of one cluster one is always the first to learn of a change.
    pub fn overlaps(&self, zone: &ZoneName, cluster: &Cluster, nodes: &[IpAddr], before: &Overlaps) -> Overlaps {
        let port = cluster.port;
        let index = self.index();
        let waits = |other: &&ZoneName| index.zones.get(*other).is_some_and(|other| other.changed <= before.since);
        let publishers = nodes.iter().filter_map(|&node| index.places.get(&(node, port))).flatten();
        let publishers = publishers.filter(|other| *other != zone);
        let related = publishers.chain(before.related.iter().filter(waits)).cloned().collect();
        Overlaps { related, since: index.now }
    }

    /// Whether another zone publishes a node, is live, and was disjoint from us when we last believed a list.
    pub fn owned_by_other_zone(&self, zone: &ZoneName, cluster: &Cluster, overlaps: &Overlaps, node: IpAddr) -> bool {
        let index = self.index();
        let publishers = index.places.get(&(node, cluster.port)).map_or(&[][..], Vec::as_slice);
        publishers.iter().filter(|other| *other != zone && !overlaps.related.contains(*other)).any(|other| {
            let other = index.zones.get(other);
            // Zones that name a seed in common are one cluster by the operator's own word.
            let one_cluster = |other: &Published| other.seeds.iter().any(|seed| cluster.seeds.contains(seed));
            other.is_some_and(|other| other.live && other.was_known_at(overlaps.since) && !one_cluster(other))
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing here can panic half-way, so what a panicking thread left behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other zones as one zone sees them.
#[derive(Clone, Copy, Debug)]
pub struct OtherZones<'a> {
    /// What every zone has registered.
    pub ownership: &'a AddressOwnership,
    /// The zone that looks.
    pub zone: &'a ZoneName,
    /// Its cluster.
    pub cluster: &'a Cluster,
}

impl OtherZones<'_> {
    /// See [`AddressOwnership::owned_by_other_zone`].
    pub fn own(&self, node: IpAddr, overlaps: &Overlaps) -> bool {
        self.ownership.owned_by_other_zone(self.zone, self.cluster, overlaps, node)
    }

    /// See [`AddressOwnership::overlaps`].
    pub fn overlaps(&self, nodes: &[IpAddr], before: &Overlaps) -> Overlaps {
        self.ownership.overlaps(self.zone, self.cluster, nodes, before)
    }

    /// Registers the zone's own addresses, for the others.
    pub fn register(&self, addresses: Option<&NodeSet>, live: bool) {
        self.ownership.publish(self.zone, self.cluster, addresses, live);
    }
}

#[cfg(test)]
impl AddressOwnership {
    /// The same at this moment, and apart from then on.
    pub(super) fn fork(&self) -> Self {
        let index = self.index();
        Self(Arc::new(Mutex::new(Index { zones: index.zones.clone(), places: index.places.clone(), now: index.now })))
    }

    /// Whether another zone publishes what it published when we last believed a list.
    pub(super) fn waits(&self, other: &ZoneName, overlaps: &Overlaps) -> Option<bool> {
        self.index().zones.get(other).map(|other| other.changed <= overlaps.since)
    }

    /// Whether another zone had learnt its nodes when we last believed a list. All moments serve nothing else.
    pub(super) fn knew(&self, other: &ZoneName, overlaps: &Overlaps) -> Option<bool> {
        self.index().zones.get(other).map(|other| other.was_known_at(overlaps.since))
    }
}

#[cfg(test)]
impl Overlaps {
    /// Whether the other zone is one of the same cluster.
    pub(super) fn relate_to(&self, other: &ZoneName) -> bool {
        self.related.contains(other)
    }
}

impl Index {
    /// Takes a zone out; returns when it first knew any node, if it ever did.
    fn remove(&mut self, zone: &ZoneName) -> Option<Moment> {
        let published = self.zones.remove(zone)?;
        for &node in published.nodes.as_ref().map_or(&[][..], NodeSet::as_slice) {
            let place = (node, published.port);
            if let Some(zones) = self.places.get_mut(&place) {
                zones.retain(|other| other != zone);
                if zones.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        published.learnt
    }
}

impl Published {
    fn was_known_at(&self, moment: Moment) -> bool {
        self.learnt.is_some_and(|learnt| learnt <= moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Scheme;

    const PORT: NonZeroU16 = NonZeroU16::new(8000).unwrap();

    /// A cluster on this port, with a seed of this zone's own.
    fn on(port: NonZeroU16) -> Cluster {
        Cluster { seeds: Vec::new(), port, scheme: Scheme::Http, scope: Vec::new() }
    }

    fn overlaps(ownership: &AddressOwnership, to: &str, last: &[u8], before: &Overlaps) -> Overlaps {
        ownership.overlaps(&zone(to), &on(PORT), nodes(last).as_slice(), before)
    }

    fn zone(name: &str) -> ZoneName {
        ZoneName::parse(name).unwrap()
    }

    fn nodes(last: &[u8]) -> NodeSet {
        NodeSet::new(last.iter().map(|&n| IpAddr::from([10, 0, 0, n]))).unwrap()
    }

    fn owned_by_other_zone(ownership: &AddressOwnership, to: &str, overlaps: &Overlaps, last: u8) -> bool {
        ownership.owned_by_other_zone(&zone(to), &on(PORT), overlaps, IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_zone_that_was_disjoint_is_foreign_and_one_that_overlapped_is_not() {
        let ownership = AddressOwnership::default();
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[5, 6])), true);
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[1, 2])), true);
        let overlaps = overlaps(&ownership, "a", &[1], &Overlaps::default());
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[1, 2, 3])), true);
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[1, 5, 6])), true);
        assert!(owned_by_other_zone(&ownership, "a", &overlaps, 5));
        assert!(owned_by_other_zone(&ownership, "a", &overlaps, 1), "b has taken our only address in");
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 3));
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 9));
    }

    #[test]
    fn who_learnt_later_than_we_believed_was_never_disjoint() {
        let ownership = AddressOwnership::default();
        ownership.publish(&zone("twin"), &on(PORT), None, false);
        let overlaps = overlaps(&ownership, "a", &[1], &Overlaps::default());
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[1])), true);
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 1));
    }

    #[test]
    fn who_had_to_disown_everything_for_a_while_is_no_newcomer() {
        let ownership = AddressOwnership::default();
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[5])), true);
        let overlaps = overlaps(&ownership, "a", &[1, 2], &Overlaps::default());
        ownership.publish(&zone("b"), &on(PORT), None, false);
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[2, 5])), true);
        assert!(owned_by_other_zone(&ownership, "a", &overlaps, 5), "2 is b's by now, and a has to learn it");
    }

    #[test]
    fn dead_and_forgotten_zones_and_other_ports_are_not_foreign() {
        let ownership = AddressOwnership::default();
        let other_port = NonZeroU16::new(9000).unwrap();
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[5])), true);
        ownership.publish(&zone("c"), &on(other_port), Some(&nodes(&[6])), true);
        let overlaps = overlaps(&ownership, "a", &[1], &Overlaps::default());
        assert!(owned_by_other_zone(&ownership, "a", &overlaps, 5));
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 6));
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[5])), false);
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 5));
        ownership.publish(&zone("b"), &on(PORT), Some(&nodes(&[5])), true);
        ownership.forget(&zone("b"));
        assert!(!owned_by_other_zone(&ownership, "a", &overlaps, 5));
        assert!(ownership.0.lock().unwrap().places.len() == 1, "nothing of a forgotten zone remains");
    }

    #[test]
    fn who_was_related_stays_so_until_it_publishes_something_else() {
        let ownership = AddressOwnership::default();
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[1])), true);
        let shared = overlaps(&ownership, "a", &[1], &Overlaps::default());
        let moved_first = overlaps(&ownership, "a", &[2], &shared);
        ownership.publish(&zone("a"), &on(PORT), Some(&nodes(&[2])), true);
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[2])), true);
        assert!(!owned_by_other_zone(&ownership, "a", &moved_first, 2), "the twin has only followed");
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[7])), true);
        let apart = overlaps(&ownership, "a", &[2], &moved_first);
        ownership.publish(&zone("twin"), &on(PORT), Some(&nodes(&[2, 7])), true);
        assert!(owned_by_other_zone(&ownership, "a", &apart, 7), "it went its own way, and came back for our address");
    }

    #[test]
    fn zones_with_a_seed_in_common_are_one_cluster() {
        let ownership = AddressOwnership::default();
        let of = |seeds: &[u8]| {
            let seeds = seeds.iter().map(|&n| Seed::Address(IpAddr::from([10, 0, 0, n]))).collect();
            Cluster { seeds, ..on(PORT) }
        };
        ownership.publish(&zone("west"), &of(&[1, 5]), Some(&nodes(&[5, 6])), true);
        let overlaps = overlaps(&ownership, "east", &[1, 2], &Overlaps::default());
        let strange = |seeds: &[u8]| {
            ownership.owned_by_other_zone(&zone("east"), &of(seeds), &overlaps, IpAddr::from([10, 0, 0, 6]))
        };
        assert!(!strange(&[5]) && !strange(&[1]) && strange(&[2]));
    }
}

//! Which zones answer an address: evidence, never proof, that it is another cluster's.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustc_hash::FxHashMap;

use crate::types::{ClusterLabel, NodeSet, ZoneName};

/// A node as zones tell nodes apart: clusters on one host differ by their ports.
type NodeKey = (IpAddr, NonZeroU16);

/// What every zone answers, shared by all pollers.
#[derive(Clone, Debug, Default)]
pub struct AddressOwnership(Arc<Mutex<Index>>);

#[derive(Clone, Debug, Default)]
struct Index {
    zones: FxHashMap<ZoneName, Answered>,
    by_node: FxHashMap<NodeKey, Vec<ZoneName>>,
}

#[derive(Clone, Debug)]
struct Answered {
    nodes: Option<NodeSet>,
    port: NonZeroU16,
    label: Option<ClusterLabel>,
}

/// The other zones as one zone sees them.
#[derive(Clone, Copy, Debug)]
pub struct OtherZones<'a> {
    /// What every zone answers.
    pub ownership: &'a AddressOwnership,
    /// The zone that looks.
    pub zone: &'a ZoneName,
    /// The port of its nodes.
    pub port: NonZeroU16,
    /// Zones with this label are of the same cluster.
    pub label: Option<&'a ClusterLabel>,
}

impl AddressOwnership {
    /// Forgets a zone that is no longer configured.
    pub fn forget(&self, zone: &ZoneName) {
        self.index().remove(zone);
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing here can panic half-way, so what a panicking thread left behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same at this moment, and apart from then on.
    #[cfg(test)]
    pub(super) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.index().clone())))
    }
}

impl OtherZones<'_> {
    /// Whether a zone that has not the same label answers a node. A zone and its views are one.
    pub fn answer(&self, node: IpAddr) -> bool {
        let index = self.ownership.index();
        let zones = index.by_node.get(&(node, self.port)).map_or(&[][..], Vec::as_slice);
        zones.iter().filter(|other| !other.is_same_zone(self.zone)).any(|other| {
            let label = index.zones.get(other).and_then(|other| other.label.as_ref());
            label.is_none() || label != self.label
        })
    }

    /// Registers what the zone itself answers, for the others.
    pub fn register(&self, nodes: Option<&NodeSet>) {
        let mut index = self.ownership.index();
        if let Some(answered) = index.zones.get(self.zone)
            && answered.nodes.as_ref() == nodes
            && answered.port == self.port
            && answered.label.as_ref() == self.label
        {
            return;
        }
        index.remove(self.zone);
        for &node in nodes.map_or(&[][..], NodeSet::as_slice) {
            index.by_node.entry((node, self.port)).or_default().push(self.zone.clone());
        }
        let answered = Answered { nodes: nodes.cloned(), port: self.port, label: self.label.cloned() };
        index.zones.insert(self.zone.clone(), answered);
    }
}

impl Index {
    fn remove(&mut self, zone: &ZoneName) {
        let Some(answered) = self.zones.remove(zone) else { return };
        for &node in answered.nodes.as_ref().map_or(&[][..], NodeSet::as_slice) {
            let key = (node, answered.port);
            if let Some(zones) = self.by_node.get_mut(&key) {
                zones.retain(|other| other != zone);
                if zones.is_empty() {
                    self.by_node.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: NonZeroU16 = NonZeroU16::new(8000).unwrap();

    fn zone(name: &str) -> ZoneName {
        ZoneName::parse(name).unwrap()
    }

    fn node(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Calls `then` with the others as a zone sees them.
    fn seen<T>(ownership: &AddressOwnership, name: &str, label: &str, then: impl Fn(OtherZones<'_>) -> T) -> T {
        let (zone, label) = (zone(name), ClusterLabel::parse(label));
        then(OtherZones { ownership, zone: &zone, port: PORT, label: label.as_ref() })
    }

    fn register(ownership: &AddressOwnership, name: &str, label: &str, nodes: &[u8]) {
        let nodes = NodeSet::new(nodes.iter().copied().map(node));
        seen(ownership, name, label, |zones| zones.register(nodes.as_ref()));
    }

    fn answered(ownership: &AddressOwnership, name: &str, label: &str, last: u8) -> bool {
        seen(ownership, name, label, |zones| zones.answer(node(last)))
    }

    #[test]
    fn a_zone_of_another_label_or_of_none_answers_its_nodes() {
        let ownership = AddressOwnership::default();
        register(&ownership, "b", "", &[5, 6]);
        register(&ownership, "c", "prod", &[7]);
        assert!(answered(&ownership, "a", "", 5) && answered(&ownership, "a", "", 7));
        assert!(answered(&ownership, "a", "prod", 5) && !answered(&ownership, "a", "prod", 7));
        assert!(answered(&ownership, "a", "stage", 7));
        assert!(!answered(&ownership, "b", "", 5), "its own");
        let view = zone("b").of_view(&"10.0.0.0/24".parse().unwrap());
        let zones = OtherZones { ownership: &ownership, zone: &view, port: PORT, label: None };
        assert!(!zones.answer(node(5)) && zones.answer(node(7)), "a view is of its zone's cluster");
        assert!(!answered(&ownership, "a", "", 9));
    }

    #[test]
    fn what_a_zone_answers_no_longer_and_a_forgotten_zone_leave_nothing() {
        let ownership = AddressOwnership::default();
        register(&ownership, "b", "", &[5, 6]);
        register(&ownership, "b", "", &[6]);
        assert!(!answered(&ownership, "a", "", 5) && answered(&ownership, "a", "", 6));
        let other_port = NonZeroU16::new(9000).unwrap();
        assert!(!seen(&ownership, "a", "", |zones| OtherZones { port: other_port, ..zones }.answer(node(6))));
        ownership.forget(&zone("b"));
        assert!(!answered(&ownership, "a", "", 6));
        assert!(ownership.index().by_node.is_empty());
    }
}

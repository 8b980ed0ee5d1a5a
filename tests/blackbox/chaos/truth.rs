//! The clusters as they are.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use alternator_dns::simulation::SimulatedCluster;
use rand::{rngs::StdRng, seq::IndexedRandom};

use super::{CLUSTERS, KEYS, NODES, SEEDS, SIDE_MIN};
use crate::daemon::zone_with;

/// The condition of one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    Healthy,
    /// It refuses; its peers may or may not list it.
    Refuses {
        listed: bool,
    },
    /// It hangs or errs.
    Silent,
    /// It answers `/` late. Nothing is wrong, whether it is answered or not.
    Slow,
    /// It serves, and its list is wrong.
    WrongList,
    /// It is listed and has never served.
    Announced,
}

impl Condition {
    pub(super) fn is_listed_and_not_serving(self) -> bool {
        matches!(self, Self::Refuses { listed: true } | Self::Silent | Self::Slow | Self::Announced)
    }

    pub(super) fn runs(self) -> bool {
        !matches!(self, Self::Refuses { .. } | Self::Announced)
    }
}

/// A fault of a whole cluster; one at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ClusterFault {
    Healthy,
    Split,
    Overload,
    Blackout,
}

/// The history of one address, whichever node had it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    /// The cluster that has it, or had it last.
    pub(super) owner: usize,
    /// Until when each cluster that had it before may answer it; `None`: it never had it.
    pub(super) former_until: [Option<Instant>; CLUSTERS],
    /// The step in which it last changed hands.
    pub(super) moved: Option<u64>,
    /// From then on it must not be answered.
    pub(super) dead_from: Option<Instant>,
}

impl Address {
    /// The address of a node that is the first there.
    pub(super) fn first(owner: usize, dead_from: Option<Instant>) -> Self {
        Self { owner, former_until: [None; CLUSTERS], moved: None, dead_from }
    }
}

/// One cluster, as it is.
pub(super) struct Truth {
    pub(super) name: &'static str,
    pub(super) cluster: SimulatedCluster,
    /// In the order of joining, so that events do not depend on addresses. Each with its number and condition.
    pub(super) nodes: Vec<(IpAddr, u32, Condition)>,
    /// The addresses in the file, whichever cluster has them now.
    pub(super) seeds: Vec<IpAddr>,
    /// Addresses that its nodes still list although they are no nodes of it any more, each with the step in which that ends.
    pub(super) lagging: Vec<(IpAddr, u64)>,
    /// The next node's number, and its distance from the first address.
    pub(super) next: u32,
    pub(super) first: Ipv4Addr,
    pub(super) fault: ClusterFault,
    /// One of the sides of a split. Nodes that are added later are on the other.
    pub(super) side: BTreeSet<IpAddr>,
    /// When the last fault that excuses dead nodes ended; `None` while it lasts.
    pub(super) excused_until: Option<Instant>,
    /// Events until the fault may change, so that it lasts.
    pub(super) fault_steps: u64,
}

impl Truth {
    pub(super) fn new(name: &'static str, cluster: SimulatedCluster) -> Self {
        let IpAddr::V4(first) = cluster.node(0) else { panic!("IPv4 is simulated") };
        let seeds = cluster.nodes()[..SEEDS].to_vec();
        let nodes = cluster.nodes().into_iter().zip(0..).map(|(node, n)| (node, n, Condition::Healthy)).collect();
        Self {
            name,
            cluster,
            nodes,
            seeds,
            lagging: Vec::new(),
            next: u32::try_from(NODES).unwrap(),
            first,
            fault: ClusterFault::Healthy,
            side: BTreeSet::new(),
            excused_until: Some(Instant::now()),
            fault_steps: 0,
        }
    }

    pub(super) fn zone_name(&self) -> String {
        format!("{}.example", self.name)
    }

    pub(super) fn zone(&self) -> String {
        zone_with(&self.zone_name(), &self.seeds, self.cluster.port(), KEYS)
    }

    pub(super) fn count(&self, is: impl Fn(Condition) -> bool) -> usize {
        self.nodes.iter().filter(|(.., condition)| is(*condition)).count()
    }

    /// An address of its own range that no node has had.
    pub(super) fn fresh(&mut self) -> (IpAddr, u32) {
        let number = self.next;
        self.next += 1;
        (Ipv4Addr::from_bits(self.first.to_bits() + number).into(), number)
    }

    /// A random node in such a condition.
    pub(super) fn draw(&self, chance: &mut StdRng, is: impl Fn(Condition) -> bool) -> Option<usize> {
        let fit: Vec<_> = (0..self.nodes.len()).filter(|&index| is(self.nodes[index].2)).collect();
        fit.choose(chance).copied()
    }

    /// From now on the other nodes list a node that they have lost, until gossip has settled.
    pub(super) fn lose(&mut self, index: usize, until: u64) {
        let (node, ..) = self.nodes.remove(index);
        self.cluster.crash(node);
        self.lagging.push((node, until));
    }

    /// The nodes list those no more that they had lost before this step. Returns these.
    pub(super) fn settle(&mut self, step: u64) -> Vec<IpAddr> {
        let settled = self.lagging.extract_if(.., |(_, until)| *until <= step).map(|(node, _)| node);
        let settled: Vec<_> = settled.collect();
        settled.iter().for_each(|node| self.cluster.remove(*node));
        settled
    }

    /// Whether a node may become faulty, or leave, with enough healthy nodes remaining on its side of a split.
    pub(super) fn spares(&self, index: usize) -> bool {
        let (node, _, condition) = &self.nodes[index];
        let beside = |other: &&(IpAddr, u32, Condition)| self.side.contains(&other.0) == self.side.contains(node);
        let healthy = self.nodes.iter().filter(beside).filter(|(.., other)| *other == Condition::Healthy).count();
        self.fault != ClusterFault::Split || *condition != Condition::Healthy || healthy > SIDE_MIN
    }

    pub(super) fn is_excused(&self, asked: Instant) -> bool {
        self.excused_until.is_none_or(|until| asked < until)
    }
}

//! What a new poller starts from.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use super::{
    super::groups::{Contest, ForeignReason, Group, KnownId},
    HealthTable, MembershipView, Origin, Timing,
};
use crate::{
    config,
    table::Node,
    types::{ClusterId, NodeSet, NodeState},
};

/// What was known of a zone's cluster by an earlier poller, or process.
#[derive(Clone, Debug, Default)]
pub struct Inheritance {
    /// When its last list was accepted.
    pub last_success: Option<Instant>,
    /// The zone's nodes besides those that were answered.
    pub others: Vec<IpAddr>,
    /// Nodes of other clusters.
    pub foreign: Vec<IpAddr>,
    /// Nodes that have failed since their last success, and how often.
    pub failing: Vec<(IpAddr, u32)>,
    /// The id of the cluster.
    pub id: Option<ClusterId>,
    /// The seeds are others than those that it was learnt from.
    pub seeds_edited: bool,
}

impl MembershipView {
    /// A zone that knows nothing but its seeds' addresses. `scopes` is their number, and `pinned` the id that the file
    /// demands.
    pub fn new(timing: Timing, health: Option<config::Health>, scopes: usize, now: Instant) -> Self {
        Self {
            timing,
            seeds: Vec::new(),
            seeds_edited: false,
            lists: vec![None; scopes.max(1)],
            active_scope: 0,
            origin: Origin::Seeds(None),
            departed: VecDeque::new(),
            reports: BTreeMap::new(),
            ids: BTreeMap::new(),
            identifies: false,
            identified: BTreeMap::new(),
            unidentified: BTreeSet::new(),
            awaited: BTreeSet::new(),
            asked: BTreeMap::new(),
            not_asked: BTreeMap::new(),
            group: Group::default(),
            verdicts: BTreeMap::new(),
            trusted: BTreeSet::new(),
            proven: BTreeSet::new(),
            pending: BTreeSet::new(),
            standing: BTreeSet::new(),
            foreign: BTreeMap::new(),
            former: BTreeSet::new(),
            id: KnownId::Unknown,
            contest: None,
            evidence_changed: false,
            reports_changed: false,
            health: HealthTable::new(health),
            to_confirm: BTreeSet::new(),
            probing_changed: false,
            fresh: now,
            last_success: None,
            source: None,
            error: None,
            last_dispute: None,
            dispute: None,
            unscoped: false,
            notices: Vec::new(),
        }
    }

    /// Nodes are asked which cluster they are of.
    #[must_use]
    pub fn identifying(mut self) -> Self {
        self.identifies = true;
        self
    }

    /// Only nodes that give this id are answered.
    #[must_use]
    pub fn pinned(mut self, id: ClusterId) -> Self {
        self.id = KnownId::Pinned(id);
        self
    }

    /// Goes on with the nodes of a scope that an earlier poller learnt from the same cluster; none: all of them were
    /// foreign.
    #[must_use]
    pub fn resuming(mut self, nodes: &[Node], scope: usize, inherited: Inheritance) -> Self {
        self.active_scope = scope.min(self.lists.len() - 1);
        self.lists[self.active_scope] = NodeSet::new(nodes.iter().map(|node| node.address));
        self.origin = Origin::Cluster;
        self.health.resume(nodes, &inherited.failing);
        let is_trusted = |node: &&Node| node.state == NodeState::Up || node.pending;
        self.trusted = nodes.iter().filter(is_trusted).map(|node| node.address).collect();
        self.inherit(inherited)
    }

    /// Answers the nodes of a former cluster until the new one has reported its own.
    #[must_use]
    pub fn following(mut self, nodes: Arc<[Node]>, last_success: Option<Instant>) -> Self {
        if !nodes.is_empty() {
            self.origin = Origin::FormerCluster(nodes);
        }
        self.inherit(Inheritance { last_success, ..Inheritance::default() })
    }

    /// Answers the nodes that an earlier process wrote down.
    #[must_use]
    pub fn remembering(mut self, nodes: NodeSet, inherited: Inheritance) -> Self {
        self.origin = Origin::Remembered;
        self.trusted = nodes.as_slice().iter().copied().collect();
        self.health.remember(&nodes);
        self.lists[0] = Some(nodes);
        self.inherit(inherited)
    }

    fn inherit(mut self, inherited: Inheritance) -> Self {
        let Inheritance { last_success, others, foreign, failing: _, id, seeds_edited } = inherited;
        self.proven.clone_from(&self.trusted);
        self.last_success = last_success;
        self.fresh = last_success.unwrap_or(self.fresh);
        self.departed = others.into_iter().collect();
        self.foreign = foreign.into_iter().map(|node| (node, ForeignReason::Remembered)).collect();
        if let (KnownId::Unknown, Some(id)) = (self.id, id) {
            self.id = KnownId::Learned(id);
        }
        self.seeds_edited = seeds_edited;
        self.probing_changed = true;
        self.ask_all_anew();
        self
    }

    /// Nodes that have failed since their last success, and how often.
    pub fn failing(&self) -> Vec<(IpAddr, u32)> {
        self.health.failing()
    }

    /// Nodes of other clusters.
    pub fn foreign(&self) -> impl Iterator<Item = IpAddr> {
        self.foreign.keys().copied()
    }

    /// Whether the seeds are of several clusters.
    pub fn seeds_disagree(&self) -> bool {
        self.contest == Some(Contest::SeedsDisagree) || self.seeds.iter().any(|seed| self.foreign.contains_key(seed))
    }

    /// The id of the zone's cluster.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.id.id()
    }
}

//! Why a zone is not live, and why a node is not up: the evidence, for people.

use std::{net::IpAddr, time::Instant};

use super::{
    super::groups::{Contest, ForeignReason, Verdict},
    MembershipView, Origin,
};
use crate::{
    table::Node,
    types::{NodeState, ZoneState},
};

/// Nodes that disagree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dispute {
    /// This node has sent a list, and is of another cluster.
    Foreign(IpAddr, ForeignReason),
    /// This node lists only itself, and the zone's other nodes are alive.
    Isolated(IpAddr),
    /// A list leaves out a node that is alive.
    LeavesOut { sender: IpAddr, witness: IpAddr },
}

/// Why a zone is in its state, where it is not the table's rules or the last error alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ZoneReason {
    #[error(
        "the seeds do not list each other: they are of several clusters, or of several datacenters and the zone has no \
         scope; edit seeds, or set scope or cluster_id"
    )]
    SeedsDisagree,
    #[error("no node that answers is known to be of the zone's cluster; edit seeds, or set cluster_id")]
    NoneEligible,
    #[error("the cluster lists {0}, which is another cluster's: {1}")]
    ForeignListed(IpAddr, ForeignReason),
    #[error("{0} was polled and is another cluster's: {1}")]
    ForeignPolled(IpAddr, ForeignReason),
    #[error("{0} lists only itself: it has lost sight of the zone's other nodes")]
    Isolated(IpAddr),
    #[error("{sender} does not list {witness}, which is alive and lists itself")]
    LeavesOut { sender: IpAddr, witness: IpAddr },
    #[error("the servers do not support scope, as before ScyllaDB 2025.1, so the whole cluster is answered")]
    Unscoped,
    /// The number of the scope that is answered, counted from 0.
    #[error("scope {} is answered, because no better one has a healthy node", .0 + 1)]
    Fallback(usize),
    #[error("no new seed has sent a usable list yet, so the nodes from before the edit are answered")]
    FormerCluster,
    #[error("no node has sent a usable list since the start, so the nodes of the snapshot are answered")]
    Remembered,
}

/// Why a listed node is new or foreign, where the cause is not its probes. Each reads as the end of a sentence that
/// starts with the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NodeReason {
    #[error("is another cluster's: {0}")]
    Foreign(ForeignReason),
    #[error("was answered before the start, and is not verified yet")]
    Remembered,
    #[error("is not listed by the zone's nodes yet")]
    NotListed,
    #[error("has not named its cluster yet, which cluster_id demands")]
    Unnamed,
    #[error("has not sent its own list yet")]
    NoReport,
    #[error("has sent a list that is compared with those of nodes that have not answered yet")]
    Undecided,
}

impl MembershipView {
    /// Why the zone is in its state.
    pub fn reason(&self, now: Instant) -> Option<ZoneReason> {
        let contest = self.contest.map(|contest| match contest {
            Contest::SeedsDisagree => ZoneReason::SeedsDisagree,
            Contest::NoneEligible => ZoneReason::NoneEligible,
        });
        if matches!(self.origin, Origin::Seeds(_)) {
            return contest;
        }
        match self.state(now) {
            ZoneState::Contested => contest.or_else(|| self.foreign_listed()).or_else(|| self.disputed()),
            ZoneState::Degraded if self.unscoped => Some(ZoneReason::Unscoped),
            ZoneState::Degraded => Some(ZoneReason::Fallback(self.active_scope)),
            ZoneState::Stale => match self.origin {
                Origin::Remembered => Some(ZoneReason::Remembered),
                Origin::FormerCluster(_) => Some(ZoneReason::FormerCluster),
                Origin::Cluster | Origin::Seeds(_) => None,
            },
            ZoneState::Live | ZoneState::Waiting | ZoneState::Unanswered => None,
        }
    }

    fn foreign_listed(&self) -> Option<ZoneReason> {
        let is_listed = |node: &IpAddr| self.lists.iter().flatten().any(|list| list.contains(node));
        let (&node, &reason) = self.foreign.iter().find(|(node, _)| is_listed(node))?;
        Some(ZoneReason::ForeignListed(node, reason))
    }

    fn disputed(&self) -> Option<ZoneReason> {
        Some(match self.dispute? {
            Dispute::Foreign(node, reason) => ZoneReason::ForeignPolled(node, reason),
            Dispute::Isolated(node) => ZoneReason::Isolated(node),
            Dispute::LeavesOut { sender, witness } => ZoneReason::LeavesOut { sender, witness },
        })
    }

    /// Why listed nodes are new or foreign; without those that only have not answered a probe yet.
    pub fn node_reasons(&self) -> Vec<(IpAddr, NodeReason)> {
        let reasons = self.table_nodes().into_iter().filter_map(|node| Some((node.address, self.node_reason(&node)?)));
        reasons.collect()
    }

    fn node_reason(&self, node: &Node) -> Option<NodeReason> {
        match node.state {
            NodeState::Foreign => self.foreign.get(&node.address).copied().map(NodeReason::Foreign),
            NodeState::New if node.pending => Some(NodeReason::Remembered),
            NodeState::New if self.health.state(node.address) == Some(NodeState::Up) => {
                Some(match self.verdicts.get(&node.address) {
                    Some(Verdict::Waits | Verdict::Split) => NodeReason::NotListed,
                    Some(Verdict::Unnamed) => NodeReason::Unnamed,
                    Some(_) => NodeReason::Undecided,
                    None => NodeReason::NoReport,
                })
            }
            NodeState::New | NodeState::Up | NodeState::Down | NodeState::Drained | NodeState::Excluded => None,
        }
    }
}

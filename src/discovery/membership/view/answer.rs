//! What is answered, and in which state the zone is.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{super::groups::Verdict, MembershipView, Origin, STALE_AFTER_MIN, STALE_AFTER_REFRESHES, slice};
use crate::{
    table::{Knowledge, Known, Node},
    types::{NodeSet, NodeState, ZoneState},
};

impl MembershipView {
    /// What is to be answered.
    pub fn knowledge(&self, now: Instant) -> Knowledge {
        let nodes: Arc<[Node]> = match &self.origin {
            Origin::Seeds(seeds) => {
                let seeds = slice(seeds.as_ref()).iter().copied().filter(|seed| !self.foreign.contains_key(seed));
                return Knowledge::Waiting(NodeSet::new(seeds));
            }
            Origin::FormerCluster(nodes) => nodes.clone(),
            Origin::Remembered | Origin::Cluster => {
                let list = self.lists[self.active_scope].as_ref();
                let is_listed = |node: &Node| list.is_some_and(|list| list.contains(&node.address));
                self.table_nodes().into_iter().filter(is_listed).collect()
            }
        };
        let expired = self.timing.max_stale.is_some_and(|max| now > self.fresh + max);
        Knowledge::Known(Known { nodes, state: self.state(now), expired })
    }

    /// When time alone will change what is answered, if it will.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let moments = [
            Some(self.fresh + self.stale_after()),
            self.timing.max_stale.map(|max| self.fresh + max),
            self.last_dispute.map(|last_dispute| last_dispute + self.stale_after()),
        ];
        moments.into_iter().flatten().filter(|moment| *moment >= now).min()
    }

    pub(super) fn state(&self, now: Instant) -> ZoneState {
        let is_foreign_listed = self.lists_foreign_node();
        let is_old = self.origin == Origin::Remembered || now > self.fresh + self.stale_after();
        if !is_foreign_listed && is_old {
            ZoneState::Stale
        } else if is_foreign_listed || self.contest.is_some() || self.is_recent(self.last_dispute, now) {
            ZoneState::Contested
        } else if self.unscoped || self.active_scope > 0 {
            ZoneState::Degraded
        } else {
            ZoneState::Live
        }
    }

    pub(super) fn lists_foreign_node(&self) -> bool {
        self.foreign.keys().any(|node| self.lists.iter().flatten().any(|list| list.contains(node)))
    }

    pub(super) fn is_recent(&self, moment: Option<Instant>, now: Instant) -> bool {
        moment.is_some_and(|moment| now <= moment + self.stale_after())
    }

    /// How long a zone lives on its last success, and a dispute on its last word.
    pub(super) fn stale_after(&self) -> Duration {
        (self.timing.refresh * STALE_AFTER_REFRESHES).max(STALE_AFTER_MIN)
    }

    /// Every listed node as the table has it: its health, and whether it belongs.
    pub(super) fn table_nodes(&self) -> Vec<Node> {
        let is_probed = self.health.is_probed();
        let shown = |node: &Node| {
            let is_trusted = !is_probed || self.trusted.contains(&node.address);
            let state = match node.state {
                _ if self.foreign.contains_key(&node.address) => NodeState::Foreign,
                NodeState::Up if !is_trusted => NodeState::New,
                state => state,
            };
            let is_pending = node.pending || (!is_trusted && self.pending.contains(&node.address));
            Node { state, pending: is_pending && !self.is_refuted(node.address), ..*node }
        };
        self.health.nodes().iter().map(shown).collect()
    }

    /// Whether a node's report shows that it is not to be answered.
    pub(super) fn is_refuted(&self, node: IpAddr) -> bool {
        matches!(
            self.verdicts.get(&node),
            Some(Verdict::Foreign(_) | Verdict::Waits | Verdict::Witness | Verdict::Unnamed)
        )
    }
}

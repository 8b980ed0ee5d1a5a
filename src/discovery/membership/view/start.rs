//! What a new poller starts from.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use super::{HealthTable, MembershipView, Origin, Overlaps, Timing};
use crate::{config, table::Node, types::NodeSet};

impl MembershipView {
    /// A zone that knows nothing but its seeds' addresses.
    pub fn new(timing: Timing, health: Option<config::Health>, scopes: usize, now: Instant) -> Self {
        Self {
            timing,
            lists: vec![None; scopes.max(1)],
            active_scope: 0,
            origin: Origin::Seeds(None),
            foreign: BTreeSet::new(),
            overlaps: Overlaps::default(),
            health: HealthTable::new(health),
            to_confirm: BTreeSet::new(),
            probing_changed: false,
            fresh: now,
            last_success: None,
            source: None,
            error: None,
            last_dispute: None,
            last_foreign: None,
            unscoped: false,
        }
    }

    /// Goes on with the nodes of a scope that an earlier poller learnt from the same cluster; none: it had marked all of them foreign.
    #[must_use]
    pub fn resuming(mut self, nodes: &[Node], scope: usize, last_success: Option<Instant>, overlaps: Overlaps) -> Self {
        self.active_scope = scope.min(self.lists.len() - 1);
        self.lists[self.active_scope] = NodeSet::new(nodes.iter().map(|node| node.address));
        self.origin = Origin::Cluster;
        self.health.resume(nodes);
        self.probing_changed = true;
        self.since(last_success, overlaps)
    }

    /// Answers the nodes of a former cluster until the new one has reported its own.
    #[must_use]
    pub fn following(mut self, nodes: Arc<[Node]>, last_success: Option<Instant>) -> Self {
        if !nodes.is_empty() {
            self.origin = Origin::FormerCluster(nodes);
        }
        self.since(last_success, Overlaps::default())
    }

    /// Answers the nodes that an earlier process wrote down, whose last success was at `last_success`.
    #[must_use]
    pub fn remembering(mut self, nodes: NodeSet, last_success: Option<Instant>, overlaps: Overlaps) -> Self {
        self.origin = Origin::Remembered(nodes);
        self.since(last_success, overlaps)
    }

    fn since(mut self, last_success: Option<Instant>, overlaps: Overlaps) -> Self {
        self.last_success = last_success;
        self.fresh = last_success.unwrap_or(self.fresh);
        self.overlaps = overlaps;
        self
    }
}

//! What a zone knows about its cluster, without a clock, a socket or a log: time is an argument.

mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    evidence::{Baseline, Judgement, ListReport, ScopeReport, judge, outweighs, speaks_of_others},
    health::{Change, HealthTable, ProbeOutcome},
    ownership::Overlaps,
};
use crate::{
    table::{self, Knowledge, Known, Node},
    types::{NodeSet, NodeState, ZoneState},
};

/// A zone is stale after so many refreshes without success, and not before [`STALE_AFTER_MIN`].
const STALE_AFTER_REFRESHES: u32 = 3;

/// A few seconds without success are ordinary when nodes restart, however often they are asked.
const STALE_AFTER_MIN: Duration = Duration::from_secs(5);

/// What decides when time changes an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Between two ticks.
    pub refresh: Duration,
    /// How long nodes are answered without any success; `None`: indefinitely.
    pub max_stale: Option<Duration>,
}

/// One zone's membership.
#[derive(Clone, Debug)]
pub struct MembershipView {
    timing: Timing,
    /// How many lists there are: one for each scope, and one without scopes.
    lists: Vec<Option<NodeSet>>,
    /// The scope that is answered.
    active_scope: usize,
    origin: Origin,
    /// Nodes that spoke for another zone's cluster.
    foreign: BTreeSet<IpAddr>,
    overlaps: Overlaps,
    health: HealthTable,
    /// Refusals that polls have met and that a probe is to confirm.
    to_confirm: BTreeSet<IpAddr>,
    /// The nodes to probe or to confirm are others than when [`MembershipView::probing_changed`] was last asked.
    probing_changed: bool,
    /// Since when nothing has succeeded, at the earliest the start of the poller.
    fresh: Instant,
    last_success: Option<Instant>,
    source: Option<IpAddr>,
    error: Option<String>,
    /// When nodes last disagreed.
    last_dispute: Option<Instant>,
    /// When a node last spoke for another cluster, as far as anybody can tell.
    last_foreign: Option<Instant>,
    /// The servers ignore scopes, so what is answered is the whole cluster.
    unscoped: bool,
}

/// Where what is answered comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Origin {
    /// Nowhere yet: the addresses of the seeds are answered.
    Seeds(Option<NodeSet>),
    /// The cluster that the zone had before its seeds changed. Its nodes are answered as they stood, and not asked.
    FormerCluster(Arc<[Node]>),
    /// An earlier process. Its nodes are asked when every seed has failed.
    Remembered(NodeSet),
    /// This zone's cluster.
    Cluster,
}

/// What became of a report, or of a scope that was polled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The report is accepted.
    Accepted,
    /// These nodes, which the report leaves out, are asked first for their own lists.
    AskMissing(Vec<IpAddr>),
    /// The report is set aside; the text says why.
    SetAside(String),
    /// The report cannot be used here, whatever it lists; the text says why.
    Unusable(&'static str),
    /// The scope is empty, and no answer depends on that.
    ScopeEmpty,
    /// The scope that was polled is the one that is answered.
    ScopeActive,
}

impl MembershipView {
    /// The seeds' addresses, which are answered while nothing is learnt. `None` also where a scope is set: the
    /// datacenter of a seed is not known.
    pub fn seeds(&mut self, addresses: Option<NodeSet>) {
        if let Origin::Seeds(seeds) = &mut self.origin {
            *seeds = addresses;
        }
    }

    /// Who may be asked besides the seeds: the nodes of this cluster; those remembered only when `seeds_failed`.
    pub fn candidates(&self, seeds_failed: bool) -> Vec<IpAddr> {
        match &self.origin {
            Origin::Seeds(_) | Origin::FormerCluster(_) => Vec::new(),
            Origin::Remembered(nodes) if seeds_failed => nodes.as_slice().to_vec(),
            Origin::Remembered(_) => Vec::new(),
            // Foreign nodes are asked too: a recycled address may come back.
            Origin::Cluster => self.listed(),
        }
    }

    /// Where what is answered comes from.
    pub fn origin(&self) -> table::Origin {
        match self.origin {
            Origin::Seeds(_) => table::Origin::Seeds,
            Origin::FormerCluster(_) => table::Origin::FormerCluster,
            Origin::Remembered(_) => table::Origin::Remembered,
            Origin::Cluster => table::Origin::Cluster,
        }
    }

    /// The scope that is answered.
    pub fn active_scope(&self) -> usize {
        self.active_scope
    }

    /// Whether anybody is known of a scope.
    pub fn lists(&self, scope: usize) -> bool {
        self.ours(scope).is_some()
    }

    /// Whether a list of everybody is better than what there is: nothing, or such a list.
    pub fn has_nothing_better(&self) -> bool {
        self.unscoped || self.learnt().is_none()
    }

    /// Who sent the list that was last believed.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// When a list was last believed.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// What went wrong in the last tick.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The nodes that this cluster has reported, without foreign ones; none before its first report.
    pub fn learnt(&self) -> Option<NodeSet> {
        match self.origin {
            Origin::Cluster => self.ours(self.active_scope),
            _ => None,
        }
    }

    /// With whom the zone shared nodes when it last believed a list.
    pub fn overlaps(&self) -> &Overlaps {
        &self.overlaps
    }

    /// The nodes to probe: all that are believed to be this cluster's.
    pub fn to_probe(&self) -> Vec<IpAddr> {
        match self.origin {
            Origin::Cluster => self.listed(),
            _ => Vec::new(),
        }
    }

    /// Whether there are other nodes to probe or to confirm since this was last asked.
    pub fn probing_changed(&mut self) -> bool {
        std::mem::take(&mut self.probing_changed)
    }

    /// Refusals to confirm at once, each told once.
    pub fn take_confirmations(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.to_confirm)
    }

    /// Judges a report about a scope. `owned_by_other_zone` tells whether another live zone, disjoint from us until now, publishes a node.
    pub fn judge(
        &mut self,
        scope: usize,
        report: ListReport<'_>,
        now: Instant,
        owned_by_other_zone: impl Fn(IpAddr) -> bool,
    ) -> Decision {
        let ours = self.ours(scope);
        let everybody = NodeSet::new(self.listed().into_iter().filter(|node| !self.foreign.contains(node)));
        let measure = match &self.origin {
            Origin::Seeds(_) | Origin::FormerCluster(_) => Baseline::Unguarded,
            Origin::Remembered(nodes) => Baseline::Remembered(nodes),
            // A scope of which nothing is known has nothing to lose, but another zone's nodes are not for it either.
            // And nothing is known of it while there is only a list of everybody.
            Origin::Cluster if (ours.is_none() && self.lists.len() > 1) || (self.unscoped && !report.unscoped) => {
                Baseline::OtherScope(everybody.as_ref())
            }
            Origin::Cluster => Baseline::Learnt(ours.as_ref()),
        };
        match judge(report, measure, owned_by_other_zone) {
            Judgement::Accept => {
                self.foreign.remove(&report.sender);
                Decision::Accepted
            }
            Judgement::AskMissing(left_out) => {
                self.foreign.remove(&report.sender);
                Decision::AskMissing(left_out)
            }
            Judgement::Unrelated => {
                (self.last_dispute, self.last_foreign) = (Some(now), Some(now));
                Decision::SetAside("lists no other node that is known, and is no seed".into())
            }
            Judgement::Foreign => {
                self.mark_foreign(report.sender, now);
                Decision::SetAside("lists nodes of another zone: its address seems to have been recycled".into())
            }
        }
    }

    /// Compares a report with the replies of the nodes that it leaves out: each with its own list, if it sent one.
    pub fn settle(
        &mut self,
        report: ScopeReport<'_>,
        replies: &BTreeMap<IpAddr, Option<NodeSet>>,
        now: Instant,
        owned_by_other_zone: impl Fn(IpAddr) -> bool,
    ) -> Decision {
        let ScopeReport { scope, report } = report;
        let before = self.ours(scope);
        for (&witness, reply) in replies {
            let own = ListReport { sender: witness, from_seed: false, nodes: reply.as_ref(), unscoped: false };
            if reply.is_some()
                && judge(own, Baseline::Learnt(before.as_ref()), &owned_by_other_zone) == Judgement::Foreign
            {
                self.mark_foreign(witness, now);
            }
        }
        let ours = self.ours(scope);
        let mut contradicted = None;
        for (&witness, reply) in replies {
            let Some(reply) = reply.as_ref().filter(|_| !self.foreign.contains(&witness)) else { continue };
            if reply.contains(&witness) {
                self.last_dispute = Some(now);
            }
            if speaks_of_others(witness, reply, ours.as_ref()) {
                self.last_foreign = Some(now);
            }
            if outweighs(witness, reply, report.nodes, ours.as_ref()) {
                contradicted = Some(witness);
            }
        }
        match contradicted {
            Some(witness) => {
                Decision::SetAside(format!("leaves out {witness}, which is alive and knows as many nodes"))
            }
            None => Decision::Accepted,
        }
    }

    /// Accepts a report. `None` nodes: the scope is empty.
    pub fn accept(&mut self, scope: usize, sender: IpAddr, nodes: Option<NodeSet>, now: Instant) {
        if self.origin != Origin::Cluster {
            self.lists.fill(None);
            self.origin = Origin::Cluster;
            self.active_scope = scope;
        }
        self.lists[scope] = nodes;
        self.relist();
        // The first node that answers need not wait for a probe.
        self.health.verify(sender);
        self.source = Some(sender);
        self.last_success = Some(now);
        self.fresh = now;
        self.error = None;
        self.unscoped = false;
    }

    /// What is believed comes from servers that do not know scopes.
    pub fn without_scopes(&mut self) {
        self.unscoped = true;
    }

    /// Whether this scope takes over, or stays: it has a healthy node, and has had one for `rise` probes when it is
    /// better than the one that is answered. Only nodes that are `permitted` count.
    pub fn select_scope(&mut self, scope: usize, permitted: impl Fn(IpAddr) -> bool) -> bool {
        let rise = self.health.rise();
        let Some(list) = self.ours(scope) else { return false };
        let nodes = self.health.nodes();
        let healthy = nodes
            .iter()
            .filter(|node| node.state == NodeState::Up && list.contains(&node.address) && permitted(node.address));
        let proven = |node: &Node| self.health.successes_in_a_row(node.address) >= rise;
        let takes_over = self.ours(self.active_scope).is_some() && scope < self.active_scope;
        let selected = if takes_over { healthy.into_iter().any(proven) } else { healthy.count() > 0 };
        if selected {
            self.active_scope = scope;
            self.lists[scope + 1..].fill(None);
            self.relist();
        }
        selected
    }

    /// No scope has a healthy node: the last answer stays, or the first scope that has nodes.
    pub fn keep_scope(&mut self) {
        if self.ours(self.active_scope).is_none()
            && let Some(scope) = self.lists.iter().position(Option::is_some)
        {
            self.active_scope = scope;
        }
    }

    /// Tells with whom the zone shares the nodes that it has just believed.
    pub fn relate(&mut self, overlaps: Overlaps) {
        self.overlaps = overlaps;
    }

    /// A tick has brought nothing.
    pub fn fail(&mut self, why: String) {
        self.error = Some(why);
    }

    /// What a probe heard of a node: whether that changes its standing, and whether it should be probed again at once.
    pub fn hear(&mut self, node: IpAddr, heard: ProbeOutcome) -> Change {
        self.health.record(node, heard)
    }

    /// A poll was refused by a node: as good as a probe, and a probe is to confirm it.
    pub fn refused(&mut self, node: IpAddr) {
        if self.health.record(node, ProbeOutcome::Refused).confirm {
            self.to_confirm.insert(node);
            self.probing_changed = true;
        }
    }

    /// What is to be answered.
    pub fn knowledge(&self, now: Instant) -> Knowledge {
        let nodes: Arc<[Node]> = match &self.origin {
            Origin::Seeds(seeds) => return Knowledge::Waiting(seeds.clone()),
            Origin::FormerCluster(nodes) => nodes.clone(),
            Origin::Remembered(nodes) => nodes.as_slice().iter().map(|&address| unverified(address)).collect(),
            Origin::Cluster => {
                let list = self.ours(self.active_scope);
                let is_ours = |node: &&Node| list.as_ref().is_some_and(|list| list.contains(&node.address));
                self.health.nodes().iter().filter(is_ours).copied().collect()
            }
        };
        let expired = self.timing.max_stale.is_some_and(|max| now > self.fresh + max);
        Knowledge::Known(Known { nodes, state: self.state(now), owns_addresses: self.owns_addresses(now), expired })
    }

    /// When time alone will change what is answered, if it will.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        let moments = [
            Some(self.fresh + self.stale_after()),
            self.timing.max_stale.map(|max| self.fresh + max),
            self.last_dispute.map(|last_dispute| last_dispute + self.stale_after()),
            self.last_foreign.map(|last_foreign| last_foreign + self.stale_after()),
        ];
        moments.into_iter().flatten().filter(|moment| *moment >= now).min()
    }

    fn state(&self, now: Instant) -> ZoneState {
        let remembered = matches!(self.origin, Origin::Remembered(_));
        let disowned = self.disowns_a_listed_node();
        if !disowned && (remembered || now > self.fresh + self.stale_after()) {
            ZoneState::Stale
        } else if disowned || self.is_recent(self.last_dispute, now) {
            ZoneState::Contested
        } else if self.unscoped {
            ZoneState::Degraded
        } else {
            ZoneState::Live
        }
    }

    /// See [`Known::owns_addresses`].
    fn owns_addresses(&self, now: Instant) -> bool {
        let last_foreign = self.disowns_a_listed_node() || self.is_recent(self.last_foreign, now);
        self.origin == Origin::Cluster && self.is_recent(Some(self.fresh), now) && !last_foreign
    }

    fn disowns_a_listed_node(&self) -> bool {
        self.foreign.iter().any(|node| self.lists.iter().flatten().any(|list| list.contains(node)))
    }

    fn is_recent(&self, moment: Option<Instant>, now: Instant) -> bool {
        moment.is_some_and(|moment| now <= moment + self.stale_after())
    }

    /// How long a zone lives on its last success, and a dispute on its last word.
    fn stale_after(&self) -> Duration {
        (self.timing.refresh * STALE_AFTER_REFRESHES).max(STALE_AFTER_MIN)
    }

    /// The list of a scope without nodes that spoke for another cluster.
    fn ours(&self, scope: usize) -> Option<NodeSet> {
        let list = self.lists[scope].as_ref()?;
        if self.foreign.is_empty() {
            return Some(list.clone());
        }
        NodeSet::new(list.as_slice().iter().copied().filter(|node| !self.foreign.contains(node)))
    }

    /// A node speaks for another cluster: it is answered no more, not even as a seed or as the last one.
    fn mark_foreign(&mut self, node: IpAddr, now: Instant) {
        (self.last_dispute, self.last_foreign) = (Some(now), Some(now));
        self.foreign.insert(node);
        if let Origin::Remembered(nodes) = &self.origin {
            // From here on what is left counts as learnt, so that nothing unguarded can follow.
            self.lists.fill(None);
            self.lists[0] = Some(nodes.clone());
            self.origin = Origin::Cluster;
            self.relist();
        }
    }

    /// Every node on any list.
    fn listed(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> = self.lists.iter().flatten().flat_map(NodeSet::as_slice).copied().collect();
        all.into_iter().collect()
    }

    fn relist(&mut self) {
        let listed = self.listed();
        self.probing_changed = true;
        self.foreign.retain(|node| listed.contains(node));
        match NodeSet::new(listed) {
            Some(nodes) => self.health.list(&nodes),
            None => self.health.clear(),
        }
    }
}

#[cfg(test)]
impl MembershipView {
    /// Hashes what decides anything from now on; of moments only what has not yet run out. The moments of
    /// [`Overlaps`] mean something only beside `AddressOwnership`, which compares them.
    pub(super) fn hash_essence(&self, now: Instant, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let left = |since: Instant| (since + self.stale_after() + self.timing.refresh).saturating_duration_since(now);
        for list in &self.lists {
            list.as_ref().map(NodeSet::as_slice).hash(hasher);
        }
        match &self.origin {
            Origin::Seeds(seeds) => (0, seeds.as_ref().map(NodeSet::as_slice)).hash(hasher),
            Origin::FormerCluster(nodes) => (1, nodes.len()).hash(hasher),
            Origin::Remembered(nodes) => (2, nodes.as_slice()).hash(hasher),
            Origin::Cluster => 3.hash(hasher),
        }
        self.health.hash_essence(hasher);
        (self.active_scope, &self.foreign, &self.to_confirm, self.unscoped).hash(hasher);
        let left_of = |moment: Option<Instant>| moment.map_or(Duration::ZERO, left);
        (left(self.fresh), left_of(self.last_dispute), left_of(self.last_foreign)).hash(hasher);
    }
}

/// A node that is not verified yet.
fn unverified(address: IpAddr) -> Node {
    Node { address, state: NodeState::New, slow: false, ever_up: false }
}

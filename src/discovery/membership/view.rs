//! What a zone knows about its cluster, without a clock, a socket or a log: time is an argument.

mod answer;
mod belonging;
mod decision;
mod reasons;
mod reports;
mod shown;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use self::reasons::Dispute;
pub use self::{reasons::ZoneReason, start::Inheritance};
use super::{
    evidence::{SelfReport, slice},
    groups::{Contest, ForeignReason, Group, KnownId, Verdict},
    health::{HealthTable, ProbeOutcome},
};
use crate::{
    snapshot::ClusterNodes,
    table::{self, Node},
    types::{ClusterId, NodeSet, NodeState},
};

/// A zone is stale after so many refreshes without success, and not before [`STALE_AFTER_MIN`].
const STALE_AFTER_REFRESHES: u32 = 3;

/// A few seconds without success are ordinary when nodes restart, however often they are asked.
const STALE_AFTER_MIN: Duration = Duration::from_secs(5);

/// What decides when time changes an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// Between two polls.
    pub refresh: Duration,
    /// How long nodes are answered without any success; `None`: indefinitely.
    pub max_stale: Option<Duration>,
}

/// One zone's membership.
#[derive(Clone, Debug)]
pub struct MembershipView {
    timing: Timing,
    /// The addresses of the seeds, in the order of the file.
    seeds: Vec<IpAddr>,
    /// The seeds are others than those that the nodes were learnt from, and none has been seen to belong yet.
    seeds_edited: bool,
    /// How many lists there are: one for each scope, and one without scopes.
    lists: Vec<Option<NodeSet>>,
    /// The scope that is answered.
    active_scope: usize,
    origin: Origin,
    /// Nodes that were listed once, or that only other scopes list: the newest first. They are the last candidates.
    departed: VecDeque<IpAddr>,
    /// The reports in force: of each node that has answered since its last failure.
    reports: BTreeMap<IpAddr, SelfReport>,
    /// The ids that nodes have given since their last failures.
    ids: BTreeMap<IpAddr, ClusterId>,
    /// Whether nodes are asked for their ids.
    identifies: bool,
    /// When each last gave its id, or could not, since its last failure.
    identified: BTreeMap<IpAddr, Instant>,
    /// Nodes that have reported, and are still to say which cluster they are of.
    unidentified: BTreeSet<IpAddr>,
    /// Nodes to ask for their reports as soon as possible.
    awaited: BTreeSet<IpAddr>,
    /// When each was last asked for its report.
    asked: BTreeMap<IpAddr, Instant>,
    /// When each was last to be asked and was not, for want of something of ours.
    not_asked: BTreeMap<IpAddr, Instant>,
    /// The zone's group, as it was last determined.
    group: Group,
    verdicts: BTreeMap<IpAddr, Verdict>,
    /// Nodes that are taken for the zone's until there is evidence against it.
    trusted: BTreeSet<IpAddr>,
    /// Nodes that were trusted once: they are remembered when they leave, although they may have failed every probe.
    proven: BTreeSet<IpAddr>,
    /// Nodes that were answered when they came up, and whose reports are not decided yet: they are answered until then.
    pending: BTreeSet<IpAddr>,
    /// Nodes that belong, and have reported without a failure since.
    standing: BTreeSet<IpAddr>,
    /// Nodes of other clusters.
    foreign: BTreeMap<IpAddr, ForeignReason>,
    /// Those of them that were the zone's when they were found foreign.
    former: BTreeSet<IpAddr>,
    id: KnownId,
    contest: Option<Contest>,
    /// Something that groups are made from has changed since they were last determined.
    evidence_changed: bool,
    /// Nodes to ask for their reports have been added since [`MembershipView::reports_changed`] was last asked.
    reports_changed: bool,
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
    /// Which nodes that was.
    dispute: Option<Dispute>,
    /// The servers ignore scopes, so what is answered is the whole cluster.
    unscoped: bool,
    notices: Vec<Notice>,
}

/// Where what is answered comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Origin {
    /// Nowhere yet: these addresses of the seeds are answered.
    Seeds(Option<NodeSet>),
    /// The cluster that the zone had before the name was moved. Its nodes are answered as they stood, and not asked.
    FormerCluster(Arc<[Node]>),
    /// An earlier process, and no list has been accepted since.
    Remembered,
    /// This zone's cluster.
    Cluster,
}

/// What became of a report, or of a scope that was polled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The report is accepted.
    Accepted,
    /// It is decided when these have been asked for their own reports.
    AskFirst(AskFirst),
    /// The report is set aside; the text says why.
    SetAside(String),
    /// The report cannot be used here, whatever it lists; the text says why.
    Unusable(&'static str),
    /// The scope is empty, and no answer depends on that.
    ScopeEmpty,
    /// The scope that was polled is the one that is answered.
    ScopeActive,
}

/// Nodes to ask for their own reports before a report is decided.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AskFirst {
    /// Each of these.
    pub all: BTreeSet<IpAddr>,
    /// Some of these: nodes that the report leaves out.
    pub some: BTreeSet<IpAddr>,
}

/// What is worth a line in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A node is another cluster's.
    Foreign(IpAddr, ForeignReason),
    /// A foreign node is the zone's again.
    Returned(IpAddr),
    /// The zone's group is not known, or is doubtful.
    Contested(Contest),
    /// That is over.
    Agreed,
    /// The name is moved to the cluster of the new seeds.
    Moved,
}

impl MembershipView {
    /// The addresses of the seeds, in the order of the file, and those that are answered while nothing is learnt: none
    /// where a scope is set, because the datacenter of a seed is not known.
    pub fn seeds(&mut self, addresses: &[IpAddr], fail_open: Option<NodeSet>) {
        if let Origin::Seeds(seeds) = &mut self.origin {
            *seeds = fail_open;
        }
        if self.seeds == addresses {
            return;
        }
        // A cluster that was built anew behind the same host names; while a node stands, its cluster has not gone.
        let is_moved = !self.seeds.is_empty() && self.standing.is_empty() && self.origin == Origin::Cluster;
        self.seeds_edited |= is_moved;
        let before = std::mem::replace(&mut self.seeds, addresses.to_vec());
        for seed in addresses.iter().filter(|seed| !before.contains(seed)) {
            self.ask(*seed);
        }
        self.evidence_changed = true;
        self.forget_untracked();
    }

    /// Whether groups are to be determined anew, or other nodes are to be asked for their reports.
    pub fn has_changes(&self) -> bool {
        self.evidence_changed || self.reports_changed
    }

    /// What outlives the process, once the cluster has reported.
    pub fn remembered(&self) -> Option<ClusterNodes> {
        let foreign = NodeSet::new(self.foreign.keys().copied());
        Some(ClusterNodes { nodes: self.learnt()?, others: self.others(), foreign, id: self.cluster_id() })
    }

    /// Nodes that may be asked besides the seeds; those that have left, and those of other scopes, only when
    /// `others_failed`.
    pub fn candidates(&self, others_failed: bool) -> Vec<IpAddr> {
        let mut nodes = match &self.origin {
            Origin::Seeds(_) | Origin::FormerCluster(_) => return Vec::new(),
            Origin::Remembered | Origin::Cluster => self.listed(),
        };
        if others_failed {
            let listed: BTreeSet<IpAddr> = nodes.iter().copied().collect();
            nodes.extend(self.nodes().into_iter().filter(|node| !listed.contains(node)));
        }
        nodes.retain(|node| !self.foreign.contains_key(node));
        nodes
    }

    /// Where what is answered comes from.
    pub fn origin(&self) -> table::Origin {
        match self.origin {
            Origin::Seeds(_) => table::Origin::Seeds,
            Origin::FormerCluster(_) => table::Origin::FormerCluster,
            Origin::Remembered => table::Origin::Remembered,
            Origin::Cluster => table::Origin::Cluster,
        }
    }

    /// The scope that is answered.
    pub fn active_scope(&self) -> usize {
        self.active_scope
    }

    /// Whether any node is known of a scope.
    pub fn lists(&self, scope: usize) -> bool {
        self.ours(scope).is_some()
    }

    /// Whether a list of the whole cluster is better than what there is: nothing, or such a list.
    pub fn has_nothing_better(&self) -> bool {
        self.unscoped || self.learnt().is_none()
    }

    /// The node that sent the list that was last accepted.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// When a list was last accepted.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// What went wrong in the last poll.
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

    /// The nodes to probe: all that are listed, foreign ones too, because such an address may come back.
    pub fn to_probe(&self) -> Vec<IpAddr> {
        match self.origin {
            Origin::Cluster | Origin::Remembered => self.listed(),
            _ => Vec::new(),
        }
    }

    /// Whether other nodes may be due to report since this was last asked.
    pub fn reports_changed(&mut self) -> bool {
        std::mem::take(&mut self.reports_changed)
    }

    /// Whether there are other nodes to probe or to confirm since this was last asked.
    pub fn probing_changed(&mut self) -> bool {
        std::mem::take(&mut self.probing_changed)
    }

    /// Refusals to confirm at once, each returned once.
    pub fn take_confirmations(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.to_confirm)
    }

    /// What is worth a line in the log, each returned once.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Accepts a report. `None` nodes: the scope is empty.
    pub fn accept(&mut self, scope: usize, sender: IpAddr, nodes: Option<NodeSet>, now: Instant) {
        let before = self.listed();
        if self.origin != Origin::Cluster {
            self.lists.fill(None);
            self.origin = Origin::Cluster;
            self.active_scope = scope;
        }
        self.lists[scope] = nodes;
        self.relist(&before);
        // The first node that answers need not wait for a probe.
        let is_answerable = |node: &IpAddr| self.trusted.contains(node);
        self.health.verify(sender, is_answerable);
        self.source = Some(sender);
        self.last_success = Some(now);
        self.fresh = now;
        self.error = None;
        self.unscoped = false;
    }

    /// What was accepted comes from servers that do not know scopes.
    pub fn without_scopes(&mut self) {
        self.unscoped = true;
    }

    /// Whether this scope takes over, or stays: it has a healthy node, and has had one for `rise` probes when it is
    /// better than the one that is answered. Only nodes that are `available` count.
    pub fn select_scope(&mut self, scope: usize, available: impl Fn(IpAddr) -> bool) -> bool {
        let rise = self.health.rise();
        let Some(list) = self.ours(scope) else { return false };
        let nodes = self.table_nodes();
        let healthy = nodes
            .iter()
            .filter(|node| node.state == NodeState::Up && list.contains(&node.address) && available(node.address));
        let proven = |node: &Node| self.health.successes_in_a_row(node.address) >= rise;
        let takes_over = self.ours(self.active_scope).is_some() && scope < self.active_scope;
        let selected = if takes_over { healthy.into_iter().any(proven) } else { healthy.count() > 0 };
        if selected {
            let before = self.listed();
            self.active_scope = scope;
            self.lists[scope + 1..].fill(None);
            self.relist(&before);
        }
        selected
    }

    /// Whether a better scope than the active one has nodes that are not down: probes decide about it.
    pub fn better_scope_may_take_over(&self) -> bool {
        let better = self.lists[..self.active_scope].iter().flatten().flat_map(NodeSet::as_slice);
        better.copied().any(|node| self.health.state(node).is_some_and(|state| state != NodeState::Down))
    }

    /// No scope has a healthy node: the last answer stays, or the first scope that has nodes.
    pub fn keep_scope(&mut self) {
        if self.ours(self.active_scope).is_none()
            && let Some(scope) = self.lists.iter().position(Option::is_some)
        {
            self.active_scope = scope;
        }
    }

    /// A poll has brought nothing.
    pub fn fail(&mut self, why: String) {
        // Without a node that stands, the group may depend on what other zones answer, and no event of this zone tells.
        self.evidence_changed |= self.standing.is_empty() && !self.reports.is_empty();
        self.error = Some(why);
    }

    /// A poll was refused by a node: as good as a probe, and a probe is to confirm it.
    pub fn refused(&mut self, node: IpAddr, now: Instant) {
        if self.probed(node, ProbeOutcome::Refused, now).confirm {
            self.to_confirm.insert(node);
            self.probing_changed = true;
        }
    }

    /// The list of a scope without foreign nodes.
    fn ours(&self, scope: usize) -> Option<NodeSet> {
        let list = self.lists[scope].as_ref()?;
        if self.foreign.is_empty() {
            return Some(list.clone());
        }
        NodeSet::new(list.as_slice().iter().copied().filter(|node| !self.foreign.contains_key(node)))
    }

    /// Every node on any list.
    fn listed(&self) -> Vec<IpAddr> {
        let all: BTreeSet<IpAddr> = self.lists.iter().flatten().flat_map(NodeSet::as_slice).copied().collect();
        all.into_iter().collect()
    }

    /// Takes over lists that have changed; `before` is what was listed.
    fn relist(&mut self, before: &[IpAddr]) {
        let listed = self.listed();
        if listed == before {
            return;
        }
        self.probing_changed = true;
        self.evidence_changed = true;
        for node in before.iter().filter(|node| !listed.contains(node)) {
            self.depart(*node);
        }
        self.departed.retain(|node| listed.binary_search(node).is_err());
        for node in listed.iter().filter(|node| before.binary_search(node).is_err()) {
            if !self.reports.contains_key(node) || self.foreign.contains_key(node) {
                self.ask(*node);
            }
        }
        match NodeSet::new(listed) {
            Some(nodes) => self.health.list(&nodes),
            None => self.health.clear(),
        }
        self.forget_untracked();
    }
}

#[cfg(test)]
impl MembershipView {
    /// Nodes that belong, and have reported without a failure since.
    pub(super) fn standing(&self) -> impl Iterator<Item = IpAddr> {
        self.standing.iter().copied()
    }

    /// For the eyes of a person who looks for a fault.
    pub(super) fn summary(&self) -> String {
        let reports: Vec<_> =
            self.reports.iter().map(|(node, report)| format!("{node}>{:?} {:?}", report.named(), report.id)).collect();
        let text = format!(
            "lists {:?} trusted {:?} standing {:?} foreign {:?} departed {:?} verdicts {:?} reports {reports:?} awaited \
             {:?} unidentified {:?} id {:?}",
            self.lists,
            self.trusted,
            self.standing,
            self.foreign,
            self.departed,
            self.verdicts,
            self.awaited,
            self.unidentified,
            self.id
        );
        text.replace("10.0.0.", "")
    }

    /// The former nodes are answered until the new seeds have reported.
    pub(super) fn is_moving(&self) -> bool {
        self.seeds_edited || matches!(self.origin, Origin::FormerCluster(_))
    }

    /// Nodes that are taken for the zone's.
    pub(super) fn trusted(&self) -> impl Iterator<Item = IpAddr> {
        self.trusted.iter().copied()
    }

    /// Foreign nodes that were the zone's.
    pub(super) fn former(&self) -> &BTreeSet<IpAddr> {
        &self.former
    }

    /// All that may speak for the zone when no node stands: its nodes, and these seeds of the file, which it may not have
    /// been given yet.
    pub(super) fn voices(&self, seeds: impl Iterator<Item = IpAddr>) -> BTreeSet<IpAddr> {
        let seeds = seeds.filter(|seed| !self.foreign.contains_key(seed));
        self.nodes().into_iter().chain(seeds).collect()
    }

    /// Hashes what decides anything from now on; of moments only what has not yet run out.
    pub(super) fn hash_essence(&self, now: Instant, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let left = |since: Instant| (since + self.stale_after() + self.timing.refresh).saturating_duration_since(now);
        for list in &self.lists {
            list.as_ref().map(NodeSet::as_slice).hash(hasher);
        }
        match &self.origin {
            Origin::Seeds(seeds) => (0, seeds.as_ref().map(NodeSet::as_slice)).hash(hasher),
            Origin::FormerCluster(nodes) => (1, nodes.len()).hash(hasher),
            Origin::Remembered => 2.hash(hasher),
            Origin::Cluster => 3.hash(hasher),
        }
        self.health.hash_essence(hasher);
        (&self.seeds, self.seeds_edited, self.active_scope, &self.departed, self.unscoped).hash(hasher);
        (&self.awaited, &self.unidentified, &self.trusted, &self.proven, &self.pending, &self.standing).hash(hasher);
        (self.id, &self.to_confirm, &self.former).hash(hasher);
        self.foreign.keys().for_each(|node| node.hash(hasher));
        for (node, report) in &self.reports {
            (node, report.named(), report.id).hash(hasher);
        }
        let left_of = |moment: Option<Instant>| moment.map_or(Duration::ZERO, left);
        (left(self.fresh), left_of(self.last_dispute)).hash(hasher);
    }
}

//! Which nodes are of the zone's cluster: pure, from what each node reports of itself.
//!
//! Two nodes are of one cluster when each lists the other. A one-sided listing is a rumour: gossip keeps it for 20 s
//! after a node has died, and the address may be another cluster's by then. Nodes that are linked by mutual listing are
//! a group; [`assess`] finds the group that is the zone's, and what follows for every node that has reported.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use super::evidence::SelfReport;
use crate::types::ClusterId;

/// What is known of the id of the zone's cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KnownId {
    /// Nothing.
    Unknown,
    /// Nodes of the zone's group gave it.
    Learned(ClusterId),
    /// The file says it: it is never outvoted.
    Pinned(ClusterId),
}

impl KnownId {
    /// The id, if one is known.
    pub fn id(self) -> Option<ClusterId> {
        match self {
            Self::Unknown => None,
            Self::Learned(id) | Self::Pinned(id) => Some(id),
        }
    }
}

/// What groups are made from.
#[derive(Clone, Copy)]
pub struct Evidence<'e> {
    /// The reports in force: of each node that has answered since its last failure.
    pub reports: &'e BTreeMap<IpAddr, SelfReport>,
    /// The zone's nodes: those listed or remembered, without foreign ones. None before anything is known.
    pub nodes: &'e BTreeSet<IpAddr>,
    /// Those of them that have not left.
    pub current: &'e BTreeSet<IpAddr>,
    /// The addresses of the seeds, in the order of the file.
    pub seeds: &'e [IpAddr],
    /// Nodes that belong, and have reported without a failure since.
    pub standing: &'e BTreeSet<IpAddr>,
    /// Nodes that were found to be another cluster's.
    pub foreign: &'e BTreeMap<IpAddr, ForeignReason>,
    /// Those of them that were the zone's before: nodes that have not noticed list them still.
    pub former: &'e BTreeSet<IpAddr>,
    /// Nodes whose reports are being asked for.
    pub awaited: &'e BTreeSet<IpAddr>,
    /// Nodes that have reported, and are still to say which cluster they are of.
    pub unidentified: &'e BTreeSet<IpAddr>,
    /// The cluster's id.
    pub id: KnownId,
    /// Whether a zone that is not known to be of the same cluster answers an address.
    pub answered_elsewhere: &'e dyn Fn(IpAddr) -> bool,
}

/// Nodes that list each other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Group {
    /// They report, and list themselves.
    pub members: BTreeSet<IpAddr>,
    /// They list the group but not themselves: seeds outside the scope, load balancers.
    pub witnesses: BTreeSet<IpAddr>,
    /// All that the members list.
    pub named: BTreeSet<IpAddr>,
}

/// What follows for a node that has reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is of the zone's cluster.
    Belongs,
    /// It is of the zone's cluster, and has lost sight of all other nodes: its own list is no evidence about them.
    Isolated,
    /// It is no node of the zone, but its list is as good as one.
    Witness,
    /// It is new, or has returned, and no node that stands lists it back yet.
    Waits,
    /// It has not named its cluster, and the file demands that.
    Unnamed,
    /// It has lost sight of the zone's group, but names no other node: whether it leaves is decided by who lists it.
    Split,
    /// What it says is compared with reports that are still awaited.
    Undecided,
    /// It is of another cluster.
    Foreign(ForeignReason),
}

/// Why a node is taken for another cluster's.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ForeignReason {
    /// It lists this address, which is none of the zone's, and it and the zone's group do not list each other.
    Names(IpAddr),
    /// It gives another id than the zone's cluster, and no node of the zone's group lists it back.
    Id(ClusterId),
    /// It gives the id of the zone's cluster, lists this node, and neither group lists the other.
    Datacenter(IpAddr),
    /// An earlier poller or process found it so.
    Remembered,
}

impl fmt::Display for ForeignReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(node) => write!(f, "it lists {node}, and the zone's nodes do not list it back"),
            Self::Datacenter(node) => write!(
                f,
                "it names the zone's cluster and lists {node}, and the zone's nodes do not list it back; set scope, or it is \
                 of a clone of the cluster"
            ),
            Self::Id(id) => write!(f, "it names the cluster {id}"),
            Self::Remembered => {
                f.write_str("it was another cluster's before the start, and no node of the zone lists it")
            }
        }
    }
}

/// Why the zone's group is not known, or is doubtful.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contest {
    /// The seeds are of several clusters.
    SeedsDisagree,
    /// No group is eligible.
    NoneEligible,
}

/// What the reports amount to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Assessment {
    /// The zone's group; `None`: nothing changes.
    pub group: Option<Group>,
    /// What follows for each node that has reported; nothing while there is no group, except for other ids.
    pub verdicts: BTreeMap<IpAddr, Verdict>,
    /// What is doubtful.
    pub contest: Option<Contest>,
}

/// Finds the zone's group, and what follows for each node.
pub fn assess(evidence: &Evidence<'_>) -> Assessment {
    let seeds_are_nodes = evidence.nodes.is_empty();
    let seeds: BTreeSet<IpAddr> =
        evidence.seeds.iter().copied().filter(|seed| !evidence.foreign.contains_key(seed)).collect();
    let evidence = &Evidence { nodes: if seeds_are_nodes { &seeds } else { evidence.nodes }, ..*evidence };
    let mut verdicts = evidence.excluded_by_id();
    let groups = groups(evidence, &verdicts);
    let eligible = if seeds_are_nodes { evidence.with_seeds(&groups) } else { evidence.eligible(&groups) };
    let best = eligible.iter().copied().max_by_key(|group| evidence.rank(group));
    let contest = match best {
        Some(_) if seeds_are_nodes && eligible.len() > 1 => Some(Contest::SeedsDisagree),
        None if groups.iter().any(|group| evidence.is_unexplained(group)) => Some(Contest::NoneEligible),
        _ => None,
    };
    let Some(best) = best.filter(|best| evidence.is_decided(best)) else {
        return Assessment { group: None, verdicts, contest: contest.filter(|_| evidence.awaits_no_node()) };
    };
    for group in &groups {
        for &node in group.members.iter().chain(&group.witnesses) {
            verdicts.insert(node, evidence.verdict(node, group, best));
        }
    }
    Assessment { group: Some(best.clone()), verdicts, contest }
}

impl Evidence<'_> {
    /// Nodes that give another id than the file demands.
    fn excluded_by_id(&self) -> BTreeMap<IpAddr, Verdict> {
        let KnownId::Pinned(pinned) = self.id else { return BTreeMap::new() };
        let others = self.reports.iter().filter_map(|(&node, report)| {
            let id = report.id.filter(|id| *id != pinned)?;
            Some((node, Verdict::Foreign(ForeignReason::Id(id))))
        });
        others.collect()
    }

    /// Before anything is known, every group that has a seed is as good as the others.
    fn with_seeds<'g>(&self, groups: &'g [Group]) -> Vec<&'g Group> {
        groups.iter().filter(|group| self.first_seed(group).is_some()).collect()
    }

    /// The groups that may be the zone's.
    fn eligible<'g>(&self, groups: &'g [Group]) -> Vec<&'g Group> {
        // While only lists without scopes are known, one with scopes is better, although none of its nodes stands.
        let scoped = |group: &&Group| !self.is_unscoped(group) && self.first_seed(group).is_some();
        if groups.iter().any(|group| self.is_unscoped(group) && self.standing(group) > 0)
            && !groups.iter().any(|group| !self.is_unscoped(group) && self.standing(group) > 0)
            && groups.iter().any(|group| scoped(&group))
        {
            return groups.iter().filter(scoped).collect();
        }
        let strong: Vec<_> = groups.iter().filter(|group| self.has_id(group) || self.standing(group) > 0).collect();
        if !strong.is_empty() {
            return strong;
        }
        groups.iter().filter(|group| self.is_plausible(group)).collect()
    }

    /// Whether a group without a standing node and without the zone's id may be the zone's: its nodes were off, or its
    /// cluster was built anew.
    fn is_plausible(&self, group: &Group) -> bool {
        let held = self.held(group);
        if self.has_other_id(group) && held * 2 <= self.nodes.len() {
            return false;
        }
        let is_most = held > 0 && held >= self.strangers(group).count();
        let is_answered_elsewhere = || self.strangers(group).any(|stranger| (self.answered_elsewhere)(stranger));
        is_most || (self.first_seed(group).is_some() && !is_answered_elsewhere())
    }

    /// The order of eligible groups; the largest is the zone's.
    fn rank(&self, group: &Group) -> impl Ord + use<> {
        let names_elsewhere = group.named.iter().any(|&node| (self.answered_elsewhere)(node));
        (
            self.has_id(group),
            !self.is_unscoped(group),
            self.standing(group),
            // Nodes that have left count less: their addresses are the first to be given away.
            group.members.iter().filter(|node| self.current.contains(node)).count(),
            self.held(group),
            group.named.iter().filter(|node| self.nodes.contains(node)).count(),
            Reverse(self.strangers(group).count()),
            !names_elsewhere,
            Reverse(self.first_seed(group).unwrap_or(usize::MAX)),
            Reverse(group.members.first().copied()),
        )
    }

    /// A group with an id or a standing node is chosen at once, as is one with most of the zone's nodes. Otherwise the
    /// reports that are still awaited may show a better one.
    fn is_decided(&self, best: &Group) -> bool {
        if best.members.is_empty() && best.named.iter().any(|node| self.awaited.contains(node)) {
            return false;
        }
        let is_strong = self.has_id(best) || self.standing(best) > 0;
        if self.has_other_id(best) {
            // A node that gives the zone's id may be among those that have not said yet.
            return is_strong || (self.awaits_no_node() && self.unidentified.is_empty());
        }
        is_strong || self.held(best) * 2 > self.nodes.len() || self.awaits_no_node()
    }

    fn awaits_no_node(&self) -> bool {
        !self.awaited.iter().any(|node| self.nodes.contains(node) || self.seeds.contains(node))
    }

    fn ids(&self, group: &Group) -> impl Iterator<Item = ClusterId> {
        group.members.iter().filter_map(|node| self.reports.get(node)?.id)
    }

    fn has_id(&self, group: &Group) -> bool {
        self.id.id().is_some_and(|known| self.ids(group).any(|id| id == known))
    }

    /// Whether a group gives ids, and none is the zone's.
    fn has_other_id(&self, group: &Group) -> bool {
        self.id.id().is_some() && !self.has_id(group) && self.ids(group).next().is_some()
    }

    /// Whether all that a group's members say was said by servers that ignore scopes.
    fn is_unscoped(&self, group: &Group) -> bool {
        group.members.iter().all(|node| self.reports.get(node).is_some_and(|report| report.unscoped))
            && !group.members.is_empty()
    }

    fn standing(&self, group: &Group) -> usize {
        group.members.iter().filter(|node| self.standing.contains(node)).count()
    }

    fn held(&self, group: &Group) -> usize {
        let all = group.members.iter().chain(&group.witnesses);
        all.filter(|node| self.nodes.contains(node)).count()
    }

    /// What a group names that is none of the zone's. A node that was the zone's and is foreign now is listed by those that
    /// have not noticed yet.
    fn strangers(&self, group: &Group) -> impl Iterator<Item = IpAddr> {
        let is_known = |node: &IpAddr| self.nodes.contains(node) || self.foreign.contains_key(node);
        group.named.iter().copied().filter(move |node| !is_known(node))
    }

    /// Where the group's first seed that is not foreign stands in the file.
    fn first_seed(&self, group: &Group) -> Option<usize> {
        let is_of = |seed: &IpAddr| group.members.contains(seed) || group.witnesses.contains(seed);
        self.seeds.iter().position(|seed| is_of(seed) && !self.foreign.contains_key(seed))
    }

    /// Whether a group may be the zone's as far as people know: it is not all foreign, and it is no node that merely
    /// waits to be listed.
    fn is_unexplained(&self, group: &Group) -> bool {
        group.members.iter().any(|node| !self.foreign.contains_key(node) && self.nodes.contains(node))
    }

    fn verdict(&self, node: IpAddr, group: &Group, best: &Group) -> Verdict {
        let Some(report) = self.reports.get(&node) else { return Verdict::Undecided };
        let lists_only_itself = report.named() == [node];
        if std::ptr::eq(group, best) {
            if !report.names(&node) {
                return Verdict::Witness;
            }
            let is_unnamed = matches!(self.id, KnownId::Pinned(_)) && report.id.is_none();
            return if is_unnamed { Verdict::Unnamed } else { Verdict::Belongs };
        }
        if self.awaits_peer_of(node, report) || (self.standing.contains(&node) && !self.is_confirmed(best, report)) {
            return Verdict::Undecided;
        }
        if let Some(id) = self.ids(group).next().filter(|_| self.has_other_id(group)) {
            return Verdict::Foreign(ForeignReason::Id(id));
        }
        if lists_only_itself {
            return if self.standing.contains(&node) { Verdict::Isolated } else { Verdict::Waits };
        }
        // An address that the zone's group lists too is of a node that has just joined, or of one that has just died.
        let is_stranger =
            |named: &IpAddr| ![self.nodes, self.former, &best.named].iter().any(|known| known.contains(named));
        match group.named.iter().copied().find(is_stranger) {
            Some(stranger) if self.has_id(group) => Verdict::Foreign(ForeignReason::Datacenter(stranger)),
            Some(stranger) => Verdict::Foreign(ForeignReason::Names(stranger)),
            None => Verdict::Split,
        }
    }

    /// Whether a node of the zone's group has reported since a node suddenly lists others: older reports may be those of
    /// nodes that have died since, and that it rightly lists no more.
    fn is_confirmed(&self, best: &Group, report: &SelfReport) -> bool {
        best.members.iter().filter_map(|node| self.reports.get(node)).any(|other| other.at >= report.changed)
    }

    /// Whether a node of the zone that this one lists has not said since whether it lists this one.
    fn awaits_peer_of(&self, node: IpAddr, report: &SelfReport) -> bool {
        let is_peer = |peer: &&IpAddr| **peer != node && self.nodes.contains(peer) && self.awaited.contains(peer);
        report.named().iter().any(|peer| is_peer(&peer))
    }
}

/// Nodes with one and the same list. Most clusters have one such class.
struct Class<'c> {
    members: Vec<IpAddr>,
    witnesses: Vec<IpAddr>,
    list: &'c [IpAddr],
}

/// All groups, from mutual listings. Nodes with a verdict already are left out.
fn groups(evidence: &Evidence<'_>, without: &BTreeMap<IpAddr, Verdict>) -> Vec<Group> {
    let classes = classes(evidence.reports, without);
    // Each class begins as a group of its own; linked ones get the smaller number of both, until no link is left.
    let mut group_of: Vec<usize> = (0..classes.len()).collect();
    for second in 0..classes.len() {
        for first in 0..second {
            if group_of[first] != group_of[second] && linked(&classes[first], &classes[second], evidence.reports) {
                let (keep, drop) = (group_of[first].min(group_of[second]), group_of[first].max(group_of[second]));
                group_of.iter_mut().filter(|group| **group == drop).for_each(|group| *group = keep);
            }
        }
    }
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for (class, &number) in classes.iter().zip(&group_of).filter(|(class, _)| !class.members.is_empty()) {
        let group = groups.entry(number).or_default();
        group.members.extend(&class.members);
        group.named.extend(class.list);
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    for class in classes.iter().filter(|class| !class.witnesses.is_empty() && !class.list.is_empty()) {
        let listed = |group: &Group| class.list.iter().filter(|node| group.members.contains(node)).count();
        let most = groups.iter_mut().map(|group| (listed(group), group)).filter(|(count, _)| *count > 0);
        if let Some((_, group)) = most.max_by_key(|(count, _)| *count) {
            group.witnesses.extend(&class.witnesses);
            continue;
        }
        // None of the nodes that they list has reported.
        let (witnesses, named) = (class.witnesses.iter().copied().collect(), class.list.iter().copied().collect());
        groups.push(Group { members: BTreeSet::new(), witnesses, named });
    }
    groups
}

fn classes<'e>(reports: &'e BTreeMap<IpAddr, SelfReport>, without: &BTreeMap<IpAddr, Verdict>) -> Vec<Class<'e>> {
    let mut classes: BTreeMap<&[IpAddr], Class<'_>> = BTreeMap::new();
    for (&node, report) in reports.iter().filter(|(node, _)| !without.contains_key(node)) {
        let list = report.named();
        let class = classes.entry(list).or_insert(Class { members: Vec::new(), witnesses: Vec::new(), list });
        let members = if report.names(&node) { &mut class.members } else { &mut class.witnesses };
        members.push(node);
    }
    classes.into_values().collect()
}

/// Whether a node of one class and a node of the other list each other. Where a list has changed in a suspicious way, older
/// reports of those that it names do not count.
fn linked(one: &Class<'_>, other: &Class<'_>, reports: &BTreeMap<IpAddr, SelfReport>) -> bool {
    let of = |class: &Class<'_>, list: &[IpAddr]| -> Vec<IpAddr> {
        class.members.iter().copied().filter(|node| list.binary_search(node).is_ok()).collect()
    };
    let (ours, theirs) = (of(one, other.list), of(other, one.list));
    ours.iter().any(|a| {
        theirs.iter().any(|b| match (reports.get(a), reports.get(b)) {
            (Some(a), Some(b)) => a.at >= b.changed && b.at >= a.changed,
            _ => false,
        })
    })
}

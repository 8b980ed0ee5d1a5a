//! The reports of nodes: what is in force, and which nodes are asked when.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault},
    net::IpAddr,
    time::{Duration, Instant},
};

use rustc_hash::FxHasher;

use super::{
    super::{
        evidence::{ScopeReport, SelfReport},
        groups::Verdict,
        health::{Change, ProbeOutcome},
    },
    MembershipView, Origin,
};
use crate::types::{ClusterId, NodeSet, NodeState};

/// Nodes that have left and are remembered. They are the last candidates, and cost a request each 30 s; a datacenter
/// that stands by for another one has fewer.
const DEPARTED_MAX: usize = 256;

/// The age up to which another zone's list serves as a report: more than what sets the times apart at which zones ask, and
/// little beside the time for which a report is good.
const SHARED_AGE_MAX: Duration = Duration::from_secs(8);

/// Reports that are asked for at once on account of one poll.
pub(super) const ASKED_AT_ONCE_MAX: usize = 8;

/// Which nodes are to be asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DueRequests {
    /// These, now.
    pub ask: Vec<IpAddr>,
    /// When there may be others.
    pub next: Option<Instant>,
}

impl MembershipView {
    /// The zone's nodes: those listed or remembered, without foreign ones.
    pub(super) fn nodes(&self) -> BTreeSet<IpAddr> {
        let mut nodes = self.current();
        if !self.nothing_known() {
            nodes.extend(self.departed.iter().filter(|node| !self.foreign.contains_key(node)));
        }
        nodes
    }

    /// The zone's nodes that have not left: those listed, and those that its group names in other scopes.
    pub(super) fn current(&self) -> BTreeSet<IpAddr> {
        if self.nothing_known() {
            return BTreeSet::new();
        }
        let mut nodes: BTreeSet<IpAddr> = self.listed().into_iter().collect();
        nodes.extend(&self.group.members);
        if self.lists.len() > 1 {
            // Nodes of the other scopes are the zone's too.
            nodes.extend(&self.group.named);
        }
        nodes.retain(|node| !self.foreign.contains_key(node));
        nodes
    }

    /// Nothing is known of the zone's cluster but its seeds.
    fn nothing_known(&self) -> bool {
        matches!(self.origin, Origin::Seeds(_) | Origin::FormerCluster(_))
    }

    /// The zone's nodes that are not answered: of other scopes, or gone. Kept beside the answered ones.
    pub fn others(&self) -> Option<NodeSet> {
        let learnt = self.learnt();
        let others = self.nodes().into_iter();
        NodeSet::new(others.filter(|node| learnt.as_ref().is_none_or(|learnt| !learnt.contains(node))))
    }

    /// Since when a reply that another zone has got serves as a node's own: since its last report, and not for long. A node
    /// that is new or has failed may have been replaced by another one a moment ago, so only a reply that is still to come
    /// serves then.
    pub fn shared_after(&self, node: IpAddr, now: Instant) -> Instant {
        let in_force = self.reports.get(&node).filter(|_| !self.awaited.contains(&node));
        in_force.map_or(now, |report| now.checked_sub(SHARED_AGE_MAX).map_or(report.at, |age| age.max(report.at)))
    }

    /// Takes over a poll's list as the sender's report, if the zone has one scope. With several, a list that is not the one
    /// that was reported calls for another report.
    pub fn record_poll(&mut self, about: ScopeReport<'_>, now: Instant) {
        let ScopeReport { scope, report } = about;
        let list = report.nodes;
        match self.reports.get(&report.sender) {
            _ if self.lists.len() == 1 => {
                let whole = SelfReport::new(vec![list.cloned()], now);
                self.record(report.sender, whole.ignoring_scopes(report.unscoped), now);
            }
            Some(earlier) if earlier.in_scope(scope) == list => {}
            // A part of a report says little: the whole is asked for.
            _ => self.ask(report.sender),
        }
    }

    /// Takes over a node's report about every scope.
    pub fn record_report(&mut self, node: IpAddr, scopes: Vec<Option<NodeSet>>, unscoped: bool, now: Instant) {
        self.record(node, SelfReport::new(scopes, now).ignoring_scopes(unscoped), now);
    }

    fn record(&mut self, node: IpAddr, report: SelfReport, now: Instant) {
        self.asked.insert(node, now);
        self.not_asked.remove(&node);
        let was_awaited = self.awaited.remove(&node);
        let report = report.of_cluster(self.ids.get(&node).copied());
        let report = match self.reports.get(&node) {
            None => report,
            Some(earlier) => {
                let nodes = self.nodes();
                // What another cluster's node begins to list may have been given to that cluster too.
                let is_foreign = self.foreign.contains_key(&node);
                report.replaces(earlier, |named| is_foreign || !nodes.contains(named))
            }
        };
        let is_changed = self.reports.get(&node).is_none_or(|earlier| !earlier.says_the_same(&report));
        let is_suspicious = self.reports.get(&node).is_some_and(|earlier| earlier.changed != report.changed);
        if is_suspicious || self.verdicts.get(&node) == Some(&Verdict::Undecided) {
            self.ask_peers(&report);
        }
        if !report.names(&node) && !self.foreign.contains_key(&node) {
            self.ask_named_by_witness(&report);
        }
        if is_suspicious && self.identified.get(&node).is_some_and(|asked| *asked + self.timing.refresh <= now) {
            // It may be another node by now.
            self.identified.remove(&node);
        }
        if self.identifies && !self.identified.contains_key(&node) {
            self.reports_changed = true;
            if !self.reports.contains_key(&node) {
                self.unidentified.insert(node);
            }
        }
        self.reports.insert(node, report);
        self.evidence_changed |= is_changed || was_awaited;
    }

    /// A witness counts with the group that it lists, so at least one node of that must report.
    fn ask_named_by_witness(&mut self, report: &SelfReport) {
        if report.named().iter().any(|node| self.reports.contains_key(node)) {
            return;
        }
        let named: Vec<IpAddr> = report.named().iter().copied().take(ASKED_AT_ONCE_MAX).collect();
        named.into_iter().for_each(|node| self.ask(node));
    }

    /// Asks those anew that a report names, and the zone's group, if their own reports are older than what is suspicious.
    fn ask_peers(&mut self, report: &SelfReport) {
        let is_older = |node: &&IpAddr| self.reports.get(node).is_some_and(|older| older.at < report.changed);
        let named = report.named().iter().filter(is_older).take(ASKED_AT_ONCE_MAX);
        let group = self.group.members.iter().filter(is_older).take(ASKED_AT_ONCE_MAX);
        let peers: BTreeSet<IpAddr> = named.chain(group).copied().collect();
        peers.into_iter().for_each(|peer| self.ask(peer));
    }

    /// A node is to be asked for its report as soon as possible.
    pub(super) fn ask(&mut self, node: IpAddr) {
        self.awaited.insert(node);
        self.reports_changed = true;
        self.evidence_changed = true;
    }

    /// A node has not answered a poll, or a request for its report.
    pub fn record_failure(&mut self, node: IpAddr, now: Instant) {
        self.asked.insert(node, now);
        self.void(node);
    }

    /// A node was not asked, for want of something of ours. What it has said stays in force, and it is asked again after
    /// `refresh`.
    pub fn not_asked(&mut self, node: IpAddr, now: Instant) {
        self.not_asked.insert(node, now);
        self.reports_changed = true;
    }

    /// What a node has said is no longer in force.
    fn void(&mut self, node: IpAddr) {
        self.not_asked.remove(&node);
        let was_awaited = self.awaited.remove(&node);
        let had_report = self.reports.remove(&node).is_some();
        self.ids.remove(&node);
        self.identified.remove(&node);
        self.unidentified.remove(&node);
        self.pending.remove(&node);
        self.distrust_unlisted(node);
        if self.standing.remove(&node) && self.standing.is_empty() {
            self.ask_others_anew();
        }
        self.evidence_changed |= was_awaited || had_report;
    }

    /// The last node that stood has failed. Another group may be the zone's now, and give it its id: both are to rest on
    /// what is newer than this failure.
    fn ask_others_anew(&mut self) {
        let others: Vec<IpAddr> = self.reports.keys().copied().collect();
        for other in others {
            self.ask(other);
            if self.identifies {
                self.identified.remove(&other);
                self.unidentified.insert(other);
            }
        }
    }

    /// A node has said which cluster it is of, or that it cannot say.
    pub fn identified(&mut self, node: IpAddr, id: Option<ClusterId>, now: Instant) {
        if let (Some(earlier), Some(id)) = (self.ids.get(&node), id)
            && *earlier != id
        {
            // It was restarted or replaced, and its failure was not seen.
            self.void(node);
            self.ask(node);
        }
        self.identified.insert(node, now);
        self.reports_changed = true;
        self.evidence_changed |= self.unidentified.remove(&node);
        let Some(id) = id else { return };
        if self.ids.insert(node, id) == Some(id) {
            return;
        }
        if let Some(report) = self.reports.get_mut(&node) {
            report.id = Some(id);
            self.evidence_changed = true;
        }
    }

    /// A probe of a node has ended: whether that changes its state, and whether it should be probed again at once.
    pub fn probed(&mut self, node: IpAddr, outcome: ProbeOutcome, now: Instant) -> Change {
        let was_answered = self.health.is_answered_as_before(node);
        let change = self.health.record(node, outcome, now);
        if outcome == ProbeOutcome::Up {
            if was_answered && self.health.state(node) == Some(NodeState::Up) && !self.is_refuted(node) {
                self.pending.insert(node);
            }
            let is_old = |asked: &Instant| *asked + self.timing.refresh <= now;
            // At its first answer after a failure it is asked at once.
            let is_due = self.health.successes_in_a_row(node) == 1 || self.asked.get(&node).is_none_or(is_old);
            if self.health.state(node).is_some() && !self.reports.contains_key(&node) && is_due {
                self.ask(node);
            }
            return change;
        }
        self.void(node);
        if self.health.state(node) == Some(NodeState::Down) {
            self.trusted.remove(&node);
        }
        change
    }

    /// The process was held up, or has just started: what was true may not be so any more, and every node is asked anew.
    pub fn ask_all_anew(&mut self) {
        self.reports.clear();
        self.ids.clear();
        self.identified.clear();
        self.unidentified.clear();
        self.standing.clear();
        self.asked.clear();
        self.not_asked.clear();
        self.awaited = self.tracked().into_iter().filter(|node| !self.is_down(*node)).collect();
        self.reports_changed = true;
        self.evidence_changed = true;
    }

    /// Which nodes are to be asked for their reports, when a report is good for `every`.
    pub fn due_reports(&self, now: Instant, every: Duration) -> DueRequests {
        let mut due = DueRequests::default();
        let others = self.tracked().into_iter().filter(|node| !self.awaited.contains(node) && !self.is_down(*node));
        for node in self.awaited.iter().copied().chain(others) {
            let retry = self.not_asked.get(&node).map(|at| *at + self.timing.refresh);
            match self.due_report(node, every).max(retry) {
                Some(at) if at > now => due.next = Some(due.next.map_or(at, |next| next.min(at))),
                _ => due.ask.push(node),
            }
        }
        due
    }

    /// When a node is due to report, if it has been asked before and its report is not awaited.
    fn due_report(&self, node: IpAddr, every: Duration) -> Option<Instant> {
        if self.awaited.contains(&node) {
            return None;
        }
        let every = if self.is_pressing(node) { self.timing.refresh } else { spread(node, every) };
        let last = self.reports.get(&node).map(|report| report.at).max(self.asked.get(&node).copied());
        last.map(|last| last + every)
    }

    /// Which nodes are to be asked for the ids of their clusters, when an id is good for `every`: those with a report in
    /// force.
    pub fn due_identities(&self, now: Instant, every: Duration) -> DueRequests {
        let mut due = DueRequests::default();
        for &node in self.reports.keys().filter(|_| self.identifies) {
            let due_again = self.identified.get(&node).map(|last| *last + spread(node, every));
            match due_again.max(self.not_asked.get(&node).map(|at| *at + self.timing.refresh)) {
                Some(at) if at > now => due.next = Some(due.next.map_or(at, |next| next.min(at))),
                _ => due.ask.push(node),
            }
        }
        due
    }

    /// Whether a node is to be asked for the id of its cluster before a report that names these is recorded. That is so
    /// where an id is known that it may be compared with, if the node has given none since its last failure, or names
    /// foreign nodes all of a sudden and may be another one. (Two recycled addresses of three would outvote the third before
    /// their ids arrive.)
    pub fn is_identified_first(&self, node: IpAddr, named: &[IpAddr]) -> bool {
        if !self.identifies || self.cluster_id().is_none() {
            return false;
        }
        let Some(report) = self.reports.get(&node).filter(|_| self.identified.contains_key(&node)) else {
            return !self.identified.contains_key(&node);
        };
        let mut unnamed = named.iter().filter(|node| !report.names(node)).peekable();
        // Most lists name no other nodes than before, and large zones have many.
        unnamed.peek().is_some() && {
            let nodes = self.nodes();
            unnamed.any(|node| !nodes.contains(node))
        }
    }

    /// Whether a node has a report in force.
    pub fn has_report(&self, node: IpAddr) -> bool {
        self.reports.contains_key(&node)
    }

    /// Whether an answer depends on a node's next report: it is listed, and not trusted yet, or the name may be about to
    /// move to its cluster.
    fn is_pressing(&self, node: IpAddr) -> bool {
        let is_listed = self.lists.iter().flatten().any(|list| list.contains(&node));
        (is_listed && !self.trusted.contains(&node)) || (self.seeds_edited && self.seeds.contains(&node))
    }

    /// Probed, and down: it is asked when it answers a probe again.
    fn is_down(&self, node: IpAddr) -> bool {
        self.health.is_probed() && self.health.state(node) == Some(NodeState::Down)
    }

    /// The nodes whose reports count: seeds, and all that the zone lists or remembers.
    fn tracked(&self) -> BTreeSet<IpAddr> {
        let mut tracked = self.nodes();
        tracked.extend(&self.seeds);
        tracked.extend(self.listed());
        if self.nothing_known() {
            let reports = self.seeds.iter().filter_map(|seed| self.reports.get(seed));
            tracked.extend(reports.flat_map(SelfReport::named));
        }
        let witnesses = self.reports.iter().filter(|(node, report)| tracked.contains(node) && !report.names(node));
        let named: Vec<IpAddr> = witnesses.flat_map(|(_, report)| report.named()).copied().collect();
        tracked.extend(named.into_iter().filter(|node| !self.foreign.contains_key(node)));
        tracked
    }

    /// Drops what is known of addresses that no one names any more.
    pub(super) fn forget_untracked(&mut self) {
        let tracked = self.tracked();
        let is_tracked = |node: &IpAddr| tracked.contains(node);
        self.reports.retain(|node, _| is_tracked(node));
        self.ids.retain(|node, _| is_tracked(node));
        self.identified.retain(|node, _| is_tracked(node));
        self.unidentified.retain(is_tracked);
        self.asked.retain(|node, _| is_tracked(node));
        self.not_asked.retain(|node, _| is_tracked(node));
        self.awaited.retain(is_tracked);
        self.verdicts.retain(|node, _| is_tracked(node));
        self.trusted.retain(is_tracked);
        self.proven.retain(is_tracked);
        self.pending.retain(is_tracked);
        self.standing.retain(is_tracked);
    }

    /// A node is not of the zone's group any more.
    pub(super) fn depart_unlisted(&mut self, node: IpAddr) {
        let is_listed = self.lists.iter().flatten().any(|list| list.contains(&node));
        if !is_listed && !self.group.members.contains(&node) && !self.departed.contains(&node) {
            self.depart(node);
        }
    }

    /// A node is listed no more.
    pub(super) fn depart(&mut self, node: IpAddr) {
        if !self.foreign.contains_key(&node) && (self.proven.contains(&node) || self.health.was_up(node)) {
            self.departed.push_front(node);
            self.departed.truncate(DEPARTED_MAX);
        }
        self.distrust_unlisted(node);
    }

    /// A node that is not listed and has no report in force may be another one by the time it is listed again: then it
    /// waits for its report like a new one.
    fn distrust_unlisted(&mut self, node: IpAddr) {
        let is_listed = self.lists.iter().flatten().any(|list| list.contains(&node));
        if !is_listed && !self.reports.contains_key(&node) {
            self.trusted.remove(&node);
        }
    }
}

/// A period give or take a tenth, the same for an address each time: nodes that were asked at once are not for ever.
fn spread(node: IpAddr, every: Duration) -> Duration {
    let hash = BuildHasherDefault::<FxHasher>::default().hash_one(node) >> 32;
    let fraction = f64::from(u32::try_from(hash).unwrap_or_default()) / f64::from(u32::MAX);
    every.mul_f64(0.9 + fraction / 5.0)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::{config, discovery::membership::Timing};

    const SECOND: Duration = Duration::from_secs(1);

    /// An id is asked for again after this time, ± 10 %.
    const EVERY: Duration = Duration::from_secs(60);

    fn node(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn list(nodes: &[u8]) -> Option<NodeSet> {
        NodeSet::new(nodes.iter().copied().map(node))
    }

    fn id(octet: u8) -> ClusterId {
        ClusterId::new([octet; 16]).unwrap()
    }

    fn view(now: Instant) -> MembershipView {
        let timing = Timing { refresh: SECOND, max_stale: None };
        let mut view = MembershipView::new(timing, None, 1, now);
        view.seeds(&[node(1), node(2), node(3)], None);
        view
    }

    fn report(view: &mut MembershipView, reporter: u8, nodes: &[u8], now: Instant) {
        view.record_report(node(reporter), vec![list(nodes)], false, now);
    }

    #[test]
    fn an_id_is_due_with_a_report_and_again_after_its_interval() {
        let start = Instant::now();
        let mut view = view(start).identifying();
        assert_eq!(view.due_identities(start, EVERY), DueRequests::default(), "no node has reported");
        view.reports_changed();
        report(&mut view, 1, &[1, 2, 3], start);
        assert!(view.reports_changed());
        report(&mut view, 2, &[1, 2, 3], start);
        assert_eq!(view.due_identities(start, EVERY), DueRequests { ask: vec![node(1), node(2)], next: None });
        view.identified(node(1), Some(id(7)), start);
        view.identified(node(2), None, start + SECOND);
        let due = view.due_identities(start + SECOND, EVERY);
        let next = due.next.unwrap();
        assert!(due.ask.is_empty() && next >= start + EVERY.mul_f64(0.9), "an unknown id is one that was asked for");
        assert!(next <= start + EVERY.mul_f64(1.1));
        let due = view.due_identities(start + EVERY * 2, EVERY);
        assert_eq!(due, DueRequests { ask: vec![node(1), node(2)], next: None });
        view.identified(node(1), Some(id(7)), start + EVERY * 2);
        let due = view.due_identities(start + EVERY * 2, EVERY);
        assert!(due.ask == [node(2)] && due.next.unwrap() >= start + EVERY * 2 + EVERY.mul_f64(0.9));
    }

    #[test]
    fn a_node_that_returns_or_may_be_another_one_is_asked_anew() {
        let start = Instant::now();
        let mut view = view(start).identifying();
        let identify = |view: &mut MembershipView| view.identified(node(1), Some(id(7)), start);
        report(&mut view, 1, &[1, 2], start);
        identify(&mut view);
        view.record_failure(node(1), start);
        assert!(view.due_identities(start, EVERY).ask.is_empty(), "it has no report in force");
        report(&mut view, 1, &[1, 2], start);
        assert_eq!(view.due_identities(start, EVERY).ask, [node(1)]);
        identify(&mut view);
        report(&mut view, 1, &[1, 2, 9], start + SECOND);
        assert_eq!(view.due_identities(start, EVERY).ask, [node(1)], "it names a stranger all of a sudden");
        identify(&mut view);
        report(&mut view, 1, &[1, 2, 9], start + SECOND * 2);
        assert!(view.due_identities(start, EVERY).ask.is_empty());
        view.ask_all_anew();
        report(&mut view, 1, &[1, 2, 9], start + SECOND * 3);
        assert_eq!(view.due_identities(start, EVERY).ask, [node(1)], "after a pause");
    }

    #[test]
    fn an_id_is_asked_for_before_a_report_only_where_one_is_known() {
        let start = Instant::now();
        assert!(
            !view(start).identifying().is_identified_first(node(1), &[node(1)]),
            "there is none to compare it with"
        );
        assert!(!view(start).pinned(id(7)).is_identified_first(node(1), &[node(1)]), "no node is asked");
        let mut view = view(start).identifying().pinned(id(7));
        assert!(view.is_identified_first(node(1), &[node(1)]));
        view.identified(node(1), None, start);
        assert!(!view.is_identified_first(node(1), &[node(1)]));
        report(&mut view, 1, &[1, 2], start);
        assert!(view.unidentified.is_empty() && view.due_identities(start, EVERY).ask.is_empty(), "it has answered");
        view.record_failure(node(1), start);
        assert!(view.is_identified_first(node(1), &[node(1)]));
        view.identified(node(1), Some(id(7)), start);
        report(&mut view, 1, &[1, 2], start);
        view.accept(0, node(1), list(&[1, 2, 3]), start);
        assert!(!view.is_identified_first(node(1), &[node(1), node(3)]), "that is a node of the zone");
        assert!(view.is_identified_first(node(1), &[node(1), node(9)]));
    }

    #[test]
    fn a_node_that_was_not_asked_keeps_what_it_said_and_is_asked_again_after_a_refresh() {
        let start = Instant::now();
        let mut view = view(start).identifying();
        report(&mut view, 1, &[1, 2], start);
        view.accept(0, node(1), list(&[1, 2]), start);
        view.ask(node(1));
        view.not_asked(node(1), start);
        let retry = start + view.timing.refresh;
        assert!(view.has_report(node(1)));
        for due in [view.due_reports(start, EVERY), view.due_identities(start, EVERY)] {
            assert!(!due.ask.contains(&node(1)) && due.next == Some(retry), "{due:?}");
        }
        assert!(view.due_reports(retry, EVERY).ask.contains(&node(1)));
        assert!(view.due_identities(retry, EVERY).ask.contains(&node(1)));
        report(&mut view, 1, &[1, 2], start);
        assert!(view.due_identities(start, EVERY).ask.contains(&node(1)), "it can be asked again");
    }

    #[test]
    fn another_id_than_before_voids_what_the_node_said() {
        let start = Instant::now();
        let mut view = view(start).identifying();
        report(&mut view, 1, &[1, 2], start);
        view.identified(node(1), Some(id(7)), start);
        view.identified(node(1), Some(id(7)), start);
        assert!(view.has_report(node(1)));
        view.identified(node(1), Some(id(8)), start);
        assert!(!view.has_report(node(1)) && view.due_reports(start, EVERY).ask.contains(&node(1)));
        report(&mut view, 1, &[1, 2], start);
        assert_eq!(view.reports[&node(1)].id, Some(id(8)));
        assert!(view.due_identities(start, EVERY).ask.is_empty());
    }

    #[test]
    fn a_node_that_failed_and_left_waits_for_its_report_when_it_is_listed_again() {
        let (two, start) = (NonZeroU8::new(2).unwrap(), Instant::now());
        let policy = config::Health { interval: SECOND, timeout: SECOND, rise: two, fall: two };
        let timing = Timing { refresh: SECOND, max_stale: None };
        let mut view = MembershipView::new(timing, Some(policy), 1, start);
        let lists = |view: &mut MembershipView, nodes: &[u8]| {
            report(view, 1, nodes, start);
            view.accept(0, node(1), list(nodes), start);
            view.reassess(start, &|_| false);
        };
        let state = |view: &MembershipView| {
            let nodes = view.table_nodes();
            let shown = nodes.iter().find(|shown| shown.address == node(3));
            shown.map(|shown| (shown.state, shown.pending))
        };
        view.seeds(&[node(1)], None);
        lists(&mut view, &[1, 2, 3]);
        for up in [1, 2, 3] {
            view.probed(node(up), ProbeOutcome::Up, start);
            report(&mut view, up, &[1, 2, 3], start);
        }
        view.reassess(start, &|_| false);
        assert_eq!(state(&view), Some((NodeState::Up, false)));
        for leaves_first in [false, true] {
            if !leaves_first {
                // Once is not enough for being down, and its peers have noticed too.
                view.refused(node(3), start);
            }
            lists(&mut view, &[1, 2]);
            view.refused(node(3), start);
            assert_eq!(state(&view), None);
            lists(&mut view, &[1, 2, 3]);
            view.probed(node(3), ProbeOutcome::Up, start);
            view.reassess(start, &|_| false);
            assert_eq!(state(&view), Some((NodeState::New, false)), "leaves first: {leaves_first}");
            report(&mut view, 3, &[1, 2, 3], start);
            view.reassess(start, &|_| false);
            assert_eq!(state(&view), Some((NodeState::Up, false)));
        }
    }

    #[test]
    fn without_identity_queries_no_id_is_due() {
        let start = Instant::now();
        let mut view = view(start);
        report(&mut view, 1, &[1, 2], start);
        assert_eq!(view.due_identities(start, EVERY), DueRequests::default());
    }
}

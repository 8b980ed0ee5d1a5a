//! Which nodes belong: puts in force what [`groups`](super::super::groups) finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    super::groups::{Assessment, Evidence, ForeignReason, Group, KnownId, Verdict, assess},
    MembershipView, Notice, Origin,
};
use crate::{
    table::Knowledge,
    types::{ClusterId, NodeSet},
};

impl MembershipView {
    /// Determines anew which nodes belong, if anything has changed that this depends on. `answered_elsewhere` tells
    /// whether a zone that is not known to be of the same cluster answers an address.
    pub fn reassess(&mut self, now: std::time::Instant, answered_elsewhere: &dyn Fn(IpAddr) -> bool) {
        if !std::mem::take(&mut self.evidence_changed) {
            return;
        }
        let mut assessment = self.assess(answered_elsewhere);
        if self.is_moved(&assessment) {
            self.move_to_seeds(now);
            assessment = self.assess(answered_elsewhere);
        }
        if self.contest != assessment.contest {
            self.contest = assessment.contest;
            self.notices.push(self.contest.map_or(Notice::Agreed, Notice::Contested));
        }
        for (&node, &verdict) in &assessment.verdicts {
            self.apply(node, verdict);
        }
        self.verdicts = assessment.verdicts;
        let earlier_id = self.id;
        let mut is_other_group = false;
        if let Some(group) = assessment.group {
            self.learn_id(&group);
            let former = std::mem::replace(&mut self.group, group);
            is_other_group = former != self.group;
            if self.lists.len() > 1 {
                // Nodes of other scopes are on no list, so that this is how they leave.
                former.members.into_iter().for_each(|node| self.depart_unlisted(node));
            }
        }
        self.replace_foreign_list();
        self.forget_untracked();
        // The zone's nodes follow from its group, and the next group from them and from the id.
        self.evidence_changed |= self.id != earlier_id || is_other_group;
    }

    /// A list without any node of the zone was accepted before its sender was known to be another cluster's. What a node
    /// that stands lists takes its place at once: until the next poll there would be nothing to answer.
    fn replace_foreign_list(&mut self) {
        let scope = self.active_scope;
        if self.lists[scope].is_none() || self.ours(scope).is_some() {
            return;
        }
        let has_own = |list: &&NodeSet| list.as_slice().iter().any(|node| !self.foreign.contains_key(node));
        let reports = self.standing.iter().filter_map(|node| self.reports.get(node));
        let lists = reports.filter_map(|report| Some((report.at, report.in_scope(scope).filter(has_own)?)));
        let newest = lists.max_by_key(|(at, _)| *at).map(|(_, list)| list.clone());
        if let Some(list) = newest {
            let before = self.listed();
            self.lists[scope] = Some(list);
            self.relist(&before);
        }
    }

    fn assess(&self, answered_elsewhere: &dyn Fn(IpAddr) -> bool) -> Assessment {
        let nodes = self.nodes();
        let current = self.current();
        assess(&Evidence {
            reports: &self.reports,
            nodes: &nodes,
            current: &current,
            seeds: &self.seeds,
            standing: &self.standing,
            foreign: &self.foreign,
            former: &self.former,
            awaited: &self.awaited,
            unidentified: &self.unidentified,
            id: self.id,
            answered_elsewhere,
        })
    }

    fn apply(&mut self, node: IpAddr, verdict: Verdict) {
        if matches!(verdict, Verdict::Foreign(_) | Verdict::Waits | Verdict::Witness) {
            // It is decided: a later report that leaves it open must not bring back the former answer.
            self.pending.remove(&node);
        }
        match verdict {
            Verdict::Belongs | Verdict::Isolated => {
                self.no_longer_foreign(node);
                self.trusted.insert(node);
                self.proven.insert(node);
                self.standing.insert(node);
            }
            Verdict::Foreign(reason) => {
                if !self.foreign.contains_key(&node) && self.nodes().contains(&node) {
                    self.former.insert(node);
                }
                let earlier = self.foreign.insert(node, reason);
                // Ids come after lists: that a node is only in another datacenter calls for another remedy.
                let is_noteworthy = matches!(reason, ForeignReason::Datacenter(_)) && earlier != Some(reason);
                if earlier.is_none() || is_noteworthy {
                    self.notices.push(Notice::Foreign(node, reason));
                }
                self.trusted.remove(&node);
                self.proven.remove(&node);
                self.standing.remove(&node);
                self.departed.retain(|other| *other != node);
            }
            Verdict::Waits => {
                self.trusted.remove(&node);
                self.standing.remove(&node);
            }
            Verdict::Witness => {
                self.no_longer_foreign(node);
                self.standing.remove(&node);
            }
            Verdict::Split if self.trusted.contains(&node) => _ = self.standing.insert(node),
            Verdict::Unnamed | Verdict::Split | Verdict::Undecided => {}
        }
    }

    fn no_longer_foreign(&mut self, node: IpAddr) {
        self.former.remove(&node);
        if self.foreign.remove(&node).is_some() {
            self.notices.push(Notice::Returned(node));
        }
    }

    /// The id that most nodes of the group give; what was learnt stays while any of them gives it.
    fn learn_id(&mut self, group: &Group) {
        // An address that has just changed hands may be the first to give an id: all must have said theirs, and most must agree.
        if group.members.iter().any(|node| self.unidentified.contains(node)) {
            return;
        }
        let given: Vec<ClusterId> = group.members.iter().filter_map(|node| self.reports.get(node)?.id).collect();
        match self.id {
            KnownId::Pinned(_) => return,
            KnownId::Learned(id) if given.contains(&id) => return,
            KnownId::Learned(_) | KnownId::Unknown => {}
        }
        let mut counts: BTreeMap<ClusterId, usize> = BTreeMap::new();
        for id in &given {
            *counts.entry(*id).or_default() += 1;
        }
        let order = |id: &ClusterId| given.iter().position(|other| other == id);
        let most = counts.iter().max_by_key(|(id, count)| (**count, std::cmp::Reverse(order(id))));
        if let Some((&id, _)) = most.filter(|(_, count)| **count * 2 > given.len()) {
            self.id = KnownId::Learned(id);
        }
    }

    /// Whether the operator moves the name: the seeds were edited, a new one has reported, and none of them belongs. A
    /// good seed behind others shows that the cluster is the same, but not one whose group has none of the zone's nodes.
    fn is_moved(&mut self, assessment: &Assessment) -> bool {
        if !self.seeds_edited {
            return false;
        }
        let nodes = self.nodes();
        let is_awaited = |node: &IpAddr| self.awaited.contains(node);
        let group: BTreeSet<IpAddr> =
            assessment.group.iter().flat_map(|group| group.members.iter().chain(&group.witnesses)).copied().collect();
        let is_known = group.iter().any(|node| nodes.contains(node));
        if self.seeds.iter().any(|seed| (is_known && group.contains(seed)) || self.standing.contains(seed)) {
            self.seeds_edited = false;
            return false;
        }
        let is_complete = !self.seeds.iter().any(is_awaited)
            && (!group.is_empty() || !nodes.iter().any(is_awaited))
            && self.seeds.iter().any(|seed| self.reports.contains_key(seed));
        is_complete && matches!(self.origin, Origin::Remembered | Origin::Cluster)
    }

    /// Forgets the former cluster, but answers it until a list of the new one is accepted.
    fn move_to_seeds(&mut self, now: std::time::Instant) {
        if let Knowledge::Known(known) = self.knowledge(now) {
            self.origin = Origin::FormerCluster(known.nodes);
        }
        if let KnownId::Learned(_) = self.id {
            self.id = KnownId::Unknown;
        }
        self.lists.fill(None);
        self.departed.clear();
        self.group = Group::default();
        self.trusted.clear();
        self.proven.clear();
        self.pending.clear();
        self.standing.clear();
        self.foreign.clear();
        self.former.clear();
        self.health.clear();
        self.seeds_edited = false;
        self.probing_changed = true;
        self.notices.push(Notice::Moved);
    }
}

//! Whether a list is accepted: who has to be asked first, and which node contradicts it.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use super::{
    super::{
        evidence::{ScopeReport, SelfReport, outweighs},
        groups::Verdict,
    },
    AskFirst, Decision, Dispute, MembershipView, reports, slice,
};
use crate::types::NodeSet;

impl MembershipView {
    /// What is to be asked before a report is decided; nothing when it can be decided at once.
    pub fn ask_first(&self, about: ScopeReport<'_>) -> AskFirst {
        let ScopeReport { scope, report } = about;
        let known = self.ours(scope);
        let listed = |node: &IpAddr| report.nodes.is_some_and(|list| list.contains(node));
        let some = slice(known.as_ref()).iter().copied().filter(|node| !listed(node) && *node != report.sender);
        let is_undecided = matches!(self.verdicts.get(&report.sender), None | Some(Verdict::Undecided));
        let mut all = BTreeSet::new();
        if !self.reports.contains_key(&report.sender) || self.awaited.contains(&report.sender) {
            all.insert(report.sender);
        } else if is_undecided {
            // The seeds first: that is what a first poll compares.
            let awaited = self.seeds.iter().chain(&self.awaited).filter(|node| self.awaited.contains(node));
            for node in awaited {
                if all.len() < reports::ASKED_AT_ONCE_MAX {
                    all.insert(*node);
                }
            }
        }
        let some = some.filter(|node| !all.contains(node)).collect();
        AskFirst { all, some }
    }

    /// Decides about a report with the reports that there are.
    pub fn decide(&mut self, about: ScopeReport<'_>, now: Instant) -> Decision {
        let ScopeReport { scope, report } = about;
        let is_candidate = match self.verdicts.get(&report.sender) {
            Some(Verdict::Belongs | Verdict::Witness | Verdict::Unnamed) => Ok(()),
            Some(Verdict::Split) if self.trusted.contains(&report.sender) => Ok(()),
            Some(Verdict::Foreign(reason)) => {
                self.last_dispute = Some(now);
                self.dispute = Some(Dispute::Foreign(report.sender, *reason));
                Err(format!("is another cluster's: {reason}"))
            }
            Some(Verdict::Isolated) => {
                self.last_dispute = Some(now);
                self.dispute = Some(Dispute::Isolated(report.sender));
                Err("has lost sight of the zone's other nodes".to_owned())
            }
            Some(Verdict::Waits | Verdict::Split) => Err("is not listed by the zone's nodes yet".to_owned()),
            Some(Verdict::Undecided) => Err("is compared with reports that have not arrived yet".to_owned()),
            None if self.reports.contains_key(&report.sender) => {
                Err("may be of another cluster than the zone's".to_owned())
            }
            None => Err("has not sent its lists of every scope".to_owned()),
        };
        if let Err(why) = is_candidate {
            return Decision::SetAside(why);
        }
        match self.contradiction(scope, about, now) {
            Some(witness) => {
                Decision::SetAside(format!("leaves out {witness}, which is alive and knows as many nodes"))
            }
            None => Decision::Accepted,
        }
    }

    /// A node that a report leaves out, and that contradicts it. Only nodes that belong are witnesses.
    pub(super) fn contradiction(&mut self, scope: usize, about: ScopeReport<'_>, now: Instant) -> Option<IpAddr> {
        let ScopeReport { report, .. } = about;
        let known = self.ours(scope)?;
        let weighed = self.weighed(&known);
        let claim = self.reports.get(&report.sender)?.clone();
        let mut contradicted = None;
        for &witness in known.as_slice().iter().filter(|node| report.nodes.is_none_or(|list| !list.contains(node))) {
            let belongs = match self.verdicts.get(&witness) {
                Some(Verdict::Belongs | Verdict::Isolated) => true,
                Some(Verdict::Split | Verdict::Undecided) => self.trusted.contains(&witness),
                _ => false,
            };
            let reply = self.reports.get(&witness).filter(|reply| belongs && reply.at >= claim.at);
            // A node of another scope, or one that is leaving, does not list itself here.
            let lists_itself = |reply: &&SelfReport| reply.in_scope(scope).is_some_and(|list| list.contains(&witness));
            let Some(reply) = reply.filter(lists_itself) else { continue };
            self.last_dispute = Some(now);
            self.dispute = Some(Dispute::LeavesOut { sender: report.sender, witness });
            if outweighs(reply.named(), claim.named(), &weighed) {
                contradicted = Some(witness);
            }
        }
        contradicted
    }

    /// The nodes that count in a dispute: those that are trusted, of the listed ones of all scopes and of the zone's group.
    /// (Without the latter, a recycled address that names only itself could hold on to a zone of two while the node that
    /// remains and one that has returned list each other.)
    pub fn weighed(&self, known: &NodeSet) -> BTreeSet<IpAddr> {
        let mut nodes = if self.lists.len() == 1 { known.as_slice().iter().copied().collect() } else { self.nodes() };
        let belongs = |(node, verdict): (&IpAddr, &Verdict)| matches!(verdict, Verdict::Belongs).then_some(*node);
        nodes.extend(self.verdicts.iter().filter_map(belongs));
        nodes.intersection(&self.trusted).copied().collect()
    }
}

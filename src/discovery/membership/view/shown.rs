//! What nodes have reported, and what follows, for people.

use super::{super::groups::Verdict, MembershipView, reasons::NodeReason};
use crate::table::{NodeReport, ZoneReports};

impl MembershipView {
    /// The reports in force, and what follows for each node.
    pub fn shown_reports(&self) -> ZoneReports {
        let reports = self.reports.iter().map(|(&sender, report)| NodeReport {
            sender,
            at: report.at,
            nodes: report.union().cloned(),
            cluster_id: report.id,
        });
        let foreign = self.foreign.iter().map(|(&node, &reason)| (node, NodeReason::Foreign(reason).to_string()));
        ZoneReports {
            reports: reports.collect(),
            belonging: self.verdicts.iter().map(|(&node, &verdict)| (node, word(verdict))).collect(),
            foreign: foreign.collect(),
            group: self.group.members.iter().copied().collect(),
            seeds: self.seeds.clone(),
            departed: self.departed.iter().copied().collect(),
            awaited: self.awaited.iter().copied().collect(),
        }
    }
}

/// A verdict in a word.
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Belongs => "belongs",
        Verdict::Isolated => "isolated",
        Verdict::Witness => "witness",
        Verdict::Waits => "not listed yet",
        Verdict::Unnamed => "not named yet",
        Verdict::Split => "split",
        Verdict::Undecided => "undecided",
        Verdict::Foreign(_) => "foreign",
    }
}

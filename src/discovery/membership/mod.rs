//! Which nodes a zone has: events in, actions out.
//!
//! [`Membership::on`] takes what has happened, the time, and what the other zones own, and returns what is to be done.
//! It has neither clock, socket nor log. The poller performs the actions over the network; the model check performs the
//! same ones in a simulated world, so that it explores the code that runs.

mod evidence;
mod health;
mod ownership;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

pub use self::{
    evidence::{ListReport, ScopeReport},
    health::ProbeOutcome,
    ownership::{AddressOwnership, OtherZones, Overlaps},
    view::{Decision, MembershipView, Timing},
};
use crate::{
    table::{Knowledge, Origin},
    types::{AddressRules, NodeSet},
};

/// What has happened to a zone.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// Time has passed.
    Time,
    /// The seeds have these addresses. `None`: not one is known, or they are not answered because a scope is set.
    Seeds(Option<&'e NodeSet>),
    /// A node has reported which nodes it lists in a scope.
    Report(ScopeReport<'e>),
    /// The nodes that the report leaves out have been asked, see [`Decision::AskMissing`]. Each comes with its own list,
    /// if it sent one.
    MissingReplied { report: ScopeReport<'e>, replies: &'e BTreeMap<IpAddr, Option<NodeSet>> },
    /// A node has refused a poll.
    Refused(IpAddr),
    /// A probe of a node has ended.
    Probed(IpAddr, ProbeOutcome),
    /// A scope has been polled; it is answered if one of its permitted nodes is healthy.
    ScopePolled { scope: usize, rules: &'e AddressRules },
    /// All scopes have been polled, and none has a healthy node.
    NoScopeHealthy,
    /// The poll has ended well.
    PollSucceeded,
    /// The poll has brought no list; the text says why.
    PollFailed(&'e str),
}

/// What is to be done after an event. Take it apart without `..`: then the compiler notices an action that is forgotten.
#[derive(Debug, Default)]
#[must_use]
pub struct Actions {
    /// What became of a report or a scope, if the event was about one.
    pub decision: Option<Decision>,
    /// Publish this, and register its addresses.
    pub publish: Option<Publication>,
    /// The nodes of [`MembershipView::to_probe`] are others than before.
    pub probes_changed: bool,
    /// Probe these again at once.
    pub confirm: BTreeSet<IpAddr>,
    /// Write these nodes to the snapshot: the cluster has just confirmed them.
    pub remember: Option<NodeSet>,
}

/// What is answered from now on.
#[derive(Clone, Debug)]
pub struct Publication {
    /// For the zone's entry in the table.
    pub knowledge: Knowledge,
    /// The addresses to register for the zone.
    pub addresses: Option<NodeSet>,
    /// Whether the zone owns them: its cluster confirmed them a short time ago, and no node spoke for another cluster.
    pub live: bool,
    /// What went wrong in the last poll, if anything did.
    pub error: Option<String>,
}

/// Which nodes one zone has.
#[derive(Clone, Debug)]
pub struct Membership {
    view: MembershipView,
    published: Knowledge,
}

impl Membership {
    /// Starts with this view, while the zone answers what was published before.
    pub fn new(view: MembershipView, published: Knowledge) -> Self {
        Self { view, published }
    }

    /// What is known now.
    pub fn view(&self) -> &MembershipView {
        &self.view
    }

    /// Takes over an event; what is to be done about it.
    pub fn on(&mut self, event: Event<'_>, now: Instant, others: &OtherZones<'_>) -> Actions {
        let mut actions = Actions::default();
        match event {
            Event::Time => {}
            Event::Seeds(addresses) => self.view.seeds(addresses.cloned()),
            Event::Report(report) => actions.decision = Some(self.report(report, now, others)),
            Event::MissingReplied { report, replies } => {
                let overlaps = self.view.overlaps().clone();
                let decision = self.view.settle(report, replies, now, |node| others.own(node, &overlaps));
                actions.decision = Some(self.accept_if(decision, report, now, others));
            }
            Event::Refused(node) => self.view.refused(node),
            Event::Probed(node, outcome) => {
                let change = self.view.hear(node, outcome);
                actions.confirm.extend(change.confirm.then_some(node));
                // Most probes change nothing, and large zones have many of them.
                if !change.changed {
                    return actions;
                }
            }
            Event::ScopePolled { scope, rules } => {
                let active = self.view.select_scope(scope, |node| rules.permits(node));
                actions.decision = active.then_some(Decision::ScopeActive);
            }
            Event::NoScopeHealthy => self.view.keep_scope(),
            // A snapshot must not look confirmed during an outage.
            Event::PollSucceeded if self.view.error().is_none() => actions.remember = self.view.learnt(),
            Event::PollSucceeded => {}
            Event::PollFailed(why) => self.view.fail(why.to_owned()),
        }
        actions.probes_changed = self.view.probing_changed();
        actions.confirm.append(&mut self.view.take_confirmations());
        actions.publish = self.publication(now);
        actions
    }

    fn report(&mut self, report: ScopeReport<'_>, now: Instant, others: &OtherZones<'_>) -> Decision {
        let ScopeReport { scope, report: list } = report;
        if list.unscoped && !self.view.has_nothing_better() {
            return Decision::Unusable("ignores datacenter and rack");
        }
        // While the active scope is empty its last answer stays, until another scope becomes active.
        if list.nodes.is_none() && (!self.view.lists(scope) || self.view.active_scope() == scope) {
            return Decision::ScopeEmpty;
        }
        let overlaps = self.view.overlaps().clone();
        let decision = self.view.judge(scope, list, now, |node| others.own(node, &overlaps));
        self.accept_if(decision, report, now, others)
    }

    /// Takes a report over if that is the decision.
    fn accept_if(
        &mut self,
        decision: Decision,
        report: ScopeReport<'_>,
        now: Instant,
        others: &OtherZones<'_>,
    ) -> Decision {
        let ScopeReport { scope, report } = report;
        if decision == Decision::Accepted {
            self.view.accept(scope, report.sender, report.nodes.cloned(), now);
            if report.unscoped {
                self.view.without_scopes();
            }
            if let Some(learnt) = self.view.learnt() {
                let overlaps = others.overlaps(learnt.as_slice(), self.view.overlaps());
                self.view.relate(overlaps);
            }
        }
        decision
    }

    /// What is to be published, if it is other than what was published last.
    fn publication(&mut self, now: Instant) -> Option<Publication> {
        let knowledge = self.view.knowledge(now);
        if knowledge == self.published {
            return None;
        }
        self.published = knowledge.clone();
        let (addresses, live) = match &knowledge {
            Knowledge::Known(known) if self.view.origin() != Origin::FormerCluster => {
                (NodeSet::new(known.nodes.iter().map(|node| node.address)), known.owns_addresses)
            }
            Knowledge::Known(_) | Knowledge::Waiting(_) => (None, false),
        };
        Some(Publication { knowledge, addresses, live, error: self.view.error().map(str::to_owned) })
    }
}

#[cfg(test)]
mod model_check;

//! Which nodes a zone has: events in, actions out.
//!
//! [`Membership::on`] takes what has happened, the time, and what the other zones answer, and returns what is to be done.
//! It has neither clock, socket nor log. The poller performs the actions over the network; the model check performs the
//! same ones in a simulated world, so that it explores the code that runs.

mod evidence;
mod groups;
mod health;
mod ownership;
mod view;

use std::{net::IpAddr, time::Instant};

pub use self::{
    evidence::{ListReport, ScopeReport},
    groups::{Contest, ForeignReason},
    health::ProbeOutcome,
    ownership::{AddressOwnership, OtherZones},
    view::{AskFirst, Decision, Inheritance, MembershipView, Notice, Timing, ZoneReason},
};
use crate::{
    snapshot::ClusterNodes,
    table::{Knowledge, Origin, ZoneDrains},
    types::{AddressRules, ClusterId, NodeSet},
};

/// What has happened to a zone.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// Time has passed.
    Time,
    /// The process was held up for seconds: what was true may not be so any more.
    Paused,
    /// The seeds have these addresses, in the order of the file. Those of `fail_open` are answered while nothing is
    /// learnt; `None`: not one is known, or a scope is set.
    Seeds { addresses: &'e [IpAddr], fail_open: Option<&'e NodeSet> },
    /// A node has been polled, and has sent its list of a scope.
    Polled(ScopeReport<'e>),
    /// The nodes of [`Decision::AskFirst`] have been asked, and the report is to be decided now.
    AskedFirst(ScopeReport<'e>),
    /// A node has reported its own lists, of every scope; an `unscoped` one ignores scopes.
    Reported { node: IpAddr, scopes: &'e [Option<NodeSet>], unscoped: bool },
    /// A node has not answered a poll, or a request for its report.
    Silent(IpAddr),
    /// A node was not asked for its list or its cluster, for want of something of ours: it is asked again later.
    NotAsked(IpAddr),
    /// A node has refused a poll.
    Refused(IpAddr),
    /// A probe of a node has ended.
    Probed(IpAddr, ProbeOutcome),
    /// A node has said which cluster it is of; `None`: it cannot say.
    Identified(IpAddr, Option<ClusterId>),
    /// A scope has been polled; it is answered if one of its permitted nodes is healthy and not drained.
    ScopePolled { scope: usize, rules: &'e AddressRules, drains: &'e ZoneDrains },
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
    pub confirm: Vec<IpAddr>,
    /// [`MembershipView::due_reports`] or [`MembershipView::due_identities`] may have others than before.
    pub reports_changed: bool,
    /// Write this to the snapshot: the cluster has just confirmed it.
    pub remember: Option<ClusterNodes>,
    /// Log these.
    pub notices: Vec<Notice>,
}

/// What is answered from now on.
#[derive(Clone, Debug)]
pub struct Publication {
    /// For the zone's entry in the table.
    pub knowledge: Knowledge,
    /// The addresses to register for the zone.
    pub addresses: Option<NodeSet>,
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
            Event::Paused => self.view.ask_all_anew(),
            Event::Seeds { addresses, fail_open } => self.view.seeds(addresses, fail_open.cloned()),
            Event::Polled(about) => actions.decision = Some(self.polled(about, now, others)),
            Event::AskedFirst(about) => actions.decision = Some(self.decide(about, now, others)),
            Event::Reported { node, scopes, unscoped } => {
                self.view.record_report(node, scopes.to_vec(), unscoped, now);
            }
            Event::Silent(node) => self.view.record_failure(node, now),
            Event::NotAsked(node) => self.view.not_asked(node, now),
            Event::Refused(node) => self.view.refused(node, now),
            Event::Probed(node, outcome) => {
                let change = self.view.probed(node, outcome, now);
                actions.confirm.extend(change.confirm.then_some(node));
                // Most probes change nothing, and large zones have many of them.
                if !change.changed && !self.view.has_changes() {
                    return actions;
                }
            }
            Event::Identified(node, id) => self.view.identified(node, id, now),
            Event::ScopePolled { scope, rules, drains } => {
                let is_available = |node| rules.permits(node) && !drains.contains(node, rules);
                let active = self.view.select_scope(scope, is_available);
                actions.decision = active.then_some(Decision::ScopeActive);
            }
            Event::NoScopeHealthy => self.view.keep_scope(),
            // A snapshot must not look confirmed during an outage.
            Event::PollSucceeded if self.view.error().is_none() => actions.remember = self.view.remembered(),
            Event::PollSucceeded => {}
            Event::PollFailed(why) => self.view.fail(why.to_owned()),
        }
        self.view.reassess(now, &|node| others.answer(node));
        actions.probes_changed = self.view.probing_changed();
        actions.reports_changed = self.view.reports_changed();
        actions.confirm.extend(self.view.take_confirmations());
        actions.notices = self.view.take_notices();
        actions.publish = self.publication(now);
        actions
    }

    fn polled(&mut self, about: ScopeReport<'_>, now: Instant, others: &OtherZones<'_>) -> Decision {
        let ScopeReport { scope, report } = about;
        if report.unscoped && !self.view.has_nothing_better() {
            return Decision::Unusable("ignores datacenter and rack");
        }
        // While the active scope is empty its last answer stays, until another scope becomes active.
        if report.nodes.is_none() && (!self.view.lists(scope) || self.view.active_scope() == scope) {
            return Decision::ScopeEmpty;
        }
        self.view.record_poll(about, now);
        self.view.reassess(now, &|node| others.answer(node));
        let first = self.view.ask_first(about);
        if first == AskFirst::default() { self.decide(about, now, others) } else { Decision::AskFirst(first) }
    }

    /// Takes a report over if it is accepted.
    fn decide(&mut self, about: ScopeReport<'_>, now: Instant, others: &OtherZones<'_>) -> Decision {
        let ScopeReport { scope, report } = about;
        self.view.reassess(now, &|node| others.answer(node));
        let decision = self.view.decide(about, now);
        if decision == Decision::Accepted {
            self.view.accept(scope, report.sender, report.nodes.cloned(), now);
            if report.unscoped {
                self.view.without_scopes();
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
        let addresses = match &knowledge {
            Knowledge::Known(known) if self.view.origin() != Origin::FormerCluster => {
                let answered = known.nodes.iter().filter(|node| node.is_of_cluster());
                NodeSet::new(answered.map(|node| node.address))
            }
            Knowledge::Known(_) | Knowledge::Waiting(_) => None,
        };
        Some(Publication { knowledge, addresses })
    }
}

#[cfg(test)]
mod model_check;

//! Shows why a zone and its nodes are in their states, and logs what becomes of the zone.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{
    super::{
        changelog::{self, Observation},
        clock::now,
        membership::{Event, Membership, ZoneReason},
        poll::Ask,
        probes::FinishedProbe,
    },
    Poller,
};
use crate::{
    table::{LastProbe, ReportSource, ZoneReports},
    types::{Scope, ZoneState},
};

impl<A: Ask> Poller<A> {
    /// A probe of a node has ended.
    pub(super) fn probed(&self, node: IpAddr, finished: &FinishedProbe) {
        let label = finished.label();
        self.entry.counters().probes.of(label).increment();
        let last = LastProbe { result: label, duration: finished.duration, at: SystemTime::now() };
        let failure = finished.result.as_ref().err();
        self.entry.record_probe(node, last, failure);
        let Some(outcome) = finished.outcome() else {
            failure.inspect(|why| self.resources.not_asked.log(self.entry.name(), node, why));
            return;
        };
        self.handle(Event::Probed(node, outcome));
    }

    /// Shows the reasons as they are now.
    pub(super) fn explain(&self) {
        let (zone, nodes) = {
            let membership = self.membership();
            let view = membership.view();
            (view.reason(now()), view.node_reasons())
        };
        let zone = zone.map(|reason| match reason {
            ZoneReason::Fallback(number) => match self.zone.cluster.scope.get(number) {
                Some(scope) => format!("{reason}: {scope}"),
                None => reason.to_string(),
            },
            reason => reason.to_string(),
        });
        let nodes = nodes.into_iter().map(|(node, reason)| (node, Arc::from(reason.to_string())));
        self.entry.explain(zone.map(Arc::from), nodes);
    }

    /// Logs the zone's state when that is due. Before its first poll has ended a zone is only about to be known.
    pub(super) fn log_state(&self) {
        let status = self.entry.poll_status();
        let state = self.entry.state();
        if status.ticks == 0 && state != ZoneState::Live {
            return;
        }
        let has_failed = state == ZoneState::Waiting && status.last_error.is_some();
        let answers_drained = self.entry.answers().answers_drained();
        let seen = Observation { state, scope: status.scope, has_failed, answers_drained };
        let due = self.state_log.lock().unwrap_or_else(PoisonError::into_inner).observe(seen, now());
        if let Some(due) = due {
            changelog::log_state(&self.entry, due);
        }
    }

    /// The scope that is answered; none before any node is known.
    pub(super) fn answered_scope(&self, number: usize, is_known: bool) -> Option<Scope> {
        self.zone.cluster.scope.get(number).filter(|_| is_known).cloned()
    }
}

impl ReportSource for Mutex<Membership> {
    fn reports(&self) -> ZoneReports {
        self.lock().unwrap_or_else(PoisonError::into_inner).view().shown_reports()
    }
}

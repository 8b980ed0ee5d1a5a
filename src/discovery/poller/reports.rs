//! Asks nodes what they say of themselves: their own lists, and the ids of their clusters.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use tokio::time::{Instant as TokioInstant, sleep_until, timeout};
use tracing::debug;

use super::{
    super::{
        clock::now,
        membership::Event,
        node::{IDENTITY_INTERVAL, IdentityQuery, IdentityReply, Keep, UnknownIdentity},
        poll::Ask,
    },
    Poller, TIMER_GRAIN,
};
use crate::{config, types::NodeSet};

/// A node's report is good for this time, ± 10 %, or for `refresh`, if that is longer. Polls are reports too.
const REPORT_INTERVAL: Duration = config::REPORT_INTERVAL;

/// The same for each zone at scale. The connection to a node that is not polled is not kept, so a report costs four
/// times as much as a poll.
const REPORT_INTERVAL_AT_SCALE: Duration = Duration::from_secs(120);

/// Zones ask for reports after times that differ by so much, so that the first of many asks for all.
const REPORT_JITTER: f64 = 0.1;

/// Requests of both kinds that one zone has in flight: a large cluster must not be asked as one, nor fill our own
/// descriptors.
const REQUESTS_IN_FLIGHT_MAX: usize = 8;

/// A request to a node that is neither a poll nor a probe.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Request {
    /// For its own lists, of every scope.
    Report(IpAddr),
    /// For the id of its cluster.
    Identity(IpAddr),
}

/// Which requests are due.
struct Due {
    /// These, now.
    requests: Vec<Request>,
    /// When there may be others.
    next: Option<Instant>,
}

impl<A: Ask> Poller<A> {
    /// Asks nodes for their reports and ids when they are due.
    pub(super) async fn report_loop(&self) -> Infallible {
        let mut asked = BTreeSet::new();
        let mut in_flight = FuturesUnordered::new();
        self.has_polled.notified().await;
        loop {
            let Due { requests, next } = self.due_requests();
            for request in requests {
                if asked.len() < REQUESTS_IN_FLIGHT_MAX && asked.insert(request) {
                    in_flight.push(Box::pin(async move {
                        self.send(request).await;
                        request
                    }));
                }
            }
            tokio::select! {
                Some(request) = in_flight.next() => {
                    asked.remove(&request);
                }
                () = self.reports_changed.notified() => {}
                () = sleep_until(next.map_or_else(TokioInstant::now, TokioInstant::from_std) + TIMER_GRAIN),
                    if next.is_some() => {}
            }
        }
    }

    /// What is due now. Nodes that are probed are asked for their ids with their next probes.
    fn due_requests(&self) -> Due {
        let membership = self.membership();
        let view = membership.view();
        let reports = view.due_reports(now(), self.report_interval());
        let mut requests: Vec<Request> = reports.ask.into_iter().map(Request::Report).collect();
        let Some(query) = self.queries.identity_query() else { return Due { requests, next: reports.next } };
        let identities = view.due_identities(now(), IDENTITY_INTERVAL);
        let probes = self.probes.get().filter(|_| self.zone.health.is_some());
        let probed = probes.map(|_| view.to_probe()).unwrap_or_default();
        for node in identities.ask {
            match probes.filter(|_| probed.contains(&node)) {
                Some(probes) => probes.identify(&self.endpoint(node), query),
                None => requests.push(Request::Identity(node)),
            }
        }
        Due { requests, next: reports.next.into_iter().chain(identities.next).min() }
    }

    fn report_interval(&self) -> Duration {
        let every = if self.resources.at_scale.get() { REPORT_INTERVAL_AT_SCALE } else { REPORT_INTERVAL };
        // Zones of one cluster that have started together must not all ask at the same moment: the first asks for all.
        every.max(self.zone.refresh).mul_f64(1.0 - REPORT_JITTER * self.phase)
    }

    async fn send(&self, request: Request) {
        match request {
            Request::Report(node) => _ = self.ask_report(node, Some(self.shared_after(node))).await,
            Request::Identity(node) => {
                let Some(query) = self.queries.identity_query() else { return };
                if let Some(reply) = self.queries.identify(node, query, self.shared_after(node), Keep::Never).await {
                    self.identified(node, &reply);
                }
            }
        }
    }

    /// See [`MembershipView::shared_after`](super::super::membership::MembershipView::shared_after).
    pub(super) fn shared_after(&self, node: IpAddr) -> TokioInstant {
        TokioInstant::from_std(self.membership().view().shared_after(node, now()))
    }

    /// Asks a node for its own lists, of every scope. Returns whether it was asked: it is not for want of something of ours.
    pub(super) async fn ask_report(&self, node: IpAddr, after: Option<TokioInstant>) -> bool {
        let scopes = &self.zone.cluster.scope;
        let replies = match scopes.as_slice() {
            [] => self.query(node, None, after).await.map(|reply| vec![reply]),
            scopes => try_join_all(scopes.iter().map(|scope| self.query(node, Some(scope), after))).await,
        };
        match replies {
            Ok(replies) => {
                let unscoped = replies.iter().any(|reply| reply.unscoped);
                let lists: Vec<_> = replies.into_iter().map(|reply| reply.nodes).collect();
                self.identify_first(node, lists.iter().flatten()).await;
                self.handle(Event::Reported { node, scopes: &lists, unscoped });
                true
            }
            Err(error) => !error.is_not_asked(),
        }
    }

    /// Asks a node for the id of its cluster if that is to be known before these lists are recorded.
    pub(super) async fn identify_first(&self, node: IpAddr, lists: impl Iterator<Item = &NodeSet>) {
        let named: Vec<IpAddr> = lists.flat_map(NodeSet::as_slice).copied().collect();
        let Some(query) = self.queries.identity_query() else { return };
        if self.membership().view().is_identified_first(node, &named)
            && let Ok(reply) = timeout(self.zone.timeout, self.identity(node, query)).await
        {
            self.handle_identity(node, &reply);
        }
    }

    async fn identity(&self, node: IpAddr, query: &IdentityQuery) -> IdentityReply {
        loop {
            // Without a reply it has waited for the outcome of another query.
            if let Some(reply) = self.queries.identify(node, query, self.shared_after(node), self.keep(node)).await {
                return reply;
            }
        }
    }

    /// A node has answered an identity query. Without a report in force it has failed meanwhile, and is asked again when it
    /// has reported.
    pub(super) fn identified(&self, node: IpAddr, reply: &IdentityReply) {
        if self.membership().view().has_report(node) {
            self.handle_identity(node, reply);
        }
    }

    fn handle_identity(&self, node: IpAddr, reply: &IdentityReply) {
        match reply {
            IdentityReply::Id(_) => {}
            IdentityReply::Unknown(why @ UnknownIdentity::NotAsked(_)) => {
                self.resources.not_asked.log(self.entry.name(), node, why);
                self.handle(Event::NotAsked(node));
                return;
            }
            IdentityReply::Unknown(why) => debug!(zone = %self.entry.name(), %node, "the node {why}"),
            IdentityReply::Refused(refusal) => {
                debug!(zone = %self.entry.name(), %node, "the node gives no cluster id: {refusal}");
            }
        }
        self.handle(Event::Identified(node, reply.id()));
    }
}

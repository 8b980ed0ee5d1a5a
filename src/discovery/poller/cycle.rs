//! One poll of a zone: all its scopes, the best first.

use std::{net::IpAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::seq::IndexedRandom;
use tracing::debug;

use super::{
    super::{
        clock::now,
        membership::{AskFirst, Decision, Event, ListReport, ScopeReport},
        node::{Dropped, FetchError, Keep},
        poll::{Ask, Candidates, Failures, HedgedPoll, ScopeReply},
    },
    Poller,
};
use crate::{config::Scope, table::Answers};

/// Nodes that are asked themselves when a list leaves them out; of more, so many are chosen at random.
const ASKED_MISSING_MAX: usize = 8;

/// Between two questions about scopes that are better than the active one, and empty or down: a datacenter that returns is
/// answered again within this time and `rise` probes.
const BETTER_SCOPES_INTERVAL: Duration = Duration::from_secs(3);

/// After this many nodes have listed no node in a scope, no further node is asked.
const EMPTY_REPLIES_ENOUGH: usize = 3;

/// Why a list is set aside while nodes that it depends on are not asked; it ends a sentence that begins with the sender.
const NOT_ASKED: &str =
    "sends a list that cannot be checked: other nodes were not asked, for want of something of ours";

/// The question to each candidate.
#[derive(Clone, Copy)]
struct ScopeQuery<'q> {
    /// The number of the scope, and the scope, if the zone has any.
    number: usize,
    scope: Option<&'q Scope>,
    seeds: &'q [IpAddr],
    seeds_failed: bool,
}

/// When scopes better than the active one are asked: a zone that rests on its third scope must not ask for three lists at
/// each poll, which multiplies what it costs its nodes.
#[derive(Debug, Default)]
pub(super) struct BetterScopes {
    asked: Option<std::time::Instant>,
}

impl BetterScopes {
    /// The scope to ask about first: the best one, if it is due or may take over soon, else the active one.
    fn first(&mut self, active: usize, may_take_over: bool, now: std::time::Instant) -> usize {
        let is_due = self.asked.is_none_or(|asked| now >= asked + BETTER_SCOPES_INTERVAL);
        if active > 0 && !is_due && !may_take_over {
            return active;
        }
        self.asked = Some(now);
        0
    }
}

/// What became of a scope.
enum ScopeOutcome {
    /// A list of it is in use.
    Listed,
    /// The scope is empty.
    Empty,
    /// No node sent a list that can be used.
    Failed(Failures),
}

/// Why a poll has brought no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum PollError {
    #[error("there is no node to ask")]
    NoCandidate,
    #[error("{0}")]
    Failed(Failures),
    #[error("every node sends an empty list")]
    Empty,
    #[error("every node sends an empty list for every scope")]
    EmptyForEveryScope,
}

impl From<Failures> for PollError {
    fn from(failures: Failures) -> Self {
        if failures.is_empty() { Self::NoCandidate } else { Self::Failed(failures) }
    }
}

/// Why a reply is not used. Each reads as the end of a sentence that starts with the node.
#[derive(Debug, thiserror::Error)]
enum ReplyError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("lists no node there")]
    Empty,
    #[error("{0}")]
    SetAside(String),
    #[error("{0}")]
    Unusable(&'static str),
}

impl<A: Ask> Poller<A> {
    /// One poll over all scopes, the best first.
    ///
    /// # Errors
    /// No list was accepted, of any scope.
    pub(super) async fn poll(
        &self,
        candidates: &mut Candidates,
        better_scopes: &mut BetterScopes,
        seeds: &[IpAddr],
        seeds_failed: bool,
    ) -> Result<(), PollError> {
        let scopes = &self.zone.cluster.scope;
        let query = ScopeQuery { number: 0, scope: None, seeds, seeds_failed };
        if scopes.is_empty() {
            return match self.poll_scope(candidates, query).await {
                ScopeOutcome::Listed => Ok(()),
                ScopeOutcome::Empty => Err(PollError::Empty),
                ScopeOutcome::Failed(failures) => Err(failures.into()),
            };
        }
        let first = {
            let membership = self.membership();
            let view = membership.view();
            better_scopes.first(view.active_scope(), view.better_scope_may_take_over(), now())
        };
        let mut listed = false;
        // The better scopes come last where they are not due: they are asked if no other has a healthy node.
        for (number, scope) in scopes.iter().enumerate().cycle().skip(first).take(scopes.len()) {
            match self.poll_scope(candidates, ScopeQuery { number, scope: Some(scope), ..query }).await {
                ScopeOutcome::Listed => listed = true,
                ScopeOutcome::Empty => continue,
                ScopeOutcome::Failed(failures) if listed => {
                    debug!(zone = %self.entry.name(), scope = number, "no usable list: {failures}");
                    continue;
                }
                ScopeOutcome::Failed(failures) => return Err(failures.into()),
            }
            let answers = self.entry.answers().clone();
            let Answers { settings, drains, .. } = &*answers;
            let polled = Event::ScopePolled { scope: number, rules: &settings.rules, drains };
            if self.handle(polled) == Some(Decision::ScopeActive) {
                return Ok(());
            }
        }
        self.handle(Event::NoScopeHealthy);
        if listed { Ok(()) } else { Err(PollError::EmptyForEveryScope) }
    }

    /// Asks candidates about one scope until a list is accepted.
    async fn poll_scope(&self, candidates: &mut Candidates, query: ScopeQuery<'_>) -> ScopeOutcome {
        let (nodes, source) = {
            let membership = self.membership();
            (membership.view().candidates(query.seeds_failed), membership.view().source())
        };
        let first = source.filter(|_| self.resources.at_scale.get());
        candidates.begin(&nodes, query.seeds, first, &mut rand::rng());
        let mut empty = None;
        let mut failures = Failures::default();
        let mut empty_replies = 0;
        let mut poll = HedgedPoll::new(candidates, self.zone.timeout, |node| self.query(node, query.scope, None));
        while let Some((node, reply)) = poll.next().await {
            let refusal = match reply {
                Err(error) => error.into(),
                Ok(ScopeReply { nodes: None, .. }) => {
                    empty = empty.or(Some(node));
                    empty_replies += 1;
                    ReplyError::Empty
                }
                Ok(reply) => match self.consider(node, reply, query).await {
                    Ok(()) => {
                        poll.succeed();
                        return ScopeOutcome::Listed;
                    }
                    Err(refusal) => refusal,
                },
            };
            failures.add(node, &refusal.to_string());
            if empty_replies >= EMPTY_REPLIES_ENOUGH {
                break;
            }
        }
        let Some(sender) = empty else { return ScopeOutcome::Failed(failures) };
        match self.decide(ListReport { sender, nodes: None, unscoped: false }, query, None).await {
            Decision::SetAside(_) => ScopeOutcome::Listed,
            _ => ScopeOutcome::Empty,
        }
    }

    /// Decides about a node's list.
    ///
    /// # Errors
    /// It is not accepted.
    async fn consider(&self, sender: IpAddr, reply: ScopeReply, query: ScopeQuery<'_>) -> Result<(), ReplyError> {
        let ScopeReply { nodes, dropped, arrived, unscoped } = reply;
        self.identify_first(sender, nodes.iter()).await;
        let report = ListReport { sender, nodes: nodes.as_ref(), unscoped };
        match self.decide(report, query, Some(arrived)).await {
            Decision::SetAside(why) => Err(ReplyError::SetAside(why)),
            Decision::Unusable(why) => Err(ReplyError::Unusable(why)),
            _ => {
                for (reason, count) in dropped.into_iter().flat_map(Dropped::iter) {
                    self.entry.counters().dropped.of(reason).add(count);
                }
                Ok(())
            }
        }
    }

    /// What becomes of a report, once the nodes that the decision depends on were asked for their own.
    async fn decide(
        &self,
        report: ListReport<'_>,
        query: ScopeQuery<'_>,
        arrived: Option<tokio::time::Instant>,
    ) -> Decision {
        let about = ScopeReport { scope: query.number, report };
        let mut decision = self.handle_arrived(Event::Polled(about), arrived);
        if let Some(Decision::AskFirst(AskFirst { all, some })) = &decision {
            let some: Vec<IpAddr> = some.iter().copied().collect();
            let some = some.sample(&mut rand::rng(), ASKED_MISSING_MAX);
            let asked: FuturesUnordered<_> = all
                .iter()
                .map(|&node| self.ask_report(node, Some(self.shared_after(node))))
                // Nodes that are left out have to contradict this very list.
                .chain(some.map(|&node| self.ask_report(node, None)))
                .collect();
            // A list must not remove a node that was not asked for want of something of ours.
            let are_asked = asked.all(std::future::ready).await;
            decision = match are_asked {
                true => self.handle_arrived(Event::AskedFirst(about), arrived),
                false => Some(Decision::SetAside(NOT_ASKED.to_owned())),
            };
        }
        let decision = decision.unwrap_or(Decision::ScopeEmpty);
        if let Decision::SetAside(why) = &decision {
            self.entry.counters().lists_set_aside.increment();
            debug!(zone = %self.entry.name(), node = %report.sender, "list set aside: the node {why}");
        }
        decision
    }

    /// Asks one node about a scope, and counts a failure against it, unless the node was not asked at all.
    pub(super) async fn query(
        &self,
        node: IpAddr,
        scope: Option<&Scope>,
        after: Option<tokio::time::Instant>,
    ) -> Result<ScopeReply, FetchError> {
        let reply = self.queries.ask(node, scope, self.keep(node), after).await;
        if let Err(error) = &reply {
            if error.is_not_asked() {
                self.resources.not_asked.log(self.entry.name(), node, error);
                self.handle(Event::NotAsked(node));
                return reply;
            }
            self.handle(Event::Silent(node));
            if error.is_refusal() {
                self.entry.record_failure(node, error.clone().into());
                self.handle(Event::Refused(node));
            }
        }
        reply
    }

    /// With many zones a zone keeps one connection, to the node whose list is in use: the next poll asks it first. Until there
    /// is one, several nodes may have to be asked.
    pub(super) fn keep(&self, node: IpAddr) -> Keep {
        if !self.resources.at_scale.get() {
            return Keep::Shortly;
        }
        match self.membership().view().source() {
            Some(source) if source == node => Keep::over(self.zone.refresh),
            Some(_) | None => Keep::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_scopes_are_asked_now_and_then_and_always_when_they_may_take_over() {
        let start = std::time::Instant::now();
        let mut better = BetterScopes::default();
        let mut first =
            |active, may_take_over, millis| better.first(active, may_take_over, start + Duration::from_millis(millis));
        assert_eq!(first(2, false, 0), 0);
        assert_eq!(first(2, false, 2_999), 2);
        assert_eq!(first(2, true, 2_999), 0);
        assert_eq!(first(2, false, 5_000), 2);
        assert_eq!(first(2, false, 6_000), 0);
        assert_eq!(first(0, false, 6_001), 0, "there is no better one");
    }
}

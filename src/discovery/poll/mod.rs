//! Whom a poller asks in one tick, what it asks, and what it makes of the answers.

mod candidates;
mod hedge;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use rand::seq::IndexedRandom;
use tokio::time::Instant;
use tracing::debug;

use self::hedge::{Failures, HedgedPoll};
pub use self::{
    candidates::{AtScale, Candidates},
    hedge::TIMEOUTS_IN_TICK,
};
use super::{
    clock::now,
    membership::{Decision, ListReport},
    node::{Dropped, Endpoint, FetchError, Keep, ListError, ListReply, Location, NodeClient},
    poller::Poller,
};
use crate::{
    config::{self, Scheme, Scope},
    metrics::PollResult,
    types::NodeSet,
};

/// Nodes that a list leaves out and that are heard before it is believed; chosen at random among more.
const ASKED_MISSING_MAX: usize = 8;

/// When so many nodes say that a scope is empty, the others are not asked too.
const EMPTY_REPLIES_ENOUGH: usize = 3;

/// A datacenter that cannot exist, because Scylla's names have no such characters: a server that lists anybody there
/// ignores the parameters (before 2025.1).
const NONEXISTENT_DC: &str = "\u{1f}no such datacenter\u{1f}";

/// How long it is believed that a node knows the parameters, or does not: servers are upgraded.
const SUPPORT_KEPT: Duration = Duration::from_secs(10);

/// How nodes are asked. An attempt ends by itself within the zone's timeout.
pub trait Ask: Send + Sync {
    /// Asks one node for its list, of everybody or of one place.
    fn ask(
        &self,
        node: IpAddr,
        place: Option<Location<'_>>,
        keep: Keep,
    ) -> impl Future<Output = Result<ListReply, FetchError>> + Send;
}

/// The nodes of a real cluster.
#[derive(Clone, Debug)]
pub struct Nodes {
    alternator: NodeClient,
    scheme: Scheme,
    port: std::num::NonZeroU16,
    timeout: Duration,
}

impl Nodes {
    pub(super) fn new(alternator: &NodeClient, zone: &config::Zone) -> Self {
        let cluster = &zone.cluster;
        let (scheme, port) = (cluster.scheme.clone(), cluster.port);
        Self { alternator: alternator.clone(), scheme, port, timeout: zone.timeout }
    }
}

impl Ask for Nodes {
    async fn ask(&self, address: IpAddr, place: Option<Location<'_>>, keep: Keep) -> Result<ListReply, FetchError> {
        let endpoint = Endpoint { scheme: self.scheme.clone(), address, port: self.port };
        self.alternator.local_nodes(&endpoint, place, self.timeout, keep).await
    }
}

/// Which nodes know the parameters of `/localnodes`, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct ScopeSupport(Mutex<BTreeMap<IpAddr, (bool, Instant)>>);

/// What a node told about a scope.
#[derive(Debug)]
struct ScopeReply {
    /// `None`: nobody is there.
    nodes: Option<NodeSet>,
    dropped: Vec<Dropped>,
    arrived: Instant,
    /// The node ignores scopes, and told of everybody.
    everybody: bool,
}

/// What one tick is about.
#[derive(Clone, Copy)]
struct ScopeQuery<'e> {
    /// The number of the scope, and the scope, if the zone has any.
    number: usize,
    scope: Option<&'e Scope>,
    seeds: &'e [IpAddr],
    seeds_failed: bool,
}

/// What became of an answer.
enum Considered {
    /// It is believed.
    Used,
    /// It is of no use; the sentence goes on after the node's address.
    PassedOver(String),
}

/// How an query ended.
enum Ended {
    /// The scope's list is believed.
    Listed,
    /// The scope is empty.
    Nobody,
    /// Nobody gave a list that can be used.
    Failed(Failures),
}

impl<A: Ask> Poller<A> {
    /// One tick over all scopes, the best first.
    ///
    /// # Errors
    /// What went wrong, as a sentence; empty when there was nobody to ask.
    pub(super) async fn tick(&self, rota: &mut Candidates, seeds: &[IpAddr], seeds_failed: bool) -> Result<(), String> {
        let scopes = &self.zone.cluster.scope;
        let query = ScopeQuery { number: 0, scope: None, seeds, seeds_failed };
        if scopes.is_empty() {
            return match self.poll_scope(rota, query).await {
                Ended::Listed => Ok(()),
                Ended::Nobody => Err("every node lists nobody".into()),
                Ended::Failed(failures) => Err(failures.to_string()),
            };
        }
        let rise = self.zone.health.map_or(0, |health| u32::from(health.rise.get()));
        let mut listed = false;
        for (number, scope) in scopes.iter().enumerate() {
            match self.poll_scope(rota, ScopeQuery { number, scope: Some(scope), ..query }).await {
                Ended::Listed => listed = true,
                Ended::Nobody => continue,
                Ended::Failed(failures) if listed => {
                    debug!(zone = %self.entry.name(), scope = number, "no usable list: {failures}");
                    continue;
                }
                Ended::Failed(failures) => return Err(failures.to_string()),
            }
            let settings = self.entry.answers().settings.clone();
            let selected = self.membership().select_scope(number, rise, |node| settings.rules.permits(node));
            self.publish(None);
            if selected {
                return Ok(());
            }
        }
        self.membership().keep_scope();
        if listed { Ok(()) } else { Err("no node lists anybody in any scope".into()) }
    }

    /// Asks candidates about one scope until a list is believed.
    async fn poll_scope(&self, rota: &mut Candidates, query: ScopeQuery<'_>) -> Ended {
        let (candidates, source) = {
            let membership = self.membership();
            (membership.candidates(query.seeds_failed), membership.source())
        };
        rota.begin(&candidates, query.seeds, source.filter(|_| self.resources.at_scale.get()), &mut rand::rng());
        let (mut nobody, mut failures) = (Vec::new(), Failures::default());
        let mut tick = HedgedPoll::new(rota, self.zone.timeout, |node| self.ask_about(node, query.scope));
        while let Some((node, answer)) = tick.next().await {
            let considered = match answer {
                Ok(told) => self.consider(node, told, query, &mut nobody).await,
                Err(error) => Considered::PassedOver(error.to_string()),
            };
            self.publish(None);
            match considered {
                Considered::Used => {
                    tick.succeed();
                    return Ended::Listed;
                }
                Considered::PassedOver(why) => failures.add(node, &why),
            }
            if nobody.len() >= EMPTY_REPLIES_ENOUGH {
                break;
            }
        }
        match nobody.first() {
            None => Ended::Failed(failures),
            Some(&sender) => self.consider_empty(sender, query, failures).await,
        }
    }

    /// What a seed thinks of the scope that is answered.
    pub(super) async fn opinion(&self, seed: IpAddr) -> Result<Option<NodeSet>, FetchError> {
        let scope = self.zone.cluster.scope.get(self.membership().active_scope());
        Ok(self.ask_about(seed, scope).await?.nodes)
    }

    /// Judges what a node told, and believes it if it may.
    async fn consider(
        &self,
        sender: IpAddr,
        told: ScopeReply,
        query: ScopeQuery<'_>,
        nobody: &mut Vec<IpAddr>,
    ) -> Considered {
        let Some(nodes) = told.nodes else {
            nobody.push(sender);
            return Considered::PassedOver("lists nobody there".into());
        };
        if told.everybody && !self.membership().has_nothing_better() {
            return Considered::PassedOver("ignores datacenter and rack".into());
        }
        let from_seed = query.seeds.contains(&sender);
        let report = ListReport { sender, from_seed, nodes: Some(&nodes), everybody: told.everybody };
        match self.verdict(report, query).await {
            Decision::SetAside(why) => Considered::PassedOver(why),
            Decision::Hear(_) | Decision::Believed => {
                for (reason, count) in told.dropped.into_iter().flat_map(Dropped::iter) {
                    self.entry.counters().dropped.of(reason).add(count);
                }
                self.believe(sender, Some(nodes), query, told.everybody);
                self.publish(Some(told.arrived));
                Considered::Used
            }
        }
    }

    /// Judges that a scope is empty: nobody goes unheard there either.
    async fn consider_empty(&self, sender: IpAddr, query: ScopeQuery<'_>, failures: Failures) -> Ended {
        {
            let membership = self.membership();
            // Where it is answered, the last answer stays until another scope takes over.
            if !membership.lists(query.number) || (query.scope.is_some() && membership.active_scope() == query.number) {
                return Ended::Nobody;
            }
        }
        let report = ListReport { sender, from_seed: true, nodes: None, everybody: false };
        match self.verdict(report, query).await {
            // Without scopes an empty list is no list: better the nodes that were.
            _ if query.scope.is_none() => Ended::Failed(failures),
            Decision::SetAside(_) => Ended::Listed,
            Decision::Hear(_) | Decision::Believed => {
                self.believe(sender, None, query, false);
                Ended::Nobody
            }
        }
    }

    /// Judges a report, after those whom it leaves out were heard.
    async fn verdict(&self, report: ListReport<'_>, query: ScopeQuery<'_>) -> Decision {
        let overlaps = self.membership().overlaps().clone();
        let (name, cluster) = (self.entry.name(), &self.zone.cluster);
        let owned_by_other_zone = |node| self.resources.ownership.owned_by_other_zone(name, cluster, &overlaps, node);
        let mut verdict = self.membership().judge(query.number, report, now(), owned_by_other_zone);
        if let Decision::Hear(left_out) = &verdict {
            let heard = self.hear(left_out, query.scope, report.everybody).await;
            verdict = self.membership().settle(query.number, report, &heard, now(), owned_by_other_zone);
        }
        if let Decision::SetAside(why) = &verdict {
            self.entry.counters().lists_set_aside.increment();
            debug!(zone = %name, node = %report.sender, "list set aside: the node {why}");
        }
        verdict
    }

    fn believe(&self, sender: IpAddr, nodes: Option<NodeSet>, query: ScopeQuery<'_>, everybody: bool) {
        let mut membership = self.membership();
        membership.believe(query.number, sender, nodes, now());
        if everybody {
            membership.without_scopes();
        }
        if let Some(learnt) = membership.learnt() {
            let before = membership.overlaps().clone();
            let (name, cluster) = (self.entry.name(), &self.zone.cluster);
            membership.relate(self.resources.ownership.overlaps(name, cluster, learnt.as_slice(), &before));
        }
    }

    /// Asks nodes that a list leaves out, all at once, for their own lists. Those of everybody count only against one
    /// of everybody: who ignores scopes knows nothing of this one.
    async fn hear(
        &self,
        left_out: &[IpAddr],
        scope: Option<&Scope>,
        everybody: bool,
    ) -> BTreeMap<IpAddr, Option<NodeSet>> {
        let chosen: Vec<IpAddr> = left_out.sample(&mut rand::rng(), ASKED_MISSING_MAX).copied().collect();
        let testimonies = chosen.into_iter().map(|witness| async move {
            let told = self.ask_about(witness, scope).await;
            let counts = |told: &ScopeReply| everybody || !told.everybody;
            (witness, told.ok().filter(counts).and_then(|told| told.nodes))
        });
        testimonies.collect::<FuturesUnordered<_>>().collect().await
    }

    /// Asks one node about a scope, and notes a refusal: once, however many questions that were.
    async fn ask_about(&self, node: IpAddr, scope: Option<&Scope>) -> Result<ScopeReply, FetchError> {
        let told = self.ask_all_about(node, scope).await;
        if told.as_ref().is_err_and(FetchError::is_refusal) {
            self.membership().refused(node);
            self.publish(None);
        }
        told
    }

    /// Asks one node about a scope: each of its datacenters, and whether the node knows what a datacenter is.
    async fn ask_all_about(&self, node: IpAddr, scope: Option<&Scope>) -> Result<ScopeReply, FetchError> {
        let Some(Scope { datacenters, rack }) = scope else {
            let reply = self.attempt(node, None).await?;
            return Ok(ScopeReply::of(reply, false));
        };
        let places = datacenters.iter().map(|datacenter| Location { datacenter, rack: rack.as_deref() });
        let lists = join_all(places.map(|place| self.attempt_somewhere(node, place)));
        let (lists, knows_places) = tokio::join!(lists, self.knows_places(node));
        let mut union: Option<ScopeReply> = None;
        for list in lists {
            let told = list?;
            union = Some(match union {
                None => told,
                Some(union) => union.and(told),
            });
        }
        let told = union.ok_or(FetchError::List(ListError::Empty))?;
        Ok(ScopeReply { everybody: !knows_places?, ..told })
    }

    /// The same for one place; that nobody is there is an answer.
    async fn attempt_somewhere(&self, node: IpAddr, place: Location<'_>) -> Result<ScopeReply, FetchError> {
        match self.attempt(node, Some(place)).await {
            Ok(reply) => Ok(ScopeReply::of(reply, false)),
            Err(FetchError::List(ListError::Empty)) => Ok(ScopeReply::nobody()),
            Err(error) => Err(error),
        }
    }

    /// Whether a node honours `dc=`: asked for one that cannot exist it must list nobody.
    async fn knows_places(&self, node: IpAddr) -> Result<bool, FetchError> {
        if let Some(known) = self.support.of(node) {
            return Ok(known);
        }
        let nonexistent = Location { datacenter: NONEXISTENT_DC, rack: None };
        let knows = match self.asks.ask(node, Some(nonexistent), self.keep(node)).await {
            Ok(_) => false,
            Err(FetchError::List(ListError::Empty)) => true,
            Err(error) => return Err(error),
        };
        self.support.learn(node, knows);
        Ok(knows)
    }

    /// In a crowd a zone keeps one connection, to the node that answered last: it is asked first the next time.
    fn keep(&self, node: IpAddr) -> Keep {
        if !self.resources.at_scale.get() {
            return Keep::Shortly;
        }
        match self.membership().source() {
            Some(source) if source != node => Keep::Never,
            Some(_) | None => Keep::over(self.zone.refresh),
        }
    }

    /// Asks one node, and counts how that ended.
    async fn attempt(&self, node: IpAddr, place: Option<Location<'_>>) -> Result<ListReply, FetchError> {
        let ended = self.asks.ask(node, place, self.keep(node)).await;
        let result = match &ended {
            Ok(_) => PollResult::Ok,
            Err(error) => {
                debug!(zone = %self.entry.name(), %node, %error, "no usable list");
                error.result()
            }
        };
        self.entry.counters().polls.of(result).increment();
        ended
    }
}

impl ScopeReply {
    fn of(reply: ListReply, everybody: bool) -> Self {
        let ListReply { listing, arrived } = reply;
        Self { nodes: Some(listing.nodes), dropped: vec![listing.dropped], arrived, everybody }
    }

    fn nobody() -> Self {
        Self { nodes: None, dropped: Vec::new(), arrived: Instant::now(), everybody: false }
    }

    /// Both places together.
    fn and(mut self, other: Self) -> Self {
        let nodes = [&self.nodes, &other.nodes].into_iter().flatten().flat_map(NodeSet::as_slice).copied();
        let nodes = NodeSet::new(nodes);
        self.dropped.extend(other.dropped);
        Self { nodes, arrived: self.arrived.max(other.arrived), ..self }
    }
}

impl ScopeSupport {
    fn of(&self, node: IpAddr) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&node).filter(|(_, since)| since.elapsed() < SUPPORT_KEPT).map(|(knows, _)| *knows)
    }

    fn learn(&self, node: IpAddr, knows: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, since)| since.elapsed() < SUPPORT_KEPT);
        known.insert(node, (knows, Instant::now()));
    }
}

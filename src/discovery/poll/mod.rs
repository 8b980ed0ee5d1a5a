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

use self::hedge::{Failures, Tick};
pub use self::{
    candidates::{CROWD_ZONES, Rota},
    hedge::TIMEOUTS_IN_TICK,
};
use super::{
    clock::now,
    membership::{Claim, Verdict},
    node::{Alternator, Dropped, Endpoint, FetchError, Keep, ListError, Place, Reply},
    poller::Poller,
};
use crate::{
    config::{self, Scheme, Scope},
    metrics::PollResult,
    types::NodeSet,
};

/// Nodes that a list leaves out and that are heard before it is believed; chosen at random among more.
const HEARD_MAX: usize = 8;

/// When so many nodes say that a scope is empty, the others are not asked too.
const NOBODY_ENOUGH: usize = 3;

/// A datacenter that cannot exist, because Scylla's names have no such characters: a server that lists anybody there
/// ignores the parameters (before 2025.1).
const NOWHERE: &str = "\u{1f}no such datacenter\u{1f}";

/// How long it is believed that a node knows the parameters, or does not: servers are upgraded.
const SUPPORT_KEPT: Duration = Duration::from_secs(10);

/// How nodes are asked. An attempt ends by itself within the zone's timeout.
pub trait Ask: Send + Sync {
    /// Asks one node for its list, of everybody or of one place.
    fn ask(
        &self,
        node: IpAddr,
        place: Option<Place<'_>>,
        keep: Keep,
    ) -> impl Future<Output = Result<Reply, FetchError>> + Send;
}

/// The nodes of a real cluster.
#[derive(Clone, Debug)]
pub struct Nodes {
    alternator: Alternator,
    scheme: Scheme,
    port: std::num::NonZeroU16,
    timeout: Duration,
}

impl Nodes {
    pub(super) fn new(alternator: &Alternator, zone: &config::Zone) -> Self {
        let cluster = &zone.cluster;
        let (scheme, port) = (cluster.scheme.clone(), cluster.port);
        Self { alternator: alternator.clone(), scheme, port, timeout: zone.timeout }
    }
}

impl Ask for Nodes {
    async fn ask(&self, address: IpAddr, place: Option<Place<'_>>, keep: Keep) -> Result<Reply, FetchError> {
        let endpoint = Endpoint { scheme: self.scheme.clone(), address, port: self.port };
        self.alternator.local_nodes(&endpoint, place, self.timeout, keep).await
    }
}

/// Which nodes know the parameters of `/localnodes`, and since when that is known.
#[derive(Debug, Default)]
pub(super) struct Support(Mutex<BTreeMap<IpAddr, (bool, Instant)>>);

/// What a node told about a scope.
#[derive(Debug)]
struct Told {
    /// `None`: nobody is there.
    nodes: Option<NodeSet>,
    dropped: Vec<Dropped>,
    arrived: Instant,
    /// The node ignores scopes, and told of everybody.
    everybody: bool,
}

/// What one tick is about.
#[derive(Clone, Copy)]
struct Errand<'e> {
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

/// How an errand ended.
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
    pub(super) async fn tick(&self, rota: &mut Rota, seeds: &[IpAddr], seeds_failed: bool) -> Result<(), String> {
        let scopes = &self.zone.cluster.scope;
        let errand = Errand { number: 0, scope: None, seeds, seeds_failed };
        if scopes.is_empty() {
            return match self.run_errand(rota, errand).await {
                Ended::Listed => Ok(()),
                Ended::Nobody => Err("every node lists nobody".into()),
                Ended::Failed(failures) => Err(failures.to_string()),
            };
        }
        let rise = self.zone.health.map_or(0, |health| u32::from(health.rise.get()));
        let mut listed = false;
        for (number, scope) in scopes.iter().enumerate() {
            match self.run_errand(rota, Errand { number, scope: Some(scope), ..errand }).await {
                Ended::Listed => listed = true,
                Ended::Nobody => continue,
                Ended::Failed(failures) if listed => {
                    debug!(zone = %self.entry.name(), scope = number, "no usable list: {failures}");
                    continue;
                }
                Ended::Failed(failures) => return Err(failures.to_string()),
            }
            let settings = self.entry.answers().settings.clone();
            let elected = self.belief().elect(number, rise, |node| settings.rules.permits(node));
            self.publish(None);
            if elected {
                return Ok(());
            }
        }
        self.belief().elect_nobody();
        if listed { Ok(()) } else { Err("no node lists anybody in any scope".into()) }
    }

    /// Asks candidates about one scope until a list is believed.
    async fn run_errand(&self, rota: &mut Rota, errand: Errand<'_>) -> Ended {
        let (candidates, source) = {
            let belief = self.belief();
            (belief.candidates(errand.seeds_failed), belief.source())
        };
        rota.begin(&candidates, errand.seeds, source.filter(|_| self.tools.crowd), &mut rand::rng());
        let (mut nobody, mut failures) = (Vec::new(), Failures::default());
        let mut tick = Tick::new(rota, self.zone.timeout, |node| self.ask_about(node, errand.scope));
        while let Some((node, answer)) = tick.next().await {
            let considered = match answer {
                Ok(told) => self.consider(node, told, errand, &mut nobody).await,
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
            if nobody.len() >= NOBODY_ENOUGH {
                break;
            }
        }
        match nobody.first() {
            None => Ended::Failed(failures),
            Some(&sender) => self.consider_empty(sender, errand, failures).await,
        }
    }

    /// What a seed thinks of the scope that is answered.
    pub(super) async fn opinion(&self, seed: IpAddr) -> Result<Option<NodeSet>, FetchError> {
        let scope = self.zone.cluster.scope.get(self.belief().winner());
        Ok(self.ask_about(seed, scope).await?.nodes)
    }

    /// Judges what a node told, and believes it if it may.
    async fn consider(&self, sender: IpAddr, told: Told, errand: Errand<'_>, nobody: &mut Vec<IpAddr>) -> Considered {
        let Some(nodes) = told.nodes else {
            nobody.push(sender);
            return Considered::PassedOver("lists nobody there".into());
        };
        if told.everybody && !self.belief().has_nothing_better() {
            return Considered::PassedOver("ignores datacenter and rack".into());
        }
        let from_seed = errand.seeds.contains(&sender);
        let claim = Claim { sender, from_seed, nodes: Some(&nodes), everybody: told.everybody };
        match self.verdict(claim, errand).await {
            Verdict::SetAside(why) => Considered::PassedOver(why),
            Verdict::Hear(_) | Verdict::Believed => {
                for (reason, count) in told.dropped.into_iter().flat_map(Dropped::iter) {
                    self.entry.counters().dropped.of(reason as usize).add(count);
                }
                self.believe(sender, Some(nodes), errand, told.everybody);
                self.publish(Some(told.arrived));
                Considered::Used
            }
        }
    }

    /// Judges that a scope is empty: nobody goes unheard there either.
    async fn consider_empty(&self, sender: IpAddr, errand: Errand<'_>, failures: Failures) -> Ended {
        {
            let belief = self.belief();
            // Where it is answered, the last answer stays until another scope takes over.
            if !belief.lists(errand.number) || (errand.scope.is_some() && belief.winner() == errand.number) {
                return Ended::Nobody;
            }
        }
        let claim = Claim { sender, from_seed: true, nodes: None, everybody: false };
        match self.verdict(claim, errand).await {
            // Without scopes an empty list is no list: better the nodes that were.
            _ if errand.scope.is_none() => Ended::Failed(failures),
            Verdict::SetAside(_) => Ended::Listed,
            Verdict::Hear(_) | Verdict::Believed => {
                self.believe(sender, None, errand, false);
                Ended::Nobody
            }
        }
    }

    /// Judges a claim, after those whom it leaves out were heard.
    async fn verdict(&self, claim: Claim<'_>, errand: Errand<'_>) -> Verdict {
        let relations = self.belief().relations().clone();
        let (name, cluster) = (self.entry.name(), &self.zone.cluster);
        let is_strange = |node| self.tools.neighbours.is_strange(name, cluster, &relations, node);
        let mut verdict = self.belief().judge(errand.number, claim, now(), is_strange);
        if let Verdict::Hear(left_out) = &verdict {
            let heard = self.hear(left_out, errand.scope, claim.everybody).await;
            verdict = self.belief().settle(errand.number, claim, &heard, now(), is_strange);
        }
        if let Verdict::SetAside(why) = &verdict {
            self.entry.counters().claims_set_aside.increment();
            debug!(zone = %name, node = %claim.sender, "list set aside: the node {why}");
        }
        verdict
    }

    fn believe(&self, sender: IpAddr, nodes: Option<NodeSet>, errand: Errand<'_>, everybody: bool) {
        let mut belief = self.belief();
        belief.believe(errand.number, sender, nodes, now());
        if everybody {
            belief.without_scopes();
        }
        if let Some(learnt) = belief.learnt() {
            let before = belief.relations().clone();
            let (name, cluster) = (self.entry.name(), &self.zone.cluster);
            belief.relate(self.tools.neighbours.relations(name, cluster, learnt.as_slice(), &before));
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
        let chosen: Vec<IpAddr> = left_out.sample(&mut rand::rng(), HEARD_MAX).copied().collect();
        let testimonies = chosen.into_iter().map(|witness| async move {
            let told = self.ask_about(witness, scope).await;
            let counts = |told: &Told| everybody || !told.everybody;
            (witness, told.ok().filter(counts).and_then(|told| told.nodes))
        });
        testimonies.collect::<FuturesUnordered<_>>().collect().await
    }

    /// Asks one node about a scope, and notes a refusal: once, however many questions that were.
    async fn ask_about(&self, node: IpAddr, scope: Option<&Scope>) -> Result<Told, FetchError> {
        let told = self.ask_all_about(node, scope).await;
        if told.as_ref().is_err_and(FetchError::is_refusal) {
            self.belief().refused(node);
            self.publish(None);
        }
        told
    }

    /// Asks one node about a scope: each of its datacenters, and whether the node knows what a datacenter is.
    async fn ask_all_about(&self, node: IpAddr, scope: Option<&Scope>) -> Result<Told, FetchError> {
        let Some(Scope { datacenters, rack }) = scope else {
            let reply = self.attempt(node, None).await?;
            return Ok(Told::of(reply, false));
        };
        let places = datacenters.iter().map(|datacenter| Place { datacenter, rack: rack.as_deref() });
        let lists = join_all(places.map(|place| self.attempt_somewhere(node, place)));
        let (lists, knows_places) = tokio::join!(lists, self.knows_places(node));
        let mut union: Option<Told> = None;
        for list in lists {
            let told = list?;
            union = Some(match union {
                None => told,
                Some(union) => union.and(told),
            });
        }
        let told = union.ok_or(FetchError::List(ListError::Empty))?;
        Ok(Told { everybody: !knows_places?, ..told })
    }

    /// The same for one place; that nobody is there is an answer.
    async fn attempt_somewhere(&self, node: IpAddr, place: Place<'_>) -> Result<Told, FetchError> {
        match self.attempt(node, Some(place)).await {
            Ok(reply) => Ok(Told::of(reply, false)),
            Err(FetchError::List(ListError::Empty)) => Ok(Told::nobody()),
            Err(error) => Err(error),
        }
    }

    /// Whether a node honours `dc=`: asked for one that cannot exist it must list nobody.
    async fn knows_places(&self, node: IpAddr) -> Result<bool, FetchError> {
        if let Some(known) = self.support.of(node) {
            return Ok(known);
        }
        let nowhere = Place { datacenter: NOWHERE, rack: None };
        let knows = match self.asks.ask(node, Some(nowhere), self.keep(node)).await {
            Ok(_) => false,
            Err(FetchError::List(ListError::Empty)) => true,
            Err(error) => return Err(error),
        };
        self.support.learn(node, knows);
        Ok(knows)
    }

    /// In a crowd a zone keeps one connection, to the node that answered last: it is asked first the next time.
    fn keep(&self, node: IpAddr) -> Keep {
        if !self.tools.crowd {
            return Keep::Shortly;
        }
        match self.belief().source() {
            Some(source) if source != node => Keep::Never,
            Some(_) | None => Keep::over(self.zone.refresh),
        }
    }

    /// Asks one node, and counts how that ended.
    async fn attempt(&self, node: IpAddr, place: Option<Place<'_>>) -> Result<Reply, FetchError> {
        let ended = self.asks.ask(node, place, self.keep(node)).await;
        let result = match &ended {
            Ok(_) => PollResult::Ok,
            Err(error) => {
                debug!(zone = %self.entry.name(), %node, %error, "no usable list");
                error.result()
            }
        };
        self.entry.counters().polls.of(result as usize).increment();
        ended
    }
}

impl Told {
    fn of(reply: Reply, everybody: bool) -> Self {
        let Reply { listing, arrived } = reply;
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

impl Support {
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

//! What a node is asked for its list: one request for each datacenter of a scope, and whether it knows scopes.

mod candidates;
mod hedge;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::debug;

pub use self::{
    candidates::{AtScale, Candidates},
    hedge::{Failures, HedgedPoll, TIMEOUTS_IN_TICK},
};
use super::node::{Dropped, Endpoint, FetchError, Keep, ListError, ListReply, Location, NodeClient};
use crate::{
    config::{self, Scheme, Scope},
    metrics::PollResult,
    table::ZoneEntry,
    types::NodeSet,
};

/// A datacenter that cannot exist, because Scylla's names have no such characters: a server that lists nodes there
/// ignores the parameters (before 2025.1).
const NONEXISTENT_DC: &str = "\u{1f}no such datacenter\u{1f}";

/// How long a node counts as knowing the parameters, or not: servers are upgraded.
const SUPPORT_KEPT: Duration = Duration::from_secs(10);

/// How nodes are asked. An attempt ends by itself within the zone's timeout.
pub trait Ask: Send + Sync {
    /// Asks one node for its list, of the whole cluster or of one datacenter or rack.
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
    /// Nodes of this zone's cluster.
    pub fn new(alternator: &NodeClient, zone: &config::Zone) -> Self {
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

/// Asks nodes of one zone about scopes.
#[derive(Debug)]
pub struct ListQueries<A> {
    asks: A,
    entry: Arc<ZoneEntry>,
    support: ScopeSupport,
}

/// Which nodes know the parameters of `/localnodes`, and since when that is known.
#[derive(Debug, Default)]
struct ScopeSupport(Mutex<BTreeMap<IpAddr, (bool, Instant)>>);

/// What a node lists in a scope.
#[derive(Debug)]
pub struct ScopeReply {
    /// `None`: no node is there.
    pub nodes: Option<NodeSet>,
    /// Entries that were left out, of each list.
    pub dropped: Vec<Dropped>,
    /// When the last list arrived.
    pub arrived: Instant,
    /// The node ignores scopes, and listed the whole cluster.
    pub unscoped: bool,
}

impl<A: Ask> ListQueries<A> {
    /// Queries that are counted in the zone's entry.
    pub fn new(asks: A, entry: Arc<ZoneEntry>) -> Self {
        Self { asks, entry, support: ScopeSupport::default() }
    }

    /// Asks one node about a scope: each of its datacenters, and whether the node knows what a datacenter is.
    pub async fn ask(&self, node: IpAddr, scope: Option<&Scope>, keep: Keep) -> Result<ScopeReply, FetchError> {
        let Some(Scope { datacenters, rack }) = scope else {
            let reply = self.attempt(node, None, keep).await?;
            return Ok(ScopeReply::of(reply, false));
        };
        let places = datacenters.iter().map(|datacenter| Location { datacenter, rack: rack.as_deref() });
        let lists = join_all(places.map(|place| self.attempt_somewhere(node, place, keep)));
        let (lists, knows_places) = tokio::join!(lists, self.knows_places(node, keep));
        let mut union: Option<ScopeReply> = None;
        for list in lists {
            let reply = list?;
            union = Some(match union {
                None => reply,
                Some(union) => union.and(reply),
            });
        }
        let reply = union.ok_or(FetchError::List(ListError::Empty))?;
        Ok(ScopeReply { unscoped: !knows_places?, ..reply })
    }

    /// The same for one place; an empty list is an answer.
    async fn attempt_somewhere(&self, node: IpAddr, place: Location<'_>, keep: Keep) -> Result<ScopeReply, FetchError> {
        match self.attempt(node, Some(place), keep).await {
            Ok(reply) => Ok(ScopeReply::of(reply, false)),
            Err(FetchError::List(ListError::Empty)) => Ok(ScopeReply::empty()),
            Err(error) => Err(error),
        }
    }

    /// Whether a node honours `dc=`: asked for one that cannot exist it must send an empty list.
    async fn knows_places(&self, node: IpAddr, keep: Keep) -> Result<bool, FetchError> {
        if let Some(known) = self.support.of(node) {
            return Ok(known);
        }
        let nonexistent = Location { datacenter: NONEXISTENT_DC, rack: None };
        let knows = match self.asks.ask(node, Some(nonexistent), keep).await {
            Ok(_) => false,
            Err(FetchError::List(ListError::Empty)) => true,
            Err(error) => return Err(error),
        };
        self.support.learn(node, knows);
        Ok(knows)
    }

    /// Asks one node, and counts how that ended.
    async fn attempt(&self, node: IpAddr, place: Option<Location<'_>>, keep: Keep) -> Result<ListReply, FetchError> {
        let ended = self.asks.ask(node, place, keep).await;
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
    fn of(reply: ListReply, unscoped: bool) -> Self {
        let ListReply { listing, arrived } = reply;
        Self { nodes: Some(listing.nodes), dropped: vec![listing.dropped], arrived, unscoped }
    }

    fn empty() -> Self {
        Self { nodes: None, dropped: Vec::new(), arrived: Instant::now(), unscoped: false }
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

//! Queries of a node's list: one request for each datacenter of a scope, and one to find out whether it supports scopes.
//! Queries of the id of its cluster beside a list.

mod candidates;
mod hedge;
mod shared;
mod turns;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::debug;

use self::shared::{SharedId, SharedIds, SharedList, SharedLists};
pub use self::{
    candidates::{AtScale, Candidates},
    hedge::{Failures, HedgedPoll, TIMEOUTS_IN_TICK},
    turns::Turns,
};
use super::node::{
    Dropped, Endpoint, FetchError, IdentityQuery, IdentityReply, Keep, ListError, ListReply, Location, NodeClient,
    UnknownIdentity,
};
use crate::{
    config::{self, Scheme, Scope},
    metrics::PollResult,
    table::ZoneEntry,
    types::NodeSet,
};

/// A datacenter that cannot exist, because Scylla's names have no such characters: a server that lists nodes there
/// ignores the parameters (before 2025.1).
const NONEXISTENT_DC: &str = "\u{1f}no such datacenter\u{1f}";

/// How long it is remembered whether a node supports the parameters: servers are upgraded.
const SUPPORT_KEPT: Duration = config::SCOPE_SUPPORT_INTERVAL;

/// Sends the requests of a poll. A request ends by itself within the zone's timeout.
pub trait Ask: Send + Sync {
    /// Asks one node for its list, of the whole cluster or of one datacenter or rack.
    fn ask(
        &self,
        node: IpAddr,
        location: Option<Location<'_>>,
        keep: Keep,
    ) -> impl Future<Output = Result<ListReply, FetchError>> + Send;

    /// The same, unless some zone has got the list after this moment: then that one.
    fn ask_after(
        &self,
        node: IpAddr,
        location: Option<Location<'_>>,
        _after: Instant,
        keep: Keep,
    ) -> impl Future<Output = Result<ListReply, FetchError>> + Send {
        self.ask(node, location, keep)
    }

    /// How nodes are asked for the id of their cluster; `None`: they are not.
    fn identity_query(&self) -> Option<&IdentityQuery> {
        None
    }

    /// Asks one node for the id of its cluster; `None`: it was not asked, and is to be asked again later.
    fn identify(
        &self,
        _node: IpAddr,
        _query: &IdentityQuery,
        _after: Instant,
        _keep: Keep,
    ) -> impl Future<Output = Option<IdentityReply>> + Send {
        async { None }
    }
}

/// What nodes have replied a short time ago, shared by all zones.
#[derive(Clone, Debug, Default)]
pub struct SharedReplies {
    lists: SharedLists,
    ids: SharedIds,
}

/// The nodes of a real cluster.
#[derive(Clone, Debug)]
pub struct Nodes {
    alternator: NodeClient,
    shared: SharedReplies,
    scheme: Scheme,
    port: std::num::NonZeroU16,
    timeout: Duration,
    identity_query: Option<IdentityQuery>,
}

impl Nodes {
    /// Nodes of this zone's cluster.
    pub fn new(alternator: &NodeClient, shared: &SharedReplies, zone: &config::Zone) -> Self {
        let cluster = &zone.cluster;
        let scheme = cluster.scheme.clone();
        let port = cluster.port;
        let identity_query = alternator.identity_query(zone);
        let alternator = alternator.clone();
        Self { alternator, shared: shared.clone(), scheme, port, timeout: zone.timeout, identity_query }
    }

    fn endpoint(&self, address: IpAddr) -> Endpoint {
        Endpoint { scheme: self.scheme.clone(), address, port: self.port }
    }
}

impl Ask for Nodes {
    async fn ask(&self, address: IpAddr, location: Option<Location<'_>>, keep: Keep) -> Result<ListReply, FetchError> {
        let endpoint = self.endpoint(address);
        let reply = self.alternator.local_nodes(&endpoint, location, self.timeout, keep).await;
        match &reply {
            Ok(list) => self.shared.lists.keep(&endpoint, location, SharedList::Listed(list.clone())),
            Err(FetchError::List(ListError::Empty)) => {
                self.shared.lists.keep(&endpoint, location, SharedList::Empty(Instant::now()));
            }
            Err(_) => {}
        }
        reply
    }

    async fn ask_after(
        &self,
        address: IpAddr,
        location: Option<Location<'_>>,
        after: Instant,
        keep: Keep,
    ) -> Result<ListReply, FetchError> {
        match self.shared.lists.newer(&self.endpoint(address), location, after).await {
            Ok(SharedList::Listed(list)) => Ok(list),
            Ok(SharedList::Empty(_)) => Err(FetchError::List(ListError::Empty)),
            Err(_flight) => self.ask(address, location, keep).await,
        }
    }

    fn identity_query(&self) -> Option<&IdentityQuery> {
        self.identity_query.as_ref()
    }

    async fn identify(
        &self,
        address: IpAddr,
        query: &IdentityQuery,
        after: Instant,
        keep: Keep,
    ) -> Option<IdentityReply> {
        let endpoint = self.endpoint(address);
        let _flight = match self.shared.ids.newer(&endpoint, None, after).await {
            Ok(SharedId { reply, .. }) => return Some(reply),
            Err(flight) => flight,
        };
        let reply = self.alternator.identify(&endpoint, query, self.timeout, keep).await?;
        if let IdentityReply::Unknown(UnknownIdentity::NotAsked(_)) = reply {
            return Some(reply);
        }
        self.shared.ids.keep(&endpoint, None, SharedId { reply: reply.clone(), arrived: Instant::now() });
        Some(reply)
    }
}

/// Asks nodes of one zone about scopes.
#[derive(Debug)]
pub struct ListQueries<A> {
    asks: A,
    entry: Arc<ZoneEntry>,
    support: ScopeSupport,
}

/// Which nodes support the parameters of `/localnodes`, and when that was found out.
#[derive(Debug, Default)]
struct ScopeSupport(Mutex<BTreeMap<IpAddr, (bool, Instant)>>);

/// What a node lists in a scope.
#[derive(Debug)]
pub struct ScopeReply {
    /// `None`: no node is in the scope.
    pub nodes: Option<NodeSet>,
    /// The dropped entries of each list.
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

    /// How nodes are asked for the id of their cluster; `None`: they are not.
    pub fn identity_query(&self) -> Option<&IdentityQuery> {
        self.asks.identity_query()
    }

    /// Asks one node for the id of its cluster; `None`: it was not asked, and is to be asked again later.
    ///
    /// An id that any zone has got after that moment serves too.
    pub async fn identify(
        &self,
        node: IpAddr,
        query: &IdentityQuery,
        after: Instant,
        keep: Keep,
    ) -> Option<IdentityReply> {
        self.asks.identify(node, query, after, keep).await
    }

    /// Asks one node about a scope: for the list of each datacenter, and whether the node supports scopes. With `after`,
    /// lists that any zone has got since serve too.
    pub async fn ask(
        &self,
        node: IpAddr,
        scope: Option<&Scope>,
        keep: Keep,
        after: Option<Instant>,
    ) -> Result<ScopeReply, FetchError> {
        let Some(Scope { datacenters, rack }) = scope else {
            let reply = self.request(node, None, keep, after).await?;
            return Ok(ScopeReply::of(reply, false));
        };
        let locations = datacenters.iter().map(|datacenter| Location { datacenter, rack: rack.as_deref() });
        let lists = join_all(locations.map(|location| self.ask_location(node, location, keep, after)));
        let (lists, supports_scopes) = tokio::join!(lists, self.supports_scopes(node, keep));
        let mut union: Option<ScopeReply> = None;
        for list in lists {
            let reply = list?;
            union = Some(match union {
                None => reply,
                Some(union) => union.and(reply),
            });
        }
        let reply = union.ok_or(FetchError::List(ListError::Empty))?;
        Ok(ScopeReply { unscoped: !supports_scopes?, ..reply })
    }

    /// Asks for the list of one location; an empty list is an answer.
    async fn ask_location(
        &self,
        node: IpAddr,
        location: Location<'_>,
        keep: Keep,
        after: Option<Instant>,
    ) -> Result<ScopeReply, FetchError> {
        match self.request(node, Some(location), keep, after).await {
            Ok(reply) => Ok(ScopeReply::of(reply, false)),
            Err(FetchError::List(ListError::Empty)) => Ok(ScopeReply::empty()),
            Err(error) => Err(error),
        }
    }

    /// Whether a node honours `dc=`: asked for one that cannot exist it must send an empty list.
    async fn supports_scopes(&self, node: IpAddr, keep: Keep) -> Result<bool, FetchError> {
        if let Some(known) = self.support.of(node) {
            return Ok(known);
        }
        let nonexistent = Location { datacenter: NONEXISTENT_DC, rack: None };
        let recently = Instant::now().checked_sub(SUPPORT_KEPT).unwrap_or_else(Instant::now);
        let supports = match self.asks.ask_after(node, Some(nonexistent), recently, keep).await {
            Ok(_) => false,
            Err(FetchError::List(ListError::Empty)) => true,
            Err(error) => return Err(error),
        };
        self.support.learn(node, supports);
        Ok(supports)
    }

    /// Sends one request, and counts its result.
    async fn request(
        &self,
        node: IpAddr,
        location: Option<Location<'_>>,
        keep: Keep,
        after: Option<Instant>,
    ) -> Result<ListReply, FetchError> {
        let ended = match after {
            Some(after) => self.asks.ask_after(node, location, after, keep).await,
            None => self.asks.ask(node, location, keep).await,
        };
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

    /// The union of two lists.
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
        known.get(&node).filter(|(_, since)| since.elapsed() < SUPPORT_KEPT).map(|(supports, _)| *supports)
    }

    fn learn(&self, node: IpAddr, supports: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, since)| since.elapsed() < SUPPORT_KEPT);
        known.insert(node, (supports, Instant::now()));
    }
}

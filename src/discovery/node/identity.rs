//! Which cluster a node belongs to: a `Query` of the DynamoDB API for the id that its cluster has in a system table.
//!
//! - `reply`: what the answer says; octets in, id out.
//! - `permission`: whether a cluster may be asked now; after a refusal it is not asked for long.
//! - `signing`: signs the query with the keys of a role.
//!
//! `client` sends the query.

mod permission;
mod reply;
mod signing;

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU16,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::Notify, time::timeout};
use tracing::{info, warn};

use self::{
    permission::{AskPermission, NewlyRefused, Permission},
    signing::{SignatureHeaders, Signer, Unsigned},
};
pub use self::{
    permission::{SIGNED_REFUSED_PAUSE, UNSIGNED_REFUSED_PAUSE},
    reply::{IDENTITY_OCTETS_MAX, IdentityReply, Refusal, UnknownIdentity, parse_identity},
    signing::{SECRET_FILE_OCTETS_MAX, SecretKey, SecretKeyError},
};
use super::super::clock;
use crate::{
    config::{self, Identity, Scheme, Zone},
    net::watched::FileReader,
    types::{ClusterLabel, Seed},
};

/// Between two identity queries to a node that stays, give or take a tenth: a UUID that no cluster changes by itself, and
/// an address that changes hands is noticed by its lists long before.
pub const IDENTITY_INTERVAL: Duration = config::IDENTITY_INTERVAL;

/// How long an identity query may take, whatever is allowed to a probe: nothing waits for it, and while nodes hang it
/// bounds what they hold.
pub const IDENTITY_QUERY_MAX: Duration = Duration::from_secs(5);

/// How long a query waits for the outcome of the one that finds out whether its cluster answers: most clusters answer
/// within milliseconds, so that all nodes of a new zone are asked with their first probes.
const GRANT_WAIT_MAX: Duration = Duration::from_millis(250);

/// The query: `Query` of the virtual table through which Alternator shows `system.scylla_local`, for one key.
pub const IDENTITY_BODY: &str = concat!(
    r##"{"TableName":".scylla.alternator.system.scylla_local","KeyConditionExpression":"#k = :v","##,
    r##""ExpressionAttributeNames":{"#k":"key"},"ExpressionAttributeValues":{":v":{"S":"raft_group0_id"}}}"##
);

/// The headers of the query, beside `Host` and those of a signature.
pub const IDENTITY_HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "DynamoDB_20120810.Query")];

/// Between two sweeps of clusters that no zone has any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Refusals that are remembered for clusters that no zone has any more: as many as there are zones in a large file. A
/// program that edits the file without end must not make them grow.
const REMEMBERED_MAX: usize = 10_000;

/// How the nodes of one cluster are asked for its id. Zones of one cluster with the same keys share it.
#[derive(Clone, Debug)]
pub struct IdentityQuery(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: queries have no signature.
    signer: Option<Signer>,
    permission: Mutex<AskPermission>,
    /// The outcome of a query is known, or the query is lost.
    settled: Notify,
}

/// What a query needs to be sent: headers of a signature, if any, and the permission.
#[derive(Debug)]
pub struct Prepared {
    /// Headers in addition to [`IDENTITY_HEADERS`].
    pub headers: SignatureHeaders,
    /// Takes the node's reply, once there is one.
    pub grant: Grant,
}

/// The permission to send one query. Dropping it says that the query had no answer.
#[derive(Debug)]
pub struct Grant {
    query: IdentityQuery,
    node: IpAddr,
    is_reported: bool,
}

impl IdentityQuery {
    fn new(identity: &Identity, reader: &FileReader) -> Self {
        let (signer, pause) = match identity {
            Identity::Signed(keys) => (Some(Signer::new(keys, reader.clone())), SIGNED_REFUSED_PAUSE),
            Identity::Off | Identity::Unsigned => (None, UNSIGNED_REFUSED_PAUSE),
        };
        Self(Arc::new(Shared { signer, permission: Mutex::new(AskPermission::new(pause)), settled: Notify::new() }))
    }

    /// Whether queries have a signature.
    pub fn is_signed(&self) -> bool {
        self.0.signer.is_some()
    }

    /// Whether both are asked for one cluster with the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Signs a query to a node at this URL, and asks for permission to send it.
    ///
    /// # Errors
    /// The query is not sent. With a reply, that is its outcome; without one, another query is on its way that finds out
    /// whether the cluster answers at all, and this one is to be repeated later.
    pub async fn prepare(&self, node: IpAddr, url: &str) -> Result<Prepared, Option<IdentityReply>> {
        let not_signed = |why: String| Some(IdentityReply::Unknown(UnknownIdentity::NotAsked(why)));
        let Some(signer) = &self.0.signer else {
            return Ok(Prepared { headers: Vec::new(), grant: self.grant(node).await? });
        };
        let current = signer.current_key().await.map_err(not_signed)?;
        if current.has_changed {
            self.permission().forget_refusal();
        }
        let grant = self.grant(node).await?;
        let request = Unsigned { url, headers: &IDENTITY_HEADERS, body: IDENTITY_BODY };
        let headers = signer.sign(&current, request, SystemTime::now()).map_err(not_signed)?;
        Ok(Prepared { headers, grant })
    }

    /// The permission to send a query, after a short wait for the outcome of another one.
    async fn grant(&self, node: IpAddr) -> Result<Grant, Option<IdentityReply>> {
        let asked = async {
            loop {
                let mut settled = pin!(self.0.settled.notified());
                settled.as_mut().enable();
                let permission = self.permission().ask(node, clock::now());
                match permission {
                    Permission::Granted => return Ok(Grant { query: self.clone(), node, is_reported: false }),
                    Permission::Wait => settled.await,
                    Permission::Refused(refusal) => return Err(Some(IdentityReply::Refused(refusal))),
                }
            }
        };
        timeout(GRANT_WAIT_MAX, asked).await.unwrap_or(Err(None))
    }

    /// Nothing panics while it holds the lock, so the content is whole.
    fn permission(&self) -> MutexGuard<'_, AskPermission> {
        self.0.permission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// Takes over how the node answered.
    pub fn report(mut self, reply: &IdentityReply) {
        match reply {
            IdentityReply::Refused(refusal) => {
                let newly_refused = self.query.permission().refused(self.node, refusal.clone(), clock::now());
                self.log_refusal(newly_refused, refusal);
            }
            IdentityReply::Unknown(
                UnknownIdentity::Status(_) | UnknownIdentity::NoAnswer(_) | UnknownIdentity::NotAsked(_),
            ) => return,
            IdentityReply::Id(_) | IdentityReply::Unknown(_) => self.query.permission().accepted(),
        }
        self.is_reported = true;
    }

    /// The pause after a refusal bounds how often this is logged.
    fn log_refusal(&self, newly_refused: NewlyRefused, refusal: &Refusal) {
        let node = self.node;
        match (newly_refused, &self.query.0.signer) {
            (NewlyRefused::None, _) => {}
            (NewlyRefused::Node, _) => {
                info!(%node, "the node refuses to give the id of its cluster ({refusal}), which other nodes give");
            }
            (NewlyRefused::Cluster, None) => info!(
                %node,
                "the cluster refuses to give its id ({refusal}) and is not asked without a signature for a day; set \
                 identity = {{ access_key, secret_key_file }} for a role that may read system.scylla_local, or identity = false"
            ),
            (NewlyRefused::Cluster, Some(signer)) => warn!(
                %node,
                access_key = signer.access_key(),
                "the cluster refuses to give its id ({refusal}) and is asked again in ten minutes; check the secret key, \
                 and GRANT SELECT ON system.scylla_local to the role"
            ),
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.is_reported {
            self.query.permission().unanswered();
        }
        self.query.0.settled.notify_waiters();
    }
}

/// The queries of all clusters. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct IdentityQueries(Arc<Mutex<Clusters>>);

#[derive(Debug, Default)]
struct Clusters {
    reader: FileReader,
    queries: HashMap<(ClusterKey, Identity), IdentityQuery>,
    swept: Option<Instant>,
}

/// What two zones of one cluster have in common before anything is learned.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum ClusterKey {
    /// The operator says that they are of one cluster.
    Label(ClusterLabel),
    /// They begin with the same nodes.
    Seeds(Vec<Seed>, NonZeroU16, Scheme),
}

impl IdentityQueries {
    /// How the nodes of a zone's cluster are asked; `None`: they are not. A refusal outlives an edit of the file that
    /// concerns neither the place of the cluster nor its keys.
    pub fn of(&self, zone: &Zone) -> Option<IdentityQuery> {
        if zone.identity == Identity::Off {
            return None;
        }
        let now = clock::now();
        let mut clusters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.sweep(now);
        let Clusters { reader, queries, .. } = &mut *clusters;
        let key = (ClusterKey::of(zone), zone.identity.clone());
        Some(queries.entry(key).or_insert_with(|| IdentityQuery::new(&zone.identity, reader)).clone())
    }
}

impl ClusterKey {
    fn of(zone: &Zone) -> Self {
        match &zone.cluster_label {
            Some(label) => Self::Label(label.clone()),
            None => {
                let cluster = &zone.cluster;
                let mut seeds = cluster.seeds.clone();
                seeds.sort_unstable();
                Self::Seeds(seeds, cluster.port, cluster.scheme.clone())
            }
        }
    }
}

impl Clusters {
    /// Forgets clusters that no zone has any more, unless a refusal is in force: a zone that is removed and added again
    /// must not ask again.
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.duration_since(swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = Some(now);
        let is_used = |query: &IdentityQuery| Arc::strong_count(&query.0) > 1;
        self.queries.retain(|_, query| is_used(query) || query.permission().is_refused(now));
        let unused = self.queries.values().filter(|query| !is_used(query)).count();
        if unused > REMEMBERED_MAX {
            self.queries.retain(|_, query| is_used(query));
        }
    }
}

#[cfg(test)]
mod tests;

//! The configuration: what a file says once it has been understood.
//!
//! Nothing here can be wrong: [`Config::parse`] is the only way in, and it lists every mistake with its place.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use crate::zone::{AnswerCount, Seed, Ttl, ZoneName};

/// A whole file, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[zones]`, at least one.
    pub zones: BTreeMap<ZoneName, Zone>,
    /// Identifies the content: sixteen hexadecimal digits.
    pub hash: String,
}

/// `[server]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// UDP and TCP on each; at least one.
    pub listen: Vec<SocketAddr>,
    /// Status page, metrics and health; `None` switches them off.
    pub admin: Option<SocketAddr>,
    /// The name servers that NS and SOA name; empty: `ns.<zone>` with the `listen` addresses.
    pub nameservers: Vec<(ZoneName, Vec<IpAddr>)>,
}

/// One zone, its defaults filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Zone {
    /// Whom to ask and how: another value means another cluster.
    pub cluster: Cluster,
    /// Time from the end of one tick to the next, ±10 %; at least 100 ms.
    pub refresh: Duration,
    /// One `/localnodes` attempt, from connect to the last byte of the body.
    pub timeout: Duration,
    /// TTL of A and AAAA.
    pub ttl: Ttl,
    /// SOA minimum and TTL of negative answers: the zone's `ttl`, at most 5 s.
    pub negative_ttl: Ttl,
    /// How many nodes an answer names.
    pub answers: AnswerCount,
    /// Whether every name below the zone answers like the zone itself.
    pub subdomains: bool,
}

/// Whom to ask: what makes two zones speak of the same cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// At least one, each once, in the order of the file.
    pub seeds: Vec<Seed>,
    /// The port of every node.
    pub port: NonZeroU16,
}

/// What the admin interface tells about the file.
#[derive(Clone, Debug)]
pub struct ConfigStatus {
    /// The file.
    pub path: PathBuf,
    /// [`Config::hash`] of what is in force.
    pub hash: String,
    /// When it came into force.
    pub loaded: SystemTime,
    /// Why the file as it is now was refused; `None` when it is in force.
    pub error: Option<String>,
}

/// Somebody asks for a reload and waits: the summary of what changed, or the complaint.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Where the outcome goes; nobody needs to be there any more.
    pub reply: oneshot::Sender<Result<String, String>>,
}

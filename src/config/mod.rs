//! The configuration: a file and those that it includes, parsed and checked.
//!
//! A [`Config`] is always valid: [`Config::parse_files`] is the only way to make one, and reports everything that is wrong in
//! the files, with line and column.
//!
//! To add a key: its name and field in `server_keys`, `zone_keys`, `forward_keys`, `transfer_keys` or `encryption_keys`, a reader
//! in `value` if its type is new, its field in a struct below, and `packaging/man/alternator-dns.toml.5`.

mod changes;
mod definitions;
mod diagnostic;
mod effective;
mod encryption_keys;
mod file;
mod forward_keys;
mod hints;
mod include;
mod keys;
mod named_files;
mod node_load;
mod parts;
mod schema;
mod scope_keys;
mod sections;
mod server_keys;
mod sources;
mod status;
mod syntax;
mod texts;
mod transfer_keys;
mod value;
mod view_keys;
mod warnings;
mod zone_keys;

use std::{
    collections::BTreeMap,
    error::Error,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroU16},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::oneshot;

pub use self::changes::{
    CONFIGURATIONS_MAX, ConfigChanges, ConfigEvent, ConfigHistory, ConfigOutcome, NamedZones, changed_forward_keys,
    changed_server_keys, changed_transfer_keys, changed_zone_keys,
};
pub use self::diagnostic::{DIAGNOSTICS_SHOWN_MAX, Diagnostic, Diagnostics};
pub use self::effective::{EffectiveSection, EffectiveValue, SectionName, effective, effective_sections};
pub use self::forward_keys::UPSTREAMS_MAX;
pub use self::include::{EmptiedInclude, INCLUDED_FILES_MAX, IncludeError, IncludePattern};
pub use self::named_files::NamedFile;
pub use self::node_load::{
    IDENTITY_INTERVAL, NODE_REQUESTS_MAX, NodeLoad, REPORT_INTERVAL, SCOPE_SUPPORT_INTERVAL, node_loads,
};
pub use self::schema::schema;
pub use self::sources::{RawFile, SourceFile, content_hash, digest, files_hash, includes_of, state_dir_of_refused};
pub use self::status::ConfigStatus;
pub use self::transfer_keys::{SECONDARIES_MAX, Transfer, TransferKey, TsigAlgorithm};
pub use crate::types::Scope;
use crate::{
    metrics::Transport,
    types::{AddressRules, AllowedClients, AnswerCount, ClusterId, ClusterLabel, RateLimit, Seed, Ttl, ZoneName},
};

/// The largest configuration that is read, all its files together: forty thousand zones. Parsing one takes some fifteen times
/// as much memory.
pub const FILE_OCTETS_MAX: u64 = 4 << 20;

/// What some editors put before the first character of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A whole configuration, parsed and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[forward]`; `None`: names of no zone are refused.
    pub forward: Option<Forward>,
    /// `[transfer]`; `None`: no zone is transferred.
    pub transfer: Option<Transfer>,
    /// `[zones]`, at least one.
    pub zones: BTreeMap<ZoneName, Zone>,
    /// The zones that are polled for views: each like the view's zone, but with the view's scope. The keys are those of
    /// [`View::key`].
    pub views: BTreeMap<ZoneName, Zone>,
    /// Of each zone the number of its file, and the line.
    zone_places: BTreeMap<ZoneName, (usize, usize)>,
    /// Identifies the content of all files: sixteen hexadecimal digits.
    pub hash: String,
    /// What it was parsed from; the main file is the first.
    pub sources: Arc<[SourceFile]>,
}

/// `[server]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// UDP and TCP on each; at least one.
    pub listen: Vec<SocketAddr>,
    /// `listen` is the default: addresses that this host does not have may be left out.
    pub listen_by_default: bool,
    /// DNS over TLS, HTTPS and QUIC; `None`: none of them.
    pub encryption: Option<Encryption>,
    /// Status page, metrics and health; `None` switches them off.
    pub admin: Option<SocketAddr>,
    /// Further names under which the status page and `/api` answer.
    pub admin_hosts: Vec<ZoneName>,
    /// The name servers in NS and SOA records; empty: `ns.<zone>` with the `listen` addresses.
    pub nameservers: Vec<(ZoneName, Vec<IpAddr>)>,
    /// Names that are delegated to this server and are not zones themselves; zones lie below them.
    pub domains: Vec<ZoneName>,
    /// The clients that may ask about names outside all zones, and about zones without `clients` of their own.
    pub clients: AllowedClients,
    /// The server's identifier (RFC 5001) and the text of `id.server`; `None`: none.
    pub nsid: Option<String>,
    /// The text of `version.bind`; `None`: no such record.
    pub version: Option<String>,
    /// The file of cookie secrets that replicas share; `None`: a random secret for the life of the process.
    pub cookie_secret_file: Option<PathBuf>,
    /// Limits of TCP connections.
    pub tcp: TcpLimits,
    /// Limits replies over UDP; `None`: no limit.
    pub rate_limit: Option<RateLimit>,
    /// The directory of the snapshot; `None`: systemd's `$STATE_DIRECTORY`, if set.
    pub state_dir: Option<PathBuf>,
    /// Older nodes of the snapshot are ignored at start.
    pub snapshot_max_age: Duration,
    /// Further files with zones.
    pub include: Vec<IncludePattern>,
}

/// `listen_tls`, `listen_https`, `listen_quic` and `tls` of `[server]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encryption {
    /// Addresses, each with its transport; at least one.
    pub listen: Vec<(SecureTransport, SocketAddr)>,
    /// The server's certificate chain (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

/// An encrypted transport.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecureTransport {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl SecureTransport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tls, Self::Https, Self::Quic];

    /// Whether it uses a UDP port; the others use a TCP port.
    pub const fn is_datagrams(self) -> bool {
        matches!(self, Self::Quic)
    }

    /// The key of `[server]` that lists its addresses.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Tls => "listen_tls",
            Self::Https => "listen_https",
            Self::Quic => "listen_quic",
        }
    }

    /// The transport in metrics.
    pub const fn transport(self) -> Transport {
        match self {
            Self::Tls => Transport::Tls,
            Self::Https => Transport::Https,
            Self::Quic => Transport::Quic,
        }
    }
}

/// `[server.tcp]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpLimits {
    /// Connections in all; beyond it the longest idle one is closed.
    pub max_connections: usize,
    /// Connections from one address; beyond it the longest idle one of them is closed.
    pub max_per_client: usize,
    /// From the last reply to the first octet of the next query.
    pub idle: Duration,
    /// From the first octet of a query to its last, and for the client to receive a reply.
    pub message: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_per_client: 128,
            idle: Duration::from_secs(10),
            message: Duration::from_secs(5),
        }
    }
}

/// `[forward]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// The resolvers to ask, in this order; at least one, each once.
    pub upstreams: Vec<Upstream>,
    /// The clients whose queries are forwarded; never [`AllowedClients::Any`].
    pub clients: AllowedClients,
}

/// A resolver of `[forward]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Its address and port.
    pub address: SocketAddr,
    /// The name in its certificate, for TLS; `None`: UDP, and TCP after a truncated reply.
    pub tls_name: Option<String>,
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.tls_name {
            Some(name) => write!(f, "tls://{}#{name}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// One zone, its defaults filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Zone {
    /// Which nodes to ask and how. After a change it may be another cluster.
    pub cluster: Cluster,
    /// From the beginning of one poll round to the next, ±10 %; at least 100 ms.
    pub refresh: Duration,
    /// One `/localnodes` attempt, from connect to the last byte of the body.
    pub timeout: Duration,
    /// TTL of A and AAAA.
    pub ttl: Ttl,
    /// SOA minimum and TTL of negative answers; by default the zone's `ttl`, at most 5 s.
    pub negative_ttl: Ttl,
    /// How many addresses one answer has.
    pub answers: AnswerCount,
    /// How many addresses of each family secondaries get.
    pub max_addresses: NonZeroU8,
    /// Whether every name below the zone answers like the zone itself.
    pub subdomains: bool,
    /// How listed nodes are probed; `None`: no probes.
    pub health: Option<Health>,
    /// Which listed addresses are answered, and how they are translated.
    pub rules: AddressRules,
    /// How long nodes are answered without a successful poll; `None`: indefinitely.
    pub max_stale: Option<Duration>,
    /// The clients that may ask.
    pub clients: AllowedClients,
    /// The clients that get the nodes of other scopes; their networks do not overlap.
    pub views: Vec<View>,
    /// Zones with the same label are zones of one cluster.
    ///
    /// This key and the next two are no part of `cluster`: they say what is known about it, and a change of them makes
    /// it no other cluster. Its nodes stay known, and are judged anew.
    pub cluster_label: Option<ClusterLabel>,
    /// The id of the zone's cluster: a node that gives another id is foreign.
    pub cluster_id: Option<ClusterId>,
    /// How nodes are asked for the id of their cluster.
    pub identity: Identity,
}

/// One of `views` of a zone: clients that get nodes of other scopes than the zone's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    /// Where the clients are; at least one network, each once.
    pub clients: Arc<[IpNet]>,
    /// As of a zone; at least one.
    pub scope: Vec<Scope>,
}

impl View {
    /// The key of this view of a zone, where something is kept by zone. It stays when views change their order.
    pub fn key(&self, zone: &ZoneName) -> ZoneName {
        self.clients.iter().min().map_or_else(|| zone.clone(), |first| zone.of_view(first))
    }

    /// What is polled for this view of a zone.
    fn polled(&self, zone: &Zone) -> Zone {
        let cluster = Cluster { scope: self.scope.clone(), ..zone.cluster.clone() };
        Zone { cluster, views: Vec::new(), ..zone.clone() }
    }
}

/// What is polled for the views of all zones.
fn polled_views(zones: &BTreeMap<ZoneName, Zone>) -> BTreeMap<ZoneName, Zone> {
    let of_zone = |(name, zone): (&ZoneName, &Zone)| -> Vec<_> {
        zone.views.iter().map(|view| (view.key(name), view.polled(zone))).collect()
    };
    zones.iter().flat_map(of_zone).collect()
}

/// `identity` of a zone: how nodes are asked for the id of their cluster.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum Identity {
    /// `false`: they are not asked.
    Off,
    /// By a request without a signature, which is refused where authorization is enforced.
    #[default]
    Unsigned,
    /// By a request with a signature.
    Signed(IdentityKeys),
}

/// The keys that sign identity queries. The file is read when a query needs it, and again when it changes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct IdentityKeys {
    /// The name of a role of the cluster.
    pub access_key: String,
    /// The file of the role's secret key.
    pub secret_key_file: PathBuf,
}

/// Which nodes to ask and how: with equal values two zones have the same cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// At least one, each once, in the order of the file.
    pub seeds: Vec<Seed>,
    /// The port of every node.
    pub port: NonZeroU16,
    /// HTTP or HTTPS.
    pub scheme: Scheme,
    /// The parts of the cluster that may be answered: the first with a healthy node is. Empty: whatever a node lists.
    pub scope: Vec<Scope>,
}

/// The protocol of requests to nodes.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https(Tls),
}

/// `tls` of a zone. The files are read when a poller needs them, and again when they change.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub struct Tls {
    /// Certificate authorities of the nodes' certificates (PEM); `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The name that the nodes' certificates must have; `None`: the node's address.
    pub server_name: Option<String>,
    /// Client certificate and key (PEM), for nodes that require one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Certificates are not checked at all.
    pub insecure: bool,
}

/// `health` of a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Health {
    /// Between two probes of a node, ±10 %; at least 100 ms.
    pub interval: Duration,
    /// One probe, from connect to the status line.
    pub timeout: Duration,
    /// Consecutive successes after which a node returns.
    pub rise: NonZeroU8,
    /// Consecutive failures after which a node leaves.
    pub fall: NonZeroU8,
}

/// A request to reload, from an operator who waits for the outcome.
#[derive(Debug)]
pub struct ReloadRequest {
    /// Gets the summary of what changed, or why the file was refused. The receiver may be gone.
    pub reply: oneshot::Sender<Result<String, ReloadError>>,
}

/// Why a reload has changed nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(Arc<dyn Error + Send + Sync>),
    /// The file has errors.
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
    /// Parsing the file panicked, or the process ends.
    #[error("reading {} failed: {reason}", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The configuration cannot be put in force: a port that it needs is in use, for example.
    #[error("{0}")]
    Refused(Arc<dyn Error + Send + Sync>),
    /// An entry of `include` matches no file any more, and nothing says that this is meant.
    #[error("{0}")]
    EmptiedInclude(EmptiedInclude),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Config {
    /// What is allowed but probably not meant, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let wildcards_only = self.server.listen.iter().all(|address| address.ip().is_unspecified());
        let mut warnings = warnings::zone_warnings(self);
        if wildcards_only && self.server.nameservers.is_empty() {
            warnings.push(
                "listen has only wildcard addresses and [server] nameservers is empty, so questions for NS \
                 get no answer; a resolver that this name is delegated to may want them"
                    .into(),
            );
        }
        warnings.extend(self.include_warnings());
        warnings.extend(self.credential_warning());
        let heavy = node_loads(&self.zones).into_iter().filter(|load| load.total() > NODE_REQUESTS_MAX);
        warnings.extend(
            heavy.map(|load| format!("{load}; raise refresh or the interval of health, or shorten scope and views")),
        );
        warnings
    }
}

/// Whether two addresses cannot be bound at once over one protocol: they are equal, or one is the wildcard of the other.
pub fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    same && one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use proptest::prelude::*;

    fn errors(text: &str) -> String {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap_err().to_string()
    }

    /// Each file, and all its errors with line and column.
    #[track_caller]
    fn assert_errors(cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(errors(text), *expected);
        }
    }

    fn parsed(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap()
    }

    const GOOD: &str = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n";

    #[test]
    fn a_zone_takes_its_own_keys_then_those_of_defaults() {
        let config = parsed(
            "[defaults]\nport = 9000\nttl = \"9s\"\n\n[zones.\"A.example.\"]\nseeds = [\"10.0.0.1\", \"::1\", \
             \"node-a.internal\", \"10.0.0.1\"]\nttl = \"0s\"\nanswers = \"all\"\n",
        );
        let zone = &config.zones[&ZoneName::parse("a.example").unwrap()];
        assert_eq!(zone.cluster.port.get(), 9000);
        assert_eq!((zone.ttl.as_secs(), zone.negative_ttl.as_secs()), (0, 0));
        assert_eq!((zone.refresh, zone.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
        assert_eq!((zone.answers, zone.subdomains), (AnswerCount::All, false));
        assert_eq!(zone.cluster.seeds.len(), 3, "a seed that is listed twice counts once");
        assert_eq!(config.server.listen.len(), 2);
        assert_eq!(config.server.admin, None);
        assert!(parsed("[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n").zones[&ZoneName::root()].subdomains);
        let place = config.place_of(&ZoneName::parse("a.example").unwrap());
        assert_eq!(place, Some((Path::new("z.toml"), 5)));
    }

    #[test]
    fn a_message_is_cut_in_its_middle() {
        let said = errors(&format!("[zones.\"a\"]\nseeds = [\"{}:1\"]\n", "é".repeat(100_000)));
        assert!(said.starts_with("z.toml:2:10: seed \"éé") && said.ends_with("é\" here and port = 1 in the zone"));
        assert!(said.contains("é[... 199260 characters ...]é"), "{}", said.chars().count());
        assert!(said.chars().count() < 900, "{}", said.chars().count());
    }

    #[test]
    fn addresses_that_no_host_can_listen_on_are_refused() {
        let said = |listen: &str| errors(&format!("[server]\nlisten = [\"{listen}\"]\n{GOOD}"));
        for (listen, expected) in [
            ("224.0.0.5:53", "\"224.0.0.5:53\" is a multicast address; write one of this host"),
            ("[ff02::1]:53", "\"[ff02::1]:53\" is a multicast address; write one of this host"),
            ("255.255.255.255:53", "\"255.255.255.255:53\" is the broadcast address; write one of this host"),
            ("[::ffff:10.0.0.1]:53", "\"[::ffff:10.0.0.1]:53\" is an IPv4 address; write \"10.0.0.1:53\""),
            (
                "[fe80::1]:53",
                "\"[fe80::1]:53\" needs the number of its interface; write \"[fe80::1%N]:53\" with the number that \
                 `ip link` shows",
            ),
        ] {
            assert_eq!(said(listen), format!("z.toml:2:11: {expected}"));
        }
        parsed(&format!("[server]\nlisten = [\"[fe80::1%2]:53\", \"0.0.0.0:53\"]\n{GOOD}"));
    }

    #[test]
    fn bad_seeds_are_located() {
        assert_errors(&[
            (
                "[zones.\"a\"]\n",
                "z.toml:1:8: zone a. has no seeds; add seeds = [\"address or host name of a node\", ...]",
            ),
            ("[zones.\"a\"]\nseeds = []\n", "z.toml:2:9: zone a. has an empty list of seeds; name at least one node"),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\", \"10.0.0.2:8000\"]\n",
                "z.toml:2:22: seed \"10.0.0.2:8000\" has a port; write \"10.0.0.2\" here and port = 8000 in the zone",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"fd00::1%eth0\"]\n",
                "z.toml:2:10: seed \"fd00::1%eth0\" names the interface eth0; write an address that needs none",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"a\\n\\u001b:1\"]\n",
                "z.toml:2:10: seed \"a\\n\\u{1b}:1\" has a port; write \"a\\n\\u{1b}\" here and port = 1 in the zone",
            ),
            ("[zones.\"a\"]\nseeds = [\"[::1]\"]\n", "z.toml:2:10: seed \"[::1]\" has brackets; write \"::1\""),
            ("[zones.\"a\"]\nseeds = [\"0.0.0.0\"]\n", "z.toml:2:10: 0.0.0.0 is not the address of one host"),
            (
                "[zones.\"a\"]\nseeds = [\"n.a\"]\n",
                "z.toml:2:10: seed n.a lies inside this server's zone a., so looking it up would need this server; use an address",
            ),
            (
                "[defaults]\nseeds = [\"10.0.0.1\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:9: seeds belong to one zone, not to [defaults]",
            ),
            (
                "# \u{e4}\u{f6}\u{fc}\n[zones.\"a\"]\nseeds = [\"10.0.0.1\", \"\u{e4}.b\"]\n",
                "z.toml:3:22: seed \"\u{e4}.b\" has the character '\u{e4}'; write the name as it is in DNS, \"xn--4ca.b\"",
            ),
        ]);
    }

    #[test]
    fn bad_zone_names_are_located() {
        assert_errors(&[
            ("", "z.toml:1:1: no zone; add [zones.\"alternator.example.com\"] with its seeds"),
            (
                "[zones.a.example.com]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:1:8: the dots in a zone's name need quotes; write [zones.\"a.example.com\"]",
            ),
            (
                "[zones.\"a\\n\".b]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:1:8: the dots in a zone's name need quotes; write [zones.\"a\\n.b\"]",
            ),
            (
                "[zones.\"a..b\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:1:8: zone \"a..b\" has an empty label (two dots in a row, or a dot at the start)",
            ),
            (
                "[zones.\"a.b\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"A.b.\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:3:8: zone a.b. is defined twice; it is in line 1 already",
            ),
            (
                "[server]\nlisten = [\"0.0.0.0:53\"]\n[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:3:8: zone \".\" answers every name to every client that reaches 0.0.0.0:53; listen on loopback only, or set answer_everything = true in [server]",
            ),
            (
                "[forward]\nupstreams = [\"10.0.0.2\"]\n[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:3:8: zone \".\" answers every name, so [forward] would never be used; remove one of them",
            ),
        ]);
    }

    #[test]
    fn unknown_keys_and_sections_are_located() {
        assert_errors(&[
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nrefrsh = \"1s\"\n",
                "z.toml:3:1: zone a. has no key \"refrsh\"; did you mean \"refresh\"?",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"a\".helth]\nrise = 2\n",
                "z.toml:3:12: zone a. has no key \"helth\"; did you mean \"health\"?",
            ),
        ]);
    }

    #[test]
    fn bad_values_are_located() {
        assert_errors(&[
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nclients = [\"10.0.0.1/8\"]\n",
                "z.toml:3:12: \"10.0.0.1/8\" has bits beyond its prefix; write \"10.0.0.0/8\"",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nttl = \"1500ms\"\nrefresh = \"1ms\"\n",
                "z.toml:3:7: a TTL is whole seconds from 0s to 1d\nz.toml:4:11: \"1ms\" is out of range; expected 100ms to 1h",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nttl = 4\n",
                "z.toml:3:7: expected a duration in quotes, such as \"1s\" or \"500ms\", whole seconds from 0s to 1d, found the number 4",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nanswers = 0\n",
                "z.toml:3:11: 0 is out of range; expected 1, 2, ... or \"all\"",
            ),
        ]);
    }

    #[test]
    fn bad_admin_hosts_are_located() {
        assert_errors(&[(
            "[server]\nadmin_hosts = [\"a.b\", \"10.0.0.1\", \"http://a/\", \"a b\", \".\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
            "z.toml:2:23: \"10.0.0.1\" is not needed here; every address is allowed\nz.toml:2:35: \"http://a/\" is no host name; write the name alone, without scheme, port and path\nz.toml:2:48: \"a b\" has the character ' '; letters, digits, '-' and '_' are allowed\nz.toml:2:55: \".\" is no host",
        )]);
    }

    #[test]
    fn bad_server_keys_are_located() {
        assert_errors(&[
            (
                "[server]\ndomains = [\".\", \"a\", \"b\", \"B.\"]\n[zones.\"a\"]\nseeds = [\"n.b\"]\n",
                "z.toml:2:12: the root cannot be delegated to you; name a domain of yours",
            ),
            (
                "[server]\ndomains = [\"a\", \"b\", \"B.\"]\n[zones.\"a\"]\nseeds = [\"n.b\"]\n",
                "z.toml:2:12: a. is a zone already, so it cannot be in domains as well\nz.toml:2:22: b. is listed twice\nz.toml:4:10: seed n.b lies inside this server's domain b., so looking it up would need this server; use an address",
            ),
            (
                "[server]\nnsid = \"\"\nrate_limit = { slip = 11 }\ntcp = { idle = \"0s\", max_connections = 0 }\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:8: expected 1 to 64 printable ASCII characters\nz.toml:3:14: rate_limit needs per_second, the replies that one network gets\nz.toml:3:23: 11 is out of range; expected a number from 0 to 10\nz.toml:4:16: \"0s\" is out of range; expected 100ms to 1h\nz.toml:4:40: 0 is out of range; expected a number from 1 to 65535",
            ),
            (
                "[server]\nlisten = [\"127.0.0.1\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:11: \"127.0.0.1\" has no port; write \"127.0.0.1:53\"",
            ),
            (
                "[server]\nlisten = [\"127.0.0.1:53\", \"[::]:53\", \"0.0.0.0:53\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:38: 0.0.0.0:53 and 127.0.0.1:53 cannot both be bound; keep one of them",
            ),
            (
                "[server]\nadmin = \"127.0.0.1:53\"\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:9: admin and listen cannot both have 127.0.0.1:53; give admin another port, such as 9153",
            ),
        ]);
    }

    #[test]
    fn bad_upstreams_are_located() {
        assert_errors(&[
            (
                "[forward]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:1:2: [forward] has no upstreams; add upstreams = [\"address of a resolver\", ...]",
            ),
            (
                "[forward]\nupstreams = []\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:13: [forward] has an empty list of upstreams; name at least one resolver",
            ),
            (
                "[forward]\nupstreams = [\"dns.example\", \"10.0.0.2:dns\", \"0.0.0.0\", \"::1:0\", \"[::2]:0\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:14: \"dns.example\" is no address of a resolver; write one such as \"10.0.0.2\", \"10.0.0.2:5353\" or \"tls://10.0.0.2#dns.example\"\nz.toml:2:29: \"10.0.0.2:dns\" is no address of a resolver; write one such as \"10.0.0.2\", \"10.0.0.2:5353\" or \"tls://10.0.0.2#dns.example\"\nz.toml:2:45: 0.0.0.0 is not the address of one host\nz.toml:2:65: no resolver can be asked on port 0",
            ),
            (
                "[forward]\nupstreams = [\"tls://10.0.0.2\", \"10.0.0.2#a.example\", \"tls://10.0.0.2#a..b\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:14: \"tls://10.0.0.2\" lacks the name in the resolver's certificate; write \"tls://10.0.0.2#dns.example\"\nz.toml:2:32: \"10.0.0.2#a.example\" has a name, which only TLS needs; write \"tls://10.0.0.2#a.example\", or \"10.0.0.2\"\nz.toml:2:54: \"a..b\" is not a name that a certificate can have",
            ),
            (
                "[forward]\nupstreams = [\"10.0.0.2\", \"10.0.0.2:53\"]\nclients = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:26: 10.0.0.2:53 is listed twice\nz.toml:3:26: 0.0.0.0/0 would make this server an open resolver, which others use for attacks; name your own networks",
            ),
            (
                "[server]\nlisten = [\"10.0.0.1:53\", \"0.0.0.0:5353\"]\n[forward]\nupstreams = [\"10.0.0.1\", \"127.0.0.1:5353\", \"10.0.0.2:5353\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:4:14: upstream 10.0.0.1:53 is this server itself (listen has 10.0.0.1:53), so queries would loop; name another resolver\nz.toml:4:26: upstream 127.0.0.1:5353 is this server itself (listen has 0.0.0.0:5353), so queries would loop; name another resolver",
            ),
        ]);
    }

    #[test]
    fn upstreams_have_default_ports() {
        let upstreams = "[\"10.0.0.2\", \"10.0.0.3:5353\", \"::2\", \"[::3]:5\", \"tls://10.0.0.4#dns.example\", \"tls://[::5]:1853#::5\"]";
        let forward = parsed(&format!("[forward]\nupstreams = {upstreams}\n{GOOD}")).forward.unwrap();
        let read: Vec<_> = forward.upstreams.iter().map(ToString::to_string).collect();
        let expected = [
            "10.0.0.2:53",
            "10.0.0.3:5353",
            "[::2]:53",
            "[::3]:5",
            "tls://10.0.0.4:853#dns.example",
            "tls://[::5]:1853#::5",
        ];
        assert_eq!(read, expected);
        let may = |client: &str| forward.clients.permit(client.parse().unwrap());
        assert!(may("127.0.0.53") && may("::1") && !may("10.0.0.1"), "other clients only if named");
    }

    #[test]
    fn a_syntax_error_does_not_hide_the_other_errors() {
        let text = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"\n[zones.\"b\"]\nseeds = [\"10.0.0.1\"]\nttl = \"x\"\n";
        let first = errors(text);
        assert!(first.starts_with("z.toml:"), "{first}");
        let twice = errors("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nport = 1\nport = 2\n");
        assert_eq!(twice, "z.toml:4:1: port is set twice; it is in line 3 already");
    }

    #[test]
    fn name_servers_are_checked_against_the_zones() {
        let with = |servers: &str| format!("[server]\nnameservers = {servers}\n{GOOD}");
        let one = |servers: &str| errors(&with(servers));
        assert_eq!(
            one("[{ name = \"ns.a.example\" }]"),
            "z.toml:2:16: name server ns.a.example. lies inside this server's zone a.example.; add its addresses"
        );
        assert_eq!(
            one("[{ name = \"a.example\", addresses = [\"10.0.0.1\"] }]"),
            "z.toml:2:16: name server a.example. is a zone; give the server a name of its own"
        );
        assert_eq!(one("[{ nme = \"x\" }]").lines().count(), 2);
        assert_eq!(parsed(&with("[{ name = \"ns.elsewhere\" }]")).server.nameservers.len(), 1);
    }

    #[test]
    fn encrypted_dns_needs_addresses_and_a_certificate() {
        let with = |keys: &str| format!("[server]\nlisten = [\"127.0.0.1:53\"]\n{keys}\n{GOOD}");
        let tls = "tls = { cert = \"c.pem\", key = \"k.pem\" }";
        let both = |keys: &str| with(&format!("{keys}\n{tls}"));
        assert_eq!(parsed(&with("")).server.encryption, None);
        let same_port =
            "listen_tls = [\"127.0.0.1:853\"]\nlisten_https = [\"127.0.0.1:443\"]\nlisten_quic = [\"127.0.0.1:853\"]";
        let encryption = parsed(&both(same_port)).server.encryption.unwrap();
        assert_eq!(encryption.listen.len(), 3, "TLS and QUIC may share a port");
        assert_eq!((encryption.cert, encryption.key), ("c.pem".into(), "k.pem".into()));
        for (text, expected) in [
            (
                with("listen_tls = [\"127.0.0.1:853\"]"),
                "z.toml:3:14: listen_tls needs tls = { cert = \"...\", key = \"...\" } in [server]",
            ),
            (
                with(tls),
                "z.toml:3:7: nothing uses tls of [server]; add listen_tls, listen_https or listen_quic, or remove it",
            ),
            (
                with("listen_quic = [\"127.0.0.1:853\"]\ntls = { cert = \"c.pem\" }"),
                "z.toml:4:7: tls of [server] needs key, the PEM file of its private key",
            ),
            (
                both("listen_quic = []"),
                "z.toml:3:15: listen_quic is empty; name at least one address with a port, or leave it out",
            ),
            (both("listen_tls = [\"[::1]:53\", \"[::1]:53\"]"), "z.toml:3:27: [::1]:53 is listed twice"),
            (
                both("listen_quic = [\"0.0.0.0:53\"]"),
                "z.toml:3:16: listen_quic and listen cannot both have 0.0.0.0:53; give one another port",
            ),
            (
                both("admin = \"127.0.0.1:443\"\nlisten_https = [\"127.0.0.1:443\"]"),
                "z.toml:4:17: listen_https and admin cannot both have 127.0.0.1:443; give one another port",
            ),
            (
                both("listen_tls = [\"127.0.0.1:443\"]\nlisten_https = [\"0.0.0.0:443\"]"),
                "z.toml:4:17: listen_https and listen_tls cannot both have 0.0.0.0:443; give one another port",
            ),
        ] {
            assert_eq!(errors(&text), expected);
        }
        let exposed = both("listen_tls = [\"192.0.2.1:853\"]").replace(GOOD, "[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n");
        assert!(errors(&exposed).contains("answers every name to every client that reaches 192.0.2.1:853"));
        let admin = both("admin = \"127.0.0.1:853\"\nlisten_quic = [\"127.0.0.1:853\"]");
        assert!(parsed(&admin).server.encryption.is_some(), "HTTP is TCP and QUIC is UDP");
    }

    #[test]
    fn wildcard_addresses_without_name_servers_cause_a_warning() {
        assert_eq!(parsed(&format!("[server]\nlisten = [\"0.0.0.0:53\"]\n{GOOD}")).warnings().len(), 1);
        assert_eq!(parsed(GOOD).warnings(), [""; 0]);
    }

    #[test]
    fn a_file_that_is_not_utf8_is_refused_at_the_first_wrong_octet() {
        let refused = Config::parse(Path::new("z.toml"), b"a = 1\nb = \xff\n").unwrap_err();
        assert_eq!(refused.to_string(), "z.toml:2:5: the file is not UTF-8 text from here on");
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Config::parse(Path::new("z.toml"), &content);
        }

        #[test]
        fn no_text_in_a_value_makes_the_parser_panic(
            key in prop::sample::select(&["seeds", "ttl", "refresh", "port", "answers", "scheme", "x"][..]),
            text in "[0-9a-z:.%\\[\\]/ µ-]{0,20}|[0-9]{1,25} ?(ns|ms|s|m|h|d|y)?|\\PC{0,20}",
        ) {
            let value = toml::Value::String(text).to_string();
            let value = if key == "seeds" { format!("[{value}]") } else { value };
            let file = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"b\"]\n{key} = {value}\n");
            if let Err(diagnostics) = Config::parse(Path::new("z.toml"), file.as_bytes()) {
                for Diagnostic { line, column, message, .. } in diagnostics.list() {
                    let there = file.lines().nth(line - 1).map(|line| line.chars().count() + 1);
                    prop_assert!(there.is_some_and(|length| *column <= length), "{line}:{column} of {file:?}");
                    prop_assert!(!message.contains(char::is_control), "{message:?} takes more than a line");
                }
            }
        }

        #[test]
        fn no_toml_makes_the_parser_panic(
            text in "(\\[(server|defaults|zones|zones\\.\"a\\.b\"|zones.a.b)\\]\n|(seeds|ttl|port|listen|answers|nameservers|x) = (1|\"1s\"|\\[\"a\", 1\\]|\"all\"|\\{ a = 1 \\}|\"|\\[)\n){0,12}"
        ) {
            if let Err(diagnostics) = Config::parse(Path::new("z.toml"), text.as_bytes()) {
                prop_assert!(!diagnostics.list().is_empty());
            }
        }
    }
}

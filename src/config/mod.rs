//! The configuration: what a file says once it has been understood.
//!
//! Nothing here can be wrong: [`Config::parse`] is the only way in, and it lists every mistake with its place.

mod encryption_keys;
mod file;
mod forward_keys;
mod keys;
mod mistake;
mod server_keys;
mod value;
mod zone_keys;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::{NonZeroU8, NonZeroU16},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::sync::oneshot;

use self::mistake::{Complaint, Lines};
pub use self::mistake::{MISTAKES_SHOWN_MAX, Mistake, Mistakes};
use crate::{
    metrics::Transport,
    types::{AddressRules, AllowedClients, AnswerCount, RateLimit, Seed, Ttl, ZoneName},
};

/// The largest file that is read. Ten thousand zones take about a megabyte.
pub const FILE_OCTETS_MAX: u64 = 64 << 20;

/// A whole file, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[forward]`; `None`: names of no zone are refused.
    pub forward: Option<Forward>,
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
    /// Nobody wrote `listen`: what this host does not have may be left out.
    pub listen_by_default: bool,
    /// DNS over TLS, HTTPS and QUIC; `None`: nothing is encrypted.
    pub encryption: Option<Encryption>,
    /// Status page, metrics and health; `None` switches them off.
    pub admin: Option<SocketAddr>,
    /// The name servers that NS and SOA name; empty: `ns.<zone>` with the `listen` addresses.
    pub nameservers: Vec<(ZoneName, Vec<IpAddr>)>,
    /// Names that are delegated to us and are no zones: zones hang below them.
    pub domains: Vec<ZoneName>,
    /// Who may ask about names that are no zone's, and about zones that do not say otherwise.
    pub clients: AllowedClients,
    /// What this server calls itself; `None`: it does not tell.
    pub nsid: Option<String>,
    /// What it tells who asks for its version; `None`: nothing.
    pub version: Option<String>,
    /// Where secrets of cookies are that replicas share; `None`: one of our own, until the end of the process.
    pub cookie_secret_file: Option<PathBuf>,
    /// What clients may take over TCP.
    pub tcp: TcpLimits,
    /// Bounds replies over UDP; `None`: nothing does.
    pub rate_limit: Option<RateLimit>,
    /// Where the last known nodes are kept; `None`: systemd's `$STATE_DIRECTORY`, if there is one.
    pub state_dir: Option<PathBuf>,
    /// Nodes that were written longer ago are not believed at start.
    pub snapshot_max_age: Duration,
}

/// `listen_tls`, `listen_https`, `listen_quic` and `tls` of `[server]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Encryption {
    /// What is spoken where; at least one.
    pub listen: Vec<(SecureTransport, SocketAddr)>,
    /// Our certificate with those of the authorities above it (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

/// What carries encrypted questions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecureTransport {
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484), HTTP/2 alone.
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl SecureTransport {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Tls, Self::Https, Self::Quic];

    /// Whether it needs a UDP port; otherwise a TCP port.
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

    /// How its questions are counted and answered.
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
    /// Connections in all; over it the one that is idle for longest goes.
    pub max_connections: usize,
    /// Connections from one address; over it the one of them that is idle for longest goes.
    pub max_per_client: usize,
    /// From the last reply to the first octet of a question.
    pub idle: Duration,
    /// From the first octet of a question to its last, and for a reply to be taken.
    pub message: Duration,
}

impl Default for TcpLimits {
    fn default() -> Self {
        let (idle, message) = (Duration::from_secs(10), Duration::from_secs(5));
        Self { max_connections: 1024, max_per_client: 128, idle, message }
    }
}

/// `[forward]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// Whom to ask, in this order; at least one, each once.
    pub upstreams: Vec<Upstream>,
    /// Whose questions are passed on; never everybody's.
    pub clients: AllowedClients,
}

/// A resolver to ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// The name that its certificate bears, over TLS; `None`: UDP, and TCP where that is cut short.
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
    /// Whom to ask and how: another value means another cluster.
    pub cluster: Cluster,
    /// Time from the beginning of one tick to the next, ±10 %; at least 100 ms.
    pub refresh: Duration,
    /// One `/localnodes` attempt, from connect to the last byte of the body.
    pub timeout: Duration,
    /// TTL of A and AAAA.
    pub ttl: Ttl,
    /// SOA minimum and TTL of negative answers; unless the file says so the zone's `ttl`, at most 5 s.
    pub negative_ttl: Ttl,
    /// How many nodes an answer names.
    pub answers: AnswerCount,
    /// Whether every name below the zone answers like the zone itself.
    pub subdomains: bool,
    /// How listed nodes are probed; `None`: they are not.
    pub health: Option<Health>,
    /// Which listed addresses are answered, and as what.
    pub rules: AddressRules,
    /// How long nodes are answered without any success; `None`: for ever.
    pub max_stale: Option<Duration>,
    /// Who may ask.
    pub clients: AllowedClients,
}

/// Whom to ask: what makes two zones speak of the same cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cluster {
    /// At least one, each once, in the order of the file.
    pub seeds: Vec<Seed>,
    /// The port of every node.
    pub port: NonZeroU16,
    /// How nodes are spoken to.
    pub scheme: Scheme,
    /// Which part of the cluster is answered: the first that has a healthy node. Empty: whatever a node lists.
    pub scope: Vec<Scope>,
}

/// How nodes are spoken to.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https(Tls),
}

/// `tls` of a zone. Files are read when they are needed, and again when they change.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash)]
pub struct Tls {
    /// Authorities that sign the nodes' certificates (PEM); `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The name that certificates must bear; `None`: the node's address.
    pub server_name: Option<String>,
    /// Our certificate and key (PEM), for nodes that ask for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Certificates are not checked at all.
    pub insecure: bool,
}

/// One entry of `scope`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// At least one; of several the union is meant.
    pub datacenters: Vec<String>,
    /// Only this rack of each.
    pub rack: Option<String>,
}

/// `health` of a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Health {
    /// Between two probes of a node, ±10 %; at least 100 ms.
    pub interval: Duration,
    /// One probe, from connect to the status.
    pub timeout: Duration,
    /// A node returns after so many successes in a row.
    pub rise: NonZeroU8,
    /// A node leaves after so many failures in a row.
    pub fall: NonZeroU8,
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

impl Config {
    /// Understands a file's content; `path` only names it in complaints.
    ///
    /// # Errors
    /// Every mistake, in the order of the file.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self, Mistakes> {
        let text = std::str::from_utf8(content).map_err(|error| {
            let readable = String::from_utf8_lossy(&content[..error.valid_up_to()]);
            let complaint = Complaint::new(readable.len()..readable.len(), "the file is not UTF-8 text from here on");
            Mistakes::new(path, vec![Lines::new(&readable).locate(complaint)])
        })?;
        let mut complaints = Vec::new();
        file::read(text, &mut complaints).ok_or_else(|| {
            let lines = Lines::new(text);
            Mistakes::new(path, complaints.into_iter().map(|complaint| lines.locate(complaint)).collect())
        })
    }

    /// What is legal and yet seldom meant, in sentences.
    pub fn warnings(&self) -> Vec<String> {
        let wildcards_only = self.server.listen.iter().all(|address| address.ip().is_unspecified());
        let mut warnings = Vec::new();
        if wildcards_only && self.server.nameservers.is_empty() {
            warnings.push(
                "listen has only wildcard addresses and [server] nameservers is empty, so questions for NS \
                 get no answer; a resolver that this name is delegated to may want them"
                    .into(),
            );
        }
        warnings
    }
}

/// Whether two addresses cannot be had at once over one protocol: the same one, or a wildcard and an address of it.
pub fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    same && one.port() == other.port() && one.port() != 0 && one.is_ipv4() == other.is_ipv4()
}

/// What identifies a content: its [`digest`] in hexadecimal.
pub fn content_hash(content: &[u8]) -> String {
    format!("{:016x}", digest(content))
}

/// FNV-1a of 64 bits. It tells edits and accidents apart, is the same everywhere and for ever, and keeps no secret.
pub fn digest(content: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    content.iter().fold(OFFSET_BASIS, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn complaints(text: &str) -> String {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap_err().to_string()
    }

    fn parsed(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap()
    }

    const GOOD: &str = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n";

    #[test]
    fn a_zone_takes_defaults_then_ours() {
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
    }

    #[test]
    fn every_complaint_names_its_place() {
        for (text, expected) in [
            ("", "z.toml:1:1: no zone; add [zones.\"alternator.example.com\"] with its seeds"),
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
                "[zones.\"a\"]\nseeds = [\"a\\n\\u001b:1\"]\n",
                "z.toml:2:10: seed \"a\\n\\u{1b}:1\" has a port; write \"a\\n\\u{1b}\" here and port = 1 in the zone",
            ),
            ("[zones.\"a\"]\nseeds = [\"[::1]\"]\n", "z.toml:2:10: seed \"[::1]\" has brackets; write \"::1\""),
            ("[zones.\"a\"]\nseeds = [\"0.0.0.0\"]\n", "z.toml:2:10: 0.0.0.0 is not the address of one host"),
            (
                "[zones.\"a\"]\nseeds = [\"n.a\"]\n",
                "z.toml:2:10: seed n.a lies inside our own zone a., so finding it would need itself; use an address",
            ),
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
                "z.toml:3:8: zone a.b. is defined twice",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nrefrsh = \"1s\"\n",
                "z.toml:3:1: zone a. has no key \"refrsh\"; did you mean \"refresh\"?",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nclients = [\"10.0.0.1/8\"]\n",
                "z.toml:3:12: \"10.0.0.1/8\" has bits beyond its prefix; write \"10.0.0.0/8\"",
            ),
            (
                "[server]\ndomains = [\".\", \"a\", \"b\", \"B.\"]\n[zones.\"a\"]\nseeds = [\"n.b\"]\n",
                "z.toml:2:12: the root is nobody's to delegate; name a domain of yours",
            ),
            (
                "[server]\ndomains = [\"a\", \"b\", \"B.\"]\n[zones.\"a\"]\nseeds = [\"n.b\"]\n",
                "z.toml:2:12: a. is a zone already, so it is no domain without nodes\nz.toml:2:22: b. is listed twice\nz.toml:4:10: seed n.b lies inside our own domain b., so finding it would need itself; use an address",
            ),
            (
                "[server]\nnsid = \"\"\nrate_limit = { slip = 11 }\ntcp = { idle = \"0s\", max_connections = 0 }\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:8: expected 1 to 64 printable ASCII characters\nz.toml:3:14: rate_limit needs per_second, the replies that one network gets\nz.toml:3:23: 11 is out of range; expected a number from 0 to 10\nz.toml:4:16: \"0s\" is out of range; expected 100ms to 1h\nz.toml:4:40: 0 is out of range; expected a number from 1 to 65535",
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
            (
                "[server]\nlisten = [\"127.0.0.1\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:11: \"127.0.0.1\" has no port; write \"127.0.0.1:53\"",
            ),
            (
                "[server]\nlisten = [\"127.0.0.1:53\", \"[::]:53\", \"0.0.0.0:53\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:38: 0.0.0.0:53 and 127.0.0.1:53 cannot both be listened on; keep one of them",
            ),
            (
                "[server]\nadmin = \"127.0.0.1:53\"\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:9: admin and listen cannot both have 127.0.0.1:53; give admin another port, such as 9153",
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"a\".helth]\nrise = 2\n",
                "z.toml:3:12: zone a. has no key \"helth\"; did you mean \"health\"?",
            ),
            (
                "[server]\nlisten = [\"0.0.0.0:53\"]\n[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:3:8: zone \".\" answers every name to whoever reaches 0.0.0.0:53; listen on loopback only, or set answer_everything = true in [server]",
            ),
            (
                "[transfer]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:1:2: transfer is not supported yet by this version; remove it",
            ),
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
                "z.toml:2:14: \"dns.example\" is no address of a resolver; write one such as \"10.0.0.2\", \"10.0.0.2:5353\" or \"tls://10.0.0.2#dns.example\"\nz.toml:2:29: \"10.0.0.2:dns\" is no address of a resolver; write one such as \"10.0.0.2\", \"10.0.0.2:5353\" or \"tls://10.0.0.2#dns.example\"\nz.toml:2:45: 0.0.0.0 is not the address of one host\nz.toml:2:65: nobody can be asked on port 0",
            ),
            (
                "[forward]\nupstreams = [\"tls://10.0.0.2\", \"10.0.0.2#a.example\", \"tls://10.0.0.2#a..b\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:14: \"tls://10.0.0.2\" lacks the name that the resolver's certificate bears; write \"tls://10.0.0.2#dns.example\"\nz.toml:2:32: \"10.0.0.2#a.example\" has a name, which only TLS needs; write \"tls://10.0.0.2#a.example\", or \"10.0.0.2\"\nz.toml:2:54: \"a..b\" is no name that a certificate can bear",
            ),
            (
                "[forward]\nupstreams = [\"10.0.0.2\", \"10.0.0.2:53\"]\nclients = [\"10.0.0.0/8\", \"0.0.0.0/0\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:26: 10.0.0.2:53 is listed twice\nz.toml:3:26: 0.0.0.0/0 would make this server an open resolver, which others use for attacks; name your own networks",
            ),
            (
                "[server]\nlisten = [\"10.0.0.1:53\", \"0.0.0.0:5353\"]\n[forward]\nupstreams = [\"10.0.0.1\", \"127.0.0.1:5353\", \"10.0.0.2:5353\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:4:14: upstream 10.0.0.1:53 is this server itself (listen has 10.0.0.1:53), so questions would go round in circles; name another resolver\nz.toml:4:26: upstream 127.0.0.1:5353 is this server itself (listen has 0.0.0.0:5353), so questions would go round in circles; name another resolver",
            ),
            (
                "[forward]\nupstreams = [\"10.0.0.2\"]\n[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:3:8: zone \".\" answers every name, so nothing would be left for [forward]; remove one of them",
            ),
            (
                "[defaults]\nseeds = [\"10.0.0.1\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n",
                "z.toml:2:9: seeds belong to one zone, not to [defaults]",
            ),
            (
                "# \u{e4}\u{f6}\u{fc}\n[zones.\"a\"]\nseeds = [\"10.0.0.1\", \"\u{e4}.b\"]\n",
                "z.toml:3:22: seed \"\u{e4}.b\" has the character '\u{e4}'; letters, digits, '-' and '_' are allowed",
            ),
        ] {
            assert_eq!(complaints(text), expected);
        }
    }

    #[test]
    fn upstreams_have_the_ports_that_resolvers_have() {
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
        assert!(may("127.0.0.53") && may("::1") && !may("10.0.0.1"), "nobody else unless named");
    }

    #[test]
    fn a_broken_line_does_not_hide_the_others() {
        let text = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"\n[zones.\"b\"]\nseeds = [\"10.0.0.1\"]\nttl = \"x\"\n";
        let said = complaints(text);
        assert!(said.starts_with("z.toml:"), "{said}");
        let twice = complaints("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nport = 1\nport = 2\n");
        assert_eq!(twice, "z.toml:4:1: duplicate key");
    }

    #[test]
    fn name_servers_are_checked_against_the_zones() {
        let with = |servers: &str| format!("[server]\nnameservers = {servers}\n{GOOD}");
        let one = |servers: &str| complaints(&with(servers));
        assert_eq!(
            one("[{ name = \"ns.a.example\" }]"),
            "z.toml:2:16: name server ns.a.example. lies inside our own zone a.example.; add its addresses"
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
            assert_eq!(complaints(&text), expected);
        }
        let exposed = both("listen_tls = [\"192.0.2.1:853\"]").replace(GOOD, "[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n");
        assert!(complaints(&exposed).contains("answers every name to whoever reaches 192.0.2.1:853"));
        let admin = both("admin = \"127.0.0.1:853\"\nlisten_quic = [\"127.0.0.1:853\"]");
        assert!(parsed(&admin).server.encryption.is_some(), "HTTP is TCP and QUIC is UDP");
    }

    #[test]
    fn only_wildcards_without_name_servers_are_worth_a_warning() {
        assert_eq!(parsed(&format!("[server]\nlisten = [\"0.0.0.0:53\"]\n{GOOD}")).warnings().len(), 1);
        assert_eq!(parsed(GOOD).warnings(), [""; 0]);
    }

    #[test]
    fn what_is_no_text_is_refused_where_it_starts() {
        let refused = Config::parse(Path::new("z.toml"), b"a = 1\nb = \xff\n").unwrap_err();
        assert_eq!(refused.to_string(), "z.toml:2:5: the file is not UTF-8 text from here on");
    }

    proptest! {
        #[test]
        fn no_octets_can_break_the_reader(content in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Config::parse(Path::new("z.toml"), &content);
        }

        #[test]
        fn no_text_in_a_value_can_break_the_reader(
            key in prop::sample::select(&["seeds", "ttl", "refresh", "port", "answers", "scheme", "x"][..]),
            text in "[0-9a-z:.%\\[\\]/ µ-]{0,20}|[0-9]{1,25} ?(ns|ms|s|m|h|d|y)?|\\PC{0,20}",
        ) {
            let value = toml::Value::String(text).to_string();
            let value = if key == "seeds" { format!("[{value}]") } else { value };
            let file = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"b\"]\n{key} = {value}\n");
            if let Err(mistakes) = Config::parse(Path::new("z.toml"), file.as_bytes()) {
                for Mistake { line, column, sentence } in mistakes.list() {
                    let there = file.lines().nth(line - 1).map(|line| line.chars().count() + 1);
                    prop_assert!(there.is_some_and(|length| *column <= length), "{line}:{column} of {file:?}");
                    prop_assert!(!sentence.contains(char::is_control), "{sentence:?} takes more than a line");
                }
            }
        }

        #[test]
        fn no_toml_can_break_the_reader(
            text in "(\\[(server|defaults|zones|zones\\.\"a\\.b\"|zones.a.b)\\]\n|(seeds|ttl|port|listen|answers|nameservers|x) = (1|\"1s\"|\\[\"a\", 1\\]|\"all\"|\\{ a = 1 \\}|\"|\\[)\n){0,12}"
        ) {
            if let Err(mistakes) = Config::parse(Path::new("z.toml"), text.as_bytes()) {
                prop_assert!(!mistakes.list().is_empty());
            }
        }
    }
}

//! Counters. They are plain numbers; `admin::metrics` renders them.
//!
//! Every label value comes from an enum, so the number of zones bounds the number of series.
//!
//! To add a metric: a counter in [`ZoneCounters`] or [`ProcessCounters`], its family in `admin::metrics` (whose test lists
//! all names), and the metrics list of the README.

mod histogram;
mod node_requests;
mod transfers;
mod workers;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub use self::{
    histogram::{DURATION_BUCKETS, Histogram},
    node_requests::NodeRequests,
    transfers::{NotifyResult, TransferCounters, TransferRefusal, TransferType},
    workers::{AllWorkers, WorkerCounters, ZoneId},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Takes one away; every call undoes an earlier [`Self::increment`].
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the values of a label: an enum, the list of its members, and the text of each.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$member_doc:meta])* $member:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
        pub enum $name { $($(#[$member_doc])* $member,)+ }

        impl $name {
            /// Every member, in the order in which metrics list them.
            pub const ALL: &'static [Self] = &[$(Self::$member,)+];

            /// The label's value.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$member => $word,)+ }
            }
        }

        impl Label for $name {
            type Cells<C: Default + fmt::Debug> = [C; [$($word),+].len()];

            fn index(self) -> usize {
                // Members are declared without discriminants, so they count from 0 in the order of the array.
                self as usize
            }
        }
    };
}

pub(crate) use labels;

labels! {
    /// The type of a query; rare types share one value.
    QueryType {
        /// IPv4 addresses.
        A = "A",
        /// IPv6 addresses.
        Aaaa = "AAAA",
        /// Name servers.
        Ns = "NS",
        /// Start of authority.
        Soa = "SOA",
        /// Service binding for HTTPS, which browsers and some SDKs query beside A.
        Https = "HTTPS",
        /// Text.
        Txt = "TXT",
        /// Any type (RFC 8482).
        Any = "ANY",
        /// Any other type, or a question that could not be parsed.
        Other = "other",
    }
}

labels! {
    /// What a certificate is for.
    CertificateUse {
        /// This server shows it to clients of encrypted DNS.
        Server = "server",
        /// This server shows it to nodes.
        Client = "client",
        /// Nodes' certificates are checked with it.
        Ca = "ca",
        /// A node shows it to this server.
        Node = "node",
    }
}

labels! {
    /// The response code of a reply.
    Rcode {
        /// An answer, or no data of that type.
        NoError = "NOERROR",
        /// The message could not be parsed.
        FormErr = "FORMERR",
        /// No node is known, or no upstream answered.
        ServFail = "SERVFAIL",
        /// No such name.
        NxDomain = "NXDOMAIN",
        /// An opcode that is not served.
        NotImp = "NOTIMP",
        /// A name outside all zones, a client that may not ask, or a class that is not served.
        Refused = "REFUSED",
        /// An EDNS version that is not served.
        BadVers = "BADVERS",
        /// A query without a valid cookie, from a network over its rate limit.
        BadCookie = "BADCOOKIE",
    }
}

labels! {
    /// The transport of a query.
    Transport {
        /// UDP.
        Udp = "udp",
        /// TCP.
        Tcp = "tcp",
        /// DNS over TLS (RFC 7858).
        Tls = "tls",
        /// DNS over HTTPS (RFC 8484).
        Https = "https",
        /// DNS over QUIC (RFC 9250).
        Quic = "quic",
    }
}

impl Transport {
    /// Whether the transport encrypts queries; only then replies are padded.
    pub const fn is_encrypted(self) -> bool {
        match self {
            Self::Udp | Self::Tcp => false,
            Self::Tls | Self::Https | Self::Quic => true,
        }
    }
}

labels! {
    /// How one `/localnodes` attempt ended.
    PollResult {
        /// A usable list.
        Ok = "ok",
        /// The connection was refused.
        Refused = "refused",
        /// No complete answer within `timeout`.
        Timeout = "timeout",
        /// The connection was lost, could not be made, or did not speak HTTP.
        Broken = "broken",
        /// An HTTP status other than 200.
        Status = "status",
        /// The body is not a JSON array.
        Malformed = "malformed",
        /// The body is larger than the limit.
        TooLarge = "too_large",
        /// The list has no address that can be a node's.
        Empty = "empty",
        /// The node's certificate is not accepted, or the node does not accept ours.
        Tls = "tls",
        /// This host lacks what a request needs (descriptors, ports, memory, a TLS file), so the node was not asked.
        NotAsked = "not_asked",
    }
}

labels! {
    /// How one probe of a node ended.
    ProbeResult {
        /// A correct answer.
        Ok = "ok",
        /// The connection was refused.
        Refused = "refused",
        /// The connection was reset.
        Reset = "reset",
        /// There is no route to the node.
        Unreachable = "unreachable",
        /// No complete answer within `timeout`.
        Timeout = "timeout",
        /// An HTTP status other than 200.
        Status = "status",
        /// An answer that is no health check's.
        Malformed = "malformed",
        /// The connection was lost, could not be made, or did not speak HTTP.
        Broken = "broken",
        /// The node's certificate is not accepted, or the node does not accept ours.
        Tls = "tls",
        /// This host lacks what a request needs (descriptors, ports, memory, a TLS file), so the node was not asked.
        NotAsked = "not_asked",
        /// The probe panicked.
        Panic = "panic",
    }
}

labels! {
    /// What a node is asked for.
    NodeRequest {
        /// `/localnodes`: polls, reports and scopes.
        List = "localnodes",
        /// `/`: probes.
        Health = "health",
        /// The id of its cluster.
        Identity = "identity",
    }
}

labels! {
    /// Why an entry of a list was left out.
    DropReason {
        /// Not a string.
        NotText = "not_text",
        /// A string that is not a plain IP address: a host id, a name, or an address with a port, brackets or a zone id.
        NotAddress = "not_address",
        /// An address that cannot be a node's: wildcard, broadcast or multicast.
        NotPublishable = "not_publishable",
        /// A node beyond the maximum of one list.
        TooMany = "too_many",
    }
}

labels! {
    /// Why a message got no reply.
    IgnoreReason {
        /// Shorter than a header.
        Short = "short",
        /// A reply (QR=1); answering it could start a loop between two servers.
        Reply = "reply",
        /// Its source port is 0, to which no reply can be sent.
        PortZero = "port_zero",
        /// Its source port is that of a service that replies to everything, as a forged sender has: a reply could start a
        /// loop.
        ServicePort = "service_port",
        /// Its client network is over its `rate_limit`.
        RateLimited = "rate_limited",
    }
}

labels! {
    /// How a query for the upstreams ended.
    ForwardResult {
        /// They have records.
        Answered = "answered",
        /// They have no such record or name.
        Negative = "negative",
        /// No upstream could be reached, or all failed.
        Failed = "failed",
        /// Too many queries were waiting for upstreams.
        Overloaded = "overloaded",
    }
}

labels! {
    /// How a reload ended.
    ReloadResult {
        /// The new configuration is in force.
        Applied = "applied",
        /// The file was refused; the previous configuration stays in force.
        Refused = "refused",
        /// The content is the same as before.
        Unchanged = "unchanged",
    }
}

labels! {
    /// Why nodes of the snapshot are not used.
    SnapshotIgnored {
        /// The file cannot be read.
        Unreadable = "unreadable",
        /// The file is larger than the limit.
        TooLarge = "too_large",
        /// The file is truncated, damaged or inconsistent.
        Corrupt = "corrupt",
        /// The file has another format version.
        Version = "version",
        /// The zone had other seeds, or another port, scheme, tls or scope.
        Fingerprint = "fingerprint",
        /// The nodes are older than `snapshot_max_age`.
        Old = "old",
        /// Their time lies in the future.
        Future = "future",
    }
}

labels! {
    /// How a write of the snapshot ended.
    SnapshotWrite {
        /// The snapshot is on the disk.
        Ok = "ok",
        /// The write failed; it is retried.
        Failed = "failed",
    }
}

/// A closed set of labels.
pub trait Label: Copy {
    /// One cell for each member.
    type Cells<C: Default + fmt::Debug>: Default + fmt::Debug + AsRef<[C]>;

    /// The member's position in [`Self::Cells`].
    fn index(self) -> usize;
}

/// One counter, or another cell, for each member of a closed set.
#[derive(Debug)]
pub struct PerLabel<L: Label, C: Default + fmt::Debug = Counter>(L::Cells<C>);

impl<L: Label, C: Default + fmt::Debug> Default for PerLabel<L, C> {
    fn default() -> Self {
        Self(L::Cells::default())
    }
}

impl<L: Label, C: Default + fmt::Debug> PerLabel<L, C> {
    /// The member's cell.
    pub fn of(&self, member: L) -> &C {
        &self.0.as_ref()[member.index()]
    }
}

/// Counters of queries by type and rcode.
type ByTypeAndRcode = PerLabel<QueryType, PerLabel<Rcode>>;

/// Queries by type, rcode and transport.
#[derive(Debug, Default)]
pub struct QueryCounters {
    udp: ByTypeAndRcode,
    tcp: ByTypeAndRcode,
    /// TLS, HTTPS and QUIC. They are made on first use, because with ten thousand zones they take 15 MB.
    encrypted: OnceLock<Box<[ByTypeAndRcode; 3]>>,
}

impl QueryCounters {
    /// The counter of one combination.
    pub fn of(&self, query_type: QueryType, rcode: Rcode, transport: Transport) -> &Counter {
        let encrypted = || self.encrypted.get_or_init(Box::default);
        let by_type = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
            Transport::Tls => &encrypted()[0],
            Transport::Https => &encrypted()[1],
            Transport::Quic => &encrypted()[2],
        };
        by_type.of(query_type).of(rcode)
    }

    /// The transports that queries may have come over. All others have no counters yet.
    pub fn transports(&self) -> &'static [Transport] {
        if self.encrypted.get().is_some() { Transport::ALL } else { &[Transport::Udp, Transport::Tcp] }
    }

    /// The value of one combination; reading makes no counters.
    pub fn value(&self, query_type: QueryType, rcode: Rcode, transport: Transport) -> u64 {
        if transport.is_encrypted() && self.encrypted.get().is_none() {
            return 0;
        }
        self.of(query_type, rcode, transport).value()
    }
}

/// The counters of one zone. They live as long as the zone, across reloads.
#[derive(Debug, Default)]
pub struct ZoneCounters {
    /// Queries for this zone, except those in [`AllWorkers`]; `ZoneEntry::queries` adds both.
    pub queries: QueryCounters,
    /// `/localnodes` attempts.
    pub polls: PerLabel<PollResult>,
    /// Probes of the zone's nodes.
    pub probes: PerLabel<ProbeResult>,
    /// Entries of lists that were left out.
    pub dropped: PerLabel<DropReason>,
    /// Lists that were not used: of another cluster, of a node that no other lists yet, or contradicted by those left out.
    pub lists_set_aside: Counter,
    /// Restarts of the poller after a panic or a stall.
    pub poller_restarts: Counter,
}

/// The counters of the process.
#[derive(Debug, Default)]
pub struct ProcessCounters {
    /// Queries outside all zones.
    pub no_zone: QueryCounters,
    /// Per-worker counters of fast-path answers.
    pub workers: AllWorkers,
    /// Messages that got no reply.
    pub ignored: PerLabel<IgnoreReason>,
    /// Replies that the kernel did not take.
    pub send_errors: Counter,
    /// Requests to nodes.
    pub node_requests: Arc<NodeRequests>,
    /// Questions for the upstreams.
    pub forwarded: PerLabel<ForwardResult>,
    /// What secondaries were given, and refused.
    pub transfers: TransferCounters,
    /// Connections over TCP, TLS and HTTPS open now.
    pub tcp_connections: Gauge,
    /// Reloads by result.
    pub reloads: PerLabel<ReloadResult>,
    /// From a poll's first byte to the changed answer.
    pub node_change: Histogram,
    /// Files, and zones in them, that were ignored at the start.
    pub snapshots_ignored: PerLabel<SnapshotIgnored>,
    /// Writes of the known nodes.
    pub snapshot_writes: PerLabel<SnapshotWrite>,
    /// Unix time at which the first certificate expires; 0 without one.
    pub certificate_expiry: PerLabel<CertificateUse, Gauge>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_combination_has_a_counter_of_its_own() {
        let counters = QueryCounters::default();
        assert_eq!(counters.value(QueryType::A, Rcode::NoError, Transport::Quic), 0);
        assert!(counters.encrypted.get().is_none(), "reading makes no counters");
        for &query_type in QueryType::ALL {
            for &rcode in Rcode::ALL {
                for &transport in Transport::ALL {
                    assert_eq!(counters.of(query_type, rcode, transport).value(), 0);
                    counters.of(query_type, rcode, transport).increment();
                }
            }
        }
    }

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_is_large_enough() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_secs(60));
        let (sum, counts) = histogram.snapshot();
        assert_eq!((counts[2], counts[8], counts.iter().sum::<u64>()), (1, 1, 2));
        assert!((sum - 60.001).abs() < 1e-6);
    }
}

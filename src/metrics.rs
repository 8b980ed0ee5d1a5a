//! Plain counters. They know no HTTP and no text format; `admin` renders them.
//!
//! Every label comes from a closed set, so the number of series is bounded by the number of configured zones.

mod workers;

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub use self::workers::{AllWorkers, WorkerCounters, ZoneId};

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

/// Declares a closed set of labels: the enum, all its members and the word of each.
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

labels! {
    /// The type of a question, as far as metrics tell types apart.
    QueryType {
        /// IPv4 addresses.
        A = "A",
        /// IPv6 addresses.
        Aaaa = "AAAA",
        /// Name servers.
        Ns = "NS",
        /// Start of authority.
        Soa = "SOA",
        /// Service binding for HTTPS, which browsers and some SDKs ask beside A.
        Https = "HTTPS",
        /// Text.
        Txt = "TXT",
        /// Any type (RFC 8482).
        Any = "ANY",
        /// Every other type, and none at all where the question could not be read.
        Other = "other",
    }
}

labels! {
    /// How a reply ended.
    Rcode {
        /// Answered, or nothing of that type.
        NoError = "NOERROR",
        /// The message could not be read.
        FormErr = "FORMERR",
        /// Nothing is known yet.
        ServFail = "SERVFAIL",
        /// No such name.
        NxDomain = "NXDOMAIN",
        /// An opcode that is not served.
        NotImp = "NOTIMP",
        /// A name of no zone, or a class that is not served.
        Refused = "REFUSED",
        /// An EDNS version that is not served.
        BadVers = "BADVERS",
        /// A question without a valid cookie, from a network that asks too much.
        BadCookie = "BADCOOKIE",
    }
}

labels! {
    /// What carried a question.
    Transport {
        /// Datagrams.
        Udp = "udp",
        /// Streams.
        Tcp = "tcp",
        /// Streams over TLS (RFC 7858).
        Tls = "tls",
        /// HTTP over TLS (RFC 8484).
        Https = "https",
        /// Streams of QUIC (RFC 9250).
        Quic = "quic",
    }
}

impl Transport {
    /// Whether nobody on the way can read along.
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
        /// Nobody listens there.
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
        /// The list names no publishable address.
        Empty = "empty",
        /// The node's certificate does not fit, it does not take ours, or a file that TLS needs cannot be used.
        Tls = "tls",
    }
}

labels! {
    /// Why an entry of a list was left out.
    DropReason {
        /// Not a string.
        NotText = "not_text",
        /// A string that is no plain IP address: host id, name, port, brackets, zone id.
        NotAddress = "not_address",
        /// An address that can name no node: wildcard, broadcast, multicast.
        NotPublishable = "not_publishable",
        /// One more node than a list may have.
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
        /// It came from port 0, where no reply can go.
        PortZero = "port_zero",
        /// Its client's network asks more than `rate_limit` allows.
        RateLimited = "rate_limited",
    }
}

labels! {
    /// What became of a question that is no zone's and was to be passed on to the upstreams.
    ForwardResult {
        /// They had records.
        Answered = "answered",
        /// They said that there are none.
        Negative = "negative",
        /// None of them could be reached, or none knew.
        Failed = "failed",
        /// Too many others were under way.
        Overloaded = "overloaded",
    }
}

labels! {
    /// What became of a changed file.
    ReloadResult {
        /// In force now.
        Applied = "applied",
        /// Refused; the former file stays in force.
        Refused = "refused",
        /// The same content as before.
        Unchanged = "unchanged",
    }
}

labels! {
    /// Why nodes that were known before the start are not answered.
    SnapshotIgnored {
        /// The file cannot be read.
        Unreadable = "unreadable",
        /// The file is larger than the limit.
        TooLarge = "too_large",
        /// The file is cut short, damaged, or says what cannot be.
        Corrupt = "corrupt",
        /// The file is of another version.
        Version = "version",
        /// The zone had other seeds, or another port, scheme, tls or scope.
        Fingerprint = "fingerprint",
        /// They are older than `snapshot_max_age`.
        Old = "old",
        /// They are from the future.
        Future = "future",
    }
}

labels! {
    /// How an attempt ended to write the known nodes.
    SnapshotWrite {
        /// They are on the disk.
        Ok = "ok",
        /// They are not; it is tried again.
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

/// Counters of questions by type and rcode.
type ByTypeAndRcode = PerLabel<QueryType, PerLabel<Rcode>>;

/// Questions by type, rcode and transport.
#[derive(Debug, Default)]
pub struct QueryCounters {
    udp: ByTypeAndRcode,
    tcp: ByTypeAndRcode,
    /// TLS, HTTPS and QUIC, which most servers never speak: with ten thousand zones these are 15 MB.
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

    /// The number of one combination; asking makes no counters.
    pub fn value(&self, query_type: QueryType, rcode: Rcode, transport: Transport) -> u64 {
        if transport.is_encrypted() && self.encrypted.get().is_none() {
            return 0;
        }
        self.of(query_type, rcode, transport).value()
    }
}

/// What is counted for one zone. It lives as long as the zone, across reloads.
#[derive(Debug, Default)]
pub struct ZoneCounters {
    /// Questions answered for this zone, less what is in [`AllWorkers`]: `ZoneEntry::queries` has both.
    pub queries: QueryCounters,
    /// `/localnodes` attempts.
    pub polls: PerLabel<PollResult>,
    /// Entries of lists that were left out.
    pub dropped: PerLabel<DropReason>,
    /// Lists that were set aside: unrelated, foreign, or contradicted by whom they leave out.
    pub claims_set_aside: Counter,
    /// Times the poller panicked or stalled and was started again.
    pub poller_restarts: Counter,
}

/// What is counted for the whole process.
#[derive(Debug, Default)]
pub struct ProcessCounters {
    /// Questions that belong to no zone.
    pub no_zone: QueryCounters,
    /// What each worker counts of everyday answers.
    pub workers: AllWorkers,
    /// Messages that got no reply.
    pub ignored: PerLabel<IgnoreReason>,
    /// Replies that the kernel did not take.
    pub send_errors: Counter,
    /// Questions for the upstreams.
    pub forwarded: PerLabel<ForwardResult>,
    /// TCP connections open now.
    pub tcp_connections: Gauge,
    /// Reloads by result.
    pub reloads: PerLabel<ReloadResult>,
    /// From a poll's first byte to the changed answer.
    pub node_change: Histogram,
    /// Files, and zones in them, that were not believed at the start.
    pub snapshots_ignored: PerLabel<SnapshotIgnored>,
    /// Writes of the known nodes.
    pub snapshot_writes: PerLabel<SnapshotWrite>,
}

/// Upper bounds of the histogram's buckets, in seconds: from one that costs nothing to one that a person notices.
pub const NODE_CHANGE_BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.1, 1.0, 10.0];

/// Durations, sorted into [`NODE_CHANGE_BUCKETS`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; NODE_CHANGE_BUCKETS.len() + 1],
    sum_nanoseconds: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = NODE_CHANGE_BUCKETS.iter().position(|&bound| seconds <= bound);
        self.buckets[bucket.unwrap_or(NODE_CHANGE_BUCKETS.len())].increment();
        self.sum_nanoseconds.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum in seconds, and how many fell into each bucket (not cumulative; the last is unbounded).
    pub fn snapshot(&self) -> (f64, [u64; NODE_CHANGE_BUCKETS.len() + 1]) {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].value());
        (Duration::from_nanos(self.sum_nanoseconds.value()).as_secs_f64(), counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_has_a_counter_of_its_own() {
        let counters = QueryCounters::default();
        assert_eq!(counters.value(QueryType::A, Rcode::NoError, Transport::Quic), 0);
        assert!(counters.encrypted.get().is_none(), "asking makes no counters");
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
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_secs(60));
        let (sum, counts) = histogram.snapshot();
        assert_eq!((counts[2], counts[8], counts.iter().sum::<u64>()), (1, 1, 2));
        assert!((sum - 60.001).abs() < 1e-6);
    }
}

//! Types that all modules share: names, TTLs, sets of nodes, states.
//!
//! A value is checked where it enters the program; its type guarantees the rest.

mod access;
mod cluster;
mod message;
mod probe;
mod rules;

use std::{
    borrow::Borrow,
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;

pub use self::{
    access::{AllowedClients, RateLimit},
    cluster::{CLUSTER_LABEL_OCTETS_MAX, ClusterId, ClusterIdError, ClusterLabel},
    message::{HEADER_OCTETS, MessageReader, POINTER_BITS, RawQuestion, RecordHead, TYPE_AND_CLASS_OCTETS},
    probe::{Exclusion, ProbeFailure},
    rules::{AddressRules, Translation, is_link_local},
};

/// Octets in a name on the wire, the root label included (RFC 1035, 3.1).
pub const NAME_OCTETS_MAX: usize = 255;

/// Octets in one label (RFC 1035, 3.1).
pub const LABEL_OCTETS_MAX: usize = 63;

/// A day: the longest TTL of a zone. Nodes change; with a longer TTL clients would keep dead addresses.
pub const TTL_MAX_SECONDS: u32 = 86_400;

/// The shortest refresh. Faster polls find out nothing new, because Scylla's failure detector needs seconds.
pub const REFRESH_MIN: Duration = Duration::from_millis(100);

/// The longest interval in the file, an hour: a longer one is probably a wrong unit.
pub const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// Between the zone and the network in the key of a view, as it is shown.
const VIEW_SEPARATOR: char = '/';

/// A domain name as DNS carries it: length-prefixed labels, lower case, the root octet last.
///
/// Names compare and hash by their wire octets, so that the name of a query can be looked up as it arrived.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ZoneName(Arc<[u8]>);

/// Why a text is not a name. Each message continues a sentence that begins with the text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NameError {
    #[error("is empty; the root is written \".\"")]
    Empty,
    #[error("has an empty label (two dots in a row, or a dot at the start)")]
    EmptyLabel,
    #[error("has a label of {0} characters; at most {LABEL_OCTETS_MAX} are allowed")]
    LongLabel(usize),
    #[error("is longer than {NAME_OCTETS_MAX} octets on the wire")]
    LongName,
    #[error("has the character {0:?}; letters, digits, '-' and '_' are allowed")]
    Character(char),
    #[error("is a wildcard; write the name below it and set subdomains = true")]
    Wildcard,
    #[error("is an address, not a name")]
    Address,
}

impl ZoneName {
    /// The root, `.`.
    pub fn root() -> Self {
        Self(Arc::new([0]))
    }

    /// Parses a name in presentation format; the final dot is optional.
    ///
    /// # Errors
    /// The text has characters other than letters, digits, `-` and `_`, a label that is not 1 to 63 characters long, or
    /// more than 255 octets.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self::root());
        }
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err(NameError::Address);
        }
        if text.starts_with("*.") || text == "*" {
            return Err(NameError::Wildcard);
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            if let Some(odd) = label.chars().find(|&c| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
                return Err(NameError::Character(odd));
            }
            match u8::try_from(label.len()) {
                Ok(0) => return Err(NameError::EmptyLabel),
                Ok(length) if usize::from(length) <= LABEL_OCTETS_MAX => wire.push(length),
                _ => return Err(NameError::LongLabel(label.len())),
            }
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        if wire.len() > NAME_OCTETS_MAX {
            return Err(NameError::LongName);
        }
        Ok(Self(wire.into()))
    }

    /// This name with one more label in front, or `None` when it would be too long.
    pub fn child(&self, label: &str) -> Option<Self> {
        let wire: Vec<u8> = [&[u8::try_from(label.len()).ok()?], label.as_bytes(), &self.0].concat();
        (wire.len() <= NAME_OCTETS_MAX).then(|| Self(wire.into()))
    }

    /// The name without its first label; the root has none.
    pub fn parent(&self) -> Option<Self> {
        (!self.is_root()).then(|| Self(self.0[1 + usize::from(self.0[0])..].into()))
    }

    /// The key of a view of this zone, by the first network of the view's clients, where something is kept by zone: a file
    /// cannot have such a name, and no table answers it.
    #[must_use]
    pub fn of_view(&self, network: &IpNet) -> Self {
        let label = network.to_string();
        // The longest network, of IPv6, has 43 octets.
        let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
        Self([&[length], label.as_bytes(), &self.0].concat().into())
    }

    /// Reads the key of a view as it is shown, for example `a.example./10.0.0.0/24`.
    pub fn parse_view(text: &str) -> Option<Self> {
        let (zone, network) = text.split_once(VIEW_SEPARATOR)?;
        Some(Self::parse(zone).ok()?.of_view(&network.parse().ok()?))
    }

    /// Whether this is the key of a view.
    pub fn is_view(&self) -> bool {
        self.view_label().is_some()
    }

    /// Whether both are zones or views of one zone.
    pub fn is_same_zone(&self, other: &Self) -> bool {
        self.zone_octets() == other.zone_octets()
    }

    fn zone_octets(&self) -> &[u8] {
        self.0.get(self.view_label().map_or(0, |label| label.len() + 1)..).unwrap_or_default()
    }

    /// The network in the key of a view; `None`: this is the name of a zone.
    pub fn view_network(&self) -> Option<&str> {
        std::str::from_utf8(self.view_label()?).ok()
    }

    fn view_label(&self) -> Option<&[u8]> {
        self.labels().next().filter(|label| label.contains(&b'/'))
    }

    /// Whether this is `.`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// Whether this name is `zone` or lies below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        suffixes(&self.0).any(|suffix| suffix == &*zone.0)
    }

    /// Octets of the longest name that this name and another one end with; the root is one octet.
    pub fn octets_shared_with(&self, other: &Self) -> usize {
        let shared = suffixes(&self.0).find(|suffix| suffixes(&other.0).any(|theirs| theirs == *suffix));
        shared.map_or(1, <[u8]>::len)
    }

    /// The octets on the wire.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, from the left; the root has none.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        suffixes(&self.0).filter(|s| s[0] > 0).map(|s| &s[1..=usize::from(s[0])])
    }
}

/// Seconds since 1970, for serials and cookies; 0 when the clock is set before that.
pub fn unix_now() -> u32 {
    // The number wraps in 2106; serial number arithmetic allows that (RFC 1982).
    unix_seconds() as u32
}

/// Seconds since 1970, for signatures; 0 when the clock is set before that.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The time as RFC 3339 can have it: the nearest moment of the years 1970 to 9999. A host may have any time, above all at
/// its start.
pub fn printable(time: SystemTime) -> SystemTime {
    let newest = UNIX_EPOCH + Duration::from_secs(NEWEST_PRINTABLE);
    time.clamp(UNIX_EPOCH, newest)
}

/// The last second of the year 9999.
const NEWEST_PRINTABLE: u64 = 253_402_300_799;

/// A name in wire format and all its ancestors, from the longest to the root: the candidates of a look-up.
///
/// `wire` must be an uncompressed, complete name; a malformed one ends the iteration early.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(wire), |rest| match rest.first() {
        None | Some(0) => None,
        Some(&length) => rest.get(1 + usize::from(length)..),
    })
    .filter(|rest| !rest.is_empty())
}

impl Borrow<[u8]> for ZoneName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(network) = self.view_label() {
            let zone = Self(self.zone_octets().into());
            return write!(f, "{zone}{VIEW_SEPARATOR}{}", String::from_utf8_lossy(network));
        }
        if self.is_root() {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                fmt::Write::write_char(f, char::from(octet))?;
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Seconds that a client may keep an answer: 0 to 86400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Ttl(u32);

impl Ttl {
    /// `None` above a day.
    pub const fn from_secs(seconds: u32) -> Option<Self> {
        if seconds <= TTL_MAX_SECONDS { Some(Self(seconds)) } else { None }
    }

    /// The number of seconds.
    pub const fn as_secs(self) -> u32 {
        self.0
    }
}

/// A node to start from: an address, or a host name for the system's resolver.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum Seed {
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
    /// A host name; looking it up never delays a poll.
    Host(ZoneName),
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(name) => f.write_str(name.to_string().trim_end_matches('.')),
        }
    }
}

/// One entry of `scope`: the part of a cluster that a zone answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// At least one; several mean their union.
    pub datacenters: Vec<String>,
    /// Only this rack of each.
    pub rack: Option<String>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "datacenter {}", self.datacenters.join(", "))?;
        self.rack.as_ref().map_or(Ok(()), |rack| write!(f, ", rack {rack}"))
    }
}

/// How many addresses one answer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerCount {
    /// At most this many; each node is used equally often.
    AtMost(NonZeroU16),
    /// All of them; a reply that would not fit is truncated.
    All,
}

impl AnswerCount {
    /// One address in an answer, as from DynamoDB itself.
    pub const ONE: Self = Self::AtMost(NonZeroU16::MIN);

    /// Two: a client has another address when the first one refuses, and a caching resolver spreads its clients over two
    /// nodes. More would let clients in the nodes' subnets prefer the closest node (RFC 6724, section 6, rule 9; measured
    /// in tests/answers/RESULTS.md).
    pub const DEFAULT: Self = Self::AtMost(NonZeroU16::MIN.saturating_add(1));
}

/// A sorted set of at least one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeSet(Arc<[IpAddr]>);

impl NodeSet {
    /// `None` when there is no node: an empty list is a failure, not an answer.
    pub fn new(nodes: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let nodes: BTreeSet<_> = nodes.into_iter().map(canonical).collect();
        (!nodes.is_empty()).then(|| Self(nodes.into_iter().collect()))
    }

    /// The addresses, in order.
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.0
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.0.binary_search(address).is_ok()
    }
}

/// Converts `::ffff:a.b.c.d` to the IPv4 address in it.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether an address can be that of a node: not the wildcard, broadcast or multicast.
pub fn is_publishable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && v4 != Ipv4Addr::BROADCAST && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

/// The state of a zone: how reliable its answers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum ZoneState {
    /// A usable list arrived recently.
    Live,
    /// No node is verified, the servers do not support `scope`, or a scope other than the first is answered.
    Degraded,
    /// Nodes disagree about which nodes are alive.
    Contested,
    /// No usable list for more than three refreshes and five seconds.
    Stale,
    /// No list yet; the seeds are answered.
    Waiting,
    /// There is no address to answer with, whatever the cause: clients get SERVFAIL.
    Unanswered,
}

impl ZoneState {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Live, Self::Degraded, Self::Contested, Self::Stale, Self::Waiting, Self::Unanswered];

    /// The word in `/api/zones` and in metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Degraded => "degraded",
            Self::Contested => "contested",
            Self::Stale => "stale",
            Self::Waiting => "waiting",
            Self::Unanswered => "unanswered",
        }
    }
}

/// The state of a node in a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum NodeState {
    /// Listed, and its probes succeed.
    Up,
    /// Listed, but its probes fail.
    Down,
    /// Listed, but not verified yet: it has not answered, or no other node of the cluster lists it.
    New,
    /// Listed, but of another cluster: its address was given to that one's node.
    Foreign,
    /// Listed, but a command has taken it out of the answers for some time. It is shown so, unless it is foreign or
    /// excluded.
    Drained,
    /// Listed, but the zone's rules do not let it through. It is shown so, whatever else is known of it.
    Excluded,
}

impl NodeState {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 6] = [Self::Up, Self::Down, Self::New, Self::Foreign, Self::Drained, Self::Excluded];

    /// The word in `/api/zones` and in metric labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::New => "new",
            Self::Foreign => "foreign",
            Self::Drained => "drained",
            Self::Excluded => "excluded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_that_cannot_be_printed_becomes_the_nearest_that_can() {
        let second = Duration::from_secs(1);
        assert_eq!(printable(UNIX_EPOCH - second), UNIX_EPOCH);
        assert_eq!(printable(UNIX_EPOCH + second), UNIX_EPOCH + second);
        let newest = UNIX_EPOCH + second * 2 * u32::MAX * 100;
        let printed = humantime_serde::re::humantime::format_rfc3339_seconds(printable(newest)).to_string();
        assert_eq!(printed, "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_name_is_lower_cased_and_printed_with_its_final_dot() {
        let name = ZoneName::parse("Alternator.EAST.example").unwrap();
        assert_eq!(name.to_string(), "alternator.east.example.");
        assert_eq!(name.wire(), b"\x0aalternator\x04east\x07example\x00");
        assert_eq!(name, ZoneName::parse("alternator.east.example.").unwrap());
        assert_eq!(ZoneName::root().to_string(), ".");
        assert_eq!(name.labels().count(), 3);
    }

    #[test]
    fn the_longest_common_end_of_two_names_is_found() {
        let shared = |a: &str, b: &str| ZoneName::parse(a).unwrap().octets_shared_with(&ZoneName::parse(b).unwrap());
        assert_eq!(shared("ns.a.test", "a.test"), 8);
        assert_eq!(shared("a.test", "b.a.test"), 8);
        assert_eq!(shared("ns.test", "a.test"), 6);
        assert_eq!((shared("a.example", "a.test"), shared(".", "a.test")), (1, 1));
        assert_eq!(shared("xa.test", "a.test"), 6, "whole labels alone");
    }

    #[test]
    fn invalid_names_are_refused() {
        let refusal = |text: &str| ZoneName::parse(text).unwrap_err();
        assert_eq!(refusal(""), NameError::Empty);
        assert_eq!(refusal("a..b"), NameError::EmptyLabel);
        assert_eq!(refusal(".a"), NameError::EmptyLabel);
        assert_eq!(refusal("a b"), NameError::Character(' '));
        assert_eq!(refusal("*.a"), NameError::Wildcard);
        assert_eq!(refusal("10.0.0.1"), NameError::Address);
        assert_eq!(refusal(&"a".repeat(64)), NameError::LongLabel(64));
        assert_eq!(refusal(&["a".repeat(63).as_str(); 4].join(".")), NameError::LongName);
    }

    #[test]
    fn the_key_of_a_view_is_no_name_of_a_zone() {
        let zone = ZoneName::parse("a.example").unwrap();
        for (zone, network, shown) in [
            (zone.clone(), "10.0.1.0/24", "a.example./10.0.1.0/24"),
            (zone.clone(), "fd00::/8", "a.example./fd00::/8"),
            (ZoneName::root(), "0.0.0.0/0", "./0.0.0.0/0"),
        ] {
            let key = zone.of_view(&network.parse().unwrap());
            assert_eq!((key.to_string().as_str(), key.view_network()), (shown, Some(network)));
            assert_eq!(ZoneName::parse_view(shown), Some(key.clone()));
            assert!(ZoneName::parse(shown).is_err());
            assert!(key.is_view() && key.is_same_zone(&zone) && zone.is_same_zone(&key) && key != zone);
        }
        let [one, other] = ["10.0.1.0/24", "10.0.2.0/24"].map(|network| zone.of_view(&network.parse().unwrap()));
        assert!(one.is_same_zone(&other) && one != other && !zone.is_view());
        assert!(!one.is_same_zone(&ZoneName::parse("b.example").unwrap()));
        for text in ["", "/", "a", "a/", "/10.0.0.0/8", "a/10.0.0.0", "a/b/c", "a b/10.0.0.0/8"] {
            assert_eq!(ZoneName::parse_view(text), None, "{text}");
        }
    }

    #[test]
    fn is_within_compares_whole_labels() {
        let name = |text| ZoneName::parse(text).unwrap();
        assert!(name("x.a.example").is_within(&name("a.example")));
        assert!(name("a.example").is_within(&name("a.example")));
        assert!(name("a.example").is_within(&ZoneName::root()));
        assert!(!name("xa.example").is_within(&name("a.example")));
        assert_eq!(name("a.example").parent(), Some(name("example")));
        assert_eq!(ZoneName::root().parent(), None);
        assert_eq!(name("a.example").child("ns"), Some(name("ns.a.example")));
    }

    #[test]
    fn a_set_has_each_node_once_and_never_none() {
        let set = |texts: &[&str]| NodeSet::new(texts.iter().map(|t| t.parse().unwrap()));
        assert_eq!(set(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]), set(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(set(&["::ffff:10.0.0.9"]), set(&["10.0.0.9"]));
        assert_eq!(set(&[]), None);
    }

    proptest! {
        #[test]
        fn no_text_can_break_the_parser(text in ".{0,300}") {
            if let Ok(name) = ZoneName::parse(&text) {
                prop_assert!(name.wire().len() <= NAME_OCTETS_MAX);
                prop_assert_eq!(ZoneName::parse(&name.to_string()), Ok(name));
            }
        }

        #[test]
        fn what_is_printed_can_be_read_again(labels in prop::collection::vec("[a-zA-Z0-9_-]{1,63}", 1..4)) {
            let text = labels.join(".");
            prop_assume!(text.parse::<IpAddr>().is_err());
            let name = ZoneName::parse(&text).unwrap();
            prop_assert_eq!(name.to_string(), format!("{}.", text.to_lowercase()));
        }

        #[test]
        fn suffixes_end_on_any_octets(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(suffixes(&octets).count() <= octets.len());
        }
    }
}

//! What one zone answers now: built when something changes, read by every worker.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::zone::{AnswerCount, NodeSet, Ttl, ZoneName};

/// TTL of seeds' addresses, in seconds: they are a guess, and the first poll is seconds away.
const FAIL_OPEN_TTL_MAX: u32 = 2;

/// What an operator decides about a zone's answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// TTL of A and AAAA.
    pub ttl: Ttl,
    /// How many nodes an answer names.
    pub count: AnswerCount,
    /// Whether every name below the zone answers like the zone itself.
    pub subdomains: bool,
    /// SOA minimum, which is the TTL of negative answers (RFC 2308, 4).
    pub negative_ttl: Ttl,
    /// Who serves the zone; the first is the SOA's MNAME.
    pub name_servers: NameServers,
}

impl Settings {
    /// The defaults of the configuration, for tests of the rooms above.
    #[doc(hidden)]
    pub fn example() -> Self {
        const FOUR: Ttl = Ttl::from_secs(4).expect("four seconds are less than a day");
        Self {
            ttl: FOUR,
            count: AnswerCount::ONE,
            subdomains: false,
            negative_ttl: FOUR,
            name_servers: NameServers::default(),
        }
    }
}

/// The name servers of a zone with the addresses that we know of them, in the order of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NameServers(Arc<[(ZoneName, Arc<[IpAddr]>)]>);

impl NameServers {
    /// Takes names with their addresses; a server elsewhere may have none.
    pub fn new(servers: impl IntoIterator<Item = (ZoneName, Vec<IpAddr>)>) -> Self {
        Self(servers.into_iter().map(|(name, addresses)| (name, addresses.into())).collect())
    }

    /// Each server.
    pub fn iter(&self) -> impl Iterator<Item = &(ZoneName, Arc<[IpAddr]>)> {
        self.0.iter()
    }

    /// The first one, which the SOA names as primary.
    pub fn first(&self) -> Option<&ZoneName> {
        self.0.first().map(|(name, _)| name)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What has been learnt about a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Knowledge {
    /// No node yet: the addresses of the seeds are answered in their place (fail open). `None`: not one is known.
    Waiting(Option<NodeSet>),
    /// The nodes last known to be alive.
    Known {
        /// At least one address.
        nodes: NodeSet,
        /// Whether every poll has failed for longer than three refreshes and five seconds.
        stale: bool,
    },
}

impl Knowledge {
    /// The addresses that are answered.
    pub fn published(&self) -> Option<&NodeSet> {
        match self {
            Self::Waiting(seeds) => seeds.as_ref(),
            Self::Known { nodes, .. } => Some(nodes),
        }
    }
}

/// Everything that a question about one zone needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answers {
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// What was learnt.
    pub knowledge: Knowledge,
    /// SOA serial (RFC 1982): grows with every change of published addresses, TTL or name servers.
    pub serial: u32,
    /// The IPv4 addresses of `knowledge`.
    pub v4: Box<[Ipv4Addr]>,
    /// The IPv6 addresses of `knowledge`.
    pub v6: Box<[Ipv6Addr]>,
}

impl Answers {
    /// The first answers of a zone. `now` is the unix time in seconds.
    pub fn new(settings: Settings, knowledge: Knowledge, now: u32) -> Self {
        Self::build(Arc::new(settings), knowledge, now)
    }

    /// The same zone with other settings.
    pub fn with_settings(&self, settings: Settings, now: u32) -> Self {
        let same = settings.ttl == self.settings.ttl && settings.name_servers == self.settings.name_servers;
        let serial = if same { self.serial } else { self.next_serial(now) };
        Self::build(Arc::new(settings), self.knowledge.clone(), serial)
    }

    /// The same zone after something was learnt.
    pub fn with_knowledge(&self, knowledge: Knowledge, now: u32) -> Self {
        // The first list changes the TTLs also where it names the seeds.
        let waits = |knowledge: &Knowledge| matches!(knowledge, Knowledge::Waiting(_));
        let same = knowledge.published() == self.knowledge.published() && waits(&knowledge) == waits(&self.knowledge);
        let serial = if same { self.serial } else { self.next_serial(now) };
        Self::build(self.settings.clone(), knowledge, serial)
    }

    /// TTL of the addresses, in seconds.
    pub fn address_ttl(&self) -> u32 {
        match self.knowledge {
            Knowledge::Waiting(_) => self.settings.ttl.as_secs().min(FAIL_OPEN_TTL_MAX),
            Knowledge::Known { .. } => self.settings.ttl.as_secs(),
        }
    }

    fn build(settings: Arc<Settings>, knowledge: Knowledge, serial: u32) -> Self {
        let published = knowledge.published().map_or(&[][..], NodeSet::as_slice);
        let v4 = published.iter().filter_map(|node| if let IpAddr::V4(v4) = node { Some(*v4) } else { None }).collect();
        let v6 = published.iter().filter_map(|node| if let IpAddr::V6(v6) = node { Some(*v6) } else { None }).collect();
        Self { settings, knowledge, serial, v4, v6 }
    }

    /// max(previous + 1, now), in the arithmetic of serials, which wraps.
    fn next_serial(&self, now: u32) -> u32 {
        let next = self.serial.wrapping_add(1);
        if now.wrapping_sub(next) < u32::MAX / 2 { now } else { next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(texts: &[&str]) -> NodeSet {
        NodeSet::new(texts.iter().map(|t| t.parse().unwrap())).unwrap()
    }

    fn known(texts: &[&str]) -> Knowledge {
        Knowledge::Known { nodes: nodes(texts), stale: false }
    }

    #[test]
    fn the_serial_grows_with_what_clients_can_see() {
        let first = Answers::new(Settings::example(), known(&["10.0.0.1"]), 1000);
        let same = first.with_knowledge(known(&["10.0.0.1"]), 2000);
        assert_eq!(same.serial, 1000);
        let stale = first.with_knowledge(Knowledge::Known { nodes: nodes(&["10.0.0.1"]), stale: true }, 2000);
        assert_eq!(stale.serial, 1000, "staleness changes no record");
        let other = first.with_knowledge(known(&["10.0.0.2"]), 2000);
        assert_eq!(other.serial, 2000);
        let clock_went_back = other.with_knowledge(known(&["10.0.0.3"]), 500);
        assert_eq!(clock_went_back.serial, 2001);
        let seeds = Answers::new(Settings::example(), Knowledge::Waiting(Some(nodes(&["10.0.0.1"]))), 1000);
        assert_eq!(seeds.with_knowledge(known(&["10.0.0.1"]), 2000).serial, 2000, "the TTL grows from 2 to 4");
        let ttl = Settings { ttl: Ttl::from_secs(9).unwrap(), ..Settings::example() };
        assert_eq!(other.with_settings(ttl, 3000).serial, 3000);
        let count = Settings { count: AnswerCount::All, ..Settings::example() };
        assert_eq!(other.with_settings(count, 3000).serial, 2000);
    }

    #[test]
    fn families_are_kept_apart_and_seeds_have_a_short_ttl() {
        let answers = Answers::new(Settings::example(), Knowledge::Waiting(Some(nodes(&["10.0.0.1", "::1"]))), 1);
        assert_eq!((answers.v4.len(), answers.v6.len(), answers.address_ttl()), (1, 1, 2));
        assert_eq!(answers.with_knowledge(known(&["10.0.0.1"]), 1).address_ttl(), 4);
    }
}

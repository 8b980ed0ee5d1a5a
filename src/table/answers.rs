//! What one zone answers now: built when something changes, read by every worker.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::{NonZeroU8, NonZeroU64},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use super::{
    choice::{Node, choose, choose_in_service, choose_seeds, is_verified},
    drains::ZoneDrains,
};
use crate::types::{AddressRules, AllowedClients, AnswerCount, NodeSet, NodeState, Ttl, ZoneName, ZoneState};

/// TTL of seeds' addresses, in seconds: they are a guess, and the first poll is seconds away.
const FAIL_OPEN_TTL_MAX: u32 = 2;

/// The longest TTL of a negative answer about a zone without nodes, in seconds: nodes are expected any moment.
const WAITING_NEGATIVE_TTL_MAX: u32 = 1;

/// What an operator decides about a zone's answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ZoneSettings {
    /// TTL of A and AAAA.
    pub ttl: Ttl,
    /// How many nodes an answer names.
    pub count: AnswerCount,
    /// Whether every name below the zone answers like the zone itself.
    pub subdomains: bool,
    /// How many addresses of each family secondaries get.
    pub max_addresses: NonZeroU8,
    /// SOA minimum, which is the TTL of negative answers (RFC 2308, 4).
    pub negative_ttl: Ttl,
    /// The name servers of the zone; the first is the SOA's MNAME.
    pub name_servers: NameServers,
    /// The zones directly below, which secondaries see delegated: without that what they sign proves that there are none.
    pub delegations: Arc<[ZoneName]>,
    /// Which listed addresses are answered, and as what.
    pub rules: AddressRules,
    /// The clients that may ask.
    pub clients: AllowedClients,
    /// Whether the zone has views, or is one.
    pub views: ViewRole,
}

/// What views have to do with an entry of the table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ViewRole {
    /// A zone without views: all clients get the same addresses.
    #[default]
    Plain,
    /// A zone, of which some clients get the addresses of a view.
    HasViews,
    /// A view. It has addresses of a family only while one of its nodes is in service: otherwise its clients get those of
    /// the zone.
    IsView,
}

impl ZoneSettings {
    /// The defaults of the configuration, but one address in an answer, for tests of the layers above.
    #[doc(hidden)]
    pub fn example() -> Self {
        const FOUR: Ttl = Ttl::from_secs(4).expect("four seconds are less than a day");
        Self {
            ttl: FOUR,
            count: AnswerCount::ONE,
            subdomains: false,
            max_addresses: const { NonZeroU8::new(8).expect("eight is not zero") },
            negative_ttl: FOUR,
            name_servers: NameServers::default(),
            delegations: Arc::default(),
            rules: AddressRules { loopback: true, ..AddressRules::default() },
            clients: AllowedClients::Any,
            views: ViewRole::Plain,
        }
    }
}

impl ZoneSettings {
    /// Whether the zone has the same records with both, but for addresses and their TTL.
    fn has_records_of(&self, other: &Self) -> bool {
        self.name_servers == other.name_servers
            && self.negative_ttl == other.negative_ttl
            && self.subdomains == other.subdomains
            && self.max_addresses == other.max_addresses
            && self.delegations == other.delegations
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
    /// Nodes were learnt.
    Known(Known),
}

/// The nodes of a zone, and what they are worth.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Known {
    /// Every listed node, each once, in order. None: all that was known turned out to be another cluster's.
    pub nodes: Arc<[Node]>,
    /// `Live`, `Degraded`, `Contested` or `Stale`.
    pub state: ZoneState,
    /// The end that `max_stale` sets has come: nothing is answered.
    pub expired: bool,
}

impl Known {
    /// Nodes that are all up, as without health checks.
    pub fn up(nodes: &NodeSet, state: ZoneState) -> Self {
        let nodes = nodes.as_slice().iter().map(|&address| Node::up(address)).collect();
        Self { nodes, state, expired: false }
    }
}

impl Knowledge {
    /// Nodes that are all up, in this state.
    pub fn up(nodes: &NodeSet, state: ZoneState) -> Self {
        Self::Known(Known::up(nodes, state))
    }

    /// The addresses that are listed: of nodes, or of seeds while no node is known.
    pub fn listed(&self) -> Vec<IpAddr> {
        match self {
            Self::Waiting(seeds) => seeds.as_ref().map(|seeds| seeds.as_slice().to_vec()).unwrap_or_default(),
            Self::Known(known) => known.nodes.iter().map(|node| node.address).collect(),
        }
    }
}

/// Identifies one list of addresses. No two lists ever have the same version, so a cache compares versions, and never
/// memory addresses, to know whether it is up to date.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ListVersion(NonZeroU64);

impl ListVersion {
    fn next() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(NonZeroU64::MIN.saturating_add(MADE.fetch_add(1, Relaxed)))
    }
}

/// The addresses of one family that a zone answers with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addresses<A> {
    version: ListVersion,
    list: Arc<[A]>,
}

impl<A> Addresses<A> {
    /// A list of its own, even where another one has the same addresses.
    pub fn new(list: impl IntoIterator<Item = A>) -> Self {
        Self { version: ListVersion::next(), list: list.into_iter().collect() }
    }

    /// Which list this is.
    pub fn version(&self) -> ListVersion {
        self.version
    }

    /// The list that takes the place of this one, which stays what it is when no address has changed.
    fn followed_by(&self, next: Self) -> Self
    where
        A: Clone + PartialEq,
    {
        if next.list == self.list { self.clone() } else { next }
    }
}

impl<A> Deref for Addresses<A> {
    type Target = [A];

    fn deref(&self) -> &[A] {
        &self.list
    }
}

/// Everything that a question about one zone needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answers {
    /// What the operator decided.
    pub settings: Arc<ZoneSettings>,
    /// What was learnt.
    pub knowledge: Knowledge,
    /// The nodes that commands take out of the answers.
    pub drains: ZoneDrains,
    /// The addresses that are answered, as nodes list them; `None`: there is nothing to answer.
    pub answered: Option<NodeSet>,
    /// SOA serial (RFC 1982): grows with every change of what the zone has, for clients or for secondaries.
    pub serial: u32,
    /// The IPv4 addresses of `answered`, translated.
    pub v4: Addresses<Ipv4Addr>,
    /// The IPv6 addresses of `answered`, translated.
    pub v6: Addresses<Ipv6Addr>,
}

impl Answers {
    /// The first answers of a zone. `now` is the unix time in seconds.
    pub fn new(settings: ZoneSettings, knowledge: Knowledge, now: u32) -> Self {
        Self { serial: now, ..Self::build(Arc::new(settings), knowledge, ZoneDrains::default()) }
    }

    /// The same zone with other settings.
    pub fn with_settings(&self, settings: ZoneSettings, now: u32) -> Self {
        self.followed_by(Self::build(Arc::new(settings), self.knowledge.clone(), self.drains.clone()), now)
    }

    /// The same zone after something was learnt.
    pub fn with_knowledge(&self, knowledge: Knowledge, now: u32) -> Self {
        self.followed_by(Self::build(self.settings.clone(), knowledge, self.drains.clone()), now)
    }

    /// The same zone with other drains.
    pub fn with_drains(&self, drains: ZoneDrains, now: u32) -> Self {
        self.followed_by(Self::build(self.settings.clone(), self.knowledge.clone(), drains), now)
    }

    /// The zone's state in one word.
    pub fn state(&self) -> ZoneState {
        match &self.knowledge {
            Knowledge::Waiting(_) if self.is_view() => ZoneState::Waiting,
            _ if self.answered.is_none() => ZoneState::Unanswered,
            Knowledge::Waiting(_) => ZoneState::Waiting,
            Knowledge::Known(known)
                if known.state == ZoneState::Live && !is_verified(&known.nodes, &self.settings.rules, &self.drains) =>
            {
                ZoneState::Degraded
            }
            Knowledge::Known(known) => known.state,
        }
    }

    /// Whether these are the answers of a view.
    pub fn is_view(&self) -> bool {
        self.settings.views == ViewRole::IsView
    }

    /// Whether there are addresses of nodes that were learnt: only then secondaries get the zone. While it waits they keep
    /// what they have, which is better than a guess.
    pub fn is_learnt(&self) -> bool {
        self.answered.is_some() && matches!(self.knowledge, Knowledge::Known(_))
    }

    /// Until when a listed node is drained; `None`: it is not.
    pub fn drained_until(&self, listed: IpAddr) -> Option<SystemTime> {
        self.drains.until(listed, &self.settings.rules)
    }

    /// Whether drained nodes are answered, because no other node is in service.
    pub fn answers_drained(&self) -> bool {
        let answered = self.answered.as_ref().map_or(&[][..], NodeSet::as_slice);
        answered.iter().any(|&node| self.drained_until(node).is_some())
    }

    /// The listed nodes; none while waiting.
    pub fn nodes(&self) -> &[Node] {
        match &self.knowledge {
            Knowledge::Waiting(_) => &[],
            Knowledge::Known(known) => &known.nodes,
        }
    }

    /// A node's state, after the zone's rules and drains.
    pub fn node_state(&self, node: &Node) -> NodeState {
        match node.state {
            _ if !self.settings.rules.permits(node.address) => NodeState::Excluded,
            NodeState::Foreign => NodeState::Foreign,
            _ if self.drained_until(node.address).is_some() => NodeState::Drained,
            state => state,
        }
    }

    /// The addresses that a client can get, of both families, translated.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.iter().copied().map(IpAddr::V4).chain(self.v6.iter().copied().map(IpAddr::V6))
    }

    /// TTL of the addresses, in seconds.
    pub fn address_ttl(&self) -> u32 {
        match self.knowledge {
            Knowledge::Waiting(_) => self.settings.ttl.as_secs().min(FAIL_OPEN_TTL_MAX),
            Knowledge::Known { .. } => self.settings.ttl.as_secs(),
        }
    }

    /// TTL of the SOA and its minimum, in seconds: how long a denial may be cached (RFC 2308, 4 and 5).
    pub fn negative_ttl(&self) -> u32 {
        match self.knowledge {
            Knowledge::Waiting(_) => self.settings.negative_ttl.as_secs().min(WAITING_NEGATIVE_TTL_MAX),
            Knowledge::Known(_) => self.settings.negative_ttl.as_secs(),
        }
    }

    /// The next answers; the serial grows when a client could see a difference.
    fn followed_by(&self, mut next: Self, now: u32) -> Self {
        // An address list that stays the same keeps its version, and the shuffle bags made from it stay valid.
        next.v4 = self.v4.followed_by(next.v4);
        next.v6 = self.v6.followed_by(next.v6);
        let same = next.address_ttl() == self.address_ttl()
            && next.settings.has_records_of(&self.settings)
            && next.is_learnt() == self.is_learnt()
            && (&*next.v4, &*next.v6) == (&*self.v4, &*self.v6);
        let serial = if same { self.serial } else { next_serial(self.serial, now) };
        Self { serial, ..next }
    }

    /// What is answered, without a serial.
    fn build(settings: Arc<ZoneSettings>, knowledge: Knowledge, drains: ZoneDrains) -> Self {
        let answered = match &knowledge {
            Knowledge::Waiting(_) if settings.views == ViewRole::IsView => None,
            Knowledge::Known(known) if settings.views == ViewRole::IsView && !known.expired => {
                choose_in_service(&known.nodes, &settings.rules, &drains)
            }
            Knowledge::Waiting(seeds) => choose_seeds(seeds.as_ref(), &settings.rules, &drains),
            Knowledge::Known(known) if known.expired => None,
            Knowledge::Known(known) => choose(&known.nodes, &settings.rules, &drains),
        };
        let listed = answered.as_ref().map_or(&[][..], NodeSet::as_slice);
        let translated = NodeSet::new(listed.iter().map(|&node| settings.rules.translate(node)));
        let addresses = translated.as_ref().map_or(&[][..], NodeSet::as_slice);
        let v4 = addresses.iter().filter_map(|node| if let IpAddr::V4(v4) = node { Some(*v4) } else { None });
        let v6 = addresses.iter().filter_map(|node| if let IpAddr::V6(v6) = node { Some(*v6) } else { None });
        let v4 = Addresses::new(v4);
        let v6 = Addresses::new(v6);
        Self { settings, knowledge, drains, answered, serial: 0, v4, v6 }
    }
}

/// max(previous + 1, now), in the arithmetic of serials, which wraps.
pub fn next_serial(previous: u32, now: u32) -> u32 {
    let next = previous.wrapping_add(1);
    if now.wrapping_sub(next) < u32::MAX / 2 { now } else { next }
}

#[cfg(test)]
mod tests {
    use super::{
        super::drains::{Drain, Drains},
        *,
    };

    fn nodes(texts: &[&str]) -> NodeSet {
        NodeSet::new(texts.iter().map(|t| t.parse().unwrap())).unwrap()
    }

    fn known(texts: &[&str]) -> Knowledge {
        Knowledge::Known(Known::up(&nodes(texts), ZoneState::Live))
    }

    #[test]
    fn the_serial_grows_with_what_clients_can_see() {
        let first = Answers::new(ZoneSettings::example(), known(&["10.0.0.1"]), 1000);
        let same = first.with_knowledge(known(&["10.0.0.1"]), 2000);
        assert_eq!(same.serial, 1000);
        let stale = first.with_knowledge(Knowledge::Known(Known::up(&nodes(&["10.0.0.1"]), ZoneState::Stale)), 2000);
        assert_eq!(stale.serial, 1000, "staleness changes no record");
        let other = first.with_knowledge(known(&["10.0.0.2"]), 2000);
        assert_eq!(other.serial, 2000);
        let clock_went_back = other.with_knowledge(known(&["10.0.0.3"]), 500);
        assert_eq!(clock_went_back.serial, 2001);
        let seeds = Answers::new(ZoneSettings::example(), Knowledge::Waiting(Some(nodes(&["10.0.0.1"]))), 1000);
        assert_eq!(seeds.with_knowledge(known(&["10.0.0.1"]), 2000).serial, 2000, "the TTL grows from 2 to 4");
        let ttl = ZoneSettings { ttl: Ttl::from_secs(9).unwrap(), ..ZoneSettings::example() };
        assert_eq!(other.with_settings(ttl, 3000).serial, 3000);
        let count = ZoneSettings { count: AnswerCount::All, ..ZoneSettings::example() };
        assert_eq!(other.with_settings(count, 3000).serial, 2000);
    }

    #[test]
    fn a_drain_is_a_change_that_clients_see_and_outlives_other_changes() {
        let until = SystemTime::UNIX_EPOCH;
        let mut drains = Drains::default();
        drains.add(Drain { node: "10.0.0.1".parse().unwrap(), zone: None, until }).unwrap();
        let first = Answers::new(ZoneSettings::example(), known(&["10.0.0.1", "10.0.0.2"]), 1000);
        let drained = first.with_drains(drains.everywhere(), 2000);
        assert_eq!((drained.serial, drained.v4.len(), drained.state()), (2000, 1, ZoneState::Live));
        let later = drained.with_settings(ZoneSettings::example(), 3000).with_knowledge(known(&["10.0.0.1"]), 3000);
        assert_eq!((later.v4.len(), later.state()), (1, ZoneState::Degraded), "there is no other node");
        assert!(later.answers_drained() && !drained.answers_drained());
        assert_eq!(later.node_state(&later.nodes()[0]), NodeState::Drained);
        let rules = AddressRules { exclude: vec!["10.0.0.0/8".parse().unwrap()], ..AddressRules::default() };
        let excluded = later.with_settings(ZoneSettings { rules, ..ZoneSettings::example() }, 4000);
        assert_eq!(excluded.node_state(&excluded.nodes()[0]), NodeState::Excluded);
        assert_eq!(excluded.state(), ZoneState::Unanswered);
    }

    #[test]
    fn families_are_kept_apart_and_seeds_have_a_short_ttl() {
        let answers = Answers::new(ZoneSettings::example(), Knowledge::Waiting(Some(nodes(&["10.0.0.1", "::1"]))), 1);
        assert_eq!((answers.v4.len(), answers.v6.len(), answers.address_ttl()), (1, 1, 2));
        assert_eq!(answers.with_knowledge(known(&["10.0.0.1"]), 1).address_ttl(), 4);
    }

    #[test]
    fn a_view_has_addresses_of_a_family_only_while_a_node_of_it_is_in_service() {
        let settings = ZoneSettings { views: ViewRole::IsView, ..ZoneSettings::example() };
        let waiting = Answers::new(settings, Knowledge::Waiting(Some(nodes(&["10.0.0.1"]))), 1);
        assert_eq!((waiting.addresses().count(), waiting.state()), (0, ZoneState::Waiting), "seeds are no answer");
        let live = waiting.with_knowledge(known(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]), 1);
        assert_eq!((live.v4.len(), live.v6.len(), live.state()), (2, 1, ZoneState::Live));
        let down = |address: &str| Node { state: NodeState::Down, ..Node::up(address.parse().unwrap()) };
        let learn = |nodes: Vec<Node>, expired| {
            live.with_knowledge(Knowledge::Known(Known { nodes: nodes.into(), state: ZoneState::Live, expired }), 1)
        };
        let [one, other, v6] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"];
        let up = |address: &str| Node::up(address.parse().unwrap());
        let v4_alone = learn(vec![up(one), down(other), down(v6)], false);
        assert_eq!((v4_alone.v4.len(), v4_alone.v6.len()), (1, 0), "a zone would answer the same");
        let dead = learn(vec![down(one), down(v6)], false);
        assert_eq!((dead.addresses().count(), dead.state()), (0, ZoneState::Unanswered));
        let pending = learn(vec![Node { pending: true, ..down(one) }], false);
        assert_eq!(pending.v4.len(), 1, "as after a restart");
        assert_eq!(learn(vec![up(one)], true).addresses().count(), 0, "max_stale");
        let mut drains = Drains::default();
        drains.add(Drain { node: one.parse().unwrap(), zone: None, until: SystemTime::UNIX_EPOCH }).unwrap();
        let drained = learn(vec![up(one)], false).with_drains(drains.everywhere(), 1);
        assert_eq!(drained.addresses().count(), 0, "the zone has other nodes, which are not drained");
    }

    #[test]
    fn a_list_keeps_its_version_for_as_long_as_its_addresses() {
        let first = Answers::new(ZoneSettings::example(), known(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]), 1);
        let count = ZoneSettings { count: AnswerCount::All, ..ZoneSettings::example() };
        let ttl = ZoneSettings { ttl: Ttl::from_secs(9).unwrap(), ..count };
        let stale = Knowledge::up(&nodes(&["10.0.0.1", "10.0.0.2", "2001:db8::1"]), ZoneState::Stale);
        let same = first.with_settings(ttl, 2).with_knowledge(stale, 3);
        assert_eq!((same.v4.version(), same.v6.version()), (first.v4.version(), first.v6.version()));
        let fewer = same.with_knowledge(known(&["10.0.0.1", "2001:db8::1"]), 4);
        assert_ne!(fewer.v4.version(), first.v4.version());
        assert_eq!(fewer.v6.version(), first.v6.version(), "the other family has not changed");
        let back = fewer.with_knowledge(first.knowledge.clone(), 5);
        assert_eq!(*back.v4, *first.v4);
        assert!(![first.v4.version(), fewer.v4.version()].contains(&back.v4.version()), "no version comes twice");
    }
}

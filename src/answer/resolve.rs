//! Decides how a question is answered: every rcode but the parser's. Nothing here depends on chance.

use std::{net::IpAddr, sync::Arc};

use arc_swap::Guard;

use super::{
    Client,
    query::Query,
    wire::{
        CLASS_CHAOS, CLASS_IN, TYPE_A, TYPE_AAAA, TYPE_ANY, TYPE_AXFR, TYPE_DS, TYPE_HTTPS, TYPE_IXFR, TYPE_NS,
        TYPE_OPT, TYPE_SOA, TYPE_TKEY, TYPE_TSIG, TYPE_TXT,
    },
    zone_match::{Family, ViewMatch, ZoneMatch, has_addresses},
};
use crate::{
    metrics::{QueryType, Rcode},
    table::{DomainAnswers, DomainEntry, NameServers, Position, ServerSettings, TableEntry, ZoneTable},
    types::{AllowedClients, AnswerCount, ZoneName, ZoneState},
};

/// The names under which clients ask for a server's version and identifier, the older name first.
const VERSION_NAMES: [&[u8]; 2] = [b"\x07version\x04bind\0", b"\x07version\x06server\0"];
const ID_NAMES: [&[u8]; 2] = [b"\x08hostname\x04bind\0", b"\x02id\x06server\0"];

/// Types that concern one message exchange (OPT, TKEY, TSIG) or a whole zone: no server can answer them for another.
const TYPES_NEVER_FORWARDED: [u16; 5] = [TYPE_OPT, TYPE_TKEY, TYPE_TSIG, TYPE_IXFR, TYPE_AXFR];

/// How one question is answered. It borrows from the table, so it lives for one answer.
#[derive(Debug)]
pub struct Resolution<'t> {
    /// What the name belongs to; `None` where the question is no zone's and no domain's.
    pub matched: Option<Match<'t>>,
    /// The content of the answer.
    pub outcome: Outcome<'t>,
    /// The reason, for a client that uses EDNS.
    pub extended_error: Option<ExtendedError>,
}

/// A zone or domain at one moment: what is published later does not change an answer that has begun.
#[derive(Debug)]
pub enum Match<'t> {
    /// A zone.
    Zone(ZoneMatch<'t>),
    /// A name that is delegated to us and has no nodes.
    Domain(DomainMatch<'t>),
}

/// A domain at one moment.
#[derive(Debug)]
pub struct DomainMatch<'t> {
    /// Its entry in the table.
    pub entry: &'t Arc<DomainEntry>,
    /// Its current answers.
    pub answers: Guard<Arc<DomainAnswers>>,
}

/// The content of an answer.
#[derive(Debug)]
pub enum Outcome<'t> {
    /// Nodes of the zone, of one family. A worker chooses them when it is known how many fit.
    Nodes {
        /// Which family; the zone has at least one node of it.
        family: Family,
        /// How many.
        count: AnswerCount,
    },
    /// The addresses of one of our own name servers; at least one is of this family.
    NameServerAddresses {
        /// Which family.
        family: Family,
        /// All its addresses, of both families.
        addresses: &'t [IpAddr],
    },
    /// The zone's SOA.
    Soa,
    /// The zone's NS records, with the known addresses of name servers.
    NameServers {
        /// Names inside our zones with their addresses.
        glue: Vec<(ZoneName, &'t [IpAddr])>,
    },
    /// The name exists, the type does not: NOERROR with the zone's SOA (RFC 2308, 2.2).
    NoData,
    /// Neither the name nor anything below it exists: NXDOMAIN with the zone's SOA (RFC 8020).
    NxDomain,
    /// Version or identifier of this server, in class CHAOS.
    Text(&'t str),
    /// No node is known: SERVFAIL, which clients do not cache as a denial.
    NotReady,
    /// The upstreams are to be asked.
    Forward,
    /// REFUSED.
    Refused,
}

/// An extended DNS error (RFC 8914).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExtendedError {
    /// The cluster has not answered recently.
    Stale,
    /// No node is known.
    NotReady,
    /// The client is not in `clients`.
    Prohibited,
    /// No zone here has the name.
    NotAuthoritative,
    /// No upstream replied.
    Unreachable,
}

impl ExtendedError {
    /// INFO-CODE (RFC 8914, 4).
    pub const fn code(self) -> u16 {
        match self {
            Self::Stale => 3,
            Self::NotReady => 14,
            Self::Prohibited => 18,
            Self::NotAuthoritative => 20,
            Self::Unreachable => 23,
        }
    }

    /// EXTRA-TEXT. A stale answer has none: with one, eight AAAA records of the longest name would not fit in 512
    /// octets.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotReady => "no node to answer with",
            Self::Unreachable => "no upstream resolver answers",
            Self::Stale | Self::Prohibited | Self::NotAuthoritative => "",
        }
    }
}

impl Resolution<'_> {
    /// The reply's rcode.
    pub fn rcode(&self) -> Rcode {
        match self.outcome {
            Outcome::NxDomain => Rcode::NxDomain,
            Outcome::NotReady | Outcome::Forward => Rcode::ServFail,
            Outcome::Refused => Rcode::Refused,
            _ => Rcode::NoError,
        }
    }

    /// The view that the addresses come from.
    pub fn view(&self) -> Option<&ViewMatch<'_>> {
        match (&self.outcome, &self.matched) {
            (Outcome::Nodes { family, .. }, Some(Match::Zone(zone))) => zone.view_with(*family),
            _ => None,
        }
    }

    /// AA.
    pub fn is_authoritative(&self) -> bool {
        matches!(self.rcode(), Rcode::NoError | Rcode::NxDomain)
    }
}

impl<'t> Match<'t> {
    fn now(table: &'t ZoneTable, entry: TableEntry<'t>, client: IpAddr) -> Self {
        match entry {
            TableEntry::Zone(row) => Self::Zone(ZoneMatch::now(table, row, client)),
            TableEntry::Domain(entry) => Self::Domain(DomainMatch { entry, answers: entry.answers() }),
        }
    }

    /// The name of the zone or domain.
    pub fn apex(&self) -> &'t ZoneName {
        match self {
            Self::Zone(zone) => zone.entry.name(),
            Self::Domain(domain) => domain.entry.name(),
        }
    }

    /// Who serves it.
    pub fn name_servers(&self) -> &NameServers {
        match self {
            Self::Zone(zone) => &zone.answers.settings.name_servers,
            Self::Domain(domain) => &domain.answers.settings.name_servers,
        }
    }

    /// Serial of its SOA.
    pub fn serial(&self) -> u32 {
        match self {
            Self::Zone(zone) => zone.answers.serial,
            Self::Domain(domain) => domain.answers.serial,
        }
    }

    /// TTL of the SOA and its minimum, in seconds: how long a denial may be cached (RFC 2308, 4 and 5).
    pub fn negative_ttl(&self) -> u32 {
        match self {
            Self::Zone(zone) => zone.answers.negative_ttl(),
            Self::Domain(domain) => domain.answers.settings.negative_ttl.as_secs(),
        }
    }

    fn clients(&self) -> &AllowedClients {
        match self {
            Self::Zone(zone) => &zone.answers.settings.clients,
            Self::Domain(domain) => &domain.answers.settings.clients,
        }
    }

    /// Whether every name below answers like the apex.
    fn subdomains(&self) -> bool {
        match self {
            Self::Zone(zone) => zone.answers.settings.subdomains,
            Self::Domain(_) => false,
        }
    }

    /// What the apex has of a type other than SOA and NS.
    fn records<'o>(&self, query_type: u16) -> Outcome<'o> {
        match self {
            Self::Zone(zone) => nodes(zone, query_type).unwrap_or(Outcome::NoData),
            Self::Domain(_) if query_type == TYPE_ANY => Outcome::Soa,
            Self::Domain(_) => Outcome::NoData,
        }
    }

    /// Whether the addresses of this family are stale.
    fn is_stale(&self, family: Family) -> bool {
        match self {
            Self::Zone(zone) => zone.source(family).state() == ZoneState::Stale,
            Self::Domain(_) => false,
        }
    }
}

impl Resolution<'_> {
    fn refused(extended_error: Option<ExtendedError>) -> Self {
        Self { matched: None, outcome: Outcome::Refused, extended_error }
    }
}

/// Decides how a client's question is answered.
pub fn resolve<'t>(table: &'t ZoneTable, query: &Query<'_>, client: &Client) -> Resolution<'t> {
    if query.class != CLASS_IN {
        return other_class(table.server(), query, client);
    }
    let Some((entry, position)) = table.find(query.name()) else {
        return outside_zones(table.server(), query, client);
    };
    if query.query_type == TYPE_DS
        && position == Position::Apex
        && let Some(parent) = table.above(query.name())
    {
        // The DS of a delegation belongs to the parent zone (RFC 4035, 3.1.4.1), where this name exists and is not signed.
        return of_entry(table, parent, Position::EmptyNonTerminal, query, client);
    }
    of_entry(table, entry, position, query, client)
}

fn of_entry<'t>(
    table: &'t ZoneTable,
    entry: TableEntry<'t>,
    position: Position<'t>,
    query: &Query<'_>,
    client: &Client,
) -> Resolution<'t> {
    let matched = Match::now(table, entry, client.address);
    if !matched.clients().permit(client.address) {
        return Resolution {
            matched: Some(matched),
            outcome: Outcome::Refused,
            extended_error: Some(ExtendedError::Prohibited),
        };
    }
    let outcome = match subject(query.query_type, position, matched.subdomains()) {
        Subject::Transfer => Outcome::Refused,
        Subject::Soa => Outcome::Soa,
        Subject::NameServers => name_servers(table, &matched),
        Subject::Records => matched.records(query.query_type),
        Subject::NameServer(addresses) => at_name_server(addresses, query.query_type),
        Subject::Nothing => Outcome::NoData,
        Subject::NoName => Outcome::NxDomain,
    };
    let extended_error = match &outcome {
        Outcome::Nodes { family, .. } if matched.is_stale(*family) => Some(ExtendedError::Stale),
        Outcome::NotReady => Some(ExtendedError::NotReady),
        _ => None,
    };
    Resolution { matched: Some(matched), outcome, extended_error }
}

/// What a question is about. Both paths decide by it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Subject<'t> {
    /// A zone transfer.
    Transfer,
    /// The SOA of the zone.
    Soa,
    /// The NS records of the zone.
    NameServers,
    /// What the apex has of a type other than SOA and NS.
    Records,
    /// A name server of ours, with its addresses.
    NameServer(&'t [IpAddr]),
    /// A name that exists and has no records.
    Nothing,
    /// A name that does not exist.
    NoName,
}

/// What a question of this type is about, whose name lies there. `subdomains`: every name below answers like the apex.
pub(super) fn subject(query_type: u16, position: Position<'_>, subdomains: bool) -> Subject<'_> {
    match (query_type, position) {
        (TYPE_AXFR | TYPE_IXFR, _) => Subject::Transfer,
        (TYPE_SOA, Position::Apex) => Subject::Soa,
        (TYPE_NS, Position::Apex) => Subject::NameServers,
        (_, Position::Apex) => Subject::Records,
        (_, Position::NameServer(addresses)) => Subject::NameServer(addresses),
        (_, Position::EmptyNonTerminal | Position::BelowApex) if subdomains => Subject::Records,
        (_, Position::EmptyNonTerminal) => Subject::Nothing,
        (_, Position::BelowApex) => Subject::NoName,
    }
}

/// The type of a question, as metrics name it.
pub fn query_type_label(query_type: u16) -> QueryType {
    match query_type {
        TYPE_A => QueryType::A,
        TYPE_AAAA => QueryType::Aaaa,
        TYPE_NS => QueryType::Ns,
        TYPE_SOA => QueryType::Soa,
        TYPE_HTTPS => QueryType::Https,
        TYPE_TXT => QueryType::Txt,
        TYPE_ANY => QueryType::Any,
        _ => QueryType::Other,
    }
}

/// A name of no zone. Without RD the client asks for our own data, and we have none.
fn outside_zones(server: &ServerSettings, query: &Query<'_>, client: &Client) -> Resolution<'static> {
    let can_be_forwarded = query.request.recursion_desired && !TYPES_NEVER_FORWARDED.contains(&query.query_type);
    if can_be_forwarded && server.forwards_for(client.address) {
        return Resolution { matched: None, outcome: Outcome::Forward, extended_error: None };
    }
    let permitted = server.clients.permit(client.address);
    let why = if permitted { ExtendedError::NotAuthoritative } else { ExtendedError::Prohibited };
    Resolution::refused(Some(why))
}

/// A class other than IN: of those, only CHAOS has names here, which are version and identifier of this server.
fn other_class<'t>(server: &'t ServerSettings, query: &Query<'_>, client: &Client) -> Resolution<'t> {
    if !server.clients.permit(client.address) {
        return Resolution::refused(Some(ExtendedError::Prohibited));
    }
    let text = match query.name() {
        name if VERSION_NAMES.contains(&name) => server.version.as_deref(),
        name if ID_NAMES.contains(&name) => server.id.as_deref(),
        _ => None,
    };
    match text.filter(|_| query.class == CLASS_CHAOS && matches!(query.query_type, TYPE_TXT | TYPE_ANY)) {
        Some(text) => Resolution { matched: None, outcome: Outcome::Text(text), extended_error: None },
        None => Resolution::refused(None),
    }
}

fn name_servers<'t>(table: &'t ZoneTable, matched: &Match<'_>) -> Outcome<'t> {
    if matched.name_servers().is_empty() {
        return Outcome::NoData;
    }
    let known = |(name, _): &(ZoneName, _)| Some((name.clone(), table.host(name)?));
    Outcome::NameServers { glue: matched.name_servers().iter().filter_map(known).collect() }
}

/// The addresses of the zone or view, for a type that asks for addresses.
fn nodes<'o>(zone: &ZoneMatch<'_>, query_type: u16) -> Option<Outcome<'o>> {
    let has = |family| has_addresses(zone.source(family), family);
    let family = match query_type {
        TYPE_A => Family::V4,
        TYPE_AAAA => Family::V6,
        // One RRset is enough for ANY (RFC 8482, 4.1).
        TYPE_ANY if has(Family::V4) => Family::V4,
        TYPE_ANY => Family::V6,
        _ => return None,
    };
    if has(family) {
        Some(Outcome::Nodes { family, count: zone.answers.settings.count })
    } else {
        zone.answers.answered.is_none().then_some(Outcome::NotReady)
    }
}

fn at_name_server(addresses: &[IpAddr], query_type: u16) -> Outcome<'_> {
    let has = |family: Family| addresses.iter().any(|address| family.has(address));
    match query_type {
        TYPE_A | TYPE_ANY if has(Family::V4) => Outcome::NameServerAddresses { family: Family::V4, addresses },
        TYPE_AAAA | TYPE_ANY if has(Family::V6) => Outcome::NameServerAddresses { family: Family::V6, addresses },
        _ => Outcome::NoData,
    }
}

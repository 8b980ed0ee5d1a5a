//! What DNS answers, and to which clients: the server's own code answers, so this cannot differ from it.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use hickory_server::proto::rr::RecordType;
use serde::Serialize;

use crate::{
    answer::{
        Client, Parsed, Resolution, parse, resolve,
        resolve::{ExtendedError, Match, Outcome},
    },
    config::Forward,
    metrics::Transport,
    table::{TableEntry, ZoneTable, ZoneViews},
    types::{AllowedClients, AnswerCount, RateLimit, ZoneName, unix_now},
};

/// Class IN.
const CLASS_IN: u16 = 1;

/// The type of a query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RequestedType(RecordType);

/// A text that is no [`RequestedType`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no type of DNS records; write for example A, AAAA, SOA or TYPE65")]
pub struct QueryTypeError(String);

impl RequestedType {
    /// What is asked about every name.
    pub(super) const ADDRESSES: [Self; 2] = [Self(RecordType::A), Self(RecordType::AAAA)];
}

impl FromStr for RequestedType {
    type Err = QueryTypeError;

    fn from_str(text: &str) -> Result<Self, QueryTypeError> {
        let upper = text.to_ascii_uppercase();
        let by_number = upper.strip_prefix("TYPE").and_then(|digits| digits.parse::<u16>().ok()).map(RecordType::from);
        let known = by_number.or_else(|| RecordType::from_str(&upper).ok());
        known.map(Self).ok_or_else(|| QueryTypeError(text.chars().take(20).collect()))
    }
}

impl std::fmt::Display for RequestedType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Some numbers have a name that is no type for a query.
        match RecordType::from_str(&self.0.to_string()) {
            Ok(known) => known.fmt(f),
            Err(_) => write!(f, "TYPE{}", u16::from(self.0)),
        }
    }
}

/// What a client gets that asks for one type.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct DnsAnswer {
    #[serde(rename = "type")]
    pub(super) query_type: String,
    /// `None`: the upstreams decide.
    pub(super) rcode: Option<&'static str>,
    /// INFO-CODE (RFC 8914).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extended_error: Option<u16>,
    /// The addresses that clients get; one answer may have fewer.
    pub(super) addresses: Vec<IpAddr>,
    /// The rest, in a sentence.
    pub(super) about: String,
}

/// Answers a question of a client.
pub(super) fn ask(table: &ZoneTable, name: &ZoneName, query_type: RequestedType, client: IpAddr) -> DnsAnswer {
    let message = question(name, query_type.0.into());
    let client = Client { address: client, transport: Transport::Tcp, now: unix_now() };
    let Parsed::Query(query) = parse(&message) else {
        let about = "no answer, because such a question is not looked up".to_owned();
        let query_type = query_type.to_string();
        return DnsAnswer { query_type, rcode: None, extended_error: None, addresses: Vec::new(), about };
    };
    let resolution = resolve(table, &query, &client);
    DnsAnswer {
        query_type: query_type.to_string(),
        rcode: (!matches!(resolution.outcome, Outcome::Forward)).then(|| resolution.rcode().word()),
        extended_error: resolution.extended_error.map(ExtendedError::code),
        addresses: addresses(&resolution),
        about: about(&resolution),
    }
}

/// The message of a question, with RD.
fn question(name: &ZoneName, query_type: u16) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(name.wire());
    message.extend(query_type.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    message
}

fn addresses(resolution: &Resolution<'_>) -> Vec<IpAddr> {
    match (&resolution.outcome, &resolution.matched) {
        (Outcome::Nodes { family, .. }, Some(Match::Zone(zone))) => {
            zone.source(*family).addresses().filter(|address| family.has(address)).collect()
        }
        (Outcome::NameServerAddresses { family, addresses }, _) => {
            addresses.iter().copied().filter(|address| family.has(address)).collect()
        }
        _ => Vec::new(),
    }
}

fn about(resolution: &Resolution<'_>) -> String {
    let matched = resolution.matched.as_ref();
    let negative_ttl = matched.map(Match::negative_ttl).unwrap_or_default();
    match &resolution.outcome {
        Outcome::Nodes { count, .. } => {
            let ttl = match matched {
                Some(Match::Zone(zone)) => zone.answers.address_ttl(),
                _ => 0,
            };
            let total = addresses(resolution).len();
            let count = match count {
                AnswerCount::AtMost(most) if usize::from(most.get()) < total => format!("{most} of {total} addresses"),
                _ if total == 1 => "1 address".to_owned(),
                _ => format!("{total} addresses"),
            };
            let view = resolution.view().and_then(|view| view.entry.name().view_network());
            let of_view = view.map(|view| format!(", of the view of {view}")).unwrap_or_default();
            format!("{count} in an answer{of_view}, TTL {ttl} s")
        }
        Outcome::NameServerAddresses { .. } => "addresses of a name server".to_owned(),
        Outcome::Soa => {
            format!("the SOA, serial {}", matched.map(Match::serial).unwrap_or_default())
        }
        Outcome::NameServers { .. } => {
            let servers = matched.map(Match::name_servers);
            let names = servers.into_iter().flat_map(|servers| servers.iter().map(|(name, _)| name.to_string()));
            format!("the name servers {}", names.collect::<Vec<_>>().join(", "))
        }
        Outcome::NoData => format!("no record of this type, TTL {negative_ttl} s"),
        Outcome::NxDomain => format!("no such name, TTL {negative_ttl} s"),
        Outcome::Text(text) => format!("the text {text:?}"),
        Outcome::NotReady => "there is no address to answer with".to_owned(),
        Outcome::Forward => "what the upstreams answer".to_owned(),
        Outcome::Refused if matched.is_some() => {
            "the client is not in clients, or the type is never answered".to_owned()
        }
        Outcome::Refused => "the name is in no zone here, or the client is not in clients".to_owned(),
    }
}

/// The clients that may ask for a name, and the key that says so.
pub(super) struct NameClients {
    pub(super) clients: AllowedClients,
    pub(super) key: String,
    /// Those whose questions are forwarded, for a name outside all zones.
    pub(super) forward: Option<AllowedClients>,
}

impl NameClients {
    /// Of a name in this table.
    pub(super) fn of(table: &ZoneTable, name: &ZoneName, forward: Option<&Forward>) -> Self {
        match table.find(name.wire()) {
            Some((TableEntry::Zone(row), _)) => Self {
                clients: row.entry.answers().settings.clients.clone(),
                key: format!("clients of the zone {}", row.entry.name()),
                forward: None,
            },
            Some((TableEntry::Domain(domain), _)) => Self {
                clients: domain.answers().settings.clients.clone(),
                key: "[server] clients".to_owned(),
                forward: None,
            },
            None => Self {
                clients: table.server().clients.clone(),
                key: "[server] clients".to_owned(),
                forward: forward.map(|forward| forward.clients.clone()),
            },
        }
    }

    /// A client that may ask; if there is none, any.
    pub(super) fn example(&self) -> IpAddr {
        let first = |clients: &AllowedClients| match clients {
            AllowedClients::Any => None,
            AllowedClients::Networks(networks) => networks.first().map(ipnet::IpNet::addr),
        };
        self.forward.as_ref().and_then(first).or_else(|| first(&self.clients)).unwrap_or(Ipv4Addr::LOCALHOST.into())
    }
}

/// Whether a client may ask for a name.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct ClientExplanation {
    pub(super) address: IpAddr,
    pub(super) may_ask: bool,
    /// Which key says so.
    pub(super) because: String,
    /// `None`: there is no `[forward]`, or the name is a zone's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_forwarded: Option<bool>,
    /// Its view of the zone; `None`: the zone has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) view: Option<ClientView>,
    /// The limit that it shares with the other clients of its network.
    pub(super) rate_limit: Option<String>,
}

/// The view that a client has of a zone with views.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct ClientView {
    /// Its first network; `None`: the client is in no view, so it gets the zone's addresses.
    pub(super) name: Option<String>,
    /// The network that the client is in.
    pub(super) network: Option<String>,
    /// The view has addresses; if not, the client gets the zone's.
    pub(super) answered: bool,
}

impl ClientView {
    pub(super) fn of(views: &ZoneViews, client: IpAddr) -> Self {
        let Some(view) = views.of(client) else { return Self { name: None, network: None, answered: false } };
        let network = view.clients.iter().find(|network| network.contains(&client.to_canonical()));
        Self {
            name: view.row.entry.name().view_network().map(str::to_owned),
            network: network.map(ToString::to_string),
            answered: view.row.entry.answers().answered.is_some(),
        }
    }
}

impl ClientExplanation {
    /// Whether this client may ask for a name of these clients.
    pub(super) fn of(address: IpAddr, clients: &NameClients, limit: Option<RateLimit>) -> Self {
        let may_ask = clients.clients.permit(address);
        let because = match &clients.clients {
            AllowedClients::Any => format!("{} lets every client ask", clients.key),
            AllowedClients::Networks(networks) => {
                match networks.iter().find(|network| network.contains(&address.to_canonical())) {
                    Some(network) => format!("{} has {network}", clients.key),
                    None => format!("{} has no network that contains it", clients.key),
                }
            }
        };
        let is_forwarded = clients.forward.as_ref().map(|clients| clients.permit(address));
        Self {
            address,
            may_ask,
            because,
            is_forwarded,
            view: None,
            rate_limit: limit.map(|limit| limited(address, limit)),
        }
    }
}

fn limited(client: IpAddr, limit: RateLimit) -> String {
    let more = match limit.slip {
        0 => "further queries get no reply".to_owned(),
        1 => "further queries get a reply that makes it ask over TCP".to_owned(),
        slip => format!("of further queries one in {slip} gets a reply that makes it ask over TCP, the others none"),
    };
    format!("{} replies a second over UDP for all of {}; {more}", limit.per_second, limit.network(client))
}

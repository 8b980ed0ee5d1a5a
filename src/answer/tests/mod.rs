//! Messages in, replies out. The replies are read back by another parser and compared as zone-file text.

mod cases;
mod forwarded;
mod messages;
mod paths;
mod replies;

use std::{net::IpAddr, num::NonZeroU16, sync::Arc};

use hickory_server::proto::op::{Message, ResponseCode};

use super::*;
use crate::{
    table::{
        CookieSecret, CookieSecrets, DomainEntry, DomainSettings, Knowledge, NameServers, ServerSettings, View,
        ViewRole, ZoneEntry, ZoneSettings, ZoneTable, ZoneViews,
    },
    types::{AllowedClients, AnswerCount, NodeSet, Ttl, ZoneName, ZoneState},
};

/// Client and time, unless a test says otherwise.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 100));
const NOW: u32 = 1_559_731_985;

/// The zones of the cases.
fn world() -> ZoneTable {
    let count = |n| AnswerCount::AtMost(NonZeroU16::new(n).unwrap());
    let servers = |name: &str, addresses: &[&str]| {
        (ZoneName::parse(name).unwrap(), addresses.iter().map(|a| a.parse().unwrap()).collect())
    };
    let five = Ttl::from_secs(5).unwrap();
    let name_servers = NameServers::new([
        servers("ns.c1.alt.test", &["192.0.2.53", "2001:db8::53"]),
        servers("elsewhere.example", &["192.0.2.99"]),
    ]);
    let c1 = ZoneSettings {
        ttl: five,
        negative_ttl: five,
        count: AnswerCount::All,
        name_servers,
        ..ZoneSettings::example()
    };
    let deep = NameServers::new([servers("ns.deep.sub.alt.test", &["192.0.2.54"])]);
    let sub = ZoneSettings { subdomains: true, name_servers: deep, ..ZoneSettings::example() };
    let of = |count| ZoneSettings { count, ..ZoneSettings::example() };
    let many: Vec<_> = (0..200).map(|n| format!("10.1.0.{n}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let hang = NameServers::new([servers("ns.hang.test", &["192.0.2.55"])]);
    let hang = DomainSettings { negative_ttl: five, name_servers: hang, ..DomainSettings::example() };
    let with_servers = |names: &[&str]| ZoneSettings {
        name_servers: NameServers::new(names.iter().map(|name| servers(name, &["192.0.2.56"]))),
        ..ZoneSettings::example()
    };
    let long = format!("{0}.{0}.{0}.example", "m".repeat(63));
    let servers_of_many: Vec<_> = (0..30).map(|n| format!("ns{n}.many.alt.test")).collect();
    let servers_of_many: Vec<_> = servers_of_many.iter().map(String::as_str).collect();
    let others = AllowedClients::Networks(Arc::new(["192.0.2.0/24".parse().unwrap()]));
    let secret = ZoneSettings { clients: others, ..ZoneSettings::example() };
    let hang = Arc::new(DomainEntry::new(ZoneName::parse("hang.test").unwrap(), hang, 7));
    let zones = [
        entry("a.east.hang.test", of(AnswerCount::ONE), known(&["10.0.0.8"], false)),
        entry("secret.alt.test", secret, known(&["10.0.0.8"], false)),
        entry("c1.alt.test", c1, known(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], false)),
        entry("a.b.c1.alt.test", of(AnswerCount::ONE), known(&["2001:db8::1"], false)),
        entry("one.alt.test", of(AnswerCount::ONE), known(&many, false)),
        entry("big.alt.test", of(count(8)), known(&many, false)),
        entry("fill.alt.test", of(count(1000)), known(&many, false)),
        entry("all.alt.test", of(AnswerCount::All), known(&many, false)),
        entry("v6.alt.test", of(AnswerCount::ONE), known(&["2001:db8::1", "10.0.0.1"], false)),
        entry("new.alt.test", of(AnswerCount::ONE), Knowledge::Waiting(None)),
        entry("seeds.alt.test", of(AnswerCount::ONE), Knowledge::Waiting(Some(nodes(&["10.0.9.1"])))),
        entry("old.alt.test", of(AnswerCount::ONE), known(&["10.0.0.9"], true)),
        entry("sub.alt.test", sub, known(&["10.0.0.7"], false)),
        entry("above.alt.test", with_servers(&["ns.alt.test", "b.ns.alt.test"]), known(&["10.0.0.7"], false)),
        entry("parent.alt.test", with_servers(&["alt.test", "ns.sub.alt.test"]), known(&["10.0.0.7"], false)),
        entry("post.alt.test", with_servers(&["ns.hostmaster.post.alt.test"]), known(&["10.0.0.7"], false)),
        entry("far.alt.test", with_servers(&["a.ns.example", "ns.example", &long]), known(&["10.0.0.7"], true)),
        entry("long.alt.test", with_servers(&[&long]), known(&["10.0.0.7"], false)),
        entry("many.alt.test", with_servers(&servers_of_many), known(&["10.0.0.7"], false)),
    ];
    let (viewed, views) = viewed();
    let zones = zones.into_iter().chain(viewed);
    ZoneTable::with_domains(zones, [hang]).with_server(server_settings()).with_views(views)
}

/// Zones with views, of which the second one has no addresses of its own.
fn viewed() -> (Vec<Arc<ZoneEntry>>, Vec<(ZoneName, ZoneViews)>) {
    let settings = |count| ZoneSettings { count, views: ViewRole::HasViews, ..ZoneSettings::example() };
    let two = AnswerCount::AtMost(NonZeroU16::new(2).unwrap());
    let closed = AllowedClients::Networks(Arc::new(["198.51.100.0/25".parse().unwrap()]));
    let closed = ZoneSettings { clients: closed, ..settings(AnswerCount::All) };
    let zones = vec![
        entry("views.alt.test", settings(two), known(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::9"], false)),
        entry("bare.alt.test", closed, Knowledge::Waiting(None)),
    ];
    let views = zones.iter().map(|zone| {
        let view = |network: &str, knowledge| {
            let network = network.parse().unwrap();
            let settings = ZoneSettings { ttl: Ttl::from_secs(9).unwrap(), ..settings(AnswerCount::ONE) };
            let view =
                ZoneEntry::new(zone.name().of_view(&network), ZoneSettings { views: ViewRole::IsView, ..settings }, 1);
            view.learn(&knowledge, 1);
            View::new(Arc::new([network]), Arc::new(view))
        };
        let v4 = view("198.51.100.0/24", known(&["10.0.1.1", "10.0.1.2", "10.0.1.3"], true));
        let v6 = view("192.0.2.0/24", known(&["2001:db8::1", "2001:db8::2"], false));
        (zone.name().clone(), ZoneViews::new([v4, v6]))
    });
    let views = views.collect();
    (zones, views)
}

/// With secrets of which the cookies are known.
fn server_settings() -> ServerSettings {
    let secrets = CookieSecrets::of(CookieSecret(0xe5e9_73e5_a6b2_a43f_48e7_dc84_9e37_bfcf_u128.to_be_bytes()));
    ServerSettings {
        id: Some("ns-7".into()),
        version: Some("one".into()),
        keepalive: 100,
        cookies: Arc::new(arc_swap::ArcSwap::from_pointee(secrets)),
        ..ServerSettings::default()
    }
}

/// A server that answers every name, and a zone with very many labels.
fn root_world() -> ZoneTable {
    let zones = [
        entry(".", ZoneSettings { subdomains: true, ..ZoneSettings::example() }, known(&["10.0.0.7"], false)),
        entry("c1.alt.test", ZoneSettings::example(), known(&["10.0.0.8"], false)),
        entry(&"d.".repeat(70), ZoneSettings::example(), known(&["10.0.0.9"], false)),
    ];
    ZoneTable::new(zones).with_server(server_settings())
}

fn entry(name: &str, settings: ZoneSettings, knowledge: Knowledge) -> Arc<ZoneEntry> {
    let entry = ZoneEntry::new(ZoneName::parse(name).unwrap(), settings, 6);
    // The first list moves the serial from 6 to 7; a zone without a list starts with 7.
    match knowledge {
        Knowledge::Waiting(None) => {
            let settings = (*entry.answers().settings).clone();
            return Arc::new(ZoneEntry::new(entry.name().clone(), settings, 7));
        }
        knowledge => entry.learn(&knowledge, 7),
    }
    Arc::new(entry)
}

/// Nodes with these numbers, in both families; without a number, an unknown zone.
fn numbered(numbers: std::ops::RangeInclusive<u8>, state: ZoneState) -> Knowledge {
    let both = |n: u8| [IpAddr::from([10, 0, 0, n]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n.into()])];
    NodeSet::new(numbers.flat_map(both)).map_or(Knowledge::Waiting(None), |nodes| Knowledge::up(&nodes, state))
}

fn nodes(texts: &[&str]) -> NodeSet {
    NodeSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
}

fn known(texts: &[&str], stale: bool) -> Knowledge {
    Knowledge::up(&nodes(texts), if stale { ZoneState::Stale } else { ZoneState::Live })
}

/// A question as the cases write it.
struct Ask {
    name: String,
    query_type: u16,
    class: u16,
    recursion_desired: bool,
    edns: Option<(u16, bool)>,
    options: Vec<u8>,
    transport: Transport,
}

impl Ask {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let name = words.next().unwrap().to_owned();
        let query_type = match words.next().unwrap() {
            "A" => 1,
            "NS" => 2,
            "SOA" => 6,
            "TXT" => 16,
            "AAAA" => 28,
            "SRV" => 33,
            "DS" => 43,
            "HTTPS" => 65,
            "IXFR" => 251,
            "AXFR" => 252,
            "ANY" => 255,
            other => other.strip_prefix("TYPE").unwrap().parse().unwrap(),
        };
        let class = 1;
        let transport = Transport::Udp;
        let mut ask =
            Self { name, query_type, class, recursion_desired: false, edns: None, options: Vec::new(), transport };
        for word in words {
            match word {
                "nsid" => ask.options.extend([0, 3, 0, 0]),
                "cookie" => ask.options.extend([0, 10, 0, 8, 0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57]),
                "keepalive" => ask.options.extend([0, 11, 0, 0]),
                // RFC 7871, which is not served.
                "subnet" => ask.options.extend([0, 8, 0, 4, 0, 1, 0, 0]),
                "padding" => ask.options.extend([0, 12, 0, 3, 0, 0, 0]),
                _ => ask.take(word),
            }
        }
        ask
    }

    fn take(&mut self, word: &str) {
        match word.split_at(1) {
            ("r", "d") => self.recursion_desired = true,
            ("d", "o") => self.edns = self.edns.map(|(payload, _)| (payload, true)),
            ("t", "cp") => self.transport = Transport::Tcp,
            ("t", "ls") => self.transport = Transport::Tls,
            ("h", "ttps") => self.transport = Transport::Https,
            ("q", "uic") => self.transport = Transport::Quic,
            ("+", payload) => self.edns = Some((payload.parse().unwrap(), false)),
            ("=", class) => self.class = class.parse().unwrap(),
            _ => panic!("{word}"),
        }
    }

    fn opt(&self) -> Vec<u8> {
        let Some((payload, dnssec_ok)) = self.edns else { return Vec::new() };
        let [high, low] = payload.to_be_bytes();
        let length = u8::try_from(self.options.len()).unwrap();
        let head = [0, 0, 41, high, low, 0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, length];
        [&head[..], &self.options].concat()
    }

    fn octets(&self) -> Vec<u8> {
        let mut message = vec![0xAB, 0xCD, u8::from(self.recursion_desired), 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message[11] = u8::from(self.edns.is_some());
        for label in self.name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(self.query_type.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        message.extend(self.opt());
        message
    }
}

fn reply(text: &str) -> Vec<u8> {
    let ask = Ask::parse(text);
    let mut out = Vec::new();
    assert!(answered(&world(), &ProcessCounters::default(), &ask.octets(), ask.transport, &mut out));
    out
}

fn responder<'t>(table: &'t ZoneTable, counters: &'t ProcessCounters) -> Responder<'t> {
    Responder { table, counters }
}

/// Answers with any choice of nodes.
fn answered(
    table: &ZoneTable,
    counters: &ProcessCounters,
    query: &[u8],
    transport: Transport,
    out: &mut Vec<u8>,
) -> bool {
    let client = Client { address: CLIENT, transport, now: NOW };
    responder(table, counters).answer(query, &client, &mut Worker::seeded(1), out) == Answered::Reply
}

fn addresses(reply: &[u8]) -> Vec<IpAddr> {
    Message::from_vec(reply).unwrap().answers.iter().map(|record| record.data.ip_addr().unwrap()).collect()
}

/// "silence", or the rcode, the length of an error, and whether there is an OPT.
fn rcode(query: &[u8]) -> String {
    let mut out = Vec::new();
    if !answered(&world(), &ProcessCounters::default(), query, Transport::Udp, &mut out) {
        return "silence".into();
    }
    let message = Message::from_vec(&out).unwrap();
    let mut text = word(message.metadata.response_code).to_owned();
    if message.metadata.response_code == ResponseCode::FormErr {
        text += &format!(" {}", out.len());
    }
    if message.edns.is_some() { text + " opt" } else { text }
}

fn word(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        // Sixteen is BADVERS in an OPT.
        ResponseCode::BADVERS | ResponseCode::BADSIG => "BADVERS",
        ResponseCode::BADCOOKIE => "BADCOOKIE",
        other => panic!("{other}"),
    }
}

/// A reply in the notation of the cases.
fn text_of(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).unwrap();
    let head = message.metadata;
    assert!(!head.recursion_available && !head.authentic_data && !head.checking_disabled && reply[3] & 0x40 == 0);
    let mut lines = vec![word(head.response_code).to_owned()];
    for (flag, name) in [(head.authoritative, "aa"), (head.truncation, "tc"), (head.recursion_desired, "rd")] {
        if flag {
            lines[0] += &format!(" {name}");
        }
    }
    for (title, records) in
        [("", &message.answers), ("; authority", &message.authorities), ("; additional", &message.additionals)]
    {
        let mut texts: Vec<_> = records.iter().map(ToString::to_string).collect();
        texts.sort();
        lines.extend((!title.is_empty() && !texts.is_empty()).then(|| title.to_owned()));
        lines.extend(texts);
    }
    if let Some(edns) = message.edns {
        assert_eq!(edns.version(), 0);
        lines.push(format!("; opt {}{}", edns.max_payload(), if edns.flags().dnssec_ok { " do" } else { "" }));
        for (code, option) in edns.options().as_ref() {
            let octets = Vec::<u8>::try_from(option).unwrap();
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
            lines.push(match u16::from(*code) {
                3 => format!("; nsid {}", text(&octets)),
                10 => format!("; cookie {}", hex(&octets)),
                11 => format!("; keepalive {}", hex(&octets)),
                12 => {
                    assert!(octets.iter().all(|octet| *octet == 0));
                    format!("; padded to {}", reply.len())
                }
                15 => format!("; ede {} {}", octets[1], text(&octets[2..])).trim_end().to_owned(),
                other => panic!("option {other}"),
            });
        }
    }
    lines.join("\n")
}

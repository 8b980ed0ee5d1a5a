//! What the targets share: zones to ask for, what holds for every reply, and what holds for files that are written and read
//! again.

use std::{
    collections::HashSet,
    net::IpAddr,
    num::NonZeroU16,
    sync::{Arc, LazyLock, Mutex},
};

use alternator_dns::{
    answer::{
        Answered, Client, ForwardedQuestion, Responder, UpstreamOutcome, Worker,
        wire::{HEADER_OCTETS, UDP_OCTETS_MAX},
    },
    config::content_hash,
    metrics::{ProcessCounters, Transport},
    table::{
        CookieSecret, CookieSecrets, DomainEntry, DomainSettings, Knowledge, NameServers, ServerSettings, ZoneEntry,
        ZoneSettings, ZoneTable,
    },
    types::{AllowedClients, AnswerCount, NodeSet, ZoneName, ZoneState, suffixes},
};
use arc_swap::ArcSwap;
use hickory_server::proto::op::{Message, ResponseCode};

/// The third and the fourth octet of a header (RFC 1035, 4.1.1).
const REPLY: u8 = 0x80;
const OPCODE_AND_RD: u8 = 0x79;
const RA_Z_AD_CD: u8 = 0xF0;

/// Octets of a UDP reply that every client takes (RFC 1035, 2.3.4).
const UDP_OCTETS_WITHOUT_EDNS: u16 = 512;

/// Type and class, which follow the name in a question (RFC 1035, 4.1.2).
const TYPE_AND_CLASS_OCTETS: usize = 4;

/// Nothing in it changes but counters, which are not read here.
static WORLD: LazyLock<(ZoneTable, ProcessCounters)> = LazyLock::new(|| (world(), ProcessCounters::default()));

/// Shows a reader of files with a checksum some content, and the same with the right one, which no mutation finds. What it
/// understands is written and understood again.
///
/// # Panics
/// When the second writing differs from the first.
pub fn check_sealed(content: &[u8], rewrite: impl Fn(&[u8]) -> Option<String>) {
    let sealed = [content, b"\n\"checksum\": \"", content_hash(content).as_bytes(), b"\"\n}\n"].concat();
    for content in [content, &sealed] {
        if let Some(written) = rewrite(content) {
            assert_eq!(rewrite(written.as_bytes()).as_ref(), Some(&written), "the second writing differs");
        }
    }
}

/// The reply to a message; always the same to the same message, so that a finding can be reproduced.
///
/// # Panics
/// When the two paths differ.
pub fn answered(message: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let [fast, slow] = [Responder::answer, Responder::answer_slow].map(|answer| {
        let mut out = Vec::new();
        let answered = answer(&responder(), message, &client(transport), &mut Worker::seeded(1), &mut out);
        (answered == Answered::Reply).then_some(out)
    });
    assert_eq!(fast, slow, "both paths give the same reply, octet for octet");
    fast
}

/// The reply to a message that was forwarded to an upstream.
pub fn forwarded(message: &[u8], transport: Transport, outcome: &UpstreamOutcome) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let question = ForwardedQuestion { message, client: &client(transport) };
    let answered = responder().answer_forwarded(question, outcome, &Mutex::new(Worker::seeded(1)), &mut out);
    (answered == Answered::Reply).then_some(out)
}

fn responder() -> Responder<'static> {
    let (table, counters) = &*WORLD;
    Responder { table, counters }
}

fn client(transport: Transport) -> Client {
    Client { address: IpAddr::from([192, 0, 2, 1]), transport, now: 1_795_413_600 }
}

/// What holds for the outcome of every message, whatever is in it.
///
/// # Panics
/// When it does not hold.
pub fn check_outcome(message: &[u8], reply: Option<&[u8]>, transport: Transport) {
    let deserves_one = message.len() >= HEADER_OCTETS && message[2] & REPLY == 0;
    assert_eq!(reply.is_some(), deserves_one, "only a reply, and what is too short to have an ID, gets no reply");
    if let Some(reply) = reply {
        let read = check_reply(message, reply, transport);
        assert!(transport == Transport::Udp || !read.metadata.truncation, "there is space enough over TCP");
        let mut distinct = HashSet::new();
        assert!(read.answers.iter().all(|record| distinct.insert(&record.data)), "no record comes twice");
    }
}

/// What holds for every reply, whichever server has the answer. Another parser reads it.
///
/// # Panics
/// When it does not hold.
pub fn check_reply(message: &[u8], reply: &[u8], transport: Transport) -> Message {
    check_header(message, reply);
    let read = Message::from_vec(reply).unwrap_or_else(|error| panic!("{error}: {reply:?}"));
    assert!(reply.len() <= limit(message, &read, transport), "a reply of {} octets is too long", reply.len());
    match read.queries.len() {
        0 => check_without_question(message, &read),
        1 => assert_eq!(question(reply), question(message), "the question is echoed octet for octet"),
        more => panic!("{more} questions"),
    }
    read
}

fn check_header(message: &[u8], reply: &[u8]) {
    assert!(reply.len() >= HEADER_OCTETS, "{reply:?}");
    assert_eq!(reply[..2], message[..2], "the ID is copied");
    assert_eq!(reply[2] & REPLY, REPLY, "a reply says that it is one");
    assert_eq!(reply[2] & OPCODE_AND_RD, message[2] & OPCODE_AND_RD, "opcode and RD are copied");
    assert_eq!(reply[3] & RA_Z_AD_CD, 0, "this world neither recurses nor validates");
}

/// Errors may leave the question out. Otherwise there was none, and all that was asked for is a cookie (RFC 7873, 5.4).
fn check_without_question(message: &[u8], reply: &Message) {
    let asked_for_cookie = message[4..6] == [0, 0] && reply.edns.is_some();
    assert!(asked_for_cookie || reply.metadata.response_code != ResponseCode::NoError, "the question is lost");
    assert!(reply.answers.is_empty() && reply.authorities.is_empty(), "an answer to nothing");
}

/// The largest reply that may go out. The other parser says what the question offered; where it cannot read it, the
/// reply's own OPT says whether something was.
fn limit(message: &[u8], reply: &Message, transport: Transport) -> usize {
    let offered = match Message::from_vec(message) {
        Ok(question) => question.edns.map(|edns| edns.max_payload()),
        Err(_) => reply.edns.as_ref().map(|_| UDP_OCTETS_MAX),
    };
    usize::from(match (transport, offered) {
        (Transport::Udp, None) => UDP_OCTETS_WITHOUT_EDNS,
        (Transport::Udp, Some(octets)) => octets.clamp(UDP_OCTETS_WITHOUT_EDNS, UDP_OCTETS_MAX),
        // Streams carry what their length field can say.
        (_, _) => u16::MAX,
    })
}

/// Name, type and class behind the header.
fn question(message: &[u8]) -> Option<&[u8]> {
    let octets = message.get(HEADER_OCTETS..)?;
    let root_and_rest = suffixes(octets).last()?;
    octets.get(..octets.len() - root_and_rest.len() + 1 + TYPE_AND_CLASS_OCTETS)
}

/// Every optional answer is on, and no client is rate-limited: a reply must not depend on how many came before.
fn world() -> ZoneTable {
    zones().with_server(ServerSettings {
        id: Some("dns-east-1".into()),
        version: Some("1".into()),
        keepalive: 100,
        cookies: Arc::new(ArcSwap::from_pointee(CookieSecrets::of(CookieSecret([7; 16])))),
        ..ServerSettings::default()
    })
}

/// One zone of each kind that is answered in its own way; the seeds ask for them.
pub fn zones() -> ZoneTable {
    let live = |nodes: &NodeSet| Knowledge::up(nodes, ZoneState::Live);
    let few = nodes(3);
    let many = nodes(100);
    let of = |count| ZoneSettings { count, ..ZoneSettings::example() };
    let eight = AnswerCount::AtMost(NonZeroU16::new(8).expect("eight is not zero"));
    let servers = [("ns.few.test", vec![[192, 0, 2, 53].into()]), ("elsewhere.example", vec![])];
    let name_servers = NameServers::new(servers.map(|(server, addresses)| (name(server), addresses)));
    // Labels of 63, 63, 63 and 61 octets: nothing longer has a name.
    let longest = format!("{0}.{0}.{0}.{1}", "n".repeat(63), "n".repeat(61));
    let domain = Arc::new(DomainEntry::new(name("test"), DomainSettings::example(), 1));
    let zones = [
        zone("few.test", ZoneSettings { name_servers, ..of(AnswerCount::All) }, &live(&few)),
        zone("a.b.few.test", of(AnswerCount::ONE), &live(&few)),
        zone("eight.test", of(eight), &live(&many)),
        zone("all.test", of(AnswerCount::All), &live(&many)),
        zone("below.test", ZoneSettings { subdomains: true, ..of(eight) }, &live(&many)),
        zone("old.test", of(AnswerCount::ONE), &Knowledge::up(&few, ZoneState::Stale)),
        zone("seeds.test", of(AnswerCount::ONE), &Knowledge::Waiting(Some(few))),
        zone("new.test", of(AnswerCount::ONE), &Knowledge::Waiting(None)),
        zone(
            "closed.test",
            ZoneSettings { clients: AllowedClients::Networks(Arc::new([])), ..of(eight) },
            &live(&nodes(1)),
        ),
        zone(&longest, of(eight), &Knowledge::up(&many, ZoneState::Stale)),
    ];
    ZoneTable::with_domains(zones, [domain])
}

fn zone(text: &str, settings: ZoneSettings, knowledge: &Knowledge) -> Arc<ZoneEntry> {
    let entry = ZoneEntry::new(name(text), settings, 1);
    entry.learn(knowledge, 2);
    Arc::new(entry)
}

/// So many nodes of each family.
fn nodes(count: u8) -> NodeSet {
    let both = |n: u8| [IpAddr::from([10, 0, 0, n]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()])];
    NodeSet::new((1..=count).flat_map(both)).expect("there is at least one")
}

fn name(text: &str) -> ZoneName {
    ZoneName::parse(text).expect("it is a name")
}

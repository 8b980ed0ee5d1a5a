//! The door from outside: messages in, replies read back by another parser and written as zone files are.

use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU16, sync::Arc};

use hickory_server::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, rdata::A},
};
use proptest::prelude::*;

use super::*;
use crate::{
    metrics::{IgnoreReason, Rcode},
    table::{CookieSecret, CookieSecrets, Knowledge, Limiter, NameServers, ServerSettings, ZoneEntry, ZoneSettings},
    types::{AllowedClients, AnswerCount, NodeSet, RateLimit, Ttl, ZoneName, ZoneState},
};

/// Who asks, and when, unless a test says otherwise.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 100));
const NOW: u32 = 1_559_731_985;

/// Each block is a question and its reply. `+512` is an OPT with that size, `do` and `rd` set the flag, `tcp` the
/// transport, `=6` the class; `nsid`, `cookie`, `keepalive` and `padding` are options, `from` another network's client. A reply begins with rcode and flags; answers are sorted, sections are marked.
const CASES: &str = "
> c1.alt.test. A
NOERROR aa
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> c1.alt.test. A rd tcp
NOERROR aa rd
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> C1.aLt.tEST. AAAA
NOERROR aa
; authority
C1.aLt.tEST. 5 IN SOA ns.C1.aLt.tEST. hostmaster.C1.aLt.tEST. 7 60 10 1209600 5

> c1.alt.test. SOA +1232 do
NOERROR aa
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5
; opt 1232 do

> c1.alt.test. NS
NOERROR aa
c1.alt.test. 3600 IN NS elsewhere.example.
c1.alt.test. 3600 IN NS ns.c1.alt.test.
; additional
ns.c1.alt.test. 3600 IN A 192.0.2.53
ns.c1.alt.test. 3600 IN AAAA 2001:db8::53

> ns.c1.alt.test. A
NOERROR aa
ns.c1.alt.test. 3600 IN A 192.0.2.53

> ns.c1.alt.test. AAAA
NOERROR aa
ns.c1.alt.test. 3600 IN AAAA 2001:db8::53

> ns.c1.alt.test. ANY
NOERROR aa
ns.c1.alt.test. 3600 IN A 192.0.2.53

> ns.c1.alt.test. TXT
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. ANY
NOERROR aa
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> c1.alt.test. HTTPS
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. TYPE0
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. TYPE41
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> x.c1.alt.test. A
NXDOMAIN aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> y.x.c1.alt.test. A
NXDOMAIN aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> b.c1.alt.test. A
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> a.b.c1.alt.test. AAAA
NOERROR aa
a.b.c1.alt.test. 4 IN AAAA 2001:db8::1

> a.b.c1.alt.test. ANY
NOERROR aa
a.b.c1.alt.test. 4 IN AAAA 2001:db8::1

> a.b.c1.alt.test. NS
NOERROR aa
; authority
a.b.c1.alt.test. 4 IN SOA a.b.c1.alt.test. hostmaster.a.b.c1.alt.test. 7 60 10 1209600 4

> alt.test. NS
REFUSED

> other.test. A +4096
REFUSED
; opt 1232
; ede 20

> c1.alt.test. AXFR tcp
REFUSED

> c1.alt.test. IXFR +512
REFUSED
; opt 1232

> c1.alt.test. A =3 +512
REFUSED
; opt 1232

> c1.alt.test. A =255
REFUSED

> new.alt.test. A +1232
SERVFAIL
; opt 1232
; ede 14 no node to answer with

> new.alt.test. ANY
SERVFAIL

> new.alt.test. SOA
NOERROR aa
new.alt.test. 1 IN SOA new.alt.test. hostmaster.new.alt.test. 7 60 10 1209600 1

> seeds.alt.test. A
NOERROR aa
seeds.alt.test. 2 IN A 10.0.9.1

> seeds.alt.test. AAAA
NOERROR aa
; authority
seeds.alt.test. 1 IN SOA seeds.alt.test. hostmaster.seeds.alt.test. 7 60 10 1209600 1

> old.alt.test. A +1232
NOERROR aa
old.alt.test. 4 IN A 10.0.0.9
; opt 1232
; ede 3

> old.alt.test. A
NOERROR aa
old.alt.test. 4 IN A 10.0.0.9

> any.Thing.sub.alt.test. A
NOERROR aa
any.Thing.sub.alt.test. 4 IN A 10.0.0.7

> sub.alt.test. A
NOERROR aa
sub.alt.test. 4 IN A 10.0.0.7

> any.sub.alt.test. SOA
NOERROR aa
; authority
sub.alt.test. 4 IN SOA ns.deep.sub.alt.test. hostmaster.sub.alt.test. 7 60 10 1209600 4

> any.sub.alt.test. NS
NOERROR aa
; authority
sub.alt.test. 4 IN SOA ns.deep.sub.alt.test. hostmaster.sub.alt.test. 7 60 10 1209600 4

> deep.sub.alt.test. ANY
NOERROR aa
deep.sub.alt.test. 4 IN A 10.0.0.7

> ns.deep.sub.alt.test. A
NOERROR aa
ns.deep.sub.alt.test. 3600 IN A 192.0.2.54

> version.bind. TXT =3
NOERROR aa
version.bind. 0 CH TXT one

> ID.Server. ANY =3 +1232 nsid
NOERROR aa
ID.Server. 0 CH TXT ns-7
; opt 1232
; nsid ns-7

> version.bind. TXT
REFUSED

> version.bind. A =3
REFUSED

> authors.bind. TXT =3
REFUSED

> one.alt.test. TXT +1232 do nsid cookie keepalive
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232 do
; nsid ns-7
; cookie 2464c4abcf10c957010000005cf79f111f8130c3eee29480

> one.alt.test. TXT +1232 keepalive tcp
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232
; keepalive 0064

> one.alt.test. TXT +1232 keepalive tls
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232
; keepalive 0064

> v6.alt.test. A +1232 keepalive quic
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232

> v6.alt.test. A +1232 keepalive padding https
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232
; padded to 468

> one.alt.test. A =3 +1232 nsid padding tls
REFUSED
; opt 1232
; nsid ns-7
; padded to 468

> v6.alt.test. A +1232 padding tcp
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232

> other.test. A +1232 cookie
REFUSED
; opt 1232
; cookie 2464c4abcf10c957010000005cf79f111f8130c3eee29480
; ede 20

> secret.alt.test. A +1232
REFUSED
; opt 1232
; ede 18

> x.secret.alt.test. SOA
REFUSED

> hang.test. A
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> hang.test. NS
NOERROR aa
hang.test. 3600 IN NS ns.hang.test.
; additional
ns.hang.test. 3600 IN A 192.0.2.55

> hang.test. SOA
NOERROR aa
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> ns.hang.test. A
NOERROR aa
ns.hang.test. 3600 IN A 192.0.2.55

> east.hang.test. A
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.east.hang.test. A
NOERROR aa
a.east.hang.test. 4 IN A 10.0.0.8

> west.hang.test. A
NXDOMAIN aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> hang.test. ANY
NOERROR aa
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.east.hang.test. TYPE43
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.b.c1.alt.test. TYPE43
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> one.alt.test. TYPE43
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4

> all.alt.test. A
NOERROR aa tc

> all.alt.test. A +4096
NOERROR aa tc
; opt 1232
";

#[test]
fn replies_are_as_written() {
    let (table, counters) = (world(), ProcessCounters::default());
    for case in CASES.trim().split("\n\n") {
        let (question, expected) = case.split_once('\n').unwrap();
        let ask = Ask::parse(question.strip_prefix("> ").unwrap());
        let (query, mut out) = (ask.octets(), Vec::new());
        assert!(answered(&table, &counters, &query, ask.transport, &mut out), "{question}");
        assert_eq!(shown(&out), expected, "{question}");
        assert_eq!(out[12..][..query.len() - 12 - ask.opt().len()], query[12..query.len() - ask.opt().len()]);
    }
}

#[test]
fn owners_are_compressed_to_the_question() {
    let pointer_at = |question: &str, owner: u16| {
        let out = reply(question);
        let end_of_question = 12 + question.split(' ').next().unwrap().len() + 1 + 4;
        assert_eq!(out[end_of_question..][..2], (0xC000 | owner).to_be_bytes(), "{question}");
    };
    pointer_at("one.alt.test. A", 12);
    pointer_at("v6.ALT.test. AAAA", 12);
    pointer_at("C1.alt.test. TXT", 12);
    pointer_at("X.c1.Alt.test. TXT", 14);
    // 12 + 4 + 5 + 6 + question; SOA: 2 + 10 + (3 + 2) + (11 + 2) + 20
    assert_eq!(reply("x.c1.ALT.test. A").len(), 12 + 15 + 4 + 12 + 5 + 13 + 20);
}

#[test]
fn the_root_zone_answers_every_name() {
    let settings = ZoneSettings { subdomains: true, ..ZoneSettings::example() };
    let table = ZoneTable::new([entry(".", settings, known(&["10.0.0.1"], false))]);
    let ask = |text: &str| {
        let mut out = Vec::new();
        assert!(answered(&table, &ProcessCounters::default(), &Ask::parse(text).octets(), Transport::Udp, &mut out));
        shown(&out)
    };
    assert_eq!(ask(". A"), "NOERROR aa\n. 4 IN A 10.0.0.1");
    assert_eq!(ask("x.Y. A"), "NOERROR aa\nx.Y. 4 IN A 10.0.0.1");
    assert_eq!(ask("x. TXT"), "NOERROR aa\n; authority\n. 4 IN SOA . hostmaster. 7 60 10 1209600 4");
}

#[test]
fn eight_addresses_fit_in_512_octets_for_the_longest_name() {
    let label = "a".repeat(63);
    let zone = [label.as_str(), &label, &label, &"b".repeat(61)].join(".");
    let count = AnswerCount::AtMost(NonZeroU16::new(8).unwrap());
    let nodes: Vec<_> =
        (1..=30).map(|n| format!("2001:db8::{n:x}")).chain((1..=30).map(|n| format!("10.0.0.{n}"))).collect();
    let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
    let table = ZoneTable::new([entry(&zone, ZoneSettings { count, ..ZoneSettings::example() }, known(&nodes, true))]);
    for question in ["A", "AAAA", "A +512", "AAAA +512"] {
        let ask = Ask::parse(&format!("{zone}. {question}"));
        let mut out = Vec::new();
        assert!(answered(&table, &ProcessCounters::default(), &ask.octets(), Transport::Udp, &mut out));
        let message = Message::from_vec(&out).unwrap();
        assert_eq!((message.answers.len(), message.metadata.truncation), (8, false), "{question}");
        assert!(out.len() <= 512, "{question}: {}", out.len());
    }
    let soa = Ask::parse(&format!("{zone}. SOA"));
    let mut out = Vec::new();
    assert!(answered(&table, &ProcessCounters::default(), &soa.octets(), Transport::Udp, &mut out));
    assert!(shown(&out).contains(" SOA a"), "RNAME is the root: hostmaster would not fit. {}", shown(&out));
    assert!(shown(&out).contains(" . 7 60 10"));
}

#[test]
fn a_number_of_answers_is_never_truncated_and_all_of_them_are_sent_over_tcp() {
    let seen: BTreeSet<_> = addresses(&reply("big.alt.test. A")).into_iter().collect();
    assert_eq!(seen.len(), 8);
    assert_eq!(addresses(&reply("fill.alt.test. A")).len(), (512 - 12 - 19) / 16, "cut to what fits");
    assert!(!Message::from_vec(&reply("fill.alt.test. A")).unwrap().metadata.truncation);
    let all = reply("all.alt.test. A tcp");
    assert_eq!(addresses(&all).into_iter().collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(all.len(), 12 + 14 + 4 + 200 * 16, "every owner is a pointer");
    assert_eq!(addresses(&reply("one.alt.test. A")).len(), 1);
}

#[test]
fn glue_that_does_not_fit_is_left_out_without_truncation() {
    let servers = (0..13).map(|n| {
        let name = ZoneName::parse(&format!("ns{n}.glue.test")).unwrap();
        (name, vec![format!("192.0.2.{n}").parse().unwrap(), format!("2001:db8::{n}").parse().unwrap()])
    });
    let settings = ZoneSettings { name_servers: NameServers::new(servers), ..ZoneSettings::example() };
    let table = ZoneTable::new([entry("glue.test", settings, Knowledge::Waiting(None))]);
    let ask = |text: &str| {
        let ask = Ask::parse(text);
        let mut out = Vec::new();
        assert!(answered(&table, &ProcessCounters::default(), &ask.octets(), ask.transport, &mut out));
        let message = Message::from_vec(&out).unwrap();
        (message.answers.len(), message.additionals.len(), message.metadata.truncation)
    };
    assert_eq!(ask("glue.test. NS"), (13, 0, false));
    assert_eq!(ask("glue.test. NS +1232"), (13, 26, false));
    assert_eq!(ask("glue.test. NS tcp"), (13, 26, false));
}

#[test]
fn ill_formed_messages_get_formerr_or_silence() {
    let good = Ask::parse("c1.alt.test. A").octets();
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let with = |tail: &[u8], additional: u8| {
        let mut message = [&good, tail].concat();
        message[11] = additional;
        message
    };
    assert_eq!(rcode(&good), "NOERROR");
    assert_eq!(rcode(&[&good[..], &[1, 2, 3]].concat()), "NOERROR", "octets behind the end are nobody's");
    assert_eq!(rcode(&good[..11]), "silence");
    assert_eq!(rcode(&[&good[..2], &[0x80], &good[3..]].concat()), "silence", "QR=1");
    for end in 12..good.len() {
        assert_eq!(rcode(&good[..end]), "FORMERR 12", "cut at {end}");
    }
    let questions = |count| [&good[..5], &[count], &good[6..], &good[12..]].concat();
    assert_eq!(rcode(&questions(0)), "FORMERR 12");
    assert_eq!(rcode(&questions(2)), "FORMERR 12");
    assert_eq!(rcode(&[&good[..12], &[0xC0, 12, 0, 1, 0, 1]].concat()), "FORMERR 12", "a pointer to itself");
    assert_eq!(rcode(&[&good[..12], &[64; 65][..], &[0, 0, 1, 0, 1]].concat()), "FORMERR 12", "a label of 64");
    let labels = |count: usize, last: u8| {
        let name = [[1, b'a'].repeat(count), vec![last], vec![b'a'; last.into()], vec![0]].concat();
        [&good[..12], &name, &[0, 1, 0, 1]].concat()
    };
    assert_eq!(rcode(&labels(126, 1)), "REFUSED", "255 octets");
    assert_eq!(rcode(&labels(126, 2)), "FORMERR 12", "256 octets");
    assert_eq!(rcode(&with(&opt, 1)), "NOERROR opt");
    assert_eq!(rcode(&with(&opt, 2)), "FORMERR 40 opt", "the second record is missing");
    assert_eq!(rcode(&with(&[opt, opt].concat(), 2)), "FORMERR 40 opt", "two OPTs");
    assert_eq!(rcode(&with(&[&[1, b'a'][..], &opt].concat(), 1)), "FORMERR 40 opt", "an OPT that is not the root's");
    let options = |octets: &[u8]| {
        let length = u8::try_from(octets.len()).unwrap();
        with(&[&opt[..10], &[length], octets].concat(), 1)
    };
    assert_eq!(rcode(&options(&[0xFD, 0xE9, 0, 2, 7, 7])), "NOERROR opt", "an unknown option");
    assert_eq!(rcode(&options(&[0xFD, 0xE9, 0, 3, 7, 7])), "FORMERR 40 opt", "an option beyond the end");
    assert_eq!(rcode(&options(&[0xFD])), "FORMERR 40 opt");
    let record = [0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
    assert_eq!(rcode(&with(&[&record[..], &opt].concat(), 2)), "NOERROR opt", "other records are skipped");
    assert_eq!(rcode(&with(&[&[0xC0, 200], &record[2..]].concat(), 1)), "FORMERR 29", "a pointer forward");
}

#[test]
fn other_opcodes_and_versions_are_named() {
    let mut query = Ask::parse("c1.alt.test. A rd +1232 do").octets();
    let version_at = query.len() - 5;
    query[version_at] = 1;
    let mut out = Vec::new();
    let counters = ProcessCounters::default();
    assert!(answered(&world(), &counters, &query, Transport::Udp, &mut out));
    assert_eq!(shown(&out), "BADVERS rd\n; opt 1232 do");
    assert_eq!(out[3] & 0x0F, 0, "the low bits are NOERROR's");
    for opcode in [1_u8, 2, 4, 5, 6, 15] {
        query[2] = opcode << 3 | 1;
        assert!(answered(&world(), &counters, &query, Transport::Udp, &mut out));
        assert_eq!(out, [query[0], query[1], 0x80 | opcode << 3 | 1, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(counters.no_zone.of(QueryType::Other, Rcode::NotImp, Transport::Udp).value(), 6);
    assert_eq!(counters.no_zone.of(QueryType::Other, Rcode::BadVers, Transport::Udp).value(), 1);
}

#[test]
fn a_cookie_may_be_asked_for_without_a_question_and_is_checked_for_its_form() {
    let head = [0xAB, 0xCD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let with = |head: &[u8], length: u8| {
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length + 4, 0, 10, 0, length];
        [head, &opt, &(1..=length).collect::<Vec<_>>()].concat()
    };
    let mut out = Vec::new();
    assert!(answered(&world(), &ProcessCounters::default(), &with(&head, 8), Transport::Udp, &mut out));
    assert!(
        shown(&out).starts_with("NOERROR\n; opt 1232\n; cookie 0102030405060708010000005cf79f11"),
        "{}",
        shown(&out)
    );
    assert_eq!(out[4..6], [0, 0]);
    let mut question = Ask::parse("one.alt.test. A").octets();
    question[11] = 1;
    for (length, expected) in
        [(0, false), (7, false), (8, true), (9, false), (15, false), (16, true), (40, true), (41, false)]
    {
        let expected = if expected { "NOERROR opt".to_owned() } else { format!("FORMERR {} opt", question.len() + 11) };
        assert_eq!(rcode(&with(&question, length)), expected, "{length}");
    }
}

#[test]
fn who_asks_too_much_slips_unless_it_shows_its_cookie() {
    let limit = RateLimit { per_second: std::num::NonZeroU32::MIN, slip: 2, v4_prefix: 24, v6_prefix: 56 };
    let table = world();
    let server = ServerSettings { limiter: Some(Arc::new(Limiter::new(limit))), ..table.server().clone() };
    let (table, counters) = (table.with_server(server), ProcessCounters::default());
    let mut out = Vec::new();
    let mut ask = |query: &[u8], transport| {
        if answered(&table, &counters, query, transport, &mut out) { shown(&out) } else { "silence".into() }
    };
    let plain = Ask::parse("v6.alt.test. A").octets();
    assert_eq!(ask(&plain, Transport::Udp), "NOERROR aa\nv6.alt.test. 4 IN A 10.0.0.1");
    assert_eq!(ask(&plain, Transport::Udp), "silence");
    assert_eq!(ask(&plain, Transport::Udp), "NOERROR tc", "come back over TCP");
    assert!(ask(&plain, Transport::Tcp).contains("10.0.0.1"));
    let mut cookie = Ask::parse("v6.alt.test. A +1232 cookie").octets();
    assert_eq!(ask(&cookie, Transport::Udp), "silence");
    let fresh = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
    assert_eq!(ask(&cookie, Transport::Udp), format!("BADCOOKIE\n; opt 1232\n; cookie {fresh}"));
    let shown: Vec<u8> = (16..48).step_by(2).map(|at| u8::from_str_radix(&fresh[at..at + 2], 16).unwrap()).collect();
    let length = cookie.len();
    (cookie[length - 13], cookie[length - 9]) = (28, 24);
    cookie.extend(shown);
    for _ in 0..5 {
        assert!(ask(&cookie, Transport::Udp).starts_with("NOERROR aa\nv6.alt.test. 4 IN A 10.0.0.1\n"));
    }
    assert_eq!(counters.ignored.of(IgnoreReason::RateLimited as usize).value(), 2);
}

#[test]
fn flags_of_the_client_are_not_echoed() {
    let mut query = Ask::parse("one.alt.test. A +1232").octets();
    query[2] |= 0x06;
    query[3] = 0x70;
    let flags_at = query.len() - 4;
    query[flags_at..][..2].copy_from_slice(&[0x7F, 0xFF]);
    let mut out = Vec::new();
    assert!(answered(&world(), &ProcessCounters::default(), &query, Transport::Udp, &mut out));
    assert_eq!(out[2..4], [0x84, 0x00], "QR and AA");
    assert_eq!(out[out.len() - 11..], [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn the_size_that_a_client_offers_lies_between_512_and_ours() {
    let big = |offer: &str| reply(&format!("fill.alt.test. A {offer}")).len();
    let room = |limit: usize| (limit - 12 - 19 - 11) / 16 * 16 + 12 + 19 + 11;
    for (offer, limit) in [("+0", 512), ("+100", 512), ("+512", 512), ("+700", 700), ("+1232", 1232), ("+4096", 1232)] {
        assert_eq!(big(offer), room(limit), "{offer}");
    }
}

#[test]
fn questions_are_counted_where_they_belong() {
    let (table, counters) = (world(), ProcessCounters::default());
    let mut out = Vec::new();
    let mut ask = |text: &str| {
        let ask = Ask::parse(text);
        assert!(answered(&table, &counters, &ask.octets(), ask.transport, &mut out));
    };
    ask("c1.alt.test. A");
    ask("c1.alt.test. A tcp");
    ask("x.c1.alt.test. TXT");
    ask("other. A");
    let zone = table.zone(&ZoneName::parse("c1.alt.test").unwrap()).unwrap();
    let of = |query_type, rcode, transport| zone.queries(&counters.workers, query_type, rcode, transport);
    assert_eq!(of(QueryType::A, Rcode::NoError, Transport::Udp), 1);
    assert_eq!(of(QueryType::A, Rcode::NoError, Transport::Tcp), 1);
    assert_eq!(of(QueryType::Txt, Rcode::NxDomain, Transport::Udp), 1);
    assert_eq!(counters.no_zone.of(QueryType::A, Rcode::Refused, Transport::Udp).value(), 1);
    assert!(!answered(&table, &counters, &[0; 11], Transport::Udp, &mut out));
    assert_eq!(counters.ignored.of(IgnoreReason::Short as usize).value(), 1);
}

/// A reply of upstreams with so many addresses of the longest name.
fn told(records: u8) -> UpstreamOutcome {
    let mut message = Message::response(0, OpCode::Query);
    let name = Name::from_ascii("upstream.test.").unwrap();
    let data = (0..records).map(|n| RData::A(A::new(192, 0, 2, n)));
    message.add_answers(data.map(|data| Record::from_rdata(name.clone(), 60, data)));
    UpstreamOutcome::Message(Box::new(message))
}

#[test]
fn a_name_of_no_zone_is_left_to_the_upstreams_of_those_who_may() {
    let forwarding = |client: &str| {
        let forward = Some(AllowedClients::Networks(Arc::new([client.parse().unwrap()])));
        world().with_server(ServerSettings { forward, ..ServerSettings::default() })
    };
    let (mine, others) = (forwarding("198.51.100.0/24"), forwarding("192.0.2.0/24"));
    let on = |table: &ZoneTable, text: &str| {
        let (client, mut out) = (Client { address: CLIENT, transport: Transport::Udp, now: NOW }, vec![7]);
        let counters = ProcessCounters::default();
        let outcome = answer(table, &counters, &Ask::parse(text).octets(), &client, &mut Worker::seeded(1), &mut out);
        (outcome, out.get(3).map(|flags| flags & 0x8F))
    };
    const RA: u8 = 0x80;
    assert_eq!(on(&mine, "upstream.test. A rd"), (Answered::Forward, None));
    assert_eq!(on(&mine, "upstream.test. TYPE65280 rd +1232"), (Answered::Forward, None));
    assert_eq!(on(&mine, "upstream.test. A"), (Answered::Reply, Some(RA | 5)), "RD is clear");
    assert_eq!(on(&mine, "upstream.test. A rd =3"), (Answered::Reply, Some(RA | 5)));
    assert_eq!(on(&mine, "upstream.test. IXFR rd"), (Answered::Reply, Some(RA | 5)));
    assert_eq!(on(&mine, "x.c1.alt.test. A rd"), (Answered::Reply, Some(RA | 3)));
    assert_eq!(on(&others, "upstream.test. A rd"), (Answered::Reply, Some(5)));
}

proptest! {
    #[test]
    fn no_forwarded_reply_is_longer_than_its_client_takes(records in 0..200u8, payload in 0..3000u16, tcp in any::<bool>()) {
        let query = Ask::parse(&format!("uPstream.test. A rd +{payload}")).octets();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let (client, counters) = (Client { address: CLIENT, transport, now: NOW }, ProcessCounters::default());
        let mut out = Vec::new();
        let outcome = answer_forwarded(&world(), &counters, &query, &client, &told(records), &mut out);
        prop_assert_eq!(outcome, Answered::Reply);
        let limit = if tcp { 65_535 } else { usize::from(payload.clamp(512, 1232)) };
        let whole = query.len() + 16 * usize::from(records);
        prop_assert_eq!(out.len(), if whole <= limit { whole } else { query.len() });
        let reply = Message::from_vec(&out).unwrap();
        prop_assert_eq!(reply.metadata.truncation, whole > limit);
        prop_assert!(!reply.metadata.authoritative && reply.edns.is_some());
    }
}

#[test]
fn padding_goes_to_the_next_block_but_never_over_the_end() {
    let ask = Ask::parse("all.alt.test. A +1232 padding quic");
    let mut out = Vec::new();
    assert!(answered(&world(), &ProcessCounters::default(), &ask.octets(), ask.transport, &mut out));
    assert_eq!((out.len() % 468, out.len() > 468), (0, true));
    let padded = |octets| {
        let mut edns = hickory_server::proto::op::Edns::new();
        options::pad(&mut edns, octets, 65_535);
        edns.options().as_ref().first().map(|(_, option)| octets + 4 + usize::from(option.len()))
    };
    assert_eq!(padded(464), Some(468));
    assert_eq!(padded(465), Some(936));
    assert_eq!(padded(65_520), Some(65_535));
    assert_eq!((padded(65_531), padded(65_532)), (Some(65_535), None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_octets_can_panic(octets in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        check_reply(&octets, tcp, 5)?;
    }

    #[test]
    fn no_change_to_a_good_question_can_panic(
        question in any_question(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        seed in any::<u64>(),
        tcp in any::<bool>(),
    ) {
        let mut octets = question;
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        check_reply(&octets, tcp, seed)?;
    }

    /// The promise of the fast path: octet for octet what the slow path says.
    #[test]
    fn both_paths_say_the_same(
        question in any_question(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        extra in prop::collection::vec(any::<u8>(), 0..3),
        seed in any::<u64>(),
        tcp in any::<bool>(),
        stranger in any::<bool>(),
    ) {
        let mut octets = [question, extra].concat();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(cut.map_or(octets.len(), |cut| cut.index(octets.len())));
        check_paths(&octets, tcp, stranger, seed)?;
    }

    /// And it knows no less: whatever happens to zones between two questions, the next answer is as new.
    #[test]
    fn both_paths_say_the_newest(
        events in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..6, 0_u8..20), 1..60),
        seed in any::<u64>(),
    ) {
        let names = ["a.test", "b.test", "b.b.test"];
        let mut entries = names.map(|name| entry(name, ZoneSettings::example(), Knowledge::Waiting(None)));
        let mut table = ZoneTable::new(entries.clone());
        let (mut one, mut other) = (Worker::seeded(seed), Worker::seeded(seed));
        for (zone, event, number) in events {
            let (at, counters) = (zone.index(names.len()), ProcessCounters::default());
            match event {
                0 => entries[at].learn(&numbered(1..=number, ZoneState::Live), 1),
                1 => entries[at].learn(&numbered(2..=number, ZoneState::Stale), 1),
                2 => {
                    let count = NonZeroU16::new(number.into()).map_or(AnswerCount::All, AnswerCount::AtMost);
                    let (ttl, subdomains) = (Ttl::from_secs(number.into()).unwrap(), number % 2 == 0);
                    entries[at].configure(&ZoneSettings { count, ttl, subdomains, ..ZoneSettings::example() }, 1);
                }
                3 => {
                    entries[at] = entry(names[at], ZoneSettings::example(), numbered(3..=number, ZoneState::Live));
                    table = ZoneTable::new(entries.clone());
                }
                _ => {}
            }
            let record_type = if number % 3 == 0 { "AAAA" } else { "A" };
            let below = if number % 4 == 1 { "x." } else { "" };
            let query = Ask::parse(&format!("{below}{}. {record_type} +1232", names[at])).octets();
            let client = Client { address: CLIENT, transport: Transport::Udp, now: NOW };
            let (mut either, mut complete) = (Vec::new(), Vec::new());
            prop_assert_eq!(answer(&table, &counters, &query, &client, &mut one, &mut either), Answered::Reply);
            let answered = answer_slow(&table, &counters, &query, &client, &mut other, &mut complete);
            prop_assert_eq!(answered, Answered::Reply);
            prop_assert_eq!(shown(&either), shown(&complete));
            prop_assert_eq!(either, complete);
        }
    }

    #[test]
    fn answers_are_distinct_nodes(
        zone in prop::sample::select(&["c1", "big", "fill", "one"][..]),
        seed in any::<u64>(),
    ) {
        let mut out = Vec::new();
        let query = Ask::parse(&format!("{zone}.alt.test. A +1232")).octets();
        let table = world();
        let client = Client { address: CLIENT, transport: Transport::Udp, now: NOW };
        let answered = answer(&table, &ProcessCounters::default(), &query, &client, &mut Worker::seeded(seed), &mut out);
        prop_assert_eq!(answered, Answered::Reply);
        let seen = addresses(&out);
        let nodes = &table.zone(&ZoneName::parse(&format!("{zone}.alt.test")).unwrap()).unwrap().answers().v4;
        prop_assert!(seen.iter().all(|address| nodes.iter().any(|node| IpAddr::V4(*node) == *address)));
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    }
}

/// Whatever a reply answers, another parser reads it, it keeps its limit, and it echoes the identity.
fn check_reply(query: &[u8], tcp: bool, seed: u64) -> Result<(), TestCaseError> {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let mut out = Vec::new();
    let client = Client { address: CLIENT, transport, now: NOW };
    let counters = ProcessCounters::default();
    if answer(&world(), &counters, query, &client, &mut Worker::seeded(seed), &mut out) == Answered::Reply {
        prop_assert!(tcp || out.len() <= 1232);
        prop_assert_eq!(&out[..2], &query[..2]);
        let reply = Message::from_vec(&out).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
        prop_assert!(!reply.metadata.recursion_available && !reply.metadata.checking_disabled);
        prop_assert!(tcp || reply.edns.is_some() || out.len() <= 512);
    }
    Ok(())
}

fn check_paths(query: &[u8], tcp: bool, stranger: bool, seed: u64) -> Result<bool, TestCaseError> {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let address = if stranger { IpAddr::from([192, 0, 2, 1]) } else { CLIENT };
    let client = Client { address, transport, now: NOW };
    let (table, counters) = (world(), ProcessCounters::default());
    let (mut fast, mut complete) = (Vec::new(), Vec::new());
    let mut worker = Worker::seeded(seed);
    // Twice, so that it also deals from a bag that it has begun.
    for _ in 0..2 {
        let is_fast = fast::answer(&table, &counters, query, &client, &mut worker, &mut fast);
        if !is_fast {
            return Ok(false);
        }
    }
    let mut worker = Worker::seeded(seed);
    for _ in 0..2 {
        let answered = answer_slow(&table, &counters, query, &client, &mut worker, &mut complete);
        prop_assert_eq!(answered, Answered::Reply);
    }
    prop_assert_eq!(shown(&fast), shown(&complete));
    prop_assert_eq!(fast, complete);
    Ok(true)
}

#[test]
fn the_everyday_question_takes_the_fast_path_and_others_do_not() {
    let takes = |text: &str| {
        let ask = Ask::parse(text);
        check_paths(&ask.octets(), ask.transport == Transport::Tcp, false, 1).unwrap()
    };
    for fast in [
        "one.alt.test. A",
        "ONE.alt.TEST. A rd",
        "v6.alt.test. AAAA",
        "big.alt.test. A +1232",
        "c1.alt.test. A +512 do",
        "one.alt.test. A +1232 cookie",
        "fill.alt.test. A",
        "all.alt.test. A tcp",
        "x.sub.alt.test. A",
        "old.alt.test. A",
        "seeds.alt.test. A",
    ] {
        assert!(takes(fast), "{fast}");
    }
    for complete in [
        "one.alt.test. AAAA",
        "one.alt.test. TXT",
        "all.alt.test. A",
        "one.alt.test. A =3",
        "one.alt.test. A +1232 nsid",
        "one.alt.test. A +1232 nsid cookie",
        "old.alt.test. A +1232",
        "new.alt.test. A",
        "x.c1.alt.test. A",
        "other.test. A",
        "secret.alt.test. A",
        "hang.test. A",
        "ns.c1.alt.test. A",
        "x.sub.alt.test. AAAA",
    ] {
        assert!(!takes(complete), "{complete}");
    }
}

fn any_question() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&str] =
        &["c1", "X.c1", "b.c1", "ns.c1", "a.b.c1", "sub", "x.y.sub", "all", "big", "new", "seeds", "old", "no"];
    const TYPES: &[&str] = &["A", "AAAA", "NS", "SOA", "ANY", "TXT", "AXFR", "TYPE0", "TYPE41", "TYPE1000"];
    const EXTRAS: &[&str] = &[
        "",
        " rd",
        " +1232",
        " +512 do",
        " +4096",
        " =3",
        " =255 +0",
        " +1232 nsid",
        " +512 cookie",
        " +700 nsid cookie",
    ];
    (prop::sample::select(NAMES), prop::sample::select(TYPES), prop::sample::select(EXTRAS))
        .prop_map(|(name, kind, extra)| Ask::parse(&format!("{name}.alt.test. {kind}{extra}")).octets())
        .boxed()
}

/// The zones that the cases ask.
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
    let hang = ZoneSettings { negative_ttl: five, name_servers: hang, ..ZoneSettings::example() };
    let nobody = AllowedClients::Networks(Arc::new(["192.0.2.0/24".parse().unwrap()]));
    let secret = ZoneSettings { clients: nobody, ..ZoneSettings::example() };
    let secrets = CookieSecrets::of(CookieSecret(0xe5e9_73e5_a6b2_a43f_48e7_dc84_9e37_bfcf_u128.to_be_bytes()));
    let server = ServerSettings {
        id: Some("ns-7".into()),
        version: Some("one".into()),
        keepalive: 100,
        cookies: Arc::new(arc_swap::ArcSwap::from_pointee(secrets)),
        ..ServerSettings::default()
    };
    ZoneTable::new([
        Arc::new(ZoneEntry::domain(ZoneName::parse("hang.test").unwrap(), hang, 7)),
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
    ])
    .with_server(server)
}

fn entry(name: &str, settings: ZoneSettings, knowledge: Knowledge) -> Arc<ZoneEntry> {
    let entry = ZoneEntry::new(ZoneName::parse(name).unwrap(), settings, 6);
    // The first list that is learnt moves the serial from 6 to 7; a zone without one is begun with 7.
    match knowledge {
        Knowledge::Waiting(None) => {
            let settings = (*entry.answers().settings).clone();
            return Arc::new(ZoneEntry::new(entry.name().clone(), settings, 7));
        }
        knowledge => entry.learn(&knowledge, 7),
    }
    Arc::new(entry)
}

/// Nodes with these numbers, in both families; none of them is none.
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
            "HTTPS" => 65,
            "IXFR" => 251,
            "AXFR" => 252,
            "ANY" => 255,
            other => other.strip_prefix("TYPE").unwrap().parse().unwrap(),
        };
        let (class, transport) = (1, Transport::Udp);
        let mut ask =
            Self { name, query_type, class, recursion_desired: false, edns: None, options: Vec::new(), transport };
        for word in words {
            match word {
                "nsid" => ask.options.extend([0, 3, 0, 0]),
                "cookie" => ask.options.extend([0, 10, 0, 8, 0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57]),
                "keepalive" => ask.options.extend([0, 11, 0, 0]),
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

/// Answers with any choice of nodes.
fn answered(
    table: &ZoneTable,
    counters: &ProcessCounters,
    query: &[u8],
    transport: Transport,
    out: &mut Vec<u8>,
) -> bool {
    let client = Client { address: CLIENT, transport, now: NOW };
    answer(table, counters, query, &client, &mut Worker::seeded(1), out) == Answered::Reply
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
fn shown(reply: &[u8]) -> String {
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

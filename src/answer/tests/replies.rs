//! Compression, sizes, truncation, flags and counters of replies.

use std::collections::BTreeSet;

use super::*;

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
        text_of(&out)
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
    assert!(text_of(&out).contains(" SOA a"), "RNAME is the root: hostmaster would not fit. {}", text_of(&out));
    assert!(text_of(&out).contains(" . 7 60 10"));
}

#[test]
fn a_number_of_answers_is_never_truncated_and_tcp_carries_all() {
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
fn a_truncated_answer_holds_the_addresses_that_fit() {
    for (question, octets_max, opt_octets) in
        [("all.alt.test. A", 512, 0), ("all.alt.test. A +700", 700, 11), ("all.alt.test. A +4096", 1232, 11)]
    {
        let octets = reply(question);
        let message = Message::from_vec(&octets).unwrap();
        assert!(message.metadata.truncation && octets.len() <= octets_max, "{question}");
        assert_eq!(message.edns.is_some(), opt_octets > 0);
        assert_eq!(message.answers.len(), (octets_max - 12 - 18 - opt_octets) / 16, "{question}");
        let distinct: BTreeSet<_> = message.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(distinct.len(), message.answers.len());
    }
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
fn the_advertised_size_is_clamped_between_512_and_1232() {
    let big = |offer: &str| reply(&format!("fill.alt.test. A {offer}")).len();
    let largest = |limit: usize| (limit - 12 - 19 - 11) / 16 * 16 + 12 + 19 + 11;
    for (offer, limit) in [("+0", 512), ("+100", 512), ("+512", 512), ("+700", 700), ("+1232", 1232), ("+4096", 1232)] {
        assert_eq!(big(offer), largest(limit), "{offer}");
    }
}

#[test]
fn queries_are_counted_by_zone() {
    let table = world();
    let counters = ProcessCounters::default();
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
    assert_eq!(counters.ignored.of(IgnoreReason::Short).value(), 1);
}

#[test]
fn padding_fills_a_block_and_never_exceeds_the_maximum() {
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

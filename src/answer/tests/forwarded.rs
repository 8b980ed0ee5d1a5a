//! Questions for upstreams, and their answers.

use hickory_server::proto::{
    op::OpCode,
    rr::{
        Name, RData, Record,
        rdata::{A, CNAME},
    },
};
use proptest::prelude::*;

use super::*;

/// An answer of upstreams with this many addresses.
fn upstream_reply(records: u8) -> UpstreamOutcome {
    let mut message = Message::response(0, OpCode::Query);
    let name = Name::from_ascii("upstream.test.").unwrap();
    let data = (0..records).map(|n| RData::A(A::new(192, 0, 2, n)));
    message.add_answers(data.map(|data| Record::from_rdata(name.clone(), 60, data)));
    UpstreamOutcome::Message(Box::new(message))
}

#[test]
fn a_name_of_no_zone_is_forwarded_for_permitted_clients() {
    let forwarding = |client: &str| {
        let forward = Some(AllowedClients::Networks(Arc::new([client.parse().unwrap()])));
        world().with_server(ServerSettings { forward, ..ServerSettings::default() })
    };
    let mine = forwarding("198.51.100.0/24");
    let others = forwarding("192.0.2.0/24");
    let on = |table: &ZoneTable, text: &str| {
        let client = Client { address: CLIENT, transport: Transport::Udp, now: NOW };
        let mut out = vec![7];
        let counters = ProcessCounters::default();
        let outcome =
            responder(table, &counters).answer(&Ask::parse(text).octets(), &client, &mut Worker::seeded(1), &mut out);
        (outcome, out.get(3).map(|flags| flags & 0x8F))
    };
    const RA: u8 = 0x80;
    assert_eq!(on(&mine, "upstream.test. A rd"), (Answered::Forward, None));
    assert_eq!(on(&mine, "upstream.test. TYPE65280 rd +1232"), (Answered::Forward, None));
    assert_eq!(on(&mine, "upstream.test. A"), (Answered::Reply, Some(RA | 5)), "RD is clear");
    assert_eq!(on(&mine, "upstream.test. A rd =3"), (Answered::Reply, Some(RA | 5)));
    assert_eq!(on(&mine, "upstream.test. IXFR rd"), (Answered::Reply, Some(RA | 5)));
    assert_eq!(on(&mine, "x.c1.alt.test. A rd"), (Answered::Reply, Some(RA | 3)));
    assert_eq!(on(&mine, "one.alt.test. A rd"), (Answered::Reply, Some(RA)), "the fast path");
    assert_eq!(on(&others, "upstream.test. A rd"), (Answered::Reply, Some(5)));
    assert_eq!(on(&others, "one.alt.test. A rd"), (Answered::Reply, Some(0)));
}

#[test]
fn forwarded_replies_are_padded_as_zone_replies_are() {
    for (transport, is_padded) in [("tls", true), ("https", true), ("quic", true), ("tcp", false)] {
        let ask = Ask::parse(&format!("upstream.test. A rd +1232 padding {transport}"));
        let client = Client { address: CLIENT, transport: ask.transport, now: NOW };
        let outcomes = [upstream_reply(1), upstream_reply(30), UpstreamOutcome::Unreachable, UpstreamOutcome::Failed];
        for outcome in outcomes {
            let mut out = Vec::new();
            let counters = ProcessCounters::default();
            let question = ForwardedQuestion { message: &ask.octets(), client: &client };
            let worker = Mutex::new(Worker::seeded(1));
            let answered = responder(&world(), &counters).answer_forwarded(question, &outcome, &worker, &mut out);
            assert_eq!(answered, Answered::Reply);
            assert_eq!(text_of(&out).contains("; padded to"), is_padded, "{transport} {outcome:?}");
            assert_eq!(out.len().is_multiple_of(468), is_padded, "{transport} {outcome:?}");
        }
    }
}

/// An answer of upstreams with these aliases, and an address of the last name.
fn aliases(names: &[&str]) -> UpstreamOutcome {
    let mut message = Message::response(0, OpCode::Query);
    let name = |text: &str| Name::from_ascii(text).unwrap();
    for pair in names.windows(2) {
        message.add_answer(Record::from_rdata(name(pair[0]), 60, RData::CNAME(CNAME(name(pair[1])))));
    }
    let last = name(names.last().unwrap());
    message.add_answer(Record::from_rdata(last, 60, RData::A(A::new(203, 0, 113, 9))));
    UpstreamOutcome::Message(Box::new(message))
}

fn forwarded(question: &Ask, outcome: &UpstreamOutcome) -> Vec<u8> {
    let client = Client { address: CLIENT, transport: question.transport, now: NOW };
    let question = ForwardedQuestion { message: &question.octets(), client: &client };
    let mut out = Vec::new();
    let counters = ProcessCounters::default();
    let worker = Mutex::new(Worker::seeded(1));
    let answered = responder(&world(), &counters).answer_forwarded(question, outcome, &worker, &mut out);
    assert_eq!(answered, Answered::Reply);
    out
}

#[test]
fn an_alias_into_a_zone_is_followed_here() {
    let follow = |names: &[&str]| text_of(&forwarded(&Ask::parse("www.upstream.test. A rd"), &aliases(names)));
    let www = "www.upstream.test.";
    assert_eq!(
        follow(&[www, "One.alt.test."]),
        "NOERROR rd\nOne.alt.test. 4 IN A 10.1.0.3\nwww.upstream.test. 60 IN CNAME One.alt.test."
    );
    let long = follow(&[www, "x.upstream.test.", "one.alt.test.", "elsewhere.test."]);
    assert!(long.contains("one.alt.test. 4 IN A 10.1.0.3") && !long.contains("elsewhere"), "{long}");
    let elsewhere = follow(&[www, "x.upstream.test."]);
    assert!(elsewhere.contains("x.upstream.test. 60 IN A 203.0.113.9"), "{elsewhere}");
    let looping = follow(&[www, "x.upstream.test.", www]);
    assert!(looping.contains("x.upstream.test. 60 IN CNAME www.upstream.test."), "{looping}");
}

#[test]
fn aliases_into_a_large_zone_are_truncated_with_the_addresses_that_fit() {
    let names = ["www.upstream.test.", "far.away.upstream.test.", "all.alt.test."];
    for (extras, octets_max) in [("", 512), (" +1232", 1232)] {
        let reply = forwarded(&Ask::parse(&format!("www.upstream.test. A rd{extras}")), &aliases(&names));
        let message = Message::from_vec(&reply).unwrap();
        assert!(message.metadata.truncation && !message.metadata.authoritative);
        assert!((octets_max - 64..=octets_max).contains(&reply.len()), "{} octets", reply.len());
        assert!(message.answers.iter().skip(2).all(|record| record.name.to_ascii() == "all.alt.test."));
    }
}

proptest! {
    #[test]
    fn no_aliases_make_a_reply_too_long_or_unreadable(
        names in prop::collection::vec(
            prop::sample::select(&[
                "a.upstream.test.", "B.upstream.test.", "one.alt.test.", "ALL.alt.test.", "x.c1.alt.test.", "c1.alt.test.",
                "x.sub.alt.test.", "hang.test.", "new.alt.test.", "old.alt.test.", ".", "secret.alt.test.",
            ][..]),
            1..24,
        ),
        kind in prop::sample::select(&["A", "AAAA", "NS", "SOA", "ANY", "TXT", "TYPE5", "TYPE43"][..]),
        extras in prop::sample::select(&["", " +512", " +1232 do", " +700 nsid cookie"][..]),
    ) {
        let names = [&["a.upstream.test."], &names[..]].concat();
        let question = Ask::parse(&format!("a.upstream.test. {kind} rd{extras}"));
        let reply = forwarded(&question, &aliases(&names));
        let message = Message::from_vec(&reply).unwrap();
        prop_assert!(!message.metadata.authoritative);
        let limit = match extras {
            "" | " +512" => 512,
            " +700 nsid cookie" => 700,
            _ => 1232,
        };
        prop_assert!(reply.len() <= limit, "{} octets", reply.len());
        prop_assert_eq!(&reply[12..][..question.octets().len() - 12 - question.opt().len()],
            &question.octets()[12..question.octets().len() - question.opt().len()]);
    }

    #[test]
    fn no_forwarded_reply_is_longer_than_its_limit(records in 0..200u8, payload in 0..3000u16, tcp in any::<bool>()) {
        let query = Ask::parse(&format!("uPstream.test. A rd +{payload}")).octets();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let client = Client { address: CLIENT, transport, now: NOW };
        let counters = ProcessCounters::default();
        let mut out = Vec::new();
        let question = ForwardedQuestion { message: &query, client: &client };
        let worker = Mutex::new(Worker::seeded(1));
        let outcome = responder(&world(), &counters).answer_forwarded(question, &upstream_reply(records), &worker, &mut out);
        prop_assert_eq!(outcome, Answered::Reply);
        let limit = if tcp { 65_535 } else { usize::from(payload.clamp(512, 1232)) };
        let whole = query.len() + 16 * usize::from(records);
        prop_assert_eq!(out.len(), if whole <= limit { whole } else { query.len() });
        let reply = Message::from_vec(&out).unwrap();
        prop_assert_eq!(reply.metadata.truncation, whole > limit);
        prop_assert!(!reply.metadata.authoritative && reply.edns.is_some());
    }
}

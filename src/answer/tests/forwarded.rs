//! Questions for upstreams, and their answers.

use hickory_server::proto::{
    op::OpCode,
    rr::{Name, RData, Record, rdata::A},
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

proptest! {
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

//! Properties of every reply, and the fast path against the slow path.

use std::collections::BTreeSet;

use hickory_server::proto::op::MessageType;
use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_input_makes_it_panic(octets in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        check_reply(&octets, tcp, 5)?;
    }

    #[test]
    fn no_change_to_a_good_question_makes_it_panic(
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

    /// The fast path replies octet for octet as the slow path does.
    #[test]
    fn both_paths_give_the_same_octets(
        question in any_question(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
        extra in prop::collection::vec(any::<u8>(), 0..3),
        seed in any::<u64>(),
        tcp in any::<bool>(),
        other_network in any::<bool>(),
    ) {
        let mut octets = [question, extra].concat();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(cut.map_or(octets.len(), |cut| cut.index(octets.len())));
        check_paths(&octets, tcp, other_network, seed)?;
    }

    /// Whatever changes in the zones between two questions, both answer with the current data.
    #[test]
    fn both_paths_answer_with_the_current_data(
        events in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..6, 0_u8..20), 1..60),
        seed in any::<u64>(),
    ) {
        let names = ["a.test", "b.test", "b.b.test"];
        let mut entries = names.map(|name| entry(name, ZoneSettings::example(), Knowledge::Waiting(None)));
        let mut table = ZoneTable::new(entries.clone());
        let mut one = Worker::seeded(seed);
        let mut other = Worker::seeded(seed);
        for (zone, event, number) in events {
            let at = zone.index(names.len());
            let counters = ProcessCounters::default();
            match event {
                0 => entries[at].learn(&numbered(1..=number, ZoneState::Live), 1),
                1 => entries[at].learn(&numbered(2..=number, ZoneState::Stale), 1),
                2 => {
                    let count = NonZeroU16::new(number.into()).map_or(AnswerCount::All, AnswerCount::AtMost);
                    let ttl = Ttl::from_secs(number.into()).unwrap();
                    let subdomains = number % 2 == 0;
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
            let mut either = Vec::new();
            let mut slow = Vec::new();
            prop_assert_eq!(responder(&table, &counters).answer(&query, &client, &mut one, &mut either), Answered::Reply);
            let answered = responder(&table, &counters).answer_slow(&query, &client, &mut other, &mut slow);
            prop_assert_eq!(answered, Answered::Reply);
            prop_assert_eq!(text_of(&either), text_of(&slow));
            prop_assert_eq!(either, slow);
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
        let answered = responder(&table, &ProcessCounters::default()).answer(&query, &client, &mut Worker::seeded(seed), &mut out);
        prop_assert_eq!(answered, Answered::Reply);
        let seen = addresses(&out);
        let nodes = &table.zone(&ZoneName::parse(&format!("{zone}.alt.test")).unwrap()).unwrap().answers().v4;
        prop_assert!(seen.iter().all(|address| nodes.iter().any(|node| IpAddr::V4(*node) == *address)));
        prop_assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
    }
}

/// Every reply can be read by another parser, keeps its limit, and echoes the identity.
fn check_reply(query: &[u8], tcp: bool, seed: u64) -> Result<(), TestCaseError> {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let mut out = Vec::new();
    let client = Client { address: CLIENT, transport, now: NOW };
    let counters = ProcessCounters::default();
    if responder(&world(), &counters).answer(query, &client, &mut Worker::seeded(seed), &mut out) == Answered::Reply {
        prop_assert!(tcp || out.len() <= 1232);
        prop_assert_eq!(&out[..2], &query[..2]);
        let reply = Message::from_vec(&out).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(reply.metadata.message_type, MessageType::Response);
        prop_assert!(!reply.metadata.recursion_available && !reply.metadata.checking_disabled);
        prop_assert!(tcp || reply.edns.is_some() || out.len() <= 512);
    }
    Ok(())
}

fn check_paths(query: &[u8], tcp: bool, other_network: bool, seed: u64) -> Result<bool, TestCaseError> {
    let transport = if tcp { Transport::Tcp } else { Transport::Udp };
    let address = if other_network { IpAddr::from([192, 0, 2, 1]) } else { CLIENT };
    let client = Client { address, transport, now: NOW };
    let table = world();
    let counters = ProcessCounters::default();
    let mut fast = Vec::new();
    let mut slow = Vec::new();
    let mut worker = Worker::seeded(seed);
    // Twice, so that it also picks from a bag that is in use.
    for _ in 0..2 {
        let is_fast = responder(&table, &counters).answer_fast(query, &client, &mut worker, &mut fast);
        if !is_fast {
            return Ok(false);
        }
    }
    let mut worker = Worker::seeded(seed);
    for _ in 0..2 {
        let answered = responder(&table, &counters).answer_slow(query, &client, &mut worker, &mut slow);
        prop_assert_eq!(answered, Answered::Reply);
    }
    prop_assert_eq!(text_of(&fast), text_of(&slow));
    prop_assert_eq!(fast, slow);
    Ok(true)
}

#[test]
fn plain_questions_take_the_fast_path_and_others_do_not() {
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
        "all.alt.test. A",
        "all.alt.test. A +700 cookie",
        "all.alt.test. A tcp",
        "x.sub.alt.test. A",
        "old.alt.test. A",
        "seeds.alt.test. A",
    ] {
        assert!(takes(fast), "{fast}");
    }
    for slow in [
        "one.alt.test. AAAA",
        "one.alt.test. TXT",
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
        assert!(!takes(slow), "{slow}");
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

//! Properties of every reply, and the fast path against the slow path.

use std::collections::BTreeSet;

use hickory_server::proto::op::MessageType;
use proptest::prelude::*;

use super::*;
use crate::{
    answer::wire::HEADER_OCTETS,
    table::{Known, Node},
    types::NodeState,
};

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
        is_root_world in any::<bool>(),
    ) {
        let mut octets = [question, extra].concat();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(cut.map_or(octets.len(), |cut| cut.index(octets.len())));
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let address = if other_network { IpAddr::from([192, 0, 2, 1]) } else { CLIENT };
        let client = Client { address, transport, now: NOW };
        check_paths(if is_root_world { root_world } else { world }, &octets, &client, seed)?;
    }

    /// Whatever changes in the zones between two questions, both answer with the current data.
    #[test]
    fn both_paths_answer_with_the_current_data(
        events in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8, 0_u8..20), 1..60),
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
                4 => {
                    let server = (ZoneName::parse("ns.b.test").unwrap(), vec![IpAddr::from([10, 9, 0, number])]);
                    let name_servers = NameServers::new((number % 5 > 0).then_some(server));
                    entries[at].configure(&ZoneSettings { name_servers, ..ZoneSettings::example() }, 1);
                    table = ZoneTable::new(entries.clone());
                }
                // The zone that the name server lies in may be gone.
                5 => table = ZoneTable::new(entries.iter().take(at + 1).cloned()),
                6 => table = ZoneTable::new(entries.clone()),
                _ => {}
            }
            let record_type = ["A", "AAAA", "NS", "SOA", "HTTPS"][usize::from(number % 5)];
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

    /// The same with a view: whatever is learnt of it and of its zone.
    #[test]
    fn both_paths_agree_about_views(
        events in prop::collection::vec((0_u8..6, 0_u8..20, any::<bool>()), 1..60),
        seed in any::<u64>(),
    ) {
        let settings = ZoneSettings { views: ViewRole::HasViews, ..ZoneSettings::example() };
        let zone = entry("a.test", settings.clone(), Knowledge::Waiting(None));
        let network = "198.51.100.0/24".parse().unwrap();
        let of_view = ZoneSettings { views: ViewRole::IsView, ..ZoneSettings::example() };
        let view = entry("b.test", of_view, Knowledge::Waiting(None));
        let views = ZoneViews::new([View::new(Arc::new([network]), view.clone())]);
        let table = ZoneTable::new([zone.clone()]).with_views([(zone.name().clone(), views)]);
        let mut one = Worker::seeded(seed);
        let mut other = Worker::seeded(seed);
        for (event, number, is_in_view) in events {
            match event {
                0 => zone.learn(&numbered(1..=number, ZoneState::Live), 1),
                1 => view.learn(&numbered(3..=number, ZoneState::Live), 1),
                2 => view.learn(&numbered(1..=number, ZoneState::Stale), 1),
                3 => {
                    let count = NonZeroU16::new(number.into()).map_or(AnswerCount::All, AnswerCount::AtMost);
                    zone.configure(&ZoneSettings { count, ..settings.clone() }, 1);
                }
                4 => view.learn(&down(number), 1),
                _ => view.drain(&(1..=number).map(|n| (IpAddr::from([10, 0, 0, n]), std::time::UNIX_EPOCH)).collect(), 1),
            }
            let record_type = ["A", "AAAA", "ANY", "HTTPS"][usize::from(number % 4)];
            let query = Ask::parse(&format!("a.test. {record_type} +1232")).octets();
            let address = if is_in_view { CLIENT } else { IpAddr::from([192, 0, 2, 1]) };
            let client = Client { address, transport: Transport::Udp, now: NOW };
            let counters = [ProcessCounters::default(), ProcessCounters::default()];
            let (mut either, mut slow) = (Vec::new(), Vec::new());
            let answered = responder(&table, &counters[0]).answer(&query, &client, &mut one, &mut either);
            prop_assert_eq!(answered, Answered::Reply);
            let answered = responder(&table, &counters[1]).answer_slow(&query, &client, &mut other, &mut slow);
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

/// Addresses, TTL and rcode of both paths' answers for a client.
fn seen_by(client: [u8; 4], text: &str) -> String {
    let table = world();
    let ask = Ask::parse(text);
    let client = Client { address: client.into(), transport: ask.transport, now: NOW };
    check_paths(world, &ask.octets(), &client, 1).unwrap();
    let mut out = Vec::new();
    let counters = ProcessCounters::default();
    let answered = responder(&table, &counters).answer(&ask.octets(), &client, &mut Worker::seeded(1), &mut out);
    assert_eq!(answered, Answered::Reply);
    let message = Message::from_vec(&out).unwrap();
    let mut addresses: Vec<_> =
        message.answers.iter().map(|record| format!("{} {}", record.data, record.ttl)).collect();
    addresses.sort();
    let counted = counts_of(&table, &counters).into_iter().filter(|line| line.contains('/')).count();
    let of_view = if counted > 0 { " of a view" } else { "" };
    format!("{} {}{of_view}", word(message.metadata.response_code), addresses.join(" ")).trim_end().to_owned()
}

#[test]
fn a_client_gets_the_addresses_of_its_view_and_else_those_of_the_zone() {
    let (v4, v6, none) = ([198, 51, 100, 1], [192, 0, 2, 1], [203, 0, 113, 1]);
    let rack = ["10.0.1.1 4", "10.0.1.2 4", "10.0.1.3 4"];
    let seen = seen_by(v4, "views.alt.test. A");
    assert!(seen.ends_with(" of a view") && rack.iter().filter(|node| seen.contains(**node)).count() == 2, "{seen}");
    assert_eq!(seen_by(v4, "views.alt.test. AAAA"), "NOERROR 2001:db8::9 4");
    assert_eq!(seen_by(v4, "views.alt.test. HTTPS"), "NOERROR");
    assert_eq!(seen_by(v6, "views.alt.test. AAAA"), "NOERROR 2001:db8::1 4 2001:db8::2 4 of a view");
    for client in [v6, none] {
        assert!(seen_by(client, "views.alt.test. A").starts_with("NOERROR 10.0.0."));
    }
    assert_eq!(seen_by(none, "views.alt.test. AAAA"), "NOERROR 2001:db8::9 4");
    // The zone knows no node: what the view does not have is no denial.
    assert_eq!(seen_by(v4, "bare.alt.test. A"), format!("NOERROR {} of a view", rack.join(" ").replace(" 4", " 2")));
    assert_eq!(seen_by(v4, "bare.alt.test. AAAA"), "SERVFAIL");
    assert_eq!(seen_by([198, 51, 100, 200], "bare.alt.test. A"), "REFUSED", "clients of the zone");
}

/// Nodes that are all down.
fn down(count: u8) -> Knowledge {
    let node = |n: u8| Node { state: NodeState::Down, ..Node::up(IpAddr::from([10, 0, 0, n])) };
    Knowledge::Known(Known { nodes: (1..=count).map(node).collect(), state: ZoneState::Live, expired: false })
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

/// Whether the fast path answers. If so, the slow path gives the same octets and counts the same.
fn check_paths(world: fn() -> ZoneTable, query: &[u8], client: &Client, seed: u64) -> Result<bool, TestCaseError> {
    let mut replies = [Vec::new(), Vec::new()];
    let mut counts = [Vec::new(), Vec::new()];
    for (is_slow, (out, counted)) in [false, true].into_iter().zip(replies.iter_mut().zip(&mut counts)) {
        let table = world();
        let counters = ProcessCounters::default();
        let responder = responder(&table, &counters);
        let mut worker = Worker::seeded(seed);
        // Twice, so that it also picks from a bag that is in use.
        for _ in 0..2 {
            if is_slow {
                prop_assert_eq!(responder.answer_slow(query, client, &mut worker, out), Answered::Reply);
            } else if !responder.answer_fast(query, client, &mut worker, out) {
                return Ok(false);
            }
        }
        prop_assert_eq!(counters.workers.fast_path(), if is_slow { 0 } else { 2 });
        *counted = counts_of(&table, &counters);
    }
    let ([fast, slow], [fast_counts, slow_counts]) = (replies, counts);
    prop_assert_eq!(text_of(&fast), text_of(&slow));
    prop_assert_eq!(fast, slow);
    prop_assert_eq!(fast_counts, slow_counts);
    Ok(true)
}

/// Each count that is not zero, with its zone.
fn counts_of(table: &ZoneTable, counters: &ProcessCounters) -> Vec<String> {
    let mut counts = Vec::new();
    for &query_type in QueryType::ALL {
        for &rcode in Rcode::ALL {
            for transport in [Transport::Udp, Transport::Tcp] {
                let views = table.all_views().map(|view| &view.row.entry);
                let zones = table.entries().chain(views).map(|entry| {
                    (entry.name().to_string(), entry.queries(&counters.workers, query_type, rcode, transport))
                });
                let no_zone = (String::new(), counters.no_zone.value(query_type, rcode, transport));
                let counted = zones.chain([no_zone]).filter(|(_, count)| *count > 0);
                counts.extend(
                    counted.map(|(zone, count)| format!("{zone} {query_type:?} {rcode:?} {transport:?} {count}")),
                );
            }
        }
    }
    counts
}

#[test]
fn common_questions_take_the_fast_path_and_others_do_not() {
    let takes = |world, text: &str| {
        let ask = Ask::parse(text);
        let client = Client { address: CLIENT, transport: ask.transport, now: NOW };
        check_paths(world, &ask.octets(), &client, 1).unwrap()
    };
    for fast in [
        "one.alt.test. A",
        "ONE.alt.TEST. A rd",
        "v6.alt.test. AAAA",
        "big.alt.test. A +1232",
        "c1.alt.test. A +512 do",
        "one.alt.test. A +1232 cookie",
        "one.alt.test. A +1232 subnet",
        "one.alt.test. A +1232 subnet cookie",
        "fill.alt.test. A",
        "all.alt.test. A",
        "all.alt.test. A +700 cookie",
        "all.alt.test. A tcp",
        "x.sub.alt.test. A",
        "old.alt.test. A",
        "old.alt.test. A +1232 cookie",
        "seeds.alt.test. A",
        "one.alt.test. AAAA",
        "one.alt.test. AAAA +1232 do cookie",
        "one.alt.test. TXT",
        "one.alt.test. HTTPS tcp",
        "one.alt.test. SRV",
        "one.alt.test. SOA",
        "one.alt.test. NS",
        "new.alt.test. HTTPS",
        "a.b.c1.alt.test. A",
        "x.sub.alt.test. AAAA",
        "x.sub.alt.test. NS",
        "C1.alt.test. NS +1232 cookie",
        "Far.alt.test. NS",
        "above.alt.test. SOA",
        "X.above.ALT.test. SOA",
        "parent.alt.test. NS",
        "many.alt.test. NS +1232",
        "long.alt.test. SOA",
        "x.c1.alt.test. A",
        "x.y.c1.alt.test. TYPE48 +1232 cookie",
        "b.c1.alt.test. A",
        "ns.c1.alt.test. A",
        "ns.c1.alt.test. AAAA +1232",
        "NS.c1.alt.test. TXT",
        "hang.test. A",
        "hang.test. SOA",
        "east.hang.test. NS",
        "typo.hang.test. A +1232 do",
        "ns.hang.test. A",
        "ns.hang.test. AAAA",
        "views.alt.test. A",
        "views.alt.test. AAAA +1232",
        "views.alt.test. HTTPS",
        "bare.alt.test. A +1232 cookie",
        "bare.alt.test. SOA",
    ] {
        assert!(takes(world, fast), "{fast}");
    }
    for fast in ["anything.at.all. A", "any.thing. SOA", "x.c1.alt.test. A", "c1.alt.test. SOA"] {
        assert!(takes(root_world, fast), "{fast}");
    }
    let many_labels = "d.".repeat(70);
    assert!(takes(root_world, &format!("{many_labels} A")));
    assert!(["SOA", "NS", "TXT"].iter().all(|kind| !takes(root_world, &format!("{many_labels} {kind}"))));
    for slow in [
        "one.alt.test. ANY",
        "one.alt.test. AXFR",
        "x.one.alt.test. DS",
        "one.alt.test. A =3",
        "one.alt.test. A +1232 nsid",
        "one.alt.test. A +1232 nsid cookie",
        "one.alt.test. A +1232 padding",
        "new.alt.test. A",
        "new.alt.test. AAAA",
        "post.alt.test. SOA",
        "many.alt.test. NS",
        "other.test. A",
        "secret.alt.test. A",
        "x.secret.alt.test. A",
        "hang.test. NS",
        "bare.alt.test. AAAA",
        ". SOA",
    ] {
        assert!(!takes(world, slow), "{slow}");
    }
}

/// Questions about every kind of name, in any mixture of upper and lower case.
fn any_question() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&str] = &[
        "c1.alt.test",
        "x.c1.alt.test",
        "b.c1.alt.test",
        "ns.c1.alt.test",
        "a.b.c1.alt.test",
        "z.a.b.c1.alt.test",
        "sub.alt.test",
        "x.y.sub.alt.test",
        "deep.sub.alt.test",
        "ns.deep.sub.alt.test",
        "all.alt.test",
        "big.alt.test",
        "v6.alt.test",
        "new.alt.test",
        "x.new.alt.test",
        "seeds.alt.test",
        "old.alt.test",
        "x.old.alt.test",
        "no.alt.test",
        "secret.alt.test",
        "above.alt.test",
        "x.above.alt.test",
        "parent.alt.test",
        "x.parent.alt.test",
        "post.alt.test",
        "x.post.alt.test",
        "far.alt.test",
        "x.far.alt.test",
        "long.alt.test",
        "x.long.alt.test",
        "views.alt.test",
        "x.views.alt.test",
        "bare.alt.test",
        "many.alt.test",
        "ns7.many.alt.test",
        "hang.test",
        "x.hang.test",
        "east.hang.test",
        "a.east.hang.test",
        "ns.hang.test",
        "alt.test",
        "test",
        "other",
    ];
    const TYPES: &[&str] = &[
        "A", "A", "AAAA", "AAAA", "NS", "SOA", "HTTPS", "SRV", "DS", "ANY", "TXT", "AXFR", "IXFR", "TYPE0", "TYPE41",
        "TYPE250", "TYPE1000",
    ];
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
        " +1232 subnet",
        " rd +1232 do subnet cookie",
        " +1232 keepalive padding",
    ];
    let parts = (prop::sample::select(NAMES), prop::sample::select(TYPES), prop::sample::select(EXTRAS), any::<u64>());
    parts.prop_map(|(name, kind, extra, upper)| {
        let mut octets = Ask::parse(&format!("{name}. {kind}{extra}")).octets();
        for (at, octet) in octets.iter_mut().skip(HEADER_OCTETS).take(name.len() + 1).enumerate() {
            if upper >> (at % 64) & 1 == 1 {
                octet.make_ascii_uppercase();
            }
        }
        octets
    })
}

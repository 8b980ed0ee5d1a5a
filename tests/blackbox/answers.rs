//! The table "Answers" over real sockets, UDP and TCP.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, config, zone, zone_with},
    dns::{self, Question},
    wait,
};

fn texts(nodes: &[std::net::IpAddr]) -> Vec<String> {
    let mut texts: Vec<_> = nodes.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn a_zone_gives_its_own_live_nodes_over_udp_and_tcp() {
    let east = SimulatedCluster::start(3).unwrap();
    let west = SimulatedCluster::start(3).unwrap();
    let daemon =
        Daemon::start("two", &(zone("alternator.east.example", &east) + &zone("alternator.west.example", &west)));
    for (name, cluster) in [("alternator.east.example", &east), ("alternator.west.example", &west)] {
        wait::until("all nodes", || (daemon.nodes(name) == texts(&cluster.nodes())).then_some(()));
        let mut over_tcp: Vec<_> =
            (0..40).flat_map(|_| dns::tcp(daemon.address(), &Question::new(name, "A")).data()).collect();
        over_tcp.sort();
        over_tcp.dedup();
        assert_eq!(over_tcp, texts(&cluster.nodes()));
        let reply = daemon.ask(name, "A");
        assert_eq!((reply.rcode.as_str(), reply.authoritative, reply.truncated), ("NoError", true, false));
        assert_eq!(reply.ttls(), [4, 4], "two addresses by default");
        assert!(reply.answers[0].starts_with(&format!("{name}. 4 IN A 127.")), "{}", reply.answers[0]);
    }
}

/// How far ahead of another one a node may be over UDP: two answers in each worker, of which there is one a core.
fn ahead_max() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// How often each was seen.
fn counts<T: Ord>(seen: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for one in seen {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

#[track_caller]
fn assert_even<T: Ord + std::fmt::Debug>(seen: &BTreeMap<T, usize>, kinds: usize, ahead_max: usize) {
    assert_eq!(seen.len(), kinds, "{seen:?}");
    let ahead = seen.values().max().unwrap() - seen.values().min().unwrap();
    assert!(ahead <= ahead_max, "at most {ahead_max} ahead: {seen:?}");
}

/// The data of this many answers over one TCP connection.
fn over_one_connection(daemon: &Daemon, name: &str, answers: usize) -> Vec<Vec<String>> {
    let mut stream = dns::connect(daemon.address());
    let mut ask = || {
        dns::send(&mut stream, &Question::new(name, "A"));
        dns::receive(&mut stream).unwrap().data()
    };
    (0..answers).map(|_| ask()).collect()
}

#[test]
fn each_node_is_named_equally_often() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let keys = "answers = 1\nrefresh = \"200ms\"\ntimeout = \"400ms\"\n";
    let daemon = Daemon::start("even", &zone_with("a.example", &[cluster.node(0)], cluster.port(), keys));
    wait::until("all nodes", || (daemon.nodes("a.example").len() == 4).then_some(()));
    // Each question comes from a port of its own, so the kernel spreads them over all workers.
    let over_udp = || counts((0..3000).flat_map(|_| daemon.ask("a.example", "A").data()));
    assert_even(&over_udp(), 4, ahead_max());
    assert_even(&counts(over_one_connection(&daemon, "a.example", 1001).concat()), 4, 2);
    let connections =
        counts((0..101).flat_map(|_| dns::tcp(daemon.address(), &Question::new("a.example", "A")).data()));
    assert_even(&connections, 4, 2);

    let stopped = cluster.node(1);
    cluster.stop(stopped);
    wait::until("the stopped node to go", || (daemon.nodes("a.example").len() == 3).then_some(()));
    assert_even(&over_udp(), 3, ahead_max());
}

#[test]
fn each_pair_of_nodes_is_named_equally_often() {
    let cluster = SimulatedCluster::start(5).unwrap();
    let keys = "answers = 2\nrefresh = \"200ms\"\n";
    let daemon = Daemon::start("pairs", &zone_with("a.example", &[cluster.node(0)], cluster.port(), keys));
    wait::until("all nodes", || (daemon.nodes("a.example").len() == 5).then_some(()));
    let over_udp: Vec<_> = (0..3000).map(|_| daemon.ask("a.example", "A").data()).collect();
    assert_even(&counts(over_udp.concat()), 5, ahead_max());
    let over_tcp = over_one_connection(&daemon, "a.example", 3000);
    assert_even(&counts(over_tcp.concat()), 5, 2);
    for answers in [over_udp, over_tcp] {
        let in_order = |mut pair: Vec<String>| {
            pair.sort();
            pair
        };
        // Chi-square with 9 and with 4 degrees of freedom exceeds these once in a million; the unit tests, whose chance
        // is fixed, are stricter.
        assert!(chi_square(&counts(answers.iter().cloned().map(in_order)), 10) < 45.1);
        assert!(chi_square(&counts(answers.iter().map(|pair| pair[0].clone())), 5) < 33.4, "the first of each pair");
    }
}

/// The sum over all cells of (seen - expected)² / expected.
#[track_caller]
fn chi_square<T: Ord + std::fmt::Debug>(seen: &BTreeMap<T, usize>, cells: usize) -> f64 {
    assert_eq!(seen.len(), cells, "{seen:?}");
    let expected = seen.values().sum::<usize>() as f64 / cells as f64;
    seen.values().map(|&n| (n as f64 - expected).powi(2) / expected).sum()
}

#[test]
fn a_stopped_node_goes_and_a_new_one_comes_within_two_refreshes() {
    let refresh = Duration::from_millis(500);
    let cluster = SimulatedCluster::start(3).unwrap();
    let keys = "refresh = \"500ms\"\nanswers = \"all\"\n";
    let daemon = Daemon::start("follow", &zone_with("a.example", &cluster.nodes(), cluster.port(), keys));
    let answered = || {
        let mut data = daemon.ask("a.example", "A").data();
        data.sort();
        data
    };
    wait::until("all nodes", || (answered() == texts(&cluster.nodes())).then_some(()));
    // Time for the poll itself and for a busy machine is added.
    let bound = refresh * 2 + Duration::from_millis(400);
    let stopped = cluster.node(1);
    cluster.stop(stopped);
    wait::within(bound, "the stopped node to go", || (!answered().contains(&stopped.to_string())).then_some(()));
    let newcomer = cluster.add().unwrap();
    wait::within(bound, "the new node to come", || answered().contains(&newcomer.to_string()).then_some(()));
}

#[test]
fn the_other_family_and_other_types_are_empty_with_an_soa() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("negatives", &zone("a.example", &cluster));
    wait::until("the zone to be live", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    for qtype in ["AAAA", "HTTPS", "TXT", "TYPE1000", "TYPE0"] {
        let reply = daemon.ask("a.example", qtype);
        assert_eq!((reply.rcode.as_str(), reply.answers.len(), reply.authoritative), ("NoError", 0, true), "{qtype}");
        let soa = &reply.authorities[0];
        assert!(soa.starts_with("a.example. 4 IN SOA ns.a.example. hostmaster.a.example. "), "{soa}");
        assert!(soa.ends_with(" 60 10 1209600 4"), "{soa}");
    }
    let below = daemon.ask("x.y.a.example", "A");
    assert_eq!((below.rcode.as_str(), below.authorities.len(), below.authoritative), ("NXDomain", 1, true));
    assert_eq!(daemon.ask("a.example", "ANY").answers.len(), 2);
}

#[test]
fn soa_and_ns_name_this_server() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("authority", &zone("a.example", &cluster));
    wait::until("the zone to be live", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    let serial = daemon.zone("a.example.")["serial"].as_u64().unwrap();
    let soa = daemon.ask("a.example", "SOA");
    let expected = format!("ns.a.example. hostmaster.a.example. {serial} 60 10 1209600 4");
    assert!(soa.answers[0].ends_with(&expected), "{:?}", soa.answers);
    let ns = daemon.ask("a.example", "NS");
    assert_eq!(ns.answers, ["a.example. 3600 IN NS ns.a.example."]);
    assert_eq!(ns.additionals, ["ns.a.example. 3600 IN A 127.0.0.1"]);
    assert_eq!(daemon.ask("ns.a.example", "A").answers, ["ns.a.example. 3600 IN A 127.0.0.1"]);
    assert_eq!(daemon.ask("ns.a.example", "AAAA").rcode, "NoError");

    cluster.add().unwrap();
    wait::until("the serial to grow", || {
        (daemon.zone("a.example.")["serial"].as_u64().unwrap() > serial).then_some(())
    });
    let settled = daemon.zone("a.example.")["serial"].as_u64().unwrap();
    let polls = cluster.total(alternator_dns::simulation::Path::LocalNodes);
    wait::until("ten more polls", || {
        (cluster.total(alternator_dns::simulation::Path::LocalNodes) > polls + 10).then_some(())
    });
    assert_eq!(daemon.zone("a.example.")["serial"].as_u64().unwrap(), settled, "it grows with changes only");
}

#[test]
fn configured_name_servers_are_named_and_answered() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let servers = "nameservers = [{ name = \"ns1.a.example\", addresses = [\"192.0.2.1\", \"2001:db8::1\"] }, { name = \"ns2.elsewhere.test\" }]";
    let file = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{servers}\n{}",
        zone("a.example", &cluster)
    );
    let daemon = Daemon::with_config("nameservers", &file);
    let ns = daemon.ask("a.example", "NS");
    assert_eq!(ns.answers, ["a.example. 3600 IN NS ns1.a.example.", "a.example. 3600 IN NS ns2.elsewhere.test."]);
    assert_eq!(ns.additionals, ["ns1.a.example. 3600 IN A 192.0.2.1", "ns1.a.example. 3600 IN AAAA 2001:db8::1"]);
    assert_eq!(daemon.ask("ns1.a.example", "AAAA").data(), ["2001:db8::1"]);
    assert_eq!(daemon.ask("ns2.elsewhere.test", "A").rcode, "Refused");
}

#[test]
fn names_of_no_zone_are_refused_and_names_between_zones_exist() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("nested", &(zone("example", &cluster) + &zone("a.b.c.example", &cluster)));
    for name in ["test", "xexample", "."] {
        let reply = daemon.ask(name, "A");
        assert_eq!((reply.rcode.as_str(), reply.authoritative), ("Refused", false), "{name}");
        assert_eq!((reply.answers.len(), reply.authorities.len()), (0, 0), "{name}");
    }
    assert_eq!(daemon.ask("c.example", "A").rcode, "NoError");
    assert_eq!(daemon.ask("b.c.example", "NS").rcode, "NoError");
    assert_eq!(daemon.ask("x.c.example", "A").rcode, "NXDomain");
    wait::until("the inner zone", || (daemon.ask("a.b.c.example", "A").ttls() == [4]).then_some(()));
    assert!(daemon.ask("x.a.b.c.example", "A").authorities[0].starts_with("a.b.c.example. "));
}

#[test]
fn subdomains_answer_like_the_zone() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let keys = "subdomains = true\n";
    let daemon = Daemon::start("subdomains", &zone_with("a.example", &cluster.nodes(), cluster.port(), keys));
    wait::until("an answer below", || {
        (daemon.ask("streams.x.a.example", "A").data() == texts(&cluster.nodes())).then_some(())
    });
    assert_eq!(daemon.ask("x.a.example", "AAAA").rcode, "NoError");
}

#[test]
fn the_root_zone_reproduces_the_proof_of_concept() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let keys = "answers = 1\nttl = \"4s\"\nrefresh = \"1s\"\n";
    let daemon = Daemon::start("root", &zone_with(".", &[cluster.node(0)], cluster.port(), keys));
    wait::until("every node for any name", || {
        (daemon.nodes("whatever.you.like") == texts(&cluster.nodes())).then_some(())
    });
    let reply = dns::tcp(daemon.address(), &Question::new("alternator", "A"));
    assert_eq!((reply.answers.len(), reply.ttls()[0]), (1, 4));
}

#[test]
fn the_question_is_echoed_as_it_was_asked() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("case", &zone("a.example", &cluster));
    let question = Question::new("A.eXaMpLe", "A");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(&question.wire(), daemon.address()).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    assert_eq!(reply[12..question.wire().len()], question.wire()[12..]);
    assert_eq!(reply[question.wire().len()..][..2], [0xc0, 12], "the owner points at the question");
    assert!(length > question.wire().len());
}

#[test]
fn many_nodes_fit_by_number_or_are_truncated_when_all_are_asked_for() {
    let cluster = SimulatedCluster::start(100).unwrap();
    let zones = ["1", "8", "\"all\""].map(|answers| {
        let keys = format!("answers = {answers}\nrefresh = \"300ms\"\n");
        zone_with(&format!("a{}.example", answers.trim_matches('"')), &[cluster.node(0)], cluster.port(), &keys)
    });
    let daemon = Daemon::start("many", &zones.concat());
    wait::until("all nodes", || {
        (dns::tcp(daemon.address(), &Question::new("aall.example", "A")).answers.len() == 100).then_some(())
    });
    wait::until("eight nodes", || (daemon.ask("a8.example", "A").answers.len() == 8).then_some(()));
    let eight = daemon.ask("a8.example", "A");
    assert!(!eight.truncated && eight.octets <= 512);
    let plain = daemon.ask("aall.example", "A");
    assert!(plain.truncated && plain.octets <= 512);
    assert_eq!(plain.answers.len(), (512 - 12 - 18) / 16, "as many whole records as fit");
    let large = dns::udp(daemon.address(), &Question::new("aall.example", "A").edns(4096));
    assert!(large.truncated && large.has_opt && large.octets <= 1232, "{large:?}");
    assert_eq!(large.answers.len(), (1232 - 12 - 18 - 11) / 16);
}

#[test]
fn ipv6_is_served_and_learnt() {
    let Ok(cluster) = SimulatedCluster::start_at(&["::1".parse().unwrap()], 0) else {
        eprintln!("skipped: this host has no ::1");
        return;
    };
    let file = format!(
        "[server]\nlisten = [\"[::1]:0\", \"127.0.0.1:0\"]\nadmin = \"[::1]:0\"\n{}",
        zone("a.example", &cluster)
    );
    let mut daemon = Daemon::with_config("ipv6", &file);
    let addresses = daemon.addresses();
    for address in addresses {
        wait::until("the node", || {
            (dns::udp(address, &Question::new("a.example", "AAAA")).data() == ["::1"]).then_some(())
        });
        assert_eq!(dns::udp(address, &Question::new("a.example", "A")).answers.len(), 0);
        assert_eq!(dns::tcp(address, &Question::new("a.example", "AAAA")).data(), ["::1"]);
    }
    assert_eq!(daemon.ask("a.example", "NS").additionals.len(), 2, "both listen addresses belong to ns.a.example");
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let file = format!("[server]\nlisten = [\"0.0.0.0:0\"]\nadmin = \"127.0.0.1:0\"\n{}", zone("a.example", &cluster));
    let daemon = Daemon::with_config("wildcard", &file);
    for host in ["127.0.0.1", "127.0.0.2", "127.3.2.1"] {
        let server = format!("{host}:{}", daemon.address().port()).parse().unwrap();
        // The client's socket is connected, so a reply from elsewhere would never arrive.
        assert_eq!(dns::udp(server, &Question::new("a.example", "A")).rcode, "NoError");
    }
    assert_eq!(daemon.ask("a.example", "NS").answers.len(), 0, "a wildcard is no address of a name server");
}

#[test]
fn before_anything_is_learnt_the_seeds_are_answered() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let seed = cluster.node(0);
    cluster.stop(seed);
    let nowhere = "[zones.\"none.example\"]\nseeds = [\"no-such-host.invalid\"]\n";
    let zones = zone("a.example", &cluster) + nowhere;
    let daemon = Daemon::with_config("waiting", &config(&zones));
    let open = dns::udp(daemon.address(), &Question::new("a.example", "A").edns(1232));
    assert_eq!((open.data(), open.ttls()), (vec![seed.to_string()], vec![2]));
    let other = daemon.ask("a.example", "AAAA");
    assert!(other.authorities[0].starts_with("a.example. 1 IN SOA"), "{other:?}");
    let unknown = dns::udp(daemon.address(), &Question::new("none.example", "A").edns(1232));
    assert_eq!((unknown.rcode.as_str(), unknown.extended_errors), ("ServFail", vec![14]));
    assert_eq!(unknown.authorities.len(), 0);
    assert_eq!(daemon.zone("a.example.")["state"], "waiting");
}

#[test]
fn when_every_poll_fails_the_last_nodes_stay_and_the_reply_says_so() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = Daemon::start("stale", &zone("a.example", &cluster));
    wait::until("all nodes", || (daemon.nodes("a.example").len() == 3).then_some(()));
    let nodes = texts(&cluster.nodes());
    let start = Instant::now();
    for node in cluster.nodes() {
        cluster.deliver(
            node,
            alternator_dns::simulation::Path::LocalNodes,
            alternator_dns::simulation::Delivery::Close,
        );
    }
    wait::until("the zone to be stale", || (daemon.zone("a.example.")["state"] == "stale").then_some(()));
    assert!(start.elapsed() > Duration::from_secs(4), "not before five seconds without success");
    assert_eq!(daemon.nodes("a.example"), nodes);
    let reply = dns::udp(daemon.address(), &Question::new("a.example", "A").edns(1232));
    assert_eq!((reply.rcode.as_str(), reply.ttls(), reply.extended_errors), ("NoError", vec![4, 4], vec![3]));
    for node in cluster.nodes() {
        cluster.heal(node);
    }
    wait::until("the zone to be live again", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    assert!(daemon.log().contains("zone state"), "{}", daemon.log());
}

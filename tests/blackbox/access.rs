//! Which clients may ask, how often, and what the server discloses about itself.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, scratch, zone},
    dns::{self, Question, Reply},
    wait,
};

const PAYLOAD: u16 = 1232;

const OPTION_NSID: u16 = 3;
const OPTION_COOKIE: u16 = 10;
const OPTION_KEEPALIVE: u16 = 11;

const CLIENT_COOKIE: [u8; 8] = *b"a client";

/// Longer than a reply takes. No reply within this time means that there is none.
const SILENCE: Duration = Duration::from_millis(300);

/// A file with these lines in `[server]`, and these zones.
fn config(server: &str, zones: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}\n{zones}")
}

fn client(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

#[track_caller]
fn ask_as(daemon: &Daemon, last: u8, name: &str) -> Reply {
    let question = Question::new(name, "A").edns(PAYLOAD);
    dns::udp_from(client(last), daemon.address(), &question, wait::PATIENCE).expect("a reply")
}

#[test]
fn only_clients_of_the_file_are_answered_and_a_zone_may_have_its_own() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster) + &zone("b.example", &cluster) + "clients = [\"127.0.0.3\"]\n";
    let daemon = Daemon::with_config("clients", &config("clients = [\"127.0.0.2/31\"]", &zones));
    let answer = |last, name| {
        let reply = ask_as(&daemon, last, name);
        (reply.rcode, reply.extended_errors)
    };
    let answered = ("NoError".into(), vec![]);
    let refused = ("Refused".into(), vec![18]);
    assert_eq!([answer(2, "a.example"), answer(3, "a.example")], [answered.clone(), answered.clone()]);
    assert_eq!(answer(4, "a.example"), refused);
    assert_eq!(answer(3, "b.example"), answered);
    assert_eq!(answer(2, "b.example"), refused, "the zone's list holds in place of the server's");
    assert_eq!(answer(2, "c.example"), ("Refused".into(), vec![20]));
    assert_eq!(answer(4, "c.example"), refused);
    // An edit of the list acts at once.
    std::fs::write(daemon.config_path(), config("clients = [\"127.0.0.4\"]", &zones)).unwrap();
    wait::until("the new list", || (answer(4, "a.example") == answered).then_some(()));
    assert_eq!(answer(2, "a.example"), refused);
}

#[test]
fn a_domain_without_a_zone_lies_above_zones() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let domain =
        "domains = [\"alt.example\"]\nnameservers = [{ name = \"ns.alt.example\", addresses = [\"192.0.2.53\"] }]";
    let daemon = Daemon::with_config("domains", &config(domain, &zone("one.east.alt.example", &cluster)));
    let soa = "alt.example. 5 IN SOA ns.alt.example. hostmaster.alt.example.";
    for (name, qtype, rcode) in [
        ("alt.example", "A", "NoError"),
        ("alt.example", "AAAA", "NoError"),
        ("east.alt.example", "A", "NoError"),
        ("west.alt.example", "A", "NXDomain"),
        ("one.west.alt.example", "A", "NXDomain"),
    ] {
        let reply = daemon.ask(name, qtype);
        assert_eq!((&*reply.rcode, reply.authoritative, reply.answers.len()), (rcode, true, 0), "{name} {qtype}");
        assert!(reply.authorities[0].starts_with(soa), "{name}: {:?}", reply.authorities);
    }
    assert!(daemon.ask("alt.example", "SOA").answers[0].starts_with(soa));
    assert_eq!(daemon.ask("alt.example", "NS").answers, ["alt.example. 3600 IN NS ns.alt.example."]);
    assert_eq!(daemon.ask("ns.alt.example", "A").data(), ["192.0.2.53"]);
    assert_eq!(daemon.ask("one.east.alt.example", "A").data(), [cluster.node(0).to_string()]);
    assert_eq!(daemon.ask("example", "NS").rcode, "Refused");
    assert_eq!(daemon.api()["zones"].as_array().unwrap().len(), 1, "a domain is no zone");
    // A zone that is added below it exists at once.
    let zones = zone("one.east.alt.example", &cluster) + &zone("two.west.alt.example", &cluster);
    std::fs::write(daemon.config_path(), config(domain, &zones)).unwrap();
    wait::until("the new zone", || (daemon.ask("two.west.alt.example", "A").rcode == "NoError").then_some(()));
    assert_eq!(daemon.ask("west.alt.example", "A").rcode, "NoError");
}

#[test]
fn the_server_discloses_its_name_and_version_if_the_file_says_so() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let daemon = Daemon::with_config("nsid", &config("nsid = \"dns-7\"\nversion = \"ours\"", &zones));
    let asked = Question::new("a.example", "A").edns(PAYLOAD).option(OPTION_NSID, b"").option(OPTION_KEEPALIVE, b"");
    assert_eq!(dns::udp(daemon.address(), &asked).options, [(OPTION_NSID, b"dns-7".to_vec())]);
    let over_tcp = dns::tcp(daemon.address(), &asked).options;
    assert_eq!(over_tcp, [(OPTION_NSID, b"dns-7".to_vec()), (OPTION_KEEPALIVE, vec![0, 100])]);
    assert_eq!(dns::udp(daemon.address(), &Question::new("a.example", "A").edns(PAYLOAD)).options, []);
    let text = |daemon: &Daemon, name| {
        let reply = dns::udp(daemon.address(), &Question::new(name, "TXT").chaos());
        (reply.rcode.clone(), reply.data().concat())
    };
    assert_eq!(text(&daemon, "id.server"), ("NoError".into(), "dns-7".into()));
    assert_eq!(text(&daemon, "version.bind"), ("NoError".into(), "ours".into()));
    std::fs::write(daemon.config_path(), config("", &zones)).unwrap();
    wait::until("the version to be withheld", || (text(&daemon, "version.bind").0 == "Refused").then_some(()));
    assert_eq!(text(&daemon, "id.server").0, "Refused");
    assert_eq!(dns::udp(daemon.address(), &asked).options, []);
}

/// The client's cookie, and what it has of the server.
fn with_cookie(server_cookie: &[u8]) -> Question {
    let cookie = [&CLIENT_COOKIE, server_cookie].concat();
    Question::new("a.example", "A").edns(PAYLOAD).option(OPTION_COOKIE, &cookie)
}

/// The server's cookie in a reply.
#[track_caller]
fn server_cookie(reply: &Reply) -> Vec<u8> {
    let [(OPTION_COOKIE, cookie)] = &reply.options[..] else { panic!("one cookie: {:?}", reply.options) };
    assert_eq!((&cookie[..8], cookie.len()), (&CLIENT_COOKIE[..], 24));
    cookie[8..].to_vec()
}

#[test]
fn a_client_with_a_valid_cookie_is_not_limited_and_a_secret_can_be_rolled_over() {
    let directory = scratch("cookies");
    let file = directory.join("secrets");
    let old = "0".repeat(32);
    let new = "1".repeat(32);
    std::fs::write(&file, &old).unwrap();
    let limited = "rate_limit = { per_second = 1, slip = 1 }\n";
    let server = format!("{limited}cookie_secret_file = \"{}\"", file.display());
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("cookies", &config(&server, &zone("a.example", &cluster)));
    // Every question gets the one reply of its second, or a fresh cookie.
    let fresh = || {
        let reply = dns::udp(daemon.address(), &with_cookie(&[]));
        assert!(["NoError", "BADCOOKIE"].contains(&&*reply.rcode), "{reply:?}");
        server_cookie(&reply)
    };
    let is_accepted = |cookie: &[u8]| {
        let rcodes: Vec<_> = (0..3).map(|_| dns::udp(daemon.address(), &with_cookie(cookie)).rcode).collect();
        rcodes.iter().all(|rcode| rcode == "NoError")
    };
    let first = fresh();
    assert!(is_accepted(&first));
    let mut forged = first.clone();
    forged[15] ^= 1;
    assert!(!is_accepted(&forged) && !is_accepted(&first[..8]));
    std::fs::write(&file, format!("{new}\n{old}\n")).unwrap();
    wait::until("the new secret to make cookies", || {
        let second = fresh();
        assert!(is_accepted(&first) && is_accepted(&second), "both secrets are accepted");
        daemon.log().contains("other secrets for cookies").then_some(())
    });
    let second = fresh();
    std::fs::write(&file, &new).unwrap();
    wait::until("the old secret to be gone", || (!is_accepted(&first)).then_some(()));
    assert!(is_accepted(&second));
    std::fs::write(&file, "nonsense").unwrap();
    wait::until("an error in the log", || daemon.log().contains("line 1 is not 32 hexadecimal digits").then_some(()));
    assert!(is_accepted(&second), "a bad file changes nothing");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_secret_file_that_cannot_be_used_is_refused_at_the_start_and_at_a_reload() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let daemon = Daemon::with_config("no_secrets", &config("", &zones));
    let bad = config("cookie_secret_file = \"/nowhere/secrets\"", &zones);
    std::fs::write(daemon.config_path(), bad).unwrap();
    let (status, _, error) = daemon.reload();
    assert_eq!(status, 78, "{error}");
    assert!(error.contains("cannot use the cookie_secret_file /nowhere/secrets: there is no such file"), "{error}");
    assert_eq!(daemon.ask("a.example", "A").rcode, "NoError");
}

#[test]
fn a_network_that_asks_too_much_slips_over_udp_alone() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let limited = "rate_limit = { per_second = 20, slip = 2, v4_prefix = 32 }";
    let daemon = Daemon::with_config("limited", &config(limited, &zone("a.example", &cluster)));
    let ask = |last| dns::udp_from(client(last), daemon.address(), &Question::new("a.example", "A"), SILENCE);
    let mut answered = 0;
    let mut slipped = 0;
    let mut silent = 0;
    let start = Instant::now();
    while start.elapsed() < wait::PATIENCE && (slipped < 3 || silent < 3) {
        match ask(2) {
            Some(reply) if reply.truncated => slipped += 1,
            Some(_) => answered += 1,
            None => silent += 1,
        }
        assert!(!dns::tcp(daemon.address(), &Question::new("a.example", "A")).truncated);
    }
    assert!(slipped >= 3 && silent >= 3, "{answered} answered, {slipped} slipped, {silent} silent");
    assert!(!ask(3).expect("another network is another matter").truncated);
}

#[test]
fn the_limits_of_tcp_hold_for_all_addresses_and_follow_the_file() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let file = |limits: &str| {
        let listen = "listen = [\"127.0.0.1:0\", \"127.0.0.2:0\"]";
        format!("[server]\n{listen}\ntcp = {{ {limits} }}\n{}", zone("a.example", &cluster))
    };
    let mut daemon = Daemon::with_config("tcp_limits", &file("max_connections = 4"));
    let addresses = daemon.addresses();
    let question = Question::new("a.example", "A");
    let open = |which: usize| {
        let mut stream = dns::connect(addresses[which]);
        dns::send(&mut stream, &question);
        dns::receive(&mut stream).expect("an answer");
        stream
    };
    let mut streams: Vec<_> = [0, 1, 0, 1].map(open).into();
    streams.push(open(0));
    assert!(dns::receive(&mut streams[0]).is_err(), "the longest idle has gone, of whichever address");
    for stream in &mut streams[1..] {
        dns::send(stream, &question);
        dns::receive(stream).expect("the others go on");
    }
    std::fs::write(daemon.config_path(), file("max_connections = 100, max_per_client = 6, idle = \"200ms\"")).unwrap();
    wait::until("the new limits", || {
        let mut stream = open(1);
        let start = Instant::now();
        (dns::receive(&mut stream).is_err() && start.elapsed() < Duration::from_secs(3)).then_some(())
    });
}

/// Connections that one client opens, and how many of them it holds on to: the test may not open more files.
const GREEDY: usize = 2000;
const HELD: usize = 300;

#[test]
fn thousands_of_connections_of_one_client_cost_others_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("greedy", &config("", &zone("a.example", &cluster)));
    let question = Question::new("a.example", "A");
    let mut held = std::collections::VecDeque::new();
    for number in 0..GREEDY {
        held.push_back(dns::connect(daemon.address()));
        if held.len() > HELD {
            held.pop_front();
        }
        if number % 100 == 0 {
            let reply = dns::udp_from(client(2), daemon.address(), &question, wait::PATIENCE);
            assert_eq!(reply.expect("UDP is unaffected").rcode, "NoError");
        }
    }
    let mut last = held.pop_back().unwrap();
    dns::send(&mut last, &question);
    assert_eq!(dns::receive(&mut last).expect("the newest is served").rcode, "NoError");
    let open = || daemon.metric("alternator_dns_tcp_connections");
    wait::until("no more than max_per_client to be open", || (open() <= 128.0).then_some(()));
    assert!(dns::receive(&mut held[0]).is_err(), "the longest idle has gone");
}

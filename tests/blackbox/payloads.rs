//! The bodies of `/localnodes`: every good list is accepted, a bad one changes nothing, and of a bad entry only the entry
//! is dropped. Each case is a node of its own with real HTTP.
//!
//! Listed addresses are loopback ones, because the resolver polls every listed node.

use std::time::Duration;

use alternator_dns::simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, zone_with},
    dns::{self, Question},
    wait,
};

const KEYS: &str = "refresh = \"100ms\"\ntimeout = \"300ms\"\nanswers = \"all\"\nhealth = false\n";

struct Case {
    what: &'static str,
    content: Content,
    delivery: Delivery,
}

fn body(what: &'static str, body: impl Into<Vec<u8>>) -> Case {
    Case { what, content: Content::Reply(HttpReply::ok(body)), delivery: Delivery::Prompt }
}

fn reply(what: &'static str, reply: HttpReply) -> Case {
    Case { what, content: Content::Reply(reply), delivery: Delivery::Prompt }
}

fn delivery(what: &'static str, delivery: Delivery) -> Case {
    Case { what, content: Content::Usual, delivery }
}

/// One cluster of one node for each case, and the zones that point at them.
fn stage(count: usize) -> (Vec<SimulatedCluster>, String) {
    let clusters: Vec<_> = (0..count).map(|_| SimulatedCluster::start(1).unwrap()).collect();
    let zones = clusters.iter().enumerate();
    let zones = zones.map(|(n, cluster)| zone_with(&name(n), &cluster.nodes(), cluster.port(), KEYS)).collect();
    (clusters, zones)
}

fn name(n: usize) -> String {
    format!("case{n}.example")
}

/// All addresses that a zone answers, in order.
fn answered(daemon: &Daemon, n: usize, qtype: &str) -> Vec<String> {
    let mut data = dns::tcp(daemon.address(), &Question::new(&name(n), qtype)).data();
    data.sort();
    data
}

/// A body, and the addresses that are to be answered.
type Listing = (&'static str, Vec<&'static str>, Vec<&'static str>);

fn takes(cases: &[Listing]) {
    let (clusters, zones) = stage(cases.len());
    for (cluster, (body, ..)) in clusters.iter().zip(cases) {
        cluster.say(cluster.node(0), Path::LocalNodes, Content::Reply(HttpReply::ok(*body)));
    }
    let daemon = Daemon::start("payloads", &zones);
    for (n, (body, v4, v6)) in cases.iter().enumerate() {
        wait::until(body, || (answered(&daemon, n, "A") == *v4).then_some(()));
        assert_eq!(answered(&daemon, n, "AAAA"), *v6, "{body}");
        assert_eq!(daemon.zone(&format!("{}.", name(n)))["state"], "live", "{body}");
    }
}

#[test]
fn good_lists_are_accepted() {
    let many: Vec<String> = (0..500).map(|n| format!("127.99.{}.{}", n / 250, n % 250 + 1)).collect();
    let listed = format!("[{}]", many.iter().map(|node| format!("\"{node}\"")).collect::<Vec<_>>().join(","));
    let mut sorted: Vec<&'static str> = many.iter().map(|node| &*node.clone().leak()).collect();
    sorted.sort_unstable();
    takes(&[
        (r#"["127.9.0.2","127.9.0.1","127.9.0.3"]"#, vec!["127.9.0.1", "127.9.0.2", "127.9.0.3"], vec![]),
        (r#"["127.9.0.1"]"#, vec!["127.9.0.1"], vec![]),
        (r#"["::1"]"#, vec![], vec!["::1"]),
        (r#"["127.9.0.1","::1","::ffff:127.9.0.9"]"#, vec!["127.9.0.1", "127.9.0.9"], vec!["::1"]),
        (r#"["127.9.0.0","127.9.0.0"]"#, vec!["127.9.0.0"], vec![]),
        (" [ \"127.9.0.1\" ,\n \"127.9.0.2\" ]\n", vec!["127.9.0.1", "127.9.0.2"], vec![]),
        (r#"["127\u002e9.0.1"]"#, vec!["127.9.0.1"], vec![]),
        (listed.leak(), sorted, vec![]),
    ]);
}

#[test]
fn only_the_bad_entries_of_a_list_are_dropped() {
    let one = || vec!["127.9.0.1"];
    takes(&[
        (r#"["127.9.0.1","0b1c2d3e-1111-4222-8333-444455556666"]"#, one(), vec![]),
        (r#"["127.9.0.1","node-a.internal","localhost"]"#, one(), vec![]),
        (r#"["127.9.0.1","127.9.0.2:8000","[2001:db8::1]","[::1]:8000","fe80::1%eth0"]"#, one(), vec![]),
        (r#"["127.9.0.1","0127.9.0.2","127.9.2","127.9.0.3 ",""]"#, one(), vec![]),
        (r#"["127.9.0.1",null,7,["x"],{"a":1},true,1.5]"#, one(), vec![]),
        (r#"["127.9.0.1","0.0.0.0","255.255.255.255","224.0.0.1","::","ff02::1"]"#, one(), vec![]),
    ]);
}

#[test]
fn dropped_entries_are_counted_by_reason() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let list = r#"["127.9.0.1","node-a",7,"0.0.0.0"]"#;
    cluster.say(cluster.node(0), Path::LocalNodes, Content::Reply(HttpReply::ok(list)));
    let daemon = Daemon::start("dropped", &zone_with("a.example", &cluster.nodes(), cluster.port(), KEYS));
    for reason in ["not_text", "not_address", "not_publishable"] {
        let series = format!("alternator_dns_entries_dropped_total{{zone=\"a.example.\",reason=\"{reason}\"}}");
        wait::until(reason, || (daemon.metric(&series) >= 1.0).then_some(()));
    }
}

/// Bodies and behaviours that must not change the set.
fn useless() -> Vec<Case> {
    let mut cases = vec![
        body("an empty list", "[]"),
        body("an empty body", ""),
        body("null", "null"),
        body("an object", "{}"),
        body("a string", "\"127.9.0.1\""),
        body("a number", "42"),
        body("an error of a proxy", r#"{"message": "Not found", "code": 404}"#),
        body("a truncated list", r#"["127.9.0.1","#),
        body("trailing garbage", r#"["127.9.0.1"] x"#),
        body("an unterminated string", r#"["127.9.0.1"#),
        body("a list of rubbish only", r#"["localhost",7,null]"#),
        body("HTML", "<html><body>welcome</body></html>"),
        body("invalid UTF-8", b"[\"127.9.0.1\xff\"]".to_vec()),
        body("a byte order mark", "\u{feff}[\"127.9.0.1\"]"),
        body("a NUL", "[\"127.9.0.1\"]\0"),
        body("deep nesting", "[".repeat(100_000)),
        body("more than a mebibyte", format!("[\"127.9.0.1\"{}]", " ".repeat(1 << 20))),
        reply("gzip", HttpReply::ok(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0]).header("Content-Encoding", "gzip")),
    ];
    let good = r#"["127.9.0.1"]"#;
    for status in [204, 206, 400, 404, 429, 500, 502, 503] {
        cases.push(reply(
            "a status other than 200",
            HttpReply::status(status).body(if status == 204 { "" } else { good }),
        ));
    }
    for status in [301, 302] {
        let elsewhere = HttpReply::status(status).header("Location", "http://127.9.0.1/localnodes").body(good);
        cases.push(reply("a redirect", elsewhere));
    }
    cases.extend([
        delivery("a length that lies", Delivery::Short),
        delivery("a reset in the body", Delivery::ResetMidBody),
        delivery("an endless body", Delivery::Endless),
        delivery("a drip", Delivery::Drip(Duration::from_millis(150))),
        delivery("silence", Delivery::Hang),
        delivery("a close", Delivery::Close),
        delivery("TLS spoken on the port", Delivery::Verbatim(vec![0x15, 3, 1, 0, 2, 2, 0x46])),
        delivery("garbage", Delivery::Verbatim(vec![0xff; 4096])),
    ]);
    cases
}

#[test]
fn bad_lists_do_not_change_the_set() {
    let cases = useless();
    let (clusters, zones) = stage(cases.len());
    let daemon = Daemon::start("keep", &zones);
    let learnt: Vec<_> = clusters.iter().map(|cluster| vec![cluster.node(0).to_string()]).collect();
    for (n, expected) in learnt.iter().enumerate() {
        wait::until("the zone to be learnt", || {
            (daemon.zone(&format!("{}.", name(n)))["state"] == "live" && answered(&daemon, n, "A") == *expected)
                .then_some(())
        });
    }
    for (cluster, case) in clusters.iter().zip(&cases) {
        cluster.say(cluster.node(0), Path::LocalNodes, case.content.clone());
        cluster.deliver(cluster.node(0), Path::LocalNodes, case.delivery.clone());
    }
    for (n, case) in cases.iter().enumerate() {
        let what = format!("an error about {}", case.what);
        let error =
            wait::until(&what, || daemon.zone(&format!("{}.", name(n)))["last_error"].as_str().map(str::to_owned));
        assert_eq!(answered(&daemon, n, "A"), learnt[n], "{}: {error}", case.what);
    }
    for cluster in &clusters {
        cluster.heal(cluster.node(0));
    }
    for (n, case) in cases.iter().enumerate() {
        wait::until(case.what, || daemon.zone(&format!("{}.", name(n)))["last_error"].is_null().then_some(()));
        assert_eq!(answered(&daemon, n, "A"), learnt[n], "{}", case.what);
    }
}

#[test]
fn unusual_but_good_deliveries_are_accepted() {
    let deliveries = [
        Delivery::Chunked,
        Delivery::Delayed(Duration::from_millis(100)),
        Delivery::Verbatim(b"HTTP/1.0 200 OK\r\n\r\n[\"127.9.0.1\"]".to_vec()),
        Delivery::Verbatim(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n[\"127.9.0.1\"]".to_vec()),
    ];
    let (clusters, zones) = stage(deliveries.len());
    for (cluster, delivery) in clusters.iter().zip(deliveries) {
        cluster.say(cluster.node(0), Path::LocalNodes, Content::Reply(HttpReply::ok(r#"["127.9.0.1"]"#)));
        cluster.deliver(cluster.node(0), Path::LocalNodes, delivery);
    }
    let daemon = Daemon::start("deliveries", &zones);
    for n in 0..clusters.len() {
        wait::until("the list to be taken", || (answered(&daemon, n, "A") == ["127.9.0.1"]).then_some(()));
    }
}

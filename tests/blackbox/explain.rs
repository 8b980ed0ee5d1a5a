//! `alternator-dns explain`: for each kind of name, and for addresses, what a person needs to know.

use std::{fs, net::IpAddr};

use alternator_dns::simulation::SimulatedCluster;
use serde_json::Value;

use crate::{
    daemon::{Daemon, command, config, zone_with},
    http,
    observe::{ask, becomes, see, state},
    wait,
};

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"1s\" }\n";

fn zone(name: &str, cluster: &SimulatedCluster, keys: &str) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), &format!("{KEYS}{keys}"))
}

/// What the command prints, which names the server.
#[track_caller]
fn explain(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = daemon.command(&[&["explain"], arguments].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let server = format!("process {} with the file {}:\n", daemon.pid(), daemon.config_path().display());
    stdout.strip_prefix(&server).unwrap_or_else(|| panic!("{stdout}")).to_owned()
}

/// The document of the admin interface.
#[track_caller]
fn document(daemon: &Daemon, query: &str) -> Value {
    let (status, body) = http::get(daemon.admin(), &format!("/api/explain?{query}")).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[track_caller]
fn assert_lines(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_zone_is_explained_from_its_line_to_its_answer() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let [first, down, gone, excluded] = [0, 1, 2, 3].map(|index| cluster.node(index));
    let daemon = Daemon::start("explain-zone", &zone("a.example", &cluster, &format!("exclude = [\"{excluded}\"]\n")));
    becomes(&daemon, "a.example", &[first, down, gone]);
    cluster.remove(gone);
    cluster.crash(down);
    becomes(&daemon, "a.example", &[first]);
    let text = wait::until("the lists of the nodes that remain", || {
        Some(explain(&daemon, &["a.example"]))
            .filter(|text| text.contains("listed by 2 of 2") && text.contains(&format!("{gone} left")))
    });
    let line =
        fs::read_to_string(daemon.config_path()).unwrap().lines().position(|line| line.starts_with("[zones.")).unwrap();
    assert_lines(
        &text,
        &[
            &format!("a.example. is a zone ({}:{})", daemon.config_path().display(), line + 1),
            "state     live since ",
            &format!("seeds     {first}, port {}", cluster.port()),
            " list ",
            &format!("rules     exclude {excluded}"),
            &format!("node      {first} up since "),
            &format!("node      {down} down since "),
            "NOT ANSWERED: refused the connection",
            "NOT ANSWERED: is in exclude",
            &format!("{gone} left, was "),
            ": is not in the list of 127.",
            &format!("DNS       A NOERROR, 1 address in an answer, TTL 4 s: {first}"),
            "          AAAA NOERROR, no record of this type, TTL 4 s",
        ],
    );
    assert_eq!(see(&daemon, "a.example"), [first].into());

    let document = document(&daemon, "name=A.example&type=a");
    assert_eq!(document["zone"]["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(document["place"]["line"], line + 1);
    assert_eq!(
        document["dns"],
        serde_json::json!([{
            "type": "A", "rcode": "NOERROR", "addresses": [first], "about": "1 address in an answer, TTL 4 s"
        }])
    );
    assert_eq!(document["zone"]["left"][0]["node"], gone.to_string());
    let json: Value = serde_json::from_str(&daemon.command(&["explain", "--json", "a.example"]).1).unwrap();
    assert_eq!((&json["place"], &json["server"]["pid"]), (&document["place"], &daemon.pid().as_raw().into()));
    let admin = format!("http://{}", daemon.admin());
    let far = command(&["explain", "--admin", &admin, "a.example", "soa"]);
    let far = { far }.env("RUNTIME_DIRECTORY", "/nonexistent").output().unwrap();
    assert_lines(&String::from_utf8_lossy(&far.stdout), &["a.example. is a zone", "SOA NOERROR, the SOA, serial "]);
}

#[test]
fn a_seed_that_does_not_resolve_is_shown_with_the_reason() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let seeds = format!("seeds = [\"{}\", \"no-such-host.invalid\"]\nport = {}\n", cluster.node(0), cluster.port());
    let daemon = Daemon::start("explain-unresolved", &format!("[zones.\"a.example\"]\n{seeds}{KEYS}"));
    becomes(&daemon, "a.example", &cluster.nodes());
    let sentence = "other     a seed: no-such-host.invalid cannot be resolved: ";
    wait::until("the seed", || explain(&daemon, &["a.example"]).contains(sentence).then_some(()));
    assert_eq!(document(&daemon, "name=a.example")["zone"]["unresolved"].as_array().unwrap().len(), 1);
}

#[test]
fn each_kind_of_name_is_explained() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster, "")
        + &zone("x.y.a.example", &cluster, "subdomains = true\n")
        + &zone("z.alt.test", &cluster, "");
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ndomains = [\"alt.test\"]\n\
                  nameservers = [{ name = \"ns1.a.example\", addresses = [\"192.0.2.53\"] }]\n";
    let daemon = Daemon::with_config("explain-names", &format!("{server}{zones}"));
    becomes(&daemon, "a.example", &cluster.nodes());
    becomes(&daemon, "x.y.a.example", &cluster.nodes());
    for (name, parts) in [
        ("w.a.example", &["does not exist: it lies below the zone a.example.", "A NXDOMAIN, no such name"][..]),
        ("y.a.example", &["has no records: it only has a zone", "A NOERROR, no record of this type"]),
        ("q.x.y.a.example", &["is answered like the zone x.y.a.example.", "A NOERROR, 1 address in an answer"]),
        (
            "ns1.a.example",
            &["is a name server of this server, in a.example.", "addresses of a name server: 192.0.2.53"],
        ),
        ("alt.test", &["is a domain without nodes ([server] domains)", "A NOERROR, no record of this type"]),
        ("b.alt.test", &["does not exist: no zone below the domain alt.test.", "A NXDOMAIN"]),
        ("a.exampel", &["is in no zone, and there is no [forward]: REFUSED; did you mean the zone a.example.?"]),
        (
            "elsewhere.test",
            &["is in no zone, and there is no [forward]: REFUSED\n", "A REFUSED (EDE 20), the name is in no"],
        ),
    ] {
        assert_lines(&explain(&daemon, &[name]), parts);
    }
    let (code, _, stderr) = daemon.command(&["explain", "a..example"]);
    assert!(code == 2 && stderr.contains("the name has an empty label"), "{stderr}");
    let (code, _, stderr) = daemon.command(&["explain", "a.example", "FOO"]);
    assert!(code == 2 && stderr.contains("\"FOO\" is no type of DNS records"), "{stderr}");
    for query in ["name=a..b", "name=a.example&type=FOO"] {
        assert_eq!(http::get(daemon.admin(), &format!("/api/explain?{query}")).unwrap().0, 422, "{query}");
    }
}

#[test]
fn a_client_is_said_to_be_allowed_limited_or_not() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nclients = [\"127.0.0.0/8\"]\n\
                  rate_limit = { per_second = 20, slip = 2 }\n\
                  [forward]\nupstreams = [\"127.0.0.9\"]\nclients = [\"127.0.0.0/16\"]\n";
    let zones = zone("a.example", &cluster, "") + &zone("b.example", &cluster, "clients = [\"192.0.2.0/24\"]\n");
    let daemon = Daemon::with_config("explain-clients", &format!("{server}{zones}"));
    becomes(&daemon, "a.example", &cluster.nodes());
    wait::until("the other zone", || (state(&daemon, "b.example") == "live").then_some(()));
    let allowed = explain(&daemon, &["a.example", "--client", "127.0.0.1"]);
    assert_lines(
        &allowed,
        &[
            "client    127.0.0.1 may ask: clients of the zone a.example. has 127.0.0.0/8",
            "limit     20 replies a second over UDP for all of 127.0.0.0/24; of further queries one in 2 gets",
        ],
    );
    let denied = explain(&daemon, &["b.example", "--client", "127.0.0.1"]);
    assert_lines(&denied, &["MAY NOT ASK: clients of the zone b.example. has no network", "A REFUSED (EDE 18)"]);
    assert_eq!(ask(&daemon, "b.example").rcode, "Refused", "as DNS does");
    assert_lines(&explain(&daemon, &["b.example"]), &["A NOERROR, 1 address in an answer"]);
    let outside = explain(&daemon, &["elsewhere.test", "--client", "127.1.0.1"]);
    assert_lines(
        &outside,
        &["upstreams 127.0.0.9:53", "NOT FORWARDED: it is not in [forward] clients", "A REFUSED (EDE 20)"],
    );
    assert_lines(&explain(&daemon, &["elsewhere.test"]), &["A forwarded, what the upstreams answer"]);
}

#[test]
fn an_address_is_explained_in_each_zone_that_knows_it() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let [first, gone, other] = [0, 1, 2].map(|index| cluster.node(index));
    let zones = zone("a.example", &cluster, &format!("map = {{ \"{other}\" = \"203.0.113.9\" }}\n"))
        + &zone("b.example", &cluster, &format!("exclude = [\"{other}\"]\n"));
    let daemon = Daemon::with_config("explain-address", &config(&zones));
    becomes(&daemon, "a.example", &[first, gone, "203.0.113.9".parse().unwrap()]);
    becomes(&daemon, "b.example", &[first, gone]);
    let about = |address: IpAddr| explain(&daemon, &[&address.to_string()]);
    let text = about(other);
    assert_lines(
        &text,
        &[
            &format!("live): {other} is answered as 203.0.113.9, by map"),
            &format!("live): {other} is not answered: it is in exclude"),
        ],
    );
    assert_lines(&about("203.0.113.9".parse().unwrap()), &[&format!("203.0.113.9 is answered for {other}, by map")]);
    cluster.crash(other);
    becomes(&daemon, "a.example", &[first, gone]);
    let by_map = about("203.0.113.9".parse().unwrap());
    assert_lines(
        &by_map,
        &[
            &format!("203.0.113.9 is by map the address of {other}, which is not answered: it refused the connection"),
            &format!("node      {other} down since "),
            "NOT ANSWERED as 203.0.113.9: refused the connection",
        ],
    );
    assert_lines(&about(first), &["is answered\n", "it is a seed"]);
    assert_lines(&about("192.0.2.77".parse().unwrap()), &["192.0.2.77 is in no zone: it is no seed"]);
    cluster.remove(gone);
    let left = format!("{gone} has left: it is not in the list of 127.");
    wait::until("both zones to know why", || (about(gone).matches(&left).count() == 2).then_some(()));
    becomes(&daemon, "b.example", &[first]);
    let zones = document(&daemon, &format!("name={gone}"))["zones"].as_array().unwrap().len();
    assert_eq!(zones, 2, "both zones knew it");
}

#[test]
fn a_node_of_another_cluster_is_explained_with_what_it_lists() {
    let a = SimulatedCluster::start(3).unwrap();
    let b = a.start_beside(3).unwrap();
    let daemon = Daemon::start("explain-foreign", &zone("a.example", &a, ""));
    becomes(&daemon, "a.example", &a.nodes());
    let recycled = a.node(0);
    b.take_over(&a, recycled).unwrap();
    becomes(&daemon, "a.example", &a.nodes());
    let parts =
        [&*format!("{recycled} is not answered: it is another cluster's: it "), "it is a seed", "report    foreign"];
    let is_whole = |text: &str| parts.iter().all(|part| text.contains(part));
    wait::until("the reason", || is_whole(&explain(&daemon, &[&recycled.to_string()])).then_some(()));
    let other =
        format!("other     {recycled}: a seed, on no list in force; report: foreign; it is another cluster's: it ");
    assert_lines(&explain(&daemon, &["a.example"]), &[&other]);
}

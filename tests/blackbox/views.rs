//! `views` of a zone: clients of some networks get the nodes of other scopes.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::{
    daemon::{Daemon, scratch, zone_with},
    dns::{self, Question},
    http,
    observe::ticks,
    wait,
};

const INTERVAL: Duration = Duration::from_millis(200);

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"1s\" }\n";

/// Polls and probes of a node that has just returned, until it is answered.
const RETURN_TICKS: u32 = 6;

/// Clients in the network of the first rack, of the second, and of none.
const CLIENTS: [[u8; 4]; 3] = [[127, 0, 1, 7], [127, 0, 2, 7], [127, 0, 3, 7]];

/// A view of the clients in `127.0.NUMBER.0/24`.
fn view(number: u8, rack: &str) -> String {
    let scope = format!("[{{ datacenter = \"east\", rack = \"{rack}\" }}]");
    format!("{{ clients = [\"127.0.{number}.0/24\"], scope = {scope} }}")
}

/// A zone of the whole datacenter, with these views.
fn zone(cluster: &SimulatedCluster, views: &[String]) -> String {
    let keys = format!("{KEYS}scope = [{{ datacenter = \"east\" }}]\nviews = [{}]\n", views.join(", "));
    zone_with("a.example", &cluster.nodes()[..1], cluster.port(), &keys)
}

fn both_views() -> [String; 2] {
    [view(1, "a"), view(2, "b")]
}

/// Two racks of two nodes each.
fn two_racks() -> SimulatedCluster {
    SimulatedCluster::start_in(&[("east", "a"), ("east", "a"), ("east", "b"), ("east", "b")]).unwrap()
}

/// A file with a state directory.
fn config(state: &State, zones: &str) -> String {
    let state = state.0.display();
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nstate_dir = \"{state}\"\n\n{zones}")
}

/// A directory that is removed at the end.
struct State(PathBuf);

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn question() -> Question {
    Question::new("a.example", "A").edns(1232)
}

/// What a client gets over UDP.
#[track_caller]
fn gets(daemon: &Daemon, client: [u8; 4]) -> BTreeSet<IpAddr> {
    let reply = dns::udp_from(client.into(), daemon.address(), &question(), wait::PATIENCE).expect("a reply");
    assert_eq!(reply.rcode, "NoError");
    let addresses: BTreeSet<IpAddr> = reply.data().iter().map(|address| address.parse().unwrap()).collect();
    assert!(!addresses.is_empty(), "an answer is never empty");
    addresses
}

/// What a client gets over TCP.
fn gets_over_tcp(daemon: &Daemon, client: [u8; 4]) -> BTreeSet<IpAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect_timeout(&daemon.address().into(), wait::PATIENCE).unwrap();
    let mut stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    dns::send(&mut stream, &question());
    dns::receive(&mut stream).unwrap().data().iter().map(|address| address.parse().unwrap()).collect()
}

/// Waits until each client, in the order of [`CLIENTS`], gets exactly these nodes.
#[track_caller]
fn becomes(daemon: &Daemon, expected: [&[IpAddr]; 3]) {
    becomes_within(wait::PATIENCE, daemon, expected);
}

#[track_caller]
fn becomes_within(bound: Duration, daemon: &Daemon, expected: [&[IpAddr]; 3]) {
    let mut seen = Vec::new();
    wait::within(bound, &format!("the clients to get {expected:?}"), || {
        let now = CLIENTS.map(|client| gets(daemon, client));
        if seen.last() != Some(&now) {
            println!("{now:?}");
            seen.push(now.clone());
        }
        (now == expected.map(|nodes| nodes.iter().copied().collect())).then_some(())
    });
}

/// A command that must succeed.
#[track_caller]
fn run(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = daemon.command(arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}: {stdout}");
    stdout
}

#[track_caller]
fn reload(daemon: &Daemon, config: &str) {
    fs::write(daemon.config_path(), config).unwrap();
    let (code, stdout, stderr) = daemon.reload();
    assert_eq!(code, 0, "{stdout}{stderr}");
}

fn view_state(daemon: &Daemon, number: usize) -> String {
    daemon.zone("a.example.")["views"][number]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_client_gets_its_rack_and_the_zones_nodes_while_that_is_dead() {
    let cluster = two_racks();
    let nodes = cluster.nodes();
    let (a, b) = nodes.split_at(2);
    let daemon = Daemon::start("views", &zone(&cluster, &both_views()));
    becomes(&daemon, [a, b, &nodes]);
    for (client, expected) in CLIENTS.into_iter().zip([a, b, &nodes[..]]) {
        assert_eq!(gets_over_tcp(&daemon, client), expected.iter().copied().collect());
    }
    let shown = daemon.zone("a.example.");
    assert_eq!(shown["views"][0]["clients"], serde_json::json!(["127.0.1.0/24"]), "{shown}");
    assert_eq!(shown["views"][1]["scope"], serde_json::json!({ "datacenter": "east", "rack": "b" }), "{shown}");
    wait::until("both views to be live", || (0..2).all(|view| view_state(&daemon, view) == "live").then_some(()));
    b.iter().for_each(|node| cluster.crash(*node));
    becomes_within(ticks(4, INTERVAL), &daemon, [a, a, a]);
    wait::until("the view to say so", || (view_state(&daemon, 1) == "unanswered").then_some(()));
    let series = "alternator_dns_view_state{zone=\"a.example.\",view=\"127.0.2.0/24\",state=\"unanswered\"}";
    assert_eq!(daemon.metric(series), 1.0);
    assert!(daemon.metric("alternator_dns_view_queries_total{zone=\"a.example.\",view=\"127.0.1.0/24\"}") > 0.0);
    let status = run(&daemon, &["status"]);
    assert!(status.contains("  view 127.0.2.0/24  unanswered  the zone's"), "{status}");
    wait::until("a warning", || daemon.log().contains("view state changed").then_some(()));
    b.iter().for_each(|node| cluster.restart(*node).unwrap());
    becomes_within(ticks(RETURN_TICKS, INTERVAL), &daemon, [a, b, &nodes]);
    let history = wait::until("the history to say so", || {
        let text = run(&daemon, &["history", "a.example"]);
        text.contains("the view of 127.0.2.0/24 unanswered -> ").then_some(text)
    });
    assert!(history.contains(" -> unanswered: no node of the view is in service"), "{history}");
    assert!(http::get(daemon.admin(), "/").unwrap().1.contains("a.example."));
}

#[test]
fn explain_says_which_view_a_client_has() {
    let cluster = two_racks();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("views-explain", &zone(&cluster, &both_views()));
    becomes(&daemon, [&nodes[..2], &nodes[2..], &nodes]);
    let text = run(&daemon, &["explain", "a.example", "--client", "127.0.2.9"]);
    assert!(text.contains("it has the view of 127.0.2.0/24, which has 127.0.2.0/24"), "{text}");
    assert!(text.contains(&format!("of the view of 127.0.2.0/24, TTL 4 s: {}, {}", nodes[2], nodes[3])), "{text}");
    assert!(text.contains("of 127.0.1.0/24, datacenter east, rack a: live"), "{text}");
    let text = run(&daemon, &["explain", "a.example", "--client", "127.0.3.9"]);
    assert!(text.contains("it is in no view: it gets the zone's addresses"), "{text}");
    assert!(text.contains("A NOERROR, 4 addresses in an answer, TTL 4 s"), "{text}");
}

#[test]
fn an_edit_changes_views_without_an_empty_answer() {
    let cluster = two_racks();
    let nodes = cluster.nodes();
    let (a, b) = nodes.split_at(2);
    let with = |views: &[String]| crate::daemon::config(&zone(&cluster, views));
    let daemon = Daemon::with_config("views-edit", &with(&[]));
    becomes(&daemon, [&nodes, &nodes, &nodes]);
    let [one, other] = both_views();
    fs::write(daemon.config_path(), with(std::slice::from_ref(&one))).unwrap();
    let (code, text, _) = daemon.command(&["plan"]);
    assert_ne!(code, 0);
    assert!(text.contains("=> clients in 127.0.1.0/24 get nodes of datacenter east, rack a, once a node"), "{text}");
    assert_eq!(daemon.reload().0, 0);
    becomes(&daemon, [a, &nodes, &nodes]);
    reload(&daemon, &with(&[other.clone(), one]));
    becomes(&daemon, [a, b, &nodes]);
    // The nodes known before are answered until the list of the other rack has arrived.
    reload(&daemon, &with(&[other.clone(), view(1, "b")]));
    becomes(&daemon, [b, b, &nodes]);
    let restarted = daemon.log().matches("view state changed").count();
    reload(&daemon, &with(&[view(1, "b"), other.clone()]));
    reload(&daemon, &with(&[view(1, "b").replace("\"]", "\", \"127.0.3.0/24\"]"), other.clone()]));
    becomes(&daemon, [b, b, b]);
    assert_eq!(daemon.log().matches("view state changed").count(), restarted, "no view began anew");
    reload(&daemon, &with(&[other]));
    becomes(&daemon, [&nodes, b, &nodes]);
    reload(&daemon, &with(&[]));
    becomes(&daemon, [&nodes, &nodes, &nodes]);
    assert!(daemon.zone("a.example.")["views"].is_null());
    let bad = with(&[view(1, "a"), "{ clients = [\"127.0.1.7\"], scope = [{ datacenter = \"east\" }] }".into()]);
    fs::write(daemon.config_path(), bad).unwrap();
    let (code, _, error) = daemon.reload();
    assert!(code != 0 && error.contains("127.0.1.7/32 of view 2 overlaps 127.0.1.0/24 of view 1"), "{error}");
}

#[test]
fn a_restart_answers_views_at_once_with_the_nodes_of_the_snapshot() {
    let cluster = two_racks();
    let nodes = cluster.nodes();
    let (a, b) = nodes.split_at(2);
    let state = State(scratch("views-state"));
    let text = config(&state, &zone(&cluster, &both_views()));
    let mut daemon = Daemon::with_config("views-restart", &text);
    becomes(&daemon, [a, b, &nodes]);
    wait::until("the snapshot", || {
        let text = fs::read_to_string(state.0.join("nodes.json")).unwrap_or_default();
        ["a.example./127.0.1.0/24", "a.example./127.0.2.0/24"].iter().all(|view| text.contains(view)).then_some(())
    });
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit(wait::PATIENCE);
    let daemon = Daemon::with_config("views-restarted", &text);
    assert_eq!(
        CLIENTS.map(|client| gets(&daemon, client)),
        [a, b, &nodes[..]].map(|set| set.iter().copied().collect())
    );
}

#[test]
fn a_drain_of_the_zone_holds_in_its_views() {
    let cluster = two_racks();
    let nodes = cluster.nodes();
    let (a, b) = nodes.split_at(2);
    let daemon = Daemon::start("views-drain", &zone(&cluster, &both_views()));
    becomes(&daemon, [a, b, &nodes]);
    run(&daemon, &["drain", &a[0].to_string(), "--zone", "a.example", "--for", "1h"]);
    becomes(&daemon, [&a[1..], b, &nodes[1..]]);
    // Both nodes of the view: its clients get the others, which are not drained.
    run(&daemon, &["drain", &a[1].to_string(), "--for", "1h"]);
    becomes(&daemon, [b, b, b]);
    run(&daemon, &["undrain", &a[0].to_string()]);
    becomes(&daemon, [&a[..1], b, &[a[0], b[0], b[1]]]);
}

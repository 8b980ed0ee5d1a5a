//! `alternator-dns drain` and `undrain`: a node is taken out of the answers for some time.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, scratch, zone_with},
    http,
    observe::{becomes, node_state, sees, state},
    wait,
};

/// Polls are rare: what is seen at once is not the work of a poll.
const RARE: &str = "refresh = \"30s\"\nanswers = \"all\"\nhealth = { interval = \"200ms\", timeout = \"400ms\" }\n";

const OFTEN: &str = "refresh = \"200ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\n\
                     health = { interval = \"200ms\", timeout = \"400ms\" }\n";

fn zone(name: &str, cluster: &SimulatedCluster, keys: &str) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), keys)
}

/// A file with a state directory.
fn config(state: &Path, zones: &str) -> String {
    let state = state.display();
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nstate_dir = \"{state}\"\n\n{zones}")
}

fn without(nodes: &[IpAddr], node: IpAddr) -> Vec<IpAddr> {
    nodes.iter().copied().filter(|other| *other != node).collect()
}

/// A command that must succeed.
#[track_caller]
fn run(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = daemon.command(arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}: {stdout}");
    stdout
}

/// A directory that is removed at the end.
struct State(PathBuf);

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_drain_acts_at_once_and_is_visible_everywhere() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let zones = zone("a.example", &cluster, RARE) + &zone("b.example", &cluster, RARE);
    let daemon = Daemon::start("drain", &zones);
    let nodes = cluster.nodes();
    for zone in ["a.example", "b.example"] {
        becomes(&daemon, zone, &nodes);
    }
    let node = nodes[1];
    let others = without(&nodes, node);
    let text = run(&daemon, &["drain", &node.to_string(), "--for", "30m"]);
    assert!(sees(&daemon, "a.example", &others) && sees(&daemon, "b.example", &others), "at once");
    let lines: Vec<&str> = text.lines().collect();
    let server = format!("process {} with the file {}", daemon.pid(), daemon.config_path().display());
    assert!(lines[0].starts_with(&format!("{server}: {node} is drained in all zones until ")), "{text}");
    let answered: Vec<_> = others.iter().map(ToString::to_string).collect();
    assert_eq!(lines[1], format!("a.example. answers {}", answered.join(", ")));
    assert_eq!(lines[3], "it is not kept for the next start, because the server has no state_dir");
    assert_eq!(node_state(&daemon, "a.example", node), "drained");
    let api = daemon.api();
    let shown = api["zones"][0]["nodes"].as_array().unwrap().iter().find(|shown| shown["state"] == "drained").unwrap();
    assert!(shown["reason"].as_str().unwrap().starts_with("is drained until 2"), "{shown}");
    assert_eq!((&shown["answered"], &api["drains"][0]["node"]), (&false.into(), &node.to_string().into()));
    assert_eq!(daemon.metric("alternator_dns_nodes{zone=\"a.example.\",state=\"drained\"}"), 1.0);
    assert_eq!(daemon.metric("alternator_dns_zone_answerable_nodes{zone=\"a.example.\"}"), 2.0);
    let page = http::get(daemon.admin(), "/").unwrap().1;
    assert!(page.contains(&format!("{node} drained")));
    assert!(run(&daemon, &["status"]).contains(&format!("drained: {node} in all zones until ")));
    assert!(run(&daemon, &["history", "a.example"]).contains(&format!("{node} up -> drained: is drained until ")));
    assert!(run(&daemon, &["drain"]).contains(&format!("{node} is drained in all zones until ")));
    let text = run(&daemon, &["undrain", &node.to_string()]);
    assert!(text.contains("is no longer drained in all zones\na.example. answers "), "{text}");
    assert!(sees(&daemon, "a.example", &nodes) && sees(&daemon, "b.example", &nodes), "at once");
    assert!(run(&daemon, &["history", "a.example"]).contains(&format!("{node} drained -> up")));
    assert!(run(&daemon, &["drain", "--list"]).ends_with(": no node is drained\n"));
    run(&daemon, &["drain", &node.to_string(), "--zone", "b.example", "--for", "30m"]);
    assert!(sees(&daemon, "a.example", &nodes) && sees(&daemon, "b.example", &others), "one zone alone");
    cluster.crash(node);
    let history = wait::until("the history of the drained node", || {
        Some(run(&daemon, &["history", "b.example"]))
            .filter(|text| text.contains("stays drained, and would be up -> down"))
    });
    assert!(history.contains("it refused the connection"), "{history}");
}

#[test]
fn a_drain_survives_reloads_and_a_kill_and_ends_by_itself() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let state = State(scratch("drain-state"));
    let first = config(&state.0, &zone("a.example", &cluster, OFTEN));
    let mut daemon = Daemon::with_config("drain-survives", &first);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    let text = run(&daemon, &["drain", &nodes[0].to_string(), "--for", "1h"]);
    assert!(!text.contains("next start"), "{text}");
    let both = config(&state.0, &(zone("a.example", &cluster, OFTEN) + &zone("b.example", &cluster, OFTEN)));
    fs::write(daemon.config_path(), &both).unwrap();
    assert_eq!(daemon.reload().0, 0);
    // A new zone answers its seed until more is known.
    becomes(&daemon, "b.example", &nodes[1..]);
    assert!(sees(&daemon, "a.example", &nodes[1..]));
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit(Duration::from_secs(5));
    let mut daemon = Daemon::with_config("drain-restarted", &both);
    becomes(&daemon, "a.example", &nodes[1..]);
    assert!(run(&daemon, &["drain"]).contains(&nodes[0].to_string()));
    run(&daemon, &["drain", &nodes[0].to_string(), "--for", "2s"]);
    assert!(sees(&daemon, "a.example", &nodes[1..]));
    becomes(&daemon, "a.example", &nodes);
    wait::until("the log to say so", || daemon.log().contains("has ended by itself").then_some(()));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit(Duration::from_secs(5));
    let file = state.0.join("drains.json");
    assert!(fs::read_to_string(&file).unwrap().contains("\"drains\": [\n],"), "its end is kept too");
    fs::write(&file, "{\"version\": 2}\n").unwrap();
    let daemon = Daemon::with_config("drain-newer", &both);
    let warned =
        || daemon.log().lines().any(|line| line.contains("drains.json") && line.contains("no node is drained"));
    wait::until("a warning", || warned().then_some(()));
    becomes(&daemon, "a.example", &nodes);
}

#[test]
fn drained_nodes_are_answered_where_no_other_would_be() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("drain-last", &zone("a.example", &cluster, OFTEN));
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    run(&daemon, &["drain", &nodes[0].to_string(), "--for", "30m"]);
    cluster.crash(nodes[1]);
    becomes(&daemon, "a.example", &nodes[..1]);
    wait::until("a degraded zone", || (state(&daemon, "a.example") == "degraded").then_some(()));
    let reason = "every node that is up is drained, so drained nodes are answered";
    assert_eq!(daemon.zone("a.example.")["reason"], reason);
    let warned = || daemon.log().lines().any(|line| line.contains("WARN") && line.contains(reason));
    wait::until("a warning", || warned().then_some(()));
    cluster.restart(nodes[1]).unwrap();
    becomes(&daemon, "a.example", &nodes[1..]);
    let text = run(&daemon, &["drain", &nodes[1].to_string(), "--for", "30m"]);
    assert!(text.contains(": drained, but no other node is up\n"), "{text}");
    assert!(sees(&daemon, "a.example", &nodes));
}

#[test]
fn a_drained_datacenter_gives_way_to_the_next_scope() {
    let cluster = SimulatedCluster::start_in(&[("west", "a"), ("east", "a")]).unwrap();
    let nodes = cluster.nodes();
    let scope = "scope = [{ datacenter = \"west\" }, { datacenter = \"east\" }]\n";
    let daemon = Daemon::start("drain-scope", &zone("a.example", &cluster, &format!("{OFTEN}{scope}")));
    becomes(&daemon, "a.example", &nodes[..1]);
    run(&daemon, &["drain", &nodes[0].to_string(), "--for", "30m"]);
    becomes(&daemon, "a.example", &nodes[1..]);
    run(&daemon, &["undrain", &nodes[0].to_string()]);
    becomes(&daemon, "a.example", &nodes[..1]);
}

#[test]
fn what_cannot_be_drained_is_refused_and_nothing_drains_over_tcp() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("drain-refused", &zone("a.example", &cluster, OFTEN));
    becomes(&daemon, "a.example", &cluster.nodes());
    let node = cluster.node(0).to_string();
    let usage: [&[&str]; 5] = [
        &["drain", &node],
        &["drain", &node, "--for", "8d"],
        &["drain", "node.example", "--for", "1h"],
        &["drain", "--for", "1h"],
        &["undrain"],
    ];
    for arguments in usage {
        assert_eq!(daemon.command(arguments).0, 2, "{arguments:?}");
    }
    let (code, _, stderr) = daemon.command(&["drain", &node, "--zone", "b.example", "--for", "1h"]);
    assert_eq!((code, stderr.trim()), (1, "no zone has this name; `alternator-dns status` lists the zones"));
    let (code, _, stderr) = daemon.command(&["undrain", &node]);
    assert!(code == 1 && stderr.contains(&format!("{node} is not drained in any zone; ")), "{stderr}");
    let text = run(&daemon, &["drain", "192.0.2.1", "--for", "1h"]);
    assert!(text.contains("no zone knows 192.0.2.1 now; it may join one later"), "{text}");
    let mut stream = TcpStream::connect(daemon.admin()).unwrap();
    write!(stream, "POST /drain?node={node}&seconds=60 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    assert!(sees(&daemon, "a.example", &cluster.nodes()));
}

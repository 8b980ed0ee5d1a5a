//! What the server itself lacks says nothing about nodes: without a descriptor for a connection no node changes its state.

use std::time::Duration;

use alternator_dns::simulation::{Path, SimulatedCluster};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{becomes, becomes_within, node_state, stays},
    wait,
};

/// Each node is probed five times a second, and would go after two failures.
const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"1s\", fall = 2 }\n";

/// Polls during the shortage: probes would have taken every node away within a few.
const POLLS_OBSERVED: u64 = 30;

/// See `health.rs`.
const REFUSED_TO_GONE: Duration = Duration::from_millis(1500);

/// Limits the descriptors that the server may have from now on; open ones stay.
fn limit_descriptors(daemon: &Daemon, current: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Pid::from_raw(daemon.pid().as_raw()), Resource::Nofile, Rlimit { current, maximum }).unwrap();
}

#[test]
fn without_a_descriptor_left_no_node_goes_down() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = Daemon::start("descriptors", &zone_with("a.example", &cluster.nodes(), cluster.port(), KEYS));
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    wait::until("all to be up", || {
        nodes.iter().all(|&node| node_state(&daemon, "a.example", node) == "up").then_some(())
    });
    let before = getrlimit(Resource::Nofile).current;
    limit_descriptors(&daemon, Some(3));
    wait::until("the probes under way to end", || {
        let probes = cluster.total(Path::Health);
        let polls = cluster.total(Path::LocalNodes);
        wait::until("a poll", || (cluster.total(Path::LocalNodes) > polls + 5).then_some(()));
        (cluster.total(Path::Health) == probes).then_some(())
    });
    let polls = cluster.total(Path::LocalNodes);
    let probes = cluster.total(Path::Health);
    // Polls go on over connections that are kept; every probe needs a new one.
    stays(&daemon, "a.example", &nodes, "more polls", || cluster.total(Path::LocalNodes) >= polls + POLLS_OBSERVED);
    assert_eq!(cluster.total(Path::Health), probes, "no node is probed");
    limit_descriptors(&daemon, before);
    wait::until("probes again", || (cluster.total(Path::Health) > probes + 3).then_some(()));
    for &node in &nodes {
        assert_eq!(node_state(&daemon, "a.example", node), "up");
    }
    assert!(daemon.metric("alternator_dns_probes_total{zone=\"a.example.\",result=\"not_asked\"}") >= 6.0);
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("keep their states")).collect();
    assert!(lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains("LimitNOFILE="), "{lines:?}");
    assert!(!log.contains("node left"), "{log}");
    cluster.crash(nodes[1]);
    becomes_within(REFUSED_TO_GONE, &daemon, "a.example", &[nodes[0], nodes[2]]);
}

//! Being listed is not being healthy: nodes are probed, and the outcomes decide which are answered.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{BUSY, JITTER, becomes, becomes_within, node_state, see, sees, state, stays, ticks},
    wait,
};

/// What the design promises for a node that refuses, with nothing configured: the next probe is at most an interval
/// and its jitter away and is confirmed at once; the rest is for a busy machine.
const REFUSED_TO_GONE: Duration = Duration::from_millis(1500);

const REFRESH: Duration = Duration::from_millis(200);
const INTERVAL: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_millis(300);
const FALL: u32 = 2;

/// The constants above, in the file.
const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"300ms\"\nanswers = \"all\"\n\
                    health = { interval = \"500ms\", timeout = \"300ms\", rise = 2, fall = 2 }\n";

/// The shortest interval of probes, and a long timeout for a busy machine.
const QUICK: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                     health = { interval = \"200ms\", timeout = \"1s\" }\n";

/// Probes after which a state counts as lasting: four times as many as would change it.
const PROBES_OBSERVED: u64 = 8;

fn start(name: &str, cluster: &SimulatedCluster, keys: &str) -> Daemon {
    Daemon::start(name, &zone_with("a.example", &[cluster.node(0)], cluster.port(), keys))
}

/// Makes a node answer nothing in time, on every path.
fn deliver(cluster: &SimulatedCluster, node: IpAddr, delivery: &Delivery) {
    for path in [Path::LocalNodes, Path::Health] {
        cluster.deliver(node, path, delivery.clone());
    }
}

#[test]
fn by_default_a_refusing_node_is_left_out_within_a_second_and_a_half() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = start("refuses", &cluster, "answers = \"all\"\n");
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    cluster.crash(nodes[1]);
    becomes_within(REFUSED_TO_GONE, &daemon, "a.example", &[nodes[0], nodes[2]]);
    assert_eq!(node_state(&daemon, "a.example", nodes[1]), "down", "its peers list it still");
    assert_eq!(state(&daemon, "a.example"), "live");
}

#[test]
fn a_node_that_hangs_errs_or_drips_is_left_out_after_fall_probes() {
    let cluster = SimulatedCluster::start(9).unwrap();
    let daemon = start("troubled", &cluster, KEYS);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    deliver(&cluster, nodes[5], &Delivery::Hang);
    cluster.say(nodes[6], Path::Health, Content::Reply(HttpReply::status(500)));
    deliver(&cluster, nodes[7], &Delivery::Trickle(Duration::from_secs(1)));
    deliver(&cluster, nodes[8], &Delivery::Close);
    let bound = (INTERVAL * FALL + TIMEOUT).mul_f64(JITTER) + BUSY;
    becomes_within(bound, &daemon, "a.example", &nodes[..5]);
    for node in &nodes[5..] {
        assert_eq!(node_state(&daemon, "a.example", *node), "down");
    }
    let before = cluster.count(nodes[6], Path::Health);
    stays(&daemon, "a.example", &nodes[..5], "further probes", || {
        cluster.count(nodes[6], Path::Health) > before + PROBES_OBSERVED / 2
    });
}

#[test]
fn a_node_that_hangs_on_probes_only_is_left_out() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = start("hangs", &cluster, KEYS);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    cluster.deliver(nodes[2], Path::Health, Delivery::Hang);
    let bound = (INTERVAL * FALL + TIMEOUT).mul_f64(JITTER) + BUSY;
    becomes_within(bound, &daemon, "a.example", &nodes[..2]);
    let polls = cluster.count(nodes[2], Path::LocalNodes);
    stays(&daemon, "a.example", &nodes[..2], "it to answer some polls", || {
        cluster.count(nodes[2], Path::LocalNodes) > polls + 2
    });
}

#[test]
fn an_overloaded_cluster_is_not_shrunk() {
    let cluster = SimulatedCluster::start(10).unwrap();
    let keys = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                health = { interval = \"200ms\", timeout = \"200ms\" }\n";
    let daemon = start("overload", &cluster, keys);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    for &node in &nodes[2..] {
        cluster.overload(node, Duration::from_secs(3));
    }
    let probed = |more: u64| {
        let before: Vec<_> = nodes[2..].iter().map(|&node| cluster.count(node, Path::Health)).collect();
        let cluster = &cluster;
        let nodes = &nodes;
        move || nodes[2..].iter().zip(&before).all(|(&node, before)| cluster.count(node, Path::Health) >= before + more)
    };
    // While they go down one after the other, half of the list may be left for a moment, but not less.
    let fallen = probed(u64::from(FALL) + 1);
    wait::until("all eight to have failed twice", || {
        let seen = see(&daemon, "a.example");
        assert!(seen.len() >= 5, "less than half of the list: {seen:?}");
        fallen().then_some(())
    });
    becomes_within(BUSY, &daemon, "a.example", &nodes);
    let observed = probed(PROBES_OBSERVED);
    stays(&daemon, "a.example", &nodes, "further probes of all eight", observed);
}

#[test]
fn when_all_refuse_all_that_were_ever_up_stay() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let never = cluster.node(3);
    cluster.crash(never);
    let daemon = start("all_refuse", &cluster, QUICK);
    let nodes = &cluster.nodes()[..3];
    becomes(&daemon, "a.example", nodes);
    for &node in nodes {
        cluster.crash(node);
    }
    let allowed = |seen: &std::collections::BTreeSet<IpAddr>| !seen.is_empty() && !seen.contains(&never);
    wait::within(ticks(FALL, REFRESH), "all three to be back", || {
        let seen = see(&daemon, "a.example");
        assert!(allowed(&seen), "{seen:?}");
        (sees(&daemon, "a.example", nodes) && state(&daemon, "a.example") != "live").then_some(())
    });
    // Dead nodes count no probes, so the test ends when the zone is stale.
    stays(&daemon, "a.example", nodes, "the zone to be stale", || state(&daemon, "a.example") == "stale");
    cluster.restart(nodes[1]).unwrap();
    becomes_within(ticks(4, REFRESH), &daemon, "a.example", &nodes[1..2]);
}

#[test]
fn a_new_node_is_answered_after_its_first_success() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let spare = cluster.add().unwrap();
    cluster.remove(spare);
    let daemon = start("newcomer", &cluster, QUICK);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    cluster.announce(spare);
    wait::until("it to be listed", || (!node_state(&daemon, "a.example", spare).is_empty()).then_some(()));
    let before = cluster.count(nodes[0], Path::Health);
    stays(&daemon, "a.example", &nodes, "many probes", || {
        assert_ne!(node_state(&daemon, "a.example", spare), "up");
        cluster.count(nodes[0], Path::Health) > before + PROBES_OBSERVED
    });
    cluster.restart(spare).unwrap();
    becomes_within(ticks(1, REFRESH), &daemon, "a.example", &[nodes[0], nodes[1], spare]);
}

#[test]
fn a_down_node_is_answered_again_after_rise_successes() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let keys = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                health = { interval = \"200ms\", timeout = \"1s\", rise = 4, fall = 1 }\n";
    let daemon = start("returns", &cluster, keys);
    let nodes = cluster.nodes();
    becomes(&daemon, "a.example", &nodes);
    cluster.say(nodes[1], Path::Health, Content::Reply(HttpReply::status(500)));
    becomes(&daemon, "a.example", &[nodes[0], nodes[2]]);
    let before = cluster.count(nodes[1], Path::Health);
    cluster.heal(nodes[1]);
    becomes_within(ticks(4, Duration::from_millis(200)), &daemon, "a.example", &nodes);
    let probes = cluster.count(nodes[1], Path::Health) - before;
    assert!(probes >= 4, "it is answered again after {probes} probes");
}

#[test]
fn a_node_that_several_zones_list_is_probed_once_and_on_a_fresh_connection() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let zones: String = ["a.example", "b.example", "c.example"]
        .map(|name| zone_with(name, &cluster.nodes(), cluster.port(), QUICK))
        .concat();
    let daemon = Daemon::start("shared", &zones);
    for name in ["a.example", "b.example", "c.example"] {
        becomes(&daemon, name, &cluster.nodes());
    }
    let node = cluster.node(1);
    let start = Instant::now();
    let before = cluster.count(node, Path::Health);
    let connections = cluster.connections(node);
    wait::until("twenty probes", || (cluster.count(node, Path::Health) >= before + 20).then_some(()));
    let elapsed = start.elapsed();
    assert!(elapsed > REFRESH.mul_f64(20.0 * 0.85), "twenty probes of one node in {elapsed:?}");
    assert!(cluster.connections(node) >= connections + 20, "a kept connection shows nothing about new ones");
}

#[test]
fn the_nodes_of_a_large_zone_are_probed_less_often() {
    let cluster = SimulatedCluster::start(60).unwrap();
    let keys = "answers = \"all\"\nrefresh = \"500ms\"\nhealth = { interval = \"100ms\", timeout = \"1s\" }\n";
    let daemon = start("stretched", &cluster, keys);
    becomes(&daemon, "a.example", &cluster.nodes());
    let start = Instant::now();
    let before = cluster.total(Path::Health);
    wait::until("three hundred probes", || (cluster.total(Path::Health) >= before + 300).then_some(()));
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(3).mul_f64(0.9), "more than 100 probes a second: 300 in {elapsed:?}");
}

#[test]
fn probes_end_with_the_node_and_with_the_zone() {
    let first = SimulatedCluster::start(3).unwrap();
    let second = SimulatedCluster::start(1).unwrap();
    let zone = |name: &str, cluster: &SimulatedCluster| zone_with(name, &[cluster.node(0)], cluster.port(), QUICK);
    let daemon = Daemon::start("ends", &(zone("a.example", &first) + &zone("b.example", &second)));
    let nodes = first.nodes();
    becomes(&daemon, "a.example", &nodes);
    becomes(&daemon, "b.example", &second.nodes());
    let quiet = |what: &str, node: IpAddr, others: &dyn Fn() -> u64| {
        // A probe in flight may still arrive; after that no probe arrives while others are probed.
        let settled = others() + 2;
        let mut before = 0;
        wait::until("probes in flight", || {
            before = first.count(node, Path::Health);
            (others() >= settled).then_some(())
        });
        let end = others() + PROBES_OBSERVED;
        wait::until("others to be probed", || (others() >= end).then_some(()));
        assert_eq!(first.count(node, Path::Health), before, "{what}");
    };
    // The others no longer list it: it runs, but is no node of the cluster any more.
    first.split(&[&nodes[2..]]);
    becomes(&daemon, "a.example", &nodes[..2]);
    quiet("the node has left", nodes[2], &|| first.count(nodes[0], Path::Health));
    std::fs::write(daemon.config_path(), crate::daemon::config(&zone("b.example", &second))).unwrap();
    assert_eq!(daemon.reload().0, 0);
    quiet("the zone is gone", nodes[0], &|| second.total(Path::Health));
}

#[test]
fn no_node_is_probed_without_health_checks() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = start("unprobed", &cluster, "refresh = \"100ms\"\nanswers = \"all\"\nhealth = false\n");
    becomes(&daemon, "a.example", &cluster.nodes());
    let crashed = cluster.node(2);
    cluster.deliver(crashed, Path::Health, Delivery::Hang);
    let polls = cluster.total(Path::LocalNodes);
    stays(&daemon, "a.example", &cluster.nodes(), "twenty polls", || cluster.total(Path::LocalNodes) > polls + 20);
    assert_eq!(cluster.total(Path::Health), 0);
}

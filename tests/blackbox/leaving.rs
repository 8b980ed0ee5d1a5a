//! Published nodes that a list lacks are asked themselves before they are removed.

use std::{net::IpAddr, time::Duration};

use alternator_dns::simulation::{Content, Delivery, Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{becomes, becomes_within, see, state, stays, ticks},
    wait,
};

const REFRESH: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(400);

/// The constants above, and a long timeout of probes, because these tests are about lists.
const KEYS: &str = "refresh = \"400ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\n\
                    health = { interval = \"400ms\", timeout = \"1s\" }\n";

/// No probes, and frequent polls.
const LISTS_ONLY: &str = "refresh = \"100ms\"\ntimeout = \"1s\"\nanswers = \"all\"\nhealth = false\n";

/// Polls of one node after which a state counts as lasting. It is asked first about every third time.
const POLLS_OBSERVED: u64 = 10;

fn start(name: &str, cluster: &SimulatedCluster, seeds: &[IpAddr], keys: &str) -> Daemon {
    let daemon = Daemon::start(name, &zone_with("a.example", seeds, cluster.port(), keys));
    becomes(&daemon, "a.example", &cluster.nodes());
    daemon
}

fn serial(daemon: &Daemon) -> u64 {
    daemon.zone("a.example.")["serial"].as_u64().unwrap()
}

/// Lets a node be asked many times; meanwhile exactly these are answered. Whether the zone was ever contested.
#[track_caller]
fn stays_while_asked(daemon: &Daemon, cluster: &SimulatedCluster, asked: IpAddr, nodes: &[IpAddr], polls: u64) -> bool {
    let before = cluster.count(asked, Path::LocalNodes);
    let serial_before = serial(daemon);
    let mut contested = false;
    stays(daemon, "a.example", nodes, &format!("{asked} to be asked"), || {
        contested |= state(daemon, "a.example") == "contested";
        cluster.count(asked, Path::LocalNodes) >= before + polls
    });
    assert_eq!(serial(daemon), serial_before, "nothing that a client could see has changed");
    contested
}

#[test]
fn an_isolated_node_of_three_removes_no_node() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    // It is the only seed, and so is polled often.
    let daemon = start("one_of_three", &cluster, &nodes[..1], LISTS_ONLY);
    cluster.isolate(nodes[0]);
    assert!(stays_while_asked(&daemon, &cluster, nodes[0], &nodes, POLLS_OBSERVED), "the zone is contested meanwhile");
    cluster.heal(nodes[0]);
    wait::until("agreement", || (state(&daemon, "a.example") == "live").then_some(()));
}

#[test]
fn two_nodes_isolated_from_each_other_both_stay() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("two", &cluster, &nodes, LISTS_ONLY);
    cluster.isolate(nodes[1]);
    stays_while_asked(&daemon, &cluster, nodes[1], &nodes, POLLS_OBSERVED);
    cluster.isolate(nodes[0]);
    assert!(stays_while_asked(&daemon, &cluster, nodes[0], &nodes, POLLS_OBSERVED), "each list is contested");
}

#[test]
fn the_second_of_two_nodes_is_removed_when_it_is_dead() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("two_to_one", &cluster, &nodes, KEYS);
    cluster.stop(nodes[1]);
    becomes_within(ticks(2, REFRESH), &daemon, "a.example", &nodes[..1]);
    wait::until("agreement", || (state(&daemon, "a.example") == "live").then_some(()));
}

#[test]
fn three_outvote_two_whichever_side_is_polled() {
    // The three answer late, so that one of the two always answers first: they are the seeds, and a seed is asked third
    // at the latest, half a timeout after the first node.
    const LONG_TIMEOUT: &str = "refresh = \"400ms\"\ntimeout = \"2s\"\nanswers = \"all\"\nhealth = false\n";
    const LATE: Duration = Duration::from_millis(1500);
    let cluster = SimulatedCluster::start(5).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("three_two", &cluster, &nodes[..2], LONG_TIMEOUT);
    for &node in &nodes[2..] {
        cluster.deliver(node, Path::LocalNodes, Delivery::Delayed(LATE));
    }
    cluster.split(&[&nodes[..2], &nodes[2..]]);
    let mut contested = false;
    wait::until("the two to go, not uncontested", || {
        let seen = see(&daemon, "a.example");
        assert!(nodes[2..].iter().all(|node| seen.contains(node)), "one of the three is missing: {seen:?}");
        contested |= state(&daemon, "a.example") == "contested";
        (contested && seen.len() == 3).then_some(())
    });
    for &node in &nodes[2..] {
        cluster.heal(node);
    }
    stays_while_asked(&daemon, &cluster, nodes[2], &nodes[2..], POLLS_OBSERVED / 2);
    cluster.heal_split();
    becomes(&daemon, "a.example", &nodes);
}

#[test]
fn four_of_six_nodes_are_removed_when_they_are_dead() {
    let cluster = SimulatedCluster::start(6).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("six_to_two", &cluster, &nodes[2..3], KEYS);
    for &node in &nodes[2..] {
        cluster.stop(node);
    }
    becomes_within(ticks(3, REFRESH), &daemon, "a.example", &nodes[..2]);
    wait::until("agreement", || (state(&daemon, "a.example") == "live").then_some(()));
}

#[test]
fn two_of_three_dead_nodes_are_removed_without_probes() {
    const UNPROBED: &str = "refresh = \"400ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\nhealth = false\n";
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("three_to_one", &cluster, &nodes[..1], UNPROBED);
    cluster.stop(nodes[1]);
    cluster.stop(nodes[2]);
    becomes_within(ticks(2, REFRESH), &daemon, "a.example", &nodes[..1]);
    assert_eq!(cluster.total(Path::Health), 0);
}

#[test]
fn an_unlisted_node_that_does_not_answer_is_removed() {
    const UNPROBED: &str = "refresh = \"400ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\nhealth = false\n";
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("silent", &cluster, &nodes[..1], UNPROBED);
    cluster.deliver(nodes[2], Path::LocalNodes, Delivery::Hang);
    cluster.split(&[&nodes[2..]]);
    // It may be polled first, a quarter of a timeout before another, and is then waited for during a whole timeout.
    let bound = ticks(2, REFRESH) + TIMEOUT.mul_f64(1.25);
    becomes_within(bound, &daemon, "a.example", &nodes[..2]);
}

#[test]
fn a_live_node_that_only_some_peers_list_stays() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("disagree", &cluster, &nodes[..2], LISTS_ONLY);
    let two = nodes[..2].iter().map(ToString::to_string).collect();
    cluster.say(nodes[1], Path::LocalNodes, Content::Listing(two));
    stays_while_asked(&daemon, &cluster, nodes[1], &nodes, 3 * POLLS_OBSERVED);
}

#[test]
fn a_dead_node_that_some_peers_list_stays_removed() {
    const QUICK: &str = "refresh = \"100ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                         health = { interval = \"200ms\", timeout = \"1s\" }\n";
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("haunted", &cluster, &nodes[..2], QUICK);
    cluster.crash(nodes[2]);
    let two = nodes[..2].iter().map(ToString::to_string).collect();
    cluster.say(nodes[1], Path::LocalNodes, Content::Listing(two));
    becomes(&daemon, "a.example", &nodes[..2]);
    stays_while_asked(&daemon, &cluster, nodes[1], &nodes[..2], POLLS_OBSERVED);
}

#[test]
fn a_joining_node_that_sees_only_itself_waits_and_no_node_is_removed() {
    const QUICK: &str = "refresh = \"100ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                         health = { interval = \"200ms\", timeout = \"1s\" }\n";
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("joining", &cluster, &nodes[..1], QUICK);
    let newcomer = cluster.add().unwrap();
    cluster.remove(newcomer);
    cluster.announce(newcomer);
    cluster.isolate(newcomer);
    cluster.restart(newcomer).unwrap();
    // It is listed, but does not list the others yet: that could be any cluster's node.
    stays_while_asked(&daemon, &cluster, newcomer, &nodes, POLLS_OBSERVED);
    cluster.heal(newcomer);
    becomes(&daemon, "a.example", &cluster.nodes());
}

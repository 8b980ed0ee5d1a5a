//! Addresses are recycled: no zone answers with another cluster's nodes.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use alternator_dns::simulation::{Content, Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{becomes, becomes_within, node_state, see, state, ticks},
    wait,
};

const REFRESH: Duration = Duration::from_millis(400);

/// The constant above, and a long timeout for a busy machine: no node is slow in these tests.
const KEYS: &str = "refresh = \"400ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"400ms\", timeout = \"1s\" }\n";

/// Two more ticks than a newcomer needs to be listed and verified.
const FOLLOWED: u32 = 4;

/// Polls of the other cluster after which a state counts as lasting.
const POLLS_OBSERVED: u64 = 10;

/// A recycled address is another cluster's within so many refreshes.
const RECYCLED: u32 = 2;

fn zone(name: &str, seeds: &[IpAddr], cluster: &SimulatedCluster) -> String {
    zone_with(name, seeds, cluster.port(), KEYS)
}

/// Two clusters on one port, each followed by a zone whose only seed is its first node.
fn two(name: &str, nodes: [usize; 2]) -> (SimulatedCluster, SimulatedCluster, Daemon) {
    let a = SimulatedCluster::start(nodes[0]).unwrap();
    let b = a.start_beside(nodes[1]).unwrap();
    let zones = zone("a.example", &[a.node(0)], &a) + &zone("b.example", &[b.node(0)], &b);
    let daemon = Daemon::start(name, &zones);
    becomes(&daemon, "a.example", &a.nodes());
    becomes(&daemon, "b.example", &b.nodes());
    // Each must accept a list after the other has published: the first zone cannot tell a foreign cluster from its own.
    let polls = [&a, &b].map(|cluster| cluster.total(Path::LocalNodes));
    wait::until("both to be asked again", || {
        let again = [&a, &b].map(|cluster| cluster.total(Path::LocalNodes));
        (again[0] > polls[0] + 1 && again[1] > polls[1] + 1).then_some(())
    });
    (a, b, daemon)
}

/// The answer of a zone, which holds none of these.
#[track_caller]
fn see_none_of(daemon: &Daemon, zone: &str, strangers: &[IpAddr]) -> BTreeSet<IpAddr> {
    let seen = see(daemon, zone);
    assert!(strangers.iter().all(|stranger| !seen.contains(stranger)), "{zone} is answered with a stranger: {seen:?}");
    seen
}

#[test]
fn the_only_address_of_a_cluster_goes_to_another() {
    let (a, b, daemon) = two("only", [1, 3]);
    let recycled = a.node(0);
    let strangers = b.nodes();
    a.crash(recycled);
    wait::until("it to be down", || (node_state(&daemon, "a.example", recycled) == "down").then_some(()));
    b.take_over(&a, recycled).unwrap();
    // No node is left that could tell whose it is: the zone keeps what it had, takes none of the others, and says so.
    wait::until("a.example to be contested", || {
        see_none_of(&daemon, "a.example", &strangers);
        (state(&daemon, "a.example") == "contested").then_some(())
    });
    let polls = b.total(Path::LocalNodes);
    wait::until("it to last", || {
        see_none_of(&daemon, "a.example", &strangers);
        assert_eq!(state(&daemon, "a.example"), "contested");
        let seen = see(&daemon, "b.example");
        assert!(strangers.iter().all(|node| seen.contains(node)), "b.example loses nothing: {seen:?}");
        (b.total(Path::LocalNodes) > polls + POLLS_OBSERVED).then_some(())
    });
}

#[test]
fn one_of_three_addresses_goes_to_another_cluster() {
    // The first is the zone's only seed.
    for index in [0, 2] {
        let (a, b, daemon) = two("one_of_three", [3, 3]);
        let recycled = a.node(index);
        let strangers = b.nodes();
        b.take_over(&a, recycled).unwrap();
        let left = a.nodes();
        wait::within(ticks(RECYCLED, REFRESH), "the address to be gone", || {
            let seen = see_none_of(&daemon, "a.example", &strangers);
            (seen == left.iter().copied().collect()).then_some(())
        });
        let polls = b.total(Path::LocalNodes);
        wait::until("it to last", || {
            assert_eq!(see_none_of(&daemon, "a.example", &strangers), left.iter().copied().collect());
            let seen = see(&daemon, "b.example");
            assert!(strangers.iter().all(|node| seen.contains(node)), "b.example loses nothing: {seen:?}");
            (b.total(Path::LocalNodes) > polls + POLLS_OBSERVED).then_some(())
        });
        becomes(&daemon, "b.example", &b.nodes());
    }
}

#[test]
fn a_cluster_whose_nodes_disagree_gives_no_address_away() {
    let (a, b, daemon) = two("disagree", [3, 5]);
    let strangers = b.nodes();
    b.isolate(b.node(1));
    wait::until("b.example to be contested", || (state(&daemon, "b.example") == "contested").then_some(()));
    // The recycled address is the zone's only seed, and soon no other node is left to contradict it.
    let [recycled, others @ ..] = &a.nodes()[..] else { panic!("three nodes") };
    b.take_over(&a, *recycled).unwrap();
    becomes(&daemon, "a.example", others);
    others.iter().for_each(|node| a.stop(*node));
    let polls = b.count(*recycled, Path::LocalNodes);
    wait::until("it to be asked many times", || {
        see_none_of(&daemon, "a.example", &strangers);
        (b.count(*recycled, Path::LocalNodes) > polls + POLLS_OBSERVED).then_some(())
    });
    assert_eq!(see_none_of(&daemon, "a.example", &[*recycled]), others.iter().copied().collect());
}

#[test]
fn two_zones_of_one_cluster_learn_it_whole() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let seeds = cluster.nodes();
    let zones = zone("a.example", &seeds[..1], &cluster) + &zone("b.example", &seeds[1..2], &cluster);
    let daemon = Daemon::start("one_cluster", &zones);
    for zone in ["a.example", "b.example"] {
        becomes(&daemon, zone, &cluster.nodes());
    }
    let polls = cluster.total(Path::LocalNodes);
    wait::until("it to last", || {
        for zone in ["a.example", "b.example"] {
            assert_eq!(see(&daemon, zone), cluster.nodes().into_iter().collect());
            assert_eq!(state(&daemon, zone), "live");
        }
        (cluster.total(Path::LocalNodes) > polls + POLLS_OBSERVED).then_some(())
    });
    // It stays one cluster when it grows.
    cluster.add().unwrap();
    for zone in ["a.example", "b.example"] {
        becomes_within(ticks(FOLLOWED, REFRESH), &daemon, zone, &cluster.nodes());
    }
}

/// Two clusters of three die, and come back on these addresses.
fn reborn(name: &str, swap: fn([&[IpAddr]; 2]) -> [Vec<IpAddr>; 2]) -> ([SimulatedCluster; 2], Daemon) {
    let (a, b, daemon) = two(name, [3, 3]);
    let port = a.port();
    let swapped = swap([&a.nodes(), &b.nodes()]);
    drop((a, b));
    for zone in ["a.example", "b.example"] {
        wait::until("a dead cluster to be noticed", || (state(&daemon, zone) != "live").then_some(()));
    }
    (swapped.map(|nodes| SimulatedCluster::start_at(&nodes, port).unwrap()), daemon)
}

#[test]
fn two_dead_clusters_that_come_back_with_one_address_swapped_are_kept_apart() {
    let ([a, b], daemon) = reborn("one_swapped", |[a, b]| [vec![a[0], a[1], b[2]], vec![b[0], b[1], a[2]]]);
    // Each accepts its own list, verifies the new node and asks the one that belongs to the other cluster now.
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "a.example", &a.nodes());
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "b.example", &b.nodes());
    for zone in ["a.example", "b.example"] {
        wait::until("agreement", || (state(&daemon, zone) == "live").then_some(()));
    }
}

#[test]
fn two_dead_clusters_that_come_back_with_all_addresses_swapped_are_answered_again() {
    // It cannot be known whose addresses they are, and a name that fails indefinitely helps no client.
    let ([a, b], daemon) = reborn("all_swapped", |[a, b]| [b.to_vec(), a.to_vec()]);
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "a.example", &b.nodes());
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "b.example", &a.nodes());
    for zone in ["a.example", "b.example"] {
        wait::until("agreement", || (state(&daemon, zone) == "live").then_some(()));
    }
}

#[test]
fn a_rolling_replacement_of_every_address_is_published() {
    let (a, b, daemon) = two("rolling", [3, 3]);
    let old = a.nodes();
    for &node in old.iter().chain(&old[..1]) {
        // The fourth replaces one of the replacements, when no seed is left.
        let leaving = if a.nodes().contains(&node) { node } else { a.node(0) };
        a.replace(leaving).unwrap();
        let nodes = a.nodes();
        wait::within(ticks(FOLLOWED, REFRESH), "the replacement", || {
            let seen = see_none_of(&daemon, "a.example", &b.nodes());
            (seen == nodes.iter().copied().collect()).then_some(())
        });
    }
    assert!(a.nodes().iter().all(|node| !old.contains(node)));
    assert_eq!(see(&daemon, "b.example"), b.nodes().into_iter().collect());
}

#[test]
fn a_cluster_of_one_grows_to_three() {
    let (a, b, daemon) = two("grows", [1, 3]);
    a.add().unwrap();
    a.add().unwrap();
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "a.example", &a.nodes());
    assert_eq!(state(&daemon, "a.example"), "live");
    assert_eq!(see(&daemon, "b.example"), b.nodes().into_iter().collect());
}

#[test]
fn a_cluster_that_replaced_all_nodes_but_its_seed_is_published() {
    let (a, b, daemon) = two("moved", [3, 1]);
    let seed = a.node(0);
    let newcomers = [a.add().unwrap(), a.add().unwrap()];
    let old = a.nodes()[1..3].to_vec();
    for &node in &old {
        a.remove(node);
    }
    becomes_within(ticks(FOLLOWED, REFRESH), &daemon, "a.example", &[seed, newcomers[0], newcomers[1]]);
    assert_eq!(see(&daemon, "b.example"), b.nodes().into_iter().collect());
}

#[test]
fn a_node_that_lists_strangers_brings_none_of_them() {
    let cluster = SimulatedCluster::start(3).unwrap();
    // No zone has these nodes: only that the zone's nodes do not list them back shows that they are foreign.
    let strangers = cluster.start_beside(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("strangers", &zone("a.example", &nodes[..1], &cluster));
    becomes(&daemon, "a.example", &nodes);
    let list: Vec<_> = [nodes[2], strangers.node(0), strangers.node(1)].iter().map(ToString::to_string).collect();
    cluster.say(nodes[2], Path::LocalNodes, Content::Listing(list));
    let before = cluster.count(nodes[2], Path::LocalNodes);
    wait::until("the node with the wrong list to be asked", || {
        let seen = see_none_of(&daemon, "a.example", &strangers.nodes());
        assert!(nodes[..2].iter().all(|node| seen.contains(node)), "{seen:?}");
        (cluster.count(nodes[2], Path::LocalNodes) > before + POLLS_OBSERVED).then_some(())
    });
    assert_eq!(strangers.total(Path::LocalNodes), 0, "they are not even asked");
}

//! Stories in which the ids that nodes give decide, or must not decide.

use std::net::IpAddr;

use alternator_dns::simulation::{Path, SimulatedCluster};

use super::{B, Observer, beside, polls_pass, zone};
use crate::{
    daemon::Daemon,
    observe::{becomes, node_state, state},
    wait,
};

/// Waits until the zone's id is that of these nodes.
fn id_is_learned(daemon: &Daemon, cluster: &SimulatedCluster) {
    let id = cluster.cluster_id().unwrap().to_string();
    wait::until("the id", || (daemon.zone("b.example.")["cluster_id"] == id.as_str()).then_some(()));
}

#[test]
fn i1_in_a_raft_recovery_the_nodes_get_a_new_id_one_by_one() {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let new = b.start_beside(1).unwrap().cluster_id();
    let daemon = Daemon::start("i1", &zone(B, &nodes[..1], &b));
    becomes(&daemon, B, &nodes);
    id_is_learned(&daemon, &b);
    b.stop(nodes[2]);
    becomes(&daemon, B, &nodes[..2]);
    for (node, other) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
        let observer = Observer::start(&daemon, B, &nodes[2..], &[other]);
        b.crash(node);
        b.set_node_cluster_id(node, new);
        wait::until("it to be down", || (node_state(&daemon, B, node) == "down").then_some(()));
        let queries = b.count(node, Path::Identity);
        b.restart(node).unwrap();
        becomes(&daemon, B, &nodes[..2]);
        wait::until("it to give its id", || (b.count(node, Path::Identity) > queries).then_some(()));
        polls_pass(&b);
        observer.finish("I1");
    }
    b.set_cluster_id(new);
    id_is_learned(&daemon, &b);
    b.restart(nodes[2]).unwrap();
    becomes(&daemon, B, &nodes);
}

#[test]
fn i8_a_clone_with_the_same_id_gets_a_dead_address_while_the_cluster_lives() {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let (clone, zones) = beside(&b, &nodes[..1], false);
    clone.set_cluster_id(b.cluster_id());
    let daemon = Daemon::start("i8", &zones);
    becomes(&daemon, B, &nodes);
    id_is_learned(&daemon, &b);
    b.crash(nodes[0]);
    becomes(&daemon, B, &nodes[1..]);
    let never: Vec<IpAddr> = clone.nodes().iter().chain(&nodes[..1]).copied().collect();
    let observer = Observer::start(&daemon, B, &never, &nodes[1..]);
    clone.add_at(nodes[0]).unwrap();
    wait::until("it to give its id", || (clone.count(nodes[0], Path::Identity) > 0).then_some(()));
    polls_pass(&b);
    b.remove(nodes[0]);
    polls_pass(&b);
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    observer.finish("I8");
}

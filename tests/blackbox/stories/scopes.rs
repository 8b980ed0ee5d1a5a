//! Stories of a zone that falls back to the nodes of another zone of its cluster.

use std::{net::IpAddr, time::Duration};

use alternator_dns::simulation::SimulatedCluster;

use super::{KEYS, Observer, Process};
use crate::{
    daemon::{Daemon, zone_with},
    observe::{becomes, becomes_within},
};

/// A scope whose nodes have died is left, and returns, within this time: it is asked about every 3 s, and two probes verify
/// its nodes.
const FALL_BACK: Duration = Duration::from_secs(8);

/// A cluster of two datacenters with two nodes each, and a scope that falls back to the other one.
const EAST_AND_WEST: [(&str, &str); 4] = [("east", "a"), ("east", "a"), ("west", "a"), ("west", "a")];
const EAST_FIRST: &str = "scope = [{ datacenter = \"east\" }, { datacenter = \"west\" }]\n";

#[test]
fn v3_a_zone_falls_back_to_the_nodes_of_another_zone_of_its_cluster_and_returns() {
    for west_scope in ["scope = [{ datacenter = \"west\" }]\n", ""] {
        let cluster = SimulatedCluster::start_in(&EAST_AND_WEST).unwrap();
        let nodes = cluster.nodes();
        let zones = zone_with("east.example", &nodes[..1], cluster.port(), &format!("{KEYS}{EAST_FIRST}"))
            + &zone_with("west.example", &nodes[2..3], cluster.port(), &format!("{KEYS}{west_scope}"));
        east_dies_and_returns(&cluster, &nodes, &zones);
    }
}

/// All of the first datacenter dies, and returns after a restart of ours.
fn east_dies_and_returns(cluster: &SimulatedCluster, nodes: &[IpAddr], zones: &str) {
    let process = Process::new("v3");
    let daemon = Daemon::with_config("v3", &process.config(zones));
    becomes(&daemon, "east.example", &nodes[..2]);
    becomes(&daemon, "west.example", &nodes[2..]);
    for node in &nodes[..2] {
        cluster.crash(*node);
    }
    becomes_within(FALL_BACK, &daemon, "east.example", &nodes[2..]);
    for node in &nodes[..2] {
        cluster.stop(*node);
    }
    process.end(daemon, "east.example", &nodes[2..]);
    let daemon = Daemon::with_config("v3", &process.config(zones));
    let observer = Observer::start(&daemon, "east.example", &[], &[]);
    becomes_within(FALL_BACK, &daemon, "east.example", &nodes[2..]);
    for node in &nodes[..2] {
        cluster.restart(*node).unwrap();
    }
    becomes_within(FALL_BACK, &daemon, "east.example", &nodes[..2]);
    becomes(&daemon, "west.example", &nodes[2..]);
    observer.finish("V3");
}

#[test]
fn v3_with_one_seed_that_is_an_address_in_one_zone_and_a_host_name_in_the_other() {
    // The name "localhost" leads to the first node of the west, and to an IPv6 address where no node is.
    let west = IpAddr::from([127, 0, 0, 1]);
    let others = [(9, 1), (9, 2), (9, 3)].map(|(third, last)| IpAddr::from([127, 0, third, last]));
    let cluster = SimulatedCluster::start_at(&[west, others[0], others[1], others[2]], 0).unwrap();
    let nodes = [others[0], others[1], west, others[2]];
    for (node, (datacenter, rack)) in nodes.iter().zip(EAST_AND_WEST) {
        cluster.place(*node, datacenter, rack);
    }
    let by_name =
        zone_with("west.example", &[west], cluster.port(), &format!("{KEYS}scope = [{{ datacenter = \"west\" }}]\n"));
    let by_name = by_name.replace("\"127.0.0.1\"", "\"localhost\"");
    let zones = zone_with("east.example", &[west], cluster.port(), &format!("{KEYS}{EAST_FIRST}")) + &by_name;
    east_dies_and_returns(&cluster, &nodes, &zones);
}

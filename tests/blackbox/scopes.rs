//! Which part of a cluster is answered.

use std::{net::IpAddr, time::Duration};

use alternator_dns::simulation::{Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{ask, becomes, becomes_within, node_state, see, state, stays, ticks},
    wait,
};

const INTERVAL: Duration = Duration::from_millis(200);

/// The constant above as probes and refresh, and patience for a busy machine.
const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n";

/// Successes until a better scope takes over again, where a test counts them.
const RISE: u64 = 4;

/// Polls that show that something lasts.
const POLLS_OBSERVED: u64 = 15;

fn zone(seeds: &[IpAddr], cluster: &SimulatedCluster, scope: &str) -> String {
    let health = format!("health = {{ interval = \"200ms\", timeout = \"1s\", rise = {RISE} }}\n");
    zone_with("a.example", seeds, cluster.port(), &format!("{KEYS}{health}scope = {scope}\n"))
}

fn start(name: &str, cluster: &SimulatedCluster, scope: &str) -> Daemon {
    Daemon::start(name, &zone(&cluster.nodes()[..1], cluster, scope))
}

#[test]
fn seeds_in_two_datacenters_without_a_scope_disagree() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("east", "b"), ("west", "a"), ("west", "b")]).unwrap();
    let nodes = cluster.nodes();
    let seeds = [nodes[0], nodes[2]];
    let daemon = Daemon::start("apart", &zone_with("a.example", &seeds, cluster.port(), KEYS));
    for line in ["seeds disagree", "of several datacenters and the zone has no scope", "node of another datacenter"] {
        wait::until(&format!("a warning: {line}"), || daemon.log().contains(line).then_some(()));
    }
    becomes(&daemon, "a.example", &nodes[..2]);
    wait::until("the API to say so", || (daemon.zone("a.example.")["seeds_disagree"] == true).then_some(()));
}

#[test]
fn the_first_scope_with_a_healthy_node_wins_and_a_better_one_takes_over_again() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("west", "a"), ("west", "b")]).unwrap();
    let nodes = cluster.nodes();
    let scope = "[{ datacenter = \"west\", rack = \"a\" }, { datacenter = \"west\" }, { datacenter = \"east\" }]";
    let daemon = start("first", &cluster, scope);
    becomes(&daemon, "a.example", &nodes[1..2]);
    cluster.stop(nodes[1]);
    becomes_within(ticks(2, INTERVAL), &daemon, "a.example", &nodes[2..]);
    cluster.crash(nodes[2]);
    becomes_within(ticks(2, INTERVAL), &daemon, "a.example", &nodes[..1]);
    let before = cluster.count(nodes[1], Path::Health);
    cluster.restart(nodes[1]).unwrap();
    // It is listed and verified again before its scope is trusted again.
    becomes_within(ticks(u32::try_from(RISE).unwrap() + 3, INTERVAL), &daemon, "a.example", &nodes[1..2]);
    let probes = cluster.count(nodes[1], Path::Health) - before;
    assert!(probes >= RISE, "the better scope took over after {probes} probes");
    cluster.restart(nodes[2]).unwrap();
    let polls = cluster.total(Path::LocalNodes);
    stays(&daemon, "a.example", &nodes[1..2], "further polls", || {
        cluster.total(Path::LocalNodes) > polls + POLLS_OBSERVED
    });
}

#[test]
fn a_scope_may_name_several_datacenters() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("west", "a"), ("west", "b"), ("north", "a")]).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("union", &cluster, "[{ datacenter = [\"west\", \"north\"] }]");
    becomes(&daemon, "a.example", &nodes[1..]);
    // The zone is degraded until it is known that the servers support scopes.
    wait::until("the zone to be live", || (state(&daemon, "a.example") == "live").then_some(()));
}

#[test]
fn when_no_scope_has_a_node_the_last_answer_stays() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("west", "a"), ("west", "a")]).unwrap();
    let nodes = cluster.nodes();
    let daemon = start("none", &cluster, "[{ datacenter = \"west\", rack = \"a\" }, { datacenter = \"north\" }]");
    becomes(&daemon, "a.example", &nodes[1..]);
    cluster.stop(nodes[1]);
    becomes(&daemon, "a.example", &nodes[2..]);
    // While it is listed, it was up once, as the other: both would be answered.
    wait::until("its end", || node_state(&daemon, "a.example", nodes[1]).is_empty().then_some(()));
    cluster.stop(nodes[2]);
    // The east answers every poll with an empty list.
    let polls = cluster.count(nodes[0], Path::LocalNodes);
    stays(&daemon, "a.example", &nodes[2..], "further polls", || {
        cluster.count(nodes[0], Path::LocalNodes) > polls + POLLS_OBSERVED
    });
    cluster.restart(nodes[1]).unwrap();
    becomes(&daemon, "a.example", &nodes[1..2]);
}

#[test]
fn a_seed_that_knows_no_node_there_is_skipped() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("west", "a"), ("west", "b")]).unwrap();
    let nodes = cluster.nodes();
    cluster.isolate(nodes[0]);
    let daemon = Daemon::start("passed_over", &zone(&nodes[..2], &cluster, "[{ datacenter = \"west\" }]"));
    becomes_within(ticks(2, INTERVAL), &daemon, "a.example", &nodes[1..]);
    assert!(cluster.count(nodes[0], Path::LocalNodes) > 0, "it was asked");
    wait::until("the zone to be live", || (state(&daemon, "a.example") == "live").then_some(()));
}

#[test]
fn servers_that_ignore_the_parameters_make_the_zone_degraded() {
    let cluster = SimulatedCluster::start(2).unwrap();
    for node in cluster.nodes() {
        cluster.place(node, "west", "a");
        cluster.ignore_parameters(node, true);
    }
    let daemon = start("ignored", &cluster, "[{ datacenter = \"west\" }]");
    becomes(&daemon, "a.example", &cluster.nodes());
    wait::until("the zone to be degraded", || (state(&daemon, "a.example") == "degraded").then_some(()));
    for node in cluster.nodes() {
        cluster.ignore_parameters(node, false);
    }
    wait::until("the upgrade to be noticed", || (state(&daemon, "a.example") == "live").then_some(()));
    assert_eq!(see(&daemon, "a.example"), cluster.nodes().into_iter().collect());
}

#[test]
fn an_unfiltered_list_gives_way_to_one_that_is_filtered() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("east", "a"), ("west", "a"), ("west", "a")]).unwrap();
    let nodes = cluster.nodes();
    cluster.ignore_parameters(nodes[0], true);
    let daemon = Daemon::start("gives_way", &zone(&[nodes[0], nodes[2]], &cluster, "[{ datacenter = \"west\" }]"));
    becomes(&daemon, "a.example", &nodes[2..]);
    let polls = cluster.total(Path::LocalNodes);
    stays(&daemon, "a.example", &nodes[2..], "further polls", || {
        cluster.total(Path::LocalNodes) > polls + POLLS_OBSERVED
    });
    // Even when only the server that ignores them is left: something else is known.
    cluster.stop(nodes[3]);
    becomes(&daemon, "a.example", &nodes[2..3]);
    // A node that is only down would be answered again when no node is up.
    wait::until("the stopped node to be listed no more", || {
        node_state(&daemon, "a.example", nodes[3]).is_empty().then_some(())
    });
    cluster.stop(nodes[2]);
    let polls = cluster.count(nodes[0], Path::LocalNodes);
    stays(&daemon, "a.example", &nodes[2..3], "it to be asked", || {
        cluster.count(nodes[0], Path::LocalNodes) > polls + POLLS_OBSERVED
    });
}

#[test]
fn names_are_percent_encoded() {
    let datacenter = "us east & co/1+1=2%41";
    let rack = "rack #1?";
    let cluster = SimulatedCluster::start_in(&[("east", "a"), (datacenter, rack), (datacenter, "other")]).unwrap();
    let nodes = cluster.nodes();
    let scope = format!("[{{ datacenter = \"{datacenter}\", rack = \"{rack}\" }}]");
    let daemon = start("encoded", &cluster, &scope);
    becomes(&daemon, "a.example", &nodes[1..2]);
    let targets: Vec<_> = cluster.requests(nodes[0]).into_iter().map(|request| request.target).collect();
    for target in targets.iter().filter(|target| target.starts_with("/localnodes?")) {
        let (_, query) = target.split_once('?').unwrap();
        assert!(query.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"&=%+-_.~*".contains(&octet)), "{target}");
    }
}

#[test]
fn without_any_node_learnt_seeds_are_no_answer_to_a_scope() {
    let cluster = SimulatedCluster::start_in(&[("east", "a")]).unwrap();
    let daemon = start("unlearnt", &cluster, "[{ datacenter = \"west\" }]");
    wait::until("a few polls", || (cluster.total(Path::LocalNodes) > 3).then_some(()));
    let reply = ask(&daemon, "a.example");
    assert_eq!((&*reply.rcode, reply.extended_errors), ("ServFail", vec![14]), "{:?}", reply.answers);
}

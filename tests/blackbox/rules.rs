//! Address rules: which nodes may be answered, and with which address. Also `max_stale`.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, config, zone_with},
    observe::{ask, becomes, see, ticks},
    wait,
};

const REFRESH: Duration = Duration::from_millis(200);

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"1s\" }\n";

/// RFC 8914: nothing is known yet, or nothing is left.
const NOT_READY: u16 = 14;

fn zone(cluster: &SimulatedCluster, rules: &str) -> String {
    zone_with("a.example", &cluster.nodes()[..1], cluster.port(), &format!("{KEYS}{rules}"))
}

/// Writes other rules to the file, and waits until they are in force.
#[track_caller]
fn edit(daemon: &Daemon, cluster: &SimulatedCluster, rules: &str) {
    fs::write(daemon.config_path(), config(&zone(cluster, rules))).unwrap();
    let (code, _, error) = daemon.reload();
    assert_eq!(code, 0, "{error}");
}

fn answered(daemon: &Daemon) -> Vec<String> {
    see(daemon, "a.example").iter().map(ToString::to_string).collect()
}

fn texts(nodes: &[IpAddr]) -> Vec<String> {
    nodes.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn fails(daemon: &Daemon) {
    let reply = ask(daemon, "a.example");
    assert_eq!((&*reply.rcode, &*reply.extended_errors), ("ServFail", &[NOT_READY][..]), "{:?}", reply.answers);
}

#[test]
fn rules_match_the_listed_address_and_change_the_answered_one() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let nodes = cluster.nodes();
    let rules = format!(
        "allow_nodes = [\"{0}\", \"{1}/32\", \"{2}\"]\nexclude = [\"{1}\"]\nmap = {{ \"{2}\" = \"203.0.113.9\" }}\n",
        nodes[0], nodes[1], nodes[2]
    );
    let daemon = Daemon::start("rules", &zone(&cluster, &rules));
    wait::until("both", || (answered(&daemon) == [nodes[0].to_string(), "203.0.113.9".into()]).then_some(()));
    let shown = daemon.zone("a.example.")["nodes"].as_array().unwrap().clone();
    let of = |node: IpAddr| shown.iter().find(|one| one["address"] == node.to_string()).cloned().unwrap_or_default();
    assert_eq!(of(nodes[2])["answered_as"], "203.0.113.9");
    assert_eq!(of(nodes[2])["state"], "up");
    assert!(of(nodes[0])["answered_as"].is_null());
    let before = [Path::LocalNodes, Path::Health].map(|path| cluster.count(nodes[2], path));
    wait::until("the listed address to be polled and probed", || {
        let now = [Path::LocalNodes, Path::Health].map(|path| cluster.count(nodes[2], path));
        (now[0] > before[0] && now[1] > before[1]).then_some(())
    });
}

#[test]
fn networks_are_mapped_and_duplicates_fold() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let IpAddr::V4(first) = nodes[0] else { panic!("IPv4 is simulated") };
    let [a, b, c, _] = first.octets();
    let rules = format!(
        "map = {{ \"{a}.{b}.{c}.0/24\" = \"203.0.113.0/24\", \"{}\" = \"203.0.113.{}\" }}\n",
        nodes[2],
        first.octets()[3]
    );
    let daemon = Daemon::start("folds", &zone(&cluster, &rules));
    let host = |node: IpAddr| node.to_string().rsplit('.').next().unwrap().to_owned();
    let expected = [nodes[0], nodes[1]].map(|node| format!("203.0.113.{}", host(node)));
    wait::until("two addresses of three nodes", || (answered(&daemon) == expected).then_some(()));
    assert_eq!(ask(&daemon, "a.example").answers.len(), 2, "no address twice");
    assert_eq!(daemon.zone("a.example.")["nodes"].as_array().unwrap().len(), 3);
}

#[test]
fn an_edit_acts_at_once_on_known_nodes_though_the_cluster_is_unreachable() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("edits", &zone(&cluster, ""));
    becomes(&daemon, "a.example", &nodes);
    for &node in &nodes {
        cluster.stop(node);
    }
    // All refuse, so all that were ever up are answered, once the last of them has been probed.
    wait::until("the loss to be noticed", || {
        (daemon.zone("a.example.")["state"] != "live" && answered(&daemon).len() == 3).then_some(())
    });
    edit(&daemon, &cluster, &format!("exclude = [\"{}\"]\n", nodes[0]));
    assert_eq!(answered(&daemon), texts(&nodes[1..]));
    edit(&daemon, &cluster, &format!("allow_nodes = [\"{}\"]\n", nodes[1]));
    assert_eq!(answered(&daemon), texts(&nodes[1..2]));
    edit(&daemon, &cluster, &format!("map = {{ \"{}\" = \"203.0.113.7\" }}\n", nodes[2]));
    let expected = [nodes[0].to_string(), nodes[1].to_string(), "203.0.113.7".into()];
    assert_eq!(answered(&daemon), expected);
    edit(&daemon, &cluster, "allow_nodes = [\"198.51.100.0/24\"]\n");
    fails(&daemon);
    edit(&daemon, &cluster, "");
    assert_eq!(answered(&daemon), texts(&nodes));
}

#[test]
fn rules_that_permit_no_node_give_servfail() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let rules = "allow_nodes = [\"198.51.100.0/24\"]\n";
    let daemon = Daemon::start("nothing", &zone(&cluster, rules));
    wait::until("a list", || daemon.zone("a.example.")["source"].as_str().map(drop));
    fails(&daemon);
    let reply = crate::dns::udp(daemon.address(), &crate::dns::Question::new("a.example", "SOA"));
    assert_eq!(reply.rcode, "NoError", "the zone itself is there");
}

#[test]
fn seeds_that_the_rules_refuse_are_not_answered_while_nothing_is_learnt() {
    let cluster = SimulatedCluster::start(2).unwrap();
    cluster.stop(cluster.node(0));
    let daemon = Daemon::launch("seeds_refused", &config(&zone(&cluster, "allow_nodes = [\"198.51.100.0/24\"]\n")));
    fails(&daemon);
}

#[test]
fn stale_nodes_are_answered_until_max_stale_and_no_longer() {
    const MAX_STALE: Duration = Duration::from_secs(2);
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("max_stale", &zone(&cluster, "max_stale = \"2s\"\n"));
    becomes(&daemon, "a.example", &nodes);
    let lost = Instant::now();
    for &node in &nodes {
        cluster.stop(node);
    }
    // The last list may be one refresh old by now.
    let early = MAX_STALE - REFRESH.mul_f64(1.1);
    wait::within(MAX_STALE + ticks(2, REFRESH), "the end of patience", || {
        let reply = ask(&daemon, "a.example");
        let age = lost.elapsed();
        if reply.rcode == "ServFail" {
            assert!(age > early, "given up after {age:?}");
            assert!(!reply.extended_errors.is_empty(), "and the reply says why");
            return Some(());
        }
        assert!(!reply.answers.is_empty());
        None
    });
    cluster.restart(nodes[1]).unwrap();
    becomes(&daemon, "a.example", &nodes[1..]);
}

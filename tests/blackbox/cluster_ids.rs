//! Zones ask nodes for the ids of their clusters, and leave out those of another one.

use std::{fs, net::IpAddr, path::Path as File, time::Duration};

use alternator_dns::{
    simulation::{Authorization, Path, SimulatedCluster},
    types::ClusterId,
};
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, config, scratch, zone_with},
    http,
    observe::{ask, becomes, node_state, see, state, stays},
    wait,
};

/// A fast refresh, and a long timeout for a busy machine: no node is slow in these tests.
const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n";

/// Probes as fast as polls.
const PROBED: &str = "health = { interval = \"200ms\", timeout = \"1s\" }\n";

/// Probes and polls of a cluster after which it would have been asked for its id.
const REQUESTS_OBSERVED: u64 = 40;

fn zone(name: &str, seeds: &[IpAddr], cluster: &SimulatedCluster, keys: &str) -> String {
    zone_with(name, seeds, cluster.port(), &format!("{KEYS}{PROBED}{keys}"))
}

fn pin(id: Option<ClusterId>) -> String {
    format!("cluster_id = \"{}\"\n", id.unwrap())
}

fn with_state(directory: &File, zones: &str) -> String {
    config(zones).replacen("[server]\n", &format!("[server]\nstate_dir = \"{}\"\n", directory.display()), 1)
}

/// The id in `/api/zones`; empty when none is known.
fn shown_id(daemon: &Daemon, zone: &str) -> String {
    daemon.zone(&format!("{zone}."))["cluster_id"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_shown(daemon: &Daemon, zone: &str, id: Option<ClusterId>) {
    let id = id.unwrap().to_string();
    wait::until("the id to be learned", || (shown_id(daemon, zone) == id).then_some(()));
}

/// Waits until a cluster has been probed and polled many times.
#[track_caller]
fn observe(cluster: &SimulatedCluster) {
    let count = || cluster.total(Path::LocalNodes) + cluster.total(Path::Health);
    let before = count();
    wait::until("many probes and polls", || (count() > before + REQUESTS_OBSERVED).then_some(()));
}

/// Counts requests for lists after this moment.
fn polls_after(cluster: &SimulatedCluster) -> impl FnMut() -> bool {
    let before = cluster.total(Path::LocalNodes);
    move || cluster.total(Path::LocalNodes) > before + REQUESTS_OBSERVED / 2
}

#[test]
fn of_two_recycled_addresses_and_one_that_is_left_the_id_tells_which_is_the_zone_s() {
    for health in [PROBED, "health = false\n"] {
        let ours = SimulatedCluster::start(3).unwrap();
        let other = ours.start_beside(2).unwrap();
        let directory = scratch("ids_tell");
        let zones = zone_with("a.example", &[ours.node(0)], ours.port(), &format!("{KEYS}{health}"));
        let config = with_state(&directory.join("state"), &zones);
        let mut before = Daemon::with_config("ids_tell_before", &config);
        becomes(&before, "a.example", &ours.nodes());
        let id = ours.cluster_id();
        wait_shown(&before, "a.example", id);
        wait::until("the snapshot to have the id", || {
            let text = fs::read_to_string(directory.join("state/nodes.json")).unwrap_or_default();
            text.contains(&id.unwrap().to_string()).then_some(())
        });
        before.signal(Signal::SIGTERM);
        before.wait_exit(Duration::from_secs(5));
        let strangers = other.nodes();
        let [seed, second, left] = ours.nodes()[..] else { panic!("three nodes") };
        for recycled in [seed, second] {
            other.take_over(&ours, recycled).unwrap();
        }
        let after = Daemon::with_config("ids_tell_after", &config);
        wait::until("the node that is left", || {
            let seen = see(&after, "a.example");
            assert!(strangers.iter().all(|stranger| !seen.contains(stranger)), "{seen:?}");
            (seen == [left].into()).then_some(())
        });
        stays(&after, "a.example", &[left], "many polls", polls_after(&ours));
        assert_eq!(shown_id(&after, "a.example"), id.unwrap().to_string());
        drop(after);
        fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn a_node_that_gives_another_id_than_the_file_demands_is_not_answered_even_a_seed() {
    let ours = SimulatedCluster::start(2).unwrap();
    let other = ours.start_beside(3).unwrap();
    let pinned = pin(ours.cluster_id());
    let zones = zone("both.example", &[other.node(0), ours.node(0)], &ours, &pinned)
        + &zone("other.example", &[other.node(0)], &ours, &pinned);
    let daemon = Daemon::start("pinned", &zones);
    becomes(&daemon, "both.example", &ours.nodes());
    wait::until("other.example to have no node", || (ask(&daemon, "other.example").rcode == "ServFail").then_some(()));
    stays(&daemon, "both.example", &ours.nodes(), "many polls", polls_after(&ours));
    let unanswered = ask(&daemon, "other.example");
    assert_eq!((&*unanswered.rcode, unanswered.answers.len()), ("ServFail", 0));
    // One node of the cluster names another one all of a sudden.
    let [first, second] = ours.nodes()[..] else { panic!("two nodes") };
    ours.set_node_cluster_id(second, other.cluster_id());
    ours.stop(second);
    becomes(&daemon, "both.example", &[first]);
    ours.restart(second).unwrap();
    wait::until("it to be foreign", || (node_state(&daemon, "both.example", second) == "foreign").then_some(()));
    stays(&daemon, "both.example", &[first], "many polls", polls_after(&ours));
    assert_eq!(state(&daemon, "both.example"), "contested");
}

#[test]
fn a_mistake_in_cluster_id_ends_with_its_correction() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let file = |keys: &str| config(&zone("a.example", &nodes[..1], &cluster, keys));
    let daemon = Daemon::with_config("mistake", &file(""));
    becomes(&daemon, "a.example", &nodes);
    let wrong = pin(ClusterId::new([7; 16]));
    for correct in [String::new(), pin(cluster.cluster_id())] {
        fs::write(daemon.config_path(), file(&wrong)).unwrap();
        assert_eq!(daemon.reload().0, 0);
        wait::until("no node to be answered", || (ask(&daemon, "a.example").rcode == "ServFail").then_some(()));
        fs::write(daemon.config_path(), file(&correct)).unwrap();
        assert_eq!(daemon.reload().0, 0);
        becomes(&daemon, "a.example", &nodes);
        wait::until("the zone to be live", || (state(&daemon, "a.example") == "live").then_some(()));
        wait_shown(&daemon, "a.example", cluster.cluster_id());
    }
}

#[test]
fn a_cluster_that_refuses_sees_one_unsigned_query_of_all_zones_and_nodes() {
    let cluster = SimulatedCluster::start(5).unwrap();
    cluster.authorize(Authorization::Enforce, &[]);
    let nodes = cluster.nodes();
    let label = "cluster = \"prod\"\n";
    let zones = || -> String {
        let probed = (0..3).map(|n| zone(&format!("z{n}.example"), &nodes[n..], &cluster, label));
        let unprobed = zone_with("unprobed.example", &nodes, cluster.port(), &format!("{KEYS}health = false\n{label}"));
        probed.chain([unprobed]).collect()
    };
    let daemon = Daemon::start("refuses", &zones());
    let names = ["z0.example", "z1.example", "z2.example", "unprobed.example"];
    names.iter().for_each(|name| becomes(&daemon, name, &nodes));
    wait::until("the query", || (cluster.identity_counts().unsigned > 0).then_some(()));
    observe(&cluster);
    // A node that returns, and zones with other keys.
    cluster.stop(nodes[4]);
    names[..3].iter().for_each(|name| becomes(&daemon, name, &nodes[..4]));
    cluster.restart(nodes[4]).unwrap();
    names.iter().for_each(|name| becomes(&daemon, name, &nodes));
    fs::write(
        daemon.config_path(),
        config(&zones().replace("answers = \"all\"", "answers = \"all\"\nmax_stale = \"1h\"")),
    )
    .unwrap();
    assert_eq!(daemon.reload().0, 0);
    observe(&cluster);
    let counts = cluster.identity_counts();
    assert_eq!((counts.unsigned, counts.signed, counts.authentication_failures), (1, 0, 1));
    assert!(names.iter().all(|name| shown_id(&daemon, name).is_empty() && state(&daemon, name) == "live"));
}

#[test]
fn without_identity_no_node_is_asked_for_its_cluster() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let zones = |keys: &str| {
        zone("a.example", &nodes[..1], &cluster, keys)
            + &zone_with("b.example", &nodes[..1], cluster.port(), &format!("{KEYS}health = false\n{keys}"))
    };
    let daemon = Daemon::start("identity_off", &zones("identity = false\n"));
    ["a.example", "b.example"].iter().for_each(|name| becomes(&daemon, name, &nodes));
    observe(&cluster);
    assert_eq!(cluster.total(Path::Identity), 0);
    // The same without the key asks each of them.
    fs::write(daemon.config_path(), config(&zones(""))).unwrap();
    assert_eq!(daemon.reload().0, 0);
    ["a.example", "b.example"].iter().for_each(|name| wait_shown(&daemon, name, cluster.cluster_id()));
    wait::until("each node to be asked", || {
        nodes.iter().all(|&node| cluster.count(node, Path::Identity) > 0).then_some(())
    });
    let (_, page) = http::get(daemon.admin(), "/").unwrap();
    assert!(page.contains(&cluster.cluster_id().unwrap().to_string()), "{page}");
}

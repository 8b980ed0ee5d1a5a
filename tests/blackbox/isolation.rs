//! A fault of one zone does not affect others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Content, Delivery, Path, SimulatedCluster};

use crate::{
    daemon::{Daemon, config, zone, zone_with},
    http, wait,
};

/// These tests measure time and use very many nodes. Side by side they would be slowed by each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that has failed says nothing about the next.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_zone_that_hangs_does_not_delay_another() {
    let _alone = alone();
    let healthy = SimulatedCluster::start(1).unwrap();
    let hung = SimulatedCluster::start(3).unwrap();
    for node in hung.nodes() {
        hung.deliver(node, Path::LocalNodes, Delivery::Hang);
    }
    let slow = zone_with("hung.example", &hung.nodes(), hung.port(), "refresh = \"200ms\"\ntimeout = \"10s\"\n");
    let daemon = Daemon::launch("hung", &config(&(zone("healthy.example", &healthy) + &slow)));
    assert_polled_in_time(&healthy);
    assert_eq!(daemon.zone("hung.example.")["state"], "waiting");
    assert_eq!(daemon.ask("hung.example", "A").ttls(), [2, 2], "two of its seeds are answered meanwhile");
}

/// Waits for thirty polls of a cluster that is polled every 200 ms, and sees that they came in time.
#[track_caller]
fn assert_polled_in_time(cluster: &SimulatedCluster) {
    wait::until("thirty polls", || (cluster.count(cluster.node(0), Path::LocalNodes) > 30).then_some(()));
    let polls: Vec<Instant> = cluster.requests(cluster.node(0)).into_iter().map(|request| request.at).collect();
    let mut gaps: Vec<Duration> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    let median = gaps[gaps.len() / 2];
    assert!((180..=240).contains(&median.as_millis()), "the median gap is {median:?}");
    assert!(gaps[gaps.len() * 9 / 10] < Duration::from_millis(400), "{gaps:?}");
}

#[test]
fn a_node_that_sends_without_end_delays_no_other_zone() {
    let _alone = alone();
    for delivery in [Delivery::EndlessContinue, Delivery::EndlessHead, Delivery::EndlessChunks] {
        let healthy = SimulatedCluster::start(1).unwrap();
        let endless = SimulatedCluster::start(1).unwrap();
        for path in [Path::LocalNodes, Path::Health] {
            endless.deliver(endless.node(0), path, delivery.clone());
        }
        let keys = "refresh = \"200ms\"\nhealth = { interval = \"200ms\", timeout = \"1s\" }\n";
        let bad = zone_with("bad.example", &endless.nodes(), endless.port(), keys);
        let daemon = Daemon::launch("endless", &config(&(zone("healthy.example", &healthy) + &bad)));
        assert_polled_in_time(&healthy);
        let refused = "alternator_dns_polls_total{zone=\"bad.example.\",result=";
        let (too_large, broken) = (format!("{refused}\"too_large\"}}"), format!("{refused}\"broken\"}}"));
        assert!(daemon.metric(&too_large) + daemon.metric(&broken) > 10.0, "{delivery:?}");
    }
}

#[test]
fn a_living_seed_is_found_among_five_hundred_dead_nodes() {
    let _alone = alone();
    let dead = SimulatedCluster::start(500).unwrap();
    let living = SimulatedCluster::start_at(
        &["127.98.7.1", "127.98.7.2", "127.98.7.3", "127.98.7.4"].map(|a| a.parse().unwrap()),
        dead.port(),
    )
    .unwrap();
    let seed = living.node(3);
    let entries = |nodes: &[std::net::IpAddr]| Content::Listing(nodes.iter().map(ToString::to_string).collect());
    let all = [dead.nodes(), living.nodes()].concat();
    for (cluster, node) in
        dead.nodes().iter().map(|node| (&dead, node)).chain(living.nodes().iter().map(|node| (&living, node)))
    {
        cluster.say(*node, Path::LocalNodes, entries(&all));
    }
    let keys = "refresh = \"1s\"\ntimeout = \"1s\"\nanswers = \"all\"\n";
    let daemon = Daemon::start("needle", &zone_with("a.example", &[seed], dead.port(), keys));
    wait::until("all nodes", || {
        (crate::dns::tcp(daemon.address(), &crate::dns::Question::new("a.example", "A")).answers.len() == all.len())
            .then_some(())
    });
    for node in dead.nodes() {
        dead.deliver(node, Path::LocalNodes, Delivery::Hang);
    }
    for node in living.nodes() {
        living.say(node, Path::LocalNodes, entries(&living.nodes()));
    }
    wait::within(Duration::from_secs(10), "the living nodes alone", || {
        (daemon.ask("a.example", "A").answers.len() == living.nodes().len()).then_some(())
    });
}

#[test]
fn a_thousand_zones_are_ready_answered_and_polled_on_time() {
    let _alone = alone();
    let clusters: Vec<_> = (0..10).map(|_| SimulatedCluster::start(3).unwrap()).collect();
    let keys = "refresh = \"10s\"\n";
    let zones: String = (0..1000)
        .map(|n| zone_with(&format!("z{n}.example"), &[clusters[n % 10].node(0)], clusters[n % 10].port(), keys))
        .collect();
    let daemon = Daemon::start("thousand", &zones);
    assert_eq!(http::get(daemon.admin(), "/readyz").unwrap().0, 200);
    wait::seldom("every zone to be live", || {
        daemon.api()["zones"].as_array().unwrap().iter().all(|zone| zone["state"] == "live").then_some(())
    });
    for n in 0..1000 {
        let data = daemon.ask(&format!("z{n}.example"), "A").data();
        assert!(clusters[n % 10].nodes().iter().any(|node| node.to_string() == data[0]), "{data:?}");
    }
    let total = || clusters.iter().map(|cluster| cluster.total(Path::LocalNodes)).sum::<u64>();
    // The zones were first polled within 100 ms, so polls come in bunches. Three thousand polls take three intervals only if
    // they are counted from one point of a bunch to the same point of another.
    let first = total();
    wait::until("a thousand polls", || (total() >= first + 1000).then_some(()));
    let start = Instant::now();
    let before = total();
    wait::until("three thousand polls", || (total() >= before + 3000).then_some(()));
    let elapsed = start.elapsed().as_secs_f64();
    assert!((25.0..36.0).contains(&elapsed), "1000 zones every 10 s are 3000 polls in 30 s, not in {elapsed:.1} s");
    let late = daemon.api()["zones"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|zone| zone["last_success_seconds_ago"].as_f64().unwrap() > 15.0)
        .count();
    assert_eq!(late, 0, "every zone is polled at its interval");
}

//! Which nodes are polled, and when.

use std::time::{Duration, Instant};

use alternator_dns::{
    config::{Config, node_loads},
    simulation::{Content, Path, SimulatedCluster},
};

use crate::{
    daemon::{Daemon, zone, zone_with},
    wait,
};

#[test]
fn seeds_stay_candidates_indefinitely() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let seed = cluster.node(3);
    // The seed lists others only, as one of another datacenter would.
    let others: Vec<_> = cluster.nodes()[..3].iter().map(ToString::to_string).collect();
    for node in cluster.nodes() {
        cluster.say(node, Path::LocalNodes, Content::Listing(others.clone()));
    }
    let daemon = Daemon::start("seeds", &zone_with("a.example", &[seed], cluster.port(), "refresh = \"200ms\"\n"));
    wait::until("the listed nodes", || (daemon.nodes("a.example") == others).then_some(()));
    for node in &cluster.nodes()[..3] {
        cluster.stop(*node);
    }
    let before = cluster.count(seed, Path::LocalNodes);
    wait::until("the seed to be asked again", || (cluster.count(seed, Path::LocalNodes) > before + 3).then_some(()));
}

#[test]
fn the_first_seed_is_asked_first_and_a_dead_one_costs_little() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let dead = cluster.node(0);
    let living = cluster.node(1);
    cluster.stop(dead);
    let daemon = Daemon::start("order", &zone_with("a.example", &[dead, living], cluster.port(), ""));
    wait::within(Duration::from_secs(2), "the living seed", || {
        (daemon.zone("a.example.")["source"] == living.to_string()).then_some(())
    });
}

#[test]
fn host_name_seeds_are_resolved() {
    let Ok(cluster) = SimulatedCluster::start_at(&["127.0.0.1".parse().unwrap()], 0) else { panic!("loopback") };
    let zones = format!(
        "[zones.\"a.example\"]\nseeds = [\"no-such-host.invalid\", \"localhost\"]\nport = {}\n",
        cluster.port()
    );
    let daemon = Daemon::start("hosts", &zones);
    wait::until("the node behind the name", || (daemon.ask("a.example", "A").data() == ["127.0.0.1"]).then_some(()));
    assert_eq!(daemon.zone("a.example.")["state"], "live");
}

#[test]
fn proxy_variables_are_ignored() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let proxy = SimulatedCluster::start(1).unwrap();
    let directory = crate::daemon::scratch("proxy");
    let file = directory.join("config.toml");
    std::fs::write(&file, crate::daemon::config(&zone("a.example", &cluster))).unwrap();
    let through = format!("http://{}:{}", proxy.node(0), proxy.port());
    let daemon = Daemon::launch_with(
        directory,
        &file,
        &[("http_proxy", &through), ("HTTP_PROXY", &through), ("ALL_PROXY", &through)],
    );
    wait::until("the node", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    assert_eq!(proxy.connections(proxy.node(0)), 0);
}

#[test]
fn changes_are_logged_and_ticks_are_not() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let directory = crate::daemon::scratch("log");
    let file = directory.join("config.toml");
    std::fs::write(&file, crate::daemon::config(&zone("a.example", &cluster))).unwrap();
    let mut daemon = Daemon::launch_with(directory, &file, &[("RUST_LOG", "info")]);
    daemon.wait_ready();
    wait::until("both nodes", || (daemon.nodes("a.example").len() == 2).then_some(()));
    wait::until("the last line of the start", || daemon.log().contains(" ready ").then_some(()));
    let lines = daemon.log().lines().count();
    let polls = cluster.total(Path::LocalNodes);
    wait::until("twenty more polls", || (cluster.total(Path::LocalNodes) > polls + 20).then_some(()));
    daemon.ask("a.example", "A");
    assert_eq!(daemon.log().lines().count(), lines, "{}", daemon.log());
    let gone = cluster.node(1);
    cluster.stop(gone);
    let line = wait::until("a line about the node", || {
        daemon.log().lines().find(|line| line.contains("node left")).map(str::to_owned)
    });
    assert!(line.contains("a.example.") && line.contains(&gone.to_string()), "{line}");
}

#[test]
fn nodes_get_as_many_requests_as_check_says() {
    const MEASURED: Duration = Duration::from_secs(8);
    let cluster = SimulatedCluster::start(3).unwrap();
    let keys =
        |refresh: &str| format!("refresh = \"{refresh}\"\nhealth = {{ interval = \"400ms\", timeout = \"300ms\" }}\n");
    let zone = |name: &str, refresh: &str| zone_with(name, &cluster.nodes(), cluster.port(), &keys(refresh));
    let file = crate::daemon::config(&(zone("a.example", "200ms") + &zone("b.example", "300ms")));
    let daemon = Daemon::with_config("load", &file);
    for name in ["a.example", "b.example"] {
        wait::until("the nodes", || (daemon.nodes(name).len() == 3).then_some(()));
    }
    let config = Config::parse(std::path::Path::new("config.toml"), file.as_bytes()).unwrap();
    let loads = node_loads(&config.zones);
    let requests = || cluster.total(Path::LocalNodes) + cluster.total(Path::Health);
    let (start, before) = (Instant::now(), requests());
    wait::until("the time to pass", || (start.elapsed() >= MEASURED).then_some(()));
    let measured = (requests() - before) as f64 / start.elapsed().as_secs_f64() / 3.0;
    let stated = loads[0].total();
    eprintln!("{measured:.2} requests a second to each node, {stated:.2} are stated");
    // A busy machine sends fewer.
    assert!(measured < stated * 1.15 && measured > stated * 0.6, "{measured} instead of {stated}");
    for node in daemon.zone("a.example.")["nodes"].as_array().unwrap() {
        // The start is in it, when nodes are asked more.
        let shown = node["requests_per_second"].as_f64().unwrap();
        assert!(shown < stated * 1.6 && shown > stated * 0.5, "{shown} of {node} instead of {stated}");
    }
    let highest = daemon.metric("alternator_dns_node_requests_per_second{zone=\"b.example.\"}");
    assert!(highest < stated * 1.6 && highest > stated * 0.5, "{highest} instead of {stated}");
    let probes = daemon.metric("alternator_dns_node_requests_total{kind=\"health\"}");
    let (sent, got) = (probes as u64, cluster.total(Path::Health));
    assert!(sent.abs_diff(got) <= 6, "{sent} and {got}: a request may be on its way between both");
}

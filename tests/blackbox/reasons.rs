//! Why a zone or a node is in its state: in the API, on the page, in the metrics and in the log.

use std::{fs, net::IpAddr};

use alternator_dns::simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster};
use serde_json::Value;

use crate::{
    daemon::{Daemon, config, zone_with},
    http,
    observe::{becomes, see, state},
    wait,
};

const ZONE: &str = "a.example";

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"1s\" }\n";

/// The file for a zone whose only seed is the first node, with further keys.
fn file(cluster: &SimulatedCluster, keys: &str) -> String {
    zone_with(ZONE, &cluster.nodes()[..1], cluster.port(), &format!("{KEYS}{keys}"))
}

/// Puts another file in force.
#[track_caller]
fn edit(daemon: &Daemon, cluster: &SimulatedCluster, keys: &str) {
    fs::write(daemon.config_path(), config(&file(cluster, keys))).unwrap();
    let (code, _, error) = daemon.reload();
    assert_eq!(code, 0, "{error}");
}

fn zone(daemon: &Daemon) -> Value {
    daemon.zone(&format!("{ZONE}."))
}

/// A node in `/api/zones`; null when it is not listed.
fn node(daemon: &Daemon, address: IpAddr) -> Value {
    let nodes = zone(daemon)["nodes"].as_array().unwrap().clone();
    nodes.into_iter().find(|node| node["address"] == address.to_string()).unwrap_or_default()
}

/// Waits until a node has this reason, and returns the node.
#[track_caller]
fn node_with(daemon: &Daemon, address: IpAddr, reason: &str) -> Value {
    wait::until(&format!("{address} {reason}"), || {
        Some(node(daemon, address)).filter(|node| node["reason"].as_str().is_some_and(|text| text.contains(reason)))
    })
}

/// Waits until the zone has this state.
#[track_caller]
fn zone_in(daemon: &Daemon, wanted: &str) -> Value {
    wait::until(&format!("the zone to be {wanted}"), || Some(zone(daemon)).filter(|zone| zone["state"] == wanted))
}

#[track_caller]
fn assert_reason(zone: &Value, expected: &str) {
    let reason = zone["reason"].as_str().unwrap_or_default();
    assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
    assert!(zone["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{zone}");
}

/// Waits for a line of the log that has all these parts.
#[track_caller]
fn logged(daemon: &Daemon, parts: &[&str]) {
    wait::until(&format!("a line with {parts:?}"), || {
        daemon.log().lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

fn answerable(daemon: &Daemon) -> f64 {
    daemon.metric(&format!("alternator_dns_zone_answerable_nodes{{zone=\"{ZONE}.\"}}"))
}

fn nodes_in(daemon: &Daemon, state: &str) -> f64 {
    daemon.metric(&format!("alternator_dns_nodes{{zone=\"{ZONE}.\",state=\"{state}\"}}"))
}

#[test]
fn a_node_that_is_down_says_how_its_probes_end() {
    let cluster = SimulatedCluster::start(4).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("down", &file(&cluster, ""));
    becomes(&daemon, ZONE, &nodes);
    let up = node(&daemon, nodes[0]);
    assert_eq!((&up["state"], &up["answered"], &up["reason"]), (&"up".into(), &true.into(), &Value::Null));
    let probed =
        wait::until("a probe", || Some(node(&daemon, nodes[3])["last_probe"].clone()).filter(|it| !it.is_null()));
    assert_eq!(probed["result"], "ok");
    assert!(probed["milliseconds"].as_f64().is_some_and(|duration| duration < 1000.0), "{probed}");
    assert!(probed["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{probed}");
    cluster.crash(nodes[1]);
    let refused = node_with(&daemon, nodes[1], "refused the connection");
    assert_eq!((&refused["state"], &refused["answered"]), (&"down".into(), &false.into()));
    assert_eq!(refused["last_probe"]["result"], "refused");
    cluster.say(nodes[2], Path::Health, Content::Reply(HttpReply::status(503)));
    node_with(&daemon, nodes[2], "answered HTTP 503");
    cluster.deliver(nodes[3], Path::Health, Delivery::Hang);
    node_with(&daemon, nodes[3], "timed out after 1s");
    let probes =
        |result| daemon.metric(&format!("alternator_dns_probes_total{{zone=\"{ZONE}.\",result=\"{result}\"}}"));
    for result in ["ok", "refused", "status", "timeout"] {
        assert!(probes(result) >= 1.0, "{result}");
    }
    assert_eq!(nodes_in(&daemon, "down"), 3.0);
}

#[test]
fn an_excluded_node_is_shown_as_excluded_and_rules_that_leave_nothing_as_unanswered() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("excluded", &file(&cluster, ""));
    becomes(&daemon, ZONE, &nodes);
    assert_eq!(answerable(&daemon), 3.0);
    edit(&daemon, &cluster, &format!("exclude = [\"{}\"]\n", nodes[0]));
    let excluded = node(&daemon, nodes[0]);
    assert_eq!((&excluded["state"], &excluded["answered"]), (&"excluded".into(), &false.into()));
    assert_eq!(excluded["reason"], "is in exclude");
    assert_eq!((nodes_in(&daemon, "excluded"), nodes_in(&daemon, "up"), answerable(&daemon)), (1.0, 2.0, 2.0));
    let answers: Vec<_> = see(&daemon, ZONE).iter().map(|address| Value::from(address.to_string())).collect();
    assert_eq!(zone(&daemon)["answers"].as_array().unwrap(), &answers, "the API shows what is answered");
    let page = http::get(daemon.admin(), "/").unwrap().1;
    assert!(page.contains(&format!("{} excluded", nodes[0])), "{page}");
    edit(&daemon, &cluster, "allow_nodes = [\"198.51.100.0/24\"]\n");
    let unanswered = zone(&daemon);
    assert_eq!(unanswered["state"], "unanswered");
    assert_reason(&unanswered, "is not in allow_nodes");
    assert_eq!((unanswered["answers"].as_array().unwrap().len(), answerable(&daemon)), (0, 0.0));
    assert_eq!(daemon.metric(&format!("alternator_dns_zone_state{{zone=\"{ZONE}.\",state=\"unanswered\"}}")), 1.0);
    let page = http::get(daemon.admin(), "/").unwrap().1;
    assert!(page.contains("clients get SERVFAIL") && !page.contains("A degraded zone is answered"), "{page}");
    logged(&daemon, &["WARN", "to=unanswered", "is not in allow_nodes"]);
    edit(&daemon, &cluster, "");
    logged(&daemon, &["INFO", "from=unanswered to=live"]);
}

#[test]
fn a_first_poll_that_fails_is_a_warning_with_its_cause_and_seeds_do_not_join() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let seed = cluster.node(0);
    cluster.stop(seed);
    let nowhere = "[zones.\"none.example\"]\nseeds = [\"no-such-host.invalid\"]\n";
    let daemon = Daemon::with_config("first", &config(&(file(&cluster, "") + nowhere)));
    logged(&daemon, &["WARN", ZONE, "the first poll has failed", "refused the connection"]);
    let waiting = zone(&daemon);
    assert_eq!((&waiting["state"], answerable(&daemon)), (&"waiting".into(), 1.0));
    assert_reason(&waiting, "refused the connection");
    logged(&daemon, &["WARN", "none.example", "to=unanswered", "no-such-host.invalid"]);
    assert_eq!(daemon.zone("none.example.")["state"], "unanswered");
    assert!(!daemon.log().contains("node joined"), "{}", daemon.log());
    cluster.restart(seed).unwrap();
    logged(&daemon, &["INFO", "from=waiting to=live"]);
    logged(&daemon, &["INFO", "node joined", &seed.to_string()]);
}

#[test]
fn nodes_that_are_answered_because_none_is_up_have_not_joined() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("open", &file(&cluster, ""));
    let joined = || daemon.log().lines().filter(|line| line.contains("node joined")).count();
    wait::until("both to join", || (joined() == 2).then_some(()));
    cluster.crash(nodes[1]);
    logged(&daemon, &["INFO", "node left", &nodes[1].to_string(), "now=down"]);
    cluster.crash(nodes[0]);
    becomes(&daemon, ZONE, &nodes);
    cluster.restart(nodes[0]).unwrap();
    becomes(&daemon, ZONE, &nodes[..1]);
    assert_eq!(joined(), 2, "{}", daemon.log());
    cluster.restart(nodes[1]).unwrap();
    wait::until("it to join again", || (joined() == 3).then_some(()));
}

#[test]
fn a_stale_zone_and_one_that_has_expired_say_since_when_and_why() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("expired", &file(&cluster, "max_stale = \"8s\"\n"));
    becomes(&daemon, ZONE, &cluster.nodes());
    for node in cluster.nodes() {
        cluster.deliver(node, Path::LocalNodes, Delivery::Close);
    }
    let stale = zone_in(&daemon, "stale");
    assert_reason(&stale, "no node sends a usable list: ");
    assert!(stale["last_error"].is_string(), "{stale}");
    logged(&daemon, &["WARN", "to=stale", "no node sends a usable list"]);
    let unanswered = zone_in(&daemon, "unanswered");
    assert_reason(&unanswered, "no node has sent a usable list within max_stale");
    assert_ne!(stale["since"], unanswered["since"]);
    logged(&daemon, &["WARN", "from=stale to=unanswered", "max_stale"]);
    cluster.nodes().into_iter().for_each(|node| cluster.heal(node));
    logged(&daemon, &["INFO", "from=unanswered to=live"]);
    assert_eq!(zone(&daemon)["reason"], Value::Null);
}

#[test]
fn a_fallback_scope_in_force_is_degraded_and_named() {
    let cluster = SimulatedCluster::start_in(&[("east", "a"), ("west", "a"), ("west", "b")]).unwrap();
    let nodes = cluster.nodes();
    let scope = "scope = [{ datacenter = \"west\", rack = \"a\" }, { datacenter = \"west\" }]\n";
    let daemon = Daemon::start("fallback", &file(&cluster, scope));
    becomes(&daemon, ZONE, &nodes[1..2]);
    let first = serde_json::json!({ "datacenter": "west", "rack": "a" });
    // The scope is shown at the end of the poll.
    wait::until("the first scope", || (zone_in(&daemon, "live")["scope"] == first).then_some(()));
    cluster.stop(nodes[1]);
    becomes(&daemon, ZONE, &nodes[2..]);
    let fallback = zone_in(&daemon, "degraded");
    assert_reason(&fallback, "scope 2 is answered, because no better one has a healthy node: datacenter west");
    assert_eq!(
        wait::until("the scope", || Some(zone(&daemon)["scope"].clone()).filter(|scope| scope.get("rack").is_none())),
        serde_json::json!({ "datacenter": "west" })
    );
    logged(&daemon, &["WARN", "to=degraded", "scope 2 is answered"]);
    cluster.restart(nodes[1]).unwrap();
    becomes(&daemon, ZONE, &nodes[1..2]);
    logged(&daemon, &["INFO", "from=degraded to=live"]);
}

#[test]
fn a_contested_zone_names_the_nodes_that_disagree() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("contested", &file(&cluster, ""));
    becomes(&daemon, ZONE, &nodes);
    cluster.isolate(nodes[2]);
    let contested = zone_in(&daemon, "contested");
    assert_reason(&contested, &nodes[2].to_string());
    logged(&daemon, &["WARN", "to=contested", &nodes[2].to_string()]);
    cluster.heal(nodes[2]);
    logged(&daemon, &["INFO", "from=contested to=live"]);
}

#[test]
fn a_new_node_says_what_it_waits_for() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let nodes = cluster.nodes();
    let daemon = Daemon::start("new", &file(&cluster, ""));
    becomes(&daemon, ZONE, &nodes);
    let added = cluster.add().unwrap();
    cluster.crash(added);
    let new = node_with(&daemon, added, "refused the connection");
    assert_eq!(new["answered"], false);
    assert_eq!(state(&daemon, ZONE), "live");
}

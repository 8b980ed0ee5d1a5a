//! `alternator-dns history`: the configurations that were applied or refused, and the changes of a zone.

use std::fs;

use alternator_dns::simulation::SimulatedCluster;
use serde_json::Value;

use crate::{
    daemon::{Daemon, config, zone_with},
    http,
    observe::becomes,
    wait,
};

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"400ms\" }\n";

fn file(cluster: &SimulatedCluster, keys: &str) -> String {
    config(&zone_with("a.example", &[cluster.node(0)], cluster.port(), &format!("{KEYS}{keys}")))
}

#[test]
fn history_shows_what_was_applied_and_refused_by_zone_and_key() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("history", &file(&cluster, ""));
    let first = daemon.api()["config"]["hash"].as_str().unwrap().to_owned();
    fs::write(daemon.config_path(), file(&cluster, "ttl = \"bad\"\n")).unwrap();
    assert_eq!(daemon.reload().0, 78);
    let further = zone_with("b.example", &[cluster.node(0)], cluster.port(), KEYS);
    fs::write(daemon.config_path(), file(&cluster, "max_stale = \"1h\"\n") + &further).unwrap();
    let (code, stdout, stderr) = daemon.reload();
    assert_eq!(code, 0, "{stderr}");
    let changes = "added b.example.; changed a.example. (max_stale)";
    assert!(stdout.contains(changes), "{stdout}");
    // Another thread writes the log.
    wait::until("the log to say it too", || daemon.log().contains(changes).then_some(()));
    let second = daemon.api()["config"]["hash"].as_str().unwrap().to_owned();
    let (code, stdout, stderr) = daemon.command(&["history"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let lines: Vec<&str> = stdout.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(lines[0], format!("process {} with the file {}:", daemon.pid(), daemon.config_path().display()));
    assert!(lines[1].ends_with(&format!("  {first}  applied  added a.example.")), "{stdout}");
    assert!(lines[2].contains("  refused  ") && lines[2].contains("config.toml:"), "{stdout}");
    assert!(lines[3].ends_with(&format!("  {second}  applied  {changes}")), "{stdout}");
    let json: Value = serde_json::from_str(&daemon.command(&["history", "--json"]).1).unwrap();
    let outcomes: Vec<_> =
        json["configurations"].as_array().unwrap().iter().map(|event| event["outcome"].clone()).collect();
    assert_eq!(outcomes, ["applied", "refused", "applied"]);
}

#[test]
fn history_of_a_zone_has_nodes_that_are_listed_no_more() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = Daemon::with_config("history-zone", &file(&cluster, ""));
    becomes(&daemon, "a.example", &cluster.nodes());
    let [gone, excluded] = [cluster.node(2), cluster.node(1)];
    cluster.remove(gone);
    let history = || daemon.command(&["history", "a.example"]).1;
    let text =
        wait::until("the node to leave", || Some(history()).filter(|text| text.contains(&format!("{gone} left"))));
    assert!(text.contains(": the zone a.example.\n") && text.contains(&format!("{gone} joined")), "{text}");
    let left = text.lines().find(|line| line.contains(&format!("{gone} left"))).unwrap();
    assert!(left.contains("is not in the list of 127."), "{text}");
    assert!(text.contains("the zone waiting -> live"), "{text}");
    fs::write(daemon.config_path(), file(&cluster, &format!("exclude = [\"{excluded}\"]\n"))).unwrap();
    assert_eq!(daemon.reload().0, 0);
    let excluded = format!("{excluded} up -> excluded: is in exclude");
    wait::until("the change of a rule", || history().contains(&excluded).then_some(()));
    let path = "/api/history?zone=a.example";
    let (status, json) = http::get(daemon.admin(), path).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &json["zone"]), (200, &Value::from("a.example.")));
    assert!(json["changes"].as_array().unwrap().iter().any(|change| change["change"] == "left"), "{json}");
    let (code, _, stderr) = daemon.command(&["history", "b.example"]);
    assert_eq!((code, stderr.trim()), (1, "no zone has this name; `alternator-dns status` lists the zones"));
    assert_eq!(http::get(daemon.admin(), "/api/history?zone=a..b").unwrap().0, 422);
}

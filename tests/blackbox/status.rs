//! `alternator-dns status`: the zones of a running server, the worst first, and whether two servers agree.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use alternator_dns::simulation::SimulatedCluster;
use serde_json::Value;

use crate::{
    daemon::{Daemon, command, config, zone_with},
    observe::{becomes, state},
    wait,
};

/// A zone that is answered with all nodes.
fn zone(name: &str, cluster: &SimulatedCluster) -> String {
    let keys = "refresh = \"200ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\n";
    zone_with(name, &[cluster.node(0)], cluster.port(), keys)
}

/// A zone that can be answered with nothing: its rules let no node through.
fn unanswered(name: &str, cluster: &SimulatedCluster) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), "refresh = \"200ms\"\nallow_nodes = [\"192.0.2.0/24\"]\n")
}

#[test]
fn status_shows_all_zones_worst_first_and_fails_while_one_is_unanswered() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let zones = zone("a.example", &cluster) + &unanswered("b.example", &cluster);
    let daemon = Daemon::start("status", &zones);
    becomes(&daemon, "a.example", &cluster.nodes());
    wait::until("no node of the other zone", || (state(&daemon, "b.example") == "unanswered").then_some(()));
    let (code, stdout, stderr) = daemon.command(&["status"]);
    assert_eq!((code, stderr.trim()), (1, "clients get no address of 1 zone"), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    let hash = daemon.api()["config"]["hash"].as_str().unwrap().to_owned();
    let server =
        format!("process {} with the file {}: configuration {hash}", daemon.pid(), daemon.config_path().display());
    assert!(lines[0].starts_with(&server), "{stdout}");
    assert_eq!(lines[1], "2 zones: 1 unanswered, 1 live");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[2]), ["ZONE", "STATE", "NODES", "SINCE", "REASON"]);
    assert_eq!(words(lines[3])[..3], ["b.example.", "unanswered", "0/2"]);
    assert!(lines[3].contains("the zone's rules let no node through"), "{stdout}");
    assert_eq!(words(lines[4])[..3], ["a.example.", "live", "2/2"]);
    assert!(!stdout.contains('\u{1b}'), "no colours in a pipe: {stdout:?}");

    let (code, json, _) = daemon.command(&["status", "--json"]);
    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, document["zones"].as_array().unwrap().len()), (1, 2));

    let admin = format!("http://{}", daemon.admin());
    let far = command(&["status", "--admin", &admin]).env("RUNTIME_DIRECTORY", "/nonexistent").output().unwrap();
    let far = String::from_utf8_lossy(&far.stdout).into_owned();
    assert!(far.starts_with(&server) && far.contains("2 zones: 1 unanswered, 1 live"), "{far}");
}

#[test]
fn status_says_that_an_older_configuration_is_served_and_works_without_admin() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let config = format!("[server]\nlisten = [\"127.0.0.1:0\"]\n\n{}", zone("a.example", &cluster));
    let daemon = Daemon::with_config("status-refused", &config);
    let live = || daemon.command(&["status"]);
    let (_, stdout, _) =
        wait::until("a live zone", || Some(live()).filter(|(code, out, _)| *code == 0 && out.contains(" live ")));
    assert!(!stdout.contains("OLDER"), "{stdout}");
    fs::write(daemon.config_path(), config.replace("seeds", "sedes")).unwrap();
    assert_eq!(daemon.reload().0, 78);
    let (code, stdout, stderr) = daemon.command(&["status"]);
    assert_eq!(code, 1, "{stdout}");
    let first = stdout.lines().next().unwrap();
    assert!(first.contains("AN OLDER CONFIGURATION THAN THE FILE IS SERVED"), "{stdout}");
    assert!(stdout.contains("sedes") && stderr.contains("is refused"), "{stdout}{stderr}");
    let socket = daemon.config_path().with_file_name("control.sock");
    let mut named = command(&["status", "--socket"]);
    let named = named.arg(&socket).env("RUNTIME_DIRECTORY", "/nonexistent").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&named.stderr), stderr);
}

#[test]
fn status_compares_two_servers() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let file = config(&zone("a.example", &cluster));
    let [one, other] = ["one", "other"].map(|name| Daemon::with_config(name, &file));
    for daemon in [&one, &other] {
        becomes(daemon, "a.example", &cluster.nodes());
    }
    let admin = format!("http://{}", other.admin());
    let (code, stdout, stderr) = one.command(&["status", "--compare", &admin]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains(&format!("process {} with the file", one.pid())), "{stdout}");
    assert!(stdout.contains(&format!("{admin}, process {} with the file", other.pid())), "{stdout}");
    let node = cluster.node(1).to_string();
    assert_eq!(other.command(&["drain", &node, "--for", "1h"]).0, 0);
    let (code, stdout, _) = one.command(&["status", "--compare", &admin]);
    assert!(code == 1 && stdout.contains(&format!("drained only there: {node} in all zones")), "{stdout}");
    assert_eq!(other.command(&["undrain", &node]).0, 0);
    let edited = format!("{file}exclude = [\"{}\"]\n{}", cluster.node(1), zone("b.example", &cluster));
    fs::write(other.config_path(), edited).unwrap();
    assert_eq!(other.reload().0, 0);
    let (code, stdout, stderr) = one.command(&["status", "--compare", &admin]);
    assert_eq!((code, stderr.trim()), (1, "the servers have 3 differences"), "{stdout}");
    let only_here = format!("a.example. is answered with {} only here", cluster.node(1));
    assert!(stdout.contains(&only_here) && stdout.contains("b.example. is a zone only there"), "{stdout}");
    let hash = one.api()["config"]["hash"].as_str().unwrap().to_owned();
    assert!(stdout.contains(&format!("configuration: {hash} here, ")), "{stdout}");
    drop(other);
    let (code, _, stderr) = one.command(&["status", "--compare", &admin]);
    assert!(code == 1 && stderr.starts_with(&format!("cannot read from {admin}: ")), "{stderr}");
}

#[test]
fn status_watches_until_it_is_ended() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("status-watch", &zone("a.example", &cluster));
    becomes(&daemon, "a.example", &cluster.nodes());
    let socket = daemon.config_path().with_file_name("control.sock");
    let mut watching = command(&["status", "--watch", "--socket"]).arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("a.example.") && line.contains(" 2/2 ")));
    cluster.stop(cluster.node(1));
    let changed = lines.find(|line| line.starts_with("a.example.") && !line.contains(" 2/2 ")).unwrap();
    assert!(changed.contains(" 1/"), "{changed}");
    drop(daemon);
    assert!(lines.any(|line| line.contains("no server is running")), "it goes on");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn status_of_no_server_and_bad_usage_say_so() {
    for arguments in
        [&["status", "--admin", "10.0.0.2:9153"][..], &["status", "--compare", "https://a"], &["status", "x"]]
    {
        assert_eq!(command(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    let output = command(&["status"]).env("RUNTIME_DIRECTORY", "/nonexistent").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && stderr.contains("no server is running"), "{stderr}");
}

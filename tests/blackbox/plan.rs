//! `alternator-dns plan`: what a reload would change is what it then changes.

use std::{
    fs,
    io::Write as _,
    process::{Output, Stdio},
};

use alternator_dns::simulation::SimulatedCluster;
use serde_json::Value;

use crate::{
    daemon::{Daemon, command, config, zone_with},
    observe::{ask, becomes, see},
};

const KEYS: &str = "refresh = \"200ms\"\ntimeout = \"200ms\"\nanswers = \"all\"\n";

fn zone(name: &str, cluster: &SimulatedCluster, keys: &str) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), &format!("{KEYS}{keys}"))
}

/// The plan of a file that is read from standard input.
fn plan_of(daemon: &Daemon, text: &str) -> (i32, String, String) {
    let directory = daemon.config_path().parent().unwrap().to_owned();
    let mut plan = command(&["plan", "-"]);
    plan.env("RUNTIME_DIRECTORY", directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = plan.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_plan_says_what_a_reload_then_does() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let [first, second, excluded] = [0, 1, 2].map(|index| cluster.node(index));
    let old = config(
        &(zone("a.example", &cluster, "") + &zone("b.example", &cluster, "") + &zone("c.example", &cluster, "")),
    );
    let daemon = Daemon::with_config("plan", &old);
    for name in ["a.example", "b.example", "c.example"] {
        becomes(&daemon, name, &cluster.nodes());
    }
    let (code, stdout, stderr) = daemon.command(&["plan"]);
    let file = daemon.config_path();
    let server = format!("process {} with the file {}: a reload of ", daemon.pid(), file.display());
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.starts_with(&format!("{server}{} would change nothing\n", file.display())), "{stdout}");

    let zones = zone("a.example", &cluster, &format!("exclude = [\"{excluded}\"]\nttl = \"9s\"\n"))
        + &zone("c.example", &cluster, "")
        + &zone("d.example", &cluster, "");
    let new = config(&zones);
    let (code, stdout, stderr) = plan_of(&daemon, &new);
    assert_eq!(
        (code, stderr.trim()),
        (2, "a reload of <stdin> would remove 1 zone, change 1 zone, add 1 zone"),
        "{stdout}"
    );
    for line in [
        format!("{server}<stdin> would change this"),
        format!("- b.example. (removed, was at {}:12)", file.display()),
        format!("    => A and AAAA: until now {first}, {second}, {excluded}; then REFUSED"),
        "~ a.example. (<stdin>:5)".to_owned(),
        format!("    exclude: [] -> [\"{excluded}\"]"),
        "    ttl: \"4s\" -> \"9s\"".to_owned(),
        format!("    => {excluded} is no longer answered: it is in exclude"),
        "    => clients keep answers for 9 s; those that they have now, for up to 4 s".to_owned(),
        "+ d.example. (<stdin>:21)".to_owned(),
        format!("    seeds = [\"{first}\"]"),
        format!("    => A and AAAA: until now REFUSED; then {first}, until a node has sent a list: the zone waits"),
    ] {
        assert!(stdout.lines().any(|shown| shown == line), "{line:?} is not in:\n{stdout}");
    }
    assert_eq!(see(&daemon, "b.example"), cluster.nodes().into_iter().collect(), "nothing has changed");

    let pipe = file.with_file_name("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (code, _, stderr) = daemon.command(&["plan", pipe.to_str().unwrap()]);
    let expected = format!("cannot read {}: it is not a regular file; \"-\" reads standard input\n", pipe.display());
    assert_eq!((code, stderr), (78, expected));

    let other = file.with_file_name("other.toml");
    fs::write(&other, &new).unwrap();
    let (code, json, _) = daemon.command(&["plan", "--json", other.to_str().unwrap()]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let zones: Vec<_> = json["zones"].as_array().unwrap().iter().map(|zone| (&zone["zone"], &zone["change"])).collect();
    let texts =
        |pairs: [(&'static str, &'static str); 3]| pairs.map(|(zone, change)| (Value::from(zone), Value::from(change)));
    let expected = texts([("b.example.", "removed"), ("a.example.", "changed"), ("d.example.", "added")]);
    assert_eq!((code, zones), (2, expected.iter().map(|(zone, change)| (zone, change)).collect()));
    assert_eq!(json["hash_in_force"], daemon.api()["config"]["hash"]);

    fs::write(&file, &new).unwrap();
    assert_eq!(daemon.reload().0, 0);
    becomes(&daemon, "a.example", &[first, second]);
    assert_eq!(ask(&daemon, "b.example").rcode, "Refused", "as planned");
    becomes(&daemon, "d.example", &cluster.nodes());
    assert_eq!(plan_of(&daemon, &format!("# a comment\n{new}")).0, 0);
}

#[test]
fn a_plan_of_a_bad_file_lists_its_errors_and_needs_a_server() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let good = config(&zone("a.example", &cluster, ""));
    let daemon = Daemon::with_config("plan-bad", &good);
    let (code, stdout, stderr) = plan_of(&daemon, &good.replace("seeds", "sedes"));
    assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("<stdin>:") && stderr.contains("did you mean \"seeds\"?"), "{stderr}");
    assert!(stderr.trim_end().ends_with("The configuration has 2 errors."), "{stderr}");
    let absent = daemon.command(&["plan", "/nonexistent/file.toml"]);
    assert!(absent.0 == 78 && absent.2.contains("/nonexistent/file.toml"), "{absent:?}");
    let (code, _, stderr) = daemon.command(&["plan", "--socket", "/nonexistent/control.sock"]);
    assert!(code == 1 && stderr.starts_with("no server is running"), "{stderr}");
    fs::write(daemon.config_path(), good.replace("seeds", "sedes")).unwrap();
    assert_eq!(daemon.reload().0, 78);
    let (code, stdout, _) = plan_of(&daemon, &good);
    assert!(code == 0 && stdout.contains("an older configuration than the server's file is in force"), "{stdout}");
    assert_eq!(
        crate::http::get(daemon.admin(), "/running/configuration").unwrap().0,
        404,
        "on the control socket alone"
    );
}

#[test]
fn a_plan_that_keeps_no_address_says_so_and_names_other_sections() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("plan-none", &config(&zone("a.example", &cluster, "")));
    becomes(&daemon, "a.example", &cluster.nodes());
    let none = zone("a.example", &cluster, "allow_nodes = [\"192.0.2.0/24\"]\n");
    let text = config(&none).replace("[server]\n", "[server]\nnsid = \"x\"\n")
        + "[forward]\nupstreams = [\"127.0.0.9\"]\nclients = [\"127.0.0.0/8\"]\n";
    let (code, stdout, stderr) = plan_of(&daemon, &text);
    assert_eq!((code, stderr.trim()), (2, "a reload of <stdin> would change 1 zone, change [server] and [forward]"));
    for part in [
        "    => NO ADDRESS IS LEFT: clients get SERVFAIL\n",
        "~ [server]\n    nsid: not set -> \"x\"\n",
        "    => names of no zone are forwarded for these clients, in place of REFUSED\n",
        "warning: seed 127.",
    ] {
        assert!(stdout.contains(part), "{part:?} is not in:\n{stdout}");
    }
}

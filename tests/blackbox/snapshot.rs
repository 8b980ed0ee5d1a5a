//! The snapshot: the last known nodes, kept for the next start, and the lock of the state directory.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alternator_dns::simulation::{Path as HttpPath, SimulatedCluster};
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, command, scratch, zone, zone_with},
    wait,
};

/// A state directory for one test, which does not exist yet.
struct State {
    above: PathBuf,
    directory: PathBuf,
}

impl State {
    fn new(name: &str) -> Self {
        let above = scratch(name);
        Self { directory: above.join("state"), above }
    }

    /// A file with these zones and this directory.
    fn config(&self, zones: &str) -> String {
        self.config_with("", zones)
    }

    fn config_with(&self, keys: &str, zones: &str) -> String {
        config(&self.directory, keys, zones)
    }

    fn nodes(&self) -> PathBuf {
        self.directory.join("nodes.json")
    }

    /// The file's content; empty before there is one.
    fn text(&self) -> String {
        fs::read_to_string(self.nodes()).unwrap_or_default()
    }

    /// Waits until the file names all of these.
    #[track_caller]
    fn wait_named(&self, nodes: &[String]) {
        wait::until("the file to name the nodes", || {
            let text = self.text();
            nodes.iter().all(|node| text.contains(&format!("\"{node}\""))).then_some(())
        });
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.above);
    }
}

fn config(directory: &Path, keys: &str, zones: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nstate_dir = \"{}\"\n{keys}\n{zones}",
        directory.display()
    )
}

/// The last line of a start with this file that must fail.
fn refusal(config: &str) -> String {
    let directory = scratch("refusal");
    let file = directory.join("config.toml");
    fs::write(&file, config).unwrap();
    let output = command(&["run", "--config"]).arg(&file).env("RUNTIME_DIRECTORY", &directory).output().unwrap();
    fs::remove_dir_all(directory).unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

fn texts(cluster: &SimulatedCluster) -> Vec<String> {
    cluster.nodes().iter().map(ToString::to_string).collect()
}

fn stop_all(cluster: &SimulatedCluster) {
    for node in cluster.running() {
        cluster.stop(node);
    }
}

fn ignored(daemon: &Daemon, reason: &str) -> f64 {
    daemon.metric(&format!("alternator_dns_snapshot_ignored_total{{reason=\"{reason}\"}}"))
}

/// Ends a server that has learnt these nodes, and their cluster after it.
fn learn_and_end(state: &State, config: &str, cluster: &SimulatedCluster) {
    let mut daemon = Daemon::with_config("before", config);
    state.wait_named(&texts(cluster));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(5)).code(), Some(0));
    stop_all(cluster);
}

#[test]
fn a_second_instance_is_kept_out() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("second");
    let config = state.config(&zone("a.example", &cluster));
    let daemon = Daemon::with_config("first", &config);
    let said = refusal(&config);
    let pid = daemon.pid();
    let expected = format!(
        "the state directory {} is in use by another alternator-dns (process {pid}); stop that one, or give this one a \
         state_dir of its own",
        state.directory.display()
    );
    assert_eq!(said, expected);
    assert_eq!(daemon.ask("a.example", "SOA").rcode, "NoError");
}

#[test]
fn a_killed_instance_leaves_no_lock_behind() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("killed");
    let config = state.config(&zone("a.example", &cluster));
    let mut daemon = Daemon::with_config("killed", &config);
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit(Duration::from_secs(5));
    // A write that the kill may have interrupted.
    fs::write(state.directory.join("nodes.json.new"), "half a f").unwrap();
    let next = Daemon::with_config("next", &config);
    assert_eq!(next.ask("a.example", "SOA").rcode, "NoError");
    let lock = fs::read_to_string(state.directory.join("lock")).unwrap();
    assert_eq!(lock.lines().next().unwrap(), next.pid().to_string());
    assert!(!state.directory.join("nodes.json.new").exists());
}

#[test]
fn a_state_directory_that_cannot_be_used_keeps_no_server_from_its_start() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("unusable");
    fs::write(&state.directory, "").unwrap();
    let daemon = Daemon::with_config("unusable", &state.config(&zone("a.example", &cluster)));
    wait::until("the zone", || (daemon.ask("a.example", "A").data() == texts(&cluster)).then_some(()));
    let said = format!("the state directory {} is not a directory; without it", state.directory.display());
    assert!(daemon.log().contains(&said), "{}", daemon.log());
    let failed = "alternator_dns_snapshot_writes_total{result=\"failed\"}";
    wait::until("a write that fails", || (daemon.metric(failed) > 0.0).then_some(()));
    fs::remove_file(&state.directory).unwrap();
    state.wait_named(&texts(&cluster));
}

#[test]
fn systemd_s_state_directory_is_used_where_the_file_names_none() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("systemd");
    let directory = scratch("systemd-config");
    let file = directory.join("config.toml");
    fs::write(&file, crate::daemon::config(&zone("a.example", &cluster))).unwrap();
    let list = format!("{}:/nonexistent/other", state.directory.display());
    let daemon = Daemon::launch_with(directory, &file, &[("STATE_DIRECTORY", &list)]);
    let refused = refusal(&state.config(&zone("a.example", &cluster)));
    assert!(refused.contains(&format!("(process {})", daemon.pid())), "{refused}");
}

#[test]
fn a_damaged_file_is_reported_and_does_not_prevent_the_start() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("damaged");
    fs::create_dir(&state.directory).unwrap();
    fs::write(state.nodes(), "{\"version\": 1, \"zones\": {\"a.example.\": ").unwrap();
    let daemon = Daemon::with_config("damaged", &state.config(&zone("a.example", &cluster)));
    assert_eq!(ignored(&daemon, "corrupt"), 1.0);
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("is cut short")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("nodes.json"), "{line}");
    wait::until("the zone", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
}

#[test]
fn another_state_dir_waits_for_the_next_start_and_says_so() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let state = State::new("moves");
    let other = State::new("other");
    let daemon = Daemon::with_config("moves", &state.config(&zone("a.example", &cluster)));
    let zones = zone("a.example", &cluster) + &zone("b.example", &cluster);
    fs::write(daemon.config_path(), other.config(&zones)).unwrap();
    let (code, said, _) = daemon.reload();
    assert_eq!(code, 0);
    assert!(said.contains("1 zone added") && said.contains("takes effect at the next start"), "{said}");
    assert!(!other.directory.exists());
    assert_eq!(daemon.ask("b.example", "SOA").rcode, "NoError");
}

#[test]
fn learnt_nodes_are_written_and_a_removed_zone_is_forgotten() {
    let one = SimulatedCluster::start(3).unwrap();
    let two = SimulatedCluster::start(2).unwrap();
    let state = State::new("file");
    let both = zone("a.example", &one) + &zone("b.example", &two);
    let daemon = Daemon::with_config("file", &state.config(&both));
    state.wait_named(&[texts(&one), texts(&two)].concat());
    assert!(state.text().contains("Written by alternator-dns"), "{}", state.text());
    let gone = one.node(2);
    one.stop(gone);
    let left = format!("\"nodes\": [\"{}\", \"{}\"]", one.node(0), one.node(1));
    wait::until("the dead node to be left out", || state.text().contains(&left).then_some(()));
    fs::write(daemon.config_path(), state.config(&zone("a.example", &one))).unwrap();
    assert_eq!(daemon.reload().0, 0);
    wait::until("b.example to be forgotten", || (!state.text().contains("b.example")).then_some(()));
    assert!(daemon.metric("alternator_dns_snapshot_writes_total{result=\"ok\"}") >= 3.0);
    assert_eq!(daemon.metric("alternator_dns_snapshot_writes_total{result=\"failed\"}"), 0.0);
}

#[test]
fn a_restart_while_the_cluster_is_down_answers_the_last_known_nodes_as_stale() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let state = State::new("dark");
    let config = state.config(&zone("a.example", &cluster));
    learn_and_end(&state, &config, &cluster);
    let daemon = Daemon::launch("after", &config);
    let known = texts(&cluster);
    let first = daemon.ask("a.example", "A").data();
    assert!(known.contains(&first[0]), "from the very first answer: {first:?}");
    // Probes notice one node after the other; once no node is left, all are answered.
    wait::until("all to be answered", || (daemon.nodes("a.example") == known).then_some(()));
    assert_eq!(daemon.zone("a.example.")["state"], "stale");
    cluster.restart(cluster.node(0)).unwrap();
    wait::until("the zone to be live", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    wait::until("the current nodes", || (daemon.nodes("a.example") == known[..1]).then_some(()));
}

#[test]
fn remembered_nodes_are_asked_when_every_seed_has_failed() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let state = State::new("seeds");
    let config = state.config(&zone("a.example", &cluster));
    learn_and_end(&state, &config, &cluster);
    // The seed stays stopped; the others run again.
    for node in &cluster.nodes()[1..] {
        cluster.restart(*node).unwrap();
    }
    let daemon = Daemon::launch("after", &config);
    wait::until("the zone to be live", || (daemon.zone("a.example.")["state"] == "live").then_some(()));
    wait::until("the current nodes", || (daemon.nodes("a.example") == texts(&cluster)[1..]).then_some(()));
    assert_eq!(ignored(&daemon, "fingerprint"), 0.0);
}

#[test]
fn another_cluster_s_nodes_are_not_answered_after_a_restart() {
    let old = SimulatedCluster::start(3).unwrap();
    let new = SimulatedCluster::start(2).unwrap();
    let state = State::new("moved");
    learn_and_end(&state, &state.config(&zone("a.example", &old)), &old);
    let polls = old.total(HttpPath::LocalNodes);
    stop_all(&new);
    let daemon = Daemon::launch("after", &state.config(&zone("a.example", &new)));
    wait::until("it to be reported", || (ignored(&daemon, "fingerprint") == 1.0).then_some(()));
    assert_eq!(daemon.nodes("a.example"), [new.node(0).to_string()], "the new seed, and nothing of the old cluster");
    assert_eq!(old.total(HttpPath::LocalNodes), polls);
}

#[test]
fn nodes_of_too_long_ago_are_not_answered_after_a_restart() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let state = State::new("old");
    let config = state.config_with("snapshot_max_age = \"1s\"", &zone("a.example", &cluster));
    learn_and_end(&state, &config, &cluster);
    let written = fs::metadata(state.nodes()).unwrap().modified().unwrap();
    // Times in the file are whole seconds.
    wait::until("the snapshot to be too old", || {
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        (age > Duration::from_secs(2)).then_some(())
    });
    let daemon = Daemon::launch("after", &config);
    wait::until("it to be reported", || (ignored(&daemon, "old") == 1.0).then_some(()));
    assert_eq!(daemon.nodes("a.example"), [cluster.node(0).to_string()], "the seed only");
}

#[test]
fn a_zone_that_left_the_file_while_no_server_ran_is_forgotten() {
    let one = SimulatedCluster::start(2).unwrap();
    let two = SimulatedCluster::start(2).unwrap();
    let state = State::new("left");
    let both = zone("a.example", &one) + &zone_with("b.example", &two.nodes(), two.port(), "");
    let mut daemon = Daemon::with_config("before", &state.config(&both));
    state.wait_named(&[texts(&one), texts(&two)].concat());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit(Duration::from_secs(5));
    let _daemon = Daemon::with_config("after", &state.config(&zone("a.example", &one)));
    wait::until("b.example to be forgotten", || (!state.text().contains("b.example")).then_some(()));
    state.wait_named(&texts(&one));
}

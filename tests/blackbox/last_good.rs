//! The last good configuration: what is served when the server starts with a file that is refused.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, command, scratch, zone},
    files::{rename_over, replace_by_pipe},
    http,
    observe::serves,
    wait,
};

/// A directory with a file and, below it, the state directory that the file names.
struct Place {
    directory: PathBuf,
    zone: String,
}

impl Place {
    fn new(name: &str, cluster: &SimulatedCluster) -> Self {
        Self { directory: scratch(name), zone: zone("a.example", cluster) }
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn file(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    fn kept(&self) -> PathBuf {
        self.state().join("last-good.json")
    }

    /// A configuration with this address and these lines in the zone.
    fn config(&self, listen: &str, keys: &str) -> String {
        let state = self.state();
        let server = format!("listen = [\"{listen}\"]\nadmin = \"127.0.0.1:0\"\nstate_dir = \"{}\"", state.display());
        format!("[server]\n{server}\n{}{keys}\n", self.zone)
    }

    /// Starts with this configuration, in a runtime directory of its own.
    fn launch(&self, config: &str) -> Daemon {
        fs::write(self.file(), config).unwrap();
        Daemon::launch_at(scratch("run"), &self.file())
    }

    /// Runs a server with this configuration until it is kept.
    fn keep(&self, config: &str) {
        let mut daemon = self.launch(config);
        wait::until("the configuration to be kept", || self.kept().exists().then_some(()));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_exit(Duration::from_secs(5));
    }

    /// Starts with the file as it is, which must end by itself.
    fn refused(&self) -> (i32, String) {
        let mut run = command(&["run", "--config"]);
        let output = run.arg(self.file()).env("RUNTIME_DIRECTORY", &self.directory).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const ANY: &str = "127.0.0.1:0";

fn ttl(daemon: &Daemon) -> String {
    let answers = daemon.ask("a.example", "A").answers;
    answers.first().and_then(|answer| answer.split(' ').nth(1)).unwrap_or_default().to_owned()
}

#[test]
fn a_start_with_a_refused_file_serves_the_last_good_configuration_and_says_so_everywhere() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("older", &cluster);
    place.keep(&place.config(ANY, "ttl = \"77s\""));
    assert_eq!(fs::metadata(place.kept()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut daemon = place.launch(&place.config(ANY, "ttl = 77"));
    daemon.wait_ready();
    assert_eq!(ttl(&daemon), "77");
    assert!(daemon.older().starts_with("AN OLDER CONFIGURATION IS SERVED"), "{}", daemon.older());
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 0.0);
    let status = daemon.api()["config"].clone();
    assert_eq!(status["older_is_served"], true);
    assert!(status["error"].as_str().unwrap().contains("config.toml:11:7: expected a duration"), "{status}");
    let (_, page) = http::get(daemon.admin(), "/").unwrap();
    assert!(page.contains("an older configuration is served"), "{page}");
    let errors = || {
        let log = daemon.log();
        log.lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect::<Vec<_>>()
    };
    let errors = wait::until("the error in the log", || Some(errors()).filter(|errors| !errors.is_empty()));
    assert!(errors.len() == 1 && errors[0].contains("config.toml:11:7: expected a duration"), "{errors:?}");
    let (code, _, said) = daemon.reload();
    assert_eq!(code, 78);
    assert!(said.lines().next().unwrap().contains("an older configuration than the file is served"), "{said}");
    rename_over(&place.file(), &place.config(ANY, "ttl = \"78s\""));
    wait::until("the corrected file to be in force", || (ttl(&daemon) == "78").then_some(()));
    wait::until("it to count as applied", || {
        (daemon.metric("alternator_dns_config_reload_success") == 1.0).then_some(())
    });
    wait::until("the status to be as usual", || daemon.older().is_empty().then_some(()));
    wait::until("the new file to be kept", || fs::read_to_string(place.kept()).unwrap().contains("78s").then_some(()));
}

#[test]
fn the_file_that_was_kept_may_come_back() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("back", &cluster);
    let good = place.config(ANY, "");
    place.keep(&good);
    let kept = fs::read(place.kept()).unwrap();
    let daemon = place.launch(&place.config(ANY, "ttl = 77"));
    rename_over(&place.file(), &good);
    wait::until("it to be in force", || daemon.api()["config"]["error"].is_null().then_some(()));
    assert_eq!(fs::read(place.kept()).unwrap(), kept, "its time stays");
}

#[test]
fn without_a_last_good_configuration_or_without_a_file_the_start_fails() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("none", &cluster);
    fs::write(place.file(), place.config(ANY, "ttl = 77")).unwrap();
    assert_eq!(place.refused().0, 78);
    place.keep(&place.config(ANY, ""));
    fs::remove_file(place.file()).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, 78);
    assert!(said.ends_with("there is no such file\n"), "{said}");
    fs::write(place.file(), place.config(ANY, "ttl = 77")).unwrap();
    let text = fs::read_to_string(place.kept()).unwrap();
    fs::write(place.kept(), text.replace("a.example", "b.example")).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, 78);
    assert!(said.contains("last-good.json is damaged") && said.contains("WARN"), "{said}");
    fs::remove_file(place.kept()).unwrap();
    fs::write(place.state().join("pipe"), "").unwrap();
    replace_by_pipe(&place.state().join("pipe"));
    fs::rename(place.state().join("pipe"), place.kept()).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, 78);
    assert!(said.contains("it is not a regular file"), "{said}");
}

#[test]
fn a_file_that_cannot_be_put_in_force_is_refused_like_one_with_an_error() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("taken", &cluster);
    place.keep(&place.config(ANY, "ttl = \"77s\""));
    let taken = TcpListener::bind(ANY).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut daemon = place.launch(&place.config(&address, "ttl = \"78s\""));
    wait::until("the last good configuration to be answered", || (ttl(&daemon) == "77").then_some(()));
    assert!(daemon.api()["config"]["error"].as_str().unwrap().contains("already listens on"));
    drop(taken);
    wait::until("the file to be applied once the address is free", || {
        (daemon.addresses()[0].to_string() == address).then_some(())
    });
    assert_eq!(ttl(&daemon), "78");
}

#[test]
fn check_reads_the_last_good_configuration_on_request() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("check", &cluster);
    let check = |file: &Path| {
        let output = command(&["check", "--last-good", "--config"]).arg(file).output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        (output.status.code().unwrap(), said.concat())
    };
    fs::write(place.file(), place.config(ANY, "ttl = 77")).unwrap();
    let (code, said) = check(&place.file());
    assert_eq!(code, 78);
    assert!(said.contains("there is no last good configuration in ") && said.contains("/state"), "{said}");
    place.keep(&place.config(ANY, ""));
    fs::write(place.file(), place.config(ANY, "ttl = 77")).unwrap();
    let (code, said) = check(&place.file());
    assert!(code == 0 && said.contains("1 zone with 1 seed"), "{said}");
}

#[test]
fn a_state_directory_that_is_made_again_has_one_owner() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("again", &cluster);
    let daemon = place.launch(&place.config(ANY, ""));
    wait::until("the configuration to be kept", || place.kept().exists().then_some(()));
    fs::remove_dir_all(place.state()).unwrap();
    wait::within(Duration::from_secs(20), "the directory to be made again", || place.kept().exists().then_some(()));
    let (code, said) = place.refused();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("is in use by another alternator-dns (process {})", daemon.pid())), "{said}");
    assert!(serves(&daemon, "a.example"));
}

#[test]
fn a_pipe_in_the_place_of_the_known_nodes_does_not_hold_up_the_start() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let place = Place::new("pipe", &cluster);
    fs::create_dir(place.state()).unwrap();
    fs::write(place.state().join("nodes"), "").unwrap();
    replace_by_pipe(&place.state().join("nodes"));
    fs::rename(place.state().join("nodes"), place.state().join("nodes.json")).unwrap();
    let daemon = place.launch(&place.config(ANY, ""));
    assert!(serves(&daemon, "a.example"));
    assert_eq!(daemon.metric("alternator_dns_snapshot_ignored_total{reason=\"unreadable\"}"), 1.0);
}

/// Kilobytes of a process: its highest memory since the last reset, or its memory now.
fn memory(daemon: &Daemon, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_large_file_that_is_no_configuration_costs_little_memory() {
    const MORE_MAX: u64 = 60 << 10;
    let cluster = SimulatedCluster::start(1).unwrap();
    let line =
        "2026-11-26T12:00:00.000000Z  INFO alternator_dns::discovery: node joined zone=a. [worker 1] {x=\"y\"}\n";
    let package =
        "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nfiles = [\n \"a\",\n \"b\",\n]\n";
    let zones: String = (0..49_000).map(|n| format!("[zones.\"{n}\"]\nseeds=[\"10.0.0.1:1\"]\n")).collect();
    let texts = [line, package, "k=1\n", "\n", "["].map(|text| (text, (4 << 20) - 1));
    let daemon = Daemon::with_config("large", &crate::daemon::config(&zone("a.example", &cluster)));
    let before = memory(&daemon, "VmRSS");
    for (text, octets) in [(line, 20 << 20), (&zones, zones.len())].into_iter().chain(texts) {
        // Resets the highest value (proc(5)).
        fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5").unwrap();
        rename_over(&daemon.config_path(), &text.repeat(octets / text.len()));
        assert_eq!(daemon.reload().0, 78);
        let highest = memory(&daemon, "VmHWM");
        let after = memory(&daemon, "VmRSS");
        println!("{octets} octets of {:?}: {before} kB before, {highest} at most, {after} after", text.get(..9));
        assert!(
            highest <= before + MORE_MAX && after <= before + MORE_MAX,
            "{before} kB, then {highest}, then {after}"
        );
        assert!(serves(&daemon, "a.example"));
    }
}

//! Files on a file system that hangs: every open, read, stat and watch of them waits until the file system recovers, as
//! with a network file system whose server is gone.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;

use crate::{
    ca::Authority,
    daemon::{Daemon, command, scratch, zone},
    files::{HangingDirectory, rename_over},
    http,
    observe::goes_on,
    tls_client::{NAME, connect},
    wait,
};

const CONFIG: &str = "config.toml";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
const SECRETS: &str = "secrets";

/// How long the server may take to stop: replies that have begun get a second, a hanging file adds nothing.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a page may take that needs no file: less than the deadline of a read, for which it must not wait.
const PAGE: Duration = Duration::from_millis(1500);

/// A configuration for a server, some of whose files are on the file system that hangs.
struct Scenario {
    cluster: SimulatedCluster,
    directory: PathBuf,
    hanging: HangingDirectory,
    hanging_names: &'static [&'static str],
}

impl Scenario {
    fn new(name: &str, hanging_names: &'static [&'static str]) -> Self {
        let directory = scratch(name);
        let hanging = HangingDirectory::new(&directory);
        Self { cluster: SimulatedCluster::start(1).unwrap(), directory, hanging, hanging_names }
    }

    fn path(&self, name: &str) -> PathBuf {
        if self.hanging_names.contains(&name) { self.hanging.file(name) } else { self.directory.join(name) }
    }

    fn certify(&self, authority: &Authority) {
        let certified = authority.certify([NAME]);
        rename_over(&self.path(CERT), &certified.certificate);
        rename_over(&self.path(KEY), &certified.key);
    }

    /// Writes the configuration with a zone `N.example` for each character.
    fn configure(&self, names: &str) {
        let [cert, key, secrets] = [CERT, KEY, SECRETS].map(|name| self.path(name));
        let zones: String = names.chars().map(|name| zone(&format!("{name}.example"), &self.cluster)).collect();
        let file = format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nlisten_tls = [\"127.0.0.1:0\"]\n\
             tls = {{ cert = \"{}\", key = \"{}\" }}\ncookie_secret_file = \"{}\"\n{zones}",
            cert.display(),
            key.display(),
            secrets.display()
        );
        rename_over(&self.path(CONFIG), &file);
    }

    fn start(&self, authority: &Authority) -> Daemon {
        self.certify(authority);
        fs::write(self.path(SECRETS), "00112233445566778899aabbccddeeff\n").unwrap();
        self.configure("a");
        let [preload, directory] = self.hanging.environment();
        let environment = [preload, directory, ("RUST_LOG", "info")];
        let mut daemon = Daemon::launch_with(self.directory.clone(), &self.path(CONFIG), &environment);
        daemon.wait_ready();
        daemon
    }

    /// Whether a call about this file hangs: the first one does, and the next waits for it.
    fn hangs(&self, name: &str) -> bool {
        let path = self.path(name).display().to_string();
        self.hanging.calls().iter().any(|call| call.split_once(' ').is_some_and(|(_, of)| of == path))
    }
}

/// Whether a request that needs no file is answered, and soon.
#[track_caller]
fn answers(daemon: &Daemon, path: &str) {
    let start = Instant::now();
    assert_eq!(http::get(daemon.admin(), path).unwrap().0, 200, "{path}");
    assert!(start.elapsed() < PAGE, "{path} took {:?}", start.elapsed());
}

/// What is logged when a file cannot be read.
fn logged_error(scenario: &Scenario, name: &str) -> String {
    let cannot = format!("cannot read {}: the file system does not answer", scenario.path(name).display());
    match name {
        CONFIG => format!("reload refused, nothing has changed: {cannot}"),
        CERT => format!("clients get the certificate as it was: {cannot}"),
        _ => "cookies keep their secrets: the file system does not answer".into(),
    }
}

/// The server goes on while the files hang, reads them when they can be read again, and ends while they hang.
fn hang_and_recover(name: &str, hanging_names: &'static [&'static str]) {
    let scenario = Scenario::new(name, hanging_names);
    let old = Authority::new("old");
    let new = Authority::new("new");
    let mut daemon = scenario.start(&old);
    let server = daemon.secure_address("tls");
    scenario.hanging.hang();
    let watched = hanging_names.iter().filter(|name| **name != KEY);
    let errors: Vec<_> = watched.clone().map(|name| logged_error(&scenario, name)).collect();
    wait::until("the errors", || errors.iter().all(|text| daemon.log().contains(text)).then_some(()));
    assert!(watched.clone().all(|name| scenario.hangs(name)), "{:?}", scenario.hanging.calls());
    // Ten seconds and more: each file is looked at again.
    goes_on(&daemon, &scenario.cluster, 60);
    for path in ["/healthz", "/readyz", "/metrics", "/api/zones", "/"] {
        answers(&daemon, path);
    }
    assert!(connect(server, &old).is_some(), "the certificate as it was");
    assert_eq!(daemon.ask("a.example", "A").data(), [scenario.cluster.node(0).to_string()]);
    for text in &errors {
        assert_eq!(daemon.log().matches(text).count(), 1, "{text}: {}", daemon.log());
    }
    scenario.configure("ab");
    let (code, _, stderr) = daemon.reload();
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains("the file system does not answer"), "{stderr}");
    scenario.certify(&new);
    scenario.hanging.recover();
    wait::until("the new certificate", || connect(server, &new).map(drop));
    wait::until("the new zone", || (daemon.ask("b.example", "SOA").rcode == "NoError").then_some(()));
    scenario.hanging.hang();
    wait::until("a call that hangs", || (!scenario.hanging.calls().is_empty()).then_some(()));
    goes_on(&daemon, &scenario.cluster, 5);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(DRAIN).code(), Some(0));
}

#[test]
fn files_that_hang_hold_nothing_up() {
    // They wait most of the time, so all run at once.
    thread::scope(|scope| {
        scope.spawn(|| hang_and_recover("hanging_config", &[CONFIG]));
        scope.spawn(|| hang_and_recover("hanging_certificate", &[CERT, KEY]));
        scope.spawn(|| hang_and_recover("hanging_secrets", &[SECRETS]));
        scope.spawn(|| hang_and_recover("hanging_all", &[CONFIG, CERT, KEY, SECRETS]));
    });
}

#[test]
fn a_configuration_that_hangs_at_the_start_is_refused() {
    let scenario = Scenario::new("hanging_start", &[CONFIG]);
    scenario.configure("a");
    scenario.hanging.hang();
    let path = scenario.path(CONFIG);
    let mut command = command(&["run", "--config", path.to_str().unwrap()]);
    let output = command.envs(scenario.hanging.environment()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    let sentence = format!("cannot read {}: the file system does not answer\n", path.display());
    assert!(stderr.ends_with(&sentence), "{stderr}");
    fs::remove_dir_all(&scenario.directory).unwrap();
}

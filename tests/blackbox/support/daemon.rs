//! The real binary in a directory of its own. The harness is its systemd: it learns the ports from the status.

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    dns::{self, Question, Reply},
    http, wait,
};

/// A running server; dropping it kills it.
pub struct Daemon {
    directory: PathBuf,
    child: Child,
    notifications: UnixDatagram,
    status: String,
    /// What the status says before that: that an older configuration is served.
    older: String,
    ready: bool,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A fresh directory that no other test uses.
pub fn scratch(name: &str) -> PathBuf {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("alternator-dns-test-{}-{number}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// The command, not yet started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alternator-dns"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
    command
}

/// The same for a process that may have so many open files.
fn command_with_open_files(open_files: u32, arguments: &[&str]) -> Command {
    let whole = command(arguments);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &open_files.to_string()]);
    limited.arg(whole.get_program()).args(whole.get_args()).stdin(Stdio::null());
    limited.env_remove("RUST_LOG").env_remove("STATE_DIRECTORY");
    limited
}

impl Daemon {
    /// Starts with `listen = ["127.0.0.1:0"]` and an admin interface, and these zones; waits until it is ready.
    #[track_caller]
    pub fn start(name: &str, zones: &str) -> Self {
        Self::with_config(name, &config(zones))
    }

    /// Starts with exactly this file; waits until it is ready.
    #[track_caller]
    pub fn with_config(name: &str, config: &str) -> Self {
        let mut daemon = Self::launch(name, config);
        daemon.wait_ready();
        daemon
    }

    /// Starts with exactly this file; waits for the sockets only.
    #[track_caller]
    pub fn launch(name: &str, config: &str) -> Self {
        let directory = scratch(name);
        let file = directory.join("config.toml");
        std::fs::write(&file, config).unwrap();
        Self::launch_at(directory, &file)
    }

    /// Starts with an existing file; waits for the sockets only.
    #[track_caller]
    pub fn launch_at(directory: PathBuf, file: &Path) -> Self {
        Self::launch_with(directory, file, &[("RUST_LOG", "debug")])
    }

    /// The same with these variables in its environment.
    #[track_caller]
    pub fn launch_with(directory: PathBuf, file: &Path, environment: &[(&str, &str)]) -> Self {
        let log = File::create(directory.join("log")).unwrap().into();
        Self::launch_logging(directory, file, environment, log)
    }

    /// Starts with exactly this file and a pipe for its log; waits until it is ready.
    #[track_caller]
    pub fn with_log_pipe(name: &str, config: &str) -> Self {
        Self::with_log_pipe_and(name, config, &[])
    }

    /// The same with these variables in its environment.
    #[track_caller]
    pub fn with_log_pipe_and(name: &str, config: &str, environment: &[(&str, &str)]) -> Self {
        let directory = scratch(name);
        let file = directory.join("config.toml");
        std::fs::write(&file, config).unwrap();
        let mut daemon = Self::launch_logging(directory, &file, environment, Stdio::piped());
        daemon.wait_ready();
        daemon
    }

    /// Starts with exactly this file, in a process that may have so many open files; waits until it is ready.
    #[track_caller]
    pub fn with_open_files(directory: PathBuf, open_files: u32) -> Self {
        let file = directory.join("config.toml");
        let log = File::create(directory.join("log")).unwrap();
        let mut command = command_with_open_files(open_files, &["run", "--config", file.to_str().unwrap()]);
        command.env("RUST_LOG", "info").stderr(log);
        let mut daemon = Self::spawn(directory, command);
        daemon.wait_ready();
        daemon
    }

    /// Stops reading the pipe of [`Self::with_log_pipe`].
    pub fn close_log(&mut self) {
        drop(self.child.stderr.take().expect("a pipe"));
    }

    #[track_caller]
    fn launch_logging(directory: PathBuf, file: &Path, environment: &[(&str, &str)], log: Stdio) -> Self {
        let mut command = command(&["run", "--config", file.to_str().unwrap()]);
        command.envs(environment.iter().copied()).stderr(log);
        Self::spawn(directory, command)
    }

    #[track_caller]
    fn spawn(directory: PathBuf, mut command: Command) -> Self {
        let socket = directory.join("notify");
        let notifications = UnixDatagram::bind(&socket).unwrap();
        notifications.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        command.env("NOTIFY_SOCKET", &socket).env("RUNTIME_DIRECTORY", &directory).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let mut daemon =
            Self { directory, child, notifications, status: String::new(), older: String::new(), ready: false };
        wait::until("the daemon to listen", || daemon.read_notifications().then_some(()));
        daemon
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        wait::until("the daemon to be ready", || {
            self.read_notifications();
            self.ready.then_some(())
        });
    }

    /// Reads the notifications that have arrived. Returns whether a status is known.
    fn read_notifications(&mut self) -> bool {
        if let Some(ended) = self.child.try_wait().unwrap() {
            panic!("the daemon ended with {ended}:\n{}", self.log());
        }
        let mut buffer = [0; 8192];
        while let Ok(length) = self.notifications.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            for line in text.lines() {
                self.ready |= line == "READY=1";
                let status = line.strip_prefix("STATUS=").and_then(|status| status.split_once("listening on "));
                if let Some((before, status)) = status {
                    let before = before.trim_end_matches("; ");
                    self.older = before.rsplit_once("; ").map(|(older, _zones)| older.to_owned()).unwrap_or_default();
                    self.status = status.to_owned();
                }
            }
        }
        !self.status.is_empty()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// The addresses that it listens on, in the order of the file.
    pub fn addresses(&mut self) -> Vec<SocketAddr> {
        self.read_notifications();
        let (addresses, _) = self.status.split_once(';').unwrap();
        addresses.split(' ').map(|address| address.parse().unwrap()).collect()
    }

    /// What the status says about an older configuration that is served; empty while the file is in force.
    pub fn older(&mut self) -> String {
        self.read_notifications();
        self.older.clone()
    }

    /// The first address that it listens on.
    pub fn address(&self) -> SocketAddr {
        let (addresses, _) = self.status.split_once(';').unwrap();
        addresses.split(' ').next().unwrap().parse().unwrap()
    }

    /// Its address for this encrypted transport.
    #[track_caller]
    pub fn secure_address(&mut self, transport: &str) -> SocketAddr {
        let marker = format!("; {transport} ");
        wait::until(&format!("the daemon to speak {transport}"), || {
            self.read_notifications();
            let (_, rest) = self.status.split_once(&marker)?;
            rest.split(';').next()?.parse().ok()
        })
    }

    pub fn admin(&self) -> SocketAddr {
        let (_, rest) = self.status.split_once("admin http://").expect("the admin interface is on");
        rest.split(';').next().unwrap().parse().unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn ask(&self, name: &str, qtype: &str) -> Reply {
        let reply = dns::udp(self.address(), &Question::new(name, qtype));
        assert!(!reply.recursion_available, "RA is set for those only whose questions are passed on");
        reply
    }

    /// The distinct addresses of many single answers, sorted.
    #[track_caller]
    pub fn nodes(&self, zone: &str) -> Vec<String> {
        let mut nodes: Vec<_> = (0..40).flat_map(|_| self.ask(zone, "A").data()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// The entry of one zone in `/api/zones`.
    pub fn zone(&self, name: &str) -> serde_json::Value {
        let zones = self.api()["zones"].as_array().unwrap().clone();
        zones.into_iter().find(|zone| zone["name"] == name).unwrap_or_default()
    }

    pub fn api(&self) -> serde_json::Value {
        let (status, body) = http::get(self.admin(), "/api/zones").unwrap();
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// One metric's value; 0 when it has no such series.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, body) = http::get(self.admin(), "/metrics").unwrap();
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `alternator-dns reload` for this server: exit status, standard output, standard error.
    pub fn reload(&self) -> (i32, String, String) {
        self.command(&["reload"])
    }

    /// A command for this server: exit status, standard output, standard error.
    pub fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = command(arguments).env("RUNTIME_DIRECTORY", &self.directory).output().unwrap();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        wait::within(bound, "the daemon to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("the daemon's last words:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A file with these zones, on any port of loopback.
pub fn config(zones: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\n{zones}")
}

/// `[zones."name"]` of a simulated cluster with a fast refresh, seeded with its first node.
pub fn zone(name: &str, cluster: &alternator_dns::simulation::SimulatedCluster) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), "refresh = \"200ms\"\ntimeout = \"400ms\"\n")
}

/// The same with other seeds and keys.
pub fn zone_with(name: &str, seeds: &[std::net::IpAddr], port: u16, keys: &str) -> String {
    let seeds: Vec<_> = seeds.iter().map(|seed| format!("\"{seed}\"")).collect();
    format!("[zones.\"{name}\"]\nseeds = [{}]\nport = {port}\n{keys}\n", seeds.join(", "))
}

/// Zones `a.example` to `NAME.example`, all of one cluster.
pub fn zones(names: &str, cluster: &alternator_dns::simulation::SimulatedCluster) -> String {
    config(&names.chars().map(|name| zone(&format!("{name}.example"), cluster)).collect::<String>())
}

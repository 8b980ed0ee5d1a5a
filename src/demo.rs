//! `alternator-dns demo`: two simulated clusters, the resolver and its status page, in one process.
//!
//! Only the nodes are simulated: they answer real HTTP on 127.0.0.x, and the resolver reads a real file, which may be
//! edited while the demo runs.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    cli::{self, Failure, LogArguments, StopSignals},
    simulation::SimulatedCluster,
    supervisor::{Supervisor, control_runtime},
    table::SharedTable,
    telemetry::{self, LogFilter},
    types::ZoneName,
};

/// The port of the resolver, unless it is taken.
const DNS_PORT: u16 = 5300;

/// The port of the status page, unless it is taken. Not 9153, which a server in production probably has, or gets later.
const ADMIN_PORT: u16 = 5380;

/// The state directory, beside the configuration.
const STATE: &str = "state";

/// Nodes in each cluster.
const NODES: usize = 3;

/// The pause between two incidents: enough to query the resolver by hand.
const INCIDENT_INTERVAL: Duration = Duration::from_secs(5);

/// How long the demo waits for the resolver to notice.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(10);

/// The interval at which the demo reads the answers.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The default log level: the demo prints its own lines.
const DEFAULT_LOG: &str = "warn";

/// Runs the demo until it is interrupted.
///
/// # Errors
/// The clusters, the file or the resolver cannot be set up.
pub fn run(arguments: &LogArguments) -> Result<(), Failure> {
    telemetry::init(arguments.log_format, LogFilter::choose(Some(arguments.log.as_deref().unwrap_or(DEFAULT_LOG)))?)?;
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(play());
    runtime.shutdown_background();
    outcome
}

async fn play() -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let clusters = [Simulated::start("east")?, Simulated::start("west")?];
    let file = ConfigFile::write(&clusters)?;
    let config = cli::load(&file.path).await?;
    let supervisor = Supervisor::start(&file.path, config, file.socket()).await?;
    let table = supervisor.table();
    introduce(&clusters, &file, &supervisor);
    let stop = async {
        tokio::select! {
            () = signals.next() => {}
            never = incidents(&clusters, &table) => match never {},
        }
    };
    supervisor.run(stop).await?;
    println!("\nThat was all. Next: write a file like the one above, and `alternator-dns run --config FILE`.");
    Ok(())
}

/// A simulated cluster and its zone.
struct Simulated {
    zone: ZoneName,
    cluster: SimulatedCluster,
}

impl Simulated {
    fn start(region: &str) -> std::io::Result<Self> {
        let zone = ZoneName::parse(&format!("alternator.{region}.example.com")).map_err(std::io::Error::other)?;
        Ok(Self { zone, cluster: SimulatedCluster::start(NODES)? })
    }

    /// The name without the final dot.
    fn host(&self) -> String {
        self.zone.to_string().trim_end_matches('.').into()
    }
}

/// The demo's configuration, in a temporary directory that is removed when the demo ends. The control socket and the
/// state of the server are there, too, so that a server in production on this machine never meets the demo.
struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    fn write(clusters: &[Simulated]) -> std::io::Result<Self> {
        let name = format!("alternator-dns-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let directory = std::env::temp_dir().join(name);
        // It must not exist: in a directory for all users another one could have made it.
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        std::fs::create_dir(directory.join(STATE))?;
        let file = Self { path: directory.join("config.toml") };
        std::fs::write(&file.path, file_content(clusters, &directory))?;
        Ok(file)
    }

    fn directory(&self) -> &Path {
        // The path has a last part, which `write` has joined to it.
        self.path.parent().unwrap_or(&self.path)
    }

    fn socket(&self) -> PathBuf {
        self.directory().join("control.sock")
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        // If this fails, some small files are left in the temporary directory.
        let _ = std::fs::remove_dir_all(self.directory());
    }
}

fn file_content(clusters: &[Simulated], directory: &Path) -> String {
    let dns = free_port(DNS_PORT);
    let admin = free_port(ADMIN_PORT);
    let mut text = format!("[server]\nlisten = [\"127.0.0.1:{dns}\"]\nadmin  = \"127.0.0.1:{admin}\"\n");
    text += &format!("state_dir = {:?}\n", directory.join(STATE).display().to_string());
    for simulated in clusters {
        let host = simulated.host();
        let seed = simulated.cluster.node(0);
        let port = simulated.cluster.port();
        text += &format!("\n[zones.\"{host}\"]\nseeds = [\"{seed}\"]\nport  = {port}\n");
    }
    text
}

/// The wanted port, or 0 (any port) when it is taken.
fn free_port(wanted: u16) -> u16 {
    let address = SocketAddr::from(([127, 0, 0, 1], wanted));
    let is_free = TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok();
    if is_free { wanted } else { 0 }
}

fn introduce(clusters: &[Simulated], file: &ConfigFile, supervisor: &Supervisor) {
    let path = &file.path;
    println!("Two simulated clusters are running, three nodes each, and one resolver for both.\n");
    for simulated in clusters {
        println!("  {}  nodes {}", simulated.host(), listed(&simulated.cluster.nodes()));
    }
    println!("\nThe resolver reads {}:\n", path.display());
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        println!("  {line}");
    }
    if let Some(dns) = supervisor.addresses().first() {
        let at = format!("@{} -p {}", dns.ip(), dns.port());
        println!("\nAsk it, more than once, from another terminal:\n");
        println!("  dig {at} +short alternator.east.example.com");
        println!("  dig {at} +short +tcp alternator.west.example.com");
        println!("  dig {at} alternator.east.example.com AAAA   # the nodes have no IPv6 address: NODATA with an SOA");
        println!("  dig {at} elsewhere.example.com              # outside all zones: REFUSED");
    }
    if let Some(admin) = supervisor.admin_address() {
        println!("\nLook at it:  http://{admin}/");
    }
    let socket = file.socket();
    println!("\nAsk it what it knows, and why:\n");
    for command in ["status", "explain alternator.east.example.com", "history alternator.east.example.com"] {
        println!("  {} {command} --socket {}", program(), socket.display());
    }
    println!("\nEdit the file: the resolver applies it within a second. Ctrl-C ends the demo.\n");
}

/// This program, as a shell finds it: it may be in no directory of `$PATH`.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "alternator-dns".into(), |name| name.to_string_lossy().into_owned())
}

fn listed(nodes: &[IpAddr]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Stops and restarts one node after the other, and prints how long the resolver took to notice.
async fn incidents(clusters: &[Simulated], table: &SharedTable) -> std::convert::Infallible {
    let start = Instant::now();
    let mut turn = 0;
    loop {
        let simulated = &clusters[turn % clusters.len()];
        let node = simulated.cluster.node(turn / clusters.len() % NODES);
        turn += 1;
        tokio::time::sleep(INCIDENT_INTERVAL).await;
        simulated.cluster.stop(node);
        report(start, simulated, &format!("stopped   {node}"), table, |answered| !answered.contains(&node)).await;
        tokio::time::sleep(INCIDENT_INTERVAL).await;
        match simulated.cluster.restart(node) {
            Ok(()) => {
                report(start, simulated, &format!("restarted {node}"), table, |nodes| nodes.contains(&node)).await
            }
            Err(error) => println!("{node} could not be restarted: {error}"),
        }
    }
}

/// Waits until the answers are as expected, and prints how long that took.
async fn report(
    start: Instant,
    simulated: &Simulated,
    what: &str,
    table: &SharedTable,
    as_expected: impl Fn(&[IpAddr]) -> bool,
) {
    let since = Instant::now();
    let noticed = tokio::time::timeout(NOTICE_TIME_MAX, async {
        while !as_expected(&answered(&simulated.zone, table)) {
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    });
    let outcome = match noticed.await {
        Ok(()) => format!("noticed after {:.1} s", since.elapsed().as_secs_f64()),
        Err(_) => "not noticed yet".into(),
    };
    let answers = listed(&answered(&simulated.zone, table));
    println!("{:>4} s  {}  {what}  {outcome}; answers are now {answers}", start.elapsed().as_secs(), simulated.host());
}

/// The nodes that may be in the zone's answers.
fn answered(zone: &ZoneName, table: &SharedTable) -> Vec<IpAddr> {
    let table = table.now();
    let answered = table.zone(zone).and_then(|entry| entry.answers().answered.clone());
    answered.map(|nodes| nodes.as_slice().to_vec()).unwrap_or_default()
}

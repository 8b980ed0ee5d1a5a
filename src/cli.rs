//! What the command line says, and the commands that need little more than that.

mod history;
mod status;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin::{
        self,
        client::{AdminUrl, ServerAddress},
        control::{self, ControlError},
    },
    config::{Config, Diagnostics, FILE_OCTETS_MAX, NodeLoad, node_loads},
    net::watched::{FileReader, ReadError, read_any},
    server::has_address,
    snapshot::{LastGood, LastGoodError},
    supervisor::{FileRefusal, Start, StartError, Supervisor, control_runtime, file_warnings, state_directories},
    systemd::unit::ServiceUnit,
    telemetry::{self, FilterError, LogFilter, LogFormat},
    types::ZoneName,
};

pub use self::history::{HistoryArguments, history};
pub use self::status::{StatusArguments, status};

/// The configuration when `--config` is left out.
const DEFAULT_CONFIG: &str = "/etc/alternator-dns/config.toml";

/// The state directory of the packaged service, for `check --last-good` outside of it.
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/alternator-dns";

/// Exit status for a file that is refused (EX_CONFIG of sysexits.h). The unit does not restart on it.
const EXIT_CONFIG: u8 = 78;

/// Exit status for bad usage; clap uses it too.
const EXIT_USAGE: u8 = 2;

/// Exit status for every other failure.
const EXIT_FAILURE: u8 = 1;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "alternator-dns", version, about = "One DNS resolver for many ScyllaDB Alternator clusters", long_about = None)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the zones of a configuration file
    Run(RunArguments),
    /// Read a configuration file and list every error in it; uses no network
    Check(CheckArguments),
    /// Run a demonstration: two simulated clusters, the resolver and its status page
    Demo(LogArguments),
    /// Make the running server read its file again, and wait for the outcome
    Reload(SocketArguments),
    /// Show all zones of the running server, the worst first; exit status 1 if one is unanswered or the file is refused
    Status(StatusArguments),
    /// Show the last configurations that were applied or refused, or the last changes of a zone
    History(HistoryArguments),
    /// Make the running server remove the cached answers of other resolvers
    Flush(FlushArguments),
}

/// Which server a command changes.
#[derive(Debug, Args)]
pub struct SocketArguments {
    /// The control socket of the server [default: control.sock in $RUNTIME_DIRECTORY, else in /run/alternator-dns]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

impl SocketArguments {
    fn path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(control::control_socket_path)
    }
}

/// Which server a command reads.
#[derive(Debug, Args)]
pub struct ServerArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
    /// Read another server, at its admin interface, for example http://10.0.0.2:9153
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    pub admin: Option<AdminUrl>,
}

impl ServerArguments {
    fn address(&self) -> ServerAddress {
        match &self.admin {
            Some(url) => ServerAddress::Admin(url.clone()),
            None => ServerAddress::Socket(self.socket.path()),
        }
    }
}

/// What to flush.
#[derive(Debug, Args)]
pub struct FlushArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub socket: SocketArguments,
    /// Only answers for this name and names below it [default: all]
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: Option<ZoneName>,
}

fn parse_name(text: &str) -> Result<ZoneName, String> {
    ZoneName::parse(text).map_err(|error| format!("the name {error}"))
}

/// Which file.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ConfigArguments,
    /// Check the last good configuration in place of the file: the one that a start with a refused file would serve
    #[arg(long)]
    pub last_good: bool,
}

/// What to log, and how.
#[derive(Debug, Args)]
pub struct LogArguments {
    /// Least level to log, or a filter such as "info,alternator_dns::discovery=debug" [default: $RUST_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// How to write log lines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ConfigArguments,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogArguments,
}

/// Why a command failed. The last line that it prints is one sentence.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Failure {
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    #[error(transparent)]
    Config(#[from] Diagnostics),
    #[error(transparent)]
    Usage(#[from] FilterError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the last good configuration {} {error}", path.display())]
    LastGood { path: PathBuf, error: LastGoodError },
    #[error("there is no last good configuration in {}", .0.display())]
    NoLastGood(PathBuf),
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Status(String),
    #[error("stopped at once by a second signal")]
    SecondSignal,
}

impl Failure {
    /// Prints the failure and gives the exit status that belongs to it.
    pub fn report(&self) -> ExitCode {
        let mut text = self.to_string();
        if let Self::Config(diagnostics) = self {
            text += &format!("\nThe configuration has {}.", plural(diagnostics.count(), "error"));
        }
        telemetry::write_last(&text);
        ExitCode::from(match self {
            Self::Unreadable(_)
            | Self::Config(_)
            | Self::LastGood { .. }
            | Self::NoLastGood(_)
            | Self::Control(ControlError::ReloadRefused { .. }) => EXIT_CONFIG,
            Self::Usage(_) => EXIT_USAGE,
            _ => EXIT_FAILURE,
        })
    }
}

impl From<FileRefusal> for Failure {
    fn from(refusal: FileRefusal) -> Self {
        match refusal {
            FileRefusal::Unreadable(error) => error.into(),
            FileRefusal::Invalid(diagnostics) => diagnostics.into(),
        }
    }
}

/// `alternator-dns run`.
///
/// # Errors
/// The file is refused and there is no last good configuration, an address cannot be bound, or a part of the server was lost.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    telemetry::init(arguments.log.log_format, LogFilter::choose(arguments.log.log.as_deref())?)?;
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(serve(&arguments.config.config));
    // A thread that hangs in the system's resolver, or in a file system, must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(path: &Path) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let start = Start::read(path).await?;
    for warning in start.config().warnings() {
        tracing::warn!("{warning}");
    }
    let supervisor = Supervisor::start(path, start, control::control_socket_path()).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let twice = async {
        signals.next().await;
        let _ = stop.send(());
        signals.next().await;
    };
    let stopped = async {
        let _ = stopped.await;
    };
    tokio::select! {
        outcome = supervisor.run(stopped) => Ok(outcome?),
        () = twice => Err(Failure::SecondSignal),
    }
}

/// Reads and parses a configuration file.
///
/// # Errors
/// It cannot be read, is not a regular file, or has diagnostics: then all of them.
pub async fn load(path: &Path) -> Result<Config, Failure> {
    let content = FileReader::new().read(path, FILE_OCTETS_MAX).await?;
    Ok(Config::parse(path, &content.octets)?)
}

/// `alternator-dns check`.
///
/// # Errors
/// The file, or the last good configuration, cannot be read or has errors.
pub fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let path = &arguments.config.config;
    let config = match read_any(path, FILE_OCTETS_MAX) {
        content if arguments.last_good => last_good(content.ok().as_deref())?,
        content => Config::parse(path, &content?)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let unusable = runtime.block_on(file_warnings(&config, ServiceUnit::installed().as_ref()));
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    let warnings = config.warnings().into_iter().chain(absent_addresses(&config)).chain(unusable);
    let warnings: String = warnings.map(|warning| format!("warning: {warning}\n")).collect();
    print(std::io::stdout(), &format!("{warnings}{}", Summary(&config)));
    Ok(())
}

/// `alternator-dns reload`.
///
/// # Errors
/// No server can be reached, or the file is refused.
pub fn reload(arguments: &SocketArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(control::reload(&arguments.path()))?;
    print(std::io::stdout(), &outcome.to_string());
    Ok(())
}

/// `alternator-dns flush`.
///
/// # Errors
/// No server can be reached, or it forwards nothing.
pub fn flush(arguments: &FlushArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = arguments.socket.path();
    let sentence = runtime.block_on(admin::flush::flush(&path, arguments.name.as_ref()))?;
    print(std::io::stdout(), &sentence);
    Ok(())
}

/// Prints lines and ignores a closed pipe. `println!` would panic there, for example before `| head`.
fn print(mut to: impl std::io::Write, text: &str) {
    let _ = writeln!(to, "{text}");
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals over from the system's default, which would end the process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }
}

/// What a start would serve if the file, which contains this, were refused.
fn last_good(content: Option<&[u8]>) -> Result<Config, Failure> {
    let directories = state_directories(content);
    let directories = if directories.is_empty() { vec![PathBuf::from(DEFAULT_STATE_DIRECTORY)] } else { directories };
    for directory in &directories {
        let path = LastGood::path(directory);
        let failed = |error| Failure::LastGood { path: path.clone(), error };
        if let Some(last_good) = LastGood::read(directory).map_err(failed)? {
            return last_good.config().map_err(failed);
        }
    }
    Err(Failure::NoLastGood(directories.into_iter().next_back().unwrap_or_default()))
}

/// A sentence for each address that no interface of this machine has.
fn absent_addresses(config: &Config) -> Vec<String> {
    let listen = config.server.listen.iter().filter(|_| !config.server.listen_by_default);
    let secure = config.server.encryption.iter().flat_map(|encryption| &encryption.listen).map(|(_, address)| address);
    let absent = listen.chain(secure).filter(|address| !has_address(**address));
    absent
        .map(|address| format!("no interface of this machine has the address of {address} now; is it right?"))
        .collect()
}

/// A good file in a few lines.
struct Summary<'c>(&'c Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { server, forward, zones, hash, .. } = self.0;
        let listen: Vec<_> = server.listen.iter().map(ToString::to_string).collect();
        let admin = server.admin.map_or_else(|| "off".into(), |address| format!("http://{address}/"));
        let seeds: usize = zones.values().map(|zone| zone.cluster.seeds.len()).sum();
        writeln!(f, "The configuration is good ({hash}).")?;
        writeln!(f, "listen  {}", listen.join(", "))?;
        writeln!(f, "admin   {admin}")?;
        if let Some(forward) = forward {
            let upstreams: Vec<_> = forward.upstreams.iter().map(ToString::to_string).collect();
            writeln!(f, "forward {}", upstreams.join(", "))?;
        }
        let words = (plural(zones.len(), "zone"), plural(seeds, "seed"));
        write!(f, "zones   {} with {} in all", words.0, words.1)?;
        let most = node_loads(zones).iter().map(NodeLoad::total).fold(0.0, f64::max);
        write!(
            f,
            "\nload    at most {most:.1} requests a second to a node, if a cluster has as many nodes as seeds here"
        )?;
        for (name, zone) in zones.iter().take(ZONES_LISTED_MAX) {
            let seeds: Vec<_> = zone.cluster.seeds.iter().map(ToString::to_string).collect();
            let ttl = zone.ttl.as_secs();
            let refresh = zone.refresh;
            write!(
                f,
                "\n  {name} port {} ttl {ttl}s refresh {refresh:?} from {}",
                zone.cluster.port,
                seeds.join(", ")
            )?;
        }
        match zones.len().saturating_sub(ZONES_LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Zones that `check` lists one by one; more than a screenful is counted.
const ZONES_LISTED_MAX: usize = 20;

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

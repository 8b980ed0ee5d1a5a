//! What the command line says, and the commands that need little more than that.

mod check;
mod drain;
mod explain;
mod history;
mod included;
mod log;
mod plan;
mod status;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use humantime_serde::re::humantime::parse_duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin::{
        self,
        client::{AdminUrl, ServerAddress, escape_controls},
        control::{self, ControlError},
    },
    config::{Config, Diagnostics, effective, schema as config_schema},
    net::watched::{FileReader, ReadError},
    reload::{ConfigFiles, FilesError},
    snapshot::LastGoodError,
    supervisor::{Start, StartError, Supervisor, control_runtime},
    systemd::sockets::KeptSockets,
    telemetry::{self, FilterError, LogFilter, LogFormat},
    types::ZoneName,
};

pub use self::check::{CheckArguments, ReportFormat, check};
pub use self::drain::{DrainArguments, UndrainArguments, drain, undrain};
pub use self::explain::{ExplainArguments, explain};
pub use self::history::{HistoryArguments, history};
pub use self::log::{LevelArguments, LogCommand, QueriesArguments, log};
pub use self::plan::{PlanArguments, plan};
pub use self::status::{StatusArguments, status};

/// The configuration when `--config` is left out.
const DEFAULT_CONFIG: &str = "/etc/alternator-dns/config.toml";

/// Exit status for a file that is refused (EX_CONFIG of sysexits.h). The unit does not restart on it.
const EXIT_CONFIG: u8 = 78;

/// Exit status for bad usage; clap uses it too.
const EXIT_USAGE: u8 = 2;

/// Exit status of `plan` for a file whose reload would change something.
const EXIT_CHANGES: u8 = 2;

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
    /// Show what a reload of a file would change, and change nothing; exit status 2 if it would change something
    Plan(PlanArguments),
    /// Explain a name or a node of the running server: from the file over lists, rules and health to what DNS answers
    Explain(ExplainArguments),
    /// Show the last configurations that were applied or refused, or the last changes of a zone
    History(HistoryArguments),
    /// Take a node out of the answers for some time, or list the nodes that are taken out
    Drain(DrainArguments),
    /// Put a drained node back into the answers
    Undrain(UndrainArguments),
    /// Make the running server remove the cached answers of other resolvers
    Flush(FlushArguments),
    /// Change what the running server logs
    #[command(subcommand)]
    Log(LogCommand),
    /// Show the configuration of a file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the JSON Schema of the configuration file, for editors and linters
    Schema,
    /// Print a script that completes this command in a shell
    Completions(CompletionArguments),
}

/// What about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key with its value and where that comes from; no secrets, which are in files of their own
    Show(ShowArguments),
}

/// What to show.
#[derive(Debug, Args)]
pub struct ShowArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ConfigArguments,
    /// Only this zone [default: everything]
    #[arg(value_name = "ZONE", value_parser = parse_name)]
    pub zone: Option<ZoneName>,
}

/// Which shell.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell that runs the script
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    pub shell: String,
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
    #[error("{0}")]
    Planned(String),
    #[error(
        "{} is included by {}, and is no configuration of its own; a reload reads both: `alternator-dns plan {}`",
        path.display(), main.display(), main.display()
    )]
    Included { path: PathBuf, main: PathBuf },
    #[error("{} has no zone {name}", path.display())]
    NoZone { path: PathBuf, name: ZoneName },
    #[error("The configuration has {}.", plural(*.0, "error"))]
    Reported(usize),
    #[error("stopped at once by a second signal")]
    SecondSignal,
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
}

impl Failure {
    /// Prints the failure and gives the exit status that belongs to it.
    pub fn report(&self) -> ExitCode {
        let mut text = self.to_string();
        if let Self::Config(diagnostics) = self {
            if telemetry::wants_color(&std::io::stderr()) {
                text = check::colored(&text);
            }
            text += &format!("\nThe configuration has {}.", plural(diagnostics.count(), "error"));
        }
        telemetry::write_last(&text);
        ExitCode::from(match self {
            Self::Unreadable(_)
            | Self::Config(_)
            | Self::Reported(_)
            | Self::LastGood { .. }
            | Self::NoLastGood(_)
            | Self::Included { .. }
            | Self::Control(ControlError::ReloadRefused { .. }) => EXIT_CONFIG,
            Self::Usage(_) => EXIT_USAGE,
            Self::Planned(_) => EXIT_CHANGES,
            _ => EXIT_FAILURE,
        })
    }
}

impl From<FilesError> for Failure {
    fn from(refusal: FilesError) -> Self {
        match refusal {
            FilesError::Unreadable(error) => error.into(),
            FilesError::Invalid(diagnostics) => diagnostics.into(),
        }
    }
}

/// `alternator-dns run`.
///
/// # Errors
/// The file is refused and there is no last good configuration, an address cannot be bound, or a part of the server was lost.
pub fn run(arguments: &RunArguments) -> Result<(), Failure> {
    // Before there is any thread.
    let sockets = KeptSockets::from_environment();
    telemetry::init(arguments.log.log_format, LogFilter::choose(arguments.log.log.as_deref())?)?;
    let runtime = control_runtime()?;
    let outcome = runtime.block_on(serve(&arguments.config.config, sockets));
    // A thread that hangs in the system's resolver, or in a file system, must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(path: &Path, sockets: KeptSockets) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let start = Start::read(path).await?;
    for warning in start.config().warnings() {
        tracing::warn!("{warning}");
    }
    let supervisor = Supervisor::start(path, start.with_sockets(sockets), control::control_socket_path()).await?;
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
    Ok(ConfigFiles::read(&FileReader::new(), path).await.parse()?)
}

/// `alternator-dns reload`.
///
/// # Errors
/// No server can be reached, or the file is refused.
pub fn reload(arguments: &SocketArguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(control::reload(&arguments.path()))?;
    print(&escape_controls(&outcome.to_string()))?;
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
    print(&escape_controls(&sentence))?;
    Ok(())
}

/// `alternator-dns config`.
///
/// # Errors
/// The file cannot be read or has errors, or has no such zone.
pub fn config(ConfigCommand::Show(arguments): &ConfigCommand) -> Result<(), Failure> {
    let path = &arguments.config.config;
    let config = check::read(path)?.parse()?;
    let zone = arguments.zone.as_ref();
    if let Some(name) = zone.filter(|name| !config.zones.contains_key(*name)) {
        return Err(Failure::NoZone { path: path.clone(), name: name.clone() });
    }
    print(effective(&config, zone).trim_end())?;
    Ok(())
}

/// `alternator-dns schema`.
///
/// # Errors
/// The output cannot be written.
pub fn schema() -> Result<(), Failure> {
    print(&format!("{:#}", config_schema()))
}

/// `alternator-dns completions`.
///
/// # Errors
/// The output cannot be written.
pub fn completions(arguments: &CompletionArguments) -> Result<(), Failure> {
    let shell = match arguments.shell.as_str() {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "alternator-dns", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

/// A time of at least a second, as a command takes it. `words` says how long it may be, and gives an example.
fn parse_time(text: &str, max: Duration, words: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(1)..=max;
    let time = parse_duration(text).ok().filter(|time| range.contains(time));
    time.ok_or_else(|| format!("write a number and a unit, {words}"))
}

/// Prints lines on standard output. A reader that has gone, as in `| head`, is no failure; a full disk is one.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
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

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

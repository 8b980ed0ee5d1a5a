//! Reloads: notices that the configuration file changed, or one that it includes, waits until all are whole, parses them, and
//! has them put in force.
//!
//! A change is noticed by notify, by SIGHUP, by a request on the control socket, or at the latest by a slow timer.
//! Only the content counts. A bad file changes nothing: the log, the metrics and the status that `admin` shows say what
//! is wrong with it.

mod files;
mod settle;
mod watch;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use self::files::{ConfigFiles, FilesError};
use self::{
    files::KnownIncludes,
    settle::{SETTLE, Settling},
    watch::Watch,
};
use crate::{
    config::{Config, ConfigHistory, ConfigStatus, ReloadError, ReloadRequest},
    metrics::{ProcessCounters, ReloadResult},
    net::watched::{FileReader, Stamp},
    telemetry::log_error_lines,
};

/// Between looks at the file when no event comes: some file systems (NFS) report none.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// A configuration without errors, on its way to the supervisor.
#[derive(Debug)]
pub struct Accepted {
    /// The configuration.
    pub config: Arc<Config>,
    /// A summary of what changed, or why it could not be put in force (then nothing has changed).
    pub reply: oneshot::Sender<Result<String, ReloadError>>,
}

/// What brings changes to the reloader, and where its outcomes go.
#[derive(Debug)]
pub struct ReloadChannels {
    /// SIGHUP.
    pub hangup: Signal,
    /// Requests from the control socket.
    pub requests: mpsc::Receiver<ReloadRequest>,
    /// Configurations without errors, to the supervisor.
    pub accepted: mpsc::Sender<Accepted>,
    /// What the status page shows about the file.
    pub status: Arc<ArcSwap<ConfigStatus>>,
    /// Refused files are kept here.
    pub configurations: ConfigHistory,
    /// Reloads are counted here.
    pub counters: Arc<ProcessCounters>,
    /// Reads the files.
    pub reader: FileReader,
}

/// What a reading asks for. Parsing a file is most of what a reload costs, so it is done once.
#[derive(Debug)]
enum Wanted {
    /// What is in force already.
    InForce,
    /// Another configuration, or why there is none.
    Other(Result<Arc<Config>, ReloadError>),
}

/// Watches a configuration file and those that it includes.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    channels: ReloadChannels,
    watch: Watch,
    in_force: Arc<Config>,
    /// How the files looked that were read last: one that is written in place stays the same file.
    last_read: Vec<Stamp>,
    /// What the main file included when it was read last.
    includes: Option<KnownIncludes>,
    /// What was refused last, so that it is reported once.
    refused: Option<ConfigFiles>,
    /// Requests that wait for the attempt under way.
    waiting: Vec<ReloadRequest>,
    /// This attempt was asked for, by signal or request.
    asked: bool,
}

impl Reloader {
    /// Watches `path`, whose content `in_force` was started with.
    pub fn new(path: PathBuf, in_force: Arc<Config>, channels: ReloadChannels) -> Self {
        let watch = Watch::new(path.clone(), channels.reader.clone());
        Self {
            path,
            channels,
            watch,
            in_force,
            last_read: Vec::new(),
            includes: None,
            refused: None,
            waiting: Vec::new(),
            asked: false,
        }
    }

    /// Runs until dropped.
    pub async fn run(mut self) -> Infallible {
        self.watch.arm().await;
        let reading = self.read().await;
        self.last_read = reading.stamps().into();
        // The start has reported it.
        if self.channels.status.load().error.is_some() {
            self.refused = Some(reading);
        }
        loop {
            self.wait(Instant::now() + POLL_INTERVAL).await;
            self.watch.arm().await;
            let (reading, wanted) = self.settled().await;
            self.last_read = reading.stamps().into();
            let outcome = self.attempt(reading, wanted).await;
            self.asked = false;
            for request in self.waiting.drain(..) {
                // The client may have gone away meanwhile.
                let _ = request.reply.send(outcome.clone());
            }
        }
    }

    /// Waits for the first reason to look at the file, at the latest until `deadline`. Returns whether it changed.
    async fn wait(&mut self, deadline: Instant) -> bool {
        tokio::select! {
            () = self.watch.event() => true,
            _ = self.channels.hangup.recv() => {
                tracing::info!("SIGHUP: looking at {}", self.path.display());
                self.asked = true;
                false
            }
            Some(request) = self.channels.requests.recv() => {
                self.waiting.push(request);
                self.asked = true;
                false
            }
            () = tokio::time::sleep_until(deadline) => false,
        }
    }

    /// The files once they count as whole, and what they say.
    async fn settled(&mut self) -> (ConfigFiles, Wanted) {
        let mut settling = Settling::new(self.read().await, Instant::now(), self.last_read.clone());
        let mut quiet = SETTLE;
        let mut parsed = None;
        let mut is_announced = false;
        loop {
            self.wait_until_due(&mut settling, quiet).await;
            let reading = self.read().await;
            if !settling.agrees(reading, self.watch.writes(), Instant::now()) {
                quiet = SETTLE;
                parsed = None;
                continue;
            }
            let wanted = match parsed.take() {
                Some(wanted) => wanted,
                None => self.resolve(settling.reading()).await,
            };
            let needed = self.quiet_needed(&settling, &wanted);
            if needed <= quiet {
                return (settling.into_reading(), wanted);
            }
            if !std::mem::replace(&mut is_announced, true) {
                tracing::info!(
                    "zones would be removed, and the files may be half-written, so they are applied after {needed:?} of \
                     quiet, or at once by `alternator-dns reload` or SIGHUP"
                );
            }
            quiet = needed;
            parsed = Some(wanted);
        }
    }

    /// Waits for the moment at which another reading decides. A request to reload asks for no quiet.
    async fn wait_until_due(&mut self, settling: &mut Settling, quiet: Duration) {
        loop {
            if settling.becomes_overdue(Instant::now()) {
                tracing::warn!(path = %self.path.display(), "the file keeps changing, so it is not applied until it rests");
            }
            let quiet = if self.asked { SETTLE } else { quiet };
            let due = settling.due(quiet, self.watch.writes());
            if Instant::now() >= due {
                return;
            }
            if self.wait(due).await {
                self.watch.arm().await;
            }
        }
    }

    /// Reads all files. Where other ones are included than before, these are watched from now on.
    async fn read(&mut self) -> ConfigFiles {
        let files = ConfigFiles::read_again(&self.channels.reader, &self.path, self.includes.take()).await;
        self.includes = files.known_includes();
        if self.watch.follow(&files) {
            self.watch.arm().await;
        }
        files
    }

    fn quiet_needed(&self, settling: &Settling, wanted: &Wanted) -> Duration {
        let was_refused = self.refused.as_ref() == Some(settling.reading());
        match wanted {
            Wanted::Other(Ok(wanted)) if !self.asked && !was_refused => {
                settling.quiet_needed(&self.in_force.zones, &wanted.zones, wanted.lacks_file_of(&self.in_force))
            }
            _ => SETTLE,
        }
    }

    async fn resolve(&self, files: &ConfigFiles) -> Wanted {
        if files.hash().as_ref() == Some(&self.in_force.hash) {
            return Wanted::InForce;
        }
        Wanted::Other(self.parse(files).await.map(Arc::new))
    }

    async fn parse(&self, files: &ConfigFiles) -> Result<Config, ReloadError> {
        let files = files.clone();
        let parsed = tokio::task::spawn_blocking(move || files.parse()).await;
        match parsed {
            Ok(Ok(config)) => Ok(config),
            Ok(Err(FilesError::Unreadable(error))) => Err(ReloadError::Unreadable(Arc::new(error))),
            Ok(Err(FilesError::Invalid(diagnostics))) => Err(diagnostics.into()),
            Err(lost) => Err(ReloadError::Lost { path: self.path.clone(), reason: lost.to_string() }),
        }
    }

    /// Has what was read put in force, or reports why not.
    async fn attempt(&mut self, files: ConfigFiles, wanted: Wanted) -> Result<String, ReloadError> {
        let Wanted::Other(parsed) = wanted else { return Ok(self.unchanged()) };
        let again = !self.asked && self.refused.as_ref() == Some(&files);
        let outcome = match parsed {
            Ok(config) => match config.emptied_include(&self.in_force).filter(|_| !self.asked) {
                Some(emptied) => Err(ReloadError::EmptiedInclude(emptied)),
                // A file that was refused because of its surroundings, a port in use for example, may do later.
                None => self.hand_over(config).await,
            },
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(summary) => self.applied(summary),
            Err(error) => {
                let error = error.to_string();
                // Reporting it once is enough while no reload is asked for.
                if !again || self.channels.status.load().error.as_ref() != Some(&error) {
                    self.refuse(files, error);
                }
            }
        }
        outcome
    }

    async fn hand_over(&mut self, config: Arc<Config>) -> Result<String, ReloadError> {
        let (reply, answer) = oneshot::channel();
        let accepted = Accepted { config: config.clone(), reply };
        self.channels.accepted.send(accepted).await.map_err(|_| ReloadError::Stopping)?;
        let summary = answer.await.unwrap_or(Err(ReloadError::Stopping))?;
        self.in_force = config;
        Ok(summary)
    }

    fn unchanged(&mut self) -> String {
        if self.refused.take().is_some() {
            tracing::info!(path = %self.path.display(), "the file is back to what is in force");
            self.channels.status.rcu(|status| ConfigStatus { error: None, kept: None, ..ConfigStatus::clone(status) });
        }
        if self.asked {
            self.count(ReloadResult::Unchanged);
        }
        "nothing has changed".into()
    }

    fn applied(&mut self, summary: &str) {
        tracing::info!(path = %self.path.display(), hash = self.in_force.hash, "reload applied: {summary}");
        for warning in self.in_force.warnings() {
            tracing::warn!("{warning}");
        }
        self.count(ReloadResult::Applied);
        self.refused = None;
        self.channels.status.store(Arc::new(ConfigStatus::new(&self.path, &self.in_force)));
    }

    fn refuse(&mut self, files: ConfigFiles, error: String) {
        log_error_lines("reload refused, nothing has changed", &error);
        self.count(ReloadResult::Refused);
        self.channels.configurations.refused(files.hash(), &error);
        self.refused = Some(files);
        let error = Some(error);
        self.channels.status.rcu(|status| ConfigStatus { error: error.clone(), ..ConfigStatus::clone(status) });
    }

    fn count(&self, result: ReloadResult) {
        self.channels.counters.reloads.of(result).increment();
    }
}

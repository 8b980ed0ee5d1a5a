//! Reloads: notices that the configuration file changed, waits until it is whole, parses it, and has it put in force.
//!
//! A change is noticed by notify, by SIGHUP, by a request on the control socket, or at the latest by a slow timer.
//! Only the content counts. A bad file changes nothing: the log, the metrics and the status that `admin` shows say what
//! is wrong with it.

mod settle;
mod watch;

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::{
    settle::{BULK_QUIET, Reading, SETTLE, Settling, removes_in_bulk},
    watch::Watch,
};
use crate::{
    config::{Config, ConfigStatus, FILE_OCTETS_MAX, ReloadRequest, content_hash},
    metrics::{ProcessCounters, ReloadResult},
    net::watched::FileReader,
};

/// Between looks at the file when no event comes: some file systems (NFS) report none.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// A configuration without errors, on its way to the supervisor.
#[derive(Debug)]
pub struct Accepted {
    /// The configuration.
    pub config: Arc<Config>,
    /// A summary of what changed, or why it could not be put in force (then nothing has changed).
    pub reply: oneshot::Sender<Result<String, String>>,
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
    /// Reloads are counted here.
    pub counters: Arc<ProcessCounters>,
    /// Reads the file.
    pub reader: FileReader,
}

/// What a reading asks for. Parsing a file is most of what a reload costs, so it is done once.
#[derive(Debug)]
enum Wanted {
    /// What is in force already.
    InForce,
    /// Another configuration, or why there is none.
    Other(Result<Arc<Config>, String>),
}

/// Watches one configuration file.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    channels: ReloadChannels,
    watch: Watch,
    in_force: Arc<Config>,
    /// The last reading that was refused, so that it is reported once.
    refused: Option<Reading>,
    /// Requests that wait for the attempt under way.
    waiting: Vec<ReloadRequest>,
    /// This attempt was asked for, by signal or request.
    asked: bool,
}

impl Reloader {
    /// Watches `path`, whose content `in_force` was started with.
    pub fn new(path: PathBuf, in_force: Arc<Config>, channels: ReloadChannels) -> Self {
        let watch = Watch::new(path.clone(), channels.reader.clone());
        Self { path, channels, watch, in_force, refused: None, waiting: Vec::new(), asked: false }
    }

    /// Runs until dropped.
    pub async fn run(mut self) -> Infallible {
        self.watch.arm().await;
        loop {
            self.wait(Instant::now() + POLL_INTERVAL).await;
            self.watch.arm().await;
            let (reading, wanted) = self.settled().await;
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

    /// The file's content once it has stopped changing, and what it says.
    async fn settled(&mut self) -> (Reading, Wanted) {
        let mut settling = Settling::new(self.read().await, Instant::now());
        loop {
            self.agree(&mut settling, SETTLE).await;
            let wanted = self.resolve(settling.reading()).await;
            let must_wait = !self.asked && self.refused.as_ref() != Some(settling.reading()) && self.is_bulk(&wanted);
            if !must_wait || self.agree(&mut settling, BULK_QUIET).await {
                return (settling.into_reading(), wanted);
            }
        }
    }

    /// Waits until two readings that lie `patience` apart agree and no event came between. A wait beyond
    /// [`SETTLE`] is given up, with `false`, when the content changes or a reload is asked for.
    async fn agree(&mut self, settling: &mut Settling, patience: Duration) -> bool {
        let may_give_up = patience > SETTLE;
        while !(may_give_up && self.asked) {
            let due = settling.due(patience);
            if self.wait(due).await {
                settling.event(Instant::now());
                self.watch.arm().await;
            }
            if Instant::now() < due {
                continue;
            }
            if settling.agrees(self.read().await, Instant::now()) {
                return true;
            }
            if may_give_up {
                return false;
            }
        }
        false
    }

    async fn read(&self) -> Reading {
        self.channels.reader.read(&self.path, FILE_OCTETS_MAX).await.map(|content| content.octets)
    }

    fn is_bulk(&self, wanted: &Wanted) -> bool {
        matches!(wanted, Wanted::Other(Ok(wanted)) if removes_in_bulk(&self.in_force.zones, &wanted.zones))
    }

    async fn resolve(&self, reading: &Reading) -> Wanted {
        if reading.as_ref().is_ok_and(|content| content_hash(content) == self.in_force.hash) {
            return Wanted::InForce;
        }
        Wanted::Other(self.parse(reading).await.map(Arc::new))
    }

    async fn parse(&self, reading: &Reading) -> Result<Config, String> {
        let content = reading.clone().map_err(|error| error.to_string())?;
        let path = self.path.clone();
        let parsed = tokio::task::spawn_blocking(move || Config::parse(&path, &content)).await;
        match parsed {
            Ok(parsed) => parsed.map_err(|diagnostics| diagnostics.to_string()),
            Err(lost) => Err(format!("reading {} failed: {lost}", self.path.display())),
        }
    }

    /// Has what was read put in force, or reports why not.
    async fn attempt(&mut self, reading: Reading, wanted: Wanted) -> Result<String, String> {
        let Wanted::Other(parsed) = wanted else { return Ok(self.unchanged()) };
        let again = !self.asked && self.refused.as_ref() == Some(&reading);
        let outcome = match parsed {
            // A file that was refused because of its surroundings, a port in use for example, may do later.
            Ok(config) => self.hand_over(config).await,
            Err(diagnostic) => Err(diagnostic),
        };
        match &outcome {
            Ok(summary) => self.applied(summary),
            // Reporting it once is enough while no reload is asked for.
            Err(diagnostic) if again && self.channels.status.load().error.as_ref() == Some(diagnostic) => {}
            Err(diagnostic) => self.refuse(reading, diagnostic),
        }
        outcome
    }

    async fn hand_over(&mut self, config: Arc<Config>) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the server is stopping".to_owned();
        self.channels.accepted.send(Accepted { config: config.clone(), reply }).await.map_err(|_| gone())?;
        let summary = answer.await.map_err(|_| gone())??;
        self.in_force = config;
        Ok(summary)
    }

    fn unchanged(&mut self) -> String {
        if self.refused.take().is_some() {
            tracing::info!(path = %self.path.display(), "the file is back to what is in force");
            self.channels.status.rcu(|status| ConfigStatus { error: None, ..ConfigStatus::clone(status) });
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
        self.channels.status.store(Arc::new(ConfigStatus {
            path: self.path.clone(),
            hash: self.in_force.hash.clone(),
            loaded: SystemTime::now(),
            error: None,
        }));
    }

    fn refuse(&mut self, reading: Reading, diagnostic: &str) {
        tracing::error!("reload refused, nothing has changed: {diagnostic}");
        self.count(ReloadResult::Refused);
        self.refused = Some(reading);
        let error = Some(diagnostic.to_owned());
        self.channels.status.rcu(|status| ConfigStatus { error: error.clone(), ..ConfigStatus::clone(status) });
    }

    fn count(&self, result: ReloadResult) {
        self.channels.counters.reloads.of(result).increment();
    }
}

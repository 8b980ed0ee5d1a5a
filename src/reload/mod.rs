//! The door of the file: notices that it changed, waits until it is whole, understands it, and hands it over.
//!
//! A change is seen by notify, by SIGHUP, by a request on the control socket, or at the latest by a slow timer.
//! Only the content counts. A bad file changes nothing: the complaint goes to the log, to the metrics and to the
//! status that `admin` shows.

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
    config::{Config, ConfigStatus, ReloadRequest, content_hash, read_file},
    metrics::{ProcessCounters, ReloadResult},
};

/// Time between looks at the file when nothing is heard: the floor under file systems that tell nothing (NFS).
const FLOOR: Duration = Duration::from_secs(5);

/// A file that was understood, on its way to the supervisor.
#[derive(Debug)]
pub struct Accepted {
    /// What it says.
    pub config: Arc<Config>,
    /// A summary of what changed, or why it could not be put in force (then nothing has changed).
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// Everything that the reloader is given.
#[derive(Debug)]
pub struct Doors {
    /// SIGHUP.
    pub hangup: Signal,
    /// Requests from the control socket.
    pub requests: mpsc::Receiver<ReloadRequest>,
    /// Accepted files, to the supervisor.
    pub accepted: mpsc::Sender<Accepted>,
    /// What the status page tells about the file.
    pub status: Arc<ArcSwap<ConfigStatus>>,
    /// Reloads are counted here.
    pub counters: Arc<ProcessCounters>,
}

/// What a reading asks for. Understanding a file is most of what a reload costs, so it is done once.
#[derive(Debug)]
enum Wanted {
    /// What is in force already.
    InForce,
    /// Something else, or nothing that can be understood.
    Other(Result<Arc<Config>, String>),
}

/// Follows one configuration file.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    doors: Doors,
    watch: Watch,
    in_force: Arc<Config>,
    /// The last reading that was refused, so that it is complained about once.
    refused: Option<Reading>,
    /// Who waits for the attempt under way.
    waiting: Vec<ReloadRequest>,
    /// Somebody asked for this attempt, by signal or request.
    asked: bool,
}

impl Reloader {
    /// Follows `path`, whose content `in_force` was started with.
    pub fn new(path: PathBuf, in_force: Arc<Config>, doors: Doors) -> Self {
        let watch = Watch::new(&path);
        Self { path, doors, watch, in_force, refused: None, waiting: Vec::new(), asked: false }
    }

    /// Runs until dropped.
    pub async fn run(mut self) -> Infallible {
        loop {
            self.wait(Instant::now() + FLOOR).await;
            self.watch.arm(&self.path);
            let (reading, wanted) = self.settled().await;
            let outcome = self.attempt(reading, wanted).await;
            self.asked = false;
            for request in self.waiting.drain(..) {
                // The one who asked may have gone away meanwhile.
                let _ = request.reply.send(outcome.clone());
            }
        }
    }

    /// Waits for the first reason to look at the file, at the latest until `deadline`. Returns whether it changed.
    async fn wait(&mut self, deadline: Instant) -> bool {
        tokio::select! {
            () = self.watch.event() => true,
            _ = self.doors.hangup.recv() => {
                tracing::info!("SIGHUP: looking at {}", self.path.display());
                self.asked = true;
                false
            }
            Some(request) = self.doors.requests.recv() => {
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
            let wanted = self.understand(settling.reading()).await;
            let must_wait = !self.asked && self.refused.as_ref() != Some(settling.reading()) && self.is_bulk(&wanted);
            if !must_wait || self.agree(&mut settling, BULK_QUIET).await {
                return (settling.into_reading(), wanted);
            }
        }
    }

    /// Waits until two readings that lie `patience` apart agree and no event came between. A wait beyond
    /// [`SETTLE`] is given up, with `false`, when the content changes or somebody asks.
    async fn agree(&mut self, settling: &mut Settling, patience: Duration) -> bool {
        let may_give_up = patience > SETTLE;
        while !(may_give_up && self.asked) {
            let due = settling.due(patience);
            if self.wait(due).await {
                settling.event(Instant::now());
                self.watch.arm(&self.path);
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

    /// Reads beside the runtime: what is there may hang (a FIFO, a file server that is gone), and pollers go on.
    async fn read(&self) -> Reading {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_file(&path).map_err(|error| error.to_string()));
        read.await.unwrap_or_else(|error| Err(format!("reading {} failed: {error}", self.path.display())))
    }

    fn is_bulk(&self, wanted: &Wanted) -> bool {
        matches!(wanted, Wanted::Other(Ok(wanted)) if removes_in_bulk(&self.in_force.zones, &wanted.zones))
    }

    async fn understand(&self, reading: &Reading) -> Wanted {
        if reading.as_ref().is_ok_and(|content| content_hash(content) == self.in_force.hash) {
            return Wanted::InForce;
        }
        Wanted::Other(self.parse(reading).await.map(Arc::new))
    }

    async fn parse(&self, reading: &Reading) -> Result<Config, String> {
        let (path, content) = (self.path.clone(), reading.clone()?);
        let parsed = tokio::task::spawn_blocking(move || Config::parse(&path, &content)).await;
        match parsed {
            Ok(parsed) => parsed.map_err(|mistakes| mistakes.to_string()),
            Err(error) => Err(format!("reading {} failed: {error}", self.path.display())),
        }
    }

    /// Puts what a reading says in force, or says why not.
    async fn attempt(&mut self, reading: Reading, wanted: Wanted) -> Result<String, String> {
        let Wanted::Other(understood) = wanted else { return Ok(self.unchanged()) };
        let again = !self.asked && self.refused.as_ref() == Some(&reading);
        let outcome = match understood {
            // A file that was refused because of its surroundings, a port in use for example, may do later.
            Ok(config) => self.hand_over(config).await,
            Err(complaint) => Err(complaint),
        };
        match &outcome {
            Ok(summary) => self.applied(summary),
            // Said once is enough while nobody asks.
            Err(complaint) if again && self.doors.status.load().error.as_ref() == Some(complaint) => {}
            Err(complaint) => self.refuse(reading, complaint),
        }
        outcome
    }

    async fn hand_over(&mut self, config: Arc<Config>) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "the server is stopping".to_owned();
        self.doors.accepted.send(Accepted { config: config.clone(), reply }).await.map_err(|_| gone())?;
        let summary = answer.await.map_err(|_| gone())??;
        self.in_force = config;
        Ok(summary)
    }

    fn unchanged(&mut self) -> String {
        if self.refused.take().is_some() {
            tracing::info!(path = %self.path.display(), "the file is back to what is in force");
            self.doors.status.rcu(|status| ConfigStatus { error: None, ..ConfigStatus::clone(status) });
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
        self.doors.status.store(Arc::new(ConfigStatus {
            path: self.path.clone(),
            hash: self.in_force.hash.clone(),
            loaded: SystemTime::now(),
            error: None,
        }));
    }

    fn refuse(&mut self, reading: Reading, complaint: &str) {
        tracing::error!("reload refused, nothing has changed: {complaint}");
        self.count(ReloadResult::Refused);
        self.refused = Some(reading);
        let error = Some(complaint.to_owned());
        self.doors.status.rcu(|status| ConfigStatus { error: error.clone(), ..ConfigStatus::clone(status) });
    }

    fn count(&self, result: ReloadResult) {
        self.doors.counters.reloads.of(result).increment();
    }
}

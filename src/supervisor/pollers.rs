//! The pollers: one task for each zone, started again when it panics or stalls.
//!
//! They all run on the learning thread, and so does [`PollerTask`], which starts and stops them. One thread runs one task
//! at a time: a poller that is stopped is not in the middle of anything, and publishes nothing afterwards.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::task::JoinMap;

use crate::{
    config::Zone,
    discovery::{Poller, Resources, Start},
    table::ZoneEntry,
    types::ZoneName,
};

/// Between looks for stalled pollers.
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A check that is later than this shows that the whole process was held up (stopped, or without a core), and nothing
/// about one poller: all of them look stalled at that moment, and all continue by themselves.
const CHECK_LATE_MAX: Duration = Duration::from_secs(1);

/// The first pause before a poller that panicked is started again; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest such pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A poller that has run for this long without a panic or a stall starts with the shortest pause again.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(600);

/// Starts and stops pollers.
#[derive(Debug)]
pub(super) struct Pollers(mpsc::UnboundedSender<(PollerChanges, oneshot::Sender<()>)>);

/// What a configuration changes about pollers.
#[derive(Debug)]
pub(super) struct PollerChanges {
    /// Zones there are from now on.
    pub(super) zones: usize,
    /// Zones that are removed.
    pub(super) removed: Vec<ZoneName>,
    /// Pollers to start, in place of the ones that run.
    pub(super) started: Vec<PollerStart>,
}

/// A poller to start.
#[derive(Debug)]
pub(super) struct PollerStart {
    pub(super) zone: Arc<Zone>,
    pub(super) entry: Arc<ZoneEntry>,
    pub(super) start: Start,
}

/// Owns every poller. It must run on the learning thread.
pub(super) struct PollerTask {
    changes: mpsc::UnboundedReceiver<(PollerChanges, oneshot::Sender<()>)>,
    pollers: RunningPollers,
}

struct RunningPollers {
    resources: Resources,
    tasks: JoinMap<ZoneName, Infallible>,
    running: BTreeMap<ZoneName, Running>,
}

impl Pollers {
    /// Nothing is polled yet.
    pub(super) fn new(resources: Resources) -> (Self, PollerTask) {
        let (sender, changes) = mpsc::unbounded_channel();
        let pollers = RunningPollers { resources, tasks: JoinMap::new(), running: BTreeMap::new() };
        (Self(sender), PollerTask { changes, pollers })
    }

    /// Stops and starts pollers, and waits until that is done. What each zone's first answer needs is published by then.
    pub(super) async fn apply(&self, changes: PollerChanges) {
        let (done, is_done) = oneshot::channel();
        // Where the task has ended, the process is about to: its supervisor has been notified.
        if self.0.send((changes, done)).is_ok() {
            let _ = is_done.await;
        }
    }
}

/// What is needed to start a poller again.
struct Running {
    zone: Arc<Zone>,
    entry: Arc<ZoneEntry>,
    started: Instant,
    backoff: Duration,
}

impl PollerTask {
    /// Runs until the server ends.
    pub(super) async fn run(mut self) {
        let mut checks = tokio::time::interval(STALL_CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let pauses = self.pollers.resources.pauses.clone();
        let mut clocks = std::pin::pin!(pauses.watch());
        loop {
            tokio::select! {
                changes = self.changes.recv() => {
                    let Some((changes, done)) = changes else { return };
                    self.pollers.apply(changes);
                    // The supervisor may have been dropped meanwhile.
                    let _ = done.send(());
                }
                () = self.pollers.restart_panicked() => {}
                never = &mut clocks => match never {},
                due = checks.tick() => if due.elapsed() < CHECK_LATE_MAX {
                    self.pollers.restart_stalled(Instant::now());
                }
            }
        }
    }
}

impl RunningPollers {
    fn apply(&mut self, changes: PollerChanges) {
        self.resources.at_scale.set_zones(changes.zones);
        for name in &changes.removed {
            self.running.remove(name);
            self.tasks.abort(name);
            self.resources.ownership.forget(name);
            // After its poller, which would write it down again.
            if let Some(snapshot) = &self.resources.snapshot {
                snapshot.forget(name);
            }
        }
        for start in changes.started {
            self.start(start);
        }
    }

    /// Starts a zone's poller, in place of the one that runs.
    fn start(&mut self, PollerStart { zone, entry, start }: PollerStart) {
        let name = entry.name().clone();
        if start == Start::NewCluster {
            // What it publishes next comes from another cluster.
            self.resources.ownership.forget(&name);
        }
        let running = Running { zone, entry, started: Instant::now(), backoff: BACKOFF_MIN };
        self.spawn(&name, &running, start, Duration::ZERO);
        self.running.insert(name, running);
    }

    /// Waits until a poller has panicked, and starts it again. Safe to drop at any moment.
    async fn restart_panicked(&mut self) {
        let Some((name, ended)) = self.tasks.join_next().await else {
            return std::future::pending().await;
        };
        match ended {
            Ok(never) => match never {},
            Err(error) if error.is_panic() => self.restart(&name, "panicked"),
            // It was stopped, or another one has taken its place.
            Err(_) => {}
        }
    }

    /// Starts every poller again that has not ended a tick for longer than it may take.
    fn restart_stalled(&mut self, now: Instant) {
        let stalled: Vec<_> =
            self.running.iter().filter(|(_, running)| running.has_stalled(now)).map(|(name, _)| name.clone()).collect();
        for name in stalled {
            self.restart(&name, "stalled");
        }
    }

    fn restart(&mut self, name: &ZoneName, why: &str) {
        let Some(mut running) = self.running.remove(name) else { return };
        let now = Instant::now();
        let is_reset = now.duration_since(running.started) > BACKOFF_RESET_AFTER;
        let pause = if is_reset { BACKOFF_MIN } else { running.backoff };
        tracing::error!(zone = %name, pause = ?pause, "the poller {why} and is started again; the zone keeps its nodes");
        running.entry.counters().poller_restarts.increment();
        running.started = now;
        running.backoff = (pause * 2).min(BACKOFF_MAX);
        self.spawn(name, &running, Start::Continue, pause);
        self.running.insert(name.clone(), running);
    }

    fn spawn(&mut self, name: &ZoneName, running: &Running, start: Start, pause: Duration) {
        let poller = Poller::new(running.entry.clone(), &running.zone, start, &self.resources);
        self.tasks.spawn(name.clone(), async move {
            tokio::time::sleep(pause).await;
            poller.run().await
        });
    }
}

impl Running {
    fn has_stalled(&self, now: Instant) -> bool {
        let last_sign = self.entry.poll_status().last_tick.map_or(self.started, |tick| tick.max(self.started));
        now.saturating_duration_since(last_sign) > <Poller>::silence_max(&self.zone) + self.backoff
    }
}

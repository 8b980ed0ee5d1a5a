//! The pollers: one task a zone, named by it, started again when it panics or stalls.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::JoinMap;

use crate::{
    config::Zone,
    discovery::{Poller, Resources, Start},
    table::ZoneEntry,
    types::ZoneName,
};

/// The first pause before a poller that panicked is started again; it doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest such pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A poller that has run so long without trouble starts with the shortest pause again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Every poller, by zone.
pub(super) struct Pollers {
    resources: Resources,
    tasks: JoinMap<ZoneName, Infallible>,
    running: BTreeMap<ZoneName, Running>,
}

/// What is needed to start a poller again.
struct Running {
    zone: Arc<Zone>,
    entry: Arc<ZoneEntry>,
    started: Instant,
    backoff: Duration,
}

impl Pollers {
    pub(super) fn new(resources: Resources) -> Self {
        Self { resources, tasks: JoinMap::new(), running: BTreeMap::new() }
    }

    /// Notes how many zones there are, for pollers that run and for those that are started next.
    pub(super) fn set_zones(&self, zones: usize) {
        self.resources.at_scale.set_zones(zones);
    }

    /// Starts a zone's poller, in place of the one that runs.
    pub(super) fn start(&mut self, name: &ZoneName, zone: &Zone, entry: &Arc<ZoneEntry>, start: Start) {
        if start == Start::NewCluster {
            // What it publishes next it has learnt from another cluster.
            self.resources.ownership.forget(name);
        }
        let running = Running {
            zone: Arc::new(zone.clone()),
            entry: entry.clone(),
            started: Instant::now(),
            backoff: BACKOFF_MIN,
        };
        self.spawn(name, &running, start, Duration::ZERO);
        self.running.insert(name.clone(), running);
    }

    /// Stops a zone's poller; it publishes nothing afterwards.
    pub(super) fn stop(&mut self, name: &ZoneName) {
        self.running.remove(name);
        self.tasks.abort(name);
        self.resources.ownership.forget(name);
    }

    /// Waits until a poller has panicked, and starts it again. Safe to drop at any moment.
    pub(super) async fn restart_panicked(&mut self) {
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
    pub(super) fn restart_stalled(&mut self, now: Instant) {
        let stalled: Vec<_> =
            self.running.iter().filter(|(_, running)| running.has_stalled(now)).map(|(name, _)| name.clone()).collect();
        for name in stalled {
            self.restart(&name, "stalled");
        }
    }

    fn restart(&mut self, name: &ZoneName, why: &str) {
        let Some(mut running) = self.running.remove(name) else { return };
        let now = Instant::now();
        let forgiven = now.duration_since(running.started) > FORGIVEN_AFTER;
        let pause = if forgiven { BACKOFF_MIN } else { running.backoff };
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

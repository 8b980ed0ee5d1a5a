//! Runs the server: binds everything, starts everything, puts configurations in force, drains, ends.
//!
//! A configuration is put in force in two phases (`apply.rs`), at the start as in a reload: what is refused is refused
//! before anything has changed.

mod admin_listener;
mod apply;
mod certificates;
mod control;
mod cookies;
mod descriptors;
mod error;
mod expiry;
mod file_check;
mod forwarding;
mod last_good;
mod listeners;
mod plan;
mod pollers;
mod readiness;
mod settings;
mod shared;
mod snapshot_settings;
mod threads;
mod transferring;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::JoinMap};

use self::{
    admin_listener::Admin, certificates::Certificates, control::Control, cookies::Cookies, descriptors::Descriptors,
    expiry::WatchedCertificates, forwarding::Forwarding, last_good::Refused, listeners::Listeners, pollers::Pollers,
    shared::Shared, snapshot_settings::SnapshotSettings, threads::Runtimes, transferring::Transferring,
};
pub use self::{
    error::StartError,
    file_check::file_warnings,
    last_good::{Start, state_directories},
    threads::control_runtime,
};
use crate::{
    admin::{
        ServingCheck,
        control::RunningServer,
        drain::{self, ActiveDrains},
        flush, log_level, log_queries, readable, running,
    },
    config::{Config, ConfigHistory, ConfigStatus, ReloadError, ReloadRequest},
    metrics::ProcessCounters,
    net::watched::FileReader,
    reload::{Accepted, ReloadChannels, Reloader},
    server::{HandOver, Supervision},
    snapshot::{SnapshotStore, SnapshotWriter},
    systemd::{
        self,
        sockets::SocketStore,
        watchdog::{BEAT_INTERVAL, Beats},
    },
    table::SharedTable,
    types::ZoneState,
};

/// Between looks at files that are watched, but for the configuration, which has its own ways.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Between updates of what `systemctl status` shows.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Reload requests that wait their turn; each comes from a person.
const REQUESTS_WAITING: usize = 8;

/// A running server.
pub struct Supervisor {
    /// What is in force; `None` until the first configuration is.
    in_force: Option<Arc<Config>>,
    table: SharedTable,
    pollers: Pollers,
    snapshot: Option<SnapshotStore>,
    /// What `snapshot` was opened with.
    snapshot_settings: SnapshotSettings,
    descriptors: Descriptors,
    listeners: Listeners,
    admin: Admin,
    certificates: Certificates,
    watched_certificates: WatchedCertificates,
    cookies: Cookies,
    forwarding: Forwarding,
    transferring: Arc<Transferring>,
    /// What is shown about the file.
    status: Arc<ArcSwap<ConfigStatus>>,
    /// What was applied and refused.
    configurations: ConfigHistory,
    counters: Arc<ProcessCounters>,
    accepted: mpsc::Receiver<Accepted>,
    failures: mpsc::UnboundedReceiver<String>,
    /// Sockets that are being drained.
    draining: JoinSet<()>,
    tasks: JoinMap<String, ()>,
    ready: watch::Sender<bool>,
    /// The threads that must go on.
    beats: Beats,
    stopping: CancellationToken,
    /// Dropped after the tasks that run on them.
    runtimes: Runtimes,
}

impl Supervisor {
    /// Binds every socket and starts every poller. Commands reach the server through the control socket. Must be called
    /// on [`control_runtime`].
    ///
    /// # Errors
    /// The state directory belongs to another instance, an address cannot be bound, a file cannot be
    /// read, or the system refuses a thread or a signal handler. Nothing is left running.
    pub async fn start(path: &Path, start: impl Into<Start>, control_socket: PathBuf) -> Result<Self, StartError> {
        let open_files = descriptors::raise_limit();
        let (config, refused, kept) = start.into().into_parts();
        let config = Arc::new(config);
        let store = SocketStore::start()?;
        let beats = Beats::default();
        let reader = FileReader::new();
        let shared = Shared::new(path, &config, reader.clone());
        let snapshot_settings = SnapshotSettings::of(&config.server);
        let (snapshot, writer) = snapshot_settings.open(&shared.counters).await?.unzip();
        let runtimes = Runtimes::start()?;
        // After the threads that answer have been started, which inherit it otherwise.
        threads::lower_priority();
        let (failed, failures) = mpsc::unbounded_channel();
        let forwarding = shared.forwarding(&runtimes, failed.clone());
        let supervision = Supervision { failures: failed, beats: beats.clone(), hand_over: HandOver::default() };
        let context = shared.listener_context(&runtimes, &forwarding, supervision, &config);
        let (ready, is_ready) = watch::channel(false);
        let (pollers, poller_task) = Pollers::new(shared.resources(snapshot.clone()));
        let drains = ActiveDrains::new(shared.table.clone(), snapshot.clone());
        let (accept, accepted) = mpsc::channel(1);
        let (serving, self_query) = ServingCheck::new(shared.table.clone());
        let (watched_certificates, expiry_task) = WatchedCertificates::new();
        let mut supervisor = Self {
            in_force: None,
            pollers,
            snapshot,
            snapshot_settings,
            descriptors: Descriptors::new(open_files, context.workers),
            listeners: Listeners::new(context, kept, store.clone()),
            admin: Admin::new(shared.admin_state(is_ready, serving, drains), store),
            certificates: Certificates::new(reader.clone()),
            watched_certificates,
            cookies: Cookies::new(reader.clone()),
            forwarding,
            transferring: shared.transferring.clone(),
            table: shared.table.clone(),
            status: shared.status.clone(),
            configurations: shared.configurations.clone(),
            counters: shared.counters.clone(),
            accepted,
            failures,
            draining: JoinSet::new(),
            tasks: JoinMap::new(),
            ready,
            beats,
            stopping: CancellationToken::new(),
            runtimes,
        };
        supervisor.tasks.spawn_on("pollers".into(), poller_task.run(), supervisor.runtimes.learning.handle());
        supervisor.tasks.spawn("self-query".into(), self_query.run());
        supervisor.tasks.spawn("certificate expiry".into(), expiry_task.run(reader.clone(), shared.counters.clone()));
        let config = supervisor.put_first_in_force(path, (config, refused), writer).await?;
        let (requests, requested) = mpsc::channel(REQUESTS_WAITING);
        let channels = shared.reload_channels(requested, accept, reader)?;
        supervisor.start_reloads(path, config, channels);
        supervisor.serve_control(control_socket, path, requests).await;
        supervisor.start_beats()?;
        Ok(supervisor)
    }

    /// Notifies the secondaries of `[transfer]`.
    fn start_notifier(&mut self) {
        let notifier = self.transferring.notifier(self.table.clone(), self.snapshot.clone());
        self.tasks.spawn("zone transfers".into(), async { match notifier.run().await {} });
    }

    /// Counts queries for the plots of the status page.
    fn start_samples(&mut self) {
        let samples = self.admin.state().samples.run(self.table.clone(), self.counters.clone());
        self.tasks.spawn("query samples".into(), async { match samples.await {} });
    }

    /// Has the threads of the runtimes beat, and the watchdog of systemd fed while all threads do.
    fn start_beats(&mut self) -> io::Result<()> {
        let Runtimes { tcp, encrypted, forward, learning } = &self.runtimes;
        let runtimes = [("tcp", tcp), ("encrypted", encrypted), ("forward", forward), ("learning", learning)];
        for (name, runtime) in runtimes {
            self.tasks.spawn_on(format!("beats of {name}"), self.beats.clone().beat_on(name), runtime.handle());
        }
        self.beats.watch()
    }

    /// The zone table, to read.
    pub fn table(&self) -> SharedTable {
        self.table.clone()
    }

    /// The addresses that are served over UDP and TCP; real ports also where the file says 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.addresses()
    }

    /// Where the admin interface is, if it is on.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.address()
    }

    /// Serves until `stop` is done; then drains and ends.
    ///
    /// # Errors
    /// A part that must never end has ended. The caller ends the process: half a server is worse than none.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut status_updates = tokio::time::interval(STATUS_INTERVAL);
        status_updates.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = tokio::time::interval(BEAT_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beat = self.beats.register("supervisor");
        let mut ready = readiness::subscribe(&self.ready);
        tokio::pin!(stop);
        let outcome = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                Some(Accepted { config, reply }) = self.accepted.recv() => {
                    let prepared = tokio::select! {
                        () = &mut stop => break Ok(()),
                        prepared = self.prepare(config) => prepared,
                    };
                    let outcome = match prepared {
                        Ok(prepared) => Ok(self.commit(prepared).await),
                        Err(refused) => Err(ReloadError::Refused(Arc::new(refused))),
                    };
                    systemd::status(&self.describe());
                    // The reloader may have been dropped meanwhile.
                    let _ = reply.send(outcome);
                }
                Ok(()) = ready.changed() => systemd::ready(&self.describe()),
                Some(name) = self.failures.recv() => break Err(StartError::Lost(name)),
                Some((name, ended)) = self.tasks.join_next() => match ended {
                    Ok(()) => {}
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => break Err(StartError::Lost(format!("the task {name:?}"))),
                },
                Some(drained) = self.draining.join_next() => if drained.is_err() {
                    break Err(StartError::Lost("a listener that was being closed".into()));
                },
                _ = beats.tick() => beat.beat(),
                _ = status_updates.tick() => systemd::status(&self.describe()),
            }
        };
        self.end().await;
        outcome
    }

    /// Puts the configuration of the start in force, or the last good one in its place. Returns which it is.
    async fn put_first_in_force(
        &mut self,
        path: &Path,
        (config, refused): (Arc<Config>, Option<Refused>),
        writer: Option<SnapshotWriter>,
    ) -> Result<Arc<Config>, StartError> {
        let (prepared, refused) = self.prepare_start(config, refused).await?;
        let config = prepared.config().clone();
        self.write_snapshots(writer, &config);
        self.commit(prepared).await;
        self.start_notifier();
        self.start_samples();
        self.report_start(ConfigStatus::new(path, &config), refused);
        systemd::status(&self.describe());
        Ok(config)
    }

    /// Has snapshots written, without zones that left the configuration while no server ran.
    fn write_snapshots(&mut self, writer: Option<SnapshotWriter>, config: &Config) {
        if let (Some(snapshot), Some(writer)) = (&self.snapshot, writer) {
            snapshot.retain(|zone| config.zones.contains_key(zone) || config.views.contains_key(zone));
            let task = async { match writer.run().await {} };
            self.tasks.spawn_on("snapshot".into(), task, self.runtimes.learning.handle());
        }
    }

    /// Starts what reads the file again, and readiness.
    fn start_reloads(&mut self, path: &Path, config: Arc<Config>, channels: ReloadChannels) {
        let reloader = Reloader::new(PathBuf::from(path), config, channels);
        self.tasks.spawn("reload".into(), async { match reloader.run().await {} });
        self.tasks.spawn("readiness".into(), readiness::become_ready(self.table.snapshot(), self.ready.clone()));
    }

    /// Serves the commands that come through the control socket. `path` is the configuration, which their replies name.
    async fn serve_control(&mut self, socket: PathBuf, path: &Path, requests: mpsc::Sender<ReloadRequest>) {
        let server = RunningServer::this(path);
        let admin = self.admin.state();
        self.tasks.spawn("drains".into(), admin.drains.clone().run());
        let (log_level, restore) = log_level::routes(server.clone());
        self.tasks.spawn("log level".into(), restore);
        let query_log = self.forwarding.forwarder().query_log();
        let (log_queries, write) = log_queries::routes(query_log, self.table(), server.clone());
        self.tasks.spawn("query log".into(), write);
        let flush = flush::routes(self.forwarding.forwarder(), server.clone());
        let drain = drain::routes(admin.drains.clone(), server.clone());
        let reads = readable::routes(admin).merge(running::routes(self.admin.state()));
        let commands = flush.merge(log_level).merge(log_queries).merge(drain).merge(reads);
        let control = Control { path: socket, server, commands, requests, stopping: self.stopping.clone() };
        let bound = control.bind().await;
        self.tasks.spawn("control".into(), control.run(bound));
    }

    /// What `systemctl status` shows.
    fn describe(&self) -> String {
        let mut counts = ZoneState::ALL.map(|state| (state, 0_usize));
        for entry in self.table.now().entries() {
            let state = entry.state();
            counts.iter_mut().filter(|(counted, _)| *counted == state).for_each(|(_, count)| *count += 1);
        }
        let states = counts.iter().filter(|(_, count)| *count > 0);
        let states: String = states.map(|(state, count)| format!(", {count} {}", state.word())).collect();
        let zones = counts.iter().map(|(_, count)| count).sum::<usize>();
        let zones = format!("{zones} {}{states}", if zones == 1 { "zone" } else { "zones" });
        let listening: Vec<_> = self.addresses().iter().map(ToString::to_string).collect();
        let admin = self.admin_address().map_or_else(|| "off".into(), |address| format!("http://{address}"));
        let secure = self.listeners.secure_addresses();
        let secure: String = secure.iter().map(|(what, at)| format!("; {} {at}", what.transport().word())).collect();
        let older = self.status.load().older().map(|older| format!("{older}; ")).unwrap_or_default();
        format!("{older}{zones}; listening on {}; admin {admin}{secure}", listening.join(" "))
    }

    /// Sends what is under way, then closes everything.
    async fn end(mut self) {
        systemd::stopping();
        self.stopping.cancel();
        self.ready.send_replace(false);
        while self.draining.join_next().await.is_some() {}
        if let Some(snapshot) = &self.snapshot {
            snapshot.flush().await;
        }
        self.listeners.end().await;
        self.forwarding.forwarder().drain().await;
        tracing::info!("stopped");
    }
}

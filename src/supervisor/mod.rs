//! Conducts: binds everything, starts everything, applies what the file says, drains, ends.
//!
//! Bind, then run; drain, then die. Whatever is refused is refused before anything has changed.

mod admin_door;
mod certificates;
mod cookies;
mod forwarding;
mod listeners;
mod plan;
mod pollers;
mod settings;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::JoinMap};

use self::{
    admin_door::Admin,
    certificates::Certificates,
    cookies::Cookies,
    forwarding::Forwarding,
    listeners::{Floor, Fresh, Listeners, Wanted},
    plan::{Polling, plan},
    pollers::Pollers,
    settings::{domain, entries, limits, server},
};
use crate::{
    admin::{View, control},
    config::{Config, ConfigStatus, ReloadRequest, Server, Zone},
    discovery::{AddressOwnership, HostLookup, NodeClient, Prober, Resources, SetUpError, Start},
    metrics::ProcessCounters,
    reload::{Accepted, Doors, Reloader},
    server::{BindError, Register, Serving},
    snapshot::{SnapshotError, SnapshotStore, SnapshotWriter},
    systemd,
    table::{SharedTable, ZoneTable},
    types::{ZoneName, ZoneState, unix_now},
};

/// The server counts as ready after so long although a zone of the start has not had its first tick.
const READY_AT_LATEST: Duration = Duration::from_secs(5);

/// Between looks at whether every zone has had its first tick.
const READY_CHECK: Duration = Duration::from_millis(10);

/// Between looks for stalled pollers, and at what `systemctl status` shows.
const ROUNDS: Duration = Duration::from_secs(5);

/// A round that comes so late says that the whole process was held up (stopped, or starved of a core), and nothing about
/// one poller: they all look stalled at that moment, and all of them go on by themselves.
const ROUND_LATE_MAX: Duration = Duration::from_secs(1);

/// Reload requests that wait their turn; each comes from a person.
const REQUESTS_WAITING: usize = 8;

/// Why the server did not start, or had to end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(
        "cannot listen on {wanted} beside {served}, which is served now and needs the same port; restart the server for \
         this change"
    )]
    Overlap { wanted: SocketAddr, served: SocketAddr },
    #[error("cannot serve the admin interface on {address}: {sentence}")]
    Admin { address: SocketAddr, sentence: String },
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Polling(#[from] SetUpError),
    #[error(transparent)]
    SnapshotStore(#[from] SnapshotError),
    #[error("cannot serve encrypted DNS: {0}; mend that, or change tls in [server]")]
    Certificate(String),
    #[error("cannot use the cookie_secret_file {}: {sentence}", path.display())]
    CookieSecrets { path: PathBuf, sentence: String },
    #[error("{0} ended unexpectedly, so the server ends too")]
    Lost(String),
}

/// What a reload says that changes the keys of the snapshot. They matter at a start and hardly ever change: moving to
/// another directory, which may be locked or not writable, while this one is written is not worth its ways to fail.
const LATER: &str = "a change of state_dir or snapshot_max_age takes effect at the next start";

/// What runs before the first configuration is applied.
static NO_ZONES: BTreeMap<ZoneName, Zone> = BTreeMap::new();

/// A running server.
pub struct Supervisor {
    /// What is in force; `None` until the first has been applied.
    in_force: Option<Arc<Config>>,
    table: SharedTable,
    pollers: Pollers,
    snapshot: Option<SnapshotStore>,
    /// The keys that `snapshot` was opened with.
    snapshot_keys: SnapshotKeys,
    listeners: Listeners,
    admin: Admin,
    certificates: Certificates,
    cookies: Cookies,
    forwarding: Forwarding,
    accepted: mpsc::Receiver<Accepted>,
    failures: mpsc::UnboundedReceiver<String>,
    /// Sockets that are being drained.
    draining: JoinSet<()>,
    tasks: JoinMap<String, ()>,
    ready: watch::Sender<bool>,
    stopping: CancellationToken,
    /// They outlive the listeners that run on them.
    _threads: [Thread; 3],
}

/// A runtime thread of its own, for TCP, for encrypted connections, and for whoever waits for upstreams: the control
/// plane and the data plane share none, and neither a flood of handshakes nor one of names of no zone holds up
/// connections that ask about zones.
struct Thread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Thread {
    fn start(name: &str) -> std::io::Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name(name).enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // An ordinary drop waits for the thread, which must not be done inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Supervisor {
    /// Binds every socket and starts every poller. Must be called within a runtime.
    ///
    /// # Errors
    /// The state directory belongs to another instance or cannot be used, an address cannot be bound, or the system
    /// refuses a thread or a signal handler. Nothing is left running.
    pub async fn start(path: &Path, config: Config) -> Result<Self, StartError> {
        raise_open_files_limit();
        let counters = Arc::<ProcessCounters>::default();
        let snapshot_keys = SnapshotKeys::of(&config.server);
        let (snapshot, keeper) = snapshot_keys.open(&counters)?.unzip();
        let threads = [Thread::start("tcp")?, Thread::start("encrypted")?, Thread::start("forward")?];
        step_back();
        let [tcp, encrypted, forward] = threads.each_ref().map(|thread| thread.handle.clone());
        let table = SharedTable::default();
        let (failed, failures) = mpsc::unbounded_channel();
        let forwarding = Forwarding::start(table.clone(), counters.clone(), &forward, failed.clone());
        let floor = Floor {
            table: table.clone(),
            counters: counters.clone(),
            forwarder: forwarding.forwarder(),
            tcp,
            encrypted,
            register: Register::new(limits(&config.server)),
            failures: failed,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let (ready, is_ready) = watch::channel(false);
        let status = Arc::new(ArcSwap::from_pointee(ConfigStatus {
            path: path.into(),
            hash: config.hash.clone(),
            loaded: SystemTime::now(),
            error: None,
        }));
        let view = View {
            table: table.clone(),
            process: counters.clone(),
            config: status.clone(),
            ready: is_ready,
            started: Instant::now(),
        };
        let alternator = NodeClient::new()?;
        let resources = Resources {
            alternator: alternator.clone(),
            lookup: HostLookup::new(),
            prober: Prober::new(alternator),
            ownership: AddressOwnership::default(),
            counters: counters.clone(),
            at_scale: Default::default(),
            snapshot: snapshot.clone(),
        };
        let (accept, accepted) = mpsc::channel(1);
        let (requests, requested) = mpsc::channel(REQUESTS_WAITING);
        let doors =
            Doors { hangup: signal(SignalKind::hangup())?, requests: requested, accepted: accept, status, counters };
        let mut supervisor = Self {
            in_force: None,
            pollers: Pollers::new(resources),
            snapshot,
            snapshot_keys,
            listeners: Listeners::new(floor),
            admin: Admin::new(view),
            certificates: Certificates::default(),
            cookies: Cookies::default(),
            forwarding,
            table,
            accepted,
            failures,
            draining: JoinSet::new(),
            tasks: JoinMap::new(),
            ready,
            stopping: CancellationToken::new(),
            _threads: threads,
        };
        let config = Arc::new(config);
        supervisor.remember(keeper, &config);
        supervisor.apply(config.clone())?;
        supervisor.tell_systemd();
        supervisor.open_doors(path, config, doors, requests);
        Ok(supervisor)
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
    /// A part that must never end has ended. The caller ends the process: half a server helps nobody.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut rounds = tokio::time::interval(ROUNDS);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut certificate_looks = tokio::time::interval(certificates::LOOK);
        certificate_looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ready = self.ready.subscribe();
        tokio::pin!(stop);
        let outcome = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                Some(Accepted { config, reply }) = self.accepted.recv() => {
                    let outcome = self.apply(config).map_err(|refused| refused.to_string());
                    self.tell_systemd();
                    // Whoever asked may have gone away meanwhile.
                    let _ = reply.send(outcome);
                }
                Ok(()) = ready.changed() => systemd::ready(&self.describe()),
                () = self.pollers.restart_panicked() => {}
                Some(name) = self.failures.recv() => break Err(StartError::Lost(name)),
                Some((name, ended)) = self.tasks.join_next() => match ended {
                    Ok(()) => {}
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => break Err(StartError::Lost(format!("the task {name:?}"))),
                },
                Some(drained) = self.draining.join_next() => if drained.is_err() {
                    break Err(StartError::Lost("a listener that was being closed".into()));
                },
                _ = certificate_looks.tick() => self.certificates.look(),
                due = rounds.tick() => {
                    if due.elapsed() < ROUND_LATE_MAX {
                        self.pollers.restart_stalled(Instant::now());
                    }
                    self.cookies.look();
                    self.tell_systemd();
                }
            }
        };
        self.end().await;
        outcome
    }

    /// Puts a configuration in force: all of it, or nothing. Says what changed.
    fn apply(&mut self, wanted: Arc<Config>) -> Result<String, StartError> {
        let bound = self.listeners.bind_missing(&wanted.server, self.admin.address())?;
        let admin = self.admin.bind_change(wanted.server.admin, &self.listeners.all_addresses())?;
        let secrets = self.cookies.read(wanted.server.cookie_secret_file.as_deref())?;
        let certificate = Certificates::read(wanted.server.encryption.as_ref())?;
        let in_force = self.in_force.as_deref();
        let plan = plan(in_force.map_or(&NO_ZONES, |config| &config.zones), &wanted.zones);

        let (before, now) = (self.table.snapshot(), unix_now());
        let mut entries = entries(&before, in_force, &wanted, &plan, now);
        entries.extend(wanted.server.domains.iter().map(|name| domain(&before, name, &wanted, now)));
        let table = ZoneTable::new(entries);
        let table = table.with_server(server(&before, &wanted, self.cookies.in_force()));

        self.pollers.set_zones(wanted.zones.len());
        for name in &plan.removed {
            self.pollers.stop(name);
            // After its poller, which cannot remember it again.
            if let Some(snapshot) = &self.snapshot {
                snapshot.forget(name);
            }
        }
        let starts = plan.added.iter().map(|name| (name, Polling::Resume));
        for (name, polling) in starts.chain(plan.changed.iter().map(|(name, polling)| (name, *polling))) {
            let start = match polling {
                Polling::Keep => continue,
                Polling::Resume => Start::Continue,
                Polling::NewCluster => Start::NewCluster,
            };
            if let (Some(zone), Some(entry)) = (wanted.zones.get(name), table.zone(name)) {
                self.pollers.start(name, zone, entry, start);
            }
        }
        self.certificates.adopt(certificate);
        self.cookies.adopt(wanted.server.cookie_secret_file.clone(), secrets);
        self.listeners.limit(limits(&wanted.server));
        // Only now: a poller begins by having the seeds answered, and no new zone is to be met before that.
        // Upstreams are there before questions go to them, and until none go.
        if let Some(forward) = &wanted.forward {
            self.forwarding.adopt(Some(forward));
        }
        self.table.replace(table);
        self.forwarding.adopt(wanted.forward.as_ref());
        let addresses = Wanted { listen: &wanted.server.listen, encryption: wanted.server.encryption.as_ref() };
        for closed in self.listeners.replace(addresses, bound, &self.certificates.shown()) {
            self.draining.spawn(drain(closed));
        }
        if let Some(closed) = self.admin.replace(admin, wanted.server.admin, &mut self.tasks) {
            closed.cancel();
        }
        let same_snapshot = self.snapshot_keys == SnapshotKeys::of(&wanted.server);
        self.in_force = Some(wanted);
        if same_snapshot {
            return Ok(plan.to_string());
        }
        tracing::warn!("{LATER}");
        Ok(format!("{plan}; {LATER}"))
    }

    /// Has the snapshot written down, without zones that left the file while no server ran.
    fn remember(&mut self, keeper: Option<SnapshotWriter>, config: &Config) {
        if let (Some(snapshot), Some(keeper)) = (&self.snapshot, keeper) {
            snapshot.retain(|zone| config.zones.contains_key(zone));
            self.tasks.spawn("snapshot".into(), async { match keeper.run().await {} });
        }
    }

    /// Starts what listens to people: the file, the control socket, readiness.
    fn open_doors(&mut self, path: &Path, config: Arc<Config>, doors: Doors, requests: mpsc::Sender<ReloadRequest>) {
        let reloader = Reloader::new(PathBuf::from(path), config, doors);
        self.tasks.spawn("reload".into(), async { match reloader.run().await {} });
        match control::bind(&control::control_socket_path()) {
            Ok(socket) => self.tasks.spawn("control".into(), control::serve(socket, requests, self.stopping.clone())),
            Err(error) => {
                tracing::warn!("{error}; the command `reload` will not work, SIGHUP will");
                // The reloader waits on this channel; it must not look closed to it.
                self.tasks.spawn("control".into(), async move {
                    requests.closed().await;
                });
            }
        }
        self.tasks.spawn("readiness".into(), become_ready(self.table.snapshot(), self.ready.clone()));
    }

    fn tell_systemd(&self) {
        systemd::status(&self.describe());
    }

    /// What `systemctl status` shows.
    fn describe(&self) -> String {
        let mut counts = [0_usize; ZoneState::ALL.len()];
        for entry in self.table.now().entries() {
            counts[entry.state() as usize] += 1;
        }
        let states = ZoneState::ALL.iter().zip(counts).filter(|(_, count)| *count > 0);
        let states: Vec<_> = states.map(|(state, count)| format!("{count} {}", state.word())).collect();
        let listening: Vec<_> = self.addresses().iter().map(ToString::to_string).collect();
        let admin = self.admin_address().map_or_else(|| "off".into(), |address| format!("http://{address}"));
        let secure = self.listeners.secure_addresses();
        let secure: String = secure.iter().map(|(what, at)| format!("; {} {at}", what.transport().word())).collect();
        format!("listening on {}; admin {admin}; zones: {}{secure}", listening.join(" "), states.join(", "))
    }

    /// Sends what is under way, then closes everything.
    async fn end(mut self) {
        systemd::stopping();
        self.stopping.cancel();
        self.ready.send_replace(false);
        for serving in self.listeners.replace(Wanted::default(), Fresh::default(), &self.certificates.shown()) {
            self.draining.spawn(drain(serving));
        }
        while self.draining.join_next().await.is_some() {}
        self.forwarding.forwarder().drain().await;
        if let Some(snapshot) = &self.snapshot {
            snapshot.flush().await;
        }
        tracing::info!("stopped");
    }
}

/// Where the last known nodes are kept, and for how long they are believed.
#[derive(Debug, Eq, PartialEq)]
struct SnapshotKeys {
    directory: Option<PathBuf>,
    max_age: Duration,
}

impl SnapshotKeys {
    fn of(server: &Server) -> Self {
        let directory = server.state_dir.clone().or_else(systemd::state_directory);
        Self { directory, max_age: server.snapshot_max_age }
    }

    fn open(&self, counters: &Arc<ProcessCounters>) -> Result<Option<(SnapshotStore, SnapshotWriter)>, SnapshotError> {
        let directory = self.directory.as_deref();
        directory.map(|directory| SnapshotStore::open(directory, self.max_age, counters.clone())).transpose()
    }
}

async fn drain(serving: Serving) {
    let address = serving.address();
    serving.stop().await;
    tracing::info!(%address, "no longer listening");
}

/// Ready once every zone of the start has had its first tick, or [`READY_AT_LATEST`] has passed.
async fn become_ready(table: Arc<ZoneTable>, ready: watch::Sender<bool>) {
    let waited_for = async {
        while table.entries().any(|entry| entry.poll_status().ticks == 0) {
            tokio::time::sleep(READY_CHECK).await;
        }
    };
    let in_time = tokio::time::timeout(READY_AT_LATEST, waited_for).await.is_ok();
    ready.send_replace(true);
    let zones = table.len();
    if in_time {
        tracing::info!(zones, "ready");
    } else {
        let missing = table.entries().filter(|entry| entry.poll_status().ticks == 0).count();
        tracing::warn!(zones, missing, "ready, although some zones have not been polled yet");
    }
}

/// How much further back than an answering thread a learning one stands (`nice`). Where they share a core, a question
/// need not wait until a file is read or a thousand polls are through; and where all cores are flooded, a tenth of
/// what an answering thread gets remains to learn with.
const LEARNING_NICE: i32 = 10;

/// Lets answering threads go first. It holds for this thread, which learns, and for those that it starts from now on.
fn step_back() {
    if let Err(error) = rustix::process::nice(LEARNING_NICE) {
        tracing::debug!(%error, "learning does not step back for answering");
    }
}

/// A kept connection for each zone and every TCP client needs a descriptor; the soft limit is often 1024.
fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
    }
}

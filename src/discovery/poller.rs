//! The loop of one zone: poll, decide, publish, report, wait.

mod cycle;
mod reasons;
mod reports;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::warn;

use self::cycle::{BetterScopes, PollError};
use super::{
    changelog::{self, NodeLog, NotAskedLog, StateLog},
    clock::{Pauses, now, pause},
    membership::{
        Actions, AddressOwnership, Decision, Event, Inheritance, Membership, MembershipView, OtherZones, Publication,
        Timing,
    },
    node::{Endpoint, NodeClient},
    poll::{Ask, AtScale, Candidates, ListQueries, Nodes, SharedReplies, TIMEOUTS_IN_TICK, Turns},
    probes::{ProbeSubscription, Prober},
    seeds::{self, HostLookup, Seeds},
};
use crate::{
    config,
    metrics::ProcessCounters,
    snapshot::{LastKnown, SnapshotStore},
    table::{Knowledge, Origin, PollStatus, ReportSource, ZoneEntry},
    types::{NodeSet, ZoneState, unix_now},
};

/// First polls are spread over this time, so that many zones do not poll at once.
const START_SPREAD: Duration = Duration::from_millis(100);

/// A zone without any address waits this long for the first look-up of its seeds' names before its first poll.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);

/// First polls at scale are spread over a refresh, but no longer than readiness waits for them.
const SPREAD_AT_SCALE_MAX: Duration = Duration::from_secs(5);

/// How late a poller may be beyond its own timers before it counts as stalled: a busy machine is no stall.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Timers fire at full milliseconds, and a change is due only past its moment.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// Seeds that one failed poll has certainly asked, even when all of them hang.
const SEEDS_IN_TICK: usize = 8;

/// What all pollers share.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Connections to nodes.
    pub alternator: NodeClient,
    /// Addresses of seeds that are host names.
    pub lookup: HostLookup,
    /// Probes of nodes.
    pub prober: Prober,
    /// When polls may begin.
    pub turns: Turns,
    /// What the other zones answer.
    pub ownership: AddressOwnership,
    /// What nodes have replied a short time ago.
    pub shared: SharedReplies,
    /// How often the process was held up.
    pub pauses: Pauses,
    /// Limits the log lines about nodes that were not asked.
    pub not_asked: NotAskedLog,
    /// Where the time to a changed answer is counted.
    pub counters: Arc<ProcessCounters>,
    /// Whether zones are many: each then keeps one connection, and first polls are spread over a whole refresh.
    pub at_scale: AtScale,
    /// The nodes kept for the next start; `None`: no `state_dir`.
    pub snapshot: Option<SnapshotStore>,
}

/// Which cluster the nodes belong to that are already published when a poller starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// The same cluster: they are polled. This is the case for a new zone, after a change of `refresh`, `timeout` or
    /// `health`, and after a panic of the poller.
    Continue,
    /// The same nodes, but which of them were found foreign means nothing: `cluster_id` changed.
    NewClusterId,
    /// The same cluster, unless no seed turns out to belong to it: only `seeds` changed. That is how one moves a name.
    NewSeeds,
    /// Perhaps another cluster: `port`, `scheme`, `tls` or `scope` changed. The nodes are answered but never polled, and
    /// the first accepted list of the seeds replaces them.
    NewCluster,
}

/// Polls one zone for as long as it runs. Drop it at any moment to stop it: no publication spans an await.
#[derive(Debug)]
pub struct Poller<A = Nodes> {
    entry: Arc<ZoneEntry>,
    queries: ListQueries<A>,
    zone: Arc<config::Zone>,
    resources: Resources,
    membership: Arc<Mutex<Membership>>,
    /// The zone's probes, once it runs.
    probes: OnceLock<ProbeSubscription>,
    /// Other nodes may be due to report.
    reports_changed: Notify,
    /// The first poll has ended; before that, polls ask for the reports that they need.
    has_polled: Notify,
    /// The pauses of the process that the nodes have been verified after.
    pauses_seen: AtomicU64,
    /// From 0 to 1: sets zones apart that have started together.
    phase: f64,
    /// What was last logged of the zone's state.
    state_log: Mutex<StateLog>,
    /// The nodes that were logged.
    node_log: Mutex<NodeLog>,
}

impl Poller {
    /// Prepares to poll a zone. From now on the zone is answered with the nodes of the snapshot, or with the addresses
    /// among the seeds.
    pub fn new(entry: Arc<ZoneEntry>, zone: &Arc<config::Zone>, start: Start, resources: &Resources) -> Self {
        if let config::Scheme::Https(config::Tls { insecure: true, .. }) = zone.cluster.scheme {
            warn!(zone = %entry.name(), "certificates of nodes are not checked: tls.insecure is true");
        }
        let asks = Nodes::new(&resources.alternator, &resources.shared, zone);
        Self::with(entry, zone, start, resources, asks)
    }
}

impl<A: Ask> Poller<A> {
    pub(super) fn with(
        entry: Arc<ZoneEntry>,
        zone: &Arc<config::Zone>,
        start: Start,
        resources: &Resources,
        asks: A,
    ) -> Self {
        let view = empty_view(zone, asks.identity_query().is_some());
        let view = first_view(view, &entry, zone, start, resources);
        let status = PollStatus::clone(&entry.poll_status());
        let status_scope = status.scope;
        entry.report(PollStatus {
            origin: view.origin(),
            last_success: view.last_success(),
            seeds_disagree: false,
            ..status
        });
        let published = entry.answers().knowledge.clone();
        let state = if matches!(published, Knowledge::Waiting(_)) { ZoneState::Waiting } else { entry.state() };
        let state_log = StateLog::new(state, status_scope, now());
        let node_log = NodeLog::new(&entry.answers());
        let poller = Self {
            queries: ListQueries::new(asks, entry.clone()),
            entry,
            zone: zone.clone(),
            resources: resources.clone(),
            membership: Arc::new(Mutex::new(Membership::new(view, published))),
            probes: OnceLock::new(),
            reports_changed: Notify::new(),
            has_polled: Notify::new(),
            pauses_seen: AtomicU64::new(resources.pauses.count()),
            phase: rand::random(),
            state_log: Mutex::new(state_log),
            node_log: Mutex::new(node_log),
        };
        let membership: Weak<dyn ReportSource> = Arc::<Mutex<Membership>>::downgrade(&poller.membership);
        poller.entry.read_reports_from(membership);
        poller.handle(Event::Time);
        poller
    }

    /// How long a poller of this zone may report nothing before it counts as stalled.
    pub fn silence_max(zone: &config::Zone) -> Duration {
        let scopes = u32::try_from(zone.cluster.scope.len()).unwrap_or(u32::MAX).max(1);
        // When its time is over, a poll may still wait for a missing node, and then for those of a scope; for the id of
        // the last sender's cluster, and then for that of a missing node's.
        let tick = zone.timeout * (TIMEOUTS_IN_TICK + 4);
        SPREAD_AT_SCALE_MAX + FIRST_LOOKUP + zone.refresh * 2 + tick * scopes + LATE_MAX
    }

    /// Runs until dropped.
    pub async fn run(&self) -> Infallible {
        let seeds = Seeds::new(&self.zone.cluster.seeds, &self.resources.lookup);
        // One task does all three, so that none sees a half-made change of another.
        tokio::select! {
            never = self.poll_loop(seeds) => never,
            never = self.report_loop() => never,
            never = self.watch_health() => never,
        }
    }

    /// Poll, report, wait.
    async fn poll_loop(&self, mut seeds: Seeds) -> Infallible {
        let mut candidates = Candidates::default();
        let mut better_scopes = BetterScopes::default();
        let mut failed_polls = 0_usize;
        self.begin(&mut seeds).await;
        loop {
            self.resources.turns.wait().await;
            let started = Instant::now();
            seeds.freshen(seeds::AGE_MAX);
            let addresses = seeds.addresses();
            let seeds_failed = failed_polls > 0 && failed_polls * SEEDS_IN_TICK >= addresses.len();
            let no_candidate = addresses.is_empty() && self.membership().view().candidates(seeds_failed).is_empty();
            let fail_open = fail_open(&self.zone, addresses.iter().copied());
            self.handle(Event::Seeds { addresses: &addresses, fail_open: fail_open.as_ref() });
            match Box::pin(self.poll(&mut candidates, &mut better_scopes, &addresses, seeds_failed)).await {
                Ok(()) => {
                    failed_polls = 0;
                    self.handle(Event::PollSucceeded);
                }
                Err(error) => {
                    failed_polls += 1;
                    let why = match error {
                        PollError::NoCandidate => seeds.refusal(),
                        error => error.to_string(),
                    };
                    self.handle(Event::PollFailed(&why));
                    seeds.freshen(Duration::ZERO);
                }
            }
            self.report(&seeds);
            self.has_polled.notify_one();
            tokio::select! {
                () = sleep_until(started + pause(self.zone.refresh, rand::random())) => {}
                () = seeds.changed(), if no_candidate => {}
            }
        }
    }

    /// Waits until the zone's first poll is due, and for a first look-up if there is no candidate without it.
    async fn begin(&self, seeds: &mut Seeds) {
        let spread = if self.resources.at_scale.get() { SPREAD_AT_SCALE_MAX } else { START_SPREAD };
        sleep(spread.min(self.zone.refresh).mul_f64(rand::random())).await;
        if seeds.addresses().is_empty() && self.membership().view().candidates(false).is_empty() {
            // If it is late, the first poll reports why there is no address.
            let _ = timeout(FIRST_LOOKUP, seeds.changed()).await;
        }
    }

    /// Handles the outcomes of probes, and the changes that are due at a certain time.
    async fn watch_health(&self) -> Infallible {
        let probes = self.probes.get_or_init(|| self.resources.prober.subscribe(self.entry.name()));
        self.set_probes();
        loop {
            let change = self.membership().view().next_change(now()).map(|at| Instant::from_std(at) + TIMER_GRAIN);
            tokio::select! {
                (node, finished) = probes.next() => self.probed(node, &finished),
                (node, reply) = probes.next_identity() => self.identified(node, &reply),
                () = sleep_until(change.unwrap_or_else(Instant::now)), if change.is_some() => {
                    self.handle(Event::Time);
                }
            }
        }
    }

    fn handle(&self, event: Event<'_>) -> Option<Decision> {
        self.handle_arrived(event, None)
    }

    /// Performs what an event calls for. `arrived` says when the event's cause reached us, if a node sent it.
    fn handle_arrived(&self, event: Event<'_>, arrived: Option<Instant>) -> Option<Decision> {
        let pauses = self.resources.pauses.count();
        if self.pauses_seen.swap(pauses, Relaxed) != pauses {
            self.perform(Event::Paused, None);
        }
        self.perform(event, arrived)
    }

    fn perform(&self, event: Event<'_>, arrived: Option<Instant>) -> Option<Decision> {
        let others = self.other_zones();
        let actions = self.membership().on(event, now(), &others);
        let Actions { decision, publish, probes_changed, confirm, reports_changed, remember, notices } = actions;
        for notice in notices {
            changelog::log_notice(self.entry.name(), &notice);
        }
        if let Some(publication) = publish {
            self.publish(&publication, arrived);
            others.register(publication.addresses.as_ref());
        }
        if probes_changed {
            self.set_probes();
        }
        // Nodes that are not probed any more are to be asked for their ids in another way.
        if reports_changed || probes_changed {
            self.reports_changed.notify_one();
        }
        for node in confirm {
            self.probes.get().inspect(|probes| probes.confirm(node));
        }
        if let (Some(nodes), Some(snapshot)) = (remember, &self.resources.snapshot) {
            snapshot.remember(self.entry.name(), &self.zone.cluster, &nodes);
        }
        decision
    }

    fn other_zones(&self) -> OtherZones<'_> {
        let (ownership, zone) = (&self.resources.ownership, self.entry.name());
        OtherZones { ownership, zone, port: self.zone.cluster.port, label: self.zone.cluster_label.as_ref() }
    }

    /// Has the zone's nodes probed, and no others.
    fn set_probes(&self) {
        let (Some(probes), Some(health)) = (self.probes.get(), self.zone.health) else { return };
        let nodes = self.membership().view().to_probe();
        probes.set(nodes.into_iter().map(|node| self.endpoint(node)), health);
        let probe_interval = Some(probes.effective_interval());
        let status = self.entry.poll_status();
        if status.probe_interval != probe_interval {
            self.entry.report(PollStatus { probe_interval, ..PollStatus::clone(&status) });
        }
    }

    fn endpoint(&self, address: IpAddr) -> Endpoint {
        let cluster = &self.zone.cluster;
        Endpoint { scheme: cluster.scheme.clone(), address, port: cluster.port }
    }

    /// Publishes to the table, and logs what changed.
    fn publish(&self, publication: &Publication, arrived: Option<Instant>) {
        let before = self.entry.answers().clone();
        self.entry.learn(&publication.knowledge, unix_now());
        let after = self.entry.answers().clone();
        if let Some(arrived) = arrived
            && before.answered != after.answered
        {
            self.resources.counters.node_change.observe(arrived.elapsed());
        }
        let (joined, left) = self.node_log.lock().unwrap_or_else(PoisonError::into_inner).observe(&after);
        changelog::log_nodes(self.entry.name(), &joined, &left, &after);
        self.explain();
        let source = self.membership().view().source();
        self.entry.keep_changes(source);
        self.log_state();
    }

    fn report(&self, seeds: &Seeds) {
        self.report_status(seeds);
        self.explain();
        // A reload may have changed the rules meanwhile.
        self.entry.keep_changes(self.entry.poll_status().source);
        self.log_state();
    }

    fn report_status(&self, seeds: &Seeds) {
        let status = self.entry.poll_status();
        let membership = self.membership();
        let view = membership.view();
        self.entry.report(PollStatus {
            ticks: status.ticks + 1,
            last_tick: Some(now()),
            last_success: view.last_success(),
            source: view.source(),
            last_error: view.error().map(str::to_owned),
            unresolved: seeds.unresolved(),
            seeds_disagree: view.seeds_disagree(),
            cluster_id: view.cluster_id(),
            others: view.others(),
            foreign: NodeSet::new(view.foreign()),
            failing: view.failing(),
            probe_interval: status.probe_interval,
            origin: view.origin(),
            scope: view.active_scope(),
            active_scope: self.answered_scope(view.active_scope(), view.lists(view.active_scope())),
        });
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        // One task locks it, and never across an await, as does what reads the reports for a person.
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a poller knows without any earlier one.
fn empty_view(zone: &config::Zone, identifies: bool) -> MembershipView {
    let timing = Timing { refresh: zone.refresh, max_stale: zone.max_stale };
    let view = MembershipView::new(timing, zone.health, zone.cluster.scope.len(), now());
    let view = if identifies { view.identifying() } else { view };
    match zone.cluster_id {
        Some(id) => view.pinned(id),
        None => view,
    }
}

/// What a new poller starts from.
fn first_view(
    mut view: MembershipView,
    entry: &ZoneEntry,
    zone: &config::Zone,
    start: Start,
    resources: &Resources,
) -> MembershipView {
    let (status, answers) = (entry.poll_status(), entry.answers());
    if let Knowledge::Known(known) = &answers.knowledge {
        let inherited = Inheritance {
            last_success: status.last_success,
            others: nodes_of(status.others.as_ref()),
            foreign: nodes_of(status.foreign.as_ref()),
            failing: status.failing.clone(),
            id: status.cluster_id,
            seeds_edited: start == Start::NewSeeds,
        };
        let inherited = match start {
            Start::NewClusterId => Inheritance { foreign: Vec::new(), id: None, ..inherited },
            Start::Continue | Start::NewSeeds | Start::NewCluster => inherited,
        };
        let is_same = start != Start::NewCluster;
        let addresses = NodeSet::new(known.nodes.iter().map(|node| node.address));
        return match (status.origin, addresses) {
            (Origin::Cluster, _) if is_same => view.resuming(&known.nodes, status.scope, inherited),
            (Origin::Remembered, Some(nodes)) if is_same => view.remembering(nodes, inherited),
            _ => view.following(known.nodes.clone(), status.last_success),
        };
    }
    let recalled = resources.snapshot.as_ref().and_then(|snapshot| snapshot.recall(entry.name(), &zone.cluster));
    let Some(LastKnown { nodes, seeds_edited, written }) = recalled else {
        let literal: Vec<IpAddr> = seeds::literal(&zone.cluster.seeds).collect();
        view.seeds(&literal, fail_open(zone, literal.iter().copied()));
        return view;
    };
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    let (others, foreign) = (nodes_of(nodes.others.as_ref()), nodes_of(nodes.foreign.as_ref()));
    let last_success = now().checked_sub(age);
    let inherited = Inheritance { last_success, others, foreign, failing: Vec::new(), id: nodes.id, seeds_edited };
    view.remembering(nodes.nodes, inherited)
}

fn nodes_of(set: Option<&NodeSet>) -> Vec<IpAddr> {
    set.map(|set| set.as_slice().to_vec()).unwrap_or_default()
}

/// The addresses that are answered while nothing is learnt: the seeds, but not for a scope, because their datacenters
/// are not known.
fn fail_open(zone: &config::Zone, seeds: impl Iterator<Item = IpAddr>) -> Option<NodeSet> {
    if zone.cluster.scope.is_empty() { NodeSet::new(seeds) } else { None }
}

#[cfg(test)]
mod tests;

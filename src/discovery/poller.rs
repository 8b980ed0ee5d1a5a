//! The loop of one zone: poll, decide, publish, report, wait.

mod cycle;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use self::cycle::PollError;
use super::{
    changelog,
    clock::{now, pause},
    membership::{
        Actions, AddressOwnership, Decision, Event, Membership, MembershipView, OtherZones, Overlaps, Publication,
        Timing,
    },
    node::{Endpoint, FetchError, NodeClient},
    poll::{Ask, AtScale, Candidates, ListQueries, Nodes, TIMEOUTS_IN_TICK},
    probes::{ProbeSubscription, Prober},
    seeds::{self, HostLookup, Seeds},
};
use crate::{
    config,
    metrics::ProcessCounters,
    snapshot::SnapshotStore,
    table::{Knowledge, Origin, PollStatus, ZoneEntry},
    types::{NodeSet, unix_now},
};

/// First polls are spread over this time, so that many zones do not poll at once.
const START_SPREAD: Duration = Duration::from_millis(100);

/// A zone without any address waits this long for the first look-up of its seeds' names before its first poll.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);

/// The interval, ± 10 %, at which one of the seeds is asked for its list, to compare it with the published nodes; or
/// `refresh`, if that is longer.
const SEED_CHECK: Duration = Duration::from_secs(30);

/// The same for each zone at scale. A seed's connection is not kept, so asking a seed costs four times as much as a
/// poll: every 30 s, that was a third of the CPU that ten thousand zones took.
const SEED_CHECK_AT_SCALE: Duration = Duration::from_secs(120);

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
    /// What the other zones publish.
    pub ownership: AddressOwnership,
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
    /// Perhaps another cluster: `seeds`, `port`, `scheme`, `tls` or `scope` changed. They are answered but never polled,
    /// and the first usable list of a new seed replaces them.
    NewCluster,
}

/// Polls one zone for as long as it runs. Drop it at any moment to stop it: no publication spans an await.
#[derive(Debug)]
pub struct Poller<A = Nodes> {
    entry: Arc<ZoneEntry>,
    queries: ListQueries<A>,
    zone: Arc<config::Zone>,
    resources: Resources,
    membership: Mutex<Membership>,
    /// The zone's probes, once it runs.
    probes: OnceLock<ProbeSubscription>,
}

impl Poller {
    /// Prepares to poll a zone. From now on the zone is answered with the nodes of the snapshot, or with the addresses
    /// among the seeds.
    pub fn new(entry: Arc<ZoneEntry>, zone: &Arc<config::Zone>, start: Start, resources: &Resources) -> Self {
        if let config::Scheme::Https(config::Tls { insecure: true, .. }) = zone.cluster.scheme {
            warn!(zone = %entry.name(), "certificates of nodes are not checked: tls.insecure is true");
        }
        let asks = Nodes::new(&resources.alternator, zone);
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
        let view = first_view(&entry, zone, start, resources);
        let status = PollStatus::clone(&entry.poll_status());
        entry.report(PollStatus {
            origin: view.origin(),
            last_success: view.last_success(),
            seeds_disagree: false,
            ..status
        });
        let published = entry.answers().knowledge.clone();
        let poller = Self {
            queries: ListQueries::new(asks, entry.clone()),
            entry,
            zone: zone.clone(),
            resources: resources.clone(),
            membership: Mutex::new(Membership::new(view, published)),
            probes: OnceLock::new(),
        };
        poller.handle(Event::Time);
        poller
    }

    /// How long a poller of this zone may report nothing before it counts as stalled.
    pub fn silence_max(zone: &config::Zone) -> Duration {
        let scopes = u32::try_from(zone.cluster.scope.len()).unwrap_or(u32::MAX).max(1);
        // When its time is over, a poll may still wait for a missing node, and then for those of a scope.
        let tick = zone.timeout * (TIMEOUTS_IN_TICK + 2);
        SPREAD_AT_SCALE_MAX + FIRST_LOOKUP + zone.refresh * 2 + tick * scopes + LATE_MAX
    }

    /// Runs until dropped.
    pub async fn run(&self) -> Infallible {
        let seeds = Seeds::new(&self.zone.cluster.seeds, &self.resources.lookup);
        // One task does all three, so that none sees a half-made change of another.
        tokio::select! {
            never = self.poll_loop(seeds.clone()) => never,
            never = self.check_seeds(seeds) => never,
            never = self.watch_health() => never,
        }
    }

    /// Poll, report, wait.
    async fn poll_loop(&self, mut seeds: Seeds) -> Infallible {
        let mut candidates = Candidates::default();
        let mut failed_polls = 0_usize;
        self.begin(&mut seeds).await;
        loop {
            let started = Instant::now();
            seeds.freshen(seeds::AGE_MAX);
            let addresses = seeds.addresses();
            let seeds_failed = failed_polls > 0 && failed_polls * SEEDS_IN_TICK >= addresses.len();
            let no_candidate = addresses.is_empty() && self.membership().view().candidates(seeds_failed).is_empty();
            self.handle(Event::Seeds(fail_open(&self.zone, addresses.iter().copied()).as_ref()));
            match Box::pin(self.poll(&mut candidates, &addresses, seeds_failed)).await {
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
            self.report();
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
                (node, outcome) = probes.next() => self.handle(Event::Probed(node, outcome)),
                () = sleep_until(change.unwrap_or_else(Instant::now)), if change.is_some() => self.handle(Event::Time),
            };
        }
    }

    fn handle(&self, event: Event<'_>) -> Option<Decision> {
        self.handle_arrived(event, None)
    }

    /// Performs the actions for an event. `arrived` is when the reply that caused it began to arrive, if one did.
    fn handle_arrived(&self, event: Event<'_>, arrived: Option<Instant>) -> Option<Decision> {
        let others = self.other_zones();
        let actions = self.membership().on(event, now(), &others);
        let Actions { decision, publish, probes_changed, confirm, remember } = actions;
        if let Some(publication) = publish {
            self.publish(&publication, arrived);
            others.register(publication.addresses.as_ref(), publication.live);
        }
        if probes_changed {
            self.set_probes();
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
        OtherZones { ownership: &self.resources.ownership, zone: self.entry.name(), cluster: &self.zone.cluster }
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
        changelog::log_changes(self.entry.name(), &before, &after, publication.error.as_deref());
    }

    fn report(&self) {
        let status = self.entry.poll_status();
        let membership = self.membership();
        let view = membership.view();
        self.entry.report(PollStatus {
            ticks: status.ticks + 1,
            last_tick: Some(now()),
            last_success: view.last_success(),
            source: view.source(),
            last_error: view.error().map(str::to_owned),
            seeds_disagree: status.seeds_disagree,
            probe_interval: status.probe_interval,
            origin: view.origin(),
            scope: view.active_scope(),
        });
    }

    /// Asks the seeds in turn for their lists. Reports which ones disagree with the published nodes, and changes nothing
    /// else.
    async fn check_seeds(&self, mut seeds: Seeds) -> Infallible {
        let mut disagreeing = BTreeSet::new();
        let mut turn = 0_usize;
        let mut wait = self.seed_check_pause();
        if self.resources.at_scale.get() {
            // All zones start at once.
            wait = wait.mul_f64(rand::random());
        }
        loop {
            sleep(wait).await;
            wait = self.seed_check_pause();
            turn = turn.wrapping_add(1);
            let addresses = seeds.addresses();
            disagreeing.retain(|seed| addresses.contains(seed));
            if let Some(seed) = turn.checked_rem(addresses.len()).map(|turn| addresses[turn]) {
                // Boxed, as the poll is: a zone waits most of the time, and should take little memory then.
                match (Box::pin(self.seed_list(seed)).await, self.membership().view().learnt()) {
                    (Ok(Some(listed)), Some(learnt)) => {
                        let disagrees = !listed.as_slice().iter().any(|node| learnt.contains(node));
                        let changed = if disagrees { disagreeing.insert(seed) } else { disagreeing.remove(&seed) };
                        if changed {
                            changelog::log_disagreement(self.entry.name(), seed, &listed, disagrees);
                        }
                    }
                    // A seed that sends no list contradicts nothing.
                    _ => _ = disagreeing.remove(&seed),
                }
            }
            let status = PollStatus::clone(&self.entry.poll_status());
            self.entry.report(PollStatus { seeds_disagree: !disagreeing.is_empty(), ..status });
        }
    }

    /// The list of a seed in the active scope.
    async fn seed_list(&self, seed: IpAddr) -> Result<Option<NodeSet>, FetchError> {
        let scope = self.zone.cluster.scope.get(self.membership().view().active_scope());
        Ok(self.query(seed, scope).await?.nodes)
    }

    fn seed_check_pause(&self) -> Duration {
        let every = if self.resources.at_scale.get() { SEED_CHECK_AT_SCALE } else { SEED_CHECK };
        pause(every.max(self.zone.refresh), rand::random())
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        // One task alone locks it, and never across an await.
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view that a new poller starts with.
fn first_view(entry: &ZoneEntry, zone: &config::Zone, start: Start, resources: &Resources) -> MembershipView {
    let pace = Timing { refresh: zone.refresh, max_stale: zone.max_stale };
    let view = MembershipView::new(pace, zone.health, zone.cluster.scope.len(), now());
    let status = entry.poll_status();
    let answers = entry.answers();
    let none = Overlaps::default();
    let related = |nodes: &[IpAddr]| resources.ownership.overlaps(entry.name(), &zone.cluster, nodes, &none);
    if let Knowledge::Known(known) = &answers.knowledge {
        let nodes: Vec<IpAddr> = known.nodes.iter().map(|node| node.address).collect();
        return match (start, status.origin, NodeSet::new(nodes.iter().copied())) {
            (Start::Continue, Origin::Cluster, _) => {
                view.resuming(&known.nodes, status.scope, status.last_success, related(&nodes))
            }
            (Start::Continue, Origin::Remembered, Some(set)) => {
                view.remembering(set, status.last_success, related(&nodes))
            }
            _ => view.following(known.nodes.clone(), status.last_success),
        };
    }
    let remembered = resources.snapshot.as_ref().and_then(|snapshot| snapshot.recall(entry.name(), &zone.cluster));
    let Some(remembered) = remembered else {
        let mut view = view;
        view.seeds(fail_open(zone, seeds::literal(&zone.cluster.seeds)));
        return view;
    };
    let age = SystemTime::now().duration_since(remembered.written).unwrap_or_default();
    let overlaps = related(remembered.nodes.as_slice());
    view.remembering(remembered.nodes, now().checked_sub(age), overlaps)
}

/// The addresses that are answered while nothing is learnt: the seeds, but not for a scope, because their datacenters
/// are not known.
fn fail_open(zone: &config::Zone, seeds: impl Iterator<Item = IpAddr>) -> Option<NodeSet> {
    if zone.cluster.scope.is_empty() { NodeSet::new(seeds) } else { None }
}

#[cfg(test)]
mod tests;

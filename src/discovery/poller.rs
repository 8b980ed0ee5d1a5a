//! The loop that learns one zone: ask, judge, publish, report, wait.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::warn;

use super::{
    changelog,
    clock::{now, pause},
    membership::{AddressOwnership, Membership, Overlaps, Timing},
    node::{Endpoint, NodeClient},
    poll::{Ask, AtScale, Candidates, Nodes, ScopeSupport, TIMEOUTS_IN_TICK},
    probes::{ProbeSubscription, Prober},
    seeds::{self, HostLookup, Seeds},
};
use crate::{
    config,
    metrics::ProcessCounters,
    snapshot::SnapshotStore,
    table::{Answers, Knowledge, Origin, PollStatus, ZoneEntry},
    types::{NodeSet, ZoneName, unix_now},
};

/// First ticks are spread over so much, so that many zones do not ask all at once.
const START_SPREAD: Duration = Duration::from_millis(100);

/// A zone without any address waits so long for the first look-up of its seeds' names before its first tick.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);

/// A seed is asked every so often, give or take a tenth, what it thinks of the published nodes; or every `refresh`, where
/// that is longer.
const SEED_CHECK: Duration = Duration::from_secs(30);

/// The same for each zone of a crowd. A seed's connection is not kept, so that asking it costs four times what a poll
/// costs: every 30 s, that was a third of all that ten thousand zones took.
const SEED_CHECK_AT_SCALE: Duration = Duration::from_secs(120);

/// First ticks of a crowd of zones are spread over a refresh, but no longer than readiness waits for them.
const SPREAD_AT_SCALE_MAX: Duration = Duration::from_secs(5);

/// What a poller may be late beyond its own timers before it counts as stalled: a busy machine is no stall.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Timers fire at full milliseconds, and a change is due only past its moment.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// Seeds that one failed tick is sure to have asked, even when all of them hang.
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
    /// What outlives the process; `None`: nothing does.
    pub snapshot: Option<SnapshotStore>,
}

/// What the nodes that are published already are to a new poller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Nodes of the very cluster: they are asked. So it is for a new zone, for one whose pace changed, and after a
    /// poller has panicked.
    Continue,
    /// Perhaps nodes of another cluster: `seeds`, `port`, `scheme`, `tls` or `scope` changed. They are answered but
    /// never asked, and the first usable list of a new seed replaces them.
    NewCluster,
}

/// Learns one zone for as long as it runs. It is stopped by dropping it, at any moment: no publication spans an await.
#[derive(Debug)]
pub struct Poller<A = Nodes> {
    pub(super) entry: Arc<ZoneEntry>,
    pub(super) asks: A,
    pub(super) zone: Arc<config::Zone>,
    pub(super) resources: Resources,
    pub(super) support: ScopeSupport,
    membership: Mutex<Membership>,
    /// The nodes to probe, or to confirm, may have changed.
    relisted: Notify,
}

impl Poller {
    /// Prepares to learn a zone. What is known already is answered from now on: nodes that an earlier process wrote
    /// down, or the addresses among the seeds.
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
        let membership = first_membership(&entry, zone, start, resources);
        let status = PollStatus::clone(&entry.poll_status());
        entry.report(PollStatus {
            origin: membership.origin(),
            last_success: membership.last_success(),
            seeds_disagree: false,
            ..status
        });
        let poller = Self {
            entry,
            asks,
            zone: zone.clone(),
            resources: resources.clone(),
            support: ScopeSupport::default(),
            membership: Mutex::new(membership),
            relisted: Notify::new(),
        };
        poller.publish(None);
        poller
    }

    /// How long a poller of this zone may report nothing before it counts as stalled.
    pub fn silence_max(zone: &config::Zone) -> Duration {
        let scopes = u32::try_from(zone.cluster.scope.len()).unwrap_or(u32::MAX).max(1);
        // A tick may have just begun to hear a missing node when its time is over, and hear others that a scope lacks.
        let tick = zone.timeout * (TIMEOUTS_IN_TICK + 2);
        SPREAD_AT_SCALE_MAX + FIRST_LOOKUP + zone.refresh * 2 + tick * scopes + LATE_MAX
    }

    /// Runs until dropped.
    pub async fn run(&self) -> Infallible {
        let seeds = Seeds::new(&self.zone.cluster.seeds, &self.resources.lookup);
        // One task does all three, so that none sees what another has half done.
        tokio::select! {
            never = self.learn(seeds.clone()) => never,
            never = self.doubt(seeds) => never,
            never = self.attend() => never,
        }
    }

    /// HedgedPoll, publish, report, wait; for ever.
    async fn learn(&self, mut seeds: Seeds) -> Infallible {
        let (mut rota, mut failed_ticks) = (Candidates::default(), 0_usize);
        self.begin(&mut seeds).await;
        loop {
            let started = Instant::now();
            seeds.freshen(seeds::AGE_MAX);
            let addresses = seeds.addresses();
            let seeds_failed = failed_ticks > 0 && failed_ticks * SEEDS_IN_TICK >= addresses.len();
            let nobody = addresses.is_empty() && self.membership().candidates(seeds_failed).is_empty();
            self.membership().seeds(fail_open(&self.zone, addresses.iter().copied()));
            self.publish(None);
            match Box::pin(self.tick(&mut rota, &addresses, seeds_failed)).await {
                Ok(()) => failed_ticks = 0,
                Err(failures) => {
                    failed_ticks += 1;
                    let why = if failures.is_empty() { seeds.complaint() } else { failures };
                    self.membership().fail(why);
                    seeds.freshen(Duration::ZERO);
                }
            }
            self.publish(None);
            self.report();
            tokio::select! {
                () = sleep_until(started + pause(self.zone.refresh, rand::random())) => {}
                () = seeds.changed(), if nobody => {}
            }
        }
    }

    /// Waits for the zone's place among all first ticks, and for a first look-up if nobody could be asked without.
    async fn begin(&self, seeds: &mut Seeds) {
        let spread = if self.resources.at_scale.get() { SPREAD_AT_SCALE_MAX } else { START_SPREAD };
        sleep(spread.min(self.zone.refresh).mul_f64(rand::random())).await;
        if seeds.addresses().is_empty() && self.membership().candidates(false).is_empty() {
            // Late or not, the first tick says what is the matter.
            let _ = timeout(FIRST_LOOKUP, seeds.changed()).await;
        }
    }

    /// Minds the nodes: hears probes, and lets time do what it does.
    async fn attend(&self) -> Infallible {
        let mut subscription = self.resources.prober.follow(self.entry.name());
        self.follow(&mut subscription);
        loop {
            let change = self.membership().next_change(now()).map(|moment| Instant::from_std(moment) + TIMER_GRAIN);
            tokio::select! {
                (node, heard) = subscription.next() => {
                    let change = self.membership().hear(node, heard);
                    if change.confirm {
                        subscription.confirm(node);
                    }
                    // Most probes are no news, and large zones have many of them.
                    if !change.changed {
                        continue;
                    }
                }
                () = self.relisted.notified() => self.follow(&mut subscription),
                () = sleep_until(change.unwrap_or_else(Instant::now)), if change.is_some() => {}
            }
            self.publish(None);
        }
    }

    fn follow(&self, subscription: &mut ProbeSubscription) {
        let Some(health) = self.zone.health else { return };
        let (nodes, to_confirm) = {
            let mut membership = self.membership();
            (membership.to_probe(), membership.take_confirmations())
        };
        subscription.set(nodes.into_iter().map(|node| self.endpoint(node)), health);
        for node in to_confirm {
            subscription.confirm(node);
        }
        let probe_interval = Some(subscription.effective_interval());
        let status = self.entry.poll_status();
        if status.probe_interval != probe_interval {
            self.entry.report(PollStatus { probe_interval, ..PollStatus::clone(&status) });
        }
    }

    fn endpoint(&self, address: IpAddr) -> Endpoint {
        let cluster = &self.zone.cluster;
        Endpoint { scheme: cluster.scheme.clone(), address, port: cluster.port }
    }

    /// Puts what is believed in force, if it is news. `arrived` tells when the news reached us, if a node sent it.
    pub(super) fn publish(&self, arrived: Option<Instant>) {
        let (knowledge, error, origin) = {
            let mut membership = self.membership();
            if membership.probing_changed() {
                self.relisted.notify_one();
            }
            (membership.knowledge(now()), membership.error().map(str::to_owned), membership.origin())
        };
        let before = self.entry.answers().clone();
        if before.knowledge == knowledge {
            return;
        }
        self.entry.learn(&knowledge, unix_now());
        let after = self.entry.answers().clone();
        if let Some(arrived) = arrived
            && before.answered != after.answered
        {
            self.resources.counters.node_change.observe(arrived.elapsed());
        }
        changelog::tell(self.entry.name(), &before, &after, error.as_deref());
        register_addresses(&self.resources.ownership, self.entry.name(), &self.zone.cluster, origin, &after);
    }

    fn report(&self) {
        let status = self.entry.poll_status();
        let membership = self.membership();
        self.entry.report(PollStatus {
            ticks: status.ticks + 1,
            last_tick: Some(now()),
            last_success: membership.last_success(),
            source: membership.source(),
            last_error: membership.error().map(str::to_owned),
            seeds_disagree: status.seeds_disagree,
            probe_interval: status.probe_interval,
            origin: membership.origin(),
            scope: membership.active_scope(),
        });
        // Only what was confirmed: a snapshot must not stay young through an outage.
        if membership.error().is_none()
            && let (Some(snapshot), Some(nodes)) = (&self.resources.snapshot, membership.learnt())
        {
            snapshot.remember(self.entry.name(), &self.zone.cluster, &nodes);
        }
    }

    /// Asks the seeds in turn what they think of the published nodes; shows who disagrees, follows nobody.
    async fn doubt(&self, mut seeds: Seeds) -> Infallible {
        let (mut disagreeing, mut turn) = (BTreeSet::new(), 0_usize);
        let mut wait = self.seed_check_pause();
        if self.resources.at_scale.get() {
            // They have all started at once.
            wait = wait.mul_f64(rand::random());
        }
        loop {
            sleep(wait).await;
            wait = self.seed_check_pause();
            turn = turn.wrapping_add(1);
            let addresses = seeds.addresses();
            disagreeing.retain(|seed| addresses.contains(seed));
            if let Some(seed) = turn.checked_rem(addresses.len()).map(|turn| addresses[turn]) {
                // Boxed, as the tick is: a zone waits nearly always, and should be small then.
                match (Box::pin(self.opinion(seed)).await, self.membership().learnt()) {
                    (Ok(Some(listed)), Some(learnt)) => {
                        let disagrees = !listed.as_slice().iter().any(|node| learnt.contains(node));
                        let news = if disagrees { disagreeing.insert(seed) } else { disagreeing.remove(&seed) };
                        if news {
                            changelog::tell_disagreement(self.entry.name(), seed, &listed, disagrees);
                        }
                    }
                    // Who says nothing contradicts nobody.
                    _ => _ = disagreeing.remove(&seed),
                }
            }
            let status = PollStatus::clone(&self.entry.poll_status());
            self.entry.report(PollStatus { seeds_disagree: !disagreeing.is_empty(), ..status });
        }
    }

    fn seed_check_pause(&self) -> Duration {
        let every = if self.resources.at_scale.get() { SEED_CHECK_AT_SCALE } else { SEED_CHECK };
        pause(every.max(self.zone.refresh), rand::random())
    }

    pub(super) fn membership(&self) -> MutexGuard<'_, Membership> {
        // One task alone locks it, and never across an await.
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the other zones what a zone publishes now. It is live for them for as long as its cluster is heard: one whose
/// nodes disagree, or are not healthy, gives no address away.
pub(super) fn register_addresses(
    ownership: &AddressOwnership,
    zone: &ZoneName,
    cluster: &config::Cluster,
    origin: Origin,
    answers: &Answers,
) {
    let (nodes, live) = match &answers.knowledge {
        Knowledge::Known(known) if origin != Origin::FormerCluster => {
            (NodeSet::new(known.nodes.iter().map(|node| node.address)), known.holds)
        }
        _ => (None, false),
    };
    ownership.publish(zone, cluster, nodes.as_ref(), live);
}

/// What a new poller starts from.
fn first_membership(entry: &ZoneEntry, zone: &config::Zone, start: Start, resources: &Resources) -> Membership {
    let pace = Timing { refresh: zone.refresh, max_stale: zone.max_stale };
    let membership = Membership::new(pace, zone.health, zone.cluster.scope.len(), now());
    let (status, answers) = (entry.poll_status(), entry.answers());
    let none = Overlaps::default();
    let related = |nodes: &[IpAddr]| resources.ownership.overlaps(entry.name(), &zone.cluster, nodes, &none);
    if let Knowledge::Known(known) = &answers.knowledge {
        let nodes: Vec<IpAddr> = known.nodes.iter().map(|node| node.address).collect();
        return match (start, status.origin, NodeSet::new(nodes.iter().copied())) {
            (Start::Continue, Origin::Cluster, _) => {
                membership.resuming(&known.nodes, status.scope, status.last_success, related(&nodes))
            }
            (Start::Continue, Origin::Remembered, Some(set)) => {
                membership.remembering(set, status.last_success, related(&nodes))
            }
            _ => membership.following(known.nodes.clone(), status.last_success),
        };
    }
    let remembered = resources.snapshot.as_ref().and_then(|snapshot| snapshot.recall(entry.name(), &zone.cluster));
    let Some(remembered) = remembered else {
        let mut membership = membership;
        membership.seeds(fail_open(zone, seeds::literal(&zone.cluster.seeds)));
        return membership;
    };
    let age = SystemTime::now().duration_since(remembered.written).unwrap_or_default();
    let overlaps = related(remembered.nodes.as_slice());
    membership.remembering(remembered.nodes, now().checked_sub(age), overlaps)
}

/// What is answered while nothing is learnt: the seeds, but not for a scope, because nobody knows where they are.
fn fail_open(zone: &config::Zone, seeds: impl Iterator<Item = IpAddr>) -> Option<NodeSet> {
    if zone.cluster.scope.is_empty() { NodeSet::new(seeds) } else { None }
}

#[cfg(test)]
mod tests;

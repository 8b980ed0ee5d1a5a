//! One zone's place in the table: its answers, its counters and what its poller last saw.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};

use super::{
    answers::{Answers, Knowledge, ZoneSettings},
    choice::Node,
    description::{LastProbe, Record, ZoneDescription},
    drains::ZoneDrains,
    history::{Change, History},
    reports::{ReportSource, ZoneReports},
    version::publish,
    zone_id::AllocatedZoneId,
};
use crate::{
    metrics::{AllWorkers, QueryType, Rcode, Transport, ZoneCounters, ZoneId},
    types::{ClusterId, NodeSet, ProbeFailure, Scope, ZoneName, ZoneState},
};

/// How often what is shown of any zone has changed.
static SHOWN_VERSION: AtomicU64 = AtomicU64::new(0);

/// Grows after the [revision](ZoneEntry::revision) of any zone: while the number stays the same, no zone is shown otherwise.
pub fn shown_version() -> u64 {
    SHOWN_VERSION.load(Acquire)
}

/// A zone that is configured. It outlives reloads that keep the zone.
#[derive(Debug)]
pub struct ZoneEntry {
    name: ZoneName,
    id: AllocatedZoneId,
    answers: ArcSwap<Answers>,
    poll_status: ArcSwap<PollStatus>,
    /// For people; workers never read it.
    record: Mutex<Record>,
    /// The last changes, for people.
    history: Mutex<History>,
    /// The answers have changed since the last observation of `history`.
    is_unobserved: AtomicBool,
    /// How often what is shown of the zone has changed.
    revision: AtomicU64,
    /// What the nodes have reported, for people; the poller has it.
    reports: Mutex<Option<Weak<dyn ReportSource>>>,
    counters: ZoneCounters,
}

/// What the poller last saw, for people.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PollStatus {
    /// Ticks that have ended, well or badly. The first one makes the zone ready.
    pub ticks: u64,
    /// When the last one ended: a poller that works never lets this grow old.
    pub last_tick: Option<Instant>,
    /// When a usable list last arrived.
    pub last_success: Option<Instant>,
    /// The node that sent it.
    pub source: Option<IpAddr>,
    /// What went wrong in the last tick; `None` after a good one.
    pub last_error: Option<String>,
    /// A sentence for each seed whose name could not be resolved last.
    pub unresolved: Vec<String>,
    /// A seed lists nodes that have nothing in common with what is published.
    pub seeds_disagree: bool,
    /// The id of the zone's cluster.
    pub cluster_id: Option<ClusterId>,
    /// The zone's nodes besides those that are answered.
    pub others: Option<NodeSet>,
    /// Nodes of other clusters.
    pub foreign: Option<NodeSet>,
    /// Nodes that have failed since their last success, and how often.
    pub failing: Vec<(IpAddr, u32)>,
    /// Between two probes of a node: longer than the file says when the zone has many. `None`: no node is probed.
    pub probe_interval: Option<Duration>,
    /// Where what is answered comes from.
    pub origin: Origin,
    /// Which of the zone's scopes is answered, counted from 0.
    pub scope: usize,
    /// The same in words; `None`: the zone has no scopes, or no node is known.
    pub active_scope: Option<Scope>,
}

impl PollStatus {
    /// Whether it differs at most in times, counts and the source: they change with each poll.
    fn shows_the_same(&self, other: &Self) -> bool {
        self.last_error == other.last_error
            && self.seeds_disagree == other.seeds_disagree
            && self.cluster_id == other.cluster_id
            && self.foreign == other.foreign
            && self.active_scope == other.active_scope
            && self.last_success.is_some() == other.last_success.is_some()
    }
}

/// Where what is answered comes from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// Nothing is known but the seeds.
    #[default]
    Seeds,
    /// The cluster that the zone had before its seeds or port changed: those nodes are answered until the new seeds
    /// give a list, but never asked.
    FormerCluster,
    /// An earlier process wrote it down.
    Remembered,
    /// From the cluster of the zone.
    Cluster,
}

impl ZoneEntry {
    /// A zone about which nothing is known. `now` is the unix time in seconds.
    pub fn new(name: ZoneName, settings: ZoneSettings, now: u32) -> Self {
        let answers = Answers::new(settings, Knowledge::Waiting(None), now);
        let entry = Self {
            name,
            id: AllocatedZoneId::take(),
            record: Mutex::new(Record::new(&answers, now)),
            history: Mutex::new(History::new(ZoneState::Waiting)),
            is_unobserved: AtomicBool::new(false),
            revision: AtomicU64::new(0),
            reports: Mutex::default(),
            answers: ArcSwap::from_pointee(answers),
            poll_status: ArcSwap::default(),
            counters: ZoneCounters::default(),
        };
        // Another zone may have had the slot.
        publish(&entry.name);
        entry
    }

    /// The zone's own name.
    pub fn name(&self) -> &ZoneName {
        &self.name
    }

    /// A place that no other living zone has, where workers keep what is this zone's.
    pub fn id(&self) -> ZoneId {
        self.id.id()
    }

    /// What is answered now.
    pub fn answers(&self) -> Guard<Arc<Answers>> {
        self.answers.load()
    }

    /// What the poller last saw.
    pub fn poll_status(&self) -> Guard<Arc<PollStatus>> {
        self.poll_status.load()
    }

    /// The zone's counters.
    pub fn counters(&self) -> &ZoneCounters {
        &self.counters
    }

    /// Questions answered for this zone, on either path.
    pub fn queries(&self, workers: &AllWorkers, query_type: QueryType, rcode: Rcode, transport: Transport) -> u64 {
        let fast_path = match transport {
            Transport::Udp => workers.of(self.id(), query_type, rcode),
            Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic => 0,
        };
        self.counters.queries.value(query_type, rcode, transport) + fast_path
    }

    /// Puts what was learnt in force; `now` is the unix time in seconds.
    pub fn learn(&self, knowledge: &Knowledge, now: u32) {
        self.answers.rcu(|answers| answers.with_knowledge(knowledge.clone(), now));
        publish(&self.name);
        self.update_record(now);
    }

    /// Puts other settings in force; what was learnt stays.
    pub fn configure(&self, settings: &ZoneSettings, now: u32) {
        self.answers.rcu(|answers| answers.with_settings(settings.clone(), now));
        publish(&self.name);
        self.update_record(now);
    }

    /// Puts other drains in force, if they are others. What has changed is kept at once.
    pub fn drain(&self, drains: &ZoneDrains, now: u32) {
        if self.answers().drains == *drains {
            return;
        }
        self.answers.rcu(|answers| answers.with_drains(drains.clone(), now));
        publish(&self.name);
        self.update_record(now);
        self.keep_changes(self.poll_status().source);
    }

    /// The lock comes first: of two threads that change the answers, the later one records what holds then.
    fn update_record(&self, now: u32) {
        let mut record = self.record();
        record.update(&self.answers(), now);
        self.is_unobserved.store(true, Release);
        self.revise();
    }

    /// How often what people see of the zone has changed: state, reasons, nodes, last changes; not ages and probes that
    /// succeed. Two equal numbers mean that [`Self::describe`] gives the same.
    pub fn revision(&self) -> u64 {
        self.revision.load(Acquire)
    }

    /// Call this after the change is in place.
    fn revise(&self) {
        self.revision.fetch_add(1, Release);
        SHOWN_VERSION.fetch_add(1, Release);
    }

    /// Keeps what has changed since the last call, with the reasons as they are now. `source` is the node whose list is in
    /// force.
    pub fn keep_changes(&self, source: Option<IpAddr>) {
        if !self.is_unobserved.swap(false, AcqRel) {
            return;
        }
        let seen = self.describe();
        self.history().observe(&seen, source, SystemTime::now());
        self.revise();
    }

    /// The last changes of the zone and its nodes, the oldest first.
    pub fn changes(&self) -> Vec<Change> {
        self.history().changes()
    }

    /// From now on the reports of nodes are read here. It may end before the zone does.
    pub fn read_reports_from(&self, source: Weak<dyn ReportSource>) {
        *self.reports.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    /// What the nodes have reported; nothing while the zone has no poller.
    pub fn reports(&self) -> ZoneReports {
        let source = self.reports.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        source.map(|source| source.reports()).unwrap_or_default()
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // A panic can leave it incomplete, which is no reason to show nothing.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // A panic can leave it incomplete, which is no reason to show nothing.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over why the zone, and each of these nodes, is in its state.
    pub fn explain(&self, zone: Option<Arc<str>>, nodes: impl IntoIterator<Item = (IpAddr, Arc<str>)>) {
        if self.record().explain(zone, nodes) {
            self.revise();
        }
    }

    /// Records how a probe of a node ended. No answer changes by that.
    pub fn record_probe(&self, node: IpAddr, last: LastProbe, failure: Option<&ProbeFailure>) {
        if self.record().probed(node, last, failure) {
            self.revise();
        }
    }

    /// Records that a poll of a node failed in a way that counts as a failed probe.
    pub fn record_failure(&self, node: IpAddr, failure: ProbeFailure) {
        if self.record().failed(node, failure) {
            self.revise();
        }
    }

    /// The zone and its nodes, for people.
    pub fn describe(&self) -> ZoneDescription {
        let record = self.record();
        record.describe(&self.answers(), self.poll_status().last_error.as_deref())
    }

    /// Publishes what the poller saw in its last tick.
    pub fn report(&self, status: PollStatus) {
        let status = Arc::new(status);
        let former = self.poll_status.swap(status.clone());
        if !former.shows_the_same(&status) {
            self.revise();
        }
    }

    /// The zone's state in one word.
    pub fn state(&self) -> ZoneState {
        self.answers().state()
    }

    /// The nodes that were learnt; none while waiting.
    pub fn nodes(&self) -> Arc<[Node]> {
        match &self.answers().knowledge {
            Knowledge::Waiting(_) => Arc::new([]),
            Knowledge::Known(known) => known.nodes.clone(),
        }
    }
}

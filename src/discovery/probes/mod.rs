//! Probes the nodes that zones list.
//!
//! One task serves all zones. A [`Schedule`] decides when each endpoint is probed and shares the slots fairly; the task
//! owns one task for each probe in flight. Zones that probe the same endpoint with the same timeout share its probes:
//! the shortest interval among them holds, and each zone counts the outcomes itself.
//!
//! A zone may ask for a node's cluster id: the next successful probe of the node leaves its connection to an identity
//! query. The probe's outcome does not wait for the query.
//!
//! A probe that panics is logged and counts as a failure of its node. If the serving task panics, that is logged, and
//! it starts again with all subscriptions, so that zones go on getting outcomes.

mod finished;
mod identities;
mod pace;
mod schedule;

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    fmt,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error};

pub use self::finished::FinishedProbe;
use self::{
    identities::Identities,
    schedule::{ActiveProbe, ProbeSettings, Schedule, ZoneKey},
};
use super::node::{Endpoint, IdentityQuery, IdentityReply, NodeClient};
use crate::{
    config::Health,
    types::{ProbeFailure, ZoneName},
};

/// Probes in flight for all zones together. Nodes that answer hold a slot for a millisecond, so this is far more than
/// thousands of probes a second need; while nodes hang it bounds what they cost, about 20 kB each.
const IN_FLIGHT_MAX: usize = 512;

/// The pause before probing starts again after a panic: its cause may still be there.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Asks one node whether it is healthy.
pub trait Probe: Send + Sync + 'static {
    /// Asks on a fresh connection; `within` bounds how long. Where the node is healthy, the query may follow on the same
    /// connection.
    fn probe(
        &self,
        endpoint: &Endpoint,
        within: Duration,
        query: Option<IdentityQuery>,
    ) -> impl Future<Output = Probed> + Send;
}

/// Why a node is not healthy; or, if it is, the rest of the probe, which asks for the id of the node's cluster. `None`:
/// no query was given, or it cannot be sent.
pub type Probed = Result<Option<IdentityTask>, ProbeFailure>;

/// An identity query, which ends by itself; it gives nothing when the node was not asked.
type IdentityTask = Pin<Box<dyn Future<Output = Option<IdentityReply>> + Send>>;

impl Probe for NodeClient {
    async fn probe(&self, endpoint: &Endpoint, within: Duration, query: Option<IdentityQuery>) -> Probed {
        let healthy = match query {
            None => self.health(endpoint, within).await.map(|()| None),
            Some(query) => self.health_before_identity(endpoint, within).await.map(|connection| {
                let task: IdentityTask = Box::pin(async move { connection.identify(&query, within).await });
                Some(task)
            }),
        };
        if let Err(error) = &healthy {
            debug!(node = %endpoint.address, port = endpoint.port, %error, "not healthy");
        }
        Ok(healthy?)
    }
}

/// Probes for all zones. Clones share everything. Probing ends when the last clone and the last `ProbeSubscription` are
/// dropped.
#[derive(Clone)]
pub struct Prober(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Started with the first subscription.
    task: OnceLock<AbortOnDropHandle<Infallible>>,
}

struct Shared {
    probe: Box<dyn BoxedProbe>,
    chance: Box<Chance>,
    schedule: Mutex<Schedule>,
    /// Locked by holders of the schedule's lock too, and never the other way round.
    identities: Mutex<Identities>,
    /// The schedule was changed from outside.
    schedule_changed: Notify,
}

/// Gives numbers from 0 up to 1.
type Chance = dyn Fn() -> f64 + Send + Sync;

impl Prober {
    /// Probes nothing before the first subscription.
    pub fn new(probe: impl Probe) -> Self {
        Self::with(probe, rand::random::<f64>)
    }

    fn with(probe: impl Probe, chance: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        let schedule = Mutex::new(Schedule::new(IN_FLIGHT_MAX));
        let shared = Shared {
            probe: Box::new(Arc::new(probe)),
            chance: Box::new(chance),
            schedule,
            identities: Mutex::default(),
            schedule_changed: Notify::new(),
        };
        Self(Arc::new(Inner { shared: Arc::new(shared), task: OnceLock::new() }))
    }

    /// One zone's subscription. Call it on a runtime, and always on the same one.
    pub fn subscribe(&self, zone: &ZoneName) -> ProbeSubscription {
        let shared = &self.0.shared;
        self.0.task.get_or_init(|| AbortOnDropHandle::new(tokio::spawn(shared.clone().serve())));
        let (key, arrived) = shared.lock().subscribe();
        let identified = shared.identities().join(key);
        ProbeSubscription { prober: self.clone(), name: zone.clone(), key, arrived, identified }
    }

    /// How many endpoints are probed; one that is probed with two timeouts counts twice.
    pub fn len(&self) -> usize {
        self.0.shared.lock().len()
    }

    /// Whether nothing is probed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").field("endpoints", &self.len()).finish_non_exhaustive()
    }
}

/// The nodes that one zone has probed. Dropping it ends every probe that no other zone shares.
pub struct ProbeSubscription {
    prober: Prober,
    name: ZoneName,
    key: ZoneKey,
    arrived: Arc<Notify>,
    identified: Arc<Notify>,
}

impl ProbeSubscription {
    /// Has these endpoints probed and no others, one for each address. New ones are probed at once, or, if they are
    /// many, within a quarter of the interval; the others keep their times.
    pub fn set(&self, endpoints: impl IntoIterator<Item = Endpoint>, health: Health) {
        let endpoints: BTreeMap<_, _> = endpoints.into_iter().map(|endpoint| (endpoint.address, endpoint)).collect();
        let shared = &self.prober.0.shared;
        shared.identities().keep_only(self.key, |endpoint| endpoints.get(&endpoint.address) == Some(endpoint));
        shared.lock().set(self.key, ProbeSettings { endpoints, health }, Instant::now(), &shared.chance);
        shared.schedule_changed.notify_one();
    }

    /// Probes a node now, out of turn. It adds no probe to one in flight, and waits for a few milliseconds after one
    /// that began a moment ago.
    pub fn confirm(&self, address: IpAddr) {
        let shared = &self.prober.0.shared;
        shared.lock().confirm(self.key, address, Instant::now());
        shared.schedule_changed.notify_one();
    }

    /// The next outcome, of a node in the present set. Safe to drop at any moment.
    pub async fn next(&self) -> (IpAddr, FinishedProbe) {
        loop {
            if let Some(outcome) = self.prober.0.shared.lock().take(self.key) {
                return outcome;
            }
            self.arrived.notified().await;
        }
    }

    /// Asks a node that is followed for the id of its cluster, over the connection of its next successful probe. Until
    /// the reply has arrived, repeating this changes nothing.
    pub fn identify(&self, endpoint: &Endpoint, query: &IdentityQuery) {
        self.prober.0.shared.identities().want(self.key, endpoint, query);
    }

    /// The next reply to [`Self::identify`], of a node that is followed now. Safe to drop at any moment.
    pub async fn next_identity(&self) -> (IpAddr, IdentityReply) {
        loop {
            if let Some(identified) = self.prober.0.shared.identities().take(self.key) {
                return identified;
            }
            self.identified.notified().await;
        }
    }

    /// The interval between two probes of a node: longer than asked for when nodes are many.
    pub fn effective_interval(&self) -> Duration {
        self.prober.0.shared.lock().interval(self.key)
    }
}

impl Drop for ProbeSubscription {
    fn drop(&mut self) {
        self.prober.0.shared.lock().unsubscribe(self.key);
        self.prober.0.shared.identities().leave(self.key);
    }
}

impl fmt::Debug for ProbeSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProbeSubscription").field(&self.name).finish()
    }
}

/// Probes and identity queries in flight. They end when this is dropped.
#[derive(Default)]
struct ActiveProbes {
    tasks: JoinSet<Probed>,
    known: HashMap<task::Id, Started>,
    queries: JoinSet<Option<IdentityReply>>,
    asked: HashMap<task::Id, (Arc<Endpoint>, IdentityQuery)>,
}

/// A probe in flight, and the identity query that it carries.
struct Started {
    probe: ActiveProbe,
    endpoint: Arc<Endpoint>,
    query: Option<IdentityQuery>,
}

impl Shared {
    /// A panic may have left the schedule half changed. It never panics on that, and `serve` restarts it.
    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn identities(&self) -> MutexGuard<'_, Identities> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Probes until it is dropped. A panic is a fault of this program; zones still need outcomes after it.
    async fn serve(self: Arc<Self>) -> Infallible {
        loop {
            let Err(_) = AssertUnwindSafe(self.run()).catch_unwind().await;
            error!(pause = ?RESTART_PAUSE, "the prober panicked and is started again; zones keep their nodes");
            sleep(RESTART_PAUSE).await;
            self.lock().restart(Instant::now());
            self.identities().renew();
        }
    }

    async fn run(&self) -> Infallible {
        let mut active = ActiveProbes::default();
        loop {
            let wake = self.start_due(&mut active);
            tokio::select! {
                Some(finished) = active.tasks.join_next_with_id() => self.finish(&mut active, finished),
                Some(finished) = active.queries.join_next_with_id() => self.finish_query(&mut active, finished),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                () = self.schedule_changed.notified() => {}
            }
        }
    }

    /// Begins every probe that is due and may have a slot. Returns when to look again.
    fn start_due(&self, active: &mut ActiveProbes) -> Option<Instant> {
        let mut schedule = self.lock();
        while let Some((probe, endpoint, within)) = schedule.begin(Instant::now()) {
            let query = self.identities().begin(&endpoint);
            let probing = self.probe.begin(endpoint.clone(), within, query.clone());
            // This frees the slot even if a probe ignores its timeout.
            let bounded = async move { timeout(within, probing).await.unwrap_or(Err(ProbeFailure::Timeout(within))) };
            let task = active.tasks.spawn(bounded);
            active.known.insert(task.id(), Started { probe, endpoint, query });
            schedule.set_abort_handle(probe, task);
        }
        schedule.wake()
    }

    /// Records the outcome of this probe, and of all others that have ended meanwhile.
    fn finish(&self, active: &mut ActiveProbes, finished: Result<(task::Id, Probed), JoinError>) {
        let mut schedule = self.lock();
        let mut next = Some(finished);
        while let Some(finished) = next {
            let id = finished.as_ref().map_or_else(JoinError::id, |&(id, _)| id);
            if let Some(Started { probe, endpoint, query }) = active.known.remove(&id) {
                let (result, identity) = match finished {
                    Ok((_, Ok(identity))) => (Some(Ok(())), identity),
                    Ok((_, Err(failure))) => (Some(Err(failure)), None),
                    Err(error) if error.is_panic() => {
                        error!(node = %endpoint.address, port = endpoint.port, %error, "a probe panicked");
                        (Some(Err(ProbeFailure::Panicked)), None)
                    }
                    Err(_aborted) => (None, None),
                };
                schedule.end(probe, result, Instant::now(), (self.chance)());
                match (query, identity) {
                    (Some(query), Some(identity)) => {
                        let task = active.queries.spawn(identity);
                        active.asked.insert(task.id(), (endpoint, query));
                    }
                    (Some(query), None) => self.identities().end(&endpoint, &query, None),
                    (None, _) => {}
                }
            }
            next = active.tasks.try_join_next_with_id();
        }
    }

    /// Takes over how an identity query ended.
    fn finish_query(&self, active: &mut ActiveProbes, finished: Result<(task::Id, Option<IdentityReply>), JoinError>) {
        let id = finished.as_ref().map_or_else(JoinError::id, |&(id, _)| id);
        let Some((endpoint, query)) = active.asked.remove(&id) else { return };
        let reply = match finished {
            Ok((_, reply)) => reply,
            Err(error) => {
                error!(node = %endpoint.address, port = endpoint.port, %error, "an identity query panicked");
                None
            }
        };
        self.identities().end(&endpoint, &query, reply);
    }
}

/// A [`Probe`] of any type.
trait BoxedProbe: Send + Sync {
    fn begin(&self, endpoint: Arc<Endpoint>, within: Duration, query: Option<IdentityQuery>) -> BoxedProbed;
}

type BoxedProbed = Pin<Box<dyn Future<Output = Probed> + Send>>;

impl<P: Probe> BoxedProbe for Arc<P> {
    fn begin(&self, endpoint: Arc<Endpoint>, within: Duration, query: Option<IdentityQuery>) -> BoxedProbed {
        let probe = self.clone();
        Box::pin(async move { probe.probe(&endpoint, within, query).await })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU8, NonZeroU16},
        ops::RangeInclusive,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::{super::membership::ProbeOutcome, *};
    use crate::{
        config::Scheme,
        simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const MILLI: Duration = Duration::from_millis(1);

    /// Longer than a real probe takes on a busy machine.
    const LONG: Duration = Duration::from_secs(20);

    #[derive(Clone, Copy)]
    enum Habit {
        Answers(Duration),
        Refuses,
        Hangs,
        Panics,
    }

    /// Nodes that answer at once unless a test says otherwise. Each probe is recorded.
    #[derive(Clone, Default)]
    struct World {
        habits: Arc<Mutex<HashMap<IpAddr, Habit>>>,
        probes: Arc<Mutex<Vec<(Instant, IpAddr)>>>,
        in_flight: Arc<AtomicUsize>,
    }

    impl Probe for World {
        async fn probe(&self, endpoint: &Endpoint, _within: Duration, _query: Option<IdentityQuery>) -> Probed {
            struct InFlight<'a>(&'a AtomicUsize);
            impl Drop for InFlight<'_> {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::Relaxed);
                }
            }
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            let _in_flight = InFlight(&self.in_flight);
            self.probes.lock().unwrap().push((Instant::now(), endpoint.address));
            let habit = self.habits.lock().unwrap().get(&endpoint.address).copied();
            match habit.unwrap_or(Habit::Answers(MILLI)) {
                Habit::Answers(after) => {
                    sleep(after).await;
                    Ok(None)
                }
                Habit::Refuses => Err(ProbeFailure::Refused),
                Habit::Hangs => std::future::pending().await,
                Habit::Panics => panic!("as the test demands"),
            }
        }
    }

    impl World {
        fn new(habits: impl IntoIterator<Item = (u16, Habit)>) -> Self {
            let world = Self::default();
            habits.into_iter().for_each(|(n, habit)| world.will(n, habit));
            world
        }

        fn will(&self, n: u16, habit: Habit) {
            self.habits.lock().unwrap().insert(node(n), habit);
        }

        fn prober(&self) -> Prober {
            Prober::new(self.clone())
        }

        /// When a node was probed.
        fn times(&self, n: u16) -> Vec<Instant> {
            let probes = self.probes.lock().unwrap();
            probes.iter().filter(|&&(_, address)| address == node(n)).map(|&(at, _)| at).collect()
        }

        fn count(&self) -> usize {
            self.probes.lock().unwrap().len()
        }

        fn in_flight(&self) -> usize {
            self.in_flight.load(Ordering::Relaxed)
        }
    }

    fn node(n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    fn endpoint(n: u16) -> Endpoint {
        Endpoint { scheme: Scheme::Http, address: node(n), port: NonZeroU16::new(8000).unwrap() }
    }

    fn health(interval: Duration, timeout: Duration) -> Health {
        Health { interval, timeout, rise: NonZeroU8::MIN, fall: NonZeroU8::MIN }
    }

    fn zone(prober: &Prober) -> ProbeSubscription {
        prober.subscribe(&ZoneName::parse("a.example").unwrap())
    }

    /// A zone with these nodes, at this interval and with a timeout of a second.
    fn follow(prober: &Prober, nodes: RangeInclusive<u16>, interval: Duration) -> ProbeSubscription {
        let subscription = zone(prober);
        subscription.set(nodes.map(endpoint), health(interval, SECOND));
        subscription
    }

    /// The outcomes that a zone gets within a time, and when.
    async fn outcomes_within(
        subscription: &mut ProbeSubscription,
        within: Duration,
    ) -> Vec<(Duration, IpAddr, ProbeOutcome)> {
        let start = Instant::now();
        let mut all = Vec::new();
        while let Ok((node, finished)) = timeout(within - start.elapsed(), subscription.next()).await {
            all.push((start.elapsed(), node, finished.outcome().unwrap()));
        }
        all
    }

    fn gaps(times: &[Instant]) -> impl Iterator<Item = Duration> {
        times.windows(2).map(|pair| pair[1] - pair[0])
    }

    #[tokio::test(start_paused = true)]
    async fn new_nodes_are_probed_at_once_and_then_at_the_interval() {
        let world = World::default();
        let mut subscription = follow(&world.prober(), 1..=3, SECOND);
        let first = outcomes_within(&mut subscription, MILLI * 5).await;
        assert_eq!(first.len(), 3, "{first:?}");
        outcomes_within(&mut subscription, SECOND * 600).await;
        for n in 1..=3 {
            let times = world.times(n);
            assert!((580..=620).contains(&times.len()), "{}", times.len());
            assert!(gaps(&times).all(|gap| gap >= SECOND * 9 / 10 && gap <= SECOND * 11 / 10 + MILLI));
            let spread = gaps(&times).max().unwrap() - gaps(&times).min().unwrap();
            assert!(spread > SECOND / 10, "no two zones stay in step");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_zone_stays_below_a_hundred_probes_a_second() {
        let world = World::default();
        let mut subscription = follow(&world.prober(), 1..=500, SECOND);
        assert_eq!(subscription.effective_interval(), 5 * SECOND);
        let quarter = outcomes_within(&mut subscription, 5 * SECOND / 4 + 2 * MILLI).await;
        assert_eq!(quarter.len(), 500, "all are probed within a quarter of it");
        outcomes_within(&mut subscription, 100 * SECOND).await;
        let per_second = (world.count() - 500) / 100;
        assert!((98..=102).contains(&per_second), "{per_second}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_is_probed_once_however_many_zones_list_it() {
        let world = World::new([(2, Habit::Refuses)]);
        let prober = world.prober();
        let mut zones = [(); 3].map(|()| follow(&prober, 1..=2, SECOND));
        assert_eq!(prober.len(), 2);
        let all = outcomes_within(&mut zones[0], 60 * SECOND).await;
        let probes = world.count();
        assert!((105..=140).contains(&probes), "{probes}");
        assert_eq!(all.len(), probes);
        assert!(
            all.iter().all(|&(_, address, result)| result
                == if address == node(1) { ProbeOutcome::Up } else { ProbeOutcome::Refused })
        );
        assert!(outcomes_within(&mut zones[1], MILLI * 10).await.len() > 4, "each zone gets its own outcomes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_subscription_gets_an_outcome_at_once_and_another_port_is_another_endpoint() {
        let world = World::default();
        let prober = world.prober();
        let mut early = follow(&prober, 1..=1, 60 * SECOND);
        outcomes_within(&mut early, 10 * SECOND).await;
        let mut late = follow(&prober, 1..=1, 60 * SECOND);
        assert_eq!(outcomes_within(&mut late, MILLI * 5).await.len(), 1);
        let elsewhere = Endpoint { port: NonZeroU16::new(8043).unwrap(), ..endpoint(1) };
        late.set([elsewhere], health(60 * SECOND, SECOND));
        assert_eq!((prober.len(), outcomes_within(&mut late, MILLI * 5).await.len()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn shared_probes_are_made_at_the_shortest_interval() {
        let world = World::default();
        let prober = world.prober();
        let mut fast = zone(&prober);
        let mut slow = zone(&prober);
        fast.set([endpoint(1)], health(SECOND, SECOND));
        slow.set([endpoint(1)], health(30 * SECOND, SECOND));
        outcomes_within(&mut fast, 20 * SECOND).await;
        let times = world.times(1);
        assert!((18..=23).contains(&times.len()), "{}", times.len());
        assert!(gaps(&times).all(|gap| gap >= SECOND * 9 / 10), "once for both zones: {times:?}");
        assert!(!outcomes_within(&mut slow, MILLI).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn zones_with_different_timeouts_do_not_share_probes() {
        let world = World::new([(1, Habit::Answers(SECOND * 3 / 2))]);
        let prober = world.prober();
        let mut short = zone(&prober);
        let mut long = zone(&prober);
        short.set([endpoint(1)], health(SECOND, SECOND));
        long.set([endpoint(1)], health(30 * SECOND, 2 * SECOND));
        assert_eq!(prober.len(), 2);
        let outcomes = outcomes_within(&mut short, 19 * SECOND).await;
        assert!(outcomes.len() >= 14 && outcomes.iter().all(|&(.., outcome)| outcome == ProbeOutcome::Slow));
        let outcomes: Vec<_> =
            outcomes_within(&mut long, MILLI).await.into_iter().map(|(.., outcome)| outcome).collect();
        assert_eq!(outcomes, [ProbeOutcome::Up]);
        short.set([endpoint(1)], health(SECOND, 2 * SECOND));
        assert_eq!(prober.len(), 1, "now the timeouts are equal");
        assert_eq!(outcomes_within(&mut short, 2 * SECOND).await[0].2, ProbeOutcome::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stays_keeps_its_times_and_a_shorter_interval_holds_at_once() {
        let world = World::default();
        let mut subscription = follow(&world.prober(), 1..=2, 10 * SECOND);
        for last in [2, 3].into_iter().cycle().take(600) {
            subscription.set((1..=last).map(endpoint), health(10 * SECOND, SECOND));
            outcomes_within(&mut subscription, SECOND / 10).await;
        }
        let times = world.times(1);
        assert!((6..=8).contains(&times.len()), "{}", times.len());
        subscription.set([endpoint(1)], health(SECOND, SECOND));
        outcomes_within(&mut subscription, 5 * SECOND).await;
        assert!(world.times(1).len() >= times.len() + 4);
        assert_eq!(subscription.effective_interval(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_is_immediate_and_asking_often_changes_nothing() {
        let world = World::default();
        let mut subscription = follow(&world.prober(), 1..=1, 60 * SECOND);
        outcomes_within(&mut subscription, 10 * SECOND).await;
        world.will(1, Habit::Refuses);
        subscription.confirm(node(1));
        subscription.confirm(node(9));
        assert_eq!(outcomes_within(&mut subscription, MILLI).await.len(), 1);
        subscription.confirm(node(1));
        let all = outcomes_within(&mut subscription, MILLI * 60).await;
        assert_eq!(all.iter().map(|&(.., outcome)| outcome).collect::<Vec<_>>(), [ProbeOutcome::Refused]);
        let before = world.count();
        for _ in 0..1000 {
            subscription.confirm(node(1));
            sleep(MILLI).await;
        }
        assert!((19..=21).contains(&(world.count() - before)), "{}", world.count() - before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_refuses_gives_two_outcomes_within_little_more_than_an_interval() {
        for _ in 0..20 {
            let world = World::default();
            let mut subscription = follow(&world.prober(), 1..=1, SECOND);
            outcomes_within(&mut subscription, 3 * SECOND + SECOND.mul_f64(rand::random())).await;
            world.will(1, Habit::Refuses);
            let crashed = Instant::now();
            let mut first = next(&subscription).await;
            // One time in a thousand a probe is in flight at that moment, and the node has answered it already.
            if first == (node(1), ProbeOutcome::Up) {
                assert!(world.times(1).last().is_some_and(|begun| *begun <= crashed));
                first = next(&subscription).await;
            }
            assert_eq!(first, (node(1), ProbeOutcome::Refused));
            subscription.confirm(node(1));
            assert_eq!(next(&subscription).await, (node(1), ProbeOutcome::Refused));
            assert!(crashed.elapsed() < SECOND * 12 / 10, "{:?}", crashed.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_running_when_a_node_or_a_zone_goes() {
        let world = World::new([(1, Habit::Hangs), (2, Habit::Hangs)]);
        let prober = world.prober();
        let mut first = follow(&prober, 1..=4, SECOND);
        let second = follow(&prober, 2..=2, SECOND);
        sleep(SECOND / 2).await;
        assert_eq!((world.in_flight(), prober.len()), (2, 4));
        first.set([endpoint(4)], health(SECOND, SECOND));
        sleep(MILLI).await;
        assert_eq!((world.in_flight(), prober.len()), (1, 2), "the second zone still wants its node");
        let all = outcomes_within(&mut first, 10 * SECOND).await;
        assert!(all.iter().all(|&(_, address, _)| address == node(4)), "also what arrived before is forgotten");
        assert_eq!(world.times(3).len(), 1);
        drop(first);
        drop(second);
        sleep(MILLI).await;
        let probes = world.count();
        sleep(60 * SECOND).await;
        assert_eq!((world.in_flight(), prober.len(), world.count()), (0, 0, probes));
        let shared = Arc::downgrade(&prober.0.shared);
        drop(prober);
        sleep(MILLI).await;
        assert_eq!(shared.strong_count(), 0, "the task has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_last_subscription_ends_the_probes_in_flight() {
        let world = World::new([(1, Habit::Hangs)]);
        let subscription = follow(&world.prober(), 1..=2, SECOND);
        sleep(SECOND / 2).await;
        assert_eq!((world.in_flight(), world.count()), (1, 2), "a zone needs no other handle");
        drop(subscription);
        sleep(MILLI).await;
        assert_eq!(world.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn zones_whose_nodes_hang_do_not_starve_others() {
        let world = World::new((1000..6000).map(|n| (n, Habit::Hangs)));
        let prober = world.prober();
        let mut healthy = follow(&prober, 1..=3, SECOND);
        // Ten zones, each of which could fill every slot alone.
        let _hanging: Vec<_> = (0..10)
            .map(|nth| {
                let hanging = zone(&prober);
                hanging.set((1000 + 500 * nth..1500 + 500 * nth).map(endpoint), health(SECOND, 30 * SECOND));
                hanging
            })
            .collect();
        let all = outcomes_within(&mut healthy, 300 * SECOND).await;
        assert!(all.iter().all(|&(.., outcome)| outcome == ProbeOutcome::Up));
        for n in 1..=3 {
            let times = world.times(n);
            assert!(times.len() >= 280 && gaps(&times).all(|gap| gap <= SECOND * 11 / 10 + MILLI), "{}", times.len());
        }
        assert!((IN_FLIGHT_MAX * 3 / 4..=IN_FLIGHT_MAX).contains(&world.in_flight()), "{}", world.in_flight());
    }

    #[tokio::test(start_paused = true)]
    async fn five_hundred_hanging_nodes_are_all_probed_at_their_interval() {
        let world = World::new((1..=500).map(|n| (n, Habit::Hangs)));
        let mut hanging = follow(&world.prober(), 1..=500, SECOND);
        let all = outcomes_within(&mut hanging, 13 * SECOND).await;
        for n in 1..=500 {
            let failures = all
                .iter()
                .filter(|&&(_, address, outcome)| address == node(n) && outcome == ProbeOutcome::Slow)
                .count();
            assert!(failures >= 2, "two intervals, the timeout and a tenth have passed: {failures}");
        }
        assert!(world.in_flight() <= IN_FLIGHT_MAX / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_panics_is_a_failure_of_its_node_alone() {
        let world = World::new([(1, Habit::Panics)]);
        let mut subscription = follow(&world.prober(), 1..=2, SECOND);
        let all = outcomes_within(&mut subscription, 10 * SECOND).await;
        for (n, expected) in [(1, ProbeOutcome::Slow), (2, ProbeOutcome::Up)] {
            let count = all.iter().filter(|&&(_, address, outcome)| address == node(n) && outcome == expected).count();
            assert!((9..=12).contains(&count), "{count}");
        }
        world.will(1, Habit::Answers(MILLI));
        let all = outcomes_within(&mut subscription, 2 * SECOND).await;
        assert!(all.iter().any(|&(_, address, outcome)| (address, outcome) == (node(1), ProbeOutcome::Up)));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_panic_of_its_own_the_prober_starts_again() {
        let world = World::new([(1, Habit::Hangs)]);
        let will_panic = Arc::new(AtomicBool::new(false));
        let panics = will_panic.clone();
        let chance = move || if panics.swap(false, Ordering::Relaxed) { panic!("as the test demands") } else { 0.5 };
        let prober = Prober::with(world.clone(), chance);
        let mut subscription = follow(&prober, 1..=2, SECOND);
        outcomes_within(&mut subscription, 3 * SECOND).await;
        will_panic.store(true, Ordering::Relaxed);
        outcomes_within(&mut subscription, 5 * SECOND).await;
        assert!(!will_panic.load(Ordering::Relaxed));
        let all = outcomes_within(&mut subscription, 3 * SECOND).await;
        for wanted in [(node(1), ProbeOutcome::Slow), (node(2), ProbeOutcome::Up)] {
            assert!(all.iter().filter(|&&(_, address, outcome)| (address, outcome) == wanted).count() >= 2, "{all:?}");
        }
        assert_eq!(world.in_flight(), 1);
    }

    /// A zone of a simulated cluster, probed over real connections so rarely that only the probes that the test asks for happen.
    fn real(cluster: &SimulatedCluster) -> ProbeSubscription {
        let mut subscription = zone(&Prober::new(NodeClient::new()));
        wait_for(&mut subscription, cluster, LONG);
        subscription
    }

    fn wait_for(subscription: &mut ProbeSubscription, cluster: &SimulatedCluster, timeout: Duration) {
        let port = NonZeroU16::new(cluster.port()).unwrap();
        let endpoint = |address| Endpoint { scheme: Scheme::Http, address, port };
        subscription.set(cluster.nodes().into_iter().map(endpoint), health(600 * SECOND, timeout));
    }

    async fn next(subscription: &ProbeSubscription) -> (IpAddr, ProbeOutcome) {
        let (node, finished) = timeout(LONG * 2, subscription.next()).await.expect("an outcome arrives");
        (node, finished.outcome().unwrap())
    }

    #[tokio::test]
    async fn real_nodes_are_up_or_refuse_and_a_refusal_is_confirmed() {
        let cluster = SimulatedCluster::start(3).unwrap();
        let subscription = real(&cluster);
        let mut up = Vec::new();
        for _ in 0..3 {
            let (node, outcome) = next(&subscription).await;
            assert_eq!(outcome, ProbeOutcome::Up);
            up.push(node);
        }
        up.sort();
        assert_eq!(up, cluster.nodes());
        cluster.stop(up[1]);
        for _ in 0..2 {
            subscription.confirm(up[1]);
            assert_eq!(next(&subscription).await, (up[1], ProbeOutcome::Refused));
        }
        assert_eq!(cluster.total(Path::Health), 3, "no other node was asked again");
        cluster.restart(up[1]).unwrap();
        subscription.confirm(up[1]);
        assert_eq!(next(&subscription).await, (up[1], ProbeOutcome::Up));
        assert_eq!(cluster.connections(up[1]), 2, "each probe has its own connection");
    }

    #[tokio::test]
    async fn real_nodes_that_hang_drip_hang_up_or_err_are_slow() {
        let cluster = SimulatedCluster::start(1).unwrap();
        let node = cluster.node(0);
        let mut subscription = real(&cluster);
        assert_eq!(next(&subscription).await, (node, ProbeOutcome::Up));
        wait_for(&mut subscription, &cluster, SECOND / 4);
        for delivery in [Delivery::Hang, Delivery::Drip(SECOND / 10), Delivery::Close] {
            cluster.deliver(node, Path::Health, delivery.clone());
            subscription.confirm(node);
            assert_eq!(next(&subscription).await, (node, ProbeOutcome::Slow), "{delivery:?}");
        }
        wait_for(&mut subscription, &cluster, LONG);
        cluster.heal(node);
        cluster.say(node, Path::Health, Content::Reply(HttpReply::status(500)));
        subscription.confirm(node);
        assert_eq!(next(&subscription).await, (node, ProbeOutcome::Slow));
        cluster.heal(node);
        subscription.confirm(node);
        assert_eq!(next(&subscription).await, (node, ProbeOutcome::Up));
    }

    /// A simulated cluster whose nodes a zone follows, with real requests.
    struct RealProbes {
        cluster: SimulatedCluster,
        client: NodeClient,
        prober: Prober,
    }

    impl RealProbes {
        fn new(nodes: usize) -> Self {
            let client = NodeClient::new();
            let prober = Prober::new(client.clone());
            Self { cluster: SimulatedCluster::start(nodes).unwrap(), client, prober }
        }

        fn endpoints(&self) -> Vec<Endpoint> {
            let port = NonZeroU16::new(self.cluster.port()).unwrap();
            let endpoint = |address| Endpoint { scheme: Scheme::Http, address, port };
            self.cluster.nodes().into_iter().map(endpoint).collect()
        }

        /// A zone that follows all nodes and wants their ids.
        fn follow(&self, interval: Duration) -> (ProbeSubscription, IdentityQuery) {
            let (seed, port) = (self.cluster.node(0), self.cluster.port());
            let text = format!("[zones.\"a.example\"]\nseeds = [\"{seed}\"]\nport = {port}\n");
            let config = crate::config::Config::parse(std::path::Path::new("z.toml"), text.as_bytes()).unwrap();
            let query = self.client.identity_query(config.zones.values().next().unwrap()).unwrap();
            let subscription = zone(&self.prober);
            let endpoints = self.endpoints();
            endpoints.iter().for_each(|endpoint| subscription.identify(endpoint, &query));
            subscription.set(endpoints, health(interval, LONG));
            (subscription, query)
        }
    }

    #[tokio::test]
    async fn a_probe_brings_the_id_of_the_node_s_cluster_over_its_connection() {
        let real = RealProbes::new(3);
        let (subscription, _) = real.follow(LONG);
        let mut identified = std::collections::BTreeSet::new();
        while identified.len() < 3 {
            let (node, reply) = timeout(LONG, subscription.next_identity()).await.unwrap();
            assert_eq!(reply, IdentityReply::Id(real.cluster.cluster_id().unwrap()));
            identified.insert(node);
            // On a busy machine another node than the first may be asked with a later probe.
            real.cluster.nodes().into_iter().for_each(|node| subscription.confirm(node));
        }
        for node in real.cluster.nodes() {
            let probes = real.cluster.count(node, Path::Health);
            let connections = real.cluster.connections(node);
            assert_eq!(real.cluster.count(node, Path::Identity), 1);
            assert!(
                connections <= probes + 1,
                "{connections} connections for {probes} probes, one may have just begun"
            );
        }
    }

    #[tokio::test]
    async fn a_slow_identity_query_delays_no_outcome() {
        let real = RealProbes::new(1);
        let node = real.cluster.node(0);
        real.cluster.deliver(node, Path::Identity, Delivery::Hang);
        let (subscription, _) = real.follow(MILLI * 20);
        for _ in 0..5 {
            assert_eq!(timeout(LONG, next(&subscription)).await, Ok((node, ProbeOutcome::Up)));
        }
        assert_eq!(real.cluster.count(node, Path::Identity), 1, "one at a time");
    }

    #[tokio::test]
    async fn a_cluster_that_refuses_sees_one_query_of_all_zones_and_probes() {
        let real = RealProbes::new(8);
        real.cluster.authorize(crate::simulation::Authorization::Enforce, &[]);
        let zones: Vec<_> = (0..4).map(|_| real.follow(MILLI * 20)).collect();
        for round in 0..3 {
            for (subscription, query) in &zones {
                for _ in 0..8 {
                    let (node, reply) = timeout(LONG, subscription.next_identity()).await.unwrap();
                    assert!(matches!(reply, IdentityReply::Refused(_)), "{round}: {reply:?}");
                    let endpoint = real.endpoints().into_iter().find(|endpoint| endpoint.address == node).unwrap();
                    subscription.identify(&endpoint, query);
                }
            }
        }
        let counts = real.cluster.identity_counts();
        assert_eq!((counts.unsigned, counts.signed), (1, 0));
    }
}

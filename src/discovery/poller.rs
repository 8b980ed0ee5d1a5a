//! The loop that learns one zone: ask, decide, publish, report, wait.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::IpAddr,
    num::NonZeroU16,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::{
    alternator::{Alternator, FetchError, Reply},
    candidates::Rota,
    localnodes::Listing,
    lookup::{self, HostLookup},
    news,
    seeds::{self, Seeds},
    snapshot::Memory,
    step::{Effect, Learnt, Outcome, State, pause, step},
    tick::{Failures, TIMEOUTS_IN_TICK, tick},
};
use crate::{
    config,
    metrics::{PollResult, ProcessCounters},
    table::{Knowledge, PollStatus, ZoneEntry},
    zone::{NodeSet, Seed},
};

/// First ticks are spread over so much, so that many zones do not ask all at once.
const START_SPREAD: Duration = Duration::from_millis(100);

/// A zone without any address waits so long for the first look-up of its seeds' names before its first tick.
const FIRST_LOOKUP: Duration = Duration::from_secs(1);

/// A seed is asked every so often, give or take a tenth, what it thinks of the published nodes.
const SEED_CHECK: Duration = Duration::from_secs(30);

/// First ticks of a crowd of zones are spread over a refresh, but no longer than readiness waits for them.
const CROWD_SPREAD_MAX: Duration = Duration::from_secs(5);

/// What a poller may be late beyond its own timers before it counts as stalled: a busy machine is no stall.
const LATE_MAX: Duration = Duration::from_secs(5);

/// Timers fire at full milliseconds.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// What all pollers share.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Connections to nodes.
    pub alternator: Alternator,
    /// Addresses of seeds that are host names.
    pub lookup: HostLookup,
    /// Where the time to a changed answer is counted.
    pub counters: Arc<ProcessCounters>,
    /// Whether there are more zones than [`CROWD_ZONES`](super::CROWD_ZONES), so that each must be content with one
    /// kept connection, and first ticks are spread over a whole refresh.
    pub crowd: bool,
    /// What outlives the process; `None`: nothing does.
    pub memory: Option<Memory>,
}

/// What the nodes that are published already are to a new poller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// Nodes of the very cluster: they are asked. So it is for a new zone, for one whose refresh or timeout changed,
    /// and after a poller has panicked.
    Continue,
    /// Perhaps nodes of another cluster: `seeds` or `port` changed. They are answered but never asked, and the first
    /// usable list of a new seed replaces them.
    Afresh,
}

/// How nodes are asked. An attempt ends by itself within the zone's timeout.
pub trait Ask: Send + Sync {
    /// Asks one node for its list.
    fn ask(&self, node: IpAddr) -> impl Future<Output = Result<Reply, FetchError>> + Send;
}

/// The nodes of a real cluster.
#[derive(Clone, Debug)]
pub struct Nodes {
    alternator: Alternator,
    port: NonZeroU16,
    timeout: Duration,
}

impl Ask for Nodes {
    async fn ask(&self, node: IpAddr) -> Result<Reply, FetchError> {
        self.alternator.local_nodes(node, self.port, self.timeout).await
    }
}

/// Learns one zone for as long as it runs. It is stopped by dropping it, at any moment: no publication spans an await.
#[derive(Debug)]
pub struct Poller<A = Nodes> {
    entry: Arc<ZoneEntry>,
    asks: A,
    seeds: Vec<Seed>,
    refresh: Duration,
    timeout: Duration,
    lookup: HostLookup,
    counters: Arc<ProcessCounters>,
    crowd: bool,
    start: State,
}

impl Poller {
    /// Prepares to learn a zone. While nothing is known, the addresses among its seeds are answered from now on.
    pub fn new(entry: Arc<ZoneEntry>, zone: &config::Zone, start: Start, tools: &Tools) -> Self {
        let asks = Nodes { alternator: tools.alternator.clone(), port: zone.cluster.port, timeout: zone.timeout };
        Self::with(entry, zone, start, tools, asks)
    }

    /// How long a poller of this zone may report nothing before it counts as stalled.
    pub fn silence_max(zone: &config::Zone) -> Duration {
        let first = CROWD_SPREAD_MAX + FIRST_LOOKUP;
        first + zone.refresh * 2 + zone.timeout * TIMEOUTS_IN_TICK + LATE_MAX
    }
}

impl<A: Ask> Poller<A> {
    fn with(entry: Arc<ZoneEntry>, zone: &config::Zone, start: Start, tools: &Tools, asks: A) -> Self {
        let status = PollStatus::clone(&entry.poll_status());
        let knowledge = Learnt::from(&entry.answers().knowledge);
        // A poller that was stopped before it learnt the new cluster has left the former one's nodes behind.
        let former = matches!(knowledge, Learnt::Known { .. }) && (start == Start::Afresh || status.former_cluster);
        let state = State {
            knowledge,
            former,
            fresh: status.last_success.unwrap_or_else(now),
            last_success: status.last_success,
            source: status.source,
            error: status.last_error.clone(),
        };
        entry.report(PollStatus { former_cluster: former, seeds_disagree: false, ..status });
        let mut poller = Self {
            seeds: zone.cluster.seeds.clone(),
            refresh: zone.refresh,
            timeout: zone.timeout,
            lookup: tools.lookup.clone(),
            counters: tools.counters.clone(),
            crowd: tools.crowd,
            start: state,
            entry,
            asks,
        };
        poller.fail_open();
        poller
    }

    /// Runs until dropped.
    pub async fn run(self) -> Infallible {
        let seeds = Seeds::new(&self.seeds, &self.lookup);
        // One task does both, so that neither sees what the other has half done.
        tokio::select! {
            never = self.learn(seeds.clone()) => never,
            never = self.doubt(seeds) => never,
        }
    }

    /// Tick, decide, publish, report, wait; for ever.
    async fn learn(&self, mut seeds: Seeds) -> Infallible {
        let (mut state, mut rota) = (self.start.clone(), Rota::default());
        self.begin(&mut seeds).await;
        loop {
            let started = Instant::now();
            seeds.freshen(lookup::AGE_MAX);
            let addresses = seeds.addresses();
            let nobody = addresses.is_empty() && state.nodes().is_empty();
            let ended = self.tick(&mut rota, &mut state, &addresses).await;
            let arrived = ended.as_ref().ok().map(|(_, reply)| reply.arrived);
            let outcome = self.judge(ended, &addresses, &seeds);
            let (next, effect, wait) = step(self.refresh, state, outcome, now(), rand::random());
            state = next;
            self.obey(effect, state.error.as_deref(), arrived);
            self.report(&state);
            if state.error.is_some() {
                seeds.freshen(Duration::ZERO);
            }
            tokio::select! {
                () = sleep_until(started + wait) => {}
                () = seeds.changed(), if nobody => {}
            }
        }
    }

    /// Waits for the zone's place among all first ticks, and for a first look-up if nobody could be asked without.
    async fn begin(&self, seeds: &mut Seeds) {
        let spread = if self.crowd { CROWD_SPREAD_MAX } else { START_SPREAD };
        sleep(spread.min(self.refresh).mul_f64(rand::random())).await;
        if seeds.addresses().is_empty() && self.start.nodes().is_empty() {
            // Late or not, the first tick says what is the matter.
            let _ = timeout(FIRST_LOOKUP, seeds.changed()).await;
        }
    }

    /// One tick. Time does not stand still meanwhile: what is known may become stale.
    async fn tick(&self, rota: &mut Rota, state: &mut State, seeds: &[IpAddr]) -> Result<(IpAddr, Reply), Failures> {
        let first = state.source.filter(|_| self.crowd);
        rota.begin(state.nodes(), seeds, first, &mut rand::rng());
        let mut ticking = pin!(tick(|node| self.attempt(node), rota, self.timeout));
        loop {
            // A timer may round down by less than its grain, and stale is only what is past its time.
            let stale = state.stale_from(self.refresh).map(|from| Instant::from_std(from) + TIMER_GRAIN);
            tokio::select! {
                biased;
                ended = &mut ticking => return ended,
                () = sleep_until(stale.unwrap_or_else(Instant::now)), if stale.is_some() => {
                    let (aged, effect) = state.clone().age(self.refresh, now());
                    *state = aged;
                    self.obey(effect, Some(state.error.as_deref().unwrap_or("nobody has answered in time")), None);
                }
            }
        }
    }

    /// Asks one node, and counts how that ended.
    async fn attempt(&self, node: IpAddr) -> Result<Reply, FetchError> {
        let ended = self.asks.ask(node).await;
        let result = match &ended {
            Ok(_) => PollResult::Ok,
            Err(error) => {
                debug!(zone = %self.entry.name(), %node, %error, "no usable list");
                error.result()
            }
        };
        self.entry.counters().polls.of(result as usize).increment();
        ended
    }

    /// What a tick's end means to the zone.
    fn judge(&self, ended: Result<(IpAddr, Reply), Failures>, addresses: &[IpAddr], seeds: &Seeds) -> Outcome {
        match ended {
            Ok((source, Reply { listing: Listing { nodes, dropped }, .. })) => {
                for (reason, count) in dropped.iter() {
                    self.entry.counters().dropped.of(reason as usize).add(count);
                }
                Outcome::Listed { nodes, source }
            }
            Err(failures) => {
                let why = if failures.is_empty() { seeds.complaint() } else { failures.to_string() };
                Outcome::Failed { why, seeds: NodeSet::new(addresses.iter().copied()) }
            }
        }
    }

    /// Puts an effect in force. `arrived` tells when the news reached us, if a node sent it.
    fn obey(&self, effect: Effect, why: Option<&str>, arrived: Option<Instant>) {
        let Effect::Publish(after) = effect else { return };
        let before = self.entry.answers().clone();
        let after = after.knowledge();
        self.entry.learn(&after, unix_now());
        if let Some(arrived) = arrived
            && before.answered != self.entry.answers().answered
        {
            self.counters.node_change.observe(arrived.elapsed());
        }
        news::tell(self.entry.name(), &before.knowledge, &after, why);
    }

    fn report(&self, state: &State) {
        let status = self.entry.poll_status();
        self.entry.report(PollStatus {
            ticks: status.ticks + 1,
            last_tick: Some(now()),
            last_success: state.last_success,
            source: state.source,
            last_error: state.error.clone(),
            seeds_disagree: status.seeds_disagree,
            former_cluster: state.former,
        });
    }

    /// While nothing is known, answers the addresses among the seeds; names follow when they are looked up.
    fn fail_open(&mut self) {
        if let (Learnt::Waiting(_), Some(nodes)) = (&self.start.knowledge, NodeSet::new(seeds::literal(&self.seeds))) {
            self.start.knowledge = Learnt::Waiting(Some(nodes));
            self.entry.learn(&self.start.knowledge.knowledge(), unix_now());
        }
    }

    /// Asks the seeds in turn what they think of the published nodes; shows who disagrees, follows nobody.
    async fn doubt(&self, mut seeds: Seeds) -> Infallible {
        let (mut disagreeing, mut turn) = (BTreeSet::new(), 0_usize);
        loop {
            sleep(pause(SEED_CHECK, rand::random())).await;
            turn = turn.wrapping_add(1);
            let addresses = seeds.addresses();
            disagreeing.retain(|seed| addresses.contains(seed));
            if let Some(seed) = turn.checked_rem(addresses.len()).map(|turn| addresses[turn])
                && let Ok(reply) = self.attempt(seed).await
                && let Some(disagrees) = self.disagrees(&reply.listing.nodes)
            {
                let news = if disagrees { disagreeing.insert(seed) } else { disagreeing.remove(&seed) };
                if news {
                    news::tell_disagreement(self.entry.name(), seed, &reply.listing.nodes, disagrees);
                }
            }
            let status = PollStatus::clone(&self.entry.poll_status());
            self.entry.report(PollStatus { seeds_disagree: !disagreeing.is_empty(), ..status });
        }
    }

    /// Whether a seed's list shares nothing with what this cluster's nodes have told; `None` when they told nothing.
    fn disagrees(&self, listed: &NodeSet) -> Option<bool> {
        match &self.entry.answers().knowledge {
            Knowledge::Known(known) if !self.entry.poll_status().former_cluster => {
                Some(!known.nodes.iter().any(|node| listed.contains(&node.address)))
            }
            _ => None,
        }
    }
}

/// The time, as the table keeps it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// The unix time in seconds; serials wrap, and so does this in 2106.
fn unix_now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::{
        discovery::localnodes,
        metrics::DropReason,
        simulation::{Cluster, Content, Delivery, Path},
        table::Settings,
        zone::{AddressRules, AnswerCount, Ttl, ZoneName, ZoneState},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// Nodes on a clock that stands still: each sends its list after a delay, and who is not here refuses.
    #[derive(Clone, Debug, Default)]
    struct World(Arc<Mutex<Told>>);

    #[derive(Debug, Default)]
    struct Told {
        lists: BTreeMap<IpAddr, (String, Duration)>,
        asked: Vec<(IpAddr, Instant)>,
    }

    impl World {
        fn lists(&self, node: &str, list: &[&str]) {
            self.lists_late(node, list, Duration::ZERO);
        }

        fn lists_late(&self, node: &str, list: &[&str], delay: Duration) {
            let list = serde_json::to_string(list).unwrap();
            self.0.lock().unwrap().lists.insert(address(node), (list, delay));
        }

        fn refuses(&self, node: &str) {
            self.0.lock().unwrap().lists.remove(&address(node));
        }

        /// Who was asked since this was last called.
        fn asked(&self) -> Vec<(IpAddr, Instant)> {
            std::mem::take(&mut self.0.lock().unwrap().asked)
        }

        fn was_asked(&self, node: &str) -> bool {
            self.asked().iter().any(|(asked, _)| *asked == address(node))
        }
    }

    impl Ask for World {
        async fn ask(&self, node: IpAddr) -> Result<Reply, FetchError> {
            let told = {
                let mut told = self.0.lock().unwrap();
                told.asked.push((node, Instant::now()));
                told.lists.get(&node).cloned()
            };
            let (list, delay) = told.ok_or(FetchError::Refused)?;
            if delay > SECOND {
                sleep(SECOND).await;
                return Err(FetchError::Timeout(SECOND));
            }
            sleep(delay).await;
            Ok(Reply { listing: localnodes::parse(list.as_bytes())?, arrived: Instant::now() })
        }
    }

    /// A zone with its poller, which stops with it.
    struct Running {
        entry: Arc<ZoneEntry>,
        counters: Arc<ProcessCounters>,
        _task: AbortOnDropHandle<Infallible>,
    }

    impl Running {
        fn start(world: &World, seeds: &[&str]) -> Self {
            Self::resume(world, seeds, entry(), Start::Continue)
        }

        fn resume(world: &World, seeds: &[&str], entry: Arc<ZoneEntry>, start: Start) -> Self {
            let lookup = HostLookup::with(|_| Err(std::io::Error::other("no such host")));
            Self::run(world.clone(), &zone(seeds), entry, start, lookup)
        }

        fn run(
            asks: impl Ask + 'static,
            zone: &config::Zone,
            entry: Arc<ZoneEntry>,
            start: Start,
            lookup: HostLookup,
        ) -> Self {
            let counters = Arc::<ProcessCounters>::default();
            let alternator = Alternator::new().unwrap();
            let tools = Tools { alternator, lookup, counters: counters.clone(), crowd: false, memory: None };
            let poller = Poller::with(entry.clone(), zone, start, &tools, asks);
            Self { entry, counters, _task: AbortOnDropHandle::new(tokio::spawn(poller.run())) }
        }

        fn state(&self) -> ZoneState {
            self.entry.state()
        }

        fn answered(&self) -> Vec<String> {
            answered(&self.entry)
        }

        fn changes(&self) -> u64 {
            self.counters.node_change.snapshot().1.iter().sum()
        }

        fn polls(&self, result: PollResult) -> u64 {
            self.entry.counters().polls.of(result as usize).value()
        }
    }

    fn answered(entry: &ZoneEntry) -> Vec<String> {
        let answers = entry.answers();
        let published = answers.answered.as_ref().map(NodeSet::as_slice).unwrap_or_default();
        published.iter().map(IpAddr::to_string).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn entry() -> Arc<ZoneEntry> {
        Arc::new(ZoneEntry::new(ZoneName::parse("a.example").unwrap(), Settings::example(), 1))
    }

    /// A zone with these seeds and a refresh of a second.
    fn zone(seeds: &[&str]) -> config::Zone {
        let seed = |text: &&str| {
            text.parse().map(Seed::Address).unwrap_or_else(|_| Seed::Host(ZoneName::parse(text).unwrap()))
        };
        config::Zone {
            health: None,
            rules: AddressRules::default(),
            max_stale: None,
            cluster: config::Cluster {
                seeds: seeds.iter().map(seed).collect(),
                port: NonZeroU16::new(8000).unwrap(),
                scheme: config::Scheme::Http,
                scope: Vec::new(),
            },
            refresh: SECOND,
            timeout: SECOND,
            ttl: Ttl::from_secs(4).unwrap(),
            negative_ttl: Ttl::from_secs(4).unwrap(),
            answers: AnswerCount::ONE,
            subdomains: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn seeds_are_answered_at_once_and_nodes_when_they_are_learnt() {
        let world = World::default();
        let zone = Running::start(&world, &["10.0.0.9", "10.0.0.1"]);
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Waiting, vec!["10.0.0.1".into(), "10.0.0.9".into()]));
        sleep(SECOND / 2).await;
        assert_eq!(zone.state(), ZoneState::Waiting);
        let status = PollStatus::clone(&zone.entry.poll_status());
        assert_eq!(status.last_error.unwrap(), "10.0.0.9 refused the connection; 10.0.0.1 refused the connection");
        assert_eq!((status.ticks, status.last_success), (1, None));
        world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2", "localhost"]);
        sleep(SECOND * 2).await;
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.1".into(), "10.0.0.2".into()]));
        let status = PollStatus::clone(&zone.entry.poll_status());
        assert_eq!((status.source, status.last_error), (Some(address("10.0.0.1")), None));
        assert!(status.last_success.is_some() && status.last_tick.is_some());
        let dropped = zone.entry.counters().dropped.of(DropReason::NotAddress as usize).value();
        assert_eq!(dropped, zone.polls(PollResult::Ok));
        assert!(zone.polls(PollResult::Refused) >= 3);
        assert_eq!(zone.changes(), 1, "only a changed answer is measured");
    }

    #[tokio::test(start_paused = true)]
    async fn the_cadence_is_kept_whatever_an_answer_takes() {
        let world = World::default();
        world.lists_late("10.0.0.1", &["10.0.0.1"], SECOND / 2);
        let _zone = Running::start(&world, &["10.0.0.1"]);
        sleep(SECOND * 25).await;
        let asked = world.asked();
        let pauses: Vec<_> = asked.windows(2).map(|two| two[1].1 - two[0].1).collect();
        assert!((22..28).contains(&pauses.len()), "{}", pauses.len());
        for pause in &pauses {
            let (least, most) = (SECOND * 9 / 10, SECOND * 11 / 10 + TIMER_GRAIN * 2);
            assert!((least..most).contains(pause), "{pauses:?}");
        }
        assert!(pauses.iter().any(|pause| pause != &pauses[0]), "pauses differ");
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_outlive_their_cluster_and_go_stale() {
        let world = World::default();
        world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
        let zone = Running::start(&world, &["10.0.0.1"]);
        sleep(SECOND).await;
        assert_eq!(zone.state(), ZoneState::Live);
        world.refuses("10.0.0.1");
        sleep(SECOND * 4).await;
        assert_eq!(zone.state(), ZoneState::Live);
        sleep(SECOND * 3).await;
        assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Stale, 2));
        assert!(zone.entry.poll_status().last_error.as_ref().unwrap().contains("10.0.0.2 refused the connection"));
        sleep(SECOND * 10_000).await;
        assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Stale, 2));
        world.lists("10.0.0.2", &["10.0.0.2"]);
        sleep(SECOND * 2).await;
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.2".into()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_zone_goes_stale_on_time_while_a_tick_is_under_way() {
        let world = World::default();
        world.lists("10.0.0.1", &["10.0.0.1"]);
        let slow = config::Zone { timeout: SECOND * 60, ..zone(&["10.0.0.1"]) };
        let lookup = HostLookup::with(|_| Ok(Vec::new()));
        struct Mute(World, AtomicBool);
        impl Ask for Arc<Mute> {
            async fn ask(&self, node: IpAddr) -> Result<Reply, FetchError> {
                if self.1.load(SeqCst) { std::future::pending().await } else { self.0.ask(node).await }
            }
        }
        let mute = Arc::new(Mute(world, AtomicBool::new(false)));
        let zone = Running::run(mute.clone(), &slow, entry(), Start::Continue, lookup);
        sleep(SECOND).await;
        mute.1.store(true, SeqCst);
        sleep(SECOND * 4).await;
        assert_eq!(zone.state(), ZoneState::Live);
        sleep(SECOND * 3).await;
        assert_eq!(zone.state(), ZoneState::Stale);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poller_that_continues_asks_the_nodes_that_are_published() {
        let (world, entry) = (World::default(), entry());
        entry.learn(&Knowledge::up(&NodeSet::new([address("10.0.0.2")]).unwrap(), ZoneState::Live), 2);
        world.lists("10.0.0.2", &["10.0.0.2", "10.0.0.3"]);
        let zone = Running::resume(&world, &["10.0.0.1"], entry, Start::Continue);
        assert_eq!(zone.answered(), ["10.0.0.2"], "seeds are answered only when nothing is known");
        sleep(SECOND).await;
        assert_eq!(zone.answered(), ["10.0.0.2", "10.0.0.3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_of_a_former_cluster_are_never_asked() {
        let (world, entry) = (World::default(), entry());
        entry.learn(&Knowledge::up(&NodeSet::new([address("10.0.0.2")]).unwrap(), ZoneState::Live), 2);
        world.lists("10.0.0.2", &["10.0.0.2"]);
        let zone = Running::resume(&world, &["10.9.0.1"], entry.clone(), Start::Afresh);
        sleep(SECOND * 60).await;
        assert!(!world.was_asked("10.0.0.2"));
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Stale, vec!["10.0.0.2".into()]));
        assert!(entry.poll_status().former_cluster && !entry.poll_status().seeds_disagree);
        drop(zone);
        let zone = Running::resume(&world, &["10.9.0.1"], entry.clone(), Start::Continue);
        sleep(SECOND * 5).await;
        assert!(!world.was_asked("10.0.0.2"), "a restart does not make them ours");
        world.lists("10.9.0.1", &["10.9.0.1", "10.9.0.2"]);
        sleep(SECOND * 2).await;
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.9.0.1".into(), "10.9.0.2".into()]));
        assert!(!entry.poll_status().former_cluster);
    }

    #[tokio::test(start_paused = true)]
    async fn other_seeds_of_a_waiting_zone_are_answered_at_once() {
        let (world, entry) = (World::default(), entry());
        let first = Running::resume(&world, &["10.0.0.1"], entry.clone(), Start::Continue);
        assert_eq!(first.answered(), ["10.0.0.1"]);
        drop(first);
        let second = Running::resume(&world, &["10.0.0.2"], entry, Start::Afresh);
        assert_eq!(second.answered(), ["10.0.0.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_among_the_seeds_is_asked_as_soon_as_it_is_resolved() {
        let world = World::default();
        world.lists("10.0.0.1", &["10.0.0.1"]);
        let known = Arc::new(AtomicBool::new(false));
        let dns = known.clone();
        let lookup = HostLookup::with(move |_| match dns.load(SeqCst) {
            true => Ok(vec!["10.0.0.1".parse().unwrap()]),
            false => Err(std::io::Error::other("no such host")),
        });
        let hourly = config::Zone { refresh: SECOND * 3600, ..zone(&["scylla.internal"]) };
        let zone = Running::run(world, &hourly, entry(), Start::Continue, lookup);
        sleep(SECOND * 5).await;
        let error = zone.entry.poll_status().last_error.clone().unwrap();
        assert_eq!(error, "scylla.internal cannot be resolved: no such host");
        assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Waiting, 0));
        known.store(true, SeqCst);
        sleep(SECOND * 2).await;
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.1".into()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_that_disagrees_is_shown_and_not_followed() {
        let world = World::default();
        world.lists("10.0.0.2", &["10.0.0.1", "10.0.0.2"]);
        world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
        let zone = Running::start(&world, &["10.0.0.2", "10.9.0.1"]);
        sleep(SECOND * 10).await;
        world.lists("10.9.0.1", &["10.9.0.1"]);
        sleep(SECOND * 70).await;
        assert!(zone.entry.poll_status().seeds_disagree);
        assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.1".into(), "10.0.0.2".into()]));
        world.lists("10.9.0.1", &["10.0.0.1", "10.9.0.1"]);
        sleep(SECOND * 70).await;
        assert!(!zone.entry.poll_status().seeds_disagree);
    }

    /// What is logged, line by line, each from its message on.
    #[derive(Clone, Default)]
    struct Tape(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Tape {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Tape {
        fn lines(&self) -> Vec<String> {
            let octets = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(octets).unwrap().lines().map(|line| line.trim().into()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_changes_are_logged_and_one_line_each() {
        let tape = Tape::default();
        let writer = tape.clone();
        let log = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
        let _log = tracing::subscriber::set_default(log.with_writer(move || writer.clone()).finish());
        let world = World::default();
        world.lists("10.0.0.1", &["10.0.0.1"]);
        let _zone = Running::start(&world, &["10.0.0.1"]);
        sleep(SECOND * 100).await;
        assert_eq!(
            tape.lines(),
            [
                "INFO node joined zone=a.example. node=10.0.0.1",
                "INFO zone state changed zone=a.example. from=\"waiting\" to=\"live\"",
            ]
        );
        world.lists("10.0.0.1", &["10.0.0.2"]);
        world.lists("10.0.0.2", &["10.0.0.2"]);
        sleep(SECOND * 100).await;
        let joined = ["INFO node joined zone=a.example. node=10.0.0.2", "INFO node left zone=a.example. node=10.0.0.1"];
        assert_eq!(tape.lines(), joined);
        world.refuses("10.0.0.1");
        world.refuses("10.0.0.2");
        sleep(SECOND * 100).await;
        let lines = tape.lines();
        let stale = "WARN zone state changed zone=a.example. from=\"live\" to=\"stale\" why=\"10.0.0.2 refused";
        assert!(lines.len() == 1 && lines[0].starts_with(stale), "{lines:?}");
        world.lists("10.0.0.2", &["10.0.0.2"]);
        sleep(SECOND * 100).await;
        assert_eq!(tape.lines(), ["INFO zone state changed zone=a.example. from=\"stale\" to=\"live\""]);
    }

    /// Waits on a condition, with a deadline.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let patience = timeout(SECOND * 20, async {
            while !condition() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(patience.await.is_ok(), "not within the deadline: {what}");
    }

    #[tokio::test]
    async fn a_real_cluster_is_followed() {
        let cluster = Cluster::start(3).unwrap();
        let mut wanted = zone(&[&cluster.node(0).to_string()]);
        wanted.cluster.port = NonZeroU16::new(cluster.port()).unwrap();
        wanted.refresh = Duration::from_millis(100);
        let tools = Tools {
            alternator: Alternator::new().unwrap(),
            lookup: HostLookup::new(),
            counters: Arc::default(),
            crowd: false,
            memory: None,
        };
        let entry = entry();
        let poller = Poller::new(entry.clone(), &wanted, Start::Continue, &tools);
        let _task = AbortOnDropHandle::new(tokio::spawn(poller.run()));
        let follows = || answered(&entry) == cluster.running().iter().map(IpAddr::to_string).collect::<Vec<_>>();
        until("all three", || entry.state() == ZoneState::Live && follows()).await;
        cluster.stop(cluster.node(0));
        until("one less, the seed", follows).await;
        cluster.add().unwrap();
        until("one more", follows).await;
        for node in cluster.running() {
            cluster.say(node, Path::LocalNodes, Content::Listing(Vec::new()));
        }
        until("a complaint", || entry.poll_status().last_error.is_some()).await;
        assert!(follows(), "an empty list changes nothing");
        cluster.running().into_iter().for_each(|node| cluster.heal(node));
        cluster.deliver(cluster.node(1), Path::LocalNodes, Delivery::Hang);
        cluster.stop(cluster.node(2));
        until("around a node that hangs", follows).await;
        assert!(entry.counters().polls.of(PollResult::Empty as usize).value() > 0);
        let silence = entry.poll_status().last_tick.unwrap().elapsed();
        assert!(silence < Poller::silence_max(&wanted), "{silence:?}");
    }
}

//! When each target is probed, and which zone the slot is charged to: no clock, no socket, no task.
//!
//! A target is an endpoint and a timeout. It is *idle* until it is due, *queued* for a slot that one of its subscribers
//! is charged for, *in flight* while it is probed, and then idle again. Slots are few, and shared so that nodes that
//! hang delay only their own zone:
//!
//! - A zone may have as many probes in flight as there are free slots. One zone whose nodes all hang holds half of the
//!   slots, two zones a third each, and some slots always remain for zones without a probe in flight.
//! - A slot goes to the zone with the fewest probes in flight, and among equals to the one that has waited longest.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{
    super::{clock::pause, node::Endpoint},
    finished::FinishedProbe,
    pace::{first_probe_spread, stretched},
};
use crate::{config::Health, types::ProbeFailure};

/// The least time from the begin of a probe to a probe of the same target out of turn: many zones may ask for one, and
/// a node that refuses must not be flooded.
const CONFIRM_GAP: Duration = Duration::from_millis(50);

/// Results kept for each node of a zone that is slow to fetch them. The oldest are dropped first, since the newest
/// decide.
const RESULTS_PER_NODE_MAX: usize = 4;

/// One zone's subscription. No key is ever used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct ZoneKey(u64);

/// One target, for as long as it has a subscriber. No key is ever used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct TargetKey(u64);

/// A probe in flight, and the zone that its slot is charged to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveProbe {
    pub(super) target: TargetKey,
    zone: ZoneKey,
}

/// Which endpoints of a zone are probed, one for each address, and how.
#[derive(Debug)]
pub(super) struct ProbeSettings {
    pub(super) endpoints: BTreeMap<IpAddr, Endpoint>,
    pub(super) health: Health,
}

/// All targets and the zones that subscribe to them.
#[derive(Debug)]
pub(super) struct Schedule {
    slots: usize,
    in_flight: usize,
    zones: FxHashMap<ZoneKey, Zone>,
    targets: FxHashMap<TargetKey, Target>,
    /// Addresses come from the network, hence the hash function that an attacker cannot provoke collisions in.
    by_request: HashMap<(Arc<Endpoint>, Duration), TargetKey>,
    /// When each idle target is due.
    timers: BTreeSet<(Instant, TargetKey)>,
    /// Zones with queued targets: the fewest probes in flight first, then the earliest turn.
    ready: BTreeSet<(usize, u64, ZoneKey)>,
    /// The last number given to a zone, a target or a turn.
    last: u64,
}

#[derive(Debug)]
struct Zone {
    nodes: BTreeMap<IpAddr, TargetKey>,
    /// As [`stretched`] gives it.
    interval: Duration,
    in_flight: usize,
    /// Queued targets that are charged to this zone, the longest waiting first.
    waiting: VecDeque<TargetKey>,
    turn: u64,
    results: VecDeque<(IpAddr, FinishedProbe)>,
    arrived: Arc<Notify>,
}

#[derive(Debug)]
struct Target {
    endpoint: Arc<Endpoint>,
    timeout: Duration,
    /// Sorted, never empty.
    subscribers: Vec<ZoneKey>,
    /// When the last probe began.
    begun: Option<Instant>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Idle { due: Instant },
    Queued { zone: ZoneKey },
    InFlight { abort: Option<AbortHandle> },
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            in_flight: 0,
            zones: FxHashMap::default(),
            targets: FxHashMap::default(),
            by_request: HashMap::new(),
            timers: BTreeSet::new(),
            ready: BTreeSet::new(),
            last: 0,
        }
    }

    /// How many targets there are.
    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// A zone without nodes, and what is notified when an outcome arrives for it.
    pub(super) fn subscribe(&mut self) -> (ZoneKey, Arc<Notify>) {
        let key = ZoneKey(self.number());
        let arrived = Arc::new(Notify::new());
        let zone = Zone {
            nodes: BTreeMap::new(),
            interval: Duration::ZERO,
            in_flight: 0,
            waiting: VecDeque::new(),
            turn: 0,
            results: VecDeque::new(),
            arrived: arrived.clone(),
        };
        self.zones.insert(key, zone);
        (key, arrived)
    }

    /// Removes a zone, and the targets that no other zone shares.
    pub(super) fn unsubscribe(&mut self, zone: ZoneKey) {
        let nodes = self.zones.get(&zone).map(|zone| zone.nodes.keys().copied().collect::<Vec<_>>());
        for address in nodes.unwrap_or_default() {
            self.remove_node(zone, address);
        }
        self.zones.remove(&zone);
    }

    /// Replaces the endpoints of a zone. Those that it had already keep their times, unless the interval is now shorter.
    /// `chance` gives numbers from 0 up to 1.
    pub(super) fn set(
        &mut self,
        key: ZoneKey,
        ProbeSettings { mut endpoints, health }: ProbeSettings,
        now: Instant,
        chance: &dyn Fn() -> f64,
    ) {
        let Some(zone) = self.zones.get_mut(&key) else { return };
        let interval = stretched(health.interval, endpoints.len());
        let faster = interval < zone.interval;
        zone.interval = interval;
        let mut gone = Vec::new();
        for (address, target) in &zone.nodes {
            let kept = self.targets.get(target).is_some_and(|target| {
                endpoints.get(address) == Some(&*target.endpoint) && target.timeout == health.timeout
            });
            if kept { _ = endpoints.remove(address) } else { gone.push(*address) }
        }
        let stayed: Vec<_> = zone.nodes.values().copied().collect();
        for address in gone {
            self.remove_node(key, address);
        }
        if faster {
            for target in stayed {
                self.pull_forward(target, now, |begun| begun + pause(interval, chance()));
            }
        }
        let spread = first_probe_spread(interval, endpoints.len());
        for endpoint in endpoints.into_values() {
            self.add_node(key, (Arc::new(endpoint), health.timeout), now + spread.mul_f64(chance()));
        }
    }

    /// Probes a zone's node as soon as possible, unless a probe of it is in flight or queued.
    pub(super) fn confirm(&mut self, zone: ZoneKey, address: IpAddr, now: Instant) {
        let target = self.zones.get(&zone).and_then(|zone| zone.nodes.get(&address));
        if let Some(&target) = target {
            self.pull_forward(target, now, |begun| begun + CONFIRM_GAP);
        }
    }

    /// The zone's oldest result.
    pub(super) fn take(&mut self, zone: ZoneKey) -> Option<(IpAddr, FinishedProbe)> {
        self.zones.get_mut(&zone)?.results.pop_front()
    }

    /// The interval at which a zone's nodes are probed; zero before the first [`Schedule::set`].
    pub(super) fn interval(&self, zone: ZoneKey) -> Duration {
        self.zones.get(&zone).map_or(Duration::ZERO, |zone| zone.interval)
    }

    /// Begins the next probe, if one is due and may have a slot. Returns it, its endpoint and its timeout.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(ActiveProbe, Arc<Endpoint>, Duration)> {
        self.advance(now);
        let &(in_flight, _, zone) = self.ready.first()?;
        if in_flight >= self.slots.saturating_sub(self.in_flight) {
            return None;
        }
        let key = *self.zones.get(&zone)?.waiting.front()?;
        let turn = self.number();
        self.in_flight += 1;
        self.change(zone, |zone| {
            zone.waiting.pop_front();
            zone.in_flight += 1;
            zone.turn = turn;
        });
        let target = self.targets.get_mut(&key)?;
        target.begun = Some(now);
        target.phase = Phase::InFlight { abort: None };
        Some((ActiveProbe { target: key, zone }, target.endpoint.clone(), target.timeout))
    }

    /// Keeps the handle that aborts a probe in flight, for the moment at which its target has no subscriber any more.
    pub(super) fn set_abort_handle(&mut self, probe: ActiveProbe, handle: AbortHandle) {
        if let Some(Phase::InFlight { abort }) = self.targets.get_mut(&probe.target).map(|target| &mut target.phase) {
            *abort = Some(handle);
        }
    }

    /// Records how a probe ended; `None`: it was aborted.
    pub(super) fn end(
        &mut self,
        probe: ActiveProbe,
        result: Option<Result<(), ProbeFailure>>,
        now: Instant,
        chance: f64,
    ) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.change(probe.zone, |zone| zone.in_flight = zone.in_flight.saturating_sub(1));
        let (Some(result), Some(target)) = (result, self.targets.get(&probe.target)) else { return };
        let (Phase::InFlight { .. }, Some(begun)) = (&target.phase, target.begun) else { return };
        let finished = FinishedProbe { result, duration: now - begun };
        for zone in &target.subscribers {
            if let Some(zone) = self.zones.get_mut(zone) {
                zone.report(target.endpoint.address, finished.clone());
            }
        }
        let due = now.max(begun + pause(self.interval_of(probe.target), chance));
        self.set_due(probe.target, due);
    }

    /// When the next idle target is due.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// Starts again after a panic: no probe is in flight, and every target is due. Subscriptions stay.
    pub(super) fn restart(&mut self, now: Instant) {
        self.in_flight = 0;
        self.timers.clear();
        self.ready.clear();
        for zone in self.zones.values_mut() {
            zone.in_flight = 0;
            zone.waiting.clear();
        }
        for (&key, target) in &mut self.targets {
            target.phase = Phase::Idle { due: now };
            self.timers.insert((now, key));
        }
    }

    /// Queues every target that is due.
    fn advance(&mut self, now: Instant) {
        while let Some(&(due, key)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            self.enqueue(key);
        }
    }

    fn add_node(&mut self, zone: ZoneKey, request: (Arc<Endpoint>, Duration), first: Instant) {
        let address = request.0.address;
        let key = match self.by_request.get(&request) {
            Some(&key) => key,
            None => {
                let key = TargetKey(self.number());
                let (endpoint, timeout) = request.clone();
                let phase = Phase::Idle { due: first };
                self.timers.insert((first, key));
                self.by_request.insert(request, key);
                self.targets.insert(key, Target { endpoint, timeout, subscribers: Vec::new(), begun: None, phase });
                key
            }
        };
        if let Some(target) = self.targets.get_mut(&key)
            && let Err(place) = target.subscribers.binary_search(&zone)
        {
            target.subscribers.insert(place, zone);
        }
        if let Some(zone) = self.zones.get_mut(&zone) {
            zone.nodes.insert(address, key);
        }
        // Another zone may have had it probed a moment ago.
        self.pull_forward(key, first, |begun| begun + CONFIRM_GAP);
    }

    fn remove_node(&mut self, zone: ZoneKey, address: IpAddr) {
        let mut key = None;
        self.change(zone, |zone| {
            key = zone.nodes.remove(&address);
            zone.results.retain(|&(of, _)| of != address);
            zone.waiting.retain(|&waiting| Some(waiting) != key);
        });
        let Some(key) = key else { return };
        let Some(target) = self.targets.get_mut(&key) else { return };
        target.subscribers.retain(|&subscriber| subscriber != zone);
        if target.subscribers.is_empty() {
            self.remove_target(key);
        } else if matches!(target.phase, Phase::Queued { zone: account } if account == zone) {
            self.enqueue(key);
        }
    }

    /// Removes a target without subscribers. Its slot becomes free when its probe has ended.
    fn remove_target(&mut self, key: TargetKey) {
        let Some(target) = self.targets.remove(&key) else { return };
        self.by_request.remove(&(target.endpoint, target.timeout));
        match target.phase {
            Phase::Idle { due } => _ = self.timers.remove(&(due, key)),
            Phase::InFlight { abort: Some(abort) } => abort.abort(),
            Phase::InFlight { abort: None } | Phase::Queued { .. } => {}
        }
    }

    fn set_due(&mut self, key: TargetKey, due: Instant) {
        if let Some(target) = self.targets.get_mut(&key) {
            target.phase = Phase::Idle { due };
            self.timers.insert((due, key));
        }
    }

    /// Lets an idle target be due earlier: at `earliest`, but not before the time that `after` gives for its last probe.
    fn pull_forward(&mut self, key: TargetKey, earliest: Instant, after: impl FnOnce(Instant) -> Instant) {
        let Some(target) = self.targets.get(&key) else { return };
        let Phase::Idle { due } = target.phase else { return };
        let sooner = target.begun.map_or(earliest, |begun| earliest.max(after(begun)));
        if sooner < due {
            self.timers.remove(&(due, key));
            self.set_due(key, sooner);
        }
    }

    /// Queues a target. It is charged to the subscriber with the fewest probes in flight and queued.
    fn enqueue(&mut self, key: TargetKey) {
        let Some(target) = self.targets.get_mut(&key) else { return };
        let load = |zone: &ZoneKey| self.zones.get(zone).map_or(usize::MAX, |zone| zone.in_flight + zone.waiting.len());
        let Some(zone) = target.subscribers.iter().copied().min_by_key(load) else { return };
        target.phase = Phase::Queued { zone };
        let turn = self.number();
        self.change(zone, |zone| {
            if zone.waiting.is_empty() {
                zone.turn = turn;
            }
            zone.waiting.push_back(key);
        });
    }

    /// Changes a zone, and its place in `ready` with it.
    fn change(&mut self, key: ZoneKey, change: impl FnOnce(&mut Zone)) {
        let Some(zone) = self.zones.get_mut(&key) else { return };
        self.ready.remove(&(zone.in_flight, zone.turn, key));
        change(zone);
        if !zone.waiting.is_empty() {
            self.ready.insert((zone.in_flight, zone.turn, key));
        }
    }

    /// A shared target is probed at the shortest interval among its subscribers.
    fn interval_of(&self, target: TargetKey) -> Duration {
        let subscribers = self.targets.get(&target).map_or(&[][..], |target| &target.subscribers);
        subscribers.iter().filter_map(|zone| self.zones.get(zone)).map(|zone| zone.interval).min().unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Zone {
    fn report(&mut self, address: IpAddr, finished: FinishedProbe) {
        if self.results.len() >= RESULTS_PER_NODE_MAX * self.nodes.len() {
            self.results.pop_front();
        }
        self.results.push_back((address, finished));
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU16};

    use super::{
        super::{super::membership::ProbeOutcome, pace::FIRST_PROBE_SPREAD},
        *,
    };
    use crate::config::Scheme;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn health(interval: Duration, timeout: Duration) -> Health {
        Health { interval, timeout, rise: NonZeroU8::MIN, fall: NonZeroU8::MIN }
    }

    fn endpoints(nodes: impl IntoIterator<Item = u16>) -> BTreeMap<IpAddr, Endpoint> {
        let address = |n: u16| IpAddr::from([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
        let endpoint = |n| Endpoint { scheme: Scheme::Http, address: address(n), port: NonZeroU16::MIN };
        nodes.into_iter().map(|n| (address(n), endpoint(n))).collect()
    }

    /// A schedule, the probes in flight, and the time. Chance always gives 0.5.
    struct Fixture {
        schedule: Schedule,
        active: Vec<ActiveProbe>,
        now: Instant,
    }

    impl Fixture {
        fn new(slots: usize) -> Self {
            Self { schedule: Schedule::new(slots), active: Vec::new(), now: Instant::now() }
        }

        fn zone(&mut self, nodes: impl IntoIterator<Item = u16>, interval: Duration, timeout: Duration) -> ZoneKey {
            let (zone, _) = self.schedule.subscribe();
            self.set(zone, nodes, interval, timeout);
            zone
        }

        fn set(&mut self, zone: ZoneKey, nodes: impl IntoIterator<Item = u16>, interval: Duration, timeout: Duration) {
            let settings = ProbeSettings { endpoints: endpoints(nodes), health: health(interval, timeout) };
            self.schedule.set(zone, settings, self.now, &|| 0.5);
        }

        /// Begins every probe that may begin. Returns the zones that they are charged to.
        fn begin(&mut self) -> Vec<ZoneKey> {
            let mut accounts = Vec::new();
            while let Some((probe, ..)) = self.schedule.begin(self.now) {
                accounts.push(probe.zone);
                self.active.push(probe);
            }
            accounts
        }

        fn end(&mut self, index: usize, outcome: ProbeOutcome) {
            let result = match outcome {
                ProbeOutcome::Up => Ok(()),
                ProbeOutcome::Refused => Err(ProbeFailure::Refused),
                ProbeOutcome::Slow => Err(ProbeFailure::Status(503)),
            };
            let probe = self.active.remove(index);
            self.schedule.end(probe, Some(result), self.now, 0.5);
        }

        fn end_all(&mut self) {
            while !self.active.is_empty() {
                self.end(0, ProbeOutcome::Up);
            }
        }

        fn take_all(&mut self, zone: ZoneKey) -> BTreeSet<IpAddr> {
            std::iter::from_fn(|| self.schedule.take(zone)).map(|(node, _)| node).collect()
        }

        /// Checks that the fields agree with each other.
        fn check(&self) {
            let schedule = &self.schedule;
            assert!(schedule.in_flight <= schedule.slots && schedule.in_flight == self.active.len());
            assert_eq!(schedule.by_request.len(), schedule.targets.len());
            let mut timers = BTreeSet::new();
            for (&key, target) in &schedule.targets {
                assert!(!target.subscribers.is_empty() && target.subscribers.is_sorted());
                for zone in &target.subscribers {
                    assert_eq!(schedule.zones[zone].nodes[&target.endpoint.address], key);
                }
                match &target.phase {
                    Phase::Idle { due } => _ = timers.insert((*due, key)),
                    Phase::InFlight { .. } => {}
                    Phase::Queued { zone } => {
                        assert!(target.subscribers.contains(zone));
                        assert_eq!(schedule.zones[zone].waiting.iter().filter(|&&waiting| waiting == key).count(), 1);
                    }
                }
            }
            assert_eq!(timers, schedule.timers);
            let mut ready = BTreeSet::new();
            let mut waiting = 0;
            for (&key, zone) in &schedule.zones {
                assert_eq!(zone.in_flight, self.active.iter().filter(|probe| probe.zone == key).count());
                assert!(zone.results.len() <= RESULTS_PER_NODE_MAX * zone.nodes.len());
                assert!(zone.results.iter().all(|(node, _)| zone.nodes.contains_key(node)));
                waiting += zone.waiting.len();
                if !zone.waiting.is_empty() {
                    ready.insert((zone.in_flight, zone.turn, key));
                }
            }
            assert_eq!(ready, schedule.ready);
            let phases = schedule.targets.values().map(|target| &target.phase);
            assert_eq!(phases.filter(|phase| matches!(phase, Phase::Queued { .. })).count(), waiting);
        }
    }

    #[test]
    fn some_slots_are_free_however_many_nodes_hang() {
        let mut fixture = Fixture::new(60);
        let hang = |fixture: &mut Fixture, n: u16| fixture.zone(n * 100..n * 100 + 100, SECOND, 60 * SECOND);
        let first = hang(&mut fixture, 1);
        fixture.now += SECOND;
        assert_eq!(fixture.begin(), vec![first; 30], "one zone may have half");
        hang(&mut fixture, 2);
        fixture.now += SECOND;
        assert_eq!(fixture.begin().len(), 15, "the next half of what was left");
        for n in 3..9 {
            hang(&mut fixture, n);
        }
        fixture.now += SECOND;
        fixture.begin();
        assert!(fixture.active.len() < 60);
        let healthy = fixture.zone([7], SECOND, SECOND);
        assert_eq!(fixture.begin(), [healthy]);
        for _ in 0..1000 {
            fixture.now += SECOND / 10;
            fixture.end(0, ProbeOutcome::Slow);
            fixture.begin();
        }
        fixture.check();
        let most = fixture.schedule.zones.values().map(|zone| zone.in_flight).max().unwrap();
        assert!((6..=8).contains(&most), "in the end all have the same: {most}");
    }

    #[test]
    fn the_zone_with_the_fewest_in_flight_comes_first_then_the_longest_waiting() {
        let mut fixture = Fixture::new(2);
        let [a, b, c] = [1, 11, 21].map(|first| fixture.zone(first..first + 3, SECOND, SECOND));
        assert_eq!(fixture.begin(), [a, b]);
        fixture.end(0, ProbeOutcome::Up);
        assert_eq!(fixture.begin(), [c]);
        fixture.end(0, ProbeOutcome::Up);
        fixture.end(0, ProbeOutcome::Up);
        assert_eq!(fixture.begin(), [a, b]);
        fixture.check();
    }

    #[test]
    fn a_queued_target_is_charged_to_another_subscriber_when_its_zone_is_removed() {
        let mut fixture = Fixture::new(1);
        let busy = fixture.zone([9], SECOND, SECOND);
        assert_eq!(fixture.begin(), [busy]);
        let first = fixture.zone([1], SECOND, SECOND);
        let second = fixture.zone([1], SECOND, SECOND);
        assert_eq!(fixture.begin(), []);
        fixture.schedule.unsubscribe(first);
        fixture.check();
        fixture.end_all();
        assert_eq!(fixture.begin(), [second]);
    }

    #[test]
    fn a_large_zone_is_probed_at_longer_intervals() {
        assert_eq!(stretched(SECOND, 3), SECOND);
        assert_eq!(stretched(SECOND, 100), SECOND);
        assert_eq!(stretched(SECOND, 500), 5 * SECOND);
        assert_eq!(stretched(10 * SECOND, 500), 10 * SECOND);
        assert_eq!(first_probe_spread(SECOND, 3), Duration::ZERO);
        assert_eq!(first_probe_spread(SECOND, 12), FIRST_PROBE_SPREAD * 2);
        assert_eq!(first_probe_spread(5 * SECOND, 500), 5 * SECOND / 4);
    }

    #[test]
    fn results_that_are_not_fetched_are_bounded_and_the_newest_stay() {
        let mut fixture = Fixture::new(1);
        let zone = fixture.zone([1], SECOND, SECOND);
        for round in 0..10 {
            fixture.begin();
            fixture.end(0, if round < 8 { ProbeOutcome::Slow } else { ProbeOutcome::Up });
            fixture.now += SECOND;
        }
        let outcome: Vec<_> =
            std::iter::from_fn(|| fixture.schedule.take(zone)).filter_map(|(_, finished)| finished.outcome()).collect();
        assert_eq!(outcome, [ProbeOutcome::Slow, ProbeOutcome::Slow, ProbeOutcome::Up, ProbeOutcome::Up]);
    }

    #[derive(Clone, Debug)]
    enum Move {
        Set { zone: usize, nodes: u8, interval: u64, timeout: u64 },
        Resubscribe { zone: usize },
        Confirm { zone: usize, node: u16 },
        Pass { millis: u64 },
        Begin,
        End { index: usize, outcome: ProbeOutcome },
        Take { zone: usize },
        Restart,
    }

    fn any_move() -> impl Strategy<Value = Move> {
        let outcome = prop_oneof![Just(ProbeOutcome::Up), Just(ProbeOutcome::Refused), Just(ProbeOutcome::Slow)];
        prop_oneof![
            3 => (0_usize..4, any::<u8>(), 1_u64..4, 1_u64..4)
                .prop_map(|(zone, nodes, interval, timeout)| Move::Set { zone, nodes, interval, timeout }),
            1 => (0_usize..4).prop_map(|zone| Move::Resubscribe { zone }),
            2 => (0_usize..4, 0_u16..8).prop_map(|(zone, node)| Move::Confirm { zone, node }),
            4 => (0_u64..1500).prop_map(|millis| Move::Pass { millis }),
            6 => Just(Move::Begin),
            6 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Move::End { index, outcome }),
            2 => (0_usize..4).prop_map(|zone| Move::Take { zone }),
            1 => Just(Move::Restart),
        ]
    }

    fn nodes(mask: u8) -> impl Iterator<Item = u16> {
        (0..8).filter(move |bit| mask & (1 << bit) != 0)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_whatever_happens(moves in prop::collection::vec(any_move(), 0..80)) {
            let mut fixture = Fixture::new(3);
            let mut zones = [(); 4].map(|()| fixture.schedule.subscribe().0);
            let mut followed = [0_u8; 4];
            for step in moves {
                match step {
                    Move::Set { zone, nodes: mask, interval, timeout } => {
                        followed[zone] = mask;
                        let pace = |n| Duration::from_secs(n);
                        fixture.set(zones[zone], nodes(mask), pace(interval), pace(timeout));
                    }
                    Move::Resubscribe { zone } => {
                        fixture.schedule.unsubscribe(zones[zone]);
                        zones[zone] = fixture.schedule.subscribe().0;
                        followed[zone] = 0;
                    }
                    Move::Confirm { zone, node } => {
                        fixture.schedule.confirm(zones[zone], IpAddr::from([10, 0, 0, node.to_be_bytes()[1]]), fixture.now);
                    }
                    Move::Pass { millis } => fixture.now += Duration::from_millis(millis),
                    Move::Begin => {
                        fixture.begin();
                        let free = fixture.schedule.slots - fixture.schedule.in_flight;
                        prop_assert!(fixture.schedule.ready.first().is_none_or(|&(in_flight, ..)| in_flight >= free));
                    }
                    Move::End { index, outcome } if !fixture.active.is_empty() => {
                        fixture.end(index % fixture.active.len(), outcome);
                    }
                    Move::End { .. } => {}
                    Move::Take { zone } => _ = fixture.schedule.take(zones[zone]),
                    Move::Restart => {
                        fixture.active.clear();
                        fixture.schedule.restart(fixture.now);
                    }
                }
                fixture.check();
            }
            for zone in zones {
                fixture.take_all(zone);
            }
            for _ in 0..100 {
                fixture.begin();
                fixture.end_all();
                fixture.now += SECOND / 10;
            }
            for (zone, mask) in zones.into_iter().zip(followed) {
                let expected: BTreeSet<_> = endpoints(nodes(mask)).into_keys().collect();
                prop_assert_eq!(fixture.take_all(zone), expected, "every node is probed in the end");
                fixture.schedule.unsubscribe(zone);
            }
            fixture.check();
            prop_assert!(fixture.schedule.wake().is_none() && fixture.schedule.zones.is_empty());
            prop_assert_eq!(fixture.schedule.len(), 0);
        }
    }
}

//! Two clusters lose, gain, isolate, split, slow, recycle and corrupt nodes at random; every answer is compared with the
//! known state of both.
//!
//! Every answer must satisfy these rules, which are those of the design:
//! - It is never empty.
//! - It never holds a node that has been dead for longer than its budget: [`refused`] or [`silent`]. While more than
//!   half of a cluster is slow no node is dropped for slowness, and while all of it is dead the last known nodes stay,
//!   so this is not asserted during those faults, nor for [`recovery`] after them.
//! - It never holds a node of the other cluster, except that an address which changed hands may be answered by its
//!   former zone for [`changed_hands`].
//! - It never holds a node that was announced and has never served.
//!
//! It is not asserted that a live node is answered at every moment: it may be missing for a while (it joins, its side of
//! a split is outvoted, its `/localnodes` is corrupt). Some events do not happen here, because no rule can detect them: a
//! peer that still lists an address which is another cluster's by now; two addresses of
//! one cluster that change hands at once; a cluster that is dead whole while one of its addresses changes hands; an
//! address that goes back to where it came from; a cluster that is dead whole while the new owner of one of its seeds
//! is split, because the lesser side of a split is not published. A node that no other node sees is not published
//! either, so the first two nodes of a cluster, which are among its seeds, keep their addresses.
//!
//! The events depend on the seed alone, not on time or addresses. `ALTERNATOR_DNS_CHAOS_SEED` repeats a run,
//! `ALTERNATOR_DNS_CHAOS_SECONDS` makes it longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster};
use rand::{
    RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};

use crate::{
    daemon::{Daemon, zone_with},
    observe::{JITTER, ask, state},
};

/// How long a run is unless the environment says otherwise: long enough for every event to happen.
const SECONDS: u64 = 20;

/// Nodes in each cluster when it begins.
const NODES: usize = 20;

/// Running nodes in a cluster, but when all of it is dead.
const RUNNING: std::ops::RangeInclusive<usize> = 16..=26;

/// The least number of healthy nodes on each side of a split: whichever side is answered, the bounds on faults leave more
/// than half of it healthy.
const SIDE_MIN: usize = 8;

/// Nodes of a cluster that are listed and yet do not serve, at once: slow ones leave only while half of the list
/// remains, and this is far from it.
const FAULTY_MAX: usize = 3;

/// Nodes of a cluster that send a wrong list at one time. A polled node must usually send a right one.
const LYING_MAX: usize = 2;

/// The intervals of the resolver. Twenty-six nodes are probed 65 times a second, fewer than would lengthen the interval.
const REFRESH: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(400);
const INTERVAL: Duration = Duration::from_millis(400);
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
const RISE: u32 = 2;
const FALL: u32 = 2;

/// The constants above, in the file.
const KEYS: &str = "refresh = \"300ms\"\ntimeout = \"400ms\"\nanswers = \"all\"\n\
                    health = { interval = \"400ms\", timeout = \"300ms\", rise = 2, fall = 2 }\n";

/// Forty nodes, a debug binary and other tests share the machine.
const BUSY: Duration = Duration::from_secs(1);

/// A node that refuses, resets or is gone: the next probe and its confirmation. With an interval of a second the
/// promise is a second and a half.
fn refused() -> Duration {
    INTERVAL.mul_f64(1.5) + BUSY
}

/// A node that does not answer, or errs: so many probes in a row, and the last one's timeout.
fn silent() -> Duration {
    (INTERVAL * FALL + PROBE_TIMEOUT).mul_f64(JITTER) + BUSY
}

/// An address that another cluster has taken over: two refreshes, and a poll of the longest duration, because some of the
/// nodes that it asks hang.
fn changed_hands() -> Duration {
    (REFRESH * 2).mul_f64(JITTER) + TIMEOUT * 3 + BUSY
}

/// After an overload or the death of a whole cluster: nodes must be probed until they are up, and others down.
fn recovery() -> Duration {
    changed_hands() + (INTERVAL * RISE).mul_f64(JITTER) + silent()
}

/// After the last fault: the recovery of every node, once more for those that were missing meanwhile.
fn convergence() -> Duration {
    recovery() * 2
}

/// Between two events, in milliseconds: some overlap, and some are over before the next.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 80..=240;

/// How many events lie between two that must not touch: more than an address may take to change hands, at the shortest
/// pause. Measured in time, every run would differ.
fn apart() -> u64 {
    u64::try_from(changed_hands().as_millis()).unwrap() / PAUSE_MS.start() + 1
}

/// How many events a fault of a whole cluster lasts at least, and the pause after it.
const FAULT_STEPS: u64 = 12;

/// Pacing of the load: a question to each zone, then this.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(5);

/// Events that a failure prints.
const LAST_EVENTS: usize = 40;

#[test]
fn answers_keep_the_rules_during_random_faults() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("ALTERNATOR_DNS_CHAOS_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let length = Duration::from_secs(number("ALTERNATOR_DNS_CHAOS_SECONDS").unwrap_or(SECONDS));
    println!("ALTERNATOR_DNS_CHAOS_SEED={seed}");
    let mut world = World::new(seed);
    let zones: String = world.clusters.iter().map(Truth::zone).collect();
    let daemon = Daemon::start("chaos", &zones);
    world.converges(&daemon, "at the beginning");
    let start = Instant::now();
    while start.elapsed() < length {
        world.happen();
        let next = Instant::now() + Duration::from_millis(world.chance.random_range(PAUSE_MS));
        while Instant::now() < next {
            world.check_answers(&daemon);
            std::thread::sleep(BETWEEN_QUESTIONS);
        }
    }
    world.heal_all();
    world.converges(&daemon, "at the end");
    println!("{} events, {} answers: {:?}", world.steps, world.answers, world.happened);
}

/// Events drawn by the test of the events themselves: enough for each kind to happen.
const HISTORY_STEPS: u32 = 3000;

#[test]
fn a_seed_gives_one_history_and_the_recorded_state_is_the_simulated_one() {
    let mut one = World::new(7);
    let mut other = World::new(7);
    for _ in 0..HISTORY_STEPS {
        one.happen();
        other.happen();
        for truth in &one.clusters {
            let expected: BTreeSet<_> =
                truth.nodes.iter().filter(|(.., is)| is.runs()).map(|(node, ..)| *node).collect();
            let running: BTreeSet<_> = truth.cluster.running().into_iter().collect();
            match truth.fault {
                ClusterFault::Blackout => assert!(running.is_empty()),
                _ => assert_eq!(running, expected),
            }
            assert!(running.is_empty() || RUNNING.contains(&running.len()), "{}", running.len());
            let faulty = truth.count(Condition::is_listed_and_not_serving);
            assert!(truth.fault == ClusterFault::Overload || faulty <= FAULTY_MAX, "{faulty}");
        }
    }
    let words = |world: World| world.history.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    assert_eq!(one.happened.len(), EVENTS.len(), "each event happens: {:?}", one.happened);
    assert_eq!(words(one), words(other));
}

#[test]
fn dead_foreign_and_never_started_nodes_are_violations() {
    let mut world = World::new(1);
    let node = world.clusters[0].nodes[5].0;
    let foreign = world.clusters[1].nodes[5].0;
    let later = |duration: Duration| Instant::now() + duration;
    assert_eq!(world.violation(0, later(Duration::ZERO), node), None);
    assert!(world.violation(0, later(Duration::ZERO), foreign).is_some(), "the other cluster's");
    assert!(
        world.violation(0, later(Duration::ZERO), Ipv4Addr::LOCALHOST.into()).is_some(),
        "no node had this address"
    );
    world.set_dead(node, refused());
    world.set_dead(node, silent());
    assert_eq!(world.violation(0, later(Duration::ZERO), node), None);
    assert!(world.violation(0, later(refused()), node).is_some(), "no further fault gives a dead node more time");
    world.clusters[0].excused_until = None;
    assert_eq!(world.violation(0, later(refused()), node), None);
    assert!(world.recycle(1).is_some());
    let (given, ..) = *world.clusters[0].nodes.last().unwrap();
    assert_eq!(world.violation(0, later(Duration::ZERO), given), None, "its new owner answers it at once");
    assert_eq!(world.violation(1, later(changed_hands() / 2), given), None, "its former one for a while");
    assert!(world.violation(1, later(changed_hands() * 2), given).is_some());
}

/// What may happen to a cluster.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// A node refuses, and its peers list it still.
    Crash,
    /// A node refuses, and its peers have noticed.
    Stop,
    /// A node accepts connections and does not answer.
    Hang,
    /// A node answers `/` with 500.
    Err,
    /// A node answers `/` after three seconds, and is not dead.
    Slow,
    /// A node sees only itself.
    Isolate,
    /// A node answers `/localnodes` with nonsense.
    Corrupt,
    /// A node with any of these faults is healthy again.
    Heal,
    /// A node is added.
    Gain,
    /// A node is listed before it serves.
    Announce,
    /// A node that was announced serves.
    Join,
    /// A node leaves permanently.
    Lose,
    /// The other cluster is given the address of a node.
    Recycle,
    /// Two sides see only themselves.
    Split,
    /// More than half of the nodes answer `/` late.
    Overload,
    /// All nodes stop.
    Blackout,
    /// A split, an overload or a blackout is over.
    Recovery,
}

/// How often each of them is drawn.
const EVENTS: [(Event, u32); 17] = [
    (Event::Crash, 4),
    (Event::Stop, 4),
    (Event::Hang, 4),
    (Event::Err, 3),
    (Event::Slow, 2),
    (Event::Isolate, 3),
    (Event::Corrupt, 4),
    (Event::Heal, 14),
    (Event::Gain, 4),
    (Event::Announce, 3),
    (Event::Join, 3),
    (Event::Lose, 3),
    (Event::Recycle, 6),
    (Event::Split, 3),
    (Event::Overload, 2),
    (Event::Blackout, 2),
    (Event::Recovery, 6),
];

/// The condition of one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Condition {
    Healthy,
    /// It refuses; its peers may or may not list it.
    Refuses {
        listed: bool,
    },
    /// It hangs or errs.
    Silent,
    /// It answers `/` late. Nothing is wrong, whether it is answered or not.
    Slow,
    /// It serves, and its list is wrong.
    WrongList,
    /// It is listed and has never served.
    Announced,
}

impl Condition {
    fn is_listed_and_not_serving(self) -> bool {
        matches!(self, Self::Refuses { listed: true } | Self::Silent | Self::Slow | Self::Announced)
    }

    fn runs(self) -> bool {
        !matches!(self, Self::Refuses { .. } | Self::Announced)
    }
}

/// A fault of a whole cluster; one at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ClusterFault {
    Healthy,
    Split,
    Overload,
    Blackout,
}

/// The history of one address, whichever node had it.
#[derive(Clone, Copy, Debug)]
struct Address {
    /// The cluster that has it, or had it last.
    owner: usize,
    /// When it changed hands; `None`: it never did.
    changed_hands: Option<Instant>,
    /// From then on it must not be answered.
    dead_from: Option<Instant>,
}

/// One cluster, as it is.
struct Truth {
    name: &'static str,
    cluster: SimulatedCluster,
    /// In the order of joining, so that events do not depend on addresses. Each with its number and condition.
    nodes: Vec<(IpAddr, u32, Condition)>,
    /// The next node's number, and its distance from the first address.
    next: u32,
    first: Ipv4Addr,
    fault: ClusterFault,
    /// One of the sides of a split. Nodes that are added later are on the other.
    side: BTreeSet<IpAddr>,
    /// When the last fault that excuses dead nodes ended; `None` while it lasts.
    excused_until: Option<Instant>,
    /// Events until the fault may change, so that it lasts.
    fault_steps: u64,
}

impl Truth {
    fn new(name: &'static str, cluster: SimulatedCluster) -> Self {
        let IpAddr::V4(first) = cluster.node(0) else { panic!("IPv4 is simulated") };
        let nodes = cluster.nodes().into_iter().zip(0..).map(|(node, n)| (node, n, Condition::Healthy)).collect();
        Self {
            name,
            cluster,
            nodes,
            next: u32::try_from(NODES).unwrap(),
            first,
            fault: ClusterFault::Healthy,
            side: BTreeSet::new(),
            excused_until: Some(Instant::now()),
            fault_steps: 0,
        }
    }

    fn zone_name(&self) -> String {
        format!("{}.example", self.name)
    }

    fn zone(&self) -> String {
        let seeds: Vec<_> = self.nodes[..4].iter().map(|(node, ..)| *node).collect();
        zone_with(&self.zone_name(), &seeds, self.cluster.port(), KEYS)
    }

    fn count(&self, is: impl Fn(Condition) -> bool) -> usize {
        self.nodes.iter().filter(|(.., condition)| is(*condition)).count()
    }

    /// An address of its own range that no node has had.
    fn fresh(&mut self) -> (IpAddr, u32) {
        let number = self.next;
        self.next += 1;
        (Ipv4Addr::from_bits(self.first.to_bits() + number).into(), number)
    }

    /// A random node in such a condition. The first two seeds are never chosen to leave permanently.
    fn draw(&self, chance: &mut StdRng, permanently: bool, is: impl Fn(Condition) -> bool) -> Option<usize> {
        let fit = |(index, (_, number, condition)): (usize, &(IpAddr, u32, Condition))| {
            ((!permanently || *number >= 2) && is(*condition)).then_some(index)
        };
        let fit: Vec<_> = self.nodes.iter().enumerate().filter_map(fit).collect();
        fit.choose(chance).copied()
    }

    /// Whether a node may become faulty, or leave, with enough healthy nodes remaining on its side of a split.
    fn spares(&self, index: usize) -> bool {
        let (node, _, condition) = &self.nodes[index];
        let beside = |other: &&(IpAddr, u32, Condition)| self.side.contains(&other.0) == self.side.contains(node);
        let healthy = self.nodes.iter().filter(beside).filter(|(.., other)| *other == Condition::Healthy).count();
        self.fault != ClusterFault::Split || *condition != Condition::Healthy || healthy > SIDE_MIN
    }

    fn is_excused(&self, asked: Instant) -> bool {
        self.excused_until.is_none_or(|until| asked < until)
    }
}

/// Both clusters, the history of each address, and the events so far.
struct World {
    seed: u64,
    chance: StdRng,
    clusters: [Truth; 2],
    addresses: BTreeMap<IpAddr, Address>,
    start: Instant,
    steps: u64,
    answers: u64,
    /// The step in which an address last changed hands.
    recycled: Option<u64>,
    /// The step in which a cluster last died whole, or came back.
    blackout: Option<u64>,
    /// The step in which a cluster was last split, or whole again.
    split: Option<u64>,
    /// Addresses that have changed hands do not do so again.
    used: BTreeSet<IpAddr>,
    /// When, and what.
    history: Vec<(Duration, String)>,
    happened: BTreeMap<Event, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let a = SimulatedCluster::start(NODES).unwrap();
        let b = a.start_beside(NODES).unwrap();
        let clusters = [Truth::new("a", a), Truth::new("b", b)];
        let mut addresses = BTreeMap::new();
        for (owner, truth) in clusters.iter().enumerate() {
            for &(node, ..) in &truth.nodes {
                let former = addresses.insert(node, Address { owner, changed_hands: None, dead_from: None });
                assert!(former.is_none(), "the clusters overlap from the start");
            }
        }
        Self {
            seed,
            chance: StdRng::seed_from_u64(seed),
            clusters,
            addresses,
            start: Instant::now(),
            steps: 0,
            answers: 0,
            recycled: None,
            blackout: None,
            split: None,
            used: BTreeSet::new(),
            history: Vec::new(),
            happened: BTreeMap::new(),
        }
    }

    /// Draws an event; if it cannot happen now, nothing does.
    fn happen(&mut self) {
        self.steps += 1;
        for truth in &mut self.clusters {
            truth.fault_steps = truth.fault_steps.saturating_sub(1);
        }
        let which = self.chance.random_range(0..2);
        let total: u32 = EVENTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.random_range(0..total);
        let event = EVENTS.iter().find(|(_, weight)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let (event, _) = event.expect("the weights add up");
        if let Some(detail) = self.try_event(which, *event) {
            *self.happened.entry(*event).or_default() += 1;
            let line = format!("{} {event:?} {detail}", self.clusters[which].name);
            self.history.push((self.start.elapsed(), line));
        }
    }

    fn try_event(&mut self, which: usize, event: Event) -> Option<String> {
        match event {
            Event::Recovery => self.end_fault(which),
            // During a blackout no other event happens.
            _ if self.clusters[which].fault == ClusterFault::Blackout => None,
            Event::Split | Event::Overload | Event::Blackout => self.begin_fault(which, event),
            Event::Gain | Event::Announce | Event::Join => self.grow(which, event),
            Event::Recycle => self.recycle(which),
            Event::Heal => {
                let sick = |condition| !matches!(condition, Condition::Healthy | Condition::Announced);
                let index = self.clusters[which].draw(&mut self.chance, false, sick)?;
                self.heal(which, index);
                Some(self.label(which, index))
            }
            Event::Lose => {
                let truth = &self.clusters[which];
                let index = truth.draw(&mut self.chance, true, |_| true)?;
                let (node, _, condition) = truth.nodes[index];
                if !truth.spares(index) || (condition.runs() && truth.count(Condition::runs) <= *RUNNING.start()) {
                    return None;
                }
                let label = self.label(which, index);
                self.clusters[which].cluster.remove(node);
                self.clusters[which].nodes.remove(index);
                self.set_dead(node, refused());
                Some(label)
            }
            _ => self.begin_node_fault(which, event),
        }
    }

    /// A fault of one node begins.
    fn begin_node_fault(&mut self, which: usize, event: Event) -> Option<String> {
        let truth = &self.clusters[which];
        let (condition, bound) = match event {
            Event::Crash => (Condition::Refuses { listed: true }, FAULTY_MAX),
            Event::Stop => (Condition::Refuses { listed: false }, usize::MAX),
            Event::Hang | Event::Err => (Condition::Silent, FAULTY_MAX),
            Event::Slow => (Condition::Slow, FAULTY_MAX),
            _ => (Condition::WrongList, LYING_MAX),
        };
        let alike = match condition {
            Condition::WrongList => truth.count(|other| other == Condition::WrongList),
            _ => truth.count(Condition::is_listed_and_not_serving),
        };
        let few = truth.count(|other| other == Condition::Healthy) <= *RUNNING.start();
        if alike >= bound || few || truth.fault == ClusterFault::Overload {
            return None;
        }
        let index = truth.draw(&mut self.chance, false, |other| other == Condition::Healthy)?;
        if !truth.spares(index) {
            return None;
        }
        let node = truth.nodes[index].0;
        let cluster = &truth.cluster;
        let mut what = String::new();
        match event {
            Event::Crash => cluster.crash(node),
            Event::Stop => cluster.stop(node),
            Event::Hang => {
                cluster.deliver(node, Path::LocalNodes, Delivery::Hang);
                cluster.deliver(node, Path::Health, Delivery::Hang);
            }
            Event::Err => cluster.say(node, Path::Health, Content::Reply(HttpReply::status(500))),
            Event::Slow => cluster.overload(node, Duration::from_secs(3)),
            Event::Isolate => cluster.isolate(node),
            _ => what = corrupt(cluster, node, &mut self.chance),
        }
        match condition {
            Condition::Refuses { .. } => self.set_dead(node, refused()),
            Condition::Silent => self.set_dead(node, silent()),
            _ => {}
        }
        self.clusters[which].nodes[index].2 = condition;
        Some(self.label(which, index) + &what)
    }

    /// Nodes that come.
    fn grow(&mut self, which: usize, event: Event) -> Option<String> {
        let truth = &mut self.clusters[which];
        if event == Event::Join {
            let index = truth.draw(&mut self.chance, false, |condition| condition == Condition::Announced)?;
            self.heal(which, index);
            return Some(self.label(which, index));
        }
        let listed = truth.count(Condition::is_listed_and_not_serving);
        if truth.nodes.len() >= *RUNNING.end() || (event == Event::Announce && listed >= FAULTY_MAX) {
            return None;
        }
        let (node, number) = truth.fresh();
        let (condition, dead_from) = match event {
            Event::Announce => (Condition::Announced, Some(Instant::now())),
            _ => (Condition::Healthy, None),
        };
        // Before it is listed: an answer may come first.
        self.addresses.insert(node, Address { owner: which, changed_hands: None, dead_from });
        match condition {
            Condition::Announced => truth.cluster.announce(node),
            _ => truth.cluster.add_at(node).unwrap(),
        }
        truth.nodes.push((node, number, condition));
        let newest = truth.nodes.len() - 1;
        Some(self.label(which, newest))
    }

    /// The other cluster is given the address of a node.
    fn recycle(&mut self, which: usize) -> Option<String> {
        let calm = self.clusters.iter().all(|truth| truth.fault == ClusterFault::Healthy);
        let alone = self.is_past(self.recycled) && self.is_past(self.blackout);
        let [from, to] = [&self.clusters[which], &self.clusters[1 - which]];
        let allowed = from.count(Condition::runs) > *RUNNING.start() && to.nodes.len() < *RUNNING.end();
        if !(calm && alone && allowed) {
            return None;
        }
        let index = from.draw(&mut self.chance, true, |condition| condition != Condition::Announced)?;
        let node = from.nodes[index].0;
        if !self.used.insert(node) {
            return None;
        }
        let label = self.label(which, index);
        let address = Address { owner: 1 - which, changed_hands: Some(Instant::now()), dead_from: None };
        self.addresses.insert(node, address);
        self.clusters[1 - which].cluster.take_over(&self.clusters[which].cluster, node).unwrap();
        self.clusters[which].nodes.remove(index);
        let number = self.clusters[1 - which].next;
        self.clusters[1 - which].next += 1;
        self.clusters[1 - which].nodes.push((node, number, Condition::Healthy));
        self.recycled = Some(self.steps);
        Some(format!("{label} is {}{number} now", self.clusters[1 - which].name))
    }

    /// A fault of the whole cluster begins.
    fn begin_fault(&mut self, which: usize, event: Event) -> Option<String> {
        let alone = self.is_past(self.recycled);
        let no_split = self.is_past(self.split) && self.clusters[1 - which].fault != ClusterFault::Split;
        let no_blackout = self.is_past(self.blackout) && self.clusters[1 - which].fault != ClusterFault::Blackout;
        let truth = &mut self.clusters[which];
        if truth.fault != ClusterFault::Healthy || truth.fault_steps > 0 {
            return None;
        }
        let all: Vec<_> = truth.nodes.iter().map(|(node, ..)| *node).collect();
        let detail = match event {
            Event::Split => {
                let is_healthy = |(node, _, condition): &(IpAddr, u32, Condition)| {
                    (*condition == Condition::Healthy).then_some(*node)
                };
                let healthy: Vec<_> = truth.nodes.iter().filter_map(is_healthy).collect();
                if healthy.len() < SIDE_MIN * 2 || !no_blackout {
                    return None;
                }
                let smaller = self.chance.random_range(SIDE_MIN..=healthy.len() / 2);
                let order = shuffled(&healthy, &mut self.chance);
                truth.side = order.into_iter().take(smaller).collect();
                for node in all.iter().filter(|node| !healthy.contains(node)) {
                    if self.chance.random() {
                        truth.side.insert(*node);
                    }
                }
                truth.cluster.split(&[&truth.side.iter().copied().collect::<Vec<_>>()]);
                truth.fault = ClusterFault::Split;
                self.split = Some(self.steps);
                format!("{} of {}", truth.side.len(), all.len())
            }
            Event::Overload => {
                let many: Vec<_> = (0..all.len()).filter(|&index| truth.nodes[index].2 == Condition::Healthy).collect();
                let many = shuffled(&many, &mut self.chance);
                let many = &many[..many.len().min(all.len() * 2 / 3)];
                for &index in many {
                    truth.cluster.overload(truth.nodes[index].0, Duration::from_secs(3));
                    truth.nodes[index].2 = Condition::Slow;
                }
                truth.fault = ClusterFault::Overload;
                truth.excused_until = None;
                format!("{} of {}", many.len(), all.len())
            }
            _ => {
                if !alone || !no_split || truth.count(|condition| condition == Condition::Announced) > 0 {
                    return None;
                }
                truth.excused_until = None;
                truth.fault = ClusterFault::Blackout;
                self.blackout = Some(self.steps);
                for node in all {
                    self.clusters[which].cluster.stop(node);
                    self.set_dead(node, refused());
                }
                String::new()
            }
        };
        self.clusters[which].fault_steps = FAULT_STEPS;
        Some(detail)
    }

    /// A fault of the whole cluster ends.
    fn end_fault(&mut self, which: usize) -> Option<String> {
        let truth = &mut self.clusters[which];
        if truth.fault == ClusterFault::Healthy || truth.fault_steps > 0 {
            return None;
        }
        let ended = std::mem::replace(&mut truth.fault, ClusterFault::Healthy);
        truth.cluster.heal_split();
        truth.side.clear();
        match ended {
            ClusterFault::Blackout => self.blackout = Some(self.steps),
            ClusterFault::Split => self.split = Some(self.steps),
            ClusterFault::Healthy | ClusterFault::Overload => {}
        }
        if ended != ClusterFault::Split {
            for index in 0..self.clusters[which].nodes.len() {
                if ended == ClusterFault::Blackout || self.clusters[which].nodes[index].2 == Condition::Slow {
                    self.heal(which, index);
                }
            }
            self.clusters[which].excused_until = Some(Instant::now() + recovery());
        }
        self.clusters[which].fault_steps = FAULT_STEPS;
        Some(format!("{ended:?} is over"))
    }

    /// A node is healthy again, whatever its fault was.
    fn heal(&mut self, which: usize, index: usize) {
        let truth = &mut self.clusters[which];
        let (node, _, condition) = &mut truth.nodes[index];
        *condition = Condition::Healthy;
        if let Some(address) = self.addresses.get_mut(node) {
            address.dead_from = None;
        }
        truth.cluster.heal(*node);
        truth.cluster.restart(*node).unwrap();
    }

    /// Sets when a node must be gone. One that was dead already gets no more time.
    fn set_dead(&mut self, node: IpAddr, budget: Duration) {
        let from = Instant::now() + budget;
        if let Some(address) = self.addresses.get_mut(&node) {
            address.dead_from = Some(address.dead_from.map_or(from, |before| before.min(from)));
        }
    }

    /// Whether what happened in that step touches nothing that happens now.
    fn is_past(&self, step: Option<u64>) -> bool {
        step.is_none_or(|step| self.steps > step + apart())
    }

    fn label(&self, which: usize, index: usize) -> String {
        let truth = &self.clusters[which];
        format!("{}{}", truth.name, truth.nodes[index].1)
    }

    fn label_of(&self, node: IpAddr) -> String {
        let find = |which: usize| self.clusters[which].nodes.iter().position(|(other, ..)| *other == node);
        let labels = (0..2).filter_map(|which| Some(self.label(which, find(which)?)));
        labels.reduce(|one, other| one + " and " + &other).unwrap_or_else(|| "a node that is gone".into())
    }

    /// Asks both zones, and compares the answers with the known state.
    #[track_caller]
    fn check_answers(&mut self, daemon: &Daemon) {
        for which in 0..2 {
            let asked = Instant::now();
            let reply = ask(daemon, &self.clusters[which].zone_name());
            self.answers += 1;
            if reply.rcode != "NoError" || reply.answers.is_empty() || reply.truncated {
                self.fail(which, &format!("{} with {:?}", reply.rcode, reply.answers));
            }
            for text in reply.data() {
                if let Some(violation) = self.violation(which, asked, text.parse().unwrap()) {
                    let label = self.label_of(text.parse().unwrap());
                    self.fail(which, &format!("{label} is answered, {text}: {violation}"));
                }
            }
        }
    }

    /// The rule that an answer asked for at this time violates, if any.
    fn violation(&self, which: usize, asked: Instant, node: IpAddr) -> Option<String> {
        let Some(address) = self.addresses.get(&node) else { return Some("no node ever had this address".into()) };
        let since = |then: Instant| asked.saturating_duration_since(then);
        if address.owner != which {
            return match address.changed_hands {
                Some(then) if since(then) <= changed_hands() => None,
                Some(then) => Some(format!("it has been the other cluster's for {:?}", since(then))),
                None => Some("it is the other cluster's, and always was".into()),
            };
        }
        let dead_from = address.dead_from.filter(|from| asked > *from)?;
        let excused = self.clusters[which].is_excused(asked);
        (!excused).then(|| format!("its time was over {:?} ago", since(dead_from)))
    }

    /// Every node is healthy again, and sees every other.
    fn heal_all(&mut self) {
        for which in 0..2 {
            self.clusters[which].cluster.heal_split();
            for index in 0..self.clusters[which].nodes.len() {
                self.heal(which, index);
            }
            self.clusters[which].excused_until = Some(Instant::now() + recovery());
        }
        self.history.push((self.start.elapsed(), "the chaos ends".into()));
    }

    /// Waits until both zones answer exactly the running nodes, and checks every answer meanwhile.
    #[track_caller]
    fn converges(&mut self, daemon: &Daemon, when: &str) {
        let begun = Instant::now();
        loop {
            self.check_answers(daemon);
            let wrong = (0..2).find(|&which| {
                let truth = &self.clusters[which];
                let seen: BTreeSet<IpAddr> =
                    ask(daemon, &truth.zone_name()).data().iter().map(|text| text.parse().unwrap()).collect();
                seen != truth.cluster.running().into_iter().collect() || state(daemon, &truth.zone_name()) != "live"
            });
            let Some(which) = wrong else { return };
            if begun.elapsed() > convergence() {
                let running = self.clusters[which].cluster.running();
                let shown = daemon.zone(&format!("{}.", self.clusters[which].zone_name()));
                self.fail(which, &format!("no convergence {when} within {:?} to {running:?}: {shown}", convergence()));
            }
            std::thread::sleep(BETWEEN_QUESTIONS);
        }
    }

    #[track_caller]
    fn fail(&self, which: usize, what: &str) -> ! {
        let mut history = String::new();
        for (when, line) in self.history.iter().skip(self.history.len().saturating_sub(LAST_EVENTS)) {
            // Writing to a string cannot fail.
            let _ = writeln!(history, "{:7.3} {line}", when.as_secs_f64());
        }
        let now = self.start.elapsed().as_secs_f64();
        let seed = self.seed;
        let zone = self.clusters[which].zone_name();
        panic!("{history}{now:7.3} {zone}: {what}\nrepeat it with ALTERNATOR_DNS_CHAOS_SEED={seed}");
    }
}

/// Makes a node answer `/localnodes` with something that is no list of nodes. Returns what.
fn corrupt(cluster: &SimulatedCluster, node: IpAddr, chance: &mut StdRng) -> String {
    let body = |text: &str| (Content::Reply(HttpReply::ok(text)), Delivery::Prompt);
    let (what, (content, delivery)) = match chance.random_range(0..8) {
        0 => ("an empty list", body("[]")),
        1 => ("a page", body("<html><body>It works!</body></html>")),
        2 => ("names", body(r#"["node-a.internal","0b1c2d3e-1111-4222-8333-444455556666","0.0.0.0"]"#)),
        3 => ("a torn list", body(r#"["127.0.0.1","#)),
        4 => ("an error", (Content::Reply(HttpReply::status(500)), Delivery::Prompt)),
        5 => ("a reset", (Content::Usual, Delivery::ResetMidBody)),
        6 => ("a body too short", (Content::Usual, Delivery::Short)),
        _ => ("a drip", (Content::Usual, Delivery::Drip(Duration::from_millis(20)))),
    };
    cluster.say(node, Path::LocalNodes, content);
    cluster.deliver(node, Path::LocalNodes, delivery);
    format!(": {what}")
}

fn shuffled<T: Clone>(things: &[T], chance: &mut StdRng) -> Vec<T> {
    let mut things = things.to_vec();
    things.shuffle(chance);
    things
}

//! Two clusters lose, gain, isolate, split, slow, recycle and corrupt nodes at random, while a truth that is kept
//! beside them judges every answer.
//!
//! What is asserted of every answer, and no more than the design promises:
//! - It is never empty.
//! - It never holds a node that has been dead for longer than its budget: [`refused`] or [`silent`]. While more than
//!   half of a cluster is slow no node is dropped for slowness, and while all of it is dead the last known nodes stay,
//!   so this is not asserted of a cluster in those troubles, nor for [`recovery`] after them.
//! - It never holds a node of the other cluster, except that an address which changed hands may be answered by its
//!   former zone for [`changed_hands`].
//! - It never holds a node that was announced and has never served.
//!
//! What is not asserted, because it cannot be known: a node that lives may be missing for a while (it joins, its
//! side of a split is outvoted, its `/localnodes` is corrupt). And some things do not happen here, because no rule can
//! tell them from the truth: a peer that still lists an address which is another cluster's by now; two addresses of
//! one cluster that change hands at once; a cluster that is dead whole while one of its addresses changes hands; an
//! address that goes back to where it came from; a cluster that is dead whole while the new owner of one of its seeds
//! is split, because the lesser side of a split is not published. A node that no other node sees is not published
//! either, so the first two nodes of a cluster, which are among its seeds, keep their addresses.
//!
//! The story depends on its seed and on nothing else: not on time, and not on addresses. `ALTERNATOR_DNS_CHAOS_SEED`
//! tells one again, `ALTERNATOR_DNS_CHAOS_SECONDS` tells it for longer.

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

/// How long the story is unless the environment says otherwise: long enough for every event to happen.
const SECONDS: u64 = 20;

/// Nodes in each cluster when it begins.
const NODES: usize = 20;

/// Running nodes in a cluster, but when all of it is dead.
const RUNNING: std::ops::RangeInclusive<usize> = 16..=26;

/// Nodes that are well on either side of a split, at least: whichever of them is answered, and though it may be the
/// whole list by then, the bounds on troubles leave more than half of it healthy.
const SIDE_MIN: usize = 8;

/// Nodes of a cluster that are listed and yet do not serve, at once: slow ones leave only while half of the list
/// remains, and this is far from it.
const TROUBLED_MAX: usize = 3;

/// Nodes of a cluster that lie about the list, at once. A node that is polled must be likely to tell the truth.
const LYING_MAX: usize = 2;

/// How the resolver is told to look. Twenty-six nodes are probed 65 times a second, less than would stretch the
/// interval.
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

/// A node that says nothing, or errs: so many probes in a row, and the last one's timeout.
fn silent() -> Duration {
    (INTERVAL * FALL + PROBE_TIMEOUT).mul_f64(JITTER) + BUSY
}

/// An address that another cluster has been given: two refreshes, the second tick as long as a tick may be, because
/// some of those that it asks hang.
fn changed_hands() -> Duration {
    (REFRESH * 2).mul_f64(JITTER) + TIMEOUT * 3 + BUSY
}

/// After an overload or the death of a whole cluster: its nodes have to be heard, to rise, and others to fall.
fn recovery() -> Duration {
    changed_hands() + (INTERVAL * RISE).mul_f64(JITTER) + silent()
}

/// When the chaos has ended: the recovery of everybody, once more for those that were missing meanwhile.
fn convergence() -> Duration {
    recovery() * 2
}

/// Between two events, in milliseconds: some overlap, and some are over before the next.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 80..=240;

/// How many events lie between two that must not touch: more than an address may take to change hands, at the shortest
/// pause. Time itself would make another story of every run.
fn apart() -> u64 {
    u64::try_from(changed_hands().as_millis()).unwrap() / PAUSE_MS.start() + 1
}

/// How many events a trouble of a whole cluster lasts at least, and the calm after it.
const WEATHER_STEPS: u64 = 12;

/// Pacing of the load: a question to each zone, then this.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(5);

/// Events that a failure tells.
const LAST_EVENTS: usize = 40;

#[test]
fn answers_are_true_whatever_happens() {
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
            world.judge(&daemon);
            std::thread::sleep(BETWEEN_QUESTIONS);
        }
    }
    world.calm_down();
    world.converges(&daemon, "at the end");
    println!("{} events, {} answers: {:?}", world.steps, world.answers, world.happened);
}

/// Events that a test of the story itself draws: enough for each of them to happen.
const STORY_STEPS: u32 = 3000;

#[test]
fn a_seed_tells_one_story_and_the_truth_is_the_simulations() {
    let (mut one, mut other) = (World::new(7), World::new(7));
    for _ in 0..STORY_STEPS {
        one.happen();
        other.happen();
        for truth in &one.clusters {
            let told: BTreeSet<_> = truth.nodes.iter().filter(|(.., is)| is.runs()).map(|(node, ..)| *node).collect();
            let running: BTreeSet<_> = truth.cluster.running().into_iter().collect();
            match truth.weather {
                Weather::Blackout => assert!(running.is_empty()),
                _ => assert_eq!(running, told),
            }
            assert!(running.is_empty() || RUNNING.contains(&running.len()), "{}", running.len());
            let troubled = truth.count(Condition::is_listed_and_not_serving);
            assert!(truth.weather == Weather::Overload || troubled <= TROUBLED_MAX, "{troubled}");
        }
    }
    let words = |world: World| world.story.into_iter().map(|(_, line)| line).collect::<Vec<_>>();
    assert_eq!(one.happened.len(), EVENTS.len(), "each event happens: {:?}", one.happened);
    assert_eq!(words(one), words(other));
}

#[test]
fn the_truth_objects_to_the_dead_the_foreign_and_the_unborn() {
    let mut world = World::new(1);
    let (node, strange) = (world.clusters[0].nodes[5].0, world.clusters[1].nodes[5].0);
    let later = |duration: Duration| Instant::now() + duration;
    assert_eq!(world.complaint(0, later(Duration::ZERO), node), None);
    assert!(world.complaint(0, later(Duration::ZERO), strange).is_some(), "the other cluster's");
    assert!(world.complaint(0, later(Duration::ZERO), Ipv4Addr::LOCALHOST.into()).is_some(), "nobody's");
    world.dies(node, refused());
    world.dies(node, silent());
    assert_eq!(world.complaint(0, later(Duration::ZERO), node), None);
    assert!(world.complaint(0, later(refused()), node).is_some(), "no trouble gives a dead node more time");
    world.clusters[0].excused_until = None;
    assert_eq!(world.complaint(0, later(refused()), node), None);
    assert!(world.recycle(1).is_some());
    let (given, ..) = *world.clusters[0].nodes.last().unwrap();
    assert_eq!(world.complaint(0, later(Duration::ZERO), given), None, "its new owner answers it at once");
    assert_eq!(world.complaint(1, later(changed_hands() / 2), given), None, "its former one for a while");
    assert!(world.complaint(1, later(changed_hands() * 2), given).is_some());
}

/// What may befall a cluster.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// A node refuses, and its peers list it still.
    Crash,
    /// A node refuses, and its peers have noticed.
    Stop,
    /// A node accepts and says nothing.
    Hang,
    /// A node answers `/` with 500.
    Err,
    /// A node answers `/` after three seconds, and is not dead.
    Slow,
    /// A node sees only itself.
    Isolate,
    /// A node answers `/localnodes` with nonsense.
    Corrupt,
    /// A node that had any of these troubles is well again.
    Heal,
    /// A node is added.
    Gain,
    /// A node is listed before it serves.
    Announce,
    /// A node that was announced serves.
    Join,
    /// A node goes for ever.
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
    Relief,
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
    (Event::Relief, 6),
];

/// What is the matter with one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Condition {
    Well,
    /// It refuses; its peers may or may not list it.
    Refuses {
        listed: bool,
    },
    /// It hangs or errs.
    Silent,
    /// It answers `/` late. Nothing is wrong, whether it is answered or not.
    Slow,
    /// It serves, and what it lists is not to be believed.
    Lies,
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

/// What a whole cluster goes through; one thing at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Weather {
    Calm,
    Split,
    Overload,
    Blackout,
}

/// What is true of one address, whichever node had it.
#[derive(Clone, Copy, Debug)]
struct Address {
    /// Whose it is, or was last.
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
    /// In the order of joining, so that a story does not depend on addresses. Each with its number and condition.
    nodes: Vec<(IpAddr, u32, Condition)>,
    /// The next node's number, and its distance from the first address.
    next: u32,
    first: Ipv4Addr,
    weather: Weather,
    /// One of the sides of a split. Nodes that are added later are on the other.
    side: BTreeSet<IpAddr>,
    /// When the last weather that excuses dead nodes ended; `None` while it lasts.
    excused_until: Option<Instant>,
    /// Events until the weather may change, so that it lasts.
    weather_steps: u64,
}

impl Truth {
    fn new(name: &'static str, cluster: SimulatedCluster) -> Self {
        let IpAddr::V4(first) = cluster.node(0) else { panic!("IPv4 is simulated") };
        let nodes = cluster.nodes().into_iter().zip(0..).map(|(node, n)| (node, n, Condition::Well)).collect();
        Self {
            name,
            cluster,
            nodes,
            next: u32::try_from(NODES).unwrap(),
            first,
            weather: Weather::Calm,
            side: BTreeSet::new(),
            excused_until: Some(Instant::now()),
            weather_steps: 0,
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

    /// One of the nodes that are in such a condition. The first two seeds are spared where a node goes for ever.
    fn draw(&self, chance: &mut StdRng, for_ever: bool, is: impl Fn(Condition) -> bool) -> Option<usize> {
        let fit = |(index, (_, number, condition)): (usize, &(IpAddr, u32, Condition))| {
            ((!for_ever || *number >= 2) && is(*condition)).then_some(index)
        };
        let fit: Vec<_> = self.nodes.iter().enumerate().filter_map(fit).collect();
        fit.choose(chance).copied()
    }

    /// Whether a node may fall into trouble, or go, without leaving its side of a split too few that are well.
    fn spares(&self, index: usize) -> bool {
        let (node, _, condition) = &self.nodes[index];
        let beside = |other: &&(IpAddr, u32, Condition)| self.side.contains(&other.0) == self.side.contains(node);
        let well = self.nodes.iter().filter(beside).filter(|(.., other)| *other == Condition::Well).count();
        self.weather != Weather::Split || *condition != Condition::Well || well > SIDE_MIN
    }

    fn is_excused(&self, asked: Instant) -> bool {
        self.excused_until.is_none_or(|until| asked < until)
    }
}

/// Both clusters, everything that was ever true of an address, and the story so far.
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
    story: Vec<(Duration, String)>,
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
            story: Vec::new(),
            happened: BTreeMap::new(),
        }
    }

    /// Draws an event; if it cannot happen now, nothing does.
    fn happen(&mut self) {
        self.steps += 1;
        for truth in &mut self.clusters {
            truth.weather_steps = truth.weather_steps.saturating_sub(1);
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
        if let Some(told) = self.try_event(which, *event) {
            *self.happened.entry(*event).or_default() += 1;
            let line = format!("{} {event:?} {told}", self.clusters[which].name);
            self.story.push((self.start.elapsed(), line));
        }
    }

    fn try_event(&mut self, which: usize, event: Event) -> Option<String> {
        match event {
            Event::Relief => self.relieve(which),
            // What is dead whole stays so until it is over.
            _ if self.clusters[which].weather == Weather::Blackout => None,
            Event::Split | Event::Overload | Event::Blackout => self.cloud_over(which, event),
            Event::Gain | Event::Announce | Event::Join => self.grow(which, event),
            Event::Recycle => self.recycle(which),
            Event::Heal => {
                let sick = |condition| !matches!(condition, Condition::Well | Condition::Announced);
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
                self.dies(node, refused());
                Some(label)
            }
            _ => self.afflict(which, event),
        }
    }

    /// One node's trouble.
    fn afflict(&mut self, which: usize, event: Event) -> Option<String> {
        let truth = &self.clusters[which];
        let (condition, bound) = match event {
            Event::Crash => (Condition::Refuses { listed: true }, TROUBLED_MAX),
            Event::Stop => (Condition::Refuses { listed: false }, usize::MAX),
            Event::Hang | Event::Err => (Condition::Silent, TROUBLED_MAX),
            Event::Slow => (Condition::Slow, TROUBLED_MAX),
            _ => (Condition::Lies, LYING_MAX),
        };
        let alike = match condition {
            Condition::Lies => truth.count(|other| other == Condition::Lies),
            _ => truth.count(Condition::is_listed_and_not_serving),
        };
        let few = truth.count(|other| other == Condition::Well) <= *RUNNING.start();
        if alike >= bound || few || truth.weather == Weather::Overload {
            return None;
        }
        let index = truth.draw(&mut self.chance, false, |other| other == Condition::Well)?;
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
            Condition::Refuses { .. } => self.dies(node, refused()),
            Condition::Silent => self.dies(node, silent()),
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
        if truth.nodes.len() >= *RUNNING.end() || (event == Event::Announce && listed >= TROUBLED_MAX) {
            return None;
        }
        let (node, number) = truth.fresh();
        let (condition, dead_from) = match event {
            Event::Announce => (Condition::Announced, Some(Instant::now())),
            _ => (Condition::Well, None),
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
        let calm = self.clusters.iter().all(|truth| truth.weather == Weather::Calm);
        let alone = self.is_past(self.recycled) && self.is_past(self.blackout);
        let [from, to] = [&self.clusters[which], &self.clusters[1 - which]];
        let room = from.count(Condition::runs) > *RUNNING.start() && to.nodes.len() < *RUNNING.end();
        if !(calm && alone && room) {
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
        self.clusters[1 - which].nodes.push((node, number, Condition::Well));
        self.recycled = Some(self.steps);
        Some(format!("{label} is {}{number} now", self.clusters[1 - which].name))
    }

    /// A trouble of the whole cluster begins.
    fn cloud_over(&mut self, which: usize, event: Event) -> Option<String> {
        let alone = self.is_past(self.recycled);
        let no_split = self.is_past(self.split) && self.clusters[1 - which].weather != Weather::Split;
        let no_blackout = self.is_past(self.blackout) && self.clusters[1 - which].weather != Weather::Blackout;
        let truth = &mut self.clusters[which];
        if truth.weather != Weather::Calm || truth.weather_steps > 0 {
            return None;
        }
        let all: Vec<_> = truth.nodes.iter().map(|(node, ..)| *node).collect();
        let told = match event {
            Event::Split => {
                let is_well =
                    |(node, _, condition): &(IpAddr, u32, Condition)| (*condition == Condition::Well).then_some(*node);
                let well: Vec<_> = truth.nodes.iter().filter_map(is_well).collect();
                if well.len() < SIDE_MIN * 2 || !no_blackout {
                    return None;
                }
                let smaller = self.chance.random_range(SIDE_MIN..=well.len() / 2);
                let order = shuffled(&well, &mut self.chance);
                truth.side = order.into_iter().take(smaller).collect();
                for node in all.iter().filter(|node| !well.contains(node)) {
                    if self.chance.random() {
                        truth.side.insert(*node);
                    }
                }
                truth.cluster.split(&[&truth.side.iter().copied().collect::<Vec<_>>()]);
                truth.weather = Weather::Split;
                self.split = Some(self.steps);
                format!("{} of {}", truth.side.len(), all.len())
            }
            Event::Overload => {
                let many: Vec<_> = (0..all.len()).filter(|&index| truth.nodes[index].2 == Condition::Well).collect();
                let many = shuffled(&many, &mut self.chance);
                let many = &many[..many.len().min(all.len() * 2 / 3)];
                for &index in many {
                    truth.cluster.overload(truth.nodes[index].0, Duration::from_secs(3));
                    truth.nodes[index].2 = Condition::Slow;
                }
                truth.weather = Weather::Overload;
                truth.excused_until = None;
                format!("{} of {}", many.len(), all.len())
            }
            _ => {
                if !alone || !no_split || truth.count(|condition| condition == Condition::Announced) > 0 {
                    return None;
                }
                truth.excused_until = None;
                truth.weather = Weather::Blackout;
                self.blackout = Some(self.steps);
                for node in all {
                    self.clusters[which].cluster.stop(node);
                    self.dies(node, refused());
                }
                String::new()
            }
        };
        self.clusters[which].weather_steps = WEATHER_STEPS;
        Some(told)
    }

    /// A trouble of the whole cluster is over.
    fn relieve(&mut self, which: usize) -> Option<String> {
        let truth = &mut self.clusters[which];
        if truth.weather == Weather::Calm || truth.weather_steps > 0 {
            return None;
        }
        let weather = std::mem::replace(&mut truth.weather, Weather::Calm);
        truth.cluster.heal_split();
        truth.side.clear();
        match weather {
            Weather::Blackout => self.blackout = Some(self.steps),
            Weather::Split => self.split = Some(self.steps),
            Weather::Calm | Weather::Overload => {}
        }
        if weather != Weather::Split {
            for index in 0..self.clusters[which].nodes.len() {
                if weather == Weather::Blackout || self.clusters[which].nodes[index].2 == Condition::Slow {
                    self.heal(which, index);
                }
            }
            self.clusters[which].excused_until = Some(Instant::now() + recovery());
        }
        self.clusters[which].weather_steps = WEATHER_STEPS;
        Some(format!("{weather:?} is over"))
    }

    /// A node is well, whatever it was.
    fn heal(&mut self, which: usize, index: usize) {
        let truth = &mut self.clusters[which];
        let (node, _, condition) = &mut truth.nodes[index];
        *condition = Condition::Well;
        if let Some(address) = self.addresses.get_mut(node) {
            address.dead_from = None;
        }
        truth.cluster.heal(*node);
        truth.cluster.restart(*node).unwrap();
    }

    /// A node that was dead already has no more time than it had.
    fn dies(&mut self, node: IpAddr, budget: Duration) {
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

    /// Asks both zones, and holds the answers against the truth.
    #[track_caller]
    fn judge(&mut self, daemon: &Daemon) {
        for which in 0..2 {
            let asked = Instant::now();
            let reply = ask(daemon, &self.clusters[which].zone_name());
            self.answers += 1;
            if reply.rcode != "NoError" || reply.answers.is_empty() || reply.truncated {
                self.fail(which, &format!("{} with {:?}", reply.rcode, reply.answers));
            }
            for text in reply.data() {
                if let Some(complaint) = self.complaint(which, asked, text.parse().unwrap()) {
                    let label = self.label_of(text.parse().unwrap());
                    self.fail(which, &format!("{label} is answered, {text}: {complaint}"));
                }
            }
        }
    }

    /// What is wrong with an answer that was asked for then, if anything is.
    fn complaint(&self, which: usize, asked: Instant, node: IpAddr) -> Option<String> {
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

    /// Everybody is well again, and sees everybody.
    fn calm_down(&mut self) {
        for which in 0..2 {
            self.clusters[which].cluster.heal_split();
            for index in 0..self.clusters[which].nodes.len() {
                self.heal(which, index);
            }
            self.clusters[which].excused_until = Some(Instant::now() + recovery());
        }
        self.story.push((self.start.elapsed(), "the chaos ends".into()));
    }

    /// Waits until both zones answer the truth, and judges meanwhile.
    #[track_caller]
    fn converges(&mut self, daemon: &Daemon, when: &str) {
        let begun = Instant::now();
        loop {
            self.judge(daemon);
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
        let mut told = String::new();
        for (when, line) in self.story.iter().skip(self.story.len().saturating_sub(LAST_EVENTS)) {
            // Writing to a string cannot fail.
            let _ = writeln!(told, "{:7.3} {line}", when.as_secs_f64());
        }
        let (now, seed) = (self.start.elapsed().as_secs_f64(), self.seed);
        let zone = self.clusters[which].zone_name();
        panic!("{told}{now:7.3} {zone}: {what}\ntell it again with ALTERNATOR_DNS_CHAOS_SEED={seed}");
    }
}

/// Makes a node answer `/localnodes` with something that is no list of nodes; tells what.
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

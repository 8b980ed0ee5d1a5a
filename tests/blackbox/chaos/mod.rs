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

mod events;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::{
    events::{EVENTS, Event},
    truth::{Address, ClusterFault, Condition, Truth},
};
use crate::{
    daemon::Daemon,
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

//! Three clusters lose, gain, isolate, split, slow and corrupt nodes at random, and give addresses to each other; the third
//! is in no zone. Every answer is compared with the known state of all.
//!
//! A cluster lists a node that it has lost until gossip has settled, whichever cluster has the address by then. Up to three
//! addresses change hands at once, those of seeds too, also to the cluster that had them before. Our process ends now and
//! then, and the next one begins with its snapshot; meanwhile the clusters change.
//!
//! Every answer must satisfy these rules, which are those of the design:
//! - It is never empty.
//! - It never holds a node that has been dead for longer than its budget: [`refused`] or [`silent`]. While more than
//!   half of a cluster is slow no node is dropped for slowness, and while all of it is dead the last known nodes stay,
//!   so this is not asserted during those faults, nor for [`recovery`] after them or after a start of our process.
//! - It never holds a node of another cluster, except that an address which changed hands may be answered by its
//!   former zone until gossip has settled and for [`changed_hands`] after that, and not at all if the former node had been dead for longer than its budget. While
//!   the former cluster is dead whole, no group is its own, and such an address stays among the last known nodes.
//! - It never holds a node that was announced and has never served.
//!
//! It is not asserted that a live node is answered at every moment: it may be missing for a while (it joins, its side of
//! a split is outvoted, its `/localnodes` is corrupt).
//!
//! Some events do not happen here, because no rule can decide about them without ids:
//! - (a) A seed's address does not change hands while a cluster is dead whole, and shows whose it is before one dies.
//! - (b) Half of a cluster's addresses do not go to another one while our process is off: [`RUNNING`] keeps enough.
//! - (c) Two clusters do not swap addresses while either lists one that it has given.
//! - (d) No cluster has one node.
//! - (e) An address that changes hands between two requests of ours to a node that names no other address than ones of
//!   the zone looks like an isolated part of the cluster until gossip has settled. This happens, and it may be
//!   answered that long.
//!
//! Two more are excluded that the rules leave wrong: a cluster dies whole while others still list, as standing nodes of
//! it, addresses that it has just given away; and a cluster that is split gains a node, so that the side which gains it
//! may be taken for another cluster until the split is over.
//!
//! The events depend on the seed alone, not on time or addresses. `ALTERNATOR_DNS_CHAOS_SEED` repeats a run,
//! `ALTERNATOR_DNS_CHAOS_SECONDS` makes it longer.

mod events;
mod process;
mod recycling;
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
    process::Process,
    truth::{Address, ClusterFault, Condition, Truth},
};
use crate::{
    daemon::Daemon,
    observe::{JITTER, ask, state},
};

/// How long a run is unless the environment says otherwise: long enough for every event to happen.
const SECONDS: u64 = 20;

/// Three clusters, the first two of which have a zone.
const CLUSTERS: usize = 3;
const ZONES: usize = 2;

/// The cluster of an event is drawn from these: what happens to one without a zone matters less.
const DRAWN: [usize; 5] = [0, 0, 1, 1, 2];

/// Nodes of a zone in the file.
const SEEDS: usize = 4;

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

/// An address that another cluster has taken over, once gossip has settled: until then its former peers list it, and its
/// own list is asked for no more often than that of any other node. Two refreshes, and a poll of the longest duration,
/// because some of the nodes that it asks hang.
fn changed_hands() -> Duration {
    (REFRESH * 2).mul_f64(JITTER) + TIMEOUT * 3 + BUSY
}

/// For so many events a cluster lists a node that it has lost. With real gossip it takes twenty seconds; here two on average.
const LAG_STEPS: u64 = 12;

/// Longer than any run.
const UNLIMITED: Duration = Duration::from_secs(24 * 60 * 60);

/// Addresses that change hands at once.
const RECYCLED_MAX: usize = 3;

/// Events between two processes of ours.
const OFF_STEPS_MAX: u64 = 6;

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

/// How many events lie between two that must not touch: more than gossip takes to settle and an address to change
/// hands, at the shortest pause. Measured in time, every run would differ.
fn apart() -> u64 {
    u64::try_from(changed_hands().as_millis()).unwrap() / PAUSE_MS.start() + 1 + LAG_STEPS
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
    let zones: String = world.clusters[..ZONES].iter().map(Truth::zone).collect();
    let process = Process::new("chaos");
    let mut daemon = process.start(&zones);
    world.converges(&daemon, "at the beginning");
    let start = Instant::now();
    while start.elapsed() < length {
        world.happen();
        if let Some(events) = world.off.take() {
            process.end(daemon);
            (0..events).for_each(|_| world.happen());
            daemon = process.start(&zones);
            world.process_started();
        }
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
    assert!((0..HISTORY_STEPS).any(|_| world.recycle(1).is_some() && world.moves.last().unwrap().1 == 0));
    world.settle(u64::MAX);
    let (given, ..) = *world.clusters[0].nodes.last().unwrap();
    assert_eq!(world.violation(0, later(Duration::ZERO), given), None, "its new owner answers it at once");
    assert_eq!(world.violation(1, later(changed_hands() / 2), given), None, "its former one for a while");
    assert!(world.violation(1, later(changed_hands() * 2), given).is_some());
}

/// All clusters, the history of each address, and the events so far.
struct World {
    seed: u64,
    chance: StdRng,
    clusters: [Truth; CLUSTERS],
    addresses: BTreeMap<IpAddr, Address>,
    start: Instant,
    steps: u64,
    answers: u64,
    /// Which cluster gave addresses to which other one, and in which step.
    moves: Vec<(usize, usize, u64)>,
    /// The step in which the address of a seed last changed hands.
    seed_moved: Option<u64>,
    /// The step in which a cluster last died whole, or came back.
    blackout: Option<u64>,
    /// The step in which our process was last to be started anew.
    restarted: Option<u64>,
    /// Our process is to be started anew, after so many events.
    off: Option<u64>,
    /// When our process started.
    process_start: Instant,
    /// When, and what.
    history: Vec<(Duration, String)>,
    happened: BTreeMap<Event, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let a = SimulatedCluster::start(NODES).unwrap();
        let b = a.start_beside(NODES).unwrap();
        let o = a.start_beside(NODES).unwrap();
        let clusters = [Truth::new("a", a), Truth::new("b", b), Truth::new("o", o)];
        let mut addresses = BTreeMap::new();
        for (owner, truth) in clusters.iter().enumerate() {
            for &(node, ..) in &truth.nodes {
                let former = addresses.insert(node, Address::first(owner, None));
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
            moves: Vec::new(),
            seed_moved: None,
            blackout: None,
            restarted: None,
            off: None,
            process_start: Instant::now(),
            history: Vec::new(),
            happened: BTreeMap::new(),
        }
    }

    /// Our process has been started anew: it must learn which of the nodes that it remembers are dead or another's.
    fn process_started(&mut self) {
        self.process_start = Instant::now();
        for truth in &mut self.clusters {
            let until = self.process_start + recovery();
            truth.excused_until = truth.excused_until.map(|excused| excused.max(until));
        }
        self.history.push((self.start.elapsed(), "our process is back".into()));
    }

    fn label(&self, which: usize, index: usize) -> String {
        let truth = &self.clusters[which];
        format!("{}{}", truth.name, truth.nodes[index].1)
    }

    fn label_of(&self, node: IpAddr) -> String {
        let find = |which: usize| self.clusters[which].nodes.iter().position(|(other, ..)| *other == node);
        let labels = (0..CLUSTERS).filter_map(|which| Some(self.label(which, find(which)?)));
        labels.reduce(|one, other| one + " and " + &other).unwrap_or_else(|| "a node that is gone".into())
    }

    /// Asks both zones, and compares the answers with the known state.
    #[track_caller]
    fn check_answers(&mut self, daemon: &Daemon) {
        for which in 0..ZONES {
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
            let owner = self.clusters[address.owner].name;
            // A new process answers what it remembers until the nodes have reported.
            let started = self.process_start + changed_hands();
            return match address.former_until[which].map(|until| until.max(started)) {
                Some(until) if asked <= until => None,
                Some(until) => {
                    Some(format!("it is a node of {owner}, and its time here was over {:?} ago", since(until)))
                }
                None => Some(format!("it is a node of {owner}, and never was one here")),
            };
        }
        let dead_from = address.dead_from.filter(|from| asked > *from)?;
        let excused = self.clusters[which].is_excused(asked);
        (!excused).then(|| format!("its time was over {:?} ago", since(dead_from)))
    }

    /// Every node is healthy again, and sees every other.
    fn heal_all(&mut self) {
        self.settle(u64::MAX);
        for which in 0..CLUSTERS {
            self.limit_all_former(which);
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
            let wrong = (0..ZONES).find(|&which| {
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

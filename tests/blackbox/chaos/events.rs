//! What happens to the clusters: random events, each bounded so that the rules of the module hold.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Content, Delivery, HttpReply, Path, SimulatedCluster};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};

use super::{
    DRAWN, FAULT_STEPS, FAULTY_MAX, LAG_STEPS, LYING_MAX, OFF_STEPS_MAX, RUNNING, SIDE_MIN, World, apart, recovery,
    refused, silent,
    truth::{Address, ClusterFault, Condition},
};

/// What may happen to a cluster.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Event {
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
    /// Another cluster is given the addresses of some nodes.
    Recycle,
    /// Two sides see only themselves.
    Split,
    /// More than half of the nodes answer `/` late.
    Overload,
    /// All nodes stop.
    Blackout,
    /// A split, an overload or a blackout is over.
    Recovery,
    /// Our process ends, and a new one begins with its snapshot after some more events.
    Restart,
}

/// How often each of them is drawn.
pub(super) const EVENTS: [(Event, u32); 18] = [
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
    (Event::Recycle, 8),
    (Event::Split, 3),
    (Event::Overload, 2),
    (Event::Blackout, 2),
    (Event::Recovery, 6),
    (Event::Restart, 2),
];

impl World {
    /// Draws an event; if it cannot happen now, nothing does.
    pub(super) fn happen(&mut self) {
        self.steps += 1;
        for truth in &mut self.clusters {
            truth.fault_steps = truth.fault_steps.saturating_sub(1);
        }
        self.settle(self.steps);
        let which = DRAWN[self.chance.random_range(0..DRAWN.len())];
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
            Event::Recycle => self.recycle(which),
            Event::Restart => self.restart(),
            // Nothing else happens to a cluster that is dead.
            _ if self.clusters[which].fault == ClusterFault::Blackout => None,
            Event::Split | Event::Overload | Event::Blackout => self.begin_fault(which, event),
            Event::Gain | Event::Announce | Event::Join => self.grow(which, event),
            Event::Heal => {
                let sick = |condition| !matches!(condition, Condition::Healthy | Condition::Announced);
                let index = self.clusters[which].draw(&mut self.chance, sick)?;
                self.heal(which, index);
                Some(self.label(which, index))
            }
            Event::Lose => {
                let truth = &self.clusters[which];
                let index = truth.draw(&mut self.chance, |_| true)?;
                let (node, _, condition) = truth.nodes[index];
                if !truth.spares(index) || (condition.runs() && truth.count(Condition::runs) <= *RUNNING.start()) {
                    return None;
                }
                let label = self.label(which, index);
                self.clusters[which].lose(index, self.steps + LAG_STEPS);
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
        let index = truth.draw(&mut self.chance, |other| other == Condition::Healthy)?;
        let node = truth.nodes[index].0;
        if !truth.spares(index) || (self.is_seed(node) && !self.has_settled(node)) {
            return None;
        }
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
            let index = truth.draw(&mut self.chance, |condition| condition == Condition::Announced)?;
            self.heal(which, index);
            return Some(self.label(which, index));
        }
        let listed = truth.count(Condition::is_listed_and_not_serving);
        if truth.fault == ClusterFault::Split
            || truth.nodes.len() >= *RUNNING.end()
            || (event == Event::Announce && listed >= FAULTY_MAX)
        {
            return None;
        }
        let (node, number) = truth.fresh();
        let (condition, dead_from) = match event {
            Event::Announce => (Condition::Announced, Some(Instant::now())),
            _ => (Condition::Healthy, None),
        };
        // Before it is listed: an answer may come first.
        self.addresses.insert(node, Address::first(which, dead_from));
        match condition {
            Condition::Announced => truth.cluster.announce(node),
            _ => truth.cluster.add_at(node).unwrap(),
        }
        truth.nodes.push((node, number, condition));
        let newest = truth.nodes.len() - 1;
        Some(self.label(which, newest))
    }

    /// Our process is to be started anew.
    fn restart(&mut self) -> Option<String> {
        if !self.is_past(self.restarted) {
            return None;
        }
        self.restarted = Some(self.steps);
        let events = self.chance.random_range(0..=OFF_STEPS_MAX);
        self.off = Some(events);
        Some(format!("is the same: our process is off for {events} events"))
    }

    /// A fault of the whole cluster begins.
    fn begin_fault(&mut self, which: usize, event: Event) -> Option<String> {
        let last_given = self.moves.iter().rev().find(|(from, ..)| *from == which).map(|(.., step)| *step);
        let addresses_have_settled = self.is_past(self.seed_moved) && self.is_past(last_given);
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
                if healthy.len() < SIDE_MIN * 2 {
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
                if !addresses_have_settled || truth.count(|condition| condition == Condition::Announced) > 0 {
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
        if ended == ClusterFault::Blackout {
            self.blackout = Some(self.steps);
            self.limit_all_former(which);
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
    pub(super) fn heal(&mut self, which: usize, index: usize) {
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
    pub(super) fn set_dead(&mut self, node: IpAddr, budget: Duration) {
        let from = Instant::now() + budget;
        if let Some(address) = self.addresses.get_mut(&node) {
            address.dead_from = Some(address.dead_from.map_or(from, |before| before.min(from)));
        }
    }

    /// Whether what happened in that step touches nothing that happens now.
    pub(super) fn is_past(&self, step: Option<u64>) -> bool {
        step.is_none_or(|step| self.steps > step + apart())
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

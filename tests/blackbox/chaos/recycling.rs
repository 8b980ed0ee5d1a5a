//! Addresses change hands.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use rand::{RngExt, seq::IndexedRandom};

use super::{
    CLUSTERS, LAG_STEPS, RECYCLED_MAX, RUNNING, UNLIMITED, World, ZONES, changed_hands, recovery,
    truth::{ClusterFault, Condition},
};

impl World {
    /// Another cluster is given the addresses of some nodes. The others still list them until gossip has settled.
    pub(super) fn recycle(&mut self, from: usize) -> Option<String> {
        let to = (from + self.chance.random_range(1..CLUSTERS)) % CLUSTERS;
        let takes_none = matches!(self.clusters[to].fault, ClusterFault::Blackout | ClusterFault::Split);
        if takes_none || self.has_lately_moved(to, from) {
            return None;
        }
        let count = self.chance.random_range(1..=RECYCLED_MAX);
        let back = self.chance.random();
        let moved: Vec<String> = (0..count).map_while(|_| self.recycle_one(from, to, back)).collect();
        if moved.is_empty() {
            return None;
        }
        self.moves.push((from, to, self.steps));
        Some(moved.join(", "))
    }

    /// One address of these; when some are to go back, one that the other cluster had before, if there is any.
    fn recycle_one(&mut self, from: usize, to: usize, back: bool) -> Option<String> {
        let [giver, taker] = [&self.clusters[from], &self.clusters[to]];
        if giver.count(Condition::runs) <= *RUNNING.start() || taker.nodes.len() >= *RUNNING.end() {
            return None;
        }
        let seeds_stay = !self.is_past(self.blackout) || self.is_any_dead();
        let fit = |index: &usize| {
            let (node, _, condition) = giver.nodes[*index];
            condition != Condition::Announced && giver.spares(*index) && !(seeds_stay && self.is_seed(node))
        };
        let fit: Vec<_> = (0..giver.nodes.len()).filter(fit).collect();
        let was_there = |index: &usize| self.addresses[&giver.nodes[*index].0].former_until[to].is_some();
        let returning: Vec<_> = fit.iter().copied().filter(|index| back && was_there(index)).collect();
        let index = *if returning.is_empty() { &fit } else { &returning }.choose(&mut self.chance)?;
        let (node, ..) = giver.nodes[index];
        let label = self.label(from, index);
        self.clusters[from].lose(index, self.steps + LAG_STEPS);
        let taker = &mut self.clusters[to];
        taker.lagging.retain(|(other, _)| *other != node);
        let number = taker.next;
        taker.next += 1;
        taker.nodes.push((node, number, Condition::Healthy));
        let label = format!("{label} is {}{number} now", taker.name);
        self.hand_over(node, from, to);
        Some(label)
    }

    /// Starts a node of another cluster on an address, and sets how long the former one may answer it: not longer than a
    /// node that has died, if it has; otherwise until gossip has settled, and a while more.
    fn hand_over(&mut self, node: IpAddr, from: usize, to: usize) {
        let now = Instant::now();
        let is_excused = self.clusters[from].is_excused(now);
        self.clusters[to].cluster.heal(node);
        self.clusters[to].cluster.add_at(node).unwrap();
        let until = now + UNLIMITED;
        if self.is_seed(node) {
            self.seed_moved = Some(self.steps);
        }
        let steps = self.steps;
        let address = self.addresses.get_mut(&node).expect("it has a history");
        let dead_from = address.dead_from.take().filter(|_| !is_excused);
        address.former_until[from] = Some(dead_from.map_or(until, |dead_from| dead_from.min(until)));
        address.owner = to;
        address.moved = Some(steps);
    }

    /// Gossip settles in every cluster about what it had lost before this step. The last known nodes of a dead cluster stay,
    /// and its zone cannot tell which of them are others by now.
    pub(super) fn settle(&mut self, step: u64) {
        for which in 0..CLUSTERS {
            let settled = self.clusters[which].settle(step);
            if self.clusters[which].fault != ClusterFault::Blackout {
                self.limit_former(which, &settled, changed_hands());
            }
        }
    }

    /// From now on a cluster may answer these addresses for this time at most, if it has given them away.
    pub(super) fn limit_former(&mut self, which: usize, nodes: &[IpAddr], time: Duration) {
        let latest = Instant::now() + time;
        for node in nodes {
            if let Some(until) = self.addresses.get_mut(node).and_then(|address| address.former_until[which].as_mut()) {
                *until = latest.min(*until);
            }
        }
    }

    /// A dead cluster lives again: its zone soon knows which of its addresses were given away meanwhile.
    pub(super) fn limit_all_former(&mut self, which: usize) {
        let lagging = |node: &IpAddr| self.clusters[which].lagging.iter().any(|(other, _)| other == node);
        let given: Vec<_> = self.addresses.keys().copied().filter(|node| !lagging(node)).collect();
        self.limit_former(which, &given, recovery());
    }

    /// Whether a zone has this address in the file.
    pub(super) fn is_seed(&self, node: IpAddr) -> bool {
        self.clusters[..ZONES].iter().any(|truth| truth.seeds.contains(&node))
    }

    /// Whether what an address belongs to has had time to show.
    pub(super) fn has_settled(&self, node: IpAddr) -> bool {
        self.addresses.get(&node).is_none_or(|address| self.is_past(address.moved))
    }

    /// Whether the one cluster still lists an address that the other has been given.
    fn has_lately_moved(&self, from: usize, to: usize) -> bool {
        let is_late =
            |&(one, other, step): &(usize, usize, u64)| (one, other) == (from, to) && step + LAG_STEPS >= self.steps;
        self.moves.iter().any(is_late)
    }

    fn is_any_dead(&self) -> bool {
        self.clusters.iter().any(|truth| truth.fault == ClusterFault::Blackout)
    }
}

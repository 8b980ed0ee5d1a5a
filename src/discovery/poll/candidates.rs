//! The order in which nodes are polled.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rand::{Rng, seq::SliceRandom};

/// With more zones than this, each zone first asks the node that answered last, and keeps one connection, to that node.
/// With fewer, a zone keeps one connection to each node asked in the last seconds; for many zones that would take too
/// many descriptors and too much memory.
const MANY_ZONES: usize = 1000;

/// Whether there are more zones than [`MANY_ZONES`]. Clones share it, so a change reaches pollers that already run.
#[derive(Clone, Debug, Default)]
pub struct AtScale(Arc<AtomicBool>);

impl AtScale {
    /// Sets how many zones there are.
    pub fn set_zones(&self, zones: usize) {
        self.0.store(zones > MANY_ZONES, Relaxed);
    }

    /// Whether there are many zones now.
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Live nodes asked before a seed is: their lists are the best, but all of them may be gone.
const NODES_IN_A_ROW: usize = 2;

/// The node to ask next: two live nodes, one seed, and so on.
///
/// After a poll that fails, the next one continues with the next candidate, so that a live candidate is asked even among
/// many dead ones.
#[derive(Debug, Default)]
pub struct Candidates {
    nodes: Queue,
    seeds: Queue,
    /// Nodes asked since a seed was.
    in_a_row: usize,
    /// Those asked in this poll.
    asked: HashSet<IpAddr>,
    /// The last poll has failed, and the next continues where it stopped.
    resumes: bool,
}

/// Candidates in order; a node that is asked goes to the back.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<IpAddr>,
    /// How many have not been asked in this poll.
    left: usize,
}

impl Candidates {
    /// Begins a poll with the live nodes, and with the seeds' addresses in the order of the file. After a successful poll
    /// the nodes are shuffled; `first` is asked first if it is a candidate.
    pub fn begin(&mut self, nodes: &[IpAddr], seeds: &[IpAddr], first: Option<IpAddr>, chance: &mut impl Rng) {
        self.asked.clear();
        self.seeds.replace(seeds);
        if self.resumes {
            self.nodes.replace(nodes);
        } else {
            let mut drawn = nodes.to_vec();
            drawn.shuffle(chance);
            if let Some(first) = first.filter(|first| nodes.contains(first) || seeds.contains(first)) {
                drawn.retain(|node| *node != first);
                drawn.insert(0, first);
            }
            self.nodes = Queue { left: drawn.len(), order: drawn.into() };
            self.in_a_row = 0;
        }
        self.resumes = true;
    }

    /// The node to ask next; none is asked twice in a poll.
    pub fn next_candidate(&mut self) -> Option<IpAddr> {
        loop {
            let seeds_turn = self.in_a_row >= NODES_IN_A_ROW && self.seeds.left > 0;
            let candidate = if self.nodes.left > 0 && !seeds_turn {
                self.in_a_row += 1;
                self.nodes.turn()
            } else {
                self.in_a_row = 0;
                self.seeds.turn()
            };
            if self.asked.insert(candidate?) {
                return candidate;
            }
        }
    }

    /// Ends a successful poll: the next one starts over.
    pub fn succeed(&mut self) {
        self.resumes = false;
    }
}

impl Queue {
    /// Replaces the members: those that stay keep their places, new ones are appended.
    fn replace(&mut self, members: &[IpAddr]) {
        let mut new_members: HashSet<_> = members.iter().collect();
        self.order.retain(|known| new_members.remove(known));
        self.order.extend(members.iter().filter(|member| new_members.remove(member)));
        self.left = self.order.len();
    }

    fn turn(&mut self) -> Option<IpAddr> {
        self.left = self.left.checked_sub(1)?;
        self.order.rotate_left(1);
        self.order.back().copied()
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn node(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn nodes(numbers: std::ops::Range<u32>) -> Vec<IpAddr> {
        numbers.map(node).collect()
    }

    fn take(candidates: &mut Candidates, count: usize) -> Vec<IpAddr> {
        std::iter::from_fn(|| candidates.next_candidate()).take(count).collect()
    }

    #[test]
    fn two_nodes_then_a_seed_and_each_once() {
        let mut candidates = Candidates::default();
        let mut chance = StdRng::seed_from_u64(1);
        let live = nodes(1..6);
        let seeds = vec![node(100), node(2), node(101)];
        candidates.begin(&live, &seeds, None, &mut chance);
        let order = take(&mut candidates, 100);
        assert_eq!(order.len(), 7, "{order:?}");
        assert_eq!(order[2], node(100));
        assert!(live.contains(&order[0]) && live.contains(&order[1]) && live.contains(&order[3]), "{order:?}");
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 7);
    }

    #[test]
    fn until_something_is_learnt_seeds_are_asked_in_file_order_and_in_turn() {
        let mut candidates = Candidates::default();
        let mut chance = StdRng::seed_from_u64(1);
        let seeds = [node(3), node(1), node(2)];
        candidates.begin(&[], &seeds, None, &mut chance);
        assert_eq!(take(&mut candidates, 2), [node(3), node(1)]);
        candidates.begin(&[], &seeds, None, &mut chance);
        assert_eq!(take(&mut candidates, 9), [node(2), node(3), node(1)]);
        candidates.begin(&[], &[node(3), node(4)], None, &mut chance);
        assert_eq!(take(&mut candidates, 9), [node(3), node(4)]);
        candidates.begin(&[], &[], None, &mut chance);
        assert_eq!(candidates.next_candidate(), None);
    }

    #[test]
    fn after_failed_polls_every_candidate_has_been_asked() {
        let mut candidates = Candidates::default();
        let mut chance = StdRng::seed_from_u64(1);
        let live = nodes(1..501);
        let seeds = nodes(1000..1100);
        let mut asked = HashSet::new();
        for _ in 0..84 {
            candidates.begin(&live, &seeds, None, &mut chance);
            asked.extend(take(&mut candidates, 9));
        }
        assert_eq!(asked.len(), 600);
    }

    #[test]
    fn after_a_successful_poll_each_node_is_equally_likely_to_be_first() {
        let mut candidates = Candidates::default();
        let mut chance = StdRng::seed_from_u64(1);
        let mut first = [0; 4];
        for _ in 0..4000 {
            candidates.begin(&nodes(0..4), &nodes(9..10), None, &mut chance);
            let IpAddr::V4(asked) = candidates.next_candidate().unwrap() else { panic!("IPv4 was given") };
            first[asked.octets()[3] as usize] += 1;
            candidates.succeed();
        }
        assert!(first.iter().all(|count| (850..1150).contains(count)), "{first:?}");
    }

    #[test]
    fn at_scale_the_node_that_answered_last_comes_first() {
        let mut candidates = Candidates::default();
        let mut chance = StdRng::seed_from_u64(1);
        for _ in 0..20 {
            candidates.begin(&nodes(0..9), &nodes(20..21), Some(node(7)), &mut chance);
            assert_eq!(candidates.next_candidate(), Some(node(7)));
            candidates.succeed();
        }
        candidates.begin(&nodes(0..9), &nodes(20..21), Some(node(50)), &mut chance);
        assert!(!take(&mut candidates, 99).contains(&node(50)), "it left the cluster");
    }
}

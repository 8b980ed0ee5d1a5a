//! The health of each listed node, from the outcomes of its probes. Pure: no clock, no socket.
//!
//! A new node is up after its first success, however often it has failed before: it was never answered, so there is no
//! flapping to damp. A node that is up goes down after `fall` failures in a row, of any kind, and a node that went down
//! is up again after `rise` successes in a row. A new node that has failed `fall` times is down too, but was never up.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Health,
    table::Node,
    types::{NodeSet, NodeState},
};

/// A node that went down so often within [`FLAP_PERIOD`] is not hurried back.
const FLAPS: usize = 3;

/// See [`FLAPS`].
const FLAP_PERIOD: Duration = Duration::from_secs(300);

/// The outcome of one probe or one poll of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProbeOutcome {
    /// The node gave a correct answer.
    Up,
    /// It refused or reset the connection, or cannot be reached.
    Refused,
    /// It gave no complete answer in time, or a wrong one.
    Slow,
}

/// What an outcome, or a verification, has changed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// [`HealthTable::nodes`] gives another result than before.
    pub changed: bool,
    /// The node must be probed again at once: it refused, and is still up; or it has answered again, and is still down.
    pub confirm: bool,
}

/// The health of each listed node of one zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthTable {
    /// `None`: nodes are not probed, and every listed node is up.
    policy: Option<Health>,
    nodes: BTreeMap<IpAddr, NodeHealth>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct NodeHealth {
    state: NodeState,
    ever_up: bool,
    /// Whether the latest failure was slowness.
    slow: bool,
    /// Successes since the latest failure.
    successes: u32,
    /// Failures since the latest success.
    failures: u32,
    /// It is answered as it was until its next probe says more.
    pending: bool,
    /// When it last went down, the newest first.
    downs: [Option<Instant>; FLAPS],
}

impl HealthTable {
    /// No node is listed yet.
    pub fn new(policy: Option<Health>) -> Self {
        Self { policy, nodes: BTreeMap::new() }
    }

    /// Takes over the nodes of an earlier poller of the same cluster, and how often each has failed since its last success:
    /// else one that hangs would never go down while its zone is edited all the time.
    pub fn resume(&mut self, nodes: &[Node], failing: &[(IpAddr, u32)]) {
        self.nodes = nodes.iter().map(|node| (node.address, NodeHealth::left(node))).collect();
        for (node, failures) in failing {
            if let Some(health) = self.nodes.get_mut(node) {
                health.failures = *failures;
            }
        }
        if self.policy.is_none() {
            self.nodes.values_mut().for_each(NodeHealth::rise);
        }
    }

    /// Takes over nodes of an earlier process: they are answered until a probe says more.
    pub fn remember(&mut self, nodes: &NodeSet) {
        self.list(nodes);
        self.nodes.values_mut().for_each(|health| health.pending = true);
    }

    /// No node is listed any more.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Takes over the accepted list. Nodes that were not listed before are new; nodes that are no longer listed are
    /// removed.
    pub fn list(&mut self, nodes: &NodeSet) {
        self.nodes.retain(|node, _| nodes.contains(node));
        for &node in nodes.as_slice() {
            self.nodes.entry(node).or_insert_with(|| NodeHealth::new(self.policy.is_some()));
        }
    }

    /// Counts the outcome of a probe or a poll of a node. Ignores a node that is not listed.
    ///
    /// While no node is up every node that ever was is answered. When the first one returns, the others stay answered
    /// until each has failed once more: a cluster that returns as a whole is not narrowed to the node that was probed first.
    pub fn record(&mut self, node: IpAddr, outcome: ProbeOutcome, now: Instant) -> Change {
        let was_open = self.none_up();
        let Some(health) = self.nodes.get_mut(&node) else { return Change::default() };
        let before = health.shown(node);
        health.count(outcome);
        if let Some(policy) = &self.policy {
            health.apply(policy, now);
        }
        let after = health.shown(node);
        let is_refusing = outcome == ProbeOutcome::Refused && after.state == NodeState::Up;
        let is_returning = outcome == ProbeOutcome::Up && after.state == NodeState::Down && !health.flaps(now);
        if was_open && after.state == NodeState::Up {
            let others = self.nodes.values_mut().filter(|health| health.state == NodeState::Down && health.ever_up);
            others.for_each(|health| health.pending = true);
        }
        Change { changed: before != after, confirm: (is_refusing || is_returning) && self.policy.is_some() }
    }

    fn none_up(&self) -> bool {
        self.nodes.values().all(|health| health.state != NodeState::Up)
    }

    /// A node has sent its list. While no node is up that `is_answerable`, a new node whose probes have not failed is then
    /// up, so that a first list is answered at once; while another one is up, it waits for its probe. Nothing is counted,
    /// so that a node whose probes fail goes down although it still sends lists.
    pub fn verify(&mut self, node: IpAddr, is_answerable: impl Fn(&IpAddr) -> bool) -> Change {
        if self.nodes.iter().any(|(other, health)| health.state == NodeState::Up && is_answerable(other)) {
            return Change::default();
        }
        let new_node = self.nodes.get_mut(&node).filter(|health| !health.ever_up && health.failures == 0);
        let changed = new_node.map(NodeHealth::rise).is_some();
        Change { changed, confirm: false }
    }

    /// The nodes, in the order of their addresses.
    pub fn nodes(&self) -> Arc<[Node]> {
        self.nodes.iter().map(|(&address, health)| health.shown(address)).collect()
    }

    /// The nodes that have failed since their last success, and how often.
    pub fn failing(&self) -> Vec<(IpAddr, u32)> {
        let failing = self.nodes.iter().filter(|(_, health)| health.failures > 0);
        failing.map(|(&node, health)| (node, health.failures)).collect()
    }

    /// Whether nodes are probed at all.
    pub fn is_probed(&self) -> bool {
        self.policy.is_some()
    }

    /// A listed node's state.
    pub fn state(&self, node: IpAddr) -> Option<NodeState> {
        self.nodes.get(&node).map(|health| health.state)
    }

    /// Whether a listed node was ever up.
    pub fn was_up(&self, node: IpAddr) -> bool {
        self.nodes.get(&node).is_some_and(|health| health.ever_up)
    }

    /// Whether a node is answered although it is not up: as it was before, or because no node is up.
    pub fn is_answered_as_before(&self, node: IpAddr) -> bool {
        let is_open = |health: &NodeHealth| health.ever_up && self.none_up();
        self.nodes.get(&node).is_some_and(|health| health.pending || is_open(health))
    }

    /// Successes in a row after which a node that is down is up again; 0 without probes.
    pub fn rise(&self) -> u32 {
        self.policy.map_or(0, |policy| u32::from(policy.rise.get()))
    }

    /// A node's successes in a row; 0 when it is not listed.
    pub fn successes_in_a_row(&self, node: IpAddr) -> u32 {
        self.nodes.get(&node).map_or(0, |health| health.successes)
    }
}

#[cfg(test)]
impl HealthTable {
    /// Hashes what can decide anything later: counts beyond `rise` and `fall` decide nothing.
    pub(super) fn hash_essence(&self, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;
        let (rise, fall) = self.policy.map_or((0, 0), |policy| (policy.rise.get().into(), policy.fall.get().into()));
        for (node, health) in &self.nodes {
            let NodeHealth { state, ever_up, slow, successes, failures, pending, downs: _ } = *health;
            (node, state as u8, ever_up, slow, successes.min(rise), failures.min(fall), pending).hash(hasher);
        }
    }
}

impl NodeHealth {
    fn new(probed: bool) -> Self {
        let state = if probed { NodeState::New } else { NodeState::Up };
        let ever_up = !probed;
        Self { state, ever_up, slow: false, successes: 0, failures: 0, pending: false, downs: [None; FLAPS] }
    }

    fn left(node: &Node) -> Self {
        // A foreign node is listed, and its health is not known.
        let state = if node.state == NodeState::Foreign { NodeState::New } else { node.state };
        let Node { ever_up, slow, pending, .. } = *node;
        Self { state, ever_up, slow, successes: 0, failures: 0, pending, downs: [None; FLAPS] }
    }

    fn rise(&mut self) {
        self.state = NodeState::Up;
        self.ever_up = true;
        self.pending = false;
    }

    fn count(&mut self, outcome: ProbeOutcome) {
        if outcome == ProbeOutcome::Up {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            self.slow = outcome == ProbeOutcome::Slow;
        }
    }

    fn apply(&mut self, policy: &Health, now: Instant) {
        let rise = if self.ever_up { u32::from(policy.rise.get()) } else { 1 };
        if self.failures >= u32::from(policy.fall.get()) {
            if self.state == NodeState::Up {
                self.downs.rotate_right(1);
                self.downs[0] = Some(now);
            }
            self.state = NodeState::Down;
            self.pending = false;
        } else if self.state != NodeState::Up && self.successes >= rise {
            self.rise();
        }
    }

    /// Whether it has gone down [`FLAPS`] times within [`FLAP_PERIOD`].
    fn flaps(&self, now: Instant) -> bool {
        self.downs[FLAPS - 1].is_some_and(|first| now < first + FLAP_PERIOD)
    }

    fn shown(&self, address: IpAddr) -> Node {
        let slow = self.slow && self.state == NodeState::Down;
        Node { address, state: self.state, slow, ever_up: self.ever_up, pending: self.pending }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU8, time::Duration};

    use super::*;
    use proptest::prelude::*;

    fn health(rise: u8, fall: u8) -> Health {
        let count = |n| NonZeroU8::new(n).unwrap();
        let second = Duration::from_secs(1);
        Health { interval: second, timeout: second, rise: count(rise), fall: count(fall) }
    }

    fn node(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn listing(policy: Option<Health>, nodes: &[u8]) -> HealthTable {
        let mut health = HealthTable::new(policy);
        health.list(&NodeSet::new(nodes.iter().map(|&n| node(n))).unwrap());
        health
    }

    /// A node's letter: `u` up, `n` new, `r` refuses, `s` slow; capital when it was never up.
    fn letter(node: &Node) -> char {
        let letter = match node.state {
            NodeState::Up => 'u',
            NodeState::New => 'n',
            NodeState::Down if node.slow => 's',
            NodeState::Down => 'r',
            NodeState::Foreign | NodeState::Drained | NodeState::Excluded => 'f',
        };
        if node.ever_up { letter } else { letter.to_ascii_uppercase() }
    }

    fn shown(health: &HealthTable) -> String {
        health.nodes().iter().map(letter).collect()
    }

    fn outcome(letter: char) -> ProbeOutcome {
        match letter {
            'u' => ProbeOutcome::Up,
            'r' => ProbeOutcome::Refused,
            _ => ProbeOutcome::Slow,
        }
    }

    /// The state of one node at the start and after each outcome; `!` where a confirmation is asked for.
    fn states(health: &mut HealthTable, outcomes: &str) -> String {
        let mut states = shown(health);
        for letter in outcomes.chars() {
            let change = health.record(node(1), outcome(letter), Instant::now());
            assert_eq!(change.changed, !states.trim_end_matches('!').ends_with(&shown(health)), "{states} {letter}");
            states += &shown(health);
            states += if change.confirm { "!" } else { "" };
        }
        states
    }

    fn one(rise: u8, fall: u8, outcomes: &str) -> String {
        states(&mut listing(Some(health(rise, fall)), &[1]), outcomes)
    }

    #[test]
    fn a_node_is_down_after_fall_failures_and_up_again_after_rise_successes() {
        assert_eq!(one(2, 2, "us"), "Nuu");
        assert_eq!(one(2, 2, "uss"), "Nuus");
        assert_eq!(one(2, 2, "usus"), "Nuuuu", "only failures in a row count");
        assert_eq!(one(2, 2, "ussuu"), "Nuuss!u");
        assert_eq!(one(2, 2, "ussusuu"), "Nuuss!ss!u", "only successes in a row count");
        assert_eq!(one(1, 1, "usu"), "Nusu");
        assert_eq!(one(3, 4, "ussssuuu"), "Nuuuuss!s!u");
    }

    #[test]
    fn a_new_node_is_up_after_its_first_success() {
        assert_eq!(one(3, 2, "u"), "Nu");
        assert_eq!(one(3, 3, "ssu"), "NNNu", "it failed, but not often enough to be called down");
        assert_eq!(one(3, 2, "rrsru"), "NNRSRu", "it was never up, so one success is enough");
        assert_eq!(one(3, 2, "urruuu"), "Nuu!rr!r!u", "from then on it is treated like the others");
    }

    #[test]
    fn a_refusal_is_confirmed_until_it_decides() {
        assert_eq!(one(2, 2, "urr"), "Nuu!r");
        assert_eq!(one(2, 3, "urrr"), "Nuu!u!r");
        assert_eq!(one(2, 1, "ur"), "Nur", "nothing is left to confirm");
        assert_eq!(one(2, 2, "uru"), "Nuu!u", "a single failure");
        assert_eq!(one(2, 3, "rr"), "NNN", "a new node is not answered, so there is no hurry");
    }

    #[test]
    fn a_node_that_answers_again_is_probed_once_more_at_once_unless_it_flaps() {
        assert_eq!(one(2, 2, "urruu"), "Nuu!rr!u");
        assert_eq!(one(2, 1, "uruuruu"), "Nurr!urr!u");
        assert_eq!(one(2, 1, "uruuruuruu"), "Nurr!urr!urru", "it has left three times");
        let mut health = listing(Some(health(2, 1)), &[1]);
        states(&mut health, "uruuruur");
        let later = Instant::now() + FLAP_PERIOD * 2;
        assert!(health.record(node(1), ProbeOutcome::Up, later).confirm, "that was long ago");
    }

    #[test]
    fn failures_count_together_and_the_latest_gives_the_kind() {
        assert_eq!(one(2, 2, "usr"), "Nuur");
        assert_eq!(one(2, 2, "urs"), "Nuu!s");
        assert_eq!(one(2, 2, "ussrs"), "Nuusrs");
        assert_eq!(one(2, 2, "ussu"), "Nuuss!", "one success of two leaves it as it was");
    }

    #[test]
    fn a_node_that_sent_its_list_is_verified_but_its_failures_count() {
        let mut health = listing(Some(health(2, 2)), &[1, 2]);
        assert!(health.verify(node(1), |_| true).changed);
        assert_eq!(shown(&health), "uN");
        assert_eq!(health.verify(node(1), |_| true), Change::default());
        health.record(node(1), ProbeOutcome::Slow, Instant::now());
        health.verify(node(1), |_| true);
        health.record(node(1), ProbeOutcome::Slow, Instant::now());
        assert_eq!(shown(&health), "sN", "it lists, but its probes fail");
        assert_eq!(health.verify(node(1), |_| true), Change::default(), "a down node is up again only by its probes");
        assert_eq!(health.verify(node(3), |_| true), Change::default());
    }

    #[test]
    fn a_list_verifies_no_node_whose_probes_fail_and_none_while_another_is_up() {
        let mut health = listing(Some(health(2, 2)), &[1, 2]);
        health.record(node(1), ProbeOutcome::Slow, Instant::now());
        assert_eq!(health.verify(node(1), |_| true), Change::default());
        assert_eq!(shown(&health), "NN");
        assert!(health.verify(node(2), |_| true).changed);
        health.list(&NodeSet::new([node(2), node(3)]).unwrap());
        assert_eq!(health.verify(node(3), |_| true), Change::default());
        assert_eq!(shown(&health), "uN", "one is answered, so the other can wait for its probe");
        health.record(node(2), ProbeOutcome::Slow, Instant::now());
        health.record(node(2), ProbeOutcome::Slow, Instant::now());
        assert!(health.verify(node(3), |_| true).changed, "no node was left");
    }

    #[test]
    fn a_node_that_is_not_listed_is_removed() {
        let mut health = listing(Some(health(2, 2)), &[1, 2]);
        health.record(node(1), ProbeOutcome::Up, Instant::now());
        health.record(node(2), ProbeOutcome::Up, Instant::now());
        assert_eq!(health.successes_in_a_row(node(2)), 1);
        health.list(&NodeSet::new([node(1), node(3)]).unwrap());
        assert_eq!(shown(&health), "uN");
        assert_eq!(health.record(node(2), ProbeOutcome::Refused, Instant::now()), Change::default());
        health.list(&NodeSet::new([node(2), node(1)]).unwrap());
        assert_eq!(shown(&health), "uN", "it comes back as a new node");
        assert_eq!((health.successes_in_a_row(node(1)), health.successes_in_a_row(node(2))), (1, 0));
    }

    #[test]
    fn without_a_policy_every_listed_node_is_up() {
        let mut health = listing(None, &[1]);
        assert_eq!(states(&mut health, "srrr"), "uuuuu");
        assert_eq!(health.verify(node(1), |_| true), Change::default());
    }

    #[test]
    fn a_later_poller_takes_over_the_states() {
        let mut before = listing(Some(health(2, 2)), &[1, 2]);
        before.verify(node(1), |_| true);
        before.record(node(1), ProbeOutcome::Slow, Instant::now());
        let resumed = |policy| {
            let mut health = HealthTable::new(policy);
            health.resume(&before.nodes(), &before.failing());
            health
        };
        let mut later = resumed(Some(health(2, 2)));
        later.record(node(1), ProbeOutcome::Slow, Instant::now());
        assert_eq!(shown(&later), "sN", "the second failure in a row, whichever poller saw the first");
        assert_eq!(shown(&resumed(Some(health(9, 9)))), shown(&before), "another policy changes no state");
        assert!(resumed(None).nodes().iter().all(|node| node.state == NodeState::Up), "without probes all are up");
    }

    /// The outcomes of one node, oldest first, under any policy.
    fn any_outcomes() -> impl Strategy<Value = (u8, u8, String)> {
        (1_u8..5, 1_u8..5, "[urs]{0,40}")
    }

    proptest! {
        #[test]
        fn the_latest_in_a_row_decide((rise, fall, outcomes) in any_outcomes()) {
            let mut health = listing(Some(health(rise, fall)), &[1]);
            states(&mut health, &outcomes);
            let failures = outcomes.len() - outcomes.trim_end_matches(['r', 's']).len();
            let successes = outcomes.len() - outcomes.trim_end_matches('u').len();
            let node = health.nodes()[0];
            prop_assert_eq!(node.ever_up, outcomes.contains('u'));
            if failures >= usize::from(fall) {
                prop_assert_eq!(letter(&node).to_ascii_lowercase(), outcomes.chars().last().unwrap());
            }
            if successes >= usize::from(rise) {
                prop_assert_eq!(node.state, NodeState::Up);
            }
            prop_assert_eq!(health.successes_in_a_row(node.address) as usize, successes);
        }

        #[test]
        fn the_state_moves_only_on_enough_evidence((rise, fall, outcomes) in any_outcomes()) {
            let mut health = listing(Some(health(rise, fall)), &[1]);
            let mut successes = 0;
            let mut failures = 0;
            let mut downs = 0;
            for outcome in outcomes.chars().map(outcome) {
                let before = health.nodes()[0];
                let change = health.record(node(1), outcome, Instant::now());
                let after = health.nodes()[0];
                (successes, failures) = if outcome == ProbeOutcome::Up { (successes + 1, 0) } else { (0, failures + 1) };
                prop_assert_eq!(change.changed, before != after);
                if before.state != after.state {
                    let enough = match after.state {
                        NodeState::Up => successes >= if before.ever_up { rise } else { 1 },
                        NodeState::Down => failures >= fall,
                        NodeState::New | NodeState::Foreign | NodeState::Drained | NodeState::Excluded => false,
                    };
                    prop_assert!(enough, "{before:?} {after:?}");
                }
                downs += usize::from(before.state == NodeState::Up && after.state == NodeState::Down);
                let is_confirmed = match outcome {
                    ProbeOutcome::Refused => after.state == NodeState::Up,
                    ProbeOutcome::Up => after.state == NodeState::Down && downs < FLAPS,
                    ProbeOutcome::Slow => false,
                };
                prop_assert_eq!(change.confirm, is_confirmed);
            }
        }

        #[test]
        fn nodes_are_those_listed_in_order(
            listed in prop::collection::btree_set(1_u8..20, 1..10),
            outcomes in "[urs]{0,9}",
        ) {
            let listed: Vec<u8> = listed.into_iter().collect();
            let mut health = listing(Some(health(2, 2)), &listed);
            for (outcome, n) in outcomes.chars().map(outcome).zip(1..) {
                health.record(node(n), outcome, Instant::now());
            }
            let addresses: Vec<IpAddr> = health.nodes().iter().map(|node| node.address).collect();
            prop_assert_eq!(addresses, listed.into_iter().map(node).collect::<Vec<_>>());
        }
    }
}

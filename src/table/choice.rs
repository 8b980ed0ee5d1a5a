//! Which of the listed nodes are answered: pure policy.

use std::net::IpAddr;

use super::drains::ZoneDrains;
use crate::types::{AddressRules, NodeSet, NodeState};

/// A listed node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Node {
    /// The address that nodes list, and that is polled and probed.
    pub address: IpAddr,
    /// What is known of it.
    pub state: NodeState,
    /// It is down because it is slow or errs; a node that refuses, resets or cannot be reached is not slow.
    pub slow: bool,
    /// It was up at least once.
    pub ever_up: bool,
    /// It is answered as it was until it has been verified: after a start, or while its cluster returns as a whole.
    pub pending: bool,
}

impl Node {
    /// A node that answers.
    pub fn up(address: IpAddr) -> Self {
        Self { address, state: NodeState::Up, slow: false, ever_up: true, pending: false }
    }

    /// It is taken for one of the zone's cluster: it is neither another one's, nor still to show that it belongs.
    pub fn is_of_cluster(&self) -> bool {
        match self.state {
            NodeState::Up | NodeState::Down => true,
            NodeState::New => self.pending,
            NodeState::Foreign | NodeState::Drained | NodeState::Excluded => false,
        }
    }

    /// It is answered while there are such nodes.
    fn is_in_service(&self) -> bool {
        self.state == NodeState::Up || self.pending
    }

    /// It was up, and is down only because it is slow.
    fn is_slow(&self) -> bool {
        self.state == NodeState::Down && self.slow && self.ever_up
    }
}

/// The seeds to answer: those that the rules let through, and a drained one only where no other is left.
pub(super) fn choose_seeds(seeds: Option<&NodeSet>, rules: &AddressRules, drains: &ZoneDrains) -> Option<NodeSet> {
    let permitted =
        || seeds.map(NodeSet::as_slice).unwrap_or_default().iter().copied().filter(|&seed| rules.permits(seed));
    NodeSet::new(permitted().filter(|&seed| !drains.contains(seed, rules))).or_else(|| NodeSet::new(permitted()))
}

/// The nodes to answer, of those that the rules let through and that are not of another cluster.
///
/// A drained node is answered only where no other node is in service: it still works, which is better than nodes that do
/// not. When no node at all is in service, the others are the better guess.
pub(super) fn choose(nodes: &[Node], rules: &AddressRules, drains: &ZoneDrains) -> Option<NodeSet> {
    let is_candidate = |node: &&Node| node.state != NodeState::Foreign && rules.permits(node.address);
    let listed: Vec<&Node> = nodes.iter().filter(is_candidate).collect();
    let is_drained = |node: &&Node| drains.contains(node.address, rules);
    let (drained, others): (Vec<&Node>, Vec<&Node>) = listed.iter().copied().partition(is_drained);
    if !others.iter().any(|node| node.is_in_service()) && drained.iter().any(|node| node.is_in_service()) {
        return choose_by_health(&listed);
    }
    choose_by_health(&others).or_else(|| choose_by_health(&drained))
}

/// The nodes that a view answers: the same, but of a family only while one of its nodes is in service and not drained.
pub(super) fn choose_in_service(nodes: &[Node], rules: &AddressRules, drains: &ZoneDrains) -> Option<NodeSet> {
    let works = |node: &&Node| {
        let is_candidate = node.state != NodeState::Foreign && rules.permits(node.address);
        is_candidate && node.is_in_service() && !drains.contains(node.address, rules)
    };
    let serves = |v4: bool| nodes.iter().filter(works).any(|node| node.address.is_ipv4() == v4);
    let families = (serves(true), serves(false));
    let has_served = |address: &IpAddr| if address.is_ipv4() { families.0 } else { families.1 };
    let chosen = choose(nodes, rules, drains)?;
    NodeSet::new(chosen.as_slice().iter().copied().filter(has_served))
}

/// The nodes to answer by their health alone.
///
/// Nodes that refuse are left out without limit. Slow or erring ones are left out only while at least half of the list
/// remains: an overloaded cluster is not helped by shrinking it. A new node does not count in that list until it has
/// been up: otherwise many nodes that join at once would bring a dead one back. When no node is up, every node that was
/// ever up is answered, and when none ever was, every node.
fn choose_by_health(listed: &[&Node]) -> Option<NodeSet> {
    let count = |wanted: &dyn Fn(&Node) -> bool| listed.iter().filter(|node| wanted(node)).count();
    let slowness_counts = count(&Node::is_in_service) * 2 >= count(&|node| node.ever_up);
    let answered = |node: &Node| node.is_in_service() || (node.is_slow() && !slowness_counts);
    let of = |wanted: &dyn Fn(&Node) -> bool| {
        NodeSet::new(listed.iter().filter(|node| wanted(node)).map(|node| node.address))
    };
    of(&answered).or_else(|| of(&|node| node.ever_up)).or_else(|| of(&|_| true))
}

/// Whether what is answered has been verified: at least one node is up, and not drained.
pub(super) fn is_verified(nodes: &[Node], rules: &AddressRules, drains: &ZoneDrains) -> bool {
    let is_available = |address| rules.permits(address) && !drains.contains(address, rules);
    nodes.iter().any(|node| node.state == NodeState::Up && is_available(node.address))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{
        super::drains::{Drain, Drains},
        *,
    };
    use proptest::prelude::*;

    /// One letter a node: `u` up, `n` new, `r` refuses, `s` slow, `R` and `S` the same but never up before, `p` pending, `f` foreign.
    fn chosen(states: &str) -> String {
        chosen_beside(states, &ZoneDrains::default())
    }

    /// The same where the first nodes, as many as `count`, are drained.
    fn chosen_drained(states: &str, count: u8) -> String {
        let mut drains = Drains::default();
        for n in 1..=count {
            let drain = Drain { node: IpAddr::from([10, 0, 0, n]), zone: None, until: SystemTime::UNIX_EPOCH };
            drains.add(drain).unwrap();
        }
        chosen_beside(states, &drains.everywhere())
    }

    fn chosen_beside(states: &str, drains: &ZoneDrains) -> String {
        let nodes: Vec<_> = states.bytes().zip(1..).map(|(letter, n)| node(letter, n)).collect();
        let set = choose(&nodes, &AddressRules::default(), drains);
        set.map_or_else(String::new, |set| {
            let letters = set.as_slice().iter().map(|address| match address {
                IpAddr::V4(v4) => char::from(states.as_bytes()[usize::from(v4.octets()[3]) - 1]),
                IpAddr::V6(_) => '?',
            });
            letters.collect()
        })
    }

    fn node(letter: u8, n: u8) -> Node {
        let address = IpAddr::from([10, 0, 0, n]);
        let (state, slow) = match letter.to_ascii_lowercase() {
            b'f' => (NodeState::Foreign, false),
            b'u' => (NodeState::Up, false),
            b'n' => (NodeState::New, false),
            b's' => (NodeState::Down, true),
            _ => (NodeState::Down, false), // also `p`, which is pending
        };
        let ever_up = letter.is_ascii_lowercase() && letter != b'n';
        Node { address, state, slow, ever_up, pending: letter == b'p' }
    }

    #[test]
    fn refusing_nodes_are_left_out_and_slow_ones_only_while_half_remains() {
        assert_eq!(chosen("uuu"), "uuu");
        assert_eq!(chosen("uur"), "uu");
        assert_eq!(chosen("urrrrrrrrr"), "u");
        assert_eq!(chosen("uus"), "uu");
        assert_eq!(chosen("uuuuusssss"), "uuuuu");
        assert_eq!(chosen("uuuussssss"), "uuuussssss", "less than half would remain");
        assert_eq!(chosen("uussssssss"), "uussssssss");
        assert_eq!(chosen("urs"), "us", "of three one remains, which is less than half");
        assert_eq!(chosen("uusnnnnnRS"), "uu", "the slow one need not wait for nodes that were never up");
    }

    #[test]
    fn a_newcomer_is_answered_once_it_is_up() {
        assert_eq!(chosen("un"), "u");
        assert_eq!(chosen("nn"), "nn", "no node was ever up: a guess is better than nothing");
        assert_eq!(chosen("rn"), "r", "a node that was up once is a better guess");
        assert_eq!(chosen("RS"), "RS");
        assert_eq!(chosen("rrr"), "rrr");
        assert_eq!(chosen(""), "");
    }

    #[test]
    fn a_foreign_node_is_never_answered_and_a_pending_one_is_as_before() {
        assert_eq!(chosen("ff"), "");
        assert_eq!(chosen("fR"), "R");
        assert_eq!(chosen("uppr"), "upp");
        assert_eq!(chosen("ps"), "p", "half of the list remains");
    }

    #[test]
    fn rules_come_first() {
        let rules = AddressRules { exclude: vec!["10.0.0.1/32".parse().unwrap()], ..AddressRules::default() };
        let nodes = [node(b'u', 1), node(b'r', 2)];
        let none = ZoneDrains::default();
        assert_eq!(choose(&nodes, &rules, &none), NodeSet::new([nodes[1].address]), "an excluded node is no node");
        assert!(!is_verified(&nodes, &rules, &none));
        assert_eq!(choose(&nodes[..1], &rules, &none), None);
    }

    #[test]
    fn a_drained_node_is_answered_only_while_no_other_is_in_service() {
        assert_eq!(chosen_drained("uuu", 1), "uu");
        assert_eq!(chosen_drained("uuu", 3), "uuu", "all are drained");
        assert_eq!(chosen_drained("urr", 1), "u", "the drained one still works");
        assert_eq!(chosen_drained("uus", 1), "u", "half of what is left remains");
        assert_eq!(chosen_drained("uuss", 1), "uss", "less than half of what is left would remain");
        assert_eq!(chosen_drained("us", 1), "u");
        assert_eq!(chosen_drained("un", 1), "u", "a new node is a guess");
        assert_eq!(chosen_drained("up", 1), "p");
        assert_eq!(chosen_drained("rr", 1), "r", "where none works, the other is the better guess");
        assert_eq!(chosen_drained("rf", 1), "r", "and no node of another cluster");
        assert_eq!(chosen_drained("fu", 1), "u");
        assert_eq!(chosen_drained("ff", 2), "");
    }

    #[test]
    fn a_drained_seed_is_answered_only_where_no_other_is_left() {
        let mut drains = Drains::default();
        let seeds: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let chosen = |drains: &Drains| {
            let set = NodeSet::new(seeds.iter().copied());
            choose_seeds(set.as_ref(), &AddressRules::default(), &drains.everywhere()).unwrap().as_slice().to_vec()
        };
        for (seed, expected) in [(0, &seeds[1..]), (1, &seeds[..])] {
            drains.add(Drain { node: seeds[seed], zone: None, until: SystemTime::UNIX_EPOCH }).unwrap();
            assert_eq!(chosen(&drains), expected);
        }
        assert_eq!(choose_seeds(None, &AddressRules::default(), &drains.everywhere()), None);
    }

    proptest! {
        #[test]
        fn a_permitted_list_is_never_answered_with_nothing(states in "[unrsRS]{1,12}") {
            prop_assert!(!chosen(&states).is_empty());
        }

        #[test]
        fn a_drain_never_empties_an_answer(states in "[unrspRS]{1,12}", count in 0_u8..12) {
            let answered = chosen_drained(&states, count);
            prop_assert!(!answered.is_empty());
            if states.bytes().skip(count.into()).any(|letter| matches!(letter, b'u' | b'p')) {
                prop_assert_eq!(answered, chosen(states.get(count.into()..).unwrap_or_default()));
            }
        }

        #[test]
        fn every_node_that_is_up_is_answered(states in "[unrsRS]{1,12}") {
            let up = |text: &str| text.bytes().filter(|&letter| letter == b'u').count();
            prop_assert_eq!(up(&chosen(&states)), up(&states));
        }
    }
}

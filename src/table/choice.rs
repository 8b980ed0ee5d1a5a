//! Which of the listed nodes are answered: pure policy.

use std::net::IpAddr;

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
            NodeState::Foreign | NodeState::Excluded => false,
        }
    }

    /// It was up, and is down only because it is slow.
    fn is_slow(&self) -> bool {
        self.state == NodeState::Down && self.slow && self.ever_up
    }
}

/// The addresses that the rules let through.
pub(super) fn permitted(nodes: Option<&NodeSet>, rules: &AddressRules) -> Option<NodeSet> {
    NodeSet::new(nodes?.as_slice().iter().copied().filter(|&node| rules.permits(node)))
}

/// The nodes to answer, of those that the rules let through.
///
/// Nodes that refuse are left out without limit. Slow or erring ones are left out only while at least half of the list
/// remains: an overloaded cluster is not helped by shrinking it. A new node does not count in that list until it has
/// been up: otherwise many nodes that join at once would bring a dead one back. When no node is up, every node that was
/// ever up is answered, and when none ever was, every node; but never one of another cluster.
pub(super) fn choose(nodes: &[Node], rules: &AddressRules) -> Option<NodeSet> {
    let is_candidate = |node: &&Node| node.state != NodeState::Foreign && rules.permits(node.address);
    let listed: Vec<_> = nodes.iter().filter(is_candidate).collect();
    let count = |wanted: &dyn Fn(&Node) -> bool| listed.iter().filter(|node| wanted(node)).count();
    let in_service = |node: &Node| node.state == NodeState::Up || node.pending;
    let slowness_counts = count(&in_service) * 2 >= count(&|node| node.ever_up);
    let answered = |node: &Node| in_service(node) || (node.is_slow() && !slowness_counts);
    let of = |wanted: &dyn Fn(&Node) -> bool| {
        NodeSet::new(listed.iter().filter(|node| wanted(node)).map(|node| node.address))
    };
    of(&answered).or_else(|| of(&|node| node.ever_up)).or_else(|| of(&|_| true))
}

/// Whether what is answered has been verified: at least one node is up.
pub(super) fn is_verified(nodes: &[Node], rules: &AddressRules) -> bool {
    nodes.iter().any(|node| node.state == NodeState::Up && rules.permits(node.address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One letter a node: `u` up, `n` new, `r` refuses, `s` slow, `R` and `S` the same but never up before, `p` pending, `f` foreign.
    fn chosen(states: &str) -> String {
        let nodes: Vec<_> = states.bytes().zip(1..).map(|(letter, n)| node(letter, n)).collect();
        let set = choose(&nodes, &AddressRules::default());
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
        assert_eq!(choose(&nodes, &rules), NodeSet::new([nodes[1].address]), "an excluded node is no node");
        assert!(!is_verified(&nodes, &rules));
        assert_eq!(choose(&nodes[..1], &rules), None);
    }

    proptest! {
        #[test]
        fn a_permitted_list_is_never_answered_with_nothing(states in "[unrsRS]{1,12}") {
            prop_assert!(!chosen(&states).is_empty());
        }

        #[test]
        fn every_node_that_is_up_is_answered(states in "[unrsRS]{1,12}") {
            let up = |text: &str| text.bytes().filter(|&letter| letter == b'u').count();
            prop_assert_eq!(up(&chosen(&states)), up(&states));
        }
    }
}

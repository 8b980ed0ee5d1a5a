//! Whether to accept a list: pure rules against lists that are wrong.
//!
//! `/localnodes` carries no identity, addresses are recycled, and an isolated node lists itself alone. So a list is a
//! report: it is compared with the known nodes, and the nodes that it leaves out are asked themselves.

use std::net::IpAddr;

use crate::types::NodeSet;

/// A list and its sender.
#[derive(Clone, Copy, Debug)]
pub struct ListReport<'c> {
    /// The node that sent it.
    pub sender: IpAddr,
    /// Whether the sender is one of the configured seeds.
    pub from_seed: bool,
    /// The nodes that it lists. `None`: no node in the scope that was asked for.
    pub nodes: Option<&'c NodeSet>,
    /// The sender ignores scopes: it lists the whole cluster, whatever it was asked.
    pub unscoped: bool,
}

/// A report, and the scope that it is about.
#[derive(Clone, Copy, Debug)]
pub struct ScopeReport<'r> {
    /// The number of the scope, from 0; 0 also for a zone without scopes.
    pub scope: usize,
    /// What the node reports.
    pub report: ListReport<'r>,
}

/// What a report is compared with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Baseline<'o> {
    /// Nothing was ever learnt, or what is answered belongs to the cluster that the zone had before its seeds changed:
    /// the first usable list is accepted.
    Unguarded,
    /// Nodes of the snapshot of an earlier process, not confirmed yet.
    Remembered(&'o NodeSet),
    /// What is known of other scopes of this cluster, while nothing is known of the one that was asked for.
    OtherScope(Option<&'o NodeSet>),
    /// What this zone's cluster reported. `None`: all of it has turned out to be another cluster's.
    Learnt(Option<&'o NodeSet>),
}

/// What is to be done with a report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It is accepted.
    Accept,
    /// It is accepted if none of these nodes, which it leaves out, contradicts it.
    AskMissing(Vec<IpAddr>),
    /// It has nothing to do with what is known, and its sender is no seed.
    Unrelated,
    /// It comes from another zone's cluster: the sender's address was recycled.
    Foreign,
}

/// Judges a report. `owned_by_other_zone` tells whether a node is published by another zone that is live and had nothing in
/// common with ours until now.
pub fn judge(report: ListReport<'_>, ours: Baseline<'_>, owned_by_other_zone: impl Fn(IpAddr) -> bool) -> Judgement {
    let known = match ours {
        Baseline::Unguarded => return Judgement::Accept,
        Baseline::Remembered(nodes) => Some(nodes),
        Baseline::OtherScope(nodes) | Baseline::Learnt(nodes) => nodes,
    };
    let listed = slice(report.nodes);
    let shares = |other: &IpAddr| *other != report.sender && known.is_some_and(|known| known.contains(other));
    let shares_another = listed.iter().any(shares);
    if !shares_another && listed.iter().any(|&node| owned_by_other_zone(node)) {
        return Judgement::Foreign;
    }
    if matches!(ours, Baseline::OtherScope(_)) {
        return Judgement::Accept;
    }
    let nothing_else_known = slice(known).iter().all(|node| *node == report.sender);
    // A list of known nodes only brings no foreign node in; the nodes that it leaves out are asked themselves.
    let nothing_new = !listed.is_empty() && listed.iter().all(|node| slice(known).contains(node));
    if !(shares_another || nothing_else_known || nothing_new || report.from_seed) {
        return Judgement::Unrelated;
    }
    if matches!(ours, Baseline::Remembered(_)) && (shares_another || nothing_else_known || report.from_seed) {
        return Judgement::Accept;
    }
    let left_out: Vec<_> = slice(known).iter().copied().filter(|node| !listed.contains(node)).collect();
    if left_out.is_empty() { Judgement::Accept } else { Judgement::AskMissing(left_out) }
}

/// Whether a node that a report leaves out contradicts it: it answers, lists itself, and lists at least as many
/// of the known nodes as the report does. (In a 2–3 split, the three outvote the two.)
pub fn outweighs(witness: IpAddr, reply: &NodeSet, claimed: Option<&NodeSet>, known: Option<&NodeSet>) -> bool {
    let known_in = |list: &[IpAddr]| list.iter().filter(|node| known.is_some_and(|known| known.contains(node))).count();
    reply.contains(&witness) && known_in(reply.as_slice()) >= known_in(slice(claimed))
}

/// Whether a list names nodes that are not known and, its sender apart, none that is: perhaps it is of another
/// cluster. (A node that lists only itself is not.)
pub fn speaks_of_others(sender: IpAddr, list: &NodeSet, known: Option<&NodeSet>) -> bool {
    let (ours, others): (Vec<IpAddr>, _) = list.as_slice().iter().partition(|node| slice(known).contains(node));
    !others.is_empty() && ours.iter().all(|node| *node == sender)
}

fn slice(nodes: Option<&NodeSet>) -> &[IpAddr] {
    nodes.map_or(&[], NodeSet::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One letter a node, so that a story fits on a line.
    fn node(letter: char) -> IpAddr {
        IpAddr::from([10, 0, 0, letter as u8])
    }

    fn set(letters: &str) -> Option<NodeSet> {
        NodeSet::new(letters.chars().map(node))
    }

    /// `sender>list`, a capital sender is a seed; `strange` letters belong to another zone.
    fn judged(report: &str, known: &str, strange: &str) -> String {
        let (sender, list) = report.split_once('>').unwrap();
        let sender = sender.chars().next().unwrap();
        let nodes = set(list);
        let report = ListReport {
            sender: node(sender.to_ascii_lowercase()),
            from_seed: sender.is_uppercase(),
            nodes: nodes.as_ref(),
            unscoped: false,
        };
        let known = set(known);
        match judge(report, Baseline::Learnt(known.as_ref()), |other| {
            strange.chars().any(|letter| node(letter) == other)
        }) {
            Judgement::Accept => "accept".into(),
            Judgement::Unrelated => "unrelated".into(),
            Judgement::Foreign => "foreign".into(),
            Judgement::AskMissing(who) => format!("ask {}", who.iter().map(letter).collect::<String>()),
        }
    }

    fn letter(address: &IpAddr) -> char {
        match address {
            IpAddr::V4(v4) => v4.octets()[3].into(),
            IpAddr::V6(_) => '?',
        }
    }

    #[test]
    fn a_list_that_adds_is_believed_and_one_that_leaves_out_is_questioned() {
        assert_eq!(judged("a>abc", "abc", ""), "accept");
        assert_eq!(judged("a>abcd", "abc", ""), "accept");
        assert_eq!(judged("a>ab", "abc", ""), "ask c");
        assert_eq!(judged("a>a", "abc", ""), "ask bc", "the last one of many may be right");
        assert_eq!(judged("A>a", "abc", ""), "ask bc");
        assert_eq!(judged("a>abc", "a", ""), "accept", "a cluster of one grows");
    }

    #[test]
    fn an_unrelated_list_is_accepted_from_a_seed_only() {
        assert_eq!(judged("c>cxy", "abc", ""), "unrelated");
        assert_eq!(judged("C>cxy", "abc", ""), "ask ab");
        assert_eq!(judged("S>xyz", "abc", ""), "ask abc");
        assert_eq!(judged("S>xyz", "", ""), "accept", "nothing is left that could object");
    }

    #[test]
    fn nodes_of_another_live_zone_are_foreign_even_from_a_seed() {
        assert_eq!(judged("A>axy", "a", "xy"), "foreign", "the address of a cluster of one was recycled");
        assert_eq!(judged("C>cxy", "abc", "xy"), "foreign");
        assert_eq!(judged("A>a", "a", "a"), "foreign", "the other zone has taken the address in already");
        assert_eq!(judged("A>axy", "", "xy"), "foreign", "and it stays so when nothing is left");
        assert_eq!(judged("a>abx", "ab", "x"), "accept", "a node that shares a node with us is ours");
    }

    #[test]
    fn what_was_remembered_needs_a_seed_or_an_overlap() {
        let (known, list) = (set("abc").unwrap(), set("bx").unwrap());
        let judged = |sender, from_seed, nodes| {
            let report = ListReport { sender: node(sender), from_seed, nodes: Some(nodes), unscoped: false };
            judge(report, Baseline::Remembered(&known), |_| false)
        };
        assert_eq!(judged('a', false, &list), Judgement::Accept);
        assert_eq!(judged('b', false, &list), Judgement::Unrelated, "it shares nothing but itself");
        assert_eq!(judged('s', true, &set("xyz").unwrap()), Judgement::Accept);
    }

    #[test]
    fn the_larger_part_wins() {
        let (known, outweighs) = (set("abcde"), |witness, reply: &str, report: &str, known: &Option<NodeSet>| {
            outweighs(node(witness), &set(reply).unwrap(), set(report).as_ref(), known.as_ref())
        });
        assert!(outweighs('c', "cde", "ab", &known));
        assert!(!outweighs('a', "ab", "cde", &known));
        assert!(outweighs('b', "ab", "a", &set("ab")), "one who sees both knows better than one who sees itself");
        assert!(outweighs('b', "b", "a", &set("ab")), "of two who see only themselves neither goes");
        assert!(!outweighs('c', "ab", "ab", &known), "who does not list itself is leaving");
        assert!(!outweighs('a', "axy", "bcde", &known), "a recycled address shares only itself");
    }

    #[test]
    fn a_list_of_unknown_nodes_only_is_of_others() {
        let known = set("abc");
        let speaks = |sender, list: &str| speaks_of_others(node(sender), &set(list).unwrap(), known.as_ref());
        assert!(speaks('a', "axy") && speaks('a', "xy"));
        assert!(!speaks('a', "a"), "who sees only itself");
        assert!(!speaks('a', "abx") && !speaks('a', "bc"));
    }

    proptest! {
        #[test]
        fn what_repeats_the_known_is_believed(letters in "[a-f]{1,6}", sender in 0usize..6) {
            let known = set(&letters).unwrap();
            let sender = known.as_slice()[sender % known.as_slice().len()];
            let report = ListReport { sender, from_seed: false, nodes: Some(&known), unscoped: false };
            prop_assert_eq!(judge(report, Baseline::Learnt(Some(&known)), |_| false), Judgement::Accept);
        }

        #[test]
        fn every_missing_node_is_asked(list in "[a-f]{1,6}", known in "[a-f]{1,6}", sender in "[a-f]", from_seed: bool) {
            let (list, known) = (set(&list).unwrap(), set(&known).unwrap());
            let report = ListReport { sender: node(sender.chars().next().unwrap()), from_seed, nodes: Some(&list), unscoped: false };
            if judge(report, Baseline::Learnt(Some(&known)), |_| false) == Judgement::Accept {
                prop_assert!(known.as_slice().iter().all(|node| list.contains(node)));
            }
        }
    }
}

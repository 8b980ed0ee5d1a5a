//! What nodes report, and whether a node that a list leaves out contradicts it: pure.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use crate::types::{ClusterId, NodeSet};

/// A list, and its sender.
#[derive(Clone, Copy, Debug)]
pub struct ListReport<'c> {
    /// The node that sent it.
    pub sender: IpAddr,
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

/// What a node says of itself: its own list in each scope of the zone, and its cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SelfReport {
    /// Its list in each scope. `None`: it lists no node there.
    scopes: Vec<Option<NodeSet>>,
    /// All of them together.
    union: Option<NodeSet>,
    /// The id of its cluster, if it has given one since its last failure.
    pub id: Option<ClusterId>,
    /// It ignores scopes: it lists all nodes of its own datacenter, whatever it was asked.
    pub unscoped: bool,
    /// When the newest part of it arrived.
    pub at: Instant,
    /// When it first said something that older reports of other nodes cannot confirm, see
    /// [`SelfReport::replaces`].
    pub changed: Instant,
}

impl SelfReport {
    /// A report that arrived now, with the node's list in each scope.
    pub fn new(scopes: Vec<Option<NodeSet>>, at: Instant) -> Self {
        let union = union(&scopes);
        Self { scopes, union, id: None, unscoped: false, at, changed: at }
    }

    /// The same from a node that has given this id.
    #[must_use]
    pub fn of_cluster(self, id: Option<ClusterId>) -> Self {
        Self { id, ..self }
    }

    /// The same from a node that may ignore scopes.
    #[must_use]
    pub fn ignoring_scopes(self, unscoped: bool) -> Self {
        Self { unscoped, ..self }
    }

    /// All that the node lists, in order.
    pub fn named(&self) -> &[IpAddr] {
        slice(self.union.as_ref())
    }

    /// The same as a set; `None`: it lists no node.
    pub fn union(&self) -> Option<&NodeSet> {
        self.union.as_ref()
    }

    /// Whether the node lists an address.
    pub fn names(&self, node: &IpAddr) -> bool {
        self.union.as_ref().is_some_and(|union| union.contains(node))
    }

    /// What the node lists in one scope.
    pub fn in_scope(&self, scope: usize) -> Option<&NodeSet> {
        self.scopes.get(scope)?.as_ref()
    }

    /// This report in place of an earlier one of the same node, without a failure between them. A node that names
    /// strangers all of a sudden may have been replaced by another one between two requests, and others with it: then
    /// older reports that list it prove nothing.
    #[must_use]
    pub fn replaces(self, earlier: &Self, is_stranger: impl Fn(&IpAddr) -> bool) -> Self {
        let is_suspicious = self.named().iter().any(|node| !earlier.names(node) && is_stranger(node));
        let changed = if is_suspicious { self.at } else { earlier.changed };
        Self { id: self.id.or(earlier.id), changed, ..self }
    }

    /// Whether both list the same, and give the same id.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let said = |report: &Self| (report.id, report.unscoped, report.changed);
        self.scopes == other.scopes && said(self) == said(other)
    }
}

/// Whether the reply of a node that a list leaves out, and that lists itself, outweighs the list: it names at least as many
/// of the known nodes. (In a 2–3 split, the three outvote the two.)
pub fn outweighs(reply: &[IpAddr], claimed: &[IpAddr], known: &BTreeSet<IpAddr>) -> bool {
    let known_in = |list: &[IpAddr]| list.iter().filter(|node| known.contains(node)).count();
    known_in(reply) >= known_in(claimed)
}

fn union(scopes: &[Option<NodeSet>]) -> Option<NodeSet> {
    match scopes {
        [only] => only.clone(),
        _ => NodeSet::new(scopes.iter().flatten().flat_map(NodeSet::as_slice).copied()),
    }
}

/// The addresses of a list; none where there is no list.
pub fn slice(nodes: Option<&NodeSet>) -> &[IpAddr] {
    nodes.map_or(&[], NodeSet::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter a node, so that a case fits on a line.
    fn node(letter: char) -> IpAddr {
        IpAddr::from([10, 0, 0, letter as u8])
    }

    fn set(letters: &str) -> Option<NodeSet> {
        NodeSet::new(letters.chars().map(node))
    }

    #[test]
    fn a_missing_node_contradicts_a_list_with_at_least_as_many_known_nodes() {
        let outweighs = |reply: &str, claimed: &str, known: &str| {
            let known = known.chars().map(node).collect();
            outweighs(set(reply).unwrap().as_slice(), set(claimed).unwrap().as_slice(), &known)
        };
        assert!(outweighs("cde", "ab", "abcde"));
        assert!(!outweighs("ab", "cde", "abcde"));
        assert!(outweighs("ab", "a", "ab"), "one that sees both knows better than one that sees itself");
        assert!(outweighs("b", "a", "ab"), "of two that see only themselves neither goes");
        assert!(!outweighs("axy", "bcde", "abcde"), "a recycled address shares only itself");
    }

    #[test]
    fn a_report_unites_the_scopes_and_is_suspicious_when_it_names_strangers() {
        let start = Instant::now();
        let later = start + std::time::Duration::from_secs(1);
        let first = SelfReport::new(vec![set("ab"), None], start);
        assert_eq!(first.named(), set("ab").unwrap().as_slice());
        let second = SelfReport::new(vec![set("ab"), set("cd")], later);
        assert_eq!(second.in_scope(1), set("cd").as_ref());
        assert_eq!(second.named(), set("abcd").unwrap().as_slice());
        assert!(!second.names(&node('e')) && second.names(&node('d')));
        let known = |strangers: &'static str| {
            let strangers = set(strangers);
            move |node: &IpAddr| strangers.as_ref().is_some_and(|strangers| strangers.contains(node))
        };
        assert_eq!(second.clone().replaces(&first, known("d")).changed, later);
        assert_eq!(second.clone().replaces(&first, known("x")).changed, start, "it names no stranger");
        let second = second.replaces(&first, known("x"));
        let third = SelfReport::new(vec![set("ab"), set("cd")], later + std::time::Duration::from_secs(1));
        assert_eq!(third.replaces(&second, known("d")).changed, start, "it named the stranger before");
    }
}

//! The last changes of a zone and of its nodes, also of nodes that are not listed any more, for people.

use std::{collections::VecDeque, net::IpAddr, time::SystemTime};

use super::description::{NodeDescription, ZoneDescription};
use crate::types::{NodeState, ZoneState};

/// Changes that are kept of a zone: some days of a healthy cluster, and an hour of one in trouble.
pub const CHANGES_MAX: usize = 100;

/// Nodes of one observation that are kept one by one; of further nodes only the number is. A wrong list of thousands must not
/// push out what came before.
const NODES_MAX: usize = 25;

/// Characters of a reason that are kept. A reason names a few addresses and one error.
const REASON_CHARACTERS_MAX: usize = 200;

/// A change of a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// When it was seen.
    pub at: SystemTime,
    /// What has changed.
    pub kind: ChangeKind,
    /// Why; `None`: the zone is live, or the node is up.
    pub reason: Option<Box<str>>,
}

/// What has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangeKind {
    /// The state of the zone.
    Zone {
        /// What it was.
        from: ZoneState,
        /// What it is.
        to: ZoneState,
    },
    /// A node is listed.
    Joined {
        /// The node.
        node: IpAddr,
        /// Its state.
        state: NodeState,
    },
    /// A node is not listed any more.
    Left {
        /// The node.
        node: IpAddr,
        /// What its state was.
        state: NodeState,
    },
    /// A listed node has another state.
    Node {
        /// The node.
        node: IpAddr,
        /// What its state was.
        from: NodeState,
        /// What it is.
        to: NodeState,
    },
    /// A drained node, which stays drained, would have another state.
    Drained {
        /// The node.
        node: IpAddr,
        /// What its state would have been.
        from: NodeState,
        /// What it would be.
        to: NodeState,
    },
    /// So many further nodes have changed at the same time.
    Further(usize),
}

/// The changes of one zone, and what they led to. Pure: time is an argument.
#[derive(Debug)]
pub(super) struct History {
    zone: ZoneState,
    /// In the order of the addresses. Its size is that of the list, because there may be ten thousand zones.
    nodes: Box<[Seen]>,
    changes: VecDeque<Change>,
}

/// What is known of a listed node.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    node: IpAddr,
    state: NodeState,
    /// The state that it would have if it were not drained.
    undrained: NodeState,
    /// Why it is not up.
    reason: Option<Box<str>>,
}

impl History {
    /// Nothing has happened yet.
    pub(super) fn new(zone: ZoneState) -> Self {
        Self { zone, nodes: Box::new([]), changes: VecDeque::new() }
    }

    /// Keeps what differs from the last observation. `source` is the node whose list is in force.
    pub(super) fn observe(&mut self, seen: &ZoneDescription, source: Option<IpAddr>, now: SystemTime) {
        let mut nodes = 0;
        let mut found = Vec::new();
        let mut add = |kind: ChangeKind, reason: Option<Box<str>>| {
            nodes += 1;
            if nodes <= NODES_MAX {
                found.push(Change { at: now, kind, reason });
            }
        };
        let next: Box<[Seen]> = seen.nodes.iter().map(Seen::of).collect();
        for Seen { node, state, undrained, reason } in &next {
            let (node, to) = (*node, *state);
            let kind = match find(&self.nodes, node) {
                None => ChangeKind::Joined { node, state: to },
                Some(Seen { state: from, .. }) if *from != to => ChangeKind::Node { node, from: *from, to },
                Some(Seen { undrained: from, .. }) if to == NodeState::Drained && from != undrained => {
                    ChangeKind::Drained { node, from: *from, to: *undrained }
                }
                Some(_) => continue,
            };
            add(kind, reason.clone());
        }
        for was in self.nodes.iter().filter(|was| find(&next, was.node).is_none()) {
            add(ChangeKind::Left { node: was.node, state: was.state }, Some(was.left(source)));
        }
        self.nodes = next;
        if nodes > NODES_MAX {
            found.push(Change { at: now, kind: ChangeKind::Further(nodes - NODES_MAX), reason: None });
        }
        if seen.state != self.zone {
            let kind = ChangeKind::Zone { from: self.zone, to: seen.state };
            found.push(Change { at: now, kind, reason: seen.reason.as_deref().map(cut) });
            self.zone = seen.state;
        }
        self.changes.extend(found);
        let surplus = self.changes.len().saturating_sub(CHANGES_MAX);
        self.changes.drain(..surplus);
    }

    /// The changes, the oldest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.changes.iter().cloned().collect()
    }
}

impl Seen {
    fn of(node: &NodeDescription) -> Self {
        let NodeDescription { address, state, undrained, reason, .. } = node;
        Self { node: *address, state: *state, undrained: *undrained, reason: reason.as_deref().map(cut) }
    }

    /// Why it has left: the end of a sentence that starts with the node.
    fn left(&self, source: Option<IpAddr>) -> Box<str> {
        let list = match source {
            Some(source) => format!("is not in the list of {source}"),
            None => "is not in the list in force".to_owned(),
        };
        match &self.reason {
            Some(reason) => cut(&format!("{list}; before, it was {}: {reason}", self.state.word())),
            None => list.into(),
        }
    }
}

fn find(nodes: &[Seen], node: IpAddr) -> Option<&Seen> {
    nodes.get(nodes.binary_search_by_key(&node, |seen| seen.node).ok()?)
}

fn cut(text: &str) -> Box<str> {
    match text.char_indices().nth(REASON_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, time::UNIX_EPOCH};

    use proptest::{
        collection::{btree_set, vec},
        prelude::*,
    };

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn node(last: u8, state: NodeState, reason: Option<&str>) -> NodeDescription {
        NodeDescription {
            address: ip(last),
            state,
            undrained: state,
            answered: state == NodeState::Up,
            answered_as: None,
            reason: reason.map(str::to_owned),
            since: UNIX_EPOCH,
            last_probe: None,
        }
    }

    fn zone(state: ZoneState, nodes: Vec<NodeDescription>) -> ZoneDescription {
        ZoneDescription { state, reason: None, since: UNIX_EPOCH, answers: Vec::new(), nodes }
    }

    fn kinds(history: &History) -> Vec<ChangeKind> {
        history.changes().into_iter().map(|change| change.kind).collect()
    }

    #[test]
    fn nodes_join_change_and_leave_with_their_reasons() {
        let mut history = History::new(ZoneState::Waiting);
        let up = |last| node(last, NodeState::Up, None);
        let see = |history: &mut History, state, nodes| history.observe(&zone(state, nodes), Some(ip(1)), UNIX_EPOCH);
        see(&mut history, ZoneState::Live, vec![up(1), up(2)]);
        see(&mut history, ZoneState::Live, vec![up(1), up(2)]);
        see(&mut history, ZoneState::Live, vec![up(1), node(2, NodeState::Down, Some("timed out"))]);
        see(&mut history, ZoneState::Live, vec![up(1)]);
        let expected = [
            ChangeKind::Joined { node: ip(1), state: NodeState::Up },
            ChangeKind::Joined { node: ip(2), state: NodeState::Up },
            ChangeKind::Zone { from: ZoneState::Waiting, to: ZoneState::Live },
            ChangeKind::Node { node: ip(2), from: NodeState::Up, to: NodeState::Down },
            ChangeKind::Left { node: ip(2), state: NodeState::Down },
        ];
        assert_eq!(kinds(&history), expected);
        let reasons: Vec<_> = history.changes().into_iter().filter_map(|change| change.reason).collect();
        assert_eq!(
            reasons,
            ["timed out".into(), Box::from("is not in the list of 10.0.0.1; before, it was down: timed out")]
        );
    }

    #[test]
    fn a_drained_node_that_goes_down_is_a_change() {
        let mut history = History::new(ZoneState::Live);
        let drained = |undrained| NodeDescription { undrained, ..node(1, NodeState::Drained, Some("is drained")) };
        for undrained in [NodeState::Up, NodeState::Up, NodeState::Down, NodeState::Up] {
            history.observe(&zone(ZoneState::Live, vec![drained(undrained)]), None, UNIX_EPOCH);
        }
        let expected = [
            ChangeKind::Joined { node: ip(1), state: NodeState::Drained },
            ChangeKind::Drained { node: ip(1), from: NodeState::Up, to: NodeState::Down },
            ChangeKind::Drained { node: ip(1), from: NodeState::Down, to: NodeState::Up },
        ];
        assert_eq!(kinds(&history), expected);
    }

    #[test]
    fn a_wrong_list_of_thousands_keeps_what_came_before() {
        let mut history = History::new(ZoneState::Live);
        let many = (0..200).map(|last| node(last, NodeState::New, Some(&"x".repeat(1000)))).collect();
        history.observe(&zone(ZoneState::Contested, vec![node(201, NodeState::Up, None)]), None, UNIX_EPOCH);
        history.observe(&zone(ZoneState::Contested, many), None, UNIX_EPOCH);
        let kinds = kinds(&history);
        assert_eq!(kinds.len(), 2 + NODES_MAX + 1);
        assert_eq!(kinds[0], ChangeKind::Joined { node: ip(201), state: NodeState::Up });
        assert_eq!(kinds.last(), Some(&ChangeKind::Further(201 - NODES_MAX)));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded(seen in vec(btree_set(0u8..40, 0..40), 0..40)) {
            let mut history = History::new(ZoneState::Live);
            for addresses in seen {
                let nodes = addresses.into_iter().map(|last| node(last, NodeState::Down, Some(&"é".repeat(500))));
                history.observe(&zone(ZoneState::Live, nodes.collect()), None, UNIX_EPOCH);
                prop_assert!(history.changes().len() <= CHANGES_MAX);
            }
            let longest = history.changes().iter().filter_map(|change| Some(change.reason.as_ref()?.chars().count())).max();
            prop_assert!(longest.is_none_or(|longest| longest <= REASON_CHARACTERS_MAX + 1));
        }
    }
}

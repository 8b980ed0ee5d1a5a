//! Logs what changed in a zone: one line for each change, and one again from time to time while a state lasts that an
//! operator should know of.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use humantime_serde::re::humantime::format_rfc3339_seconds;

use tracing::{info, warn};

use super::{
    clock::now,
    membership::{Contest, ForeignReason, Notice},
};
use crate::{
    table::{Answers, Node, ZoneDescription, ZoneEntry},
    telemetry::LogInterval,
    types::{NodeSet, NodeState, ZoneName, ZoneState, printable},
};

/// Nodes that one change logs one by one; of further nodes only the number is logged. Few clusters are so large, and a
/// wrong list must not fill the log.
const NODES_LOGGED_MAX: usize = 100;

/// A state that lasts is logged again so often: seldom enough for a quiet log, often enough for a person who opens it.
const REPEAT: Duration = Duration::from_secs(600);

/// Between two lines about nodes that were not asked, for all zones together: a shortage of ours concerns every node, and
/// an operator is to learn of it, not of each request.
const NOT_ASKED_REPEAT: Duration = Duration::from_secs(60);

/// Limits the lines about nodes that were not asked, for want of something of ours. Clones share the limit.
#[derive(Clone, Debug)]
pub struct NotAskedLog(Arc<Mutex<LogInterval>>);

impl Default for NotAskedLog {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LogInterval::new(NOT_ASKED_REPEAT))))
    }
}

impl NotAskedLog {
    /// Logs why a node was not asked, unless there was such a line a short time ago.
    pub fn log(&self, zone: &ZoneName, node: IpAddr, why: &dyn fmt::Display) {
        if self.is_due(now()) {
            warn!(%zone, %node, "the node {why}; nodes that are not asked keep their states");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_due(now)
    }
}

/// What is seen of a zone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Observation {
    /// Its state.
    pub state: ZoneState,
    /// The scope that is answered.
    pub scope: usize,
    /// It is still waiting, and its last poll failed.
    pub has_failed: bool,
    /// Drained nodes are answered, because no other node is up.
    pub answers_drained: bool,
}

impl Observation {
    /// Whether an operator should know of it.
    fn is_trouble(self) -> bool {
        match self.state {
            ZoneState::Live => false,
            ZoneState::Waiting => self.has_failed,
            ZoneState::Degraded | ZoneState::Contested | ZoneState::Stale | ZoneState::Unanswered => true,
        }
    }
}

/// A line about a zone's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StateLine {
    /// The state has changed, to one that an operator should know of.
    Trouble { from: ZoneState },
    /// The state has changed, and is none of those.
    Recovered { from: ZoneState },
    /// The state still lasts.
    Lasts,
}

/// Which lines about a zone's state are due. Pure: time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct StateLog {
    logged: Observation,
    repeat: LogInterval,
}

impl StateLog {
    /// As if this state and scope had just been logged.
    pub fn new(state: ZoneState, scope: usize, now: Instant) -> Self {
        let mut repeat = LogInterval::new(REPEAT);
        repeat.restart(now);
        Self { logged: Observation { state, scope, has_failed: false, answers_drained: false }, repeat }
    }

    /// The line that is due.
    pub fn observe(&mut self, seen: Observation, now: Instant) -> Option<StateLine> {
        let from = self.logged.state;
        let details = |seen: Observation| (seen.scope, seen.has_failed, seen.answers_drained);
        let has_changed = from != seen.state || (seen.is_trouble() && details(seen) != details(self.logged));
        if has_changed {
            self.repeat.restart(now);
        } else if !(seen.is_trouble() && self.repeat.is_due(now)) {
            return None;
        }
        self.logged = seen;
        Some(match has_changed {
            true if seen.is_trouble() => StateLine::Trouble { from },
            true => StateLine::Recovered { from },
            false => StateLine::Lasts,
        })
    }
}

/// Logs a zone's state.
pub fn log_state(entry: &ZoneEntry, line: StateLine) {
    let zone = entry.name();
    let ZoneDescription { state, reason, since, .. } = entry.describe();
    let to = state.word();
    let why = reason.unwrap_or_default();
    let what = if zone.is_view() { "view" } else { "zone" };
    match line {
        StateLine::Trouble { from } if from == state && state == ZoneState::Waiting => {
            let instead = if zone.is_view() {
                "its clients get the zone's addresses"
            } else {
                "the zone is answered with its seeds"
            };
            warn!(%zone, why, "the first poll has failed; {instead}");
        }
        StateLine::Trouble { from } => warn!(%zone, from = from.word(), to, why, "{what} state changed"),
        StateLine::Recovered { from } => info!(%zone, from = from.word(), to, "{what} state changed"),
        StateLine::Lasts => {
            warn!(%zone, why, since = %format_rfc3339_seconds(printable(since)), "the {what} is still {to}");
        }
    }
}

/// Which nodes the log has as those of a zone. Pure.
///
/// A node joins when it is answered and up, and leaves when it is answered no more. One that is answered although it is not
/// up, because no node is up or too few are, neither joins nor leaves by that. Nor does one that is drained, which is logged as
/// such.
#[derive(Clone, Debug, Default)]
pub struct NodeLog(Option<NodeSet>);

impl NodeLog {
    /// As if the nodes that are answered and were ever up had been logged.
    pub fn new(answers: &Answers) -> Self {
        Self(NodeSet::new(answered(answers).filter(|node| node.ever_up).map(|node| node.address)))
    }

    /// The nodes that have joined, and those that have left.
    pub fn observe(&mut self, answers: &Answers) -> (Vec<IpAddr>, Vec<IpAddr>) {
        let is_logged = |node: &IpAddr| self.0.as_ref().is_some_and(|logged| logged.contains(node));
        let stays = |node: &&Node| node.state == NodeState::Up || is_logged(&node.address);
        let is_drained = |node: &&Node| answers.node_state(node) == NodeState::Drained && is_logged(&node.address);
        let drained = answers.nodes().iter().filter(is_drained);
        let next = NodeSet::new(answered(answers).filter(stays).chain(drained).map(|node| node.address));
        let (old, new) = (slice(self.0.as_ref()), slice(next.as_ref()));
        let joined = new.iter().copied().filter(|node| old.binary_search(node).is_err()).collect();
        let left = old.iter().copied().filter(|node| new.binary_search(node).is_err()).collect();
        self.0 = next;
        (joined, left)
    }
}

/// The listed nodes that are answered. Seeds are no nodes yet.
fn answered(answers: &Answers) -> impl Iterator<Item = &Node> {
    let addresses = answers.answered.as_ref();
    answers.nodes().iter().filter(move |node| addresses.is_some_and(|answered| answered.contains(&node.address)))
}

fn slice(set: Option<&NodeSet>) -> &[IpAddr] {
    set.map(NodeSet::as_slice).unwrap_or_default()
}

/// Logs which nodes have joined and left.
pub fn log_nodes(zone: &ZoneName, joined: &[IpAddr], left: &[IpAddr], after: &Answers) {
    for node in joined.iter().take(NODES_LOGGED_MAX) {
        info!(%zone, %node, "node joined");
    }
    for node in left.iter().take(NODES_LOGGED_MAX) {
        let now = state_of(*node, after);
        info!(%zone, %node, now, "node left");
    }
    let joined = joined.len().saturating_sub(NODES_LOGGED_MAX);
    let left = left.len().saturating_sub(NODES_LOGGED_MAX);
    if joined + left > 0 {
        info!(%zone, joined, left, "further nodes joined or left");
    }
}

/// Logs what is remarkable.
pub fn log_notice(zone: &ZoneName, notice: &Notice) {
    const REMEDY: &str = "edit seeds, or set cluster_id";
    match notice {
        Notice::Foreign(node, reason @ ForeignReason::Datacenter(_)) => {
            warn!(%zone, %node, "node of another datacenter: {reason}");
        }
        Notice::Foreign(node, reason) => warn!(%zone, %node, "node of another cluster: {reason}"),
        Notice::Returned(node) => info!(%zone, %node, "node is of the zone's cluster again"),
        Notice::Contested(Contest::SeedsDisagree) => {
            warn!(
                %zone,
                "seeds disagree: they do not list each other, so they are of several clusters, or of several datacenters \
                 and the zone has no scope; edit seeds, or set scope or cluster_id"
            );
        }
        Notice::Contested(Contest::NoneEligible) => {
            warn!(%zone, "it is not known which of the nodes that answer are of the zone's cluster; {REMEDY}");
        }
        Notice::Agreed => info!(%zone, "the zone's cluster is known again"),
        Notice::Moved => info!(%zone, "no seed is of the zone's cluster: the name moves to the seeds' cluster"),
    }
}

/// The state of a node that is no longer answered.
fn state_of(node: IpAddr, answers: &Answers) -> &'static str {
    let known = answers.nodes().iter().find(|known| known.address == node);
    known.map_or("unlisted", |known| answers.node_state(known).word())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        net::Ipv4Addr,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::SystemTime,
    };

    use super::*;
    use crate::table::{Drain, Drains, Knowledge, Known, ZoneSettings};

    /// Counts the lines.
    #[derive(Clone, Default)]
    struct LineCount(Arc<AtomicUsize>);

    impl Write for LineCount {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(octets.iter().filter(|octet| **octet == b'\n').count(), Relaxed);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(state: ZoneState) -> Observation {
        Observation { state, scope: 0, has_failed: false, answers_drained: false }
    }

    #[test]
    fn each_way_into_trouble_and_out_of_it_is_one_line() {
        let now = Instant::now();
        let mut log = StateLog::new(ZoneState::Waiting, 0, now);
        assert_eq!(log.observe(seen(ZoneState::Waiting), now), None);
        assert_eq!(log.observe(seen(ZoneState::Live), now), Some(StateLine::Recovered { from: ZoneState::Waiting }));
        let mut before = ZoneState::Live;
        for state in [ZoneState::Degraded, ZoneState::Contested, ZoneState::Stale, ZoneState::Unanswered] {
            assert_eq!(log.observe(seen(state), now), Some(StateLine::Trouble { from: before }), "{state:?}");
            assert_eq!(log.observe(seen(state), now + SECOND), None, "{state:?}");
            before = state;
        }
        assert_eq!(log.observe(seen(ZoneState::Live), now), Some(StateLine::Recovered { from: before }));
        assert_eq!(log.observe(seen(ZoneState::Live), now + 2 * REPEAT), None, "a live zone is not worth a line");
    }

    #[test]
    fn trouble_that_lasts_is_logged_every_ten_minutes() {
        let start = Instant::now();
        let mut log = StateLog::new(ZoneState::Live, 0, start);
        let lines: Vec<_> = (0..3600).filter_map(|s| log.observe(seen(ZoneState::Stale), start + SECOND * s)).collect();
        let mut expected = vec![StateLine::Lasts; 6];
        expected[0] = StateLine::Trouble { from: ZoneState::Live };
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_first_poll_that_fails_and_a_fallback_scope_are_trouble() {
        let now = Instant::now();
        let mut log = StateLog::new(ZoneState::Waiting, 0, now);
        let failed = Observation { has_failed: true, ..seen(ZoneState::Waiting) };
        assert_eq!(log.observe(failed, now), Some(StateLine::Trouble { from: ZoneState::Waiting }));
        assert_eq!(log.observe(failed, now + REPEAT), Some(StateLine::Lasts));
        let fallback = |scope| Observation { scope, ..seen(ZoneState::Degraded) };
        assert_eq!(log.observe(fallback(1), now), Some(StateLine::Trouble { from: ZoneState::Waiting }));
        assert_eq!(log.observe(fallback(1), now), None);
        assert_eq!(log.observe(fallback(2), now), Some(StateLine::Trouble { from: ZoneState::Degraded }));
        let drained = Observation { answers_drained: true, ..fallback(2) };
        assert_eq!(log.observe(drained, now), Some(StateLine::Trouble { from: ZoneState::Degraded }));
        assert_eq!(log.observe(drained, now), None);
    }

    #[test]
    fn nodes_that_are_not_asked_cause_a_line_a_minute() {
        let log = NotAskedLog::default();
        let start = Instant::now();
        let lines = (0..600).filter(|&s| log.clone().is_due(start + SECOND * s)).count();
        assert_eq!(lines, 10);
    }

    fn answers(nodes: &[Node]) -> Answers {
        let known = Known { nodes: nodes.into(), state: ZoneState::Live, expired: false };
        Answers::new(ZoneSettings::example(), Knowledge::Known(known), 1)
    }

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[test]
    fn a_node_that_is_answered_as_a_guess_has_not_joined() {
        let up = Node::up(address(1));
        let guess = answers(&[Node { state: NodeState::Down, ever_up: false, ..up }]);
        assert!(guess.answered.is_some(), "no node is up, so each listed one is answered");
        let mut log = NodeLog::new(&guess);
        assert_eq!(log.observe(&guess), (vec![], vec![]));
        assert_eq!(log.observe(&answers(&[up])), (vec![up.address], vec![]));
        let waiting = Answers::new(ZoneSettings::example(), Knowledge::Waiting(NodeSet::new([up.address])), 1);
        assert!(waiting.answered.is_some());
        assert_eq!(NodeLog::new(&waiting).observe(&waiting), (vec![], vec![]), "a seed is no node yet");
    }

    #[test]
    fn when_no_node_is_up_the_nodes_that_are_answered_again_have_not_joined() {
        let up = [Node::up(address(1)), Node::up(address(2))];
        let down = up.map(|node| Node { state: NodeState::Down, ..node });
        let mut log = NodeLog::new(&answers(&up));
        assert_eq!(log.observe(&answers(&[up[0], down[1]])), (vec![], vec![address(2)]));
        let open = answers(&down);
        assert!(open.answered.as_ref().is_some_and(|answered| answered.contains(&address(2))));
        assert_eq!(log.observe(&open), (vec![], vec![]), "the first stays, and the second is a guess");
        let pending = Node { pending: true, ..down[1] };
        assert_eq!(log.observe(&answers(&[up[0], pending])), (vec![], vec![]));
        assert_eq!(log.observe(&answers(&[up[0], down[1]])), (vec![], vec![]), "it had not joined");
        assert_eq!(log.observe(&answers(&up)), (vec![address(2)], vec![]));
        assert_eq!(log.observe(&answers(&up[1..])), (vec![], vec![address(1)]));
    }

    #[test]
    fn a_drained_node_has_not_left() {
        let nodes = [Node::up(address(1)), Node::up(address(2))];
        let mut drains = Drains::default();
        drains.add(Drain { node: address(1), zone: None, until: SystemTime::UNIX_EPOCH }).unwrap();
        let mut log = NodeLog::new(&answers(&nodes[..1]));
        let drained = answers(&nodes).with_drains(drains.everywhere(), 1);
        assert_eq!(log.observe(&drained), (vec![address(2)], vec![]));
        assert_eq!(log.observe(&answers(&nodes)), (vec![], vec![]));
        let unlisted = answers(&nodes[1..]).with_drains(drains.everywhere(), 1);
        assert_eq!(log.observe(&unlisted), (vec![], vec![address(1)]));
        drains.add(Drain { node: address(2), zone: None, until: SystemTime::UNIX_EPOCH }).unwrap();
        let mut log = NodeLog::new(&answers(&[]));
        let drained = answers(&nodes).with_drains(drains.everywhere(), 1);
        assert_eq!(log.observe(&drained), (vec![address(1), address(2)], vec![]), "they are answered all the same");
    }

    #[test]
    fn a_list_of_thousands_neither_fills_the_log_nor_takes_long() {
        crate::telemetry::keep_every_line();
        let lines = LineCount::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let zone = ZoneName::parse("a.example").unwrap();
        let list = |first: u32| {
            let nodes = NodeSet::new((first..first + 50_000).map(|bits| Ipv4Addr::from_bits(bits).into())).unwrap();
            Answers::new(ZoneSettings::example(), Knowledge::up(&nodes, ZoneState::Live), 1)
        };
        let mut nodes = NodeLog::new(&list(0x0a00_0000));
        let after = list(0x0b00_0000);
        let start = Instant::now();
        let (joined, left) = nodes.observe(&after);
        tracing::subscriber::with_default(log, || log_nodes(&zone, &joined, &left, &after));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(lines.0.load(Relaxed), 2 * NODES_LOGGED_MAX + 1);
    }
}

//! Logs what changed in a zone: one line for each change, and one again from time to time while a state lasts that an
//! operator should know of.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use humantime_serde::re::humantime::format_rfc3339_seconds;

use tracing::{info, warn};

use super::{
    clock::now,
    membership::{Contest, Notice},
};
use crate::{
    table::{Answers, Knowledge, ZoneDescription, ZoneEntry},
    types::{ZoneName, ZoneState, printable},
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
#[derive(Clone, Debug, Default)]
pub struct NotAskedLog(Arc<Mutex<Option<Instant>>>);

impl NotAskedLog {
    /// Logs why a node was not asked, unless there was such a line a short time ago.
    pub fn log(&self, zone: &ZoneName, node: IpAddr, why: &dyn fmt::Display) {
        if self.is_due(now()) {
            warn!(%zone, %node, "the node {why}; nodes that are not asked keep their states");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= NOT_ASKED_REPEAT);
        if is_due {
            *last = Some(now);
        }
        is_due
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
    at: Instant,
}

impl StateLog {
    /// As if this state and scope had just been logged.
    pub fn new(state: ZoneState, scope: usize, now: Instant) -> Self {
        Self { logged: Observation { state, scope, has_failed: false }, at: now }
    }

    /// The line that is due.
    pub fn observe(&mut self, seen: Observation, now: Instant) -> Option<StateLine> {
        let from = self.logged.state;
        let has_changed = from != seen.state
            || (seen.is_trouble() && (seen.scope, seen.has_failed) != (self.logged.scope, self.logged.has_failed));
        let is_due = has_changed || (seen.is_trouble() && now.saturating_duration_since(self.at) >= REPEAT);
        if !is_due {
            return None;
        }
        (self.logged, self.at) = (seen, now);
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
    match line {
        StateLine::Trouble { from } if from == state && state == ZoneState::Waiting => {
            warn!(%zone, why, "the first poll has failed; the zone is answered with its seeds");
        }
        StateLine::Trouble { from } => warn!(%zone, from = from.word(), to, why, "zone state changed"),
        StateLine::Recovered { from } => info!(%zone, from = from.word(), to, "zone state changed"),
        StateLine::Lasts => {
            warn!(%zone, why, since = %format_rfc3339_seconds(printable(since)), "the zone is still {to}");
        }
    }
}

/// Logs which nodes joined and left.
pub fn log_nodes(zone: &ZoneName, before: &Answers, after: &Answers) {
    let old = nodes(before);
    let new = nodes(after);
    let mut joined = new.difference(&old);
    for node in joined.by_ref().take(NODES_LOGGED_MAX) {
        info!(%zone, %node, "node joined");
    }
    let mut left = old.difference(&new);
    for node in left.by_ref().take(NODES_LOGGED_MAX) {
        let now = state_of(*node, after);
        info!(%zone, %node, now, "node left");
    }
    let joined = joined.count();
    let left = left.count();
    if joined + left > 0 {
        info!(%zone, joined, left, "further nodes joined or left");
    }
}

/// Logs what is remarkable.
pub fn log_notice(zone: &ZoneName, notice: &Notice) {
    const REMEDY: &str = "edit seeds, or set cluster_id";
    match notice {
        Notice::Foreign(node, reason) => warn!(%zone, %node, "node of another cluster: {reason}"),
        Notice::Returned(node) => info!(%zone, %node, "node is of the zone's cluster again"),
        Notice::Contested(Contest::SeedsDisagree) => {
            warn!(%zone, "seeds disagree: they are of several clusters; {REMEDY}");
        }
        Notice::Contested(Contest::NoneEligible) => {
            warn!(%zone, "it is not known which of the nodes that answer are of the zone's cluster; {REMEDY}");
        }
        Notice::Agreed => info!(%zone, "the zone's cluster is known again"),
        Notice::Moved => info!(%zone, "no seed is of the zone's cluster: the name moves to the seeds' cluster"),
    }
}

/// The nodes that are answered and were up at least once. Seeds are no nodes yet, and a node that is answered only because
/// none is known to be up has not joined.
fn nodes(answers: &Answers) -> BTreeSet<IpAddr> {
    let Some(answered) = &answers.answered else { return BTreeSet::new() };
    let nodes = answers.nodes().iter().filter(|node| node.ever_up && answered.contains(&node.address));
    nodes.map(|node| node.address).collect()
}

/// The state of a node that is no longer answered.
fn state_of(node: IpAddr, answers: &Answers) -> &'static str {
    let Knowledge::Known(known) = &answers.knowledge else { return "unlisted" };
    known.nodes.iter().find(|known| known.address == node).map_or("unlisted", |known| known.state.word())
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
    };

    use super::*;
    use crate::{
        table::{Known, Node, ZoneSettings},
        types::{NodeSet, NodeState},
    };

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
        Observation { state, scope: 0, has_failed: false }
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
    }

    #[test]
    fn nodes_that_are_not_asked_cause_a_line_a_minute() {
        let log = NotAskedLog::default();
        let start = Instant::now();
        let lines = (0..600).filter(|&s| log.clone().is_due(start + SECOND * s)).count();
        assert_eq!(lines, 10);
    }

    #[test]
    fn a_node_that_is_answered_as_a_guess_has_not_joined() {
        let answers = |nodes: &[Node]| {
            let known = Known { nodes: nodes.into(), state: ZoneState::Live, expired: false };
            Answers::new(ZoneSettings::example(), Knowledge::Known(known), 1)
        };
        let up = Node::up(Ipv4Addr::new(10, 0, 0, 1).into());
        let guess = answers(&[Node { state: NodeState::Down, ever_up: false, ..up }]);
        assert!(guess.answered.is_some(), "no node is up, so each listed one is answered");
        assert_eq!(nodes(&guess), BTreeSet::new());
        assert_eq!(nodes(&answers(&[up])), BTreeSet::from([up.address]));
        let waiting = Answers::new(ZoneSettings::example(), Knowledge::Waiting(NodeSet::new([up.address])), 1);
        assert!(waiting.answered.is_some());
        assert_eq!(nodes(&waiting), BTreeSet::new(), "a seed is no node yet");
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
        let before = list(0x0a00_0000);
        let after = list(0x0b00_0000);
        let start = Instant::now();
        tracing::subscriber::with_default(log, || log_nodes(&zone, &before, &after));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(lines.0.load(Relaxed), 2 * NODES_LOGGED_MAX + 1);
    }
}

//! Logs what changed in a zone: one line for each change.

use std::{collections::BTreeSet, net::IpAddr};

use tracing::{info, warn};

use super::membership::{Contest, Notice};
use crate::{
    table::{Answers, Knowledge},
    types::ZoneName,
};

/// Nodes that one change logs one by one; of further nodes only the number is logged. Few clusters are so large, and a
/// wrong list must not fill the log.
const NODES_LOGGED_MAX: usize = 100;

/// Logs which nodes joined and left, and the change of state. `why` is the last error, if there is one.
pub fn log_changes(zone: &ZoneName, before: &Answers, after: &Answers, why: Option<&str>) {
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
    let from = before.state().word();
    let to = after.state().word();
    match why {
        _ if from == to => {}
        Some(why) => warn!(%zone, from, to, why, "zone state changed"),
        None => info!(%zone, from, to, "zone state changed"),
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

/// The nodes that are answered; seeds are no nodes yet.
fn nodes(answers: &Answers) -> BTreeSet<IpAddr> {
    match (&answers.knowledge, &answers.answered) {
        (Knowledge::Known(_), Some(answered)) => answered.as_slice().iter().copied().collect(),
        _ => BTreeSet::new(),
    }
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
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{
        table::ZoneSettings,
        types::{NodeSet, ZoneState},
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
        tracing::subscriber::with_default(log, || log_changes(&zone, &before, &after, None));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(lines.0.load(Relaxed), 2 * NODES_LOGGED_MAX + 1);
    }
}

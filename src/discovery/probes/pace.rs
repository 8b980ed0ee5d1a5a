//! How often nodes are probed: pure functions.

use std::time::Duration;

/// Probes of one zone in a second, on average. A large cluster is probed at longer intervals: each node costs the
/// network and us the same, and no zone needs the outcomes of five hundred nodes within a second.
pub const ZONE_PROBES_PER_SECOND: u32 = 100;

/// Up to this many new nodes of a zone are probed at once: an ordinary cluster is verified within milliseconds.
const NEW_NODES_AT_ONCE: usize = 10;

/// Each further new node spreads the first probes by this much, up to a quarter of the interval.
pub(super) const FIRST_PROBE_SPREAD: Duration = Duration::from_millis(10);

/// The interval at which each node of a zone is probed: longer for a large zone, which keeps to [`ZONE_PROBES_PER_SECOND`].
pub(super) fn stretched(interval: Duration, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    interval.max(Duration::from_secs(1) * nodes / ZONE_PROBES_PER_SECOND)
}

/// The time over which the first probes of new nodes are spread.
pub(super) fn first_probe_spread(interval: Duration, new_nodes: usize) -> Duration {
    let more = u32::try_from(new_nodes.saturating_sub(NEW_NODES_AT_ONCE)).unwrap_or(u32::MAX);
    FIRST_PROBE_SPREAD.saturating_mul(more).min(interval / 4)
}

//! How often nodes are probed: pure functions.

use std::time::Duration;

/// Probes of one zone in a second, on average. A large cluster is probed at longer intervals: each node costs the
/// network and us the same, and no zone needs the outcomes of five hundred nodes within a second.
pub const ZONE_PROBES_PER_SECOND: u32 = 100;

/// A zone's newcomers up to so many are probed at once; an ordinary cluster is verified within milliseconds.
const NEWCOMERS_AT_ONCE: usize = 10;

/// First probes of more newcomers are spread over so much for each, at most over a quarter of the interval.
pub(super) const NEWCOMER_SPREAD: Duration = Duration::from_millis(10);

/// The interval at which one zone's nodes are probed, so that all of them together are not probed too often.
pub(super) fn stretched(interval: Duration, nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    interval.max(Duration::from_secs(1) * nodes / ZONE_PROBES_PER_SECOND)
}

/// Over how long the first probes of so many newcomers are spread.
pub(super) fn newcomer_spread(interval: Duration, newcomers: usize) -> Duration {
    let more = u32::try_from(newcomers.saturating_sub(NEWCOMERS_AT_ONCE)).unwrap_or(u32::MAX);
    NEWCOMER_SPREAD.saturating_mul(more).min(interval / 4)
}

//! Time: how long to wait, and what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses differ by so much in either direction, so that zones and replicas do not poll at the same moments.
const JITTER: f64 = 0.1;

/// A period, give or take a tenth. `chance` is at least 0 and below 1.
pub fn pause(period: Duration, chance: f64) -> Duration {
    period.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

/// The time, as the table keeps it.
pub fn now() -> std::time::Instant {
    Instant::now().into_std()
}

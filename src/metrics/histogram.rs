//! A histogram of durations.

use std::time::Duration;

use super::Counter;

/// Upper bounds of the histogram's buckets, in seconds: from the cost of a local step to what a person notices.
pub const DURATION_BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.1, 1.0, 10.0];

/// Durations, sorted into [`DURATION_BUCKETS`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; DURATION_BUCKETS.len() + 1],
    sum_nanoseconds: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BUCKETS.iter().position(|&bound| seconds <= bound);
        self.buckets[bucket.unwrap_or(DURATION_BUCKETS.len())].increment();
        self.sum_nanoseconds.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The sum in seconds, and how many fell into each bucket (not cumulative; the last is unbounded).
    pub fn snapshot(&self) -> (f64, [u64; DURATION_BUCKETS.len() + 1]) {
        let counts = std::array::from_fn(|bucket| self.buckets[bucket].value());
        (Duration::from_nanos(self.sum_nanoseconds.value()).as_secs_f64(), counts)
    }
}

//! Time: how long to wait, and what time it is.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

/// Pauses differ by so much in either direction, so that zones and replicas do not poll at the same moments.
const JITTER: f64 = 0.1;

/// Between looks at the clocks.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// A process that was held up for longer (stopped, or with its machine suspended) knows of no node whether it is still
/// what it was: gossip may have removed it meanwhile, and its address may be another cluster's.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often the process was held up. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<AtomicU64>);

impl Pauses {
    /// How often so far.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Counts for as long as it runs. It compares both clocks: the monotonic one stands still while a machine sleeps.
    pub async fn watch(&self) -> Infallible {
        loop {
            let started = Instant::now();
            let wall = SystemTime::now();
            sleep(CLOCK_CHECK).await;
            let passed = wall.elapsed().unwrap_or_default().max(started.elapsed());
            if passed > CLOCK_CHECK + PAUSE_MAX {
                tracing::warn!(
                    seconds = passed.as_secs(),
                    "the process was held up, or the clock was set forward: every node is verified anew"
                );
                self.0.fetch_add(1, Relaxed);
            }
        }
    }
}

/// A period, give or take a tenth. `chance` is at least 0 and below 1.
pub fn pause(period: Duration, chance: f64) -> Duration {
    period.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

/// The time, as the table keeps it.
pub fn now() -> std::time::Instant {
    Instant::now().into_std()
}

//! Waiting on conditions.

use std::time::{Duration, Instant};

/// How long anything may take that has no bound of its own: generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// See [`seldom`].
const SELDOM: Duration = Duration::from_millis(500);

/// What [`seldom`] waits for takes an unoptimized server half a minute of CPU; other tests run beside it.
const LONG_PATIENCE: Duration = Duration::from_secs(180);

/// Waits until a look finds something; panics with `what` when it does not in time.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// The same with a bound that the test is about.
#[track_caller]
pub fn within<T>(bound: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    looking(LOOK, bound, what, look)
}

/// The same where a look costs the server so much that it must not be asked all the time.
#[track_caller]
pub fn seldom<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    looking(SELDOM, LONG_PATIENCE, what, look)
}

#[track_caller]
fn looking<T>(pause: Duration, bound: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "not within {bound:?}: {what}");
        std::thread::sleep(pause);
    }
}

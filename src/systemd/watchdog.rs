//! The watchdog of systemd: it ends a process that no longer reports that it works (`WatchdogSec=`).
//!
//! Each thread that must not stand still has a [`Beat`]. A thread of its own looks at all of them and reports to systemd only
//! while each one beats. It looks for a deadlock, not for lateness: a busy thread beats too.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

/// How often a thread that waits for something else beats.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Looks in the time after which systemd ends the process; with `WatchdogSec=60s` one each second and a half.
const LOOKS: u32 = 40;

/// The longest time that one look adds to a silence. When more has passed, the whole process was held up (stopped, or
/// without a core), which says nothing about one thread.
const LOOK_MAX: u32 = 2;

/// A thread's sign that it goes on. It counts as alive until this is dropped, or it beats no more.
#[derive(Debug)]
pub struct Beat(Arc<Counter>);

/// In a cache line of its own: each worker writes to it for each batch.
#[derive(Debug)]
#[repr(align(64))]
struct Counter {
    name: String,
    beats: AtomicU64,
}

impl Beat {
    /// The thread goes on.
    pub fn beat(&self) {
        // No other thread writes.
        self.0.beats.store(self.0.beats.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// The threads that must beat. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<Mutex<Vec<Weak<Counter>>>>);

impl Beats {
    /// A thread or task that beats from now on, at least every [`BEAT_INTERVAL`].
    pub fn register(&self, name: impl Into<String>) -> Beat {
        let counter = Arc::new(Counter { name: name.into(), beats: AtomicU64::new(0) });
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.retain(|counter| counter.strong_count() > 0);
        counters.push(Arc::downgrade(&counter));
        Beat(counter)
    }

    /// Beats for the runtime that this runs on, until it is dropped.
    pub async fn beat_on(self, name: &'static str) {
        let beat = self.register(name);
        loop {
            beat.beat();
            tokio::time::sleep(BEAT_INTERVAL).await;
        }
    }

    /// Starts the thread that reports to systemd, where the unit asks for that.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn watch(&self) -> io::Result<()> {
        let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return Ok(()) };
        let beats = self.clone();
        thread::Builder::new().name("watchdog".into()).spawn(move || beats.report(period)).map(drop)
    }

    fn report(&self, period: Duration) -> ! {
        let mut silences = Silences::new(period);
        let mut last = Instant::now();
        loop {
            let now = Instant::now();
            let found = silences.look(&self.counters(), now - last);
            last = now;
            for name in &found.began {
                tracing::error!(
                    thread = %name,
                    "this thread has not gone on for {:?}; unless it does, systemd ends the process and starts it again",
                    period / 2
                );
            }
            for name in &found.ended {
                tracing::warn!(thread = %name, "this thread goes on again");
            }
            if silences.is_none()
                && let Err(error) = sd_notify::notify(&[NotifyState::Watchdog])
            {
                tracing::debug!(%error, "cannot notify systemd");
            }
            thread::sleep(period / LOOKS);
        }
    }

    fn counters(&self) -> Vec<Arc<Counter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }
}

/// How long each thread has not beaten.
#[derive(Debug)]
struct Silences {
    period: Duration,
    threads: Vec<Silence>,
}

#[derive(Debug)]
struct Silence {
    /// Weak, because a thread counts as alive as long as its counter does.
    counter: Weak<Counter>,
    beats: u64,
    lasts: Duration,
}

/// What a look finds.
#[derive(Debug, Default, Eq, PartialEq)]
struct Found {
    /// Threads that have not beaten for half of the period.
    began: Vec<String>,
    /// Threads that had not, and do again.
    ended: Vec<String>,
}

impl Silences {
    fn new(period: Duration) -> Self {
        Self { period, threads: Vec::new() }
    }

    /// Looks at these threads, `passed` after the last look.
    fn look(&mut self, counters: &[Arc<Counter>], passed: Duration) -> Found {
        let allowed = self.allowed();
        let passed = passed.min(self.period * LOOK_MAX / LOOKS);
        let mut found = Found::default();
        let former = std::mem::take(&mut self.threads);
        self.threads = counters
            .iter()
            .map(|counter| {
                let beats = counter.beats.load(Relaxed);
                let before = former.iter().find(|silence| silence.counter.as_ptr() == Arc::as_ptr(counter));
                let was = before.map_or(Duration::ZERO, |silence| silence.lasts);
                let is_silent = before.is_some_and(|silence| silence.beats == beats);
                let lasts = if is_silent { was + passed } else { Duration::ZERO };
                if was <= allowed && lasts > allowed {
                    found.began.push(counter.name.clone());
                } else if was > allowed && lasts <= allowed {
                    found.ended.push(counter.name.clone());
                }
                Silence { counter: Arc::downgrade(counter), beats, lasts }
            })
            .collect();
        found
    }

    fn is_none(&self) -> bool {
        self.threads.iter().all(|silence| silence.lasts <= self.allowed())
    }

    fn allowed(&self) -> Duration {
        self.period / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(60);
    const LOOK: Duration = Duration::from_millis(1500);

    #[test]
    fn a_thread_that_stands_still_is_named_at_half_of_the_period() {
        let beats = Beats::default();
        let (stuck, alive) = (beats.register("stuck"), beats.register("alive"));
        let mut silences = Silences::new(PERIOD);
        let look = |silences: &mut Silences| {
            alive.beat();
            silences.look(&beats.counters(), LOOK)
        };
        stuck.beat();
        for _ in 0..=20 {
            assert_eq!(look(&mut silences), Found::default());
            assert!(silences.is_none(), "{silences:?}");
        }
        assert_eq!(look(&mut silences), Found { began: vec!["stuck".into()], ended: vec![] });
        assert!(!silences.is_none());
        assert_eq!(look(&mut silences), Found::default(), "it is named once");
        assert!(!silences.is_none());
        stuck.beat();
        assert_eq!(look(&mut silences), Found { began: vec![], ended: vec!["stuck".into()] });
        assert!(silences.is_none());
    }

    #[test]
    fn a_thread_that_ends_is_not_silent() {
        let beats = Beats::default();
        let beat = beats.register("ends");
        let mut silences = Silences::new(PERIOD);
        for _ in 0..40 {
            silences.look(&beats.counters(), LOOK);
        }
        assert!(!silences.is_none());
        drop(beat);
        silences.look(&beats.counters(), LOOK);
        assert!(silences.is_none());
    }

    #[test]
    fn a_process_that_was_stopped_has_no_silent_thread() {
        let beats = Beats::default();
        let _beat = beats.register("stopped with all others");
        let mut silences = Silences::new(PERIOD);
        silences.look(&beats.counters(), LOOK);
        for _ in 0..5 {
            assert_eq!(silences.look(&beats.counters(), PERIOD * 10), Found::default());
        }
    }
}

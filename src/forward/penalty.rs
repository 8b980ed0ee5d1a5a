//! Which upstream to ask first.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// For so long an upstream that was silent is asked after the others. Then one question finds out whether it is back,
/// and waits for it no longer than for a hesitation.
const PENALTY: Duration = Duration::from_secs(10);

/// How far each upstream is trusted, in the order of the file.
#[derive(Debug)]
pub(super) struct UpstreamPenalty {
    began: Instant,
    /// Milliseconds after `began` until which each one is doubted.
    until: Vec<AtomicU64>,
}

impl UpstreamPenalty {
    /// None is doubted.
    pub(super) fn new(upstreams: usize) -> Self {
        Self { began: Instant::now(), until: (0..upstreams).map(|_| AtomicU64::new(0)).collect() }
    }

    /// It was silent.
    pub(super) fn penalize(&self, upstream: usize, now: Instant) {
        if let Some(until) = self.until.get(upstream) {
            until.store(self.milliseconds(now + PENALTY), Relaxed);
        }
    }

    /// All of them: first those that are not doubted, and within both the order of the file.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let now = self.milliseconds(now);
        let (doubted, trusted): (Vec<_>, Vec<_>) =
            self.until.iter().enumerate().partition(|(_, until)| until.load(Relaxed) > now);
        trusted.into_iter().chain(doubted).map(|(upstream, _)| upstream).collect()
    }

    fn milliseconds(&self, then: Instant) -> u64 {
        u64::try_from(then.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_silent_comes_last_for_a_while() {
        let penalty = UpstreamPenalty::new(3);
        let start = Instant::now();
        assert_eq!(penalty.order(start), [0, 1, 2]);
        penalty.penalize(0, start);
        penalty.penalize(7, start);
        assert_eq!(penalty.order(start), [1, 2, 0]);
        penalty.penalize(1, start + PENALTY / 2);
        assert_eq!(penalty.order(start + PENALTY / 2), [2, 0, 1]);
        assert_eq!(penalty.order(start + PENALTY), [0, 2, 1]);
        assert_eq!(penalty.order(start + PENALTY * 2), [0, 1, 2]);
    }
}

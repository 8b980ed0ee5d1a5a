//! Which upstream to ask first.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// How long an upstream that did not reply is asked after the others. Then one question finds out whether it is back, and
/// the next upstream is asked as well after [`super::HEDGE_AFTER`].
const PENALTY: Duration = Duration::from_secs(10);

/// Until when each upstream is asked after the others, in the order of the file.
#[derive(Debug)]
pub(super) struct UpstreamPenalty {
    began: Instant,
    /// In milliseconds after `began`.
    until: Vec<AtomicU64>,
}

impl UpstreamPenalty {
    /// Without any penalty.
    pub(super) fn new(upstreams: usize) -> Self {
        Self { began: Instant::now(), until: (0..upstreams).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The upstream did not reply.
    pub(super) fn penalize(&self, upstream: usize, now: Instant) {
        if let Some(until) = self.until.get(upstream) {
            until.store(self.milliseconds(now + PENALTY), Relaxed);
        }
    }

    /// The order in which to ask: upstreams without a penalty, then the others, each in the order of the file.
    pub(super) fn order(&self, now: Instant) -> Vec<usize> {
        let now = self.milliseconds(now);
        let (penalized, others): (Vec<_>, Vec<_>) =
            self.until.iter().enumerate().partition(|(_, until)| until.load(Relaxed) > now);
        others.into_iter().chain(penalized).map(|(upstream, _)| upstream).collect()
    }

    fn milliseconds(&self, then: Instant) -> u64 {
        u64::try_from(then.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_did_not_reply_comes_last_for_a_while() {
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

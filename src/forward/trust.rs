//! Which upstream is asked first.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::telemetry::LogInterval;

/// Between two probes of an upstream that is distrusted.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Between two probes of an upstream that is trusted, when questions to it get no reply. The last is over by then.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// Between two lines of the log about one upstream.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// Which upstreams reply. One that fails a probe of its own is distrusted, and asked after the others, until it replies
/// again. A question that gets no reply only causes a probe: the name may be slow, and not the upstream.
#[derive(Debug)]
pub(super) struct UpstreamTrust(Mutex<Vec<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    is_distrusted: bool,
    last_reply: Option<Instant>,
    last_probe: Option<Instant>,
    /// Lines that say that it is distrusted.
    log: LogInterval,
    /// The log has said so, and not the opposite since.
    is_reported: bool,
}

impl UpstreamTrust {
    /// All are trusted.
    pub(super) fn new(upstreams: usize) -> Self {
        let trusted = State {
            is_distrusted: false,
            last_reply: None,
            last_probe: None,
            log: LogInterval::new(REPORT_INTERVAL),
            is_reported: false,
        };
        Self(Mutex::new(vec![trusted; upstreams]))
    }

    /// The order in which to ask: the trusted ones, then the others, each in the order of the file.
    pub(super) fn order(&self) -> Vec<usize> {
        self.with(|states| {
            let (distrusted, trusted): (Vec<_>, Vec<_>) =
                states.iter().enumerate().partition(|(_, state)| state.is_distrusted);
            trusted.into_iter().chain(distrusted).map(|(upstream, _)| upstream).collect()
        })
    }

    /// The distrusted upstreams that are to be probed now: they may be back.
    pub(super) fn due_probes(&self, now: Instant) -> Vec<usize> {
        self.with(|states| {
            let due = states.iter_mut().enumerate().filter(|(_, state)| state.is_distrusted);
            due.filter_map(|(upstream, state)| state.begin_probe(now).then_some(upstream)).collect()
        })
    }

    /// A question got no reply in time, or none at all. Returns whether the upstream is to be probed now.
    pub(super) fn was_silent(&self, upstream: usize, now: Instant) -> bool {
        self.with(|states| {
            // A single upstream is asked in any case.
            let has_alternative = states.len() > 1;
            states.get_mut(upstream).is_some_and(|state| has_alternative && state.begin_probe(now))
        })
    }

    /// The upstream replied, to whatever question. Returns whether it is trusted again, and that is worth a line of the log.
    pub(super) fn replied(&self, upstream: usize, now: Instant) -> bool {
        self.with(|states| {
            let Some(state) = states.get_mut(upstream) else { return false };
            state.last_reply = Some(now);
            let was_distrusted = std::mem::take(&mut state.is_distrusted);
            was_distrusted && std::mem::take(&mut state.is_reported)
        })
    }

    /// A probe that began at this time got no reply. Returns whether the upstream is distrusted, and that is worth a line of
    /// the log: at first and every ten minutes.
    pub(super) fn probe_failed(&self, upstream: usize, began: Instant, now: Instant) -> bool {
        self.with(|states| {
            let Some(state) = states.get_mut(upstream) else { return false };
            // A reply to another question counts as much.
            state.is_distrusted |= state.last_reply.is_none_or(|reply| reply < began);
            let is_worth_a_line = state.is_distrusted && state.log.is_due(now);
            state.is_reported |= is_worth_a_line;
            is_worth_a_line
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Vec<State>) -> T) -> T {
        // Nothing in here can panic half-way.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn begin_probe(&mut self, now: Instant) -> bool {
        let interval = if self.is_distrusted { RETRY_INTERVAL } else { PROBE_INTERVAL };
        let is_due = self.last_probe.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if is_due {
            self.last_probe = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_probe_makes_an_upstream_distrusted() {
        let trust = UpstreamTrust::new(3);
        let start = Instant::now();
        assert_eq!(trust.order(), [0, 1, 2]);
        assert!(trust.was_silent(0, start), "the first silence causes a probe");
        assert!(!trust.was_silent(0, start + PROBE_INTERVAL / 2), "one probe at a time");
        assert_eq!(trust.order(), [0, 1, 2]);
        assert!(!trust.replied(0, start + PROBE_INTERVAL / 4));
        trust.probe_failed(0, start, start);
        assert_eq!(trust.order(), [0, 1, 2], "it replied to another question meanwhile");
        let second = start + PROBE_INTERVAL;
        assert!(trust.was_silent(0, second));
        assert!(trust.probe_failed(0, second, second));
        assert!(!trust.probe_failed(7, second, second));
        assert_eq!(trust.order(), [1, 2, 0]);
    }

    #[test]
    fn a_distrusted_upstream_is_probed_until_it_replies() {
        let trust = UpstreamTrust::new(2);
        let start = Instant::now();
        assert!(trust.was_silent(0, start));
        trust.probe_failed(0, start, start);
        assert_eq!(trust.order(), [1, 0]);
        assert_eq!(trust.due_probes(start + RETRY_INTERVAL / 2), [0; 0]);
        assert_eq!(trust.due_probes(start + RETRY_INTERVAL), [0]);
        assert_eq!(trust.due_probes(start + RETRY_INTERVAL), [0; 0], "the probe has begun");
        assert!(!trust.probe_failed(0, start + RETRY_INTERVAL, start + RETRY_INTERVAL), "said already");
        assert_eq!(trust.order(), [1, 0]);
        assert!(trust.replied(0, start + RETRY_INTERVAL * 2));
        assert!(!trust.replied(0, start + RETRY_INTERVAL * 2), "once");
        assert_eq!(trust.order(), [0, 1]);
        assert_eq!(trust.due_probes(start + RETRY_INTERVAL * 9), [0; 0]);
    }

    #[test]
    fn a_single_upstream_is_not_probed() {
        assert!(!UpstreamTrust::new(1).was_silent(0, Instant::now()));
    }
}

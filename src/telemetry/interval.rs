//! How often a line about something that lasts, or comes again and again, is logged.

use std::time::{Duration, Instant};

/// Lets one line through in an interval. Pure: time is an argument.
#[derive(Clone, Copy, Debug)]
pub struct LogInterval {
    interval: Duration,
    logged: Option<Instant>,
}

impl LogInterval {
    /// No line has been logged yet.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, logged: None }
    }

    /// Whether a line is due; if so, it counts as logged now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.logged.is_none_or(|logged| now.saturating_duration_since(logged) >= self.interval);
        if is_due {
            self.logged = Some(now);
        }
        is_due
    }

    /// A line was logged now for another reason, from which the interval counts.
    pub fn restart(&mut self, now: Instant) {
        self.logged = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_is_due() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut interval = LogInterval::new(60 * second);
        let due = |interval: &mut LogInterval, seconds: std::ops::Range<u32>| {
            seconds.filter(|number| interval.is_due(start + *number * second)).collect::<Vec<_>>()
        };
        assert_eq!(due(&mut interval, 0..150), [0, 60, 120]);
        interval.restart(start + 150 * second);
        assert_eq!(due(&mut interval, 150..280), [210, 270]);
        assert!(!interval.is_due(start), "an earlier moment");
    }
}

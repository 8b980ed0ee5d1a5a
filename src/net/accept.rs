//! What follows when a connection cannot be accepted: whether only that connection has failed, how long to pause, and when
//! to log.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use crate::telemetry::LogInterval;

/// The pause after the first accept that the system refuses; it doubles with each further one. A descriptor is free again
/// once the task of a closed connection has run.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Whether only the connection that was to be accepted has failed: it was reset, or its network is gone (accept(2),
/// "Error handling"), or a firewall forbids it.
pub fn concerns_one_connection(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EINTR
                | Errno::EPROTO
                | Errno::EPERM
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ENOPROTOOPT
                | Errno::EOPNOTSUPP
        )
    )
}

/// Accepts that the system refused: no descriptor or no memory is left. Pure: time is an argument.
#[derive(Debug)]
pub struct Refusals {
    pause_max: Duration,
    log: LogInterval,
    /// Those in a row.
    in_row: u32,
    /// Those since a line was logged.
    since_logged: u64,
}

/// What follows a refused accept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// How long to wait before the next accept, so that it does not spin.
    pub pause: Duration,
    /// How many refusals a log line is due for.
    pub logged: Option<u64>,
}

impl Refusals {
    /// None yet. Pauses are at most `pause_max`, and log lines `log_interval` apart, however many accepts fail and succeed
    /// meanwhile.
    pub fn new(pause_max: Duration, log_interval: Duration) -> Self {
        Self { pause_max, log: LogInterval::new(log_interval), in_row: 0, since_logged: 0 }
    }

    /// An accept has been refused.
    pub fn add(&mut self, now: Instant) -> Refusal {
        let pause = PAUSE_MIN.saturating_mul(2_u32.saturating_pow(self.in_row)).min(self.pause_max);
        self.in_row = self.in_row.saturating_add(1);
        self.since_logged += 1;
        let logged = self.log.is_due(now).then(|| std::mem::take(&mut self.since_logged));
        Refusal { pause, logged }
    }

    /// An accept has succeeded.
    pub fn end(&mut self) {
        self.in_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_MAX: Duration = Duration::from_secs(1);
    const LOG_INTERVAL: Duration = Duration::from_secs(60);

    #[test]
    fn refused_accepts_pause_longer_and_are_logged_once_an_interval() {
        let start = Instant::now();
        let mut refusals = Refusals::new(PAUSE_MAX, LOG_INTERVAL);
        assert_eq!(refusals.add(start), Refusal { pause: PAUSE_MIN, logged: Some(1) });
        let pauses: Vec<_> = (0..9).map(|_| refusals.add(start).pause).collect();
        assert!(pauses.is_sorted() && pauses[0] == 2 * PAUSE_MIN && pauses[8] == PAUSE_MAX);
        for second in 1..60 {
            // Successes between refusals are no reason for more lines.
            refusals.end();
            let refusal = refusals.add(start + Duration::from_secs(second));
            assert_eq!(refusal, Refusal { pause: PAUSE_MIN, logged: None });
        }
        assert_eq!(refusals.add(start + LOG_INTERVAL).logged, Some(69));
        assert_eq!(refusals.add(start + LOG_INTERVAL).logged, None);
    }

    #[test]
    fn a_long_shortage_is_logged_once_an_interval_at_the_longest_pause() {
        let interval = Duration::from_secs(600);
        let mut refusals = Refusals::new(Duration::from_millis(500), interval);
        let start = Instant::now();
        let mut logged = Vec::new();
        for second in 0..1300_u64 {
            let refusal = refusals.add(start + Duration::from_secs(second));
            if refusal.logged.is_some() {
                logged.push(second);
            }
            if second == 9 {
                assert_eq!(refusal.pause, Duration::from_millis(500));
            }
            refusals.add(start + Duration::from_secs(second));
            if second % 10 == 9 {
                refusals.end();
            }
        }
        assert_eq!(logged, [0, 600, 1200]);
    }

    #[test]
    fn a_connection_that_fails_while_it_is_accepted_delays_no_other() {
        let concerns = |errno: Errno| concerns_one_connection(&io::Error::from_raw_os_error(errno as i32));
        assert!(concerns(Errno::ECONNABORTED) && concerns(Errno::EPROTO));
        for shortage in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert!(!concerns(shortage), "{shortage}");
        }
    }
}

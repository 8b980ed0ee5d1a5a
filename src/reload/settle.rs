//! When a file counts as whole: pure policy, with time as an argument.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::net::watched::ReadError;

/// Two readings so far apart must agree. Editors and tools write within milliseconds; people do not notice 200 ms.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// Quiet that a file needs which removes most zones: half-written TOML is often valid, with fewer zones.
pub(super) const BULK_QUIET: Duration = Duration::from_secs(3);

/// Readings that agree for so long count although events keep coming: they may be about other files of the directory.
const DESPITE_EVENTS: Duration = Duration::from_secs(2);

/// What the file contained at one moment, or why it could not be read.
pub(super) type Reading = Result<Vec<u8>, ReadError>;

/// A reading, and since when nothing has contradicted it.
#[derive(Debug)]
pub(super) struct Settling {
    reading: Reading,
    since: Instant,
    last_event: Instant,
}

impl Settling {
    pub(super) fn new(reading: Reading, now: Instant) -> Self {
        Self { reading, since: now, last_event: now }
    }

    pub(super) fn reading(&self) -> &Reading {
        &self.reading
    }

    pub(super) fn into_reading(self) -> Reading {
        self.reading
    }

    /// Something happened near the file.
    pub(super) fn event(&mut self, now: Instant) {
        self.last_event = now;
    }

    /// When the next reading decides.
    pub(super) fn due(&self, patience: Duration) -> Instant {
        let quiet = self.since.max(self.last_event) + patience;
        quiet.min(self.since + patience.max(DESPITE_EVENTS))
    }

    /// Compares with another reading; a different one takes its place and starts anew.
    pub(super) fn agrees(&mut self, reading: Reading, now: Instant) -> bool {
        let same = reading == self.reading;
        if !same {
            *self = Self::new(reading, now);
        }
        same
    }
}

/// Whether a file takes away two zones or more, and over half of them.
pub(super) fn removes_in_bulk<K: Ord, V>(running: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> bool {
    let removed = running.keys().filter(|name| !wanted.contains_key(name)).count();
    removed >= 2 && removed * 2 > running.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_event_starts_the_wait_anew() {
        let start = Instant::now();
        let mut settling = Settling::new(Ok(b"a".into()), start);
        assert_eq!(settling.due(SETTLE), at(start, 200));
        settling.event(at(start, 150));
        assert_eq!(settling.due(SETTLE), at(start, 350));
        assert!(!settling.agrees(Ok(b"b".into()), at(start, 350)));
        assert_eq!(settling.due(SETTLE), at(start, 550));
        assert!(settling.agrees(Ok(b"b".into()), at(start, 550)));
    }

    #[test]
    fn a_noisy_directory_cannot_keep_a_file_out() {
        let start = Instant::now();
        let mut settling = Settling::new(Ok(b"a".into()), start);
        for moment in (0..5000).step_by(100) {
            settling.event(at(start, moment));
        }
        assert_eq!(settling.due(SETTLE), at(start, 2000));
        assert_eq!(settling.due(BULK_QUIET), at(start, 3000));
    }

    #[test]
    fn most_of_many_is_bulk() {
        let zones = |n: usize| (0..n).map(|name| (name, ())).collect::<BTreeMap<_, _>>();
        assert!(removes_in_bulk(&zones(10), &zones(4)));
        assert!(!removes_in_bulk(&zones(10), &zones(5)));
        assert!(!removes_in_bulk(&zones(1), &zones(0)));
        assert!(removes_in_bulk(&zones(2), &zones(0)));
        assert!(!removes_in_bulk(&zones(2), &zones(20)));
    }
}

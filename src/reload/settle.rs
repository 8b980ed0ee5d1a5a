//! When the files count as whole: pure policy, with time as argument.
//!
//! Half-written TOML is often valid, with fewer zones. So two readings must agree, a writer that still has the file open
//! is waited for, and a file that may be cut short waits longer before it removes a zone. So does a zone whose file has gone:
//! tools that replace a directory remove files before they write others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::files::{ConfigFiles, written_in_place};
use crate::net::watched::{Inode, Stamp};

/// Two readings so far apart must agree. Editors and tools write within milliseconds; people do not notice 200 ms.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// Quiet that a file needs before it removes zones, where it may be half-written: three times the longest pause of a
/// writer that opens the file for each piece.
const REMOVAL_QUIET: Duration = Duration::from_secs(3);

/// A writer that has written and not closed the file is waited for so long after its last write. Longer pauses are a
/// program that keeps the file open.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// A file that has not been applied for so long is reported: an operator waits for the edit.
const OVERDUE: Duration = Duration::from_secs(30);

/// What the system reports about writers of the file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Writes {
    /// When something was last written, or a writer closed the file.
    pub(super) last: Option<Instant>,
    /// A writer has written and not closed one of the files yet.
    pub(super) is_open: bool,
}

/// A reading, and since when nothing has contradicted it.
#[derive(Debug)]
pub(super) struct Settling {
    reading: ConfigFiles,
    since: Instant,
    /// How the files looked that were read before this change.
    former: Vec<Stamp>,
    /// Files that were seen to be written in place since.
    in_place: BTreeSet<Inode>,
    began: Instant,
    is_reported: bool,
}

impl Settling {
    /// Begins with a reading; `former` is how the files looked that were read before.
    pub(super) fn new(reading: ConfigFiles, now: Instant, former: Vec<Stamp>) -> Self {
        let in_place = written_in_place(&former, reading.stamps()).into_iter().collect();
        Self { reading, since: now, former, in_place, began: now, is_reported: false }
    }

    pub(super) fn reading(&self) -> &ConfigFiles {
        &self.reading
    }

    pub(super) fn into_reading(self) -> ConfigFiles {
        self.reading
    }

    /// When the next reading decides.
    pub(super) fn due(&self, quiet: Duration, writes: Writes) -> Instant {
        // A reading that is outdated already is replaced soon.
        let quiet = if self.is_outdated(writes) { SETTLE } else { quiet };
        let due = self.since + quiet;
        match writes.last {
            Some(last) if writes.is_open => due.max(last + CLOSE_WAIT),
            _ => due,
        }
    }

    /// Compares with another reading; a different one takes its place and starts anew.
    pub(super) fn agrees(&mut self, reading: ConfigFiles, writes: Writes, now: Instant) -> bool {
        let is_same = reading == self.reading && !self.is_outdated(writes);
        if !is_same {
            for former in [&self.former[..], self.reading.stamps()] {
                self.in_place.extend(written_in_place(former, reading.stamps()));
            }
            self.reading = reading;
            self.since = now;
        }
        is_same
    }

    /// Whether the file has kept changing for too long; true once.
    pub(super) fn becomes_overdue(&mut self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= OVERDUE && !std::mem::replace(&mut self.is_reported, true)
    }

    /// How long the files must stay as they are before they are applied. `is_file_gone`: one of those in force is not among
    /// them.
    pub(super) fn quiet_needed<K: Ord, V>(
        &self,
        running: &BTreeMap<K, V>,
        wanted: &BTreeMap<K, V>,
        is_file_gone: bool,
    ) -> Duration {
        let removed = running.keys().filter(|name| !wanted.contains_key(name)).count();
        let is_bulk = removed >= 2 && removed * 2 > running.len();
        let is_in_place = self.reading.stamps().iter().any(|stamp| self.in_place.contains(&stamp.inode()));
        if is_bulk || ((is_in_place || is_file_gone) && removed > 0) { REMOVAL_QUIET } else { SETTLE }
    }

    fn is_outdated(&self, writes: Writes) -> bool {
        writes.last.is_some_and(|last| last > self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Zones of the running configuration; the writer writes as many pieces.
    const ZONES: usize = 10;

    /// The file that the running configuration came from.
    const FORMER: u64 = 1;

    /// How it looked before.
    fn former() -> Vec<Stamp> {
        vec![Stamp::example(FORMER, -1)]
    }

    fn zones(count: usize) -> BTreeMap<usize, ()> {
        (0..count).map(|name| (name, ())).collect()
    }

    fn reading(content: &[u8], inode: u64, modified: u64) -> ConfigFiles {
        ConfigFiles::example(content, Stamp::example(inode, i64::try_from(modified).unwrap()))
    }

    /// Time as milliseconds from here.
    #[derive(Clone, Copy)]
    struct Clock(Instant);

    impl Clock {
        fn at(self, milliseconds: u64) -> Instant {
            self.0 + Duration::from_millis(milliseconds)
        }

        fn milliseconds(self, moment: Instant) -> u64 {
            u64::try_from((moment - self.0).as_millis()).unwrap()
        }
    }

    /// A writer that writes one zone at each of these moments, after it has emptied the file at moment 0.
    #[derive(Clone, Debug)]
    struct Script {
        moments: Vec<u64>,
        /// It opens the file for each piece; else it closes the file after the last one.
        reopens: bool,
        inode: u64,
    }

    impl Script {
        fn whole(&self) -> u64 {
            self.moments.last().copied().unwrap_or(0)
        }

        fn look(&self, clock: Clock, now: u64) -> (ConfigFiles, Writes) {
            let pieces = self.moments.iter().filter(|moment| **moment <= now).count();
            let last = pieces.checked_sub(1).map_or(0, |piece| self.moments[piece]);
            let writes = Writes { last: Some(clock.at(last)), is_open: !self.reopens && now < self.whole() };
            (reading(&[u8::try_from(pieces).unwrap()], self.inode, last), writes)
        }
    }

    /// When the file is applied, and how many zones it has then. This does what the reloader does.
    fn applied(script: &Script) -> (u64, usize) {
        let clock = Clock(Instant::now());
        let mut now = 1;
        let mut settling = Settling::new(script.look(clock, now).0, clock.at(now), former());
        let mut quiet = SETTLE;
        loop {
            loop {
                let due = clock.milliseconds(settling.due(quiet, script.look(clock, now).1));
                if due <= now {
                    break;
                }
                let event = script.moments.iter().copied().find(|moment| *moment > now);
                now = event.map_or(due, |event| event.min(due));
            }
            let (reading, writes) = script.look(clock, now);
            if !settling.agrees(reading, writes, clock.at(now)) {
                quiet = SETTLE;
                continue;
            }
            let pieces = usize::from(settling.reading().main().unwrap()[0]);
            let needed = settling.quiet_needed(&zones(ZONES), &zones(pieces), false);
            if needed <= quiet {
                return (now, pieces);
            }
            quiet = needed;
        }
    }

    fn scripts(pause_max: u64, reopens: impl Strategy<Value = bool>) -> impl Strategy<Value = Script> {
        let pauses = proptest::collection::vec(1..=pause_max, ZONES);
        (pauses, reopens).prop_map(|(pauses, reopens)| {
            let moments = pauses.iter().scan(0, |moment, pause| {
                *moment += pause;
                Some(*moment)
            });
            Script { moments: moments.collect(), reopens, inode: FORMER }
        })
    }

    proptest! {
        #[test]
        fn no_writer_that_pauses_less_than_three_seconds_loses_a_zone(script in scripts(2999, any::<bool>())) {
            let (when, pieces) = applied(&script);
            prop_assert_eq!(pieces, ZONES);
            prop_assert!(when <= script.whole() + 600, "{} ms after the last piece", when - script.whole());
        }

        #[test]
        fn no_writer_that_keeps_the_file_open_and_pauses_less_than_ten_seconds_loses_a_zone(
            script in scripts(9999, Just(false)),
        ) {
            prop_assert_eq!(applied(&script).1, ZONES);
        }
    }

    #[test]
    fn a_file_that_is_replaced_is_applied_after_two_readings() {
        let clock = Clock(Instant::now());
        let settled = |inode, pieces| {
            let mut settling = Settling::new(reading(b"a", inode, 0), clock.at(0), former());
            assert_eq!(settling.due(SETTLE, Writes::default()), clock.at(200));
            assert!(settling.agrees(reading(b"a", inode, 0), Writes::default(), clock.at(200)));
            settling.quiet_needed(&zones(ZONES), &zones(pieces), false)
        };
        assert_eq!(settled(FORMER + 1, 9), SETTLE);
        assert_eq!(settled(FORMER + 1, 5), SETTLE, "half is not most");
        assert_eq!(settled(FORMER + 1, 4), REMOVAL_QUIET);
        assert_eq!(settled(FORMER, 9), REMOVAL_QUIET);
        assert_eq!(settled(FORMER, 20), SETTLE);
    }

    #[test]
    fn the_last_zone_of_one_may_go_at_once_and_both_of_two_may_not() {
        let settling = Settling::new(reading(b"a", FORMER + 1, 0), Instant::now(), former());
        assert_eq!(settling.quiet_needed(&zones(1), &zones(0), false), SETTLE);
        assert_eq!(settling.quiet_needed(&zones(2), &zones(0), false), REMOVAL_QUIET);
        assert_eq!(settling.quiet_needed(&zones(9), &zones(8), true), REMOVAL_QUIET, "a zone has gone with its file");
        assert_eq!(settling.quiet_needed(&zones(9), &zones(9), true), SETTLE, "its zones are in another file now");
    }

    #[test]
    fn content_inode_size_and_time_must_agree() {
        let clock = Clock(Instant::now());
        let first = || Settling::new(reading(b"a", FORMER, 0), clock.at(0), vec![]);
        for other in [reading(b"b", FORMER, 0), reading(b"a", FORMER + 1, 0), reading(b"a", FORMER, 1)] {
            let mut settling = first();
            assert!(!settling.agrees(other.clone(), Writes::default(), clock.at(200)));
            assert_eq!(settling.due(SETTLE, Writes::default()), clock.at(400));
            assert!(settling.agrees(other, Writes::default(), clock.at(400)));
        }
        let written = Writes { last: Some(clock.at(100)), is_open: false };
        assert!(!first().agrees(reading(b"a", FORMER, 0), written, clock.at(200)), "file systems keep coarse times");
    }

    #[test]
    fn a_file_that_keeps_changing_is_reported_once() {
        let clock = Clock(Instant::now());
        let mut settling = Settling::new(reading(b"a", FORMER, 0), clock.at(0), vec![]);
        let overdue = [100, 29_999, 30_000, 30_001, 90_000].map(|now| settling.becomes_overdue(clock.at(now)));
        assert_eq!(overdue, [false, false, true, false, false]);
    }

    #[test]
    fn a_file_that_stays_open_is_waited_for_ten_seconds() {
        let clock = Clock(Instant::now());
        let settling = Settling::new(reading(b"a", FORMER, 0), clock.at(50), vec![]);
        assert_eq!(settling.due(SETTLE, Writes { last: Some(clock.at(0)), is_open: true }), clock.at(10_000));
        assert_eq!(settling.due(SETTLE, Writes { last: Some(clock.at(0)), is_open: false }), clock.at(250));
    }
}

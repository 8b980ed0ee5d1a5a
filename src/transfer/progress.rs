//! What each secondary has of each zone, and when it is notified next. Pure: the time is an argument.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::types::ZoneName;

/// Between two notifications of a zone: changes that come faster are fetched together.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a secondary may take to acknowledge. One that works takes a millisecond, and a message on the way to a
/// distant one a tenth of a second.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(2);

/// The pause before the second attempt; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest pause between attempts: what a secondary that returns waits at most, as it does by `SOA_REFRESH`.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The zones, with what each secondary has of them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    zones: FxHashMap<ZoneName, ZoneProgress>,
    secondaries: usize,
}

#[derive(Debug)]
struct ZoneProgress {
    serial: u32,
    /// When any secondary was last notified of a change.
    notified: Option<Instant>,
    secondaries: Box<[SecondaryProgress]>,
}

#[derive(Clone, Debug, Default)]
struct SecondaryProgress {
    /// What it fetched last, or said that it has.
    serial: Option<u32>,
    /// Since when it lacks a change.
    behind_since: Option<Instant>,
    notify: Notify,
}

/// Whether a secondary is to be notified.
#[derive(Clone, Copy, Debug, Default)]
enum Notify {
    /// It has acknowledged, or fetched.
    #[default]
    No,
    /// At this time; so many attempts have failed.
    At { time: Instant, failed: u32 },
    /// It has been, and has not acknowledged yet.
    Sent { time: Instant, failed: u32 },
}

/// What a secondary has of a zone, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SecondaryState {
    /// The serial that it fetched last, or said that it has; `None`: it has done neither since this server started.
    pub serial: Option<u32>,
    /// For how long it has lacked a change; zero: it has all.
    pub lag: Duration,
}

/// A notification that is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DueNotify {
    pub(super) zone: ZoneName,
    pub(super) secondary: usize,
    pub(super) serial: u32,
}

impl Progress {
    /// Nothing is known of these secondaries.
    #[cfg(test)]
    pub(super) fn new(secondaries: usize) -> Self {
        Self { zones: FxHashMap::default(), secondaries }
    }

    /// From now on there are other secondaries. What is known of those that stay is kept: each has the number here that it
    /// had before, or `None` if it is new.
    pub(super) fn follow(&mut self, before: &[Option<usize>], now: Instant) {
        self.secondaries = before.len();
        let new =
            SecondaryProgress { serial: None, behind_since: Some(now), notify: Notify::At { time: now, failed: 0 } };
        for known in self.zones.values_mut() {
            let kept = |number: &Option<usize>| {
                number.and_then(|number| known.secondaries.get(number)).unwrap_or(&new).clone()
            };
            known.secondaries = before.iter().map(kept).collect();
        }
    }

    /// Takes over the serial of a zone that can be fetched. A secondary that has another one is notified: at once, or a
    /// second after it was last notified of a change.
    pub(super) fn observe(&mut self, zone: &ZoneName, serial: u32, now: Instant) {
        let count = self.secondaries;
        let known = match self.zones.get_mut(zone) {
            Some(known) if known.serial == serial => return,
            Some(known) => known,
            None => {
                let secondaries = vec![SecondaryProgress::default(); count].into_boxed_slice();
                self.zones.entry(zone.clone()).or_insert(ZoneProgress { serial, notified: None, secondaries })
            }
        };
        known.serial = serial;
        let earliest = known.notified.map_or(now, |notified| notified + NOTIFY_INTERVAL).max(now);
        for secondary in &mut known.secondaries {
            secondary.behind_since.get_or_insert(now);
            secondary.notify = Notify::At { time: earliest, failed: 0 };
        }
    }

    /// Forgets zones that are no longer configured.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&ZoneName) -> bool) {
        self.zones.retain(|zone, _| is_wanted(zone));
    }

    /// The notifications that are due now, at most so many for each secondary; they count as sent.
    pub(super) fn take_due(&mut self, now: Instant, free: &mut [usize]) -> Vec<DueNotify> {
        let mut due = Vec::new();
        for (zone, known) in &mut self.zones {
            for (number, (secondary, free)) in known.secondaries.iter_mut().zip(free.iter_mut()).enumerate() {
                if let Notify::At { time, failed } = secondary.notify
                    && time <= now
                    && *free > 0
                {
                    *free -= 1;
                    secondary.notify = Notify::Sent { time: now, failed };
                    known.notified = Some(now);
                    due.push(DueNotify { zone: zone.clone(), secondary: number, serial: known.serial });
                }
            }
        }
        due
    }

    /// A secondary has acknowledged the notification of this serial.
    pub(super) fn acknowledged(&mut self, notify: &DueNotify) {
        if let Some(secondary) = self.waiting(notify) {
            secondary.notify = Notify::No;
        }
    }

    /// A notification was refused, or could not be sent: it is tried again later.
    pub(super) fn failed(&mut self, notify: &DueNotify, now: Instant) {
        if let Some(secondary) = self.waiting(notify)
            && let Notify::Sent { failed, .. } = secondary.notify
        {
            secondary.notify = Notify::At { time: now + pause(failed), failed: failed.saturating_add(1) };
        }
    }

    /// The secondary, if it has not acknowledged this notification and there is no newer one.
    fn waiting(&mut self, notify: &DueNotify) -> Option<&mut SecondaryProgress> {
        let known = self.zones.get_mut(&notify.zone).filter(|known| known.serial == notify.serial)?;
        known.secondaries.get_mut(notify.secondary).filter(|known| matches!(known.notify, Notify::Sent { .. }))
    }

    /// Has notifications tried again that were not acknowledged in time. Returns the secondary of each.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<usize> {
        let mut expired = Vec::new();
        for (number, secondary) in self.zones.values_mut().flat_map(|known| known.secondaries.iter_mut().enumerate()) {
            if let Notify::Sent { time, failed } = secondary.notify
                && now.saturating_duration_since(time) >= ACKNOWLEDGE_MAX
            {
                secondary.notify = Notify::At { time: now + pause(failed), failed: failed.saturating_add(1) };
                expired.push(number);
            }
        }
        expired
    }

    /// A secondary has fetched this serial, or said that it has it.
    pub(super) fn has(&mut self, zone: &ZoneName, secondary: usize, serial: u32) {
        let Some(known) = self.zones.get_mut(zone) else { return };
        // Not an older one (RFC 1982, 3.2): it may have fetched from another primary, which is ahead.
        let is_current = serial.wrapping_sub(known.serial) < 1 << 31;
        if let Some(secondary) = known.secondaries.get_mut(secondary) {
            secondary.serial = Some(serial);
            if is_current {
                secondary.behind_since = None;
                secondary.notify = Notify::No;
            }
        }
    }

    /// What each secondary has of a zone, in their order; none while the zone cannot be fetched.
    pub(super) fn states(&self, zone: &ZoneName, now: Instant) -> Vec<SecondaryState> {
        let state = |secondary: &SecondaryProgress| {
            let lag = secondary.behind_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            SecondaryState { serial: secondary.serial, lag }
        };
        self.zones.get(zone).map(|known| known.secondaries.iter().map(state).collect()).unwrap_or_default()
    }
}

/// The pause after so many attempts that failed before this one.
fn pause(failed: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failed)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> ZoneName {
        ZoneName::parse("a.example").unwrap()
    }

    /// Notifications of two secondaries that are due.
    fn due(progress: &mut Progress, now: Instant) -> Vec<(usize, u32)> {
        let due = progress.take_due(now, &mut [10, 10]);
        due.into_iter().map(|notify| (notify.secondary, notify.serial)).collect()
    }

    fn notify(secondary: usize, serial: u32) -> DueNotify {
        DueNotify { zone: zone(), secondary, serial }
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_thousand_changes_in_a_minute_are_a_notification_a_second() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        let mut sent = 0;
        for change in 0..1000_u32 {
            let now = start + ms(60) * change;
            progress.observe(&zone(), change, now);
            for (secondary, serial) in due(&mut progress, now) {
                sent += 1;
                assert_eq!(serial, change, "always the newest");
                progress.acknowledged(&notify(secondary, serial));
            }
        }
        assert!((2 * 55..=2 * 60).contains(&sent), "{sent}");
        assert_eq!(due(&mut progress, start + ms(61_000)), [(0, 999), (1, 999)], "the last change too");
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_at_growing_intervals() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        progress.observe(&zone(), 5, start);
        assert_eq!(due(&mut progress, start), [(0, 5), (1, 5)]);
        progress.acknowledged(&notify(0, 5));
        let mut sent = Vec::new();
        for second in 0..400 {
            let now = start + Duration::from_secs(second);
            progress.expire(now);
            sent.extend(due(&mut progress, now).into_iter().map(|(secondary, _)| (secondary, second)));
        }
        let seconds = [3, 7, 13, 23, 41, 75, 137, 199, 261, 323, 385];
        assert_eq!(sent, seconds.map(|second| (1, second)), "two seconds of waiting, and the pause");
    }

    #[test]
    fn a_reply_about_an_older_serial_ends_nothing() {
        let start = Instant::now();
        let mut progress = Progress::new(1);
        progress.observe(&zone(), 5, start);
        assert_eq!(progress.take_due(start, &mut [1]), [notify(0, 5)]);
        progress.observe(&zone(), 6, start + ms(10));
        progress.acknowledged(&notify(0, 5));
        progress.failed(&notify(0, 5), start);
        progress.has(&zone(), 0, 5);
        assert_eq!(progress.take_due(start + ms(990), &mut [1]), [], "the interval");
        assert_eq!(progress.take_due(start + ms(1000), &mut [0]), [], "too many are on the way");
        assert_eq!(progress.take_due(start + ms(1100), &mut [1]), [notify(0, 6)]);
        progress.failed(&notify(0, 6), start + ms(1200));
        assert_eq!(progress.take_due(start + ms(2300), &mut [1]), [notify(0, 6)]);
    }

    #[test]
    fn lag_begins_with_the_first_change_that_is_not_fetched() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        assert_eq!(progress.states(&zone(), start), []);
        progress.observe(&zone(), 5, start);
        progress.has(&zone(), 0, 5);
        let state = |serial, lag| SecondaryState { serial, lag };
        assert_eq!(progress.states(&zone(), start + ms(300)), [state(Some(5), ms(0)), state(None, ms(300))]);
        assert_eq!(due(&mut progress, start + ms(300)), [(1, 5)], "the other one has fetched without being notified");
        progress.observe(&zone(), 6, start + ms(400));
        progress.observe(&zone(), 7, start + ms(500));
        progress.has(&zone(), 0, 6);
        assert_eq!(progress.states(&zone(), start + ms(900)), [state(Some(6), ms(500)), state(None, ms(900))]);
        progress.has(&zone(), 0, 7);
        assert_eq!(progress.states(&zone(), start + ms(900))[0], state(Some(7), ms(0)));
        progress.has(&zone(), 1, 9);
        assert_eq!(progress.states(&zone(), start + ms(900))[1], state(Some(9), ms(0)), "another primary is ahead");
        progress.retain(|_| false);
        progress.has(&zone(), 0, 7);
        assert_eq!(progress.states(&zone(), start), []);
    }

    #[test]
    fn what_is_known_of_a_secondary_stays_when_others_come_and_go() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        progress.observe(&zone(), 5, start);
        progress.has(&zone(), 1, 5);
        let state = |serial, lag| SecondaryState { serial, lag };
        progress.follow(&[Some(1), None], start + ms(100));
        assert_eq!(progress.states(&zone(), start + ms(300)), [state(Some(5), ms(0)), state(None, ms(200))]);
        assert_eq!(due(&mut progress, start + ms(300)), [(1, 5)], "the new one");
        progress.follow(&[Some(0)], start + ms(400));
        progress.observe(&zone(), 6, start + ms(2000));
        assert_eq!(progress.take_due(start + ms(2000), &mut [1]), [notify(0, 6)]);
    }
}

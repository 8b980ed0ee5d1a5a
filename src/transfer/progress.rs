//! What each secondary has of each zone, and when it is notified next. Pure: the time is an argument.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::queue::{Notify, NotifyQueue};
use crate::types::ZoneName;

/// Between two notifications of a zone: changes that come faster are fetched together.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(1);

/// The zones, with what each secondary has of them.
#[derive(Debug, Default)]
pub(super) struct Progress {
    zones: FxHashMap<ZoneName, ZoneProgress>,
    /// The open notifications of each secondary.
    queues: Vec<NotifyQueue>,
    /// Pairs of a zone and a secondary that were looked at.
    #[cfg(test)]
    looks: usize,
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
    /// Since when it lacks a change, as far as is known.
    behind_since: Option<Instant>,
    /// Since when it has asked for the serial of a change, and has neither fetched it nor said what it has.
    unconfirmed_since: Option<Instant>,
    notify: Notify,
}

/// What a secondary has of a zone, for people.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SecondaryState {
    /// The serial that it fetched last, or said that it has; `None`: it has done neither since this server started.
    pub serial: Option<u32>,
    /// For how long it has lacked a change of which it has not asked for the serial; zero: there is none.
    pub lag: Duration,
    /// For how long it has been given the serials of changes (SOA) that it has not fetched; zero: there is none. It has them
    /// from another primary, or cannot fetch: a question for the SOA does not say what its sender has.
    pub unconfirmed: Duration,
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
        let mut progress = Self::default();
        progress.queues.resize_with(secondaries, NotifyQueue::default);
        progress
    }

    /// From now on there are other secondaries. What is known of those that stay is kept: each has the number here that it
    /// had before, or `None` if it is new.
    pub(super) fn follow(&mut self, before: &[Option<usize>], now: Instant) {
        self.queues = before.iter().map(|_| NotifyQueue::default()).collect();
        let new = SecondaryProgress {
            behind_since: Some(now),
            notify: Notify::At { time: now, failed: 0 },
            ..SecondaryProgress::default()
        };
        for (zone, known) in &mut self.zones {
            let kept = |number: &Option<usize>| {
                number.and_then(|number| known.secondaries.get(number)).unwrap_or(&new).clone()
            };
            known.secondaries = before.iter().map(kept).collect();
            for (queue, secondary) in self.queues.iter_mut().zip(&known.secondaries) {
                queue.add(zone, secondary.notify);
            }
        }
    }

    /// Takes over the serial of a zone that can be fetched. A secondary that has another one is notified: at once, or a
    /// second after it was last notified of a change.
    pub(super) fn observe(&mut self, zone: &ZoneName, serial: u32, now: Instant) {
        let count = self.queues.len();
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
        for (queue, secondary) in self.queues.iter_mut().zip(&mut known.secondaries) {
            if !secondary.serial.is_some_and(|has| is_current(has, serial)) {
                secondary.behind_since.get_or_insert(now);
            }
            queue.change(zone, &mut secondary.notify, Notify::At { time: earliest, failed: 0 });
            #[cfg(test)]
            {
                self.looks += 1;
            }
        }
    }

    /// Takes over a serial that a secondary is given, if it is newer: the secondary may ask before the change is looked at.
    pub(super) fn observe_newer(&mut self, zone: &ZoneName, serial: u32, now: Instant) {
        if !self.zones.get(zone).is_some_and(|known| is_current(known.serial, serial)) {
            self.observe(zone, serial, now);
        }
    }

    /// Forgets zones that are no longer configured.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&ZoneName) -> bool) {
        let Self { zones, queues, .. } = self;
        zones.retain(|zone, known| {
            let is_wanted = is_wanted(zone);
            if !is_wanted {
                for (queue, secondary) in queues.iter_mut().zip(&mut known.secondaries) {
                    queue.change(zone, &mut secondary.notify, Notify::No);
                }
            }
            is_wanted
        });
    }

    /// The notifications that are due now, at most so many for each secondary; they count as sent.
    pub(super) fn take_due(&mut self, now: Instant, free: &mut [usize]) -> Vec<DueNotify> {
        let mut due = Vec::new();
        for (number, (queue, free)) in self.queues.iter_mut().zip(free).enumerate() {
            while *free > 0
                && let Some(zone) = queue.take_due(now)
            {
                #[cfg(test)]
                {
                    self.looks += 1;
                }
                let Some(known) = self.zones.get_mut(&zone) else { continue };
                let Some(secondary) = known.secondaries.get_mut(number) else { continue };
                *free -= 1;
                secondary.notify = secondary.notify.sent(now);
                queue.add(&zone, secondary.notify);
                known.notified = Some(now);
                due.push(DueNotify { zone, secondary: number, serial: known.serial });
            }
        }
        due
    }

    /// A secondary has acknowledged the notification of this serial.
    pub(super) fn acknowledged(&mut self, notify: &DueNotify) {
        self.answered(notify, |_| Notify::No);
    }

    /// A notification was refused, or could not be sent: it is tried again later.
    pub(super) fn failed(&mut self, notify: &DueNotify, now: Instant) {
        self.answered(notify, |sent| sent.retry(now));
    }

    /// Gives a secondary another state, if it has not acknowledged this notification and there is no newer one.
    fn answered(&mut self, notify: &DueNotify, next: impl FnOnce(Notify) -> Notify) {
        let DueNotify { zone, secondary, serial } = notify;
        if let Some(known) = self.zones.get_mut(zone).filter(|known| known.serial == *serial)
            && let Some(known) = known.secondaries.get_mut(*secondary)
            && matches!(known.notify, Notify::Sent { .. })
            && let Some(queue) = self.queues.get_mut(*secondary)
        {
            let next = next(known.notify);
            queue.change(zone, &mut known.notify, next);
        }
    }

    /// Has notifications tried again that were not acknowledged in time. Returns the secondary of each.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<usize> {
        let mut expired = Vec::new();
        for (number, queue) in self.queues.iter_mut().enumerate() {
            while let Some(zone) = queue.take_expired(now) {
                #[cfg(test)]
                {
                    self.looks += 1;
                }
                let known = self.zones.get_mut(&zone).and_then(|known| known.secondaries.get_mut(number));
                let Some(secondary) = known else { continue };
                secondary.notify = secondary.notify.retry(now);
                queue.add(&zone, secondary.notify);
                expired.push(number);
            }
        }
        expired
    }

    /// A secondary has fetched this serial, or said that it has it.
    pub(super) fn has(&mut self, zone: &ZoneName, secondary: usize, serial: u32, now: Instant) {
        let Some(known) = self.zones.get_mut(zone) else { return };
        // It may have fetched from another primary, which is ahead.
        let is_current = is_current(serial, known.serial);
        let (Some(known), Some(queue)) = (known.secondaries.get_mut(secondary), self.queues.get_mut(secondary)) else {
            return;
        };
        known.serial = Some(serial);
        let since = [known.behind_since.take(), known.unconfirmed_since.take()].into_iter().flatten().min();
        if is_current {
            queue.change(zone, &mut known.notify, Notify::No);
        } else {
            known.behind_since = Some(since.unwrap_or(now));
        }
    }

    /// A secondary has asked for the SOA and was given this serial. Then it fetches what it lacks; it fetches nothing if it has
    /// the serial from elsewhere, and also if it cannot.
    pub(super) fn asked(&mut self, zone: &ZoneName, secondary: usize, serial: u32, now: Instant) {
        if let Some(known) = self.zones.get_mut(zone).filter(|known| known.serial == serial)
            && let Some(known) = known.secondaries.get_mut(secondary)
            && known.behind_since.take().is_some()
        {
            known.unconfirmed_since.get_or_insert(now);
        }
    }

    /// What each secondary has of a zone, in their order; none while the zone cannot be fetched.
    pub(super) fn states(&self, zone: &ZoneName, now: Instant) -> Vec<SecondaryState> {
        let time = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let state = |secondary: &SecondaryProgress| SecondaryState {
            serial: secondary.serial,
            lag: time(secondary.behind_since),
            unconfirmed: time(secondary.unconfirmed_since),
        };
        self.zones.get(zone).map(|known| known.secondaries.iter().map(state).collect()).unwrap_or_default()
    }
}

/// Whether a serial is no older than ours (RFC 1982, 3.2).
pub(super) fn is_current(serial: u32, ours: u32) -> bool {
    serial.wrapping_sub(ours) < 1 << 31
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
        progress.has(&zone(), 0, 5, start);
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
        progress.has(&zone(), 0, 5, start);
        let state = |serial, lag| SecondaryState { serial, lag, ..SecondaryState::default() };
        assert_eq!(progress.states(&zone(), start + ms(300)), [state(Some(5), ms(0)), state(None, ms(300))]);
        assert_eq!(due(&mut progress, start + ms(300)), [(1, 5)], "the other one has fetched without being notified");
        progress.observe(&zone(), 6, start + ms(400));
        progress.observe(&zone(), 7, start + ms(500));
        progress.has(&zone(), 0, 6, start);
        assert_eq!(progress.states(&zone(), start + ms(900)), [state(Some(6), ms(500)), state(None, ms(900))]);
        progress.has(&zone(), 0, 7, start);
        assert_eq!(progress.states(&zone(), start + ms(900))[0], state(Some(7), ms(0)));
        progress.has(&zone(), 1, 9, start);
        assert_eq!(progress.states(&zone(), start + ms(900))[1], state(Some(9), ms(0)), "another primary is ahead");
        progress.retain(|_| false);
        progress.has(&zone(), 0, 7, start);
        assert_eq!(progress.states(&zone(), start), []);
    }

    #[test]
    fn what_is_known_of_a_secondary_stays_when_others_come_and_go() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        progress.observe(&zone(), 5, start);
        progress.has(&zone(), 1, 5, start);
        let state = |serial, lag| SecondaryState { serial, lag, ..SecondaryState::default() };
        progress.follow(&[Some(1), None], start + ms(100));
        assert_eq!(progress.states(&zone(), start + ms(300)), [state(Some(5), ms(0)), state(None, ms(200))]);
        assert_eq!(due(&mut progress, start + ms(300)), [(1, 5)], "the new one");
        progress.follow(&[Some(0)], start + ms(400));
        progress.observe(&zone(), 6, start + ms(2000));
        assert_eq!(progress.take_due(start + ms(2000), &mut [1]), [notify(0, 6)]);
    }

    #[test]
    fn what_a_secondary_has_is_known_from_its_transfers_and_its_ixfr_questions_alone() {
        let start = Instant::now();
        let mut progress = Progress::new(1);
        let state = |serial, lag, unconfirmed| SecondaryState { serial, lag: ms(lag), unconfirmed: ms(unconfirmed) };
        let states = |progress: &Progress, at| progress.states(&zone(), start + ms(at))[0];
        progress.observe(&zone(), 5, start);
        let sent = progress.take_due(start, &mut [1]);
        progress.acknowledged(&sent[0]);
        assert_eq!(
            states(&progress, 100),
            state(None, 100, 0),
            "that it knows of the change is no sign that it has it"
        );
        progress.asked(&zone(), 0, 5, start + ms(100));
        assert_eq!(states(&progress, 300), state(None, 0, 200), "it may have it from elsewhere");
        progress.observe(&zone(), 6, start + ms(400));
        assert_eq!(states(&progress, 500), state(None, 100, 400), "the change after that it lacks");
        progress.asked(&zone(), 0, 5, start + ms(500));
        assert_eq!(states(&progress, 500), state(None, 100, 400), "an older answer");
        progress.asked(&zone(), 0, 6, start + ms(500));
        assert_eq!(states(&progress, 600), state(None, 0, 500), "since the first that it has not fetched");
        progress.has(&zone(), 0, 5, start + ms(600));
        assert_eq!(states(&progress, 700), state(Some(5), 600, 0), "its question for changes says what it has");
        progress.has(&zone(), 0, 6, start + ms(700));
        assert_eq!(states(&progress, 800), state(Some(6), 0, 0));
        progress.asked(&zone(), 0, 6, start + ms(800));
        assert_eq!(states(&progress, 900), state(Some(6), 0, 0), "it refreshes");
    }

    #[test]
    fn a_secondary_that_fetches_before_the_change_is_looked_at_has_it() {
        let start = Instant::now();
        let mut progress = Progress::new(2);
        progress.observe_newer(&zone(), 5, start);
        progress.has(&zone(), 0, 5, start);
        progress.observe(&zone(), 5, start + ms(100));
        assert_eq!(progress.states(&zone(), start + ms(100))[0].lag, ms(0));
        assert_eq!(due(&mut progress, start + ms(100)), [(1, 5)]);
        progress.observe_newer(&zone(), 4, start + ms(200));
        assert_eq!(due(&mut progress, start + ms(2000)), [], "an older one is no change");
        progress.has(&zone(), 0, 9, start);
        progress.observe(&zone(), 6, start + ms(300));
        assert_eq!(progress.states(&zone(), start + ms(400))[0].lag, ms(0), "another primary is ahead");
    }

    /// Of many zones only those are looked at that have changed, or whose notification is due.
    #[test]
    fn a_look_costs_what_has_changed() {
        let start = Instant::now();
        let looks = |zones: u32| {
            let mut progress = Progress::new(16);
            let name = |number| ZoneName::parse(&format!("z{number}.example")).unwrap();
            for number in 0..zones {
                progress.observe(&name(number), 5, start);
            }
            let all = progress.take_due(start, &mut [usize::MAX; 16]);
            assert_eq!(all.len(), 16 * zones as usize);
            all.iter().for_each(|notify| progress.acknowledged(notify));
            progress.looks = 0;
            progress.observe(&name(0), 6, start + ms(1000));
            let mut sent = 0;
            for look in 10..40 {
                let now = start + ms(100) * look;
                sent += progress.take_due(now, &mut [usize::MAX; 16]).len();
                sent += progress.expire(now).len();
            }
            assert_eq!(sent, 16 + 16, "sixteen notifications, none of which is acknowledged");
            progress.looks
        };
        assert_eq!([looks(1), looks(2000)], [3 * 16; 2]);
    }
}

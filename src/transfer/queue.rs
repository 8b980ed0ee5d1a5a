//! The zones that one secondary is to be notified of, by time, so that only those are looked at whose time has come. Pure: the
//! time is an argument.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::types::ZoneName;

/// How long a secondary may take to acknowledge. One that works takes a millisecond, and a message on the way to a
/// distant one a tenth of a second.
const ACKNOWLEDGE_MAX: Duration = Duration::from_secs(2);

/// The pause before the second attempt; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest pause between attempts: what a secondary that returns waits at most, as it does by `SOA_REFRESH`.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Whether a secondary is to be notified of a zone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Notify {
    /// It has acknowledged, or fetched.
    #[default]
    No,
    /// At this time; so many attempts have failed.
    At { time: Instant, failed: u32 },
    /// It has been, and has not acknowledged yet.
    Sent { time: Instant, failed: u32 },
}

impl Notify {
    /// An attempt more has failed.
    pub(super) fn retry(self, now: Instant) -> Self {
        match self {
            Self::Sent { failed, .. } => Self::At { time: now + pause(failed), failed: failed.saturating_add(1) },
            other => other,
        }
    }

    /// It is being notified.
    pub(super) fn sent(self, now: Instant) -> Self {
        match self {
            Self::At { failed, .. } | Self::Sent { failed, .. } => Self::Sent { time: now, failed },
            Self::No => Self::No,
        }
    }
}

/// The pause after so many attempts that failed before this one.
fn pause(failed: u32) -> Duration {
    RETRY_FIRST.saturating_mul(2_u32.saturating_pow(failed)).min(RETRY_MAX)
}

/// The notifications of one secondary that are not acknowledged. Each change of a [`Notify`] goes through here.
#[derive(Debug, Default)]
pub(super) struct NotifyQueue {
    /// Those that are to be sent, by their time.
    waiting: BTreeSet<(Instant, ZoneName)>,
    /// Those that wait for an answer, by the time at which they were sent.
    sent: BTreeSet<(Instant, ZoneName)>,
}

impl NotifyQueue {
    /// Gives a zone another state.
    pub(super) fn change(&mut self, zone: &ZoneName, state: &mut Notify, to: Notify) {
        match *state {
            Notify::No => {}
            Notify::At { time, .. } => _ = self.waiting.remove(&(time, zone.clone())),
            Notify::Sent { time, .. } => _ = self.sent.remove(&(time, zone.clone())),
        }
        *state = to;
        self.add(zone, to);
    }

    /// Adds a zone that is not in it.
    pub(super) fn add(&mut self, zone: &ZoneName, state: Notify) {
        match state {
            Notify::No => {}
            Notify::At { time, .. } => _ = self.waiting.insert((time, zone.clone())),
            Notify::Sent { time, .. } => _ = self.sent.insert((time, zone.clone())),
        }
    }

    /// Takes out the zone whose time has come first. It is to be [added](Self::add) again.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<ZoneName> {
        take_first(&mut self.waiting, |time| time <= now)
    }

    /// Takes out the zone that was sent first and is not acknowledged in time. It is to be [added](Self::add) again.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<ZoneName> {
        take_first(&mut self.sent, |sent| now.saturating_duration_since(sent) >= ACKNOWLEDGE_MAX)
    }
}

fn take_first(zones: &mut BTreeSet<(Instant, ZoneName)>, is_wanted: impl Fn(Instant) -> bool) -> Option<ZoneName> {
    let (time, _) = zones.first()?;
    if is_wanted(*time) { zones.pop_first().map(|(_, zone)| zone) } else { None }
}

//! Response rate limiting: how many replies the clients of one network get over UDP.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::types::RateLimit;

/// Networks that are counted apart: half a megabyte. More networks share an entry, and then a limit. Clients
/// cannot predict which ones, because a keyed hash selects the entry.
const PLACES: usize = 1 << 16;

/// What a question may get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Its reply.
    Reply,
    /// A reply of almost nothing that makes an honest client come back over TCP, or with a cookie.
    Slip,
    /// Silence.
    Silence,
}

/// Counts replies by network and second. Its size is fixed, and workers share it without a lock.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    /// Seconds are counted from here, so that a clock that is set changes no limit.
    started: Instant,
    hasher: RandomState,
    /// The second in the upper half, the questions in it in the lower.
    places: Box<[AtomicU64]>,
}

impl Limiter {
    /// A limiter that no client has used yet.
    pub fn new(limit: RateLimit) -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { limit, started: Instant::now(), hasher: RandomState::new(), places }
    }

    /// The limit that it keeps.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts a question of a client that arrives now, and decides about it.
    pub fn admit(&self, client: IpAddr) -> Admission {
        // The number wraps after 136 years.
        self.admit_at(client, self.started.elapsed().as_secs() as u32)
    }

    fn admit_at(&self, client: IpAddr, second: u32) -> Admission {
        let place = self.hasher.hash_one(self.limit.network(client)) as usize % PLACES;
        let Some(place) = self.places.get(place) else { return Admission::Reply };
        let count = |seen: u64| match (seen >> 32, seen & u64::from(u32::MAX)) {
            // A worker that looked at its clock a moment earlier counts with the others.
            (then, questions) if then >= u64::from(second) => then << 32 | (questions + 1).min(u64::from(u32::MAX)),
            _ => u64::from(second) << 32 | 1,
        };
        let seen = place.fetch_update(Relaxed, Relaxed, |seen| Some(count(seen))).unwrap_or_default();
        let questions = count(seen) & u64::from(u32::MAX);
        match questions.checked_sub(u64::from(self.limit.per_second.get())) {
            None | Some(0) => Admission::Reply,
            Some(above) if self.limit.slip > 0 && above % u64::from(self.limit.slip) == 0 => Admission::Slip,
            Some(_) => Admission::Silence,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limiter(per_second: u32, slip: u8) -> Limiter {
        let per_second = NonZeroU32::new(per_second).unwrap();
        Limiter::new(RateLimit { per_second, slip, v4_prefix: 24, v6_prefix: 56 })
    }

    fn actions(limiter: &Limiter, client: &str, second: u32, questions: usize) -> String {
        let letter = |_| match limiter.admit_at(client.parse().unwrap(), second) {
            Admission::Reply => 'r',
            Admission::Slip => 's',
            Admission::Silence => '.',
        };
        (0..questions).map(letter).collect()
    }

    #[test]
    fn a_network_gets_so_many_replies_a_second_and_then_slips() {
        let limiter = limiter(3, 2);
        assert_eq!(actions(&limiter, "192.0.2.1", 100, 8), "rrr.s.s.");
        assert_eq!(actions(&limiter, "192.0.2.200", 100, 2), "s.", "one network");
        assert_eq!(actions(&limiter, "192.0.2.1", 99, 1), "s", "a worker that is late");
        assert_eq!(actions(&limiter, "192.0.2.1", 101, 4), "rrr.");
        assert_eq!(actions(&limiter, "2001:db8::1", 101, 3), "rrr");
    }

    #[test]
    fn seconds_are_counted_from_the_first_and_not_by_the_clock_of_the_day() {
        let limiter = limiter(1, 0);
        let client = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.admit(client), Admission::Reply);
        let later = Limiter { started: limiter.started - std::time::Duration::from_secs(1), ..limiter };
        assert_eq!(later.admit(client), Admission::Reply, "a second later");
    }

    #[test]
    fn slip_may_be_always_or_never() {
        assert_eq!(actions(&limiter(1, 1), "192.0.2.1", 100, 4), "rsss");
        assert_eq!(actions(&limiter(1, 0), "192.0.2.1", 100, 4), "r...");
    }
}

//! The names that are being asked for. Equal questions share the place of the first.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::places::{Admitted, Places};

/// Questions that share the place of an equal one. A retry of each of two thousand clients is usual when a name is slow.
pub(super) const SHARING_MAX: usize = 2048;

/// Octets of a question that shares a place. Larger ones, which no client sends, need their own.
const SHARING_OCTETS_MAX: usize = 512;

/// A question apart from its client: the name in lower case, the type, and whether signatures are wanted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct FlightKey {
    name: Vec<u8>,
    query_type: u16,
    wants_signatures: bool,
}

impl FlightKey {
    /// `name` in wire format.
    pub(super) fn new(name: &[u8], query_type: u16, wants_signatures: bool) -> Self {
        // No octet of a length is a letter.
        Self { name: name.to_ascii_lowercase(), query_type, wants_signatures }
    }
}

/// The places, and what holds them. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Flights {
    state: Arc<Mutex<State>>,
    sharing: Arc<Semaphore>,
    /// A place is shared with questions that come so long after the first: then that one is over.
    shared_for: Duration,
}

#[derive(Debug)]
struct State {
    places: Places<CancellationToken>,
    flights: HashMap<FlightKey, Weak<Flight>>,
}

/// What a question in flight holds.
#[derive(Debug)]
pub(super) struct FlightPermit {
    flight: Arc<Flight>,
    _sharing: Option<OwnedSemaphorePermit>,
}

/// A name that is being asked for. Its place is given back with its last question.
#[derive(Debug)]
struct Flight {
    flights: Flights,
    key: FlightKey,
    client: IpAddr,
    place: u64,
    displaced: CancellationToken,
    began: Instant,
}

impl Flights {
    pub(super) fn new(places: usize, shared_for: Duration) -> Self {
        let state = State { places: Places::new(places), flights: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)), sharing: Arc::new(Semaphore::new(SHARING_MAX)), shared_for }
    }

    /// A place for a question of this client that has so many octets: that of an equal question, or one of its own.
    /// `None`: the client has its share.
    pub(super) fn admit(&self, client: IpAddr, key: FlightKey, octets: usize, now: Instant) -> Option<FlightPermit> {
        if let Some(flight) = self.in_flight(&key, now)
            && octets <= SHARING_OCTETS_MAX
            && let Ok(sharing) = self.sharing.clone().try_acquire_owned()
        {
            return Some(FlightPermit { flight, _sharing: Some(sharing) });
        }
        let displaced = CancellationToken::new();
        let mut state = self.lock();
        let Admitted { place, displaced: other } = state.places.admit(client, displaced.clone(), now)?;
        let flight = Arc::new(Flight { flights: self.clone(), key: key.clone(), client, place, displaced, began: now });
        state.flights.insert(key, Arc::downgrade(&flight));
        drop(state);
        if let Some(other) = other {
            // What has its reply already is not affected.
            other.cancel();
        }
        Some(FlightPermit { flight, _sharing: None })
    }

    /// The flight with this key that another question may join. It is returned, because one that is dropped needs the lock.
    fn in_flight(&self, key: &FlightKey, now: Instant) -> Option<Arc<Flight>> {
        let flight = self.lock().flights.get(key)?.upgrade()?;
        (now.duration_since(flight.began) < self.shared_for && !flight.displaced.is_cancelled()).then_some(flight)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing behind the lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlightPermit {
    /// Resolves when the place is lost to a question of another client.
    pub(super) async fn displaced(&self) {
        self.flight.displaced.cancelled().await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.flights.lock();
        state.places.release(self.client, self.place);
        // A later flight may have the same key.
        if state.flights.get(&self.key).is_some_and(|flight| flight.strong_count() == 0) {
            state.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SHARED_FOR: Duration = Duration::from_secs(4);

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn key(name: &[u8]) -> FlightKey {
        FlightKey::new(name, 1, false)
    }

    #[test]
    fn equal_questions_share_a_place_until_the_last_is_over() {
        let flights = Flights::new(2, SHARED_FOR);
        let now = Instant::now();
        let admit = |number, name| flights.admit(client(number), key(name), 30, now);
        let slow: Vec<_> = (1..200).map(|number| admit(number, b"\x04slow\0").unwrap()).collect();
        assert!(admit(200, b"\x04SLOW\0").is_some());
        let other = admit(201, b"\x05other\0");
        assert!(other.is_some(), "all of them hold one place");
        assert!(admit(202, b"\x05third\0").is_none(), "one each is fair");
        drop(other);
        assert!(admit(202, b"\x05third\0").is_some());
        drop(slow);
        let state = flights.lock();
        assert!(state.flights.is_empty(), "{state:?}");
    }

    #[test]
    fn all_that_share_a_place_lose_it() {
        let flights = Flights::new(2, SHARED_FOR);
        let now = Instant::now();
        let admit = |number, name| flights.admit(client(number), key(name), 30, now).unwrap();
        let first = admit(1, b"\x01a\0");
        let second = admit(1, b"\x01b\0");
        let sharing = admit(2, b"\x01a\0");
        let _other = admit(3, b"\x01c\0");
        let is_displaced = |permit: &FlightPermit| permit.displaced().now_or_never().is_some();
        assert_eq!([&first, &second, &sharing].map(is_displaced), [true, false, true]);
        drop(second);
        assert!(!is_displaced(&admit(2, b"\x01a\0")), "what has lost its place is not joined");
    }

    #[test]
    fn an_old_flight_a_large_question_and_too_many_are_not_joined() {
        let flights = Flights::new(2, SHARED_FOR);
        let now = Instant::now();
        let admit = |number, octets, now| flights.admit(client(number), key(b"\x01a\0"), octets, now);
        let _first = admit(1, 30, now);
        let large = admit(2, SHARING_OCTETS_MAX + 1, now);
        assert!(large.is_some() && admit(3, SHARING_OCTETS_MAX + 1, now).is_none());
        drop(large);
        assert!(admit(2, 30, now + SHARED_FOR).is_some_and(|permit| permit._sharing.is_none()));
        let all: Vec<_> = (0..=SHARING_MAX).map(|_| admit(4, 30, now)).collect();
        assert!(all.iter().all(Option::is_some), "one place, and those that share it");
        assert!(admit(5, 30, now).is_none(), "no place of its own is left");
    }
}

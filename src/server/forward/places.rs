//! Which names may wait for upstreams at one time: a client's share is large while others need nothing.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use tokio::time::Instant;

/// A question that has waited for so long may lose its place to a client that has none: most names take less, and those
/// of dead servers all four seconds.
const DISPLACED_AFTER: Duration = Duration::from_secs(1);

/// The places of questions in flight, by client. `T` ends a question before its time.
#[derive(Debug)]
pub(super) struct Places<T> {
    free: usize,
    /// The questions of each client, the oldest first; no client without a question.
    held: HashMap<IpAddr, VecDeque<Held<T>>>,
    next: u64,
}

#[derive(Debug)]
struct Held<T> {
    place: u64,
    since: Instant,
    question: T,
}

/// A place was found.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Admitted<T> {
    /// The place, to be given back.
    pub(super) place: u64,
    /// The question that loses its place.
    pub(super) displaced: Option<T>,
}

impl<T> Places<T> {
    pub(super) fn new(count: usize) -> Self {
        Self { free: count, held: HashMap::new(), next: 0 }
    }

    /// Finds a place for a question of a client; `None`: the client has its share.
    ///
    /// When no place is free, the client with the most questions loses its oldest one, if it has more than the other
    /// then has; and else the oldest question of all is lost, if it is older than [`DISPLACED_AFTER`] and the other
    /// client has none. The oldest has waited longest, and is least likely to be answered.
    pub(super) fn admit(&mut self, client: IpAddr, question: T, now: Instant) -> Option<Admitted<T>> {
        let displaced = match self.free.checked_sub(1) {
            Some(free) => {
                self.free = free;
                None
            }
            None => Some(self.displace(client, now)?),
        };
        let place = self.next;
        self.next += 1;
        self.held.entry(client).or_default().push_back(Held { place, since: now, question });
        Some(Admitted { place, displaced })
    }

    /// Gives a place back. One that was lost to another question is not there any more.
    pub(super) fn release(&mut self, client: IpAddr, place: u64) {
        let Some(held) = self.held.get_mut(&client) else { return };
        let Some(at) = held.iter().position(|held| held.place == place) else { return };
        held.remove(at);
        self.free += 1;
        self.forget_if_empty(client);
    }

    /// Takes the oldest question of the client that has most, or the oldest of all, for one of this client.
    fn displace(&mut self, client: IpAddr, now: Instant) -> Option<T> {
        let own = self.held.get(&client).map_or(0, VecDeque::len);
        let (&largest, held) = self.held.iter().max_by_key(|(_, held)| held.len())?;
        let loser = if own + 1 < held.len() { largest } else { self.slowest(now).filter(|_| own == 0)? };
        let oldest = self.held.get_mut(&loser)?.pop_front()?;
        self.forget_if_empty(loser);
        Some(oldest.question)
    }

    /// The client whose question has waited longest, and for long.
    fn slowest(&self, now: Instant) -> Option<IpAddr> {
        let first = self.held.iter().filter_map(|(client, held)| Some((client, held.front()?)));
        let (client, oldest) = first.min_by_key(|(_, held)| held.place)?;
        (now.saturating_duration_since(oldest.since) >= DISPLACED_AFTER).then_some(*client)
    }

    fn forget_if_empty(&mut self, client: IpAddr) {
        if self.held.get(&client).is_some_and(VecDeque::is_empty) {
            self.held.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn a_client_has_all_places_until_another_one_asks() {
        let mut places = Places::new(4);
        let now = Instant::now();
        for question in 0..4 {
            let admitted = places.admit(client(1), question, now);
            assert_eq!(admitted, Some(Admitted { place: question, displaced: None }));
        }
        assert_eq!(places.admit(client(1), 4, now), None);
        assert_eq!(places.admit(client(2), 5, now), Some(Admitted { place: 4, displaced: Some(0) }), "the oldest");
        assert_eq!(places.admit(client(2), 6, now), Some(Admitted { place: 5, displaced: Some(1) }));
        assert_eq!(places.admit(client(2), 7, now), None, "two each is fair");
        assert_eq!(places.admit(client(1), 8, now), None);
        assert!(places.admit(client(3), 9, now).is_some());
        assert!(places.admit(client(4), 10, now).is_some());
        assert_eq!(places.admit(client(5), 11, now), None, "one each is fair");
        places.release(client(3), 6);
        places.release(client(3), 6);
        places.release(client(1), 0);
        assert_eq!(
            places.admit(client(5), 12, now),
            Some(Admitted { place: 8, displaced: None }),
            "one was given back"
        );
        assert_eq!(places.admit(client(6), 13, now), None, "a place is given back once, and one that was lost never");
    }

    #[test]
    fn a_question_that_has_waited_long_gives_way_to_a_client_without_one() {
        let mut places = Places::new(2);
        let start = Instant::now();
        assert!(places.admit(client(1), 1, start).is_some());
        assert!(places.admit(client(2), 2, start + DISPLACED_AFTER / 2).is_some());
        let late = start + DISPLACED_AFTER;
        assert_eq!(places.admit(client(3), 3, late - Duration::from_millis(1)), None);
        assert_eq!(places.admit(client(2), 4, late), None, "it has one");
        assert_eq!(places.admit(client(3), 5, late), Some(Admitted { place: 2, displaced: Some(1) }));
        assert_eq!(places.admit(client(4), 6, late), None);
    }

    proptest! {
        #[test]
        fn places_are_conserved(steps in prop::collection::vec((0..5_u8, any::<bool>()), 0..200)) {
            let mut places = Places::new(8);
            let now = Instant::now();
            let mut open = Vec::new();
            for (number, is_question) in steps {
                if is_question {
                    if let Some(admitted) = places.admit(client(number), places.next, now) {
                        open.retain(|(_, place)| Some(*place) != admitted.displaced);
                        open.push((number, admitted.place));
                    } else {
                        prop_assert_eq!(open.len(), 8);
                    }
                } else if let Some((number, place)) = open.pop() {
                    places.release(client(number), place);
                }
                prop_assert_eq!(places.free + open.len(), 8);
                prop_assert_eq!(places.held.values().map(VecDeque::len).sum::<usize>(), open.len());
            }
        }
    }
}

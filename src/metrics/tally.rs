//! What workers count of everyday answers: each in a place of its own, so that no two cores write to one line of memory,
//! and that of all zones side by side, so that a count is a small distance from the one before.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Counter, QueryType};

/// Zones in one piece of a tally. Pieces are made as zones need them.
const PIECE: usize = 1024;

/// Pieces of a tally. With 65,536 zones a configuration is larger than any that was thought of; those beyond are counted
/// where they are, which is slower.
const PIECES_MAX: usize = 64;

/// Whose count it is: a slot is given anew when its zone is gone, and the number of the owner is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The zone's place in a tally.
    pub slot: u32,
    /// What tells it from the zones that had the place before.
    pub number: u32,
}

/// The tallies of all workers.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Vec<Arc<Tally>>>);

/// What one worker has counted.
#[derive(Debug)]
pub struct Tally {
    /// Questions that took the fast lane.
    fast_lane: Counter,
    pieces: [OnceLock<Box<[Cell]>>; PIECES_MAX],
}

/// The count of one zone.
#[derive(Debug, Default)]
struct Cell {
    /// The number of its owner, plus one; 0: nobody's.
    owner: AtomicU64,
    a: Counter,
    aaaa: Counter,
}

impl Tallies {
    /// A tally that nobody else writes to: what a worker that is gone has left, or a new one.
    pub fn take(&self) -> Arc<Tally> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // `get_mut` sees whether anybody else has it, and what they wrote last.
        if let Some(left) = tallies.iter_mut().find_map(|tally| Arc::get_mut(tally).is_some().then(|| tally.clone())) {
            return left;
        }
        let tally = Arc::new(Tally::new());
        tallies.push(tally.clone());
        tally
    }

    /// Datagrams of this type that were answered for a zone, without an error.
    pub fn of(&self, owner: Owner, query_type: QueryType) -> u64 {
        self.sum(|tally| tally.of(owner, query_type))
    }

    /// Questions that took the fast lane.
    pub fn fast_lane(&self) -> u64 {
        self.sum(|tally| tally.fast_lane.value())
    }

    fn sum(&self, count: impl Fn(&Tally) -> u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|tally| count(tally)).sum()
    }
}

impl Tally {
    fn new() -> Self {
        Self { fast_lane: Counter::default(), pieces: [const { OnceLock::new() }; PIECES_MAX] }
    }

    /// Counts a question that took the fast lane.
    pub fn count(&self) {
        self.fast_lane.increment_alone();
    }

    /// Counts an everyday datagram of a zone; `false`: there is no place for it.
    pub fn count_datagram(&self, owner: Owner, query_type: QueryType) -> bool {
        let slot = owner.slot as usize;
        let Some(piece) = self.pieces.get(slot / PIECE) else { return false };
        let cell = &piece.get_or_init(|| (0..PIECE).map(|_| Cell::default()).collect())[slot % PIECE];
        let Some(counter) = cell.counter(query_type) else { return false };
        let number = u64::from(owner.number) + 1;
        if cell.owner.load(Relaxed) != number {
            cell.a.0.store(0, Relaxed);
            cell.aaaa.0.store(0, Relaxed);
            cell.owner.store(number, Release);
        }
        counter.increment_alone();
        true
    }

    fn of(&self, owner: Owner, query_type: QueryType) -> u64 {
        let slot = owner.slot as usize;
        let cell = self.pieces.get(slot / PIECE).and_then(OnceLock::get).map(|piece| &piece[slot % PIECE]);
        cell.filter(|cell| cell.owner.load(Acquire) == u64::from(owner.number) + 1)
            .and_then(|cell| cell.counter(query_type))
            .map_or(0, Counter::value)
    }
}

impl Cell {
    fn counter(&self, query_type: QueryType) -> Option<&Counter> {
        match query_type {
            QueryType::A => Some(&self.a),
            QueryType::Aaaa => Some(&self.aaaa),
            _ => None,
        }
    }
}

impl Counter {
    /// Adds one where nobody else does: no lock of the memory, so it costs what a plain number does.
    fn increment_alone(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_and_are_told_together() {
        let tallies = Tallies::default();
        let (one, other) = (tallies.take(), tallies.take());
        let zone = Owner { slot: 5000, number: 7 };
        for tally in [&one, &one, &other] {
            assert!(tally.count_datagram(zone, QueryType::A));
            tally.count();
        }
        assert!(other.count_datagram(zone, QueryType::Aaaa));
        assert_eq!((tallies.of(zone, QueryType::A), tallies.of(zone, QueryType::Aaaa)), (3, 1));
        assert_eq!(tallies.fast_lane(), 3);
    }

    #[test]
    fn the_next_owner_of_a_slot_begins_with_nothing() {
        let tallies = Tallies::default();
        let tally = tallies.take();
        let [first, second] = [0, 1].map(|number| Owner { slot: 3, number });
        assert!(tally.count_datagram(first, QueryType::A));
        assert_eq!((tallies.of(first, QueryType::A), tallies.of(second, QueryType::A)), (1, 0));
        assert!(tally.count_datagram(second, QueryType::A));
        assert_eq!((tallies.of(first, QueryType::A), tallies.of(second, QueryType::A)), (0, 1));
    }

    #[test]
    fn what_a_worker_counted_outlives_it() {
        let tallies = Tallies::default();
        let zone = Owner { slot: 0, number: 0 };
        for _ in 0..3 {
            let tally = tallies.take();
            assert!(tally.count_datagram(zone, QueryType::A));
        }
        assert_eq!((tallies.of(zone, QueryType::A), tallies.0.lock().unwrap().len()), (3, 1));
    }

    #[test]
    fn a_slot_too_many_has_no_place() {
        let tallies = Tallies::default();
        let last = PIECE * PIECES_MAX;
        for (slot, place) in [(last - 1, true), (last, false)] {
            let zone = Owner { slot: u32::try_from(slot).unwrap(), number: 0 };
            assert_eq!(tallies.take().count_datagram(zone, QueryType::A), place);
            assert_eq!(tallies.of(zone, QueryType::A), u64::from(place));
        }
    }
}

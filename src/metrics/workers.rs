//! Per-worker counters of fast-path answers. Each worker writes to counters of its own, so that no two cores write to one
//! cache line, and the counters of all zones lie side by side in memory.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Counter, QueryType};

/// Zones in one chunk of a worker's counters. Chunks are allocated when a zone needs them.
const CHUNK: usize = 1024;

/// Chunks of one worker. 65,536 zones are more than any configuration has; zones beyond that are counted in their shared
/// counters, which is slower.
const CHUNKS_MAX: usize = 64;

/// Identifies a zone entry of this process. An index is reused when its zone is gone; a generation never is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ZoneId {
    /// Position in per-worker arrays: the lowest that was free.
    pub index: u32,
    /// Distinguishes the zone from those that had the index before.
    pub generation: u32,
}

/// The counters of all workers.
#[derive(Debug, Default)]
pub struct AllWorkers(Mutex<Vec<Arc<WorkerCounters>>>);

/// The counters of one worker.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Queries answered on the fast path.
    fast_path: Counter,
    chunks: [OnceLock<Box<[Cell]>>; CHUNKS_MAX],
}

/// The counters of one zone.
#[derive(Debug, Default)]
struct Cell {
    /// The zone's generation plus one; 0: no zone yet.
    generation: AtomicU64,
    a: Counter,
    aaaa: Counter,
}

impl AllWorkers {
    /// Counters for one worker to write to: those of a worker that has ended, or new ones.
    pub fn take(&self) -> Arc<WorkerCounters> {
        let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // `get_mut` succeeds only when no worker holds it, and synchronizes with the last write.
        if let Some(left) = workers.iter_mut().find_map(|worker| Arc::get_mut(worker).is_some().then(|| worker.clone()))
        {
            return left;
        }
        let worker = Arc::new(WorkerCounters::new());
        workers.push(worker.clone());
        worker
    }

    /// UDP queries of this type that were answered for a zone, without an error.
    pub fn of(&self, zone: ZoneId, query_type: QueryType) -> u64 {
        self.sum(|worker| worker.of(zone, query_type))
    }

    /// Queries answered on the fast path.
    pub fn fast_path(&self) -> u64 {
        self.sum(|worker| worker.fast_path.value())
    }

    fn sum(&self, count: impl Fn(&WorkerCounters) -> u64) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|worker| count(worker)).sum()
    }
}

impl WorkerCounters {
    fn new() -> Self {
        Self { fast_path: Counter::default(), chunks: [const { OnceLock::new() }; CHUNKS_MAX] }
    }

    /// Counts a query that was answered on the fast path.
    pub fn count(&self) {
        self.fast_path.increment_alone();
    }

    /// Counts a UDP query of type A or AAAA for a zone; `false`: this worker has no counter for it.
    pub fn count_datagram(&self, zone: ZoneId, query_type: QueryType) -> bool {
        let index = zone.index as usize;
        let Some(chunk) = self.chunks.get(index / CHUNK) else { return false };
        let cell = &chunk.get_or_init(|| (0..CHUNK).map(|_| Cell::default()).collect())[index % CHUNK];
        let Some(counter) = cell.counter(query_type) else { return false };
        let generation = u64::from(zone.generation) + 1;
        if cell.generation.load(Relaxed) != generation {
            cell.a.0.store(0, Relaxed);
            cell.aaaa.0.store(0, Relaxed);
            cell.generation.store(generation, Release);
        }
        counter.increment_alone();
        true
    }

    fn of(&self, zone: ZoneId, query_type: QueryType) -> u64 {
        let index = zone.index as usize;
        let cell = self.chunks.get(index / CHUNK).and_then(OnceLock::get).map(|chunk| &chunk[index % CHUNK]);
        cell.filter(|cell| cell.generation.load(Acquire) == u64::from(zone.generation) + 1)
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
    /// Adds one without an atomic read-modify-write: only the owning worker writes.
    fn increment_alone(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_workers_are_added() {
        let workers = AllWorkers::default();
        let one = workers.take();
        let other = workers.take();
        let zone = ZoneId { index: 5000, generation: 7 };
        for worker in [&one, &one, &other] {
            assert!(worker.count_datagram(zone, QueryType::A));
            worker.count();
        }
        assert!(other.count_datagram(zone, QueryType::Aaaa));
        assert_eq!((workers.of(zone, QueryType::A), workers.of(zone, QueryType::Aaaa)), (3, 1));
        assert_eq!(workers.fast_path(), 3);
    }

    #[test]
    fn the_next_zone_of_an_index_starts_at_zero() {
        let workers = AllWorkers::default();
        let worker = workers.take();
        let [first, second] = [0, 1].map(|generation| ZoneId { index: 3, generation });
        assert!(worker.count_datagram(first, QueryType::A));
        assert_eq!((workers.of(first, QueryType::A), workers.of(second, QueryType::A)), (1, 0));
        assert!(worker.count_datagram(second, QueryType::A));
        assert_eq!((workers.of(first, QueryType::A), workers.of(second, QueryType::A)), (0, 1));
    }

    #[test]
    fn the_counts_of_a_worker_stay_when_it_ends() {
        let workers = AllWorkers::default();
        let zone = ZoneId { index: 0, generation: 0 };
        for _ in 0..3 {
            let worker = workers.take();
            assert!(worker.count_datagram(zone, QueryType::A));
        }
        assert_eq!((workers.of(zone, QueryType::A), workers.0.lock().unwrap().len()), (3, 1));
    }

    #[test]
    fn an_index_beyond_the_maximum_has_no_counter() {
        let workers = AllWorkers::default();
        let last = CHUNK * CHUNKS_MAX;
        for (index, place) in [(last - 1, true), (last, false)] {
            let zone = ZoneId { index: u32::try_from(index).unwrap(), generation: 0 };
            assert_eq!(workers.take().count_datagram(zone, QueryType::A), place);
            assert_eq!(workers.of(zone, QueryType::A), u64::from(place));
        }
    }
}

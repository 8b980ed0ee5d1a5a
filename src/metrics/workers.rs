//! Per-worker counters of fast-path answers. Each worker writes to counters of its own, so that no two cores write to one
//! cache line, and the counters of all zones lie side by side in memory.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{Counter, Label, QueryType, Rcode};

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
    frequent: Chunks<FREQUENT>,
    rare: Chunks<RARE>,
}

/// What most questions are counted in: A, AAAA and HTTPS, answered without an error. With ten thousand zones these counters
/// are read from memory that was not read recently, so they are few.
const FREQUENT: usize = 3;

/// All other replies that the fast path gives: each type with NOERROR and with NXDOMAIN.
const RARE: usize = 2 * QueryType::ALL.len();

/// Where a reply is counted in the cell of its zone.
#[derive(Clone, Copy)]
enum CounterIndex {
    Frequent(usize),
    Rare(usize),
}

impl CounterIndex {
    /// `None`: the fast path gives no such reply.
    fn of(query_type: QueryType, rcode: Rcode) -> Option<Self> {
        match (query_type, rcode) {
            (QueryType::A, Rcode::NoError) => Some(Self::Frequent(0)),
            (QueryType::Aaaa, Rcode::NoError) => Some(Self::Frequent(1)),
            (QueryType::Https, Rcode::NoError) => Some(Self::Frequent(2)),
            (_, Rcode::NoError) => Some(Self::Rare(query_type.index())),
            (_, Rcode::NxDomain) => Some(Self::Rare(QueryType::ALL.len() + query_type.index())),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Chunks<const N: usize>([OnceLock<Box<[Cell<N>]>>; CHUNKS_MAX]);

/// Counters of one zone. Aligned so that the frequent ones lie in one cache line.
#[derive(Debug)]
#[repr(align(32))]
struct Cell<const N: usize> {
    /// The zone's generation plus one; 0: no zone yet.
    generation: AtomicU64,
    counters: [Counter; N],
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

    /// UDP queries of this type that were answered for a zone with this rcode.
    pub fn of(&self, zone: ZoneId, query_type: QueryType, rcode: Rcode) -> u64 {
        CounterIndex::of(query_type, rcode).map_or(0, |index| self.sum(|worker| worker.of(zone, index)))
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
        Self { fast_path: Counter::default(), frequent: Chunks::new(), rare: Chunks::new() }
    }

    /// Counts a query that was answered on the fast path.
    pub fn count(&self) {
        self.fast_path.increment_alone();
    }

    /// Counts a UDP query that was answered for a zone; `false`: this worker has no counter for it.
    #[inline]
    pub fn count_datagram(&self, zone: ZoneId, query_type: QueryType, rcode: Rcode) -> bool {
        match CounterIndex::of(query_type, rcode) {
            Some(CounterIndex::Frequent(at)) => self.frequent.count(zone, at),
            Some(CounterIndex::Rare(at)) => self.rare.count(zone, at),
            None => false,
        }
    }

    fn of(&self, zone: ZoneId, index: CounterIndex) -> u64 {
        match index {
            CounterIndex::Frequent(at) => self.frequent.value(zone, at),
            CounterIndex::Rare(at) => self.rare.value(zone, at),
        }
    }
}

impl<const N: usize> Chunks<N> {
    fn new() -> Self {
        Self([const { OnceLock::new() }; CHUNKS_MAX])
    }

    #[inline]
    fn count(&self, zone: ZoneId, at: usize) -> bool {
        let index = zone.index as usize;
        let Some(chunk) = self.0.get(index / CHUNK) else { return false };
        let cell = &chunk.get_or_init(|| (0..CHUNK).map(|_| Cell::new()).collect())[index % CHUNK];
        let generation = u64::from(zone.generation) + 1;
        if cell.generation.load(Relaxed) != generation {
            cell.counters.iter().for_each(|counter| counter.0.store(0, Relaxed));
            cell.generation.store(generation, Release);
        }
        cell.counters[at].increment_alone();
        true
    }

    fn value(&self, zone: ZoneId, at: usize) -> u64 {
        self.cell(zone)
            .filter(|cell| cell.generation.load(Acquire) == u64::from(zone.generation) + 1)
            .map_or(0, |cell| cell.counters[at].value())
    }

    fn cell(&self, zone: ZoneId) -> Option<&Cell<N>> {
        let index = zone.index as usize;
        self.0.get(index / CHUNK).and_then(OnceLock::get).map(|chunk| &chunk[index % CHUNK])
    }
}

impl<const N: usize> Cell<N> {
    fn new() -> Self {
        Self { generation: AtomicU64::new(0), counters: [const { Counter(AtomicU64::new(0)) }; N] }
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
            assert!(worker.count_datagram(zone, QueryType::A, Rcode::NoError));
            worker.count();
        }
        assert!(other.count_datagram(zone, QueryType::Aaaa, Rcode::NoError));
        assert_eq!(
            (workers.of(zone, QueryType::A, Rcode::NoError), workers.of(zone, QueryType::Aaaa, Rcode::NoError)),
            (3, 1)
        );
        assert_eq!(workers.fast_path(), 3);
    }

    #[test]
    fn each_reply_of_the_fast_path_has_a_counter_of_its_own() {
        let workers = AllWorkers::default();
        let worker = workers.take();
        let zone = ZoneId { index: 1, generation: 0 };
        let kinds = QueryType::ALL.iter().flat_map(|&kind| [(kind, Rcode::NoError), (kind, Rcode::NxDomain)]);
        for (times, (query_type, rcode)) in kinds.clone().enumerate() {
            assert!((0..times).all(|_| worker.count_datagram(zone, query_type, rcode)));
        }
        for (times, (query_type, rcode)) in kinds.enumerate() {
            assert_eq!(workers.of(zone, query_type, rcode), times as u64, "{query_type:?} {rcode:?}");
        }
        assert!(!worker.count_datagram(zone, QueryType::A, Rcode::Refused));
        assert_eq!(workers.of(zone, QueryType::A, Rcode::Refused), 0);
    }

    #[test]
    fn the_next_zone_of_an_index_starts_at_zero() {
        let workers = AllWorkers::default();
        let worker = workers.take();
        let [first, second] = [0, 1].map(|generation| ZoneId { index: 3, generation });
        assert!(worker.count_datagram(first, QueryType::A, Rcode::NoError));
        assert_eq!(
            (workers.of(first, QueryType::A, Rcode::NoError), workers.of(second, QueryType::A, Rcode::NoError)),
            (1, 0)
        );
        assert!(worker.count_datagram(second, QueryType::A, Rcode::NoError));
        assert_eq!(
            (workers.of(first, QueryType::A, Rcode::NoError), workers.of(second, QueryType::A, Rcode::NoError)),
            (0, 1)
        );
    }

    #[test]
    fn the_counts_of_a_worker_stay_when_it_ends() {
        let workers = AllWorkers::default();
        let zone = ZoneId { index: 0, generation: 0 };
        for _ in 0..3 {
            let worker = workers.take();
            assert!(worker.count_datagram(zone, QueryType::A, Rcode::NoError));
        }
        assert_eq!((workers.of(zone, QueryType::A, Rcode::NoError), workers.0.lock().unwrap().len()), (3, 1));
    }

    #[test]
    fn an_index_beyond_the_maximum_has_no_counter() {
        let workers = AllWorkers::default();
        let last = CHUNK * CHUNKS_MAX;
        for (index, is_counted) in [(last - 1, true), (last, false)] {
            let zone = ZoneId { index: u32::try_from(index).unwrap(), generation: 0 };
            assert_eq!(workers.take().count_datagram(zone, QueryType::A, Rcode::NoError), is_counted);
            assert_eq!(workers.of(zone, QueryType::A, Rcode::NoError), u64::from(is_counted));
        }
    }
}

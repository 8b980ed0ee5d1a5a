//! What one thread keeps to answer from: a copy of each zone's addresses, shuffled, and of what else the fast path needs.

mod shuffle;
mod zone;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use smallvec::Array;

pub(super) use self::zone::{ClientMatters, NameServerRecords, ZoneSummary};
use self::{
    shuffle::ShuffleBag,
    zone::{CachedZone, INLINE_V4, INLINE_V6, NEVER},
};
use super::soa::SoaParts;
use crate::{
    metrics::{ProcessCounters, QueryType, Rcode, Transport, WorkerCounters, ZoneId},
    table::{Addresses, Row, table_version},
};

/// Chooses the nodes of every answer of one thread. Workers share nothing.
///
/// In any run of answers from one list, no node is more than two answers ahead of another.
pub struct Worker {
    random: StdRng,
    cache: ZoneCache,
    scratch: Scratch,
    /// Where this worker counts; `None`: it has counted nothing yet.
    counters: Option<Arc<WorkerCounters>>,
}

/// Copies of zones, by the index of their id. With ten thousand zones most of the time is spent on memory that was not
/// read recently. A query reads one entry here, and nothing of the zone itself.
#[derive(Default)]
struct ZoneCache(Vec<CachedZone>);

/// The addresses of the last answer. The buffers keep their capacity, so that choosing allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

/// An IPv4 or IPv6 address.
pub(super) trait Address: Copy {
    /// Octets of the address.
    const OCTETS: u8;
    /// The addresses that lie in a [`CachedZone`] itself.
    type Inline: Array<Item = Self>;
    fn bag(zone: &mut CachedZone) -> &mut ShuffleBag<Self::Inline>;
    fn scratch(scratch: &mut Scratch) -> &mut Vec<Self>;
    /// Appends the octets.
    fn write(self, out: &mut Vec<u8>);
}

impl Address for Ipv4Addr {
    const OCTETS: u8 = 4;
    type Inline = [Self; INLINE_V4];

    fn bag(zone: &mut CachedZone) -> &mut ShuffleBag<Self::Inline> {
        &mut zone.v4
    }

    fn scratch(scratch: &mut Scratch) -> &mut Vec<Self> {
        &mut scratch.v4
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }
}

impl Address for Ipv6Addr {
    const OCTETS: u8 = 16;
    type Inline = [Self; INLINE_V6];

    fn bag(zone: &mut CachedZone) -> &mut ShuffleBag<Self::Inline> {
        &mut zone.v6
    }

    fn scratch(scratch: &mut Scratch) -> &mut Vec<Self> {
        &mut scratch.v6
    }

    #[inline]
    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.octets());
    }
}

impl Worker {
    /// A worker whose choices no client can predict: the generator is a cryptographic one, and the system seeds it.
    pub fn new() -> Self {
        Self::with(rand::make_rng())
    }

    /// A worker that makes the same choices for the same questions, so that a test can repeat them.
    #[doc(hidden)]
    pub fn seeded(seed: u64) -> Self {
        Self::with(StdRng::seed_from_u64(seed))
    }

    fn with(random: StdRng) -> Self {
        Self { random, cache: ZoneCache::default(), scratch: Scratch::default(), counters: None }
    }

    /// The current summary of a zone. What the other methods say of the zone is of the same moment.
    pub(super) fn summary(&mut self, row: &Row) -> ZoneSummary {
        // Read before the answers: what is published in between makes the copy old for the next question.
        let version = table_version();
        let zone = self.cache.zone(row.id);
        if zone.version != version {
            zone.copy(&row.entry);
            zone.version = version;
        }
        zone.summary
    }

    /// How many addresses of a family the zone's cached list has.
    pub(super) fn count_of<A: Address>(&mut self, id: ZoneId) -> usize {
        A::bag(self.cache.zone(id)).len()
    }

    /// Chooses `count` different addresses of the zone's cached list, or all when it has no more, in random order.
    pub(super) fn pick<A: Address>(&mut self, id: ZoneId, count: usize) -> &[A] {
        let picked = A::scratch(&mut self.scratch);
        A::bag(self.cache.zone(id)).pick(count, &mut self.random, picked);
        picked
    }

    /// The zone's SOA; `None`: only the slow path can write it.
    pub(super) fn soa(&mut self, id: ZoneId) -> Option<SoaParts<'_>> {
        self.cache.zone(id).soa()
    }

    /// The zone's NS records, if they were made for this table and the zone's current serial.
    pub(super) fn name_servers(&mut self, id: ZoneId, table_version: u64) -> Option<&NameServerRecords> {
        self.cache.zone(id).name_servers(table_version)
    }

    /// Keeps NS records for the next question.
    pub(super) fn keep_name_servers(&mut self, id: ZoneId, records: NameServerRecords) {
        self.cache.zone(id).keep_name_servers(records);
    }

    /// The same for a list that the caller has read.
    pub(super) fn pick_from<A: Address>(&mut self, id: ZoneId, list: &Addresses<A>, count: usize) -> &[A] {
        let zone = self.cache.zone(id);
        if A::bag(zone).update(list) {
            // The list may be older than the zone's.
            zone.version = NEVER;
        }
        self.pick(id, count)
    }

    /// Counts an answer of the fast path about a zone.
    #[inline]
    pub(super) fn count(
        &mut self,
        row: &Row,
        kind: (QueryType, Rcode),
        transport: Transport,
        counters: &ProcessCounters,
    ) {
        self.count_fast(counters);
        self.count_row(row, kind, transport, counters);
    }

    /// Counts an answer of the fast path where a row counts its own: that of a zone, or of the view that it came from.
    #[inline]
    pub(super) fn count_row(
        &mut self,
        row: &Row,
        (query_type, rcode): (QueryType, Rcode),
        transport: Transport,
        counters: &ProcessCounters,
    ) {
        let own = self.counters.get_or_insert_with(|| counters.workers.take());
        if transport != Transport::Udp || !own.count_datagram(row.id, query_type, rcode) {
            row.entry.counters().queries.of(query_type, rcode, transport).increment();
        }
    }

    /// Counts an answer of the fast path.
    pub(super) fn count_fast(&mut self, counters: &ProcessCounters) {
        self.counters.get_or_insert_with(|| counters.workers.take()).count();
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("zones", &self.cache.0.len()).finish_non_exhaustive()
    }
}

impl ZoneCache {
    /// The copy of a zone; an empty one where the index belonged to another zone.
    #[inline]
    fn zone(&mut self, id: ZoneId) -> &mut CachedZone {
        let index = id.index as usize;
        if index >= self.0.len() {
            self.grow(index + 1);
        }
        let zone = &mut self.0[index];
        if zone.generation != id.generation {
            zone.reset(id.generation);
        }
        zone
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        self.0.resize_with(len, CachedZone::default);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        table::{Knowledge, ZoneEntry, ZoneSettings},
        types::{NodeSet, ZoneName},
    };

    /// The sizes that chance is tested with: nodes of a zone and how many an answer names. Where the second is half of the
    /// first, a bag whose rounds all began alike would fail.
    const SIZES: [(u32, usize); 10] = [(2, 1), (3, 1), (7, 1), (3, 2), (4, 2), (5, 2), (5, 4), (6, 3), (8, 4), (9, 6)];

    /// So many addresses, which count from 0.
    fn list(total: u32) -> Addresses<Ipv4Addr> {
        Addresses::new((0..total).map(Ipv4Addr::from_bits))
    }

    const ZONE: ZoneId = ZoneId { index: 0, generation: 0 };

    /// A choice from such a list.
    fn pick(worker: &mut Worker, list: &Addresses<Ipv4Addr>, count: usize) -> Vec<usize> {
        worker.pick_from(ZONE, list, count).iter().map(|node| node.to_bits() as usize).collect()
    }

    /// The sum over all cells of (seen - expected)² / expected.
    fn chi_square(seen: &[u32]) -> f64 {
        let expected = f64::from(seen.iter().sum::<u32>()) / seen.len() as f64;
        seen.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
    }

    /// Fails where what was seen has a probability below one in a thousand. The limit of chi-square is that of Wilson
    /// and Hilferty.
    #[track_caller]
    fn assert_uniform(seen: &[u32], cells: usize, what: &str) {
        assert_eq!(seen.len(), cells, "{what}: some were never seen");
        let freedom = cells as f64 - 1.0;
        let part = 2.0 / (9.0 * freedom);
        let limit = freedom * (1.0 - part + 3.09 * part.sqrt()).powi(3);
        assert!(chi_square(seen) < limit, "{what}: {seen:?}");
    }

    /// n! / (n - k)!
    fn orders(total: u32, count: usize) -> usize {
        let total = total as usize;
        (total - count + 1..=total).product()
    }

    fn subsets(total: u32, count: usize) -> usize {
        orders(total, count) / (1..=count).product::<usize>()
    }

    /// How often each was seen.
    fn counters<T: Ord>(seen: impl IntoIterator<Item = T>) -> Vec<u32> {
        let mut counters = BTreeMap::<T, u32>::new();
        for one in seen {
            *counters.entry(one).or_default() += 1;
        }
        counters.into_values().collect()
    }

    fn sorted(mut picked: Vec<usize>) -> Vec<usize> {
        picked.sort_unstable();
        picked
    }

    fn ahead(named: &[u32]) -> u32 {
        named.iter().max().unwrap() - named.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn no_node_is_more_than_two_answers_ahead(
            total in 1_u32..30,
            counts in prop::collection::vec(1_usize..33, 1..200),
            start in any::<prop::sample::Index>(),
            seed in any::<u64>(),
        ) {
            let list = list(total);
            let mut worker = Worker::seeded(seed);
            let mut named = vec![0; total as usize];
            for (number, &count) in counts.iter().enumerate() {
                if number == start.index(counts.len()) {
                    named.fill(0);
                }
                let picked = pick(&mut worker, &list, count);
                prop_assert_eq!(picked.len(), count.min(named.len()));
                for &node in &picked {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 2, "{named:?}");
                let mut picked = sorted(picked);
                picked.dedup();
                prop_assert_eq!(picked.len(), count.min(named.len()), "each at most once");
            }
        }

        #[test]
        fn with_one_or_all_per_answer_no_node_is_more_than_one_ahead(
            total in 1_u32..30,
            all in prop::collection::vec(any::<bool>(), 1..200),
            seed in any::<u64>(),
        ) {
            let list = list(total);
            let mut worker = Worker::seeded(seed);
            let mut named = vec![0; total as usize];
            for all in all {
                for node in pick(&mut worker, &list, if all { named.len() } else { 1 }) {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 1, "{named:?}");
            }
        }
    }

    #[test]
    fn every_subset_is_picked_equally_often() {
        for (seed, (total, count)) in (0..).zip(SIZES) {
            let list = list(total);
            let mut worker = Worker::seeded(seed);
            let picks = (0..200 * subsets(total, count)).map(|_| sorted(pick(&mut worker, &list, count)));
            assert_uniform(&counters(picks), subsets(total, count), &format!("{count} of {total}"));
        }
    }

    /// Each picked of a fresh worker by itself, so that no dependence of one picked on another hides anything.
    #[test]
    fn every_answer_has_every_order_equally_often() {
        for (total, count) in [(3, 1), (4, 2), (5, 2), (4, 3), (3, 3), (4, 9)] {
            let mut picks = vec![Vec::new(); 6];
            for seed in 0..12_000 {
                let list = list(total);
                let mut worker = Worker::seeded(seed);
                for picked in &mut picks {
                    picked.push(pick(&mut worker, &list, count));
                }
            }
            for (number, picks) in picks.into_iter().enumerate() {
                let what = format!("picked {number} of {count} of {total}");
                assert_uniform(&counters(picks), orders(total, count.min(total as usize)), &what);
            }
        }
    }

    #[test]
    fn every_node_comes_first_equally_often() {
        for (total, count) in SIZES.into_iter().chain([(3, 3), (100, 1), (100, 30), (100, 100)]) {
            let list = list(total);
            let mut worker = Worker::seeded(7);
            let first = (0..300 * total).map(|_| pick(&mut worker, &list, count)[0]);
            assert_uniform(&counters(first), total as usize, &format!("{count} of {total}"));
        }
    }

    #[test]
    fn an_answer_does_not_predict_the_next() {
        let list = list(4);
        let mut worker = Worker::seeded(1);
        let mut picked = || sorted(pick(&mut worker, &list, 2));
        let picks: Vec<_> = (0..1000).map(|_| picked()).collect();
        let disjoint = picks.windows(2).filter(|pair| pair[0].iter().all(|node| !pair[1].contains(node))).count();
        assert!(disjoint < 500, "{disjoint} of 1000 picks were all that the one before was not");
        let sequence = |mut worker: Worker| (0..200).flat_map(|_| pick(&mut worker, &list, 1)).collect::<Vec<_>>();
        assert_ne!(sequence(Worker::new()), sequence(Worker::new()), "no two workers make the same choices");
        assert_eq!(sequence(Worker::seeded(1)), sequence(Worker::seeded(1)));
    }

    fn entry(name: &str) -> Arc<ZoneEntry> {
        Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), ZoneSettings::example(), 1))
    }

    /// Lets a zone have these nodes, in both families.
    fn learn(entry: &ZoneEntry, nodes: impl Iterator<Item = u8> + Clone) {
        let v4 = nodes.clone().map(|node| IpAddr::from([10, 0, 0, node]));
        let v6 = nodes.map(|node| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, node.into()]));
        entry.learn(&Knowledge::up(&NodeSet::new(v4.chain(v6)).unwrap(), crate::types::ZoneState::Live), 1);
    }

    #[test]
    fn the_share_of_a_removed_node_goes_to_all_others() {
        let zone = entry("a.test");
        let mut worker = Worker::seeded(3);
        learn(&zone, 1..=10);
        let mut picks = |answers: usize| counters((0..answers).flat_map(|_| pick(&mut worker, &zone.answers().v4, 1)));
        assert_eq!(picks(1007).iter().sum::<u32>(), 1007, "the last round has begun when the set changes");
        learn(&zone, 2..=10);
        assert_eq!(picks(900), [100; 9]);
        learn(&zone, 2..=11);
        assert_eq!(picks(900), [90; 10]);
    }

    #[test]
    fn a_change_without_other_addresses_does_not_disturb_a_round() {
        let zone = entry("a.test");
        let mut worker = Worker::seeded(3);
        let row = Row { id: zone.id(), entry: zone.clone() };
        learn(&zone, 1..=10);
        let mut round = Vec::new();
        for serial in 0..10 {
            let subdomains = serial % 2 == 0;
            zone.configure(&ZoneSettings { subdomains, ..ZoneSettings::example() }, serial);
            learn(&zone, 1..=10);
            assert_eq!(worker.summary(&row).subdomains, subdomains);
            assert_eq!(worker.count_of::<Ipv4Addr>(row.id), 10);
            round.extend_from_slice(worker.pick::<Ipv4Addr>(row.id, 1));
        }
        assert_eq!(counters(round), [1; 10]);
    }

    #[test]
    fn a_list_that_a_caller_has_read_is_not_taken_for_the_current_one() {
        let zone = entry("a.test");
        let mut worker = Worker::seeded(3);
        let row = Row { id: zone.id(), entry: zone.clone() };
        learn(&zone, 1..=10);
        let before = zone.answers().v4.clone();
        learn(&zone, 1..=3);
        let current = |worker: &mut Worker| {
            worker.summary(&row);
            worker.count_of::<Ipv4Addr>(row.id)
        };
        assert_eq!(current(&mut worker), 3);
        assert_eq!(worker.pick_from(row.id, &before, 10).len(), 10);
        assert_eq!(current(&mut worker), 3);
    }

    #[test]
    fn a_zone_that_reuses_an_index_is_copied() {
        let mut worker = Worker::seeded(3);
        for nodes in 1..20 {
            let zone = entry("a.test");
            learn(&zone, 1..=nodes);
            let row = Row { id: zone.id(), entry: zone };
            worker.summary(&row);
            assert_eq!(worker.count_of::<Ipv6Addr>(row.id), usize::from(nodes));
            assert_eq!(worker.pick::<Ipv6Addr>(row.id, 99).len(), usize::from(nodes));
        }
    }

    #[test]
    fn no_node_and_very_many_nodes() {
        let mut worker = Worker::seeded(1);
        for (total, count, expected) in [(1, 1, 1), (0, 1, 0), (5, 5, 5), (5, 9, 5), (5, 0, 0), (70_000, 1, 1)] {
            assert_eq!(pick(&mut worker, &list(total), count).len(), expected);
        }
    }
}

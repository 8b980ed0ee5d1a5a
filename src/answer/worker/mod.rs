//! What one worker keeps of each zone: the bags that it deals from, and what an everyday answer needs to know.

mod shuffle;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rand::{SeedableRng, rngs::StdRng};
use smallvec::Array;

use self::shuffle::ShuffleBag;
use crate::{
    metrics::{ProcessCounters, QueryType, Rcode, Transport, WorkerCounters},
    table::{Addresses, Row, ZoneEntry, table_version},
    types::{AllowedClients, AnswerCount, ZoneState},
};

/// Addresses of each family in a cached itself. A zone of more nodes has them elsewhere in memory, and costs a look there.
const INLINE_V4: usize = 12;
const INLINE_V6: usize = 3;

/// Deals the nodes of every zone to the questions of one worker, which shares nothing of it.
///
/// In any run of answers from one list, no node is more than two answers ahead of another.
pub struct Worker {
    random: StdRng,
    /// By the zones' slots. With ten thousand zones it is the distance between what is read that costs time: here each
    /// question reads one place, and of the zone itself nothing.
    zones: Vec<CachedZone>,
    scratch: Scratch,
    /// Where this worker counts; `None`: it has nothing to count yet.
    counters: Option<Arc<WorkerCounters>>,
}

/// What is kept of one zone, in each worker that has been asked. In this order and from the start of a line of memory,
/// what a question for A reads are two lines of it.
#[derive(Default)]
#[repr(C, align(64))]
pub(super) struct CachedZone {
    /// The [`table_version`] at which it was true.
    seen: u64,
    summary: ZoneSummary,
    v4: ShuffleBag<[Ipv4Addr; INLINE_V4]>,
    v6: ShuffleBag<[Ipv6Addr; INLINE_V6]>,
}

/// Three lines of memory, so that ten thousand zones take 2 MB in each worker.
const _: () = assert!(size_of::<CachedZone>() == 3 * 64);

/// What an everyday answer needs to know of a zone, beside its addresses.
#[derive(Clone, Copy)]
pub(super) struct ZoneSummary {
    /// TTL of the addresses, in seconds.
    pub(super) ttl: u32,
    pub(super) count: AnswerCount,
    pub(super) subdomains: bool,
    /// Any may ask.
    pub(super) is_open: bool,
    /// The nodes were not heard of lately.
    pub(super) is_stale: bool,
}

/// The addresses of the last answer. They keep their room, so that dealing allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

/// An address that is dealt.
pub(super) trait Address: Copy {
    /// Those that lie in a cached.
    type Few: Array<Item = Self>;
    fn bag(cached: &mut CachedZone) -> &mut ShuffleBag<Self::Few>;
    fn hand(scratch: &mut Scratch) -> &mut Vec<Self>;
}

impl Address for Ipv4Addr {
    type Few = [Self; INLINE_V4];

    fn bag(cached: &mut CachedZone) -> &mut ShuffleBag<Self::Few> {
        &mut cached.v4
    }

    fn hand(scratch: &mut Scratch) -> &mut Vec<Self> {
        &mut scratch.v4
    }
}

impl Address for Ipv6Addr {
    type Few = [Self; INLINE_V6];

    fn bag(cached: &mut CachedZone) -> &mut ShuffleBag<Self::Few> {
        &mut cached.v6
    }

    fn hand(scratch: &mut Scratch) -> &mut Vec<Self> {
        &mut scratch.v6
    }
}

impl Worker {
    /// A worker whom no client can predict: the generator is a cryptographic one, and the system seeds it.
    pub fn new() -> Self {
        Self::with(rand::make_rng())
    }

    /// A worker who deals the same to the same questions, so that a test can ask twice.
    #[doc(hidden)]
    pub fn seeded(seed: u64) -> Self {
        Self::with(StdRng::seed_from_u64(seed))
    }

    fn with(random: StdRng) -> Self {
        Self { random, zones: Vec::new(), scratch: Scratch::default(), counters: None }
    }

    /// What is to be known of a zone, and how many addresses of a family it answers now. They can be
    /// [dealt](Self::deal) then.
    pub(super) fn summary<A: Address>(&mut self, row: &Row) -> (ZoneSummary, usize) {
        // Before the answers are read: of what is published later the next question learns.
        let published = table_version();
        let cached = cached(&mut self.zones, row.id.index);
        if cached.seen != published {
            cached.copy(&row.entry);
            cached.seen = published;
        }
        (cached.summary, A::bag(cached).len())
    }

    /// Deals so many different addresses of a zone's list as it was last seen, or all of them when it has no more, in
    /// random order.
    pub(super) fn deal<A: Address>(&mut self, index: u32, count: usize) -> &[A] {
        let hand = A::hand(&mut self.scratch);
        A::bag(cached(&mut self.zones, index)).deal(count, &mut self.random, hand);
        hand
    }

    /// The same for a list that the caller has read.
    pub(super) fn deal_from<A: Address>(&mut self, index: u32, list: &Addresses<A>, count: usize) -> &[A] {
        let cached = cached(&mut self.zones, index);
        if A::bag(cached).follow(list) {
            // It may be another one than the zone's newest: whoever asks for that looks anew.
            cached.seen = 0;
        }
        self.deal(index, count)
    }

    /// Counts an everyday answer.
    pub(super) fn count(&mut self, row: &Row, query_type: QueryType, transport: Transport, counters: &ProcessCounters) {
        let counters = self.counters.get_or_insert_with(|| counters.workers.take());
        counters.count();
        if transport != Transport::Udp || !counters.count_datagram(row.id, query_type) {
            row.entry.counters().queries.of(query_type, Rcode::NoError, transport).increment();
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("zones", &self.zones.len()).finish_non_exhaustive()
    }
}

fn cached(zones: &mut Vec<CachedZone>, index: u32) -> &mut CachedZone {
    let at = index as usize;
    if at >= zones.len() {
        zones.resize_with(at + 1, CachedZone::default);
    }
    &mut zones[at]
}

impl CachedZone {
    fn copy(&mut self, zone: &ZoneEntry) {
        let answers = zone.answers();
        self.summary = ZoneSummary {
            ttl: answers.address_ttl(),
            count: answers.settings.count,
            subdomains: answers.settings.subdomains,
            is_open: answers.settings.clients == AllowedClients::Any,
            is_stale: answers.state() == ZoneState::Stale,
        };
        self.v4.follow(&answers.v4);
        self.v6.follow(&answers.v6);
    }
}

impl Default for ZoneSummary {
    /// Of no zone.
    fn default() -> Self {
        Self { ttl: 0, count: AnswerCount::ONE, subdomains: false, is_open: false, is_stale: false }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        table::{Knowledge, ZoneSettings},
        types::{NodeSet, ZoneName},
    };

    /// The sizes that chance is judged by: nodes of a zone and how many an answer names. Where the second is half of
    /// the first, a bag without its care for that would fail.
    const SIZES: [(u32, usize); 10] = [(2, 1), (3, 1), (7, 1), (3, 2), (4, 2), (5, 2), (5, 4), (6, 3), (8, 4), (9, 6)];

    /// So many addresses, which count from 0.
    fn list(total: u32) -> Addresses<Ipv4Addr> {
        Addresses::new((0..total).map(Ipv4Addr::from_bits))
    }

    /// What is dealt of such a list to the zone in index 0.
    fn deal(worker: &mut Worker, list: &Addresses<Ipv4Addr>, count: usize) -> Vec<usize> {
        worker.deal_from(0, list, count).iter().map(|node| node.to_bits() as usize).collect()
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

    fn sorted(mut hand: Vec<usize>) -> Vec<usize> {
        hand.sort_unstable();
        hand
    }

    fn ahead(named: &[u32]) -> u32 {
        named.iter().max().unwrap() - named.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn nobody_is_more_than_two_ahead(
            total in 1_u32..30,
            counts in prop::collection::vec(1_usize..33, 1..200),
            start in any::<prop::sample::Index>(),
            seed in any::<u64>(),
        ) {
            let (list, mut worker) = (list(total), Worker::seeded(seed));
            let mut named = vec![0; total as usize];
            for (number, &count) in counts.iter().enumerate() {
                if number == start.index(counts.len()) {
                    named.fill(0);
                }
                let hand = deal(&mut worker, &list, count);
                prop_assert_eq!(hand.len(), count.min(named.len()));
                for &node in &hand {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 2, "{named:?}");
                let mut hand = sorted(hand);
                hand.dedup();
                prop_assert_eq!(hand.len(), count.min(named.len()), "each at most once");
            }
        }

        #[test]
        fn one_at_a_time_or_all_at_once_nobody_is_more_than_one_ahead(
            total in 1_u32..30,
            all in prop::collection::vec(any::<bool>(), 1..200),
            seed in any::<u64>(),
        ) {
            let (list, mut worker) = (list(total), Worker::seeded(seed));
            let mut named = vec![0; total as usize];
            for all in all {
                for node in deal(&mut worker, &list, if all { named.len() } else { 1 }) {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 1, "{named:?}");
            }
        }
    }

    #[test]
    fn every_subset_is_dealt_equally_often() {
        for (seed, (total, count)) in (0..).zip(SIZES) {
            let (list, mut worker) = (list(total), Worker::seeded(seed));
            let scratch = (0..200 * subsets(total, count)).map(|_| sorted(deal(&mut worker, &list, count)));
            assert_uniform(&counters(scratch), subsets(total, count), &format!("{count} of {total}"));
        }
    }

    /// Each hand of a fresh worker by itself, so that no dependence of one hand on another hides anything.
    #[test]
    fn every_hand_has_every_order_equally_often() {
        for (total, count) in [(3, 1), (4, 2), (5, 2), (4, 3), (3, 3), (4, 9)] {
            let mut scratch = vec![Vec::new(); 6];
            for seed in 0..12_000 {
                let (list, mut worker) = (list(total), Worker::seeded(seed));
                for hand in &mut scratch {
                    hand.push(deal(&mut worker, &list, count));
                }
            }
            for (number, scratch) in scratch.into_iter().enumerate() {
                let what = format!("hand {number} of {count} of {total}");
                assert_uniform(&counters(scratch), orders(total, count.min(total as usize)), &what);
            }
        }
    }

    #[test]
    fn every_node_comes_first_equally_often() {
        for (total, count) in SIZES.into_iter().chain([(3, 3), (100, 1), (100, 30), (100, 100)]) {
            let (list, mut worker) = (list(total), Worker::seeded(7));
            let first = (0..300 * total).map(|_| deal(&mut worker, &list, count)[0]);
            assert_uniform(&counters(first), total as usize, &format!("{count} of {total}"));
        }
    }

    #[test]
    fn a_hand_does_not_tell_the_next() {
        let (list, mut worker) = (list(4), Worker::seeded(1));
        let mut hand = || sorted(deal(&mut worker, &list, 2));
        let scratch: Vec<_> = (0..1000).map(|_| hand()).collect();
        let disjoint = scratch.windows(2).filter(|pair| pair[0].iter().all(|node| !pair[1].contains(node))).count();
        assert!(disjoint < 500, "{disjoint} of 1000 scratch were all that the one before was not");
        let sequence = |mut worker: Worker| (0..200).flat_map(|_| deal(&mut worker, &list, 1)).collect::<Vec<_>>();
        assert_ne!(sequence(Worker::new()), sequence(Worker::new()), "no two workers deal alike");
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
    fn the_share_of_a_node_that_is_gone_goes_to_all_others() {
        let (zone, mut worker) = (entry("a.test"), Worker::seeded(3));
        learn(&zone, 1..=10);
        let mut deals = |deals: usize| counters((0..deals).flat_map(|_| deal(&mut worker, &zone.answers().v4, 1)));
        assert_eq!(deals(1007).iter().sum::<u32>(), 1007, "the last round has begun when the set changes");
        learn(&zone, 2..=10);
        assert_eq!(deals(900), [100; 9]);
        learn(&zone, 2..=11);
        assert_eq!(deals(900), [90; 10]);
    }

    #[test]
    fn news_that_change_no_address_do_not_disturb_a_round() {
        let (zone, mut worker) = (entry("a.test"), Worker::seeded(3));
        let row = Row { id: zone.id(), entry: zone.clone() };
        learn(&zone, 1..=10);
        let mut round = Vec::new();
        for serial in 0..10 {
            let subdomains = serial % 2 == 0;
            zone.configure(&ZoneSettings { subdomains, ..ZoneSettings::example() }, serial);
            learn(&zone, 1..=10);
            let (summary, total) = worker.summary::<Ipv4Addr>(&row);
            assert_eq!((summary.subdomains, total), (subdomains, 10));
            round.extend_from_slice(worker.deal::<Ipv4Addr>(row.id.index, 1));
        }
        assert_eq!(counters(round), [1; 10]);
    }

    #[test]
    fn a_list_that_others_have_read_does_not_pass_for_the_newest() {
        let (zone, mut worker) = (entry("a.test"), Worker::seeded(3));
        let row = Row { id: zone.id(), entry: zone.clone() };
        learn(&zone, 1..=10);
        let before = zone.answers().v4.clone();
        learn(&zone, 1..=3);
        assert_eq!(worker.summary::<Ipv4Addr>(&row).1, 3);
        assert_eq!(worker.deal_from(row.id.index, &before, 10).len(), 10);
        assert_eq!(worker.summary::<Ipv4Addr>(&row).1, 3);
    }

    #[test]
    fn a_zone_that_takes_the_slot_of_another_is_seen() {
        let mut worker = Worker::seeded(3);
        for nodes in 1..20 {
            let zone = entry("a.test");
            learn(&zone, 1..=nodes);
            let row = Row { id: zone.id(), entry: zone };
            assert_eq!(worker.summary::<Ipv6Addr>(&row).1, usize::from(nodes));
            assert_eq!(worker.deal::<Ipv6Addr>(row.id.index, 99).len(), usize::from(nodes));
        }
    }

    #[test]
    fn there_may_be_no_node_or_very_many() {
        let mut worker = Worker::seeded(1);
        for (total, count, dealt) in [(1, 1, 1), (0, 1, 0), (5, 5, 5), (5, 9, 5), (5, 0, 0), (70_000, 1, 1)] {
            assert_eq!(deal(&mut worker, &list(total), count).len(), dealt);
        }
    }
}

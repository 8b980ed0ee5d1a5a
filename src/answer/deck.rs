//! Which nodes an answer names, and in which order: every node equally often, and no client knows the next.
//!
//! A list of addresses has a deck: its places, shuffled. Answers are dealt from it, and it is shuffled anew when it runs
//! out, so that no node can fall behind or run ahead. Each worker has decks of its own and shares nothing.

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::table::{Addresses, Answers, Edition, ZoneTable};

/// Decks kept for each zone of the table. Two are in use, one for each family; as many again may be of lists that are
/// answered no more, so that the search for those comes rarely enough to cost nothing.
const DECKS_PER_ZONE_MAX: usize = 4;

/// The last place in a list that has a card. Sixteen bits keep decks small, and a cluster of 65,536 nodes is far from
/// any that exists; the nodes of a larger one that are listed later are not named.
const PLACE_MAX: u16 = u16::MAX;

/// Deals the nodes of every zone to the questions of one worker.
///
/// In any run of answers from one list, no node is more than two answers ahead of another.
#[derive(Debug)]
pub struct Dealer {
    random: StdRng,
    decks: FxHashMap<Edition, Deck>,
    /// The cards of one answer. It keeps its room, so that dealing allocates only for a list that is new.
    hand: Vec<u16>,
}

impl Dealer {
    /// A dealer whom no client can predict: the generator is a cryptographic one, and the system seeds it.
    pub fn new() -> Self {
        Self::with(rand::make_rng())
    }

    /// A dealer who deals the same to the same questions, so that a test can ask twice.
    #[doc(hidden)]
    pub fn seeded(seed: u64) -> Self {
        Self::with(StdRng::seed_from_u64(seed))
    }

    fn with(random: StdRng) -> Self {
        Self { random, decks: FxHashMap::default(), hand: Vec::new() }
    }

    /// Deals so many different addresses of a list, or all of them when it has no more, in random order.
    pub fn deal<A: Copy>(&mut self, list: &Addresses<A>, count: usize) -> impl Iterator<Item = A> {
        let Self { random, decks, hand } = self;
        hand.clear();
        if count >= list.len() {
            hand.extend(places(list));
        } else {
            let deck = decks.entry(list.edition()).or_insert_with(|| Deck::new(places(list), count, random));
            deck.deal(count, random, hand);
        }
        // Otherwise the cards that were left of a round would come before those of the next, and all would come in the
        // order of the list.
        hand.shuffle(random);
        hand.iter().filter_map(|&place| list.get(usize::from(place)).copied())
    }

    /// Throws away the decks of lists that the table answers no more, once there are too many of them. To be called
    /// from time to time; mostly it only compares two numbers.
    pub fn tidy(&mut self, table: &ZoneTable) {
        let most = DECKS_PER_ZONE_MAX * table.len();
        if self.decks.len() > most {
            let editions = |answers: &Answers| [answers.v4.edition(), answers.v6.edition()];
            let current: FxHashSet<_> = table.entries().flat_map(|entry| editions(&entry.answers())).collect();
            self.decks.retain(|edition, _| current.contains(edition));
            self.decks.shrink_to(most);
        }
    }
}

impl Default for Dealer {
    fn default() -> Self {
        Self::new()
    }
}

/// The places of a list that a deck has cards for.
fn places<A>(list: &[A]) -> impl Iterator<Item = u16> {
    (0..=PLACE_MAX).take(list.len())
}

/// The places of one list. In each round every card is dealt once.
#[derive(Debug)]
struct Deck {
    /// Those in front are still to be dealt in this round, the last of them first.
    cards: Box<[u16]>,
    left: usize,
}

impl Deck {
    /// A shuffled deck for hands of about so many cards.
    ///
    /// Where a hand has several cards, the first round lacks one, so that hands lie across the ends of rounds. If two
    /// hands were exactly a round, the second would always be what the first is not: subsets would come in pairs, and
    /// whoever saw the one would know the other.
    fn new(places: impl Iterator<Item = u16>, count: usize, random: &mut StdRng) -> Self {
        let mut cards: Box<[u16]> = places.collect();
        cards.shuffle(random);
        let left = cards.len().saturating_sub(usize::from(count > 1));
        Self { cards, left }
    }

    /// Deals fewer cards than there are in all, each once in a hand. Those that are missing at the end of a round come
    /// from the next one, which begins with cards that are not in the hand already.
    fn deal(&mut self, count: usize, random: &mut StdRng, hand: &mut Vec<u16>) {
        if self.left == 0 {
            self.cards.shuffle(random);
            self.left = self.cards.len();
        }
        let (left, dealt) = self.cards.split_at_mut(self.left);
        if let Some(rest) = left.len().checked_sub(count) {
            hand.extend(&left[rest..]);
            self.left = rest;
        } else {
            hand.extend(&*left);
            let (picked, others) = dealt.partial_shuffle(random, count - left.len());
            hand.extend(&*picked);
            self.left += others.len();
            self.cards[..self.left].shuffle(random);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        table::{Knowledge, Settings, ZoneEntry},
        zone::{NodeSet, ZoneName},
    };

    /// The sizes that chance is judged by: nodes of a zone and how many an answer names. Where the second is half of
    /// the first, a deck without its care for that would fail.
    const SIZES: [(usize, usize); 10] =
        [(2, 1), (3, 1), (7, 1), (3, 2), (4, 2), (5, 2), (5, 4), (6, 3), (8, 4), (9, 6)];

    fn list(total: usize) -> Addresses<usize> {
        Addresses::new(0..total)
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
    fn orders(total: usize, count: usize) -> usize {
        (total - count + 1..=total).product()
    }

    fn subsets(total: usize, count: usize) -> usize {
        orders(total, count) / orders(count, count)
    }

    /// How often each was seen.
    fn tally<T: Ord>(seen: impl IntoIterator<Item = T>) -> Vec<u32> {
        let mut tally = BTreeMap::<T, u32>::new();
        for one in seen {
            *tally.entry(one).or_default() += 1;
        }
        tally.into_values().collect()
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
            total in 1_usize..30,
            counts in prop::collection::vec(1_usize..33, 1..200),
            start in any::<prop::sample::Index>(),
            seed in any::<u64>(),
        ) {
            let (list, mut dealer) = (list(total), Dealer::seeded(seed));
            let mut named = vec![0; total];
            for (number, &count) in counts.iter().enumerate() {
                if number == start.index(counts.len()) {
                    named.fill(0);
                }
                let hand: Vec<_> = dealer.deal(&list, count).collect();
                prop_assert_eq!(hand.len(), count.min(total));
                for &node in &hand {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 2, "{named:?}");
                let mut hand = sorted(hand);
                hand.dedup();
                prop_assert_eq!(hand.len(), count.min(total), "each at most once");
            }
        }

        #[test]
        fn one_at_a_time_or_all_at_once_nobody_is_more_than_one_ahead(
            total in 1_usize..30,
            all in prop::collection::vec(any::<bool>(), 1..200),
            seed in any::<u64>(),
        ) {
            let (list, mut dealer) = (list(total), Dealer::seeded(seed));
            let mut named = vec![0; total];
            for all in all {
                for node in dealer.deal(&list, if all { total } else { 1 }) {
                    named[node] += 1;
                }
                prop_assert!(ahead(&named) <= 1, "{named:?}");
            }
        }
    }

    #[test]
    fn every_subset_is_dealt_equally_often() {
        for (seed, (total, count)) in (0..).zip(SIZES) {
            let (list, mut dealer) = (list(total), Dealer::seeded(seed));
            let hands = (0..200 * subsets(total, count)).map(|_| sorted(dealer.deal(&list, count).collect()));
            assert_uniform(&tally(hands), subsets(total, count), &format!("{count} of {total}"));
        }
    }

    /// Each hand of a fresh dealer by itself, so that no dependence of one hand on another hides anything.
    #[test]
    fn every_hand_has_every_order_equally_often() {
        for (total, count) in [(3, 1), (4, 2), (5, 2), (4, 3), (3, 3), (4, 9)] {
            let mut hands = vec![Vec::new(); 6];
            for seed in 0..12_000 {
                let (list, mut dealer) = (list(total), Dealer::seeded(seed));
                for hand in &mut hands {
                    hand.push(dealer.deal(&list, count).collect::<Vec<_>>());
                }
            }
            for (number, hands) in hands.into_iter().enumerate() {
                let what = format!("hand {number} of {count} of {total}");
                assert_uniform(&tally(hands), orders(total, count.min(total)), &what);
            }
        }
    }

    #[test]
    fn every_node_comes_first_equally_often() {
        for (total, count) in SIZES.into_iter().chain([(3, 3), (100, 1), (100, 30), (100, 100)]) {
            let (list, mut dealer) = (list(total), Dealer::seeded(7));
            let first = (0..300 * total).map(|_| dealer.deal(&list, count).next().unwrap());
            assert_uniform(&tally(first), total, &format!("{count} of {total}"));
        }
    }

    #[test]
    fn a_hand_does_not_tell_the_next() {
        let (list, mut dealer) = (list(4), Dealer::seeded(1));
        let mut hand = || sorted(dealer.deal(&list, 2).collect());
        let hands: Vec<_> = (0..1000).map(|_| hand()).collect();
        let disjoint = hands.windows(2).filter(|pair| pair[0].iter().all(|node| !pair[1].contains(node))).count();
        assert!(disjoint < 500, "{disjoint} of 1000 hands were all that the one before was not");
        let sequence = |mut dealer: Dealer| (0..200).flat_map(|_| dealer.deal(&list, 1).next()).collect::<Vec<_>>();
        assert_ne!(sequence(Dealer::new()), sequence(Dealer::new()), "no two workers deal alike");
        assert_eq!(sequence(Dealer::seeded(1)), sequence(Dealer::seeded(1)));
    }

    fn entry(name: &str) -> Arc<ZoneEntry> {
        Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), Settings::example(), 1))
    }

    /// Lets a zone have these nodes, in both families.
    fn learn(entry: &ZoneEntry, nodes: impl Iterator<Item = u8> + Clone) {
        let v4 = nodes.clone().map(|node| IpAddr::from([10, 0, 0, node]));
        let v6 = nodes.map(|node| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, node.into()]));
        entry.learn(&Knowledge::up(&NodeSet::new(v4.chain(v6)).unwrap(), crate::zone::ZoneState::Live), 1);
    }

    #[test]
    fn the_share_of_a_node_that_is_gone_goes_to_all_others() {
        let (zone, mut dealer) = (entry("a.test"), Dealer::seeded(3));
        learn(&zone, 1..=10);
        let mut deal = |deals: usize| tally((0..deals).flat_map(|_| dealer.deal(&zone.answers().v4, 1).next()));
        assert_eq!(deal(1007).iter().sum::<u32>(), 1007, "the last round has begun when the set changes");
        learn(&zone, 2..=10);
        assert_eq!(deal(900), [100; 9]);
        learn(&zone, 2..=11);
        assert_eq!(deal(900), [90; 10]);
    }

    #[test]
    fn news_that_change_no_address_do_not_disturb_a_round() {
        let (zone, mut dealer) = (entry("a.test"), Dealer::seeded(3));
        learn(&zone, 1..=10);
        let mut round = Vec::new();
        for serial in 0..10 {
            zone.configure(&Settings { subdomains: serial % 2 == 0, ..Settings::example() }, serial);
            learn(&zone, 1..=10);
            round.extend(dealer.deal(&zone.answers().v4, 1));
        }
        assert_eq!(tally(round), [1; 10]);
    }

    #[test]
    fn what_leaves_no_choice_needs_no_deck() {
        let mut dealer = Dealer::seeded(1);
        assert_eq!(dealer.deal(&list(1), 1).collect::<Vec<_>>(), [0]);
        assert_eq!(dealer.deal(&list(0), 1).count(), 0);
        assert_eq!(dealer.deal(&list(5), 5).count(), 5);
        assert_eq!(dealer.deal(&list(5), 9).count(), 5);
        assert!(dealer.decks.is_empty());
        assert_eq!(dealer.deal(&list(5), 0).count(), 0);
        assert_eq!(dealer.deal(&list(70_000), 1).count(), 1);
    }

    #[test]
    fn decks_of_former_lists_are_thrown_away() {
        let entries: Vec<_> = (0..50).map(|n| entry(&format!("z{n}.test"))).collect();
        let table = ZoneTable::new(entries.clone());
        let mut dealer = Dealer::seeded(1);
        for change in 0..100 {
            for entry in &entries {
                learn(entry, 1..=3 + change % 2);
                dealer.tidy(&table);
                let answers = entry.answers();
                assert_eq!((dealer.deal(&answers.v4, 1).count(), dealer.deal(&answers.v6, 1).count()), (1, 1));
                assert!(dealer.decks.len() <= DECKS_PER_ZONE_MAX * 50 + 2);
            }
        }
        for entry in &entries {
            assert!(dealer.decks.contains_key(&entry.answers().v4.edition()), "those in use stay");
        }
        dealer.tidy(&ZoneTable::new(entries[..2].iter().cloned()));
        assert_eq!(dealer.decks.len(), 4, "zones that are gone leave nothing");
        dealer.tidy(&ZoneTable::default());
        assert!(dealer.decks.is_empty() && dealer.decks.capacity() < 16);
    }
}

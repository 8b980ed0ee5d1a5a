//! Which nodes an answer names, and in which order: every node equally often, and no client knows the next.
//!
//! A list of addresses has a deck, shuffled. Answers are dealt from it, and it is shuffled anew when it runs out, so that
//! no node can fall behind or run ahead.

use rand::{rngs::StdRng, seq::SliceRandom};
use smallvec::{Array, SmallVec};

use crate::table::{Addresses, ListVersion};

/// The addresses of one list. In each round every one is dealt once.
///
/// `Few` says how many lie in the deck itself, not behind a pointer.
pub(super) struct Deck<Few: Array> {
    /// The list that this is a deck of; `None`: of no list yet.
    version: Option<ListVersion>,
    /// Those in front are still to be dealt in this round, the last of them first.
    left: usize,
    /// Nothing has been dealt yet.
    is_new: bool,
    cards: SmallVec<Few>,
}

impl<Few: Array> Default for Deck<Few> {
    /// Of no list yet.
    fn default() -> Self {
        Self { version: None, left: 0, is_new: true, cards: SmallVec::new() }
    }
}

impl<A: Copy, Few: Array<Item = A>> Deck<Few> {
    /// Becomes the deck of a list, and tells whether it was another one's.
    pub(super) fn follow(&mut self, list: &Addresses<A>) -> bool {
        let is_another = self.version != Some(list.version());
        if is_another {
            self.version = Some(list.version());
            self.cards.clear();
            self.cards.extend_from_slice(list);
            // A hundred nodes may have become three.
            self.cards.shrink_to_fit();
            self.is_new = true;
        }
        is_another
    }

    /// How many addresses there are.
    pub(super) fn len(&self) -> usize {
        self.cards.len()
    }

    /// Deals so many different addresses into `hand`, or all when there are no more, in random order.
    pub(super) fn deal(&mut self, count: usize, random: &mut StdRng, hand: &mut Vec<A>) {
        hand.clear();
        if count >= self.cards.len() {
            hand.extend_from_slice(&self.cards);
        } else {
            self.deal_some(count, random, hand);
        }
        // Otherwise the cards that were left of a round would come before those of the next, and all would come in the
        // order of the list.
        hand.shuffle(random);
    }

    /// Fewer than there are in all. Those that are missing at the end of a round come from the next one, which begins
    /// with cards that are not in the hand already.
    fn deal_some(&mut self, count: usize, random: &mut StdRng, hand: &mut Vec<A>) {
        if self.is_new {
            self.begin(count, random);
        } else if self.left == 0 {
            self.cards.shuffle(random);
            self.left = self.cards.len();
        }
        let (left, dealt) = self.cards.split_at_mut(self.left);
        if let Some(rest) = left.len().checked_sub(count) {
            hand.extend_from_slice(&left[rest..]);
            self.left = rest;
        } else {
            hand.extend_from_slice(left);
            let (picked, others) = dealt.partial_shuffle(random, count - left.len());
            hand.extend_from_slice(picked);
            self.left += others.len();
            self.cards[..self.left].shuffle(random);
        }
    }

    /// The first round, for hands of about so many cards.
    ///
    /// Where a hand has several cards, it lacks one, so that hands lie across the ends of rounds. If two hands were
    /// exactly a round, the second would always be what the first is not: subsets would come in pairs, and whoever saw
    /// the one would know the other.
    fn begin(&mut self, count: usize, random: &mut StdRng) {
        self.cards.shuffle(random);
        self.left = self.cards.len().saturating_sub(usize::from(count > 1));
        self.is_new = false;
    }
}

//! Which nodes an answer names, and in which order: every node equally often, and no client knows the next.
//!
//! A list of addresses has a bag, shuffled. Answers are dealt from it, and it is shuffled anew when it runs out, so that
//! no node can fall behind or run ahead.

use rand::{rngs::StdRng, seq::SliceRandom};
use smallvec::{Array, SmallVec};

use crate::table::{Addresses, ListVersion};

/// The addresses of one list. In each round every one is dealt once.
///
/// `Few` says how many lie in the bag itself, not behind a pointer.
pub(in crate::answer) struct ShuffleBag<Few: Array> {
    /// The list that this is a bag of; `None`: of no list yet.
    version: Option<ListVersion>,
    /// Those in front are still to be dealt in this round, the last of them first.
    left: usize,
    /// Nothing has been dealt yet.
    is_new: bool,
    addresses: SmallVec<Few>,
}

impl<Few: Array> Default for ShuffleBag<Few> {
    /// Of no list yet.
    fn default() -> Self {
        Self { version: None, left: 0, is_new: true, addresses: SmallVec::new() }
    }
}

impl<A: Copy, Few: Array<Item = A>> ShuffleBag<Few> {
    /// Becomes the bag of a list, and tells whether it was another one's.
    pub(super) fn follow(&mut self, list: &Addresses<A>) -> bool {
        let is_another = self.version != Some(list.version());
        if is_another {
            self.version = Some(list.version());
            self.addresses.clear();
            self.addresses.extend_from_slice(list);
            // A hundred nodes may have become three.
            self.addresses.shrink_to_fit();
            self.is_new = true;
        }
        is_another
    }

    /// How many addresses there are.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Deals so many different addresses into `hand`, or all when there are no more, in random order.
    pub(super) fn deal(&mut self, count: usize, random: &mut StdRng, hand: &mut Vec<A>) {
        hand.clear();
        if count >= self.addresses.len() {
            hand.extend_from_slice(&self.addresses);
        } else {
            self.deal_some(count, random, hand);
        }
        // Otherwise the addresses that were left of a round would come before those of the next, and all would come in the
        // order of the list.
        hand.shuffle(random);
    }

    /// Fewer than there are in all. Those that are missing at the end of a round come from the next one, which begins
    /// with addresses that are not in the hand already.
    fn deal_some(&mut self, count: usize, random: &mut StdRng, hand: &mut Vec<A>) {
        if self.is_new {
            self.begin(count, random);
        } else if self.left == 0 {
            self.addresses.shuffle(random);
            self.left = self.addresses.len();
        }
        let (left, dealt) = self.addresses.split_at_mut(self.left);
        if let Some(rest) = left.len().checked_sub(count) {
            hand.extend_from_slice(&left[rest..]);
            self.left = rest;
        } else {
            hand.extend_from_slice(left);
            let (picked, others) = dealt.partial_shuffle(random, count - left.len());
            hand.extend_from_slice(picked);
            self.left += others.len();
            self.addresses[..self.left].shuffle(random);
        }
    }

    /// The first round, for scratch of about so many addresses.
    ///
    /// Where a hand has several addresses, it lacks one, so that scratch lie across the ends of rounds. If two scratch were
    /// exactly a round, the second would always be what the first is not: subsets would come in pairs, and whoever saw
    /// the one would know the other.
    fn begin(&mut self, count: usize, random: &mut StdRng) {
        self.addresses.shuffle(random);
        self.left = self.addresses.len().saturating_sub(usize::from(count > 1));
        self.is_new = false;
    }
}

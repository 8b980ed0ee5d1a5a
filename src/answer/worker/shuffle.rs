//! Which nodes an answer names, and in which order: every node equally often, and unpredictable for clients.
//!
//! A shuffle bag holds a list of addresses in random order. Answers take addresses from its end; when it is empty, it is
//! shuffled again, so that no node is named much more or less often than another.

use rand::{rngs::StdRng, seq::SliceRandom};
use smallvec::{Array, SmallVec};

use crate::table::{Addresses, ListVersion};

/// The addresses of one list. In each round every one is taken once.
///
/// `Inline` says how many lie in the bag itself, not behind a pointer.
pub(in crate::answer) struct ShuffleBag<Inline: Array> {
    /// The list that this is the bag of; `None`: of no list yet.
    version: Option<ListVersion>,
    /// How many are still to be taken in this round: the first ones, the last of them first.
    remaining: u32,
    /// Whether nothing has been taken yet.
    is_new: bool,
    addresses: SmallVec<Inline>,
}

impl<Inline: Array> Default for ShuffleBag<Inline> {
    /// Of no list yet.
    fn default() -> Self {
        Self { version: None, remaining: 0, is_new: true, addresses: SmallVec::new() }
    }
}

impl<A: Copy, Inline: Array<Item = A>> ShuffleBag<Inline> {
    /// Becomes the bag of a list, and returns whether it was another list's.
    pub(super) fn update(&mut self, list: &Addresses<A>) -> bool {
        let is_other = self.version != Some(list.version());
        if is_other {
            self.version = Some(list.version());
            self.addresses.clear();
            self.addresses.extend_from_slice(list);
            // A hundred nodes may have become three.
            self.addresses.shrink_to_fit();
            self.is_new = true;
        }
        is_other
    }

    /// How many addresses there are.
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Puts `count` different addresses into `picked`, or all when there are no more, in random order.
    pub(super) fn pick(&mut self, count: usize, random: &mut StdRng, picked: &mut Vec<A>) {
        picked.clear();
        if count >= self.addresses.len() {
            picked.extend_from_slice(&self.addresses);
        } else {
            self.pick_some(count, random, picked);
        }
        // Without this, the last addresses of a round would come before those of the next, and all addresses would come
        // in the order of the list.
        picked.shuffle(random);
    }

    /// Takes fewer than there are in all. Those that are missing at the end of a round come from the next one, which
    /// begins with addresses that are not in `picked` already.
    fn pick_some(&mut self, count: usize, random: &mut StdRng, picked: &mut Vec<A>) {
        if self.is_new {
            self.begin(count, random);
        } else if self.remaining == 0 {
            self.addresses.shuffle(random);
            self.set_remaining(self.addresses.len());
        }
        let (remaining, taken) = self.addresses.split_at_mut(self.remaining as usize);
        if let Some(rest) = remaining.len().checked_sub(count) {
            picked.extend_from_slice(&remaining[rest..]);
            self.set_remaining(rest);
        } else {
            picked.extend_from_slice(remaining);
            let (next, others) = taken.partial_shuffle(random, count - remaining.len());
            picked.extend_from_slice(next);
            let remaining = remaining.len() + others.len();
            self.set_remaining(remaining);
            self.addresses[..remaining].shuffle(random);
        }
    }

    /// Begins the first round, for answers of about `count` addresses.
    ///
    /// Where an answer has several addresses, the round lacks one, so that answers lie across the ends of rounds. If two
    /// answers were exactly a round, the second would always be what the first is not: a client that saw the one would
    /// know the other.
    fn begin(&mut self, count: usize, random: &mut StdRng) {
        self.addresses.shuffle(random);
        self.set_remaining(self.addresses.len().saturating_sub(usize::from(count > 1)));
        self.is_new = false;
    }

    /// A list of more than four billion addresses, which no zone has, would begin its rounds early.
    fn set_remaining(&mut self, count: usize) {
        self.remaining = u32::try_from(count).unwrap_or(u32::MAX);
    }
}

//! Small numbers for zones: what a worker keeps of each zone lies in arrays of its own, side by side in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, PoisonError},
};

use crate::metrics::Owner;

/// A place that no other living zone has. The lowest that is free is given, so an array by these places is never longer
/// than there were zones at one time.
#[derive(Debug)]
pub(super) struct Slot(Owner);

/// Places that were given back, the first that never was given, and how often one was given.
struct Free {
    returned: BinaryHeap<Reverse<u32>>,
    next: u32,
    given: u32,
}

static FREE: Mutex<Free> = Mutex::new(Free { returned: BinaryHeap::new(), next: 0, given: 0 });

impl Slot {
    pub(super) fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = free.returned.pop().map_or(free.next, |Reverse(slot)| slot);
        free.next = free.next.max(slot + 1);
        free.given = free.given.wrapping_add(1);
        Self(Owner { slot, number: free.given })
    }

    pub(super) fn owner(&self) -> Owner {
        self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).returned.push(Reverse(self.0.slot));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn living_zones_have_different_places() {
        let slots: Vec<_> = (0..100).map(|_| Slot::take()).collect();
        let places: BTreeSet<_> = slots.iter().map(|slot| slot.owner().slot).collect();
        let numbers: BTreeSet<_> = slots.iter().map(|slot| slot.owner().number).collect();
        assert_eq!((places.len(), numbers.len()), (100, 100));
    }
}

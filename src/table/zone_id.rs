//! Allocates zone ids: small indices, so that workers keep what they cache of each zone in arrays.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, PoisonError},
};

use crate::metrics::ZoneId;

/// A zone id that no other living zone has; dropping it frees the index. The lowest free index is given, so an array by
/// index is never longer than the largest number of zones at one time.
#[derive(Debug)]
pub(super) struct AllocatedZoneId(ZoneId);

struct Free {
    returned: BinaryHeap<Reverse<u32>>,
    /// The lowest index that was never given.
    next: u32,
    /// The generation that was given last.
    generation: u32,
}

static FREE: Mutex<Free> = Mutex::new(Free { returned: BinaryHeap::new(), next: 0, generation: 0 });

impl AllocatedZoneId {
    pub(super) fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.returned.pop().map_or(free.next, |Reverse(index)| index);
        free.next = free.next.max(index + 1);
        free.generation = free.generation.wrapping_add(1);
        Self(ZoneId { index, generation: free.generation })
    }

    pub(super) fn id(&self) -> ZoneId {
        self.0
    }
}

impl Drop for AllocatedZoneId {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).returned.push(Reverse(self.0.index));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn living_zones_have_different_ids() {
        let ids: Vec<_> = (0..100).map(|_| AllocatedZoneId::take()).collect();
        let indices: BTreeSet<_> = ids.iter().map(|id| id.id().index).collect();
        let generations: BTreeSet<_> = ids.iter().map(|id| id.id().generation).collect();
        assert_eq!((indices.len(), generations.len()), (100, 100));
    }
}

//! Small numbers for zones: what a worker keeps of each zone lies in an array of its own, side by side in memory.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Mutex, PoisonError},
};

/// A number that no other living zone has. The lowest that is free is given, so an array by these numbers is never longer
/// than there were zones at one time.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Slot(u32);

/// Numbers that were given back, and the first that never was given.
struct Free {
    returned: BinaryHeap<Reverse<u32>>,
    next: u32,
}

static FREE: Mutex<Free> = Mutex::new(Free { returned: BinaryHeap::new(), next: 0 });

impl Slot {
    pub(super) fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reverse(number)) = free.returned.pop() {
            return Self(number);
        }
        let number = free.next;
        free.next += 1;
        Self(number)
    }

    pub(super) fn number(&self) -> u32 {
        self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(PoisonError::into_inner).returned.push(Reverse(self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn living_zones_have_different_numbers() {
        let slots: Vec<_> = (0..100).map(|_| Slot::take()).collect();
        let numbers: BTreeSet<_> = slots.iter().map(Slot::number).collect();
        assert_eq!(numbers.len(), 100);
    }
}

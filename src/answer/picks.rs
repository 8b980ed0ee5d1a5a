//! Which nodes an answer names, and in which order: every choice and every order equally likely.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Picks indices below a total without repeating one (a Fisher-Yates shuffle that stops when nobody asks further).
///
/// The same draw gives the same picks, so a test can ask twice. Draws must come from a generator that clients
/// cannot predict; from there on a small one does.
#[derive(Clone, Debug)]
pub struct Picks {
    random: SmallRng,
    total: usize,
    taken: usize,
    first: usize,
    /// All indices, those already picked in front. Empty until a second one is wanted: the first costs nothing.
    order: Vec<usize>,
}

impl Picks {
    /// Picks among `total` indices.
    pub fn new(total: usize, draw: u64) -> Self {
        Self { random: SmallRng::seed_from_u64(draw), total, taken: 0, first: 0, order: Vec::new() }
    }
}

impl Iterator for Picks {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.taken >= self.total {
            return None;
        }
        let place = self.random.random_range(self.taken..self.total);
        let pick = if self.taken == 0 {
            self.first = place;
            place
        } else {
            if self.order.is_empty() {
                self.order.extend(0..self.total);
                self.order.swap(0, self.first);
            }
            self.order.swap(self.taken, place);
            *self.order.get(self.taken)?
        };
        self.taken += 1;
        Some(pick)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.total - self.taken;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Picks {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sum over all cells of (seen - expected)² / expected.
    fn chi_square(seen: &[u32]) -> f64 {
        let expected = f64::from(seen.iter().sum::<u32>()) / seen.len() as f64;
        seen.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
    }

    /// The 0.999 quantile for `freedom` degrees, by Wilson and Hilferty.
    fn limit(freedom: f64) -> f64 {
        let part = 2.0 / (9.0 * freedom);
        freedom * (1.0 - part + 3.09 * part.sqrt()).powi(3)
    }

    #[test]
    fn every_node_is_first_equally_often() {
        for total in [2, 3, 7, 100] {
            let mut seen = vec![0; total];
            for draw in 0..3000 * total as u64 {
                seen[Picks::new(total, draw).next().unwrap()] += 1;
            }
            assert!(chi_square(&seen) < limit(total as f64 - 1.0), "{total} nodes: {seen:?}");
        }
    }

    #[test]
    fn every_order_is_equally_likely() {
        let mut seen = std::collections::BTreeMap::<Vec<usize>, u32>::new();
        for draw in 0..24_000 {
            *seen.entry(Picks::new(4, draw).collect()).or_default() += 1;
        }
        let seen: Vec<_> = seen.into_values().collect();
        assert_eq!(seen.len(), 24);
        assert!(chi_square(&seen) < limit(23.0), "{seen:?}");
    }

    #[test]
    fn every_subset_is_equally_likely() {
        let mut seen = std::collections::BTreeMap::<Vec<usize>, u32>::new();
        for draw in 0..28_000 {
            let mut subset: Vec<_> = Picks::new(8, draw).take(2).collect();
            subset.sort_unstable();
            *seen.entry(subset).or_default() += 1;
        }
        let seen: Vec<_> = seen.into_values().collect();
        assert_eq!(seen.len(), 28);
        assert!(chi_square(&seen) < limit(27.0), "{seen:?}");
    }

    proptest! {
        #[test]
        fn picks_are_distinct_and_complete(total in 0_usize..200, draw in any::<u64>()) {
            let mut picks: Vec<_> = Picks::new(total, draw).collect();
            picks.sort_unstable();
            prop_assert_eq!(picks, (0..total).collect::<Vec<_>>());
        }
    }
}

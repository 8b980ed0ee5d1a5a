//! A cache whose unused values expire.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Values that are dropped when they have not been used for a while, at the latest after twice that time.
#[derive(Debug)]
pub struct ExpiringCache<K, V> {
    values: HashMap<K, (V, Instant)>,
    kept: Duration,
    swept: Option<Instant>,
}

impl<K: Eq + Hash, V: Clone> ExpiringCache<K, V> {
    /// Keeps unused values for this long.
    pub fn new(kept: Duration) -> Self {
        Self { values: HashMap::new(), kept, swept: None }
    }

    /// The value that is kept for this key, or else a new one.
    ///
    /// # Errors
    /// The new one could not be made.
    pub fn get_or_make<E>(&mut self, key: K, now: Instant, make: impl FnOnce() -> Result<V, E>) -> Result<V, E> {
        let swept = *self.swept.get_or_insert(now);
        if now.duration_since(swept) >= self.kept {
            self.values.retain(|_, (_, used)| now.duration_since(*used) < self.kept);
            self.swept = Some(now);
        }
        let value = match self.values.remove(&key) {
            Some((value, _)) => value,
            None => make()?,
        };
        self.values.insert(key, (value.clone(), now));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_values_stay_and_unused_ones_are_dropped() {
        let minute = Duration::from_secs(60);
        let start = Instant::now();
        let mut cache = ExpiringCache::new(minute);
        let mut made = 0;
        let mut get = |key, now| {
            cache.get_or_make(key, now, || {
                made += 1;
                Ok::<_, ()>(made)
            })
        };
        assert_eq!((get("a", start), get("b", start)), (Ok(1), Ok(2)));
        for half in 1..=8 {
            assert_eq!(get("a", start + minute / 2 * half), Ok(1), "it is used");
        }
        assert_eq!(get("b", start + minute * 4), Ok(3), "it was forgotten");
        assert_eq!(cache.get_or_make("c", start, || Err("no")), Err("no"));
        assert_eq!(cache.values.len(), 2, "a failure is not kept");
    }
}

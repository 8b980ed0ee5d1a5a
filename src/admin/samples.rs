//! How many queries were answered in the last minutes, for the plots of the status page.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{task::spawn_blocking, time::MissedTickBehavior};

use crate::{
    metrics::{ProcessCounters, QueryType, Rcode, Transport},
    table::SharedTable,
};

/// Between two samples. Adding the counters of ten thousand zones up takes some milliseconds.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Samples that are kept: a quarter of an hour.
pub(super) const SAMPLES_MAX: usize = 180;

/// Queries by rcode, in the order of [`Rcode::ALL`].
pub(super) type ByRcode = [u64; Rcode::ALL.len()];

/// What was answered between two looks at the counters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Sample {
    /// When it was taken.
    pub(super) at: SystemTime,
    /// The time since the sample before.
    pub(super) span: Duration,
    /// The queries of that time.
    pub(super) queries: ByRcode,
}

/// The last samples. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Samples(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    /// The counters at the last look.
    last: Option<(tokio::time::Instant, ByRcode)>,
    /// How many samples were ever taken.
    taken: u64,
    samples: VecDeque<Sample>,
}

impl Samples {
    /// Takes samples of these counters.
    pub async fn run(self, table: SharedTable, process: Arc<ProcessCounters>) -> Infallible {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (table, process) = (table.clone(), process.clone());
            // A sum that panicked is that of no sample; the next one covers its time.
            if let Ok(counted) = spawn_blocking(move || count(&table, &process)).await {
                self.ring().add(tokio::time::Instant::now(), SystemTime::now(), counted);
            }
        }
    }

    /// The samples after the first `known` of all that were ever taken, and how many were.
    pub(super) fn after(&self, known: u64) -> (Vec<Sample>, u64) {
        let ring = self.ring();
        let fresh = usize::try_from(ring.taken.saturating_sub(known)).unwrap_or(usize::MAX);
        let skipped = ring.samples.len().saturating_sub(fresh);
        (ring.samples.iter().skip(skipped).copied().collect(), ring.taken)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn add(&mut self, now: tokio::time::Instant, at: SystemTime, counted: ByRcode) {
        if let Some((then, before)) = self.last.replace((now, counted)) {
            if self.samples.len() >= SAMPLES_MAX {
                self.samples.pop_front();
            }
            // The counters of a zone go with it.
            let queries = std::array::from_fn(|index| counted[index].saturating_sub(before[index]));
            self.samples.push_back(Sample { at, span: now.saturating_duration_since(then), queries });
            self.taken += 1;
        }
    }
}

/// All queries that were answered, by rcode.
fn count(table: &SharedTable, process: &ProcessCounters) -> ByRcode {
    let table = table.snapshot();
    let mut sums = [0; Rcode::ALL.len()];
    for (sum, &rcode) in sums.iter_mut().zip(Rcode::ALL) {
        for &query_type in QueryType::ALL {
            for &transport in Transport::ALL {
                let zones = table.entries().map(|entry| entry.queries(&process.workers, query_type, rcode, transport));
                *sum += zones.sum::<u64>() + process.no_zone.value(query_type, rcode, transport);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::tests::{known, waiting},
        table::ZoneTable,
    };

    fn counted(first: u64) -> ByRcode {
        let mut counted = ByRcode::default();
        counted[0] = first;
        counted
    }

    #[test]
    fn a_sample_is_what_was_added_and_old_ones_go() {
        let samples = Samples::default();
        let start = tokio::time::Instant::now();
        for number in 0..SAMPLES_MAX + 10 {
            let at = start + SAMPLE_INTERVAL * u32::try_from(number).unwrap();
            samples.ring().add(at, SystemTime::now(), counted(7 * number as u64));
        }
        let (all, taken) = samples.after(0);
        assert_eq!((all.len(), taken), (SAMPLES_MAX, SAMPLES_MAX as u64 + 9));
        assert!(all.iter().all(|sample| sample.queries == counted(7) && sample.span == SAMPLE_INTERVAL));
        assert_eq!(samples.after(taken - 2).0.len(), 2);
        assert_eq!(samples.after(taken), (vec![], taken));
        samples.ring().add(start, SystemTime::now(), counted(0));
        assert_eq!(samples.after(taken).0[0].queries, counted(0), "the zone that had the queries is gone");
    }

    #[test]
    fn queries_of_all_zones_and_of_none_are_added_up() {
        let table = SharedTable::default();
        let zones = [waiting("a"), known("b", &["10.0.0.1"], false)];
        for zone in &zones {
            zone.counters().queries.of(QueryType::A, Rcode::ServFail, Transport::Tcp).add(3);
        }
        table.replace(ZoneTable::new(zones));
        let process = ProcessCounters::default();
        process.no_zone.of(QueryType::A, Rcode::ServFail, Transport::Udp).add(1);
        let sums = count(&table, &process);
        let servfail = Rcode::ALL.iter().position(|&rcode| rcode == Rcode::ServFail).unwrap();
        assert_eq!((sums[servfail], sums.iter().sum::<u64>()), (7, 7));
    }
}

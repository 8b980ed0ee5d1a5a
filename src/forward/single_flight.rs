//! Equal questions that arrive while the first is in flight share its outcome.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

/// Entries above which those are removed that have no asker any more. More questions than that are never in flight.
const ENTRIES_MAX: usize = 1024;

/// The questions in flight.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V: Clone>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>);

impl<K: Eq + Hash, V: Clone> SingleFlight<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The outcome of an equal question that is in flight, or else of this one. It is dropped with its last asker.
    pub(super) fn join(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, V>) -> Shared<BoxFuture<'static, V>> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has its outcome is over: what is asked afterwards is asked anew.
        let is_pending = |flight: &Shared<_>| flight.peek().is_none();
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade).filter(is_pending) {
            return flight;
        }
        if flights.len() >= ENTRIES_MAX {
            flights.retain(|_, flight| flight.upgrade().as_ref().is_some_and(is_pending));
        }
        let flight = ask().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn equal_questions_share_an_outcome_while_one_is_in_flight() {
        let flights = SingleFlight::new();
        let (reply, outcome) = oneshot::channel::<u8>();
        let first = flights.join("a", || async { outcome.await.unwrap() }.boxed());
        let second = flights.join("a", || unreachable!("it is in flight"));
        let other = flights.join("b", || async { 2 }.boxed());
        reply.send(1).unwrap();
        assert_eq!((first.clone().await, second.await, other.await), (1, 1, 2));
        assert_eq!(flights.join("a", || async { 3 }.boxed()).await, 3, "the first is over, though it is not dropped");
        drop(first);
    }

    #[tokio::test]
    async fn a_question_without_askers_is_dropped() {
        let flights = SingleFlight::new();
        let (reply, outcome) = oneshot::channel::<u8>();
        drop(flights.join(1, || async { outcome.await.unwrap() }.boxed()));
        assert!(reply.is_closed());
        for key in 2..5000 {
            drop(flights.join(key, || async { 1 }.boxed()));
        }
        assert!(flights.0.lock().unwrap().len() <= ENTRIES_MAX);
    }
}

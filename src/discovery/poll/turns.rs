//! Polls begin in turn.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::yield_now};

/// Polls that begin in one round of the runtime, in which every task runs that can. Few, so that most of a round is for
/// replies that have arrived; more than one, because a round costs a system call.
const TURNS: usize = 8;

/// Makes polls begin a few at a time, so that those begun before get their replies first. At a start with ten thousand zones
/// all would else be asking, with a connection and buffers for each request. Nothing waits for a node, so zones whose nodes
/// do not answer hold up no other. Clones share the turns.
///
/// Only a task that waits for nothing else meanwhile may wait for a turn: others wait until it has taken its turn.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Turns {
    /// Waits for a turn. It lasts one round, and is over when this returns.
    pub async fn wait(&self) {
        // It is never closed.
        let _turn = self.0.acquire().await;
        yield_now().await;
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn only_a_few_begin_before_others_go_on() {
        const ALL: usize = 10 * TURNS;
        let (turns, begun) = (Turns::default(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..ALL {
            let (turns, begun) = (turns.clone(), begun.clone());
            tokio::spawn(async move {
                turns.wait().await;
                begun.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut before = 0;
        while before < ALL {
            yield_now().await;
            let now = begun.load(Ordering::Relaxed);
            assert!(now - before <= TURNS, "{} at once", now - before);
            before = now;
        }
    }
}

//! How the threads of UDP sockets end: an address is closed, or the process ends and its sockets stay.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
};

/// How the threads of one address end. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Ending(Arc<AtomicU8>);

/// What a thread does next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::server) enum Phase {
    /// It answers.
    Serve,
    /// It answers what is queued, and ends. Its socket is not changed, because systemd may have a copy of it.
    Leave,
    /// It has the socket refuse more, answers what is queued, and ends. No other process has a copy.
    Close,
}

const SERVE: u8 = 0;
const LEAVE: u8 = 1;
const CLOSE: u8 = 2;

impl Ending {
    pub(in crate::server) fn phase(&self) -> Phase {
        match self.0.load(SeqCst) {
            SERVE => Phase::Serve,
            LEAVE => Phase::Leave,
            _ => Phase::Close,
        }
    }

    /// Ends the threads, unless they end already.
    pub(in crate::server) fn leave(&self) {
        // What is there instead stays.
        let _ = self.0.compare_exchange(SERVE, LEAVE, SeqCst, SeqCst);
    }

    /// Ends the threads, and closes their sockets for good.
    pub(in crate::server) fn close(&self) {
        self.0.store(CLOSE, SeqCst);
    }
}

/// The end of a process whose sockets wait for the next one: its UDP threads end at the same moment, whatever they wait for.
///
/// A thread notices a request when its socket's timeout is over, or after a batch. Those that have noticed it go on answering
/// until all have: what arrives is queued only for as long as a process takes to end and another to start. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct HandOver(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_requested: AtomicBool,
    /// Threads that have not noticed the request.
    unaware: AtomicUsize,
}

impl HandOver {
    /// Ends all UDP threads.
    pub fn request(&self) {
        self.0.is_requested.store(true, SeqCst);
    }

    /// One more thread that notices it.
    pub(in crate::server) fn join(&self) -> Member {
        self.0.unaware.fetch_add(1, SeqCst);
        Member { hand_over: self.clone(), is_aware: false }
    }
}

/// A thread that takes part. Dropped, it counts as aware.
#[derive(Debug)]
pub(in crate::server) struct Member {
    hand_over: HandOver,
    is_aware: bool,
}

impl Member {
    /// Whether the process ends.
    pub(in crate::server) fn is_requested(&self) -> bool {
        self.hand_over.0.is_requested.load(SeqCst)
    }

    /// This thread has noticed it.
    pub(in crate::server) fn notice(&mut self) {
        if !std::mem::replace(&mut self.is_aware, true) {
            self.hand_over.0.unaware.fetch_sub(1, SeqCst);
        }
    }

    /// Whether every thread has noticed it.
    pub(in crate::server) fn all_are_aware(&self) -> bool {
        self.hand_over.0.unaware.load(SeqCst) == 0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.notice();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_end_when_all_have_noticed() {
        let hand_over = HandOver::default();
        let (mut first, mut second, third) = (hand_over.join(), hand_over.join(), hand_over.join());
        assert!(!first.is_requested());
        hand_over.request();
        assert!(first.is_requested() && !first.all_are_aware());
        first.notice();
        first.notice();
        drop(third);
        assert!(!first.all_are_aware());
        second.notice();
        assert!(first.all_are_aware() && second.all_are_aware());
        drop((first, second));
        assert!(hand_over.join().is_requested());
    }

    #[test]
    fn a_socket_that_is_closed_is_not_left() {
        let ending = Ending::default();
        assert_eq!(ending.phase(), Phase::Serve);
        ending.leave();
        assert_eq!(ending.phase(), Phase::Leave);
        ending.close();
        ending.leave();
        assert_eq!(ending.phase(), Phase::Close);
    }
}

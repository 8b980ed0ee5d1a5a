//! How many sockets are open to upstreams.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::AttemptError;

/// Questions in flight. Each is sure of one socket.
pub const QUESTIONS_MAX: usize = 256;

/// Sockets for second and further attempts of questions in flight, for all of them together. A question that finds none free
/// goes on waiting for its first attempt.
const HEDGES_MAX: usize = 128;

/// Sockets for probes of upstreams: one for each of the eight that a file may list, and as many that are about to close.
const PROBES_MAX: usize = 16;

/// Connections to one upstream over TCP or TLS. There is mostly one; those that it replaces close within seconds.
pub(super) const CONNECTIONS_MAX: usize = 8;

/// Permits for sockets over UDP: 400 in all. With connections to eight upstreams it is at most 464, which is less than half of
/// the default limit of descriptors of a process.
#[derive(Debug)]
pub(super) struct Sockets {
    questions: Semaphore,
    hedges: Semaphore,
    probes: Semaphore,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// The only attempt of a question that is in flight.
    Question,
    /// Another attempt.
    Hedge,
    Probe,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self {
            questions: Semaphore::new(QUESTIONS_MAX),
            hedges: Semaphore::new(HEDGES_MAX),
            probes: Semaphore::new(PROBES_MAX),
        }
    }

    /// A permit for one socket.
    pub(super) async fn permit(&self, purpose: Purpose) -> Result<SemaphorePermit<'_>, AttemptError> {
        match purpose {
            // One is free, or about to be: no more questions than that are in flight.
            Purpose::Question => self.questions.acquire().await.map_err(|_| AttemptError::Shortage),
            Purpose::Hedge => self.hedges.try_acquire().map_err(|_| AttemptError::Shortage),
            Purpose::Probe => self.probes.try_acquire().map_err(|_| AttemptError::Shortage),
        }
    }
}

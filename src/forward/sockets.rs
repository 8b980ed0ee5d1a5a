//! How many sockets are open to upstreams.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::AttemptError;
use crate::config::UPSTREAMS_MAX;

/// Questions in flight. Each is sure of one socket.
pub const QUESTIONS_MAX: usize = 256;

/// Sockets for second and further attempts of questions in flight, for all of them together. A question that finds none free
/// goes on waiting for its first attempt.
const HEDGES_MAX: usize = 128;

/// Sockets for probes of upstreams: one for each that a file may list, and as many that are about to close.
const PROBES_MAX: usize = 2 * UPSTREAMS_MAX;

/// Connections to one upstream over TCP or TLS. There is mostly one; those that it replaces close within seconds.
pub(super) const CONNECTIONS_MAX: usize = 8;

/// Sockets to upstreams at any moment: less than half of the default limit of descriptors of a process.
pub const SOCKETS_MAX: usize = QUESTIONS_MAX + HEDGES_MAX + PROBES_MAX + UPSTREAMS_MAX * CONNECTIONS_MAX;

/// Permits for sockets over UDP.
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

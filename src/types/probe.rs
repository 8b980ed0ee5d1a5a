//! Why a node is not healthy, and why a zone does not answer it.

use std::{sync::Arc, time::Duration};

/// Why a probe of a node failed. Each reads as the end of a sentence that starts with the node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProbeFailure {
    /// The connection was refused.
    #[error("refused the connection")]
    Refused,
    /// The connection was reset.
    #[error("reset the connection")]
    Reset,
    /// There is no route to it.
    #[error("cannot be reached")]
    Unreachable,
    /// No complete answer in time.
    #[error("timed out after {0:?}")]
    Timeout(Duration),
    /// An HTTP status other than 200.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// An answer that is no health check's.
    #[error("{0}")]
    Malformed(Arc<str>),
    /// The connection was lost or could not be made, or the answer is not HTTP.
    #[error("could not be asked: {0}")]
    Broken(Arc<str>),
    /// It does not speak TLS, its certificate is not valid, or it refuses ours.
    #[error("{0}")]
    Tls(Arc<str>),
    /// This host lacks what a request needs: a descriptor, a port, memory, or a file for TLS. The node's state does not
    /// depend on it.
    #[error("was not asked: {0}")]
    NotAsked(Arc<str>),
    /// The probe ended by a defect of this program.
    #[error("was not asked: the probe panicked, which is a defect of alternator-dns")]
    Panicked,
}

impl ProbeFailure {
    /// Whether the node cannot be connected to, by the word of its host or of the network. A node that is slow, answers
    /// something wrong or has a wrong certificate does not count: the cause may be on our side, and would then take all
    /// nodes away at once.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused | Self::Reset | Self::Unreachable)
    }
}

/// Why the rules of a zone let an address not through. Each reads as the end of a sentence that starts with the address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Exclusion {
    #[error("is in exclude")]
    Excluded,
    #[error("is not in allow_nodes")]
    NotAllowed,
    #[error("is a loopback address, and no seed is one")]
    Loopback,
    #[error("is a link-local address, and no seed is one")]
    LinkLocal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_ends_a_sentence_that_starts_with_the_node() {
        let text = |failure: ProbeFailure| format!("10.0.0.1 {failure}");
        assert_eq!(text(ProbeFailure::Refused), "10.0.0.1 refused the connection");
        assert_eq!(text(ProbeFailure::Timeout(Duration::from_secs(1))), "10.0.0.1 timed out after 1s");
        assert_eq!(text(ProbeFailure::Status(503)), "10.0.0.1 answered HTTP 503");
        assert_eq!(text(ProbeFailure::Broken("no HTTP".into())), "10.0.0.1 could not be asked: no HTTP");
    }

    #[test]
    fn only_the_network_says_that_a_node_is_gone() {
        for failure in [ProbeFailure::Refused, ProbeFailure::Reset, ProbeFailure::Unreachable] {
            assert!(failure.is_refusal(), "{failure}");
        }
        let others = [ProbeFailure::Timeout(Duration::ZERO), ProbeFailure::Status(503), ProbeFailure::Tls("".into())];
        assert!(others.iter().all(|failure| !failure.is_refusal()));
    }
}

//! Why an attempt at an upstream, or all attempts, gave no answer.

use std::io;

use crate::net::shortage::Shortage;

/// Why one upstream gave no answer. In ascending order of what it says about the question.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("no reply")]
    NoReply,
    /// It says nothing about the upstream.
    #[error("no socket or port is free on this host")]
    Shortage,
    #[error("an error reply")]
    ErrorReply,
}

impl From<io::Error> for AttemptError {
    fn from(error: io::Error) -> Self {
        match Shortage::of(&error) {
            // A firewall of this host may forbid one upstream; the others are asked.
            None | Some(Shortage::Permission) => Self::NoReply,
            Some(_) => Self::Shortage,
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_shortage_of_this_host_is_not_the_upstream_s_fault() {
        let of = |errno: Errno| AttemptError::from(io::Error::from(errno));
        assert_eq!([Errno::EMFILE, Errno::ENOBUFS, Errno::EADDRNOTAVAIL].map(of), [AttemptError::Shortage; 3]);
        assert_eq!([Errno::ECONNREFUSED, Errno::EHOSTUNREACH].map(of), [AttemptError::NoReply; 2]);
        assert_eq!(AttemptError::from(io::Error::other("TLS")), AttemptError::NoReply);
    }
}

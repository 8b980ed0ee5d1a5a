//! Why a node gave no usable answer.

use std::{error::Error, io, time::Duration};

use super::{
    super::{
        localnodes::ListError,
        tls::{self, TlsClientError},
    },
    HEALTH_OCTETS_MAX,
};
use crate::{
    metrics::PollResult,
    net::{causes::causes, client::Excess, shortage::Shortage},
    types::ProbeFailure,
};

/// Characters shown of the cause of an error.
const CAUSE_CHARS_MAX: usize = 120;

/// Why a node gave no usable list, or is not healthy. Each reads as the end of a sentence that starts with the node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FetchError {
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
    #[error("gave no complete answer within {0:?}")]
    Timeout(Duration),
    /// The connection was lost or could not be made, or the answer is not HTTP.
    #[error("could not be asked: {0}")]
    Broken(String),
    /// An HTTP status other than 200.
    #[error("answered {0}")]
    Status(u16),
    /// The body is no usable list.
    #[error(transparent)]
    List(#[from] ListError),
    /// The answer has more octets, or comes in more pieces, than any that can be used.
    #[error(transparent)]
    Excess(#[from] Excess),
    /// The answer to a health check is too long.
    #[error("sent more than {HEALTH_OCTETS_MAX} bytes to say whether it is healthy")]
    TooLong,
    /// It does not speak TLS, its certificate is not valid, or it refuses ours.
    #[error("{0}")]
    Tls(String),
    /// A file that TLS needs cannot be used.
    #[error("was not asked: {0}")]
    Files(TlsClientError),
    /// This host lacks what a connection needs.
    #[error("was not asked: {0}")]
    Shortage(Shortage),
}

impl FetchError {
    /// The label under which the attempt is counted.
    pub fn result(&self) -> PollResult {
        match self {
            Self::Refused => PollResult::Refused,
            Self::Timeout(_) => PollResult::Timeout,
            Self::Reset | Self::Unreachable | Self::Broken(_) => PollResult::Broken,
            Self::Status(_) => PollResult::Status,
            Self::List(ListError::Malformed { .. }) => PollResult::Malformed,
            Self::List(ListError::TooLarge) | Self::TooLong | Self::Excess(_) => PollResult::TooLarge,
            Self::List(ListError::Empty | ListError::Useless) => PollResult::Empty,
            Self::Tls(_) => PollResult::Tls,
            Self::Files(_) | Self::Shortage(_) => PollResult::NotAsked,
        }
    }

    /// Whether the node cannot be connected to, by the word of its host or of the network. A node that is slow, answers
    /// something wrong or has a wrong certificate does not count: the cause may be on our side, and would then take all
    /// nodes away at once.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused | Self::Reset | Self::Unreachable)
    }

    /// Whether the node was not asked at all, for want of something of ours. That says nothing about the node.
    pub fn is_not_asked(&self) -> bool {
        matches!(self, Self::Files(_) | Self::Shortage(_))
    }
}

impl From<FetchError> for ProbeFailure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Refused => Self::Refused,
            FetchError::Reset => Self::Reset,
            FetchError::Unreachable => Self::Unreachable,
            FetchError::Timeout(within) => Self::Timeout(within),
            FetchError::Broken(why) => Self::Broken(why.into()),
            FetchError::Status(status) => Self::Status(status),
            FetchError::List(_) | FetchError::TooLong | FetchError::Excess(_) => {
                Self::Malformed(error.to_string().into())
            }
            FetchError::Tls(why) => Self::Tls(why.into()),
            FetchError::Files(why) => Self::NotAsked(why.to_string().into()),
            FetchError::Shortage(shortage) => Self::NotAsked(shortage.to_string().into()),
        }
    }
}

/// Finds the cause of an error: a refusal, a shortage and an error of TLS have variants of their own; of any other error
/// the innermost message is kept.
pub(super) fn explain(error: &(dyn Error + 'static)) -> FetchError {
    if let Some(shortage) = Shortage::of(error) {
        return FetchError::Shortage(shortage);
    }
    let innermost = || causes(error).last().unwrap_or(error).to_string();
    causes(error).find_map(known).unwrap_or_else(|| FetchError::Broken(short(innermost())))
}

/// The variant for a cause that has one of its own.
fn known(cause: &(dyn Error + 'static)) -> Option<FetchError> {
    let tls = |error| FetchError::Tls(short(tls::sentence(error)));
    let absent = cause.downcast_ref::<io::Error>().and_then(absence);
    let excess = || cause.downcast_ref::<Excess>().map(|excess| (*excess).into());
    absent.or_else(excess).or_else(|| cause.downcast_ref::<rustls::Error>().map(tls))
}

fn short(text: String) -> String {
    text.chars().take(CAUSE_CHARS_MAX).collect()
}

/// The error of the network for a node that cannot be connected to.
fn absence(error: &io::Error) -> Option<FetchError> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(FetchError::Refused),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Some(FetchError::Reset)
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(FetchError::Unreachable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_network_says_is_a_refusal() {
        use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut};
        for kind in [HostUnreachable, NetworkUnreachable] {
            assert_eq!(absence(&kind.into()), Some(FetchError::Unreachable));
        }
        for kind in [AddrNotAvailable, PermissionDenied, TimedOut] {
            assert_eq!(absence(&kind.into()), None);
        }
    }
}

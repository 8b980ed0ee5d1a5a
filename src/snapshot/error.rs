//! Why the state directory is not written, or a file in it not read.

use std::{io, path::PathBuf};

use tokio::task::JoinError;

use super::{
    directory::SnapshotError,
    file::{FILE_OCTETS_MAX, FileError},
};
use crate::metrics::SnapshotIgnored;

/// Why the last known nodes are not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("they take {0} octets; {FILE_OCTETS_MAX} are allowed")]
    TooLarge(usize),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// It was removed, and cannot be made or locked again.
    #[error(transparent)]
    Directory(#[from] SnapshotError),
    /// Writing panicked, or the process ends.
    #[error(transparent)]
    Lost(#[from] JoinError),
}

impl WriteError {
    pub(super) fn report(&self) {
        match self {
            Self::Directory(error @ SnapshotError::Locked { .. }) => {
                tracing::error!("two servers run beside each other: {error}");
            }
            error => tracing::warn!(%error, "the last known nodes cannot be written; trying again"),
        }
    }
}

/// Why a file is ignored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the file is larger than {0} octets")]
    TooLarge(u64),
    #[error("the file {0}")]
    Content(#[from] FileError),
}

impl Unread {
    pub(super) fn reason(&self) -> SnapshotIgnored {
        match self {
            Self::Io(_) => SnapshotIgnored::Unreadable,
            Self::TooLarge(_) => SnapshotIgnored::TooLarge,
            Self::Content(FileError::Version(..)) => SnapshotIgnored::Version,
            Self::Content(_) => SnapshotIgnored::Corrupt,
        }
    }
}

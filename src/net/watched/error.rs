//! Why a file cannot be read.

use std::{fmt, io, path::PathBuf};

/// Why a file cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("cannot read {}: {reason}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: ReadFailure,
}

/// What is wrong with a file that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReadFailure {
    #[error("there is no such file")]
    Missing,
    #[error("there is no such directory; create it, or remove it from include")]
    NoDirectory,
    #[error("include names more than {0} files; put several zones into one")]
    TooMany(usize),
    #[error("all files of the configuration together are larger than {}", Size(*.0))]
    TooLargeTogether(u64),
    #[error("its name is not UTF-8; rename it, or include other names")]
    NameNotUtf8,
    #[error("permission denied")]
    Denied,
    #[error("it is a directory")]
    Directory,
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it is larger than {}", Size(*.0))]
    TooLarge(u64),
    #[error("the file system does not answer")]
    TimedOut,
    #[error(
        "systemd has given this process no credential of that name; add LoadCredential={0}:/path/of/the/file to the \
         service (systemctl edit alternator-dns) and restart it"
    )]
    NoCredential(String),
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for ReadFailure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::IsADirectory => Self::Directory,
            _ => Self::Other(error.to_string()),
        }
    }
}

/// A number of octets, as people say it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            octets if octets > 0 && octets % (1 << 20) == 0 => write!(f, "{} MiB", octets >> 20),
            octets => write!(f, "{octets} octets"),
        }
    }
}

//! Why the server did not start, refused a configuration, or had to end.

use std::net::SocketAddr;

use super::{cookies::SecretsFileError, transferring::SecretFileError};
use crate::{
    net::watched::WatchError,
    server::{BindError, CertificateError},
    snapshot::SnapshotError,
};

/// Why the server did not start, refused a configuration, or had to end.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(
        "cannot listen on {wanted} beside {served}, which is served now and needs the same port; restart the server for \
         this change"
    )]
    Overlap { wanted: SocketAddr, served: SocketAddr },
    #[error("cannot serve the admin interface on {address}: {reason}")]
    Admin { address: SocketAddr, reason: AdminRefusal },
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("cannot serve encrypted DNS: {0}; correct that, or change tls in [server]")]
    Certificate(#[from] WatchError<CertificateError>),
    #[error(transparent)]
    CookieSecrets(#[from] SecretsFileError),
    #[error(transparent)]
    TransferSecret(#[from] SecretFileError),
    #[error("{0} ended unexpectedly, so the server ends too")]
    Lost(String),
}

impl StartError {
    /// Whether another socket has an address that is needed.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Self::Bind(BindError::InUse { .. }) | Self::Admin { reason: AdminRefusal::InUse, .. })
    }
}

/// Why the admin interface cannot have an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AdminRefusal {
    #[error("another program uses this address; stop it or change `admin`")]
    InUse,
    #[error("no permission for this port; choose one above 1023")]
    Denied,
    #[error("this host has no such address")]
    NotLocal,
    #[error("{0}")]
    Other(String),
}

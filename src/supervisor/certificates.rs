//! The certificate that clients of encrypted DNS are shown, and the files that it comes from.

use std::{path::PathBuf, sync::Arc};

use rustls::sign::CertifiedKey;

use super::StartError;
use crate::{
    config::Encryption,
    server::{Certificate, read_certificate},
};

/// The certificate in force.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    shown: Certificate,
    /// Certificate and key; `None` while nothing is encrypted.
    files: Option<(PathBuf, PathBuf)>,
    /// The files cannot be used as they are now, and that has been said.
    complained: bool,
}

/// A certificate that has been read, and where.
pub(super) type Read = Option<((PathBuf, PathBuf), Arc<CertifiedKey>)>;

impl Certificates {
    /// What listeners show.
    pub(super) fn shown(&self) -> Certificate {
        self.shown.clone()
    }

    /// Reads what the file names. Nothing changes before [`Self::adopt`].
    pub(super) fn read(wanted: Option<&Encryption>) -> Result<Read, StartError> {
        let Some(Encryption { cert, key, .. }) = wanted else { return Ok(None) };
        let certified = read_certificate(cert, key).map_err(StartError::Certificate)?;
        Ok(Some(((cert.clone(), key.clone()), certified)))
    }

    /// Shows what was read from now on.
    pub(super) fn adopt(&mut self, read: Read) {
        self.complained = false;
        self.files = read.map(|(files, certified)| {
            self.shown.replace(certified);
            files
        });
    }

    /// Looks whether the files have changed. Those that cannot be used leave everything as it is.
    pub(super) fn look(&mut self) {
        let Some((cert, key)) = &self.files else { return };
        match read_certificate(cert, key) {
            Ok(certified) => {
                self.complained = false;
                if self.shown.replace(certified) {
                    tracing::info!(file = %cert.display(), "another certificate is shown to new connections");
                }
            }
            Err(sentence) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!("clients are shown the certificate as it was: {sentence}");
                }
            }
        }
    }
}

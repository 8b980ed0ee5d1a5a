//! The certificate that clients of encrypted DNS are shown, and the files that it comes from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::sign::CertifiedKey;

use super::StartError;
use crate::{
    config::Encryption,
    server::{Certificate, read_certificate},
};

/// Between two looks at the files.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The certificate in force.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    shown: Certificate,
    /// Certificate and key; `None` while nothing is encrypted.
    files: Option<(PathBuf, PathBuf)>,
    trouble: Option<Trouble>,
}

/// Why the files cannot be used as they are now. A certificate and its key are replaced one after the other, so what one
/// look alone has seen is not said.
#[derive(Debug, Eq, PartialEq)]
enum Trouble {
    Seen(String),
    Said(String),
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
        self.trouble = None;
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
                self.trouble = None;
                if self.shown.replace(certified) {
                    tracing::info!(file = %cert.display(), "another certificate is shown to new connections");
                }
            }
            Err(sentence) => {
                let is_old = self.trouble.as_ref().is_some_and(|trouble| trouble.sentence() == sentence);
                if is_old && matches!(self.trouble, Some(Trouble::Seen(_))) {
                    tracing::warn!("clients are shown the certificate as it was: {sentence}");
                }
                self.trouble = Some(if is_old { Trouble::Said(sentence) } else { Trouble::Seen(sentence) });
            }
        }
    }
}

impl Trouble {
    fn sentence(&self) -> &str {
        match self {
            Self::Seen(sentence) | Self::Said(sentence) => sentence,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn what_one_look_alone_has_seen_is_not_said() {
        let directory = std::env::temp_dir().join(format!("alternator-dns-certificates-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        let secret = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&secret).unwrap();
        fs::write(&cert, certificate.pem()).unwrap();
        fs::write(&key, secret.serialize_pem()).unwrap();
        let listen = vec![(crate::config::SecureTransport::Tls, "127.0.0.1:853".parse().unwrap())];
        let wanted = Encryption { listen, cert, key: key.clone() };
        let mut certificates = Certificates::default();
        certificates.adopt(Certificates::read(Some(&wanted)).unwrap());
        let mut looked_at = |content: &str| {
            fs::write(&key, content).unwrap();
            certificates.look();
            certificates.trouble.as_ref().map(|trouble| matches!(trouble, Trouble::Said(_)))
        };
        let stranger = KeyPair::generate().unwrap().serialize_pem();
        let own = secret.serialize_pem();
        let seen = [&own, &stranger, &own, &stranger, &stranger, &stranger].into_iter().map(|key| looked_at(key));
        assert_eq!(seen.collect::<Vec<_>>(), [None, Some(false), None, Some(false), Some(true), Some(true)]);
        fs::remove_dir_all(&directory).unwrap();
    }
}

//! The certificate that clients of encrypted DNS see, and the files that it comes from.

use std::path::PathBuf;

use rustls::sign::CertifiedKey;
use tokio_util::task::JoinMap;

use super::LOOK_INTERVAL;
use crate::{
    config::Encryption,
    net::watched::{FileReader, Look, WatchError, WatchedFiles},
    server::{Certificate, CertificateError, certified_key},
};

/// The largest certificate chain, or key, that is read.
pub(super) const FILE_OCTETS_MAX: u64 = 1 << 20;

/// The task that looks at the files.
const TASK: &str = "certificate";

type Files = WatchedFiles<CertifiedKey, CertificateError>;

/// The certificate in force.
#[derive(Debug)]
pub(super) struct Certificates {
    in_force: Certificate,
    reader: FileReader,
}

/// A certificate that has been read and is not in force yet; `None` where nothing is encrypted.
#[derive(Debug)]
pub(super) struct PreparedCertificate(Option<Files>);

impl Certificates {
    pub(super) fn new(reader: FileReader) -> Self {
        Self { in_force: Certificate::default(), reader }
    }

    /// What listeners show.
    pub(super) fn in_force(&self) -> Certificate {
        self.in_force.clone()
    }

    /// Reads the files that are wanted. Nothing changes before [`Self::commit`].
    pub(super) async fn prepare(
        &self,
        wanted: Option<&Encryption>,
    ) -> Result<PreparedCertificate, WatchError<CertificateError>> {
        let Some(Encryption { cert, key, .. }) = wanted else { return Ok(PreparedCertificate(None)) };
        let paths = vec![cert.clone(), key.clone()];
        let files = WatchedFiles::open(&self.reader, paths.clone(), FILE_OCTETS_MAX, make(paths)).await?;
        Ok(PreparedCertificate(Some(files)))
    }

    /// Shows what was prepared from now on, and watches its files.
    pub(super) fn commit(&mut self, PreparedCertificate(files): PreparedCertificate, tasks: &mut JoinMap<String, ()>) {
        let Some(files) = files else {
            tasks.abort(TASK);
            return;
        };
        if let Some(certified) = files.value() {
            self.in_force.replace(certified.clone());
        }
        tasks.spawn(TASK.into(), watch(files, self.reader.clone(), self.in_force.clone()));
    }
}

/// The certificate and key that two files contain, in this order.
fn make(paths: Vec<PathBuf>) -> impl FnOnce(Vec<Vec<u8>>) -> Result<CertifiedKey, CertificateError> + Send {
    move |contents| match (paths.as_slice(), contents.as_slice()) {
        ([cert, key], [cert_pem, key_pem]) => certified_key((cert, cert_pem), (key, key_pem)),
        // There are always two files.
        _ => Err(CertificateError::Unusable(PathBuf::new())),
    }
}

async fn watch(mut files: Files, reader: FileReader, in_force: Certificate) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let paths = files.paths().to_vec();
        match files.look(&reader, make(paths)).await {
            Look::Unchanged => {}
            Look::Changed(certified) => {
                if in_force.replace(certified) {
                    tracing::info!(files = files.names(), "new connections get another certificate");
                }
            }
            Look::Recovered => tracing::info!(files = files.names(), "the certificate's files are good again"),
            Look::Failed(error) => tracing::warn!("clients get the certificate as it was: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::test_directory::TestDirectory;

    #[tokio::test]
    async fn a_pair_that_is_half_replaced_is_not_reported() {
        let directory = TestDirectory::new("certificates");
        let paths = vec![directory.file("cert.pem"), directory.file("key.pem")];
        let secret = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["a".to_owned()]).unwrap().self_signed(&secret).unwrap();
        let own = secret.serialize_pem();
        let other = KeyPair::generate().unwrap().serialize_pem();
        fs::write(&paths[0], certificate.pem()).unwrap();
        fs::write(&paths[1], &own).unwrap();
        let reader = FileReader::new();
        let opened = WatchedFiles::open(&reader, paths.clone(), FILE_OCTETS_MAX, make(paths.clone())).await;
        let mut files = opened.unwrap();
        let mut reported = Vec::new();
        for key in [&own, &other, &own, &other, &other, &other] {
            fs::write(&paths[1], key).unwrap();
            let look = files.look(&reader, make(paths.clone())).await;
            reported.push(matches!(look, Look::Failed(_)));
            assert_eq!(files.error().is_some(), *key == other);
        }
        assert_eq!(reported, [false, false, false, false, true, false]);
    }
}

//! What clients are shown: a certificate that may be replaced while connections come and go.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    Error as TlsError,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::config::{pem, read_file};

/// The certificate in force, and its key. Clones share it; connections that are open keep what they were shown.
#[derive(Clone, Debug, Default)]
pub struct Certificate(Arc<ArcSwapOption<CertifiedKey>>);

impl Certificate {
    /// Shows this one to every client that connects from now on. Gives whether it is another one.
    pub fn replace(&self, certified: Arc<CertifiedKey>) -> bool {
        let former = self.0.swap(Some(certified.clone()));
        former.is_none_or(|former| former.cert != certified.cert)
    }
}

impl ResolvesServerCert for Certificate {
    /// Clients need not tell a name, and many cannot: they know a resolver by its address.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Reads a certificate, with those of the authorities above it, and its key.
///
/// # Errors
/// A sentence: what is wrong with which file.
pub fn read_certificate(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let (chain, secret) = (pem::certificates(cert, &read(cert)?)?, pem::private_key(key, &read(key)?)?);
    let certified = CertifiedKey::from_der(chain, secret, &ring::default_provider());
    certified.map(Arc::new).map_err(|error| match error {
        TlsError::InconsistentKeys(_) => format!("{} is not the key of {}", key.display(), cert.display()),
        TlsError::InvalidCertificate(_) => format!("{} has no certificate that can be used", cert.display()),
        _ => format!("{} has no key that can be used; RSA, ECDSA P-256 or P-384, and Ed25519 can", key.display()),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // Whoever opens a pipe may wait for ever.
    if path.metadata().is_ok_and(|seen| !seen.is_file()) {
        return Err(format!("{} is not a file", path.display()));
    }
    read_file(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;

    /// A certificate that vouches for itself, and its key.
    fn certified(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn every_bad_file_is_named_with_what_is_wrong() {
        let directory = std::env::temp_dir().join(format!("alternator-dns-certificate-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let put = |name: &str, content: &str| -> PathBuf {
            fs::write(directory.join(name), content).unwrap();
            directory.join(name)
        };
        let ((certificate, key), (_, stranger)) = (certified("a"), certified("b"));
        let (cert, secret) = (put("cert.pem", &certificate), put("key.pem", &key));
        let refusal = |cert: &Path, key: &Path| {
            read_certificate(cert, key).unwrap_err().replace(&directory.display().to_string(), "")
        };
        assert!(read_certificate(&cert, &secret).is_ok());
        let stranger = put("stranger.pem", &stranger);
        assert_eq!(refusal(&cert, &stranger), "/stranger.pem is not the key of /cert.pem");
        assert_eq!(refusal(&cert, &cert), "/cert.pem has no private key in PEM, or only an encrypted one");
        assert_eq!(refusal(&secret, &secret), "/key.pem has no certificate in PEM");
        assert_eq!(refusal(&directory, &secret), " is not a file");
        let missing = directory.join("missing");
        assert_eq!(refusal(&missing, &secret), "cannot read /missing: there is no such file");
        let half = put("half.pem", &certificate[..certificate.len() / 2]);
        assert_eq!(refusal(&half, &secret), "/half.pem is not good PEM: a section has no end");
        let empty = put("empty.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        assert_eq!(refusal(&empty, &secret), "/empty.pem has no certificate that can be used");
        let odd = put("odd.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        assert!(refusal(&cert, &odd).starts_with("/odd.pem has no key that can be used"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn only_another_certificate_is_news() {
        let (one, other) = (certified("a"), certified("b"));
        let certified = |(certificate, key): &(String, String)| {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider()).unwrap())
        };
        let shown = Certificate::default();
        assert!(shown.replace(certified(&one)));
        assert!(!shown.replace(certified(&one)));
        assert!(shown.replace(certified(&other)));
    }
}

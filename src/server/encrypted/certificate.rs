//! The certificate that clients see, which may be replaced while connections come and go.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use rustls::{
    Error as TlsError,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::net::{
    certificate::{CertificateDefect, CertificateFacts},
    pem::{self, PemError},
};

/// The certificate in force, and its key. Clones share it; open connections keep the one that they began with.
#[derive(Clone, Debug, Default)]
pub struct Certificate(Arc<ArcSwapOption<CertifiedKey>>);

impl Certificate {
    /// Shows this one to every client that connects from now on. Returns whether it is another one.
    pub fn replace(&self, certified: Arc<CertifiedKey>) -> bool {
        let former = self.0.swap(Some(certified.clone()));
        former.is_none_or(|former| former.cert != certified.cert)
    }
}

impl ResolvesServerCert for Certificate {
    /// The same for every name: clients need not send one, and many know a resolver by its address only.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Why a certificate cannot be shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CertificateError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{} is not the key of {}", key.display(), cert.display())]
    OtherKey { cert: PathBuf, key: PathBuf },
    #[error("the first certificate in {} is not that of the key in {}, but a later one is; put it first", cert.display(), key.display())]
    Order { cert: PathBuf, key: PathBuf },
    #[error("{} holds a certificate that {defect}", path.display())]
    Defect { path: PathBuf, defect: CertificateDefect },
    #[error("{} has no certificate that can be used", .0.display())]
    Unusable(PathBuf),
    #[error("{} has no key that can be used; RSA, ECDSA P-256 or P-384, and Ed25519 can", .0.display())]
    UnusableKey(PathBuf),
}

/// The certificate in `cert`, with those of the authorities above it, and its key in `key`. The paths only name the
/// files in errors.
///
/// # Errors
/// One of the contents cannot be used, or they do not belong together.
pub fn certified_key(
    (cert, cert_pem): (&Path, &[u8]),
    (key, key_pem): (&Path, &[u8]),
) -> Result<CertifiedKey, CertificateError> {
    let chain = pem::certificates(cert, cert_pem)?;
    let secret = pem::private_key(key, key_pem)?;
    let defect = chain.first().and_then(|own| CertificateFacts::parse(own)?.own_defect());
    if let Some(defect) = defect {
        return Err(CertificateError::Defect { path: cert.into(), defect });
    }
    let provider = ring::default_provider();
    let later = chain.get(1..).unwrap_or_default().to_vec();
    let fits = |certificate| CertifiedKey::from_der(vec![certificate], secret.clone_key(), &provider).is_ok();
    CertifiedKey::from_der(chain, secret.clone_key(), &provider).map_err(|error| match error {
        TlsError::InconsistentKeys(_) if later.into_iter().any(fits) => {
            CertificateError::Order { cert: cert.into(), key: key.into() }
        }
        TlsError::InconsistentKeys(_) => CertificateError::OtherKey { cert: cert.into(), key: key.into() },
        TlsError::InvalidCertificate(_) => CertificateError::Unusable(cert.into()),
        _ => CertificateError::UnusableKey(key.into()),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;

    /// A self-signed certificate and its key.
    fn certified(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn every_bad_file_is_named_with_what_is_wrong() {
        let (certificate, key) = certified("a");
        let (certificate_of_another, other_key) = certified("b");
        let made = |cert: &str, key: &str| {
            certified_key((Path::new("cert"), cert.as_bytes()), (Path::new("key"), key.as_bytes()))
        };
        let error = |cert: &str, key: &str| made(cert, key).unwrap_err().to_string();
        assert!(made(&certificate, &key).is_ok());
        assert_eq!(error(&certificate, &other_key), "key is not the key of cert");
        let reversed = [&*certificate_of_another, &certificate].concat();
        let order = "the first certificate in cert is not that of the key in key, but a later one is; put it first";
        assert_eq!(error(&reversed, &key), order);
        let binary = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let error_of = certified_key((Path::new("cert"), &binary), (Path::new("key"), key.as_bytes())).unwrap_err();
        assert_eq!(
            error_of.to_string(),
            "cert is in binary form (DER or PKCS#12), not in PEM; convert it with openssl"
        );
        assert_eq!(error(&certificate, &certificate), "key has no private key in PEM, or only an encrypted one");
        assert_eq!(error(&key, &key), "cert has no certificate in PEM");
        let half = &certificate[..certificate.len() / 2];
        assert_eq!(error(half, &key), "cert is not good PEM: a section has no end");
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(error(empty, &key), "cert has no certificate that can be used");
        let odd = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(error(&certificate, odd).starts_with("key has no key that can be used"));
    }

    #[test]
    fn certificates_that_openssl_makes_are_refused_with_the_reason() {
        let file = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name);
            std::fs::read(path).unwrap()
        };
        let error = |name: &str| {
            let (cert, key) = (file(&format!("{name}.pem")), file(&format!("{name}.key")));
            certified_key((Path::new("cert"), &cert), (Path::new("key"), &key)).err().map(|error| error.to_string())
        };
        for (name, expected) in [
            ("self-signed", None),
            ("common-name", None),
            ("v1", Some("cert holds a certificate that is of X.509 version 1, ")),
            ("rsa-1024", Some("cert holds a certificate that has an RSA key of 1024 bits, ")),
            ("p-521", Some("cert holds a certificate that has an ECDSA key on the curve P-521, ")),
        ] {
            let error = error(name);
            assert_eq!(error.is_some(), expected.is_some(), "{name}: {error:?}");
            assert!(error.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{name}");
        }
    }

    #[test]
    fn the_same_certificate_is_no_change() {
        let one = certified("a");
        let other = certified("b");
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

//! Checks the certificates of nodes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::net::{
    certificate::{CertificateDefect, CertificateFacts},
    pem::{self, PemError},
};

/// Which certificates of nodes are accepted.
#[derive(Debug)]
pub(super) struct Trust {
    /// Those that one of these has signed.
    roots: Arc<RootCertStore>,
    /// These very certificates, by their SHA-256. A node's own certificate given as `ca` is no authority for others.
    exact: Vec<[u8; 32]>,
}

/// Why nothing in a file can be trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TrustError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("{} has no certificate that can be used", .0.display())]
    Nothing(PathBuf),
    #[error("{} holds a certificate that {defect}", path.display())]
    Defect { path: PathBuf, defect: CertificateDefect },
}

impl Trust {
    /// The authorities of the system.
    pub(super) fn of_system(roots: Arc<RootCertStore>) -> Self {
        Self { roots, exact: Vec::new() }
    }

    /// The certificates of a PEM file. Bundles have odd ones among them, so one that can be used is enough.
    pub(super) fn of_file(path: &Path, octets: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let mut exact = Vec::new();
        let mut defect = None;
        for certificate in pem::certificates(path, octets)? {
            let Some(facts) = CertificateFacts::parse(&certificate) else { continue };
            if let Some(unusable) = facts.key_defect() {
                defect.get_or_insert(unusable);
                continue;
            }
            exact.push(fingerprint(&certificate));
            if facts.may_sign() {
                // If webpki cannot use it, it still counts as that very certificate.
                let _ = roots.add(certificate);
            }
        }
        match (exact.is_empty(), defect) {
            (false, _) => Ok(Self { roots: Arc::new(roots), exact }),
            (true, Some(defect)) => Err(TrustError::Defect { path: path.into(), defect }),
            (true, None) => Err(TrustError::Nothing(path.into())),
        }
    }

    fn is_exact(&self, certificate: &CertificateDer<'_>) -> bool {
        !self.exact.is_empty() && self.exact.contains(&fingerprint(certificate))
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
    fingerprint
}

/// Checks a node's certificate.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    /// `None`: everything is accepted.
    trust: Option<Trust>,
    /// Checks what the authorities of `trust` have signed; `None` where there is none.
    signed: Option<Arc<WebPkiServerVerifier>>,
    /// The name that the certificate must be for, in place of the one in the request.
    name: Option<ServerName<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    /// Accepts every certificate.
    pub(super) fn accepting_all(provider: &CryptoProvider) -> Self {
        Self { trust: None, signed: None, name: None, algorithms: provider.signature_verification_algorithms }
    }

    /// Accepts what is trusted, for `name`, or for what is asked for.
    pub(super) fn new(
        trust: Trust,
        name: Option<ServerName<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let signed = if trust.roots.is_empty() {
            None
        } else {
            Some(WebPkiServerVerifier::builder_with_provider(trust.roots.clone(), provider.clone()).build()?)
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Self { trust: Some(trust), signed, name, algorithms })
    }

    /// The outcome of a check of a signature, with the reason if the key is of a kind that no signature helps.
    fn signature(
        &self,
        certificate: &CertificateDer<'_>,
        check: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, TlsError>,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        if self.trust.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        check(&self.algorithms).map_err(|error| {
            let defect = CertificateFacts::parse(certificate).and_then(|facts| facts.own_defect());
            defect.map_or(error, defect_error)
        })
    }
}

/// The check of a certificate that is trusted itself: its issuer and its purpose do not matter.
fn verify_exact(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, TlsError> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
    match CertificateFacts::parse(certificate).map(|facts| facts.time_defect(seconds(now))) {
        Some(None) => Ok(ServerCertVerified::assertion()),
        Some(Some(defect)) => Err(defect_error(defect)),
        None => Err(CertificateError::BadEncoding.into()),
    }
}

/// The error with the usual reason for it, if the certificate shows one.
fn explain(error: TlsError, certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> TlsError {
    let Some(facts) = CertificateFacts::parse(certificate) else { return error };
    let is_name_error = matches!(
        error,
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    );
    let name_defect = if is_name_error { facts.name_defect_for(name) } else { None };
    let as_authority = match &error {
        // webpki's CaUsedAsEndEntity, which rustls has no name for.
        TlsError::InvalidCertificate(CertificateError::Other(_)) => facts.authority_defect(),
        _ => None,
    };
    let defect = facts.own_defect().or_else(|| facts.time_defect(seconds(now))).or(name_defect).or(as_authority);
    defect.map_or(error, defect_error)
}

fn defect_error(defect: CertificateDefect) -> TlsError {
    CertificateError::Other(OtherError(Arc::new(defect))).into()
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let name = self.name.as_ref().unwrap_or(asked);
        let verified = match &self.signed {
            Some(signed) => signed.verify_server_cert(certificate, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let verified = match verified {
            Err(_) if trust.is_exact(certificate) => verify_exact(certificate, name, now),
            verified => verified,
        };
        verified.map_err(|error| explain(error, certificate, name, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(certificate, |algorithms| verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(certificate, |algorithms| verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::{crypto::ring::default_provider, pki_types::pem::PemObject};

    fn fixture(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name);
        std::fs::read(path).unwrap()
    }

    fn first(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).unwrap()
    }

    /// What a check of a node's certificate says, with these certificates as `ca`.
    fn checked(ca: &[u8], node: &[u8], asked: &str, now: u64) -> Result<(), String> {
        let trust = Trust::of_file(Path::new("ca.pem"), ca).map_err(|error| error.to_string())?;
        let verifier = NodeVerifier::new(trust, None, &Arc::new(default_provider())).unwrap();
        let asked = ServerName::try_from(asked.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let verified = verifier.verify_server_cert(&first(node), &[], &asked, &[], now);
        verified.map(drop).map_err(|error| super::super::tls::sentence(&error))
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_self_signed_certificate_given_as_ca_is_trusted_for_itself_alone() {
        let own = fixture("self-signed.pem");
        assert_eq!(checked(&own, &own, "node.test", NOW), Ok(()));
        assert_eq!(checked(&own, &own, "127.0.0.1", NOW), Ok(()));
        let other_name = checked(&own, &own, "127.0.0.2", NOW).unwrap_err();
        assert!(other_name.starts_with("has a certificate that is not for 127.0.0.2, but for "), "{other_name}");
        let before = checked(&own, &own, "node.test", 1_700_000_000).unwrap_err();
        assert!(before.starts_with("has a certificate that is not valid before 2026-"), "{before}");
        let after = checked(&own, &own, "node.test", 5_000_000_000).unwrap_err();
        assert!(after.starts_with("has a certificate that expired on 2126-"), "{after}");
        let other = checked(&own, &fixture("address-as-name.pem"), "node.test", NOW).unwrap_err();
        assert!(other.starts_with("has a certificate that is that of an authority (CA:TRUE), "), "{other}");
    }

    #[test]
    fn a_leaf_given_as_ca_is_no_authority_for_others() {
        let key = KeyPair::generate().unwrap();
        let issuer =
            CertifiedIssuer::self_signed(CertificateParams::new(["leaf.test".to_owned()]).unwrap(), key).unwrap();
        let node_key = KeyPair::generate().unwrap();
        let node = CertificateParams::new(["node.test".to_owned()]).unwrap().signed_by(&node_key, &issuer).unwrap();
        assert_eq!(checked(issuer.pem().as_bytes(), issuer.pem().as_bytes(), "leaf.test", NOW), Ok(()));
        let refused = checked(issuer.pem().as_bytes(), node.pem().as_bytes(), "node.test", NOW);
        assert_eq!(refused.unwrap_err(), "has a certificate that no authority of ours has signed");
    }

    #[test]
    fn a_leaf_that_an_authority_signed_may_be_given_alone() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let node = CertificateParams::new(["node.test".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        for ca in [issuer.pem(), node.pem()] {
            assert_eq!(checked(ca.as_bytes(), node.pem().as_bytes(), "node.test", NOW), Ok(()));
        }
    }

    #[test]
    fn each_usual_reason_has_a_sentence() {
        for (name, asked, expected) in [
            ("v1", "node.test", "has a certificate that is of X.509 version 1, "),
            (
                "common-name",
                "node.test",
                "has a certificate that has its name \"node.test\" only as common name (CN), ",
            ),
            ("address-as-name", "127.0.0.1", "has a certificate that has the address 127.0.0.1 as a DNS name, "),
            ("address-as-name", "node.test", "has a certificate that is not for node.test, but for "),
            ("rsa-1024", "node.test", "ca.pem holds a certificate that has an RSA key of 1024 bits, "),
            ("p-521", "node.test", "ca.pem holds a certificate that has an ECDSA key on the curve P-521, "),
        ] {
            let own = fixture(&format!("{name}.pem"));
            let sentence = checked(&own, &own, asked, NOW).unwrap_err();
            assert!(sentence.starts_with(expected), "{name}: {sentence}");
        }
    }

    #[test]
    fn one_certificate_of_a_bundle_that_can_be_used_is_enough() {
        let own = fixture("self-signed.pem");
        let bundle = [fixture("rsa-1024.pem"), fixture("p-521.pem"), own.clone()].concat();
        assert_eq!(checked(&bundle, &own, "node.test", NOW), Ok(()));
    }
}

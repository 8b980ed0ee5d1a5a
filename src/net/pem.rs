//! PEM files that a configuration names, and what may be wrong with them.

use std::path::{Path, PathBuf};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

/// Why a PEM file cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PemError {
    /// It is PEM, or empty, and has no certificate.
    #[error("{} has no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// It is PEM, or empty, and has no private key that can be read.
    #[error("{} has no private key in PEM, or only an encrypted one", .0.display())]
    NoKey(PathBuf),
    /// It is DER or PKCS#12.
    #[error("{} is in binary form (DER or PKCS#12), not in PEM; convert it with openssl", .0.display())]
    Binary(PathBuf),
    /// It is not PEM.
    #[error("{} is not good PEM: {defect}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        defect: &'static str,
    },
}

/// The certificates of a PEM file, at least one. `path` only names it in errors.
///
/// # Errors
/// The content is not PEM, or has no certificate.
pub fn certificates(path: &Path, octets: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(octets).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    match found.is_empty() {
        false => Ok(found),
        true if is_binary(octets) => Err(PemError::Binary(path.into())),
        true => Err(PemError::NoCertificate(path.into())),
    }
}

/// The private key of a PEM file. `path` only names it in errors.
///
/// # Errors
/// The content is not PEM, or has no private key without a password.
pub fn private_key(path: &Path, octets: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(octets).map_err(|error| match error {
        Error::NoItemsFound if is_binary(octets) => PemError::Binary(path.into()),
        Error::NoItemsFound => PemError::NoKey(path.into()),
        error => malformed(path, &error),
    })
}

/// Whether this begins like DER: a sequence whose length takes one or two octets more.
fn is_binary(octets: &[u8]) -> bool {
    matches!(octets, [0x30, 0x81 | 0x82, ..])
}

fn malformed(path: &Path, error: &Error) -> PemError {
    let defect = match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section starts with a wrong line",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    PemError::Malformed { path: path.into(), defect }
}

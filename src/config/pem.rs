//! PEM files that a configuration names, and what may be wrong with them.

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error, PemObject},
};

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// A sentence that names the file.
pub fn certificates(path: &Path, octets: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(octets).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    if found.is_empty() { Err(format!("{} has no certificate in PEM", path.display())) } else { Ok(found) }
}

/// The private key of a PEM file.
///
/// # Errors
/// A sentence that names the file.
pub fn private_key(path: &Path, octets: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(octets).map_err(|error| match error {
        Error::NoItemsFound => format!("{} has no private key in PEM, or only an encrypted one", path.display()),
        error => malformed(path, &error),
    })
}

fn malformed(path: &Path, error: &Error) -> String {
    let what = match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section starts with a wrong line",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    format!("{} is not good PEM: {what}", path.display())
}

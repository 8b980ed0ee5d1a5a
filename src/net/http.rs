//! The HTTP client of commands, and TLS of clients in general. Nodes are asked by `client`.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder, Response, redirect::Policy};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// The builder of a client for plain HTTP. A client without a TLS configuration would look for cryptography that is not
/// built in, and panic; one that sets up TLS by itself would read the system's authorities (120 kB, four milliseconds).
/// Proxies of the environment and redirects are ignored: an answer counts only if it comes from the server that was asked.
#[allow(clippy::disallowed_methods)]
pub fn plain() -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(trusting(RootCertStore::empty()))
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .http1_only()
}

/// Why a reply could not be read. Each reads as the end of a sentence that names the server.
#[derive(Debug, thiserror::Error)]
pub enum ReadTextError {
    /// It is longer than allowed, in octets.
    #[error("its reply is longer than {0} octets")]
    TooLong(usize),
    /// The connection failed.
    #[error(transparent)]
    Lost(#[from] reqwest::Error),
}

/// Reads the body of a reply, of at most so many octets, as text.
///
/// # Errors
/// It is longer, or the connection fails.
pub async fn read_text(response: &mut Response, octets_max: usize) -> Result<String, ReadTextError> {
    let mut octets = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if octets.len() + chunk.len() > octets_max {
            return Err(ReadTextError::TooLong(octets_max));
        }
        octets.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// A TLS configuration that trusts these authorities and shows no certificate of its own.
pub fn trusting(roots: impl Into<Arc<RootCertStore>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has ciphers for TLS 1.2 and 1.3");
    builder.with_root_certificates(roots).with_no_client_auth()
}

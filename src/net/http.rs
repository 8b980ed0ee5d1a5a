//! The HTTP client of commands, and TLS of clients in general. Nodes are asked by `client`.

use std::sync::Arc;

use reqwest::{Client, ClientBuilder, redirect::Policy};
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

/// A TLS configuration that trusts these authorities and shows no certificate of its own.
pub fn trusting(roots: impl Into<Arc<RootCertStore>>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has ciphers for TLS 1.2 and 1.3");
    builder.with_root_certificates(roots).with_no_client_auth()
}

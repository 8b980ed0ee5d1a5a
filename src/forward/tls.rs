//! TLS to upstreams.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client that trusts these authorities; none, where no upstream speaks TLS: hickory wants a client all the same.
pub(super) fn client(roots: Arc<RootCertStore>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has ciphers for TLS 1.2 and 1.3");
    builder.with_root_certificates(roots).with_no_client_auth()
}

//! TLS to upstreams.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client that trusts no authority, where no upstream speaks TLS: hickory requires one, and reading the system's
/// authorities takes four milliseconds.
pub(super) fn without_roots() -> ClientConfig {
    client_config(RootCertStore::empty())
}

/// A client that trusts the system's authorities. Where there are none, every upstream with TLS fails; that is a fault of
/// the host, not a mistake in the file.
pub(super) fn with_system_roots() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        tracing::warn!("this system has no certificate authorities{why}, so no upstream can be asked over TLS");
    }
    client_config(roots)
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("ring has ciphers for TLS 1.2 and 1.3");
    builder.with_root_certificates(roots).with_no_client_auth()
}

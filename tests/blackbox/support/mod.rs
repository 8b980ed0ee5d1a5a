//! Shared by the tests: the daemon, clients, a certificate authority, files, an upstream resolver.

pub mod ca;
pub mod daemon;
pub mod dns;
pub mod files;
pub mod http;
pub mod http2;
pub mod observe;
pub mod service_manager;
pub mod tls_client;
pub mod upstream;
pub mod wait;

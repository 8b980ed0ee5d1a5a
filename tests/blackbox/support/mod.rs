//! Shared by the tests: the daemon, clients, a certificate authority, an upstream resolver.

pub mod ca;
pub mod daemon;
pub mod dns;
pub mod http;
pub mod observe;
pub mod upstream;
pub mod wait;

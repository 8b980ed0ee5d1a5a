//! What every part that uses the network shares.

pub mod http;

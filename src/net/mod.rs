//! The edges to the network and to the file system: HTTP clients, PEM files, certificate authorities, and files that may
//! change while the program runs.

pub mod certificate;
pub mod http;
pub mod pem;
pub mod roots;
pub mod watched;

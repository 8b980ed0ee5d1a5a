//! The edges to the network and to the file system: HTTP clients, PEM files, certificate authorities, files that may
//! change while the program runs, what this host may lack, and how to go on when a connection cannot be accepted.

pub mod accept;
pub mod causes;
pub mod certificate;
pub mod client;
pub mod http;
pub mod pem;
pub mod roots;
pub mod shortage;
pub mod watched;

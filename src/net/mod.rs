//! What the program needs of the network's and the file system's edges: PEM files, certificate authorities, and files
//! that may change while it runs.

pub mod pem;
pub mod roots;
pub mod watched;

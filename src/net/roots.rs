//! The certificate authorities that the system trusts.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::RootCertStore;

use super::watched::{FileReader, ReadFailure};

/// Stands for the files of the authorities, which differ from system to system.
const FILES: &str = "certificate authorities";

/// Why the system's authorities cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RootsError {
    /// There are none that can be used.
    #[error("this system has no certificate authorities{why}")]
    None {
        /// What went wrong with the first file, in brackets; empty when there is no file.
        why: String,
    },
    /// The file system hangs.
    #[error("the system's certificate authorities cannot be read: the file system does not answer")]
    TimedOut,
}

/// The system's authorities, read when they are first needed. They take 120 kB, so that clones share them.
#[derive(Clone, Debug, Default)]
pub struct SystemRoots(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    read: OnceLock<Arc<RootCertStore>>,
    reader: FileReader,
}

impl SystemRoots {
    /// The authorities, read on a thread that may block.
    ///
    /// # Errors
    /// There are none, or reading them takes too long. The next call tries again.
    pub async fn get(&self) -> Result<Arc<RootCertStore>, RootsError> {
        if let Some(roots) = self.0.read.get() {
            return Ok(roots.clone());
        }
        let shared = self.0.clone();
        let roots = self.0.reader.run(Path::new(FILES), move || shared.read_once()).await;
        roots.unwrap_or_else(|failure| match failure {
            ReadFailure::TimedOut => Err(RootsError::TimedOut),
            lost => Err(RootsError::None { why: format!(" ({lost})") }),
        })
    }
}

impl Shared {
    /// The authorities. A call that waited for another one finds what that one has read.
    fn read_once(&self) -> Result<Arc<RootCertStore>, RootsError> {
        match self.read.get() {
            Some(roots) => Ok(roots.clone()),
            None => read().map(|roots| self.read.get_or_init(|| roots).clone()),
        }
    }
}

fn read() -> Result<Arc<RootCertStore>, RootsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(RootsError::None { why });
    }
    Ok(Arc::new(roots))
}

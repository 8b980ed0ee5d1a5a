//! The certificate authorities that the system trusts.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::RootCertStore;
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

/// How long the system's files may take to be read. They are local, and take four milliseconds.
const READ_DEADLINE: Duration = Duration::from_secs(2);

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
    /// Held by the thread that reads, so that no more than one hangs.
    turn: Arc<Mutex<()>>,
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
        let read = async move {
            let turn = shared.turn.clone().lock_owned().await;
            let job = spawn_blocking(move || {
                let roots = shared.read.get().cloned().map_or_else(read, Ok);
                drop(turn);
                roots.map(|roots| shared.read.get_or_init(|| roots).clone())
            });
            job.await.unwrap_or_else(|lost| Err(RootsError::None { why: format!(" ({lost})") }))
        };
        timeout(READ_DEADLINE, read).await.unwrap_or(Err(RootsError::TimedOut))
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

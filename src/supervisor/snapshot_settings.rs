//! The keys of the snapshot: where the last known nodes are kept, and how old they may be.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::task::spawn_blocking;

use super::StartError;
use crate::{
    config::Server,
    metrics::ProcessCounters,
    snapshot::{SnapshotStore, SnapshotWriter},
    systemd,
};

/// What a reload reports that changes these keys. They matter at a start and hardly ever change: moving to another
/// directory, which may be locked or not writable, while this one is written is not worth its ways to fail.
pub(super) const AT_NEXT_START: &str = "a change of state_dir or snapshot_max_age takes effect at the next start";

/// Where the last known nodes are kept, and how old they may be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SnapshotSettings {
    directory: Option<PathBuf>,
    max_age: Duration,
}

impl SnapshotSettings {
    pub(super) fn of(server: &Server) -> Self {
        let directory = server.state_dir.clone().or_else(systemd::state_directory);
        Self { directory, max_age: server.snapshot_max_age }
    }

    pub(super) fn directory(&self) -> Option<PathBuf> {
        self.directory.clone()
    }

    /// Locks the directory, if there is one, and reads what is there, on a thread that may block.
    pub(super) async fn open(
        &self,
        counters: &Arc<ProcessCounters>,
    ) -> Result<Option<(SnapshotStore, SnapshotWriter)>, StartError> {
        let Some(directory) = self.directory.clone() else { return Ok(None) };
        let max_age = self.max_age;
        let counters = counters.clone();
        let open = move || SnapshotStore::open(&directory, max_age, counters);
        let opened = spawn_blocking(open).await.map_err(io::Error::from)??;
        Ok(Some(opened))
    }
}

//! `[transfer]` in force: the key, which is read again when its file changes, and what secondaries are given.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio_util::task::JoinMap;

use super::LOOK_INTERVAL;
use crate::{
    config::{Config, Transfer, TransferKey},
    metrics::ProcessCounters,
    net::watched::{FileReader, Look, WatchError, WatchedFiles},
    snapshot::SnapshotStore,
    table::SharedTable,
    transfer::{Notifier, SECRET_OCTETS_MAX, SecretError, Transfers, TsigKey, Wanted},
    types::unix_now,
};

/// The task that looks at the file of the secret.
const TASK: &str = "transfer key";

/// The file of the secret that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the secret_file {} of [transfer]: {}", path.display(), reason(error))]
pub struct SecretFileError {
    path: PathBuf,
    error: WatchError<SecretError>,
}

type Files = WatchedFiles<TsigKey, SecretError>;

/// Gives zones to secondaries as `[transfer]` says.
pub(super) struct Transferring {
    transfers: Transfers,
    reader: FileReader,
}

/// A key that was read and is not in force yet; `None`: nothing is to be transferred.
pub(super) struct PreparedKey(Option<(Files, Arc<ArcSwap<TsigKey>>)>);

impl Transferring {
    /// Gives nothing yet.
    pub(super) fn new(counters: Arc<ProcessCounters>, reader: FileReader) -> Self {
        Self { transfers: Transfers::new(counters), reader }
    }

    /// What listeners answer secondaries with.
    pub(super) fn transfers(&self) -> Transfers {
        self.transfers.clone()
    }

    /// The task that notifies secondaries.
    pub(super) fn notifier(&self, table: SharedTable, snapshot: Option<SnapshotStore>) -> Notifier {
        Notifier::new(self.transfers(), table, snapshot)
    }

    /// Reads the key that is wanted. Nothing changes before [`Self::commit`].
    pub(super) async fn prepare(&self, wanted: Option<&Transfer>) -> Result<PreparedKey, SecretFileError> {
        let Some(Transfer { key, .. }) = wanted else { return Ok(PreparedKey(None)) };
        let path = key.secret_file.clone();
        let opened = WatchedFiles::open(&self.reader, vec![path.clone()], SECRET_OCTETS_MAX, make(key.clone())).await;
        let files = opened.map_err(|error| SecretFileError { path, error })?;
        let in_force = files.value().map(|value| Arc::new(ArcSwap::new(value.clone())));
        Ok(PreparedKey(in_force.map(|in_force| (files, in_force))))
    }

    /// Gives the zones of the table to secondaries from now on, as the configuration says.
    pub(super) fn commit(
        &self,
        PreparedKey(prepared): PreparedKey,
        (config, listen): (&Config, &[SocketAddr]),
        (table, snapshot): (&SharedTable, Option<&SnapshotStore>),
        tasks: &mut JoinMap<String, ()>,
    ) {
        let wanted = config.transfer.as_ref().zip(prepared);
        let primary = wanted.as_ref().map(|(transfer, (_, key))| Wanted { transfer, key: key.clone(), listen });
        let kept = |catalog: &_| snapshot.and_then(|snapshot| snapshot.last_serial(catalog));
        self.transfers.replace(primary, &table.now(), kept, unix_now());
        match wanted {
            Some((transfer, (files, in_force))) => {
                let key = transfer.key.clone();
                tasks.spawn(TASK.into(), watch(files, key, self.reader.clone(), in_force));
            }
            None => _ = tasks.abort(TASK),
        }
    }
}

async fn watch(mut files: Files, key: TransferKey, reader: FileReader, in_force: Arc<ArcSwap<TsigKey>>) {
    let file = files.names();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match files.look(&reader, make(key.clone())).await {
            Look::Unchanged => {}
            Look::Changed(other) => {
                tracing::info!(file, "another secret for transfers is in force");
                in_force.store(other);
            }
            Look::Recovered => tracing::info!(file, "the secret for transfers can be read again"),
            Look::Failed(error) => tracing::warn!(file, "transfers keep their secret: {}", reason(&error)),
        }
    }
}

/// The error without the file, which the sentence around it names.
fn reason(error: &WatchError<SecretError>) -> String {
    match error {
        WatchError::Read(error) => error.reason.to_string(),
        WatchError::Content(error) => error.to_string(),
    }
}

fn make(key: TransferKey) -> impl FnOnce(Vec<Vec<u8>>) -> Result<TsigKey, SecretError> {
    move |contents| TsigKey::parse(&key, &contents.concat())
}

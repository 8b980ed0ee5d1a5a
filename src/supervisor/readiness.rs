//! When the server counts as ready.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::table::ZoneTable;

/// The server counts as ready after so long although a zone of the start has not had its first tick.
const READY_AT_LATEST: Duration = Duration::from_secs(5);

/// Between looks at whether every zone has had its first tick.
const READY_CHECK: Duration = Duration::from_millis(10);

/// Sets `ready` once every zone of the start has had its first tick, or [`READY_AT_LATEST`] has passed.
pub(super) async fn become_ready(table: Arc<ZoneTable>, ready: watch::Sender<bool>) {
    let waited_for = async {
        while table.entries().any(|entry| entry.poll_status().ticks == 0) {
            tokio::time::sleep(READY_CHECK).await;
        }
    };
    let in_time = tokio::time::timeout(READY_AT_LATEST, waited_for).await.is_ok();
    ready.send_replace(true);
    let zones = table.len();
    if in_time {
        tracing::info!(zones, "ready");
    } else {
        let missing = table.entries().filter(|entry| entry.poll_status().ticks == 0).count();
        tracing::warn!(zones, missing, "ready, although some zones have not been polled yet");
    }
}

/// Receives the moment at which the server becomes ready, also if that has passed: on a busy machine all zones may have been
/// polled before the supervisor's loop begins.
pub(super) fn subscribe(ready: &watch::Sender<bool>) -> watch::Receiver<bool> {
    let mut receiver = ready.subscribe();
    if *receiver.borrow() {
        receiver.mark_changed();
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_ready_early_says_so_all_the_same() {
        let (ready, _kept) = watch::channel(false);
        let before = subscribe(&ready);
        assert!(!before.has_changed().unwrap());
        ready.send_replace(true);
        assert!(before.has_changed().unwrap() && subscribe(&ready).has_changed().unwrap());
    }
}

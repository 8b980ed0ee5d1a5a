//! The control socket for as long as the server runs: it is bound again after another server that had it has ended, and when
//! its file has gone.

use std::{path::PathBuf, time::Duration};

use axum::Router;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::control::{self, ControlSocket, RunningServer, SocketPlace},
    config::ReloadRequest,
};

/// Between attempts to bind the socket, and between looks whether its file is still there: a person who repeats a command that
/// found no server succeeds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What serves the control socket.
pub(super) struct Control {
    pub(super) path: PathBuf,
    pub(super) server: RunningServer,
    /// What commands there are, besides `reload`.
    pub(super) commands: Router,
    /// The reloader waits on this channel, which must stay open also while there is no socket.
    pub(super) requests: mpsc::Sender<ReloadRequest>,
    pub(super) stopping: CancellationToken,
}

impl Control {
    /// Binds the socket.
    ///
    /// # Errors
    /// Why that is not possible, as a sentence.
    pub(super) async fn bind(&self) -> Result<ControlSocket, String> {
        let path = self.path.clone();
        match spawn_blocking(move || control::bind(&path)).await {
            Ok(bound) => bound.map_err(|error| error.to_string()),
            Err(lost) => Err(lost.to_string()),
        }
    }

    /// Serves until the server stops. `bound` is the outcome of the first attempt.
    pub(super) async fn run(self, mut bound: Result<ControlSocket, String>) {
        let mut is_reported = false;
        loop {
            match bound {
                Ok(socket) => {
                    if std::mem::take(&mut is_reported) {
                        tracing::info!("commands reach this server now: it listens on {}", self.path.display());
                    }
                    self.serve(socket).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_reported, true) {
                        tracing::warn!(
                            "{error}; commands to this server (`reload`, `status` and so on) do not work until the socket \
                             is free; SIGHUP reloads"
                        );
                    }
                    let _ = timeout(LOOK_INTERVAL, self.stopping.cancelled()).await;
                }
            }
            if self.stopping.is_cancelled() {
                return;
            }
            bound = self.bind().await;
        }
    }

    /// Serves one socket until the server stops, or its file has gone.
    async fn serve(&self, socket: ControlSocket) {
        let gone = is_gone(socket.place());
        let stop = self.stopping.child_token();
        let socket = socket.with_commands(self.commands.clone());
        let mut served = Box::pin(control::serve(socket, self.server.clone(), self.requests.clone(), stop.clone()));
        tokio::select! {
            () = &mut served => {}
            () = gone => {
                tracing::warn!("the control socket {} has gone; it is bound again", self.path.display());
                stop.cancel();
                served.await;
            }
        }
    }
}

async fn is_gone(place: SocketPlace) {
    loop {
        sleep(LOOK_INTERVAL).await;
        let place = place.clone();
        if !spawn_blocking(move || place.is_in_place()).await.unwrap_or(true) {
            return;
        }
    }
}

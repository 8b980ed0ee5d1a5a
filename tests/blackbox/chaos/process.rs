//! Our process, which is started anew now and then.

use std::{path::PathBuf, time::Duration};

use nix::sys::signal::Signal;

use crate::daemon::{Daemon, config, scratch};

/// The last snapshot is written, and the sockets are closed.
const EXIT: Duration = Duration::from_secs(10);

/// Our process, and what it leaves to the next one.
pub(super) struct Process {
    directory: PathBuf,
}

impl Process {
    pub(super) fn new(name: &str) -> Self {
        Self { directory: scratch(name).join("state") }
    }

    #[track_caller]
    pub(super) fn start(&self, zones: &str) -> Daemon {
        let state_dir = format!("[server]\nstate_dir = \"{}\"\n", self.directory.display());
        Daemon::with_config("chaos", &config(zones).replacen("[server]\n", &state_dir, 1))
    }

    #[track_caller]
    pub(super) fn end(&self, mut daemon: Daemon) {
        daemon.signal(Signal::SIGTERM);
        daemon.wait_exit(EXIT);
        assert!(self.directory.join("nodes.json").exists(), "it leaves a snapshot");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.directory.parent().unwrap());
    }
}

//! What the server starts with: its file, or the last good configuration if the file is refused.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::sleep;

use super::{StartError, Supervisor, apply::Prepared};
use crate::{
    config::{Config, ConfigStatus, state_dir_of_refused},
    metrics::ReloadResult,
    net::watched::{FileReader, ReadFailure},
    reload::{ConfigFiles, FilesError},
    snapshot::{LastGood, LastGoodError},
    systemd::{self, sockets::KeptSockets},
    telemetry::log_error_lines,
};

/// How long an address may be in use after systemd has removed its socket: a process that systemd starts just then has a copy
/// for some milliseconds.
const LAST_COPY_MAX: Duration = Duration::from_secs(1);

/// Between attempts to bind such an address.
const LAST_COPY_CHECK: Duration = Duration::from_millis(10);

/// What the server starts with.
#[derive(Debug)]
pub struct Start {
    config: Config,
    /// Why this is not what the file says.
    refused: Option<Refused>,
    /// Sockets of an earlier process.
    kept: KeptSockets,
}

/// Why the file is not in force.
#[derive(Debug)]
pub(super) struct Refused {
    reason: String,
    /// When the configuration that is served in its place was put in force.
    kept: SystemTime,
}

impl From<Config> for Start {
    fn from(config: Config) -> Self {
        Self { config, refused: None, kept: KeptSockets::default() }
    }
}

impl Start {
    /// Reads the file with those that it includes, and the last good configuration if they are refused.
    ///
    /// # Errors
    /// There is no such file, or it is refused and there is no last good configuration.
    pub async fn read(path: &Path) -> Result<Self, FilesError> {
        let reader = FileReader::new();
        let files = ConfigFiles::read(&reader, path).await;
        let refusal = match files.parse() {
            Ok(config) => return Ok(config.into()),
            Err(refusal) => refusal,
        };
        // A main file that is gone was removed, or its name is wrong: that is no edit with an error in it.
        if files.main().is_none() && files.error().is_some_and(|error| error.reason == ReadFailure::Missing) {
            return Err(refusal);
        }
        let directories = state_directories(files.main());
        match last_good(&reader, &directories).await {
            Some((config, kept)) => {
                let refused = Some(Refused { reason: refusal.to_string(), kept });
                Ok(Self { config, refused, kept: KeptSockets::default() })
            }
            None => Err(refusal),
        }
    }

    /// The configuration, to warn of what is probably not meant.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same with the sockets that systemd has kept from an earlier process.
    pub fn with_sockets(self, kept: KeptSockets) -> Self {
        Self { kept, ..self }
    }

    pub(super) fn into_parts(self) -> (Config, Option<Refused>, KeptSockets) {
        (self.config, self.refused, self.kept)
    }
}

/// Where the last good configuration may be: in the state directory that the file names, if that can be read, and in that
/// of systemd.
pub fn state_directories(content: Option<&[u8]>) -> Vec<PathBuf> {
    content.and_then(state_dir_of_refused).into_iter().chain(systemd::state_directory()).collect()
}

async fn last_good(reader: &FileReader, directories: &[PathBuf]) -> Option<(Config, SystemTime)> {
    for directory in directories {
        let path = LastGood::path(directory);
        let own_directory = directory.clone();
        match reader.run(&path, move || read_config(&own_directory)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(found)) => return found,
            Ok(Err(error)) => tracing::warn!("the last good configuration is ignored: {} {error}", path.display()),
            Err(failure) => tracing::warn!("the last good configuration is ignored: {}: {failure}", path.display()),
        }
    }
    None
}

fn read_config(directory: &Path) -> Result<Option<(Config, SystemTime)>, LastGoodError> {
    let Some(last_good) = LastGood::read(directory)? else { return Ok(None) };
    Ok(Some((last_good.config()?, last_good.kept)))
}

impl Supervisor {
    /// Prepares the configuration to start with; the last good one if it cannot be put in force.
    pub(super) async fn prepare_start(
        &mut self,
        wanted: Arc<Config>,
        refused: Option<Refused>,
    ) -> Result<(Prepared, Option<Refused>), StartError> {
        let error = match self.prepare_first(&wanted).await {
            Ok(prepared) => return Ok((prepared, refused)),
            Err(error) => error,
        };
        if let Some(Refused { reason, .. }) = &refused {
            let headline = "the configuration file is refused, and the last good one cannot be served";
            log_error_lines(headline, reason);
        }
        let directory: Vec<_> = self.snapshot_settings.directory().into_iter().collect();
        let older = if refused.is_none() { last_good(&FileReader::new(), &directory).await } else { None };
        let Some((older, kept)) = older.filter(|(older, _)| older.hash != wanted.hash) else { return Err(error) };
        let prepared = self.prepare_first(&Arc::new(older)).await;
        match prepared {
            Ok(prepared) => Ok((prepared, Some(Refused { reason: error.to_string(), kept }))),
            Err(_) => Err(error),
        }
    }

    /// Prepares a configuration with the sockets that an earlier process has bound.
    async fn prepare_first(&mut self, config: &Arc<Config>) -> Result<Prepared, StartError> {
        let mut removed = self.listeners.remove_unwanted(&config.server).await;
        let mut deadline = Instant::now() + LAST_COPY_MAX;
        loop {
            match self.prepare(config.clone()).await {
                // The address of a socket that was removed is free when its last copy is closed.
                Err(error) if error.is_in_use() && removed && Instant::now() < deadline => sleep(LAST_COPY_CHECK).await,
                // Another user may have bound a kept socket, beside which this one cannot bind. systemd must not keep it for
                // every start.
                Err(error) if error.is_in_use() && self.listeners.remove_kept().await => {
                    removed = true;
                    deadline = Instant::now() + LAST_COPY_MAX;
                }
                outcome => return outcome,
            }
        }
    }

    /// Reports the configuration that is in force, and in every place if an older one than the file is.
    pub(super) fn report_start(&self, status: ConfigStatus, refused: Option<Refused>) {
        let Some(Refused { reason, kept }) = refused else { return self.status.store(Arc::new(status)) };
        let status = ConfigStatus { error: Some(reason.clone()), kept: Some(kept), ..status };
        let older = status.older().unwrap_or_default();
        self.status.store(Arc::new(status));
        self.configurations.refused(None, &reason);
        self.counters.reloads.of(ReloadResult::Refused).increment();
        log_error_lines(&format!("{older}; correct the file, which is watched"), &reason);
    }
}

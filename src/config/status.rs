//! What is shown about the configuration file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use humantime_serde::re::humantime::format_rfc3339_seconds;

use super::Config;

/// The state of the configuration file, for the admin interface.
#[derive(Clone, Debug)]
pub struct ConfigStatus {
    /// The file.
    pub path: PathBuf,
    /// What is in force.
    pub config: Arc<Config>,
    /// [`Config::hash`] of what is in force.
    pub hash: String,
    /// When it came into force.
    pub loaded: SystemTime,
    /// Why the file as it is now was refused; `None` when it is in force.
    pub error: Option<String>,
    /// The server started with the last good configuration, which had been put in force then.
    pub kept: Option<SystemTime>,
}

impl ConfigStatus {
    /// This configuration of this file comes into force now.
    pub fn new(path: &Path, config: &Arc<Config>) -> Self {
        let hash = config.hash.clone();
        Self { path: path.into(), config: config.clone(), hash, loaded: SystemTime::now(), error: None, kept: None }
    }

    /// Says that an older configuration than the file is in force; `None` when the file is.
    pub fn older(&self) -> Option<String> {
        self.error.as_ref()?;
        let since = format_rfc3339_seconds(self.kept.unwrap_or(self.loaded));
        Some(format!("AN OLDER CONFIGURATION IS SERVED, that of {since}, because {} is refused", self.path.display()))
    }
}

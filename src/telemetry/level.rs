//! The log filter of a running process, which a command replaces for some time.

use std::sync::OnceLock;

use tracing_subscriber::{
    EnvFilter,
    reload::{Error, Handle},
};

use super::{FilterError, LogFilter};

static CURRENT: OnceLock<Current> = OnceLock::new();

/// Puts a filter in the place of the one in force; `Err` when logging has ended.
pub(super) type Replace = Box<dyn Fn(EnvFilter) -> Result<(), Error> + Send + Sync>;

struct Current {
    /// The directives of the start.
    start: String,
    replace: Replace,
}

/// Why the filter cannot be replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this process writes no log whose level can change")]
pub struct NoLog;

/// What replaces the filter of a subscriber.
pub(super) fn replace_through<S: 'static>(handle: Handle<EnvFilter, S>) -> Replace {
    Box::new(move |filter| handle.reload(filter))
}

/// Remembers the filter of the start. A second call changes nothing.
pub(super) fn set_start(start: String, replace: Replace) {
    // The first subscriber stays too.
    let _ = CURRENT.set(Current { start, replace });
}

/// Logs what this filter names, until the next call or [`restore_filter`].
///
/// # Errors
/// Logging has not started.
pub fn replace_filter(filter: LogFilter) -> Result<(), NoLog> {
    let current = CURRENT.get().ok_or(NoLog)?;
    (current.replace)(filter.filter).map_err(|_| NoLog)
}

/// Logs what the filter of the start names.
///
/// # Errors
/// Logging has not started.
pub fn restore_filter() -> Result<(), NoLog> {
    let current = CURRENT.get().ok_or(NoLog)?;
    // The same text was parsed at the start.
    let filter = EnvFilter::builder().parse(&current.start).map_err(|_| NoLog)?;
    (current.replace)(filter).map_err(|_| NoLog)
}

impl LogFilter {
    /// The filter that a command asks for.
    ///
    /// # Errors
    /// There is no part, or one that is neither a level nor `target=level`. A command that names nothing has lost its
    /// argument; an empty `--log` stands for the default.
    pub fn of_command(text: &str) -> Result<Self, FilterError> {
        if text.split(',').all(|part| part.trim().is_empty()) {
            return Err(FilterError { origin: "LEVEL", part: text.to_owned() });
        }
        Self::parse("LEVEL", text)
    }
}

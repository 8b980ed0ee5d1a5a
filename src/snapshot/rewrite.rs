//! Reads files of the state directory and writes them again, for fuzzing.

use super::{drains, file, last_good, serials};

/// Parses the content of a file and renders it again; `None` when it cannot be used. Public so that a fuzzer can call both
/// without a disk.
#[doc(hidden)]
pub fn rewrite_snapshot(content: &[u8]) -> Option<String> {
    file::parse(content).ok().map(|zones| file::render(&zones))
}

/// The same for the last good configuration.
#[doc(hidden)]
pub fn rewrite_last_good(content: &[u8]) -> Option<String> {
    last_good::parse(content).ok().map(|last_good| last_good::render(&last_good.files, last_good.kept))
}

/// The same for the drains.
#[doc(hidden)]
pub fn rewrite_drains(content: &[u8]) -> Option<String> {
    drains::parse(content).ok().map(|drains| drains::render(&drains))
}

/// The same for the serials.
#[doc(hidden)]
pub fn rewrite_serials(content: &[u8]) -> Option<String> {
    serials::parse(content).ok().map(|serials| serials::render(&serials))
}

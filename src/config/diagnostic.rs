//! Diagnostics: what is wrong in a file, where, and how to correct it.

use std::{fmt, ops::Range, path::Path};

/// Diagnostics that are printed. When a file has more they usually have one cause, which the rest would hide.
pub const DIAGNOSTICS_SHOWN_MAX: usize = 100;

/// One diagnostic: `file:line:col: message`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Why a file is refused: all its diagnostics, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Diagnostics {
    file: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts the diagnostics by place; `list` has at least one.
    pub fn new(file: &Path, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        list.dedup();
        Self { file: file.display().to_string(), list }
    }

    /// The diagnostics, in the order of the file.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.list.iter().take(DIAGNOSTICS_SHOWN_MAX).enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{}:{}: {}", self.file, diagnostic.line, diagnostic.column, diagnostic.message)?;
        }
        match self.list.len().saturating_sub(DIAGNOSTICS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", self.file),
        }
    }
}

/// An error in a range of the text, before its line and column are known.
#[derive(Clone, Debug)]
pub(super) struct SpannedError {
    pub span: Range<usize>,
    pub message: String,
    /// Something is missing. After a syntax error this may be only a consequence, so it is left out then.
    pub about_missing: bool,
}

impl SpannedError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: one_line(&message.into()), about_missing: false }
    }

    pub(super) fn missing(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { about_missing: true, ..Self::new(span, message) }
    }
}

/// Escapes control characters: a message may quote the file, and must stay one line that does nothing to a terminal.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for character in message.chars() {
        if character.is_control() { line.extend(character.escape_debug()) } else { line.push(character) }
    }
    line
}

/// Where the lines of a text start.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset).max(1)
    }

    pub(super) fn locate(&self, error: SpannedError) -> Diagnostic {
        let line = self.line(error.span.start);
        let start = self.starts[line - 1];
        let before = self.text.get(start..error.span.start.min(self.text.len())).unwrap_or_default();
        Diagnostic { line, column: before.chars().count() + 1, message: error.message }
    }
}

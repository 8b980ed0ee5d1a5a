//! Diagnostics in a file, each with its place, a message and what to do.

use std::{fmt, ops::Range, path::Path};

/// Diagnostics that are printed; a file with more has one cause, and the rest would bury it.
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

/// Why a file is refused: every diagnostic in it, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Diagnostics {
    file: String,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Puts diagnostics in order; there is at least one.
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

/// A error about a range of the text, before lines are counted.
#[derive(Clone, Debug)]
pub(super) struct SpannedError {
    pub span: Range<usize>,
    pub message: String,
    /// Something is missing. Where the syntax is broken this may be only a consequence, and is not said.
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

/// A diagnostic takes one line, and says nothing to the terminal: texts of the file that it repeats may hold anything.
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

//! Mistakes in a file, each with its place, a sentence and what to do.

use std::{fmt, ops::Range, path::Path};

/// Mistakes that are printed; a file with more has one cause, and the rest would bury it.
pub const MISTAKES_SHOWN_MAX: usize = 100;

/// One mistake: `file:line:col: sentence`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub sentence: String,
}

/// Why a file is refused: every mistake in it, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// Puts mistakes in order; there is at least one.
    pub fn new(file: &Path, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| (mistake.line, mistake.column));
        list.dedup();
        Self { file: file.display().to_string(), list }
    }

    /// The mistakes, in the order of the file.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.list.iter().take(MISTAKES_SHOWN_MAX).enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{}:{}: {}", self.file, mistake.line, mistake.column, mistake.sentence)?;
        }
        match self.list.len().saturating_sub(MISTAKES_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", self.file),
        }
    }
}

/// A complaint about a range of the text, before lines are counted.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    pub span: Range<usize>,
    pub sentence: String,
    /// Something is missing. Where the syntax is broken this may be only a consequence, and is not said.
    pub about_absence: bool,
}

impl Complaint {
    pub(super) fn new(span: Range<usize>, sentence: impl Into<String>) -> Self {
        Self { span, sentence: one_line(&sentence.into()), about_absence: false }
    }

    pub(super) fn absence(span: Range<usize>, sentence: impl Into<String>) -> Self {
        Self { about_absence: true, ..Self::new(span, sentence) }
    }
}

/// A mistake takes one line, and says nothing to the terminal: texts of the file that it repeats may hold anything.
fn one_line(sentence: &str) -> String {
    let mut line = String::with_capacity(sentence.len());
    for character in sentence.chars() {
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

    pub(super) fn locate(&self, complaint: Complaint) -> Mistake {
        let line = self.line(complaint.span.start);
        let start = self.starts[line - 1];
        let before = self.text.get(start..complaint.span.start.min(self.text.len())).unwrap_or_default();
        Mistake { line, column: before.chars().count() + 1, sentence: complaint.sentence }
    }
}

//! Diagnostics: what is wrong in a file, where, and how to correct it.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use super::texts::{Text, Texts};

/// Diagnostics that are kept and printed; more are only counted. When a file has more they usually have one cause, which
/// the rest would hide, and a file that is no configuration at all would fill the memory with them.
pub const DIAGNOSTICS_SHOWN_MAX: usize = 100;

/// Characters of a message. The longest that quotes nothing has three hundred, and a name of a zone has 253.
const MESSAGE_CHARACTERS_MAX: usize = 800;

/// Characters before what is left out of a longer one; what to do is said at the end.
const MESSAGE_START_CHARACTERS: usize = 400;

/// One diagnostic: `file:line:col: message`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// The file.
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Why a configuration is refused: its diagnostics, in the order of its files.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Diagnostics {
    /// The main file.
    main: Arc<Path>,
    list: Vec<Diagnostic>,
    /// Errors that are counted and have no diagnostic.
    more: usize,
}

impl Diagnostics {
    /// Finds the places of the errors, of which there is at least one, and sorts them.
    pub(super) fn new(texts: &Texts<'_>, errors: Errors) -> Self {
        let Errors { mut list, more } = errors;
        list.sort_by_key(|error| error.span.start);
        let files: Vec<Arc<Path>> = texts.list().iter().map(|text| text.path.into()).collect();
        let located = list.into_iter().map(|error| {
            let number = texts.number(error.span.start);
            locate(&texts.list()[number], &files[number], error)
        });
        let mut list: Vec<_> = located.collect();
        list.dedup();
        Self { main: files.into_iter().next().unwrap_or_else(|| Path::new("").into()), list, more }
    }

    /// The diagnostics, in the order of the files: at most [`DIAGNOSTICS_SHOWN_MAX`].
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// How many errors the files have.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.list.iter().enumerate() {
            let separator = if n == 0 { "" } else { "\n" };
            let Diagnostic { file, line, column, message } = diagnostic;
            write!(f, "{separator}{}:{line}:{column}: {message}", one_line(&file.display().to_string()))?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n{}: and {more} more", one_line(&self.main.display().to_string())),
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
    /// The key that its table does not know. Another table may.
    pub unknown_key: Option<String>,
}

impl SpannedError {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: one_line(&message.into()), about_missing: false, unknown_key: None }
    }

    pub(super) fn missing(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { about_missing: true, ..Self::new(span, message) }
    }

    pub(super) fn unknown_key(span: Range<usize>, message: impl Into<String>, key: &str) -> Self {
        Self { unknown_key: Some(key.to_owned()), ..Self::new(span, message) }
    }

    /// The error with its place in the file that begins at this offset.
    pub(super) fn shifted_back(mut self, by: usize) -> Self {
        self.span = self.span.start.saturating_sub(by)..self.span.end.saturating_sub(by);
        self
    }
}

/// The errors of a file, or of a part of it: the first [`DIAGNOSTICS_SHOWN_MAX`], and how many more there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Errors {
    list: Vec<SpannedError>,
    more: usize,
}

impl Errors {
    pub(super) fn push(&mut self, error: SpannedError) {
        if self.list.len() < DIAGNOSTICS_SHOWN_MAX { self.list.push(error) } else { self.more += 1 }
    }

    /// Adds the errors of another part.
    pub(super) fn append(&mut self, part: Self) {
        self.extend(part.list);
        self.more += part.more;
    }

    /// The errors of a part that begins at this offset, with their places in the whole.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        for error in &mut self.list {
            error.span = error.span.start + by..error.span.end + by;
        }
        self
    }

    /// Counts an error that is not kept.
    pub(super) fn count_more(&mut self) {
        self.more += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there are more errors than are kept.
    pub(super) fn is_full(&self) -> bool {
        self.more > 0
    }

    pub(super) fn list(&self) -> &[SpannedError] {
        &self.list
    }

    pub(super) fn list_mut(&mut self) -> &mut Vec<SpannedError> {
        &mut self.list
    }
}

impl From<SpannedError> for Errors {
    fn from(error: SpannedError) -> Self {
        Self { list: vec![error], more: 0 }
    }
}

impl Extend<SpannedError> for Errors {
    fn extend<I: IntoIterator<Item = SpannedError>>(&mut self, errors: I) {
        errors.into_iter().for_each(|error| self.push(error));
    }
}

impl FromIterator<SpannedError> for Errors {
    fn from_iter<I: IntoIterator<Item = SpannedError>>(errors: I) -> Self {
        let mut all = Self::default();
        all.extend(errors);
        all
    }
}

/// Escapes control characters, and leaves out the middle of a long message: a message may quote the file, and must stay
/// one line that does nothing to a terminal.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(MESSAGE_CHARACTERS_MAX));
    let count = message.chars().count();
    let left_out = match count.checked_sub(MESSAGE_CHARACTERS_MAX) {
        None | Some(0) => 0..0,
        Some(more) => MESSAGE_START_CHARACTERS..MESSAGE_START_CHARACTERS + more,
    };
    for (number, character) in message.chars().enumerate() {
        if left_out.contains(&number) {
            if number == left_out.start {
                line.push_str(&format!("[... {} characters ...]", left_out.len()));
            }
        } else if character.is_control() {
            line.extend(character.escape_debug());
        } else {
            line.push(character);
        }
    }
    line
}

fn locate(Text { path: _, text, lines, start }: &Text<'_>, file: &Arc<Path>, error: SpannedError) -> Diagnostic {
    let error = error.shifted_back(*start);
    let line = lines.line(error.span.start);
    let line_start = lines.start(line);
    let before = text.get(line_start..error.span.start.min(text.len())).unwrap_or_default();
    Diagnostic { file: file.clone(), line, column: before.chars().count() + 1, message: error.message }
}

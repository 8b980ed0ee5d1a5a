//! The files of a configuration as texts, one behind the other: an offset says both which file and where in it.

use std::path::Path;

use super::diagnostic::Lines;

/// What is between two files, so that the end of one is not the beginning of the next.
const GAP: usize = 1;

/// A file.
pub(super) struct Text<'t> {
    pub(super) path: &'t Path,
    pub(super) text: &'t str,
    pub(super) lines: Lines<'t>,
    /// The offset of its first character.
    pub(super) start: usize,
}

/// All files, of which there is at least one; the main one is the first.
pub(super) struct Texts<'t>(Vec<Text<'t>>);

impl<'t> Texts<'t> {
    pub(super) fn new(files: impl IntoIterator<Item = (&'t Path, &'t str)>) -> Self {
        let mut start = 0;
        let texts = files.into_iter().map(|(path, text)| {
            let this = Text { path, text, lines: Lines::new(text), start };
            start += text.len() + GAP;
            this
        });
        Self(texts.collect())
    }

    pub(super) fn list(&self) -> &[Text<'t>] {
        &self.0
    }

    /// The number of the file that an offset is in.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|text| text.start <= offset).saturating_sub(1)
    }

    /// The number of the file and the line of an offset.
    pub(super) fn place(&self, offset: usize) -> (usize, usize) {
        let number = self.number(offset);
        (number, self.0[number].lines.line(offset - self.0[number].start))
    }
}

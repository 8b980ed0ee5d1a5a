//! The files of a configuration as texts, one behind the other: an offset says both which file and where in it.

use std::path::Path;

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

/// Where the lines of a text start.
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Of 32 bits, because a file of nothing but lines has millions. A file is much smaller than 4 GiB.
    starts: Vec<u32>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        let starts = ends.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX));
        Self { text, starts: std::iter::once(0).chain(starts).collect() }
    }

    /// The text of a line, from 1, without its end.
    pub(super) fn text(&self, line: usize) -> &'t str {
        let start = self.starts.get(line - 1).map_or(self.text.len(), |start| *start as usize);
        self.text.get(start..).unwrap_or_default().lines().next().unwrap_or_default()
    }

    /// Where a line, from 1, starts.
    pub(super) fn start(&self, line: usize) -> usize {
        self.starts[line - 1] as usize
    }

    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start as usize <= offset).max(1)
    }
}

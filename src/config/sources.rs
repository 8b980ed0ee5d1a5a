//! The files that a configuration is made of, and what identifies them.

use std::path::{Path, PathBuf};

use super::{
    BYTE_ORDER_MARK, Config, IncludePattern,
    diagnostic::{Diagnostics, Errors, SpannedError},
    file, polled_views,
    texts::Texts,
};
use crate::types::ZoneName;

/// A file of a configuration, as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceFile {
    /// Where it was.
    pub path: PathBuf,
    /// What it contained.
    pub text: String,
}

/// A file of a configuration before it is known to be text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it contains.
    pub octets: Vec<u8>,
}

impl From<&SourceFile> for RawFile {
    fn from(SourceFile { path, text }: &SourceFile) -> Self {
        Self { path: path.clone(), octets: text.as_bytes().into() }
    }
}

impl Config {
    /// Parses the content of a file that includes no other; `path` only names it in diagnostics.
    ///
    /// # Errors
    /// All diagnostics, in the order of the file.
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self, Diagnostics> {
        Self::parse_files(&[RawFile { path: path.into(), octets: content.into() }])
    }

    /// Parses the content of the main file, which is the first, and of those that it includes. No file at all is an empty
    /// one.
    ///
    /// # Errors
    /// All diagnostics, in the order of the files.
    pub fn parse_files(files: &[RawFile]) -> Result<Self, Diagnostics> {
        let mut readable = Vec::with_capacity(files.len());
        for RawFile { path, octets } in files {
            readable.push((path.as_path(), utf8(path, octets)?));
        }
        if readable.is_empty() {
            readable.push((Path::new(""), ""));
        }
        let texts = Texts::new(readable.iter().map(|(path, text)| (*path, without_mark(text))));
        let mut errors = Errors::default();
        match file::read(&texts, &mut errors) {
            Some(file::Content { server, forward, transfer, zones, zone_places }) => {
                let hash = files_hash(files);
                let source = |(path, text): (&Path, &str)| SourceFile { path: path.into(), text: text.into() };
                let sources = readable.into_iter().map(source).collect();
                let views = polled_views(&zones);
                Ok(Self { server, forward, transfer, zones, views, zone_places, hash, sources })
            }
            None => Err(Diagnostics::new(&texts, errors)),
        }
    }

    /// The file that defines a zone, and the line.
    pub fn place_of(&self, zone: &ZoneName) -> Option<(&Path, usize)> {
        let (file, line) = self.zone_places.get(zone)?;
        Some((&self.sources.get(*file)?.path, *line))
    }
}

fn utf8<'c>(path: &Path, content: &'c [u8]) -> Result<&'c str, Diagnostics> {
    std::str::from_utf8(content).map_err(|error| {
        let readable = String::from_utf8_lossy(&content[..error.valid_up_to()]);
        let message = if content.starts_with(&[0xff, 0xfe]) || content.starts_with(&[0xfe, 0xff]) {
            "the file is UTF-16 text; save it as UTF-8"
        } else {
            "the file is not UTF-8 text from here on"
        };
        let error = SpannedError::new(readable.len()..readable.len(), message);
        Diagnostics::new(&Texts::new([(path, &*readable)]), error.into())
    })
}

/// A file's text without the mark that some editors begin it with.
pub(super) fn without_mark(text: &str) -> &str {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// `state_dir` of a file that is refused for something else, if it can be read.
pub fn state_dir_of_refused(content: &[u8]) -> Option<PathBuf> {
    file::state_dir(std::str::from_utf8(content).ok()?)
}

/// What a main file includes, as far as it can be read; it may have errors.
pub fn includes_of(content: &[u8]) -> Vec<IncludePattern> {
    let text = std::str::from_utf8(content).map(without_mark).unwrap_or_default();
    // Most files include nothing, and are not parsed once more to know it. A key in quotes may have escapes.
    if text.contains("include") || text.contains('\\') { file::includes(text) } else { Vec::new() }
}

/// Identifies the content of all files, and what they are called below the main one's directory; of one file its content
/// alone.
pub fn files_hash(files: &[RawFile]) -> String {
    let [main, included @ ..] = files else { return content_hash(b"") };
    if included.is_empty() {
        return content_hash(&main.octets);
    }
    let directory = main.path.parent().unwrap_or(Path::new(""));
    let mut all = digest(&main.octets).to_be_bytes().to_vec();
    for RawFile { path, octets } in included {
        let name = path.strip_prefix(directory).unwrap_or(path);
        all.extend(digest(name.as_os_str().as_encoded_bytes()).to_be_bytes());
        all.extend(digest(octets).to_be_bytes());
    }
    content_hash(&all)
}

/// Identifies a content: its [`digest`] in hexadecimal.
pub fn content_hash(content: &[u8]) -> String {
    format!("{:016x}", digest(content))
}

/// FNV-1a of 64 bits: it detects edits and accidents, is the same on every machine, and protects no secret.
pub fn digest(content: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    content.iter().fold(OFFSET_BASIS, |hash, &octet| (hash ^ u64::from(octet)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests;

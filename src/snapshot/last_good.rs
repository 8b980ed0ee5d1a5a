//! `last-good.json`: the files of the last configuration that was in force, for a start with a file that is refused.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::Deserialize;

use super::{
    directory,
    file::{FILE_OCTETS_MAX, FileError, open_sealed, seal, stamp},
};
use crate::config::{self, Config, Diagnostics, RawFile, SourceFile};

/// The name of the file.
pub(super) const NAME: &str = "last-good.json";

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Says what the file is to a person who opens it.
const ABOUT: &str = "The last configuration that was in force. Written by alternator-dns, which serves it when it starts \
                     with a file that is refused; do not edit.";

/// A configuration that was in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastGood {
    /// When it was put in force.
    pub kept: SystemTime,
    /// Its files; the first is the main one.
    pub files: Vec<SourceFile>,
}

/// Why the last good configuration cannot be used. Each reads as the end of a sentence that begins with the file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LastGoodError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is larger than {} MiB", FILE_OCTETS_MAX >> 20)]
    TooLarge,
    #[error(transparent)]
    Content(#[from] FileError),
    #[error("is refused by this version: {0}")]
    Refused(#[from] Diagnostics),
}

impl LastGood {
    /// What a state directory holds; `None` when no configuration was kept there. Locks nothing, and may block.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has another version.
    pub fn read(directory: &Path) -> Result<Option<Self>, LastGoodError> {
        match directory::read(&Self::path(directory), FILE_OCTETS_MAX)? {
            Some(content) if content.len() as u64 > FILE_OCTETS_MAX => Err(LastGoodError::TooLarge),
            Some(content) => Ok(Some(parse(&content)?)),
            None => Ok(None),
        }
    }

    /// Where a state directory holds it.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join(NAME)
    }

    /// The configuration.
    ///
    /// # Errors
    /// This version of the program refuses it.
    pub fn config(&self) -> Result<Config, LastGoodError> {
        let files: Vec<_> = self.files.iter().map(RawFile::from).collect();
        Ok(Config::parse_files(&files)?)
    }
}

/// Tells configurations apart.
pub(super) fn digest(files: &[SourceFile]) -> u64 {
    let text: String = files.iter().map(|file| format!("{}\0{}\0", file.path.display(), file.text)).collect();
    config::digest(text.as_bytes())
}

/// The file's text.
pub(super) fn render(files: &[SourceFile], kept: SystemTime) -> String {
    let kept = format_rfc3339_seconds(stamp(kept));
    let files = files.iter().map(|file| {
        let path = serde_json::Value::from(file.path.to_string_lossy());
        let text = serde_json::Value::from(&*file.text);
        format!("\n{{\"path\": {path}, \"text\": {text}}}")
    });
    let files: Vec<_> = files.collect();
    seal(format!(
        "{{\n\"about\": \"{ABOUT}\",\n\"version\": {VERSION},\n\"kept\": \"{kept}\",\n\"files\": [{}\n],",
        files.join(",")
    ))
}

/// Parses a file's content.
pub(super) fn parse(content: &[u8]) -> Result<LastGood, FileError> {
    let text = open_sealed(content, VERSION)?;
    let Body { kept, files } = serde_json::from_str(text).map_err(|error| FileError::Content(error.to_string()))?;
    let files = files.into_iter().map(|File { path, text }| SourceFile { path: path.into(), text });
    Ok(LastGood { kept: stamp(kept), files: files.collect() })
}

#[derive(Deserialize)]
struct Body {
    #[serde(with = "humantime_serde")]
    kept: SystemTime,
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    text: String,
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::{super::file::assert_changes_are_noticed, *};

    fn files(texts: &[(&str, &str)]) -> Vec<SourceFile> {
        texts.iter().map(|(path, text)| SourceFile { path: path.into(), text: (*text).into() }).collect()
    }

    #[test]
    fn a_cut_or_changed_file_is_noticed() {
        let text = render(&files(&[("/etc/a.toml", "[server]\n")]), UNIX_EPOCH);
        assert_changes_are_noticed(&text, |content| parse(content).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let newer = seal("{\"version\": 2, \"new\": 1,".into());
        assert_eq!(parse(newer.as_bytes()).unwrap_err().to_string(), "has version 2; this program knows version 1");
    }

    #[test]
    fn several_files_are_one_configuration() {
        let zone = |name: &str| format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n");
        let main = format!("[server]\ninclude = [\"d/*.toml\"]\n{}", zone("a"));
        let of = |texts: &[(&str, &str)]| LastGood { kept: UNIX_EPOCH, files: files(texts) }.config();
        let config = of(&[("/etc/c.toml", &main), ("/etc/d/b.toml", &zone("b"))]).unwrap();
        assert_eq!((config.zones.len(), config.sources.len()), (2, 2));
        assert!(of(&[]).unwrap_err().to_string().contains("no zone"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            texts in prop::collection::vec(("[a-z/\"\\\\]{1,9}", "\\PC{0,40}[\n\r\t\"\u{0}]?"), 0..4), seconds in 0_u64..4_000_000_000
        ) {
            let files: Vec<_> = texts.into_iter().map(|(path, text)| SourceFile { path: path.into(), text }).collect();
            let kept = UNIX_EPOCH + Duration::from_secs(seconds);
            prop_assert_eq!(parse(render(&files, kept).as_bytes()), Ok(LastGood { kept, files }));
        }

        #[test]
        fn no_octets_make_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse(&content).is_err());
        }
    }
}

//! `include` of `[server]`: which names a pattern stands for. Pure; `reload/files.rs` looks into the directories.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::Config;

/// Files that a configuration includes. Each is opened and read at every look, which takes some microseconds.
pub const INCLUDED_FILES_MAX: usize = 1000;

/// What a pattern's last part may have in place of characters.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// What many editors put behind the name of a copy.
const BACKUP_MARK: char = '~';

/// A name that begins with a dot is hidden, and matches only a pattern that begins with a dot.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// An entry of `include`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IncludePattern {
    text: String,
    directory: PathBuf,
    name: Pattern,
    has_wildcards: bool,
}

/// Why a text is no entry of `include`. Each reads as the end of a sentence that begins with the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum IncludeError {
    #[error("names no file; write for example \"zones.d/*.toml\"")]
    NoFile,
    #[error("has a wildcard in the name of a directory; only the part behind the last / may have *, ? and [...]")]
    Directory,
    #[error("has **, but no directories below the named one are looked into; write one entry for each directory")]
    Recursive,
    #[error("has a [ without a ]; write [[] for the character itself")]
    Bracket,
}

impl IncludePattern {
    /// Parses an entry.
    ///
    /// # Errors
    /// It names no file, or has wildcards where they are not allowed.
    pub fn parse(text: &str) -> Result<Self, IncludeError> {
        let (directory, name) = match text.rfind('/') {
            Some(slash) => (&text[..slash.max(1)], &text[slash + 1..]),
            None => ("", text),
        };
        if matches!(name, "" | "." | "..") || text.contains('\0') {
            return Err(IncludeError::NoFile);
        }
        if text.contains("**") {
            return Err(IncludeError::Recursive);
        }
        if directory.contains(WILDCARDS) {
            return Err(IncludeError::Directory);
        }
        let pattern = Pattern::new(name).map_err(|_| IncludeError::Bracket)?;
        let has_wildcards = name.contains(WILDCARDS);
        Ok(Self { text: text.to_owned(), directory: directory.into(), name: pattern, has_wildcards })
    }

    /// The entry as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The directory of the files that it stands for, where `main` is the file with the entry.
    pub fn directory(&self, main: &Path) -> PathBuf {
        main.parent().unwrap_or(Path::new("")).join(&self.directory)
    }

    /// The name of the one file that it stands for, which must exist; `None` where it has wildcards.
    pub fn only_name(&self) -> Option<&str> {
        (!self.has_wildcards).then_some(self.name.as_str())
    }

    /// Whether it stands for files of this name. Editors' copies are left out.
    pub fn matches(&self, name: &str) -> bool {
        match self.only_name() {
            Some(only) => name == only,
            None => !name.ends_with(BACKUP_MARK) && self.name.matches_with(name, OPTIONS),
        }
    }

    fn matches_path(&self, main: &Path, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        path.parent() == Some(&self.directory(main)) && name.is_some_and(|name| self.matches(name))
    }
}

impl Config {
    /// A sentence for each entry of `include` that stands for no file.
    pub(super) fn include_warnings(&self) -> Vec<String> {
        let Some((main, included)) = self.sources.split_first() else { return Vec::new() };
        let unused = self
            .server
            .include
            .iter()
            .filter(|entry| !included.iter().any(|file| entry.matches_path(&main.path, &file.path)));
        unused
            .map(|entry| {
                let directory = entry.directory(&main.path);
                let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
                format!("include {:?} matches no file in {} now", entry.as_str(), directory.display())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_are_in_the_last_part_only() {
        for (text, error) in [
            ("", IncludeError::NoFile),
            ("zones.d/", IncludeError::NoFile),
            ("..", IncludeError::NoFile),
            ("zones.*/a.toml", IncludeError::Directory),
            ("zones.d/**/a.toml", IncludeError::Recursive),
            ("zones.d/**", IncludeError::Recursive),
            ("zones.d/[a.toml", IncludeError::Bracket),
        ] {
            assert_eq!(IncludePattern::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_pattern_is_relative_to_the_file_that_has_it() {
        let directory = |text: &str, main: &str| IncludePattern::parse(text).unwrap().directory(Path::new(main));
        assert_eq!(directory("zones.d/*.toml", "/etc/x/config.toml"), Path::new("/etc/x/zones.d"));
        assert_eq!(directory("../*.toml", "/etc/x/config.toml"), Path::new("/etc/x/.."));
        assert_eq!(directory("/srv/*.toml", "/etc/x/config.toml"), Path::new("/srv"));
        assert_eq!(directory("/*.toml", "/etc/x/config.toml"), Path::new("/"));
        assert_eq!(directory("z/*.toml", "<stdin>"), Path::new("z"));
        assert_eq!(directory("*.toml", "config.toml"), Path::new(""));
    }

    #[test]
    fn hidden_files_and_copies_do_not_match() {
        let pattern = IncludePattern::parse("d/*.toml").unwrap();
        for (name, expected) in [
            ("a.toml", true),
            ("a b.toml", true),
            (".a.toml", false),
            (".#a.toml", false),
            ("a.toml~", false),
            ("#a.toml#", false),
            ("a.toml.swp", false),
            ("a.TOML", false),
            ("..data", false),
        ] {
            assert_eq!(pattern.matches(name), expected, "{name}");
        }
        let all = IncludePattern::parse("d/*").unwrap();
        assert!(all.matches("a") && !all.matches("a~") && !all.matches("..data"));
        let some = IncludePattern::parse("[ab]?.toml").unwrap();
        assert!(some.matches("a1.toml") && !some.matches("c1.toml") && !some.matches("a.toml"));
        let one = IncludePattern::parse("d/a.toml~").unwrap();
        assert!(one.matches("a.toml~") && one.only_name() == Some("a.toml~"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused(text in "\\PC{0,30}|[a\\[\\]*?./!-]{0,12}", name in "\\PC{0,12}|[a.~-]{0,5}") {
            if let Ok(pattern) = IncludePattern::parse(&text) {
                let hidden = pattern.matches(&format!(".{name}"));
                prop_assert!(!hidden || text.rsplit('/').next().is_some_and(|last| last.starts_with('.')), "{text}");
            }
        }
    }
}

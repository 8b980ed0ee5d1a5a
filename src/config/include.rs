//! `include` of `[server]`: which names a pattern stands for. Pure; `reload/files.rs` looks into the directories.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use glob::{MatchOptions, Pattern};

use super::Config;
use crate::types::ZoneName;

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
            // `glob` keeps wildcards from a leading dot, but lets `*.` match the names `..` and `.a.`.
            None if name.starts_with('.') && !self.name.as_str().starts_with('.') => false,
            None => !name.ends_with(BACKUP_MARK) && self.name.matches_with(name, OPTIONS),
        }
    }

    fn matches_path(&self, main: &Path, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        path.parent() == Some(&self.directory(main)) && name.is_some_and(|name| self.matches(name))
    }
}

/// An entry of `include` whose files have all gone, and zones with them.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "include {entry:?} matches no file in {} any more, where {zones} zone{} in force came from, so nothing is removed; put the \
     files back, or, if they are to go, use `alternator-dns reload` or SIGHUP",
    directory.display(),
    if *zones == 1 { "" } else { "s" }
)]
pub struct EmptiedInclude {
    entry: String,
    directory: PathBuf,
    /// How many zones would go.
    zones: usize,
}

impl Config {
    /// Whether a file of the configuration in force is not among those of this one.
    pub fn lacks_file_of(&self, in_force: &Self) -> bool {
        let paths: BTreeSet<&Path> = self.sources.iter().map(|file| &*file.path).collect();
        in_force.sources.iter().any(|file| !paths.contains(&*file.path))
    }

    /// The entry of `include` that both configurations have, whose files have all gone since the one in force, and whose
    /// zones would go. A directory that was unmounted, or is written anew, looks like that.
    pub fn emptied_include(&self, in_force: &Self) -> Option<EmptiedInclude> {
        let (main, included) = self.sources.split_first()?;
        let is_empty = |entry: &&IncludePattern| {
            in_force.server.include.contains(entry)
                && !included.iter().any(|file| entry.matches_path(&main.path, &file.path))
        };
        self.server.include.iter().filter(is_empty).find_map(|entry| {
            let is_removed = |zone: &&ZoneName| !self.zones.contains_key(*zone);
            let is_of_entry = |zone: &&ZoneName| {
                in_force.place_of(zone).is_some_and(|(file, _)| entry.matches_path(&main.path, file))
            };
            let zones = in_force.zones.keys().filter(is_removed).filter(is_of_entry).count();
            let directory = entry.directory(&main.path);
            (zones > 0).then(|| EmptiedInclude { entry: entry.text.clone(), directory, zones })
        })
    }

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
    use crate::config::RawFile;
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
    fn an_include_that_is_emptied_is_known_by_its_zones() {
        let zone = |name: &str| format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n");
        let parse = |include: &str, files: &[(&str, &str)]| {
            let main = format!("[server]\ninclude = {include}\n{}", zone("m"));
            let file = |path: &str, text: String| RawFile { path: path.into(), octets: text.into_bytes() };
            let included = files.iter().map(|(path, zones)| file(path, zones.split_whitespace().map(zone).collect()));
            Config::parse_files(&[file("/e/c.toml", main)].into_iter().chain(included).collect::<Vec<_>>()).unwrap()
        };
        let both = "[\"a.d/*\", \"b.d/*\"]";
        let in_force = parse(both, &[("/e/a.d/1", "a b"), ("/e/a.d/2", ""), ("/e/b.d/1", "c")]);
        let emptied = |include: &str, files: &[(&str, &str)]| {
            parse(include, files).emptied_include(&in_force).map(|emptied| (emptied.entry, emptied.zones))
        };
        assert_eq!(emptied(both, &[("/e/b.d/1", "c")]), Some(("a.d/*".to_owned(), 2)));
        assert_eq!(emptied(both, &[("/e/b.d/1", "c b")]), Some(("a.d/*".to_owned(), 1)));
        assert_eq!(emptied(both, &[("/e/b.d/1", "c b a")]), None, "the zones have moved");
        assert_eq!(emptied(both, &[("/e/a.d/2", ""), ("/e/b.d/1", "c")]), None, "a file is left");
        assert_eq!(emptied("[\"b.d/*\"]", &[("/e/b.d/1", "c")]), None, "the entry has gone, so this is meant");
        assert!(parse(both, &[("/e/b.d/1", "c")]).lacks_file_of(&in_force) && !in_force.lacks_file_of(&in_force));
        let sentence = parse(both, &[]).emptied_include(&in_force).unwrap().to_string();
        assert!(
            sentence.starts_with("include \"a.d/*\" matches no file in /e/a.d any more, where 2 zones in force came")
        );
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
        assert!(!IncludePattern::parse("d/*.").unwrap().matches(".."));
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

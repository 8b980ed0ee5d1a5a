//! The files of a configuration as they are now: the main one and those that it includes.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{
        Config, Diagnostics, FILE_OCTETS_MAX, INCLUDED_FILES_MAX, IncludePattern, RawFile, digest, files_hash,
        includes_of,
    },
    net::watched::{FileReader, Inode, ReadError, ReadFailure, Stamp, read_regular},
};

/// What was found at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigFiles {
    /// The main file and those that it includes; as many as were read before one could not be.
    files: Vec<RawFile>,
    /// How they looked. One that is no regular file, as standard input, has none.
    stamps: Vec<Stamp>,
    /// What the main file includes. It is found anew only when the main file changes.
    includes: Arc<[IncludePattern]>,
    /// Why they are not all.
    error: Option<ReadError>,
}

/// What a main file with this digest includes.
#[derive(Clone, Debug)]
pub(super) struct KnownIncludes {
    main: u64,
    includes: Arc<[IncludePattern]>,
}

/// Why files cannot be served.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FilesError {
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    #[error(transparent)]
    Invalid(#[from] Diagnostics),
}

impl ConfigFiles {
    /// Reads the main file and those that it includes, all of which must be regular files.
    pub async fn read(reader: &FileReader, main: &Path) -> Self {
        Self::read_again(reader, main, None).await
    }

    /// The same after another reading, whose main file may be the same: what it includes is known then.
    pub(super) async fn read_again(reader: &FileReader, main: &Path, former: Option<KnownIncludes>) -> Self {
        let path = main.to_path_buf();
        let read = reader.run(main, move || Self::read_now(path, former)).await;
        read.unwrap_or_else(|reason| Self::unreadable(ReadError { path: main.into(), reason }))
    }

    /// The same with a main file that was read already. It may block: only for commands.
    pub fn of_main(main: RawFile) -> Self {
        let mut found = Self { includes: includes_of(&main.octets).into(), files: vec![main], ..Self::default() };
        found.error = found.add_included().err();
        found
    }

    fn read_now(path: PathBuf, former: Option<KnownIncludes>) -> Self {
        match read_regular(&path, FILE_OCTETS_MAX) {
            Ok(content) => {
                let stamps = vec![content.stamp];
                let includes = match former {
                    Some(former) if former.main == digest(&content.octets) => former.includes,
                    _ => includes_of(&content.octets).into(),
                };
                let files = vec![RawFile { path, octets: content.octets }];
                let mut found = Self { files, stamps, includes, error: None };
                found.error = found.add_included().err();
                found
            }
            Err(reason) => Self::unreadable(ReadError { path, reason }),
        }
    }

    fn unreadable(error: ReadError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    fn add_included(&mut self) -> Result<(), ReadError> {
        let Some(main) = self.files.first() else { return Ok(()) };
        let mut octets_left = FILE_OCTETS_MAX.saturating_sub(main.octets.len() as u64);
        // A pattern may match the file that has it.
        let main_inode = self.stamps.first().map(Stamp::inode);
        for path in included_paths(&main.path, &self.includes)? {
            let content = match read_regular(&path, octets_left) {
                Ok(content) => content,
                Err(ReadFailure::TooLarge(_)) => {
                    return Err(ReadError { path, reason: ReadFailure::TooLargeTogether(FILE_OCTETS_MAX) });
                }
                Err(reason) => return Err(ReadError { path, reason }),
            };
            if Some(content.stamp.inode()) != main_inode {
                octets_left = octets_left.saturating_sub(content.octets.len() as u64);
                self.stamps.push(content.stamp);
                self.files.push(RawFile { path, octets: content.octets });
            }
        }
        Ok(())
    }

    /// The content of the main file, if that could be read.
    pub fn main(&self) -> Option<&[u8]> {
        self.files.first().map(|main| main.octets.as_slice())
    }

    /// Why the files could not all be read.
    pub fn error(&self) -> Option<&ReadError> {
        self.error.as_ref()
    }

    /// Identifies what all files contain; `None` where they could not all be read.
    pub fn hash(&self) -> Option<String> {
        self.error.is_none().then(|| files_hash(&self.files))
    }

    /// What the files say.
    ///
    /// # Errors
    /// They could not all be read, or have errors.
    pub fn parse(&self) -> Result<Config, FilesError> {
        match &self.error {
            Some(error) => Err(error.clone().into()),
            None => Ok(Config::parse_files(&self.files)?),
        }
    }

    /// How the files looked.
    pub(super) fn stamps(&self) -> &[Stamp] {
        &self.stamps
    }

    /// The files that were read beside the main one.
    pub(super) fn included(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().skip(1).map(|file| file.path.as_path())
    }

    /// What the main file includes.
    pub(super) fn includes(&self) -> &[IncludePattern] {
        &self.includes
    }

    /// The same for the next reading; `None` where a main file that includes nothing says so at once.
    pub(super) fn known_includes(&self) -> Option<KnownIncludes> {
        let main = self.main().filter(|_| !self.includes.is_empty())?;
        Some(KnownIncludes { main: digest(main), includes: self.includes.clone() })
    }

    /// A file of a test.
    #[cfg(test)]
    pub(super) fn example(content: &[u8], stamp: Stamp) -> Self {
        let files = vec![RawFile { path: "z.toml".into(), octets: content.into() }];
        Self { files, stamps: vec![stamp], ..Self::default() }
    }
}

/// Which files of these have been written in place since they looked like those.
pub(super) fn written_in_place(former: &[Stamp], now: &[Stamp]) -> Vec<Inode> {
    let was_other = |stamp: &&Stamp| former.iter().any(|other| other.inode() == stamp.inode() && other != *stamp);
    now.iter().filter(was_other).map(Stamp::inode).collect()
}

/// The files that the patterns stand for, in the order of the patterns and then of their names; each once.
fn included_paths(main: &Path, includes: &[IncludePattern]) -> Result<Vec<PathBuf>, ReadError> {
    let mut seen = BTreeSet::new();
    let mut paths = Vec::new();
    for entry in includes {
        let directory = entry.directory(main);
        let names = match entry.only_name() {
            Some(name) => BTreeSet::from([name.to_owned()]),
            None => names(&directory, entry)?,
        };
        for name in names {
            let path = directory.join(name);
            if seen.insert(path.clone()) {
                paths.push(path);
            }
        }
        if paths.len() > INCLUDED_FILES_MAX {
            return Err(ReadError { path: directory, reason: ReadFailure::TooMany(INCLUDED_FILES_MAX) });
        }
    }
    Ok(paths)
}

/// The names in a directory that match, of which there are few more than are allowed.
fn names(directory: &Path, entry: &IncludePattern) -> Result<BTreeSet<String>, ReadError> {
    let opened = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let failed = |error: io::Error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => ReadFailure::NoDirectory,
            _ => error.into(),
        };
        ReadError { path: opened.into(), reason }
    };
    let mut names = BTreeSet::new();
    for found in std::fs::read_dir(opened).map_err(failed)? {
        let name = found.map_err(failed)?.file_name();
        match name.to_str() {
            Some(name) if entry.matches(name) => _ = names.insert(name.to_owned()),
            Some(_) => {}
            // Its zones would be left out, although an operator sees the file beside the others.
            None if entry.matches(&name.to_string_lossy()) => {
                return Err(ReadError { path: directory.join(name), reason: ReadFailure::NameNotUtf8 });
            }
            None => {}
        }
        if names.len() > INCLUDED_FILES_MAX + 1 {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory::TestDirectory;
    use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _};

    const ZONE: &str = "[zones.\"main\"]\nseeds = [\"10.0.0.1\"]\n";

    fn zone(name: &str) -> String {
        format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n")
    }

    struct Place(TestDirectory);

    impl Place {
        fn new(name: &str, include: &str) -> Self {
            let directory = TestDirectory::new(name);
            fs::create_dir(directory.file("d")).unwrap();
            fs::write(directory.file("c.toml"), format!("[server]\ninclude = {include}\n{ZONE}")).unwrap();
            Self(directory)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.file(name), text).unwrap();
        }

        fn read(&self) -> ConfigFiles {
            ConfigFiles::read_now(self.0.file("c.toml"), None)
        }

        fn zones(&self) -> Vec<String> {
            self.read().parse().unwrap().zones.keys().map(ToString::to_string).collect()
        }

        fn error(&self) -> String {
            self.read().parse().unwrap_err().to_string().replace(self.0.path().to_str().unwrap(), "DIR")
        }
    }

    #[test]
    fn matches_are_read_in_the_order_of_their_names_each_once() {
        let place = Place::new("order", "[\"d/*.toml\", \"d/b.toml\", \"*.toml\"]");
        for name in ["c", "a", "b"] {
            place.write(&format!("d/{name}.toml"), &zone(name));
        }
        let found = place.read();
        let included: Vec<_> = found.included().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(included, ["a.toml", "b.toml", "c.toml"]);
        assert_eq!(place.zones(), ["a.", "b.", "c.", "main."]);
    }

    #[test]
    fn a_pattern_without_a_file_is_a_warning_and_a_missing_directory_an_error() {
        let place = Place::new("none", "[\"d/*.toml\"]");
        let warning = place.read().parse().unwrap().warnings().concat();
        assert!(
            warning.starts_with("include \"d/*.toml\" matches no file in ") && warning.ends_with("/d now"),
            "{warning}"
        );
        place.write("d/b.toml", &zone("b"));
        place.write("d/a.toml", &zone("a"));
        place.write("d/.c.toml", "wrong");
        place.write("d/c.toml~", "wrong");
        assert_eq!(place.zones(), ["a.", "b.", "main."]);
        let found = place.read();
        assert_eq!(found.parse().unwrap().warnings(), [""; 0]);
        assert_eq!(found.included().collect::<Vec<_>>(), [place.0.file("d/a.toml"), place.0.file("d/b.toml")]);
        fs::remove_dir_all(place.0.file("d")).unwrap();
        assert_eq!(
            place.error(),
            "cannot read DIR/d: there is no such directory; create it, or remove it from include"
        );
        assert!(place.read().main().is_some(), "the main file says where the last good configuration is");
    }

    #[test]
    fn a_match_that_is_no_regular_file_and_a_named_file_that_is_missing_are_refused() {
        let place = Place::new("regular", "[\"d/*.toml\"]");
        fs::create_dir(place.0.file("d/a.toml")).unwrap();
        assert_eq!(place.error(), "cannot read DIR/d/a.toml: it is a directory");
        let place = Place::new("named", "[\"d/one.toml\"]");
        assert_eq!(place.error(), "cannot read DIR/d/one.toml: there is no such file");
        place.write("d/one.toml", &zone("a"));
        assert_eq!(place.zones(), ["a.", "main."]);
    }

    #[test]
    fn a_match_whose_name_is_not_utf8_is_refused() {
        let place = Place::new("bytes", "[\"d/*.toml\"]");
        let name = |octets: &[u8]| place.0.file("d").join(OsStr::from_bytes(octets));
        fs::write(name(b"a\xff.txt"), "").unwrap();
        assert_eq!(place.zones(), ["main."], "no match");
        fs::write(name(b"a\xff.toml"), zone("a")).unwrap();
        let expected = "cannot read DIR/d/a\u{fffd}.toml: its name is not UTF-8; rename it, or include other names";
        assert_eq!(place.error(), expected);
    }

    #[test]
    fn files_and_octets_are_bounded_together() {
        let place = Place::new("bounds", "[\"d/*.toml\"]");
        for number in 0..=INCLUDED_FILES_MAX {
            place.write(&format!("d/{number}.toml"), "");
        }
        assert_eq!(place.error(), "cannot read DIR/d: include names more than 1000 files; put several zones into one");
        fs::remove_file(place.0.file("d/0.toml")).unwrap();
        assert_eq!(place.zones(), ["main."]);
        place.write("d/1.toml", &format!("# {}", "x".repeat(3 << 20)));
        assert_eq!(place.zones(), ["main."]);
        place.write("d/2.toml", &format!("# {}", "x".repeat(1 << 20)));
        let expected = "cannot read DIR/d/2.toml: all files of the configuration together are larger than 4 MiB";
        assert_eq!(place.error(), expected);
    }

    #[test]
    fn only_a_file_that_has_changed_and_is_the_same_file_counts_as_written_in_place() {
        let former = [Stamp::example(1, 0), Stamp::example(2, 0), Stamp::example(3, 0)];
        let now = [Stamp::example(1, 0), Stamp::example(2, 5), Stamp::example(4, 5)];
        assert_eq!(written_in_place(&former, &now), [Stamp::example(2, 0).inode()]);
        assert_eq!(written_in_place(&[], &now), []);
    }

    #[test]
    fn what_the_same_main_file_includes_is_known() {
        let place = Place::new("known", "[\"d/*.toml\"]");
        place.write("d/a.toml", &zone("a"));
        let again = |former: &ConfigFiles| ConfigFiles::read_now(place.0.file("c.toml"), former.known_includes());
        let first = place.read();
        assert_eq!(again(&first), first);
        assert!(Arc::ptr_eq(&again(&first).includes, &first.includes));
        place.write("c.toml", &format!("[server]\ninclude = [\"e/*.toml\"]\n{ZONE}"));
        assert_eq!(again(&first).includes, IncludePattern::parse("e/*.toml").into_iter().collect());
        place.write("c.toml", ZONE);
        assert!(again(&first).known_includes().is_none() && again(&first).includes.is_empty());
    }

    #[test]
    fn the_hash_is_that_of_all_files() {
        let place = Place::new("hash", "[\"d/*.toml\"]");
        let mut seen = BTreeSet::from([place.read().hash().unwrap()]);
        for (name, text) in [("d/a.toml", "# 1"), ("d/a.toml", "# 2"), ("d/b.toml", ""), ("d/c.toml", "# 2")] {
            place.write(name, text);
            assert!(seen.insert(place.read().hash().unwrap()), "{name} {text}");
        }
        fs::rename(place.0.file("d/c.toml"), place.0.file("d/d.toml")).unwrap();
        assert!(seen.insert(place.read().hash().unwrap()), "another name");
        let found = place.read();
        assert_eq!(found.hash(), Some(found.parse().unwrap().hash));
    }
}

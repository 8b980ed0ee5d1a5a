//! Finds the main file of a file that is only included, for a command that was given that one: alone it lacks the other zones
//! and `[defaults]`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    config::{FILE_OCTETS_MAX, includes_of},
    net::watched::read_regular,
};

/// Files that are looked at for one that includes the given one. A directory of configuration has a few.
const FILES_LOOKED_AT_MAX: usize = 64;

/// The file in the same directory, or in the one above, that includes this one. It may block.
pub(super) fn main_file_of(path: &Path) -> Option<PathBuf> {
    let own = real_directory(path)?;
    let name = path.file_name()?.to_str()?;
    let mut looked_at = 0;
    for directory in [Some(&*own), own.parent()].into_iter().flatten() {
        let mut files: Vec<_> = candidates(directory).unwrap_or_default();
        files.sort();
        for file in files.into_iter().filter(|file| *file != own.join(name)) {
            looked_at += 1;
            if looked_at > FILES_LOOKED_AT_MAX {
                return None;
            }
            if includes(&file, &own, name) {
                return Some(file);
            }
        }
    }
    None
}

/// Whether a main file includes the file of this name in this directory.
pub(super) fn includes(main: &Path, directory: &Path, name: &str) -> bool {
    let Ok(content) = read_regular(main, FILE_OCTETS_MAX) else { return false };
    includes_of(&content.octets).into_iter().any(|entry| {
        entry.matches(name) && fs::canonicalize(entry.directory(main)).is_ok_and(|included| included == directory)
    })
}

/// The directory of a file, without links in its name.
pub(super) fn real_directory(path: &Path) -> Option<PathBuf> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(directory).ok()
}

fn candidates(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let paths = fs::read_dir(directory)?.map_while(Result::ok).map(|entry| entry.path());
    Ok(paths.filter(is_toml).take(FILES_LOOKED_AT_MAX + 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory::TestDirectory;

    #[test]
    fn the_main_file_is_found_beside_or_above() {
        let directory = TestDirectory::new("included");
        fs::create_dir(directory.file("zones.d")).unwrap();
        fs::write(directory.file("zones.d/a.toml"), "").unwrap();
        fs::write(directory.file("b.toml"), "").unwrap();
        assert_eq!(main_file_of(&directory.file("zones.d/a.toml")), None);
        let main = directory.file("config.toml");
        fs::write(&main, "[server]\ninclude = [\"zones.d/*.toml\", \"b.toml\"]\n").unwrap();
        let main = fs::canonicalize(main).unwrap();
        for (name, expected) in [("zones.d/a.toml", Some(&main)), ("b.toml", Some(&main)), ("config.toml", None)] {
            assert_eq!(main_file_of(&directory.file(name)).as_ref(), expected, "{name}");
        }
        assert_eq!(main_file_of(&directory.file("zones.d/a.json")), None);
    }

    #[test]
    fn no_more_files_are_looked_at_than_a_few() {
        let directory = TestDirectory::new("included-many");
        for number in 0..2 * FILES_LOOKED_AT_MAX {
            fs::write(directory.file(&format!("{number:03}.toml")), "").unwrap();
        }
        fs::write(directory.file("z.toml"), "[server]\ninclude = [\"*.toml\"]\n").unwrap();
        assert_eq!(main_file_of(&directory.file("000.toml")), None);
    }
}

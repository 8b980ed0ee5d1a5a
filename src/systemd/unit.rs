//! The unit of this service as it is installed on this machine, as far as it matters to which files the service can read.
//!
//! `check` reads it, because an operator runs `check` as root, and root can read every file.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

/// The unit.
const UNIT: &str = "alternator-dns.service";

/// Where units are, the most important first (systemd.unit(5)), unless `$SYSTEMD_UNIT_PATH` says otherwise.
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The largest file of a unit that is read; ours has some kilobytes.
const FILE_OCTETS_MAX: u64 = 256 << 10;

/// What the unit says about files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServiceUnit {
    /// `User=`; `None` where the user exists only while the service runs, or is root.
    pub user: Option<String>,
    /// `DynamicUser=`.
    pub has_dynamic_user: bool,
    /// `Group=` and `SupplementaryGroups=`.
    pub groups: Vec<String>,
    /// `ProtectHome=`: home directories cannot be read.
    pub hides_homes: bool,
    /// `PrivateTmp=`: the temporary directories are others.
    pub hides_temporary: bool,
    /// The credentials and, where systemd copies them from files, these.
    pub credentials: BTreeMap<String, Option<PathBuf>>,
}

impl ServiceUnit {
    /// The installed unit with its drop-in files; `None` where there is none.
    pub fn installed() -> Option<Self> {
        Self::in_directories(&directories())
    }

    fn in_directories(directories: &[PathBuf]) -> Option<Self> {
        let main = directories.iter().find_map(|directory| read(&directory.join(UNIT)).ok())?;
        // Files of one name replace each other; the names give the order.
        let mut drop_ins = BTreeMap::new();
        for directory in directories.iter().rev() {
            let Ok(entries) = fs::read_dir(directory.join(format!("{UNIT}.d"))) else { continue };
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "conf")) {
                drop_ins.insert(path.file_name().map(OsString::from), path);
            }
        }
        let mut unit = Self::default();
        unit.apply(&main);
        for path in drop_ins.values() {
            // A file that cannot be read, such as a link to /dev/null, says nothing.
            unit.apply(&read(path).unwrap_or_default());
        }
        Some(unit)
    }

    /// Applies the lines of a file.
    fn apply(&mut self, text: &str) {
        let mut section = "";
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, value)) = line.split_once('=')
                && section == "[Service]"
            {
                self.set(key.trim(), value.trim());
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let is_yes = matches!(value, "yes" | "true" | "on" | "1");
        match key {
            "User" => self.user = (!matches!(value, "" | "root" | "0")).then(|| value.to_owned()),
            "DynamicUser" => self.has_dynamic_user = is_yes,
            // An empty value forgets the earlier ones.
            "SupplementaryGroups" if value.is_empty() => self.groups.clear(),
            "Group" | "SupplementaryGroups" => self.groups.extend(value.split_whitespace().map(str::to_owned)),
            "ProtectHome" => self.hides_homes = is_yes || value == "tmpfs",
            "PrivateTmp" => self.hides_temporary = is_yes || value == "disconnected",
            "LoadCredential" | "LoadCredentialEncrypted" | "SetCredential" | "SetCredentialEncrypted" => {
                if value.is_empty() {
                    self.credentials.clear();
                } else {
                    let (name, source) = value.split_once(':').unwrap_or((value, ""));
                    let is_file = key == "LoadCredential" && source.starts_with('/');
                    self.credentials.insert(name.to_owned(), is_file.then(|| source.into()));
                }
            }
            _ => {}
        }
    }

    /// Whether the service runs as root, which can read everything that is not hidden.
    pub fn is_root(&self) -> bool {
        self.user.is_none() && !self.has_dynamic_user
    }
}

fn directories() -> Vec<PathBuf> {
    let default = || DIRECTORIES.into_iter().map(PathBuf::from);
    match std::env::var_os("SYSTEMD_UNIT_PATH").filter(|list| !list.is_empty()) {
        None => default().collect(),
        Some(list) => {
            // A colon at the end stands for the usual directories.
            let more = list.as_bytes().ends_with(b":");
            let named = list.as_bytes().split(|&octet| octet == b':').filter(|path| !path.is_empty());
            let named = named.map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
            named.chain(more.then(default).into_iter().flatten()).collect()
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    file.take(FILE_OCTETS_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory::TestDirectory;
    use proptest::prelude::*;

    fn parsed(text: &str) -> ServiceUnit {
        let mut unit = ServiceUnit::default();
        unit.apply(text);
        unit
    }

    #[test]
    fn the_packaged_unit_has_no_group_and_hides_homes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd").join(UNIT);
        let unit = parsed(&fs::read_to_string(path).unwrap());
        let expected =
            ServiceUnit { has_dynamic_user: true, hides_homes: true, hides_temporary: true, ..ServiceUnit::default() };
        assert_eq!(unit, expected);
        assert!(!unit.is_root());
    }

    #[test]
    fn drop_in_files_add_to_the_unit() {
        let directory = TestDirectory::new("unit");
        fs::create_dir_all(directory.file("etc/alternator-dns.service.d")).unwrap();
        fs::create_dir_all(directory.file("lib/alternator-dns.service.d")).unwrap();
        let directories = [directory.file("etc"), directory.file("lib")];
        assert_eq!(ServiceUnit::in_directories(&directories), None);
        directory.put("lib/alternator-dns.service", "[Service]\nDynamicUser=yes\nSupplementaryGroups=a b\n");
        directory.put("lib/alternator-dns.service.d/10.conf", "[Service]\nSupplementaryGroups=replaced\n");
        directory.put("etc/alternator-dns.service.d/10.conf", "[Service]\nSupplementaryGroups=c\n");
        directory.put(
            "etc/alternator-dns.service.d/20.conf",
            "# no\n[Unit]\nUser=x\n[Service]\nLoadCredential=k.pem:/etc/k.pem\nLoadCredential=inherited\nGroup = \\\n d\n",
        );
        let unit = ServiceUnit::in_directories(&directories).unwrap();
        assert_eq!(unit.groups, ["a", "b", "c", "d"]);
        assert_eq!(unit.user, None);
        let credentials: Vec<_> = unit.credentials.into_iter().collect();
        assert_eq!(credentials, [("inherited".into(), None), ("k.pem".into(), Some("/etc/k.pem".into()))]);
    }

    #[test]
    fn an_empty_value_forgets_earlier_ones() {
        let unit = parsed(
            "[Service]\nSupplementaryGroups=a\nSupplementaryGroups=\nLoadCredential=a:/b\nLoadCredential=\nUser=root\n",
        );
        assert_eq!(unit, ServiceUnit::default());
        assert!(unit.is_root());
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(
            text in "((\\[Service\\]|User=|Group=|LoadCredential=|[a-z:/ =]{0,9}|\\PC{0,9})\\\\?\n){0,9}"
        ) {
            let _ = parsed(&text);
        }
    }
}

//! Credentials that systemd gives to the service (`LoadCredential=`): files that it copies when the service starts, into a
//! directory that only the service can read. The configuration names them `credential:NAME` in place of a path.

use std::{
    borrow::Cow,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// What a credential begins with.
pub const PREFIX: &str = "credential:";

/// Octets in a name, as in systemd.
const NAME_OCTETS_MAX: usize = 255;

/// The name of the credential that a path of the configuration stands for; `None` where it is a path.
pub fn credential_name(path: &Path) -> Option<&str> {
    path.to_str()?.strip_prefix(PREFIX)
}

/// Whether systemd can have a credential of this name. It has no slash, so it never leads out of the directory.
pub fn is_credential_name(name: &str) -> bool {
    let is_plain = name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet));
    is_plain && (1..=NAME_OCTETS_MAX).contains(&name.len()) && !matches!(name, "." | "..")
}

/// The directory of the credentials, if this process has any.
pub fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// The file that a path of the configuration stands for. `None`: it is a credential, and there is no directory of them.
pub fn resolve<'p>(path: &'p Path, directory: Option<&OsStr>) -> Option<Cow<'p, Path>> {
    match credential_name(path) {
        None => Some(path.into()),
        Some(name) => directory.map(|directory| Path::new(directory).join(name).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_file_in_the_directory_of_credentials() {
        let directory = Some(OsStr::new("/run/credentials/a.service"));
        let resolved = |path: &'static str, directory| resolve(Path::new(path), directory).map(Cow::into_owned);
        assert_eq!(resolved("/etc/a.pem", None), Some("/etc/a.pem".into()));
        assert_eq!(resolved("credential:a.key", directory), Some("/run/credentials/a.service/a.key".into()));
        assert_eq!(resolved("credential:a.key", None), None);
    }

    #[test]
    fn names_are_those_of_files_in_one_directory() {
        for name in ["a", "server.key", "A-1_b"] {
            assert!(is_credential_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../a", "a b", "\u{e4}", &"a".repeat(256)] {
            assert!(!is_credential_name(name), "{name}");
        }
    }
}

//! The files of certificates, keys and secrets that a configuration names.

use std::{collections::BTreeMap, path::Path};

use super::{Config, Encryption, Identity, IdentityKeys, Scheme, Server, Tls};
use crate::{metrics::CertificateUse, systemd::credential::credential_name};

/// A file that the configuration names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedFile<'c> {
    /// The file, or the credential that stands for it.
    pub path: &'c Path,
    /// What certificates in it are for; `None` for keys and secrets.
    pub certificates: Option<CertificateUse>,
    /// Where the configuration names it: `tls of [server]`. Of several zones the first.
    pub place: String,
}

impl Config {
    /// Every file that the configuration names, each once for each use.
    pub fn named_files(&self) -> Vec<NamedFile<'_>> {
        let mut files = Files(BTreeMap::new());
        let Server { encryption, cookie_secret_file, .. } = &self.server;
        if let Some(Encryption { cert, key, .. }) = encryption {
            files.add(cert, Some(CertificateUse::Server), || "tls of [server]".into());
            files.add(key, None, || "tls of [server]".into());
        }
        if let Some(file) = cookie_secret_file {
            files.add(file, None, || "cookie_secret_file".into());
        }
        if let Some(transfer) = &self.transfer {
            files.add(&transfer.key.secret_file, None, || "key of [transfer]".into());
        }
        for (name, zone) in &self.zones {
            if let Scheme::Https(Tls { ca, client, insecure, .. }) = &zone.cluster.scheme {
                // Without checks no authority is read.
                if let Some(ca) = ca.as_deref().filter(|_| !insecure) {
                    files.add(ca, Some(CertificateUse::Ca), || format!("tls of zone {name}"));
                }
                if let Some((cert, key)) = client {
                    files.add(cert, Some(CertificateUse::Client), || format!("tls of zone {name}"));
                    files.add(key, None, || format!("tls of zone {name}"));
                }
            }
            if let Identity::Signed(IdentityKeys { secret_key_file, .. }) = &zone.identity {
                files.add(secret_key_file, None, || format!("identity of zone {name}"));
            }
        }
        files.0.into_values().collect()
    }

    /// A warning if files are credentials: they are copies.
    pub(super) fn credential_warning(&self) -> Option<String> {
        let files = self.named_files();
        let first = files.iter().find_map(|file| credential_name(file.path))?;
        Some(format!(
            "systemd copies credentials (such as credential:{first}) only when the service starts: a renewed certificate, \
             key or secret is used after a restart, not at once. To have changes used at once, name the file itself, and \
             give the service its group with SupplementaryGroups="
        ))
    }
}

/// Files by path and use, in the order of their paths.
struct Files<'c>(BTreeMap<(&'c Path, usize), NamedFile<'c>>);

impl<'c> Files<'c> {
    fn add(&mut self, path: &'c Path, certificates: Option<CertificateUse>, place: impl FnOnce() -> String) {
        let purpose = certificates.map_or(0, |purpose| 1 + purpose as usize);
        self.0.entry((path, purpose)).or_insert_with(|| NamedFile { path, certificates, place: place() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap()
    }

    #[test]
    fn every_file_is_named_once_with_its_first_place() {
        let config = parsed(
            "[server]\nlisten_tls = [\"127.0.0.1:853\"]\ntls = { cert = \"/c\", key = \"credential:k\" }\n\
             cookie_secret_file = \"/s\"\n[defaults]\nscheme = \"https\"\ntls = { ca = \"/ca\" }\n\
             [zones.\"a\"]\nseeds = [\"10.0.0.1\"]\ntls = { cert = \"/c\", key = \"/k\" }\n\
             [zones.\"b\"]\nseeds = [\"10.0.0.1\"]\nidentity = { access_key = \"x\", secret_key_file = \"/i\" }\n\
             [zones.\"c\"]\nseeds = [\"10.0.0.1\"]\ntls = { ca = \"/unused\", insecure = true }\n",
        );
        let files = config.named_files();
        let found: Vec<_> = files.iter().map(|file| (file.path.to_str().unwrap(), &*file.place)).collect();
        let expected = [
            ("/c", "tls of [server]"),
            ("/c", "tls of zone a."),
            ("/ca", "tls of zone a."),
            ("/i", "identity of zone b."),
            ("/k", "tls of zone a."),
            ("/s", "cookie_secret_file"),
            ("credential:k", "tls of [server]"),
        ];
        assert_eq!(found, expected);
        let warning = config.credential_warning().unwrap();
        assert!(warning.contains("credential:k") && warning.contains("restart"), "{warning}");
        assert_eq!(parsed("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n").credential_warning(), None);
    }
}

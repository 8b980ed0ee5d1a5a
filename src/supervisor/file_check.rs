//! What is wrong, or soon will be, with the files that a configuration names: for `alternator-dns check`.
//!
//! The server starts with some of these faults, and others appear while it runs; so all are warnings.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::unistd::{Group, User, geteuid};

use super::{certificates, cookies, expiry};
use crate::{
    config::{Config, Encryption, Identity, NamedFile, Scheme, Tls, TransferKey},
    discovery::node::{SECRET_FILE_OCTETS_MAX, SecretKey, TLS_FILE_OCTETS_MAX, check_tls_files, tls_files},
    net::{
        certificate::unix_seconds,
        watched::{FileReader, ReadError, ReadFailure},
    },
    server::certified_key,
    systemd::{
        credential::{credential_name, credentials_directory},
        unit::ServiceUnit,
    },
    transfer::{SECRET_OCTETS_MAX, TsigKey},
};

/// Warnings about the files that a configuration names, a sentence each. `unit` is the service as it is installed here.
pub async fn file_warnings(config: &Config, unit: Option<&ServiceUnit>) -> Vec<String> {
    let check = FileCheck { unit, reader: FileReader::new(), now: unix_seconds(SystemTime::now()) };
    let mut warnings = check.contents(config).await;
    for file in config.named_files() {
        if let Some(purpose) = file.certificates
            && let Ok(octets) = check.read(file.path, TLS_FILE_OCTETS_MAX).await
        {
            let found = expiry::certificate_warnings(purpose, &octets, check.now);
            warnings.extend(
                found
                    .into_iter()
                    .map(|what| format!("{}: {} holds a certificate that {what}", file.place, file.path.display())),
            );
        }
        warnings.extend(check.access(&file).map(|why| format!("{}: {why}", file.place)));
    }
    let included = config.sources.iter().skip(1);
    warnings.extend(included.filter_map(|file| Some(format!("include: {}", check.source_access(&file.path)?))));
    // Certificate and key of one place may fail for one reason.
    let mut seen = BTreeSet::new();
    warnings.retain(|warning| seen.insert(warning.clone()));
    warnings
}

/// What is wrong with a state directory. Only the service's user knows whether it may write there.
fn state_directory(path: &Path) -> Option<String> {
    let what = match (fs::metadata(path), path.parent().map(fs::metadata)) {
        (Ok(found), _) if found.is_dir() => return None,
        (Ok(_), _) => "is not a directory",
        (Err(_), Some(Ok(parent))) if parent.is_dir() => return None,
        (Err(_), _) => "cannot be created, because the directory above it does not exist",
    };
    let effect = "the server will keep neither nodes nor a last good configuration";
    Some(format!("state_dir of [server]: {} {what}; {effect}", path.display()))
}

struct FileCheck<'u> {
    unit: Option<&'u ServiceUnit>,
    reader: FileReader,
    now: i64,
}

impl FileCheck<'_> {
    /// Files that cannot be read, or whose contents cannot be used.
    async fn contents(&self, config: &Config) -> Vec<String> {
        const NO_START: &str = "the server will not start";
        const NO_NODE: &str = "no node can be asked";
        const NO_IDS: &str = "without the key no node is asked for the id of its cluster";
        let mut warnings = Vec::new();
        let server = &config.server;
        if let Some(Encryption { cert, key, .. }) = &server.encryption {
            let checked = self.server_certificate(cert, key).await;
            warnings.extend(warning("tls of [server]", checked, NO_START));
        }
        if let Some(file) = &server.cookie_secret_file {
            warnings.extend(warning("cookie_secret_file", self.cookie_secrets(file).await, NO_START));
        }
        if let Some(transfer) = &config.transfer {
            warnings.extend(warning("key of [transfer]", self.transfer_key(&transfer.key).await, NO_START));
        }
        warnings.extend(server.state_dir.as_deref().and_then(state_directory));
        let mut known_tls = HashSet::new();
        let mut known_keys = HashSet::new();
        for (name, zone) in &config.zones {
            if let Scheme::Https(tls) = &zone.cluster.scheme
                && known_tls.insert(tls)
            {
                warnings.extend(warning(&format!("tls of zone {name}"), self.node_tls(tls).await, NO_NODE));
            }
            if let Identity::Signed(keys) = &zone.identity
                && known_keys.insert(&keys.secret_key_file)
            {
                let checked = self.secret_key(&keys.secret_key_file).await;
                warnings.extend(warning(&format!("identity of zone {name}"), checked, NO_IDS));
            }
        }
        warnings
    }

    async fn server_certificate(&self, cert: &Path, key: &Path) -> Result<(), Problem> {
        let cert_pem = self.read(cert, certificates::FILE_OCTETS_MAX).await?;
        let key_pem = self.read(key, certificates::FILE_OCTETS_MAX).await?;
        certified_key((cert, &cert_pem), (key, &key_pem)).map(drop).map_err(Problem::content)
    }

    async fn cookie_secrets(&self, file: &Path) -> Result<(), Problem> {
        let octets = self.read(file, cookies::FILE_OCTETS_MAX).await?;
        cookies::check(&octets).map_err(|error| Problem::content(format!("{}: {error}", file.display())))
    }

    async fn transfer_key(&self, key: &TransferKey) -> Result<(), Problem> {
        let octets = self.read(&key.secret_file, SECRET_OCTETS_MAX).await?;
        let parsed = TsigKey::parse(key, &octets).map(drop);
        parsed.map_err(|error| Problem::content(format!("{}: {error}", key.secret_file.display())))
    }

    async fn node_tls(&self, tls: &Tls) -> Result<(), Problem> {
        let mut contents = Vec::new();
        for path in tls_files(tls) {
            contents.push(self.read(&path, TLS_FILE_OCTETS_MAX).await?);
        }
        check_tls_files(tls, contents).map_err(Problem::content)
    }

    async fn secret_key(&self, file: &Path) -> Result<(), Problem> {
        let octets = self.read(file, SECRET_FILE_OCTETS_MAX).await?;
        let parsed = SecretKey::parse(&octets).map(drop);
        parsed.map_err(|error| Problem::content(format!("{}: {error}", file.display())))
    }

    /// A credential is read from where systemd will copy it from, because `check` has no credentials of its own.
    async fn read(&self, path: &Path, size_max: u64) -> Result<Vec<u8>, Problem> {
        let mut real = path;
        if let Some(name) = credential_name(path)
            && credentials_directory().is_none()
        {
            match self.unit.map(|unit| unit.credentials.get(name)) {
                Some(Some(Some(source))) => real = source,
                // Without the unit on this machine, or where systemd does not take it from a file, only the service knows.
                None | Some(Some(None)) => return Err(Problem::Unknown),
                // The error says that the unit lacks it.
                Some(None) => {}
            }
        }
        Ok(self.reader.read(real, size_max).await?.octets)
    }

    /// Why the service will not be able to read a file that exists, and what to do.
    fn access(&self, file: &NamedFile<'_>) -> Option<String> {
        if credential_name(file.path).is_some() {
            // Reading it has failed already where the unit has no such credential.
            return None;
        }
        let Obstacle { what, remedy } = self.obstacle(file.path)?;
        let path = file.path.display();
        Some(match remedy {
            None => what,
            Some(remedy) => format!(
                "{what}. {remedy}, or have systemd copy the file: LoadCredential=NAME:{path} in the unit, and \
                 \"credential:NAME\" here"
            ),
        })
    }

    /// The same of a file of the configuration itself, which cannot be a credential.
    fn source_access(&self, path: &Path) -> Option<String> {
        let Obstacle { what, remedy } = self.obstacle(path)?;
        Some(remedy.map_or(what.clone(), |remedy| format!("{what}. {remedy}")))
    }

    fn obstacle(&self, path: &Path) -> Option<Obstacle> {
        let unit = self.unit?;
        let real = fs::canonicalize(path).ok()?;
        let shown = path.display();
        if let Some(setting) = hidden_by(unit, &real) {
            let what = format!(
                "the service cannot see {shown}, because its unit has {setting}; move the file to /etc/alternator-dns"
            );
            return Some(Obstacle { what, remedy: None });
        }
        let reader = UnitReader::of(unit);
        let blocking = [path, &*real].into_iter().find_map(|path| reader.blocking(path))?;
        let verb = if blocking.is_directory { "enter" } else { "read" };
        let (allowed, place) = (blocking.allowed(), blocking.path.display());
        let what = format!("the user of the service cannot read {shown}: only {allowed} may {verb} {place}");
        Some(Obstacle { what, remedy: Some(format!("{} (systemctl edit alternator-dns)", blocking.remedy())) })
    }
}

/// What keeps the service from a file.
struct Obstacle {
    what: String,
    remedy: Option<String>,
}

/// Why a file cannot be used.
enum Problem {
    /// `check` cannot know.
    Unknown,
    /// The user who runs `check` may not read it; the user of the service may.
    Denied(ReadError),
    /// In a sentence.
    Found(String),
}

impl Problem {
    fn content(error: impl ToString) -> Self {
        Self::Found(error.to_string())
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        if error.reason == ReadFailure::Denied && !geteuid().is_root() {
            Self::Denied(error)
        } else {
            Self::Found(error.to_string())
        }
    }
}

/// The warning about what is named at a place, if its check found something.
fn warning(place: &str, checked: Result<(), Problem>, consequence: &str) -> Option<String> {
    match checked {
        Ok(()) | Err(Problem::Unknown) => None,
        Err(Problem::Denied(error)) => {
            Some(format!("{place}: {error}; run check as root, or as the user of the server"))
        }
        Err(Problem::Found(why)) => Some(format!("{place}: {why}; {consequence}")),
    }
}

/// The setting of the unit that hides a file from the service.
fn hidden_by(unit: &ServiceUnit, path: &Path) -> Option<&'static str> {
    let is_below = |directories: &[&str]| directories.iter().any(|directory| path.starts_with(directory));
    if unit.hides_homes && is_below(&["/home", "/root", "/run/user"]) {
        Some("ProtectHome=yes")
    } else if unit.hides_temporary && is_below(&["/tmp", "/var/tmp"]) {
        Some("PrivateTmp=yes")
    } else {
        None
    }
}

/// The user of the service, as file modes see it.
struct UnitReader {
    is_root: bool,
    user: Option<u32>,
    groups: Vec<u32>,
}

/// A file or directory that keeps the service from reading.
struct Blocking {
    path: PathBuf,
    is_directory: bool,
    group: Option<String>,
    group_may: bool,
}

impl UnitReader {
    fn of(unit: &ServiceUnit) -> Self {
        let user = unit.user.as_deref().and_then(|name| User::from_name(name).ok().flatten());
        let named = unit.groups.iter().filter_map(|name| match name.parse() {
            Ok(number) => Some(number),
            Err(_) => Some(Group::from_name(name).ok()??.gid.as_raw()),
        });
        let own = user.as_ref().map(|user| user.gid.as_raw());
        Self {
            is_root: unit.is_root(),
            user: user.as_ref().map(|user| user.uid.as_raw()),
            groups: named.chain(own).collect(),
        }
    }

    /// The first directory on the way to a file, or the file itself, that the user may not use.
    fn blocking(&self, path: &Path) -> Option<Blocking> {
        let mut way: Vec<_> = path.ancestors().collect();
        way.reverse();
        self.first_blocking(&way)
    }

    fn first_blocking(&self, way: &[&Path]) -> Option<Blocking> {
        way.iter().find_map(|path| {
            let metadata = fs::metadata(path).ok()?;
            // Reading a file, or entering a directory.
            let bit = if metadata.is_dir() { 0o1 } else { 0o4 };
            (!self.may(&metadata, bit)).then(|| Blocking {
                path: path.to_path_buf(),
                is_directory: metadata.is_dir(),
                group: Group::from_gid(metadata.gid().into()).ok().flatten().map(|group| group.name),
                group_may: metadata.mode() & (bit << 3) != 0,
            })
        })
    }

    fn may(&self, file: &Metadata, bit: u32) -> bool {
        let shift = if self.user == Some(file.uid()) {
            6
        } else if self.groups.contains(&file.gid()) {
            3
        } else {
            0
        };
        self.is_root || file.mode() & (bit << shift) != 0
    }
}

impl Blocking {
    fn allowed(&self) -> String {
        match &self.group {
            Some(group) if self.group_may => format!("its owner and the group {group}"),
            _ => "its owner".into(),
        }
    }

    fn remedy(&self) -> String {
        match &self.group {
            Some(group) if self.group_may && group != "root" => {
                format!("Give the service this group: SupplementaryGroups={group} in the unit")
            }
            _ => "Let a group do that, and give the service this group: SupplementaryGroups= in the unit".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{config::RawFile, test_directory::TestDirectory};

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_state_directory_that_cannot_be_one_is_named() {
        let directory = TestDirectory::new("state");
        let file = directory.put("file", "");
        assert_eq!(state_directory(directory.path()), None);
        assert_eq!(state_directory(&directory.file("new")), None);
        assert!(state_directory(&file).unwrap().contains(" is not a directory; "));
        let deep = state_directory(&directory.file("new/deep")).unwrap();
        assert!(deep.contains(" cannot be created, because the directory above it does not exist; "), "{deep}");
    }

    #[tokio::test]
    async fn an_included_file_that_the_service_cannot_see_is_a_warning() {
        let directory = TestDirectory::new("include-hidden");
        let unit = ServiceUnit { hides_homes: true, hides_temporary: true, ..ServiceUnit::default() };
        let main = "[server]\ninclude = [\"z.toml\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n";
        let files = [("main.toml", main), ("z.toml", "")]
            .map(|(name, text)| RawFile { path: directory.put(name, text), octets: text.into() });
        let config = Config::parse_files(&files).unwrap();
        let warnings = file_warnings(&config, Some(&unit)).await;
        let place = fs::canonicalize(&files[1].path).unwrap();
        let hidden = hidden_by(&unit, &place).map(|setting| {
            let path = files[1].path.display();
            format!(
                "include: the service cannot see {path}, because its unit has {setting}; move the file to /etc/alternator-dns"
            )
        });
        assert_eq!(warnings.into_iter().find(|warning| warning.contains("cannot see")), hidden);
    }

    #[test]
    fn the_first_obstacle_on_the_way_is_found() {
        let directory = TestDirectory::new("way");
        fs::create_dir(directory.file("keys")).unwrap();
        let file = directory.put("keys/a.key", "secret");
        let stranger = UnitReader { is_root: false, user: None, groups: vec![] };
        set_mode(&directory.file("keys"), 0o755);
        set_mode(&file, 0o644);
        // Without the directories above the test's own, which may be closed to others.
        let way = [&*directory.file("keys"), &*file].map(Path::to_path_buf);
        let found = |reader: &UnitReader| {
            let blocking = reader.first_blocking(&[&*way[0], &*way[1]]);
            blocking.map(|blocking| (blocking.path.clone(), blocking.allowed()))
        };
        assert_eq!(found(&stranger), None);
        set_mode(&file, 0o600);
        assert_eq!(found(&stranger), Some((file.clone(), "its owner".into())));
        let group = fs::metadata(&file).unwrap().gid();
        set_mode(&file, 0o640);
        let (path, allowed) = found(&stranger).unwrap();
        assert!(path == file && allowed.starts_with("its owner and the group "), "{allowed}");
        assert_eq!(found(&UnitReader { is_root: false, user: None, groups: vec![group] }), None);
        set_mode(&directory.file("keys"), 0o700);
        assert_eq!(found(&stranger), Some((directory.file("keys"), "its owner".into())));
        assert_eq!(found(&UnitReader { is_root: true, user: None, groups: vec![] }), None);
        let owner = fs::metadata(&file).unwrap().uid();
        assert_eq!(found(&UnitReader { is_root: false, user: Some(owner), groups: vec![] }), None);
    }

    #[test]
    fn homes_and_temporary_directories_are_hidden_by_the_unit() {
        let unit = ServiceUnit { hides_homes: true, hides_temporary: true, ..ServiceUnit::default() };
        assert_eq!(hidden_by(&unit, Path::new("/root/a.key")), Some("ProtectHome=yes"));
        assert_eq!(hidden_by(&unit, Path::new("/tmp/a.key")), Some("PrivateTmp=yes"));
        assert_eq!(hidden_by(&unit, Path::new("/etc/a.key")), None);
        assert_eq!(hidden_by(&ServiceUnit::default(), Path::new("/home/a/a.key")), None);
    }
}

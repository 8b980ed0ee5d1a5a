//! The secrets that cookies are made with: a random one, or those of a file that replicas share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio_util::task::JoinMap;

use super::LOOK_INTERVAL;
use crate::{
    net::watched::{FileReader, Look, WatchError, WatchedFiles},
    table::{CookieSecret, CookieSecrets},
};

/// Secrets in one file. A rollover needs two at a time.
const SECRETS_MAX: usize = 8;

/// The largest file that is read: that many secrets, and comments about them.
pub(super) const FILE_OCTETS_MAX: u64 = 4096;

/// The task that looks at the file.
const TASK: &str = "cookie secrets";

/// Why a content gives no secrets. Each reads as the end of a sentence that starts with the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretsError {
    /// It is not UTF-8.
    #[error("it is not text")]
    NotText,
    /// This line is not a secret.
    #[error("line {0} is not 32 hexadecimal digits")]
    Line(usize),
    /// It has only comments and empty lines.
    #[error("it holds no secret; write 32 hexadecimal digits on a line")]
    None,
    /// It has too many secrets.
    #[error("it holds more than {SECRETS_MAX} secrets")]
    TooMany,
}

/// The file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the cookie_secret_file {}: {}", path.display(), reason(error))]
pub struct SecretsFileError {
    path: PathBuf,
    error: WatchError<SecretsError>,
}

type Files = WatchedFiles<CookieSecrets, SecretsError>;

/// The secrets in force, and where they come from.
#[derive(Debug)]
pub(super) struct Cookies {
    in_force: Arc<ArcSwap<CookieSecrets>>,
    /// Used while there is no file.
    random: CookieSecrets,
    reader: FileReader,
}

/// Secrets that have been read and are not in force yet; `None` where no file is configured.
#[derive(Debug)]
pub(super) struct PreparedSecrets(Option<Files>);

impl Cookies {
    pub(super) fn new(reader: FileReader) -> Self {
        Self { in_force: Arc::default(), random: CookieSecrets::default(), reader }
    }

    /// What answers read.
    pub(super) fn in_force(&self) -> Arc<ArcSwap<CookieSecrets>> {
        self.in_force.clone()
    }

    /// Reads the file, if one is wanted. Nothing changes before [`Self::commit`].
    pub(super) async fn prepare(&self, file: Option<&Path>) -> Result<PreparedSecrets, SecretsFileError> {
        let Some(path) = file else { return Ok(PreparedSecrets(None)) };
        match WatchedFiles::open(&self.reader, vec![path.into()], FILE_OCTETS_MAX, make).await {
            Ok(files) => Ok(PreparedSecrets(Some(files))),
            Err(error) => Err(SecretsFileError { path: path.into(), error }),
        }
    }

    /// Uses what was prepared from now on, and watches its file.
    pub(super) fn commit(&mut self, PreparedSecrets(files): PreparedSecrets, tasks: &mut JoinMap<String, ()>) {
        let Some(files) = files else {
            tasks.abort(TASK);
            self.in_force.store(Arc::new(self.random.clone()));
            return;
        };
        if let Some(secrets) = files.value() {
            self.in_force.store(secrets.clone());
        }
        tasks.spawn(TASK.into(), watch(files, self.reader.clone(), self.in_force.clone()));
    }
}

async fn watch(mut files: Files, reader: FileReader, in_force: Arc<ArcSwap<CookieSecrets>>) {
    let file = files.names();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match files.look(&reader, make).await {
            Look::Unchanged => {}
            Look::Changed(secrets) => {
                tracing::info!(file, "other secrets for cookies are in force");
                in_force.store(secrets);
            }
            Look::Recovered => tracing::info!(file, "the secrets for cookies can be read again"),
            Look::Failed(error) => tracing::warn!(file, "cookies keep their secrets: {}", reason(&error)),
        }
    }
}

/// The error without the file, which the sentence around it names.
fn reason(error: &WatchError<SecretsError>) -> String {
    match error {
        WatchError::Read(error) => error.reason.to_string(),
        WatchError::Content(error) => error.to_string(),
    }
}

/// Checks the content of a file.
pub(super) fn check(octets: &[u8]) -> Result<(), SecretsError> {
    make(vec![octets.to_vec()]).map(drop)
}

fn make(contents: Vec<Vec<u8>>) -> Result<CookieSecrets, SecretsError> {
    let text = String::from_utf8(contents.concat()).map_err(|_| SecretsError::NotText)?;
    parse(&text)
}

/// One secret a line, the one that makes cookies first. Empty lines and those that begin with `#` mean nothing.
fn parse(text: &str) -> Result<CookieSecrets, SecretsError> {
    let mut secrets = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        secrets.push(secret(line).ok_or(SecretsError::Line(number + 1))?);
    }
    match secrets.split_first() {
        None => Err(SecretsError::None),
        Some(_) if secrets.len() > SECRETS_MAX => Err(SecretsError::TooMany),
        Some((&current, others)) => Ok(CookieSecrets { current, others: others.to_vec() }),
    }
}

fn secret(line: &str) -> Option<CookieSecret> {
    let mut secret = [0; 16];
    let digits = line.as_bytes();
    if digits.len() != 2 * secret.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (octet, pair) in secret.iter_mut().zip(digits.chunks(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(CookieSecret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_secret_makes_cookies_and_all_verify_them() {
        let one = "00112233445566778899aabbccddeeff";
        let two = "FF".repeat(16);
        let secrets = parse(&format!("# rolled over in May\n\n  {one}\n{two}\n")).unwrap();
        assert_eq!((secrets.current.0[..3].to_vec(), secrets.iter().count()), (vec![0, 0x11, 0x22], 2));
        assert_eq!(secrets.others, [CookieSecret([0xff; 16])]);
    }

    #[test]
    fn a_file_without_secrets_is_refused_with_the_reason() {
        let refusal = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(refusal("# nothing\n"), "it holds no secret; write 32 hexadecimal digits on a line");
        assert_eq!(refusal("# one\n0011\n"), "line 2 is not 32 hexadecimal digits");
        assert_eq!(refusal(&"é".repeat(16)), "line 1 is not 32 hexadecimal digits");
        assert_eq!(refusal(&format!("{}\n", "0".repeat(32)).repeat(9)), "it holds more than 8 secrets");
        assert_eq!(make(vec![vec![0xff]]), Err(SecretsError::NotText));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "([0-9a-fA-F#é \n]|\\PC){0,100}") {
            if let Ok(secrets) = parse(&text) {
                prop_assert!(secrets.iter().count() <= SECRETS_MAX);
            }
        }
    }
}

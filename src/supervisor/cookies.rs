//! The secrets that cookies are made with: one of our own, or those of a file that replicas share.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::StartError;
use crate::table::{CookieSecret, CookieSecrets};

/// Secrets in one file. A rollover needs two at a time.
const SECRETS_MAX: usize = 8;

/// The largest file that is read: so many secrets, and comments about them.
const FILE_OCTETS_MAX: u64 = 4096;

/// The secrets in force, and where they come from.
#[derive(Debug, Default)]
pub(super) struct Cookies {
    in_force: Arc<ArcSwap<CookieSecrets>>,
    /// Used while there is no file.
    own: CookieSecrets,
    file: Option<PathBuf>,
    /// The file cannot be used as it is now, and that has been said.
    complained: bool,
}

impl Cookies {
    /// What answers read.
    pub(super) fn in_force(&self) -> Arc<ArcSwap<CookieSecrets>> {
        self.in_force.clone()
    }

    /// The secrets of a file, or our own without one. Nothing changes before [`Self::adopt`].
    pub(super) fn read(&self, file: Option<&Path>) -> Result<CookieSecrets, StartError> {
        let Some(path) = file else { return Ok(self.own.clone()) };
        read(path).map_err(|sentence| StartError::CookieSecrets { path: path.into(), sentence })
    }

    /// Puts secrets in force.
    pub(super) fn adopt(&mut self, file: Option<PathBuf>, secrets: CookieSecrets) {
        (self.file, self.complained) = (file, false);
        self.in_force.store(Arc::new(secrets));
    }

    /// Looks whether the file has changed. One that cannot be used leaves everything as it is.
    pub(super) fn look(&mut self) {
        let Some(path) = &self.file else { return };
        match read(path) {
            Ok(secrets) => {
                self.complained = false;
                if secrets != **self.in_force.load() {
                    tracing::info!(file = %path.display(), "other secrets for cookies are in force");
                    self.in_force.store(Arc::new(secrets));
                }
            }
            Err(sentence) if !self.complained => {
                self.complained = true;
                tracing::warn!(file = %path.display(), "cookies keep their secrets: {sentence}");
            }
            Err(_) => {}
        }
    }
}

fn read(path: &Path) -> Result<CookieSecrets, String> {
    let mut text = String::new();
    let octets = File::open(path).and_then(|file| file.take(FILE_OCTETS_MAX + 1).read_to_string(&mut text)).map_err(
        |error| match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".into(),
            io::ErrorKind::InvalidData => "it is not text".into(),
            _ => error.to_string(),
        },
    )?;
    if octets as u64 > FILE_OCTETS_MAX {
        return Err(format!("it is larger than {FILE_OCTETS_MAX} octets"));
    }
    parse(&text)
}

/// One secret a line, the one that makes cookies first. Empty lines and those that begin with `#` say nothing.
fn parse(text: &str) -> Result<CookieSecrets, String> {
    let mut secrets = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let secret = secret(line).ok_or_else(|| format!("line {} is not 32 hexadecimal digits", number + 1))?;
        secrets.push(secret);
    }
    match secrets.split_first() {
        None => Err("it holds no secret; write 32 hexadecimal digits on a line".into()),
        Some(_) if secrets.len() > SECRETS_MAX => Err(format!("it holds more than {SECRETS_MAX} secrets")),
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
    fn the_first_secret_makes_and_all_are_believed() {
        let (one, two) = ("00112233445566778899aabbccddeeff", "FF".repeat(16));
        let secrets = parse(&format!("# rolled over in May\n\n  {one}\n{two}\n")).unwrap();
        assert_eq!((secrets.current.0[..3].to_vec(), secrets.iter().count()), (vec![0, 0x11, 0x22], 2));
        assert_eq!(secrets.others, [CookieSecret([0xff; 16])]);
    }

    #[test]
    fn a_file_that_holds_no_secret_says_so() {
        let refusal = |text: &str| parse(text).unwrap_err();
        assert_eq!(refusal("# nothing\n"), "it holds no secret; write 32 hexadecimal digits on a line");
        assert_eq!(refusal("# one\n0011\n"), "line 2 is not 32 hexadecimal digits");
        assert_eq!(refusal(&"é".repeat(16)), "line 1 is not 32 hexadecimal digits");
        assert_eq!(refusal(&format!("{}\n", "0".repeat(32)).repeat(9)), "it holds more than 8 secrets");
    }

    proptest! {
        #[test]
        fn no_text_can_break_the_reader(text in "([0-9a-fA-F#é \n]|\\PC){0,100}") {
            if let Ok(secrets) = parse(&text) {
                prop_assert!(secrets.iter().count() <= SECRETS_MAX);
            }
        }
    }
}

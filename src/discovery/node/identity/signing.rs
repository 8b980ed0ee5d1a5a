//! Signs identity queries with the keys of a role (SigV4). The file of the secret key is watched; its content is never
//! logged.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use tokio::{sync::Mutex as Turn, time::Instant};
use tracing::{info, warn};

use crate::{
    config::IdentityKeys,
    net::watched::{FileReader, Look, WatchError, WatchedFiles},
};

/// The largest file of a secret key that is read.
pub const SECRET_FILE_OCTETS_MAX: u64 = 4096;

/// Characters in a secret key. A salted hash has some 106.
const SECRET_KEY_CHARS_MAX: usize = 1024;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// What a signature is for. Alternator takes any region, and this service alone.
const REGION: &str = "us-east-1";
const SERVICE: &str = "dynamodb";

/// The secret key of a role.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretKey(String);

/// Why a content is no secret key. Each continues a sentence that begins with the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SecretKeyError {
    #[error("it has no secret key; write the role's salted_hash into it")]
    Empty,
    #[error("it has more than one word; only the secret key belongs there")]
    Words,
    #[error("it has characters that are not printable ASCII")]
    NotPrintable,
    #[error("its secret key has more than {SECRET_KEY_CHARS_MAX} characters")]
    TooLong,
}

impl SecretKey {
    /// Reads the content of a file: one word, with blanks and line ends around it.
    ///
    /// # Errors
    /// There is no word, or more than one, or it is none that can be a key.
    pub fn parse(content: &[u8]) -> Result<Self, SecretKeyError> {
        let word = content.trim_ascii();
        if word.is_empty() {
            return Err(SecretKeyError::Empty);
        }
        if word.iter().any(u8::is_ascii_whitespace) {
            return Err(SecretKeyError::Words);
        }
        if word.len() > SECRET_KEY_CHARS_MAX {
            return Err(SecretKeyError::TooLong);
        }
        match std::str::from_utf8(word) {
            Ok(text) if word.iter().all(u8::is_ascii_graphic) => Ok(Self(text.into())),
            _ => Err(SecretKeyError::NotPrintable),
        }
    }
}

impl fmt::Debug for SecretKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// A request to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'r> {
    pub url: &'r str,
    /// All headers but `Host`, which is that of the URL.
    pub headers: &'r [(&'static str, &'static str)],
    pub body: &'static str,
}

/// Headers that a signature adds.
pub type SignatureHeaders = Vec<(String, String)>;

/// Signs with the keys of one role.
#[derive(Debug)]
pub struct Signer {
    access_key: String,
    reader: FileReader,
    secret: Turn<WatchedSecret>,
}

#[derive(Debug)]
struct WatchedSecret {
    files: WatchedFiles<SecretKey, SecretKeyError>,
    looked: Option<Instant>,
}

/// The secret key in force.
#[derive(Debug)]
pub struct CurrentKey {
    key: Arc<SecretKey>,
    /// It is another one than at the last query.
    pub has_changed: bool,
}

impl Signer {
    /// Reads nothing yet.
    pub fn new(keys: &IdentityKeys, reader: FileReader) -> Self {
        let files = WatchedFiles::new(vec![keys.secret_key_file.clone()], SECRET_FILE_OCTETS_MAX);
        let secret = Turn::new(WatchedSecret { files, looked: None });
        Self { access_key: keys.access_key.clone(), reader, secret }
    }

    /// The name of the role.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The secret key, from a file that was looked at a moment ago.
    ///
    /// # Errors
    /// A sentence: why there is none.
    pub async fn current_key(&self) -> Result<CurrentKey, String> {
        let mut secret = self.secret.lock().await;
        let is_fresh = secret.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        let has_changed = !is_fresh && secret.look(&self.reader).await;
        match (secret.files.value(), secret.files.error()) {
            (Some(key), _) => Ok(CurrentKey { key: key.clone(), has_changed }),
            (None, Some(WatchError::Read(error))) => Err(error.to_string()),
            (None, Some(WatchError::Content(error))) => Err(format!("{}: {error}", secret.files.names())),
            (None, None) => Err(format!("{} is not read", secret.files.names())),
        }
    }

    /// The headers that sign a request.
    ///
    /// # Errors
    /// A sentence: why it cannot be signed.
    pub fn sign(
        &self,
        current: &CurrentKey,
        request: Unsigned<'_>,
        time: SystemTime,
    ) -> Result<SignatureHeaders, String> {
        signature(&self.access_key, &current.key, request, time)
    }
}

impl WatchedSecret {
    /// Whether the key is another one than before.
    async fn look(&mut self, reader: &FileReader) -> bool {
        let is_first = self.files.value().is_none();
        let looked = self.files.look(reader, |contents| SecretKey::parse(&contents.concat())).await;
        self.looked = Some(Instant::now());
        let file = self.files.names();
        match looked {
            Look::Unchanged => false,
            Look::Changed(_) => {
                if !is_first {
                    info!(file, "another secret key signs identity queries from now on");
                }
                true
            }
            Look::Recovered => {
                info!(file, "the secret key for identity queries can be read again");
                false
            }
            Look::Failed(error) => {
                let consequence = if is_first { "no query is sent" } else { "the last good one stays in use" };
                warn!(file, why = %error, "the secret key for identity queries cannot be used; {consequence}");
                false
            }
        }
    }
}

fn signature(
    access_key: &str,
    key: &SecretKey,
    request: Unsigned<'_>,
    time: SystemTime,
) -> Result<SignatureHeaders, String> {
    let identity = Credentials::new(access_key, key.0.clone(), None, None, "file").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(SERVICE)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let Unsigned { url, headers, body } = request;
    let signable = SignableRequest::new("POST", url, headers.iter().copied(), SignableBody::Bytes(body.as_bytes()))
        .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(signable, &parameters).map_err(|error| error.to_string())?.into_parts();
    Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_has_one_word() {
        let parsed = |text: &str| SecretKey::parse(text.as_bytes()).map(|key| key.0);
        assert_eq!(parsed("$6$x.Y/z\n").unwrap(), "$6$x.Y/z");
        assert_eq!(parsed(" \r\n a\t").unwrap(), "a");
        assert_eq!(parsed("\n"), Err(SecretKeyError::Empty));
        assert_eq!(parsed("a b"), Err(SecretKeyError::Words));
        assert_eq!(parsed("a\nb"), Err(SecretKeyError::Words));
        assert_eq!(parsed("\u{e9}"), Err(SecretKeyError::NotPrintable));
        assert_eq!(SecretKey::parse(b"\xff"), Err(SecretKeyError::NotPrintable));
        assert_eq!(parsed(&"x".repeat(SECRET_KEY_CHARS_MAX + 1)), Err(SecretKeyError::TooLong));
        assert_eq!(format!("{:?}", SecretKey::parse(b"secret")), "Ok(SecretKey)");
    }

    /// The signature was calculated with another implementation (Python's hmac and hashlib).
    #[test]
    fn a_request_is_signed_as_the_specification_says() {
        let request = Unsigned {
            url: "http://127.0.0.1:8000/",
            headers: &[("content-type", "application/x-amz-json-1.0"), ("x-amz-target", "DynamoDB_20120810.Query")],
            body: "{}",
        };
        let time = UNIX_EPOCH + Duration::from_secs(1_795_413_600);
        let headers = signature("alternator_dns", &SecretKey("$6$salt$hash".into()), request, time).unwrap();
        let value = |name: &str| headers.iter().find(|(other, _)| other == name).unwrap().1.clone();
        assert_eq!(value("x-amz-date"), "20261123T060000Z");
        assert_eq!(
            value("authorization"),
            "AWS4-HMAC-SHA256 Credential=alternator_dns/20261123/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
             Signature=3efd493e9dcb75a445d06743839668c039c446cd30e2c4cd941d66498935327d"
        );
    }

    /// What a subscriber writes that takes everything.
    #[derive(Clone, Default)]
    struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_secret_key_is_in_no_log_line_of_any_level() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let request = Unsigned { url: "http://127.0.0.1:8000/", headers: &[], body: "{}" };
        let key = SecretKey("$6$salt$hash".into());
        tracing::subscriber::with_default(subscriber, || {
            signature("alternator_dns", &key, request, SystemTime::now()).unwrap();
            tracing::trace!(?key, "signed");
        });
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert!(written.contains("signed") && written.contains("alternator_dns"), "{written}");
        assert!(!written.contains("$6$salt$hash"), "{written}");
    }

    proptest! {
        #[test]
        fn no_octets_break_the_reader_of_the_file(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(key) = SecretKey::parse(&octets) {
                prop_assert!(key.0.bytes().all(|octet| octet.is_ascii_graphic()));
            }
        }
    }
}

//! The client of commands that only read: from the control socket, or from the admin interface of another server.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use reqwest::{StatusCode, Url};

use super::control::{ControlError, SOCKET_HOST, client_error, innermost};
use crate::net::http::{ReadTextError, plain, read_text};

/// The longest duration of a request. A document of ten thousand zones takes a second on a slow network.
const READ_TIME_MAX: Duration = Duration::from_secs(15);

/// Octets in a reply. `/api/zones` of forty thousand zones with three nodes each has 40 MB.
const REPLY_OCTETS_MAX: usize = 64 << 20;

/// Where a server is read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerAddress {
    /// At the control socket of a server on this host.
    Socket(PathBuf),
    /// At the admin interface of any server.
    Admin(AdminUrl),
}

/// The URL of an admin interface, without a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AdminUrl(Url);

/// Why a text is no such URL.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("write the address of the admin interface as http://HOST:PORT, for example http://10.0.0.2:9153")]
pub struct AdminUrlError;

impl FromStr for AdminUrl {
    type Err = AdminUrlError;

    fn from_str(text: &str) -> Result<Self, AdminUrlError> {
        let url = Url::parse(text).map_err(|_| AdminUrlError)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_anonymous = url.username().is_empty() && url.password().is_none();
        let is_http = url.scheme() == "http" && url.has_host();
        if is_http && is_bare && is_anonymous { Ok(Self(url)) } else { Err(AdminUrlError) }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl ServerAddress {
    /// Reads what the server has at `path`, which begins with a slash, with these parameters.
    ///
    /// # Errors
    /// No server can be reached, it does not reply, or it refuses.
    pub async fn read(&self, path: &str, parameters: &[(&str, &str)]) -> Result<String, ControlError> {
        let (builder, base) = match self {
            Self::Socket(socket) => (plain().unix_socket(socket.as_path()), SOCKET_HOST.to_owned()),
            Self::Admin(url) => (plain(), url.to_string()),
        };
        let failed = |error: reqwest::Error| self.error(&error);
        let client = builder.timeout(READ_TIME_MAX).build().map_err(failed)?;
        let url = Url::parse_with_params(&format!("{base}{path}"), parameters);
        let url = url.map_err(|error| ControlError::Unable(format!("{base}{path}: {error}")))?;
        let mut response = client.get(url).send().await.map_err(failed)?;
        let text = read_text(&mut response, REPLY_OCTETS_MAX).await.map_err(|error| match error {
            ReadTextError::Lost(error) => failed(error),
            ReadTextError::TooLong(_) => ControlError::Unable(format!("cannot read from {self}: {error}")),
        })?;
        match response.status() {
            StatusCode::OK => Ok(text),
            StatusCode::UNPROCESSABLE_ENTITY => Err(ControlError::Unable(text.trim_end().to_owned())),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(ControlError::Unable(format!(
                "{self} has no {path}: it is no alternator-dns, or an older one, which has to be upgraded and restarted"
            ))),
            status if text.trim().is_empty() => {
                Err(ControlError::Unable(format!("cannot read from {self}: HTTP status {status}")))
            }
            _ => Err(ControlError::Unable(format!("{self} refuses: {}", escape_controls(text.trim_end())))),
        }
    }

    fn error(&self, error: &reqwest::Error) -> ControlError {
        match self {
            Self::Socket(socket) => client_error(socket, error),
            Self::Admin(_) if error.is_timeout() => {
                ControlError::Unable(format!("cannot read from {self}: it took longer than {READ_TIME_MAX:?}"))
            }
            Self::Admin(_) => ControlError::Unable(format!("cannot read from {self}: {}", innermost(error))),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => write!(f, "the server on {}", socket.display()),
            Self::Admin(url) => url.fmt(f),
        }
    }
}

/// A text from a server as a terminal may show it: control characters, which could move its cursor, are written as escapes.
/// Line ends stay.
pub fn escape_controls(text: &str) -> String {
    let is_odd = |c: char| c.is_control() && c != '\n';
    if !text.contains(is_odd) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_odd(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_admin_url_is_a_host_and_a_port() {
        for good in ["http://10.0.0.2:9153", "http://[::1]:9153/", "http://dns.example"] {
            assert_eq!(good.parse::<AdminUrl>().unwrap().to_string(), good.trim_end_matches('/'));
        }
        for bad in
            ["", "10.0.0.2:9153", "https://a:1", "http://", "http://a/api", "http://a?x", "http://u:p@a", "file:///x"]
        {
            assert_eq!(bad.parse::<AdminUrl>(), Err(AdminUrlError), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let address = ServerAddress::Admin("http://127.0.0.1:9".parse().unwrap());
        let sentence = address.read("/api/zones", &[]).await.unwrap_err().to_string();
        assert!(
            sentence.starts_with("cannot read from http://127.0.0.1:9: ") && sentence.lines().count() == 1,
            "{sentence}"
        );
    }

    proptest! {
        #[test]
        fn an_admin_url_reads_as_it_was_written(text in "(http|https)?(://)?[a-z0-9.:/@?\\[\\]#-]{0,20}|\\PC{0,20}") {
            if let Ok(url) = text.parse::<AdminUrl>() {
                prop_assert_eq!(url.to_string().parse::<AdminUrl>(), Ok(url));
            }
        }

        #[test]
        fn no_control_character_reaches_a_terminal(text in any::<String>()) {
            prop_assert!(!escape_controls(&text).contains(|c: char| c.is_control() && c != '\n'));
        }
    }
}

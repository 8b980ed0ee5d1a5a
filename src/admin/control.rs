//! The control socket: a Unix socket for commands that change the server. File permissions guard it.
//!
//! `GET /api/zones` and its like are those of the admin interface (`readable.rs`; `client.rs` is the client); what `plan` reads
//! is here alone (`running.rs`).
//! `POST /reload` waits for the outcome: 200 and the summary, or 422 and why the file is refused. Each reply names the
//! server in two headers, because a host may have several. [`reload`] is the client.

mod socket;

use std::{
    env,
    ffi::OsStr,
    fmt, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware,
    response::Response,
    routing::post,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use self::socket::{ControlSocket, SocketPlace, bind};
use super::{
    connections::Bounds,
    http::{self, HttpLimits},
};
use crate::{
    config::ReloadRequest,
    net::{
        causes::causes,
        http::{ReadTextError, plain, read_text},
    },
};

/// The socket's directory when systemd sets none.
const RUNTIME_DIRECTORY: &str = "/run/alternator-dns";

/// The name of the socket.
const SOCKET_NAME: &str = "control.sock";

/// Commands are typed by hand, or run by a script, and their replies are small. All operators count as one client. Half of
/// the connections are for what is no reload.
const BOUNDS: Bounds = Bounds {
    connections: 2 * RELOADS_WAITING_MAX,
    per_client: 2 * RELOADS_WAITING_MAX,
    octets: 16 << 20,
    endless: 0,
    endless_per_client: 0,
};

/// Reloads that wait for their outcome: a script may ask for one after each file that it writes.
const RELOADS_WAITING_MAX: usize = 64;

/// The headers that name the server: its process, and its configuration file.
const PROCESS_HEADER: HeaderName = HeaderName::from_static("server-process");
const FILE_HEADER: HeaderName = HeaderName::from_static("server-file");

/// The host in requests over the socket; it only fills the Host header.
pub(super) const SOCKET_HOST: &str = "http://alternator-dns";

/// The longest duration of a reload. Usually it takes a few seconds: it reads a file twice and binds sockets.
const RELOAD_TIME_MAX: Duration = Duration::from_secs(60);

/// The additional time for the request and the reply.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Octets in a reply. A refusal lists the errors of a file, one on each line.
const REPLY_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// The longest duration of a command that only changes memory.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);

/// Octets in the reply to such a command, which is a sentence with the path of a file.
const SENTENCE_OCTETS_MAX: usize = 16 * 1024;

/// Why a command failed; each message is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No server listens on the socket.
    #[error("no server is running: nothing listens on {}", .0.display())]
    Absent(PathBuf),
    /// The file permissions forbid it.
    #[error("no permission to use {}: only root and the group of the running server may", .0.display())]
    Denied(PathBuf),
    /// Another server uses the socket.
    #[error("another server is running: it answers on {}", .0.display())]
    Taken(PathBuf),
    /// The path is a file of another kind.
    #[error("{} is in the way: it is not a socket", .0.display())]
    NoSocket(PathBuf),
    /// The socket cannot be created.
    #[error("cannot listen on {}: {source}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The server accepted the connection and did not reply in time, or closed it.
    #[error("the server on {} did not reply: {reason}", .path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The server cannot do it now.
    #[error("{0}")]
    Unable(String),
    /// The new configuration is refused; nothing has changed.
    #[error(
        "the reload of {server} was refused, and nothing has changed: an older configuration than the file is \
         served\n{reason}"
    )]
    ReloadRefused {
        /// The server that refused.
        server: RunningServer,
        /// Why.
        reason: String,
    },
}

/// A server that a command reached.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RunningServer {
    /// Its process; 0 where an older server does not say.
    pub pid: u32,
    /// Its configuration file.
    pub file: PathBuf,
}

impl RunningServer {
    /// This process, with this configuration file.
    pub fn this(file: &Path) -> Self {
        Self { pid: std::process::id(), file: file.to_owned() }
    }

    /// The server that a reply names.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let value = |name: HeaderName| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        let pid = std::str::from_utf8(value(PROCESS_HEADER)).ok().and_then(|digits| digits.parse().ok());
        Self { pid: pid.unwrap_or_default(), file: Path::new(OsStr::from_bytes(value(FILE_HEADER))).into() }
    }

    /// Puts it into a reply.
    fn name_in(&self, headers: &mut HeaderMap) {
        headers.insert(PROCESS_HEADER, self.pid.into());
        // A path with control characters is left out.
        if let Ok(file) = HeaderValue::from_bytes(self.file.as_os_str().as_bytes()) {
            headers.insert(FILE_HEADER, file);
        }
    }
}

impl fmt::Display for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => write!(f, "the server"),
            pid => write!(f, "process {pid} with the file {}", self.file.display()),
        }
    }
}

/// A reload that succeeded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reloaded {
    /// The server that has reloaded.
    pub server: RunningServer,
    /// What has changed.
    pub summary: String,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.summary)
    }
}

/// `control.sock` in `$RUNTIME_DIRECTORY`, else in `/run/alternator-dns`.
pub fn control_socket_path() -> PathBuf {
    socket_path_in(env::var("RUNTIME_DIRECTORY").ok().as_deref())
}

fn socket_path_in(runtime_directory: Option<&str>) -> PathBuf {
    // systemd separates several directories by colons; the first is the main one.
    let first = runtime_directory.and_then(|text| text.split(':').next()).filter(|text| !text.is_empty());
    Path::new(first.unwrap_or(RUNTIME_DIRECTORY)).join(SOCKET_NAME)
}

/// Serves the socket until `stop`, and sends each request to `requests`, which is closed when the server stops. Replies
/// name `server`.
///
/// # Panics
/// Outside a runtime, and when a handler panics, so that the owner of this task notices.
pub async fn serve(
    socket: ControlSocket,
    server: RunningServer,
    requests: mpsc::Sender<ReloadRequest>,
    stop: CancellationToken,
) {
    let ControlSocket { listener, file, commands } = socket;
    match UnixListener::from_std(listener) {
        Ok(listener) => {
            let whole = RELOAD_TIME_MAX + EXCHANGE_TIME_MAX;
            let limits = HttpLimits { bounds: BOUNDS, head: http::HEAD_TIME_MAX, whole };
            http::serve(listener, name_server(router(requests).merge(commands), server), limits, stop).await;
        }
        Err(error) => tracing::error!(%error, path = %file.path().display(), "cannot serve the control socket"),
    }
}

/// Asks the server that listens on `path` to reload, and waits for the summary of what changed.
///
/// # Errors
/// No server can be reached, it does not reply, or it refuses the file.
pub async fn reload(path: &Path) -> Result<Reloaded, ControlError> {
    let exchange = Exchange { time_max: RELOAD_TIME_MAX + EXCHANGE_TIME_MAX, octets_max: REPLY_OCTETS_MAX };
    let Reply { status, server, text } = exchange.post(path, "reload").await?;
    match status {
        StatusCode::OK => Ok(Reloaded { server, summary: text }),
        StatusCode::UNPROCESSABLE_ENTITY => Err(ControlError::ReloadRefused { server, reason: text }),
        status => Err(unable(path, status, text)),
    }
}

/// Sends a command that only changes memory to the server that listens on `path`, with the query of a URL ("" or
/// "?..."). Returns the server's sentence.
///
/// # Errors
/// No server can be reached, it does not reply, or it cannot do this.
pub(super) async fn command(path: &Path, name: &str, parameters: &str) -> Result<String, ControlError> {
    let exchange = Exchange { time_max: COMMAND_TIME_MAX, octets_max: SENTENCE_OCTETS_MAX };
    let Reply { status, text, .. } = exchange.post(path, &format!("{name}{parameters}")).await?;
    match status {
        StatusCode::OK => Ok(text),
        StatusCode::NOT_FOUND => {
            let command = name.replace('/', " ");
            Err(ControlError::Unable(format!("the running server is older and has no command {command}; restart it")))
        }
        status => Err(unable(path, status, text)),
    }
}

/// The bounds of one command.
struct Exchange {
    time_max: Duration,
    octets_max: usize,
}

/// What a server replies to a command.
struct Reply {
    status: StatusCode,
    server: RunningServer,
    /// Without the line end.
    text: String,
}

impl Exchange {
    async fn post(&self, path: &Path, target: &str) -> Result<Reply, ControlError> {
        let failed = |error: reqwest::Error| client_error(path, &error);
        let client = plain().unix_socket(path).timeout(self.time_max).build().map_err(failed)?;
        let mut response = client.post(format!("{SOCKET_HOST}/{target}")).send().await.map_err(failed)?;
        let text = read_text(&mut response, self.octets_max).await.map_err(|error| match error {
            ReadTextError::Lost(error) => failed(error),
            ReadTextError::TooLong(_) => ControlError::NoAnswer { path: path.to_owned(), reason: error.to_string() },
        })?;
        let server = RunningServer::of(response.headers());
        Ok(Reply { status: response.status(), server, text: text.trim_end().to_owned() })
    }
}

/// The error for a reply that is no success: the server's sentence, if it has one.
fn unable(path: &Path, status: StatusCode, text: String) -> ControlError {
    match text.is_empty() {
        false => ControlError::Unable(text),
        true => ControlError::NoAnswer { path: path.to_owned(), reason: format!("HTTP status {status}") },
    }
}

/// Has every reply name the server.
fn name_server(router: Router, server: RunningServer) -> Router {
    router.layer(middleware::map_response(move |mut response: Response| {
        server.name_in(response.headers_mut());
        std::future::ready(response)
    }))
}

/// What `POST /reload` acts on.
#[derive(Clone, Debug)]
struct Reloads {
    requests: mpsc::Sender<ReloadRequest>,
    places: Arc<Semaphore>,
}

fn router(requests: mpsc::Sender<ReloadRequest>) -> Router {
    let reloads = Reloads { requests, places: Arc::new(Semaphore::new(RELOADS_WAITING_MAX)) };
    Router::new()
        .route("/reload", post(request_reload))
        .fallback(async || {
            let paths = "the paths are POST /reload, /flush, /drain, /undrain, /log/level, /log/queries and GET /drain, /api/zones, \
                         /api/history, /api/explain\n";
            (StatusCode::NOT_FOUND, paths)
        })
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "the method is POST, or GET for what is read\n")
        })
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(reloads)
}

async fn request_reload(State(Reloads { requests, places }): State<Reloads>) -> (StatusCode, String) {
    let Ok(_place) = places.try_acquire() else {
        let sentence =
            format!("{RELOADS_WAITING_MAX} reloads wait already; the file is read after this, so just wait\n");
        return (StatusCode::SERVICE_UNAVAILABLE, sentence);
    };
    let (reply, outcome) = oneshot::channel();
    let outcome = async {
        requests.send(ReloadRequest { reply }).await.ok()?;
        outcome.await.ok()
    };
    match timeout(RELOAD_TIME_MAX, outcome).await {
        Ok(Some(Ok(summary))) => (StatusCode::OK, summary + "\n"),
        Ok(Some(Err(refusal))) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{refusal}\n")),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n".to_owned()),
        Err(_) => {
            let sentence = format!("no outcome within {} s; the log will have it\n", RELOAD_TIME_MAX.as_secs());
            (StatusCode::GATEWAY_TIMEOUT, sentence)
        }
    }
}

/// The last cause of an error has the reason; the others only have the place.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// Converts an error of the HTTP client.
pub(super) fn client_error(path: &Path, error: &reqwest::Error) -> ControlError {
    let path = path.to_owned();
    let kind = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) if error.is_connect() => {
            ControlError::Absent(path)
        }
        Some(io::ErrorKind::PermissionDenied) => ControlError::Denied(path),
        Some(io::ErrorKind::WouldBlock) if error.is_connect() => {
            ControlError::NoAnswer { path, reason: "too many commands wait already; try again".to_owned() }
        }
        _ if error.is_timeout() => ControlError::NoAnswer { path, reason: "it took too long".to_owned() },
        _ => ControlError::NoAnswer { path, reason: innermost(error) },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::PermissionsExt as _, net},
    };

    use super::{socket::SOCKET_MODE, *};
    use crate::{config::ReloadError, test_directory::TestDirectory};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn server() -> RunningServer {
        RunningServer { pid: 4242, file: "/etc/\u{fc}/config.toml".into() }
    }

    /// A server whose reloads all have this outcome.
    fn serving(path: &Path, outcome: Result<&str, &str>) -> CancellationToken {
        let (requests, mut inbox) = mpsc::channel::<ReloadRequest>(1);
        let stop = CancellationToken::new();
        tokio::spawn(serve(bind(path).unwrap(), server(), requests, stop.clone()));
        let refused =
            |text| ReloadError::Refused(std::sync::Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(text)));
        let outcome = outcome.map(str::to_owned).map_err(refused);
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                let _ = request.reply.send(outcome.clone());
            }
        });
        stop
    }

    #[tokio::test]
    async fn a_reload_returns_the_summary_or_why_the_file_is_refused() {
        let directory = TestDirectory::new("reload");
        let stop = serving(&directory.file(SOCKET_NAME), Ok("1 zone added"));
        let reloaded = reload(&directory.file(SOCKET_NAME)).await.unwrap();
        assert_eq!(reloaded, Reloaded { server: server(), summary: "1 zone added".into() });
        assert_eq!(reloaded.to_string(), "process 4242 with the file /etc/\u{fc}/config.toml: 1 zone added");
        assert_eq!(fs::metadata(directory.file(SOCKET_NAME)).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        stop.cancel();
        let refusal = "config.toml:3:7: a TTL is at most 86400 seconds\nconfig.toml:9:1: unknown key";
        let other = directory.file("other.sock");
        serving(&other, Err(refusal));
        let expected = format!(
            "the reload of {} was refused, and nothing has changed: an older configuration than the file is served\n\
             {refusal}",
            reloaded.server
        );
        assert_eq!(reload(&other).await.unwrap_err().to_string(), expected);
    }

    #[tokio::test]
    async fn a_missing_server_is_reported_in_a_sentence() {
        let directory = TestDirectory::new("absent");
        let path = directory.file(SOCKET_NAME);
        let sentence = format!("no server is running: nothing listens on {}", path.display());
        assert_eq!(reload(&path).await.unwrap_err().to_string(), sentence);
        drop(net::UnixListener::bind(&path).unwrap());
        assert_eq!(reload(&path).await.unwrap_err().to_string(), sentence, "a stale socket has no server");
        drop(bind(&path).unwrap());
        assert!(!path.exists(), "a stale socket is replaced, and removed with its owner");
    }

    #[tokio::test]
    async fn a_reload_of_a_stopping_server_fails_with_a_sentence() {
        let directory = TestDirectory::new("stopping");
        let (requests, inbox) = mpsc::channel(1);
        drop(inbox);
        let socket = bind(&directory.file(SOCKET_NAME)).unwrap();
        tokio::spawn(serve(socket, server(), requests, CancellationToken::new()));
        assert_eq!(reload(&directory.file(SOCKET_NAME)).await.unwrap_err().to_string(), "the server is stopping");
    }

    #[test]
    fn another_server_and_other_files_are_left_alone() {
        let directory = TestDirectory::new("taken");
        let first = bind(&directory.file(SOCKET_NAME)).unwrap();
        assert!(matches!(bind(&directory.file(SOCKET_NAME)), Err(ControlError::Taken(_))));
        drop(first);
        fs::write(directory.file(SOCKET_NAME), "diary").unwrap();
        assert!(matches!(bind(&directory.file(SOCKET_NAME)), Err(ControlError::NoSocket(_))));
        assert_eq!(fs::read_to_string(directory.file(SOCKET_NAME)).unwrap(), "diary");
        assert!(matches!(bind(&directory.file("no/such/control.sock")), Err(ControlError::Bind { .. })));
    }

    #[test]
    fn a_server_removes_only_its_own_socket() {
        let directory = TestDirectory::new("successor");
        let former = bind(&directory.file(SOCKET_NAME)).unwrap();
        fs::remove_file(directory.file(SOCKET_NAME)).unwrap();
        let successor = bind(&directory.file(SOCKET_NAME)).unwrap();
        drop(former);
        assert!(directory.file(SOCKET_NAME).exists());
        drop(successor);
        assert!(!directory.file(SOCKET_NAME).exists());
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let directory = TestDirectory::new("paths");
        serving(&directory.file(SOCKET_NAME), Ok("done"));
        for (request, status) in [
            ("GET /reload HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
            ("POST /zones HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("POST /reload HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", "413"),
            ("POST /reload HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
        ] {
            let mut stream = tokio::net::UnixStream::connect(directory.file(SOCKET_NAME)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert_eq!(&reply[9..12], status, "{request}");
        }
    }

    #[test]
    fn the_socket_is_in_the_runtime_directory() {
        assert_eq!(socket_path_in(Some("/run/a:/run/b")), Path::new("/run/a/control.sock"));
        assert_eq!(socket_path_in(Some("")), Path::new("/run/alternator-dns/control.sock"));
        assert_eq!(socket_path_in(None), Path::new("/run/alternator-dns/control.sock"));
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Sends these octets on one connection. Returns whether the server reloads, and its reply.
    async fn send(octets: &[u8]) -> (bool, String) {
        let (requests, mut inbox) = mpsc::channel::<ReloadRequest>(1);
        let (mut operator, server) = tokio::io::duplex(64 * 1024);
        operator.write_all(octets).await.unwrap();
        operator.shutdown().await.unwrap();
        let reloads = async {
            let request = inbox.recv().await;
            request.is_some_and(|request| request.reply.send(Ok("done".to_owned())).is_ok())
        };
        let (reloaded, ()) = tokio::join!(reloads, http::serve_alone(server, router(requests)));
        let mut reply = String::new();
        operator.read_to_string(&mut reply).await.unwrap();
        (reloaded, reply)
    }

    proptest! {
        #[test]
        fn only_a_request_to_reload_reloads(
            request in "(POST|GET|PUT|post|OPTIONS) (/reload|/Reload|/reload/|/reload\\?x=1|/%72eload|/|\\*) HTTP/1\\.[01]\r\n\
                        ((host|content-length|transfer-encoding|[a-z]{1,9}): (x|0|3|chunked|[ -~]{0,9})\r\n){0,3}\r\n\
                        [ -~]{0,9}|\\PC{0,40}"
        ) {
            let (reloaded, reply) = run(send(request.as_bytes()));
            prop_assert!(reply.is_empty() || reply.starts_with("HTTP/1."), "{reply}");
            prop_assert!(!reloaded || request.starts_with("POST /reload"), "{request:?} reloads");
            prop_assert_eq!(reloaded, reply.ends_with("\r\n\r\ndone\n"));
        }
    }

    proptest! {
        // Each case makes a socket.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn only_status_200_counts_as_reloaded(
            reply in "HTTP/1\\.[01] (200|422|503|100|[0-9]{1,4})( [A-Z]{0,3})?\r\n\
                      ((content-length|transfer-encoding|[a-z]{1,9}): (0|4|chunked|[ -~]{0,9})\r\n){0,3}\r\n\
                      (done|4\r\ndone\r\n0\r\n\r\n)?|\\PC{0,40}"
        ) {
            let directory = TestDirectory::new("odd-server");
            let outcome = run(async {
                let path = directory.file(SOCKET_NAME);
                let listener = UnixListener::bind(&path).unwrap();
                let server = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    stream.write_all(reply.as_bytes()).await.unwrap();
                };
                tokio::join!(reload(&path), server).0
            });
            prop_assert!(outcome.is_err() || reply.contains(" 200"), "{reply:?}");
        }
    }
}

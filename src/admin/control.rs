//! The control socket: a Unix socket for what changes the server, guarded by the file system.
//!
//! `POST /reload` waits for the outcome: 200 and the summary, or 422 and the complaint. [`reload`] is the other end.

use std::{
    env,
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, middleware, routing::post};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::http::{self, Limits};
use crate::config::ReloadRequest;

/// Where the socket is without systemd.
const RUNTIME_DIRECTORY: &str = "/run/alternator-dns";

/// The socket's name in its directory.
const SOCKET_NAME: &str = "control.sock";

/// Who owns the socket and who is in its group may change the server.
const SOCKET_MODE: u32 = 0o660;

/// Operators at once. Commands are typed by hand.
const OPERATORS_MAX: usize = 16;

/// How long a reload may take. It reads a file twice, binds sockets and drains old ones: a few seconds.
const RELOAD_TIME_MAX: Duration = Duration::from_secs(60);

/// Beyond a reload's own time, for the request and the reply.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Octets of a reply. A complaint lists every mistake of a file, one line each.
const REPLY_OCTETS_MAX: usize = 4 * 1024 * 1024;

/// What stands between an operator and the server. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nothing listens.
    #[error("no server is running: nothing listens on {}", .0.display())]
    Absent(PathBuf),
    /// The file system forbids it.
    #[error("no permission to use {}: that takes root or the group of the running server", .0.display())]
    Denied(PathBuf),
    /// Another server has it.
    #[error("another server is running: it answers on {}", .0.display())]
    Taken(PathBuf),
    /// It is somebody else's file.
    #[error("{} is in the way: it is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {}: {source}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The server accepted, and then said nothing in time or broke off.
    #[error("the server on {} gave no answer: {reason}", .path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What happened instead.
        reason: String,
    },
    /// The server can not do it now.
    #[error("{0}")]
    Unable(String),
}

/// `control.sock` in `$RUNTIME_DIRECTORY`, else in `/run/alternator-dns`.
pub fn control_socket_path() -> PathBuf {
    socket_path_in(env::var("RUNTIME_DIRECTORY").ok().as_deref())
}

fn socket_path_in(runtime_directory: Option<&str>) -> PathBuf {
    // systemd separates several directories by colons; the first is the unit's main one.
    let first = runtime_directory.and_then(|text| text.split(':').next()).filter(|text| !text.is_empty());
    Path::new(first.unwrap_or(RUNTIME_DIRECTORY)).join(SOCKET_NAME)
}

/// A bound socket. Its file goes when this is dropped, unless another server has put its own there.
#[derive(Debug)]
pub struct ControlSocket {
    listener: net::UnixListener,
    place: Place,
}

/// Takes the place of a socket that nobody answers on, or of none.
///
/// The directory is made if only it is missing. The socket is bound beside its place and moved there once its mode is
/// set, so that nobody meets it with a wider one.
///
/// # Errors
/// Another server answers there, something else is in the way, or the system forbids it.
pub fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
    if let Some(directory) = path.parent() {
        // If that fails, binding tells why.
        let _ = fs::create_dir(directory);
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Denied(path.to_owned()),
        _ => ControlError::Bind { path: path.to_owned(), source },
    };
    check_free(path, failed)?;
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let listener = net::UnixListener::bind(&draft).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::set_permissions(&draft, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    let identity = identity(&draft).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    Ok(ControlSocket { listener, place: Place { path: path.to_owned(), identity } })
}

/// Passes requests on until `stop`. `requests` closed means that the server is stopping.
///
/// # Panics
/// Outside a runtime, and when a handler does: its owner shall know.
pub async fn serve(socket: ControlSocket, requests: mpsc::Sender<ReloadRequest>, stop: CancellationToken) {
    let ControlSocket { listener, place } = socket;
    match UnixListener::from_std(listener) {
        Ok(listener) => {
            let whole = RELOAD_TIME_MAX + EXCHANGE_TIME_MAX;
            let limits = Limits { connections: OPERATORS_MAX, head: http::HEAD_TIME_MAX, whole };
            http::serve(listener, router(requests), limits, stop).await;
        }
        Err(error) => tracing::error!(%error, path = %place.path.display(), "cannot serve the control socket"),
    }
}

/// Asks the server that listens on `path` to reload, and waits: the summary of what changed, or its complaint.
///
/// # Errors
/// There was nobody to ask, or no answer.
pub async fn reload(path: &Path) -> Result<Result<String, String>, ControlError> {
    let failed = |error: reqwest::Error| refusal(path, &error);
    let client = crate::net::http::plain()
        .unix_socket(path)
        .timeout(RELOAD_TIME_MAX + EXCHANGE_TIME_MAX)
        .build()
        .map_err(failed)?;
    // The host is only for the Host header; the path of the socket says where to.
    let mut response = client.post("http://alternator-dns/reload").send().await.map_err(failed)?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if text.len() + chunk.len() > REPLY_OCTETS_MAX {
            let reason = format!("its reply is longer than {REPLY_OCTETS_MAX} octets");
            return Err(ControlError::NoAnswer { path: path.to_owned(), reason });
        }
        text.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    match response.status() {
        reqwest::StatusCode::OK => Ok(Ok(text)),
        reqwest::StatusCode::UNPROCESSABLE_ENTITY => Ok(Err(text)),
        _ if !text.is_empty() => Err(ControlError::Unable(text)),
        status => Err(ControlError::NoAnswer { path: path.to_owned(), reason: format!("HTTP status {status}") }),
    }
}

/// The file of a socket of ours.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // If it stays, the next server finds that nobody answers on it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether a socket may be put there: nothing is, or a socket on which nobody answers.
fn check_free(path: &Path, failed: impl Fn(io::Error) -> ControlError) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ControlError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    let address = SockAddr::unix(path).map_err(&failed)?;
    // Non-blocking: a server that lives but accepts nobody must not hold up the start of this one.
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(&failed)?;
    match socket.connect(&address) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        // Taken, or its queue is full.
        Ok(()) | Err(_) => Err(ControlError::Taken(path.to_owned())),
    }
}

fn router(requests: mpsc::Sender<ReloadRequest>) -> Router {
    Router::new()
        .route("/reload", post(pass_on))
        .fallback(async || (StatusCode::NOT_FOUND, "there is: POST /reload\n"))
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "use POST: this changes the server\n"))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(requests)
}

async fn pass_on(State(requests): State<mpsc::Sender<ReloadRequest>>) -> (StatusCode, String) {
    let (reply, outcome) = oneshot::channel();
    let outcome = async {
        requests.send(ReloadRequest { reply }).await.ok()?;
        outcome.await.ok()
    };
    match timeout(RELOAD_TIME_MAX, outcome).await {
        Ok(Some(Ok(summary))) => (StatusCode::OK, summary + "\n"),
        Ok(Some(Err(complaint))) => (StatusCode::UNPROCESSABLE_ENTITY, complaint + "\n"),
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n".to_owned()),
        Err(_) => {
            let sentence = format!("no outcome within {} s; the log will tell it\n", RELOAD_TIME_MAX.as_secs());
            (StatusCode::GATEWAY_TIMEOUT, sentence)
        }
    }
}

/// What the client's failure means to an operator.
fn refusal(path: &Path, error: &reqwest::Error) -> ControlError {
    let path = path.to_owned();
    let causes = || std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let kind = causes().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) if error.is_connect() => {
            ControlError::Absent(path)
        }
        Some(io::ErrorKind::PermissionDenied) => ControlError::Denied(path),
        _ if error.is_timeout() => ControlError::NoAnswer { path, reason: "it took too long".to_owned() },
        // The last cause says it; those before only say where.
        _ => ControlError::NoAnswer { path, reason: causes().last().unwrap_or(error).to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A directory of this test's own; gone with it.
    struct Desk(PathBuf);

    impl Desk {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("alternator-dns-control-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join(SOCKET_NAME)
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A server whose reloads all end the same way.
    fn serving(path: &Path, outcome: Result<&str, &str>) -> CancellationToken {
        let (requests, mut inbox) = mpsc::channel::<ReloadRequest>(1);
        let stop = CancellationToken::new();
        tokio::spawn(serve(bind(path).unwrap(), requests, stop.clone()));
        let outcome = outcome.map(str::to_owned).map_err(str::to_owned);
        tokio::spawn(async move {
            while let Some(request) = inbox.recv().await {
                let _ = request.reply.send(outcome.clone());
            }
        });
        stop
    }

    #[tokio::test]
    async fn a_reload_brings_back_the_summary_or_the_complaint() {
        let desk = Desk::new("reload");
        let stop = serving(&desk.socket(), Ok("1 zone added"));
        assert_eq!(reload(&desk.socket()).await.unwrap(), Ok("1 zone added".to_owned()));
        assert_eq!(fs::metadata(desk.socket()).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        stop.cancel();
        let complaint = "config.toml:3:7: a TTL is at most 86400 seconds\nconfig.toml:9:1: unknown key";
        let other = desk.0.join("other.sock");
        serving(&other, Err(complaint));
        assert_eq!(reload(&other).await.unwrap(), Err(complaint.to_owned()));
    }

    #[tokio::test]
    async fn nobody_there_is_told_in_a_sentence() {
        let desk = Desk::new("absent");
        let path = desk.socket();
        let told = format!("no server is running: nothing listens on {}", path.display());
        assert_eq!(reload(&path).await.unwrap_err().to_string(), told);
        drop(net::UnixListener::bind(&path).unwrap());
        assert_eq!(reload(&path).await.unwrap_err().to_string(), told, "a stale socket is nobody");
        drop(bind(&path).unwrap());
        assert!(!path.exists(), "and is replaced; our own file goes with us");
    }

    #[tokio::test]
    async fn a_server_that_stops_says_so() {
        let desk = Desk::new("stopping");
        let (requests, inbox) = mpsc::channel(1);
        drop(inbox);
        tokio::spawn(serve(bind(&desk.socket()).unwrap(), requests, CancellationToken::new()));
        assert_eq!(reload(&desk.socket()).await.unwrap_err().to_string(), "the server is stopping");
    }

    #[test]
    fn another_server_and_a_strangers_file_are_left_alone() {
        let desk = Desk::new("taken");
        let first = bind(&desk.socket()).unwrap();
        assert!(matches!(bind(&desk.socket()), Err(ControlError::Taken(_))));
        drop(first);
        fs::write(desk.socket(), "diary").unwrap();
        assert!(matches!(bind(&desk.socket()), Err(ControlError::NoSocket(_))));
        assert_eq!(fs::read_to_string(desk.socket()).unwrap(), "diary");
        assert!(matches!(bind(&desk.0.join("no/such/control.sock")), Err(ControlError::Bind { .. })));
    }

    #[test]
    fn only_its_own_file_is_removed() {
        let desk = Desk::new("successor");
        let former = bind(&desk.socket()).unwrap();
        fs::remove_file(desk.socket()).unwrap();
        let successor = bind(&desk.socket()).unwrap();
        drop(former);
        assert!(desk.socket().exists());
        drop(successor);
        assert!(!desk.socket().exists());
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let desk = Desk::new("paths");
        serving(&desk.socket(), Ok("done"));
        for (request, status) in [
            ("GET /reload HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
            ("POST /zones HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("POST /reload HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", "413"),
            ("POST /reload HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
        ] {
            let mut stream = tokio::net::UnixStream::connect(desk.socket()).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert_eq!(&reply[9..12], status, "{request}");
        }
    }

    #[test]
    fn the_path_follows_the_runtime_directory() {
        assert_eq!(socket_path_in(Some("/run/a:/run/b")), Path::new("/run/a/control.sock"));
        assert_eq!(socket_path_in(Some("")), Path::new("/run/alternator-dns/control.sock"));
        assert_eq!(socket_path_in(None), Path::new("/run/alternator-dns/control.sock"));
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// Whether a connection that says this, and no more, makes the server reload; and what it is told.
    async fn say(octets: &[u8]) -> (bool, String) {
        let (requests, mut inbox) = mpsc::channel::<ReloadRequest>(1);
        let (mut operator, server) = tokio::io::duplex(64 * 1024);
        operator.write_all(octets).await.unwrap();
        operator.shutdown().await.unwrap();
        let reloads = async {
            let request = inbox.recv().await;
            request.is_some_and(|request| request.reply.send(Ok("done".to_owned())).is_ok())
        };
        let (reloaded, ()) = tokio::join!(reloads, http::converse(server, router(requests), http::HEAD_TIME_MAX));
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
            let (reloaded, reply) = run(say(request.as_bytes()));
            prop_assert!(reply.is_empty() || reply.starts_with("HTTP/1."), "{reply}");
            prop_assert!(!reloaded || request.starts_with("POST /reload"), "{request:?} reloads");
            prop_assert_eq!(reloaded, reply.ends_with("\r\n\r\ndone\n"));
        }
    }

    proptest! {
        // Each case makes a socket.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn only_a_server_that_says_so_has_reloaded(
            reply in "HTTP/1\\.[01] (200|422|503|100|[0-9]{1,4})( [A-Z]{0,3})?\r\n\
                      ((content-length|transfer-encoding|[a-z]{1,9}): (0|4|chunked|[ -~]{0,9})\r\n){0,3}\r\n\
                      (done|4\r\ndone\r\n0\r\n\r\n)?|\\PC{0,40}"
        ) {
            let desk = Desk::new("odd-server");
            let outcome = run(async {
                let path = desk.socket();
                let listener = UnixListener::bind(&path).unwrap();
                let server = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    stream.write_all(reply.as_bytes()).await.unwrap();
                };
                tokio::join!(reload(&path), server).0
            });
            prop_assert!(!matches!(outcome, Ok(Ok(_))) || reply.contains(" 200"), "{reply:?}");
        }
    }
}

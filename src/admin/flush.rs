//! `POST /flush` on the control socket: removes cached answers of upstreams. [`flush`] is the client.

use std::{
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    middleware,
    routing::post,
};
use serde::Deserialize;

use super::{
    control::{ControlError, client_error},
    http,
};
use crate::{net::http::plain, server::Forwarder, types::ZoneName};

/// The longest duration of a command that only changes memory.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(10);

/// Octets in a reply, which is a sentence with the path of a file.
const REPLY_OCTETS_MAX: usize = 16 * 1024;

/// What `POST /flush` acts on.
#[derive(Clone, Debug)]
struct Flusher {
    forwarder: Forwarder,
    file: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    name: Option<String>,
}

/// The route of the command, for a server with this configuration file.
pub fn routes(forwarder: Forwarder, file: PathBuf) -> Router {
    Router::new()
        .route("/flush", post(remove_answers))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(Flusher { forwarder, file })
}

async fn remove_answers(
    State(Flusher { forwarder, file }): State<Flusher>,
    Query(Parameters { name }): Query<Parameters>,
) -> (StatusCode, String) {
    let server = format!("process {} with the file {}", process::id(), file.display());
    let name = match name.as_deref().map(ZoneName::parse).transpose() {
        Ok(name) => name,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, format!("the name {error}\n")),
    };
    let Some(count) = forwarder.flush(name.as_ref()) else {
        let sentence = format!("{server} forwards nothing, because the file has no section [forward]\n");
        return (StatusCode::CONFLICT, sentence);
    };
    let answers = if count == 1 { "answer" } else { "answers" };
    let scope = name.map_or_else(String::new, |name| format!(" for {name} and names below it"));
    let sentence = format!("{server}: {count} cached {answers} of upstreams{scope} removed\n");
    tracing::info!(count, "cached answers of upstreams were removed by a command");
    (StatusCode::OK, sentence)
}

/// Makes the server that listens on `path` remove the cached answers for a name and those below it; `None`: all. Returns
/// its sentence.
///
/// # Errors
/// No server can be reached, it does not reply, or it forwards nothing.
pub async fn flush(path: &Path, name: Option<&ZoneName>) -> Result<String, ControlError> {
    let failed = |error: reqwest::Error| client_error(path, &error);
    let client = plain().unix_socket(path).timeout(FLUSH_TIME_MAX).build().map_err(failed)?;
    // The host only fills the Host header. A name has no character that a URL reserves.
    let parameters = name.map_or_else(String::new, |name| format!("?name={name}"));
    let mut response = client.post(format!("http://alternator-dns/flush{parameters}")).send().await.map_err(failed)?;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        text.extend_from_slice(&chunk);
        if text.len() > REPLY_OCTETS_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    match response.status() {
        reqwest::StatusCode::OK => Ok(text),
        reqwest::StatusCode::NOT_FOUND => {
            Err(ControlError::Unable("the running server is older and has no command flush; restart it".to_owned()))
        }
        _ if !text.is_empty() => Err(ControlError::Unable(text)),
        status => Err(ControlError::NoAnswer { path: path.to_owned(), reason: format!("HTTP status {status}") }),
    }
}

//! `POST /flush` on the control socket: removes cached answers of upstreams. [`flush`] is the client.

use std::path::Path;

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    middleware,
    routing::post,
};
use serde::Deserialize;

use super::{
    control::{self, ControlError, RunningServer},
    http,
};
use crate::{server::Forwarder, types::ZoneName};

/// What `POST /flush` acts on.
#[derive(Clone, Debug)]
struct Flusher {
    forwarder: Forwarder,
    server: RunningServer,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    name: Option<String>,
}

/// The route of the command, for this server.
pub fn routes(forwarder: Forwarder, server: RunningServer) -> Router {
    Router::new()
        .route("/flush", post(remove_answers))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(Flusher { forwarder, server })
}

async fn remove_answers(
    State(Flusher { forwarder, server }): State<Flusher>,
    Query(Parameters { name }): Query<Parameters>,
) -> (StatusCode, String) {
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
    // A name has no character that a URL reserves.
    let parameters = name.map_or_else(String::new, |name| format!("?name={name}"));
    control::command(path, "flush", &parameters).await
}

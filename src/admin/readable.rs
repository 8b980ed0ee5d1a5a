//! What can be read as JSON, under the admin address and, for commands, on the control socket.

use axum::{
    Router,
    extract::{Query, State},
    http::header,
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{AdminState, Pages, api, explain, history, http};
use crate::types::ZoneName;

/// The routes, for [`Pages`].
pub(super) fn pages() -> Router<Pages> {
    Router::new()
        .route("/api/zones", get(zones))
        .route("/api/history", get(history::history))
        .route("/api/explain", get(explain::explain))
}

/// The routes for the control socket, whose file permissions guard them.
pub fn routes(admin: AdminState) -> Router {
    pages().layer(middleware::from_fn(http::refuse_bodies)).with_state(Pages::new(admin))
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    /// This zone in place of all.
    zone: Option<String>,
}

async fn zones(State(pages): State<Pages>, Query(parameters): Query<Parameters>) -> Response {
    let zone = match parameters.zone.as_deref().map(ZoneName::parse) {
        None => None,
        Some(Ok(name)) if pages.admin.table.now().zone(&name).is_some() => Some(name),
        Some(Ok(_)) => return history::refusal("no zone has this name; `alternator-dns status` lists the zones"),
        Some(Err(error)) => return history::refusal(&format!("the name {error}")),
    };
    let json = pages.render(move |admin| api::render(admin, zone.as_ref())).await;
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

//! What can be read as JSON, under the admin address and, for commands, on the control socket.

use axum::{Router, extract::State, http::header, middleware, response::IntoResponse, routing::get};

use super::{Pages, View, api, explain, history, http};

/// The routes, for [`Pages`].
pub(super) fn pages() -> Router<Pages> {
    Router::new()
        .route("/api/zones", get(zones))
        .route("/api/history", get(history::history))
        .route("/api/explain", get(explain::explain))
}

/// The routes for the control socket, whose file permissions guard them.
pub fn routes(view: View) -> Router {
    pages().layer(middleware::from_fn(http::refuse_bodies)).with_state(Pages::new(view))
}

async fn zones(State(pages): State<Pages>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], pages.render(api::render).await)
}

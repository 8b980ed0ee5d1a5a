//! The admin interface: state and metrics over HTTP, and the Unix socket for commands that change the server.
//!
//! The HTTP pages only read, through a [`AdminState`]. Commands that change the server go through [`control`], whose socket is
//! guarded by file permissions. The pages for people and scripts (`/`, `/api`) answer only under names of this server,
//! so that a web page of a stranger cannot read them through a browser; see `hosts.rs`. To add a page: its route in `router`, its row in this table, and the README.
//!
//! | path         | content                                                              |
//! |--------------|----------------------------------------------------------------------|
//! | `/`          | the status page, for people                                          |
//! | `/healthz`   | 200 while the process runs                                           |
//! | `/readyz`    | 200 once the server is ready, else 503 and the reason                |
//! | `/serving`   | 200 while its sockets answer and a zone is learnt, else 503 and why  |
//! | `/metrics`   | OpenMetrics text, or the older text format: what the client accepts  |
//! | `/events`    | what the status page shows, as server-sent events                    |
//! | `/api/zones` | every zone as JSON, or with `zone=NAME` one                          |
//! | `/api/history` | the last configurations, or with `zone=NAME` the last changes of a zone |
//! | `/api/explain` | where the name or address `name=NAME` stands, from the file to the answer |

mod api;
pub mod client;
mod connections;
pub mod control;
pub mod drain;
mod events;
pub mod explain;
pub mod flush;
mod history;
mod hosts;
mod http;
pub mod log_level;
pub mod log_queries;
mod metrics;
mod page;
pub mod readable;
pub mod running;
mod samples;
mod serving;
mod summary;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};
use tokio_util::sync::CancellationToken;

pub use self::hosts::AllowedHosts;
#[doc(hidden)]
pub use self::metrics::Format as MetricsFormat;
pub use self::samples::Samples;
pub use self::serving::{SelfQueryTask, ServingCheck, ServingCriteria};
use self::{connections::Bounds, drain::ActiveDrains, http::HttpLimits, metrics::Format};
use crate::{
    config::{ConfigHistory, ConfigStatus},
    metrics::ProcessCounters,
    table::{SharedTable, ZoneEntry},
    transfer::Transfers,
};

/// Connections of the admin interface: a scraper, a few people and a load balancer's checks are a dozen.
pub const CONNECTIONS_MAX: usize = 64;

/// Status pages that are open at the same time: those of a team, with some that are forgotten. All that come through one
/// proxy have one address.
pub const EVENT_STREAMS_MAX: usize = 32;

/// One address needs no more than half of all. Metrics of ten thousand zones are 11 MB, so five slow scrapers of them fit; with ten zones all connections do.
const BOUNDS: Bounds = Bounds {
    connections: CONNECTIONS_MAX,
    per_client: 32,
    octets: 64 << 20,
    endless: EVENT_STREAMS_MAX,
    endless_per_client: EVENT_STREAMS_MAX / 2,
};

/// From accept to the last octet of the reply. Metrics of ten thousand zones are 11 MB: a second on a slow network.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(15);

/// Zones that `/readyz` lists; `/` has more.
const WAITING_NAMED_MAX: usize = 10;

/// What the admin interface reads of the server.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// Answers, status and counters of each zone.
    pub table: SharedTable,
    /// Counters of the process.
    pub process: Arc<ProcessCounters>,
    /// State of the configuration file.
    pub config: Arc<ArcSwap<ConfigStatus>>,
    /// The last configurations.
    pub configurations: ConfigHistory,
    /// The nodes that are taken out of the answers.
    pub drains: ActiveDrains,
    /// What the secondaries have.
    pub transfers: Transfers,
    /// Whether the server is ready; the supervisor decides.
    pub ready: watch::Receiver<bool>,
    /// Queries of the last minutes.
    pub samples: Samples,
    /// Whether clients should be sent here.
    pub serving: ServingCheck,
    /// The names under which the pages answer.
    pub hosts: AllowedHosts,
    /// When the process started.
    pub started: Instant,
}

impl AdminState {
    /// Every zone with its name, sorted by name.
    fn zones(&self) -> Vec<(String, Arc<ZoneEntry>)> {
        let table = self.table.now();
        let mut zones: Vec<_> = table.entries().map(|entry| (entry.name().to_string(), entry.clone())).collect();
        zones.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        zones
    }

    /// When the process started, by the clock that says that it is `today`.
    fn started_at(&self, today: SystemTime) -> SystemTime {
        let started = today.checked_sub(self.started.elapsed()).unwrap_or(today);
        // Whole seconds, so that it stays the same.
        let rounded = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + Duration::from_millis(500);
        SystemTime::UNIX_EPOCH + Duration::from_secs(rounded.as_secs())
    }

    /// Why the server is not ready; `None` when it is.
    fn not_ready_reason(&self) -> Option<String> {
        if *self.ready.borrow() {
            return None;
        }
        let zones = self.zones();
        let total = zones.len();
        let unpolled: Vec<_> =
            zones.into_iter().filter(|(_, entry)| entry.poll_status().ticks == 0).map(|(name, _)| name).collect();
        if unpolled.is_empty() {
            return Some("not ready: the server is starting or stopping".to_owned());
        }
        let named = unpolled[..unpolled.len().min(WAITING_NAMED_MAX)].join(", ");
        let more = match unpolled.len().saturating_sub(WAITING_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("not ready: waiting for the first poll of {} of {total} zones: {named}{more}", unpolled.len()))
    }

    /// Nothing, or why clients should be sent elsewhere.
    async fn serving_outcome(&self) -> Result<(), String> {
        // At once when the server stops: its sockets still answer for a moment.
        if !*self.ready.borrow() {
            return Err("the server is starting or stopping".to_owned());
        }
        self.serving.outcome().await
    }
}

/// Serves until `stop`, then gives open connections a moment to finish.
///
/// # Panics
/// When a handler panics, so that the owner of this task notices.
pub async fn serve(listener: TcpListener, admin: AdminState, stop: CancellationToken) {
    let limits = HttpLimits { bounds: BOUNDS, head: http::HEAD_TIME_MAX, whole: REQUEST_TIME_MAX };
    http::serve(listener, router(admin), limits, stop).await;
}

fn router(admin: AdminState) -> Router {
    let pages = Router::new()
        .route("/", get(status_page))
        .route("/events", get(events::events))
        .merge(readable::pages())
        .route_layer(middleware::from_fn_with_state(admin.hosts.clone(), hosts::refuse_other_hosts));
    pages
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/serving", get(serving_state))
        .route("/metrics", get(metrics))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "the paths are: / /healthz /readyz /serving /metrics /events /api/zones /api/history /api/explain\n",
            )
        })
        .method_not_allowed_fallback(async || (StatusCode::METHOD_NOT_ALLOWED, "the only method is GET\n"))
        .layer(middleware::from_fn(http::refuse_bodies))
        .layer(middleware::map_response(set_security_headers))
        .with_state(Pages::new(admin))
}

/// The state of the handlers.
#[derive(Clone)]
struct Pages {
    admin: AdminState,
    /// Renders one page at a time: ten thousand zones are megabytes of text.
    rendering: Arc<Mutex<()>>,
}

impl Pages {
    fn new(admin: AdminState) -> Self {
        Self { admin, rendering: Arc::default() }
    }

    /// Renders on a blocking thread, because the runtime has other tasks meanwhile.
    async fn render<T: Send + 'static>(self, render: impl FnOnce(&AdminState) -> T + Send + 'static) -> T {
        let guard = self.rendering.lock_owned().await;
        let rendered = tokio::task::spawn_blocking(move || {
            let _guard = guard;
            render(&self.admin)
        });
        match rendered.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(rendered) => rendered,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels the task, and it drops this future too.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

async fn status_page(State(pages): State<Pages>) -> Response {
    let html = pages.render(page::render).await;
    let policy = page::content_security_policy();
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, policy)], html)
        .into_response()
}

async fn readiness(State(pages): State<Pages>) -> Response {
    match pages.admin.not_ready_reason() {
        None => "ready\n".into_response(),
        Some(sentence) => (StatusCode::SERVICE_UNAVAILABLE, sentence + "\n").into_response(),
    }
}

async fn serving_state(State(pages): State<Pages>) -> Response {
    match pages.admin.serving_outcome().await {
        Ok(()) => "serving\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not serving: {reason}\n")).into_response(),
    }
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::negotiate(accepted);
    let text = pages.render(move |admin| format.write(metrics::render(admin))).await;
    ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], text).into_response()
}

/// Forbids caching, embedding and guessing the media type.
async fn set_security_headers(mut response: Response) -> Response {
    let rules: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in rules {
        // The status page has set a policy of its own.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::Path, time::SystemTime};

    use axum::{body::Body, http::Request};
    use hyper_util::service::TowerToHyperService;

    use crate::{
        config::Config,
        table::{Knowledge, PollStatus, ZoneSettings, ZoneTable},
        types::{NodeSet, ZoneName, ZoneState},
    };

    /// A zone that has learnt nothing yet.
    pub(super) fn waiting(name: &str) -> Arc<ZoneEntry> {
        Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), ZoneSettings::example(), 1000))
    }

    /// A zone with these nodes.
    pub(super) fn known(name: &str, nodes: &[&str], stale: bool) -> Arc<ZoneEntry> {
        let entry = waiting(name);
        let nodes = NodeSet::new(nodes.iter().map(|node| node.parse().unwrap())).unwrap();
        let state = if stale { ZoneState::Stale } else { ZoneState::Live };
        entry.learn(&Knowledge::up(&nodes, state), 1_795_380_000);
        entry.report(PollStatus { ticks: 1, last_success: Some(Instant::now()), ..PollStatus::default() });
        entry
    }

    /// What a ready server with these zones has.
    pub(super) fn admin_state(zones: Vec<Arc<ZoneEntry>>) -> AdminState {
        let table = SharedTable::default();
        table.replace(ZoneTable::new(zones));
        let text = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n";
        let config = ConfigStatus {
            config: Arc::new(Config::parse(Path::new("/etc/alternator-dns/config.toml"), text.as_bytes()).unwrap()),
            path: "/etc/alternator-dns/config.toml".into(),
            hash: "0123456789abcdef".into(),
            loaded: SystemTime::now(),
            error: None,
            kept: None,
        };
        AdminState {
            table,
            process: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(config)),
            configurations: ConfigHistory::default(),
            samples: Samples::default(),
            drains: ActiveDrains::default(),
            transfers: Transfers::new(Arc::default()),
            ready: watch::channel(true).1,
            serving: ServingCheck::new(SharedTable::default()).0,
            hosts: AllowedHosts::default(),
            started: Instant::now(),
        }
    }

    async fn ask(admin: AdminState, method: &str, path: &str) -> (StatusCode, Vec<(String, String)>, String) {
        use hyper::service::Service as _;
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:9153");
        let request = request.body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router(admin)).call(request).await.unwrap();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, headers, String::from_utf8(body.into()).unwrap())
    }

    fn header<'h>(headers: &'h [(String, String)], name: &str) -> &'h str {
        headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    #[tokio::test]
    async fn readyz_names_the_zones_that_it_waits_for() {
        let (sender, ready) = watch::channel(false);
        let zones =
            (0..12).map(|number| waiting(&format!("z{number:02}.example"))).chain([known("a", &["::1"], false)]);
        let admin = AdminState { ready, ..admin_state(zones.collect()) };
        let (status, _, text) = ask(admin.clone(), "GET", "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let start = "not ready: waiting for the first poll of 12 of 13 zones: z00.example., z01.example.,";
        assert!(text.starts_with(start) && text.ends_with("z09.example. and 2 more\n"), "{text}");
        assert_eq!(ask(admin.clone(), "GET", "/healthz").await.0, StatusCode::OK);
        let (status, _, text) = ask(admin.clone(), "GET", "/serving").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not serving: the server is starting or stopping\n");
        sender.send(true).unwrap();
        let (status, _, text) = ask(admin, "GET", "/readyz").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ready\n"));
    }

    #[tokio::test]
    async fn every_page_has_a_media_type_and_is_not_cached() {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/healthz", "text/plain; charset=utf-8"),
            ("/readyz", "text/plain; charset=utf-8"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
            ("/api/zones", "application/json"),
        ] {
            let (status, headers, text) = ask(admin_state(vec![known("a", &["::1"], false)]), "GET", path).await;
            assert_eq!((status, header(&headers, "content-type")), (StatusCode::OK, kind), "{path}");
            assert_eq!(header(&headers, "cache-control"), "no-store", "{path}");
            assert!(header(&headers, "content-security-policy").starts_with("default-src 'none'"), "{path}");
            assert!(!text.is_empty(), "{path}");
        }
    }

    #[tokio::test]
    async fn the_policy_of_the_status_page_allows_its_own_style_and_script_only() {
        let (_, headers, page) = ask(admin_state(vec![known("a", &["::1"], false)]), "GET", "/").await;
        let policy = header(&headers, "content-security-policy");
        for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
            let parts: Vec<_> = page.split(&format!("<{tag}>")).collect();
            let [_, rest] = parts.as_slice() else { panic!("one {tag}") };
            let (content, _) = rest.split_once(&format!("</{tag}>")).unwrap();
            let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
            let allowed = format!("{directive} 'sha256-{}';", data_encoding::BASE64.encode(digest.as_ref()));
            assert!(policy.contains(&allowed), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("connect-src 'self'; "));
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy would forbid it");
    }

    #[tokio::test]
    async fn unknown_paths_and_other_methods_are_refused() {
        let (status, _, text) = ask(admin_state(vec![]), "GET", "/admin").await;
        assert_eq!(
            (status, text.as_str()),
            (
                StatusCode::NOT_FOUND,
                "the paths are: / /healthz /readyz /serving /metrics /events /api/zones /api/history /api/explain\n"
            )
        );
        assert_eq!(ask(admin_state(vec![]), "DELETE", "/api/zones").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(admin_state(vec![]), "HEAD", "/metrics").await.2, "");
    }
}

//! The admin interface: what the server is doing, told over HTTP, and the Unix socket for what changes something.
//!
//! Reading needs only a [`View`]: handles on what others own, and nothing here writes through them. Whatever changes
//! the server goes through [`control`], whose socket the file system guards.
//!
//! | path         | what it tells                                                        |
//! |--------------|----------------------------------------------------------------------|
//! | `/`          | the status page, for people                                          |
//! | `/healthz`   | 200 while the process runs                                           |
//! | `/readyz`    | 200 once the server answers, else 503 and what is waited for         |
//! | `/metrics`   | OpenMetrics text                                                     |
//! | `/api/zones` | every zone as JSON                                                   |

mod api;
pub mod control;
mod http;
mod metrics;
mod page;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};
use tokio_util::sync::CancellationToken;

use self::http::Limits;
use crate::{
    config::ConfigStatus,
    metrics::ProcessCounters,
    table::{SharedTable, ZoneEntry},
};

/// Readers at once. A scraper, a few people and a load balancer's checks are a dozen; what comes beyond waits in the
/// kernel's queue.
const READERS_MAX: usize = 64;

/// From accept to the last byte of the reply. Metrics of ten thousand zones are 11 MB: a second on a slow network.
const READING_TIME_MAX: Duration = Duration::from_secs(15);

/// Zones that `/readyz` names; a person reads on at `/`.
const WAITING_NAMED_MAX: usize = 10;

/// What the admin interface can see.
#[derive(Clone, Debug)]
pub struct View {
    /// Answers, status and counters of each zone.
    pub table: SharedTable,
    /// What is counted for the whole process.
    pub process: Arc<ProcessCounters>,
    /// What became of the configuration file.
    pub config: Arc<ArcSwap<ConfigStatus>>,
    /// Whether the server answers; the owner of the sending half decides.
    pub ready: watch::Receiver<bool>,
    /// When the process started.
    pub started: Instant,
}

impl View {
    /// Every zone with its name as text, in the order of the texts.
    fn zones(&self) -> Vec<(String, Arc<ZoneEntry>)> {
        let table = self.table.now();
        let mut zones: Vec<_> = table.entries().map(|entry| (entry.name().to_string(), entry.clone())).collect();
        zones.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        zones
    }

    /// What the server waits for; `None` when it is ready.
    fn waits_for(&self) -> Option<String> {
        if *self.ready.borrow() {
            return None;
        }
        let zones = self.zones();
        let total = zones.len();
        let unheard: Vec<_> =
            zones.into_iter().filter(|(_, entry)| entry.poll_status().ticks == 0).map(|(name, _)| name).collect();
        if unheard.is_empty() {
            return Some("not ready: the server is starting or stopping".to_owned());
        }
        let named = unheard[..unheard.len().min(WAITING_NAMED_MAX)].join(", ");
        let more = match unheard.len().saturating_sub(WAITING_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("not ready: waiting for the first poll of {} of {total} zones: {named}{more}", unheard.len()))
    }
}

/// Serves readers until `stop`, then lets the last ones finish for a moment.
///
/// # Panics
/// When a handler does: its owner shall know.
pub async fn serve(listener: TcpListener, view: View, stop: CancellationToken) {
    let limits = Limits { connections: READERS_MAX, head: http::HEAD_TIME_MAX, whole: READING_TIME_MAX };
    http::serve(listener, router(view), limits, stop).await;
}

fn router(view: View) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(openmetrics))
        .route("/api/zones", get(zones))
        .fallback(async || (StatusCode::NOT_FOUND, "there are: / /healthz /readyz /metrics /api/zones\n"))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "this interface is only read: use GET\n")
        })
        .layer(middleware::from_fn(http::refuse_bodies))
        .layer(middleware::map_response(keep_out))
        .with_state(Site { view, drawing: Arc::default() })
}

/// The view, and whose turn it is to draw from it.
#[derive(Clone)]
struct Site {
    view: View,
    /// One at a time: ten thousand zones are megabytes of text, and no reader needs two of them.
    drawing: Arc<Mutex<()>>,
}

impl Site {
    /// Draws beside the runtime, which polls zones meanwhile.
    async fn draw<T: Send + 'static>(self, draw: impl FnOnce(&View) -> T + Send + 'static) -> T {
        let turn = self.drawing.lock_owned().await;
        let drawn = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            draw(&self.view)
        });
        match drawn.await.map_err(tokio::task::JoinError::try_into_panic) {
            Ok(drawn) => drawn,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down cancels, and it drops this future too.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

async fn status_page(State(site): State<Site>) -> Response {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = page::content_security_policy(&nonce);
    let html = site.draw(move |view| page::render(view, &nonce)).await;
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, &policy)], html)
        .into_response()
}

async fn readiness(State(site): State<Site>) -> Response {
    match site.view.waits_for() {
        None => "ready\n".into_response(),
        Some(sentence) => (StatusCode::SERVICE_UNAVAILABLE, sentence + "\n").into_response(),
    }
}

async fn openmetrics(State(site): State<Site>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], site.draw(metrics::render).await).into_response()
}

async fn zones(State(site): State<Site>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], site.draw(api::render).await).into_response()
}

/// Nothing here is worth keeping, embedding or guessing the type of.
async fn keep_out(mut response: Response) -> Response {
    let rules: [(HeaderName, &str); 4] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in rules {
        // The page brings a policy of its own.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    use axum::{body::Body, http::Request};
    use hyper_util::service::TowerToHyperService;

    use crate::{
        table::{Knowledge, PollStatus, ZoneSettings, ZoneTable},
        types::{NodeSet, ZoneName, ZoneState},
    };

    /// A zone about which nothing is known.
    pub(super) fn waiting(name: &str) -> Arc<ZoneEntry> {
        Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), ZoneSettings::example(), 1000))
    }

    /// A zone whose nodes were learnt.
    pub(super) fn known(name: &str, nodes: &[&str], stale: bool) -> Arc<ZoneEntry> {
        let entry = waiting(name);
        let nodes = NodeSet::new(nodes.iter().map(|node| node.parse().unwrap())).unwrap();
        let state = if stale { ZoneState::Stale } else { ZoneState::Live };
        entry.learn(&Knowledge::up(&nodes, state), 1_795_380_000);
        entry.report(PollStatus { ticks: 1, last_success: Some(Instant::now()), ..PollStatus::default() });
        entry
    }

    /// A server that is ready and has these zones.
    pub(super) fn view(zones: Vec<Arc<ZoneEntry>>) -> View {
        let table = SharedTable::default();
        table.replace(ZoneTable::new(zones));
        let config = ConfigStatus {
            path: "/etc/alternator-dns/config.toml".into(),
            hash: "0123456789abcdef".into(),
            loaded: SystemTime::now(),
            error: None,
        };
        View {
            table,
            process: Arc::default(),
            config: Arc::new(ArcSwap::from_pointee(config)),
            ready: watch::channel(true).1,
            started: Instant::now(),
        }
    }

    async fn ask(view: View, method: &str, path: &str) -> (StatusCode, Vec<(String, String)>, String) {
        use hyper::service::Service as _;
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = TowerToHyperService::new(router(view)).call(request).await.unwrap();
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
    async fn readiness_says_what_is_waited_for() {
        let (sender, ready) = watch::channel(false);
        let zones =
            (0..12).map(|number| waiting(&format!("z{number:02}.example"))).chain([known("a", &["::1"], false)]);
        let view = View { ready, ..view(zones.collect()) };
        let (status, _, text) = ask(view.clone(), "GET", "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let said = "not ready: waiting for the first poll of 12 of 13 zones: z00.example., z01.example.,";
        assert!(text.starts_with(said) && text.ends_with("z09.example. and 2 more\n"), "{text}");
        assert_eq!(ask(view.clone(), "GET", "/healthz").await.0, StatusCode::OK);
        sender.send(true).unwrap();
        let (status, _, text) = ask(view, "GET", "/readyz").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ready\n"));
    }

    #[tokio::test]
    async fn every_page_says_what_it_is_and_is_not_kept() {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/healthz", "text/plain; charset=utf-8"),
            ("/readyz", "text/plain; charset=utf-8"),
            ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
            ("/api/zones", "application/json"),
        ] {
            let (status, headers, text) = ask(view(vec![known("a", &["::1"], false)]), "GET", path).await;
            assert_eq!((status, header(&headers, "content-type")), (StatusCode::OK, kind), "{path}");
            assert_eq!(header(&headers, "cache-control"), "no-store", "{path}");
            assert!(header(&headers, "content-security-policy").starts_with("default-src 'none'"), "{path}");
            assert!(!text.is_empty(), "{path}");
        }
    }

    #[tokio::test]
    async fn the_page_has_a_style_that_its_policy_allows() {
        let (_, headers, page) = ask(view(vec![]), "GET", "/").await;
        let (_, nonce) = page.split_once("<style nonce=\"").unwrap();
        let (nonce, _) = nonce.split_once('"').unwrap();
        assert!(header(&headers, "content-security-policy").contains(&format!("style-src 'nonce-{nonce}'")));
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_not_reading_is_refused() {
        let (status, _, text) = ask(view(vec![]), "GET", "/admin").await;
        assert_eq!(
            (status, text.as_str()),
            (StatusCode::NOT_FOUND, "there are: / /healthz /readyz /metrics /api/zones\n")
        );
        assert_eq!(ask(view(vec![]), "DELETE", "/api/zones").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(view(vec![]), "HEAD", "/metrics").await.2, "");
    }
}

//! `POST /log/queries` on the control socket: logs the questions of one client or zone for some time. [`log_queries`] is the
//! client.

use std::{future::pending, net::IpAddr, path::Path, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    middleware,
    routing::post,
};
use humantime_serde::re::humantime::format_duration;
use serde::Deserialize;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    control::{self, ControlError, RunningServer},
    http,
};
use crate::{
    server::{LoggedQueries, LoggedQuery, QUERIES_PER_SECOND, QueryFilter, QueryLog},
    table::SharedTable,
    types::{ZoneName, canonical},
};

/// The longest time for which queries are logged: what is forgotten must not fill a disk.
pub const TIME_MAX: Duration = Duration::from_secs(3600);

/// Between lines that say how many queries were left out.
const LEFT_OUT_INTERVAL: Duration = Duration::from_secs(10);

/// Commands that wait for the task, which takes each at once.
const COMMANDS_WAITING: usize = 4;

/// What `POST /log/queries` acts on.
#[derive(Clone, Debug)]
struct QueryLogger {
    log: QueryLog,
    table: SharedTable,
    server: RunningServer,
    sessions: mpsc::Sender<Session>,
}

/// Queries to be logged, and until when.
#[derive(Debug)]
struct Session {
    queries: LoggedQueries,
    what: String,
    time: Duration,
    until: Instant,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    zone: Option<String>,
    client: Option<IpAddr>,
    /// Left out: queries are logged no more.
    seconds: Option<u64>,
}

/// The route of the command, for this server, and the task that writes the lines.
pub fn routes(
    log: QueryLog,
    table: SharedTable,
    server: RunningServer,
) -> (Router, impl Future<Output = ()> + Send + 'static) {
    let (sessions, started) = mpsc::channel(COMMANDS_WAITING);
    let router = Router::new()
        .route("/log/queries", post(change))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(QueryLogger { log: log.clone(), table, server, sessions });
    (router, write_lines(log, started))
}

/// Writes the lines of one session after the other. Ends when the routes are gone.
async fn write_lines(log: QueryLog, mut started: mpsc::Receiver<Session>) {
    let mut session: Option<Session> = None;
    let mut left_out = interval(LEFT_OUT_INTERVAL);
    left_out.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let until = session.as_ref().map(|session| session.until);
        tokio::select! {
            next = started.recv() => {
                let Some(next) = next else { return };
                end(session.take());
                session.insert(next).begin();
            }
            query = next_query(&mut session) => match query {
                Some(query) => query.log(),
                // A command has stopped it, or is about to send another one.
                None => end(session.take()),
            },
            () = deadline(until) => {
                log.stop();
                end(session.take());
            }
            _ = left_out.tick(), if until.is_some() => {
                session.as_ref().inspect(|session| session.report_left_out());
            }
        }
    }
}

fn end(session: Option<Session>) {
    if let Some(session) = session {
        session.end();
    }
}

async fn next_query(session: &mut Option<Session>) -> Option<LoggedQuery> {
    match session {
        Some(session) => session.queries.next().await,
        None => pending().await,
    }
}

async fn deadline(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => pending().await,
    }
}

impl Session {
    fn begin(&self) {
        tracing::info!("{} are logged for {}", self.what, format_duration(self.time));
    }

    fn report_left_out(&self) {
        let count = self.queries.take_left_out();
        if count > 0 {
            tracing::info!(
                count,
                "queries were not logged, because they were more than {QUERIES_PER_SECOND} in a second"
            );
        }
    }

    /// Writes what still waits first: lines of the next session come after all of this one's.
    fn end(mut self) {
        self.queries.rest().for_each(|query| query.log());
        self.report_left_out();
        tracing::info!("the query log has ended: {}", self.what);
    }
}

async fn change(
    State(QueryLogger { log, table, server, sessions }): State<QueryLogger>,
    Query(Parameters { zone, client, seconds }): Query<Parameters>,
) -> (StatusCode, String) {
    let refusal = |sentence: String| (StatusCode::UNPROCESSABLE_ENTITY, sentence + "\n");
    let Some(seconds) = seconds else {
        log.stop();
        return (StatusCode::OK, format!("{server}: queries are not logged any more\n"));
    };
    let zone = match zone.as_deref().map(ZoneName::parse).transpose() {
        Ok(zone) => zone,
        Err(error) => return refusal(format!("the name {error}")),
    };
    if zone.as_ref().is_some_and(|zone| table.now().zone(zone).is_none()) {
        return refusal("no zone has this name; `alternator-dns status` lists the zones".to_owned());
    }
    let time = Duration::from_secs(seconds);
    if time.is_zero() || time > TIME_MAX {
        return refusal(format!("the time must be from 1 to {} seconds", TIME_MAX.as_secs()));
    }
    if !tracing::enabled!(target: "alternator_dns::server::query_log", tracing::Level::INFO) {
        let remedy = "`alternator-dns log level info --for 1h` changes that for some time";
        return (StatusCode::CONFLICT, format!("{server}: the log level hides lines about queries; {remedy}\n"));
    }
    let filter = QueryFilter { zone, client: client.map(canonical) };
    let what = filter.to_string();
    let shown = format_duration(time);
    let session = Session { queries: log.start(filter), what: what.clone(), time, until: Instant::now() + time };
    if sessions.send(session).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n".to_owned());
    }
    (StatusCode::OK, format!("{server}: {what} are logged for {shown}, at most {QUERIES_PER_SECOND} in a second\n"))
}

/// Makes the server that listens on `path` log these queries for some time; `None`: no more. Returns its sentence.
///
/// # Errors
/// No server can be reached, it does not reply, has no such zone, or its log level hides the lines.
pub async fn log_queries(path: &Path, what: Option<(&QueryFilter, Duration)>) -> Result<String, ControlError> {
    let parameters = what.map_or_else(String::new, |(QueryFilter { zone, client }, time)| {
        // Neither a name nor an address has a character that a URL reserves there.
        let zone = zone.as_ref().map_or_else(String::new, |zone| format!("&zone={zone}"));
        let client = client.map_or_else(String::new, |client| format!("&client={client}"));
        format!("?seconds={}{zone}{client}", time.as_secs())
    });
    control::command(path, "log/queries", &parameters).await
}

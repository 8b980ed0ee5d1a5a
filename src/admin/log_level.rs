//! `POST /log/level` on the control socket: logs more or less for some time. [`change`] is the client.

use std::{future::pending, path::Path, time::Duration};

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
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    control::{self, ControlError, RunningServer},
    http,
};
use crate::telemetry::{LogFilter, replace_filter, restore_filter};

/// The longest time for which a command changes the level: a forgotten change must not fill a disk.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// When the level of the start is restored; `None`: it is in force.
type Deadline = Option<Instant>;

/// What `POST /log/level` acts on.
#[derive(Clone, Debug)]
struct LevelChanger {
    deadline: watch::Sender<Deadline>,
    server: RunningServer,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    /// Left out: the level of the start.
    level: Option<String>,
    seconds: Option<u64>,
}

/// The route of the command, for this server, and the task that restores the level.
pub fn routes(server: RunningServer) -> (Router, impl Future<Output = ()> + Send + 'static) {
    let (deadline, changes) = watch::channel(None);
    let router = Router::new()
        .route("/log/level", post(change_level))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(LevelChanger { deadline, server });
    (router, restore_in_time(changes))
}

/// Restores the level of the start at each deadline. Ends when the routes are gone.
async fn restore_in_time(mut changes: watch::Receiver<Deadline>) {
    loop {
        let deadline = *changes.borrow_and_update();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = wait(deadline) => {
                restore();
                if changes.changed().await.is_err() { return }
            }
        }
    }
}

async fn wait(deadline: Deadline) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

fn restore() {
    if restore_filter().is_ok() {
        tracing::info!("the log level is again that of the start");
    }
}

async fn change_level(
    State(LevelChanger { deadline, server }): State<LevelChanger>,
    Query(Parameters { level, seconds }): Query<Parameters>,
) -> (StatusCode, String) {
    let Some(level) = level else {
        deadline.send_replace(None);
        restore();
        return (StatusCode::OK, format!("{server}: the log level is that of the start\n"));
    };
    let filter = match LogFilter::of_command(&level) {
        Ok(filter) => filter,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")),
    };
    let time = Duration::from_secs(seconds.unwrap_or_default());
    if time.is_zero() || time > TIME_MAX {
        let sentence = format!("the time must be from 1 to {} seconds\n", TIME_MAX.as_secs());
        return (StatusCode::UNPROCESSABLE_ENTITY, sentence);
    }
    let shown = format_duration(time);
    // Before the change, so that it is logged also when fewer lines follow.
    tracing::info!(level, "the log level is changed by a command for {shown}");
    if let Err(error) = replace_filter(filter) {
        return (StatusCode::CONFLICT, format!("{server}: {error}\n"));
    }
    deadline.send_replace(Some(Instant::now() + time));
    (StatusCode::OK, format!("{server}: the log level is {level} for {shown}\n"))
}

/// Makes the server that listens on `path` log at this level for some time; `None`: at the level of its start. Returns
/// its sentence.
///
/// # Errors
/// No server can be reached, it does not reply, or it does not know the level.
pub async fn change(path: &Path, level: Option<(&str, Duration)>) -> Result<String, ControlError> {
    let parameters = level.map_or_else(String::new, |(level, time)| {
        let level: String = form_urlencoded::byte_serialize(level.as_bytes()).collect();
        format!("?level={level}&seconds={}", time.as_secs())
    });
    control::command(path, "log/level", &parameters).await
}

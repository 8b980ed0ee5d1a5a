//! `/api/history`: the last configurations, and the last changes of a zone. As JSON, or as text for the command `history`.

use std::{net::IpAddr, time::SystemTime};

use axum::{
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use super::{AdminState, Pages, client::escape_controls, control::RunningServer};
use crate::{
    config::{ConfigEvent, ConfigOutcome},
    table::{Change, ChangeKind},
    types::{ZoneName, printable},
};

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    /// The changes of this zone in place of the configurations.
    zone: Option<String>,
    /// JSON, if it is left out.
    format: Option<Format>,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// For programs.
    Json,
    /// For people.
    Text,
}

/// The handler.
pub(super) async fn history(State(pages): State<Pages>, Query(parameters): Query<Parameters>) -> Response {
    let format = parameters.format.unwrap_or(Format::Json);
    let document = match parameters.zone {
        None => Document::Configurations(pages.render(Configurations::of).await),
        Some(text) => match ZoneName::parse(&text) {
            Err(error) => return refusal(&format!("the name {error}")),
            Ok(name) => match pages.render(move |admin| ZoneChanges::of(admin, &name)).await {
                Some(changes) => Document::Zone(changes),
                None => return refusal("no zone has this name; `alternator-dns status` lists the zones"),
            },
        },
    };
    respond(format, &document, || document.text())
}

/// A document in the format that was asked for.
pub(super) fn respond(format: Format, document: &impl Serialize, text: impl FnOnce() -> String) -> Response {
    match format {
        Format::Text => text().into_response(),
        Format::Json => {
            // Writing fails only for a path that is not UTF-8.
            let json = serde_json::to_string(document)
                .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string());
            ([(header::CONTENT_TYPE, "application/json")], json).into_response()
        }
    }
}

/// A reply to a request that cannot be met.
pub(super) fn refusal(sentence: &str) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("{sentence}\n")).into_response()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Document {
    Configurations(Configurations),
    Zone(ZoneChanges),
}

#[derive(Serialize)]
struct Configurations {
    server: RunningServer,
    configurations: Vec<Configuration>,
}

#[derive(Serialize)]
struct ZoneChanges {
    server: RunningServer,
    zone: String,
    changes: Vec<ZoneChange>,
}

/// A configuration that was applied or refused.
#[derive(Serialize)]
pub(super) struct Configuration {
    at: String,
    hash: Option<String>,
    outcome: &'static str,
    /// By zone and key.
    changes: Option<String>,
    error: Option<String>,
}

/// A change of a zone.
#[derive(Serialize)]
pub(super) struct ZoneChange {
    at: String,
    /// The view whose state has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<String>,
    /// None: the zone itself, or a view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<IpAddr>,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    pub(super) reason: Option<String>,
}

impl Configurations {
    fn of(admin: &AdminState) -> Self {
        let configurations = admin.configurations.events().into_iter().map(Configuration::from).collect();
        Self { server: RunningServer::this(&admin.config.load().path), configurations }
    }
}

impl From<ConfigEvent> for Configuration {
    fn from(event: ConfigEvent) -> Self {
        let (outcome, changes, error) = match event.outcome {
            ConfigOutcome::Applied(changes) => ("applied", Some(changes.to_string()), None),
            ConfigOutcome::Refused(reason) => ("refused", None, Some(reason)),
        };
        Self { at: moment(event.at), hash: event.hash, outcome, changes, error }
    }
}

impl ZoneChanges {
    fn of(admin: &AdminState, name: &ZoneName) -> Option<Self> {
        let table = admin.table.snapshot();
        let entry = table.zone(name)?;
        let mut changes: Vec<_> = entry.changes().into_iter().map(|change| (None, change)).collect();
        for view in table.each_view(entry.id()) {
            let entry = &view.row.entry;
            let states = entry.changes().into_iter().filter(|change| matches!(change.kind, ChangeKind::Zone { .. }));
            changes.extend(states.map(|change| (entry.name().view_network().map(str::to_owned), change)));
        }
        if changes.iter().any(|(view, _)| view.is_some()) {
            // Changes of one moment stay in their order.
            changes.sort_by_key(|(_, change)| change.at);
        }
        let changes = changes.into_iter().map(|(view, change)| ZoneChange { view, ..change.into() }).collect();
        Some(Self { server: RunningServer::this(&admin.config.load().path), zone: name.to_string(), changes })
    }
}

impl From<Change> for ZoneChange {
    fn from(change: Change) -> Self {
        let Change { at, kind, reason } = change;
        let (node, change, from, to) = match kind {
            ChangeKind::Zone { from, to } => (None, "state", Some(from.word()), Some(to.word())),
            ChangeKind::Joined { node, state } => (Some(node), "joined", None, Some(state.word())),
            ChangeKind::Left { node, state } => (Some(node), "left", Some(state.word()), None),
            ChangeKind::Node { node, from, to } => (Some(node), "state", Some(from.word()), Some(to.word())),
            ChangeKind::Drained { node, from, to } => (Some(node), "drained", Some(from.word()), Some(to.word())),
            ChangeKind::Further(_) => (None, "further", None, None),
        };
        let count = if let ChangeKind::Further(count) = kind { Some(count) } else { None };
        Self { at: moment(at), view: None, node, change, from, to, count, reason: reason.map(String::from) }
    }
}

impl Document {
    fn text(&self) -> String {
        let (server, lines): (_, Vec<String>) = match self {
            Self::Configurations(Configurations { server, configurations }) => {
                (format!("{server}:"), configurations.iter().map(Configuration::line).collect())
            }
            Self::Zone(ZoneChanges { server, zone, changes }) => {
                (format!("{server}: the zone {zone}"), changes.iter().map(ZoneChange::line).collect())
            }
        };
        let lines = if lines.is_empty() { vec!["nothing has changed since the start".to_owned()] } else { lines };
        escape_controls(&format!("{server}\n{}\n", lines.join("\n")))
    }
}

impl Configuration {
    fn line(&self) -> String {
        let Self { at, outcome, .. } = self;
        // As wide as a hash.
        let hash = self.hash.as_deref().unwrap_or("-");
        let what = self.changes.as_ref().or(self.error.as_ref()).map(String::as_str).unwrap_or_default();
        format!("{at}  {hash:16}  {outcome}  {}", what.trim_end().replace('\n', "\n    ")).trim_end().to_owned()
    }
}

impl ZoneChange {
    pub(super) fn line(&self) -> String {
        let what = match (self.node, self.change, self.from, self.to) {
            (Some(node), "joined", _, Some(state)) => format!("{node} joined, {state}"),
            (Some(node), "left", Some(state), _) => format!("{node} left, was {state}"),
            (Some(node), "drained", Some(from), Some(to)) => {
                format!("{node} stays drained, and would be {from} -> {to}")
            }
            (Some(node), _, Some(from), Some(to)) => format!("{node} {from} -> {to}"),
            (None, _, Some(from), Some(to)) => match &self.view {
                Some(view) => format!("the view of {view} {from} -> {to}"),
                None => format!("the zone {from} -> {to}"),
            },
            _ => format!("{} further nodes changed", self.count.unwrap_or_default()),
        };
        let reason = self.reason.as_ref().map(|reason| format!(": {}", reason.replace('\n', " ")));
        format!("{}  {what}{}", self.at, reason.unwrap_or_default())
    }
}

/// RFC 3339, in UTC.
pub(super) fn moment(at: SystemTime) -> String {
    format_rfc3339_seconds(printable(at)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{
        super::tests::{admin_state, known},
        *,
    };
    use crate::types::{NodeState, ZoneState};

    fn line(kind: ChangeKind, reason: Option<&str>) -> String {
        ZoneChange::from(Change { at: UNIX_EPOCH, kind, reason: reason.map(Box::from) }).line()
    }

    #[test]
    fn each_change_is_a_line() {
        let node = "10.0.0.1".parse().unwrap();
        let [up, down] = [NodeState::Up, NodeState::Down];
        let lines = [
            line(ChangeKind::Joined { node, state: up }, None),
            line(ChangeKind::Node { node, from: up, to: down }, Some("timed out")),
            line(ChangeKind::Drained { node, from: up, to: down }, Some("is drained; it timed out")),
            line(ChangeKind::Left { node, state: down }, Some("is not in the list of 10.0.0.2")),
            line(ChangeKind::Zone { from: ZoneState::Live, to: ZoneState::Stale }, Some("no node\nanswers")),
            line(ChangeKind::Further(7), None),
        ];
        let expected = [
            "1970-01-01T00:00:00Z  10.0.0.1 joined, up",
            "1970-01-01T00:00:00Z  10.0.0.1 up -> down: timed out",
            "1970-01-01T00:00:00Z  10.0.0.1 stays drained, and would be up -> down: is drained; it timed out",
            "1970-01-01T00:00:00Z  10.0.0.1 left, was down: is not in the list of 10.0.0.2",
            "1970-01-01T00:00:00Z  the zone live -> stale: no node answers",
            "1970-01-01T00:00:00Z  7 further nodes changed",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn refused_files_are_shown_with_their_errors() {
        let admin = admin_state(vec![known("a.example", &["10.0.0.1"], false)]);
        admin.configurations.refused(Some("0123456789abcdef".into()), "c.toml:1:1: bad\nc.toml:2:1: worse\u{1b}");
        admin.configurations.refused(None, "cannot be read");
        let text = Document::Configurations(Configurations::of(&admin)).text();
        assert!(text.contains("0123456789abcdef  refused  c.toml:1:1: bad\n    c.toml:2:1: worse\\u{1b}\n"), "{text}");
        assert!(text.contains("Z  -                 refused  cannot be read\n"), "{text}");
        let zone = ZoneChanges::of(&admin, &ZoneName::parse("a.example").unwrap()).unwrap();
        assert!(Document::Zone(zone).text().ends_with("nothing has changed since the start\n"));
        assert!(ZoneChanges::of(&admin, &ZoneName::parse("b.example").unwrap()).is_none());
    }
}

//! `/api/zones`: all zones as JSON. The names of the fields and their order are a public interface.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use super::View;
use crate::{
    table::{self, ZoneEntry},
    types::AddressRules,
};

/// Renders the document.
pub(super) fn render(view: &View) -> String {
    document(view, Instant::now(), SystemTime::now())
}

fn document(view: &View, now: Instant, today: SystemTime) -> String {
    let config = view.config.load();
    let zones = view.zones();
    let document = Document {
        zones: zones.iter().map(|(name, entry)| Zone::of(name, entry, now)).collect(),
        config: File {
            path: &config.path,
            hash: &config.hash,
            loaded_seconds_ago: tenths(today.duration_since(config.loaded).unwrap_or_default()),
            error: config.error.as_deref(),
        },
        server: Server {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: tenths(now.saturating_duration_since(view.started)),
            ready: *view.ready.borrow(),
        },
    };
    // Writing fails only for a path that is not UTF-8.
    serde_json::to_string(&document)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

#[derive(Serialize)]
struct Document<'v> {
    zones: Vec<Zone<'v>>,
    config: File<'v>,
    server: Server,
}

#[derive(Serialize)]
struct Zone<'v> {
    name: &'v str,
    state: &'static str,
    ttl_seconds: u32,
    serial: u32,
    nodes: Vec<Node>,
    last_success_seconds_ago: Option<f64>,
    last_error: Option<String>,
    source: Option<IpAddr>,
    seeds_disagree: bool,
}

#[derive(Serialize)]
struct Node {
    address: IpAddr,
    state: &'static str,
    /// The address that is answered instead, if `map` translates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_as: Option<IpAddr>,
}

impl Node {
    fn of(node: &table::Node, rules: &AddressRules) -> Self {
        let translated = rules.translate(node.address);
        let answered_as = (translated != node.address).then_some(translated);
        Self { address: node.address, state: node.state.word(), answered_as }
    }
}

#[derive(Serialize)]
struct File<'v> {
    path: &'v Path,
    hash: &'v str,
    loaded_seconds_ago: f64,
    error: Option<&'v str>,
}

#[derive(Serialize)]
struct Server {
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
}

impl<'v> Zone<'v> {
    fn of(name: &'v str, entry: &ZoneEntry, now: Instant) -> Self {
        let answers = entry.answers();
        let status = entry.poll_status();
        Self {
            name,
            state: entry.state().word(),
            ttl_seconds: answers.address_ttl(),
            serial: answers.serial,
            nodes: entry.nodes().iter().map(|node| Node::of(node, &answers.settings.rules)).collect(),
            last_success_seconds_ago: status.last_success.map(|then| tenths(now.saturating_duration_since(then))),
            last_error: status.last_error.clone(),
            source: status.source,
            seeds_disagree: status.seeds_disagree,
        }
    }
}

/// Seconds, rounded to a tenth.
fn tenths(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{known, view, waiting},
        *,
    };
    use crate::table::PollStatus;

    #[test]
    fn the_document_has_the_documented_fields_in_order() {
        let now = Instant::now();
        let today = SystemTime::now();
        let east = known("alternator.east.example", &["10.0.1.10", "10.0.1.11"], false);
        east.report(PollStatus {
            ticks: 7,
            last_success: Some(now),
            source: Some("10.0.1.10".parse().unwrap()),
            ..PollStatus::default()
        });
        let dead = waiting("a.example");
        dead.report(PollStatus { ticks: 1, last_error: Some("10.0.0.9: \"refused\"".into()), ..PollStatus::default() });
        let mut view = view(vec![east, dead]);
        view.started = now;
        view.config.rcu(|config| crate::config::ConfigStatus { loaded: today, ..(**config).clone() });
        let later = Duration::from_millis(12_449);
        assert_eq!(
            document(&view, now + Duration::from_millis(449), today + later),
            concat!(
                r#"{"zones":["#,
                r#"{"name":"a.example.","state":"waiting","ttl_seconds":2,"serial":1000,"nodes":[],"#,
                r#""last_success_seconds_ago":null,"last_error":"10.0.0.9: \"refused\"","source":null,"#,
                r#""seeds_disagree":false},"#,
                r#"{"name":"alternator.east.example.","state":"live","ttl_seconds":4,"serial":1795380000,"#,
                r#""nodes":[{"address":"10.0.1.10","state":"up"},{"address":"10.0.1.11","state":"up"}],"#,
                r#""last_success_seconds_ago":0.4,"last_error":null,"source":"10.0.1.10","seeds_disagree":false}],"#,
                r#""config":{"path":"/etc/alternator-dns/config.toml","hash":"0123456789abcdef","#,
                r#""loaded_seconds_ago":12.4,"error":null},"#,
                r#""server":{"version":""#,
                env!("CARGO_PKG_VERSION"),
                r#"","uptime_seconds":0.4,"ready":true}}"#
            )
        );
    }
}

//! `/api/zones`: all zones as JSON. The names of the fields and their order are a public interface.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use humantime_serde::re::humantime::{format_rfc3339_millis, format_rfc3339_seconds};
use serde::{Serialize, Serializer};

use super::AdminState;
use crate::{
    metrics::ZoneId,
    table::{self, LastProbe, NodeDescription, ZoneDescription, ZoneEntry, ZoneTable},
    transfer::{self, SecondaryState},
    types::{self, ClusterId, ZoneName},
};

/// Renders the document, with all zones or with one.
pub(super) fn render(admin: &AdminState, zone: Option<&ZoneName>) -> String {
    let zones = match zone {
        None => admin.zones(),
        Some(name) => admin.table.now().zone(name).map(|entry| (name.to_string(), entry.clone())).into_iter().collect(),
    };
    document(admin, &zones, Instant::now(), SystemTime::now())
}

fn document(admin: &AdminState, zones: &[(String, Arc<ZoneEntry>)], now: Instant, today: SystemTime) -> String {
    let config = admin.config.load();
    let document = Document {
        zones: zones.iter().map(|(name, entry)| Zone::of(name, entry, admin, now)).collect(),
        config: File {
            path: &config.path,
            hash: &config.hash,
            loaded_seconds_ago: tenths(today.duration_since(config.loaded).unwrap_or_default()),
            error: config.error.as_deref(),
            older_is_served: config.error.is_some(),
            absent_addresses: admin.serving.absent_addresses(),
        },
        drains: admin.drains.list().into_iter().map(Drain::from).collect(),
        catalog: admin.transfers.catalog().map(|(name, serial)| Catalog {
            secondaries: secondaries(admin, &name, now),
            name: name.to_string(),
            serial,
        }),
        server: Server {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: tenths(now.saturating_duration_since(admin.started)),
            ready: *admin.ready.borrow(),
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
    drains: Vec<Drain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    catalog: Option<Catalog>,
    server: Server,
}

/// The zone that lists all zones for secondaries.
#[derive(Serialize)]
struct Catalog {
    name: String,
    serial: u32,
    secondaries: Vec<Secondary>,
}

/// What a secondary has of a zone.
#[derive(Serialize)]
struct Secondary {
    address: SocketAddr,
    /// None: it has fetched nothing since this server started.
    serial: Option<u32>,
    lag_seconds: f64,
    unconfirmed_seconds: f64,
}

impl From<transfer::Secondary> for Secondary {
    fn from(transfer::Secondary { address, state }: transfer::Secondary) -> Self {
        let SecondaryState { serial, lag, unconfirmed } = state;
        // Zero says that there is none.
        let shown = |time: Duration| if time.is_zero() { 0.0 } else { tenths(time).max(0.1) };
        Self { address, serial, lag_seconds: shown(lag), unconfirmed_seconds: shown(unconfirmed) }
    }
}

fn secondaries(admin: &AdminState, zone: &ZoneName, now: Instant) -> Vec<Secondary> {
    admin.transfers.secondaries(zone, now).into_iter().map(Secondary::from).collect()
}

/// A node that is taken out of the answers.
#[derive(Serialize)]
struct Drain {
    node: IpAddr,
    /// None: every zone.
    zone: Option<String>,
    #[serde(serialize_with = "seconds")]
    until: SystemTime,
}

impl From<table::Drain> for Drain {
    fn from(table::Drain { node, zone, until }: table::Drain) -> Self {
        Self { node, zone: zone.map(|zone| zone.to_string()), until }
    }
}

#[derive(Serialize)]
struct Zone<'v> {
    name: &'v str,
    state: &'static str,
    reason: Option<String>,
    #[serde(serialize_with = "seconds")]
    since: SystemTime,
    ttl_seconds: u32,
    serial: u32,
    cluster_id: Option<ClusterId>,
    scope: Option<Scope>,
    answers: Vec<IpAddr>,
    nodes: Vec<Node>,
    last_success_seconds_ago: Option<f64>,
    last_error: Option<String>,
    source: Option<IpAddr>,
    seeds_disagree: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    views: Vec<ZoneView>,
    /// None without `[transfer]`, and until the zone can be fetched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secondaries: Vec<Secondary>,
}

/// A view of a zone: the nodes that some clients get.
#[derive(Serialize)]
pub(super) struct ZoneView {
    /// The first network of its clients.
    pub(super) name: String,
    clients: Vec<String>,
    /// The scope in force.
    scope: Option<Scope>,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    #[serde(serialize_with = "seconds")]
    since: SystemTime,
    pub(super) addresses: Vec<IpAddr>,
    /// Its clients get these addresses; if not, those of the zone.
    pub(super) answered: bool,
    #[serde(skip)]
    pub(super) scope_in_force: Option<types::Scope>,
}

impl ZoneView {
    /// Those of a zone, in the order of the file.
    pub(super) fn all(table: &ZoneTable, zone: ZoneId) -> Vec<Self> {
        table.each_view(zone).map(Self::of).collect()
    }

    fn of(view: &table::View) -> Self {
        let entry = &view.row.entry;
        let ZoneDescription { state, reason, since, answers, .. } = entry.describe();
        let scope = entry.poll_status().active_scope.clone();
        Self {
            name: entry.name().view_network().unwrap_or_default().to_owned(),
            clients: view.clients.iter().map(ToString::to_string).collect(),
            scope: scope.as_ref().map(Scope::from),
            state: state.word(),
            reason,
            since,
            answered: !answers.is_empty(),
            addresses: answers,
            scope_in_force: scope,
        }
    }
}

/// As in the file: one datacenter is a text, several are a list.
#[derive(Serialize)]
struct Scope {
    datacenter: Datacenters,
    #[serde(skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Datacenters {
    One(String),
    Several(Vec<String>),
}

#[derive(Serialize)]
pub(super) struct Node {
    pub(super) address: IpAddr,
    pub(super) state: &'static str,
    pub(super) answered: bool,
    pub(super) reason: Option<String>,
    #[serde(serialize_with = "seconds")]
    pub(super) since: SystemTime,
    pub(super) last_probe: Option<Probe>,
    /// What this server sends to it, for all zones together.
    requests_per_second: f64,
    /// The address that is answered instead, if `map` translates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answered_as: Option<IpAddr>,
}

#[derive(Serialize)]
pub(super) struct Probe {
    pub(super) result: &'static str,
    pub(super) milliseconds: f64,
    #[serde(serialize_with = "milliseconds")]
    pub(super) at: SystemTime,
}

impl From<&types::Scope> for Scope {
    fn from(scope: &types::Scope) -> Self {
        let datacenter = match scope.datacenters.as_slice() {
            [one] => Datacenters::One(one.clone()),
            several => Datacenters::Several(several.to_vec()),
        };
        Self { datacenter, rack: scope.rack.clone() }
    }
}

impl Node {
    pub(super) fn of(node: NodeDescription, requests_per_second: f64) -> Self {
        let NodeDescription { address, state, undrained: _, answered, answered_as, reason, since, last_probe } = node;
        let last_probe = last_probe.map(Probe::from);
        let requests_per_second = tenth(requests_per_second);
        Self { address, state: state.word(), answered, reason, since, last_probe, requests_per_second, answered_as }
    }
}

impl From<LastProbe> for Probe {
    fn from(probe: LastProbe) -> Self {
        let milliseconds = (probe.duration.as_secs_f64() * 10_000.0).round() / 10.0;
        Self { result: probe.result.word(), milliseconds, at: probe.at }
    }
}

#[derive(Serialize)]
struct File<'v> {
    path: &'v Path,
    hash: &'v str,
    loaded_seconds_ago: f64,
    error: Option<&'v str>,
    /// The file as it is now is not in force.
    older_is_served: bool,
    /// Addresses in `listen` that the host does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    absent_addresses: Vec<SocketAddr>,
}

#[derive(Serialize)]
struct Server {
    pid: u32,
    version: &'static str,
    uptime_seconds: f64,
    ready: bool,
}

impl<'v> Zone<'v> {
    fn of(name: &'v str, entry: &ZoneEntry, admin: &AdminState, now: Instant) -> Self {
        let ZoneDescription { state, reason, since, answers: addresses, nodes } = entry.describe();
        let answers = entry.answers();
        let status = entry.poll_status();
        let node = |node: NodeDescription| {
            let per_second = admin.process.node_requests.per_second(node.address, now);
            Node::of(node, per_second)
        };
        Self {
            name,
            state: state.word(),
            reason,
            since,
            ttl_seconds: answers.address_ttl(),
            serial: answers.serial,
            cluster_id: status.cluster_id,
            scope: status.active_scope.as_ref().map(Scope::from),
            answers: addresses,
            nodes: nodes.into_iter().map(node).collect(),
            last_success_seconds_ago: status.last_success.map(|then| tenths(now.saturating_duration_since(then))),
            last_error: status.last_error.clone(),
            source: status.source,
            seeds_disagree: status.seeds_disagree,
            views: ZoneView::all(&admin.table.now(), entry.id()),
            secondaries: secondaries(admin, entry.name(), now),
        }
    }
}

/// RFC 3339, in UTC.
fn seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_rfc3339_seconds(types::printable(*time)))
}

/// The same with milliseconds.
fn milliseconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_rfc3339_millis(types::printable(*time)))
}

/// Seconds, rounded to a tenth.
pub(super) fn tenths(duration: Duration) -> f64 {
    tenth(duration.as_secs_f64())
}

/// Rounded to a tenth.
fn tenth(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{
        super::tests::{admin_state, known, waiting},
        *,
    };
    use crate::{
        metrics::{NodeRequest, ProbeResult},
        table::{Knowledge, PollStatus},
        types::{NodeSet, ProbeFailure, Scope},
    };

    #[test]
    fn the_document_has_the_documented_fields_in_order() {
        let now = Instant::now();
        let today = SystemTime::now();
        let east = known("alternator.east.example", &["10.0.1.10", "10.0.1.11"], false);
        let at = UNIX_EPOCH + Duration::from_millis(1_795_380_001_250);
        let last = LastProbe { result: ProbeResult::Ok, duration: Duration::from_micros(1230), at };
        east.record_probe("10.0.1.10".parse().unwrap(), last, None);
        east.report(PollStatus {
            ticks: 7,
            last_success: Some(now),
            source: Some("10.0.1.10".parse().unwrap()),
            active_scope: Some(Scope { datacenters: vec!["west".into()], rack: Some("a".into()) }),
            ..PollStatus::default()
        });
        let dead = waiting("a.example");
        let seeds = NodeSet::new(["10.0.0.9".parse().unwrap()]);
        dead.learn(&Knowledge::Waiting(seeds), 1_795_380_000);
        dead.report(PollStatus { ticks: 1, last_error: Some("10.0.0.9: \"refused\"".into()), ..PollStatus::default() });
        let mut admin = admin_state(vec![east, dead]);
        admin.started = now;
        for kind in [NodeRequest::Health, NodeRequest::List] {
            admin.process.node_requests.count("10.0.1.10".parse().unwrap(), kind, now);
        }
        admin.config.rcu(|config| crate::config::ConfigStatus { loaded: today, ..(**config).clone() });
        let later = Duration::from_millis(12_449);
        assert_eq!(
            document(&admin, &admin.zones(), now + Duration::from_millis(449), today + later),
            concat!(
                r#"{"zones":["#,
                r#"{"name":"a.example.","state":"waiting","reason":"10.0.0.9: \"refused\"","#,
                r#""since":"2026-11-22T20:40:00Z","ttl_seconds":2,"serial":1795380000,"cluster_id":null,"scope":null,"#,
                r#""answers":["10.0.0.9"],"nodes":[],"#,
                r#""last_success_seconds_ago":null,"last_error":"10.0.0.9: \"refused\"","source":null,"#,
                r#""seeds_disagree":false},"#,
                r#"{"name":"alternator.east.example.","state":"live","reason":null,"since":"2026-11-22T20:40:00Z","#,
                r#""ttl_seconds":4,"serial":1795380000,"cluster_id":null,"scope":{"datacenter":"west","rack":"a"},"#,
                r#""answers":["10.0.1.10","10.0.1.11"],"#,
                r#""nodes":[{"address":"10.0.1.10","state":"up","answered":true,"reason":null,"#,
                r#""since":"2026-11-22T20:40:00Z","#,
                r#""last_probe":{"result":"ok","milliseconds":1.2,"at":"2026-11-22T20:40:01.250Z"},"requests_per_second":2.0},"#,
                r#"{"address":"10.0.1.11","state":"up","answered":true,"reason":null,"#,
                r#""since":"2026-11-22T20:40:00Z","last_probe":null,"requests_per_second":0.0}],"#,
                r#""last_success_seconds_ago":0.4,"last_error":null,"source":"10.0.1.10","seeds_disagree":false}],"#,
                r#""config":{"path":"/etc/alternator-dns/config.toml","hash":"0123456789abcdef","#,
                r#""loaded_seconds_ago":12.4,"error":null,"older_is_served":false},"#,
                r#""drains":[],"#,
                r#""server":{"pid":PID,"version":""#,
                env!("CARGO_PKG_VERSION"),
                r#"","uptime_seconds":0.4,"ready":true}}"#
            )
            .replace("PID", &std::process::id().to_string())
        );
    }

    #[test]
    fn a_failed_probe_and_a_scope_of_several_datacenters_are_shown() {
        let zone = known("a.example", &["10.0.1.10"], false);
        let node = "10.0.1.10".parse().unwrap();
        let last = LastProbe { result: ProbeResult::Status, duration: Duration::ZERO, at: UNIX_EPOCH };
        zone.record_probe(node, last, Some(&ProbeFailure::Status(503)));
        let active_scope = Some(Scope { datacenters: vec!["east".into(), "west".into()], rack: None });
        zone.report(PollStatus { active_scope, ..PollStatus::default() });
        let admin = admin_state(vec![zone, known("b.example", &["10.0.1.11"], false)]);
        let text = render(&admin, Some(&ZoneName::parse("a.example").unwrap()));
        assert!(!text.contains("b.example"), "{text}");
        assert!(text.contains(r#""scope":{"datacenter":["east","west"]}"#), "{text}");
        assert!(text.contains(r#""last_probe":{"result":"status","milliseconds":0.0,"#), "{text}");
    }
}

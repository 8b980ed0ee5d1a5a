//! What events say: fields have the names that they have in `/api/zones`. Ages are left out, because they always change;
//! the page counts from `since`.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

use super::super::{
    AdminState,
    history::{Configuration, ZoneChange, moment},
    samples::{SAMPLE_INTERVAL, SAMPLES_MAX, Sample},
    summary::Summary,
};
use crate::{
    metrics::Rcode,
    table::{NodeDescription, ZoneEntry},
    types::{ClusterId, NodeState},
};

/// Changes that are shown: those of the last ten minutes.
const CHANGES_AGE_MAX: Duration = Duration::from_secs(600);

/// Of one zone; the page of the zone has all that are kept.
const CHANGES_MAX: usize = 10;

/// Nodes of one zone; those that are not up come first. `/api/zones` has all of them.
const NODES_MAX: usize = 100;

/// Characters of a reason, or of an error.
const TEXT_MAX: usize = 300;

/// Characters of the refusal of a file: a screen.
const REFUSAL_MAX: usize = 4000;

/// The first event of a stream.
#[derive(Serialize)]
pub(super) struct Begin {
    version: &'static str,
    #[serde(serialize_with = "unix")]
    now: SystemTime,
    rcodes: Vec<&'static str>,
    sample_seconds: u64,
    samples_max: usize,
}

impl Begin {
    pub(super) fn at(now: SystemTime) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now,
            rcodes: Rcode::ALL.iter().map(|rcode| rcode.word()).collect(),
            sample_seconds: SAMPLE_INTERVAL.as_secs(),
            samples_max: SAMPLES_MAX,
        }
    }
}

/// Samples that are new to the client.
#[derive(Serialize)]
pub(super) struct SampleList {
    #[serde(serialize_with = "unix")]
    now: SystemTime,
    samples: Vec<Rates>,
}

/// A sample: when it was taken, and queries a second for each rcode.
#[derive(Serialize)]
struct Rates(#[serde(serialize_with = "unix")] SystemTime, Vec<f64>);

impl SampleList {
    pub(super) fn of(samples: &[Sample], now: SystemTime) -> Self {
        let rates = |sample: &Sample| {
            let seconds = sample.span.as_secs_f64().max(0.001);
            let hundredths = |queries: &u64| (*queries as f64 / seconds * 100.0).round() / 100.0;
            Rates(sample.at, sample.queries.iter().map(hundredths).collect())
        };
        Self { now, samples: samples.iter().map(rates).collect() }
    }
}

/// What belongs to no zone.
#[derive(Serialize)]
pub(super) struct ServerState {
    severity: &'static str,
    headline: String,
    meaning: &'static str,
    config: File,
    server: Server,
    /// Addresses that are served and that no interface has.
    absent: Vec<String>,
    /// Files that were applied or refused in the last ten minutes.
    configurations: Vec<Configuration>,
}

#[derive(Serialize)]
struct File {
    path: String,
    hash: String,
    #[serde(serialize_with = "unix")]
    loaded: SystemTime,
    error: Option<String>,
    /// Of the last good configuration that is served since the start.
    kept: Option<f64>,
}

#[derive(Serialize)]
struct Server {
    pid: u32,
    version: &'static str,
    #[serde(serialize_with = "unix")]
    started: SystemTime,
    not_ready: Option<String>,
}

impl ServerState {
    pub(super) fn of(admin: &AdminState, today: SystemTime) -> Self {
        let Summary { severity, headline, meaning } = Summary::of(admin);
        let config = admin.config.load();
        let recent = |at: SystemTime| today.duration_since(at).unwrap_or_default() < CHANGES_AGE_MAX;
        let events = admin.configurations.events().into_iter().filter(|event| recent(event.at));
        Self {
            severity: severity.word(),
            headline,
            meaning,
            config: File {
                path: config.path.to_string_lossy().into_owned(),
                hash: config.hash.clone(),
                loaded: config.loaded,
                error: config.error.as_deref().map(|error| cut(error, REFUSAL_MAX)),
                kept: config.kept.map(seconds),
            },
            server: Server {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION"),
                started: admin.started_at(today),
                not_ready: admin.not_ready_reason(),
            },
            absent: admin.serving.absent_addresses().iter().map(ToString::to_string).collect(),
            configurations: events.map(Configuration::from).collect(),
        }
    }
}

/// A zone as it is shown in the list.
#[derive(Serialize)]
pub(super) struct Zone {
    name: String,
    state: &'static str,
    reason: Option<String>,
    since: String,
    ttl_seconds: u32,
    cluster_id: Option<ClusterId>,
    answers: usize,
    /// The seeds that are answered while no node is known.
    seeds: Vec<IpAddr>,
    nodes: Vec<Node>,
    /// Nodes that are left out above.
    further_nodes: usize,
    last_error: Option<String>,
    seeds_disagree: bool,
    changes: Vec<ZoneChange>,
}

#[derive(Serialize)]
struct Node {
    address: IpAddr,
    state: &'static str,
    answered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: String,
}

impl Zone {
    pub(super) fn of(entry: &ZoneEntry, today: SystemTime) -> Self {
        let mut described = entry.describe();
        let status = entry.poll_status();
        let further_nodes = described.nodes.len().saturating_sub(NODES_MAX);
        if further_nodes > 0 {
            described.nodes.sort_by_key(|node| node.state == NodeState::Up);
            described.nodes.truncate(NODES_MAX);
        }
        let seeds = if described.nodes.is_empty() { described.answers.as_slice() } else { &[] };
        Self {
            name: entry.name().to_string(),
            state: described.state.word(),
            reason: described.reason.as_deref().map(|reason| cut(reason, TEXT_MAX)),
            since: moment(described.since),
            ttl_seconds: entry.answers().address_ttl(),
            cluster_id: status.cluster_id,
            answers: described.answers.len(),
            seeds: seeds.iter().take(NODES_MAX).copied().collect(),
            nodes: described.nodes.into_iter().map(Node::from).collect(),
            further_nodes,
            last_error: status.last_error.as_deref().map(|error| cut(error, TEXT_MAX)),
            seeds_disagree: status.seeds_disagree,
            changes: recent_changes(entry, today),
        }
    }
}

impl From<NodeDescription> for Node {
    fn from(node: NodeDescription) -> Self {
        Self {
            address: node.address,
            state: node.state.word(),
            answered: node.answered,
            reason: node.reason.as_deref().map(|reason| cut(reason, TEXT_MAX)),
            since: moment(node.since),
        }
    }
}

/// The newest first.
fn recent_changes(entry: &ZoneEntry, today: SystemTime) -> Vec<ZoneChange> {
    let mut changes = entry.changes();
    changes.reverse();
    let recent = changes.into_iter().take_while(|change| {
        // A change of the future was seen before the clock was set back.
        today.duration_since(change.at).unwrap_or_default() < CHANGES_AGE_MAX
    });
    recent.take(CHANGES_MAX).map(ZoneChange::from).collect()
}

fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn seconds(time: SystemTime) -> f64 {
    (time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0).round() / 1000.0
}

/// Unix time in seconds.
fn unix<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(seconds(*time))
}

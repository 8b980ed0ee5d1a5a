//! How many requests a second one server sends to each node, as far as the file tells: a pure function.
//!
//! Zones that share a seed and a port ask one cluster. It is taken to have as many nodes as these zones have seeds, and
//! to be asked as on a bad day: each zone rests on its last scope, so every poll asks about all of them. Then each node
//! gets, a second:
//!
//! | requests | of | number |
//! |---|---|---|
//! | polls | each zone | 1 / `refresh` × lists / nodes: a poll goes to one node |
//! | polls | each zone with `scope` | the same / lists, at most 1 / 10 s: whether the node knows scopes |
//! | probes | each scheme | 1 / the shortest health interval of its zones, which share the probes |
//! | reports | each scheme and list | 1 / 30 s: what the node itself lists, asked once for all zones |
//! | identity | each scheme, unless all its zones have `identity = false` | 1 / 60 s |
//!
//! A zone without `scope` asks for one list, a zone with `scope` for one of each datacenter of each scope. Each view of a zone
//! counts as one more zone with the view's scope.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
    time::Duration,
};

use super::{Identity, Scheme, Scope, Zone};
use crate::types::{Seed, ZoneName};

/// Above so many requests a second `check` warns: a node has its own clients to serve, and each replica of this server
/// sends as many.
pub const NODE_REQUESTS_MAX: f64 = 50.0;

/// Between two queries whether a node knows scopes. Discovery keeps to this and the next two.
pub const SCOPE_SUPPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Between two reports of a node.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// Between two identity queries to a node.
pub const IDENTITY_INTERVAL: Duration = Duration::from_secs(60);

/// Zones that a warning names.
const ZONES_NAMED_MAX: usize = 3;

/// Requests a second that one server sends to each node of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLoad<'c> {
    /// The zones that ask the cluster.
    pub zones: Vec<&'c ZoneName>,
    /// The number of its nodes that is known: the distinct seeds.
    pub nodes: usize,
    /// `GET /localnodes` of polls.
    pub polls: f64,
    /// `GET /` of health checks.
    pub probes: f64,
    /// `GET /localnodes` of reports.
    pub reports: f64,
    /// Identity queries.
    pub identity: f64,
}

impl NodeLoad<'_> {
    /// All requests to one node.
    pub fn total(&self) -> f64 {
        self.polls + self.probes + self.reports + self.identity
    }
}

impl fmt::Display for NodeLoad<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.zones.iter().take(ZONES_NAMED_MAX).map(ToString::to_string).collect();
        let more = match self.zones.len().saturating_sub(ZONES_NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let zones = if self.zones.len() == 1 { "zone" } else { "zones" };
        write!(
            f,
            "{zones} {}{more} send each node of their cluster up to {:.0} requests a second ({:.0} polls, {:.0} probes, {:.0} \
             reports and identity queries), if it has as many nodes as seeds in the file ({}), and each replica of this \
             server sends as many",
            named.join(", "),
            self.total(),
            self.polls,
            self.probes,
            self.reports + self.identity,
            self.nodes
        )
    }
}

/// The load on the nodes of each cluster in the file.
pub fn node_loads(zones: &BTreeMap<ZoneName, Zone>) -> Vec<NodeLoad<'_>> {
    clusters(zones).iter().map(|zones| load(zones)).collect()
}

/// The zones of one cluster.
type ClusterZones<'c> = Vec<(&'c ZoneName, &'c Zone)>;

/// A list that a node is asked for: of a datacenter, and perhaps a rack; or of what it lists by default.
type ListKey<'c> = Option<(&'c str, Option<&'c str>)>;

fn load<'c>(zones: &ClusterZones<'c>) -> NodeLoad<'c> {
    let seeds: HashSet<&Seed> = zones.iter().flat_map(|(_, zone)| &zone.cluster.seeds).collect();
    // Every zone has a seed.
    let nodes = seeds.len().max(1);
    let mut probe_intervals: HashMap<&Scheme, Option<Duration>> = HashMap::new();
    let mut reports: HashSet<(&Scheme, ListKey<'c>)> = HashSet::new();
    let mut identifies: HashSet<&Scheme> = HashSet::new();
    let mut polls = 0.0;
    for (_, zone) in zones {
        polls += scopes_polled(zone).map(|scope| polls_at_node(zone.refresh, scope, nodes)).sum::<f64>();
        let scheme = &zone.cluster.scheme;
        let shortest = probe_intervals.entry(scheme).or_default();
        let interval = zone.health.map(|health| health.interval);
        *shortest = shortest.iter().copied().chain(interval).min();
        if zone.identity != Identity::Off {
            identifies.insert(scheme);
        }
        reports.extend(scopes_polled(zone).flat_map(lists).map(|list| (scheme, list)));
    }
    NodeLoad {
        zones: zones.iter().map(|(name, _)| *name).collect(),
        nodes,
        polls,
        probes: probe_intervals.values().flatten().fold(0.0, |sum, interval| sum + rate(*interval)),
        reports: rate(REPORT_INTERVAL) * reports.len() as f64,
        identity: rate(IDENTITY_INTERVAL) * identifies.len() as f64,
    }
}

/// The scopes of the zone itself, and those of each view.
fn scopes_polled(zone: &Zone) -> impl Iterator<Item = &[Scope]> {
    let views = zone.views.iter().map(|view| view.scope.as_slice());
    std::iter::once(zone.cluster.scope.as_slice()).chain(views)
}

fn polls_at_node(refresh: Duration, scopes: &[Scope], nodes: usize) -> f64 {
    let polls = rate(refresh) / nodes as f64;
    let support = if scopes.is_empty() { 0.0 } else { polls.min(rate(SCOPE_SUPPORT_INTERVAL)) };
    let lists: usize = scopes.iter().map(|scope| scope.datacenters.len()).sum();
    polls * lists.max(1) as f64 + support
}

fn lists(scopes: &[Scope]) -> Vec<ListKey<'_>> {
    if scopes.is_empty() {
        return vec![None];
    }
    let of_scopes = scopes.iter().flat_map(|scope| {
        scope.datacenters.iter().map(|datacenter| Some((datacenter.as_str(), scope.rack.as_deref())))
    });
    of_scopes.collect()
}

/// How often a second something happens that happens once in each interval. Intervals of the file are never zero.
fn rate(interval: Duration) -> f64 {
    interval.as_secs_f64().recip()
}

/// The zones by cluster, in the order of their names.
fn clusters(zones: &BTreeMap<ZoneName, Zone>) -> Vec<ClusterZones<'_>> {
    let zones: ClusterZones<'_> = zones.iter().collect();
    let mut by_seed: HashMap<(&Seed, u16), Vec<usize>> = HashMap::new();
    for (number, (_, zone)) in zones.iter().enumerate() {
        for seed in &zone.cluster.seeds {
            by_seed.entry((seed, zone.cluster.port.get())).or_default().push(number);
        }
    }
    let mut clusters = Vec::new();
    let mut is_placed = vec![false; zones.len()];
    for first in 0..zones.len() {
        let (mut cluster, mut open) = (BTreeSet::new(), vec![first]);
        while let Some(number) = open.pop() {
            let (Some(is_placed), Some((_, zone))) = (is_placed.get_mut(number), zones.get(number)) else { continue };
            if std::mem::replace(is_placed, true) {
                continue;
            }
            cluster.insert(number);
            // Each seed leads to its zones once.
            let found = zone.cluster.seeds.iter().filter_map(|seed| by_seed.remove(&(seed, zone.cluster.port.get())));
            open.extend(found.flatten());
        }
        if !cluster.is_empty() {
            clusters.push(cluster.into_iter().filter_map(|number| zones.get(number).copied()).collect());
        }
    }
    clusters
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap()
    }

    /// Zones and known nodes of each cluster, and requests a second to each of its nodes: polls, probes, reports, identity.
    fn loads(text: &str) -> Vec<String> {
        let config = config(text);
        let shown = node_loads(&config.zones).into_iter().map(|load| {
            let zones: Vec<_> = load.zones.iter().map(ToString::to_string).collect();
            let NodeLoad { nodes, polls, probes, reports, identity, .. } = load;
            format!("{} on {nodes}: {polls:.3} {probes:.3} {reports:.3} {identity:.3}", zones.join(" "))
        });
        shown.collect()
    }

    fn zone(name: &str, seeds: &str, keys: &str) -> String {
        let seeds: Vec<_> = seeds.split(' ').map(|seed| format!("\"{seed}\"")).collect();
        format!("[zones.\"{name}\"]\nseeds = [{}]\n{keys}\n", seeds.join(", "))
    }

    #[test]
    fn each_kind_of_request_is_counted() {
        let one = "10.0.0.1";
        let three = "10.0.0.1 10.0.0.2 node.internal";
        let scope =
            "scope = [{ datacenter = \"a\", rack = \"r\" }, { datacenter = \"a\" }, { datacenter = [\"b\", \"c\"] }]";
        for (zones, expected) in [
            (zone("a", one, ""), "a. on 1: 1.000 1.000 0.033 0.017"),
            (zone("a", three, ""), "a. on 3: 0.333 1.000 0.033 0.017"),
            (zone("a", one, "refresh = \"100ms\""), "a. on 1: 10.000 1.000 0.033 0.017"),
            (zone("a", one, "health = { interval = \"250ms\" }"), "a. on 1: 1.000 4.000 0.033 0.017"),
            (zone("a", one, "identity = false"), "a. on 1: 1.000 1.000 0.033 0.000"),
            (zone("a", one, "health = false"), "a. on 1: 1.000 0.000 0.033 0.017"),
            // Four lists instead of one, and whether the node knows scopes.
            (zone("a", one, scope), "a. on 1: 4.100 1.000 0.133 0.017"),
            // The zone's own list, and that of a view with what the node knows of scopes.
            (
                zone("a", one, "views = [{ clients = [\"::/0\"], scope = [{ datacenter = \"a\" }] }]"),
                "a. on 1: 2.100 1.000 0.067 0.017",
            ),
            (zone("a", three, scope), "a. on 3: 1.433 1.000 0.133 0.017"),
            (zone("a", one, &format!("refresh = \"60s\"\n{scope}")), "a. on 1: 0.083 1.000 0.133 0.017"),
        ] {
            assert_eq!(loads(&zones), [expected], "{zones}");
        }
    }

    #[test]
    fn zones_of_one_cluster_share_probes_and_reports_and_not_polls() {
        let two = |first: &str, second: &str| loads(&format!("{first}{second}"));
        let a = || zone("a", "10.0.0.1", "");
        assert_eq!(two(&a(), &zone("b", "10.0.0.1", "")), ["a. b. on 1: 2.000 1.000 0.033 0.017"]);
        assert_eq!(two(&a(), &zone("b", "10.0.0.1 10.0.0.2", "")), ["a. b. on 2: 1.000 1.000 0.033 0.017"]);
        let fast = zone("b", "10.0.0.1", "health = { interval = \"500ms\" }");
        assert_eq!(two(&a(), &fast), ["a. b. on 1: 2.000 2.000 0.033 0.017"], "the shortest interval");
        let https = zone("b", "10.0.0.1", "scheme = \"https\"");
        assert_eq!(two(&a(), &https), ["a. b. on 1: 2.000 2.000 0.067 0.033"], "another scheme shares nothing");
        let apart = ["a. on 1: 1.000 1.000 0.033 0.017", "b. on 1: 1.000 1.000 0.033 0.017"];
        assert_eq!(two(&a(), &zone("b", "10.0.0.2", "")), apart);
        assert_eq!(two(&a(), &zone("b", "10.0.0.1", "port = 9000")), apart, "another port is another cluster");
    }

    #[test]
    fn zones_are_of_one_cluster_through_others() {
        let chain = zone("a", "10.0.0.1", "") + &zone("b", "10.0.0.2", "") + &zone("c", "10.0.0.2 10.0.0.1", "");
        assert_eq!(loads(&chain), ["a. b. c. on 2: 1.500 1.000 0.033 0.017"]);
    }

    #[test]
    fn more_than_fifty_requests_cause_a_warning() {
        let many = |zones: usize| (0..zones).map(|n| zone(&format!("z{n:02}"), "10.0.0.1", "")).collect::<String>();
        assert_eq!(config(&many(47)).warnings(), [""; 0]);
        let warnings = config(&many(60)).warnings();
        assert_eq!(
            warnings,
            [
                "zones z00., z01., z02. and 57 more send each node of their cluster up to 61 requests a second (60 polls, 1 \
              probes, 0 reports and identity queries), if it has as many nodes as seeds in the file (1), and each replica of \
              this server sends as many; raise refresh or the interval of health, or shorten scope and views"
            ]
        );
        let spread = zone(
            "a",
            "10.0.0.1",
            "refresh = \"100ms\"\ntimeout = \"100ms\"\nhealth = { interval = \"100ms\", timeout = \"100ms\" }",
        );
        assert_eq!(config(&spread).warnings(), [""; 0]);
    }

    #[test]
    fn ten_thousand_zones_of_one_cluster_are_counted_in_less_than_a_second() {
        let many: String = (0..10_000).map(|n| zone(&format!("z{n}"), "10.0.0.1 10.0.0.2 10.0.0.3", "")).collect();
        let config = config(&many);
        let start = std::time::Instant::now();
        assert_eq!(node_loads(&config.zones).len(), 1);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

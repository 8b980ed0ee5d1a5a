//! A zone from its seeds to its answers: which node lists which, what follows, and what is answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use serde::Serialize;

use super::{LEFT_AGE_MAX, Now};
use crate::{
    admin::{api, history},
    config::{Config, Zone},
    discovery::node::NODES_MAX,
    metrics::NodeRequests,
    table::{Change, ChangeKind, NodeReport, Origin, ZoneDescription, ZoneEntry, ZoneReports},
    types::{ClusterId, NodeSet},
};

/// Different lists of one zone that are shown. In a cluster that agrees there is one.
const LISTS_MAX: usize = 20;

/// Addresses of one list that are shown, and senders of it.
const ADDRESSES_MAX: usize = 100;

#[derive(Serialize)]
pub(super) struct ZoneExplanation {
    pub(super) name: String,
    pub(super) state: &'static str,
    pub(super) reason: Option<String>,
    pub(super) since: String,
    pub(super) answers: Vec<IpAddr>,
    pub(super) seeds: Vec<String>,
    pub(super) port: Option<u16>,
    pub(super) scope: Option<String>,
    pub(super) scopes: Vec<String>,
    /// Where what is answered comes from.
    pub(super) origin: &'static str,
    pub(super) source: Option<IpAddr>,
    pub(super) last_success_seconds_ago: Option<f64>,
    pub(super) last_error: Option<String>,
    pub(super) cluster_id: Option<ClusterId>,
    /// What the nodes list: nodes that list the same are together.
    pub(super) lists: Vec<SameList>,
    pub(super) further_lists: usize,
    /// Nodes with a report in force.
    pub(super) reporting: usize,
    /// The nodes that list each other.
    pub(super) group: Vec<IpAddr>,
    pub(super) rules: Rules,
    pub(super) nodes: Vec<ZoneNode>,
    /// Seeds and other addresses that are on no list in force.
    pub(super) others: Vec<OtherNode>,
    /// A sentence for each seed whose name cannot be resolved.
    pub(super) unresolved: Vec<String>,
    /// A node lists as many nodes as are read of a list, so it may list more, which are not counted as listed by it.
    pub(super) has_cut_list: bool,
    /// Nodes that have left within the last hour.
    pub(super) left: Vec<history::ZoneChange>,
}

/// The rules for answered addresses, as in the file.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(super) struct Rules {
    pub(super) exclude: Vec<String>,
    /// `None`: every address is allowed.
    pub(super) allow_nodes: Option<Vec<String>>,
    pub(super) map: Vec<String>,
}

/// A list that one node or several have sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SameList {
    pub(super) senders: Vec<Sender>,
    pub(super) further_senders: usize,
    pub(super) nodes: Vec<IpAddr>,
    pub(super) further_nodes: usize,
}

/// A node that has sent a list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Sender {
    pub(super) node: IpAddr,
    pub(super) seconds_ago: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster_id: Option<ClusterId>,
}

/// A listed node.
#[derive(Serialize)]
pub(super) struct ZoneNode {
    #[serde(flatten)]
    pub(super) node: api::Node,
    /// What its own report amounts to; `None`: it has no report in force.
    pub(super) belonging: Option<&'static str>,
    /// Nodes with a report in force that list it.
    pub(super) listed_by: usize,
}

/// An address that is on no list in force.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct OtherNode {
    pub(super) address: IpAddr,
    pub(super) is_seed: bool,
    pub(super) belonging: Option<&'static str>,
    pub(super) reason: Option<String>,
}

impl ZoneExplanation {
    pub(super) fn of(entry: &ZoneEntry, config: &Config, requests: &NodeRequests, now: Now) -> Self {
        let ZoneDescription { state, reason, since, answers, nodes } = entry.describe();
        let status = entry.poll_status();
        let reports = entry.reports();
        let zone = config.zones.get(entry.name());
        let lists = same_lists(&reports.reports);
        let others = other_nodes(&reports, &nodes.iter().map(|node| node.address).collect());
        // Many nodes, but few different lists.
        let listed_by = |node: &IpAddr| {
            let naming = lists.iter().filter(|(nodes, _)| nodes.binary_search(node).is_ok());
            naming.map(|(_, senders)| senders.len()).sum()
        };
        Self {
            name: entry.name().to_string(),
            state: state.word(),
            reason,
            since: history::moment(since),
            answers,
            seeds: zone.iter().flat_map(|zone| &zone.cluster.seeds).map(ToString::to_string).collect(),
            port: zone.map(|zone| zone.cluster.port.get()),
            scope: status.active_scope.as_ref().map(ToString::to_string),
            scopes: zone.iter().flat_map(|zone| &zone.cluster.scope).map(ToString::to_string).collect(),
            origin: origin(status.origin),
            source: status.source,
            last_success_seconds_ago: status
                .last_success
                .map(|then| api::tenths(now.instant.saturating_duration_since(then))),
            last_error: status.last_error.clone(),
            unresolved: status.unresolved.clone(),
            has_cut_list: lists.iter().any(|(nodes, _)| nodes.len() >= NODES_MAX),
            cluster_id: status.cluster_id,
            lists: shown_lists(&lists, now.instant),
            further_lists: lists.len().saturating_sub(LISTS_MAX),
            reporting: reports.reports.len(),
            rules: zone.map(Rules::of).unwrap_or_default(),
            nodes: nodes
                .into_iter()
                .map(|node| ZoneNode {
                    belonging: reports.belonging_of(node.address),
                    listed_by: listed_by(&node.address),
                    node: {
                        let per_second = requests.per_second(node.address, now.instant);
                        api::Node::of(node, per_second)
                    },
                })
                .collect(),
            others,
            left: left(entry.changes(), now),
            group: reports.group,
        }
    }
}

/// A list, and the reports that consist of it.
type ListReports<'r> = (&'r [IpAddr], Vec<&'r NodeReport>);

/// Nodes that list the same, together; the list that most nodes send first.
pub(super) fn same_lists(reports: &[NodeReport]) -> Vec<ListReports<'_>> {
    let mut by_list: BTreeMap<&[IpAddr], Vec<&NodeReport>> = BTreeMap::new();
    for report in reports {
        let nodes = report.nodes.as_ref().map_or(&[][..], NodeSet::as_slice);
        by_list.entry(nodes).or_default().push(report);
    }
    let mut lists: Vec<_> = by_list.into_iter().collect();
    lists.sort_by_key(|(_, senders)| std::cmp::Reverse(senders.len()));
    lists
}

/// As many lists, senders and nodes as are shown.
pub(super) fn shown_lists(lists: &[ListReports<'_>], now: Instant) -> Vec<SameList> {
    let shown = lists.iter().take(LISTS_MAX).map(|(nodes, senders)| SameList {
        senders: senders.iter().take(ADDRESSES_MAX).map(|report| Sender::of(report, now)).collect(),
        further_senders: senders.len().saturating_sub(ADDRESSES_MAX),
        nodes: nodes.iter().copied().take(ADDRESSES_MAX).collect(),
        further_nodes: nodes.len().saturating_sub(ADDRESSES_MAX),
    });
    shown.collect()
}

impl Sender {
    pub(super) fn of(report: &NodeReport, now: Instant) -> Self {
        let seconds_ago = api::tenths(now.saturating_duration_since(report.at));
        Self { node: report.sender, seconds_ago, cluster_id: report.cluster_id }
    }
}

/// Seeds, senders and foreign nodes that are on no list in force.
fn other_nodes(reports: &ZoneReports, listed: &BTreeSet<IpAddr>) -> Vec<OtherNode> {
    let senders = reports.reports.iter().map(|report| report.sender);
    let foreign = reports.foreign.iter().map(|(node, _)| *node);
    let known: BTreeSet<IpAddr> = reports.seeds.iter().copied().chain(senders).chain(foreign).collect();
    let others = known.difference(listed).take(ADDRESSES_MAX);
    others
        .map(|&address| OtherNode {
            address,
            is_seed: reports.seeds.contains(&address),
            belonging: reports.belonging_of(address),
            reason: reason_of(reports, address),
        })
        .collect()
}

/// Why a node that is on no list is none of the zone's, as far as it is known.
pub(super) fn reason_of(reports: &ZoneReports, node: IpAddr) -> Option<String> {
    reports.foreign.iter().find(|(foreign, _)| *foreign == node).map(|(_, reason)| reason.clone())
}

/// Nodes that have left within the last hour, the oldest first.
pub(super) fn left(changes: Vec<Change>, now: Now) -> Vec<history::ZoneChange> {
    let recent = |change: &Change| now.day.duration_since(change.at).unwrap_or_default() <= LEFT_AGE_MAX;
    let left = changes.into_iter().filter(|change| matches!(change.kind, ChangeKind::Left { .. }) && recent(change));
    left.map(history::ZoneChange::from).collect()
}

const fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Seeds => "the seeds",
        Origin::FormerCluster => "the nodes from before an edit, until the new seeds report",
        Origin::Remembered => "the snapshot",
        Origin::Cluster => "the cluster's own lists",
    }
}

impl Rules {
    fn of(zone: &Zone) -> Self {
        let texts = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect();
        Self {
            exclude: texts(&zone.rules.exclude),
            allow_nodes: zone.rules.allow.as_deref().map(texts),
            map: zone.rules.map.iter().map(ToString::to_string).collect(),
        }
    }
}

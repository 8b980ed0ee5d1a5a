//! In which zones an address is, and why it is not answered in the others that know it.

use std::{net::IpAddr, path::PathBuf};

use serde::Serialize;

use super::{
    Now,
    zone::{Sender, ZoneNode, left, reason_of},
};
use crate::{
    admin::{AdminState, api, history},
    config::Config,
    metrics::NodeRequests,
    table::{ChangeKind, ZoneEntry, ZoneReports},
    types::Seed,
};

/// Zones that are shown; of others only the number is.
const ZONES_MAX: usize = 100;

/// Nodes that are named of those that list the address, and of those that do not.
const SENDERS_MAX: usize = 20;

#[derive(Serialize)]
pub(super) struct AddressExplanation {
    pub(super) address: IpAddr,
    pub(super) zones: Vec<AddressInZone>,
    pub(super) further_zones: usize,
}

/// What an address is to one zone.
#[derive(Serialize)]
pub(super) struct AddressInZone {
    pub(super) zone: String,
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<usize>,
    pub(super) zone_state: &'static str,
    pub(super) answered: bool,
    /// Why it is, or is not, answered: the end of a sentence that starts with the address.
    pub(super) verdict: String,
    /// `None`: it is on no list in force.
    pub(super) node: Option<ZoneNode>,
    /// The node whose address is translated to this one by `map`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answered_for: Option<IpAddr>,
    pub(super) is_seed: bool,
    /// What its own report amounts to; `None`: it has no report in force.
    pub(super) belonging: Option<&'static str>,
    pub(super) listed_by: Vec<Sender>,
    pub(super) further_listed_by: usize,
    pub(super) not_listed_by: Vec<IpAddr>,
    pub(super) further_not_listed_by: usize,
    /// Whether it has left within the last hour, and why.
    pub(super) left: Vec<history::ZoneChange>,
}

impl AddressExplanation {
    pub(super) fn of(admin: &AdminState, address: IpAddr, now: Now) -> Self {
        let config = admin.config.load().config.clone();
        let requests = &admin.process.node_requests;
        let zones = admin.zones();
        let mut found =
            zones.iter().filter_map(|(_, entry)| AddressInZone::of(entry, address, (&config, requests), now));
        let zones = found.by_ref().take(ZONES_MAX).collect();
        Self { address, zones, further_zones: found.count() }
    }
}

impl AddressInZone {
    /// `None`: the zone knows nothing of the address, nor of a node that is answered under it.
    fn of(entry: &ZoneEntry, address: IpAddr, server: (&Config, &NodeRequests), now: Now) -> Option<Self> {
        let Some(node) = translated_node(entry, address) else { return Self::of_node(entry, address, server, now) };
        let inner = Self::of_node(entry, node, server, now)?;
        let verdict = match inner.answered {
            true => format!("is answered for {node}, by map"),
            false => format!("is by map the address of {node}, which {}", inner.verdict),
        };
        Some(Self { answered_for: Some(node), verdict, ..inner })
    }

    /// The same of an address as nodes list it.
    fn of_node(
        entry: &ZoneEntry,
        address: IpAddr,
        (config, requests): (&Config, &NodeRequests),
        now: Now,
    ) -> Option<Self> {
        let reports = entry.reports();
        let mut left = left(entry.changes(), now);
        left.retain(|change| change.node == Some(address));
        let zone = config.zones.get(entry.name());
        let is_seed = reports.seeds.contains(&address)
            || zone.is_some_and(|zone| zone.cluster.seeds.contains(&Seed::Address(address)));
        let listed_by: Vec<_> = reports.reports.iter().filter(|report| report.lists(&address)).collect();
        let foreign = reason_of(&reports, address);
        let is_listed = entry.nodes().iter().any(|node| node.address == address);
        let is_answered = entry.answers().addresses().any(|answered| answered == address);
        let is_known =
            is_listed || is_answered || is_seed || foreign.is_some() || !left.is_empty() || !listed_by.is_empty();
        if !is_known && !reports.departed.contains(&address) {
            return None;
        }
        let description = entry.describe();
        let belonging = reports.belonging_of(address);
        let node = description.nodes.into_iter().find(|node| node.address == address).map(|node| ZoneNode {
            belonging,
            listed_by: listed_by.len(),
            node: api::Node::of(node, requests.per_second(address, now.instant)),
        });
        let (file, line) = config.place_of(entry.name()).map(|(file, line)| (file.to_owned(), line)).unzip();
        let known = Known { foreign, is_answered, is_seed, is_listed_by_any: !listed_by.is_empty() };
        let verdict = known.verdict(node.as_ref(), left.last());
        let not_listed_by = not_listed_by(&reports, address);
        Some(Self {
            zone: entry.name().to_string(),
            file,
            line,
            zone_state: description.state.word(),
            answered: node.as_ref().map_or(is_answered, |node| node.node.answered),
            verdict,
            node,
            answered_for: None,
            is_seed,
            belonging,
            further_listed_by: listed_by.len().saturating_sub(SENDERS_MAX),
            listed_by: listed_by.into_iter().take(SENDERS_MAX).map(|report| Sender::of(report, now.instant)).collect(),
            further_not_listed_by: not_listed_by.len().saturating_sub(SENDERS_MAX),
            not_listed_by: not_listed_by.into_iter().take(SENDERS_MAX).collect(),
            left,
        })
    }
}

/// The node whose address the zone's `map` translates to this one, if the zone knows one, and none has the address itself.
fn translated_node(entry: &ZoneEntry, address: IpAddr) -> Option<IpAddr> {
    let answers = entry.answers();
    let rules = &answers.settings.rules;
    if rules.map.is_empty() {
        return None;
    }
    let reports = entry.reports();
    let listed = entry.nodes().iter().map(|node| node.address).collect::<Vec<_>>();
    let left = entry.changes().into_iter().filter_map(|change| match change.kind {
        ChangeKind::Left { node, .. } => Some(node),
        _ => None,
    });
    let nodes = listed.into_iter().chain(reports.seeds).chain(reports.departed).chain(left).collect::<Vec<_>>();
    let is_node = nodes.contains(&address);
    nodes.into_iter().find(|node| !is_node && rules.translate(*node) == address)
}

/// The zone's nodes that report and do not list the address.
fn not_listed_by(reports: &ZoneReports, address: IpAddr) -> Vec<IpAddr> {
    let others = reports.reports.iter().filter(|report| !report.lists(&address) && report.sender != address);
    others.map(|report| report.sender).collect()
}

/// What the verdict depends on, besides the listed node.
struct Known {
    foreign: Option<String>,
    is_answered: bool,
    is_seed: bool,
    is_listed_by_any: bool,
}

impl Known {
    /// Why an address is answered, or is not: the end of a sentence that starts with it.
    fn verdict(&self, node: Option<&ZoneNode>, left: Option<&history::ZoneChange>) -> String {
        if let Some(ZoneNode { node, .. }) = node {
            return match (node.answered, &node.reason, node.answered_as) {
                (true, None, None) => "is answered".to_owned(),
                (true, None, Some(other)) => format!("is answered as {other}, by map"),
                (true, Some(reason), _) => format!("is answered all the same: it {reason}"),
                (false, Some(reason), _) => format!("is not answered: it {reason}"),
                (false, None, _) => "is not answered: the zone answers nothing".to_owned(),
            };
        }
        if let Some(reason) = &self.foreign {
            return format!("is not answered: it {reason}");
        }
        match left {
            Some(change) => {
                let reason = change.reason.as_deref().unwrap_or("is not in the list in force");
                format!("has left: it {reason}")
            }
            None if self.is_answered && self.is_seed => "is answered as a seed, while no node is known".to_owned(),
            None if self.is_seed => "is a seed that no node lists, so it is asked and not answered".to_owned(),
            None if self.is_listed_by_any => "is listed by some nodes, but is not in the list in force".to_owned(),
            None => "has left, more than an hour ago or before the start".to_owned(),
        }
    }
}

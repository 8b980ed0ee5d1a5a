//! What the nodes of a zone have reported, for people. The zone's poller has it; it is read when a person asks, and costs
//! nothing else.

use std::{fmt, net::IpAddr, time::Instant};

use crate::types::{ClusterId, NodeSet};

/// What has the reports of a zone's nodes.
pub trait ReportSource: fmt::Debug + Send + Sync {
    /// The reports as they are now.
    fn reports(&self) -> ZoneReports;
}

/// What the nodes of a zone have reported, and what follows.
#[derive(Clone, Debug, Default)]
pub struct ZoneReports {
    /// The reports in force, in the order of the senders. A node that fails has none.
    pub reports: Vec<NodeReport>,
    /// What follows for each node that has reported, in the order of the nodes.
    pub belonging: Vec<(IpAddr, &'static str)>,
    /// Nodes that are another cluster's, each with the reason: the end of a sentence that starts with the node.
    pub foreign: Vec<(IpAddr, String)>,
    /// The nodes of the zone's cluster: those that list each other.
    pub group: Vec<IpAddr>,
    /// The addresses of the seeds, in the order of the file.
    pub seeds: Vec<IpAddr>,
    /// Nodes that were listed once, the one that left last first.
    pub departed: Vec<IpAddr>,
    /// Nodes that are to be asked for their reports as soon as possible.
    pub awaited: Vec<IpAddr>,
}

/// What one node has reported.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// The node.
    pub sender: IpAddr,
    /// When the newest part of it arrived.
    pub at: Instant,
    /// The nodes that it lists, in all scopes of the zone together; `None`: no node.
    pub nodes: Option<NodeSet>,
    /// The id of its cluster, if it has given one.
    pub cluster_id: Option<ClusterId>,
}

impl NodeReport {
    /// Whether the node lists an address.
    pub fn lists(&self, node: &IpAddr) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.contains(node))
    }
}

impl ZoneReports {
    /// What follows for a node.
    pub fn belonging_of(&self, node: IpAddr) -> Option<&'static str> {
        let index = self.belonging.binary_search_by_key(&node, |(node, _)| *node).ok()?;
        self.belonging.get(index).map(|(_, belonging)| *belonging)
    }
}

//! Events of a whole cluster: datacenters, splits, nodes that join or crash, addresses that move to another cluster.

use std::{io, net::IpAddr, time::Duration};

use super::{Delivery, Path, SimulatedCluster};

impl SimulatedCluster {
    /// Starts one node for each place, a datacenter and a rack, in order of addresses.
    ///
    /// # Errors
    /// No place was found for them, or the thread cannot be started.
    pub fn start_in(places: &[(&str, &str)]) -> io::Result<Self> {
        let cluster = Self::start(places.len())?;
        for (node, (datacenter, rack)) in cluster.nodes().into_iter().zip(places) {
            cluster.place(node, datacenter, rack);
        }
        Ok(cluster)
    }

    /// Starts another cluster on other addresses and the same port, so that addresses can move between both.
    ///
    /// # Errors
    /// No place was found for it, or the thread cannot be started.
    pub fn start_beside(&self, nodes: usize) -> io::Result<Self> {
        Self::start_on(nodes, self.port())
    }

    /// Sets the datacenter and rack of a node. An unknown node is ignored.
    pub fn place(&self, node: IpAddr, datacenter: &str, rack: &str) {
        if let Some(record) = self.state.lock().get_mut(&node) {
            record.placement.datacenter = datacenter.into();
            record.placement.rack = rack.into();
        }
    }

    /// Whether a node ignores the parameters of requests, as servers before 2025.1 do.
    pub fn ignore_parameters(&self, node: IpAddr, ignores: bool) {
        if let Some(record) = self.state.lock().get_mut(&node) {
            record.placement.ignores_parameters = ignores;
        }
    }

    /// From now on the nodes of each side list only each other, and so do the nodes on no side, also those that are added
    /// later. This ends an earlier split.
    pub fn split(&self, sides: &[&[IpAddr]]) {
        for (node, record) in self.state.lock().iter_mut() {
            let side = sides.iter().position(|side| side.contains(node));
            record.placement.side = side.map_or(0, |index| index + 1);
        }
    }

    /// Ends a split: all nodes list all nodes.
    pub fn heal_split(&self) {
        self.split(&[]);
    }

    /// Closes a node's port and connections, while its peers still list it, as they do for up to twenty seconds after a real
    /// crash. [`stop`](Self::stop) makes them drop it, [`restart`](Self::restart) starts it again.
    pub fn crash(&self, node: IpAddr) {
        self.announce(node);
        self.close(node);
    }

    /// Makes all nodes list a node that does not serve yet, as a joining node is listed for some seconds;
    /// [`restart`](Self::restart) opens its port. The address may be new.
    pub fn announce(&self, node: IpAddr) {
        self.state.lock().entry(node).or_default().placement.announced = true;
    }

    /// Removes a node of another cluster on the same port, and adds a node with its address to this one.
    ///
    /// # Errors
    /// Another process has bound the port meanwhile.
    pub fn take_over(&self, other: &Self, node: IpAddr) -> io::Result<()> {
        other.remove(node);
        self.add_at(node)
    }

    /// Delays a node's answers to `/`, like those of a busy node.
    pub fn overload(&self, node: IpAddr, delay: Duration) {
        self.deliver(node, Path::Health, Delivery::Delayed(delay));
    }
}

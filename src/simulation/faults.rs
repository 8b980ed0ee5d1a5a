//! What befalls a cluster as a whole: datacenters, splits, nodes that join or crash, addresses that change hands.

use std::{io, net::IpAddr, time::Duration};

use super::{Cluster, Delivery, Path};

impl Cluster {
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

    /// Starts another cluster on addresses of its own and on the same port, so that addresses can change hands.
    ///
    /// # Errors
    /// No place was found for it, or the thread cannot be started.
    pub fn start_beside(&self, nodes: usize) -> io::Result<Self> {
        Self::start_on(nodes, self.port())
    }

    /// Says where a node stands. An unknown node is ignored.
    pub fn place(&self, node: IpAddr, datacenter: &str, rack: &str) {
        if let Some(record) = self.state.lock().get_mut(&node) {
            record.placement.datacenter = datacenter.into();
            record.placement.rack = rack.into();
        }
    }

    /// Whether a node answers as if requests had no parameters, as servers did before 2025.1.
    pub fn ignore_parameters(&self, node: IpAddr, ignores: bool) {
        if let Some(record) = self.state.lock().get_mut(&node) {
            record.placement.ignores_parameters = ignores;
        }
    }

    /// From now on the nodes of each side see nobody else. Nodes on no side, and those that are added later, see each
    /// other. An earlier split is over.
    pub fn split(&self, sides: &[&[IpAddr]]) {
        for (node, record) in self.state.lock().iter_mut() {
            let side = sides.iter().position(|side| side.contains(node));
            record.placement.side = side.map_or(0, |index| index + 1);
        }
    }

    /// Everybody sees everybody again.
    pub fn heal_split(&self) {
        self.split(&[]);
    }

    /// Closes a node's port and cuts its connections, while its peers go on listing it, as they do for up to twenty
    /// seconds after a real crash. [`stop`](Self::stop) makes them notice, [`restart`](Self::restart) brings it back.
    pub fn crash(&self, node: IpAddr) {
        self.announce(node);
        self.close(node);
    }

    /// Makes everybody list a node that does not serve yet, as real nodes are for some seconds when they join;
    /// [`restart`](Self::restart) opens its port. The address may be new.
    pub fn announce(&self, node: IpAddr) {
        self.state.lock().entry(node).or_default().placement.announced = true;
    }

    /// A node of another cluster on the same port goes, and a new node of this one is given its address.
    ///
    /// # Errors
    /// Somebody else was quicker.
    pub fn take_over(&self, other: &Self, node: IpAddr) -> io::Result<()> {
        other.remove(node);
        self.add_at(node)
    }

    /// Makes a node answer `/` late: it is busy, and not dead.
    pub fn overload(&self, node: IpAddr, delay: Duration) {
        self.deliver(node, Path::Health, Delivery::Delayed(delay));
    }
}

//! The sockets in use: new ones are bound before anything changes, old ones are drained.

use std::{net::SocketAddr, sync::Arc};

use tokio::{runtime::Handle, sync::mpsc};

use super::StartError;
use crate::{
    config::Server,
    config::collide,
    metrics::ProcessCounters,
    server::{BindError, Bound, Forwarder, Limits, Register, Serving},
    table::SharedTable,
};

/// What every listener needs.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    pub table: SharedTable,
    pub counters: Arc<ProcessCounters>,
    pub forwarder: Forwarder,
    pub tcp: Handle,
    pub register: Register,
    pub failures: mpsc::UnboundedSender<String>,
    /// UDP sockets, and threads, for each address.
    pub workers: usize,
}

/// The addresses that are served, each as the file writes it.
#[derive(Debug)]
pub(super) struct Listeners {
    floor: Floor,
    serving: Vec<(SocketAddr, Serving)>,
}

impl Listeners {
    pub(super) fn new(floor: Floor) -> Self {
        Self { floor, serving: Vec::new() }
    }

    /// Binds the addresses that are not served yet: all of them, or none. Of those that nobody wrote IPv6 may be
    /// missing, because not every host has it.
    pub(super) fn bind_missing(&self, wanted: &Server) -> Result<Vec<(SocketAddr, Bound)>, StartError> {
        let missing = wanted.listen.iter().filter(|address| self.serving.iter().all(|(served, _)| served != *address));
        let mut all = Vec::new();
        for &address in missing {
            match self.bind(address) {
                Ok(bound) => all.push((address, bound)),
                Err(StartError::Bind(BindError::NotLocal(_) | BindError::Other { .. }))
                    if wanted.listen_by_default && address.is_ipv6() =>
                {
                    tracing::warn!(%address, "this host has no such address, so only IPv4 is served; `listen` says more");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn bind(&self, address: SocketAddr) -> Result<Bound, StartError> {
        Bound::bind(address, self.floor.workers).map_err(|error| match (error, self.overlapping(address)) {
            (BindError::InUse(_), Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    /// An address of ours that has the same port, where one of both is a wildcard.
    fn overlapping(&self, wanted: SocketAddr) -> Option<SocketAddr> {
        self.addresses().into_iter().find(|served| collide(*served, wanted))
    }

    /// Serves what was bound and takes the addresses out that are wanted no more; they are to be stopped.
    pub(super) fn replace(&mut self, wanted: &[SocketAddr], bound: Vec<(SocketAddr, Bound)>) -> Vec<Serving> {
        let floor = &self.floor;
        self.serving.extend(bound.into_iter().map(|(address, bound)| {
            tracing::info!(address = %bound.local_address(), "listening, UDP and TCP");
            let Floor { table, counters, forwarder, tcp, register, failures, .. } = floor.clone();
            let serving = bound.serve(table, counters, forwarder, &tcp, register, failures);
            (address, serving)
        }));
        let unwanted = self.serving.extract_if(.., |(address, _)| !wanted.contains(address));
        unwanted.map(|(_, serving)| serving).collect()
    }

    /// Other limits of TCP from now on.
    pub(super) fn limit(&self, limits: Limits) {
        self.floor.register.limit(limits);
    }

    /// The addresses as bound: the port is the real one also where the file says 0.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.serving.iter().map(|(_, serving)| serving.address()).collect()
    }
}

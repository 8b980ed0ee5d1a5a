//! The sockets in use: new ones are bound before anything changes, old ones are drained.

use std::net::SocketAddr;

use tokio::{runtime::Handle, sync::mpsc};

use super::StartError;
use crate::{
    config::{Encryption, SecureTransport, Server, collide},
    server::{BindError, Bound, BoundSecure, Certificate, ConnectionLimits, Limits, Service, Serving, Session},
};

/// What every listener needs.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    pub service: Service,
    pub tcp: Handle,
    pub encrypted: Handle,
    pub connections: ConnectionLimits,
    pub failures: mpsc::UnboundedSender<String>,
    /// UDP sockets, and threads, for each address.
    pub workers: usize,
}

/// The addresses that are served, each as the file writes it.
#[derive(Debug)]
pub(super) struct Listeners {
    floor: Floor,
    serving: Vec<(SocketAddr, Serving)>,
    /// The same for encrypted DNS.
    secure: Vec<(Door, Serving)>,
}

/// What is spoken on an address.
type Door = (SecureTransport, SocketAddr);

/// Sockets that nobody reads yet.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    plain: Vec<(SocketAddr, Bound)>,
    secure: Vec<(Door, BoundSecure)>,
}

impl Listeners {
    pub(super) fn new(floor: Floor) -> Self {
        Self { floor, serving: Vec::new(), secure: Vec::new() }
    }

    /// Binds the addresses that are not served yet: all of them, or none. Of those that nobody wrote IPv6 may be
    /// missing, because not every host has it. `admin` is where the admin interface is now.
    pub(super) fn bind_missing(&self, wanted: &Server, admin: Option<SocketAddr>) -> Result<Fresh, StartError> {
        let plain = self.bind_plain(wanted, admin)?;
        let secure = doors(wanted.encryption.as_ref())
            .iter()
            .filter(|door| self.secure.iter().all(|(served, _)| served != *door));
        let secure =
            secure.map(|door| Ok((*door, self.bind_secure(*door, admin)?))).collect::<Result<_, StartError>>()?;
        Ok(Fresh { plain, secure })
    }

    fn bind_plain(&self, wanted: &Server, admin: Option<SocketAddr>) -> Result<Vec<(SocketAddr, Bound)>, StartError> {
        let missing = wanted.listen.iter().filter(|address| self.serving.iter().all(|(served, _)| served != *address));
        let mut all = Vec::new();
        for &address in missing {
            match self.bind(address, admin) {
                Ok(bound) => all.push((address, bound)),
                Err(StartError::Bind(BindError::NotLocal { .. } | BindError::Other { .. }))
                    if wanted.listen_by_default && address.is_ipv6() =>
                {
                    tracing::warn!(%address, "this host has no such address, so only IPv4 is served; `listen` says more");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn bind(&self, address: SocketAddr, admin: Option<SocketAddr>) -> Result<Bound, StartError> {
        Bound::bind(address, self.floor.workers).map_err(|error| match (error, self.overlapping(address, admin)) {
            (BindError::InUse { .. }, Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    fn bind_secure(&self, (transport, address): Door, admin: Option<SocketAddr>) -> Result<BoundSecure, StartError> {
        BoundSecure::bind(transport, address).map_err(|error| match (error, self.overlapping(address, admin)) {
            (BindError::InUse { .. }, Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    /// An address of ours that has the same port, where one of both is a wildcard.
    fn overlapping(&self, wanted: SocketAddr, admin: Option<SocketAddr>) -> Option<SocketAddr> {
        self.all_addresses().into_iter().chain(admin).find(|served| collide(*served, wanted))
    }

    /// Serves what was bound and takes the addresses out that are wanted no more; they are to be stopped.
    pub(super) fn replace(&mut self, wanted: Wanted<'_>, fresh: Fresh, certificate: &Certificate) -> Vec<Serving> {
        let Wanted { listen, encryption } = wanted;
        let floor = &self.floor;
        self.secure.extend(fresh.secure.into_iter().map(|(door, bound)| {
            let transport = door.0.transport().word();
            tracing::info!(address = %bound.local_address(), transport, "listening, encrypted");
            let Floor { service, encrypted, failures, .. } = floor.clone();
            let session = Session { certificate: certificate.clone(), idle: floor.connections.limits().idle };
            (door, bound.serve(service, session, &encrypted, failures))
        }));
        let unwanted = self.secure.extract_if(.., |(door, _)| !doors(encryption).contains(door));
        let mut closed: Vec<_> = unwanted.map(|(_, serving)| serving).collect();
        self.serving.extend(fresh.plain.into_iter().map(|(address, bound)| {
            tracing::info!(address = %bound.local_address(), "listening, UDP and TCP");
            let Floor { service, tcp, connections, failures, .. } = floor.clone();
            let serving = bound.serve(service, connections, &tcp, failures);
            (address, serving)
        }));
        let unwanted = self.serving.extract_if(.., |(address, _)| !listen.contains(address));
        closed.extend(unwanted.map(|(_, serving)| serving));
        closed
    }

    /// Other limits of TCP from now on.
    pub(super) fn limit(&self, limits: Limits) {
        self.floor.connections.replace(limits);
    }

    /// What is spoken where, encrypted.
    pub(super) fn secure_addresses(&self) -> Vec<Door> {
        self.secure.iter().map(|((transport, _), serving)| (*transport, serving.address())).collect()
    }

    /// Every address, of whatever is spoken there.
    pub(super) fn all_addresses(&self) -> Vec<SocketAddr> {
        let secure = self.secure.iter().map(|(_, serving)| serving.address());
        self.addresses().into_iter().chain(secure).collect()
    }

    /// The addresses as bound: the port is the real one also where the file says 0.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.serving.iter().map(|(_, serving)| serving.address()).collect()
    }
}

/// The addresses that are to be served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'c> {
    pub(super) listen: &'c [SocketAddr],
    pub(super) encryption: Option<&'c Encryption>,
}

fn doors(encryption: Option<&Encryption>) -> &[Door] {
    encryption.map_or(&[], |encryption| &encryption.listen)
}

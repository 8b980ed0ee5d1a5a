//! The sockets in use: new ones are bound before anything changes, old ones are drained.

use std::net::SocketAddr;

use tokio::{runtime::Handle, sync::mpsc};

use super::StartError;
use crate::{
    config::{Encryption, SecureTransport, Server, collide},
    server::{
        BindError, Bound, BoundSecure, Certificate, ConnectionLimits, Limits, Service, Serving, Session, has_address,
    },
};

/// What is said of an address that is bound all the same.
const NO_INTERFACE: &str = "no interface of this host has this address now, so no client reaches it before one has; check \
                            that it is no typing error";

/// What every listener needs.
#[derive(Clone, Debug)]
pub(super) struct ListenerContext {
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
    context: ListenerContext,
    serving: Vec<(SocketAddr, Serving)>,
    /// The same for encrypted DNS.
    secure: Vec<(Endpoint, Serving)>,
}

/// A transport, and the address that it is served on.
type Endpoint = (SecureTransport, SocketAddr);

/// Sockets that are bound and not read yet.
#[derive(Debug, Default)]
pub(super) struct PreparedSockets {
    plain: Vec<(SocketAddr, Bound)>,
    secure: Vec<(Endpoint, BoundSecure)>,
}

impl Listeners {
    pub(super) fn new(context: ListenerContext) -> Self {
        Self { context, serving: Vec::new(), secure: Vec::new() }
    }

    /// Binds the addresses that are not served yet: all of them, or none. Of the default addresses
    /// those of IPv6 may be missing, because not every host has it. `admin` is where the admin interface is now.
    pub(super) fn prepare(&self, wanted: &Server, admin: Option<SocketAddr>) -> Result<PreparedSockets, StartError> {
        let plain = self.bind_plain(wanted, admin)?;
        let secure = endpoints(wanted.encryption.as_ref())
            .iter()
            .filter(|endpoint| self.secure.iter().all(|(served, _)| served != *endpoint));
        let secure = secure
            .map(|endpoint| Ok((*endpoint, self.bind_secure(*endpoint, admin)?)))
            .collect::<Result<_, StartError>>()?;
        Ok(PreparedSockets { plain, secure })
    }

    fn bind_plain(&self, wanted: &Server, admin: Option<SocketAddr>) -> Result<Vec<(SocketAddr, Bound)>, StartError> {
        let missing = wanted.listen.iter().filter(|address| self.serving.iter().all(|(served, _)| served != *address));
        let mut all = Vec::new();
        for &address in missing {
            let is_optional = wanted.listen_by_default && address.is_ipv6();
            let no_ipv6 = "this host has no such address, so only IPv4 is served; `listen` says more";
            if is_optional && !has_address(address) {
                tracing::warn!(%address, "{no_ipv6}");
                continue;
            }
            match self.bind(address, admin) {
                Ok(bound) => all.push((address, bound)),
                Err(StartError::Bind(BindError::NotLocal { .. } | BindError::Other { .. })) if is_optional => {
                    tracing::warn!(%address, "{no_ipv6}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn bind(&self, address: SocketAddr, admin: Option<SocketAddr>) -> Result<Bound, StartError> {
        // No two addresses of a file collide, so what is served there now is about to be closed.
        let closing = self.serving.iter().filter(|(_, serving)| collide(serving.address(), address));
        let closing: Vec<_> = closing.map(|(_, serving)| serving).collect();
        let bound = match &*closing {
            [] => Bound::bind(address, self.context.workers),
            served => Bound::bind_beside(served, address, self.context.workers),
        };
        bound.map_err(|error| match (error, self.overlapping(address, admin)) {
            (BindError::InUse { .. }, Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    fn bind_secure(
        &self,
        (transport, address): Endpoint,
        admin: Option<SocketAddr>,
    ) -> Result<BoundSecure, StartError> {
        BoundSecure::bind(transport, address).map_err(|error| match (error, self.overlapping(address, admin)) {
            (BindError::InUse { .. }, Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    /// An address of ours that has the same port, where one of both is a wildcard.
    fn overlapping(&self, wanted: SocketAddr, admin: Option<SocketAddr>) -> Option<SocketAddr> {
        self.all_addresses().into_iter().chain(admin).find(|served| collide(*served, wanted))
    }

    /// Serves what was prepared, and returns the listeners whose addresses are not wanted any more, to be stopped.
    pub(super) fn commit(
        &mut self,
        wanted: Wanted<'_>,
        prepared: PreparedSockets,
        certificate: &Certificate,
    ) -> Vec<Serving> {
        let Wanted { listen, encryption } = wanted;
        let context = &self.context;
        self.secure.extend(prepared.secure.into_iter().map(|(endpoint, bound)| {
            let transport = endpoint.0.transport().word();
            tracing::info!(address = %bound.local_address(), transport, "listening, encrypted");
            let ListenerContext { service, encrypted, connections, failures, .. } = context.clone();
            let session = Session { certificate: certificate.clone(), limits: connections };
            (endpoint, bound.serve(service, session, &encrypted, failures))
        }));
        let unwanted = self.secure.extract_if(.., |(endpoint, _)| !endpoints(encryption).contains(endpoint));
        let mut closed: Vec<_> = unwanted.map(|(_, serving)| serving).collect();
        self.serving.extend(prepared.plain.into_iter().map(|(address, bound)| {
            tracing::info!(address = %bound.local_address(), "listening, UDP and TCP");
            let ListenerContext { service, tcp, connections, failures, .. } = context.clone();
            let serving = bound.serve(service, connections, &tcp, failures);
            (address, serving)
        }));
        let unwanted = self.serving.extract_if(.., |(address, _)| !listen.contains(address));
        closed.extend(unwanted.map(|(_, serving)| serving));
        self.warn_of_absent_addresses();
        closed
    }

    fn warn_of_absent_addresses(&self) {
        for address in self.all_addresses().into_iter().filter(|address| !has_address(*address)) {
            tracing::warn!(%address, "{NO_INTERFACE}");
        }
    }

    /// The limits of connections in force.
    pub(super) fn limits(&self) -> Limits {
        self.context.connections.limits()
    }

    /// Other limits of connections from now on.
    pub(super) fn limit(&self, limits: Limits) {
        self.context.connections.replace(limits);
    }

    /// The encrypted transports and their addresses as bound.
    pub(super) fn secure_addresses(&self) -> Vec<Endpoint> {
        self.secure.iter().map(|((transport, _), serving)| (*transport, serving.address())).collect()
    }

    /// Every address, encrypted or not.
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

fn endpoints(encryption: Option<&Encryption>) -> &[Endpoint] {
    encryption.map_or(&[], |encryption| &encryption.listen)
}

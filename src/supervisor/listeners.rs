//! The sockets in use: new ones are bound before anything changes, old ones are drained.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use futures_util::future::join_all;
use tokio::runtime::Handle;

use super::StartError;
use crate::{
    config::{Encryption, SecureTransport, Server, collide},
    server::{
        BindError, Bound, BoundSecure, Certificate, ConnectionLimits, Limits, Service, Serving, Session, Supervision,
        close_udp, has_address, is_as_named, plain_names, secure_name,
    },
    systemd::sockets::{KeptSocket, KeptSockets, Removal, SocketName, SocketStore, SocketUse},
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
    pub supervision: Supervision,
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
    store: SocketStore,
    /// What systemd has kept from an earlier process, until the first configuration is in force.
    kept: KeptSockets,
    /// UDP sockets that systemd had kept, and that are not wanted. What is queued in them is answered.
    unwanted: Vec<(SocketAddr, OwnedFd)>,
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
    pub(super) fn new(context: ListenerContext, kept: KeptSockets, store: SocketStore) -> Self {
        Self { context, serving: Vec::new(), secure: Vec::new(), store, kept, unwanted: Vec::new() }
    }

    /// Has systemd remove the sockets that it has kept and that a configuration does not name, so that they are not in the
    /// way of those that are to be bound. A UDP socket of a worker that there is no longer would get a part of the questions.
    /// Returns whether there was one.
    pub(super) async fn remove_unwanted(&mut self, wanted: &Server) -> bool {
        let plain = wanted.listen.iter().flat_map(|address| plain_names(*address, self.context.workers));
        let secure = endpoints(wanted.encryption.as_ref()).iter().map(|(transport, at)| secure_name(*transport, *at));
        let admin = wanted.admin.map(|address| SocketName { usage: SocketUse::Admin, address });
        let names: Vec<SocketName> = plain.chain(secure).chain(admin).collect();
        let unwanted = self.kept.split_off(|name, socket| names.contains(&name) && is_as_named(name, socket));
        self.remove(unwanted).await
    }

    /// What systemd has kept from an earlier process, before the first configuration is in force.
    pub(super) fn kept(&self) -> &KeptSockets {
        &self.kept
    }

    /// Has systemd remove all sockets that it has kept. Returns whether there was one.
    pub(super) async fn remove_kept(&mut self) -> bool {
        let all = self.kept.split_off(|_, _| false);
        self.remove(all).await
    }

    async fn remove(&mut self, sockets: Vec<KeptSocket>) -> bool {
        if sockets.is_empty() {
            return false;
        }
        let names: BTreeSet<_> = sockets.iter().map(|kept| kept.stored_as().to_owned()).collect();
        tracing::info!(?names, "systemd has kept sockets that are not wanted; they are closed");
        self.store.remove(names.into_iter().collect()).done().await;
        self.unwanted.extend(sockets.into_iter().filter_map(KeptSocket::into_socket).filter_map(|(name, socket)| {
            let has_questions = matches!(name.usage, SocketUse::Udp(_)) && is_as_named(name, socket.as_fd());
            has_questions.then_some((name.address, socket))
        }));
        true
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
            [] => Bound::bind(address, self.context.workers, &self.kept),
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
        // What is served there now over the same protocol is about to be closed, if it is another address.
        let is_closing = |(other, serving): &&(Endpoint, Serving)| {
            let served = serving.address();
            let is_same_protocol = other.0.is_datagrams() == transport.is_datagrams();
            is_same_protocol && served != address && collide(served, address)
        };
        let closing: Vec<_> = self.secure.iter().filter(is_closing).map(|(_, serving)| serving).collect();
        let bound = match &*closing {
            [] => BoundSecure::bind(transport, address, &self.kept),
            served => BoundSecure::bind_beside(served, transport, address),
        };
        bound.map_err(|error| match (error, self.overlapping(address, admin)) {
            (BindError::InUse { .. }, Some(served)) => StartError::Overlap { wanted: address, served },
            (error, _) => StartError::Bind(error),
        })
    }

    /// An address of ours that has the same port, where one of both is a wildcard.
    fn overlapping(&self, wanted: SocketAddr, admin: Option<SocketAddr>) -> Option<SocketAddr> {
        self.all_addresses().into_iter().chain(admin).find(|served| collide(*served, wanted))
    }

    /// Serves what was prepared, and returns the listeners whose addresses are not wanted any more, to be closed.
    pub(super) fn commit(
        &mut self,
        wanted: Wanted<'_>,
        prepared: PreparedSockets,
        certificate: &Certificate,
    ) -> Vec<Closing> {
        let Wanted { listen, encryption } = wanted;
        let PreparedSockets { plain, secure } = prepared;
        self.serve_secure(secure, certificate);
        let is_unwanted = |(endpoint, _): &mut (Endpoint, _)| !endpoints(encryption).contains(endpoint);
        let mut closed: Vec<_> = self.secure.extract_if(.., is_unwanted).map(|(_, serving)| serving).collect();
        self.serve_plain(plain);
        let unwanted = self.serving.extract_if(.., |(address, _)| !listen.contains(address));
        closed.extend(unwanted.map(|(_, serving)| serving));
        // Those that are served have copies of their own.
        self.kept = KeptSockets::default();
        closed.extend(self.close_unwanted());
        self.warn_of_absent_addresses();
        closed.into_iter().map(|serving| self.closing(serving)).collect()
    }

    fn serve_plain(&mut self, sockets: Vec<(SocketAddr, Bound)>) {
        for (address, bound) in sockets {
            tracing::info!(address = %bound.local_address(), "listening, UDP and TCP");
            bound.sockets().for_each(|(name, socket)| self.keep(name, socket));
            let ListenerContext { service, tcp, connections, supervision, .. } = self.context.clone();
            self.serving.push((address, bound.serve(service, connections, &tcp, supervision)));
        }
    }

    fn serve_secure(&mut self, sockets: Vec<(Endpoint, BoundSecure)>, certificate: &Certificate) {
        for (endpoint, bound) in sockets {
            let transport = endpoint.0.transport().word();
            tracing::info!(address = %bound.local_address(), transport, "listening, encrypted");
            let (name, socket) = bound.socket();
            self.keep(name, socket);
            let ListenerContext { service, encrypted, connections, supervision, .. } = self.context.clone();
            let session = Session { certificate: certificate.clone(), limits: connections };
            self.secure.push((endpoint, bound.serve(service, session, &encrypted, supervision.failures)));
        }
    }

    /// Has systemd keep a socket that it does not have yet.
    fn keep(&self, name: SocketName, socket: BorrowedFd<'_>) {
        if self.kept.get(name).is_none() {
            self.store.keep(name, socket);
        }
    }

    /// Answers what is queued in sockets that were kept and are not wanted.
    fn close_unwanted(&mut self) -> Vec<Serving> {
        let ListenerContext { service, tcp, supervision, .. } = &self.context;
        let closing = self.unwanted.drain(..).filter_map(|(address, socket)| {
            let closing = close_udp(address, socket, service, tcp, supervision);
            closing.inspect_err(|error| tracing::debug!(%address, %error, "a kept socket is closed unread")).ok()
        });
        closing.collect()
    }

    fn closing(&self, serving: Serving) -> Closing {
        Closing { removal: self.store.remove(serving.names().iter().map(SocketName::to_string).collect()), serving }
    }

    /// Stops serving, at the end of the process. Where systemd keeps the sockets, what is not answered by then waits in them
    /// for the next process.
    pub(super) async fn end(&mut self) {
        let serving = self.serving.drain(..).map(|(_, serving)| serving);
        let mut serving: Vec<_> = serving.chain(self.secure.drain(..).map(|(_, serving)| serving)).collect();
        if !self.store.is_on() {
            serving.iter().for_each(Serving::begin_stop);
            join_all(serving.into_iter().map(Serving::stop)).await;
            return;
        }
        // UDP last: its questions are answered until everything else is done.
        join_all(serving.iter_mut().map(Serving::stop_streams)).await;
        self.context.supervision.hand_over.request();
        join_all(serving.iter_mut().map(Serving::threads_ended)).await;
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

/// Sockets that are not wanted any more.
#[derive(Debug)]
#[must_use]
pub(super) struct Closing {
    removal: Removal,
    serving: Serving,
}

impl Closing {
    /// Lets a listener answer what has arrived, and closes it, once systemd has closed its copies.
    pub(super) async fn drain(self) {
        let address = self.serving.address();
        self.removal.done().await;
        self.serving.stop().await;
        tracing::info!(%address, "no longer listening");
    }
}

/// The addresses that are to be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'c> {
    pub(super) listen: &'c [SocketAddr],
    pub(super) encryption: Option<&'c Encryption>,
}

fn endpoints(encryption: Option<&Encryption>) -> &[Endpoint] {
    encryption.map_or(&[], |encryption| &encryption.listen)
}

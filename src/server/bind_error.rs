//! Why an address cannot be listened on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The port of DNS.
pub(super) const DNS_PORT: u16 = 53;

/// Where systemd-resolved listens (systemd-resolved(8)).
pub(super) const STUB_LISTENERS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];

/// Why an address cannot be listened on: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken.
    #[error(
        "another program (or a second copy of alternator-dns) already listens on {address}; stop it or change `{key}`"
    )]
    InUse {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// A port below 1024, and no capability for it.
    #[error(
        "not allowed to listen on {0}: a port below 1024 needs the capability CAP_NET_BIND_SERVICE; start \
         alternator-dns from its systemd unit, grant it (setcap cap_net_bind_service=+ep), or choose a higher port"
    )]
    Forbidden(SocketAddr),
    /// The port is taken by the resolver that many systems run by default.
    #[error(
        "systemd-resolved already listens on port {} of {}; set DNSStubListener=no in /etc/systemd/resolved.conf and \
         restart systemd-resolved, or write an address of this host in `{key}`, such as \"127.0.0.1:{}\"",
         address.port(), address.ip(), address.port()
    )]
    Stub {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("no interface of this host has the address of {address}; add it to one or change `{key}`")]
    NotLocal {
        /// The key of `[server]` that names the address.
        key: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Any other error of the system.
    #[error("cannot listen on {address}: {reason}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The system's error.
        reason: io::Error,
    },
}

impl BindError {
    pub(super) fn new(key: &'static str, address: SocketAddr, reason: io::Error) -> Self {
        match reason.kind() {
            io::ErrorKind::AddrInUse if address.port() == DNS_PORT && is_stub(address) => Self::Stub { key, address },
            io::ErrorKind::AddrInUse => Self::InUse { key, address },
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { key, address },
            _ => Self::Other { address, reason },
        }
    }
}

/// Whether an address that is in use is used by the stub listener of systemd-resolved: it has two addresses of its own,
/// and the wildcard includes them. Another program on the wildcard would use 127.0.0.1 too.
pub(super) fn is_stub(address: SocketAddr) -> bool {
    let is_free = |ip: Ipv4Addr| {
        let bound = std::net::TcpListener::bind((ip, address.port()));
        !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    match address.ip() {
        IpAddr::V4(ip) if STUB_LISTENERS.contains(&ip) => is_free(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            is_free(Ipv4Addr::LOCALHOST) && STUB_LISTENERS.into_iter().any(|ip| !is_free(ip))
        }
        _ => false,
    }
}

/// Whether an interface of this host has the address now, or it is a wildcard. Asks the kernel, and sends nothing.
pub fn has_address(address: SocketAddr) -> bool {
    let mut any_port = address;
    any_port.set_port(0);
    let bound = std::net::UdpSocket::bind(any_port);
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

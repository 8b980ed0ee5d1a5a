//! Sockets that systemd has kept from an earlier process, and the names of those that it is to keep.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::BorrowedFd,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::udp;
use crate::{
    config::SecureTransport,
    systemd::sockets::{KeptSockets, SocketName, SocketUse},
};

/// The names of the sockets of an address that is served over UDP and TCP.
pub fn plain_names(address: SocketAddr, workers: usize) -> impl Iterator<Item = SocketName> {
    let udp = (0..workers.max(1)).map(SocketUse::Udp);
    udp.chain([SocketUse::Tcp]).map(move |usage| SocketName { usage, address })
}

/// The name of the socket of an encrypted transport.
pub fn secure_name(transport: SecureTransport, address: SocketAddr) -> SocketName {
    let usage = match transport {
        SecureTransport::Tls => SocketUse::Tls,
        SecureTransport::Https => SocketUse::Https,
        SecureTransport::Quic => SocketUse::Quic,
    };
    SocketName { usage, address }
}

/// Whether a socket is what its name says, and receives what clients send.
pub fn is_as_named(name: SocketName, socket: BorrowedFd<'_>) -> bool {
    let socket = SockRef::from(&socket);
    let is_datagram = name.usage.is_datagram();
    let has_type = socket.r#type().is_ok_and(|kind| kind == if is_datagram { Type::DGRAM } else { Type::STREAM });
    let has_address = socket.local_addr().is_ok_and(|address| address.as_socket() == Some(name.address));
    let has_family = socket.domain().is_ok_and(|domain| domain == Domain::for_address(name.address));
    let is_v6_only = !name.address.is_ipv6() || socket.only_v6().is_ok_and(|only| only);
    let receives = match name.usage {
        // A connected one gets nothing from other addresses.
        SocketUse::Udp(_) => socket.reuse_port().is_ok_and(|shared| shared) && socket.peer_addr().is_err(),
        SocketUse::Quic => socket.peer_addr().is_err(),
        SocketUse::Tcp | SocketUse::Tls | SocketUse::Https | SocketUse::Admin => {
            socket.is_listener().is_ok_and(|listens| listens)
        }
    };
    has_type && has_address && has_family && is_v6_only && receives
}

/// The UDP socket of a worker, if it was kept.
pub(super) fn udp_socket(kept: &KeptSockets, address: SocketAddr, worker: usize) -> io::Result<Option<Socket>> {
    let Some(socket) = kept.get(SocketName { usage: SocketUse::Udp(worker), address }) else { return Ok(None) };
    let socket = Socket::from(socket.try_clone_to_owned()?);
    udp::set_options(&socket, address)?;
    Ok(Some(socket))
}

/// A socket that accepts connections, if it was kept.
///
/// # Errors
/// The system refuses an option.
pub fn tcp_listener(kept: &KeptSockets, name: SocketName) -> io::Result<Option<TcpListener>> {
    let Some(socket) = kept.get(name) else { return Ok(None) };
    let socket = Socket::from(socket.try_clone_to_owned()?);
    // The earlier process may have ended while it shared the port.
    socket.set_reuse_port(false)?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket.into()))
}

/// The socket of DNS over QUIC, if it was kept.
pub(super) fn quic_socket(kept: &KeptSockets, name: SocketName) -> io::Result<Option<UdpSocket>> {
    let Some(socket) = kept.get(name) else { return Ok(None) };
    let socket = UdpSocket::from(socket.try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::server::bind_tcp;

    #[test]
    fn a_socket_is_checked_against_its_name() {
        let tcp = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = udp::bind(address).unwrap();
        let name = |usage| SocketName { usage, address };
        assert!(is_as_named(name(SocketUse::Tcp), tcp.as_fd()) && is_as_named(name(SocketUse::Udp(3)), udp.as_fd()));
        assert!(!is_as_named(name(SocketUse::Udp(0)), tcp.as_fd()) && !is_as_named(name(SocketUse::Tcp), udp.as_fd()));
        let other = SocketAddr::from(([127, 0, 0, 2], address.port()));
        assert!(!is_as_named(SocketName { usage: SocketUse::Tcp, address: other }, tcp.as_fd()), "another address");
        let exclusive = UdpSocket::bind("127.0.0.1:0").unwrap();
        let its_name = |usage| SocketName { usage, address: exclusive.local_addr().unwrap() };
        assert!(!is_as_named(its_name(SocketUse::Udp(0)), exclusive.as_fd()), "no other worker could bind its address");
        assert!(is_as_named(its_name(SocketUse::Quic), exclusive.as_fd()));
        udp.connect(&address.into()).unwrap();
        assert!(!is_as_named(name(SocketUse::Udp(3)), udp.as_fd()), "one that refuses more");
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let its_name = SocketName { usage: SocketUse::Tcp, address: silent.local_addr().unwrap().as_socket().unwrap() };
        assert!(!is_as_named(its_name, silent.as_fd()), "one that does not listen");
    }
}

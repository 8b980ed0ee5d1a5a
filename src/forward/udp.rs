//! One question over UDP.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::timeout};

use super::{
    error::AttemptError,
    query::{Received, UpstreamQuery, WithOpt},
};

/// A question is sent again after this long without a reply: a datagram may be lost.
const RESEND_INTERVAL: Duration = Duration::from_secs(1);

/// Octets of the largest datagram. An upstream may send somewhat more than it was offered; what is still longer cannot be read.
const DATAGRAM_OCTETS_MAX: usize = 4096;

/// Random ports that are tried before the kernel chooses one. Few are taken.
const PORT_ATTEMPTS: usize = 8;

/// Ports below are for services.
const LEAST_PORT: u16 = 1024;

/// Asks, again and again, until a reply comes. One socket serves all of it, from a port of its own that is chosen at
/// random, as the ID is, so that replies are hard to forge (RFC 5452).
///
/// The caller drops the future at its deadline.
pub(super) async fn ask(upstream: SocketAddr, query: &UpstreamQuery, opt: WithOpt) -> Result<Received, AttemptError> {
    let id = rand::random();
    let question = query.encode(id, opt).map_err(|_| AttemptError::ErrorReply)?;
    let socket = UdpSocket::from_std(connect(upstream)?.into())?;
    let mut buffer = vec![0; DATAGRAM_OCTETS_MAX];
    loop {
        socket.send(&question).await?;
        if let Ok(received) = timeout(RESEND_INTERVAL, receive(&socket, query, id, &mut buffer)).await {
            return received;
        }
    }
}

/// Ignores what does not reply to the question.
async fn receive(
    socket: &UdpSocket,
    query: &UpstreamQuery,
    id: u16,
    buffer: &mut [u8],
) -> Result<Received, AttemptError> {
    loop {
        let length = socket.recv(buffer).await?;
        let datagram = buffer.get(..length).unwrap_or_default();
        if let Some(received) = query.read(id, datagram.to_vec()) {
            return Ok(received);
        }
    }
}

/// A socket that takes datagrams from this address alone. It also learns that nothing listens there.
fn connect(upstream: SocketAddr) -> io::Result<Socket> {
    let ip: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if upstream.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let bind = |port| socket.bind(&SocketAddr::new(ip, port).into());
    let is_bound = (0..PORT_ATTEMPTS).any(|_| bind(rand::random_range(LEAST_PORT..=u16::MAX)).is_ok());
    if !is_bound {
        bind(0)?;
    }
    socket.connect(&upstream.into())?;
    Ok(socket)
}

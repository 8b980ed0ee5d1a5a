//! Batches of datagrams: one system call receives many, one sends many.
//!
//! Two properties of nix 0.31 shape this file. `recvmmsg` does not restore the space for control messages that an earlier
//! call used, so headers are recreated once it was too small. `sendmmsg` sends one control message with a whole batch, so
//! the replies of a wildcard socket are grouped by source address.

use std::{
    array,
    io::{IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, sendmmsg,
        sendmsg,
    },
};

use crate::answer::wire::UDP_OCTETS_MAX;

/// Datagrams per system call. With 32 the call's own cost is small for each, and the first of a batch waits no longer than
/// some fifty microseconds.
const BATCH: usize = 32;

/// Octets kept of a datagram: as many as we advertise. A longer one is cut and fails to parse.
const DATAGRAM_OCTETS: usize = UDP_OCTETS_MAX as usize;

/// How long to wait for datagrams.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// For the first one, until the socket's timeout.
    ForOne,
    /// Not at all.
    Never,
}

impl Wait {
    fn flags(self) -> MsgFlags {
        match self {
            Self::ForOne => MsgFlags::MSG_WAITFORONE,
            Self::Never => MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// The sender of a datagram, and the address of ours that it was sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The sender, which the reply goes to.
    pub(super) client: SocketAddr,
    /// Its destination, on a wildcard socket; unspecified on any other, and where the kernel did not report it.
    pub(super) local: IpAddr,
    length: usize,
}

/// Buffers for a batch of datagrams, and the content that the last call received.
pub(super) struct ReceiveBatch {
    socket_address: SocketAddr,
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<[u8; DATAGRAM_OCTETS]>,
    arrivals: Vec<Arrival>,
}

impl ReceiveBatch {
    pub(super) fn new(socket_address: SocketAddr) -> Self {
        Self {
            socket_address,
            headers: headers(socket_address),
            buffers: vec![[0; DATAGRAM_OCTETS]; BATCH],
            arrivals: Vec::with_capacity(BATCH),
        }
    }

    /// Receives at least one datagram, or fails with the system's error: `EAGAIN` when there is none.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, wait: Wait) -> Result<(), Errno> {
        self.arrivals.clear();
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [_; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..]))]);
        let mut headers_spent = false;
        for message in recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), wait.flags(), None)? {
            headers_spent |= message.flags.contains(MsgFlags::MSG_CTRUNC);
            let local = asked_address(&message, self.socket_address);
            // Every datagram has a sender. If one had none, port 0 marks it as one that gets no reply.
            let client = message.address.as_ref().and_then(socket_address).unwrap_or(SocketAddr::new(local, 0));
            let length = message.bytes.min(DATAGRAM_OCTETS);
            self.arrivals.push(Arrival { client, local, length });
        }
        if headers_spent {
            self.headers = headers(self.socket_address);
        }
        Ok(())
    }

    /// The datagrams of the last call.
    pub(super) fn arrivals(&self) -> impl Iterator<Item = (&Arrival, &[u8])> {
        self.arrivals.iter().zip(&self.buffers).map(|(arrival, buffer)| (arrival, &buffer[..arrival.length]))
    }
}

/// A batch of replies.
pub(super) struct SendBatch {
    headers: MultiHeaders<SockaddrStorage>,
    wildcard: bool,
    replies: Vec<QueuedReply>,
    /// How many of the replies are to be sent; the others keep their buffers for later batches.
    filled: usize,
    clients: Vec<Option<SockaddrStorage>>,
}

struct QueuedReply {
    client: SocketAddr,
    local: IpAddr,
    octets: Vec<u8>,
}

impl SendBatch {
    pub(super) fn new(socket_address: SocketAddr) -> Self {
        let reply = || QueuedReply {
            client: socket_address,
            local: socket_address.ip(),
            octets: Vec::with_capacity(usize::from(UDP_OCTETS_MAX)),
        };
        Self {
            headers: headers(socket_address),
            wildcard: socket_address.ip().is_unspecified(),
            replies: (0..BATCH).map(|_| reply()).collect(),
            filled: 0,
            clients: Vec::with_capacity(BATCH),
        }
    }

    /// Adds the reply that `render` writes, unless it returns `false`.
    pub(super) fn push(&mut self, client: SocketAddr, local: IpAddr, render: impl FnOnce(&mut Vec<u8>) -> bool) {
        // A batch holds as many replies as datagrams, so there is always a buffer.
        let Some(reply) = self.replies.get_mut(self.filled) else { return };
        if render(&mut reply.octets) {
            reply.client = client;
            reply.local = local;
            self.filled += 1;
        }
    }

    /// Sends all replies and removes them. Returns how many the kernel did not take.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> u64 {
        let Self { headers, wildcard, replies, filled, clients } = self;
        let batch = &mut replies[..std::mem::take(filled)];
        if *wildcard {
            batch.sort_unstable_by_key(|reply| reply.local);
        }
        let mut lost = 0;
        for group in batch.chunk_by(|a, b| a.local == b.local) {
            clients.clear();
            clients.extend(group.iter().map(|reply| Some(SockaddrStorage::from(reply.client))));
            let source = wildcard.then(|| group.first().map(|reply| SourceAddress::new(reply.local))).flatten();
            lost += send_group(socket, headers, group, clients, source.as_ref());
        }
        lost
    }
}

/// Sends replies from one source address. A reply that the kernel does not take is dropped, not tried again: its client
/// asks again anyway.
fn send_group(
    socket: BorrowedFd<'_>,
    headers: &mut MultiHeaders<SockaddrStorage>,
    group: &[QueuedReply],
    clients: &[Option<SockaddrStorage>],
    source: Option<&SourceAddress>,
) -> u64 {
    let control = source.map(SourceAddress::control_message);
    let control = control.as_slice();
    let mut done = 0;
    let mut lost = 0;
    while let (Some(rest), Some(clients)) = (group.get(done..), clients.get(done..))
        && !rest.is_empty()
    {
        let slices: [_; BATCH] = array::from_fn(|at| [IoSlice::new(rest.get(at).map_or(&[], |reply| &reply.octets))]);
        let slices = slices.iter().take(rest.len());
        match sendmmsg(socket.as_raw_fd(), headers, slices, clients, control, MsgFlags::empty()) {
            // The kernel stops at the first that fails. The next call begins with that one and learns why.
            Ok(sent) => done += sent.count().max(1),
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::debug!(%error, "a reply was not taken");
                done += 1;
                lost += 1;
            }
        }
    }
    lost
}

/// Sends one reply that was not ready when its batch was sent, from any thread, without waiting.
pub(in crate::server) fn send_one(
    socket: &impl AsRawFd,
    client: SocketAddr,
    source: Option<&SourceAddress>,
    octets: &[u8],
) -> Result<(), Errno> {
    let control = source.map(SourceAddress::control_message);
    let slices = [IoSlice::new(octets)];
    let client = SockaddrStorage::from(client);
    sendmsg(socket.as_raw_fd(), &slices, control.as_slice(), MsgFlags::MSG_DONTWAIT, Some(&client)).map(|_| ())
}

/// The source address of replies: the one that was asked, or clients ignore them (RFC 2181, 4.1).
#[derive(Debug)]
pub(in crate::server) enum SourceAddress {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl SourceAddress {
    /// The interface stays open: the route to the client decides.
    pub(in crate::server) fn new(local: IpAddr) -> Self {
        match local {
            IpAddr::V4(v4) => Self::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(v4).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            }),
            IpAddr::V6(v6) => {
                let ipi6_addr = libc::in6_addr { s6_addr: v6.octets() };
                Self::V6(libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 })
            }
        }
    }

    fn control_message(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }
}

/// Headers for one batch in one direction, with space for a control message only where one is used.
fn headers(socket_address: SocketAddr) -> MultiHeaders<SockaddrStorage> {
    let control = match socket_address {
        _ if !socket_address.ip().is_unspecified() => None,
        SocketAddr::V4(_) => Some(cmsg_space!(libc::in_pktinfo)),
        SocketAddr::V6(_) => Some(cmsg_space!(libc::in6_pktinfo)),
    };
    MultiHeaders::preallocate(BATCH, control)
}

/// The destination of a datagram. Unspecified lets the kernel choose the reply's source.
fn asked_address(message: &RecvMsg<'_, '_, SockaddrStorage>, socket: SocketAddr) -> IpAddr {
    let unknown = match socket {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let Ok(mut messages) = message.cmsgs() else { return unknown };
    let destination = messages.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(u32::from_be(info.ipi_spec_dst.s_addr).into())),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
        _ => None,
    });
    destination.unwrap_or(unknown)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

    use super::*;

    #[test]
    fn a_reply_that_the_kernel_refuses_does_not_stop_the_others() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut batch = SendBatch::new(server.local_addr().unwrap());
        for number in 0..5 {
            // No datagram can go to port 0.
            let port = if number == 1 { 0 } else { client.local_addr().unwrap().port() };
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            batch.push(to, to.ip(), |out| {
                out.clear();
                out.push(number);
                number != 3
            });
        }
        assert_eq!(batch.send(server.as_fd()), 1);
        let mut octet = [0];
        for expected in [0, 2, 4] {
            assert_eq!(client.recv(&mut octet).unwrap(), 1);
            assert_eq!(octet, [expected]);
        }
        assert_eq!(batch.send(server.as_fd()), 0, "nothing is left over");
    }

    #[test]
    fn a_datagram_that_is_too_long_is_cut() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let mut received = ReceiveBatch::new(address);
        assert_eq!(received.receive(server.as_fd(), Wait::Never).unwrap_err(), Errno::EAGAIN);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(&[7; 4000], address).unwrap();
        client.send_to(&[8; 3], address).unwrap();
        let mut lengths = Vec::new();
        while lengths.len() < 2 {
            received.receive(server.as_fd(), Wait::ForOne).unwrap();
            lengths.extend(received.arrivals().map(|(arrival, message)| (arrival.client, message.len())));
        }
        let from = client.local_addr().unwrap();
        assert_eq!(lengths, [(from, DATAGRAM_OCTETS), (from, 3)]);
    }
}

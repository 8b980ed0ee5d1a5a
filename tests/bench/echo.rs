//! Sends every datagram back: `echo ADDRESS`.
//!
//! It receives and sends as the server's UDP worker does, in batches and buffers of the same size, and
//! only marks each message as a reply in between. So it is the lower bound: the time that a DNS server takes
//! beyond it is for DNS.

use std::{
    array, env,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg},
};
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams per system call, as in `server::udp::batch`.
const BATCH: usize = 32;

/// Octets kept of a datagram, as there.
const DATAGRAM_OCTETS: usize = 1232;

/// Octets that the kernel may queue, as in `server::udp`.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;

/// The octet of a DNS header with the flag QR, and the flag.
const REPLY_FLAG: (usize, u8) = (2, 0x80);

fn main() -> io::Result<()> {
    let Some(address) = env::args().nth(1).and_then(|address| address.parse().ok()) else {
        println!("echo ADDRESS: sends every datagram back; see tests/bench/peers");
        return Ok(());
    };
    let socket = bind(address)?;
    let mut headers = [MultiHeaders::preallocate(BATCH, None), MultiHeaders::preallocate(BATCH, None)];
    let mut buffers = vec![[0; DATAGRAM_OCTETS]; BATCH];
    loop {
        match echo_batch(socket.as_raw_fd(), &mut headers, &mut buffers) {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn echo_batch(
    socket: RawFd,
    [inbox, outbox]: &mut [MultiHeaders<SockaddrStorage>; 2],
    buffers: &mut [[u8; DATAGRAM_OCTETS]],
) -> Result<(), Errno> {
    let mut arrivals = [(None, 0); BATCH];
    let mut count = 0;
    {
        let mut free = buffers.iter_mut();
        let mut slices: [_; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(free.next().map_or(&mut [][..], |buffer| &mut buffer[..]))]);
        for message in recvmmsg(socket, inbox, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None)? {
            arrivals[count] = (message.address, message.bytes);
            count += 1;
        }
    }
    for buffer in &mut buffers[..count] {
        buffer[REPLY_FLAG.0] |= REPLY_FLAG.1;
    }
    let clients: [_; BATCH] = array::from_fn(|at| arrivals[at].0);
    let slices: [_; BATCH] = array::from_fn(|at| [IoSlice::new(&buffers[at][..arrivals[at].1])]);
    sendmmsg(socket, outbox, slices.iter().take(count), &clients[..count], [], MsgFlags::empty())?;
    Ok(())
}

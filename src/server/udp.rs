//! UDP: one socket for each thread, a batch of datagrams per system call.

pub(super) mod batch;
pub(super) mod ending;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::{
    batch::{Arrival, ReceiveBatch, SendBatch, SourceAddress, Wait},
    ending::{Ending, Member, Phase},
};
use super::{forward::ReplyTo, query_log::Exchange, service::Service};
use crate::{
    answer::{Answered, Client, Worker},
    metrics::{IgnoreReason, Transport},
    systemd::watchdog::Beat,
    table::ZoneTable,
    transfer::{Sender, TransferAnswer},
    types::{unix_now, unix_seconds},
};

/// How long a thread waits for a datagram before it checks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// The same for a thread that waits until the others have noticed that the process ends.
const HAND_OVER_CHECK: Duration = Duration::from_millis(5);

/// How long a thread waits for the others. They notice it within [`STOP_CHECK`], unless the cores are busy.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);

/// How long a stopping thread still answers while datagrams keep arriving. The queued ones take a few milliseconds.
const DRAIN_MAX: Duration = Duration::from_millis(300);

/// The pause after an error of the system (no memory, for instance), so that the thread does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Octets that the kernel may queue for one socket, twice that with its own bookkeeping. The default of 208 kB holds
/// some 270 small datagrams, which a burst fills while the thread waits for a core. The kernel cuts it to
/// `net.core.rmem_max`.
const RECEIVE_BUFFER_OCTETS: usize = 4 << 20;

/// Binds one of several sockets that share an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    set_options(&socket, address)?;
    super::bind_free(&socket, address)?;
    Ok(socket)
}

/// Sets what a thread needs, also on a socket that another process has bound.
pub(super) fn set_options(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(STOP_CHECK))?;
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_OCTETS) {
        tracing::debug!(%address, %error, "the receive buffer keeps its size");
    }
    // Before the first datagram can arrive, so that each one comes with its destination address.
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    Ok(())
}

/// What one thread needs to answer from one socket.
pub(super) struct UdpWorker {
    /// Shared with forwarded questions, whose replies come later than those of their batch.
    pub(super) socket: Arc<Socket>,
    pub(super) address: SocketAddr,
    pub(super) service: Service,
    pub(super) ending: Ending,
    pub(super) member: Member,
    pub(super) beat: Beat,
}

/// Buffers of one thread.
struct Batches {
    received: ReceiveBatch,
    replies: SendBatch,
    worker: Worker,
}

impl UdpWorker {
    /// Answers until it is to end, then what is queued. No error of the network ends it.
    pub(super) fn run(mut self) {
        let (received, replies) = (ReceiveBatch::new(self.address), SendBatch::new(self.address));
        let mut batches = Batches { received, replies, worker: Worker::new() };
        let mut last_error = LastError::default();
        while self.ending.phase() == Phase::Serve && !self.member.is_requested() {
            self.beat.beat();
            match self.answer(&mut batches, Wait::ForOne) {
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => last_error.report(self.address, error),
            }
        }
        if self.ending.phase() == Phase::Close {
            self.refuse_more();
        } else {
            self.await_the_others(&mut batches);
        }
        let deadline = Instant::now() + DRAIN_MAX;
        while Instant::now() < deadline {
            match self.answer(&mut batches, Wait::Never) {
                Ok(()) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
    }

    /// Answers until every thread has noticed that the process ends. What arrives later waits in the socket for the next
    /// process.
    fn await_the_others(&mut self, batches: &mut Batches) {
        self.member.notice();
        if self.socket.set_read_timeout(Some(HAND_OVER_CHECK)).is_err() {
            return;
        }
        let deadline = Instant::now() + HAND_OVER_MAX;
        while self.member.is_requested() && !self.member.all_are_aware() && Instant::now() < deadline {
            if let Err(error) = self.answer(batches, Wait::ForOne)
                && !matches!(error, Errno::EAGAIN | Errno::EINTR)
            {
                return;
            }
        }
    }

    /// Answers a batch of datagrams.
    fn answer(&self, batches: &mut Batches, wait: Wait) -> Result<(), Errno> {
        let Batches { received, replies, worker } = batches;
        received.receive(self.fd(), wait)?;
        self.answer_batch(received, replies, worker);
        Ok(())
    }

    fn answer_batch(&self, received: &mut ReceiveBatch, replies: &mut SendBatch, worker: &mut Worker) {
        {
            // Once for the whole batch.
            let table = self.service.table().now();
            let responder = self.service.responder(&table);
            let now = unix_now();
            let query_log = self.service.query_log();
            let is_logged = query_log.is_on();
            let transfers = self.service.transfers_zones();
            for (arrival, message) in received.arrivals() {
                if let Some(reason) = ignored_port(arrival.client.port()) {
                    self.service.counters().ignored.of(reason).increment();
                    continue;
                }
                let client = Client { address: arrival.client.ip(), transport: Transport::Udp, now };
                replies.push(arrival.client, arrival.local, |out| {
                    let began = is_logged.then(Instant::now);
                    if transfers && self.answers_secondary(message, &client, &table, out) {
                        return true;
                    }
                    let answered = match responder.answer(message, &client, worker, out) {
                        Answered::Forward => self.service.forward(message, &client, self.reply_to(arrival), out),
                        answered => answered,
                    };
                    if let (Some(began), Answered::Reply) = (began, answered) {
                        query_log.observe(&Exchange { message, client: &client, reply: out, began }, &table);
                    }
                    answered == Answered::Reply
                });
            }
        }
        let lost = replies.send(self.fd());
        self.service.counters().send_errors.add(lost);
    }

    /// Whether a message came from a secondary, and is answered with one message, as all over UDP are.
    fn answers_secondary(&self, message: &[u8], client: &Client, table: &ZoneTable, out: &mut Vec<u8>) -> bool {
        let Client { address, transport, .. } = *client;
        let sender = Sender { address, transport, is_old_tls: false, now: unix_seconds() };
        matches!(self.service.answer_secondary(message, &sender, table, out), TransferAnswer::Reply)
    }

    fn reply_to(&self, arrival: &Arrival) -> ReplyTo {
        ReplyTo::Datagram {
            socket: self.socket.clone(),
            client: arrival.client,
            source: self.address.ip().is_unspecified().then(|| SourceAddress::new(arrival.local)),
        }
    }

    /// Connects the socket to itself, whereupon the kernel queues nothing more: what arrives later goes to the other
    /// sockets of the address, or is refused at once where none is left. What is queued stays.
    fn refuse_more(&self) {
        let local = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        let target = local.map(|address| match address {
            SocketAddr::V4(v4) if v4.ip().is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, v4.port()).into(),
            SocketAddr::V6(v6) if v6.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, v6.port()).into(),
            specific => specific,
        });
        if let Some(target) = target
            && let Err(error) = self.socket.connect(&SockAddr::from(target))
        {
            // Then a datagram that comes between the last read and the close is lost, as it would be without this step.
            tracing::debug!(address = %self.address, %error, "the closing socket goes on receiving");
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Ports of services that reply to every datagram: echo, daytime, quote of the day, chargen (RFC 862, 867, 865, 864).
const REPLYING_PORTS: [u16; 4] = [7, 13, 17, 19];

/// Why a datagram from this port gets no reply; `None`: it is answered.
fn ignored_port(port: u16) -> Option<IgnoreReason> {
    match port {
        0 => Some(IgnoreReason::PortZero),
        port if REPLYING_PORTS.contains(&port) => Some(IgnoreReason::ServicePort),
        _ => None,
    }
}

/// The last error of a socket, which is logged once and not for every call.
#[derive(Default)]
struct LastError(Option<Errno>);

impl LastError {
    fn report(&mut self, address: SocketAddr, error: Errno) {
        if self.0.replace(error) != Some(error) {
            tracing::warn!(%address, %error, "cannot receive datagrams; trying on");
        }
        thread::sleep(ERROR_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_reply_to_everything_get_no_reply() {
        let ignored: Vec<_> = (0..=u16::MAX).filter(|port| ignored_port(*port).is_some()).collect();
        assert_eq!(ignored, [0, 7, 13, 17, 19]);
    }
}

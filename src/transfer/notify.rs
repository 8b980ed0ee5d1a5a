//! NOTIFY messages to one secondary, and its answers (RFC 1996).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    progress::DueNotify,
    render::MessageWriter,
    tsig::{Mac, TsigKey},
    wire::{HEADER_OCTETS, OPCODE_NOTIFY, Parsed, parse},
};

/// Messages to one secondary that wait for its answer. Those of more zones wait for a free place.
pub(super) const IN_FLIGHT_MAX: usize = 128;

/// After this an answer is of no use: the notification was sent again long ago, or is acknowledged.
const FORGET_AFTER: Duration = Duration::from_secs(10);

/// Octets of an answer that are read: header, question and TSIG record are fewer.
const REPLY_OCTETS_MAX: usize = 1232;

/// The socket to a secondary, and the messages that wait for an answer.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: UdpSocket,
    awaited: Awaited,
}

/// Messages that wait for an answer, by identity.
#[derive(Debug, Default)]
struct Awaited(FxHashMap<u16, InFlight>);

/// A message that waits for an answer.
#[derive(Debug)]
struct InFlight {
    notify: DueNotify,
    question: Vec<u8>,
    mac: Mac,
    sent: Instant,
}

/// What a datagram of a secondary is.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum NotifyReply {
    /// The notification is acknowledged.
    Acknowledged(DueNotify),
    /// The secondary answers with this RCODE.
    Refused(DueNotify, u8),
    /// It answers no message of ours, or is not signed as it must be.
    Ignored,
}

impl NotifySocket {
    /// Opens a socket. Its address is one of those that secondaries know this server by, if it has one of their family.
    pub(super) fn open(secondary: SocketAddr, listen: &[SocketAddr]) -> io::Result<Self> {
        let addresses: Vec<_> = sources(secondary.ip(), listen).map(|source| SocketAddr::new(source, 0)).collect();
        // The first that the host has.
        let socket = UdpSocket::bind(&*addresses)?;
        // The kernel takes datagrams of no other sender from then on.
        socket.connect(secondary)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, awaited: Awaited::default() })
    }

    /// How many more messages may be sent.
    pub(super) fn free(&mut self, now: Instant) -> usize {
        self.awaited.0.retain(|_, waits| now.saturating_duration_since(waits.sent) < FORGET_AFTER);
        IN_FLIGHT_MAX.saturating_sub(self.awaited.0.len())
    }

    /// Sends a notification. `seconds` is the unix time.
    pub(super) fn send(&mut self, notify: DueNotify, key: &TsigKey, now: Instant, seconds: u64) -> io::Result<()> {
        let id = self.awaited.unused_id();
        let (message, waits) = InFlight::new(id, notify, key, now, seconds);
        self.socket.send(&message)?;
        self.awaited.0.insert(id, waits);
        Ok(())
    }

    /// The next datagram of the secondary; `None`: there is none now.
    pub(super) fn receive(&mut self, key: &TsigKey, seconds: u64) -> Option<NotifyReply> {
        let mut buffer = [0; REPLY_OCTETS_MAX];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(octets) => return Some(self.awaited.take(buffer.get(..octets).unwrap_or_default(), key, seconds)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // The secondary's host refused an earlier datagram: the message counts as not acknowledged in its time.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }
}

impl InFlight {
    /// The message with this identity, and what its answer must be like.
    fn new(id: u16, notify: DueNotify, key: &TsigKey, now: Instant, seconds: u64) -> (Vec<u8>, Self) {
        let mut message = MessageWriter::notify(id, &notify.zone).finish(false);
        let question = message.get(HEADER_OCTETS..).unwrap_or_default().to_vec();
        let mac = key.sign(&mut message, None, seconds);
        (message, Self { notify, question, mac, sent: now })
    }
}

impl Awaited {
    /// Judges a datagram. Only one that is an answer to a message of ours ends its wait.
    fn take(&mut self, datagram: &[u8], key: &TsigKey, seconds: u64) -> NotifyReply {
        let Parsed::Message(reply) = parse(datagram) else { return NotifyReply::Ignored };
        let (Some(waits), Some(tsig)) = (self.0.get(&reply.id), &reply.tsig) else {
            return NotifyReply::Ignored;
        };
        let is_answer = reply.is_reply() && reply.opcode() == OPCODE_NOTIFY;
        if !is_answer || !reply.question.eq_ignore_ascii_case(&waits.question) {
            return NotifyReply::Ignored;
        }
        // Also errors: an unsigned one says nothing that a stranger could not say.
        if key.verify(datagram, tsig, Some(&waits.mac), seconds).is_err() {
            return NotifyReply::Ignored;
        }
        let code = reply.reply_code();
        match self.0.remove(&reply.id) {
            Some(waits) if code == 0 => NotifyReply::Acknowledged(waits.notify),
            Some(waits) => NotifyReply::Refused(waits.notify, code),
            None => NotifyReply::Ignored,
        }
    }

    /// An identity that cannot be predicted, and that no message on the way has.
    fn unused_id(&self) -> u16 {
        loop {
            let id = rand::random();
            // At most IN_FLIGHT_MAX of 65,536 are in use.
            if !self.0.contains_key(&id) {
                return id;
            }
        }
    }
}

/// The addresses that messages to a secondary may come from, the best first: those of `listen` that can reach it, of which the
/// host may lack some now; else the system chooses.
fn sources(secondary: IpAddr, listen: &[SocketAddr]) -> impl Iterator<Item = IpAddr> {
    let reaches = move |own: &IpAddr| {
        own.is_ipv4() == secondary.is_ipv4() && !own.is_unspecified() && own.is_loopback() == secondary.is_loopback()
    };
    let any = if secondary.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    listen.iter().map(SocketAddr::ip).filter(reaches).chain([any])
}

/// Whether a datagram acknowledges or refuses the notification with identity 7 of the root zone, signed at `now`. Public so that
/// a fuzzer can send any.
#[doc(hidden)]
pub fn is_notify_reply(datagram: &[u8], key: &TsigKey, now: u64) -> bool {
    let notify = DueNotify { zone: crate::types::ZoneName::root(), secondary: 0, serial: 1 };
    let (_, waits) = InFlight::new(7, notify, key, Instant::now(), now);
    Awaited(FxHashMap::from_iter([(7, waits)])).take(datagram, key, now) != NotifyReply::Ignored
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            tsig::tests::{NOW, key},
            wire::ReplyCode,
        },
        *,
    };
    use crate::types::ZoneName;

    fn due() -> DueNotify {
        DueNotify { zone: ZoneName::parse("a.example").unwrap(), secondary: 0, serial: 5 }
    }

    /// The socket of a primary that has notified a secondary, and the message.
    fn notified() -> (NotifySocket, Vec<u8>, UdpSocket) {
        let secondary = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        secondary.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut primary = NotifySocket::open(secondary.local_addr().unwrap(), &[]).unwrap();
        primary.send(due(), &key("k.example"), Instant::now(), NOW).unwrap();
        let mut buffer = [0; 1232];
        let (octets, from) = secondary.recv_from(&mut buffer).unwrap();
        secondary.connect(from).unwrap();
        (primary, buffer[..octets].to_vec(), secondary)
    }

    /// A signed answer to a notification.
    fn reply(message: &[u8], code: ReplyCode, key: &TsigKey) -> Vec<u8> {
        let Parsed::Message(request) = parse(message) else { panic!() };
        let mac = key.verify(message, request.tsig.as_ref().unwrap(), None, NOW).unwrap();
        let mut reply = MessageWriter::reply(&request, code, &[]).finish(false);
        key.sign(&mut reply, Some(&mac), NOW);
        reply
    }

    #[test]
    fn a_signed_answer_acknowledges_once() {
        let key = key("k.example");
        let (mut primary, message, secondary) = notified();
        assert_eq!(primary.free(Instant::now()), IN_FLIGHT_MAX - 1);
        let answer = reply(&message, ReplyCode::NoError, &key);
        secondary.send(&answer).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let taken = loop {
            if let Some(taken) = primary.receive(&key, NOW) {
                break taken;
            }
            assert!(Instant::now() < deadline);
        };
        assert_eq!(taken, NotifyReply::Acknowledged(due()));
        assert_eq!(primary.awaited.take(&answer, &key, NOW), NotifyReply::Ignored, "it has come already");
        assert_eq!(primary.free(Instant::now()), IN_FLIGHT_MAX);
        let (mut primary, message, _) = notified();
        let refusal = reply(&message, ReplyCode::Refused, &key);
        assert_eq!(primary.awaited.take(&refusal, &key, NOW), NotifyReply::Refused(due(), 5));
    }

    #[test]
    fn forged_answers_are_ignored_and_the_true_one_still_counts() {
        let ours = key("k.example");
        let (mut primary, message, _) = notified();
        let good = reply(&message, ReplyCode::NoError, &ours);
        let changed = |at: usize, to: u8| {
            let mut forged = good.clone();
            forged[at] = to;
            forged
        };
        let Parsed::Message(parsed) = parse(&good) else { panic!() };
        let mut unsigned = good[..parsed.tsig.unwrap().start].to_vec();
        unsigned[11] = 0;
        let mut elsewhere = MessageWriter::notify(0, &ZoneName::parse("b.example").unwrap()).finish(false);
        elsewhere[..3].copy_from_slice(&[good[0], good[1], good[2]]);
        ours.sign(&mut elsewhere, None, NOW);
        let forged = [
            changed(0, good[0] ^ 1),
            changed(2, good[2] & 0x7F),
            changed(2, 0x80),
            changed(3, 5),
            changed(13, b'b'),
            changed(good.len() - 7, good[good.len() - 7] ^ 1),
            unsigned,
            elsewhere,
            message,
            Vec::new(),
        ];
        for datagram in forged {
            assert_eq!(primary.awaited.take(&datagram, &ours, NOW), NotifyReply::Ignored, "{datagram:?}");
        }
        assert_eq!(primary.awaited.take(&good, &ours, NOW + 1000), NotifyReply::Ignored, "it is old");
        assert_eq!(primary.awaited.take(&good, &key("other"), NOW), NotifyReply::Ignored, "the key is another one now");
        assert_eq!(primary.awaited.take(&good, &ours, NOW), NotifyReply::Acknowledged(due()));
    }

    #[test]
    fn messages_come_from_an_address_that_secondaries_know() {
        let listen = ["127.0.0.1:53", "[::1]:53", "0.0.0.0:53", "192.0.2.1:53", "192.0.2.9:53"];
        let listen = listen.map(|text| text.parse().unwrap());
        let of = |text: &str| {
            let sources = sources(text.parse().unwrap(), &listen).map(|source| source.to_string());
            sources.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            ["127.0.0.5", "198.51.100.7", "::1", "2001:db8::1"].map(of),
            ["127.0.0.1 0.0.0.0", "192.0.2.1 192.0.2.9 0.0.0.0", "::1 ::", "::"]
        );
    }

    #[test]
    fn an_address_that_the_host_lacks_now_keeps_no_notification_back() {
        let listen = ["127.0.0.1:53", "192.0.2.1:53"].map(|text| text.parse().unwrap());
        assert!(NotifySocket::open("198.51.100.7:53".parse().unwrap(), &listen).is_ok());
    }
}

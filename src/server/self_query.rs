//! Asks this server's own sockets over UDP and TCP, as a client does.
//!
//! The query has no question and asks for a server cookie (RFC 7873, 5.4): its reply depends on no zone, upstream or
//! list of clients. It is asked over TCP first, which has no rate limit, and with the cookie from there over UDP, where
//! a client with a valid cookie is not limited.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::has_address;
use crate::answer::wire::{FLAG_RESPONSE, HEADER_OCTETS, OPTION_COOKIE, TYPE_OPT, UDP_OCTETS_MAX};

/// How long a socket may take to answer. It takes a millisecond; a client asks another server after some seconds.
pub const SELF_QUERY_TIME_MAX: Duration = Duration::from_secs(1);

/// Between two datagrams of one query: a queue that is full for a moment may lose one.
const RESEND_AFTER: Duration = Duration::from_millis(250);

/// A client cookie, and one with the server's part (RFC 7873, 4; RFC 9018, 4).
const CLIENT_COOKIE_OCTETS: usize = 8;
const COOKIE_OCTETS: usize = 24;

/// The OPT record up to its length: the root, type OPT, the payload size, no extended rcode, version 0, no flags.
const OPT_HEAD: [u8; 9] = {
    let [type_high, type_low] = TYPE_OPT.to_be_bytes();
    let [size_high, size_low] = UDP_OCTETS_MAX.to_be_bytes();
    [0, type_high, type_low, size_high, size_low, 0, 0, 0, 0]
};

/// A socket of this server that does not answer.
#[derive(Debug, thiserror::Error)]
#[error("its {transport} socket on {address} did not answer: {reason}")]
pub struct Unanswered {
    transport: &'static str,
    /// As it is bound.
    address: SocketAddr,
    reason: io::Error,
}

/// Asks every address that this host has now over UDP and TCP: one that moves between hosts, and is elsewhere, is not
/// missing here.
///
/// # Errors
/// The first socket that gives no DNS reply within [`SELF_QUERY_TIME_MAX`], or no address is here.
pub async fn self_query(listen: &[SocketAddr]) -> Result<(), Unanswered> {
    let here: Vec<_> = listen.iter().copied().filter(|address| has_address(*address)).collect();
    if let (Some(&address), true) = (listen.first(), here.is_empty()) {
        let reason = io::Error::other("no interface of this host has the address");
        return Err(Unanswered { transport: "UDP", address, reason });
    }
    let outcomes = join_all(here.into_iter().map(query_both)).await;
    outcomes.into_iter().collect()
}

async fn query_both(address: SocketAddr) -> Result<(), Unanswered> {
    let target = reachable(address);
    let unanswered = |transport| move |reason| Unanswered { transport, address, reason };
    let client_cookie: [u8; CLIENT_COOKIE_OCTETS] = rand::random();
    let reply = in_time(query_tcp(target, &Query::new(&client_cookie))).await.map_err(unanswered("TCP"))?;
    let cookie = server_cookie(&reply, &client_cookie).unwrap_or(&client_cookie);
    in_time(query_udp(target, &Query::new(cookie))).await.map_err(unanswered("UDP"))
}

/// A wildcard address is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    if address.ip().is_unspecified() { SocketAddr::new(loopback, address.port()) } else { address }
}

async fn in_time<T>(query: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::other(format!("no reply within {SELF_QUERY_TIME_MAX:?}"));
    timeout(SELF_QUERY_TIME_MAX, query).await.map_err(late)?
}

/// A query with a random identifier.
struct Query {
    id: [u8; 2],
    octets: Vec<u8>,
}

impl Query {
    fn new(cookie: &[u8]) -> Self {
        let id: [u8; 2] = rand::random();
        // The cookie has 8 or 24 octets.
        let length = cookie.len() as u16;
        let mut octets = id.to_vec();
        octets.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        octets.extend(OPT_HEAD);
        octets.extend((length + 4).to_be_bytes());
        octets.extend(OPTION_COOKIE.to_be_bytes());
        octets.extend(length.to_be_bytes());
        octets.extend(cookie);
        Self { id, octets }
    }

    /// Whether a message is the reply; any rcode will do.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        message.len() >= HEADER_OCTETS && message[..2] == self.id && message[2] & FLAG_RESPONSE != 0
    }
}

/// The cookie that ends the reply, unless the reply has none.
fn server_cookie<'r>(reply: &'r [u8], client_cookie: &[u8]) -> Option<&'r [u8]> {
    let cookie = reply.last_chunk::<COOKIE_OCTETS>()?;
    cookie.starts_with(client_cookie).then_some(cookie)
}

async fn query_tcp(target: SocketAddr, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(target).await?;
    // A query has 35 or 51 octets.
    let mut framed = (query.octets.len() as u16).to_be_bytes().to_vec();
    framed.extend(&query.octets);
    stream.write_all(&framed).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    if query.is_answered_by(&reply) { Ok(reply) } else { Err(io::Error::other("its reply is not a DNS reply")) }
}

async fn query_udp(target: SocketAddr, query: &Query) -> io::Result<()> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    let send = async {
        loop {
            socket.send(&query.octets).await?;
            sleep(RESEND_AFTER).await;
        }
    };
    let receive = async {
        let mut reply = [0; UDP_OCTETS_MAX as usize];
        loop {
            let length = socket.recv(&mut reply).await?;
            if query.is_answered_by(&reply[..length]) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        failed = send => failed,
        received = receive => received,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a socket of a test does with queries.
    #[derive(Clone, Copy, PartialEq)]
    enum Behaviour {
        Answers,
        Silent,
        Garbage,
    }

    fn reply(query: &[u8], behaviour: Behaviour) -> Vec<u8> {
        let mut reply = query.to_vec();
        if behaviour == Behaviour::Answers {
            reply[2] |= FLAG_RESPONSE;
        }
        reply
    }

    /// A server that answers over TCP and UDP as stated; over UDP not the first datagram.
    async fn serve(tcp: Behaviour, udp: Behaviour) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                if tcp == Behaviour::Silent {
                    std::future::pending::<()>().await;
                }
                stream.write_u16(query.len() as u16).await.unwrap();
                stream.write_all(&reply(&query, tcp)).await.unwrap();
            }
        });
        tokio::spawn(async move {
            let mut query = [0; 512];
            for number in 0.. {
                let (length, client) = socket.recv_from(&mut query).await.unwrap();
                if udp != Behaviour::Silent && number > 0 {
                    socket.send_to(&reply(&query[..length], udp), client).await.unwrap();
                }
            }
        });
        address
    }

    async fn outcome(tcp: Behaviour, udp: Behaviour) -> Result<(), String> {
        let address = serve(tcp, udp).await;
        let good = serve(Behaviour::Answers, Behaviour::Answers).await;
        let outcome = self_query(&[good, address]).await;
        outcome.map_err(|error| error.to_string().replace(&address.to_string(), "ADDRESS"))
    }

    #[tokio::test]
    async fn a_socket_that_does_not_answer_is_named() {
        use Behaviour::{Answers, Garbage, Silent};
        let unanswered = |transport, reason| Err(format!("its {transport} socket on ADDRESS did not answer: {reason}"));
        assert_eq!(outcome(Answers, Answers).await, Ok(()), "also when a datagram is lost");
        assert_eq!(outcome(Answers, Silent).await, unanswered("UDP", "no reply within 1s"));
        assert_eq!(outcome(Answers, Garbage).await, unanswered("UDP", "no reply within 1s"));
        assert_eq!(outcome(Silent, Answers).await, unanswered("TCP", "no reply within 1s"));
        assert_eq!(outcome(Garbage, Answers).await, unanswered("TCP", "its reply is not a DNS reply"));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(self_query(&[closed]).await.unwrap_err().to_string().contains("its TCP socket"));
    }

    #[test]
    fn a_wildcard_is_asked_on_loopback() {
        for (bound, asked) in
            [("0.0.0.0:53", "127.0.0.1:53"), ("[::]:53", "[::1]:53"), ("192.0.2.1:53", "192.0.2.1:53")]
        {
            assert_eq!(reachable(bound.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn the_query_is_one_that_is_always_answered() {
        let query = Query::new(&[7; CLIENT_COOKIE_OCTETS]);
        let parsed = crate::answer::parse(&query.octets);
        assert!(matches!(parsed, crate::answer::Parsed::Reject { .. }), "a reply without records: {parsed:?}");
        let mut reply = query.octets.clone();
        reply.extend([1; COOKIE_OCTETS - CLIENT_COOKIE_OCTETS]);
        assert_eq!(server_cookie(&reply, &[7; CLIENT_COOKIE_OCTETS]).unwrap().len(), COOKIE_OCTETS);
        assert_eq!(server_cookie(&query.octets, &[7; CLIENT_COOKIE_OCTETS]), None);
    }
}

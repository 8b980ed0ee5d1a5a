//! A small upstream resolver: UDP, TCP or TLS on one port of loopback, a fixed set of names, and a record of what it
//! was asked.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use hickory_server::proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA, TXT},
    },
};

/// Between two looks at whether it should end.
const LOOK: Duration = Duration::from_millis(20);

/// Octets of each text of `TXT` records here.
const TEXT_OCTETS: usize = 100;

/// A running resolver; dropping it ends it.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    silent: AtomicBool,
    ended: AtomicBool,
    /// Milliseconds from a question to its reply.
    delay: AtomicU64,
    /// Name, type and transport of every question, and "signed" where signatures were asked for.
    asked: Mutex<Vec<String>>,
}

impl Upstream {
    /// On a free port of this address, over UDP and TCP.
    pub fn start(ip: impl Into<IpAddr>) -> Self {
        let (udp, tcp) = sockets(ip.into());
        let address = udp.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        udp.set_read_timeout(Some(LOOK)).unwrap();
        let over_udp = shared.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !over_udp.ended.load(Relaxed) {
                if let Ok((length, client)) = udp.recv_from(&mut buffer)
                    && let Some(reply) = over_udp.reply(&buffer[..length], "udp")
                {
                    let _ = udp.send_to(&reply, client);
                }
            }
        });
        let over_tcp = shared.clone();
        thread::spawn(move || over_tcp.accept(&tcp, "tcp", Ok));
        Self { address, shared }
    }

    /// On a free port of this address, over TLS alone.
    pub fn start_tls(ip: impl Into<IpAddr>, config: Arc<rustls::ServerConfig>) -> Self {
        let tcp = TcpListener::bind((ip.into(), 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let over_tls = shared.clone();
        thread::spawn(move || {
            over_tls.accept(&tcp, "tls", move |stream| {
                let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Ok(rustls::StreamOwned::new(connection, stream))
            });
        });
        Self { address, shared }
    }

    /// Takes questions and answers none, or answers again.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.store(silent, Relaxed);
    }

    /// Takes so long for each reply from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay.store(u64::try_from(delay.as_millis()).unwrap(), Relaxed);
    }

    /// What it was asked so far, each as `name type transport`, with `signed` behind it for the flag DO.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
    }
}

/// A port that is free for UDP and TCP.
fn sockets(ip: IpAddr) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind((ip, 0)).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

impl Shared {
    fn accept<S: Read + Write>(
        self: &Arc<Self>,
        listener: &TcpListener,
        transport: &'static str,
        wrap: impl Fn(std::net::TcpStream) -> io::Result<S> + Clone + Send + 'static,
    ) {
        listener.set_nonblocking(true).unwrap();
        while !self.ended.load(Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                thread::sleep(LOOK);
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            let shared = self.clone();
            let wrap = wrap.clone();
            thread::spawn(move || wrap(stream).and_then(|stream| shared.converse(stream, transport)));
        }
    }

    fn converse(&self, mut stream: impl Read + Write, transport: &str) -> io::Result<()> {
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut message = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut message)?;
            if let Some(reply) = self.reply(&message, transport) {
                let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &reply].concat())?;
                stream.flush()?;
            }
        }
    }

    fn reply(&self, message: &[u8], transport: &str) -> Option<Vec<u8>> {
        let asked = Message::from_vec(message).ok()?;
        let query = asked.queries.first()?;
        let signed = if asked.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok) { " signed" } else { "" };
        self.asked.lock().unwrap().push(format!("{} {} {transport}{signed}", query.name(), query.query_type()));
        if self.silent.load(Relaxed) {
            return None;
        }
        thread::sleep(Duration::from_millis(self.delay.load(Relaxed)));
        let mut reply = Message::response(asked.metadata.id, OpCode::Query);
        reply.metadata.recursion_desired = asked.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.add_query(query.clone());
        fill(&mut reply, query);
        let limit = asked.edns.as_ref().map_or(512, |edns| usize::from(edns.max_payload()).max(512));
        let mut octets = reply.to_vec().unwrap();
        if transport == "udp" && octets.len() > limit {
            reply.answers.clear();
            reply.metadata.truncation = true;
            octets = reply.to_vec().unwrap();
        }
        Some(octets)
    }
}

/// What it knows: `a.test` and names that begin with "any" have an address, `alias.test` leads to `a.test`,
/// `dead-end.test` to nothing, `empty.test` exists, `middle.test` and `big.test` have much text, `broken.test` cannot be
/// resolved; nothing else exists.
fn fill(reply: &mut Message, query: &Query) {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let record = |owner: &str, ttl, data| Record::from_rdata(name(owner), ttl, data);
    let address = |owner: &str| record(owner, 60, RData::A(A::new(192, 0, 2, 1)));
    let alias = |owner, target| record(owner, 50, RData::CNAME(CNAME(name(target))));
    let soa = SOA::new(name("ns.test."), name("mail.test."), 7, 60, 10, 3600, 20);
    let denial = record("test.", 30, RData::SOA(soa));
    let text = |count| (0..count).map(|n| TXT::new(vec![format!("{n:0TEXT_OCTETS$}")]));
    let asked = query.name().to_ascii().to_lowercase();
    match (asked.as_str(), query.query_type()) {
        ("a.test.", RecordType::A) => reply.answers.push(address("a.test.")),
        (any, RecordType::A) if any.starts_with("any") => reply.answers.push(address(any)),
        ("alias.test.", RecordType::A) => reply.answers.extend([alias("alias.test.", "a.test."), address("a.test.")]),
        ("dead-end.test.", RecordType::A) => {
            reply.answers.push(alias("dead-end.test.", "nothing.test."));
            reply.authorities.push(denial);
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        ("middle.test.", RecordType::TXT) => {
            reply.answers.extend(text(8).map(|text| record("middle.test.", 60, RData::TXT(text))));
        }
        ("big.test.", RecordType::TXT) => {
            reply.answers.extend(text(200).map(|text| record("big.test.", 60, RData::TXT(text))));
        }
        ("broken.test.", _) => reply.metadata.response_code = ResponseCode::ServFail,
        ("a.test." | "alias.test." | "empty.test.", _) => reply.authorities.push(denial),
        _ => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities.push(denial);
        }
    }
}

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

/// How long names that begin with "slow" take where they are slow. The next upstream is asked before that.
pub const SLOW: Duration = Duration::from_millis(1200);

/// How a server that does not know EDNS replies to a question with an OPT.
#[derive(Clone, Copy, Debug)]
pub enum Rejection {
    FormErr,
    FormErrWithoutQuestion,
    NotImp,
}

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
    has_slow_names: AtomicBool,
    /// Sends two messages before each reply that only its ID belongs to.
    forges: AtomicBool,
    /// What every reply is in place of an answer.
    only: Mutex<Option<ResponseCode>>,
    rejection: Mutex<Option<Rejection>>,
    /// Connections of an earlier generation are silent.
    generation: AtomicU64,
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
        let udp = Arc::new(udp);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !over_udp.ended.load(Relaxed) {
                let Ok((length, client)) = udp.recv_from(&mut buffer) else { continue };
                let message = buffer[..length].to_vec();
                let shared = over_udp.clone();
                let udp = udp.clone();
                // One slow name holds up no other.
                thread::spawn(move || {
                    for reply in shared.replies(&message, "udp") {
                        let _ = udp.send_to(&reply, client);
                    }
                });
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

    /// Replies with this rcode to every question, or answers again. NXDOMAIN has an SOA.
    pub fn only(&self, rcode: Option<ResponseCode>) {
        *self.shared.only.lock().unwrap() = rcode;
    }

    /// Takes [`SLOW`] for names that begin with "slow".
    pub fn slow_names(&self) {
        self.shared.has_slow_names.store(true, Relaxed);
    }

    /// Rejects questions with an OPT.
    pub fn reject_edns(&self, rejection: Rejection) {
        *self.shared.rejection.lock().unwrap() = Some(rejection);
    }

    /// Sends messages with the right ID and a wrong question, and without one, before each reply.
    pub fn forge(&self) {
        self.shared.forges.store(true, Relaxed);
    }

    /// No open connection is served any more, as if a firewall had forgotten them; new ones are.
    pub fn kill_connections_silently(&self) {
        self.shared.generation.fetch_add(1, Relaxed);
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
        let generation = self.generation.load(Relaxed);
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut message = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut message)?;
            if self.generation.load(Relaxed) != generation {
                continue;
            }
            for reply in self.replies(&message, transport) {
                let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &reply].concat())?;
                stream.flush()?;
            }
        }
    }

    /// The reply to a question, after forged ones.
    fn replies(&self, message: &[u8], transport: &str) -> Vec<Vec<u8>> {
        let Ok(asked) = Message::from_vec(message) else { return Vec::new() };
        let Some(reply) = self.reply(&asked, transport) else { return Vec::new() };
        let mut replies = Vec::new();
        if self.forges.load(Relaxed) {
            let mut forged = Message::response(asked.metadata.id, OpCode::Query);
            let name = Name::from_ascii("forged.test.").unwrap();
            forged.answers.push(Record::from_rdata(name.clone(), 60, RData::A(A::new(203, 0, 113, 66))));
            replies.push(forged.to_vec().unwrap());
            forged.add_query(Query::query(name, RecordType::A));
            replies.push(forged.to_vec().unwrap());
        }
        replies.push(reply);
        replies
    }

    fn reply(&self, asked: &Message, transport: &str) -> Option<Vec<u8>> {
        let query = asked.queries.first()?;
        let name = query.name().to_ascii().to_lowercase();
        let signed = if asked.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok) { " signed" } else { "" };
        self.asked.lock().unwrap().push(format!("{} {} {transport}{signed}", query.name(), query.query_type()));
        if self.silent.load(Relaxed) || name.starts_with("dead.") || name.contains(".dead.") {
            return None;
        }
        thread::sleep(Duration::from_millis(self.delay.load(Relaxed)));
        if name.starts_with("slow") && self.has_slow_names.load(Relaxed) {
            thread::sleep(SLOW);
        }
        let mut reply = Message::response(asked.metadata.id, OpCode::Query);
        reply.metadata.recursion_desired = asked.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        if let Some(rejection) = self.rejection.lock().unwrap().filter(|_| asked.edns.is_some()) {
            return Some(rejected(reply, query, rejection));
        }
        reply.add_query(query.clone());
        match *self.only.lock().unwrap() {
            None => fill(&mut reply, query),
            Some(rcode) => {
                reply.metadata.response_code = rcode;
                reply.authorities.extend((rcode == ResponseCode::NXDomain).then(|| denial(30)));
            }
        }
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

fn rejected(mut reply: Message, query: &Query, rejection: Rejection) -> Vec<u8> {
    reply.metadata.response_code = match rejection {
        Rejection::FormErr | Rejection::FormErrWithoutQuestion => ResponseCode::FormErr,
        Rejection::NotImp => ResponseCode::NotImp,
    };
    if !matches!(rejection, Rejection::FormErrWithoutQuestion) {
        reply.add_query(query.clone());
    }
    reply.to_vec().unwrap()
}

/// The SOA of a denial.
fn denial(ttl: u32) -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let soa = SOA::new(name("ns.test."), name("mail.test."), 7, 60, 10, 3600, ttl - 10);
    Record::from_rdata(name("test."), ttl, RData::SOA(soa))
}

/// A TTL that is longer than any that is passed on.
const WEEK: u32 = 7 * 86_400;

/// What it knows: `a.test` and names that begin with "any" or "slow" have an address, `alias.test` leads to `a.test`,
/// `dead-end.test` to nothing, names with "to-" or "zone" into zones of the server under test, `week.test` and
/// `no-week.test` have long TTLs, `empty.test` exists, `middle.test` and `big.test` have much text, `broken.test` cannot be
/// resolved; nothing else exists.
fn fill(reply: &mut Message, query: &Query) {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let record = |owner: &str, ttl, data| Record::from_rdata(name(owner), ttl, data);
    let address = |owner: &str| record(owner, 60, RData::A(A::new(192, 0, 2, 1)));
    let alias = |owner, target| record(owner, 50, RData::CNAME(CNAME(name(target))));
    let denied_for_a_week = denial(WEEK);
    let denial = denial(30);
    let elsewhere = |owner: &str| record(owner, 60, RData::A(A::new(203, 0, 113, 9)));
    let zone = "Zone.alt.example.";
    let text = |count| (0..count).map(|n| TXT::new(vec![format!("{n:0TEXT_OCTETS$}")]));
    let asked = query.name().to_ascii().to_lowercase();
    match (asked.as_str(), query.query_type()) {
        ("a.test.", RecordType::A) => reply.answers.push(address("a.test.")),
        (any, RecordType::A) if any.starts_with("any") || any.starts_with("slow") => reply.answers.push(address(any)),
        ("alias.test.", RecordType::A) => reply.answers.extend([alias("alias.test.", "a.test."), address("a.test.")]),
        ("dead-end.test.", RecordType::A) => {
            reply.answers.push(alias("dead-end.test.", "nothing.test."));
            reply.authorities.push(denial);
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        ("week.test.", RecordType::A) => {
            reply.answers.push(record("week.test.", WEEK, RData::A(A::new(192, 0, 2, 1))));
        }
        ("no-week.test.", _) => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities.push(denied_for_a_week);
        }
        ("to-zone.test.", _) => reply.answers.extend([alias("to-zone.test.", zone), elsewhere(zone)]),
        ("far-from-zone.test.", _) => {
            let further = alias(zone, "a.test.");
            let first = alias("far-from-zone.test.", "to-zone.test.");
            reply.answers.extend([address("a.test."), further, alias("to-zone.test.", zone), first]);
        }
        ("to-unknown-zone.test.", _) => {
            reply.answers.push(alias("to-unknown-zone.test.", zone));
            reply.authorities.push(denial);
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        ("to-below.test.", _) => reply.answers.push(alias("to-below.test.", "x.zone.alt.example.")),
        ("to-domain.test.", _) => reply.answers.push(alias("to-domain.test.", "alt.example.")),
        ("loop.test.", _) => {
            reply.answers.extend([alias("loop.test.", "loop2.test."), alias("loop2.test.", "loop.test.")]);
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

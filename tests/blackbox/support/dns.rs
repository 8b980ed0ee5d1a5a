//! A DNS client that shows replies as zone-file text.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use hickory_server::proto::{op::Message, rr::Record};

/// Longer than any healthy reply takes, short enough to ask again.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A question. Its octets are made here, so that tests can also ask what no library would.
#[derive(Clone, Debug)]
pub struct Question {
    pub name: String,
    pub qtype: u16,
    pub class: u16,
    pub recursion_desired: bool,
    pub edns: Option<u16>,
    /// Of the OPT record, on the wire.
    pub options: Vec<u8>,
    pub id: u16,
}

impl Question {
    pub fn new(name: &str, qtype: &str) -> Self {
        let qtype = type_number(qtype);
        Self {
            name: name.into(),
            qtype,
            class: 1,
            recursion_desired: true,
            edns: None,
            options: Vec::new(),
            id: 0x1234,
        }
    }

    /// The same question in class CHAOS.
    pub fn chaos(self) -> Self {
        Self { class: 3, ..self }
    }

    /// The same question with one more option in its OPT record.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.options.extend(code.to_be_bytes());
        self.options.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.options.extend(data);
        self
    }

    /// The same question with an OPT record that offers this payload size.
    pub fn edns(self, payload: u16) -> Self {
        Self { edns: Some(payload), ..self }
    }

    /// The message on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        wire.extend(self.id.to_be_bytes());
        wire.extend([u8::from(self.recursion_desired), 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        for label in self.name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        wire.extend(self.qtype.to_be_bytes());
        wire.extend(self.class.to_be_bytes());
        if let Some(payload) = self.edns {
            wire.extend([0, 0, 41]);
            wire.extend(payload.to_be_bytes());
            wire.extend([0, 0, 0, 0]);
            wire.extend(u16::try_from(self.options.len()).unwrap().to_be_bytes());
            wire.extend(&self.options);
        }
        wire
    }
}

fn type_number(name: &str) -> u16 {
    match name {
        "A" => 1,
        "NS" => 2,
        "SOA" => 6,
        "TXT" => 16,
        "AAAA" => 28,
        "DS" => 43,
        "HTTPS" => 65,
        "AXFR" => 252,
        "ANY" => 255,
        other => other.strip_prefix("TYPE").and_then(|number| number.parse().ok()).expect("a type that tests know"),
    }
}

/// A reply, each record as a line of a zone file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    pub rcode: String,
    pub authoritative: bool,
    pub recursion_available: bool,
    pub truncated: bool,
    pub answers: Vec<String>,
    pub authorities: Vec<String>,
    pub additionals: Vec<String>,
    /// Extended DNS errors (RFC 8914).
    pub extended_errors: Vec<u16>,
    /// Other options of the OPT record, with their codes.
    pub options: Vec<(u16, Vec<u8>)>,
    pub has_opt: bool,
    pub octets: usize,
}

impl Reply {
    pub fn read(wire: &[u8]) -> Self {
        let message = Message::from_vec(wire).expect("a reply that can be read");
        let lines = |records: &[Record]| records.iter().map(ToString::to_string).collect();
        let options = message.edns.iter().flat_map(|edns| edns.options().as_ref().iter());
        let options = options.map(|(code, option)| (u16::from(*code), Vec::<u8>::try_from(option).expect("octets")));
        let (errors, options): (Vec<_>, Vec<_>) = options.partition(|(code, _)| *code == 15);
        Self {
            rcode: format!("{:?}", message.metadata.response_code),
            authoritative: message.metadata.authoritative,
            recursion_available: message.metadata.recursion_available,
            truncated: message.metadata.truncation,
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
            extended_errors: errors.iter().map(|(_, octets)| u16::from_be_bytes([octets[0], octets[1]])).collect(),
            options,
            has_opt: message.edns.is_some(),
            octets: wire.len(),
        }
    }

    /// The last field of every answer: the addresses.
    pub fn data(&self) -> Vec<String> {
        self.answers.iter().map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect()
    }

    /// The TTL of every answer.
    pub fn ttls(&self) -> Vec<u32> {
        self.answers.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
    }
}

/// Asks over UDP; `None` when no reply comes.
pub fn try_udp(server: SocketAddr, question: &Question) -> Option<Reply> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    udp_from(any, server, question, REPLY_TIMEOUT)
}

/// Asks over UDP from an address of this machine; `None` when no reply comes in time.
pub fn udp_from(client: IpAddr, server: SocketAddr, question: &Question, within: Duration) -> Option<Reply> {
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.set_read_timeout(Some(within)).unwrap();
    socket.connect(server).unwrap();
    socket.send(&question.wire()).ok()?;
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    assert_eq!(buffer[..2], question.id.to_be_bytes(), "the reply has the question's id");
    Some(Reply::read(&buffer[..length]))
}

/// Asks over UDP; no reply fails the test.
#[track_caller]
pub fn udp(server: SocketAddr, question: &Question) -> Reply {
    try_udp(server, question).expect("a reply over UDP")
}

/// Asks over TCP, on a connection of its own.
#[track_caller]
pub fn tcp(server: SocketAddr, question: &Question) -> Reply {
    let mut stream = connect(server);
    send(&mut stream, question);
    receive(&mut stream).expect("a reply over TCP")
}

pub fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn send(stream: &mut TcpStream, question: &Question) {
    let wire = question.wire();
    let framed = [&u16::try_from(wire.len()).unwrap().to_be_bytes(), &wire[..]].concat();
    stream.write_all(&framed).unwrap();
}

/// The next message of a stream, or why there is none.
pub fn receive(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(Reply::read(&message))
}

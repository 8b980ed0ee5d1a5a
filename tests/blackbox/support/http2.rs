//! A client of DNS over HTTPS that writes its own HTTP/2 frames, so that it can do what no real client does.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use rustls::{ClientConnection, StreamOwned};

use crate::{ca::Authority, dns::Question, tls_client::connect_with};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
pub const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A setting of the client (RFC 9113, 6.5.2).
const INITIAL_WINDOW_SIZE: u16 = 4;

/// One connection.
pub struct Http2(StreamOwned<ClientConnection, TcpStream>);

/// A frame that the server has sent.
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Http2 {
    /// Connects; the server may send `window` octets of a reply before this client has taken any.
    #[track_caller]
    pub fn connect(server: SocketAddr, authority: &Authority, window: u32) -> Self {
        let stream = connect_with(server, authority, &["h2"]).expect("a certificate that fits");
        stream.sock.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Self(stream);
        client.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        client.send(SETTINGS, 0, 0, &setting).unwrap();
        client
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat())?;
        self.0.flush()
    }

    /// Asks on a stream, whose number is odd and higher than those before.
    pub fn get(&mut self, stream: u32, question: &Question) -> io::Result<()> {
        let path = format!("/dns-query?dns={}", BASE64URL_NOPAD.encode(&question.wire()));
        // `:method: GET` and `:scheme: https` are in HPACK's table, as are the names of `:authority` and `:path` (RFC 7541, A).
        let literal = |name: u8, value: &str| {
            assert!(value.len() < 127);
            [&[name, value.len() as u8], value.as_bytes()].concat()
        };
        let headers = [&[0x82, 0x87][..], &literal(1, "dns.test"), &literal(4, &path)].concat();
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &headers)
    }

    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]).try_into().unwrap()];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], stream, payload })
    }

    /// Whether the server closes within this.
    pub fn is_closed_within(&mut self, bound: Duration) -> bool {
        self.0.sock.set_read_timeout(Some(bound)).unwrap();
        loop {
            match self.receive() {
                Ok(_) => {}
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
            }
        }
    }
}

//! One simulated node: it accepts connections, reads requests, and answers as the test has set.

use std::{
    convert::Infallible,
    fmt::Write as _,
    io,
    net::{IpAddr, TcpListener as BoundListener},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::seq::SliceRandom;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{
    Content, Delivery, HttpReply, Path, Request, State,
    identity::ApiRequest,
    tls::{Connection, ConnectionSecurity},
};

/// Octets in the head of a request; real clients need a few hundred.
const HEAD_OCTETS_MAX: usize = 16 * 1024;

/// Octets in the body of a request; an identity query has some 250.
const BODY_OCTETS_MAX: usize = 64 * 1024;

/// The pause after a failed accept, which means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Octets in a chunk: few, so that every body has several chunks.
const CHUNK_OCTETS: usize = 5;

/// Octets in one write of an endless body.
const ENDLESS_PIECE_OCTETS: usize = 64 * 1024;

/// The entry that an endless body repeats.
const ENDLESS_ENTRY: &[u8] = b"\"10.0.0.1\",";

/// Octets that Content-Length announces and that are never sent.
const SHORT_BY: usize = 10;

/// Serves until dropped. Connections live inside this future, so that dropping it closes them.
pub(super) async fn serve(
    node: IpAddr,
    listener: BoundListener,
    state: Arc<State>,
    security: ConnectionSecurity,
    _alive: mpsc::Sender<()>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(record) = state.lock().get_mut(&node) {
                        record.connections += 1;
                    }
                    connections.push(serve_connection(node, stream, &state, &security));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            // A connection that ends needs no action.
            Some(_gone) = connections.next() => {}
        }
    }
}

/// Answers one request after the other; an error ends the connection.
async fn serve_connection(
    node: IpAddr,
    stream: TcpStream,
    state: &State,
    security: &ConnectionSecurity,
) -> io::Result<Infallible> {
    // Small writes must be sent one by one.
    stream.set_nodelay(true)?;
    let mut stream = security.accept(stream).await?;
    let mut unread = Vec::new();
    loop {
        let head = read_head(&mut stream, &mut unread).await?;
        let mut request = Parsed::from(&*head);
        request.body = read_body(&mut stream, &mut unread, request.body_octets).await?;
        if request.is_api && request.to_api().is_identity_query() {
            request.path = Path::Identity;
            state.identity().note(request.to_api());
        }
        let behavior = state.lock().get_mut(&node).map(|record| record.note(request.to_request()));
        let (content, delivery) = behavior.ok_or(io::ErrorKind::NotConnected)?;
        let reply = compose(node, &request, content, state);
        send(&mut stream, reply, delivery, request.keep).await?;
        stream.flush().await?;
        if !request.keep {
            stream.shutdown().await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// The head of the next request, up to its empty line; what follows it stays in `unread`.
async fn read_head(stream: &mut Connection, unread: &mut Vec<u8>) -> io::Result<String> {
    loop {
        if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).into_owned();
            unread.drain(..end + 4);
            return Ok(head);
        }
        if unread.len() > HEAD_OCTETS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The body of a request; what follows it stays in `unread`.
async fn read_body(stream: &mut Connection, unread: &mut Vec<u8>, octets: usize) -> io::Result<Vec<u8>> {
    if octets > BODY_OCTETS_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    while unread.len() < octets {
        if stream.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(unread.drain(..octets).collect())
}

/// A parsed request.
struct Parsed {
    path: Path,
    target: String,
    host: String,
    /// Names in lower case, and values.
    headers: Vec<(String, String)>,
    /// `POST /`: a request to the DynamoDB API.
    is_api: bool,
    body_octets: usize,
    body: Vec<u8>,
    keep: bool,
}

impl From<&str> for Parsed {
    fn from(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next();
        let target = words.next().unwrap_or_default();
        let version = words.next();
        let mut parsed = Self {
            path: match (method, target.split('?').next().unwrap_or_default()) {
                (Some("GET"), "/localnodes" | "/localnodes/") => Path::LocalNodes,
                (Some("GET"), "/") => Path::Health,
                _ => Path::Other,
            },
            target: target.into(),
            host: String::new(),
            headers: Vec::new(),
            is_api: method == Some("POST") && target == "/",
            body_octets: 0,
            body: Vec::new(),
            keep: version == Some("HTTP/1.1"),
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let name = name.to_ascii_lowercase();
            let value = value.trim();
            match name.as_str() {
                "host" => parsed.host = value.into(),
                "content-length" => parsed.body_octets = value.parse().unwrap_or(usize::MAX),
                // The end of such a body is not looked for.
                "transfer-encoding" => parsed.keep = false,
                "connection" if value.eq_ignore_ascii_case("close") => parsed.keep = false,
                "connection" if value.eq_ignore_ascii_case("keep-alive") => parsed.keep = true,
                _ => {}
            }
            parsed.headers.push((name, value.into()));
        }
        parsed
    }
}

impl Parsed {
    fn to_api(&self) -> ApiRequest<'_> {
        ApiRequest { headers: &self.headers, body: &self.body }
    }

    fn to_request(&self) -> Request {
        Request { path: self.path, target: self.target.clone(), host: self.host.clone(), at: Instant::now() }
    }
}

/// What the node answers.
fn compose(node: IpAddr, request: &Parsed, content: Content, state: &State) -> HttpReply {
    match (content, request.path) {
        (Content::Reply(reply), _) => reply,
        (Content::Listing(entries), _) => listing(&entries),
        (content, Path::LocalNodes) => {
            let seen = state.listed_by(node, &request.target, matches!(content, Content::Isolated));
            let mut seen: Vec<_> = seen.iter().map(IpAddr::to_string).collect();
            // Real nodes iterate over a hash set.
            seen.shuffle(&mut rand::rng());
            listing(&seen)
        }
        (_, Path::Health) => {
            HttpReply::ok(format!("healthy: {}", request.host)).header("Content-Type", "text/plain; charset=utf-8")
        }
        (_, Path::Identity) => state.identity().answer(node, request.to_api()),
        (_, Path::Other) => HttpReply::status(404).json().body(r#"{"message": "Not found", "code": 404}"#),
    }
}

/// The entries as compact JSON.
fn listing(entries: &[String]) -> HttpReply {
    HttpReply::ok(serde_json::Value::from(entries).to_string()).json()
}

/// Sends a reply with this delivery; an error ends the connection.
async fn send(stream: &mut Connection, reply: HttpReply, delivery: Delivery, keep: bool) -> io::Result<()> {
    let body = &reply.body;
    let counted = format!("Content-Length: {}", body.len());
    match delivery {
        Delivery::Hang => hang(stream).await,
        Delivery::Close => closed(stream).await,
        Delivery::Verbatim(octets) => {
            stream.write_all(&octets).await?;
            closed(stream).await
        }
        Delivery::Prompt => stream.write_all(&message(&reply, &counted, keep, body)).await,
        Delivery::Delayed(delay) => {
            sleep(delay).await;
            stream.write_all(&message(&reply, &counted, keep, body)).await
        }
        Delivery::Drip(interval) => {
            stream.write_all(&message(&reply, &counted, keep, &[])).await?;
            for octet in body {
                sleep(interval).await;
                stream.write_all(&[*octet]).await?;
            }
            Ok(())
        }
        Delivery::Trickle(interval) => {
            for octet in message(&reply, &counted, keep, body) {
                sleep(interval).await;
                stream.write_all(&[octet]).await?;
            }
            Ok(())
        }
        Delivery::ResetMidBody => {
            stream.write_all(&message(&reply, &counted, keep, &body[..body.len() / 2])).await?;
            stream.set_zero_linger()?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Delivery::Short => {
            let promised = format!("Content-Length: {}", body.len() + SHORT_BY);
            stream.write_all(&message(&reply, &promised, keep, body)).await?;
            closed(stream).await
        }
        Delivery::Chunked => {
            let framing = "Transfer-Encoding: chunked";
            stream.write_all(&message(&reply, framing, keep, &chunked(body))).await
        }
        Delivery::Endless => {
            stream.write_all(&message(&reply, "", false, b"[")).await?;
            endless(stream, ENDLESS_ENTRY).await
        }
        Delivery::EndlessContinue => endless(stream, b"HTTP/1.1 100 Continue\r\n\r\n").await,
        Delivery::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            endless(stream, b"X-Filler: filler\r\n").await
        }
        Delivery::EndlessChunks => {
            stream.write_all(&message(&reply, "Transfer-Encoding: chunked", keep, b"1\r\n[\r\n")).await?;
            let entry: Vec<u8> =
                ENDLESS_ENTRY.iter().flat_map(|&octet| [b'1', b'\r', b'\n', octet, b'\r', b'\n']).collect();
            endless(stream, &entry).await
        }
    }
}

/// Repeats octets until the client closes.
async fn endless(stream: &mut Connection, octets: &[u8]) -> io::Result<()> {
    let piece = octets.repeat(ENDLESS_PIECE_OCTETS / octets.len());
    loop {
        stream.write_all(&piece).await?;
    }
}

/// Sends nothing until the client closes; then the connection ends, so that a hanging node collects none.
async fn hang(stream: &mut Connection) -> io::Result<()> {
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// A body in chunks (RFC 9112, 7.1).
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for chunk in body.chunks(CHUNK_OCTETS) {
        octets.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        octets.extend_from_slice(chunk);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b"0\r\n\r\n");
    octets
}

/// Status line, headers and what is sent with them. Without framing the body ends with the connection.
fn message(reply: &HttpReply, framing: &str, keep: bool, body: &[u8]) -> Vec<u8> {
    let reason = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Other",
    };
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", reply.status);
    if !framing.is_empty() {
        head = head + framing + "\r\n";
    }
    for (name, value) in &reply.headers {
        // Writing to a string cannot fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str(if keep { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
    let mut octets = head.into_bytes();
    octets.extend_from_slice(body);
    octets
}

/// Closes a connection in an orderly way, after all data was sent.
async fn closed(stream: &mut Connection) -> io::Result<()> {
    stream.shutdown().await?;
    Err(io::ErrorKind::ConnectionAborted.into())
}

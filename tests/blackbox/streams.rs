//! Connections over TCP, TLS and HTTPS together: slow names, silent clients, clients that take everything, and HTTP.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use data_encoding::BASE64URL_NOPAD;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use socket2::{Domain, Socket, Type};

use crate::{
    ca::Authority,
    daemon::{Daemon, scratch, zone, zone_with},
    dns::{self, Question, Reply},
    http,
    http2::{CONTINUATION, DATA, HEADERS, Http2},
    observe,
    tls_client::{NAME, connect_with},
    upstream::Upstream,
    wait,
};

/// A zone's question is answered within this, whatever upstreams do: they have four seconds. A machine that is not busy
/// needs a thousandth.
const PROMPT: Duration = Duration::from_millis(1500);

/// What HTTP/2 allows to be sent before the client says more.
const WINDOW: u32 = 65_535;

/// A directory with a certificate and a configuration: these keys of `[server]`, and these zones.
fn prepare(name: &str, authority: &Authority, server: &str, zones: &str) -> PathBuf {
    let directory = scratch(name);
    let certified = authority.certify([NAME]);
    let [cert, key] = ["cert.pem", "key.pem"].map(|file| directory.join(file));
    fs::write(&cert, certified.certificate).unwrap();
    fs::write(&key, certified.key).unwrap();
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let listen = ["listen", "listen_tls", "listen_https"].map(|key| format!("{key} = [\"127.0.0.1:0\"]")).join("\n");
    let file = format!("[server]\nadmin = \"127.0.0.1:0\"\n{listen}\n{tls}\n{server}\n{zones}");
    fs::write(directory.join("config.toml"), file).unwrap();
    directory
}

fn start(name: &str, authority: &Authority, server: &str, zones: &str) -> Daemon {
    let directory = prepare(name, authority, server, zones);
    let file = directory.join("config.toml");
    let mut daemon = Daemon::launch_with(directory, &file, &[("RUST_LOG", "info")]);
    daemon.wait_ready();
    daemon
}

/// A zone without nodes yet, whose seeds are its answer: so many addresses that no reply is short.
fn large_zone(name: &str, addresses: usize) -> String {
    let seeds: Vec<IpAddr> = (0..addresses).map(|n| [127, 99, (n / 250) as u8, (n % 250 + 1) as u8].into()).collect();
    zone_with(name, &seeds, 9, "answers = \"all\"\nhealth = false\nrefresh = \"60s\"\n")
}

fn framed(question: &Question) -> Vec<u8> {
    let wire = question.wire();
    [&u16::try_from(wire.len()).unwrap().to_be_bytes(), &wire[..]].concat()
}

fn receive(stream: &mut impl Read) -> Reply {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    Reply::read(&message)
}

/// Files that this test may have open beside those of others.
fn raise_open_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1 << 16), hard).unwrap();
}

#[test]
fn a_dead_forwarded_name_holds_no_other_question_of_its_connection_up() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = Upstream::start([127, 0, 0, 8]);
    upstream.silence(true);
    let forward = format!("[forward]\nupstreams = [\"{}\"]\n", upstream.address);
    let mut daemon = start("slow_names", &authority, "", &(forward + &zone("a.example", &cluster)));
    let node = cluster.node(0).to_string();
    wait::until("the node to be learnt", || {
        (dns::udp(daemon.address(), &Question::new("a.example", "A")).ttls() == [4]).then_some(())
    });
    // More wait than HTTP/2 has streams by default in some clients, and fewer than a connection may have in flight.
    let dead: Vec<_> = (0..20).map(|number| Question::new(&format!("dead{number}.test"), "A")).collect();
    let ours = Question::new("a.example", "A");
    let questions: Vec<u8> = dead.iter().chain([&ours]).flat_map(framed).collect();
    let mut tcp = dns::connect(daemon.address());
    let mut tls = connect_with(daemon.secure_address("tls"), &authority, &["dot"]).unwrap();
    let exchanges: [&mut dyn FnMut() -> Reply; 2] = [
        &mut || {
            tcp.write_all(&questions).unwrap();
            receive(&mut tcp)
        },
        &mut || {
            tls.write_all(&questions).unwrap();
            receive(&mut tls)
        },
    ];
    for exchange in exchanges {
        let start = Instant::now();
        assert_eq!(exchange().data(), std::slice::from_ref(&node));
        assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    }
    let mut https = Http2::connect(daemon.secure_address("https"), &authority, WINDOW);
    let start = Instant::now();
    for (number, question) in dead.iter().chain([&ours]).enumerate() {
        https.get(2 * number as u32 + 1, question).unwrap();
    }
    let reply = std::iter::from_fn(|| https.receive().ok()).find(|frame| frame.kind == DATA).unwrap();
    assert_eq!(Reply::read(&reply.payload).data(), [node]);
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    // The others are answered in the end.
    for _ in 0..dead.len() {
        assert_eq!(receive(&mut tcp).rcode, "ServFail");
    }
}

/// A response over HTTP/1.1: its head and its body.
fn response(stream: &mut impl Read) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        head.extend(octet);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn https_has_get_and_post_over_http_1_1_and_says_what_is_wrong() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut daemon = start("http1", &authority, "", &zone("a.example", &cluster));
    let node = cluster.node(0).to_string();
    wait::until("the node to be learnt", || (daemon.ask("a.example", "A").ttls() == [4]).then_some(()));
    let server = daemon.secure_address("https");
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = connect_with(server, &authority, protocols).unwrap();
        let mut ask = |head: &str, body: &[u8]| {
            let head = format!("{head}\r\nhost: dns.test\r\ncontent-length: {}\r\n\r\n", body.len());
            // At once: a request that is refused by its head may be answered, and the connection closed, before its rest.
            stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            response(&mut stream)
        };
        let post = "POST /dns-query HTTP/1.1\r\ncontent-type: application/dns-message";
        for (question, age) in [("A", "max-age=4\r\n"), ("AAAA", "max-age=4\r\n"), ("SOA", "max-age=4\r\n")] {
            let wire = Question::new("a.example", question).wire();
            let get = format!("GET /dns-query?dns={} HTTP/1.1", BASE64URL_NOPAD.encode(&wire));
            for (head, body) in [ask(&get, b""), ask(post, &wire)] {
                assert!(head.starts_with("http/1.1 200") && head.contains("content-type: application/dns-message\r\n"));
                assert!(head.contains(&format!("cache-control: {age}")), "{head}");
                let data = if question == "A" { vec![node.clone()] } else { daemon.ask("a.example", question).data() };
                assert_eq!(Reply::read(&body).data(), data);
            }
        }
        let (head, body) = ask(post, &Question::new("elsewhere.example", "A").wire());
        assert!(head.starts_with("http/1.1 200") && head.contains("cache-control: max-age=0\r\n"), "{head}");
        assert_eq!(Reply::read(&body).rcode, "Refused");
        for (request, body, status) in [
            ("GET /dns-query HTTP/1.1", &b""[..], 400),
            ("GET /dns-query?dns=%25 HTTP/1.1", b"", 400),
            ("GET /dns-query?dns=AAAA HTTP/1.1", b"", 400),
            ("GET /?dns=AAAA HTTP/1.1", b"", 404),
            ("DELETE /dns-query HTTP/1.1", b"", 405),
            ("POST /dns-query HTTP/1.1\r\ncontent-type: text/plain", b"x", 415),
            (post, b"", 400),
        ] {
            let (head, body) = ask(request, body);
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{request}: {head}");
            assert!(body.ends_with(b"\n"), "a sentence");
        }
        let (head, _) = ask(post, &[0; 5000]);
        assert!(head.starts_with("http/1.1 413"), "{head}");
    }
}

#[test]
fn silent_https_connections_are_closed() {
    raise_open_files();
    let authority = Authority::new("ours");
    let zones = "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n";
    let limits = "tcp = { idle = \"2s\", max_per_client = 1000 }";
    let mut daemon = start("silent_https", &authority, limits, zones);
    let server = daemon.secure_address("https");
    let mut silent: Vec<_> = (0..100).map(|_| Http2::connect(server, &authority, WINDOW)).collect();
    let mut other = connect_with(server, &authority, &["http/1.1"]).unwrap();
    assert!(daemon.metric("alternator_dns_tcp_connections") > 50.0, "they count as connections over TCP do");
    let start = Instant::now();
    for client in &mut silent {
        assert!(client.is_closed_within(Duration::from_secs(30)));
    }
    let _ = other.read_to_end(&mut Vec::new());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    wait::until("all to be closed", || (daemon.metric("alternator_dns_tcp_connections") == 0.0).then_some(()));
}

/// Connects from an address of this machine.
fn connect_from(client: [u8; 4], server: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&std::net::SocketAddr::from((client, 0)).into())?;
    socket.connect_timeout(&server.into(), wait::PATIENCE)?;
    Ok(socket.into())
}

#[test]
fn clients_never_take_the_descriptors_that_the_server_needs() {
    raise_open_files();
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(2).unwrap();
    let limits = "tcp = { max_connections = 65535, max_per_client = 65535, idle = \"60s\", message = \"60s\" }";
    let directory =
        prepare("descriptors", &authority, limits, &format!("{}answers = \"all\"\n", zone("a.example", &cluster)));
    let mut daemon = Daemon::with_open_files(directory, 512);
    observe::becomes(&daemon, "a.example", &cluster.nodes());
    assert!(daemon.log().contains("this process may have 512 open files"), "{}", daemon.log());
    let [plain, tls, https] = [daemon.address(), daemon.secure_address("tls"), daemon.secure_address("https")];
    let mut held = Vec::new();
    for number in 0..900 {
        let server = [plain, tls, https][number % 3];
        held.push(connect_from([127, 0, 0, 40 + (number % 3) as u8], server).unwrap());
        if number % 100 == 99 {
            assert_eq!(dns::tcp(plain, &Question::new("a.example", "A")).rcode, "NoError");
            assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
        }
    }
    cluster.add().unwrap();
    observe::becomes(&daemon, "a.example", &cluster.nodes());
    assert!(connect_with(tls, &authority, &["dot"]).is_some(), "another client gets its handshake");
    assert!(daemon.metric("alternator_dns_process_open_fds") < 512.0);
    assert!(!daemon.log().contains("cannot accept connections"), "{}", daemon.log());
}

#[test]
fn replies_that_no_client_takes_are_bounded() {
    let authority = Authority::new("ours");
    let limits = "tcp = { idle = \"60s\", message = \"3s\" }";
    let mut daemon = start("not_taken", &authority, limits, &large_zone("large.example", 1000));
    let server = daemon.secure_address("https");
    let question = Question::new("large.example", "A");
    let mut clients: Vec<_> = (0..60).map(|_| Http2::connect(server, &authority, 0)).collect();
    // 96 MB of replies, of which none may be sent.
    for (number, client) in clients.iter_mut().enumerate() {
        // One reply is enough to close a connection.
        for stream in 0..if number == 0 { 1 } else { 100 } {
            if client.get(2 * stream + 1, &question).is_err() {
                break;
            }
        }
    }
    for client in &mut clients {
        assert!(client.is_closed_within(Duration::from_secs(20)));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let (_, peak) = status.split_once("VmHWM:").unwrap();
    let peak: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    assert!(peak < 160 * 1024, "a peak of {peak} kB");
}

#[test]
fn endless_headers_are_refused() {
    let authority = Authority::new("ours");
    let mut daemon = start("headers", &authority, "", "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n");
    let mut client = Http2::connect(daemon.secure_address("https"), &authority, WINDOW);
    // A header that never ends: a literal whose value has 100 kB.
    let part = [b'x'; 16_000];
    let begin = [&[0x82, 0x87, 0x00, 1, b'x', 0x7F, 0xA1, 0x8C, 0x06][..], &part[..100]].concat();
    let refused = client
        .send(HEADERS, 0, 1, &begin)
        .and_then(|()| (0..10_000).try_for_each(|_| client.send(CONTINUATION, 0, 1, &part)));
    assert!(refused.is_err(), "160 MB were taken");
    assert_eq!(daemon.ask("a.example", "SOA").rcode, "NoError");
}

#[test]
fn what_was_asked_over_tls_and_https_is_answered_before_the_server_ends() {
    let authority = Authority::new("ours");
    let mut daemon = start("drain", &authority, "", "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n");
    let question = Question::new("a.example", "SOA");
    let mut tls = connect_with(daemon.secure_address("tls"), &authority, &["dot"]).unwrap();
    let mut https = Http2::connect(daemon.secure_address("https"), &authority, WINDOW);
    tls.write_all(&framed(&question)).unwrap();
    https.get(1, &question).unwrap();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(receive(&mut tls).rcode, "NoError");
    let reply = std::iter::from_fn(|| https.receive().ok()).find(|frame| frame.kind == DATA).expect("a reply");
    assert_eq!((reply.stream, &*Reply::read(&reply.payload).rcode), (1, "NoError"));
    assert_eq!(daemon.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

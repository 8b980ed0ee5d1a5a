//! DNS over TLS, HTTPS and QUIC as a client sees it: the certificate that it is shown, the same answers, and files that
//! change. Other people's clients ask in `tests/full encrypted`.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::{
    ca::{Authority, Certified},
    daemon::{Daemon, scratch, zone},
    dns::{Question, Reply},
    files::{rename_over, replace_by_pipe},
    observe::goes_on,
    service_manager::{Service, free_address},
    tls_client::{NAME, client, connect},
    upstream::Upstream,
    wait,
};
use alternator_dns::simulation::SimulatedCluster;
use futures_util::StreamExt;
use hickory_server::{
    net::{
        h2::HttpsClientStream,
        quic::QuicClientStream,
        runtime::TokioRuntimeProvider,
        xfer::{DnsRequestSender, DnsResponseStream},
    },
    proto::op::{DnsRequest, DnsRequestOptions, Message},
};
use nix::sys::signal::Signal;

/// Octets of a block that padded replies come in (RFC 8467, 4.1).
const BLOCK: usize = 468;

const OPTION_KEEPALIVE: u16 = 11;
const OPTION_PADDING: u16 = 12;

/// The certificate in force, as files beside the configuration.
fn put(directory: &Path, certified: &Certified) {
    fs::write(directory.join("cert.pem"), &certified.certificate).unwrap();
    fs::write(directory.join("key.pem"), &certified.key).unwrap();
}

fn config(directory: &Path, server: &str, zones: &str) -> String {
    let cert = directory.join("cert.pem");
    let key = directory.join("key.pem");
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{tls}\n{server}\n{zones}")
}

/// A server with TLS on any port.
fn start(name: &str, certified: &Certified, zones: &str) -> (Daemon, std::path::PathBuf) {
    start_with(name, certified, "listen_tls = [\"127.0.0.1:0\"]", zones)
}

fn start_with(name: &str, certified: &Certified, server: &str, zones: &str) -> (Daemon, std::path::PathBuf) {
    let directory = scratch(name);
    put(&directory, certified);
    let file = directory.join("config.toml");
    fs::write(&file, config(&directory, server, zones)).unwrap();
    let mut daemon = Daemon::launch_with(directory.clone(), &file, &[("RUST_LOG", "info")]);
    daemon.wait_ready();
    (daemon, directory)
}

#[track_caller]
fn ask(stream: &mut (impl Read + Write), question: &Question) -> Reply {
    let wire = question.wire();
    stream.write_all(&[&u16::try_from(wire.len()).unwrap().to_be_bytes(), &wire[..]].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    Reply::read(&message)
}

#[test]
fn questions_over_tls_get_the_same_answers() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let (mut daemon, _) = start("tls_answers", &authority.certify([NAME]), &zone("a.example", &cluster));
    let server = daemon.secure_address("tls");
    let mut stream = connect(server, &authority).expect("a certificate that fits");
    let node = cluster.node(0).to_string();
    wait::until("the node to be learnt", || (daemon.ask("a.example", "A").ttls() == [4]).then_some(()));
    for (name, qtype, rcode) in
        [("a.example", "A", "NoError"), ("x.a.example", "A", "NXDomain"), ("other.example", "A", "Refused")]
    {
        let reply = ask(&mut stream, &Question::new(name, qtype));
        let plain = daemon.ask(name, qtype);
        assert_eq!((&*reply.rcode, &reply.answers), (rcode, &plain.answers), "{name}");
        assert_eq!((reply.authorities, reply.authoritative), (plain.authorities, plain.authoritative), "{name}");
    }
    assert_eq!(ask(&mut stream, &Question::new("a.example", "A")).data(), [node]);
    let padded =
        Question::new("a.example", "A").edns(1232).option(OPTION_PADDING, &[0; 60]).option(OPTION_KEEPALIVE, b"");
    let reply = ask(&mut stream, &padded);
    assert_eq!(reply.octets % BLOCK, 0, "{reply:?}");
    assert!(reply.options.iter().any(|(code, _)| *code == OPTION_KEEPALIVE), "{reply:?}");
    assert!(
        daemon
            .metric("alternator_dns_queries_total{zone=\"a.example.\",type=\"A\",rcode=\"NOERROR\",transport=\"tls\"}")
            >= 3.0
    );
}

/// A forwarded reply is padded as a zone's is: its length must not show an eavesdropper which names a client asks for.
#[test]
fn forwarded_replies_over_tls_are_padded() {
    let authority = Authority::new("ours");
    let upstream = Upstream::start([127, 0, 0, 8]);
    let zones =
        format!("[forward]\nupstreams = [\"{}\"]\n[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n", upstream.address);
    let (mut daemon, _) = start("tls_forward", &authority.certify([NAME]), &zones);
    let mut stream = connect(daemon.secure_address("tls"), &authority).expect("a certificate that fits");
    for (name, rcode, answers) in [("a.test", "NoError", 1), ("none.test", "NXDomain", 0)] {
        let question = Question::new(name, "A").edns(1232);
        let plain = ask(&mut stream, &question);
        assert_eq!((&*plain.rcode, plain.answers.len()), (rcode, answers), "{name}: {plain:?}");
        assert!(plain.octets < BLOCK, "{name}: {plain:?}");
        let padded = ask(&mut stream, &question.option(OPTION_PADDING, &[0; 60]));
        assert_eq!((&padded.rcode, &padded.data()), (&plain.rcode, &plain.data()), "{name}");
        assert_eq!(padded.octets, BLOCK, "{name}: {padded:?}");
    }
}

/// hickory's client for HTTPS or QUIC, connected; `None`: the server's certificate is not valid.
async fn connect_hickory(
    transport: &str,
    server: SocketAddr,
    authority: &Authority,
) -> Option<Box<dyn FnMut(DnsRequest) -> DnsResponseStream>> {
    if transport == "quic" {
        let builder = QuicClientStream::builder().crypto_config(client(authority));
        let mut stream = builder.build(server, NAME.into()).await.ok()?;
        return Some(Box::new(move |request| stream.send_message(request)));
    }
    let mut config = client(authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let builder = HttpsClientStream::builder(Arc::new(config), TokioRuntimeProvider::new());
    let mut stream = builder.build(server, NAME.into(), "/dns-query".into()).await.ok()?;
    Some(Box::new(move |request| stream.send_message(request)))
}

#[tokio::test]
async fn questions_over_https_and_quic_get_the_same_answers() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let listen = "listen_https = [\"127.0.0.1:0\"]\nlisten_quic = [\"127.0.0.1:0\"]";
    let certified = authority.certify([NAME]);
    let (mut daemon, _) = start_with("secure_answers", &certified, listen, &zone("a.example", &cluster));
    wait::until("the node to be learnt", || (daemon.ask("a.example", "A").ttls() == [4]).then_some(()));
    for transport in ["https", "quic"] {
        let server = daemon.secure_address(transport);
        assert!(connect_hickory(transport, server, &Authority::new("other")).await.is_none(), "{transport}");
        let mut send = connect_hickory(transport, server, &authority).await.expect("a certificate that fits");
        for (name, qtype, rcode) in
            [("A.exaMple", "A", "NoError"), ("x.a.example", "A", "NXDomain"), ("other.example", "A", "Refused")]
        {
            let question = Question { id: 0, ..Question::new(name, qtype).edns(1232) };
            let question = question.option(OPTION_PADDING, &[0; 60]).option(OPTION_KEEPALIVE, b"");
            let request = DnsRequest::new(Message::from_vec(&question.wire()).unwrap(), DnsRequestOptions::default());
            let reply = send(request).next().await.unwrap().unwrap();
            let reply = Reply::read(reply.as_buffer());
            let plain = daemon.ask(name, qtype);
            assert_eq!((&*reply.rcode, &reply.answers), (rcode, &plain.answers), "{transport} {name}");
            assert_eq!((reply.authorities, reply.authoritative), (plain.authorities, plain.authoritative), "{name}");
            assert_eq!(reply.octets, BLOCK, "{transport} {name}");
            assert!(reply.options.iter().all(|(code, _)| *code != OPTION_KEEPALIVE), "{transport} {name}");
        }
        let series = format!(
            "alternator_dns_queries_total{{zone=\"a.example.\",type=\"A\",rcode=\"NOERROR\",transport=\"{transport}\"}}"
        );
        assert!(daemon.metric(&series) >= 1.0, "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_addresses_move_to_the_wildcard_of_their_port_and_back() {
    let authority = Authority::new("ours");
    let zones = "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n";
    let listen = |addresses: [String; 3]| {
        let [tls, https, quic] = addresses.map(|address| format!("[\"{address}\"]\n"));
        format!("listen_tls = {tls}listen_https = {https}listen_quic = {quic}")
    };
    let any = listen(["127.0.0.1:0"; 3].map(str::to_owned));
    let (mut daemon, directory) = start_with("secure_move", &authority.certify([NAME]), &any, zones);
    let served = ["tls", "https", "quic"].map(|transport| daemon.secure_address(transport));
    for (closed, ip) in [(3, "0.0.0.0"), (6, "127.0.0.1"), (9, "0.0.0.0")] {
        let wanted = served.map(|address| format!("{ip}:{}", address.port()));
        fs::write(directory.join("config.toml"), config(&directory, &listen(wanted), zones)).unwrap();
        let (code, _, stderr) = daemon.reload();
        assert_eq!(code, 0, "{stderr}");
        // What the daemon sends to its service manager has copies of its sockets, which are open until they are read.
        wait::until("the former sockets to close", || {
            daemon.secure_address("tls");
            (daemon.log().matches("no longer listening").count() == closed).then_some(())
        });
        for (transport, address) in ["https", "quic"].into_iter().zip(&served[1..]) {
            assert!(connect_hickory(transport, *address, &authority).await.is_some(), "{transport} {ip}");
        }
        assert!(connect(served[0], &authority).is_some(), "{ip}");
        let beside = SocketAddr::new([127, 0, 0, 2].into(), served[0].port());
        assert_eq!(TcpStream::connect(beside).is_ok(), ip == "0.0.0.0");
        assert!(std::net::TcpListener::bind(served[1]).is_err() && std::net::UdpSocket::bind(served[2]).is_err());
    }
}

/// The same for the other transports: `streams.rs`.
#[tokio::test]
async fn a_dead_forwarded_name_holds_no_other_question_over_quic_up() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = Upstream::start([127, 0, 0, 8]);
    upstream.silence(true);
    let zones = format!("[forward]\nupstreams = [\"{}\"]\n{}", upstream.address, zone("a.example", &cluster));
    let listen = "listen_quic = [\"127.0.0.1:0\"]";
    let (mut daemon, _) = start_with("slow_quic", &authority.certify([NAME]), listen, &zones);
    let server = daemon.secure_address("quic");
    let mut send = connect_hickory("quic", server, &authority).await.expect("a certificate that fits");
    let mut ask = |name: &str| {
        let question = Question { id: 0, ..Question::new(name, "SOA") };
        send(DnsRequest::new(Message::from_vec(&question.wire()).unwrap(), DnsRequestOptions::default()))
    };
    let mut dead = ask("dead.test");
    // Questions of one connection arrive in the order in which they were sent, but streams may overtake each other.
    let asked = tokio::time::timeout(wait::PATIENCE, async {
        while upstream.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::select! {
        reply = dead.next() => panic!("no upstream has answered, but there is {reply:?}"),
        asked = asked => asked.expect("the upstream is asked"),
    }
    let start = std::time::Instant::now();
    let reply = ask("a.example").next().await.unwrap().unwrap();
    assert_eq!(Reply::read(reply.as_buffer()).rcode, "NoError");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
}

#[test]
fn another_certificate_is_shown_without_a_reload_and_a_bad_one_changes_nothing() {
    let old = Authority::new("old");
    let new = Authority::new("new");
    let (mut daemon, directory) =
        start("tls_files", &old.certify([NAME]), "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n");
    let server = daemon.secure_address("tls");
    let mut before = connect(server, &old).expect("the old certificate");
    assert!(connect(server, &new).is_none());
    put(&directory, &new.certify([NAME]));
    wait::until("the new certificate", || connect(server, &new));
    assert!(connect(server, &old).is_none());
    assert_eq!(ask(&mut before, &Question::new("a.example", "A")).rcode, "NoError", "open connections stay open");
    fs::write(directory.join("key.pem"), "nonsense").unwrap();
    wait::until("an error", || daemon.log().contains("key.pem has no private key").then_some(()));
    assert!(connect(server, &new).is_some());
}

#[test]
fn a_certificate_that_becomes_a_pipe_is_reported_once_and_holds_nothing_up() {
    let authorities = [Authority::new("first"), Authority::new("second"), Authority::new("third")];
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = |name: &str| zone("a.example", &cluster) + &zone(name, &cluster);
    let (mut daemon, directory) = start("tls_pipe", &authorities[0].certify([NAME]), &zones("b.example"));
    let server = daemon.secure_address("tls");
    let serves = |authority| connect(server, authority).is_some();
    let configure = |name: &str| {
        let file = config(&directory, "listen_tls = [\"127.0.0.1:0\"]", &zones(name));
        rename_over(&directory.join("config.toml"), &file);
    };
    for (round, name) in ["cert.pem", "key.pem"].into_iter().enumerate() {
        let path = directory.join(name);
        let old = &authorities[round];
        let new = &authorities[round + 1];
        replace_by_pipe(&path);
        let cannot = format!("cannot read {}: it is not a regular file", path.display());
        let error = format!("clients get the certificate as it was: {cannot}");
        wait::until("the error", || daemon.log().contains(&error).then_some(()));
        assert!(serves(old), "{name}");
        // With a pipe in its place, no configuration that needs the file can be put in force.
        configure(&format!("c{round}.example"));
        let (code, _, stderr) = daemon.reload();
        assert_eq!(code, 78, "{stderr}");
        assert!(stderr.contains(&cannot), "{stderr}");
        configure("b.example");
        assert_eq!(daemon.reload().0, 0);
        // Five polls a second, and one look at the files.
        goes_on(&daemon, &cluster, 20);
        assert!(serves(old), "{name}");
        assert_eq!(daemon.log().matches(&error).count(), 1, "{}", daemon.log());
        let Certified { certificate, key } = new.certify([NAME]);
        rename_over(&directory.join("cert.pem"), &certificate);
        rename_over(&directory.join("key.pem"), &key);
        wait::until("the new certificate", || serves(new).then_some(()));
        assert!(!serves(old), "{name}");
        assert_eq!(daemon.reload().0, 0);
    }
    replace_by_pipe(&directory.join("cert.pem"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(2)).code(), Some(0));
}

#[test]
fn a_reload_opens_and_closes_encrypted_addresses_and_refuses_bad_files() {
    let authority = Authority::new("ours");
    let zones = "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n";
    let (mut daemon, directory) = start("tls_reload", &authority.certify([NAME]), zones);
    let server = daemon.secure_address("tls");
    let file = daemon.config_path();
    let https = "listen_https = [\"127.0.0.1:0\"]";
    fs::write(&file, config(&directory, https, zones)).unwrap();
    assert_eq!(daemon.reload().0, 0);
    wait::until("TLS to be closed", || TcpStream::connect(server).is_err().then_some(()));
    let https_server = daemon.secure_address("https");
    assert!(TcpStream::connect(https_server).is_ok());
    fs::remove_file(directory.join("cert.pem")).unwrap();
    fs::write(&file, config(&directory, "listen_quic = [\"127.0.0.1:0\"]", zones)).unwrap();
    let (status, _, error) = daemon.reload();
    assert_eq!(status, 78, "{error}");
    assert!(error.contains("cannot serve encrypted DNS: cannot read "), "{error}");
    assert!(TcpStream::connect(https_server).is_ok(), "what was served is served on");
}

#[tokio::test]
async fn encrypted_sockets_survive_a_restart_also_when_their_transports_change() {
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(1).unwrap();
    let files = scratch("kept_certificate");
    put(&files, &authority.certify([NAME]));
    let [one, other, quic] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(free_address);
    let file = |tls: SocketAddr, https: SocketAddr| {
        let listen = format!("listen_tls = [\"{tls}\"]\nlisten_https = [\"{https}\"]\nlisten_quic = [\"{quic}\"]");
        config(&files, &listen, &zone("a.example", &cluster))
    };
    let mut service = Service::new("kept_encrypted", &file(one, other));
    service.start();
    let names = service.names();
    for (tls, https) in [(one, other), (other, one)] {
        assert_eq!(service.end(Signal::SIGTERM).code(), Some(0));
        service.configure(&file(tls, https));
        service.start();
        let mut stream = connect(tls, &authority).expect("a certificate that fits");
        assert_eq!(ask(&mut stream, &Question::new("a.example", "SOA")).rcode, "NoError");
        for (transport, server) in [("https", https), ("quic", quic)] {
            let mut send = connect_hickory(transport, server, &authority).await.expect("a connection");
            let question = Question { id: 0, ..Question::new("a.example", "SOA") };
            let request = DnsRequest::new(Message::from_vec(&question.wire()).unwrap(), DnsRequestOptions::default());
            let reply = send(request).next().await.unwrap().unwrap();
            assert_eq!(Reply::read(reply.as_buffer()).rcode, "NoError", "{transport}");
        }
        let tls_name = format!("tls-{}", tls.to_string().replace(':', "_"));
        wait::until("the sockets to be kept", || {
            let now = service.names();
            (now.len() == names.len() && now.contains(&tls_name)).then_some(())
        });
    }
    // A connection that is made while nothing runs is served by the next process.
    service.end(Signal::SIGKILL);
    let waiting = std::thread::spawn(move || connect(other, &authority).is_some());
    service.start();
    assert!(waiting.join().unwrap());
    fs::remove_dir_all(files).unwrap();
}

//! `[transfer]`: zones for secondaries, NOTIFY, and serials. The secondary here has a TSIG of its own; real ones are in
//! tests/parts/transfer.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;
use ring::hmac;

use crate::{
    ca::Authority,
    daemon::{Daemon, scratch, zone_with},
    dns::Reply,
    files::rename_over,
    observe::becomes,
    query_log::{log_queries, wait_lines},
    tls_client::{NAME, connect, connect_with_tls_1_2},
    wait,
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const SECRET_BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
const OTHER_BASE64: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\n";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";

const FAST: &str = "refresh = \"200ms\"\ntimeout = \"200ms\"\nanswers = \"all\"\n\
                    health = { interval = \"200ms\", timeout = \"200ms\" }\n";

/// A file with these secondaries, in a directory with the secret.
fn config(directory: &Path, secondary: &str, zones: &str) -> String {
    fs::write(directory.join("secret"), SECRET_BASE64).unwrap();
    let directory = directory.display();
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nstate_dir = \"{directory}/state\"\n\
         nameservers = [{{ name = \"ns.elsewhere.test\" }}]\n\
         [transfer]\nsecondaries = [\"{secondary}\"]\n\
         key = {{ name = \"k.test\", secret_file = \"{directory}/secret\" }}\ncatalog = \"catalog.invalid\"\n\n{zones}"
    )
}

fn start(name: &str, secondary: &str, zones: &str) -> Daemon {
    let directory = scratch(name);
    fs::write(directory.join("config.toml"), config(&directory, secondary, zones)).unwrap();
    let file = directory.join("config.toml");
    let mut daemon = Daemon::launch_at(directory, &file);
    daemon.wait_ready();
    daemon
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    wire.push(0);
    wire
}

fn query(name: &str, query_type: u16) -> Vec<u8> {
    let head = [0xAB, 0xCD, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    [&head[..], &wire(name), &query_type.to_be_bytes(), &[0, 1]].concat()
}

/// Adds a TSIG record to a message, whose MAC covers that of the request, if it is an answer. Returns its MAC.
fn sign(message: &mut Vec<u8>, secret: &[u8], request: &[u8], time: u64) -> Vec<u8> {
    let key = wire("k.test");
    let algorithm = wire("hmac-sha256");
    let times = [&time.to_be_bytes()[2..], &300_u16.to_be_bytes()].concat();
    let mut covered = Vec::new();
    if !request.is_empty() {
        covered.extend((request.len() as u16).to_be_bytes());
        covered.extend(request);
    }
    covered.extend(&*message);
    covered.extend([&key[..], &[0, 255, 0, 0, 0, 0], &algorithm, &times, &[0; 4]].concat());
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &covered).as_ref().to_vec();
    let data = [&algorithm[..], &times, &[0, 32], &mac, &message[..2], &[0; 4]].concat();
    message.extend([&key[..], &[0, 250, 0, 255, 0, 0, 0, 0], &(data.len() as u16).to_be_bytes(), &data].concat());
    message[11] += 1;
    mac
}

/// The reply to one message over TCP. Its signature is verified, where it has one.
fn ask(server: SocketAddr, message: Vec<u8>, secret: Option<&[u8]>) -> Reply {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    ask_over(&mut stream, message, secret)
}

fn ask_over(stream: &mut (impl Read + Write), mut message: Vec<u8>, secret: Option<&[u8]>) -> Reply {
    let request = secret.map(|secret| sign(&mut message, secret, &[], now()));
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), &message[..]].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    if let (Some(request), Some(secret)) = (request, secret) {
        verify(&reply, secret, &request);
    }
    Reply::read(&reply)
}

/// Signs the reply again and compares.
fn verify(reply: &[u8], secret: &[u8], request: &[u8]) {
    let record_octets = wire("k.test").len() + 10 + wire("hmac-sha256").len() + 10 + 32 + 6;
    // NOTAUTH has no MAC.
    if reply[3] & 0x0F == 9 {
        return;
    }
    let start = reply.len() - record_octets;
    let at = start + wire("k.test").len() + 10 + wire("hmac-sha256").len();
    let time = reply[at..at + 6].iter().fold(0, |time: u64, octet| time << 8 | u64::from(*octet));
    let mut again = reply[..start].to_vec();
    again[11] -= 1;
    sign(&mut again, secret, request, time);
    assert_eq!(again, reply);
}

const AXFR: u16 = 252;
const IXFR: u16 = 251;
const SOA: u16 = 6;

/// A secondary that the server notifies.
struct Secondary(UdpSocket);

impl Secondary {
    fn bind() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self(socket)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// The next NOTIFY about a zone, and its sender. Those about other zones are acknowledged.
    fn notified(&self, zone: &str) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 1232];
        wait::until("a NOTIFY", || {
            let (octets, from) = self.0.recv_from(&mut buffer).ok()?;
            let message = buffer[..octets].to_vec();
            if message[12..].starts_with(&wire(zone)) {
                return Some((message, from));
            }
            self.acknowledge(&message, from, SECRET);
            None
        })
    }

    fn acknowledge(&self, notify: &[u8], to: SocketAddr, secret: &[u8]) {
        assert_eq!(notify[2], 0x24, "NOTIFY, AA");
        // The MAC is followed by the original identity, error and other length.
        let mac = &notify[notify.len() - 38..notify.len() - 6];
        let question = 12 + notify[12..].windows(5).position(|octets| octets == [0, 0, 6, 0, 1]).unwrap() + 5;
        let mut reply = notify[..question].to_vec();
        reply[2] |= 0x80;
        reply[11] = 0;
        sign(&mut reply, secret, mac, now());
        self.0.send_to(&reply, to).unwrap();
    }
}

fn seed(cluster: &SimulatedCluster, name: &str, keys: &str) -> String {
    zone_with(name, &[cluster.node(0)], cluster.port(), &format!("{FAST}{keys}"))
}

#[test]
fn a_secondary_with_the_key_fetches_zones_and_the_catalog() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let waits = "[zones.\"waits.test\"]\nseeds = [\"127.255.255.254\"]\nport = 1\n";
    let daemon = start("transfer", "127.0.0.1:9", &(seed(&cluster, "a.test", "subdomains = true\n") + waits));
    becomes(&daemon, "a.test", &cluster.nodes());
    let reply = ask(daemon.address(), query("A.test", AXFR), Some(SECRET));
    // The SOA twice, NS, three addresses and three of the wildcard.
    assert_eq!((reply.rcode.as_str(), reply.answers.len()), ("NoError", 9), "{reply:?}");
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(SECRET)).answers.len(), 1);
    assert_eq!(ask(daemon.address(), query("catalog.invalid", AXFR), Some(SECRET)).answers.len(), 2 + 2 + 2);
    assert_eq!(ask(daemon.address(), query("waits.test", AXFR), Some(SECRET)).rcode, "ServFail");
    assert_eq!(ask(daemon.address(), query("none.test", AXFR), Some(SECRET)).rcode, "NotAuth");
    assert_eq!(ask(daemon.address(), query("a.test", AXFR), Some(OTHER_SECRET)).rcode, "NotAuth");
    assert_eq!(ask(daemon.address(), query("a.test", AXFR), None).rcode, "Refused");
    assert_eq!(daemon.metric("alternator_dns_transfer_refusals_total{reason=\"bad_signature\"}"), 1.0);
    assert_eq!(daemon.metric("alternator_dns_transfer_refusals_total{reason=\"unsigned\"}"), 1.0);
    assert_eq!(daemon.metric("alternator_dns_transfers_total{type=\"axfr\"}"), 2.0);
    let shown = &daemon.zone("a.test.")["secondaries"][0];
    assert_eq!((shown["address"].as_str(), shown["lag_seconds"].as_f64()), (Some("127.0.0.1:9"), Some(0.0)));
    assert_eq!(daemon.ask("a.test", "A").answers.len(), 3, "other queries are answered as before");
}

#[test]
fn changes_are_notified_until_they_are_acknowledged() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let secondary = Secondary::bind();
    let daemon = start("notify", &secondary.address(), &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    let (message, from) = secondary.notified("a.test");
    secondary.acknowledge(&message, from, OTHER_SECRET);
    wait::until("the forged answer to be counted", || {
        (daemon.metric("alternator_dns_notify_replies_ignored_total") == 1.0).then_some(())
    });
    let (message, from) = secondary.notified("a.test");
    secondary.acknowledge(&message, from, SECRET);
    wait::until("the acknowledgement", || {
        (daemon.metric("alternator_dns_notifies_total{result=\"acknowledged\"}") >= 1.0).then_some(())
    });
    cluster.stop(cluster.node(2));
    becomes(&daemon, "a.test", &cluster.nodes()[..2]);
    let (message, from) = secondary.notified("a.test");
    secondary.acknowledge(&message, from, SECRET);
    let serial = ask(daemon.address(), query("a.test", AXFR), Some(SECRET));
    assert_eq!(serial.answers.len(), 2 + 1 + 2, "the SOA twice, NS and two nodes");
}

#[test]
fn another_secret_is_used_without_a_reload_and_a_bad_one_changes_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = start("secret", "127.0.0.1:9", &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    let secret = daemon.config_path().with_file_name("secret");
    rename_over(&secret, "no secret at all");
    wait::until("the log to say so", || daemon.log().contains("transfers keep their secret").then_some(()));
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(SECRET)).rcode, "NoError");
    rename_over(&secret, OTHER_BASE64);
    wait::until("the other secret", || {
        (ask(daemon.address(), query("a.test", SOA), Some(OTHER_SECRET)).rcode == "NoError").then_some(())
    });
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(SECRET)).rcode, "NotAuth");
    let log = daemon.log();
    assert!(!log.contains(SECRET_BASE64.trim()) && !log.contains(OTHER_BASE64.trim()));
}

#[test]
fn a_reload_begins_and_ends_transfers() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = start("reloaded", "127.0.0.1:9", &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    assert_eq!(ask(daemon.address(), query("a.test", AXFR), Some(SECRET)).rcode, "NoError");
    let on = fs::read_to_string(daemon.config_path()).unwrap();
    let (server, rest) = on.split_once("[transfer]").unwrap();
    let (_, zones) = rest.split_once("\n\n").unwrap();
    rename_over(&daemon.config_path(), &format!("{server}{zones}"));
    wait::until("transfers to be off", || {
        (ask(daemon.address(), query("a.test", AXFR), None).rcode == "Refused"
            && daemon.zone("a.test.").get("secondaries").is_none())
        .then_some(())
    });
    rename_over(&daemon.config_path(), &on.replace("127.0.0.1:9", "127.0.0.2:9"));
    wait::until("another secondary", || {
        (daemon.zone("a.test.")["secondaries"][0]["address"] == "127.0.0.2:9").then_some(())
    });
    assert_eq!(ask(daemon.address(), query("a.test", AXFR), None).rcode, "Refused", "a strange address now");
    fs::write(daemon.config_path().with_file_name("secret"), "short").unwrap();
    rename_over(&daemon.config_path(), &on);
    let (code, _, complaint) = daemon.reload();
    assert!(code == 78 && complaint.contains("cannot use the secret_file"), "{code} {complaint}");
}

#[test]
fn serials_go_on_after_a_restart() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut daemon = start("serials", "127.0.0.1:9", &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    let serial = |daemon: &Daemon| daemon.zone("a.test.")["serial"].as_u64().unwrap();
    let before = serial(&daemon);
    let path = daemon.config_path().with_file_name("state").join("serials.json");
    wait::until("serials.json", || {
        fs::read_to_string(&path).is_ok_and(|text| text.contains(&before.to_string())).then_some(())
    });
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit(Duration::from_secs(10));
    let file = daemon.config_path();
    fs::remove_file(file.with_file_name("notify")).unwrap();
    let mut again = Daemon::launch_at(file.parent().unwrap().into(), &file);
    again.wait_ready();
    becomes(&again, "a.test", &cluster.nodes());
    assert!(serial(&again) > before);
}

/// What a secondary has is known from its transfers. One that asks for the SOA alone has the zone from elsewhere, or cannot
/// fetch it.
#[test]
fn a_secondary_that_asks_for_serials_and_fetches_nothing_is_shown_as_such() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = start("unconfirmed", "127.0.0.1:9", &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    let status = || daemon.command(&["status"]).1;
    let says = |sentence: &str| wait::until(sentence, || status().contains(sentence).then_some(()));
    let metric = |name: &str, zone: &str| {
        daemon.metric(&format!("alternator_dns_{name}{{zone=\"{zone}.\",secondary=\"127.0.0.1:9\"}}"))
    };
    says("secondary 127.0.0.1:9: lacks changes of 1 of 1 zone, for up to ");
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(OTHER_SECRET)).rcode, "NotAuth");
    assert!(
        metric("secondary_lag_seconds", "a.test") > 0.0 && metric("secondary_unconfirmed_seconds", "a.test") == 0.0
    );
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(SECRET)).rcode, "NoError");
    says("secondary 127.0.0.1:9: has asked for the serial of 1 of 1 zone and fetched nothing for up to ");
    assert!(!status().contains("lacks changes"), "{}", status());
    assert!(
        metric("secondary_unconfirmed_seconds", "a.test") > 0.0 && metric("secondary_lag_seconds", "a.test") == 0.0
    );
    let shown = &daemon.zone("a.test.")["secondaries"][0];
    assert!(shown["unconfirmed_seconds"].as_f64() > Some(0.0) && shown["serial"].is_null(), "{shown}");
    assert_eq!(ask(daemon.address(), query("a.test", AXFR), Some(SECRET)).rcode, "NoError");
    says("secondary 127.0.0.1:9: has all changes of 1 zone");
    assert_eq!(ask(daemon.address(), query("a.test", SOA), Some(SECRET)).rcode, "NoError");
    assert!(status().contains("has all changes of 1 zone"), "it refreshes: {}", status());
    assert_eq!(ask(daemon.address(), query("catalog.invalid", AXFR), Some(SECRET)).rcode, "NoError");
    let serial = daemon.metric("alternator_dns_catalog_serial{zone=\"catalog.invalid.\"}");
    wait::until("the catalog's serial to be the secondary's", || {
        (metric("secondary_serial", "catalog.invalid") == serial).then_some(())
    });
    assert!(serial > 1e9 && metric("secondary_lag_seconds", "catalog.invalid") == 0.0);
}

#[test]
fn transfers_are_in_the_query_log() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = start("transfer-log", "127.0.0.1:9", &seed(&cluster, "a.test", ""));
    becomes(&daemon, "a.test", &cluster.nodes());
    log_queries(&daemon, &["--zone", "a.test", "--for", "1h"]);
    for (query_type, secret) in
        [(AXFR, Some(SECRET)), (IXFR, Some(SECRET)), (SOA, Some(SECRET)), (AXFR, Some(OTHER_SECRET)), (AXFR, None)]
    {
        ask(daemon.address(), query("A.test", query_type), secret);
    }
    ask(daemon.address(), query("catalog.invalid", AXFR), Some(SECRET));
    let expected = [
        "type=AXFR transport=tcp rcode=NOERROR answers=5",
        "type=IXFR transport=tcp rcode=NOERROR answers=5",
        "type=SOA transport=tcp rcode=NOERROR answers=1",
        "type=AXFR transport=tcp rcode=NOTAUTH answers=0",
        "type=AXFR transport=tcp rcode=REFUSED answers=0",
    ];
    let expected = expected.map(|line| format!("client=127.0.0.1 name=a.test. {line}"));
    assert_eq!(wait_lines(&daemon, 5), expected);
    log_queries(&daemon, &["--client", "127.0.0.1", "--for", "1h"]);
    ask(daemon.address(), query("catalog.invalid", AXFR), Some(SECRET));
    let last = wait_lines(&daemon, 6);
    assert_eq!(
        last[5..],
        ["client=127.0.0.1 name=catalog.invalid. type=AXFR transport=tcp rcode=NOERROR answers=5"],
        "the SOA twice, NS, version and zone"
    );
}

#[test]
fn a_zone_is_given_over_tls_1_3_and_not_over_1_2() {
    let authority = Authority::new("ours");
    let certified = authority.certify([NAME]);
    let cluster = SimulatedCluster::start(1).unwrap();
    let directory = scratch("transfer-tls");
    fs::write(directory.join("cert.pem"), &certified.certificate).unwrap();
    fs::write(directory.join("key.pem"), &certified.key).unwrap();
    let tls = format!(
        "[server]\nlisten_tls = [\"127.0.0.1:0\"]\ntls = {{ cert = \"{0}/cert.pem\", key = \"{0}/key.pem\" }}\n",
        directory.display()
    );
    let text = config(&directory, "127.0.0.1:9", &seed(&cluster, "a.test", "")).replacen("[server]\n", &tls, 1);
    let file = directory.join("config.toml");
    fs::write(&file, text).unwrap();
    let mut daemon = Daemon::launch_at(directory, &file);
    daemon.wait_ready();
    becomes(&daemon, "a.test", &cluster.nodes());
    let server = daemon.secure_address("tls");
    let refused = || daemon.metric("alternator_dns_transfer_refusals_total{reason=\"old_tls\"}");
    let mut old = connect_with_tls_1_2(server, &authority).expect("DNS over TLS 1.2 is served");
    for query_type in [AXFR, IXFR] {
        let reply = ask_over(&mut old, query("a.test", query_type), Some(SECRET));
        assert_eq!((reply.rcode.as_str(), reply.answers.len()), ("Refused", 0));
    }
    assert_eq!(ask_over(&mut old, query("a.test", 1), None).answers.len(), 1, "other queries are answered");
    assert_eq!(refused(), 2.0);
    let mut new = connect(server, &authority).expect("a certificate that fits");
    assert_eq!(ask_over(&mut new, query("a.test", AXFR), Some(SECRET)).answers.len(), 4);
    assert_eq!(refused(), 2.0);
}

//! Names of no zone: forwarded to upstreams for allowed clients only.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use hickory_server::proto::op::ResponseCode;
use nix::sys::signal::Signal;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    ca::Authority,
    daemon::{Daemon, config, scratch, zone},
    dns::{self, Question, Reply},
    upstream::{Rejection, SLOW, Upstream},
    wait,
};

const PAYLOAD: u16 = 1232;

/// A reply comes within this also when no upstream answers: stub resolvers give up after five seconds.
const DEADLINE: Duration = Duration::from_millis(4500);

/// A question about a zone is answered within this, whatever upstreams do: a server that waited for them would take
/// longer. A machine that is not busy needs a thousandth.
const PROMPT: Duration = Duration::from_millis(1500);

/// An address that sends queries and is not an upstream.
const OTHER_CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 99));

fn upstream(last: u8) -> Upstream {
    Upstream::start([127, 0, 0, last])
}

/// `[forward]` to these upstreams, with these other keys.
fn forward(upstreams: &[&Upstream], keys: &str) -> String {
    let quoted: Vec<_> = upstreams.iter().map(|upstream| format!("\"{}\"", upstream.address)).collect();
    format!("[forward]\nupstreams = [{}]\n{keys}\n", quoted.join(", "))
}

/// A server with the zone `zone.alt.example`, the domain `alt.example` and this section.
fn start(name: &str, cluster: &SimulatedCluster, forward: &str) -> Daemon {
    Daemon::with_config(name, &file(cluster, forward))
}

fn file(cluster: &SimulatedCluster, forward: &str) -> String {
    let server = config(&(forward.to_owned() + &zone("zone.alt.example", cluster)));
    server.replacen("[server]\n", "[server]\ndomains = [\"alt.example\"]\n", 1)
}

/// Asks over UDP with EDNS.
#[track_caller]
fn ask(daemon: &Daemon, name: &str, qtype: &str) -> Reply {
    dns::udp(daemon.address(), &Question::new(name, qtype).edns(PAYLOAD))
}

/// The octets of the reply to these octets, asked from this address.
fn exchange(server: SocketAddr, client: IpAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((client, 0)).unwrap();
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    // The socket is connected, so a reply from another address is not received.
    socket.connect(server).unwrap();
    socket.send(message).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// Name, type, rcode, answers, authorities.
type Case<'c> = (&'c str, &'c str, &'c str, &'c [&'c str], &'c [&'c str]);

#[test]
fn upstream_records_are_returned_over_udp_and_tcp() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("forward", &cluster, &forward(&[&upstream], ""));
    let soa = "test. 30 IN SOA ns.test. mail.test. 7 60 10 3600 20";
    let a = "a.test. 60 IN A 192.0.2.1";
    let alias = "alias.test. 50 IN CNAME a.test.";
    let dead_end = "dead-end.test. 50 IN CNAME nothing.test.";
    let cases: [Case<'_>; 6] = [
        ("a.test", "A", "NoError", &[a], &[]),
        ("alias.test", "A", "NoError", &[alias, a], &[]),
        ("empty.test", "AAAA", "NoError", &[], &[soa]),
        ("none.test", "A", "NXDomain", &[], &[soa]),
        ("dead-end.test", "A", "NXDomain", &[dead_end], &[soa]),
        ("broken.test", "A", "ServFail", &[], &[]),
    ];
    for (name, qtype, rcode, answers, authorities) in cases {
        let question = Question::new(name, qtype);
        let replies =
            [dns::udp(daemon.address(), &question), dns::tcp(daemon.address(), &question.clone().edns(PAYLOAD))];
        for (reply, has_opt) in replies.into_iter().zip([false, true]) {
            assert_eq!(reply.rcode, rcode, "{name}");
            // A second may have passed since the first reply.
            let aged = |lines: &[String]| lines.iter().map(|line| without_ttl(line)).collect::<Vec<_>>();
            let expected = |lines: &[&str]| lines.iter().map(|line| without_ttl(line)).collect::<Vec<_>>();
            assert_eq!(aged(&reply.answers), expected(answers), "{name}");
            assert_eq!(aged(&reply.authorities), expected(authorities), "{name}");
            assert_eq!((reply.authoritative, reply.recursion_available, reply.has_opt), (false, true, has_opt));
            assert_eq!(reply.extended_errors, [0; 0]);
        }
    }
    let counted = |result| daemon.metric(&format!("alternator_dns_forwarded_total{{result=\"{result}\"}}"));
    assert_eq!(["answered", "negative", "failed", "overloaded"].map(counted), [6.0, 4.0, 2.0, 0.0]);
}

fn without_ttl(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    [&words[..1], &words[2..]].concat().join(" ")
}

#[test]
fn the_question_comes_back_octet_for_octet() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("spelling", &cluster, &forward(&[&upstream], ""));
    for name in ["A.teST", "a.TEst"] {
        let wire = Question::new(name, "A").wire();
        let reply = exchange(daemon.address(), [127, 0, 0, 1].into(), &wire);
        assert_eq!(reply[..4], [0x12, 0x34, 0x81, 0x80], "QR, RD and RA; not AA");
        assert_eq!(reply[12..wire.len()], wire[12..]);
        assert_eq!(reply.len(), wire.len() + 16, "the owner is compressed to the question");
    }
    assert_eq!(upstream.asked(), ["a.test. A udp"], "spellings are one name");
}

#[test]
fn long_answers_are_truncated_over_udp_and_whole_over_tcp() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("long", &cluster, &forward(&[&upstream], ""));
    let shape = |reply: Reply| (reply.truncated, reply.answers.len(), reply.has_opt);
    let middle = Question::new("middle.test", "TXT");
    assert_eq!(shape(dns::udp(daemon.address(), &middle)), (true, 0, false));
    assert_eq!(shape(dns::udp(daemon.address(), &middle.edns(PAYLOAD))), (false, 8, true));
    let big = Question::new("big.test", "TXT").edns(PAYLOAD);
    assert_eq!(shape(dns::udp(daemon.address(), &big)), (true, 0, true));
    assert_eq!(shape(dns::tcp(daemon.address(), &big)), (false, 200, true));
    assert!(upstream.asked().contains(&"big.test. TXT tcp".into()), "{:?}", upstream.asked());
}

#[test]
fn upstream_answers_are_cached_for_their_ttl() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("kept", &cluster, &forward(&[&upstream], ""));
    assert_eq!(ask(&daemon, "a.test", "A").ttls(), [60]);
    assert_eq!(ask(&daemon, "none.test", "A").rcode, "NXDomain");
    wait::until("the kept answer to age", || (ask(&daemon, "a.test", "A").ttls()[0] < 60).then_some(()));
    assert_eq!(ask(&daemon, "none.test", "A").rcode, "NXDomain");
    assert_eq!(upstream.asked(), ["a.test. A udp", "none.test. A udp"]);
}

#[test]
fn signatures_are_requested_when_the_client_wants_them() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("signed", &cluster, &forward(&[&upstream], ""));
    let mut wire = Question::new("a.test", "A").edns(PAYLOAD).wire();
    let flags = wire.len() - 4;
    for dnssec_ok in [0x80, 0x80, 0, 0] {
        wire[flags] = dnssec_ok;
        let reply = exchange(daemon.address(), [127, 0, 0, 1].into(), &wire);
        assert_eq!((reply[3], reply[reply.len() - 4]), (0x80, dnssec_ok), "DO comes back, AD is never set");
    }
    assert_eq!(upstream.asked(), ["a.test. A udp signed", "a.test. A udp"]);
}

#[test]
fn a_question_in_flight_is_answered_before_the_server_ends() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let mut daemon = start("end", &cluster, &forward(&[&upstream], ""));
    // Longer than the sockets take to close.
    upstream.delay(Duration::from_millis(500));
    thread::scope(|scope| {
        let server = daemon.address();
        let question = Question::new("a.test", "A");
        let reply = scope.spawn(move || dns::udp(server, &question));
        wait::until("the upstream to be asked", || (!upstream.asked().is_empty()).then_some(()));
        daemon.signal(Signal::SIGTERM);
        assert_eq!(reply.join().unwrap().rcode, "NoError");
    });
    assert!(daemon.wait_exit(wait::PATIENCE).success());
}

#[test]
fn the_next_upstream_answers_for_a_silent_one_and_for_one_that_is_gone() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let gone = upstream(7);
    let silent = upstream(8);
    let good = upstream(9);
    silent.silence(true);
    let section = forward(&[&gone, &silent, &good], "");
    drop(gone);
    let daemon = start("failover", &cluster, &section);
    let timed = |name: &str| {
        let start = Instant::now();
        assert_eq!(ask(&daemon, name, "A").data(), ["192.0.2.1"], "{name}");
        start.elapsed()
    };
    assert!(timed("any1.test") < DEADLINE);
    let start = Instant::now();
    (0..20).for_each(|number| _ = timed(&format!("any-more-{number}.test")));
    assert!(start.elapsed() < Duration::from_secs(5), "a silent upstream is not waited for again and again");
    assert!(silent.asked().len() < 10, "{:?}", silent.asked());
}

#[test]
fn the_next_upstream_is_asked_after_a_refusal() {
    // A server of ours without `[forward]` answers REFUSED.
    let cluster = SimulatedCluster::start(1).unwrap();
    let refusing = Daemon::start("refusing", &zone("other.example", &cluster));
    let good = upstream(9);
    let section = format!("[forward]\nupstreams = [\"{}\", \"{}\"]\n", refusing.address(), good.address);
    let daemon = start("refused", &cluster, &section);
    assert_eq!(ask(&daemon, "a.test", "A").data(), ["192.0.2.1"]);
}

#[test]
fn dead_upstreams_cost_zones_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let one = upstream(7);
    let two = upstream(8);
    one.silence(true);
    two.silence(true);
    let daemon = start("dead", &cluster, &forward(&[&one, &two], ""));
    thread::scope(|scope| {
        let foreign: Vec<_> = (0..20)
            .map(|number| {
                let daemon = &daemon;
                scope.spawn(move || {
                    let start = Instant::now();
                    let question = Question::new(&format!("any{number}.test"), "A").edns(PAYLOAD);
                    let reply = match number % 2 {
                        0 => dns::udp(daemon.address(), &question),
                        _ => dns::tcp(daemon.address(), &question),
                    };
                    (reply.rcode, reply.extended_errors, start.elapsed())
                })
            })
            .collect();
        let slowest = (0..2000)
            .map(|number| {
                let start = Instant::now();
                let question = Question::new("zone.alt.example", "A");
                let reply = match number % 20 {
                    0 => dns::tcp(daemon.address(), &question),
                    _ => dns::udp(daemon.address(), &question),
                };
                assert_eq!(reply.data(), [cluster.node(0).to_string()]);
                start.elapsed()
            })
            .max();
        assert!(slowest.unwrap() < PROMPT, "{slowest:?}");
        for thread in foreign {
            let (rcode, errors, took) = thread.join().unwrap();
            assert_eq!((&*rcode, &errors[..]), ("ServFail", &[23][..]));
            assert!(took < DEADLINE, "{took:?}");
        }
    });
    one.silence(false);
    wait::until("the upstream to be asked again", || (ask(&daemon, "a.test", "A").rcode == "NoError").then_some(()));
}

#[test]
fn too_many_questions_are_refused_at_once() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    upstream.silence(true);
    let daemon = start("flood", &cluster, &forward(&[&upstream], ""));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 512];
    // More than may be in flight; sent one at a time, so that no buffer of the kernel overflows.
    for number in 0..400 {
        let question = Question { id: number, ..Question::new(&format!("any{number}.test"), "A") };
        socket.send_to(&question.wire(), daemon.address()).unwrap();
        assert_eq!(ask(&daemon, "zone.alt.example", "A").rcode, "NoError");
    }
    let count = (0..400).filter(|_| socket.recv(&mut buffer).is_ok() && buffer[3] & 0x0F == 2).count();
    assert_eq!(count, 400, "every question is answered, with SERVFAIL");
    assert!(start.elapsed() < wait::PATIENCE);
    let overloaded = daemon.metric("alternator_dns_forwarded_total{result=\"overloaded\"}");
    assert!(overloaded > 0.0, "some at once");
    let failed = daemon.metric("alternator_dns_forwarded_total{result=\"failed\"}");
    assert_eq!(overloaded + failed, 400.0);
}

#[test]
fn questions_of_other_clients_are_not_forwarded() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("other_clients", &cluster, &forward(&[&upstream], "clients = [\"127.0.0.1\"]"));
    let as_stranger = |question: Question| {
        dns::udp_from(OTHER_CLIENT, daemon.address(), &question.edns(PAYLOAD), wait::PATIENCE).unwrap()
    };
    let reply = as_stranger(Question::new("a.test", "A"));
    assert_eq!((&*reply.rcode, &reply.extended_errors[..], reply.recursion_available), ("Refused", &[20][..], false));
    let reply = as_stranger(Question::new("zone.alt.example", "A"));
    assert_eq!((&*reply.rcode, reply.recursion_available), ("NoError", false));

    let mine = |question: Question| {
        let reply = dns::udp(daemon.address(), &question.edns(PAYLOAD));
        (reply.rcode, reply.recursion_available)
    };
    assert_eq!(mine(Question::new("zone.alt.example", "A")), ("NoError".into(), true), "also on the fast path");
    assert_eq!(mine(Question::new("zone.alt.example", "TXT")), ("NoError".into(), true));
    let not_desired = Question { recursion_desired: false, ..Question::new("a.test", "A") };
    for refused in [not_desired, Question::new("a.test", "AXFR"), Question::new("a.test", "TYPE250")] {
        assert_eq!(mine(refused), ("Refused".into(), true));
    }
    assert_eq!(mine(Question::new("a.test", "A").chaos()), ("Refused".into(), true));
    let mut notify = Question::new("a.test", "SOA").wire();
    notify[2] |= 4 << 3;
    let reply = exchange(daemon.address(), [127, 0, 0, 1].into(), &notify);
    assert_eq!(reply[3], 0x80 | 4, "NOTIMP, with RA");
    assert_eq!(upstream.asked(), [""; 0]);
    assert_eq!(mine(Question::new("a.test", "A")), ("NoError".into(), true));
}

#[test]
fn a_client_outside_the_server_s_list_is_refused_with_a_reason() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let text = file(&cluster, &forward(&[&upstream], "clients = [\"127.0.0.1\"]"));
    let text = text.replacen("[server]\n", "[server]\nclients = [\"127.0.0.1\"]\n", 1);
    let daemon = Daemon::with_config("explained", &text);
    let question = Question::new("a.test", "A").edns(PAYLOAD);
    let reply = dns::udp_from(OTHER_CLIENT, daemon.address(), &question, wait::PATIENCE).unwrap();
    assert_eq!((&*reply.rcode, &reply.extended_errors[..]), ("Refused", &[18][..]));
    assert_eq!(ask(&daemon, "a.test", "A").rcode, "NoError");
}

#[test]
fn names_of_zones_are_never_forwarded() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("secret", &cluster, &forward(&[&upstream], ""));
    for name in ["zone.alt.example", "below.zone.alt.example", "a.b.zone.alt.example", "alt.example", "x.alt.example"] {
        for qtype in ["A", "AAAA", "NS", "SOA", "TXT", "DS", "HTTPS", "ANY", "AXFR", "TYPE65280"] {
            let reply = ask(&daemon, name, qtype);
            assert_eq!(reply.authoritative, qtype != "AXFR", "{name} {qtype}");
        }
    }
    assert_eq!(upstream.asked(), [""; 0]);
    // What lies above a zone, and is no domain, is not ours.
    assert_eq!(ask(&daemon, "example", "TXT").rcode, "NXDomain");
    assert_eq!(upstream.asked(), ["example. TXT udp"]);
}

#[test]
fn an_edit_turns_it_on_and_off() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let one = upstream(7);
    let two = upstream(8);
    let daemon = start("edit", &cluster, "");
    let edit = |section: &str| {
        std::fs::write(daemon.config_path(), file(&cluster, section)).unwrap();
        assert_eq!(daemon.reload().0, 0);
    };
    let answer = |name| {
        let reply = ask(&daemon, name, "A");
        (reply.rcode, reply.extended_errors, reply.recursion_available)
    };
    let refused = ("Refused".into(), vec![20], false);
    let answered = ("NoError".into(), vec![], true);
    assert_eq!(answer("a.test"), refused);
    edit(&forward(&[&one], ""));
    assert_eq!(answer("a.test"), answered);
    edit(&forward(&[&one], "clients = [\"127.0.0.2\"]"));
    assert_eq!(answer("a.test"), refused);
    edit(&forward(&[&one], ""));
    assert_eq!(answer("a.test"), answered);
    assert_eq!(one.asked().len(), 1, "the cache of an upstream that stays is kept");
    edit(&forward(&[&two], ""));
    assert_eq!(answer("a.test"), answered);
    assert_eq!((one.asked().len(), two.asked().len()), (1, 1));
    edit("");
    assert_eq!(answer("a.test"), refused);
    assert_eq!(answer("zone.alt.example"), ("NoError".into(), vec![], false));
}

#[test]
fn a_reply_comes_from_the_address_that_was_asked() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let text = file(&cluster, &forward(&[&upstream], "")).replacen("\"127.0.0.1:0\"", "\"0.0.0.0:0\"", 1);
    let daemon = Daemon::with_config("source", &text);
    for last in [1, 5, 6] {
        let asked = SocketAddr::from(([127, 0, 0, last], daemon.address().port()));
        let reply = exchange(asked, OTHER_CLIENT, &Question::new(&format!("any{last}.test"), "A").wire());
        assert_eq!(reply[3] & 0x0F, 0);
    }
}

/// An upstream over TLS, and a server that asks it.
struct OverTls {
    upstream: Upstream,
    daemon: Daemon,
}

impl OverTls {
    fn start(name: &str, cluster: &SimulatedCluster) -> Self {
        let authority = Authority::new("trusted");
        let upstream = Upstream::start_tls([127, 0, 0, 7], tls_config(&authority));
        let directory = scratch(name);
        let authorities = directory.join("authorities.pem");
        let path = directory.join("config.toml");
        std::fs::write(&authorities, authority.pem()).unwrap();
        let section = format!("[forward]\nupstreams = [\"tls://{}#dns.example\"]\n", upstream.address);
        std::fs::write(&path, file(cluster, &section)).unwrap();
        let environment = [("RUST_LOG", "debug"), ("SSL_CERT_FILE", authorities.to_str().unwrap())];
        let mut daemon = Daemon::launch_with(directory, &path, &environment);
        daemon.wait_ready();
        Self { upstream, daemon }
    }
}

/// TLS with a certificate for `dns.example`.
fn tls_config(authority: &Authority) -> Arc<rustls::ServerConfig> {
    let certified = authority.certify(["dns.example"]);
    let chain = CertificateDer::pem_slice_iter(certified.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[test]
fn a_later_upstream_s_denial_or_error_waits_for_an_earlier_one() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let first = upstream(7);
    let second = upstream(8);
    first.slow_names();
    let daemon = start("denial", &cluster, &forward(&[&first, &second], ""));
    for (number, rcode) in
        [ResponseCode::NXDomain, ResponseCode::ServFail, ResponseCode::Refused].into_iter().enumerate()
    {
        second.only(Some(rcode));
        let start = Instant::now();
        assert_eq!(ask(&daemon, &format!("slow{number}.test"), "A").data(), ["192.0.2.1"], "{rcode}");
        assert!(start.elapsed() >= SLOW);
        let asked = second.asked().iter().any(|asked| asked.starts_with(&format!("slow{number}.")));
        assert!(asked, "{rcode}: the second replied meanwhile");
        assert_eq!(ask(&daemon, &format!("any{number}.test"), "A").data(), ["192.0.2.1"], "the first is asked first");
    }
    // It waits until the time is over, and is remembered for seconds only.
    second.only(Some(ResponseCode::NXDomain));
    first.silence(true);
    let start = Instant::now();
    let reply = ask(&daemon, "none.test", "A");
    assert_eq!((&*reply.rcode, reply.answers.len(), reply.authorities.len()), ("NXDomain", 0, 1));
    assert!((Duration::from_millis(3500)..DEADLINE).contains(&start.elapsed()), "{:?}", start.elapsed());
    let ttl: u32 = reply.authorities[0].split(' ').nth(1).unwrap().parse().unwrap();
    assert!(ttl <= 10, "{ttl}");
    wait::until("the first to be distrusted", || {
        let start = Instant::now();
        let name = format!("no{}.test", second.asked().len());
        assert_eq!(ask(&daemon, &name, "A").rcode, "NXDomain");
        (start.elapsed() < Duration::from_millis(500)).then_some(())
    });
}

#[test]
fn a_slow_name_does_not_make_its_upstream_distrusted() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let first = upstream(7);
    let second = upstream(8);
    first.slow_names();
    let daemon = start("slow_name", &cluster, &forward(&[&first, &second], ""));
    for number in 0..4 {
        // The second has the name after 0.75 s, and the first after 1.2 s.
        second.only(None);
        let start = Instant::now();
        assert_eq!(ask(&daemon, &format!("slow{number}.test"), "A").data(), ["192.0.2.1"]);
        assert!(start.elapsed() < SLOW, "records are not waited for");
        second.only(Some(ResponseCode::NXDomain));
        assert_eq!(ask(&daemon, &format!("any{number}.test"), "A").data(), ["192.0.2.1"], "of the first");
    }
    assert!(!second.asked().iter().any(|asked| asked.starts_with("any")), "{:?}", second.asked());
}

#[test]
fn ttls_are_capped_at_a_day_and_an_hour() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("capped", &cluster, &forward(&[&upstream], ""));
    for is_cached in [false, true] {
        let ttl = ask(&daemon, "week.test", "A").ttls()[0];
        assert!((86_300..=86_400).contains(&ttl), "{ttl} {is_cached}");
        let denial = ask(&daemon, "no-week.test", "A");
        let ttl: u32 = denial.authorities[0].split(' ').nth(1).unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&ttl), "{ttl} {is_cached}");
    }
    assert_eq!(upstream.asked().len(), 2);
}

#[test]
fn flush_removes_cached_answers() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("flush", &cluster, &forward(&[&upstream], ""));
    let names = ["a.test", "alias.test", "any1.test", "none.other"];
    let asked_again = || {
        let before = upstream.asked().len();
        names.iter().for_each(|name| _ = ask(&daemon, name, "A"));
        upstream.asked()[before..].iter().map(|asked| asked.split('.').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(asked_again().len(), names.len());
    assert_eq!(asked_again(), [""; 0]);
    let server = format!("process {} with the file {}", daemon.pid(), daemon.config_path().display());
    let (status, stdout, stderr) = daemon.command(&["flush", "a.test"]);
    let sentence = format!("{server}: 2 cached answers of upstreams for a.test. and names below it removed\n");
    assert_eq!((status, stdout, stderr), (0, sentence, String::new()));
    assert_eq!(asked_again(), ["a", "alias"]);
    assert_eq!(daemon.command(&["flush", "test."]).1.split(": ").nth(1).unwrap().split(' ').next(), Some("3"));
    assert_eq!(asked_again(), ["a", "alias", "any1"]);
    let (status, stdout, _) = daemon.command(&["flush"]);
    assert_eq!((status, stdout), (0, format!("{server}: 4 cached answers of upstreams removed\n")));
    assert_eq!(asked_again().len(), names.len());

    let (status, _, stderr) = daemon.command(&["flush", "a..test"]);
    assert_eq!(status, 2, "{stderr}");
    for (request, expected) in [
        ("GET /flush", "405"),
        ("POST /flush?name=%00", "422"),
        ("POST /flush?name=", "422"),
        ("POST /flush?name=a&name=b", "400"),
        ("POST /flush?name=other.", "200"),
    ] {
        let mut stream = UnixStream::connect(daemon.config_path().with_file_name("control.sock")).unwrap();
        stream.write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert_eq!(&reply[9..12], expected, "{request}");
    }
    assert_eq!(asked_again(), ["none"], "a request that is refused removes nothing");
    std::fs::write(daemon.config_path(), file(&cluster, "")).unwrap();
    assert_eq!(daemon.reload().0, 0);
    let (status, _, stderr) = daemon.command(&["flush"]);
    assert_eq!(status, 1);
    assert!(stderr.contains("forwards nothing, because the file has no section [forward]"), "{stderr}");
}

#[test]
fn an_upstream_without_edns_is_asked_again_without_an_opt() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("no_edns", &cluster, &forward(&[&upstream], ""));
    let rejections = [Rejection::FormErr, Rejection::FormErrWithoutQuestion, Rejection::NotImp];
    for (number, rejection) in rejections.into_iter().enumerate() {
        upstream.reject_edns(rejection);
        let start = Instant::now();
        assert_eq!(ask(&daemon, &format!("any{number}.test"), "A").data(), ["192.0.2.1"], "{rejection:?}");
        assert!(start.elapsed() < PROMPT, "{rejection:?} {:?}", start.elapsed());
    }
    assert_eq!(upstream.asked().len(), 6);
}

#[test]
fn an_alias_into_a_zone_or_domain_is_answered_here() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let daemon = start("alias", &cluster, &forward(&[&upstream], ""));
    let node = format!("Zone.alt.example. IN A {}", cluster.node(0));
    let to_zone = "to-zone.test. IN CNAME Zone.alt.example.";
    let soa_of = |reply: &Reply| reply.authorities.first().map(|line| line.split(' ').next().unwrap().to_lowercase());
    // The second time from the cache.
    for question in [Question::new, |name: &str, qtype: &str| Question::new(name, qtype).edns(PAYLOAD)] {
        let ask = |name: &str, qtype: &str| {
            let reply = dns::udp(daemon.address(), &question(name, qtype));
            assert!(!reply.authoritative && reply.recursion_available && !reply.truncated);
            reply
        };
        let lines = |reply: &Reply| reply.answers.iter().map(|line| without_ttl(line)).collect::<Vec<_>>();
        let reply = ask("to-zone.test", "A");
        assert_eq!((&*reply.rcode, lines(&reply)), ("NoError", vec![to_zone.to_owned(), node.clone()]));
        assert_eq!((reply.ttls()[1], soa_of(&reply)), (4, None), "the TTL of the zone");
        let reply = ask("far-from-zone.test", "A");
        let mut expected = vec![to_zone.to_owned(), "far-from-zone.test. IN CNAME to-zone.test.".into(), node.clone()];
        assert_eq!((&*reply.rcode, lines(&reply)), ("NoError", expected.clone()));
        let reply = ask("to-unknown-zone.test", "A");
        expected = vec!["to-unknown-zone.test. IN CNAME Zone.alt.example.".into(), node.clone()];
        assert_eq!((&*reply.rcode, lines(&reply), soa_of(&reply)), ("NoError", expected, None));
        let reply = ask("to-zone.test", "AAAA");
        assert_eq!((&*reply.rcode, lines(&reply)), ("NoError", vec![to_zone.to_owned()]));
        assert_eq!(soa_of(&reply).as_deref(), Some("zone.alt.example."));
        let reply = ask("to-below.test", "A");
        assert_eq!((&*reply.rcode, reply.answers.len()), ("NXDomain", 1));
        assert_eq!(soa_of(&reply).as_deref(), Some("zone.alt.example."));
        let reply = ask("to-domain.test", "A");
        assert_eq!((&*reply.rcode, reply.answers.len()), ("NoError", 1));
        assert_eq!(soa_of(&reply).as_deref(), Some("alt.example."));
        assert_eq!(
            ask("to-zone.test", "TYPE5").data(),
            ["Zone.alt.example.", "203.0.113.9"],
            "the alias itself is wanted"
        );
        assert_eq!(ask("loop.test", "A").answers.len(), 2, "a loop ends");
    }
}

#[test]
fn an_alias_into_a_zone_that_is_closed_to_the_client_is_refused() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let text = file(&cluster, &forward(&[&upstream], "")) + "clients = [\"127.0.0.2\"]\n";
    let daemon = Daemon::with_config("closed_alias", &text);
    let reply = ask(&daemon, "to-zone.test", "A");
    assert_eq!((&*reply.rcode, reply.answers.len(), &reply.extended_errors[..]), ("Refused", 1, &[18][..]));
}

#[test]
fn a_dead_connection_is_replaced_within_the_question() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let OverTls { upstream, daemon } = OverTls::start("dead_tls", &cluster);
    assert_eq!(ask(&daemon, "any1.test", "A").data(), ["192.0.2.1"]);
    upstream.kill_connections_silently();
    assert_eq!(ask(&daemon, "any2.test", "A").data(), ["192.0.2.1"]);
    let start = Instant::now();
    assert_eq!(ask(&daemon, "any3.test", "A").data(), ["192.0.2.1"]);
    assert!(start.elapsed() < Duration::from_millis(900), "the fresh connection is kept: {:?}", start.elapsed());
    upstream.kill_connections_silently();
    let replies: Vec<_> = thread::scope(|scope| {
        let daemon = &daemon;
        let ask = |number| scope.spawn(move || ask(daemon, &format!("any-more-{number}.test"), "A").rcode);
        let threads: Vec<_> = (0..20).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(replies, ["NoError"; 20]);
}

#[test]
fn a_connection_that_never_answered_is_given_up_although_questions_come() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let OverTls { upstream, daemon } = OverTls::start("mute_tls", &cluster);
    upstream.silence(true);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(daemon.address()).unwrap();
    socket.send(&Question::new("any0.test", "A").wire()).unwrap();
    wait::until("the first question to arrive", || (!upstream.asked().is_empty()).then_some(()));
    upstream.kill_connections_silently();
    upstream.silence(false);
    let mut number = 0;
    wait::until("a fresh connection", || {
        number += 1;
        (ask(&daemon, &format!("any{number}.test"), "A").rcode == "NoError").then_some(())
    });
}

#[test]
fn many_clients_that_ask_for_the_same_dead_name_cost_others_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    let section = forward(&[&upstream], "clients = [\"127.0.0.0/8\"]");
    let daemon = start("same", &cluster, &section);
    let clients: Vec<_> = (0..300_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let client = UdpSocket::bind((IpAddr::from([127, 9, high, low]), 0)).unwrap();
            client.connect(daemon.address()).unwrap();
            client
        })
        .collect();
    for round in 0..3 {
        for client in &clients {
            client.send(&Question::new("dead.test", "A").wire()).unwrap();
        }
        for number in 0..50 {
            assert_eq!(ask(&daemon, &format!("any-{round}-{number}.test"), "A").rcode, "NoError", "a fresh name");
        }
    }
}

#[test]
fn a_message_with_another_question_or_none_is_no_reply() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = upstream(7);
    upstream.forge();
    let daemon = start("forged", &cluster, &forward(&[&upstream], ""));
    assert_eq!(ask(&daemon, "a.test", "A").data(), ["192.0.2.1"]);
    let big = dns::tcp(daemon.address(), &Question::new("big.test", "TXT"));
    assert_eq!((&*big.rcode, big.answers.len()), ("NoError", 200), "over TCP");
    assert!(upstream.asked().contains(&"big.test. TXT tcp".into()));
    let OverTls { upstream, daemon } = OverTls::start("forged_tls", &cluster);
    upstream.forge();
    assert_eq!(ask(&daemon, "a.test", "A").data(), ["192.0.2.1"], "over TLS");
}

#[test]
fn a_client_with_many_dead_names_costs_others_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstreams = [upstream(7), upstream(8), upstream(9)];
    let section = forward(&upstreams.each_ref(), "clients = [\"127.0.0.0/8\"]");
    let daemon = start("fair", &cluster, &section);
    let sockets = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert_eq!(ask(&daemon, "a.test", "A").rcode, "NoError");
    let sockets_before = sockets();
    let flood = UdpSocket::bind((OTHER_CLIENT, 0)).unwrap();
    flood.connect(daemon.address()).unwrap();
    let start = Instant::now();
    let mut most_sockets = 0;
    for round in 0..4 {
        for number in 0..300 {
            flood.send(&Question::new(&format!("n{round}-{number}.dead.test"), "A").wire()).unwrap();
        }
        for number in 0..50 {
            assert_eq!(ask(&daemon, "a.test", "A").data(), ["192.0.2.1"], "a cached name");
            assert_eq!(ask(&daemon, &format!("any-{round}-{number}.test"), "A").rcode, "NoError", "a fresh name");
            most_sockets = most_sockets.max(sockets() - sockets_before);
        }
        wait::until("a second", || {
            most_sockets = most_sockets.max(sockets() - sockets_before);
            (start.elapsed() > Duration::from_secs(round + 1)).then_some(())
        });
    }
    assert!(most_sockets <= 464, "{most_sockets} sockets for 256 questions to three upstreams");
    assert!(most_sockets > 256, "more than one for each question: {most_sockets}");
}

#[test]
fn an_upstream_over_tls_must_have_a_certificate_for_its_name() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let trusted = Authority::new("trusted");
    let other = Authority::new("other");
    let upstream = |last: u8, authority: &Authority| Upstream::start_tls([127, 0, 0, last], tls_config(authority));
    let good = upstream(7, &trusted);
    let false_friend = upstream(8, &other);
    let directory = scratch("tls-upstream");
    let authorities = directory.join("authorities.pem");
    let path = directory.join("config.toml");
    std::fs::write(&authorities, trusted.pem()).unwrap();
    let environment = [("RUST_LOG", "debug"), ("SSL_CERT_FILE", authorities.to_str().unwrap())];
    let section = |upstream: &Upstream, name: &str| {
        file(&cluster, &format!("[forward]\nupstreams = [\"tls://{}#{name}\"]\n", upstream.address))
    };
    std::fs::write(&path, section(&good, "dns.example")).unwrap();
    let mut daemon = Daemon::launch_with(directory, &path, &environment);
    daemon.wait_ready();
    assert_eq!(ask(&daemon, "a.test", "A").data(), ["192.0.2.1"]);
    assert_eq!(ask(&daemon, "big.test", "TXT").rcode, "NoError");
    assert_eq!(good.asked(), ["a.test. A tls", "big.test. TXT tls"]);
    for (upstream, name) in [(&false_friend, "dns.example"), (&good, "other.example")] {
        std::fs::write(&path, section(upstream, name)).unwrap();
        assert_eq!(daemon.reload().0, 0);
        let reply = ask(&daemon, "any.test", "A");
        assert_eq!((&*reply.rcode, &reply.extended_errors[..]), ("ServFail", &[23][..]), "{name}");
    }
    assert_eq!((good.asked().len(), false_friend.asked().len()), (2, 0));
}

//! Over real sockets on loopback addresses. Each wait has a condition and a deadline.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    bind_error::{DNS_PORT, STUB_LISTENERS, is_stub},
    *,
};
use crate::{
    metrics::{IgnoreReason, ProcessCounters, QueryType, Rcode, Transport},
    table::{Knowledge, SharedTable, ZoneEntry, ZoneSettings, ZoneTable},
    types::{NodeSet, ZoneName},
};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A question for A of `a.test`, with an identity of its own.
fn question(id: u16) -> Vec<u8> {
    [&id.to_be_bytes(), &b"\0\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01"[..]].concat()
}

/// Length and message, as TCP carries it.
fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Whether a reply answers the question with the only node.
fn is_answer(reply: &[u8], id: u16) -> bool {
    reply.starts_with(&id.to_be_bytes()) && reply[3] & 0x0F == 0 && reply.ends_with(&[10, 0, 0, 1])
}

/// Containers often have no IPv6, not even on loopback.
fn can_listen(listen: &str) -> bool {
    !listen.starts_with('[') || UdpSocket::bind("[::1]:0").is_ok()
}

struct World {
    runtime: runtime::Runtime,
    counters: Arc<ProcessCounters>,
    failures: UnboundedReceiver<String>,
    serving: Option<Serving>,
    address: SocketAddr,
}

impl World {
    fn start(listen: &str, workers: usize) -> Self {
        Self::serve(Bound::bind(listen.parse().unwrap(), workers, &KeptSockets::default()).unwrap())
    }

    fn serve(bound: Bound) -> Self {
        let table = SharedTable::default();
        let entry = Arc::new(ZoneEntry::new(ZoneName::parse("a.test").unwrap(), ZoneSettings::example(), 1));
        let nodes = NodeSet::new(["10.0.0.1".parse().unwrap()]).unwrap();
        entry.learn(&Knowledge::up(&nodes, crate::types::ZoneState::Live), 1);
        table.replace(ZoneTable::new([entry]));
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let counters = Arc::new(ProcessCounters::default());
        let (failed, failures) = unbounded_channel();
        let address = bound.local_address();
        let supervision = Supervision { failures: failed, beats: Beats::default(), hand_over: HandOver::default() };
        let (forwarder, _) = Forwarder::new(table.clone(), counters.clone());
        let service = Service::new(table, counters.clone(), forwarder);
        let serving = bound.serve(service, ConnectionLimits::new(Limits::default()), runtime.handle(), supervision);
        Self { runtime, counters, failures, serving: Some(serving), address }
    }

    fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.runtime.block_on(self.serving.take().unwrap().stop());
        assert!(self.failures.try_recv().is_err(), "nothing has failed");
        start.elapsed()
    }

    fn client(&self) -> UdpSocket {
        let any: IpAddr = if self.address.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&ProcessCounters) -> bool) {
        let start = Instant::now();
        while !condition(&self.counters) {
            assert!(start.elapsed() < DEADLINE, "{what}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn udp_answers_each_question_with_its_identity() {
    let mut world = World::start("127.0.0.1:0", 2);
    let client = world.client();
    let mut buffer = [0; 600];
    for id in 0..200 {
        client.send_to(&question(id), world.address).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, world.address);
        assert!(is_answer(&buffer[..length], id), "{id}");
    }
    client.send_to(&[0; 5], world.address).unwrap();
    world.wait_for("the short message is counted", |counters| counters.ignored.of(IgnoreReason::Short).value() == 1);
    assert!(world.stop() < Duration::from_secs(1));
}

#[test]
fn ipv6_is_served_by_sockets_of_its_own() {
    if !can_listen("[::1]:0") {
        return;
    }
    let mut world = World::start("[::1]:0", 1);
    let client = world.client();
    client.send_to(&question(1), world.address).unwrap();
    let mut buffer = [0; 600];
    let length = client.recv(&mut buffer).unwrap();
    assert!(is_answer(&buffer[..length], 1));
    world.stop();
}

#[test]
fn a_wildcard_replies_from_the_address_that_was_asked() {
    for (listen, asked) in [("0.0.0.0:0", &["127.0.0.2", "127.0.0.1", "127.0.0.3"][..]), ("[::]:0", &["::1"][..])] {
        if !can_listen(listen) {
            continue;
        }
        let mut world = World::start(listen, 1);
        let client = UdpSocket::bind((if listen.starts_with('0') { "0.0.0.0" } else { "::" }, 0)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        // Several batches, in which the addresses alternate.
        let mut waiting = Vec::new();
        for id in 0..90 {
            let to: IpAddr = asked[usize::from(id) % asked.len()].parse().unwrap();
            client.send_to(&question(id), (to, world.address.port())).unwrap();
            waiting.push((to, id));
        }
        let mut buffer = [0; 600];
        while !waiting.is_empty() {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            let id = u16::from_be_bytes([buffer[0], buffer[1]]);
            assert!(is_answer(&buffer[..length], id));
            let at = waiting.iter().position(|&(to, of)| of == id && to == from.ip()).expect("the asked address");
            waiting.remove(at);
        }
        world.stop();
    }
}

#[test]
fn stopping_answers_what_is_queued() {
    for (listen, asked) in [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.2"), ("[::]:0", "::1")] {
        if !can_listen(listen) {
            continue;
        }
        // The socket is not read yet, so the questions queue up; then it is served and stopped at once.
        let bound = Bound::bind(listen.parse().unwrap(), 2, &KeptSockets::default()).unwrap();
        let asked = SocketAddr::new(asked.parse().unwrap(), bound.local_address().port());
        let client = UdpSocket::bind(if asked.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut streams: Vec<_> = (0..20).map(|_| TcpStream::connect(asked).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(&framed(&question(7))).unwrap();
        }
        const QUEUED: u16 = 150;
        for id in 0..QUEUED {
            client.send_to(&question(id), asked).unwrap();
        }
        let mut world = World::serve(bound);
        assert!(world.stop() < Duration::from_secs(1));
        let mut buffer = [0; 600];
        for _ in 0..QUEUED {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(from, asked);
            assert!(is_answer(&buffer[..length], u16::from_be_bytes([buffer[0], buffer[1]])));
        }
        for stream in &mut streams {
            assert!(is_answer(&read_frame(stream).unwrap(), 7));
            assert_eq!(stream.read(&mut buffer).unwrap(), 0, "closed afterwards");
        }
        assert_eq!(world.counters.tcp_connections.value(), 0);
        Bound::bind(world.address, 1, &KeptSockets::default()).expect("the port is free again");
    }
}

#[test]
fn stopping_under_load_answers_all_that_the_kernel_took() {
    let mut world = World::start("127.0.0.1:0", 2);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(world.address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    let serving = world.serving.take().unwrap();
    let stopped = world.runtime.spawn(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        serving.stop().await;
    });
    // One question at a time: the first that is not taken is refused at once, and no other was lost.
    let mut buffer = [0; 600];
    let start = Instant::now();
    let mut answered = 0;
    for id in 0.. {
        if client.send(&question(id)).is_err() {
            break;
        }
        match client.recv(&mut buffer) {
            Ok(length) => assert!(is_answer(&buffer[..length], id)),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                break;
            }
        }
        answered += 1;
        assert!(start.elapsed() < DEADLINE);
    }
    assert!(answered > 0);
    world.runtime.block_on(stopped).unwrap();
}

#[test]
fn an_address_that_is_taken_is_refused_with_a_sentence() {
    let first = Bound::bind("127.0.0.1:0".parse().unwrap(), 2, &KeptSockets::default()).unwrap();
    let address = first.local_address();
    let diagnostic = |address| Bound::bind(address, 1, &KeptSockets::default()).unwrap_err().to_string();
    let sentence = |address| {
        format!(
            "another program (or a second copy of alternator-dns) already listens on {address}; stop it or change `listen`"
        )
    };
    assert_eq!(diagnostic(address), sentence(address));
    drop(first);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(diagnostic(tcp.local_addr().unwrap()), sentence(tcp.local_addr().unwrap()));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(diagnostic(udp.local_addr().unwrap()), sentence(udp.local_addr().unwrap()));
    let denied = BindError::new("listen", address, io::ErrorKind::PermissionDenied.into()).to_string();
    assert!(denied.contains("CAP_NET_BIND_SERVICE"), "{denied}");
}

#[test]
fn an_address_that_no_interface_has_is_bound_all_the_same() {
    for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let address = address.parse().unwrap();
        assert!(!has_address(address));
        assert_eq!(Bound::bind(address, 2, &KeptSockets::default()).unwrap().local_address().ip(), address.ip());
    }
    for address in ["127.0.0.9:53", "0.0.0.0:53", "[::1]:53", "[::]:53"] {
        assert!(has_address(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn the_stub_listener_of_systemd_resolved_differs_from_other_programs() {
    for stub in STUB_LISTENERS {
        let resolved = TcpListener::bind((stub, 0)).unwrap();
        let port = resolved.local_addr().unwrap().port();
        for wanted in [stub, Ipv4Addr::UNSPECIFIED] {
            let wanted = SocketAddr::from((wanted, port));
            assert!(Bound::bind(wanted, 1, &KeptSockets::default()).is_err() && is_stub(wanted), "{wanted}");
        }
        assert!(!is_stub(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        drop(resolved);
        let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        assert!(!is_stub(other.local_addr().unwrap()) && !is_stub(SocketAddr::from((stub, port))));
    }
    let sentence = |ip| {
        let address = SocketAddr::from((ip, DNS_PORT));
        BindError::Stub { key: "listen", address }.to_string()
    };
    assert_eq!(
        sentence(Ipv4Addr::UNSPECIFIED),
        "systemd-resolved already listens on port 53 of 0.0.0.0; set DNSStubListener=no in /etc/systemd/resolved.conf \
         and restart systemd-resolved, or write an address of this host in `listen`, such as \"127.0.0.1:53\""
    );
}

#[test]
fn tcp_answers_pipelined_and_fragmented_questions() {
    let mut world = World::start("127.0.0.1:0", 1);
    let mut stream = world.connect();
    stream.write_all(&[framed(&question(1)), framed(&question(2)), framed(&question(3))].concat()).unwrap();
    for id in 1..=3 {
        assert!(is_answer(&read_frame(&mut stream).unwrap(), id));
    }
    stream.set_nodelay(true).unwrap();
    for octet in framed(&question(4)) {
        stream.write_all(&[octet]).unwrap();
    }
    assert!(is_answer(&read_frame(&mut stream).unwrap(), 4));
    assert_eq!(world.counters.tcp_connections.value(), 1);
    assert!(world.stop() < Duration::from_secs(1), "an idle connection does not hold it up");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn tcp_closes_after_a_message_without_reply() {
    let mut world = World::start("127.0.0.1:0", 1);
    let mut reply_to_us = question(9);
    reply_to_us[2] = 0x80;
    for message in [&[][..], &[1, 2, 3], &reply_to_us] {
        let mut stream = world.connect();
        stream.write_all(&framed(message)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    let mut stream = world.connect();
    let mut malformed = question(9);
    malformed[5] = 2;
    stream.write_all(&framed(&malformed)).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap()[3], 1, "FORMERR");
    drop(stream);
    world.wait_for("all connections are closed", |counters| counters.tcp_connections.value() == 0);
    let formerr = world.counters.no_zone.of(QueryType::Other, Rcode::FormErr, Transport::Tcp);
    assert_eq!(formerr.value(), 1);
    world.stop();
}

#[test]
fn a_client_with_too_many_connections_loses_its_longest_idle() {
    let mut world = World::start("127.0.0.1:0", 1);
    let most = Limits::default().max_per_client;
    let mut streams: Vec<_> = (0..=most)
        .map(|_| {
            let mut stream = world.connect();
            stream.write_all(&framed(&question(1))).unwrap();
            assert!(is_answer(&read_frame(&mut stream).unwrap(), 1));
            stream
        })
        .collect();
    assert_eq!(streams[0].read(&mut [0]).unwrap(), 0, "the first was idle for longest");
    let last = streams.last_mut().unwrap();
    last.write_all(&framed(&question(2))).unwrap();
    assert!(is_answer(&read_frame(last).unwrap(), 2));
    world.wait_for("the gauge follows", |counters| counters.tcp_connections.value() == most as u64);
    world.stop();
}

#[test]
fn a_panic_is_reported_by_name() {
    let (failures, mut reported) = unbounded_channel();
    let guard = FailureGuard { name: "udp-0 on 127.0.0.1:53".into(), failures };
    let thread = thread::spawn(move || {
        let _guard = guard;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(reported.try_recv().unwrap(), "udp-0 on 127.0.0.1:53 (panicked)");
}

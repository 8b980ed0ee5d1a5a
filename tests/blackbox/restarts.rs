//! Restarts by a service manager that keeps the sockets: what clients ask meanwhile waits for the next process.

use std::{
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    daemon::zone,
    dns::{self, Question},
    service_manager::{Service, free_address},
    wait,
};

/// Clients, so that every worker's socket gets questions: the kernel chooses it by the client's port.
const CLIENTS: usize = 16;

/// Datagrams that a worker receives at once (`BATCH` in `server/udp/batch.rs`): what a killed process may lose of each
/// socket.
const BATCH: usize = 32;

/// Between two questions of all clients: 2,000 a second.
const PAUSE: Duration = Duration::from_micros(500);

/// After the last question: for the answers that are still to come.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Clients that ask all the time, each question once.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(usize, usize)>,
}

impl Load {
    fn start(server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let clients: Vec<_> = (0..CLIENTS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
            let (mut asked, mut answered) = (0, 0);
            let question = Question::new("a.example", "A").wire();
            let mut count = || {
                let answers =
                    clients.iter().map(|client| std::iter::from_fn(|| client.recv(&mut [0; 512]).ok()).count());
                answered += answers.sum::<usize>();
                answered
            };
            let start = Instant::now();
            while !stopped.load(Relaxed) {
                if start.elapsed() < PAUSE * u32::try_from(asked).unwrap() {
                    count();
                    thread::sleep(PAUSE / 4);
                    continue;
                }
                clients[asked % CLIENTS].send_to(&question, server).unwrap();
                asked += 1;
            }
            let last = Instant::now();
            while count() < asked && last.elapsed() < LAST_ANSWERS {
                thread::sleep(Duration::from_millis(5));
            }
            (asked, count())
        });
        Self { stop, thread }
    }

    /// Questions, and how many of them were not answered.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Relaxed);
        let (asked, answered) = self.thread.join().unwrap();
        (asked, asked - answered)
    }
}

fn file(listen: &[SocketAddr], cluster: &SimulatedCluster) -> String {
    let listen: Vec<_> = listen.iter().map(|address| format!("\"{address}\"")).collect();
    format!("[server]\nlisten = [{}]\n{}", listen.join(", "), zone("a.example", cluster))
}

fn answers(address: SocketAddr) {
    assert_eq!(dns::udp(address, &Question::new("a.example", "SOA")).rcode, "NoError");
    let mut stream = TcpStream::connect(address).unwrap();
    dns::send(&mut stream, &Question::new("a.example", "SOA"));
    assert_eq!(dns::receive(&mut stream).unwrap().rcode, "NoError");
}

/// Whether nothing listens on an address: datagrams and connections are refused.
fn is_closed(address: SocketAddr) -> bool {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    client.connect(address).unwrap();
    let refused = client.send(b"?").is_ok_and(|_| {
        client.recv(&mut [0; 512]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    refused && TcpStream::connect(address).is_err()
}

fn cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

/// Runs what this thread starts from now on, on these cores: a server has a UDP worker for each.
fn run_on(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).unwrap();
}

#[test]
fn a_restart_loses_no_question() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let [address, admin] = ["127.0.0.1", "127.0.0.2"].map(free_address);
    let config = file(&[address], &cluster).replace("[server]", &format!("[server]\nadmin = \"{admin}\""));
    let mut service = Service::new("restart", &config);
    service.start();
    let names = service.names();
    assert!(names.contains(&format!("admin-127.0.0.2_{}", admin.port())), "{names:?}");
    assert!(names.contains(&format!("tcp-127.0.0.1_{}", address.port())), "{names:?}");
    assert!(names.contains(&format!("udp-0-127.0.0.1_{}", address.port())), "{names:?}");
    let load = Load::start(address);
    for _ in 0..3 {
        // A connection that nothing accepts before the next process.
        assert_eq!(service.end(Signal::SIGTERM).code(), Some(0));
        let mut stream = TcpStream::connect(address).unwrap();
        dns::send(&mut stream, &Question::new("a.example", "SOA"));
        let health = thread::spawn(move || crate::http::get(admin, "/healthz"));
        service.start();
        assert_eq!(health.join().unwrap().unwrap().0, 200, "also the admin interface waits");
        assert_eq!(dns::receive(&mut stream).unwrap().rcode, "NoError");
        assert_eq!(service.names(), names, "each socket is kept once");
    }
    let (asked, lost) = load.end();
    eprintln!("three restarts lost {lost} of {asked} questions");
    assert_eq!(lost, 0, "of {asked}");
    answers(address);
}

#[test]
fn a_killed_process_loses_at_most_what_it_had_received() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let address = free_address("127.0.0.1");
    let mut service = Service::new("killed", &file(&[address], &cluster));
    service.start();
    let sockets = service.names().len() - 1;
    let load = Load::start(address);
    let kills = 3;
    for _ in 0..kills {
        service.end(Signal::SIGKILL);
        service.start();
    }
    let (asked, lost) = load.end();
    eprintln!("{kills} kills lost {lost} of {asked} questions");
    assert!(lost <= kills * BATCH * sockets, "{lost} of {asked}");
    answers(address);
}

#[test]
fn addresses_that_change_while_nothing_runs_are_closed_and_bound() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let [stays, goes, comes] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(free_address);
    let mut service = Service::new("edited", &file(&[stays, goes], &cluster));
    service.start();
    let before = service.names().len();
    service.end(Signal::SIGTERM);
    service.configure(&file(&[comes, stays], &cluster));
    // What is queued where nothing listens any more is answered, as when a running server closes an address.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&Question::new("a.example", "SOA").wire(), goes).unwrap();
    service.start();
    answers(stays);
    answers(comes);
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(client.recv(&mut [0; 512]).is_ok());
    wait::until("the former address to close", || is_closed(goes).then_some(()));
    let names = service.names();
    assert_eq!(names.len(), before, "{names:?}");
    assert!(names.iter().all(|name| !name.contains("127.0.0.2")), "{names:?}");
    // From an address to the wildcard of its port, and back.
    for ip in ["0.0.0.0", "127.0.0.3"] {
        let wanted = SocketAddr::new(ip.parse().unwrap(), comes.port());
        service.end(Signal::SIGTERM);
        service.configure(&file(&[wanted, stays], &cluster));
        service.start();
        answers(comes);
        answers(stays);
        let name = format!("tcp-{ip}_{}", comes.port());
        wait::until("the new socket to be kept", || service.names().contains(&name).then_some(()));
        assert_eq!(service.names().len(), before, "{:?}", service.names());
    }
}

#[test]
fn a_reload_has_the_sockets_of_a_former_address_removed() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let [stays, goes] = ["127.0.0.1", "127.0.0.2"].map(free_address);
    let mut service = Service::new("reloaded", &file(&[stays, goes], &cluster));
    service.start();
    let before = service.names();
    for round in 0..2 {
        service.configure(&file(&[stays], &cluster));
        assert_eq!(service.reload(), 0);
        wait::until("the address to close", || is_closed(goes).then_some(()));
        assert_eq!(service.names().len(), before.len() / 2, "{round}");
        service.configure(&file(&[stays, goes], &cluster));
        assert_eq!(service.reload(), 0);
        answers(goes);
        wait::until("the sockets to be kept", || (service.names() == before).then_some(()));
    }
}

#[test]
fn sockets_of_workers_that_no_longer_exist_get_no_questions() {
    let all = cores();
    if all.len() < 2 {
        eprintln!("skipped here: this machine has one core");
        return;
    }
    let cluster = SimulatedCluster::start(2).unwrap();
    let address = free_address("127.0.0.1");
    let mut service = Service::new("workers", &file(&[address], &cluster));
    run_on(&all[..2]);
    service.start();
    assert_eq!(service.names().len(), 3);
    let load = Load::start(address);
    for workers in [1, 2, 1] {
        service.end(Signal::SIGTERM);
        run_on(&all[..workers]);
        service.start();
        wait::until("as many sockets as workers", || (service.names().len() == workers + 1).then_some(()));
        for _ in 0..CLIENTS {
            answers(address);
        }
    }
    run_on(&all);
    let (asked, lost) = load.end();
    assert_eq!(lost, 0, "of {asked}");
}

#[test]
fn a_kept_socket_that_is_not_what_its_name_says_is_not_taken() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let address = free_address("127.0.0.1");
    let mut service = Service::new("unnamed", &file(&[address], &cluster));
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unknown = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let tcp = format!("tcp-127.0.0.1_{}", address.port());
    let udp = format!("udp-0-127.0.0.1_{}", address.port());
    service.state().store.extend([
        (udp.clone(), OwnedFd::from(other)),
        ("another.socket".into(), unknown.into()),
        (udp, std::fs::File::open("/dev/null").unwrap().into()),
        (tcp, stream.unwrap().into()),
    ]);
    service.start();
    answers(address);
    let names = service.names();
    wait::until("every socket to be kept once", || (service.names() == dedup(&service)).then_some(()));
    assert!(!names.contains(&"another.socket".to_owned()), "{names:?}");
}

fn dedup(service: &Service) -> Vec<String> {
    let mut names = service.names();
    names.dedup();
    names
}

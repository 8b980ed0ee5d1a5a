//! Start and end: one clear sentence when it cannot start, a clean and quick end.

use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Output,
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, command, config, scratch, zone, zone_with},
    dns::{self, Question},
    http, wait,
};

/// Runs `run` with a file of this content, which must end by itself.
fn refused(content: &str) -> (i32, String) {
    let directory = scratch("refused");
    let file = directory.join("config.toml");
    fs::write(&file, content).unwrap();
    let output = run(&file.display().to_string(), &directory.display().to_string());
    fs::remove_dir_all(directory).unwrap();
    sentence(&output)
}

fn run(file: &str, runtime: &str) -> Output {
    command(&["run", "--config", file]).env("RUNTIME_DIRECTORY", runtime).output().unwrap()
}

/// The exit status and the last line.
fn sentence(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), stderr.lines().last().unwrap_or_default().to_owned())
}

const ZONE: &str = "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n";

/// The niceness of each thread of a process, by name (proc(5): the second field and, with it, the nineteenth).
fn niceness(pid: &str) -> Vec<(String, i32)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).unwrap());
    let thread = |stat: String| {
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        (name.to_owned(), fields.split(' ').nth(16).unwrap().parse().unwrap())
    };
    stats.map(thread).collect()
}

#[test]
fn threads_that_learn_have_a_lower_priority_than_those_that_answer() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("nice", &config(&zone("a.example", &cluster)));
    // Threads that start while it runs are no exception.
    let more = format!("[server]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n{}", zone("a.example", &cluster));
    fs::write(daemon.config_path(), more).unwrap();
    assert_eq!(daemon.reload().0, 0);
    let own = niceness("self")[0].1;
    let threads = niceness(&daemon.pid().to_string());
    for name in ["learning", "blocking", "udp-0", "tcp"] {
        assert!(threads.iter().any(|(thread, _)| thread == name), "{name} is not among {threads:?}");
    }
    for (thread, nice) in threads {
        let answers = ["udp-", "tcp", "encrypted", "forward"].iter().any(|name| thread.starts_with(name));
        let lower = match thread.as_str() {
            "learning" => 5,
            "blocking" => 10,
            _ => nice - own,
        };
        assert!(!answers || nice == own, "{thread} answers, and has {nice} where the test has {own}");
        assert_eq!(nice, (own + lower).min(19), "{thread} does not answer, and the test has {own}");
    }
}

#[test]
fn an_address_in_use_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, last) = refused(&format!("[server]\nlisten = [\"{address}\"]\n{ZONE}"));
    assert_eq!(code, 1);
    assert!(last.contains(&address.to_string()) && last.contains("already"), "{last}");
    let (code, last) = refused(&format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{address}\"\n{ZONE}"));
    assert_eq!(code, 1);
    assert!(last.contains(&address.to_string()), "{last}");
}

#[test]
fn a_second_copy_finds_the_address_in_use() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("first", &config(&zone("a.example", &cluster)));
    let (code, last) = refused(&format!("[server]\nlisten = [\"{}\"]\n{ZONE}", daemon.address()));
    assert_eq!(code, 1);
    assert!(last.contains(&daemon.address().to_string()), "{last}");
    assert_eq!(daemon.ask("a.example", "SOA").rcode, "NoError");
}

#[test]
fn a_missing_file_is_one_sentence() {
    let (code, last) = sentence(&run("/nonexistent/config.toml", "/nonexistent"));
    assert_eq!((code, last.as_str()), (78, "cannot read /nonexistent/config.toml: there is no such file"));
}

#[test]
fn a_bad_file_is_refused_with_every_error() {
    let directory = scratch("errors");
    let file = directory.join("config.toml");
    fs::write(&file, "[zones.\"a.example\"]\nseeds = []\nttl = 4\n").unwrap();
    for arguments in [["run", "--config"], ["check", "--config"]] {
        let output = command(&arguments).arg(&file).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78));
        let places = [":2:9: ", ":3:7: "].map(|place| format!("{}{place}", file.display()));
        assert!(places.iter().all(|place| stderr.contains(place)), "{stderr}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_signal_ends_it_cleanly_within_a_second() {
    let cluster = SimulatedCluster::start(2).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::with_config("signal", &config(&zone("a.example", &cluster)));
        let mut idle = dns::connect(daemon.address());
        dns::send(&mut idle, &Question::new("a.example", "SOA"));
        assert_eq!(dns::receive(&mut idle).unwrap().rcode, "NoError");
        daemon.signal(signal);
        let status = daemon.wait_exit(Duration::from_secs(1));
        assert_eq!(status.code(), Some(0), "{}", daemon.log());
    }
}

#[test]
fn questions_that_arrived_before_the_end_are_answered() {
    const BURST: usize = 100;
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut daemon = Daemon::with_config("burst", &config(&zone("a.example", &cluster)));
    let clients: Vec<UdpSocket> = (0..BURST)
        .map(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            client.connect(daemon.address()).unwrap();
            client
        })
        .collect();
    let mut stream = dns::connect(daemon.address());
    for client in &clients {
        client.send(&Question::new("a.example", "SOA").wire()).unwrap();
    }
    dns::send(&mut stream, &Question::new("a.example", "SOA"));
    daemon.signal(Signal::SIGTERM);
    let answered = clients.iter().filter(|client| client.recv(&mut [0; 512]).is_ok()).count();
    assert_eq!(answered, BURST);
    assert!(dns::receive(&mut stream).is_ok());
    assert_eq!(daemon.wait_exit(Duration::from_secs(1)).code(), Some(0));
}

#[test]
fn a_log_that_is_no_longer_read_does_not_stop_the_server() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let mut daemon = Daemon::with_log_pipe("unread", &config(&zone("a.example", &cluster)));
    wait::until("both nodes", || (daemon.nodes("a.example").len() == 2).then_some(()));
    daemon.close_log();
    cluster.stop(cluster.node(1));
    wait::until("a change, which is logged", || (daemon.nodes("a.example").len() == 1).then_some(()));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(1)).code(), Some(0));
}

/// A port (RFC 863) on which nothing listens any more.
const DISCARD: u16 = 9;

#[test]
fn a_log_that_is_not_read_delays_nothing() {
    let cluster = SimulatedCluster::start(2).unwrap();
    // At this level every poll that fails logs a line; a pipe takes 64 KiB, and the queue 1 MiB.
    let failing: String = (1..=100)
        .map(|n| zone_with(&format!("z{n}.example"), &[[127, 77, 0, n].into()], DISCARD, "refresh = \"100ms\"\n"))
        .collect();
    let zones = config(&(zone("a.example", &cluster) + &failing));
    let mut daemon = Daemon::with_log_pipe_and("full", &zones, &[("RUST_LOG", "debug")]);
    let dropped = "alternator_dns_log_lines_dropped_total";
    wait::until("lines that do not fit", || (daemon.metric(dropped) > 0.0).then_some(()));
    cluster.stop(cluster.node(1));
    wait::until("a change to be learnt", || (daemon.nodes("a.example").len() == 1).then_some(()));
    assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
    assert_eq!(daemon.reload().0, 0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(3)).code(), Some(0));
}

#[test]
fn a_process_that_was_stopped_keeps_its_pollers() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::with_config("frozen", &config(&zone("a.example", &cluster)));
    let polls = || cluster.total(alternator_dns::simulation::Path::LocalNodes);
    wait::until("both nodes", || (daemon.nodes("a.example").len() == 2).then_some(()));
    daemon.signal(Signal::SIGSTOP);
    // Longer than a poller of this zone may be silent.
    std::thread::sleep(Duration::from_secs(15));
    let before = polls();
    daemon.signal(Signal::SIGCONT);
    wait::until("ten more polls", || (polls() > before + 10).then_some(()));
    assert_eq!(daemon.metric("alternator_dns_poller_restarts_total{zone=\"a.example.\"}"), 0.0, "{}", daemon.log());
    assert_eq!(daemon.nodes("a.example").len(), 2);
}

#[test]
fn ready_means_polled_or_five_seconds() {
    let cluster = SimulatedCluster::start(1).unwrap();
    cluster.deliver(
        cluster.node(0),
        alternator_dns::simulation::Path::LocalNodes,
        alternator_dns::simulation::Delivery::Hang,
    );
    let start = std::time::Instant::now();
    let slow = crate::daemon::zone_with("a.example", &cluster.nodes(), cluster.port(), "timeout = \"10s\"\n");
    let mut daemon = Daemon::launch("unready", &config(&slow));
    let (status, body) = http::get(daemon.admin(), "/readyz").unwrap();
    assert_eq!(status, 503, "{body}");
    assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
    assert_eq!(daemon.ask("a.example", "A").rcode, "NoError", "it answers meanwhile");
    daemon.wait_ready();
    assert!((4..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    wait::until("readyz", || (http::get(daemon.admin(), "/readyz").unwrap().0 == 200).then_some(()));
}

#[test]
fn a_privileged_port_without_permission_is_one_sentence() {
    // Only a process that may not bind below 1024 can see this.
    let may_bind = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 1))).is_ok();
    if may_bind {
        eprintln!("skipped here: this user may bind every port; tests/full does it as another");
        return;
    }
    let (code, last) = refused(&format!("[server]\nlisten = [\"127.0.0.1:53\"]\n{ZONE}"));
    assert_eq!(code, 1);
    assert!(last.contains("permission") && last.contains("53"), "{last}");
}

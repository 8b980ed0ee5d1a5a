//! `alternator-dns log queries`: lines about the queries of a zone or client, for some time.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, config, scratch, zone, zones},
    dns::{self, Question},
    upstream::Upstream,
    wait,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The lines about queries, without their times.
fn lines(daemon: &Daemon) -> Vec<String> {
    let log = daemon.log();
    let lines = log.lines().filter_map(|line| line.split_once("INFO query "));
    lines.map(|(_, line)| line.split_once(" microseconds=").unwrap().0.to_owned()).collect()
}

/// Waits until so many lines are there.
#[track_caller]
pub fn wait_lines(daemon: &Daemon, count: usize) -> Vec<String> {
    wait::until(&format!("{count} lines"), || Some(lines(daemon)).filter(|lines| lines.len() >= count))
}

#[track_caller]
pub fn log_queries(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = daemon.command(&[&["log", "queries"], arguments].concat());
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn the_queries_of_a_zone_or_client_are_logged_for_some_time() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::with_config("query-log", &format!("[defaults]\nanswers = 1\n{}", zones("ab", &cluster)));
    let fast_path = || daemon.metric("alternator_dns_fast_lane_total");
    let said = log_queries(&daemon, &["--zone", "a.example", "--for", "1h"]);
    assert!(said.contains(&format!("process {} ", daemon.pid())), "{said}");
    assert!(said.contains(": queries for the zone a.example. are logged for 1h, at most 200 in a second"), "{said}");
    let before = fast_path();
    daemon.ask("a.example", "A");
    assert_eq!(fast_path(), before + 1.0);
    dns::tcp(daemon.address(), &Question::new("A.example", "A"));
    daemon.ask("b.example", "A");
    daemon.ask("a.example", "AAAA");
    daemon.ask("x.a.example", "A");
    let expected = [
        "client=127.0.0.1 name=a.example. type=A transport=udp rcode=NOERROR answers=1",
        "client=127.0.0.1 name=a.example. type=A transport=tcp rcode=NOERROR answers=1",
        "client=127.0.0.1 name=a.example. type=AAAA transport=udp rcode=NOERROR answers=0",
        "client=127.0.0.1 name=x.a.example. type=A transport=udp rcode=NXDOMAIN answers=0",
    ];
    assert_eq!(wait_lines(&daemon, 4), expected);
    // Another command takes the place of the first.
    log_queries(&daemon, &["--client", "127.0.0.9", "--for", "1h"]);
    daemon.ask("a.example", "A");
    let other: IpAddr = "127.0.0.9".parse().unwrap();
    dns::udp_from(other, daemon.address(), &Question::new("c.test", "A"), TIMEOUT).unwrap();
    let last = wait_lines(&daemon, 5);
    assert_eq!(last[4..], ["client=127.0.0.9 name=c.test. type=A transport=udp rcode=REFUSED answers=0"]);
    let ended = || daemon.log().matches("the query log has ended").count();
    wait::until("the first to end", || (ended() == 1).then_some(()));
    let log = daemon.log();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text:?} is not in {log}"));
    let ended_at = place("the query log has ended: queries for the zone a.example.");
    let next_at = place("all queries of the client 127.0.0.9 are logged for 1h");
    assert!(place("name=x.a.example.") < ended_at && ended_at < next_at && next_at < place("name=c.test."), "{log}");
    log_queries(&daemon, &["--stop"]);
    wait::until("the second to end", || (ended() == 2).then_some(()));
    dns::udp_from(other, daemon.address(), &Question::new("c.test", "A"), TIMEOUT).unwrap();
    log_queries(&daemon, &["--for", "1s"]);
    wait::until("the third to end by itself", || (ended() == 3).then_some(()));
    assert_eq!(lines(&daemon).len(), 5);
    let (code, _, stderr) = daemon.command(&["log", "queries", "--zone", "c.example"]);
    assert_eq!((code, stderr.trim()), (1, "no zone has this name; `alternator-dns status` lists the zones"));
    assert_eq!(daemon.command(&["log", "queries", "--for", "2h"]).0, 2);
}

#[test]
fn forwarded_queries_are_logged_once() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let upstream = Upstream::start([127, 0, 0, 7]);
    let forward = format!("[forward]\nupstreams = [\"{}\"]\n", upstream.address);
    let daemon = Daemon::start("query-log-forward", &(forward + &zone("a.example", &cluster)));
    log_queries(&daemon, &[]);
    // The second is cached; the third waits for the upstream over TCP.
    for question in ["a.test", "a.test"] {
        assert_eq!(dns::udp(daemon.address(), &Question::new(question, "A")).answers.len(), 1);
    }
    assert_eq!(dns::tcp(daemon.address(), &Question::new("none.test", "A")).rcode, "NXDomain");
    let first = "client=127.0.0.1 name=a.test. type=A transport=udp rcode=NOERROR answers=1";
    let last = "client=127.0.0.1 name=none.test. type=A transport=tcp rcode=NXDOMAIN answers=0";
    assert_eq!(wait_lines(&daemon, 3), [first, first, last]);
}

#[test]
fn a_flood_is_answered_and_what_is_not_logged_is_counted() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("query-log-flood", &zone("a.example", &cluster));
    log_queries(&daemon, &["--for", "1h"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let question = Question::new("a.example", "A").wire();
    // Far more than are logged in a second; in parts, so that no buffer overflows.
    for _ in 0..100 {
        for _ in 0..50 {
            socket.send_to(&question, daemon.address()).unwrap();
        }
        for _ in 0..50 {
            assert!(socket.recv(&mut [0; 512]).unwrap() > question.len());
        }
    }
    log_queries(&daemon, &["--stop"]);
    let count = wait::until("the number that was left out", || {
        let log = daemon.log();
        log.contains("the query log has ended").then(|| {
            let counts = log.lines().filter(|line| line.contains("queries were not logged"));
            counts.map(|line| line.split_once(" count=").unwrap().1.parse::<usize>().unwrap()).sum::<usize>()
        })
    });
    let logged = lines(&daemon).len();
    assert!(logged >= 200 && logged + count == 5000, "{logged} lines, {count} left out");
}

#[test]
fn a_log_level_that_hides_the_lines_is_named() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let directory = scratch("query-log-level");
    let file = directory.join("config.toml");
    std::fs::write(&file, config(&zone("a.example", &cluster))).unwrap();
    let daemon = Daemon::launch_with(directory, &file, &[("RUST_LOG", "warn")]);
    let (code, _, stderr) = daemon.command(&["log", "queries"]);
    assert!(code == 1 && stderr.contains("the log level hides lines about queries"), "{stderr}");
}

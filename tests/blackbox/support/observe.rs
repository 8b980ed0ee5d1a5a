//! The answers of a zone with `answers = "all"`, and the bounds that the tests of learning share.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use alternator_dns::simulation::{Path, SimulatedCluster};

use crate::{
    daemon::Daemon,
    dns::{self, Question, Reply},
    http, wait,
};

/// Added to each bound for a busy machine: the tests run side by side, and some of them keep every core busy.
pub const BUSY: Duration = Duration::from_millis(500);

/// Polls and probes come with ±10 %.
pub const JITTER: f64 = 1.1;

/// Holds seventy addresses and OPT, and small enough for any path.
const PAYLOAD: u16 = 1232;

/// So many ticks, the machine being busy.
pub fn ticks(count: u32, refresh: Duration) -> Duration {
    (refresh * count).mul_f64(JITTER) + BUSY
}

/// The answer for A, with extended errors.
#[track_caller]
pub fn ask(daemon: &Daemon, zone: &str) -> Reply {
    dns::udp(daemon.address(), &Question::new(zone, "A").edns(PAYLOAD))
}

/// The addresses of one answer.
#[track_caller]
pub fn see(daemon: &Daemon, zone: &str) -> BTreeSet<IpAddr> {
    let reply = ask(daemon, zone);
    assert!(!reply.truncated, "the whole answer");
    reply.data().iter().map(|address| address.parse().unwrap()).collect()
}

/// Whether exactly these nodes are answered.
#[track_caller]
pub fn sees(daemon: &Daemon, zone: &str, nodes: &[IpAddr]) -> bool {
    see(daemon, zone) == nodes.iter().copied().collect()
}

/// Waits until exactly these nodes are answered.
#[track_caller]
pub fn becomes(daemon: &Daemon, zone: &str, nodes: &[IpAddr]) {
    becomes_within(wait::PATIENCE, daemon, zone, nodes);
}

/// The same with a bound that the test is about.
#[track_caller]
pub fn becomes_within(bound: Duration, daemon: &Daemon, zone: &str, nodes: &[IpAddr]) {
    let mut seen = BTreeSet::new();
    let what = format!("{zone} to be answered with {nodes:?}");
    wait::within(bound, &what, || {
        let now = see(daemon, zone);
        if now != seen {
            // Shown only when the test fails: the answers so far.
            println!("{zone}: {now:?}");
            seen = now;
        }
        (seen == nodes.iter().copied().collect()).then_some(())
    });
}

/// Looks again and again until something has happened, and asserts that nothing but these nodes is answered meanwhile.
#[track_caller]
pub fn stays(daemon: &Daemon, zone: &str, nodes: &[IpAddr], until: &str, mut happened: impl FnMut() -> bool) {
    wait::until(until, || {
        let seen = see(daemon, zone);
        assert_eq!(seen, nodes.iter().copied().collect(), "{zone} is answered otherwise before this: {until}");
        happened().then_some(())
    });
}

/// A node's state in `/api/zones`; empty when it is not listed.
pub fn node_state(daemon: &Daemon, zone: &str, node: IpAddr) -> String {
    let nodes = daemon.zone(&format!("{zone}."))["nodes"].clone();
    let found = nodes.as_array().and_then(|nodes| nodes.iter().find(|one| one["address"] == node.to_string()).cloned());
    found.and_then(|found| found["state"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// The zone's state in `/api/zones`.
pub fn state(daemon: &Daemon, zone: &str) -> String {
    daemon.zone(&format!("{zone}."))["state"].as_str().unwrap_or_default().to_owned()
}

/// Waits for more polls of a cluster, and sees that the server is healthy.
#[track_caller]
pub fn goes_on(daemon: &Daemon, cluster: &SimulatedCluster, polls: u64) {
    let polls = cluster.total(Path::LocalNodes) + polls;
    wait::until("more polls", || (cluster.total(Path::LocalNodes) >= polls).then_some(()));
    assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
}

/// Whether this name is a zone's.
pub fn serves(daemon: &Daemon, name: &str) -> bool {
    daemon.ask(name, "SOA").rcode == "NoError"
}

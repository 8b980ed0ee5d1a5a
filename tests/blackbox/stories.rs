//! Stories of clusters whose addresses move, die and return. Cluster b is the zone's; a is another zone's, o is in no zone.
//!
//! An address is recycled when a node of another cluster starts on it. For a while the survivors still list the dead node
//! (gossip lags); then they are settled. While a story runs, the zone is asked without a pause: an answer that names an
//! address of another cluster, or that leaves out a survivor, fails the test.

mod identity;
mod scopes;

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use alternator_dns::simulation::{Path, SimulatedCluster};
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, config, scratch, zone_with},
    dns::{self, Question},
    observe::{becomes, becomes_within, node_state, see, state, ticks},
    wait,
};

const REFRESH: Duration = Duration::from_millis(400);

/// The constant above, and a long timeout for a busy machine: no node is slow in these tests.
const KEYS: &str = "refresh = \"400ms\"\ntimeout = \"1s\"\nanswers = \"all\"\n\
                    health = { interval = \"400ms\", timeout = \"1s\" }\n";

/// Polls of a cluster after which a state counts as lasting.
const POLLS_OBSERVED: u64 = 10;

/// A node is asked for its report every 30 s, ± 10 %, and the machine may be busy.
const REPORT_DUE: Duration = Duration::from_secs(35);

/// Between two questions while a story runs.
const SAMPLE: Duration = Duration::from_millis(3);

const B: &str = "b.example";

/// Asks a zone without a pause, and notes answers that break the story.
struct Observer {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: JoinHandle<Vec<String>>,
}

impl Observer {
    /// From now on no answer may hold any of `never`, and each must hold all of `always` and at least one address.
    fn start(daemon: &Daemon, zone: &str, never: &[IpAddr], always: &[IpAddr]) -> Self {
        let (server, zone) = (daemon.address(), zone.to_owned());
        let (never, always) = (never.to_vec(), always.to_vec());
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (is_over, count) = (stop.clone(), asked.clone());
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !is_over.load(Relaxed) {
                let reply = dns::udp(server, &Question::new(&zone, "A").edns(1232));
                let seen: BTreeSet<IpAddr> = reply.data().iter().map(|address| address.parse().unwrap()).collect();
                let is_wrong = reply.truncated
                    || seen.is_empty()
                    || never.iter().any(|node| seen.contains(node))
                    || always.iter().any(|node| !seen.contains(node));
                if is_wrong {
                    wrong.push(format!("{} {seen:?}", reply.rcode));
                }
                count.fetch_add(1, Relaxed);
                std::thread::sleep(SAMPLE);
            }
            wrong
        });
        Self { stop, asked, thread }
    }

    /// Ends it, after at least a hundred answers.
    #[track_caller]
    fn finish(self, story: &str) {
        wait::until("a hundred answers", || (self.asked.load(Relaxed) >= 100).then_some(()));
        self.stop.store(true, Relaxed);
        let wrong = self.thread.join().unwrap();
        assert!(wrong.is_empty(), "{story}: {} of {} answers: {:?}", wrong.len(), self.asked.load(Relaxed), wrong[0]);
    }
}

fn zone(name: &str, seeds: &[IpAddr], cluster: &SimulatedCluster) -> String {
    zone_with(name, seeds, cluster.port(), KEYS)
}

/// Waits until a cluster has been polled many times more.
#[track_caller]
fn polls_pass(cluster: &SimulatedCluster) {
    let polls = cluster.total(Path::LocalNodes);
    wait::until("further polls", || (cluster.total(Path::LocalNodes) > polls + POLLS_OBSERVED).then_some(()));
}

/// Another cluster beside b, in a zone of its own or in none; and the whole file.
fn beside(b: &SimulatedCluster, seeds: &[IpAddr], in_zone: bool) -> (SimulatedCluster, String) {
    let other = b.start_beside(3).unwrap();
    let mut zones = zone(B, seeds, b);
    if in_zone {
        zones += &zone("a.example", &other.nodes()[..1], &other);
    }
    (other, zones)
}

/// A server with a state directory that it leaves to the next one.
struct Process {
    directory: PathBuf,
}

impl Process {
    fn new(name: &str) -> Self {
        Self { directory: scratch(name).join("state") }
    }

    fn config(&self, zones: &str) -> String {
        let state_dir = format!("[server]\nstate_dir = \"{}\"\n", self.directory.display());
        config(zones).replacen("[server]\n", &state_dir, 1)
    }

    /// Ends a server once its snapshot names exactly these nodes of a zone as answered.
    #[track_caller]
    fn end(&self, mut daemon: Daemon, zone: &str, nodes: &[IpAddr]) {
        let list: Vec<_> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        let list = format!("\"nodes\": [{}]", list.join(", "));
        wait::until("the snapshot to name the nodes", || {
            let text = fs::read_to_string(self.directory.join("nodes.json")).unwrap_or_default();
            text.lines().any(|line| line.starts_with(&format!("\"{zone}.\"")) && line.contains(&list)).then_some(())
        });
        daemon.signal(Signal::SIGTERM);
        daemon.wait_exit(Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.directory.parent().unwrap());
    }
}

#[test]
fn v1_a_seed_s_address_goes_to_another_cluster_and_later_the_others_die_and_return() {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let (a, zones) = beside(&b, &nodes[..1], true);
    let daemon = Daemon::start("v1", &zones);
    becomes(&daemon, B, &nodes);
    becomes(&daemon, "a.example", &a.nodes());
    let strangers = a.nodes();
    b.crash(nodes[0]);
    becomes(&daemon, B, &nodes[1..]);
    let never: Vec<IpAddr> = strangers.iter().chain(&nodes[..1]).copied().collect();
    let observer = Observer::start(&daemon, B, &never, &nodes[1..]);
    a.add_at(nodes[0]).unwrap();
    becomes(&daemon, "a.example", &a.nodes());
    polls_pass(&a);
    b.remove(nodes[0]);
    polls_pass(&a);
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    observer.finish("V1, recycled");
    // With no node up the last known ones are answered, and never a's.
    let observer = Observer::start(&daemon, B, &never, &[]);
    for node in &nodes[1..] {
        b.crash(*node);
    }
    wait::until("their end", || (node_state(&daemon, B, nodes[1]) == "down").then_some(()));
    polls_pass(&a);
    for node in &nodes[1..] {
        b.restart(*node).unwrap();
    }
    wait::until("b to return", || (node_state(&daemon, B, nodes[1]) == "up").then_some(()));
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    observer.finish("V1, the end of the others");
    assert_eq!(see(&daemon, "a.example"), a.nodes().into_iter().collect());
}

#[test]
fn v1_and_v2_without_seeing_the_node_down() {
    for count in [2, 3] {
        let b = SimulatedCluster::start(count).unwrap();
        let nodes = b.nodes();
        let (a, zones) = beside(&b, &nodes[..1], true);
        let daemon = Daemon::start("v1f", &zones);
        becomes(&daemon, B, &nodes);
        becomes(&daemon, "a.example", &a.nodes());
        let observer = Observer::start(&daemon, B, &a.nodes(), &nodes[1..]);
        b.crash(nodes[0]);
        a.add_at(nodes[0]).unwrap();
        // Which node is polled is chance; at the latest its report is due.
        becomes_within(REPORT_DUE, &daemon, B, &nodes[1..]);
        let gone = Observer::start(&daemon, B, &nodes[..1], &nodes[1..]);
        polls_pass(&a);
        b.remove(nodes[0]);
        polls_pass(&a);
        wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
        observer.finish("V1f, V2f");
        gone.finish("V1f, V2f");
    }
}

/// One of two dies and is recycled into another cluster, of a zone or of none. `settles`: the survivor no longer lists it.
fn one_of_two_is_recycled(story: &str, seed: usize, settles: bool) {
    for in_zone in [true, false] {
        let b = SimulatedCluster::start(2).unwrap();
        let nodes = b.nodes();
        let (other, zones) = beside(&b, &nodes[seed..=seed], in_zone);
        let daemon = Daemon::start(story, &zones);
        becomes(&daemon, B, &nodes);
        b.crash(nodes[0]);
        becomes(&daemon, B, &nodes[1..]);
        let never: Vec<IpAddr> = other.nodes().iter().chain(&nodes[..1]).copied().collect();
        let observer = Observer::start(&daemon, B, &never, &nodes[1..]);
        other.add_at(nodes[0]).unwrap();
        let polls = other.count(nodes[0], Path::LocalNodes);
        wait::until("it to be asked", || (other.count(nodes[0], Path::LocalNodes) > polls).then_some(()));
        polls_pass(&b);
        if settles {
            b.remove(nodes[0]);
            wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
        }
        polls_pass(&b);
        observer.finish(story);
    }
}

#[test]
fn v2_one_of_two_addresses_goes_to_another_cluster() {
    one_of_two_is_recycled("V2", 0, true);
}

#[test]
fn v5_the_survivor_is_the_seed_and_lists_its_dead_peer_indefinitely() {
    one_of_two_is_recycled("V5", 1, false);
}

#[test]
fn v4_a_restart_with_a_seed_that_was_recycled_long_ago() {
    let b = SimulatedCluster::start(4).unwrap();
    let nodes = b.nodes();
    let a = b.start_beside(3).unwrap();
    let of_a = zone("a.example", &a.nodes()[..1], &a);
    let file = |seeds: &[IpAddr]| zone(B, seeds, &b) + &of_a;
    let process = Process::new("v4");
    let daemon = Daemon::with_config("v4", &process.config(&file(&nodes[..1])));
    becomes(&daemon, B, &nodes);
    b.stop(nodes[0]);
    becomes(&daemon, B, &nodes[1..]);
    process.end(daemon, B, &nodes[1..]);
    b.remove(nodes[0]);
    let strangers = a.nodes();
    a.add_at(nodes[0]).unwrap();
    let never: Vec<IpAddr> = strangers.iter().chain(&nodes[..1]).copied().collect();
    let snapshot = process.directory.join("nodes.json");
    let learnt = fs::read(&snapshot).unwrap();
    // The recycled address is the only seed and another one is added by an edit; or it was added while no server ran.
    for seeds in [&nodes[..1], &nodes[..2]] {
        fs::write(&snapshot, &learnt).unwrap();
        let daemon = Daemon::launch("v4", &process.config(&file(seeds)));
        let observer = Observer::start(&daemon, B, &never, &nodes[1..]);
        wait::until("b to be live", || (node_state(&daemon, B, nodes[1]) == "up").then_some(()));
        polls_pass(&b);
        fs::write(daemon.config_path(), process.config(&file(&nodes[..2]))).unwrap();
        assert_eq!(daemon.reload().0, 0);
        polls_pass(&b);
        observer.finish("V4");
        process.end(daemon, B, &nodes[1..]);
    }
}

#[test]
fn v7_sixty_nodes_stay_sixty() {
    let addresses: Vec<IpAddr> = (1..=60).map(|last| IpAddr::from([127, 0, 1, last])).collect();
    let b = SimulatedCluster::start_at(&addresses, 0).unwrap();
    let process = Process::new("v7");
    let file = |seeds: usize| process.config(&zone(B, &addresses[..seeds], &b));
    let daemon = Daemon::with_config("v7", &file(1));
    becomes(&daemon, B, &addresses);
    process.end(daemon, B, &addresses);
    let daemon = Daemon::launch("v7", &file(1));
    let observer = Observer::start(&daemon, B, &[], &addresses);
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    polls_pass(&b);
    fs::write(daemon.config_path(), file(2)).unwrap();
    assert_eq!(daemon.reload().0, 0);
    polls_pass(&b);
    observer.finish("V7, a restart and another seed");
    // Probes notice one node after the other. Meanwhile those that are not known to be dead are answered.
    let dying = Observer::start(&daemon, B, &[], &[]);
    addresses.iter().for_each(|node| b.crash(*node));
    // A zone is stale after five seconds without success.
    wait::until("b to be stale", || (state(&daemon, B) == "stale").then_some(()));
    dying.finish("V7, the end of all nodes");
    let observer = Observer::start(&daemon, B, &[], &addresses);
    addresses.iter().for_each(|node| b.restart(*node).unwrap());
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    wait::until("all to be up", || addresses.iter().all(|node| node_state(&daemon, B, *node) == "up").then_some(()));
    observer.finish("V7, the return of all nodes");
}

#[test]
fn g2_the_seed_dies_and_is_replaced_by_a_new_address() {
    let b = SimulatedCluster::start(2).unwrap();
    let nodes = b.nodes();
    let daemon = Daemon::start("g2", &zone(B, &nodes[..1], &b));
    becomes(&daemon, B, &nodes);
    let observer = Observer::start(&daemon, B, &[], &nodes[1..]);
    b.stop(nodes[0]);
    becomes(&daemon, B, &nodes[1..]);
    let newcomer = b.add().unwrap();
    b.remove(nodes[0]);
    becomes_within(ticks(3, REFRESH), &daemon, B, &[nodes[1], newcomer]);
    observer.finish("G2");
}

#[test]
fn s3_two_addresses_are_recycled_together_while_no_server_runs() {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let (a, zones) = beside(&b, &nodes[..1], true);
    let strangers = a.nodes();
    let process = Process::new("s3");
    let daemon = Daemon::with_config("s3", &process.config(&zones));
    becomes(&daemon, B, &nodes);
    becomes(&daemon, "a.example", &strangers);
    process.end(daemon, B, &nodes);
    for node in &nodes[..2] {
        a.take_over(&b, *node).unwrap();
    }
    let daemon = Daemon::launch("s3", &process.config(&zones));
    let observer = Observer::start(&daemon, B, &strangers, &nodes[2..]);
    becomes_within(ticks(3, REFRESH), &daemon, B, &nodes[2..]);
    let gone = Observer::start(&daemon, B, &nodes[..2], &nodes[2..]);
    polls_pass(&b);
    becomes(&daemon, "a.example", &a.nodes());
    observer.finish("S3");
    gone.finish("S3");
}

#[test]
fn s7_a_cluster_loses_power_and_returns_in_one_moment() {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let (_a, zones) = beside(&b, &nodes[..1], true);
    let daemon = Daemon::start("s7", &zones);
    becomes(&daemon, B, &nodes);
    let observer = Observer::start(&daemon, B, &[], &[]);
    nodes.iter().for_each(|node| b.crash(*node));
    wait::until("b to be stale", || (state(&daemon, B) == "stale").then_some(()));
    nodes.iter().for_each(|node| b.restart(*node).unwrap());
    wait::until("b to be live", || (state(&daemon, B) == "live").then_some(()));
    becomes(&daemon, B, &nodes);
    observer.finish("S7");
}

/// An edit moves the name from b, which lives, to another cluster.
fn moves(story: &str, in_zone: bool) {
    let b = SimulatedCluster::start(3).unwrap();
    let nodes = b.nodes();
    let (other, zones) = beside(&b, &nodes[..1], in_zone);
    let daemon = Daemon::start(story, &zones);
    becomes(&daemon, B, &nodes);
    let edited = zones.replace(&zone(B, &nodes[..1], &b), &zone(B, &other.nodes()[..1], &other));
    assert_ne!(edited, zones);
    let observer = Observer::start(&daemon, B, &[], &[]);
    fs::write(daemon.config_path(), config(&edited)).unwrap();
    // The command skips the time in which a file settles.
    assert_eq!(daemon.reload().0, 0);
    becomes_within(ticks(2, REFRESH), &daemon, B, &other.nodes());
    let moved = Observer::start(&daemon, B, &nodes, &other.nodes());
    polls_pass(&other);
    observer.finish(story);
    moved.finish(story);
    wait::until("agreement", || (state(&daemon, B) == "live").then_some(()));
}

#[test]
fn s9_the_name_moves_to_a_cluster_of_no_zone() {
    moves("S9", false);
}

#[test]
fn s10_the_name_moves_to_a_cluster_of_another_zone() {
    moves("S10", true);
}

#[test]
fn s13_every_address_is_replaced_while_the_literal_seed_is_dead() {
    let b = SimulatedCluster::start(3).unwrap();
    let old = b.nodes();
    let (a, zones) = beside(&b, &old[..1], true);
    let daemon = Daemon::start("s13", &zones);
    becomes(&daemon, B, &old);
    let observer = Observer::start(&daemon, B, &a.nodes(), &[]);
    b.stop(old[0]);
    becomes(&daemon, B, &old[1..]);
    for node in &old {
        b.replace(*node).unwrap();
        becomes(&daemon, B, &b.nodes());
    }
    assert!(b.nodes().iter().all(|node| !old.contains(node)));
    observer.finish("S13");
}

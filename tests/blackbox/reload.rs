//! Reload without a restart: the answers change however the file was edited, and unchanged zones are not disturbed.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use alternator_dns::simulation::{Path, SimulatedCluster};
use nix::sys::signal::Signal;

use crate::{
    daemon::{Daemon, config, scratch, zone, zone_with, zones},
    dns::{self, Question},
    files::{rename_over, replace_by_pipe},
    observe::{goes_on, serves},
    wait,
};

/// An edit is in the answers after so long, at the latest; a busy machine gets half a second on top.
const EDIT: Duration = Duration::from_millis(1500);

#[track_caller]
fn follows(daemon: &Daemon, there: &str, gone: &str) {
    wait::within(EDIT, "the edit to be in the answers", || {
        let there = there.chars().all(|name| serves(daemon, &format!("{name}.example")));
        let gone = gone.chars().all(|name| daemon.ask(&format!("{name}.example"), "A").rcode == "Refused");
        (there && gone).then_some(())
    });
}

#[test]
fn every_way_to_write_the_file_is_noticed() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("ways", &zones("ab", &cluster));
    let path = daemon.config_path();
    fs::write(&path, zones("abc", &cluster)).unwrap();
    follows(&daemon, "abc", "d");
    rename_over(&path, &zones("abcd", &cluster));
    follows(&daemon, "abcd", "");
    rename_over(&path, &zones("abd", &cluster));
    follows(&daemon, "abd", "c");
    fs::remove_file(&path).unwrap();
    wait::until("the loss to be reported", || {
        daemon.api()["config"]["error"].as_str().filter(|error| error.contains("no such file")).map(drop)
    });
    assert!(serves(&daemon, "a.example"), "a file that is gone changes nothing");
    fs::write(&path, zones("abde", &cluster)).unwrap();
    follows(&daemon, "abde", "c");
    assert!(daemon.api()["config"]["error"].is_null());
}

#[test]
fn a_swapped_link_is_noticed_twice() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let directory = scratch("configmap");
    for (name, names) in [("..first", "a"), ("..second", "ab"), ("..third", "abc")] {
        fs::create_dir(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("config.toml"), zones(names, &cluster)).unwrap();
    }
    symlink("..first", directory.join("..data")).unwrap();
    symlink("..data/config.toml", directory.join("config.toml")).unwrap();
    let file = directory.join("config.toml");
    let mut daemon = Daemon::launch_at(directory.clone(), &file);
    daemon.wait_ready();
    for (old, new, names) in [("..first", "..second", "ab"), ("..second", "..third", "abc")] {
        symlink(new, directory.join("..tmp")).unwrap();
        fs::rename(directory.join("..tmp"), directory.join("..data")).unwrap();
        fs::remove_dir_all(directory.join(old)).unwrap();
        follows(&daemon, names, "");
    }
    fs::write(directory.join("..third/config.toml"), zones("abcd", &cluster)).unwrap();
    follows(&daemon, "abcd", "");
}

#[test]
fn a_directory_that_goes_and_comes_back_is_noticed() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let directory = scratch("directory");
    let place = directory.join("etc");
    let file = directory.join("etc/config.toml");
    fs::create_dir(&place).unwrap();
    fs::write(&file, zones("a", &cluster)).unwrap();
    let mut daemon = Daemon::launch_at(directory, &file);
    daemon.wait_ready();
    for names in ["ab", "abc"] {
        fs::remove_dir_all(&place).unwrap();
        wait::until("the loss to be reported", || daemon.api()["config"]["error"].is_string().then_some(()));
        fs::create_dir(&place).unwrap();
        fs::write(&file, zones(names, &cluster)).unwrap();
        follows(&daemon, names, "");
    }
    fs::write(&file, zones("abcd", &cluster)).unwrap();
    follows(&daemon, "abcd", "");
}

#[test]
fn a_bad_file_changes_nothing_and_a_good_one_heals() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("bad", &zones("a", &cluster));
    fs::write(daemon.config_path(), zones("ab", &cluster) + "ttl = 4\n").unwrap();
    let error = wait::until("the error", || daemon.api()["config"]["error"].as_str().map(str::to_owned));
    assert!(error.contains("config.toml:") && error.contains("expected a duration"), "{error}");
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 0.0);
    assert!(serves(&daemon, "a.example") && !serves(&daemon, "b.example"));
    let (code, _, stderr) = daemon.reload();
    assert_eq!(code, 78);
    assert!(stderr.contains("expected a duration"), "{stderr}");
    fs::write(daemon.config_path(), zones("ab", &cluster)).unwrap();
    follows(&daemon, "ab", "");
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 1.0);
    assert!(daemon.metric("alternator_dns_config_reloads_total{result=\"refused\"}") >= 1.0);
    let log = daemon.log();
    assert!(log.contains("reload refused") && log.contains("reload applied"), "{log}");
}

#[test]
fn a_configuration_that_becomes_a_pipe_is_refused_and_a_file_is_read_again() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut daemon = Daemon::with_config("fifo", &zones("a", &cluster));
    replace_by_pipe(&daemon.config_path());
    wait::until("the error", || {
        daemon.api()["config"]["error"].as_str().filter(|error| error.contains("not a regular file")).map(drop)
    });
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 0.0);
    let (code, _, stderr) = daemon.reload();
    assert_eq!(code, 78);
    assert!(stderr.contains("not a regular file"), "{stderr}");
    goes_on(&daemon, &cluster, 5);
    rename_over(&daemon.config_path(), &zones("ab", &cluster));
    follows(&daemon, "ab", "");
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 1.0);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(1)).code(), Some(0));
}

#[test]
fn cookie_secrets_that_become_a_pipe_are_reported_and_delay_nothing() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let directory = scratch("secrets");
    let secrets = directory.join("secrets");
    fs::write(&secrets, "00112233445566778899aabbccddeeff\n").unwrap();
    let file = |names: &str| {
        let key = format!("[server]\ncookie_secret_file = \"{}\"\n", secrets.display());
        zones(names, &cluster).replacen("[server]\n", &key, 1)
    };
    let mut daemon = Daemon::with_config("secrets", &file("a"));
    replace_by_pipe(&secrets);
    wait::until("the error", || daemon.log().contains("cookies keep their secrets: it is not a").then_some(()));
    fs::write(daemon.config_path(), file("ab")).unwrap();
    let (code, _, stderr) = daemon.reload();
    assert_eq!(code, 78);
    assert!(stderr.contains("not a regular file"), "{stderr}");
    goes_on(&daemon, &cluster, 5);
    rename_over(&secrets, "ffeeddccbbaa99887766554433221100\n");
    assert_eq!(daemon.reload().0, 0);
    follows(&daemon, "ab", "");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit(Duration::from_secs(1)).code(), Some(0));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn two_quick_edits_end_with_the_second() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("quick", &zones("a", &cluster));
    fs::write(daemon.config_path(), zones("ab", &cluster)).unwrap();
    fs::write(daemon.config_path(), zones("ac", &cluster)).unwrap();
    follows(&daemon, "ac", "b");
}

#[test]
fn reload_and_sighup_wait_for_nothing_but_the_file() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("asked", &zones("abcdefgh", &cluster));
    let (code, stdout, _) = daemon.reload();
    let server = format!("process {} with the file {}", daemon.pid(), daemon.config_path().display());
    assert_eq!((code, stdout.trim()), (0, &*format!("{server}: nothing has changed")));
    fs::write(daemon.config_path(), zones("a", &cluster)).unwrap();
    let (code, stdout, stderr) = daemon.reload();
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        stdout.trim(),
        format!(
            "{server}: 7 zones removed, 1 zone untouched; removed b.example., c.example., d.example., e.example., f.example., \
             g.example., h.example."
        )
    );
    assert!(!serves(&daemon, "h.example"), "applied when the command returns");
    fs::write(daemon.config_path(), zones("abcd", &cluster)).unwrap();
    follows(&daemon, "abcd", "");
    fs::write(daemon.config_path(), zones("a", &cluster)).unwrap();
    daemon.signal(Signal::SIGHUP);
    follows(&daemon, "a", "bcd");
}

#[test]
fn a_file_that_removes_most_zones_waits_for_quiet() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("bulk", &zones("abcdefgh", &cluster));
    let start = Instant::now();
    fs::write(daemon.config_path(), zones("ab", &cluster)).unwrap();
    wait::until("the removal", || (!serves(&daemon, "h.example")).then_some(()));
    assert!(start.elapsed() >= Duration::from_secs(3), "after {:?}", start.elapsed());
}

/// How a writer writes ten zones in pieces.
#[derive(Clone, Copy)]
enum Writer {
    /// It opens the file once.
    KeepsOpen,
    /// It opens the file for each piece.
    Reopens,
}

/// Empties the file and writes these zones one after the other.
fn write_in_pieces(daemon: &Daemon, writer: Writer, pause: Duration, pieces: &[String]) {
    let mut file = fs::File::create(daemon.config_path()).unwrap();
    for piece in pieces {
        if matches!(writer, Writer::Reopens) {
            drop(file);
            file = fs::File::options().append(true).open(daemon.config_path()).unwrap();
        }
        file.write_all(piece.as_bytes()).unwrap();
        // The pace of a slow writer is what this test is about.
        thread::sleep(pause);
    }
}

/// Rounds of a writer, and its pause between two pieces in milliseconds.
const PACES: [(usize, u64); 4] = [(10, 30), (1, 300), (1, 1000), (2, 150)];

fn no_zone_is_refused_by(writer: Writer, name: &str) {
    let cluster = SimulatedCluster::start(1).unwrap();
    let names = "abcdefghij";
    let daemon = Daemon::with_config(name, &zones(names, &cluster));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let pieces = |round: usize| {
                let head = format!("# round {round}\n{}", config(""));
                let zones = names.chars().map(|name| zone(&format!("{name}.example"), &cluster));
                std::iter::once(head).chain(zones).collect::<Vec<_>>()
            };
            for (rounds, pause) in PACES {
                for round in 0..rounds {
                    write_in_pieces(&daemon, writer, Duration::from_millis(pause), &pieces(round));
                }
            }
            done.store(true, Ordering::Release);
        });
        let mut asked = 0;
        while !done.load(Ordering::Acquire) {
            for name in names.chars() {
                assert_eq!(daemon.ask(&format!("{name}.example"), "SOA").rcode, "NoError", "{name} after {asked}");
                asked += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        assert!(asked > 1000, "only {asked} questions");
    });
    // What was written last is applied, and nothing before it was cut.
    fs::write(daemon.config_path(), zones("abcdefghijk", &cluster)).unwrap();
    follows(&daemon, "abcdefghijk", "");
}

#[test]
fn no_zone_is_refused_while_the_file_is_written_in_pieces() {
    thread::scope(|scope| {
        scope.spawn(|| no_zone_is_refused_by(Writer::KeepsOpen, "pieces"));
        scope.spawn(|| no_zone_is_refused_by(Writer::Reopens, "appended"));
    });
}

#[test]
fn a_zone_is_removed_in_place_after_three_seconds_and_by_rename_at_once() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("removal", &zones("abcd", &cluster));
    let start = Instant::now();
    fs::write(daemon.config_path(), zones("abc", &cluster)).unwrap();
    wait::until("the removal", || (!serves(&daemon, "d.example")).then_some(()));
    assert!(start.elapsed() >= Duration::from_secs(3), "after {:?}", start.elapsed());
    rename_over(&daemon.config_path(), &zones("ab", &cluster));
    follows(&daemon, "ab", "c");
    fs::write(daemon.config_path(), zones("a", &cluster)).unwrap();
    daemon.signal(Signal::SIGHUP);
    follows(&daemon, "a", "b");
}

#[test]
fn untouched_zones_keep_their_poller_and_their_counters() {
    let kept = SimulatedCluster::start(3).unwrap();
    let other = SimulatedCluster::start(1).unwrap();
    let slow = |name: &str, ttl: &str| {
        zone_with(
            name,
            &[kept.node(0)],
            kept.port(),
            &format!("refresh = \"10m\"\nttl = \"{ttl}\"\nanswers = \"all\"\n"),
        )
    };
    let file = |ttl: &str, more: &str| config(&(slow("kept.example", "4s") + &slow("paced.example", ttl) + more));
    let daemon = Daemon::with_config("untouched", &file("4s", ""));
    let learnt = |name: &str| daemon.ask(name, "A").answers.len() == 3;
    wait::until("both zones", || (learnt("kept.example") && learnt("paced.example")).then_some(()));
    let polls = kept.total(Path::LocalNodes);
    let asked = "alternator_dns_queries_total{zone=\"kept.example.\",type=\"A\",rcode=\"NOERROR\",transport=\"udp\"}";
    let before = daemon.metric(asked);
    assert!(before >= 1.0);
    for round in 0..5 {
        let more = zone(&format!("new{round}.example"), &other);
        rename_over(&daemon.config_path(), &file(&format!("{}s", 10 + round), &more));
        wait::within(EDIT, "the new zone", || serves(&daemon, &format!("new{round}.example")).then_some(()));
        assert!(learnt("kept.example"), "no node is lost");
        assert_eq!(daemon.ask("paced.example", "A").ttls(), [10 + round; 3], "a TTL acts at once on known nodes");
    }
    assert_eq!(kept.total(Path::LocalNodes), polls, "not one extra poll: the next is ten minutes away");
    assert!(daemon.metric(asked) >= before + 5.0, "counters go on");
    assert_eq!(daemon.metric("alternator_dns_zone_state{zone=\"new3.example.\",state=\"live\"}"), 0.0);
    assert!(
        !crate::http::get(daemon.admin(), "/metrics").unwrap().1.contains("new3.example"),
        "series go with their zone"
    );
}

#[test]
fn a_name_moves_from_one_cluster_to_another() {
    let blue = SimulatedCluster::start(3).unwrap();
    let green = SimulatedCluster::start(3).unwrap();
    let keys = "refresh = \"500ms\"\nanswers = \"all\"\n";
    let of = |cluster: &SimulatedCluster| config(&zone_with("a.example", &cluster.nodes(), cluster.port(), keys));
    let daemon = Daemon::with_config("bluegreen", &of(&blue));
    let answered = || {
        let mut data = daemon.ask("a.example", "A").data();
        data.sort();
        data
    };
    let texts = |cluster: &SimulatedCluster| cluster.nodes().iter().map(ToString::to_string).collect::<Vec<_>>();
    wait::until("blue", || (answered() == texts(&blue)).then_some(()));
    fs::write(daemon.config_path(), of(&green)).unwrap();
    let (code, ..) = daemon.reload();
    assert_eq!(code, 0);
    wait::within(Duration::from_secs(1) + Duration::from_millis(400), "green", || {
        let data = answered();
        assert!(!data.is_empty());
        (data == texts(&green)).then_some(())
    });
    let polls = blue.total(Path::LocalNodes);
    let later = green.total(Path::LocalNodes) + 5;
    wait::until("five more polls", || (green.total(Path::LocalNodes) >= later).then_some(()));
    assert_eq!(blue.total(Path::LocalNodes), polls, "blue is asked no more");
    assert_eq!(answered(), texts(&green));
}

#[test]
fn while_the_new_seeds_are_silent_the_old_nodes_are_answered_and_not_asked() {
    let old = SimulatedCluster::start(3).unwrap();
    let new = SimulatedCluster::start(3).unwrap();
    for node in new.nodes() {
        new.stop(node);
    }
    let of = |cluster: &SimulatedCluster| config(&zone("a.example", cluster));
    let daemon = Daemon::with_config("silent", &of(&old));
    wait::until("the old nodes", || (daemon.nodes("a.example").len() == 3).then_some(()));
    let nodes = daemon.nodes("a.example");
    fs::write(daemon.config_path(), of(&new)).unwrap();
    assert_eq!(daemon.reload().0, 0);
    let polls = old.total(Path::LocalNodes);
    wait::until("the zone to be stale", || (daemon.zone("a.example.")["state"] == "stale").then_some(()));
    assert_eq!(daemon.nodes("a.example"), nodes);
    assert_eq!(old.total(Path::LocalNodes), polls);
    new.restart(new.node(0)).unwrap();
    wait::until("the new node", || (daemon.nodes("a.example") == [new.node(0).to_string()]).then_some(()));
}

#[test]
fn a_new_zone_answers_its_seeds_from_the_first_moment() {
    let cluster = SimulatedCluster::start(1).unwrap();
    cluster.stop(cluster.node(0));
    let daemon = Daemon::with_config("first", &zones("a", &cluster));
    // The more zones, the longer it takes to start their pollers; the last of them waits for all others.
    let more: String = (0..3000).map(|n| zone(&format!("z{n:04}.example"), &cluster)).collect();
    fs::write(daemon.config_path(), zones("a", &cluster) + &more).unwrap();
    let start = Instant::now();
    loop {
        let reply = daemon.ask("z2999.example", "A");
        assert_ne!(reply.rcode, "ServFail", "its seeds are in the file");
        if reply.rcode == "NoError" {
            assert_eq!(reply.data(), [cluster.node(0).to_string()]);
            break;
        }
        assert!(start.elapsed() < wait::PATIENCE);
    }
}

#[test]
fn not_one_query_is_lost_during_ten_reloads() {
    const RATE: u64 = 2000;
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = Daemon::with_config("load", &zones("a", &cluster));
    wait::until("the nodes", || (daemon.nodes("a.example").len() == 3).then_some(()));
    let done = AtomicBool::new(false);
    let server = daemon.address();
    let nodes: Vec<_> = cluster.nodes().iter().map(ToString::to_string).collect();
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let start = Instant::now();
            let mut asked = 0u64;
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect(server).unwrap();
            while !done.load(Ordering::Acquire) {
                let question = Question { id: asked as u16, ..Question::new("a.example", "A") };
                socket.send(&question.wire()).unwrap();
                let mut reply = [0; 512];
                let length = socket.recv(&mut reply).expect("no query is lost");
                assert_eq!(reply[..2], question.id.to_be_bytes());
                let reply = dns::Reply::read(&reply[..length]);
                assert!(nodes.contains(&reply.data()[0]), "{reply:?}");
                asked += 1;
                let due = start + Duration::from_micros(asked * 1_000_000 / RATE);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            (asked, start.elapsed())
        });
        for round in 0..10 {
            let good = round % 2 == 0;
            let tail = if good { String::new() } else { "nonsense = [\n".into() };
            let names = if round % 4 == 0 { "ab" } else { "ac" };
            fs::write(daemon.config_path(), zones(names, &cluster) + &tail).unwrap();
            let (code, ..) = daemon.reload();
            assert_eq!(code, if good { 0 } else { 78 }, "round {round}");
        }
        done.store(true, Ordering::Release);
        let (asked, elapsed) = load.join().unwrap();
        eprintln!("{asked} queries in {elapsed:?}, none lost");
    });
}

#[test]
fn a_systemd_that_does_not_read_notifications_delays_nothing() {
    // More than the kernel keeps for a socket that is not read (net.unix.max_dgram_qlen, 10 by default).
    const UNREAD: usize = 15;
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("deaf", &zones("a", &cluster));
    for round in 0..UNREAD {
        fs::write(daemon.config_path(), zones(if round % 2 == 0 { "ab" } else { "a" }, &cluster)).unwrap();
        assert_eq!(daemon.reload().0, 0, "round {round}");
    }
    assert!(serves(&daemon, "b.example"));
}

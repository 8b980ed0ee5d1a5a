//! Addresses that change while the server runs: `listen` and `admin` of the file.

use std::{
    fs,
    io::{Read, Write},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, command, config, zone, zones},
    dns::{self, Question},
    http,
    observe::serves,
    wait,
};

#[test]
fn listen_and_admin_move_without_a_gap() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let mut daemon = Daemon::with_config("move", &config(&zones));
    let before = daemon.address();
    let admin_before = daemon.admin();
    let mut idle = dns::connect(before);
    let file = |listen: &str| format!("[server]\nlisten = [{listen}]\nadmin = \"127.0.0.2:0\"\n{zones}");
    fs::write(daemon.config_path(), file("\"127.0.0.1:0\", \"127.0.0.2:0\"")).unwrap();
    let addresses = wait::until("a second address", || Some(daemon.addresses()).filter(|all| all.len() == 2));
    assert_eq!(addresses[0], before, "an unchanged address keeps its sockets");
    dns::send(&mut idle, &Question::new("a.example", "SOA"));
    assert_eq!(dns::receive(&mut idle).unwrap().rcode, "NoError", "and its connections");
    let admin = wait::until("another admin address", || Some(daemon.admin()).filter(|admin| *admin != admin_before));
    assert_eq!(crate::http::get(admin, "/healthz").unwrap().0, 200);
    wait::until("the old admin address to close", || crate::http::get(admin_before, "/healthz").is_err().then_some(()));
    fs::write(daemon.config_path(), file("\"127.0.0.2:0\"")).unwrap();
    wait::until("the first address to close", || (daemon.addresses().len() == 1).then_some(()));
    assert_eq!(dns::udp(addresses[1], &Question::new("a.example", "SOA")).rcode, "NoError");
    wait::until("TCP to close", || std::net::TcpStream::connect(before).is_err().then_some(()));
}

#[test]
fn an_admin_address_that_moves_answers_requests_that_have_begun() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let daemon = Daemon::with_config("admin-drains", &config(&zones));
    let mut reader = std::net::TcpStream::connect(daemon.admin()).unwrap();
    reader.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    reader.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
    // Connections are accepted in turn, so the one before has been accepted.
    assert_eq!(crate::http::get(daemon.admin(), "/healthz").unwrap().0, 200);
    let moved = format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.2:0\"\n{zones}");
    fs::write(daemon.config_path(), moved).unwrap();
    assert_eq!(daemon.reload().0, 0);
    reader.write_all(b"\r\n").unwrap();
    let mut reply = String::new();
    reader.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("ok\n"), "{reply}");
}

#[test]
fn an_address_in_use_refuses_the_whole_reload() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let daemon = Daemon::with_config("taken", &zones("a", &cluster));
    let address = taken.local_addr().unwrap();
    let file = format!(
        "[server]\nlisten = [\"127.0.0.1:0\", \"{address}\"]\nadmin = \"127.0.0.1:0\"\n{}",
        zone("b.example", &cluster)
    );
    fs::write(daemon.config_path(), file).unwrap();
    let (code, _, stderr) = daemon.reload();
    assert_eq!(code, 78);
    assert!(stderr.contains(&address.to_string()), "{stderr}");
    assert!(serves(&daemon, "a.example") && !serves(&daemon, "b.example"));
    drop(taken);
    wait::until("the file to be applied once the address is free", || serves(&daemon, "b.example").then_some(()));
    assert!(daemon.api()["config"]["error"].is_null());
}

#[test]
fn the_admin_interface_moves_to_the_wildcard_of_its_port_and_back() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let daemon = Daemon::with_config("wild", &config(&zones));
    let admin = daemon.admin();
    for ip in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
        let file = format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{ip}:{}\"\n{zones}", admin.port());
        fs::write(daemon.config_path(), file).unwrap();
        let (code, _, stderr) = daemon.reload();
        assert_eq!(code, 0, "{stderr}");
        let is_served = || http::get(admin, "/healthz").is_ok_and(|(status, _)| status == 200).then_some(());
        wait::until("the page", is_served);
        // 127.0.0.2 is served by the wildcard alone.
        let beside = std::net::SocketAddr::new([127, 0, 0, 2].into(), admin.port());
        wait::until("the former socket to close", || {
            (http::get(beside, "/healthz").is_ok() == (ip == "0.0.0.0")).then_some(())
        });
        assert!(std::net::TcpListener::bind(admin).is_err(), "no other program can have the port");
    }
}

#[test]
fn listen_moves_to_the_wildcard_of_its_port_and_back_without_losing_a_question() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    for (loopback, wildcard) in [("127.0.0.1", "0.0.0.0"), ("[::1]", "[::]")] {
        let file = |listen: &str| format!("[server]\nlisten = [\"{listen}\"]\nadmin = \"127.0.0.1:0\"\n{zones}");
        let mut daemon = Daemon::with_config("wildcard", &file(&format!("{loopback}:0")));
        let address = daemon.address();
        for ip in [wildcard, loopback, wildcard] {
            let wanted = format!("{ip}:{}", address.port());
            fs::write(daemon.config_path(), file(&wanted)).unwrap();
            let asking = std::thread::scope(|scope| {
                let reloading = scope.spawn(|| daemon.reload());
                while !reloading.is_finished() {
                    assert_eq!(dns::udp(address, &Question::new("a.example", "SOA")).rcode, "NoError");
                }
                reloading.join().unwrap()
            });
            assert_eq!(asking.0, 0, "{}", asking.2);
            wait::until("the address", || (daemon.addresses() == [wanted.parse().unwrap()]).then_some(()));
            let mut stream = wait::until("TCP", || std::net::TcpStream::connect(address).ok());
            dns::send(&mut stream, &Question::new("a.example", "SOA"));
            assert_eq!(dns::receive(&mut stream).unwrap().rcode, "NoError");
            let second = std::net::TcpListener::bind(address);
            assert!(second.is_err(), "no other program can have the port");
        }
    }
}

#[test]
fn an_address_that_the_host_does_not_have_is_bound_and_reported() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    for absent in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let file = format!("[server]\nlisten = [\"127.0.0.1:0\", \"{absent}\"]\nadmin = \"127.0.0.1:0\"\n{zones}");
        let mut daemon = Daemon::with_config("absent", &file);
        let ip = absent.trim_end_matches(":0");
        let bound = daemon.addresses()[1].to_string();
        assert!(bound.starts_with(ip), "{bound}");
        assert_eq!(daemon.ask("a.example", "SOA").rcode, "NoError");
        let warned = || daemon.log().matches("no interface of this host has this address now").count();
        wait::until("the warning", || (warned() == 1).then_some(()));
        let (_, page) = crate::http::get(daemon.admin(), "/").unwrap();
        assert!(page.contains(&format!("No interface of this host has {ip}")), "{page}");
        let (_, status, _) = daemon.command(&["status"]);
        assert!(status.contains(&format!("this host does not have the address {bound}")), "{status}");
        wait::until("the other address to count as serving", || {
            (crate::http::get(daemon.admin(), "/serving").unwrap().0 == 200).then_some(())
        });
        fs::write(daemon.config_path(), format!("{file}ttl = \"9s\"\n")).unwrap();
        assert_eq!(daemon.reload().0, 0);
        wait::until("the warning of the reload", || (warned() == 2).then_some(()));
        let check = command(&["check", "--config"]).arg(daemon.config_path()).output().unwrap();
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(said.contains(&format!("warning: no interface of this machine has the address of {absent}")), "{said}");
    }
}

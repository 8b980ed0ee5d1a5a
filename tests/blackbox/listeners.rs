//! Addresses that change while the server runs: `listen` and `admin` of the file.

use std::{
    fs,
    io::{Read, Write},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, config, zone, zones},
    dns::{self, Question},
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
fn a_wildcard_beside_an_address_of_it_is_not_blamed_on_another_program() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let zones = zone("a.example", &cluster);
    let daemon = Daemon::with_config("wild", &config(&zones));
    let dns = daemon.address();
    let admin = daemon.admin();
    for (listen, moved, served) in [
        (format!("0.0.0.0:{}", dns.port()), "127.0.0.1:0".to_owned(), dns),
        ("127.0.0.1:0".to_owned(), format!("0.0.0.0:{}", admin.port()), admin),
    ] {
        let file = format!("[server]\nlisten = [\"{listen}\"]\nadmin = \"{moved}\"\n{zones}");
        fs::write(daemon.config_path(), file).unwrap();
        let (code, _, stderr) = daemon.reload();
        assert_eq!(code, 78);
        assert!(stderr.contains(&format!("beside {served}, which is served now")), "{stderr}");
    }
}

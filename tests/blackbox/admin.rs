//! The admin interface over real HTTP.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, zone},
    http, wait,
};

#[test]
fn zones_are_returned_as_json() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("api", &zone("a.example", &cluster));
    let zone = wait::until("two nodes", || {
        Some(daemon.zone("a.example.")).filter(|zone| zone["nodes"].as_array().unwrap().len() == 2)
    });
    assert_eq!((&zone["state"], &zone["ttl_seconds"]), (&"live".into(), &4.into()));
    assert_eq!(zone["nodes"][0]["address"], cluster.node(0).to_string());
    assert_eq!(zone["nodes"][0]["state"], "up");
    assert!(zone["last_success_seconds_ago"].as_f64().unwrap() < 5.0);
    assert!(zone["last_error"].is_null());
    assert!(zone["source"].is_string());
    let config = &daemon.api()["config"];
    assert_eq!(config["path"], daemon.config_path().display().to_string());
    assert_eq!(config["hash"].as_str().unwrap().len(), 16);
    assert!(config["error"].is_null());
}

#[test]
fn metrics_count_what_happened() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let daemon = Daemon::start("metrics", &zone("a.example", &cluster));
    for _ in 0..10 {
        daemon.ask("a.example", "A");
    }
    daemon.ask("a.example", "AAAA");
    daemon.ask("x.a.example", "A");
    daemon.ask("elsewhere.test", "A");
    crate::dns::tcp(daemon.address(), &crate::dns::Question::new("a.example", "A"));
    let queries = |labels: &str| daemon.metric(&format!("alternator_dns_queries_total{{{labels}}}"));
    assert_eq!(queries("zone=\"a.example.\",type=\"A\",rcode=\"NOERROR\",transport=\"udp\""), 10.0);
    assert_eq!(queries("zone=\"a.example.\",type=\"AAAA\",rcode=\"NOERROR\",transport=\"udp\""), 1.0);
    assert_eq!(queries("zone=\"a.example.\",type=\"A\",rcode=\"NXDOMAIN\",transport=\"udp\""), 1.0);
    assert_eq!(queries("zone=\"a.example.\",type=\"A\",rcode=\"NOERROR\",transport=\"tcp\""), 1.0);
    assert_eq!(queries("zone=\"\",type=\"A\",rcode=\"REFUSED\",transport=\"udp\""), 1.0);
    wait::until("polls", || {
        (daemon.metric("alternator_dns_polls_total{zone=\"a.example.\",result=\"ok\"}") > 2.0).then_some(())
    });
    assert_eq!(daemon.metric("alternator_dns_nodes{zone=\"a.example.\",state=\"up\"}"), 2.0);
    assert_eq!(daemon.metric("alternator_dns_zone_state{zone=\"a.example.\",state=\"live\"}"), 1.0);
    let (_, text) = http::get(daemon.admin(), "/metrics").unwrap();
    for name in [
        "poll_age_seconds",
        "probe_interval_seconds",
        "build_info",
        "config_info",
        "node_change_seconds_count",
        "config_last_success_timestamp_seconds",
        "tcp_connections",
    ] {
        assert!(text.contains(&format!("alternator_dns_{name}")), "{name} is missing:\n{text}");
    }
    assert!(!text.contains("_total_total"));
}

#[test]
fn messages_that_get_no_reply_are_counted() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("ignored", &zone("a.example", &cluster));
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut reply_bit = crate::dns::Question::new("a.example", "A").wire();
    reply_bit[2] |= 0x80;
    socket.send_to(&reply_bit, daemon.address()).unwrap();
    socket.send_to(b"short", daemon.address()).unwrap();
    let mut reasons = vec!["reply", "short"];
    // Such a port needs a capability that not every user of this test has.
    for port in [7, 13, 17, 19] {
        if let Ok(service) = std::net::UdpSocket::bind(("127.0.0.1", port)) {
            service.send_to(&crate::dns::Question::new("a.example", "A").wire(), daemon.address()).unwrap();
            service.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(service.recv(&mut [0; 512]).is_err(), "a service that replies to everything gets no reply");
            reasons.push("service_port");
        }
    }
    for reason in reasons {
        let series = format!("alternator_dns_ignored_total{{reason=\"{reason}\"}}");
        wait::until(reason, || (daemon.metric(&series) >= 1.0).then_some(()));
    }
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_err());
}

#[test]
fn the_status_page_is_one_page_and_other_paths_give_404() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("page", &zone("a.example", &cluster));
    let (status, page) = http::get(daemon.admin(), "/").unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("a.example.") && page.contains("</html>"), "{page}");
    assert_eq!(http::get(daemon.admin(), "/nothing").unwrap().0, 404);
}

#[test]
fn garbage_on_the_admin_port_does_not_disturb_other_clients() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("rubbish", &zone("a.example", &cluster));
    let mut slow: Vec<_> = (0..10).map(|_| TcpStream::connect(daemon.admin()).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HT").unwrap();
    }
    let mut rubbish = TcpStream::connect(daemon.admin()).unwrap();
    rubbish.write_all(&[0xff; 4096]).unwrap();
    rubbish.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = Vec::new();
    let _ = rubbish.read_to_end(&mut answer);
    assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
    assert_eq!(daemon.ask("a.example", "SOA").rcode, "NoError");
}

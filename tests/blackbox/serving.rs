//! `/serving`: for anycast and load balancers, which must not send clients to a server that cannot answer them well.

use std::time::{Duration, Instant};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, zone},
    dns::{self, Question},
    http, wait,
};

/// A zone must have been learnt within 30 s; the rest is for the poll that was under way, and for a busy machine.
const CUT_OFF_NOTICED: Duration = Duration::from_secs(35);

fn serving(daemon: &Daemon) -> (u16, String) {
    http::get(daemon.admin(), "/serving").unwrap()
}

#[track_caller]
fn wait_serving(daemon: &Daemon) {
    wait::until("the server to serve", || (serving(daemon) == (200, "serving\n".into())).then_some(()));
}

#[test]
fn a_server_that_is_cut_off_from_its_clusters_does_not_serve_until_one_returns() {
    let (one, two) = (SimulatedCluster::start(1).unwrap(), SimulatedCluster::start(1).unwrap());
    let daemon = Daemon::start("cut-off", &(zone("a.example", &one) + &zone("b.example", &two)));
    wait_serving(&daemon);
    one.stop(one.node(0));
    two.stop(two.node(0));
    let start = Instant::now();
    let reason = wait::within(CUT_OFF_NOTICED, "status 503", || {
        let (status, reason) = serving(&daemon);
        (status == 503).then_some(reason)
    });
    assert_eq!(reason, "not serving: no zone was learnt from its cluster within the last 30s\n");
    assert!(start.elapsed() > Duration::from_secs(25), "after {:?}", start.elapsed());
    assert_eq!(http::get(daemon.admin(), "/readyz").unwrap().0, 200, "it never goes back");
    assert_eq!(daemon.ask("a.example", "A").rcode, "NoError", "clients that come all the same are answered");
    two.restart(two.node(0)).unwrap();
    wait::within(Duration::from_secs(5), "status 200 with one cluster of two", || {
        (serving(&daemon).0 == 200).then_some(())
    });
}

#[test]
fn neither_access_lists_nor_rate_limits_nor_wildcards_keep_it_from_its_own_sockets() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let server = "listen = [\"0.0.0.0:0\", \"127.0.0.9:0\", \"[::1]:0\"]\nadmin = \"127.0.0.1:0\"\n\
                  clients = [\"192.0.2.0/24\"]\nrate_limit = { per_second = 1, slip = 0, v4_prefix = 8 }\n";
    let mut daemon = Daemon::with_config("limited", &format!("[server]\n{server}\n{}", zone("a.example", &cluster)));
    let wildcard = daemon.addresses()[0];
    let target = std::net::SocketAddr::new([127, 0, 0, 1].into(), wildcard.port());
    wait_serving(&daemon);
    let limited = "alternator_dns_ignored_total{reason=\"rate_limited\"}";
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) || daemon.metric(limited) < 20.0 {
        let question = Question::new("a.example", "A");
        let _ = dns::udp_from([127, 0, 0, 1].into(), target, &question, Duration::from_millis(20));
        let (status, reason) = serving(&daemon);
        assert_eq!(status, 200, "{reason}");
    }
}

#[test]
fn many_requests_ask_the_sockets_once_a_second() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("bounded", &zone("a.example", &cluster));
    wait_serving(&daemon);
    let start = Instant::now();
    let mut requests = 0;
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(serving(&daemon).0, 200);
        requests += 1;
    }
    let asked = |transport: &str| {
        let labels = format!("zone=\"\",type=\"other\",rcode=\"NOERROR\",transport=\"{transport}\"");
        daemon.metric(&format!("alternator_dns_queries_total{{{labels}}}"))
    };
    // One before the start, and one at its end.
    let most = start.elapsed().as_secs_f64() + 2.0;
    for transport in ["udp", "tcp"] {
        let asked = asked(transport);
        assert!((2.0..=most).contains(&asked), "{asked} queries over {transport} for {requests} requests");
    }
    assert!(requests > 20, "only {requests} requests");
}

#[test]
fn addresses_that_a_reload_moves_are_asked_where_they_are() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("moved", &zone("a.example", &cluster));
    wait_serving(&daemon);
    let admin = daemon.admin();
    let moved =
        format!("[server]\nlisten = [\"127.0.0.2:0\"]\nadmin = \"127.0.0.1:0\"\n{}", zone("a.example", &cluster));
    std::fs::write(daemon.config_path(), moved).unwrap();
    assert_eq!(daemon.reload().0, 0);
    wait::until("the old sockets to close", || std::net::TcpStream::connect(daemon.address()).is_err().then_some(()));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(http::get(admin, "/serving").unwrap(), (200, "serving\n".into()));
    }
}

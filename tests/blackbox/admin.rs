//! The admin interface over real HTTP.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, config, zone},
    files::rename_over,
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
fn the_readme_lists_every_metric() {
    let readme = include_str!("../../README.md");
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("metrics-readme", &zone("a.example", &cluster));
    let (_, text) = http::get(daemon.admin(), "/metrics").unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE alternator_dns_")?.split(' ').next());
    let names: Vec<_> = names.collect();
    assert!(names.len() > 20, "{text}");
    let missing: Vec<_> = names.iter().filter(|name| !readme.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "the README does not list: {missing:?}");
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

/// Reads what an event stream sends until it has this text.
fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = String::new();
    while !all.contains(what) {
        assert!(Instant::now() < deadline, "{what} is missing:\n{all}");
        let mut octets = [0; 4096];
        let length = stream.read(&mut octets).unwrap();
        assert!(length > 0, "the stream has ended:\n{all}");
        all.push_str(&String::from_utf8_lossy(&octets[..length]));
    }
    all
}

fn ask_for_events(daemon: &Daemon, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(daemon.admin()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    stream
}

#[test]
fn events_say_at_once_what_changes() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let daemon = Daemon::start("events", &zone("a.example", &cluster));
    wait::until("three answers", || {
        let zone = daemon.zone("a.example.");
        (zone["answers"].as_array().unwrap().len() == 3).then_some(())
    });
    let mut stream = ask_for_events(&daemon, "localhost");
    let first = read_until(&mut stream, "event: complete");
    assert!(first.starts_with("HTTP/1.1 200") && first.contains("content-type: text/event-stream"), "{first}");
    assert!(first.contains("a.example.") && first.contains(&cluster.node(2).to_string()), "{first}");
    let stopped = Instant::now();
    cluster.stop(cluster.node(2));
    read_until(&mut stream, "\"answers\":2");
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    rename_over(&daemon.config_path(), &config(&zone("b.example", &cluster)));
    let reloaded = read_until(&mut stream, "b.example.");
    assert!(reloaded.contains("event: removed\ndata: [\"a.example.\"]"), "{reloaded}");
    rename_over(&daemon.config_path(), "nonsense");
    assert!(read_until(&mut stream, "file refused: ").contains("\"severity\":"));
    // A stranger's web page must not read them.
    let refused = read_until(&mut ask_for_events(&daemon, "evil.example"), "\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
}

#[test]
fn open_streams_do_not_hold_up_the_end() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut daemon = Daemon::start("events-end", &zone("a.example", &cluster));
    let mut streams = [(); 4].map(|()| ask_for_events(&daemon, "localhost"));
    streams.iter_mut().for_each(|stream| drop(read_until(stream, "event: complete")));
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(daemon.wait_exit(Duration::from_secs(10)).success());
}

#[test]
fn one_zone_can_be_asked_for() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("one-zone", &(zone("a.example", &cluster) + &zone("b.example", &cluster)));
    let (status, text) = http::get(daemon.admin(), "/api/zones?zone=B.Example").unwrap();
    assert!(status == 200 && text.contains("b.example.") && !text.contains("a.example."), "{text}");
    assert_eq!(http::get(daemon.admin(), "/api/zones?zone=c.example").unwrap().0, 422);
    assert_eq!(http::get(daemon.admin(), "/api/zones?zone=a..example").unwrap().0, 422);
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

/// Status and body of a request with these lines.
fn exchange(daemon: &Daemon, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(daemon.admin()).unwrap();
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// How long `/healthz` takes.
fn health_time(daemon: &Daemon) -> Duration {
    let start = Instant::now();
    assert_eq!(http::get(daemon.admin(), "/healthz").unwrap().0, 200);
    start.elapsed()
}

#[test]
fn silent_clients_keep_no_health_check_waiting() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("silent", &zone("a.example", &cluster));
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(daemon.admin()).unwrap()).collect();
    // It took more than ten seconds while each silent client kept its place until its deadline.
    let took = health_time(&daemon);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(daemon.zone("a.example.")["state"], "live");
    drop(silent);
}

#[test]
fn clients_that_do_not_read_keep_no_health_check_waiting() {
    let cluster = SimulatedCluster::start(1).unwrap();
    // Together their replies are more than the kernel takes for clients that do not read.
    let zones: String = (0..300).map(|n| zone(&format!("z{n}.a-name-of-some-length.example"), &cluster)).collect();
    let daemon = Daemon::start("slow", &zones);
    let slow: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.admin()).unwrap();
            write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let took = health_time(&daemon);
    assert!(took < Duration::from_secs(3), "{took:?}");
    wait::until("a scraper that reads to get everything", || {
        let (status, text) = http::get(daemon.admin(), "/metrics").ok()?;
        (status == 200 && text.contains("alternator_dns_build_info")).then_some(())
    });
    drop(slow);
}

#[test]
fn the_pages_answer_only_under_names_of_this_server() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("hosts", &zone("a.example", &cluster));
    let status = |path: &str, host: &str| exchange(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).0;
    for path in ["/", "/api/zones"] {
        assert_eq!(status(path, &daemon.admin().to_string()), 200);
        assert_eq!(status(path, "localhost:9153"), 200);
        assert_eq!(status(path, "evil.example"), 421);
        assert_eq!(exchange(&daemon, &format!("GET {path} HTTP/1.1\r\n\r\n")).0, 421, "no Host");
        let two = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(exchange(&daemon, &two).0, 421);
        let absolute = format!("GET http://evil.example{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        assert_eq!(exchange(&daemon, &absolute).0, 421);
    }
    for path in ["/metrics", "/healthz", "/readyz", "/serving"] {
        assert_eq!(status(path, "evil.example"), 200, "{path}");
    }
    let (_, body) = exchange(&daemon, "GET / HTTP/1.1\r\nHost: Dns-Admin.example:80\r\n\r\n");
    assert!(body.contains("\"Dns-Admin.example:80\"") && body.contains("admin_hosts"), "{body}");
    let file =
        config(&zone("a.example", &cluster)).replacen("[server]", "[server]\nadmin_hosts = [\"dns-admin.example\"]", 1);
    rename_over(&daemon.config_path(), &file);
    wait::until("the name to be allowed", || (status("/", "Dns-Admin.example:80") == 200).then_some(()));
    assert_eq!(status("/", "evil.example"), 421);
}

#[test]
fn nothing_that_changes_the_server_is_reachable_over_tcp() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("read-only", &zone("a.example", &cluster));
    let reloads = || daemon.metric("alternator_dns_config_reloads_total{result=\"ok\"}");
    let before = reloads();
    for path in ["/", "/api/zones", "/metrics", "/healthz", "/reload", "/api/reload", "/flush", "/drain"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "CONNECT", "FLY"] {
            let (status, _) = exchange(&daemon, &format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
            assert!([400, 404, 405].contains(&status), "{method} {path}: {status}");
        }
    }
    assert_eq!(exchange(&daemon, "GET /reload HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").0, 404);
    assert_eq!(reloads(), before);
}

#[test]
fn metrics_come_in_the_format_that_a_client_accepts() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("formats", &zone("a.example", &cluster));
    let metrics = |accept: &str| exchange(&daemon, &format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n")).1;
    let open = metrics("Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3\r\n");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE alternator_dns_queries counter\n"), "{open}");
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain;version=0.0.4;q=0.3,*/*;q=0.1\r\n"] {
        let text = metrics(accept);
        assert!(text.contains("# TYPE alternator_dns_queries_total counter\n"), "{text}");
        assert!(text.contains("# TYPE alternator_dns_build_info gauge\n"), "{text}");
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}

//! The clock of the day is set, or wrong from the start: intervals do not depend on it, and every page is shown.

use std::time::Duration;

use alternator_dns::simulation::SimulatedCluster;

use crate::{
    daemon::{Daemon, scratch, zone},
    dns::{self, Question},
    files::SettableClock,
    http, wait,
};

/// A second, and as much again for a busy machine several times.
const NEXT_SECOND: Duration = Duration::from_secs(8);

/// Starts with a clock that is set by so much.
fn start(name: &str, cluster: &SimulatedCluster, server: &str, seconds: i64) -> (Daemon, SettableClock) {
    let directory = scratch(name);
    let clock = SettableClock::new(&directory);
    clock.set(seconds);
    let file = directory.join("config.toml");
    let zone = zone("a.example", cluster);
    let text = format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}\n{zone}");
    std::fs::write(&file, text).unwrap();
    let mut daemon = Daemon::launch_with(directory, &file, &clock.environment());
    daemon.wait_ready();
    (daemon, clock)
}

#[test]
fn a_clock_that_is_set_limits_no_client_for_longer() {
    let cluster = SimulatedCluster::start(1).unwrap();
    // What is above the limit gets a truncated reply.
    let (daemon, clock) = start("clock-limit", &cluster, "rate_limit = { per_second = 1, slip = 1 }", 0);
    let is_answered = || !dns::udp(daemon.address(), &Question::new("a.example", "A")).truncated;
    wait::until("the limit", || (!is_answered()).then_some(()));
    for seconds in [-3600, 3600, 0] {
        clock.set(seconds);
        // The next second begins within a second, whatever the clock of the day says.
        wait::within(NEXT_SECOND, &format!("an answer after {seconds} s"), || is_answered().then_some(()));
        wait::within(NEXT_SECOND, &format!("a second answer after {seconds} s"), || is_answered().then_some(()));
    }
}

#[test]
fn before_1970_every_page_is_shown() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let year = 365 * 24 * 3600;
    let (daemon, _clock) = start("clock-1969", &cluster, "", -i64::try_from(since_1970 + year).unwrap());
    wait::until("both nodes", || (daemon.nodes("a.example").len() == 2).then_some(()));
    wait::until("a probe", || (!daemon.zone("a.example.")["nodes"][1]["last_probe"].is_null()).then_some(()));
    let zone = daemon.zone("a.example.");
    assert_eq!(
        (zone["state"].as_str(), zone["since"].as_str()),
        (Some("live"), Some("1970-01-01T00:00:00Z")),
        "{zone}"
    );
    for path in ["/", "/metrics", "/api/zones", "/healthz", "/readyz", "/serving"] {
        assert_eq!(http::get(daemon.admin(), path).unwrap().0, 200, "{path}");
    }
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

//! The watchdog: fed while every thread goes on, and not when one stands still.

use std::{
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use alternator_dns::simulation::SimulatedCluster;
use nix::{
    sys::ptrace::{self, Options},
    unistd::Pid,
};

use crate::{
    daemon::zone,
    dns::Question,
    service_manager::{Service, free_address},
    wait,
};

/// After so long without a report systemd would end the process.
const PERIOD: Duration = Duration::from_secs(6);

/// How long a flood lasts: longer than half of the period, after which a thread counts as standing still.
const FLOOD: Duration = Duration::from_secs(8);

fn watched(name: &str, cluster: &SimulatedCluster, address: std::net::SocketAddr) -> Service {
    let config = format!("[server]\nlisten = [\"{address}\"]\n{}", zone("a.example", cluster));
    let mut service = Service::new(name, &config).environment("WATCHDOG_USEC", &PERIOD.as_micros().to_string());
    service.start();
    wait::until("the watchdog to be fed", || (!service.state().fed.is_empty()).then_some(()));
    service
}

/// The thread of this name.
fn thread_of(pid: Pid, name: &str) -> Pid {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &std::path::PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let path = threads.into_iter().find(is_it).unwrap_or_else(|| panic!("no thread {name}"));
    Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

/// A thread that a debugger holds up, until this is dropped: a process with such a thread could not be ended.
struct HeldUp(Pid);

impl HeldUp {
    fn new(thread: Pid) -> nix::Result<Self> {
        ptrace::seize(thread, Options::empty())?;
        ptrace::interrupt(thread)?;
        Ok(Self(thread))
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn a_thread_that_stands_still_is_named_and_the_watchdog_is_not_fed() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let service = watched("stuck", &cluster, free_address("127.0.0.1"));
    for (thread, named) in
        [("udp-0", "thread=\"udp-0 on 127.0.0.1:"), ("learning", "thread=learning"), ("tcp", "thread=tcp")]
    {
        let held_up = match HeldUp::new(thread_of(service.pid(), thread)) {
            Ok(held_up) => held_up,
            Err(error) => return eprintln!("skipped here: this process may not debug another one ({error})"),
        };
        let says = |what: &str| service.log().lines().any(|line| line.contains(what) && line.contains(named));
        wait::until("the ERROR that names it", || says("has not gone on").then_some(()));
        let fed = service.state().fed.len();
        thread::sleep(PERIOD / 4);
        assert_eq!(service.state().fed.len(), fed, "it is fed no more");
        drop(held_up);
        wait::until("it to go on", || (says("goes on again") && service.state().fed.len() > fed).then_some(()));
    }
}

#[test]
fn a_flood_of_all_cores_does_not_end_the_process() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let address = free_address("127.0.0.1");
    let mut service = watched("flood", &cluster, address);
    let done = AtomicBool::new(false);
    let fed = service.state().fed.len();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                let question = Question::new("a.example", "A").wire();
                while !done.load(Relaxed) {
                    client.send_to(&question, address).unwrap();
                }
            });
        }
        thread::sleep(FLOOD);
        done.store(true, Relaxed);
    });
    assert!(!service.has_ended());
    let times: Vec<_> =
        [start].into_iter().chain(service.state().fed[fed..].iter().copied()).chain([Instant::now()]).collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    eprintln!("fed {} times in {FLOOD:?} of flood; the longest pause was {longest:?}", times.len() - 2);
    assert!(longest < PERIOD, "{longest:?}");
}

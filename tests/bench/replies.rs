//! Answers questions of one kind without a socket: `replies KIND ZONES COUNT`.
//!
//! tests/bench/instructions.py runs it under callgrind, which counts the instructions of each answer, whatever else the
//! machine does. It prints the nanoseconds of an answer, which the machine does change.

use std::{env, hint::black_box, net::IpAddr, process::ExitCode, sync::Arc, time::Instant};

use alternator_dns::{
    answer::{Client, Responder, Worker},
    metrics::{ProcessCounters, Transport},
    table::{Knowledge, NameServers, View, ViewRole, ZoneEntry, ZoneSettings, ZoneTable, ZoneViews},
    types::{NodeSet, ZoneName, ZoneState},
};
use ipnet::IpNet;

/// Kinds of questions: labels in front of the zone's name, and the type.
const KINDS: [(&str, &str, u16); 7] = [
    ("hit", "", 1),
    ("nodata", "", 28),
    ("nxdomain", "\x04none", 1),
    ("https", "", 65),
    ("soa", "", 6),
    ("ns", "", 2),
    (VIEW, "", 1),
];

/// The same as a hit, of zones with views: the client has one of them.
const VIEW: &str = "view";

/// One for each availability zone of a region.
const VIEWS: u8 = 3;

/// Nodes of each zone.
const NODES: u8 = 9;

/// Octets in front of a question's name.
const HEADER: [u8; 12] = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A multiplier that leads from the number of a zone to that of another one that lies elsewhere in memory.
const SCATTER: usize = 7919;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [kind, zones, count] = &arguments[..] else { return usage() };
    let kind = KINDS.into_iter().find(|(name, ..)| name == kind);
    let (Some((kind, labels, record_type)), Ok(zones), Ok(count)) = (kind, zones.parse(), count.parse()) else {
        return usage();
    };
    let messages: Vec<_> = (0..zones).map(|number| message(labels, number, record_type)).collect();
    let order: Vec<_> = (0..zones).map(|at| &messages[at * SCATTER % zones][..]).collect();
    let views = if kind == VIEW { VIEWS } else { 0 };
    answer(&table(zones, views), &order, count);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    println!("replies KIND ZONES COUNT: answers questions; see tests/bench/instructions.py");
    ExitCode::SUCCESS
}

/// Answers so many questions.
fn answer(table: &ZoneTable, order: &[&[u8]], count: usize) {
    let counters = ProcessCounters::default();
    let responder = Responder { table, counters: &counters };
    let client = Client { address: [192, 0, 2, 1].into(), transport: Transport::Udp, now: 1 };
    let mut worker = Worker::new();
    let mut out = Vec::with_capacity(1232);
    let began = Instant::now();
    for message in order.iter().cycle().take(count) {
        let _ = black_box(responder.answer(black_box(message), &client, &mut worker, &mut out));
    }
    println!("{:.1} ns an answer", began.elapsed().as_nanos() as f64 / count as f64);
}

fn zone(number: usize) -> ZoneName {
    ZoneName::parse(&format!("z{number}.alternator.example.com")).expect("a name")
}

/// Zones as the configuration makes them: a name server of their own, whose address is known, and so many views.
fn table(zones: usize, views: u8) -> ZoneTable {
    let role = if views > 0 { ViewRole::HasViews } else { ViewRole::Plain };
    let entries: Vec<_> = (0..zones).map(|number| entry(zone(number), role)).collect();
    let views = entries.iter().filter(|_| views > 0).map(|entry| (entry.name().clone(), views_of(entry.name(), views)));
    let views: Vec<_> = views.collect();
    ZoneTable::new(entries).with_views(views)
}

fn entry(name: ZoneName, views: ViewRole) -> Arc<ZoneEntry> {
    let nodes = NodeSet::new((1..=NODES).map(|host| IpAddr::from([10, 0, 0, host]))).expect("there are nodes");
    let server = name.child("ns").expect("a short name");
    let name_servers = NameServers::new([(server, vec![IpAddr::from([192, 0, 2, 53])])]);
    let entry = ZoneEntry::new(name, ZoneSettings { name_servers, views, ..ZoneSettings::example() }, 1);
    entry.learn(&Knowledge::up(&nodes, ZoneState::Live), 1);
    Arc::new(entry)
}

/// Views of the networks `192.0.NUMBER.0/24`.
fn views_of(zone: &ZoneName, views: u8) -> ZoneViews {
    ZoneViews::new((1..=views).map(|number| {
        let network = IpNet::new(IpAddr::from([192, 0, number, 0]), 24).expect("a network");
        View::new(Arc::new([network]), entry(zone.of_view(&network), ViewRole::IsView))
    }))
}

fn message(labels: &str, number: usize, record_type: u16) -> Vec<u8> {
    let [high, low] = record_type.to_be_bytes();
    [&HEADER, labels.as_bytes(), zone(number).wire(), &[high, low, 0, 1]].concat()
}

//! The modules without their system calls, each by itself: `cargo bench --bench modules`.
//!
//! tests/bench/peers measures what a question costs; this measures which module spends it.

use std::{hint::black_box, net::IpAddr, path::Path, sync::Arc};

use alternator_dns::{
    answer::{Answered, Client, Responder, Worker},
    config::Config,
    discovery,
    metrics::{ProcessCounters, Transport},
    table::{Knowledge, ZoneEntry, ZoneSettings, ZoneTable},
    types::{NodeSet, ZoneName, ZoneState},
};
use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};

/// Zones in a table: the smallest number and the largest that a speed is stated for.
const ZONES: [usize; 2] = [1, 10_000];

/// Nodes of each zone.
const NODES: u8 = 9;

/// Octets in front of a question's name.
const HEADER: [u8; 12] = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// An OPT without options.
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

/// An OPT with a client's cookie (RFC 7873).
const COOKIE: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08cookie-8";

criterion_group!(modules, names, answers, lists, files);
criterion_main!(modules);

fn zone(number: usize) -> ZoneName {
    ZoneName::parse(&format!("z{number}.alternator.example.com")).expect("a name")
}

fn table(zones: usize) -> ZoneTable {
    let nodes = NodeSet::new((1..=NODES).map(|host| IpAddr::from([10, 0, 0, host]))).expect("there are nodes");
    ZoneTable::new((0..zones).map(|number| {
        let entry = ZoneEntry::new(zone(number), ZoneSettings::example(), 1);
        entry.learn(&Knowledge::up(&nodes, ZoneState::Live), 1);
        Arc::new(entry)
    }))
}

/// Names in an order that is unrelated to their order in memory.
fn scattered(zones: usize) -> impl Iterator<Item = usize> {
    (0..zones).map(move |at| at * 7919 % zones).cycle()
}

/// The zone table: a name to its zone.
fn names(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("look-up");
    for zones in ZONES {
        let table = table(zones);
        let wires: Vec<_> = (0..zones).map(|number| zone(number).wire().to_vec()).collect();
        let mut order = scattered(zones).map(|number| &wires[number]);
        group.bench_function(format!("of {zones} zones"), |bencher| {
            bencher.iter(|| order.next().map(|name| table.find(black_box(name)).is_some()));
        });
    }
    group.finish();
}

/// Both paths of the responder give the same reply to the same question.
type AnswerFn = fn(&Responder<'_>, &[u8], &Client, &mut Worker, &mut Vec<u8>) -> Answered;

/// The fast path with the questions that it is for, and the slow path with some of the same and with others.
fn answers(criterion: &mut Criterion) {
    let fast: AnswerFn = |responder, message, client, worker, out| responder.answer(message, client, worker, out);
    let slow: AnswerFn = |responder, message, client, worker, out| responder.answer_slow(message, client, worker, out);
    for zones in ZONES {
        for (path, name, title, prefix, additional) in [
            (fast, "fast path", "plain", &b""[..], &b""[..]),
            (fast, "fast path", "with EDNS", b"", OPT),
            (fast, "fast path", "with a cookie", b"", COOKIE),
            (fast, "fast path", "no such name", b"\x04none", b""),
            (slow, "slow path", "plain", b"", b""),
            (slow, "slow path", "with a cookie", b"", COOKIE),
            (slow, "slow path", "no such name", b"\x04none", b""),
        ] {
            let table = table(zones);
            let messages: Vec<_> =
                (0..zones).map(|number| message(&[prefix, zone(number).wire()].concat(), additional)).collect();
            criterion
                .benchmark_group(name)
                .bench_function(format!("{title}, of {zones} zones"), |bencher| ask(bencher, path, &table, &messages));
        }
    }
}

fn ask(bencher: &mut Bencher<'_>, path: AnswerFn, table: &ZoneTable, messages: &[Vec<u8>]) {
    let counters = ProcessCounters::default();
    let responder = Responder { table, counters: &counters };
    let client = Client { address: [192, 0, 2, 1].into(), transport: Transport::Udp, now: 1 };
    let mut worker = Worker::new();
    let mut out = Vec::with_capacity(1232);
    let mut order = scattered(messages.len()).map(|number| &messages[number]);
    bencher.iter(|| {
        let message = order.next().map_or(&[][..], |message| message);
        let answered = path(&responder, black_box(message), &client, &mut worker, &mut out);
        assert_eq!(answered, Answered::Reply);
    });
}

fn message(name: &[u8], additional: &[u8]) -> Vec<u8> {
    let mut message = [&HEADER, name, &[0, 1, 0, 1], additional].concat();
    message[11] = u8::from(!additional.is_empty());
    message
}

/// `/localnodes`, of an ordinary cluster and of a large one.
fn lists(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("localnodes");
    for nodes in [9, 500] {
        let list: Vec<_> = (0..nodes).map(|node| format!("\"10.0.{}.{}\"", node / 250, node % 250 + 1)).collect();
        let body = format!("[{}]", list.join(","));
        group.bench_function(format!("of {nodes} nodes"), |bencher| {
            bencher.iter(|| discovery::node::parse(black_box(body.as_bytes())).is_ok());
        });
    }
    group.finish();
}

/// The configuration, from its text to its values.
fn files(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("configuration");
    group.sample_size(20);
    for zones in ZONES {
        let text: String = (0..zones)
            .map(|number| {
                format!("[zones.\"z{number}.alternator.example.com\"]\nseeds = [\"10.0.0.1\", \"10.0.0.2\"]\n")
            })
            .collect();
        group.bench_function(format!("of {zones} zones"), |bencher| {
            bencher.iter_batched(
                || text.clone(),
                |text| Config::parse(Path::new("z.toml"), text.as_bytes()).is_ok(),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

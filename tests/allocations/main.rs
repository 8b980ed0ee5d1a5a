//! The fast path allocates nothing once a worker has warmed up. It is a test binary of its own, because the counting
//! allocator is the whole process's.

#![allow(clippy::unwrap_used)]

use std::{alloc::System, sync::Arc};

use alternator_dns::{
    answer::{Answered, Client, Responder, Worker},
    metrics::{ProcessCounters, Transport},
    table::{Knowledge, NameServers, ZoneEntry, ZoneSettings, ZoneTable},
    types::{NodeSet, ZoneName, ZoneState},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Questions before the counting begins: by then each shuffle bag has been emptied.
const WARM_UP: usize = 100;

/// Questions that are counted.
const QUESTIONS: usize = 10_000;

/// A of `a.test`; with OPT, and with OPT and a cookie.
const PLAIN: &[u8] = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x01a\x04test\0\0\x01\0\x01";
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
const COOKIE: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08cookie-8";

/// A of `x.a.test`, which does not exist.
const NO_NAME: &[u8] = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x01x\x01a\x04test\0\0\x01\0\x01";

/// Where the second octet of the type is in questions about `a.test`.
const TYPE_AT: usize = 12 + 8 + 1;

fn of_type(question: &[u8], record_type: u8) -> Vec<u8> {
    let mut question = question.to_vec();
    question[TYPE_AT] = record_type;
    question
}

fn with(additional: &[u8]) -> Vec<u8> {
    let mut message = [PLAIN, additional].concat();
    message[11] = 1;
    message
}

/// The fast path allocates nothing. It runs without a test harness, whose own threads would be counted too.
fn main() {
    let nodes = NodeSet::new((1..=9).map(|n| [10, 0, 0, n].into())).unwrap();
    let server = (ZoneName::parse("ns.a.test").unwrap(), vec![[192, 0, 2, 53].into()]);
    let settings = ZoneSettings { name_servers: NameServers::new([server]), ..ZoneSettings::example() };
    let entry = ZoneEntry::new(ZoneName::parse("a.test").unwrap(), settings, 1);
    entry.learn(&Knowledge::up(&nodes, ZoneState::Live), 1);
    let table = ZoneTable::new([Arc::new(entry)]);
    let counters = ProcessCounters::default();
    let responder = Responder { table: &table, counters: &counters };
    let client = Client { address: [192, 0, 2, 1].into(), transport: Transport::Udp, now: 1 };
    let mut worker = Worker::new();
    let mut out = Vec::with_capacity(1232);
    let negative = [28, 65, 6, 2].map(|record_type| of_type(PLAIN, record_type));
    let questions = [PLAIN.to_vec(), with(OPT), with(COOKIE), of_type(&with(COOKIE), 28), NO_NAME.to_vec()];
    for question in questions.into_iter().chain(negative) {
        let mut ask = |times: usize| {
            for _ in 0..times {
                assert_eq!(responder.answer(&question, &client, &mut worker, &mut out), Answered::Reply);
            }
        };
        ask(WARM_UP);
        let before = counters.workers.fast_path();
        let region = Region::new(ALLOCATOR);
        ask(QUESTIONS);
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{}", question.escape_ascii());
        assert_eq!(counters.workers.fast_path() - before, QUESTIONS as u64);
    }
    println!("the fast path allocates nothing: 1 passed, 0 failed");
}

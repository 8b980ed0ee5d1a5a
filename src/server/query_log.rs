//! The query log: for a limited time, a line for each answered question of one client or zone.
//!
//! What answers never waits for it. Without a query log it reads one flag. With one it looks whether the question is meant, and
//! hands the beginning of the reply to a bounded queue; the task behind it makes the line. Questions beyond so many in a second are
//! counted and left out.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use hickory_server::proto::{op::ResponseCode, rr::RecordType};
use tokio::sync::mpsc;

use crate::{
    answer::{
        Client, Parsed, parse,
        wire::{HEADER_OCTETS, OPT_OCTETS, TYPE_AND_CLASS_OCTETS, TYPE_OPT},
    },
    metrics::Transport,
    table::{TableEntry, ZoneTable},
    types::{NAME_OCTETS_MAX, ZoneName, suffixes},
};

/// Questions that are logged in one second: what a person can still search, and 150 MB in the longest time.
pub const QUERIES_PER_SECOND: u64 = 200;

/// Questions that wait to be logged: those of a second, with 300 octets each.
const QUEUE_MAX: usize = QUERIES_PER_SECOND as usize;

/// What a line needs of a reply: the header, the question, and an OPT record behind it.
const HEAD_OCTETS_MAX: usize = HEADER_OCTETS + NAME_OCTETS_MAX + TYPE_AND_CLASS_OCTETS + OPT_OCTETS;

/// Which questions are logged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueryFilter {
    /// Those that this zone answers; `None`: also those of no zone.
    pub zone: Option<ZoneName>,
    /// Those of this client; `None`: of all.
    pub client: Option<IpAddr>,
}

impl fmt::Display for QueryFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "queries for the zone {zone}")?,
            None => f.write_str("all queries")?,
        }
        self.client.map_or(Ok(()), |client| write!(f, " of the client {client}"))
    }
}

/// Logs questions while a command wants it. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct QueryLog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_on: AtomicBool,
    session: ArcSwapOption<LogSession>,
}

/// From the start of a query log to its end.
#[derive(Debug)]
struct LogSession {
    filter: QueryFilter,
    queries: mpsc::Sender<LoggedQuery>,
    began: Instant,
    /// The second since then that is counted.
    second: AtomicU64,
    /// Questions of that second.
    count: AtomicU64,
    left_out: Arc<AtomicU64>,
}

/// What a query log gets, until it is stopped or another one is started.
#[derive(Debug)]
pub struct LoggedQueries {
    queries: mpsc::Receiver<LoggedQuery>,
    left_out: Arc<AtomicU64>,
}

/// A question with its reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange<'e> {
    pub(super) message: &'e [u8],
    pub(super) client: &'e Client,
    pub(super) reply: &'e [u8],
    /// When the question was taken up.
    pub(super) began: Instant,
}

/// A question that is to be logged.
#[derive(Debug)]
pub struct LoggedQuery {
    client: IpAddr,
    transport: Transport,
    /// The beginning of the reply.
    head: Vec<u8>,
    time: Duration,
}

impl QueryLog {
    /// Logs these questions from now on, and no others.
    pub fn start(&self, filter: QueryFilter) -> LoggedQueries {
        let (sender, queries) = mpsc::channel(QUEUE_MAX);
        let left_out = Arc::new(AtomicU64::new(0));
        let session = LogSession {
            filter,
            queries: sender,
            began: Instant::now(),
            second: AtomicU64::new(0),
            count: AtomicU64::new(0),
            left_out: left_out.clone(),
        };
        self.0.session.store(Some(Arc::new(session)));
        self.0.is_on.store(true, Relaxed);
        LoggedQueries { queries, left_out }
    }

    /// Logs no more.
    pub fn stop(&self) {
        self.0.is_on.store(false, Relaxed);
        self.0.session.store(None);
    }

    /// Whether questions are logged: one relaxed load.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.0.is_on.load(Relaxed)
    }

    /// The time at which a question is taken up, if questions are logged.
    #[inline]
    pub(super) fn begin(&self) -> Option<Instant> {
        self.is_on().then(Instant::now)
    }

    /// Takes a question that has been answered from this table. Never waits.
    pub(super) fn observe(&self, exchange: &Exchange<'_>, table: &ZoneTable) {
        if let Some(session) = &*self.0.session.load()
            && session.filter.matches(exchange, table)
        {
            session.take(exchange);
        }
    }
}

impl QueryFilter {
    fn matches(&self, exchange: &Exchange<'_>, table: &ZoneTable) -> bool {
        if self.client.is_some_and(|client| client != exchange.client.address.to_canonical()) {
            return false;
        }
        let Some(zone) = &self.zone else { return true };
        let Parsed::Query(query) = parse(exchange.message) else { return false };
        match table.find(query.name()) {
            Some((TableEntry::Zone(row), _)) => row.entry.name() == zone,
            _ => false,
        }
    }
}

impl LogSession {
    fn take(&self, exchange: &Exchange<'_>) {
        let Exchange { client, reply, began, .. } = *exchange;
        let query = || LoggedQuery {
            client: client.address.to_canonical(),
            transport: client.transport,
            head: reply[..reply.len().min(HEAD_OCTETS_MAX)].to_vec(),
            time: began.elapsed(),
        };
        let is_sent = self.admit(began.saturating_duration_since(self.began)) && self.queries.try_send(query()).is_ok();
        if !is_sent {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    /// Whether the question is one of the first of its second. A few more may be, where threads disagree which it is.
    fn admit(&self, since: Duration) -> bool {
        let second = since.as_secs();
        if self.second.fetch_max(second, AcqRel) < second {
            self.count.store(0, Relaxed);
        }
        self.count.fetch_add(1, Relaxed) < QUERIES_PER_SECOND
    }
}

impl LoggedQueries {
    /// The next one; `None`: the log was stopped, or another one was started.
    pub async fn next(&mut self) -> Option<LoggedQuery> {
        self.queries.recv().await
    }

    /// Those that wait now.
    pub fn rest(&mut self) -> impl Iterator<Item = LoggedQuery> {
        std::iter::from_fn(|| self.queries.try_recv().ok())
    }

    /// Questions that were left out since the last call.
    pub fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Relaxed)
    }
}

impl LoggedQuery {
    /// Writes the line.
    pub fn log(&self) {
        let Self { client, transport, head, time } = self;
        // Every reply of ours has a header.
        let Some(summary) = ReplySummary::read(head) else { return };
        tracing::info!(
            %client,
            name = summary.name,
            "type" = summary.query_type,
            transport = transport.word(),
            rcode = summary.rcode,
            answers = summary.answers,
            microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
            "query"
        );
    }
}

/// What a line says of a reply.
#[derive(Debug, Eq, PartialEq)]
struct ReplySummary {
    /// In lower case, so that one can search for it; `-` without a question.
    name: String,
    query_type: String,
    rcode: String,
    answers: u16,
}

impl ReplySummary {
    fn read(head: &[u8]) -> Option<Self> {
        let (&[_, _, _, flags, 0, questions, a0, a1, n0, n1, r0, r1], mut rest) =
            head.split_first_chunk::<HEADER_OCTETS>()?
        else {
            return None;
        };
        let (mut name, mut query_type) = ("-".to_owned(), "-".to_owned());
        if questions == 1 {
            let octets = suffixes(rest).map_while(|suffix| suffix.first()).map(|length| 1 + usize::from(*length)).sum();
            let (question, behind) = rest.split_at_checked(octets)?;
            let (&[high, low, _, _], behind) = behind.split_first_chunk()?;
            name = presented(question);
            query_type = type_name(u16::from_be_bytes([high, low]).into());
            rest = behind;
        }
        let answers = u16::from_be_bytes([a0, a1]);
        // Only errors that have no other record use more bits than the header has (RFC 6891, 6.1.3).
        let extended = match rest {
            [0, high, low, _, _, extended, ..]
                if u16::from_be_bytes([*high, *low]) == TYPE_OPT
                    && [a0, a1, n0, n1] == [0; 4]
                    && [r0, r1] != [0; 2] =>
            {
                *extended
            }
            _ => 0,
        };
        Some(Self { name, query_type, rcode: rcode_name(ResponseCode::from(extended, flags & 0x0f)), answers })
    }
}

/// A name as zone files write it (RFC 1035, 5.1), in lower case.
fn presented(name: &[u8]) -> String {
    let labels = suffixes(name).filter_map(|suffix| {
        let (&length, rest) = suffix.split_first()?;
        rest.get(..length.into()).filter(|label| !label.is_empty())
    });
    let mut text = String::new();
    for label in labels {
        for octet in label.to_ascii_lowercase() {
            match octet {
                b'.' | b'\\' | b'"' => text.extend(['\\', octet.into()]),
                _ if octet.is_ascii_graphic() => text.push(octet.into()),
                _ => text += &format!("\\{octet:03}"),
            }
        }
        text.push('.');
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

/// As zone files write it; a type without a name as RFC 3597 does.
fn type_name(query_type: RecordType) -> String {
    match query_type {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        known => known.to_string(),
    }
}

/// As metrics name it.
fn rcode_name(rcode: ResponseCode) -> String {
    match rcode {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::NotAuth => "NOTAUTH".into(),
        // An error of TSIG has the same number (RFC 6895, 2.3), which stands in the TSIG record alone.
        ResponseCode::BADVERS | ResponseCode::BADSIG => "BADVERS".into(),
        ResponseCode::BADCOOKIE => "BADCOOKIE".into(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::table::{ZoneEntry, ZoneSettings};

    const QUESTION: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01x\x01A\x07example\0\0\x01\0\x01";

    fn table() -> ZoneTable {
        let entry = |name| Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), ZoneSettings::example(), 1));
        ZoneTable::new([entry("a.example"), entry("example")])
    }

    fn ask(log: &QueryLog, message: &[u8], client: &str) {
        let client = Client { address: client.parse().unwrap(), transport: Transport::Udp, now: 1 };
        log.observe(&Exchange { message, client: &client, reply: message, began: Instant::now() }, &table());
    }

    fn logged(zone: Option<&str>, client: Option<&str>) -> usize {
        let log = QueryLog::default();
        assert!(!log.is_on() && log.begin().is_none());
        let zone = zone.map(|zone| ZoneName::parse(zone).unwrap());
        let mut queries = log.start(QueryFilter { zone, client: client.map(|client| client.parse().unwrap()) });
        assert!(log.begin().is_some());
        ask(&log, QUESTION, "10.0.0.1");
        ask(&log, QUESTION, "::ffff:10.0.0.1");
        ask(&log, QUESTION, "10.0.0.2");
        ask(&log, b"no message", "10.0.0.2");
        log.stop();
        ask(&log, QUESTION, "10.0.0.1");
        assert!(!log.is_on());
        std::iter::from_fn(|| queries.queries.try_recv().ok()).count()
    }

    #[test]
    fn the_questions_of_a_client_and_of_the_zone_that_answers_them_are_logged() {
        assert_eq!(logged(None, None), 4);
        assert_eq!(logged(None, Some("10.0.0.1")), 2);
        assert_eq!(logged(Some("a.example"), None), 3);
        assert_eq!(logged(Some("example"), None), 0, "a zone below it answers them");
        assert_eq!(logged(Some("a.example"), Some("10.0.0.2")), 1);
    }

    #[test]
    fn questions_beyond_so_many_in_a_second_are_counted() {
        let log = QueryLog::default();
        let queries = log.start(QueryFilter::default());
        let session = log.0.session.load_full().unwrap();
        let in_second = |second| (0..1000).filter(|_| session.admit(Duration::from_secs(second))).count() as u64;
        assert_eq!(
            [in_second(0), in_second(1), in_second(1), in_second(0)],
            [QUERIES_PER_SECOND, QUERIES_PER_SECOND, 0, 0]
        );
        assert_eq!(in_second(5), QUERIES_PER_SECOND);
        // The queue is not read.
        for _ in 0..QUEUE_MAX + 7 {
            session.count.store(0, Relaxed);
            ask(&log, QUESTION, "10.0.0.1");
        }
        assert_eq!((queries.take_left_out(), queries.take_left_out()), (7, 0));
    }

    #[test]
    fn a_started_log_takes_the_place_of_the_former_one() {
        let log = QueryLog::default();
        let mut former = log.start(QueryFilter::default());
        let mut next = log.start(QueryFilter::default());
        ask(&log, QUESTION, "10.0.0.1");
        assert!(former.queries.try_recv().is_err() && next.queries.try_recv().is_ok());
        assert!(former.queries.is_closed());
    }

    fn read(reply: &[u8]) -> String {
        let ReplySummary { name, query_type, rcode, answers } = ReplySummary::read(reply).unwrap();
        format!("{name} {query_type} {rcode} {answers}")
    }

    #[test]
    fn a_reply_is_summed_up() {
        assert_eq!(
            read(b"\0\x07\x84\0\0\x01\0\x03\0\0\0\0\x01x\x01A\x07example\0\0\x01\0\x01..."),
            "x.a.example. A NOERROR 3"
        );
        assert_eq!(read(b"\0\x07\x84\x03\0\x01\0\0\0\x01\0\0\0\0\x1c\0\x01..."), ". AAAA NXDOMAIN 0");
        assert_eq!(
            read(b"\0\x07\x84\0\0\x01\0\0\0\0\0\x01\x01 \0\xff\0\0\x01\0\0\x29\x04\xd0\x01\0\0\0\0\0"),
            "\\032. TYPE65280 BADVERS 0"
        );
        assert_eq!(presented(b"\x05a.\\B\xff\0"), "a\\.\\\\b\\255.");
        assert_eq!(read(b"\0\x07\x84\x01\0\0\0\0\0\0\0\0"), "- - FORMERR 0");
        assert_eq!(ReplySummary::read(b"\0\x07\x84\x01\0\x01\0\0\0\0\0\0\x09cut"), None);
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(reply in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = ReplySummary::read(&reply);
        }
    }

    #[test]
    fn types_and_rcodes_have_the_names_of_the_field() {
        assert_eq!([type_name(RecordType::AAAA), type_name(RecordType::Unknown(65280))], ["AAAA", "TYPE65280"]);
        let rcodes = [ResponseCode::NXDomain, ResponseCode::NotAuth, ResponseCode::YXDomain];
        assert_eq!(rcodes.map(rcode_name), ["NXDOMAIN", "NOTAUTH", "RCODE6"]);
        assert_eq!([RecordType::AXFR, RecordType::IXFR].map(type_name), ["AXFR", "IXFR"]);
    }
}

//! Our answers in hickory's scratch.
//!
//! hickory takes records, not octets, and writes them by itself: the same message, names less compressed. So a reply of
//! ours is read back and handed over section by section, and what depends on its length (padding, and whether it fits)
//! is decided once more. A property test holds both to the same message.
//!
//! Questions that hickory cannot read it answers by itself, with FORMERR; they are not counted.

use std::sync::{Arc, Mutex, PoisonError};

use hickory_server::{
    net::runtime::Time,
    proto::{
        ProtoError,
        op::{Header, HeaderCounts, Message, Metadata},
        rr::Record,
        serialize::binary::{BinDecoder, BinEncoder},
    },
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::{MessageResponse, MessageResponseBuilder, Queries},
};

use super::super::{FailureGuard, forward::Forwarder};
use crate::{
    answer::{Answered, Client, Worker, answer, options},
    metrics::{ProcessCounters, Transport},
    table::SharedTable,
    types::unix_now,
};

/// Octets of a message: its length has sixteen bits on every transport (RFC 7858, 3.3; RFC 9250, 4.2).
const OCTETS_MAX: usize = u16::MAX as usize;

/// Octets before the question.
const HEADER_OCTETS: usize = 12;

/// Answers what hickory has decrypted.
pub(super) struct Adapter {
    transport: Transport,
    table: SharedTable,
    counters: Arc<ProcessCounters>,
    forwarder: Forwarder,
    /// One for all connections, so that clients with a connection for each question get every node equally often.
    worker: Mutex<Worker>,
    guard: FailureGuard,
}

impl Adapter {
    pub(super) fn new(
        transport: Transport,
        table: SharedTable,
        counters: Arc<ProcessCounters>,
        forwarder: Forwarder,
        guard: FailureGuard,
    ) -> Self {
        Self { transport, table, counters, forwarder, worker: Mutex::default(), guard }
    }

    /// The reply's octets; `None`: it deserves none.
    async fn reply(&self, request: &Request) -> Option<Vec<u8>> {
        let client = Client { address: request.src().ip(), transport: self.transport, now: unix_now() };
        let mut out = Vec::new();
        let answered = match self.answer(request, &client, &mut out) {
            Answered::Forward => self.forwarder.ask(request.as_slice(), &client, &mut out).await,
            answered => answered,
        };
        (answered == Answered::Reply).then_some(out)
    }

    fn answer(&self, request: &Request, client: &Client, out: &mut Vec<u8>) -> Answered {
        // hickory would bury a panic with the connection.
        let _alarm = self.guard.clone();
        // All connections share one thread and nothing waits while it deals, so nobody ever waits for this lock.
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&self.table.now(), &self.counters, request.as_slice(), client, &mut worker, out)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Adapter {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let reply = self.reply(request).await.and_then(|octets| match HickoryReply::read(&octets) {
            Ok(reply) => Some(reply),
            Err(error) => {
                // No reply of ours is known to come here. The client sees its stream end and asks again.
                tracing::error!(%error, "a reply of ours cannot be read");
                None
            }
        });
        match reply {
            // A client that has gone takes no reply; hickory notices by itself.
            Some(reply) => client.send_response(reply.response()).await.unwrap_or_else(|_| nothing(request.metadata)),
            None => nothing(request.metadata),
        }
    }
}

/// What hickory is told where nothing was sent; it only logs it.
fn nothing(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}

/// A reply of ours as hickory takes it.
struct HickoryReply {
    message: Message,
    question: Queries,
}

impl HickoryReply {
    fn read(octets: &[u8]) -> Result<Self, ProtoError> {
        let mut message = Message::from_vec(octets)?;
        let after_header = octets.get(HEADER_OCTETS..).unwrap_or_default();
        let question = Queries::read(&mut BinDecoder::new(after_header), message.queries.len())?;
        let padded = message.edns.as_mut().is_some_and(options::strip);
        let mut handed = Self { message, question };
        let length = handed.fit()?;
        if let Some(edns) = handed.message.edns.as_mut().filter(|_| padded) {
            options::pad(edns, length, OCTETS_MAX);
        }
        Ok(handed)
    }

    /// Makes it a truncated reply where hickory's longer spelling does not fit. Gives its octets.
    fn fit(&mut self) -> Result<usize, ProtoError> {
        let (info, octets) = self.written()?;
        if info.truncation == self.message.metadata.truncation {
            return Ok(octets.len());
        }
        let Message { metadata, answers, authorities, additionals, .. } = &mut self.message;
        metadata.truncation = true;
        for section in [answers, authorities, additionals] {
            section.clear();
        }
        Ok(self.written()?.1.len())
    }

    /// As hickory will write it.
    fn written(&self) -> Result<(ResponseInfo, Vec<u8>), ProtoError> {
        let mut octets = Vec::new();
        let info = self.response().destructive_emit(&mut BinEncoder::new(&mut octets))?;
        Ok((info, octets))
    }

    fn response(
        &self,
    ) -> MessageResponse<
        '_,
        '_,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
        impl Iterator<Item = &Record> + Send,
    > {
        let Message { metadata, answers, authorities, additionals, edns, .. } = &self.message;
        MessageResponseBuilder::new(&self.question, edns.as_ref()).build(
            *metadata,
            answers,
            authorities,
            &[],
            additionals,
        )
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::{net::NetError, proto::op::Query, server::ResponseHandler};
    use proptest::prelude::*;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::{
        table::{Knowledge, NameServers, ZoneEntry, ZoneSettings, ZoneTable},
        types::{AnswerCount, NodeSet, Ttl, ZoneName, ZoneState},
    };

    /// Takes what hickory would send, as hickory writes it.
    #[derive(Clone, Default)]
    struct Receiver(Arc<Mutex<Vec<u8>>>);

    #[async_trait::async_trait]
    impl ResponseHandler for Receiver {
        async fn send_response<'a>(
            &mut self,
            response: MessageResponse<
                '_,
                'a,
                impl Iterator<Item = &'a Record> + Send + 'a,
                impl Iterator<Item = &'a Record> + Send + 'a,
                impl Iterator<Item = &'a Record> + Send + 'a,
                impl Iterator<Item = &'a Record> + Send + 'a,
            >,
        ) -> Result<ResponseInfo, NetError> {
            let mut octets = Vec::new();
            let info = response.destructive_emit(&mut BinEncoder::new(&mut octets))?;
            *self.0.lock().unwrap() = octets;
            Ok(info)
        }
    }

    /// A zone of one node, ones that name all of many, and some whose names are long.
    fn world() -> SharedTable {
        let all = ZoneSettings { count: AnswerCount::All, ..ZoneSettings::example() };
        let host = |name: &str| (ZoneName::parse(name).unwrap(), vec!["192.0.2.53".parse().unwrap()]);
        let name_servers = NameServers::new([host("ns.one.test"), host("elsewhere.example")]);
        let one = ZoneSettings { name_servers, ttl: Ttl::from_secs(7).unwrap(), ..ZoneSettings::example() };
        let zone = |name: &str, settings: &ZoneSettings, nodes: u16| {
            let entry = Arc::new(ZoneEntry::new(ZoneName::parse(name).unwrap(), settings.clone(), 1));
            let nodes = (0..nodes).map(|n| [10, 0, (n / 250) as u8, (n % 250) as u8].into());
            entry.learn(&Knowledge::up(&NodeSet::new(nodes).unwrap(), ZoneState::Live), 1);
            entry
        };
        let table = SharedTable::default();
        table.replace(ZoneTable::new([
            zone("one.test", &one, 1),
            zone("all.test", &all, 200),
            zone("crowd.test", &all, 3000),
            zone(&far("few"), &all, 150),
            zone(&far("many"), &all, 450),
        ]));
        table
    }

    /// A name that is nearly as long as one may be.
    fn far(label: &str) -> String {
        format!("{0}.{0}.{0}.{label}.test", "x".repeat(63))
    }

    fn adapter() -> Adapter {
        let guard = FailureGuard { name: "tls".into(), failures: unbounded_channel().0 };
        let (table, counters) = (world(), Arc::<ProcessCounters>::default());
        let (forwarder, _) = Forwarder::new(table.clone(), counters.clone());
        Adapter::new(Transport::Tls, table, counters, forwarder, guard)
    }

    fn answered(request: &Request) -> Option<Vec<u8>> {
        let client = Client { address: request.src().ip(), transport: Transport::Tls, now: 1 };
        let mut out = Vec::new();
        (adapter().answer(request, &client, &mut out) == Answered::Reply).then_some(out)
    }

    /// A question with an OPT of these options.
    fn question(name: &str, query_type: u16, options: Option<&[u8]>) -> Vec<u8> {
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(options.is_some())];
        for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
            message.push(label.len().try_into().unwrap());
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(query_type.to_be_bytes());
        message.extend([0, 1]);
        if let Some(options) = options {
            message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, options.len().try_into().unwrap()]);
            message.extend(options);
        }
        message
    }

    fn request(octets: &[u8]) -> Option<Request> {
        let client = "192.0.2.1:4711".parse().unwrap();
        Request::from_bytes(octets.to_vec(), client, hickory_server::net::xfer::Protocol::Tls).ok()
    }

    /// Everything that a message says, its padding apart.
    fn told(octets: &[u8]) -> (String, bool) {
        let mut message = Message::from_vec(octets).unwrap();
        let padded = message.edns.as_mut().is_some_and(options::strip);
        (format!("{message:?}"), padded)
    }

    fn handed(octets: &[u8]) -> Vec<u8> {
        HickoryReply::read(octets).unwrap().written().unwrap().1
    }

    /// No OPT, an empty one, and ones with keepalive, padding, and a cookie with padding.
    const OPTIONS: &[Option<&[u8]>] =
        &[None, Some(b""), Some(b"\0\x0b\0\0"), Some(b"\0\x0c\0\x02\0\0"), Some(b"\0\x0a\0\x0812345678\0\x0c\0\0")];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// The promise of the adapter: hickory sends the message that we answered.
        #[test]
        fn the_message_stays_the_same(
            name in prop::sample::select(
                &["one.test", "ONE.tesT", "x.One.test", "ns.one.test", "all.test", "far", "no.example", "test", "."][..]
            ),
            query_type in prop::sample::select(&[1u16, 2, 6, 16, 28, 41, 252, 255][..]),
            options in prop::sample::select(OPTIONS),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut asked = question(&if name == "far" { far("few") } else { name.into() }, query_type, options);
            for (at, octet) in changes {
                let at = at.index(asked.len());
                asked[at] = octet;
            }
            let Some(request) = request(&asked) else { return Ok(()) };
            let Some(ours) = answered(&request) else { return Ok(()) };
            let theirs = handed(&ours);
            prop_assert_eq!(told(&theirs), told(&ours));
            if told(&theirs).1 {
                prop_assert!(theirs.len().is_multiple_of(468) || theirs.len() == OCTETS_MAX);
            }
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_what_was_answered() {
        let receiver = Receiver::default();
        let asked = request(&question("One.test", 1, Some(b"\0\x0c\0\0"))).unwrap();
        let info =
            adapter().handle_request::<_, hickory_server::net::runtime::TokioTime>(&asked, receiver.clone()).await;
        assert_eq!((info.counts().answers, info.truncation), (1, false));
        let sent = receiver.0.lock().unwrap().clone();
        assert_eq!(sent.len(), 468);
        let sent = Message::from_vec(&sent).unwrap();
        assert_eq!(sent.queries.iter().map(Query::to_string).collect::<Vec<_>>(), ["One.test. IN A"]);
        assert_eq!(sent.answers[0].to_string(), "One.test. 7 IN A 10.0.0.0");
    }

    /// Beyond 120 records hickory compresses names no more, so a reply of ours that is 48 kB long, or 7 kB with a
    /// long name, is longer than a message.
    #[test]
    fn what_hickory_cannot_fit_is_truncated_and_keeps_its_opt() {
        let far = far("many");
        for (name, is_truncated) in [("all.test", false), ("crowd.test", true), (&far, true)] {
            let asked = request(&question(name, 1, Some(b"\0\x0c\0\0"))).unwrap();
            let ours = answered(&asked).unwrap();
            let theirs = Message::from_vec(&handed(&ours)).unwrap();
            assert!(!Message::from_vec(&ours).unwrap().metadata.truncation);
            assert_eq!((theirs.metadata.truncation, theirs.answers.is_empty()), (is_truncated, is_truncated), "{name}");
            assert!(theirs.edns.is_some());
        }
    }
}

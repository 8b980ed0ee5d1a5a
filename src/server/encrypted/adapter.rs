//! Our answers as hickory's responses.
//!
//! hickory takes records, not octets, and encodes them itself: the same message, with names less compressed. So a reply of
//! ours is parsed and handed over section by section, and what depends on its length (padding, and whether it fits) is
//! decided again. A property test holds both to the same message.
//!
//! Questions that hickory cannot parse it answers itself, with FORMERR; they are not counted.
//!
//! hickory answers one stream of a connection after the other, so a question for upstreams is answered in a task of its own.

use std::sync::{Mutex, PoisonError};

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
use tokio::task::JoinSet;

use super::super::{
    FailureGuard,
    service::{Service, StreamReply, StreamWorker},
};
use crate::{
    answer::{Client, options, wire::HEADER_OCTETS},
    metrics::Transport,
    types::unix_now,
};

/// Octets of a message: its length has sixteen bits (RFC 9250, 4.2).
const OCTETS_MAX: usize = u16::MAX as usize;

/// Answers what hickory has decrypted.
pub(super) struct Adapter {
    service: Service,
    worker: StreamWorker,
    guard: FailureGuard,
    /// Questions that wait for upstreams. Each holds one of a connection's streams, of which QUIC allows a hundred.
    forwarded: Mutex<JoinSet<()>>,
}

impl Adapter {
    pub(super) fn new(service: Service, guard: FailureGuard) -> Self {
        Self { service, worker: StreamWorker::default(), guard, forwarded: Mutex::default() }
    }

    fn answer(&self, request: &Request, out: &mut Vec<u8>) -> StreamReply {
        // hickory would hide a panic: it ends only the connection.
        let _guard = self.guard.clone();
        let client = Client { address: request.src().ip(), transport: Transport::Quic, now: unix_now() };
        self.service.answer_stream(request.as_slice(), &client, &self.worker, out)
    }

    /// Owns a task that waits for an upstream's reply.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // No code panics while it holds the lock.
        let mut forwarded = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner);
        while forwarded.try_join_next().is_some() {}
        forwarded.spawn(task);
    }
}

#[async_trait::async_trait]
impl RequestHandler for Adapter {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, client: R) -> ResponseInfo {
        let metadata = request.metadata;
        let mut out = Vec::new();
        match self.answer(request, &mut out) {
            StreamReply::Ready => return send(client, &out, metadata).await,
            StreamReply::Forwarded(reply) => self.spawn(async move {
                if let Ok(reply) = reply.await {
                    send(client, &reply, metadata).await;
                }
            }),
            StreamReply::None => {}
        }
        nothing(metadata)
    }
}

async fn send(mut client: impl ResponseHandler, reply: &[u8], metadata: Metadata) -> ResponseInfo {
    match HickoryReply::read(reply) {
        // hickory notices by itself when the client is gone.
        Ok(reply) => client.send_response(reply.response()).await.unwrap_or_else(|_| nothing(metadata)),
        Err(error) => {
            // No reply of ours is known to cause this. The client sees its stream end and asks again.
            tracing::error!(%error, "a reply of ours cannot be read");
            nothing(metadata)
        }
    }
}

/// What hickory gets where nothing was sent; it only logs it.
fn nothing(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}

/// A reply of ours in hickory's types.
struct HickoryReply {
    message: Message,
    question: Queries,
}

impl HickoryReply {
    fn read(octets: &[u8]) -> Result<Self, ProtoError> {
        let mut message = Message::from_vec(octets)?;
        let after_header = octets.get(HEADER_OCTETS..).unwrap_or_default();
        let question = Queries::read(&mut BinDecoder::new(after_header), message.queries.len())?;
        let is_padded = message.edns.as_mut().is_some_and(options::remove_padding);
        let mut reply = Self { message, question };
        let length = reply.fit()?;
        if let Some(edns) = reply.message.edns.as_mut().filter(|_| is_padded) {
            options::pad(edns, length, OCTETS_MAX);
        }
        Ok(reply)
    }

    /// Truncates the reply where hickory's less compressed form does not fit. Returns its length.
    fn fit(&mut self) -> Result<usize, ProtoError> {
        let (info, octets) = self.encode()?;
        if info.truncation == self.message.metadata.truncation {
            return Ok(octets.len());
        }
        let Message { metadata, answers, authorities, additionals, .. } = &mut self.message;
        metadata.truncation = true;
        for section in [answers, authorities, additionals] {
            section.clear();
        }
        Ok(self.encode()?.1.len())
    }

    /// As hickory encodes it.
    fn encode(&self) -> Result<(ResponseInfo, Vec<u8>), ProtoError> {
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
    use std::sync::{Arc, Mutex};

    use hickory_server::{net::NetError, proto::op::Query, server::ResponseHandler};
    use proptest::prelude::*;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::{
        answer::{Answered, Worker},
        metrics::ProcessCounters,
        server::forward::Forwarder,
        table::{Knowledge, NameServers, SharedTable, ZoneEntry, ZoneSettings, ZoneTable},
        types::{AnswerCount, NodeSet, Ttl, ZoneName, ZoneState},
    };

    /// Records what hickory would send, as hickory encodes it.
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

    /// A zone of one node, zones that answer all of many nodes, and zones with long names.
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
            zone("large.test", &all, 3000),
            zone(&long_name("few"), &all, 150),
            zone(&long_name("many"), &all, 450),
        ]));
        table
    }

    /// A name that is nearly as long as a name may be.
    fn long_name(label: &str) -> String {
        format!("{0}.{0}.{0}.{label}.test", "x".repeat(63))
    }

    fn service() -> Service {
        let table = world();
        let counters = Arc::<ProcessCounters>::default();
        let (forwarder, _) = Forwarder::new(table.clone(), counters.clone());
        Service::new(table, counters, forwarder)
    }

    fn adapter() -> Adapter {
        let guard = FailureGuard { name: "quic".into(), failures: unbounded_channel().0 };
        Adapter::new(service(), guard)
    }

    fn answered(request: &Request) -> Option<Vec<u8>> {
        let client = Client { address: request.src().ip(), transport: Transport::Quic, now: 1 };
        let mut out = Vec::new();
        let answered = service().answer(request.as_slice(), &client, &mut Worker::default(), &mut out);
        (answered == Answered::Reply).then_some(out)
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

    /// The content of a message without its padding, and whether it was padded.
    fn content(octets: &[u8]) -> (String, bool) {
        let mut message = Message::from_vec(octets).unwrap();
        let padded = message.edns.as_mut().is_some_and(options::remove_padding);
        (format!("{message:?}"), padded)
    }

    fn by_hickory(octets: &[u8]) -> Vec<u8> {
        HickoryReply::read(octets).unwrap().encode().unwrap().1
    }

    /// No OPT, an empty one, and ones with keepalive, padding, and a cookie with padding.
    const OPTIONS: &[Option<&[u8]>] =
        &[None, Some(b""), Some(b"\0\x0b\0\0"), Some(b"\0\x0c\0\x02\0\0"), Some(b"\0\x0a\0\x0812345678\0\x0c\0\0")];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// hickory sends the message that we answered.
        #[test]
        fn hickory_sends_the_same_message(
            name in prop::sample::select(
                &["one.test", "ONE.tesT", "x.One.test", "ns.one.test", "all.test", "long", "no.example", "test", "."][..]
            ),
            query_type in prop::sample::select(&[1u16, 2, 6, 16, 28, 41, 252, 255][..]),
            options in prop::sample::select(OPTIONS),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut asked = question(&if name == "long" { long_name("few") } else { name.into() }, query_type, options);
            for (at, octet) in changes {
                let at = at.index(asked.len());
                asked[at] = octet;
            }
            let Some(request) = request(&asked) else { return Ok(()) };
            let Some(ours) = answered(&request) else { return Ok(()) };
            let theirs = by_hickory(&ours);
            prop_assert_eq!(content(&theirs), content(&ours));
            if content(&theirs).1 {
                prop_assert!(theirs.len().is_multiple_of(468) || theirs.len() == OCTETS_MAX);
            }
        }
    }

    #[tokio::test]
    async fn a_request_is_answered_and_padded() {
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

    /// Beyond 120 records hickory no longer compresses names, so a reply of ours that is 48 kB long, or 7 kB with a
    /// long name, is longer than a message.
    #[test]
    fn a_reply_that_hickory_cannot_fit_is_truncated_and_keeps_its_opt() {
        let long = long_name("many");
        for (name, is_truncated) in [("all.test", false), ("large.test", true), (&long, true)] {
            let asked = request(&question(name, 1, Some(b"\0\x0c\0\0"))).unwrap();
            let ours = answered(&asked).unwrap();
            let theirs = Message::from_vec(&by_hickory(&ours)).unwrap();
            assert!(!Message::from_vec(&ours).unwrap().metadata.truncation);
            assert_eq!((theirs.metadata.truncation, theirs.answers.is_empty()), (is_truncated, is_truncated), "{name}");
            assert!(theirs.edns.is_some());
        }
    }
}

//! Our answers in hickory's hands.
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

use super::super::{Alarm, forward::Forwarder};
use crate::{
    answer::{Answered, Client, Dealer, answer, options},
    metrics::{ProcessCounters, Transport},
    table::SharedTable,
    zone::unix_now,
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
    dealer: Mutex<Dealer>,
    alarm: Alarm,
}

impl Adapter {
    pub(super) fn new(
        transport: Transport,
        table: SharedTable,
        counters: Arc<ProcessCounters>,
        forwarder: Forwarder,
        alarm: Alarm,
    ) -> Self {
        Self { transport, table, counters, forwarder, dealer: Mutex::default(), alarm }
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
        let _alarm = self.alarm.clone();
        // All connections share one thread and nothing waits while it deals, so nobody ever waits for this lock.
        let mut dealer = self.dealer.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&self.table.now(), &self.counters, request.as_slice(), client, &mut dealer, out)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Adapter {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let reply = self.reply(request).await.and_then(|octets| match Handed::read(&octets) {
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
struct Handed {
    message: Message,
    question: Queries,
}

impl Handed {
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
    use proptest::prelude::*;

    use super::*;
    use crate::{
        table::{Knowledge, Settings, ZoneEntry, ZoneTable},
        zone::{AnswerCount, NodeSet, ZoneName, ZoneState},
    };

    const NAMES: &[&[u8]] = &[b"\x01A\x04test\0", b"\x01x\x01a\x04tEst\0", b"\x05other\0"];
    const TYPES: &[u16] = &[1, 28, 6, 2, 255, 16, 252];
    const OPTIONS: &[&[u8]] = &[b"", b"\0\x0a\0\x08cookie-8", b"\0\x0c\0\x02\0\0"];

    fn table(nodes: u16) -> ZoneTable {
        let settings = Settings { count: AnswerCount::All, ..Settings::example() };
        let entry = ZoneEntry::new(ZoneName::parse("a.test").unwrap(), settings, 1);
        let nodes = (1..=nodes).map(|n| [10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]].into());
        entry.learn(&Knowledge::up(&NodeSet::new(nodes).unwrap(), ZoneState::Stale), 1);
        ZoneTable::new([Arc::new(entry)])
    }

    fn question(name: &[u8], query_type: u16, options: Option<&[u8]>) -> Vec<u8> {
        let mut message = [b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0", &[u8::from(options.is_some())][..], name].concat();
        message.extend(query_type.to_be_bytes());
        message.extend([0, 1]);
        if let Some(options) = options {
            message.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, u8::try_from(options.len()).unwrap()]);
            message.extend(options);
        }
        message
    }

    fn reply(nodes: u16, question: &[u8], transport: Transport) -> Vec<u8> {
        let client = Client { address: [192, 0, 2, 1].into(), transport, now: 1 };
        let mut out = Vec::new();
        let answered =
            answer(&table(nodes), &ProcessCounters::default(), question, &client, &mut Dealer::seeded(1), &mut out);
        assert_eq!(answered, Answered::Reply);
        out
    }

    proptest! {
        #[test]
        fn hickory_writes_the_message_that_we_wrote(
            nodes in 1..80_u16,
            name in prop::sample::select(NAMES),
            query_type in prop::sample::select(TYPES),
            options in prop::option::of(prop::sample::select(OPTIONS)),
        ) {
            let ours = reply(nodes, &question(name, query_type, options), Transport::Quic);
            let handed = Handed::read(&ours).unwrap();
            let (_, theirs) = handed.written().unwrap();
            let (mut ours, mut theirs) = (Message::from_vec(&ours).unwrap(), Message::from_vec(&theirs).unwrap());
            if let (Some(ours), Some(theirs)) = (ours.edns.as_mut(), theirs.edns.as_mut()) {
                // Lengths differ, and so does what fills them up.
                prop_assert_eq!(options::strip(ours), options::strip(theirs));
            }
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_hickory_spells_too_long_is_truncated_and_padding_fills_blocks() {
        let padded = question(b"\x01a\x04test\0", 1, Some(b"\0\x0c\0\x02\0\0"));
        let (_, octets) = Handed::read(&reply(9, &padded, Transport::Tls)).unwrap().written().unwrap();
        assert_eq!(octets.len() % 468, 0);
        // Sixteen octets a record here, and up to eighteen there.
        let many = reply(4090, &question(b"\x01a\x04test\0", 1, None), Transport::Tls);
        let (info, octets) = Handed::read(&many).unwrap().written().unwrap();
        assert!(info.truncation || octets.len() <= OCTETS_MAX, "{} octets", octets.len());
    }
}

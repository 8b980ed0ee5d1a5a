//! What an upstream is asked, and which messages are replies to it.

use hickory_server::proto::{
    ProtoError,
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// Octets of the largest reply over UDP that upstreams are offered: it passes every link unfragmented (DNS flag day 2020).
const PAYLOAD_OCTETS: u16 = 1232;

/// A question for an upstream, in class IN.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct UpstreamQuery {
    query: Query,
    /// Signatures are wanted.
    dnssec_ok: bool,
}

/// Whether an OPT goes with a question. Servers that do not know EDNS reply FORMERR or NOTIMP to one (RFC 6891, 7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WithOpt {
    Yes,
    No,
}

/// A message that replies to a question.
#[derive(Clone, Debug)]
pub(super) enum Received {
    /// It can be read.
    Message {
        message: Message,
        /// As it came.
        octets: Vec<u8>,
    },
    /// Its records cannot be read.
    Malformed,
}

impl UpstreamQuery {
    /// Asks for a name in wire format and a type; `None`: it is no name.
    pub(super) fn new(name: &[u8], query_type: u16, dnssec_ok: bool) -> Option<Self> {
        let name = Name::from_bytes(name).ok()?;
        Some(Self { query: Query::query(name, RecordType::from(query_type)), dnssec_ok })
    }

    pub(super) fn name(&self) -> &Name {
        self.query.name()
    }

    pub(super) fn query_type(&self) -> RecordType {
        self.query.query_type()
    }

    /// The message to send.
    pub(super) fn encode(&self, id: u16, opt: WithOpt) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(self.query.clone());
        if opt == WithOpt::Yes {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD_OCTETS).set_dnssec_ok(self.dnssec_ok);
            message.edns = Some(edns);
        }
        message.to_vec()
    }

    /// Reads a message from an upstream; `None`: it does not reply to this question, and may be forged.
    ///
    /// A reply repeats the question. Only servers that could not read it leave it out.
    pub(super) fn read(&self, id: u16, octets: Vec<u8>) -> Option<Received> {
        let mut decoder = BinDecoder::new(&octets);
        let Header { metadata, counts } = Header::read(&mut decoder).ok()?;
        if metadata.id != id || metadata.message_type != MessageType::Response || metadata.op_code != OpCode::Query {
            return None;
        }
        let is_reply = match counts.queries {
            0 => matches!(metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp),
            1 => Query::read(&mut decoder).is_ok_and(|query| query == self.query),
            _ => false,
        };
        if !is_reply {
            return None;
        }
        Some(match Message::from_vec(&octets) {
            Ok(message) => Received::Message { message, octets },
            Err(_) => Received::Malformed,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;
    const NAME: &[u8] = b"\x03www\x04test\0";

    fn query() -> UpstreamQuery {
        UpstreamQuery::new(NAME, 1, false).unwrap()
    }

    /// A reply with this ID, rcode and question.
    fn reply(id: u16, rcode: ResponseCode, question: Option<Query>) -> Vec<u8> {
        let mut message = Message::response(id, OpCode::Query);
        message.metadata.response_code = rcode;
        message.queries.extend(question);
        message.to_vec().unwrap()
    }

    fn question(name: &str, query_type: RecordType) -> Option<Query> {
        Some(Query::query(Name::from_ascii(name).unwrap(), query_type))
    }

    #[test]
    fn only_a_message_with_the_id_and_the_question_is_a_reply() {
        let is_reply = |octets: Vec<u8>| query().read(ID, octets).is_some();
        let right = question("www.test.", RecordType::A);
        assert!(is_reply(reply(ID, ResponseCode::NoError, right.clone())));
        assert!(is_reply(reply(ID, ResponseCode::NoError, question("WWW.test.", RecordType::A))), "spelled otherwise");
        assert!(!is_reply(reply(ID + 1, ResponseCode::NoError, right)));
        assert!(!is_reply(reply(ID, ResponseCode::NoError, question("www.test.", RecordType::AAAA))));
        assert!(!is_reply(reply(ID, ResponseCode::NoError, question("other.test.", RecordType::A))));
        assert!(!is_reply(query().encode(ID, WithOpt::Yes).unwrap()), "a question");
        assert!(!is_reply(Vec::new()));
        for (rcode, expected) in [
            (ResponseCode::FormErr, true),
            (ResponseCode::NotImp, true),
            (ResponseCode::NoError, false),
            (ResponseCode::NXDomain, false),
            (ResponseCode::ServFail, false),
            (ResponseCode::Refused, false),
        ] {
            assert_eq!(is_reply(reply(ID, rcode, None)), expected, "{rcode} without a question");
        }
    }

    #[test]
    fn a_reply_whose_records_cannot_be_read_is_malformed() {
        let mut octets = reply(ID, ResponseCode::NoError, question("www.test.", RecordType::A));
        octets[7] = 1;
        assert!(matches!(query().read(ID, octets), Some(Received::Malformed)));
    }

    #[test]
    fn an_opt_offers_the_payload_and_asks_for_signatures() {
        for dnssec_ok in [false, true] {
            let query = UpstreamQuery::new(NAME, 1, dnssec_ok).unwrap();
            let with = Message::from_vec(&query.encode(ID, WithOpt::Yes).unwrap()).unwrap();
            let edns = with.edns.unwrap();
            assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (PAYLOAD_OCTETS, dnssec_ok));
            assert!(with.metadata.recursion_desired);
            let without = Message::from_vec(&query.encode(ID, WithOpt::No).unwrap()).unwrap();
            assert!(without.edns.is_none());
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = query().read(ID, octets);
        }

        #[test]
        fn no_changed_reply_makes_it_panic(at in 0..40_usize, octet in any::<u8>(), cut in 0..40_usize) {
            let mut octets = reply(ID, ResponseCode::NoError, question("www.test.", RecordType::A));
            let at = at % octets.len();
            octets[at] = octet;
            octets.truncate(octets.len() - cut.min(octets.len()));
            let _ = query().read(ID, octets);
        }
    }
}

//! The parser: reads of a message what an authoritative server needs, which is header, question and OPT.
//!
//! It decides which messages get no reply, FORMERR, NOTIMP or BADVERS; every other rcode belongs to `resolve`. It
//! allocates nothing, follows no compression pointer, and no input makes it panic.

use super::{
    cookie::CookieOption,
    wire::{
        EDNS_DNSSEC_OK, FLAG_RECURSION_DESIRED, FLAG_RESPONSE, OPTION_COOKIE, OPTION_KEEPALIVE, OPTION_NSID,
        OPTION_PADDING, TYPE_AND_CLASS_OCTETS, TYPE_OPT,
    },
};
use crate::{
    metrics::{IgnoreReason, Rcode},
    types::{MessageReader, NAME_OCTETS_MAX, RecordHead},
};

/// The version of EDNS that this server implements (RFC 6891, 6.1.3).
const EDNS_VERSION: u8 = 0;

/// What a message is to a server.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one answer; a box would cost an allocation")]
pub enum Parsed<'m> {
    /// A question to be looked up in the table.
    Query(Query<'m>),
    /// A message that is answered with an rcode alone.
    Reject {
        /// What the reply copies.
        request: Request<'m>,
        /// FORMERR, NOTIMP or BADVERS; NOERROR where a message without a question asks for a cookie (RFC 7873, 5.4).
        rcode: Rcode,
    },
    /// A message that gets no reply.
    Ignore(IgnoreReason),
}

/// What a reply copies from the message that it answers, as far as the message could be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request<'m> {
    /// The identity.
    pub id: u16,
    /// 0 to 15.
    pub opcode: u8,
    /// RD.
    pub recursion_desired: bool,
    /// Name, type and class of the only question, to be echoed octet for octet; empty when there is none or it could not
    /// be read.
    pub question: &'m [u8],
    /// What the first OPT holds: an OPT is answered with an OPT, also in errors (RFC 6891, 7).
    pub edns: Option<Edns>,
}

/// One well-formed question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Query<'m> {
    /// What the reply copies.
    pub request: Request<'m>,
    /// QTYPE.
    pub query_type: u16,
    /// QCLASS.
    pub class: u16,
    name: LowerName,
}

impl Query<'_> {
    /// QNAME in wire format and lower case, as the table stores names.
    pub fn name(&self) -> &[u8] {
        self.name.octets()
    }

    /// The same question about another name. `question` is that name, and then the type and class of this question.
    pub(super) fn about<'q>(&self, question: &'q [u8]) -> Option<Query<'q>> {
        let request = Request { question, ..self.request };
        Some(Query { name: LowerName::new(request.name())?, request, query_type: self.query_type, class: self.class })
    }
}

impl<'m> Request<'m> {
    /// QNAME in wire format as the client wrote it; empty without a question.
    pub fn name(&self) -> &'m [u8] {
        self.question.get(..self.question.len().saturating_sub(TYPE_AND_CLASS_OCTETS)).unwrap_or_default()
    }

    /// DO: the client wants signatures.
    pub fn wants_signatures(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

/// The content of an OPT of version 0 (RFC 6891, 6.1). Unknown options and flags are ignored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Edns {
    /// Octets of the largest UDP reply that the client takes; below 512 it means 512.
    pub payload: u16,
    /// DO, copied into the reply (RFC 3225, 3).
    pub dnssec_ok: bool,
    /// Whether the client asks for the server's identifier (RFC 5001).
    pub nsid: bool,
    /// Whether the client asks how long a connection may be idle (RFC 7828).
    pub keepalive: bool,
    /// Whether the message is padded: then the reply may be padded too (RFC 7830).
    pub padding: bool,
    /// The first cookie (RFC 7873, 5.2).
    pub cookie: Option<CookieOption>,
}

/// Reads one message.
pub fn parse(message: &[u8]) -> Parsed<'_> {
    let mut reader = MessageReader::new(message, 0);
    let Some(header) = Header::read(&mut reader) else { return Parsed::Ignore(IgnoreReason::Short) };
    if header.is_response() {
        return Parsed::Ignore(IgnoreReason::Reply);
    }
    let mut request = Request {
        id: header.id,
        opcode: header.opcode(),
        recursion_desired: header.recursion_desired(),
        question: &[],
        edns: None,
    };
    if request.opcode != 0 {
        // The meaning of the rest depends on the opcode, so it is neither read nor echoed.
        return Parsed::Reject { request, rcode: Rcode::NotImp };
    }
    let mut body = Body::default();
    let well_formed = body.read(&mut reader, &header).is_some();
    request.edns = body.opt.map(|opt| opt.edns);
    request.question = body.question.map_or(&[][..], |question| question.octets);
    if !well_formed {
        return Parsed::Reject { request, rcode: Rcode::FormErr };
    }
    let Some(question) = body.question else { return Parsed::Reject { request, rcode: Rcode::NoError } };
    if body.opt.is_some_and(|opt| opt.version > EDNS_VERSION) {
        return Parsed::Reject { request, rcode: Rcode::BadVers };
    }
    Parsed::Query(Query { request, query_type: question.query_type, class: question.class, name: question.name })
}

/// A name of at most 255 octets in lower case.
#[derive(Clone, Copy, Eq, PartialEq)]
struct LowerName {
    buffer: [u8; NAME_OCTETS_MAX],
    length: u8,
}

impl LowerName {
    /// `None` when the name is too long.
    fn new(octets: &[u8]) -> Option<Self> {
        let mut buffer = [0; NAME_OCTETS_MAX];
        let name = buffer.get_mut(..octets.len())?;
        name.copy_from_slice(octets);
        // Label lengths are 63 at most and 'A' is 65, so no length is changed.
        name.make_ascii_lowercase();
        Some(Self { buffer, length: u8::try_from(octets.len()).ok()? })
    }

    fn octets(&self) -> &[u8] {
        self.buffer.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl std::fmt::Debug for LowerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.octets().escape_ascii())
    }
}

/// The header's fields (RFC 1035, 4.1.1).
#[derive(Clone, Copy)]
struct Header {
    id: u16,
    flags: [u8; 2],
    questions: u16,
    /// Records in the answer and the authority section.
    records_before_additional: u32,
    additional: u16,
}

impl Header {
    fn read(reader: &mut MessageReader<'_>) -> Option<Self> {
        Some(Self {
            id: reader.u16()?,
            flags: reader.array()?,
            questions: reader.u16()?,
            records_before_additional: u32::from(reader.u16()?) + u32::from(reader.u16()?),
            additional: reader.u16()?,
        })
    }

    fn is_response(self) -> bool {
        self.flags[0] & FLAG_RESPONSE != 0
    }

    fn opcode(self) -> u8 {
        self.flags[0] >> 3 & 0x0F
    }

    fn recursion_desired(self) -> bool {
        self.flags[0] & FLAG_RECURSION_DESIRED != 0
    }
}

/// The content behind the header, as far as it could be read.
#[derive(Clone, Copy, Default)]
struct Body<'m> {
    question: Option<Question<'m>>,
    opt: Option<Opt>,
}

#[derive(Clone, Copy)]
struct Question<'m> {
    octets: &'m [u8],
    name: LowerName,
    query_type: u16,
    class: u16,
}

#[derive(Clone, Copy)]
struct Opt {
    version: u8,
    edns: Edns,
}

impl<'m> Question<'m> {
    fn read(reader: &mut MessageReader<'m>) -> Option<Self> {
        let question = reader.question()?;
        let name = LowerName::new(question.name())?;
        Some(Self { octets: question.octets, name, query_type: question.query_type, class: question.class })
    }
}

impl<'m> Body<'m> {
    /// Reads question and records; `None` where they are ill-formed. Octets behind the last record are ignored.
    fn read(&mut self, reader: &mut MessageReader<'m>, header: &Header) -> Option<()> {
        for _ in 0..header.questions {
            let question = Question::read(reader)?;
            // Several questions have no common answer (RFC 9619): none is echoed.
            self.question = (header.questions == 1).then_some(question);
        }
        for _ in 0..header.records_before_additional {
            let head = reader.record_head().filter(|head| head.record_type != TYPE_OPT)?;
            reader.take(head.data_octets)?;
        }
        for _ in 0..header.additional {
            let head = reader.record_head()?;
            let data = reader.take(head.data_octets);
            // An OPT that is cut short is kept too, so that the FORMERR has an OPT.
            if head.record_type == TYPE_OPT {
                self.take_opt(&head, data.unwrap_or_default())?;
            }
            data?;
        }
        let asks_for_cookie = header.questions == 0 && self.opt.is_some_and(|opt| opt.edns.cookie.is_some());
        (header.questions == 1 || asks_for_cookie).then_some(())
    }

    /// Keeps the first OPT even when it is ill-formed, so that the error comes with an OPT.
    fn take_opt(&mut self, head: &RecordHead, data: &[u8]) -> Option<()> {
        if self.opt.is_some() {
            return None;
        }
        let [_extended_rcode, version, high_flags, low_flags] = head.ttl.to_be_bytes();
        let dnssec_ok = u16::from_be_bytes([high_flags, low_flags]) & EDNS_DNSSEC_OK != 0;
        let opt = self.opt.insert(Opt { version, edns: Edns { payload: head.class, dnssec_ok, ..Edns::default() } });
        if !head.owner_is_root {
            return None;
        }
        // The format of the options depends on the version.
        if version > EDNS_VERSION { Some(()) } else { opt.edns.take_options(data) }
    }
}

impl Edns {
    /// `None` when an option reaches over the end of the OPT, or a cookie is ill-formed.
    #[inline]
    pub(super) fn take_options(&mut self, data: &[u8]) -> Option<()> {
        let mut reader = MessageReader::new(data, 0);
        while !reader.is_at_end() {
            let code = reader.u16()?;
            let length = reader.u16()?;
            let octets = reader.take(usize::from(length))?;
            match code {
                OPTION_NSID => self.nsid = true,
                OPTION_KEEPALIVE => self.keepalive = true,
                OPTION_PADDING => self.padding = true,
                OPTION_COOKIE if self.cookie.is_none() => self.cookie = Some(CookieOption::read(octets)?),
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message with these counts and this body.
    fn message(counts: [u8; 4], body: &[u8]) -> Vec<u8> {
        let [questions, answers, authorities, additional] = counts;
        let head = [0xAB, 0xCD, 1, 0, 0, questions, 0, answers, 0, authorities, 0, additional];
        [&head, body].concat()
    }

    proptest! {
        #[test]
        fn no_input_makes_the_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
        }

        #[test]
        fn fields_are_read_from_their_places(
            counts in prop::array::uniform4(0..3_u8),
            labels in prop::collection::vec("[a-zA-Z0-9.]{1,9}", 0..4),
            rest in prop::collection::vec(prop::sample::select(&[0, 1, 4, 10, 12, 41, 0xC0, 0xFF][..]), 0..40),
        ) {
            let mut body: Vec<_> = labels.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
            body.push(0);
            body.extend(rest);
            let message = message(counts, &body);
            if let Parsed::Query(query) = parse(&message) {
                prop_assert_eq!(counts[0], 1);
                prop_assert_eq!(query.request.question, &body[..query.request.question.len()]);
                prop_assert_eq!(query.name(), query.request.name().to_ascii_lowercase());
                prop_assert_eq!(query.request.question.len(), query.name().len() + TYPE_AND_CLASS_OCTETS);
                prop_assert!(query.request.edns.is_none() || counts[3] > 0);
            }
        }
    }
}

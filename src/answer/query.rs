//! Reads a message as far as an authoritative server needs it: header, question, OPT.
//!
//! This parser owns silence, FORMERR, NOTIMP and BADVERS; every other rcode belongs to `resolve`. It allocates
//! nothing, follows no compression pointer, and no octets make it panic.

use super::cookie::{CLIENT_OCTETS, SERVER_OCTETS};
use crate::{
    metrics::{IgnoreReason, Rcode},
    types::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX},
};

/// Octets in a message's header (RFC 1035, 4.1.1).
pub const HEADER_OCTETS: usize = 12;

/// Type and class, which follow the name in a question (RFC 1035, 4.1.2).
const TYPE_AND_CLASS_OCTETS: usize = 4;

/// Header flag: this is a reply.
const FLAG_REPLY: u16 = 0x8000;

/// Header flag: recursion desired.
const FLAG_RECURSION_DESIRED: u16 = 0x0100;

/// The two bits that make a label's length the first octet of a compression pointer (RFC 1035, 4.1.4).
const POINTER_BITS: u8 = 0xC0;

/// Type OPT (RFC 6891, 6.1.1).
pub(super) const TYPE_OPT: u16 = 41;

/// Options that are understood (IANA, DNS EDNS0 option codes).
pub(super) const OPTION_NSID: u16 = 3;
pub(super) const OPTION_COOKIE: u16 = 10;
pub(super) const OPTION_KEEPALIVE: u16 = 11;
pub(super) const OPTION_PADDING: u16 = 12;

/// Octets of a server's cookie (RFC 7873, 4). Ours have [`SERVER_OCTETS`]; any other is not ours.
const FOREIGN_SERVER_OCTETS: std::ops::RangeInclusive<usize> = 8..=32;

/// The flag DO in an OPT's TTL field (RFC 3225, 3).
pub(super) const EDNS_DNSSEC_OK: u16 = 0x8000;

/// What a message is to a server.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one answer; a box would cost an allocation")]
pub enum Parsed<'m> {
    /// A question that deserves a look at the table.
    Query(Query<'m>),
    /// A message that is answered with an rcode alone.
    Reject(Reject<'m>),
    /// A message that gets no reply.
    Ignore(IgnoreReason),
}

/// One well-formed question with what matters of its header and its OPT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Query<'m> {
    /// Copied into the reply.
    pub id: u16,
    /// RD, copied into the reply.
    pub recursion_desired: bool,
    /// Name, type and class as they came, to be echoed octet for octet.
    pub question: &'m [u8],
    /// QTYPE.
    pub query_type: u16,
    /// QCLASS.
    pub class: u16,
    /// What the OPT said, if there was one.
    pub edns: Option<Edns>,
    name: LowerName,
}

impl<'m> Query<'m> {
    /// QNAME in wire format and lower case, as the table knows names.
    pub fn name(&self) -> &[u8] {
        self.name.octets()
    }

    /// QNAME in wire format as the client wrote it.
    pub fn name_as_asked(&self) -> &'m [u8] {
        self.question.get(..usize::from(self.name.length)).unwrap_or_default()
    }
}

/// What an OPT of version 0 tells about its sender (RFC 6891, 6.1). Unknown options and flags are ignored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Edns {
    /// Octets of the largest UDP reply that the client takes; below 512 it means 512.
    pub payload: u16,
    /// DO, copied into the reply (RFC 3225, 3).
    pub dnssec_ok: bool,
    /// Asks what this server calls itself (RFC 5001).
    pub nsid: bool,
    /// Asks how long a connection may be idle (RFC 7828).
    pub keepalive: bool,
    /// Is padded, and so may the reply be (RFC 7830).
    pub padding: bool,
    /// The first cookie (RFC 7873, 5.2).
    pub cookie: Option<AskedCookie>,
}

/// A COOKIE option of a client (RFC 7873, 4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AskedCookie {
    /// The client's own, to be echoed.
    pub client: [u8; CLIENT_OCTETS],
    /// The server's that it shows, where that may be one of ours.
    pub server: Option<[u8; SERVER_OCTETS]>,
}

/// A reply that needs no look at the zones. It keeps what could be read, because the reply echoes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reject<'m> {
    /// Copied into the reply.
    pub id: u16,
    /// Copied into the reply: 0 to 15.
    pub opcode: u8,
    /// RD, copied into the reply.
    pub recursion_desired: bool,
    /// FORMERR, NOTIMP or BADVERS; NOERROR where somebody without a question asks for a cookie (RFC 7873, 5.4).
    pub rcode: Rcode,
    /// The only question, to be echoed; empty when there is none or it could not be read.
    pub question: &'m [u8],
    /// What the first OPT said: an OPT is answered with an OPT, also in errors (RFC 6891, 7).
    pub edns: Option<Edns>,
}

/// Reads one message.
pub fn parse(message: &[u8]) -> Parsed<'_> {
    let mut reader = Reader { message, at: 0 };
    let Some(header) = reader.header() else { return Parsed::Ignore(IgnoreReason::Short) };
    if header.flags & FLAG_REPLY != 0 {
        return Parsed::Ignore(IgnoreReason::Reply);
    }
    let recursion_desired = header.flags & FLAG_RECURSION_DESIRED != 0;
    let reject = Reject {
        id: header.id,
        opcode: header.opcode(),
        recursion_desired,
        rcode: Rcode::FormErr,
        question: &[],
        edns: None,
    };
    if header.opcode() != 0 {
        // The rest of the message means what the opcode says, so nothing of it is read or echoed.
        return Parsed::Reject(Reject { rcode: Rcode::NotImp, ..reject });
    }
    let mut body = Body::default();
    let well_formed = body.read(&mut reader, &header).is_some();
    let edns = body.opt.map(|opt| opt.edns);
    let Some(question) = body.question else {
        let rcode = if well_formed { Rcode::NoError } else { Rcode::FormErr };
        return Parsed::Reject(Reject { rcode, edns, ..reject });
    };
    if !well_formed {
        return Parsed::Reject(Reject { question: question.octets, edns, ..reject });
    }
    if body.opt.is_some_and(|opt| opt.version > 0) {
        return Parsed::Reject(Reject { rcode: Rcode::BadVers, question: question.octets, edns, ..reject });
    }
    Parsed::Query(Query {
        id: header.id,
        recursion_desired,
        question: question.octets,
        query_type: question.query_type,
        class: question.class,
        edns,
        name: question.name,
    })
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
        // Lengths of labels stay what they are: 63 at most, below the first letter.
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
    flags: u16,
    questions: u16,
    /// Records in the answer and the authority section.
    records_before_additional: u32,
    additional: u16,
}

impl Header {
    fn opcode(self) -> u8 {
        (self.flags >> 11) as u8 & 0x0F
    }
}

/// What was found behind the header, as far as it could be read.
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

impl<'m> Body<'m> {
    /// Reads question and records; `None` where they are ill-formed. Octets behind the last record are nobody's.
    fn read(&mut self, reader: &mut Reader<'m>, header: &Header) -> Option<()> {
        for _ in 0..header.questions {
            let question = reader.question()?;
            // Several questions have no common answer (RFC 9619): none is echoed.
            self.question = (header.questions == 1).then_some(question);
        }
        for _ in 0..header.records_before_additional {
            reader.record(|record| (record.record_type != TYPE_OPT).then_some(()))?;
        }
        for _ in 0..header.additional {
            reader.record(|record| if record.record_type == TYPE_OPT { self.take_opt(record) } else { Some(()) })?;
        }
        let asks_for_cookie = header.questions == 0 && self.opt.is_some_and(|opt| opt.edns.cookie.is_some());
        (header.questions == 1 || asks_for_cookie).then_some(())
    }

    /// Keeps the first OPT even when it is ill-formed, so that the error comes with an OPT.
    fn take_opt(&mut self, record: &RawRecord<'_>) -> Option<()> {
        if self.opt.is_some() {
            return None;
        }
        let [_extended_rcode, version, high_flags, low_flags] = record.ttl;
        let dnssec_ok = u16::from_be_bytes([high_flags, low_flags]) & EDNS_DNSSEC_OK != 0;
        let opt = self.opt.insert(Opt { version, edns: Edns { payload: record.class, dnssec_ok, ..Edns::default() } });
        if !record.owner_is_root {
            return None;
        }
        // What the options of another version look like, only that version knows.
        if version > 0 { Some(()) } else { opt.edns.take_options(record.data) }
    }
}

impl Edns {
    /// `None` when an option reaches over the end of the OPT, or a cookie is ill-formed.
    fn take_options(&mut self, data: &[u8]) -> Option<()> {
        let mut reader = Reader { message: data, at: 0 };
        while reader.at < data.len() {
            let (code, length) = (reader.u16()?, reader.u16()?);
            let octets = reader.take(usize::from(length))?;
            match code {
                OPTION_NSID => self.nsid = true,
                OPTION_KEEPALIVE => self.keepalive = true,
                OPTION_PADDING => self.padding = true,
                OPTION_COOKIE if self.cookie.is_none() => self.cookie = Some(AskedCookie::read(octets)?),
                _ => {}
            }
        }
        Some(())
    }
}

impl AskedCookie {
    /// `None` for lengths that no cookie has (RFC 7873, 5.2.2).
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let (client, server) = octets.split_first_chunk()?;
        let well_formed = server.is_empty() || FOREIGN_SERVER_OCTETS.contains(&server.len());
        well_formed.then(|| Self { client: *client, server: server.try_into().ok() })
    }
}

/// One record, its data unread.
struct RawRecord<'m> {
    owner_is_root: bool,
    record_type: u16,
    class: u16,
    ttl: [u8; 4],
    data: &'m [u8],
}

/// A place in a message. Every method gives `None` at the end of the message or on ill-formed octets.
struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(count)?;
        let octets = self.message.get(self.at..end)?;
        self.at = end;
        Some(octets)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn header(&mut self) -> Option<Header> {
        let (id, flags, questions) = (self.u16()?, self.u16()?, self.u16()?);
        let records_before_additional = u32::from(self.u16()?) + u32::from(self.u16()?);
        Some(Header { id, flags, questions, records_before_additional, additional: self.u16()? })
    }

    /// A question's name has nothing before it that it could point to, so a pointer is ill-formed.
    fn question(&mut self) -> Option<Question<'m>> {
        let start = self.at;
        loop {
            let length = usize::from(self.u8()?);
            if length > LABEL_OCTETS_MAX {
                return None;
            }
            self.take(length)?;
            if length == 0 {
                break;
            }
        }
        let name = LowerName::new(self.message.get(start..self.at)?)?;
        let (query_type, class) = (self.u16()?, self.u16()?);
        let octets = self.message.get(start..self.at)?;
        debug_assert_eq!(octets.len(), usize::from(name.length) + TYPE_AND_CLASS_OCTETS);
        Some(Question { octets, name, query_type, class })
    }

    /// Reads a record and shows it to `look`, whose `None` makes the message ill-formed.
    fn record(&mut self, look: impl FnOnce(&RawRecord<'m>) -> Option<()>) -> Option<()> {
        let owner_is_root = self.message.get(self.at) == Some(&0);
        self.skip_name()?;
        let (record_type, class, ttl) = (self.u16()?, self.u16()?, self.array()?);
        let length = self.u16()?;
        // An OPT that is cut short was an OPT all the same: `look` sees it before the message is given up.
        let data = self.take(usize::from(length));
        look(&RawRecord { owner_is_root, record_type, class, ttl, data: data.unwrap_or_default() })?;
        data.map(|_| ())
    }

    /// Walks over an owner's name. A pointer ends it and must lead back, behind the header; it is not followed.
    fn skip_name(&mut self) -> Option<()> {
        let start = self.at;
        loop {
            let length = self.u8()?;
            if length & POINTER_BITS == POINTER_BITS {
                let target = usize::from(u16::from_be_bytes([length & !POINTER_BITS, self.u8()?]));
                return (HEADER_OCTETS..start).contains(&target).then_some(());
            }
            if usize::from(length) > LABEL_OCTETS_MAX {
                return None;
            }
            self.take(usize::from(length))?;
            if self.at - start > NAME_OCTETS_MAX {
                return None;
            }
            if length == 0 {
                return Some(());
            }
        }
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
        fn no_octets_can_break_the_parser(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
        }

        #[test]
        fn what_is_read_stands_where_it_was_read(
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
                prop_assert_eq!(query.question, &body[..query.question.len()]);
                prop_assert_eq!(query.name(), query.name_as_asked().to_ascii_lowercase());
                prop_assert_eq!(query.question.len(), query.name().len() + TYPE_AND_CLASS_OCTETS);
                prop_assert!(query.edns.is_none() || counts[3] > 0);
            }
        }
    }
}

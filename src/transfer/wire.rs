//! The wire format of messages about transfers: numbers, and a reader of messages that come from outside.

pub(super) use crate::types::HEADER_OCTETS;
use crate::types::{MessageReader, POINTER_BITS, RawQuestion, RecordHead, TYPE_AND_CLASS_OCTETS};

/// A pointer to the name behind the header, which is the question's (RFC 1035, 4.1.4).
pub(super) const QUESTION_POINTER: [u8; 2] = [POINTER_BITS, HEADER_OCTETS as u8];

/// Flags in the third octet of a header, and the bits of the opcode.
pub(super) const FLAG_RESPONSE: u8 = 0x80;
pub(super) const FLAG_AUTHORITATIVE: u8 = 0x04;
pub(super) const OPCODE_BITS: u8 = 0x78;
pub(super) const OPCODE_NOTIFY: u8 = 4 << 3;
pub(super) const FLAG_RECURSION_DESIRED: u8 = 0x01;

pub(super) const CLASS_IN: u16 = 1;
pub(super) const CLASS_ANY: u16 = 255;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_NS: u16 = 2;
pub(super) const TYPE_SOA: u16 = 6;
pub(super) const TYPE_PTR: u16 = 12;
pub(super) const TYPE_TXT: u16 = 16;
pub(super) const TYPE_AAAA: u16 = 28;
pub(super) const TYPE_OPT: u16 = 41;
pub(super) const TYPE_TSIG: u16 = 250;
pub(super) const TYPE_IXFR: u16 = 251;
pub(super) const TYPE_AXFR: u16 = 252;

/// RCODEs (RFC 1035, 4.1.1; RFC 2136, 2.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum ReplyCode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    Refused = 5,
    NotAuth = 9,
}

/// A message as far as transfers need it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message<'m> {
    pub(super) id: u16,
    /// The third and the fourth octet of the header.
    pub(super) flags: [u8; 2],
    /// Name, type and class of the only question.
    pub(super) question: &'m [u8],
    pub(super) query_type: u16,
    pub(super) class: u16,
    pub(super) has_opt: bool,
    /// The serial of an SOA in the authority section: the one that the sender has (RFC 1995, 3).
    pub(super) serial: Option<u32>,
    pub(super) tsig: Option<TsigRecord<'m>>,
}

impl Message<'_> {
    /// The question's name in lower case.
    pub(super) fn name(&self) -> Vec<u8> {
        self.question[..self.question.len() - TYPE_AND_CLASS_OCTETS].to_ascii_lowercase()
    }

    pub(super) fn opcode(&self) -> u8 {
        self.flags[0] & OPCODE_BITS
    }

    pub(super) fn is_reply(&self) -> bool {
        self.flags[0] & FLAG_RESPONSE != 0
    }

    /// RCODE.
    pub(super) fn reply_code(&self) -> u8 {
        self.flags[1] & 0x0F
    }
}

/// A TSIG record (RFC 8945, 4.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TsigRecord<'m> {
    /// Where it begins in the message.
    pub(super) start: usize,
    /// The name of the key, in lower case.
    pub(super) key_name: Vec<u8>,
    /// The name of the algorithm, in lower case.
    pub(super) algorithm: Vec<u8>,
    /// When the message was signed, in seconds since 1970.
    pub(super) time: u64,
    /// By how much the clocks may differ, in seconds.
    pub(super) fudge: u16,
    pub(super) mac: &'m [u8],
    pub(super) original_id: u16,
    pub(super) error: u16,
    pub(super) other: &'m [u8],
}

/// What a message is to transfers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Parsed<'m> {
    /// It has one question.
    Message(Message<'m>),
    /// It is ill-formed, or its TSIG record is.
    Malformed,
}

/// Why a query may be about a transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Concern {
    /// It asks for one.
    Transfer,
    /// It has a TSIG record.
    Signed,
}

/// Whether a query may be about a transfer. Costs almost nothing, because it is asked of each query.
pub(super) fn concern(message: &[u8]) -> Option<Concern> {
    let &[_, _, flags, _, 0, 1, ..] = message.first_chunk::<HEADER_OCTETS>()? else { return None };
    if flags & (FLAG_RESPONSE | OPCODE_BITS) != 0 {
        return None;
    }
    let mut reader = MessageReader::new(message, HEADER_OCTETS);
    let asks_for_transfer =
        reader.question().is_some_and(|question| matches!(question.query_type, TYPE_AXFR | TYPE_IXFR));
    if asks_for_transfer {
        return Some(Concern::Transfer);
    }
    has_tsig(message, &mut reader)?.then_some(Concern::Signed)
}

/// Whether one of the records is a TSIG record, wherever it is. The reader stands behind the question.
fn has_tsig(message: &[u8], reader: &mut MessageReader<'_>) -> Option<bool> {
    let counts = [6, 8, 10].map(|at| u32::from(u16::from_be_bytes([message[at], message[at + 1]])));
    for _ in 0..counts.iter().sum() {
        if RawRecord::read(reader)?.head.record_type == TYPE_TSIG {
            return Some(true);
        }
    }
    Some(false)
}

/// Reads a message.
pub(super) fn parse(message: &[u8]) -> Parsed<'_> {
    read(message).map_or(Parsed::Malformed, Parsed::Message)
}

/// `None`: it is ill-formed, has not one question, or more or less behind the last record. Its TSIG record must be the last,
/// and the only one (RFC 8945, 5.1).
fn read(message: &[u8]) -> Option<Message<'_>> {
    let mut reader = MessageReader::new(message, 0);
    let id = reader.u16()?;
    let flags = reader.array()?;
    let [questions, answers, authorities, additionals] = [(); 4].map(|()| reader.u16());
    if questions? != 1 {
        return None;
    }
    let RawQuestion { octets: question, query_type, class } = reader.question()?;
    let mut parsed = Message { id, flags, question, query_type, class, has_opt: false, serial: None, tsig: None };
    for _ in 0..answers? {
        RawRecord::read(&mut reader).filter(|record| record.head.record_type != TYPE_TSIG)?;
    }
    for _ in 0..authorities? {
        let record = RawRecord::read(&mut reader).filter(|record| record.head.record_type != TYPE_TSIG)?;
        if record.head.record_type == TYPE_SOA && parsed.serial.is_none() {
            parsed.serial = Some(record.soa_serial(message)?);
        }
    }
    for _ in 0..additionals? {
        // Nothing may follow a TSIG record.
        if parsed.tsig.is_some() {
            return None;
        }
        let record = RawRecord::read(&mut reader)?;
        match record.head.record_type {
            TYPE_OPT => parsed.has_opt = true,
            TYPE_TSIG => parsed.tsig = Some(record.tsig(message)?),
            _ => {}
        }
    }
    reader.is_at_end().then_some(parsed)
}

/// One record, its data unread.
struct RawRecord {
    head: RecordHead,
    data_start: usize,
}

impl RawRecord {
    fn read(reader: &mut MessageReader<'_>) -> Option<Self> {
        let head = reader.record_head()?;
        let data_start = reader.position();
        reader.take(head.data_octets)?;
        Some(Self { head, data_start })
    }

    fn data_end(&self) -> usize {
        self.data_start + self.head.data_octets
    }

    /// The serial of an SOA record, which two names come before.
    fn soa_serial(&self, message: &[u8]) -> Option<u32> {
        let mut data = MessageReader::new(message, self.data_start);
        data.skip_name()?;
        data.skip_name()?;
        let serial = data.u32()?;
        (data.position() <= self.data_end()).then_some(serial)
    }

    /// The fields of a TSIG record.
    fn tsig<'m>(&self, message: &'m [u8]) -> Option<TsigRecord<'m>> {
        let start = self.head.start;
        let key_name = MessageReader::new(message, start).name()?;
        let mut data = MessageReader::new(message, self.data_start);
        let algorithm = data.name()?;
        let time = u64::from(data.u16()?) << 32 | u64::from(data.u32()?);
        let fudge = data.u16()?;
        let mac_octets = data.u16()?;
        let mac = data.take(mac_octets.into())?;
        let original_id = data.u16()?;
        let error = data.u16()?;
        let other_octets = data.u16()?;
        let other = data.take(other_octets.into())?;
        // Class and TTL are constants, which the MAC covers as such (RFC 8945, 4.2).
        let is_whole = data.position() == self.data_end() && (self.head.class, self.head.ttl) == (CLASS_ANY, 0);
        is_whole.then_some(TsigRecord { start, key_name, algorithm, time, fudge, mac, original_id, error, other })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A query for a name of two letters, with these counts behind the question's, and what follows.
    fn query(query_type: u16, counts: [u8; 3], rest: &[u8]) -> Vec<u8> {
        let [answers, authorities, additionals] = counts;
        let mut message = vec![0xAB, 0xCD, 0, 0, 0, 1, 0, answers, 0, authorities, 0, additionals];
        message.extend(b"\x02Ab\0");
        message.extend([query_type.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        message.extend(rest);
        message
    }

    /// A TSIG record whose owner points to the question.
    fn tsig() -> Vec<u8> {
        let data = b"\x01K\0\0\0\x01\x02\x03\x04\x01\x2C\0\x02mm\xAB\xCD\0\0\0\0";
        [&b"\xC0\x0C\0\xFA\0\xFF\0\0\0\0\0"[..], &[data.len() as u8], data].concat()
    }

    #[test]
    fn fields_are_read_from_their_places() {
        let message = query(TYPE_AXFR, [0, 0, 1], &tsig());
        let Parsed::Message(parsed) = parse(&message) else { panic!() };
        assert_eq!((parsed.name(), parsed.query_type, parsed.has_opt), (b"\x02ab\0".to_vec(), TYPE_AXFR, false));
        let record = parsed.tsig.unwrap();
        assert_eq!((&record.key_name[..], &record.algorithm[..]), (&b"\x02ab\0"[..], &b"\x01k\0"[..]));
        assert_eq!((record.time, record.fudge, record.mac), (0x0102_0304, 300, &b"mm"[..]));
    }

    #[test]
    fn the_serial_that_the_sender_has_is_in_the_authority_section() {
        let soa = [&b"\xC0\x0C\0\x06\0\x01\0\0\0\0\0\x18\xC0\x0C\xC0\x0C\0\0\x01\x07"[..], &[0; 16]].concat();
        let message = query(TYPE_IXFR, [0, 1, 1], &[soa.clone(), tsig()].concat());
        assert!(matches!(parse(&message), Parsed::Message(Message { serial: Some(263), .. })));
        let message = query(TYPE_IXFR, [0, 1, 0], &soa[..soa.len() - 1]);
        assert_eq!(parse(&message), Parsed::Malformed);
    }

    #[test]
    fn a_tsig_record_is_the_last_and_the_only_one() {
        for (counts, rest) in
            [([0, 0, 2], [tsig(), tsig()].concat()), ([1, 0, 0], tsig()), ([0, 0, 1], [tsig(), vec![0]].concat())]
        {
            assert_eq!(parse(&query(TYPE_SOA, counts, &rest)), Parsed::Malformed);
            assert_eq!(concern(&query(TYPE_SOA, counts, &rest)), Some(Concern::Signed), "so that it is refused");
        }
        let opt = b"\0\0\x29\x04\xD0\0\0\0\0\0\0";
        assert_eq!(concern(&query(TYPE_SOA, [0, 0, 1], opt)), None);
        assert_eq!(concern(&query(TYPE_SOA, [0, 0, 2], &[&opt[..], &tsig()].concat())), Some(Concern::Signed));
        let plain = |query_type| concern(&query(query_type, [0, 0, 0], b""));
        assert_eq!([plain(TYPE_AXFR), plain(TYPE_A)], [Some(Concern::Transfer), None]);
    }

    #[test]
    fn pointers_in_circles_end() {
        let mut rest = tsig();
        rest[1] = HEADER_OCTETS as u8 + 8;
        assert_eq!(parse(&query(TYPE_SOA, [0, 0, 1], &rest)), Parsed::Malformed);
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..200), counts in prop::array::uniform3(0..3_u8)) {
            let _ = (parse(&octets), concern(&octets));
            let message = query(TYPE_IXFR, counts, &octets);
            let _ = (parse(&message), concern(&message));
        }

        #[test]
        fn every_cut_is_noticed(length in 0..64_usize) {
            let whole = query(TYPE_SOA, [0, 0, 1], &tsig());
            prop_assert!(length >= whole.len() || parse(&whole[..length]) == Parsed::Malformed);
        }
    }
}

//! Writes messages about transfers.

use super::{
    wire::{
        CLASS_IN, FLAG_AUTHORITATIVE, FLAG_RECURSION_DESIRED, FLAG_RESPONSE, HEADER_OCTETS, Message, OPCODE_NOTIFY,
        QUESTION_POINTER, ReplyCode, TYPE_A, TYPE_AAAA, TYPE_NS, TYPE_OPT, TYPE_PTR, TYPE_SOA, TYPE_TXT,
    },
    zone::{Record, RecordData, Soa},
};
use crate::{
    table::{SOA_EXPIRE, SOA_REFRESH, SOA_RETRY},
    types::ZoneName,
};

/// Octets of UDP messages that we take: what passes every link unfragmented (DNS flag day 2020).
const UDP_OCTETS_MAX: u16 = 1232;

/// A message that is being written. The question's name is the zone's own, so names in the zone are compressed to it.
pub(super) struct MessageWriter<'z> {
    out: Vec<u8>,
    apex: &'z [u8],
    answers: u16,
}

impl<'z> MessageWriter<'z> {
    /// A reply with the question of a request. `apex` is the question's name in lower case.
    pub(super) fn reply(request: &Message<'_>, code: ReplyCode, apex: &'z [u8]) -> Self {
        let is_authoritative = code == ReplyCode::NoError;
        let authoritative = if is_authoritative { FLAG_AUTHORITATIVE } else { 0 };
        let flags = FLAG_RESPONSE | authoritative | request.opcode() | request.flags[0] & FLAG_RECURSION_DESIRED;
        let mut out = Vec::with_capacity(512);
        out.extend(request.id.to_be_bytes());
        out.extend([flags, code as u8, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(request.question);
        Self { out, apex, answers: 0 }
    }

    /// A NOTIFY message (RFC 1996).
    pub(super) fn notify(id: u16, zone: &'z ZoneName) -> Self {
        let mut out = Vec::with_capacity(512);
        out.extend(id.to_be_bytes());
        out.extend([OPCODE_NOTIFY | FLAG_AUTHORITATIVE, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend(zone.wire());
        out.extend([TYPE_SOA.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        Self { out, apex: zone.wire(), answers: 0 }
    }

    /// Adds a record to the answer section.
    pub(super) fn answer(&mut self, record: &Record) {
        self.name(&record.owner);
        self.out.extend(type_number(&record.data).to_be_bytes());
        self.out.extend(CLASS_IN.to_be_bytes());
        self.out.extend(record.ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend([0, 0]);
        self.data(&record.data);
        // The longest data are two names and five numbers.
        let octets = (self.out.len() - length_at - 2) as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&octets.to_be_bytes());
        self.answers += 1;
    }

    /// Octets so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// Ends the message, with an OPT where the request has one (RFC 6891, 7).
    pub(super) fn finish(mut self, with_opt: bool) -> Vec<u8> {
        self.out[6..8].copy_from_slice(&self.answers.to_be_bytes());
        if with_opt {
            self.out.push(0);
            self.out.extend(TYPE_OPT.to_be_bytes());
            self.out.extend(UDP_OCTETS_MAX.to_be_bytes());
            self.out.extend([0; 6]);
            self.out[11] += 1;
        }
        self.out
    }

    fn data(&mut self, data: &RecordData) {
        match data {
            RecordData::Soa(Soa { primary, responsible, serial, minimum }) => {
                self.name(primary);
                self.name(responsible);
                self.out.extend(serial.to_be_bytes());
                for timer in [SOA_REFRESH, SOA_RETRY, SOA_EXPIRE] {
                    self.out.extend(timer.to_be_bytes());
                }
                self.out.extend(minimum.to_be_bytes());
            }
            RecordData::Ns(name) | RecordData::Ptr(name) => self.name(name),
            RecordData::A(v4) => self.out.extend(v4.octets()),
            RecordData::Aaaa(v6) => self.out.extend(v6.octets()),
            RecordData::Txt(text) => {
                self.out.push(text.len() as u8);
                self.out.extend(text.as_bytes());
            }
        }
    }

    /// A name; one in the zone ends with a pointer to the zone's own, which is behind the header.
    fn name(&mut self, name: &ZoneName) {
        debug_assert!(self.out.len() > HEADER_OCTETS);
        match name.wire().strip_suffix(self.apex) {
            Some(labels) if self.apex.len() > 1 && is_whole(labels) => {
                self.out.extend(labels);
                self.out.extend(QUESTION_POINTER);
            }
            _ => self.out.extend(name.wire()),
        }
    }
}

/// Whether octets are whole labels: what comes before the same octets in another name need not be.
fn is_whole(mut labels: &[u8]) -> bool {
    while let Some((&length, rest)) = labels.split_first() {
        match rest.get(usize::from(length)..) {
            Some(rest) => labels = rest,
            None => return false,
        }
    }
    true
}

fn type_number(data: &RecordData) -> u16 {
    match data {
        RecordData::Soa(_) => TYPE_SOA,
        RecordData::Ns(_) => TYPE_NS,
        RecordData::A(_) => TYPE_A,
        RecordData::Aaaa(_) => TYPE_AAAA,
        RecordData::Ptr(_) => TYPE_PTR,
        RecordData::Txt(_) => TYPE_TXT,
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::{op::Message as ParsedMessage, serialize::binary::BinDecodable as _};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Another parser reads back what was written.
        #[test]
        fn names_are_compressed_so_that_they_stay_the_same(
            zone in "[a-c]{1,3}(\\.[a-c]{1,3}){0,2}", other in "[a-c]{1,3}(\\.[a-c]{1,3}){0,4}", below in "[a-c]{1,3}"
        ) {
            let zone = ZoneName::parse(&zone).unwrap();
            let names = [zone.child(&below).unwrap(), ZoneName::parse(&other).unwrap(), zone.clone()];
            let mut writer = MessageWriter::notify(7, &zone);
            for (owner, target) in names.iter().zip(names.iter().rev()) {
                writer.answer(&Record { owner: owner.clone(), ttl: 5, data: RecordData::Ns(target.clone()) });
            }
            let octets = writer.finish(true);
            let parsed = ParsedMessage::from_bytes(&octets).unwrap();
            let written: Vec<_> = names.iter().zip(names.iter().rev()).map(|(a, b)| format!("{a} 5 IN NS {b}")).collect();
            prop_assert_eq!(parsed.answers.iter().map(ToString::to_string).collect::<Vec<_>>(), written);
            prop_assert!(parsed.edns.is_some());
        }
    }
}

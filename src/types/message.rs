//! Reads the octets of DNS messages that come from outside. No input makes it panic, and it allocates nothing but the names
//! that are asked for.

use super::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX};

/// Octets in a message's header (RFC 1035, 4.1.1).
pub const HEADER_OCTETS: usize = 12;

/// Type and class, which follow the name in a question (RFC 1035, 4.1.2).
pub const TYPE_AND_CLASS_OCTETS: usize = 4;

/// The two bits that make a label's length the first octet of a compression pointer (RFC 1035, 4.1.4).
pub const POINTER_BITS: u8 = 0xC0;

/// A position in a message. Every method that reads returns `None` at the end of the message or on ill-formed octets.
#[derive(Clone, Copy, Debug)]
pub struct MessageReader<'m> {
    message: &'m [u8],
    at: usize,
}

/// A question with its fields.
#[derive(Clone, Copy, Debug)]
pub struct RawQuestion<'m> {
    /// Name, type and class as they were sent.
    pub octets: &'m [u8],
    /// QTYPE.
    pub query_type: u16,
    /// QCLASS.
    pub class: u16,
}

impl<'m> RawQuestion<'m> {
    /// QNAME in wire format as it was sent.
    #[inline]
    pub fn name(&self) -> &'m [u8] {
        self.octets.get(..self.octets.len().saturating_sub(TYPE_AND_CLASS_OCTETS)).unwrap_or_default()
    }
}

/// What stands before the data of a record (RFC 1035, 4.1.3).
#[derive(Clone, Copy, Debug)]
pub struct RecordHead {
    /// Where the record begins in the message.
    pub start: usize,
    /// Whether its owner is the root.
    pub owner_is_root: bool,
    /// TYPE.
    pub record_type: u16,
    /// CLASS.
    pub class: u16,
    /// TTL.
    pub ttl: u32,
    /// RDLENGTH: octets of the data, which come next.
    pub data_octets: usize,
}

impl<'m> MessageReader<'m> {
    /// Reads from this position on.
    #[inline]
    pub fn new(message: &'m [u8], at: usize) -> Self {
        Self { message, at }
    }

    /// Where the next octet is.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Whether the message ends here.
    #[inline]
    pub fn is_at_end(&self) -> bool {
        self.at >= self.message.len()
    }

    /// So many octets.
    #[inline]
    pub fn take(&mut self, count: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(count)?;
        let octets = self.message.get(self.at..end)?;
        self.at = end;
        Some(octets)
    }

    /// A field of a fixed length.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A field of one octet.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    /// A field of two octets.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A field of four octets.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A question. Its name has nothing before it that it could point to, so a pointer is ill-formed.
    #[inline]
    pub fn question(&mut self) -> Option<RawQuestion<'m>> {
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
        if self.at - start > NAME_OCTETS_MAX {
            return None;
        }
        let query_type = self.u16()?;
        let class = self.u16()?;
        Some(RawQuestion { octets: self.message.get(start..self.at)?, query_type, class })
    }

    /// A record up to its data.
    #[inline]
    pub fn record_head(&mut self) -> Option<RecordHead> {
        let start = self.at;
        let owner_is_root = self.message.get(start) == Some(&0);
        self.skip_name()?;
        Some(RecordHead {
            start,
            owner_is_root,
            record_type: self.u16()?,
            class: self.u16()?,
            ttl: self.u32()?,
            data_octets: self.u16()?.into(),
        })
    }

    /// Skips a name. A pointer ends it and must point backwards, behind the header; it is not followed.
    #[inline]
    pub fn skip_name(&mut self) -> Option<()> {
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

    /// A name in lower case. Its pointers are followed, each of which must lead further to the front.
    pub fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut bound = self.at;
        let mut part = *self;
        self.skip_name()?;
        loop {
            let length = part.u8()?;
            if length & POINTER_BITS == POINTER_BITS {
                let target = usize::from(u16::from_be_bytes([length & !POINTER_BITS, part.u8()?]));
                if !(HEADER_OCTETS..bound).contains(&target) {
                    return None;
                }
                bound = target;
                part.at = target;
                continue;
            }
            if usize::from(length) > LABEL_OCTETS_MAX {
                return None;
            }
            name.push(length);
            name.extend(part.take(usize::from(length))?.iter().map(u8::to_ascii_lowercase));
            if name.len() > NAME_OCTETS_MAX {
                return None;
            }
            if length == 0 {
                return Some(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header, a name of two labels, and what follows.
    fn message(rest: &[u8]) -> Vec<u8> {
        [&[0; HEADER_OCTETS][..], b"\x02Ab\x01c\0", rest].concat()
    }

    const BEHIND: usize = HEADER_OCTETS + 6;

    #[test]
    fn pointers_lead_to_the_front_and_end() {
        let name = |rest: &[u8]| MessageReader::new(&message(rest), BEHIND).name();
        assert_eq!(name(b"\x01X\xC0\x0C").unwrap(), b"\x01x\x02ab\x01c\0");
        assert_eq!(name(b"\xC0\x0F").unwrap(), b"\x01c\0");
        for ill_formed in [&b"\xC0\x12"[..], b"\x01x\xC0\x13", b"\xC0\x0B", b"\xC1\x00", b"\xC0", b"\x80", b"\x05x"] {
            assert_eq!(name(ill_formed), None, "{ill_formed:?}");
        }
    }

    #[test]
    fn a_record_is_read_up_to_its_data() {
        let octets = message(b"\xC0\x0C\0\x06\0\x01\0\0\0\x05\0\x02mm");
        let mut reader = MessageReader::new(&octets, BEHIND);
        let head = reader.record_head().unwrap();
        assert_eq!((head.start, head.owner_is_root, head.record_type, head.class), (BEHIND, false, 6, 1));
        assert_eq!((head.ttl, reader.take(head.data_octets), reader.is_at_end()), (5, Some(&b"mm"[..]), true));
    }

    #[test]
    fn a_name_has_255_octets_at_most() {
        let labels = [&[63; 64][..]; 4].concat();
        for (octets, is_name) in [(255, true), (256, false)] {
            let mut name = labels[..octets - 1].to_vec();
            // The last label is shorter than the others.
            name[192] = (octets - 194) as u8;
            name.extend([0, 0, 1, 0, 1]);
            assert_eq!(MessageReader::new(&name, 0).question().is_some(), is_name, "{octets}");
            assert_eq!(MessageReader::new(&name, 0).skip_name().is_some(), is_name, "{octets}");
            assert_eq!(MessageReader::new(&name, 0).name().is_some(), is_name, "{octets}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..300), at in 0..320_usize) {
            let reader = || MessageReader::new(&octets, at);
            let _ = (reader().question().map(|question| question.name().len()), reader().name());
            let _ = (reader().record_head(), reader().take(usize::MAX), reader().is_at_end());
        }
    }
}

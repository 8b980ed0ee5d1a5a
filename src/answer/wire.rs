//! Numbers of the wire format that parser, renderer and fast path share (IANA, DNS parameters).

use crate::metrics::Transport;
pub(super) use crate::types::POINTER_BITS;
pub use crate::types::{HEADER_OCTETS, TYPE_AND_CLASS_OCTETS};

/// Octets of the largest UDP message that we send and advertise: it passes every link unfragmented (DNS flag day 2020).
pub const UDP_OCTETS_MAX: u16 = 1232;

/// Octets of a UDP reply that every client takes (RFC 1035, 2.3.4).
const UDP_OCTETS_WITHOUT_EDNS: u16 = 512;

/// Octets of a message over anything but UDP: over TCP its length has sixteen bits (RFC 1035, 4.2.2), as over TLS and
/// QUIC.
const STREAM_OCTETS_MAX: u16 = u16::MAX;

/// Octets of a record before its data, when its owner is a pointer: name, type, class, TTL, length (RFC 1035, 4.1.3).
pub(super) const RECORD_HEAD_OCTETS: usize = 2 + 2 + 2 + 4 + 2;

/// Octets of a compression pointer.
const POINTER_OCTETS: usize = 2;

/// Flags in the third octet of a header (RFC 1035, 4.1.1).
pub const FLAG_RESPONSE: u8 = 0x80;
pub(super) const FLAG_AUTHORITATIVE: u8 = 0x04;
pub(super) const FLAG_TRUNCATED: u8 = 0x02;
pub(super) const FLAG_RECURSION_DESIRED: u8 = 0x01;

/// Flag in the fourth octet of a header.
pub(super) const FLAG_RECURSION_AVAILABLE: u8 = 0x80;

/// The rcode in the fourth octet of a header, and NXDOMAIN there.
pub(super) const RCODE_BITS: u8 = 0x0F;
pub(super) const RCODE_NXDOMAIN: u8 = 3;

/// Class IN (RFC 1035, 3.2.4). No other has zones, not even ANY: a zone has one class.
pub(super) const CLASS_IN: u16 = 1;

/// Class CHAOS, in which a server describes itself (RFC 4892).
pub(super) const CLASS_CHAOS: u16 = 3;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_NS: u16 = 2;
pub(super) const TYPE_CNAME: u16 = 5;
pub(super) const TYPE_SOA: u16 = 6;
pub(super) const TYPE_TXT: u16 = 16;
pub(super) const TYPE_AAAA: u16 = 28;
/// Type OPT (RFC 6891, 6.1.2).
pub const TYPE_OPT: u16 = 41;
pub(super) const TYPE_DS: u16 = 43;
pub(super) const TYPE_HTTPS: u16 = 65;
pub(super) const TYPE_TKEY: u16 = 249;
pub(super) const TYPE_TSIG: u16 = 250;
pub(super) const TYPE_IXFR: u16 = 251;
pub(super) const TYPE_AXFR: u16 = 252;
pub(super) const TYPE_ANY: u16 = 255;

/// Octets of an OPT without options (RFC 6891, 6.1.2).
pub const OPT_OCTETS: usize = 11;

/// The flag DO in an OPT's TTL field (RFC 3225, 3).
pub(super) const EDNS_DNSSEC_OK: u16 = 0x8000;

/// Octets of an option before its data: code and length (RFC 6891, 6.1.2).
pub(super) const OPTION_HEAD_OCTETS: usize = 4;

pub(super) const OPTION_NSID: u16 = 3;
/// Option COOKIE (RFC 7873, 4).
pub const OPTION_COOKIE: u16 = 10;
pub(super) const OPTION_KEEPALIVE: u16 = 11;
pub(super) const OPTION_PADDING: u16 = 12;
pub(super) const OPTION_EXTENDED_ERROR: u16 = 15;

/// Octets of the largest reply that may go to a client. `payload` is what its OPT offers.
pub(super) fn octets_max(payload: Option<u16>, transport: Transport) -> usize {
    usize::from(match (transport, payload) {
        (Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic, _) => STREAM_OCTETS_MAX,
        (Transport::Udp, None) => UDP_OCTETS_WITHOUT_EDNS,
        (Transport::Udp, Some(payload)) => payload.clamp(UDP_OCTETS_WITHOUT_EDNS, UDP_OCTETS_MAX),
    })
}

/// The smallest TTL of the records that answer (RFC 8484, 5.1), or how long a negative answer holds (RFC 2308, 5). `None`:
/// the reply has neither, or is not well-formed.
pub fn smallest_ttl(reply: &[u8]) -> Option<u32> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes(reply.get(at..at + 2)?.try_into().ok()?)));
    let (questions, answers, authorities) = (count(4)?, count(6)?, count(8)?);
    let mut rest = reply.get(HEADER_OCTETS..)?;
    for _ in 0..questions {
        rest = after_name(rest)?.get(TYPE_AND_CLASS_OCTETS..)?;
    }
    let mut smallest = None;
    for number in 0..answers + authorities {
        let record = after_name(rest)?;
        let (head, data) = record.split_at_checked(RECORD_HEAD_OCTETS - POINTER_OCTETS)?;
        let (record_type, ttl) = (u16::from_be_bytes([head[0], head[1]]), [head[4], head[5], head[6], head[7]]);
        let (data, after) = data.split_at_checked(usize::from(u16::from_be_bytes([head[8], head[9]])))?;
        let ttl = u32::from_be_bytes(ttl);
        if number < answers {
            smallest = Some(smallest.map_or(ttl, |least: u32| least.min(ttl)));
        } else if answers == 0 && record_type == TYPE_SOA {
            // MINIMUM is the last field (RFC 1035, 3.3.13).
            return Some(ttl.min(u32::from_be_bytes(*data.last_chunk()?)));
        }
        rest = after;
    }
    smallest
}

/// What follows a name, which ends with the root or with a pointer (RFC 1035, 4.1.4).
fn after_name(mut octets: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, rest) = octets.split_first()?;
        octets = match length {
            0 => return Some(rest),
            pointer if pointer & POINTER_BITS == POINTER_BITS => return rest.get(POINTER_OCTETS - 1..),
            length => rest.get(usize::from(length)..)?,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reply to `a.` with records of type, TTL and data, of which the first `answers` answer.
    fn reply(answers: u8, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let authorities = records.len() as u8 - answers;
        let mut reply = vec![0, 0, FLAG_RESPONSE, 0, 0, 1, 0, answers, 0, authorities, 0, 0];
        reply.extend(b"\x01a\0\0\x01\0\x01");
        for (number, (record_type, ttl, data)) in records.iter().enumerate() {
            reply.extend(if number == 0 { &b"\xC0\x0C"[..] } else { b"\x01b\xC0\x0C" });
            reply.extend(record_type.to_be_bytes());
            reply.extend(CLASS_IN.to_be_bytes());
            reply.extend(ttl.to_be_bytes());
            reply.extend((data.len() as u16).to_be_bytes());
            reply.extend(*data);
        }
        reply
    }

    #[test]
    fn a_reply_holds_for_its_smallest_ttl() {
        let address = &[10, 0, 0, 1][..];
        let soa = &[0, 0, 0, 0, 9][..];
        assert_eq!(
            smallest_ttl(&reply(2, &[(TYPE_A, 7, address), (TYPE_A, 5, address), (TYPE_NS, 1, b"\0")])),
            Some(5)
        );
        assert_eq!(smallest_ttl(&reply(1, &[(TYPE_SOA, 3600, soa)])), Some(3600));
        assert_eq!(smallest_ttl(&reply(0, &[(TYPE_NS, 1, b"\0"), (TYPE_SOA, 3600, soa)])), Some(9), "MINIMUM");
        assert_eq!(smallest_ttl(&reply(0, &[(TYPE_SOA, 3, soa)])), Some(3));
        assert_eq!(smallest_ttl(&reply(0, &[])), None);
        assert_eq!(smallest_ttl(&reply(0, &[(TYPE_SOA, 3, b"")])), None);
        let whole = reply(1, &[(TYPE_A, 7, address)]);
        assert!((0..whole.len()).all(|length| smallest_ttl(&whole[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = smallest_ttl(&octets);
        }
    }
}

//! The SOA of a zone or domain from its parts to octets, without allocation.

use super::wire::{CLASS_IN, HEADER_OCTETS, POINTER_BITS, TYPE_SOA};
use crate::{
    table::{NameServers, RESPONSIBLE, SOA_EXPIRE, SOA_REFRESH, SOA_RETRY},
    types::{NAME_OCTETS_MAX, ZoneName, suffixes},
};

/// Labels of a zone's name at which the renderer's encoder still compresses every name to it: it keeps 64 candidates.
const COMPRESSED_LABELS_MAX: usize = 60;

/// Serial, refresh, retry, expire and minimum (RFC 1035, 3.3.13).
const NUMBERS_OCTETS: usize = 5 * 4;

/// Type, class, TTL and length of a record.
const FIXED_OCTETS: usize = 2 + 2 + 4 + 2;

/// The first label of RNAME, with its length.
const RESPONSIBLE_OCTETS: usize = 1 + RESPONSIBLE.len();

/// What an SOA is made of, besides what is the same for all zones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SoaParts<'a> {
    /// Octets of the zone's name.
    pub(super) zone_octets: usize,
    /// The labels of MNAME that the zone's name does not end with.
    pub(super) primary: &'a [u8],
    /// Octets of the rest of MNAME, with which the zone's name ends.
    pub(super) shared: usize,
    pub(super) serial: u32,
    /// TTL and minimum, in seconds.
    pub(super) negative_ttl: u32,
}

impl<'a> SoaParts<'a> {
    /// `None`: the names need the renderer, because one ends inside the other or the zone's has very many labels.
    pub(super) fn new(
        apex: &'a ZoneName,
        name_servers: &'a NameServers,
        serial: u32,
        negative_ttl: u32,
    ) -> Option<Self> {
        let primary = name_servers.first().unwrap_or(apex);
        let is_responsible = |suffix: &[u8]| {
            suffix
                .split_at_checked(RESPONSIBLE_OCTETS)
                .is_some_and(|(label, rest)| label.get(1..) == Some(RESPONSIBLE.as_bytes()) && rest == apex.wire())
        };
        if apex.labels().count() > COMPRESSED_LABELS_MAX || suffixes(primary.wire()).any(is_responsible) {
            return None;
        }
        let shared = primary.octets_shared_with(apex);
        let (labels, _) = primary.wire().split_at_checked(primary.wire().len() - shared)?;
        Some(Self { zone_octets: apex.wire().len(), primary: labels, shared, serial, negative_ttl })
    }

    /// Appends the record to a reply whose question has a name of so many octets, the zone's or one below it.
    pub(super) fn write(&self, name_octets: usize, out: &mut Vec<u8>) {
        let Self { zone_octets, primary, shared, serial, negative_ttl } = *self;
        let end = |octets: usize| (octets > 1).then(|| pointer(name_octets - octets));
        let end_octets = |octets: usize| if octets > 1 { 2 } else { 1 };
        // A mailbox that would be too long is the root.
        let has_responsible = zone_octets + RESPONSIBLE_OCTETS <= NAME_OCTETS_MAX;
        let responsible_octets = if has_responsible { RESPONSIBLE_OCTETS + end_octets(zone_octets) } else { 1 };
        let data_octets = primary.len() + end_octets(shared) + responsible_octets + NUMBERS_OCTETS;
        write_end(end(zone_octets), out);
        let [t0, t1] = TYPE_SOA.to_be_bytes();
        let [c0, c1] = CLASS_IN.to_be_bytes();
        let [n0, n1, n2, n3] = negative_ttl.to_be_bytes();
        let [l0, l1] = (data_octets as u16).to_be_bytes();
        let fixed: [u8; FIXED_OCTETS] = [t0, t1, c0, c1, n0, n1, n2, n3, l0, l1];
        out.extend_from_slice(&fixed);
        out.extend_from_slice(primary);
        write_end(end(shared), out);
        if has_responsible {
            out.push(RESPONSIBLE.len() as u8);
            out.extend_from_slice(RESPONSIBLE.as_bytes());
            write_end(end(zone_octets), out);
        } else {
            out.push(0);
        }
        let mut numbers = [0; NUMBERS_OCTETS];
        let values = [serial, SOA_REFRESH as u32, SOA_RETRY as u32, SOA_EXPIRE as u32, negative_ttl];
        for (octets, value) in numbers.chunks_exact_mut(4).zip(values) {
            octets.copy_from_slice(&value.to_be_bytes());
        }
        out.extend_from_slice(&numbers);
    }
}

/// A pointer to the name that begins so many octets behind the begin of the question's (RFC 1035, 4.1.4). A question's name
/// has at most 255 octets, so the offset fits.
fn pointer(at: usize) -> [u8; 2] {
    let [high, low] = ((HEADER_OCTETS + at) as u16).to_be_bytes();
    [high | POINTER_BITS, low]
}

/// Ends a name with a pointer, or with the root.
fn write_end(pointer: Option<[u8; 2]>, out: &mut Vec<u8>) {
    match pointer {
        Some(octets) => out.extend_from_slice(&octets),
        None => out.push(0),
    }
}

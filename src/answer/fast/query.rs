//! Reads the messages that the fast path answers.

use crate::{
    answer::{
        query::Edns,
        wire::{
            CLASS_IN, EDNS_DNSSEC_OK, FLAG_RECURSION_DESIRED, HEADER_OCTETS, OPT_OCTETS, TYPE_AND_CLASS_OCTETS,
            TYPE_ANY, TYPE_AXFR, TYPE_DS, TYPE_IXFR, TYPE_OPT,
        },
    },
    types::{LABEL_OCTETS_MAX, NAME_OCTETS_MAX},
};

/// Types that the slow path answers: an RRset is to be chosen, a transfer is refused, or the zone above is asked.
const SLOW_TYPES: [u16; 4] = [TYPE_ANY, TYPE_AXFR, TYPE_IXFR, TYPE_DS];

/// A question that the fast path can read.
pub(super) struct PlainQuery<'m> {
    pub(super) id: [u8; 2],
    /// RD or 0.
    pub(super) recursion_desired: u8,
    /// Name, type and class.
    pub(super) question: &'m [u8],
    pub(super) query_type: u16,
    pub(super) edns: Option<Edns>,
}

impl<'m> PlainQuery<'m> {
    #[inline]
    pub(super) fn read(message: &'m [u8]) -> Option<Self> {
        let (&[id_high, id_low, flags, _, 0, 1, 0, 0, 0, 0, 0, additional], body) =
            message.split_first_chunk::<HEADER_OCTETS>()?
        else {
            return None;
        };
        if flags & !FLAG_RECURSION_DESIRED != 0 || additional > 1 {
            return None;
        }
        let name_octets = name_octets(body)?;
        let (_name, rest) = body.split_at_checked(name_octets)?;
        let (&[type_high, type_low, class_high, class_low], rest) = rest.split_first_chunk()?;
        let query_type = u16::from_be_bytes([type_high, type_low]);
        if u16::from_be_bytes([class_high, class_low]) != CLASS_IN || SLOW_TYPES.contains(&query_type) {
            return None;
        }
        let edns = if additional == 1 { Some(edns(rest)?) } else { None };
        Some(Self {
            id: [id_high, id_low],
            recursion_desired: flags,
            question: body.get(..name_octets + TYPE_AND_CLASS_OCTETS)?,
            query_type,
            edns,
        })
    }

    /// The name in lower case, as the table stores names.
    #[inline]
    pub(super) fn lower_name<'b>(&self, buffer: &'b mut [u8; NAME_OCTETS_MAX]) -> Option<&'b [u8]> {
        let (name, _) = self.question.split_last_chunk::<TYPE_AND_CLASS_OCTETS>()?;
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(lower)
    }

    /// Type and class, which the records share with the question.
    pub(super) fn type_and_class(&self) -> [u8; TYPE_AND_CLASS_OCTETS] {
        self.question.last_chunk().copied().unwrap_or_default()
    }
}

/// Octets of the name at the start, the root's included. The root alone takes the slow path: nothing can point to it.
fn name_octets(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*body.get(at)?);
        at += 1 + length;
        if length == 0 {
            return (at > 1).then_some(at);
        }
        if length > LABEL_OCTETS_MAX || at >= NAME_OCTETS_MAX {
            return None;
        }
    }
}

/// An OPT of version 0 without options that the reply depends on, except a cookie.
fn edns(octets: &[u8]) -> Option<Edns> {
    let (&[0, type_high, type_low, p_high, p_low, _, 0, f_high, f_low, d_high, d_low], data) =
        octets.split_first_chunk::<OPT_OCTETS>()?
    else {
        return None;
    };
    if u16::from_be_bytes([type_high, type_low]) != TYPE_OPT {
        return None;
    }
    let data = data.get(..usize::from(u16::from_be_bytes([d_high, d_low])))?;
    let flags = u16::from_be_bytes([f_high, f_low]);
    let payload = u16::from_be_bytes([p_high, p_low]);
    let mut edns = Edns { payload, dnssec_ok: flags & EDNS_DNSSEC_OK != 0, ..Edns::default() };
    edns.take_options(data)?;
    let is_plain = !(edns.nsid || edns.keepalive || edns.padding);
    is_plain.then_some(edns)
}

//! The fast path: the everyday question from octets to octets, without allocation.
//!
//! Everyday is A or AAAA of a name that has nodes, class IN, with no OPT or one that holds at most a cookie. Whatever
//! else a message holds, or a zone has to say, goes through the slow path, which says the same: a property test
//! holds both to the same octets, and this file can be deleted without losing a feature.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Client, Worker, cookie,
    options::{OPT_OCTETS, OPTION_HEAD_OCTETS, UDP_OCTETS_MAX},
    query::{AskedCookie, EDNS_DNSSEC_OK, Edns, HEADER_OCTETS, OPTION_COOKIE, TYPE_OPT},
    render::limit,
    resolve::{CLASS_IN, TYPE_A, TYPE_AAAA},
    worker::Address,
};
use crate::{
    metrics::{ProcessCounters, QueryType},
    table::{Position, Row, ServerSettings, ZoneTable},
    types::{AnswerCount, LABEL_OCTETS_MAX, NAME_OCTETS_MAX},
};

/// QR and AA; RD is copied from the question.
const REPLY_FLAGS: u8 = 0x84;

/// The only flag of the header's third octet that an everyday question may have: RD.
const RECURSION_DESIRED: u8 = 0x01;

/// A pointer to the question's name (RFC 1035, 4.1.4).
const OWNER: [u8; 2] = [0xC0, 12];

/// Octets of a record before its data.
const RECORD_HEAD_OCTETS: usize = 12;

/// Answers an everyday question into `out` and counts it; `false`: it is another one, and `out` is untouched.
pub(super) fn answer(
    table: &ZoneTable,
    counters: &ProcessCounters,
    message: &[u8],
    client: &Client,
    worker: &mut Worker,
    out: &mut Vec<u8>,
) -> bool {
    let Some(asked) = Everyday::read(message) else { return false };
    // A limit needs the whole of the question.
    if table.server().limiter.is_some() {
        return false;
    }
    let Some((row, place)) = table.find(asked.name()) else { return false };
    let written = match asked.query_type {
        QueryType::A => asked.answer(row, place, Ipv4Addr::octets, table.server(), client, worker, out),
        _ => asked.answer(row, place, Ipv6Addr::octets, table.server(), client, worker, out),
    };
    if written {
        worker.count(row, asked.query_type, client.transport, counters);
    }
    written
}

/// An everyday question.
struct Everyday<'m> {
    /// The identity.
    id: &'m [u8],
    recursion_desired: u8,
    /// Name, type and class.
    question: &'m [u8],
    lower_name: [u8; NAME_OCTETS_MAX],
    name_octets: usize,
    query_type: QueryType,
    edns: Option<Edns>,
}

impl<'m> Everyday<'m> {
    fn read(message: &'m [u8]) -> Option<Self> {
        let (&[_, _, flags, _, 0, 1, 0, 0, 0, 0, 0, additional], body) =
            message.split_first_chunk::<HEADER_OCTETS>()?
        else {
            return None;
        };
        if flags & !RECURSION_DESIRED != 0 || additional > 1 {
            return None;
        }
        let name_octets = name_octets(body)?;
        let (name, rest) = body.split_at_checked(name_octets)?;
        let (&[type_high, type_low, class_high, class_low], rest) = rest.split_first_chunk()?;
        let query_type = match u16::from_be_bytes([type_high, type_low]) {
            TYPE_A => QueryType::A,
            TYPE_AAAA => QueryType::Aaaa,
            _ => return None,
        };
        if u16::from_be_bytes([class_high, class_low]) != CLASS_IN {
            return None;
        }
        let edns = if additional == 1 { Some(edns(rest)?) } else { None };
        let mut lower_name = [0; NAME_OCTETS_MAX];
        let lower = lower_name.get_mut(..name_octets)?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(Self {
            id: message.get(..2)?,
            recursion_desired: flags,
            question: body.get(..name_octets + 4)?,
            lower_name,
            name_octets,
            query_type,
            edns,
        })
    }

    fn name(&self) -> &[u8] {
        self.lower_name.get(..self.name_octets).unwrap_or_default()
    }

    /// Writes the reply, unless there is no node of the family, or not all fit that must, or more is to be said or known.
    #[expect(clippy::too_many_arguments, reason = "one call, from above; a struct of them would live for one line")]
    fn answer<A: Address, const N: usize>(
        &self,
        row: &Row,
        place: Position<'_>,
        octets: fn(&A) -> [u8; N],
        server: &ServerSettings,
        client: &Client,
        worker: &mut Worker,
        out: &mut Vec<u8>,
    ) -> bool {
        let (summary, total) = worker.summary::<A>(row);
        let has_nodes = match place {
            // Or of a domain, which has none: that ends below.
            Position::Apex => true,
            Position::NameServer(_) => false,
            Position::EmptyNonTerminal | Position::BelowApex => summary.subdomains,
        };
        let explained = self.edns.is_some() && summary.is_stale;
        let permitted = summary.is_open || row.entry.answers().settings.clients.permit(client.address);
        if !has_nodes || explained || !permitted {
            return false;
        }
        let cookie = self.edns.and_then(|edns| edns.cookie);
        let opt_octets = self.edns.map_or(0, |_| OPT_OCTETS + cookie.map_or(0, |_| OPTION_HEAD_OCTETS + 24));
        let room = limit(self.edns, client.transport).saturating_sub(HEADER_OCTETS + self.question.len() + opt_octets)
            / (RECORD_HEAD_OCTETS + N);
        let take = match summary.count {
            AnswerCount::AtMost(count) => room.min(usize::from(count.get())).min(total),
            AnswerCount::All if total <= room => total,
            AnswerCount::All => return false,
        };
        let Ok(count) = u16::try_from(take) else { return false };
        if count == 0 {
            return false;
        }
        out.clear();
        out.extend_from_slice(self.id);
        out.extend_from_slice(&[REPLY_FLAGS | self.recursion_desired, 0, 0, 1]);
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&[0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend_from_slice(self.question);
        let (kind, ttl) = (self.question_kind(), summary.ttl.to_be_bytes());
        // At most sixteen.
        let length = N as u8;
        for node in worker.deal::<A>(row.id.index, take) {
            let [[t0, t1, c0, c1], [l0, l1, l2, l3]] = [kind, ttl];
            out.extend_from_slice(&[OWNER[0], OWNER[1], t0, t1, c0, c1, l0, l1, l2, l3, 0, length]);
            out.extend_from_slice(&octets(node));
        }
        if let Some(edns) = self.edns {
            write_opt(&edns, server, client, out);
        }
        true
    }

    /// Type and class, which the records share with the question.
    fn question_kind(&self) -> [u8; 4] {
        self.question.last_chunk().copied().unwrap_or_default()
    }
}

/// Octets of the name at the start, the root's included. The root alone is not everyday: nothing can point to it.
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

/// An OPT of version 0 that holds nothing but, perhaps, a cookie.
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
    let cookie = if data.is_empty() { None } else { Some(only_cookie(data)?) };
    Some(Edns {
        payload: u16::from_be_bytes([p_high, p_low]),
        dnssec_ok: u16::from_be_bytes([f_high, f_low]) & EDNS_DNSSEC_OK != 0,
        cookie,
        ..Edns::default()
    })
}

fn only_cookie(data: &[u8]) -> Option<AskedCookie> {
    let (&[code_high, code_low, length_high, length_low], cookie) = data.split_first_chunk()?;
    let is_whole = usize::from(u16::from_be_bytes([length_high, length_low])) == cookie.len();
    if u16::from_be_bytes([code_high, code_low]) != OPTION_COOKIE || !is_whole {
        return None;
    }
    AskedCookie::read(cookie)
}

fn write_opt(edns: &Edns, server: &ServerSettings, client: &Client, out: &mut Vec<u8>) {
    let [type_high, type_low] = TYPE_OPT.to_be_bytes();
    let [payload_high, payload_low] = UDP_OCTETS_MAX.to_be_bytes();
    let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
    out.extend_from_slice(&[0, type_high, type_low, payload_high, payload_low, 0, 0, dnssec_ok, 0]);
    match edns.cookie {
        None => out.extend_from_slice(&[0, 0]),
        Some(asked) => {
            out.extend_from_slice(&[0, 28, 0, 10, 0, 24]);
            out.extend_from_slice(&cookie::make(&server.cookies.load(), &asked, client.address, client.now));
        }
    }
}

//! The fast path: the most frequent questions from octets to octets, without allocation.
//!
//! It answers A and AAAA of a name that has nodes, in class IN, with no OPT or one that holds at most a cookie. Everything
//! else takes the slow path, which gives the same replies: a property test holds both to the same octets, and this file
//! can be deleted without losing a feature.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Client, Responder, cookie,
    cookie::CookieOption,
    query::Edns,
    wire::{
        CLASS_IN, EDNS_DNSSEC_OK, FLAG_AUTHORITATIVE, FLAG_RECURSION_AVAILABLE, FLAG_RECURSION_DESIRED, FLAG_RESPONSE,
        FLAG_TRUNCATED, HEADER_OCTETS, OPT_OCTETS, OPTION_COOKIE, OPTION_HEAD_OCTETS, POINTER_BITS, RECORD_HEAD_OCTETS,
        TYPE_A, TYPE_AAAA, TYPE_AND_CLASS_OCTETS, TYPE_OPT, UDP_OCTETS_MAX, octets_max,
    },
    worker::{Address, Worker, ZoneSummary},
};
use crate::{
    metrics::QueryType,
    table::{Position, Row, ServerSettings, TableEntry},
    types::{AnswerCount, LABEL_OCTETS_MAX, NAME_OCTETS_MAX},
};

/// A pointer to the question's name (RFC 1035, 4.1.4).
const OWNER: [u8; 2] = [POINTER_BITS, HEADER_OCTETS as u8];

/// Octets of the data of a reply's COOKIE option: client cookie and server cookie.
const COOKIE_OCTETS: usize = 24;

impl Responder<'_> {
    /// Answers a plain question into `out` and counts it; `false`: the slow path must, and `out` is untouched.
    pub(super) fn answer_fast(&self, message: &[u8], client: &Client, worker: &mut Worker, out: &mut Vec<u8>) -> bool {
        let Some(query) = PlainQuery::read(message) else { return false };
        let server = self.table.server();
        // The rate limit needs the whole message.
        if server.limiter.is_some() {
            return false;
        }
        let mut buffer = [0; NAME_OCTETS_MAX];
        let Some(name) = query.lower_name(&mut buffer) else { return false };
        // A domain has no nodes.
        let Some((TableEntry::Zone(row), position)) = self.table.find(name) else { return false };
        let answer = PlainAnswer { query: &query, row, position, server, client };
        let is_written = match query.query_type {
            QueryType::A => answer.write::<Ipv4Addr>(worker, out),
            _ => answer.write::<Ipv6Addr>(worker, out),
        };
        if is_written {
            worker.count(row, query.query_type, client.transport, self.counters);
        }
        is_written
    }
}

/// A question that the fast path can read.
struct PlainQuery<'m> {
    id: [u8; 2],
    /// RD or 0.
    recursion_desired: u8,
    /// Name, type and class.
    question: &'m [u8],
    query_type: QueryType,
    edns: Option<Edns>,
}

impl<'m> PlainQuery<'m> {
    #[inline]
    fn read(message: &'m [u8]) -> Option<Self> {
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
        let query_type = match u16::from_be_bytes([type_high, type_low]) {
            TYPE_A => QueryType::A,
            TYPE_AAAA => QueryType::Aaaa,
            _ => return None,
        };
        if u16::from_be_bytes([class_high, class_low]) != CLASS_IN {
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
    fn lower_name<'b>(&self, buffer: &'b mut [u8; NAME_OCTETS_MAX]) -> Option<&'b [u8]> {
        let (name, _) = self.question.split_last_chunk::<TYPE_AND_CLASS_OCTETS>()?;
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(lower)
    }

    /// Type and class, which the records share with the question.
    fn type_and_class(&self) -> [u8; TYPE_AND_CLASS_OCTETS] {
        self.question.last_chunk().copied().unwrap_or_default()
    }
}

/// A plain question and what its answer depends on.
struct PlainAnswer<'a> {
    query: &'a PlainQuery<'a>,
    row: &'a Row,
    position: Position<'a>,
    server: &'a ServerSettings,
    client: &'a Client,
}

impl PlainAnswer<'_> {
    /// Writes the reply; `false` where the slow path must, and `out` is untouched.
    fn write<A: Address>(&self, worker: &mut Worker, out: &mut Vec<u8>) -> bool {
        let (zone, total) = worker.summary::<A>(self.row);
        if !self.has_nodes(&zone) {
            return false;
        }
        let take = match (zone.count, self.capacity::<A>()) {
            (AnswerCount::AtMost(count), capacity) => capacity.min(usize::from(count.get())).min(total),
            (AnswerCount::All, capacity) => capacity.min(total),
        };
        let is_truncated = zone.count == AnswerCount::All && take < total;
        let Ok(count) = u16::try_from(take) else { return false };
        if count == 0 {
            return false;
        }
        self.write_head(count, is_truncated, out);
        let [t0, t1, c0, c1] = self.query.type_and_class();
        let [l0, l1, l2, l3] = zone.ttl.to_be_bytes();
        for node in worker.pick::<A>(self.row.id, take) {
            out.extend_from_slice(&[OWNER[0], OWNER[1], t0, t1, c0, c1, l0, l1, l2, l3, 0, A::OCTETS]);
            node.write(out);
        }
        if let Some(edns) = &self.query.edns {
            self.write_opt(edns, out);
        }
        true
    }

    /// Whether the name has nodes that this client may get, and the reply needs no extended error.
    #[inline]
    fn has_nodes(&self, zone: &ZoneSummary) -> bool {
        let at_nodes = match self.position {
            Position::Apex => true,
            Position::NameServer(_) => false,
            Position::EmptyNonTerminal | Position::BelowApex => zone.subdomains,
        };
        let needs_error = self.query.edns.is_some() && zone.is_stale;
        let is_permitted = zone.is_open || self.row.entry.answers().settings.clients.permit(self.client.address);
        at_nodes && !needs_error && is_permitted
    }

    /// How many addresses fit in the reply.
    fn capacity<A: Address>(&self) -> usize {
        let PlainQuery { question, edns, .. } = self.query;
        let cookie_octets = |edns: &Edns| edns.cookie.map_or(0, |_| OPTION_HEAD_OCTETS + COOKIE_OCTETS);
        let opt_octets = edns.as_ref().map_or(0, |edns| OPT_OCTETS + cookie_octets(edns));
        octets_max(edns.as_ref().map(|edns| edns.payload), self.client.transport)
            .saturating_sub(HEADER_OCTETS + question.len() + opt_octets)
            / (RECORD_HEAD_OCTETS + usize::from(A::OCTETS))
    }

    #[inline]
    fn write_head(&self, answers: u16, is_truncated: bool, out: &mut Vec<u8>) {
        let PlainQuery { id: [id_high, id_low], recursion_desired, question, edns, .. } = self.query;
        let forwards = self.server.forwards_for(self.client.address);
        let recursion_available = if forwards { FLAG_RECURSION_AVAILABLE } else { 0 };
        let truncated = if is_truncated { FLAG_TRUNCATED } else { 0 };
        let flags = FLAG_RESPONSE | FLAG_AUTHORITATIVE | truncated | recursion_desired;
        let [count_high, count_low] = answers.to_be_bytes();
        let additional = u8::from(edns.is_some());
        let header: [u8; HEADER_OCTETS] =
            [*id_high, *id_low, flags, recursion_available, 0, 1, count_high, count_low, 0, 0, 0, additional];
        out.clear();
        out.extend_from_slice(&header);
        out.extend_from_slice(question);
    }

    fn write_opt(&self, edns: &Edns, out: &mut Vec<u8>) {
        let [type_high, type_low] = TYPE_OPT.to_be_bytes();
        let [payload_high, payload_low] = UDP_OCTETS_MAX.to_be_bytes();
        let [flags_high, flags_low] = if edns.dnssec_ok { EDNS_DNSSEC_OK.to_be_bytes() } else { [0, 0] };
        out.extend_from_slice(&[0, type_high, type_low, payload_high, payload_low, 0, 0, flags_high, flags_low]);
        match edns.cookie {
            None => out.extend_from_slice(&[0, 0]),
            Some(option) => {
                let [code_high, code_low] = OPTION_COOKIE.to_be_bytes();
                let length = COOKIE_OCTETS as u8;
                out.extend_from_slice(&[0, length + OPTION_HEAD_OCTETS as u8, code_high, code_low, 0, length]);
                let secrets = self.server.cookies.load();
                out.extend_from_slice(&cookie::make(&secrets, &option, self.client.address, self.client.now));
            }
        }
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

fn only_cookie(data: &[u8]) -> Option<CookieOption> {
    let (&[code_high, code_low, length_high, length_low], cookie) = data.split_first_chunk()?;
    let is_whole = usize::from(u16::from_be_bytes([length_high, length_low])) == cookie.len();
    if u16::from_be_bytes([code_high, code_low]) != OPTION_COOKIE || !is_whole {
        return None;
    }
    CookieOption::read(cookie)
}

//! Writes the replies of the fast path.

use std::net::IpAddr;

use super::query::PlainQuery;
use crate::{
    answer::{
        Client, cookie,
        query::Edns,
        resolve::ExtendedError,
        soa::SoaParts,
        wire::{
            EDNS_DNSSEC_OK, FLAG_AUTHORITATIVE, FLAG_RECURSION_AVAILABLE, FLAG_RESPONSE, FLAG_TRUNCATED, HEADER_OCTETS,
            OPT_OCTETS, OPTION_COOKIE, OPTION_EXTENDED_ERROR, OPTION_HEAD_OCTETS, POINTER_BITS, RCODE_NXDOMAIN,
            RECORD_HEAD_OCTETS, TYPE_A, TYPE_AAAA, TYPE_AND_CLASS_OCTETS, TYPE_OPT, UDP_OCTETS_MAX, octets_max,
        },
        worker::{Address, NameServerRecords, Worker, ZoneSummary},
    },
    metrics::{Rcode, ZoneId},
    table::{NAME_SERVER_TTL, ServerSettings},
    types::AnswerCount,
};

/// A pointer to the question's name (RFC 1035, 4.1.4).
const OWNER: [u8; 2] = [POINTER_BITS, HEADER_OCTETS as u8];

/// Octets of the data of a reply's COOKIE option: client cookie and server cookie.
const COOKIE_OCTETS: usize = 24;

/// Octets of the data of an extended error without text (RFC 8914, 2).
const EXTENDED_ERROR_OCTETS: usize = 2;

/// How many records are in the sections of a reply, without the OPT.
#[derive(Clone, Copy, Default)]
struct Counts {
    answers: u16,
    authorities: u16,
    additionals: u16,
}

/// A plain question and what its reply depends on, besides the zone. Each method writes a whole reply into `out`, or returns
/// `false` where the slow path must write it.
pub(super) struct PlainReply<'a> {
    pub(super) query: &'a PlainQuery<'a>,
    pub(super) server: &'a ServerSettings,
    pub(super) client: &'a Client,
}

impl PlainReply<'_> {
    /// Nodes of the zone, at least one of which is of this family.
    pub(super) fn write_nodes<A: Address>(
        &self,
        id: ZoneId,
        zone: &ZoneSummary,
        worker: &mut Worker,
        out: &mut Vec<u8>,
    ) -> bool {
        let error = zone.is_stale.then_some(ExtendedError::Stale);
        let total = worker.count_of::<A>(id);
        let capacity = self.capacity::<A>(error);
        let take = match zone.count {
            AnswerCount::AtMost(count) => capacity.min(usize::from(count.get())).min(total),
            AnswerCount::All => capacity.min(total),
        };
        let Ok(answers) = u16::try_from(take) else { return false };
        if answers == 0 {
            return false;
        }
        let truncated = if zone.count == AnswerCount::All && take < total { FLAG_TRUNCATED } else { 0 };
        self.write_head(Rcode::NoError, truncated, Counts { answers, ..Counts::default() }, out);
        for node in worker.pick::<A>(id, take) {
            self.write_address(zone.ttl, *node, out);
        }
        self.write_opt(error, out);
        true
    }

    /// The addresses of one of our own name servers; where it has none of the question's type, nothing with the SOA.
    pub(super) fn write_name_server(&self, addresses: &[IpAddr], soa: Option<SoaParts<'_>>, out: &mut Vec<u8>) -> bool {
        let family_type = |address: &IpAddr| if address.is_ipv4() { TYPE_A } else { TYPE_AAAA };
        let addresses = || addresses.iter().filter(|address| family_type(address) == self.query.query_type);
        let Ok(answers) = u16::try_from(addresses().count()) else { return false };
        if answers == 0 {
            return self.write_negative(Rcode::NoError, soa, out);
        }
        self.write_head(Rcode::NoError, 0, Counts { answers, ..Counts::default() }, out);
        for address in addresses() {
            match *address {
                IpAddr::V4(v4) => self.write_address(NAME_SERVER_TTL, v4, out),
                IpAddr::V6(v6) => self.write_address(NAME_SERVER_TTL, v6, out),
            }
        }
        self.end(out)
    }

    /// The SOA of the zone.
    pub(super) fn write_soa(&self, soa: Option<SoaParts<'_>>, out: &mut Vec<u8>) -> bool {
        self.write_with_soa(Rcode::NoError, Counts { answers: 1, ..Counts::default() }, soa, out)
    }

    /// No data, or no such name: the SOA says for how long (RFC 2308).
    pub(super) fn write_negative(&self, rcode: Rcode, soa: Option<SoaParts<'_>>, out: &mut Vec<u8>) -> bool {
        self.write_with_soa(rcode, Counts { authorities: 1, ..Counts::default() }, soa, out)
    }

    fn write_with_soa(&self, rcode: Rcode, counts: Counts, soa: Option<SoaParts<'_>>, out: &mut Vec<u8>) -> bool {
        let Some(soa) = soa else { return false };
        self.write_head(rcode, 0, counts, out);
        soa.write(self.query.question.len() - TYPE_AND_CLASS_OCTETS, out);
        self.end(out)
    }

    /// The NS records of the zone.
    pub(super) fn write_name_servers(&self, records: &NameServerRecords, out: &mut Vec<u8>) -> bool {
        let NameServerRecords { answers, additionals, .. } = *records;
        self.write_head(Rcode::NoError, 0, Counts { answers, additionals, ..Counts::default() }, out);
        out.extend_from_slice(&records.octets);
        self.end(out)
    }

    /// Adds the OPT; `false` where the reply is too long.
    fn end(&self, out: &mut Vec<u8>) -> bool {
        self.write_opt(None, out);
        out.len() <= self.octets_max()
    }

    fn octets_max(&self) -> usize {
        octets_max(self.query.edns.as_ref().map(|edns| edns.payload), self.client.transport)
    }

    /// How many addresses fit in the reply.
    fn capacity<A: Address>(&self, error: Option<ExtendedError>) -> usize {
        let opt_octets = self.query.edns.as_ref().map_or(0, |edns| OPT_OCTETS + options_octets(edns, error));
        self.octets_max().saturating_sub(HEADER_OCTETS + self.query.question.len() + opt_octets)
            / (RECORD_HEAD_OCTETS + usize::from(A::OCTETS))
    }

    #[inline]
    fn write_head(&self, rcode: Rcode, truncated: u8, counts: Counts, out: &mut Vec<u8>) {
        let PlainQuery { id: [id_high, id_low], recursion_desired, question, edns, .. } = self.query;
        let forwards = self.server.forwards_for(self.client.address);
        let recursion_available = if forwards { FLAG_RECURSION_AVAILABLE } else { 0 };
        let flags = FLAG_RESPONSE | FLAG_AUTHORITATIVE | truncated | recursion_desired;
        let [an_high, an_low] = counts.answers.to_be_bytes();
        let [ns_high, ns_low] = counts.authorities.to_be_bytes();
        let [ar_high, ar_low] = (counts.additionals + u16::from(edns.is_some())).to_be_bytes();
        let low_flags = recursion_available | if rcode == Rcode::NxDomain { RCODE_NXDOMAIN } else { 0 };
        let header: [u8; HEADER_OCTETS] =
            [*id_high, *id_low, flags, low_flags, 0, 1, an_high, an_low, ns_high, ns_low, ar_high, ar_low];
        out.clear();
        out.extend_from_slice(&header);
        out.extend_from_slice(question);
    }

    /// An address of the question's name, type and class.
    #[inline]
    fn write_address<A: Address>(&self, ttl: u32, address: A, out: &mut Vec<u8>) {
        let [t0, t1, c0, c1] = self.query.type_and_class();
        let [l0, l1, l2, l3] = ttl.to_be_bytes();
        out.extend_from_slice(&[OWNER[0], OWNER[1], t0, t1, c0, c1, l0, l1, l2, l3, 0, A::OCTETS]);
        address.write(out);
    }

    /// Answers an OPT with an OPT.
    #[inline]
    fn write_opt(&self, error: Option<ExtendedError>, out: &mut Vec<u8>) {
        let Some(edns) = &self.query.edns else { return };
        let [type_high, type_low] = TYPE_OPT.to_be_bytes();
        let [payload_high, payload_low] = UDP_OCTETS_MAX.to_be_bytes();
        let [flags_high, flags_low] = if edns.dnssec_ok { EDNS_DNSSEC_OK.to_be_bytes() } else { [0, 0] };
        let octets = options_octets(edns, error) as u8;
        let head = [0, type_high, type_low, payload_high, payload_low, 0, 0, flags_high, flags_low, 0, octets];
        out.extend_from_slice(&head);
        if let Some(option) = &edns.cookie {
            let [code_high, code_low] = OPTION_COOKIE.to_be_bytes();
            out.extend_from_slice(&[code_high, code_low, 0, COOKIE_OCTETS as u8]);
            let secrets = self.server.cookies.load();
            out.extend_from_slice(&cookie::make(&secrets, option, self.client.address, self.client.now));
        }
        if let Some(error) = error {
            let [option_high, option_low] = OPTION_EXTENDED_ERROR.to_be_bytes();
            let [code_high, code_low] = error.code().to_be_bytes();
            out.extend_from_slice(&[option_high, option_low, 0, EXTENDED_ERROR_OCTETS as u8, code_high, code_low]);
        }
    }
}

/// Octets of the options that a reply has.
fn options_octets(edns: &Edns, error: Option<ExtendedError>) -> usize {
    let cookie_octets = edns.cookie.map_or(0, |_| OPTION_HEAD_OCTETS + COOKIE_OCTETS);
    cookie_octets + error.map_or(0, |_| OPTION_HEAD_OCTETS + EXTENDED_ERROR_OCTETS)
}

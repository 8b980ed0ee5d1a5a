//! The complete renderer: any resolution, through hickory's message types.
//!
//! What does not fit is decided here. The encoder never truncates, because it would lose the OPT and leave half of
//! an RRset behind.

use std::net::IpAddr;

use hickory_server::proto::{
    ProtoError,
    op::{Edns as HickoryEdns, EmitAndCount, MessageType, Metadata, OpCode, ResponseCode, emit_message_parts},
    rr::{
        DNSClass, Name, RData, Record,
        rdata::{A, AAAA, NS, SOA, TXT},
    },
    serialize::binary::{BinEncodable, BinEncoder},
};

use super::{
    Client,
    options::{ReplyOpt, UDP_OCTETS_MAX, pad},
    query::{Edns, HEADER_OCTETS, Query, Reject},
    resolve::{Family, Outcome, Resolution, Zone},
    worker::Worker,
};
use crate::{
    metrics::{Rcode, Transport},
    types::{AnswerCount, ZoneName, suffixes},
};

/// Octets of a UDP reply that every client takes (RFC 1035, 2.3.4).
const UDP_OCTETS_WITHOUT_EDNS: u16 = 512;

/// Octets of a message over anything but UDP: over TCP its length has sixteen bits (RFC 1035, 4.2.2), and so it has over
/// TLS and QUIC.
const TCP_OCTETS_MAX: u16 = u16::MAX;

/// Octets of a record before its data, when its owner is a pointer: name, type, class, TTL, length (RFC 1035, 4.1.3).
const RECORD_HEAD_OCTETS: usize = 2 + 2 + 2 + 4 + 2;

/// Header flag in the fourth octet: recursion available (RFC 1035, 4.1.1).
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;

/// TTL of NS records and of the addresses of name servers, in seconds: they change with the configuration alone.
const NAME_SERVER_TTL: u32 = 3600;

/// SOA timers, in seconds. Nobody transfers these zones, so they are customary values and no more.
const SOA_REFRESH: i32 = 60;
const SOA_RETRY: i32 = 10;
const SOA_EXPIRE: i32 = 1_209_600;

/// Whom an SOA names as responsible (RFC 2142, 7).
const RESPONSIBLE: &str = "hostmaster";

/// Renders the reply to a question into `out`, which it empties first. `worker` chooses among nodes.
pub fn render(
    query: &Query<'_>,
    resolution: &Resolution<'_>,
    opt: Option<&ReplyOpt>,
    client: &Client,
    worker: &mut Worker,
    out: &mut Vec<u8>,
) {
    let head = Head { id: query.id, opcode: 0, recursion_desired: query.recursion_desired, rcode: resolution.rcode() };
    let written = Reply::new(query, head, resolution, opt, client, worker).and_then(|reply| reply.write(out));
    if written.is_err() {
        // No resolution is known to come here. Whoever finds one: the client is told to ask another server.
        head.with(Rcode::ServFail).write(out);
    }
}

/// Renders a reply without records into `out`, which it empties first. `truncated` makes the client ask again over TCP.
pub fn render_reject(reject: &Reject<'_>, opt: Option<&ReplyOpt>, truncated: bool, out: &mut Vec<u8>) {
    let Reject { id, opcode, recursion_desired, rcode, question, .. } = *reject;
    let head = Head { id, opcode, recursion_desired, rcode };
    let mut parts = Parts::new(opt);
    let question = Question { octets: question, zone_at: 0, name_end: 0 };
    let mut metadata = head.metadata();
    metadata.truncation = truncated;
    if parts.write(metadata, question, out).is_err() {
        head.write(out);
    }
}

/// The largest reply that may go to a client.
pub(super) fn limit(edns: Option<Edns>, transport: Transport) -> usize {
    usize::from(match (transport, edns) {
        (Transport::Tcp | Transport::Tls | Transport::Https | Transport::Quic, _) => TCP_OCTETS_MAX,
        (Transport::Udp, None) => UDP_OCTETS_WITHOUT_EDNS,
        (Transport::Udp, Some(edns)) => edns.payload.clamp(UDP_OCTETS_WITHOUT_EDNS, UDP_OCTETS_MAX),
    })
}

/// Says in a finished reply that its client may ask for recursion (RA).
pub(super) fn offer_recursion(reply: &mut [u8]) {
    if let Some(flags) = reply.get_mut(3) {
        *flags |= FLAG_RECURSION_AVAILABLE;
    }
}

/// What a reply's header copies from the question, and its rcode.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) recursion_desired: bool,
    pub(super) rcode: Rcode,
}

impl Head {
    pub(super) fn with(self, rcode: Rcode) -> Self {
        Self { rcode, ..self }
    }

    /// AD, CD and Z stay clear: we are no validator (RFC 4035, 3.1.6). RA depends on the client alone: see
    /// [`offer_recursion`].
    pub(super) fn metadata(self) -> Metadata {
        let mut metadata = Metadata::new(self.id, MessageType::Response, OpCode::from_u8(self.opcode));
        metadata.recursion_desired = self.recursion_desired;
        metadata.response_code = match self.rcode {
            Rcode::NoError => ResponseCode::NoError,
            Rcode::FormErr => ResponseCode::FormErr,
            Rcode::ServFail => ResponseCode::ServFail,
            Rcode::NxDomain => ResponseCode::NXDomain,
            Rcode::NotImp => ResponseCode::NotImp,
            Rcode::Refused => ResponseCode::Refused,
            Rcode::BadVers => ResponseCode::BADVERS,
            Rcode::BadCookie => ResponseCode::BADCOOKIE,
        };
        metadata
    }

    /// A reply of a header alone, which needs no encoder and cannot fail.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.clear();
        out.extend(self.id.to_be_bytes());
        out.push(0x80 | (self.opcode & 0x0F) << 3 | u8::from(self.recursion_desired));
        out.push(self.metadata().response_code.low());
        out.resize(HEADER_OCTETS, 0);
    }
}

/// A question as it came. Names that end like it are compressed to it.
#[derive(Clone, Copy)]
pub(super) struct Question<'q> {
    /// Name, type and class; empty in a reply without question.
    octets: &'q [u8],
    /// Where in the octets the zone's name begins.
    zone_at: usize,
    /// Where in the octets the root's octet ends the name.
    name_end: usize,
}

impl<'q> Question<'q> {
    /// One whose name is all that records are compressed to.
    pub(super) fn of(query: &Query<'q>) -> Self {
        Self { octets: query.question, zone_at: 0, name_end: query.name_as_asked().len().saturating_sub(1) }
    }

    fn new(query: &Query<'q>, zone: Option<&Zone<'_>>) -> Self {
        let name = query.name_as_asked();
        let zone_octets = zone.map_or(0, |zone| zone.entry.name().wire().len());
        let (zone_at, name_end) = (name.len().saturating_sub(zone_octets), name.len().saturating_sub(1));
        Self { octets: query.question, zone_at, name_end }
    }

    /// The zone's name in wire format, in the client's spelling.
    fn zone_as_asked(&self) -> &'q [u8] {
        self.octets.get(self.zone_at..=self.name_end).unwrap_or_default()
    }

    /// A name of ours for record data. Where it ends in the zone's name it takes the client's spelling of it,
    /// because the encoder compresses only to what it finds letter for letter.
    fn spell(&self, name: &ZoneName, zone: &ZoneName) -> Result<Name, ProtoError> {
        let own = name.wire().len().saturating_sub(zone.wire().len());
        let wire = match name.wire().split_at_checked(own) {
            Some((labels, _)) if name.is_within(zone) => [labels, self.zone_as_asked()].concat(),
            _ => name.wire().to_vec(),
        };
        Name::from_labels(suffixes(&wire).filter_map(|rest| match rest.split_first()? {
            (0, _) => None,
            (&length, rest) => rest.get(..usize::from(length)),
        }))
    }
}

impl EmitAndCount for Question<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        let start = encoder.offset();
        encoder.emit_vec(self.octets)?;
        // The encoder keeps few candidates for compression. Only the zone's name and those above it are of use.
        let mut at = self.zone_at;
        while at < self.name_end {
            encoder.store_label_pointer(start + at, start + self.name_end);
            at += 1 + usize::from(self.octets.get(at).copied().unwrap_or_default());
        }
        Ok(usize::from(!self.octets.is_empty()))
    }
}

/// A record whose owner stands in the question. The pointer is written as such: the encoder would look the name up
/// for each record, and stops compressing after 120 of them.
pub(super) struct Pointed {
    owner: Owner,
    class: DNSClass,
    ttl: u32,
    data: RData,
}

impl Pointed {
    pub(super) fn new(owner: Owner, ttl: u32, data: RData) -> Self {
        Self { owner, class: DNSClass::IN, ttl, data }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Owner {
    Root,
    /// Counted from the message's first octet.
    At(u16),
}

impl Owner {
    /// The name that begins at this octet of the question.
    pub(super) fn in_question(question: &Question<'_>, at: usize) -> Self {
        // A name ends after 255 octets, so it fits a pointer's fourteen bits.
        match u16::try_from(HEADER_OCTETS + at) {
            Ok(place) if at < question.name_end => Self::At(place),
            _ => Self::Root,
        }
    }
}

impl BinEncodable for Pointed {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        match self.owner {
            Owner::Root => encoder.emit_u8(0)?,
            Owner::At(place) => encoder.emit_u16(0xC000 | place)?,
        }
        self.data.record_type().emit(encoder)?;
        self.class.emit(encoder)?;
        encoder.emit_u32(self.ttl)?;
        let place = encoder.place::<u16>()?;
        self.data.emit(encoder)?;
        let length = u16::try_from(encoder.len_since_place(&place)).map_err(|_| "record data is too long")?;
        place.replace(encoder, length)
    }
}

/// The sections behind the question.
#[derive(Default)]
struct Parts {
    answers: Vec<Pointed>,
    authorities: Vec<Pointed>,
    additionals: Vec<Record>,
    edns: Option<HickoryEdns>,
    /// Whether the OPT is padded, which only encrypted replies are.
    padded: bool,
}

impl Parts {
    fn new(opt: Option<&ReplyOpt>) -> Self {
        Self { edns: opt.map(ReplyOpt::hickory), padded: opt.is_some_and(ReplyOpt::is_padded), ..Self::default() }
    }

    fn write(&mut self, metadata: Metadata, question: Question<'_>, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        self.emit(metadata, question, out)?;
        match &mut self.edns {
            Some(edns) if self.padded => {
                pad(edns, out.len(), TCP_OCTETS_MAX.into());
                self.emit(metadata, question, out)
            }
            _ => Ok(()),
        }
    }

    fn emit(&mut self, metadata: Metadata, mut question: Question<'_>, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        out.clear();
        emit_message_parts(
            &metadata,
            &mut question,
            &mut self.answers.iter(),
            &mut self.authorities.iter(),
            &mut self.additionals.iter(),
            self.edns.as_ref(),
            None,
            &mut BinEncoder::new(out),
        )?;
        Ok(())
    }
}

/// A reply with all that it should hold, and the room there is.
struct Reply<'q> {
    metadata: Metadata,
    question: Question<'q>,
    parts: Parts,
    opt_octets: usize,
    limit: usize,
}

impl<'q> Reply<'q> {
    fn new(
        query: &Query<'q>,
        head: Head,
        resolution: &Resolution<'_>,
        opt: Option<&ReplyOpt>,
        client: &Client,
        worker: &mut Worker,
    ) -> Result<Self, ProtoError> {
        let mut metadata = head.metadata();
        metadata.authoritative = resolution.is_authoritative();
        let mut reply = Self {
            metadata,
            question: Question::new(query, resolution.zone.as_ref()),
            parts: Parts::new(opt),
            opt_octets: opt.map_or(0, ReplyOpt::octets),
            limit: limit(query.edns, client.transport),
        };
        match (&resolution.zone, &resolution.outcome) {
            (Some(zone), outcome) => reply.fill(zone, outcome, worker)?,
            (None, Outcome::Text(text)) => reply.text(text),
            (None, _) => {}
        }
        Ok(reply)
    }

    fn fill(&mut self, zone: &Zone<'_>, outcome: &Outcome<'_>, worker: &mut Worker) -> Result<(), ProtoError> {
        match outcome {
            Outcome::Nodes { family, count } => self.nodes(zone, *family, *count, worker),
            Outcome::NameServerAddresses { family, addresses } => {
                self.answer(NAME_SERVER_TTL, addresses.iter().filter(|a| family.has(a)).map(|a| address(*a)));
            }
            Outcome::Soa => {
                let soa = self.soa(zone)?;
                self.parts.answers.push(soa);
            }
            Outcome::NameServers { glue } => self.name_servers(zone, glue)?,
            Outcome::NoData | Outcome::NxDomain => {
                let soa = self.soa(zone)?;
                self.parts.authorities.push(soa);
            }
            Outcome::NotReady | Outcome::Forward | Outcome::Refused | Outcome::Text(_) => {}
        }
        Ok(())
    }

    /// Names as many nodes as were asked for and fit. Of all nodes not one may be missing: that is truncation.
    fn nodes(&mut self, zone: &Zone<'_>, family: Family, count: AnswerCount, worker: &mut Worker) {
        let (answers, index) = (&zone.answers, zone.entry.id().index);
        let room = self.room(family);
        let total = match family {
            Family::V4 => answers.v4.len(),
            Family::V6 => answers.v6.len(),
        };
        let take = match count {
            AnswerCount::AtMost(count) => room.min(usize::from(count.get())),
            AnswerCount::All if total <= room => total,
            AnswerCount::All => {
                self.metadata.truncation = true;
                return;
            }
        };
        let ttl = answers.address_ttl();
        match family {
            Family::V4 => {
                self.answer(ttl, worker.deal_from(index, &answers.v4, take).iter().map(|&v4| RData::A(A(v4))));
            }
            Family::V6 => {
                self.answer(ttl, worker.deal_from(index, &answers.v6, take).iter().map(|&v6| RData::AAAA(AAAA(v6))));
            }
        }
    }

    /// How many addresses fit. Eight always do: with the longest name, an OPT and a stale zone's error, eight AAAA
    /// records end exactly at 512 octets.
    fn room(&self, family: Family) -> usize {
        let fixed = HEADER_OCTETS + self.question.octets.len() + self.opt_octets;
        let record = RECORD_HEAD_OCTETS + if family == Family::V4 { 4 } else { 16 };
        self.limit.saturating_sub(fixed) / record
    }

    fn answer(&mut self, ttl: u32, data: impl Iterator<Item = RData>) {
        let owner = Owner::in_question(&self.question, 0);
        self.parts.answers.extend(data.map(|data| Pointed::new(owner, ttl, data)));
    }

    /// What this server tells about itself: class CHAOS, and nobody may keep it.
    fn text(&mut self, text: &str) {
        let owner = Owner::in_question(&self.question, 0);
        let data = RData::TXT(TXT::new(vec![text.to_owned()]));
        self.parts.answers.push(Pointed { owner, class: DNSClass::CH, ttl: 0, data });
    }

    fn soa(&self, zone: &Zone<'_>) -> Result<Pointed, ProtoError> {
        let apex = zone.entry.name();
        let settings = &zone.answers.settings;
        let primary = settings.name_servers.first().unwrap_or(apex);
        let responsible = match apex.child(RESPONSIBLE) {
            Some(name) => self.question.spell(&name, apex)?,
            None => Name::root(),
        };
        let soa = SOA::new(
            self.question.spell(primary, apex)?,
            responsible,
            zone.answers.serial,
            SOA_REFRESH,
            SOA_RETRY,
            SOA_EXPIRE,
            zone.negative_ttl(),
        );
        let owner = Owner::in_question(&self.question, self.question.zone_at);
        Ok(Pointed::new(owner, zone.negative_ttl(), RData::SOA(soa)))
    }

    fn name_servers(&mut self, zone: &Zone<'_>, glue: &[(ZoneName, &[IpAddr])]) -> Result<(), ProtoError> {
        let apex = zone.entry.name();
        let owner = Owner::in_question(&self.question, 0);
        for (name, _) in zone.answers.settings.name_servers.iter() {
            let data = RData::NS(NS(self.question.spell(name, apex)?));
            self.parts.answers.push(Pointed::new(owner, NAME_SERVER_TTL, data));
        }
        for (name, addresses) in glue {
            let name = self.question.spell(name, apex)?;
            let records = addresses.iter().map(|a| Record::from_rdata(name.clone(), NAME_SERVER_TTL, address(*a)));
            self.parts.additionals.extend(records);
        }
        Ok(())
    }

    /// Writes all of it; where that is too long, without the additional section, and at last as a truncated reply.
    fn write(mut self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        self.parts.write(self.metadata, self.question, out)?;
        if out.len() > self.limit && !self.parts.additionals.is_empty() {
            self.parts.additionals.clear();
            self.parts.write(self.metadata, self.question, out)?;
        }
        if out.len() > self.limit {
            self.metadata.truncation = true;
            self.parts.answers.clear();
            self.parts.authorities.clear();
            self.parts.write(self.metadata, self.question, out)?;
        }
        Ok(())
    }
}

fn address(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

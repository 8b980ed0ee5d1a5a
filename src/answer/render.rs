//! The one renderer. The answers of zones ([`super::records`]) and of upstreams ([`super::forwarded`]) are filled into a
//! [`Reply`], which decides EDNS, truncation and padding, and writes the message with hickory's encoder.
//!
//! The encoder must never truncate: it would drop the OPT and a part of an RRset.

use hickory_server::proto::{
    ProtoError,
    op::{Edns as HickoryEdns, EmitAndCount, MessageType, Metadata, OpCode, ResponseCode, emit_message_parts},
    rr::{DNSClass, Name, RData, RecordData},
    serialize::binary::{BinDecodable, BinEncodable, BinEncoder},
};

use super::{
    Client,
    options::{ReplyOpt, pad},
    query::Request,
    resolve::ExtendedError,
    wire::{
        FLAG_RECURSION_AVAILABLE, FLAG_RECURSION_DESIRED, FLAG_RESPONSE, HEADER_OCTETS, POINTER_BITS,
        RECORD_HEAD_OCTETS, TYPE_AND_CLASS_OCTETS, octets_max,
    },
};
use crate::{
    metrics::Rcode,
    table::ServerSettings,
    types::{ZoneName, suffixes},
};

/// A reply before it is written: what it copies from the request, its EDNS, and the records that were filled in.
pub(super) struct Reply<'m> {
    metadata: Metadata,
    rcode: Rcode,
    question: Question<'m>,
    pub(super) answers: Vec<ReplyRecord>,
    pub(super) authorities: Vec<ReplyRecord>,
    pub(super) additionals: Vec<ReplyRecord>,
    opt: Option<ReplyOpt>,
    octets_max: usize,
}

impl<'m> Reply<'m> {
    /// A reply with NOERROR and without records. AD, CD and Z are clear: this server validates nothing (RFC 4035, 3.1.6).
    pub(super) fn new(request: &Request<'m>, server: &ServerSettings, client: &Client) -> Self {
        let mut metadata = Metadata::new(request.id, MessageType::Response, OpCode::from_u8(request.opcode));
        metadata.recursion_desired = request.recursion_desired;
        metadata.recursion_available = server.forwards_for(client.address);
        Self {
            metadata,
            rcode: Rcode::NoError,
            question: Question::new(request),
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            opt: request.edns.map(|edns| ReplyOpt::new(&edns, server, client)),
            octets_max: octets_max(request.edns.as_ref().map(|edns| edns.payload), client.transport),
        }
    }

    pub(super) fn rcode(&self) -> Rcode {
        self.rcode
    }

    pub(super) fn set_rcode(&mut self, rcode: Rcode) {
        self.rcode = rcode;
        self.metadata.response_code = response_code(rcode);
    }

    /// Sets AA.
    pub(super) fn set_authoritative(&mut self, is_authoritative: bool) {
        self.metadata.authoritative = is_authoritative;
    }

    /// Sets TC: the client repeats its question over TCP.
    pub(super) fn set_truncated(&mut self) {
        self.metadata.truncation = true;
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.metadata.truncation
    }

    pub(super) fn extended_error(&self) -> Option<ExtendedError> {
        self.opt.as_ref().and_then(ReplyOpt::extended_error)
    }

    /// Gives a reason, for a client that uses EDNS.
    pub(super) fn set_extended_error(&mut self, error: Option<ExtendedError>) {
        if let (Some(opt), Some(error)) = (&mut self.opt, error) {
            opt.set_extended_error(error);
        }
    }

    pub(super) fn question(&self) -> &Question<'m> {
        &self.question
    }

    /// Compresses names in record data to a zone that the question's name lies in.
    pub(super) fn compress_to(&mut self, zone: &ZoneName) {
        self.question.compress_to(zone.wire().len());
    }

    /// Compresses names in record data to the question's name.
    pub(super) fn compress_to_question(&mut self) {
        self.question.zone_at = 0;
    }

    /// How many records with this many octets of data fit, whose owner is the question's name. Eight AAAA records always
    /// do: with the longest name, an OPT and the extended error of a stale zone, they end exactly at 512 octets.
    pub(super) fn capacity(&self, data_octets: usize) -> usize {
        let opt_octets = self.opt.as_ref().map_or(0, ReplyOpt::octets);
        let fixed = HEADER_OCTETS + self.question.octets.len() + opt_octets;
        self.octets_max.saturating_sub(fixed) / (RECORD_HEAD_OCTETS + data_octets)
    }

    /// Leaves space for the question and the answers of the reply that this one will be appended to, in place of its own
    /// question.
    pub(super) fn leave_space_for(&mut self, first: &Self) {
        let answers = first.answers.iter().map(|record| record.to_bytes().map_or(0, |octets| octets.len()));
        let taken = first.question.octets.len() + answers.sum::<usize>();
        self.octets_max = (self.octets_max + self.question.octets.len()).saturating_sub(taken);
    }

    /// Takes the records out and replies SERVFAIL.
    pub(super) fn fail(&mut self) {
        self.clear_records();
        self.set_rcode(Rcode::ServFail);
        self.metadata.authoritative = false;
        self.metadata.truncation = false;
    }

    /// Writes the message into `out`, which it empties first.
    pub(super) fn render(mut self, out: &mut Vec<u8>) {
        if self.write(out).is_err() {
            // A record of an upstream may be impossible to write.
            self.set_rcode(Rcode::ServFail);
            self.write_header(out);
        }
    }

    /// Writes all of it; where that is too long, without the additional section, and at last as a truncated reply.
    /// Padding comes last, when the length is known.
    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        let mut edns = self.opt.as_ref().map(ReplyOpt::to_hickory);
        let mut fits = self.emit(edns.as_ref(), out)?;
        if !fits && !self.additionals.is_empty() {
            self.additionals.clear();
            fits = self.emit(edns.as_ref(), out)?;
        }
        if !fits {
            self.clear_records();
            self.set_truncated();
            self.emit(edns.as_ref(), out)?;
        }
        if let Some(edns) = &mut edns
            && self.opt.as_ref().is_some_and(ReplyOpt::is_padded)
        {
            pad(edns, out.len(), self.octets_max);
            self.emit(Some(edns), out)?;
        }
        Ok(())
    }

    /// Writes the message as it is, and returns whether it is whole and as short as the client demands.
    fn emit(&mut self, edns: Option<&HickoryEdns>, out: &mut Vec<u8>) -> Result<bool, ProtoError> {
        out.clear();
        let header = emit_message_parts(
            &self.metadata,
            &mut self.question,
            &mut self.answers.iter(),
            &mut self.authorities.iter(),
            &mut self.additionals.iter(),
            edns,
            None,
            &mut BinEncoder::new(out),
        )?;
        Ok(header.metadata.truncation == self.metadata.truncation && out.len() <= self.octets_max)
    }

    fn clear_records(&mut self) {
        for section in [&mut self.answers, &mut self.authorities, &mut self.additionals] {
            section.clear();
        }
    }

    /// Writes a reply of a header alone, which needs no encoder and cannot fail.
    fn write_header(&self, out: &mut Vec<u8>) {
        let Metadata { id, op_code, recursion_desired, recursion_available, response_code, .. } = self.metadata;
        let recursion_desired = if recursion_desired { FLAG_RECURSION_DESIRED } else { 0 };
        let recursion_available = if recursion_available { FLAG_RECURSION_AVAILABLE } else { 0 };
        out.clear();
        out.extend(id.to_be_bytes());
        out.push(FLAG_RESPONSE | u8::from(op_code) << 3 | recursion_desired);
        out.push(recursion_available | response_code.low());
        out.resize(HEADER_OCTETS, 0);
    }
}

fn response_code(rcode: Rcode) -> ResponseCode {
    match rcode {
        Rcode::NoError => ResponseCode::NoError,
        Rcode::FormErr => ResponseCode::FormErr,
        Rcode::ServFail => ResponseCode::ServFail,
        Rcode::NxDomain => ResponseCode::NXDomain,
        Rcode::NotImp => ResponseCode::NotImp,
        Rcode::Refused => ResponseCode::Refused,
        Rcode::BadVers => ResponseCode::BADVERS,
        Rcode::BadCookie => ResponseCode::BADCOOKIE,
    }
}

/// A question as it came. Names in record data are compressed to the suffixes of its name.
#[derive(Clone, Copy)]
pub(super) struct Question<'m> {
    /// Name, type and class; empty in a reply without question.
    octets: &'m [u8],
    /// Where in the octets the root's octet ends the name.
    name_end: usize,
    /// Where in the octets the name begins that is offered for compression; `name_end` where none is.
    zone_at: usize,
}

impl<'m> Question<'m> {
    fn new(request: &Request<'m>) -> Self {
        let name_end = request.question.len().saturating_sub(TYPE_AND_CLASS_OCTETS + 1);
        Self { octets: request.question, name_end, zone_at: name_end }
    }

    /// Offers the last octets of the name.
    fn compress_to(&mut self, zone_octets: usize) {
        self.zone_at = (self.name_end + 1).saturating_sub(zone_octets);
    }

    /// The question's name as an owner.
    pub(super) fn owner(&self) -> Owner {
        self.owner_at(0)
    }

    /// The zone's name as an owner.
    pub(super) fn zone_owner(&self) -> Owner {
        self.owner_at(self.zone_at)
    }

    /// An owner of a record that is moved to a message with another question.
    pub(super) fn detached(&self, owner: Owner) -> Result<Owner, ProtoError> {
        let Owner::Pointer(offset) = owner else { return Ok(owner) };
        let at = usize::from(offset).saturating_sub(HEADER_OCTETS);
        let name = self.octets.get(at..=self.name_end).unwrap_or_default();
        Ok(Owner::Name(Box::new(Name::from_bytes(name)?)))
    }

    fn owner_at(&self, at: usize) -> Owner {
        // A name ends after 255 octets, so a position in it fits in a pointer's fourteen bits.
        match u16::try_from(HEADER_OCTETS + at) {
            Ok(offset) if at < self.name_end => Owner::Pointer(offset),
            _ => Owner::Root,
        }
    }

    /// A name of ours for record data. Where it ends as the zone's name does it takes the client's spelling of that end,
    /// because the encoder compresses only to labels that are equal octet for octet.
    pub(super) fn spell(&self, name: &ZoneName, zone: &ZoneName) -> Result<Name, ProtoError> {
        let shared = name.octets_shared_with(zone);
        let labels = &name.wire()[..name.wire().len() - shared];
        let end_at = (self.name_end + 1).saturating_sub(shared);
        let wire = [labels, self.octets.get(end_at..=self.name_end).unwrap_or_default()].concat();
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

/// A record of a reply.
pub(super) struct ReplyRecord {
    pub(super) owner: Owner,
    pub(super) class: DNSClass,
    pub(super) ttl: u32,
    pub(super) data: RData,
}

impl ReplyRecord {
    /// A record of class IN.
    pub(super) fn new(owner: Owner, ttl: u32, data: RData) -> Self {
        Self { owner, class: DNSClass::IN, ttl, data }
    }
}

/// The owner of a record.
#[derive(Clone)]
pub(super) enum Owner {
    Root,
    /// A name in the question, by its offset in the message. The pointer is written as such: the encoder would look the
    /// name up for each record, and stops compressing after 120 of them.
    Pointer(u16),
    /// Any other name, which the encoder compresses if it can. In a box, because few records have one.
    Name(Box<Name>),
}

impl BinEncodable for ReplyRecord {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        match &self.owner {
            Owner::Root => encoder.emit_u8(0)?,
            Owner::Pointer(offset) => encoder.emit_u16(u16::from_be_bytes([POINTER_BITS, 0]) | offset)?,
            Owner::Name(name) => name.emit(encoder)?,
        }
        self.data.record_type().emit(encoder)?;
        self.class.emit(encoder)?;
        encoder.emit_u32(self.ttl)?;
        let place = encoder.place::<u16>()?;
        // Data of a type that only updates have (RFC 2136, 2.5) is empty, and the encoder has no form for it.
        if !self.data.is_update() {
            self.data.emit(encoder)?;
        }
        let length = u16::try_from(encoder.len_since_place(&place)).map_err(|_| "record data is too long")?;
        place.replace(encoder, length)
    }
}

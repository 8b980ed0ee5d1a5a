//! Answers that come from upstreams: their records with our header, our question and our OPT.
//!
//! Where an alias leads into a zone or domain of ours, what the upstream knows of its target is replaced by our own answer
//! (RFC 1034, 4.3.2, 3a): the upstream may know the name from elsewhere, or not at all.

use hickory_server::proto::{
    ProtoError,
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType},
    serialize::binary::BinDecodable,
};

use super::{
    Client,
    query::{Query, Request},
    render::{Owner, Reply, ReplyRecord},
    resolve::ExtendedError,
    wire::{CLASS_IN, TYPE_ANY, TYPE_CNAME},
};
use crate::{
    metrics::{ForwardResult, Rcode},
    table::ZoneTable,
};

/// Aliases of one answer that are followed. Resolvers follow about as many; a longer chain is most likely a loop.
const ALIASES_MAX: usize = 16;

/// A message whose question goes to upstreams, and its sender.
#[derive(Clone, Copy, Debug)]
pub struct ForwardedQuestion<'m> {
    /// The message as it came.
    pub message: &'m [u8],
    /// Where it came from.
    pub client: &'m Client,
}

/// What came of asking the upstreams.
#[derive(Clone, Debug)]
pub enum UpstreamOutcome {
    /// An answer: NOERROR or NXDOMAIN, with or without records.
    Message(Box<Message>),
    /// Every upstream that replied reported an error of its own.
    Failed,
    /// No upstream replied in time.
    Unreachable,
    /// The upstreams were not asked, because too many questions are in flight.
    Overloaded,
}

impl UpstreamOutcome {
    /// How metrics count it.
    pub(super) fn result(&self) -> ForwardResult {
        match self {
            Self::Message(message) if message.answers.is_empty() => ForwardResult::Negative,
            Self::Message(_) => ForwardResult::Answered,
            Self::Failed | Self::Unreachable => ForwardResult::Failed,
            Self::Overloaded => ForwardResult::Overloaded,
        }
    }

    fn rcode(&self) -> Rcode {
        match self {
            Self::Message(message) if message.metadata.response_code == ResponseCode::NXDomain => Rcode::NxDomain,
            Self::Message(_) => Rcode::NoError,
            Self::Failed | Self::Unreachable | Self::Overloaded => Rcode::ServFail,
        }
    }

    fn extended_error(&self) -> Option<ExtendedError> {
        matches!(self, Self::Unreachable).then_some(ExtendedError::Unreachable)
    }
}

/// An upstream's aliases that lead into a zone or domain of ours.
pub(super) struct Alias<'m> {
    /// The aliases, and the signatures that belong to them.
    records: Vec<&'m Record>,
    /// Name, type and class of the question about the target.
    pub(super) question: Vec<u8>,
}

/// Follows the aliases of an answer up to the first that leads into a zone or domain of ours, if one does.
pub(super) fn alias_into<'m>(table: &ZoneTable, query: &Query<'_>, message: &'m Message) -> Option<Alias<'m>> {
    let wants_alias = matches!(query.query_type, TYPE_CNAME | TYPE_ANY);
    if wants_alias || !message.answers.iter().any(|record| record.record_type() == RecordType::CNAME) {
        return None;
    }
    let mut owners = vec![Name::from_bytes(query.name()).ok()?];
    while owners.len() <= ALIASES_MAX {
        let target = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if Some(&record.name) == owners.last() => Some(&target.0),
            _ => None,
        })?;
        let mut question = wire(target);
        if table.find(&question.to_ascii_lowercase()).is_some() {
            question.extend([query.query_type, CLASS_IN].map(u16::to_be_bytes).as_flattened());
            let records = message.answers.iter().filter(|record| belongs_to_aliases(record, &owners)).collect();
            return Some(Alias { records, question });
        }
        owners.push(target.clone());
    }
    None
}

/// Whether a record is one of the aliases of these names, or of a DNAME above one of them.
fn belongs_to_aliases(record: &Record, owners: &[Name]) -> bool {
    let is_dname = |name: &Name| record.record_type() == RecordType::DNAME && record.name.zone_of(name);
    owners.iter().any(|owner| record.name == *owner || is_dname(owner))
}

/// A name in wire format.
fn wire(name: &Name) -> Vec<u8> {
    let labels = name.iter().flat_map(|label| {
        // A label has at most 63 octets.
        let length = u8::try_from(label.len()).unwrap_or_default();
        std::iter::once(length).chain(label.iter().copied())
    });
    labels.chain([0]).collect()
}

impl Reply<'_> {
    /// Fills in what the upstreams answered to this request.
    pub(super) fn fill_forwarded(&mut self, outcome: &UpstreamOutcome, request: &Request<'_>) {
        self.set_rcode(outcome.rcode());
        self.set_extended_error(outcome.extended_error());
        let UpstreamOutcome::Message(message) = outcome else { return };
        self.answers = self.records(&message.answers, request);
        self.authorities = self.records(&message.authorities, request);
        self.additionals = self.records(&message.additionals, request);
    }

    /// Fills in aliases; the answer about their target follows.
    pub(super) fn fill_aliases(&mut self, alias: &Alias<'_>, request: &Request<'_>) {
        self.answers = self.records(alias.records.iter().copied(), request);
    }

    /// Adds the answer about the target of the aliases. Rcode and error are those of the target (RFC 2308, 2.1).
    pub(super) fn append(&mut self, target: Reply<'_>) -> Result<(), ProtoError> {
        let question = *target.question();
        self.set_rcode(target.rcode());
        self.set_extended_error(target.extended_error());
        if target.is_truncated() {
            self.set_truncated();
        }
        let sections = [
            (&mut self.answers, target.answers),
            (&mut self.authorities, target.authorities),
            (&mut self.additionals, target.additionals),
        ];
        for (section, records) in sections {
            for mut record in records {
                record.owner = question.detached(record.owner)?;
                section.push(record);
            }
        }
        Ok(())
    }

    fn records<'r>(
        &mut self,
        section: impl IntoIterator<Item = &'r Record>,
        request: &Request<'_>,
    ) -> Vec<ReplyRecord> {
        self.compress_to_question();
        let owner = self.question().owner();
        let asked = Name::from_bytes(request.name()).ok();
        section.into_iter().map(|record| reply_record(record, asked.as_ref(), &owner)).collect()
    }
}

/// A record of the question's own name takes the client's spelling of it, and a pointer however many there are.
fn reply_record(record: &Record, asked: Option<&Name>, owner: &Owner) -> ReplyRecord {
    if asked == Some(&record.name) {
        return ReplyRecord::new(owner.clone(), record.ttl, record.data.clone());
    }
    ReplyRecord {
        owner: Owner::Name(Box::new(record.name.clone())),
        class: record.dns_class,
        ttl: record.ttl,
        data: record.data.clone(),
    }
}

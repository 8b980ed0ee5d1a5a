//! Answers that come from upstreams: their records with our header, our question and our OPT.

use hickory_server::proto::{
    op::{Message, ResponseCode},
    rr::{Name, Record},
    serialize::binary::BinDecodable,
};

use super::{
    query::Request,
    render::{Owner, Reply, ReplyRecord},
    resolve::ExtendedError,
};
use crate::metrics::{ForwardResult, Rcode};

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

impl Reply<'_> {
    /// Fills in what the upstreams answered to this request.
    pub(super) fn fill_forwarded(&mut self, outcome: &UpstreamOutcome, request: &Request<'_>) {
        self.set_rcode(outcome.rcode());
        self.set_extended_error(outcome.extended_error());
        let UpstreamOutcome::Message(message) = outcome else { return };
        self.compress_to_question();
        let owner = self.question().owner();
        let asked = Name::from_bytes(request.name()).ok();
        let records =
            |section: &[Record]| section.iter().map(|record| reply_record(record, asked.as_ref(), &owner)).collect();
        self.answers = records(&message.answers);
        self.authorities = records(&message.authorities);
        self.additionals = records(&message.additionals);
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

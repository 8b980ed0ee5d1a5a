//! Answers that come from upstreams: their records under our header, our question and our OPT.

use hickory_server::proto::{
    ProtoError,
    op::{Edns as HickoryEdns, Message, Metadata, ResponseCode, emit_message_parts},
    rr::{Name, Record},
    serialize::binary::{BinDecodable, BinEncodable, BinEncoder},
};

use super::{
    Answered, Client,
    options::ReplyOpt,
    query::{Parsed, Query, parse},
    render::{self, Head, Owner, Pointed, Question, limit},
    resolve::{self, ExtendedError},
};
use crate::{
    metrics::{ForwardResult, ProcessCounters, Rcode},
    table::ZoneTable,
};

/// What came of asking the upstreams.
#[derive(Clone, Debug)]
pub enum UpstreamOutcome {
    /// They answered: NOERROR or NXDOMAIN, with or without records.
    Message(Box<Message>),
    /// None of them could say; they reported an error of their own.
    Failed,
    /// None of them answered in time.
    Unreachable,
    /// They were not asked, because too many questions are under way.
    Overloaded,
}

/// Answers into `out` what [`answer`](super::answer) left to the upstreams, and counts it.
pub fn answer_forwarded(
    table: &ZoneTable,
    counters: &ProcessCounters,
    message: &[u8],
    client: &Client,
    outcome: &UpstreamOutcome,
    out: &mut Vec<u8>,
) -> Answered {
    let Parsed::Query(query) = parse(message) else {
        // It was a question when it was left to the upstreams.
        out.clear();
        return Answered::Silence;
    };
    let rcode = outcome.rcode();
    counters.no_zone.of(resolve::label(query.query_type), rcode, client.transport).increment();
    counters.forwarded.of(outcome.result() as usize).increment();
    let server = table.server();
    let opt = query.edns.map(|edns| ReplyOpt::new(&edns, server, client, outcome.extended_error()));
    let head = Head { id: query.id, opcode: 0, recursion_desired: query.recursion_desired, rcode };
    let question = Question::of(&query);
    let reply = Reply {
        metadata: head.metadata(),
        question,
        sections: outcome.sections(&query, &question),
        edns: opt.as_ref().map(ReplyOpt::hickory),
    };
    if reply.write(limit(query.edns, client.transport), out).is_err() {
        // Records that cannot be written again are as good as none.
        head.with(Rcode::ServFail).write(out);
    }
    if server.forwards_for(client.address) {
        render::offer_recursion(out);
    }
    Answered::Reply
}

impl UpstreamOutcome {
    fn rcode(&self) -> Rcode {
        match self {
            Self::Message(message) if message.metadata.response_code == ResponseCode::NXDomain => Rcode::NxDomain,
            Self::Message(_) => Rcode::NoError,
            Self::Failed | Self::Unreachable | Self::Overloaded => Rcode::ServFail,
        }
    }

    fn result(&self) -> ForwardResult {
        match self {
            Self::Message(message) if message.answers.is_empty() => ForwardResult::Negative,
            Self::Message(_) => ForwardResult::Answered,
            Self::Failed | Self::Unreachable => ForwardResult::Failed,
            Self::Overloaded => ForwardResult::Overloaded,
        }
    }

    fn extended_error(&self) -> Option<ExtendedError> {
        matches!(self, Self::Unreachable).then_some(ExtendedError::Unreachable)
    }

    fn sections(&self, query: &Query<'_>, question: &Question<'_>) -> Sections {
        let Self::Message(message) = self else { return Sections::default() };
        let owner = Owner::in_question(question, 0);
        let asked = Name::from_bytes(query.name_as_asked()).ok();
        let lines = |records: &[Record]| {
            let line = |record: &Record| match &asked {
                Some(asked) if record.name == *asked => {
                    Line::OfQuestion(Pointed::new(owner, record.ttl, record.data.clone()))
                }
                _ => Line::Other(record.clone()),
            };
            records.iter().map(line).collect()
        };
        Sections {
            answers: lines(&message.answers),
            authorities: lines(&message.authorities),
            additionals: lines(&message.additionals),
        }
    }
}

/// The records of a reply.
#[derive(Default)]
struct Sections {
    answers: Vec<Line>,
    authorities: Vec<Line>,
    additionals: Vec<Line>,
}

/// A record. One of the question's own name takes the client's spelling of it, and a pointer however many there are.
enum Line {
    OfQuestion(Pointed),
    Other(Record),
}

impl BinEncodable for Line {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        match self {
            Self::OfQuestion(record) => record.emit(encoder),
            Self::Other(record) => record.emit(encoder),
        }
    }
}

struct Reply<'q> {
    metadata: Metadata,
    question: Question<'q>,
    sections: Sections,
    edns: Option<HickoryEdns>,
}

impl Reply<'_> {
    /// Writes all of it; where that is too long, without the additional section, and at last as a truncated reply.
    fn write(mut self, limit: usize, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        self.emit(out)?;
        if out.len() > limit && !self.sections.additionals.is_empty() {
            self.sections.additionals.clear();
            self.emit(out)?;
        }
        if out.len() > limit {
            self.metadata.truncation = true;
            self.sections = Sections::default();
            self.emit(out)?;
        }
        Ok(())
    }

    fn emit(&mut self, out: &mut Vec<u8>) -> Result<(), ProtoError> {
        out.clear();
        emit_message_parts(
            &self.metadata,
            &mut self.question,
            &mut self.sections.answers.iter(),
            &mut self.sections.authorities.iter(),
            &mut self.sections.additionals.iter(),
            self.edns.as_ref(),
            None,
            &mut BinEncoder::new(out),
        )?;
        Ok(())
    }
}

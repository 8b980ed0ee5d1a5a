//! What a reply of an upstream means, and how long it may be kept.

use std::time::Duration;

use hickory_server::proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType},
};

/// The longest TTL of a record, in seconds: a day. A wrong record with a long TTL would be answered for weeks.
pub(super) const POSITIVE_TTL_MAX: u32 = 24 * 60 * 60;

/// The longest TTL of a negative answer, in seconds: an hour. A name that is created after it was asked for is found by then
/// (RFC 2308, 5, recommends one to three hours).
pub(super) const NEGATIVE_TTL_MAX: u32 = 60 * 60;

/// The longest TTL of a negative answer of a later upstream, in seconds, where an earlier one gave no answer: that one may
/// have the name, and be back soon.
const PROVISIONAL_TTL_MAX: u32 = 10;

/// TTLs above this are read as 0 (RFC 2181, 8).
const TTL_MAX: u32 = i32::MAX as u32;

/// An upstream's answer.
#[derive(Clone, Debug)]
pub(super) struct UpstreamAnswer {
    message: Message,
    /// NXDOMAIN or NODATA.
    is_negative: bool,
}

impl UpstreamAnswer {
    /// Reads a reply to a question for this type, and caps its TTLs; `None`: it is an error, and another upstream may have an
    /// answer.
    pub(super) fn new(mut message: Message, query_type: RecordType) -> Option<Self> {
        let is_negative = match message.metadata.response_code {
            ResponseCode::NoError => !has_data(&message, query_type),
            ResponseCode::NXDomain => true,
            _ => return None,
        };
        if message.metadata.truncation || (is_negative && is_referral(&message)) {
            return None;
        }
        if message.all_sections().any(|record| record.dns_class != DNSClass::IN) {
            return None;
        }
        for record in message.answers.iter_mut().chain(&mut message.additionals) {
            record.ttl = capped(record.ttl, POSITIVE_TTL_MAX);
        }
        let authority_ttl_max = if is_negative { NEGATIVE_TTL_MAX } else { POSITIVE_TTL_MAX };
        for record in &mut message.authorities {
            record.ttl = capped(record.ttl, authority_ttl_max);
        }
        Some(Self { message, is_negative })
    }

    pub(super) fn is_negative(&self) -> bool {
        self.is_negative
    }

    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Makes a negative answer a short-lived one.
    pub(super) fn make_provisional(&mut self) {
        self.limit(Duration::from_secs(PROVISIONAL_TTL_MAX.into()));
    }

    /// Limits the time for which clients keep a negative answer.
    pub(super) fn limit(&mut self, lifetime: Duration) {
        if self.is_negative {
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
            self.message.authorities.iter_mut().for_each(|record| record.ttl = record.ttl.min(seconds));
        }
    }

    /// How long it may be kept. A negative answer without an SOA is not kept (RFC 2308, 5).
    pub(super) fn lifetime(&self) -> Duration {
        let answers = self.message.answers.iter().map(|record| record.ttl).min();
        let seconds = if self.is_negative {
            let soa = self.message.authorities.iter().find_map(negative_ttl);
            soa.map(|soa| soa.min(answers.unwrap_or(NEGATIVE_TTL_MAX)).min(NEGATIVE_TTL_MAX))
        } else {
            answers
        };
        Duration::from_secs(seconds.unwrap_or_default().into())
    }

    /// The message as it is to be passed on after it was kept for so long.
    pub(super) fn aged(mut self, age: Duration) -> Message {
        let seconds = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let Message { answers, authorities, additionals, .. } = &mut self.message;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            record.ttl = record.ttl.saturating_sub(seconds);
        }
        self.message
    }
}

fn capped(ttl: u32, max: u32) -> u32 {
    if ttl > TTL_MAX { 0 } else { ttl.min(max) }
}

/// How long a denial with this SOA may be kept, in seconds (RFC 2308, 5).
fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

/// Whether there is a record of the type. Aliases that lead to none are no data.
fn has_data(message: &Message, query_type: RecordType) -> bool {
    message.answers.iter().any(|record| query_type == RecordType::ANY || record.record_type() == query_type)
}

/// Whether it names other servers and answers nothing (RFC 2308, 2.2.1): the upstream does not recurse.
fn is_referral(message: &Message) -> bool {
    let has = |wanted| message.authorities.iter().any(|record| record.record_type() == wanted);
    message.metadata.response_code == ResponseCode::NoError
        && message.answers.is_empty()
        && has(RecordType::NS)
        && !has(RecordType::SOA)
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::{
        op::OpCode,
        rr::{
            Name,
            rdata::{A, CNAME, NS, SOA},
        },
    };
    use proptest::prelude::*;

    use super::*;

    const DAY: u32 = 86_400;

    fn record(ttl: u32, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii("www.test.").unwrap(), ttl, data)
    }

    fn address(ttl: u32) -> Record {
        record(ttl, RData::A(A::new(192, 0, 2, 1)))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        record(ttl, RData::SOA(SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, minimum)))
    }

    fn alias(ttl: u32) -> Record {
        record(ttl, RData::CNAME(CNAME(Name::root())))
    }

    fn reply(rcode: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Option<UpstreamAnswer> {
        let mut message = Message::response(0, OpCode::Query);
        message.metadata.response_code = rcode;
        message.answers = answers;
        message.authorities = authorities;
        UpstreamAnswer::new(message, RecordType::A)
    }

    fn seconds(answer: Option<UpstreamAnswer>) -> u64 {
        answer.unwrap().lifetime().as_secs()
    }

    #[test]
    fn answers_denials_and_errors_differ() {
        use ResponseCode::{NXDomain, NoError, NotImp, Refused, ServFail};
        let kind = |answer: Option<UpstreamAnswer>| answer.map(|answer| answer.is_negative());
        assert_eq!(kind(reply(NoError, vec![address(1)], vec![])), Some(false));
        assert_eq!(kind(reply(NoError, vec![alias(1), address(1)], vec![])), Some(false));
        assert_eq!(kind(reply(NoError, vec![alias(1)], vec![])), Some(true));
        assert_eq!(kind(reply(NoError, vec![], vec![soa(1, 1)])), Some(true));
        assert_eq!(kind(reply(NoError, vec![], vec![])), Some(true));
        assert_eq!(kind(reply(NXDomain, vec![alias(1)], vec![])), Some(true));
        let referral = record(1, RData::NS(NS(Name::root())));
        assert_eq!(kind(reply(NoError, vec![], vec![referral])), None, "a referral");
        for error in [ServFail, Refused, NotImp, ResponseCode::FormErr] {
            assert_eq!(kind(reply(error, vec![], vec![])), None, "{error}");
        }
        let mut chaos = address(1);
        chaos.dns_class = DNSClass::CH;
        assert_eq!(kind(reply(NoError, vec![chaos], vec![])), None, "another class");
    }

    #[test]
    fn positive_answers_are_kept_for_a_day_and_negative_ones_for_an_hour_at_most() {
        use ResponseCode::{NXDomain, NoError};
        assert_eq!(seconds(reply(NoError, vec![address(60), address(50)], vec![])), 50);
        assert_eq!(seconds(reply(NoError, vec![address(8 * DAY)], vec![])), u64::from(DAY));
        assert_eq!(seconds(reply(NoError, vec![address(u32::MAX)], vec![])), 0, "a sign bit");
        assert_eq!(seconds(reply(NXDomain, vec![], vec![soa(30, 20)])), 20);
        assert_eq!(seconds(reply(NXDomain, vec![], vec![soa(20, 30)])), 20);
        assert_eq!(seconds(reply(NXDomain, vec![], vec![soa(DAY, DAY)])), 3600);
        assert_eq!(seconds(reply(NXDomain, vec![alias(7)], vec![soa(DAY, DAY)])), 7);
        assert_eq!(seconds(reply(NXDomain, vec![], vec![])), 0, "without SOA");
    }

    #[test]
    fn a_provisional_denial_is_kept_for_seconds() {
        use ResponseCode::{NXDomain, NoError};
        let provisional = |answer: Option<UpstreamAnswer>| {
            let mut answer = answer.unwrap();
            answer.make_provisional();
            answer.lifetime().as_secs()
        };
        assert_eq!(provisional(reply(NXDomain, vec![], vec![soa(DAY, DAY)])), u64::from(PROVISIONAL_TTL_MAX));
        assert_eq!(provisional(reply(NXDomain, vec![], vec![soa(3, DAY)])), 3);
        assert_eq!(provisional(reply(NoError, vec![address(60)], vec![])), 60);
    }

    #[test]
    fn clients_see_the_capped_ttls_less_the_age() {
        let answer = reply(ResponseCode::NoError, vec![address(8 * DAY)], vec![soa(8 * DAY, 1)]).unwrap();
        let aged = answer.aged(Duration::from_secs(100));
        assert_eq!((aged.answers[0].ttl, aged.authorities[0].ttl), (DAY - 100, DAY - 100));
        let denial = reply(ResponseCode::NXDomain, vec![], vec![soa(8 * DAY, 8 * DAY)]).unwrap();
        assert_eq!(denial.aged(Duration::ZERO).authorities[0].ttl, 3600);
    }

    proptest! {
        #[test]
        fn no_ttl_is_above_its_cap(ttls in prop::array::uniform3(any::<u32>()), age in 0..200_000_u64, nx in any::<bool>()) {
            let [answer, authority, minimum] = ttls;
            let rcode = if nx { ResponseCode::NXDomain } else { ResponseCode::NoError };
            let answer = reply(rcode, vec![address(answer)], vec![soa(authority, minimum)]).unwrap();
            let max = if nx { NEGATIVE_TTL_MAX } else { POSITIVE_TTL_MAX };
            prop_assert!(answer.lifetime().as_secs() <= u64::from(max));
            let message = answer.aged(Duration::from_secs(age));
            prop_assert!(message.answers[0].ttl <= POSITIVE_TTL_MAX);
            prop_assert!(message.authorities[0].ttl <= max);
        }
    }
}

//! Answers of upstreams, kept for their TTL.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_server::proto::{op::Message, rr::Name};
use moka::{Expiry, sync::Cache};

use super::{query::UpstreamQuery, reply::UpstreamAnswer};

/// Memory for answers: some twenty thousand of the usual length.
const CACHE_OCTETS_MAX: u64 = 16 << 20;

/// What an answer takes beside its message: the question, and the bookkeeping of the cache.
const ENTRY_OCTETS: u32 = 512;

/// Octets of the largest answer that is kept. One above it is rare, and would displace many others.
const ANSWER_OCTETS_MAX: usize = 4096;

/// The answers. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct AnswerCache(Cache<UpstreamQuery, Arc<CachedAnswer>>);

/// An answer as it came: a parsed message would take several times as much memory.
#[derive(Debug)]
struct CachedAnswer {
    octets: Box<[u8]>,
    since: Instant,
    lifetime: Duration,
}

impl AnswerCache {
    pub(super) fn new() -> Self {
        let weight = |_: &UpstreamQuery, answer: &Arc<CachedAnswer>| {
            u32::try_from(answer.octets.len()).unwrap_or(u32::MAX).saturating_add(ENTRY_OCTETS)
        };
        let cache = Cache::builder().max_capacity(CACHE_OCTETS_MAX).weigher(weight).expire_after(Lifetime).build();
        Self(cache)
    }

    /// Keeps an answer, which came in these octets, if its TTLs and its length allow it.
    pub(super) fn insert(&self, query: UpstreamQuery, answer: &UpstreamAnswer, octets: Vec<u8>, now: Instant) {
        let lifetime = answer.lifetime();
        if lifetime.is_zero() || octets.len() > ANSWER_OCTETS_MAX {
            return;
        }
        self.0.insert(query, Arc::new(CachedAnswer { octets: octets.into(), since: now, lifetime }));
    }

    /// The answer to a question, with what is left of its TTLs.
    pub(super) fn get(&self, query: &UpstreamQuery, now: Instant) -> Option<Message> {
        let cached = self.0.get(query)?;
        let age = now.saturating_duration_since(cached.since);
        if age >= cached.lifetime {
            return None;
        }
        let message = Message::from_vec(&cached.octets).ok()?;
        let mut answer = UpstreamAnswer::new(message, query.query_type())?;
        answer.limit(cached.lifetime);
        Some(answer.aged(age))
    }

    /// Removes the answers for a name and those below it, also where an alias leads there; `None`: all. Returns how many.
    pub(super) fn flush(&self, name: Option<&Name>, now: Instant) -> usize {
        let concerns = |query: &UpstreamQuery, cached: &CachedAnswer| {
            name.is_none_or(|name| name.zone_of(query.name()) || cached.names_within(name))
        };
        let mut removed = 0;
        for (query, cached) in &self.0 {
            let is_current = now.saturating_duration_since(cached.since) < cached.lifetime;
            if concerns(&query, &cached) {
                self.0.invalidate(&*query);
                removed += usize::from(is_current);
            }
        }
        removed
    }
}

impl CachedAnswer {
    fn names_within(&self, name: &Name) -> bool {
        Message::from_vec(&self.octets)
            .is_ok_and(|message| message.answers.iter().any(|record| name.zone_of(&record.name)))
    }
}

/// Entries leave when their lifetime is over.
struct Lifetime;

impl Expiry<UpstreamQuery, Arc<CachedAnswer>> for Lifetime {
    fn expire_after_create(&self, _: &UpstreamQuery, answer: &Arc<CachedAnswer>, _: Instant) -> Option<Duration> {
        Some(answer.lifetime)
    }

    fn expire_after_update(
        &self,
        _: &UpstreamQuery,
        answer: &Arc<CachedAnswer>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(answer.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::{
        op::OpCode,
        rr::{
            RData, Record, RecordType,
            rdata::{A, CNAME, TXT},
        },
    };

    use super::*;

    fn query(name: &str, query_type: u16) -> UpstreamQuery {
        let wire: Vec<_> =
            name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        UpstreamQuery::new(&wire, query_type, false).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// Keeps an answer with this alias, if any, and an address.
    fn insert(cache: &AnswerCache, asked: &str, alias: Option<&str>, ttl: u32, now: Instant) {
        let mut message = Message::response(0, OpCode::Query);
        let owner = alias.unwrap_or(asked);
        if let Some(alias) = alias {
            message.answers.push(Record::from_rdata(name(asked), ttl, RData::CNAME(CNAME(name(alias)))));
        }
        message.answers.push(Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, 1))));
        let octets = message.to_vec().unwrap();
        let query = query(asked, 1);
        let answer = UpstreamAnswer::new(message, query.query_type()).unwrap();
        cache.insert(query, &answer, octets, now);
    }

    #[test]
    fn answers_are_kept_for_their_ttl_and_age() {
        let cache = AnswerCache::new();
        let start = Instant::now();
        insert(&cache, "a.test.", None, 60, start);
        insert(&cache, "none.test.", None, 0, start);
        let ttl = |name, seconds| {
            let message = cache.get(&query(name, 1), start + Duration::from_secs(seconds))?;
            Some(message.answers[0].ttl)
        };
        assert_eq!(ttl("a.test.", 0), Some(60));
        assert_eq!(ttl("a.test.", 59), Some(1));
        assert_eq!(ttl("a.test.", 60), None);
        assert_eq!(ttl("none.test.", 0), None, "TTL 0");
        assert_eq!(ttl("b.test.", 0), None);
    }

    #[test]
    fn a_flush_removes_a_name_and_what_lies_below_and_aliases_to_it() {
        let now = Instant::now();
        let filled = || {
            let cache = AnswerCache::new();
            insert(&cache, "a.test.", None, 60, now);
            insert(&cache, "x.a.test.", None, 60, now);
            insert(&cache, "ba.test.", None, 60, now);
            insert(&cache, "alias.other.", Some("x.A.test."), 60, now);
            cache
        };
        assert_eq!(filled().flush(None, now), 4);
        assert_eq!(filled().flush(Some(&name("A.test.")), now), 3);
        assert_eq!(filled().flush(Some(&name("ba.test.")), now), 1);
        assert_eq!(filled().flush(Some(&name("other.")), now), 1);
        assert_eq!(filled().flush(Some(&name("none.")), now), 0);
        assert_eq!(filled().flush(None, now + Duration::from_secs(60)), 0, "those that are over do not count");
        let cache = filled();
        cache.flush(Some(&name("a.test.")), now);
        assert!(cache.get(&query("a.test.", 1), now).is_none());
        assert!(cache.get(&query("alias.other.", 1), now).is_none());
        assert!(cache.get(&query("ba.test.", 1), now).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let cache = AnswerCache::new();
        let now = Instant::now();
        let mut message = Message::response(0, OpCode::Query);
        let text = TXT::new(vec!["x".repeat(250); 14]);
        message.answers.push(Record::from_rdata(name("long.test."), 60, RData::TXT(text)));
        let answer = UpstreamAnswer::new(message.clone(), RecordType::TXT).unwrap();
        let octets = message.to_vec().unwrap();
        let count = CACHE_OCTETS_MAX / 3500 + 1000;
        for number in 0..count {
            cache.insert(query(&format!("n{number}.test."), 16), &answer, octets.clone(), now);
        }
        cache.0.run_pending_tasks();
        assert!(cache.0.weighted_size() <= CACHE_OCTETS_MAX);
        assert!(cache.0.entry_count() > count / 2);
        message.answers.push(message.answers[0].clone());
        let octets = message.to_vec().unwrap();
        cache.insert(query("huge.test.", 16), &answer, octets, now);
        assert!(cache.get(&query("huge.test.", 16), now).is_none(), "too long");
    }
}

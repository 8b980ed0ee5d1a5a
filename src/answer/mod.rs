//! How what is known is told: octets in, octets out, no socket.
//!
//! A message passes three rooms. [`query`] reads it and owns silence, FORMERR, NOTIMP and BADVERS. [`resolve()`] looks
//! at the table and owns every other rcode; it is a function in the strict sense. [`complete`] writes the verdict, with
//! nodes that a [`Dealer`] deals: chance is an argument. [`answer`] is the door: every transport goes through it.

pub mod complete;
mod deck;
pub mod query;
pub mod resolve;
#[cfg(test)]
mod tests;

pub use self::{
    complete::UDP_OCTETS_MAX,
    deck::Dealer,
    query::{Parsed, Query, parse},
    resolve::{Verdict, resolve},
};
use crate::{
    metrics::{ProcessCounters, QueryType, Transport},
    table::ZoneTable,
};

/// Answers one message into `out` and counts it. `false`: there is no reply, and `out` is empty.
///
/// `dealer` chooses the nodes and their order. It deals evenly over all questions that it is given, so each worker
/// keeps one for as long as it works.
#[must_use]
pub fn answer(
    table: &ZoneTable,
    counters: &ProcessCounters,
    message: &[u8],
    transport: Transport,
    dealer: &mut Dealer,
    out: &mut Vec<u8>,
) -> bool {
    match parse(message) {
        Parsed::Query(query) => {
            dealer.tidy(table);
            let verdict = resolve(table, &query);
            let queries = verdict.zone.as_ref().map_or(&counters.strays, |zone| &zone.entry.counters().queries);
            queries.of(resolve::label(query.query_type), verdict.rcode(), transport).increment();
            complete::render(&query, &verdict, transport, dealer, out);
            true
        }
        Parsed::Reject(reject) => {
            counters.strays.of(QueryType::Other, reject.rcode, transport).increment();
            complete::render_reject(&reject, out);
            true
        }
        Parsed::Ignore(reason) => {
            counters.ignored.of(reason as usize).increment();
            out.clear();
            false
        }
    }
}

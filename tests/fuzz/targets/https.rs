//! The query of a GET request to DNS over HTTPS: what is in it is answered as it is over TCP.

#![no_main]

use alternator_dns::{answer::wire::smallest_ttl, metrics::Transport, server::query_parameter};
use alternator_dns_fuzz::{answered, check_outcome};
use libfuzzer_sys::fuzz_target;

/// Octets of a message in a request.
const OCTETS_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Ok(query) = std::str::from_utf8(input) else { return };
    let Some(message) = query_parameter(query) else { return };
    assert!(message.len() <= OCTETS_MAX, "a message of {} octets was taken", message.len());
    let reply = answered(&message, Transport::Https);
    check_outcome(&message, reply.as_deref(), Transport::Https);
    if let Some(reply) = reply {
        let day = 24 * 60 * 60;
        assert!(smallest_ttl(&reply).is_none_or(|ttl| ttl <= day), "no record here holds for longer");
    }
});

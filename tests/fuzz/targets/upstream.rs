//! A reply of an upstream: whatever is in it, the client gets a reply to its own question.
//!
//! The message is written anew, so that a reply can be longer, or impossible to write, where the message was not.

#![no_main]

use alternator_dns::{answer::UpstreamOutcome, forward::read_reply, metrics::Transport};
use alternator_dns_fuzz::{check_reply, forwarded};
use hickory_server::proto::op::{Message, Metadata, OpCode, ResponseCode};
use libfuzzer_sys::fuzz_target;

/// `uPstream.example. A`, once without and once with an OPT that offers 1232 octets.
const PLAIN: &[u8] = b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0\0\x08uPstream\x07example\0\0\x01\0\x01";
const WITH_OPT: &[u8] =
    b"\xAB\xCD\x01\0\0\x01\0\0\0\0\0\x01\x08uPstream\x07example\0\0\x01\0\x01\0\0\x29\x04\xD0\0\0\0\0\0\0";

/// The question's name and type.
const NAME: &[u8] = b"\x08upstream\x07example\0";
const TYPE_A: u16 = 1;

/// TTLs are at most a day.
const TTL_MAX: u32 = 86_400;

fuzz_target!(|reply: &[u8]| {
    if let Some(answer) = read_reply(NAME, TYPE_A, reply) {
        assert!(answer.all_sections().all(|record| record.ttl <= TTL_MAX));
        assert!(answer.queries.iter().any(|query| query.query_type() == TYPE_A.into()), "it replies to the question");
    }
    let Ok(message) = Message::from_vec(reply) else { return };
    // Of any other rcode only the client's SERVFAIL remains. And in an update a record may lack its data, which the parser
    // that reads the reply back rejects.
    let Metadata { response_code, op_code, .. } = message.metadata;
    if !matches!(response_code, ResponseCode::NoError | ResponseCode::NXDomain) || op_code == OpCode::Update {
        return;
    }
    let outcome = UpstreamOutcome::Message(Box::new(message));
    for (question, transport) in [(PLAIN, Transport::Udp), (WITH_OPT, Transport::Udp), (WITH_OPT, Transport::Tcp)] {
        let reply = forwarded(question, transport, &outcome).expect("every question gets a reply");
        check_reply(question, &reply, transport);
    }
});

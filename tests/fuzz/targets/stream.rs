//! A TCP connection: however its octets arrive, the same messages get the same replies.
//!
//! The first octet of the input says how many sizes follow it. The rest arrives in pieces of these sizes, in turn.

#![no_main]

use alternator_dns::{metrics::Transport, server::framing};
use alternator_dns_fuzz::{answered, check_outcome};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use tokio_util::codec::{Decoder, Encoder};

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(count)) else { return };
    let exchanges = exchange(&[stream]);
    assert_eq!(exchange(&pieces(sizes, stream)), exchanges, "pieces get the same replies as the whole");
    for (message, reply) in &exchanges {
        check_outcome(message, reply.as_deref(), Transport::Tcp);
    }
    let replies: Vec<_> = exchanges.into_iter().filter_map(|(_, reply)| reply).collect();
    assert_eq!(received(&replies), replies, "the client receives what was sent");
});

fn pieces<'s>(sizes: &[u8], mut stream: &'s [u8]) -> Vec<&'s [u8]> {
    let mut pieces = Vec::new();
    // A read of no octets would be the end of the connection.
    for size in sizes.iter().cycle().map(|&size| usize::from(size).max(1)) {
        let Some((piece, rest)) = stream.split_at_checked(size) else { break };
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

/// The messages of a connection with their replies, up to the first that gets none.
fn exchange(pieces: &[&[u8]]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut codec = framing();
    let mut unread = BytesMut::new();
    let mut exchanges = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        while let Some(message) = codec.decode(&mut unread).expect("no message of sixteen bits is too long") {
            let reply = answered(&message, Transport::Tcp);
            let is_last = reply.is_none();
            exchanges.push((message.to_vec(), reply));
            if is_last {
                return exchanges;
            }
        }
    }
    exchanges
}

/// The replies after they were framed and read again.
fn received(replies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut codec = framing();
    let mut wire = BytesMut::new();
    for reply in replies {
        codec.encode(Bytes::from(reply.clone()), &mut wire).expect("a reply fits in a frame");
    }
    let decoded = std::iter::from_fn(|| codec.decode(&mut wire).expect("what was framed can be read"));
    decoded.map(|message| message.to_vec()).collect()
}

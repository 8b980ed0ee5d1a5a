//! A body of `/localnodes`: whatever a node sends, only addresses of hosts come out, and not too many.

#![no_main]

use std::net::IpAddr;

use alternator_dns::{
    discovery::node::{BODY_OCTETS_MAX, Dropped, ListError, Listing, NODES_MAX, parse},
    types::{canonical, is_publishable},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| match parse(body) {
    Ok(listing) => check_list(&listing),
    Err(ListError::Malformed { at }) => assert!(at <= body.len(), "the place {at} lies outside the body"),
    Err(ListError::TooLarge) => assert!(body.len() > BODY_OCTETS_MAX),
    Err(ListError::Empty | ListError::Useless) => {}
});

fn check_list(listing: &Listing) {
    let nodes = listing.nodes.as_slice();
    assert!((1..=NODES_MAX).contains(&nodes.len()), "{} nodes", nodes.len());
    assert!(nodes.is_sorted_by(|a, b| a < b), "each node once, in order");
    for node in nodes {
        assert!(is_publishable(*node) && canonical(*node) == *node, "{node} is no host's own address");
    }
    assert_eq!(
        parse(written(nodes).as_bytes()).as_ref(),
        Ok(&Listing { dropped: Dropped::default(), ..listing.clone() })
    );
}

/// The list as a node writes it.
fn written(nodes: &[IpAddr]) -> String {
    serde_json::to_string(nodes).expect("addresses have a text")
}

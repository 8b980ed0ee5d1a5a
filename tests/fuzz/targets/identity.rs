//! An answer to the identity query: whatever a node sends, only an id comes out that can be written and read again.

#![no_main]

use alternator_dns::{
    discovery::node::{IDENTITY_OCTETS_MAX, UnknownIdentity, parse_identity},
    types::ClusterId,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| match parse_identity(body) {
    Ok(id) => check_id(id),
    Err(UnknownIdentity::TooLarge) => assert!(body.len() > IDENTITY_OCTETS_MAX),
    Err(UnknownIdentity::NoRow | UnknownIdentity::NoValue | UnknownIdentity::NotUuid | UnknownIdentity::Malformed) => {}
    Err(other) => panic!("{other} is not a matter of the body"),
});

fn check_id(id: ClusterId) {
    assert_ne!(id.octets(), [0; 16], "no cluster has the nil UUID");
    assert_eq!(ClusterId::parse(&id.to_string()), Ok(id));
    assert_eq!(parse_identity(written(id).as_bytes()), Ok(id));
}

/// The answer as a node writes it.
fn written(id: ClusterId) -> String {
    let row = serde_json::json!({ "key": { "S": "raft_group0_id" }, "value": { "S": id.to_string() } });
    serde_json::json!({ "Items": [row], "Count": 1, "ScannedCount": 1 }).to_string()
}

//! What a node's answer to the identity query says: status and octets in, the id of its cluster out.

use serde::Deserialize;

use crate::types::ClusterId;

/// The key of the row that has the id.
pub const ROW_KEY: &str = "raft_group0_id";

/// The largest body that is read. An answer has some 150 octets; an error names what is missing, in a sentence.
pub const IDENTITY_OCTETS_MAX: usize = 16 << 10;

/// Characters in the kind of an error. The longest that is known has 40.
const KIND_CHARS_MAX: usize = 80;

/// The lowest and the highest status of a refusal: the request is at fault, not the node.
const REFUSALS: std::ops::RangeInclusive<u16> = 400..=499;

/// What a node says of its cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentityReply {
    /// Its cluster has this id.
    Id(ClusterId),
    /// Its cluster has no id, or this node does not tell it.
    Unknown(UnknownIdentity),
    /// It refuses to answer this query, and so does the rest of its cluster, probably.
    Refused(Refusal),
}

/// Why a node's cluster is not known. Each reads as the end of a sentence that starts with the node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnknownIdentity {
    /// A cluster without raft, as before ScyllaDB 5.2.
    #[error("has no {ROW_KEY} in system.scylla_local")]
    NoRow,
    /// There is a row without a value.
    #[error("has a {ROW_KEY} without a value")]
    NoValue,
    /// The value is no UUID, or the nil UUID.
    #[error("has a {ROW_KEY} that is no UUID")]
    NotUuid,
    /// The body is no answer of Alternator.
    #[error("sent a body that is no answer to a Query")]
    Malformed,
    /// The body has more than [`IDENTITY_OCTETS_MAX`] octets.
    #[error("sent a body of more than {IDENTITY_OCTETS_MAX} bytes")]
    TooLarge,
    /// An HTTP status other than 200 and 400 to 499.
    #[error("answered {0}")]
    Status(u16),
    /// No complete answer in time, or none at all; the sentence says why.
    #[error("{0}")]
    NoAnswer(String),
    /// The query could not be signed, or this host lacks what it needs to send it; the sentence says why.
    #[error("was not asked: {0}")]
    NotAsked(String),
}

/// A refusal: an HTTP status from 400 to 499.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{status}{}{kind}", if kind.is_empty() { "" } else { " " })]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The kind of the error, such as `AccessDeniedException`; empty when the body names none.
    pub kind: String,
}

/// The part of an answer to `Query` that is read.
#[derive(Deserialize)]
struct QueryOutput {
    #[serde(rename = "Items")]
    items: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    key: Option<Attribute>,
    value: Option<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "S")]
    text: Option<String>,
}

/// The part of an error that is read.
#[derive(Deserialize)]
struct ErrorOutput {
    #[serde(rename = "__type")]
    kind: String,
}

impl IdentityReply {
    /// The id, if the node gave one.
    pub fn id(&self) -> Option<ClusterId> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Unknown(_) | Self::Refused(_) => None,
        }
    }

    /// Reads an answer; `body` is `None` when it was larger than [`IDENTITY_OCTETS_MAX`].
    pub fn read(status: u16, body: Option<&[u8]>) -> Self {
        match status {
            200 => match body.map_or(Err(UnknownIdentity::TooLarge), parse_identity) {
                Ok(id) => Self::Id(id),
                Err(unknown) => Self::Unknown(unknown),
            },
            status if REFUSALS.contains(&status) => {
                Self::Refused(Refusal { status, kind: body.map(kind).unwrap_or_default() })
            }
            status => Self::Unknown(UnknownIdentity::Status(status)),
        }
    }
}

/// Reads the body of an answer with status 200.
///
/// # Errors
/// Anything but an answer to `Query` with a row that has the id.
pub fn parse_identity(body: &[u8]) -> Result<ClusterId, UnknownIdentity> {
    if body.len() > IDENTITY_OCTETS_MAX {
        return Err(UnknownIdentity::TooLarge);
    }
    let QueryOutput { items } = serde_json::from_slice(body).map_err(|_| UnknownIdentity::Malformed)?;
    let text = |attribute: Option<Attribute>| attribute.and_then(|attribute| attribute.text);
    // The query names the key, so a row without one is the row; a row with another key is not.
    let row = items.into_iter().map(|row| (text(row.key), text(row.value)));
    let mut row = row.filter(|(key, _)| key.as_deref().is_none_or(|key| key == ROW_KEY));
    let (_, value) = row.next().ok_or(UnknownIdentity::NoRow)?;
    ClusterId::parse(&value.ok_or(UnknownIdentity::NoValue)?).map_err(|_| UnknownIdentity::NotUuid)
}

/// The kind of an error, without the name of the service; letters only, because it goes into log lines.
fn kind(body: &[u8]) -> String {
    let Ok(ErrorOutput { kind }) = serde_json::from_slice(body) else { return String::new() };
    let name = kind.rsplit('#').next().unwrap_or_default();
    name.chars().filter(char::is_ascii_alphabetic).take(KIND_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "2f0c6a1e-5d3b-11f0-8de9-0242ac120002";

    fn unknown(body: &str) -> UnknownIdentity {
        parse_identity(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn the_id_is_found_in_any_order_and_beside_other_members() {
        for body in [
            format!(r#"{{"Items":[{{"key":{{"S":"{ROW_KEY}"}},"value":{{"S":"{ID}"}}}}],"Count":1,"ScannedCount":1}}"#),
            format!(r#"{{"ScannedCount":1,"Items":[{{"value":{{"S":"{ID}"}},"key":{{"S":"{ROW_KEY}"}}}}]}}"#),
            format!(r#"{{"X":[{{}}],"Items":[{{"a":{{"N":"1"}},"value":{{"S":"{ID}"}}}}]}}"#),
            format!(r#"{{"Items":[{{"key":{{"S":"other"}}}},{{"key":{{"S":"{ROW_KEY}"}},"value":{{"S":"{ID}"}}}}]}}"#),
            format!(r#"{{"Items":[{{"value":{{"S":"{}"}}}}]}}"#, ID.replacen('-', "\\u002d", 1)),
        ] {
            assert_eq!(parse_identity(body.as_bytes()).unwrap().to_string(), ID, "{body}");
        }
    }

    #[test]
    fn an_answer_without_an_id_says_why() {
        assert_eq!(unknown(r#"{"Items":[],"Count":0,"ScannedCount":0}"#), UnknownIdentity::NoRow);
        assert_eq!(unknown(r#"{"Items":[{"key":{"S":"other"},"value":{"S":"x"}}]}"#), UnknownIdentity::NoRow);
        assert_eq!(unknown(r#"{"Items":[{"key":{"S":"raft_group0_id"}}]}"#), UnknownIdentity::NoValue);
        assert_eq!(unknown(r#"{"Items":[{"value":{"N":"7"}}]}"#), UnknownIdentity::NoValue);
        assert_eq!(unknown(r#"{"Items":[{"value":{"S":"yes"}}]}"#), UnknownIdentity::NotUuid);
        let nil = "00000000-0000-0000-0000-000000000000";
        assert_eq!(unknown(&format!(r#"{{"Items":[{{"value":{{"S":"{nil}"}}}}]}}"#)), UnknownIdentity::NotUuid);
        let whole = format!(r#"{{"Items":[{{"value":{{"S":"{ID}"}}}}]}}"#);
        for body in ["", "null", "[]", "{}", "{\"Items\":7}", "{\"Items\":[7]}", &whole[..40], &format!("{whole}x")] {
            assert_eq!(unknown(body), UnknownIdentity::Malformed, "{body}");
        }
        assert_eq!(unknown(&"[".repeat(10_000)), UnknownIdentity::Malformed);
        assert_eq!(unknown(&" ".repeat(IDENTITY_OCTETS_MAX + 1)), UnknownIdentity::TooLarge);
    }

    #[test]
    fn a_status_from_400_to_499_is_a_refusal_of_its_kind() {
        let error = br#"{"__type":"com.amazonaws.dynamodb.v20120810#AccessDeniedException","message":"no"}"#;
        let IdentityReply::Refused(refusal) = IdentityReply::read(400, Some(error)) else { panic!("it is a refusal") };
        assert_eq!(refusal.to_string(), "400 AccessDeniedException");
        let refused = |kind: &str, status| IdentityReply::Refused(Refusal { status, kind: kind.into() });
        assert_eq!(IdentityReply::read(403, None), refused("", 403));
        assert_eq!(IdentityReply::read(499, Some(b"<html>")), refused("", 499));
        assert_eq!(IdentityReply::read(400, Some(br#"{"__type":"A\n\u001bB"}"#)), refused("AB", 400));
        let long = format!(r#"{{"__type":"{}"}}"#, "x".repeat(10_000));
        assert_eq!(IdentityReply::read(400, Some(long.as_bytes())), refused(&"x".repeat(KIND_CHARS_MAX), 400));
        for status in [201, 302, 500, 503] {
            assert_eq!(
                IdentityReply::read(status, Some(error)),
                IdentityReply::Unknown(UnknownIdentity::Status(status))
            );
        }
        assert_eq!(IdentityReply::read(200, None), IdentityReply::Unknown(UnknownIdentity::TooLarge));
    }

    proptest! {
        #[test]
        fn no_octets_can_break_the_parser(status: u16, octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = IdentityReply::read(status, Some(&octets));
        }

        #[test]
        fn nor_can_anything_that_looks_like_an_answer(
            text in r#"\{"Items":\[(\{("(key|value)":\{"S":("raft_group0_id"|"[0-9a-f-]{36}"|null|7)\},?){0,3}\},?){0,3}[\]}]{0,3}"#,
        ) {
            let _ = parse_identity(text.as_bytes());
        }

        #[test]
        fn every_id_that_is_written_comes_back(octets: [u8; 16]) {
            prop_assume!(octets != [0; 16]);
            let id = ClusterId::new(octets).unwrap();
            let body = serde_json::json!({ "Items": [{ "key": { "S": ROW_KEY }, "value": { "S": id } }], "Count": 1 });
            prop_assert_eq!(parse_identity(body.to_string().as_bytes()), Ok(id));
        }

        #[test]
        fn the_kind_of_an_error_is_a_short_word(kind: String) {
            let body = serde_json::json!({ "__type": kind }).to_string();
            let IdentityReply::Refused(refusal) = IdentityReply::read(400, Some(body.as_bytes())) else { panic!() };
            prop_assert!(refusal.kind.len() <= KIND_CHARS_MAX);
            prop_assert!(refusal.kind.bytes().all(|octet| octet.is_ascii_alphabetic()));
        }
    }
}

//! The parser of `/localnodes`: octets in, addresses out.

use std::{fmt, net::IpAddr};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    metrics::{DropReason, Label},
    types::{NodeSet, canonical, is_publishable},
};

/// The largest body that is read, 1 MiB: twenty thousand IPv6 addresses, and no cluster has a thousand nodes.
pub const BODY_OCTETS_MAX: usize = 1 << 20;

/// Nodes that one list may have: more than the largest datacenter that is known, and few enough that each of them may be
/// compared with all others at every probe without a delay for other zones.
pub const NODES_MAX: usize = 1000;

/// A usable list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// The nodes that it names.
    pub nodes: NodeSet,
    /// The entries that were dropped.
    pub dropped: Dropped,
}

/// How many entries of a list were left out, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped([u64; DropReason::ALL.len()]);

impl Dropped {
    /// Each reason with its number, which may be 0.
    pub fn iter(self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().map(move |&reason| (reason, self.0[reason.index()]))
    }

    fn add(&mut self, reason: DropReason) {
        self.0[reason.index()] += 1;
    }
}

/// Why a body is no usable list. Each reads as the end of a sentence that starts with the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ListError {
    /// It is not a JSON array, or not only that.
    #[error("sent a body that is not a JSON array (at byte {at})")]
    Malformed {
        /// Where that shows, counted from 0.
        at: usize,
    },
    /// It is larger than [`BODY_OCTETS_MAX`].
    #[error("sent a body of more than {BODY_OCTETS_MAX} bytes")]
    TooLarge,
    /// The array is empty: the node knows no node in the location that it was asked for.
    #[error("lists no node")]
    Empty,
    /// There are entries, and none is an address that can be published.
    #[error("lists nothing that could be a node")]
    Useless,
}

/// Reads the body of a `/localnodes` answer.
/// Of more than [`NODES_MAX`] nodes the first are taken.
///
/// # Errors
/// Anything but one JSON array in UTF-8 with at least one publishable address.
pub fn parse(body: &[u8]) -> Result<Listing, ListError> {
    if body.len() > BODY_OCTETS_MAX {
        return Err(ListError::TooLarge);
    }
    // All of it must be UTF-8, including what the JSON parser would skip.
    let text = std::str::from_utf8(body).map_err(|error| ListError::Malformed { at: error.valid_up_to() })?;
    let Entries { nodes, dropped } =
        serde_json::from_str(text).map_err(|error| ListError::Malformed { at: place(body, &error) })?;
    let nothing = if dropped == Dropped::default() { ListError::Empty } else { ListError::Useless };
    let nodes = NodeSet::new(nodes).ok_or(nothing)?;
    Ok(Listing { nodes, dropped })
}

/// Where in the body the parser stopped. It gives line and column, both from 1, and column 0 for the line's start.
fn place(body: &[u8], error: &serde_json::Error) -> usize {
    let before: usize = body.split_inclusive(|&octet| octet == b'\n').take(error.line() - 1).map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(body.len())
}

/// The array, sorted into addresses and the rest.
#[derive(Default)]
struct Entries {
    nodes: Vec<IpAddr>,
    dropped: Dropped,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_seq(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(Entry(entry)) = array.next_element()? {
            match entry {
                Ok(_) if entries.nodes.len() >= NODES_MAX => entries.dropped.add(DropReason::TooMany),
                Ok(node) => entries.nodes.push(node),
                Err(reason) => entries.dropped.add(reason),
            }
        }
        Ok(entries)
    }
}

/// One element of the array. Anything but a string is skipped, however deep, without being kept.
struct Entry(Result<IpAddr, DropReason>);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(EntryVisitor)
    }
}

impl Entry {
    const NOT_TEXT: Self = Self(Err(DropReason::NotText));
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
        // The standard parser takes plain addresses only: no port, brackets, zone id, blanks or leading zeros.
        Ok(Entry(match text.parse::<IpAddr>().map(canonical) {
            Ok(node) if is_publishable(node) => Ok(node),
            Ok(_) => Err(DropReason::NotPublishable),
            Err(_) => Err(DropReason::NotAddress),
        }))
    }

    fn visit_unit<E>(self) -> Result<Entry, E> {
        Ok(Entry::NOT_TEXT)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Entry, E> {
        Ok(Entry::NOT_TEXT)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Entry, E> {
        Ok(Entry::NOT_TEXT)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Entry, E> {
        Ok(Entry::NOT_TEXT)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Entry, E> {
        Ok(Entry::NOT_TEXT)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Entry, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Entry::NOT_TEXT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Entry::NOT_TEXT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(body: &str) -> Vec<String> {
        let listing = parse(body.as_bytes()).unwrap();
        listing.nodes.as_slice().iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn more_nodes_than_a_cluster_can_have_are_left_out() {
        let entries = (0..NODES_MAX + 5).map(|n| format!("\"10.{}.{}.{}\"", n >> 16, n >> 8 & 255, n & 255));
        let listing = parse(format!("[{}]", entries.collect::<Vec<_>>().join(",")).as_bytes()).unwrap();
        assert_eq!((listing.nodes.as_slice().len(), listing.dropped.0), (NODES_MAX, [0, 0, 0, 5]));
    }

    fn dropped(body: &str) -> [u64; 4] {
        parse(body.as_bytes()).unwrap().dropped.0
    }

    #[test]
    fn lists_are_read_in_any_order_and_any_spelling() {
        assert_eq!(nodes(r#"["127.0.0.2","127.0.0.1","127.0.0.3"]"#), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
        assert_eq!(nodes(r#"["2001:db8::2","2001:DB8:0::1"]"#), ["2001:db8::1", "2001:db8::2"]);
        assert_eq!(nodes(r#"["10.0.0.1","2001:db8::1","::ffff:10.0.0.9"]"#), ["10.0.0.1", "10.0.0.9", "2001:db8::1"]);
        assert_eq!(nodes(r#"["127.0.0.0","127.0.0.0"]"#), ["127.0.0.0"]);
        assert_eq!(nodes(" [ \"10.0.0.1\" ,\n \"10.0.0.2\" ]\n"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(nodes(r#"["10\u002e0.0.1"]"#), ["10.0.0.1"]);
    }

    #[test]
    fn entries_that_are_no_address_are_counted_and_left_out() {
        assert_eq!(dropped(r#"["10.0.0.1","0b1c2d3e-1111-4222-8333-444455556666"]"#), [0, 1, 0, 0]);
        let odd = r#"["10.0.0.1:8000","[2001:db8::1]","fe80::1%eth0","010.0.0.1","1.2.3","10.0.0.1 ","","10.0.0.2"]"#;
        assert_eq!((nodes(odd), dropped(odd)), (vec!["10.0.0.2".into()], [0, 7, 0, 0]));
        assert_eq!(dropped(r#"["10.0.0.1",null,7,-7,1.5,true,["x",["10.0.0.2"]],{"a":"10.0.0.3"}]"#), [7, 0, 0, 0]);
        let never = r#"["0.0.0.0","255.255.255.255","224.0.0.1","::","ff02::1","::ffff:0.0.0.0","10.0.0.1"]"#;
        assert_eq!((nodes(never), dropped(never)), (vec!["10.0.0.1".into()], [0, 0, 6, 0]));
    }

    #[test]
    fn what_is_no_array_is_refused_with_its_place() {
        let refusal = |body: &[u8]| parse(body).unwrap_err();
        for body in [&b""[..], b"null", b"{}", b"\"10.0.0.1\"", b"42", b"<html>"] {
            assert!(matches!(refusal(body), ListError::Malformed { .. }), "{body:?}");
        }
        for (body, place) in [
            (&b"[\"10.0.0.1\","[..], 11),
            (b"[\"10.0.0.1\"] x", 13),
            (b"[\"10.0.0.1\",\n x]", 14),
            (b"[\"10.0.0.1\"]\0", 12),
            (b"\xef\xbb\xbf[\"10.0.0.1\"]", 0),
            (b"[\"10.0.0.1\",[\"\xff\"]]", 14),
        ] {
            let ListError::Malformed { at } = refusal(body) else { panic!("{body:?} must be malformed") };
            assert!(at.abs_diff(place) <= 1, "{body:?} stops at {at}, not near {place}");
        }
        assert!(matches!(refusal("[".repeat(100_000).as_bytes()), ListError::Malformed { .. }));
        assert_eq!(refusal(b"[]"), ListError::Empty);
        assert_eq!(refusal(b"[\"localhost\", null]"), ListError::Useless);
        assert_eq!(refusal(&vec![b' '; BODY_OCTETS_MAX + 1]), ListError::TooLarge);
    }

    proptest! {
        #[test]
        fn no_octets_make_the_parser_panic(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&octets);
        }

        #[test]
        fn no_text_like_a_list_makes_the_parser_panic(text in r#"[\[\]{}",:0-9a-fu\\ \n.tln-]{0,60}"#) {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn all_written_addresses_are_parsed(written in prop::collection::vec(any::<IpAddr>(), 1..50)) {
            let body = serde_json::to_vec(&written).unwrap();
            let publishable = written.into_iter().map(canonical).filter(|&node| is_publishable(node));
            prop_assert_eq!(parse(&body).ok().map(|listing| listing.nodes), NodeSet::new(publishable));
        }

        #[test]
        fn a_list_that_is_accepted_can_be_written_and_read_again(
            entries in prop::collection::vec("\"[0-9a-f:.]{0,12}\"|\"(10|224|0)\\.0\\.[0-9]{1,2}\\.[01]\"|null|\\[\\]|-?[0-9]{1,3}", 0..9),
        ) {
            if let Ok(Listing { nodes, .. }) = parse(format!("[{}]", entries.join(",")).as_bytes()) {
                prop_assert!(nodes.as_slice().iter().all(|&node| is_publishable(node)));
                let again = parse(&serde_json::to_vec(nodes.as_slice()).unwrap());
                prop_assert_eq!(again, Ok(Listing { nodes, dropped: Dropped::default() }));
            }
        }
    }
}

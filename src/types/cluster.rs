//! What names a cluster: the id that its nodes give, and the label that the operator gives it.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

/// Octets in a label: it is shown beside names of zones, in log lines and on the status page.
pub const CLUSTER_LABEL_OCTETS_MAX: usize = 64;

/// Octets in the text of a UUID: five groups of hexadecimal digits, and the hyphens between them (RFC 9562, 4).
const UUID_TEXT_OCTETS: usize = 36;

/// Where the hyphens of a UUID are.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The UUID that a cluster made when it formed its first raft group (`raft_group0_id`). It is never the nil UUID, which
/// stands for no id.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterId([u8; 16]);

/// Why a text is no id of a cluster. Each message continues a sentence that begins with the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClusterIdError {
    #[error("is no UUID, such as \"2f0c6a1e-5d3b-11f0-8de9-0242ac120002\"")]
    NotUuid,
    #[error("is the nil UUID, which no cluster has")]
    Nil,
}

impl ClusterId {
    /// `None` for the nil UUID.
    pub const fn new(octets: [u8; 16]) -> Option<Self> {
        if u128::from_be_bytes(octets) == 0 { None } else { Some(Self(octets)) }
    }

    /// Parses a UUID with hyphens, in upper or lower case.
    ///
    /// # Errors
    /// The text is no UUID, or the nil UUID.
    pub fn parse(text: &str) -> Result<Self, ClusterIdError> {
        if text.len() != UUID_TEXT_OCTETS {
            return Err(ClusterIdError::NotUuid);
        }
        let mut number = 0_u128;
        for (place, character) in text.char_indices() {
            if UUID_HYPHENS.contains(&place) {
                if character != '-' {
                    return Err(ClusterIdError::NotUuid);
                }
                continue;
            }
            let digit = character.to_digit(16).ok_or(ClusterIdError::NotUuid)?;
            number = number << 4 | u128::from(digit);
        }
        Self::new(number.to_be_bytes()).ok_or(ClusterIdError::Nil)
    }

    /// The octets, in the order of the text.
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for ClusterId {
    /// In lower case, with hyphens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&groups.join("-"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The operator's word for a cluster: zones with the same label are zones of one cluster.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterLabel(Arc<str>);

impl ClusterLabel {
    /// `None` unless the text is 1 to [`CLUSTER_LABEL_OCTETS_MAX`] printable ASCII characters.
    pub fn parse(text: &str) -> Option<Self> {
        let is_printable = text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic());
        let is_short = (1..=CLUSTER_LABEL_OCTETS_MAX).contains(&text.len());
        (is_printable && is_short).then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_read_in_any_case_and_written_in_lower_case() {
        let id = ClusterId::parse("2F0C6A1E-5d3b-11F0-8de9-0242AC120002").unwrap();
        assert_eq!(id.to_string(), "2f0c6a1e-5d3b-11f0-8de9-0242ac120002");
        assert_eq!(format!("{id:?}"), id.to_string());
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(id.octets()[..3], [0x2f, 0x0c, 0x6a]);
    }

    #[test]
    fn what_is_no_uuid_is_refused() {
        for text in [
            "",
            "2f0c",
            "2f0c6a1e5d3b11f08de90242ac120002",
            "{2f0c6a1e-5d3b-11f0-8de9-0242ac1200}",
            "2f0c6a1e-5d3b-11f0-8de9-0242ac12000g",
            "2f0c6a1e-5d3b-11f0-8de9_0242ac120002",
            "2f0c6a1-e5d3b-11f0-8de9-0242ac120002",
            "+f0c6a1e-5d3b-11f0-8de9-0242ac120002",
            "\u{e9}f0c6a1e-5d3b-11f0-8de9-0242ac12000",
        ] {
            assert_eq!(ClusterId::parse(text), Err(ClusterIdError::NotUuid), "{text}");
        }
        assert_eq!(ClusterId::parse("00000000-0000-0000-0000-000000000000"), Err(ClusterIdError::Nil));
        assert_eq!(ClusterId::new([0; 16]), None);
    }

    #[test]
    fn a_label_is_short_and_printable() {
        assert_eq!(ClusterLabel::parse("prod 1").unwrap().to_string(), "prod 1");
        for text in ["", "a\n", "\u{e9}", &"a".repeat(CLUSTER_LABEL_OCTETS_MAX + 1)] {
            assert_eq!(ClusterLabel::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_comes_back_from_its_text(octets: [u8; 16]) {
            prop_assume!(octets != [0; 16]);
            let id = ClusterId::new(octets).unwrap();
            prop_assert_eq!(ClusterId::parse(&id.to_string()), Ok(id));
            prop_assert_eq!(ClusterId::parse(&id.to_string().to_uppercase()), Ok(id));
        }

        #[test]
        fn no_text_can_break_the_parser(text in "([0-9a-fA-F-]{36})|([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-g]{12})|\\PC{0,40}") {
            if let Ok(id) = ClusterId::parse(&text) {
                prop_assert_eq!(id.to_string(), text.to_lowercase());
            }
        }
    }
}

//! `nodes.json` as text: what was known of each zone. Pure; it neither reads nor writes a file.
//!
//! One zone a line, so that people can read it. The checksum at the end covers every octet before it, so that a file that
//! was cut short, or in which a bit has changed, is not used: a wrong address is worse than none.

use std::{
    collections::BTreeMap,
    fmt::Write,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::Deserialize;

use super::ClusterNodes;
use crate::{
    config,
    types::{ClusterId, NodeSet, ZoneName, is_publishable},
};

/// The largest file that is read, and so the largest that is written. Ten thousand zones of three nodes take 1.7 MB;
/// this allows for forty times as much, and bounds the memory for a file that is not ours.
pub(super) const FILE_OCTETS_MAX: u64 = 64 << 20;

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The most nodes that a `/localnodes` body can name: it has at most 1 MiB, and `"1.2.3.4",` takes ten octets.
const NODES_MAX: usize = (1 << 20) / 10;

/// Says what the file is to a person who opens it.
const ABOUT: &str = "The last known nodes of each zone. Written by alternator-dns, read when it starts; do not edit.";

/// Parts the text that the checksum covers from the checksum.
const CHECKSUM: &str = "\n\"checksum\": \"";

/// What follows the checksum.
const END: &str = "\"\n}\n";

/// The last second that can be written with four digits for the year.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// What was known of one zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Identifies the cluster.
    pub fingerprint: u64,
    /// Identifies the seeds.
    pub seeds: u64,
    /// When the nodes were last confirmed: whole seconds, made by [`stamp`].
    pub written: SystemTime,
    pub nodes: ClusterNodes,
}

/// Why a file cannot be used. Each reads as the end of a sentence that starts with the file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FileError {
    #[error("is cut short")]
    Short,
    #[error("is damaged: its checksum is not that of its content")]
    Checksum,
    #[error("has version {0}; this program knows version {1}")]
    Version(u32, u32),
    #[error("cannot be understood: {0}")]
    Content(String),
}

/// A time as the file can hold it: whole seconds of the years 1970 to 9999.
pub(super) fn stamp(time: SystemTime) -> SystemTime {
    // A clock before 1970 counts as 1970.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.min(LATEST).as_secs())
}

/// The text of these zones. Names, addresses and times have no character that JSON escapes.
pub(super) fn render(zones: &BTreeMap<ZoneName, Entry>) -> String {
    let mut text = format!("{{\n\"about\": \"{ABOUT}\",\n\"version\": {VERSION},\n");
    render_list(&mut text, "zones", zones.iter().filter(|(name, _)| !name.is_view()));
    // Apart, because older versions refuse a file with such names of zones, and do not read this list.
    if zones.keys().any(ZoneName::is_view) {
        text.push('\n');
        render_list(&mut text, "views", zones.iter().filter(|(name, _)| name.is_view()));
    }
    seal(text)
}

fn render_list<'e>(text: &mut String, key: &str, zones: impl Iterator<Item = (&'e ZoneName, &'e Entry)>) {
    // Writing to a `String` never fails.
    let _ = write!(text, "\"{key}\": {{");
    let mut separator = "\n";
    for (name, entry) in zones {
        text.push_str(separator);
        render_zone(text, name, entry);
        separator = ",\n";
    }
    text.push_str("\n},");
}

/// Adds the checksum of what is before it, and the end.
pub(super) fn seal(text: String) -> String {
    let checksum = checksum(&text);
    text + CHECKSUM + &checksum + END
}

/// The text of a file of this version, if its checksum is right.
pub(super) fn open_sealed(content: &[u8], version: u32) -> Result<&str, FileError> {
    let text = std::str::from_utf8(content).map_err(|_| FileError::Checksum)?;
    let (covered, rest) = text.rsplit_once(CHECKSUM).ok_or(FileError::Short)?;
    let written = rest.strip_suffix(END).ok_or(FileError::Short)?;
    if written != checksum(covered) {
        return Err(FileError::Checksum);
    }
    let head: Head = serde_json::from_str(text).map_err(|error| FileError::Content(error.to_string()))?;
    if head.version == version { Ok(text) } else { Err(FileError::Version(head.version, version)) }
}

fn render_zone(text: &mut String, name: &ZoneName, entry: &Entry) {
    let Entry { fingerprint, seeds, written, nodes } = entry;
    let written = format_rfc3339_seconds(stamp(*written));
    // Writing to a `String` never fails.
    let _ = write!(text, "\"{name}\": {{\"written\": \"{written}\", \"fingerprint\": \"{fingerprint:016x}\"");
    let _ = write!(text, ", \"seeds\": \"{seeds:016x}\"");
    if let Some(id) = nodes.id {
        let _ = write!(text, ", \"cluster_id\": \"{id}\"");
    }
    let lists = [("nodes", Some(&nodes.nodes)), ("others", nodes.others.as_ref()), ("foreign", nodes.foreign.as_ref())];
    for (key, list) in lists {
        let Some(list) = list else { continue };
        let _ = write!(text, ", \"{key}\": [");
        let mut separator = "";
        for node in list.as_slice() {
            let _ = write!(text, "{separator}\"{node}\"");
            separator = ", ";
        }
        text.push(']');
    }
    text.push('}');
}

/// Parses a file's content.
pub(super) fn parse(content: &[u8]) -> Result<BTreeMap<ZoneName, Entry>, FileError> {
    let text = open_sealed(content, VERSION)?;
    let Body { zones, views } = serde_json::from_str(text).map_err(|error| FileError::Content(error.to_string()))?;
    // What cannot be read of a view is learnt again: its clients get the addresses of the zone meanwhile.
    let view = |(name, line): (String, serde_json::Value)| {
        entry(ZoneName::parse_view(&name)?, &name, serde_json::from_value(line).ok()?).ok()
    };
    let views = views.into_iter().filter_map(view);
    let zones = zones.into_iter().map(|(name, line)| {
        let zone = ZoneName::parse(&name).map_err(|error| FileError::Content(format!("zone {name:?} {error}")))?;
        entry(zone, &name, line)
    });
    zones.chain(views.map(Ok)).collect()
}

/// The part that every version has; other versions may differ in the rest.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize)]
struct Body {
    zones: BTreeMap<String, Line>,
    /// Files without views, and those of older versions, do not have it.
    #[serde(default)]
    views: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(with = "humantime_serde")]
    written: SystemTime,
    fingerprint: String,
    /// Files of older versions have neither this key nor the others with a default.
    #[serde(default)]
    seeds: Option<String>,
    #[serde(default)]
    cluster_id: Option<String>,
    nodes: Vec<IpAddr>,
    #[serde(default)]
    others: Vec<IpAddr>,
    #[serde(default)]
    foreign: Vec<IpAddr>,
}

/// A zone or view, which has this name in the file.
fn entry(zone: ZoneName, name: &str, line: Line) -> Result<(ZoneName, Entry), FileError> {
    let wrong = |what: String| FileError::Content(format!("zone {name:?} {what}"));
    let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| wrong("has no fingerprint".into()));
    let fingerprint = number(&line.fingerprint)?;
    let seeds = line.seeds.as_deref().map(number).transpose()?.unwrap_or_default();
    let id = line.cluster_id.as_deref().map(ClusterId::parse).transpose();
    let id = id.map_err(|error| wrong(format!("has a cluster_id that {error}")))?;
    let set = |nodes: Vec<IpAddr>| {
        if nodes.len() > NODES_MAX {
            return Err(wrong(format!("has {} nodes; at most {NODES_MAX} are possible", nodes.len())));
        }
        match nodes.iter().find(|node| !is_publishable(**node)) {
            Some(odd) => Err(wrong(format!("has the node {odd}, which is not the address of one host"))),
            None => Ok(NodeSet::new(nodes)),
        }
    };
    let nodes = set(line.nodes)?.ok_or_else(|| wrong("has no nodes".into()))?;
    let nodes = ClusterNodes { nodes, others: set(line.others)?, foreign: set(line.foreign)?, id };
    Ok((zone, Entry { fingerprint, seeds, written: stamp(line.written), nodes }))
}

fn checksum(text: &str) -> String {
    format!("{:016x}", config::digest(text.as_bytes()))
}

/// Every cut of a sealed text, and every bit of it that is changed, must be refused.
#[cfg(test)]
#[track_caller]
pub(super) fn assert_changes_are_noticed(text: &str, is_refused: impl Fn(&[u8]) -> bool) {
    let whole = text.as_bytes();
    for length in 0..whole.len() {
        assert!(is_refused(&whole[..length]), "{length} octets of {}", whole.len());
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.to_vec();
            changed[at] ^= 1 << bit;
            assert!(is_refused(&changed), "{:?}", String::from_utf8_lossy(&changed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one() -> BTreeMap<ZoneName, Entry> {
        let written = UNIX_EPOCH + Duration::from_secs(1_795_413_600);
        let nodes = NodeSet::new(["10.0.0.1", "::1"].map(|node| node.parse().unwrap())).unwrap();
        BTreeMap::from([(
            ZoneName::parse("a.example").unwrap(),
            Entry { fingerprint: 0xabc, seeds: 0xdef, written, nodes: ClusterNodes::of(nodes) },
        )])
    }

    /// This text with a correct checksum.
    fn sealed(covered: &str) -> String {
        format!("{covered}{CHECKSUM}{}{END}", checksum(covered))
    }

    fn refusal(covered: &str) -> String {
        parse(sealed(covered).as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_person_can_read_it() {
        let text = render(&one());
        let line = "\"a.example.\": {\"written\": \"2026-11-23T06:00:00Z\", \"fingerprint\": \"0000000000000abc\", \
                    \"seeds\": \"0000000000000def\", \"nodes\": [\"10.0.0.1\", \"::1\"]}";
        assert_eq!(text.lines().nth(4), Some(line), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["about"].is_string());
        assert_eq!(parse(render(&BTreeMap::new()).as_bytes()), Ok(BTreeMap::new()));
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_noticed() {
        assert_changes_are_noticed(&render(&one()), |content| parse(content).is_err());
    }

    #[test]
    fn an_error_under_a_correct_checksum_is_named() {
        let with = |version: &str, zones: &str| refusal(&format!("{{\"version\": {version}, \"zones\": {{{zones}}},"));
        assert_eq!(with("2", "\"new\": 1"), "has version 2; this program knows version 1");
        let line = |name: &str, nodes: &str| {
            let line =
                format!("{{\"written\": \"2026-11-23T06:00:00Z\", \"fingerprint\": \"1\", \"nodes\": [{nodes}]}}");
            with("1", &format!("\"{name}\": {line}"))
        };
        let start = "cannot be understood: zone ";
        assert!(line("a..b", "\"10.0.0.1\"").starts_with(&format!("{start}\"a..b\" has an empty label")));
        assert_eq!(line("a", ""), format!("{start}\"a\" has no nodes"));
        let odd = format!("{start}\"a\" has the node 0.0.0.0, which is not the address of one host");
        assert_eq!(line("a", "\"0.0.0.0\""), odd);
        assert_eq!(refusal("{\"version\": 1,"), "cannot be understood: missing field `zones` at line 3 column 1");
    }

    #[test]
    fn views_are_apart_and_one_that_cannot_be_read_is_left_out() {
        let mut zones = one();
        let entry = zones.values().next().unwrap().clone();
        let key = ZoneName::parse("a.example").unwrap().of_view(&"10.0.1.0/24".parse().unwrap());
        zones.insert(key, entry);
        let text = render(&zones);
        assert!(text.contains("\n},\n\"views\": {\n\"a.example./10.0.1.0/24\": {\"written\""), "{text}");
        let covered = text.rsplit_once(CHECKSUM).unwrap().0;
        for (from, to) in [("./10.0.1.0/24", "./10.0.1.0"), ("\"a.example./", "\"a b/")] {
            assert_eq!(parse(sealed(&covered.replace(from, to)).as_bytes()), Ok(one()));
        }
        let nodes = "\"nodes\": [\"10.0.0.1\", \"::1\"]}\n}";
        let (zone, views) = covered.split_once("\"views\"").unwrap();
        for odd in ["\"nodes\": []}\n}", "\"new\": 1}\n}"] {
            let text = format!("{zone}\"views\"{}", views.replace(nodes, odd));
            assert!(text.contains(odd));
            assert_eq!(parse(sealed(&text).as_bytes()), Ok(one()));
        }
    }

    #[test]
    fn a_clock_that_is_far_off_can_be_written() {
        for time in [UNIX_EPOCH - Duration::from_secs(1), UNIX_EPOCH + LATEST * 2] {
            let mut zones = one();
            zones.values_mut().for_each(|entry| entry.written = time);
            let read = parse(render(&zones).as_bytes()).unwrap();
            assert!(read.values().all(|entry| entry.written == stamp(time)));
        }
    }

    prop_compose! {
        fn any_entry()(
            (fingerprint, seeds) in any::<(u64, u64)>(),
            seconds in 0..=LATEST.as_secs(),
            nodes in prop::collection::vec(any::<IpAddr>(), 1..6),
            others in prop::collection::vec(any::<IpAddr>(), 0..3),
            foreign in prop::collection::vec(any::<IpAddr>(), 0..3),
            id: [u8; 16],
        ) -> Option<Entry> {
            let set = |nodes: Vec<IpAddr>| {
                NodeSet::new(nodes.into_iter().filter(|node| is_publishable(node.to_canonical())))
            };
            let nodes =
                ClusterNodes { nodes: set(nodes)?, others: set(others), foreign: set(foreign), id: ClusterId::new(id) };
            Some(Entry { fingerprint, seeds, written: UNIX_EPOCH + Duration::from_secs(seconds), nodes })
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            zones in prop::collection::btree_map("[a-z][a-z0-9_-]{0,20}(\\.[a-z]{1,9}){0,3}", any_entry(), 0..12)
        ) {
            let named = zones.into_iter().filter_map(|(name, entry)| Some((ZoneName::parse(&name).ok()?, entry?)));
            let mut zones: BTreeMap<_, _> = named.collect();
            prop_assert_eq!(parse(render(&zones).as_bytes()), Ok(zones.clone()));
            let views = zones.clone().into_iter().map(|(name, entry)| (name.of_view(&"10.0.0.0/8".parse().unwrap()), entry));
            zones.extend(views.collect::<Vec<_>>());
            prop_assert_eq!(parse(render(&zones).as_bytes()), Ok(zones));
        }

        #[test]
        fn no_octets_make_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse(&content).is_err());
        }

        #[test]
        fn no_text_with_a_checksum_makes_the_parser_panic(
            covered in "\\{\"version\": [012](, \"zones\": \\{(\"[a.*]{0,3}\": \\{(\"written\": \"[0-9T:Z -]{0,22}\", |\
                        \"nodes\": \\[(\"[0-9a:.]{0,9}\")?\\], |\"fingerprint\": (\"[0-9a-g]{0,18}\"|1), ){0,3}\
                        \"x\": 1\\}){0,2}\\})?,"
        ) {
            let _ = parse(sealed(&covered).as_bytes());
        }
    }
}

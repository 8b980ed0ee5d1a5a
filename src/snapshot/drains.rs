//! `drains.json`: the nodes that commands have taken out of the answers, which outlive a restart.

use std::{net::IpAddr, time::SystemTime};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    FLUSH_MAX, Shared, SnapshotStore,
    directory::Directory,
    error::WriteError,
    file::{FileError, open_sealed, seal, stamp},
    read_bounded, replace, write,
};
use crate::{
    table::{Drain, Drains},
    types::{ZoneName, canonical},
};

/// The name of the file.
const NAME: &str = "drains.json";

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// The largest file that is read: all drains that are possible, with the longest names, are a third of it.
const OCTETS_MAX: u64 = 256 << 10;

/// Says what the file is to a person who opens it.
const ABOUT: &str = "Nodes that are taken out of the answers. Written by alternator-dns when it is asked to drain a node; \
                     do not edit.";

/// Why drains are not kept for the next start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum KeepError {
    #[error("the state directory cannot be written: {0}")]
    NotWritten(String),
    #[error("the state directory takes longer than {FLUSH_MAX:?} to be written")]
    Late,
}

impl SnapshotStore {
    /// The drains that were kept last.
    pub fn drains(&self) -> Drains {
        self.0.known().drains.clone()
    }

    /// Keeps the drains that are in force from now on, and waits until they are written.
    ///
    /// # Errors
    /// They are not written yet; that is tried again.
    pub async fn keep_drains(&self, drains: Drains) -> Result<(), KeepError> {
        {
            let mut known = self.0.known();
            known.drains = drains;
            known.drains_unwritten = true;
        }
        let outcome = match timeout(FLUSH_MAX, write(&self.0)).await {
            Ok(outcome) => outcome.map_err(|error| KeepError::NotWritten(error.to_string())),
            Err(_) => Err(KeepError::Late),
        };
        outcome.inspect_err(|_| self.0.changed.notify_one())
    }
}

impl Shared {
    pub(super) fn write_drains(&self, directory: &Directory) -> Result<(), WriteError> {
        let drains = {
            let mut known = self.known();
            if !std::mem::take(&mut known.drains_unwritten) {
                return Ok(());
            }
            known.drains.clone()
        };
        replace(directory, NAME, &render(&drains)).inspect_err(|_| self.known().drains_unwritten = true)
    }
}

/// What a state directory holds. A file that cannot be used is reported, and otherwise ignored.
pub(super) fn read(directory: &Directory) -> Drains {
    let content = read_bounded(directory, NAME, OCTETS_MAX);
    let drains = content.and_then(|content| Ok(content.as_deref().map(parse).transpose()?));
    let drains = drains.inspect_err(|unread| {
        tracing::warn!(path = %directory.file(NAME).display(), "{unread}; no node is drained");
    });
    drains.ok().flatten().unwrap_or_default()
}

/// The file's text. Names, addresses and times have no character that JSON escapes.
pub(super) fn render(drains: &Drains) -> String {
    let line = |Drain { node, zone, until }: Drain| {
        let zone = zone.map_or_else(String::new, |zone| format!(", \"zone\": \"{zone}\""));
        format!("\n{{\"node\": \"{node}\"{zone}, \"until\": \"{}\"}}", format_rfc3339_seconds(stamp(until)))
    };
    let lines: Vec<_> = drains.iter().map(line).collect();
    seal(format!("{{\n\"about\": \"{ABOUT}\",\n\"version\": {VERSION},\n\"drains\": [{}\n],", lines.join(",")))
}

/// Parses a file's content.
pub(super) fn parse(content: &[u8]) -> Result<Drains, FileError> {
    let text = open_sealed(content, VERSION)?;
    let Body { drains: lines } = serde_json::from_str(text).map_err(|error| FileError::Content(error.to_string()))?;
    let mut drains = Drains::default();
    for Line { node, zone, until } in lines {
        let name = |name: &String| {
            ZoneName::parse(name).map_err(|error| FileError::Content(format!("the zone {name:?} {error}")))
        };
        let zone = zone.as_ref().map(name).transpose()?;
        let drain = Drain { node: canonical(node), zone, until: stamp(until) };
        drains.add(drain).map_err(|error| FileError::Content(error.to_string()))?;
    }
    Ok(drains)
}

#[derive(Deserialize)]
struct Body {
    drains: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    node: IpAddr,
    /// Left out: every zone.
    #[serde(default)]
    zone: Option<String>,
    #[serde(with = "humantime_serde")]
    until: SystemTime,
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::Ipv4Addr,
        sync::Arc,
        time::{Duration, UNIX_EPOCH},
    };

    use proptest::prelude::*;

    use super::{super::file::assert_changes_are_noticed, *};
    use crate::{metrics::ProcessCounters, table::DRAINS_MAX, test_directory::TestDirectory};

    fn some() -> Drains {
        let mut drains = Drains::default();
        let until = UNIX_EPOCH + Duration::from_secs(1_795_413_600);
        let zone = Some(ZoneName::parse("a.example").unwrap());
        drains.add(Drain { node: "10.0.0.1".parse().unwrap(), zone, until }).unwrap();
        drains.add(Drain { node: "::1".parse().unwrap(), zone: None, until }).unwrap();
        drains
    }

    #[test]
    fn a_person_can_read_it() {
        let text = render(&some());
        let line = "{\"node\": \"10.0.0.1\", \"zone\": \"a.example.\", \"until\": \"2026-11-23T06:00:00Z\"},";
        assert_eq!(text.lines().nth(4), Some(line), "{text}");
        assert_eq!(parse(render(&Drains::default()).as_bytes()), Ok(Drains::default()));
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_noticed() {
        assert_changes_are_noticed(&render(&some()), |content| parse(content).is_err());
    }

    #[test]
    fn another_version_and_too_many_are_refused() {
        let newer = seal("{\"version\": 2, \"new\": 1,".into());
        assert_eq!(parse(newer.as_bytes()).unwrap_err().to_string(), "has version 2; this program knows version 1");
        let line = |n| format!("{{\"node\": \"{}\", \"until\": \"2026-11-23T06:00:00Z\"}}", Ipv4Addr::from_bits(n));
        let file = |count: usize| {
            let lines: Vec<_> = (1..=count as u32).map(line).collect();
            seal(format!("{{\"version\": 1, \"drains\": [{}],", lines.join(",")))
        };
        assert_eq!(parse(file(DRAINS_MAX).as_bytes()).unwrap().iter().count(), DRAINS_MAX);
        assert!(parse(file(DRAINS_MAX + 1).as_bytes()).unwrap_err().to_string().contains("256 drains"));
    }

    #[test]
    fn the_largest_file_is_small_enough_to_be_read() {
        let mut drains = Drains::default();
        for n in 0..DRAINS_MAX {
            let node = format!("2001:db8:1111:2222:3333:4444:5555:{:x}", n + 0x1000).parse().unwrap();
            let zone = ZoneName::parse(&["a".repeat(63).as_str(); 3].join(".")).ok();
            drains.add(Drain { node, zone, until: UNIX_EPOCH }).unwrap();
        }
        assert!((render(&drains).len() as u64) < OCTETS_MAX / 2);
    }

    #[tokio::test]
    async fn what_is_kept_is_there_for_the_next_start_and_a_bad_file_is_not() {
        let test_directory = TestDirectory::new("drains");
        let open =
            || SnapshotStore::open(test_directory.path(), Duration::MAX, Arc::<ProcessCounters>::default()).unwrap();
        let (store, writer) = open();
        store.keep_drains(some()).await.unwrap();
        drop((store, writer));
        assert_eq!(open().0.drains(), some());
        for content in [seal("{\"version\": 2, \"drains\": 7,".into()), "{}".into()] {
            fs::write(test_directory.file(NAME), content).unwrap();
            assert_eq!(open().0.drains(), Drains::default());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            list in prop::collection::vec((any::<u32>(), prop::option::of("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}"), 0_u64..4_000_000_000), 0..20)
        ) {
            let mut drains = Drains::default();
            for (node, zone, until) in list {
                let zone = zone.map(|zone| ZoneName::parse(&zone).unwrap());
                let until = UNIX_EPOCH + Duration::from_secs(until);
                drains.add(Drain { node: Ipv4Addr::from_bits(node).into(), zone, until }).unwrap();
            }
            prop_assert_eq!(parse(render(&drains).as_bytes()), Ok(drains));
        }

        #[test]
        fn no_octets_make_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse(&content).is_err());
        }

        #[test]
        fn no_text_with_a_checksum_makes_the_parser_panic(
            covered in "\\{\"version\": [012](, \"drains\": \\[(\\{(\"node\": \"[0-9a:.]{0,9}\", |\"zone\": \"[a.*]{0,3}\", ){0,2}\
                        \"until\": \"[0-9T:Z -]{0,22}\"\\}){0,2}\\])?,"
        ) {
            let _ = parse(seal(covered).as_bytes());
        }
    }
}

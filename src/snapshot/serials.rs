//! `serials.json`: the last serials of zones that are transferred, so that none runs backwards after a restart, whatever the
//! clock says then.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Shared, SnapshotStore,
    directory::Directory,
    error::WriteError,
    file::{FILE_OCTETS_MAX, FileError, open_sealed, seal},
    read_bounded, replace,
};
use crate::{table::next_serial, types::ZoneName};

/// The name of the file.
const NAME: &str = "serials.json";

/// The format that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Says what the file is to a person who opens it.
const ABOUT: &str = "The last serials of zones that are transferred. Written by alternator-dns, so that no serial runs \
                     backwards; do not edit.";

/// How far a serial may have grown since it was kept, a second ago at most: each node of a large cluster that comes up changes
/// it once. It is also how far serials may be ahead of the clock, and so of another primary's, after a restart.
const MARGIN: u32 = 128;

/// The serials that were kept.
pub type Serials = BTreeMap<ZoneName, u32>;

impl SnapshotStore {
    /// A zone's first serial after a start at `now`, the unix time in seconds: newer than the last one that was kept.
    pub fn first_serial(&self, zone: &ZoneName, now: u32) -> u32 {
        match self.last_serial(zone) {
            Some(kept) => next_serial(kept.wrapping_add(MARGIN), now),
            None => now,
        }
    }

    /// The last serial of a zone that was kept.
    pub fn last_serial(&self, zone: &ZoneName) -> Option<u32> {
        self.0.known().serials.get(zone).copied()
    }

    /// Keeps these serials from now on.
    pub fn keep_serials(&self, serials: Serials) {
        let mut known = self.0.known();
        if known.serials == serials {
            return;
        }
        known.serials = serials;
        known.serials_unwritten = true;
        drop(known);
        self.0.changed.notify_one();
    }
}

impl Shared {
    pub(super) fn write_serials(&self, directory: &Directory) -> Result<(), WriteError> {
        let serials = {
            let mut known = self.known();
            if !std::mem::take(&mut known.serials_unwritten) {
                return Ok(());
            }
            known.serials.clone()
        };
        replace(directory, NAME, &render(&serials)).inspect_err(|_| self.known().serials_unwritten = true)
    }
}

/// What a state directory holds. A file that cannot be used is reported, and otherwise ignored.
pub(super) fn read(directory: &Directory) -> Serials {
    let content = read_bounded(directory, NAME, FILE_OCTETS_MAX);
    let serials = content.and_then(|content| Ok(content.as_deref().map(parse).transpose()?));
    let serials = serials.inspect_err(|unread| {
        tracing::warn!(path = %directory.file(NAME).display(), "{unread}; serials begin at the time of the clock");
    });
    serials.ok().flatten().unwrap_or_default()
}

/// The file's text. Names have no character that JSON escapes.
pub(super) fn render(serials: &Serials) -> String {
    let line = |(zone, serial): (&ZoneName, &u32)| format!("\n{{\"zone\": \"{zone}\", \"serial\": {serial}}}");
    let lines: Vec<_> = serials.iter().map(line).collect();
    seal(format!("{{\n\"about\": \"{ABOUT}\",\n\"version\": {VERSION},\n\"serials\": [{}\n],", lines.join(",")))
}

/// Parses a file's content.
pub(super) fn parse(content: &[u8]) -> Result<Serials, FileError> {
    let text = open_sealed(content, VERSION)?;
    let Body { serials: lines } = serde_json::from_str(text).map_err(|error| FileError::Content(error.to_string()))?;
    let serial = |Line { zone, serial }: Line| match ZoneName::parse(&zone) {
        Ok(name) => Ok((name, serial)),
        Err(error) => Err(FileError::Content(format!("the zone {zone:?} {error}"))),
    };
    lines.into_iter().map(serial).collect()
}

#[derive(Deserialize)]
struct Body {
    serials: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    zone: String,
    serial: u32,
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::{super::file::assert_changes_are_noticed, *};
    use crate::{metrics::ProcessCounters, test_directory::TestDirectory};

    fn name(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    fn some() -> Serials {
        BTreeMap::from([(name("a.example"), 1_795_413_600), (name("b.example"), 7)])
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_noticed() {
        assert_changes_are_noticed(&render(&some()), |content| parse(content).is_err());
    }

    #[tokio::test]
    async fn a_serial_never_runs_backwards_whatever_the_clock_says() {
        let test_directory = TestDirectory::new("serials");
        let open =
            || SnapshotStore::open(test_directory.path(), Duration::MAX, Arc::<ProcessCounters>::default()).unwrap();
        let (store, writer) = open();
        store.keep_serials(some());
        store.flush().await;
        drop((store, writer));
        let (store, writer) = open();
        let a = name("a.example");
        assert_eq!(store.last_serial(&a), Some(1_795_413_600));
        assert_eq!(store.first_serial(&a, 1_795_500_000), 1_795_500_000, "the clock is ahead");
        assert_eq!(store.first_serial(&a, 100), 1_795_413_729, "the clock was set back");
        assert_eq!(store.first_serial(&name("new.example"), 100), 100);
        drop((store, writer));
        fs::write(test_directory.file(NAME), "{}").unwrap();
        assert_eq!(open().0.first_serial(&a, 100), 100);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            list in prop::collection::btree_map("[a-z]{1,9}(\\.[a-z]{1,9}){0,3}", any::<u32>(), 0..20)
        ) {
            let serials: Serials = list.into_iter().map(|(zone, serial)| (name(&zone), serial)).collect();
            prop_assert_eq!(parse(render(&serials).as_bytes()), Ok(serials));
        }

        #[test]
        fn no_octets_make_the_parser_panic(content in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(parse(&content).is_err());
        }
    }
}

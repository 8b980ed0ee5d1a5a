//! The zone table: the only door between learning and answering.
//!
//! A [`ZoneTable`] never changes; a reload swaps it whole. Each [`ZoneEntry`] in it holds the zone's current
//! [`Answers`] behind a pointer of its own, so that publishing one zone costs the same with ten zones and with
//! ten thousand. Readers take no lock.

mod answers;
mod choice;
mod entry;

use std::{net::IpAddr, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use rustc_hash::{FxHashMap, FxHashSet};

pub use self::{
    answers::{Addresses, Answers, Edition, Knowledge, Known, NameServers, Settings},
    choice::Node,
    entry::{Origin, PollStatus, ZoneEntry},
};
use crate::zone::{ZoneName, suffixes};

/// Every zone of one configuration.
#[derive(Debug, Default)]
pub struct ZoneTable {
    zones: FxHashMap<ZoneName, Arc<ZoneEntry>>,
    /// Names that own nothing and have a zone or a name server below them.
    between: FxHashSet<ZoneName>,
    /// Name servers whose own names lie inside a zone of ours.
    hosts: FxHashMap<ZoneName, Arc<[IpAddr]>>,
}

/// Where in its zone a name lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place<'t> {
    /// The zone's own name.
    Apex,
    /// A name server of ours, with its addresses.
    Host(&'t [IpAddr]),
    /// Nothing is there, but something lies below: an empty non-terminal (RFC 8020).
    Between,
    /// Nothing is there, nor below.
    Below,
}

impl ZoneTable {
    /// Builds the table of these zones; each entry says by its settings who its name servers are.
    pub fn new(entries: impl IntoIterator<Item = Arc<ZoneEntry>>) -> Self {
        let zones: FxHashMap<_, _> = entries.into_iter().map(|entry| (entry.name().clone(), entry)).collect();
        let mut table = Self { zones, ..Self::default() };
        for entry in table.zones.values() {
            table.between.extend(names_between(entry.name(), &table.zones));
            let answers = entry.answers();
            for (name, addresses) in answers.settings.name_servers.iter() {
                if !addresses.is_empty() && !table.zones.contains_key(name) && zone_of(name, &table.zones).is_some() {
                    table.between.extend(names_between(name, &table.zones));
                    table.hosts.insert(name.clone(), addresses.clone());
                }
            }
        }
        table
    }

    /// The zone that a lower-case name in wire format belongs to (the longest match), and where in it the name lies.
    pub fn find(&self, name: &[u8]) -> Option<(&Arc<ZoneEntry>, Place<'_>)> {
        let (apex, entry) = suffixes(name).find_map(|suffix| Some((suffix, self.zones.get(suffix)?)))?;
        let place = if apex.len() == name.len() {
            Place::Apex
        } else if let Some(addresses) = self.hosts.get(name) {
            Place::Host(addresses)
        } else if self.between.contains(name) {
            Place::Between
        } else {
            Place::Below
        };
        Some((entry, place))
    }

    /// The entry of a zone by its own name.
    pub fn zone(&self, name: &ZoneName) -> Option<&Arc<ZoneEntry>> {
        self.zones.get(name)
    }

    /// The addresses of a name server whose name lies in one of these zones.
    pub fn host(&self, name: &ZoneName) -> Option<&[IpAddr]> {
        self.hosts.get(name).map(|addresses| &**addresses)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<ZoneEntry>> {
        self.zones.values()
    }

    /// How many zones there are.
    pub fn len(&self) -> usize {
        self.zones.len()
    }

    /// Whether there is no zone.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }
}

/// The zone that holds a name, itself included.
fn zone_of<'z>(
    name: &ZoneName,
    zones: &'z FxHashMap<ZoneName, Arc<ZoneEntry>>,
) -> Option<(&'z ZoneName, &'z Arc<ZoneEntry>)> {
    suffixes(name.wire()).find_map(|suffix| zones.get_key_value(suffix))
}

/// The names strictly between `name` and the zone above it; none when no zone is above.
fn names_between(name: &ZoneName, zones: &FxHashMap<ZoneName, Arc<ZoneEntry>>) -> Vec<ZoneName> {
    let mut between = Vec::new();
    let mut above = name.parent();
    while let Some(name) = above {
        if zones.contains_key(&name) {
            return between;
        }
        above = name.parent();
        between.push(name);
    }
    Vec::new()
}

/// The table that is in force: many readers, replaced whole by the supervisor.
#[derive(Clone, Debug, Default)]
pub struct SharedTable(Arc<ArcSwap<ZoneTable>>);

impl SharedTable {
    /// The table now. Hold it for one batch of questions, not longer.
    pub fn now(&self) -> Guard<Arc<ZoneTable>> {
        self.0.load()
    }

    /// The table now, to keep.
    pub fn snapshot(&self) -> Arc<ZoneTable> {
        self.0.load_full()
    }

    /// Puts another table in force.
    pub fn replace(&self, table: ZoneTable) {
        self.0.store(Arc::new(table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(zones: &[&str]) -> ZoneTable {
        ZoneTable::new(zones.iter().map(|zone| {
            let name = ZoneName::parse(zone).unwrap();
            Arc::new(ZoneEntry::new(name, Settings::example(), 1))
        }))
    }

    fn found<'t>(table: &'t ZoneTable, name: &str) -> Option<(String, Place<'t>)> {
        let (entry, place) = table.find(ZoneName::parse(name).unwrap().wire())?;
        Some((entry.name().to_string(), place))
    }

    #[test]
    fn the_longest_match_wins_and_names_between_exist() {
        let table = table(&["example", "a.b.c.example", "other.test"]);
        assert_eq!(found(&table, "example"), Some(("example.".into(), Place::Apex)));
        assert_eq!(found(&table, "x.example"), Some(("example.".into(), Place::Below)));
        assert_eq!(found(&table, "b.c.example"), Some(("example.".into(), Place::Between)));
        assert_eq!(found(&table, "c.example"), Some(("example.".into(), Place::Between)));
        assert_eq!(found(&table, "a.b.c.example"), Some(("a.b.c.example.".into(), Place::Apex)));
        assert_eq!(found(&table, "x.a.b.c.example"), Some(("a.b.c.example.".into(), Place::Below)));
        assert_eq!(found(&table, "test"), None, "above a zone that no zone encloses there is nothing of ours");
        assert_eq!(found(&table, "xexample"), None);
    }

    #[test]
    fn a_name_server_inside_a_zone_has_its_addresses() {
        let ns = ZoneName::parse("ns.deep.example").unwrap();
        let settings = Settings {
            name_servers: NameServers::new([(ns, vec!["10.0.0.53".parse().unwrap()])]),
            ..Settings::example()
        };
        let table = ZoneTable::new([Arc::new(ZoneEntry::new(ZoneName::parse("example").unwrap(), settings, 1))]);
        let address: IpAddr = "10.0.0.53".parse().unwrap();
        assert_eq!(found(&table, "ns.deep.example"), Some(("example.".into(), Place::Host(&[address]))));
        assert_eq!(found(&table, "deep.example"), Some(("example.".into(), Place::Between)));
    }

    #[test]
    fn the_root_zone_takes_every_name() {
        let table = table(&[".", "a.example"]);
        assert_eq!(found(&table, "anything.test"), Some((".".into(), Place::Below)));
        assert_eq!(found(&table, "example"), Some((".".into(), Place::Between)));
        assert_eq!(found(&table, "."), Some((".".into(), Place::Apex)));
    }
}

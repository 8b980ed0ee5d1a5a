//! The zone table: the only interface between learning and answering.
//!
//! A [`ZoneTable`] never changes; a reload swaps it whole. Each [`ZoneEntry`] in it holds the zone's current
//! [`Answers`] behind a pointer of its own, so that publishing one zone costs the same with ten zones and with
//! ten thousand. Readers take no lock.

mod answers;
mod authority;
mod choice;
mod description;
mod domain;
mod drains;
mod entry;
mod history;
mod limiter;
mod reports;
mod server_settings;
mod version;
mod views;
mod zone_id;

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, Guard};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

pub use self::{
    answers::{Addresses, Answers, Knowledge, Known, ListVersion, NameServers, ViewRole, ZoneSettings, next_serial},
    authority::{NAME_SERVER_TTL, RESPONSIBLE, SOA_EXPIRE, SOA_REFRESH, SOA_RETRY},
    choice::Node,
    description::{LastProbe, NodeDescription, ZoneDescription},
    domain::{DomainAnswers, DomainEntry, DomainSettings},
    drains::{DRAIN_TIME_MAX, DRAINS_MAX, Drain, Drains, TooManyDrains, ZoneDrains},
    entry::{Origin, PollStatus, ZoneEntry, shown_version},
    history::{CHANGES_MAX, Change, ChangeKind},
    limiter::{Admission, Limiter},
    reports::{NodeReport, ReportSource, ZoneReports},
    server_settings::{CookieSecret, CookieSecrets, ServerSettings},
    version::{changed_zones, table_version},
    views::{View, ZoneViews},
};
use crate::{
    metrics::ZoneId,
    types::{ZoneName, suffixes},
};

/// Octets of a name that lie in the index itself. Longer names cost a look elsewhere; with so many an element is 64 octets.
const INDEXED_OCTETS: usize = 40;

/// Zones or domains by their names in wire format.
type Index<T> = FxHashSet<Indexed<T>>;

/// An element of an index. With ten thousand zones the cost of a query is the memory it reads that was not read recently. So
/// everything that identifies a zone is in one cache line, and no pointer is followed.
#[derive(Debug)]
#[repr(align(64))]
struct Indexed<T> {
    name: SmallVec<[u8; INDEXED_OCTETS]>,
    element: T,
}

const _: () = assert!(size_of::<Indexed<Row>>() == 64);

/// Equal, and with the same hash, where the name is.
impl<T> Borrow<[u8]> for Indexed<T> {
    fn borrow(&self) -> &[u8] {
        &self.name
    }
}

impl<T> Hash for Indexed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.as_slice().hash(state);
    }
}

impl<T> PartialEq for Indexed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl<T> Eq for Indexed<T> {}

/// A zone in the index.
#[derive(Debug)]
pub struct Row {
    /// The zone itself.
    pub entry: Arc<ZoneEntry>,
    /// Its [place](ZoneEntry::id), to be read without reading the zone.
    pub id: ZoneId,
}

/// What a name belongs to.
#[derive(Clone, Copy, Debug)]
pub enum TableEntry<'t> {
    /// A zone.
    Zone(&'t Row),
    /// A name that is delegated to us and has no nodes.
    Domain(&'t Arc<DomainEntry>),
}

/// Every zone of one configuration, and what holds for all of them.
#[derive(Debug, Default)]
pub struct ZoneTable {
    version: u64,
    server: ServerSettings,
    zones: Index<Row>,
    /// The views of zones that have any. Most have none, so they are not in the row of the zone.
    views: FxHashMap<ZoneId, ZoneViews>,
    /// Names that are delegated to us and have no nodes: zones hang below them.
    domains: Index<Arc<DomainEntry>>,
    /// Names that own nothing and have a zone or a name server below them.
    between: FxHashSet<ZoneName>,
    /// Name servers whose own names lie inside a zone of ours.
    hosts: FxHashMap<ZoneName, Arc<[IpAddr]>>,
}

/// Where in its zone a name lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Position<'t> {
    /// The zone's own name.
    Apex,
    /// A name server of ours, with its addresses.
    NameServer(&'t [IpAddr]),
    /// Nothing is there, but something lies below: an empty non-terminal (RFC 8020).
    EmptyNonTerminal,
    /// Nothing is there, nor below.
    BelowApex,
}

impl ZoneTable {
    /// Builds the table of these zones; each entry's settings name its name servers.
    pub fn new(zones: impl IntoIterator<Item = Arc<ZoneEntry>>) -> Self {
        Self::with_domains(zones, [])
    }

    /// Builds the table of these zones and domains.
    pub fn with_domains(
        zones: impl IntoIterator<Item = Arc<ZoneEntry>>,
        domains: impl IntoIterator<Item = Arc<DomainEntry>>,
    ) -> Self {
        let rows = zones.into_iter().map(|entry: Arc<ZoneEntry>| Indexed {
            name: entry.name().wire().into(),
            element: Row { id: entry.id(), entry },
        });
        let domains = domains
            .into_iter()
            .map(|entry: Arc<DomainEntry>| Indexed { name: entry.name().wire().into(), element: entry });
        let mut table =
            Self { version: next_version(), zones: rows.collect(), domains: domains.collect(), ..Self::default() };
        let mut between = FxHashSet::default();
        let mut hosts = FxHashMap::default();
        let mut add = |name: &ZoneName, name_servers: &NameServers| {
            between.extend(table.names_between(name));
            for (name, addresses) in name_servers.iter() {
                if !addresses.is_empty() && table.apex(name.wire()).is_none() && table.enclosing(name.wire()).is_some()
                {
                    between.extend(table.names_between(name));
                    hosts.insert(name.clone(), addresses.clone());
                }
            }
        };
        table.zones().for_each(|row| add(row.entry.name(), &row.entry.answers().settings.name_servers));
        let domains = table.domains.iter().map(|indexed| &indexed.element);
        domains.for_each(|domain| add(domain.name(), &domain.answers().settings.name_servers));
        table.between = between;
        table.hosts = hosts;
        table
    }

    /// The same with what holds for every question.
    #[must_use]
    pub fn with_server(self, server: ServerSettings) -> Self {
        Self { server, ..self }
    }

    /// The same with views of these zones, which are in the table.
    #[must_use]
    pub fn with_views(self, views: impl IntoIterator<Item = (ZoneName, ZoneViews)>) -> Self {
        let views = views.into_iter().filter_map(|(zone, views)| Some((self.zone(&zone)?.id(), views))).collect();
        Self { views, ..self }
    }

    /// The views of a zone; `None`: it has none.
    pub fn views(&self, zone: ZoneId) -> Option<&ZoneViews> {
        self.views.get(&zone)
    }

    /// Each view of a zone, in the order of the file.
    pub fn each_view(&self, zone: ZoneId) -> impl Iterator<Item = &View> {
        self.views(zone).into_iter().flat_map(ZoneViews::iter)
    }

    /// The views of all zones.
    pub fn all_views(&self) -> impl Iterator<Item = &View> {
        self.views.values().flat_map(ZoneViews::iter)
    }

    /// The entries of all views by their keys.
    pub fn view_entries(&self) -> FxHashMap<&ZoneName, &Arc<ZoneEntry>> {
        self.all_views().map(|view| (view.row.entry.name(), &view.row.entry)).collect()
    }

    /// Distinguishes the table from those before and after it: what was made from one is not valid for another.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What holds for every question.
    pub fn server(&self) -> &ServerSettings {
        &self.server
    }

    /// The zone or domain that a lower-case name in wire format belongs to (the longest match), and where in it the name
    /// lies.
    pub fn find(&self, name: &[u8]) -> Option<(TableEntry<'_>, Position<'_>)> {
        let (apex, entry) = self.enclosing(name)?;
        let place = if apex.len() == name.len() {
            Position::Apex
        } else if let Some(addresses) = self.hosts.get(name) {
            Position::NameServer(addresses)
        } else if self.between.contains(name) {
            Position::EmptyNonTerminal
        } else {
            Position::BelowApex
        };
        Some((entry, place))
    }

    /// The zone or domain above one of this name.
    pub fn above(&self, name: &[u8]) -> Option<TableEntry<'_>> {
        suffixes(name).skip(1).find_map(|suffix| self.apex(suffix))
    }

    /// The entry of a zone by its own name.
    pub fn zone(&self, name: &ZoneName) -> Option<&Arc<ZoneEntry>> {
        self.zones.get(name.wire()).map(|indexed| &indexed.element.entry)
    }

    /// The entry of a zone by its own name in wire format and lower case.
    pub fn zone_of(&self, name: &[u8]) -> Option<&Arc<ZoneEntry>> {
        self.zones.get(name).map(|row| &row.element.entry)
    }

    /// The entry of a domain by its own name.
    pub fn domain(&self, name: &ZoneName) -> Option<&Arc<DomainEntry>> {
        self.domains.get(name.wire()).map(|indexed| &indexed.element)
    }

    /// The addresses of a name server whose name lies in one of these zones.
    pub fn host(&self, name: &ZoneName) -> Option<&[IpAddr]> {
        self.hosts.get(name).map(|addresses| &**addresses)
    }

    /// All zones, in no order; no domains.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<ZoneEntry>> {
        self.zones().map(|row| &row.entry)
    }

    fn zones(&self) -> impl Iterator<Item = &Row> {
        self.zones.iter().map(|indexed| &indexed.element)
    }

    /// The zone or domain of exactly this name.
    fn apex(&self, name: &[u8]) -> Option<TableEntry<'_>> {
        if let Some(indexed) = self.zones.get(name) {
            return Some(TableEntry::Zone(&indexed.element));
        }
        // Domains are few, and mostly there is none.
        let domain = if self.domains.is_empty() { None } else { self.domains.get(name) };
        domain.map(|indexed| TableEntry::Domain(&indexed.element))
    }

    /// The zone or domain that holds a name, itself included, and where in the name its own begins.
    fn enclosing<'n>(&self, name: &'n [u8]) -> Option<(&'n [u8], TableEntry<'_>)> {
        suffixes(name).find_map(|suffix| Some((suffix, self.apex(suffix)?)))
    }

    /// The names strictly between `name` and the zone or domain above it; none when nothing of ours is above.
    fn names_between(&self, name: &ZoneName) -> Vec<ZoneName> {
        let count = suffixes(name.wire()).skip(1).position(|above| self.apex(above).is_some());
        let names = std::iter::successors(Some(name.clone()), ZoneName::parent);
        names.skip(1).take(count.unwrap_or_default()).collect()
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

/// Never 0, which the table without zones has.
fn next_version() -> u64 {
    static MADE: AtomicU64 = AtomicU64::new(0);
    MADE.fetch_add(1, Relaxed) + 1
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
            Arc::new(ZoneEntry::new(name, ZoneSettings::example(), 1))
        }))
    }

    fn found<'t>(table: &'t ZoneTable, name: &str) -> Option<(String, Position<'t>)> {
        let (entry, place) = table.find(ZoneName::parse(name).unwrap().wire())?;
        let owner = match entry {
            TableEntry::Zone(row) => row.entry.name(),
            TableEntry::Domain(domain) => domain.name(),
        };
        Some((owner.to_string(), place))
    }

    #[test]
    fn the_longest_match_wins_and_names_between_exist() {
        let table = table(&["example", "a.b.c.example", "other.test"]);
        assert_eq!(found(&table, "example"), Some(("example.".into(), Position::Apex)));
        assert_eq!(found(&table, "x.example"), Some(("example.".into(), Position::BelowApex)));
        assert_eq!(found(&table, "b.c.example"), Some(("example.".into(), Position::EmptyNonTerminal)));
        assert_eq!(found(&table, "c.example"), Some(("example.".into(), Position::EmptyNonTerminal)));
        assert_eq!(found(&table, "a.b.c.example"), Some(("a.b.c.example.".into(), Position::Apex)));
        assert_eq!(found(&table, "x.a.b.c.example"), Some(("a.b.c.example.".into(), Position::BelowApex)));
        assert_eq!(found(&table, "test"), None, "above a zone that no zone encloses there is nothing of ours");
        assert_eq!(found(&table, "xexample"), None);
    }

    #[test]
    fn a_name_server_inside_a_zone_has_its_addresses() {
        let ns = ZoneName::parse("ns.deep.example").unwrap();
        let settings = ZoneSettings {
            name_servers: NameServers::new([(ns, vec!["10.0.0.53".parse().unwrap()])]),
            ..ZoneSettings::example()
        };
        let entry = Arc::new(ZoneEntry::new(ZoneName::parse("example").unwrap(), settings, 1));
        let table = ZoneTable::new([entry]);
        let address: IpAddr = "10.0.0.53".parse().unwrap();
        assert_eq!(found(&table, "ns.deep.example"), Some(("example.".into(), Position::NameServer(&[address]))));
        assert_eq!(found(&table, "deep.example"), Some(("example.".into(), Position::EmptyNonTerminal)));
    }

    #[test]
    fn a_domain_holds_what_lies_between_it_and_the_zones_below() {
        let name = |text| ZoneName::parse(text).unwrap();
        let domain = Arc::new(DomainEntry::new(name("alt.example"), DomainSettings::example(), 1));
        let zone = Arc::new(ZoneEntry::new(name("a.east.alt.example"), ZoneSettings::example(), 1));
        let table = ZoneTable::with_domains([zone], [domain]);
        assert_eq!(found(&table, "alt.example"), Some(("alt.example.".into(), Position::Apex)));
        assert_eq!(found(&table, "east.alt.example"), Some(("alt.example.".into(), Position::EmptyNonTerminal)));
        assert_eq!(found(&table, "west.alt.example"), Some(("alt.example.".into(), Position::BelowApex)));
        assert_eq!(found(&table, "a.east.alt.example"), Some(("a.east.alt.example.".into(), Position::Apex)));
        assert_eq!(found(&table, "example"), None);
        assert_eq!((table.len(), table.entries().count()), (1, 1), "a domain is no zone");
        assert!(table.domain(&name("alt.example")).is_some() && table.zone(&name("alt.example")).is_none());
    }

    #[test]
    fn the_root_zone_takes_every_name() {
        let table = table(&[".", "a.example"]);
        assert_eq!(found(&table, "anything.test"), Some((".".into(), Position::BelowApex)));
        assert_eq!(found(&table, "example"), Some((".".into(), Position::EmptyNonTerminal)));
        assert_eq!(found(&table, "."), Some((".".into(), Position::Apex)));
    }
}

//! The records that secondaries get of a zone, and of the catalog zone.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use ring::digest;

use super::selection::select;
use crate::{
    table::{
        Answers, NAME_SERVER_TTL, NameServers, Position, RESPONSIBLE, TableEntry, ZoneEntry, ZoneTable, next_serial,
    },
    types::ZoneName,
};

/// TTL of the records of a catalog zone, in seconds. No resolver asks for them.
const CATALOG_TTL: u32 = 3600;

/// The version of the catalog's format (RFC 9432, 4.2.1).
const CATALOG_VERSION: &str = "2";

/// Octets of a zone's hash in its catalog entry. With sixteen no two of fifty thousand zones have the same.
const MEMBER_OCTETS: usize = 16;

/// A zone at one moment, as secondaries get it. The SOA comes first and is there once.
#[derive(Clone, Debug)]
pub(super) struct ZoneContent {
    pub(super) apex: ZoneName,
    pub(super) serial: u32,
    pub(super) records: Arc<[Record]>,
}

/// A record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) owner: ZoneName,
    pub(super) ttl: u32,
    pub(super) data: RecordData,
}

/// The data of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum RecordData {
    Soa(Soa),
    Ns(ZoneName),
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ptr(ZoneName),
    Txt(&'static str),
}

/// What the SOAs of zones differ in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Soa {
    pub(super) primary: ZoneName,
    pub(super) responsible: ZoneName,
    pub(super) serial: u32,
    pub(super) minimum: u32,
}

impl ZoneContent {
    /// A zone of the table; `None` until nodes are known.
    pub(super) fn of_zone(table: &ZoneTable, entry: &ZoneEntry) -> Option<Self> {
        let answers = entry.answers();
        if !answers.is_learnt() {
            return None;
        }
        let apex = entry.name();
        let settings = &answers.settings;
        let mut records = vec![soa(apex, &settings.name_servers, answers.serial, settings.negative_ttl.as_secs())];
        records.extend(name_servers(table, apex, &settings.name_servers));
        records.extend(settings.delegations.iter().flat_map(|below| delegation(table, below)));
        addresses(apex, apex, &answers, &mut records);
        if settings.subdomains
            && let Some(wildcard) = apex.child("*")
        {
            addresses(&wildcard, apex, &answers, &mut records);
        }
        Some(Self { apex: apex.clone(), serial: answers.serial, records: records.into() })
    }

    /// The SOA.
    pub(super) fn soa(&self) -> &Record {
        // Every constructor puts it there.
        &self.records[0]
    }
}

fn soa(apex: &ZoneName, name_servers: &NameServers, serial: u32, minimum: u32) -> Record {
    let primary = name_servers.first().unwrap_or(apex).clone();
    let responsible = apex.child(RESPONSIBLE).unwrap_or_else(ZoneName::root);
    Record { owner: apex.clone(), ttl: minimum, data: RecordData::Soa(Soa { primary, responsible, serial, minimum }) }
}

/// The NS records of a zone below, and the addresses of name servers that lie in it.
fn delegation(table: &ZoneTable, below: &ZoneName) -> Vec<Record> {
    let settings = table.zone(below).map(|entry| entry.answers().settings.clone());
    settings.map_or_else(Vec::new, |settings| name_servers(table, below, &settings.name_servers))
}

/// The NS records, and the addresses of name servers that lie in this zone and in none below it.
fn name_servers(table: &ZoneTable, apex: &ZoneName, name_servers: &NameServers) -> Vec<Record> {
    let ns = name_servers.iter().map(|(name, _)| Record {
        owner: apex.clone(),
        ttl: NAME_SERVER_TTL,
        data: RecordData::Ns(name.clone()),
    });
    let mut records: Vec<_> = ns.collect();
    for (name, _) in name_servers.iter() {
        if let Some((TableEntry::Zone(row), Position::NameServer(addresses))) = table.find(name.wire())
            && row.entry.name() == apex
        {
            let data = addresses.iter().map(|address| match *address {
                std::net::IpAddr::V4(v4) => RecordData::A(v4),
                std::net::IpAddr::V6(v6) => RecordData::Aaaa(v6),
            });
            records.extend(data.map(|data| Record { owner: name.clone(), ttl: NAME_SERVER_TTL, data }));
        }
    }
    records
}

/// The addresses that clients get, or as many of them as the zone allows.
fn addresses(owner: &ZoneName, zone: &ZoneName, answers: &Answers, records: &mut Vec<Record>) {
    let count = usize::from(answers.settings.max_addresses.get());
    let v4 = select(zone, &answers.v4, count).into_iter().map(RecordData::A);
    let v6 = select(zone, &answers.v6, count).into_iter().map(RecordData::Aaaa);
    let ttl = answers.address_ttl();
    records.extend(v4.chain(v6).map(|data| Record { owner: owner.clone(), ttl, data }));
}

/// The catalog zone (RFC 9432): it lists all zones, so that secondaries serve a new one by themselves.
#[derive(Clone, Debug)]
pub(super) struct Catalog {
    pub(super) content: ZoneContent,
    members: Vec<ZoneName>,
}

impl Catalog {
    /// Lists these zones. The serial is that of `former` where nothing has changed, and larger otherwise. `kept` is the
    /// last one of an earlier process, and `now` the unix time in seconds.
    pub(super) fn new(
        name: &ZoneName,
        members: impl Iterator<Item = ZoneName>,
        former: Option<&Self>,
        kept: Option<u32>,
        now: u32,
    ) -> Self {
        let mut members: Vec<_> = members.collect();
        members.sort_unstable();
        let former = former.filter(|former| former.content.apex == *name);
        if let Some(former) = former.filter(|former| former.members == members) {
            return former.clone();
        }
        let serial = match former.map(|former| former.content.serial).or(kept) {
            Some(before) => next_serial(before, now),
            None => now,
        };
        let records = catalog_records(name, &members, serial).into();
        Self { content: ZoneContent { apex: name.clone(), serial, records }, members }
    }
}

fn catalog_records(catalog: &ZoneName, members: &[ZoneName], serial: u32) -> Vec<Record> {
    let record = |owner: ZoneName, data| Record { owner, ttl: CATALOG_TTL, data };
    let mut records = vec![soa(catalog, &NameServers::default(), serial, CATALOG_TTL)];
    // No server of the catalog is ever looked up (RFC 9432, 4).
    let invalid = ZoneName::root().child("invalid");
    records.extend(invalid.map(|invalid| record(catalog.clone(), RecordData::Ns(invalid))));
    records.extend(catalog.child("version").map(|owner| record(owner, RecordData::Txt(CATALOG_VERSION))));
    if let Some(zones) = catalog.child("zones") {
        let member = |member: &ZoneName| {
            let owner = zones.child(&member_label(member))?;
            Some(record(owner, RecordData::Ptr(member.clone())))
        };
        records.extend(members.iter().filter_map(member));
    }
    records
}

/// The label under which a zone is listed: always the same, because with another one a secondary begins the zone anew
/// (RFC 9432, 4.1).
fn member_label(zone: &ZoneName) -> String {
    HEXLOWER.encode(&digest::digest(&digest::SHA256, zone.wire()).as_ref()[..MEMBER_OCTETS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        table::{Knowledge, ZoneSettings},
        types::{NodeSet, ZoneState},
    };

    fn name(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    fn zone(text: &str, settings: ZoneSettings, nodes: &[&str]) -> Arc<ZoneEntry> {
        let entry = ZoneEntry::new(name(text), settings, 1000);
        if let Some(nodes) = NodeSet::new(nodes.iter().map(|node| node.parse().unwrap())) {
            entry.learn(&Knowledge::up(&nodes, ZoneState::Live), 2000);
        }
        Arc::new(entry)
    }

    fn shown(content: &ZoneContent) -> Vec<String> {
        let data = |record: &Record| match &record.data {
            RecordData::Soa(soa) => format!("SOA {} {} {} {}", soa.primary, soa.responsible, soa.serial, soa.minimum),
            RecordData::Ns(name) => format!("NS {name}"),
            RecordData::A(v4) => format!("A {v4}"),
            RecordData::Aaaa(v6) => format!("AAAA {v6}"),
            RecordData::Ptr(name) => format!("PTR {name}"),
            RecordData::Txt(text) => format!("TXT {text}"),
        };
        content.records.iter().map(|record| format!("{} {} {}", record.owner, record.ttl, data(record))).collect()
    }

    #[test]
    fn a_zone_has_what_is_answered_for_it() {
        let servers = [
            (name("ns1.a.example"), vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
            (name("ns.elsewhere.example"), vec![]),
            (name("ns.b.a.example"), vec!["192.0.2.3".parse().unwrap()]),
        ];
        let settings =
            ZoneSettings { name_servers: NameServers::new(servers), subdomains: true, ..ZoneSettings::example() };
        let below = zone("b.a.example", settings.clone(), &[]);
        let settings = ZoneSettings { delegations: Arc::from([name("b.a.example")]), ..settings };
        let a = zone("a.example", settings, &["10.0.0.2", "10.0.0.1", "2001:db8::2"]);
        let table = ZoneTable::new([a.clone(), below.clone()]);
        assert_eq!(
            shown(&ZoneContent::of_zone(&table, &a).unwrap()),
            [
                "a.example. 4 SOA ns1.a.example. hostmaster.a.example. 2000 4",
                "a.example. 3600 NS ns1.a.example.",
                "a.example. 3600 NS ns.elsewhere.example.",
                "a.example. 3600 NS ns.b.a.example.",
                "ns1.a.example. 3600 A 192.0.2.1",
                "ns1.a.example. 3600 AAAA 2001:db8::1",
                "b.a.example. 3600 NS ns1.a.example.",
                "b.a.example. 3600 NS ns.elsewhere.example.",
                "b.a.example. 3600 NS ns.b.a.example.",
                "ns.b.a.example. 3600 A 192.0.2.3",
                "a.example. 4 A 10.0.0.1",
                "a.example. 4 A 10.0.0.2",
                "a.example. 4 AAAA 2001:db8::2",
                "*.a.example. 4 A 10.0.0.1",
                "*.a.example. 4 A 10.0.0.2",
                "*.a.example. 4 AAAA 2001:db8::2",
            ]
        );
        assert!(ZoneContent::of_zone(&table, &below).is_none(), "it waits for its first list");
        below.learn(&Knowledge::Waiting(NodeSet::new(["10.0.0.9".parse().unwrap()])), 2000);
        assert!(ZoneContent::of_zone(&table, &below).is_none(), "seeds are a guess");
    }

    #[test]
    fn the_number_of_addresses_is_bounded_for_each_family() {
        let nodes: Vec<_> = (1..=20).flat_map(|n| [format!("10.0.0.{n}"), format!("2001:db8::{n}")]).collect();
        let nodes: Vec<_> = nodes.iter().map(String::as_str).collect();
        let a = zone("a.example", ZoneSettings::example(), &nodes);
        let content = ZoneContent::of_zone(&ZoneTable::new([a.clone()]), &a).unwrap();
        let count = |wanted: &dyn Fn(&RecordData) -> bool| content.records.iter().filter(|r| wanted(&r.data)).count();
        assert_eq!(count(&|data| matches!(data, RecordData::A(_))), 8);
        assert_eq!(count(&|data| matches!(data, RecordData::Aaaa(_))), 8);
    }

    #[test]
    fn the_catalog_lists_each_zone_under_a_label_of_its_own() {
        let catalog = name("catalog.invalid");
        let zones = || [name("b.example"), name("a.example")].into_iter();
        let first = Catalog::new(&catalog, zones(), None, None, 1000);
        let records = shown(&first.content);
        assert_eq!(
            records[..3],
            [
                "catalog.invalid. 3600 SOA catalog.invalid. hostmaster.catalog.invalid. 1000 3600",
                "catalog.invalid. 3600 NS invalid.",
                "version.catalog.invalid. 3600 TXT 2"
            ]
        );
        assert!(records[3].ends_with(".zones.catalog.invalid. 3600 PTR a.example."), "{records:?}");
        assert_eq!(records.len(), 5);
        let same = Catalog::new(&catalog, zones(), Some(&first), None, 2000);
        assert_eq!(same.content.serial, 1000);
        let fewer = Catalog::new(&catalog, zones().skip(1), Some(&first), None, 900);
        assert_eq!((fewer.content.serial, fewer.content.records.len()), (1001, 4), "the clock went back");
        assert_eq!(shown(&fewer.content)[3], records[3], "the label stays");
        let restarted = Catalog::new(&catalog, zones(), None, Some(5000), 2000);
        assert_eq!(restarted.content.serial, 5001);
    }
}

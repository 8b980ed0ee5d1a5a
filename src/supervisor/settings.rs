//! What a configuration means to the zone table.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::plan::Plan;
use crate::{
    config::{Config, Server, TcpLimits, Zone},
    server::Limits,
    table::{
        self, CookieSecrets, DomainEntry, DomainSettings, Limiter, NameServers, View, ViewRole, ZoneEntry,
        ZoneSettings, ZoneTable, ZoneViews,
    },
    types::{Ttl, ZoneName, suffixes},
};

/// TTL of negative answers about domains without nodes: zones appear below them with an edit of the file.
const DOMAIN_NEGATIVE_TTL: Ttl = Ttl::from_secs(5).expect("5 seconds are less than a day");

/// The entries of the zones that are wanted: those that stay, with other settings where the file changes them, and new
/// ones, whose serials begin as `first_serial` says. What does not change is not even looked at, unless the names of servers do: a reload that adds one zone to ten
/// thousand must be cheap.
pub(super) fn entries(
    before: &ZoneTable,
    in_force: Option<&Config>,
    wanted: &Config,
    plan: &Plan,
    (now, first_serial): (u32, &dyn Fn(&ZoneName) -> u32),
) -> Vec<Arc<ZoneEntry>> {
    let delegations = Delegations::of(wanted);
    let settings = |name: &ZoneName, zone: &Zone| settings(name, zone, wanted, delegations.below(name));
    let reconfigure = |(name, zone): (&ZoneName, &Zone)| {
        if let Some(entry) = before.zone(name) {
            configure(entry, settings(name, zone), now);
        }
    };
    if in_force.is_some_and(|config| names_alike(&config.server, &wanted.server)) {
        plan.changed.iter().filter_map(|(name, _)| wanted.zones.get_key_value(name)).for_each(reconfigure);
        let has_others =
            |entry: &&Arc<ZoneEntry>| *entry.answers().settings.delegations != *delegations.below(entry.name());
        let parents = before.entries().filter(has_others);
        parents.filter_map(|entry| wanted.zones.get_key_value(entry.name())).for_each(reconfigure);
    } else {
        wanted.zones.iter().for_each(reconfigure);
    }
    let added = plan.added.iter().filter_map(|name| wanted.zones.get_key_value(name));
    let added =
        added.map(|(name, zone)| Arc::new(ZoneEntry::new(name.clone(), settings(name, zone), first_serial(name))));
    let stay = before.entries().filter(|entry| plan.removed.binary_search(entry.name()).is_err());
    stay.cloned().chain(added).collect()
}

/// The views of each zone that has any: entries that stay, with other settings where the file changes them, and new ones.
pub(super) fn views(before: &ZoneTable, wanted: &Config, now: u32) -> Vec<(ZoneName, ZoneViews)> {
    let known = before.view_entries();
    let entry = |key: ZoneName, polled: &Zone| {
        let settings = ZoneSettings { views: ViewRole::IsView, ..zone_settings(polled, NameServers::default(), &[]) };
        match known.get(&key) {
            Some(entry) => {
                configure(entry, settings, now);
                Arc::clone(entry)
            }
            None => Arc::new(ZoneEntry::new(key, settings, now)),
        }
    };
    let of_zone = |(name, zone): (&ZoneName, &Zone)| {
        let views = zone.views.iter().filter_map(|view| {
            let (key, polled) = wanted.views.get_key_value(&view.key(name))?;
            Some(View::new(view.clients.clone(), entry(key.clone(), polled)))
        });
        (name.clone(), ZoneViews::new(views))
    };
    wanted.zones.iter().filter(|(_, zone)| !zone.views.is_empty()).map(of_zone).collect()
}

fn configure(entry: &ZoneEntry, settings: ZoneSettings, now: u32) {
    if *entry.answers().settings != settings {
        entry.configure(&settings, now);
    }
}

/// The zones directly below each zone, in order. Most zones have none.
struct Delegations<'c>(BTreeMap<&'c ZoneName, Vec<ZoneName>>);

impl<'c> Delegations<'c> {
    fn of(config: &'c Config) -> Self {
        let mut below: BTreeMap<&ZoneName, Vec<ZoneName>> = BTreeMap::new();
        for zone in config.zones.keys() {
            let above = suffixes(zone.wire()).skip(1).find_map(|name| config.zones.get_key_value(name));
            if let Some((above, _)) = above {
                below.entry(above).or_default().push(zone.clone());
            }
        }
        Self(below)
    }

    fn below(&self, zone: &ZoneName) -> &[ZoneName] {
        self.0.get(zone).map_or(&[], Vec::as_slice)
    }
}

fn settings(name: &ZoneName, zone: &Zone, config: &Config, delegations: &[ZoneName]) -> ZoneSettings {
    zone_settings(zone, name_servers(name, &config.server), delegations)
}

fn zone_settings(zone: &Zone, name_servers: NameServers, delegations: &[ZoneName]) -> ZoneSettings {
    ZoneSettings {
        ttl: zone.ttl,
        count: zone.answers,
        subdomains: zone.subdomains,
        max_addresses: zone.max_addresses,
        negative_ttl: zone.negative_ttl,
        name_servers,
        delegations: delegations.into(),
        rules: zone.rules.clone(),
        clients: zone.clients.clone(),
        views: if zone.views.is_empty() { ViewRole::Plain } else { ViewRole::HasViews },
    }
}

/// The entry that a domain has, or a new one.
pub(super) fn domain(before: &ZoneTable, name: &ZoneName, config: &Config, now: u32) -> Arc<DomainEntry> {
    let settings = DomainSettings {
        negative_ttl: DOMAIN_NEGATIVE_TTL,
        name_servers: name_servers(name, &config.server),
        clients: config.server.clients.clone(),
    };
    match before.domain(name) {
        Some(entry) => {
            if entry.answers().settings != settings {
                entry.configure(&settings, now);
            }
            entry.clone()
        }
        None => Arc::new(DomainEntry::new(name.clone(), settings, now)),
    }
}

/// What holds for every question. Counts of a limit that stays the same go on.
pub(super) fn server(
    before: &ZoneTable,
    config: &Config,
    cookies: Arc<ArcSwap<CookieSecrets>>,
) -> table::ServerSettings {
    let Config { server: config, forward, .. } = config;
    let limiter = config.rate_limit.map(|limit| {
        let kept = before.server().limiter.clone().filter(|limiter| limiter.limit() == limit);
        kept.unwrap_or_else(|| Arc::new(Limiter::new(limit)))
    });
    let tenths = config.tcp.idle.as_millis() / 100;
    table::ServerSettings {
        clients: config.clients.clone(),
        forward: forward.as_ref().map(|forward| forward.clients.clone()),
        id: config.nsid.as_deref().map(Arc::from),
        version: config.version.as_deref().map(Arc::from),
        keepalive: u16::try_from(tenths).unwrap_or(u16::MAX),
        cookies,
        limiter,
    }
}

/// What clients may take over TCP.
pub(super) fn limits(server: &Server) -> Limits {
    let TcpLimits { max_connections, max_per_client, idle, message } = server.tcp;
    Limits { max_connections, max_per_client, idle, message, ..Limits::default() }
}

/// Whether every zone has the same [`name_servers`] with both.
fn names_alike(one: &Server, other: &Server) -> bool {
    one.nameservers == other.nameservers && one.listen == other.listen
}

/// The configured name servers; without any `ns.<zone>`, which has the addresses that we listen on. Of the root zone
/// there is no such name: it answers every name with a node.
fn name_servers(zone: &ZoneName, server: &Server) -> NameServers {
    if !server.nameservers.is_empty() {
        return NameServers::new(server.nameservers.iter().cloned());
    }
    let specific: Vec<IpAddr> =
        server.listen.iter().map(SocketAddr::ip).filter(|address| !address.is_unspecified()).collect();
    match zone.child("ns") {
        Some(ns) if !specific.is_empty() && !zone.is_root() => NameServers::new([(ns, specific)]),
        _ => NameServers::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::plan;
    use super::*;
    use std::{collections::BTreeMap, path::Path};

    const A: &str = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n";
    const B: &str = "[zones.\"b\"]\nseeds = [\"10.0.0.2\"]\n";

    fn config(parts: &[&str]) -> Config {
        Config::parse(Path::new("z.toml"), parts.concat().as_bytes()).unwrap()
    }

    fn start(config: &Config) -> ZoneTable {
        let plan = plan(&BTreeMap::new(), &config.zones);
        ZoneTable::new(entries(&ZoneTable::default(), None, config, &plan, (1, &|_| 1)))
    }

    fn reload(table: &ZoneTable, before: &Config, after: &Config) -> ZoneTable {
        let plan = plan(&before.zones, &after.zones);
        ZoneTable::new(entries(table, Some(before), after, &plan, (2, &|_| 2)))
    }

    #[test]
    fn a_reload_ends_where_a_start_with_that_file_would() {
        let server = |keys: &str| format!("[server]\n{keys}\n");
        let one = server("listen = [\"10.9.0.1:53\"]");
        let other = server("listen = [\"10.9.0.2:53\"]");
        let named = server("listen = [\"10.9.0.2:53\"]\nnameservers = [{ name = \"ns.test\" }]");
        let steps = [
            config(&[&one, A]),
            config(&[&one, A, B]),
            config(&[&one, A, "ttl = \"9s\"\n", B]),
            config(&[&other, A, "ttl = \"9s\"\n", B]),
            config(&[&named, B]),
            config(&[&named, A]),
            config(&[&one, A, B, "subdomains = true\n"]),
        ];
        let mut table = start(&steps[0]);
        for (before, after) in steps.iter().zip(&steps[1..]) {
            table = reload(&table, before, after);
            assert_eq!(table.len(), after.zones.len());
            for (name, zone) in &after.zones {
                assert_eq!(*table.zone(name).unwrap().answers().settings, settings(name, zone, after, &[]), "{name}");
            }
        }
    }

    #[test]
    fn a_view_that_does_not_change_keeps_its_entry() {
        let view = |network: &str, rack: &str| {
            format!("{{ clients = [\"{network}\"], scope = [{{ datacenter = \"d\", rack = \"{rack}\" }}] }}")
        };
        let with = |views: &[String]| config(&[A, &format!("views = [{}]\n", views.join(", ")), B]);
        let [one, other] = [view("10.0.1.0/24", "a"), view("10.0.2.0/24", "b")];
        let build = |before: &ZoneTable, wanted: &Config| {
            let plan = plan(&BTreeMap::new(), &wanted.zones);
            let entries = entries(&ZoneTable::default(), None, wanted, &plan, (1, &|_| 1));
            ZoneTable::new(entries).with_views(views(before, wanted, 1))
        };
        let seen = |table: &ZoneTable, client: [u8; 4]| {
            let zone = table.zone(&ZoneName::parse("a").unwrap()).unwrap().id();
            Some(table.views(zone)?.of(client.into())?.row.id)
        };
        let first = build(&ZoneTable::default(), &with(&[one.clone(), other.clone()]));
        let [was_one, was_other] = [[10, 0, 1, 1], [10, 0, 2, 1]].map(|client| seen(&first, client));
        assert!(was_one.is_some() && was_other.is_some() && was_one != was_other);
        let turned = build(&first, &with(&[other.clone(), one]));
        assert_eq!((seen(&turned, [10, 0, 1, 1]), seen(&turned, [10, 0, 2, 1])), (was_one, was_other));
        let fewer = build(&turned, &with(&[other]));
        assert_eq!((seen(&fewer, [10, 0, 1, 1]), seen(&fewer, [10, 0, 2, 1])), (None, was_other));
        assert!(build(&fewer, &config(&[A, B])).all_views().next().is_none());
    }

    #[test]
    fn a_zone_that_does_not_change_is_left_alone() {
        let before = config(&[A, B]);
        let after = config(&[A, B, "ttl = \"9s\"\n", "[zones.\"c\"]\nseeds = [\"10.0.0.3\"]\n"]);
        let table = start(&before);
        let entry = |table: &ZoneTable, zone: &str| table.zone(&ZoneName::parse(zone).unwrap()).unwrap().clone();
        let [a, b] = ["a", "b"].map(|zone| (entry(&table, zone), entry(&table, zone).answers().clone()));
        let table = reload(&table, &before, &after);
        assert!(Arc::ptr_eq(&entry(&table, "a"), &a.0) && Arc::ptr_eq(&entry(&table, "a").answers(), &a.1));
        assert!(Arc::ptr_eq(&entry(&table, "b"), &b.0) && !Arc::ptr_eq(&entry(&table, "b").answers(), &b.1));
    }
}

//! What a configuration means to the zone table.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    config::{Config, Server, Zone},
    table::{NameServers, Settings, ZoneEntry, ZoneTable},
    zone::ZoneName,
};

/// The entry that a zone has, or a new one; either way with these settings.
pub(super) fn entry(before: &ZoneTable, name: &ZoneName, settings: Settings, now: u32) -> Arc<ZoneEntry> {
    match before.zone(name) {
        Some(entry) => {
            if *entry.answers().settings != settings {
                entry.configure(&settings, now);
            }
            entry.clone()
        }
        None => Arc::new(ZoneEntry::new(name.clone(), settings, now)),
    }
}

pub(super) fn settings(name: &ZoneName, zone: &Zone, config: &Config) -> Settings {
    Settings {
        ttl: zone.ttl,
        count: zone.answers,
        subdomains: zone.subdomains,
        negative_ttl: zone.negative_ttl,
        name_servers: name_servers(name, &config.server),
        rules: zone.rules.clone(),
    }
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

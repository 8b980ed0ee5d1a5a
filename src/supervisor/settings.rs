//! What a configuration means to the zone table.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;

use crate::{
    config::{Config, Server, TcpLimits, Zone},
    server::Limits,
    table::{self, CookieSecrets, Limiter, NameServers, Settings, ZoneEntry, ZoneTable},
    zone::{AddressRules, AnswerCount, Ttl, ZoneName},
};

/// TTL of negative answers about domains without nodes: zones appear below them with an edit of the file.
const DOMAIN_NEGATIVE_TTL: Ttl = Ttl::from_secs(5).expect("5 seconds are less than a day");

/// The entry that a zone has, or a new one; either way with these settings.
pub(super) fn entry(before: &ZoneTable, name: &ZoneName, settings: Settings, now: u32) -> Arc<ZoneEntry> {
    match before.zone(name) {
        Some(entry) => {
            configure(entry, settings, now);
            entry.clone()
        }
        None => Arc::new(ZoneEntry::new(name.clone(), settings, now)),
    }
}

fn configure(entry: &ZoneEntry, settings: Settings, now: u32) {
    if *entry.answers().settings != settings {
        entry.configure(&settings, now);
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
        clients: zone.clients.clone(),
    }
}

/// The entry that a domain has, or a new one.
pub(super) fn domain(before: &ZoneTable, name: &ZoneName, config: &Config, now: u32) -> Arc<ZoneEntry> {
    let settings = Settings {
        ttl: DOMAIN_NEGATIVE_TTL,
        count: AnswerCount::ONE,
        subdomains: false,
        negative_ttl: DOMAIN_NEGATIVE_TTL,
        name_servers: name_servers(name, &config.server),
        rules: AddressRules::default(),
        clients: config.server.clients.clone(),
    };
    match before.domain(name) {
        Some(entry) => {
            configure(entry, settings, now);
            entry.clone()
        }
        None => Arc::new(ZoneEntry::domain(name.clone(), settings, now)),
    }
}

/// What holds for every question. Counts of a limit that stays the same go on.
pub(super) fn server(before: &ZoneTable, config: &Config, cookies: Arc<ArcSwap<CookieSecrets>>) -> table::Server {
    let Config { server: config, forward, .. } = config;
    let limiter = config.rate_limit.map(|limit| {
        let kept = before.server().limiter.clone().filter(|limiter| limiter.limit() == limit);
        kept.unwrap_or_else(|| Arc::new(Limiter::new(limit)))
    });
    let tenths = config.tcp.idle.as_millis() / 100;
    table::Server {
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

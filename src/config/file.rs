//! Reads a file: takes every known key and reports the keys that are left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    path::PathBuf,
};

use rustc_hash::{FxBuildHasher, FxHashMap};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Forward, Server, Zone,
    diagnostic::{Errors, Lines, SpannedError},
    forward_keys::{ForwardKeys, read_forward},
    hints::{self, Explained},
    keys::Keys,
    sections::name_owners,
    server_keys::{ServerKeys, read_server},
    syntax::screen,
    value::{self, Read, Value},
    zone_keys::{ZONE_KEYS, ZoneKeys, read_zone_keys},
};
use crate::types::{AllowedClients, Seed, ZoneName};

const TOP_KEYS: [&str; 4] = ["server", "forward", "defaults", "zones"];

const TOP_KEYS_LATER: [&str; 1] = ["transfer"];

/// What a file says.
pub(super) struct Content {
    pub(super) server: Server,
    pub(super) forward: Option<Forward>,
    pub(super) zones: BTreeMap<ZoneName, Zone>,
    /// The line of each zone.
    pub(super) zone_lines: BTreeMap<ZoneName, usize>,
}

/// Reads a whole file and appends what is wrong to `errors`; `None` when there is any error.
pub(super) fn read(text: &str, errors: &mut Errors) -> Option<Content> {
    if let Some(screened) = screen(text, &TOP_KEYS) {
        errors.append(hints::explain(text, screened).errors);
        return None;
    }
    let (root, syntax) = DeTable::parse_recoverable(text);
    if syntax.is_empty() {
        return read_tables(text, root.into_inner(), errors);
    }
    let syntax = hints::explain(text, syntax_errors(text, syntax));
    let mut others = Errors::default();
    read_tables(text, root.into_inner(), &mut others);
    errors.extend(without_consequences(text, &syntax, others));
    errors.append(syntax.errors);
    None
}

fn read_tables(text: &str, root: DeTable<'_>, errors: &mut Errors) -> Option<Content> {
    let mut keys = Keys::new(root, "this file".to_owned());
    let (server, more) = keys.sub_table("server").map(read_server).unwrap_or_default();
    errors.append(more);
    let (forward, more) = read_forward(&mut keys).unzip();
    errors.append(more.unwrap_or_default());
    let (mut defaults, more) = keys.sub_table("defaults").map(read_zone_keys).unwrap_or_default();
    errors.append(more);
    if let Some(seeds) = defaults.seeds.take() {
        errors.push(SpannedError::new(seeds.span(), "seeds belong to one zone, not to [defaults]"));
    }
    let zones = keys.take("zones", |zones| value::table(zones, "[zones.\"name\"] tables"));
    errors.append(keys.finish(&TOP_KEYS, &TOP_KEYS_LATER));
    let clients = server.clients.clone().unwrap_or_default();
    let zones = read_zones(text, zones.unwrap_or_default(), &defaults, &clients, errors);
    if zones.is_empty() && errors.is_empty() {
        errors.push(SpannedError::missing(0..0, "no zone; add [zones.\"alternator.example.com\"] with its seeds"));
    }
    errors.append(cross_checks(&server, &zones));
    if let Some(forward) = &forward {
        let root = zones.get(&ZoneName::root()).map(|root| root.span.clone());
        errors.append(forward.cross_checks(&server.addresses(), root));
    }
    name_owners(errors);
    if !errors.is_empty() {
        return None;
    }
    let mut zones: Vec<_> = zones.into_iter().collect();
    zones.sort_by_cached_key(|(name, _)| name.clone());
    let lines = Lines::new(text);
    let zone_lines = zones.iter().map(|(name, read)| (name.clone(), lines.line(read.span.start))).collect();
    let zones = zones.into_iter().map(|(name, read)| (name, read.zone)).collect();
    Some(Content { server: server.resolve(), forward: forward.map(ForwardKeys::resolve), zones, zone_lines })
}

/// `state_dir` of a file that may have errors.
pub(super) fn state_dir(text: &str) -> Option<PathBuf> {
    if screen(text, &TOP_KEYS).is_some() {
        return None;
    }
    let (root, _) = DeTable::parse_recoverable(text);
    let directory = root.get_ref().get("server")?.get_ref().get("state_dir")?.get_ref().as_str()?;
    (!directory.is_empty()).then(|| directory.into())
}

/// The first error of each line; the others are mostly consequences of it.
fn syntax_errors(text: &str, syntax: Vec<toml::de::Error>) -> Errors {
    let lines = Lines::new(text);
    let mut seen = BTreeSet::new();
    let located = syntax.into_iter().map(|error| (error.span().unwrap_or_default(), error));
    let first = located.filter(|(span, _)| seen.insert(lines.line(span.start)));
    first.map(|(span, error)| SpannedError::new(span, error.message().trim().replace('\n', "; "))).collect()
}

/// The errors that remain beside errors of syntax: keys that seem missing may only be unreadable, a key that seems unknown
/// may follow the broken name of its section, and one error for each line is enough.
fn without_consequences(text: &str, syntax: &Explained, mut others: Errors) -> Vec<SpannedError> {
    let lines = Lines::new(text);
    let mut seen: BTreeSet<_> = syntax.errors.list().iter().map(|error| lines.line(error.span.start)).collect();
    let broken = seen.clone();
    let is_section = |line: &usize| lines.text(*line).trim_start().starts_with('[');
    let is_consequence = |error: &SpannedError| {
        let section = || (1..lines.line(error.span.start)).rev().find(is_section);
        error.about_missing
            || error.span.start >= syntax.readable_to
            || error.unknown_key.is_some() && section().is_some_and(|section| broken.contains(&section))
    };
    let list = std::mem::take(others.list_mut());
    list.into_iter().filter(|error| !is_consequence(error) && seen.insert(lines.line(error.span.start))).collect()
}

/// The zones of a file, unsorted: they are sorted once, when all of them are known.
type Zones = FxHashMap<ZoneName, ReadZone>;

/// A zone, and the spans of its name and its seeds.
struct ReadZone {
    zone: Zone,
    span: Range<usize>,
    seeds: Vec<Spanned<Seed>>,
}

fn read_zones(
    text: &str,
    table: DeTable<'_>,
    defaults: &ZoneKeys,
    clients: &AllowedClients,
    errors: &mut Errors,
) -> Zones {
    let mut entries: Vec<_> = table.into_iter().collect();
    // Entries are large; an ordinary sort would move them at each of its steps.
    entries.sort_by_cached_key(|(key, _)| key.span().start);
    let mut zones = Zones::with_capacity_and_hasher(entries.len(), FxBuildHasher);
    let mut names = FxHashMap::with_capacity_and_hasher(entries.len(), FxBuildHasher);
    let mut lines = None;
    for (key, value) in entries {
        let span = key.span();
        if let Some(path) = unquoted(key.get_ref(), value.get_ref()) {
            let message = format!("the dots in a zone's name need quotes; write [zones.\"{path}\"]");
            errors.push(SpannedError::new(span, message));
            continue;
        }
        let name = match ZoneName::parse(key.get_ref()) {
            Ok(name) => name,
            Err(error) => {
                let reason = value::name_reason(key.get_ref(), &error);
                errors.push(SpannedError::new(span, format!("zone {:?} {reason}", key.get_ref())));
                continue;
            }
        };
        if let Some(first) = names.get(&name) {
            let first = lines.get_or_insert_with(|| Lines::new(text)).line(*first);
            let message = format!("zone {name} is defined twice; it is in line {first} already");
            errors.push(SpannedError::new(span, message));
            continue;
        }
        names.insert(name.clone(), span.start);
        match read_zone(&name, span, value, defaults, clients) {
            Ok(zone) => _ = zones.insert(name, zone),
            Err(more) => errors.append(more),
        }
    }
    zones
}

fn read_zone(
    name: &ZoneName,
    span: Range<usize>,
    value: Value<'_>,
    defaults: &ZoneKeys,
    clients: &AllowedClients,
) -> Read<ReadZone> {
    let table = value::table(value, "a table with the zone's keys")?;
    let has_seeds = table.contains_key("seeds");
    let (mut keys, mut errors) = read_zone_keys(Keys::new(table, fmt::from_fn(|f| write!(f, "zone {name}"))));
    if !has_seeds {
        let message = format!("zone {name} has no seeds; add seeds = [\"address or host name of a node\", ...]");
        errors.push(SpannedError::missing(span.clone(), message));
    }
    if let Some(seeds) = &keys.seeds
        && seeds.get_ref().is_empty()
    {
        let message = format!("zone {name} has an empty list of seeds; name at least one node");
        errors.push(SpannedError::new(seeds.span(), message));
    }
    match keys.seeds.take() {
        Some(seeds) if errors.is_empty() => {
            let zone = keys.resolve(name, seeds.get_ref(), defaults, clients)?;
            Ok(ReadZone { zone, span, seeds: seeds.into_inner() })
        }
        _ => Err(errors),
    }
}

/// TOML reads `[zones.a.example.com]` without quotes as nested tables; returns the name that was meant. A table with
/// seeds is a zone, whatever else is in it.
fn unquoted(key: &str, value: &DeValue<'_>) -> Option<String> {
    let table = value.as_table()?;
    if table.contains_key("seeds") {
        return None;
    }
    let (inner_key, inner) = table.iter().find(|(inner_key, inner)| {
        let name = inner_key.get_ref().as_ref();
        inner.get_ref().is_table() && !ZONE_KEYS.iter().any(|key| key.name == name)
    })?;
    let rest = unquoted(inner_key.get_ref(), inner.get_ref()).unwrap_or_else(|| inner_key.get_ref().to_string());
    Some(format!("{key}.{rest}"))
}

/// Checks that concern more than one key or zone.
fn cross_checks(server: &ServerKeys, zones: &Zones) -> Errors {
    let mut errors = Vec::new();
    for read in zones.values() {
        for seed in &read.seeds {
            if let Seed::Host(host) = seed.get_ref()
                && let Some(outer) = enclosing(host, server, zones)
            {
                let seed_name = seed.get_ref();
                let message = format!(
                    "seed {seed_name} lies inside this server's {outer}, so looking it up would need this server; use an address"
                );
                errors.push(SpannedError::new(seed.span(), message));
            }
        }
    }
    errors.sort_by_key(|error: &SpannedError| error.span.start);
    let mut errors: Errors = errors.into_iter().collect();
    for domain in &server.domains {
        if zones.contains_key(domain.get_ref()) {
            let message = format!("{} is a zone already, so it cannot be in domains as well", domain.get_ref());
            errors.push(SpannedError::new(domain.span(), message));
        }
    }
    for nameserver in &server.nameservers {
        let (name, addresses) = nameserver.get_ref();
        if zones.contains_key(name) || server.has_domain(name) {
            let what = if zones.contains_key(name) { "zone" } else { "domain" };
            let message = format!("name server {name} is a {what}; give the server a name of its own");
            errors.push(SpannedError::new(nameserver.span(), message));
        } else if addresses.is_empty()
            && let Some(outer) = enclosing(name, server, zones)
        {
            let message = format!("name server {name} lies inside this server's {outer}; add its addresses");
            errors.push(SpannedError::missing(nameserver.span(), message));
        }
    }
    let exposed = server.dns_addresses().into_iter().find(|address| !address.ip().is_loopback());
    if let Some(root) = zones.get(&ZoneName::root())
        && let Some(address) = exposed
        && !server.answer_everything
    {
        let message = format!(
            "zone \".\" answers every name to every client that reaches {address}; listen on loopback only, or set answer_everything = true in [server]"
        );
        errors.push(SpannedError::new(root.span.clone(), message));
    }
    errors
}

/// Describes the zone or domain of this server that contains a name.
fn enclosing(name: &ZoneName, server: &ServerKeys, zones: &Zones) -> Option<String> {
    crate::types::suffixes(name.wire()).find_map(|suffix| match zones.get_key_value(suffix) {
        Some((zone, _)) => Some(format!("zone {zone}")),
        None => server
            .domains
            .iter()
            .find(|domain| domain.get_ref().wire() == suffix)
            .map(|domain| format!("domain {}", domain.get_ref())),
    })
}

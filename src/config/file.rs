//! Reads the files: takes every known key and reports the keys that are left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

use rustc_hash::FxHashMap;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Forward, IncludePattern, Server, Transfer, Zone,
    diagnostic::{Errors, SpannedError},
    forward_keys::{ForwardKeys, read_forward},
    hints::{self, Explained},
    keys::Keys,
    parts::{Parts, ZONES_MAX, cut, too_many_zones},
    sections::name_owners,
    server_keys::{ServerKeys, read_server},
    syntax::screen,
    texts::{Lines, Text, Texts},
    transfer_keys::{TransferKeys, read_transfer},
    value::{self, Read, Value},
    zone_keys::{ZONE_KEYS, ZoneKeys, read_zone_keys},
};
use crate::types::{AllowedClients, Seed, ZoneName};

const TOP_KEYS: [&str; 5] = ["server", "forward", "transfer", "defaults", "zones"];

/// What the files say.
pub(super) struct Content {
    pub(super) server: Server,
    pub(super) forward: Option<Forward>,
    pub(super) transfer: Option<Transfer>,
    pub(super) zones: BTreeMap<ZoneName, Zone>,
    /// Of each zone the number of its file, and the line.
    pub(super) zone_places: BTreeMap<ZoneName, (usize, usize)>,
}

/// Reads whole files, the main one first, and appends what is wrong to `errors`; `None` when there is any error.
pub(super) fn read(texts: &Texts<'_>, errors: &mut Errors) -> Option<Content> {
    let mut files = Vec::with_capacity(texts.list().len());
    let mut rests = Vec::with_capacity(texts.list().len());
    let mut zones = 0;
    for text in texts.list() {
        match parts(text) {
            Ok(parts) => {
                let were_few = zones <= ZONES_MAX;
                zones += parts.zones.len();
                if were_few && zones > ZONES_MAX {
                    errors.push(SpannedError::new(text.start..text.start, too_many_zones()));
                }
                files.push(File { text, zones: parts.zones, syntax: Errors::default() });
                rests.push(parts.rest);
            }
            Err(refused) => errors.append(refused.shifted(text.start)),
        }
    }
    if !errors.is_empty() {
        return None;
    }
    let mut others = Errors::default();
    let content = read_parts(texts, &mut files, &rests, &mut others);
    if files.iter().all(|file| file.syntax.is_empty()) {
        errors.append(others);
        return content;
    }
    let mut others = std::mem::take(others.list_mut());
    for (number, File { text, syntax, .. }) in files.into_iter().enumerate() {
        let own = others.extract_if(.., |error| texts.number(error.span.start) == number);
        if syntax.is_empty() {
            errors.extend(own);
            continue;
        }
        let own: Errors = own.map(|error| error.shifted_back(text.start)).collect();
        let syntax = hints::explain(text.text, &text.lines, syntax);
        let own: Errors = without_consequences(&text.lines, &syntax, own).into_iter().collect();
        errors.append(own.shifted(text.start));
        errors.append(syntax.errors.shifted(text.start));
    }
    None
}

/// The parts of a file, or why it is no configuration at all.
fn parts(Text { text, lines, .. }: &Text<'_>) -> Result<Parts, Errors> {
    let refused = screen(text, lines, &TOP_KEYS).map_or_else(|| cut(text).map_err(Errors::from), Err);
    refused.map_err(|refused| hints::explain(text, lines, refused).errors)
}

/// A file that is read.
struct File<'t> {
    text: &'t Text<'t>,
    /// Where the sections of each zone are.
    zones: Vec<Range<usize>>,
    /// Its errors of syntax, with their places in it.
    syntax: Errors,
}

impl File<'_> {
    /// The tree of what is in no section of a zone.
    fn tree<'r>(&mut self, rest: &'r str) -> DeTable<'r> {
        parse(rest, 0, &self.text.lines, &mut self.syntax)
    }

    /// Reads the zones: those of the rest, and those that have parts of their own.
    fn read_zones(&mut self, rest: Option<DeTable<'_>>, zones: &mut ZoneReader<'_>, errors: &mut Errors) {
        let Self { text, zones: sections, syntax } = self;
        errors.append(zones.read(rest.unwrap_or_default(), text.start));
        for section in sections {
            let start = text.start + section.start;
            let mut root = parse(&text.text[section.clone()], section.start, &text.lines, syntax);
            let read = root.remove("zones").map(zones_table).unwrap_or(Ok(DeTable::default()));
            errors.append(read.map_or_else(|more| more.shifted(start), |table| zones.read(table, start)));
        }
    }
}

/// Reads all files, and of each the rest first: that of the main one has `[defaults]`. `None` when there is any error.
fn read_parts(texts: &Texts<'_>, files: &mut [File<'_>], rests: &[String], errors: &mut Errors) -> Option<Content> {
    let ((main, included), (main_rest, included_rests)) = (files.split_first_mut()?, rests.split_first()?);
    let mut keys = Keys::new(main.tree(main_rest), "this file".to_owned());
    let (server, more) = keys.sub_table("server").map(read_server).unwrap_or_default();
    errors.append(more);
    let (forward, more) = read_forward(&mut keys).unzip();
    errors.append(more.unwrap_or_default());
    let (transfer, more) = read_transfer(&mut keys).unzip();
    errors.append(more.unwrap_or_default());
    let (mut defaults, more) = keys.sub_table("defaults").map(read_zone_keys).unwrap_or_default();
    errors.append(more);
    if let Some(seeds) = defaults.seeds.take() {
        errors.push(SpannedError::new(seeds.span(), "seeds belong to one zone, not to [defaults]"));
    }
    let rest = keys.take("zones", zones_table);
    errors.append(keys.finish(&TOP_KEYS, &[]));
    let clients = server.clients.clone().unwrap_or_default();
    let mut zones = ZoneReader::new(texts, &defaults, &clients);
    main.read_zones(rest, &mut zones, errors);
    for (file, rest) in included.iter_mut().zip(included_rests) {
        let (rest, more) = included_zones(file.tree(rest), main.text.path);
        errors.append(more.shifted(file.text.start));
        file.read_zones(rest, &mut zones, errors);
    }
    let zones = zones.zones;
    if zones.is_empty() && errors.is_empty() {
        let message = "no zone; add [zones.\"alternator.example.com\"] with its seeds";
        let elsewhere = if server.include.is_empty() { "" } else { ", here or in a file that include names" };
        errors.push(SpannedError::missing(0..0, format!("{message}{elsewhere}")));
    }
    errors.append(cross_checks(&server, &zones));
    if let Some(forward) = &forward {
        let root = zones.get(&ZoneName::root()).map(|root| root.span.clone());
        errors.append(forward.cross_checks(&server.addresses(), root));
    }
    if let Some(transfer) = &transfer {
        errors.append(transfer.cross_checks(&server, |name| zones.get(name).map(|zone| zone.span.clone())));
    }
    name_owners(errors);
    if !errors.is_empty() {
        return None;
    }
    let mut zones: Vec<_> = zones.into_iter().collect();
    zones.sort_by_cached_key(|(name, _)| name.clone());
    let zone_places = zones.iter().map(|(name, read)| (name.clone(), texts.place(read.span.start))).collect();
    let zones = zones.into_iter().map(|(name, read)| (name, read.zone)).collect();
    let forward = forward.map(ForwardKeys::resolve);
    let transfer = transfer.and_then(TransferKeys::resolve);
    Some(Content { server: server.resolve(), forward, transfer, zones, zone_places })
}

/// `zones` of an included file, which may have nothing else.
fn included_zones<'t>(root: DeTable<'t>, main: &Path) -> (Option<DeTable<'t>>, Errors) {
    let mut keys = Keys::new(root, "this file".to_owned());
    let zones = keys.take("zones", zones_table);
    for section in TOP_KEYS.into_iter().filter(|section| *section != "zones") {
        if let Some((key, _)) = keys.table.remove_entry(section) {
            let main = main.display();
            let message = format!("{section} belongs in {main}: an included file may have zones only");
            keys.errors.push(SpannedError::new(key.span(), message));
        }
    }
    (zones, keys.finish(&["zones"], &[]))
}

fn zones_table(zones: Value<'_>) -> Read<DeTable<'_>> {
    value::table(zones, "[zones.\"name\"] tables")
}

/// The tree of a part that begins at an offset of the file, and its errors of syntax: the first of each line, because the
/// others are mostly consequences of it.
fn parse<'p>(part: &'p str, start: usize, lines: &Lines<'_>, syntax: &mut Errors) -> DeTable<'p> {
    let (root, errors) = DeTable::parse_recoverable(part);
    let mut seen = BTreeSet::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        if seen.insert(lines.line(start + span.start)) {
            let error = SpannedError::new(span, error.message().trim().replace('\n', "; "));
            syntax.append(Errors::from(error).shifted(start));
        }
    }
    root.into_inner()
}

/// `state_dir` of a file that may have errors.
pub(super) fn state_dir(text: &str) -> Option<PathBuf> {
    let parts = cut(text).ok()?;
    let (root, _) = DeTable::parse_recoverable(&parts.rest);
    let directory = root.get_ref().get("server")?.get_ref().get("state_dir")?.get_ref().as_str()?;
    (!directory.is_empty()).then(|| directory.into())
}

/// `include` of a main file that may have errors.
pub(super) fn includes(text: &str) -> Vec<IncludePattern> {
    if screen(text, &Lines::new(text), &TOP_KEYS).is_some() {
        return Vec::new();
    }
    let Ok(parts) = cut(text) else { return Vec::new() };
    let (root, _) = DeTable::parse_recoverable(&parts.rest);
    let server = root.get_ref().get("server").and_then(|server| server.get_ref().get("include"));
    let entries = server.and_then(|list| list.get_ref().as_array()).into_iter().flat_map(|list| list.iter());
    entries.filter_map(|entry| IncludePattern::parse(entry.get_ref().as_str()?).ok()).collect()
}

/// The errors that remain beside errors of syntax: keys that seem missing may only be unreadable, a key that seems unknown
/// may follow the broken name of its section, and one error for each line is enough.
fn without_consequences(lines: &Lines<'_>, syntax: &Explained, mut others: Errors) -> Vec<SpannedError> {
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

/// Reads zones, a table of them at a time.
struct ZoneReader<'a> {
    texts: &'a Texts<'a>,
    defaults: &'a ZoneKeys,
    clients: &'a AllowedClients,
    /// Where the name of each zone is, also of those with errors.
    names: FxHashMap<ZoneName, usize>,
    zones: Zones,
}

impl<'a> ZoneReader<'a> {
    fn new(texts: &'a Texts<'a>, defaults: &'a ZoneKeys, clients: &'a AllowedClients) -> Self {
        Self { texts, defaults, clients, names: FxHashMap::default(), zones: Zones::default() }
    }

    /// Reads a table of zones from the part of a file that begins at `start`.
    fn read(&mut self, table: DeTable<'_>, start: usize) -> Errors {
        let mut entries: Vec<_> = table.into_iter().collect();
        // Entries are large; an ordinary sort would move them at each of its steps.
        entries.sort_by_cached_key(|(key, _)| key.span().start);
        let mut errors = Errors::default();
        for (key, value) in entries {
            let span = key.span();
            if let Some(path) = unquoted(key.get_ref(), value.get_ref()) {
                let message = format!("the dots in a zone's name need quotes; write [zones.\"{path}\"]");
                errors.append(Errors::from(SpannedError::new(span, message)).shifted(start));
                continue;
            }
            match ZoneName::parse(key.get_ref()) {
                Ok(name) => errors.append(self.read_named(name, span, value, start)),
                Err(error) => {
                    let reason = value::name_reason(key.get_ref(), &error);
                    let error = SpannedError::new(span, format!("zone {:?} {reason}", key.get_ref()));
                    errors.append(Errors::from(error).shifted(start));
                }
            }
        }
        errors
    }

    /// Reads one zone, whose name is here in the part.
    fn read_named(&mut self, name: ZoneName, span: Range<usize>, value: Value<'_>, start: usize) -> Errors {
        let span = span.start + start..span.end + start;
        if let Some(other) = self.names.get(&name).copied() {
            let (first, second) = (span.start.min(other), span.start.max(other));
            let (file, line) = self.texts.place(first);
            let place = if file == self.texts.number(second) {
                format!("line {line}")
            } else {
                format!("{}:{line}", self.texts.list()[file].path.display())
            };
            let message = format!("zone {name} is defined twice; it is in {place} already");
            return SpannedError::new(second..second, message).into();
        }
        self.names.insert(name.clone(), span.start);
        match self.read_zone(&name, span, value, start) {
            Ok(zone) => {
                self.zones.insert(name, zone);
                Errors::default()
            }
            Err(errors) => errors,
        }
    }

    /// Reads a zone from the part that begins at `start`; its name is at `span` of the file.
    fn read_zone(&self, name: &ZoneName, span: Range<usize>, value: Value<'_>, start: usize) -> Read<ReadZone> {
        let table = value::table(value, "a table with the zone's keys").map_err(|error| error.shifted(start))?;
        let has_seeds = table.contains_key("seeds");
        let (keys, errors) = read_zone_keys(Keys::new(table, fmt::from_fn(|f| write!(f, "zone {name}"))));
        let (mut keys, mut errors) = (keys.shifted(start), errors.shifted(start));
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
                let zone = keys.resolve(name, seeds.get_ref(), self.defaults, self.clients)?;
                Ok(ReadZone { zone, span, seeds: seeds.into_inner() })
            }
            _ => Err(errors),
        }
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
    let mut errors = Errors::default();
    let mut in_order: Vec<_> = zones.values().collect();
    in_order.sort_by_key(|read| read.span.start);
    for read in in_order {
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

//! The walk through a file: takes every known key, complains about what is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::PathBuf,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Server, Zone, collide, content_hash,
    keys::Keys,
    mistake::Complaint,
    value::{self, Read, Value},
    zone_keys::{ZONE_KEYS, ZONE_KEYS_LATER, ZoneKeys, read_zone_keys},
};
use crate::zone::{Seed, ZoneName};

const SERVER_KEYS: [&str; 6] = ["listen", "admin", "nameservers", "state_dir", "snapshot_max_age", "answer_everything"];

const SERVER_KEYS_LATER: [&str; 9] =
    ["nsid", "cookie_secret_file", "domains", "clients", "tcp", "listen_tls", "listen_https", "listen_quic", "tls"];

const TOP_KEYS: [&str; 3] = ["server", "defaults", "zones"];

const TOP_KEYS_LATER: [&str; 2] = ["forward", "transfer"];

const NAMESERVER_KEYS: [&str; 2] = ["name", "addresses"];

/// After a week nothing can be said about addresses any more.
const SNAPSHOT_MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

const DEFAULT_LISTEN: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 53)];

/// Reads a whole file; every mistake goes to `complaints`.
pub(super) fn read(text: &str, complaints: &mut Vec<Complaint>) -> Option<Config> {
    let (root, syntax) = DeTable::parse_recoverable(text);
    let broken = !syntax.is_empty();
    complaints.extend(
        syntax
            .into_iter()
            .map(|error| Complaint::new(error.span().unwrap_or_default(), error.message().trim().replace('\n', "; "))),
    );
    let mut keys = Keys::new(root.into_inner(), "this file");
    let (server, more) = keys.sub_table("server").map(read_server).unwrap_or_default();
    complaints.extend(more);
    let (mut defaults, more) = keys.sub_table("defaults").map(read_zone_keys).unwrap_or_default();
    complaints.extend(more);
    if let Some(seeds) = defaults.seeds.take() {
        complaints.push(Complaint::new(seeds.span(), "seeds belong to one zone, not to [defaults]"));
    }
    let zones = keys.take("zones", |zones| value::table(zones, "[zones.\"name\"] tables"));
    complaints.extend(keys.finish(&TOP_KEYS, &TOP_KEYS_LATER));
    let zones = read_zones(zones.unwrap_or_default(), &defaults, complaints);
    if zones.is_empty() && complaints.is_empty() {
        complaints.push(Complaint::absence(0..0, "no zone; add [zones.\"alternator.example.com\"] with its seeds"));
    }
    complaints.extend(across(&server, &zones));
    if broken {
        forget_consequences(text, complaints);
    }
    let zones = zones.into_iter().map(|(name, read)| (name, read.zone)).collect();
    complaints.is_empty().then(|| Config { server: server.lower(), zones, hash: content_hash(text.as_bytes()) })
}

/// Where the syntax is broken, what seems missing may only be unreadable, and a line has been complained about once.
fn forget_consequences(text: &str, complaints: &mut Vec<Complaint>) {
    let lines = super::mistake::Lines::new(text);
    let mut seen = BTreeSet::new();
    complaints.retain(|complaint| !complaint.about_absence && seen.insert(lines.line(complaint.span.start)));
}

#[derive(Default)]
struct ServerKeys {
    listen: Option<Spanned<Vec<Spanned<SocketAddr>>>>,
    admin: Option<Spanned<SocketAddr>>,
    nameservers: Vec<Spanned<(ZoneName, Vec<IpAddr>)>>,
    state_dir: Option<PathBuf>,
    snapshot_max_age: Option<Duration>,
    answer_everything: bool,
}

impl ServerKeys {
    fn addresses(&self) -> Vec<SocketAddr> {
        let written = self.listen.as_ref().map(|list| list.get_ref().iter().map(|one| *one.get_ref()).collect());
        written.unwrap_or_else(|| DEFAULT_LISTEN.to_vec())
    }

    fn lower(self) -> Server {
        let nameservers = self.nameservers.iter().map(|one| one.get_ref().clone()).collect();
        Server {
            listen: self.addresses(),
            listen_by_default: self.listen.is_none(),
            admin: self.admin.map(Spanned::into_inner),
            nameservers,
            state_dir: self.state_dir,
            snapshot_max_age: self.snapshot_max_age.unwrap_or(SNAPSHOT_MAX_AGE),
        }
    }
}

fn read_server(mut keys: Keys<'_>) -> (ServerKeys, Vec<Complaint>) {
    let what = "a list of addresses with ports";
    let server = ServerKeys {
        listen: keys.spanned("listen", |list| value::list(list, what, value::socket_address)),
        admin: keys.spanned("admin", value::socket_address),
        nameservers: keys
            .get("nameservers", |list| value::list(list, "a list of { name, addresses }", nameserver))
            .unwrap_or_default(),
        state_dir: keys.get("state_dir", value::path),
        snapshot_max_age: keys.get("snapshot_max_age", value::age),
        answer_everything: keys.get("answer_everything", value::boolean).unwrap_or_default(),
    };
    if let Some(list) = &server.listen {
        if list.get_ref().is_empty() {
            keys.complaints.push(Complaint::new(list.span(), "listen is empty; name at least one address with a port"));
        }
        for twice in repeated(list.get_ref(), |one| (one.port() > 0).then_some(*one)) {
            keys.complaints.push(Complaint::new(twice.span(), format!("{} is listed twice", twice.get_ref())));
        }
        for (number, one) in list.get_ref().iter().enumerate() {
            let mut earlier = list.get_ref().iter().take(number).map(|other| *other.get_ref());
            if let Some(other) = earlier.find(|other| other != one.get_ref() && collide(*other, *one.get_ref())) {
                let sentence = format!("{} and {other} cannot both be listened on; keep one of them", one.get_ref());
                keys.complaints.push(Complaint::new(one.span(), sentence));
            }
        }
    }
    if let Some(admin) = &server.admin
        && let Some(address) = server.addresses().into_iter().find(|address| collide(*address, *admin.get_ref()))
    {
        let sentence = format!("admin and listen cannot both have {address}; give admin another port, such as 9153");
        keys.complaints.push(Complaint::new(admin.span(), sentence));
    }
    for twice in repeated(&server.nameservers, |(name, _)| Some(name.clone())) {
        keys.complaints
            .push(Complaint::new(twice.span(), format!("name server {} is listed twice", twice.get_ref().0)));
    }
    (server, keys.finish(&SERVER_KEYS, &SERVER_KEYS_LATER))
}

/// The entries whose key an earlier entry has.
fn repeated<T, K: Ord>(list: &[Spanned<T>], key: impl Fn(&T) -> Option<K>) -> Vec<&Spanned<T>> {
    let mut seen = BTreeSet::new();
    list.iter().filter(|entry| key(entry.get_ref()).is_some_and(|key| !seen.insert(key))).collect()
}

fn nameserver(value: &Value<'_>) -> Read<(ZoneName, Vec<IpAddr>)> {
    let span = value.span();
    let table = value::table(value.clone(), "{ name = \"ns1.example.com\", addresses = [\"192.0.2.53\"] }")?;
    let mut keys = Keys::new(table, "a name server");
    let named = keys.table.contains_key("name");
    let name = keys.get("name", value::name);
    let addresses = keys.get("addresses", |list| value::list(list, "a list of addresses", value::host_address));
    let addresses = addresses.unwrap_or_default().into_iter().map(Spanned::into_inner).collect();
    let mut complaints = keys.finish(&NAMESERVER_KEYS, &[]);
    if !named {
        complaints.push(Complaint::absence(span, "a name server needs a name"));
    }
    match name {
        Some(name) if complaints.is_empty() => Ok((name, addresses)),
        _ => Err(complaints),
    }
}

/// A zone, and where its name and its seeds stand.
struct ReadZone {
    zone: Zone,
    span: Range<usize>,
    seeds: Vec<Spanned<Seed>>,
}

fn read_zones(
    table: DeTable<'_>,
    defaults: &ZoneKeys,
    complaints: &mut Vec<Complaint>,
) -> BTreeMap<ZoneName, ReadZone> {
    let mut zones = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let span = key.span();
        if let Some(path) = unquoted(key.get_ref(), value.get_ref()) {
            let sentence = format!("the dots in a zone's name need quotes; write [zones.\"{path}\"]");
            complaints.push(Complaint::new(span, sentence));
            continue;
        }
        let name = match ZoneName::parse(key.get_ref()) {
            Ok(name) => name,
            Err(error) => {
                complaints.push(Complaint::new(span, format!("zone {:?} {error}", key.get_ref())));
                continue;
            }
        };
        if !names.insert(name.clone()) {
            complaints.push(Complaint::new(span, format!("zone {name} is defined twice")));
            continue;
        }
        match read_zone(&name, span, value, defaults) {
            Ok(zone) => _ = zones.insert(name, zone),
            Err(more) => complaints.extend(more),
        }
    }
    zones
}

fn read_zone(name: &ZoneName, span: Range<usize>, value: Value<'_>, defaults: &ZoneKeys) -> Read<ReadZone> {
    let table = value::table(value, "a table with the zone's keys")?;
    let has_seeds = table.contains_key("seeds");
    let (keys, mut complaints) = read_zone_keys(Keys::new(table, format!("zone {name}")));
    if !has_seeds {
        let sentence = format!("zone {name} has no seeds; add seeds = [\"address or host name of a node\", ...]");
        complaints.push(Complaint::absence(span.clone(), sentence));
    }
    if let Some(seeds) = &keys.seeds
        && seeds.get_ref().is_empty()
    {
        let sentence = format!("zone {name} has an empty list of seeds; name at least one node");
        complaints.push(Complaint::new(seeds.span(), sentence));
    }
    match &keys.seeds {
        Some(seeds) if complaints.is_empty() => {
            let zone = keys.lower(name, seeds.get_ref(), defaults)?;
            Ok(ReadZone { zone, span, seeds: seeds.get_ref().clone() })
        }
        _ => Err(complaints),
    }
}

/// `[zones.a.example.com]` without quotes is a table in a table in a table: the name that was meant. A table with
/// seeds is a zone, whatever else is in it.
fn unquoted(key: &str, value: &DeValue<'_>) -> Option<String> {
    let table = value.as_table()?;
    if table.contains_key("seeds") {
        return None;
    }
    let (inner_key, inner) = table.iter().find(|(inner_key, inner)| {
        let name = inner_key.get_ref().as_ref();
        inner.get_ref().is_table() && !ZONE_KEYS.contains(&name) && !ZONE_KEYS_LATER.contains(&name)
    })?;
    let rest = unquoted(inner_key.get_ref(), inner.get_ref()).unwrap_or_else(|| inner_key.get_ref().to_string());
    Some(format!("{key}.{rest}"))
}

/// What spans two values.
fn across(server: &ServerKeys, zones: &BTreeMap<ZoneName, ReadZone>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for read in zones.values() {
        for seed in &read.seeds {
            if let Seed::Host(host) = seed.get_ref()
                && let Some(zone) = enclosing(host, zones)
            {
                let sentence = format!(
                    "seed {} lies inside our own zone {zone}, so finding it would need itself; use an address",
                    seed.get_ref()
                );
                complaints.push(Complaint::new(seed.span(), sentence));
            }
        }
    }
    for nameserver in &server.nameservers {
        let (name, addresses) = nameserver.get_ref();
        if zones.contains_key(name) {
            let sentence = format!("name server {name} is a zone; give the server a name of its own");
            complaints.push(Complaint::new(nameserver.span(), sentence));
        } else if addresses.is_empty()
            && let Some(zone) = enclosing(name, zones)
        {
            let sentence = format!("name server {name} lies inside our own zone {zone}; add its addresses");
            complaints.push(Complaint::absence(nameserver.span(), sentence));
        }
    }
    let exposed = server.addresses().into_iter().find(|address| !address.ip().is_loopback());
    if let (Some(root), Some(address), false) = (zones.get(&ZoneName::root()), exposed, server.answer_everything) {
        let sentence = format!(
            "zone \".\" answers every name to whoever reaches {address}; listen on loopback only, or set answer_everything = true in [server]"
        );
        complaints.push(Complaint::new(root.span.clone(), sentence));
    }
    complaints
}

/// The zone that a name lies in.
fn enclosing<'z>(name: &ZoneName, zones: &'z BTreeMap<ZoneName, ReadZone>) -> Option<&'z ZoneName> {
    crate::zone::suffixes(name.wire()).find_map(|suffix| zones.get_key_value(suffix)).map(|(zone, _)| zone)
}

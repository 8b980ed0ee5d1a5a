//! The keys of a zone and of `[defaults]`.

use std::{
    fmt::Display,
    net::IpAddr,
    num::{NonZeroU8, NonZeroU16},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    Cluster, Health, Scheme, Scope, Tls, Zone,
    diagnostic::SpannedError,
    keys::Keys,
    value::{self, Read, Value},
};
use crate::types::{AddressRules, AllowedClients, AnswerCount, Seed, Translation, Ttl, ZoneName, is_link_local};

/// Keys of a zone and of `[defaults]`.
pub(super) const ZONE_KEYS: [&str; 17] = [
    "seeds",
    "port",
    "ttl",
    "refresh",
    "timeout",
    "scheme",
    "tls",
    "answers",
    "subdomains",
    "scope",
    "health",
    "allow_nodes",
    "exclude",
    "map",
    "max_stale",
    "negative_ttl",
    "clients",
];

const TLS_KEYS: [&str; 5] = ["ca", "server_name", "cert", "key", "insecure"];

const HEALTH_KEYS: [&str; 4] = ["interval", "timeout", "rise", "fall"];

const SCOPE_KEYS: [&str; 2] = ["datacenter", "rack"];

/// Where Alternator listens by convention.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(8000).expect("8000 is not zero");

/// What DynamoDB itself gives.
const DEFAULT_TTL: Ttl = Ttl::from_secs(4).expect("4 seconds are less than a day");

const DEFAULT_REFRESH: Duration = Duration::from_secs(1);

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer negative answer would outlast a short outage.
const NEGATIVE_TTL_MAX: Ttl = Ttl::from_secs(5).expect("5 seconds are less than a day");

/// A probe each second, and two in a row decide: a dead node leaves within two seconds, and one lost packet changes nothing.
const DEFAULT_HEALTH: Health = Health {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    rise: NonZeroU8::new(2).expect("two is not zero"),
    fall: NonZeroU8::new(2).expect("two is not zero"),
};

/// The keys of one table; `None` for those that it does not have.
#[derive(Default)]
pub(super) struct ZoneKeys {
    pub(super) seeds: Option<Spanned<Vec<Spanned<Seed>>>>,
    port: Option<NonZeroU16>,
    ttl: Option<Ttl>,
    refresh: Option<Duration>,
    timeout: Option<Duration>,
    https: Option<bool>,
    tls: Option<Spanned<TlsKeys>>,
    answers: Option<AnswerCount>,
    subdomains: Option<bool>,
    scope: Option<Vec<Scope>>,
    health: Option<HealthKeys>,
    allow_nodes: Option<Vec<IpNet>>,
    exclude: Option<Vec<IpNet>>,
    map: Option<Vec<Translation>>,
    max_stale: Option<Duration>,
    negative_ttl: Option<Ttl>,
    clients: Option<AllowedClients>,
}

#[derive(Clone, Debug, Default)]
struct TlsKeys {
    ca: Option<PathBuf>,
    server_name: Option<String>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    insecure: Option<bool>,
}

#[derive(Clone, Copy, Debug)]
enum HealthKeys {
    Off,
    On { interval: Option<Duration>, timeout: Option<Duration>, rise: Option<NonZeroU8>, fall: Option<NonZeroU8> },
}

pub(super) fn read_zone_keys(mut keys: Keys<'_, impl Display>) -> (ZoneKeys, Vec<SpannedError>) {
    let seeds = "a list of addresses or host names in quotes";
    let networks = "a list of networks or addresses in quotes";
    let plain = |list: Vec<Spanned<_>>| list.into_iter().map(Spanned::into_inner).collect::<Vec<_>>();
    let zone = ZoneKeys {
        seeds: keys.spanned("seeds", |list| value::list(list, seeds, value::seed)),
        port: keys.get("port", value::port),
        ttl: keys.get("ttl", value::ttl),
        refresh: keys.get("refresh", value::refresh),
        timeout: keys.get("timeout", value::timeout),
        https: keys.get("scheme", value::is_https),
        tls: keys.spanned("tls", tls),
        answers: keys.get("answers", value::answer_count),
        subdomains: keys.get("subdomains", value::boolean),
        scope: keys
            .get("scope", |list| value::list(list, "a list of { datacenter, rack }", scope))
            .map(|list| list.into_iter().map(Spanned::into_inner).collect()),
        health: keys.get("health", health),
        allow_nodes: keys.get("allow_nodes", |list| value::list(list, networks, value::network)).map(plain),
        exclude: keys.get("exclude", |list| value::list(list, networks, value::network)).map(plain),
        map: keys.get("map", map),
        max_stale: keys.get("max_stale", value::age),
        negative_ttl: keys.get("negative_ttl", value::ttl),
        clients: keys.get("clients", value::clients),
    };
    (zone, keys.finish(&ZONE_KEYS, &[]))
}

fn tls(value: &Value<'_>) -> Read<TlsKeys> {
    let mut keys = Keys::new(value::table(value.clone(), "a table, tls = { ca = \"...\" }")?, "tls");
    let tls = TlsKeys {
        ca: keys.get("ca", value::path),
        server_name: keys.get("server_name", value::server_name),
        cert: keys.get("cert", value::path),
        key: keys.get("key", value::path),
        insecure: keys.get("insecure", value::boolean),
    };
    value::unless_errors(tls, keys.finish(&TLS_KEYS, &[]))
}

fn health(value: &Value<'_>) -> Read<HealthKeys> {
    let what = "false, or a table, health = { interval = \"1s\" }";
    if let DeValue::Boolean(false) = value.get_ref() {
        return Ok(HealthKeys::Off);
    }
    let mut keys = Keys::new(value::table(value.clone(), what)?, "health");
    let health = HealthKeys::On {
        interval: keys.get("interval", value::refresh),
        timeout: keys.get("timeout", value::timeout),
        rise: keys.get("rise", value::consecutive),
        fall: keys.get("fall", value::consecutive),
    };
    value::unless_errors(health, keys.finish(&HEALTH_KEYS, &[]))
}

fn scope(value: &Value<'_>) -> Read<Scope> {
    let span = value.span();
    let mut keys = Keys::new(value::table(value.clone(), "{ datacenter = \"...\", rack = \"...\" }")?, "scope");
    let named = keys.table.contains_key("datacenter");
    let datacenters = keys.get("datacenter", value::location_names).unwrap_or_default();
    let rack = keys.get("rack", value::location_name);
    let mut errors = keys.finish(&SCOPE_KEYS, &[]);
    if !named {
        errors.push(SpannedError::missing(
            span,
            "a scope needs a datacenter; a rack alone would be that of the node that is polled",
        ));
    }
    value::unless_errors(Scope { datacenters, rack }, errors)
}

fn map(value: &Value<'_>) -> Read<Vec<Translation>> {
    let table = value::table(value.clone(), "a table, map = { \"10.0.1.0/24\" = \"203.0.113.0/24\" }")?;
    let mut map = Vec::new();
    let mut errors = Vec::new();
    for (from, to) in table {
        match (value::parse_network(from.get_ref()), value::network(&to)) {
            (Ok(inside), Ok(outside)) => match Translation::new(inside, outside) {
                Some(line) => map.push(line),
                None => {
                    let message = format!(
                        "{inside} and {outside} differ in address family or prefix length, so addresses cannot be translated"
                    );
                    errors.push(SpannedError::new(to.span(), message));
                }
            },
            (inside, outside) => {
                errors.extend(inside.err().map(|error| SpannedError::new(from.span(), error.to_string())));
                errors.extend(outside.err().unwrap_or_default());
            }
        }
    }
    value::unless_errors(map, errors)
}

impl ZoneKeys {
    /// Takes each key from the zone, else from `[defaults]`, else from this program. `clients` are those of `[server]`.
    /// A repeated seed is kept once.
    pub(super) fn resolve(
        &self,
        name: &ZoneName,
        seeds: &[Spanned<Seed>],
        defaults: &Self,
        clients: &AllowedClients,
    ) -> Read<Zone> {
        let ttl = self.ttl.or(defaults.ttl).unwrap_or(DEFAULT_TTL);
        let mut unique = Vec::with_capacity(seeds.len());
        for seed in seeds.iter().map(Spanned::get_ref) {
            if !unique.contains(seed) {
                unique.push(seed.clone());
            }
        }
        let seeds = unique;
        Ok(Zone {
            refresh: self.refresh.or(defaults.refresh).unwrap_or(DEFAULT_REFRESH),
            timeout: self.timeout.or(defaults.timeout).unwrap_or(DEFAULT_TIMEOUT),
            ttl,
            negative_ttl: self.negative_ttl.or(defaults.negative_ttl).unwrap_or(ttl.min(NEGATIVE_TTL_MAX)),
            answers: self.answers.or(defaults.answers).unwrap_or(AnswerCount::ONE),
            subdomains: name.is_root() || self.subdomains.or(defaults.subdomains).unwrap_or_default(),
            health: self.resolve_health(defaults),
            rules: self.resolve_rules(&seeds, defaults),
            max_stale: self.max_stale.or(defaults.max_stale),
            clients: self.clients.as_ref().or(defaults.clients.as_ref()).unwrap_or(clients).clone(),
            cluster: Cluster {
                port: self.port.or(defaults.port).unwrap_or(DEFAULT_PORT),
                scheme: self.resolve_scheme(defaults)?,
                scope: self.scope.clone().or_else(|| defaults.scope.clone()).unwrap_or_default(),
                seeds,
            },
        })
    }

    /// Merges `tls` key by key. `tls` in `[defaults]` concerns only zones with scheme https.
    fn resolve_scheme(&self, defaults: &Self) -> Read<Scheme> {
        let https = self.https.or(defaults.https).unwrap_or_default();
        let own = self.tls.as_ref();
        let shared = defaults.tls.as_ref();
        if !https {
            return match own {
                Some(tls) => Err(vec![SpannedError::new(tls.span(), "tls has no effect without scheme = \"https\"")]),
                None => Ok(Scheme::Http),
            };
        }
        let place = own.or(shared).map(Spanned::span).unwrap_or_default();
        let keys = |tls: Option<&Spanned<TlsKeys>>| tls.map(|tls| tls.get_ref().clone()).unwrap_or_default();
        let own = keys(own);
        let shared = keys(shared);
        let client = match (own.cert.or(shared.cert), own.key.or(shared.key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(vec![SpannedError::new(place, "cert and key belong together; name both, or neither")]),
        };
        Ok(Scheme::Https(Tls {
            ca: own.ca.or(shared.ca),
            server_name: own.server_name.or(shared.server_name),
            client,
            insecure: own.insecure.or(shared.insecure).unwrap_or_default(),
        }))
    }

    fn resolve_health(&self, defaults: &Self) -> Option<Health> {
        let mut merged = DEFAULT_HEALTH;
        let tables = match (self.health, defaults.health) {
            (Some(HealthKeys::Off), _) | (None, Some(HealthKeys::Off)) => return None,
            (own, shared) => [shared, own],
        };
        for keys in tables.into_iter().flatten() {
            if let HealthKeys::On { interval, timeout, rise, fall } = keys {
                merged = Health {
                    interval: interval.unwrap_or(merged.interval),
                    timeout: timeout.unwrap_or(merged.timeout),
                    rise: rise.unwrap_or(merged.rise),
                    fall: fall.unwrap_or(merged.fall),
                };
            }
        }
        Some(merged)
    }

    fn resolve_rules(&self, seeds: &[Seed], defaults: &Self) -> AddressRules {
        let any = |test: fn(&IpAddr) -> bool| seeds.iter().any(|seed| matches!(seed, Seed::Address(one) if test(one)));
        AddressRules {
            allow: self.allow_nodes.clone().or_else(|| defaults.allow_nodes.clone()),
            exclude: self.exclude.clone().or_else(|| defaults.exclude.clone()).unwrap_or_default(),
            map: merged(defaults.map.as_deref().unwrap_or_default(), self.map.as_deref().unwrap_or_default()),
            // The addresses of a host name are unknown here; probes find out whether a loopback address is a node.
            loopback: any(IpAddr::is_loopback) || seeds.iter().any(|seed| matches!(seed, Seed::Host(_))),
            link_local: any(|address| is_link_local(*address)),
        }
    }
}

/// The translations of `[defaults]` and of the zone; for the same network the zone's one counts.
fn merged(shared: &[Translation], own: &[Translation]) -> Vec<Translation> {
    let not_replaced = |line: &&Translation| !own.iter().any(|other| other.from() == line.from());
    shared.iter().filter(not_replaced).chain(own).copied().collect()
}

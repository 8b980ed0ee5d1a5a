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
    Cluster, Health, Identity, IdentityKeys, Scheme, Scope, Tls, View, Zone,
    definitions::{Key, Kind, TEXTS},
    diagnostic::{Errors, SpannedError},
    keys::Keys,
    scope_keys::{SCOPES, scopes},
    value::{self, Read, Value},
    view_keys::{VIEW_KEYS, views},
};
use crate::types::{
    AddressRules, AllowedClients, AnswerCount, ClusterId, ClusterLabel, Seed, Translation, Ttl, ZoneName, is_link_local,
};

/// Keys of a zone and of `[defaults]`.
pub(super) const ZONE_KEYS: [Key; 22] = [
    Key::new("seeds", TEXTS, "Addresses or host names of nodes, without port."),
    Key::new("port", Kind::Number(1, 65_535), "The port of every node.").or("8000"),
    Key::new("ttl", Kind::Duration, "How long a client may cache an answer: whole seconds, 0s to 1d.").or("\"4s\""),
    Key::new("refresh", Kind::Duration, "How often the cluster is polled: 100ms to 1h.").or("\"1s\""),
    Key::new("timeout", Kind::Duration, "How long a node may take to answer a poll: 10ms to 60s.").or("\"1s\""),
    Key::new("scheme", Kind::OneOf(&["http", "https"]), "The protocol of the nodes.").or("\"http\""),
    Key::new("tls", Kind::Table(&TLS_KEYS), "Settings of https."),
    Key::new(
        "answers",
        Kind::Either(&Kind::Number(1, 65_535), &Kind::OneOf(&["all"])),
        "How many addresses an answer has.",
    )
    .or("2"),
    Key::new(
        "max_addresses",
        Kind::Number(1, 64),
        "How many addresses of each family the secondaries of [transfer] get.",
    )
    .or("8"),
    Key::new("subdomains", Kind::Boolean, "Whether every name below the zone answers like the zone.").or("false"),
    Key::new("scope", SCOPES, "The parts of the cluster that are answered: the first with a healthy node.").or("[]"),
    Key::new("health", Kind::OffOr(&Kind::Table(&HEALTH_KEYS)), "How nodes are probed; false: not at all.").or("{}"),
    Key::new("allow_nodes", TEXTS, "Only nodes in these networks or addresses are answered."),
    Key::new("exclude", TEXTS, "Nodes in these networks or addresses are not answered.").or("[]"),
    Key::new("map", Kind::Map, "Translations of listed addresses for clients.").or("{}"),
    Key::new("max_stale", Kind::Duration, "How long nodes are answered without a successful poll."),
    Key::new("negative_ttl", Kind::Duration, "How long a client may cache a negative answer: whole seconds, 0s to 1d."),
    Key::new("clients", TEXTS, "Networks and addresses of the clients that may ask."),
    Key::new(
        "views",
        Kind::List(&Kind::Table(&VIEW_KEYS)),
        "Clients that get the nodes of other scopes than the zone's own.",
    )
    .or("[]"),
    Key::new("cluster", Kind::Text, "Zones with the same label are zones of one cluster."),
    Key::new("cluster_id", Kind::Text, "The id of the cluster: nodes that give another one are foreign."),
    Key::new(
        "identity",
        Kind::OffOr(&Kind::Table(&IDENTITY_KEYS)),
        "The keys that sign identity queries; false: nodes are not asked for their cluster's id.",
    ),
];

pub(super) const TLS_KEYS: [Key; 5] = [
    Key::new("ca", Kind::Text, "The authorities of the nodes' certificates (PEM)."),
    Key::new("server_name", Kind::Text, "The name in the nodes' certificates."),
    Key::new("cert", Kind::Text, "The certificate of this server (PEM)."),
    Key::new("key", Kind::Text, "Its private key (PEM)."),
    Key::new("insecure", Kind::Boolean, "Whether no certificate is verified.").or("false"),
];

pub(super) const HEALTH_KEYS: [Key; 4] = [
    Key::new("interval", Kind::Duration, "Between two probes of a node: 100ms to 1h.").or("\"1s\""),
    Key::new("timeout", Kind::Duration, "How long a probe may take: 10ms to 60s.").or("\"1s\""),
    Key::new("rise", Kind::Number(1, 100), "Successes in a row after which a node returns.").or("2"),
    Key::new("fall", Kind::Number(1, 100), "Failures in a row after which a node leaves.").or("2"),
];

const IDENTITY_KEYS: [Key; 2] = [
    Key::new("access_key", Kind::Text, "The name of a role of the cluster."),
    Key::new("secret_key_file", Kind::Text, "The file of the role's secret key."),
];

/// Where Alternator listens by convention.
const DEFAULT_PORT: NonZeroU16 = NonZeroU16::new(8000).expect("8000 is not zero");

/// What DynamoDB itself gives.
const DEFAULT_TTL: Ttl = Ttl::from_secs(4).expect("4 seconds are less than a day");

const DEFAULT_REFRESH: Duration = Duration::from_secs(1);

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// Eight records fit in the smallest UDP reply (512 octets) for every legal name.
const DEFAULT_MAX_ADDRESSES: NonZeroU8 = NonZeroU8::new(8).expect("eight is not zero");

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
    max_addresses: Option<NonZeroU8>,
    subdomains: Option<bool>,
    scope: Option<Vec<Scope>>,
    health: Option<HealthKeys>,
    allow_nodes: Option<Vec<IpNet>>,
    exclude: Option<Vec<IpNet>>,
    map: Option<Vec<Translation>>,
    max_stale: Option<Duration>,
    negative_ttl: Option<Ttl>,
    clients: Option<AllowedClients>,
    views: Option<Vec<View>>,
    cluster: Option<ClusterLabel>,
    cluster_id: Option<ClusterId>,
    identity: Option<Spanned<IdentityTable>>,
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

#[derive(Clone, Debug)]
enum IdentityTable {
    Off,
    Keys { access_key: Option<String>, secret_key_file: Option<PathBuf> },
}

pub(super) fn read_zone_keys(mut keys: Keys<'_, impl Display>) -> (ZoneKeys, Errors) {
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
        max_addresses: keys.get("max_addresses", value::max_addresses),
        subdomains: keys.get("subdomains", value::boolean),
        scope: keys.get("scope", scopes),
        health: keys.get("health", health),
        allow_nodes: keys.get("allow_nodes", |list| value::list(list, networks, value::network)).map(plain),
        exclude: keys.get("exclude", |list| value::list(list, networks, value::network)).map(plain),
        map: keys.get("map", map),
        max_stale: keys.get("max_stale", value::age),
        negative_ttl: keys.get("negative_ttl", value::ttl),
        clients: keys.get("clients", value::clients),
        views: keys.get("views", views),
        cluster: keys.get("cluster", value::cluster_label),
        cluster_id: keys.get("cluster_id", value::cluster_id),
        identity: keys.spanned("identity", identity),
    };
    (zone, keys.finish(&ZONE_KEYS, &[]))
}

fn tls(value: &Value<'_>) -> Read<TlsKeys> {
    let mut keys = Keys::new(value::table(value.clone(), "a table, tls = { ca = \"...\" }")?, "tls");
    let tls = TlsKeys {
        ca: keys.get("ca", value::file),
        server_name: keys.get("server_name", value::server_name),
        cert: keys.get("cert", value::file),
        key: keys.get("key", value::file),
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

fn identity(value: &Value<'_>) -> Read<IdentityTable> {
    let what = "false, or a table, identity = { access_key = \"...\", secret_key_file = \"...\" }";
    if let DeValue::Boolean(false) = value.get_ref() {
        return Ok(IdentityTable::Off);
    }
    let mut keys = Keys::new(value::table(value.clone(), what)?, "identity");
    let table = IdentityTable::Keys {
        access_key: keys.get("access_key", value::access_key),
        secret_key_file: keys.get("secret_key_file", value::file),
    };
    value::unless_errors(table, keys.finish(&IDENTITY_KEYS, &[]))
}

fn map(value: &Value<'_>) -> Read<Vec<Translation>> {
    let table = value::table(value.clone(), "a table, map = { \"10.0.1.0/24\" = \"203.0.113.0/24\" }")?;
    let mut map = Vec::new();
    let mut errors = Errors::default();
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
                errors.append(outside.err().unwrap_or_default());
            }
        }
    }
    value::unless_errors(map, errors)
}

impl ZoneKeys {
    /// The keys of a part of a file that begins at this offset, with their places in the file.
    pub(super) fn shifted(self, by: usize) -> Self {
        fn shift<T>(at: Spanned<T>, by: usize) -> Spanned<T> {
            Spanned::new(at.span().start + by..at.span().end + by, at.into_inner())
        }
        let seeds = self.seeds.map(|seeds| {
            let list = shift(seeds, by);
            Spanned::new(list.span(), list.into_inner().into_iter().map(|seed| shift(seed, by)).collect())
        });
        Self {
            seeds,
            tls: self.tls.map(|tls| shift(tls, by)),
            identity: self.identity.map(|identity| shift(identity, by)),
            ..self
        }
    }

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
            answers: self.answers.or(defaults.answers).unwrap_or(AnswerCount::DEFAULT),
            max_addresses: self.max_addresses.or(defaults.max_addresses).unwrap_or(DEFAULT_MAX_ADDRESSES),
            subdomains: name.is_root() || self.subdomains.or(defaults.subdomains).unwrap_or_default(),
            health: self.resolve_health(defaults),
            rules: self.resolve_rules(&seeds, defaults),
            max_stale: self.max_stale.or(defaults.max_stale),
            clients: self.clients.as_ref().or(defaults.clients.as_ref()).unwrap_or(clients).clone(),
            views: self.views.as_ref().or(defaults.views.as_ref()).cloned().unwrap_or_default(),
            cluster_label: self.cluster.as_ref().or(defaults.cluster.as_ref()).cloned(),
            cluster_id: self.cluster_id.or(defaults.cluster_id),
            identity: self.resolve_identity(defaults)?,
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
                Some(tls) => Err(SpannedError::new(tls.span(), "tls has no effect without scheme = \"https\"").into()),
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
            _ => return Err(SpannedError::new(place, "cert and key belong together; name both, or neither").into()),
        };
        Ok(Scheme::Https(Tls {
            ca: own.ca.or(shared.ca),
            server_name: own.server_name.or(shared.server_name),
            client,
            insecure: own.insecure.or(shared.insecure).unwrap_or_default(),
        }))
    }

    /// Merges `identity` key by key.
    fn resolve_identity(&self, defaults: &Self) -> Read<Identity> {
        let Some(place) = self.identity.as_ref().or(defaults.identity.as_ref()) else {
            return Ok(Identity::Unsigned);
        };
        let mut merged = (None, None);
        for table in [&defaults.identity, &self.identity].into_iter().flatten() {
            merged = match table.get_ref().clone() {
                IdentityTable::Off => (None, None),
                IdentityTable::Keys { access_key, secret_key_file } => {
                    (access_key.or(merged.0), secret_key_file.or(merged.1))
                }
            };
        }
        let is_pinned = self.cluster_id.or(defaults.cluster_id).is_some();
        let lacks = match (place.get_ref(), merged) {
            (IdentityTable::Off, _) if is_pinned => {
                let unasked =
                    "with identity = false no node can give the id that cluster_id demands; remove one of both";
                return Err(SpannedError::new(place.span(), unasked).into());
            }
            (IdentityTable::Off, _) => return Ok(Identity::Off),
            (_, (Some(access_key), Some(secret_key_file))) => {
                return Ok(Identity::Signed(IdentityKeys { access_key, secret_key_file }));
            }
            (_, (Some(_), None)) => "secret_key_file, the file of the role's secret key",
            (_, (None, Some(_))) => "access_key, the name of a role of the cluster",
            (_, (None, None)) => "access_key and secret_key_file; to ask without a signature, remove it",
        };
        Err(SpannedError::new(place.span(), format!("identity needs {lacks}")).into())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::Config;
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("z.toml"), text.as_bytes()).map_err(|errors| errors.to_string())
    }

    /// A zone with these keys, and with these in `[defaults]`.
    fn zone(defaults: &str, keys: &str) -> Result<Zone, String> {
        let text = format!("[defaults]\n{defaults}\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n");
        Ok(config(&text)?.zones.into_values().next().unwrap())
    }

    fn keys(access_key: &str, file: &str) -> Identity {
        Identity::Signed(IdentityKeys { access_key: access_key.into(), secret_key_file: file.into() })
    }

    #[test]
    fn a_cluster_is_named_by_label_and_by_id() {
        let plain = zone("", "").unwrap();
        assert_eq!((plain.cluster_label, plain.cluster_id, plain.identity), (None, None, Identity::Unsigned));
        let id = "2F0C6A1E-5d3b-11f0-8de9-0242ac120002";
        let named = zone("cluster = \"prod\"", &format!("cluster_id = \"{id}\"")).unwrap();
        assert_eq!(named.cluster_label, ClusterLabel::parse("prod"));
        assert_eq!(named.cluster_id.unwrap().to_string(), id.to_lowercase());
        let other = zone("cluster = \"prod\"", "cluster = \"test\"").unwrap();
        assert_eq!(other.cluster_label, ClusterLabel::parse("test"));
    }

    #[test]
    fn identity_is_merged_key_by_key() {
        let both = "identity = { access_key = \"dns\", secret_key_file = \"/s\" }";
        let off = "identity = false";
        for (defaults, own, expected) in [
            ("", both, keys("dns", "/s")),
            (both, "", keys("dns", "/s")),
            (both, "identity = { access_key = \"east\" }", keys("east", "/s")),
            ("identity = { access_key = \"east\" }", "identity = { secret_key_file = \"/e\" }", keys("east", "/e")),
            (both, off, Identity::Off),
            (off, both, keys("dns", "/s")),
            (off, "", Identity::Off),
        ] {
            assert_eq!(zone(defaults, own).unwrap().identity, expected, "{defaults} / {own}");
        }
    }

    /// Of a zone with these keys, and with these in `[defaults]`.
    #[track_caller]
    fn assert_error(defaults: &str, keys: &str, expected: &str) {
        assert_eq!(zone(defaults, keys).unwrap_err(), expected, "{defaults} / {keys}");
    }

    #[test]
    fn errors_about_a_label_or_an_id_have_line_and_column() {
        let label = "z.toml:5:11: expected a label of 1 to 64 printable ASCII characters in quotes";
        assert_error("", "cluster = \"\"", label);
        assert_error("", "cluster = \"\u{e9}\"", label);
        let id = "z.toml:5:14: \"2f0c\" is no UUID, such as \"2f0c6a1e-5d3b-11f0-8de9-0242ac120002\"";
        assert_error("", "cluster_id = \"2f0c\"", id);
        let nil = "00000000-0000-0000-0000-000000000000";
        let expected = format!("z.toml:5:14: \"{nil}\" is the nil UUID, which no cluster has");
        assert_error("", &format!("cluster_id = \"{nil}\""), &expected);
        let both =
            "z.toml:2:12: with identity = false no node can give the id that cluster_id demands; remove one of both";
        assert_error("identity = false", "cluster_id = \"2f0c6a1e-5d3b-11f0-8de9-0242ac120002\"", both);
    }

    #[test]
    fn errors_about_identity_have_line_and_column() {
        let table = "z.toml:5:12: expected false, or a table, identity = { access_key = \"...\", secret_key_file = \"...\" }, \
                     found true";
        assert_error("", "identity = true", table);
        let no_file = "z.toml:5:12: identity needs secret_key_file, the file of the role's secret key";
        assert_error("", "identity = { access_key = \"dns\" }", no_file);
        assert_error("identity = false", "identity = { access_key = \"dns\" }", no_file);
        let no_key = "z.toml:2:12: identity needs access_key, the name of a role of the cluster";
        assert_error("identity = { secret_key_file = \"/s\" }", "", no_key);
        let neither =
            "z.toml:5:12: identity needs access_key and secret_key_file; to ask without a signature, remove it";
        assert_error("", "identity = {}", neither);
        let values = "z.toml:5:27: expected 1 to 128 printable ASCII characters without blanks, '/', ',' and '='\n\
                      z.toml:5:52: the path is empty";
        assert_error("", "identity = { access_key = \"a/b\", secret_key_file = \"\" }", values);
        let unknown = "z.toml:5:14: identity has no key \"acess_key\"; did you mean \"access_key\"?";
        assert_error("", "identity = { acess_key = \"dns\", secret_key_file = \"/s\" }", unknown);
    }

    proptest! {
        #[test]
        fn no_text_in_a_key_of_the_cluster_makes_the_parser_panic(
            key in prop::sample::select(&["cluster", "cluster_id", "access_key", "secret_key_file"][..]),
            text in "[0-9a-f-]{34,38}|[a-zA-Z/,=. -]{0,140}|\\PC{0,80}",
        ) {
            let value = toml::Value::String(text.clone()).to_string();
            let line = match key {
                "access_key" => format!("identity = {{ access_key = {value}, secret_key_file = \"/s\" }}"),
                "secret_key_file" => format!("identity = {{ access_key = \"a\", secret_key_file = {value} }}"),
                key => format!("{key} = {value}"),
            };
            match zone("", &line) {
                Ok(zone) => match key {
                    "cluster" => prop_assert_eq!(zone.cluster_label.unwrap().to_string(), text),
                    "cluster_id" => prop_assert_eq!(zone.cluster_id.unwrap().to_string(), text.to_lowercase()),
                    "access_key" => prop_assert_eq!(zone.identity, keys(&text, "/s")),
                    _ => prop_assert_eq!(zone.identity, keys("a", &text)),
                },
                Err(errors) => prop_assert!(errors.starts_with("z.toml:5:"), "{}", errors),
            }
        }
    }
}

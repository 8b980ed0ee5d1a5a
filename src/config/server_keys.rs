//! The keys of `[server]`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use toml::Spanned;

use super::{
    IncludePattern, Server, TcpLimits, collide,
    definitions::{Key, Kind, TEXTS},
    diagnostic::{Errors, SpannedError},
    encryption_keys::{EncryptionKeys, TLS_KEYS},
    keys::Keys,
    value::{self, Read, Value},
};
use crate::types::{AllowedClients, RateLimit, ZoneName};

pub(super) const SERVER_KEYS: [Key; 19] = [
    Key::new("listen", TEXTS, "Addresses with ports that answer DNS queries over UDP and TCP.")
        .or("[\"127.0.0.1:53\", \"[::1]:53\"]"),
    Key::new("listen_tls", TEXTS, "Addresses with ports for DNS over TLS."),
    Key::new("listen_https", TEXTS, "Addresses with ports for DNS over HTTPS."),
    Key::new("listen_quic", TEXTS, "Addresses with ports for DNS over QUIC."),
    Key::new("tls", Kind::Table(&TLS_KEYS), "The server's certificate for encrypted DNS."),
    Key::new("admin", Kind::Text, "The address of the status page, the metrics and the health checks."),
    Key::new("admin_hosts", TEXTS, "Further names under which the status page and /api answer.").or("[]"),
    Key::new("nameservers", Kind::List(&Kind::Table(&NAMESERVER_KEYS)), "The name servers in NS and SOA records.")
        .or("[]"),
    Key::new("domains", TEXTS, "Names that are delegated to this server and are no zones.").or("[]"),
    Key::new("clients", TEXTS, "Networks and addresses of the clients that may ask."),
    Key::new("nsid", Kind::Text, "The identifier of this server."),
    Key::new("version", Kind::Text, "The text of version.bind."),
    Key::new("cookie_secret_file", Kind::Text, "The file of cookie secrets that replicas share."),
    Key::new("tcp", Kind::Table(&TCP_KEYS), "Limits of connections.").or("{}"),
    Key::new("rate_limit", Kind::Table(&RATE_LIMIT_KEYS), "Limits of replies over UDP."),
    Key::new("state_dir", Kind::Text, "The directory of the known nodes and of the last good configuration."),
    Key::new("snapshot_max_age", Kind::Duration, "Older known nodes are not answered after a start.").or("\"7d\""),
    Key::new("include", TEXTS, "Further files, which may have [zones] only; *, ? and [...] may be in the last part.")
        .or("[]"),
    Key::new("answer_everything", Kind::Boolean, "Whether a zone \".\" may be served to other machines.").or("false"),
];

const NAMESERVER_KEYS: [Key; 2] = [
    Key::new("name", Kind::Text, "Its name."),
    Key::new("addresses", TEXTS, "Its addresses, for a name inside a zone.").or("[]"),
];

pub(super) const TCP_KEYS: [Key; 4] = [
    Key::new("max_connections", Kind::Number(1, 65_535), "Connections in all.").or("1024"),
    Key::new("max_per_client", Kind::Number(1, 65_535), "Connections from one address.").or("128"),
    Key::new("idle", Kind::Duration, "How long a connection may be idle.").or("\"10s\""),
    Key::new("message", Kind::Duration, "How long one message may take.").or("\"5s\""),
];

pub(super) const RATE_LIMIT_KEYS: [Key; 4] = [
    Key::new("per_second", Kind::Number(1, 65_535), "Replies a second to one network."),
    Key::new("slip", Kind::Number(0, 10), "Each so many queries above the limit get a truncated reply; 0: none.")
        .or("2"),
    Key::new("v4_prefix", Kind::Number(1, 32), "Bits of an IPv4 network.").or("24"),
    Key::new("v6_prefix", Kind::Number(1, 128), "Bits of an IPv6 network.").or("56"),
];

/// Every second query over the limit gets a truncated reply, so that a real client retries over TCP; as in BIND and Knot.
const SLIP: u8 = 2;

/// What one customer of a provider usually has: its addresses share one limit.
const V4_PREFIX: u8 = 24;
const V6_PREFIX: u8 = 56;

/// After a week the addresses may belong to other machines.
const SNAPSHOT_MAX_AGE: Duration = Duration::from_secs(7 * 86_400);

const DEFAULT_LISTEN: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 53)];

#[derive(Default)]
pub(super) struct ServerKeys {
    listen: Option<Spanned<Vec<Spanned<SocketAddr>>>>,
    encryption: EncryptionKeys,
    admin: Option<Spanned<SocketAddr>>,
    admin_hosts: Vec<Spanned<ZoneName>>,
    pub(super) nameservers: Vec<Spanned<(ZoneName, Vec<IpAddr>)>>,
    pub(super) domains: Vec<Spanned<ZoneName>>,
    pub(super) clients: Option<AllowedClients>,
    nsid: Option<String>,
    version: Option<String>,
    cookie_secret_file: Option<PathBuf>,
    tcp: Option<TcpLimits>,
    rate_limit: Option<RateLimit>,
    state_dir: Option<PathBuf>,
    snapshot_max_age: Option<Duration>,
    pub(super) include: Vec<Spanned<IncludePattern>>,
    pub(super) answer_everything: bool,
}

impl ServerKeys {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let written = self.listen.as_ref().map(|list| list.get_ref().iter().map(|one| *one.get_ref()).collect());
        written.unwrap_or_else(|| DEFAULT_LISTEN.to_vec())
    }

    /// Every address that answers DNS, over any transport.
    pub(super) fn dns_addresses(&self) -> Vec<SocketAddr> {
        let encrypted = self.encryption.addresses().map(|(_, address)| *address.get_ref());
        self.addresses().into_iter().chain(encrypted).collect()
    }

    pub(super) fn has_domain(&self, name: &ZoneName) -> bool {
        self.domains.iter().any(|domain| domain.get_ref() == name)
    }

    pub(super) fn resolve(self) -> Server {
        let nameservers = self.nameservers.iter().map(|one| one.get_ref().clone()).collect();
        Server {
            listen: self.addresses(),
            listen_by_default: self.listen.is_none(),
            encryption: self.encryption.resolve(),
            admin: self.admin.map(Spanned::into_inner),
            admin_hosts: self.admin_hosts.into_iter().map(Spanned::into_inner).collect(),
            nameservers,
            domains: self.domains.into_iter().map(Spanned::into_inner).collect(),
            clients: self.clients.unwrap_or_default(),
            nsid: self.nsid,
            version: self.version,
            cookie_secret_file: self.cookie_secret_file,
            tcp: self.tcp.unwrap_or_default(),
            rate_limit: self.rate_limit,
            state_dir: self.state_dir,
            snapshot_max_age: self.snapshot_max_age.unwrap_or(SNAPSHOT_MAX_AGE),
            include: self.include.into_iter().map(Spanned::into_inner).collect(),
        }
    }
}

pub(super) fn read_server(mut keys: Keys<'_>) -> (ServerKeys, Errors) {
    let what = "a list of addresses with ports";
    let server = ServerKeys {
        listen: keys.spanned("listen", |list| value::list(list, what, value::socket_address)),
        encryption: EncryptionKeys::read(&mut keys),
        admin: keys.spanned("admin", value::socket_address),
        admin_hosts: keys
            .get("admin_hosts", |list| value::list(list, "a list of host names in quotes", value::page_host))
            .unwrap_or_default(),
        nameservers: keys
            .get("nameservers", |list| value::list(list, "a list of { name, addresses }", nameserver))
            .unwrap_or_default(),
        domains: keys.get("domains", |list| value::list(list, "a list of names in quotes", domain)).unwrap_or_default(),
        clients: keys.get("clients", value::clients),
        nsid: keys.get("nsid", value::identity_text),
        version: keys.get("version", value::identity_text),
        cookie_secret_file: keys.get("cookie_secret_file", value::file),
        tcp: keys.get("tcp", tcp),
        rate_limit: keys.get("rate_limit", rate_limit),
        state_dir: keys.get("state_dir", value::path),
        snapshot_max_age: keys.get("snapshot_max_age", value::age),
        include: keys.get("include", includes).unwrap_or_default(),
        answer_everything: keys.get("answer_everything", value::boolean).unwrap_or_default(),
    };
    if let Some(list) = &server.listen {
        if list.get_ref().is_empty() {
            keys.errors.push(SpannedError::new(list.span(), "listen is empty; name at least one address with a port"));
        }
        for twice in repeated(list.get_ref(), |one| (one.port() > 0).then_some(*one)) {
            keys.errors.push(SpannedError::new(twice.span(), format!("{} is listed twice", twice.get_ref())));
        }
        for (number, one) in list.get_ref().iter().enumerate() {
            let mut earlier = list.get_ref().iter().take(number).map(|other| *other.get_ref());
            if let Some(other) = earlier.find(|other| other != one.get_ref() && collide(*other, *one.get_ref())) {
                let message = format!("{} and {other} cannot both be bound; keep one of them", one.get_ref());
                keys.errors.push(SpannedError::new(one.span(), message));
            }
        }
    }
    if let Some(admin) = &server.admin
        && let Some(address) = server.addresses().into_iter().find(|address| collide(*address, *admin.get_ref()))
    {
        let message = format!("admin and listen cannot both have {address}; give admin another port, such as 9153");
        keys.errors.push(SpannedError::new(admin.span(), message));
    }
    let admin = server.admin.as_ref().map(|admin| *admin.get_ref());
    keys.errors.append(server.encryption.errors(&server.addresses(), admin));
    for twice in repeated(&server.include, |entry| Some(entry.as_str().to_owned())) {
        keys.errors.push(SpannedError::new(twice.span(), format!("{:?} is listed twice", twice.get_ref().as_str())));
    }
    for twice in repeated(&server.domains, |name| Some(name.clone())) {
        keys.errors.push(SpannedError::new(twice.span(), format!("{} is listed twice", twice.get_ref())));
    }
    for twice in repeated(&server.nameservers, |(name, _)| Some(name.clone())) {
        keys.errors.push(SpannedError::new(twice.span(), format!("name server {} is listed twice", twice.get_ref().0)));
    }
    (server, keys.finish(&SERVER_KEYS, &[]))
}

/// The entries of `include`.
pub(super) fn includes(value: &Value<'_>) -> Read<Vec<Spanned<IncludePattern>>> {
    value::list(value, "a list of files in quotes, such as [\"zones.d/*.toml\"]", |entry| {
        let text = value::text(entry, "a file in quotes, such as \"zones.d/*.toml\"")?;
        IncludePattern::parse(text)
            .map_err(|error| SpannedError::new(entry.span(), format!("include {text:?} {error}")).into())
    })
}

fn domain(value: &Value<'_>) -> Read<ZoneName> {
    match value::name(value)? {
        root if root.is_root() => {
            Err(SpannedError::new(value.span(), "the root cannot be delegated to you; name a domain of yours").into())
        }
        name => Ok(name),
    }
}

fn tcp(value: &Value<'_>) -> Read<TcpLimits> {
    let mut keys = Keys::new(value::table(value.clone(), "a table, [server.tcp]")?, "[server.tcp]");
    let default = TcpLimits::default();
    let tcp = TcpLimits {
        max_connections: keys.get("max_connections", value::connections).unwrap_or(default.max_connections),
        max_per_client: keys.get("max_per_client", value::connections).unwrap_or(default.max_per_client),
        idle: keys.get("idle", value::tcp_timeout).unwrap_or(default.idle),
        message: keys.get("message", value::tcp_timeout).unwrap_or(default.message),
    };
    value::unless_errors(tcp, keys.finish(&TCP_KEYS, &[]))
}

fn rate_limit(value: &Value<'_>) -> Read<RateLimit> {
    let span = value.span();
    let table = value::table(value.clone(), "a table, rate_limit = { per_second = 100 }")?;
    let mut keys = Keys::new(table, "rate_limit");
    let has_per_second = keys.table.contains_key("per_second");
    let per_second = keys.get("per_second", value::replies_per_second);
    let limit = RateLimit {
        per_second: per_second.unwrap_or(NonZeroU32::MIN),
        slip: keys.get("slip", |value| value::small(value, 0..=10)).unwrap_or(SLIP),
        v4_prefix: keys.get("v4_prefix", |value| value::small(value, 1..=32)).unwrap_or(V4_PREFIX),
        v6_prefix: keys.get("v6_prefix", |value| value::small(value, 1..=128)).unwrap_or(V6_PREFIX),
    };
    let mut errors = keys.finish(&RATE_LIMIT_KEYS, &[]);
    if !has_per_second {
        errors.push(SpannedError::missing(span, "rate_limit needs per_second, the replies that one network gets"));
    }
    value::unless_errors(limit, errors)
}

/// The entries whose key equals that of an earlier entry.
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
    let mut errors = keys.finish(&NAMESERVER_KEYS, &[]);
    if !named {
        errors.push(SpannedError::missing(span, "a name server needs a name"));
    }
    match name {
        Some(name) if errors.is_empty() => Ok((name, addresses)),
        _ => Err(errors),
    }
}

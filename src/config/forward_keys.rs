//! The keys of `[forward]`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls::pki_types::ServerName;
use toml::Spanned;

use super::{
    Forward, Upstream, collide,
    definitions::{Key, TEXTS},
    diagnostic::{Errors, SpannedError},
    keys::Keys,
    value::{self, Read, Value},
};
use crate::types::{AllowedClients, canonical, is_publishable};

pub(super) const FORWARD_KEYS: [Key; 2] = [
    Key::new("upstreams", TEXTS, "The resolvers to ask, in this order."),
    Key::new("clients", TEXTS, "The clients whose queries are forwarded.").or("[\"127.0.0.0/8\", \"::1\"]"),
];

/// Upstreams in one list. A query that gets no reply goes to each of them in turn, and its client waits five seconds;
/// more upstreams would never be asked.
pub const UPSTREAMS_MAX: usize = 8;

/// The ports of DNS and of DNS over TLS (RFC 7858, 3.1).
const PORT: u16 = 53;
const PORT_TLS: u16 = 853;

/// By default only programs on this host may use the upstreams, so that no server becomes an open resolver by accident.
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

pub(super) struct ForwardKeys {
    upstreams: Vec<Spanned<Upstream>>,
    clients: Option<AllowedClients>,
}

/// Reads the section, if the file has it.
pub(super) fn read_forward(file: &mut Keys<'_>) -> Option<(ForwardKeys, Errors)> {
    let at = file.table.get_key_value("forward").map(|(key, _)| key.span())?;
    let mut keys = file.sub_table("forward")?;
    let has_upstreams = keys.table.contains_key("upstreams");
    let upstreams = keys.spanned("upstreams", upstreams);
    let clients = keys.get("clients", clients);
    if !has_upstreams {
        let message = "[forward] has no upstreams; add upstreams = [\"address of a resolver\", ...]";
        keys.errors.push(SpannedError::missing(at, message));
    }
    let upstreams = upstreams.map(Spanned::into_inner).unwrap_or_default();
    for (number, upstream) in upstreams.iter().enumerate() {
        if upstreams.iter().take(number).any(|earlier| earlier.get_ref() == upstream.get_ref()) {
            let message = format!("{} is listed twice", upstream.get_ref());
            keys.errors.push(SpannedError::new(upstream.span(), message));
        }
    }
    Some((ForwardKeys { upstreams, clients }, keys.finish(&FORWARD_KEYS, &[])))
}

impl ForwardKeys {
    /// Conflicts with the listen addresses, and with a zone "." at `root`.
    pub(super) fn cross_checks(&self, listen: &[SocketAddr], root: Option<Range<usize>>) -> Errors {
        let itself = self.upstreams.iter().filter_map(|upstream| {
            let address = upstream.get_ref().address;
            let own = listen.iter().find(|listen| is_same_host(address, **listen))?;
            let message = format!(
                "upstream {address} is this server itself (listen has {own}), so queries would loop; \
                 name another resolver"
            );
            Some(SpannedError::new(upstream.span(), message))
        });
        let message = "zone \".\" answers every name, so [forward] would never be used; remove one of them";
        itself.chain(root.map(|span| SpannedError::new(span, message))).collect()
    }

    pub(super) fn resolve(self) -> Forward {
        Forward {
            upstreams: self.upstreams.into_iter().map(Spanned::into_inner).collect(),
            clients: self.clients.unwrap_or_else(|| AllowedClients::Networks(LOOPBACK.into())),
        }
    }
}

/// Whether a message to `upstream` would arrive at `listen`. The addresses of this host are unknown here, except loopback.
pub(super) fn is_same_host(upstream: SocketAddr, listen: SocketAddr) -> bool {
    collide(upstream, listen) && (upstream.ip() == listen.ip() || upstream.ip().is_loopback())
}

fn upstreams(value: &Value<'_>) -> Read<Vec<Spanned<Upstream>>> {
    let upstreams = value::list(value, "a list of addresses in quotes", upstream)?;
    let message = match upstreams.len() {
        0 => "[forward] has an empty list of upstreams; name at least one resolver".into(),
        1..=UPSTREAMS_MAX => return Ok(upstreams),
        count => format!("{count} upstreams; at most {UPSTREAMS_MAX} are allowed"),
    };
    Err(SpannedError::new(value.span(), message).into())
}

fn upstream(value: &Value<'_>) -> Read<Upstream> {
    let text = value::text(value, "the address of a resolver in quotes")?;
    parse_upstream(text).map_err(|error| SpannedError::new(value.span(), error.to_string()).into())
}

/// Why a text is not an upstream.
#[derive(Debug, thiserror::Error)]
enum UpstreamError {
    #[error(
        "{0:?} is no address of a resolver; write one such as \"10.0.0.2\", \"10.0.0.2:5353\" or \
         \"tls://10.0.0.2#dns.example\""
    )]
    Address(String),
    #[error("{0} is not the address of one host")]
    NotOneHost(IpAddr),
    #[error("no resolver can be asked on port 0")]
    PortZero,
    #[error("{0:?} is not a name that a certificate can have")]
    TlsName(String),
    #[error("{0:?} lacks the name in the resolver's certificate; write \"{0}#dns.example\"")]
    MissingTlsName(String),
    #[error("{text:?} has a name, which only TLS needs; write \"tls://{text}\", or \"{address}\"")]
    NameWithoutTls { text: String, address: String },
}

/// `address`, `address:port`, or one of both as `tls://address#name`.
fn parse_upstream(text: &str) -> Result<Upstream, UpstreamError> {
    let over_tls = text.strip_prefix("tls://");
    let rest = over_tls.unwrap_or(text);
    let (endpoint, name) = match rest.split_once('#') {
        Some((endpoint, name)) => (endpoint, Some(name)),
        None => (rest, None),
    };
    let port = if over_tls.is_some() { PORT_TLS } else { PORT };
    let address = address(endpoint, port).ok_or_else(|| UpstreamError::Address(text.into()))?;
    if !is_publishable(address.ip()) {
        return Err(UpstreamError::NotOneHost(address.ip()));
    }
    if address.port() == 0 {
        return Err(UpstreamError::PortZero);
    }
    let tls_name = match (over_tls.is_some(), name) {
        (false, None) => None,
        (true, Some(name)) if ServerName::try_from(name).is_ok() => Some(name.to_owned()),
        (true, Some(name)) => return Err(UpstreamError::TlsName(name.into())),
        (true, None) => return Err(UpstreamError::MissingTlsName(text.into())),
        (false, Some(_)) => {
            return Err(UpstreamError::NameWithoutTls { text: text.into(), address: endpoint.into() });
        }
    };
    Ok(Upstream { address, tls_name })
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let with_port = text.parse::<SocketAddr>().map(|address| SocketAddr::new(canonical(address.ip()), address.port()));
    with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(canonical(ip), port))).ok()
}

/// The clients whose queries are forwarded; a network with prefix length 0 is refused.
fn clients(value: &Value<'_>) -> Read<AllowedClients> {
    let network = |value: &Value<'_>| match value::network(value)? {
        all if all.prefix_len() == 0 => {
            let message = format!(
                "{all} would make this server an open resolver, which others use for attacks; name your own networks"
            );
            Err(SpannedError::new(value.span(), message).into())
        }
        network => Ok(network),
    };
    let networks = value::list(value, "a list of networks or addresses in quotes", network)?;
    Ok(AllowedClients::Networks(networks.into_iter().map(Spanned::into_inner).collect()))
}

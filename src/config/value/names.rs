//! Values that are addresses or names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Read, Value, invalid, text};
use crate::types::{NameError, Seed, ZoneName, canonical, is_publishable};

/// An address of this host to listen on.
pub(in crate::config) fn socket_address(value: &Value<'_>) -> Read<SocketAddr> {
    let text = text(value, "an address with a port, such as \"127.0.0.1:53\"")?;
    if let Ok(address) = text.parse() {
        return match why_not_local(&address) {
            None => Ok(address),
            Some(why) => invalid(value, format!("{text:?} {why}")),
        };
    }
    if let Some((v6, port)) = unbracketed_port(text) {
        return invalid(value, format!("{text:?} does not say where the port begins; write \"[{v6}]:{port}\""));
    }
    match text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => invalid(value, format!("{text:?} has no port; write \"{v4}:53\"")),
        Ok(IpAddr::V6(v6)) => invalid(value, format!("{text:?} has no port; write \"[{v6}]:53\"")),
        Err(_) => {
            invalid(value, format!("{text:?} is no address with a port, such as \"127.0.0.1:53\" or \"[::1]:53\""))
        }
    }
}

/// Why no host can listen on an address.
fn why_not_local(address: &SocketAddr) -> Option<String> {
    match address {
        _ if address.ip().is_multicast() => Some("is a multicast address; write one of this host".into()),
        SocketAddr::V4(v4) if v4.ip().is_broadcast() => Some("is the broadcast address; write one of this host".into()),
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => Some(format!(
            "needs the number of its interface; write \"[{}%N]:{}\" with the number that `ip link` shows",
            v6.ip(),
            v6.port()
        )),
        SocketAddr::V6(v6) => {
            v6.ip().to_ipv4_mapped().map(|v4| format!("is an IPv4 address; write \"{v4}:{}\"", v6.port()))
        }
        SocketAddr::V4(_) => None,
    }
}

/// The address of one host.
pub(in crate::config) fn host_address(value: &Value<'_>) -> Read<IpAddr> {
    let text = text(value, "an address, such as \"10.0.0.1\"")?;
    match text.parse().map(canonical) {
        Ok(address) if is_publishable(address) => Ok(address),
        Ok(_) => invalid(value, format!("{text} is not the address of one host")),
        Err(_) => invalid(value, format!("{text:?} is no IP address")),
    }
}

pub(in crate::config) fn name(value: &Value<'_>) -> Read<ZoneName> {
    let text = text(value, "a domain name")?;
    ZoneName::parse(text).or_else(|error| invalid(value, format!("{text:?} {}", name_reason(text, &error))))
}

/// Why a text is not a name, and what to write in its place. It ends a sentence that begins with the text.
pub(in crate::config) fn name_reason(text: &str, error: &NameError) -> String {
    let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let without_port = split_port(host).map_or(host, |(host, _)| host);
    let name = ZoneName::parse(without_port).map(|name| name.to_string().trim_end_matches('.').to_owned());
    match (error, name) {
        (_, Ok(name)) if scheme.is_some() => format!("is a URL; write the name alone, \"{name}\""),
        (_, Ok(name)) if without_port != text => format!("is more than a name; write \"{name}\""),
        (NameError::Character(character), _) if !character.is_ascii() => match idna::domain_to_ascii(text) {
            Ok(ascii) if ZoneName::parse(&ascii).is_ok() => {
                format!("has the character {character:?}; write the name as it is in DNS, \"{ascii}\"")
            }
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}

pub(in crate::config) fn seed(value: &Value<'_>) -> Read<Seed> {
    let text = text(value, "an address or a host name in quotes")?;
    if let Ok(address) = text.parse().map(canonical) {
        return if is_publishable(address) {
            Ok(Seed::Address(address))
        } else {
            invalid(value, format!("{text} is not the address of one host"))
        };
    }
    if text.contains("://") {
        return invalid(value, format!("{text:?} is a URL; a seed is an address or a host name alone"));
    }
    if let Some((host, port)) = split_port(text) {
        return invalid(
            value,
            format!("seed {text:?} has a port; write \"{host}\" here and port = {port} in the zone"),
        );
    }
    if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return invalid(value, format!("seed {text:?} has brackets; write \"{v6}\""));
    }
    if let Some((address, interface)) = text.split_once('%')
        && address.parse::<Ipv6Addr>().is_ok()
    {
        let message = format!("seed {text:?} names the interface {interface}; write an address that needs none");
        return invalid(value, message);
    }
    let looks_numeric =
        text.rsplit('.').next().is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    if looks_numeric {
        return invalid(value, format!("{text:?} is no IP address"));
    }
    match ZoneName::parse(text) {
        Ok(name) if !name.is_root() => Ok(Seed::Host(name)),
        Ok(_) => invalid(value, "\".\" is no host"),
        Err(error) => invalid(value, format!("seed {text:?} {}", name_reason(text, &error))),
    }
}

/// An IPv6 address and a port that were probably meant: `::1:53`, or a whole address and a number behind it.
fn unbracketed_port(text: &str) -> Option<(Ipv6Addr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.parse().ok()?;
    let is_common = ["53", "443", "853", "5353", "9153"].contains(&port);
    (is_common || text.parse::<Ipv6Addr>().is_err()).then_some((address, port.parse().ok()?))
}

/// `host:port` and `[v6]:port`, but not a bare IPv6 address.
fn split_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(v6) => Some((v6, port)),
        None => (!host.contains(':')).then_some((host, port)),
    }
}

//! Single values: converts a TOML value to a checked type, or returns errors with their spans.

mod names;

use std::{
    net::IpAddr,
    num::{NonZeroU8, NonZeroU16, NonZeroU32},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::de::{IntoDeserializer, value::StrDeserializer};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

pub(super) use self::names::{host_address, name, name_reason, seed, socket_address};
use super::diagnostic::{Errors, SpannedError};
use crate::{
    systemd::credential::{credential_name, is_credential_name},
    types::{
        AllowedClients, AnswerCount, CLUSTER_LABEL_OCTETS_MAX, ClusterId, ClusterLabel, INTERVAL_MAX, NameError,
        REFRESH_MIN, TTL_MAX_SECONDS, Ttl, ZoneName, canonical,
    },
};

/// The shortest timeout. With a shorter one a healthy node in the next city would look dead.
pub(super) const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The longest timeout. One poll round takes at most three of them, and a zone must not wait for minutes.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// Octets in the name of a datacenter or rack. Real names are a word long, and the name is part of each request.
const LOCATION_OCTETS_MAX: usize = 255;

/// The largest `rise` and `fall`. With more, a node would practically never leave or return.
const CONSECUTIVE_MAX: u16 = 100;

/// The largest `max_addresses`: an answer of as many IPv6 addresses is larger than what passes every link unfragmented.
const ADDRESSES_MAX: u16 = 64;

/// The longest age, a year: a longer one is probably a wrong unit.
const AGE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Octets in `nsid` and `version`: they must fit into a reply beside eight addresses.
const IDENTITY_OCTETS_MAX: usize = 64;

/// Octets in an access key, as in AWS. It is the name of a role, and part of each signed request.
const ACCESS_KEY_OCTETS_MAX: usize = 128;

/// The shortest timeout of a TCP connection: the unit of edns-tcp-keepalive is 100 ms (RFC 7828, 3.1).
const TCP_TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// Entries in one list. No cluster needs more seeds and no host more addresses; a longer list is a generator's fault.
pub(super) const LIST_MAX: usize = 1024;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;
pub(super) type Read<T> = Result<T, Errors>;

fn invalid<T>(value: &Value<'_>, message: impl Into<String>) -> Read<T> {
    Err(SpannedError::new(value.span(), message).into())
}

fn mismatch<T>(value: &Value<'_>, what: &str) -> Read<T> {
    invalid(value, format!("expected {what}, found {}", kind(value.get_ref())))
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

pub(super) fn text<'v>(value: &'v Value<'_>, what: &str) -> Read<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => mismatch(value, what),
    }
}

pub(super) fn boolean(value: &Value<'_>) -> Read<bool> {
    match value.get_ref() {
        DeValue::Boolean(truth) => Ok(*truth),
        _ => mismatch(value, "true or false"),
    }
}

pub(super) fn table<'i>(value: Value<'i>, what: &str) -> Read<DeTable<'i>> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok(table),
        other => Err(SpannedError::new(span, format!("expected {what}, found {}", kind(&other))).into()),
    }
}

/// All entries of a list, or the errors of all entries.
pub(super) fn list<T>(value: &Value<'_>, what: &str, read: impl Fn(&Value<'_>) -> Read<T>) -> Read<Vec<Spanned<T>>> {
    let DeValue::Array(entries) = value.get_ref() else {
        return mismatch(value, what);
    };
    if entries.len() > LIST_MAX {
        return invalid(value, format!("a list of {} entries; at most {LIST_MAX} are allowed", entries.len()));
    }
    let mut errors = Errors::default();
    let mut list = Vec::with_capacity(entries.len());
    for entry in entries.iter() {
        match read(entry) {
            Ok(read) => list.push(Spanned::new(entry.span(), read)),
            Err(more) => errors.append(more),
        }
    }
    if errors.is_empty() { Ok(list) } else { Err(errors) }
}

fn integer(value: &Value<'_>, range: RangeInclusive<u16>, what: &str) -> Read<u16> {
    let DeValue::Integer(digits) = value.get_ref() else {
        return mismatch(value, what);
    };
    match u16::from_str_radix(digits.as_str(), digits.radix()) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => invalid(value, format!("{digits} is out of range; expected {what}")),
    }
}

pub(super) fn port(value: &Value<'_>) -> Read<NonZeroU16> {
    let what = "a port, a number from 1 to 65535";
    NonZeroU16::new(integer(value, 1..=u16::MAX, what)?).map_or_else(|| mismatch(value, what), Ok)
}

pub(super) fn answer_count(value: &Value<'_>) -> Read<AnswerCount> {
    let what = "1, 2, ... or \"all\"";
    if let DeValue::String(text) = value.get_ref() {
        return if text == "all" { Ok(AnswerCount::All) } else { mismatch(value, what) };
    }
    NonZeroU16::new(integer(value, 1..=u16::MAX, what)?)
        .map_or_else(|| mismatch(value, what), |n| Ok(AnswerCount::AtMost(n)))
}

/// How many addresses of one family a transferred zone has.
pub(super) fn max_addresses(value: &Value<'_>) -> Read<NonZeroU8> {
    let what = format!("a number from 1 to {ADDRESSES_MAX}");
    let number = integer(value, 1..=ADDRESSES_MAX, &what)?;
    u8::try_from(number).ok().and_then(NonZeroU8::new).map_or_else(|| mismatch(value, &what), Ok)
}

fn duration(value: &Value<'_>, range: RangeInclusive<Duration>, what: &str) -> Read<Duration> {
    let text = text(value, &format!("a duration in quotes, such as \"1s\" or \"500ms\", {what}"))?;
    let deserializer: StrDeserializer<'_, serde::de::value::Error> = text.into_deserializer();
    match humantime_serde::deserialize::<Duration, _>(deserializer) {
        Ok(duration) if range.contains(&duration) => Ok(duration),
        Ok(_) => invalid(value, format!("{text:?} is out of range; expected {what}")),
        Err(_) => {
            invalid(value, format!("{text:?} is no duration; write a number and a unit, such as \"1s\" or \"500ms\""))
        }
    }
}

pub(super) fn ttl(value: &Value<'_>) -> Read<Ttl> {
    let what = "whole seconds from 0s to 1d";
    let longest = Duration::from_secs(u64::from(TTL_MAX_SECONDS));
    let duration = duration(value, Duration::ZERO..=longest, what)?;
    let seconds = u32::try_from(duration.as_secs()).ok().filter(|_| duration.subsec_nanos() == 0);
    seconds.and_then(Ttl::from_secs).map_or_else(|| invalid(value, format!("a TTL is {what}")), Ok)
}

pub(super) fn refresh(value: &Value<'_>) -> Read<Duration> {
    duration(value, REFRESH_MIN..=INTERVAL_MAX, "100ms to 1h")
}

pub(super) fn timeout(value: &Value<'_>) -> Read<Duration> {
    duration(value, TIMEOUT_MIN..=TIMEOUT_MAX, "10ms to 60s")
}

/// Whether `scheme` is "https".
pub(super) fn is_https(value: &Value<'_>) -> Read<bool> {
    match text(value, "\"http\" or \"https\"")? {
        "http" => Ok(false),
        "https" => Ok(true),
        other => invalid(value, format!("{other:?} is no scheme; expected \"http\" or \"https\"")),
    }
}

/// A file of a certificate, key or secret: its path, or the credential of systemd that has it.
pub(super) fn file(value: &Value<'_>) -> Read<PathBuf> {
    let path = path(value)?;
    match credential_name(&path) {
        Some(name) if !is_credential_name(name) => invalid(
            value,
            format!(
                "{name:?} is no name of a credential; write \"credential:NAME\" with the NAME of LoadCredential=NAME:/path"
            ),
        ),
        _ => Ok(path),
    }
}

pub(super) fn path(value: &Value<'_>) -> Read<PathBuf> {
    match text(value, "a path in quotes")? {
        "" => invalid(value, "the path is empty"),
        path => Ok(path.into()),
    }
}

/// A name under which the pages of the admin interface answer.
pub(super) fn page_host(value: &Value<'_>) -> Read<ZoneName> {
    let text = text(value, "a host name in quotes")?;
    match ZoneName::parse(text) {
        Ok(name) if !name.is_root() => Ok(name),
        Ok(_) => invalid(value, "\".\" is no host"),
        Err(NameError::Address) => invalid(value, format!("{text:?} is not needed here; every address is allowed")),
        Err(_) if text.contains([':', '/']) => {
            invalid(value, format!("{text:?} is no host name; write the name alone, without scheme, port and path"))
        }
        Err(error) => invalid(value, format!("{text:?} {error}")),
    }
}

/// A name that a certificate can have.
pub(super) fn server_name(value: &Value<'_>) -> Read<String> {
    let text = text(value, "a host name or an address")?;
    match ZoneName::parse(text) {
        Ok(name) => Ok(name.to_string().trim_end_matches('.').into()),
        Err(NameError::Address) => Ok(text.into()),
        Err(error) => invalid(value, format!("{text:?} {}", name_reason(text, &error))),
    }
}

/// The name of a datacenter or rack.
pub(super) fn location_name(value: &Value<'_>) -> Read<String> {
    let text = text(value, "a name in quotes")?;
    match text.len() {
        0 => invalid(value, "the name is empty"),
        1..=LOCATION_OCTETS_MAX => Ok(text.into()),
        _ => invalid(value, format!("the name is longer than {LOCATION_OCTETS_MAX} octets")),
    }
}

/// One name, or a list of them.
pub(super) fn location_names(value: &Value<'_>) -> Read<Vec<String>> {
    if !value.get_ref().is_array() {
        return Ok(vec![location_name(value)?]);
    }
    let list = list(value, "a name, or a list of names", location_name)?;
    if list.is_empty() {
        return invalid(value, "the list is empty; name at least one datacenter");
    }
    Ok(list.into_iter().map(Spanned::into_inner).collect())
}

/// A network such as `10.0.0.0/8`, or one address.
pub(super) fn network(value: &Value<'_>) -> Read<IpNet> {
    let text = text(value, "a network such as \"10.0.0.0/8\", or an address")?;
    parse_network(text).or_else(|error| invalid(value, error.to_string()))
}

/// Why a text is not a network.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkError {
    #[error("{text:?} has bits beyond its prefix; write \"{network}\"")]
    HostBits { text: String, network: IpNet },
    #[error("{0:?} is neither a network such as \"10.0.0.0/8\" nor an address")]
    Syntax(String),
}

/// The same for a plain text; the keys of `map` have no [`Value`].
pub(super) fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(canonical(address).into());
    }
    match text.parse::<IpNet>() {
        Ok(network) if network == network.trunc() => Ok(network),
        Ok(network) => Err(NetworkError::HostBits { text: text.into(), network: network.trunc() }),
        Err(_) => Err(NetworkError::Syntax(text.into())),
    }
}

/// The clients that may ask: networks or addresses.
pub(super) fn clients(value: &Value<'_>) -> Read<AllowedClients> {
    let networks = list(value, "a list of networks or addresses in quotes", network)?;
    Ok(AllowedClients::Networks(networks.into_iter().map(Spanned::into_inner).collect()))
}

/// A text by which the server identifies itself: `nsid` or `version`.
pub(super) fn identity_text(value: &Value<'_>) -> Read<String> {
    let what = format!("1 to {IDENTITY_OCTETS_MAX} printable ASCII characters");
    let text = text(value, &what)?;
    let printable = text.bytes().all(|octet| octet == b' ' || octet.is_ascii_graphic());
    if !printable || !(1..=IDENTITY_OCTETS_MAX).contains(&text.len()) {
        return invalid(value, format!("expected {what}"));
    }
    Ok(text.into())
}

/// The operator's word for a cluster.
pub(super) fn cluster_label(value: &Value<'_>) -> Read<ClusterLabel> {
    let what = format!("a label of 1 to {CLUSTER_LABEL_OCTETS_MAX} printable ASCII characters in quotes");
    let text = text(value, &what)?;
    ClusterLabel::parse(text).map_or_else(|| invalid(value, format!("expected {what}")), Ok)
}

/// The id of a cluster.
pub(super) fn cluster_id(value: &Value<'_>) -> Read<ClusterId> {
    let text = text(value, "a UUID in quotes")?;
    ClusterId::parse(text).or_else(|error| invalid(value, format!("{text:?} {error}")))
}

/// The name under which requests are signed. In the header that carries it, Alternator splits at each of these characters.
pub(super) fn access_key(value: &Value<'_>) -> Read<String> {
    let what = format!("1 to {ACCESS_KEY_OCTETS_MAX} printable ASCII characters without blanks, '/', ',' and '='");
    let text = text(value, &what)?;
    let fits = text.bytes().all(|octet| octet.is_ascii_graphic() && !b"/,=".contains(&octet));
    if !fits || !(1..=ACCESS_KEY_OCTETS_MAX).contains(&text.len()) {
        return invalid(value, format!("expected {what}"));
    }
    Ok(text.into())
}

/// A number of connections.
pub(super) fn connections(value: &Value<'_>) -> Read<usize> {
    integer(value, 1..=u16::MAX, "a number from 1 to 65535").map(usize::from)
}

/// How long a TCP connection may wait for octets.
pub(super) fn tcp_timeout(value: &Value<'_>) -> Read<Duration> {
    duration(value, TCP_TIMEOUT_MIN..=INTERVAL_MAX, "100ms to 1h")
}

pub(super) fn replies_per_second(value: &Value<'_>) -> Read<NonZeroU32> {
    let what = "a number from 1 to 65535";
    NonZeroU32::new(integer(value, 1..=u16::MAX, what)?.into()).map_or_else(|| mismatch(value, what), Ok)
}

/// A number in this range.
pub(super) fn small(value: &Value<'_>, range: RangeInclusive<u8>) -> Read<u8> {
    let what = format!("a number from {} to {}", range.start(), range.end());
    let number = integer(value, u16::from(*range.start())..=u16::from(*range.end()), &what)?;
    u8::try_from(number).or_else(|_| mismatch(value, &what))
}

/// The value, unless its parts have errors.
pub(super) fn unless_errors<T>(value: T, errors: Errors) -> Read<T> {
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

/// How many consecutive probes must agree: `rise` and `fall`.
pub(super) fn consecutive(value: &Value<'_>) -> Read<NonZeroU8> {
    let what = "a number from 1 to 100";
    let number = integer(value, 1..=CONSECUTIVE_MAX, what)?;
    u8::try_from(number).ok().and_then(NonZeroU8::new).map_or_else(|| mismatch(value, what), Ok)
}

/// An age from a second to a year.
pub(super) fn age(value: &Value<'_>) -> Read<Duration> {
    duration(value, Duration::from_secs(1)..=AGE_MAX, "1s to 365d")
}

//! The keys of `[transfer]`.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
};

use toml::Spanned;

use super::{
    definitions::{Key, Kind, TEXTS},
    diagnostic::{Errors, SpannedError},
    forward_keys::is_same_host,
    keys::Keys,
    server_keys::ServerKeys,
    value::{self, Read, Value},
};
use crate::types::{NAME_OCTETS_MAX, ZoneName, canonical, is_publishable};

pub(super) const TRANSFER_KEYS: [Key; 3] = [
    Key::new("secondaries", TEXTS, "The servers that fetch the zones, which are notified of changes."),
    Key::new("key", Kind::Table(&KEY_KEYS), "The TSIG key that this server and the secondaries share."),
    Key::new("catalog", Kind::Text, "The name of a catalog zone that lists all zones."),
];

const KEY_KEYS: [Key; 3] = [
    Key::new("name", Kind::Text, "Its name, the same on the secondaries."),
    Key::new("algorithm", Kind::OneOf(&TsigAlgorithm::WORDS), "Its algorithm.").or("\"hmac-sha256\""),
    Key::new("secret_file", Kind::Text, "The file of its secret, in base64."),
];

/// Secondaries in one list. The state of each zone is kept for each of them, and a fleet that is larger has secondaries
/// that fetch from others.
pub const SECONDARIES_MAX: usize = 16;

/// Octets of the name of a catalog on the wire: before it stand a label of 32 hexadecimal digits and "zones" (RFC 9432, 4.1).
const CATALOG_OCTETS_MAX: usize = NAME_OCTETS_MAX - 39;

/// The port of DNS.
const PORT: u16 = 53;

/// `[transfer]`: the zones are given to secondaries, which serve them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transfer {
    /// Where the secondaries get NOTIFY, and the addresses that they fetch from; at least one, each address once.
    pub secondaries: Vec<SocketAddr>,
    /// Signs all messages between this server and secondaries.
    pub key: TransferKey,
    /// The name of the catalog zone (RFC 9432); `None`: there is none.
    pub catalog: Option<ZoneName>,
}

/// The TSIG key of `[transfer]` (RFC 8945). The file is read when the configuration is put in force, and again when it
/// changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransferKey {
    /// Its name.
    pub name: ZoneName,
    /// Its algorithm.
    pub algorithm: TsigAlgorithm,
    /// The file of its secret.
    pub secret_file: PathBuf,
}

/// An algorithm of TSIG (RFC 8945, 6). Those on SHA-1 and MD5 are not for new keys.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TsigAlgorithm {
    /// HMAC with SHA-256, which every implementation has.
    #[default]
    HmacSha256,
    /// HMAC with SHA-384.
    HmacSha384,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl TsigAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512];

    const WORDS: [&'static str; 3] = ["hmac-sha256", "hmac-sha384", "hmac-sha512"];

    /// Its name, which is also its domain name (RFC 8945, 6).
    pub const fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

pub(super) struct TransferKeys {
    at: Range<usize>,
    secondaries: Vec<Spanned<SocketAddr>>,
    key: Option<TransferKey>,
    catalog: Option<Spanned<ZoneName>>,
}

/// Reads the section, if the file has it.
pub(super) fn read_transfer(file: &mut Keys<'_>) -> Option<(TransferKeys, Errors)> {
    let at = file.table.get_key_value("transfer").map(|(key, _)| key.span())?;
    let mut keys = file.sub_table("transfer")?;
    let has_secondaries = keys.table.contains_key("secondaries");
    let has_key = keys.table.contains_key("key");
    let secondaries = keys.get("secondaries", secondaries).unwrap_or_default();
    let key = keys.get("key", key);
    let catalog = keys.spanned("catalog", value::name);
    if !has_secondaries {
        let message = "[transfer] has no secondaries; add secondaries = [\"address of a secondary\", ...]";
        keys.errors.push(SpannedError::missing(at.clone(), message));
    }
    if !has_key {
        let message = "[transfer] has no key; add key = { name = \"transfer-key\", secret_file = \"/path\" }";
        keys.errors.push(SpannedError::missing(at.clone(), message));
    }
    for (number, secondary) in secondaries.iter().enumerate() {
        let address = secondary.get_ref().ip();
        if secondaries.iter().take(number).any(|earlier| earlier.get_ref().ip() == address) {
            let message = format!(
                "{address} is listed twice; of two secondaries with one address this server cannot know which one fetches"
            );
            keys.errors.push(SpannedError::new(secondary.span(), message));
        }
    }
    Some((TransferKeys { at, secondaries, key, catalog }, keys.finish(&TRANSFER_KEYS, &[])))
}

impl TransferKeys {
    /// Conflicts with `[server]`, and with zones. `zone_at` says where a zone of that name is.
    pub(super) fn cross_checks(
        &self,
        server: &ServerKeys,
        zone_at: impl Fn(&ZoneName) -> Option<Range<usize>>,
    ) -> Errors {
        let mut errors = Errors::default();
        let listen = server.addresses();
        for secondary in &self.secondaries {
            let address = *secondary.get_ref();
            if let Some(own) = listen.iter().find(|listen| is_same_host(address, **listen)) {
                let message =
                    format!("secondary {address} is this server itself (listen has {own}); name another server");
                errors.push(SpannedError::new(secondary.span(), message));
            }
        }
        if let Some(root) = zone_at(&ZoneName::root()) {
            let message = "zone \".\" answers every name, which no secondary can; remove it, or [transfer]";
            errors.push(SpannedError::new(root, message));
        }
        if server.nameservers.is_empty() {
            let message = "[transfer] needs nameservers in [server]: the names of the secondaries, which the NS records of \
                           the zones list";
            errors.push(SpannedError::missing(self.at.clone(), message));
        }
        if let Some(catalog) = &self.catalog {
            let name = catalog.get_ref();
            let what = match () {
                () if name.is_root() => Some("the root"),
                () if name.wire().len() > CATALOG_OCTETS_MAX => Some("too long for the names of its members"),
                () if zone_at(name).is_some() => Some("a zone"),
                () if server.has_domain(name) => Some("a domain"),
                () => None,
            };
            errors.extend(what.map(|what| {
                let message =
                    format!("the catalog {name} is {what}; give it a name of its own, such as \"catalog.invalid\"");
                SpannedError::new(catalog.span(), message)
            }));
        }
        errors
    }

    /// `None` only where errors were found.
    pub(super) fn resolve(self) -> Option<Transfer> {
        Some(Transfer {
            secondaries: self.secondaries.into_iter().map(Spanned::into_inner).collect(),
            key: self.key?,
            catalog: self.catalog.map(Spanned::into_inner),
        })
    }
}

fn secondaries(value: &Value<'_>) -> Read<Vec<Spanned<SocketAddr>>> {
    let secondaries = value::list(value, "a list of addresses in quotes", secondary)?;
    let message = match secondaries.len() {
        0 => "[transfer] has an empty list of secondaries; name at least one".into(),
        1..=SECONDARIES_MAX => return Ok(secondaries),
        count => format!("{count} secondaries; at most {SECONDARIES_MAX} are allowed"),
    };
    Err(SpannedError::new(value.span(), message).into())
}

fn secondary(value: &Value<'_>) -> Read<SocketAddr> {
    let text = value::text(value, "the address of a secondary in quotes")?;
    let with_port = text.parse::<SocketAddr>();
    let address = with_port.or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT)));
    let message = match address.map(|address| SocketAddr::new(canonical(address.ip()), address.port())) {
        Ok(address) if !is_publishable(address.ip()) => format!("{} is not the address of one host", address.ip()),
        Ok(address) if address.port() == 0 => "no secondary can be notified on port 0".into(),
        Ok(address) => return Ok(address),
        Err(_) => format!("{text:?} is no address; write one such as \"192.0.2.1\" or \"192.0.2.1:53\""),
    };
    Err(SpannedError::new(value.span(), message).into())
}

fn key(value: &Value<'_>) -> Read<TransferKey> {
    let span = value.span();
    let table = value::table(value.clone(), "a table, key = { name = \"...\", secret_file = \"...\" }")?;
    let mut keys = Keys::new(table, "key");
    let [has_name, has_file] = ["name", "secret_file"].map(|key| keys.table.contains_key(key));
    if let Some((secret, _)) = keys.table.remove_entry("secret") {
        let message =
            "a secret does not belong in this file; write it to a file of its own, and secret_file = \"/path\"";
        keys.errors.push(SpannedError::new(secret.span(), message));
    }
    let name = keys.get("name", value::name);
    let algorithm = keys.get("algorithm", algorithm).unwrap_or_default();
    let secret_file = keys.get("secret_file", value::file);
    let mut errors = keys.finish(&KEY_KEYS, &[]);
    if !has_name {
        errors.push(SpannedError::missing(span.clone(), "key needs a name, the one that it has on the secondaries"));
    }
    if !has_file {
        errors.push(SpannedError::missing(span, "key needs secret_file, the file of its secret in base64"));
    }
    match (name, secret_file) {
        (Some(name), Some(secret_file)) if errors.is_empty() => Ok(TransferKey { name, algorithm, secret_file }),
        _ => Err(errors),
    }
}

fn algorithm(value: &Value<'_>) -> Read<TsigAlgorithm> {
    let text = value::text(value, "the name of an algorithm in quotes")?;
    TsigAlgorithm::ALL.into_iter().find(|algorithm| algorithm.word() == text).ok_or_else(|| {
        let message = format!("{text:?} is no algorithm of [transfer]; it knows {}", TsigAlgorithm::WORDS.join(", "));
        SpannedError::new(value.span(), message).into()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Config, *};

    const SERVER: &str = "[server]\nlisten = [\"127.0.0.1:5300\"]\nnameservers = [{ name = \"ns.example\" }]\n";
    const ZONE: &str = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n";
    const KEY: &str = "key = { name = \"k\", secret_file = \"/s\" }\n";

    fn parse(transfer: &str) -> Result<Config, String> {
        let text = format!("{SERVER}{ZONE}[transfer]\n{transfer}");
        Config::parse(Path::new("z.toml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_have_port_53_unless_they_say_another() {
        let text = format!("secondaries = [\"192.0.2.1\", \"[2001:db8::1]:5353\"]\ncatalog = \"c.invalid\"\n{KEY}");
        let transfer = parse(&text).unwrap().transfer.unwrap();
        assert_eq!(transfer.secondaries, ["192.0.2.1:53", "[2001:db8::1]:5353"].map(|text| text.parse().unwrap()));
        assert_eq!(transfer.key.algorithm, TsigAlgorithm::HmacSha256);
        assert_eq!(transfer.catalog, ZoneName::parse("c.invalid").ok());
    }

    #[test]
    fn every_error_says_what_to_write() {
        let with_key = |line: &str| parse(&format!("{line}\n{KEY}")).unwrap_err();
        let with_secondary = |line: &str| parse(&format!("secondaries = [\"192.0.2.1\"]\n{line}\n")).unwrap_err();
        for (error, expected) in [
            (with_key(""), "[transfer] has no secondaries; add secondaries = "),
            (with_key("secondaries = []"), "[transfer] has an empty list of secondaries"),
            (with_key("secondaries = [\"192.0.2.1\", \"192.0.2.1:54\"]"), "192.0.2.1 is listed twice; of two"),
            (with_key("secondaries = [\"ns.example\"]"), "\"ns.example\" is no address; write one such as"),
            (with_key("secondaries = [\"192.0.2.1:0\"]"), "no secondary can be notified on port 0"),
            (with_key("secondaries = [\"127.0.0.1:5300\"]"), "secondary 127.0.0.1:5300 is this server itself"),
            (with_secondary(""), "[transfer] has no key; add key = "),
            (with_secondary("key = { name = \"k\", secret = \"x\" }"), "a secret does not belong in this file"),
            (with_secondary("key = { name = \"k\" }"), "key needs secret_file"),
            (with_secondary("key = { secret_file = \"/s\" }"), "key needs a name"),
            (
                with_secondary("key = { name = \"k\", secret_file = \"/s\", algorithm = \"hmac-md5\" }"),
                "\"hmac-md5\" is no algorithm of [transfer]; it knows hmac-sha256, hmac-sha384, hmac-sha512",
            ),
            (with_secondary(&format!("{KEY}catalog = \"a.example\"")), "the catalog a.example. is a zone"),
            (with_secondary(&format!("{KEY}catalog = \".\"")), "the catalog . is the root"),
        ] {
            assert!(error.contains(expected) && error.starts_with("z.toml:"), "{error}");
        }
        let text =
            format!("{ZONE}[zones.\".\"]\nseeds = [\"10.0.0.1\"]\n[transfer]\nsecondaries = [\"192.0.2.1\"]\n{KEY}");
        let error = Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("[transfer] needs nameservers in [server]"), "{error}");
        assert!(error.contains("zone \".\" answers every name, which no secondary can"), "{error}");
    }
}

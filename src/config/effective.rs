//! The configuration in force as a file: every key with its value and where that comes from.
//!
//! Secrets are in files of their own, which the configuration only names; their content is never read here.

use std::{collections::BTreeSet, fmt};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{
    Config, Scheme, SourceFile, Zone,
    definitions::{Key, Kind},
    forward_keys::FORWARD_KEYS,
    server_keys::SERVER_KEYS,
    sources::without_mark,
    texts::Lines,
    transfer_keys::TRANSFER_KEYS,
    value::{Value, parse_network},
    zone_keys::ZONE_KEYS,
};
use crate::types::ZoneName;

/// A table that may have a key, and where the table is.
#[derive(Clone, Copy)]
struct Layer<'s> {
    table: &'s DeTable<'s>,
    place: Place<'s>,
}

/// The file of a table, and what is said after the line.
#[derive(Clone, Copy)]
struct Place<'s> {
    path: &'s std::path::Path,
    lines: &'s Lines<'s>,
    suffix: &'static str,
}

/// Where a value comes from when no table has its key.
struct Fallback {
    /// The value in TOML; `None`: the key is not set.
    value: Option<String>,
    origin: String,
}

/// A part of the configuration in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EffectiveSection {
    /// Which part.
    pub name: SectionName,
    /// Its keys, in the order of the manual; keys of tables with dots.
    pub values: Vec<EffectiveValue>,
}

/// A part of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SectionName {
    /// `[server]`.
    Server,
    /// `[forward]`.
    Forward,
    /// `[transfer]`.
    Transfer,
    /// A zone.
    Zone(ZoneName),
}

/// A key, its value, and where that comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EffectiveValue {
    /// The key.
    pub key: String,
    /// In TOML; `None`: it is not set.
    pub value: Option<String>,
    /// What is said after it.
    pub origin: String,
}

impl EffectiveValue {
    /// Whether the file says it, in its section or in another one.
    pub fn is_written(&self) -> bool {
        self.value.is_some() && !self.origin.starts_with(DEFAULT)
    }
}

impl fmt::Display for EffectiveSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            SectionName::Server => writeln!(f, "[server]")?,
            SectionName::Forward => writeln!(f, "[forward]")?,
            SectionName::Transfer => writeln!(f, "[transfer]")?,
            SectionName::Zone(name) => writeln!(f, "[zones.\"{name}\"]")?,
        }
        for EffectiveValue { key, value, origin } in &self.values {
            match value {
                // The zones of those files are shown too, so a copy of this that included them would have each twice.
                Some(value) if key == "include" => writeln!(f, "# {key} = {value}  # {origin}")?,
                Some(value) => writeln!(f, "{key} = {value}  # {origin}")?,
                None => writeln!(f, "# {key} is not set{origin}")?,
            }
        }
        Ok(())
    }
}

/// All keys of `[server]`, `[forward]`, `[transfer]` and each zone, or of one zone alone, as TOML with the origin of each value in a
/// comment. Parsed again, it is the same configuration.
pub fn effective(config: &Config, only: Option<&ZoneName>) -> String {
    let sections = effective_sections(config, |section| match (section, only) {
        (_, None) => true,
        (SectionName::Zone(name), Some(only)) => name == only,
        (_, Some(_)) => false,
    });
    sections.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The sections that are wanted, with all their keys.
pub fn effective_sections(config: &Config, is_wanted: impl Fn(&SectionName) -> bool) -> Vec<EffectiveSection> {
    let texts: Vec<_> = config.sources.iter().map(SourceText::new).collect();
    let files: Vec<_> = texts.iter().map(|text| (text, DeTable::parse_recoverable(text.text).0)).collect();
    let tables: Vec<_> = files.iter().map(|(text, root)| (*text, root.get_ref())).collect();
    let section = |name: &'static str, suffix| {
        tables.iter().filter_map(move |(text, root)| {
            Some(Layer { table: root.get(name)?.get_ref().as_table()?, place: text.place(suffix) })
        })
    };
    let mut out = Output::default();
    let server: Vec<_> = section("server", "").collect();
    if is_wanted(&SectionName::Server) {
        out.section(SectionName::Server, &SERVER_KEYS, &server, server_fallback);
    }
    if config.forward.is_some() && is_wanted(&SectionName::Forward) {
        let forward: Vec<_> = section("forward", "").collect();
        out.section(SectionName::Forward, &FORWARD_KEYS, &forward, built_in);
    }
    if config.transfer.is_some() && is_wanted(&SectionName::Transfer) {
        let transfer: Vec<_> = section("transfer", "").collect();
        out.section(SectionName::Transfer, &TRANSFER_KEYS, &transfer, built_in);
    }
    let defaults: Vec<_> = section("defaults", ", [defaults]").collect();
    let written = section("zones", "").flat_map(zone_tables);
    for (name, own) in written {
        let section = SectionName::Zone(name.clone());
        if let Some(zone) = config.zones.get(&name).filter(|_| is_wanted(&section)) {
            let layers: Vec<_> = std::iter::once(own).chain(defaults.iter().copied()).collect();
            out.zone(&name, zone, &layers, &server);
        }
    }
    out.0
}

/// The table of each zone in `[zones]`.
fn zone_tables(zones: Layer<'_>) -> Vec<(ZoneName, Layer<'_>)> {
    let named = zones.table.iter().filter_map(|(name, value)| {
        let table = value.get_ref().as_table()?;
        Some((ZoneName::parse(name.get_ref()).ok()?, Layer { table, place: zones.place }))
    });
    named.collect()
}

/// A file and its lines.
struct SourceText<'s> {
    path: &'s std::path::Path,
    text: &'s str,
    lines: Lines<'s>,
}

impl<'s> SourceText<'s> {
    fn new(file: &'s SourceFile) -> Self {
        let text = without_mark(&file.text);
        Self { path: &file.path, text, lines: Lines::new(text) }
    }

    fn place(&self, suffix: &'static str) -> Place<'_> {
        Place { path: self.path, lines: &self.lines, suffix }
    }
}

/// The sections so far.
#[derive(Default)]
struct Output(Vec<EffectiveSection>);

impl Output {
    fn section(&mut self, name: SectionName, keys: &[Key], layers: &[Layer<'_>], fallback: impl Fn(&Key) -> Fallback) {
        self.0.push(EffectiveSection { name, values: Vec::new() });
        for key in keys {
            self.key("", key, layers, &fallback);
        }
    }

    fn zone(&mut self, name: &ZoneName, zone: &Zone, layers: &[Layer<'_>], server: &[Layer<'_>]) {
        // tls in [defaults] concerns only zones with https; elsewhere it would be refused.
        let keys: Vec<_> =
            ZONE_KEYS.into_iter().filter(|key| key.name != "tls" || zone.cluster.scheme != Scheme::Http).collect();
        let fallback = |key: &Key| match key.name {
            "negative_ttl" => Fallback {
                value: Some(format!("\"{}s\"", zone.negative_ttl.as_secs())),
                origin: "default: ttl, at most 5s".into(),
            },
            "clients" => match server.iter().find_map(|layer| Some((layer, layer.table.get("clients")?))) {
                Some((layer, value)) => {
                    Fallback { value: Some(toml(value)), origin: layer.place.origin(value) + ", [server]" }
                }
                None => built_in(key),
            },
            _ => built_in(key),
        };
        // The zone "." has subdomains whatever is written.
        let (keys, root): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| !(name.is_root() && key.name == "subdomains"));
        self.section(SectionName::Zone(name.clone()), &keys, layers, fallback);
        for key in root {
            self.line(key.name, "true", "the zone \".\" has them always");
        }
    }

    /// A key, or each key of the table that is its value: tables are merged key by key.
    fn key(&mut self, prefix: &str, key: &Key, layers: &[Layer<'_>], fallback: &dyn Fn(&Key) -> Fallback) {
        let name = format!("{prefix}{}", key.name);
        let found: Vec<_> = layers.iter().filter_map(|layer| Some((layer.place, layer.table.get(key.name)?))).collect();
        // `false` hides the tables below it.
        let tables: Vec<_> = found
            .iter()
            .map_while(|(place, value)| Some(Layer { table: value.get_ref().as_table()?, place: *place }))
            .collect();
        match (found.first(), key.kind) {
            (_, Kind::Map) => self.map(&name, &tables),
            (Some(_), kind) if let Some(keys) = kind.table().filter(|_| !tables.is_empty()) => {
                keys.iter().for_each(|key| self.key(&format!("{name}."), key, &tables, &built_in));
            }
            (None, kind) if let Some(keys) = kind.table().filter(|_| key.default.is_some()) => {
                keys.iter().for_each(|key| self.key(&format!("{name}."), key, &[], &built_in));
            }
            (Some((place, value)), _) => self.line(&name, &toml(value), &place.origin(value)),
            (None, _) => match fallback(key) {
                Fallback { value: Some(value), origin } => self.line(&name, &value, &origin),
                Fallback { value: None, origin } => self.add(name, None, origin),
            },
        }
    }

    /// Translations of all tables; for the same network the first one counts.
    fn map(&mut self, name: &str, tables: &[Layer<'_>]) {
        let mut seen = BTreeSet::new();
        for layer in tables {
            for (from, to) in layer.table.iter() {
                let network =
                    parse_network(from.get_ref()).map_or_else(|_| from.get_ref().to_string(), |net| net.to_string());
                if seen.insert(network) {
                    let from = toml::Value::String(from.get_ref().to_string());
                    self.line(&format!("{name}.{from}"), &toml(to), &layer.place.origin(to));
                }
            }
        }
        if seen.is_empty() {
            self.line(name, "{}", DEFAULT);
        }
    }

    fn line(&mut self, name: &str, value: &str, origin: &str) {
        self.add(name.to_owned(), Some(value.to_owned()), origin.to_owned());
    }

    /// A key of the section that was begun last.
    fn add(&mut self, key: String, value: Option<String>, origin: String) {
        if let Some(section) = self.0.last_mut() {
            section.values.push(EffectiveValue { key, value, origin });
        }
    }
}

/// The origin of what this program fills in.
const DEFAULT: &str = "default";

fn built_in(key: &Key) -> Fallback {
    Fallback {
        value: key.default.map(Into::into),
        origin: if key.default.is_some() { DEFAULT.into() } else { String::new() },
    }
}

/// `state_dir` may come from the environment; it is no part of the file, so it stays a comment.
fn server_fallback(key: &Key) -> Fallback {
    match crate::systemd::state_directory() {
        Some(directory) if key.name == "state_dir" => {
            Fallback { value: None, origin: format!("; $STATE_DIRECTORY has {}", directory.display()) }
        }
        None if key.name == "state_dir" => Fallback { value: None, origin: "; a service uses $STATE_DIRECTORY".into() },
        _ => built_in(key),
    }
}

impl Place<'_> {
    fn origin(&self, value: &Value<'_>) -> String {
        let path: String = self.path.display().to_string().chars().flat_map(visible).collect();
        format!("{path}:{}{}", self.lines.line(value.span().start), self.suffix)
    }
}

/// A character of a path, so that it cannot end the comment.
fn visible(character: char) -> Vec<char> {
    if character.is_control() { character.escape_debug().collect() } else { vec![character] }
}

/// A value in one line of TOML. The whole file was parsed before, so a value can always be written.
fn toml(value: &Value<'_>) -> String {
    let read = |value: DeValue<'_>| toml::Value::deserialize(ValueDeserializer::from(toml::Spanned::new(0..0, value)));
    read(value.get_ref().clone()).map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn parsed(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap()
    }

    /// What is shown of a file, which must be the same configuration when it is parsed.
    #[track_caller]
    fn shown(text: &str) -> String {
        let config = parsed(text);
        let shown = effective(&config, None);
        let mut again = parsed(&shown);
        again.server.listen_by_default = config.server.listen_by_default;
        assert_eq!(
            (&again.server, &again.forward, &again.zones),
            (&config.server, &config.forward, &config.zones),
            "{shown}"
        );
        shown
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let shown = shown(
            "[server]\nclients = [\"10.0.0.0/8\"]\n\n[defaults]\nttl = \"9s\"\nhealth = { rise = 3 }\n\
             map = { \"10.0.1.0/24\" = \"192.0.2.0/24\" }\ntls = { ca = \"/ca\" }\n\n[zones.\"a.example\"]\n\
             seeds = [\n  \"10.0.0.1\", # one\n  \"10.0.0.2\",\n]\nhealth = { fall = 4 }\n\
             identity = { access_key = \"dns\", secret_key_file = \"/secret\" }\n",
        );
        for line in [
            "listen = [\"127.0.0.1:53\", \"[::1]:53\"]  # default",
            "# admin is not set",
            "tcp.max_connections = 1024  # default",
            "[zones.\"a.example.\"]",
            "seeds = [\"10.0.0.1\", \"10.0.0.2\"]  # z.toml:11",
            "ttl = \"9s\"  # z.toml:5, [defaults]",
            "negative_ttl = \"5s\"  # default: ttl, at most 5s",
            "clients = [\"10.0.0.0/8\"]  # z.toml:2, [server]",
            "health.interval = \"1s\"  # default",
            "health.rise = 3  # z.toml:6, [defaults]",
            "health.fall = 4  # z.toml:15",
            "map.\"10.0.1.0/24\" = \"192.0.2.0/24\"  # z.toml:7, [defaults]",
            "identity.secret_key_file = \"/secret\"  # z.toml:16",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line}\n\n{shown}");
        }
        assert!(!shown.contains("/ca"), "tls of [defaults] does not concern a zone with http: {shown}");
    }

    #[test]
    fn one_zone_is_shown_alone() {
        let config = parsed("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"b\"]\nseeds = [\"10.0.0.2\"]\n");
        let shown = effective(&config, ZoneName::parse("b").ok().as_ref());
        assert!(shown.starts_with("[zones.\"b.\"]\n") && !shown.contains("10.0.0.1"), "{shown}");
    }

    #[test]
    fn the_shipped_files_are_the_same_configuration() {
        for file in ["example", "minimal", "proof-of-concept"] {
            shown(&std::fs::read_to_string(format!("config/{file}.toml")).unwrap());
        }
        shown("\u{feff}[forward]\nupstreams = [\"10.0.0.9\"]\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n");
    }

    const HEALTH: &str =
        "(|health = false\n|health = \\{ rise = 5 \\}\n|health = \\{ interval = \"2s\", fall = 3 \\}\n)";
    const TLS: &str =
        "(|tls = \\{ ca = \"/c\" \\}\n|tls = \\{ insecure = true \\}\n|tls = \\{ cert = \"/c\", key = \"/k\" \\}\n)";
    const IDENTITY: &str = "(|identity = false\n|identity = \\{ access_key = \"d\" \\}\n|identity = \\{ access_key = \"e\", secret_key_file = \"/s\" \\}\n)";
    const OTHERS: &str = "(|scheme = \"https\"\n)(|map = \\{ \"10.0.0.1\" = \"10.9.0.1\", \"10.1.0.0/16\" = \"10.2.0.0/16\" \\}\n|map = \\{ \"10.0.0.1/32\" = \"10.8.0.1\" \\}\n)(|ttl = \"2s\"\n)(|answers = \"all\"\n)(|subdomains = true\n)(|clients = \\[\"10.0.0.0/8\"\\]\n)(|scope = \\[\\{ datacenter = \"x\" \\}\\]\n)";

    proptest! {
        #[test]
        fn what_is_shown_is_the_same_configuration(
            server in "(|clients = \\[\"10.0.0.1\"\\]\n)(|tcp = \\{ idle = \"3s\" \\}\n)(|rate_limit = \\{ per_second = 9 \\}\n)(|nsid = \"a#b\"\n)",
            defaults in proptest::string::string_regex(&format!("{HEALTH}{TLS}{IDENTITY}{OTHERS}")).unwrap(),
            zone in proptest::string::string_regex(&format!("{HEALTH}{TLS}{IDENTITY}{OTHERS}")).unwrap(),
            name in "(a|b\\.example|\\.)",
        ) {
            let text = format!("[server]\n{server}[defaults]\n{defaults}[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n{zone}");
            if Config::parse(Path::new("z.toml"), text.as_bytes()).is_ok() {
                shown(&text);
            }
        }
    }
}

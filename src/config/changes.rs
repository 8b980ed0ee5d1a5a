//! In what two configurations differ, by zone and key, and the last configurations that were applied or refused. Pure but for
//! the list that they are kept in.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{Config, Forward, Server, Transfer, Zone};
use crate::types::ZoneName;

/// Configurations that are kept: some weeks of edits.
pub const CONFIGURATIONS_MAX: usize = 50;

/// Zones that are named of those that are added, removed or changed; of others only the number is. More do not fit on a screen.
const NAMED_MAX: usize = 20;

/// Characters that are kept of why a file is refused: a screen of errors.
const REFUSAL_CHARACTERS_MAX: usize = 4000;

/// In what two configurations differ.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ConfigChanges {
    /// Zones that are new.
    pub added: NamedZones<ZoneName>,
    /// Zones that are gone.
    pub removed: NamedZones<ZoneName>,
    /// Zones that stay, with the keys that have other values.
    pub changed: NamedZones<(ZoneName, Vec<&'static str>)>,
    /// The keys of `[server]` that have other values.
    pub server: Vec<&'static str>,
    /// The keys of `[forward]` that have other values.
    pub forward: Vec<&'static str>,
    /// The keys of `[transfer]` that have other values.
    pub transfer: Vec<&'static str>,
}

/// The first of some zones, and how many there are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedZones<T> {
    /// At most twenty.
    pub named: Vec<T>,
    /// All of them.
    pub count: usize,
}

impl<T> Default for NamedZones<T> {
    fn default() -> Self {
        Self { named: Vec::new(), count: 0 }
    }
}

impl<T> FromIterator<T> for NamedZones<T> {
    fn from_iter<I: IntoIterator<Item = T>>(zones: I) -> Self {
        let mut all = Self::default();
        for zone in zones {
            all.count += 1;
            if all.named.len() < NAMED_MAX {
                all.named.push(zone);
            }
        }
        all
    }
}

impl ConfigChanges {
    /// What a configuration changes; `None`: none was in force before.
    pub fn between(old: Option<&Config>, new: &Config) -> Self {
        let Some(old) = old else {
            return Self { added: new.zones.keys().cloned().collect(), ..Self::default() };
        };
        let absent = |zones: &Config, name: &ZoneName| !zones.zones.contains_key(name);
        let changed = new.zones.iter().filter_map(|(name, zone)| {
            let before = old.zones.get(name).filter(|before| *before != zone)?;
            Some((name.clone(), changed_zone_keys(before, zone)))
        });
        Self {
            added: new.zones.keys().filter(|name| absent(old, name)).cloned().collect(),
            removed: old.zones.keys().filter(|name| absent(new, name)).cloned().collect(),
            changed: changed.collect(),
            server: changed_server_keys(&old.server, &new.server),
            forward: changed_forward_keys(old.forward.as_ref(), new.forward.as_ref()),
            transfer: changed_transfer_keys(old.transfer.as_ref(), new.transfer.as_ref()),
        }
    }
}

/// Parts for a sentence, for example `changed a.example. (seeds, ttl); [server] listen`. Nothing where nothing differs.
impl fmt::Display for ConfigChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |zones: &NamedZones<ZoneName>| zones.named.iter().map(ToString::to_string).collect();
        let changed = self.changed.named.iter().map(|(name, keys)| format!("{name} ({})", keys.join(", ")));
        let zones: [(&str, Vec<String>, usize); 3] = [
            ("added", names(&self.added), self.added.count),
            ("removed", names(&self.removed), self.removed.count),
            ("changed", changed.collect(), self.changed.count),
        ];
        let mut parts = Vec::new();
        for (word, named, count) in zones.into_iter().filter(|(_, _, count)| *count > 0) {
            let more = match count.saturating_sub(named.len()) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            parts.push(format!("{word} {}{more}", named.join(", ")));
        }
        for (section, keys) in
            [("[server]", &self.server), ("[forward]", &self.forward), ("[transfer]", &self.transfer)]
        {
            if !keys.is_empty() {
                parts.push(format!("{section} {}", keys.join(", ")));
            }
        }
        f.write_str(&parts.join("; "))
    }
}

/// The keys of a zone that have other values.
pub fn changed_zone_keys(old: &Zone, new: &Zone) -> Vec<&'static str> {
    let (rules, wanted) = (&old.rules, &new.rules);
    let keys = [
        ("seeds", old.cluster.seeds != new.cluster.seeds),
        ("port", old.cluster.port != new.cluster.port),
        ("scheme or tls", old.cluster.scheme != new.cluster.scheme),
        ("scope", old.cluster.scope != new.cluster.scope),
        ("refresh", old.refresh != new.refresh),
        ("timeout", old.timeout != new.timeout),
        ("ttl", old.ttl != new.ttl),
        ("negative_ttl", old.negative_ttl != new.negative_ttl),
        ("answers", old.answers != new.answers),
        ("max_addresses", old.max_addresses != new.max_addresses),
        ("subdomains", old.subdomains != new.subdomains),
        ("health", old.health != new.health),
        ("allow_nodes", rules.allow != wanted.allow),
        ("exclude", rules.exclude != wanted.exclude),
        ("map", rules.map != wanted.map),
        ("max_stale", old.max_stale != new.max_stale),
        ("clients", old.clients != new.clients),
        ("views", old.views != new.views),
        ("cluster", old.cluster_label != new.cluster_label),
        ("cluster_id", old.cluster_id != new.cluster_id),
        ("identity", old.identity != new.identity),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The keys of `[server]` that have other values.
pub fn changed_server_keys(old: &Server, new: &Server) -> Vec<&'static str> {
    let keys = [
        ("listen", (&old.listen, old.listen_by_default) != (&new.listen, new.listen_by_default)),
        ("listen_tls, listen_https, listen_quic or tls", old.encryption != new.encryption),
        ("admin", old.admin != new.admin),
        ("admin_hosts", old.admin_hosts != new.admin_hosts),
        ("nameservers", old.nameservers != new.nameservers),
        ("domains", old.domains != new.domains),
        ("clients", old.clients != new.clients),
        ("nsid", old.nsid != new.nsid),
        ("version", old.version != new.version),
        ("cookie_secret_file", old.cookie_secret_file != new.cookie_secret_file),
        ("tcp", old.tcp != new.tcp),
        ("rate_limit", old.rate_limit != new.rate_limit),
        ("state_dir", old.state_dir != new.state_dir),
        ("snapshot_max_age", old.snapshot_max_age != new.snapshot_max_age),
        ("include", old.include != new.include),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The keys of `[forward]` that have other values.
pub fn changed_forward_keys(old: Option<&Forward>, new: Option<&Forward>) -> Vec<&'static str> {
    let upstreams = |forward: Option<&Forward>| forward.map(|forward| forward.upstreams.clone());
    let clients = |forward: Option<&Forward>| forward.map(|forward| forward.clients.clone());
    let keys = [("upstreams", upstreams(old) != upstreams(new)), ("clients", clients(old) != clients(new))];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The keys of `[transfer]` that have other values.
pub fn changed_transfer_keys(old: Option<&Transfer>, new: Option<&Transfer>) -> Vec<&'static str> {
    let secondaries = |transfer: Option<&Transfer>| transfer.map(|transfer| transfer.secondaries.clone());
    let key = |transfer: Option<&Transfer>| transfer.map(|transfer| transfer.key.clone());
    let catalog = |transfer: Option<&Transfer>| transfer.and_then(|transfer| transfer.catalog.clone());
    let keys = [
        ("secondaries", secondaries(old) != secondaries(new)),
        ("key", key(old) != key(new)),
        ("catalog", catalog(old) != catalog(new)),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// A configuration that was applied or refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigEvent {
    /// When.
    pub at: SystemTime,
    /// The hash of its content; `None`: the file could not be read.
    pub hash: Option<String>,
    /// What became of it.
    pub outcome: ConfigOutcome,
}

/// What became of a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConfigOutcome {
    /// It came into force.
    Applied(ConfigChanges),
    /// It was refused, for this reason.
    Refused(String),
}

/// The last configurations that were applied or refused. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct ConfigHistory(Arc<Mutex<VecDeque<ConfigEvent>>>);

impl ConfigHistory {
    /// A configuration has come into force.
    pub fn applied(&self, old: Option<&Config>, new: &Config) -> ConfigChanges {
        let changes = ConfigChanges::between(old, new);
        self.add(Some(new.hash.clone()), ConfigOutcome::Applied(changes.clone()));
        changes
    }

    /// A file was refused. `hash` is that of its content, if it could be read.
    pub fn refused(&self, hash: Option<String>, reason: &str) {
        let reason = reason.chars().take(REFUSAL_CHARACTERS_MAX).collect();
        self.add(hash, ConfigOutcome::Refused(reason));
    }

    /// The last configurations, the oldest first.
    pub fn events(&self) -> Vec<ConfigEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, hash: Option<String>, outcome: ConfigOutcome) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while events.len() >= CONFIGURATIONS_MAX {
            events.pop_front();
        }
        events.push_back(ConfigEvent { at: SystemTime::now(), hash, outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("c.toml"), text.as_bytes()).unwrap()
    }

    fn zone(name: &str, keys: &str) -> String {
        format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n")
    }

    #[test]
    fn zones_and_keys_that_differ_are_named() {
        let old = config(&(zone("a.example", "") + &zone("b.example", "") + &zone("c.example", "")));
        let text = String::from("[server]\nlisten = [\"127.0.0.1:5353\"]\nnsid = \"a\"\n")
            + "[forward]\nupstreams = [\"192.0.2.1\"]\nclients = [\"10.0.0.0/8\"]\n"
            + &zone("b.example", "ttl = \"9s\"\nexclude = [\"10.0.0.1\"]")
            + &zone("c.example", "")
            + &zone("d.example", "");
        let expected = "added d.example.; removed a.example.; changed b.example. (ttl, negative_ttl, exclude); \
                        [server] listen, nsid; [forward] upstreams, clients";
        assert_eq!(ConfigChanges::between(Some(&old), &config(&text)).to_string(), expected);
        assert_eq!(ConfigChanges::between(Some(&old), &old).to_string(), "");
    }

    /// A key that is forgotten in the lists above would make a change that names nothing.
    #[test]
    fn every_key_of_a_zone_is_named() {
        let old = config(&zone("a.example", ""));
        for (key, line) in [
            ("port", "port = 9"),
            ("scheme or tls", "scheme = \"https\""),
            ("scope", "scope = [{ datacenter = \"a\" }]"),
            ("refresh", "refresh = \"3s\""),
            ("timeout", "timeout = \"3s\""),
            ("negative_ttl", "negative_ttl = \"1s\""),
            ("answers", "answers = 3"),
            ("max_addresses", "max_addresses = 2"),
            ("subdomains", "subdomains = true"),
            ("health", "health = false"),
            ("allow_nodes", "allow_nodes = [\"10.0.0.0/8\"]"),
            ("exclude", "exclude = [\"10.0.0.9\"]"),
            ("map", "map = { \"10.0.0.0/24\" = \"192.0.2.0/24\" }"),
            ("max_stale", "max_stale = \"1h\""),
            ("clients", "clients = [\"10.0.0.0/8\"]"),
            ("views", "views = [{ clients = [\"10.0.0.0/8\"], scope = [{ datacenter = \"a\" }] }]"),
            ("cluster", "cluster = \"a\""),
            ("cluster_id", "cluster_id = \"2f0c1c7e-0000-1000-8000-000000000000\""),
            ("identity", "identity = false"),
        ] {
            let changes = ConfigChanges::between(Some(&old), &config(&zone("a.example", line)));
            assert_eq!(changes.to_string(), format!("changed a.example. ({key})"));
        }
    }

    #[test]
    fn names_and_events_are_bounded() {
        let many: String = (0..30).map(|number| zone(&format!("z{number:02}.example"), "")).collect();
        let many = config(&many);
        let changes = ConfigChanges::between(None, &many);
        assert!(changes.to_string().ends_with("z19.example. and 10 more"), "{changes}");
        let history = ConfigHistory::default();
        history.applied(None, &many);
        for _ in 0..CONFIGURATIONS_MAX {
            history.refused(None, &"é".repeat(10_000));
        }
        let events = history.events();
        assert_eq!(events.len(), CONFIGURATIONS_MAX);
        let is_short =
            |event: &ConfigEvent| matches!(&event.outcome, ConfigOutcome::Refused(text) if text.len() == 8000);
        assert!(events.iter().all(is_short));
    }
}

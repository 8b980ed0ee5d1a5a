//! In what a file differs from the configuration in force, with old and new values. Pure.

use std::{collections::BTreeSet, path::PathBuf};

use serde::{Serialize, Serializer};

use crate::{
    admin::control::RunningServer,
    config::{
        Config, EffectiveSection, EffectiveValue, SectionName, changed_forward_keys, changed_server_keys,
        changed_transfer_keys, changed_zone_keys, effective_sections,
    },
    types::ZoneName,
};

/// Zones that are shown; of others only the number is. More do not fit on a few screens.
const ZONES_MAX: usize = 100;

/// What a reload of a file would change.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ReloadPlan {
    pub(super) server: RunningServer,
    pub(super) file: PathBuf,
    /// An older configuration than the server's file is in force.
    pub(super) older_is_served: bool,
    pub(super) hash_in_force: String,
    pub(super) hash: String,
    /// How many zones are removed, changed and added.
    pub(super) removed: usize,
    pub(super) changed: usize,
    pub(super) added: usize,
    /// The first of them: removed ones, then changed ones, then added ones.
    pub(super) zones: Vec<ZonePlan>,
    /// `[server]` and `[forward]`, if they change.
    pub(super) sections: Vec<SectionPlan>,
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PlannedChange {
    Removed,
    Changed,
    Added,
}

/// What becomes of a zone.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct ZonePlan {
    #[serde(rename = "zone", serialize_with = "text")]
    pub(super) name: ZoneName,
    pub(super) change: PlannedChange,
    /// Where it is defined, or was.
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<usize>,
    pub(super) keys: Vec<KeyChange>,
    /// What that does to answers now, in sentences.
    pub(super) effects: Vec<String>,
}

/// What becomes of `[server]` or `[forward]`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct SectionPlan {
    pub(super) section: &'static str,
    pub(super) keys: Vec<KeyChange>,
    pub(super) effects: Vec<String>,
}

/// A key that has another value, in TOML; `None`: it is not set.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(super) struct KeyChange {
    pub(super) key: String,
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
}

fn text<S: Serializer>(name: &ZoneName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

impl ReloadPlan {
    /// What differs, without what follows from it.
    pub(super) fn between(old: &Config, new: &Config) -> Self {
        let removed = old.zones.keys().filter(|name| !new.zones.contains_key(*name));
        let changed =
            new.zones.iter().filter(|(name, zone)| old.zones.get(*name).is_some_and(|before| before != *zone));
        let added = new.zones.keys().filter(|name| !old.zones.contains_key(*name));
        let all = removed
            .map(|name| (name, PlannedChange::Removed))
            .chain(changed.map(|(name, _)| (name, PlannedChange::Changed)))
            .chain(added.map(|name| (name, PlannedChange::Added)));
        let all: Vec<_> = all.collect();
        let count = |wanted: PlannedChange| all.iter().filter(|(_, change)| *change == wanted).count();
        let mut plan = Self {
            hash_in_force: old.hash.clone(),
            hash: new.hash.clone(),
            removed: count(PlannedChange::Removed),
            changed: count(PlannedChange::Changed),
            added: count(PlannedChange::Added),
            ..Self::default()
        };
        let shown: Vec<_> = all.into_iter().take(ZONES_MAX).collect();
        let wanted: BTreeSet<&ZoneName> = shown.iter().map(|(name, _)| *name).collect();
        let sections = |config: &Config| {
            let is_wanted = |section: &SectionName| match section {
                SectionName::Zone(name) => wanted.contains(name),
                SectionName::Server | SectionName::Forward | SectionName::Transfer => true,
            };
            Sections::new(effective_sections(config, is_wanted))
        };
        let (before, after) = (sections(old), sections(new));
        for (name, change) in shown {
            let config = if change == PlannedChange::Removed { old } else { new };
            let (file, line) = config.place_of(name).map(|(file, line)| (file.to_owned(), line)).unzip();
            let section = SectionName::Zone(name.clone());
            let keys = match (old.zones.get(name), new.zones.get(name)) {
                (Some(one), Some(other)) => changes(&changed_zone_keys(one, other), &section, &before, &after),
                (None, _) => {
                    after.of(&section).iter().filter(|value| value.is_written()).map(KeyChange::added).collect()
                }
                (_, None) => Vec::new(),
            };
            plan.zones.push(ZonePlan { name: name.clone(), change, file, line, keys, effects: Vec::new() });
        }
        let server = changed_server_keys(&old.server, &new.server);
        let forward = changed_forward_keys(old.forward.as_ref(), new.forward.as_ref());
        let transfer = changed_transfer_keys(old.transfer.as_ref(), new.transfer.as_ref());
        for (section, name, keys) in [
            ("[server]", SectionName::Server, server),
            ("[forward]", SectionName::Forward, forward),
            ("[transfer]", SectionName::Transfer, transfer),
        ] {
            if !keys.is_empty() {
                let keys = changes(&keys, &name, &before, &after);
                plan.sections.push(SectionPlan { section, keys, effects: Vec::new() });
            }
        }
        plan
    }

    /// Zones that are not among those that are shown.
    pub(super) fn further_zones(&self) -> usize {
        (self.removed + self.changed + self.added).saturating_sub(self.zones.len())
    }

    /// What would change, in a sentence; `None`: nothing.
    pub(super) fn summary(&self) -> Option<String> {
        let mut parts = Vec::new();
        for (count, word) in [(self.removed, "remove"), (self.changed, "change"), (self.added, "add")] {
            match count {
                0 => {}
                1 => parts.push(format!("{word} 1 zone")),
                count => parts.push(format!("{word} {count} zones")),
            }
        }
        if !self.sections.is_empty() {
            let names: Vec<_> = self.sections.iter().map(|section| section.section).collect();
            parts.push(format!("change {}", names.join(" and ")));
        }
        (!parts.is_empty()).then(|| format!("a reload of {} would {}", self.file.display(), parts.join(", ")))
    }
}

impl KeyChange {
    fn added(value: &EffectiveValue) -> Self {
        Self { key: value.key.clone(), old: None, new: value.value.clone() }
    }
}

/// The keys of each section with their values.
struct Sections(Vec<EffectiveSection>);

impl Sections {
    fn new(sections: Vec<EffectiveSection>) -> Self {
        Self(sections)
    }

    fn of(&self, name: &SectionName) -> &[EffectiveValue] {
        self.0.iter().find(|section| section.name == *name).map_or(&[], |section| &section.values)
    }
}

/// The values of these keys that differ. A label may name several keys, as in `scheme or tls`.
fn changes(labels: &[&str], section: &SectionName, before: &Sections, after: &Sections) -> Vec<KeyChange> {
    let names: BTreeSet<&str> = labels.iter().flat_map(|label| label.split([',', ' '])).collect();
    let is_named = |value: &&EffectiveValue| value.key.split('.').next().is_some_and(|key| names.contains(key));
    let (old, new) = (before.of(section), after.of(section));
    let find = |values: &[EffectiveValue], key: &str| {
        values.iter().find(|value| value.key == key).and_then(|value| value.value.clone())
    };
    let mut seen = BTreeSet::new();
    let keys = new.iter().chain(old).filter(is_named).map(|value| &value.key).filter(|key| seen.insert(*key));
    let changes = keys.map(|key| KeyChange { key: key.clone(), old: find(old, key), new: find(new, key) });
    changes.filter(|change| change.old != change.new).collect()
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

    fn keys(changes: &[KeyChange]) -> Vec<(&str, Option<&str>, Option<&str>)> {
        changes.iter().map(|change| (&*change.key, change.old.as_deref(), change.new.as_deref())).collect()
    }

    #[test]
    fn zones_and_keys_are_named_with_old_and_new_values() {
        let old = config(&(zone("a.example", "") + &zone("b.example", "ttl = \"4000ms\"") + &zone("c.example", "")));
        let text = "[server]\nnsid = \"x\"\n[defaults]\nhealth = { rise = 3 }\n".to_owned()
            + &zone("b.example", "ttl = \"9s\"\nscheme = \"https\"\ntls = { ca = \"/ca\" }")
            + &zone("d.example", "port = 9000");
        let plan = ReloadPlan::between(&old, &config(&text));
        let shown: Vec<_> = plan.zones.iter().map(|zone| (zone.name.to_string(), zone.change, zone.line)).collect();
        let expected = [
            ("a.example.".to_owned(), PlannedChange::Removed, Some(1)),
            ("c.example.".to_owned(), PlannedChange::Removed, Some(7)),
            ("b.example.".to_owned(), PlannedChange::Changed, Some(5)),
            ("d.example.".to_owned(), PlannedChange::Added, Some(10)),
        ];
        assert_eq!(shown, expected);
        let changed = [
            ("ttl", Some("\"4000ms\""), Some("\"9s\"")),
            ("scheme", Some("\"http\""), Some("\"https\"")),
            ("tls.ca", None, Some("\"/ca\"")),
            ("tls.insecure", None, Some("false")),
            ("health.rise", Some("2"), Some("3")),
            ("negative_ttl", Some("\"4s\""), Some("\"5s\"")),
        ];
        assert_eq!(keys(&plan.zones[2].keys), changed);
        let added =
            [("seeds", None, Some("[\"10.0.0.1\"]")), ("port", None, Some("9000")), ("health.rise", None, Some("3"))];
        assert_eq!(keys(&plan.zones[3].keys), added);
        assert_eq!(keys(&plan.sections[0].keys), [("nsid", None, Some("\"x\""))]);
        let summary = plan.summary().unwrap();
        assert!(summary.ends_with("would remove 2 zones, change 1 zone, add 1 zone, change [server]"), "{summary}");
    }

    #[test]
    fn another_spelling_of_the_same_values_changes_nothing() {
        let old = config(&zone("a.example", "ttl = \"4s\""));
        let plan = ReloadPlan::between(&old, &config(&zone("A.example.", "# a comment\nttl = \"4000ms\"")));
        assert!(plan.zones.is_empty() && plan.sections.is_empty() && plan.summary().is_none(), "{plan:?}");
        assert_ne!(plan.hash, plan.hash_in_force);
    }

    #[test]
    fn many_zones_are_counted() {
        let many: String = (0..300).map(|number| zone(&format!("z{number}.example"), "")).collect();
        let plan = ReloadPlan::between(&config(&zone("a.example", "")), &config(&many));
        assert_eq!((plan.zones.len(), plan.further_zones()), (ZONES_MAX, 201));
        assert!(plan.summary().unwrap().contains("remove 1 zone, add 300 zones"));
    }
}

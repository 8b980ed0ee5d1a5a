//! Reload is subtraction: what is wanted less what runs. Pure; the supervisor obeys it.

use std::{collections::BTreeMap, fmt};

use crate::{config::Zone, zone::ZoneName};

/// What a reload has to do to one zone's poller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Polling {
    /// Nothing: the poller never notices.
    Keep,
    /// A poller with another pace goes on with the nodes that are known.
    Resume,
    /// Another cluster: the old nodes are answered until the new seeds have told theirs, and never asked.
    Afresh,
}

/// What a reload has to do.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    /// Zones to start.
    pub added: Vec<ZoneName>,
    /// Zones to stop.
    pub removed: Vec<ZoneName>,
    /// Zones that stay, with other keys.
    pub changed: Vec<(ZoneName, Polling)>,
    /// Zones that stay as they are.
    pub untouched: usize,
}

/// What is wanted less what runs.
pub(super) fn plan(running: &BTreeMap<ZoneName, Zone>, wanted: &BTreeMap<ZoneName, Zone>) -> Plan {
    let mut plan = Plan {
        removed: running.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect(),
        ..Plan::default()
    };
    for (name, zone) in wanted {
        match running.get(name) {
            None => plan.added.push(name.clone()),
            Some(old) if old == zone => plan.untouched += 1,
            Some(old) => plan.changed.push((name.clone(), polling(old, zone))),
        }
    }
    plan
}

fn polling(old: &Zone, new: &Zone) -> Polling {
    if old.cluster != new.cluster {
        Polling::Afresh
    } else if (old.refresh, old.timeout, old.health, old.max_stale)
        != (new.refresh, new.timeout, new.health, new.max_stale)
    {
        Polling::Resume
    } else {
        Polling::Keep
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("added", self.added.len()),
            ("removed", self.removed.len()),
            ("changed", self.changed.len()),
            ("untouched", self.untouched),
        ];
        let mut separator = "";
        for (word, count) in parts.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{count} {} {word}", if count == 1 { "zone" } else { "zones" })?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn zones(text: &str) -> BTreeMap<ZoneName, Zone> {
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap().zones
    }

    const BEFORE: &str = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"b\"]\nseeds = [\"10.0.0.2\"]\n";

    fn changed_by(key: &str) -> Polling {
        let after = format!("{BEFORE}{key}\n");
        let plan = plan(&zones(BEFORE), &zones(&after));
        assert_eq!((plan.added.len(), plan.removed.len(), plan.untouched), (0, 0, 1));
        plan.changed[0].1
    }

    #[test]
    fn only_the_cluster_makes_a_poller_start_afresh() {
        assert_eq!(changed_by("ttl = \"9s\""), Polling::Keep);
        assert_eq!(changed_by("answers = 2"), Polling::Keep);
        assert_eq!(changed_by("refresh = \"9s\""), Polling::Resume);
        assert_eq!(changed_by("timeout = \"9s\""), Polling::Resume);
        assert_eq!(changed_by("port = 9000"), Polling::Afresh);
    }

    #[test]
    fn a_plan_says_what_it_does() {
        let after = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"c\"]\nseeds = [\"10.0.0.2\"]\n";
        let plan = plan(&zones(BEFORE), &zones(after));
        assert_eq!(plan.to_string(), "1 zone added, 1 zone removed, 1 zone untouched");
    }
}

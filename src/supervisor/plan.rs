//! Reload is subtraction: what is wanted less what runs. Pure; the supervisor obeys it.

use std::{collections::BTreeMap, fmt};

use crate::{
    config::{Cluster, Zone},
    types::ZoneName,
};

/// What a reload has to do to one zone's poller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Polling {
    /// Nothing: the poller never notices.
    Keep,
    /// A new poller with other intervals, or other knowledge of its cluster, which starts with the known nodes.
    Resume,
    /// Another `cluster_id`: a new poller starts with the known nodes, and judges anew which of them are foreign.
    NewClusterId,
    /// Other seeds: the old nodes are polled until the seeds turn out to be of another cluster.
    NewSeeds,
    /// Another cluster: the old nodes are answered until the new seeds have listed theirs, and never polled.
    NewCluster,
}

/// What a reload has to do.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    /// Zones to start.
    pub added: Vec<ZoneName>,
    /// Zones to stop, in the order of names.
    pub removed: Vec<ZoneName>,
    /// Zones that stay, with other keys.
    pub changed: Vec<(ZoneName, Polling)>,
    /// Zones that stay as they are.
    pub untouched: usize,
}

/// What is wanted less what runs.
pub(super) fn plan(running: &BTreeMap<ZoneName, Zone>, wanted: &BTreeMap<ZoneName, Zone>) -> Plan {
    let mut plan = Plan::default();
    // Both are in one order, so that a walk along both needs no look-ups.
    let mut running = running.iter().peekable();
    for (name, zone) in wanted {
        while let Some((gone, _)) = running.next_if(|(old, _)| *old < name) {
            plan.removed.push(gone.clone());
        }
        match running.next_if(|(old, _)| *old == name) {
            None => plan.added.push(name.clone()),
            Some((_, old)) if old == zone => plan.untouched += 1,
            Some((_, old)) => plan.changed.push((name.clone(), polling(old, zone))),
        }
    }
    plan.removed.extend(running.map(|(gone, _)| gone.clone()));
    plan
}

fn polling(old: &Zone, new: &Zone) -> Polling {
    let seeds_alone = |old: &Cluster| {
        *old != new.cluster && Cluster { seeds: new.cluster.seeds.clone(), ..old.clone() } == new.cluster
    };
    if seeds_alone(&old.cluster) {
        Polling::NewSeeds
    } else if old.cluster != new.cluster {
        Polling::NewCluster
    } else if old.cluster_id != new.cluster_id {
        Polling::NewClusterId
    } else if (old.refresh, old.timeout, old.health, old.max_stale)
        != (new.refresh, new.timeout, new.health, new.max_stale)
        || (&old.cluster_label, &old.identity) != (&new.cluster_label, &new.identity)
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
    use proptest::{collection::btree_map, prelude::*};
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
        assert_eq!(changed_by("answers = 3"), Polling::Keep);
        assert_eq!(changed_by("refresh = \"9s\""), Polling::Resume);
        assert_eq!(changed_by("timeout = \"9s\""), Polling::Resume);
        assert_eq!(changed_by("cluster = \"prod\""), Polling::Resume);
        let id = "cluster_id = \"2f0c6a1e-5d3b-11f0-8de9-0242ac120002\"";
        assert_eq!(changed_by(id), Polling::NewClusterId);
        assert_eq!(changed_by("identity = false"), Polling::Resume);
        assert_eq!(changed_by("port = 9000"), Polling::NewCluster);
        let seeds = BEFORE.replace("10.0.0.2", "10.0.0.9");
        let changed = plan(&zones(BEFORE), &zones(&seeds)).changed;
        assert_eq!(changed.iter().map(|(_, polling)| *polling).collect::<Vec<_>>(), [Polling::NewSeeds]);
        let both = plan(&zones(BEFORE), &zones(&format!("{seeds}port = 9000\n"))).changed;
        assert_eq!(both[0].1, Polling::NewCluster);
    }

    #[test]
    fn a_plan_says_what_it_does() {
        let after = "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n[zones.\"c\"]\nseeds = [\"10.0.0.2\"]\n";
        let plan = plan(&zones(BEFORE), &zones(after));
        assert_eq!(plan.to_string(), "1 zone added, 1 zone removed, 1 zone untouched");
    }

    proptest! {
        #[test]
        fn a_plan_leads_from_one_file_to_the_other(
            before in btree_map(0..9_u8, 1..3_u8, 1..9),
            after in btree_map(0..9_u8, 1..3_u8, 1..9),
        ) {
            let file = |zones: &BTreeMap<u8, u8>| -> String {
                let zone = |(zone, ttl)| format!("[zones.\"z{zone}\"]\nseeds = [\"10.0.0.1\"]\nttl = \"{ttl}s\"\n");
                zones.iter().map(zone).collect()
            };
            let of = |test: &dyn Fn(u8) -> bool| (0..9).filter(|zone| test(*zone)).map(|zone| format!("z{zone}.")).collect();
            let texts = |names: &[ZoneName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            let was = |zone| before.get(&zone);
            let is = |zone| after.get(&zone);
            let changed: Vec<_> = of(&|zone| was(zone).is_some() && is(zone).is_some() && was(zone) != is(zone));
            let added: Vec<_> = of(&|zone| was(zone).is_none() && is(zone).is_some());
            let removed: Vec<_> = of(&|zone| was(zone).is_some() && is(zone).is_none());
            let plan = plan(&zones(&file(&before)), &zones(&file(&after)));
            prop_assert_eq!(texts(&plan.changed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()), changed);
            prop_assert_eq!((texts(&plan.added), texts(&plan.removed)), (added, removed));
            prop_assert_eq!(plan.untouched + plan.changed.len() + plan.added.len(), after.len());
        }
    }
}

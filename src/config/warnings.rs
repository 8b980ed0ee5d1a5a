//! What is allowed in a zone but probably not meant.

use super::{Config, Zone};
use crate::types::{Seed, ZoneName};

/// One sentence for each kind of warning: about the first zone that has it, and how many others have it too.
pub(super) fn zone_warnings(config: &Config) -> Vec<String> {
    [of_zones(config, slow_timeout), of_zones(config, seeds_outside), of_zones(config, seeds_excluded)]
        .into_iter()
        .flatten()
        .collect()
}

fn of_zones(config: &Config, warning: impl Fn(&ZoneName, &Zone) -> Option<String>) -> Option<String> {
    let mut found = config.zones.iter().filter_map(|(name, zone)| warning(name, zone));
    let first = found.next()?;
    Some(match found.count() {
        0 => first,
        1 => format!("{first} (and one more zone)"),
        more => format!("{first} (and {more} more zones)"),
    })
}

fn slow_timeout(name: &ZoneName, zone: &Zone) -> Option<String> {
    let Zone { timeout, refresh, .. } = zone;
    (timeout > refresh).then(|| {
        format!(
            "zone {name} has timeout {timeout:?} above refresh {refresh:?}: while nodes do not answer, it is polled less \
             often than refresh says"
        )
    })
}

fn seeds_outside(name: &ZoneName, zone: &Zone) -> Option<String> {
    let networks = zone.rules.allow.as_ref()?;
    let outside = zone.cluster.seeds.iter().find_map(|seed| match seed {
        Seed::Address(address) => Some(*address).filter(|address| networks.iter().all(|one| !one.contains(address))),
        Seed::Host(_) => None,
    })?;
    Some(format!("seed {outside} of zone {name} is outside its allow_nodes, so it is asked and never answered"))
}

fn seeds_excluded(name: &ZoneName, zone: &Zone) -> Option<String> {
    let excluded = zone.cluster.seeds.iter().find_map(|seed| match seed {
        Seed::Address(address) => Some(*address).filter(|seed| zone.rules.exclude.iter().any(|one| one.contains(seed))),
        Seed::Host(_) => None,
    })?;
    Some(format!("seed {excluded} of zone {name} is in its exclude, so it is asked and never answered"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_is_probably_not_meant_is_said_of_the_first_zone() {
        let zone = |name: &str, keys: &str| format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\", \"n\"]\n{keys}\n");
        let warnings = |text: &str| Config::parse(Path::new("z"), text.as_bytes()).unwrap().warnings();
        let slow = "timeout = \"2s\"";
        let said = "zone a. has timeout 2s above refresh 1s: while nodes do not answer, it is polled less often than \
                    refresh says";
        assert_eq!(warnings(&zone("a", "timeout = \"1s\"")), [""; 0]);
        assert_eq!(warnings(&zone("a", slow)), [said]);
        let three: String = ["a", "b", "c"].map(|name| zone(name, slow)).concat();
        assert_eq!(warnings(&three), [format!("{said} (and 2 more zones)")]);
        assert_eq!(warnings(&zone("a", "allow_nodes = [\"10.0.0.0/24\"]")), [""; 0]);
        assert_eq!(
            warnings(&zone("a", "allow_nodes = [\"10.1.0.0/16\"]")),
            ["seed 10.0.0.1 of zone a. is outside its allow_nodes, so it is asked and never answered"]
        );
        assert_eq!(
            warnings(&zone("a", "exclude = [\"10.0.0.0/31\"]")),
            ["seed 10.0.0.1 of zone a. is in its exclude, so it is asked and never answered"]
        );
    }
}

//! What is allowed in a file but probably not meant.

use super::{Config, NODE_REQUESTS_MAX, Zone, node_loads};
use crate::types::{Seed, ZoneName};

/// One sentence each. A warning that concerns many zones names the first.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let wildcards_only = config.server.listen.iter().all(|address| address.ip().is_unspecified());
    let mut warnings = Vec::new();
    if wildcards_only && config.server.nameservers.is_empty() {
        warnings.push(
            "listen has only wildcard addresses and [server] nameservers is empty, so questions for NS \
             get no answer; a resolver that this name is delegated to may want them"
                .into(),
        );
    }
    warnings.extend(of_zones(config, slow_timeout));
    warnings.extend(of_zones(config, seeds_outside));
    let heavy = node_loads(&config.zones).into_iter().filter(|load| load.total() > NODE_REQUESTS_MAX);
    warnings.extend(heavy.map(|load| format!("{load}; raise refresh or the interval of health, or shorten scope")));
    warnings
}

/// The warning about the first zone that has one, and how many others have it too.
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
    }
}

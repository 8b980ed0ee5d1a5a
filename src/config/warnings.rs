//! What is allowed in a zone but probably not meant.

use ipnet::IpNet;

use super::{Config, Zone};
use crate::types::{AllowedClients, AnswerCount, Seed, ZoneName};

/// More addresses in an answer than this spread less load: clients in the nodes' subnets sort them, and each prefers the
/// closest node of the answer (tests/answers/RESULTS.md).
const ANSWERS_MAX: u16 = 3;

/// Seconds for which all clients of a caching resolver may have the same single address. DynamoDB uses about four, the
/// proof of concepts four and five.
const ONE_ADDRESS_TTL_MAX: u32 = 5;

/// One sentence for each kind of warning: about the first zone that has it, and how many others have it too.
pub(super) fn zone_warnings(config: &Config) -> Vec<String> {
    let kinds = [
        slow_timeout,
        seeds_outside,
        seeds_excluded,
        one_address_for_long,
        many_addresses,
        view_without_clients,
        view_of_zone,
    ];
    kinds.into_iter().filter_map(|warning| of_zones(config, warning)).collect()
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

fn one_address_for_long(name: &ZoneName, zone: &Zone) -> Option<String> {
    let ttl = zone.ttl.as_secs();
    (zone.answers == AnswerCount::ONE && ttl > ONE_ADDRESS_TTL_MAX).then(|| {
        format!(
            "zone {name} has answers = 1 and ttl {ttl} s: all clients of a caching resolver get the same node for that long, \
             also when it has failed; use answers = 2, or a ttl of at most {ONE_ADDRESS_TTL_MAX} s"
        )
    })
}

fn many_addresses(name: &ZoneName, zone: &Zone) -> Option<String> {
    let count = match zone.answers {
        AnswerCount::AtMost(count) if count.get() <= ANSWERS_MAX => return None,
        AnswerCount::AtMost(count) => count.to_string(),
        AnswerCount::All => "\"all\"".to_owned(),
    };
    Some(format!(
        "zone {name} has answers = {count}: a client in the nodes' subnet sorts the addresses and connects to the \
         closest one, so load spreads less; use answers = 2"
    ))
}

/// No client of a view may ask.
fn view_without_clients(name: &ZoneName, zone: &Zone) -> Option<String> {
    let AllowedClients::Networks(allowed) = &zone.clients else { return None };
    let may_ask = |client: &IpNet| allowed.iter().any(|one| one.contains(client) || client.contains(one));
    let mut networks = zone.views.iter().flat_map(|view| view.clients.iter());
    let excluded = networks.find(|client| !may_ask(client))?;
    Some(format!("view clients {excluded} of zone {name} are outside its clients, so they get REFUSED"))
}

/// A view that is the zone itself.
fn view_of_zone(name: &ZoneName, zone: &Zone) -> Option<String> {
    let same = zone.views.iter().find(|view| view.scope == zone.cluster.scope)?;
    let key = same.clients.first()?;
    Some(format!("the view of {key} of zone {name} has the zone's own scope, so its clients get what all clients get"))
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

    #[test]
    fn views_without_an_effect_are_warned_of() {
        let warnings = |keys: &str| {
            let text = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n");
            Config::parse(Path::new("z"), text.as_bytes()).unwrap().warnings()
        };
        let views = "views = [{ clients = [\"10.1.0.0/16\", \"10.2.0.0/16\"], scope = [{ datacenter = \"a\" }] }]";
        for good in ["", "clients = [\"10.0.0.0/8\"]", "clients = [\"10.1.7.0/24\", \"10.2.0.0/16\"]"] {
            assert_eq!(warnings(&format!("{views}\n{good}")), [""; 0], "{good}");
        }
        assert_eq!(
            warnings(&format!("{views}\nclients = [\"10.1.0.0/16\"]")),
            ["view clients 10.2.0.0/16 of zone a. are outside its clients, so they get REFUSED"]
        );
        assert_eq!(
            warnings(&format!("{views}\nscope = [{{ datacenter = \"a\" }}]")),
            ["the view of 10.1.0.0/16 of zone a. has the zone's own scope, so its clients get what all clients get"]
        );
    }

    #[test]
    fn answers_that_spread_less_load_are_warned_of() {
        let warnings = |keys: &str| {
            let text = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n");
            Config::parse(Path::new("z"), text.as_bytes()).unwrap().warnings()
        };
        for good in ["", "ttl = \"1d\"", "answers = 1", "answers = 1\nttl = \"5s\"", "answers = 2", "answers = 3"] {
            assert_eq!(warnings(good), [""; 0], "{good}");
        }
        let long = "zone a. has answers = 1 and ttl 6 s: all clients of a caching resolver get the same node for that long, \
                    also when it has failed; use answers = 2, or a ttl of at most 5 s";
        assert_eq!(warnings("answers = 1\nttl = \"6s\""), [long]);
        for (keys, shown) in [("answers = 4", "4"), ("answers = 65535", "65535"), ("answers = \"all\"", "\"all\"")] {
            let [said] = &warnings(keys)[..] else { panic!("{keys}: one warning") };
            assert!(
                said.starts_with(&format!("zone a. has answers = {shown}: a client in the nodes' subnet")),
                "{said}"
            );
        }
    }
}

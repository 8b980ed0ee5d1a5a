//! What a changed configuration does to answers. Pure: what the server knows of a zone is an argument.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{KnownZone, differences::SectionPlan, views};
use crate::{
    config::{Config, Scheme, Zone, changed_zone_keys},
    table::{Answers, NameServers, ViewRole, ZoneSettings},
    types::{AnswerCount, Seed, ZoneName, suffixes},
};

/// Nodes that are named; of others only the number is.
const NODES_MAX: usize = 20;

/// What a zone's change does, in sentences.
pub(super) fn of_zone(name: &ZoneName, (old, new): (&Config, &Config), known: Option<&KnownZone>) -> Vec<String> {
    match (old.zones.get(name), new.zones.get(name)) {
        (None, Some(zone)) => vec![added(zone, &outside(old, name))],
        (Some(zone), None) => vec![removed(zone, known, &outside(new, name))],
        (Some(before), Some(after)) => changed(before, after, known),
        (None, None) => Vec::new(),
    }
}

/// What a configuration without a zone of this name answers for it.
fn outside(config: &Config, name: &ZoneName) -> String {
    let above = suffixes(name.wire()).skip(1).find_map(|suffix| {
        let zone = config.zones.get_key_value(suffix).map(|(above, zone)| (above, zone.subdomains));
        zone.or_else(|| {
            config.server.domains.iter().find(|domain| domain.wire() == suffix).map(|domain| (domain, false))
        })
    });
    match above {
        Some((above, true)) => format!("the answer of the zone {above}, which has subdomains = true"),
        Some((above, false)) => format!("NXDOMAIN, because the name lies below {above}"),
        None if config.forward.is_some() => {
            "forwarded for the clients in [forward] clients, and REFUSED for others".to_owned()
        }
        None => "REFUSED".to_owned(),
    }
}

fn added(zone: &Zone, before: &str) -> String {
    let first = if zone.cluster.scope.is_empty() {
        let is_permitted = |address: &IpAddr| zone.rules.permits(*address);
        let addresses = zone.cluster.seeds.iter().filter_map(|seed| match seed {
            Seed::Address(address) => Some(*address),
            Seed::Host(_) => None,
        });
        let addresses: Vec<IpAddr> = addresses.filter(is_permitted).map(|seed| zone.rules.translate(seed)).collect();
        let has_names = zone.cluster.seeds.iter().any(|seed| matches!(seed, Seed::Host(_)));
        match (addresses.is_empty(), has_names) {
            (true, false) => "SERVFAIL, because its rules let no seed through".to_owned(),
            (true, true) => "the addresses of its seeds' names, once they are looked up".to_owned(),
            (false, false) => named(&addresses),
            (false, true) => format!("{} and the addresses of its other seeds' names", named(&addresses)),
        }
    } else {
        "SERVFAIL, because it has a scope".to_owned()
    };
    format!("A and AAAA: until now {before}; then {first}, until a node has sent a list: the zone waits")
}

fn removed(zone: &Zone, known: Option<&KnownZone>, after: &str) -> String {
    let before = match known.map(|known| answers(zone, known)) {
        Some(answers) if answers.answered.is_some() => named(&answers.addresses().collect::<Vec<_>>()),
        Some(_) => "SERVFAIL".to_owned(),
        None => "the zone's answer".to_owned(),
    };
    let below = if zone.subdomains { ", and so for the names below it" } else { "" };
    format!("A and AAAA: until now {before}; then {after}{below}")
}

fn changed(old: &Zone, new: &Zone, known: Option<&KnownZone>) -> Vec<String> {
    let keys = changed_zone_keys(old, new);
    let has = |key: &str| keys.contains(&key);
    let mut sentences = Vec::new();
    let mut add = |applies: bool, sentence: &str| {
        if applies {
            sentences.push(sentence.to_owned());
        }
    };
    let is_other_cluster = has("port") || has("scheme or tls") || has("scope");
    add(
        is_other_cluster,
        "the nodes known now are answered, and not asked, until a seed has sent a usable list: it replaces them",
    );
    add(
        has("seeds") && !is_other_cluster,
        "the nodes known now stay answered; if no new seed is of their cluster, the new seeds' cluster replaces them once \
         it has reported",
    );
    add(has("cluster_id"), "the nodes stay; which of them are another cluster's is found anew");
    let ttl = format!(
        "clients keep answers for {} s; those that they have now, for up to {} s",
        new.ttl.as_secs(),
        old.ttl.as_secs()
    );
    add(has("ttl"), &ttl);
    add(has("answers"), &counted(new.answers));
    let below = if new.subdomains { "get the zone's answer in place of NXDOMAIN" } else { "get NXDOMAIN" };
    add(has("subdomains"), &format!("names below the zone {below}"));
    add(has("max_addresses"), "the secondaries of [transfer] get another number of addresses");
    add(has("clients"), "other clients may ask; those that may not get REFUSED");
    let health = match (old.health, new.health) {
        (Some(_), None) => "nodes are no longer probed: every listed node counts as up",
        (None, Some(_)) => "nodes are probed: those that fail are no longer answered",
        _ => "the nodes keep their states, and are probed by the new settings",
    };
    add(has("health"), health);
    add(old.cluster.scheme != new.cluster.scheme && new.cluster.scheme == Scheme::Http, "nodes are asked without TLS");
    if has("views") {
        sentences.extend(views::effects(old, new));
    }
    match known {
        Some(known) => sentences.extend(answer_changes(old, new, known, &keys)),
        None => sentences.push("what the zone answers now is not known".to_owned()),
    }
    sentences
}

fn counted(count: AnswerCount) -> String {
    match count {
        AnswerCount::AtMost(most) => format!("an answer has at most {most} of the addresses"),
        AnswerCount::All => "an answer has all addresses".to_owned(),
    }
}

/// Which addresses come and go at once, computed by the code that answers.
fn answer_changes(old: &Zone, new: &Zone, known: &KnownZone, keys: &[&str]) -> Vec<String> {
    let before = answers(old, known);
    let after = before.with_settings(settings(new), 0);
    let set = |answers: &Answers| -> BTreeSet<IpAddr> {
        answers.answered.iter().flat_map(|nodes| nodes.as_slice()).copied().collect()
    };
    let (was, is) = (set(&before), set(&after));
    let mut sentences = Vec::new();
    for &node in was.difference(&is).take(NODES_MAX) {
        let why = match new.rules.exclusion(node) {
            Some(exclusion) => format!("it {exclusion}"),
            None => "enough others are answered".to_owned(),
        };
        sentences.push(format!("{node} is no longer answered: {why}"));
    }
    for &node in is.difference(&was).take(NODES_MAX) {
        sentences.push(format!("{node} is answered from then on"));
    }
    for &node in was.intersection(&is).take(NODES_MAX) {
        let (earlier, later) = (old.rules.translate(node), new.rules.translate(node));
        if earlier != later {
            sentences.push(format!("{node} is answered as {later} in place of {earlier}"));
        }
    }
    if is.is_empty() && !was.is_empty() {
        sentences.push("NO ADDRESS IS LEFT: clients get SERVFAIL".to_owned());
    } else if sentences.is_empty() && (was.is_empty() || keys.iter().any(|key| RULES.contains(key))) {
        let addresses: Vec<IpAddr> = after.addresses().collect();
        let still = if addresses.is_empty() { "SERVFAIL".to_owned() } else { named(&addresses) };
        sentences.push(format!("the answer stays {still}"));
    }
    sentences
}

/// Keys that say which nodes are answered.
const RULES: [&str; 3] = ["allow_nodes", "exclude", "map"];

fn answers(zone: &Zone, known: &KnownZone) -> Answers {
    Answers::new(settings(zone), known.knowledge.clone(), 0).with_drains(known.drains.clone(), 0)
}

/// The settings that decide which addresses are answered.
fn settings(zone: &Zone) -> ZoneSettings {
    ZoneSettings {
        ttl: zone.ttl,
        count: zone.answers,
        subdomains: zone.subdomains,
        max_addresses: zone.max_addresses,
        negative_ttl: zone.negative_ttl,
        name_servers: NameServers::default(),
        delegations: Arc::default(),
        rules: zone.rules.clone(),
        clients: zone.clients.clone(),
        views: ViewRole::Plain,
    }
}

/// What the change of `[server]`, `[forward]` or `[transfer]` does.
pub(super) fn of_section(section: &SectionPlan, (old, new): (&Config, &Config)) -> Vec<String> {
    let has = |key: &str| section.keys.iter().any(|change| change.key.split('.').next() == Some(key));
    let mut sentences = Vec::new();
    if section.section == "[forward]" {
        match (&old.forward, &new.forward) {
            (None, Some(_)) => sentences.push("names of no zone are forwarded for these clients, in place of REFUSED"),
            (Some(_), None) => sentences.push("names of no zone get REFUSED in place of the upstreams' answers"),
            _ => sentences.push("names of no zone are forwarded by the new settings at once"),
        }
    } else if section.section == "[transfer]" {
        match (&old.transfer, &new.transfer) {
            (None, Some(_)) => sentences.push("the secondaries are notified, and may fetch the zones"),
            (Some(_), None) => {
                sentences.push("the secondaries are refused; they serve what they have until it expires")
            }
            _ => sentences.push("the secondaries are notified by the new settings at once; others are refused"),
        }
    } else {
        if ["listen", "listen_tls", "listen_https", "listen_quic"].into_iter().any(has) {
            sentences.push(
                "new sockets are bound before old ones close, and no query is lost; if one cannot be bound, the reload is \
                 refused",
            );
        }
        if has("admin") {
            sentences.push("the status page, the metrics and the health checks move, or go");
        }
        if has("clients") {
            sentences.push("other clients may ask about names outside all zones; those that may not get REFUSED");
        }
        if has("state_dir") || has("snapshot_max_age") {
            sentences.push("state_dir and snapshot_max_age act at the next start");
        }
        if has("cookie_secret_file") {
            sentences.push("cookies that clients have are no longer valid, unless the new file has their secret");
        }
    }
    sentences.into_iter().map(str::to_owned).collect()
}

/// What is allowed, and probably not meant.
pub(super) fn warnings(old: &Config, new: &Config) -> Vec<String> {
    let removed = old.zones.keys().filter(|name| !new.zones.contains_key(*name)).count();
    let total = old.zones.len();
    let is_most = removed >= 2 && removed * 2 > total;
    is_most.then(|| format!("{removed} of {total} zones are removed; is the file whole?")).into_iter().collect()
}

fn named(addresses: &[IpAddr]) -> String {
    let shown: Vec<String> = addresses.iter().take(NODES_MAX).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NODES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        table::{Knowledge, Known, Node, ZoneDrains},
        types::{NodeState, ZoneState},
    };
    use std::path::Path;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("c.toml"), text.as_bytes()).unwrap()
    }

    fn zone(keys: &str) -> String {
        format!("[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n")
    }

    const OTHER: &str = "[zones.\"other.test\"]\nseeds = [\"10.0.9.9\"]\n";

    /// Three nodes, of which the last one is down.
    fn three() -> KnownZone {
        let node = |last: u8| Node::up(IpAddr::from([10, 0, 0, last]));
        let down = Node { state: NodeState::Down, ..node(3) };
        let known = Known { nodes: [node(1), node(2), down].into(), state: ZoneState::Live, expired: false };
        KnownZone { knowledge: Knowledge::Known(known), drains: ZoneDrains::default() }
    }

    fn effects(old: &str, new: &str) -> Vec<String> {
        let name = ZoneName::parse("a.example").unwrap();
        of_zone(&name, (&config(old), &config(new)), Some(&three()))
    }

    #[test]
    fn rules_say_which_addresses_come_and_go() {
        let exclude = |list: &str| zone(&format!("exclude = [{list}]"));
        assert_eq!(effects(&zone(""), &exclude("\"10.0.0.2\"")), ["10.0.0.2 is no longer answered: it is in exclude"]);
        assert_eq!(effects(&exclude("\"10.0.0.2\""), &zone("")), ["10.0.0.2 is answered from then on"]);
        assert_eq!(effects(&zone(""), &exclude("\"10.0.0.9\"")), ["the answer stays 10.0.0.1, 10.0.0.2"]);
        assert_eq!(
            effects(&zone(""), &exclude("\"10.0.0.1\", \"10.0.0.2\"")),
            [
                "10.0.0.1 is no longer answered: it is in exclude",
                "10.0.0.2 is no longer answered: it is in exclude",
                "10.0.0.3 is answered from then on"
            ],
            "the last one is answered although it is down"
        );
        let none = effects(&zone(""), &exclude("\"10.0.0.0/24\""));
        assert_eq!(none.last().unwrap(), "NO ADDRESS IS LEFT: clients get SERVFAIL");
        let map = zone("map = { \"10.0.0.1\" = \"192.0.2.1\" }");
        assert_eq!(effects(&zone(""), &map), ["10.0.0.1 is answered as 192.0.2.1 in place of 10.0.0.1"]);
    }

    #[test]
    fn a_drained_node_is_no_answer_before_or_after() {
        let drains = [(IpAddr::from([10, 0, 0, 1]), std::time::UNIX_EPOCH)].into_iter().collect();
        let known = KnownZone { drains, ..three() };
        let name = ZoneName::parse("a.example").unwrap();
        let new = zone("exclude = [\"10.0.0.9\"]");
        let effects = of_zone(&name, (&config(&zone("")), &config(&new)), Some(&known));
        assert_eq!(effects, ["the answer stays 10.0.0.2"]);
    }

    #[test]
    fn each_kind_of_key_says_what_it_does() {
        for (keys, expected) in [
            ("port = 9", "the nodes known now are answered, and not asked, until a seed has sent a usable list"),
            ("ttl = \"9s\"", "clients keep answers for 9 s; those that they have now, for up to 4 s"),
            ("answers = \"all\"", "an answer has all addresses"),
            ("subdomains = true", "names below the zone get the zone's answer in place of NXDOMAIN"),
            ("clients = [\"10.0.0.0/8\"]", "other clients may ask; those that may not get REFUSED"),
            ("health = false", "nodes are no longer probed: every listed node counts as up"),
            ("cluster_id = \"2f0c1c7e-0000-1000-8000-000000000000\"", "the nodes stay; which of them are another"),
        ] {
            let found = effects(&zone(""), &zone(keys));
            assert!(found.first().is_some_and(|first| first.starts_with(expected)), "{keys}: {found:?}");
        }
        assert_eq!(effects(&zone(""), &zone("refresh = \"3s\"")), [""; 0], "no answer changes");
        let seeds = effects(&zone(""), &zone("").replace("10.0.0.1", "10.0.0.7"));
        assert!(
            seeds[0].starts_with("the nodes known now stay answered; if no new seed is of their cluster"),
            "{seeds:?}"
        );
    }

    #[test]
    fn a_zone_that_comes_or_goes_says_what_else_its_name_gets() {
        let forward = "[forward]\nupstreams = [\"192.0.2.1\"]\n";
        let parent = "[zones.\"example\"]\nseeds = [\"10.0.9.9\"]\n";
        let start = "A and AAAA: until now 10.0.0.1, 10.0.0.2; then ";
        for (rest, expected) in [
            (OTHER.to_owned(), "REFUSED"),
            (forward.to_owned() + OTHER, "forwarded for the clients in [forward] clients, and REFUSED for others"),
            (parent.to_owned(), "NXDOMAIN, because the name lies below example."),
            (parent.to_owned() + "subdomains = true\n", "the answer of the zone example., which has subdomains = true"),
            (
                "[server]\ndomains = [\"example\"]\n".to_owned() + OTHER,
                "NXDOMAIN, because the name lies below example.",
            ),
        ] {
            assert_eq!(effects(&(rest.clone() + &zone("")), &rest), [format!("{start}{expected}")]);
            let added = &effects(&rest, &(rest.clone() + &zone("")))[0];
            assert!(
                added.starts_with(&format!("A and AAAA: until now {expected}; then 10.0.0.1, until a node")),
                "{added}"
            );
        }
        let scope = effects(OTHER, &(OTHER.to_owned() + &zone("scope = [{ datacenter = \"x\" }]")));
        assert!(scope[0].contains("then SERVFAIL, because it has a scope, until a node"), "{scope:?}");
        let excluded = effects(OTHER, &(OTHER.to_owned() + &zone("exclude = [\"10.0.0.1\"]")));
        assert!(excluded[0].contains("then SERVFAIL, because its rules let no seed through"), "{excluded:?}");
    }

    #[test]
    fn a_file_that_loses_most_zones_is_a_warning() {
        let three = OTHER.to_owned() + &zone("") + "[zones.\"b.example\"]\nseeds = [\"10.0.0.1\"]\n";
        assert_eq!(warnings(&config(&three), &config(OTHER)), ["2 of 3 zones are removed; is the file whole?"]);
        assert_eq!(warnings(&config(OTHER), &config(&three)), [""; 0]);
    }
}

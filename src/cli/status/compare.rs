//! In what two servers differ. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::document::{Document, Drain, View, Zone};
use crate::admin::client::escape_controls;

/// A sentence for each difference between the first server, here, and another one, there.
pub fn differences(here: &Document, there: &Document) -> Vec<String> {
    let mut found = Vec::new();
    let (ours, theirs) = (&here.config, &there.config);
    if ours.hash != theirs.hash {
        found.push(format!("configuration: {} here, {} there", ours.hash, theirs.hash));
    }
    for (place, config) in [("here", ours), ("there", theirs)] {
        if config.error.is_some() {
            found
                .push(format!("configuration: {place} an older one than the file {} is served", config.path.display()));
        }
    }
    let drains = |document: &Document| document.drains.iter().map(Drain::place).collect::<BTreeSet<_>>();
    let (ours, theirs) = (drains(here), drains(there));
    found.extend(ours.difference(&theirs).map(|drain| format!("drained only here: {drain}")));
    found.extend(theirs.difference(&ours).map(|drain| format!("drained only there: {drain}")));
    let (ours, theirs) = (by_name(here), by_name(there));
    let names: BTreeSet<&str> = ours.keys().chain(theirs.keys()).copied().collect();
    for name in names {
        match (ours.get(name), theirs.get(name)) {
            (Some(_), None) => found.push(format!("{name} is a zone only here")),
            (None, Some(_)) => found.push(format!("{name} is a zone only there")),
            (Some(ours), Some(theirs)) => found.extend(zone_differences(ours, theirs)),
            (None, None) => {}
        }
    }
    found.iter().map(|line| escape_controls(line)).collect()
}

/// Of the zone itself, and of the views that both servers have.
fn zone_differences(here: &Zone, there: &Zone) -> Vec<String> {
    let of_zone =
        |zone: &Zone| Answered { addresses: zone.answers.iter().copied().collect(), state: zone.state.clone() };
    let of_view =
        |view: &View| Answered { addresses: view.addresses.iter().copied().collect(), state: view.state.clone() };
    let mut found: Vec<_> = answer_difference(&here.name, &of_zone(here), &of_zone(there)).into_iter().collect();
    for ours in &here.views {
        let theirs = there.views.iter().find(|view| view.name == ours.name);
        let name = format!("the view of {} of {}", ours.name, here.name);
        found.extend(theirs.and_then(|theirs| answer_difference(&name, &of_view(ours), &of_view(theirs))));
    }
    found
}

/// What a server answers for a zone or a view, and its state.
struct Answered {
    addresses: BTreeSet<IpAddr>,
    state: String,
}

fn answer_difference(name: &str, here: &Answered, there: &Answered) -> Option<String> {
    if here.addresses == there.addresses {
        return None;
    }
    let only = |some: &Answered, others: &Answered, place: &str| {
        let only: Vec<String> = some.addresses.difference(&others.addresses).map(ToString::to_string).collect();
        (!only.is_empty()).then(|| format!("{} only {place}", only.join(", ")))
    };
    let parts = [only(here, there, "here"), only(there, here, "there")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Some(format!("{name} is answered with {} ({} here, {} there)", parts.join("; "), here.state, there.state))
}

fn by_name(document: &Document) -> BTreeMap<&str, &Zone> {
    document.zones.iter().map(|zone| (zone.name.as_str(), zone)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(hash: &str, zones: &[(&str, &[&str])]) -> Document {
        let zone = |(name, answers): &(&str, &[&str])| {
            serde_json::json!({
                "name": name, "state": "live", "reason": null, "since": "", "answers": answers, "nodes": [],
            })
        };
        let zones: Vec<_> = zones.iter().map(zone).collect();
        let config =
            serde_json::json!({ "path": "/etc/a.toml", "hash": hash, "loaded_seconds_ago": 1.0, "error": null });
        Document::parse(&serde_json::json!({ "zones": zones, "config": config }).to_string()).unwrap()
    }

    #[test]
    fn configuration_zones_and_answers_are_compared() {
        let here = document("1", &[("a.", &["10.0.0.1", "10.0.0.2"]), ("b.", &["10.0.0.1"]), ("c.", &[])]);
        let there = document("2", &[("a.", &["10.0.0.2", "10.0.0.1"]), ("b.", &["10.0.0.3"]), ("d.", &[])]);
        let expected = [
            "configuration: 1 here, 2 there",
            "b. is answered with 10.0.0.1 only here; 10.0.0.3 only there (live here, live there)",
            "c. is a zone only here",
            "d. is a zone only there",
        ];
        assert_eq!(differences(&here, &there), expected);
        let node = "10.0.0.1".parse().unwrap();
        let drains = [None, Some("a.".to_owned())].map(|zone| Drain { node, zone, until: String::new() }).to_vec();
        let drained = |drains: &[Drain]| Document { drains: drains.to_vec(), ..here.clone() };
        assert_eq!(
            differences(&drained(&drains), &drained(&drains[1..])),
            ["drained only here: 10.0.0.1 in all zones"]
        );
        assert_eq!(differences(&here, &drained(&drains[1..])), ["drained only there: 10.0.0.1 in the zone a."]);
        let with_view = |address: &str| {
            let mut document = here.clone();
            document.zones[0].views = vec![View {
                name: "10.1.0.0/16".into(),
                state: "live".into(),
                reason: None,
                since: String::new(),
                addresses: vec![address.parse().unwrap()],
            }];
            document
        };
        assert_eq!(
            differences(&with_view("10.0.0.1"), &with_view("10.0.0.2")),
            [
                "the view of 10.1.0.0/16 of a. is answered with 10.0.0.1 only here; 10.0.0.2 only there (live here, live there)"
            ]
        );
        assert!(differences(&here, &here).is_empty(), "the order of addresses does not count");
    }
}

//! What an edit of views does to the clients of a zone. Pure.

use std::collections::BTreeMap;

use crate::{
    config::{View, Zone},
    types::ZoneName,
};

/// What becomes of each view, in sentences.
pub(super) fn effects(old: &Zone, new: &Zone) -> Vec<String> {
    let (before, after) = (by_key(old), by_key(new));
    let mut sentences = Vec::new();
    for view in before.iter().filter(|(key, _)| !after.contains_key(*key)).map(|(_, view)| view) {
        sentences.push(format!("clients in {} get the zone's addresses, as all clients", networks(view)));
    }
    for (key, view) in &after {
        match before.get(key) {
            None => sentences.push(format!(
                "clients in {} get nodes of {}, once a node has sent their list; until then the zone's addresses",
                networks(view),
                scopes(view)
            )),
            Some(former) => {
                if former.scope != view.scope {
                    sentences.push(format!(
                        "clients in {} get the nodes known now until a seed has sent a list of {}",
                        networks(view),
                        scopes(view)
                    ));
                }
                if former.clients != view.clients {
                    sentences.push(format!(
                        "clients in {}, in place of those in {}, get nodes of {}",
                        networks(view),
                        networks(former),
                        scopes(view)
                    ));
                }
            }
        }
    }
    if sentences.is_empty() {
        sentences.push("the views are the same in another order".to_owned());
    }
    sentences
}

/// A view goes on where its key stays.
fn by_key(zone: &Zone) -> BTreeMap<ZoneName, &View> {
    zone.views.iter().map(|view| (view.key(&ZoneName::root()), view)).collect()
}

fn networks(view: &View) -> String {
    view.clients.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn scopes(view: &View) -> String {
    view.scope.iter().map(ToString::to_string).collect::<Vec<_>>().join("; then ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn zone(views: &str) -> Zone {
        let text = format!("[zones.a]\nseeds = [\"10.0.0.1\"]\nviews = [{views}]\n");
        Config::parse(Path::new("z"), text.as_bytes()).unwrap().zones.into_values().next().unwrap()
    }

    fn view(clients: &str, rack: &str) -> String {
        format!("{{ clients = [{clients}], scope = [{{ datacenter = \"d\", rack = \"{rack}\" }}] }}")
    }

    #[test]
    fn each_edit_of_a_view_is_a_sentence() {
        let [one, other] = [view("\"10.0.1.0/24\"", "a"), view("\"10.0.2.0/24\"", "b")];
        let said = |old: &str, new: &str| effects(&zone(old), &zone(new));
        let both = format!("{one}, {other}");
        let added = "clients in 10.0.2.0/24 get nodes of datacenter d, rack b, once a node has sent their list; until then \
                     the zone's addresses";
        assert_eq!(said(&one, &both), [added]);
        assert_eq!(said(&both, &other), ["clients in 10.0.1.0/24 get the zone's addresses, as all clients"]);
        let scope =
            "clients in 10.0.1.0/24 get the nodes known now until a seed has sent a list of datacenter d, rack c";
        assert_eq!(said(&one, &view("\"10.0.1.0/24\"", "c")), [scope]);
        let clients =
            "clients in 10.0.1.0/24, 10.0.3.0/24, in place of those in 10.0.1.0/24, get nodes of datacenter d, rack a";
        assert_eq!(said(&one, &view("\"10.0.1.0/24\", \"10.0.3.0/24\"", "a")), [clients]);
        assert_eq!(said(&both, &format!("{other}, {one}")), ["the views are the same in another order"]);
    }
}

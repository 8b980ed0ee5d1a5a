//! `views` of a zone: clients that get the nodes of other scopes.

use ipnet::IpNet;
use toml::Spanned;

use super::{
    Scope, View,
    definitions::{Key, TEXTS},
    diagnostic::{Errors, SpannedError},
    keys::Keys,
    scope_keys::{SCOPES, scopes},
    value::{self, Read, Value},
};

/// Views of one zone: one for each availability zone of a large region, twice over. Each is polled like a zone.
pub(super) const VIEWS_MAX: usize = 16;

pub(super) const VIEW_KEYS: [Key; 2] = [
    Key::new("clients", TEXTS, "Networks and addresses of the view's clients."),
    Key::new("scope", SCOPES, "The parts of the cluster that they get: the first with a healthy node."),
];

/// A view before its networks are compared with those of the others.
struct ViewTable {
    clients: Vec<Spanned<IpNet>>,
    scope: Vec<Scope>,
}

/// Reads the value of `views`.
pub(super) fn views(value: &Value<'_>) -> Read<Vec<View>> {
    let tables = value::list(value, "a list of { clients, scope }", view)?;
    if tables.len() > VIEWS_MAX {
        let message = format!("{} views; a zone has at most {VIEWS_MAX}", tables.len());
        return Err(SpannedError::new(value.span(), message).into());
    }
    let tables: Vec<_> = tables.into_iter().map(Spanned::into_inner).collect();
    let errors = overlaps(&tables);
    let views = tables.into_iter().map(|ViewTable { clients, scope }| View {
        clients: clients.into_iter().map(Spanned::into_inner).collect(),
        scope,
    });
    value::unless_errors(views.collect(), errors)
}

fn view(value: &Value<'_>) -> Read<ViewTable> {
    let what = "a table, { clients = [\"10.0.1.0/24\"], scope = [{ datacenter = \"...\", rack = \"...\" }] }";
    let mut keys = Keys::new(value::table(value.clone(), what)?, "a view");
    let networks = |list: &Value<'_>| value::list(list, "a list of networks or addresses in quotes", value::network);
    let (has_clients, has_scope) = (keys.table.contains_key("clients"), keys.table.contains_key("scope"));
    let clients = keys.spanned("clients", networks);
    let scope = keys.spanned("scope", scopes);
    let mut errors = keys.finish(&VIEW_KEYS, &[]);
    if !has_clients {
        let message = "a view needs clients, the networks of the clients that get its nodes";
        errors.push(SpannedError::missing(value.span(), message));
    }
    if !has_scope {
        let message = "a view needs scope, the parts of the cluster whose nodes its clients get";
        errors.push(SpannedError::missing(value.span(), message));
    }
    if let Some(clients) = clients.as_ref().filter(|clients| clients.get_ref().is_empty()) {
        errors
            .push(SpannedError::new(clients.span(), "a view without clients has no effect; name at least one network"));
    }
    if let Some(scope) = scope.as_ref().filter(|scope| scope.get_ref().is_empty()) {
        errors.push(SpannedError::new(
            scope.span(),
            "a view needs at least one scope; without it, it is the zone itself",
        ));
    }
    let clients = clients.map(Spanned::into_inner).unwrap_or_default();
    let scope = scope.map(Spanned::into_inner).unwrap_or_default();
    value::unless_errors(ViewTable { clients, scope }, errors)
}

/// An error at each of two networks that overlap: then one contains the other, and which view counts would not be seen in
/// the file.
fn overlaps(views: &[ViewTable]) -> Errors {
    let mut networks: Vec<(usize, &Spanned<IpNet>)> = Vec::new();
    for (number, view) in (1..).zip(views) {
        networks.extend(view.clients.iter().map(|network| (number, network)));
    }
    // A network comes after those that contain it.
    networks.sort_by_key(|(_, network)| (network.get_ref().network(), network.get_ref().prefix_len()));
    let mut errors = Errors::default();
    let mut outer: Option<(usize, &Spanned<IpNet>)> = None;
    for (number, network) in networks {
        let first = network.get_ref().network();
        match outer.filter(|(_, outer)| outer.get_ref().contains(&first)) {
            Some(found) => {
                errors.push(overlap((number, network), found));
                errors.push(overlap(found, (number, network)));
            }
            None => outer = Some((number, network)),
        }
    }
    errors
}

/// The error at the first of both.
fn overlap(at: (usize, &Spanned<IpNet>), other: (usize, &Spanned<IpNet>)) -> SpannedError {
    let ((number, network), (other_number, other)) = (at, other);
    let (here, there) = (network.get_ref(), other.get_ref());
    let whose = if number == other_number { "the same view".to_owned() } else { format!("view {other_number}") };
    SpannedError::new(
        network.span(),
        format!("{here} of view {number} overlaps {there} of {whose}; remove one of them"),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;

    fn config(views: &str) -> Result<Config, String> {
        let text = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nviews = [\n{views}\n]\n");
        Config::parse(Path::new("z.toml"), text.as_bytes()).map_err(|errors| errors.to_string())
    }

    const ONE: &str = "{ clients = [\"10.0.2.0/24\", \"10.0.1.7\"], scope = [{ datacenter = \"d\", rack = \"a\" }] }";
    const OTHER: &str = "{ clients = [\"fd00::/64\"], scope = [{ datacenter = \"d\", rack = \"b\" }] }";

    #[test]
    fn each_view_is_polled_like_its_zone_with_another_scope() {
        let config = config(&format!("{ONE},\n{OTHER}")).unwrap();
        let zone = config.zones.values().next().unwrap();
        let keys: Vec<_> = config.views.keys().map(ToString::to_string).collect();
        assert_eq!(keys, ["a./fd00::/64", "a./10.0.1.7/32"]);
        for view in &zone.views {
            let name = config.zones.keys().next().unwrap();
            let polled = &config.views[&view.key(name)];
            assert_eq!(polled.cluster.scope, view.scope);
            assert_eq!(polled.cluster.seeds, zone.cluster.seeds);
            assert!(polled.views.is_empty());
        }
    }

    #[test]
    fn the_order_of_views_and_of_their_networks_changes_no_key() {
        let one = config(&format!("{ONE},\n{OTHER}")).unwrap();
        let other = ONE.replace("\"10.0.2.0/24\", \"10.0.1.7\"", "\"10.0.1.7\", \"10.0.2.0/24\"");
        assert_eq!(one.views, config(&format!("{OTHER},\n{other}")).unwrap().views);
    }

    #[test]
    fn defaults_may_have_views_and_tables_of_their_own_are_read() {
        let seeds = "seeds = [\"10.0.0.1\"]\n";
        let parse = |text: String| Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap();
        let defaults = parse(format!("[defaults]\nviews = [{ONE}]\n[zones.a]\n{seeds}[zones.b]\n{seeds}views = []\n"));
        assert_eq!(defaults.views.len(), 1);
        let tables = "[[zones.\"a\".views]]\nclients = [\"10.0.1.7\", \"10.0.2.0/24\"]\nscope = [{ datacenter = \"d\", rack = \"a\" }]\n";
        let tables = parse(format!("[zones.\"a\"]\n{seeds}{tables}[zones.b]\n{seeds}"));
        assert_eq!(tables.views, defaults.views);
    }

    #[test]
    fn errors_are_located() {
        let scope = "scope = [{ datacenter = \"d\" }]";
        let many: Vec<_> = (0..17).map(|number| format!("{{ clients = [\"10.0.{number}.0/24\"], {scope} }}")).collect();
        let seventeen = many.join(",\n");
        for (views, expected) in [
            (
                "{ clients = [\"10.0.1.0/24\"] }".into(),
                "z.toml:4:1: a view needs scope, the parts of the cluster whose nodes its clients get",
            ),
            (
                format!("{{ {scope} }}"),
                "z.toml:4:1: a view needs clients, the networks of the clients that get its nodes",
            ),
            (
                format!("{{ clients = [], {scope} }}"),
                "z.toml:4:13: a view without clients has no effect; name at least one network",
            ),
            (
                "{ clients = [\"10.0.0.1\"], scope = [] }".into(),
                "z.toml:4:35: a view needs at least one scope; without it, it is the zone itself",
            ),
            (
                format!("{{ client = [], clients = [\"10.0.0.1\"], {scope} }}"),
                "z.toml:4:3: a view has no key \"client\"; did you mean \"clients\"?",
            ),
            (
                format!("{{ clients = [\"10.0.0.1/8\"], {scope} }}"),
                "z.toml:4:14: \"10.0.0.1/8\" has bits beyond its prefix; write \"10.0.0.0/8\"",
            ),
            (
                format!("{{ clients = [\"10.0.0.0/8\"], {scope} }},\n{{ clients = [\"10.1.0.0/16\"], {scope} }}"),
                "z.toml:4:14: 10.0.0.0/8 of view 1 overlaps 10.1.0.0/16 of view 2; remove one of them\n\
                 z.toml:5:14: 10.1.0.0/16 of view 2 overlaps 10.0.0.0/8 of view 1; remove one of them",
            ),
            (
                format!("{{ clients = [\"::/0\", \"::1\"], {scope} }}"),
                "z.toml:4:14: ::/0 of view 1 overlaps ::1/128 of the same view; remove one of them\n\
                 z.toml:4:22: ::1/128 of view 1 overlaps ::/0 of the same view; remove one of them",
            ),
            (seventeen, "z.toml:3:9: 17 views; a zone has at most 16"),
            (
                "1".into(),
                "z.toml:4:1: expected a table, { clients = [\"10.0.1.0/24\"], scope = [{ datacenter = \"...\", rack = \"...\" }] }, found the number 1",
            ),
        ] {
            assert_eq!(config(&views).unwrap_err(), expected, "{views}");
        }
    }
}

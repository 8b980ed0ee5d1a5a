//! `scope` of a zone, and of a view.

use toml::Spanned;

use super::{
    Scope,
    definitions::{Key, Kind, TEXTS},
    diagnostic::SpannedError,
    keys::Keys,
    value::{self, Read, Value},
};

/// A list of scopes.
pub(super) const SCOPES: Kind = Kind::List(&Kind::Table(&SCOPE_KEYS));

const SCOPE_KEYS: [Key; 2] = [
    Key::new("datacenter", Kind::Either(&Kind::Text, &TEXTS), "A datacenter, or several."),
    Key::new("rack", Kind::Text, "A rack."),
];

/// The entries of `scope`.
pub(super) fn scopes(value: &Value<'_>) -> Read<Vec<Scope>> {
    let list = value::list(value, "a list of { datacenter, rack }", scope)?;
    Ok(list.into_iter().map(Spanned::into_inner).collect())
}

fn scope(value: &Value<'_>) -> Read<Scope> {
    let span = value.span();
    let mut keys = Keys::new(value::table(value.clone(), "{ datacenter = \"...\", rack = \"...\" }")?, "scope");
    let named = keys.table.contains_key("datacenter");
    let datacenters = keys.get("datacenter", value::location_names).unwrap_or_default();
    let rack = keys.get("rack", value::location_name);
    let mut errors = keys.finish(&SCOPE_KEYS, &[]);
    if !named {
        errors.push(SpannedError::missing(
            span,
            "a scope needs a datacenter; a rack alone would be that of the node that is polled",
        ));
    }
    value::unless_errors(Scope { datacenters, rack }, errors)
}

//! A table whose known keys are taken one by one; the keys that are left at the end are unknown.

use std::fmt::Display;

use toml::{Spanned, de::DeTable};

use super::{
    diagnostic::{Errors, SpannedError},
    value::{self, Read, Value},
};

/// From this Jaro-Winkler similarity on, an unknown key is probably a misspelt known one.
const SUGGESTION_SIMILARITY: f64 = 0.75;

/// A table whose known keys are taken one by one; the keys that are left at the end are unknown.
pub(super) struct Keys<'i, P = String> {
    pub(super) table: DeTable<'i>,
    place: P,
    pub(super) errors: Errors,
}

impl<'i, P: Display> Keys<'i, P> {
    /// `place` names the table in errors.
    pub(super) fn new(table: DeTable<'i>, place: P) -> Self {
        Self { table, place, errors: Errors::default() }
    }

    pub(super) fn take<T>(&mut self, key: &str, read: impl FnOnce(Value<'i>) -> Read<T>) -> Option<T> {
        let value = self.table.remove(key)?;
        read(value).map_err(|more| self.errors.append(more)).ok()
    }

    pub(super) fn get<T>(&mut self, key: &str, read: impl FnOnce(&Value<'i>) -> Read<T>) -> Option<T> {
        self.take(key, |value| read(&value))
    }

    pub(super) fn spanned<T>(&mut self, key: &str, read: impl FnOnce(&Value<'i>) -> Read<T>) -> Option<Spanned<T>> {
        self.take(key, |value| read(&value).map(|read| Spanned::new(value.span(), read)))
    }

    pub(super) fn sub_table(&mut self, key: &str) -> Option<Keys<'i>> {
        let table = self.take(key, |value| value::table(value, &format!("a table, [{key}]")))?;
        Some(Keys::new(table, format!("[{key}]")))
    }

    /// Reports every key that is left. `known` are the keys of this version, `later` those of a coming one.
    pub(super) fn finish(mut self, known: &[impl AsRef<str>], later: &[&str]) -> Errors {
        let known: Vec<_> = known.iter().map(AsRef::as_ref).collect();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            let place = &self.place;
            let message = if later.contains(&name) {
                format!("{name} is not supported yet by this version; remove it")
            } else if let Some(meant) = closest(name, &known) {
                format!("{place} has no key {name:?}; did you mean {meant:?}?")
            } else {
                format!("{place} has no key {name:?}; it knows {}", known.join(", "))
            };
            self.errors.push(SpannedError::unknown_key(key.span(), message, name));
        }
        self.errors
    }
}

fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let scored = known.iter().map(|key| (strsim::jaro_winkler(&name.to_lowercase(), key), *key));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score >= SUGGESTION_SIMILARITY).map(|(_, key)| key)
}

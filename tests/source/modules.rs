//! Which file uses which: import cycles, also inside one module.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, program};

/// Every path that code names after `crate`, `super` or `self`, in `use` groups too, written out in full.
pub fn paths(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            // `super::super::` is found at its beginning, and `myself::` is another word.
            if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
                continue;
            }
            expand("", &code[at..], &mut found);
        }
    }
    found
}

/// Writes out the path or group that a text begins with; returns what comes after it.
fn expand<'c>(prefix: &str, text: &'c str, found: &mut BTreeSet<String>) -> &'c str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.chars().next() {
                Some('}') => return &rest[1..],
                Some(',') => rest = &rest[1..],
                Some(character) if character.is_alphanumeric() || character == '_' => {
                    rest = expand(prefix, rest, found)
                }
                _ => return rest,
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let path = format!("{prefix}{}", &text[..end]);
    match text[end..].strip_prefix("::") {
        Some(below) => expand(&format!("{path}::"), below, found),
        None => {
            found.insert(path);
            skip_alias(&text[end..])
        }
    }
}

/// Skips ` as Name`.
fn skip_alias(text: &str) -> &str {
    let Some(alias) = text.trim_start().strip_prefix("as ") else { return text };
    &alias[alias.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(alias.len())..]
}

/// The module that a file is: `src/a/b.rs` and `src/a/b/mod.rs` are `crate::a::b`.
fn module_of(source: &Source) -> String {
    let path = source.path.with_extension("");
    let mut parts: Vec<_> = path.iter().skip(1).map(|part| part.to_str().unwrap()).collect();
    if matches!(parts.last(), Some(&"mod" | &"lib")) {
        parts.pop();
    }
    std::iter::once("crate").chain(parts).collect::<Vec<_>>().join("::")
}

/// A path as seen from a module, from the root of the crate.
fn absolute(module: &str, path: &str) -> String {
    let mut base: Vec<_> = module.split("::").collect();
    let mut rest = path;
    while let Some(below) = rest.strip_prefix("super::") {
        base.pop();
        rest = below;
    }
    match rest.strip_prefix("self::").or_else(|| (rest.len() < path.len()).then_some(rest)) {
        Some(below) => format!("{}::{below}", base.join("::")),
        None => path.into(),
    }
}

/// For each file the files that it uses. A name that a module only passes on is where it is defined. What a file takes from a
/// module above it is no edge: that module is made of this file.
fn edges(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let modules: BTreeMap<_, _> = sources.iter().map(|source| (module_of(source), paths(&source.code()))).collect();
    let mut edges = BTreeMap::new();
    for (module, used) in &modules {
        let targets = used.iter().filter_map(|path| definition(&modules, absolute(module, path), 0));
        let targets = targets
            .filter(|target| !module.starts_with(target.as_str()) && !target.starts_with(&format!("{module}::")));
        edges.insert(module.clone(), targets.collect());
    }
    edges
}

/// The module that defines what a path names.
fn definition(modules: &BTreeMap<String, BTreeSet<String>>, path: String, depth: usize) -> Option<String> {
    let (parent, name) = path.rsplit_once("::")?;
    if modules.contains_key(&path) {
        return Some(path);
    }
    let Some(passed_on) = modules.get(parent) else { return definition(modules, parent.into(), depth) };
    let suffix = format!("::{name}");
    let below = passed_on.iter().find(|passed_on| passed_on.starts_with("self::") && passed_on.ends_with(&suffix));
    match below {
        Some(below) if depth < 4 => definition(modules, absolute(parent, below), depth + 1),
        _ => Some(parent.into()),
    }
}

/// The files that use each other in a circle, each circle once.
fn cycles(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let reached = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            for next in edges.get(module).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<_, _> = edges.keys().map(|module| (module.clone(), reached(module))).collect();
    let in_circle = reach.iter().filter(|(module, reached)| reached.contains(*module));
    in_circle
        .map(|(module, reached)| {
            reached
                .iter()
                .filter(|other| reach.get(*other).is_some_and(|back| back.contains(module)))
                .cloned()
                .collect()
        })
        .collect()
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    assert_eq!(cycles(&edges(&program())), BTreeSet::new());
}

#[test]
fn a_circle_is_found_also_behind_a_name_that_is_passed_on() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let with = |used_by_b: &str| {
        cycles(&edges(&[
            source("src/lib.rs", "pub mod a;"),
            source("src/a/mod.rs", "mod b;\nmod c;\npub use self::{b::B, c::{C, D}};"),
            source("src/a/b.rs", used_by_b),
            source("src/a/c.rs", "use super::b::B;"),
        ]))
    };
    assert_eq!(with("use std::fmt;"), BTreeSet::new());
    let circle = BTreeSet::from([vec!["crate::a::b".to_owned(), "crate::a::c".into()]]);
    assert_eq!(with("use super::{C, c::D as E};"), circle);
    assert_eq!(with("use crate::a::D;"), circle);
    assert_eq!(with("fn f() -> super::c::C {}"), circle);
}

#[test]
fn paths_are_written_out() {
    let all = paths("use crate::{a::{B, c::D as E}, f::*};\nlet x = super::super::g::h();");
    let expected = ["crate::a::B", "crate::a::c::D", "super::super::g::h"];
    assert!(expected.iter().all(|path| all.contains(*path)), "{all:?}");
}

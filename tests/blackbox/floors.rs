//! The house: a room uses only lower floors, and rooms on one floor never meet.

use std::{collections::BTreeSet, fs, path::Path};

/// The floors, from the ground. `lib` is the map and `main` the door; neither is a room.
const FLOORS: [&[&str]; 8] = [
    &["types", "metrics", "systemd", "telemetry", "simulation"],
    &["config", "table", "net"],
    &["snapshot"],
    &["discovery", "forward", "answer"],
    &["server"],
    &["reload", "admin"],
    &["supervisor"],
    &["cli", "demo"],
];

/// `demo` is a command of the command line and fails as every command does.
const ALLOWED: [(&str, &str); 1] = [("demo", "cli")];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a text names after `crate::`, alone or in a group.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            used.extend(first_level(group));
        } else {
            used.insert(word(rest));
        }
    }
    used
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each entry of a group, up to the group's closing brace.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut words) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                words.push(word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A complaint for every room that leans on one that is not below it.
fn complaints(room: &str, file: &str, text: &str) -> Vec<String> {
    let Some(own) = floor(room) else { return vec![format!("{file} lies in no room of the house")] };
    let used = rooms_used(text);
    let wrong = used.iter().filter(|used| *used != room && !ALLOWED.contains(&(room, used.as_str())));
    wrong
        .filter(|used| floor(used).is_none_or(|floor| floor >= own))
        .map(|used| format!("{file} leans on {used}, which is not below it"))
        .collect()
}

fn visit(directory: &Path, room: Option<&str>, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let room = room.unwrap_or(&stem);
        if path.is_dir() {
            visit(&path, Some(room), found);
        } else if !(room == "lib" || room == "main") {
            found.extend(complaints(room, path.to_str().unwrap(), &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_room_uses_only_lower_floors() {
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_wrong_lean_is_noticed() {
    assert_eq!(complaints("discovery", "x", "use crate::{table::A, types::{B, C}};"), [""; 0]);
    assert_eq!(complaints("discovery", "x", "use crate::{types::B, answer::A};").len(), 1);
    assert_eq!(complaints("table", "x", "let a = crate::supervisor::start();").len(), 1);
    assert_eq!(complaints("config", "x", "use crate::{\n    table::{A, B},\n};").len(), 1);
    assert_eq!(complaints("attic", "x", "").len(), 1);
}

#[test]
fn no_unsafe_code_is_allowed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in ["lib.rs", "main.rs"] {
        assert!(fs::read_to_string(root.join(file)).unwrap().contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

//! The table of bounds in CONTRIBUTING.md: its rows add up to less than what it promises and what the unit allows, and
//! the constants that it names exist.

use std::fs;

use super::root;

/// What CONTRIBUTING.md and the man page promise for ten zones.
const CEILING_MIB: u64 = 1024;

/// The rows: what, bound, MiB.
fn rows() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join(".github/CONTRIBUTING.md")).unwrap();
    let (_, section) = text.split_once("\n## Bounds\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what "));
    let cells =
        rows.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.map(|cells| cells.try_into().expect("three cells")).collect()
}

#[test]
fn the_bounds_add_up_to_less_than_the_ceiling() {
    let sum: u64 = rows().iter().map(|[_, _, octets]| octets.parse::<u64>().unwrap()).sum();
    assert!(rows().len() > 10 && sum < CEILING_MIB, "{sum} MiB");
    let contributing = fs::read_to_string(root().join(".github/CONTRIBUTING.md")).unwrap();
    let manual = fs::read_to_string(root().join("packaging/man/alternator-dns.8")).unwrap();
    let unit = fs::read_to_string(root().join("packaging/systemd/alternator-dns.service")).unwrap();
    assert!(contributing.contains("below **1 GiB**") && manual.contains("less than 1 GiB"));
    assert!(unit.contains("\nMemoryHigh=1G\n") && unit.contains("\nMemoryMax=1536M\n"));
}

#[test]
fn the_constants_of_the_bounds_exist() {
    for [what, bound, _] in rows() {
        for (constant, file) in bound.split('`').skip(1).step_by(2).zip(bound.split('`').skip(3).step_by(2)) {
            if !file.ends_with(".rs") {
                continue;
            }
            let source = fs::read_to_string(root().join("src").join(file)).unwrap_or_else(|_| panic!("{what}: {file}"));
            assert!(source.contains(&format!("const {constant}: ")), "{what}: {constant} is not in {file}");
        }
    }
}

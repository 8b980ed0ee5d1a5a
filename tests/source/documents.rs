//! The documents: every link from one of them leads to a file, and to a heading if it names one.

use std::{fs, path::Path};

use super::root;

/// The documents that users and contributors read, from the root of the repository.
const DOCUMENTS: [&str; 6] = [
    "README.md",
    "packaging/README.md",
    "packaging/deployment.md",
    "packaging/kubernetes/README.md",
    "tests/bench/README.md",
    ".github/CONTRIBUTING.md",
];

/// The targets of the links in Markdown, without those to other sites.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|after| after.split(')').next());
    targets.filter(|target| !target.starts_with("http"))
}

/// The anchor that a heading has: its letters and digits, in lower case, with hyphens for blanks.
fn anchor(heading: &str) -> String {
    let lower = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn leads_somewhere(document: &Path, target: &str) -> bool {
    let (file, wanted) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { document.to_owned() } else { document.parent().unwrap().join(file) };
    let Some(wanted) = wanted else { return path.exists() };
    fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted))
}

#[test]
fn links_lead_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for name in DOCUMENTS {
        let path = root().join(name);
        let text = fs::read_to_string(&path).unwrap();
        for target in links(&text) {
            count += 1;
            if !leads_somewhere(&path, target) {
                dead.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(count > 20, "only {count} links were found");
    assert!(dead.is_empty(), "links that lead nowhere: {dead:#?}");
}

#[test]
fn anchors_are_made_as_in_the_readme() {
    assert_eq!(anchor("### How a zone's cluster is known"), "how-a-zones-cluster-is-known");
    assert!(!leads_somewhere(&root().join("README.md"), "#no-such-heading"));
}

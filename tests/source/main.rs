//! Tests of the source text itself: which module uses which, and the words that names and comments are made of.

#![allow(clippy::unwrap_used)]

mod bounds;
mod documents;
mod layers;
mod modules;
mod vocabulary;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file: its path from the root of the repository, and its text.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The code: no comment lines, and nothing from the unit tests at the end of the file on.
    fn code(&self) -> String {
        let tests = self.text.find("\n#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let lines = self.text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The files of the program itself: no unit tests in files of their own (`#[cfg(test)]` and `mod name;`).
fn program() -> Vec<Source> {
    let mut sources = sources("src");
    let test_modules: Vec<PathBuf> = sources.iter().flat_map(test_modules).collect();
    sources.retain(|source| !test_modules.iter().any(|tests| source.path.with_extension("").starts_with(tests)));
    sources
}

fn test_modules(source: &Source) -> Vec<PathBuf> {
    let stem = source.path.with_extension("");
    let is_parent = ["mod", "lib", "main"].iter().any(|name| stem.ends_with(name));
    let directory = if is_parent { stem.parent().unwrap() } else { &stem };
    let after = source.text.split("#[cfg(test)]\n").skip(1).filter_map(|after| after.trim_start().strip_prefix("mod "));
    after.filter_map(|name| Some(directory.join(name.lines().next()?.strip_suffix(';')?))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory of the repository.
fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    visit(&root().join(directory), &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn visit(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root()).unwrap().into(), text });
        }
    }
}

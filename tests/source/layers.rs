//! The layers: a module uses lower layers only, and modules of one layer never use each other.

use std::{collections::BTreeSet, fs};

use super::{modules, program, root};

/// The layers, from the lowest. `lib` is the map of the crate, and `main` parses the command line; neither has a layer.
/// A name without a module is a module of the design that is not written yet.
const LAYERS: [&[&str]; 8] = [
    &["types", "metrics", "systemd", "telemetry"],
    &["config", "table", "net"],
    &["snapshot"],
    &["discovery", "forward", "transfer", "answer", "decisions"],
    &["server"],
    &["reload", "admin"],
    &["supervisor"],
    &["cli", "demo"],
];

/// Beside the layers: a simulated cluster, which only the demo and unit tests use.
const SIMULATION: &str = "simulation";

/// `demo` is a command and fails as every command does; it shows the simulated cluster.
const ALLOWED: [(&str, &str); 2] = [("demo", "cli"), ("demo", SIMULATION)];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// A sentence for each use that points to the same or a higher layer.
fn violations(module: &str, file: &str, code: &str) -> Vec<String> {
    let own = match (module, layer(module)) {
        (SIMULATION, _) => 1,
        (_, Some(own)) => own,
        (_, None) => return vec![format!("{file} is in no layer")],
    };
    let used: BTreeSet<_> = modules::paths(code)
        .into_iter()
        .filter_map(|path| path.strip_prefix("crate::")?.split("::").next().map(str::to_owned))
        .collect();
    let other = used.iter().filter(|used| *used != module && !ALLOWED.contains(&(module, used.as_str())));
    other
        .filter(|used| layer(used).is_none_or(|layer| layer >= own))
        .map(|used| format!("{file} uses {used}, which is not in a lower layer"))
        .collect()
}

#[test]
fn every_module_uses_lower_layers_only() {
    let mut found = Vec::new();
    for source in program() {
        let below_src = source.path.strip_prefix("src").unwrap();
        let module = below_src.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module != "lib" && module != "main" {
            found.extend(violations(&module, source.path.to_str().unwrap(), &source.code()));
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_use_of_a_higher_layer_is_found() {
    assert_eq!(violations("discovery", "x", "use crate::{table::A, types::{B, C}};"), [""; 0]);
    assert_eq!(violations("discovery", "x", "use crate::{types::B, answer::A};").len(), 1);
    assert_eq!(violations("table", "x", "let a = crate::supervisor::start();").len(), 1);
    assert_eq!(violations("config", "x", "use crate::{\n    table::{A, B},\n};").len(), 1);
    assert_eq!(violations("server", "x", "use crate::simulation::SimulatedCluster;").len(), 1);
    assert_eq!(violations("attic", "x", "").len(), 1);
}

#[test]
fn no_unsafe_code_is_allowed() {
    for file in ["src/lib.rs", "src/main.rs"] {
        assert!(fs::read_to_string(root().join(file)).unwrap().contains("#![forbid(unsafe_code)]"), "{file}");
    }
}

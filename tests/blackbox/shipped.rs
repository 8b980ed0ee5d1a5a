//! The shipped files: every example is accepted, and the defaults in it are those of the code.

use std::{fs, path::Path, process::Command};

use alternator_dns::config::Config;

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

fn parsed(text: &str) -> Config {
    Config::parse(Path::new("shipped.toml"), text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn every_shipped_file_is_good() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let path = entry.unwrap().path();
        parsed(&fs::read_to_string(&path).unwrap());
    }
}

#[test]
fn the_example_shows_the_defaults_of_the_code() {
    let example = parsed(&shipped("example.toml"));
    let (name, shown) = example.zones.iter().next().unwrap();
    let seeds: Vec<_> = shown.cluster.seeds.iter().map(|seed| format!("\"{seed}\"")).collect();
    let mut bare = parsed(&format!("[zones.\"{name}\"]\nseeds = [{}]\n", seeds.join(", ")));
    assert_eq!(bare.zones[name], *shown, "the first zone of example.toml has every key at its default");
    // What is written must be there; what is not written may be missing on a host without IPv6.
    bare.server.listen_by_default = false;
    assert_eq!(bare.server, example.server, "and so has [server]");
}

/// The keys that a table knows, as the error about an unknown one lists them.
fn known_keys(table: &str) -> Vec<String> {
    let text = format!("[{table}]\nzzzzzz = 1\n");
    let errors = Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap_err().to_string();
    let listed = errors.lines().find_map(|line| line.split_once("it knows ")).expect("a list of keys").1;
    listed.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_example_has_every_key() {
    let example = shipped("example.toml");
    let (server, rest) = example.split_once("\n[defaults]\n").unwrap();
    let (defaults, zones) = rest.split_once("\n[zones.").unwrap();
    let has = |section: &str, key: &str| section.lines().any(|line| line.starts_with(&format!("{key} = ")));
    let (server, forward) = server.split_once("\n# [forward]\n").unwrap();
    for key in known_keys("server") {
        // Some have no default; they are shown in a comment.
        assert!(has(&server.replace("\n# ", "\n"), &key), "[server] lacks {key}");
    }
    for key in known_keys("forward") {
        assert!(has(&forward.replace("\n# ", "\n"), &key), "[forward] lacks {key}");
    }
    for key in known_keys("zones.\"a\"") {
        let shown = defaults.replace("\n# ", "\n");
        assert!(has(if key == "seeds" { zones } else { &shown }, &key), "[defaults] lacks {key}");
    }
}

/// Without the comment signs the file is still good, and each value is the default.
#[test]
fn the_example_s_forward_section_is_good() {
    let example = shipped("example.toml");
    let (_, rest) = example.split_once("\n# [forward]\n").unwrap();
    let (section, _) = rest.split_once("\n[defaults]\n").unwrap();
    let is_key = |line: &&str| line.starts_with("# upstreams = ") || line.starts_with("# clients = ");
    let (upstreams, clients) = {
        let lines: Vec<_> = section.lines().filter(is_key).map(|line| line.trim_start_matches("# ")).collect();
        (lines[0], lines[1])
    };
    let forward =
        |keys: &str| parsed(&format!("[forward]\n{keys}\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n")).forward.unwrap();
    assert_eq!(forward(&format!("{upstreams}\n{clients}")), forward(upstreams));
}

#[test]
fn the_proof_of_concept_is_reproduced() {
    let config = parsed(&shipped("proof-of-concept.toml"));
    let (name, zone) = config.zones.iter().next().unwrap();
    assert!(name.is_root() && zone.subdomains);
    assert_eq!((zone.ttl.as_secs(), zone.refresh.as_secs()), (4, 1));
}

/// Every fenced block of the documents that is a configuration.
#[test]
fn the_readme_s_configurations_are_good() {
    for document in ["README.md", "packaging/README.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        let blocks: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert!(!blocks.is_empty(), "{document}");
        for block in blocks {
            parsed(block);
        }
    }
}

#[test]
fn the_documents_name_commands_that_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_alternator-dns")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut count = 0;
    for document in ["README.md", "packaging/README.md", "packaging/kubernetes/README.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        let calls = ["`alternator-dns ", "\nalternator-dns ", "sudo alternator-dns ", "-- alternator-dns "];
        for command in calls.iter().flat_map(|call| text.split(call).skip(1)) {
            let command = command.split([' ', '`', '\n']).next().unwrap();
            assert!(help.contains(&format!("\n  {command} ")), "{document}: there is no command {command}\n{help}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} calls were found");
}

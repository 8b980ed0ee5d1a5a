use proptest::prelude::*;

use super::{super::effective, *};

fn files(texts: &[(&str, &str)]) -> Vec<RawFile> {
    texts.iter().map(|(path, text)| RawFile { path: path.into(), octets: text.as_bytes().into() }).collect()
}

fn parsed(texts: &[(&str, &str)]) -> Config {
    Config::parse_files(&files(texts)).unwrap()
}

fn said(texts: &[(&str, &str)]) -> String {
    Config::parse_files(&files(texts)).unwrap_err().to_string()
}

const MAIN: &str =
    "[server]\ninclude = [\"d/*.toml\"]\n\n[defaults]\nttl = \"9s\"\n\n[zones.\"main\"]\nseeds = [\"10.0.0.1\"]\n";
const A: &str = "# Zones of a.\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n";

#[test]
fn an_included_file_has_the_defaults_of_the_main_one_and_its_zones_their_own_places() {
    let config = parsed(&[("/etc/c.toml", MAIN), ("/etc/d/a.toml", A), ("/etc/d/empty.toml", "")]);
    let name = ZoneName::parse("a").unwrap();
    assert_eq!(config.zones[&name].ttl.as_secs(), 9);
    assert_eq!(config.place_of(&name), Some((Path::new("/etc/d/a.toml"), 2)));
    assert_eq!(config.place_of(&ZoneName::parse("main").unwrap()), Some((Path::new("/etc/c.toml"), 7)));
    let shown = effective(&config, None);
    for line in [
        "# include = [\"d/*.toml\"]  # /etc/c.toml:2",
        "seeds = [\"10.0.0.1\"]  # /etc/d/a.toml:3",
        "ttl = \"9s\"  # /etc/c.toml:5, [defaults]",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    let again = Config::parse(Path::new("z"), shown.as_bytes()).unwrap();
    assert_eq!(again.zones, config.zones);
}

#[test]
fn each_error_names_its_own_file() {
    let wrong = "[zones.\"b\"]\nseeds = [\"10.0.0.1\"]\nttl = 3\n";
    let broken = "[zones.\"c\"]\nseeds = [\"10.0.0.1\n";
    let expected = "c.toml:9:1: zone main. has no key \"prt\"; did you mean \"port\"?\n\
                    d/b.toml:3:7: expected a duration in quotes, such as \"1s\" or \"500ms\", whole seconds from 0s to 1d, \
                    found the number 3\n\
                    d/c.toml:2:10: the quotation mark here has no closing one in this line";
    let main = format!("{MAIN}prt = 1\n");
    assert_eq!(said(&[("c.toml", &main), ("d/a.toml", A), ("d/b.toml", wrong), ("d/c.toml", broken)]), expected);
    let expected = "d/b.toml:1:9: the file is not UTF-8 text from here on";
    let mut not_text = files(&[("c.toml", MAIN), ("d/b.toml", "# zones ")]);
    not_text[1].octets.push(0xff);
    assert_eq!(Config::parse_files(&not_text).unwrap_err().to_string(), expected);
}

#[test]
fn a_zone_that_is_there_twice_names_both_places() {
    let twice = "d/b.toml:2:8: zone a. is defined twice; it is in d/a.toml:2 already";
    assert_eq!(said(&[("c.toml", MAIN), ("d/a.toml", A), ("d/b.toml", A)]), twice);
    let main = MAIN.replace("main", "a");
    assert_eq!(
        said(&[("c.toml", &main), ("d/a.toml", A)]),
        "d/a.toml:2:8: zone a. is defined twice; it is in c.toml:7 already"
    );
    let one = format!("{A}[zones]\n\"A.\" = {{ seeds = [\"10.0.0.1\"] }}\n");
    assert_eq!(
        said(&[("c.toml", MAIN), ("d/a.toml", &one)]),
        "d/a.toml:5:1: zone a. is defined twice; it is in line 2 already"
    );
}

#[test]
fn an_included_file_may_have_zones_only() {
    let other = format!("{A}[server]\nlisten = [\"127.0.0.1:53\"]\n[defaults]\nttl = \"1s\"\n[zoned]\n");
    let expected = "d/a.toml:4:2: server belongs in c.toml: an included file may have zones only\n\
                    d/a.toml:6:2: defaults belongs in c.toml: an included file may have zones only\n\
                    d/a.toml:8:2: this file has no key \"zoned\"; did you mean \"zones\"?";
    assert_eq!(said(&[("c.toml", MAIN), ("d/a.toml", &other)]), expected);
}

#[test]
fn checks_of_several_zones_see_all_files() {
    let inside = "[zones.\"b\"]\nseeds = [\"node.main\"]\n";
    let refused = said(&[("c.toml", MAIN), ("d/b.toml", inside)]);
    assert!(refused.starts_with("d/b.toml:2:10: seed node.main lies inside this server's zone main."), "{refused}");
    let none = "[server]\ninclude = [\"d/*.toml\"]\n";
    let expected = "c.toml:1:1: no zone; add [zones.\"alternator.example.com\"] with its seeds, here or in a file that include names";
    assert_eq!(said(&[("c.toml", none), ("d/a.toml", "")]), expected);
    assert_eq!(parsed(&[("c.toml", none), ("d/a.toml", A)]).zones.len(), 1);
}

#[test]
fn an_entry_of_include_that_cannot_be_read_is_refused() {
    let main = |include: &str| format!("[server]\ninclude = {include}\n{A}");
    for (include, expected) in [
        (
            "\"a.toml\"",
            "z:2:11: expected a list of files in quotes, such as [\"zones.d/*.toml\"], found the text \"a.toml\"",
        ),
        (
            "[\"*/a.toml\"]",
            "z:2:12: include \"*/a.toml\" has a wildcard in the name of a directory; only the part behind the last / may have *, ? and [...]",
        ),
        ("[\"a\", \"a\"]", "z:2:17: \"a\" is listed twice"),
    ] {
        assert_eq!(said(&[("z", &main(include))]), expected);
    }
}

#[test]
fn what_a_main_file_includes_is_known_also_where_it_has_errors() {
    let found = |text: &str| -> Vec<String> {
        includes_of(text.as_bytes()).iter().map(|entry| entry.as_str().to_owned()).collect()
    };
    assert_eq!(found(MAIN), ["d/*.toml"]);
    assert_eq!(found("\u{feff}[server]\n\"incl\\u0075de\" = [\"a\", \"*/b\", 1, \"c\"]\nlisten = [\n"), ["a", "c"]);
    assert_eq!(found("[zones.\"include\"]\ninclude = [\"a\"]\n"), [""; 0]);
}

proptest! {
    #[test]
    fn several_files_have_the_zones_of_one(
        names in prop::collection::btree_set("[a-f]{1,3}", 1..12),
        files_of in prop::collection::vec(0..4_usize, 12),
        inline in any::<[bool; 12]>(),
        ttl in 0..60_u32,
        end in "(|\n|# no line end)",
    ) {
        let server = "[server]\ninclude = [\"d/*.toml\"]\n";
        let defaults = format!("[defaults]\nttl = \"{ttl}s\"\n");
        let mut texts = [String::new(), String::new(), String::new(), String::new()];
        let mut lists = texts.clone();
        let mut sections = String::new();
        for ((name, file), is_inline) in names.iter().zip(files_of).zip(inline) {
            let section = format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.{}\"]\n", name.len());
            sections += &section;
            match is_inline {
                true => lists[file] += &format!("\"{name}\" = {{ seeds = [\"10.0.0.{}\"] }}\n", name.len()),
                false => texts[file] += &section,
            }
        }
        let text = |number: usize, before: &str| {
            let list = if lists[number].is_empty() { String::new() } else { format!("[zones]\n{}", lists[number]) };
            format!("{before}{list}{}{end}", texts[number])
        };
        let main = text(0, &format!("{server}{defaults}"));
        let others = [1, 2, 3].map(|number| text(number, ""));
        let several = [("c", main.as_str()), ("d/1", others[0].as_str()), ("d/2", others[1].as_str()), ("d/3", others[2].as_str())];
        let one = Config::parse(Path::new("c"), format!("{server}{defaults}{sections}").as_bytes());
        let several = Config::parse_files(&files(&several));
        let (one, several) = (one.unwrap(), several.map_err(|error| TestCaseError::fail(error.to_string()))?);
        prop_assert_eq!(&several.zones, &one.zones);
        prop_assert_eq!(&several.server, &one.server);
        for name in several.zones.keys() {
            let (path, line) = several.place_of(name).unwrap();
            let source = several.sources.iter().find(|source| source.path == path).unwrap();
            let written = source.text.lines().nth(line - 1).unwrap();
            prop_assert!(written.contains(&format!("\"{}\"", name.to_string().trim_end_matches('.'))), "{name} {written}");
        }
    }

    #[test]
    fn no_files_make_the_parser_panic(
        texts in prop::collection::vec("(\\[(server|zones|zones\\.\"?[ab]\"?|defaults)\\]\n|(include|seeds|ttl) = (\\[\"a\"\\]|\"1s\"|1|\\[|\")\n){0,6}", 0..4)
    ) {
        let files: Vec<_> = texts.iter().enumerate().map(|(number, text)| RawFile { path: number.to_string().into(), octets: text.clone().into() }).collect();
        if let Err(diagnostics) = Config::parse_files(&files) {
            prop_assert!(!diagnostics.list().is_empty());
            for found in diagnostics.list() {
                let file = files.iter().find(|file| file.path == *found.file);
                let text = file.map(|file| std::str::from_utf8(&file.octets).unwrap()).unwrap_or_default();
                let length = text.split('\n').nth(found.line - 1).map(|line| line.chars().count());
                prop_assert!(length.is_some_and(|length| (1..=length + 1).contains(&found.column)), "{found:?}");
            }
        }
    }
}

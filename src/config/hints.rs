//! What a person probably meant where the parser of TOML only says what it expected.

use super::{
    diagnostic::{Errors, SpannedError},
    texts::Lines,
};

/// Lines of a file that decide whether it is YAML or INI: whole files of another format look so from their beginning.
const LINES_LOOKED_AT: usize = 20;

/// Octets of a line that is looked at. No person writes a longer one, and each of its characters takes sixteen octets.
const LINE_OCTETS_MAX: usize = 16 << 10;

/// Values without quotes from which on a file counts as INI; fewer are slips.
const INI_VALUES_MIN: usize = 3;

/// Marks that look like those around texts. They come with pasted text.
const TYPOGRAPHIC: [char; 9] =
    ['\u{201c}', '\u{201d}', '\u{201e}', '\u{201f}', '\u{ab}', '\u{bb}', '\u{2018}', '\u{2019}', '\u{201a}'];

const UNCLOSED_QUOTE: &str = "the quotation mark here has no closing one in this line";

/// The message of the parser for a key or a table that is there twice.
const DUPLICATE: &str = "duplicate key";

/// Errors of syntax, as a person says them.
pub(super) struct Explained {
    pub(super) errors: Errors,
    /// From this offset on, other errors are consequences of the last one here.
    pub(super) readable_to: usize,
}

/// Replaces errors of syntax by what was probably meant. A file of another format has one error.
pub(super) fn explain(text: &str, lines: &Lines<'_>, mut errors: Errors) -> Explained {
    if let Some(format) = whole_format(text) {
        return Explained { errors: format.into(), readable_to: 0 };
    }
    let mut readable_to = text.len() + 1;
    if let Some(unclosed) = unclosed(lines, text) {
        readable_to = unclosed.span.start;
        errors.list_mut().retain(|error| error.span.start < readable_to);
        errors.push(unclosed);
    }
    errors.list_mut().retain(|error| !is_within_repeated_section(lines, error));
    for error in errors.list_mut() {
        let number = lines.line(error.span.start);
        let line = lines.text(number);
        let start = lines.start(number);
        if error.message.starts_with(DUPLICATE) {
            let key = text.get(error.span.clone()).unwrap_or_default();
            if let Some(message) = first_of_two(lines, number, key) {
                *error = SpannedError::new(error.span.clone(), message);
            }
        } else if line.len() <= LINE_OCTETS_MAX
            && let Some((at, message)) = slip(line, error.span.start - start)
        {
            *error = SpannedError::new(start + at..start + at, message);
        }
    }
    if let Some(ini) = ini(lines, text) {
        errors.list_mut().insert(0, ini);
    }
    Explained { errors, readable_to }
}

/// Whether a key is there twice only because its section is.
fn is_within_repeated_section(lines: &Lines<'_>, error: &SpannedError) -> bool {
    let number = lines.line(error.span.start);
    let is_section = |number: &usize| section(lines.text(*number).trim()).is_some();
    error.message.starts_with(DUPLICATE)
        && !is_section(&number)
        && (1..number).rev().find(is_section).is_some_and(|above| first_of_two(lines, above, "").is_some())
}

/// Another format, of which no line is TOML.
fn whole_format(text: &str) -> Option<SpannedError> {
    if let Some(at) = text.find('\0') {
        let message = "a NUL octet: the file is binary, or text in UTF-16; save it as UTF-8 text";
        return Some(SpannedError::new(at..at, message));
    }
    let content = text.trim_start();
    let at = text.len() - content.len();
    if content.starts_with('<') {
        return Some(SpannedError::new(at..at, other_format("XML or HTML")));
    }
    if content.starts_with("#!") {
        return Some(SpannedError::new(at..at, other_format("a script")));
    }
    let after_bracket = content.strip_prefix('[').map(str::trim_start);
    if content.starts_with('{') || after_bracket.is_some_and(|rest| rest.starts_with('{')) {
        return Some(SpannedError::new(at..at, other_format("JSON")));
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let mut lines = lines.take(LINES_LOOKED_AT).peekable();
    let first = lines.peek()?.as_ptr() as usize - text.as_ptr() as usize;
    if lines.clone().any(is_record) {
        return Some(SpannedError::new(first..first, other_format("a DNS zone file")));
    }
    lines.all(is_yaml).then(|| SpannedError::new(first..first, other_format("YAML")))
}

/// Whether this is a directive or a record of a zone file (RFC 1035, 5.1).
fn is_record(line: &str) -> bool {
    let line = line.split(['"', '=']).next().unwrap_or_default();
    let mut words = line.split_whitespace();
    line.starts_with("$ORIGIN") || line.starts_with("$TTL") || words.any(|word| word == "IN") && words.next().is_some()
}

fn other_format(name: &str) -> String {
    format!(
        "this looks like {name}, and the configuration is TOML: [server], then listen = [\"127.0.0.1:53\"]; \
         [zones.\"name\"], then seeds = [\"10.0.0.1\"]"
    )
}

/// Whether this is an item, or a key with a colon.
fn is_yaml(line: &str) -> bool {
    let line = line.trim();
    if line == "---" || line == "-" || line.starts_with("- ") || line.starts_with("%YAML") {
        return true;
    }
    let (key, value) = line.split_once(':').unwrap_or_default();
    let is_word = |character: char| character.is_alphanumeric() || "_-.\"'".contains(character);
    !key.is_empty() && key.chars().all(is_word) && (value.is_empty() || value.starts_with(' '))
}

/// A file with sections, and values without quotes.
fn ini(lines: &Lines<'_>, text: &str) -> Option<SpannedError> {
    let mut has_section = false;
    let mut values = 0;
    let mut first = None;
    for (number, line) in text.lines().take(LINES_LOOKED_AT).enumerate() {
        let line = line.trim();
        has_section |= line.starts_with('[') && line.ends_with(']') && !line.contains('"');
        let value = line.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
        let is_bare = value.starts_with(|first: char| first.is_alphanumeric()) && !is_toml_word(value);
        if is_bare || line.starts_with(';') {
            values += 1;
            first = first.or(Some(number + 1));
        }
    }
    let start = lines.start(first.filter(|_| has_section && values >= INI_VALUES_MIN)?);
    let message = "this looks like an INI file, and the configuration is TOML: texts and addresses have quotes, lists \
                   have brackets, as in listen = [\"127.0.0.1:53\"], and a comment begins with #";
    Some(SpannedError::new(start..start, message))
}

/// Whether a value without quotes is one in TOML: a number, a date, true or false.
fn is_toml_word(value: &str) -> bool {
    let word = value.split(['#', ' ', '\t']).next().unwrap_or_default();
    ["true", "false"].contains(&word) || word.parse::<f64>().is_ok()
}

/// A line without what is in quotes and comments.
struct Code {
    /// Its characters, with their offsets.
    characters: Vec<(usize, char)>,
    /// Where a quotation mark is that no other one closes.
    unclosed: Option<usize>,
}

fn code(line: &str) -> Code {
    let mut characters = Vec::new();
    let mut quote = None;
    let mut is_escaped = false;
    for (at, character) in line.char_indices() {
        match quote {
            Some((_, '"')) if is_escaped => is_escaped = false,
            Some((_, '"')) if character == '\\' => is_escaped = true,
            Some((_, open)) if character == open => quote = None,
            Some(_) => {}
            None if character == '#' => break,
            None if character == '"' || character == '\'' => quote = Some((at, character)),
            None => characters.push((at, character)),
        }
    }
    Code { characters, unclosed: quote.map(|(at, _)| at) }
}

/// What is wrong in a line of which the parser rejects the octet at `at`, and where.
fn slip(line: &str, at: usize) -> Option<(usize, String)> {
    let Code { characters: code, unclosed } = code(line);
    if let Some((at, mark)) = code.iter().find(|(_, character)| TYPOGRAPHIC.contains(character)) {
        let message = format!(
            "the quotation mark {mark} is a typographic one, which word processors and chat programs insert; write \""
        );
        return Some((*at, message));
    }
    if let Some(at) = unclosed {
        return Some((at, UNCLOSED_QUOTE.into()));
    }
    if let Some(found) = comment(&code) {
        return Some(found);
    }
    let position = |wanted: char| code.iter().find(|(_, character)| *character == wanted).map(|(at, _)| *at);
    let equals = position('=');
    let count = |wanted: char| code.iter().filter(|(_, character)| *character == wanted).count();
    let indent = line.len() - line.trim_start().len();
    if line.trim_start().starts_with('[') && equals.is_none() && count('[') > count(']') {
        let end = line.split('#').next().unwrap_or_default().trim();
        return Some((indent, format!("the name of this section lacks its closing ]; write {end}]")));
    }
    if let Some(colon) = position(':').filter(|_| equals.is_none())
        && let key = line[..colon].trim()
        && key.starts_with(|first: char| first.is_ascii_alphabetic())
        && key.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
    {
        return Some((colon, format!("a key and its value have = between them, not :; write {key} =")));
    }
    if equals.is_some_and(|equals| at <= equals) {
        return None;
    }
    bare_word(line, at, equals.is_some())
}

/// A value without quotes around an offset. Where its key is not in this line it is an entry of a list, alone there.
fn bare_word(line: &str, at: usize, has_key: bool) -> Option<(usize, String)> {
    let (start, word) = word_at(line, at)?;
    if !has_key && line.split('#').next().map(str::trim)?.trim_end_matches(',') != word {
        return None;
    }
    let is_value = word.starts_with(|first: char| first.is_ascii_alphanumeric() || ":[".contains(first));
    (is_value && !is_toml_word(word)).then(|| (start, format!("{word} needs quotes; write \"{word}\"")))
}

/// A comment of another language, or the end of a statement of one.
fn comment(code: &[(usize, char)]) -> Option<(usize, String)> {
    let number = code.iter().enumerate().position(|(number, (at, character))| {
        let next = code.get(number + 1).filter(|(next, _)| *next == at + 1).map(|(_, next)| *next);
        let before = number.checked_sub(1).and_then(|before| code.get(before)).map(|(_, before)| *before);
        *character == ';' || *character == '/' && next == Some('/') && before != Some(':')
    })?;
    let (at, character) = *code.get(number)?;
    let mut rest = code[number + 1..].iter();
    let message = match character {
        ';' if number > 0 && rest.all(|(_, character)| character.is_whitespace()) => {
            "a line does not end with ; here; remove it"
        }
        ';' => "a comment begins with #, not with ;",
        _ => "a comment begins with #, not with //",
    };
    Some((at, message.into()))
}

/// The word without quotes around an offset, and where it starts. An IPv6 address in brackets belongs to its port.
fn word_at(line: &str, at: usize) -> Option<(usize, &str)> {
    let ends = |character: char| character.is_whitespace() || ",[]{}\"'=#".contains(character);
    let before = line.get(..at)?;
    let after = line.get(at..)?;
    let start = before.trim_end_matches(|character| !ends(character)).len();
    let end = at + after.find(ends).unwrap_or(after.len());
    let is_port = line[start..end].starts_with(':') && line[..start].ends_with(']');
    let start = line[..start].rfind('[').filter(|_| is_port).unwrap_or(start);
    line.get(start..end).filter(|word| !word.is_empty()).map(|word| (start, word))
}

/// A list or table that is still open where the next key or section begins.
fn unclosed(lines: &Lines<'_>, text: &str) -> Option<SpannedError> {
    let mut open = OpenBrackets::default();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.len() > LINE_OCTETS_MAX {
            return None;
        }
        let Code { characters: code, unclosed } = code(line);
        if let Some(at) = unclosed {
            // A bracket behind it does not close what is open.
            open.read(&code, lines.start(number));
            let at = lines.start(number) + at;
            return (!open.0.is_empty()).then(|| SpannedError::new(at..at + 1, UNCLOSED_QUOTE));
        }
        let is_begun = open.0.is_empty() || !is_section_name(&code);
        if !is_begun || !open.read(&code, lines.start(number)) {
            return open.error(&format!("; line {number} begins something else"));
        }
    }
    open.error("")
}

/// Whether a line is a whole `[name]`, and no part of a list.
fn is_section_name(code: &[(usize, char)]) -> bool {
    let text: String = code.iter().map(|(_, character)| character).collect();
    text.trim().starts_with('[') && text.trim().ends_with(']')
}

/// Brackets of values that are open, and where each opens.
#[derive(Default)]
struct OpenBrackets(Vec<(usize, char)>);

impl OpenBrackets {
    /// Reads a line. Returns whether it can belong to what is open: a list has no keys.
    fn read(&mut self, code: &[(usize, char)], start: usize) -> bool {
        // Brackets before a value are of a section's name.
        let mut is_value = !self.0.is_empty();
        for (at, character) in code {
            match (character, self.0.last().map(|(_, open)| *open)) {
                ('=', Some('[')) => return false,
                ('=', _) => is_value = true,
                ('[' | '{', _) if is_value => self.0.push((start + at, *character)),
                (']', Some('[')) | ('}', Some('{')) => _ = self.0.pop(),
                _ => {}
            }
        }
        true
    }

    fn error(&self, why: &str) -> Option<SpannedError> {
        let (at, open) = *self.0.first()?;
        let what = if open == '[' { "list lacks its closing ]" } else { "table lacks its closing }" };
        Some(SpannedError::new(at..at + 1, format!("this {what}{why}")))
    }
}

/// Where the key or the section of a line is for the first time.
fn first_of_two(lines: &Lines<'_>, number: usize, key: &str) -> Option<String> {
    let line = lines.text(number).trim();
    if let Some(section) = section(line) {
        let is_same = |other: &usize| self::section(lines.text(*other).trim()).is_some_and(|other| other == section);
        let first = (1..number).find(is_same)?;
        return Some(match section.strip_prefix("zones.") {
            Some(zone) => format!("zone {zone} is defined twice; it is in line {first} already"),
            None => format!("the section [{section}] is there twice; it is in line {first} already"),
        });
    }
    let is_same = |other: &usize| {
        let rest = lines.text(*other).trim_start().strip_prefix(key).map(str::trim_start);
        rest.is_some_and(|rest| rest.starts_with('='))
    };
    let first = (1..number).rev().take_while(|&other| section(lines.text(other).trim()).is_none()).find(is_same)?;
    Some(format!("{key} is set twice; it is in line {first} already"))
}

/// The name of the section that a line begins, without quotes and blanks.
fn section(line: &str) -> Option<String> {
    let name = line.split('#').next()?.trim().strip_prefix('[')?.strip_suffix(']')?;
    let kept = name.chars().filter(|character| !character.is_whitespace() && *character != '"' && *character != '\'');
    Some(kept.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::Config;

    const ZONE: &str = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n";

    /// Each text, before and after which there is nothing, and all that is said about it.
    #[track_caller]
    fn assert_says(cases: &[(&str, &[&str])]) {
        for (text, expected) in cases {
            let said = Config::parse(Path::new("z"), text.as_bytes()).unwrap_err().to_string();
            let expected: Vec<_> = expected.iter().map(|line| format!("z:{line}")).collect();
            assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_there_twice_is_said_with_the_first_line() {
        let twice = format!("{ZONE}{ZONE}");
        let spelt = format!("{ZONE}[zones.\"A.example.\"]\nseeds = [\"10.0.0.1\"]\n");
        let key = format!("{ZONE}port = 1\nport = 2\n");
        let section = format!("[server]\nadmin = \"127.0.0.1:1\"\n{ZONE}[server] # again\nadmin = \"127.0.0.1:2\"\n");
        assert_says(&[
            (&twice, &["3:8: zone a.example is defined twice; it is in line 1 already"]),
            (&spelt, &["3:8: zone a.example. is defined twice; it is in line 1 already"]),
            (&key, &["4:1: port is set twice; it is in line 3 already"]),
            (&section, &["5:2: the section [server] is there twice; it is in line 1 already"]),
        ]);
    }

    #[test]
    fn a_missing_bracket_is_said_where_it_is_missing() {
        assert_says(&[
            (
                "[zones.\"a.example\" # east\nseeds = [\"10.0.0.1\"]\n",
                &["1:1: the name of this section lacks its closing ]; write [zones.\"a.example\"]"],
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"\nport = 8000\n",
                &["2:9: this list lacks its closing ]; line 3 begins something else"],
            ),
            (
                "[zones.\"a\"]\nttl = 4\nseeds = [\"10.0.0.1\",\n \"10.0.0.2\"\n\n[zones.\"b\"]\nseeds=[\"10.0.0.1\"]\n",
                &[
                    "2:7: expected a duration in quotes, such as \"1s\" or \"500ms\", whole seconds from 0s to 1d, found the number 4",
                    "3:9: this list lacks its closing ]; line 6 begins something else",
                ],
            ),
            ("[zones.\"a\"]\nseeds = [\"10.0.0.1\",\n", &["2:9: this list lacks its closing ]"]),
            (
                "[zones.\"a\"]\nhealth = { rise = 2\n[zones.\"b\"]\nseeds = [\"10.0.0.1\"]\n",
                &["2:10: this table lacks its closing }; line 3 begins something else"],
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nscope = [\n  { datacenter = \"east\" },\n  { datacenter = \"west\" },\n]\nttl = 4s\n",
                &["7:7: 4s needs quotes; write \"4s\""],
            ),
        ]);
    }

    #[test]
    fn comments_of_other_languages_are_named() {
        let lines = "port = 8000 // the port\nttl = \"4s\" ; x\nrefresh = \"1s\";\n";
        assert_says(&[
            (&format!("; east\n{ZONE}"), &["1:1: a comment begins with #, not with ;"]),
            (&format!("  // east\n{ZONE}"), &["1:3: a comment begins with #, not with //"]),
            (
                &format!("{ZONE}{lines}"),
                &[
                    "3:13: a comment begins with #, not with //",
                    "4:12: a comment begins with #, not with ;",
                    "5:15: a line does not end with ; here; remove it",
                ],
            ),
        ]);
    }

    #[test]
    fn a_value_without_quotes_is_shown_with_them() {
        assert_says(&[
            (
                "[zones.\"a\"]\nseeds = [10.0.0.1, 10.0.0.2]\nttl = 4s # short\n",
                &["2:10: 10.0.0.1 needs quotes; write \"10.0.0.1\"", "3:7: 4s needs quotes; write \"4s\""],
            ),
            (
                &format!("[server]\nadmin = 127.0.0.1:9153\nlisten = [\"127.0.0.1:53\", ::1]\n{ZONE}"),
                &[
                    "2:9: 127.0.0.1:9153 needs quotes; write \"127.0.0.1:9153\"",
                    "3:27: ::1 needs quotes; write \"::1\"",
                ],
            ),
            (
                &format!("[server]\nadmin = [::1]:9153\nlisten = [ [::1]:53 ]\n{ZONE}"),
                &[
                    "2:9: [::1]:9153 needs quotes; write \"[::1]:9153\"",
                    "3:12: [::1]:53 needs quotes; write \"[::1]:53\"",
                ],
            ),
            (
                "[zones.\"a]\nseeds = [\"10.0.0.1\"]\n",
                &["1:8: the quotation mark here has no closing one in this line"],
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\nttl = '4s\n",
                &["3:7: the quotation mark here has no closing one in this line"],
            ),
            (
                "[zones.\"a\"]\nseeds = [\"10.0.0.1]\nport = 1\n",
                &["2:10: the quotation mark here has no closing one in this line"],
            ),
            (
                "[zones.\"a\"]\nseeds: [\"10.0.0.1\"]\n",
                &["2:6: a key and its value have = between them, not :; write seeds ="],
            ),
            (
                "[zones.\"a\"]\nseeds = [\n  node-1.example,\n]\n",
                &["3:3: node-1.example needs quotes; write \"node-1.example\""],
            ),
        ]);
    }

    #[test]
    fn typographic_quotation_marks_are_named() {
        let what = "is a typographic one, which word processors and chat programs insert; write \"";
        assert_says(&[(
            "[zones.\u{201c}a.example\u{201d}]\nseeds = [\u{201c}10.0.0.1\u{201d}]\nttl = \u{2018}4s\u{2019}\n",
            &[
                &format!("1:8: the quotation mark \u{201c} {what}"),
                &format!("2:10: the quotation mark \u{201c} {what}"),
                &format!("3:7: the quotation mark \u{2018} {what}"),
            ],
        )]);
    }

    #[test]
    fn other_formats_are_named() {
        let says = |text: &str| Config::parse(Path::new("z"), text.as_bytes()).unwrap_err().to_string();
        for (text, name) in [
            ("{\"zones\": {\"a.example\": {}}}", "z:1:1: this looks like JSON"),
            ("\n [\n {\"a\": 1}]", "z:2:2: this looks like JSON"),
            ("# east\nzones:\n  a.example:\n    seeds:\n      - 10.0.0.1\n", "z:2:1: this looks like YAML"),
            ("---\n- 10.0.0.1\n", "z:1:1: this looks like YAML"),
            ("\n<?xml version=\"1.0\"?>\n<zones/>\n", "z:2:1: this looks like XML or HTML"),
            ("#!/bin/sh\nexec alternator-dns run\n", "z:1:1: this looks like a script"),
            ("; east\n$ORIGIN example.\n$TTL 4\n", "z:1:1: this looks like a DNS zone file"),
            ("@ 4 IN SOA ns.example. host.example. ( 1\n 2 3 4 5 )\n", "z:1:1: this looks like a DNS zone file"),
            ("\0[\0s\0e\0r\0v\0e\0r\0]", "z:1:1: a NUL octet: the file is binary, or text in UTF-16"),
        ] {
            let said = says(text);
            assert!(said.starts_with(name) && said.lines().count() == 1, "{said}");
        }
        let ini = says("; old\n[server]\nlisten = 127.0.0.1:53\n[zone]\nname = a.example\n");
        assert!(ini.starts_with("z:1:1: this looks like an INI file"), "{ini}");
        let slips = says("[server]\nadmin = 127.0.0.1:9153\n");
        assert!(!slips.contains("INI"), "one forgotten pair of quotes makes no INI file: {slips}");
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_its_own() {
        assert_says(&[
            (
                &format!("[server]\nrefresh = \"1s\"\n{ZONE}listen = [\"127.0.0.1:53\"]\nupstreams = [\"10.0.0.1\"]\n"),
                &[
                    "2:1: [server] has no key \"refresh\"; it belongs to a zone, or to [defaults]",
                    "5:1: zone a.example. has no key \"listen\"; it belongs to [server]",
                    "6:1: zone a.example. has no key \"upstreams\"; it belongs to [forward]",
                ],
            ),
            (
                &format!("listen = [\"127.0.0.1:53\"]\n{ZONE}[zones.\"a.example\".health]\nttl = \"4s\"\n"),
                &[
                    "1:1: this file has no key \"listen\"; it belongs to [server]",
                    "5:1: health has no key \"ttl\"; it belongs to a zone, or to [defaults]",
                ],
            ),
        ]);
    }

    #[test]
    fn what_is_no_name_is_shown_as_one() {
        let zone = |name: &str| format!("[zones.\"{name}\"]\nseeds = [\"10.0.0.1\"]\n");
        assert_says(&[
            (
                &zone("http://a.example:8000/x"),
                &["1:8: zone \"http://a.example:8000/x\" is a URL; write the name alone, \"a.example\""],
            ),
            (&zone("a.example:8000"), &["1:8: zone \"a.example:8000\" is more than a name; write \"a.example\""]),
            (
                &zone("b\u{fc}cher.example"),
                &[
                    "1:8: zone \"b\u{fc}cher.example\" has the character '\u{fc}'; write the name as it is in DNS, \"xn--bcher-kva.example\"",
                ],
            ),
            (
                &format!("[server]\nlisten = [\"::1:53\", \"[::1]\"]\n{ZONE}"),
                &[
                    "2:11: \"::1:53\" does not say where the port begins; write \"[::1]:53\"",
                    "2:21: \"[::1]\" has no port; write \"[::1]:53\"",
                ],
            ),
        ]);
    }

    #[test]
    fn a_byte_order_mark_is_not_a_column() {
        assert!(Config::parse(Path::new("z"), format!("\u{feff}{ZONE}").as_bytes()).is_ok());
        assert_says(&[(
            &format!("\u{feff}prt = 1\n{ZONE}"),
            &["1:1: this file has no key \"prt\"; it knows server, forward, transfer, defaults, zones"],
        )]);
    }

    proptest! {
        #[test]
        fn whatever_is_wrong_is_said_in_a_line_about_a_place(
            lines in prop::collection::vec(
                "([;/]{1,2} |\\[zones\\.\"?[ab]\"?\\]?|\\[|seeds = |- a: |\\{|[a-c]=|\u{feff})\
                 ([\\[\\],\u{201c}\u{e4}\u{1}\"';# x1.]{0,8})\r?",
                0..8
            )
        ) {
            let text = lines.join("\n");
            if let Err(diagnostics) = Config::parse(Path::new("z"), text.as_bytes()) {
                prop_assert!(!diagnostics.list().is_empty());
                let readable = text.strip_prefix('\u{feff}').unwrap_or(&text);
                for found in diagnostics.list() {
                    let line = readable.split('\n').nth(found.line - 1);
                    let length = line.map(|line| line.chars().count());
                    prop_assert!(length.is_some_and(|length| (1..=length + 1).contains(&found.column)), "{found:?}");
                    prop_assert!(!found.message.contains(char::is_control), "{found:?}");
                }
            }
        }
    }
}

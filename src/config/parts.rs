//! A file in parts that are parsed one after another: the sections of each zone, and the rest.
//!
//! The parser of TOML keeps every word of its text, and a tree of all values. Of a whole file of ten thousand zones that
//! takes forty times its octets, which are the process's peak; of one zone it is nothing.

use std::{borrow::Cow, ops::Range};

use rustc_hash::FxHashMap;
use toml_parser::{
    Raw, Source,
    lexer::{Token, TokenKind},
};

use super::{
    diagnostic::SpannedError,
    syntax::{TOKENS_MAX, TOO_LONG, expressions},
};

/// Zones of a file. Each takes 45 kB in the long run, so these are more than two gigabytes; ten thousand are measured.
pub(super) const ZONES_MAX: usize = 50_000;

/// Words outside of zones' sections, which take 12 MiB and a tree that is twice as large: as many as twenty thousand zones
/// have that are keys of one `[zones]`.
const REST_TOKENS_MAX: usize = 1 << 19;

/// The parts of a file.
pub(super) struct Parts {
    /// The file with blanks in place of what is in `zones`, so that its offsets are those of the file.
    pub(super) rest: String,
    /// Where the sections of each zone are, in the order of the file.
    pub(super) zones: Vec<Range<usize>>,
}

pub(super) fn too_many_zones() -> String {
    format!("more than {ZONES_MAX} zones; divide them among several servers")
}

/// Consecutive sections of one zone, or consecutive lines of no zone.
struct Run<'t> {
    zone: Option<Cow<'t, str>>,
    range: Range<usize>,
    tokens: usize,
}

/// Cuts a file.
///
/// # Errors
/// It has more zones or more words than a configuration.
pub(super) fn cut(text: &str) -> Result<Parts, SpannedError> {
    let runs = runs(text)?;
    let mut counts = FxHashMap::default();
    for zone in runs.iter().filter_map(|run| run.zone.clone()) {
        *counts.entry(zone).or_insert(0_usize) += 1;
    }
    let mut parts = Parts { rest: String::with_capacity(text.len()), zones: Vec::with_capacity(runs.len()) };
    let mut rest_tokens = 0;
    for run in runs {
        // Only one parser sees that a zone is there twice, or in pieces.
        let is_rest = run.zone.as_ref().is_none_or(|zone| counts[zone] > 1);
        if is_rest {
            rest_tokens += run.tokens;
            parts.rest.push_str(&text[run.range.clone()]);
        } else {
            parts.rest.extend(std::iter::repeat_n(' ', run.range.len()));
            parts.zones.push(run.range.clone());
        }
        if rest_tokens > REST_TOKENS_MAX {
            let message = "there is more outside of [zones.\"name\"] sections than any configuration has";
            return Err(SpannedError::new(run.range.start..run.range.start, message));
        }
        if !is_rest && run.tokens > TOKENS_MAX {
            return Err(SpannedError::new(run.range.start..run.range.start, TOO_LONG));
        }
    }
    Ok(parts)
}

fn runs(text: &str) -> Result<Vec<Run<'_>>, SpannedError> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut zones = 0;
    for expression in expressions(text) {
        let Some(range) = expression.whole() else {
            return Err(SpannedError::new(expression.start..expression.start, TOO_LONG));
        };
        let section = section(&text[range.clone()]);
        match runs.last_mut() {
            Some(run) if section.as_ref().is_none_or(|zone| *zone == run.zone) => {
                run.range.end = range.end;
                run.tokens += expression.tokens;
            }
            _ => {
                let zone = section.flatten();
                zones += usize::from(zone.is_some());
                if zones > ZONES_MAX {
                    return Err(SpannedError::new(range.start..range.start, too_many_zones()));
                }
                runs.push(Run { zone, range, tokens: expression.tokens });
            }
        }
    }
    Ok(runs)
}

/// What a line begins: the section of a zone, or of something else; `None`: no section.
#[expect(clippy::option_option, reason = "a section of no zone is no line within a section")]
fn section(expression: &str) -> Option<Option<Cow<'_, str>>> {
    let mut tokens = Source::new(expression).lex().filter(|token| token.kind() != TokenKind::Whitespace);
    let mut next = || tokens.next();
    if next()?.kind() != TokenKind::LeftSquareBracket {
        return None;
    }
    let mut zone = || {
        let mut token = next()?;
        // An entry of a list of tables within a zone.
        let is_entry = token.kind() == TokenKind::LeftSquareBracket;
        if is_entry {
            token = next()?;
        }
        key(expression, token).filter(|key| key == "zones")?;
        next().filter(|token| token.kind() == TokenKind::Dot)?;
        let zone = key(expression, next()?)?;
        let is_end = |kind: TokenKind| kind == TokenKind::Dot || (!is_entry && kind == TokenKind::RightSquareBracket);
        next().filter(|token| is_end(token.kind()))?;
        Some(zone)
    };
    Some(zone())
}

fn key<'t>(text: &'t str, token: Token) -> Option<Cow<'t, str>> {
    let is_key = matches!(token.kind(), TokenKind::Atom | TokenKind::BasicString | TokenKind::LiteralString);
    let word = text.get(token.span().start()..token.span().end()).filter(|_| is_key)?;
    let mut key = Cow::Borrowed("");
    Raw::new_unchecked(word, token.kind().encoding(), token.span()).decode_key(&mut key, &mut ());
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::{super::Config, *};

    fn zones(text: &str) -> Vec<&str> {
        let parts = cut(text).unwrap_or_else(|error| panic!("{}", error.message));
        assert_eq!(parts.rest.len(), text.len());
        parts.zones.into_iter().map(|range| &text[range]).collect()
    }

    fn said(text: &str) -> String {
        Config::parse(Path::new("z"), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn each_zone_is_a_part_and_the_rest_keeps_its_offsets() {
        let text = "a = 1\n# about b\n[zones.\"b\"] # b\nc = [\n1,\n]\n [ zones . 'b' . tls ]\nd = 2\n[server]\ne = 3\n\
                    [zones.x.y]\n[[zones.x.y]]\n[[zones.z]]\n[zones]\n[zones.f]\n";
        let expected = [
            "[zones.\"b\"] # b\nc = [\n1,\n]\n [ zones . 'b' . tls ]\nd = 2\n",
            "[zones.x.y]\n[[zones.x.y]]\n",
            "[zones.f]\n",
        ];
        assert_eq!(zones(text), expected);
        let rest = cut(text).unwrap().rest;
        assert_eq!(rest.find("[server]"), text.find("[server]"));
        assert_eq!(rest.find("[[zones.z]]"), text.find("[[zones.z]]"));
    }

    #[test]
    fn sections_of_a_zone_may_be_apart() {
        let text =
            "[zones.a]\nseeds = [\"10.0.0.1\"]\n[zones.b]\nseeds = [\"10.0.0.2\"]\n[zones.\"a\".health]\nrise = 3\n";
        assert_eq!(zones(text), ["[zones.b]\nseeds = [\"10.0.0.2\"]\n"]);
        let config = Config::parse(Path::new("z"), text.as_bytes()).unwrap();
        assert_eq!(config.zones.len(), 2);
        assert_eq!(said(&text.replace("rise", "rises")), "z:6:1: health has no key \"rises\"; did you mean \"rise\"?");
    }

    #[test]
    fn places_are_those_of_the_file_in_every_part() {
        let seeds = "seeds = [\"10.0.0.1\"]\n";
        let inside = "seeds = [\"n.a\"]\n";
        let text =
            format!("[zones.a]\n{seeds}ttl = 1\n[zones.b]\n{inside}[zones.\"A.\"]\n{seeds}[server]\nlistens = 1\n");
        let expected = "z:3:7: expected a duration in quotes, such as \"1s\" or \"500ms\", whole seconds from 0s to 1d, \
                        found the number 1\n\
                        z:6:8: zone a. is defined twice; it is in line 1 already\n\
                        z:9:1: [server] has no key \"listens\"; did you mean \"listen\"?";
        assert_eq!(said(&text), expected);
        let text = format!("[zones.a]\n{seeds}[zones.b]\n{inside}");
        assert!(said(&text).starts_with("z:4:10: seed n.a lies inside this server's zone a"), "{}", said(&text));
        let text = format!("[zones.a]\n{seeds}[zones]\n\"a\" = {{ seeds = [\"10.0.0.1\"] }}\n");
        assert_eq!(said(&text), "z:4:1: zone a. is defined twice; it is in line 1 already");
    }

    proptest! {
        #[test]
        fn the_parts_of_a_good_file_have_what_the_whole_has(
            lines in prop::collection::vec(
                r#"(\[server\]|\[zones\]|\[ ?zones ?\. ?(a|b|'a'|"\\u0061")(\.tls|\.x)?\]( # \[zones\.c\])?|\[\[zones\.[ab]\]\]|[a-e] = (1|\[|"""|'''|\[\[1\]\])|\]|"""|'''| *)"#,
                0..12,
            )
        ) {
            let text = lines.join("\n");
            let (whole, errors) = DeTable::parse_recoverable(&text);
            if errors.is_empty() {
                let parts = cut(&text).map_err(|error| TestCaseError::fail(error.message))?;
                let mut found = names(&parts.rest);
                for range in &parts.zones {
                    found.extend(names(&text[range.clone()]));
                }
                found.sort();
                found.dedup();
                prop_assert_eq!(found, zone_names(whole.get_ref()), "{}", text);
            }
        }
    }

    /// The names of zones in a part, which has no errors.
    fn names(part: &str) -> Vec<String> {
        let (root, errors) = DeTable::parse_recoverable(part);
        assert!(errors.is_empty(), "{errors:?}");
        zone_names(root.get_ref())
    }

    fn zone_names(root: &DeTable<'_>) -> Vec<String> {
        let zones = root.get("zones").and_then(|zones| zones.get_ref().as_table());
        zones.into_iter().flatten().map(|(name, _)| name.get_ref().to_string()).collect()
    }

    #[test]
    fn what_no_configuration_has_is_refused_before_it_is_parsed() {
        let zones: String = (0..=ZONES_MAX).map(|n| format!("[zones.\"z{n}\"]\nseeds=[\"x\"]\n")).collect();
        let line = ZONES_MAX * 2 + 1;
        assert_eq!(said(&zones), format!("z:{line}:1: more than {ZONES_MAX} zones; divide them among several servers"));
        let keys = "k=1\n".repeat(REST_TOKENS_MAX / 4 + 1);
        assert_eq!(said(&keys), "z:1:1: there is more outside of [zones.\"name\"] sections than any configuration has");
    }
}

//! Errors of a large file's syntax, at a bounded cost.
//!
//! The parser of the whole file keeps every error that it finds, and in a log file that lies in the place of a
//! configuration each line is several. So a large file is looked through first, one expression at a time.

use std::ops::Range;

use toml_parser::{
    ErrorSink, Expected, ParseError, Raw, Source, Span,
    decoder::Encoding,
    lexer::TokenKind,
    parser::{EventReceiver, RecursionGuard, parse_document},
};

use super::{
    diagnostic::{Errors, SpannedError},
    texts::Lines,
};

/// Smaller files are parsed at once: the errors of one take a few megabytes at most.
const SCREENED_FROM: usize = 256 << 10;

/// Tokens of one expression, or of one zone, which take 6 MiB. No key takes a list of so many.
pub(super) const TOKENS_MAX: usize = 1 << 18;

pub(super) const TOO_LONG: &str = "what begins here has more words before its closing bracket than any key takes";

/// Lists in lists. No value of a configuration needs more, and each level takes some of the stack.
const DEPTH_MAX: u32 = 80;

/// The errors of a large file if there are more than are kept: it is no configuration, and parsing it whole would cost
/// much memory. `None`: it may be one.
pub(super) fn screen(text: &str, lines: &Lines<'_>, sections: &[&str]) -> Option<Errors> {
    if text.len() < SCREENED_FROM {
        return None;
    }
    let mut errors = Errors::default();
    let mut last_line = 0;
    for expression in expressions(text) {
        let Some(expression) = expression.whole() else {
            errors.push(SpannedError::new(expression.start..expression.start, TOO_LONG));
            return Some(errors);
        };
        check(&text[expression.clone()], sections, |error| {
            let span = error.unexpected().or(error.context()).unwrap_or_default();
            let line = lines.line(expression.start + span.start());
            // The other errors of a line are mostly consequences.
            if line <= last_line {
                return;
            }
            last_line = line;
            if errors.is_full() {
                return errors.count_more();
            }
            let span = expression.start + span.start()..expression.start + span.end();
            errors.push(SpannedError::new(span, message(&error)));
        });
    }
    errors.is_full().then_some(errors)
}

/// A part of a text that ends with a line outside of all brackets, or is cut short at [`TOKENS_MAX`].
pub(super) struct Expression {
    pub(super) start: usize,
    end: Option<usize>,
    pub(super) tokens: usize,
}

impl Expression {
    /// Where it is; `None` where it is cut short.
    pub(super) fn whole(&self) -> Option<Range<usize>> {
        self.end.map(|end| self.start..end)
    }
}

pub(super) fn expressions(text: &str) -> impl Iterator<Item = Expression> {
    let mut lexer = Source::new(text).lex();
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut depth = 0_usize;
        let mut tokens = 0;
        for token in lexer.by_ref() {
            tokens += 1;
            let is_last = match token.kind() {
                TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                    depth += 1;
                    false
                }
                TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                    depth = depth.saturating_sub(1);
                    false
                }
                TokenKind::Newline => depth == 0,
                TokenKind::Eof => true,
                _ => false,
            };
            if is_last || tokens == TOKENS_MAX {
                let end = token.span().end();
                let first = std::mem::replace(&mut start, end);
                return Some(Expression { start: first, end: is_last.then_some(end), tokens });
            }
        }
        None
    })
}

fn check(expression: &str, sections: &[&str], mut report: impl FnMut(ParseError)) {
    let tokens = Source::new(expression).lex().into_vec();
    let mut words = Words { text: expression, sections, is_section: false };
    parse_document(&tokens, &mut RecursionGuard::new(&mut words, DEPTH_MAX), &mut report);
}

/// Checks keys, values and the names of sections; the parser checks only their order.
struct Words<'t> {
    text: &'t str,
    sections: &'t [&'t str],
    /// The next key begins the name of a section.
    is_section: bool,
}

impl Words<'_> {
    fn word(&self, span: Span, kind: Option<Encoding>) -> Option<Raw<'_>> {
        self.text.get(span.start()..span.end()).map(|word| Raw::new_unchecked(word, kind, span))
    }
}

impl EventReceiver for Words<'_> {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.is_section = true;
    }

    fn array_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.is_section = true;
    }

    fn simple_key(&mut self, span: Span, kind: Option<Encoding>, error: &mut dyn ErrorSink) {
        let is_section = std::mem::take(&mut self.is_section);
        let Some(word) = self.word(span, kind) else { return };
        word.decode_key(&mut (), error);
        if is_section && kind.is_none() && !self.sections.contains(&word.as_str()) {
            let sections = self.sections.join(", ");
            let message = format!("this file has no section {:?}; it knows {sections}", word.as_str());
            error.report_error(ParseError::new(message).with_unexpected(span));
        }
    }

    fn scalar(&mut self, span: Span, kind: Option<Encoding>, error: &mut dyn ErrorSink) {
        if let Some(word) = self.word(span, kind) {
            let _ = word.decode_scalar(&mut (), error);
        }
    }
}

/// The error as the parser of the whole file says it.
fn message(error: &ParseError) -> String {
    let expected = error.expected().unwrap_or_default().iter().filter_map(|expected| match expected {
        Expected::Literal("\n") => Some("newline".to_owned()),
        Expected::Literal(literal) => Some(format!("`{literal}`")),
        Expected::Description(description) => Some((*description).to_owned()),
        _ => None,
    });
    let expected: Vec<_> = expected.collect();
    let separator = if expected.is_empty() { "" } else { ", expected " };
    format!("{}{separator}{}", error.description(), expected.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::{
        super::{Config, DIAGNOSTICS_SHOWN_MAX},
        *,
    };

    fn refused(text: &str) -> (usize, Vec<String>) {
        let diagnostics = Config::parse(Path::new("z"), text.as_bytes()).unwrap_err();
        (diagnostics.count(), diagnostics.to_string().lines().map(str::to_owned).collect())
    }

    #[test]
    fn every_line_of_a_log_file_is_counted_and_a_hundred_are_shown() {
        let line = "2026-11-26T12:00:00Z  INFO alternator_dns: node joined zone=a. [worker 1] {x=\"y\"}\n";
        let (count, said) = refused(&line.repeat(5_000));
        assert_eq!((count, said.len()), (5_000, DIAGNOSTICS_SHOWN_MAX + 1));
        assert!(said[0].starts_with("z:1:") && said[99].starts_with("z:100:"), "{said:?}");
        assert_eq!(said[100], "z: and 4900 more");
        // The same from the parser of the whole file.
        let (count, said) = refused(&line.repeat(1_000));
        assert_eq!((count, said.len()), (1_000, DIAGNOSTICS_SHOWN_MAX + 1));
    }

    #[test]
    fn a_large_file_of_another_program_is_refused_by_its_sections() {
        let text: String =
            (0..10_000).map(|n| format!("[[package]]\nname = \"p{n}\"\nfiles = [\n \"a\",\n]\n")).collect();
        let (count, said) = refused(&text);
        assert_eq!(count, 10_000);
        assert!(said[0].starts_with("z:1:3: this file has no section \"package\""), "{}", said[0]);
    }

    #[test]
    fn a_list_without_an_end_is_not_kept_in_memory() {
        let (count, said) = refused(&format!("[zones.\"a\"]\nseeds = [\n{}]\n", "1,\n".repeat(200_000)));
        assert_eq!(count, 1);
        assert!(said[0].starts_with("z:2:1: what begins here has more words"), "{}", said[0]);
    }

    #[test]
    fn brackets_in_brackets_do_not_use_up_the_stack() {
        assert!(!refused(&format!("a = {}", "[".repeat(SCREENED_FROM))).1.is_empty());
    }

    #[test]
    fn a_large_good_file_passes() {
        let zones = |n| {
            format!(
                "[zones.\"z{n}.example\"]\nseeds = [\n  \"10.0.0.1\", # one\n]\ntls = {{ ca = \"x\" }}\nscheme = \"https\"\n"
            )
        };
        let text: String = (0..5_000).map(zones).collect();
        assert!(text.len() > SCREENED_FROM);
        assert_eq!(Config::parse(Path::new("z"), text.as_bytes()).unwrap().zones.len(), 5_000);
    }

    #[test]
    fn the_errors_of_values_are_bounded_too() {
        let text: String = (0..2_000).map(|n| format!("[zones.\"z{n}\"]\nseeds = [1, 2, 3]\n")).collect();
        let (count, said) = refused(&text);
        assert_eq!((count, said.len()), (6_000, DIAGNOSTICS_SHOWN_MAX + 1));
    }

    proptest! {
        #[test]
        fn a_file_that_the_whole_parser_accepts_has_no_error_here(
            lines in prop::collection::vec("(\\[[ab]{1,2}\\]|[ab]{1,2}\\.?[c\"'=\\[\\]{}#, 1-3x-z]{0,9}|\"\"\"|'''|\\[\\[z\\]\\])", 0..12)
        ) {
            let text = lines.join("\n");
            let (_, errors) = toml::de::DeTable::parse_recoverable(&text);
            let mut found = false;
            for expression in expressions(&text) {
                let Some(expression) = expression.whole() else { continue };
                check(&text[expression], &["a", "b", "aa", "ab", "ba", "bb", "z"], |_| found = true);
            }
            prop_assert!(!found || !errors.is_empty(), "{text}");
        }
    }
}

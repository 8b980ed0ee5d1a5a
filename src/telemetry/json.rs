//! JSON log lines: the library's own, and valid also when they are shortened.

use std::fmt;

use serde_json::Value;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
        time::SystemTime,
    },
    registry::LookupSpan,
};

use super::queue::{CUT_MARK, LINE_OCTETS_MAX};

/// The longest object: the line has a newline too, and under journald the level in front (`<6>`).
const OBJECT_OCTETS_MAX: usize = LINE_OCTETS_MAX - "<6>\n".len();

/// One object a line. The library's own format is generic in more ways than we need.
pub(super) struct JsonLines(Format<Json, SystemTime>);

impl JsonLines {
    pub(super) fn new() -> Self {
        Self(Format::default().json().flatten_event(true).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        let object = line.trim_end_matches('\n');
        match shortened(object) {
            Some(short) => writeln!(writer, "{short}"),
            None => writeln!(writer, "{object}"),
        }
    }
}

/// An object with its longest texts cut until it is short enough; `None` if it is. The queue would cut the line
/// anywhere, and what remains would not be JSON.
fn shortened(object: &str) -> Option<String> {
    if object.len() <= OBJECT_OCTETS_MAX {
        return None;
    }
    let mut value: Value = serde_json::from_str(object).ok()?;
    let mut text = object.to_owned();
    // Each round cuts another text, and only so many are in an object.
    while text.len() > OBJECT_OCTETS_MAX {
        let longest = longest_text(&mut value)?;
        if longest.len() <= CUT_MARK.len() {
            return None;
        }
        cut(longest, text.len() - OBJECT_OCTETS_MAX + CUT_MARK.len());
        text = value.to_string();
    }
    Some(text)
}

/// Removes so many octets of JSON, or all, from the end of a text, and marks it.
fn cut(text: &mut String, octets: usize) {
    let mut removed = 0;
    while removed < octets
        && let Some(last) = text.pop()
    {
        removed += match last {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..' ' => "\\u0000".len(),
            _ => last.len_utf8(),
        };
    }
    text.push_str(CUT_MARK);
}

/// The longest text of an object, and of the objects in it (the fields of a span).
fn longest_text(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::String(text) => Some(text),
        Value::Object(fields) => fields.values_mut().filter_map(longest_text).max_by_key(|text| text.len()),
        // The library writes no arrays but the list of spans, which is off.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(value: &Value) -> Value {
        let text = shortened(&value.to_string()).unwrap();
        assert!(text.len() <= OBJECT_OCTETS_MAX, "{}", text.len());
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_long_message_is_cut_and_the_other_fields_stay() {
        for message in ["x", "é", "\"", "\n", "\u{1}"] {
            let object =
                serde_json::json!({ "level": "INFO", "message": message.repeat(20_000), "span": { "zone": "a." } });
            let short = short(&object);
            assert_eq!((&short["level"], &short["span"]), (&object["level"], &object["span"]));
            let cut = short["message"].as_str().unwrap().strip_suffix(CUT_MARK).unwrap();
            assert!(object["message"].as_str().unwrap().starts_with(cut));
            let octets = short.to_string().len();
            assert!(octets > OBJECT_OCTETS_MAX - "\\u0000".len(), "no more is cut than must be: {octets}");
        }
    }

    #[test]
    fn the_longest_texts_are_cut_wherever_they_are() {
        let object = serde_json::json!({
            "message": "reload refused", "error": "e".repeat(9_000), "span": { "path": "p".repeat(30_000) }
        });
        let short = short(&object);
        assert_eq!(short["message"], "reload refused");
        assert!(short["error"].as_str().unwrap().ends_with(CUT_MARK));
        assert!(short["span"]["path"].as_str().unwrap().ends_with(CUT_MARK));
    }

    #[test]
    fn a_short_object_stays_as_it_is() {
        assert_eq!(shortened("{\"message\":\"m\"}"), None);
    }
}

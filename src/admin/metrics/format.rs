//! The formats of `/metrics`, and which one a client gets.
//!
//! OpenMetrics is for clients that ask for it (Prometheus does). Others get Prometheus' older text format, which every
//! tool reads: Telegraf, the Datadog agent, `promtool check metrics`.

use std::borrow::Cow;

/// A format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// The format for a client with these `Accept` headers: OpenMetrics only if it names it, and prefers no other.
    pub fn negotiate<'h>(headers: impl Iterator<Item = &'h str>) -> Self {
        let mut open_metrics = 0.0_f32;
        let mut text = None;
        let mut any = 0.0_f32;
        for range in headers.flat_map(|header| header.split(',')) {
            let Range { kind, version, quality } = Range::parse(range);
            match &*kind {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0" | "0.0.1")) => {
                    open_metrics = open_metrics.max(quality);
                }
                "text/plain" if matches!(version, None | Some("0.0.4")) => {
                    text = Some(quality.max(text.unwrap_or_default()));
                }
                "text/*" | "*/*" => any = any.max(quality),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text.unwrap_or(any) { Self::OpenMetrics } else { Self::Text }
    }

    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Writes OpenMetrics in this format.
    pub fn write(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => to_text(&open_metrics),
        }
    }
}

/// One entry of an `Accept` header (RFC 9110, 12.5.1).
struct Range<'h> {
    /// In lower case.
    kind: String,
    version: Option<&'h str>,
    quality: f32,
}

impl<'h> Range<'h> {
    fn parse(text: &'h str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Self { kind, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.trim().trim_matches('"')),
                // A quality that is no number counts as none.
                "q" => range.quality = value.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }
}

/// The same samples with the older format's lines about them: these name a counter with `_total`, know no info and no
/// unit, and have no end.
fn to_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.split_inclusive('\n') {
        if !line.starts_with('#') {
            text += line;
            continue;
        }
        let mut words = line.trim_end().splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), sentence) => help = Some((name, sentence.unwrap_or_default())),
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (name, kind) = in_text(name, kind);
                if let Some((_, sentence)) = help.take() {
                    text += &format!("# HELP {name} {sentence}\n");
                }
                text += &format!("# TYPE {name} {kind}\n");
            }
            _ => {}
        }
    }
    text
}

/// The name and the type of a family in the older format.
fn in_text<'f>(name: &'f str, kind: &'f str) -> (Cow<'f, str>, &'f str) {
    match kind {
        "counter" => (format!("{name}_total").into(), "counter"),
        "info" => (format!("{name}_info").into(), "gauge"),
        "unknown" => (name.into(), "untyped"),
        kind => (name.into(), kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_client_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let telegraf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
            q=0.7,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accepted, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.5,*/*;q=0.5", Format::OpenMetrics),
            (telegraf, Format::Text),
            (browser, Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text;version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("application/openmetrics-text;q=0.2,text/plain;q=0.3", Format::Text),
        ] {
            assert_eq!(Format::negotiate([accepted].into_iter()), format, "{accepted}");
        }
        assert_eq!(Format::negotiate(["*/*", "application/openmetrics-text"].into_iter()), Format::OpenMetrics);
        assert_eq!(Format::negotiate(std::iter::empty()), Format::Text);
    }

    #[test]
    fn text_names_counters_in_full_and_has_no_units_and_no_end() {
        let open_metrics = "# HELP a_b_c Queries.\n# TYPE a_b_c counter\na_b_c_total{x=\"# HELP\"} 1\n\
            # HELP d_seconds Time  spent.\n# TYPE d_seconds gauge\n# UNIT d_seconds seconds\nd_seconds 1.5\n\
            # HELP e This.\n# TYPE e info\ne_info{v=\"1 2\"} 1\n# EOF\n";
        let text = "# HELP a_b_c_total Queries.\n# TYPE a_b_c_total counter\na_b_c_total{x=\"# HELP\"} 1\n\
            # HELP d_seconds Time  spent.\n# TYPE d_seconds gauge\nd_seconds 1.5\n\
            # HELP e_info This.\n# TYPE e_info gauge\ne_info{v=\"1 2\"} 1\n";
        assert_eq!(Format::Text.write(open_metrics.to_owned()), text);
        assert_eq!(Format::OpenMetrics.write(open_metrics.to_owned()), open_metrics);
    }

    proptest! {
        #[test]
        fn no_header_panics(header in "([a-z/*]{0,30}[;,= ]{0,3}(q|version)?=?[0-9.]{0,5}|\\PC{0,40}){0,4}") {
            let _ = Format::negotiate([&*header].into_iter());
        }
    }
}

//! Log lines: to standard error, as text for people or as JSON for machines.
//!
//! Under journald a line of text carries no time, because the journal has its own clock, and a prefix that the journal
//! removes (`<6>`, see sd-daemon(3)) gives it the level.

mod interval;
mod json;
mod level;
mod queue;

use std::{env, fmt, fs, os::unix::fs::MetadataExt as _, str::FromStr};

use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

pub use self::interval::LogInterval;
pub use self::level::{NoLog, replace_filter, restore_filter};
pub use self::queue::{flush, log_lines_dropped, write_last};
use self::{json::JsonLines, level::Replace};

/// What is logged by default.
const DEFAULT_DIRECTIVES: &str = "alternator_dns=info";

/// Libraries are silent until a filter names them: they write a line for each odd packet or frame of any sender.
const LIBRARIES: &str = "off";

/// How lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// `2026-11-23T06:00:00.123Z INFO zone=alternator.east.example. node joined node=10.0.0.1`
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// A text that is no [`LogFormat`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no log format; there are \"text\" and \"json\"")]
pub struct FormatError(String);

impl FromStr for LogFormat {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(FormatError(text.to_owned())),
        }
    }
}

/// Which events are logged.
#[derive(Debug)]
pub struct LogFilter {
    /// What it was parsed from.
    directives: String,
    filter: EnvFilter,
}

/// Why a text is no [`LogFilter`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{origin}: {part:?} is no log filter; write a level (off, error, warn, info, debug, trace), \
     or target=level, several separated by commas"
)]
pub struct FilterError {
    /// Where the text came from.
    pub origin: &'static str,
    /// The part of it that cannot be read.
    pub part: String,
}

impl LogFilter {
    /// The filter that `--log` asks for, else the one in `$RUST_LOG`, else `info`. A level alone is this program's;
    /// a library logs when its name is given.
    ///
    /// # Errors
    /// A part that is neither a level nor `target=level`. A level alone is checked: a misspelt one would otherwise be
    /// taken for the name of a target.
    pub fn choose(argument: Option<&str>) -> Result<Self, FilterError> {
        let variable = env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
        match (argument, variable) {
            (Some(text), _) => Self::parse("--log", text),
            (None, Some(text)) => Self::parse("RUST_LOG", &text),
            (None, None) => Self::parse("default", DEFAULT_DIRECTIVES),
        }
    }

    fn parse(origin: &'static str, text: &str) -> Result<Self, FilterError> {
        let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
        let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        for part in &parts {
            let named = part.contains(['=', '[']) && part.parse::<tracing_subscriber::filter::Directive>().is_ok();
            if !named && !is_level(part) {
                return Err(FilterError { origin, part: (*part).to_owned() });
            }
        }
        // A filter that names only libraries leaves this program as by default.
        let base = if parts.iter().any(|part| is_level(part)) { "" } else { DEFAULT_DIRECTIVES };
        let ours = |part: &str| format!("{}={part}", env!("CARGO_CRATE_NAME"));
        let parts = parts.iter().map(|part| if is_level(part) { ours(part) } else { (*part).to_owned() });
        let directives = [LIBRARIES.to_owned(), base.to_owned()].into_iter().chain(parts).collect::<Vec<_>>().join(",");
        // Several directives can only fail together when a part spans a comma, as `[{a,b}]` does.
        let filter =
            EnvFilter::builder().parse(&directives).map_err(|_| FilterError { origin, part: text.to_owned() })?;
        Ok(Self { directives, filter })
    }
}

/// Starts logging, on a thread of its own. A second call changes nothing: what the first one set up stays.
///
/// # Errors
/// The system refuses the thread.
pub fn init(format: LogFormat, filter: LogFilter) -> std::io::Result<()> {
    let journal = stderr_is_journal(env::var("JOURNAL_STREAM").ok().as_deref());
    let color = !journal && wants_color(&std::io::stderr());
    let queue = queue::start()?;
    let start = filter.directives.clone();
    let (dispatch, replace) = dispatch(format, filter, journal, color, queue);
    if tracing::dispatcher::set_global_default(dispatch).is_err() {
        tracing::debug!("logging has started before");
    } else {
        level::set_start(start, replace);
    }
    Ok(())
}

/// Whether text for this output may have colors: it is a terminal, and `NO_COLOR` is unset or empty (no-color.org).
pub fn wants_color(output: &impl std::io::IsTerminal) -> bool {
    env::var_os("NO_COLOR").is_none_or(|text| text.is_empty()) && output.is_terminal()
}

/// Logs a failure with its reason. A reason of several lines, such as the errors of a file, becomes as many lines of the
/// log after the headline: in one line they could not be read.
pub fn log_error_lines(headline: &str, reason: &str) {
    if !reason.contains('\n') {
        return tracing::error!("{headline}: {reason}");
    }
    tracing::error!("{headline}: the next lines say why");
    for line in reason.lines() {
        tracing::error!("{line}");
    }
}

fn dispatch<W>(format: LogFormat, filter: LogFilter, journal: bool, color: bool, writer: W) -> (Dispatch, Replace)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A line that cannot be written is lost. The library would report that on standard error, where the line could not go.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter.filter)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let lines = Prefixed { journal, inner: TextLines { time: !journal, color } };
            let builder = builder.fmt_fields(TextFields).event_format(lines).with_filter_reloading();
            let replace = level::replace_through(builder.reload_handle());
            (builder.into(), replace)
        }
        LogFormat::Json => {
            let lines = Prefixed { journal, inner: JsonLines::new() };
            let builder = builder.fmt_fields(JsonFields::new()).event_format(lines).with_filter_reloading();
            let replace = level::replace_through(builder.reload_handle());
            (builder.into(), replace)
        }
    }
}

/// Whether standard error is the socket that systemd says it connected to the journal.
fn stderr_is_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|text| text.split_once(':')) else {
        return false;
    };
    fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| device == stderr.dev().to_string() && inode == stderr.ino().to_string())
}

/// Puts the level in front, as the journal reads it.
struct Prefixed<F> {
    journal: bool,
    inner: F,
}

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        self.inner.format_event(ctx, writer, event)
    }
}

/// The syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Time, level, the fields of the spans around, the message, the fields of the event.
struct TextLines {
    time: bool,
    color: bool,
}

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if self.time {
            write!(writer, "{} ", milliseconds_now()?)?;
        }
        match color_of(*metadata.level()).filter(|_| self.color) {
            Some(color) => write!(writer, "\x1b[{color}m{}\x1b[0m", metadata.level())?,
            None => write!(writer, "{}", metadata.level())?,
        }
        if !metadata.target().starts_with(env!("CARGO_CRATE_NAME")) {
            write!(writer, " {}:", metadata.target())?;
        }
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                write!(writer, " {fields}")?;
            }
        }
        writer.write_char(' ')?;
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// RFC 3339 in UTC, to the millisecond.
fn milliseconds_now() -> Result<String, fmt::Error> {
    /// `2026-11-23T06:00:00.123`; the library would write microseconds.
    const LENGTH: usize = 23;
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text))?;
    text.truncate(LENGTH);
    Ok(text + "Z")
}

/// The SGR parameter for a level; `INFO` is the ordinary and stays plain.
fn color_of(level: Level) -> Option<u8> {
    match level {
        Level::ERROR => Some(31),
        Level::WARN => Some(33),
        Level::INFO => None,
        Level::DEBUG | Level::TRACE => Some(2),
    }
}

/// The message, then `key=value` for each other field. A value with a space in it is quoted, and nothing breaks the line.
struct TextFields;

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut text = FieldText::default();
        fields.record(&mut text);
        let space = if text.message.is_empty() || text.rest.is_empty() { "" } else { " " };
        write!(writer, "{}{space}{}", text.message, text.rest)
    }
}

#[derive(Default)]
struct FieldText {
    message: String,
    rest: String,
}

impl FieldText {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_escaped(&mut self.message, value);
            return;
        }
        if !self.rest.is_empty() {
            self.rest.push(' ');
        }
        self.rest.push_str(field.name());
        self.rest.push('=');
        let already_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        if !already_quoted && (value.is_empty() || value.contains([' ', '"', '='])) {
            // Debug of a text escapes what it must.
            self.rest.push_str(&format!("{value:?}"));
        } else {
            push_escaped(&mut self.rest, value);
        }
    }
}

impl Visit for FieldText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Appends a text so that it can neither move the cursor nor end the line.
fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

/// Sets a subscriber that accepts every line, so that a test can capture lines: without one, tracing disables a line for
/// good when another test logs it first.
#[cfg(test)]
pub(crate) fn keep_every_line() {
    let everything = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(std::io::sink);
    // Another test may have been first; then it is done.
    let _ = tracing::subscriber::set_global_default(everything.finish());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    /// Keeps what was logged.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, journal: bool, color: bool, say: impl FnOnce()) -> String {
        let paper = Paper::default();
        let writer = paper.clone();
        let filter = LogFilter::parse("--log", filter).unwrap();
        keep_every_line();
        let (dispatch, _) = dispatch(format, filter, journal, color, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, say);
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn a_node_joins() {
        let _zone = tracing::info_span!("poller", zone = %"alternator.east.example.").entered();
        tracing::info!(node = %"10.0.0.1", "node joined");
    }

    #[test]
    fn a_line_reads_like_a_sentence() {
        let text = logged(LogFormat::Text, "info", false, false, a_node_joins);
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!(rest, "INFO zone=alternator.east.example. node joined node=10.0.0.1\n");
        assert_eq!((time.len(), &time[4..5], &time[10..11], &time[19..20], &time[23..]), (24, "-", "T", ".", "Z"));
    }

    #[test]
    fn the_journal_is_reported_the_level_and_no_time() {
        let levels = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
        };
        let text = logged(LogFormat::Text, "trace", true, false, levels);
        assert_eq!(text, "<3>ERROR e\n<4>WARN w\n<6>INFO i\n<7>DEBUG d\n");
        let json = logged(LogFormat::Json, "info", true, false, a_node_joins);
        assert!(json.starts_with("<6>{"), "{json}");
    }

    #[test]
    fn a_terminal_sees_color_where_something_is_wrong() {
        let text = logged(LogFormat::Text, "info", true, true, || {
            tracing::warn!("w");
            tracing::info!("i");
        });
        assert_eq!(text, "<4>\x1b[33mWARN\x1b[0m w\n<6>INFO i\n");
    }

    #[test]
    fn a_filter_is_replaced_while_the_log_is_written() {
        let paper = Paper::default();
        let writer = paper.clone();
        keep_every_line();
        let filter = LogFilter::parse("--log", "info").unwrap();
        let (dispatch, replace) = dispatch(LogFormat::Text, filter, true, false, move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            for level in ["info", "debug", "info"] {
                replace(LogFilter::of_command(level).unwrap().filter).unwrap();
                tracing::debug!("at {level}");
            }
        });
        assert_eq!(String::from_utf8(paper.0.lock().unwrap().clone()).unwrap(), "<7>DEBUG at debug\n");
    }

    #[test]
    fn each_line_of_a_reason_is_a_line_of_the_log() {
        let text = logged(LogFormat::Text, "info", true, false, || {
            log_error_lines("refused", "a.toml:1:1: one");
            log_error_lines("refused", "a.toml:1:1: one\na.toml:2:1: two");
        });
        let expected = "<3>ERROR refused: a.toml:1:1: one\n<3>ERROR refused: the next lines say why\n\
                        <3>ERROR a.toml:1:1: one\n<3>ERROR a.toml:2:1: two\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn values_cannot_break_the_line() {
        let text = logged(LogFormat::Text, "info", true, false, || {
            tracing::info!(error = %"no route to host", name = "a", odd = %"x\n<3>y\x1b[2J", empty = "", "first\nsecond");
        });
        assert_eq!(
            text,
            "<6>INFO first\\nsecond error=\"no route to host\" name=a odd=x\\n<3>y\\u{1b}[2J empty=\"\"\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, "info", false, false, a_node_joins);
        let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "node joined");
        assert_eq!(line["node"], "10.0.0.1");
        assert_eq!(line["span"]["zone"], "alternator.east.example.");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_long_json_line_is_cut_and_stays_json() {
        let text = logged(LogFormat::Json, "info", true, false, || {
            let _zone = tracing::info_span!("poller", zone = %"a.example.").entered();
            tracing::error!(node = %"10.0.0.1", "{}", "an \"é\" of many\n".repeat(2_000));
        });
        assert!(text.len() <= queue::LINE_OCTETS_MAX && text.len() > queue::LINE_OCTETS_MAX / 2, "{}", text.len());
        let line: serde_json::Value = serde_json::from_str(text.strip_prefix("<3>").unwrap()).unwrap();
        assert!(line["message"].as_str().unwrap().starts_with("an \"é\" of many\nan"));
        assert!(line["message"].as_str().unwrap().ends_with(queue::CUT_MARK));
        assert_eq!((&line["node"], &line["span"]["zone"]), (&"10.0.0.1".into(), &"a.example.".into()));
    }

    #[test]
    fn libraries_are_silent_until_they_are_named() {
        let speak = || {
            tracing::error!(target: "hickory_proto::op", "odd packet");
            tracing::warn!(target: "h2::proto::streams::recv", "recv_reset; remotely-reset pending-accept streams");
            tracing::info!(target: "notify", "chatter");
            tracing::info!("ours");
        };
        let lines = |filter| logged(LogFormat::Text, filter, true, false, speak).lines().count();
        assert_eq!(lines(DEFAULT_DIRECTIVES), 1);
        assert_eq!(lines("debug"), 1);
        assert_eq!(lines("hickory_proto=warn"), 2, "the rest as usual");
        assert_eq!(lines("h2=warn,debug,notify=info"), 3);
        assert_eq!(lines("off"), 0);
    }

    #[test]
    fn a_bad_filter_is_refused_with_its_part() {
        let refused = |text| LogFilter::parse("--log", text).unwrap_err().part;
        assert_eq!(refused("inof"), "inof");
        assert_eq!(refused("info,hyper=loud"), "hyper=loud");
        assert_eq!(refused("info, deubg"), "deubg");
        for good in
            ["", "info", "WARN", "debug,hyper=trace", "alternator_dns::discovery=trace", "alternator_dns[poller]"]
        {
            assert!(LogFilter::parse("--log", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn only_the_very_socket_is_the_journal() {
        let stderr = fs::metadata("/proc/self/fd/2").unwrap();
        assert!(stderr_is_journal(Some(&format!("{}:{}", stderr.dev(), stderr.ino()))));
        assert!(!stderr_is_journal(Some(&format!("{}:{}", stderr.dev(), stderr.ino() + 1))));
        assert!(!stderr_is_journal(Some("nonsense")));
        assert!(!stderr_is_journal(None));
    }
}

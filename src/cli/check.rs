//! `alternator-dns check`.

use std::{
    fmt,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{ConfigArguments, Failure, included, plural, print};
use crate::{
    config::{Config, Diagnostics, FILE_OCTETS_MAX, NodeLoad, RawFile, node_loads},
    net::watched::{ReadError, ReadFailure, read_any, read_regular},
    reload::ConfigFiles,
    server::has_address,
    snapshot::LastGood,
    supervisor::{file_warnings, state_directories},
    systemd::unit::ServiceUnit,
    telemetry::wants_color,
};

/// The state directory of the packaged service, for `check --last-good` outside of it.
const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/alternator-dns";

/// The argument that stands for standard input, and how reports name that.
pub(super) const STDIN_ARGUMENT: &str = "-";
pub(super) const STDIN_NAME: &str = "<stdin>";

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ConfigArguments,
    /// The configuration file, in place of --config; "-" reads standard input
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// How to report: text for people, json for programs, github for annotations of a workflow
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,
    /// Check the last good configuration in place of the file: the one that a start with a refused file would serve
    #[arg(long)]
    pub last_good: bool,
}

/// How `check` reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ReportFormat {
    /// Sentences.
    #[default]
    Text,
    /// One object.
    Json,
    /// Commands of a GitHub workflow, which become annotations of the file.
    Github,
}

/// A text that is no [`ReportFormat`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no format of a report; there are \"text\", \"json\" and \"github\"")]
pub struct ReportFormatError(String);

impl FromStr for ReportFormat {
    type Err = ReportFormatError;

    fn from_str(text: &str) -> Result<Self, ReportFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "github" => Ok(Self::Github),
            _ => Err(ReportFormatError(text.to_owned())),
        }
    }
}

/// `alternator-dns check`.
///
/// # Errors
/// The file, or the last good configuration, cannot be read or has errors.
pub fn check(arguments: &CheckArguments) -> Result<(), Failure> {
    let path = arguments.file.as_ref().unwrap_or(&arguments.config.config);
    let files = read(path);
    let name = if path.as_os_str() == STDIN_ARGUMENT { Path::new(STDIN_NAME) } else { path };
    let config = match files {
        files if arguments.last_good => last_good(files.ok().as_ref().and_then(ConfigFiles::main)),
        files => files.map_err(Failure::from).and_then(|files| Ok(files.parse()?)),
    };
    let config = match config {
        Ok(config) => config,
        Err(failure) => return Err(report_failure(arguments.format, name, failure)),
    };
    let mut warnings = warnings(&config, tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let is_stdin = path.as_os_str() == STDIN_ARGUMENT;
    warnings.extend(Some(path).filter(|_| !is_stdin).and_then(|path| included::main_file_of(path)).map(|main| {
        let main = main.display();
        format!(
            "this file is included by {main}, and lacks the [defaults] there: `alternator-dns check {main}` checks both"
        )
    }));
    let report = match arguments.format {
        ReportFormat::Text => {
            let word = if wants_color(&io::stdout()) { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
            let warnings: String = warnings.iter().map(|warning| format!("{word} {warning}\n")).collect();
            format!("{warnings}{}", Summary(&config))
        }
        ReportFormat::Json => json_report(name, Some(&config.hash), vec![], &warnings),
        ReportFormat::Github => {
            let lines = warnings.iter().map(|warning| annotation("warning", name, None, warning));
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    if !report.is_empty() {
        print(&report)?;
    }
    Ok(())
}

/// What is allowed but probably not meant, also of the files that the configuration names.
pub(super) fn warnings(config: &Config, runtime: Runtime) -> Vec<String> {
    let unusable = runtime.block_on(file_warnings(config, ServiceUnit::installed().as_ref()));
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    config.warnings().into_iter().chain(absent_addresses(config)).chain(unusable).collect()
}

/// A file, or standard input, and the files that it includes.
pub(super) fn read(path: &Path) -> Result<ConfigFiles, ReadError> {
    let main = if path.as_os_str() == STDIN_ARGUMENT {
        RawFile { path: STDIN_NAME.into(), octets: read_stdin()? }
    } else {
        RawFile { path: path.into(), octets: read_any(path, FILE_OCTETS_MAX)? }
    };
    Ok(ConfigFiles::of_main(main))
}

/// The same for a command that must not wait for a pipe.
pub(super) fn read_regular_files(path: &Path) -> Result<ConfigFiles, ReadError> {
    if path.as_os_str() == STDIN_ARGUMENT {
        return read(path);
    }
    let failed = |reason| match reason {
        ReadFailure::NotRegular => {
            ReadFailure::Other("it is not a regular file; \"-\" reads standard input".to_owned())
        }
        reason => reason,
    };
    let content = read_regular(path, FILE_OCTETS_MAX);
    let content = content.map_err(|reason| ReadError { path: path.into(), reason: failed(reason) })?;
    Ok(ConfigFiles::of_main(RawFile { path: path.into(), octets: content.octets }))
}

fn read_stdin() -> Result<Vec<u8>, ReadError> {
    let failed = |reason| ReadError { path: STDIN_NAME.into(), reason };
    let mut octets = Vec::new();
    io::stdin().take(FILE_OCTETS_MAX + 1).read_to_end(&mut octets).map_err(|error| failed(error.into()))?;
    if octets.len() as u64 > FILE_OCTETS_MAX {
        return Err(failed(ReadFailure::TooLarge(FILE_OCTETS_MAX)));
    }
    Ok(octets)
}

/// Prints what is wrong for programs, after which one sentence is left to say; text is printed by the caller.
fn report_failure(format: ReportFormat, file: &Path, failure: Failure) -> Failure {
    let errors = match &failure {
        Failure::Config(diagnostics) => errors(file, diagnostics),
        Failure::Unreadable(error) if error.path != file => vec![(&*error.path, None, failure.to_string())],
        other => vec![(file, None, other.to_string())],
    };
    let report = match format {
        ReportFormat::Text => return failure,
        ReportFormat::Json => {
            let errors = errors.into_iter().map(|(file, place, message)| {
                let (line, column) = place.unzip();
                json!({ "file": file.to_string_lossy(), "line": line, "column": column, "message": message })
            });
            json_report(file, None, errors.collect(), &[])
        }
        ReportFormat::Github => {
            let lines = errors.iter().map(|(file, place, message)| annotation("error", file, *place, message));
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    if let Err(unwritten) = print(&report) {
        return unwritten;
    }
    match failure {
        Failure::Config(diagnostics) => Failure::Reported(diagnostics.count()),
        other => other,
    }
}

/// An error: its file, line and column where they are known, and the message.
type Reported<'f> = (&'f Path, Option<(usize, usize)>, String);

fn errors<'f>(main: &'f Path, diagnostics: &'f Diagnostics) -> Vec<Reported<'f>> {
    let shown = diagnostics.list().iter();
    let mut list: Vec<Reported<'_>> =
        shown.map(|one| (&*one.file, Some((one.line, one.column)), one.message.clone())).collect();
    let more = diagnostics.count().saturating_sub(list.len());
    if more > 0 {
        list.push((main, None, format!("and {more} more")));
    }
    list
}

fn json_report(file: &Path, hash: Option<&str>, errors: Vec<Value>, warnings: &[String]) -> String {
    let report = json!({
        "file": file.to_string_lossy(), "good": hash.is_some(), "hash": hash, "errors": errors, "warnings": warnings
    });
    report.to_string()
}

/// A workflow command. Its message may contain anything but line breaks; its properties neither colons nor commas.
fn annotation(level: &str, file: &Path, place: Option<(usize, usize)>, message: &str) -> String {
    let escaped = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let file = escaped(&file.to_string_lossy()).replace(':', "%3A").replace(',', "%2C");
    let place = place.map_or_else(String::new, |(line, column)| format!(",line={line},col={column}"));
    format!("::{level} file={file}{place}::{}", escaped(message))
}

/// Errors for a terminal: `file:line:col:` of each line is set off from its sentence.
pub(super) fn colored(errors: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((place, sentence)) => format!("\x1b[1;31m{place}:\x1b[0m {sentence}"),
        None => line.to_owned(),
    };
    errors.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What a start would serve if the file, which contains this, were refused.
fn last_good(content: Option<&[u8]>) -> Result<Config, Failure> {
    let directories = state_directories(content);
    let directories = if directories.is_empty() { vec![PathBuf::from(DEFAULT_STATE_DIRECTORY)] } else { directories };
    for directory in &directories {
        let path = LastGood::path(directory);
        let failed = |error| Failure::LastGood { path: path.clone(), error };
        if let Some(last_good) = LastGood::read(directory).map_err(failed)? {
            return last_good.config().map_err(failed);
        }
    }
    Err(Failure::NoLastGood(directories.into_iter().next_back().unwrap_or_default()))
}

/// A sentence for each address that no interface of this machine has.
fn absent_addresses(config: &Config) -> Vec<String> {
    let listen = config.server.listen.iter().filter(|_| !config.server.listen_by_default);
    let secure = config.server.encryption.iter().flat_map(|encryption| &encryption.listen).map(|(_, address)| address);
    let absent = listen.chain(secure).filter(|address| !has_address(**address));
    absent
        .map(|address| format!("no interface of this machine has the address of {address} now; is it right?"))
        .collect()
}

/// A good file in a few lines.
struct Summary<'c>(&'c Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { server, forward, zones, hash, .. } = self.0;
        let listen: Vec<_> = server.listen.iter().map(ToString::to_string).collect();
        let admin = server.admin.map_or_else(|| "off".into(), |address| format!("http://{address}/"));
        let seeds: usize = zones.values().map(|zone| zone.cluster.seeds.len()).sum();
        writeln!(f, "The configuration is good ({hash}).")?;
        writeln!(f, "listen  {}", listen.join(", "))?;
        writeln!(f, "admin   {admin}")?;
        if let Some(forward) = forward {
            let upstreams: Vec<_> = forward.upstreams.iter().map(ToString::to_string).collect();
            writeln!(f, "forward {}", upstreams.join(", "))?;
        }
        let words = (plural(zones.len(), "zone"), plural(seeds, "seed"));
        write!(f, "zones   {} with {} in all", words.0, words.1)?;
        let most = node_loads(zones).iter().map(NodeLoad::total).fold(0.0, f64::max);
        write!(
            f,
            "\nload    at most {most:.1} requests a second to a node, if a cluster has as many nodes as seeds here"
        )?;
        for (name, zone) in zones.iter().take(ZONES_LISTED_MAX) {
            let seeds: Vec<_> = zone.cluster.seeds.iter().map(ToString::to_string).collect();
            let ttl = zone.ttl.as_secs();
            let refresh = zone.refresh;
            write!(
                f,
                "\n  {name} port {} ttl {ttl}s refresh {refresh:?} from {}",
                zone.cluster.port,
                seeds.join(", ")
            )?;
        }
        match zones.len().saturating_sub(ZONES_LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Zones that `check` lists one by one; more than a screenful is counted.
const ZONES_LISTED_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn colors_set_the_place_off() {
        let text = "a.toml:1:2: no key \"x\": why\na.toml: and 3 more";
        let colored = colored(text);
        assert_eq!(colored, "\x1b[1;31ma.toml:1:2:\x1b[0m no key \"x\": why\n\x1b[1;31ma.toml:\x1b[0m and 3 more");
    }

    proptest! {
        #[test]
        fn an_annotation_is_one_line_whose_parts_can_be_distinguished(file in "\\PC{1,20}|a[:,%\r\n]b", message in "(.|\n|\r|%|::){0,40}") {
            let line = annotation("error", Path::new(&file), Some((3, 7)), &message);
            prop_assert!(!line.contains(['\n', '\r']));
            let (properties, written) = line.strip_prefix("::error file=").unwrap().split_once("::").unwrap();
            prop_assert_eq!(properties.split(',').skip(1).collect::<Vec<_>>(), ["line=3", "col=7"]);
            // In the order of GitHub: the percent sign last.
            let decode = |text: &str| {
                let text = text.replace("%0A", "\n").replace("%0D", "\r").replace("%3A", ":").replace("%2C", ",");
                text.replace("%25", "%")
            };
            prop_assert_eq!(decode(written), message);
            let named = properties.split(',').next().unwrap_or_default();
            prop_assert_eq!(decode(named), file);
        }
    }
}

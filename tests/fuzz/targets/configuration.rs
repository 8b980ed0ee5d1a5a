//! A configuration, of one file or of several: a diagnostic is always a sentence about a place in it, and what is accepted can be served.

#![no_main]

use alternator_dns::config::{Config, DIAGNOSTICS_SHOWN_MAX, Diagnostic, RawFile, includes_of};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    check(vec![RawFile { path: "fuzz.toml".into(), octets: content.into() }]);
    // No text has a NUL, so what is between two of them are the files of one configuration.
    if content.contains(&0) {
        let file =
            |(number, octets): (usize, &[u8])| RawFile { path: number.to_string().into(), octets: octets.into() };
        check(content.split(|octet| *octet == 0).take(FILES_MAX).enumerate().map(file).collect());
    }
    let _ = includes_of(content);
});

/// Files of one configuration that are tried at once.
const FILES_MAX: usize = 8;

fn check(files: Vec<RawFile>) {
    match Config::parse_files(&files) {
        Ok(config) => check_config(&config),
        Err(diagnostics) => {
            assert!(!diagnostics.list().is_empty(), "refused without a reason");
            for diagnostic in diagnostics.list() {
                let file = files.iter().find(|file| file.path == *diagnostic.file).expect("it names one of the files");
                check_diagnostic(diagnostic, &readable(&file.octets));
            }
            assert!(diagnostics.list().len() <= diagnostics.count().min(DIAGNOSTICS_SHOWN_MAX));
        }
    }
}

fn check_config(config: &Config) {
    assert!(!config.zones.is_empty() && !config.server.listen.is_empty());
    for (name, zone) in &config.zones {
        assert!(!zone.cluster.seeds.is_empty(), "{name} has no seeds");
        assert!(!zone.refresh.is_zero() && !zone.timeout.is_zero(), "{name} would poll without a pause");
    }
    let _ = config.warnings();
}

/// It lies in the text, or right behind a line's last character, and takes one line on a screen.
fn check_diagnostic(diagnostic: &Diagnostic, text: &str) {
    let Diagnostic { line, column, message, .. } = diagnostic;
    let there = line.checked_sub(1).and_then(|above| text.split('\n').nth(above));
    let length = there.unwrap_or_else(|| panic!("there is no line {line}: {message}")).chars().count();
    assert!((1..=length + 1).contains(column), "line {line} has no column {column}: {message}");
    assert!(!message.is_empty() && !message.contains(char::is_control), "{message:?}");
}

/// As much of the content as is text.
fn readable(content: &[u8]) -> String {
    let end = std::str::from_utf8(content).map_or_else(|error| error.valid_up_to(), str::len);
    // A byte order mark is no character of the first line.
    let text = String::from_utf8_lossy(&content[..end]);
    text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned()
}

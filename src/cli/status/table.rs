//! The table of `status`. Pure.

use std::fmt::Write as _;

use super::document::{Document, View, Zone};
use crate::admin::client::escape_controls;

/// How the table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Appearance {
    /// With colors.
    pub colors: bool,
    /// The lines of a screen that the table must fit on; `None`: no limit.
    pub lines: Option<usize>,
}

/// The names of the columns; the last one has any width.
const HEADINGS: [&str; 5] = ["ZONE", "STATE", "NODES", "SINCE", "REASON"];

/// Lines that no zone takes: about the server, about all zones, the headings, and zones that do not fit.
const OTHER_LINES: usize = 4;

/// Drains that are shown; `drain --list` shows all.
const DRAINS_SHOWN_MAX: usize = 5;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

/// Writes what a server does, one line for each zone.
pub fn render(document: &Document, appearance: Appearance) -> String {
    let (mut text, mut diagnostics) = heading(document, appearance.colors);
    for address in &document.config.absent_addresses {
        let _ =
            writeln!(diagnostics, "this host does not have the address {address} in listen: no query arrives there");
    }
    text += &diagnostics;
    let secondaries = document.secondaries();
    let extra = drains(document) + &secondaries.iter().map(|line| format!("{line}\n")).collect::<String>();
    text += &extra;
    let diagnostics_lines = diagnostics.lines().count() + extra.lines().count();
    let zones = document.worst_first();
    let states: Vec<String> = document.states().iter().map(|(state, count)| format!("{count} {state}")).collect();
    let word = if zones.len() == 1 { "zone" } else { "zones" };
    let _ = writeln!(text, "{} {word}: {}", zones.len(), escape_controls(&states.join(", ")));
    let fitting =
        appearance.lines.map_or(usize::MAX, |lines| lines.saturating_sub(OTHER_LINES + diagnostics_lines).max(1));
    let mut rows: Vec<[String; 5]> = Vec::new();
    let mut shown = 0;
    for zone in &zones {
        let views = zone.views.iter().map(view_row);
        // One zone is shown at least, and with each zone its views.
        if shown > 0 && rows.len() + 1 + views.len() > fitting {
            break;
        }
        rows.push(row(zone));
        rows.extend(views);
        shown += 1;
    }
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default().max(HEADINGS[column].len())
    });
    write_row(&mut text, &HEADINGS.map(str::to_owned), &widths, "");
    for row in &rows {
        let color = if appearance.colors { color(&row[1]) } else { "" };
        write_row(&mut text, row, &widths, color);
    }
    if zones.len() > shown {
        let _ = writeln!(text, "and {} more that do not fit", zones.len() - shown);
    }
    text
}

/// The first line, and why the file is refused.
fn heading(document: &Document, colors: bool) -> (String, String) {
    let config = &document.config;
    let server = escape_controls(&document.server().to_string());
    let hash = escape_controls(&config.hash);
    let seconds = config.loaded_seconds_ago;
    let Some(error) = &config.error else {
        return (format!("{server}: configuration {hash}, in force for {seconds:.0} s\n"), String::new());
    };
    let (red, reset) = if colors { (RED, RESET) } else { ("", "") };
    let line = format!(
        "{server}: {red}AN OLDER CONFIGURATION THAN THE FILE IS SERVED{reset} ({hash}, in force for {seconds:.0} s), \
         because the file is refused:\n"
    );
    let diagnostics = escape_controls(error).lines().map(|line| format!("  {line}\n")).collect();
    (line, diagnostics)
}

/// The nodes that are taken out of the answers, if any is.
fn drains(document: &Document) -> String {
    let all = &document.drains;
    let shown: Vec<_> =
        all.iter().take(DRAINS_SHOWN_MAX).map(|drain| format!("{} until {}", drain.place(), drain.until)).collect();
    match all.len().saturating_sub(DRAINS_SHOWN_MAX) {
        _ if all.is_empty() => String::new(),
        0 => format!("drained: {}\n", escape_controls(&shown.join("; "))),
        more => format!("drained: {}; and {more} more\n", escape_controls(&shown.join("; "))),
    }
}

fn row(zone: &Zone) -> [String; 5] {
    let texts = [&zone.name, &zone.state, &zone.counts(), &zone.since, zone.reason.as_deref().unwrap_or_default()];
    texts.map(|text: &str| escape_controls(text).replace('\n', " "))
}

/// A view, below its zone.
fn view_row(view: &View) -> [String; 5] {
    let addresses = match view.addresses.len() {
        0 => "the zone's".to_owned(),
        count => count.to_string(),
    };
    let name = format!("  view {}", view.name);
    let texts = [&name, &view.state, &addresses, &view.since, view.reason.as_deref().unwrap_or_default()];
    texts.map(|text: &str| escape_controls(text).replace('\n', " "))
}

fn write_row(text: &mut String, row: &[String; 5], widths: &[usize; 5], color: &str) {
    let mut line = String::new();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()) + 2);
        match column {
            1 if !color.is_empty() => line += &format!("{color}{cell}{RESET}{padding}"),
            _ => line += &format!("{cell}{padding}"),
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn color(state: &str) -> &'static str {
    match state {
        "live" => GREEN,
        "unanswered" | "stale" => RED,
        _ => YELLOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(error: Option<&str>) -> Document {
        let zone = |name: &str, state: &str, nodes: &[bool], reason: Option<&str>| {
            let nodes: Vec<_> = nodes.iter().map(|answered| serde_json::json!({ "answered": answered })).collect();
            let answers = if nodes.is_empty() && state == "waiting" { vec!["10.0.0.9"] } else { Vec::new() };
            serde_json::json!({
                "name": name, "state": state, "reason": reason, "since": "2026-11-26T05:12:09Z",
                "answers": answers, "nodes": nodes,
            })
        };
        let document = serde_json::json!({
            "zones": [
                zone("a.example.", "live", &[true, true], None),
                zone("b.example.", "waiting", &[], Some("refused\u{1b}[2J")),
                zone("c.example.", "live", &[true, false], None),
                zone("d.example.", "unanswered", &[false], Some("no node passes\nthe rules")),
                zone("e.example.", "stale", &[true], Some("timed out")),
            ],
            "config": { "path": "/etc/a.toml", "hash": "0123", "loaded_seconds_ago": 12.4, "error": error },
            "server": { "pid": 42 },
        });
        Document::parse(&document.to_string()).unwrap()
    }

    #[test]
    fn the_worst_zones_come_first_and_columns_are_aligned() {
        let expected = "\
process 42 with the file /etc/a.toml: configuration 0123, in force for 12 s
5 zones: 1 unanswered, 1 stale, 1 waiting, 2 live
ZONE        STATE       NODES   SINCE                 REASON
d.example.  unanswered  0/1     2026-11-26T05:12:09Z  no node passes the rules
e.example.  stale       1/1     2026-11-26T05:12:09Z  timed out
b.example.  waiting     1 seed  2026-11-26T05:12:09Z  refused\\u{1b}[2J
a.example.  live        2/2     2026-11-26T05:12:09Z
c.example.  live        1/2     2026-11-26T05:12:09Z
";
        assert_eq!(render(&document(None), Appearance::default()), expected);
    }

    #[test]
    fn each_view_has_a_line_below_its_zone() {
        let mut document = document(None);
        let view = |name: &str, state: &str, addresses: &[&str], reason: Option<&str>| View {
            name: name.into(),
            state: state.into(),
            reason: reason.map(str::to_owned),
            since: "2026-11-26T05:12:09Z".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        };
        document.zones.truncate(1);
        document.zones[0].views = vec![
            view("10.0.1.0/24", "live", &["10.0.0.1", "10.0.0.2"], None),
            view("10.0.2.0/24", "unanswered", &[], Some("no node of the view is in service")),
        ];
        let text = render(&document, Appearance::default());
        let lines: Vec<_> = text.lines().skip(3).collect();
        let expected = [
            "a.example.          live        2/2         2026-11-26T05:12:09Z",
            "  view 10.0.1.0/24  live        2           2026-11-26T05:12:09Z",
            "  view 10.0.2.0/24  unanswered  the zone's  2026-11-26T05:12:09Z  no node of the view is in service",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_secondary_has_a_line() {
        let mut document = document(None);
        let secondary = |address: &str, lag_seconds, unconfirmed_seconds| super::super::document::Secondary {
            address: address.parse().unwrap(),
            lag_seconds,
            unconfirmed_seconds,
        };
        for (zone, lag) in document.zones.iter_mut().zip([0.0, 14.2, 3.0]) {
            zone.secondaries = vec![
                secondary("192.0.2.1:53", 0.0, 0.0),
                secondary("192.0.2.2:53", lag, 0.0),
                secondary("192.0.2.3:53", 0.0, lag),
                secondary("192.0.2.4:53", lag, 90.0),
            ];
        }
        let text = render(&document, Appearance::default());
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("secondary")).collect();
        let expected = [
            "secondary 192.0.2.1:53: has all changes of 3 zones",
            "secondary 192.0.2.2:53: lacks changes of 2 of 3 zones, for up to 14 s",
            "secondary 192.0.2.3:53: has asked for the serial of 2 of 3 zones and fetched nothing for up to 14 s: it has the \
             changes from another primary, or cannot fetch them",
            "secondary 192.0.2.4:53: lacks changes of 2 of 3 zones, for up to 14 s; has asked for the serial of 3 of 3 zones \
             and fetched nothing for up to 90 s: it has the changes from another primary, or cannot fetch them",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_older_configuration_stands_in_the_first_line() {
        let text = render(&document(Some("a.toml:3:7: bad\na.toml:4:1: worse")), Appearance::default());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("AN OLDER CONFIGURATION THAN THE FILE IS SERVED (0123"), "{text}");
        assert_eq!(lines[1..3], ["  a.toml:3:7: bad", "  a.toml:4:1: worse"]);
    }

    #[test]
    fn a_screen_shows_the_zones_that_fit() {
        let text = render(&document(None), Appearance { colors: true, lines: Some(6) });
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.ends_with("and 3 more that do not fit\n"), "{text}");
        assert!(text.contains("\x1b[1;31munanswered\x1b[0m"), "{text:?}");
    }

    #[test]
    fn an_unanswered_zone_and_a_refused_file_are_trouble() {
        assert_eq!(document(None).trouble().unwrap(), "clients get no address of 1 zone");
        let both = document(Some("bad")).trouble().unwrap();
        assert!(both.contains("/etc/a.toml is refused; clients get no address"), "{both}");
        let live = Document { zones: Vec::new(), ..document(None) };
        assert_eq!(live.trouble(), None);
    }

    proptest! {
        #[test]
        fn any_text_of_a_server_stays_in_its_line(state in any::<String>(), reason in any::<String>()) {
            let mut document = document(None);
            document.zones.truncate(1);
            document.zones[0].state = state;
            document.zones[0].reason = Some(reason);
            let text = render(&document, Appearance::default());
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
        }

        #[test]
        fn any_reply_is_read_or_refused(text in "\\PC{0,80}|[{}\\[\\]\":,a-z0-9]{0,80}") {
            let _ = Document::parse(&text);
        }
    }
}

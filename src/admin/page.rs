//! `/`: the status page, for people.
//!
//! It shows the state as it is now: a summary, the file, then the zones, those with problems first. That much needs no script.
//! With one, the page replaces it by what `/events` sends. Style and script are in the page, which asks for no other file. It
//! escapes every text that does not come from this module; the script writes text nodes only.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::{Duration, Instant, SystemTime},
};

use super::{
    AdminState,
    summary::{BY_URGENCY, Severity, Summary},
};
use crate::{
    config::ConfigStatus,
    table::{NodeDescription, PollStatus, ZoneDescription, ZoneEntry},
    types::{NodeState, ZoneState},
};

/// Zones on the page without a script; `/api/zones` has all of them.
const ZONES_SHOWN_MAX: usize = 200;

/// Nodes of one zone on the page.
const NODES_SHOWN_MAX: usize = 12;

/// The interval at which the page reloads itself without a script, in seconds.
const RELOAD_EVERY: u32 = 5;

const STYLE: &str = include_str!("page/page.css");

/// What the script fills.
const LIVE: &str = include_str!("page/live.html");

/// The parts of the script, in a scope of their own.
const SCRIPT: &str = concat!(
    "\"use strict\";\n(() => {\n",
    include_str!("page/text.js"),
    include_str!("page/plots.js"),
    include_str!("page/zones.js"),
    include_str!("page/changes.js"),
    include_str!("page/zone.js"),
    include_str!("page/live.js"),
    "})();\n",
);

/// Allows the page's own style, script, icon and events, and nothing else.
pub(super) fn content_security_policy() -> &'static str {
    static POLICY: LazyLock<String> = LazyLock::new(|| {
        let hash = |content: &str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, content.as_bytes());
            data_encoding::BASE64.encode(digest.as_ref())
        };
        format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        )
    });
    &POLICY
}

/// Renders the page.
pub(super) fn render(admin: &AdminState) -> String {
    let rows = rows(admin);
    let config = admin.config.load();
    let Summary { severity, headline, meaning } = Summary::of_states(rows.iter().map(Row::state), &config);
    let headline = Text(&headline);
    let class = severity.word();
    let icon = icon(severity);
    let version = env!("CARGO_PKG_VERSION");
    let refused = config.error.as_deref().map(|error| refused(error, &config)).unwrap_or_default();
    let absent = absent(&admin.serving.absent_addresses());
    let facts = facts(admin, &config);
    let zones = zones(&rows);
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<noscript><meta http-equiv="refresh" content="{RELOAD_EVERY}"></noscript>
<title>{headline} · alternator-dns</title>
<link rel="icon" href="{icon}">
<style>{STYLE}</style>
</head>
<body>
<div id="static">
<header class="{class}">
<p class="program">alternator-dns {version}</p>
<h1>{headline}</h1>
<p>{meaning}</p>
</header>
<main>
{refused}{absent}{facts}{zones}</main>
<footer>
<a href="/metrics">metrics</a> <a href="/api/zones">zones as JSON</a> <a href="/healthz">health</a> <a href="/readyz">readiness</a> <a href="/serving">serving</a>
<noscript><span>reloads every {RELOAD_EVERY} s</span></noscript>
</footer>
</div>
{LIVE}<script>{SCRIPT}</script>
</body>
</html>
"#
    )
}

/// A dot in the color of the severity, which a background tab shows as well.
fn icon(severity: Severity) -> String {
    let color = match severity {
        Severity::Ok => "3a9d6b",
        Severity::Warning => "d99a2b",
        Severity::Critical => "d0483c",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
         %3Ccircle cx='8' cy='8' r='6' fill='%23{color}'/%3E%3C/svg%3E"
    )
}

/// One zone, as it is now.
struct Row {
    name: String,
    description: ZoneDescription,
    ttl: u32,
    status: Arc<PollStatus>,
}

impl Row {
    fn of(name: String, entry: &ZoneEntry) -> Self {
        let ttl = entry.answers().address_ttl();
        Self { name, description: entry.describe(), ttl, status: Arc::clone(&entry.poll_status()) }
    }

    fn state(&self) -> ZoneState {
        self.description.state
    }

    /// The sort key: the most urgent zones have the smallest.
    fn urgency(&self) -> (usize, bool) {
        let rank = BY_URGENCY.iter().position(|&state| state == self.state()).unwrap_or(BY_URGENCY.len());
        let has_problem = self.status.last_error.is_some()
            || self.status.seeds_disagree
            || self.description.nodes.iter().any(|node| !matches!(node.state, NodeState::Up | NodeState::Excluded));
        (rank, !has_problem)
    }
}

/// All zones: those with problems first, then by name.
fn rows(admin: &AdminState) -> Vec<Row> {
    let mut rows: Vec<_> = admin.zones().into_iter().map(|(name, entry)| Row::of(name, &entry)).collect();
    // The sort is stable, and the zones are sorted by name.
    rows.sort_by_key(Row::urgency);
    rows
}

fn refused(error: &str, config: &ConfigStatus) -> String {
    let since = match config.kept {
        Some(kept) => {
            let age = SystemTime::now().duration_since(kept).unwrap_or_default();
            format!("The server started with the last good configuration, which was put in force {} ago.", Span(age))
        }
        None => format!("Nothing has changed: what was loaded {} ago stays in force.", Span(age(config))),
    };
    format!(
        r#"<section class="refused critical">
<h2>The configuration file was refused: an older configuration is served</h2>
<p>{since}</p>
<pre>{}</pre>
</section>
"#,
        Text(error)
    )
}

/// Addresses that are served and that clients cannot reach.
fn absent(addresses: &[SocketAddr]) -> String {
    if addresses.is_empty() {
        return String::new();
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!(
        r#"<section class="refused warning">
<h2>No interface of this host has {}</h2>
<p>Clients reach this server there once an interface has the address. Check that it is no typing error in <code>listen</code>.</p>
</section>
"#,
        addresses.join(", ")
    )
}

fn facts(admin: &AdminState, config: &ConfigStatus) -> String {
    let ready = admin.not_ready_reason().unwrap_or_else(|| "yes".to_owned());
    format!(
        r#"<section>
<dl>
<div><dt>Configuration</dt><dd><code>{path}</code></dd></div>
<div><dt>Hash</dt><dd><code>{hash}</code></dd></div>
<div><dt>Loaded</dt><dd>{loaded} ago</dd></div>
<div><dt>Running for</dt><dd>{uptime}</dd></div>
<div><dt>Ready</dt><dd>{ready}</dd></div>
</dl>
</section>
"#,
        path = Text(&config.path.to_string_lossy()),
        hash = Text(&config.hash),
        loaded = Span(age(config)),
        uptime = Span(admin.started.elapsed()),
        ready = Text(&ready),
    )
}

fn age(config: &ConfigStatus) -> Duration {
    SystemTime::now().duration_since(config.loaded).unwrap_or_default()
}

fn zones(rows: &[Row]) -> String {
    let now = Instant::now();
    let shown: String = rows.iter().take(ZONES_SHOWN_MAX).map(|row| zone(row, now)).collect();
    let note = if rows.len() > ZONES_SHOWN_MAX {
        format!(
            "<p class=\"note\">{ZONES_SHOWN_MAX} of {} zones, those with problems first; \
             <a href=\"/api/zones\">all zones as JSON</a></p>\n",
            rows.len()
        )
    } else {
        String::new()
    };
    format!(
        r#"<section class="zones">
<table>
<thead><tr><th scope="col">Zone</th><th scope="col">State</th><th scope="col">Nodes</th><th scope="col">TTL</th><th scope="col">Last success</th><th scope="col">Reason</th></tr></thead>
<tbody>
{shown}</tbody>
</table>
{note}</section>
"#
    )
}

fn zone(row: &Row, now: Instant) -> String {
    format!(
        "<tr class=\"{class}\"><th scope=\"row\">{name}{cluster}</th>\
         <td><span class=\"state\">{state}</span> <span class=\"muted\">for {age}</span></td>\
         <td>{nodes}</td><td class=\"number\" data-label=\"TTL\">{ttl} s</td>\
         <td class=\"number\" data-label=\"Last success\">{success}</td>\
         <td class=\"error\">{reason}</td></tr>\n",
        class = Severity::of(row.state()).word(),
        name = Text(&row.name),
        cluster = row.status.cluster_id.map(|id| format!("<small>cluster {id}</small>")).unwrap_or_default(),
        state = row.state().word(),
        age = Span(SystemTime::now().duration_since(row.description.since).unwrap_or_default()),
        nodes = nodes(row),
        ttl = row.ttl,
        success = last_success(&row.status, now),
        reason = reason(row),
    )
}

/// Why the zone is in its state, and what went wrong in the last poll unless that says it already.
fn reason(row: &Row) -> String {
    let reason = row.description.reason.as_deref().unwrap_or_default();
    let error = row.status.last_error.as_deref().filter(|error| !reason.contains(error)).unwrap_or_default();
    let disagree =
        if row.status.seeds_disagree { "<small>a seed is of another cluster or datacenter</small>" } else { "" };
    match (reason, error) {
        ("", error) | (error, "") => format!("{}{disagree}", Text(error)),
        (reason, error) => format!("{}<small>last poll: {}</small>{disagree}", Text(reason), Text(error)),
    }
}

fn last_success(status: &PollStatus, now: Instant) -> String {
    let Some(then) = status.last_success else {
        return "never".to_owned();
    };
    let source = status.source.map(|source| format!(" <span class=\"muted\">from {source}</span>")).unwrap_or_default();
    format!("{} ago{source}", Span(now.saturating_duration_since(then)))
}

/// The nodes, with their state unless it is up; without nodes, the seeds that are answered instead.
fn nodes(row: &Row) -> String {
    let ZoneDescription { answers, nodes, .. } = &row.description;
    let note = if answers.is_empty() { "<span class=\"muted\">none answered: SERVFAIL</span> " } else { "" };
    let all: Vec<String> = if nodes.is_empty() {
        answers.iter().map(|seed| format!("<span class=\"address muted\">{seed} seed</span> ")).collect()
    } else {
        nodes.iter().map(node).collect()
    };
    let shown: String = all.iter().take(NODES_SHOWN_MAX).map(String::as_str).collect();
    match all.len().saturating_sub(NODES_SHOWN_MAX) {
        0 => format!("{note}{shown}"),
        more => format!("{note}{shown}<span class=\"muted\">and {more} more</span>"),
    }
}

/// One node: muted unless it is answered; its reason is shown when one points at it.
fn node(node: &NodeDescription) -> String {
    let NodeDescription { address, state, answered, reason, .. } = node;
    let class = if *answered { "address" } else { "address muted" };
    let remark = match (state, answered) {
        (NodeState::Up, true) => "",
        (NodeState::Up, false) => " not answered",
        (NodeState::Down, true) => " down, answered",
        (NodeState::New, true) => " new, answered",
        (NodeState::Down, false) => " down",
        (NodeState::New, false) => " new",
        (NodeState::Foreign, _) => " foreign",
        (NodeState::Drained, true) => " drained, answered",
        (NodeState::Drained, false) => " drained",
        (NodeState::Excluded, _) => " excluded",
    };
    let title = reason.as_deref().map(|reason| format!(" title=\"{}\"", Text(reason))).unwrap_or_default();
    format!("<span class=\"{class}\"{title}>{address}{remark}</span> ")
}

/// A text, escaped for HTML.
struct Text<'t>(&'t str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => fmt::Write::write_char(f, other)?,
            }
        }
        Ok(())
    }
}

/// A time span in at most two units.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        match self.0.as_secs() {
            0..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds @ 10..MINUTE => write!(f, "{seconds} s"),
            seconds @ MINUTE..HOUR => write!(f, "{} min", seconds / MINUTE),
            seconds @ HOUR..DAY => write!(f, "{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE),
            seconds => write!(f, "{} d {} h", seconds / DAY, seconds % DAY / HOUR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{admin_state, known, waiting},
        *,
    };
    use crate::{table::ZoneSettings, types::AddressRules};

    #[test]
    fn all_texts_are_escaped() {
        let entry = known("a.example", &["10.0.0.1"], true);
        let hostile = "</td><script>alert('x' & \"y\")</script>";
        entry.report(PollStatus { last_error: Some(hostile.into()), ..PollStatus::default() });
        let admin = admin_state(vec![entry]);
        admin.config.store(Arc::new(ConfigStatus {
            config: admin.config.load().config.clone(),
            path: hostile.into(),
            hash: hostile.into(),
            loaded: SystemTime::now(),
            error: Some(hostile.into()),
            kept: None,
        }));
        let page = render(&admin);
        let escaped = "&lt;/td&gt;&lt;script&gt;alert(&#39;x&#39; &amp; &quot;y&quot;)&lt;/script&gt;";
        assert_eq!(page.matches(escaped).count(), 4);
        assert_eq!(page.matches("<script").count(), 1, "its own");
        assert!(page.contains("The configuration file was refused"));
    }

    #[test]
    fn the_page_says_that_an_older_configuration_is_served_and_of_when() {
        let admin = admin_state(vec![known("a", &["10.0.0.1"], false)]);
        let refuse = |kept| {
            let status =
                ConfigStatus { error: Some("f:1:1: x".into()), kept, ..ConfigStatus::clone(&admin.config.load()) };
            admin.config.store(Arc::new(status));
            render(&admin)
        };
        let page = refuse(None);
        assert!(page.contains("refused: an older configuration is served") && page.contains("Nothing has changed"));
        let page = refuse(Some(SystemTime::now() - Duration::from_secs(7500)));
        let since = "started with the last good configuration, which was put in force 2 h 5 min ago";
        assert!(page.contains("refused: an older configuration is served") && page.contains(since), "{page}");
    }

    #[test]
    fn zones_with_problems_come_first_and_the_list_is_bounded() {
        let mut zones: Vec<_> =
            (0..300).map(|number| known(&format!("z{number:03}.example"), &["10.0.0.1"], false)).collect();
        zones.push(known("zz.example", &["10.0.0.1"], true));
        let page = render(&admin_state(zones));
        let (page, _) = page.split_once("<div id=\"live\"").unwrap();
        assert_eq!(page.matches("<th scope=\"row\">").count(), ZONES_SHOWN_MAX);
        assert!(page.find("zz.example.").unwrap() < page.find("z000.example.").unwrap());
        assert!(page.contains("200 of 301 zones"));
    }

    #[test]
    fn a_zone_without_nodes_or_seeds_shows_servfail() {
        assert!(render(&admin_state(vec![waiting("a")])).contains("none answered: SERVFAIL"));
    }

    #[test]
    fn the_page_says_what_is_answered_and_why_a_node_is_not() {
        let zone = known("a", &["10.0.0.1", "10.0.0.2"], false);
        let configure = |rules| zone.configure(&ZoneSettings { rules, ..ZoneSettings::example() }, 2000);
        let page = || render(&admin_state(vec![zone.clone()]));
        configure(AddressRules { exclude: vec!["10.0.0.1/32".parse().unwrap()], ..AddressRules::default() });
        let excluded = "<span class=\"address muted\" title=\"is in exclude\">10.0.0.1 excluded</span>";
        assert!(page().contains(excluded) && page().contains("<span class=\"address\">10.0.0.2</span>"));
        assert!(page().contains("<h1>the zone is live</h1>"));
        configure(AddressRules { allow: Some(vec!["192.0.2.0/24".parse().unwrap()]), ..AddressRules::default() });
        assert!(page().contains("<h1>the zone is unanswered</h1>") && page().contains("clients get SERVFAIL"));
        assert!(page().contains("the zone&#39;s rules let no node through: 10.0.0.1 is not in allow_nodes"));
        let page = page();
        let (_, static_part) = page.split_once("<div id=\"static\">").unwrap();
        let (static_part, _) = static_part.split_once("<div id=\"live\"").unwrap();
        assert!(!static_part.contains("degraded"), "a zone without an answer is not called answered");
    }

    #[test]
    fn spans_have_at_most_two_units() {
        let text = |seconds: f64| Span(Duration::from_secs_f64(seconds)).to_string();
        assert_eq!(
            [text(0.42), text(12.9), text(125.0), text(7500.0), text(277_200.0)],
            ["0.4 s", "12 s", "2 min", "2 h 5 min", "3 d 5 h"]
        );
    }
}

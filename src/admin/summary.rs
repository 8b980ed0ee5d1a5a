//! The state of the whole server in one sentence, for the status page.

use std::{borrow::Cow, path::Path};

use super::AdminState;
use crate::{config::ConfigStatus, types::ZoneState};

/// States, the most urgent first.
pub(super) const BY_URGENCY: [ZoneState; 6] = [
    ZoneState::Unanswered,
    ZoneState::Stale,
    ZoneState::Waiting,
    ZoneState::Contested,
    ZoneState::Degraded,
    ZoneState::Live,
];

/// Characters of a refusal in the headline: two lines of it.
const REFUSAL_SHOWN_MAX: usize = 160;

/// How urgent a state is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) enum Severity {
    Ok,
    Warning,
    Critical,
}

impl Severity {
    pub(super) fn of(state: ZoneState) -> Self {
        match state {
            ZoneState::Live => Self::Ok,
            ZoneState::Degraded | ZoneState::Contested | ZoneState::Waiting => Self::Warning,
            ZoneState::Stale | ZoneState::Unanswered => Self::Critical,
        }
    }

    /// Its class in the style sheet.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The state of the file and of all zones in one sentence, and what it means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Summary {
    pub(super) severity: Severity,
    pub(super) headline: String,
    pub(super) meaning: &'static str,
}

impl Summary {
    /// Of the server as it is now.
    pub(super) fn of(admin: &AdminState) -> Self {
        let table = admin.table.snapshot();
        Self::of_states(table.entries().map(|entry| entry.state()), &admin.config.load())
    }

    /// Of zones in these states.
    pub(super) fn of_states(states: impl Iterator<Item = ZoneState>, config: &ConfigStatus) -> Self {
        let mut counts = BY_URGENCY.map(|state| (state, 0_usize));
        for state in states {
            counts.iter_mut().filter(|(counted, _)| *counted == state).for_each(|(_, count)| *count += 1);
        }
        let total: usize = counts.iter().map(|(_, count)| count).sum();
        let found: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        let worst = found.first().map_or(ZoneState::Live, |(state, _)| *state);
        let problems: Vec<_> = found.iter().filter(|(state, _)| *state != ZoneState::Live).collect();
        let zones = match (total, problems.as_slice()) {
            (0, _) => "no zones".to_owned(),
            (1, _) => format!("the zone is {}", worst.word()),
            (total, []) => format!("all {total} zones live"),
            (total, [(first, count), rest @ ..]) => {
                let rest: String = rest.iter().map(|(state, count)| format!(", {count} {}", state.word())).collect();
                format!("{count} of {total} zones {}{rest}", first.word())
            }
        };
        let (severity, headline) = match &config.error {
            None => (Severity::of(worst), zones),
            Some(error) => {
                let refusal = first_refusal(error, &config.path);
                (Severity::of(worst).max(Severity::Warning), format!("file refused: {refusal} · {zones}"))
            }
        };
        Self { severity, headline, meaning: meaning(worst) }
    }
}

/// The first line of a refusal, without the directory of the file.
fn first_refusal<'e>(error: &'e str, path: &Path) -> Cow<'e, str> {
    let line = error.lines().next().unwrap_or_default();
    let directory = path.parent().map(|directory| format!("{}/", directory.display())).unwrap_or_default();
    let line = if directory.len() > 1 { line.strip_prefix(&directory).unwrap_or(line) } else { line };
    match line.char_indices().nth(REFUSAL_SHOWN_MAX) {
        None => line.into(),
        Some((end, _)) => format!("{}…", &line[..end]).into(),
    }
}

/// What the worst state means for clients.
fn meaning(worst: ZoneState) -> &'static str {
    match worst {
        ZoneState::Live => "Every zone is answered with nodes that its cluster confirmed recently.",
        ZoneState::Degraded => {
            "A degraded zone is answered, but with nodes that are not verified or drained, or not with those of its first scope."
        }
        ZoneState::Contested => {
            "The nodes of a contested zone disagree about which nodes are alive; the zone keeps the nodes it had."
        }
        ZoneState::Waiting => "A waiting zone has learnt no node yet; it is answered with its seeds.",
        ZoneState::Unanswered => "There is no address to answer an unanswered zone with: its clients get SERVFAIL.",
        ZoneState::Stale => "The cluster of a stale zone does not answer; its last known nodes are still answered.",
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::config::Config;

    fn summary(states: &[ZoneState], error: Option<&str>) -> (String, Severity) {
        let path = Path::new("/etc/alternator-dns/config.toml");
        let config = Config::parse(path, b"[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n").unwrap();
        let config = ConfigStatus { error: error.map(str::to_owned), ..ConfigStatus::new(path, &Arc::new(config)) };
        let summary = Summary::of_states(states.iter().copied(), &config);
        (summary.headline, summary.severity)
    }

    #[test]
    fn the_headline_names_the_worst_state_first() {
        use ZoneState::{Degraded, Live, Stale, Unanswered};
        assert_eq!(summary(&[], None), ("no zones".into(), Severity::Ok));
        assert_eq!(summary(&[Live], None), ("the zone is live".into(), Severity::Ok));
        assert_eq!(summary(&[Live, Live], None), ("all 2 zones live".into(), Severity::Ok));
        assert_eq!(summary(&[Live, Degraded], None), ("1 of 2 zones degraded".into(), Severity::Warning));
        let mixed = summary(&[Live, Unanswered, Stale], None);
        assert_eq!(mixed, ("1 of 3 zones unanswered, 1 stale".into(), Severity::Critical));
    }

    #[test]
    fn the_headline_has_the_first_line_of_a_refusal() {
        let error = "/etc/alternator-dns/config.toml:3:1: unknown key `tll`; did you mean `ttl`?\nanother line";
        let refused = summary(&[ZoneState::Live], Some(error));
        let headline = "file refused: config.toml:3:1: unknown key `tll`; did you mean `ttl`? · the zone is live";
        assert_eq!(refused, (headline.into(), Severity::Warning));
        let long = "ü".repeat(1000);
        assert!(summary(&[], Some(&long)).0.chars().count() < 200);
        assert_eq!(summary(&[], Some("")).0, "file refused:  · no zones");
    }
}

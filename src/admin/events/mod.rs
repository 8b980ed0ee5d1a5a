//! `/events`: what the status page shows, as server-sent events, while it changes.
//!
//! A new stream gets everything, in pieces that are made when the client has taken those before. From then on it gets the
//! zones whose revision differs from the one it was sent. While no revision changes, a look costs one load of an atomic
//! number; else it reads the revision of each zone, and describes only zones that have changed. So three thousand zones cost
//! what those of them cost that change.

mod document;

use std::{
    convert::Infallible,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use rustc_hash::FxHashMap;
use serde::Serialize;

use self::document::{Begin, SampleList, ServerState, Zone};
use super::{AdminState, Pages};
use crate::{
    metrics::ZoneId,
    table::{ZoneEntry, ZoneTable, shown_version},
};

/// Between two looks for changes: a person takes less for at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Between two looks at what belongs to no zone. It counts the zones in each state.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// Between two comments, which keep the connection alive through proxies.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// Octets after which a piece ends. It bounds what waits for a slow client.
const PIECE_OCTETS: usize = 64 << 10;

/// Marks a reply that does not end by itself. Its connection is bounded as such.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndlessReply;

/// The handler.
pub(super) async fn events(State(pages): State<Pages>) -> Response {
    let events = Events::new(pages.admin);
    let pieces = stream::unfold(events, |mut events| async {
        let piece = events.next().await;
        Some((Ok::<_, Infallible>(piece), events))
    });
    let mut response = ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response();
    response.extensions_mut().insert(EndlessReply);
    response
}

/// What one client has been sent.
struct Events {
    admin: AdminState,
    /// The zones at the last look.
    table: Arc<ZoneTable>,
    /// The number of changes at the last look; `None` before the first.
    version: Option<u64>,
    /// The revision of each zone that was sent.
    revisions: FxHashMap<ZoneId, u64>,
    /// Zones that are to be sent.
    pending: Vec<Arc<ZoneEntry>>,
    /// Every zone has been sent once.
    is_complete: bool,
    state: String,
    state_at: Option<Instant>,
    samples: u64,
    commented_at: Instant,
}

impl Events {
    fn new(admin: AdminState) -> Self {
        Self {
            table: Arc::default(),
            version: None,
            revisions: FxHashMap::default(),
            pending: Vec::new(),
            is_complete: false,
            state: String::new(),
            state_at: None,
            samples: 0,
            commented_at: Instant::now(),
            admin,
        }
    }

    /// The next piece, when there is one.
    async fn next(&mut self) -> String {
        loop {
            let piece = self.look(Instant::now(), SystemTime::now());
            if !piece.is_empty() {
                return piece;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// What is to be sent now; may be empty.
    fn look(&mut self, now: Instant, today: SystemTime) -> String {
        let mut piece = String::new();
        if self.version.is_none() {
            event(&mut piece, "begin", &Begin::at(today));
        }
        if self.state_at.is_none_or(|then| now.saturating_duration_since(then) >= STATE_INTERVAL) {
            self.state_at = Some(now);
            self.add_state(&mut piece, today);
        }
        let (samples, taken) = self.admin.samples.after(self.samples);
        if self.version.is_none() || taken != self.samples {
            self.samples = taken;
            event(&mut piece, "samples", &SampleList::of(&samples, today));
        }
        self.find_changes(&mut piece);
        self.add_zones(&mut piece, today);
        if now.saturating_duration_since(self.commented_at) >= COMMENT_INTERVAL {
            self.commented_at = now;
            piece.push_str(":\n\n");
        }
        piece
    }

    fn add_state(&mut self, piece: &mut String, today: SystemTime) {
        let mut state = String::new();
        event(&mut state, "state", &ServerState::of(&self.admin, today));
        if state != self.state {
            piece.push_str(&state);
            self.state = state;
        }
    }

    /// Notes which zones have changed, and sends the names of those that are gone.
    fn find_changes(&mut self, piece: &mut String) {
        let table = self.admin.table.snapshot();
        // Before the revisions are read: what changes meanwhile is found at the next look.
        let version = shown_version();
        let is_same_table = Arc::ptr_eq(&table, &self.table);
        if is_same_table && self.version == Some(version) {
            return;
        }
        self.version = Some(version);
        if !is_same_table {
            let gone = self
                .table
                .entries()
                .filter(|entry| table.zone(entry.name()).is_none() && self.revisions.contains_key(&entry.id()));
            let gone: Vec<String> = gone.map(|entry| entry.name().to_string()).collect();
            if !gone.is_empty() {
                event(piece, "removed", &gone);
            }
            let ids: rustc_hash::FxHashSet<ZoneId> = table.entries().map(|entry| entry.id()).collect();
            self.revisions.retain(|id, _| ids.contains(id));
            self.table = table;
        }
        let revisions = &self.revisions;
        let changed = self.table.entries().filter(|entry| revisions.get(&entry.id()) != Some(&entry.revision()));
        self.pending = changed.cloned().collect();
    }

    /// Sends pending zones, as many as fit.
    fn add_zones(&mut self, piece: &mut String, today: SystemTime) {
        let mut zones = Vec::new();
        let mut octets = piece.len();
        while octets < PIECE_OCTETS
            && let Some(entry) = self.pending.pop()
        {
            // Before it is described: what changes meanwhile is sent again.
            self.revisions.insert(entry.id(), entry.revision());
            let zone = json(&Zone::of(&entry, today));
            octets += zone.len();
            zones.push(zone);
        }
        if !zones.is_empty() {
            let _ = write!(piece, "event: zones\ndata: [{}]\n\n", zones.join(","));
        }
        if self.pending.is_empty() && !self.is_complete {
            self.is_complete = true;
            event(piece, "complete", &self.table.len());
        }
    }
}

fn event(piece: &mut String, name: &str, data: &impl Serialize) {
    // Writing into a string does not fail.
    let _ = write!(piece, "event: {name}\ndata: {}\n\n", json(data));
}

/// JSON has no line breaks of its own, which would end the event.
fn json(data: &impl Serialize) -> String {
    // Nothing that is sent has a path or a map, with which writing could fail.
    serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{admin_state, known, waiting},
        *,
    };
    use crate::{
        table::{PollStatus, ZoneSettings},
        types::AddressRules,
    };

    fn looks(events: &mut Events) -> String {
        let mut all = String::new();
        loop {
            let piece = events.look(Instant::now(), SystemTime::now());
            if piece.is_empty() {
                return all;
            }
            all.push_str(&piece);
        }
    }

    fn names(piece: &str) -> Vec<String> {
        let data = piece.lines().filter_map(|line| line.strip_prefix("data: ["));
        let zones = data.flat_map(|data| serde_json::from_str::<Vec<serde_json::Value>>(&format!("[{data}")).unwrap());
        let mut names: Vec<_> = zones.filter_map(|zone| Some(zone.get("name")?.as_str()?.to_owned())).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_stream_gets_everything_and_then_only_what_changes() {
        let zones = [known("a", &["10.0.0.1"], false), waiting("b")];
        let mut events = Events::new(admin_state(zones.to_vec()));
        let first = looks(&mut events);
        let kinds: Vec<_> = first.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!(kinds, ["begin", "state", "samples", "zones", "complete"]);
        assert_eq!(names(&first), ["a.", "b."]);
        assert_eq!(looks(&mut events), "");
        zones[1].report(PollStatus { last_error: Some("10.0.0.9 timed out".into()), ..PollStatus::default() });
        let second = looks(&mut events);
        assert!(names(&second) == ["b."] && second.contains("10.0.0.9 timed out"), "{second}");
        let last_tick = Some(Instant::now());
        zones[1].report(PollStatus { last_tick, ..(**zones[1].poll_status()).clone() });
        assert_eq!(looks(&mut events), "", "a poll that ends like the one before");
    }

    #[test]
    fn zones_that_come_and_go_are_sent() {
        let [a, b, c] = ["a", "b", "c"].map(|name| known(name, &["10.0.0.1"], false));
        let admin = admin_state(vec![a.clone(), b]);
        let mut events = Events::new(admin.clone());
        looks(&mut events);
        admin.table.replace(ZoneTable::new([a.clone(), c]));
        let piece = looks(&mut events);
        assert!(piece.contains("event: removed\ndata: [\"b.\"]\n\n"), "{piece}");
        assert_eq!(names(&piece), ["c."]);
        let rules = AddressRules { exclude: vec!["10.0.0.1/32".parse().unwrap()], ..AddressRules::default() };
        a.configure(&ZoneSettings { rules, ..ZoneSettings::example() }, 2000);
        assert_eq!(names(&looks(&mut events)), ["a."]);
    }

    #[test]
    fn pieces_are_bounded() {
        let zones: Vec<_> = (0..2000).map(|number| known(&format!("z{number}"), &["10.0.0.1"], false)).collect();
        let mut events = Events::new(admin_state(zones));
        let mut pieces = Vec::new();
        while !events.is_complete {
            pieces.push(events.look(Instant::now(), SystemTime::now()));
        }
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.len() < PIECE_OCTETS + 8192));
        assert_eq!(pieces.iter().map(|piece| names(piece).len()).sum::<usize>(), 2000);
        let many: Vec<_> = (0..9000).map(|number| format!("10.1.{}.{}", number / 250, number % 250)).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let large = looks(&mut Events::new(admin_state(vec![known("large", &many, false)])));
        assert!(large.len() < PIECE_OCTETS && large.contains("\"further_nodes\":8900"), "{}", large.len());
    }

    #[test]
    fn a_comment_keeps_a_quiet_stream_open() {
        let mut events = Events::new(admin_state(vec![]));
        looks(&mut events);
        let later = Instant::now() + COMMENT_INTERVAL;
        let piece = events.look(later, SystemTime::now());
        assert_eq!(piece, ":\n\n");
        assert_eq!(events.look(later, SystemTime::now()), "", "until the next interval");
    }

    #[test]
    fn what_nodes_say_ends_no_event() {
        let zone = waiting("a");
        zone.report(PollStatus {
            last_error: Some("x\n\nevent: removed\r\ndata: [\"a.\"]".into()),
            ..PollStatus::default()
        });
        let first = looks(&mut Events::new(admin_state(vec![zone])));
        assert!(!first.contains("\nevent: removed") && !first.contains('\r'), "{first}");
    }
}

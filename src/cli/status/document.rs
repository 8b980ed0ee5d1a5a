//! The document `/api/zones` as a server sends it: what `status` needs of it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;

use crate::admin::control::RunningServer;

/// All zones of a server.
#[derive(Clone, Debug, Deserialize)]
pub struct Document {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The configuration file.
    pub config: File,
    /// The process.
    #[serde(default)]
    pub server: Process,
    /// The nodes that are taken out of the answers. An older server does not say.
    #[serde(default)]
    pub drains: Vec<Drain>,
}

/// A node that is taken out of the answers.
#[derive(Clone, Debug, Deserialize)]
pub struct Drain {
    /// Its address.
    pub node: IpAddr,
    /// In this zone alone.
    pub zone: Option<String>,
    /// When that ends by itself.
    pub until: String,
}

impl Drain {
    /// The node, and where it is drained.
    pub fn place(&self) -> String {
        let zone = self.zone.as_deref().map_or_else(|| "all zones".to_owned(), |zone| format!("the zone {zone}"));
        format!("{} in {zone}", self.node)
    }
}

/// A zone.
#[derive(Clone, Debug, Deserialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// The word for its state. A newer server may have further states.
    pub state: String,
    /// Why it is not live.
    pub reason: Option<String>,
    /// When the state began.
    pub since: String,
    /// The addresses that a client can get now.
    pub answers: Vec<IpAddr>,
    /// Its listed nodes.
    pub nodes: Vec<Node>,
    /// Its views. An older server does not say.
    #[serde(default)]
    pub views: Vec<View>,
    /// What the secondaries have of it. An older server does not say.
    #[serde(default)]
    pub secondaries: Vec<Secondary>,
}

/// A view of a zone: the nodes that some clients get.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// The first network of its clients.
    pub name: String,
    /// The word for its state.
    pub state: String,
    /// Why it is not live.
    pub reason: Option<String>,
    /// When the state began.
    pub since: String,
    /// The addresses that its clients get; none: they get those of the zone.
    pub addresses: Vec<IpAddr>,
}

/// What a secondary has of a zone.
#[derive(Clone, Debug, Deserialize)]
pub struct Secondary {
    /// Where it is.
    pub address: SocketAddr,
    /// For how long it has lacked a change of which it has not asked for the serial; 0: there is none.
    pub lag_seconds: f64,
    /// For how long it has had the serials of changes that it has not fetched; 0: there is none. An older server does not say.
    #[serde(default)]
    pub unconfirmed_seconds: f64,
}

/// What a secondary has of all zones.
#[derive(Default)]
struct SecondarySummary {
    zones: usize,
    /// Zones of which it lacks a change, and for how long at most.
    behind: (usize, f64),
    /// Zones of which it has asked for a serial that it has not fetched, and for how long at most.
    unconfirmed: (usize, f64),
}

impl SecondarySummary {
    fn add(&mut self, secondary: &Secondary) {
        let count = |(zones, longest): &mut (usize, f64), seconds: f64| {
            *zones += usize::from(seconds > 0.0);
            *longest = longest.max(seconds);
        };
        self.zones += 1;
        count(&mut self.behind, secondary.lag_seconds);
        count(&mut self.unconfirmed, secondary.unconfirmed_seconds);
    }
}

impl fmt::Display for SecondarySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { zones, behind: (behind, lag), unconfirmed: (unconfirmed, time) } = *self;
        let word = if zones == 1 { "zone" } else { "zones" };
        let of = format!("of {zones} {word}");
        if behind > 0 {
            write!(f, "lacks changes of {behind} {of}, for up to {lag:.0} s")?;
        }
        if unconfirmed > 0 {
            let separator = if behind > 0 { "; " } else { "" };
            write!(
                f,
                "{separator}has asked for the serial of {unconfirmed} {of} and fetched nothing for up to {time:.0} s: it has \
                 the changes from another primary, or cannot fetch them"
            )?;
        }
        if behind + unconfirmed == 0 { write!(f, "has all changes {of}") } else { Ok(()) }
    }
}

/// A listed node.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// It is answered now.
    pub answered: bool,
}

/// The configuration file.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// The hash of what is in force.
    pub hash: String,
    /// For how long it has been in force.
    pub loaded_seconds_ago: f64,
    /// Why the file as it is now was refused.
    pub error: Option<String>,
    /// Addresses in `listen` that the host does not have.
    #[serde(default)]
    pub absent_addresses: Vec<SocketAddr>,
}

/// The process of a server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Process {
    /// 0 where an older server does not say.
    #[serde(default)]
    pub pid: u32,
}

/// Zones that clients cannot use come first, live ones last.
const WORST_FIRST: [&str; 6] = ["unanswered", "stale", "contested", "degraded", "waiting", "live"];

impl Document {
    /// Reads the document.
    ///
    /// # Errors
    /// It is no such document.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The server that sent it.
    pub fn server(&self) -> RunningServer {
        RunningServer { pid: self.server.pid, file: self.config.path.clone() }
    }

    /// The zones, the worst first, and zones of one state by name.
    pub fn worst_first(&self) -> Vec<&Zone> {
        let mut zones: Vec<&Zone> = self.zones.iter().collect();
        zones.sort_by_key(|zone| (rank(&zone.state), &zone.name));
        zones
    }

    /// Each state that zones have with their number, the worst first.
    pub fn states(&self) -> Vec<(&str, usize)> {
        let mut states: Vec<(&str, usize)> = Vec::new();
        for zone in self.worst_first() {
            match states.last_mut() {
                Some((state, count)) if *state == zone.state => *count += 1,
                _ => states.push((&zone.state, 1)),
            }
        }
        states
    }

    /// What each secondary has, in a sentence each.
    pub fn secondaries(&self) -> Vec<String> {
        let mut by_address: BTreeMap<SocketAddr, SecondarySummary> = BTreeMap::new();
        for secondary in self.zones.iter().flat_map(|zone| &zone.secondaries) {
            by_address.entry(secondary.address).or_default().add(secondary);
        }
        let sentence = |(address, summary)| format!("secondary {address}: {summary}");
        by_address.into_iter().map(sentence).collect()
    }

    /// What needs a person, in a sentence; `None`: nothing.
    pub fn trouble(&self) -> Option<String> {
        let unanswered = self.zones.iter().filter(|zone| zone.state == "unanswered").count();
        let zones = match unanswered {
            0 => None,
            1 => Some("clients get no address of 1 zone".to_owned()),
            count => Some(format!("clients get no address of {count} zones")),
        };
        let refused = self.config.error.is_some().then(|| {
            format!("an older configuration than the file is served, because {} is refused", self.config.path.display())
        });
        let parts: Vec<String> = [refused, zones].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl Zone {
    /// The nodes that a client can get and those that are known. While no node is known, the seeds are answered.
    pub fn counts(&self) -> String {
        match (self.answers.len(), self.nodes.len()) {
            (0, 0) => "0".to_owned(),
            (1, 0) => "1 seed".to_owned(),
            (seeds, 0) => format!("{seeds} seeds"),
            (_, known) => {
                let answered = self.nodes.iter().filter(|node| node.answered).count();
                format!("{answered}/{known}")
            }
        }
    }
}

/// The place of a state; one that is not known here comes after those that need a person first.
fn rank(state: &str) -> (usize, &str) {
    let known = WORST_FIRST.iter().position(|known| *known == state);
    (known.unwrap_or(WORST_FIRST.len() - 1), state)
}

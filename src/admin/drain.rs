//! `POST /drain` and `POST /undrain` on the control socket: take a node out of the answers for some time, and put it back.
//! `GET /drain` lists the drains. [`drain()`] and [`undrain`] are the clients.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    middleware,
    routing::{get, post},
};
use humantime_serde::re::humantime::{format_duration, format_rfc3339_seconds};
use serde::Deserialize;
use tokio::{sync::Notify, time::sleep};

use super::{
    control::{self, ControlError, RunningServer},
    http,
};
use crate::{
    snapshot::SnapshotStore,
    table::{DRAIN_TIME_MAX, Drain, Drains, SharedTable, ZoneEntry, ZoneTable},
    types::{ZoneName, canonical, printable, unix_now},
};

/// Zones that a reply lists one by one: those that a person reads, and less than a reply may have.
const ZONES_LISTED_MAX: usize = 16;

/// Addresses of a zone that a reply lists.
const ADDRESSES_LISTED_MAX: usize = 8;

/// Between looks at the clock while a drain is in force: the clock may be set.
const CLOCK_CHECK: Duration = Duration::from_secs(10);

/// The drains in force. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ActiveDrains(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Locked while they are put in force, so that what is put in force last is what holds.
    drains: Mutex<Drains>,
    /// Notified when the next end is another one.
    changed: Notify,
    table: SharedTable,
    snapshot: Option<SnapshotStore>,
}

impl ActiveDrains {
    /// The drains of this table; those that an earlier process has kept, unless their time is over.
    pub fn new(table: SharedTable, snapshot: Option<SnapshotStore>) -> Self {
        let now = SystemTime::now();
        let mut drains = snapshot.as_ref().map(SnapshotStore::drains).unwrap_or_default();
        drains.expire(now);
        for Drain { node, .. } in drains.remove_endless(now) {
            tracing::warn!(%node, "a drain is ignored, because by this machine's clock it would last for too long");
        }
        for Drain { node, zone, until } in drains.iter() {
            tracing::info!(%node, "the node is still drained {} until {}", place(zone.as_ref()), moment(until));
        }
        Self(Arc::new(Shared { drains: Mutex::new(drains), changed: Notify::new(), table, snapshot }))
    }

    /// Puts them in force in a table that is to be served, or is.
    pub fn apply_to(&self, table: &ZoneTable) {
        apply(&self.drains(), table);
    }

    /// Puts them in force in the table that is served.
    pub fn apply(&self) {
        self.apply_to(&self.0.table.snapshot());
    }

    /// Each of them, by node.
    pub fn list(&self) -> Vec<Drain> {
        self.drains().iter().collect()
    }

    /// Ends each drain in time. Runs for as long as the server.
    pub async fn run(self) {
        loop {
            let next = self.drains().next_end();
            let pause = next.map(|end| end.duration_since(SystemTime::now()).unwrap_or_default().min(CLOCK_CHECK));
            tokio::select! {
                () = sleep(pause.unwrap_or(CLOCK_CHECK)), if pause.is_some() => self.expire(SystemTime::now()).await,
                () = self.0.changed.notified() => {}
            }
        }
    }

    async fn expire(&self, now: SystemTime) {
        let ended = self.change(|drains| drains.expire(now));
        if ended.is_empty() {
            return;
        }
        for Drain { node, zone, .. } in ended {
            tracing::info!(%node, "the drain of the node {} has ended by itself", place(zone.as_ref()));
        }
        self.keep().await;
    }

    /// Makes a change, and puts it in force at once.
    fn change<T>(&self, change: impl FnOnce(&mut Drains) -> T) -> T {
        let mut drains = self.drains();
        let before = drains.clone();
        let outcome = change(&mut drains);
        if *drains != before {
            apply(&drains, &self.0.table.snapshot());
            self.0.changed.notify_one();
        }
        outcome
    }

    /// Keeps them for the next start. Returns why that is not certain.
    async fn keep(&self) -> Option<String> {
        let Some(snapshot) = &self.0.snapshot else {
            return Some("it is not kept for the next start, because the server has no state_dir".to_owned());
        };
        let drains = self.drains().clone();
        let error = snapshot.keep_drains(drains).await.err()?;
        tracing::warn!("drains are not kept for the next start yet: {error}");
        Some(format!("it is not kept for the next start yet: {error}"))
    }

    fn drains(&self) -> MutexGuard<'_, Drains> {
        // Nothing behind the lock panics half-way.
        self.0.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(drains: &Drains, table: &ZoneTable) {
    let everywhere = drains.everywhere();
    let now = unix_now();
    for entry in table.entries() {
        let of_zone = drains.of_zone(entry.name(), &everywhere);
        entry.drain(&of_zone, now);
        for view in table.each_view(entry.id()) {
            view.row.entry.drain(&of_zone, now);
        }
    }
}

/// What the routes act on.
#[derive(Clone, Debug)]
struct Drainer {
    drains: ActiveDrains,
    server: RunningServer,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    node: IpAddr,
    /// Left out: every zone.
    zone: Option<String>,
    seconds: Option<u64>,
}

type Reply = (StatusCode, String);

/// The routes of the commands, for this server.
pub fn routes(drains: ActiveDrains, server: RunningServer) -> Router {
    Router::new()
        .route("/drain", get(list).post(begin))
        .route("/undrain", post(end))
        .layer(middleware::from_fn(http::refuse_bodies))
        .with_state(Drainer { drains, server })
}

async fn list(State(Drainer { drains, server }): State<Drainer>) -> String {
    let now = SystemTime::now();
    let line = |Drain { node, zone, until }: Drain| {
        let left = until.duration_since(now).unwrap_or_default();
        let left = format_duration(Duration::from_secs(left.as_secs()));
        format!("{node} is drained {} until {} (for {left})\n", place(zone.as_ref()), moment(until))
    };
    let lines: String = drains.list().into_iter().map(line).collect();
    if lines.is_empty() { format!("{server}: no node is drained\n") } else { format!("{server}:\n{lines}") }
}

async fn begin(State(drainer): State<Drainer>, Query(parameters): Query<Parameters>) -> Reply {
    let zone = match drainer.zone(parameters.zone.as_deref()) {
        Ok(zone) => zone,
        Err(sentence) => return refusal(sentence),
    };
    let time = Duration::from_secs(parameters.seconds.unwrap_or_default());
    if time.is_zero() || time > DRAIN_TIME_MAX {
        return refusal(format!("the time must be from 1 to {} seconds", DRAIN_TIME_MAX.as_secs()));
    }
    let drain = Drain::beginning(SystemTime::now(), canonical(parameters.node), zone, time);
    let Drain { node, zone, until } = drain.clone();
    let Drainer { drains, server } = &drainer;
    if let Err(error) = drains.change(|drains| drains.add(drain)) {
        return (StatusCode::CONFLICT, format!("{server}: {error}\n"));
    }
    let until = moment(until);
    let zone = zone.as_ref();
    tracing::info!(%node, "a command drains the node {} until {until}", place(zone));
    let mut text = format!("{server}: {node} is drained {} until {until}\n", place(zone));
    text += &drainer.report(node, zone);
    if let Some(doubt) = drains.keep().await {
        text += &format!("{doubt}\n");
    }
    (StatusCode::OK, text)
}

async fn end(State(drainer): State<Drainer>, Query(Parameters { node, zone, .. }): Query<Parameters>) -> Reply {
    let node = canonical(node);
    // Its zone may have left the file since.
    let zone = match zone.as_deref().map(ZoneName::parse).transpose() {
        Ok(zone) => zone,
        Err(error) => return refusal(format!("the name {error}")),
    };
    let zone = zone.as_ref();
    let Drainer { drains, server } = &drainer;
    let ended = drainer.end(node, zone);
    let remaining = drainer.remaining(node, zone);
    let Some(ended) = ended.first() else {
        let remedy = match remaining.first() {
            Some(drain) if drain.zone.is_none() => format!("it is in all zones, which `undrain {}` ends", drain.node),
            _ => "`drain --list` shows which nodes are".to_owned(),
        };
        return (StatusCode::CONFLICT, format!("{server}: {node} is not drained {}; {remedy}\n", own_place(zone)));
    };
    let spelling = if ended.node == node { String::new() } else { format!(" (drained as {})", ended.node) };
    tracing::info!(%node, "a command has ended the drain of the node{spelling} {}", place(zone));
    let mut text = match remaining.is_empty() {
        true => format!("{server}: {node}{spelling} is no longer drained {}\n", place(zone)),
        false => format!("{server}: the drain of {node}{spelling} {} has ended, and another remains\n", place(zone)),
    };
    for Drain { node, zone, until } in remaining {
        let place = place(zone.as_ref());
        text += &format!("{node} is still drained {place} until {}, which `undrain {node}` ends\n", moment(until));
    }
    text += &drainer.report(node, zone);
    if let Some(doubt) = drains.keep().await {
        text += &format!("the end of the drain: {doubt}\n");
    }
    (StatusCode::OK, text)
}

fn refusal(sentence: String) -> Reply {
    (StatusCode::UNPROCESSABLE_ENTITY, sentence + "\n")
}

impl Drainer {
    /// A zone that is served.
    fn zone(&self, name: Option<&str>) -> Result<Option<ZoneName>, String> {
        let zone = name.map(ZoneName::parse).transpose().map_err(|error| format!("the name {error}"))?;
        match zone {
            Some(zone) if self.drains.0.table.now().zone(&zone).is_none() => {
                Err("no zone has this name; `alternator-dns status` lists the zones".to_owned())
            }
            zone => Ok(zone),
        }
    }

    /// Ends the drain of a node, and returns what has ended. Where no drain has this address, one counts that has the node's
    /// other address: the one that nodes list, or the one that is answered.
    fn end(&self, node: IpAddr, zone: Option<&ZoneName>) -> Vec<Drain> {
        let ended = self.drains.change(|drains| drains.end(node, zone));
        if !ended.is_empty() {
            return ended;
        }
        let same = self.remaining(node, zone);
        let of_zone = same.into_iter().filter(|drain| zone.is_none() || drain.zone.as_ref() == zone);
        let others: BTreeSet<IpAddr> = of_zone.map(|drain| drain.node).collect();
        self.drains.change(|drains| others.iter().flat_map(|other| drains.end(*other, zone)).collect())
    }

    /// The drains in force that keep a node, under either of its addresses, out of the answers of this zone, or of any.
    fn remaining(&self, node: IpAddr, zone: Option<&ZoneName>) -> Vec<Drain> {
        let table = self.drains.0.table.snapshot();
        let is_within =
            |one: Option<&ZoneName>, other: Option<&ZoneName>| one.is_none() || other.is_none() || one == other;
        let is_same = |drain: &Drain| {
            let is_meant = |entry: &&Arc<ZoneEntry>| {
                is_within(drain.zone.as_ref(), Some(entry.name())) && is_within(zone, Some(entry.name()))
            };
            let is_same_node = |entry: &Arc<ZoneEntry>| entry.answers().settings.rules.is_same_node(drain.node, node);
            drain.node == node || table.entries().filter(is_meant).any(is_same_node)
        };
        self.drains.list().into_iter().filter(|drain| is_within(drain.zone.as_ref(), zone) && is_same(drain)).collect()
    }

    /// What is answered now in each zone that knows the node. Logs where a drained node is answered all the same.
    fn report(&self, node: IpAddr, zone: Option<&ZoneName>) -> String {
        let table = self.drains.0.table.snapshot();
        let is_meant = |entry: &&Arc<ZoneEntry>| zone.is_none_or(|zone| entry.name() == zone);
        let mut concerned: Vec<_> =
            table.entries().filter(is_meant).filter(|entry| knows(&table, entry, node)).collect();
        // Where the drain has no effect is what a person has to know first.
        concerned.sort_by_cached_key(|entry| (!entry.answers().answers_drained(), entry.name().to_string()));
        let without_effect = concerned.iter().filter(|entry| entry.answers().answers_drained());
        let without_effect: Vec<_> = without_effect.map(|entry| entry.name()).collect();
        for zone in without_effect.iter().take(ZONES_LISTED_MAX) {
            tracing::warn!(%zone, "drained nodes are still answered, because no other node is up");
        }
        if let Some(count) = without_effect.len().checked_sub(ZONES_LISTED_MAX).filter(|count| *count > 0) {
            tracing::warn!(count, "drained nodes are still answered in further zones, because no other node is up");
        }
        let listed = concerned.iter().take(ZONES_LISTED_MAX).map(|entry| answered_now(entry));
        let lines: String = listed.collect();
        match concerned.len().saturating_sub(ZONES_LISTED_MAX) {
            _ if concerned.is_empty() => format!("no zone knows {node} now; it may join one later\n"),
            0 => lines,
            more => format!("{lines}and {more} more zones; see `alternator-dns status`\n"),
        }
    }
}

/// Whether a zone or a view of it knows a node.
fn knows(table: &ZoneTable, zone: &ZoneEntry, node: IpAddr) -> bool {
    lists(zone, node) || table.each_view(zone.id()).any(|view| lists(&view.row.entry, node))
}

/// Whether a node is listed, or a seed while no node is known, under this address or the one that is answered.
fn lists(entry: &ZoneEntry, node: IpAddr) -> bool {
    let answers = entry.answers();
    let rules = &answers.settings.rules;
    answers.knowledge.listed().into_iter().any(|listed| listed == node || rules.translate(listed) == node)
}

/// What a zone answers, in a line.
fn answered_now(entry: &ZoneEntry) -> String {
    let answers = entry.answers();
    let addresses: Vec<_> = answers.addresses().take(ADDRESSES_LISTED_MAX).map(|address| address.to_string()).collect();
    let more = match answers.addresses().count().saturating_sub(ADDRESSES_LISTED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let remark = if answers.answers_drained() { ": drained, but no other node is up" } else { "" };
    match addresses.is_empty() {
        true => format!("{} has no address to answer with\n", entry.name()),
        false => format!("{} answers {}{more}{remark}\n", entry.name(), addresses.join(", ")),
    }
}

/// Where a node is drained.
fn place(zone: Option<&ZoneName>) -> String {
    zone.map_or_else(|| "in all zones".to_owned(), |zone| format!("in the zone {zone}"))
}

/// Where a node is not drained.
fn own_place(zone: Option<&ZoneName>) -> String {
    zone.map_or_else(|| "in any zone".to_owned(), |zone| format!("in the zone {zone} alone"))
}

fn moment(time: SystemTime) -> String {
    format_rfc3339_seconds(printable(time)).to_string()
}

/// Makes the server that listens on `path` drain a node for some time, in one zone or in all. Returns its sentences.
///
/// # Errors
/// No server can be reached, it does not reply, it has no such zone, or too many drains are in force.
pub async fn drain(path: &Path, node: IpAddr, zone: Option<&ZoneName>, time: Duration) -> Result<String, ControlError> {
    control::command(path, "drain", &format!("{}&seconds={}", parameters(node, zone), time.as_secs())).await
}

/// Makes the server that listens on `path` end the drain of a node, in one zone or in all. Returns its sentences.
///
/// # Errors
/// No server can be reached, it does not reply, or the node is not drained there.
pub async fn undrain(path: &Path, node: IpAddr, zone: Option<&ZoneName>) -> Result<String, ControlError> {
    control::command(path, "undrain", &parameters(node, zone)).await
}

/// The query of the URL. Neither an address nor a name has a character that a URL reserves there.
fn parameters(node: IpAddr, zone: Option<&ZoneName>) -> String {
    let zone = zone.map_or_else(String::new, |zone| format!("&zone={zone}"));
    format!("?node={node}{zone}")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::known, *};
    use crate::{
        table::{DRAINS_MAX, ZoneSettings},
        types::{AddressRules, NodeState, Translation},
    };

    fn drainer(zones: Vec<Arc<ZoneEntry>>) -> Drainer {
        let table = SharedTable::default();
        table.replace(ZoneTable::new(zones));
        Drainer { drains: ActiveDrains::new(table, None), server: RunningServer::this(Path::new("/etc/a.toml")) }
    }

    async fn begin_drain(drainer: &Drainer, node: &str, zone: Option<&str>, seconds: u64) -> Reply {
        let zone = zone.map(str::to_owned);
        let parameters = Parameters { node: node.parse().unwrap(), zone, seconds: Some(seconds) };
        begin(State(drainer.clone()), Query(parameters)).await
    }

    async fn end_drain(drainer: &Drainer, node: &str, zone: Option<&str>) -> Reply {
        let zone = zone.map(str::to_owned);
        end(State(drainer.clone()), Query(Parameters { node: node.parse().unwrap(), zone, seconds: None })).await
    }

    #[tokio::test]
    async fn a_drain_says_what_is_answered_now_and_ends_by_itself() {
        let a = known("a", &["10.0.0.1", "10.0.0.2"], false);
        a.keep_changes(None);
        let drainer = drainer(vec![a.clone(), known("b", &["10.0.0.1"], false), known("c", &["10.0.0.9"], false)]);
        let (status, text) = begin_drain(&drainer, "10.0.0.1", None, 60).await;
        assert_eq!(status, StatusCode::OK);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains(": 10.0.0.1 is drained in all zones until "), "{text}");
        assert_eq!(
            lines[1..],
            [
                "b. answers 10.0.0.1: drained, but no other node is up",
                "a. answers 10.0.0.2",
                "it is not kept for the next start, because the server has no state_dir"
            ]
        );
        assert_eq!(a.changes().last().unwrap().reason.as_deref().unwrap()[..16], *"is drained until");
        assert!(list(State(drainer.clone())).await.contains("10.0.0.1 is drained in all zones until "));
        drainer.drains.expire(SystemTime::now() + Duration::from_secs(59)).await;
        assert_eq!(a.describe().nodes[0].state, NodeState::Drained);
        drainer.drains.expire(SystemTime::now() + Duration::from_secs(61)).await;
        assert_eq!(a.describe().answers.len(), 2);
        assert!(list(State(drainer.clone())).await.ends_with(": no node is drained\n"));
    }

    #[tokio::test]
    async fn a_drain_of_one_zone_is_ended_there() {
        let drainer = drainer(vec![known("a", &["10.0.0.1", "10.0.0.2"], false), known("b", &["10.0.0.1"], false)]);
        let (_, text) = begin_drain(&drainer, "10.0.0.1", Some("a"), 60).await;
        assert!(text.contains("drained in the zone a. until") && !text.contains("b."), "{text}");
        let (status, text) = end_drain(&drainer, "10.0.0.1", Some("b")).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(
            text.ends_with("is not drained in the zone b. alone; `drain --list` shows which nodes are\n"),
            "{text}"
        );
        assert_eq!(begin_drain(&drainer, "10.0.0.1", None, 60).await.0, StatusCode::OK);
        let (_, text) = end_drain(&drainer, "10.0.0.1", Some("b")).await;
        assert!(text.contains("it is in all zones, which `undrain 10.0.0.1` ends"), "{text}");
        let (status, text) = end_drain(&drainer, "::ffff:10.0.0.1", None).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("10.0.0.1 is no longer drained in all zones\na. answers 10.0.0.1, 10.0.0.2\n"), "{text}");
        assert_eq!(drainer.drains.list(), []);
    }

    #[tokio::test]
    async fn the_end_of_one_drain_says_which_others_remain() {
        let drainer = drainer(vec![known("a", &["10.0.0.1", "10.0.0.2"], false)]);
        begin_drain(&drainer, "10.0.0.1", Some("a"), 60).await;
        begin_drain(&drainer, "10.0.0.1", None, 60).await;
        begin_drain(&drainer, "10.0.0.2", None, 60).await;
        let (status, text) = end_drain(&drainer, "10.0.0.1", Some("a")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains(": the drain of 10.0.0.1 in the zone a. has ended, and another remains\n"), "{text}");
        let [_, remains, answers, ..] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(
            remains.starts_with("10.0.0.1 is still drained in all zones until ")
                && remains.ends_with(", which `undrain 10.0.0.1` ends"),
            "{text}"
        );
        assert_eq!(answers, "a. answers 10.0.0.1, 10.0.0.2: drained, but no other node is up");
        let (_, text) = end_drain(&drainer, "10.0.0.1", None).await;
        assert!(text.contains(": 10.0.0.1 is no longer drained in all zones\na. answers 10.0.0.1\n"), "{text}");
    }

    #[tokio::test]
    async fn either_address_of_a_translated_node_ends_its_drain() {
        let entry = known("a", &["10.0.0.1", "10.0.0.2"], false);
        let network = |text: &str| text.parse().unwrap();
        let map = Translation::new(network("10.0.0.0/24"), network("203.0.113.0/24")).unwrap();
        let rules = AddressRules { map: vec![map], ..AddressRules::default() };
        entry.configure(&ZoneSettings { rules, ..ZoneSettings::example() }, 1);
        // What is another node there must not be one here.
        let drainer = drainer(vec![entry, known("b", &["203.0.113.1"], false)]);
        for zone in [None, Some("a")] {
            let zone_name = zone.map(|name| ZoneName::parse(name).unwrap());
            for (drained, named) in [("10.0.0.1", "203.0.113.1"), ("203.0.113.1", "10.0.0.1")] {
                begin_drain(&drainer, drained, zone, 60).await;
                let (status, text) = end_drain(&drainer, named, zone).await;
                assert_eq!(status, StatusCode::OK, "{text}");
                let end = format!(
                    ": {named} (drained as {drained}) is no longer drained {}\na. answers ",
                    place(zone_name.as_ref())
                );
                assert!(text.contains(&(end + "203.0.113.1, 203.0.113.2\n")), "{text}");
                assert_eq!(drainer.drains.list(), []);
            }
        }
        begin_drain(&drainer, "10.0.0.1", Some("a"), 60).await;
        assert_eq!(end_drain(&drainer, "203.0.113.1", Some("b")).await.0, StatusCode::CONFLICT);
        begin_drain(&drainer, "203.0.113.1", None, 60).await;
        let (_, text) = end_drain(&drainer, "203.0.113.1", None).await;
        assert!(text.contains("10.0.0.1 is still drained in the zone a. until "), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_drained_is_refused_in_a_sentence() {
        let drainer = drainer(vec![known("a", &["10.0.0.1"], false)]);
        for (zone, seconds) in [(Some("b"), 60), (Some("b..c"), 60), (None, 0), (None, DRAIN_TIME_MAX.as_secs() + 1)] {
            let (status, text) = begin_drain(&drainer, "10.0.0.1", zone, seconds).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
        }
        let (_, text) = begin_drain(&drainer, "192.0.2.1", None, 60).await;
        assert!(text.contains("no zone knows 192.0.2.1 now; it may join one later"), "{text}");
        for n in 1..DRAINS_MAX {
            assert_eq!(begin_drain(&drainer, &format!("2001:db8::{n:x}"), None, 60).await.0, StatusCode::OK);
        }
        let (status, text) = begin_drain(&drainer, "192.0.2.2", None, 60).await;
        assert_eq!(status, StatusCode::CONFLICT, "{text}");
    }

    #[tokio::test]
    async fn a_table_that_comes_later_has_the_drains_too() {
        let drainer = drainer(vec![]);
        begin_drain(&drainer, "10.0.0.1", None, 60).await;
        let later = known("a", &["10.0.0.1", "10.0.0.2"], false);
        drainer.drains.apply_to(&ZoneTable::new([later.clone()]));
        assert_eq!(later.describe().answers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }
}

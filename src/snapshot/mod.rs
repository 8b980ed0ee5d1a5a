//! The snapshot: the last known nodes of each zone, kept in the state directory for the next start.
//!
//! A server that starts while a cluster cannot be reached would know its seeds at best; with a [`SnapshotStore`] it answers
//! the last known nodes. They are recalled only for the cluster that they were learnt from (compared by its fingerprint),
//! and not when they are too old. A snapshot that cannot be used is reported, and otherwise ignored.
//!
//! The last good configuration is kept beside it ([`LastGood`]), for a start with a file that is refused, and so are the
//! drains and the serials of transferred zones, which outlive a restart.
//!
//! One file holds all zones. With ten thousand zones of three nodes it has 1.7 MB and costs 10 ms of CPU to write,
//! beside one flush of the disk, in a thread for which no task waits; and it is written only when something has
//! changed, at most once a second. A file for each zone would need a flush for each when many zones change at once, as
//! at a start.

mod directory;
mod drains;
mod error;
mod file;
mod last_good;
mod rewrite;
mod serials;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

#[doc(hidden)]
pub use self::rewrite::{rewrite_drains, rewrite_last_good, rewrite_serials, rewrite_snapshot};
pub use self::{
    directory::SnapshotError,
    drains::KeepError,
    last_good::{LastGood, LastGoodError},
    serials::Serials,
};
use self::{
    directory::{Directory, NODES},
    error::{Unread, WriteError},
    file::{Entry, FILE_OCTETS_MAX, stamp},
};
use crate::{
    config::{self, Cluster, Scheme, SourceFile},
    metrics::{ProcessCounters, SnapshotIgnored, SnapshotWrite},
    table::Drains,
    types::{ClusterId, NodeSet, ZoneName},
};

/// From the end of one write to the beginning of the next: many zones that change at once cost a write or two.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a write that failed: a disk that is full for hours is no reason for a thousand attempts.
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Nodes that are confirmed but do not change are written again at this interval, for all zones together, because a week
/// without a change must not make a snapshot a week old. So each time in it is at most an hour too early, and a server
/// whose zones do not change writes once an hour.
const CONFIRM_EVERY: Duration = Duration::from_secs(3600);

/// Between looks whether the directory is still the one that is locked.
const LOCK_CHECK_EVERY: Duration = Duration::from_secs(5);

/// The clock may have been set back a little since; a time further ahead means that the clock is or was wrong.
const FUTURE_MAX: Duration = Duration::from_secs(86_400);

/// How long the last write may take. systemd waits ten seconds for the whole shutdown.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The last known nodes of every zone. Clones share them; the directory is locked while any clone exists.
#[derive(Clone, Debug)]
pub struct SnapshotStore(Arc<Shared>);

/// Writes a [`SnapshotStore`] to its file for as long as it runs.
#[derive(Debug)]
pub struct SnapshotWriter(Arc<Shared>);

/// The nodes of a zone's cluster, and what tells them from another cluster's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClusterNodes {
    /// The nodes that are answered.
    pub nodes: NodeSet,
    /// The zone's other nodes: those of other scopes, and some that have left.
    pub others: Option<NodeSet>,
    /// Nodes of other clusters.
    pub foreign: Option<NodeSet>,
    /// The cluster's id.
    pub id: Option<ClusterId>,
}

impl ClusterNodes {
    /// These nodes, and nothing else.
    pub fn of(nodes: NodeSet) -> Self {
        Self { nodes, others: None, foreign: None, id: None }
    }
}

/// What was known of a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastKnown {
    /// The nodes.
    pub nodes: ClusterNodes,
    /// The seeds were others then.
    pub seeds_edited: bool,
    /// When they were last confirmed, to the hour.
    pub written: SystemTime,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// Notified when there is a change to write now.
    changed: Notify,
    /// Locked for a whole write, in threads that may block; never while [`Shared::known`] is.
    directory: Mutex<Directory>,
    max_age: Duration,
    counters: Arc<ProcessCounters>,
}

#[derive(Debug, Default)]
struct Known {
    zones: BTreeMap<ZoneName, Entry>,
    /// The file differs from `zones`, if only in a time.
    unwritten: bool,
    /// The files of the configuration in force; `None` until one is.
    configuration: Option<Arc<[SourceFile]>>,
    /// What the directory holds is another one.
    configuration_unwritten: bool,
    /// The drains in force.
    drains: Drains,
    /// The directory holds others.
    drains_unwritten: bool,
    /// The serials of zones that are transferred.
    serials: Serials,
    /// The directory holds others.
    serials_unwritten: bool,
}

impl SnapshotStore {
    /// Locks a directory, creating it if only its last level is missing, and reads the snapshot in it.
    ///
    /// A snapshot that cannot be used is reported and counted, never an error. A directory that cannot be used is reported
    /// too, and tried again by the writer: a full disk, for example, keeps no server from its start.
    ///
    /// # Errors
    /// The directory is locked by another instance.
    pub fn open(
        directory: &Path,
        max_age: Duration,
        counters: Arc<ProcessCounters>,
    ) -> Result<(Self, SnapshotWriter), SnapshotError> {
        let directory = match Directory::lock(directory) {
            Err(error @ SnapshotError::Locked { .. }) => return Err(error),
            Err(error) => {
                tracing::error!(
                    "{error}; without it, the next start knows neither nodes nor a last good configuration"
                );
                Directory::unusable(directory)
            }
            Ok(directory) => directory,
        };
        let zones = read(&directory).unwrap_or_else(|unread| {
            let path = directory.file(NODES);
            tracing::warn!(path = %path.display(), "{unread}; the last known nodes are ignored");
            counters.snapshots_ignored.of(unread.reason()).increment();
            BTreeMap::new()
        });
        let drains = drains::read(&directory);
        let serials = serials::read(&directory);
        let shared = Arc::new(Shared {
            known: Mutex::new(Known { zones, drains, serials, ..Known::default() }),
            changed: Notify::new(),
            directory: Mutex::new(directory),
            max_age,
            counters,
        });
        Ok((Self(shared.clone()), SnapshotWriter(shared)))
    }

    /// The nodes last learnt from this cluster for a zone, unless they are too old.
    ///
    /// An entry that is ignored is reported and counted. It stays until the zone learns nodes: an error in the
    /// configuration, or a wrong clock, can still be corrected.
    pub fn recall(&self, zone: &ZoneName, cluster: &Cluster) -> Option<LastKnown> {
        let entry = self.0.known().zones.get(zone)?.clone();
        match why_ignored(&entry, fingerprint(cluster), self.0.max_age, SystemTime::now()) {
            None => {
                let seeds_edited = entry.seeds != seeds_digest(cluster);
                Some(LastKnown { nodes: entry.nodes, seeds_edited, written: entry.written })
            }
            Some(reason) => {
                tracing::warn!(%zone, reason = reason.word(), "the last known nodes are ignored: {}", because(reason));
                self.0.counters.snapshots_ignored.of(reason).increment();
                None
            }
        }
    }

    /// Keeps the nodes that a cluster has just confirmed. Call it with every accepted list, even an unchanged one, because
    /// that renews the time; never with recalled nodes. Costs about a microsecond.
    pub fn remember(&self, zone: &ZoneName, cluster: &Cluster, nodes: &ClusterNodes) {
        self.remember_at(zone, cluster, nodes, SystemTime::now());
    }

    fn remember_at(&self, zone: &ZoneName, cluster: &Cluster, nodes: &ClusterNodes, now: SystemTime) {
        let fingerprint = fingerprint(cluster);
        let seeds = seeds_digest(cluster);
        let written = stamp(now);
        let mut known = self.0.known();
        known.unwritten = true;
        match known.zones.get_mut(zone) {
            Some(entry) if (entry.fingerprint, entry.seeds) == (fingerprint, seeds) && entry.nodes == *nodes => {
                entry.written = written;
                return;
            }
            Some(entry) => *entry = Entry { fingerprint, seeds, written, nodes: nodes.clone() },
            None => _ = known.zones.insert(zone.clone(), Entry { fingerprint, seeds, written, nodes: nodes.clone() }),
        }
        drop(known);
        self.0.changed.notify_one();
    }

    /// Removes a zone that is no longer configured.
    pub fn forget(&self, zone: &ZoneName) {
        self.drop_from(|zones| _ = zones.remove(zone));
    }

    /// Removes every zone but these: some may have been removed from the configuration while no server ran.
    pub fn retain(&self, is_wanted: impl Fn(&ZoneName) -> bool) {
        self.drop_from(|zones| zones.retain(|zone, _| is_wanted(zone)));
    }

    fn drop_from(&self, leave_out: impl FnOnce(&mut BTreeMap<ZoneName, Entry>)) {
        let mut known = self.0.known();
        let before = known.zones.len();
        leave_out(&mut known.zones);
        if known.zones.len() < before {
            known.unwritten = true;
            drop(known);
            self.0.changed.notify_one();
        }
    }

    /// Keeps the files of the configuration that has just been put in force, for a start with one that is refused.
    pub fn keep_configuration(&self, files: &Arc<[SourceFile]>) {
        let mut known = self.0.known();
        known.configuration = Some(files.clone());
        known.configuration_unwritten = true;
        drop(known);
        self.0.changed.notify_one();
    }

    /// Writes what is not yet written, for the last time. Gives up after two seconds.
    pub async fn flush(&self) {
        match timeout(FLUSH_MAX, write(&self.0)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last known nodes could not be written"),
            Err(_) => tracing::warn!("writing the last known nodes takes too long; the server does not wait for it"),
        }
    }
}

impl SnapshotWriter {
    /// Writes when something has changed, at most once a second; else once an hour. Runs until dropped.
    pub async fn run(self) -> Infallible {
        let mut reported = None;
        let mut confirm_at = Instant::now() + CONFIRM_EVERY;
        loop {
            let has_changed = timeout(LOCK_CHECK_EVERY, self.0.changed.notified()).await.is_ok();
            // When the time has come, there may be new times to write.
            if !has_changed && Instant::now() < confirm_at && is_locked(&self.0).await {
                continue;
            }
            confirm_at = Instant::now() + CONFIRM_EVERY;
            let mut pause = WRITE_PAUSE;
            while let Err(error) = write(&self.0).await {
                let text = error.to_string();
                if reported.as_ref() != Some(&text) {
                    error.report();
                    reported = Some(text);
                }
                sleep(pause).await;
                pause = (pause * 2).min(WRITE_PAUSE_MAX);
            }
            if reported.take().is_some() {
                tracing::info!("the last known nodes are written again");
            }
            sleep(WRITE_PAUSE).await;
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is not written yet; blocks for as long as the disk does.
    fn write(&self) -> Result<(), WriteError> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = directory.lock_again();
        if !matches!(is_new, Ok(false)) {
            let mut known = self.known();
            known.unwritten = true;
            known.configuration_unwritten = true;
            known.drains_unwritten = !known.drains.is_empty();
            known.serials_unwritten = !known.serials.is_empty();
        }
        let outcome = is_new.map_err(WriteError::from).and_then(|_| {
            self.write_drains(&directory)?;
            self.write_serials(&directory)?;
            self.write_configuration(&directory)?;
            self.write_nodes(&directory)
        });
        match outcome {
            Ok(false) => {}
            Ok(true) => self.counters.snapshot_writes.of(SnapshotWrite::Ok).increment(),
            Err(_) => self.counters.snapshot_writes.of(SnapshotWrite::Failed).increment(),
        }
        outcome.map(drop)
    }

    /// Returns whether there was something to write.
    fn write_nodes(&self, directory: &Directory) -> Result<bool, WriteError> {
        let zones = {
            // The lock is held only for this copy (2 ms for ten thousand zones), not while the text is made and written.
            let mut known = self.known();
            if !std::mem::take(&mut known.unwritten) {
                return Ok(false);
            }
            known.zones.clone()
        };
        let outcome = replace(directory, NODES, &file::render(&zones));
        outcome.inspect_err(|_| self.known().unwritten = true).map(|()| true)
    }

    fn write_configuration(&self, directory: &Directory) -> Result<(), WriteError> {
        let mut known = self.known();
        if !std::mem::take(&mut known.configuration_unwritten) {
            return Ok(());
        }
        let Some(files) = known.configuration.clone() else { return Ok(()) };
        drop(known);
        let path = directory.file(last_good::NAME);
        let kept = LastGood::read(directory.path()).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), "the last good configuration {error}; it is ignored and replaced");
            None
        });
        if kept.is_some_and(|kept| last_good::digest(&kept.files) == last_good::digest(&files)) {
            return Ok(());
        }
        let outcome = replace(directory, last_good::NAME, &last_good::render(&files, SystemTime::now()));
        outcome.inspect_err(|_| self.known().configuration_unwritten = true)
    }
}

/// Whether the directory is still locked by this process.
async fn is_locked(shared: &Arc<Shared>) -> bool {
    let shared = shared.clone();
    let look = move || shared.directory.lock().unwrap_or_else(PoisonError::into_inner).is_locked();
    spawn_blocking(look).await.unwrap_or(true)
}

async fn write(shared: &Arc<Shared>) -> Result<(), WriteError> {
    let shared = shared.clone();
    spawn_blocking(move || shared.write()).await?
}

fn replace(directory: &Directory, name: &str, text: &str) -> Result<(), WriteError> {
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(WriteError::TooLarge(text.len()));
    }
    directory.write(name, text.as_bytes()).map_err(|error| WriteError::Io { path: directory.file(name), error })
}

fn read(directory: &Directory) -> Result<BTreeMap<ZoneName, Entry>, Unread> {
    match read_bounded(directory, NODES, FILE_OCTETS_MAX)? {
        Some(content) => Ok(file::parse(&content)?),
        None => Ok(BTreeMap::new()),
    }
}

/// What a file of the state directory contains; `None` when there is none.
fn read_bounded(directory: &Directory, name: &str, octets_max: u64) -> Result<Option<Vec<u8>>, Unread> {
    let content = directory::read(&directory.file(name), octets_max)?;
    let is_too_large = content.as_ref().is_some_and(|content| content.len() as u64 > octets_max);
    if is_too_large { Err(Unread::TooLarge(octets_max)) } else { Ok(content) }
}

/// Why an entry is ignored; `None` if it can be used.
fn why_ignored(entry: &Entry, fingerprint: u64, max_age: Duration, now: SystemTime) -> Option<SnapshotIgnored> {
    if entry.fingerprint != fingerprint {
        return Some(SnapshotIgnored::Fingerprint);
    }
    match now.duration_since(entry.written) {
        Ok(age) => (age > max_age).then_some(SnapshotIgnored::Old),
        Err(ahead) => (ahead.duration() > FUTURE_MAX).then_some(SnapshotIgnored::Future),
    }
}

fn because(reason: SnapshotIgnored) -> &'static str {
    match reason {
        SnapshotIgnored::Fingerprint => "they were learnt with another port, scheme, tls or scope",
        SnapshotIgnored::Old => "they are older than snapshot_max_age",
        SnapshotIgnored::Future => "they are from the future, so this machine's clock is or was wrong",
        _ => "the file cannot be used",
    }
}

/// Identifies the seeds, in any order. Other seeds may be of another cluster: that is decided when they have reported.
fn seeds_digest(cluster: &Cluster) -> u64 {
    let mut seeds: Vec<_> = cluster.seeds.iter().map(ToString::to_string).collect();
    seeds.sort();
    config::digest(&serde_json::to_vec(&seeds).unwrap_or_default())
}

/// Identifies how a cluster is polled: what was learnt over one port, scheme or scope means nothing for another one.
///
/// The result is kept in files: it must be the same in every version of this program and on every machine, hence a
/// digest of JSON and not `derive(Hash)`.
fn fingerprint(cluster: &Cluster) -> u64 {
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let tls = match &cluster.scheme {
        Scheme::Http => None,
        Scheme::Https(tls) => {
            let client = tls.client.as_ref().map(|(cert, key)| (path(cert), path(key)));
            Some((tls.ca.as_ref().map(path), &tls.server_name, client, tls.insecure))
        }
    };
    let scope: Vec<_> = cluster.scope.iter().map(|scope| (&scope.datacenters, &scope.rack)).collect();
    // Strings, numbers and lists of them can always be serialized.
    config::digest(&serde_json::to_vec(&(cluster.port, tls, scope)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::metrics::Label as _;
    use crate::test_directory::TestDirectory;
    use std::fs;
    use tokio_util::task::AbortOnDropHandle;

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    fn nodes(texts: &[&str]) -> ClusterNodes {
        ClusterNodes::of(set(texts))
    }

    fn set(texts: &[&str]) -> NodeSet {
        NodeSet::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    /// The cluster of a zone with these keys.
    fn cluster(keys: &str) -> Cluster {
        let text = format!("[zones.\"a\"]\n{keys}\n");
        Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap().zones.remove(&name("a")).unwrap().cluster
    }

    fn ours() -> Cluster {
        cluster("seeds = [\"10.0.0.1\", \"n.example\"]")
    }

    fn open(directory: &TestDirectory) -> (SnapshotStore, SnapshotWriter) {
        SnapshotStore::open(directory.path(), WEEK, Arc::default()).unwrap()
    }

    fn ignored(store: &SnapshotStore, reason: SnapshotIgnored) -> u64 {
        store.0.counters.snapshots_ignored.of(reason).value()
    }

    fn writes(store: &SnapshotStore, result: SnapshotWrite) -> u64 {
        store.0.counters.snapshot_writes.of(result).value()
    }

    /// Waits on the paused clock, which advances only while nothing is being written.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = timeout(24 * HOUR, async {
            while !condition() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(waiting.await.is_ok(), "not within the deadline: {what}");
    }

    #[tokio::test]
    async fn what_was_remembered_is_recalled_by_the_next_process() {
        let directory = TestDirectory::new("recall");
        let (store, writer) = open(&directory);
        assert_eq!(store.recall(&name("a"), &ours()), None);
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.1", "10.0.0.2"]));
        store.flush().await;
        drop((store, writer));
        let (store, _writer) = open(&directory);
        let recalled = store.recall(&name("a"), &ours()).unwrap();
        assert_eq!(recalled.nodes, nodes(&["10.0.0.1", "10.0.0.2"]));
        assert!(SystemTime::now().duration_since(recalled.written).unwrap() < HOUR);
        assert_eq!(store.recall(&name("b"), &ours()), None);
    }

    #[test]
    fn another_cluster_s_nodes_are_not_recalled_until_the_keys_are_put_right() {
        let directory = TestDirectory::new("fingerprint");
        let (store, _writer) = open(&directory);
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.2"]));
        let other_port = "seeds = [\"10.0.0.1\", \"n.example\"]\nport = 8001";
        assert_eq!(store.recall(&name("a"), &cluster(other_port)), None);
        assert_eq!(ignored(&store, SnapshotIgnored::Fingerprint), 1);
        assert!(store.recall(&name("a"), &ours()).is_some());
        store.forget(&name("a"));
        assert_eq!(store.recall(&name("a"), &ours()), None);
    }

    #[test]
    fn the_fingerprint_covers_every_key_that_identifies_a_cluster() {
        let of = |keys: &str| fingerprint(&cluster(keys));
        let seeds = "seeds = [\"10.0.0.1\", \"n.example\"]";
        let same =
            ["", "ttl = \"9s\"", "refresh = \"9s\"", "answers = 3", "exclude = [\"10.0.0.9\"]", "health = false"];
        for keys in same {
            assert_eq!(of(&format!("{seeds}\n{keys}")), of(seeds), "{keys}");
        }
        assert_eq!(of("seeds = [\"10.9.9.9\"]"), of(seeds), "other seeds may be of the same cluster");
        assert_eq!(of(seeds), 0x7364_2e36_04d6_52e8, "an update must not invalidate every snapshot");
        let others = [
            "port = 8001",
            "scheme = \"https\"",
            "scheme = \"https\"\ntls = { server_name = \"n\" }",
            "scheme = \"https\"\ntls = { ca = \"n\" }",
            "scheme = \"https\"\ntls = { insecure = true }",
            "scheme = \"https\"\ntls = { cert = \"c\", key = \"k\" }",
            "scope = [{ datacenter = \"d\" }]",
            "scope = [{ datacenter = \"d\", rack = \"r\" }]",
            "scope = [{ datacenter = \"d\" }, { datacenter = \"r\" }]",
            "scope = [{ datacenter = [\"d\", \"r\"] }]",
        ];
        let mut all: Vec<_> = others.iter().map(|keys| of(&format!("{seeds}\n{keys}"))).collect();
        all.push(of(seeds));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn it_is_known_whether_the_seeds_were_edited_since() {
        let directory = TestDirectory::new("seeds");
        let (store, _writer) = open(&directory);
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.2"]));
        let edited = |keys: &str| store.recall(&name("a"), &cluster(keys)).unwrap().seeds_edited;
        assert!(!edited("seeds = [\"10.0.0.1\", \"n.example\"]"));
        assert!(!edited("seeds = [\"n.example\", \"10.0.0.1\"]"), "the order decides only which is polled first");
        assert!(edited("seeds = [\"10.0.0.1\"]") && edited("seeds = [\"10.0.0.1\", \"o.example\"]"));
        assert_eq!(seeds_digest(&ours()), 0x742f_a672_f7c1_00ff, "an update must not make every zone look edited");
    }

    #[test]
    fn an_old_entry_and_one_from_the_future_are_ignored() {
        let written = SystemTime::UNIX_EPOCH + 100 * WEEK;
        let entry = Entry { fingerprint: 1, seeds: 1, written, nodes: nodes(&["10.0.0.1"]) };
        let second = Duration::from_secs(1);
        for (now, expected) in [
            (written, None),
            (written + WEEK, None),
            (written + WEEK + second, Some(SnapshotIgnored::Old)),
            (written - FUTURE_MAX, None),
            (written - FUTURE_MAX - second, Some(SnapshotIgnored::Future)),
        ] {
            assert_eq!(why_ignored(&entry, 1, WEEK, now), expected);
        }
        assert_eq!(why_ignored(&entry, 2, WEEK, written), Some(SnapshotIgnored::Fingerprint));
    }

    #[tokio::test]
    async fn zones_that_are_no_longer_configured_are_left_out() {
        let directory = TestDirectory::new("retain");
        let (store, _writer) = open(&directory);
        for zone in ["a", "b", "c"] {
            store.remember(&name(zone), &ours(), &nodes(&["10.0.0.2"]));
        }
        store.forget(&name("a"));
        store.retain(|zone| *zone != name("b"));
        store.flush().await;
        let text = fs::read_to_string(directory.file("nodes.json")).unwrap();
        assert_eq!(["a", "b", "c"].map(|zone| text.contains(&format!("\"{zone}.\""))), [false, false, true]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_counted_and_never_fatal() {
        let directory = TestDirectory::new("damaged");
        let path = directory.file("nodes.json");
        let reasons_after = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let (store, _writer) = open(&directory);
            assert_eq!(store.recall(&name("a"), &ours()), None);
            SnapshotIgnored::ALL.iter().map(|&reason| ignored(&store, reason)).collect::<Vec<_>>()
        };
        assert_eq!(reasons_after(file::render(&BTreeMap::new()).as_bytes()), [0; 7]);
        assert_eq!(reasons_after(b"")[SnapshotIgnored::Corrupt.index()], 1);
        assert_eq!(reasons_after(b"\xff\x00")[SnapshotIgnored::Corrupt.index()], 1);
        let large = fs::File::create(&path).unwrap();
        large.set_len(FILE_OCTETS_MAX + 1).unwrap();
        let (store, writer) = open(&directory);
        assert_eq!(ignored(&store, SnapshotIgnored::TooLarge), 1);
        drop((store, writer));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let (store, _writer) = open(&directory);
        assert_eq!(ignored(&store, SnapshotIgnored::Unreadable), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_written_at_once_and_at_most_once_a_second() {
        let directory = TestDirectory::new("pace");
        let (store, writer) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.1"]));
        until("the first write", || writes(&store, SnapshotWrite::Ok) == 1).await;
        let start = tokio::time::Instant::now();
        for change in 0..100u8 {
            store.remember(&name("a"), &ours(), &nodes(&[&format!("10.0.1.{change}")]));
            sleep(Duration::from_millis(100)).await;
        }
        let seconds = start.elapsed().as_secs();
        let count = writes(&store, SnapshotWrite::Ok);
        assert!((seconds - 2..=seconds + 1).contains(&count), "{count} writes in {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_nodes_are_written_again_once_an_hour() {
        let directory = TestDirectory::new("confirm");
        let (store, writer) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        let start = SystemTime::now();
        for hour in 0..24 {
            for zone in ["a", "b", "c"] {
                store.remember_at(&name(zone), &ours(), &nodes(&["10.0.0.1"]), start + hour * HOUR);
            }
            sleep(HOUR).await;
        }
        let count = writes(&store, SnapshotWrite::Ok);
        assert!((23..=25).contains(&count), "{count} writes in 24 hours");
        let written = file::parse(&fs::read(directory.file("nodes.json")).unwrap()).unwrap();
        assert!(written.values().all(|entry| entry.written >= stamp(start + 22 * HOUR)));
        sleep(24 * HOUR).await;
        let count_later = writes(&store, SnapshotWrite::Ok);
        assert!(count_later <= count + 1, "nothing is confirmed, so nothing is written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_disk_is_tried_again_less_and_less_often() {
        let directory = TestDirectory::new("failing");
        let (store, writer) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        // A file is in the place of the directory, which cannot be made again.
        fs::remove_dir_all(directory.path()).unwrap();
        fs::write(directory.path(), "").unwrap();
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.1"]));
        sleep(HOUR).await;
        let failed = writes(&store, SnapshotWrite::Failed);
        assert!((50..=70).contains(&failed), "{failed} attempts in an hour");
        fs::remove_file(directory.path()).unwrap();
        until("a good write", || writes(&store, SnapshotWrite::Ok) == 1).await;
        assert!(directory.file("nodes.json").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_removed_is_made_again_with_everything_in_it() {
        let directory = TestDirectory::new("removed");
        let (store, writer) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
        store.remember(&name("a"), &ours(), &nodes(&["10.0.0.1"]));
        let files: Arc<[_]> = [SourceFile { path: "/etc/a.toml".into(), text: "[zones]".into() }].into();
        store.keep_configuration(&files);
        let kept = || LastGood::read(directory.path()).ok().flatten().is_some_and(|kept| kept.files == *files);
        until("both files", || kept() && directory.file("nodes.json").exists()).await;
        fs::remove_dir_all(directory.path()).unwrap();
        until("both files again", || kept() && directory.file("nodes.json").exists()).await;
        assert!(SnapshotStore::open(directory.path(), WEEK, Arc::default()).is_err(), "it is locked again");
    }

    #[tokio::test]
    async fn an_unchanged_configuration_is_not_written_again_and_a_newer_version_is_replaced() {
        let directory = TestDirectory::new("kept");
        let path = LastGood::path(directory.path());
        let files: Arc<[_]> = [SourceFile { path: "/etc/a.toml".into(), text: "[zones]".into() }].into();
        fs::write(&path, last_good::render(&files, SystemTime::UNIX_EPOCH)).unwrap();
        let (store, _writer) = open(&directory);
        store.keep_configuration(&files);
        store.flush().await;
        assert_eq!(LastGood::read(directory.path()).unwrap().unwrap().kept, SystemTime::UNIX_EPOCH);
        fs::write(&path, file::seal("{\"version\": 2,".into())).unwrap();
        assert!(matches!(
            LastGood::read(directory.path()),
            Err(LastGoodError::Content(file::FileError::Version(2, 1)))
        ));
        store.keep_configuration(&files);
        store.flush().await;
        assert!(LastGood::read(directory.path()).unwrap().unwrap().kept > SystemTime::UNIX_EPOCH);
    }

    #[tokio::test]
    async fn ten_thousand_zones_are_written_and_read_again() {
        let directory = TestDirectory::new("many");
        let (store, writer) = open(&directory);
        let cluster = ours();
        let names: Vec<_> = (0..10_000).map(|zone| name(&format!("alternator.z{zone}.example.com"))).collect();
        let three = nodes(&["10.100.200.10", "10.100.200.11", "10.100.200.12"]);
        let clock = std::time::Instant::now();
        for zone in &names {
            store.remember(zone, &cluster, &three);
        }
        let remembered = clock.elapsed();
        let copied = {
            let clock = std::time::Instant::now();
            drop(store.0.known().zones.clone());
            clock.elapsed()
        };
        let clock = std::time::Instant::now();
        let text = file::render(&store.0.known().zones);
        let rendered = clock.elapsed();
        let clock = std::time::Instant::now();
        store.flush().await;
        let written = clock.elapsed();
        drop((store, writer));
        let clock = std::time::Instant::now();
        let (store, _writer) = open(&directory);
        let read = clock.elapsed();
        eprintln!(
            "{} octets; remembered in {remembered:?}, copied in {copied:?}, rendered in {rendered:?}, written in \
             {written:?}, read in {read:?}",
            text.len()
        );
        assert!(text.len() < 2 << 20, "{} octets", text.len());
        assert!(names.iter().all(|zone| store.recall(zone, &cluster).is_some_and(|found| found.nodes == three)));
    }
}

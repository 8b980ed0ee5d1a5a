//! What outlives the process: the last known nodes of each zone, in the state directory.
//!
//! A server that starts while a cluster cannot be reached would know its seeds at best; with a [`SnapshotStore`] it answers
//! the nodes that it knew. They are recalled only for the very cluster that they were learnt from (the fingerprint tells),
//! and not when they are too old. A snapshot that cannot be used is reported, and otherwise ignored.
//!
//! One file holds all zones. With ten thousand zones of three nodes it has 1.7 MB and costs 10 ms of CPU to write,
//! beside one flush of the disk, in a thread for which no task waits; and it is written only when something has
//! changed, at most once a second. A file for each zone would need a flush for each when many zones change at once, as
//! at a start.

mod directory;
mod file;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};

pub use self::directory::SnapshotError;
use self::{
    directory::Directory,
    file::{Entry, FILE_OCTETS_MAX, FileError, stamp},
};
use crate::{
    config::{self, Cluster, Scheme},
    metrics::{ProcessCounters, SnapshotIgnored, SnapshotWrite},
    types::{NodeSet, ZoneName},
};

/// From the end of one write to the beginning of the next: many zones that change at once cost a write or two.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause after a write that failed: a disk that is full for hours is no reason for a thousand attempts.
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is confirmed and does not change is written again so often, for all zones together, because a week without a
/// change must not make a memory a week old. So a memory is at most an hour older than it says, and a quiet server
/// writes once an hour however many zones it has.
const CONFIRM_EVERY: Duration = Duration::from_secs(3600);

/// A clock may have been set back a little since; what lies further ahead says that one of both times is wrong.
const FUTURE_MAX: Duration = Duration::from_secs(86_400);

/// The last write may take so long. systemd waits ten seconds for the whole end.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The last known nodes of every zone. Clones are the same memory; the directory is locked while one of them lives.
#[derive(Clone, Debug)]
pub struct SnapshotStore(Arc<Shared>);

/// Writes a [`SnapshotStore`] down for as long as it runs.
#[derive(Debug)]
pub struct SnapshotWriter(Arc<Shared>);

/// What was known of a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastKnown {
    /// The nodes.
    pub nodes: NodeSet,
    /// When they were last confirmed, give or take an hour.
    pub written: SystemTime,
}

#[derive(Debug)]
struct Shared {
    known: Mutex<Known>,
    /// There is something to write that cannot wait for the hour.
    changed: Notify,
    /// Locked for a whole write, in threads that may block; never while [`Shared::known`] is.
    directory: Mutex<Directory>,
    max_age: Duration,
    counters: Arc<ProcessCounters>,
}

#[derive(Debug, Default)]
struct Known {
    zones: BTreeMap<ZoneName, Entry>,
    /// The file does not say all that is known: at least a time is newer.
    unwritten: bool,
}

impl SnapshotStore {
    /// Takes a directory into possession, creating it if only its last level is missing, and reads what is there.
    ///
    /// What cannot be believed is reported and counted, never an error.
    ///
    /// # Errors
    /// The directory belongs to another instance, cannot be created or is none, or cannot be written in.
    pub fn open(
        directory: &Path,
        max_age: Duration,
        counters: Arc<ProcessCounters>,
    ) -> Result<(Self, SnapshotWriter), SnapshotError> {
        let directory = Directory::lock(directory)?;
        let zones = read(&directory).unwrap_or_else(|unread| {
            let path = directory.nodes();
            tracing::warn!(path = %path.display(), "{unread}; the last known nodes are ignored");
            counters.snapshots_ignored.of(unread.reason()).increment();
            BTreeMap::new()
        });
        let shared = Arc::new(Shared {
            known: Mutex::new(Known { zones, unwritten: false }),
            changed: Notify::new(),
            directory: Mutex::new(directory),
            max_age,
            counters,
        });
        Ok((Self(shared.clone()), SnapshotWriter(shared)))
    }

    /// What was known of a zone when it was last learnt from this cluster; nothing that is too old.
    ///
    /// What is not believed is reported and counted, and stays until the zone learns something: an error in the file,
    /// or a clock that is wrong, can still be put right.
    pub fn recall(&self, zone: &ZoneName, cluster: &Cluster) -> Option<LastKnown> {
        let entry = self.0.known().zones.get(zone)?.clone();
        match doubt(&entry, fingerprint(cluster), self.0.max_age, SystemTime::now()) {
            None => Some(LastKnown { nodes: entry.nodes, written: entry.written }),
            Some(reason) => {
                tracing::warn!(%zone, reason = reason.word(), "the last known nodes are ignored: {}", because(reason));
                self.0.counters.snapshots_ignored.of(reason).increment();
                None
            }
        }
    }

    /// Keeps what a cluster has just told. Call it with every list that is believed, also when it says nothing new,
    /// because that keeps the memory young; never with what was only recalled. Costs about a microsecond.
    pub fn remember(&self, zone: &ZoneName, cluster: &Cluster, nodes: &NodeSet) {
        self.remember_at(zone, cluster, nodes, SystemTime::now());
    }

    fn remember_at(&self, zone: &ZoneName, cluster: &Cluster, nodes: &NodeSet, now: SystemTime) {
        let (fingerprint, written) = (fingerprint(cluster), stamp(now));
        let mut known = self.0.known();
        known.unwritten = true;
        match known.zones.get_mut(zone) {
            Some(entry) if entry.fingerprint == fingerprint && entry.nodes == *nodes => {
                entry.written = written;
                return;
            }
            Some(entry) => *entry = Entry { fingerprint, written, nodes: nodes.clone() },
            None => _ = known.zones.insert(zone.clone(), Entry { fingerprint, written, nodes: nodes.clone() }),
        }
        drop(known);
        self.0.changed.notify_one();
    }

    /// Forgets a zone that has left the configuration.
    pub fn forget(&self, zone: &ZoneName) {
        self.drop_from(|zones| _ = zones.remove(zone));
    }

    /// Forgets every zone but these: some may have left the configuration while no server ran.
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

    /// Writes down what is not yet written, for the last time. Gives up after two seconds.
    pub async fn flush(&self) {
        match timeout(FLUSH_MAX, write(&self.0)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last known nodes could not be written"),
            Err(_) => tracing::warn!("writing the last known nodes takes too long and is left to itself"),
        }
    }
}

impl SnapshotWriter {
    /// Writes when something has changed, at most once a second; else once an hour. Runs until dropped.
    pub async fn run(self) -> Infallible {
        let mut refusal = None;
        loop {
            // Either way there may be something to write.
            let _ = timeout(CONFIRM_EVERY, self.0.changed.notified()).await;
            let mut pause = WRITE_PAUSE;
            while let Err(error) = write(&self.0).await {
                if refusal.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the last known nodes cannot be written; trying again");
                    refusal = Some(error);
                }
                sleep(pause).await;
                pause = (pause * 2).min(WRITE_PAUSE_MAX);
            }
            if refusal.take().is_some() {
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
    fn write(&self) -> Result<(), String> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        let zones = {
            // No task waits for the disk, nor for the text: only the list is copied here (2 ms for ten thousand zones).
            let mut known = self.known();
            if !std::mem::take(&mut known.unwritten) {
                return Ok(());
            }
            known.zones.clone()
        };
        let outcome = replace(&directory, &file::render(&zones));
        let result = if outcome.is_ok() { SnapshotWrite::Ok } else { SnapshotWrite::Failed };
        self.counters.snapshot_writes.of(result).increment();
        outcome.inspect_err(|_| self.known().unwritten = true)
    }
}

async fn write(shared: &Arc<Shared>) -> Result<(), String> {
    let shared = shared.clone();
    spawn_blocking(move || shared.write()).await.unwrap_or_else(|lost| Err(lost.to_string()))
}

fn replace(directory: &Directory, text: &str) -> Result<(), String> {
    if text.len() as u64 > FILE_OCTETS_MAX {
        return Err(format!("they take {} octets; {FILE_OCTETS_MAX} are allowed", text.len()));
    }
    directory.write(text.as_bytes()).map_err(|error| format!("{}: {error}", directory.nodes().display()))
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the file is larger than {} MiB", FILE_OCTETS_MAX >> 20)]
    TooLarge,
    #[error("the file {0}")]
    Content(#[from] FileError),
}

impl Unread {
    fn reason(&self) -> SnapshotIgnored {
        match self {
            Self::Io(_) => SnapshotIgnored::Unreadable,
            Self::TooLarge => SnapshotIgnored::TooLarge,
            Self::Content(FileError::Version(_)) => SnapshotIgnored::Version,
            Self::Content(_) => SnapshotIgnored::Corrupt,
        }
    }
}

fn read(directory: &Directory) -> Result<BTreeMap<ZoneName, Entry>, Unread> {
    match directory.read(FILE_OCTETS_MAX)? {
        Some(content) if content.len() as u64 > FILE_OCTETS_MAX => Err(Unread::TooLarge),
        Some(content) => Ok(file::parse(&content)?),
        None => Ok(BTreeMap::new()),
    }
}

/// Reads what a file holds and writes it again; `None` when it is not believed. Public so that a fuzzer gets at both
/// without a disk.
#[doc(hidden)]
pub fn rewrite_snapshot(content: &[u8]) -> Option<String> {
    file::parse(content).ok().map(|zones| file::render(&zones))
}

/// Why an entry is not believed, if it is not.
fn doubt(entry: &Entry, fingerprint: u64, max_age: Duration, now: SystemTime) -> Option<SnapshotIgnored> {
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
        SnapshotIgnored::Fingerprint => "they were learnt with other seeds, port, scheme, tls or scope",
        SnapshotIgnored::Old => "they are older than snapshot_max_age",
        SnapshotIgnored::Future => "they are from the future, so this machine's clock is or was wrong",
        _ => "the file cannot be believed",
    }
}

/// Stands for whom we ask and how: what was learnt from one cluster is never answered for another.
///
/// The order of seeds says only who is asked first, so it does not count. The result is kept in files: it must be the
/// same in every version of this program and on every machine, hence JSON and not what `derive(Hash)` makes of it.
fn fingerprint(cluster: &Cluster) -> u64 {
    let mut seeds: Vec<_> = cluster.seeds.iter().map(ToString::to_string).collect();
    seeds.sort();
    let path = |path: &PathBuf| path.to_string_lossy().into_owned();
    let tls = match &cluster.scheme {
        Scheme::Http => None,
        Scheme::Https(tls) => {
            let client = tls.client.as_ref().map(|(cert, key)| (path(cert), path(key)));
            Some((tls.ca.as_ref().map(path), &tls.server_name, client, tls.insecure))
        }
    };
    let scope: Vec<_> = cluster.scope.iter().map(|scope| (&scope.datacenters, &scope.rack)).collect();
    // Only what has no text can fail, and here are texts, numbers and lists of them.
    config::digest(&serde_json::to_vec(&(seeds, cluster.port, tls, scope)).unwrap_or_default())
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

    fn nodes(texts: &[&str]) -> NodeSet {
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

    fn ignored(memory: &SnapshotStore, reason: SnapshotIgnored) -> u64 {
        memory.0.counters.snapshots_ignored.of(reason).value()
    }

    fn writes(memory: &SnapshotStore, result: SnapshotWrite) -> u64 {
        memory.0.counters.snapshot_writes.of(result).value()
    }

    /// Waits on the clock that stands still: it moves only while nothing is being written.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let patience = timeout(24 * HOUR, async {
            while !condition() {
                sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(patience.await.is_ok(), "not within the deadline: {what}");
    }

    #[tokio::test]
    async fn what_was_remembered_is_recalled_by_the_next_process() {
        let directory = TestDirectory::new("recall");
        let (memory, keeper) = open(&directory);
        assert_eq!(memory.recall(&name("a"), &ours()), None);
        memory.remember(&name("a"), &ours(), &nodes(&["10.0.0.1", "10.0.0.2"]));
        memory.flush().await;
        drop((memory, keeper));
        let (memory, _keeper) = open(&directory);
        let recalled = memory.recall(&name("a"), &ours()).unwrap();
        assert_eq!(recalled.nodes, nodes(&["10.0.0.1", "10.0.0.2"]));
        assert!(SystemTime::now().duration_since(recalled.written).unwrap() < HOUR);
        assert_eq!(memory.recall(&name("b"), &ours()), None);
    }

    #[test]
    fn another_cluster_s_nodes_are_not_recalled_until_the_keys_are_put_right() {
        let directory = TestDirectory::new("fingerprint");
        let (memory, _keeper) = open(&directory);
        memory.remember(&name("a"), &ours(), &nodes(&["10.0.0.2"]));
        assert_eq!(memory.recall(&name("a"), &cluster("seeds = [\"10.9.9.9\"]")), None);
        assert_eq!(ignored(&memory, SnapshotIgnored::Fingerprint), 1);
        assert!(memory.recall(&name("a"), &ours()).is_some());
        memory.forget(&name("a"));
        assert_eq!(memory.recall(&name("a"), &ours()), None);
    }

    #[test]
    fn the_fingerprint_is_of_whom_we_ask_and_how() {
        let of = |keys: &str| fingerprint(&cluster(keys));
        let seeds = "seeds = [\"10.0.0.1\", \"n.example\"]";
        let same =
            ["", "ttl = \"9s\"", "refresh = \"9s\"", "answers = 2", "exclude = [\"10.0.0.9\"]", "health = false"];
        for keys in same {
            assert_eq!(of(&format!("{seeds}\n{keys}")), of(seeds), "{keys}");
        }
        assert_eq!(of("seeds = [\"n.example\", \"10.0.0.1\"]"), of(seeds), "the order says only who is asked first");
        assert_eq!(of(seeds), 0xef18_6b27_9db1_17fe, "an update must not forget everything");
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
        all.extend([of(seeds), of("seeds = [\"10.0.0.1\"]"), of("seeds = [\"10.0.0.1\", \"o.example\"]")]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn an_old_memory_and_one_from_the_future_are_doubted() {
        let written = SystemTime::UNIX_EPOCH + 100 * WEEK;
        let entry = Entry { fingerprint: 1, written, nodes: nodes(&["10.0.0.1"]) };
        let second = Duration::from_secs(1);
        for (now, expected) in [
            (written, None),
            (written + WEEK, None),
            (written + WEEK + second, Some(SnapshotIgnored::Old)),
            (written - FUTURE_MAX, None),
            (written - FUTURE_MAX - second, Some(SnapshotIgnored::Future)),
        ] {
            assert_eq!(doubt(&entry, 1, WEEK, now), expected);
        }
        assert_eq!(doubt(&entry, 2, WEEK, written), Some(SnapshotIgnored::Fingerprint));
    }

    #[tokio::test]
    async fn zones_that_are_wanted_no_more_are_left_out() {
        let directory = TestDirectory::new("retain");
        let (memory, _keeper) = open(&directory);
        for zone in ["a", "b", "c"] {
            memory.remember(&name(zone), &ours(), &nodes(&["10.0.0.2"]));
        }
        memory.forget(&name("a"));
        memory.retain(|zone| *zone != name("b"));
        memory.flush().await;
        let text = fs::read_to_string(directory.file("nodes.json")).unwrap();
        assert_eq!(["a", "b", "c"].map(|zone| text.contains(&format!("\"{zone}.\""))), [false, false, true]);
    }

    #[test]
    fn a_file_that_cannot_be_believed_is_counted_and_never_fatal() {
        let directory = TestDirectory::new("damaged");
        let path = directory.file("nodes.json");
        let reasons_after = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            let (memory, _keeper) = open(&directory);
            assert_eq!(memory.recall(&name("a"), &ours()), None);
            SnapshotIgnored::ALL.iter().map(|&reason| ignored(&memory, reason)).collect::<Vec<_>>()
        };
        assert_eq!(reasons_after(file::render(&BTreeMap::new()).as_bytes()), [0; 7]);
        assert_eq!(reasons_after(b"")[SnapshotIgnored::Corrupt.index()], 1);
        assert_eq!(reasons_after(b"\xff\x00")[SnapshotIgnored::Corrupt.index()], 1);
        let large = fs::File::create(&path).unwrap();
        large.set_len(FILE_OCTETS_MAX + 1).unwrap();
        let (memory, keeper) = open(&directory);
        assert_eq!(ignored(&memory, SnapshotIgnored::TooLarge), 1);
        drop((memory, keeper));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let (memory, _keeper) = open(&directory);
        assert_eq!(ignored(&memory, SnapshotIgnored::Unreadable), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_written_at_once_and_at_most_once_a_second() {
        let directory = TestDirectory::new("pace");
        let (memory, keeper) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        memory.remember(&name("a"), &ours(), &nodes(&["10.0.0.1"]));
        until("the first write", || writes(&memory, SnapshotWrite::Ok) == 1).await;
        let start = tokio::time::Instant::now();
        for change in 0..100u8 {
            memory.remember(&name("a"), &ours(), &nodes(&[&format!("10.0.1.{change}")]));
            sleep(Duration::from_millis(100)).await;
        }
        let seconds = start.elapsed().as_secs();
        let count = writes(&memory, SnapshotWrite::Ok);
        assert!((seconds - 2..=seconds + 1).contains(&count), "{count} writes in {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_changes_stays_young_with_one_write_an_hour() {
        let directory = TestDirectory::new("confirm");
        let (memory, keeper) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        let start = SystemTime::now();
        for hour in 0..24 {
            for zone in ["a", "b", "c"] {
                memory.remember_at(&name(zone), &ours(), &nodes(&["10.0.0.1"]), start + hour * HOUR);
            }
            sleep(HOUR).await;
        }
        let count = writes(&memory, SnapshotWrite::Ok);
        assert!((23..=25).contains(&count), "{count} writes in 24 hours");
        let written = file::parse(&fs::read(directory.file("nodes.json")).unwrap()).unwrap();
        assert!(written.values().all(|entry| entry.written >= stamp(start + 22 * HOUR)));
        sleep(24 * HOUR).await;
        let count_later = writes(&memory, SnapshotWrite::Ok);
        assert!(count_later <= count + 1, "nothing is confirmed, so nothing is written");
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_in_trouble_is_tried_again_ever_less_often() {
        let directory = TestDirectory::new("trouble");
        let (memory, keeper) = open(&directory);
        let _task = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        fs::remove_dir_all(directory.path()).unwrap();
        memory.remember(&name("a"), &ours(), &nodes(&["10.0.0.1"]));
        sleep(HOUR).await;
        let failed = writes(&memory, SnapshotWrite::Failed);
        assert!((50..=70).contains(&failed), "{failed} attempts in an hour");
        fs::create_dir(directory.path()).unwrap();
        until("a good write", || writes(&memory, SnapshotWrite::Ok) == 1).await;
        assert!(directory.file("nodes.json").exists());
    }

    #[tokio::test]
    async fn ten_thousand_zones_are_written_and_read_again() {
        let directory = TestDirectory::new("many");
        let (memory, keeper) = open(&directory);
        let cluster = ours();
        let names: Vec<_> = (0..10_000).map(|zone| name(&format!("alternator.z{zone}.example.com"))).collect();
        let three = nodes(&["10.100.200.10", "10.100.200.11", "10.100.200.12"]);
        let clock = std::time::Instant::now();
        for zone in &names {
            memory.remember(zone, &cluster, &three);
        }
        let remembered = clock.elapsed();
        let copied = {
            let clock = std::time::Instant::now();
            drop(memory.0.known().zones.clone());
            clock.elapsed()
        };
        let clock = std::time::Instant::now();
        let text = file::render(&memory.0.known().zones);
        let rendered = clock.elapsed();
        let clock = std::time::Instant::now();
        memory.flush().await;
        let written = clock.elapsed();
        drop((memory, keeper));
        let clock = std::time::Instant::now();
        let (memory, _keeper) = open(&directory);
        let read = clock.elapsed();
        eprintln!(
            "{} octets; remembered in {remembered:?}, copied in {copied:?}, rendered in {rendered:?}, written in \
             {written:?}, read in {read:?}",
            text.len()
        );
        assert!(text.len() < 2 << 20, "{} octets", text.len());
        assert!(names.iter().all(|zone| memory.recall(zone, &cluster).is_some_and(|found| found.nodes == three)));
    }
}

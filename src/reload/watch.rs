//! Notices that something happened near a file. What happened, only the file itself shows; events add whether a writer
//! still has it open.
//!
//! Looking for the directories blocks where a file system hangs, so it is done beside the runtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{sync::watch, time::Instant};

use super::{files::ConfigFiles, settle::Writes};
use crate::{config::IncludePattern, net::watched::FileReader};

/// Links that are followed before the chain counts as a loop, as the kernel does.
const LINKS_MAX: usize = 40;

/// Only inotify reports that a writer closes a file. Elsewhere a write must not wait for it.
const CLOSE_IS_REPORTED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// A directory's identity; the same path can become another directory.
type Identity = (u64, u64);

/// Watches the directories through which a file is reached.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    included: Arc<Included>,
    reader: FileReader,
    /// Locked by the thread that arms it; the reader lets one do so at a time.
    armed: Arc<Mutex<Armed>>,
    activity: watch::Receiver<Activity>,
}

/// What is watched beside the main file.
#[derive(Debug, Default, Eq, PartialEq)]
struct Included {
    files: Vec<PathBuf>,
    /// Each with its directory, in which other files may appear.
    patterns: Vec<(PathBuf, IncludePattern)>,
}

/// What was reported so far.
#[derive(Debug, Default)]
struct Activity {
    /// The last components of the files' names, behind all links. Events of the watched directories name files; one that
    /// is called the same in another of them is taken for one of these, which only delays a reload.
    file_names: BTreeSet<OsString>,
    /// What other files may be called that are included once they exist.
    patterns: Vec<IncludePattern>,
    /// Files with a writer that has written and not closed them yet.
    open: BTreeSet<OsString>,
    last: Option<Instant>,
}

/// The directories that are watched.
#[derive(Debug)]
struct Armed {
    watcher: Watcher,
    directories: BTreeMap<PathBuf, Identity>,
    activity: watch::Sender<Activity>,
}

#[derive(Debug)]
enum Watcher {
    NotStarted,
    /// The system gives none (its limit is reached): then only the slow timer looks.
    Unavailable,
    Running(RecommendedWatcher),
}

impl Watch {
    /// Watches nothing before it is armed.
    pub(super) fn new(path: PathBuf, reader: FileReader) -> Self {
        let (sender, activity) = watch::channel(Activity::default());
        let armed = Armed { watcher: Watcher::NotStarted, directories: BTreeMap::new(), activity: sender };
        Self { path, included: Arc::default(), reader, armed: Arc::new(Mutex::new(armed)), activity }
    }

    /// Watches what these files include, from the next [`Self::arm`] on. Returns whether that is something else than before.
    pub(super) fn follow(&mut self, files: &ConfigFiles) -> bool {
        // Without the main file nothing is known of the others.
        if files.main().is_none() {
            return false;
        }
        let patterns = files.includes().iter().map(|entry| (entry.directory(&self.path), entry.clone()));
        let included = Included { files: files.included().map(Into::into).collect(), patterns: patterns.collect() };
        let is_other = *self.included != included;
        if is_other {
            self.included = Arc::new(included);
        }
        is_other
    }

    /// Waits for the next event.
    pub(super) async fn event(&mut self) {
        if self.activity.changed().await.is_err() {
            // The sender lives in `self`, so this cannot be; and if it were, the slow timer remains.
            std::future::pending::<()>().await;
        }
    }

    /// What was reported about writers of the files.
    pub(super) fn writes(&self) -> Writes {
        self.activity.borrow().writes()
    }

    /// Watches every directory that now leads to the files, and no longer those that did. Gives up waiting when a file
    /// system does not answer; then the slow timer remains.
    pub(super) async fn arm(&mut self) {
        let (armed, path, included) = (self.armed.clone(), self.path.clone(), self.included.clone());
        let arm = move || armed.lock().unwrap_or_else(PoisonError::into_inner).arm(&path, &included);
        if let Err(reason) = self.reader.run(&self.path, arm).await {
            tracing::debug!(path = %self.path.display(), %reason, "the directories of the file cannot be watched now");
        }
    }
}

impl Armed {
    fn arm(&mut self, path: &Path, included: &Included) {
        if matches!(self.watcher, Watcher::NotStarted) {
            self.watcher = start_watcher(self.activity.clone());
        }
        let real_name = |path: &Path| {
            let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
            file.file_name().unwrap_or_default().to_owned()
        };
        let file_names =
            std::iter::once(path).chain(included.files.iter().map(PathBuf::as_path)).map(real_name).collect();
        let patterns = included.patterns.iter().map(|(_, pattern)| pattern.clone()).collect();
        self.activity.send_if_modified(|activity| {
            (activity.file_names, activity.patterns) = (file_names, patterns);
            // Nothing has happened to the files.
            false
        });
        let Watcher::Running(watcher) = &mut self.watcher else { return };
        let wanted = all_directories(path, included);
        for (gone, _) in self.directories.extract_if(.., |path, identity| wanted.get(path) != Some(identity)) {
            // A directory that was removed has lost its watch already.
            let _ = watcher.unwatch(&gone);
        }
        for (directory, identity) in wanted {
            if self.directories.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.directories.insert(directory, identity),
                Err(error) => tracing::debug!(directory = %directory.display(), %error, "cannot watch"),
            }
        }
    }
}

fn start_watcher(activity: watch::Sender<Activity>) -> Watcher {
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let now = Instant::now();
        activity.send_if_modified(|activity| activity.note(event, now));
    });
    match watcher {
        Ok(watcher) => Watcher::Running(watcher),
        Err(error) => {
            tracing::warn!(%error, "the system gives no watch, so changes of the file are noticed by the slow timer only");
            Watcher::Unavailable
        }
    }
}

impl Activity {
    fn writes(&self) -> Writes {
        Writes { last: self.last, is_open: !self.open.is_empty() }
    }

    fn is_ours(&self, name: &OsStr) -> bool {
        let matches = |name: &str| self.patterns.iter().any(|pattern| pattern.matches(name));
        self.file_names.contains(name) || name.to_str().is_some_and(matches)
    }

    /// Takes an event in. Returns whether the file may have changed.
    fn note(&mut self, event: notify::Result<Event>, now: Instant) -> bool {
        let Ok(event) = event else {
            self.open.clear();
            return true;
        };
        let names = event.paths.iter().filter_map(|path| path.file_name());
        let named: Vec<_> = names.filter(|name| self.is_ours(name)).map(ToOwned::to_owned).collect();
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) if !named.is_empty() => {
                self.last = Some(now);
                if CLOSE_IS_REPORTED {
                    self.open.extend(named);
                }
            }
            EventKind::Access(AccessKind::Close(AccessMode::Write)) if !named.is_empty() => {
                self.last = Some(now);
                self.open.retain(|name| !named.contains(name));
            }
            // Another file has the name from now on.
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                self.open.retain(|name| !named.contains(name));
            }
            // Events were lost, perhaps that of a close.
            _ if event.need_rescan() => self.open.clear(),
            _ => {}
        }
        is_change(event.kind)
    }
}

/// Our own reads come back as accesses; only a writer's close is one that matters.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The directories of all files. Those of included files are the patterns' own, but for files that are links.
fn all_directories(path: &Path, included: &Included) -> BTreeMap<PathBuf, Identity> {
    let mut all = directories(path);
    for (directory, pattern) in &included.patterns {
        // The name of no file, or of one of them: what counts is the way there.
        all.append(&mut directories(&directory.join(pattern.only_name().unwrap_or("*"))));
    }
    for file in included.files.iter().filter(|file| file.is_symlink()) {
        all.append(&mut directories(file));
    }
    all
}

/// The directory of the file, of every link on the way to it, and of their targets; where one is missing, the nearest
/// above it, in which it will appear.
fn directories(path: &Path) -> BTreeMap<PathBuf, Identity> {
    let mut directories = BTreeMap::new();
    let mut to_follow = vec![std::path::absolute(path).unwrap_or_else(|_| path.into())];
    let mut links = 0;
    while let Some(path) = to_follow.pop() {
        for (depth, place) in path.ancestors().enumerate() {
            let Some(parent) = place.parent() else { break };
            let target = std::fs::read_link(place).ok();
            if depth == 0 || target.is_some() {
                add(parent, &mut directories);
            }
            if let Some(target) = target
                && links < LINKS_MAX
            {
                links += 1;
                to_follow.push(parent.join(target));
            }
        }
    }
    directories
}

fn add(directory: &Path, directories: &mut BTreeMap<PathBuf, Identity>) {
    let existing = directory.ancestors().find_map(|place| Some((place, std::fs::metadata(place).ok()?)));
    if let Some((place, metadata)) = existing {
        directories.insert(place.into(), (metadata.dev(), metadata.ino()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory::TestDirectory;
    use std::os::unix::fs::symlink;

    use notify::event::{CreateKind, DataChange, RenameMode};

    #[test]
    fn every_directory_on_the_way_is_watched() {
        let directory = TestDirectory::new("watch");
        let etc = directory.file("etc");
        let first = directory.file("etc/..first");
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("config.toml"), "").unwrap();
        symlink("..first", etc.join("..data")).unwrap();
        symlink("..data/config.toml", etc.join("config.toml")).unwrap();
        symlink("loop", etc.join("loop")).unwrap();
        let watched = directories(&etc.join("config.toml"));
        let looped = directories(&etc.join("loop"));
        let missing = directories(&directory.file("gone/too/config.toml"));
        assert!(watched.contains_key(&etc), "the link's own directory sees the swap of ..data");
        assert!(watched.contains_key(&etc.join("..data")), "and so is its target's: {watched:?}");
        assert!(looped.contains_key(&etc));
        assert!(missing.contains_key(directory.path()), "what is gone comes back there: {missing:?}");
    }

    #[test]
    fn our_own_reads_are_not_changes() {
        assert!(!is_change(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!is_change(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(EventKind::Any));
    }

    fn named(file: &str) -> Activity {
        Activity { file_names: BTreeSet::from([file.into()]), ..Activity::default() }
    }

    #[test]
    fn writers_of_two_files_are_distinguished_also_of_one_that_is_new() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let mut activity = named("config.toml");
        activity.patterns = vec![IncludePattern::parse("zones.d/*.toml").unwrap()];
        let mut is_open = |kind, name: &str| {
            activity.note(Ok(Event::new(kind).add_path(Path::new("/etc").join(name))), Instant::now());
            activity.writes().is_open
        };
        assert!(is_open(written, "config.toml") && is_open(written, "new.toml"));
        assert!(is_open(closed, "config.toml"), "the other one is still open");
        assert!(!is_open(closed, "new.toml") && !is_open(written, ".new.toml"));
    }

    #[test]
    fn a_writer_is_waited_for_until_it_closes_the_file_or_another_file_takes_the_name() {
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        for (kind, path, is_open) in [
            (closed, "/etc/a/config.toml", false),
            (renamed, "/etc/a/config.toml", false),
            (EventKind::Create(CreateKind::File), "/etc/a/config.toml", false),
            (closed, "/etc/a/other.toml", true),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), "/etc/a/config.toml", true),
        ] {
            let mut activity = named("config.toml");
            let mut note = |kind, path: &str| activity.note(Ok(Event::new(kind).add_path(path.into())), Instant::now());
            assert!(note(written, "/etc/a/config.toml"));
            note(kind, path);
            assert_eq!(activity.writes().is_open, is_open, "{kind:?} of {path}");
            assert!(activity.writes().last.is_some());
        }
        let mut activity = named("config.toml");
        assert!(activity.note(Ok(Event::new(written).add_path("/etc/a/other.toml".into())), Instant::now()));
        assert_eq!(activity.writes(), Writes::default(), "a write of another file");
    }
}

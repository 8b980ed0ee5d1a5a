//! Hears that something happened near a file. What happened, the file itself tells.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::watch;

/// Links that are followed before the chain counts as a loop, as the kernel does.
const LINKS_MAX: usize = 40;

/// A directory's identity; the same path can become another directory.
type Identity = (u64, u64);

/// Watches the directories through which a file is reached.
#[derive(Debug)]
pub(super) struct Watch {
    /// `None` when the system gives none (its limit is reached): then the slow timer alone looks.
    watcher: Option<RecommendedWatcher>,
    armed: BTreeMap<PathBuf, Identity>,
    events: watch::Receiver<u64>,
    /// Keeps the channel open when there is no watcher.
    _sender: watch::Sender<u64>,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Self {
        let (sender, events) = watch::channel(0);
        let hears = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                hears.send_modify(|count| *count += 1);
            }
        });
        let watcher = watcher.map_err(|error| {
            tracing::warn!(%error, "changes of the file will be seen by the slow timer only: the system gives no watch");
        });
        let mut watch = Self { watcher: watcher.ok(), armed: BTreeMap::new(), events, _sender: sender };
        watch.arm(path);
        watch
    }

    /// Waits for the next event.
    pub(super) async fn event(&mut self) {
        if self.events.changed().await.is_err() {
            // The sender lives in `self`, so this cannot be; and if it were, the slow timer remains.
            std::future::pending::<()>().await;
        }
    }

    /// Watches every directory that now leads to the file; forgets those that no longer do.
    pub(super) fn arm(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = directories(path);
        for (gone, _) in self.armed.extract_if(.., |path, identity| wanted.get(path) != Some(identity)) {
            // A directory that was removed has lost its watch already.
            let _ = watcher.unwatch(&gone);
        }
        for (directory, identity) in wanted {
            if self.armed.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => _ = self.armed.insert(directory, identity),
                Err(error) => tracing::debug!(directory = %directory.display(), %error, "cannot watch"),
            }
        }
    }
}

/// Our own reads come back as accesses; only a writer's close is one that matters.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
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
                remember(parent, &mut directories);
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

fn remember(directory: &Path, directories: &mut BTreeMap<PathBuf, Identity>) {
    let existing = directory.ancestors().find_map(|place| Some((place, std::fs::metadata(place).ok()?)));
    if let Some((place, metadata)) = existing {
        directories.insert(place.into(), (metadata.dev(), metadata.ino()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_directory_on_the_way_is_watched() {
        let root = std::env::temp_dir().join(format!("alternator-dns-watch-{}", std::process::id()));
        let (etc, first) = (root.join("etc"), root.join("etc/..first"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("config.toml"), "").unwrap();
        symlink("..first", etc.join("..data")).unwrap();
        symlink("..data/config.toml", etc.join("config.toml")).unwrap();
        symlink("loop", etc.join("loop")).unwrap();
        let watched = directories(&etc.join("config.toml"));
        let looped = directories(&etc.join("loop"));
        let missing = directories(&root.join("gone/too/config.toml"));
        std::fs::remove_dir_all(&root).unwrap();
        assert!(watched.contains_key(&etc), "the link's own directory sees the swap of ..data");
        assert!(watched.contains_key(&etc.join("..data")), "and so is its target's: {watched:?}");
        assert!(looped.contains_key(&etc));
        assert!(missing.contains_key(&root), "what is gone comes back there: {missing:?}");
    }

    #[test]
    fn our_own_reads_are_not_changes() {
        assert!(!is_change(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!is_change(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(is_change(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(is_change(EventKind::Any));
    }
}

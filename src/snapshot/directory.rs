//! The state directory: locked by one process, and never with half a file in it.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};

/// The file that holds what is known.
pub(super) const NODES: &str = "nodes.json";

/// What the name of a file ends with before it is complete. It is in the same directory, because a rename must not cross
/// file systems.
const UNFINISHED: &str = ".new";

/// The process that holds the lock of this file owns the directory. It is never removed: otherwise two instances could
/// each lock a file of that name.
const LOCK: &str = "lock";

/// Addresses of nodes are for the operator alone.
const FILE_MODE: u32 = 0o600;

/// The same for a directory that we create.
const DIRECTORY_MODE: u32 = 0o700;

/// The format of the lock's text. Nothing depends on it but the sentence that refuses a second instance.
const LOCK_VERSION: u32 = 1;

/// A process id has at most seven digits on Linux and ten anywhere; the rest of a longer lock file is not ours.
const HOLDER_OCTETS_MAX: u64 = 32;

/// Why a state directory cannot be used, in a sentence for the person who starts the server.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another instance has locked it.
    #[error(
        "the state directory {} is in use by another alternator-dns{}; stop that one, or give this one a state_dir of \
         its own", directory.display(), by(*holder)
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// The other's process id, if it could be read.
        holder: Option<u32>,
    },
    /// It does not exist and cannot be created.
    #[error("cannot create the state directory {}: {}", directory.display(), plain(error))]
    NotCreated {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It is not a directory.
    #[error("the state directory {} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// Files cannot be written in it.
    #[error("cannot write in the state directory {}: {}", directory.display(), plain(error))]
    NotWritable {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

fn by(holder: Option<u32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// An error of the system without its number, where there is a plain word for it.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "the directory above it does not exist".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            format!("{LOCK} is a symbolic link; remove it")
        }
        _ => error.to_string(),
    }
}

/// A directory that is locked until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The system releases the lock when this file is closed. `None`: the directory cannot be used.
    lock: Option<File>,
}

impl Directory {
    /// Creates the directory if only its last level is missing, locks it, and makes sure that it can be written in.
    pub(super) fn lock(path: &Path) -> Result<Self, SnapshotError> {
        let not_writable = |error| SnapshotError::NotWritable { directory: path.into(), error };
        create(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        // The content of what a link leads to is not ours.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let mut lock = options.open(path.join(LOCK)).map_err(not_writable)?;
        if !lock.metadata().map_err(not_writable)?.is_file() {
            return Err(not_writable(io::Error::other(format!("{LOCK} is not a regular file"))));
        }
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SnapshotError::Locked { directory: path.into(), holder: holder(&lock) });
            }
            Err(TryLockError::Error(error)) => return Err(not_writable(error)),
        }
        // The lock holds without the number in it, which only makes another instance's refusal clearer.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}\nversion {LOCK_VERSION}", std::process::id()));
        let directory = Self { path: path.into(), lock: Some(lock) };
        directory.try_out().map_err(not_writable)?;
        Ok(directory)
    }

    /// A directory that cannot be used now; it is tried again.
    pub(super) fn unusable(path: &Path) -> Self {
        Self { path: path.into(), lock: None }
    }

    /// Whether the lock is still that of the directory. It is not once the directory was removed, or another one is there:
    /// then another instance could lock that.
    pub(super) fn is_locked(&self) -> bool {
        let identity = |metadata: io::Result<Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
        let held = self.lock.as_ref().and_then(|lock| identity(lock.metadata()));
        held.is_some() && held == identity(fs::symlink_metadata(self.path.join(LOCK)))
    }

    /// Locks the directory again, if it is not. Returns whether it is another one now, in which nothing of ours is.
    pub(super) fn lock_again(&mut self) -> Result<bool, SnapshotError> {
        if self.is_locked() {
            return Ok(false);
        }
        let path = self.path.clone();
        *self = Self::lock(&path)?;
        Ok(true)
    }

    /// Where a file of this name is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces a file. Whatever happens meanwhile, the old content or the new one is there, whole.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let (mut file, unfinished) = self.unfinished(name)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(unfinished, self.file(name))?;
        // The name is kept in the directory, so that has to reach the disk as well.
        File::open(&self.path)?.sync_all()
    }

    /// A new file to write in. One that an earlier instance left is removed first, and a link is not followed.
    fn unfinished(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let path = self.path.join(format!("{name}{UNFINISHED}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        Ok((file, path))
    }

    /// Whether files can be made here; better known now than when the first change is lost.
    fn try_out(&self) -> io::Result<()> {
        let (_, path) = self.unfinished(NODES)?;
        fs::remove_file(path)
    }
}

/// What a regular file contains, up to one octet more than `limit`; `None` when there is none. Another kind of file is an
/// error, and a pipe without a writer is not waited for.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map(|_| Some(content))
}

fn create(path: &Path) -> Result<(), SnapshotError> {
    let created = DirBuilder::new().mode(DIRECTORY_MODE).create(path);
    match (fs::metadata(path), created) {
        (Ok(metadata), _) if metadata.is_dir() => Ok(()),
        (Ok(_), _) => Err(SnapshotError::NotDirectory(path.into())),
        (Err(_), Err(error)) | (Err(error), Ok(())) => Err(SnapshotError::NotCreated { directory: path.into(), error }),
    }
}

/// The process id that the lock's holder has written.
fn holder(lock: &File) -> Option<u32> {
    let mut text = String::new();
    lock.take(HOLDER_OCTETS_MAX).read_to_string(&mut text).ok()?;
    // Another version may write more, or something else.
    text.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_directory::TestDirectory;

    #[test]
    fn a_directory_has_one_owner() {
        let test_directory = TestDirectory::new("owner");
        let path = test_directory.file("state");
        let first = Directory::lock(&path).unwrap();
        let refusal = Directory::lock(&path).unwrap_err().to_string();
        let expected = format!(
            "the state directory {} is in use by another alternator-dns (process {}); stop that one, or give this one \
             a state_dir of its own",
            path.display(),
            std::process::id()
        );
        assert_eq!(refusal, expected);
        drop(first);
        Directory::lock(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_a_state_directory_is_refused_in_a_sentence() {
        let test_directory = TestDirectory::new("refused");
        let sentence = |path: &Path| Directory::lock(path).unwrap_err().to_string();
        let deep = test_directory.file("a/b");
        let expected =
            format!("cannot create the state directory {}: the directory above it does not exist", deep.display());
        assert_eq!(sentence(&deep), expected);
        let file = test_directory.file("file");
        fs::write(&file, "").unwrap();
        assert_eq!(sentence(&file), format!("the state directory {} is not a directory", file.display()));
        let inside = sentence(&file.join("b"));
        assert!(inside.starts_with("cannot create the state directory "), "{inside}");
    }

    #[test]
    fn a_write_replaces_the_whole_and_follows_no_link() {
        let test_directory = TestDirectory::new("write");
        let directory = Directory::lock(test_directory.path()).unwrap();
        let path = directory.file(NODES);
        assert_eq!(read(&path, 100).unwrap(), None);
        let elsewhere = test_directory.file("elsewhere");
        fs::write(&elsewhere, "untouched").unwrap();
        std::os::unix::fs::symlink(&elsewhere, test_directory.file("nodes.json.new")).unwrap();
        directory.write(NODES, b"one, and long").unwrap();
        directory.write(NODES, b"two").unwrap();
        assert_eq!(read(&path, 100).unwrap().unwrap(), b"two");
        assert_eq!(read(&path, 1).unwrap().unwrap(), b"tw", "one octet more than allowed shows that it is larger");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, FILE_MODE);
        let mut names: Vec<_> =
            fs::read_dir(test_directory.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["elsewhere", "lock", "nodes.json"]);
    }

    #[test]
    fn a_directory_that_was_made_again_is_locked_again_by_one_process() {
        let test_directory = TestDirectory::new("again");
        let path = test_directory.file("state");
        let mut first = Directory::lock(&path).unwrap();
        assert!(!first.lock_again().unwrap());
        fs::remove_dir_all(&path).unwrap();
        assert!(!first.is_locked());
        assert!(first.lock_again().unwrap() && first.is_locked());
        assert!(Directory::lock(&path).is_err());
        fs::remove_dir_all(&path).unwrap();
        let second = Directory::lock(&path).unwrap();
        assert!(matches!(first.lock_again(), Err(SnapshotError::Locked { holder: Some(_), .. })));
        drop(second);
        assert!(first.lock_again().unwrap());
    }

    #[test]
    fn a_lock_that_is_no_file_is_left_as_it_is() {
        let test_directory = TestDirectory::new("link");
        let victim = test_directory.file("victim");
        fs::write(&victim, "untouched").unwrap();
        let lock = test_directory.file(LOCK);
        std::os::unix::fs::symlink(&victim, &lock).unwrap();
        let said = || Directory::lock(test_directory.path()).unwrap_err().to_string();
        assert!(said().ends_with(": lock is a symbolic link; remove it"), "{}", said());
        assert_eq!(fs::read(&victim).unwrap(), b"untouched");
        fs::remove_file(&lock).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
        assert!(said().ends_with(": lock is not a regular file"), "{}", said());
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_tried_again() {
        let test_directory = TestDirectory::new("later");
        let mut directory = Directory::unusable(&test_directory.file("a/b"));
        assert!(!directory.is_locked() && directory.lock_again().is_err());
        fs::create_dir(test_directory.file("a")).unwrap();
        assert!(directory.lock_again().unwrap() && directory.is_locked());
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let test_directory = TestDirectory::new("pipe");
        let path = test_directory.file(NODES);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(read(&path, 100).unwrap_err().to_string(), "it is not a regular file");
        let directory = Directory::lock(test_directory.path()).unwrap();
        directory.write(NODES, b"one").unwrap();
        assert_eq!(read(&path, 100).unwrap().unwrap(), b"one");
    }
}

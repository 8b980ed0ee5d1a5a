//! The one way to read files that may change while the program runs: the configuration, certificates, keys and secrets.
//!
//! A file is opened and read on a thread that may block, and the caller waits no longer than a deadline, because a file
//! system can hang for minutes. The open never waits for a writer (`O_NONBLOCK`), and whether the file is a regular one
//! is asked of the open descriptor: the name may lead to another file a moment later. At most one thread hangs for each
//! file, and at most `READS_MAX` for one [`FileReader`].

mod error;

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::{File, Metadata, OpenOptions},
    hash::{DefaultHasher, Hasher},
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::OFlags;
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

pub use self::error::{ReadError, ReadFailure};
use crate::systemd::credential::{credential_name, credentials_directory, resolve};

/// How long reading a file may take. A local file takes a millisecond, and all the system's authorities four.
const READ_DEADLINE: Duration = Duration::from_secs(2);

/// Reads of one [`FileReader`] at the same time: each blocks a thread.
const READS_MAX: usize = 16;

/// A file that changed less than this ago may change again and look the same: file systems keep coarse times.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What a file contained.
#[derive(Clone, Debug)]
pub struct FileContent {
    /// All of it.
    pub octets: Vec<u8>,
    /// How the file looked from outside, before its content was read.
    pub stamp: Stamp,
    /// The file cannot change and keep its stamp.
    has_settled: bool,
}

/// What changes when a file is written, replaced, or another one is linked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Device and inode of a file: one that is written in place keeps them, one that is replaced does not.
pub type Inode = (u64, u64);

/// Reads a regular file, or gives `None` where it still looks as given. It may block.
type ReadFile = dyn Fn(&Path, u64, Option<&Stamp>) -> Result<Option<FileContent>, ReadFailure> + Send + Sync;

/// Reads files on threads of its own. Clones share these threads.
#[derive(Clone)]
pub struct FileReader(Arc<Shared>);

struct Shared {
    read: Box<ReadFile>,
    deadline: Duration,
    slots: Arc<Semaphore>,
    /// Held by the thread that reads a file. Only files that are being read, or waited for, are in here.
    turns: Mutex<HashMap<PathBuf, Arc<Turn<()>>>>,
}

impl FileReader {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self::with(read_if_changed, READ_DEADLINE)
    }

    fn with(
        read: impl Fn(&Path, u64, Option<&Stamp>) -> Result<Option<FileContent>, ReadFailure> + Send + Sync + 'static,
        deadline: Duration,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(READS_MAX));
        Self(Arc::new(Shared { read: Box::new(read), deadline, slots, turns: Mutex::default() }))
    }

    /// A regular file's content, of at most `size_max` octets.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular one, is too large, or the file system does not answer in time.
    pub async fn read(&self, path: &Path, size_max: u64) -> Result<FileContent, ReadError> {
        let content = self.read_unless(path, size_max, None).await?;
        // Without a stamp to compare with, there always is a content.
        content.ok_or_else(|| ReadError { path: path.into(), reason: ReadFailure::Other("it has no content".into()) })
    }

    async fn read_unless(
        &self,
        path: &Path,
        size_max: u64,
        known: Option<Stamp>,
    ) -> Result<Option<FileContent>, ReadError> {
        let shared = self.0.clone();
        let own_path = path.to_path_buf();
        let content = self.run(path, move || (shared.read)(&own_path, size_max, known.as_ref())).await;
        content.and_then(|content| content).map_err(|reason| ReadError { path: path.into(), reason })
    }

    /// Runs a job that opens or looks at a file, or at what the path stands for, on a thread that may block. Jobs of one
    /// path wait for each other, so that no more than one hangs.
    ///
    /// # Errors
    /// The file system does not answer in time; then the job goes on. Or the job panics.
    pub async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ReadFailure> {
        let shared = self.0.clone();
        let path = path.to_path_buf();
        let done = async move {
            let turn = shared.turn(&path).lock_owned().await;
            let slot = shared.slots.clone().acquire_owned().await;
            let job = spawn_blocking(move || {
                let done = job();
                drop((slot, turn));
                done
            });
            job.await.map_err(|lost| ReadFailure::Other(lost.to_string()))
        };
        timeout(self.0.deadline, done).await.unwrap_or(Err(ReadFailure::TimedOut))
    }
}

impl Default for FileReader {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileReader").finish_non_exhaustive()
    }
}

impl Shared {
    fn turn(&self, path: &Path) -> Arc<Turn<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(path.into()).or_default().clone()
    }
}

/// Files that are used together, and the value that was made of their last good contents.
#[derive(Debug)]
pub struct WatchedFiles<T, E> {
    paths: Vec<PathBuf>,
    size_max: u64,
    /// How all files looked when [`Self::value`] was made; `None` where they may change and look the same.
    stamps: Option<Vec<Stamp>>,
    /// Of the contents that [`Self::value`] was made of, in place of contents, which may be secret.
    digest: Option<u64>,
    value: Option<Arc<T>>,
    failure: Option<WatchFailure<E>>,
}

/// Why the files cannot be used as they are now.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WatchError<E> {
    /// One of them cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Their contents cannot be used.
    #[error("{0}")]
    Content(E),
}

#[derive(Debug)]
struct WatchFailure<E> {
    error: WatchError<E>,
    is_reported: bool,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look<T, E> {
    /// What was known already: the same contents, or the same error.
    Unchanged,
    /// Another good value, which is used from now on.
    Changed(Arc<T>),
    /// The files are good again, and contain what they did before a reported error.
    Recovered,
    /// The files cannot be used, and this has not been reported before. The last good value stays.
    Failed(WatchError<E>),
}

impl<T, E> WatchedFiles<T, E>
where
    T: Send + 'static,
    E: Clone + Eq + Send + 'static,
{
    /// Watches these files; nothing is read yet.
    pub fn new(paths: Vec<PathBuf>, size_max: u64) -> Self {
        Self { paths, size_max, stamps: None, digest: None, value: None, failure: None }
    }

    /// Reads the files for the first time.
    ///
    /// # Errors
    /// One of them cannot be read, or their contents cannot be used.
    pub async fn open(
        reader: &FileReader,
        paths: Vec<PathBuf>,
        size_max: u64,
        make: impl FnOnce(Vec<Vec<u8>>) -> Result<T, E> + Send + 'static,
    ) -> Result<Self, WatchError<E>> {
        let mut files = Self::new(paths, size_max);
        match files.look(reader, make).await {
            Look::Failed(error) => Err(error),
            // Nothing was known before the first look: where it does not fail, it gives a value.
            Look::Changed(_) | Look::Unchanged | Look::Recovered => Ok(files),
        }
    }

    /// The last good value.
    pub fn value(&self) -> Option<&Arc<T>> {
        self.value.as_ref()
    }

    /// The files, in the order in which `make` gets their contents.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The files' names, as a log line shows them.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }

    /// Why the files cannot be used as they are now.
    pub fn error(&self) -> Option<&WatchError<E>> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// Looks whether the contents have changed, and makes another value of them on a thread that may block.
    ///
    /// Files that belong together are replaced one after the other. So an error is reported when two looks in a row see
    /// it; at once only while there is no good value.
    pub async fn look(
        &mut self,
        reader: &FileReader,
        make: impl FnOnce(Vec<Vec<u8>>) -> Result<T, E> + Send + 'static,
    ) -> Look<T, E> {
        match self.value_now(reader, make).await {
            Ok(value) => {
                let was_reported = self.failure.take().is_some_and(|failure| failure.is_reported);
                match value {
                    Some(value) => Look::Changed(self.value.insert(Arc::new(value)).clone()),
                    None if was_reported => Look::Recovered,
                    None => Look::Unchanged,
                }
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: WatchError<E>) -> Look<T, E> {
        let former = self.failure.take().filter(|former| former.error == error);
        let was_reported = former.as_ref().is_some_and(|former| former.is_reported);
        let is_reported = was_reported || former.is_some() || self.value.is_none();
        self.failure = Some(WatchFailure { error: error.clone(), is_reported });
        if is_reported && !was_reported { Look::Failed(error) } else { Look::Unchanged }
    }

    /// Another value; `None` when the contents are those that the last good one was made of.
    async fn value_now(
        &mut self,
        reader: &FileReader,
        make: impl FnOnce(Vec<Vec<u8>>) -> Result<T, E> + Send + 'static,
    ) -> Result<Option<T>, WatchError<E>> {
        // A file that failed may have been mended without a change of its content: an authority above it, say.
        if self.failure.is_none() && self.looks_the_same(reader).await? {
            return Ok(None);
        }
        let mut contents = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            contents.push(reader.read(path, self.size_max).await?);
        }
        let stamps = contents.iter().map(|content| content.has_settled.then_some(content.stamp)).collect();
        let digest = digest(&contents);
        if self.digest == Some(digest) {
            self.stamps = stamps;
            return Ok(None);
        }
        let octets = contents.into_iter().map(|content| content.octets).collect();
        let made = spawn_blocking(move || make(octets)).await;
        let value = match made {
            Ok(made) => made.map_err(WatchError::Content)?,
            // Only a panic in `make` gets here, or the end of the runtime.
            Err(lost) => {
                let path = self.paths.first().cloned().unwrap_or_default();
                return Err(ReadError { path, reason: ReadFailure::Other(lost.to_string()) }.into());
            }
        };
        self.stamps = stamps;
        self.digest = Some(digest);
        Ok(Some(value))
    }

    async fn looks_the_same(&self, reader: &FileReader) -> Result<bool, ReadError> {
        let Some(stamps) = &self.stamps else { return Ok(false) };
        for (path, stamp) in self.paths.iter().zip(stamps) {
            if reader.read_unless(path, self.size_max, Some(*stamp)).await?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A file's content, also that of a pipe, for which it waits: only for commands that a person runs.
///
/// # Errors
/// It cannot be opened or read, or is larger than `size_max` octets.
pub fn read_any(path: &Path, size_max: u64) -> Result<Vec<u8>, ReadError> {
    let content = File::open(path).map_err(ReadFailure::from).and_then(|file| read_all(file, size_max));
    content.map_err(|reason| ReadError { path: path.into(), reason })
}

/// A regular file's content. It may block: only for jobs of [`FileReader::run`], and for commands.
///
/// # Errors
/// It cannot be opened or read, is not a regular file, or is larger than `size_max` octets.
pub fn read_regular(path: &Path, size_max: u64) -> Result<FileContent, ReadFailure> {
    let content = read_if_changed(path, size_max, None)?;
    // Without a stamp to compare with, there always is a content.
    content.ok_or_else(|| ReadFailure::Other("it has no content".into()))
}

fn read_if_changed(path: &Path, size_max: u64, known: Option<&Stamp>) -> Result<Option<FileContent>, ReadFailure> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(real_path(path)?)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ReadFailure::Directory);
    }
    if !metadata.is_file() {
        return Err(ReadFailure::NotRegular);
    }
    if metadata.len() > size_max {
        return Err(ReadFailure::TooLarge(size_max));
    }
    let stamp = Stamp::of(&metadata);
    let has_settled = stamp.has_settled(SystemTime::now());
    if has_settled && known == Some(&stamp) {
        return Ok(None);
    }
    Ok(Some(FileContent { octets: read_all(file, size_max)?, stamp, has_settled }))
}

/// The path to open: a credential's lies in the directory that systemd has made for this process.
fn real_path(path: &Path) -> Result<Cow<'_, Path>, ReadFailure> {
    let Some(name) = credential_name(path) else { return Ok(path.into()) };
    let directory = credentials_directory();
    let file = resolve(path, directory.as_deref().map(Path::as_os_str)).filter(|file| file.exists());
    file.ok_or_else(|| ReadFailure::NoCredential(name.to_owned()))
}

fn read_all(file: File, size_max: u64) -> Result<Vec<u8>, ReadFailure> {
    if file.metadata()?.len() > size_max {
        return Err(ReadFailure::TooLarge(size_max));
    }
    let mut octets = Vec::new();
    let length = file.take(size_max + 1).read_to_end(&mut octets)?;
    if length as u64 > size_max { Err(ReadFailure::TooLarge(size_max)) } else { Ok(octets) }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            octets: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Whether a later change of the file changes this.
    fn has_settled(&self, now: SystemTime) -> bool {
        let Ok(seconds) = u64::try_from(self.changed.0) else { return false };
        let changed = UNIX_EPOCH + Duration::from_secs(seconds);
        now.duration_since(changed).is_ok_and(|age| age > SETTLED_AFTER)
    }

    /// The file itself.
    pub fn inode(&self) -> Inode {
        (self.device, self.inode)
    }

    /// A file of a test: its inode, and when it was last written.
    #[cfg(test)]
    pub fn example(inode: u64, modified: i64) -> Self {
        Self { device: 1, inode, octets: 0, modified: (modified, 0), changed: (modified, 0) }
    }
}

/// A digest to compare contents within one process.
fn digest(contents: &[FileContent]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for content in contents {
        hasher.write_usize(content.octets.len());
        hasher.write(&content.octets);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
    };

    use super::*;
    use crate::test_directory::TestDirectory;

    fn text(contents: Vec<Vec<u8>>) -> Result<String, String> {
        let text = String::from_utf8(contents.concat()).unwrap();
        if text.contains("bad") { Err(text) } else { Ok(text) }
    }

    #[tokio::test]
    async fn only_a_regular_file_of_the_stated_size_is_read() {
        let directory = TestDirectory::new("kinds");
        let reader = FileReader::new();
        let read = async |path: &Path| reader.read(path, 4).await.map(|content| content.octets).map_err(|e| e.reason);
        assert_eq!(read(&directory.put("four", "four")).await, Ok(b"four".to_vec()));
        assert_eq!(read(&directory.put("five", "fives")).await, Err(ReadFailure::TooLarge(4)));
        assert_eq!(read(directory.path()).await, Err(ReadFailure::Directory));
        assert_eq!(read(&directory.file("missing")).await, Err(ReadFailure::Missing));
        assert_eq!(read(Path::new("/dev/zero")).await, Err(ReadFailure::NotRegular));
        let pipe = directory.file("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe).await, Err(ReadFailure::NotRegular), "without waiting for a writer");
    }

    #[test]
    fn sizes_are_written_in_plain_units() {
        assert_eq!(ReadFailure::TooLarge(64 << 20).to_string(), "it is larger than 64 MiB");
        assert_eq!(ReadFailure::TooLarge(4096).to_string(), "it is larger than 4096 octets");
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_holds_up_one_thread_for_each_file() {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let opens = Arc::new(AtomicUsize::new(0));
        let counted = opens.clone();
        let hang = move |_: &Path, _, _: Option<&Stamp>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = released.lock().unwrap().recv();
            Ok(Some(FileContent { octets: b"late".to_vec(), stamp: Stamp::example(1, 0), has_settled: false }))
        };
        let reader = FileReader::with(hang, Duration::from_millis(50));
        let path = Path::new("/hangs");
        for _ in 0..3 {
            assert_eq!(reader.read(path, 9).await.unwrap_err().reason, ReadFailure::TimedOut);
        }
        assert_eq!(opens.load(Ordering::Relaxed), 1);
        drop(release);
        let content = loop {
            if let Ok(content) = reader.read(path, 9).await {
                break content;
            }
        };
        assert_eq!(content.octets, b"late");
    }

    #[tokio::test]
    async fn the_last_good_value_stays_and_failure_is_reported_once() {
        let directory = TestDirectory::new("value");
        let reader = FileReader::new();
        let paths = vec![directory.put("one", "1"), directory.put("two", "2")];
        let mut files = WatchedFiles::open(&reader, paths, 9, text).await.unwrap();
        let value = files.value().unwrap().clone();
        assert_eq!(*value, "12");
        directory.put("two", "bad");
        assert!(matches!(files.look(&reader, text).await, Look::Unchanged), "a pair may be half replaced");
        assert!(matches!(files.look(&reader, text).await, Look::Failed(WatchError::Content(error)) if error == "1bad"));
        assert!(matches!(files.look(&reader, text).await, Look::Unchanged));
        assert_eq!(**files.value().unwrap(), "12");
        directory.put("two", "2");
        assert!(matches!(files.look(&reader, text).await, Look::Recovered));
        directory.put("two", "3");
        assert!(matches!(files.look(&reader, text).await, Look::Changed(value) if *value == "13"));
        assert!(matches!(files.look(&reader, text).await, Look::Unchanged));
        assert!(files.error().is_none());
    }

    #[tokio::test]
    async fn without_a_good_value_failure_is_reported_at_once() {
        let directory = TestDirectory::new("first");
        let paths = vec![directory.file("missing")];
        let error = WatchedFiles::open(&FileReader::new(), paths, 9, text).await.map(drop).unwrap_err();
        assert!(matches!(error, WatchError::Read(ReadError { reason: ReadFailure::Missing, .. })));
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_may_keep_its_stamp() {
        let directory = TestDirectory::new("stamp");
        let path = directory.put("file", "1");
        let stamp = Stamp::of(&fs::metadata(path).unwrap());
        let now = SystemTime::now();
        assert!(!stamp.has_settled(now));
        assert!(stamp.has_settled(now + 2 * SETTLED_AFTER));
    }
}

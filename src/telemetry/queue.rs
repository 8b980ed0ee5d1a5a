//! Log lines on their way to standard error: a bounded queue, and the thread that writes.
//!
//! Standard error may be a pipe that is not read, and a write to it then waits. Only the writer thread waits; lines that
//! do not fit into the queue meanwhile are counted and lost.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    panic::PanicHookInfo,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// The longest line. The kernel's own log has a bound of this order; a list of a hundred errors is cut.
pub(super) const LINE_OCTETS_MAX: usize = 8 << 10;

/// Lines that wait to be written. A start with ten thousand zones logs more, while the writer writes.
const LINES_MAX: usize = 8 << 10;

/// Octets of all lines that wait.
const OCTETS_MAX: usize = 1 << 20;

/// How long the end of the process waits until the last lines are written.
const FLUSH_DEADLINE: Duration = Duration::from_millis(500);

/// Ends a line that was cut, or a text in it.
pub(super) const CUT_MARK: &str = " [cut]";

/// Lines that were not written, because the queue was full or the write failed.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// The queue of this process, once logging has started.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// Log lines that were lost, because standard error does not take them fast enough, or not at all.
pub fn log_lines_dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Waits until what was logged is written, for half a second at most.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_DEADLINE);
    }
}

/// Writes a command's last text to standard error, and waits for that half a second at most.
pub fn write_last(text: &str) {
    match QUEUE.get() {
        Some(queue) => {
            queue.push_last(format!("{text}\n").into_bytes());
            queue.flush(FLUSH_DEADLINE);
        }
        // A command that does not log has nothing else to do. `eprintln!` would panic where the reader has gone.
        None => _ = writeln!(io::stderr(), "{text}"),
    }
}

/// Starts the writer of this process, and has panics reported through it.
pub(super) fn start() -> io::Result<LogQueue> {
    // A descriptor of its own: the library's lock of standard error would be held during a write that hangs.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = LogQueue::start(stderr)?;
    if QUEUE.set(queue.clone()).is_ok() {
        std::panic::set_hook(Box::new(report_panic));
    }
    Ok(queue)
}

fn report_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let mut text = format!("thread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        text += &backtrace.to_string();
    }
    if let Some(queue) = QUEUE.get() {
        for line in text.lines() {
            queue.push(format!("{line}\n").into_bytes());
        }
    }
}

/// Takes log lines and never waits. Clones are the same queue.
#[derive(Clone, Debug)]
pub(super) struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    octets: usize,
    /// A line was taken and is not written yet.
    is_writing: bool,
}

impl LogQueue {
    fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = queue.0.clone();
        thread::Builder::new().name("log".into()).spawn(move || shared.write(to))?;
        Ok(queue)
    }

    /// Adds a line, cut where it is too long; counts it where there is no space.
    fn push(&self, mut line: Vec<u8>) {
        cut(&mut line);
        let mut state = self.0.lock();
        if state.lines.len() >= LINES_MAX || state.octets + line.len() > OCTETS_MAX {
            DROPPED.fetch_add(1, Relaxed);
            return;
        }
        self.add(&mut state, line);
    }

    /// Adds the last text of the process, also to a queue that is full, and uncut: a list of errors is long.
    fn push_last(&self, text: Vec<u8>) {
        self.add(&mut self.0.lock(), text);
    }

    fn add(&self, state: &mut State, line: Vec<u8>) {
        state.octets += line.len();
        state.lines.push_back(line);
        self.0.filled.notify_one();
    }

    /// Waits until everything is written, or until the deadline.
    fn flush(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let mut state = self.0.lock();
        while state.is_writing || !state.lines.is_empty() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return };
            let waited = self.0.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines for as long as the process runs.
    fn write(&self, mut to: impl Write) {
        loop {
            let line = self.next();
            if to.write_all(&line).is_err() {
                // The reader has gone, or the disk is full. There is no other place to report that.
                DROPPED.fetch_add(1, Relaxed);
            }
            self.lock().is_writing = false;
            self.written.notify_all();
        }
    }

    fn next(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.octets -= line.len();
                state.is_writing = true;
                return line;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<'w> MakeWriter<'w> for LogQueue {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Write for LogQueue {
    /// The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shortens a line to [`LINE_OCTETS_MAX`], between two characters.
fn cut(line: &mut Vec<u8>) {
    if line.len() <= LINE_OCTETS_MAX {
        return;
    }
    let mut end = LINE_OCTETS_MAX - CUT_MARK.len() - 1;
    // The following octets of a character of UTF-8 begin with the bits 10.
    while end > 0 && line[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    line.truncate(end);
    line.extend(CUT_MARK.as_bytes());
    line.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Passes each line on, and waits until it is received.
    struct Reader(mpsc::SyncSender<Vec<u8>>);

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_queue_that_is_not_read_is_bounded_and_holds_up_no_thread() {
        let (sender, lines) = mpsc::sync_channel(0);
        let queue = LogQueue::start(Reader(sender)).unwrap();
        let before = log_lines_dropped();
        let line = vec![b'x'; LINE_OCTETS_MAX];
        let capacity = OCTETS_MAX / LINE_OCTETS_MAX;
        for _ in 0..capacity + 10 {
            queue.push(line.clone());
        }
        // The writer may have taken one line.
        assert!(log_lines_dropped() - before >= 9);
        queue.push_last(b"last\n".to_vec());
        queue.flush(Duration::from_millis(10));
        let mut received = lines.recv().unwrap();
        let mut count = 1;
        while received != b"last\n" {
            assert_eq!(received, line);
            received = lines.recv().unwrap();
            count += 1;
        }
        assert!((capacity + 1..=capacity + 2).contains(&count), "{count}");
        queue.flush(Duration::from_secs(60));
        assert!(queue.0.lock().lines.is_empty());
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut line = "é".repeat(LINE_OCTETS_MAX).into_bytes();
        cut(&mut line);
        let text = String::from_utf8(line).unwrap();
        assert!(text.len() <= LINE_OCTETS_MAX && text.ends_with("é [cut]\n"));
        let mut short = b"short\n".to_vec();
        cut(&mut short);
        assert_eq!(short, b"short\n");
    }
}

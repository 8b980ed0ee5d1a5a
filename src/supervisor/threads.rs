//! The runtime threads, and what the process asks of the system for them.
//!
//! Every part has a runtime of its own: the thread that answers over TCP shares none with the one that does handshakes,
//! the one that waits for upstreams, and the one that learns. The supervisor and the admin interface run on the thread
//! that starts the server.

use std::{io, sync::OnceLock};

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};

/// Added to the niceness of the thread that learns. Where it shares a core with answering threads, a question need not wait
/// until a thousand polls are through; and where all cores are flooded, a quarter of a core remains to learn with
/// (a third of what an answering thread gets), which is what ten thousand zones cost.
const LEARNING_NICE: i32 = 5;

/// Added to the niceness of threads that supervise, read files or draw pages: a client that asks for the status page in a
/// loop must not keep the polls from a busy core.
const LOW_PRIORITY_NICE: i32 = 10;

/// The runtime of the supervisor and the admin interface, for the thread that starts the server. What blocks (reading
/// files, drawing pages) is done on threads of low priority beside it.
///
/// # Errors
/// The system refuses.
pub fn control_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().thread_name("blocking").on_thread_start(lower_priority).build()
}

/// The runtimes besides that of the supervisor. They are dropped after the listeners and tasks that run on them.
pub(super) struct Runtimes {
    pub(super) tcp: RuntimeThread,
    pub(super) encrypted: RuntimeThread,
    pub(super) forward: RuntimeThread,
    pub(super) learning: RuntimeThread,
}

impl Runtimes {
    pub(super) fn start() -> io::Result<Self> {
        let learning = |builder: &mut Builder| _ = builder.on_thread_start(|| lower_by(LEARNING_NICE));
        Ok(Self {
            tcp: RuntimeThread::start("tcp", |_| {})?,
            encrypted: RuntimeThread::start("encrypted", |_| {})?,
            forward: RuntimeThread::start("forward", |_| {})?,
            learning: RuntimeThread::start("learning", learning)?,
        })
    }
}

/// A runtime with one thread, and more only for what blocks.
pub(super) struct RuntimeThread {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl RuntimeThread {
    fn start(name: &str, set_up: impl FnOnce(&mut Builder)) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).enable_all();
        set_up(&mut builder);
        let runtime = builder.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for RuntimeThread {
    fn drop(&mut self) {
        // An ordinary drop waits for the thread, which must not be done inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lets answering threads go before the calling one, and before the threads that it starts. To lower it twice changes nothing.
pub(super) fn lower_priority() {
    lower_by(LOW_PRIORITY_NICE);
}

fn lower_by(nice: i32) {
    static STARTED_WITH: OnceLock<i32> = OnceLock::new();
    // On Linux this is the niceness of the calling thread. The first caller still has that of the process.
    let started_with = STARTED_WITH.get_or_init(|| getpriority_process(None).unwrap_or(0));
    if let Err(error) = setpriority_process(None, started_with + nice) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

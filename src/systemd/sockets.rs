//! Sockets that systemd keeps while no process of the service runs, in its file descriptor store.
//!
//! A process gives systemd a copy of each socket that it binds, under a name ([`SocketName`]). The next process gets all of
//! them, takes those that it wants, and has the others removed. What clients send meanwhile waits in the kernel. A socket
//! has one state, however many copies of it there are: it must not be connected or shut down before it is removed.

mod name;

use std::{
    env,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use listenfd::ListenFd;
use nix::unistd::close;
use sd_notify::{NotifyState, notify_with_fds};
use tokio::{sync::oneshot, time::timeout};

pub use self::name::{SocketName, SocketUse};

/// How long a caller waits until systemd has removed a socket. It takes milliseconds, unless systemd hangs.
const REMOVAL_MAX: Duration = Duration::from_secs(1);

/// The sockets that systemd has kept from an earlier process.
#[derive(Debug, Default)]
pub struct KeptSockets(Vec<KeptSocket>);

/// A socket that systemd has kept.
#[derive(Debug)]
pub struct KeptSocket {
    /// As systemd has it.
    stored_as: String,
    /// `None` where the name says nothing to this version, or the socket is of another type than its name says.
    socket: Option<(SocketName, OwnedFd)>,
}

impl KeptSockets {
    /// Takes what systemd has passed to this process. Must be called once, before the process has threads: it removes
    /// variables from the environment.
    pub fn from_environment() -> Self {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut descriptors = ListenFd::from_env();
        let mut names = names.split(':');
        let sockets = (0..descriptors.len()).map(|index| {
            let stored_as = names.next().unwrap_or_default().to_owned();
            KeptSocket { socket: take(&mut descriptors, index, &stored_as), stored_as }
        });
        Self(sockets.collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The socket of this name.
    pub fn get(&self, name: SocketName) -> Option<BorrowedFd<'_>> {
        self.0.iter().filter_map(KeptSocket::socket).find(|(kept, _)| *kept == name).map(|(_, socket)| socket)
    }

    /// Removes and returns those that are not wanted.
    pub fn split_off(&mut self, is_wanted: impl Fn(SocketName, BorrowedFd<'_>) -> bool) -> Vec<KeptSocket> {
        let is_unwanted = |kept: &mut KeptSocket| !kept.socket().is_some_and(|(name, socket)| is_wanted(name, socket));
        self.0.extract_if(.., is_unwanted).collect()
    }
}

impl KeptSocket {
    /// What it is named, and the socket.
    pub fn socket(&self) -> Option<(SocketName, BorrowedFd<'_>)> {
        self.socket.as_ref().map(|(name, socket)| (*name, socket.as_fd()))
    }

    /// The name that systemd has it under.
    pub fn stored_as(&self) -> &str {
        &self.stored_as
    }

    /// What it is named, and the socket.
    pub fn into_socket(self) -> Option<(SocketName, OwnedFd)> {
        self.socket
    }
}

/// The socket at an index, if it is of the type that its name says; closed otherwise.
fn take(descriptors: &mut ListenFd, index: usize, name: &str) -> Option<(SocketName, OwnedFd)> {
    let socket = name.parse().ok().and_then(|name: SocketName| {
        let socket = if name.usage.is_datagram() {
            descriptors.take_udp_socket(index).map(|socket| socket.map(OwnedFd::from))
        } else {
            descriptors.take_tcp_listener(index).map(|socket| socket.map(OwnedFd::from))
        };
        Some((name, socket.ok().flatten()?))
    });
    if socket.is_none()
        && let Ok(Some(descriptor)) = descriptors.take_raw_fd(index)
    {
        // What cannot be closed is not open.
        let _ = close(descriptor);
    }
    socket
}

/// Gives systemd sockets to keep, and has them removed, in this order, from a thread of its own: systemd may take its time.
/// Clones share the thread.
#[derive(Clone, Debug)]
pub struct SocketStore(Option<Sender<Request>>);

#[derive(Debug)]
enum Request {
    Keep(SocketName, OwnedFd),
    Remove(Vec<String>, oneshot::Sender<()>),
}

/// Resolves when systemd has removed sockets.
#[derive(Debug)]
#[must_use]
pub struct Removal(Option<oneshot::Receiver<()>>);

impl SocketStore {
    /// Starts the thread where there is a `$NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start() -> io::Result<Self> {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (requests, received) = channel();
        // The thread ends with the last copy of the sender, or with the process.
        thread::Builder::new().name("socket-store".into()).spawn(move || serve(&received))?;
        Ok(Self(Some(requests)))
    }

    /// Whether there is a service manager that may keep sockets.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Has a socket kept.
    pub fn keep(&self, name: SocketName, socket: BorrowedFd<'_>) {
        let Some(requests) = &self.0 else { return };
        match socket.try_clone_to_owned() {
            // Without the thread the sockets end with the process.
            Ok(socket) => _ = requests.send(Request::Keep(name, socket)),
            Err(error) => tracing::warn!(%name, %error, "systemd does not keep this socket over a restart"),
        }
    }

    /// Has the sockets of these names removed.
    pub fn remove(&self, names: Vec<String>) -> Removal {
        let Some(requests) = self.0.as_ref().filter(|_| !names.is_empty()) else { return Removal(None) };
        let (done, is_done) = oneshot::channel();
        Removal(requests.send(Request::Remove(names, done)).is_ok().then_some(is_done))
    }
}

impl Removal {
    /// Waits until systemd has closed its copies, but not for long.
    pub async fn done(self) {
        if let Some(is_done) = self.0
            && timeout(REMOVAL_MAX, is_done).await.is_err()
        {
            tracing::warn!("systemd has not removed a socket within {REMOVAL_MAX:?}; it is closed here all the same");
        }
    }
}

fn serve(requests: &Receiver<Request>) {
    for request in requests {
        let outcome = match request {
            Request::Keep(name, socket) => keep(name, &socket),
            Request::Remove(names, done) => {
                let outcome = names.iter().try_for_each(|name| remove(name)).and_then(|()| wait_for_systemd());
                // The caller may have waited long enough.
                let _ = done.send(());
                outcome
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, "cannot reach the socket store of systemd");
        }
    }
}

fn keep(name: SocketName, socket: &OwnedFd) -> io::Result<()> {
    let name = name.to_string();
    // By itself systemd would remove a socket on which the kernel reports an error.
    let state = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
    notify_with_fds(&state, &[socket.as_fd()])
}

fn remove(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// Waits until systemd has read what was sent before: it closes the other end of a pipe (sd_notify_barrier(3)).
fn wait_for_systemd() -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[writer.as_fd()])?;
    drop(writer);
    reader.read(&mut [0]).map(drop)
}

//! A service manager that does for one service what systemd does: it keeps the sockets that a process gives it, passes them
//! to the next process, and notes when the watchdog was fed.

use std::{
    fs::{self, File},
    io::IoSliceMut,
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use command_fds::{CommandFdExt as _, FdMapping};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::{
    daemon::{command, scratch},
    wait,
};

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_DESCRIPTOR: i32 = 3;

/// A service and its manager. Dropping it kills the process.
pub struct Service {
    directory: PathBuf,
    child: Option<Child>,
    state: Arc<Mutex<State>>,
    environment: Vec<(&'static str, String)>,
}

/// What the manager knows of the service.
#[derive(Default)]
pub struct State {
    /// The sockets, with their names.
    pub store: Vec<(String, OwnedFd)>,
    pub is_ready: bool,
    pub status: String,
    /// When the watchdog was fed.
    pub fed: Vec<Instant>,
}

impl Service {
    /// A service that does not run yet.
    pub fn new(name: &str, config: &str) -> Self {
        let directory = scratch(name);
        fs::write(directory.join("config.toml"), config).unwrap();
        let notifications = UnixDatagram::bind(directory.join("notify")).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        // It ends with the test.
        thread::spawn(move || read_notifications(&notifications, &shared));
        Self { directory, child: None, state, environment: Vec::new() }
    }

    /// Adds a variable to the environment of the processes that are started from now on.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Starts a process, with the sockets that are kept, and waits until it is ready.
    #[track_caller]
    pub fn start(&mut self) {
        let mut command = command(&["run", "--config", self.file("config.toml").to_str().unwrap()]);
        let log = File::options().create(true).append(true).open(self.file("log")).unwrap();
        command.env("NOTIFY_SOCKET", self.file("notify")).env("RUNTIME_DIRECTORY", &self.directory);
        command.env("STATE_DIRECTORY", &self.directory).env("RUST_LOG", "debug").stdout(Stdio::null()).stderr(log);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        {
            let mut state = self.state();
            state.is_ready = false;
            let names: Vec<_> = state.store.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
            let mappings = (FIRST_DESCRIPTOR..).zip(&state.store);
            let mappings =
                mappings.map(|(child_fd, (_, socket))| FdMapping { parent_fd: socket.try_clone().unwrap(), child_fd });
            command.fd_mappings(mappings.collect()).unwrap();
        }
        self.child = Some(command.spawn().unwrap());
        // With its copies of the sockets.
        drop(command);
        wait::until("the service to be ready", || self.state().is_ready.then_some(()));
    }

    /// Sends a signal, and waits for the end.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).unwrap();
        let child = self.child.as_mut().expect("a process");
        wait::within(Duration::from_secs(10), "the process to end", || child.try_wait().unwrap())
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("a process").id().try_into().unwrap())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.file("config.toml"), config).unwrap();
    }

    /// `alternator-dns reload`: the exit status.
    pub fn reload(&self) -> i32 {
        let status = command(&["reload"]).env("RUNTIME_DIRECTORY", &self.directory).output().unwrap().status;
        status.code().unwrap()
    }

    /// The names of the sockets that are kept, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.state().store.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("the service's log:\n{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn read_notifications(socket: &UnixDatagram, state: &Mutex<State>) {
    loop {
        let mut octets = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut octets)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
        let sockets = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
            _ => None,
        });
        // What is not kept is closed here: a BARRIER=1 has been passed.
        let sockets: Vec<OwnedFd> = sockets.flatten().collect();
        let text = String::from_utf8_lossy(&octets[..received.bytes]).into_owned();
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
        let mut state = state.lock().unwrap();
        state.is_ready |= value("READY").is_some();
        if let Some(status) = value("STATUS") {
            state.status = status;
        }
        if value("WATCHDOG").is_some() {
            state.fed.push(Instant::now());
        }
        let name = value("FDNAME").unwrap_or_default();
        if value("FDSTORE").is_some() {
            state.store.extend(sockets.into_iter().map(|socket| (name.clone(), socket)));
        } else if value("FDSTOREREMOVE").is_some() {
            state.store.retain(|(stored, _)| *stored != name);
        }
    }
}

/// An address with a port that is free for UDP and TCP at this moment, also on the wildcard. The kernel gives it to no client:
/// it takes theirs from 32768 on.
pub fn free_address(ip: &str) -> SocketAddr {
    loop {
        let address = SocketAddr::new(ip.parse().unwrap(), rand::random_range(10_000..32_000));
        let wildcard = ("0.0.0.0", address.port());
        if TcpListener::bind(wildcard).is_ok() && std::net::UdpSocket::bind(wildcard).is_ok() {
            return address;
        }
    }
}

//! What is reported to systemd (that the server is ready, what it does, that its threads go on, that it stops), and what
//! systemd provides: a directory, credentials, the unit's own settings, and a store of sockets.
//!
//! Without `$NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is no reason to stop serving: it is logged at
//! `debug` and forgotten. The caller never waits for systemd to read.

pub mod credential;
pub mod sockets;
pub mod unit;
pub mod watchdog;

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::PathBuf,
    thread,
};

use sd_notify::NotifyState;

/// The server answers. `status` is one sentence for `systemctl status`.
pub fn ready(status: &str) {
    let status = without_breaks(status);
    if send_without_waiting(&format!("READY=1\nSTATUS={status}")).is_ok() {
        return;
    }
    // This one must arrive, so a thread waits until systemd reads. A missing thread is a message that is lost.
    let wait = move || send(&[NotifyState::Ready, NotifyState::Status(&status)]);
    if let Err(error) = thread::Builder::new().name("notify".into()).spawn(wait) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// One sentence for `systemctl status`. It is lost when systemd does not keep up: the next one replaces it.
pub fn status(status: &str) {
    if let Err(error) = send_without_waiting(&format!("STATUS={}", without_breaks(status))) {
        tracing::debug!(%error, "cannot send systemd the status");
    }
}

/// The server drains and ends.
pub fn stopping() {
    if let Err(error) = send_without_waiting("STOPPING=1") {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

/// The directory that the unit's `StateDirectory=` has made for us; the first, if it names several.
pub fn state_directory() -> Option<PathBuf> {
    first_directory(&std::env::var_os("STATE_DIRECTORY")?)
}

fn first_directory(list: &OsStr) -> Option<PathBuf> {
    let first = list.as_bytes().split(|&octet| octet == b':').find(|path| !path.is_empty())?;
    Some(OsStr::from_bytes(first).into())
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

fn send_without_waiting(message: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

/// A line break would end the status and start another assignment.
fn without_breaks(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_contain_another_assignment() {
        assert_eq!(without_breaks("two zones\nMAINPID=1"), "two zones MAINPID=1");
        assert_eq!(without_breaks("12 zones live"), "12 zones live");
    }

    #[test]
    fn the_first_of_several_state_directories_counts() {
        let first = |list: &str| first_directory(OsStr::new(list));
        assert_eq!(first("/var/lib/a:/var/lib/b"), Some("/var/lib/a".into()));
        assert_eq!(first(":/var/lib/b"), Some("/var/lib/b".into()));
        assert_eq!(first(""), None);
    }
}

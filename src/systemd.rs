//! What systemd is told: that the server is ready, what it does, that it reloads, that it stops. And what it tells:
//! where state may be kept.
//!
//! Without `$NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is no reason to stop serving: it is logged at
//! `debug` and forgotten. The variable stays set, because every later message needs it.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use sd_notify::NotifyState;

/// The server answers. `status` is one sentence for `systemctl status`.
///
/// It also ends a reload that [`reloading`] announced.
pub fn ready(status: &str) {
    let status = one_line(status);
    send(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// One sentence for `systemctl status`. It is sent without waiting, and lost when systemd does not keep up: it only says
/// what the next one says better, and must never hold the server up.
pub fn status(status: &str) {
    if let Err(error) = send_without_waiting(&format!("STATUS={}", one_line(status))) {
        tracing::debug!(%error, "cannot tell systemd the status");
    }
}

/// A reload begins; [`ready`] ends it.
pub fn reloading() {
    // systemd 253 and newer want the clock beside it, to tell this reload from the one before.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "cannot read the monotonic clock; systemd is not told of the reload"),
    }
}

/// The server drains and ends.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
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
fn one_line(text: &str) -> String {
    text.split(char::is_control).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_assignment() {
        assert_eq!(one_line("two zones\nMAINPID=1"), "two zones MAINPID=1");
        assert_eq!(one_line("12 zones live"), "12 zones live");
    }

    #[test]
    fn the_first_of_several_state_directories_counts() {
        let first = |list: &str| first_directory(OsStr::new(list));
        assert_eq!(first("/var/lib/a:/var/lib/b"), Some("/var/lib/a".into()));
        assert_eq!(first(":/var/lib/b"), Some("/var/lib/b".into()));
        assert_eq!(first(""), None);
    }
}

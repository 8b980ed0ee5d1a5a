//! What systemd is told: that the server is ready, what it does, that it reloads, that it stops.
//!
//! Without `$NOTIFY_SOCKET` nothing is sent. A message that cannot be sent is no reason to stop serving: it is logged at
//! `debug` and forgotten. The variable stays set, because every later message needs it.

use sd_notify::NotifyState;

/// The server answers. `status` is one sentence for `systemctl status`.
///
/// It also ends a reload that [`reloading`] announced.
pub fn ready(status: &str) {
    let status = one_line(status);
    send(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// One sentence for `systemctl status`.
pub fn status(status: &str) {
    let status = one_line(status);
    send(&[NotifyState::Status(&status)]);
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

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify systemd");
    }
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
}

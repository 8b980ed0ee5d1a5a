//! Errors of our own host: what this process lacks says nothing about the peer that it could not ask.

use std::{error::Error, io};

use nix::errno::Errno;

use super::causes::causes;

/// What this host lacks for a connection. Each reads as the end of a sentence, with the remedy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Shortage {
    /// EMFILE.
    #[error("this process has no file descriptor left; raise LimitNOFILE= of the unit")]
    ProcessDescriptors,
    /// ENFILE.
    #[error("this host has no file descriptor left; raise fs.file-max")]
    HostDescriptors,
    /// ENOBUFS and ENOMEM.
    #[error("this host has no memory left for a connection")]
    Memory,
    /// EADDRNOTAVAIL: every local port is taken, or this host has no address of that family.
    #[error("this host has no local address or port left for a connection")]
    LocalPorts,
    /// EPERM and EACCES: a firewall or a sandbox of this host. What the network refuses has other codes.
    #[error("this host does not permit the connection; look at its firewall and at IPAddressDeny= of the unit")]
    Permission,
}

impl Shortage {
    /// The shortage that an error, or one that it is made of, tells of.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let code = |cause: &(dyn Error + 'static)| cause.downcast_ref::<io::Error>()?.raw_os_error();
        causes(error).filter_map(code).find_map(Self::from_os)
    }

    fn from_os(code: i32) -> Option<Self> {
        match Errno::from_raw(code) {
            Errno::EMFILE => Some(Self::ProcessDescriptors),
            Errno::ENFILE => Some(Self::HostDescriptors),
            Errno::ENOBUFS | Errno::ENOMEM => Some(Self::Memory),
            Errno::EADDRNOTAVAIL => Some(Self::LocalPorts),
            Errno::EPERM | Errno::EACCES => Some(Self::Permission),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_found_however_deep_it_lies() {
        for (code, shortage) in [
            (Errno::EMFILE, Shortage::ProcessDescriptors),
            (Errno::ENFILE, Shortage::HostDescriptors),
            (Errno::ENOBUFS, Shortage::Memory),
            (Errno::ENOMEM, Shortage::Memory),
            (Errno::EADDRNOTAVAIL, Shortage::LocalPorts),
            (Errno::EPERM, Shortage::Permission),
            (Errno::EACCES, Shortage::Permission),
        ] {
            let plain = io::Error::from_raw_os_error(code as i32);
            assert_eq!(Shortage::of(&plain), Some(shortage));
            let wrapped = io::Error::other(io::Error::other(io::Error::from_raw_os_error(code as i32)));
            assert_eq!(Shortage::of(&wrapped), Some(shortage), "{wrapped}");
        }
    }

    #[test]
    fn what_the_network_and_the_peer_say_is_no_shortage() {
        use Errno::{ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, EPIPE, ETIMEDOUT};
        for code in [ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, EPIPE, ETIMEDOUT] {
            assert_eq!(Shortage::of(&io::Error::from_raw_os_error(code as i32)), None, "{code}");
        }
        assert_eq!(Shortage::of(&io::Error::other("odd")), None);
    }
}

//! Names of sockets in the store of systemd: what each is for, and its address.
//!
//! A name has at most 255 characters and no colon, which separates names in `$LISTEN_FDNAMES`: an underscore stands for it,
//! because no address has one. `udp-1-127.0.0.1_53`, `tls-[__1]_853`.

use std::{fmt, net::SocketAddr, str::FromStr};

/// Stands for a colon.
const COLON: &str = "_";

/// What a socket is for, and its address: no two sockets of this server have the same.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketName {
    /// What it is for.
    pub usage: SocketUse,
    /// As bound, so its port is never 0.
    pub address: SocketAddr,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SocketUse {
    /// DNS over UDP, one of several sockets of an address: that of this worker.
    Udp(usize),
    /// DNS over TCP.
    Tcp,
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS.
    Https,
    /// DNS over QUIC.
    Quic,
    /// The admin interface.
    Admin,
}

impl SocketUse {
    /// Whether it receives datagrams; connections otherwise.
    pub fn is_datagram(self) -> bool {
        matches!(self, Self::Udp(_) | Self::Quic)
    }
}

/// The name is not one of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not the name of a socket of this server")]
pub struct UnknownName;

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.usage {
            SocketUse::Udp(worker) => write!(f, "udp-{worker}")?,
            SocketUse::Tcp => f.write_str("tcp")?,
            SocketUse::Tls => f.write_str("tls")?,
            SocketUse::Https => f.write_str("https")?,
            SocketUse::Quic => f.write_str("quic")?,
            SocketUse::Admin => f.write_str("admin")?,
        }
        write!(f, "-{}", self.address.to_string().replace(':', COLON))
    }
}

impl FromStr for SocketName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let (usage, rest) = name.split_once('-').ok_or(UnknownName)?;
        let (usage, address) = match usage {
            "udp" => {
                let (worker, address) = rest.split_once('-').ok_or(UnknownName)?;
                (SocketUse::Udp(worker.parse().map_err(|_| UnknownName)?), address)
            }
            "tcp" => (SocketUse::Tcp, rest),
            "tls" => (SocketUse::Tls, rest),
            "https" => (SocketUse::Https, rest),
            "quic" => (SocketUse::Quic, rest),
            "admin" => (SocketUse::Admin, rest),
            _ => return Err(UnknownName),
        };
        let address = address.replace(COLON, ":").parse().map_err(|_| UnknownName)?;
        Ok(Self { usage, address })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_for_people_to_read() {
        let name = |usage, address: &str| SocketName { usage, address: address.parse().unwrap() }.to_string();
        assert_eq!(name(SocketUse::Udp(1), "127.0.0.1:53"), "udp-1-127.0.0.1_53");
        assert_eq!(name(SocketUse::Tls, "[::1]:853"), "tls-[__1]_853");
    }

    #[test]
    fn other_names_are_unknown() {
        for name in
            ["", "alternator-dns.socket", "udp-127.0.0.1_53", "udp--1-127.0.0.1_53", "sctp-127.0.0.1_53", "tcp-x"]
        {
            assert_eq!(name.parse::<SocketName>(), Err(UnknownName), "{name}");
        }
    }

    fn usage() -> impl Strategy<Value = SocketUse> {
        let others = vec![SocketUse::Tcp, SocketUse::Tls, SocketUse::Https, SocketUse::Quic, SocketUse::Admin];
        prop_oneof![any::<usize>().prop_map(SocketUse::Udp), proptest::sample::select(others)]
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written(usage in usage(), address in any::<SocketAddr>()) {
            // Neither a flow label nor a scope by name is part of a bound address.
            let address = SocketAddr::new(address.ip(), address.port());
            let name = SocketName { usage, address };
            let text = name.to_string();
            prop_assert!(text.len() <= 255 && !text.contains(':'), "{text}");
            prop_assert_eq!(text.parse(), Ok(name));
        }

        #[test]
        fn no_text_panics_the_parser(text in "((udp|tcp|quic)-)?([0-9]{1,25}-)?[0-9._\\[\\]-]{0,20}|\\PC{0,40}") {
            let _ = text.parse::<SocketName>();
        }
    }
}

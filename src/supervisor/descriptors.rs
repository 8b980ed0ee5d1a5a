//! The limit of open files, and what of it clients may take: polls, probes, forwarded questions and the admin interface must
//! never lack a descriptor because clients connect.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    admin,
    config::Config,
    forward::SOCKETS_MAX,
    server::{CLOSING_MAX, Limits},
};

/// Standard streams, runtimes (three each), the log, watched files and directories, files that are being read, name look-ups
/// (sixteen at once), commands over the control socket (sixteen), and queries to itself.
const PROCESS: usize = 96;

/// Connections of the admin interface, and as many of the former address while it moves.
const ADMIN: usize = 2 * (admin::CONNECTIONS_MAX + admin::EVENT_STREAMS_MAX);

/// Kept connections, polls and reports of one zone, and name look-ups of its seeds.
const ZONE: usize = 8;

/// Probes in flight: so many for each zone with nodes that do not answer, up to the bound for all zones.
const PROBES_OF_ZONE: usize = 32;
const PROBES_MAX: usize = 512;

/// The least that clients get, however low the limit is: one in so many.
const CLIENTS_MIN_SHARE: usize = 8;

/// Raises the limit of open files as far as the process may, and returns it. The soft limit is often 1024; programs that use
/// no `select` may have more.
pub(super) fn raise_limit() -> usize {
    // Without an answer of the system, the usual limit.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    if soft >= hard {
        return usize::try_from(soft).unwrap_or(usize::MAX);
    }
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::debug!(%error, soft, hard, "the limit of open files stays as it is");
            soft
        }
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// What the limit of open files leaves to clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Descriptors {
    /// The limit of the process.
    limit: usize,
    /// UDP sockets for each address.
    workers: usize,
}

impl Descriptors {
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        Self { limit, workers }
    }

    /// Connections of clients that the limit allows beside everything else that this configuration needs.
    pub(super) fn for_clients(&self, config: &Config) -> usize {
        self.limit.saturating_sub(self.reserve(config)).max(self.limit / CLIENTS_MIN_SHARE).max(1)
    }

    fn reserve(&self, config: &Config) -> usize {
        let zones = config.zones.len() + config.views.len();
        let encrypted = config.server.encryption.as_ref().map_or(0, |encryption| encryption.listen.len());
        let listeners = config.server.listen.len() * (self.workers + 1) + encrypted;
        let forward = if config.forward.is_some() { SOCKETS_MAX } else { 0 };
        let probes = PROBES_MAX.min(zones.saturating_mul(PROBES_OF_ZONE));
        // A reload binds new sockets before it closes the old ones.
        let listening = 2 * listeners;
        // Each listener may have accepted a connection before one is closed for it.
        PROCESS + ADMIN + forward + probes + listening + CLOSING_MAX + listeners + zones.saturating_mul(ZONE)
    }

    /// Cuts `max_connections` to what the limit allows. Says so where that differs from `before`, the value in force.
    pub(super) fn cut(&self, limits: Limits, config: &Config, before: usize) -> Limits {
        let allowed = self.for_clients(config);
        if allowed >= limits.max_connections {
            return limits;
        }
        let needed = self.reserve(config);
        if allowed != before && self.limit < needed {
            tracing::warn!(
                open_files = self.limit,
                "this process may have {} open files, and this configuration may need {needed} beside its clients: polls, \
                 probes, forwarded questions and connections can fail; raise the limit (LimitNOFILE= of the systemd unit, or \
                 ulimit -n)",
                self.limit,
            );
        } else if allowed != before {
            tracing::warn!(
                open_files = self.limit,
                "max_connections is {allowed} and not {}, because this process may have {} open files and needs the others \
                 itself; raise the limit (LimitNOFILE= of the systemd unit, or ulimit -n), or lower max_connections",
                limits.max_connections,
                self.limit,
            );
        }
        Limits { max_connections: allowed, ..limits }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("z.toml"), format!("{text}\n[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n").as_bytes())
            .unwrap()
    }

    #[test]
    fn clients_get_what_the_server_does_not_need() {
        let one = config("[server]\nlisten = [\"127.0.0.1:53\"]");
        let forwarding = config("[server]\nlisten = [\"127.0.0.1:53\"]\n[forward]\nupstreams = [\"10.0.0.2\"]");
        let clients = |limit, config: &Config| Descriptors::new(limit, 2).for_clients(config);
        let left = clients(1024, &one);
        assert!((600..1024).contains(&left), "{left}");
        assert_eq!(clients(1024, &forwarding), left - SOCKETS_MAX);
        assert_eq!(clients(100_000, &one), 100_000 - 1024 + left);
        assert_eq!((clients(200, &one), clients(1, &one)), (25, 1), "a share at least");
    }

    #[test]
    fn max_connections_is_cut_to_what_clients_get() {
        let config = config("");
        let limits = Limits::default();
        let cut = |limit| Descriptors::new(limit, 2).cut(limits, &config, 0);
        assert_eq!(cut(1_000_000), limits);
        let low = cut(1024);
        assert!(low.max_connections < 1024);
        assert_eq!(Limits { max_connections: limits.max_connections, ..low }, limits);
    }
}

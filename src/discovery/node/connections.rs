//! How long a connection to a node is kept, and the HTTP clients that keep it so.

use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use rustls::ClientConfig;

use crate::net::http;

/// How long an idle connection of [`Keep::Shortly`] is kept. A few nodes polled in turn every second are asked again
/// within it; one node of hundreds is not, and its connection (17 kB) would be of no use.
const IDLE: Duration = Duration::from_secs(10);

/// The same for [`Keep::Long`]: over a refresh of a minute. Less frequent polls save too little to keep a connection.
const IDLE_LONG: Duration = Duration::from_secs(75);

/// Connections kept for each node: a poll asks a node at most once.
const IDLE_CONNECTIONS_MAX: usize = 1;

/// What becomes of a connection once the node has answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum Keep {
    /// It is closed. A probe must find out whether the node accepts a new connection, as a client's would be; and a node
    /// that is asked once needs none afterwards.
    Never,
    /// It is kept for a few seconds: the node is one of a few that are asked in turn.
    Shortly,
    /// It is kept over a refresh: the node is asked again next time.
    Long,
    /// It is fresh, like that of a probe, and kept for the next request of the same caller.
    ForCaller,
}

impl Keep {
    /// The shortest that lasts until a node is asked again after `refresh` ± 10 %. A zone that changes its node often
    /// leaves connections behind, each for that long.
    pub fn over(refresh: Duration) -> Self {
        let late = refresh + refresh / 10;
        if late < IDLE {
            Self::Shortly
        } else if late < IDLE_LONG {
            Self::Long
        } else {
            Self::Never
        }
    }
}

/// One client for each way to keep connections; each serves any number of nodes.
#[derive(Clone, Debug)]
pub struct Clients {
    /// What clients of single callers are made of.
    tls: ClientConfig,
    never: Client,
    shortly: Client,
    long: Client,
}

impl Clients {
    pub fn new(tls: &ClientConfig) -> Result<Self, reqwest::Error> {
        let build = |keep| client(tls, keep).build();
        let tls = tls.clone();
        Ok(Self { tls, never: build(Keep::Never)?, shortly: build(Keep::Shortly)?, long: build(Keep::Long)? })
    }

    /// # Errors
    /// The client of a single caller cannot be made.
    pub fn of(&self, keep: Keep) -> Result<Client, reqwest::Error> {
        match keep {
            Keep::Never => Ok(self.never.clone()),
            Keep::Shortly => Ok(self.shortly.clone()),
            Keep::Long => Ok(self.long.clone()),
            Keep::ForCaller => client(&self.tls, keep).build(),
        }
    }
}

/// A builder of a client that keeps connections so.
pub fn client(tls: &ClientConfig, keep: Keep) -> ClientBuilder {
    let (connections, idle) = match keep {
        Keep::Never => (0, Duration::ZERO),
        Keep::Shortly | Keep::ForCaller => (IDLE_CONNECTIONS_MAX, IDLE),
        Keep::Long => (IDLE_CONNECTIONS_MAX, IDLE_LONG),
    };
    http::with_tls(tls).pool_max_idle_per_host(connections).pool_idle_timeout(idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_until_the_node_is_asked_again() {
        let kept = [1, 9, 10, 60, 70, 3600].map(|seconds| Keep::over(Duration::from_secs(seconds)));
        assert_eq!(kept, [Keep::Shortly, Keep::Shortly, Keep::Long, Keep::Long, Keep::Never, Keep::Never]);
    }
}

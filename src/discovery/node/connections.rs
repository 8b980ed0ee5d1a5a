//! How long a connection to a node is kept, and the HTTP clients that keep it so.

use std::time::Duration;

use crate::net::client::{Client, Tls};

/// How long an idle connection of [`Keep::Shortly`] is kept. A few nodes polled in turn every second are asked again
/// within it; one node of hundreds is not, and its connection would be of no use.
const IDLE: Duration = Duration::from_secs(10);

/// The same for [`Keep::Long`]: over a refresh of a minute. Less frequent polls save too little to keep a connection.
const IDLE_LONG: Duration = Duration::from_secs(75);

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
    tls: Option<Tls>,
    never: Client,
    shortly: Client,
    long: Client,
}

impl Clients {
    /// Clients that have no connection yet; without `tls` they speak plain HTTP.
    pub fn new(tls: Option<Tls>) -> Self {
        let client = |keep| client(tls.clone(), keep);
        let (never, shortly, long) = (client(Keep::Never), client(Keep::Shortly), client(Keep::Long));
        Self { tls, never, shortly, long }
    }

    /// The client that keeps connections so.
    pub fn of(&self, keep: Keep) -> Client {
        match keep {
            Keep::Never => self.never.clone(),
            Keep::Shortly => self.shortly.clone(),
            Keep::Long => self.long.clone(),
            Keep::ForCaller => client(self.tls.clone(), keep),
        }
    }
}

fn client(tls: Option<Tls>, keep: Keep) -> Client {
    let idle_max = match keep {
        Keep::Never => None,
        Keep::Shortly | Keep::ForCaller => Some(IDLE),
        Keep::Long => Some(IDLE_LONG),
    };
    Client::new(tls, idle_max)
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

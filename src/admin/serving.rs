//! `/serving`: whether clients should be sent to this server. For anycast and load balancers.
//!
//! One task asks the server's own sockets, at most once a second, whatever the number of requests.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    server::{has_address, self_query},
    table::SharedTable,
};

/// At least one zone must have been learnt so recently. Shorter failures of a cluster are covered by its last known
/// nodes, and every server that has the same clusters sees them.
const LEARNT_WITHIN: Duration = Duration::from_secs(30);

/// Refreshes of the zone that is polled most often, if they take longer than [`LEARNT_WITHIN`]: as for a stale zone.
const LEARNT_WITHIN_REFRESHES: u32 = 3;

/// An outcome is used for so long.
const OUTCOME_AGE_MAX: Duration = Duration::from_secs(1);

/// Requests that wait for the task; each belongs to an HTTP connection, whose number is limited.
const REQUESTS_WAITING: usize = 64;

/// What a server must do to count as serving; it follows the configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ServingCriteria {
    listen: Vec<SocketAddr>,
    learnt_within: Duration,
}

impl ServingCriteria {
    /// These addresses must answer over UDP and TCP, and a zone must have been learnt: within 30 seconds, or within
    /// three times the `shortest_refresh` of all zones.
    pub fn new(listen: Vec<SocketAddr>, shortest_refresh: Duration) -> Self {
        let learnt_within = LEARNT_WITHIN.max(shortest_refresh.saturating_mul(LEARNT_WITHIN_REFRESHES));
        Self { listen, learnt_within }
    }
}

/// Nothing, or why the server does not serve.
type Outcome = Result<(), String>;

/// Asks the task whether the server serves. Clones ask the same task.
#[derive(Clone, Debug)]
pub struct ServingCheck {
    requests: mpsc::Sender<oneshot::Sender<Outcome>>,
    criteria: watch::Sender<ServingCriteria>,
}

/// The task that checks it, not yet running.
#[derive(Debug)]
pub struct SelfQueryTask {
    requests: mpsc::Receiver<oneshot::Sender<Outcome>>,
    criteria: watch::Receiver<ServingCriteria>,
    table: SharedTable,
}

impl ServingCheck {
    /// A check of this server, and the task that does it.
    pub fn new(table: SharedTable) -> (Self, SelfQueryTask) {
        let (requests, requested) = mpsc::channel(REQUESTS_WAITING);
        let (criteria, current) = watch::channel(ServingCriteria::default());
        (Self { requests, criteria }, SelfQueryTask { requests: requested, criteria: current, table })
    }

    /// Puts other criteria in force.
    pub fn require(&self, criteria: ServingCriteria) {
        self.criteria.send_replace(criteria);
    }

    /// The addresses that are served and that no interface of this host has now.
    pub(super) fn absent_addresses(&self) -> Vec<SocketAddr> {
        self.criteria.borrow().listen.iter().copied().filter(|address| !has_address(*address)).collect()
    }

    /// Checks it, or takes the outcome of a check within the last second.
    pub(super) async fn outcome(&self) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let stopping = || "the server is stopping".to_owned();
        self.requests.send(reply).await.map_err(|_| stopping())?;
        outcome.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl SelfQueryTask {
    /// Runs until every [`ServingCheck`] is gone.
    pub async fn run(self) {
        let Self { requests, criteria, table } = self;
        answer_requests(requests, || check_current(criteria.clone(), table.clone())).await;
    }
}

async fn answer_requests<F: Future<Output = Outcome>>(
    mut requests: mpsc::Receiver<oneshot::Sender<Outcome>>,
    mut check: impl FnMut() -> F,
) {
    let mut last: Option<(tokio::time::Instant, Outcome)> = None;
    while let Some(request) = requests.recv().await {
        let recent = last.take().filter(|(at, _)| at.elapsed() < OUTCOME_AGE_MAX);
        let (at, outcome) = match recent {
            Some(recent) => recent,
            None => {
                let outcome = check().await;
                (tokio::time::Instant::now(), outcome)
            }
        };
        // The client may have gone away meanwhile.
        let _ = request.send(outcome.clone());
        last = Some((at, outcome));
    }
}

async fn check_current(mut criteria: watch::Receiver<ServingCriteria>, table: SharedTable) -> Outcome {
    loop {
        let current = criteria.borrow_and_update().clone();
        let outcome = check(&current, &table).await;
        // A reload may have closed the sockets that were asked.
        if outcome.is_ok() || !criteria.has_changed().unwrap_or(false) {
            return outcome;
        }
    }
}

async fn check(criteria: &ServingCriteria, table: &SharedTable) -> Outcome {
    if !is_learnt(table, criteria.learnt_within, Instant::now()) {
        return Err(format!("no zone was learnt from its cluster within the last {:?}", criteria.learnt_within));
    }
    self_query(&criteria.listen).await.map_err(|unanswered| unanswered.to_string())
}

fn is_learnt(table: &SharedTable, within: Duration, now: Instant) -> bool {
    let table = table.now();
    table.entries().any(|entry| {
        let last_success = entry.poll_status().last_success;
        last_success.is_some_and(|at| now.saturating_duration_since(at) <= within)
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::Arc};

    use super::*;
    use crate::{
        admin::tests::{known, waiting},
        table::ZoneTable,
    };

    fn table(zones: Vec<Arc<crate::table::ZoneEntry>>) -> SharedTable {
        let table = SharedTable::default();
        table.replace(ZoneTable::new(zones));
        table
    }

    #[test]
    fn one_zone_must_have_been_learnt() {
        let now = Instant::now();
        let learnt = |zones, after| is_learnt(&table(zones), LEARNT_WITHIN, now + Duration::from_secs(after));
        assert!(!learnt(vec![], 0));
        assert!(!learnt(vec![waiting("a")], 0));
        assert!(learnt(vec![waiting("a"), known("b", &["::1"], false)], 29));
        assert!(!learnt(vec![waiting("a"), known("b", &["::1"], true)], 32));
    }

    #[test]
    fn zones_that_are_polled_rarely_have_three_refreshes() {
        let within = |seconds| ServingCriteria::new(vec![], Duration::from_secs(seconds)).learnt_within.as_secs();
        assert_eq!([within(1), within(10), within(600)], [30, 30, 1800]);
    }

    #[tokio::test]
    async fn without_a_learnt_zone_no_socket_is_asked() {
        // Nothing listens there.
        let criteria = ServingCriteria::new(vec!["127.0.0.1:1".parse().unwrap()], Duration::from_secs(1));
        let outcome = check(&criteria, &table(vec![waiting("a")])).await;
        assert_eq!(outcome.unwrap_err(), "no zone was learnt from its cluster within the last 30s");
        let outcome = check(&criteria, &table(vec![known("a", &["::1"], false)])).await;
        assert!(outcome.unwrap_err().starts_with("its TCP socket on 127.0.0.1:1 did not answer: "));
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_make_one_check_a_second() {
        let (check, task) = ServingCheck::new(SharedTable::default());
        let checks = Cell::new(0);
        let counted = || {
            checks.set(checks.get() + 1);
            async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(())
            }
        };
        let ask = async {
            for _ in 0..1000 {
                let (first, second) = tokio::join!(check.outcome(), check.outcome());
                assert_eq!((first, second), (Ok(()), Ok(())));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = answer_requests(task.requests, counted) => unreachable!("the check is alive"),
            () = ask => {}
        }
        // 1000 pauses of 10 ms and a check of 300 ms in every 1.3 s.
        assert!((9..=12).contains(&checks.get()), "{} checks in some 13 s", checks.get());
    }

    #[tokio::test]
    async fn a_server_that_stops_serves_no_more() {
        let (check, task) = ServingCheck::new(SharedTable::default());
        drop(task);
        assert_eq!(check.outcome().await.unwrap_err(), "the server is stopping");
    }
}

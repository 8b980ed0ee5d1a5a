//! One hedged poll: candidates are asked until one sends a list that can be used.

use std::{fmt, net::IpAddr, time::Duration};

use futures_util::{StreamExt, future::join, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::candidates::Candidates;

/// Requests in flight in one poll: enough to get past a few nodes that hang, too few to load a cluster.
const IN_FLIGHT_MAX: usize = 4;

/// The next candidate is asked when the last one has not answered within the timeout divided by this.
const HEDGES_IN_TIMEOUT: u32 = 4;

/// A poll ends after this many timeouts.
pub const TIMEOUTS_IN_TICK: u32 = 3;

/// Failures given one by one in an error; of the others only the number.
const FAILURES_SHOWN_MAX: usize = 3;

/// Why the requests of a poll failed. It reads as a sentence.
#[derive(Debug, Default)]
pub struct Failures {
    count: usize,
    shown: Vec<String>,
}

impl Failures {
    /// Adds why a node's answer cannot be used; `why` continues a sentence that begins with the node's address.
    pub fn add(&mut self, node: IpAddr, why: &str) {
        self.count += 1;
        if self.shown.len() < FAILURES_SHOWN_MAX {
            self.shown.push(format!("{node} {why}"));
        }
    }

    /// Whether no candidate has failed.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join("; "))?;
        match self.count - self.shown.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// One poll in progress. Dropping it drops the requests in flight, and late replies with them.
///
/// The next candidate is asked when one has failed, or after a quarter of the timeout. No node is asked after two
/// timeouts, so that each has a whole timeout before the poll ends after three. A request ends by itself within the
/// timeout.
pub struct HedgedPoll<'r, Asks, Attempt: Future> {
    candidates: &'r mut Candidates,
    asks: Asks,
    timeout: Duration,
    in_flight: FuturesUnordered<Named<Attempt>>,
    next_call: Instant,
    last_call: Instant,
    end: Instant,
}

/// A request with the address of its node.
type Named<Attempt> = futures_util::future::Join<std::future::Ready<IpAddr>, Attempt>;

impl<'r, Asks: Fn(IpAddr) -> Attempt, Attempt: Future> HedgedPoll<'r, Asks, Attempt> {
    /// Begins a poll of these candidates.
    pub fn new(candidates: &'r mut Candidates, timeout: Duration, asks: Asks) -> Self {
        let start = Instant::now();
        let last_call = start + timeout * (TIMEOUTS_IN_TICK - 1);
        let end = start + timeout * TIMEOUTS_IN_TICK;
        Self { candidates, asks, timeout, in_flight: FuturesUnordered::new(), next_call: start, last_call, end }
    }

    /// The next answer, and the candidate that gave it. `None`: the time is over, or no candidate is left.
    pub async fn next(&mut self) -> Option<(IpAddr, Attempt::Output)> {
        loop {
            let now = Instant::now();
            let free = self.in_flight.len() < IN_FLIGHT_MAX && self.next_call.max(now) <= self.last_call;
            if free && self.next_call <= now {
                self.call(now);
                continue;
            }
            if self.in_flight.is_empty() || now >= self.end {
                return None;
            }
            tokio::select! {
                biased;
                Some(answer) = self.in_flight.next() => {
                    if self.next_call < self.end {
                        self.next_call = Instant::now();
                    }
                    return Some(answer);
                }
                () = sleep_until(if free { self.next_call } else { self.end }) => {}
            }
        }
    }

    /// Ends a poll whose list was accepted: the next poll starts over.
    pub fn succeed(self) {
        self.candidates.succeed();
    }

    fn call(&mut self, now: Instant) {
        match self.candidates.next_candidate() {
            Some(node) => {
                self.in_flight.push(join(std::future::ready(node), (self.asks)(node)));
                self.next_call = now + self.timeout / HEDGES_IN_TIMEOUT;
            }
            // No candidate is left: only requests in flight can still end.
            None => self.next_call = self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::Ipv4Addr, sync::Mutex};

    use rand::{SeedableRng, rngs::StdRng};
    use tokio::time::sleep;

    use super::*;
    use crate::discovery::node::{FetchError, ListError, ListReply, parse};

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// What a node does when it is asked; those without an entry hang until the timeout.
    #[derive(Clone, Copy)]
    enum Habit {
        Answers(Duration),
        Refuses,
        SendsNothing,
    }

    #[derive(Default)]
    struct Nodes {
        habits: BTreeMap<IpAddr, Habit>,
        asked: Mutex<Vec<(IpAddr, Duration)>>,
    }

    impl Nodes {
        fn with(habits: impl IntoIterator<Item = (u32, Habit)>) -> Self {
            let habits = habits.into_iter().map(|(number, habit)| (node(number), habit)).collect();
            Self { habits, asked: Mutex::default() }
        }

        async fn ask(&self, node: IpAddr, start: Instant) -> Result<ListReply, FetchError> {
            self.asked.lock().unwrap().push((node, start.elapsed()));
            match self.habits.get(&node) {
                Some(Habit::Answers(delay)) => {
                    sleep(*delay).await;
                    let listing = parse(format!("[\"{node}\"]").as_bytes()).unwrap();
                    Ok(ListReply { listing, arrived: Instant::now() })
                }
                Some(Habit::Refuses) => Err(FetchError::Refused),
                Some(Habit::SendsNothing) => Err(ListError::Empty.into()),
                None => {
                    sleep(TIMEOUT).await;
                    Err(FetchError::Timeout(TIMEOUT))
                }
            }
        }

        /// Polls live nodes and seeds. Returns which node answered, or the error, and how long it took.
        async fn poll(
            &self,
            candidates: &mut Candidates,
            live: &[IpAddr],
            seeds: &[IpAddr],
        ) -> (Result<IpAddr, String>, Duration) {
            candidates.begin(live, seeds, None, &mut StdRng::seed_from_u64(7));
            let start = Instant::now();
            let mut failures = Failures::default();
            let mut poll = HedgedPoll::new(candidates, TIMEOUT, |node| self.ask(node, start));
            while let Some((node, answer)) = poll.next().await {
                match answer {
                    Ok(_) => {
                        poll.succeed();
                        return (Ok(node), start.elapsed());
                    }
                    Err(error) => failures.add(node, &error.to_string()),
                }
            }
            (Err(failures.to_string()), start.elapsed())
        }
    }

    fn node(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn nodes(numbers: std::ops::Range<u32>) -> Vec<IpAddr> {
        numbers.map(node).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_hangs_costs_a_quarter_of_the_timeout() {
        let world = Nodes::with([(2, Habit::Answers(TIMEOUT / 100))]);
        let (outcome, took) = world.poll(&mut Candidates::default(), &[], &nodes(1..3)).await;
        assert_eq!((outcome, took), (Ok(node(2)), TIMEOUT / 4 + TIMEOUT / 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_fails_costs_nothing() {
        let world = Nodes::with([(1, Habit::Refuses), (2, Habit::SendsNothing), (3, Habit::Answers(Duration::ZERO))]);
        let (outcome, took) = world.poll(&mut Candidates::default(), &[], &nodes(1..4)).await;
        assert_eq!((outcome, took), (Ok(node(3)), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_is_reached_beside_five_hundred_nodes_that_hang() {
        let world = Nodes::with([(1000, Habit::Answers(Duration::ZERO))]);
        let (outcome, took) = world.poll(&mut Candidates::default(), &nodes(0..500), &nodes(1000..1001)).await;
        assert_eq!((outcome, took), (Ok(node(1000)), TIMEOUT / 2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_living_seed_of_many_is_found_by_going_on_where_the_last_poll_stopped() {
        let world = Nodes::with([(20, Habit::Answers(Duration::ZERO))]);
        let mut candidates = Candidates::default();
        let seeds = nodes(1..21);
        let mut polls = 1;
        while world.poll(&mut candidates, &[], &seeds).await.0 != Ok(node(20)) {
            polls += 1;
        }
        assert_eq!(polls, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poll_ends_after_three_timeouts_with_four_in_flight_at_most() {
        let world = Nodes::default();
        let (outcome, took) = world.poll(&mut Candidates::default(), &nodes(0..500), &[]).await;
        assert!(took <= TIMEOUT * 3, "{took:?}");
        let error = outcome.unwrap_err();
        assert!(error.contains(" gave no complete answer within 1s; ") && error.ends_with("; and 6 more"), "{error}");
        let asked = world.asked.lock().unwrap();
        assert_eq!(asked.len(), 9, "each request has a whole timeout");
        for (_, at) in asked.iter() {
            let in_flight = asked.iter().filter(|(_, other)| other <= at && *at < *other + TIMEOUT).count();
            assert!(in_flight <= IN_FLIGHT_MAX, "{in_flight} at {at:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_candidate_is_asked_twice_and_nothing_comes_after_the_end() {
        let world = Nodes::with([(1, Habit::Refuses), (2, Habit::Refuses)]);
        let (outcome, took) = world.poll(&mut Candidates::default(), &nodes(1..3), &nodes(1..3)).await;
        assert_eq!(took, Duration::ZERO);
        assert_eq!(world.asked.lock().unwrap().len(), 2);
        let error = outcome.unwrap_err();
        assert!(error.contains("10.0.0.1 refused the connection") && !error.contains("more"), "{error}");
        let (outcome, _) = world.poll(&mut Candidates::default(), &[], &[]).await;
        assert_eq!(outcome, Err(String::new()));
        let (outcome, took) = world.poll(&mut Candidates::default(), &nodes(7..8), &[]).await;
        assert_eq!((outcome.is_err(), took), (true, TIMEOUT), "only the one that hangs is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_list_wins_and_the_others_are_dropped() {
        let world = Nodes::with([(1, Habit::Answers(TIMEOUT * 3 / 4)), (2, Habit::Answers(TIMEOUT / 4))]);
        let (outcome, took) = world.poll(&mut Candidates::default(), &[], &nodes(1..3)).await;
        assert_eq!((outcome, took), (Ok(node(2)), TIMEOUT / 2));
    }
}

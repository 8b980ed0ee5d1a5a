//! Whether a cluster may be asked for its id now: pure, time is an argument.
//!
//! Each query without a signature counts as a failed authentication in a cluster that enforces authorization, or warns
//! about it, and operators watch that number. So one query finds out whether a cluster answers, while all others wait;
//! and after a refusal it is not asked for long. Where a cluster answers and one node refuses, the node may be another
//! cluster's, with an address that was recycled: only that node is not asked, until a second one refuses.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::reply::Refusal;

/// How long a cluster that refused a query without a signature is not asked again.
pub const UNSIGNED_REFUSED_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// The same after a query with a signature: the operator may just be granting what it lacks.
pub const SIGNED_REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// Whether one cluster may be asked.
#[derive(Debug)]
pub struct AskPermission {
    pause: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It is not known whether the cluster answers.
    Untried,
    /// One query is on its way to find out.
    Trying,
    /// The cluster answers, but for one node perhaps.
    Accepted { except: Option<RefusingNode> },
    /// It refused.
    Refused { until: Instant, refusal: Refusal },
}

#[derive(Debug)]
struct RefusingNode {
    node: IpAddr,
    until: Instant,
    refusal: Refusal,
}

/// Whether a query may be sent now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Permission {
    /// It may. Its outcome is to be reported.
    Granted,
    /// Not before the outcome of another one is known.
    Wait,
    /// It may not: the cluster refused an earlier one.
    Refused(Refusal),
}

/// What a refusal changes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewlyRefused {
    /// Nothing: the cluster is not asked already.
    None,
    /// This node is not asked.
    Node,
    /// No node of the cluster is asked.
    Cluster,
}

impl AskPermission {
    /// For a cluster that was never asked. After a refusal it is not asked for this long.
    pub fn new(pause: Duration) -> Self {
        Self { pause, state: State::Untried }
    }

    /// Asks for permission to send one query to a node.
    pub fn ask(&mut self, node: IpAddr, now: Instant) -> Permission {
        match &self.state {
            State::Trying => Permission::Wait,
            State::Accepted { except: Some(except) } if except.node == node && now < except.until => {
                Permission::Refused(except.refusal.clone())
            }
            State::Accepted { .. } => Permission::Granted,
            State::Refused { until, refusal } if now < *until => Permission::Refused(refusal.clone()),
            State::Untried | State::Refused { .. } => {
                self.state = State::Trying;
                Permission::Granted
            }
        }
    }

    /// A node answered a query. A node that answers beside one that refused lifts no refusal: while an operator begins
    /// to enforce authorization, node by node, the others would be asked again and again.
    pub fn accepted(&mut self) {
        if matches!(self.state, State::Trying) {
            self.state = State::Accepted { except: None };
        }
    }

    /// A node refused a query; which nodes are not asked from now on. Several queries may have been on their way.
    pub fn refused(&mut self, node: IpAddr, refusal: Refusal, now: Instant) -> NewlyRefused {
        let until = now + self.pause;
        match &mut self.state {
            State::Refused { until, .. } if now < *until => return NewlyRefused::None,
            State::Accepted { except } => {
                let other = except.as_ref().filter(|except| now < except.until && except.node != node);
                if other.is_none() {
                    *except = Some(RefusingNode { node, until, refusal });
                    return NewlyRefused::Node;
                }
            }
            State::Untried | State::Trying | State::Refused { .. } => {}
        }
        self.state = State::Refused { until, refusal };
        NewlyRefused::Cluster
    }

    /// A query had no answer, or was not sent.
    pub fn unanswered(&mut self) {
        if matches!(self.state, State::Trying) {
            self.state = State::Untried;
        }
    }

    /// The keys have changed, so that an earlier refusal means nothing any more.
    pub fn forget_refusal(&mut self) {
        match &mut self.state {
            State::Accepted { except } => *except = None,
            State::Refused { .. } => self.state = State::Untried,
            State::Untried | State::Trying => {}
        }
    }

    /// Whether a refusal is in force, of the cluster or of a node.
    pub fn is_refused(&self, now: Instant) -> bool {
        match &self.state {
            State::Refused { until, .. } => now < *until,
            State::Accepted { except } => except.as_ref().is_some_and(|except| now < except.until),
            State::Untried | State::Trying => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn node(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn refusal() -> Refusal {
        Refusal { status: 400, kind: "AccessDeniedException".into() }
    }

    #[test]
    fn one_query_finds_out_whether_a_cluster_answers() {
        let mut permission = AskPermission::new(UNSIGNED_REFUSED_PAUSE);
        let now = Instant::now();
        assert_eq!(permission.ask(node(1), now), Permission::Granted);
        assert_eq!(permission.ask(node(1), now), Permission::Wait);
        permission.unanswered();
        assert_eq!(
            [permission.ask(node(1), now), permission.ask(node(1), now)],
            [Permission::Granted, Permission::Wait]
        );
        permission.accepted();
        assert_eq!(
            [permission.ask(node(1), now), permission.ask(node(1), now)],
            [Permission::Granted, Permission::Granted]
        );
        permission.unanswered();
        assert_eq!(permission.ask(node(1), now), Permission::Granted, "one node that does not answer changes nothing");
    }

    #[test]
    fn after_a_refusal_a_cluster_is_not_asked_for_the_pause() {
        for pause in [UNSIGNED_REFUSED_PAUSE, SIGNED_REFUSED_PAUSE] {
            let mut permission = AskPermission::new(pause);
            let now = Instant::now();
            permission.ask(node(1), now);
            assert_eq!(permission.refused(node(1), refusal(), now), NewlyRefused::Cluster);
            assert_eq!(permission.refused(node(2), refusal(), now), NewlyRefused::None, "it is reported once");
            permission.accepted();
            permission.unanswered();
            let last = now + pause - MINUTE / 60;
            assert_eq!(permission.ask(node(1), last), Permission::Refused(refusal()));
            assert_eq!(
                [permission.ask(node(1), now + pause), permission.ask(node(1), now + pause)],
                [Permission::Granted, Permission::Wait]
            );
            assert_eq!(
                permission.refused(node(1), refusal(), now + pause),
                NewlyRefused::Cluster,
                "and once after each pause"
            );
            permission.forget_refusal();
            assert_eq!(
                permission.ask(node(1), now + pause),
                Permission::Granted,
                "with other keys it may be asked at once"
            );
        }
    }

    #[test]
    fn one_node_that_refuses_beside_others_that_answer_is_left_alone() {
        let mut permission = AskPermission::new(UNSIGNED_REFUSED_PAUSE);
        let now = Instant::now();
        permission.ask(node(1), now);
        permission.accepted();
        assert_eq!(permission.refused(node(2), refusal(), now), NewlyRefused::Node);
        assert_eq!(permission.refused(node(2), refusal(), now), NewlyRefused::Node, "it was asked twice before");
        let asked = [1, 2, 3].map(|n| permission.ask(node(n), now + MINUTE));
        assert_eq!(asked, [Permission::Granted, Permission::Refused(refusal()), Permission::Granted]);
        assert!(permission.is_refused(now + MINUTE));
        let later = now + UNSIGNED_REFUSED_PAUSE;
        assert_eq!(permission.ask(node(2), later), Permission::Granted);
        assert_eq!(permission.refused(node(3), refusal(), later), NewlyRefused::Node, "the first is long ago");
        assert_eq!(permission.refused(node(2), refusal(), later), NewlyRefused::Cluster, "two of them are the cluster");
        assert_eq!(permission.ask(node(1), later), Permission::Refused(refusal()));
        permission.forget_refusal();
        assert_eq!(permission.ask(node(1), later), Permission::Granted);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Refuse,
        Lose,
        Wait(u32),
    }

    proptest! {
        /// Whatever is asked when, and whichever queries are lost: a cluster that refuses sees one query a pause.
        #[test]
        fn a_cluster_that_refuses_sees_one_query_a_pause(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => Just(Step::Ask),
                    2 => Just(Step::Refuse),
                    1 => Just(Step::Lose),
                    2 => (0..40_000_u32).prop_map(Step::Wait),
                ],
                0..200,
            ),
        ) {
            let mut permission = AskPermission::new(UNSIGNED_REFUSED_PAUSE);
            let mut now = Instant::now();
            let mut in_flight = 0;
            let mut refused_at = Vec::new();
            for step in steps {
                match step {
                    Step::Ask => in_flight += u32::from(permission.ask(node(1), now) == Permission::Granted),
                    Step::Refuse if in_flight > 0 => {
                        in_flight -= 1;
                        prop_assert_eq!(permission.refused(node(1), refusal(), now), NewlyRefused::Cluster);
                        refused_at.push(now);
                    }
                    Step::Lose if in_flight > 0 => {
                        in_flight -= 1;
                        permission.unanswered();
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds.into()),
                    Step::Refuse | Step::Lose => {}
                }
                prop_assert!(in_flight <= 1);
            }
            prop_assert!(refused_at.windows(2).all(|pair| pair[1] - pair[0] >= UNSIGNED_REFUSED_PAUSE));
        }
    }
}

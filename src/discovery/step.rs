//! What a tick's outcome means: policy without a clock, a socket or a log.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    table::{Knowledge, Known},
    zone::{NodeSet, ZoneState},
};

/// A zone is stale after so many refreshes without success, and not before [`STALE_AFTER_MIN`].
const STALE_AFTER_REFRESHES: u32 = 3;

/// A few seconds without success are ordinary when nodes restart, however often they are asked.
const STALE_AFTER_MIN: Duration = Duration::from_secs(5);

/// Pauses differ by so much of the refresh in either direction, so that many zones and replicas do not ask in step.
const JITTER: f64 = 0.1;

/// What has been learnt so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Learnt {
    /// Nothing; the addresses of the seeds.
    Waiting(Option<NodeSet>),
    /// Nodes.
    Known { nodes: NodeSet, stale: bool },
}

impl Learnt {
    /// What the table is told.
    pub fn knowledge(&self) -> Knowledge {
        match self {
            Self::Waiting(seeds) => Knowledge::Waiting(seeds.clone()),
            Self::Known { nodes, stale: true } => Knowledge::up(nodes, ZoneState::Stale),
            Self::Known { nodes, stale: false } => Knowledge::up(nodes, ZoneState::Live),
        }
    }

    /// What the table was told.
    pub fn from(knowledge: &Knowledge) -> Self {
        match knowledge {
            Knowledge::Waiting(seeds) => Self::Waiting(seeds.clone()),
            Knowledge::Known(Known { nodes, state, .. }) => match NodeSet::new(nodes.iter().map(|node| node.address)) {
                Some(nodes) => Self::Known { nodes, stale: *state == ZoneState::Stale },
                None => Self::Waiting(None),
            },
        }
    }
}

/// What the poller knows between two ticks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// What is answered.
    pub knowledge: Learnt,
    /// It was learnt from another cluster, whose nodes must not be asked.
    pub former: bool,
    /// When a usable list last arrived, or when the poller began, if that is later than any.
    pub fresh: Instant,
    /// When a usable list last arrived.
    pub last_success: Option<Instant>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// What went wrong in the last tick.
    pub error: Option<String>,
}

/// How a tick ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Somebody gave a usable list.
    Listed {
        /// Who is alive.
        nodes: NodeSet,
        /// Who said so.
        source: IpAddr,
    },
    /// Nobody did.
    Failed {
        /// What went wrong, as a sentence.
        why: String,
        /// The seeds' addresses, answered while nothing is learnt.
        seeds: Option<NodeSet>,
    },
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Nothing: what is answered is still right.
    Keep,
    /// Answer this from now on.
    Publish(Learnt),
}

impl State {
    /// The nodes that may be asked: those learnt from the cluster that is configured now.
    pub fn nodes(&self) -> &[IpAddr] {
        match &self.knowledge {
            Learnt::Known { nodes, .. } if !self.former => nodes.as_slice(),
            _ => &[],
        }
    }

    /// When what is known becomes stale; `None` when it is already, or nothing is known.
    pub fn stale_from(&self, refresh: Duration) -> Option<Instant> {
        match self.knowledge {
            Learnt::Known { stale: false, .. } => Some(self.fresh + stale_after(refresh)),
            _ => None,
        }
    }

    /// What time alone does.
    pub fn age(self, refresh: Duration, now: Instant) -> (Self, Effect) {
        let stale = self.stale_from(refresh).is_some_and(|from| now > from);
        match &self.knowledge {
            Learnt::Known { nodes, .. } if stale => {
                let knowledge = Learnt::Known { nodes: nodes.clone(), stale };
                self.knowing(knowledge)
            }
            _ => (self, Effect::Keep),
        }
    }

    /// The same state with this knowledge, published if it is news.
    fn knowing(self, knowledge: Learnt) -> (Self, Effect) {
        if self.knowledge == knowledge {
            return (self, Effect::Keep);
        }
        (Self { knowledge: knowledge.clone(), ..self }, Effect::Publish(knowledge))
    }
}

/// What to do after a tick, and how long after its beginning the next one begins. `chance` is at least 0 and below 1.
pub fn step(refresh: Duration, state: State, outcome: Outcome, now: Instant, chance: f64) -> (State, Effect, Duration) {
    let (state, effect) = match outcome {
        Outcome::Listed { nodes, source } => {
            State { former: false, fresh: now, last_success: Some(now), source: Some(source), error: None, ..state }
                .knowing(Learnt::Known { nodes, stale: false })
        }
        Outcome::Failed { why, seeds } => {
            let state = State { error: Some(why), ..state };
            match state.knowledge {
                Learnt::Waiting(_) => state.knowing(Learnt::Waiting(seeds)),
                Learnt::Known { .. } => state.age(refresh, now),
            }
        }
    };
    (state, effect, pause(refresh, chance))
}

/// How long a zone lives on its last success.
fn stale_after(refresh: Duration) -> Duration {
    (refresh * STALE_AFTER_REFRESHES).max(STALE_AFTER_MIN)
}

/// A period, give or take a tenth. `chance` is at least 0 and below 1.
pub fn pause(period: Duration, chance: f64) -> Duration {
    period.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(1);

    /// A zone's life, told in seconds since it began.
    struct Story {
        start: Instant,
        state: State,
    }

    impl Story {
        fn begin(knowledge: Learnt) -> Self {
            let start = Instant::now();
            let state = State { knowledge, former: false, fresh: start, last_success: None, source: None, error: None };
            Self { start, state }
        }

        fn listed(&mut self, second: u64, texts: &[&str]) -> Effect {
            let nodes = set(texts).unwrap();
            let source = nodes.as_slice()[0];
            self.tick(second, Outcome::Listed { nodes, source })
        }

        fn failed(&mut self, second: u64, seeds: &[&str]) -> Effect {
            self.tick(second, Outcome::Failed { why: "10.0.0.1 refused the connection".into(), seeds: set(seeds) })
        }

        fn tick(&mut self, second: u64, outcome: Outcome) -> Effect {
            let now = self.start + Duration::from_secs(second);
            let (state, effect, _) = step(REFRESH, self.state.clone(), outcome, now, 0.5);
            self.state = state;
            effect
        }
    }

    fn set(texts: &[&str]) -> Option<NodeSet> {
        NodeSet::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    fn known(texts: &[&str], stale: bool) -> Learnt {
        Learnt::Known { nodes: set(texts).unwrap(), stale }
    }

    #[test]
    fn a_list_is_published_when_it_is_news() {
        let mut zone = Story::begin(Learnt::Waiting(None));
        assert_eq!(zone.state.nodes().len(), 0);
        assert_eq!(zone.listed(0, &["10.0.0.1"]), Effect::Publish(known(&["10.0.0.1"], false)));
        assert_eq!(zone.listed(1, &["10.0.0.1"]), Effect::Keep);
        assert_eq!(zone.listed(2, &["10.0.0.2", "10.0.0.1"]), Effect::Publish(known(&["10.0.0.1", "10.0.0.2"], false)));
        assert_eq!(zone.state.nodes(), set(&["10.0.0.1", "10.0.0.2"]).unwrap().as_slice());
        assert_eq!(zone.state.last_success, Some(zone.start + Duration::from_secs(2)));
    }

    #[test]
    fn while_nothing_is_learnt_the_seeds_are_answered() {
        let mut zone = Story::begin(Learnt::Waiting(None));
        assert_eq!(zone.failed(0, &[]), Effect::Keep);
        assert_eq!(zone.failed(1, &["10.0.0.9"]), Effect::Publish(Learnt::Waiting(set(&["10.0.0.9"]))));
        assert_eq!(zone.failed(99, &["10.0.0.9"]), Effect::Keep, "waiting never ends in anything else");
        assert_eq!(zone.state.error.as_deref(), Some("10.0.0.1 refused the connection"));
        assert_eq!(zone.listed(100, &["10.0.0.1"]), Effect::Publish(known(&["10.0.0.1"], false)));
        assert_eq!((zone.state.error.as_deref(), zone.state.source), (None, "10.0.0.1".parse().ok()));
    }

    #[test]
    fn nodes_stay_for_ever_and_are_stale_after_three_refreshes_and_five_seconds() {
        let mut zone = Story::begin(Learnt::Waiting(None));
        zone.listed(0, &["10.0.0.1"]);
        for second in 1..=5 {
            assert_eq!(zone.failed(second, &["10.0.0.9"]), Effect::Keep, "at {second}");
        }
        assert_eq!(zone.failed(6, &["10.0.0.9"]), Effect::Publish(known(&["10.0.0.1"], true)));
        assert_eq!(zone.failed(100_000, &[]), Effect::Keep);
        assert_eq!(zone.listed(100_001, &["10.0.0.1"]), Effect::Publish(known(&["10.0.0.1"], false)));
    }

    #[test]
    fn a_slow_zone_is_stale_after_three_refreshes() {
        let zone = Story::begin(known(&["10.0.0.1"], false));
        let minute = Duration::from_secs(60);
        assert_eq!(zone.state.stale_from(minute), Some(zone.start + minute * 3));
        let (state, effect) = zone.state.clone().age(minute, zone.start + minute * 3);
        assert_eq!(effect, Effect::Keep);
        let (state, effect) = state.age(minute, zone.start + minute * 4);
        assert_eq!(effect, Effect::Publish(known(&["10.0.0.1"], true)));
        assert_eq!(state.stale_from(minute), None);
    }

    #[test]
    fn nodes_of_a_former_cluster_are_answered_but_not_asked() {
        let mut zone = Story::begin(known(&["10.0.0.1"], false));
        zone.state.former = true;
        assert_eq!(zone.failed(1, &["10.9.0.1"]), Effect::Keep);
        assert_eq!((zone.state.nodes().len(), zone.state.former), (0, true));
        assert_eq!(zone.listed(2, &["10.9.0.2"]), Effect::Publish(known(&["10.9.0.2"], false)));
        assert_eq!((zone.state.nodes().len(), zone.state.former), (1, false));
    }

    #[test]
    fn pauses_differ_by_a_tenth() {
        assert_eq!(pause(REFRESH, 0.0), Duration::from_millis(900));
        assert_eq!(pause(REFRESH, 0.5), REFRESH);
        assert!(pause(REFRESH, 0.999) < Duration::from_millis(1100));
    }
}

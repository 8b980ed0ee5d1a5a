//! The rules of learning, explored whole: every order of events and ticks over four addresses and two zones, so many
//! states of them, the shortest stories first.
//!
//! A zone's turn is one probe of each listed node and one tick; zones take turns, and anything may happen between two
//! turns. Whom a tick asks first, and whose answer comes first, is a choice of which every one is explored. What is
//! asserted:
//! - **Somebody.** After a turn the answer is not empty while a node of the cluster lives whom the zone can ask, and
//!   that lists no live foreign node: such a node may itself be a recycled address, and no answer is better than
//!   a wrong one.
//! - **Dead.** A node that refuses is not answered after a turn in which it was probed (a refusal is confirmed at once,
//!   so that is `fall` probes) unless no listed node has answered `rise` probes in a row: then all that were ever up
//!   are answered.
//! - **Leaving.** A node that was listed, lives, and lists as many of the listed nodes as anybody who is asked, stays
//!   listed. (So the larger side of a split stays, and of two equal ones both do.)
//! - **Foreign.** A node of the other cluster is not answered after [`FOREIGN_TICKS`] ticks that could know better:
//!   [`State::could_know`] says which those are.
//! - **Convergence.** From every state, once splits are over and gossip has caught up, each zone answers exactly the
//!   nodes of its cluster that live, after at most [`TURNS_TO_TRUTH`] of its turns, whichever node is asked first, and goes
//!   on to do so. Where a node [must be heard itself](State::must_hear_itself) that is so in some order of asking.
//!   [`State::zones_that_can_know`] says of which zones this is asked.

mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    num::{NonZeroU8, NonZeroU16},
    sync::LazyLock,
    time::{Duration, Instant},
};

use self::world::{ADDRESSES, ALL, Event, World, address, letter, number};
use super::{
    Actions, AddressOwnership, Decision, Event as Input, ListReport, Membership, MembershipView, OtherZones,
    ProbeOutcome, ScopeReport, Timing,
};
use crate::{
    config,
    table::{Answers, Knowledge, Node, ZoneSettings},
    types::{NodeSet, NodeState, ZoneName},
};

/// States to explore from each beginning unless the environment says otherwise: what every run of the tests can spare.
/// A number, not a time: a search finds the same things on every machine.
const STATES: usize = 6_000;

/// Ticks after which an address that was recycled is answered no more.
const FOREIGN_TICKS: u8 = 2;

/// A zone's turns after which it answers the truth. The slowest story: the only node of a small cluster lists a node
/// that another live zone publishes, so that it is disowned until that zone is no longer live; it is last_dispute then
/// itself, for three turns more, and as long the other zone cannot know either.
const TURNS_TO_TRUTH: u8 = 6;

/// Turns after which a zone counts as never to converge.
const TURNS_MAX: u8 = 16;

/// A zone's turns at the start after which it is live, and has seen that the other one is.
const TURNS_TO_SETTLE: usize = 2;

/// Broken rules that are told of one beginning.
const TOLD_MAX: usize = 3;

/// Turns of a story's end that are told.
const TURNS_TOLD_MAX: usize = 12;

/// One turn of every zone. With a refresh of 2 s a zone is stale, and a dispute over, after three.
const REFRESH: Duration = Duration::from_secs(2);

/// Where both clusters are, told apart by nothing: they name no seed in common.
static CLUSTER: LazyLock<config::Cluster> = LazyLock::new(|| config::Cluster {
    seeds: Vec::new(),
    port: NonZeroU16::new(8000).unwrap(),
    scheme: config::Scheme::Http,
    scope: Vec::new(),
});
const TWO: NonZeroU8 = NonZeroU8::new(2).unwrap();

/// By default a node leaves after two failures and returns after two successes.
const HEALTH: config::Health = config::Health { interval: REFRESH, timeout: REFRESH, rise: TWO, fall: TWO };

/// Where stories begin: who has each address, and the seeds of each zone.
const BEGINNINGS: [(&str, &[&[usize]]); 6] = [
    ("AAA.", &[&[0]]),
    ("AAAA", &[&[0, 1]]),
    ("AABB", &[&[0], &[2]]),
    ("AABB", &[&[0, 1], &[2, 3]]),
    ("A.BB", &[&[0], &[2]]),
    ("AAAB", &[&[0, 1], &[3]]),
];

/// One zone.
#[derive(Clone, Debug)]
struct Zone {
    name: ZoneName,
    seeds: &'static [usize],
    membership: Membership,
    answers: Answers,
    /// Ticks since an answered address could be known to be the other cluster's.
    foreign_ticks: [u8; ADDRESSES],
}

/// The truth, and what is believed.
#[derive(Debug)]
struct State {
    world: World,
    zones: Vec<Zone>,
    ownership: AddressOwnership,
    /// Whose turn it is.
    turn: usize,
    now: Instant,
}

/// What a story is made of.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(usize),
    Happens(Event),
    /// A zone's turn, and whom it asked, in order.
    Turn(usize, [Option<usize>; ADDRESSES]),
}

/// A tick under way.
struct Asking {
    state: State,
    asked: [Option<usize>; ADDRESSES],
    left: Vec<usize>,
}

impl Clone for State {
    fn clone(&self) -> Self {
        Self { zones: self.zones.clone(), ownership: self.ownership.fork(), ..*self }
    }
}

impl State {
    fn new(owners: &str, seeds: &[&'static [usize]]) -> Self {
        let now = Instant::now();
        let zones = seeds.iter().zip(["a.test", "b.test"]).map(|(&seeds, name)| {
            let mut view = MembershipView::new(Timing { refresh: REFRESH, max_stale: None }, Some(HEALTH), 0, now);
            view.seeds(NodeSet::new(seeds.iter().copied().map(address)));
            let answers = Answers::new(ZoneSettings::example(), view.knowledge(now), 0);
            let membership = Membership::new(view, answers.knowledge.clone());
            Zone { name: ZoneName::parse(name).unwrap(), seeds, membership, answers, foreign_ticks: [0; ADDRESSES] }
        });
        Self { world: World::new(owners), zones: zones.collect(), ownership: AddressOwnership::default(), turn: 0, now }
    }

    /// What tells states apart. Of two that differ one in 2^64 would be taken for the other, so none is.
    fn essence(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.world, self.turn).hash(&mut hasher);
        for (zone, other) in self.zones.iter().zip(self.zones.iter().rev()) {
            zone.membership.view.hash_essence(self.now, &mut hasher);
            let overlaps = zone.membership.view.overlaps();
            let knew = self.ownership.knew(&other.name, overlaps);
            let waits = self.ownership.waits(&other.name, overlaps);
            (knew, waits, overlaps.relate_to(&other.name)).hash(&mut hasher);
            (zone.answers.state(), zone.foreign_ticks).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn answered(&self, zone: usize) -> &[IpAddr] {
        self.zones[zone].answers.answered.as_ref().map_or(&[], NodeSet::as_slice)
    }

    /// Performs what an event calls for, as the poller does.
    fn handle(&mut self, zone: usize, event: Input<'_>) -> Option<Decision> {
        let ownership = self.ownership.clone();
        let Zone { name, membership, answers, .. } = &mut self.zones[zone];
        let others = OtherZones { ownership: &ownership, zone: name, cluster: &CLUSTER };
        let Actions { decision, publish, probes_changed: _, confirm, remember: _ } =
            membership.on(event, self.now, &others);
        if let Some(publication) = publish {
            *answers = answers.with_knowledge(publication.knowledge, 0);
            others.register(publication.addresses.as_ref(), publication.live);
        }
        for node in confirm {
            self.probe(zone, number(node));
        }
        decision
    }

    fn probe(&mut self, zone: usize, n: usize) {
        let outcome = if self.world.0[n].alive { ProbeOutcome::Up } else { ProbeOutcome::Refused };
        self.handle(zone, Input::Probed(address(n), outcome));
    }

    /// A node is asked for its list.
    fn list(&mut self, zone: usize, n: usize) -> Option<NodeSet> {
        let list = self.world.list(n);
        if list.is_none() {
            self.handle(zone, Input::Refused(address(n)));
        }
        list
    }

    /// Asks one candidate. Returns whether its list is accepted.
    fn ask(&mut self, zone: usize, n: usize) -> bool {
        let Some(list) = self.list(zone, n) else { return false };
        let from_seed = self.zones[zone].seeds.contains(&n);
        let report = ListReport { sender: address(n), from_seed, nodes: Some(&list), unscoped: false };
        let about = ScopeReport { scope: 0, report };
        let mut decision = self.handle(zone, Input::Report(about));
        if let Some(Decision::AskMissing(missing)) = decision {
            let replies: BTreeMap<_, _> =
                missing.into_iter().map(|node| (node, self.list(zone, number(node)))).collect();
            decision = self.handle(zone, Input::MissingReplied { report: about, replies: &replies });
        }
        decision == Some(Decision::Accepted)
    }

    /// Whom a tick may ask.
    fn candidates(&self, zone: usize) -> Vec<usize> {
        let nodes = self.zones[zone].membership.view.candidates(false);
        ALL.into_iter().filter(|n| nodes.contains(&address(*n)) || self.zones[zone].seeds.contains(n)).collect()
    }

    /// One turn, in every order of asking.
    fn turns(&self) -> Vec<(Step, Self)> {
        let (mut state, zone) = (self.clone(), self.turn);
        for other in 0..state.zones.len() {
            state.handle(other, Input::Time);
        }
        for node in state.zones[zone].membership.view.to_probe() {
            state.probe(zone, number(node));
        }
        let could_know = ALL.map(|n| state.could_know(zone, n));
        let left = state.candidates(zone);
        let mut ended = Vec::new();
        let mut waiting = vec![Asking { state, asked: [None; ADDRESSES], left }];
        while let Some(Asking { state, asked, left }) = waiting.pop() {
            for &n in &left {
                let (mut state, mut asked, mut left) = (state.clone(), asked, left.clone());
                left.retain(|other| *other != n);
                *asked.iter_mut().find(|place| place.is_none()).unwrap() = Some(n);
                if state.ask(zone, n) || left.is_empty() {
                    state.end_turn(&could_know);
                    ended.push((Step::Turn(zone, asked), state));
                } else {
                    waiting.push(Asking { state, asked, left });
                }
            }
        }
        let mut seen = HashSet::new();
        ended.retain(|(_, state)| seen.insert(state.essence()));
        ended
    }

    fn end_turn(&mut self, could_know: &[bool]) {
        let zone = self.turn;
        for n in ALL {
            let counts = could_know[n] && self.answered(zone).contains(&address(n));
            let ticks = &mut self.zones[zone].foreign_ticks[n];
            *ticks = if counts { (*ticks + 1).min(FOREIGN_TICKS) } else { 0 };
        }
        self.turn = (zone + 1) % self.zones.len();
        if self.turn == 0 {
            self.now += REFRESH;
        }
    }

    /// Whether a tick of a zone can know that an address is the other cluster's: its node lists one that the other
    /// zone publishes, which is live and was disjoint.
    fn could_know(&self, zone: usize, n: usize) -> bool {
        !self.world.serves(n, zone) && self.lists_foreign(zone, n)
    }

    /// Whether a node lists an address that another zone publishes, which is live and was disjoint.
    fn lists_foreign(&self, zone: usize, n: usize) -> bool {
        let Zone { name, membership, .. } = &self.zones[zone];
        let strange =
            |node: &IpAddr| self.ownership.owned_by_other_zone(name, &CLUSTER, membership.view.overlaps(), *node);
        self.world.list(n).is_some_and(|list| list.as_slice().iter().any(strange))
    }

    /// Whether the truth cannot be known from here: no node of the cluster lives whom the zone asks.
    fn is_lost(&self, zone: usize) -> bool {
        !self.candidates(zone).into_iter().any(|n| self.world.serves(n, zone))
    }

    /// Whether the truth is kin to what a zone knows: a node of its cluster lives whom it asks, and who is a seed, or
    /// shares another node with it, or is all that it knows, or names known nodes only. Of a cluster that has lost its
    /// seeds, and of which the one survivor lists only newcomers, no rule can tell that it is the same.
    fn is_kin(&self, zone: usize) -> bool {
        let Some(known) = self.zones[zone].membership.view.learnt() else { return !self.is_lost(zone) };
        let known: Vec<usize> = known.as_slice().iter().copied().map(number).collect();
        let kin = |n: &usize| {
            let list = self.world.list(*n).unwrap();
            let listed: Vec<usize> = list.as_slice().iter().copied().map(number).collect();
            let shares = listed.iter().any(|node| node != n && known.contains(node));
            let nothing_new = listed.iter().all(|node| known.contains(node));
            self.zones[zone].seeds.contains(n) || shares || nothing_new || known == [*n]
        };
        self.candidates(zone).iter().filter(|n| self.world.serves(**n, zone)).any(kin)
    }

    /// How many of the addresses that a zone asks were given to the other cluster, whether or not they answer now.
    fn given_away(&self, zone: usize) -> usize {
        let away = |n: &usize| self.world.0[*n].owner.is_some_and(|owner| owner != zone);
        self.candidates(zone).into_iter().filter(away).count()
    }

    /// The other cluster's nodes among those whom a zone asks.
    fn foreign(&self, zone: usize) -> impl Iterator<Item = usize> {
        let strange = move |n: &usize| self.world.0[*n].alive && !self.world.serves(*n, zone);
        self.candidates(zone).into_iter().filter(strange)
    }

    /// The zones that have to come to the truth. None can where addresses have changed hands
    /// - twice before it was noticed: two foreign nodes vouch for one another, and one may be gone since;
    /// - in both directions at once: each zone sees the other one last_dispute, which therefore proves nothing;
    /// - before the former zone has seen the other one live and disjoint, or while it is not: it may be a zone of the
    ///   same cluster;
    /// - and the zone that they came to has no [kin](Self::is_kin): it cannot be live, so that it proves nothing;
    /// - and the former zone has no other node: it may follow its seed into the other cluster.
    fn zones_that_can_know(&self) -> Vec<usize> {
        let zones = 0..self.zones.len();
        let robbed: Vec<usize> = zones.clone().filter(|&zone| self.foreign(zone).next().is_some()).collect();
        let clear = match robbed[..] {
            [] => true,
            [zone] => {
                let foreign: Vec<usize> = self.foreign(zone).collect();
                self.given_away(zone) == 1
                    && self.could_know(zone, foreign[0])
                    && self.is_kin(1 - zone)
                    && !self.is_lost(zone)
            }
            _ => false,
        };
        zones.filter(|&zone| clear && self.is_kin(zone)).collect()
    }

    /// Whether a node has been disowned and is the cluster's again: it is answered when it is the one that is asked,
    /// and no other node can vouch for it. Which node a tick asks is random, so there is no bound, but it must be possible.
    fn must_hear_itself(&self, zone: usize) -> bool {
        let membership = &self.zones[zone].membership;
        let learnt = membership.view.learnt();
        let disowned = |node: &IpAddr| learnt.as_ref().is_none_or(|learnt| !learnt.contains(node));
        membership
            .view
            .candidates(false)
            .iter()
            .filter(|node| disowned(node))
            .any(|&node| self.world.serves(number(node), zone))
    }

    /// What is wrong after a zone's turn.
    fn refusal(&self, zone: usize) -> Option<String> {
        let nodes: &[Node] = match &self.zones[zone].answers.knowledge {
            Knowledge::Known(known) => &known.nodes,
            Knowledge::Waiting(_) => return None,
        };
        let blameless = |n: &usize| self.world.serves(*n, zone) && !self.lists_foreign(zone, *n);
        if self.answered(zone).is_empty() && self.candidates(zone).iter().any(blameless) {
            return Some("the answer is empty while a node lives".into());
        }
        let proven = nodes.iter().any(|node| node.state == NodeState::Up && self.world.0[number(node.address)].alive);
        self.answered(zone).iter().find_map(|&node| {
            let n = number(node);
            let told = if !self.world.0[n].alive && proven {
                "is dead, and answered"
            } else if self.zones[zone].foreign_ticks[n] >= FOREIGN_TICKS {
                "is the other cluster's, and answered"
            } else {
                return None;
            };
            Some(format!("{} {told}", letter(n)))
        })
    }

    /// The node that has left in the turn that is over, although it lives and no report contradicted it.
    fn wrongly_left(&self, after: &Self) -> Option<String> {
        let zone = self.turn;
        let (known, still) = (self.zones[zone].membership.view.learnt()?, after.zones[zone].membership.view.learnt());
        let knows = |n: usize| {
            let list = self.world.list(n);
            list.map_or(0, |list| list.as_slice().iter().filter(|node| known.contains(node)).count())
        };
        let most = self.candidates(zone).into_iter().map(knows).max()?;
        let left = |node: &&IpAddr| still.as_ref().is_none_or(|still| !still.contains(node));
        let mut left = known.as_slice().iter().filter(left).map(|&node| number(node));
        let suspect = |n: usize| self.lists_foreign(zone, n) || after.lists_foreign(zone, n);
        let wrongly = left.find(|&n| self.world.serves(n, zone) && !suspect(n) && knows(n) == most)?;
        Some(format!("{} has left, and lives, and knows as many nodes as anybody", letter(wrongly)))
    }

    fn is_true(&self, zone: usize) -> bool {
        self.zones[zone].answers.answered == self.world.alive(zone)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(beginning) => {
                let (owners, seeds) = BEGINNINGS[*beginning];
                let seeds: Vec<String> =
                    seeds.iter().map(|seeds| seeds.iter().copied().map(letter).collect()).collect();
                write!(f, "abcd belong to {owners}, the seeds are {}", seeds.join(" and "))
            }
            Self::Happens(event) => event.fmt(f),
            Self::Turn(zone, asked) => {
                let asked: String = asked.iter().flatten().copied().map(letter).collect();
                write!(f, "zone {} probes, and asks {asked}", ['A', 'B'][*zone])
            }
        }
    }
}

/// How each state was reached: from which, and by what.
type Stories = Vec<(usize, Step)>;

/// One search, from one beginning.
struct Search {
    stories: Stories,
    seen: HashSet<u64>,
    waiting: VecDeque<(usize, usize, State)>,
    calm: Calm,
    /// Turns of each of these zones until they answer the truth from a calm state, where that is known already.
    turns_to_truth: HashMap<(usize, Vec<usize>, bool), u8>,
    /// The longest of them.
    slowest: u8,
    depth: usize,
    /// The shortest stories of broken rules.
    broken: Vec<String>,
}

/// What happens while nothing happens: states whose truth is stable, and where turns lead from each.
#[derive(Default)]
struct Calm {
    numbers: HashMap<u64, usize>,
    essences: Vec<u64>,
    states: Vec<CalmState>,
}

struct CalmState {
    /// Of each zone whether it answers the truth.
    is_true: Vec<bool>,
    /// Where one turn leads; until somebody wants to know, the state itself.
    next: Result<Vec<usize>, Box<State>>,
}

impl Search {
    fn new(beginning: usize) -> Self {
        let (owners, seeds) = BEGINNINGS[beginning];
        let mut search = Self {
            stories: Vec::new(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            calm: Calm::default(),
            turns_to_truth: HashMap::new(),
            slowest: 0,
            depth: 0,
            broken: Vec::new(),
        };
        let mut state = State::new(owners, seeds);
        let mut story = search.reach(0, 0, Step::Begin(beginning), state.clone());
        // Stories begin at the start and, without having to find the way there, when everybody knows everybody.
        for _ in 0..seeds.len() * TURNS_TO_SETTLE {
            let (step, after) = state.turns().swap_remove(0);
            state = after;
            story = search.reach(story.unwrap_or(0), 0, step, state.clone()).or(story);
        }
        search
    }

    /// Goes on until there are so many states, or until nothing is left.
    fn run(&mut self, states: usize) {
        while self.stories.len() < states
            && let Some((story, depth, state)) = self.waiting.pop_front()
        {
            self.depth = depth;
            for (step, after) in state.turns() {
                let refusal = after.refusal(state.turn).or_else(|| state.wrongly_left(&after));
                let reached = self.reach(story, depth + 1, step, after);
                if let Some(refusal) = refusal {
                    self.tell(reached.unwrap_or(story), &refusal);
                }
            }
            for event in state.world.events(state.zones.len()) {
                let after = State { world: state.world.after(event), ..state.clone() };
                self.reach(story, depth + 1, Step::Happens(event), after);
            }
        }
    }

    /// Takes a state in, if it is a new one.
    fn reach(&mut self, from: usize, depth: usize, step: Step, state: State) -> Option<usize> {
        if !self.seen.insert(state.essence()) {
            return None;
        }
        self.stories.push((from, step));
        let story = self.stories.len() - 1;
        self.converges(story, &state);
        self.waiting.push_back((story, depth, state));
        Some(story)
    }

    /// Sees whether the truth is answered, and goes on to be, when it stays as it is.
    fn converges(&mut self, story: usize, state: &State) {
        let state = State { world: state.world.calmed(), ..state.clone() };
        let zones: Vec<usize> = state.zones_that_can_know();
        let start = self.calm.take(&state);
        let by_chance = zones.iter().any(|&zone| state.must_hear_itself(zone));
        let turns = self.turns_to_truth(start, &zones, by_chance);
        if by_chance && turns <= TURNS_TO_TRUTH {
            return;
        }
        self.slowest = self.slowest.max(turns);
        if turns > TURNS_TO_TRUTH {
            let way = self.calm.way_without_truth(start, &zones);
            self.tell(story, &format!("from here zones {zones:?} need {turns} turns: {}", tell_way(&state, &way)));
        }
    }

    /// The turns of each zone to the truth, whichever node is asked, or with the best choice.
    fn turns_to_truth(&mut self, start: usize, zones: &[usize], by_chance: bool) -> u8 {
        let key = (start, zones.to_vec(), by_chance);
        if let Some(&known) = self.turns_to_truth.get(&key) {
            return known;
        }
        let turns = if by_chance { self.turns_by_chance(start, zones) } else { self.calm.turns_to_truth(start, zones) };
        self.turns_to_truth.insert(key, turns);
        turns
    }

    /// The fewest turns to a state from which on the truth is answered whichever node is asked.
    fn turns_by_chance(&mut self, start: usize, zones: &[usize]) -> u8 {
        let mut layer = BTreeSet::from([start]);
        for turn in 0..TURNS_MAX {
            if layer.iter().any(|&at| self.turns_to_truth(at, zones, false) == 0) {
                return turn;
            }
            layer = layer.iter().flat_map(|&at| self.calm.next(at)).collect();
        }
        TURNS_MAX
    }

    /// Tells how a rule was broken.
    fn tell(&mut self, mut story: usize, refusal: &str) {
        if self.broken.len() >= TOLD_MAX {
            return;
        }
        let mut steps = vec![self.stories[story].1];
        while story != 0 {
            story = self.stories[story].0;
            steps.push(self.stories[story].1);
        }
        let told: Vec<String> = steps.iter().rev().map(ToString::to_string).collect();
        self.broken.push(format!("{refusal}\nafter:\n  {}", told.join("\n  ")));
    }
}

impl Calm {
    /// The number of a state.
    fn take(&mut self, state: &State) -> usize {
        let essence = state.essence();
        *self.numbers.entry(essence).or_insert_with(|| {
            self.essences.push(essence);
            let is_true = (0..state.zones.len()).map(|zone| state.is_true(zone)).collect();
            self.states.push(CalmState { is_true, next: Err(state.clone().into()) });
            self.states.len() - 1
        })
    }

    /// The states that one turn leads to.
    fn next(&mut self, at: usize) -> Vec<usize> {
        let next = match &self.states[at].next {
            Ok(next) => return next.clone(),
            Err(state) => state.turns(),
        };
        let next: Vec<usize> = next.iter().map(|(_, state)| self.take(state)).collect();
        self.states[at].next = Ok(next.clone());
        next
    }

    /// The states after each turn, from a beginning until the same ones come again. Each with one that led to it.
    fn layers(&mut self, start: usize) -> Vec<BTreeMap<usize, usize>> {
        let clusters = self.states[start].is_true.len();
        let mut layers = vec![BTreeMap::from([(start, start)])];
        while layers.len() <= usize::from(TURNS_MAX) * clusters {
            let last: Vec<usize> = layers.last().unwrap().keys().copied().collect();
            let next: BTreeMap<_, _> =
                last.iter().flat_map(|&at| self.next(at).into_iter().map(move |next| (next, at))).collect();
            if layers.len() >= clusters && layers[layers.len() - clusters].keys().eq(next.keys()) {
                break;
            }
            layers.push(next);
        }
        layers
    }

    fn is_untrue(&self, at: usize, zones: &[usize]) -> bool {
        zones.iter().any(|&zone| !self.states[at].is_true[zone])
    }

    /// Each zone's turns until the zones answer the truth, and go on to, whichever node is asked.
    fn turns_to_truth(&mut self, start: usize, zones: &[usize]) -> u8 {
        let clusters = self.states[start].is_true.len();
        let layers = self.layers(start);
        let is_untrue = |layer: &BTreeMap<usize, usize>| layer.keys().any(|&at| self.is_untrue(at, zones));
        let untrue = layers.iter().rposition(is_untrue).map_or(0, |at| at + 1);
        let goes_on = layers.len() - untrue < clusters;
        if goes_on { TURNS_MAX } else { u8::try_from(untrue.div_ceil(clusters)).unwrap() }
    }

    /// A way from a state to the last one that is not true.
    fn way_without_truth(&mut self, start: usize, zones: &[usize]) -> Vec<u64> {
        let layers = self.layers(start);
        let find = |layer: &BTreeMap<usize, usize>| layer.keys().copied().find(|&at| self.is_untrue(at, zones));
        let Some((last, mut at)) = layers.iter().enumerate().rev().find_map(|(n, layer)| Some((n, find(layer)?)))
        else {
            return Vec::new();
        };
        let mut way = Vec::new();
        for layer in layers[1..=last].iter().rev() {
            way.push(at);
            at = layer[&at];
        }
        way.reverse();
        way.iter().map(|&at| self.essences[at]).collect()
    }
}

/// What happens on a way through states whose truth is stable.
fn tell_way(state: &State, way: &[u64]) -> String {
    let (mut state, mut told) = (state.clone(), String::new());
    for essence in way.iter().take(TURNS_TOLD_MAX) {
        let (step, after) = state.turns().into_iter().find(|(_, after)| after.essence() == *essence).unwrap();
        let answered: String = after.answered(state.turn).iter().map(|&node| letter(number(node))).collect();
        told += &format!("\n  {step}: answers \"{answered}\", {:?}", after.zones[state.turn].answers.state());
        state = after;
    }
    told
}

#[test]
fn whatever_happens_answers_are_true_and_become_exact() {
    let each = std::env::var("ALTERNATOR_DNS_SEARCH_STATES").map_or(STATES, |text| text.parse().unwrap());
    let (mut states, mut broken) = (0, Vec::new());
    for beginning in 0..BEGINNINGS.len() {
        let mut search = Search::new(beginning);
        search.run(each);
        states += search.stories.len();
        broken.append(&mut search.broken);
        println!(
            "{}: {} states, all up to {} steps; the truth after at most {} turns",
            Step::Begin(beginning),
            search.stories.len(),
            search.depth,
            search.slowest
        );
    }
    println!("{states} states explored");
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

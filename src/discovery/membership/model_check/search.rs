//! The rules of learning, explored whole: every order of events and turns over a few addresses and two zones, so many
//! states of them, the shortest ways first.
//!
//! A zone's turn is one probe of each listed node, the reports that are due, and one poll; zones take turns, and anything
//! may happen between two turns: crashes, splits, recycling, restarts with the snapshot, edits of the seeds, and a pause of
//! the process. Which node a poll asks first is a choice of which every one is explored. What is asserted:
//! - **Some node.** After a turn the answer is not empty while a node of the cluster lives that the zone may ask; where
//!   scopes are set, after two.
//! - **Dead.** A node that refuses is not answered after a turn in which it was probed, unless no listed node has answered
//!   `rise` probes in a row: then all that were ever up are answered.
//! - **Leaving.** A node that was listed, lives, and lists as many of the listed nodes as any that is asked, stays
//!   listed. (So the larger side of a split stays, and of two equal ones both do.)
//! - **Foreign.** A node of another cluster that lists a stranger is not answered after [`FOREIGN_TURNS`] turns: until then
//!   an older report of its predecessor may be in force, if the address changed hands between two requests.
//! - **Convergence.** From every state, once splits are over and gossip has caught up, each zone answers exactly the
//!   nodes of its cluster that live, after at most [`TURNS_TO_TRUTH`] of its turns, whichever node is asked first, and goes
//!   on to do so.
//!
//! A zone is [excused](State::excuse) from the last two, until it has recovered, when as many addresses that are another
//! cluster's by now speak for it as nodes of its own, or no others in the scope that is answered: what the README names as
//! open without ids. It is also where nothing of its cluster is left that it [could know](State::can_know).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    net::IpAddr,
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    driver::{State, Zone},
    world::{Happening, Ids, World, address, letter, number},
};
use crate::{
    table::{Knowledge, Node},
    types::NodeState,
};

/// States to explore from each beginning unless the environment says otherwise: what every run of the tests can spare.
/// A number, not a time: a search finds the same things on every machine.
const STATES: usize = 500;

/// Random walks from each beginning, and the steps of each: they go deeper than the search can.
const WALKS: usize = 60;
const WALK_STEPS: usize = 24;

/// Turns for which an address that was recycled unseen may be answered: as long as a report is good, and one more.
const FOREIGN_TURNS: u8 = 3;

/// A zone's turns after which it answers the truth.
const TURNS_TO_TRUTH: u8 = 4;

/// Turns after which a zone counts as never to converge.
const TURNS_MAX: u8 = 16;

/// A zone's turns at the start after which it is live.
const TURNS_TO_SETTLE: usize = 2;

/// Broken rules that are reported of one beginning.
const REPORTED_MAX: usize = 3;

/// Turns of a way's end that are reported.
const TURNS_REPORTED_MAX: usize = 12;

/// A zone at the beginning: its cluster, its seeds, and the datacenters that it answers.
type ZoneStart = (u8, &'static [usize], &'static [u8]);

/// Where ways begin: who has each address, which nodes give ids, and the zones.
const BEGINNINGS: [(&str, Ids, &[ZoneStart]); 10] = [
    ("AAA.", Ids::None, &[(0, &[0], &[])]),
    ("AAAA", Ids::None, &[(0, &[0, 1], &[])]),
    ("A.BB", Ids::None, &[(0, &[0], &[]), (1, &[2], &[])]),
    ("AABB", Ids::None, &[(0, &[0], &[]), (1, &[2], &[])]),
    ("AABB", Ids::All, &[(0, &[0], &[]), (1, &[2], &[])]),
    ("AABB", Ids::Some, &[(0, &[0, 1], &[]), (1, &[2, 3], &[])]),
    ("AAABB", Ids::None, &[(0, &[0], &[]), (1, &[3], &[])]),
    ("AAAB.", Ids::All, &[(0, &[0, 1], &[]), (1, &[3], &[])]),
    ("AAaa", Ids::None, &[(0, &[0], &[0, 1]), (0, &[2], &[1])]),
    ("AAaB", Ids::Some, &[(0, &[0], &[0, 1]), (1, &[3], &[])]),
];

/// What a way is made of.
#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Happens(Happening),
    /// A zone's turn, and the nodes that it asked, in order.
    Turn(usize, Vec<usize>),
    Pause(usize),
    Restart(usize),
    Edit(usize, u8, Vec<usize>),
}

impl State {
    /// One turn, with every node asked first.
    fn turns(&self) -> Vec<(Step, Self)> {
        let zone = self.turn;
        let mut begun = self.clone();
        begun.begin_turn();
        let candidates = begun.candidates(zone);
        let mut ended = Vec::new();
        for first in candidates.iter().copied().map(Some).chain(candidates.is_empty().then_some(None)) {
            let mut order: Vec<usize> = first.into_iter().collect();
            order.extend(candidates.iter().filter(|n| Some(**n) != first));
            for is_reversed in [false, true] {
                if let (true, [_, others @ ..]) = (is_reversed, &mut order[..]) {
                    others.reverse();
                }
                let mut state = begun.clone();
                let asked = state.poll(&order);
                state.end_turn();
                ended.push((Step::Turn(zone, asked), state));
            }
        }
        let mut seen = HashSet::new();
        ended.retain(|(_, state)| seen.insert(state.essence()));
        ended
    }

    /// What may happen to zones themselves.
    fn interventions(&self) -> Vec<(Step, Self)> {
        let mut all = Vec::new();
        for zone in 0..self.zones.len() {
            let mut paused = self.clone();
            paused.pause(zone);
            all.push((Step::Pause(zone), paused));
            let mut restarted = self.clone();
            restarted.restart(zone);
            all.push((Step::Restart(zone), restarted));
            for (cluster, seeds) in self.edits(zone) {
                let mut edited = self.clone();
                edited.edit(zone, cluster, &seeds);
                all.push((Step::Edit(zone, cluster, seeds), edited));
            }
        }
        all
    }

    /// Edits of a zone's seeds: a living node of its cluster is added, and all are replaced by one of another cluster.
    fn edits(&self, zone: usize) -> Vec<(u8, Vec<usize>)> {
        let own = &self.zones[zone];
        let is_free = |n: &usize| !own.seeds.contains(n) && self.world.addresses[*n].alive;
        let added = self.world.all().filter(is_free).find(|n| self.world.serves(*n, own.cluster));
        let moved = self.world.all().filter(is_free).find(|n| !self.world.serves(*n, own.cluster));
        let added = added.filter(|_| own.seeds.len() == 1).map(|n| (own.cluster, vec![own.seeds[0], n]));
        let moved = moved.and_then(|n| Some((self.world.addresses[n].owner?, vec![n])));
        added.into_iter().chain(moved).collect()
    }

    /// Whether the truth can be known from here.
    fn can_know(&self, zone: usize) -> bool {
        let own = &self.zones[zone];
        let view = &own.membership.view;
        if own.excused || self.is_about_to_be_excused(zone) {
            return false;
        }
        if view.standing().any(|node| self.world.serves(number(node), own.cluster)) {
            return true;
        }
        // A name that is being moved has the id of its former cluster until a new seed has reported.
        if view.is_moving() && view.cluster_id().is_some_and(|id| id != World::id_of(own.cluster)) {
            return false;
        }
        let alive: Vec<usize> = self.world.all().filter(|n| self.world.serves(*n, own.cluster)).collect();
        let count = |of: BTreeSet<IpAddr>| alive.iter().filter(|n| of.contains(&address(**n))).count();
        let (nodes, held) = (count(view.voices([].into_iter())), count(own.voices()));
        let is_most = |held: usize| held > 0 && held >= alive.len() - held;
        is_most(nodes) || (is_most(held) && !self.are_answered_elsewhere(zone, &alive))
    }

    /// Whether another zone answers one of these nodes that a zone does not know, or should and may do so first.
    fn are_answered_elsewhere(&self, zone: usize, nodes: &[usize]) -> bool {
        let known = self.zones[zone].membership.view.voices([].into_iter());
        let unknown: Vec<IpAddr> = nodes.iter().map(|n| address(*n)).filter(|node| !known.contains(node)).collect();
        let is_unknown = |nodes: &[IpAddr]| nodes.iter().any(|node| unknown.contains(node));
        let mut others = (0..self.zones.len()).filter(|other| *other != zone);
        others.any(|other| {
            is_unknown(self.answered(other)) || self.truth(other).is_some_and(|truth| is_unknown(truth.as_slice()))
        })
    }

    /// For the eyes of a person who looks for a fault.
    fn summaries(&self) -> String {
        let of = |(index, zone): (usize, &Zone)| {
            let answered: String = self.answered(index).iter().map(|&node| letter(number(node))).collect();
            let (state, excused) = (zone.answers.state(), if zone.excused { ", excused" } else { "" });
            let (cluster, view) = (zone.cluster, zone.membership.view.summary());
            format!("    {index} of {cluster} answers \"{answered}\", {state:?}{excused}: {view}\n")
        };
        self.zones.iter().enumerate().map(of).collect()
    }

    /// What is wrong after a zone's turn, if this was the state before.
    fn refusal(&self, before: &Self) -> Option<String> {
        let zone = before.turn;
        let nodes: &[Node] = match &self.zones[zone].answers.knowledge {
            Knowledge::Known(known) => &known.nodes,
            Knowledge::Waiting(_) => return None,
        };
        let cluster = self.zones[zone].cluster;
        let is_excused = self.zones[zone].excused;
        // The last node of a scope may turn out to be foreign after the poll: the next poll finds another scope.
        let may_fall_back = !self.zones[zone].scopes.is_empty() && !before.answered(zone).is_empty();
        if self.answered(zone).is_empty()
            && !is_excused
            && !may_fall_back
            && self.candidates(zone).iter().any(|n| self.world.serves(*n, cluster))
        {
            return Some("the answer is empty while a node lives".into());
        }
        let is_alive = |node: IpAddr| self.world.addresses[number(node)].alive;
        let proven = nodes.iter().any(|node| node.state == NodeState::Up && is_alive(node.address));
        let is_moving = self.zones[zone].membership.view.is_moving();
        let is_dead = |node: &Node| proven && !is_moving && !node.pending && !is_alive(node.address);
        let dead = nodes.iter().find(|node| is_dead(node) && self.answered(zone).contains(&node.address));
        if let Some(node) = dead {
            return Some(format!("{} is dead, and answered", letter(number(node.address))));
        }
        let foreign = self.world.all().find(|n| self.zones[zone].foreign_turns[*n] >= FOREIGN_TURNS)?;
        (!is_excused).then(|| format!("{} is another cluster's, and answered", letter(foreign)))
    }

    /// The node that has left in the turn that is over, although it lives and no report contradicted it.
    fn wrongly_left(&self, after: &Self) -> Option<String> {
        let zone = self.turn;
        let cluster = self.zones[zone].cluster;
        if after.zones[zone].excused || !self.zones[zone].scopes.is_empty() {
            return None;
        }
        let known = self.zones[zone].membership.view.learnt()?;
        let still = after.zones[zone].membership.view.learnt();
        // Before the turn and after it: in between, a node may have failed or returned.
        let knows_most = |n: usize| {
            [self, after].iter().all(|state| {
                let weighed = state.zones[zone].membership.view.weighed(&known);
                let knows = |n: usize| {
                    let list = self.world.list(n, None).flatten();
                    list.map_or(0, |list| list.as_slice().iter().filter(|node| weighed.contains(node)).count())
                };
                self.candidates(zone).into_iter().all(|other| knows(other) <= knows(n))
            })
        };
        let has_left = |node: &&IpAddr| still.as_ref().is_none_or(|still| !still.contains(node));
        // A node that has just returned may take another turn.
        let standing =
            |state: &Self| -> BTreeSet<usize> { state.zones[zone].membership.view.standing().map(number).collect() };
        let standing: BTreeSet<usize> = standing(self).intersection(&standing(after)).copied().collect();
        let mut left = known.as_slice().iter().filter(has_left).map(|&node| number(node));
        let is_wrong = |n: &usize| self.world.serves(*n, cluster) && standing.contains(n) && knows_most(*n);
        let wrongly = left.find(is_wrong)?;
        Some(format!("{} has left, and lives, and knows as many nodes as any other", letter(wrongly)))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = |numbers: &[usize]| numbers.iter().copied().map(letter).collect::<String>();
        let name = |zone: usize| ['a', 'b'][zone];
        match self {
            Self::Begin(beginning) => {
                let (owners, ids, zones) = BEGINNINGS[*beginning];
                let zones: Vec<String> = zones
                    .iter()
                    .map(|(cluster, seeds, scopes)| format!("{cluster} with seeds {} {scopes:?}", letters(seeds)))
                    .collect();
                write!(f, "abcd belong to {owners}, ids {ids:?}, zones {}", zones.join(" and "))
            }
            Self::Happens(happening) => happening.fmt(f),
            Self::Turn(zone, asked) => write!(f, "zone {} probes, and asks {}", name(*zone), letters(asked)),
            Self::Pause(zone) => write!(f, "zone {} is held up", name(*zone)),
            Self::Restart(zone) => write!(f, "zone {} restarts", name(*zone)),
            Self::Edit(zone, cluster, seeds) => {
                write!(f, "zone {} gets the seeds {} of cluster {cluster}", name(*zone), letters(seeds))
            }
        }
    }
}

/// How each state was reached: from which, and by what.
type Ways = Vec<(usize, Step)>;

/// Clusters that addresses may be given to: the last one has no zone.
const CLUSTERS: u8 = 3;

/// One search, from one beginning.
struct Search {
    ways: Ways,
    seen: HashSet<u64>,
    waiting: VecDeque<(usize, usize, State)>,
    calm: Calm,
    /// Turns of each of these zones until they answer the truth from a calm state, where that is known already.
    turns_to_truth: HashMap<(usize, Vec<usize>), u8>,
    /// The longest of them.
    slowest: u8,
    depth: usize,
    /// How many zones of all states are excused, or cannot know.
    excused: usize,
    /// The shortest ways of broken rules.
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
    /// Where one turn leads; until it is explored, the state itself.
    next: Result<Vec<usize>, Box<State>>,
}

impl Search {
    fn new(beginning: usize) -> Self {
        let (owners, ids, zones) = BEGINNINGS[beginning];
        let mut search = Self {
            ways: Vec::new(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            calm: Calm::default(),
            turns_to_truth: HashMap::new(),
            slowest: 0,
            depth: 0,
            excused: 0,
            broken: Vec::new(),
        };
        let mut state = State::new(World::new(owners, ids), zones);
        let mut way = search.reach(0, 0, Step::Begin(beginning), state.clone());
        // Ways begin at the start and, without having to find the way there, when all zones know their nodes.
        for _ in 0..zones.len() * TURNS_TO_SETTLE {
            let (step, after) = state.turns().swap_remove(0);
            state = after;
            way = search.reach(way.unwrap_or(0), 0, step, state.clone()).or(way);
        }
        search
    }

    /// Goes on until there are so many states, or until nothing is left.
    fn run(&mut self, states: usize) {
        while self.ways.len() < states
            && let Some((way, depth, state)) = self.waiting.pop_front()
        {
            self.depth = depth;
            for (step, after) in state.turns() {
                let refusal = after.refusal(&state).or_else(|| state.wrongly_left(&after));
                let reached = self.reach(way, depth + 1, step, after);
                if let Some(refusal) = refusal {
                    self.report(reached.unwrap_or(way), &refusal);
                }
            }
            for happening in state.world.happenings(CLUSTERS) {
                let after = state.in_world(state.world.clone().after(happening));
                self.reach(way, depth + 1, Step::Happens(happening), after);
            }
            for (step, after) in state.interventions() {
                self.reach(way, depth + 1, step, after);
            }
        }
    }

    /// Takes a state in, if it is a new one.
    fn reach(&mut self, from: usize, depth: usize, step: Step, state: State) -> Option<usize> {
        if !self.seen.insert(state.essence()) {
            return None;
        }
        self.ways.push((from, step));
        let way = self.ways.len() - 1;
        self.converges(way, &state);
        self.waiting.push_back((way, depth, state));
        Some(way)
    }

    /// Sees whether the truth is answered, and goes on to be, when it stays as it is.
    fn converges(&mut self, way: usize, state: &State) {
        let state = state.in_world(state.world.clone().calmed());
        let zones: Vec<usize> = (0..state.zones.len()).filter(|&zone| state.can_know(zone)).collect();
        self.excused += state.zones.len() - zones.len();
        let start = self.calm.take(&state);
        let turns = self.turns_to_truth(start, &zones);
        self.slowest = self.slowest.max(turns);
        if turns > TURNS_TO_TRUTH {
            let path = self.calm.way_without_truth(start, &zones);
            self.report(way, &format!("from here zones {zones:?} need {turns} turns: {}", describe(&state, &path)));
        }
    }

    /// Each zone's turns to the truth, whichever node is asked.
    fn turns_to_truth(&mut self, start: usize, zones: &[usize]) -> u8 {
        let key = (start, zones.to_vec());
        if let Some(&known) = self.turns_to_truth.get(&key) {
            return known;
        }
        let turns = self.calm.turns_to_truth(start, zones);
        self.turns_to_truth.insert(key, turns);
        turns
    }

    /// Reports how a rule was broken.
    fn report(&mut self, mut way: usize, refusal: &str) {
        if self.broken.len() >= REPORTED_MAX {
            return;
        }
        let mut steps = vec![self.ways[way].1.clone()];
        while way != 0 {
            way = self.ways[way].0;
            steps.push(self.ways[way].1.clone());
        }
        let steps: Vec<String> = steps.iter().rev().map(ToString::to_string).collect();
        self.broken.push(format!("{refusal}\nafter:\n  {}", steps.join("\n  ")));
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
fn describe(state: &State, way: &[u64]) -> String {
    let mut state = state.clone();
    let mut text = String::new();
    for essence in way.iter().take(TURNS_REPORTED_MAX) {
        let (step, after) = state.turns().into_iter().find(|(_, after)| after.essence() == *essence).unwrap();
        let answered: String = after.answered(state.turn).iter().map(|&node| letter(number(node))).collect();
        text += &format!("\n  {step}: answers \"{answered}\", {:?}", after.zones[state.turn].answers.state());
        state = after;
    }
    text
}

#[test]
fn whatever_happens_answers_are_true_and_become_exact() {
    let each = std::env::var("ALTERNATOR_DNS_SEARCH_STATES").map_or(STATES, |text| text.parse().unwrap());
    let (mut states, mut broken) = (0, Vec::new());
    for beginning in 0..BEGINNINGS.len() {
        let mut search = Search::new(beginning);
        search.run(each);
        states += search.ways.len();
        broken.append(&mut search.broken);
        println!(
            "{}: {} states, all up to {} steps; the truth after at most {} turns; {} excused",
            Step::Begin(beginning),
            search.ways.len(),
            search.depth,
            search.slowest,
            search.excused
        );
    }
    println!("{states} states explored");
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

#[test]
fn random_walks_end_with_the_truth() {
    let each = std::env::var("ALTERNATOR_DNS_SEARCH_WALKS").map_or(WALKS, |text| text.parse().unwrap());
    let first: u64 = std::env::var("ALTERNATOR_DNS_SEARCH_SEED").map_or(1, |text| text.parse().unwrap());
    let mut broken = Vec::new();
    for (beginning, walk) in (0..BEGINNINGS.len()).flat_map(|beginning| (0..each).map(move |walk| (beginning, walk))) {
        let seed = first + u64::try_from(walk).unwrap();
        if let Err(why) = walk_from(beginning, seed) {
            broken.push(format!("walk {seed}: {why}"));
        }
        if broken.len() >= REPORTED_MAX {
            break;
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
}

/// Goes [`WALK_STEPS`] steps at random, half of them turns, and then calms down.
fn walk_from(beginning: usize, seed: u64) -> Result<(), String> {
    let (owners, ids, zones) = BEGINNINGS[beginning];
    let mut chance = StdRng::seed_from_u64(seed);
    let mut state = State::new(World::new(owners, ids), zones);
    let mut steps = vec![Step::Begin(beginning)];
    let is_verbose = std::env::var_os("ALTERNATOR_DNS_SEARCH_VERBOSE").is_some();
    if is_verbose {
        println!("walk {seed}: {}", steps[0]);
    }
    let describe = |steps: &[Step], why: String| {
        let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
        format!("{why}\nafter:\n  {}", steps.join("\n  "))
    };
    for _ in 0..WALK_STEPS {
        let next = if chance.random_bool(0.6) {
            let (step, after) = state.turns().choose(&mut chance).unwrap().clone();
            let refusal = after.refusal(&state).or_else(|| state.wrongly_left(&after));
            steps.push(step.clone());
            if let Some(refusal) = refusal {
                if is_verbose {
                    println!("{step}\n{}", after.summaries());
                }
                return Err(describe(&steps, refusal));
            }
            after
        } else if chance.random_bool(0.85) {
            let happening = *state.world.happenings(CLUSTERS).choose(&mut chance).unwrap();
            steps.push(Step::Happens(happening));
            state.in_world(state.world.clone().after(happening))
        } else {
            let (step, after) = state.interventions().choose(&mut chance).unwrap().clone();
            steps.push(step);
            after
        };
        state = next;
        if is_verbose {
            println!("{}\n{}", steps[steps.len() - 1], state.summaries());
        }
    }
    let zones = state.zones.len();
    state = state.in_world(state.world.clone().calmed());
    let can_know: Vec<usize> = (0..zones).filter(|&zone| state.can_know(zone)).collect();
    for turn in 0..zones * (usize::from(TURNS_TO_TRUTH) + 3) {
        let (step, after) = state.turns().choose(&mut chance).unwrap().clone();
        if is_verbose {
            println!("{step}\n{}", after.summaries());
        }
        steps.push(step);
        state = after;
        let untrue = can_know.iter().find(|&&zone| !state.is_true(zone));
        if let Some(zone) = untrue.filter(|_| turn >= zones * usize::from(TURNS_TO_TRUTH)) {
            let answered: String = state.answered(*zone).iter().map(|&node| letter(number(node))).collect();
            return Err(describe(&steps, format!("zone {zone} answers \"{answered}\"")));
        }
    }
    Ok(())
}

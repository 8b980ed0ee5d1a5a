//! Zones in a simulated world: performs what [`Membership`] wants done, as the poller does.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    num::{NonZeroU8, NonZeroU16},
    time::{Duration, Instant},
};

use super::{
    super::{
        Actions, AddressOwnership, AskFirst, Decision, Event, Inheritance, ListReport, Membership, MembershipView,
        OtherZones, ProbeOutcome, ScopeReport, Timing,
    },
    world::{World, address, number},
};
use crate::{
    config,
    snapshot::ClusterNodes,
    table::{Answers, Knowledge, ZoneDrains, ZoneSettings},
    types::{AddressRules, ClusterLabel, NodeSet, ZoneName},
};

/// One turn of every zone. With a refresh of 2 s a zone is stale, and a dispute over, after three.
pub(super) const REFRESH: Duration = Duration::from_secs(2);

/// A node's report is good for two turns: long enough to be out of date, and short enough to keep states few.
const REPORT_INTERVAL: Duration = Duration::from_secs(4);

/// Beyond this number of turns an answered foreign address is no worse.
const FOREIGN_TURNS_COUNTED: u8 = 4;

const PORT: NonZeroU16 = NonZeroU16::new(8000).unwrap();
const TWO: NonZeroU8 = NonZeroU8::new(2).unwrap();

/// By default a node leaves after two failures and returns after two successes.
const HEALTH: config::Health = config::Health { interval: REFRESH, timeout: REFRESH, rise: TWO, fall: TWO };

/// One zone.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    pub(super) name: ZoneName,
    pub(super) label: Option<ClusterLabel>,
    /// The cluster whose nodes it should answer.
    pub(super) cluster: u8,
    pub(super) seeds: Vec<usize>,
    /// The datacenters that it answers, the best first; none: every one.
    pub(super) scopes: Vec<u8>,
    health: Option<config::Health>,
    pub(super) membership: Membership,
    pub(super) answers: Answers,
    snapshot: Option<(ClusterNodes, Vec<usize>)>,
    /// What the rules leave open without ids has happened to it, and it has not recovered since.
    pub(super) excused: bool,
    /// Turns for which each address has been answered although it is another cluster's.
    pub(super) foreign_turns: Vec<u8>,
}

/// The truth, and what each zone knows.
#[derive(Debug)]
pub(super) struct State {
    pub(super) world: World,
    pub(super) zones: Vec<Zone>,
    ownership: AddressOwnership,
    /// The zone whose turn is next.
    pub(super) turn: usize,
    pub(super) now: Instant,
}

impl Clone for State {
    fn clone(&self) -> Self {
        let (world, zones) = (self.world.clone(), self.zones.clone());
        Self { world, zones, ownership: self.ownership.fork(), turn: self.turn, now: self.now }
    }
}

impl Zone {
    fn new(name: &str, cluster: u8, seeds: &[usize], scopes: &[u8], now: Instant) -> Self {
        let timing = Timing { refresh: REFRESH, max_stale: None };
        let view = MembershipView::new(timing, Some(HEALTH), scopes.len(), now).identifying();
        let answers = Answers::new(ZoneSettings::example(), view.knowledge(now), 0);
        Self {
            name: ZoneName::parse(name).unwrap(),
            label: None,
            cluster,
            seeds: seeds.to_vec(),
            scopes: scopes.to_vec(),
            health: Some(HEALTH),
            membership: Membership::new(view, answers.knowledge.clone()),
            answers,
            snapshot: None,
            excused: false,
            foreign_turns: Vec::new(),
        }
    }

    /// All that may speak for it when no node stands.
    pub(super) fn voices(&self) -> BTreeSet<IpAddr> {
        self.membership.view.voices(self.seeds.iter().copied().map(address))
    }

    /// The scopes to poll: each a datacenter, or one that is all of them.
    fn polled(&self) -> Vec<Option<u8>> {
        if self.scopes.is_empty() { vec![None] } else { self.scopes.iter().copied().map(Some).collect() }
    }
}

impl State {
    /// Zones of these clusters with these seeds; nothing is known yet.
    pub(super) fn new(world: World, zones: &[(u8, &[usize], &[u8])]) -> Self {
        let now = Instant::now();
        let named = zones.iter().zip(["a.test", "b.test", "c.test"]);
        let zones = named.map(|(&(cluster, seeds, scopes), name)| {
            let zone = Zone::new(name, cluster, seeds, scopes, now);
            Zone { foreign_turns: vec![0; world.addresses.len()], ..zone }
        });
        let zones = zones.collect();
        Self { world, zones, ownership: AddressOwnership::default(), turn: 0, now }
    }

    /// The same zones in another world.
    pub(super) fn in_world(&self, world: World) -> Self {
        Self { world, ..self.clone() }
    }

    /// What tells states apart. Of two that differ one in 2^64 would be taken for the other, so none is.
    pub(super) fn essence(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.world, self.turn).hash(&mut hasher);
        for zone in &self.zones {
            zone.membership.view.hash_essence(self.now, &mut hasher);
            (zone.cluster, &zone.seeds, zone.excused, zone.answers.state(), &zone.foreign_turns).hash(&mut hasher);
            zone.snapshot.as_ref().map(|(nodes, seeds)| (nodes.nodes.as_slice(), nodes.id, seeds)).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn answered(&self, zone: usize) -> &[IpAddr] {
        self.zones[zone].answers.answered.as_ref().map_or(&[], NodeSet::as_slice)
    }

    /// What a zone should answer.
    pub(super) fn truth(&self, zone: usize) -> Option<NodeSet> {
        let Zone { cluster, scopes, .. } = &self.zones[zone];
        let best = scopes.iter().find_map(|scope| self.world.alive(*cluster, Some(*scope)));
        if scopes.is_empty() { self.world.alive(*cluster, None) } else { best }
    }

    /// Whether it does, or is excused.
    pub(super) fn is_true(&self, zone: usize) -> bool {
        // While no node lives that should be answered, the last ones are.
        let is_exact = |truth| self.zones[zone].answers.answered == Some(truth);
        self.zones[zone].excused || self.truth(zone).is_none_or(is_exact)
    }

    /// Performs what an event calls for, as the poller does.
    fn handle(&mut self, zone: usize, event: Event<'_>) -> Option<Decision> {
        let ownership = self.ownership.clone();
        let Zone { name, label, membership, answers, snapshot, seeds, .. } = &mut self.zones[zone];
        let others = OtherZones { ownership: &ownership, zone: name, port: PORT, label: label.as_ref() };
        let actions = membership.on(event, self.now, &others);
        let Actions { decision, publish, probes_changed: _, confirm, reports_changed: _, remember, notices: _ } =
            actions;
        if let Some(publication) = publish {
            *answers = answers.with_knowledge(publication.knowledge, 0);
            others.register(publication.addresses.as_ref());
        }
        if let Some(nodes) = remember {
            *snapshot = Some((nodes, seeds.clone()));
        }
        for node in confirm {
            self.probe(zone, number(node));
        }
        decision
    }

    fn probe(&mut self, zone: usize, n: usize) {
        let outcome = if self.world.addresses[n].alive { ProbeOutcome::Up } else { ProbeOutcome::Refused };
        self.handle(zone, Event::Probed(address(n), outcome));
    }

    /// A node is asked for its own lists.
    fn report(&mut self, zone: usize, n: usize) {
        let scopes = self.zones[zone].polled();
        let lists: Option<Vec<_>> = scopes.iter().map(|scope| self.world.list(n, *scope)).collect();
        let Some(lists) = lists else { return self.silent(zone, n) };
        let named: Vec<IpAddr> = lists.iter().flatten().flat_map(NodeSet::as_slice).copied().collect();
        self.identify_first(zone, n, &named);
        self.handle(zone, Event::Reported { node: address(n), scopes: &lists, unscoped: false });
        self.identify(zone, n);
    }

    /// A node that has to says which cluster it is of before its list is recorded.
    fn identify_first(&mut self, zone: usize, n: usize, named: &[IpAddr]) {
        if self.zones[zone].membership.view.is_identified_first(address(n), named) {
            self.identify(zone, n);
        }
    }

    fn identify(&mut self, zone: usize, n: usize) {
        let id = self.world.id(n);
        self.handle(zone, Event::Identified(address(n), id));
    }

    fn silent(&mut self, zone: usize, n: usize) {
        self.handle(zone, Event::Silent(address(n)));
        self.handle(zone, Event::Refused(address(n)));
    }

    /// Asks one candidate about a scope. Returns whether its list is accepted.
    fn ask(&mut self, zone: usize, scope: usize, n: usize) -> bool {
        let place = self.zones[zone].polled()[scope];
        let Some(list) = self.world.list(n, place) else {
            self.silent(zone, n);
            return false;
        };
        self.identify_first(zone, n, list.as_ref().map_or(&[], NodeSet::as_slice));
        let report = ListReport { sender: address(n), nodes: list.as_ref(), unscoped: false };
        let about = ScopeReport { scope, report };
        let mut decision = self.handle(zone, Event::Polled(about));
        if let Some(Decision::AskFirst(AskFirst { all, some })) = decision {
            for node in all.into_iter().chain(some) {
                self.report(zone, number(node));
            }
            decision = self.handle(zone, Event::AskedFirst(about));
        }
        self.identify(zone, n);
        list.is_some() && decision == Some(Decision::Accepted)
    }

    /// The nodes that a poll may ask.
    pub(super) fn candidates(&self, zone: usize) -> Vec<usize> {
        let Zone { membership, seeds, .. } = &self.zones[zone];
        let mut candidates: Vec<usize> = membership.view.candidates(true).into_iter().map(number).collect();
        candidates.extend(seeds.iter().copied().filter(|seed| !candidates.contains(seed)).collect::<Vec<_>>());
        candidates
    }

    /// The part of a turn before its poll: time passes, nodes are probed, and those that are due report.
    pub(super) fn begin_turn(&mut self) {
        let zone = self.turn;
        self.excuse(zone);
        for other in 0..self.zones.len() {
            self.handle(other, Event::Time);
        }
        let seeds: Vec<IpAddr> = self.zones[zone].seeds.iter().copied().map(address).collect();
        let fail_open = NodeSet::new(seeds.iter().copied()).filter(|_| self.zones[zone].scopes.is_empty());
        self.handle(zone, Event::Seeds { addresses: &seeds, fail_open: fail_open.as_ref() });
        for node in self.zones[zone].membership.view.to_probe() {
            self.probe(zone, number(node));
        }
        self.due_reports(zone);
    }

    /// Nodes that are due report, each once.
    fn due_reports(&mut self, zone: usize) {
        let mut asked = BTreeSet::new();
        loop {
            let due = self.zones[zone].membership.view.due_reports(self.now, REPORT_INTERVAL);
            let Some(node) = due.ask.into_iter().find(|node| asked.insert(*node)) else { break };
            self.report(zone, number(node));
        }
    }

    /// Asks candidates in this order about every scope; returns those that were asked about the first.
    pub(super) fn poll(&mut self, order: &[usize]) -> Vec<usize> {
        let zone = self.turn;
        let mut asked = Vec::new();
        let mut is_listed = false;
        let mut is_active = false;
        for scope in 0..self.zones[zone].polled().len() {
            let accepted = order.iter().any(|&n| {
                if scope == 0 {
                    asked.push(n);
                }
                self.ask(zone, scope, n)
            });
            is_listed |= accepted;
            if !accepted || self.zones[zone].scopes.is_empty() {
                continue;
            }
            let rules = AddressRules { loopback: true, ..AddressRules::default() };
            let polled = Event::ScopePolled { scope, rules: &rules, drains: &ZoneDrains::default() };
            if self.handle(zone, polled) == Some(Decision::ScopeActive) {
                is_active = true;
                break;
            }
        }
        if !self.zones[zone].scopes.is_empty() && !is_active {
            self.handle(zone, Event::NoScopeHealthy);
        }
        self.handle(zone, if is_listed { Event::PollSucceeded } else { Event::PollFailed("no list") });
        self.due_reports(zone);
        asked
    }

    pub(super) fn end_turn(&mut self) {
        let zone = self.turn;
        let view = &self.zones[zone].membership.view;
        let standing_is_true = view.standing().all(|node| self.world.serves(number(node), self.zones[zone].cluster));
        let is_exact = self.zones[zone].answers.answered == self.truth(zone);
        // An id that was learnt of another cluster lasts as long as no node gives one.
        let id_is_true = view.cluster_id().is_none_or(|id| id == World::id_of(self.zones[zone].cluster));
        if is_exact && standing_is_true && id_is_true && view.standing().next().is_some() {
            self.zones[zone].excused = false;
        }
        for n in self.world.all() {
            let is_other = self.is_other(zone, n) && self.names_stranger(zone, n);
            let counts = is_other && self.answered(zone).contains(&address(n)) && !self.is_moving(zone);
            let turns = &mut self.zones[zone].foreign_turns[n];
            *turns = if counts { (*turns + 1).min(FOREIGN_TURNS_COUNTED) } else { 0 };
        }
        self.turn = (zone + 1) % self.zones.len();
        if self.turn == 0 {
            self.now += REFRESH;
        }
    }

    /// Whether a node of another cluster answers there.
    fn is_other(&self, zone: usize, n: usize) -> bool {
        self.world.addresses[n].alive && !self.world.serves(n, self.zones[zone].cluster)
    }

    /// Whether a node lists an address that is not, and was not, the zone's, and that no node of the zone's cluster lists.
    /// One that lists none looks like a part of the cluster that was split off, until gossip has removed it.
    fn names_stranger(&self, zone: usize, n: usize) -> bool {
        let Zone { cluster, membership, .. } = &self.zones[zone];
        let own = self.world.all().filter(|n| self.world.serves(*n, *cluster));
        let lists: Vec<NodeSet> = own.filter_map(|n| self.world.list(n, None)?).collect();
        let mut known = self.zones[zone].voices();
        known.extend(membership.view.former());
        known.extend(lists.iter().flat_map(NodeSet::as_slice));
        let list = self.world.list(n, None).flatten();
        list.is_some_and(|list| list.as_slice().iter().any(|node| !known.contains(node)))
    }

    /// Notes whether what the rules leave open happens to a zone: at least as many addresses that are another cluster's
    /// by now speak for it as nodes of its own, or [no others](State::has_lost_its_scope) in the scope that is answered.
    fn excuse(&mut self, zone: usize) {
        if self.is_about_to_be_excused(zone) {
            self.zones[zone].excused = true;
        }
    }

    /// Whether [`State::excuse`] would.
    pub(super) fn is_about_to_be_excused(&self, zone: usize) -> bool {
        let Zone { cluster, membership, .. } = &self.zones[zone];
        let own = |n: &usize| self.world.serves(*n, *cluster);
        let other = |n: &usize| self.is_other(zone, *n);
        let trusted: Vec<usize> = membership.view.trusted().map(number).collect();
        let count = |of: &[usize], wanted: &dyn Fn(&usize) -> bool| of.iter().filter(|n| wanted(n)).count();
        let voices = if count(&trusted, &|n| own(n) || other(n)) > 0 {
            trusted
        } else {
            self.zones[zone].voices().into_iter().map(number).collect()
        };
        let foreign = count(&voices, &other);
        (foreign > 0 && foreign >= count(&voices, &own)) || self.has_lost_its_scope(zone)
    }

    /// Whether all that is trusted of the scope that is answered is another cluster's by now, and lists no stranger: a
    /// datacenter that is cut off from the others looks the same.
    fn has_lost_its_scope(&self, zone: usize) -> bool {
        let Zone { cluster, scopes, membership, .. } = &self.zones[zone];
        let Some(answered) = scopes.get(membership.view.active_scope()) else { return false };
        let is_there = |n: &usize| self.world.addresses[*n].datacenter == *answered;
        let trusted: Vec<usize> = membership.view.trusted().map(number).filter(is_there).collect();
        let is_lost = |n: &usize| self.is_other(zone, *n) && !self.names_stranger(zone, *n);
        trusted.iter().any(is_lost) && !trusted.iter().any(|n| self.world.serves(*n, *cluster))
    }

    /// The seeds were edited, and have not reported yet: the former nodes are answered until then.
    fn is_moving(&self, zone: usize) -> bool {
        let view = &self.zones[zone].membership.view;
        view.is_moving()
    }

    /// The process of a zone stops and starts again, with its snapshot.
    pub(super) fn restart(&mut self, zone: usize) {
        let Zone { name, cluster, seeds, scopes, snapshot, label, excused, .. } = self.zones[zone].clone();
        let mut fresh = Zone::new("x", cluster, &seeds, &scopes, self.now);
        fresh.name = name;
        fresh.label = label;
        fresh.excused = excused;
        fresh.foreign_turns = vec![0; self.world.addresses.len()];
        if let Some((nodes, seeds_then)) = &snapshot {
            let inherited = Inheritance {
                last_success: Some(self.now),
                others: nodes.others.iter().flat_map(NodeSet::as_slice).copied().collect(),
                foreign: nodes.foreign.iter().flat_map(NodeSet::as_slice).copied().collect(),
                failing: Vec::new(),
                id: nodes.id,
                seeds_edited: *seeds_then != seeds,
            };
            let timing = Timing { refresh: REFRESH, max_stale: None };
            let view = MembershipView::new(timing, fresh.health, scopes.len(), self.now).identifying();
            fresh.start(view.remembering(nodes.nodes.clone(), inherited), self.now);
        }
        fresh.snapshot = snapshot;
        self.zones[zone] = fresh;
        self.handle(zone, Event::Time);
    }

    /// The seeds of a zone are edited; it is for this cluster from now on.
    pub(super) fn edit(&mut self, zone: usize, cluster: u8, seeds: &[usize]) {
        let Zone { membership, answers, .. } = &self.zones[zone];
        if let Knowledge::Known(known) = &answers.knowledge {
            let view = &membership.view;
            let inherited = Inheritance {
                last_success: view.last_success(),
                others: view.others().iter().flat_map(NodeSet::as_slice).copied().collect(),
                foreign: view.foreign().collect(),
                failing: view.failing(),
                id: view.cluster_id(),
                seeds_edited: true,
            };
            let timing = Timing { refresh: REFRESH, max_stale: None };
            let fresh = MembershipView::new(timing, self.zones[zone].health, self.zones[zone].scopes.len(), self.now);
            let fresh = fresh.identifying().resuming(&known.nodes, view.active_scope(), inherited);
            self.zones[zone].start(fresh, self.now);
        }
        self.zones[zone].cluster = cluster;
        self.zones[zone].seeds = seeds.to_vec();
        self.handle(zone, Event::Time);
    }

    /// The process was held up for seconds.
    pub(super) fn pause(&mut self, zone: usize) {
        self.handle(zone, Event::Paused);
    }

    /// Nodes are not probed.
    pub(super) fn without_health(&mut self, zone: usize) {
        let timing = Timing { refresh: REFRESH, max_stale: None };
        self.zones[zone].health = None;
        let view = MembershipView::new(timing, None, self.zones[zone].scopes.len(), self.now);
        self.zones[zone].start(view, self.now);
    }
}

impl Zone {
    fn start(&mut self, view: MembershipView, now: Instant) {
        self.answers = self.answers.with_knowledge(view.knowledge(now), 0);
        self.membership = Membership::new(view, self.answers.knowledge.clone());
    }
}

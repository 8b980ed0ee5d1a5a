//! What people ask about a zone: its state, why and since when, and the same of each node. The server answers by
//! [`Answers`] alone; this only describes them.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    answers::{Answers, Knowledge},
    choice::Node,
};
use humantime_serde::re::humantime::format_rfc3339_seconds;

use crate::{
    metrics::ProbeResult,
    types::{NodeState, ProbeFailure, ZoneState, printable},
};

/// A zone, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ZoneDescription {
    /// Its state.
    pub state: ZoneState,
    /// Why it is not `live`.
    pub reason: Option<String>,
    /// When the state began.
    pub since: SystemTime,
    /// The addresses that a client can get now, translated.
    pub answers: Vec<IpAddr>,
    /// Every listed node.
    pub nodes: Vec<NodeDescription>,
}

/// A listed node, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeDescription {
    /// The address that nodes list.
    pub address: IpAddr,
    /// Its state.
    pub state: NodeState,
    /// The state that it would have if it were not drained.
    pub undrained: NodeState,
    /// It is answered now.
    pub answered: bool,
    /// The address that is answered instead, if `map` translates it.
    pub answered_as: Option<IpAddr>,
    /// Why it is not `up`: the end of a sentence that starts with the node.
    pub reason: Option<String>,
    /// When the state began.
    pub since: SystemTime,
    /// Its last probe, if it has been probed.
    pub last_probe: Option<LastProbe>,
}

/// How the last probe of a node ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LastProbe {
    /// The result.
    pub result: ProbeResult,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub at: SystemTime,
}

/// What is recorded of a zone besides its answers. A probe changes it without publishing anything.
#[derive(Debug)]
pub(super) struct Record {
    state: ZoneState,
    since: SystemTime,
    /// Why the poller has put the zone in its state.
    reason: Option<Arc<str>>,
    /// One for each listed node, in the order of the addresses. Its size is that of the list: with ten thousand zones the
    /// spare capacity of a map would take 20 MB.
    nodes: Vec<NodeRecord>,
}

#[derive(Clone, Debug)]
struct NodeRecord {
    address: IpAddr,
    state: NodeState,
    since: SystemTime,
    /// Why the poller does not answer it.
    reason: Option<Arc<str>>,
    last_probe: Option<LastProbe>,
    /// Why the last probe, or poll, that failed did so.
    failure: Option<ProbeFailure>,
}

impl Record {
    /// Of a zone with these first answers. `now` is the unix time in seconds.
    pub(super) fn new(answers: &Answers, now: u32) -> Self {
        let mut record = Self { state: answers.state(), since: moment(now), reason: None, nodes: Vec::new() };
        record.update(answers, now);
        record
    }

    /// Takes over which nodes are listed, and which states have changed.
    pub(super) fn update(&mut self, answers: &Answers, now: u32) {
        let state = answers.state();
        if state != self.state {
            (self.state, self.since) = (state, moment(now));
        }
        let listed = answers.nodes();
        let is_same = |(node, record): (&Node, &NodeRecord)| {
            node.address == record.address && answers.node_state(node) == record.state
        };
        if listed.len() == self.nodes.len() && listed.iter().zip(&self.nodes).all(is_same) {
            return;
        }
        let next = listed.iter().map(|node| {
            let state = answers.node_state(node);
            match self.node(node.address) {
                Some(record) if record.state == state => record.clone(),
                Some(record) => NodeRecord { state, since: moment(now), ..record.clone() },
                None => NodeRecord::new(node.address, state, moment(now)),
            }
        });
        self.nodes = next.collect();
    }

    /// Takes over why the zone, and each of these nodes, is in its state. Returns whether that differs from before.
    pub(super) fn explain(
        &mut self,
        zone: Option<Arc<str>>,
        nodes: impl IntoIterator<Item = (IpAddr, Arc<str>)>,
    ) -> bool {
        let mut differs = self.reason != zone;
        self.reason = zone;
        let former: Vec<_> = self.nodes.iter_mut().map(|record| record.reason.take()).collect();
        for (node, reason) in nodes {
            if let Some(record) = self.node_mut(node) {
                record.reason = Some(reason);
            }
        }
        differs |= self.nodes.iter().zip(&former).any(|(record, former)| record.reason != *former);
        differs
    }

    /// A probe of a node has ended. Returns whether its reason may differ from before.
    pub(super) fn probed(&mut self, node: IpAddr, last: LastProbe, failure: Option<&ProbeFailure>) -> bool {
        let Some(record) = self.node_mut(node) else { return false };
        record.last_probe = Some(last);
        // A node that was not asked is down for the reason that was recorded before.
        let is_cause =
            |failure: &&ProbeFailure| record.state != NodeState::Down || !matches!(failure, ProbeFailure::NotAsked(_));
        match failure.filter(is_cause) {
            Some(failure) => record.fail(failure.clone()),
            None => false,
        }
    }

    /// A poll of a node has failed in a way that counts as a failed probe. Returns whether its reason may differ from before.
    pub(super) fn failed(&mut self, node: IpAddr, failure: ProbeFailure) -> bool {
        self.node_mut(node).is_some_and(|record| record.fail(failure))
    }

    /// The zone as it is answered. `error` is what went wrong in the last poll.
    pub(super) fn describe(&self, answers: &Answers, error: Option<&str>) -> ZoneDescription {
        ZoneDescription {
            state: answers.state(),
            reason: self.zone_reason(answers, error),
            since: self.since,
            answers: answers.addresses().collect(),
            nodes: answers.nodes().iter().map(|node| self.describe_node(node, answers)).collect(),
        }
    }

    fn describe_node(&self, node: &Node, answers: &Answers) -> NodeDescription {
        let Node { address, .. } = *node;
        let record = self.node(address);
        let translated = answers.settings.rules.translate(address);
        NodeDescription {
            address,
            state: answers.node_state(node),
            undrained: node.state,
            answered: answers.answered.as_ref().is_some_and(|answered| answered.contains(&address)),
            answered_as: (translated != address).then_some(translated),
            reason: node_reason(node, answers, record),
            since: record.map_or(self.since, |record| record.since),
            last_probe: record.and_then(|record| record.last_probe),
        }
    }

    fn zone_reason(&self, answers: &Answers, error: Option<&str>) -> Option<String> {
        let reason = self.state_reason(answers, error);
        match answers.answers_drained() {
            true => {
                Some(reason.map_or_else(String::new, |reason| format!("{reason}; ")) + drained_are_answered(answers))
            }
            false => reason,
        }
    }

    fn state_reason(&self, answers: &Answers, error: Option<&str>) -> Option<String> {
        let known = self.reason.as_deref();
        match answers.state() {
            ZoneState::Live => None,
            ZoneState::Degraded if is_unverified(answers) && answers.answers_drained() => None,
            ZoneState::Degraded if is_unverified(answers) => Some("no node that may be answered is up".to_owned()),
            ZoneState::Degraded => Some(known.unwrap_or("the nodes are not verified").to_owned()),
            ZoneState::Contested => Some(known.unwrap_or("nodes disagree").to_owned()),
            ZoneState::Stale => Some(joined(known.unwrap_or("no node sends a usable list"), error)),
            ZoneState::Waiting => Some(known.or(error).unwrap_or("the first poll is under way").to_owned()),
            ZoneState::Unanswered => Some(unanswered(answers, known, error)),
        }
    }

    fn node(&self, node: IpAddr) -> Option<&NodeRecord> {
        let index = self.nodes.binary_search_by_key(&node, |record| record.address).ok()?;
        self.nodes.get(index)
    }

    fn node_mut(&mut self, node: IpAddr) -> Option<&mut NodeRecord> {
        let index = self.nodes.binary_search_by_key(&node, |record| record.address).ok()?;
        self.nodes.get_mut(index)
    }
}

impl NodeRecord {
    fn new(address: IpAddr, state: NodeState, since: SystemTime) -> Self {
        Self { address, state, since, reason: None, last_probe: None, failure: None }
    }

    /// Takes over a failure. Returns whether it differs from the last one.
    fn fail(&mut self, failure: ProbeFailure) -> bool {
        let differs = self.failure.as_ref() != Some(&failure);
        self.failure = Some(failure);
        differs
    }
}

/// A unix time in seconds.
fn moment(seconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.into())
}

fn joined(sentence: &str, cause: Option<&str>) -> String {
    cause.map_or_else(|| sentence.to_owned(), |cause| format!("{sentence}: {cause}"))
}

/// Why drained nodes, or seeds, are answered.
fn drained_are_answered(answers: &Answers) -> &'static str {
    match answers.knowledge {
        Knowledge::Waiting(_) => "every seed is drained, so they are answered all the same",
        Knowledge::Known(_) => "every node that is up is drained, so drained nodes are answered",
    }
}

/// Whether the zone is degraded only because no node is up that may be answered.
fn is_unverified(answers: &Answers) -> bool {
    matches!(&answers.knowledge, Knowledge::Known(known) if known.state == ZoneState::Live)
}

/// Why a zone has no address to answer with.
fn unanswered(answers: &Answers, known: Option<&str>, error: Option<&str>) -> String {
    if answers.is_view() {
        return joined("no node of the view is in service, so its clients get the zone's addresses", known.or(error));
    }
    let rules = &answers.settings.rules;
    let first_excluded = |listed: &[IpAddr]| {
        let first = listed.iter().find_map(|&node| Some((node, rules.exclusion(node)?)));
        first.map(|(node, exclusion)| format!("{node} {exclusion}"))
    };
    match &answers.knowledge {
        Knowledge::Waiting(None) => {
            let cause = known.or(error).unwrap_or("the first poll is under way");
            format!("no node is known yet, and no seed's address can be answered in its place: {cause}")
        }
        Knowledge::Waiting(Some(seeds)) => {
            joined("the zone's rules let no seed through", first_excluded(seeds.as_slice()).as_deref())
        }
        Knowledge::Known(known_nodes) if known_nodes.expired => {
            joined("no node has sent a usable list within max_stale", error)
        }
        Knowledge::Known(known_nodes) => {
            let others = known_nodes.nodes.iter().filter(|node| node.state != NodeState::Foreign);
            let others: Vec<IpAddr> = others.map(|node| node.address).collect();
            if others.is_empty() {
                joined("every node that was known is another cluster's", known)
            } else {
                joined("the zone's rules let no node through", first_excluded(&others).as_deref())
            }
        }
    }
}

/// Why a node is not up.
fn node_reason(node: &Node, answers: &Answers, record: Option<&NodeRecord>) -> Option<String> {
    let known = record.and_then(|record| record.reason.as_deref());
    let failure = record.and_then(|record| record.failure.as_ref()).map(ToString::to_string);
    match answers.node_state(node) {
        NodeState::Up => None,
        NodeState::Excluded => answers.settings.rules.exclusion(node.address).map(|exclusion| exclusion.to_string()),
        NodeState::Foreign => Some(known.unwrap_or("is a node of another cluster").to_owned()),
        NodeState::Drained => Some(drained(node, answers, failure.as_deref())),
        NodeState::Down => Some(failure.unwrap_or_else(|| "fails its probes".to_owned())),
        NodeState::New => match known {
            Some(known) => Some(known.to_owned()),
            None => Some(joined("has not answered a probe yet", failure.as_deref())),
        },
    }
}

/// Until when a node is drained, and how it is otherwise.
fn drained(node: &Node, answers: &Answers, failure: Option<&str>) -> String {
    let until = answers.drained_until(node.address).unwrap_or(UNIX_EPOCH);
    let is_answered = answers.answered.as_ref().is_some_and(|answered| answered.contains(&node.address));
    let besides = match node.state {
        NodeState::Down => Some(failure.unwrap_or("fails its probes")),
        NodeState::New => Some(failure.unwrap_or("is not verified yet")),
        _ if is_answered => Some("is answered all the same, because no other node is up"),
        _ => None,
    };
    let besides = besides.map_or_else(String::new, |besides| format!("; it {besides}"));
    format!("is drained until {}{besides}", format_rfc3339_seconds(printable(until)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        table::{Drain, Drains, Known, ZoneSettings},
        types::{AddressRules, NodeSet},
    };

    const THEN: u32 = 1_795_380_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn set(texts: &[&str]) -> NodeSet {
        NodeSet::new(texts.iter().map(|text| ip(text))).unwrap()
    }

    fn node(text: &str, state: NodeState) -> Node {
        Node { state, ever_up: state == NodeState::Down, ..Node::up(ip(text)) }
    }

    fn known(nodes: &[Node], state: ZoneState) -> Knowledge {
        Knowledge::Known(Known { nodes: nodes.into(), state, expired: false })
    }

    fn described(knowledge: Knowledge, settings: ZoneSettings) -> ZoneDescription {
        let answers = Answers::new(settings, knowledge, THEN);
        Record::new(&answers, THEN).describe(&answers, None)
    }

    fn rules(rules: AddressRules) -> ZoneSettings {
        ZoneSettings { rules, ..ZoneSettings::example() }
    }

    #[test]
    fn a_state_has_the_time_at_which_it_began() {
        let mut answers = Answers::new(ZoneSettings::example(), Knowledge::Waiting(None), THEN);
        let mut record = Record::new(&answers, THEN);
        let mut learn = |nodes: &[Node], now: u32| {
            answers = answers.with_knowledge(known(nodes, ZoneState::Live), now);
            record.update(&answers, now);
            let described = record.describe(&answers, None);
            let ages = described.nodes.iter().map(|node| node.since.duration_since(moment(THEN)).unwrap().as_secs());
            (described.since.duration_since(moment(THEN)).unwrap().as_secs(), ages.collect::<Vec<_>>())
        };
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|address| node(address, NodeState::Up));
        assert_eq!(learn(&[one], THEN + 1), (1, vec![1]));
        assert_eq!(learn(&[one, two], THEN + 2), (1, vec![1, 2]));
        assert_eq!(learn(&[Node { state: NodeState::Down, ..one }, two], THEN + 3), (1, vec![3, 2]));
        assert_eq!(learn(&[two], THEN + 4), (1, vec![2]));
    }

    #[test]
    fn a_node_that_is_down_says_how_its_last_failure_ended() {
        let down = node("10.0.0.1", NodeState::Down);
        let answers = Answers::new(ZoneSettings::example(), known(&[down], ZoneState::Live), THEN);
        let mut record = Record::new(&answers, THEN);
        let mut probed = |result, failure: Option<ProbeFailure>| {
            let last = LastProbe { result, duration: Duration::from_millis(2), at: moment(THEN) };
            record.probed(down.address, last, failure.as_ref());
            let node = record.describe(&answers, None).nodes.remove(0);
            assert_eq!(node.last_probe, Some(last));
            node.reason.unwrap()
        };
        assert_eq!(probed(ProbeResult::Status, Some(ProbeFailure::Status(503))), "answered HTTP 503");
        assert_eq!(probed(ProbeResult::Ok, None), "answered HTTP 503", "one success is not enough to be up");
        record.failed(down.address, ProbeFailure::Refused);
        assert_eq!(record.describe(&answers, None).nodes[0].reason.as_deref(), Some("refused the connection"));
    }

    #[test]
    fn rules_exclude_a_node_whatever_its_state() {
        let exclude = vec!["10.0.0.1/32".parse().unwrap()];
        let nodes = [node("10.0.0.1", NodeState::Up), node("10.0.0.2", NodeState::Up)];
        let zone =
            described(known(&nodes, ZoneState::Live), rules(AddressRules { exclude, ..AddressRules::default() }));
        assert_eq!((zone.state, zone.reason, zone.answers), (ZoneState::Live, None, vec![ip("10.0.0.2")]));
        let excluded = &zone.nodes[0];
        assert_eq!((excluded.state, excluded.answered), (NodeState::Excluded, false));
        assert_eq!(excluded.reason.as_deref(), Some("is in exclude"));
        assert!(zone.nodes[1].answered && zone.nodes[1].reason.is_none());
    }

    #[test]
    fn a_drained_node_says_until_when_and_what_else_is_wrong() {
        let nodes = [node("10.0.0.1", NodeState::Up), node("10.0.0.2", NodeState::Up)];
        let mut drains = Drains::default();
        let mut described = |drained: &str, nodes: &[Node], state| {
            drains.add(Drain { node: ip(drained), zone: None, until: moment(THEN) }).unwrap();
            let answers = Answers::new(ZoneSettings::example(), known(nodes, state), THEN);
            let answers = answers.with_drains(drains.everywhere(), THEN);
            Record::new(&answers, THEN).describe(&answers, None)
        };
        let zone = described("10.0.0.1", &nodes, ZoneState::Live);
        assert_eq!((zone.state, zone.reason, zone.answers), (ZoneState::Live, None, vec![ip("10.0.0.2")]));
        assert_eq!((zone.nodes[0].state, zone.nodes[0].answered), (NodeState::Drained, false));
        assert_eq!(zone.nodes[0].reason.as_deref(), Some("is drained until 2026-11-22T20:40:00Z"));
        let zone = described("10.0.0.1", &[node("10.0.0.1", NodeState::Down), nodes[1]], ZoneState::Live);
        assert!(zone.nodes[0].reason.as_deref().unwrap().ends_with("Z; it fails its probes"));
        let zone = described("10.0.0.2", &nodes, ZoneState::Live);
        let reason = "every node that is up is drained, so drained nodes are answered";
        assert_eq!((zone.state, zone.reason.as_deref()), (ZoneState::Degraded, Some(reason)));
        assert!(zone.nodes[0].answered && zone.nodes[0].reason.as_deref().unwrap().contains("all the same"));
        let zone = described("10.0.0.2", &nodes, ZoneState::Stale);
        assert_eq!(zone.reason.unwrap(), format!("no node sends a usable list; {reason}"));
    }

    #[test]
    fn a_zone_without_an_address_is_unanswered_whatever_the_cause() {
        let allow = Some(vec!["192.0.2.0/24".parse().unwrap()]);
        let closed = || rules(AddressRules { allow: allow.clone(), ..AddressRules::default() });
        let up = [node("10.0.0.1", NodeState::Up)];
        let expired = Knowledge::Known(Known { nodes: up.into(), state: ZoneState::Stale, expired: true });
        for (knowledge, settings, reason) in [
            (
                known(&up, ZoneState::Live),
                closed(),
                "the zone's rules let no node through: 10.0.0.1 is not in allow_nodes",
            ),
            (
                Knowledge::Waiting(Some(set(&["10.0.0.9"]))),
                closed(),
                "the zone's rules let no seed through: 10.0.0.9 is not in allow_nodes",
            ),
            (expired, ZoneSettings::example(), "no node has sent a usable list within max_stale"),
            (
                known(&[node("10.0.0.1", NodeState::Foreign)], ZoneState::Contested),
                ZoneSettings::example(),
                "every node that was known is another cluster's",
            ),
            (
                Knowledge::Waiting(None),
                ZoneSettings::example(),
                "no node is known yet, and no seed's address can be answered in its place: the first poll is under way",
            ),
        ] {
            let zone = described(knowledge, settings);
            assert_eq!((zone.state, zone.reason.as_deref()), (ZoneState::Unanswered, Some(reason)));
            assert_eq!(zone.answers, [] as [IpAddr; 0]);
        }
    }

    #[test]
    fn the_pollers_reason_is_shown_and_the_last_error_with_it() {
        let down = [node("10.0.0.1", NodeState::New)];
        let answers = Answers::new(ZoneSettings::example(), known(&down, ZoneState::Stale), THEN);
        let mut record = Record::new(&answers, THEN);
        let reason = |record: &Record| record.describe(&answers, Some("10.0.0.1 hangs")).reason.unwrap();
        assert_eq!(reason(&record), "no node sends a usable list: 10.0.0.1 hangs");
        record.explain(Some("remembered".into()), [(ip("10.0.0.1"), "is not listed".into())]);
        assert_eq!(reason(&record), "remembered: 10.0.0.1 hangs");
        assert_eq!(record.describe(&answers, None).nodes[0].reason.as_deref(), Some("is not listed"));
        record.explain(None, []);
        let node = record.describe(&answers, None).nodes.remove(0);
        assert_eq!(node.reason.as_deref(), Some("has not answered a probe yet"));
    }
}

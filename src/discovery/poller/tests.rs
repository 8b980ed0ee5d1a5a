//! Tests of one zone, most of them on a paused clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::{
    discovery::node::{FetchError, Keep, ListReply, Location, parse},
    metrics::{DropReason, PollResult},
    net::shortage::Shortage,
    simulation::{Content, Delivery, Path, SimulatedCluster},
    table::ZoneSettings,
    types::{AddressRules, AnswerCount, Seed, Ttl, ZoneName, ZoneState},
};

const SECOND: Duration = Duration::from_secs(1);

/// Simulated nodes on a paused clock: each sends its list after a delay; a node without a list refuses.
#[derive(Clone, Debug, Default)]
struct World(Arc<Mutex<FakeState>>);

#[derive(Debug, Default)]
struct FakeState {
    lists: BTreeMap<IpAddr, (String, Duration)>,
    asked: Vec<(IpAddr, Instant)>,
    /// Nodes that cannot be asked, for want of something of ours.
    unasked: BTreeSet<IpAddr>,
}

impl World {
    fn lists(&self, node: &str, list: &[&str]) {
        self.lists_late(node, list, Duration::ZERO);
    }

    fn lists_late(&self, node: &str, list: &[&str], delay: Duration) {
        let list = serde_json::to_string(list).unwrap();
        self.0.lock().unwrap().lists.insert(address(node), (list, delay));
    }

    fn refuses(&self, node: &str) {
        self.0.lock().unwrap().lists.remove(&address(node));
    }

    /// The nodes asked since the last call, and when.
    fn asked(&self) -> Vec<(IpAddr, Instant)> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn was_asked(&self, node: &str) -> bool {
        self.asked().iter().any(|(asked, _)| *asked == address(node))
    }
}

impl Ask for World {
    async fn ask(&self, node: IpAddr, _: Option<Location<'_>>, _: Keep) -> Result<ListReply, FetchError> {
        let state = {
            let mut state = self.0.lock().unwrap();
            state.asked.push((node, Instant::now()));
            if state.unasked.contains(&node) {
                return Err(FetchError::Shortage(Shortage::ProcessDescriptors));
            }
            state.lists.get(&node).cloned()
        };
        let (list, delay) = state.ok_or(FetchError::Refused)?;
        if delay > SECOND {
            sleep(SECOND).await;
            return Err(FetchError::Timeout(SECOND));
        }
        sleep(delay).await;
        Ok(ListReply { listing: parse(list.as_bytes())?, arrived: Instant::now() })
    }
}

/// A zone with its poller, which stops with it.
struct Running {
    entry: Arc<ZoneEntry>,
    counters: Arc<ProcessCounters>,
    _task: AbortOnDropHandle<Infallible>,
}

impl Running {
    fn start(world: &World, seeds: &[&str]) -> Self {
        Self::resume(world, seeds, entry(), Start::Continue)
    }

    fn resume(world: &World, seeds: &[&str], entry: Arc<ZoneEntry>, start: Start) -> Self {
        let lookup = HostLookup::with(|_| Err(std::io::Error::other("no such host")));
        Self::run(world.clone(), &zone(seeds), entry, start, lookup)
    }

    fn run(
        asks: impl Ask + 'static,
        zone: &config::Zone,
        entry: Arc<ZoneEntry>,
        start: Start,
        lookup: HostLookup,
    ) -> Self {
        let resources = resources(lookup);
        let poller = Poller::with(entry.clone(), &Arc::new(zone.clone()), start, &resources, asks);
        Self {
            entry,
            counters: resources.counters,
            _task: AbortOnDropHandle::new(tokio::spawn(async move { poller.run().await })),
        }
    }

    fn state(&self) -> ZoneState {
        self.entry.state()
    }

    fn answered(&self) -> Vec<String> {
        answered(&self.entry)
    }

    fn changes(&self) -> u64 {
        self.counters.node_change.snapshot().1.iter().sum()
    }

    fn polls(&self, result: PollResult) -> u64 {
        self.entry.counters().polls.of(result).value()
    }
}

fn resources(lookup: HostLookup) -> Resources {
    let alternator = NodeClient::new();
    Resources {
        shared: SharedReplies::default(),
        prober: Prober::new(alternator.clone()),
        alternator,
        lookup,
        turns: Turns::default(),
        ownership: AddressOwnership::default(),
        pauses: Pauses::default(),
        not_asked: NotAskedLog::default(),
        snapshot: None,
        counters: Arc::default(),
        at_scale: AtScale::default(),
    }
}

fn answered(entry: &ZoneEntry) -> Vec<String> {
    let answers = entry.answers();
    let published = answers.answered.as_ref().map(NodeSet::as_slice).unwrap_or_default();
    published.iter().map(IpAddr::to_string).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn entry() -> Arc<ZoneEntry> {
    Arc::new(ZoneEntry::new(ZoneName::parse("a.example").unwrap(), ZoneSettings::example(), 1))
}

/// A zone with these seeds and a refresh of a second.
fn zone(seeds: &[&str]) -> config::Zone {
    let seed =
        |text: &&str| text.parse().map(Seed::Address).unwrap_or_else(|_| Seed::Host(ZoneName::parse(text).unwrap()));
    config::Zone {
        health: None,
        rules: AddressRules::default(),
        max_stale: None,
        clients: crate::types::AllowedClients::Any,
        views: Vec::new(),
        cluster_label: None,
        cluster_id: None,
        identity: config::Identity::Unsigned,
        cluster: config::Cluster {
            seeds: seeds.iter().map(seed).collect(),
            port: NonZeroU16::new(8000).unwrap(),
            scheme: config::Scheme::Http,
            scope: Vec::new(),
        },
        refresh: SECOND,
        timeout: SECOND,
        ttl: Ttl::from_secs(4).unwrap(),
        negative_ttl: Ttl::from_secs(4).unwrap(),
        max_addresses: std::num::NonZeroU8::MIN,
        answers: AnswerCount::ONE,
        subdomains: false,
    }
}

#[tokio::test(start_paused = true)]
async fn seeds_are_answered_at_once_and_nodes_when_they_are_learnt() {
    let world = World::default();
    let zone = Running::start(&world, &["10.0.0.9", "10.0.0.1"]);
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Waiting, vec!["10.0.0.1".into(), "10.0.0.9".into()]));
    sleep(SECOND / 2).await;
    assert_eq!(zone.state(), ZoneState::Waiting);
    let status = PollStatus::clone(&zone.entry.poll_status());
    assert_eq!(status.last_error.unwrap(), "10.0.0.9 refused the connection; 10.0.0.1 refused the connection");
    assert_eq!((status.ticks, status.last_success), (1, None));
    world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2", "localhost"]);
    sleep(SECOND * 2).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.1".into(), "10.0.0.2".into()]));
    let status = PollStatus::clone(&zone.entry.poll_status());
    assert_eq!((status.source, status.last_error), (Some(address("10.0.0.1")), None));
    assert!(status.last_success.is_some() && status.last_tick.is_some());
    let dropped = zone.entry.counters().dropped.of(DropReason::NotAddress).value();
    assert_eq!(dropped, zone.polls(PollResult::Ok));
    assert!(zone.polls(PollResult::Refused) >= 3);
    assert_eq!(zone.changes(), 1, "only a changed answer is measured");
}

#[tokio::test(start_paused = true)]
async fn polls_keep_their_interval_however_long_an_answer_takes() {
    let world = World::default();
    world.lists_late("10.0.0.1", &["10.0.0.1"], SECOND / 2);
    let _zone = Running::start(&world, &["10.0.0.1"]);
    sleep(SECOND * 25).await;
    let asked = world.asked();
    let pauses: Vec<_> = asked.windows(2).map(|two| two[1].1 - two[0].1).collect();
    assert!((22..28).contains(&pauses.len()), "{}", pauses.len());
    for pause in &pauses {
        let least = SECOND * 9 / 10;
        let most = SECOND * 11 / 10 + TIMER_GRAIN * 2;
        assert!((least..most).contains(pause), "{pauses:?}");
    }
    assert!(pauses.iter().any(|pause| pause != &pauses[0]), "pauses differ");
}

#[tokio::test(start_paused = true)]
async fn nodes_stay_and_are_stale_while_every_poll_fails() {
    let world = World::default();
    world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
    let zone = Running::start(&world, &["10.0.0.1"]);
    sleep(SECOND).await;
    assert_eq!(zone.state(), ZoneState::Live);
    world.refuses("10.0.0.1");
    sleep(SECOND * 4).await;
    assert_eq!(zone.state(), ZoneState::Live);
    sleep(SECOND * 3).await;
    assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Stale, 2));
    assert!(zone.entry.poll_status().last_error.as_ref().unwrap().contains("10.0.0.2 refused the connection"));
    sleep(SECOND * 10_000).await;
    assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Stale, 2));
    world.lists("10.0.0.2", &["10.0.0.2"]);
    sleep(SECOND * 2).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.2".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_zone_goes_stale_on_time_while_a_tick_is_under_way() {
    let world = World::default();
    world.lists("10.0.0.1", &["10.0.0.1"]);
    let slow = config::Zone { timeout: SECOND * 60, ..zone(&["10.0.0.1"]) };
    let lookup = HostLookup::with(|_| Ok(Vec::new()));
    struct Mute(World, AtomicBool);
    impl Ask for Arc<Mute> {
        async fn ask(&self, node: IpAddr, _: Option<Location<'_>>, keep: Keep) -> Result<ListReply, FetchError> {
            if self.1.load(SeqCst) { std::future::pending().await } else { self.0.ask(node, None, keep).await }
        }
    }
    let mute = Arc::new(Mute(world, AtomicBool::new(false)));
    let zone = Running::run(mute.clone(), &slow, entry(), Start::Continue, lookup);
    sleep(SECOND).await;
    mute.1.store(true, SeqCst);
    sleep(SECOND * 4).await;
    assert_eq!(zone.state(), ZoneState::Live);
    sleep(SECOND * 3).await;
    assert_eq!(zone.state(), ZoneState::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_shortage_of_ours_removes_no_node_and_is_no_reason_to_hurry() {
    let nodes = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let world = World::default();
    nodes.iter().for_each(|node| world.lists(node, &nodes));
    let zone = Running::start(&world, &nodes[..1]);
    sleep(SECOND * 3).await;
    assert_eq!(zone.answered(), nodes);
    world.0.lock().unwrap().unasked = nodes.map(address).into();
    let asked = world.0.lock().unwrap().asked.len();
    sleep(SECOND * 60).await;
    assert_eq!((zone.answered(), zone.state()), (nodes.map(str::to_owned).to_vec(), ZoneState::Stale));
    assert!(zone.polls(PollResult::NotAsked) > 60, "{}", zone.polls(PollResult::NotAsked));
    // Each poll tries all three nodes; reports are tried once a refresh at most.
    let tries = world.0.lock().unwrap().asked.len() - asked;
    assert!(tries < 60 * 3 * 3, "{tries} tries in a minute");
    world.0.lock().unwrap().unasked.clear();
    sleep(SECOND * 3).await;
    assert_eq!((zone.answered(), zone.state()), (nodes.map(str::to_owned).to_vec(), ZoneState::Live));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_a_list_leaves_out_stays_until_it_can_be_asked() {
    let nodes = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    let world = World::default();
    nodes.iter().for_each(|node| world.lists(node, &nodes));
    let zone = Running::start(&world, &nodes[..1]);
    sleep(SECOND * 3).await;
    let rest = &nodes[..2];
    rest.iter().for_each(|node| world.lists(node, rest));
    world.refuses(nodes[2]);
    world.0.lock().unwrap().unasked.insert(address(nodes[2]));
    sleep(SECOND * 20).await;
    assert_eq!(zone.answered(), nodes, "it is not known whether it is gone");
    world.0.lock().unwrap().unasked.clear();
    sleep(SECOND * 3).await;
    assert_eq!(zone.answered(), rest);
}

/// Notes which node is asked, and for how long its connection is kept.
struct Watched(World, Mutex<Vec<(IpAddr, Keep)>>);
impl Ask for Arc<Watched> {
    async fn ask(&self, node: IpAddr, _: Option<Location<'_>>, keep: Keep) -> Result<ListReply, FetchError> {
        self.1.lock().unwrap().push((node, keep));
        self.0.ask(node, None, keep).await
    }
}

#[tokio::test(start_paused = true)]
async fn at_scale_a_zone_keeps_one_connection() {
    let first = "10.0.0.1";
    let second = "10.0.0.2";
    let world = World::default();
    world.lists(first, &[first, second]);
    world.lists(second, &[first, second]);
    let watched = Arc::new(Watched(world.clone(), Mutex::default()));
    let seen = || std::mem::take(&mut *watched.1.lock().unwrap());
    let resources = resources(HostLookup::with(|_| Ok(Vec::new())));
    resources.at_scale.set_zones(10_000);
    let zone = Arc::new(zone(&[first, second]));
    let poller = Poller::with(entry(), &zone, Start::Continue, &resources, watched.clone());
    let _task = AbortOnDropHandle::new(tokio::spawn(async move { poller.run().await }));
    sleep(SECOND * 400).await;
    let asked = seen();
    let kept = Keep::over(zone.refresh);
    let as_expected = |&(node, keep): &(IpAddr, Keep)| (node == address(first)) == (keep == kept);
    // The first poll compares the reports of both seeds.
    assert!(asked[2..].iter().all(as_expected), "{asked:?}");
    assert!(asked.contains(&(address(second), Keep::Never)), "as a seed it is asked now and then");
    world.refuses(first);
    sleep(SECOND * 3).await;
    assert_eq!(seen().last(), Some(&(address(second), kept)), "another one answers from now on");
}

#[tokio::test(start_paused = true)]
async fn a_running_poller_adapts_to_the_number_of_zones() {
    let first = "10.0.0.1";
    let second = "10.0.0.2";
    let world = World::default();
    world.lists(first, &[first, second]);
    world.lists(second, &[first, second]);
    let watched = Arc::new(Watched(world, Mutex::default()));
    let seen = || std::mem::take(&mut *watched.1.lock().unwrap());
    let resources = resources(HostLookup::with(|_| Ok(Vec::new())));
    let zone = config::Zone { refresh: SECOND * 12, ..zone(&[first]) };
    let poller = Poller::with(entry(), &Arc::new(zone), Start::Continue, &resources, watched.clone());
    let _task = AbortOnDropHandle::new(tokio::spawn(async move { poller.run().await }));
    let kept = |asked: &[(IpAddr, Keep)], keep| asked.iter().any(|(_, kept)| *kept == keep);
    for (zones, keep, not) in
        [(1, Keep::Shortly, Keep::Long), (1001, Keep::Long, Keep::Shortly), (1000, Keep::Shortly, Keep::Long)]
    {
        resources.at_scale.set_zones(zones);
        seen();
        sleep(SECOND * 200).await;
        let asked = seen();
        assert!(kept(&asked, keep) && !kept(&asked, not), "{zones} zones: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_poller_that_continues_asks_the_nodes_that_are_published() {
    let world = World::default();
    let entry = entry();
    entry.learn(&Knowledge::up(&NodeSet::new([address("10.0.0.2")]).unwrap(), ZoneState::Live), 2);
    entry.report(PollStatus { origin: Origin::Cluster, ..PollStatus::default() });
    world.lists("10.0.0.2", &["10.0.0.2", "10.0.0.3"]);
    let zone = Running::resume(&world, &["10.0.0.1"], entry, Start::Continue);
    assert_eq!(zone.answered(), ["10.0.0.2"], "seeds are answered only when nothing is known");
    sleep(SECOND).await;
    assert_eq!(zone.answered(), ["10.0.0.2", "10.0.0.3"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_a_former_cluster_are_never_polled() {
    let world = World::default();
    let entry = entry();
    entry.learn(&Knowledge::up(&NodeSet::new([address("10.0.0.2")]).unwrap(), ZoneState::Live), 2);
    world.lists("10.0.0.2", &["10.0.0.2"]);
    let zone = Running::resume(&world, &["10.9.0.1"], entry.clone(), Start::NewCluster);
    sleep(SECOND * 60).await;
    assert!(!world.was_asked("10.0.0.2"));
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Stale, vec!["10.0.0.2".into()]));
    assert!(entry.poll_status().origin == Origin::FormerCluster && !entry.poll_status().seeds_disagree);
    drop(zone);
    let zone = Running::resume(&world, &["10.9.0.1"], entry.clone(), Start::Continue);
    sleep(SECOND * 5).await;
    assert!(!world.was_asked("10.0.0.2"), "a restart does not make them ours");
    world.lists("10.9.0.1", &["10.9.0.1", "10.9.0.2"]);
    sleep(SECOND * 2).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.9.0.1".into(), "10.9.0.2".into()]));
    assert_eq!(entry.poll_status().origin, Origin::Cluster);
}

#[tokio::test(start_paused = true)]
async fn other_seeds_of_a_waiting_zone_are_answered_at_once() {
    let world = World::default();
    let entry = entry();
    let first = Running::resume(&world, &["10.0.0.1"], entry.clone(), Start::Continue);
    assert_eq!(first.answered(), ["10.0.0.1"]);
    drop(first);
    let second = Running::resume(&world, &["10.0.0.2"], entry, Start::NewCluster);
    assert_eq!(second.answered(), ["10.0.0.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_among_the_seeds_is_asked_as_soon_as_it_is_resolved() {
    let world = World::default();
    world.lists("10.0.0.1", &["10.0.0.1"]);
    let known = Arc::new(AtomicBool::new(false));
    let dns = known.clone();
    let lookup = HostLookup::with(move |_| match dns.load(SeqCst) {
        true => Ok(vec!["10.0.0.1".parse().unwrap()]),
        false => Err(std::io::Error::other("no such host")),
    });
    let hourly = config::Zone { refresh: SECOND * 3600, ..zone(&["scylla.internal"]) };
    let zone = Running::run(world, &hourly, entry(), Start::Continue, lookup);
    sleep(SECOND * 5).await;
    let error = zone.entry.poll_status().last_error.clone().unwrap();
    assert_eq!(error, "scylla.internal cannot be resolved: no such host");
    assert_eq!((zone.state(), zone.answered().len()), (ZoneState::Unanswered, 0));
    known.store(true, SeqCst);
    sleep(SECOND * 2).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, vec!["10.0.0.1".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_built_anew_behind_host_names_is_answered_within_five_seconds_of_the_lookup() {
    let world = World::default();
    let old = ["10.0.0.1", "10.0.0.2"];
    let new = ["10.1.0.1", "10.1.0.2"];
    old.iter().for_each(|node| world.lists(node, &old));
    let moved = Arc::new(AtomicBool::new(false));
    let looked_up: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (dns, seen) = (moved.clone(), looked_up.clone());
    let lookup = HostLookup::with(move |_| {
        if dns.load(SeqCst) {
            seen.lock().unwrap().get_or_insert_with(Instant::now);
            return Ok(new.map(|node| node.parse().unwrap()).to_vec());
        }
        Ok(vec![old[0].parse().unwrap()])
    });
    let zone = Running::run(world.clone(), &zone(&["scylla.internal"]), entry(), Start::Continue, lookup);
    sleep(SECOND * 5).await;
    assert_eq!(zone.answered(), old);
    old.iter().for_each(|node| world.refuses(node));
    sleep(SECOND * 10).await;
    assert_eq!(zone.answered(), old, "nothing else is known");
    new.iter().for_each(|node| world.lists(node, &new));
    moved.store(true, SeqCst);
    until("the look-up", || looked_up.lock().unwrap().is_some()).await;
    let since = looked_up.lock().unwrap().unwrap();
    until("the new nodes", || zone.answered() == new).await;
    assert!(since.elapsed() < SECOND * 5, "{:?}", since.elapsed());
    assert_eq!(zone.state(), ZoneState::Live);
}

#[tokio::test(start_paused = true)]
async fn a_dead_seed_and_a_dead_node_are_asked_at_intervals() {
    let world = World::default();
    world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
    let zone = Running::start(&world, &["10.0.0.1", "10.0.0.3"]);
    sleep(SECOND * 100).await;
    assert_eq!(zone.state(), ZoneState::Live);
    let asked = world.asked();
    let count = |node: &str| asked.iter().filter(|(asked, _)| *asked == address(node)).count();
    // It is polled each second, and so are half of the others, in turn with it.
    assert!(asked.len() < 350, "{} requests in 100 s", asked.len());
    assert!(count("10.0.0.2") < 150 && count("10.0.0.3") < 20, "{} {}", count("10.0.0.2"), count("10.0.0.3"));
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_lists_only_others_is_a_witness() {
    let world = World::default();
    let nodes = ["10.0.0.1", "10.0.0.2"];
    world.lists("10.9.0.1", &nodes);
    nodes.iter().for_each(|node| world.lists(node, &nodes));
    let zone = Running::start(&world, &["10.9.0.1"]);
    sleep(SECOND).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, nodes.map(String::from).to_vec()));
    sleep(SECOND * 100).await;
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, nodes.map(String::from).to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_seed_that_disagrees_is_reported_and_its_list_is_not_accepted() {
    let world = World::default();
    world.lists("10.0.0.2", &["10.0.0.1", "10.0.0.2"]);
    world.lists("10.0.0.1", &["10.0.0.1", "10.0.0.2"]);
    let zone = Running::start(&world, &["10.0.0.2", "10.9.0.1"]);
    sleep(SECOND * 10).await;
    world.lists("10.9.0.1", &["10.9.0.1", "10.9.0.2"]);
    sleep(SECOND * 70).await;
    assert!(zone.entry.poll_status().seeds_disagree);
    let both = vec!["10.0.0.1".into(), "10.0.0.2".into()];
    assert_eq!((zone.state(), zone.answered()), (ZoneState::Live, both.clone()));
    world.lists("10.9.0.1", &["10.0.0.1", "10.9.0.1"]);
    sleep(SECOND * 70).await;
    assert!(zone.entry.poll_status().seeds_disagree, "it lists the zone's nodes, but they do not list it");
    assert_eq!(zone.answered(), both);
    for node in ["10.0.0.1", "10.0.0.2", "10.9.0.1"] {
        world.lists(node, &["10.0.0.1", "10.0.0.2", "10.9.0.1"]);
    }
    sleep(SECOND * 70).await;
    assert!(!zone.entry.poll_status().seeds_disagree);
    assert_eq!(zone.answered().len(), 3);
}

/// The log lines, each from its level on.
#[derive(Clone, Default)]
struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for CapturedLog {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl CapturedLog {
    fn lines(&self) -> Vec<String> {
        let octets = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(octets).unwrap().lines().map(|line| line.trim().into()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_logged_and_one_line_each() {
    crate::telemetry::keep_every_line();
    let captured = CapturedLog::default();
    let writer = captured.clone();
    let log = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
    let _log = tracing::subscriber::set_default(log.with_writer(move || writer.clone()).finish());
    let world = World::default();
    world.lists("10.0.0.1", &["10.0.0.1"]);
    let _zone = Running::start(&world, &["10.0.0.1"]);
    sleep(SECOND * 100).await;
    assert_eq!(
        captured.lines(),
        [
            "INFO node joined zone=a.example. node=10.0.0.1",
            "INFO zone state changed zone=a.example. from=\"waiting\" to=\"live\"",
        ]
    );
    world.lists("10.0.0.1", &["10.0.0.2"]);
    world.lists("10.0.0.2", &["10.0.0.2"]);
    sleep(SECOND * 100).await;
    let joined = [
        "INFO node joined zone=a.example. node=10.0.0.2",
        "INFO node left zone=a.example. node=10.0.0.1 now=\"unlisted\"",
    ];
    assert_eq!(captured.lines(), joined);
    world.refuses("10.0.0.1");
    world.refuses("10.0.0.2");
    sleep(SECOND * 100).await;
    let lines = captured.lines();
    let stale = "WARN zone state changed zone=a.example. from=\"live\" to=\"stale\" why=\"no node sends a usable list: \
                 10.0.0.2 refused";
    assert!(lines.len() == 1 && lines[0].starts_with(stale), "{lines:?}");
    world.lists("10.0.0.2", &["10.0.0.2"]);
    sleep(SECOND * 100).await;
    assert_eq!(captured.lines(), ["INFO zone state changed zone=a.example. from=\"stale\" to=\"live\""]);
}

/// Waits on a condition, with a deadline.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = timeout(SECOND * 20, async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waiting.await.is_ok(), "not within the deadline: {what}");
}

#[tokio::test]
async fn every_change_of_a_real_cluster_is_published() {
    let cluster = SimulatedCluster::start(3).unwrap();
    let mut wanted = zone(&[&cluster.node(0).to_string()]);
    wanted.cluster.port = NonZeroU16::new(cluster.port()).unwrap();
    wanted.refresh = Duration::from_millis(100);
    let resources = resources(HostLookup::new());
    let entry = entry();
    let poller = Poller::new(entry.clone(), &Arc::new(wanted.clone()), Start::Continue, &resources);
    let _task = AbortOnDropHandle::new(tokio::spawn(async move { poller.run().await }));
    let follows = || answered(&entry) == cluster.running().iter().map(IpAddr::to_string).collect::<Vec<_>>();
    until("all three", || entry.state() == ZoneState::Live && follows()).await;
    cluster.stop(cluster.node(0));
    until("one less, the seed", follows).await;
    cluster.add().unwrap();
    until("one more", follows).await;
    for node in cluster.running() {
        cluster.say(node, Path::LocalNodes, Content::Listing(Vec::new()));
    }
    until("an error", || entry.poll_status().last_error.is_some()).await;
    assert!(follows(), "an empty list changes nothing");
    cluster.running().into_iter().for_each(|node| cluster.heal(node));
    cluster.deliver(cluster.node(1), Path::LocalNodes, Delivery::Hang);
    cluster.stop(cluster.node(2));
    until("around a node that hangs", follows).await;
    assert!(entry.counters().polls.of(PollResult::Empty).value() > 0);
    let silence = entry.poll_status().last_tick.unwrap().elapsed();
    assert!(silence < <Poller>::silence_max(&wanted), "{silence:?}");
}

//! The task that notifies secondaries of changes, and keeps serials for the next start.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    notify::{NotifyReply, NotifySocket},
    primary::{Primary, Transfers},
    progress::{DueNotify, Progress},
};
use crate::{
    metrics::NotifyResult,
    snapshot::SnapshotStore,
    table::{SharedTable, ZoneEntry, changed_zones, table_version},
    telemetry::LogInterval,
    types::{ZoneName, unix_now, unix_seconds},
};

/// Between looks at the zones and the sockets. A change is fetched within a tenth of a second, and a look costs what has
/// changed since the one before.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Datagrams that are read from one socket at one look: all answers that can be on the way, and as many forged ones.
const REPLIES_MAX: usize = 256;

/// Between two lines of the log about failures of one secondary.
const REPORT_INTERVAL: Duration = Duration::from_secs(600);

/// Between two times that changed serials are kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Notifies the secondaries of changed zones for as long as it runs.
#[derive(Debug)]
pub struct Notifier {
    transfers: Transfers,
    table: SharedTable,
    snapshot: Option<SnapshotStore>,
    sockets: Sockets,
    seen: Option<Seen>,
    /// The serials that were kept last, and the version of the table that they are of.
    kept: BTreeMap<ZoneName, u32>,
    kept_version: Option<u64>,
    kept_at: Option<Instant>,
}

/// What was looked at last.
#[derive(Debug)]
struct Seen {
    /// The version of the answers.
    version: u64,
    /// The version of the table itself: which zones there are.
    table: u64,
    primary: Arc<Primary>,
}

/// The sockets to the secondaries, in their order.
#[derive(Debug, Default)]
struct Sockets {
    secondaries: Vec<SocketAddr>,
    listen: Vec<SocketAddr>,
    /// `None`: it could not be opened yet.
    open: Vec<Option<NotifySocket>>,
    /// When a failure of each was last logged.
    reported: Vec<LogInterval>,
}

impl Notifier {
    /// Notifies no secondary yet. Serials are kept in the snapshot, if there is one.
    pub fn new(transfers: Transfers, table: SharedTable, snapshot: Option<SnapshotStore>) -> Self {
        Self {
            transfers,
            table,
            snapshot,
            sockets: Sockets::default(),
            seen: None,
            kept: BTreeMap::new(),
            kept_version: None,
            kept_at: None,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) -> Infallible {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.transfers.primary() {
                None => {
                    self.sockets = Sockets::default();
                    self.seen = None;
                    self.transfers.changed().await;
                }
                Some(primary) => {
                    self.look(&primary, Instant::now());
                    looks.tick().await;
                }
            }
        }
    }

    fn look(&mut self, primary: &Arc<Primary>, now: Instant) {
        let seconds = unix_seconds();
        self.sockets.follow(primary);
        self.receive(primary, now, seconds);
        self.observe(primary, now);
        self.send(primary, now, seconds);
        self.keep(primary, now);
    }

    /// Takes over the serials of the zones that can be fetched: of all zones where the table or the configuration is another
    /// one, else of those that have changed. Returns how many zones were looked at.
    fn observe(&mut self, primary: &Arc<Primary>, now: Instant) -> usize {
        let table = self.table.snapshot();
        let is_same = |seen: &&Seen| seen.table == table.version() && Arc::ptr_eq(&seen.primary, primary);
        let since = self.seen.as_ref().filter(is_same).map(|seen| seen.version);
        if since == Some(table_version()) {
            return 0;
        }
        // Before the zones: what changes meanwhile is seen at the next look.
        let (version, changed) = changed_zones(since);
        self.seen = Some(Seen { version, table: table.version(), primary: primary.clone() });
        let mut progress = self.transfers.progress();
        match changed {
            Some(zones) => {
                let entries = zones.iter().filter_map(|zone| table.zone(zone));
                entries.map(|entry| observe_zone(&mut progress, entry, now)).count()
            }
            None => {
                let catalog = primary.catalog.as_ref().map(|catalog| &catalog.content);
                progress
                    .retain(|zone| table.zone(zone).is_some() || catalog.is_some_and(|catalog| catalog.apex == *zone));
                if let Some(catalog) = catalog {
                    progress.observe(&catalog.apex, catalog.serial, now);
                }
                table.entries().map(|entry| observe_zone(&mut progress, entry, now)).count()
            }
        }
    }

    fn receive(&mut self, primary: &Primary, now: Instant, seconds: u64) {
        let key = primary.key.load();
        let counters = self.transfers.counters();
        for socket in self.sockets.open.iter_mut().flatten() {
            for _ in 0..REPLIES_MAX {
                match socket.receive(&key, seconds) {
                    None => break,
                    Some(NotifyReply::Ignored) => counters.replies_ignored.increment(),
                    Some(NotifyReply::Acknowledged(notify)) => {
                        counters.notifies.of(NotifyResult::Acknowledged).increment();
                        self.transfers.progress().acknowledged(&notify);
                    }
                    Some(NotifyReply::Refused(notify, code)) => {
                        counters.notifies.of(NotifyResult::Refused).increment();
                        let secondary = primary.secondaries[notify.secondary];
                        if self.sockets.reported[notify.secondary].is_due(now) {
                            let zone = &notify.zone;
                            tracing::warn!(%secondary, %zone, code, "a secondary refuses NOTIFY; it is sent again");
                        }
                        self.transfers.progress().failed(&notify, now);
                    }
                }
            }
        }
    }

    fn send(&mut self, primary: &Primary, now: Instant, seconds: u64) {
        let counters = self.transfers.counters();
        let due = {
            let mut progress = self.transfers.progress();
            let expired = progress.expire(now);
            counters.notifies.of(NotifyResult::Timeout).add(expired.len() as u64);
            for number in expired {
                if self.sockets.reported[number].is_due(now) {
                    let secondary = primary.secondaries[number];
                    tracing::warn!(%secondary, "a secondary does not acknowledge NOTIFY, or with another key; it is sent again");
                }
            }
            // A socket that cannot be opened is no reason to wait: its notifications fail, and are tried again.
            let free = self
                .sockets
                .open
                .iter_mut()
                .map(|socket| socket.as_mut().map_or(super::notify::IN_FLIGHT_MAX, |socket| socket.free(now)));
            let mut free: Vec<_> = free.collect();
            progress.take_due(now, &mut free)
        };
        let key = primary.key.load();
        for notify in due {
            match self.sockets.send(&notify, &key, now, seconds) {
                Ok(()) => counters.notifies.of(NotifyResult::Sent).increment(),
                Err(error) => {
                    counters.notifies.of(NotifyResult::Failed).increment();
                    let secondary = primary.secondaries[notify.secondary];
                    if self.sockets.reported[notify.secondary].is_due(now) {
                        tracing::warn!(%secondary, %error, "a secondary cannot be notified; trying on");
                    }
                    self.transfers.progress().failed(&notify, now);
                }
            }
        }
    }

    /// Keeps the serials for the next start, if any has changed.
    fn keep(&mut self, primary: &Primary, now: Instant) {
        let Some(snapshot) = &self.snapshot else { return };
        if self.kept_at.is_some_and(|kept| now.saturating_duration_since(kept) < KEEP_INTERVAL) {
            return;
        }
        self.kept_at = Some(now);
        let version = table_version();
        if self.kept_version.replace(version) == Some(version) {
            return;
        }
        let table = self.table.snapshot();
        let zones = table.entries().map(|entry| (entry.name().clone(), entry.answers().serial));
        let catalog = primary.catalog.iter().map(|catalog| (catalog.content.apex.clone(), catalog.content.serial));
        // A zone that is removed may come back before the clock has passed its serial.
        let clock = unix_now();
        let removed =
            self.kept.iter().filter(|(_, serial)| **serial > clock).map(|(zone, serial)| (zone.clone(), *serial));
        let serials: BTreeMap<_, _> = removed.chain(zones).chain(catalog).collect();
        if serials != self.kept {
            snapshot.keep_serials(serials.clone());
            self.kept = serials;
        }
    }
}

fn observe_zone(progress: &mut Progress, entry: &ZoneEntry, now: Instant) {
    let answers = entry.answers();
    if answers.is_learnt() {
        progress.observe(entry.name(), answers.serial, now);
    }
}

impl Sockets {
    /// Opens the sockets anew where the secondaries or our addresses are others.
    fn follow(&mut self, primary: &Primary) {
        if self.secondaries != primary.secondaries || self.listen != primary.listen {
            let open = primary.secondaries.iter().map(|_| None).collect();
            let (secondaries, listen) = (primary.secondaries.clone(), primary.listen.clone());
            let reported = vec![LogInterval::new(REPORT_INTERVAL); secondaries.len()];
            *self = Self { secondaries, listen, open, reported };
        }
    }

    fn send(
        &mut self,
        notify: &DueNotify,
        key: &super::tsig::TsigKey,
        now: Instant,
        seconds: u64,
    ) -> std::io::Result<()> {
        let socket = &mut self.open[notify.secondary];
        let socket = match socket {
            Some(socket) => socket,
            None => socket.insert(NotifySocket::open(self.secondaries[notify.secondary], &self.listen)?),
        };
        match socket.send(notify.clone(), key, now, seconds) {
            // About an earlier datagram, which the secondary's host refused; it counts as one that is not acknowledged.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            sent => sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;

    use super::{
        super::{Wanted, tsig::tests::key},
        *,
    };
    use crate::{
        config::{Transfer, TransferKey, TsigAlgorithm},
        table::{Knowledge, ZoneSettings, ZoneTable},
        types::{NodeSet, ZoneState},
    };

    #[test]
    fn of_many_zones_a_look_reads_those_that_have_changed() {
        let name = |text: &str| ZoneName::parse(text).unwrap();
        let learn = |zone: &ZoneEntry, now| {
            let nodes = NodeSet::new(["10.0.0.1".parse().unwrap()]).unwrap();
            zone.learn(&Knowledge::up(&nodes, ZoneState::Live), now);
        };
        let entry = |number: u32| {
            Arc::new(ZoneEntry::new(name(&format!("z{number}.look.example")), ZoneSettings::example(), 1000))
        };
        let zones: Vec<_> = (0..1000).map(entry).collect();
        zones.iter().for_each(|zone| learn(zone, 2000));
        let table = SharedTable::default();
        table.replace(ZoneTable::new(zones.clone()));
        let transfers = Transfers::new(Arc::default());
        let transfer = Transfer {
            secondaries: vec!["192.0.2.1:53".parse().unwrap()],
            key: TransferKey { name: name("k"), algorithm: TsigAlgorithm::HmacSha256, secret_file: "/secret".into() },
            catalog: None,
        };
        let key = Arc::new(ArcSwap::from_pointee(key("k")));
        transfers.replace(Some(Wanted { transfer: &transfer, key, listen: &[] }), &table.now(), |_| None, 1000);
        let primary = transfers.primary().unwrap();
        let mut notifier = Notifier::new(transfers.clone(), table.clone(), None);
        let now = Instant::now();
        assert_eq!(notifier.observe(&primary, now), 1000);
        // Tests beside this one may change more zones at a time than are kept; then all are looked at.
        let looks_at_one = |notifier: &mut Notifier, serial: u32| {
            let subdomains = serial.is_multiple_of(2);
            zones[7].configure(&ZoneSettings { subdomains, ..ZoneSettings::example() }, serial);
            notifier.observe(&primary, now) == 1
        };
        assert!((3000..3050).any(|serial| looks_at_one(&mut notifier, serial)));
        let secondary = transfers.secondaries(zones[7].name(), now + Duration::from_secs(1));
        assert_eq!(secondary[0].state.lag, Duration::from_secs(1));
        table.replace(ZoneTable::new(zones[1..].iter().cloned()));
        assert_eq!(notifier.observe(&primary, now), 999, "another table");
        assert_eq!(transfers.secondaries(zones[0].name(), now), []);
    }
}

//! What this server is to its secondaries: the configuration in force, and what they have.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::{Notify, Semaphore};

use super::{
    progress::{Progress, SecondaryState},
    tsig::TsigKey,
    zone::Catalog,
};
use crate::{
    config::Transfer,
    metrics::{ProcessCounters, TransferCounters},
    table::ZoneTable,
    types::ZoneName,
};

/// Transfers under way at the same time. A zone is one message and done at once; of a catalog of fifty thousand zones, which
/// has hundreds, a secondary fetches one at a time.
const TRANSFERS_MAX: usize = 64;

/// Gives zones to secondaries, and knows what they have. Off until a configuration is put in force. Clones share all.
#[derive(Clone, Debug)]
pub struct Transfers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    primary: ArcSwapOption<Primary>,
    progress: Mutex<Progress>,
    /// One permit for each transfer under way.
    slots: Arc<Semaphore>,
    changed: Notify,
    counters: Arc<ProcessCounters>,
}

/// `[transfer]` in force.
#[derive(Debug)]
pub(super) struct Primary {
    pub(super) secondaries: Vec<SocketAddr>,
    /// It changes while the server runs.
    pub(super) key: Arc<ArcSwap<TsigKey>>,
    pub(super) catalog: Option<Catalog>,
    /// The addresses that queries arrive at, which secondaries know this server by.
    pub(super) listen: Vec<SocketAddr>,
}

/// What a secondary has of a zone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secondary {
    /// Where it gets NOTIFY.
    pub address: SocketAddr,
    /// What it has.
    pub state: SecondaryState,
}

/// What a configuration asks for.
pub struct Wanted<'w> {
    /// The section of the file.
    pub transfer: &'w Transfer,
    /// Its key, which is replaced when its file changes.
    pub key: Arc<ArcSwap<TsigKey>>,
    /// The addresses that are served, for the name server of the zones.
    pub listen: &'w [SocketAddr],
}

impl Transfers {
    /// Nothing is transferred yet.
    pub fn new(counters: Arc<ProcessCounters>) -> Self {
        Self(Arc::new(Shared {
            primary: ArcSwapOption::empty(),
            progress: Mutex::default(),
            slots: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            changed: Notify::new(),
            counters,
        }))
    }

    /// Puts a configuration in force; `None`: nothing is transferred. The zones are those of the table, and `kept` is the
    /// catalog's serial of an earlier process. `now` is the unix time in seconds.
    pub fn replace(
        &self,
        wanted: Option<Wanted<'_>>,
        table: &ZoneTable,
        kept: impl Fn(&ZoneName) -> Option<u32>,
        now: u32,
    ) {
        let former = self.primary();
        let primary = wanted.map(|Wanted { transfer, key, listen }| {
            let catalog = transfer.catalog.as_ref().map(|name| {
                let members = table.entries().map(|entry| entry.name().clone());
                let former = former.as_ref().and_then(|former| former.catalog.as_ref());
                Catalog::new(name, members, former, kept(name), now)
            });
            Primary { secondaries: transfer.secondaries.clone(), key, catalog, listen: listen.to_vec() }
        });
        match (&primary, former.as_deref()) {
            (Some(primary), Some(former)) if primary.secondaries == former.secondaries => {}
            (Some(primary), former) => {
                let before = |address: &SocketAddr| former.and_then(|former| former.secondary(address.ip()));
                let before: Vec<_> = primary.secondaries.iter().map(before).collect();
                self.progress().follow(&before, Instant::now());
            }
            (None, _) => *self.progress() = Progress::default(),
        }
        drop(former);
        self.0.primary.store(primary.map(Arc::new));
        self.0.changed.notify_one();
    }

    /// Whether anything is transferred.
    pub fn is_on(&self) -> bool {
        self.0.primary.load().is_some()
    }

    /// What each secondary has of a zone, in the order of the file; none while the zone cannot be fetched.
    pub fn secondaries(&self, zone: &ZoneName, now: Instant) -> Vec<Secondary> {
        let Some(primary) = self.primary() else { return Vec::new() };
        let states = self.progress().states(zone, now);
        primary.secondaries.iter().zip(states).map(|(&address, state)| Secondary { address, state }).collect()
    }

    /// Name and serial of the catalog zone, if there is one.
    pub fn catalog(&self) -> Option<(ZoneName, u32)> {
        let primary = self.primary()?;
        let content = &primary.catalog.as_ref()?.content;
        Some((content.apex.clone(), content.serial))
    }

    pub(super) fn primary(&self) -> Option<Arc<Primary>> {
        self.0.primary.load_full()
    }

    pub(super) fn load(&self) -> Guard<Option<Arc<Primary>>> {
        self.0.primary.load()
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        // Nothing behind the lock panics half-way.
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> &TransferCounters {
        &self.0.counters.transfers
    }

    pub(super) fn slots(&self) -> &Arc<Semaphore> {
        &self.0.slots
    }

    /// Waits until another configuration is put in force.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl Primary {
    /// Which of the secondaries has this address.
    pub(super) fn secondary(&self, address: IpAddr) -> Option<usize> {
        self.secondaries.iter().position(|secondary| secondary.ip() == address)
    }
}

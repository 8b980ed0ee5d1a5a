//! What several parts of the server have in common, from which they are made.

use std::{io, path::Path, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use super::{
    forwarding::Forwarding, listeners::ListenerContext, settings::limits, threads::Runtimes, transferring::Transferring,
};
use crate::{
    admin::{AdminState, AllowedHosts, Samples, ServingCheck, drain::ActiveDrains},
    config::{Config, ConfigHistory, ConfigStatus, ReloadRequest},
    discovery::{
        AddressOwnership, HostLookup, NotAskedLog, Pauses, Prober, Resources, SharedReplies, Turns, node::NodeClient,
    },
    metrics::ProcessCounters,
    net::watched::FileReader,
    reload::{Accepted, ReloadChannels},
    server::{ConnectionLimits, Service, Supervision},
    snapshot::SnapshotStore,
    table::SharedTable,
};

/// What several parts of the server have in common.
pub(super) struct Shared {
    pub(super) table: SharedTable,
    pub(super) counters: Arc<ProcessCounters>,
    pub(super) status: Arc<ArcSwap<ConfigStatus>>,
    pub(super) configurations: ConfigHistory,
    pub(super) transferring: Arc<Transferring>,
}

impl Shared {
    pub(super) fn new(path: &Path, config: &Arc<Config>, reader: FileReader) -> Self {
        let status = ArcSwap::from_pointee(ConfigStatus::new(path, config));
        let counters = Arc::<ProcessCounters>::default();
        Self {
            table: SharedTable::default(),
            transferring: Arc::new(Transferring::new(counters.clone(), reader)),
            counters,
            status: Arc::new(status),
            configurations: ConfigHistory::default(),
        }
    }

    pub(super) fn reload_channels(
        self,
        requests: mpsc::Receiver<ReloadRequest>,
        accepted: mpsc::Sender<Accepted>,
        reader: FileReader,
    ) -> io::Result<ReloadChannels> {
        let Self { counters, status, configurations, .. } = self;
        let hangup = signal(SignalKind::hangup())?;
        Ok(ReloadChannels { hangup, requests, accepted, status, configurations, counters, reader })
    }

    pub(super) fn forwarding(&self, runtimes: &Runtimes, failures: mpsc::UnboundedSender<String>) -> Forwarding {
        Forwarding::start(self.table.clone(), self.counters.clone(), runtimes.forward.handle(), failures)
    }

    pub(super) fn listener_context(
        &self,
        runtimes: &Runtimes,
        forwarding: &Forwarding,
        supervision: Supervision,
        config: &Config,
    ) -> ListenerContext {
        ListenerContext {
            service: Service::new(self.table.clone(), self.counters.clone(), forwarding.forwarder())
                .with_transfers(self.transferring.transfers()),
            tcp: runtimes.tcp.handle().clone(),
            encrypted: runtimes.encrypted.handle().clone(),
            connections: ConnectionLimits::new(limits(&config.server)),
            supervision,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn admin_state(
        &self,
        ready: watch::Receiver<bool>,
        serving: ServingCheck,
        drains: ActiveDrains,
    ) -> AdminState {
        AdminState {
            table: self.table.clone(),
            process: self.counters.clone(),
            config: self.status.clone(),
            configurations: self.configurations.clone(),
            samples: Samples::default(),
            drains,
            transfers: self.transferring.transfers(),
            ready,
            serving,
            hosts: AllowedHosts::default(),
            started: Instant::now(),
        }
    }

    pub(super) fn resources(&self, snapshot: Option<SnapshotStore>) -> Resources {
        let alternator = NodeClient::counting(self.counters.node_requests.clone());
        Resources {
            shared: SharedReplies::default(),
            pauses: Pauses::default(),
            not_asked: NotAskedLog::default(),
            alternator: alternator.clone(),
            lookup: HostLookup::new(),
            prober: Prober::new(alternator),
            turns: Turns::default(),
            ownership: AddressOwnership::default(),
            counters: self.counters.clone(),
            at_scale: Default::default(),
            snapshot,
        }
    }
}
